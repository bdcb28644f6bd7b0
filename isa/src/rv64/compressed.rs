//! The compressed instructions of RV64DC: their own table, each row naming the 32-bit instruction it stands for.
//!
//! Source: RISC-V Instruction Set Manual, Volume I, 20240411, chapter "C Extension".

use super::{Inst, Op};

/// Where a compressed instruction keeps its operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// rd', sp, zero-extended multiple of 4.
    Addi4spn,
    /// rd', offset(rs1'), words.
    LoadWord,
    /// rd', offset(rs1'), doublewords.
    LoadDouble,
    /// rs2', offset(rs1'), words.
    StoreWord,
    /// rs2', offset(rs1'), doublewords.
    StoreDouble,
    /// rd = rd op imm6.
    ImmSelf,
    /// rd = x0 + imm6.
    ImmLoad,
    /// sp = sp + multiple of 16.
    Addi16sp,
    /// rd = imm6 << 12.
    UpperImm,
    /// rd' = rd' shifted by 6 bits.
    ShiftPrime,
    /// rd' = rd' op imm6.
    ImmPrime,
    /// rd' = rd' op rs2'.
    RegPrime,
    /// x0 jump to a pc-relative offset.
    Jump,
    /// rs1' against x0, pc-relative offset.
    Branch,
    /// rd = rd shifted by 6 bits.
    Shift,
    /// rd = offset(sp), words.
    LoadWordSp,
    /// rd = offset(sp), doublewords.
    LoadDoubleSp,
    /// jump to rs1 without link.
    JumpReg,
    /// jump to rs1, link in ra.
    JumpRegLink,
    /// rd = x0 + rs2.
    Move,
    /// rd = rd + rs2.
    AddReg,
    /// No operands.
    None,
    /// rs2 to offset(sp), words.
    StoreWordSp,
    /// rs2 to offset(sp), doublewords.
    StoreDoubleSp,
}

/// What makes an encoding that matches a row reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reserved {
    /// Never.
    Never,
    /// If the immediate is zero.
    ZeroImm,
    /// If rd (or rs1) is x0.
    ZeroRd,
}

/// One row: a 16-bit pattern and what it expands to.
#[derive(Clone, Copy, Debug)]
pub struct CompressedRow {
    /// Assembly mnemonic.
    pub mnemonic: &'static str,
    /// Bits that identify it.
    pub matches: u16,
    /// Which bits identify it.
    pub mask: u16,
    /// The 32-bit instruction.
    pub op: Op,
    /// Operand layout.
    pub layout: Layout,
    /// Reserved encodings inside the pattern.
    pub reserved: Reserved,
    /// Patterns that belong to a later, more specific row.
    pub except: Except,
}

/// An operand value that a more specific row claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Except {
    /// None.
    No,
    /// rd = 2 (`c.addi16sp` inside the pattern of `c.lui`).
    RdIsSp,
    /// rs2 = 0 (`c.jr` and `c.jalr` inside `c.mv` and `c.add`).
    Rs2Zero,
    /// rd = 0 (`c.ebreak` inside `c.jalr`).
    RdZero,
}

const fn row(
    mnemonic: &'static str,
    (matches, mask): (u16, u16),
    op: Op,
    layout: Layout,
    reserved: Reserved,
    except: Except,
) -> CompressedRow {
    CompressedRow { mnemonic, matches, mask, op, layout, reserved, except }
}

const fn q(funct3: u16, quadrant: u16) -> (u16, u16) {
    (funct3 << 13 | quadrant, 0xe003)
}

/// The table.
pub static ROWS: [CompressedRow; 36] = {
    use Except as E;
    use Layout as L;
    use Reserved as R;
    [
        row("c.addi4spn", q(0, 0), Op::Addi, L::Addi4spn, R::ZeroImm, E::No),
        row("c.fld", q(1, 0), Op::Fld, L::LoadDouble, R::Never, E::No),
        row("c.lw", q(2, 0), Op::Lw, L::LoadWord, R::Never, E::No),
        row("c.ld", q(3, 0), Op::Ld, L::LoadDouble, R::Never, E::No),
        row("c.fsd", q(5, 0), Op::Fsd, L::StoreDouble, R::Never, E::No),
        row("c.sw", q(6, 0), Op::Sw, L::StoreWord, R::Never, E::No),
        row("c.sd", q(7, 0), Op::Sd, L::StoreDouble, R::Never, E::No),
        row("c.addi", q(0, 1), Op::Addi, L::ImmSelf, R::Never, E::No),
        row("c.addiw", q(1, 1), Op::Addiw, L::ImmSelf, R::ZeroRd, E::No),
        row("c.li", q(2, 1), Op::Addi, L::ImmLoad, R::Never, E::No),
        row("c.addi16sp", (3 << 13 | 2 << 7 | 1, 0xef83), Op::Addi, L::Addi16sp, R::ZeroImm, E::No),
        row("c.lui", q(3, 1), Op::Lui, L::UpperImm, R::ZeroImm, E::RdIsSp),
        row("c.srli", (0x8001, 0xec03), Op::Srli, L::ShiftPrime, R::Never, E::No),
        row("c.srai", (0x8401, 0xec03), Op::Srai, L::ShiftPrime, R::Never, E::No),
        row("c.andi", (0x8801, 0xec03), Op::Andi, L::ImmPrime, R::Never, E::No),
        row("c.sub", (0x8c01, 0xfc63), Op::Sub, L::RegPrime, R::Never, E::No),
        row("c.xor", (0x8c21, 0xfc63), Op::Xor, L::RegPrime, R::Never, E::No),
        row("c.or", (0x8c41, 0xfc63), Op::Or, L::RegPrime, R::Never, E::No),
        row("c.and", (0x8c61, 0xfc63), Op::And, L::RegPrime, R::Never, E::No),
        row("c.subw", (0x9c01, 0xfc63), Op::Subw, L::RegPrime, R::Never, E::No),
        row("c.addw", (0x9c21, 0xfc63), Op::Addw, L::RegPrime, R::Never, E::No),
        row("c.j", q(5, 1), Op::Jal, L::Jump, R::Never, E::No),
        row("c.beqz", q(6, 1), Op::Beq, L::Branch, R::Never, E::No),
        row("c.bnez", q(7, 1), Op::Bne, L::Branch, R::Never, E::No),
        row("c.slli", q(0, 2), Op::Slli, L::Shift, R::Never, E::No),
        row("c.fldsp", q(1, 2), Op::Fld, L::LoadDoubleSp, R::Never, E::No),
        row("c.lwsp", q(2, 2), Op::Lw, L::LoadWordSp, R::ZeroRd, E::No),
        row("c.ldsp", q(3, 2), Op::Ld, L::LoadDoubleSp, R::ZeroRd, E::No),
        row("c.jr", (0x8002, 0xf07f), Op::Jalr, L::JumpReg, R::ZeroRd, E::No),
        row("c.mv", (0x8002, 0xf003), Op::Add, L::Move, R::Never, E::Rs2Zero),
        row("c.ebreak", (0x9002, 0xffff), Op::Ebreak, L::None, R::Never, E::No),
        row("c.jalr", (0x9002, 0xf07f), Op::Jalr, L::JumpRegLink, R::Never, E::RdZero),
        row("c.add", (0x9002, 0xf003), Op::Add, L::AddReg, R::Never, E::Rs2Zero),
        row("c.fsdsp", q(5, 2), Op::Fsd, L::StoreDoubleSp, R::Never, E::No),
        row("c.swsp", q(6, 2), Op::Sw, L::StoreWordSp, R::Never, E::No),
        row("c.sdsp", q(7, 2), Op::Sd, L::StoreDoubleSp, R::Never, E::No),
    ]
};

const SP: u8 = 2;
const RA: u8 = 1;

fn field(half: u16, low: u32, count: u32) -> i32 {
    i32::from((half >> low) & ((1 << count) - 1))
}

/// A register of the eight the short fields can name: x8 to x15.
fn prime(half: u16, low: u32) -> u8 {
    field(half, low, 3) as u8 + 8
}

impl CompressedRow {
    /// Whether this row is the one for `half` (reserved encodings included).
    #[must_use]
    pub fn claims(&self, half: u16) -> bool {
        let rd = field(half, 7, 5);
        let rs2 = field(half, 2, 5);
        half & self.mask == self.matches
            && match self.except {
                Except::No => true,
                Except::RdIsSp => rd != 2,
                Except::Rs2Zero => rs2 != 0,
                Except::RdZero => rd != 0,
            }
    }
}

/// Expands a 16-bit instruction; `None` is illegal or reserved.
#[must_use]
pub fn expand(half: u16) -> Option<Inst> {
    let row = ROWS.iter().find(|row| row.claims(half))?;
    let inst = operands(half, row);
    let illegal = match row.reserved {
        Reserved::Never => false,
        Reserved::ZeroImm => inst.imm == 0,
        Reserved::ZeroRd => field(half, 7, 5) == 0,
    };
    (!illegal).then_some(inst)
}

fn operands(h: u16, row: &CompressedRow) -> Inst {
    let mut i = Inst { len: 2, ..Inst::new(row.op) };
    let rd = field(h, 7, 5) as u8;
    let rs2 = field(h, 2, 5) as u8;
    let imm6 = (field(h, 12, 1) << 31 >> 26) | field(h, 2, 5);
    let shift6 = field(h, 12, 1) << 5 | field(h, 2, 5);
    let word = field(h, 10, 3) << 3 | field(h, 6, 1) << 2 | field(h, 5, 1) << 6;
    let double = field(h, 10, 3) << 3 | field(h, 5, 2) << 6;
    let word_sp = field(h, 12, 1) << 5 | field(h, 4, 3) << 2 | field(h, 2, 2) << 6;
    let double_sp = field(h, 12, 1) << 5 | field(h, 5, 2) << 3 | field(h, 2, 3) << 6;
    match row.layout {
        Layout::Addi4spn => {
            (i.rd, i.rs1) = (prime(h, 2), SP);
            i.imm = field(h, 11, 2) << 4 | field(h, 7, 4) << 6 | field(h, 6, 1) << 2 | field(h, 5, 1) << 3;
        }
        Layout::LoadWord => (i.rd, i.rs1, i.imm) = (prime(h, 2), prime(h, 7), word),
        Layout::LoadDouble => (i.rd, i.rs1, i.imm) = (prime(h, 2), prime(h, 7), double),
        Layout::StoreWord => (i.rs2, i.rs1, i.imm) = (prime(h, 2), prime(h, 7), word),
        Layout::StoreDouble => (i.rs2, i.rs1, i.imm) = (prime(h, 2), prime(h, 7), double),
        Layout::ImmSelf => (i.rd, i.rs1, i.imm) = (rd, rd, imm6),
        Layout::ImmLoad => (i.rd, i.imm) = (rd, imm6),
        Layout::Addi16sp => {
            (i.rd, i.rs1) = (SP, SP);
            i.imm = (field(h, 12, 1) << 31 >> 22)
                | field(h, 6, 1) << 4
                | field(h, 5, 1) << 6
                | field(h, 3, 2) << 7
                | field(h, 2, 1) << 5;
        }
        Layout::UpperImm => (i.rd, i.imm) = (rd, imm6 << 12),
        Layout::ShiftPrime => (i.rd, i.rs1, i.imm) = (prime(h, 7), prime(h, 7), shift6),
        Layout::ImmPrime => (i.rd, i.rs1, i.imm) = (prime(h, 7), prime(h, 7), imm6),
        Layout::RegPrime => (i.rd, i.rs1, i.rs2) = (prime(h, 7), prime(h, 7), prime(h, 2)),
        Layout::Jump => {
            i.imm = (field(h, 12, 1) << 31 >> 20)
                | field(h, 11, 1) << 4
                | field(h, 9, 2) << 8
                | field(h, 8, 1) << 10
                | field(h, 7, 1) << 6
                | field(h, 6, 1) << 7
                | field(h, 3, 3) << 1
                | field(h, 2, 1) << 5;
        }
        Layout::Branch => {
            i.rs1 = prime(h, 7);
            i.imm = (field(h, 12, 1) << 31 >> 23)
                | field(h, 10, 2) << 3
                | field(h, 5, 2) << 6
                | field(h, 3, 2) << 1
                | field(h, 2, 1) << 5;
        }
        Layout::Shift => (i.rd, i.rs1, i.imm) = (rd, rd, shift6),
        Layout::LoadWordSp => (i.rd, i.rs1, i.imm) = (rd, SP, word_sp),
        Layout::LoadDoubleSp => (i.rd, i.rs1, i.imm) = (rd, SP, double_sp),
        Layout::JumpReg => i.rs1 = rd,
        Layout::JumpRegLink => (i.rd, i.rs1) = (RA, rd),
        Layout::Move => (i.rd, i.rs2) = (rd, rs2),
        Layout::AddReg => (i.rd, i.rs1, i.rs2) = (rd, rd, rs2),
        Layout::None => {}
        Layout::StoreWordSp => {
            (i.rs1, i.rs2) = (SP, rs2);
            i.imm = field(h, 9, 4) << 2 | field(h, 7, 2) << 6;
        }
        Layout::StoreDoubleSp => {
            (i.rs1, i.rs2) = (SP, rs2);
            i.imm = field(h, 10, 3) << 3 | field(h, 7, 3) << 6;
        }
    }
    i
}
