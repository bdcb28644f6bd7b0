//! Queues changing places in time: drains, saves and restores, watchdogs.
//!
//! Models: a save or restore as one transfer of a DMA channel over memory, with its bytes and energy.
//! Does not model: a move split over several channels.
//! Source: `core::switch`.

use isa::npu::registers::QUEUES;
use sim_kernel::{Cycles, Time};

use super::dispatch::reachable;
use super::{Cluster, FlowRequest, NpuEvent, Outside, Requester};
use crate::activity::Activity;
use crate::core::{ENGINES, Phase, Preemptions};
use crate::stalls::Cause;

impl Cluster {
    /// Counts of preemption over all cores.
    #[must_use]
    pub fn preemptions(&self) -> Preemptions {
        let mut all = Preemptions::default();
        for c in &self.cores.cores {
            let p = c.preemptions();
            all.switches += p.switches;
            all.by_level.iter_mut().zip(p.by_level).for_each(|(a, b)| *a += b);
            all.saved_bytes += p.saved_bytes;
            all.restored_bytes += p.restored_bytes;
            all.move_cycles += p.move_cycles;
        }
        all
    }

    /// Whether a command of another core is writing to this core's context of its active queue.
    fn inbound(&self, core: usize) -> bool {
        let queue = self.cores.cores[core].active();
        self.time.iter().enumerate().filter(|(i, _)| *i != core).any(|(_, t)| {
            t.engines.iter().filter_map(|e| e.running.as_ref()).any(|r| {
                r.issued.queue as usize == queue
                    && crate::functional::targets(&r.issued.command) >> core & 1 == 1
            })
        })
    }

    /// Goes on with whatever is between queues; wakes what may go on after it.
    pub(super) fn settle(&mut self, now: Time, core: usize, out: &mut impl Outside) {
        let cycle = self.clock.at_or_after(now).get();
        let before = self.cores.cores[core].active();
        let mut any = false;
        loop {
            let inbound = matches!(self.cores.cores[core].phase(), Phase::Draining(2)) && self.inbound(core);
            let c = &mut self.cores.cores[core];
            let mut changed = c.reconsider();
            if c.drained() && !inbound {
                c.leave();
                changed = true;
            }
            any |= changed;
            if matches!(c.phase(), Phase::Moving(_)) {
                if self.time[core].moving.is_none() && !self.begin_move(now, core, out) {
                    any = true;
                    continue;
                }
                break;
            }
            if !changed {
                break;
            }
        }
        if !any {
            return;
        }
        let c = &mut self.cores.cores[core];
        out.interrupt(core, c.interrupt());
        if c.active() != before {
            c.queue_mut().quiet_since = cycle;
            self.time[core].blocks = [None; 2];
            self.time[core].blocked = None;
        }
        if !self.cores.cores[core].holding() {
            self.resume(now, core, out);
        }
    }

    /// Nothing holds the core any more.
    fn resume(&mut self, now: Time, core: usize, out: &mut impl Outside) {
        let cycle = self.clock.at_or_after(now);
        if self.cores.cores[core].has_work() {
            self.wake_sequencer(core, self.clock.edge(cycle), out);
        }
        for i in 0..self.time.len() {
            (0..ENGINES).for_each(|e| self.try_start(now, i, e, out));
        }
        self.watch(core, out);
    }

    /// Starts to move a context; false if memory does not answer, which its queue then tells.
    fn begin_move(&mut self, now: Time, core: usize, out: &mut impl Outside) -> bool {
        let Phase::Moving(m) = self.cores.cores[core].phase().clone() else { return true };
        let channel = if m.write { self.cores.cfg.dma_in_channels as usize } else { 0 };
        let channel = channel.min(ENGINES - 1);
        let runs: Vec<(u64, u64)> = m.runs.iter().map(|(o, n)| (m.area.saturating_add(*o), *n)).collect();
        if reachable(&runs, out).is_err() {
            // The copy meets the same silence and stops the queue with it.
            let _stopped = self.cores.cores[core].moved(out, 0);
            return false;
        }
        let cycle = self.clock.at_or_after(now).get();
        self.time[core].engines[channel].meter.until(cycle, Cause::Idle);
        self.time[core].moving = Some((cycle, channel));
        let (requester, cap) = (Requester::Context, self.channel_rate());
        out.start_flow(
            now,
            &FlowRequest { core, requester, runs: &runs, write: m.write, qos: 3, slc: 1, tag: 0, cap },
        );
        true
    }

    /// A context has arrived.
    pub(super) fn context_done(&mut self, now: Time, core: usize, out: &mut impl Outside) {
        let Some((start, channel)) = self.time[core].moving.take() else { return };
        let Phase::Moving(m) = self.cores.cores[core].phase().clone() else { return };
        let cycle = self.clock.at_or_after(now).get();
        let cause = if m.write { Cause::Output } else { Cause::Operand };
        self.time[core].engines[channel].meter.until(cycle, cause);
        let mut a =
            Activity { dma_bytes: m.bytes, fabric_bytes: m.bytes, transfers: 1, ..Activity::default() };
        if m.write {
            (a.memory_written, a.spm_read) = (m.bytes, m.bytes);
        } else {
            (a.memory_read, a.spm_write) = (m.bytes, m.bytes);
        }
        self.total.add(&a);
        // A fault of the move stands in its queue.
        let _stopped = self.cores.cores[core].moved(out, cycle - start);
        out.interrupt(core, self.cores.cores[core].interrupt());
        self.settle(now, core, out);
        if !self.cores.cores[core].holding() {
            self.time[core].blocks = [None; 2];
            self.resume(now, core, out);
        }
    }

    /// Makes sure that armed watchdogs look when they are due.
    pub(super) fn watch(&mut self, core: usize, out: &mut impl Outside) {
        for queue in 0..QUEUES {
            let q = &self.cores.cores[core].queues[queue];
            if q.watchdog == 0 || !q.pending() || self.time[core].watched[queue] {
                continue;
            }
            let due =
                self.clock.edge(Cycles::new(q.quiet_since.saturating_add(q.watchdog).saturating_add(1)));
            self.time[core].watched[queue] = true;
            out.schedule(due, core, NpuEvent::Watchdog(u8::try_from(queue).expect("four queues")));
        }
    }

    pub(super) fn watchdog(&mut self, now: Time, core: usize, queue: usize, out: &mut impl Outside) {
        self.time[core].watched[queue] = false;
        let c = &mut self.cores.cores[core];
        let cycle = self.clock.at_or_after(now).get();
        if c.active() != queue {
            // It begins anew when the queue runs again.
            c.queues[queue].quiet_since = cycle;
        } else if let Some(f) = c.watchdog(Some(cycle)) {
            let (index, at) = (c.queue().next_index(), c.queue().next_at());
            return self.fault(now, core, (queue, f, index, at), out);
        }
        self.watch(core, out);
    }
}
