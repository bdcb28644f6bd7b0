//! A core's engines in time: commands start, run and end; posts travel.

use isa::npu::{Body, CLUSTER_SEMAPHORES, Header};
use sim_kernel::{Cycles, Time};

use super::contention::Demand;
use super::transfers::TRANSFER_WAITS;
use super::{Cluster, Executed, NpuEvent, Outside, Running, WAITS};
use crate::activity::{Activity, OpKey};
use crate::core::{ENGINES, Issued, MX, Phase, Sequenced, VP};
use crate::ops;
use crate::stalls::Cause;

impl Cluster {
    pub(super) fn try_start(&mut self, now: Time, core: usize, engine: usize, out: &mut impl Outside) {
        let c = &self.cores.cores[core];
        let e = &mut self.time[core].engines[engine];
        if e.running.is_some() {
            return;
        }
        let Some(issued) = c.front(engine) else { return };
        let mut ready = self.clock.edge(Cycles::new(issued.stamp + u64::from(self.cores.cfg.decode_cycles)));
        let h = issued.command.header;
        if ready <= now {
            if !c.queue().semaphores.available(&h) || self.cores.target_absent(core, issued) {
                return;
            }
            let cycle = self.clock.at_or_after(now).get();
            let works = self.wake(core, engine, cycle);
            ready = ready.max(self.clock.edge(Cycles::new(works)));
        }
        let e = &mut self.time[core].engines[engine];
        if ready > now {
            if !e.kicked {
                e.kicked = true;
                out.schedule(ready, core, NpuEvent::Kick(u8::try_from(engine).expect("six engines")));
            }
            return;
        }
        self.start(now, core, engine, out);
    }

    /// Starts the command at the front of an engine's FIFO, which is ready.
    fn start(&mut self, now: Time, core: usize, engine: usize, out: &mut impl Outside) {
        let q = self.cores.cores[core].queue_mut();
        let Some(h) = q.fifo[engine].front().map(|i| i.command.header) else { return };
        if !q.semaphores.acquire(&h) {
            return;
        }
        let reason = q.semaphores.reason(&h);
        let issued = q.fifo[engine].pop_front().expect("a front was there");
        self.cores.cores[core].busy[engine] = true;
        let t = &mut self.time[core];
        let e = &mut t.engines[engine];
        let cycle = self.clock.at_or_after(now).get();
        let ready = self.clock.edge(Cycles::new(issued.stamp + u64::from(self.cores.cfg.decode_cycles)));
        // Until the command was dispatched: what of that time the sequencer waited for words, and the rest.
        let dispatched = self.clock.at_or_after(ready).get().min(cycle);
        let gap = dispatched.saturating_sub(e.meter.position());
        let starved = (t.meter.spent()[Cause::Command as usize] - e.fetch_seen).min(gap);
        e.fetch_seen = t.meter.spent()[Cause::Command as usize];
        let woke = e.power.waking.take().map_or(cycle, |w| w.1);
        let mut waited = |to: u64, cause: Cause| {
            let from = e.meter.position();
            e.meter.until(to, cause);
            (cause, e.meter.position() - from)
        };
        let waits = [
            waited(dispatched - starved, Cause::Idle),
            waited(dispatched, Cause::Command),
            waited(woke.min(cycle), reason),
            waited(cycle, if woke < cycle { Cause::PowerWake } else { reason }),
            (Cause::BankConflict, 0),
            (Cause::FillDrain, 0),
            (Cause::DmaBandwidth, 0),
            (Cause::Fabric, 0),
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
        (issued, waits): (Box<Issued>, [(Cause, u64); WAITS]),
        out: &mut impl Outside,
    ) {
        let begun = if issued.skip {
            self.finish_at(cycle + 1, core, engine, out);
            Ok((0, Activity::default(), Demand::default()))
        } else if let (Body::Dma(d), Some(t)) = (&issued.command.body, &issued.transfer) {
            self.begin_transfer((now, cycle), (core, engine), (t, d, issued.command.header.tag), out)
        } else {
            let cost = &issued.cost;
            self.arbitrate(core, cycle);
            self.finish_at(cycle + cost.cycles.max(1), core, engine, out);
            Ok((cost.active_cycles, Activity::of_cost(cost), Demand::of(cost)))
        };
        match begun {
            Ok((active, mut activity, demand)) => {
                activity.add_command(&issued.command);
                let running = Running {
                    issued,
                    start: cycle,
                    start_time: now,
                    active,
                    activity,
                    waits,
                    demand,
                    owed: 0,
                    conflict: 0,
                };
                self.time[core].engines[engine].running = Some(running);
            }
            Err(f) => {
                self.cores.cores[core].busy[engine] = false;
                self.fault(now, core, (issued.queue as usize, f, issued.index, issued.at), out);
            }
        }
    }

    pub(super) fn finish_at(&self, cycle: u64, core: usize, engine: usize, out: &mut impl Outside) {
        let done = NpuEvent::Done(u8::try_from(engine).expect("six engines"));
        out.schedule(self.clock.edge(Cycles::new(cycle)), core, done);
    }

    pub(super) fn done(&mut self, now: Time, core: usize, engine: usize, out: &mut impl Outside) {
        let cycle = self.clock.at_or_after(now).get();
        if engine >= MX {
            self.arbitrate(core, cycle);
            let owed = self.take_owed(core, engine);
            if owed > 0 {
                return self.finish_at(cycle + owed, core, engine, out);
            }
        }
        let e = &mut self.time[core].engines[engine];
        let Some(mut r) = e.running.take() else { return };
        r.waits[TRANSFER_WAITS - 1].1 = r.conflict;
        self.cores.cores[core].busy[engine] = false;
        if engine < MX && !r.issued.skip {
            self.transfer_demand(self.time[core].engines[engine].transfer.served, cycle, false);
        }
        let e = &mut self.time[core].engines[engine];
        let own = cycle - r.start - r.conflict;
        let rest = own - r.active.min(own);
        e.executed += 1;
        let memory = engine < MX && r.activity.memory_read + r.activity.memory_written > 0;
        let why = if memory { Cause::Dram } else { Cause::FillDrain };
        let (mut waits, mut left) = (r.waits, rest);
        let (from, to) = if engine < MX {
            e.meter.until(cycle - rest, Cause::Active);
            for (slot, (cause, cycles)) in waits[TRANSFER_WAITS..].iter_mut().zip(e.transfer.waits) {
                *slot = (cause, cycles.min(left));
                left -= slot.1;
                e.meter.until(cycle - left, cause);
            }
            e.meter.until(cycle, why);
            (r.start, cycle - rest)
        } else {
            e.meter.until(r.start + rest, why);
            e.meter.until(r.start + rest + r.conflict, Cause::BankConflict);
            e.meter.until(cycle, Cause::Active);
            (r.start + rest + r.conflict, cycle)
        };
        self.record(engine, &r, now, cycle, rest);
        let edge = |n: u64| self.clock.edge(Cycles::new(n));
        out.executed(
            core,
            engine,
            &Executed {
                issued: &r.issued,
                start: edge(from),
                end: edge(to),
                active: to - from,
                rest: (why, left),
                waits,
                activity: &r.activity,
            },
        );
        self.finish(now, (core, engine), &r, (cycle, rest), out);
        self.try_start(now, core, engine, out);
        if self.time[core].blocked == Some(Sequenced::Fence) {
            self.wake_sequencer(core, self.clock.edge(Cycles::new(cycle)), out);
        }
        self.settle_around(now, core, &r.issued, out);
    }

    /// A command's function, record, interrupt and posts.
    fn finish(
        &mut self,
        now: Time,
        (core, engine): (usize, usize),
        r: &Running,
        (cycle, rest): (u64, u64),
        out: &mut impl Outside,
    ) {
        let (issued, h) = (&r.issued, r.issued.command.header);
        let ids = self.ids.take();
        let performed = {
            let id = |p: u64| ids.as_ref().map_or(0, |s| s.id(p));
            let source: Option<ops::Ids> = if ids.is_some() { Some(&id) } else { None };
            self.cores.apply(core, issued, out, source)
        };
        self.ids = ids;
        let place = (issued.queue as usize, issued.index, issued.at);
        if let Err(f) = performed {
            return self.fault(now, core, (place.0, f, place.1, place.2), out);
        }
        if !self.cores.cores[core].current(issued) {
            return;
        }
        if h.irq | h.prof | h.brk == 1 {
            let waited = |cause| r.waits.iter().filter(|w| w.0 == cause).map(|w| w.1).sum::<u64>();
            let stalls = [
                waited(Cause::Operand),
                waited(Cause::Dependency),
                waited(Cause::Output),
                waited(Cause::Imbalance),
                rest,
            ];
            let c = &mut self.cores.cores[core];
            if let Err(f) = c.retire(issued, out, (r.start, cycle), stalls) {
                return self.fault(now, core, (place.0, f, place.1, place.2), out);
            }
            out.interrupt(core, c.interrupt());
            if self.time[core].blocked == Some(Sequenced::Held) {
                self.wake_sequencer(core, self.clock.edge(Cycles::new(cycle)), out);
            }
        }
        let cause = match engine {
            MX | VP => Cause::Dependency,
            _ if r.activity.memory_read > 0 => Cause::Operand,
            _ => Cause::Output,
        };
        self.post(now, core, place, &h, cause, out);
    }

    /// A command ended: queues that waited for that may change places, here and where it wrote to.
    fn settle_around(&mut self, now: Time, core: usize, issued: &Issued, out: &mut impl Outside) {
        let targets = crate::functional::targets(&issued.command);
        for i in 0..self.time.len() {
            let c = &self.cores.cores[i];
            let unsettled = *c.phase() != Phase::Run || !c.queue().runnable();
            if unsettled && (i == core || targets >> i & 1 == 1) {
                self.settle(now, i, out);
            }
        }
    }

    fn record(&mut self, engine: usize, r: &Running, now: Time, cycle: u64, rest: u64) {
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

    /// Makes the posts of a command (queue, index, address) with this header.
    pub(super) fn post(
        &mut self,
        now: Time,
        core: usize,
        (queue, index, at): (usize, u64, u64),
        h: &Header,
        cause: Cause,
        out: &mut impl Outside,
    ) {
        let mut any = false;
        for (id, n) in [(h.s0_id, h.s0_n), (h.s1_id, h.s1_n)].into_iter().filter(|p| p.1 > 0) {
            any = true;
            if let Err(f) = self.cores.cores[core].queues[queue].semaphores.post(id, n, cause) {
                return self.fault(now, core, (queue, f, index, at), out);
            }
            if id >= CLUSTER_SEMAPHORES {
                let at = self.clock.after(now, Cycles::new(self.timing.hop_cycles.max(1)));
                let byte = |v: u64| u8::try_from(v).expect("6 bits and 4");
                let (queue, id, n) = (byte(queue as u64), byte(id), byte(n));
                (0..self.time.len()).filter(|c| *c != core).for_each(|c| {
                    out.schedule(at, c, NpuEvent::Post(queue, id, n));
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
