//! What a DMA command touches: contiguous runs of memory, rows in scratchpads; and moving the bytes.
//!
//! Models: dense transfers in all four directions, multicast.
//! Does not model: codecs, transforms, gather/scatter, reduction (NotInCap).
//! Source: `isa::npu` (the DMA body).

use isa::npu::registers::FaultCode;
use isa::npu::{Command, Dma, GRANULE};

use crate::config::NpuConfig;
use crate::fault::Fault;
use crate::memory::{BusFault, Content, Memory};

/// A region register: base address and limit in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Region {
    /// Address of offset 0.
    pub base: u64,
    /// Bytes.
    pub limit: u64,
}

/// Where a transfer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Memory to scratchpads.
    Load,
    /// Scratchpad to memory.
    Store,
    /// Scratchpad to scratchpads.
    Copy,
    /// Zero into a scratchpad.
    Fill,
}

/// A checked transfer.
#[derive(Clone, Copy, Debug)]
pub struct Transfer {
    /// Direction.
    pub direction: Direction,
    /// Memory address of the first byte (or remote scratchpad address for `Copy`).
    pub memory: u64,
    /// Own scratchpad address of the first byte.
    pub spm: u64,
    /// Bytes of a row.
    pub row: u64,
    /// Rows of a plane.
    pub rows: u64,
    /// Planes.
    pub planes: u64,
    memory_row: u64,
    memory_plane: u64,
    spm_row: u64,
    spm_plane: u64,
    /// Destination cores, bit mask; 0 = this core.
    pub cores: u64,
}

impl Transfer {
    /// Checks a DMA command against configuration and region.
    ///
    /// # Errors
    /// The fault the hardware raises.
    pub fn new(command: &Command, d: &Dma, region: Region, cfg: &NpuConfig) -> Result<Self, Fault> {
        if command.extension.is_some() {
            return Err(Fault::not_in_cap(d.gs, "indexed DMA"));
        }
        for (value, text) in [
            (d.codec, "DMA codecs"),
            (d.tform, "DMA transforms"),
            (d.gs, "gather and scatter"),
            (d.red, "DMA reduction"),
            (d.zp, "zero padding"),
        ] {
            if value != 0 {
                return Err(Fault::not_in_cap(value, text));
            }
        }
        let (row, rows, planes) = ((d.n0 + 1) * 16, d.n1 + 1, d.n2 + 1);
        let or = |stride: u64, packed: u64| if stride == 0 { packed } else { stride };
        let direction =
            [Direction::Load, Direction::Store, Direction::Copy, Direction::Fill][(d.dir & 3) as usize];
        let memory_row = or(d.mst1 * 16, row);
        let spm_row = or(d.sst1 * GRANULE, row);
        let t = Self {
            direction,
            memory: if direction == Direction::Copy {
                d.moff * GRANULE
            } else {
                region.base.saturating_add(d.moff)
            },
            spm: d.saddr * GRANULE,
            row,
            rows,
            planes,
            memory_row,
            memory_plane: or(d.mst2 * 16, memory_row * rows),
            spm_row,
            spm_plane: or(d.sst2 * GRANULE, spm_row * rows),
            cores: d.cmask,
        };
        let out = d.ch >= u64::from(cfg.dma_in_channels);
        if d.ch >= u64::from(cfg.dma_in_channels + cfg.dma_out_channels) {
            return Err(Fault::not_in_cap(d.ch, "DMA channel"));
        }
        if out != matches!(direction, Direction::Store | Direction::Copy) {
            return Err(Fault::operand(d.ch, "channels that load do not store, and the reverse"));
        }
        if t.span(t.spm_row, t.spm_plane) + t.spm > cfg.scratchpad.get() {
            return Err(Fault::range(t.spm, "a transfer leaves the scratchpad"));
        }
        if d.cmask >> cfg.cores != 0
            || (d.cmask != 0 && matches!(direction, Direction::Store | Direction::Fill))
        {
            return Err(Fault::operand(
                d.cmask,
                "a core mask names cores that do not exist or cannot be written",
            ));
        }
        match direction {
            Direction::Copy if t.span(t.memory_row, t.memory_plane) + t.memory > cfg.scratchpad.get() => {
                Err(Fault::range(t.memory, "a transfer leaves the destination scratchpad"))
            }
            Direction::Load | Direction::Store
                if t.span(t.memory_row, t.memory_plane) + d.moff > region.limit =>
            {
                Err(Fault::new(FaultCode::RegionLimit, d.moff, "a transfer leaves its region"))
            }
            _ => Ok(t),
        }
    }

    const fn span(&self, row: u64, plane: u64) -> u64 {
        (self.planes - 1) * plane + (self.rows - 1) * row + self.row
    }

    /// Bytes moved once.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.row * self.rows * self.planes
    }

    /// Whether memory beyond the cluster takes part.
    #[must_use]
    pub const fn uses_memory(&self) -> bool {
        matches!(self.direction, Direction::Load | Direction::Store)
    }

    /// Cores written, this core included where it is one of them.
    #[must_use]
    pub fn destinations(&self) -> u64 {
        u64::from(self.cores.count_ones()).max(1)
    }

    /// Calls `f(address, bytes)` for every contiguous run of memory.
    pub fn runs(&self, mut f: impl FnMut(u64, u64)) {
        let plane_bytes = self.row * self.rows;
        let dense_rows = self.memory_row == self.row || self.rows == 1;
        if dense_rows && (self.planes == 1 || self.memory_plane == plane_bytes) {
            f(self.memory, plane_bytes * self.planes);
            return;
        }
        for p in 0..self.planes {
            let at = self.memory + p * self.memory_plane;
            if dense_rows {
                f(at, plane_bytes);
            } else {
                (0..self.rows).for_each(|r| f(at + r * self.memory_row, self.row));
            }
        }
    }

    /// Calls `f(memory or remote address, own scratchpad address, bytes)` for every row.
    fn rows(&self, mut f: impl FnMut(u64, usize, usize) -> Result<(), Fault>) -> Result<(), Fault> {
        let narrow = |v: u64| usize::try_from(v).expect("checked against the scratchpad");
        for p in 0..self.planes {
            for r in 0..self.rows {
                let m = self.memory + p * self.memory_plane + r * self.memory_row;
                let s = self.spm + p * self.spm_plane + r * self.spm_row;
                f(m, narrow(s), narrow(self.row))?;
            }
        }
        Ok(())
    }

    /// Reads memory into `spms`, the scratchpads of all destination cores.
    ///
    /// # Errors
    /// If memory does not answer.
    pub fn load(&self, memory: &mut dyn Memory, spms: &mut [&mut Vec<u8>]) -> Result<(), Fault> {
        let mut buffer = vec![0; usize::try_from(self.row).expect("a row is at most 256 KiB")];
        self.rows(|m, s, n| {
            if memory.read(m, &mut buffer[..n]).map_err(bus)? == Content::Stored {
                spms.iter_mut().for_each(|spm| spm[s..s + n].copy_from_slice(&buffer[..n]));
            }
            Ok(())
        })
    }

    /// Writes `spm` to memory.
    ///
    /// # Errors
    /// If memory does not answer.
    pub fn store(&self, memory: &mut dyn Memory, spm: &[u8]) -> Result<(), Fault> {
        self.rows(|m, s, n| memory.write(m, &spm[s..s + n]).map(|_| ()).map_err(bus))
    }

    /// The rows of a `Copy` as (destination address, bytes).
    #[must_use]
    pub fn gather(&self, spm: &[u8]) -> Vec<(usize, Vec<u8>)> {
        let mut out = Vec::new();
        self.rows(|m, s, n| {
            out.push((usize::try_from(m).expect("checked against the scratchpad"), spm[s..s + n].to_vec()));
            Ok(())
        })
        .expect("a scratchpad does not fault");
        out
    }

    /// Zeroes the scratchpad rows.
    pub fn fill(&self, spm: &mut [u8]) {
        self.rows(|_, s, n| {
            spm[s..s + n].fill(0);
            Ok(())
        })
        .expect("a scratchpad does not fault");
    }
}

fn bus(e: BusFault) -> Fault {
    Fault::new(FaultCode::Bus, e.0, "memory does not answer")
}
