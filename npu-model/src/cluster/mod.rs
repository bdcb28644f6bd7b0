//! The NPU in time: every core's sequencer and engines, driven by events.
//!
//! ```text
//! doorbell ─► Sequence ─► Kick(engine) ─► [semaphores] ─► busy ─► Done(engine) ─► posts ─► waiting engines
//!                │ command fetch, 2 KiB a time       └─ DMA: a flow of the memory, FlowDone
//! ```
//! Models: fetch, dispatch at one command a cycle, FIFOs, engines with closed-form durations, DMA channels whose
//! transfers share memory with everyone else, posts to other cores after a hop, one cause for every cycle.
//! Source: `isa::npu`, `ops::cost`; constants in `ClusterTiming`.

mod accounts;
mod contention;
mod dispatch;
mod engines;
mod interface;
mod pmu;
mod power;
mod switching;
mod transfers;

use std::collections::VecDeque;

use isa::npu::registers::QUEUES;
use sim_kernel::{Clock, Cycles, Time};

use self::contention::Demand;
pub use self::interface::{
    ClusterTiming, ENGINE_NAMES, Executed, FlowRequest, NpuEvent, Outside, Requester, SEQUENCER, WAITS,
};
use self::pmu::Port;
pub use self::power::Gated;
use self::power::Power;
use self::transfers::TransferTime;
use crate::activity::{Activity, OpTable};
use crate::config::NpuConfig;
use crate::core::{ENGINES, Issued, Sequenced};
use crate::dma::Ring;
use crate::functional::Cores;
use crate::ids::IdSource;
use crate::stalls::{Cause, Meter};

/// Bytes fetched at a time: 64 words.
const FETCH_BYTES: u64 = 2048;

#[derive(Clone, Debug)]
struct Running {
    issued: Box<Issued>,
    start: u64,
    start_time: Time,
    active: u64,
    activity: Activity,
    /// Cycles the engine waited before it and in it.
    waits: [(Cause, u64); WAITS],
    demand: Demand,
    /// Lost to others in local memories and not yet made up for, in fixed point.
    owed: u64,
    /// Cycles made up for.
    conflict: u64,
}

#[derive(Clone, Debug, Default)]
struct EngineTime {
    /// A kick is under way.
    kicked: bool,
    running: Option<Running>,
    meter: Meter,
    executed: u64,
    /// Cycles the sequencer had waited for command words when this engine was last accounted for.
    fetch_seen: u64,
    power: Power,
    port: Port,
    transfer: TransferTime,
}

#[derive(Clone, Debug, Default)]
struct CoreTime {
    engines: [EngineTime; ENGINES],
    meter: Meter,
    pending: bool,
    blocked: Option<Sequenced>,
    waiting_fetch: bool,
    /// Cycle at which the sequencer last woke from an empty queue.
    woke: u64,
    commands: u64,
    blocks: [Option<u64>; 2],
    fetching: VecDeque<u64>,
    fetched_bytes: u64,
    /// Cycle up to which local memories have been shared out, and what DMA asks of the scratchpad.
    arbitrated: u64,
    dma_demand: u64,
    /// Cycle at which the move under way began, and the DMA channel that makes it.
    moving: Option<(u64, usize)>,
    /// Cycle at which the decoder of compressed streams, which the channels share, is free.
    decoder_free: u64,
    /// Queues whose control command reads memory.
    reading: [bool; QUEUES],
    /// Watchdogs whose event is under way.
    watched: [bool; QUEUES],
}

/// The cluster in time.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Function of the cores.
    pub cores: Cores,
    /// Operations executed.
    pub ops: OpTable,
    clock: Clock,
    timing: ClusterTiming,
    ids: Option<IdSource>,
    time: Vec<CoreTime>,
    total: Activity,
    ring: Ring,
}

impl Cluster {
    /// A cluster out of reset; with `ids` nothing is computed (shape-only).
    #[must_use]
    pub fn new(cfg: NpuConfig, timing: ClusterTiming, ids: Option<IdSource>) -> Self {
        let clock = Clock::new(cfg.frequency);
        let time = vec![CoreTime::default(); cfg.cores as usize];
        let ring = Ring::new(cfg.cores as usize);
        Self {
            cores: Cores::new(cfg),
            ops: OpTable::default(),
            clock,
            timing,
            ids,
            time,
            total: Activity::default(),
            ring,
        }
    }

    /// Everything done so far.
    #[must_use]
    pub const fn total(&self) -> &Activity {
        &self.total
    }

    /// Bytes of commands fetched.
    #[must_use]
    pub fn fetched_bytes(&self) -> u64 {
        self.time.iter().map(|t| t.fetched_bytes).sum()
    }

    /// The clock of all engines.
    #[must_use]
    pub const fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Whether nothing is queued or running.
    #[must_use]
    pub fn quiescent(&self) -> bool {
        self.cores.cores.iter().all(crate::core::Core::quiescent)
    }

    /// Writes a register; false where there is none to write.
    pub fn store(&mut self, now: Time, core: usize, offset: u64, value: u64, out: &mut impl Outside) -> bool {
        if self.cores.cores.len() <= core {
            return false;
        }
        if let Some(done) = self.store_pmu(now, core, offset, value) {
            return done;
        }
        let cycle = self.clock.at_or_after(now).get();
        let c = &mut self.cores.cores[core];
        let before = c.has_work();
        if !c.store(&self.cores.cfg, offset, value) {
            return false;
        }
        out.interrupt(core, c.interrupt());
        let first = c.active();
        self.settle(now, core, out);
        let c = &mut self.cores.cores[core];
        if !before && c.has_work() && c.active() == first && !c.holding() {
            c.queue_mut().quiet_since = cycle;
            let at = self.clock.at_or_after(now) + Cycles::new(self.timing.doorbell_cycles);
            let t = &mut self.time[core];
            t.woke = cycle;
            t.meter.until(cycle, Cause::Idle);
            // A ring's lines may have changed since they were fetched.
            t.blocks = [None; 2];
            self.wake_sequencer(core, self.clock.edge(at), out);
        }
        self.watch(core, out);
        true
    }

    fn wake_sequencer(&mut self, core: usize, at: Time, out: &mut impl Outside) {
        let t = &mut self.time[core];
        if !t.pending {
            t.pending = true;
            out.schedule(at, core, NpuEvent::Sequence);
        }
    }

    /// Handles an event of a core.
    pub fn on_event(&mut self, now: Time, core: usize, event: NpuEvent, out: &mut impl Outside) {
        match event {
            NpuEvent::Sequence => {
                self.time[core].pending = false;
                self.sequence(now, core, out);
            }
            NpuEvent::Kick(e) => {
                self.time[core].engines[e as usize].kicked = false;
                self.try_start(now, core, e as usize, out);
            }
            NpuEvent::Done(e) => self.done(now, core, e as usize, out),
            NpuEvent::Post(queue, id, n) => {
                let q = &mut self.cores.cores[core].queues[queue as usize];
                let posted = q.semaphores.post(u64::from(id), u64::from(n), Cause::Imbalance);
                match posted {
                    Ok(()) => self.wake_all(now, core, out),
                    Err(f) => {
                        let (index, at) = (q.next_index(), q.next_at());
                        self.fault(now, core, (queue as usize, f, index, at), out);
                    }
                }
            }
            NpuEvent::Watchdog(queue) => self.watchdog(now, core, queue as usize, out),
        }
    }

    /// A transfer started through [`Outside::start_flow`] has ended.
    pub fn flow_done(&mut self, now: Time, core: usize, requester: Requester, out: &mut impl Outside) {
        match requester {
            Requester::Channel(e) => {
                self.arrived(now, core, e as usize, out);
            }
            Requester::Posted => {}
            Requester::Context => self.context_done(now, core, out),
            Requester::Control(queue) => {
                self.time[core].reading[queue as usize] = false;
                self.cores.cores[core].queues[queue as usize].arrive();
                if let Some(Sequenced::Read(..)) = self.time[core].blocked {
                    self.wake_sequencer(core, self.clock.edge(self.clock.at_or_after(now)), out);
                }
            }
            Requester::Fetch => {
                let t = &mut self.time[core];
                if let Some(block) = t.fetching.pop_front() {
                    t.blocks = [t.blocks[1], Some(block)];
                }
                if t.waiting_fetch {
                    t.waiting_fetch = false;
                    self.wake_sequencer(core, self.clock.edge(self.clock.at_or_after(now)), out);
                }
            }
        }
    }
}
