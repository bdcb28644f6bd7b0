//! The NPU in time: every core's sequencer and engines, driven by events.
//!
//! ```text
//! doorbell ─► Sequence ─► Kick(engine) ─► [semaphores] ─► busy ─► Done(engine) ─► posts ─► waiting engines
//!                │ command fetch, 2 KiB a time       └─ DMA: a flow of the memory, FlowDone
//! ```
//! Models: fetch, dispatch at one command a cycle, FIFOs, engines with closed-form durations, DMA channels whose
//! transfers share memory with everyone else, posts to other cores after a hop, one cause for every cycle.
//! Does not model: bank conflicts between engines in the scratchpad, contention on the multicast ring.
//! Source: `isa::npu`, `ops::cost`; constants in `ClusterTiming`.

use std::collections::VecDeque;

use isa::npu::{Body, CLUSTER_SEMAPHORES, Word};
use sim_kernel::{Clock, Cycles, EventCode, Time};

use crate::activity::{Activity, OpKey, OpTable};
use crate::config::NpuConfig;
use crate::core::{ENGINES, Issued, MX, Sequenced, VP};
use crate::dma::{Direction, Transfer};
use crate::fault::Fault;
use crate::functional::Cores;
use crate::ids::IdSource;
use crate::memory::Memory;
use crate::ops;
use crate::stalls::{Cause, Meter};

/// What happens to a core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NpuEvent {
    /// The sequencer goes on.
    Sequence,
    /// An engine looks at its FIFO.
    Kick(u8),
    /// An engine's command ends.
    Done(u8),
    /// Another core's post arrives: semaphore, amount.
    Post(u8, u8),
}

impl EventCode for NpuEvent {
    fn code(&self) -> u64 {
        match *self {
            Self::Sequence => 1,
            Self::Kick(e) => 0x100 | u64::from(e),
            Self::Done(e) => 0x200 | u64::from(e),
            Self::Post(id, n) => 0x1_0000 | u64::from(id) << 8 | u64::from(n),
        }
    }
}

/// Who a memory transfer belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requester {
    /// A DMA channel.
    Channel(u8),
    /// The sequencer's command fetch.
    Fetch,
}

/// A memory transfer an NPU core asks for.
#[derive(Clone, Copy, Debug)]
pub struct FlowRequest<'a> {
    /// Core.
    pub core: usize,
    /// Unit within the core.
    pub requester: Requester,
    /// Contiguous (address, bytes) runs.
    pub runs: &'a [(u64, u64)],
    /// Write to memory.
    pub write: bool,
    /// DMA QoS code.
    pub qos: u64,
    /// System-cache hint code.
    pub slc: u64,
    /// Operation of the model it belongs to, as the command's tag codes it.
    pub tag: u64,
    /// Most bytes a second the channel can move.
    pub cap: u64,
}

/// What the cluster needs from the chip around it.
pub trait Outside: Memory {
    /// Schedules an event of a core.
    fn schedule(&mut self, at: Time, core: usize, event: NpuEvent);
    /// Starts a transfer now; its end comes back through [`Cluster::flow_done`].
    fn start_flow(&mut self, at: Time, flow: &FlowRequest);
    /// Sets a core's interrupt line.
    fn interrupt(&mut self, core: usize, level: bool);
    /// A command executed on a core's engine.
    fn executed(&mut self, _core: usize, _engine: usize, _what: &Executed<'_>) {}
    /// A core's sequencer was active from `start` to `end`, for `cycles` cycles and this many commands.
    fn sequenced(&mut self, _core: usize, _start: Time, _end: Time, _cycles: u64, _commands: u64) {}
}

/// A command that ended, and where its engine's cycles went since the one before.
#[derive(Clone, Copy, Debug)]
pub struct Executed<'a> {
    /// The command.
    pub issued: &'a Issued,
    /// First instant of the active part.
    pub start: Time,
    /// First instant after it.
    pub end: Time,
    /// Cycles of the active part.
    pub active: u64,
    /// Other cycles of the command's own time, and their cause: before the active part on MX and VP, else after it.
    pub rest: (Cause, u64),
    /// Cycles the engine waited before it, by cause.
    pub waits: [(Cause, u64); 3],
    /// What it did.
    pub activity: &'a Activity,
}

/// Constants of the control path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClusterTiming {
    /// Cycles from a doorbell write to the sequencer's first fetch.
    pub doorbell_cycles: u64,
    /// Cycles a DMA channel needs to set a transfer up.
    pub dma_setup_cycles: u64,
    /// Cycles a copy or a post needs to reach another core.
    pub hop_cycles: u64,
    /// Latency of memory as a DMA channel sees it; with its outstanding bytes it bounds the channel's rate.
    pub memory_latency: Time,
}

/// Name of the sequencer among the engines.
pub const SEQUENCER: &str = "sq";
/// Names of the other engines, by number.
pub const ENGINE_NAMES: [&str; ENGINES] = ["dma0", "dma1", "dma2", "dma3", "mx", "vp"];

/// Bytes fetched at a time: 64 words.
const FETCH_BYTES: u64 = 2048;

#[derive(Clone, Copy, Debug)]
struct Running {
    issued: Issued,
    start: u64,
    start_time: Time,
    active: u64,
    activity: Activity,
    /// Cycles the engine waited before it.
    waits: [(Cause, u64); 3],
}

#[derive(Clone, Debug, Default)]
struct EngineTime {
    ready: VecDeque<Time>,
    /// A kick is under way.
    kicked: bool,
    running: Option<Running>,
    meter: Meter,
    executed: u64,
    /// Cycles the sequencer had waited for command words when this engine was last accounted for.
    fetch_seen: u64,
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
    runs: Vec<(u64, u64)>,
}

impl Cluster {
    /// A cluster out of reset; with `ids` nothing is computed (shape-only).
    #[must_use]
    pub fn new(cfg: NpuConfig, timing: ClusterTiming, ids: Option<IdSource>) -> Self {
        let clock = Clock::new(cfg.frequency);
        let time = vec![CoreTime::default(); cfg.cores as usize];
        Self {
            cores: Cores::new(cfg),
            ops: OpTable::default(),
            clock,
            timing,
            ids,
            time,
            total: Activity::default(),
            runs: Vec::new(),
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

    /// Reads a register; `None` where there is none.
    #[must_use]
    pub fn load(&self, core: usize, offset: u64) -> Option<u64> {
        self.cores.cores.get(core)?.load(&self.cores.cfg, offset)
    }

    /// Writes a register; false where there is none to write.
    pub fn store(&mut self, now: Time, core: usize, offset: u64, value: u64, out: &mut impl Outside) -> bool {
        let cfg = self.cores.cfg.clone();
        let Some(c) = self.cores.cores.get_mut(core) else { return false };
        let before = c.has_work();
        if !c.store(&cfg, offset, value) {
            return false;
        }
        out.interrupt(core, c.interrupt());
        if !before && c.has_work() {
            let at = self.clock.at_or_after(now) + Cycles::new(self.timing.doorbell_cycles);
            let t = &mut self.time[core];
            t.woke = self.clock.at_or_after(now).get();
            t.meter.until(t.woke, Cause::Idle);
            // A ring's lines may have changed since they were fetched.
            t.blocks = [None; 2];
            self.wake_sequencer(core, self.clock.edge(at), out);
        }
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
            NpuEvent::Post(id, n) => {
                let posted =
                    self.cores.cores[core].semaphores.post(u64::from(id), u64::from(n), Cause::Imbalance);
                match posted {
                    Ok(()) => self.wake_all(now, core, out),
                    Err(f) => self.fault(core, f, 0, out),
                }
            }
        }
    }

    /// A transfer started through [`Outside::start_flow`] has ended.
    pub fn flow_done(&mut self, now: Time, core: usize, requester: Requester, out: &mut impl Outside) {
        match requester {
            Requester::Channel(e) => {
                // Setting the transfer up is charged here, so that flows always start in the present.
                let cycles = Cycles::new(self.timing.dma_setup_cycles);
                out.schedule(self.clock.after(now, cycles), core, NpuEvent::Done(e));
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

    /// Whether the words at `address` are in the fetch buffer; asks for what is missing, and for what comes next.
    fn fetched(&mut self, now: Time, core: usize, address: u64, out: &mut impl Outside) -> bool {
        let block = address / FETCH_BYTES * FETCH_BYTES;
        // A command may end in the next block.
        let last = (address + 63) / FETCH_BYTES * FETCH_BYTES;
        let cap = self.channel_rate();
        let t = &mut self.time[core];
        let have = |t: &CoreTime, b: u64| t.blocks.contains(&Some(b));
        let ready = have(t, block) && have(t, last);
        let near = address - block > FETCH_BYTES / 2;
        for wanted in [block, last, block + FETCH_BYTES] {
            let speculative = wanted != block && wanted != last;
            if have(t, wanted) || t.fetching.contains(&wanted) || (speculative && !(ready && near)) {
                continue;
            }
            t.fetching.push_back(wanted);
            t.fetched_bytes += FETCH_BYTES;
            out.start_flow(
                now,
                &FlowRequest {
                    core,
                    requester: Requester::Fetch,
                    runs: &[(wanted, FETCH_BYTES)],
                    write: false,
                    qos: 3,
                    slc: 1,
                    tag: 0,
                    cap,
                },
            );
        }
        t.waiting_fetch = !ready;
        ready
    }

    /// Bytes a second a channel can move: its width, and what it may have in flight over the memory's latency.
    fn channel_rate(&self) -> u64 {
        let cfg = &self.cores.cfg;
        let width = u64::from(cfg.dma_bytes_per_cycle) * cfg.frequency.get();
        let latency = u128::from(self.timing.memory_latency.get().max(1));
        let in_flight =
            u128::from(cfg.dma_outstanding.get()) * u128::from(sim_kernel::units::FS_PER_S) / latency;
        width.min(u64::try_from(in_flight).unwrap_or(u64::MAX))
    }

    fn sequence(&mut self, now: Time, core: usize, out: &mut impl Outside) {
        let seen = |s: &Self| {
            let m = &s.time[core].meter;
            (m.spent()[Cause::Active as usize], s.cores.cores[core].next_index(), m.position())
        };
        let before = seen(self);
        self.dispatch(now, core, out);
        let after = seen(self);
        let (cycles, commands) = (after.0 - before.0, after.1 - before.1);
        self.time[core].commands += commands;
        if cycles > 0 || commands > 0 {
            // Its active cycles of one event follow each other, up to where the meter stands.
            let edge = |n: u64| self.clock.edge(Cycles::new(n));
            out.sequenced(core, edge(after.2 - cycles), edge(after.2), cycles, commands);
        }
    }

    fn dispatch(&mut self, now: Time, core: usize, out: &mut impl Outside) {
        let start = self.clock.at_or_after(now).get();
        let mut cycle = start;
        let cause = match self.time[core].blocked.take() {
            Some(Sequenced::Semaphore) => Cause::Imbalance,
            Some(Sequenced::FifoFull(_) | Sequenced::Fence) => Cause::Dependency,
            _ => Cause::Command,
        };
        self.time[core].meter.until(start, cause);
        while let Some(address) = self.cores.cores[core].next_address() {
            if !self.fetched(now, core, address, out) {
                return;
            }
            // Control commands act on shared state, so they act at their own time.
            if cycle > start && self.is_control(address, out) {
                return self.wake_sequencer(core, self.clock.edge(Cycles::new(cycle)), out);
            }
            let header = self.header_at(address, out);
            let index = address;
            let stamp = cycle;
            let result = {
                let cfg = self.cores.cfg.clone();
                self.cores.cores[core].sequence(&cfg, out, stamp)
            };
            match result {
                Ok(Sequenced::Dispatched(engine)) => {
                    let decode = u64::from(self.cores.cfg.decode_cycles);
                    let ready = self.clock.edge(Cycles::new(cycle + decode));
                    let e = &mut self.time[core].engines[engine];
                    e.ready.push_back(ready);
                    if e.running.is_none() && !e.kicked {
                        e.kicked = true;
                        out.schedule(ready, core, NpuEvent::Kick(u8::try_from(engine).expect("six engines")));
                    }
                }
                Ok(Sequenced::Control(_)) => {
                    out.interrupt(core, self.cores.cores[core].interrupt());
                    if let Some(h) = header {
                        self.total.add_command(&isa::npu::Command {
                            header: h,
                            body: Body::Ctrl(isa::npu::Ctrl::default()),
                            extension: None,
                        });
                        let posts = [(h.s0_id, h.s0_n), (h.s1_id, h.s1_n)];
                        self.post(now, core, posts, Cause::Dependency, out);
                    }
                }
                Ok(blocked) => {
                    self.time[core].blocked = Some(blocked);
                    return;
                }
                Err(f) => return self.fault(core, f, index, out),
            }
            cycle += 1;
            self.time[core].meter.until(cycle, Cause::Active);
        }
    }

    fn header_at(&self, address: u64, out: &mut impl Outside) -> Option<isa::npu::Header> {
        let mut bytes = [0; 32];
        out.read(address, &mut bytes).ok()?;
        isa::npu::Header::decode(&Word::from_bytes(&bytes))
    }

    fn is_control(&self, address: u64, out: &mut impl Outside) -> bool {
        self.header_at(address, out).is_some_and(|h| h.opcode == isa::npu::ops::OPCODE_CTRL)
    }

    fn fault(&mut self, core: usize, fault: Fault, index: u64, out: &mut impl Outside) {
        self.cores.cores[core].raise(fault, index);
        out.interrupt(core, self.cores.cores[core].interrupt());
    }

    fn try_start(&mut self, now: Time, core: usize, engine: usize, out: &mut impl Outside) {
        let c = &mut self.cores.cores[core];
        let t = &mut self.time[core];
        let e = &mut t.engines[engine];
        if e.running.is_some() || c.fault.is_some() {
            return;
        }
        let (Some(issued), Some(ready)) = (c.fifo[engine].front(), e.ready.front().copied()) else { return };
        if ready > now {
            if !e.kicked {
                e.kicked = true;
                out.schedule(ready, core, NpuEvent::Kick(u8::try_from(engine).expect("six engines")));
            }
            return;
        }
        let h = issued.command.header;
        if !c.semaphores.acquire(&h) {
            return;
        }
        let reason = c.semaphores.reason(&h);
        let issued = c.fifo[engine].pop_front().expect("a front was there");
        c.busy[engine] = true;
        e.ready.pop_front();
        let cycle = self.clock.at_or_after(now).get();
        // Until the command was dispatched: what of that time the sequencer waited for words, and the rest.
        let dispatched = self.clock.at_or_after(ready).get().min(cycle);
        let gap = dispatched.saturating_sub(e.meter.position());
        let starved = (t.meter.spent()[Cause::Command as usize] - e.fetch_seen).min(gap);
        e.fetch_seen = t.meter.spent()[Cause::Command as usize];
        let mut waited = |to: u64, cause: Cause| {
            let from = e.meter.position();
            e.meter.until(to, cause);
            (cause, e.meter.position() - from)
        };
        let waits = [
            waited(dispatched - starved, Cause::Idle),
            waited(dispatched, Cause::Command),
            waited(cycle, reason),
        ];
        if t.blocked == Some(Sequenced::FifoFull(engine)) {
            self.wake_sequencer(core, self.clock.edge(Cycles::new(cycle)), out);
        }
        self.begin(now, cycle, (core, engine), (issued, waits), out);
    }

    /// Sets a command going: how long it takes, or which flow it waits for.
    fn begin(
        &mut self,
        now: Time,
        cycle: u64,
        (core, engine): (usize, usize),
        (issued, waits): (Issued, [(Cause, u64); 3]),
        out: &mut impl Outside,
    ) {
        let width = u64::from(self.cores.cfg.dma_bytes_per_cycle);
        let at = |n: u64| self.clock.edge(Cycles::new(cycle + n));
        let done = NpuEvent::Done(u8::try_from(engine).expect("six engines"));
        let (active, mut activity) = if let Body::Dma(d) = &issued.command.body {
            let t = Transfer::new(&issued.command, d, issued.region, &self.cores.cfg);
            let t = match t {
                Ok(t) => t,
                Err(f) => return self.fault(core, f, issued.index, out),
            };
            let beats = t.bytes().div_ceil(width);
            if t.uses_memory() {
                self.runs.clear();
                let runs = &mut self.runs;
                t.runs(|a, n| runs.push((a, n)));
                let flow = FlowRequest {
                    core,
                    requester: Requester::Channel(u8::try_from(engine).expect("six engines")),
                    runs: &self.runs,
                    write: t.direction == Direction::Store,
                    qos: d.qos,
                    slc: d.slc,
                    tag: issued.command.header.tag,
                    cap: self.channel_rate(),
                };
                out.start_flow(now, &flow);
            } else {
                out.schedule(at(self.timing.dma_setup_cycles + self.timing.hop_cycles + beats), core, done);
            }
            (beats, Activity { active_cycles: beats, ..Activity::of_transfer(&t) })
        } else {
            let cost = match ops::cost(&issued.command, &self.cores.cfg) {
                Ok(c) => c,
                Err(f) => return self.fault(core, f, issued.index, out),
            };
            out.schedule(at(cost.cycles.max(1)), core, done);
            (cost.active_cycles, Activity::of_cost(&cost))
        };
        activity.add_command(&issued.command);
        let running = Running { issued, start: cycle, start_time: now, active, activity, waits };
        self.time[core].engines[engine].running = Some(running);
    }

    fn done(&mut self, now: Time, core: usize, engine: usize, out: &mut impl Outside) {
        let cycle = self.clock.at_or_after(now).get();
        let e = &mut self.time[core].engines[engine];
        let Some(r) = e.running.take() else { return };
        self.cores.cores[core].busy[engine] = false;
        let rest = cycle - r.start - r.active.min(cycle - r.start);
        e.executed += 1;
        let memory = engine < MX && r.activity.memory_read + r.activity.memory_written > 0;
        let why = if memory { Cause::Dram } else { Cause::FillDrain };
        let (from, to) = if engine < MX {
            e.meter.until(cycle - rest, Cause::Active);
            e.meter.until(cycle, why);
            (r.start, cycle - rest)
        } else {
            e.meter.until(r.start + rest, why);
            e.meter.until(cycle, Cause::Active);
            (r.start + rest, cycle)
        };
        self.record(core, engine, &r, now, cycle, rest);
        let edge = |n: u64| self.clock.edge(Cycles::new(n));
        out.executed(
            core,
            engine,
            &Executed {
                issued: &r.issued,
                start: edge(from),
                end: edge(to),
                active: to - from,
                rest: (why, rest),
                waits: r.waits,
                activity: &r.activity,
            },
        );
        let ids = self.ids.take();
        let performed = {
            let id = |p: u64| ids.as_ref().map_or(0, |s| s.id(p));
            let source: Option<ops::Ids> = if ids.is_some() { Some(&id) } else { None };
            self.cores.perform(core, &r.issued, out, source)
        };
        self.ids = ids;
        if let Err(f) = performed {
            return self.fault(core, f, r.issued.index, out);
        }
        let h = r.issued.command.header;
        let cause = match engine {
            MX | VP => Cause::Dependency,
            _ if r.activity.memory_read > 0 => Cause::Operand,
            _ => Cause::Output,
        };
        self.post(now, core, [(h.s0_id, h.s0_n), (h.s1_id, h.s1_n)], cause, out);
        self.try_start(now, core, engine, out);
        if self.time[core].blocked == Some(Sequenced::Fence) {
            self.wake_sequencer(core, self.clock.edge(Cycles::new(cycle)), out);
        }
    }

    fn record(&mut self, _core: usize, engine: usize, r: &Running, now: Time, cycle: u64, rest: u64) {
        self.total.add(&r.activity);
        let key = OpKey { pass: r.issued.pass, mark: r.issued.mark, tag: r.issued.command.header.tag };
        let row = self.ops.row(key, r.start_time.get());
        row.start = row.start.min(r.start_time.get());
        row.end = row.end.max(now.get());
        row.activity.add(&r.activity);
        row.busy[if engine < MX { 0 } else { engine - MX + 1 }] += cycle - r.start;
        if engine < MX {
            row.dram_cycles += rest;
        }
    }

    fn post(&mut self, now: Time, core: usize, posts: [(u64, u64); 2], cause: Cause, out: &mut impl Outside) {
        let mut any = false;
        for (id, n) in posts.into_iter().filter(|p| p.1 > 0) {
            any = true;
            if let Err(f) = self.cores.cores[core].semaphores.post(id, n, cause) {
                return self.fault(core, f, 0, out);
            }
            if id >= CLUSTER_SEMAPHORES {
                let at = self.clock.after(now, Cycles::new(self.timing.hop_cycles.max(1)));
                let (id, n) = (u8::try_from(id).expect("6 bits"), u8::try_from(n).expect("4 bits"));
                (0..self.time.len()).filter(|c| *c != core).for_each(|c| {
                    out.schedule(at, c, NpuEvent::Post(id, n));
                });
            }
        }
        if any {
            self.wake_all(now, core, out);
        }
    }

    fn wake_all(&mut self, now: Time, core: usize, out: &mut impl Outside) {
        for e in 0..ENGINES {
            self.try_start(now, core, e, out);
        }
        if self.time[core].blocked == Some(Sequenced::Semaphore) {
            self.wake_sequencer(core, self.clock.edge(self.clock.at_or_after(now)), out);
        }
    }

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
