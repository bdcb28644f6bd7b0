//! From command to checked transfer: every field used or zero, every byte known to lie in its memory.

use isa::npu::dma::{Addressing, Codec, DmaDirection, PAGE_ENTRY_BYTES, PAGE_LOG2, Reduction, Transform};
use isa::npu::registers::FaultCode;
use isa::npu::{Command, Dma, Extension, GRANULE, Index};

use super::arrange;
use super::coding::Coding;
use super::grid::Grid;
use super::lists::{List, Pages, Side};
use super::{Direction, Region, Transfer};
use crate::config::NpuConfig;
use crate::fault::Fault;

/// A command's fields by name.
struct Fields<'a> {
    d: &'a Dma,
    x: Option<&'a Index>,
    direction: Direction,
    codec: Codec,
    tform: Transform,
    gs: Addressing,
}

impl<'a> Fields<'a> {
    fn new(command: &'a Command, d: &'a Dma) -> Result<Self, Fault> {
        let x = match &command.extension {
            None => None,
            Some(Extension::Index(x)) => Some(x),
            Some(_) => return Err(Fault::command(0, "a DMA takes only the index extension")),
        };
        let direction = match DmaDirection::from_code(d.dir) {
            Some(DmaDirection::Load) => Direction::Load,
            Some(DmaDirection::Store) => Direction::Store,
            Some(DmaDirection::Copy) => Direction::Copy,
            Some(DmaDirection::Fill) => Direction::Fill,
            None => return Err(Fault::command(d.dir, "dir")),
        };
        let f = Self {
            d,
            x,
            direction,
            codec: Codec::from_code(d.codec).ok_or(Fault::command(d.codec, "codec"))?,
            tform: Transform::from_code(d.tform).ok_or(Fault::command(d.tform, "tform"))?,
            gs: Addressing::from_code(d.gs).ok_or(Fault::command(d.gs, "gs"))?,
        };
        f.extension_fields()?;
        Ok(f)
    }

    /// Fields of the extension that this transfer does not use are zero, and what needs it has it.
    fn extension_fields(&self) -> Result<(), Fault> {
        let coded = self.codec != Codec::None;
        let listed = matches!(self.gs, Addressing::Gather | Addressing::Scatter);
        let Some(x) = self.x else {
            let needed = listed || self.gs == Addressing::Paged || coded;
            return if needed {
                Err(Fault::operand(self.d.codec, "lists, pages and codecs need the index extension"))
            } else {
                Ok(())
            };
        };
        let kv = matches!(self.codec, Codec::KvQuantise | Codec::KvDequantise);
        let paged = self.gs == Addressing::Paged;
        let remote = self.direction == Direction::Copy && self.d.cmask == 0;
        let used = [
            (x.idx | x.ifm, listed),
            (x.icnt | x.ibound, listed || paged),
            (x.plog | x.ptab, paged),
            (x.rcore | x.raddr, remote),
            (x.rop, self.d.red == 1),
            (x.qgrp, kv),
            (x.qs, kv || matches!(self.codec, Codec::Palette | Codec::MxSplit)),
            (x.qf, self.codec.code() >= Codec::Palette.code() && self.codec != Codec::Sparse24),
            (x.ef, matches!(self.codec, Codec::Palette | Codec::Sparse24)),
            (x.clen, matches!(self.codec, Codec::ZeroRle | Codec::Entropy)),
        ];
        match used.iter().find(|(value, used)| *value != 0 && !used) {
            Some((v, _)) => Err(Fault::operand(*v, "this transfer does not use a field of its extension")),
            None => Ok(()),
        }
    }

    fn channel(&self, cfg: &NpuConfig) -> Result<(), Fault> {
        let ch = self.d.ch;
        if ch >= u64::from(cfg.dma_in_channels + cfg.dma_out_channels) {
            return Err(Fault::not_in_cap(ch, "DMA channel"));
        }
        let out = ch >= u64::from(cfg.dma_in_channels);
        if out != matches!(self.direction, Direction::Store | Direction::Copy) {
            return Err(Fault::operand(ch, "channels that load do not store, and the reverse"));
        }
        Ok(())
    }

    /// Destination cores and, of a copy, the destination address.
    fn destination(&self, cfg: &NpuConfig) -> Result<(u64, u64), Fault> {
        let mask = self.d.cmask;
        if mask >> cfg.cores != 0
            || (mask != 0 && matches!(self.direction, Direction::Store | Direction::Fill))
        {
            return Err(Fault::operand(
                mask,
                "a core mask names cores that do not exist or cannot be written",
            ));
        }
        match self.x {
            Some(x) if self.direction == Direction::Copy && mask == 0 => {
                if x.rcore >= u64::from(cfg.cores) {
                    return Err(Fault::operand(x.rcore, "rcore: there is no such core"));
                }
                if self.d.moff != 0 {
                    return Err(Fault::operand(self.d.moff, "moff: raddr is the destination"));
                }
                Ok((1 << x.rcore, x.raddr * GRANULE))
            }
            _ => Ok((mask, self.d.moff * GRANULE)),
        }
    }

    fn list(&self) -> Result<Option<List>, Fault> {
        let reads_far = self.direction == Direction::Load;
        let far = match self.gs {
            Addressing::Dense | Addressing::Paged => return Ok(None),
            Addressing::Gather => reads_far,
            Addressing::Scatter => !reads_far,
        };
        let x = self.x.expect("checked with the extension's fields");
        let list = List {
            side: if far { Side::Far } else { Side::Own },
            at: x.idx * GRANULE,
            log2: x.ifm + 1,
            bitmap: x.ifm == 3,
            count: x.icnt + 1,
            bound: x.ibound,
        };
        if !list.bitmap && list.count < self.d.n1 + 1 {
            return Err(Fault::operand(x.icnt, "icnt: fewer entries than rows"));
        }
        Ok(Some(list))
    }

    /// One stream in memory, whatever the rows.
    fn streamed(&self) -> bool {
        matches!(self.codec, Codec::ZeroRle | Codec::Entropy)
    }

    /// What does not go together; the reduction if there is one.
    fn combinations(&self, list: Option<List>) -> Result<Option<Reduction>, Fault> {
        let (d, direction) = (self.d, self.direction);
        let plain = [d.codec, d.tform, d.gs, d.red, d.zp];
        if direction == Direction::Fill && plain != [0; 5] {
            return Err(Fault::operand(0, "a fill takes no codec, arrangement, list, reduction or padding"));
        }
        if d.zp == 1 && direction == Direction::Store {
            return Err(Fault::operand(d.zp, "zp: only scratchpads are padded"));
        }
        if self.streamed() && (list.is_some() || d.mst1 | d.mst2 != 0) {
            return Err(Fault::operand(d.codec, "codec: a stream has no rows in memory"));
        }
        if self.tform != Transform::None && list.is_some_and(|l| l.bitmap || l.side == Side::Own) {
            return Err(Fault::operand(d.tform, "tform: an arrangement needs all rows in order"));
        }
        if self.tform == Transform::Tiles && d.sst1 != 0 {
            return Err(Fault::operand(d.sst1, "sst1: tiles are packed"));
        }
        if d.red == 0 {
            return Ok(None);
        }
        let reduction = Reduction::from_code(self.x.map_or(0, |x| x.rop));
        if self.tform != Transform::None || (self.codec != Codec::None && direction == Direction::Store) {
            return Err(Fault::operand(d.red, "red: rows are reduced as they are"));
        }
        reduction.map(Some).ok_or(Fault::command(self.x.map_or(0, |x| x.rop), "rop"))
    }

    fn pages(&self, region: Region) -> Result<Option<Pages>, Fault> {
        if self.gs != Addressing::Paged {
            return Ok(None);
        }
        let x = self.x.expect("checked with the extension's fields");
        if !matches!(self.direction, Direction::Load | Direction::Store) {
            return Err(Fault::operand(self.d.gs, "gs: only memory has pages"));
        }
        if !PAGE_LOG2.contains(&x.plog) {
            return Err(Fault::operand(x.plog, "plog: pages have 64 bytes to 16 MiB"));
        }
        let end = x.ptab + (x.icnt + 1) * PAGE_ENTRY_BYTES;
        if end > region.limit || region.base.checked_add(region.limit).is_none() {
            return Err(Fault::new(FaultCode::RegionLimit, x.ptab, "the page table leaves its region"));
        }
        Ok(Some(Pages {
            region,
            table: region.base + x.ptab,
            log2: x.plog,
            count: x.icnt + 1,
            bound: x.ibound,
        }))
    }
}

impl Transfer {
    /// Checks a DMA command against configuration and region.
    ///
    /// # Errors
    /// The fault the hardware raises.
    pub fn new(command: &Command, d: &Dma, region: Region, cfg: &NpuConfig) -> Result<Self, Fault> {
        let f = Fields::new(command, d)?;
        f.channel(cfg)?;
        let (list, pages) = (f.list()?, f.pages(region)?);
        let reduction = f.combinations(list)?;
        let (cores, remote) = f.destination(cfg)?;
        let plain = ((d.n0 + 1) * 16, d.n1 + 1, d.n2 + 1);
        let coding = Coding::new(f.codec, f.x, f.direction, plain.0)?;
        let (own_row, own_rows) = arrange::shape(f.tform, (plain.0, plain.1), d.zp == 1)?;
        let own =
            Grid::new(d.saddr * GRANULE, (own_row, own_rows, plain.2), (d.sst1 * GRANULE, d.sst2 * GRANULE));
        let at = match f.direction {
            Direction::Copy => remote,
            _ if pages.is_some() => d.moff,
            _ => region.base.saturating_add(d.moff),
        };
        let far_row = coding.far_row(plain.0);
        let far_shape = if f.streamed() { (far_row, 1, 1) } else { (far_row, plain.1, plain.2) };
        let far = Grid::new(at, far_shape, (d.mst1 * 16, d.mst2 * 16));
        let word = if f.direction == Direction::Fill {
            u32::try_from(d.moff).map_err(|_| Fault::operand(d.moff, "moff: a fill takes 32 bits"))?
        } else {
            0
        };
        let t = Self {
            direction: f.direction,
            cores,
            far,
            own,
            plain,
            coding,
            tform: f.tform,
            list,
            pages,
            reduction,
            pad: d.zp == 1,
            word,
        };
        t.own_range(cfg)?;
        t.far_range(d.moff, region, cfg)?;
        Ok(t)
    }

    /// Parts of a destination's scratchpad that the transfer may write: (address, bytes).
    pub fn written(&self) -> impl Iterator<Item = (u64, u64)> + use<> {
        let side = if self.direction == Direction::Copy { Side::Far } else { Side::Own };
        let to = self.reach(self.destination());
        let rows = (self.direction != Direction::Store).then(|| (to.at, to.span(self.last(side))));
        let table = self.coding.table(self.direction, self.plain.0, self.plain.1 * self.plain.2);
        rows.into_iter().chain(table.filter(|t| t.written).map(|t| (t.at, t.bytes)))
    }

    /// A side's rows as far as they are written.
    fn reach(&self, grid: &Grid) -> Grid {
        if self.pad && core::ptr::eq(grid, self.destination()) { grid.padded() } else { *grid }
    }

    /// Largest row number of a side.
    fn last(&self, side: Side) -> u64 {
        match self.list {
            Some(l) if l.side == side => l.last(),
            _ => (if side == Side::Own { self.own } else { self.far }).rows - 1,
        }
    }

    fn own_range(&self, cfg: &NpuConfig) -> Result<(), Fault> {
        let (own, last) = (self.reach(&self.own), self.last(Side::Own));
        if own.span(last) + own.at > cfg.scratchpad.get() {
            return Err(Fault::range(own.at, "a transfer leaves the scratchpad"));
        }
        if !own.disjoint(last) {
            return Err(Fault::operand(own.pitch(), "rows overlap in the scratchpad"));
        }
        if let Some(l) = self.list
            && l.at + l.bytes() > cfg.scratchpad.get()
        {
            return Err(Fault::range(l.at, "the index list leaves the scratchpad"));
        }
        match self.coding.table(self.direction, self.plain.0, self.plain.1 * self.plain.2) {
            Some(t) if t.at + t.bytes > cfg.scratchpad.get() => {
                Err(Fault::range(t.at, "the codec's table leaves the scratchpad"))
            }
            _ => Ok(()),
        }
    }

    fn far_range(&self, moff: u64, region: Region, cfg: &NpuConfig) -> Result<(), Fault> {
        let (far, last) = (self.reach(&self.far), self.last(Side::Far));
        let span = far.span(last);
        if matches!(self.direction, Direction::Store | Direction::Copy) && !far.disjoint(last) {
            return Err(Fault::operand(far.pitch(), "rows overlap at the destination"));
        }
        match (self.direction, self.pages) {
            (Direction::Fill, _) => Ok(()),
            (Direction::Copy, _) if span + far.at > cfg.scratchpad.get() => {
                Err(Fault::range(far.at, "a transfer leaves the destination scratchpad"))
            }
            (Direction::Copy, _) => Ok(()),
            (_, Some(p)) if span + moff > p.count << p.log2 => {
                Err(Fault::new(FaultCode::IndexBound, moff, "a transfer leaves its page table"))
            }
            (_, Some(_)) => Ok(()),
            (_, None) if span + moff > region.limit || region.base.checked_add(span + moff).is_none() => {
                Err(Fault::new(FaultCode::RegionLimit, moff, "a transfer leaves its region"))
            }
            _ => Ok(()),
        }
    }
}
