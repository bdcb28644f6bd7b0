//! QDYN: dynamic quantisation to int8 by row.
//!
//! Shapes: x and d rows x cols; y one scale a row, consecutive (written).
//! Formats: x fp16, bf16 or fp32; d int8; y fp32.
//! Arithmetic: a = largest |x| of the row (NaNs ignored); q = x (127 / a) to the nearest integer, ties to even,
//!   clamped to +-127; scale = a / 127. A row of zeros has codes and scale 0. NaN quantises to 0.
//!   The row is read completely before its codes are written, so d may lie on x.
//! Bound: two passes (absolute value, reduced to the maximum; multiply); per row two divisions.

use isa::npu::Format;

use super::cost::Cost;
use super::operand::Rows;
use super::vector::{FLOATS, Request, Work};
use crate::config::NpuConfig;
use crate::fault::Fault;
use crate::local::Local;

/// A checked command.
pub(super) struct Plan {
    x: Rows,
    scales: Rows,
    d: Rows,
}

impl Plan {
    pub fn new(r: &Request<'_>) -> Result<Self, Fault> {
        Ok(Self { x: r.x(FLOATS)?, scales: r.y(&[Format::Fp32], r.rows, 1, 0)?, d: r.d(&[Format::Int8])? })
    }

    pub fn run(&self, local: &mut Local) -> Result<(), Fault> {
        let mut x = vec![0.0; self.x.cols];
        for row in 0..self.x.rows {
            self.x.read(local, row, &mut x)?;
            let mut largest = 0.0f32;
            for v in &x {
                if v.abs() > largest {
                    largest = v.abs();
                }
            }
            let inverse = if largest == 0.0 { 0.0 } else { 127.0 / largest };
            let codes = local.bytes_mut(self.d.space, self.d.at(row), self.d.row_bytes)?;
            for (code, v) in codes.iter_mut().zip(&x) {
                // `as` maps NaN to 0; the clamp keeps -128 out.
                *code = ((v * inverse).round_ties_even().clamp(-127.0, 127.0) as i8).cast_unsigned();
            }
            self.scales.write(local, row, &[largest / 127.0])?;
        }
        Ok(())
    }

    pub fn cost(&self, cfg: &NpuConfig) -> Cost {
        let mut cost = Work {
            rows: self.x.rows,
            cols: self.x.cols,
            passes: 2,
            row_passes: 2,
            special_ops: 2 * self.x.rows as u64,
            reduces: true,
        }
        .cost(cfg);
        cost.read(self.x.space, self.x.bytes());
        cost.write(self.d.space, self.d.bytes());
        cost.write(self.scales.space, self.scales.bytes());
        cost
    }
}
