//! The parts of flows that lie in one channel, and how they share its capacity.
//!
//! Models: max-min shares by weight under caps, urgent ones first; the turn a flow ends in.
//! Does not model: turns themselves. Source: our own; held against the burst engine in tests/dram_sampled.rs.

use sim_kernel::units::FS_PER_S;

/// Work is counted in byte x fs / s, so that rate x time is exact.
pub(super) const UNITS_PER_BYTE: u128 = FS_PER_S as u128;

/// Whole bytes in an amount of work.
pub(super) fn bytes_of(units: u128) -> u64 {
    // 10^15 is 2^15 x 5^15: what is left of a transfer's work after the shift nearly always fits a word.
    const SHIFT: u32 = 15;
    const REST: u64 = FS_PER_S >> SHIFT;
    let shifted = units >> SHIFT;
    match u64::try_from(shifted) {
        Ok(small) => small / REST,
        Err(_) => u64::try_from(shifted / u128::from(REST)).expect("bytes"),
    }
}

/// The part `bytes` of `work` has of a rate; not 0.
pub(super) fn part_of(rate: u64, bytes: u64, work: u64) -> u64 {
    let part = match rate.checked_mul(bytes) {
        Some(product) => product / work,
        None => {
            u64::try_from(u128::from(rate) * u128::from(bytes) / u128::from(work)).expect("a part of a u64")
        }
    };
    part.max(1)
}

/// The flow of noise, which never ends.
pub(super) const NOISE: u32 = u32::MAX;

/// One channel's part of a flow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sub {
    /// Its flow, or `NOISE`.
    pub(super) flow: u32,
    pub(super) client: u16,
    pub(super) weight: u32,
    pub(super) write: bool,
    pub(super) urgent: bool,
    pub(super) fixed: bool,
    pub(super) cap: u64,
    pub(super) rate: u64,
    pub(super) total: u64,
    pub(super) remaining: u128,
    /// What is left when its flow learns that its last turn is over; `None` once it has.
    pub(super) last_turn: Option<u128>,
}

impl Sub {
    /// Work until its next event: the end of its last turn, or of its share.
    pub(super) fn due(&self) -> u128 {
        self.remaining.saturating_sub(self.last_turn.unwrap_or(0))
    }

    /// Bytes it has been served.
    pub(super) fn served(&self) -> u64 {
        let all = if self.flow == NOISE { u128::MAX } else { u128::from(self.total) * UNITS_PER_BYTE };
        bytes_of(all - self.remaining)
    }
}

/// What an equal share has still to serve when a flow whose last turn moves `bytes` has had it.
///
/// With `rotation` flows in turns a flow that comes waits for half a rotation on average, then for a whole one from
/// turn to turn; an equal share makes it wait for all of them. So its end comes half a rotation, less its own turn,
/// before its share's; the rest of its share is what the others' turns have not yet had.
pub(super) fn last_turn(bytes: u64, rotation: u128) -> u128 {
    u128::from(bytes) * UNITS_PER_BYTE * rotation.saturating_sub(2) / (2 * rotation)
}

/// Max-min shares of `capacity` by weight: urgent sub-flows first, then the others, nobody beyond its cap.
pub(super) fn share(subs: &mut [Sub], capacity: u64) {
    let urgent = subs.iter().filter(|s| s.urgent).count();
    let mut left = capacity;
    for class in [true, false] {
        if class && urgent == 0 {
            continue;
        }
        let mine = |s: &Sub| s.urgent == class;
        let mut open: u64 = subs.iter().filter(|s| mine(s)).map(|s| u64::from(s.weight)).sum();
        let mut budget = if class && open > 0 && urgent < subs.len() { left - left / 16 } else { left };
        for s in subs.iter_mut() {
            s.fixed = false;
        }
        loop {
            let (now, among) = (budget, open.max(1));
            let (mut settled, mut given) = (true, 0);
            // Most weigh the same.
            let (mut weight, mut fair) = (0, 0);
            for s in subs.iter_mut().filter(|s| mine(s) && !s.fixed) {
                if s.weight != weight {
                    (weight, fair) = (s.weight, (now * u64::from(s.weight) / among).max(1));
                }
                s.rate = fair;
                given += fair;
                if s.cap < fair {
                    (s.fixed, s.rate, settled) = (true, s.cap, false);
                    given -= fair;
                    budget -= s.cap;
                    left -= s.cap;
                    open -= u64::from(s.weight);
                }
            }
            if settled || open == 0 {
                left = left.saturating_sub(given);
                break;
            }
        }
    }
}
