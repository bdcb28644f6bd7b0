//! A core's sequencer in time: command fetch and dispatch.

use isa::npu::ops::OPCODE_CTRL;
use isa::npu::registers::FaultCode;
use isa::npu::{Body, Command, Ctrl, Header, Word};
use sim_kernel::{Cycles, Time};

use super::{Cluster, CoreTime, FETCH_BYTES, FlowRequest, NpuEvent, Outside, Requester};
use crate::core::{Effects, Next, Sequenced};
use crate::fault::Fault;
use crate::functional::reads_counters;
use crate::stalls::Cause;

/// Cycles between two looks of WAITMEM. Estimate, accuracy class C.
const POLL_CYCLES: u64 = 64;
/// Bytes memory moves at least.
const LINE_BYTES: u64 = 64;

/// A queue that faults: number, why, index and address of the command.
pub(super) type Faulted = (usize, Fault, u64, u64);

/// Whether memory answers from the first to the last byte of `runs`.
pub(super) fn reachable(runs: &[(u64, u64)], out: &mut impl Outside) -> Result<(), Fault> {
    let first = runs.iter().map(|r| r.0).min();
    let last = runs.iter().map(|r| r.0.saturating_add(r.1.max(1) - 1)).max();
    for at in first.into_iter().chain(last) {
        out.read(at, &mut [0]).map_err(|e| Fault::new(FaultCode::Bus, e.0, "memory does not answer"))?;
    }
    Ok(())
}

impl Cluster {
    /// Whether the `bytes` of words at `address` are in the fetch buffer; asks for what is missing, and what follows.
    fn fetched(
        &mut self,
        now: Time,
        core: usize,
        (address, bytes): (u64, u64),
        out: &mut impl Outside,
    ) -> Result<bool, Fault> {
        let block = address / FETCH_BYTES * FETCH_BYTES;
        // A command may end in the next block.
        let last = (address + bytes - 1) / FETCH_BYTES * FETCH_BYTES;
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
            let runs = [(wanted, FETCH_BYTES)];
            match reachable(&runs, out) {
                Err(f) if wanted == block => return Err(f),
                // Only a command that goes on there needs it; its words say so when they are read.
                Err(_) => {
                    if wanted == last {
                        return Ok(have(t, block));
                    }
                    continue;
                }
                Ok(()) => {}
            }
            t.fetching.push_back(wanted);
            t.fetched_bytes += FETCH_BYTES;
            let requester = Requester::Fetch;
            out.start_flow(
                now,
                &FlowRequest { core, requester, runs: &runs, write: false, qos: 3, slc: 1, tag: 0, cap },
            );
        }
        t.waiting_fetch = !ready;
        Ok(ready)
    }

    /// Bytes a second a channel can move: its width, and what it may have in flight over the memory's latency.
    pub(super) fn channel_rate(&self) -> u64 {
        let cfg = &self.cores.cfg;
        let width = u64::from(cfg.dma_bytes_per_cycle) * cfg.frequency.get();
        let latency = u128::from(self.timing.memory_latency.get().max(1));
        let in_flight =
            u128::from(cfg.dma_outstanding.get()) * u128::from(sim_kernel::units::FS_PER_S) / latency;
        width.min(u64::try_from(in_flight).unwrap_or(u64::MAX))
    }

    pub(super) fn sequence(&mut self, now: Time, core: usize, out: &mut impl Outside) {
        let seen = |s: &Self| {
            let m = &s.time[core].meter;
            (m.spent()[Cause::Active as usize], s.cores.cores[core].sequenced(), m.position())
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
            Some(Sequenced::FifoFull(_) | Sequenced::Fence | Sequenced::Held) => Cause::Dependency,
            Some(Sequenced::Read(..) | Sequenced::Poll) => Cause::Operand,
            Some(Sequenced::Move) => Cause::Output,
            _ => Cause::Command,
        };
        self.time[core].meter.until(start, cause);
        loop {
            let c = &self.cores.cores[core];
            let (queue, index, at) = (c.active(), c.queue().next_index(), c.queue().next_at());
            let Some(next) = c.queue().next() else {
                if !c.queue().runnable() {
                    self.settle(now, core, out);
                }
                return;
            };
            if c.holding() {
                self.time[core].blocked = Some(Sequenced::Held);
                return self.settle(now, core, out);
            }
            let word = self.cores.cores[core].queue().peek(out);
            let control = word.is_some_and(|w| w.get(0, 8) == OPCODE_CTRL);
            if let Next::Memory(address) = next {
                let bytes = if word.is_some_and(|w| w.get(8, 2) == 2) { 96 } else { 64 };
                match self.fetched(now, core, (address, bytes), out) {
                    Ok(true) => {}
                    Ok(false) => return,
                    Err(f) => return self.fault(now, core, (queue, f, index, at), out),
                }
            }
            // Control commands act on shared state, so they act at their own time.
            if cycle > start && control {
                return self.wake_sequencer(core, self.clock.edge(Cycles::new(cycle)), out);
            }
            if word.is_some_and(|w| reads_counters(&w)) {
                self.refresh(now, core);
            }
            let c = &mut self.cores.cores[core];
            let result = match c.watchdog(Some(cycle)) {
                Some(f) => Err(f),
                None => c.sequence(&self.cores.cfg, out, cycle),
            };
            let effects = c.effects;
            match result {
                Ok(Sequenced::Dispatched(engine)) => {
                    let decode = u64::from(self.cores.cfg.decode_cycles);
                    let ready = self.clock.edge(Cycles::new(cycle + decode));
                    let e = &mut self.time[core].engines[engine];
                    if e.running.is_none() && !e.kicked {
                        e.kicked = true;
                        out.schedule(ready, core, NpuEvent::Kick(u8::try_from(engine).expect("six engines")));
                    }
                }
                Ok(Sequenced::Control(_)) => {
                    out.interrupt(core, self.cores.cores[core].interrupt());
                    self.controlled(now, core, (queue, index, at), word, effects, out);
                }
                Ok(blocked) => {
                    self.time[core].blocked = Some(blocked);
                    return self.blocked(now, core, (queue, index, at), blocked, out);
                }
                Err(f) => return self.fault(now, core, (queue, f, index, at), out),
            }
            cycle += 1;
            self.time[core].meter.until(cycle, Cause::Active);
        }
    }

    /// A control command was executed: its counts, posts, writes and power states.
    fn controlled(
        &mut self,
        now: Time,
        core: usize,
        (queue, index, at): (usize, u64, u64),
        word: Option<Word>,
        effects: Effects,
        out: &mut impl Outside,
    ) {
        let Some(h) = word.and_then(|w| Header::decode(&w)) else { return };
        self.total.add_command(&Command {
            header: h,
            body: Body::Ctrl(Ctrl::default()),
            extension: None,
            agu: None,
        });
        self.tell(now, queue, effects, out);
        if let Some(run) = effects.written {
            self.write_posted(now, core, run, out);
        }
        if let Some((mask, mode)) = effects.power {
            self.set_power(now, core, mask, mode);
        }
        self.post(now, core, (queue, index, at), &h, Cause::Dependency, out);
        if !matches!(self.cores.cores[core].phase(), crate::core::Phase::Run) {
            self.settle(now, core, out);
        }
    }

    /// The sequencer waits: starts what it waits for.
    fn blocked(
        &mut self,
        now: Time,
        core: usize,
        (queue, index, at): (usize, u64, u64),
        why: Sequenced,
        out: &mut impl Outside,
    ) {
        let effects = self.cores.cores[core].effects;
        match why {
            Sequenced::Semaphore => self.tell(now, queue, effects, out),
            Sequenced::Read(from, bytes) => {
                if core::mem::replace(&mut self.time[core].reading[queue], true) {
                    return;
                }
                let runs = [line(from, bytes)];
                if let Err(f) = reachable(&runs, out) {
                    return self.fault(now, core, (queue, f, index, at), out);
                }
                self.total.memory_read += runs[0].1;
                let requester = Requester::Control(u8::try_from(queue).expect("four queues"));
                let cap = self.channel_rate();
                out.start_flow(
                    now,
                    &FlowRequest { core, requester, runs: &runs, write: false, qos: 3, slc: 1, tag: 0, cap },
                );
            }
            Sequenced::Poll => {
                let again = self.clock.after(now, Cycles::new(POLL_CYCLES));
                self.wake_sequencer(core, again, out);
            }
            Sequenced::Move | Sequenced::Held => self.settle(now, core, out),
            _ => {}
        }
    }

    /// Posts of BARRIER and SEM to other cores.
    fn tell(&self, now: Time, queue: usize, effects: Effects, out: &mut impl Outside) {
        let Some((mask, id, n)) = effects.remote else { return };
        let at = self.clock.after(now, Cycles::new(self.timing.hop_cycles.max(1)));
        let byte = |v: u64| u8::try_from(v).expect("ids have 6 bits, amounts were checked");
        let queue = u8::try_from(queue).expect("four queues");
        for i in (0..self.time.len()).filter(|i| mask >> i & 1 == 1) {
            out.schedule(at, i, NpuEvent::Post(queue, byte(id), byte(n)));
        }
    }

    /// Bytes the sequencer wrote: whole lines, which nobody waits for.
    pub(super) fn write_posted(&mut self, now: Time, core: usize, run: (u64, u64), out: &mut impl Outside) {
        let runs = [line(run.0, run.1)];
        if reachable(&runs, out).is_err() {
            return;
        }
        self.total.memory_written += runs[0].1;
        let (requester, cap) = (Requester::Posted, self.channel_rate());
        out.start_flow(
            now,
            &FlowRequest { core, requester, runs: &runs, write: true, qos: 2, slc: 1, tag: 0, cap },
        );
    }

    pub(super) fn fault(
        &mut self,
        now: Time,
        core: usize,
        (queue, fault, index, at): Faulted,
        out: &mut impl Outside,
    ) {
        self.cores.cores[core].queues[queue].raise(fault, index, at);
        out.interrupt(core, self.cores.cores[core].interrupt());
        self.settle(now, core, out);
    }
}

/// The lines a run touches.
const fn line(at: u64, bytes: u64) -> (u64, u64) {
    let first = at / LINE_BYTES * LINE_BYTES;
    (first, (at + bytes - first).next_multiple_of(LINE_BYTES))
}
