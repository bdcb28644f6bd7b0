//! RV64GC instructions: decoding, encoding and disassembly, all derived from one table.
//!
//! Models: RV64IMAFDC, Zicsr, Zifencei, Zba, Zbb, Zbs and the machine-mode instructions `mret` and `wfi`.
//! Does not model: V, hypervisor and supervisor instructions (`sret`, `sfence.vma`): they decode to nothing.
//! Source: RISC-V Instruction Set Manual, Volumes I and II, 20240411; Bit-manipulation ISA extensions 1.0.0.
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "instruction fields are cut out of words and reinterpreted bit by bit"
)]

pub mod compressed;
pub mod csr;
mod disasm;
mod table;

pub use table::{Class, OP_COUNT, Op, ROWS, Row};

/// Operand layout of an instruction; `F` registers are floating-point ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// rd, rs1, rs2.
    R,
    /// rd, rs1; the rs2 field belongs to the opcode.
    Unary,
    /// rd, rs1, 12-bit immediate.
    I,
    /// rd, offset(rs1).
    Load,
    /// rd, offset(rs1), a jump.
    Jalr,
    /// rd, rs1, 6-bit shift amount.
    Shift6,
    /// rd, rs1, 5-bit shift amount.
    Shift5,
    /// rs2, offset(rs1).
    S,
    /// rs1, rs2, pc-relative offset.
    B,
    /// rd, upper immediate.
    U,
    /// rd, pc-relative offset.
    J,
    /// rd, csr, rs1.
    Csr,
    /// rd, csr, 5-bit immediate in the rs1 field.
    CsrImm,
    /// Predecessor and successor sets; registers ignored.
    Fence,
    /// No operands.
    None,
    /// rd, (rs1).
    Lr,
    /// rd, rs2, (rs1).
    Amo,
    /// frd, offset(rs1).
    FLoad,
    /// frs2, offset(rs1).
    FStore,
    /// frd, frs1, frs2, frs3, rounding mode.
    F4,
    /// frd, frs1, frs2, rounding mode.
    F3,
    /// frd, frs1, frs2, no rounding.
    F3Exact,
    /// frd, frs1, rounding mode.
    F2,
    /// rd, frs1, frs2.
    FCompare,
    /// rd, frs1, rounding mode.
    FToInt,
    /// rd, frs1, no rounding.
    FMoveToInt,
    /// frd, rs1, rounding mode.
    IntToF,
    /// frd, rs1, no rounding.
    MoveToF,
}

/// A decoded instruction; fields its format lacks are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inst {
    /// What to do.
    pub op: Op,
    /// Destination register.
    pub rd: u8,
    /// First source register, or the 5-bit immediate of a CSR instruction.
    pub rs1: u8,
    /// Second source register.
    pub rs2: u8,
    /// Third source register.
    pub rs3: u8,
    /// Rounding mode field.
    pub rm: u8,
    /// Length in bytes: 2 or 4.
    pub len: u8,
    /// Sign-extended immediate; for CSR instructions the CSR number, for AMOs the aq and rl bits, for `lui` and
    /// `auipc` the value already shifted.
    pub imm: i32,
}

impl Inst {
    /// An instruction with all operands zero and length 4.
    #[must_use]
    pub const fn new(op: Op) -> Self {
        Self { op, rd: 0, rs1: 0, rs2: 0, rs3: 0, rm: 0, len: 4, imm: 0 }
    }
}

/// Which operand fields of an instruction are used, and in which register file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Operands {
    /// Writes integer `rd`.
    pub rd_int: bool,
    /// Writes floating-point `rd`.
    pub rd_fp: bool,
    /// Reads integer `rs1`.
    pub rs1_int: bool,
    /// Reads floating-point `rs1`.
    pub rs1_fp: bool,
    /// Reads integer `rs2`.
    pub rs2_int: bool,
    /// Reads floating-point `rs2`.
    pub rs2_fp: bool,
    /// Reads floating-point `rs3`.
    pub rs3_fp: bool,
    /// Has a rounding-mode field.
    pub rounds: bool,
}

impl Format {
    /// The registers this format reads and writes.
    #[must_use]
    pub const fn operands(self) -> Operands {
        let mut o = Operands {
            rd_int: false,
            rd_fp: false,
            rs1_int: false,
            rs1_fp: false,
            rs2_int: false,
            rs2_fp: false,
            rs3_fp: false,
            rounds: false,
        };
        match self {
            Self::R | Self::Amo => (o.rd_int, o.rs1_int, o.rs2_int) = (true, true, true),
            Self::Unary
            | Self::I
            | Self::Load
            | Self::Jalr
            | Self::Shift6
            | Self::Shift5
            | Self::Csr
            | Self::Lr => (o.rd_int, o.rs1_int) = (true, true),
            Self::S | Self::B => (o.rs1_int, o.rs2_int) = (true, true),
            Self::U | Self::J | Self::CsrImm => o.rd_int = true,
            Self::Fence | Self::None => {}
            Self::FLoad | Self::MoveToF => (o.rd_fp, o.rs1_int) = (true, true),
            Self::FStore => (o.rs1_int, o.rs2_fp) = (true, true),
            Self::F4 => {
                (o.rd_fp, o.rs1_fp, o.rs2_fp) = (true, true, true);
                (o.rs3_fp, o.rounds) = (true, true);
            }
            Self::F3 => (o.rd_fp, o.rs1_fp, o.rs2_fp, o.rounds) = (true, true, true, true),
            Self::F3Exact => (o.rd_fp, o.rs1_fp, o.rs2_fp) = (true, true, true),
            Self::F2 => (o.rd_fp, o.rs1_fp, o.rounds) = (true, true, true),
            Self::FCompare => (o.rd_int, o.rs1_fp, o.rs2_fp) = (true, true, true),
            Self::FToInt => (o.rd_int, o.rs1_fp, o.rounds) = (true, true, true),
            Self::FMoveToInt => (o.rd_int, o.rs1_fp) = (true, true),
            Self::IntToF => (o.rd_fp, o.rs1_int, o.rounds) = (true, true, true),
        }
        o
    }
}

/// Rows per major opcode at most; a constant assertion below checks that it is enough.
const BUCKET: usize = 64;

/// For each value of bits 6:2, the indices of the rows with it; 0xff ends a list.
static BY_OPCODE: [[u8; BUCKET]; 32] = buckets();

const fn buckets() -> [[u8; BUCKET]; 32] {
    let mut table = [[0xff; BUCKET]; 32];
    let mut used = [0usize; 32];
    let mut n = 0;
    while n < OP_COUNT {
        let opcode = (ROWS_CONST[n].0 >> 2 & 0x1f) as usize;
        assert!(used[opcode] + 1 < BUCKET, "a bucket of the decoder is too small");
        table[opcode][used[opcode]] = n as u8;
        used[opcode] += 1;
        n += 1;
    }
    table
}

use table::ROWS_CONST;

const fn bits(word: u32, low: u32, count: u32) -> u32 {
    (word >> low) & ((1 << count) - 1)
}

/// Decodes a 32-bit instruction word; `None` is an illegal instruction.
#[must_use]
pub fn decode32(word: u32) -> Option<Inst> {
    if word & 3 != 3 {
        return None;
    }
    for &index in &BY_OPCODE[bits(word, 2, 5) as usize] {
        if index == 0xff {
            break;
        }
        let row = &ROWS[index as usize];
        if word & row.mask == row.matches {
            return Some(operands(word, row));
        }
    }
    None
}

/// Decodes the instruction at the start of `word`: 16-bit if its two low bits are not 11.
#[must_use]
pub fn decode(word: u32) -> Option<Inst> {
    if word & 3 == 3 { decode32(word) } else { compressed::expand(word as u16) }
}

fn operands(word: u32, row: &Row) -> Inst {
    let signed = word as i32;
    let mut inst = Inst::new(row.op);
    let used = row.format.operands();
    if used.rd_int || used.rd_fp {
        inst.rd = bits(word, 7, 5) as u8;
    }
    if used.rs1_int || used.rs1_fp || row.format == Format::CsrImm {
        inst.rs1 = bits(word, 15, 5) as u8;
    }
    if used.rs2_int || used.rs2_fp {
        inst.rs2 = bits(word, 20, 5) as u8;
    }
    if used.rs3_fp {
        inst.rs3 = bits(word, 27, 5) as u8;
    }
    if used.rounds {
        inst.rm = bits(word, 12, 3) as u8;
    }
    inst.imm = match row.format {
        Format::I | Format::Load | Format::Jalr | Format::FLoad => signed >> 20,
        Format::Shift6 => bits(word, 20, 6) as i32,
        Format::Shift5 => bits(word, 20, 5) as i32,
        Format::S | Format::FStore => (signed >> 25) << 5 | bits(word, 7, 5) as i32,
        Format::B => {
            (signed >> 31) << 12
                | (bits(word, 7, 1) << 11 | bits(word, 25, 6) << 5 | bits(word, 8, 4) << 1) as i32
        }
        Format::U => (word & 0xffff_f000) as i32,
        Format::J => {
            (signed >> 31) << 20
                | (word & 0xf_f000 | bits(word, 20, 1) << 11 | bits(word, 21, 10) << 1) as i32
        }
        Format::Csr | Format::CsrImm | Format::Fence => bits(word, 20, 12) as i32,
        Format::Lr | Format::Amo => bits(word, 25, 2) as i32,
        _ => 0,
    };
    inst
}

/// Encodes an instruction as a 32-bit word; bits of the immediate beyond its field are dropped.
#[must_use]
pub fn encode(inst: &Inst) -> u32 {
    let row = inst.op.row();
    let used = row.format.operands();
    let imm = inst.imm as u32;
    let mut word = row.matches;
    if used.rd_int || used.rd_fp {
        word |= u32::from(inst.rd & 31) << 7;
    }
    if used.rs1_int || used.rs1_fp || row.format == Format::CsrImm {
        word |= u32::from(inst.rs1 & 31) << 15;
    }
    if used.rs2_int || used.rs2_fp {
        word |= u32::from(inst.rs2 & 31) << 20;
    }
    if used.rs3_fp {
        word |= u32::from(inst.rs3 & 31) << 27;
    }
    if used.rounds {
        word |= u32::from(inst.rm & 7) << 12;
    }
    word | match row.format {
        Format::I | Format::Load | Format::Jalr | Format::FLoad => imm << 20,
        Format::Shift6 => bits(imm, 0, 6) << 20,
        Format::Shift5 => bits(imm, 0, 5) << 20,
        Format::S | Format::FStore => bits(imm, 5, 7) << 25 | bits(imm, 0, 5) << 7,
        Format::B => {
            bits(imm, 12, 1) << 31 | bits(imm, 5, 6) << 25 | bits(imm, 1, 4) << 8 | bits(imm, 11, 1) << 7
        }
        Format::U => imm & 0xffff_f000,
        Format::J => {
            bits(imm, 20, 1) << 31 | bits(imm, 1, 10) << 21 | bits(imm, 11, 1) << 20 | imm & 0xf_f000
        }
        Format::Csr | Format::CsrImm | Format::Fence => bits(imm, 0, 12) << 20,
        Format::Lr | Format::Amo => bits(imm, 0, 2) << 25,
        _ => 0,
    }
}

#[cfg(test)]
mod tests;
