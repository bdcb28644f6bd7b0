//! What a transfer reads before it knows its addresses: the index list in the scratchpad, the page table in memory.

use std::collections::BTreeMap;

use isa::npu::dma::PAGE_ENTRY_BYTES;
use isa::npu::registers::FaultCode;

use super::{Region, bus};
use crate::fault::Fault;
use crate::memory::Memory;

/// The side of a transfer a list's entries number the rows of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// Memory, or the destination scratchpad of a copy.
    Far,
    /// The own scratchpad.
    Own,
}

/// An index list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct List {
    pub side: Side,
    pub at: u64,
    /// log2 of an entry's bytes, unless it is a bitmap.
    pub log2: u64,
    pub bitmap: bool,
    pub count: u64,
    pub bound: u64,
}

impl List {
    /// Bytes of the list.
    pub(super) const fn bytes(&self) -> u64 {
        if self.bitmap { self.count.div_ceil(8) } else { self.count << self.log2 }
    }

    /// Largest row number that does not fault.
    pub(super) const fn last(&self) -> u64 {
        if self.bitmap && self.count - 1 < self.bound { self.count - 1 } else { self.bound }
    }

    /// The first `rows` entries.
    pub(super) fn read(&self, spm: &[u8], rows: u64) -> Result<Vec<u64>, Fault> {
        let bytes = usize::try_from(self.at)
            .ok()
            .zip(usize::try_from(self.bytes()).ok())
            .and_then(|(at, n)| spm.get(at..at.checked_add(n)?))
            .ok_or(Fault::range(self.at, "the index list leaves the scratchpad"))?;
        let wanted = usize::try_from(rows).unwrap_or(usize::MAX);
        let list: Vec<u64> = if self.bitmap {
            (0..self.count)
                .filter(|i| bytes[usize::try_from(i / 8).expect("at most 8 KiB")] >> (i % 8) & 1 == 1)
                .take(wanted)
                .collect()
        } else {
            let entry = |b: &[u8]| b.iter().rev().fold(0, |v, x| v << 8 | u64::from(*x));
            bytes.chunks_exact(1 << self.log2).map(entry).take(wanted).collect()
        };
        match list.iter().find(|i| **i > self.bound) {
            Some(i) => Err(Fault::new(FaultCode::IndexBound, *i, "an index exceeds its bound")),
            None => Ok(list),
        }
    }
}

/// A page table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pages {
    pub region: Region,
    pub table: u64,
    pub log2: u64,
    pub count: u64,
    pub bound: u64,
}

impl Pages {
    /// Reads the entry of a logical page into `known`, unless it is there.
    pub(super) fn walk(
        &self,
        page: u64,
        known: &mut BTreeMap<u64, u64>,
        memory: &mut dyn Memory,
    ) -> Result<(), Fault> {
        if known.contains_key(&page) {
            return Ok(());
        }
        let mut entry = [0; PAGE_ENTRY_BYTES as usize];
        memory.read(self.entry(page), &mut entry).map_err(bus)?;
        let number = u64::from(u32::from_le_bytes(entry));
        if number > self.bound {
            return Err(Fault::new(FaultCode::IndexBound, number, "a page number exceeds its bound"));
        }
        if (number + 1) << self.log2 > self.region.limit {
            return Err(Fault::new(FaultCode::RegionLimit, number, "a page leaves its region"));
        }
        known.insert(page, self.region.base + (number << self.log2));
        Ok(())
    }

    /// Address of an entry.
    pub(super) const fn entry(&self, page: u64) -> u64 {
        self.table + page * PAGE_ENTRY_BYTES
    }

    /// The parts of a range as (logical page, offset in it, bytes).
    pub(super) fn pieces(&self, at: u64, bytes: u64) -> impl Iterator<Item = (u64, u64, u64)> + use<> {
        let (log2, end) = (self.log2, at + bytes);
        (at >> log2..=(end - 1) >> log2).map(move |page| {
            let (from, to) = (at.max(page << log2), end.min((page + 1) << log2));
            (page, from - (page << log2), to - from)
        })
    }
}

/// What a transfer found in its list and its page table.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Row numbers of the indexed side.
    pub(super) list: Option<Vec<u64>>,
    /// Address of each logical page.
    pub(super) pages: BTreeMap<u64, u64>,
}
