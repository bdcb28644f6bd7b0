//! Which queue has the core: priorities, preemption, saving and restoring.
//!
//! ```text
//! Run ─► Wanted(1) ─ `pre` ─► Draining(1) ─ idle engines ─► next queue
//!   └──► Draining(2) ─ idle engines ─► Moving(save) ─► next queue ─► Moving(restore) if it had been saved
//!   └──► Draining(3) ─ idle engines ─► killed ─► next queue
//! ```
//! Models: one active queue; the highest priority runs first, equal ones in turn; commands under way always end.
//! FIFOs stay in their queue, so that a drain never waits for a semaphore.
//! Does not model: two queues on one core at the same time.
//! Source: `isa::npu::registers` (PREEMPT, PREEMPT_AUTO).

use isa::npu::Ctrl;
use isa::npu::registers::{FaultCode, irq};

use super::dirty::Dirty;
use super::{Core, Queue, Sequenced};
use crate::fault::Fault;
use crate::memory::Memory;

/// Bytes on their way between local memory and a save area.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// The queue whose they are.
    pub queue: usize,
    /// To memory.
    pub write: bool,
    /// A SAVE or RESTORE command asked, not a preemption.
    pub command: bool,
    /// First address of the area.
    pub area: u64,
    /// (offset, bytes) of contiguous runs.
    pub runs: Vec<(u64, u64)>,
    /// Bytes of all.
    pub bytes: u64,
}

/// What the core is doing between queues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The active queue runs.
    Run,
    /// The active queue runs up to its next switch point.
    Wanted,
    /// Nothing starts any more; at which level the queue leaves.
    Draining(u8),
    /// A context is saved or restored.
    Moving(Move),
}

/// Counts of preemption, for reports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Preemptions {
    /// Times cores went from one queue to another.
    pub switches: u64,
    /// Queues taken out with work left, by level 1..=3.
    pub by_level: [u64; 3],
    /// Bytes written to save areas.
    pub saved_bytes: u64,
    /// Bytes read back.
    pub restored_bytes: u64,
    /// Cycles both took.
    pub move_cycles: u64,
}

impl Preemptions {
    /// What these counts have beyond `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            switches: self.switches - earlier.switches,
            by_level: core::array::from_fn(|i| self.by_level[i] - earlier.by_level[i]),
            saved_bytes: self.saved_bytes - earlier.saved_bytes,
            restored_bytes: self.restored_bytes - earlier.restored_bytes,
            move_cycles: self.move_cycles - earlier.move_cycles,
        }
    }
}

impl Core {
    /// What the core is doing between queues.
    #[must_use]
    pub const fn phase(&self) -> &Phase {
        &self.phase
    }

    /// Whether neither sequencer nor engines may start anything.
    #[must_use]
    pub fn holding(&self) -> bool {
        matches!(self.phase, Phase::Draining(_) | Phase::Moving(_)) || self.queue().saved.is_some()
    }

    /// Whether a queue's local memory is, or is about to be, in its save area: nobody may write to it.
    #[must_use]
    pub fn absent(&self, queue: usize) -> bool {
        self.queues[queue].saved.is_some()
            || (queue == self.active && matches!(self.phase, Phase::Draining(2) | Phase::Moving(_)))
    }

    /// Counts of preemption so far.
    #[must_use]
    pub const fn preemptions(&self) -> Preemptions {
        let [saved_bytes, restored_bytes, move_cycles] = self.moved;
        Preemptions {
            switches: self.switches,
            by_level: self.preempted,
            saved_bytes,
            restored_bytes,
            move_cycles,
        }
    }

    /// The queue to run after the active one: highest priority, then the next in turn.
    fn choose(&self) -> Option<usize> {
        let n = self.queues.len();
        let turn = (1..n).map(|i| (self.active + i) % n).filter(|i| self.queues[*i].runnable());
        turn.reduce(|best, i| if self.queues[i].priority > self.queues[best].priority { i } else { best })
    }

    /// A command with `pre` was sequenced, or YIELD, which gives way even though nobody asked.
    pub(super) fn switch_point(&mut self, yields: bool) {
        if self.phase == Phase::Wanted || (self.phase == Phase::Run && yields && self.choose().is_some()) {
            self.phase = Phase::Draining(1);
        }
    }

    /// Decides whether the active queue has to go; to be called whenever queues or engines changed.
    ///
    /// Returns whether something changed.
    pub fn reconsider(&mut self) -> bool {
        let before = self.phase.clone();
        let q = self.queue();
        if self.phase == Phase::Run {
            if q.asked > 0 && !q.held {
                self.phase = if q.asked == 1 { Phase::Wanted } else { Phase::Draining(q.asked) };
            } else if !q.runnable() && !self.busy.contains(&true) {
                if self.choose().is_some() {
                    self.phase = Phase::Draining(1);
                }
            } else if q.saved.is_some() && q.runnable() {
                self.phase = Phase::Moving(self.restore());
            } else if q.auto > 0 && self.choose().is_some_and(|i| self.queues[i].priority > q.priority) {
                self.phase = if q.auto == 1 { Phase::Wanted } else { Phase::Draining(q.auto) };
            }
        }
        if self.phase == Phase::Wanted && !self.queue().has_work() {
            // No switch point is left: it leaves when its engines are idle.
            if !self.queue().runnable() {
                self.phase = Phase::Draining(1);
            }
        }
        self.phase != before
    }

    /// Whether the active queue's commands under way have ended, so that [`Self::leave`] can go on.
    #[must_use]
    pub fn drained(&self) -> bool {
        matches!(self.phase, Phase::Draining(_)) && !self.busy.contains(&true)
    }

    /// Takes the drained queue out; afterwards another runs, or a context is to be moved, or nothing is left.
    pub fn leave(&mut self) {
        let Phase::Draining(level) = self.phase else { return };
        let pending = self.queue().pending();
        let q = &mut self.queues[self.active];
        if pending && !q.held {
            self.preempted[usize::from(level.clamp(1, 3)) - 1] += 1;
            q.preemptions += 1;
        }
        if level == 3 {
            q.kill();
        } else if level == 2 && pending && q.saved.is_none() {
            let (base, limit) = q.save_area;
            if base.is_multiple_of(64) && limit >= q.dirty.area_bytes() {
                self.phase = Phase::Moving(Self::movement(self.active, true, false, base, &q.dirty));
                return;
            }
            let fault = Fault::new(FaultCode::RegionLimit, base, "the save area is too small or not aligned");
            q.raise(fault, q.index, q.next_at());
        }
        self.switch();
    }

    fn movement(queue: usize, write: bool, command: bool, area: u64, map: &Dirty) -> Move {
        let runs = map.runs();
        let bytes = runs.iter().map(|r| r.1).sum();
        Move { queue, write, command, area, runs, bytes }
    }

    fn restore(&self) -> Move {
        let q = self.queue();
        let map = q.saved.clone().unwrap_or_default();
        Self::movement(self.active, false, false, q.save_area.0, &map)
    }

    /// Gives the core to the next queue.
    fn switch(&mut self) {
        self.phase = Phase::Run;
        let pending = self.queue().pending();
        let q = &mut self.queues[self.active];
        if !q.held && (pending || q.asked > 0) {
            q.irq_stat |= irq::PREEMPT;
        }
        q.held |= q.asked > 0;
        if !pending && q.saved.is_none() {
            // An idle queue gives its local memory up.
            q.dirty.clear();
        }
        if let Some(next) = self.choose().filter(|next| *next != self.active) {
            let theirs = self.queues[next].array.take();
            self.queues[self.active].array = self.local.matrix.exchange(theirs);
            self.active = next;
            self.switches += 1;
        }
        let q = self.queue();
        if q.saved.is_some() && q.runnable() {
            self.phase = Phase::Moving(self.restore());
        }
    }

    /// A context has been moved, in `cycles`: copies the bytes and goes on.
    ///
    /// # Errors
    /// The fault its queue stops with if memory does not answer; the core goes on all the same.
    pub fn moved(&mut self, memory: &mut dyn Memory, cycles: u64) -> Result<(), (usize, Fault)> {
        let Phase::Moving(m) = core::mem::replace(&mut self.phase, Phase::Run) else { return Ok(()) };
        let copied = self.copy_context(&m, memory);
        self.moved[usize::from(!m.write)] += m.bytes;
        self.moved[2] += cycles;
        let q = &mut self.queues[m.queue];
        q.save_bytes += m.bytes;
        q.save_cycles += cycles;
        match (m.command, m.write) {
            (true, true) => (q.kept, q.moved) = (q.dirty.clone(), true),
            (true, false) => q.moved = true,
            (false, write) => q.saved = write.then(|| q.dirty.clone()),
        }
        let outcome = copied.map_err(|f| (m.queue, f));
        if let Err((_, f)) = &outcome {
            q.saved = None;
            q.raise(*f, q.index, q.next_at());
        }
        if m.write && !m.command {
            self.switch();
        }
        outcome
    }

    /// SAVE and RESTORE.
    pub(super) fn move_context(
        &mut self,
        c: &Ctrl,
        write: bool,
        occupied: bool,
    ) -> Result<Option<Sequenced>, Fault> {
        let active = self.active;
        let q = &mut self.queues[active];
        let area = q.operand(c, q.dirty.area_bytes(), 64)?;
        if core::mem::take(&mut q.moved) {
            return Ok(None);
        }
        if !write && q.kept.is_clean() {
            return Err(Fault::operand(c.moff, "RESTORE before anything was saved"));
        }
        if occupied {
            return Ok(Some(Sequenced::Fence));
        }
        let map = if write { &q.dirty } else { &q.kept };
        self.phase = Phase::Moving(Self::movement(active, write, true, area, map));
        Ok(Some(Sequenced::Move))
    }

    /// PREEMPT was written.
    pub(super) fn preempt(&mut self, queue: usize, level: u64) {
        let active = queue == self.active;
        let q = &mut self.queues[queue];
        q.asked = u8::try_from(level & 3).expect("2 bits");
        match q.asked {
            0 => {
                q.held = false;
                if active && self.phase == Phase::Wanted {
                    self.phase = Phase::Run;
                }
            }
            3 if !active => {
                if q.pending() {
                    self.preempted[2] += 1;
                }
                q.kill();
                q.held = true;
            }
            _ if !active => q.held = true,
            // A level already under way is not made gentler.
            level if self.phase == Phase::Wanted && level > 1 => self.phase = Phase::Draining(level),
            _ => {}
        }
    }
}

impl Queue {
    /// Level 3: what was not started never will be.
    fn kill(&mut self) {
        self.fifo.iter_mut().for_each(std::collections::VecDeque::clear);
        self.killed = true;
        self.saved = None;
        self.breaking = None;
        self.dirty.clear();
        self.irq_stat |= irq::PREEMPT;
    }
}
