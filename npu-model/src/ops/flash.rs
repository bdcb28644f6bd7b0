//! FA_STEP and FA_FIN: one block of keys of a running softmax, and the division at its end.
//!
//! FA_STEP. Shapes: x scores rows x cols (every column valid), y (m, l) pairs, one a row, consecutive in SPM,
//!   d probabilities rows x cols in SPM, `alpha` one value a row, consecutive in SPM; position extension required.
//!   Formats: x, y fp32; d fp16. imm = scale (fp32). `cap` = soft cap (fp32, 0 = none), mask as `mask.rs` says;
//!   its bit strings (mask 3) start at the first granule after the pairs, rows `yst` granules apart (0 = packed).
//!   Arithmetic, a row at a time, over columns that are not masked: s = x imm; with a cap s = cap tanh(s / cap);
//!   m' = max(m, all s); p = e^(s - m'), 0 where masked or where m' is -infinity; alpha = e^(m - m'), but 1 if both
//!   are -infinity and 0 if only m is; l' = l alpha + sum of p (ascending, before rounding to fp16). upd = 0 starts
//!   at m = -infinity, l = 0. Exponentials and tanh by `acc`.
//!   Bound: two passes (scale, reduced to the maximum; subtract, exponentiate, reduced to the sum) and those of the
//!   cap (divide; tanh; times the cap); per row three (exponential of alpha, product, sum).
//! FA_FIN. Shapes: x and d rows x cols, y as above. Formats: x fp32; d fp16 or fp32.
//!   Arithmetic: d = x / l, or x times the approximate inverse by `acc`; 0 where l is 0. Bound: one pass.

use isa::npu::{Format, GRANULE};

use super::approx::{Accuracy, Special};
use super::cost::Cost;
use super::mask::Mask;
use super::number;
use super::operand::{self, Rows};
use super::softmax::Scores;
use super::vector::{Request, Work};
use crate::config::NpuConfig;
use crate::fault::Fault;
use crate::local::{Local, Space};

/// A checked FA_STEP.
pub(super) struct Step {
    x: Rows,
    pairs: Rows,
    d: Rows,
    alpha: usize,
    scores: Scores,
    keep: bool,
}

fn pairs(r: &Request<'_>) -> Result<Rows, Fault> {
    if r.body.ys != 0 {
        return Err(Fault::operand(r.body.ys, "ys: running pairs lie in the scratchpad"));
    }
    r.y(&[Format::Fp32], r.rows, 2, 0)
}

impl Step {
    pub fn new(r: &Request<'_>) -> Result<Self, Fault> {
        let p = r.position()?;
        if r.body.ds != 0 {
            return Err(Fault::operand(r.body.ds, "ds: probabilities go to the scratchpad"));
        }
        let alpha = operand::range(r.cfg, Space::Spm, p.alpha * GRANULE, r.rows * 4, "alpha leaves the SPM")?;
        Ok(Self {
            x: r.x(&[Format::Fp32])?,
            pairs: pairs(r)?,
            d: r.d(&[Format::Fp16])?,
            alpha,
            scores: Scores {
                scale: r.imm(),
                cap: f32::from_bits(p.cap as u32),
                mask: Mask::new(r, r.body.y + (8 * r.rows).div_ceil(GRANULE))?,
                accuracy: r.accuracy(),
            },
            keep: r.body.upd == 1,
        })
    }

    pub fn run(&self, local: &mut Local) -> Result<(), Fault> {
        let mut x = local.rows.take(self.x.cols);
        for row in 0..self.x.rows {
            self.x.read(local, row, &mut x)?;
            let (m, l) = if self.keep {
                let mut pair = [0.0; 2];
                self.pairs.read(local, row, &mut pair)?;
                (pair[0], pair[1])
            } else {
                (f32::NEG_INFINITY, 0.0)
            };
            let new_m = self.scores.prepare(local, row, &mut x, m)?;
            let sum = self.scores.exponentials(&mut x, new_m);
            let none = new_m == f32::NEG_INFINITY;
            let alpha = match (m == f32::NEG_INFINITY, none) {
                (true, true) => 1.0,
                (true, false) => 0.0,
                _ => Special::Exp.eval(self.scores.accuracy, m - new_m),
            };
            self.d.write(local, row, &x)?;
            self.pairs.write(local, row, &[new_m, l * alpha + sum])?;
            local.set_word(Space::Spm, self.alpha + 4 * row, number::to_fp32(alpha))?;
        }
        local.rows.give([x]);
        Ok(())
    }

    pub fn cost(&self, cfg: &NpuConfig) -> Cost {
        let rows = self.x.rows as u64;
        let exp = Special::Exp.charge(self.scores.accuracy);
        let mut cost = self.scores.work(&self.x).reducing(2 + exp.passes, exp.special).cost(cfg);
        cost.vector_ops += rows * (self.scores.lookups() * self.x.cols as u64 + exp.lookups);
        cost.read(self.x.space, self.x.bytes());
        if self.keep {
            cost.read(Space::Spm, self.pairs.bytes());
        }
        if let Some((space, bytes)) = self.scores.mask.read() {
            cost.read(space, bytes);
        }
        cost.write(Space::Spm, self.d.bytes() + self.pairs.bytes() + 4 * rows);
        cost
    }
}

/// A checked FA_FIN.
pub(super) struct Finish {
    x: Rows,
    pairs: Rows,
    d: Rows,
    accuracy: Accuracy,
}

impl Finish {
    pub fn new(r: &Request<'_>) -> Result<Self, Fault> {
        Ok(Self {
            x: r.x(&[Format::Fp32])?,
            pairs: pairs(r)?,
            d: r.d(&[Format::Fp16, Format::Fp32])?,
            accuracy: r.accuracy(),
        })
    }

    pub fn run(&self, local: &mut Local) -> Result<(), Fault> {
        let mut x = local.rows.take(self.x.cols);
        for row in 0..self.x.rows {
            self.x.read(local, row, &mut x)?;
            let mut pair = [0.0; 2];
            self.pairs.read(local, row, &mut pair)?;
            let l = pair[1];
            let inverse = Special::Recip.eval(self.accuracy, l);
            for v in &mut x {
                *v = match self.accuracy {
                    _ if l == 0.0 => 0.0,
                    Accuracy::Exact => *v / l,
                    _ => *v * inverse,
                };
            }
            self.d.write(local, row, &x)?;
        }
        local.rows.give([x]);
        Ok(())
    }

    pub fn cost(&self, cfg: &NpuConfig) -> Cost {
        // The exact quotient is a division an element, the approximate one an inverse a row.
        let inverse = Special::Recip.charge(self.accuracy);
        let mut work = Work::elements(&self.x, 1);
        if self.accuracy == Accuracy::Exact {
            work.special_ops = (self.x.rows * self.x.cols) as u64;
        } else {
            (work.row_passes, work.special_ops) = (inverse.passes, inverse.special * self.x.rows as u64);
        }
        let mut cost = work.cost(cfg);
        cost.vector_ops += inverse.lookups * self.x.rows as u64;
        cost.read(self.x.space, self.x.bytes());
        cost.read(Space::Spm, self.pairs.bytes());
        cost.write(self.d.space, self.d.bytes());
        cost
    }
}
