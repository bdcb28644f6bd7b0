//! Engines of a core sharing its scratchpad banks and accumulator ports.
//!
//! Models: each command asks for its bytes evenly over its cycles. DMA is served first, since memory cannot be held
//! back; MX and VP share what is left in proportion to what they ask for. In every interval between two commands'
//! starts and ends the share lost is a constant, so lost cycles are a product, not a count.
//! Does not model: which bank a row starts in (lines are interleaved over all banks), conflicts below saturation, a
//! DMA channel slowed by the scratchpad.
//! Source: the arbitration is an estimate, accuracy class C; widths come from the configuration.

use super::Cluster;
use crate::core::{MX, VP};
use crate::ops::Cost;

/// Fixed-point units of a byte a cycle, and of a cycle.
const UNIT: u64 = 1 << 20;

/// What a command asks of local memories, in units of bytes a cycle.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Demand {
    spm: u64,
    acc: u64,
}

impl Demand {
    pub(super) fn of(c: &Cost) -> Self {
        let rate = |bytes: u64| bytes.saturating_mul(UNIT) / c.cycles.max(1);
        Self {
            spm: rate(c.spm_read_bytes + c.spm_write_bytes),
            acc: rate(c.acc_read_bytes + c.acc_write_bytes),
        }
    }
}

/// Units lost in a cycle by those who ask for `asked` and may have `served`.
fn lost(asked: u64, served: u64) -> u64 {
    if asked <= served { 0 } else { (asked - served) * UNIT / asked }
}

impl Cluster {
    /// Charges running commands for the time since the last change; to be called before every change.
    pub(super) fn arbitrate(&mut self, core: usize, cycle: u64) {
        let ports = self.cores.cfg.ports;
        let t = &mut self.time[core];
        let span = cycle.saturating_sub(t.arbitrated);
        t.arbitrated = t.arbitrated.max(cycle);
        if span == 0 || ports.banks == 0 {
            return;
        }
        let demands: [Demand; 2] =
            [MX, VP].map(|e| t.engines[e].running.as_ref().map_or(Demand::default(), |r| r.demand));
        let banks = u64::from(ports.banks) * u64::from(ports.bank_bytes_per_cycle) * UNIT;
        // However busy DMA is, an eighth is left.
        let spm = banks.saturating_sub(t.dma_demand).max(banks / 8);
        let acc = u64::from(ports.accumulator_ports) * u64::from(self.cores.cfg.cols) * 8 * UNIT;
        let spm = lost(demands[0].spm + demands[1].spm, spm);
        let acc = lost(demands[0].acc + demands[1].acc, acc);
        for (e, d) in [MX, VP].into_iter().zip(demands) {
            let share = (if d.spm > 0 { spm } else { 0 }).max(if d.acc > 0 { acc } else { 0 });
            if let Some(r) = &mut t.engines[e].running {
                r.owed += span * share;
            }
        }
    }

    /// Whole cycles a running MX or VP command still has to make up for; they count as conflict from now on.
    pub(super) fn take_owed(&mut self, core: usize, engine: usize) -> u64 {
        let Some(r) = &mut self.time[core].engines[engine].running else { return 0 };
        let cycles = r.owed / UNIT;
        r.owed %= UNIT;
        r.conflict += cycles;
        cycles
    }

    /// A transfer begins (or ends): the scratchpads of `cores` serve it first meanwhile.
    pub(super) fn transfer_demand(&mut self, cores: u64, cycle: u64, begins: bool) {
        if self.cores.cfg.ports.banks == 0 {
            return;
        }
        let rate = u128::from(self.channel_rate()) * u128::from(UNIT);
        let rate = u64::try_from(rate / u128::from(self.cores.cfg.frequency.get())).expect("a width");
        for i in (0..self.time.len()).filter(|i| cores >> i & 1 == 1) {
            self.arbitrate(i, cycle);
            let demand = &mut self.time[i].dma_demand;
            *demand = if begins { *demand + rate } else { demand.saturating_sub(rate) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lost_is_what_is_not_served() {
        assert_eq!(lost(100, 100), 0);
        assert_eq!(lost(200, 100), UNIT / 2);
        assert_eq!(lost(400, 300), UNIT / 4);
    }
}
