//! TOPK: the k largest values of each row with their indices, in order.
//!
//! Shapes: x rows x cols; imm = k (u32, 1..=1024); d k records of 8 bytes a row (u32 index, u32 fp32 bits), rows at
//!   stride `dst` (0 = packed); position extension required: k0 is the index of column 0, q0 the position that is
//!   sampled.
//! Formats: x fp16, bf16 or fp32.
//! Arithmetic: records by descending value, equal values by ascending index; NaN never enters; places without a
//!   value hold (0xFFFFFFFF, -infinity). upd = 1 also considers the records already there, so blocks of columns are
//!   merged one after the other; on equal values the old record stays before the new.
//!   In a shape-only run the only value is that of ARGMAX: (id of position q0, 1.0) if the id lies in these columns,
//!   else (k0, 0.0).
//! Bound: one pass (compare with the smallest kept, reduced to the maximum), and k cycles a row that move records.
//!   Class C.

use isa::npu::Format;

use super::cost::Cost;
use super::operand::Rows;
use super::vector::{FLOATS, Request, Work};
use super::{Ids, number};
use crate::config::NpuConfig;
use crate::fault::Fault;
use crate::local::Local;

/// Most records a row.
pub(super) const MOST: u64 = 1024;
/// Index of an empty place.
pub(super) const EMPTY: u32 = u32::MAX;

/// A value and where it was.
pub(super) type Record = (u32, f32);

/// A checked command.
pub(super) struct Plan {
    x: Rows,
    d: Rows,
    k: usize,
    first: u32,
    position: u64,
    keep: bool,
}

/// Inserts a value into records kept in order; at most `k` remain.
pub(super) fn insert(best: &mut Vec<Record>, k: usize, index: u32, value: f32) {
    if value.is_nan() || (best.len() == k && best.last().is_some_and(|last| last.1 >= value)) {
        return;
    }
    let at = best.partition_point(|b| b.1 >= value);
    best.truncate(k - 1);
    best.insert(at, (index, value));
}

/// The record at a byte address.
pub(super) fn load(local: &Local, rows: &Rows, row: usize, i: usize) -> Result<Record, Fault> {
    let at = rows.at(row) + 8 * i;
    Ok((local.word(rows.space, at)?, f32::from_bits(local.word(rows.space, at + 4)?)))
}

impl Plan {
    pub fn new(r: &Request<'_>) -> Result<Self, Fault> {
        let p = r.position()?;
        let k = r.body.imm;
        if k == 0 || k > MOST {
            return Err(Fault::operand(k, "imm: k lies between 1 and 1024"));
        }
        if p.k0 + r.cols >= 1 << 32 {
            return Err(Fault::operand(p.k0, "k0: indices reach the mark of an empty place"));
        }
        Ok(Self {
            x: r.x(FLOATS)?,
            d: r.d_shaped(Format::Int32, 2 * k)?,
            k: k as usize,
            first: p.k0 as u32,
            position: p.q0,
            keep: r.body.upd == 1,
        })
    }

    pub fn run(&self, local: &mut Local) -> Result<(), Fault> {
        let mut x = local.rows.take(self.x.cols);
        let mut best = Vec::with_capacity(self.k);
        for row in 0..self.x.rows {
            self.x.read(local, row, &mut x)?;
            self.start(local, row, &mut best)?;
            for (j, &v) in x.iter().enumerate() {
                insert(&mut best, self.k, self.first + j as u32, v);
            }
            self.store(local, row, &best)?;
        }
        local.rows.give([x]);
        Ok(())
    }

    pub fn run_shape_only(&self, local: &mut Local, ids: Ids<'_>) -> Result<(), Fault> {
        let id = ids(self.position);
        let here = id.checked_sub(self.first).is_some_and(|j| (j as usize) < self.x.cols);
        let (index, value) = if here { (id, 1.0) } else { (self.first, 0.0) };
        let mut best = Vec::with_capacity(self.k);
        for row in 0..self.x.rows {
            self.start(local, row, &mut best)?;
            insert(&mut best, self.k, index, value);
            self.store(local, row, &best)?;
        }
        Ok(())
    }

    /// Records the row starts from.
    fn start(&self, local: &Local, row: usize, best: &mut Vec<Record>) -> Result<(), Fault> {
        best.clear();
        if self.keep {
            for i in 0..self.k {
                let (index, value) = load(local, &self.d, row, i)?;
                if index != EMPTY {
                    insert(best, self.k, index, value);
                }
            }
        }
        Ok(())
    }

    fn store(&self, local: &mut Local, row: usize, best: &[Record]) -> Result<(), Fault> {
        let records = best.iter().copied().chain(core::iter::repeat((EMPTY, f32::NEG_INFINITY)));
        for (i, (index, value)) in records.take(self.k).enumerate() {
            let at = self.d.at(row) + 8 * i;
            local.set_word(self.d.space, at, index)?;
            local.set_word(self.d.space, at + 4, number::to_fp32(value))?;
        }
        Ok(())
    }

    pub fn cost(&self, cfg: &NpuConfig) -> Cost {
        let mut cost = Work::elements(&self.x, 1).reducing(0, 0).cost(cfg);
        cost.serial((self.x.rows * self.k) as u64);
        cost.read(self.x.space, self.x.bytes());
        if self.keep {
            cost.read(self.d.space, self.d.bytes());
        }
        cost.write(self.d.space, self.d.bytes());
        cost
    }
}
