//! QDYN: dynamic quantisation by row, or by blocks along it, to what GEMM's scales of A read.
//!
//! Shapes: x and d rows x cols; `imm` the block's code as GEMM's `grp`: 0 or 1 the row, 2..6 blocks of 16 to 256 (a
//!   last one may be shorter). y, written: for every row and block a scale, with `stat` each followed by the sum of
//!   its block; `yst` from row to row, 0 = packed.
//! Formats: x fp16, bf16 or fp32; d int8, int4, fp8 e4m3 or fp8 e5m2; y fp32, fp16 or bf16.
//! Arithmetic: a = largest |x| of the block (NaNs ignored), L = 127, 7, 448 or 57344; code = x (L / a), the product
//!   and the quotient in fp32, to the nearest that d holds, ties to even, magnitudes clamped to L; scale = a / L in y's
//!   format. A block of zeros has codes and scale 0. NaN quantises to 0, in fp8 to NaN. sum = the codes, added in
//!   fp32 in ascending order, times the scale as stored, in y's format.
//!   The row is read completely before its codes are written, so d may lie on x.
//! Bound: two passes (absolute value, reduced to the maximum; multiply), with sums a third; per block two divisions.

use isa::image::group_rows;
use isa::npu::Format;

use super::cost::Cost;
use super::number;
use super::operand::Rows;
use super::rounding::{self, Rounding};
use super::vector::{FLOATS, Request, Work};
use crate::config::NpuConfig;
use crate::fault::Fault;
use crate::local::Local;

/// A checked command.
pub(super) struct Plan {
    x: Rows,
    scales: Rows,
    d: Rows,
    block: usize,
    sums: bool,
    /// Largest magnitude of a code.
    limit: f32,
}

/// The table's rows; they are written, so they must not overlap.
fn table(r: &Request<'_>, values: u64) -> Result<Rows, Fault> {
    let scales = r.y(FLOATS, r.rows, values, r.body.yst)?;
    if scales.stride < scales.row_bytes && scales.rows > 1 {
        return Err(Fault::operand(r.body.yst, "yst: rows of scales overlap"));
    }
    Ok(scales)
}

impl Plan {
    pub fn new(r: &Request<'_>) -> Result<Self, Fault> {
        let code = r.body.imm;
        if code > 6 {
            return Err(Fault::operand(code, "imm: not a block of a row"));
        }
        let block = match group_rows(code) {
            0 => r.cols,
            rows => rows,
        };
        let values = r.cols.div_ceil(block) * (1 + r.body.stat);
        let d = r.d(&[Format::Int8, Format::Int4, Format::Fp8E4m3, Format::Fp8E5m2])?;
        let limit = match d.format {
            Format::Int4 => 7.0,
            Format::Fp8E4m3 => 448.0,
            Format::Fp8E5m2 => 57_344.0,
            _ => 127.0,
        };
        Ok(Self {
            x: r.x(FLOATS)?,
            scales: table(r, values)?,
            d,
            block: block as usize,
            sums: r.body.stat == 1,
            limit,
        })
    }

    pub fn run(&self, local: &mut Local) -> Result<(), Fault> {
        let mut x = vec![0.0; self.x.cols];
        let mut table = vec![0.0; self.scales.cols];
        let each = 1 + usize::from(self.sums);
        for row in 0..self.x.rows {
            self.x.read(local, row, &mut x)?;
            for (block, out) in x.chunks_mut(self.block).zip(table.chunks_mut(each)) {
                let largest = block.iter().fold(0.0, |most, v| number::max(most, v.abs()));
                let inverse = if largest == 0.0 { 0.0 } else { self.limit / largest };
                for v in block {
                    // Rounding to an integer twice is rounding once.
                    let code = *v * inverse;
                    let code = if self.limit > 127.0 { code } else { code.round_ties_even() };
                    *v = code.clamp(-self.limit, self.limit);
                }
                out[0] = largest / self.limit;
            }
            let bytes = local.bytes_mut(self.d.space, self.d.at(row), self.d.row_bytes)?;
            rounding::encode_row(self.d.format, &x, Rounding::NearestEven, true, 0, bytes);
            number::decode_row(self.d.format, bytes, &mut x);
            self.scales.write(local, row, &table)?;
            if self.sums {
                let mut stored = table.clone();
                self.scales.read(local, row, &mut stored)?;
                for (i, block) in x.chunks(self.block).enumerate() {
                    table[each * i + 1] = block.iter().fold(0.0, |sum, v| sum + v) * stored[each * i];
                }
                self.scales.write(local, row, &table)?;
            }
        }
        Ok(())
    }

    pub fn cost(&self, cfg: &NpuConfig) -> Cost {
        let blocks = self.x.cols.div_ceil(self.block) as u64;
        let mut cost = Work {
            rows: self.x.rows,
            cols: self.x.cols,
            passes: 2 + u64::from(self.sums),
            row_passes: (2 + u64::from(self.sums)) * blocks,
            special_ops: 2 * self.x.rows as u64 * blocks,
            reduces: true,
        }
        .cost(cfg);
        cost.read(self.x.space, self.x.bytes());
        cost.write(self.d.space, self.d.bytes());
        cost.write(self.scales.space, self.scales.bytes());
        cost
    }
}
