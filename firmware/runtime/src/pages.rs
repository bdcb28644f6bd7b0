//! Pages of the cache of keys and values: which are taken, in which order, and the tables that say so.
//!
//! What is handed out is a slab: one page for every stream of every layer. A slab that is given back goes behind all
//! free ones, so the next one taken is another: after a while pages lie in no order at all.

use core::ops::Range;

use isa::cache::{MOST_SLABS, NO_PAGE, Paging};
use isa::npu::{Index, Word};

use crate::emit::Sink;

/// Bytes of an arena entry.
const WORD_BYTES: u64 = 32;

/// Slabs there are: a permutation of their numbers, the taken ones first, by position.
#[derive(Clone, Copy, Debug)]
pub struct Slabs {
    order: [u16; MOST_SLABS as usize],
    used: usize,
    total: usize,
}

/// More slabs were asked for than there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exhausted;

impl Slabs {
    /// `total` free slabs, at most [`MOST_SLABS`].
    #[must_use]
    pub fn new(total: u64) -> Self {
        let (mut order, total) = ([0; MOST_SLABS as usize], total.min(MOST_SLABS) as usize);
        for (i, slab) in order.iter_mut().enumerate().take(total) {
            *slab = i as u16;
        }
        Self { order, used: 0, total }
    }

    /// Slabs taken, in the order of the positions they hold.
    #[must_use]
    pub fn taken(&self) -> &[u16] {
        &self.order[..self.used]
    }

    /// Slabs that are free, the next one first.
    #[must_use]
    pub fn free(&self) -> &[u16] {
        &self.order[self.used..self.total]
    }

    /// Takes or gives back slabs until `wanted` are taken: the pages of a stream for which that changed.
    ///
    /// # Errors
    /// If there are not so many; then nothing changes.
    pub fn hold(&mut self, wanted: u64) -> Result<Range<u64>, Exhausted> {
        let wanted = usize::try_from(wanted).map_err(|_| Exhausted)?;
        if wanted > self.total {
            return Err(Exhausted);
        }
        let before = self.used;
        while self.used > wanted {
            self.used -= 1;
            // The last free one comes first in its place.
            self.order.swap(self.used, self.total - 1);
        }
        self.used = wanted;
        Ok(before.min(wanted) as u64..before.max(wanted) as u64)
    }
}

/// A paged cache and where it is.
#[derive(Clone, Copy, Debug)]
pub struct Pages {
    /// How it is cut.
    pub paging: Paging,
    /// Which pages hold what.
    pub slabs: Slabs,
    /// Address of layer 0's table, from which it counts pages.
    pub tables: u64,
    /// Arena entry of that table.
    entry: u64,
    /// Number of page 0 of layer 0.
    first: u64,
    /// Address behind the last page.
    pub end: u64,
    /// What a paged transfer says of its table.
    pub index: Index,
}

impl Pages {
    /// A cache with its tables in the `arena`, the first at entry `at` or as soon as it is aligned, and its pages in
    /// `bulk` memory. Nothing if bulk memory lies before the arena or too far away.
    #[must_use]
    pub fn new(paging: Paging, arena: u64, at: u64, bulk: u64) -> Option<Self> {
        let page = paging.page_bytes();
        let tables = (arena + at * WORD_BYTES).next_multiple_of(page);
        let pool = bulk.next_multiple_of(page);
        let first = pool.checked_sub(tables)? >> paging.page_log2;
        let end = pool + paging.pool_bytes();
        let (slabs, entry) = (Slabs::new(paging.slabs), (tables - arena) / WORD_BYTES);
        let ibound = paging.number(first, paging.slabs - 1, paging.streams - 1);
        let index = Index { icnt: paging.entries() - 1, ibound, plog: paging.page_log2, ..Index::default() };
        // A region's limit has 36 bits.
        let near = ibound < NO_PAGE && (end - tables) >> 36 == 0;
        near.then_some(Self { paging, slabs, tables, entry, first, end, index })
    }

    /// Arena entry behind the tables.
    #[must_use]
    pub fn tables_end(&self) -> u64 {
        self.entry + self.paging.table_bytes() / WORD_BYTES
    }

    /// Base and limit of a layer's region.
    #[must_use]
    pub fn region(&self, layer: u64) -> (u64, u64) {
        let base = self.tables + layer * self.paging.stride();
        (base, self.end.saturating_sub(base))
    }

    /// Pages taken, of all streams and layers.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.slabs.taken().len() as u64 * self.paging.slab_pages()
    }

    /// Writes all entries.
    pub fn clear<S: Sink>(&self, sink: &mut S) {
        self.write(0..self.paging.groups, sink);
    }

    /// Holds pages for exactly `positions` positions.
    ///
    /// # Errors
    /// If there are not so many; then nothing changes.
    pub fn hold<S: Sink>(&mut self, positions: u64, sink: &mut S) -> Result<(), Exhausted> {
        let wanted = self.paging.pages_for(positions);
        if wanted > self.paging.groups {
            return Err(Exhausted);
        }
        let changed = self.slabs.hold(wanted)?;
        if !changed.is_empty() {
            self.write(changed, sink);
        }
        Ok(())
    }

    /// The entry of a stream's page.
    fn number(&self, stream: u64, group: u64) -> u64 {
        match self.slabs.taken().get(group as usize) {
            Some(slab) if stream < self.paging.streams => {
                self.paging.number(self.first, u64::from(*slab), stream)
            }
            _ => NO_PAGE,
        }
    }

    /// Writes the entries of every stream's pages `groups` in all tables, by whole words.
    fn write<S: Sink>(&self, groups: Range<u64>, sink: &mut S) {
        const EACH: u64 = 8;
        let p = &self.paging;
        let (mut next, stride) = (0, p.stride() / WORD_BYTES);
        for stream in 0..p.streams {
            let (from, to) = (stream * p.groups + groups.start, stream * p.groups + groups.end);
            for word in (from / EACH).max(next)..to.div_ceil(EACH) {
                let (mut s, mut g) = (word * EACH / p.groups, word * EACH % p.groups);
                let mut entries = [0; EACH as usize];
                for entry in &mut entries {
                    *entry = self.number(s, g);
                    g += 1;
                    if g == p.groups {
                        (s, g) = (s + 1, 0);
                    }
                }
                let [a, b, c, d, e, f, g, h] = entries;
                let content = Word([a | b << 32, c | d << 32, e | f << 32, g | h << 32]);
                for layer in 0..p.layers {
                    sink.put_data(self.entry + layer * stride + word, &content);
                }
                next = word + 1;
            }
        }
    }
}
