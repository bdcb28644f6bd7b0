//! RMSNORM: each row divided by its root mean square, times a row vector.
//!
//! Shapes: x and d rows x cols, y one row of cols (fp32). With stat = 1 `alpha` of the position extension receives a
//!   pair (0, r) a row, fp32, consecutive in SPM.
//! Formats: x and d fp16, bf16 or fp32.
//! Arithmetic: ss = sum of x^2 ascending; r = 1 / sqrt(ss / cols + imm), the inverse root by `acc`;
//!   d = (x r) y.
//! Bound: three passes (square and accumulate; times r; times y); per row a division, an add with root, an inverse.

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

impl Plan {
    pub fn new(r: &Request<'_>) -> Result<Self, Fault> {
        Ok(Self {
            x: r.x(FLOATS)?,
            y: r.y(&[Format::Fp32], 1, r.cols, 0)?,
            d: r.d(FLOATS)?,
            statistics: if r.body.stat == 1 { Some(r.statistics(r.rows, 2)?) } else { None },
            epsilon: r.imm(),
            accuracy: r.accuracy(),
        })
    }

    pub fn run(&self, local: &mut Local) -> Result<(), Fault> {
        let (mut x, mut y) = (local.rows.take(self.x.cols), local.rows.take(self.x.cols));
        self.y.read(local, 0, &mut y)?;
        for row in 0..self.x.rows {
            self.x.read(local, row, &mut x)?;
            let mut sum = 0.0f32;
            for v in &x {
                sum += v * v;
            }
            let r = Special::Rsqrt.eval(self.accuracy, sum / self.x.cols as f32 + self.epsilon);
            for (x, y) in x.iter_mut().zip(&y) {
                *x = (*x * r) * y;
            }
            self.d.write(local, row, &x)?;
            if let Some(s) = self.statistics {
                s.write(local, row, &[0.0, r])?;
            }
        }
        local.rows.give([x, y]);
        Ok(())
    }

    pub fn cost(&self, cfg: &NpuConfig) -> Cost {
        let root = Special::Rsqrt.charge(self.accuracy);
        let mut cost = Work::elements(&self.x, 3).reducing(1 + root.passes, 1 + root.special).cost(cfg);
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
