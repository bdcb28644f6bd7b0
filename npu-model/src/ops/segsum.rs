//! SEGSUM: rows summed by segment.
//!
//! Shapes: x rows x cols; y one int32 a row, consecutive: the row's segment; imm = segments (u32, 1..=4096);
//!   d segments x cols. Formats: x fp16, bf16 or fp32; d fp32.
//! Arithmetic: d_s = 0 (upd = 1: what is there) plus the rows of segment s, ascending. Rows whose segment is negative
//!   or not below imm are left out. Everything is read before d is written.
//! Bound: one pass over x and one over d.

use isa::npu::Format;

use super::cost::Cost;
use super::operand::Rows;
use super::vector::{FLOATS, Request, Work};
use crate::config::NpuConfig;
use crate::fault::Fault;
use crate::local::Local;

/// Most segments.
const MOST: u64 = 4096;

/// A checked command.
pub(super) struct Plan {
    x: Rows,
    y: Rows,
    d: Rows,
    keep: bool,
}

impl Plan {
    pub fn new(r: &Request<'_>) -> Result<Self, Fault> {
        let segments = r.body.imm;
        if segments == 0 || segments > MOST {
            return Err(Fault::operand(segments, "imm: segments lie between 1 and 4096"));
        }
        let x = r.x(FLOATS)?;
        let y = r.y(&[Format::Int32], r.rows, 1, 0)?;
        let format = r.d_format(&[Format::Fp32])?;
        Ok(Self { x, y, d: r.d_rectangle(format, segments, r.cols)?, keep: r.body.upd == 1 })
    }

    pub fn run(&self, local: &mut Local) -> Result<(), Fault> {
        let cols = self.x.cols;
        let mut x = local.rows.take(cols);
        let mut sums = local.rows.take(self.d.rows * cols);
        if self.keep {
            for (s, sums) in sums.chunks_exact_mut(cols).enumerate() {
                self.d.read(local, s, sums)?;
            }
        }
        for row in 0..self.x.rows {
            let segment = local.word(self.y.space, self.y.at(row))? as usize;
            if segment < self.d.rows {
                self.x.read(local, row, &mut x)?;
                sums[segment * cols..][..cols].iter_mut().zip(&x).for_each(|(s, x)| *s += x);
            }
        }
        for (s, sums) in sums.chunks_exact(cols).enumerate() {
            self.d.write(local, s, sums)?;
        }
        local.rows.give([x, sums]);
        Ok(())
    }

    pub fn cost(&self, cfg: &NpuConfig) -> Cost {
        let both = Work { rows: self.x.rows + self.d.rows, ..Work::elements(&self.x, 1) };
        let mut cost = both.cost(cfg);
        cost.read(self.x.space, self.x.bytes());
        cost.read(self.y.space, self.y.bytes());
        if self.keep {
            cost.read(self.d.space, self.d.bytes());
        }
        cost.write(self.d.space, self.d.bytes());
        cost
    }
}
