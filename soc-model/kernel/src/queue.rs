//! A totally ordered event queue: (time, phase, rank by name, sequence), with a digest of all it dispatched.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::units::Time;

/// Order within one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Data and completions arrive.
    Deliver,
    /// Components act.
    Tick,
    /// Probes read a settled state.
    Sample,
}

/// Position of a component in the name-sorted list, so assembly order cannot matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rank(u32);

impl Rank {
    /// Index into the name-sorted component list.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// The components of a system, ranked by name.
#[derive(Clone, Debug, Default)]
pub struct RankTable {
    names: Vec<String>,
}

impl RankTable {
    /// Ranks `names` in any order.
    ///
    /// # Panics
    /// If two components share a name.
    #[must_use]
    pub fn new(names: impl IntoIterator<Item = String>) -> Self {
        let mut names: Vec<String> = names.into_iter().collect();
        names.sort();
        assert!(names.windows(2).all(|w| w[0] != w[1]), "component names are unique");
        Self { names }
    }

    /// Rank of a component.
    ///
    /// # Panics
    /// If there is no such component.
    #[must_use]
    pub fn rank(&self, name: &str) -> Rank {
        let i = self.names.binary_search_by(|n| n.as_str().cmp(name)).expect("component is registered");
        Rank(u32::try_from(i).expect("component count fits"))
    }

    /// Name of a component.
    #[must_use]
    pub fn name(&self, rank: Rank) -> &str {
        &self.names[rank.index()]
    }
}

/// What an event contributes to the digest.
pub trait EventCode {
    /// A number that tells this event from others of its component.
    fn code(&self) -> u64;
}

/// A 128-bit digest folded from every dispatched event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest(u64, u64);

impl Default for Digest {
    // Offset bases: the first 128 bits of the fractional part of pi.
    fn default() -> Self {
        Self(0x243F_6A88_85A3_08D3, 0x1319_8A2E_0370_7344)
    }
}

impl Digest {
    /// Folds one word in.
    #[inline]
    pub fn fold(&mut self, word: u64) {
        // Two lanes of a multiply-rotate mix; order matters in both.
        self.0 = (self.0 ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
        self.1 = (self.1.rotate_left(17) ^ self.0).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    }

    /// The digest as 32 hexadecimal digits.
    #[must_use]
    pub fn hex(&self) -> String {
        format!("{:016x}{:016x}", self.0, self.1)
    }
}

#[derive(Clone, Debug)]
struct Entry<E> {
    key: (Time, Phase, Rank, u64),
    event: E,
}

impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}
impl<E> Eq for Entry<E> {}
impl<E> PartialOrd for Entry<E> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<E> Ord for Entry<E> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key.cmp(&other.key)
    }
}

/// The queue of a run.
#[derive(Clone, Debug)]
pub struct EventQueue<E> {
    heap: BinaryHeap<Reverse<Entry<E>>>,
    sequence: Vec<u64>,
    now: Time,
    digest: Digest,
    dispatched: u64,
}

impl<E: EventCode> EventQueue<E> {
    /// A queue for the components of `ranks`.
    #[must_use]
    pub fn new(ranks: &RankTable) -> Self {
        Self {
            heap: BinaryHeap::new(),
            sequence: vec![0; ranks.names.len()],
            now: Time::ZERO,
            digest: Digest::default(),
            dispatched: 0,
        }
    }

    /// The time of the event being dispatched.
    pub fn now(&self) -> Time {
        self.now
    }

    /// Schedules `event` for component `rank`.
    ///
    /// # Panics
    /// If `at` lies in the past: causality is a bug of the model, never of its input.
    pub fn schedule(&mut self, at: Time, phase: Phase, rank: Rank, event: E) {
        assert!(at >= self.now, "event scheduled at {at}, now is {}", self.now);
        let seq = &mut self.sequence[rank.index()];
        *seq += 1;
        self.heap.push(Reverse(Entry { key: (at, phase, rank, *seq), event }));
    }

    /// The next event; folds it into the digest and moves time forward.
    pub fn pop(&mut self) -> Option<(Time, Rank, E)> {
        let Reverse(Entry { key: (time, phase, rank, _), event }) = self.heap.pop()?;
        self.now = time;
        self.digest.fold(time.get());
        self.digest.fold(((rank.index() as u64) << 8) ^ (phase as u64) ^ event.code().rotate_left(32));
        self.dispatched += 1;
        Some((time, rank, event))
    }

    /// Time of the next event.
    #[must_use]
    pub fn next_time(&self) -> Option<Time> {
        self.heap.peek().map(|Reverse(e)| e.key.0)
    }

    /// Digest of everything dispatched so far.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Number of events dispatched.
    #[must_use]
    pub fn dispatched(&self) -> u64 {
        self.dispatched
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl EventCode for u64 {
        fn code(&self) -> u64 {
            *self
        }
    }

    fn drain(order: &[&str]) -> (Vec<(u64, String, u64)>, String) {
        let ranks = RankTable::new(order.iter().map(ToString::to_string));
        let mut q = EventQueue::new(&ranks);
        for name in order {
            q.schedule(Time::new(5), Phase::Tick, ranks.rank(name), 1);
            q.schedule(Time::new(5), Phase::Deliver, ranks.rank(name), 2);
            q.schedule(Time::new(1), Phase::Sample, ranks.rank(name), 3);
        }
        let mut seen = Vec::new();
        while let Some((t, r, e)) = q.pop() {
            seen.push((t.get(), ranks.name(r).to_owned(), e));
        }
        (seen, q.digest().hex())
    }

    #[test]
    fn assembly_order_does_not_matter() {
        let a = drain(&["npu0", "hart0", "dram"]);
        let b = drain(&["dram", "npu0", "hart0"]);
        assert_eq!(a, b);
        assert_eq!(a.0[0], (1, "dram".into(), 3));
        assert_eq!(a.0[3], (5, "dram".into(), 2));
    }

    #[test]
    #[should_panic(expected = "event scheduled at")]
    fn the_past_is_refused() {
        let ranks = RankTable::new(["a".to_owned()]);
        let mut q = EventQueue::new(&ranks);
        q.schedule(Time::new(5), Phase::Tick, ranks.rank("a"), 0u64);
        q.pop();
        q.schedule(Time::new(4), Phase::Tick, ranks.rank("a"), 0u64);
    }
}
