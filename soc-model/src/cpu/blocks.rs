//! Decoded instructions, kept in runs from an entry point to the next change of flow.

#![allow(
    clippy::cast_possible_truncation,
    reason = "table indices are bounded by MAX_CODE, fetched values by their width"
)]

use super::memory::{GuestMemory, MemoryFault};
use super::stats::ClassCounts;
use isa::rv64::{Class, Inst, Op, decode};

/// The register that swallows writes to x0.
pub(super) const SINK: u8 = 32;
/// Longest run.
const MAX_RUN: usize = 48;
/// Entry points remembered; direct-mapped.
const ENTRIES: usize = 1 << 14;
/// Decoded instructions kept before everything is dropped.
const MAX_CODE: usize = 1 << 20;
/// Scoreboard index of the first floating-point register.
pub(super) const FP_BASE: u8 = 64;

/// Needs exact counters: `instret`, the local cycle.
pub(super) const SYNC: u8 = 1;
/// Must be done in global order.
pub(super) const GLOBAL: u8 = 2;
/// Starts a new line of the instruction cache.
pub(super) const NEW_LINE: u8 = 4;
/// Has a memory address: rs1 plus the immediate.
pub(super) const MEMORY: u8 = 8;
/// Branch or jump.
pub(super) const FLOW: u8 = 16;

/// A decoded instruction with what the pipeline wants to know.
#[derive(Clone, Copy, Debug)]
pub(super) struct Micro {
    pub op: Op,
    pub rd: u8,
    pub rs1: u8,
    pub rs2: u8,
    pub rs3: u8,
    pub rm: u8,
    pub len: u8,
    pub flags: u8,
    pub imm: i32,
    /// Scoreboard indices of sources and destination; 0 is always ready.
    pub sources: [u8; 3],
    pub dest: u8,
    pub class: Class,
}

impl Micro {
    fn new(inst: &Inst, pc: u64) -> Self {
        let used = inst.op.row().format.operands();
        let pick = |int: bool, fp: bool, r: u8| if fp { FP_BASE + r } else { u8::from(int) * r };
        let class = inst.op.class();
        let mut flags = 0;
        if matches!(class, Class::System | Class::Amo) {
            flags |= SYNC;
        }
        if is_global(inst, class) {
            flags |= GLOBAL;
        }
        if pc.is_multiple_of(64) || pc % 64 + u64::from(inst.len) > 64 {
            flags |= NEW_LINE;
        }
        if matches!(class, Class::Load | Class::Store | Class::Amo) {
            flags |= MEMORY;
        }
        if matches!(class, Class::Branch | Class::Jump) {
            flags |= FLOW;
        }
        let dest = match (used.rd_int, used.rd_fp) {
            (_, true) => FP_BASE + inst.rd,
            (true, false) if inst.rd != 0 => inst.rd,
            _ => SINK,
        };
        Self {
            op: inst.op,
            rd: if used.rd_int && inst.rd == 0 { SINK } else { inst.rd },
            rs1: inst.rs1,
            rs2: inst.rs2,
            rs3: inst.rs3,
            rm: inst.rm,
            len: inst.len,
            flags,
            // The immediate of an atomic holds its ordering bits, which global order makes redundant.
            imm: if class == Class::Amo { 0 } else { inst.imm },
            sources: [
                pick(used.rs1_int, used.rs1_fp, inst.rs1),
                pick(used.rs2_int, used.rs2_fp, inst.rs2),
                pick(false, used.rs3_fp, u8::from(used.rs3_fp) * inst.rs3),
            ],
            dest,
            class,
        }
    }

    /// For atomics: everything but a load-reserved.
    pub(super) fn writes_memory(&self) -> bool {
        !matches!(self.op, Op::LrW | Op::LrD)
    }

    fn ends_run(&self) -> bool {
        matches!(self.class, Class::Branch | Class::Jump | Class::System)
    }
}

fn is_global(inst: &Inst, class: Class) -> bool {
    const TIME: i32 = 0xc01;
    match inst.op {
        Op::Fence | Op::Wfi => true,
        Op::Csrrw | Op::Csrrs | Op::Csrrc | Op::Csrrwi | Op::Csrrsi | Op::Csrrci => inst.imm == TIME,
        _ => class == Class::Amo,
    }
}

#[derive(Clone, Copy)]
struct Entry {
    pc: u64,
    run: u32,
}

#[derive(Clone, Copy)]
struct Run {
    start: u32,
    len: u32,
    /// How often it was entered, for the class counts.
    entered: u64,
}

/// Why there is no instruction to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoCode {
    /// No stored memory at the address.
    Fault(u64),
    /// The word is no instruction.
    Illegal(u32),
}

/// Cache of decoded runs.
pub(super) struct Blocks {
    entries: Vec<Entry>,
    runs: Vec<Run>,
    pub code: Vec<Micro>,
    pub epoch: u64,
    /// Executed in runs that were flushed since.
    counted: ClassCounts,
    /// Counted by entering a run, but not executed.
    skipped: ClassCounts,
}

impl Blocks {
    pub(super) fn new() -> Self {
        Self {
            entries: vec![Entry { pc: u64::MAX, run: 0 }; ENTRIES],
            runs: Vec::new(),
            code: Vec::new(),
            epoch: 0,
            counted: ClassCounts::default(),
            skipped: ClassCounts::default(),
        }
    }

    /// The decoded run at `pc`: first index and length. Counts as entered.
    #[inline(always)]
    pub(super) fn enter(&mut self, pc: u64, memory: &mut GuestMemory) -> Result<(usize, usize), NoCode> {
        let slot = (pc >> 1) as usize & (ENTRIES - 1);
        let entry = self.entries[slot];
        let index = if entry.pc == pc { entry.run as usize } else { self.decode(pc, slot, memory)? };
        let run = &mut self.runs[index];
        run.entered += 1;
        Ok((run.start as usize, run.len as usize))
    }

    #[inline(never)]
    fn decode(&mut self, pc: u64, slot: usize, memory: &mut GuestMemory) -> Result<usize, NoCode> {
        if self.code.len() > MAX_CODE {
            self.flush();
        }
        let start = self.code.len();
        let mut at = pc;
        while self.code.len() - start < MAX_RUN {
            let decoded = fetch(memory, at).and_then(|w| decode(w).ok_or(NoCode::Illegal(w)));
            let inst = match decoded {
                Ok(inst) => inst,
                // The good instructions before run first; then this address is entered by itself.
                Err(_) if at != pc => break,
                Err(reason) => return Err(reason),
            };
            let micro = Micro::new(&inst, at);
            memory.mark_code(at);
            memory.mark_code(at.wrapping_add(u64::from(inst.len) - 1));
            self.code.push(micro);
            at = at.wrapping_add(u64::from(inst.len));
            if micro.ends_run() {
                break;
            }
        }
        let len = self.code.len() - start;
        self.runs.push(Run { start: start as u32, len: len as u32, entered: 0 });
        let run = self.runs.len() - 1;
        self.entries[slot] = Entry { pc, run: run as u32 };
        Ok(run)
    }

    /// Forgets all decoded code; the counts are kept.
    pub(super) fn flush(&mut self) {
        self.counted = self.classes();
        self.skipped = ClassCounts::default();
        self.entries.fill(Entry { pc: u64::MAX, run: 0 });
        self.runs.clear();
        self.code.clear();
    }

    /// Takes back instructions of an entered run that were not executed.
    pub(super) fn not_executed(&mut self, from: usize, to: usize) {
        for micro in &self.code[from..to] {
            self.skipped.add(micro.class, 1);
        }
    }

    /// Retired instructions by class.
    pub(super) fn classes(&self) -> ClassCounts {
        let mut counts = self.counted;
        for run in &self.runs {
            for micro in &self.code[run.start as usize..(run.start + run.len) as usize] {
                counts.add(micro.class, run.entered);
            }
        }
        counts.minus(&self.skipped)
    }
}

/// The 16 or 32 bits of the instruction at `pc`.
pub(super) fn fetch(memory: &GuestMemory, pc: u64) -> Result<u32, NoCode> {
    let fault = |(MemoryFault::Unmapped(at) | MemoryFault::AddressOnly(at))| NoCode::Fault(at);
    let low = memory.read::<2>(pc).map_err(fault)? as u32;
    if low & 3 != 3 {
        return Ok(low);
    }
    let high = memory.read::<2>(pc.wrapping_add(2)).map_err(fault)? as u32;
    Ok(high << 16 | low)
}
