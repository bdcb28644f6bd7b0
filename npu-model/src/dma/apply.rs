//! Moving the bytes, in one step.

use core::ops::Range;

use isa::npu::dma::Transform;

use super::coding::{Coding, Table};
use super::lists::{Found, Side};
use super::{Transfer, arrange, bus, reduce};
use crate::fault::Fault;
use crate::memory::{Content, Memory};

/// A row on its way into the scratchpads of a copy's destinations: address and content.
pub type Piece = (usize, Vec<u8>);

fn narrow(v: u64) -> usize {
    usize::try_from(v).expect("checked against the scratchpad")
}

impl Transfer {
    /// Reads `bytes` of memory at a far address, page by page where there are pages.
    fn read_far(
        &self,
        found: &Found,
        at: u64,
        out: &mut [u8],
        memory: &mut dyn Memory,
    ) -> Result<Content, Fault> {
        let Some(pages) = &self.pages else { return memory.read(at, out).map_err(bus) };
        let (mut from, mut content) = (0, Content::Stored);
        for (page, within, n) in pages.pieces(at, out.len() as u64) {
            let n = narrow(n);
            if memory.read(found.pages[&page] + within, &mut out[from..from + n]).map_err(bus)?
                == Content::AddressOnly
            {
                content = Content::AddressOnly;
            }
            from += n;
        }
        Ok(content)
    }

    fn write_far(&self, found: &Found, at: u64, data: &[u8], memory: &mut dyn Memory) -> Result<(), Fault> {
        let Some(pages) = &self.pages else { return memory.write(at, data).map(|_| ()).map_err(bus) };
        let mut from = 0;
        for (page, within, n) in pages.pieces(at, data.len() as u64) {
            let n = narrow(n);
            memory.write(found.pages[&page] + within, &data[from..from + n]).map_err(bus)?;
            from += n;
        }
        Ok(())
    }

    /// The codec's table in the issuing core's scratchpad.
    fn table_place(&self) -> Option<Table> {
        self.coding.table(self.direction, self.plain.0, self.plain.1 * self.plain.2)
    }

    /// The codec's table as the issuing core's scratchpad holds it; empty without one.
    #[must_use]
    pub fn table(&self, spm: &[u8]) -> Vec<u8> {
        self.table_place().map_or(Vec::new(), |t| spm[narrow(t.at)..narrow(t.at + t.bytes)].to_vec())
    }

    /// Part of the table that belongs to a row.
    fn part(table: Option<Table>, row: usize) -> Range<usize> {
        match table {
            None => 0..0,
            Some(t) if t.row == 0 => 0..narrow(t.bytes),
            Some(t) => row * narrow(t.row)..(row + 1) * narrow(t.row),
        }
    }

    /// Writes a row at its destination, reduced into what is there or followed by zeros if the command says so.
    fn land(&self, spm: &mut [u8], at: usize, row: &[u8]) {
        let to = &mut spm[at..at + row.len()];
        match self.reduction {
            Some(r) => reduce::into(r, to, row),
            None => to.copy_from_slice(row),
        }
        let reach = if self.pad { narrow(self.destination().padded().row) } else { 0 };
        if reach > row.len() {
            spm[at + row.len()..at + reach].fill(0);
        }
    }

    /// With padding, zeros the rows of the destination that a short bitmap left out.
    fn zero_missing(&self, found: &Found, spm: &mut [u8]) {
        let to = self.destination();
        let source_listed = self.list.is_some_and(|l| (l.side == Side::Far) == core::ptr::eq(to, &self.own));
        if !self.pad || !source_listed {
            return;
        }
        for p in 0..to.planes {
            for r in self.moved_rows(found)..self.plain.1 {
                let at = narrow(to.row_at(p, r));
                spm[at..at + narrow(to.padded().row)].fill(0);
            }
        }
    }

    /// Reads memory into `spms`, the scratchpads of all destination cores; `table` is the issuing core's.
    ///
    /// Rows whose bytes a shape-only run does not keep are left as they were; so are all of them if the rows
    /// depend on each other.
    ///
    /// # Errors
    /// If memory does not answer, or a stream does not decode; nothing is written then, except rows as they are.
    pub fn load(
        &self,
        found: &Found,
        mut table: Vec<u8>,
        memory: &mut dyn Memory,
        spms: &mut [&mut Vec<u8>],
    ) -> Result<(), Fault> {
        let simple = self.coding == Coding::None && self.tform == Transform::None;
        if simple && self.pages.is_none() && self.reduction.is_none() && !spms.is_empty() {
            return self.load_rows(found, memory, spms);
        }
        let mut far = vec![0; narrow(self.far.row)];
        if simple {
            let own = self.addresses(&self.own, Side::Own, found);
            for (at, to) in self.addresses(&self.far, Side::Far, found).zip(own) {
                if self.read_far(found, at, &mut far, memory)? == Content::Stored {
                    spms.iter_mut().for_each(|spm| self.land(spm, narrow(to), &far));
                }
            }
            spms.iter_mut().for_each(|spm| self.zero_missing(found, spm));
            return Ok(());
        }
        let row = narrow(self.plain.0);
        let moved = narrow(self.moved_rows(found) * self.plain.2);
        let (mut plain, mut stored) = (vec![0; moved * row], vec![true; moved]);
        let place = self.table_place();
        for (i, at) in self.addresses(&self.far, Side::Far, found).enumerate() {
            if self.read_far(found, at, &mut far, memory)? == Content::AddressOnly {
                stored[i] = false;
            } else if let Coding::Stream { codec, .. } = self.coding {
                Coding::decode_stream(codec, &far, &mut plain)?;
            } else {
                let (part, to) = (Self::part(place, i), &mut plain[i * row..][..row]);
                self.coding.decode_row(&far, &mut table[part], to)?;
            }
        }
        let together = self.tform != Transform::None || matches!(self.coding, Coding::Stream { .. });
        if together && stored.contains(&false) {
            return Ok(());
        }
        let rows = self.arranged(plain);
        for spm in spms {
            for (i, at) in self.addresses(&self.own, Side::Own, found).enumerate() {
                if together || stored[i] {
                    self.land(spm, narrow(at), &rows[i * narrow(self.own.row)..][..narrow(self.own.row)]);
                }
            }
            if let Some(t) = place.filter(|t| t.written) {
                for (i, _) in stored.iter().enumerate().filter(|(_, stored)| **stored) {
                    let part = Self::part(place, i);
                    let at = narrow(t.at) + part.start;
                    spm[at..at + part.len()].copy_from_slice(&table[part]);
                }
            }
            self.zero_missing(found, spm);
        }
        Ok(())
    }

    /// Reads rows that nothing is done to: memory puts them where they stay.
    fn load_rows(
        &self,
        found: &Found,
        memory: &mut dyn Memory,
        spms: &mut [&mut Vec<u8>],
    ) -> Result<(), Fault> {
        let Some((first, others)) = spms.split_first_mut() else { return Ok(()) };
        let row = narrow(self.far.row);
        let reach = if self.pad { narrow(self.own.padded().row).max(row) } else { row };
        let own = self.addresses(&self.own, Side::Own, found);
        for (at, to) in self.addresses(&self.far, Side::Far, found).zip(own) {
            let to = narrow(to);
            let landed = &mut first[to..to + reach];
            if memory.read(at, &mut landed[..row]).map_err(bus)? == Content::Stored {
                landed[row..].fill(0);
                others.iter_mut().for_each(|spm| spm[to..to + reach].copy_from_slice(landed));
            }
        }
        self.zero_missing(found, first);
        others.iter_mut().for_each(|spm| self.zero_missing(found, spm));
        Ok(())
    }

    /// Plain rows as they lie in the own scratchpad, without its strides.
    fn arranged(&self, plain: Vec<u8>) -> Vec<u8> {
        if self.tform == Transform::None {
            return plain;
        }
        let (own, rows) = (narrow(self.own.row * self.own.rows), narrow(self.plain.1));
        let mut out = vec![0; own * narrow(self.plain.2)];
        for (plane, to) in plain.chunks_exact(narrow(self.plain.0) * rows).zip(out.chunks_exact_mut(own)) {
            arrange::forward(self.tform, plane, rows, to);
        }
        out
    }

    /// Plain rows of the own scratchpad.
    fn plain_rows(&self, found: &Found, spm: &[u8]) -> Vec<u8> {
        let mut own = Vec::with_capacity(narrow(self.own.bytes()));
        for at in self.addresses(&self.own, Side::Own, found) {
            own.extend_from_slice(&spm[narrow(at)..narrow(at + self.own.row)]);
        }
        if self.tform == Transform::None {
            return own;
        }
        let rows = narrow(self.plain.1);
        let mut out = vec![0; narrow(self.plain.0 * self.plain.2) * rows];
        let planes = own.chunks_exact(narrow(self.own.row * self.own.rows));
        for (plane, to) in planes.zip(out.chunks_exact_mut(narrow(self.plain.0) * rows)) {
            arrange::backward(self.tform, plane, rows, to);
        }
        out
    }

    /// Writes `spm` to memory, and the codec's table to `spm`.
    ///
    /// # Errors
    /// If memory does not answer.
    pub fn store(&self, found: &Found, memory: &mut dyn Memory, spm: &mut [u8]) -> Result<(), Fault> {
        if self.coding == Coding::None && self.tform == Transform::None && self.reduction.is_none() {
            let own = self.addresses(&self.own, Side::Own, found);
            return self.addresses(&self.far, Side::Far, found).zip(own).try_for_each(|(at, from)| {
                self.write_far(found, at, &spm[narrow(from)..narrow(from + self.own.row)], memory)
            });
        }
        let plain = self.plain_rows(found, spm);
        let (mut table, place) = (self.table(spm), self.table_place());
        let mut far = vec![0; narrow(self.far.row)];
        let rows = plain.chunks_exact(narrow(self.plain.0)).enumerate();
        for (at, (i, row)) in self.addresses(&self.far, Side::Far, found).zip(rows) {
            if let Some(r) = self.reduction {
                self.read_far(found, at, &mut far, memory)?;
                reduce::into(r, &mut far, row);
                self.write_far(found, at, &far, memory)?;
            } else if self.coding == Coding::None {
                self.write_far(found, at, row, memory)?;
            } else {
                far.fill(0);
                self.coding.encode_row(row, &mut far, &mut table[Self::part(place, i)]);
                self.write_far(found, at, &far, memory)?;
            }
        }
        if let Some(t) = place.filter(|t| t.written) {
            spm[narrow(t.at)..narrow(t.at + t.bytes)].copy_from_slice(&table);
        }
        Ok(())
    }

    /// The rows of a copy, to be [`deliver`](Self::deliver)ed to every destination.
    #[must_use]
    pub fn pieces(&self, found: &Found, spm: &[u8]) -> Vec<Piece> {
        let plain = self.plain_rows(found, spm);
        self.addresses(&self.far, Side::Far, found)
            .zip(plain.chunks_exact(narrow(self.plain.0)))
            .map(|(to, row)| (narrow(to), row.to_vec()))
            .collect()
    }

    /// Writes the rows of a copy into a destination.
    pub fn deliver(&self, found: &Found, pieces: &[Piece], spm: &mut [u8]) {
        pieces.iter().for_each(|(at, row)| self.land(spm, *at, row));
        self.zero_missing(found, spm);
    }

    /// Fills the scratchpad rows.
    pub fn fill(&self, spm: &mut [u8]) {
        for at in self.addresses(&self.own, Side::Own, &Found::default()) {
            for word in spm[narrow(at)..narrow(at + self.own.row)].chunks_exact_mut(4) {
                word.copy_from_slice(&self.word.to_le_bytes());
            }
        }
    }
}
