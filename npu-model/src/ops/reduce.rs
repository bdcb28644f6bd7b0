//! RSUM, RMAX, RABSMAX, RSUMSQ: each row to one value; CUMSUM: each row to its running sums.
//!
//! Shapes: x rows x cols; d one value a row at stride `dst` (0 = consecutive), for CUMSUM rows x cols.
//! Formats: x and d fp16, bf16 or fp32.
//! Arithmetic: RSUM the sum of x, RSUMSQ of x^2, ascending from 0; RMAX the largest x from -infinity, RABSMAX the
//!   largest |x| from 0, NaN ignored. upd = 1 starts at the value already in d instead. CUMSUM: element j is the sum
//!   of elements 0..=j, ascending.
//!   setp = 1: the predicate becomes whether any result is not 0.
//! Bound: one pass (what is reduced rides along); CUMSUM two (the scan, and adding what was before the vector).

use super::cost::Cost;
use super::number;
use super::operand::Rows;
use super::vector::{FLOATS, Request, Work};
use crate::config::NpuConfig;
use crate::fault::Fault;
use crate::local::Local;

/// What a row becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reduction {
    Sum,
    Max,
    AbsMax,
    SumSquares,
    Running,
}

/// A checked command.
pub(super) struct Plan {
    reduction: Reduction,
    x: Rows,
    d: Rows,
    keep: bool,
    sets_predicate: bool,
}

impl Plan {
    pub fn new(r: &Request<'_>, reduction: Reduction) -> Result<Self, Fault> {
        let cols = if reduction == Reduction::Running { r.cols } else { 1 };
        Ok(Self {
            reduction,
            x: r.x(FLOATS)?,
            d: r.d_cols(FLOATS, cols)?,
            keep: r.body.upd == 1,
            sets_predicate: r.body.setp == 1,
        })
    }

    pub fn run(&self, local: &mut Local) -> Result<(), Fault> {
        let mut x = local.rows.take(self.x.cols);
        let mut any = false;
        for row in 0..self.x.rows {
            self.x.read(local, row, &mut x)?;
            if self.reduction == Reduction::Running {
                let mut sum = 0.0f32;
                for v in &mut x {
                    sum += *v;
                    *v = sum;
                }
                any |= x.iter().any(|v| *v != 0.0);
                self.d.write(local, row, &x)?;
                continue;
            }
            let mut start = [if self.reduction == Reduction::Max { f32::NEG_INFINITY } else { 0.0 }];
            if self.keep {
                self.d.read(local, row, &mut start)?;
            }
            let values = x.iter().copied();
            let result = match self.reduction {
                Reduction::Max => values.fold(start[0], number::max),
                Reduction::AbsMax => values.fold(start[0], |a, v| number::max(a, v.abs())),
                Reduction::SumSquares => values.fold(start[0], |s, v| s + v * v),
                Reduction::Sum | Reduction::Running => values.fold(start[0], |s, v| s + v),
            };
            any |= result != 0.0;
            self.d.write(local, row, &[result])?;
        }
        if self.sets_predicate {
            local.predicate = any;
        }
        local.rows.give([x]);
        Ok(())
    }

    pub fn cost(&self, cfg: &NpuConfig) -> Cost {
        let passes = if self.reduction == Reduction::Running { 2 } else { 1 };
        let mut cost = Work::elements(&self.x, passes).reducing(u64::from(self.keep), 0).cost(cfg);
        cost.read(self.x.space, self.x.bytes());
        if self.keep {
            cost.read(self.d.space, self.d.bytes());
        }
        cost.write(self.d.space, self.d.bytes());
        cost
    }
}
