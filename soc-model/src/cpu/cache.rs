//! Set-associative tag arrays: private caches of a hart and the cache the harts share.
//!
//! Models: presence, true LRU, write-back with write-allocate, dirty victims.
//! Does not model: data (it lives in guest memory), sharing states between private caches, prefetchers, ECC.
//! Source: structure is textbook; sizes and latencies come with the configuration.
#![allow(clippy::cast_possible_truncation, reason = "set indices are masked line numbers")]

use serde::{Deserialize, Serialize};

/// Geometry and hit latency of a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct CacheConfig {
    /// Capacity.
    pub bytes: u64,
    /// Associativity.
    pub ways: u32,
    /// Line size; a power of two.
    pub line_bytes: u32,
    /// Cycles from access to data on a hit, in the clock of the owner.
    pub latency_cycles: u32,
}

/// Why a cache geometry is impossible.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CacheConfigError {
    /// Line size is not a power of two of at least 8 bytes.
    #[error("line size {0} is not a power of two of at least 8")]
    Line(u32),
    /// Capacity, ways and line size do not give a power-of-two number of sets.
    #[error(
        "{bytes} bytes in {ways} ways of {line_bytes}-byte lines do not make a power-of-two number of sets"
    )]
    Sets {
        /// Capacity.
        bytes: u64,
        /// Ways.
        ways: u32,
        /// Line size.
        line_bytes: u32,
    },
}

impl CacheConfig {
    /// Number of sets.
    ///
    /// # Errors
    /// If the geometry is impossible.
    pub fn sets(&self) -> Result<usize, CacheConfigError> {
        let Self { bytes, ways, line_bytes, .. } = *self;
        if !line_bytes.is_power_of_two() || line_bytes < 8 {
            return Err(CacheConfigError::Line(line_bytes));
        }
        let error = CacheConfigError::Sets { bytes, ways, line_bytes };
        let per_set = u64::from(ways) * u64::from(line_bytes);
        if per_set == 0 || bytes % per_set != 0 || !(bytes / per_set).is_power_of_two() {
            return Err(error);
        }
        usize::try_from(bytes / per_set).map_err(|_| error)
    }
}

/// Invalid entry; no line has this number because addresses are shifted right by at least three.
const EMPTY: u64 = u64::MAX;

/// A line that left a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Victim {
    /// First address of the line.
    pub addr: u64,
    /// It was modified: its bytes must travel.
    pub dirty: bool,
}

/// Tags of one cache; entries of a set are kept in order of use, most recent first.
#[derive(Clone, Debug)]
pub struct TagArray {
    ways: usize,
    set_mask: u64,
    line_shift: u32,
    /// Line number shifted left by one, lowest bit dirty.
    entries: Vec<u64>,
}

impl TagArray {
    /// An empty cache.
    ///
    /// # Errors
    /// If the geometry is impossible.
    pub fn new(config: &CacheConfig) -> Result<Self, CacheConfigError> {
        let sets = config.sets()?;
        Ok(Self {
            ways: config.ways as usize,
            set_mask: sets as u64 - 1,
            line_shift: config.line_bytes.trailing_zeros(),
            entries: vec![EMPTY; sets * config.ways as usize],
        })
    }

    #[inline(always)]
    fn set(&mut self, addr: u64) -> (u64, &mut [u64]) {
        let line = addr >> self.line_shift;
        let first = (line & self.set_mask) as usize * self.ways;
        (line, &mut self.entries[first..first + self.ways])
    }

    /// Whether the line is present; changes nothing.
    #[inline]
    #[must_use]
    pub fn contains(&self, addr: u64) -> bool {
        let line = addr >> self.line_shift;
        let first = (line & self.set_mask) as usize * self.ways;
        self.entries[first..first + self.ways].iter().any(|e| e >> 1 == line)
    }

    /// Looks the line up; a hit becomes the most recent and, for a write, dirty.
    #[inline(always)]
    pub fn touch(&mut self, addr: u64, write: bool) -> bool {
        let (line, set) = self.set(addr);
        if set[0] >> 1 == line {
            set[0] |= u64::from(write);
            return true;
        }
        let Some(way) = set.iter().position(|e| e >> 1 == line) else { return false };
        let entry = set[way] | u64::from(write);
        set.copy_within(0..way, 1);
        set[0] = entry;
        true
    }

    /// Puts an absent line in front; returns the valid line it displaced.
    pub fn fill(&mut self, addr: u64, dirty: bool) -> Option<Victim> {
        let shift = self.line_shift;
        let (line, set) = self.set(addr);
        let last = set.len() - 1;
        let victim = set[last];
        set.copy_within(0..last, 1);
        set[0] = line << 1 | u64::from(dirty);
        (victim != EMPTY).then_some(Victim { addr: victim >> 1 << shift, dirty: victim & 1 == 1 })
    }

    /// Drops the line; returns it if it was present.
    pub fn invalidate(&mut self, addr: u64) -> Option<Victim> {
        let shift = self.line_shift;
        let (line, set) = self.set(addr);
        let way = set.iter().position(|e| e >> 1 == line)?;
        let entry = set[way];
        set.copy_within(way + 1.., way);
        set[set.len() - 1] = EMPTY;
        Some(Victim { addr: line << shift, dirty: entry & 1 == 1 })
    }

    /// Drops every line; returns how many were dirty.
    pub fn clear(&mut self) -> u64 {
        let dirty = self.entries.iter().filter(|&&e| e != EMPTY && e & 1 == 1).count() as u64;
        self.entries.fill(EMPTY);
        dirty
    }

    /// First address of the line that holds `addr`.
    #[inline(always)]
    #[must_use]
    pub fn line_of(&self, addr: u64) -> u64 {
        addr >> self.line_shift << self.line_shift
    }
}

/// What a shared cache says to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SharedAccess {
    /// The line is here.
    Hit,
    /// The line must come from memory; a dirty victim, if any, must go there.
    Miss {
        /// Dirty line displaced by the new one.
        write_back: Option<u64>,
    },
}

/// The cache that harts share, owned by whoever implements `Bus`.
#[derive(Clone, Debug)]
pub struct SharedCache {
    tags: TagArray,
    /// Requests that found their line.
    pub hits: u64,
    /// Requests that did not.
    pub misses: u64,
    /// Dirty lines sent to memory.
    pub write_backs: u64,
}

impl SharedCache {
    /// An empty cache.
    ///
    /// # Errors
    /// If the geometry is impossible.
    pub fn new(config: &CacheConfig) -> Result<Self, CacheConfigError> {
        Ok(Self { tags: TagArray::new(config)?, hits: 0, misses: 0, write_backs: 0 })
    }

    /// A private cache asks for a line. Private copies carry their own dirtiness, so this never makes it dirty.
    pub fn access(&mut self, addr: u64) -> SharedAccess {
        if self.tags.touch(addr, false) {
            self.hits += 1;
            return SharedAccess::Hit;
        }
        self.misses += 1;
        SharedAccess::Miss { write_back: self.place(addr, false) }
    }

    /// A private cache sends a dirty line down; returns the dirty line it displaced, if any.
    pub fn write_back(&mut self, addr: u64) -> Option<u64> {
        if self.tags.touch(addr, true) { None } else { self.place(addr, true) }
    }

    /// DMA takes the line over; returns whether it was dirty.
    pub fn invalidate_line(&mut self, addr: u64) -> bool {
        self.tags.invalidate(addr).is_some_and(|v| v.dirty)
    }

    fn place(&mut self, addr: u64, dirty: bool) -> Option<u64> {
        let victim = self.tags.fill(addr, dirty).filter(|v| v.dirty)?;
        self.write_backs += 1;
        Some(victim.addr)
    }
}

#[cfg(test)]
mod tests {
    use super::{CacheConfig, SharedAccess, SharedCache, TagArray, Victim};

    const SMALL: CacheConfig = CacheConfig { bytes: 512, ways: 2, line_bytes: 64, latency_cycles: 1 };

    #[test]
    fn least_recently_used_leaves_and_dirt_travels() {
        let mut t = TagArray::new(&SMALL).expect("four sets of two ways");
        assert_eq!(t.fill(0, true), None);
        assert_eq!(t.fill(256, false), None);
        assert!(t.touch(0, false), "line 0 becomes the most recent");
        assert_eq!(t.fill(512, false), Some(Victim { addr: 256, dirty: false }));
        assert_eq!(t.fill(768, false), Some(Victim { addr: 0, dirty: true }));
        assert!(t.contains(512) && !t.contains(0));
        assert_eq!(t.invalidate(512), Some(Victim { addr: 512, dirty: false }));
        assert_eq!(t.fill(1024, false), None, "the invalidated way is free");
    }

    /// A reference with explicit time stamps, against which a long random run is compared.
    #[test]
    fn agrees_with_a_time_stamped_reference() {
        let mut t = TagArray::new(&SMALL).expect("valid");
        let mut sets: Vec<Vec<(u64, u64, bool)>> = vec![Vec::new(); 4];
        let mut seed = 1u64;
        for now in 0..20_000u64 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let addr = (seed >> 40) % 2048;
            let write = seed >> 63 == 1;
            let line = addr / 64;
            let set = &mut sets[usize::try_from(line % 4).expect("small")];
            if let Some(e) = set.iter_mut().find(|e| e.0 == line) {
                (e.1, e.2) = (now, e.2 | write);
                assert!(t.touch(addr, write));
                continue;
            }
            assert!(!t.touch(addr, write));
            let expected = (set.len() == 2).then(|| {
                let oldest = (0..2).min_by_key(|&i| set[i].1).expect("two entries");
                let gone = set.remove(oldest);
                Victim { addr: gone.0 * 64, dirty: gone.2 }
            });
            set.push((line, now, write));
            assert_eq!(t.fill(addr, write), expected);
        }
    }

    #[test]
    fn shared_cache_counts_and_reports_dirty_victims() {
        let mut l3 = SharedCache::new(&SMALL).expect("valid");
        assert_eq!(l3.access(0), SharedAccess::Miss { write_back: None });
        assert_eq!(l3.write_back(0), None);
        l3.access(256);
        assert_eq!(l3.access(512), SharedAccess::Miss { write_back: Some(0) });
        assert_eq!((l3.hits, l3.misses, l3.write_backs), (0, 3, 1));
    }

    #[test]
    fn impossible_geometries_are_errors() {
        for (bytes, ways, line_bytes) in
            [(0, 4, 64), (1000, 4, 64), (4096, 0, 64), (4096, 4, 48), (3072, 4, 64)]
        {
            let bad = CacheConfig { bytes, ways, line_bytes, latency_cycles: 1 };
            assert!(TagArray::new(&bad).is_err(), "{bad:?}");
        }
    }
}
