//! The parts of flows that lie in one channel, and how they share its capacity.
//!
//! Models: max-min shares by weight under caps, urgent ones first; the turn a flow ends in.
//! Does not model: turns themselves. Source: our own; held against the burst engine in tests/dram_sampled.rs.

use sim_kernel::units::FS_PER_S;

/// Work is counted in byte x fs / s, so that rate x time is exact.
pub(super) const UNITS_PER_BYTE: u128 = FS_PER_S as u128;

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
        let mine = |s: &Sub| s.urgent == class;
        let mut open: u64 = subs.iter().filter(|s| mine(s)).map(|s| u64::from(s.weight)).sum();
        let mut budget = if class && open > 0 && urgent < subs.len() { left - left / 16 } else { left };
        for s in subs.iter_mut() {
            s.fixed = false;
        }
        loop {
            let (now, among) = (budget, open.max(1));
            let (mut settled, mut given) = (true, 0);
            for s in subs.iter_mut().filter(|s| mine(s) && !s.fixed) {
                let fair = (now * u64::from(s.weight) / among).max(1);
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
