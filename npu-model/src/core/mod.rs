//! One NPU core without time: registers, sequencer state, engine queues, local memories.
//!
//! ```text
//! ring ─► sequencer ─► FIFO ─► DMA channels 0..3 | MX | VP ─► scratchpad, accumulator, memory
//!            └── SETR, CALL/RET, FENCE, SEM, IRQ ─► semaphores, completion ring
//! ```
//! Models: in-order dispatch and execution, region registers, call stack, faults that stop the queue.
//! Does not model: time (see `cluster`), several queues a core, preemption, predicates, profiles (NotInCap).
//! Source: `isa::npu`.

mod control;
mod registers;

use std::collections::VecDeque;

use isa::npu::registers::FaultCode;
use isa::npu::{Body, Command, CtrlOp, REGIONS, Word};

use crate::config::NpuConfig;
use crate::dma::{Region, Transfer};
use crate::fault::Fault;
use crate::local::Local;
use crate::memory::Memory;
use crate::ops;
use crate::semaphores::Semaphores;

/// Engines of a core: DMA channels 0..=3, then MX and VP.
pub const ENGINES: usize = 6;
/// Index of the matrix engine.
pub const MX: usize = 4;
/// Index of the vector engine.
pub const VP: usize = 5;
/// Calls that may be open.
const CALL_DEPTH: usize = 4;
/// CTRL operations this NPU executes; CAP_CTRL reads from it.
pub const CONTROL: &[CtrlOp] = &[
    CtrlOp::Nop,
    CtrlOp::Fence,
    CtrlOp::Sem,
    CtrlOp::Irq,
    CtrlOp::PmuMark,
    CtrlOp::Setr,
    CtrlOp::Call,
    CtrlOp::Ret,
    CtrlOp::Trap,
    CtrlOp::Stop,
];

/// A dispatched command.
#[derive(Clone, Copy, Debug)]
pub struct Issued {
    /// The command.
    pub command: Command,
    /// Its number since reset.
    pub index: u64,
    /// Its region register, as read at dispatch.
    pub region: Region,
    /// Value of the last PMU_MARK.
    pub mark: u64,
    /// Completion records written before its dispatch.
    pub pass: u64,
}

/// What the sequencer did, or why it cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sequenced {
    /// Queue empty, stopped or faulted.
    Idle,
    /// The FIFO of this engine is full.
    FifoFull(usize),
    /// An acquire or a SEM wait is not satisfied.
    Semaphore,
    /// FENCE waits for engines.
    Fence,
    /// A command went to this engine's FIFO.
    Dispatched(usize),
    /// A control command was executed.
    Control(CtrlOp),
}

#[derive(Clone, Copy, Debug)]
enum Cursor {
    Ring,
    List { at: u64, end: u64 },
}

/// One core.
#[derive(Clone, Debug)]
pub struct Core {
    /// Number in the cluster.
    pub number: usize,
    /// Scratchpad and accumulator.
    pub local: Local,
    /// This core's semaphore copies.
    pub semaphores: Semaphores,
    /// Commands dispatched and not yet started.
    pub fifo: [VecDeque<Issued>; ENGINES],
    /// Engines executing a command.
    pub busy: [bool; ENGINES],
    /// The fault that stopped the queue, with the command's index.
    pub fault: Option<(Fault, u64)>,
    regions: [Region; REGIONS],
    enabled: bool,
    stopped: bool,
    ring: (u64, u32),
    head: u64,
    tail: u64,
    completion: (u64, u32),
    completed: u64,
    irq_stat: u64,
    irq_enable: u64,
    calls: Vec<Cursor>,
    cursor: Cursor,
    index: u64,
    mark: u64,
}

impl Core {
    /// A core out of reset.
    #[must_use]
    pub fn new(number: usize, cfg: &NpuConfig) -> Self {
        let bytes = |b: sim_kernel::Bytes| usize::try_from(b.get()).expect("local memory fits the host");
        Self {
            number,
            local: Local::new(bytes(cfg.scratchpad), bytes(cfg.accumulator)),
            semaphores: Semaphores::default(),
            fifo: Default::default(),
            busy: [false; ENGINES],
            fault: None,
            regions: [Region::default(); REGIONS],
            enabled: false,
            stopped: false,
            ring: (0, 0),
            head: 0,
            tail: 0,
            completion: (0, 0),
            completed: 0,
            irq_stat: 0,
            irq_enable: 0,
            calls: Vec::new(),
            cursor: Cursor::Ring,
            index: 0,
            mark: 0,
        }
    }

    /// Whether nothing is queued or running.
    #[must_use]
    pub fn quiescent(&self) -> bool {
        !self.has_work() && self.fifo.iter().all(VecDeque::is_empty) && !self.busy.contains(&true)
    }

    /// Whether the sequencer has commands left.
    #[must_use]
    pub fn has_work(&self) -> bool {
        self.enabled
            && !self.stopped
            && self.fault.is_none()
            && (matches!(self.cursor, Cursor::List { .. }) || self.head < self.tail)
    }

    /// The interrupt line's level.
    #[must_use]
    pub const fn interrupt(&self) -> bool {
        self.irq_stat & self.irq_enable != 0
    }

    /// Stops the queue with a fault.
    pub fn raise(&mut self, fault: Fault, index: u64) {
        if self.fault.is_none() {
            self.fault = Some((fault, index));
            self.irq_stat |= 2;
        }
    }

    /// Address of the next command word, if there is one to fetch.
    #[must_use]
    pub fn next_address(&self) -> Option<u64> {
        if !self.has_work() {
            return None;
        }
        Some(match self.cursor {
            Cursor::Ring => self.ring_address(self.head),
            Cursor::List { at, .. } => at,
        })
    }

    /// Number since reset of the next command.
    #[must_use]
    pub const fn next_index(&self) -> u64 {
        self.index
    }

    const fn ring_address(&self, entry: u64) -> u64 {
        self.ring.0 + (entry & ((1 << self.ring.1) - 1)) * 32
    }

    /// Fetches, decodes and dispatches (or executes) one command.
    ///
    /// `stamp` is the time stamp a completion record gets.
    ///
    /// # Errors
    /// The fault; the caller raises it.
    pub fn sequence(
        &mut self,
        cfg: &NpuConfig,
        memory: &mut dyn Memory,
        stamp: u64,
    ) -> Result<Sequenced, Fault> {
        let Some(address) = self.next_address() else { return Ok(Sequenced::Idle) };
        let (command, words) = self.decode(address, memory)?;
        let flags = &command.header;
        if flags.pre | flags.irq | flags.prof | flags.pred | flags.brk != 0 {
            return Err(Fault::not_in_cap(0, "header flags pre, irq, prof, pred, brk"));
        }
        let outcome = match &command.body {
            Body::Ctrl(c) => self.control(&command, c, memory, stamp, words)?,
            body => {
                let (engine, region) = match body {
                    Body::Dma(d) => ((d.ch & 3) as usize, self.regions[(d.region & 15) as usize]),
                    Body::Gemm(_) => (MX, Region::default()),
                    _ => (VP, Region::default()),
                };
                if self.fifo[engine].len() >= cfg.fifo_depth as usize {
                    return Ok(Sequenced::FifoFull(engine));
                }
                match body {
                    Body::Dma(d) => drop(Transfer::new(&command, d, region, cfg)?),
                    _ => ops::check(&command, cfg)?,
                }
                let issued =
                    Issued { command, index: self.index, region, mark: self.mark, pass: self.completed };
                self.fifo[engine].push_back(issued);
                self.advance(words);
                Sequenced::Dispatched(engine)
            }
        };
        Ok(outcome)
    }

    fn decode(&self, address: u64, memory: &mut dyn Memory) -> Result<(Command, u64), Fault> {
        let mut fetch = |at: u64| {
            let mut bytes = [0; 32];
            memory.read(at, &mut bytes).map_err(|e| Fault::new(FaultCode::Bus, e.0, "a command fetch"))?;
            Ok::<Word, Fault>(Word::from_bytes(&bytes))
        };
        let bad = |_| Fault::new(FaultCode::BadCommand, address, "the words are no command");
        let first = fetch(address)?;
        let length = Command::length(&first).map_err(bad)?;
        let mut words = [first, Word::default()];
        if length == 2 {
            let next = match self.cursor {
                Cursor::Ring if self.head + 1 >= self.tail => {
                    return Err(Fault::new(FaultCode::BadCommand, address, "the ring ends inside a command"));
                }
                Cursor::Ring => self.ring_address(self.head + 1),
                Cursor::List { at, end } if at + 64 > end => {
                    return Err(Fault::new(FaultCode::RegionLimit, at, "a list leaves its region"));
                }
                Cursor::List { at, .. } => at + 32,
            };
            words[1] = fetch(next)?;
        }
        Command::decode(if length == 2 { &words } else { &words[..1] }).map(|c| (c, length)).map_err(bad)
    }

    fn advance(&mut self, words: u64) {
        self.index += 1;
        match &mut self.cursor {
            Cursor::Ring => self.head += words,
            Cursor::List { at, .. } => *at += words * 32,
        }
    }
}
