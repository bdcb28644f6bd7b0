//! FA_STEP and FA_FIN: one block of keys of a running softmax, and the division at its end.
//!
//! FA_STEP. Shapes: x scores rows x cols (every column valid), y (m, l) pairs, one a row, consecutive in SPM,
//!   d probabilities rows x cols in SPM, `alpha` one value a row, consecutive in SPM; position extension required.
//!   Formats: x, y fp32; d fp16. imm = scale (fp32).
//!   Arithmetic, a row at a time, over columns that are not masked: s = x imm; m' = max(m, all s);
//!   p = e^(s - m'), 0 where masked or where m' is -infinity; alpha = e^(m - m'), but 1 if both are -infinity and
//!   0 if only m is; l' = l alpha + sum of p (ascending, before rounding to fp16). upd = 0 starts at
//!   m = -infinity, l = 0. mask 1 keeps key k0 + j where it is not after query q0 + r / (rdiv + 1); mask 2 also
//!   drops keys `win` or more before the query (win = 0: none).
//!   Bound: two passes (scale, reduced to the maximum; subtract, exponentiate, reduced to the sum); per row three
//!   (exponential of alpha, product, sum).
//! FA_FIN. Shapes: x and d rows x cols, y as above. Formats: x fp32; d fp16 or fp32.
//!   Arithmetic: d = x / l, 0 where l is 0. Bound: one pass.

use isa::npu::{Format, GRANULE};

use super::cost::Cost;
use super::number;
use super::operand::{self, Rows};
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
    scale: f32,
    mask: u64,
    keep: bool,
    query: u64,
    key: u64,
    rows_per_position: u64,
    window: u64,
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
        if p.cap != 0 {
            return Err(Fault::not_in_cap(p.cap, "cap: scores are not capped"));
        }
        if r.body.mask == 3 {
            return Err(Fault::not_in_cap(3, "mask: explicit bits are not read"));
        }
        if r.body.ds != 0 {
            return Err(Fault::operand(r.body.ds, "ds: probabilities go to the scratchpad"));
        }
        let alpha = operand::range(r.cfg, Space::Spm, p.alpha * GRANULE, r.rows * 4, "alpha leaves the SPM")?;
        Ok(Self {
            x: r.x(&[Format::Fp32])?,
            pairs: pairs(r)?,
            d: r.d(&[Format::Fp16])?,
            alpha,
            scale: r.imm(),
            mask: r.body.mask,
            keep: r.body.upd == 1,
            query: p.q0,
            key: p.k0,
            rows_per_position: p.rdiv + 1,
            window: p.win,
        })
    }

    /// Columns of row `row` that are not masked.
    fn visible(&self, row: usize) -> core::ops::Range<usize> {
        let cols = self.x.cols;
        if self.mask == 0 {
            return 0..cols;
        }
        let query = self.query + row as u64 / self.rows_per_position;
        let end = (query + 1).saturating_sub(self.key).min(cols as u64) as usize;
        if self.mask == 1 || self.window == 0 {
            return 0..end;
        }
        let first = (query + 1).saturating_sub(self.window);
        let start = first.saturating_sub(self.key).min(end as u64) as usize;
        start..end
    }

    pub fn run(&self, local: &mut Local) -> Result<(), Fault> {
        let mut x = vec![0.0; self.x.cols];
        for row in 0..self.x.rows {
            self.x.read(local, row, &mut x)?;
            let (m, l) = if self.keep {
                let mut pair = [0.0; 2];
                self.pairs.read(local, row, &mut pair)?;
                (pair[0], pair[1])
            } else {
                (f32::NEG_INFINITY, 0.0)
            };
            let visible = self.visible(row);
            let mut new_m = m;
            for s in &mut x[visible.clone()] {
                *s *= self.scale;
                new_m = number::max(new_m, *s);
            }
            let none = new_m == f32::NEG_INFINITY;
            let mut sum = 0.0f32;
            for (j, s) in x.iter_mut().enumerate() {
                *s = if none || !visible.contains(&j) { 0.0 } else { libm::expf(*s - new_m) };
                sum += *s;
            }
            let alpha = match (m == f32::NEG_INFINITY, none) {
                (true, true) => 1.0,
                (true, false) => 0.0,
                _ => libm::expf(m - new_m),
            };
            self.d.write(local, row, &x)?;
            self.pairs.write(local, row, &[new_m, l * alpha + sum])?;
            local.set_word(Space::Spm, self.alpha + 4 * row, number::to_fp32(alpha))?;
        }
        Ok(())
    }

    pub fn cost(&self, cfg: &NpuConfig) -> Cost {
        let rows = self.x.rows as u64;
        let mut cost = Work {
            rows: self.x.rows,
            cols: self.x.cols,
            passes: 2,
            row_passes: 3,
            special_ops: rows * (self.x.cols as u64 + 1),
            reduces: true,
        }
        .cost(cfg);
        cost.read(self.x.space, self.x.bytes());
        if self.keep {
            cost.read(Space::Spm, self.pairs.bytes());
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
}

impl Finish {
    pub fn new(r: &Request<'_>) -> Result<Self, Fault> {
        Ok(Self { x: r.x(&[Format::Fp32])?, pairs: pairs(r)?, d: r.d(&[Format::Fp16, Format::Fp32])? })
    }

    pub fn run(&self, local: &mut Local) -> Result<(), Fault> {
        let mut x = vec![0.0; self.x.cols];
        for row in 0..self.x.rows {
            self.x.read(local, row, &mut x)?;
            let mut pair = [0.0; 2];
            self.pairs.read(local, row, &mut pair)?;
            let l = pair[1];
            for v in &mut x {
                *v = if l == 0.0 { 0.0 } else { *v / l };
            }
            self.d.write(local, row, &x)?;
        }
        Ok(())
    }

    pub fn cost(&self, cfg: &NpuConfig) -> Cost {
        let elements = (self.x.rows * self.x.cols) as u64;
        let mut cost = Work {
            rows: self.x.rows,
            cols: self.x.cols,
            passes: 1,
            row_passes: 0,
            special_ops: elements,
            reduces: false,
        }
        .cost(cfg);
        cost.read(self.x.space, self.x.bytes());
        cost.read(Space::Spm, self.pairs.bytes());
        cost.write(self.d.space, self.d.bytes());
        cost
    }
}
