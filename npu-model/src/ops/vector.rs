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

use super::approx::{Accuracy, Charge};
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

/// Which of the fields that change a function's meaning it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Takes {
    pub accuracy: bool,
    pub mask: bool,
    pub statistics: bool,
    pub update: bool,
    pub rounding: bool,
    pub predicate: bool,
}

impl Takes {
    /// None of them.
    pub const NONE: Self = Self {
        accuracy: false,
        mask: false,
        statistics: false,
        update: false,
        rounding: false,
        predicate: false,
    };
}

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
        let takes = kernel.takes();
        let flags = [
            (body.setp, takes.predicate, "setp: this function does not write the predicate"),
            (body.rnd, takes.rounding && body.rnd == 3, "rnd: only nearest even executes here"),
            (body.stat, takes.statistics, "stat: this function has no row statistics"),
            (body.acc, takes.accuracy, "acc: this function approximates nothing"),
            (body.mask, takes.mask, "mask: this function masks nothing"),
            (body.upd, takes.update, "upd: this function keeps no running result"),
        ];
        for (value, taken, text) in flags {
            if value != 0 && !taken {
                return Err(Fault::not_in_cap(value, text));
            }
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
        self.x_shaped(format, self.cols)
    }

    /// First source of rows of `cols` elements of `format`.
    pub fn x_shaped(&self, format: Format, cols: u64) -> Result<Rows, Fault> {
        let b = self.body;
        Rows::new(
            self.cfg,
            Shape {
                what: "x leaves its memory",
                space: Space::from_bit(b.xs),
                granule: b.x,
                stride: b.xst,
                rows: self.rows,
                cols,
                format,
            },
        )
    }

    /// Second source's format, one of `formats`.
    pub fn y_format(&self, formats: &[Format]) -> Result<Format, Fault> {
        operand::format_of(self.cfg, self.body.yf, formats, "yf: not a format this function reads")
    }

    /// Second source of `rows` x `cols` in one of `formats`.
    pub fn y(&self, formats: &[Format], rows: u64, cols: u64, stride: u64) -> Result<Rows, Fault> {
        self.y_shaped(self.y_format(formats)?, rows, cols, stride)
    }

    /// Second source of `rows` x `cols` of `format`.
    pub fn y_shaped(&self, format: Format, rows: u64, cols: u64, stride: u64) -> Result<Rows, Fault> {
        Rows::new(self.cfg, self.y_shape(format, rows, cols, stride))
    }

    /// The same where it is written, so its rows must not overlap.
    pub fn y_written(&self, format: Format, rows: u64, cols: u64) -> Result<Rows, Fault> {
        Rows::destination(self.cfg, self.y_shape(format, rows, cols, self.body.yst))
    }

    const fn y_shape(&self, format: Format, rows: u64, cols: u64, stride: u64) -> Shape {
        let b = self.body;
        let space = Space::from_bit(b.ys);
        Shape { what: "y leaves its memory", space, granule: b.y, stride, rows, cols, format }
    }

    /// Destination's format, one of `formats`.
    pub fn d_format(&self, formats: &[Format]) -> Result<Format, Fault> {
        operand::format_of(self.cfg, self.body.dfm, formats, "dfm: not a format this function writes")
    }

    /// Destination in one of `formats`.
    pub fn d(&self, formats: &[Format]) -> Result<Rows, Fault> {
        self.d_cols(formats, self.cols)
    }

    /// Destination rows of `cols` elements in one of `formats`.
    pub fn d_cols(&self, formats: &[Format], cols: u64) -> Result<Rows, Fault> {
        self.d_shaped(self.d_format(formats)?, cols)
    }

    /// Destination rows of `cols` elements of `format`.
    pub fn d_shaped(&self, format: Format, cols: u64) -> Result<Rows, Fault> {
        self.d_rectangle(format, self.rows, cols)
    }

    /// Destination of `rows` x `cols` elements of `format`.
    pub fn d_rectangle(&self, format: Format, rows: u64, cols: u64) -> Result<Rows, Fault> {
        let b = self.body;
        let space = Space::from_bit(b.ds);
        let shape =
            Shape { what: "d leaves its memory", space, granule: b.d, stride: b.dst, rows, cols, format };
        Rows::destination(self.cfg, shape)
    }

    /// Accuracy of special functions.
    pub const fn accuracy(&self) -> Accuracy {
        Accuracy::from_field(self.body.acc)
    }

    /// `rows` x `cols` fp32 values where the position extension's `alpha` says, in SPM, packed.
    pub fn statistics(&self, rows: u64, cols: u64) -> Result<Rows, Fault> {
        Rows::new(
            self.cfg,
            Shape {
                what: "alpha leaves the SPM",
                space: Space::Spm,
                granule: self.position()?.alpha,
                stride: 0,
                rows,
                cols,
                format: Format::Fp32,
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
    /// Work on every element, nothing else yet.
    pub const fn elements(x: &Rows, passes: u64) -> Self {
        Self { rows: x.rows, cols: x.cols, passes, row_passes: 0, special_ops: 0, reduces: false }
    }

    /// Also `n` evaluations of a special function an element; look-ups cost what an elementary operation does.
    pub const fn special(mut self, charge: Charge, n: u64) -> Self {
        self.passes += charge.passes * n;
        self.special_ops += charge.special * n * (self.rows * self.cols) as u64;
        self
    }

    /// Also reduces rows, with `passes` ALU operations and `special` special ones on each row's values.
    pub const fn reducing(mut self, passes: u64, special: u64) -> Self {
        self.row_passes += passes;
        self.special_ops += special * self.rows as u64;
        self.reduces = true;
        self
    }

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
