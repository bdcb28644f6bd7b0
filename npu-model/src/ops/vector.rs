//! What all VEC functions share: field rules, operands, and the lanes' timing.
//!
//! Models: lanes that take one fp32 element each a cycle through ALU, special-function unit, reduction unit and
//!   format conversion, in this order and fully pipelined. An element passes once for every ALU operation it
//!   needs in sequence; whatever the later units do to it rides along.
//! Does not model: packing of short rows into one pass, port conflicts.
//! Source: estimate, accuracy class C; the pipeline depths below say where they come from.
//!
//! cycles = start-up + rows x ceil(cols / lanes) x passes + ceil(rows / lanes) x row passes.
//! The order of a sum is part of the arithmetic, not of the timing: the reduction unit is charged as a tree.

use isa::npu::{Format, Position, VecOp};

use super::cost::Cost;
use super::operand::{self, Rows, Shape};
use super::{Kernel, number};
use crate::array::READ_LATENCY;
use crate::config::NpuConfig;
use crate::fault::Fault;
use crate::local::Space;

/// Stages of an fp32 ALU: three pipeline registers and the output (RedMulE's multiply-add units, public RTL).
const ALU_STAGES: u64 = 4;
/// Command latency: scratchpad read, one ALU, one write. Estimate from the stages above, accuracy class C.
const START: u64 = READ_LATENCY + ALU_STAGES + 1;

/// Formats of a float operand.
pub(super) const FLOATS: &[Format] = &[Format::Fp16, Format::Bf16, Format::Fp32];

/// A VEC command whose common fields are checked.
pub(super) struct Request<'a> {
    pub cfg: &'a NpuConfig,
    pub body: &'a VecOp,
    pub position: Option<&'a Position>,
    pub rows: u64,
    pub cols: u64,
}

impl<'a> Request<'a> {
    pub fn new(
        cfg: &'a NpuConfig,
        body: &'a VecOp,
        position: Option<&'a Position>,
        kernel: Kernel,
    ) -> Result<Self, Fault> {
        let flags = [
            (body.rnd, "rnd: only nearest even executes"),
            // QDYN's statistics are the sums of its blocks.
            (if kernel == Kernel::Qdyn { 0 } else { body.stat }, "stat: row statistics are not written"),
            (body.setp, "setp: VEC does not write the predicate"),
            (body.acc, "acc: only the exact reference executes"),
        ];
        for (value, text) in flags {
            if value != 0 {
                return Err(Fault::not_in_cap(value, text));
            }
        }
        if body.mask != 0 && kernel != Kernel::FlashStep {
            return Err(Fault::not_in_cap(body.mask, "mask: only FA_STEP masks"));
        }
        if body.upd != 0 && !matches!(kernel, Kernel::FlashStep | Kernel::Argmax) {
            return Err(Fault::not_in_cap(body.upd, "upd: only FA_STEP and ARGMAX keep running results"));
        }
        Ok(Self { cfg, body, position, rows: body.rows + 1, cols: body.cols + 1 })
    }

    /// The position extension.
    pub fn position(&self) -> Result<&'a Position, Fault> {
        self.position.ok_or(Fault::operand(self.body.func, "this function needs the position extension"))
    }

    /// First source, in one of `formats`.
    pub fn x(&self, formats: &[Format]) -> Result<Rows, Fault> {
        let b = self.body;
        let format = operand::format_of(self.cfg, b.xf, formats, "xf: not a format this function reads")?;
        Rows::new(
            self.cfg,
            Shape {
                what: "x leaves its memory",
                space: Space::from_bit(b.xs),
                granule: b.x,
                stride: b.xst,
                rows: self.rows,
                cols: self.cols,
                format,
            },
        )
    }

    /// Second source of `rows` x `cols` in one of `formats`.
    pub fn y(&self, formats: &[Format], rows: u64, cols: u64, stride: u64) -> Result<Rows, Fault> {
        let b = self.body;
        let format = operand::format_of(self.cfg, b.yf, formats, "yf: not a format this function reads")?;
        Rows::new(
            self.cfg,
            Shape {
                what: "y leaves its memory",
                space: Space::from_bit(b.ys),
                granule: b.y,
                stride,
                rows,
                cols,
                format,
            },
        )
    }

    /// Destination in one of `formats`.
    pub fn d(&self, formats: &[Format]) -> Result<Rows, Fault> {
        let b = self.body;
        let format = operand::format_of(self.cfg, b.dfm, formats, "dfm: not a format this function writes")?;
        self.d_shaped(format, self.cols)
    }

    /// Destination rows of `cols` elements of `format`.
    pub fn d_shaped(&self, format: Format, cols: u64) -> Result<Rows, Fault> {
        let b = self.body;
        Rows::destination(
            self.cfg,
            Shape {
                what: "d leaves its memory",
                space: Space::from_bit(b.ds),
                granule: b.d,
                stride: b.dst,
                rows: self.rows,
                cols,
                format,
            },
        )
    }

    /// The immediate as fp32.
    pub fn imm(&self) -> f32 {
        f32::from_bits(self.body.imm as u32)
    }
}

/// Work of a function, for its cost.
pub(super) struct Work {
    pub rows: usize,
    pub cols: usize,
    /// ALU operations an element needs in sequence.
    pub passes: u64,
    /// The same for values that exist once a row.
    pub row_passes: u64,
    /// Exponentials, divisions and so on in all.
    pub special_ops: u64,
    /// Whether a row is reduced to one value.
    pub reduces: bool,
}

impl Work {
    /// Timing and operation counts; operands are charged by the caller.
    pub fn cost(&self, cfg: &NpuConfig) -> Cost {
        let lanes = u64::from(cfg.vector_lanes.max(1));
        let (rows, cols) = (self.rows as u64, self.cols as u64);
        let active = rows * cols.div_ceil(lanes) * self.passes + rows.div_ceil(lanes) * self.row_passes;
        let tree = if self.reduces { u64::from(lanes.next_power_of_two().ilog2()) * ALU_STAGES } else { 0 };
        Cost {
            cycles: START + active + tree,
            start_cycles: START,
            active_cycles: active,
            drain_cycles: tree,
            vector_ops: rows * cols * self.passes + rows * self.row_passes,
            special_ops: self.special_ops,
            ..Cost::default()
        }
    }
}

const _: () = assert!(number::FORMATS >> Format::Fp32.code() & 1 == 1, "the vector engine computes in fp32");
