//! ROUTE: a mixture's router: each token's k experts with their weights, each expert's tokens with their count.
//!
//! Shapes: x logits, rows tokens x cols experts; imm 7:0 = k (1..=cols), imm 8 = 1: weights over the k chosen alone,
//!   0: over all experts; other bits 0. d k records of 8 bytes a row (u32 expert, fp32 weight), by descending logit,
//!   rows at stride `dst` (0 = packed). y (yf = int32) is written: cols counts (u32), then from the next granule
//!   one list an expert of at most `rows` tokens (u32), lists `yst` granules apart (0 = packed); entries from a list's
//!   count on stay as they are. Token r has number q0 + r, q0 of the position extension (0 without).
//! Formats: x fp16, bf16 or fp32.
//! Arithmetic: chosen as by TOPK, equal logits by ascending expert; m = the largest logit, e = e^(x - m), l = sum of e
//!   over the chosen in their order, or over all experts ascending (NaN left out); weight = e (1 / l). A place
//!   without a logit holds (0xFFFFFFFF, 0). Exponential and inverse by `acc`.
//! Bound: two passes (compare, reduced to the maximum; subtract and exponentiate, reduced to the sum), per row the
//!   inverse and k products, and k cycles a row that move records and append to lists. Class C.

use isa::npu::{Format, GRANULE};

use super::approx::{Accuracy, Special};
use super::cost::Cost;
use super::number;
use super::operand::{Rows, Shape};
use super::topk::{EMPTY, Record, insert};
use super::vector::{FLOATS, Request, Work};
use crate::config::NpuConfig;
use crate::fault::Fault;
use crate::local::{Local, Space};

/// A checked command.
pub(super) struct Plan {
    x: Rows,
    d: Rows,
    counts: Rows,
    lists: Rows,
    k: usize,
    chosen_only: bool,
    first: u32,
    accuracy: Accuracy,
}

impl Plan {
    pub fn new(r: &Request<'_>) -> Result<Self, Fault> {
        let (imm, b) = (r.body.imm, r.body);
        let k = imm & 0xFF;
        if imm >> 9 != 0 || k == 0 || k > r.cols {
            return Err(Fault::operand(
                imm,
                "imm: k lies between 1 and the experts, bit 8 restricts the weights",
            ));
        }
        let counts = r.y(&[Format::Int32], 1, r.cols, 0)?;
        let lists = Rows::destination(
            r.cfg,
            Shape {
                what: "the experts' lists leave their memory",
                space: Space::from_bit(b.ys),
                granule: b.y + (4 * r.cols).div_ceil(GRANULE),
                stride: b.yst,
                rows: r.cols,
                cols: r.rows,
                format: Format::Int32,
            },
        )?;
        Ok(Self {
            x: r.x(FLOATS)?,
            d: r.d_shaped(Format::Int32, 2 * k)?,
            counts,
            lists,
            k: k as usize,
            chosen_only: imm >> 8 == 1,
            first: r.position.map_or(0, |p| p.q0 as u32),
            accuracy: r.accuracy(),
        })
    }

    /// The sum weights are divided by.
    fn sum(&self, x: &[f32], chosen: &[Record]) -> f32 {
        let m = chosen[0].1;
        let e = |v: f32| Special::Exp.eval(self.accuracy, v - m);
        if self.chosen_only {
            return chosen.iter().fold(0.0f32, |s, c| s + e(c.1));
        }
        x.iter().filter(|v| !v.is_nan()).fold(0.0f32, |s, v| s + e(*v))
    }

    pub fn run(&self, local: &mut Local) -> Result<(), Fault> {
        let mut x = local.rows.take(self.x.cols);
        let mut counts = vec![0u32; self.x.cols];
        let mut chosen: Vec<Record> = Vec::with_capacity(self.k);
        for row in 0..self.x.rows {
            self.x.read(local, row, &mut x)?;
            chosen.clear();
            for (j, &v) in x.iter().enumerate() {
                insert(&mut chosen, self.k, j as u32, v);
            }
            let inverse = match chosen.first() {
                Some(_) => Special::Recip.eval(self.accuracy, self.sum(&x, &chosen)),
                None => 0.0,
            };
            for i in 0..self.k {
                let (expert, weight) = match chosen.get(i) {
                    Some(c) => (c.0, Special::Exp.eval(self.accuracy, c.1 - chosen[0].1) * inverse),
                    None => (EMPTY, 0.0),
                };
                let at = self.d.at(row) + 8 * i;
                local.set_word(self.d.space, at, expert)?;
                local.set_word(self.d.space, at + 4, number::to_fp32(weight))?;
            }
            for c in &chosen {
                let count = &mut counts[c.0 as usize];
                let at = self.lists.at(c.0 as usize) + 4 * *count as usize;
                local.set_word(self.lists.space, at, self.first.wrapping_add(row as u32))?;
                *count += 1;
            }
        }
        for (j, count) in counts.iter().enumerate() {
            local.set_word(self.counts.space, self.counts.base + 4 * j, *count)?;
        }
        local.rows.give([x]);
        Ok(())
    }

    pub fn cost(&self, cfg: &NpuConfig) -> Cost {
        let (exp, inverse) = (Special::Exp.charge(self.accuracy), Special::Recip.charge(self.accuracy));
        let (rows, k) = (self.x.rows as u64, self.k as u64);
        let work = Work::elements(&self.x, 1).special(exp, 1).reducing(inverse.passes + k, inverse.special);
        let mut cost = work.cost(cfg);
        cost.serial(rows * k);
        cost.vector_ops += rows * (exp.lookups * self.x.cols as u64 + inverse.lookups);
        cost.read(self.x.space, self.x.bytes());
        cost.write(self.d.space, self.d.bytes());
        cost.write(self.counts.space, self.counts.bytes() + 4 * rows * k);
        cost
    }
}
