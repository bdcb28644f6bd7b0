//! PMU events that need the clock, and the ports whose traffic they count.

use isa::npu::pmu::{PmuEvent, SEQUENCER, select};
use isa::npu::registers as reg;
use sim_kernel::Time;

use super::Cluster;
use crate::stalls::Cause;

/// Upper edges of the latency histogram, cycles.
const LATENCIES: [u64; 6] = [32, 64, 128, 256, 512, 1024];

/// Traffic of a DMA channel's memory port.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Port {
    accepted: u64,
    completed: u64,
    beats: u64,
    stalls: u64,
    latency: [u64; 7],
    /// Cycle and beats of the transfer under way.
    open: Option<(u64, u64)>,
}

/// The cause a PMU event counts.
const fn cause(event: PmuEvent) -> Option<Cause> {
    Some(match event {
        PmuEvent::Active => Cause::Active,
        PmuEvent::FillDrain => Cause::FillDrain,
        PmuEvent::Operand => Cause::Operand,
        PmuEvent::Dependency => Cause::Dependency,
        PmuEvent::Output => Cause::Output,
        PmuEvent::Imbalance => Cause::Imbalance,
        PmuEvent::Dram => Cause::Dram,
        PmuEvent::CommandFetch => Cause::Command,
        PmuEvent::Idle => Cause::Idle,
        PmuEvent::BankConflict => Cause::BankConflict,
        PmuEvent::PowerWake => Cause::PowerWake,
        _ => return None,
    })
}

impl Cluster {
    /// Reads a register; `None` where there is none.
    #[must_use]
    pub fn load(&self, now: Time, core: usize, offset: u64) -> Option<u64> {
        let c = self.cores.cores.get(core)?;
        let value = c.load(&self.cores.cfg, offset)?;
        let page = offset % reg::QUEUE_STRIDE;
        let last = reg::PMU0 + 8 * reg::PMU_COUNTERS as u64;
        if (reg::PMU0..last).contains(&page) {
            let i = usize::try_from((page - reg::PMU0) / 8).ok()?;
            return Some(c.pmu.counter(i, self.raw(now, core, c.pmu.select(i))));
        }
        Some(value)
    }

    /// A store to the PMU, whose counters start from totals as of now; `None` if it goes elsewhere.
    pub(super) fn store_pmu(&mut self, now: Time, core: usize, offset: u64, value: u64) -> Option<bool> {
        let page = offset % reg::QUEUE_STRIDE;
        let last = reg::PMU_SEL0 + 8 * reg::PMU_COUNTERS as u64;
        if offset >= reg::QUEUE_STRIDE * reg::QUEUES as u64 {
            return None;
        }
        if (reg::PMU_SEL0..last).contains(&page) && page.is_multiple_of(8) {
            let raw = self.raw(now, core, value);
            let i = usize::try_from((page - reg::PMU_SEL0) / 8).ok()?;
            return Some(self.cores.cores[core].pmu.set_select(i, value, raw));
        }
        if page == reg::PMU_CTRL {
            let raws = self.raws(now, core);
            self.cores.cores[core].pmu.store(value, &raws);
            return Some(true);
        }
        None
    }

    fn raws(&self, now: Time, core: usize) -> Vec<u64> {
        self.cores.cores[core].pmu.selects().iter().map(|s| self.raw(now, core, *s)).collect()
    }

    /// Notes what a PMU_RD about to be sequenced reads.
    pub(super) fn refresh(&mut self, now: Time, core: usize) {
        let raws = self.raws(now, core);
        self.cores.cores[core].pmu.refresh(&raws);
    }

    /// Total of an event by `now`.
    #[must_use]
    pub fn raw(&self, now: Time, core: usize, value: u64) -> u64 {
        let Some((event, unit)) = select(value) else { return 0 };
        let t = &self.time[core];
        let cycle = self.clock.at_or_after(now).get();
        let engine = usize::try_from(unit).ok().and_then(|u| t.engines.get(u));
        if let Some(cause) = cause(event) {
            let meter = if unit == SEQUENCER { &t.meter } else { &engine.unwrap_or(&t.engines[0]).meter };
            let mut meter = meter.clone();
            meter.until(cycle, Cause::Idle);
            return meter.spent()[cause as usize];
        }
        let port = engine.map_or(Port::default(), |e| e.port);
        match event {
            PmuEvent::Cycles => cycle,
            PmuEvent::Commands if unit != SEQUENCER => engine.map_or(0, |e| e.executed),
            PmuEvent::PortAccepted => port.accepted,
            PmuEvent::PortCompleted => port.completed,
            PmuEvent::PortBeats => port.beats,
            PmuEvent::PortStalls => port.stalls,
            PmuEvent::Latency32 => port.latency[0],
            PmuEvent::Latency64 => port.latency[1],
            PmuEvent::Latency128 => port.latency[2],
            PmuEvent::Latency256 => port.latency[3],
            PmuEvent::Latency512 => port.latency[4],
            PmuEvent::Latency1024 => port.latency[5],
            PmuEvent::LatencyMore => port.latency[6],
            _ => self.cores.cores[core].raw(value),
        }
    }

    /// A transfer of a channel starts.
    pub(super) fn port_begins(&mut self, core: usize, engine: usize, cycle: u64, beats: u64) {
        let p = &mut self.time[core].engines[engine].port;
        p.accepted += 1;
        p.open = Some((cycle, beats));
    }

    /// A transfer of a channel ended.
    pub(super) fn port_done(&mut self, now: Time, core: usize, engine: usize) {
        let cycle = self.clock.at_or_after(now).get();
        let p = &mut self.time[core].engines[engine].port;
        let Some((start, beats)) = p.open.take() else { return };
        let took = cycle.saturating_sub(start);
        p.completed += 1;
        p.beats += beats;
        p.stalls += took.saturating_sub(beats);
        let bin = LATENCIES.iter().position(|edge| took <= *edge).unwrap_or(LATENCIES.len());
        p.latency[bin] += 1;
    }
}
