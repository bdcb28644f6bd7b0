//! Transfers in time: memory phases one after another, links between cores, the decoder, and whose fault the rest is.

use std::collections::VecDeque;

use isa::npu::Dma;
use isa::npu::dma::Codec;
use sim_kernel::{Cycles, Time};

use super::contention::Demand;
use super::dispatch::reachable;
use super::{Cluster, FlowRequest, NpuEvent, Outside, Requester};
use crate::activity::Activity;
use crate::dma::{Direction, Phase, Transfer};
use crate::fault::Fault;
use crate::stalls::Cause;

/// First of a transfer's own waits among those of an executed command; the one before is the banks'.
pub(super) const TRANSFER_WAITS: usize = 5;

/// The transfer a channel is making.
#[derive(Clone, Debug)]
pub(super) struct TransferTime {
    /// Memory phases that have not started.
    phases: VecDeque<Phase>,
    cap: u64,
    qos: u64,
    slc: u64,
    tag: u64,
    /// Cores whose scratchpads it uses, by bit.
    pub(super) served: u64,
    /// Cycles before which the decoder and the ring are not done with it.
    decoded: u64,
    delivered: u64,
    /// Cycles beyond its active ones that are not memory's, in the order they are charged.
    pub(super) waits: [(Cause, u64); 3],
}

impl Default for TransferTime {
    fn default() -> Self {
        Self {
            phases: VecDeque::new(),
            cap: 0,
            qos: 0,
            slc: 0,
            tag: 0,
            served: 0,
            decoded: 0,
            delivered: 0,
            waits: [(Cause::FillDrain, 0), (Cause::DmaBandwidth, 0), (Cause::Fabric, 0)],
        }
    }
}

/// Cores whose scratchpads a transfer of `core` uses, by bit.
const fn scratchpads(core: usize, t: &Transfer) -> u64 {
    let own = 1u64 << core;
    let mask = if t.cores == 0 { own } else { t.cores };
    match t.direction {
        Direction::Load | Direction::Fill => mask,
        Direction::Store => own,
        Direction::Copy => mask | own,
    }
}

impl Cluster {
    pub(super) fn begin_transfer(
        &mut self,
        (now, cycle): (Time, u64),
        (core, engine): (usize, usize),
        (t, d, tag): (&Transfer, &Dma, u64),
        out: &mut impl Outside,
    ) -> Result<(u64, Activity, Demand), Fault> {
        let (width, channel) = (u64::from(self.cores.cfg.dma_bytes_per_cycle), self.channel_rate());
        let found = t.find(&self.cores.cores[core].local.spm, out)?;
        let traffic = t.traffic(&found, width);
        let phases = t.phases(&found);
        phases.iter().try_for_each(|p| reachable(&p.runs, out))?;
        let setup = self.timing.dma_setup_cycles;
        // The channel decodes streams with the one decoder of its core.
        let mut decoded = 0;
        if matches!(Codec::from_code(d.codec), Some(Codec::ZeroRle | Codec::Entropy)) {
            let free = &mut self.time[core].decoder_free;
            decoded = cycle.max(*free) + traffic.beats;
            *free = decoded;
        }
        let linked = self.ring.take(core, t.cores, cycle + setup, traffic.crossing.div_ceil(width));
        let served = scratchpads(core, t);
        let e = &mut self.time[core].engines[engine].transfer;
        *e = TransferTime {
            served,
            cap: traffic.cap(channel, width, self.cores.cfg.frequency),
            qos: d.qos,
            slc: d.slc,
            tag,
            decoded,
            delivered: linked.map_or(0, |start| start + traffic.crossing.div_ceil(width)),
            phases: phases.into(),
            ..TransferTime::default()
        };
        if e.phases.is_empty() {
            let fabric = linked.map_or(0, |start| start - cycle - setup);
            e.waits[2].1 = fabric;
            e.waits[0].1 = setup + self.timing.hop_cycles;
            self.finish_at(
                cycle + setup + fabric + self.timing.hop_cycles + traffic.beats,
                core,
                engine,
                out,
            );
        } else {
            // What the channel alone would take, beyond its active cycles: bytes in flight bound its rate.
            let bytes = u128::from(traffic.memory_read + traffic.memory_written);
            let alone =
                (bytes * u128::from(self.cores.cfg.frequency.get())).div_ceil(u128::from(e.cap.max(1)));
            e.waits[0].1 = setup;
            e.waits[1].1 = u64::try_from(alone).unwrap_or(u64::MAX).saturating_sub(traffic.beats);
            self.port_begins(core, engine, cycle, traffic.beats);
            self.next_phase(now, core, engine, out);
        }
        self.transfer_demand(served, cycle, true);
        Ok((traffic.beats, Activity::of_transfer(&traffic), Demand::default()))
    }

    /// Starts the next memory phase of a channel's transfer; false if there is none.
    fn next_phase(&mut self, now: Time, core: usize, engine: usize, out: &mut impl Outside) -> bool {
        let e = &mut self.time[core].engines[engine].transfer;
        let Some(phase) = e.phases.pop_front() else { return false };
        let flow = FlowRequest {
            core,
            requester: Requester::Channel(u8::try_from(engine).expect("six engines")),
            runs: &phase.runs,
            write: phase.write,
            qos: e.qos,
            slc: e.slc,
            tag: e.tag,
            cap: e.cap,
        };
        out.start_flow(now, &flow);
        true
    }

    /// Memory is done with a phase of a channel's transfer.
    pub(super) fn arrived(&mut self, now: Time, core: usize, engine: usize, out: &mut impl Outside) {
        if self.next_phase(now, core, engine, out) {
            return;
        }
        self.port_done(now, core, engine);
        let e = &mut self.time[core].engines[engine].transfer;
        let cycle = self.clock.at_or_after(now).get();
        let decoded = cycle.max(e.decoded);
        let delivered = decoded.max(e.delivered);
        e.waits[1].1 += decoded - cycle;
        e.waits[2].1 = delivered - decoded;
        // Setting the transfer up is charged here, so that flows always start in the present.
        let end = delivered + self.timing.dma_setup_cycles;
        let done = NpuEvent::Done(u8::try_from(engine).expect("six engines"));
        out.schedule(self.clock.edge(Cycles::new(end)), core, done);
    }
}
