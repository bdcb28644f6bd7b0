//! A mini assembler over the instruction table, and an ideal neighbour for a hart.
#![allow(dead_code, reason = "every test crate uses its own part of this module")]

use isa::rv64::{Inst, Op, encode};
use sim_kernel::{Addr, Bytes, Time};
use soc_model::cpu::{Bus, BusFault, GuestMemory, InterruptLines, LineReply, LineRequest, LineSource};
use std::collections::BTreeMap;

/// Where programs and memory start.
pub const BASE: u64 = 0x8000_0000;
/// Size of the test memory.
pub const MEMORY_BYTES: u64 = 16 << 20;
/// The one device register of the ideal neighbour.
pub const DEVICE: u64 = 0x1000_0000;

pub const ZERO: u8 = 0;
pub const RA: u8 = 1;
pub const SP: u8 = 2;
pub const T0: u8 = 5;
pub const T1: u8 = 6;
pub const T2: u8 = 7;
pub const S0: u8 = 8;
pub const S1: u8 = 9;
pub const A0: u8 = 10;
pub const A1: u8 = 11;
pub const A2: u8 = 12;
pub const A3: u8 = 13;

/// A program with labels.
#[derive(Default)]
pub struct Asm {
    words: Vec<u32>,
    labels: BTreeMap<&'static str, usize>,
    fixups: Vec<(usize, Inst, &'static str)>,
}

impl Asm {
    pub fn new() -> Self {
        Self::default()
    }
    pub fn word(&mut self, word: u32) -> &mut Self {
        self.words.push(word);
        self
    }
    pub fn put(&mut self, inst: Inst) -> &mut Self {
        self.word(encode(&inst))
    }
    pub fn op(&mut self, op: Op) -> &mut Self {
        self.put(Inst::new(op))
    }
    pub fn r(&mut self, op: Op, rd: u8, rs1: u8, rs2: u8) -> &mut Self {
        self.put(Inst { rd, rs1, rs2, ..Inst::new(op) })
    }
    /// rd, rs1 and an immediate: also loads, `jalr`, shifts.
    pub fn i(&mut self, op: Op, rd: u8, rs1: u8, imm: i32) -> &mut Self {
        self.put(Inst { rd, rs1, imm, ..Inst::new(op) })
    }
    pub fn s(&mut self, op: Op, rs2: u8, rs1: u8, imm: i32) -> &mut Self {
        self.put(Inst { rs1, rs2, imm, ..Inst::new(op) })
    }
    pub fn csr(&mut self, op: Op, rd: u8, number: i32, rs1: u8) -> &mut Self {
        self.put(Inst { rd, rs1, imm: number, ..Inst::new(op) })
    }
    pub fn label(&mut self, name: &'static str) -> &mut Self {
        self.labels.insert(name, self.words.len());
        self
    }
    pub fn branch(&mut self, op: Op, rs1: u8, rs2: u8, to: &'static str) -> &mut Self {
        self.fixups.push((self.words.len(), Inst { rs1, rs2, ..Inst::new(op) }, to));
        self.word(0)
    }
    pub fn jump(&mut self, rd: u8, to: &'static str) -> &mut Self {
        self.fixups.push((self.words.len(), Inst { rd, ..Inst::new(Op::Jal) }, to));
        self.word(0)
    }
    /// Address of a label by `auipc`; the label must be within 2 KiB.
    pub fn la(&mut self, rd: u8, to: &'static str) -> &mut Self {
        self.i(Op::Auipc, rd, 0, 0);
        self.fixups.push((self.words.len(), Inst { rd, rs1: rd, ..Inst::new(Op::Addi) }, to));
        self.word(0)
    }
    /// Any 64-bit constant, in at most eleven instructions.
    pub fn li(&mut self, rd: u8, value: u64) -> &mut Self {
        let small = i32::try_from(value.cast_signed()).ok().filter(|v| (-2048..2048).contains(v));
        if let Some(small) = small {
            return self.i(Op::Addi, rd, ZERO, small);
        }
        self.i(Op::Addi, rd, ZERO, i32::try_from(value >> 60).expect("four bits"));
        for chunk in (0..6).rev() {
            let bits = i32::try_from(value >> (10 * chunk) & 0x3ff).expect("ten bits");
            self.i(Op::Slli, rd, rd, 10).i(Op::Addi, rd, rd, bits);
        }
        self
    }
    pub fn here(&self) -> u64 {
        4 * self.words.len() as u64
    }
    pub fn offset(&self, name: &str) -> u64 {
        4 * self.labels[name] as u64
    }
    pub fn bytes(&self) -> Vec<u8> {
        let mut words = self.words.clone();
        for (at, inst, to) in &self.fixups {
            let distance = self.labels[to].cast_signed() - at.cast_signed();
            // An `addi` fixup is relative to the `auipc` before it.
            let extra = isize::from(inst.op == Op::Addi);
            let imm = i32::try_from(4 * (distance + extra)).expect("labels are near");
            words[*at] = encode(&Inst { imm, ..*inst });
        }
        words.iter().flat_map(|w| w.to_le_bytes()).collect()
    }
}

/// Memory, one device register, fixed latencies.
pub struct Ideal {
    pub memory: GuestMemory,
    pub line_latency: Time,
    pub lines: InterruptLines,
    pub register: u64,
    /// Every call that must be in global order: when.
    pub calls: Vec<Time>,
    pub write_backs: Vec<u64>,
    /// Every line asked for.
    pub requests: Vec<LineRequest>,
}

impl Ideal {
    pub fn new(program: &Asm) -> Self {
        let mut memory = GuestMemory::new();
        memory.add_region(Addr::new(BASE), Bytes::new(MEMORY_BYTES)).expect("one region");
        memory.write_bytes(Addr::new(BASE), &program.bytes()).expect("a small program");
        Self {
            memory,
            line_latency: Time::from_ns(80),
            lines: InterruptLines::default(),
            register: 0,
            calls: Vec::new(),
            write_backs: Vec::new(),
            requests: Vec::new(),
        }
    }
}

impl Bus for Ideal {
    fn memory(&mut self) -> &mut GuestMemory {
        &mut self.memory
    }
    fn line(&mut self, request: LineRequest) -> LineReply {
        self.calls.push(request.now);
        self.requests.push(request);
        let source = if request.addr & 64 == 0 { LineSource::SharedCache } else { LineSource::Dram };
        LineReply { done: request.now + self.line_latency, source }
    }
    fn write_back(&mut self, now: Time, _: usize, addr: u64) {
        self.calls.push(now);
        self.write_backs.push(addr);
    }
    fn mmio_load(&mut self, now: Time, _: usize, addr: u64, _: u8) -> Result<(u64, Time), BusFault> {
        self.calls.push(now);
        if addr != DEVICE {
            return Err(BusFault::Unmapped(addr));
        }
        self.register += 1;
        Ok((self.register, now + Time::from_ns(40)))
    }
    fn mmio_store(&mut self, now: Time, _: usize, addr: u64, size: u8, value: u64) -> Result<Time, BusFault> {
        self.calls.push(now);
        if addr != DEVICE || size != 4 {
            return Err(BusFault::Width { addr, size });
        }
        self.register = value;
        Ok(now + Time::from_ns(40))
    }
    fn interrupt_lines(&mut self, _: Time, _: usize) -> InterruptLines {
        self.lines
    }
    fn mtime(&mut self, now: Time) -> u64 {
        self.calls.push(now);
        now.as_ns()
    }
}
