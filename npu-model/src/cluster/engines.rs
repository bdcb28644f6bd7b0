//! A core's engines in time: commands start, run and end; posts travel.

use isa::npu::{Body, CLUSTER_SEMAPHORES};
use sim_kernel::{Cycles, Time};

use super::interface::Executed;
use super::{Cluster, FlowRequest, NpuEvent, Outside, Requester, Running};
use crate::activity::{Activity, OpKey};
use crate::core::{ENGINES, Issued, MX, Sequenced, VP};
use crate::dma::{Direction, Transfer};
use crate::ops;
use crate::stalls::Cause;

impl Cluster {
    pub(super) fn try_start(&mut self, now: Time, core: usize, engine: usize, out: &mut impl Outside) {
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

    pub(super) fn done(&mut self, now: Time, core: usize, engine: usize, out: &mut impl Outside) {
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

    pub(super) fn post(
        &mut self,
        now: Time,
        core: usize,
        posts: [(u64, u64); 2],
        cause: Cause,
        out: &mut impl Outside,
    ) {
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

    pub(super) fn wake_all(&mut self, now: Time, core: usize, out: &mut impl Outside) {
        for e in 0..ENGINES {
            self.try_start(now, core, e, out);
        }
        if self.time[core].blocked == Some(Sequenced::Semaphore) {
            self.wake_sequencer(core, self.clock.edge(self.clock.at_or_after(now)), out);
        }
    }
}
