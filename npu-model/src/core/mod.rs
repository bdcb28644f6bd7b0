//! One NPU core without time: four queues, their sequencer, local memories.
//!
//! ```text
//! rings, PIO ─► sequencer ─► FIFOs ─► DMA channels 0..3 | MX | VP ─► scratchpad, accumulator, memory
//!                  └── control commands ─► semaphores, registers, loops, completion ring
//! ```
//! Models: in-order dispatch and execution, queues of which one is active, preemption, control commands, faults that
//! stop their queue, predicates, profiles, PMU events that need no clock.
//! Does not model: time (see `cluster`).
//! Source: `isa::npu`.

mod control;
pub mod dirty;
mod memory_ops;
mod queue;
mod registers;
mod switch;

use isa::npu::registers as reg;
use isa::npu::registers::{FaultCode, QUEUES};
use isa::npu::{Body, Command, CtrlOp};

use self::queue::Cursor;
pub use self::queue::{Next, Queue, Stopped};
pub use self::switch::{Move, Phase, Preemptions};
use crate::config::NpuConfig;
use crate::dma::{Region, Transfer};
use crate::fault::Fault;
use crate::local::Local;
use crate::memory::Memory;
use crate::ops::{self, Cost};
use crate::pmu::Pmu;

/// Engines of a core: DMA channels 0..=3, then MX and VP.
pub const ENGINES: usize = 6;
/// Index of the matrix engine.
pub const MX: usize = 4;
/// Index of the vector engine.
pub const VP: usize = 5;
/// Calls that may be open.
const CALL_DEPTH: usize = 4;
/// CTRL operations this NPU executes; CAP_CTRL reads from it.
pub const CONTROL: &[CtrlOp] = CtrlOp::ALL;

/// A dispatched command.
#[derive(Clone, Copy, Debug)]
pub struct Issued {
    /// The command, addresses generated.
    pub command: Command,
    /// Its number since reset.
    pub index: u64,
    /// Where its first word was; all ones by PIO.
    pub at: u64,
    /// Its region register, as read at dispatch.
    pub region: Region,
    /// Value of the last PMU_MARK.
    pub mark: u64,
    /// IRQ commands executed before its dispatch.
    pub pass: u64,
    /// Its queue.
    pub queue: u8,
    /// Resets the queue had seen.
    pub epoch: u32,
    /// The predicate was 0: only waits and posts happen.
    pub skip: bool,
    /// Time stamp of its dispatch.
    pub stamp: u64,
    /// What it moves; `None` if it is no transfer.
    pub transfer: Option<Transfer>,
    /// What it costs an engine; nothing if it is a transfer.
    pub cost: Cost,
}

/// What the sequencer did, or why it cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sequenced {
    /// Queue empty, stopped or faulted.
    Idle,
    /// The FIFO of this engine is full.
    FifoFull(usize),
    /// An acquire, a SEM wait or a BARRIER is not satisfied.
    Semaphore,
    /// FENCE waits for engines.
    Fence,
    /// The core is between two queues, or a debug stop waits for its command.
    Held,
    /// The command needs these bytes of memory read first: address, bytes.
    Read(u64, u64),
    /// WAITMEM looks again later.
    Poll,
    /// SAVE or RESTORE: what [`Core::phase`] says is to be moved.
    Move,
    /// A command went to this engine's FIFO.
    Dispatched(usize),
    /// A control command was executed.
    Control(CtrlOp),
}

/// What a sequenced command does beyond its core.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// Posts to other cores: mask, semaphore, amount.
    pub remote: Option<(u64, u64, u64)>,
    /// Bytes written to memory that nobody waits for: address, bytes.
    pub written: Option<(u64, u64)>,
    /// Engines whose power state changes: mask, mode.
    pub power: Option<(u64, u64)>,
    /// It has taken its semaphores.
    pub(crate) acquired: bool,
}

/// One core.
#[derive(Clone, Debug)]
pub struct Core {
    /// Number in the cluster.
    pub number: usize,
    /// Scratchpad, accumulator, tables.
    pub local: Local,
    /// The queues.
    pub queues: Vec<Queue>,
    /// Engines executing a command.
    pub busy: [bool; ENGINES],
    /// What the last sequenced command does beyond the core.
    pub effects: Effects,
    /// Counters.
    pub pmu: Pmu,
    /// Which queue is active, and what happens on the way to the next.
    active: usize,
    phase: Phase,
    /// A save or restore moved these bytes and cycles so far: (saved, restored, cycles).
    moved: [u64; 3],
    /// Times the core went from one queue to another, preemptions by level (1..=3).
    switches: u64,
    preempted: [u64; 3],
}

impl Core {
    /// A core out of reset.
    #[must_use]
    pub fn new(number: usize, cfg: &NpuConfig) -> Self {
        let bytes = |b: sim_kernel::Bytes| usize::try_from(b.get()).expect("local memory fits the host");
        Self {
            number,
            local: Local::new(bytes(cfg.scratchpad), bytes(cfg.accumulator)),
            queues: (0..QUEUES).map(|_| Queue::new(cfg, 0)).collect(),
            busy: [false; ENGINES],
            effects: Effects::default(),
            pmu: Pmu::default(),
            active: 0,
            phase: Phase::Run,
            moved: [0; 3],
            switches: 0,
            preempted: [0; 3],
        }
    }

    /// Number of the active queue.
    #[must_use]
    pub const fn active(&self) -> usize {
        self.active
    }

    /// The active queue.
    #[must_use]
    pub fn queue(&self) -> &Queue {
        &self.queues[self.active]
    }

    /// The active queue.
    pub fn queue_mut(&mut self) -> &mut Queue {
        &mut self.queues[self.active]
    }

    /// Whether nothing is queued or running.
    #[must_use]
    pub fn quiescent(&self) -> bool {
        !self.queues.iter().any(Queue::pending)
            && !self.busy.contains(&true)
            && !matches!(self.phase, Phase::Draining(_) | Phase::Moving(_))
    }

    /// Whether the sequencer has commands left.
    #[must_use]
    pub fn has_work(&self) -> bool {
        self.queue().has_work()
    }

    /// The interrupt line's level.
    #[must_use]
    pub fn interrupt(&self) -> bool {
        self.queues.iter().any(|q| q.irq_stat & q.irq_enable != 0)
    }

    /// The first queue that faulted: its number and why.
    #[must_use]
    pub fn fault(&self) -> Option<(usize, Stopped)> {
        self.queues.iter().enumerate().find_map(|(i, q)| Some((i, q.fault?)))
    }

    /// Commands sequenced since reset, over all queues.
    #[must_use]
    pub fn sequenced(&self) -> u64 {
        self.queues.iter().map(|q| q.index).sum()
    }

    /// The front of an engine's FIFO, if the active queue may start it now.
    #[must_use]
    pub fn front(&self, engine: usize) -> Option<&Issued> {
        let q = self.queue();
        if self.holding() || !q.alive() || q.held {
            return None;
        }
        q.fifo[engine].front().map(AsRef::as_ref)
    }

    /// Fetches, decodes and dispatches (or executes) one command of the active queue.
    ///
    /// `stamp` is the time stamp records get.
    ///
    /// # Errors
    /// The fault; the caller raises it. The queue stands where it stood.
    pub fn sequence(
        &mut self,
        cfg: &NpuConfig,
        memory: &mut dyn Memory,
        stamp: u64,
    ) -> Result<Sequenced, Fault> {
        self.effects = Effects::default();
        if self.holding() {
            return Ok(Sequenced::Held);
        }
        let q = self.queue();
        if q.held || q.next().is_none() {
            return Ok(Sequenced::Idle);
        }
        if q.breaking.is_some() {
            return Ok(Sequenced::Held);
        }
        let Some((command, words)) = q.decode(memory)? else { return Ok(Sequenced::Idle) };
        if matches!(command.body, Body::Ctrl(_)) {
            let before = (q.head, q.cursor, q.index, q.pio.clone());
            let outcome = self.control(cfg, &command, memory, stamp, words);
            if outcome.is_err() {
                let taken = self.effects.acquired;
                let q = self.queue_mut();
                (q.head, q.cursor, q.index, q.pio) = before;
                if taken {
                    q.semaphores.give_back(&command.header);
                }
            }
            return outcome;
        }
        let skip = command.header.pred == 1 && !q.predicate;
        let command = q.resolve(command)?;
        let (engine, region) = match &command.body {
            Body::Dma(d) => ((d.ch & 3) as usize, q.regions[(d.region & 15) as usize]),
            Body::Gemm(_) => (MX, Region::default()),
            _ => (VP, Region::default()),
        };
        if q.fifo[engine].len() >= cfg.fifo_depth as usize {
            return Ok(Sequenced::FifoFull(engine));
        }
        let (transfer, cost) = match &command.body {
            Body::Dma(d) => (Some(Transfer::new(&command, d, region, cfg)?), Cost::default()),
            _ => (None, ops::cost(&command, cfg)?),
        };
        let issued = Box::new(Issued {
            command,
            index: q.index,
            at: q.next_at(),
            region,
            mark: q.mark,
            pass: q.passes,
            queue: u8::try_from(self.active).expect("four queues"),
            epoch: q.epoch,
            skip,
            stamp,
            transfer,
            cost,
        });
        let (h, index) = (issued.command.header, issued.index);
        let q = self.queue_mut();
        q.fifo[engine].push_back(issued);
        q.advance(words);
        if h.brk == 1 {
            q.breaking = Some(index);
        }
        if h.pre == 1 {
            self.switch_point(false);
        }
        Ok(Sequenced::Dispatched(engine))
    }

    /// What a command does when it ends, beside its posts: interrupt, profile record, debug stop.
    ///
    /// `span` is when it started and ended; `stalls` its waits in the order of the record.
    ///
    /// # Errors
    /// If the completion ring does not answer.
    pub fn retire(
        &mut self,
        issued: &Issued,
        memory: &mut dyn Memory,
        span: (u64, u64),
        stalls: [u64; 5],
    ) -> Result<(), Fault> {
        let h = issued.command.header;
        let q = &mut self.queues[issued.queue as usize];
        if q.epoch != issued.epoch {
            return Ok(());
        }
        if h.prof == 1 {
            q.profile(issued, memory, span, stalls)?;
        }
        if h.irq == 1 {
            q.complete(issued.index, h.tag, memory, span.1)?;
        }
        if q.breaking == Some(issued.index) {
            q.breaking = None;
            q.frozen = true;
            q.irq_stat |= reg::irq::DEBUG;
        }
        Ok(())
    }

    /// Whether a command still belongs to its queue: it was not reset since.
    #[must_use]
    pub fn current(&self, issued: &Issued) -> bool {
        self.queues[issued.queue as usize].epoch == issued.epoch
    }

    fn engine_occupied(&self, engine: usize) -> bool {
        self.busy[engine] || !self.queue().fifo[engine].is_empty()
    }

    /// The watchdog's fault if a queue ran longer than allowed: by cycles, or by commands where there is no time.
    #[must_use]
    pub fn watchdog(&self, cycle: Option<u64>) -> Option<Fault> {
        let q = self.queue();
        let quiet = cycle.map_or(q.quiet_commands, |c| c.saturating_sub(q.quiet_since));
        let late = q.watchdog > 0 && q.pending() && !q.held && quiet > q.watchdog;
        late.then(|| Fault::new(FaultCode::Watchdog, quiet, "the queue ran too long without a record"))
    }
}
