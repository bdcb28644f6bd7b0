//! Counts of the cluster that reports read.

use sim_kernel::Time;

use super::{Cluster, CoreTime, ENGINE_NAMES, SEQUENCER};
use crate::core::{ENGINES, MX};
use crate::stalls::{Cause, Meter};

impl Cluster {
    /// Commands executed so far: (core, engine name, count), with all that were dispatched for the sequencer.
    #[must_use]
    pub fn executed(&self) -> Vec<(usize, &'static str, u64)> {
        let mut out = Vec::new();
        for (i, t) in self.time.iter().enumerate() {
            out.push((i, SEQUENCER, t.commands));
            out.extend(self.engines().map(|e| (i, ENGINE_NAMES[e], t.engines[e].executed)));
        }
        out
    }

    /// Engines a core has beside its sequencer, by number.
    pub fn engines(&self) -> impl Iterator<Item = usize> + use<> {
        let channels = (self.cores.cfg.dma_in_channels + self.cores.cfg.dma_out_channels) as usize;
        (0..ENGINES).filter(move |e| *e >= MX || *e < channels)
    }

    /// Sequencer cycles of all cores that were not idle by `now`: a wait under way counts, a core without work does not.
    #[must_use]
    pub fn sequencing_cycles(&self, now: Time) -> u64 {
        let cycle = self.clock.at_or_after(now).get();
        let busy = |(i, t): (usize, &CoreTime)| {
            let m = &t.meter;
            let pending = if self.cores.cores[i].has_work() {
                cycle.saturating_sub(m.position().max(t.woke))
            } else {
                0
            };
            m.total() - m.spent()[Cause::Idle as usize] + pending
        };
        self.time.iter().enumerate().map(busy).sum()
    }

    /// Attributes everything up to `now` and returns the engines' meters: (core, engine name, meter).
    #[must_use]
    pub fn meters(&self, now: Time) -> Vec<(usize, &'static str, Meter)> {
        let cycle = self.clock.at_or_after(now).get();
        let mut out = Vec::new();
        for (i, t) in self.time.iter().enumerate() {
            let close = |m: &Meter| {
                let mut m = m.clone();
                m.until(cycle, Cause::Idle);
                m
            };
            out.push((i, SEQUENCER, close(&t.meter)));
            out.extend(self.engines().map(|e| (i, ENGINE_NAMES[e], close(&t.engines[e].meter))));
        }
        out
    }
}
