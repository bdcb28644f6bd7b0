//! The PMU of a core: 32 counters over one table of events, which can stand still or be read as a snapshot.
//!
//! Models: event selects, freeze, snapshot, reset. Counters are differences of totals that the engines keep anyway, so
//! that counting costs nothing.
//! Does not model: counter overflow (64 bits), interrupts on overflow.
//! Source: `isa::npu::pmu`.

use isa::npu::pmu::{PmuEvent, SEQUENCER, select};
use isa::npu::registers::PMU_COUNTERS;

use crate::core::Core;

/// The counters.
#[derive(Clone, Debug)]
pub struct Pmu {
    selects: [u64; PMU_COUNTERS],
    /// Total of its event when a counter stood at 0.
    base: [u64; PMU_COUNTERS],
    frozen: Option<[u64; PMU_COUNTERS]>,
    snapshot: Option<[u64; PMU_COUNTERS]>,
    /// Values PMU_RD writes: what counters read when it was sequenced.
    fresh: [u64; PMU_COUNTERS],
    /// Commands ended by engine, and what else a core counts without a clock.
    pub commands: [u64; crate::core::ENGINES],
}

impl Default for Pmu {
    fn default() -> Self {
        let zero = [0; PMU_COUNTERS];
        Self { selects: zero, base: zero, frozen: None, snapshot: None, fresh: zero, commands: [0; 6] }
    }
}

impl Pmu {
    /// Event select of counter `i`.
    #[must_use]
    pub const fn select(&self, i: usize) -> u64 {
        self.selects[i]
    }

    /// All selects.
    #[must_use]
    pub const fn selects(&self) -> &[u64; PMU_COUNTERS] {
        &self.selects
    }

    /// Selects an event, whose total now is `raw`; the counter starts at 0. False if there is no such event.
    pub fn set_select(&mut self, i: usize, value: u64, raw: u64) -> bool {
        if select(value).is_none() {
            return false;
        }
        (self.selects[i], self.base[i]) = (value, raw);
        if let Some(f) = &mut self.frozen {
            f[i] = 0;
        }
        true
    }

    /// What counter `i` reads when the total of its event is `raw`.
    #[must_use]
    pub fn counter(&self, i: usize, raw: u64) -> u64 {
        match (&self.snapshot, &self.frozen) {
            (Some(s), _) => s[i],
            (None, Some(f)) => f[i],
            (None, None) => raw.saturating_sub(self.base[i]),
        }
    }

    /// What PMU_CTRL reads.
    #[must_use]
    pub fn control(&self) -> u64 {
        u64::from(self.frozen.is_some()) | u64::from(self.snapshot.is_some()) << 1
    }

    /// PMU_CTRL is written while the totals are `raws`.
    pub fn store(&mut self, value: u64, raws: &[u64]) {
        if value & 4 != 0 {
            self.base.copy_from_slice(raws);
            if let Some(f) = &mut self.frozen {
                *f = [0; PMU_COUNTERS];
            }
        }
        self.snapshot = None;
        let now: [u64; PMU_COUNTERS] = core::array::from_fn(|i| self.counter(i, raws[i]));
        match (self.frozen, value & 1 == 1) {
            (None, true) => self.frozen = Some(now),
            (Some(f), false) => {
                self.frozen = None;
                for (base, (raw, value)) in self.base.iter_mut().zip(raws.iter().zip(f)) {
                    // Counters go on from where they stood.
                    *base = raw.wrapping_sub(value);
                }
            }
            _ => {}
        }
        if value & 2 != 0 {
            self.snapshot = Some(now);
        }
    }

    /// Notes the totals a PMU_RD about to be sequenced sees.
    pub fn refresh(&mut self, raws: &[u64]) {
        self.fresh = core::array::from_fn(|i| self.counter(i, raws[i]));
    }

    /// What PMU_RD writes.
    #[must_use]
    pub const fn read(&self) -> &[u64; PMU_COUNTERS] {
        &self.fresh
    }
}

impl Core {
    /// Total of an event as far as it needs no clock; 0 of one that does.
    #[must_use]
    pub fn raw(&self, value: u64) -> u64 {
        let Some((event, unit)) = select(value) else { return 0 };
        let p = self.preemptions();
        match event {
            PmuEvent::Commands if unit == SEQUENCER => self.sequenced(),
            PmuEvent::Commands => self.pmu.commands[usize::try_from(unit).expect("a unit")],
            PmuEvent::Retired => self.queues.iter().map(crate::core::Queue::records).sum(),
            PmuEvent::Switches => p.switches,
            PmuEvent::SavedBytes => p.saved_bytes,
            PmuEvent::RestoredBytes => p.restored_bytes,
            PmuEvent::SaveCycles => p.move_cycles,
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_freeze_go_on_and_are_read_as_a_snapshot() {
        let mut p = Pmu::default();
        assert!(p.set_select(0, PmuEvent::Cycles.code(), 100));
        assert!(!p.set_select(1, 0xFE, 0), "no such event");
        let raws = |n: u64| [n; PMU_COUNTERS];
        assert_eq!(p.counter(0, 130), 30);
        p.store(1, &raws(140));
        assert_eq!((p.counter(0, 999), p.control()), (40, 1));
        p.store(0, &raws(500));
        assert_eq!(p.counter(0, 510), 50, "it went on from 40");
        p.store(2, &raws(520));
        assert_eq!((p.counter(0, 900), p.control()), (60, 2));
        p.store(4, &raws(600));
        assert_eq!(p.counter(0, 607), 7);
    }
}
