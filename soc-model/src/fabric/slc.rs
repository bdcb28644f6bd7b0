//! The system cache in front of the memory channels.
//!
//! ```text
//! runs of a transfer, lines of harts ─► sectors of 1 KiB: tag, valid and dirty lines ─► hit bytes │ runs for memory
//! ```
//!
//! Models: set-associative sectors of 16 lines, exact presence of every line; true LRU among the ways a client may
//! fill; hints (bypass, allocate, stream, keep); write-back of dirty lines; who evicted what. Lines a transfer covers
//! in part are served where they are present and never filled.
//! Does not model: banks, ECC, misses under way (a line is present as soon as its fill was asked for), compression.
//! Source: sectored caches as in the textbook (Hennessy and Patterson, appendix B); hints as `isa::npu` codes them.
#![allow(
    clippy::cast_possible_truncation,
    reason = "set indices and line numbers are masked before they are narrowed"
)]

/// Bytes under one tag.
pub const SECTOR_BYTES: u64 = 1024;
/// Bytes of a line.
const LINE: u64 = 64;
const NONE: u64 = u64::MAX;

/// What becomes of lines that are not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hint {
    /// Neither filled nor made recent.
    Bypass,
    /// Filled as the most recent of its set.
    Allocate,
    /// Filled as the next to go.
    Stream,
    /// Filled as the most recent; goes only when nothing else can.
    Keep,
}

impl Hint {
    /// The hint of a 2-bit code.
    #[must_use]
    pub const fn of_code(code: u64) -> Self {
        match code & 3 {
            0 => Self::Bypass,
            1 => Self::Allocate,
            2 => Self::Stream,
            _ => Self::Keep,
        }
    }
}

/// Geometry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlcParameters {
    /// Capacity.
    pub bytes: u64,
    /// Associativity.
    pub ways: u32,
    /// Ways CPUs may fill, from the first up.
    pub cpu_ways: u32,
    /// Ways the NPU may fill, from the last down.
    pub npu_ways: u32,
    /// Bytes a second all hits together get.
    pub bytes_per_s: u64,
    /// Time of a look-up.
    pub latency: sim_kernel::Time,
}

/// What one client has had of the cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlcUse {
    /// Lines, or parts of lines, found.
    pub hits: u64,
    /// Those not found.
    pub misses: u64,
    /// Lines put into it.
    pub fills: u64,
    /// Bytes found, reads and writes.
    pub hit_read_bytes: u64,
    /// Bytes written into it.
    pub hit_write_bytes: u64,
    /// Lines of others it displaced, and its own.
    pub evictions: u64,
    /// Of these, dirty ones that went to memory.
    pub write_backs: u64,
}

impl SlcUse {
    /// What was used beyond `earlier`.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Self {
        Self {
            hits: self.hits - earlier.hits,
            misses: self.misses - earlier.misses,
            fills: self.fills - earlier.fills,
            hit_read_bytes: self.hit_read_bytes - earlier.hit_read_bytes,
            hit_write_bytes: self.hit_write_bytes - earlier.hit_write_bytes,
            evictions: self.evictions - earlier.evictions,
            write_backs: self.write_backs - earlier.write_backs,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Sector {
    tag: u64,
    used: u64,
    valid: u16,
    dirty: u16,
    client: u16,
    keep: bool,
}

const EMPTY: Sector = Sector { tag: NONE, used: 0, valid: 0, dirty: 0, client: 0, keep: false };

/// A sector that was evicted, and by whom.
#[derive(Clone, Copy, Debug)]
struct Ghost {
    tag: u64,
    by: u16,
}

/// The cache.
#[derive(Clone, Debug)]
pub struct SystemCache {
    p: SlcParameters,
    sets: u64,
    sectors: Vec<Sector>,
    ghosts: Vec<Ghost>,
    now: u64,
    uses: Vec<SlcUse>,
    /// Bytes missed that somebody else had evicted, by (victim, aggressor).
    pub(super) evicted_bytes: Vec<u64>,
}

/// One access, part of a sector.
#[derive(Clone, Copy, Debug)]
struct Piece {
    at: u64,
    bytes: u64,
}

impl SystemCache {
    /// An empty cache for so many clients.
    ///
    /// # Panics
    /// If the geometry gives no power-of-two number of sets; the configuration is checked for that.
    #[must_use]
    pub fn new(p: SlcParameters, clients: usize) -> Self {
        let sets = p.bytes / (u64::from(p.ways) * SECTOR_BYTES);
        assert!(sets.is_power_of_two(), "{sets} sets");
        let sectors = usize::try_from(sets * u64::from(p.ways)).expect("a cache fits memory");
        Self {
            p,
            sets,
            sectors: vec![EMPTY; sectors],
            ghosts: vec![Ghost { tag: NONE, by: 0 }; sectors.next_power_of_two()],
            now: 0,
            uses: vec![SlcUse::default(); clients],
            evicted_bytes: vec![0; clients * clients],
        }
    }

    /// Its parameters.
    #[must_use]
    pub const fn parameters(&self) -> &SlcParameters {
        &self.p
    }

    /// What each client has had.
    #[must_use]
    pub fn uses(&self) -> &[SlcUse] {
        &self.uses
    }

    /// A client reads or writes runs: the bytes found; `missed` gets the runs that memory serves, `back` the dirty
    /// runs that go to memory for them.
    pub fn access(
        &mut self,
        client: usize,
        runs: &[(u64, u64)],
        write: bool,
        hint: Hint,
        missed: &mut Vec<(u64, u64)>,
        back: &mut Vec<(u64, u64)>,
    ) -> u64 {
        let mut found = 0;
        for &(start, bytes) in runs {
            let (mut at, end) = (start, start + bytes);
            while at < end {
                let next = ((at / SECTOR_BYTES + 1) * SECTOR_BYTES).min(end);
                found += self.sector(client, Piece { at, bytes: next - at }, write, hint, missed, back);
                at = next;
            }
        }
        let u = &mut self.uses[client];
        *(if write { &mut u.hit_write_bytes } else { &mut u.hit_read_bytes }) += found;
        found
    }

    /// Ways a client may fill.
    fn ways_of(&self, client: usize) -> core::ops::Range<usize> {
        let all = self.p.ways as usize;
        // Clients 0 and 1 are CPUs, as `fabric::Client` numbers them.
        if client < 2 { 0..self.p.cpu_ways as usize } else { all - self.p.npu_ways as usize..all }
    }

    fn sector(
        &mut self,
        client: usize,
        piece: Piece,
        write: bool,
        hint: Hint,
        missed: &mut Vec<(u64, u64)>,
        back: &mut Vec<(u64, u64)>,
    ) -> u64 {
        self.now += 1;
        let tag = piece.at / SECTOR_BYTES;
        let ways = self.p.ways as usize;
        // Sectors of a channel's stripe would share sets without the higher bits.
        let set = ((tag ^ (tag / self.sets)) & (self.sets - 1)) as usize * ways;
        let (touched, whole) = masks(piece);
        let way = (set..set + ways).find(|w| self.sectors[*w].tag == tag);
        let present = way.map_or(0, |w| self.sectors[w].valid) & touched;
        let lines = touched.count_ones();
        let u = &mut self.uses[client];
        u.hits += u64::from(present.count_ones());
        u.misses += u64::from(lines - present.count_ones());
        // Reads fill what was missed, writes what they cover; a line covered in part is left to memory.
        let fill = if hint == Hint::Bypass { 0 } else { whole & !present };
        let mut served = present;
        let mut filled = fill;
        if let Some(w) = way {
            let s = &mut self.sectors[w];
            s.valid |= fill;
            if write {
                s.dirty |= (present | fill) & touched;
                served |= fill;
            }
            if hint != Hint::Bypass && hint != Hint::Stream {
                s.used = self.now;
            }
            s.keep |= hint == Hint::Keep;
            if present != touched {
                self.blame(client, tag, u64::from((touched & !present).count_ones()) * LINE);
            }
        } else {
            self.blame(client, tag, u64::from(lines) * LINE);
            if fill == 0 || !self.place(client, set, tag, hint, back) {
                filled = 0;
            } else {
                let w = (set..set + ways).find(|w| self.sectors[*w].tag == tag).expect("just placed");
                let s = &mut self.sectors[w];
                s.valid = fill;
                if write {
                    s.dirty = fill;
                    served |= fill;
                }
            }
        }
        self.uses[client].fills += u64::from(filled.count_ones());
        self.serve(piece, touched, served, missed)
    }

    /// Bytes of `piece` in `served` lines; the others are appended to `missed` as runs.
    fn serve(&self, piece: Piece, touched: u16, served: u16, missed: &mut Vec<(u64, u64)>) -> u64 {
        if served == touched {
            return piece.bytes;
        }
        if served == 0 {
            append(missed, piece.at, piece.bytes);
            return 0;
        }
        let (base, mut found) = (piece.at / SECTOR_BYTES * SECTOR_BYTES, 0);
        let mut rest = touched;
        while rest != 0 {
            let line = rest.trailing_zeros();
            rest &= rest - 1;
            let from = (base + u64::from(line) * LINE).max(piece.at);
            let to = (base + u64::from(line + 1) * LINE).min(piece.at + piece.bytes);
            if served >> line & 1 == 1 { found += to - from } else { append(missed, from, to - from) }
        }
        found
    }

    /// Makes room for a sector in one of the client's ways; false if it has none.
    fn place(&mut self, client: usize, set: usize, tag: u64, hint: Hint, back: &mut Vec<(u64, u64)>) -> bool {
        let ways = self.ways_of(client);
        let victim = (set + ways.start..set + ways.end).min_by_key(|w| {
            let s = &self.sectors[*w];
            (s.tag != NONE, s.keep, s.used)
        });
        let Some(w) = victim else { return false };
        let old = self.sectors[w];
        if old.tag != NONE {
            let u = &mut self.uses[client];
            u.evictions += u64::from(old.valid.count_ones());
            u.write_backs += u64::from(old.dirty.count_ones());
            if usize::from(old.client) != client {
                let slot = (old.tag as usize) & (self.ghosts.len() - 1);
                self.ghosts[slot] = Ghost { tag: old.tag, by: client as u16 };
            }
            let mut rest = old.dirty;
            while rest != 0 {
                let line = u64::from(rest.trailing_zeros());
                rest &= rest - 1;
                append(back, old.tag * SECTOR_BYTES + line * LINE, LINE);
            }
        }
        let used = if hint == Hint::Stream { 0 } else { self.now };
        self.sectors[w] = Sector { tag, used, client: client as u16, keep: hint == Hint::Keep, ..EMPTY };
        true
    }

    /// Notes bytes that were missed because somebody else displaced their sector.
    fn blame(&mut self, client: usize, tag: u64, bytes: u64) {
        let slot = (tag as usize) & (self.ghosts.len() - 1);
        let ghost = self.ghosts[slot];
        if ghost.tag == tag {
            self.ghosts[slot].tag = NONE;
            let clients = self.uses.len();
            self.evicted_bytes[client * clients + usize::from(ghost.by)] += bytes;
        }
    }
}

/// Lines a piece touches, and those of them it covers whole.
const fn masks(p: Piece) -> (u16, u16) {
    let offset = p.at % SECTOR_BYTES;
    let (first, last) = (offset / LINE, (offset + p.bytes - 1) / LINE);
    let (from, to) = (offset.div_ceil(LINE), (offset + p.bytes) / LINE);
    let touched = upto_mask(last + 1) & !upto_mask(first);
    let whole = if to > from { upto_mask(to) & !upto_mask(from) } else { 0 };
    (touched, whole)
}

const fn upto_mask(lines: u64) -> u16 {
    if lines >= 16 { u16::MAX } else { (1u16 << lines) - 1 }
}

/// Appends a run, joined to the last where it follows on.
fn append(runs: &mut Vec<(u64, u64)>, at: u64, bytes: u64) {
    match runs.last_mut() {
        Some(last) if last.0 + last.1 == at => last.1 += bytes,
        _ => runs.push((at, bytes)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sim_kernel::Time;

    const SMALL: SlcParameters = SlcParameters {
        bytes: 64 * 1024,
        ways: 4,
        cpu_ways: 4,
        npu_ways: 4,
        bytes_per_s: 64_000_000_000,
        latency: Time::from_ns(10),
    };

    fn run(c: &mut SystemCache, client: usize, run: (u64, u64), write: bool, hint: Hint) -> (u64, u64, u64) {
        let (mut missed, mut back) = (Vec::new(), Vec::new());
        let found = c.access(client, &[run], write, hint, &mut missed, &mut back);
        let sum = |r: &[(u64, u64)]| r.iter().map(|r| r.1).sum();
        (found, sum(&missed), sum(&back))
    }

    #[test]
    fn what_was_filled_is_found_and_every_byte_is_served_once() {
        let mut c = SystemCache::new(SMALL, 4);
        assert_eq!(run(&mut c, 2, (100, 10_000), false, Hint::Allocate), (0, 10_000, 0));
        // Whole lines between 128 and 10048 are there; the ends, covered in part, are not.
        assert_eq!(run(&mut c, 2, (100, 10_000), false, Hint::Allocate), (9_920, 80, 0));
        assert_eq!(run(&mut c, 0, (0, 64), false, Hint::Allocate), (0, 64, 0));
        assert_eq!(run(&mut c, 3, (256, 16), true, Hint::Bypass), (16, 0, 0), "a write hits what is there");
        assert_eq!(
            run(&mut c, 3, (1 << 20, 640), true, Hint::Allocate),
            (640, 0, 0),
            "whole lines are taken"
        );
        assert_eq!(run(&mut c, 3, (2 << 20, 640), true, Hint::Bypass), (0, 640, 0));
        let u = c.uses()[2];
        assert_eq!((u.hits, u.misses, u.hit_read_bytes), (155, 157 + 2, 9_920));
    }

    #[test]
    fn streams_pass_through_one_way_and_keep_stays() {
        let mut c = SystemCache::new(SMALL, 4);
        let kept = (1 << 30, 16 * 1024);
        run(&mut c, 2, kept, false, Hint::Keep);
        run(&mut c, 0, (1 << 31, 24 * 1024), false, Hint::Allocate);
        // Two streams of a megabyte leave what is kept and what is used alone.
        for at in [0, 1 << 20] {
            assert_eq!(run(&mut c, 3, (at, 1 << 20), false, Hint::Stream).0, 0);
        }
        assert_eq!(run(&mut c, 2, kept, false, Hint::Bypass).0, kept.1);
        assert_eq!(run(&mut c, 0, (1 << 31, 24 * 1024), false, Hint::Bypass).0, 24 * 1024);
        // Allocating traffic takes everything but what is kept.
        run(&mut c, 3, (0, 1 << 20), false, Hint::Allocate);
        assert_eq!(run(&mut c, 2, kept, false, Hint::Bypass).0, kept.1);
        assert_eq!(run(&mut c, 0, (1 << 31, 24 * 1024), false, Hint::Bypass).0, 0);
        assert!(c.evicted_bytes[3] >= 24 * 1024, "client 3 evicted what client 0 missed");
    }

    #[test]
    fn ways_keep_clients_apart() {
        let mut c = SystemCache::new(SlcParameters { cpu_ways: 1, npu_ways: 3, ..SMALL }, 4);
        run(&mut c, 0, (0, 16 * 1024), true, Hint::Allocate);
        run(&mut c, 2, (1 << 24, 1 << 20), true, Hint::Allocate);
        assert_eq!(run(&mut c, 0, (0, 16 * 1024), false, Hint::Bypass).0, 16 * 1024);
        assert_eq!(c.uses()[0].write_backs, 0);
        let back = c.uses()[2].write_backs;
        assert_eq!(back * LINE, (1 << 20) - 3 * 16 * 1024, "all but what fits was written back");
    }

    /// Against a plain map of lines with the same replacement, on random runs.
    #[test]
    fn presence_is_that_of_a_plain_model() {
        use std::collections::BTreeMap;
        let mut c = SystemCache::new(SMALL, 4);
        let mut dirty: BTreeMap<u64, ()> = BTreeMap::new();
        let mut seed = 11u64;
        let mut draw = |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % below
        };
        let (mut asked, mut served) = (0, 0);
        for _ in 0..20_000 {
            // Within a sector, so that nothing written is displaced by the same access.
            let at = draw(1 << 18) * 16;
            let bytes = ((1 + draw(64)) * 16).min(SECTOR_BYTES - at % SECTOR_BYTES);
            let (write, client) = (draw(3) == 0, draw(4) as usize);
            let hint = Hint::of_code(draw(4));
            let (mut missed, mut back) = (Vec::new(), Vec::new());
            let found = c.access(client, &[(at, bytes)], write, hint, &mut missed, &mut back);
            let to_memory: u64 = missed.iter().map(|r| r.1).sum();
            (asked, served) = (asked + bytes, served + found + to_memory);
            assert_eq!(asked, served);
            // Every line written back was dirty, once; every line written and not sent on is dirty now.
            for (at, bytes) in &back {
                (at / 64..(at + bytes) / 64).for_each(|l| assert!(dirty.remove(&l).is_some(), "line {l}"));
            }
            if write {
                for line in at / 64..(at + bytes).div_ceil(64) {
                    let sent = missed.iter().any(|m| m.0 < line * 64 + 64 && m.0 + m.1 > line * 64);
                    if !sent {
                        dirty.insert(line, ());
                    }
                }
            }
        }
        let left: u32 = c.sectors.iter().map(|s| s.dirty.count_ones()).sum();
        assert_eq!(left as usize, dirty.len(), "what is dirty is still there");
    }
}
