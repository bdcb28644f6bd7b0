//! One NPU core without time: registers, sequencer state, engine queues, local memories.
//!
//! ```text
//! ring ─► sequencer ─► FIFO ─► DMA channels 0..3 | MX | VP ─► scratchpad, accumulator, memory
//!            └── SETR, CALL/RET, FENCE, SEM, IRQ ─► semaphores, completion ring
//! ```
//! Models: in-order dispatch and execution, region registers, call stack, faults that stop the queue.
//! Does not model: time (see `cluster`), several queues a core, preemption, predicates, profiles (NotInCap).
//! Source: `isa::npu`.

use std::collections::VecDeque;

use isa::npu::registers as reg;
use isa::npu::registers::FaultCode;
use isa::npu::{Body, Command, Ctrl, CtrlOp, REGIONS, Word};

use crate::config::NpuConfig;
use crate::dma::{Region, Transfer};
use crate::fault::Fault;
use crate::local::Local;
use crate::memory::Memory;
use crate::ops;
use crate::semaphores::Semaphores;
use crate::stalls::Cause;

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

    fn control(
        &mut self,
        command: &Command,
        c: &Ctrl,
        memory: &mut dyn Memory,
        stamp: u64,
        words: u64,
    ) -> Result<Sequenced, Fault> {
        let op = CtrlOp::from_code(c.op).filter(|op| CONTROL.contains(op));
        let op = op.ok_or(Fault::not_in_cap(c.op, "CTRL operation"))?;
        let h = &command.header;
        if !self.semaphores.available(h) {
            return Ok(Sequenced::Semaphore);
        }
        match op {
            CtrlOp::Fence if (0..ENGINES).any(|e| c.emask >> e & 1 == 1 && self.engine_occupied(e)) => {
                return Ok(Sequenced::Fence);
            }
            CtrlOp::Sem if c.mode == 2 && self.semaphores.get(c.id) < c.cnt => {
                return Ok(Sequenced::Semaphore);
            }
            _ => {}
        }
        self.semaphores.acquire(h);
        self.advance(words);
        match op {
            CtrlOp::Sem => match c.mode {
                0 => self.semaphores.set(c.id, c.cnt)?,
                1 => self.semaphores.post(c.id, c.cnt, Cause::Dependency)?,
                2 => {}
                m => return Err(Fault::operand(m, "SEM mode")),
            },
            CtrlOp::Irq => self.complete(h.tag, memory, stamp)?,
            CtrlOp::PmuMark => self.mark = c.cnt,
            CtrlOp::Setr => {
                let slot = self.regions.get_mut(usize::try_from(c.id).unwrap_or(usize::MAX));
                *slot.ok_or(Fault::operand(c.id, "region register"))? = Region { base: c.imm, limit: c.moff };
            }
            CtrlOp::Call => self.call(c)?,
            CtrlOp::Ret => {
                let back = self.calls.pop().ok_or(Fault::new(FaultCode::CallDepth, 0, "RET without CALL"))?;
                self.cursor = back;
            }
            CtrlOp::Trap => return Err(Fault::new(FaultCode::Trap, c.imm, "TRAP was executed")),
            CtrlOp::Stop => self.stopped = true,
            _ => {}
        }
        Ok(Sequenced::Control(op))
    }

    fn call(&mut self, c: &Ctrl) -> Result<(), Fault> {
        if self.calls.len() >= CALL_DEPTH {
            return Err(Fault::new(FaultCode::CallDepth, self.calls.len() as u64, "CALL too deep"));
        }
        let region = self.regions[(c.region & 15) as usize];
        if c.moff + 32 > region.limit || !c.moff.is_multiple_of(32) {
            return Err(Fault::new(FaultCode::RegionLimit, c.moff, "a list leaves its region"));
        }
        self.calls.push(self.cursor);
        self.cursor = Cursor::List { at: region.base + c.moff, end: region.base + region.limit };
        Ok(())
    }

    fn complete(&mut self, tag: u64, memory: &mut dyn Memory, stamp: u64) -> Result<(), Fault> {
        let entry =
            self.completion.0 + (self.completed & ((1 << self.completion.1) - 1)) * reg::COMPLETION_BYTES;
        let mut record = [0; 32];
        for (chunk, value) in record.chunks_exact_mut(8).zip([self.index, tag, stamp, 1]) {
            chunk.copy_from_slice(&value.to_le_bytes());
        }
        memory.write(entry, &record).map_err(|e| Fault::new(FaultCode::Bus, e.0, "a completion record"))?;
        self.completed += 1;
        self.irq_stat |= 1;
        Ok(())
    }

    fn engine_occupied(&self, engine: usize) -> bool {
        self.busy[engine] || !self.fifo[engine].is_empty()
    }

    /// Reads a register; `None` where there is none.
    #[must_use]
    pub fn load(&self, cfg: &NpuConfig, offset: u64) -> Option<u64> {
        let wide = |lo: u32, hi: u32| u64::from(lo) | u64::from(hi) << 32;
        Some(match offset {
            reg::QCTRL => u64::from(self.enabled),
            reg::QBASE => self.ring.0,
            reg::QSIZE => u64::from(self.ring.1),
            reg::QTAIL => self.tail,
            reg::QHEAD => self.head,
            reg::QSTAT if self.fault.is_some() => 2,
            reg::QSTAT if self.stopped => 3,
            reg::QSTAT => u64::from(!self.quiescent()),
            reg::CBASE => self.completion.0,
            reg::CSIZE => u64::from(self.completion.1),
            reg::CTAIL => self.completed,
            reg::IRQ_STAT => self.irq_stat,
            reg::IRQ_EN => self.irq_enable,
            reg::FAULT => self.fault.map_or(0, |f| f.0.code as u64),
            reg::FAULT_INDEX => self.fault.map_or(0, |f| f.1),
            reg::FAULT_ADDR => self.fault.map_or(0, |f| f.0.value),
            o if (reg::REGION0..reg::REGION0 + 16 * REGIONS as u64).contains(&o) && o % 8 == 0 => {
                let r = self.regions[((o - reg::REGION0) / 16) as usize];
                if o % 16 == 0 { r.base } else { r.limit }
            }
            reg::CAP_VERSION => reg::VERSION,
            reg::CAP_CORES => u64::from(cfg.cores),
            reg::CAP_CORE => self.number as u64,
            reg::CAP_ARRAY => wide(cfg.rows, cfg.cols),
            reg::CAP_SPM => cfg.scratchpad.get(),
            reg::CAP_ACC => cfg.accumulator.get(),
            reg::CAP_DMA => wide(cfg.dma_in_channels, cfg.dma_out_channels),
            reg::CAP_FORMATS => cfg.formats,
            reg::CAP_FIFO => u64::from(cfg.fifo_depth),
            reg::CAP_LANES => u64::from(cfg.vector_lanes),
            reg::CAP_CTRL => CONTROL.iter().fold(0, |bits, op| bits | 1 << op.code()),
            reg::CAP_VEC0 => ops::caps()[0],
            reg::CAP_VEC1 => ops::caps()[1],
            reg::CAP_VEC2 => ops::caps()[2],
            _ => return None,
        })
    }

    /// Writes a register; false where there is none to write.
    #[must_use]
    pub fn store(&mut self, cfg: &NpuConfig, offset: u64, value: u64) -> bool {
        let log2 = |v: u64| u32::try_from(v.min(20)).expect("at most 20");
        match offset {
            reg::QCTRL if value & 2 != 0 => *self = Self::new(self.number, cfg),
            reg::QCTRL => self.enabled = value & 1 == 1,
            reg::QBASE => self.ring.0 = value,
            reg::QSIZE => self.ring.1 = log2(value),
            reg::QTAIL => self.tail = value,
            reg::CBASE => self.completion.0 = value,
            reg::CSIZE => self.completion.1 = log2(value),
            reg::IRQ_EN => self.irq_enable = value,
            reg::IRQ_ACK => self.irq_stat &= !value,
            o if (reg::REGION0..reg::REGION0 + 16 * REGIONS as u64).contains(&o) && o % 8 == 0 => {
                let r = &mut self.regions[((o - reg::REGION0) / 16) as usize];
                *(if o % 16 == 0 { &mut r.base } else { &mut r.limit }) = value;
            }
            _ => return false,
        }
        true
    }
}
