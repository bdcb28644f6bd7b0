//! The bytes of modelled memory: sparse 64 KiB pages inside declared regions.
//!
//! Models: content, residency, regions that are addressed but not stored, LR/SC reservations, code lines.
//! Does not model: time; that is the business of caches, fabric and DRAM.
//! Source: none needed, it is storage.
#![allow(
    clippy::cast_possible_truncation,
    reason = "offsets inside a 64 KiB page and values cut to their access size"
)]

use sim_kernel::{Addr, Bytes};

const PAGE_SHIFT: u32 = 16;
const PAGE_BYTES: usize = 1 << PAGE_SHIFT;
/// Granularity at which code and reservations are tracked.
const LINE_SHIFT: u32 = 6;

/// Why an access to memory failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemoryFault {
    /// No region holds the address.
    #[error("no memory at {0:#x}")]
    Unmapped(u64),
    /// The region is addressed but not stored.
    #[error("memory at {0:#x} is address-only: this run keeps no bytes there")]
    AddressOnly(u64),
}

/// Why a region could not be declared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegionError {
    /// Base or size is not a multiple of 64 KiB, or the size is zero.
    #[error("region {base:#x} + {bytes:#x} must be a non-empty multiple of 64 KiB")]
    Unaligned {
        /// First address.
        base: u64,
        /// Size.
        bytes: u64,
    },
    /// It overlaps a region or reaches past the end of the address space.
    #[error("region {base:#x} + {bytes:#x} overlaps another or wraps around")]
    Overlap {
        /// First address.
        base: u64,
        /// Size.
        bytes: u64,
    },
    /// An address-only range must lie inside one region.
    #[error("address-only range {base:#x} + {bytes:#x} is not inside one region")]
    Outside {
        /// First address.
        base: u64,
        /// Size.
        bytes: u64,
    },
}

#[derive(Clone, Debug)]
struct Page {
    data: [u8; PAGE_BYTES],
    /// Some bit of `marks` is set.
    marked: bool,
    /// One bit per 64-byte line that a hart has decoded or that is watched.
    marks: [u64; PAGE_BYTES >> LINE_SHIFT >> 6],
}

impl Page {
    fn new() -> Box<Self> {
        Box::new(Self { data: [0; PAGE_BYTES], marked: false, marks: [0; PAGE_BYTES >> LINE_SHIFT >> 6] })
    }
}

#[derive(Clone, Debug, Default)]
struct Region {
    base: u64,
    pages: Vec<Option<Box<Page>>>,
    /// Sorted, disjoint, as page numbers inside the region.
    address_only: Vec<core::ops::Range<usize>>,
}

impl Region {
    fn is_address_only(&self, page: usize) -> bool {
        self.address_only.iter().any(|range| range.contains(&page))
    }
}

/// How much memory is resident.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Residency {
    /// Pages of 64 KiB that hold bytes.
    pub pages: u64,
    /// Bytes declared in all regions.
    pub declared_bytes: u64,
    /// Of these, bytes that are addressed but not stored.
    pub address_only_bytes: u64,
}

/// Sparse guest memory.
#[derive(Clone, Debug, Default)]
pub struct GuestMemory {
    /// The region with the fast path, empty until one is declared: declare DRAM first.
    main: Region,
    others: Vec<Region>,
    /// Hart and line of every outstanding load-reserved.
    reservations: Vec<(usize, u64)>,
    code_epoch: u64,
    watched: Vec<u64>,
    watch_hit: bool,
}

impl GuestMemory {
    /// No memory at all.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Declares `bytes` of zeroed memory at `base`. The first region declared is the fastest: let it be DRAM.
    ///
    /// # Errors
    /// If the region is not made of whole 64 KiB pages or overlaps another.
    pub fn add_region(&mut self, base: Addr, bytes: Bytes) -> Result<(), RegionError> {
        let (base, bytes) = (base.get(), bytes.get());
        if bytes == 0 || (base | bytes) % PAGE_BYTES as u64 != 0 {
            return Err(RegionError::Unaligned { base, bytes });
        }
        let end = base.checked_add(bytes).ok_or(RegionError::Overlap { base, bytes })?;
        let clash = self.regions().any(|r| base < r.base + r.bytes() && r.base < end);
        let pages = usize::try_from(bytes >> PAGE_SHIFT).map_err(|_| RegionError::Overlap { base, bytes })?;
        if clash {
            return Err(RegionError::Overlap { base, bytes });
        }
        let region = Region { base, pages: vec![None; pages], address_only: Vec::new() };
        if self.main.pages.is_empty() {
            self.main = region;
        } else {
            self.others.push(region);
        }
        Ok(())
    }

    /// Makes whole pages of a region address-only: any later access to them faults, and they store nothing.
    ///
    /// # Errors
    /// If the range is not made of whole pages inside one region.
    pub fn make_address_only(&mut self, base: Addr, bytes: Bytes) -> Result<(), RegionError> {
        let (base, bytes) = (base.get(), bytes.get());
        if bytes == 0 || (base | bytes) % PAGE_BYTES as u64 != 0 {
            return Err(RegionError::Unaligned { base, bytes });
        }
        let end = base.checked_add(bytes).ok_or(RegionError::Outside { base, bytes })?;
        let region = self
            .regions_mut()
            .find(|r| base >= r.base && end <= r.base + r.bytes())
            .ok_or(RegionError::Outside { base, bytes })?;
        let first = ((base - region.base) >> PAGE_SHIFT) as usize;
        let range = first..first + (bytes >> PAGE_SHIFT) as usize;
        region.pages[range.clone()].fill(None);
        region.address_only.push(range);
        Ok(())
    }

    /// Resident pages and declared sizes.
    #[must_use]
    pub fn residency(&self) -> Residency {
        let mut r = Residency::default();
        for region in self.regions() {
            r.declared_bytes += region.bytes();
            r.pages += region.pages.iter().filter(|p| p.is_some()).count() as u64;
            let hidden = (0..region.pages.len()).filter(|&p| region.is_address_only(p)).count();
            r.address_only_bytes += (hidden as u64) << PAGE_SHIFT;
        }
        r
    }

    /// Whether some region holds the address (stored or address-only).
    #[inline]
    #[must_use]
    pub fn contains(&self, addr: u64) -> bool {
        self.regions().any(|r| addr.wrapping_sub(r.base) < r.bytes())
    }

    fn regions(&self) -> impl Iterator<Item = &Region> {
        core::iter::once(&self.main).chain(&self.others)
    }

    fn regions_mut(&mut self) -> impl Iterator<Item = &mut Region> {
        core::iter::once(&mut self.main).chain(&mut self.others)
    }

    /// A region by its place in the order of `regions`.
    fn region(&self, index: usize) -> &Region {
        if index == 0 { &self.main } else { &self.others[index - 1] }
    }

    fn region_mut(&mut self, index: usize) -> &mut Region {
        if index == 0 { &mut self.main } else { &mut self.others[index - 1] }
    }

    #[inline(always)]
    fn fast_page(&self, addr: u64) -> Option<&Page> {
        let index = addr.wrapping_sub(self.main.base) >> PAGE_SHIFT;
        self.main.pages.get(index as usize)?.as_deref()
    }

    #[inline(always)]
    fn fast_page_mut(&mut self, addr: u64) -> Option<&mut Page> {
        let index = addr.wrapping_sub(self.main.base) >> PAGE_SHIFT;
        self.main.pages.get_mut(index as usize)?.as_deref_mut()
    }

    /// Reads `N` little-endian bytes, `None` if that needs the slow path.
    #[inline(always)]
    fn read_fast<const N: usize>(&self, addr: u64) -> Option<[u8; N]> {
        let offset = addr as usize & (PAGE_BYTES - 1);
        self.fast_page(addr)?.data.get(offset..offset + N)?.try_into().ok()
    }

    /// Reads an unsigned value of `N` bytes (1, 2, 4 or 8), any alignment.
    ///
    /// # Errors
    /// If any byte is unmapped or address-only.
    #[inline(always)]
    pub fn read<const N: usize>(&self, addr: u64) -> Result<u64, MemoryFault> {
        let mut value = [0; 8];
        if let Some(bytes) = self.read_fast::<N>(addr) {
            value[..N].copy_from_slice(&bytes);
            return Ok(u64::from_le_bytes(value));
        }
        self.read_slow::<N>(addr)
    }

    #[cold]
    #[inline(never)]
    fn read_slow<const N: usize>(&self, addr: u64) -> Result<u64, MemoryFault> {
        let mut value = [0; 8];
        self.read_bytes(Addr::new(addr), &mut value[..N])?;
        Ok(u64::from_le_bytes(value))
    }

    /// Writes the low `N` bytes (1, 2, 4 or 8) of a value, any alignment. `true` if the write touched a line that
    /// holds decoded code or is watched.
    ///
    /// # Errors
    /// If any byte is unmapped or address-only; then nothing is written.
    #[inline(always)]
    pub fn write<const N: usize>(&mut self, addr: u64, value: u64) -> Result<bool, MemoryFault> {
        if self.reservations.is_empty()
            && let Some(page) = self.fast_page_mut(addr)
            && !page.marked
        {
            let offset = addr as usize & (PAGE_BYTES - 1);
            if let Some(slot) = page.data.get_mut(offset..offset + N) {
                slot.copy_from_slice(&value.to_le_bytes()[..N]);
                return Ok(false);
            }
        }
        self.write_slow(addr, &value.to_le_bytes()[..N])
    }

    #[inline(never)]
    fn write_slow(&mut self, addr: u64, bytes: &[u8]) -> Result<bool, MemoryFault> {
        let before = self.code_epoch;
        self.write_bytes(Addr::new(addr), bytes)?;
        Ok(self.code_epoch != before || self.watch_hit)
    }

    fn locate(&self, addr: u64) -> Result<(usize, usize), MemoryFault> {
        let (r, region) = self
            .regions()
            .enumerate()
            .find(|(_, r)| addr.wrapping_sub(r.base) < r.bytes())
            .ok_or(MemoryFault::Unmapped(addr))?;
        let page = ((addr - region.base) >> PAGE_SHIFT) as usize;
        if region.is_address_only(page) { Err(MemoryFault::AddressOnly(addr)) } else { Ok((r, page)) }
    }

    /// Calls `each` with every page part of a range, after checking that the whole range is stored memory.
    fn check_range(&self, addr: u64, bytes: usize) -> Result<(), MemoryFault> {
        let mut at = addr;
        let mut left = bytes as u64;
        while left > 0 {
            self.locate(at)?;
            let part = (PAGE_BYTES as u64 - at % PAGE_BYTES as u64).min(left);
            left -= part;
            if left > 0 {
                at = at.checked_add(part).ok_or(MemoryFault::Unmapped(u64::MAX))?;
            }
        }
        Ok(())
    }

    /// Copies bytes out of memory.
    ///
    /// # Errors
    /// If any byte is unmapped or address-only; then nothing is copied.
    pub fn read_bytes(&self, addr: Addr, out: &mut [u8]) -> Result<(), MemoryFault> {
        let mut at = addr.get();
        // A range inside one page is found or not at its first byte.
        if (at as usize & (PAGE_BYTES - 1)) + out.len() > PAGE_BYTES {
            self.check_range(at, out.len())?;
        }
        let mut out = out;
        while !out.is_empty() {
            let (r, page) = self.locate(at)?;
            let offset = at as usize & (PAGE_BYTES - 1);
            let part = (PAGE_BYTES - offset).min(out.len());
            let (head, tail) = out.split_at_mut(part);
            match &self.region(r).pages[page] {
                Some(page) => head.copy_from_slice(&page.data[offset..offset + part]),
                None => head.fill(0),
            }
            out = tail;
            at = at.wrapping_add(part as u64);
        }
        Ok(())
    }

    /// Copies bytes into memory, breaking reservations and noticing writes into code.
    ///
    /// # Errors
    /// If any byte is unmapped or address-only; then nothing is written.
    pub fn write_bytes(&mut self, addr: Addr, bytes: &[u8]) -> Result<(), MemoryFault> {
        self.check_range(addr.get(), bytes.len())?;
        let mut at = addr.get();
        let mut bytes = bytes;
        while !bytes.is_empty() {
            let (r, page) = self.locate(at)?;
            let offset = at as usize & (PAGE_BYTES - 1);
            let part = (PAGE_BYTES - offset).min(bytes.len());
            let (head, tail) = bytes.split_at(part);
            let page = self.region_mut(r).pages[page].get_or_insert_with(Page::new);
            page.data[offset..offset + part].copy_from_slice(head);
            if page.marked {
                self.touch_marks(r, at, part);
            }
            self.break_reservations(at, part as u64);
            bytes = tail;
            at = at.wrapping_add(part as u64);
        }
        Ok(())
    }

    /// A write of `bytes` at `at` inside one page: drops the marks it hits.
    fn touch_marks(&mut self, region: usize, at: u64, bytes: usize) {
        let region = self.region_mut(region);
        let index = ((at - region.base) >> PAGE_SHIFT) as usize;
        let page = region.pages[index].as_mut().expect("a written page is resident");
        let first = (at as usize & (PAGE_BYTES - 1)) >> LINE_SHIFT;
        let last = ((at as usize & (PAGE_BYTES - 1)) + bytes - 1) >> LINE_SHIFT;
        let mut hit = false;
        for line in first..=last {
            let bit = 1u64 << (line % 64);
            hit |= page.marks[line / 64] & bit != 0;
            page.marks[line / 64] &= !bit;
        }
        if !hit {
            return;
        }
        page.marked = page.marks.iter().any(|&m| m != 0);
        self.code_epoch += 1;
        let lines = at >> LINE_SHIFT..=(at + bytes as u64 - 1) >> LINE_SHIFT;
        self.watch_hit |= self.watched.iter().any(|w| lines.contains(&(w >> LINE_SHIFT)));
        for watched in self.watched.clone() {
            self.mark(watched);
        }
    }

    fn mark(&mut self, addr: u64) {
        let Ok((r, page)) = self.locate(addr) else { return };
        let page = self.region_mut(r).pages[page].get_or_insert_with(Page::new);
        let line = (addr as usize & (PAGE_BYTES - 1)) >> LINE_SHIFT;
        page.marks[line / 64] |= 1 << (line % 64);
        page.marked = true;
    }

    /// Notes that a hart keeps decoded instructions of the line at `addr`: a write to it moves `code_epoch`.
    pub fn mark_code(&mut self, addr: u64) {
        self.mark(addr);
    }

    /// Watches the 64-byte line at `addr`: a write to it sets the flag that `take_watch_hit` reads.
    pub fn watch(&mut self, addr: u64) {
        self.watched.push(addr);
        self.mark(addr);
    }

    /// Whether a watched line was written since the last call.
    pub fn take_watch_hit(&mut self) -> bool {
        core::mem::take(&mut self.watch_hit)
    }

    /// Moves whenever a line with decoded code, or a watched one, is written.
    #[inline(always)]
    #[must_use]
    pub fn code_epoch(&self) -> u64 {
        self.code_epoch
    }

    /// Registers a load-reserved of a hart, replacing its earlier one.
    pub fn reserve(&mut self, hart: usize, addr: u64) {
        self.clear_reservation(hart);
        self.reservations.push((hart, addr >> LINE_SHIFT));
    }

    /// Ends a hart's reservation; `true` if it was still held for the line of `addr`.
    pub fn take_reservation(&mut self, hart: usize, addr: u64) -> bool {
        let held = self.reservations.contains(&(hart, addr >> LINE_SHIFT));
        self.clear_reservation(hart);
        held
    }

    fn clear_reservation(&mut self, hart: usize) {
        self.reservations.retain(|&(h, _)| h != hart);
    }

    fn break_reservations(&mut self, at: u64, bytes: u64) {
        if !self.reservations.is_empty() {
            let lines = at >> LINE_SHIFT..=(at + bytes - 1) >> LINE_SHIFT;
            self.reservations.retain(|(_, line)| !lines.contains(line));
        }
    }
}

impl Region {
    fn bytes(&self) -> u64 {
        (self.pages.len() as u64) << PAGE_SHIFT
    }
}

#[cfg(test)]
mod tests {
    use super::{GuestMemory, MemoryFault, RegionError};
    use sim_kernel::{Addr, Bytes};

    const BASE: u64 = 0x8000_0000;

    fn memory() -> GuestMemory {
        let mut m = GuestMemory::new();
        m.add_region(Addr::new(BASE), Bytes::new(1 << 20)).expect("an empty map takes a region");
        m
    }

    #[test]
    fn values_cross_pages_and_pages_appear_on_write_only() {
        let mut m = memory();
        assert_eq!(m.read::<8>(BASE + 0x1_fffc), Ok(0));
        assert_eq!(m.residency().pages, 0);
        m.write::<8>(BASE + 0x1_fffc, 0x1122_3344_5566_7788).expect("inside");
        assert_eq!(m.residency().pages, 2);
        assert_eq!(m.read::<8>(BASE + 0x1_fffc), Ok(0x1122_3344_5566_7788));
        assert_eq!(m.read::<2>(BASE + 0x1_ffff), Ok(0x4455));
    }

    #[test]
    fn edges_fault_and_a_failed_write_changes_nothing() {
        let mut m = memory();
        let end = BASE + (1 << 20);
        assert_eq!(m.read::<1>(BASE - 1), Err(MemoryFault::Unmapped(BASE - 1)));
        assert_eq!(m.write::<8>(end - 4, u64::MAX), Err(MemoryFault::Unmapped(end)));
        assert_eq!(m.read::<4>(end - 4), Ok(0));
    }

    #[test]
    fn address_only_pages_fault_both_ways() {
        let mut m = memory();
        m.make_address_only(Addr::new(BASE + 0x4_0000), Bytes::new(0x2_0000)).expect("whole pages");
        let at = BASE + 0x5_1234;
        assert_eq!(m.read::<4>(at), Err(MemoryFault::AddressOnly(at)));
        assert_eq!(m.write::<1>(at, 1), Err(MemoryFault::AddressOnly(at)));
        assert!(m.contains(at));
        assert_eq!(m.residency().address_only_bytes, 0x2_0000);
        let odd = m.make_address_only(Addr::new(BASE + 1), Bytes::new(0x1_0000));
        assert!(matches!(odd, Err(RegionError::Unaligned { .. })));
    }

    #[test]
    fn regions_may_not_overlap_or_wrap() {
        let mut m = memory();
        let overlap = m.add_region(Addr::new(BASE + 0x1_0000), Bytes::new(0x1_0000));
        assert!(matches!(overlap, Err(RegionError::Overlap { .. })));
        let wrap = m.add_region(Addr::new(u64::MAX - 0xffff), Bytes::new(0x2_0000));
        assert!(matches!(wrap, Err(RegionError::Overlap { .. })));
    }

    #[test]
    fn a_reservation_ends_at_any_write_to_its_line() {
        let mut m = memory();
        m.reserve(0, BASE + 8);
        m.reserve(1, BASE + 64);
        m.write::<1>(BASE + 63, 1).expect("inside");
        assert!(!m.take_reservation(0, BASE + 8));
        assert!(m.take_reservation(1, BASE + 64));
        assert!(!m.take_reservation(1, BASE + 64), "taken once");
    }

    #[test]
    fn writes_to_code_move_the_epoch_once_until_marked_again() {
        let mut m = memory();
        m.write::<4>(BASE, 0x13).expect("inside");
        m.mark_code(BASE);
        let epoch = m.code_epoch();
        assert_eq!(m.write::<4>(BASE + 64, 1), Ok(false), "the neighbour line is data");
        assert_eq!(m.code_epoch(), epoch);
        assert_eq!(m.write::<4>(BASE + 60, 1), Ok(true));
        assert_eq!(m.code_epoch(), epoch + 1);
        assert_eq!(m.write::<4>(BASE + 60, 1), Ok(false));
    }
}
