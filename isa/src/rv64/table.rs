//! The RV64GC + Zicsr + Zifencei + Zba + Zbb + Zbs instruction table: one row per instruction.
//!
//! The `Op` enum, the decoder, the encoder, the disassembler and the overlap proof all derive from these rows.
//! Source: RISC-V Instruction Set Manual, Volume I, 20240411, chapter "RV32/64G Instruction Set Listings".

use super::Format::{self, *};

/// What kind of work an instruction is, for timing and energy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Class {
    /// Integer add, logic, shift, compare, move.
    Alu,
    /// Integer multiply.
    Mul,
    /// Integer divide and remainder.
    Div,
    /// Load, integer or floating point.
    Load,
    /// Store, integer or floating point.
    Store,
    /// Load-reserved, store-conditional and atomic read-modify-write.
    Amo,
    /// Conditional branch.
    Branch,
    /// Unconditional jump.
    Jump,
    /// Floating-point add, subtract, compare, minimum, maximum.
    FpAdd,
    /// Floating-point multiply.
    FpMul,
    /// Fused multiply-add.
    FpFma,
    /// Floating-point divide.
    FpDiv,
    /// Floating-point square root.
    FpSqrt,
    /// Conversion between formats.
    FpConvert,
    /// Sign injection, classification, moves between register files.
    FpMove,
    /// CSR access, fences, environment calls, returns, wait.
    System,
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The instruction.
    pub op: Op,
    /// Assembly mnemonic.
    pub mnemonic: &'static str,
    /// Operand layout.
    pub format: Format,
    /// Bits that identify the instruction.
    pub matches: u32,
    /// Which bits identify it.
    pub mask: u32,
    /// Kind of work.
    pub class: Class,
}

/// Match and mask of a row.
type Bits = (u32, u32);

const fn r(f7: u32, f3: u32, op: u32) -> Bits {
    (f7 << 25 | f3 << 12 | op, 0xfe00_707f)
}
const fn i(f3: u32, op: u32) -> Bits {
    (f3 << 12 | op, 0x707f)
}
const fn o(op: u32) -> Bits {
    (op, 0x7f)
}
/// 64-bit shift immediate: the six top bits.
const fn sh6(f6: u32, f3: u32, op: u32) -> Bits {
    (f6 << 26 | f3 << 12 | op, 0xfc00_707f)
}
/// Unary: the whole rs2 field belongs to the opcode.
const fn u1(f12: u32, f3: u32, op: u32) -> Bits {
    (f12 << 20 | f3 << 12 | op, 0xfff0_707f)
}
const fn amo(f5: u32, f3: u32) -> Bits {
    (f5 << 27 | f3 << 12 | 0x2f, 0xf800_707f)
}
const fn lr(f3: u32) -> Bits {
    (0x02 << 27 | f3 << 12 | 0x2f, 0xf9f0_707f)
}
/// Floating point with a rounding-mode field.
const fn fr(f7: u32) -> Bits {
    (f7 << 25 | 0x53, 0xfe00_007f)
}
/// Floating-point unary with a rounding-mode field.
const fn fu(f7: u32, rs2: u32) -> Bits {
    (f7 << 25 | rs2 << 20 | 0x53, 0xfff0_007f)
}
/// Floating-point unary without rounding mode.
const fn fx(f7: u32, rs2: u32, f3: u32) -> Bits {
    (f7 << 25 | rs2 << 20 | f3 << 12 | 0x53, 0xfff0_707f)
}
const fn f4(fmt: u32, op: u32) -> Bits {
    (fmt << 25 | op, 0x0600_007f)
}
const fn sys(word: u32) -> Bits {
    (word, 0xffff_ffff)
}

macro_rules! rv64_table {
    ($( $op:ident $name:literal $format:ident $bits:expr, $class:ident; )*) => {
        /// Every instruction of the table.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Op { $( #[doc = concat!("`", $name, "`")] $op, )* }

        /// The table, indexed by `Op`.
        pub static ROWS: [Row; OP_COUNT] = [ $( {
            const BITS: Bits = $bits;
            Row { op: Op::$op, mnemonic: $name, format: $format, matches: BITS.0, mask: BITS.1, class: Class::$class }
        }, )* ];

        /// Match and mask of every row, for constant evaluation.
        pub(super) const ROWS_CONST: [Bits; OP_COUNT] = [ $( $bits, )* ];

        /// How many instructions the table has.
        pub const OP_COUNT: usize = [ $( $name, )* ].len();
    };
}

rv64_table! {
    // RV32I and RV64I
    Lui "lui" U o(0x37), Alu;
    Auipc "auipc" U o(0x17), Alu;
    Jal "jal" J o(0x6f), Jump;
    Jalr "jalr" Jalr i(0, 0x67), Jump;
    Beq "beq" B i(0, 0x63), Branch;
    Bne "bne" B i(1, 0x63), Branch;
    Blt "blt" B i(4, 0x63), Branch;
    Bge "bge" B i(5, 0x63), Branch;
    Bltu "bltu" B i(6, 0x63), Branch;
    Bgeu "bgeu" B i(7, 0x63), Branch;
    Lb "lb" Load i(0, 0x03), Load;
    Lh "lh" Load i(1, 0x03), Load;
    Lw "lw" Load i(2, 0x03), Load;
    Ld "ld" Load i(3, 0x03), Load;
    Lbu "lbu" Load i(4, 0x03), Load;
    Lhu "lhu" Load i(5, 0x03), Load;
    Lwu "lwu" Load i(6, 0x03), Load;
    Sb "sb" S i(0, 0x23), Store;
    Sh "sh" S i(1, 0x23), Store;
    Sw "sw" S i(2, 0x23), Store;
    Sd "sd" S i(3, 0x23), Store;
    Addi "addi" I i(0, 0x13), Alu;
    Slti "slti" I i(2, 0x13), Alu;
    Sltiu "sltiu" I i(3, 0x13), Alu;
    Xori "xori" I i(4, 0x13), Alu;
    Ori "ori" I i(6, 0x13), Alu;
    Andi "andi" I i(7, 0x13), Alu;
    Slli "slli" Shift6 sh6(0x00, 1, 0x13), Alu;
    Srli "srli" Shift6 sh6(0x00, 5, 0x13), Alu;
    Srai "srai" Shift6 sh6(0x10, 5, 0x13), Alu;
    Add "add" R r(0x00, 0, 0x33), Alu;
    Sub "sub" R r(0x20, 0, 0x33), Alu;
    Sll "sll" R r(0x00, 1, 0x33), Alu;
    Slt "slt" R r(0x00, 2, 0x33), Alu;
    Sltu "sltu" R r(0x00, 3, 0x33), Alu;
    Xor "xor" R r(0x00, 4, 0x33), Alu;
    Srl "srl" R r(0x00, 5, 0x33), Alu;
    Sra "sra" R r(0x20, 5, 0x33), Alu;
    Or "or" R r(0x00, 6, 0x33), Alu;
    And "and" R r(0x00, 7, 0x33), Alu;
    Addiw "addiw" I i(0, 0x1b), Alu;
    Slliw "slliw" Shift5 r(0x00, 1, 0x1b), Alu;
    Srliw "srliw" Shift5 r(0x00, 5, 0x1b), Alu;
    Sraiw "sraiw" Shift5 r(0x20, 5, 0x1b), Alu;
    Addw "addw" R r(0x00, 0, 0x3b), Alu;
    Subw "subw" R r(0x20, 0, 0x3b), Alu;
    Sllw "sllw" R r(0x00, 1, 0x3b), Alu;
    Srlw "srlw" R r(0x00, 5, 0x3b), Alu;
    Sraw "sraw" R r(0x20, 5, 0x3b), Alu;
    Fence "fence" Fence i(0, 0x0f), System;
    FenceI "fence.i" Fence i(1, 0x0f), System;
    Ecall "ecall" None sys(0x0000_0073), System;
    Ebreak "ebreak" None sys(0x0010_0073), System;
    Mret "mret" None sys(0x3020_0073), System;
    Wfi "wfi" None sys(0x1050_0073), System;
    // Zicsr
    Csrrw "csrrw" Csr i(1, 0x73), System;
    Csrrs "csrrs" Csr i(2, 0x73), System;
    Csrrc "csrrc" Csr i(3, 0x73), System;
    Csrrwi "csrrwi" CsrImm i(5, 0x73), System;
    Csrrsi "csrrsi" CsrImm i(6, 0x73), System;
    Csrrci "csrrci" CsrImm i(7, 0x73), System;
    // M
    Mul "mul" R r(0x01, 0, 0x33), Mul;
    Mulh "mulh" R r(0x01, 1, 0x33), Mul;
    Mulhsu "mulhsu" R r(0x01, 2, 0x33), Mul;
    Mulhu "mulhu" R r(0x01, 3, 0x33), Mul;
    Div "div" R r(0x01, 4, 0x33), Div;
    Divu "divu" R r(0x01, 5, 0x33), Div;
    Rem "rem" R r(0x01, 6, 0x33), Div;
    Remu "remu" R r(0x01, 7, 0x33), Div;
    Mulw "mulw" R r(0x01, 0, 0x3b), Mul;
    Divw "divw" R r(0x01, 4, 0x3b), Div;
    Divuw "divuw" R r(0x01, 5, 0x3b), Div;
    Remw "remw" R r(0x01, 6, 0x3b), Div;
    Remuw "remuw" R r(0x01, 7, 0x3b), Div;
    // A
    LrW "lr.w" Lr lr(2), Amo;
    ScW "sc.w" Amo amo(0x03, 2), Amo;
    AmoswapW "amoswap.w" Amo amo(0x01, 2), Amo;
    AmoaddW "amoadd.w" Amo amo(0x00, 2), Amo;
    AmoxorW "amoxor.w" Amo amo(0x04, 2), Amo;
    AmoandW "amoand.w" Amo amo(0x0c, 2), Amo;
    AmoorW "amoor.w" Amo amo(0x08, 2), Amo;
    AmominW "amomin.w" Amo amo(0x10, 2), Amo;
    AmomaxW "amomax.w" Amo amo(0x14, 2), Amo;
    AmominuW "amominu.w" Amo amo(0x18, 2), Amo;
    AmomaxuW "amomaxu.w" Amo amo(0x1c, 2), Amo;
    LrD "lr.d" Lr lr(3), Amo;
    ScD "sc.d" Amo amo(0x03, 3), Amo;
    AmoswapD "amoswap.d" Amo amo(0x01, 3), Amo;
    AmoaddD "amoadd.d" Amo amo(0x00, 3), Amo;
    AmoxorD "amoxor.d" Amo amo(0x04, 3), Amo;
    AmoandD "amoand.d" Amo amo(0x0c, 3), Amo;
    AmoorD "amoor.d" Amo amo(0x08, 3), Amo;
    AmominD "amomin.d" Amo amo(0x10, 3), Amo;
    AmomaxD "amomax.d" Amo amo(0x14, 3), Amo;
    AmominuD "amominu.d" Amo amo(0x18, 3), Amo;
    AmomaxuD "amomaxu.d" Amo amo(0x1c, 3), Amo;
    // F
    Flw "flw" FLoad i(2, 0x07), Load;
    Fsw "fsw" FStore i(2, 0x27), Store;
    FmaddS "fmadd.s" F4 f4(0, 0x43), FpFma;
    FmsubS "fmsub.s" F4 f4(0, 0x47), FpFma;
    FnmsubS "fnmsub.s" F4 f4(0, 0x4b), FpFma;
    FnmaddS "fnmadd.s" F4 f4(0, 0x4f), FpFma;
    FaddS "fadd.s" F3 fr(0x00), FpAdd;
    FsubS "fsub.s" F3 fr(0x04), FpAdd;
    FmulS "fmul.s" F3 fr(0x08), FpMul;
    FdivS "fdiv.s" F3 fr(0x0c), FpDiv;
    FsqrtS "fsqrt.s" F2 fu(0x2c, 0), FpSqrt;
    FsgnjS "fsgnj.s" F3Exact r(0x10, 0, 0x53), FpMove;
    FsgnjnS "fsgnjn.s" F3Exact r(0x10, 1, 0x53), FpMove;
    FsgnjxS "fsgnjx.s" F3Exact r(0x10, 2, 0x53), FpMove;
    FminS "fmin.s" F3Exact r(0x14, 0, 0x53), FpAdd;
    FmaxS "fmax.s" F3Exact r(0x14, 1, 0x53), FpAdd;
    FcvtWS "fcvt.w.s" FToInt fu(0x60, 0), FpConvert;
    FcvtWuS "fcvt.wu.s" FToInt fu(0x60, 1), FpConvert;
    FcvtLS "fcvt.l.s" FToInt fu(0x60, 2), FpConvert;
    FcvtLuS "fcvt.lu.s" FToInt fu(0x60, 3), FpConvert;
    FmvXW "fmv.x.w" FMoveToInt fx(0x70, 0, 0), FpMove;
    FclassS "fclass.s" FMoveToInt fx(0x70, 0, 1), FpMove;
    FeqS "feq.s" FCompare r(0x50, 2, 0x53), FpAdd;
    FltS "flt.s" FCompare r(0x50, 1, 0x53), FpAdd;
    FleS "fle.s" FCompare r(0x50, 0, 0x53), FpAdd;
    FcvtSW "fcvt.s.w" IntToF fu(0x68, 0), FpConvert;
    FcvtSWu "fcvt.s.wu" IntToF fu(0x68, 1), FpConvert;
    FcvtSL "fcvt.s.l" IntToF fu(0x68, 2), FpConvert;
    FcvtSLu "fcvt.s.lu" IntToF fu(0x68, 3), FpConvert;
    FmvWX "fmv.w.x" MoveToF fx(0x78, 0, 0), FpMove;
    // D
    Fld "fld" FLoad i(3, 0x07), Load;
    Fsd "fsd" FStore i(3, 0x27), Store;
    FmaddD "fmadd.d" F4 f4(1, 0x43), FpFma;
    FmsubD "fmsub.d" F4 f4(1, 0x47), FpFma;
    FnmsubD "fnmsub.d" F4 f4(1, 0x4b), FpFma;
    FnmaddD "fnmadd.d" F4 f4(1, 0x4f), FpFma;
    FaddD "fadd.d" F3 fr(0x01), FpAdd;
    FsubD "fsub.d" F3 fr(0x05), FpAdd;
    FmulD "fmul.d" F3 fr(0x09), FpMul;
    FdivD "fdiv.d" F3 fr(0x0d), FpDiv;
    FsqrtD "fsqrt.d" F2 fu(0x2d, 0), FpSqrt;
    FsgnjD "fsgnj.d" F3Exact r(0x11, 0, 0x53), FpMove;
    FsgnjnD "fsgnjn.d" F3Exact r(0x11, 1, 0x53), FpMove;
    FsgnjxD "fsgnjx.d" F3Exact r(0x11, 2, 0x53), FpMove;
    FminD "fmin.d" F3Exact r(0x15, 0, 0x53), FpAdd;
    FmaxD "fmax.d" F3Exact r(0x15, 1, 0x53), FpAdd;
    FcvtSD "fcvt.s.d" F2 fu(0x20, 1), FpConvert;
    FcvtDS "fcvt.d.s" F2 fu(0x21, 0), FpConvert;
    FeqD "feq.d" FCompare r(0x51, 2, 0x53), FpAdd;
    FltD "flt.d" FCompare r(0x51, 1, 0x53), FpAdd;
    FleD "fle.d" FCompare r(0x51, 0, 0x53), FpAdd;
    FclassD "fclass.d" FMoveToInt fx(0x71, 0, 1), FpMove;
    FcvtWD "fcvt.w.d" FToInt fu(0x61, 0), FpConvert;
    FcvtWuD "fcvt.wu.d" FToInt fu(0x61, 1), FpConvert;
    FcvtLD "fcvt.l.d" FToInt fu(0x61, 2), FpConvert;
    FcvtLuD "fcvt.lu.d" FToInt fu(0x61, 3), FpConvert;
    FcvtDW "fcvt.d.w" IntToF fu(0x69, 0), FpConvert;
    FcvtDWu "fcvt.d.wu" IntToF fu(0x69, 1), FpConvert;
    FcvtDL "fcvt.d.l" IntToF fu(0x69, 2), FpConvert;
    FcvtDLu "fcvt.d.lu" IntToF fu(0x69, 3), FpConvert;
    FmvXD "fmv.x.d" FMoveToInt fx(0x71, 0, 0), FpMove;
    FmvDX "fmv.d.x" MoveToF fx(0x79, 0, 0), FpMove;
    // Zba
    AddUw "add.uw" R r(0x04, 0, 0x3b), Alu;
    Sh1add "sh1add" R r(0x10, 2, 0x33), Alu;
    Sh2add "sh2add" R r(0x10, 4, 0x33), Alu;
    Sh3add "sh3add" R r(0x10, 6, 0x33), Alu;
    Sh1addUw "sh1add.uw" R r(0x10, 2, 0x3b), Alu;
    Sh2addUw "sh2add.uw" R r(0x10, 4, 0x3b), Alu;
    Sh3addUw "sh3add.uw" R r(0x10, 6, 0x3b), Alu;
    SlliUw "slli.uw" Shift6 sh6(0x02, 1, 0x1b), Alu;
    // Zbb
    Andn "andn" R r(0x20, 7, 0x33), Alu;
    Orn "orn" R r(0x20, 6, 0x33), Alu;
    Xnor "xnor" R r(0x20, 4, 0x33), Alu;
    Clz "clz" Unary u1(0x600, 1, 0x13), Alu;
    Ctz "ctz" Unary u1(0x601, 1, 0x13), Alu;
    Cpop "cpop" Unary u1(0x602, 1, 0x13), Alu;
    SextB "sext.b" Unary u1(0x604, 1, 0x13), Alu;
    SextH "sext.h" Unary u1(0x605, 1, 0x13), Alu;
    Clzw "clzw" Unary u1(0x600, 1, 0x1b), Alu;
    Ctzw "ctzw" Unary u1(0x601, 1, 0x1b), Alu;
    Cpopw "cpopw" Unary u1(0x602, 1, 0x1b), Alu;
    ZextH "zext.h" Unary u1(0x080, 4, 0x3b), Alu;
    Max "max" R r(0x05, 6, 0x33), Alu;
    Maxu "maxu" R r(0x05, 7, 0x33), Alu;
    Min "min" R r(0x05, 4, 0x33), Alu;
    Minu "minu" R r(0x05, 5, 0x33), Alu;
    Rol "rol" R r(0x30, 1, 0x33), Alu;
    Ror "ror" R r(0x30, 5, 0x33), Alu;
    Rori "rori" Shift6 sh6(0x18, 5, 0x13), Alu;
    Rolw "rolw" R r(0x30, 1, 0x3b), Alu;
    Rorw "rorw" R r(0x30, 5, 0x3b), Alu;
    Roriw "roriw" Shift5 r(0x30, 5, 0x1b), Alu;
    OrcB "orc.b" Unary u1(0x287, 5, 0x13), Alu;
    Rev8 "rev8" Unary u1(0x6b8, 5, 0x13), Alu;
    // Zbs
    Bclr "bclr" R r(0x24, 1, 0x33), Alu;
    Bclri "bclri" Shift6 sh6(0x12, 1, 0x13), Alu;
    Bext "bext" R r(0x24, 5, 0x33), Alu;
    Bexti "bexti" Shift6 sh6(0x12, 5, 0x13), Alu;
    Binv "binv" R r(0x34, 1, 0x33), Alu;
    Binvi "binvi" Shift6 sh6(0x1a, 1, 0x13), Alu;
    Bset "bset" R r(0x14, 1, 0x33), Alu;
    Bseti "bseti" Shift6 sh6(0x0a, 1, 0x13), Alu;
}

impl Op {
    /// The instruction's row.
    #[must_use]
    pub fn row(self) -> &'static Row {
        &ROWS[self as usize]
    }

    /// Kind of work.
    #[must_use]
    pub fn class(self) -> Class {
        self.row().class
    }

    /// The row with this mnemonic.
    #[must_use]
    pub fn from_mnemonic(name: &str) -> Option<Op> {
        ROWS.iter().find(|row| row.mnemonic == name).map(|row| row.op)
    }
}
