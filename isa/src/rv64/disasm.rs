//! Assembly text of decoded instructions, from the table's mnemonics and formats.

use super::{Format, Inst, csr};
use core::fmt;

const INT: [&str; 32] = [
    "zero", "ra", "sp", "gp", "tp", "t0", "t1", "t2", "s0", "s1", "a0", "a1", "a2", "a3", "a4", "a5", "a6",
    "a7", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9", "s10", "s11", "t3", "t4", "t5", "t6",
];
const FP: [&str; 32] = [
    "ft0", "ft1", "ft2", "ft3", "ft4", "ft5", "ft6", "ft7", "fs0", "fs1", "fa0", "fa1", "fa2", "fa3", "fa4",
    "fa5", "fa6", "fa7", "fs2", "fs3", "fs4", "fs5", "fs6", "fs7", "fs8", "fs9", "fs10", "fs11", "ft8",
    "ft9", "ft10", "ft11",
];
const ROUNDING: [&str; 8] = ["rne", "rtz", "rdn", "rup", "rmm", "rm5", "rm6", "dyn"];

struct CsrName(i32);

impl fmt::Display for CsrName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match u16::try_from(self.0).ok().and_then(csr::lookup) {
            Some((row, _)) if row.count == 1 => f.write_str(row.name),
            Some((row, index)) => {
                // Counters are numbered from 3, after cycle, time and instret; trigger data from 1.
                let first = match row.count {
                    29 => 3,
                    3 => 1,
                    _ => 0,
                };
                write!(f, "{}{}", row.name, first + index)
            }
            None => write!(f, "{:#x}", self.0),
        }
    }
}

impl fmt::Display for Inst {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = self.op.row();
        let x = |r: u8| INT[usize::from(r & 31)];
        let v = |r: u8| FP[usize::from(r & 31)];
        let (d, a, b, imm) = (self.rd, self.rs1, self.rs2, self.imm);
        let rm = ROUNDING[usize::from(self.rm & 7)];
        f.write_str(row.mnemonic)?;
        if row.format != Format::None && row.format != Format::Fence {
            f.write_str(" ")?;
        }
        match row.format {
            Format::None | Format::Fence => Ok(()),
            Format::R => write!(f, "{}, {}, {}", x(d), x(a), x(b)),
            Format::Unary => write!(f, "{}, {}", x(d), x(a)),
            Format::I | Format::Shift6 | Format::Shift5 => write!(f, "{}, {}, {imm}", x(d), x(a)),
            Format::Load | Format::Jalr => write!(f, "{}, {imm}({})", x(d), x(a)),
            Format::S => write!(f, "{}, {imm}({})", x(b), x(a)),
            Format::B => write!(f, "{}, {}, pc{imm:+}", x(a), x(b)),
            Format::U => write!(f, "{}, {:#x}", x(d), imm >> 12 & 0xf_ffff),
            Format::J => write!(f, "{}, pc{imm:+}", x(d)),
            Format::Csr => write!(f, "{}, {}, {}", x(d), CsrName(imm), x(a)),
            Format::CsrImm => write!(f, "{}, {}, {a}", x(d), CsrName(imm)),
            Format::Lr => write!(f, "{}, ({})", x(d), x(a)),
            Format::Amo => write!(f, "{}, {}, ({})", x(d), x(b), x(a)),
            Format::FLoad => write!(f, "{}, {imm}({})", v(d), x(a)),
            Format::FStore => write!(f, "{}, {imm}({})", v(b), x(a)),
            Format::F4 => write!(f, "{}, {}, {}, {}, {rm}", v(d), v(a), v(b), v(self.rs3)),
            Format::F3 => write!(f, "{}, {}, {}, {rm}", v(d), v(a), v(b)),
            Format::F3Exact => write!(f, "{}, {}, {}", v(d), v(a), v(b)),
            Format::F2 => write!(f, "{}, {}, {rm}", v(d), v(a)),
            Format::FCompare => write!(f, "{}, {}, {}", x(d), v(a), v(b)),
            Format::FToInt => write!(f, "{}, {}, {rm}", x(d), v(a)),
            Format::FMoveToInt => write!(f, "{}, {}", x(d), v(a)),
            Format::IntToF => write!(f, "{}, {}, {rm}", v(d), x(a)),
            Format::MoveToF => write!(f, "{}, {}", v(d), x(a)),
        }
    }
}
