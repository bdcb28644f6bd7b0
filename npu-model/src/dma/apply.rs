//! Moving the bytes, in one step.

use super::coding::Coding;
use super::lists::{Found, Side};
use super::{Transfer, bus};
use crate::fault::Fault;
use crate::memory::{Content, Memory};

/// Bytes on their way into the scratchpads of all destinations: address and content.
pub type Pieces = Vec<(usize, Vec<u8>)>;

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

    /// The codec's table as the issuing core's scratchpad holds it; empty without one.
    #[must_use]
    pub fn table(&self, spm: &[u8]) -> Vec<u8> {
        match self.coding.table(self.own.rows * self.own.planes) {
            Some((at, bytes)) => spm[narrow(at)..narrow(at + bytes)].to_vec(),
            None => Vec::new(),
        }
    }

    /// Part of the table that belongs to a row, of `rows` rows.
    fn part(&self, row: usize, len: usize) -> core::ops::Range<usize> {
        let each = len / narrow(self.own.rows * self.own.planes);
        row * each..(row + 1) * each
    }

    /// Reads memory into `spms`, the scratchpads of all destination cores; `table` is the issuing core's.
    ///
    /// Rows whose bytes a shape-only run does not keep are left as they were.
    ///
    /// # Errors
    /// If memory does not answer.
    pub fn load(
        &self,
        found: &Found,
        table: &[u8],
        memory: &mut dyn Memory,
        spms: &mut [&mut Vec<u8>],
    ) -> Result<(), Fault> {
        let mut far = vec![0; narrow(self.far.row)];
        let mut plain = vec![0; narrow(self.own.row)];
        let own: Vec<u64> = self.addresses(&self.own, Side::Own, found).collect();
        for (i, at) in self.addresses(&self.far, Side::Far, found).enumerate() {
            if self.read_far(found, at, &mut far, memory)? == Content::AddressOnly {
                continue;
            }
            let row = if self.coding == Coding::None {
                &far
            } else {
                self.coding.decode_row(&far, &table[self.part(i, table.len())], &mut plain);
                &plain
            };
            let to = narrow(own[i]);
            spms.iter_mut().for_each(|spm| spm[to..to + row.len()].copy_from_slice(row));
        }
        Ok(())
    }

    /// Writes `spm` to memory, and the codec's table to `spm`.
    ///
    /// # Errors
    /// If memory does not answer.
    pub fn store(&self, found: &Found, memory: &mut dyn Memory, spm: &mut [u8]) -> Result<(), Fault> {
        let own: Vec<u64> = self.addresses(&self.own, Side::Own, found).collect();
        let mut table = self.table(spm);
        for (i, at) in self.addresses(&self.far, Side::Far, found).enumerate() {
            let row = &spm[narrow(own[i])..narrow(own[i] + self.own.row)];
            if self.coding == Coding::None {
                self.write_far(found, at, row, memory)?;
            } else {
                let mut far = vec![0; narrow(self.far.row)];
                let part = self.part(i, table.len());
                self.coding.encode_row(row, &mut far, &mut table[part]);
                self.write_far(found, at, &far, memory)?;
            }
        }
        if let Some((at, bytes)) = self.coding.table(self.own.rows * self.own.planes) {
            spm[narrow(at)..narrow(at + bytes)].copy_from_slice(&table);
        }
        Ok(())
    }

    /// The rows of a copy as (destination address, bytes).
    #[must_use]
    pub fn pieces(&self, found: &Found, spm: &[u8]) -> Pieces {
        self.addresses(&self.far, Side::Far, found)
            .zip(self.addresses(&self.own, Side::Own, found))
            .map(|(to, from)| (narrow(to), spm[narrow(from)..narrow(from + self.own.row)].to_vec()))
            .collect()
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
