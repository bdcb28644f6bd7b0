//! Engines whose clock or supply is gated: what that saves, and what waking costs.
//!
//! Models: three states of an engine; work that is ready wakes it, after a latency.
//! Does not model: energy of the transition, gating of scratchpad banks, loss of state (an engine keeps none between
//! commands; accumulators are a memory of their own).
//! Source: wake-up latencies are estimates, accuracy class C.

use sim_kernel::Time;

use super::Cluster;
use crate::core::ENGINES;

/// Nanoseconds from gated with retention to working.
pub const WAKE_RETENTION_NS: u64 = 1_000;
/// Nanoseconds from off to working.
pub const WAKE_OFF_NS: u64 = 20_000;

/// Power state of an engine.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Power {
    /// 0 on, 1 gated with retention, 2 off.
    mode: u64,
    since: u64,
    /// First cycle at which it works again, and the one at which waking began.
    pub waking: Option<(u64, u64)>,
    gated: [u64; 2],
}

/// Cycles an engine spent gated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gated {
    /// Core.
    pub core: usize,
    /// Engine.
    pub engine: usize,
    /// With retention.
    pub retention: u64,
    /// Off.
    pub off: u64,
}

impl Power {
    fn at(&self, cycle: u64) -> [u64; 2] {
        let mut gated = self.gated;
        if self.mode > 0 {
            gated[usize::from(self.mode == 2)] += cycle.saturating_sub(self.since);
        }
        gated
    }

    fn set(&mut self, mode: u64, cycle: u64) {
        self.gated = self.at(cycle);
        (self.mode, self.since) = (mode, cycle);
    }
}

impl Cluster {
    pub(super) fn set_power(&mut self, now: Time, core: usize, mask: u64, mode: u64) {
        let cycle = self.clock.at_or_after(now).get();
        for e in (0..ENGINES).filter(|e| mask >> e & 1 == 1) {
            if mode == 0 {
                self.wake(core, e, cycle);
            } else {
                let p = &mut self.time[core].engines[e].power;
                p.set(mode, cycle);
                p.waking = None;
            }
        }
    }

    /// Cycle from which an engine works; begins to wake it if it is gated.
    pub(super) fn wake(&mut self, core: usize, engine: usize, cycle: u64) -> u64 {
        let ns = match self.time[core].engines[engine].power.mode {
            0 => 0,
            1 => WAKE_RETENTION_NS,
            _ => WAKE_OFF_NS,
        };
        let hertz = u128::from(self.clock.frequency().get());
        let latency = u64::try_from((u128::from(ns) * hertz).div_ceil(1_000_000_000)).expect("a latency");
        let p = &mut self.time[core].engines[engine].power;
        if p.mode > 0 {
            p.set(0, cycle);
            p.waking = Some((cycle + latency, cycle));
        }
        p.waking.map_or(0, |w| w.0)
    }

    /// Cycles every engine has spent gated by `now`; engines that never were are left out.
    #[must_use]
    pub fn gated(&self, now: Time) -> Vec<Gated> {
        let cycle = self.clock.at_or_after(now).get();
        let mut out = Vec::new();
        for (core, t) in self.time.iter().enumerate() {
            for (engine, e) in t.engines.iter().enumerate() {
                let [retention, off] = e.power.at(cycle);
                if retention + off > 0 {
                    out.push(Gated { core, engine, retention, off });
                }
            }
        }
        out
    }
}
