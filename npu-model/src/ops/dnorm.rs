//! DRMSNORM and DLAYERNORM: gradients of a norm's input, gain and bias.
//!
//! Shapes: x the gradient of the norm's output, rows x cols; d the norm's input, read, then replaced by its gradient;
//!   y the gain, one row (fp32); imm = epsilon (fp32). `alpha` of the position extension (required) points to the
//!   gain's gradient, cols fp32 in SPM, for DLAYERNORM followed by the bias's; upd = 0 starts them at 0, upd = 1 adds
//!   to what is there.
//! Formats: x and d fp16, bf16 or fp32.
//! Arithmetic, a row at a time, with v the input, sums ascending, r by `acc`, g = x gain:
//!   DRMSNORM: r = 1 / sqrt((sum of v^2) / cols + imm); k = ((sum of g v) / cols) (r r); d = (g - v k) r;
//!   gain' += x (v r).
//!   DLAYERNORM: mean and r as in LAYERNORM; n = (v - mean) r; a = (sum of g) / cols; b = (sum of g n) / cols;
//!   d = ((g - a) - n b) r; gain' += x n; bias' += x.
//! Bound: nine passes, DLAYERNORM thirteen, and those of the row's values; three (four) divisions, roots included.

use isa::npu::Format;

use super::approx::{Accuracy, Special};
use super::cost::Cost;
use super::layernorm::centre;
use super::operand::Rows;
use super::vector::{FLOATS, Request, Work};
use crate::config::NpuConfig;
use crate::fault::Fault;
use crate::local::Local;

/// A checked command.
pub(super) struct Plan {
    x: Rows,
    gain: Rows,
    d: Rows,
    /// Gradients of gain and, with `centred`, bias.
    sums: Rows,
    centred: bool,
    keep: bool,
    epsilon: f32,
    accuracy: Accuracy,
}

impl Plan {
    pub fn new(r: &Request<'_>, centred: bool) -> Result<Self, Fault> {
        Ok(Self {
            x: r.x(FLOATS)?,
            gain: r.y(&[Format::Fp32], 1, r.cols, 0)?,
            d: r.d(FLOATS)?,
            sums: r.statistics(if centred { 2 } else { 1 }, r.cols)?,
            centred,
            keep: r.body.upd == 1,
            epsilon: r.imm(),
            accuracy: r.accuracy(),
        })
    }

    /// Gradient of one row in `v`, which held the input; `n` is room for the normalised row.
    fn row(&self, dy: &[f32], gain: &[f32], v: &mut [f32], n: &mut [f32]) {
        let cols = v.len() as f32;
        if self.centred {
            n.copy_from_slice(v);
            let (_, r) = centre(n, self.epsilon, self.accuracy);
            n.iter_mut().for_each(|n| *n *= r);
            let (mut a, mut b) = (0.0f32, 0.0f32);
            for ((dy, gain), n) in dy.iter().zip(gain).zip(n.iter()) {
                let g = dy * gain;
                a += g;
                b += g * n;
            }
            let (a, b) = (a / cols, b / cols);
            for (((v, n), dy), gain) in v.iter_mut().zip(n.iter()).zip(dy).zip(gain) {
                *v = ((dy * gain - a) - n * b) * r;
            }
            return;
        }
        let squares = v.iter().fold(0.0f32, |s, v| s + v * v);
        let r = Special::Rsqrt.eval(self.accuracy, squares / cols + self.epsilon);
        let products = dy.iter().zip(gain).zip(v.iter()).fold(0.0f32, |s, ((dy, g), v)| s + (dy * g) * v);
        let k = (products / cols) * (r * r);
        for (((v, n), dy), gain) in v.iter_mut().zip(n.iter_mut()).zip(dy).zip(gain) {
            *n = *v * r;
            *v = (dy * gain - *v * k) * r;
        }
    }

    pub fn run(&self, local: &mut Local) -> Result<(), Fault> {
        let cols = self.x.cols;
        let mut rows: [Vec<f32>; 6] = core::array::from_fn(|_| local.rows.take(cols));
        let [dy, gain, v, n, dgain, dbias] = &mut rows;
        self.gain.read(local, 0, gain)?;
        if self.keep {
            self.sums.read(local, 0, dgain)?;
            if self.centred {
                self.sums.read(local, 1, dbias)?;
            }
        }
        for row in 0..self.x.rows {
            self.x.read(local, row, dy)?;
            self.d.read(local, row, v)?;
            self.row(dy, gain, v, n);
            self.d.write(local, row, v)?;
            dgain.iter_mut().zip(&*dy).zip(&*n).for_each(|((s, dy), n)| *s += dy * n);
            dbias.iter_mut().zip(&*dy).for_each(|(s, dy)| *s += dy);
        }
        self.sums.write(local, 0, dgain)?;
        if self.centred {
            self.sums.write(local, 1, dbias)?;
        }
        local.rows.give(rows);
        Ok(())
    }

    pub fn cost(&self, cfg: &NpuConfig) -> Cost {
        let root = Special::Rsqrt.charge(self.accuracy);
        let (passes, divisions) = if self.centred { (13, 4) } else { (9, 2) };
        let work = Work::elements(&self.x, passes);
        let mut cost = work.reducing(divisions + 1 + root.passes, divisions + root.special).cost(cfg);
        cost.vector_ops += root.lookups * self.x.rows as u64;
        cost.read(self.x.space, self.x.bytes());
        cost.read(self.d.space, self.d.bytes());
        cost.read(self.gain.space, self.gain.bytes());
        if self.keep {
            cost.read(self.sums.space, self.sums.bytes());
        }
        cost.write(self.d.space, self.d.bytes());
        cost.write(self.sums.space, self.sums.bytes());
        cost
    }
}
