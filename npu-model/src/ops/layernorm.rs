//! LAYERNORM: each row less its mean, over its standard deviation, times a row vector, plus another.
//!
//! Shapes: x and d rows x cols; y fp32: with bc = 0 two rows of cols, gain then bias, `yst` granules apart
//!   (0 = packed); with bc = 1 one row, the gain, and no bias. imm = epsilon (fp32). With stat = 1 `alpha` of the
//!   position extension receives a pair (mean, r) a row, fp32, consecutive in SPM.
//! Formats: x and d fp16, bf16 or fp32.
//! Arithmetic: mean = (sum of x ascending) / cols; t = x - mean; r = 1 / sqrt((sum of t^2 ascending) / cols + imm),
//!   the inverse root by `acc`; d = (t r) gain [+ bias].
//! Bound: five passes, six with bias (sum; subtract; square and accumulate; times r; times gain; plus
//!   bias); per row two divisions, an add with root, an inverse.

use isa::npu::Format;

use super::approx::{Accuracy, Special};
use super::cost::Cost;
use super::operand::Rows;
use super::vector::{FLOATS, Request, Work};
use crate::config::NpuConfig;
use crate::fault::Fault;
use crate::local::Local;

/// A checked command.
pub(super) struct Plan {
    x: Rows,
    y: Rows,
    d: Rows,
    statistics: Option<Rows>,
    epsilon: f32,
    accuracy: Accuracy,
}

/// Mean and inverse deviation of a row, which becomes its distance from the mean.
pub(super) fn centre(x: &mut [f32], epsilon: f32, accuracy: Accuracy) -> (f32, f32) {
    let mean = x.iter().fold(0.0f32, |s, v| s + v) / x.len() as f32;
    let mut squares = 0.0f32;
    for v in x.iter_mut() {
        *v -= mean;
        squares += *v * *v;
    }
    (mean, Special::Rsqrt.eval(accuracy, squares / x.len() as f32 + epsilon))
}

impl Plan {
    pub fn new(r: &Request<'_>) -> Result<Self, Fault> {
        let vectors = match r.body.bc {
            0 => 2,
            1 => 1,
            code => return Err(Fault::operand(code, "bc: gain and bias (0) or the gain alone (1)")),
        };
        Ok(Self {
            x: r.x(FLOATS)?,
            y: r.y(&[Format::Fp32], vectors, r.cols, r.body.yst)?,
            d: r.d(FLOATS)?,
            statistics: if r.body.stat == 1 { Some(r.statistics(r.rows, 2)?) } else { None },
            epsilon: r.imm(),
            accuracy: r.accuracy(),
        })
    }

    pub fn run(&self, local: &mut Local) -> Result<(), Fault> {
        let cols = self.x.cols;
        let (mut x, mut gain, mut bias) =
            (local.rows.take(cols), local.rows.take(cols), local.rows.take(cols));
        self.y.read(local, 0, &mut gain)?;
        if self.y.rows == 2 {
            self.y.read(local, 1, &mut bias)?;
        }
        for row in 0..self.x.rows {
            self.x.read(local, row, &mut x)?;
            let (mean, r) = centre(&mut x, self.epsilon, self.accuracy);
            for (x, g) in x.iter_mut().zip(&gain) {
                *x = (*x * r) * g;
            }
            if self.y.rows == 2 {
                x.iter_mut().zip(&bias).for_each(|(x, b)| *x += b);
            }
            self.d.write(local, row, &x)?;
            if let Some(s) = self.statistics {
                s.write(local, row, &[mean, r])?;
            }
        }
        local.rows.give([x, gain, bias]);
        Ok(())
    }

    pub fn cost(&self, cfg: &NpuConfig) -> Cost {
        let root = Special::Rsqrt.charge(self.accuracy);
        let passes = if self.y.rows == 2 { 6 } else { 5 };
        let mut cost = Work::elements(&self.x, passes).reducing(3 + root.passes, 2 + root.special).cost(cfg);
        cost.vector_ops += root.lookups * self.x.rows as u64;
        cost.read(self.x.space, self.x.bytes());
        cost.read(self.y.space, self.y.bytes());
        cost.write(self.d.space, self.d.bytes());
        if let Some(s) = self.statistics {
            cost.write(s.space, s.bytes());
        }
        cost
    }
}
