//! Element-wise functions: CVT, ADD, SUB, MUL, DIV, MAX, MIN, FMA, ABS, NEG, CLAMP, CMP, SELECT, RELU, GELU_T,
//! GELU_E, SILU, SIGMOID, TANH, EXP, LOG, RSQRT, RECIP, SWIGLU, GEGLU, REGLU, SOFTCAP, DSILU, DGELU.
//!
//! Shapes: x and d rows x cols; y by `bc`: 0 rows x cols, 1 one row, 2 one value a row (rows of one element at
//!   stride `yst`, 0 = consecutive), 3 the immediate as fp32. Functions of x alone ignore y and `bc`.
//!   CLAMP's limits are a row of two, low and high (bc = 1), or imm as two bf16, low in bits 15:0 (bc = 3).
//! Formats: x, y, d fp16, bf16 or fp32; CVT also reads int8 and int32.
//! Arithmetic: sources to fp32, each operation fp32 and rounded once, the result to d's format (overflow to
//!   infinity). MAX is y if y > x else x, MIN y if y < x else x. FMA d + (x y), two roundings, d read first.
//!   ABS and NEG change the sign bit. CLAMP MIN(MAX(x, low), high). CMP 1 or 0; relation by mask: 0 x = y, 1 x < y,
//!   2 x <= y, 3 x not equal to y. SELECT x where d is not 0, else y. RELU x if x > 0 else 0.
//!   Special functions as `approx.rs` defines them, by `acc`. DIV x / y, or x times the approximate inverse.
//!   SWIGLU silu(x) y, REGLU relu(x) y, GEGLU gelu(x) y, in GELU's tanh form, with bc not 3 and imm = 1 its erf form.
//!   SOFTCAP imm tanh(x / imm). With s = sigmoid(x): DSILU y (s (1 + x (1 - s))). DGELU, by imm: 0 the tanh form's,
//!   t = tanh(u): y (0.5 (1 + t) + ((0.5 x) (1 - t t)) (0.7978846 (1 + 0.134145 (x x)))); 1 the erf form's:
//!   y (0.5 (1 + erf(x / sqrt 2)) + x (0.3989423 e^(-0.5 (x x)))).
//!   setp = 1: the predicate becomes whether any result, before it is rounded to d's format, is not 0.
//! Bound: one pass of the lanes for each operation in sequence, or the scratchpad's ports.

use isa::npu::Format;

use super::approx::{self, Accuracy, Special};
use super::cost::Cost;
use super::number;
use super::operand::Rows;
use super::vector::{FLOATS, Request, Takes, Work};
use crate::config::NpuConfig;
use crate::fault::Fault;
use crate::local::Local;

/// Function of one, two or three elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Convert,
    Add,
    Sub,
    Mul,
    Div,
    Max,
    Min,
    Fma,
    Abs,
    Neg,
    Clamp,
    Cmp,
    Select,
    Relu,
    Special(Special),
    Swiglu,
    Geglu,
    Reglu,
    Softcap,
    Dsilu,
    Dgelu,
}

impl Op {
    const fn special(self, erf: bool) -> Option<Special> {
        match self {
            Self::Special(s) => Some(s),
            Self::Div => Some(Special::Recip),
            Self::Swiglu => Some(Special::Silu),
            Self::Geglu if erf => Some(Special::GeluE),
            Self::Geglu => Some(Special::GeluT),
            Self::Softcap => Some(Special::Tanh),
            _ => None,
        }
    }

    pub const fn takes(self) -> Takes {
        Takes {
            accuracy: self.special(false).is_some(),
            mask: matches!(self, Self::Cmp),
            predicate: true,
            ..Takes::NONE
        }
    }

    /// Whether there is a second source.
    const fn binary(self) -> bool {
        match self {
            Self::Add
            | Self::Sub
            | Self::Mul
            | Self::Div
            | Self::Max
            | Self::Min
            | Self::Fma
            | Self::Cmp
            | Self::Select
            | Self::Swiglu
            | Self::Geglu
            | Self::Reglu
            | Self::Dsilu
            | Self::Dgelu => true,
            Self::Convert
            | Self::Abs
            | Self::Neg
            | Self::Clamp
            | Self::Relu
            | Self::Special(_)
            | Self::Softcap => false,
        }
    }

    /// Whether the destination is read too.
    const fn reads_destination(self) -> bool {
        matches!(self, Self::Fma | Self::Select)
    }

    /// Passes beyond those of the special function, and special operations it has of its own.
    const fn passes(self) -> (u64, u64) {
        match self {
            Self::Special(_) => (0, 0),
            Self::Convert
            | Self::Add
            | Self::Sub
            | Self::Mul
            | Self::Max
            | Self::Min
            | Self::Abs
            | Self::Neg
            | Self::Cmp
            | Self::Select
            | Self::Relu
            | Self::Swiglu
            | Self::Geglu => (1, 0),
            // Invert; then the product.
            Self::Div => (1, 0),
            Self::Fma | Self::Clamp | Self::Reglu => (2, 0),
            // Divide by the cap; times the cap.
            Self::Softcap => (2, 1),
            // Negate, exponentiate; add, invert; then subtract, multiply, add, multiply, multiply.
            Self::Dsilu => (7, 2),
            // Argument 5, tanh 4, derivative's terms 8, product.
            Self::Dgelu => (18, 2),
        }
    }
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
    accuracy: Accuracy,
    /// The erf form of GELU.
    erf: bool,
    relation: u64,
    /// SOFTCAP's cap.
    imm: f32,
    /// CLAMP's limits where imm holds them.
    limits: [f32; 2],
    sets_predicate: bool,
}

fn second(r: &Request<'_>, op: Op) -> Result<Second, Fault> {
    Ok(match (op, r.body.bc) {
        (Op::Clamp, 1) => Second::RowVector(r.y(FLOATS, 1, 2, 0)?),
        (Op::Clamp, 3) => Second::None,
        (Op::Clamp, code) => {
            return Err(Fault::operand(code, "bc: the limits are a row of two (1) or in imm (3)"));
        }
        _ if !op.binary() => Second::None,
        (_, 0) => Second::Matrix(r.y(FLOATS, r.rows, r.cols, r.body.yst)?),
        (_, 1) => Second::RowVector(r.y(FLOATS, 1, r.cols, 0)?),
        (_, 2) => Second::ColumnVector(r.y(FLOATS, r.rows, 1, r.body.yst)?),
        (_, 3) if op == Op::Dgelu => {
            return Err(Fault::operand(3, "bc: imm selects the form of GELU here"));
        }
        (_, 3) => Second::Immediate(r.imm()),
        (_, 4) => return Err(Fault::not_in_cap(4, "bc: there are no scalar registers")),
        (_, code) => return Err(Fault::command(code, "bc")),
    })
}

impl Plan {
    pub fn new(r: &Request<'_>, op: Op) -> Result<Self, Fault> {
        let x = match op {
            Op::Convert => r.x(&[Format::Int8, Format::Int32, Format::Fp16, Format::Bf16, Format::Fp32])?,
            _ => r.x(FLOATS)?,
        };
        let y = second(r, op)?;
        let imm = r.body.imm;
        let formed = op == Op::Dgelu || (op == Op::Geglu && r.body.bc != 3);
        if formed && imm > 1 {
            return Err(Fault::operand(imm, "imm: 0 is GELU's tanh form, 1 its erf form"));
        }
        let half = |bits: u64| f32::from_bits((bits as u32) << 16);
        Ok(Self {
            op,
            x,
            y,
            d: r.d(FLOATS)?,
            accuracy: r.accuracy(),
            erf: formed && imm == 1,
            relation: r.body.mask,
            imm: r.imm(),
            limits: [half(imm & 0xFFFF), half(imm >> 16)],
            sets_predicate: r.body.setp == 1,
        })
    }

    pub fn run(&self, local: &mut Local) -> Result<(), Fault> {
        let mut x = local.rows.take(self.x.cols);
        let mut y = local.rows.take(self.x.cols);
        let mut old = local.rows.take(if self.op.reads_destination() { self.x.cols } else { 0 });
        let mut limits = self.limits;
        match self.y {
            Second::RowVector(v) if self.op == Op::Clamp => v.read(local, 0, &mut limits)?,
            Second::RowVector(v) => v.read(local, 0, &mut y)?,
            Second::Immediate(v) => y.fill(v),
            Second::None | Second::Matrix(_) | Second::ColumnVector(_) => {}
        }
        let mut any = false;
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
            if self.op.reads_destination() {
                self.d.read(local, row, &mut old)?;
            }
            self.apply(&mut x, &y, &old, limits);
            self.d.write(local, row, &x)?;
            any |= self.sets_predicate && x.iter().any(|v| *v != 0.0);
        }
        if self.sets_predicate {
            local.predicate = any;
        }
        local.rows.give([x, y, old]);
        Ok(())
    }

    fn apply(&self, x: &mut [f32], y: &[f32], old: &[f32], [low, high]: [f32; 2]) {
        let a = self.accuracy;
        let gelu = if self.erf { Special::GeluE } else { Special::GeluT };
        let each = |x: &mut [f32], f: &dyn Fn(f32) -> f32| x.iter_mut().for_each(|x| *x = f(*x));
        match self.op {
            Op::Fma => x.iter_mut().zip(y).zip(old).for_each(|((x, y), d)| *x = d + *x * y),
            Op::Select => {
                for ((x, y), d) in x.iter_mut().zip(y).zip(old) {
                    *x = if *d == 0.0 { *y } else { *x };
                }
            }
            Op::Special(s) => x.iter_mut().for_each(|x| *x = s.eval(a, *x)),
            Op::Convert => {}
            Op::Abs => each(x, &f32::abs),
            Op::Neg => each(x, &|x| -x),
            Op::Clamp => each(x, &|x| number::min(number::max(x, low), high)),
            Op::Relu => each(x, &relu),
            Op::Softcap => each(x, &|x| self.imm * Special::Tanh.eval(a, x / self.imm)),
            Op::Add => pairs(x, y, |x, y| x + y),
            Op::Sub => pairs(x, y, |x, y| x - y),
            Op::Mul => pairs(x, y, |x, y| x * y),
            Op::Div if a == Accuracy::Exact => pairs(x, y, |x, y| x / y),
            Op::Div => pairs(x, y, |x, y| x * Special::Recip.eval(a, y)),
            Op::Max => pairs(x, y, number::max),
            Op::Min => pairs(x, y, number::min),
            Op::Cmp => pairs(x, y, |x, y| f32::from(u8::from(related(self.relation, x, y)))),
            Op::Swiglu => pairs(x, y, |x, y| Special::Silu.eval(a, x) * y),
            Op::Geglu => pairs(x, y, |x, y| gelu.eval(a, x) * y),
            Op::Reglu => pairs(x, y, |x, y| relu(x) * y),
            Op::Dsilu => pairs(x, y, |x, y| {
                let s = Special::Sigmoid.eval(a, x);
                y * (s * (1.0 + x * (1.0 - s)))
            }),
            Op::Dgelu if self.erf => pairs(x, y, |x, y| y * approx::gelu_erf_slope(x)),
            Op::Dgelu => pairs(x, y, |x, y| y * approx::gelu_tanh_slope(x)),
        }
    }

    pub fn cost(&self, cfg: &NpuConfig) -> Cost {
        let (passes, special) = self.op.passes();
        let charge = self.op.special(self.erf).map(|s| s.charge(self.accuracy)).unwrap_or_default();
        let mut work = Work::elements(&self.x, passes).special(charge, 1);
        work.special_ops += special * (self.x.rows * self.x.cols) as u64;
        let mut cost = work.cost(cfg);
        cost.vector_ops += charge.lookups * (self.x.rows * self.x.cols) as u64;
        cost.read(self.x.space, self.x.bytes());
        if let Second::Matrix(y) | Second::RowVector(y) | Second::ColumnVector(y) = self.y {
            cost.read(y.space, y.bytes());
        }
        if self.op.reads_destination() {
            cost.read(self.d.space, self.d.bytes());
        }
        cost.write(self.d.space, self.d.bytes());
        cost
    }
}

#[inline]
fn pairs(x: &mut [f32], y: &[f32], f: impl Fn(f32, f32) -> f32) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x = f(*x, *y));
}

/// `x` if it is positive, else 0.
fn relu(x: f32) -> f32 {
    if x > 0.0 { x } else { 0.0 }
}

/// Whether x and y stand in the relation CMP's mask field names; a NaN is unequal to everything and not ordered.
fn related(relation: u64, x: f32, y: f32) -> bool {
    match relation {
        0 => x == y,
        1 => x < y,
        2 => x <= y,
        _ => x != y,
    }
}
