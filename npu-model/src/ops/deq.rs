//! DEQ: codes times their scales.
//!
//! Shapes: x and d rows x cols; scales y by `bc`: 0 one for every imm (u32, not 0) columns of a row, the last group
//!   may be short, rows `yst` granules apart (0 = packed); 1 one a column; 2 one a row (rows of one element at
//!   stride `yst`, 0 = consecutive); 3 imm as fp32. Microscaling codes (mxfp4, mxfp8) take bc = 0 and imm = 32, their
//!   scales are e8m0 bytes.
//! Formats: x any integer format, fp8, mxfp4 or mxfp8; y fp16, bf16 or fp32; d fp16, bf16 or fp32.
//! Arithmetic: d = code scale; e8m0 code 255 makes its group NaN.
//! Bound: one pass.

use isa::npu::Format;

use super::cost::Cost;
use super::mxq;
use super::operand::Rows;
use super::vector::{FLOATS, Request, Work};
use crate::config::NpuConfig;
use crate::fault::Fault;
use crate::local::Local;

const CODES: &[Format] = &[
    Format::Int2,
    Format::Int4,
    Format::Uint4,
    Format::Int8,
    Format::Uint8,
    Format::Int16,
    Format::Int32,
    Format::Fp8E4m3,
    Format::Fp8E5m2,
    Format::Mxfp4,
    Format::Mxfp8,
];

#[derive(Clone, Copy, Debug)]
enum Scales {
    Group(Rows, usize),
    Micro(Rows),
    Column(Rows),
    Row(Rows),
    Immediate(f32),
}

/// A checked command.
pub(super) struct Plan {
    x: Rows,
    scales: Scales,
    d: Rows,
}

impl Plan {
    pub fn new(r: &Request<'_>) -> Result<Self, Fault> {
        let x = r.x(CODES)?;
        let b = r.body;
        let micro = matches!(x.format, Format::Mxfp4 | Format::Mxfp8);
        if micro && (b.bc, b.imm) != (0, mxq::BLOCK as u64) {
            return Err(Fault::operand(b.imm, "imm: microscaling codes have a scale for every 32 (bc = 0)"));
        }
        let scales = match b.bc {
            0 if b.imm == 0 => return Err(Fault::operand(0, "imm: a group has at least one column")),
            0 if micro => {
                let blocks = r.cols.div_ceil(mxq::BLOCK as u64);
                Scales::Micro(r.y_shaped(Format::Int8, r.rows, blocks, b.yst)?)
            }
            0 => {
                let groups = r.cols.div_ceil(b.imm);
                Scales::Group(r.y(FLOATS, r.rows, groups, b.yst)?, b.imm as usize)
            }
            1 => Scales::Column(r.y(FLOATS, 1, r.cols, 0)?),
            2 => Scales::Row(r.y(FLOATS, r.rows, 1, b.yst)?),
            3 => Scales::Immediate(r.imm()),
            4 => return Err(Fault::not_in_cap(4, "bc: there are no scalar registers")),
            code => return Err(Fault::command(code, "bc")),
        };
        Ok(Self { x, scales, d: r.d(FLOATS)? })
    }

    pub fn run(&self, local: &mut Local) -> Result<(), Fault> {
        let mut x = local.rows.take(self.x.cols);
        let mut s = local.rows.take(self.x.cols);
        for row in 0..self.x.rows {
            match self.scales {
                Scales::Column(y) => y.read(local, 0, &mut s)?,
                Scales::Group(y, group) => {
                    let n = y.cols;
                    y.read(local, row, &mut s[..n])?;
                    // From the back, so that no scale is overwritten before it is spread.
                    for j in (0..self.x.cols).rev() {
                        s[j] = s[j / group];
                    }
                }
                Scales::Row(y) => {
                    let mut one = [0.0];
                    y.read(local, row, &mut one)?;
                    s.fill(one[0]);
                }
                Scales::Immediate(v) => s.fill(v),
                Scales::Micro(y) => {
                    let codes = y.raw(local, row)?;
                    s.chunks_mut(mxq::BLOCK).zip(codes).for_each(|(s, c)| s.fill(mxq::from_e8m0(*c)));
                }
            }
            if let Scales::Micro(_) = self.scales {
                mxq::decode_row(self.x.format, self.x.raw(local, row)?, &mut x);
            } else {
                self.x.read(local, row, &mut x)?;
            }
            x.iter_mut().zip(&s).for_each(|(x, s)| *x *= s);
            self.d.write(local, row, &x)?;
        }
        local.rows.give([x, s]);
        Ok(())
    }

    pub fn cost(&self, cfg: &NpuConfig) -> Cost {
        let mut cost = Work::elements(&self.x, 1).cost(cfg);
        cost.read(self.x.space, self.x.bytes());
        match self.scales {
            Scales::Group(y, _) | Scales::Micro(y) | Scales::Column(y) | Scales::Row(y) => {
                cost.read(y.space, y.bytes());
            }
            Scales::Immediate(_) => {}
        }
        cost.write(self.d.space, self.d.bytes());
        cost
    }
}
