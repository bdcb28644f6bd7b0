//! How a position's keys, or values, of one head lie in memory: software that writes them and whoever sets memory
//! aside must agree.
//!
//! Rows of one head and kind follow each other by position, in pages ([`Paging`]) or, of an encoder, in one piece.
//! Rows of fp16 are stored as they are; rows of int8 or int4 as DMA codecs 7 and 8 make them, scales in the row.

use crate::npu::dma::{PAGE_ENTRY_BYTES, kv_row_bytes};

/// Bits of an element that is stored as it is.
pub const PLAIN_BITS: u64 = 16;
/// Most positions whose keys attention takes at once: a bound for accounts, kept by the firmware's plans.
pub const MOST_BLOCK: u64 = 512;
/// Elements that share a scale, as the DMA's `qgrp`: 16. Rows are padded to 16 bytes, so for heads of up to 128
/// elements groups of 32 would take as many bytes.
pub const GROUP: u64 = 2;

/// Bytes of a row of `head_dim` elements of `bits` bits: 16, 8 or 4.
#[must_use]
pub const fn row_bytes(head_dim: u64, bits: u64) -> u64 {
    match kv_row_bytes(head_dim, bits, GROUP) {
        Some(bytes) if bits != PLAIN_BITS => bytes,
        _ => head_dim * 2,
    }
}

/// What of the pages is asked for; 0 leaves it to the policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PageChoice {
    /// Positions a page holds at least: its bytes are the next power of two.
    pub page_positions: u64,
    /// Positions there are pages for; by default as many as the cache may hold.
    pub pool_positions: u64,
}

/// What is cached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheShape {
    /// Layers.
    pub layers: u64,
    /// KV heads.
    pub kv_heads: u64,
    /// Elements of a row.
    pub head_dim: u64,
    /// Bits of an element: 16, 8 or 4.
    pub bits: u64,
    /// Most positions.
    pub positions: u64,
}

/// Most slabs of a pool.
pub const MOST_SLABS: u64 = 4096;
/// Most entries of a layer's page table: a command counts them in 16 bits.
pub const MOST_ENTRIES: u64 = 1 << 16;
/// Entry of a page that is not there: beyond every bound, so that the DMA faults.
pub const NO_PAGE: u64 = u32::MAX as u64;
/// Positions of a page unless another number is asked for: 16 KiB of fp16 rows of 128 elements.
pub const DEFAULT_PAGE_POSITIONS: u64 = 64;
const SMALLEST_PAGE: u64 = 6;
const LARGEST_PAGE: u64 = 20;

/// How a paged cache is cut.
///
/// A *stream* is the keys or the values of one head in one layer: rows by position, without gaps; a row may cross
/// pages. All streams grow together, so pages are handed out in *slabs* of one page for every stream of every layer.
/// The page tables of all layers are alike, though a page lies elsewhere in every layer: layer `l` counts pages from
/// `l * stride` behind layer 0, in units of `stride` bytes that go round the layers. Tables lie `stride` apart, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paging {
    /// Bytes of a position of a stream.
    pub row: u64,
    /// Streams of a layer.
    pub streams: u64,
    /// Layers.
    pub layers: u64,
    /// log2 of a page's bytes.
    pub page_log2: u64,
    /// Pages a stream has at most.
    pub groups: u64,
    /// Slabs there are.
    pub slabs: u64,
}

impl Paging {
    /// Cuts a cache; nothing if the pages asked for are so small that a table or the pool has too many of them, or the
    /// cache is empty.
    #[must_use]
    pub fn new(shape: &CacheShape, choice: PageChoice) -> Option<Self> {
        let row = row_bytes(shape.head_dim, shape.bits);
        let streams = shape.kv_heads * 2;
        if row == 0 || streams == 0 || shape.layers == 0 || shape.positions == 0 {
            return None;
        }
        let asked = choice.page_positions > 0;
        let positions = if asked { choice.page_positions } else { DEFAULT_PAGE_POSITIONS };
        let bytes = positions.saturating_mul(row).min(1 << LARGEST_PAGE).next_power_of_two();
        let pool = if choice.pool_positions == 0 { u64::MAX } else { choice.pool_positions };
        let first = u64::from(bytes.trailing_zeros()).max(SMALLEST_PAGE);
        let last = if asked { first } else { LARGEST_PAGE };
        (first..=last).find_map(|page_log2| {
            let pages = |n: u64| n.saturating_mul(row).div_ceil(1 << page_log2).max(1);
            let (groups, slabs) = (pages(shape.positions), pages(shape.positions.min(pool)));
            let fits = groups.saturating_mul(streams) <= MOST_ENTRIES && slabs <= MOST_SLABS;
            fits.then_some(Self { row, streams, layers: shape.layers, page_log2, groups, slabs })
        })
    }

    /// Bytes of a page.
    #[must_use]
    pub const fn page_bytes(&self) -> u64 {
        1 << self.page_log2
    }

    /// Pages of a stream that hold so many positions.
    #[must_use]
    pub const fn pages_for(&self, positions: u64) -> u64 {
        (positions * self.row).div_ceil(self.page_bytes())
    }

    /// Entries of a layer's table: all pages of the first stream, then those of the next.
    #[must_use]
    pub const fn entries(&self) -> u64 {
        self.streams * self.groups
    }

    /// Bytes from a layer's table, and from where it counts pages, to the next layer's.
    #[must_use]
    pub fn stride(&self) -> u64 {
        (self.entries() * PAGE_ENTRY_BYTES).next_power_of_two().max(self.page_bytes())
    }

    /// Bytes of all tables.
    #[must_use]
    pub fn table_bytes(&self) -> u64 {
        self.layers * self.stride()
    }

    /// Bytes of all pages, with what rounding to `stride` leaves unused.
    #[must_use]
    pub fn pool_bytes(&self) -> u64 {
        self.units() * self.layers * self.stride()
    }

    /// Memory that holds the pool wherever it begins.
    #[must_use]
    pub fn bulk_bytes(&self) -> u64 {
        self.pool_bytes() + self.page_bytes()
    }

    fn units(&self) -> u64 {
        (self.slabs * self.streams * self.page_bytes()).div_ceil(self.stride())
    }

    /// Number of a slab's page for a stream, in every layer the same, if page 0 of layer 0 has number `first`.
    #[must_use]
    pub fn number(&self, first: u64, slab: u64, stream: u64) -> u64 {
        let (page, a_unit) = (slab * self.streams + stream, self.stride() >> self.page_log2);
        first + page / a_unit * a_unit * self.layers + page % a_unit
    }

    /// Pages there are for all streams and layers.
    #[must_use]
    pub const fn total_pages(&self) -> u64 {
        self.slabs * self.slab_pages()
    }

    /// Pages of a slab.
    #[must_use]
    pub const fn slab_pages(&self) -> u64 {
        self.streams * self.layers
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn rows_are_what_the_codecs_make() {
        // Codes, one fp16 scale for 16 elements, padding to 16 bytes.
        assert_eq!([16, 8, 4].map(|bits| row_bytes(128, bits)), [256, 144, 80]);
        assert_eq!([16, 8, 4].map(|bits| row_bytes(64, bits)), [128, 80, 48]);
        assert_eq!([16, 8, 4].map(|bits| row_bytes(32, bits)), [64, 48, 32]);
        assert_eq!(row_bytes(80, 8), 96);
    }

    fn shape(positions: u64) -> CacheShape {
        CacheShape { layers: 36, kv_heads: 8, head_dim: 128, bits: 16, positions }
    }

    #[test]
    fn the_policy_takes_larger_pages_where_a_table_would_overflow() {
        let cut = |positions| Paging::new(&shape(positions), PageChoice::default()).expect("a cut");
        let small = cut(144);
        assert_eq!((small.page_bytes(), small.groups, small.slabs), (16 << 10, 3, 3));
        assert_eq!((small.stride(), small.total_pages()), (16 << 10, 3 * 16 * 36));
        // 4096 entries are the most whose table takes no more than a page.
        assert_eq!((cut(16 << 10).stride(), cut(17 << 10).stride()), (16 << 10, 32 << 10));
        let long = cut(1 << 20);
        assert!(long.page_bytes() > 16 << 10 && long.entries() <= MOST_ENTRIES && long.slabs <= MOST_SLABS);
    }

    #[test]
    fn pages_too_small_and_empty_caches_are_no_cut() {
        let tiny = PageChoice { page_positions: 1, pool_positions: 0 };
        assert_eq!(Paging::new(&shape(1 << 16), tiny), None);
        assert!(Paging::new(&shape(4096), tiny).is_some());
        assert_eq!(Paging::new(&shape(0), PageChoice::default()), None);
        let huge = PageChoice { page_positions: u64::MAX, pool_positions: u64::MAX };
        let cut = Paging::new(&shape(100), huge).expect("the largest page");
        assert_eq!((cut.page_log2, cut.groups, cut.slabs), (LARGEST_PAGE, 1, 1));
    }

    #[test]
    fn no_two_pages_share_a_byte_and_all_lie_in_the_pool() {
        for (kv_heads, layers, bits, page_positions, pool_positions, positions) in [
            (1, 1, 16, 1, 0, 40),
            (3, 5, 8, 7, 30, 100),
            (2, 2, 4, 1, 90, 700),
            (8, 3, 16, 0, 200, 4000),
            (5, 4, 8, 2, 0, 333),
        ] {
            let shape = CacheShape { layers, kv_heads, head_dim: 64, bits, positions };
            let p = Paging::new(&shape, PageChoice { page_positions, pool_positions }).expect("a cut");
            let first = 1000;
            let mut places = BTreeSet::new();
            for layer in 0..layers {
                for (slab, stream) in (0..p.slabs).flat_map(|s| (0..p.streams).map(move |n| (s, n))) {
                    let number = p.number(first, slab, stream);
                    let at = (number - first) * p.page_bytes() + layer * p.stride();
                    assert!(at + p.page_bytes() <= p.pool_bytes(), "{p:?}");
                    assert!(places.insert(at), "{p:?}: {at} twice");
                }
            }
            assert_eq!(places.len() as u64, p.total_pages());
            assert!(places.iter().all(|at| at % p.page_bytes() == 0));
            let waste = p.pool_bytes() - p.total_pages() * p.page_bytes();
            assert!(waste < layers * p.stride(), "{p:?}: {waste} bytes are no page");
        }
    }
}
