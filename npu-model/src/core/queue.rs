//! A hardware queue: ring, lists, loops, registers, semaphores and FIFOs of one context.
//!
//! Models: everything a context owns except local memory.
//! Does not model: time; the order in which queues run (see `switch`).
//! Source: `isa::npu`.

use std::collections::VecDeque;

use isa::npu::registers::{FaultCode, PIO_WORDS, SCALARS, irq};
use isa::npu::{Agu, Body, Command, DecodeError, REGIONS, Word};

use super::dirty::Dirty;
use super::{ENGINES, Issued};
use crate::config::NpuConfig;
use crate::dma::Region;
use crate::fault::Fault;
use crate::memory::Memory;
use crate::ops::gemm::Held;
use crate::semaphores::Semaphores;

/// Loops that may be open.
pub(super) const LOOP_DEPTH: usize = 4;

/// Where the next command word is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// At this address.
    Memory(u64),
    /// In the PIO words.
    Pio,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Cursor {
    Ring,
    List { at: u64, end: u64 },
}

/// An open hardware loop.
#[derive(Clone, Copy, Debug)]
pub(super) struct Loop {
    pub id: u64,
    /// Trips, and the number of the one under way.
    pub trips: u64,
    pub trip: u64,
    /// First command of the body.
    pub body: Cursor,
    /// Calls that were open when it began.
    pub calls: usize,
}

/// A queue that stopped: why, at which command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// The fault.
    pub fault: Fault,
    /// Index of the command since reset.
    pub index: u64,
    /// Address of its first word; all ones if it came by PIO.
    pub at: u64,
}

/// One queue.
#[derive(Clone, Debug)]
pub struct Queue {
    /// This core's copies of the queue's semaphores.
    pub semaphores: Semaphores,
    /// Commands dispatched and not yet started.
    pub fifo: [VecDeque<Box<Issued>>; ENGINES],
    /// The fault that stopped it.
    pub fault: Option<Stopped>,
    /// Local memory its commands have written since it was last clean.
    pub dirty: Dirty,
    /// What of it is in the save area instead of local memory.
    pub saved: Option<Dirty>,
    /// What the last save wrote.
    pub(super) kept: Dirty,
    /// The B the array held for it when it gave the core up.
    pub(super) array: Held,
    pub(super) regions: [Region; REGIONS],
    pub(super) scalars: [u64; SCALARS],
    pub(super) predicate: bool,
    pub(super) enabled: bool,
    pub(super) paused: bool,
    pub(super) stopped: bool,
    pub(super) killed: bool,
    pub(super) frozen: bool,
    /// Index of the command with `brk` after whose end the queue freezes.
    pub(super) breaking: Option<u64>,
    /// Taken out by PREEMPT until that is written 0.
    pub(super) held: bool,
    /// Level PREEMPT asked for.
    pub(super) asked: u8,
    /// Level at which a queue of higher priority takes it out.
    pub(super) auto: u8,
    pub(super) priority: u8,
    pub(super) context: u8,
    pub(super) ring: (u64, u32),
    pub(super) head: u64,
    pub(super) tail: u64,
    pub(super) completion: (u64, u32),
    pub(super) completed: u64,
    /// IRQ commands executed: the pass.
    pub(super) passes: u64,
    pub(super) irq_stat: u64,
    pub(super) irq_enable: u64,
    pub(super) calls: Vec<Cursor>,
    pub(super) loops: Vec<Loop>,
    pub(super) cursor: Cursor,
    pub(super) index: u64,
    pub(super) mark: u64,
    pub(super) pio: VecDeque<Word>,
    pub(super) pio_part: [u64; 3],
    /// BARRIER has told the others.
    pub(super) arrived: bool,
    /// Bytes a control command waits for have been read.
    pub(super) read: bool,
    /// SAVE or RESTORE has moved its bytes.
    pub(super) moved: bool,
    /// Cycle at which WAITMEM first looked, and its limit in microseconds.
    pub(super) polling: Option<(u64, u64)>,
    pub(super) save_area: (u64, u64),
    pub(super) save_bytes: u64,
    pub(super) save_cycles: u64,
    pub(super) preemptions: u64,
    /// Cycles it may run without a record.
    pub watchdog: u64,
    /// Cycle of its last record, or from which it runs.
    pub quiet_since: u64,
    /// Commands since then.
    pub quiet_commands: u64,
    pub(super) dvfs: (u64, u64),
    /// Counts resets: posts of commands from before one are dropped.
    pub(super) epoch: u32,
}

impl Queue {
    pub(super) fn new(cfg: &NpuConfig, epoch: u32) -> Self {
        Self {
            semaphores: Semaphores::default(),
            fifo: Default::default(),
            fault: None,
            dirty: Dirty::new(cfg),
            saved: None,
            kept: Dirty::new(cfg),
            regions: [Region::default(); REGIONS],
            scalars: [0; SCALARS],
            predicate: false,
            enabled: false,
            paused: false,
            stopped: false,
            killed: false,
            frozen: false,
            breaking: None,
            held: false,
            array: None,
            asked: 0,
            auto: 0,
            priority: 0,
            context: 0,
            ring: (0, 0),
            head: 0,
            tail: 0,
            completion: (0, 0),
            completed: 0,
            passes: 0,
            irq_stat: 0,
            irq_enable: 0,
            calls: Vec::new(),
            loops: Vec::new(),
            cursor: Cursor::Ring,
            index: 0,
            mark: 0,
            pio: VecDeque::new(),
            pio_part: [0; 3],
            arrived: false,
            read: false,
            moved: false,
            polling: None,
            save_area: (0, 0),
            save_bytes: 0,
            save_cycles: 0,
            preemptions: 0,
            watchdog: 0,
            quiet_since: 0,
            quiet_commands: 0,
            dvfs: (0, 0),
            epoch,
        }
    }

    /// Whether it can still execute anything.
    #[must_use]
    pub const fn alive(&self) -> bool {
        self.fault.is_none() && !self.killed
    }

    /// Whether the sequencer has commands left.
    #[must_use]
    pub fn has_work(&self) -> bool {
        self.enabled
            && !self.paused
            && !self.stopped
            && !self.frozen
            && self.alive()
            && (matches!(self.cursor, Cursor::List { .. }) || self.head < self.tail || !self.pio.is_empty())
    }

    /// Whether sequencer or engines have commands of it left.
    #[must_use]
    pub fn pending(&self) -> bool {
        self.has_work() || (self.alive() && self.fifo.iter().any(|f| !f.is_empty()))
    }

    /// Whether it may be given the core.
    #[must_use]
    pub fn runnable(&self) -> bool {
        !self.held && self.pending()
    }

    /// Commands sequenced since reset: the index of the next.
    #[must_use]
    pub const fn next_index(&self) -> u64 {
        self.index
    }

    /// The bytes a control command waits for have been read.
    pub const fn arrive(&mut self) {
        self.read = true;
    }

    /// A command with `setp` ended.
    pub const fn set_predicate_to(&mut self, value: bool) {
        self.predicate = value;
    }

    /// Completion records written.
    #[must_use]
    pub const fn records(&self) -> u64 {
        self.completed
    }

    /// Whether WAITMEM polls with a limit.
    #[must_use]
    pub const fn polls_with_limit(&self) -> bool {
        matches!(self.polling, Some((_, limit)) if limit > 0)
    }

    /// Where the next command is, if there is one.
    #[must_use]
    pub fn next(&self) -> Option<Next> {
        if !self.has_work() {
            return None;
        }
        Some(match self.cursor {
            Cursor::List { at, .. } => Next::Memory(at),
            Cursor::Ring if !self.pio.is_empty() => Next::Pio,
            Cursor::Ring => Next::Memory(self.ring_address(self.head)),
        })
    }

    const fn ring_address(&self, entry: u64) -> u64 {
        self.ring.0.saturating_add((entry & ((1 << self.ring.1) - 1)) * 32)
    }

    /// Address of the next command, as FAULT_COMMAND reads.
    #[must_use]
    pub fn next_at(&self) -> u64 {
        match self.next() {
            Some(Next::Memory(at)) => at,
            _ => u64::MAX,
        }
    }

    /// The next command's first word.
    #[must_use]
    pub fn peek(&self, memory: &mut dyn Memory) -> Option<Word> {
        match self.next()? {
            Next::Pio => self.pio.front().copied(),
            Next::Memory(at) => {
                let mut bytes = [0; 32];
                memory.read(at, &mut bytes).ok()?;
                Some(Word::from_bytes(&bytes))
            }
        }
    }

    /// The next command and its words; `None` while PIO words are missing.
    pub(super) fn decode(&self, memory: &mut dyn Memory) -> Result<Option<(Command, u64)>, Fault> {
        let place = self.next_at();
        let bad = |e| match e {
            DecodeError::ReservedBits => Fault::new(FaultCode::ReservedBit, place, "a reserved bit is set"),
            _ => Fault::new(FaultCode::BadCommand, place, "the words are no command"),
        };
        let first = self.word(0, memory)?;
        let length = Command::length(&first).map_err(bad)?;
        let pio = self.next() == Some(Next::Pio);
        if pio && self.pio.len() < usize::try_from(length).unwrap_or(usize::MAX) {
            return Ok(None);
        }
        let mut words = [first, Word::default(), Word::default()];
        let count = usize::try_from(length).expect("at most 3");
        for (i, word) in words.iter_mut().enumerate().take(count).skip(1) {
            *word = self.word(i as u64, memory)?;
        }
        Command::decode(&words[..count]).map(|c| Some((c, length))).map_err(bad)
    }

    fn word(&self, i: u64, memory: &mut dyn Memory) -> Result<Word, Fault> {
        let at = match self.cursor {
            Cursor::Ring if !self.pio.is_empty() => {
                let word = usize::try_from(i).ok().and_then(|i| self.pio.get(i));
                return Ok(word.copied().unwrap_or_default());
            }
            Cursor::Ring if self.head + i >= self.tail => {
                let at = self.ring_address(self.head);
                return Err(Fault::new(FaultCode::BadCommand, at, "the ring ends inside a command"));
            }
            Cursor::Ring => self.ring_address(self.head + i),
            Cursor::List { at, end } if at + 32 * (i + 1) > end => {
                return Err(Fault::new(FaultCode::RegionLimit, at, "a list leaves its region"));
            }
            Cursor::List { at, .. } => at + 32 * i,
        };
        let mut bytes = [0; 32];
        memory.read(at, &mut bytes).map_err(|e| Fault::new(FaultCode::Bus, e.0, "a command fetch"))?;
        Ok(Word::from_bytes(&bytes))
    }

    pub(super) fn advance(&mut self, words: u64) {
        self.index += 1;
        self.quiet_commands += 1;
        match &mut self.cursor {
            Cursor::Ring if !self.pio.is_empty() => {
                self.pio.drain(..usize::try_from(words).expect("at most 3").min(self.pio.len()));
            }
            Cursor::Ring => self.head += words,
            Cursor::List { at, .. } => *at += words * 32,
        }
    }

    /// Takes one of the four PIO words of a command word; false if the path is full.
    pub(super) fn pio_store(&mut self, lane: usize, value: u64) -> bool {
        if lane < 3 {
            self.pio_part[lane] = value;
            return true;
        }
        if self.pio.len() >= PIO_WORDS {
            return false;
        }
        let [a, b, c] = self.pio_part;
        self.pio.push_back(Word([a, b, c, value]));
        true
    }

    /// Stops with a fault, unless it stopped already.
    pub fn raise(&mut self, fault: Fault, index: u64, at: u64) {
        if self.fault.is_none() {
            self.fault = Some(Stopped { fault, index, at });
            self.irq_stat |= irq::FAULT;
        }
    }

    /// The command with address generation applied and scalar operands read, as engines see it.
    pub(super) fn resolve(&self, mut command: Command) -> Result<Command, Fault> {
        if let Body::Vec(v) = &mut command.body
            && v.bc == 4
        {
            let scalar = self.scalars.get(usize::try_from(v.imm).unwrap_or(usize::MAX));
            let value = *scalar.ok_or(Fault::operand(v.imm, "scalar register"))?;
            (v.bc, v.imm) = (3, value & 0xFFFF_FFFF);
        }
        let Some(agu) = command.agu.take() else { return Ok(command) };
        let trip = self.trip(&agu)?;
        let unused = |value: u64, text| if value == 0 { Ok(()) } else { Err(Fault::operand(value, text)) };
        unused(agu.areg, "areg belongs to LOOP")?;
        match &mut command.body {
            Body::Dma(d) => {
                unused(agu.ib | agu.ic, "a transfer has one scratchpad operand")?;
                d.saddr = add(d.saddr, 20, trip, agu.ia, 32)?;
                d.moff = add(d.moff, 36, trip, agu.im, 40)?;
            }
            Body::Gemm(g) => {
                unused(agu.im, "a GEMM has no memory operand")?;
                g.a = add(g.a, 20, trip, agu.ia, 32)?;
                g.b = add(g.b, 20, trip, agu.ib, 32)?;
                g.c = add(g.c, 20, trip, agu.ic, 32)?;
            }
            Body::Vec(v) => {
                unused(agu.im, "a VEC has no memory operand")?;
                v.x = add(v.x, 20, trip, agu.ia, 32)?;
                v.y = add(v.y, 20, trip, agu.ib, 32)?;
                v.d = add(v.d, 20, trip, agu.ic, 32)?;
            }
            Body::Ctrl(c) => {
                unused(agu.ia | agu.ib | agu.ic, "a control command has no local operand")?;
                c.moff = add(c.moff, 36, trip, agu.im, 40)?;
            }
        }
        Ok(command)
    }

    fn trip(&self, agu: &Agu) -> Result<u64, Fault> {
        let open = self.loops.iter().rev().find(|l| l.id == agu.lp);
        open.map(|l| l.trip).ok_or(Fault::new(FaultCode::LoopNesting, agu.lp, "no such loop is open"))
    }
}

/// `value + trip * step`, where `step` has `step_bits` and the result must fit `bits`.
fn add(value: u64, bits: u32, trip: u64, step: u64, step_bits: u32) -> Result<u64, Fault> {
    let shift = 128 - step_bits;
    let step = (i128::from(step) << shift) >> shift;
    let sum = i128::from(value) + i128::from(trip) * step;
    match u64::try_from(sum) {
        Ok(sum) if sum >> bits == 0 => Ok(sum),
        _ => Err(Fault::range(value, "address generation leaves the operand's field")),
    }
}
