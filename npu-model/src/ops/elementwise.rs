//! Conversion and element-wise functions: CVT, ADD, SUB, MUL, MAX, MIN, SILU, SWIGLU.
//!
//! Shapes: x and d rows x cols; y by `bc`: 0 rows x cols, 1 one row, 2 one value a row (rows of one element at
//!   stride `yst`, 0 = consecutive), 3 the immediate as fp32. CVT and SILU ignore y, `bc` and imm.
//! Formats: x, y, d fp16, bf16 or fp32; CVT also reads int8 and int32.
//! Arithmetic: both sources to fp32, one fp32 operation, round to d's format (overflow to infinity).
//!   MAX is y if y > x else x, MIN y if y < x else x. SILU x / (1 + e^-x); SWIGLU silu(x) y.
//! Bound: one pass of the lanes, or the scratchpad's ports; SILU three passes (negate and exponentiate; add one
//!   and invert; multiply), SWIGLU four.

use isa::npu::Format;

use super::cost::Cost;
use super::number;
use super::operand::Rows;
use super::vector::{FLOATS, Request, Work};
use crate::config::NpuConfig;
use crate::fault::Fault;
use crate::local::Local;

/// Function of one or two elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Convert,
    Add,
    Sub,
    Mul,
    Max,
    Min,
    Silu,
    Swiglu,
}

#[derive(Clone, Copy, Debug)]
enum Second {
    None,
    Matrix(Rows),
    RowVector(Rows),
    ColumnVector(Rows),
    Immediate(f32),
}

/// A checked command.
pub(super) struct Plan {
    op: Op,
    x: Rows,
    y: Second,
    d: Rows,
}

impl Plan {
    pub fn new(r: &Request<'_>, op: Op) -> Result<Self, Fault> {
        let x = match op {
            Op::Convert => r.x(&[Format::Int8, Format::Int32, Format::Fp16, Format::Bf16, Format::Fp32])?,
            _ => r.x(FLOATS)?,
        };
        let y = match (op, r.body.bc) {
            (Op::Convert | Op::Silu, _) => Second::None,
            (_, 0) => Second::Matrix(r.y(FLOATS, r.rows, r.cols, r.body.yst)?),
            (_, 1) => Second::RowVector(r.y(FLOATS, 1, r.cols, 0)?),
            (_, 2) => Second::ColumnVector(r.y(FLOATS, r.rows, 1, r.body.yst)?),
            (_, 3) => Second::Immediate(r.imm()),
            (_, 4) => return Err(Fault::not_in_cap(4, "bc: there are no scalar registers")),
            (_, code) => return Err(Fault::command(code, "bc")),
        };
        Ok(Self { op, x, y, d: r.d(FLOATS)? })
    }

    pub fn run(&self, local: &mut Local) -> Result<(), Fault> {
        let mut x = vec![0.0; self.x.cols];
        let mut y = vec![0.0; self.x.cols];
        match self.y {
            Second::RowVector(v) => v.read(local, 0, &mut y)?,
            Second::Immediate(v) => y.fill(v),
            Second::None | Second::Matrix(_) | Second::ColumnVector(_) => {}
        }
        for row in 0..self.x.rows {
            self.x.read(local, row, &mut x)?;
            match self.y {
                Second::Matrix(m) => m.read(local, row, &mut y)?,
                Second::ColumnVector(v) => {
                    let mut one = [0.0];
                    v.read(local, row, &mut one)?;
                    y.fill(one[0]);
                }
                Second::None | Second::RowVector(_) | Second::Immediate(_) => {}
            }
            self.apply(&mut x, &y);
            self.d.write(local, row, &x)?;
        }
        Ok(())
    }

    fn apply(&self, x: &mut [f32], y: &[f32]) {
        let pairs = x.iter_mut().zip(y);
        match self.op {
            Op::Convert => {}
            Op::Add => pairs.for_each(|(x, y)| *x += y),
            Op::Sub => pairs.for_each(|(x, y)| *x -= y),
            Op::Mul => pairs.for_each(|(x, y)| *x *= y),
            Op::Max => pairs.for_each(|(x, y)| *x = number::max(*x, *y)),
            Op::Min => pairs.for_each(|(x, y)| *x = number::min(*x, *y)),
            Op::Silu => pairs.for_each(|(x, _)| *x = number::silu(*x)),
            Op::Swiglu => pairs.for_each(|(x, y)| *x = number::silu(*x) * y),
        }
    }

    pub fn cost(&self, cfg: &NpuConfig) -> Cost {
        let elements = (self.x.rows * self.x.cols) as u64;
        let (passes, special) = match self.op {
            Op::Convert | Op::Add | Op::Sub | Op::Mul | Op::Max | Op::Min => (1, 0),
            Op::Silu => (3, 2),
            Op::Swiglu => (4, 2),
        };
        let mut cost = Work {
            rows: self.x.rows,
            cols: self.x.cols,
            passes,
            row_passes: 0,
            special_ops: special * elements,
            reduces: false,
        }
        .cost(cfg);
        cost.read(self.x.space, self.x.bytes());
        if let Second::Matrix(y) | Second::RowVector(y) | Second::ColumnVector(y) = self.y {
            cost.read(y.space, y.bytes());
        }
        cost.write(self.d.space, self.d.bytes());
        cost
    }
}
