//! RMSNORM: each row divided by its root mean square, times a row vector.
//!
//! Shapes: x and d rows x cols, y one row of cols (fp32).
//! Formats: x and d fp16, bf16 or fp32.
//! Arithmetic: ss = sum of x^2 ascending; r = 1 / sqrt(ss / cols + imm); d = (x r) y.
//! Bound: three passes (square and accumulate; times r; times y); per row a division, an add with root, an inverse.

use isa::npu::Format;

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
    epsilon: f32,
}

impl Plan {
    pub fn new(r: &Request<'_>) -> Result<Self, Fault> {
        Ok(Self {
            x: r.x(FLOATS)?,
            y: r.y(&[Format::Fp32], 1, r.cols, 0)?,
            d: r.d(FLOATS)?,
            epsilon: r.imm(),
        })
    }

    pub fn run(&self, local: &mut Local) -> Result<(), Fault> {
        let mut x = vec![0.0; self.x.cols];
        let mut y = vec![0.0; self.x.cols];
        self.y.read(local, 0, &mut y)?;
        for row in 0..self.x.rows {
            self.x.read(local, row, &mut x)?;
            let mut sum = 0.0f32;
            for v in &x {
                sum += v * v;
            }
            let r = 1.0 / libm::sqrtf(sum / self.x.cols as f32 + self.epsilon);
            for (x, y) in x.iter_mut().zip(&y) {
                *x = (*x * r) * y;
            }
            self.d.write(local, row, &x)?;
        }
        Ok(())
    }

    pub fn cost(&self, cfg: &NpuConfig) -> Cost {
        let mut cost = Work {
            rows: self.x.rows,
            cols: self.x.cols,
            passes: 3,
            row_passes: 3,
            special_ops: 3 * self.x.rows as u64,
            reduces: true,
        }
        .cost(cfg);
        cost.read(self.x.space, self.x.bytes());
        cost.read(self.y.space, self.y.bytes());
        cost.write(self.d.space, self.d.bytes());
        cost
    }
}
