//! DSOFTMAX: gradient of a softmax's input.
//!
//! Shapes: x the gradient of its output, y its output, d, all rows x cols (`yst` y's row stride, 0 = packed);
//!   imm = scale (fp32), that of the softmax.
//! Formats: x, y and d fp16, bf16 or fp32.
//! Arithmetic: s = sum of x y ascending; d = (y (x - s)) imm.
//! Bound: four passes (product, reduced to the sum; subtract; times y; times the scale).

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
    scale: f32,
}

impl Plan {
    pub fn new(r: &Request<'_>) -> Result<Self, Fault> {
        Ok(Self {
            x: r.x(FLOATS)?,
            y: r.y(FLOATS, r.rows, r.cols, r.body.yst)?,
            d: r.d(FLOATS)?,
            scale: r.imm(),
        })
    }

    pub fn run(&self, local: &mut Local) -> Result<(), Fault> {
        let (mut x, mut y) = (local.rows.take(self.x.cols), local.rows.take(self.x.cols));
        for row in 0..self.x.rows {
            self.x.read(local, row, &mut x)?;
            self.y.read(local, row, &mut y)?;
            let s = x.iter().zip(&y).fold(0.0f32, |s, (x, y)| s + x * y);
            x.iter_mut().zip(&y).for_each(|(x, y)| *x = (y * (*x - s)) * self.scale);
            self.d.write(local, row, &x)?;
        }
        local.rows.give([x, y]);
        Ok(())
    }

    pub fn cost(&self, cfg: &NpuConfig) -> Cost {
        let mut cost = Work::elements(&self.x, 4).reducing(0, 0).cost(cfg);
        cost.read(self.x.space, self.x.bytes());
        cost.read(self.y.space, self.y.bytes());
        cost.write(self.d.space, self.d.bytes());
        cost
    }
}
