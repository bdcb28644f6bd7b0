//! ARGMAX: index and value of each row's first maximum.
//!
//! Shapes: x rows x cols (fp32); d one record of 16 bytes a row at stride `dst` (0 = consecutive): u32 index,
//!   u32 value bits, 8 bytes zero; position extension required: k0 is the index of column 0, q0 the position that
//!   is sampled.
//! Arithmetic: a value wins if it is greater than all before it; NaN never wins; a row without winner gives
//!   (k0, -infinity). upd = 1 keeps the record already there unless the new value is greater.
//!   In a shape-only run the winner is the id of position q0: (id, 1.0) if it lies in these columns, else (k0, 0.0),
//!   under the same rule for upd.
//! Bound: one pass (compare, reduced to the maximum).

use isa::npu::Format;

use super::cost::Cost;
use super::operand::Rows;
use super::vector::{Request, Work};
use super::{Ids, number};
use crate::config::NpuConfig;
use crate::fault::Fault;
use crate::local::Local;

/// Bytes of a record.
const RECORD: usize = 16;

/// A checked command.
pub(super) struct Plan {
    x: Rows,
    d: Rows,
    first: u32,
    position: u64,
    keep: bool,
}

impl Plan {
    pub fn new(r: &Request<'_>) -> Result<Self, Fault> {
        let p = r.position()?;
        if p.k0 + r.cols > 1 << 32 {
            return Err(Fault::operand(p.k0, "k0: indices pass 32 bits"));
        }
        Ok(Self {
            x: r.x(&[Format::Fp32])?,
            d: r.d_shaped(Format::Int32, RECORD as u64 / 4)?,
            first: p.k0 as u32,
            position: p.q0,
            keep: r.body.upd == 1,
        })
    }

    pub fn run(&self, local: &mut Local) -> Result<(), Fault> {
        let mut x = local.rows.take(self.x.cols);
        for row in 0..self.x.rows {
            self.x.read(local, row, &mut x)?;
            let (mut index, mut best) = (0, f32::NEG_INFINITY);
            for (j, &v) in x.iter().enumerate() {
                if v > best {
                    (index, best) = (j as u32, v);
                }
            }
            self.record(local, row, self.first + index, best)?;
        }
        Ok(())
    }

    pub fn run_shape_only(&self, local: &mut Local, ids: Ids<'_>) -> Result<(), Fault> {
        let id = ids(self.position);
        let here = id.checked_sub(self.first).is_some_and(|j| (j as usize) < self.x.cols);
        let (index, value) = if here { (id, 1.0) } else { (self.first, 0.0) };
        for row in 0..self.x.rows {
            self.record(local, row, index, value)?;
        }
        Ok(())
    }

    fn record(&self, local: &mut Local, row: usize, index: u32, value: f32) -> Result<(), Fault> {
        let at = self.d.at(row);
        if self.keep {
            let old = f32::from_bits(local.word(self.d.space, at + 4)?);
            if value.partial_cmp(&old) != Some(core::cmp::Ordering::Greater) {
                return Ok(());
            }
        }
        let out = local.bytes_mut(self.d.space, at, RECORD)?;
        out.fill(0);
        out[..4].copy_from_slice(&index.to_le_bytes());
        out[4..8].copy_from_slice(&number::to_fp32(value).to_le_bytes());
        Ok(())
    }

    pub fn cost(&self, cfg: &NpuConfig) -> Cost {
        let mut cost = Work {
            rows: self.x.rows,
            cols: self.x.cols,
            passes: 1,
            row_passes: 1,
            special_ops: 0,
            reduces: true,
        }
        .cost(cfg);
        cost.read(self.x.space, self.x.bytes());
        if self.keep {
            cost.read(self.d.space, self.d.bytes());
        }
        cost.write(self.d.space, self.d.bytes());
        cost
    }
}
