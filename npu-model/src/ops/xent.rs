//! XENT: cross-entropy of each row's softmax with a target, and its gradient.
//!
//! Shapes: x logits rows x cols; y one int32 a row, consecutive: the target's column; d the gradient, rows x cols;
//!   `alpha` of the position extension (required) receives one fp32 a row, consecutive in SPM: the loss; imm = factor
//!   of the gradient (fp32), as 1 / rows for a mean.
//! Formats: x and d fp16, bf16 or fp32.
//! Arithmetic: m = max of x; e = e^(x - m); l = sum of e ascending; loss = log l - (x_target - m);
//!   d = (e (1 / l) - 1 at the target, - 0 elsewhere) imm. A target outside the columns (as -100) means a row that is
//!   left out: loss 0, gradient 0. Exponential, inverse and logarithm by `acc`.
//! Bound: four passes (compare; subtract and exponentiate, reduced to the sum; times the inverse; times the factor);
//!   per row the inverse, the logarithm and two subtractions.

use isa::npu::Format;

use super::approx::{Accuracy, Special};
use super::cost::Cost;
use super::number;
use super::operand::Rows;
use super::vector::{FLOATS, Request, Work};
use crate::config::NpuConfig;
use crate::fault::Fault;
use crate::local::Local;

/// A checked command.
pub(super) struct Plan {
    x: Rows,
    targets: Rows,
    d: Rows,
    losses: Rows,
    factor: f32,
    accuracy: Accuracy,
}

impl Plan {
    pub fn new(r: &Request<'_>) -> Result<Self, Fault> {
        Ok(Self {
            x: r.x(FLOATS)?,
            targets: r.y(&[Format::Int32], r.rows, 1, 0)?,
            d: r.d(FLOATS)?,
            losses: r.statistics(r.rows, 1)?,
            factor: r.imm(),
            accuracy: r.accuracy(),
        })
    }

    /// Loss of a row, which becomes its gradient.
    fn row(&self, x: &mut [f32], target: usize) -> f32 {
        let a = self.accuracy;
        let Some(&logit) = x.get(target) else {
            x.fill(0.0);
            return 0.0;
        };
        let m = x.iter().fold(f32::NEG_INFINITY, |m, v| number::max(m, *v));
        let mut l = 0.0f32;
        for v in x.iter_mut() {
            *v = Special::Exp.eval(a, *v - m);
            l += *v;
        }
        let inverse = Special::Recip.eval(a, l);
        for (j, v) in x.iter_mut().enumerate() {
            let hit = if j == target { 1.0 } else { 0.0 };
            *v = (*v * inverse - hit) * self.factor;
        }
        Special::Log.eval(a, l) - (logit - m)
    }

    pub fn run(&self, local: &mut Local) -> Result<(), Fault> {
        let mut x = local.rows.take(self.x.cols);
        for row in 0..self.x.rows {
            self.x.read(local, row, &mut x)?;
            let target = local.word(self.targets.space, self.targets.at(row))? as usize;
            let loss = self.row(&mut x, target);
            self.d.write(local, row, &x)?;
            self.losses.write(local, row, &[loss])?;
        }
        local.rows.give([x]);
        Ok(())
    }

    pub fn cost(&self, cfg: &NpuConfig) -> Cost {
        let a = self.accuracy;
        let (exp, inverse, log) = (Special::Exp.charge(a), Special::Recip.charge(a), Special::Log.charge(a));
        let work = Work::elements(&self.x, 3).special(exp, 1);
        let mut cost =
            work.reducing(2 + inverse.passes + log.passes, inverse.special + log.special).cost(cfg);
        let rows = self.x.rows as u64;
        cost.vector_ops += rows * (exp.lookups * self.x.cols as u64 + inverse.lookups + log.lookups);
        cost.read(self.x.space, self.x.bytes());
        cost.read(self.targets.space, self.targets.bytes());
        cost.write(self.d.space, self.d.bytes());
        cost.write(self.losses.space, self.losses.bytes());
        cost
    }
}
