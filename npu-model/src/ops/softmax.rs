//! SOFTMAX: of each row's columns that a mask leaves.
//!
//! Shapes: x and d rows x cols; imm = scale (fp32); mask as `mask.rs` says, its bits at y, rows `yst` granules apart
//!   (0 = packed). Masks 1 and 2, a soft cap (`cap`) and stat = 1 need the position extension; with stat = 1
//!   `alpha` receives a pair (m, l) a row, fp32, consecutive in SPM.
//! Formats: x and d fp16, bf16 or fp32.
//! Arithmetic: s = x imm, capped to cap tanh(s / cap) if cap is not 0; m = max of the s that count;
//!   e = e^(s - m), 0 where masked; l = sum of e ascending; d = e (1 / l). A row without columns gives zeros and the
//!   pair (-infinity, 0). Exponential, tanh and inverse by `acc`.
//! Bound: three passes (scale, reduced to the maximum; subtract, exponentiate, reduced to the sum; times the
//!   inverse) and those of the cap (divide; tanh; times the cap); per row the inverse.

use super::approx::{Accuracy, Special};
use super::cost::Cost;
use super::mask::Mask;
use super::number;
use super::operand::Rows;
use super::vector::{FLOATS, Request, Work};
use crate::config::NpuConfig;
use crate::fault::Fault;
use crate::local::Local;

/// What turns stored scores into those that are exponentiated.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scores {
    pub scale: f32,
    /// Soft cap, 0 = none.
    pub cap: f32,
    pub mask: Mask,
    pub accuracy: Accuracy,
}

impl Scores {
    /// Scales, caps and masks a row; its maximum, at least `m`.
    pub fn prepare(&self, local: &Local, row: usize, x: &mut [f32], m: f32) -> Result<f32, Fault> {
        for s in x.iter_mut() {
            *s *= self.scale;
        }
        if self.cap != 0.0 {
            for s in x.iter_mut() {
                *s = self.cap * Special::Tanh.eval(self.accuracy, *s / self.cap);
            }
        }
        self.mask.apply(local, row, x)?;
        Ok(x.iter().fold(m, |m, s| number::max(m, *s)))
    }

    /// Exponentials of a prepared row relative to `m`, and their sum.
    pub fn exponentials(&self, x: &mut [f32], m: f32) -> f32 {
        let none = m == f32::NEG_INFINITY;
        let mut sum = 0.0f32;
        for s in x.iter_mut() {
            let masked = none || *s == f32::NEG_INFINITY;
            *s = if masked { 0.0 } else { Special::Exp.eval(self.accuracy, *s - m) };
            sum += *s;
        }
        sum
    }

    /// The work of both on a rectangle.
    pub const fn work(&self, x: &Rows) -> Work {
        // Scale; subtract (the exponential rides along).
        let exp = Special::Exp.charge(self.accuracy);
        let work = Work::elements(x, 1).special(exp, 1);
        if self.cap == 0.0 {
            return work;
        }
        let mut work = work.special(Special::Tanh.charge(self.accuracy), 1);
        work.passes += 2;
        work.special_ops += (x.rows * x.cols) as u64;
        work
    }

    /// Table look-ups an element.
    pub const fn lookups(&self) -> u64 {
        let cap = if self.cap == 0.0 { 0 } else { Special::Tanh.charge(self.accuracy).lookups };
        Special::Exp.charge(self.accuracy).lookups + cap
    }
}

/// A checked command.
pub(super) struct Plan {
    x: Rows,
    d: Rows,
    scores: Scores,
    statistics: Option<Rows>,
}

impl Plan {
    pub fn new(r: &Request<'_>) -> Result<Self, Fault> {
        Ok(Self {
            x: r.x(FLOATS)?,
            d: r.d(FLOATS)?,
            scores: Scores {
                scale: r.imm(),
                cap: r.position.map_or(0.0, |p| f32::from_bits(p.cap as u32)),
                mask: Mask::new(r, r.body.y)?,
                accuracy: r.accuracy(),
            },
            statistics: if r.body.stat == 1 { Some(r.statistics(r.rows, 2)?) } else { None },
        })
    }

    pub fn run(&self, local: &mut Local) -> Result<(), Fault> {
        let mut x = local.rows.take(self.x.cols);
        for row in 0..self.x.rows {
            self.x.read(local, row, &mut x)?;
            let m = self.scores.prepare(local, row, &mut x, f32::NEG_INFINITY)?;
            let l = self.scores.exponentials(&mut x, m);
            if m > f32::NEG_INFINITY {
                let inverse = Special::Recip.eval(self.scores.accuracy, l);
                x.iter_mut().for_each(|e| *e *= inverse);
            }
            self.d.write(local, row, &x)?;
            if let Some(s) = self.statistics {
                s.write(local, row, &[m, l])?;
            }
        }
        local.rows.give([x]);
        Ok(())
    }

    pub fn cost(&self, cfg: &NpuConfig) -> Cost {
        let inverse = Special::Recip.charge(self.scores.accuracy);
        let mut work = self.scores.work(&self.x);
        work.passes += 1;
        let mut cost = work.reducing(inverse.passes, inverse.special).cost(cfg);
        cost.vector_ops +=
            self.x.rows as u64 * (self.scores.lookups() * self.x.cols as u64 + inverse.lookups);
        cost.read(self.x.space, self.x.bytes());
        if let Some((space, bytes)) = self.scores.mask.read() {
            cost.read(space, bytes);
        }
        cost.write(self.d.space, self.d.bytes());
        if let Some(s) = self.statistics {
            cost.write(s.space, s.bytes());
        }
        cost
    }
}
