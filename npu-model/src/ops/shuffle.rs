//! TRANSPOSE, PERMUTE and PAD: elements moved, none changed.
//!
//! Shapes: x rows x cols. TRANSPOSE: d cols x rows. PERMUTE: imm = n (u32) divides rows; x is n planes of rows / n
//!   rows, d the same rows with the two outer axes exchanged: row i of plane p becomes row p of plane i (heads and
//!   tokens change places). PAD: d rows x (cols + before + after), zeros around x; before is imm 15:0, after
//!   imm 31:16.
//! Formats: x and d the same, of 8, 16 or 32 bits an element. x is read completely before d is written.
//! Bound: one pass, over the columns of d for PAD; TRANSPOSE two (into a square of lanes, and out of it). Class C.

use isa::npu::Format;

use super::cost::Cost;
use super::operand::Rows;
use super::vector::{Request, Work};
use crate::config::NpuConfig;
use crate::fault::Fault;
use crate::local::Local;

/// How elements move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Move {
    Transpose,
    Permute,
    Pad,
}

const FORMATS: &[Format] = &[
    Format::Int8,
    Format::Uint8,
    Format::Fp8E4m3,
    Format::Fp8E5m2,
    Format::Int16,
    Format::Fp16,
    Format::Bf16,
    Format::Int32,
    Format::Fp32,
];

/// A checked command.
pub(super) struct Plan {
    kind: Move,
    x: Rows,
    d: Rows,
    /// Bytes of an element.
    width: usize,
    /// Planes of PERMUTE, or columns before x of PAD.
    count: usize,
}

impl Plan {
    pub fn new(r: &Request<'_>, kind: Move) -> Result<Self, Fault> {
        let x = r.x(FORMATS)?;
        let imm = r.body.imm;
        if r.body.dfm != r.body.xf {
            return Err(Fault::operand(r.body.dfm, "dfm: elements keep their format"));
        }
        let (rows, cols, count) = match kind {
            Move::Transpose => (r.cols, r.rows, 0),
            Move::Permute if imm == 0 || !r.rows.is_multiple_of(imm) => {
                return Err(Fault::operand(imm, "imm: the number of planes does not divide the rows"));
            }
            Move::Permute => (r.rows, r.cols, imm),
            Move::Pad => (r.rows, r.cols + (imm & 0xFFFF) + (imm >> 16), imm & 0xFFFF),
        };
        let width = (x.format.bits() / 8) as usize;
        Ok(Self { kind, x, d: r.d_rectangle(x.format, rows, cols)?, width, count: count as usize })
    }

    pub fn run(&self, local: &mut Local) -> Result<(), Fault> {
        let (rows, cols, w) = (self.x.rows, self.x.cols, self.width);
        let mut all = Vec::with_capacity(rows * self.x.row_bytes);
        for row in 0..rows {
            all.extend_from_slice(self.x.raw(local, row)?);
        }
        for row in 0..self.d.rows {
            let out = local.bytes_mut(self.d.space, self.d.at(row), self.d.row_bytes)?;
            match self.kind {
                Move::Transpose => {
                    for (c, out) in out.chunks_exact_mut(w).enumerate() {
                        out.copy_from_slice(&all[(c * cols + row) * w..][..w]);
                    }
                }
                Move::Permute => {
                    let (planes, inner) = (self.count, rows / self.count);
                    let source = (row % planes) * inner + row / planes;
                    out.copy_from_slice(&all[source * cols * w..][..cols * w]);
                }
                Move::Pad => {
                    out.fill(0);
                    out[self.count * w..][..cols * w].copy_from_slice(&all[row * cols * w..][..cols * w]);
                }
            }
        }
        Ok(())
    }

    pub fn cost(&self, cfg: &NpuConfig) -> Cost {
        let work = match self.kind {
            Move::Transpose => Work::elements(&self.x, 2),
            Move::Permute => Work::elements(&self.x, 1),
            Move::Pad => Work::elements(&self.d, 1),
        };
        let mut cost = work.cost(cfg);
        cost.read(self.x.space, self.x.bytes());
        cost.write(self.d.space, self.d.bytes());
        cost
    }
}
