//! ROPE_HALF and ROPE_INTER: rotary position embedding of every head in a row.
//!
//! Shapes: x and d rows x cols; imm = head width h (u32, even), cols a multiple of h; y = h / 2 inverse frequencies
//!   (fp32); position extension required.
//! Formats: x and d fp16, bf16 or fp32.
//! Arithmetic: row r is at position q0 + r / (rdiv + 1), both integers; angle_i = fp32(position) y_i;
//!   (a, b) becomes (a cos - b sin, a sin + b cos), for the pairs (i, i + h/2) of a head in HALF and
//!   (2i, 2i + 1) in INTER. The same angles serve all heads of a row.
//! Bound: three passes (two products, their sum); per row two passes over h / 2 angles (multiply, then sine; then
//!   cosine).

use isa::npu::Format;

use super::cost::Cost;
use super::operand::Rows;
use super::vector::{FLOATS, Request, Work};
use crate::config::NpuConfig;
use crate::fault::Fault;
use crate::local::Local;

/// Which elements of a head form a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pairing {
    Half,
    Neighbour,
}

/// A checked command.
pub(super) struct Plan {
    pairing: Pairing,
    x: Rows,
    y: Rows,
    d: Rows,
    head: usize,
    first_position: u64,
    rows_per_position: u64,
}

impl Plan {
    pub fn new(r: &Request<'_>, pairing: Pairing) -> Result<Self, Fault> {
        let position = r.position()?;
        let head = r.body.imm;
        if head == 0 || !head.is_multiple_of(2) {
            return Err(Fault::operand(head, "imm: the head width must be even and not zero"));
        }
        if !r.cols.is_multiple_of(head) {
            return Err(Fault::operand(r.cols, "cols: not a multiple of the head width in imm"));
        }
        Ok(Self {
            pairing,
            x: r.x(FLOATS)?,
            y: r.y(&[Format::Fp32], 1, head / 2, 0)?,
            d: r.d(FLOATS)?,
            head: head as usize,
            first_position: position.q0,
            rows_per_position: position.rdiv + 1,
        })
    }

    pub fn run(&self, local: &mut Local) -> Result<(), Fault> {
        let half = self.head / 2;
        let mut x = local.rows.take(self.x.cols);
        let mut frequency = vec![0.0; half];
        self.y.read(local, 0, &mut frequency)?;
        let mut turns = vec![(0.0f32, 0.0f32); half];
        let mut known = None;
        for row in 0..self.x.rows {
            let position = self.first_position + row as u64 / self.rows_per_position;
            if known != Some(position) {
                for (t, f) in turns.iter_mut().zip(&frequency) {
                    let angle = position as f32 * f;
                    *t = (libm::cosf(angle), libm::sinf(angle));
                }
                known = Some(position);
            }
            self.x.read(local, row, &mut x)?;
            for head in x.chunks_exact_mut(self.head) {
                for (i, &(cos, sin)) in turns.iter().enumerate() {
                    let (p, q) = match self.pairing {
                        Pairing::Half => (i, i + half),
                        Pairing::Neighbour => (2 * i, 2 * i + 1),
                    };
                    let (a, b) = (head[p], head[q]);
                    head[p] = a * cos - b * sin;
                    head[q] = a * sin + b * cos;
                }
            }
            self.d.write(local, row, &x)?;
        }
        Ok(())
    }

    pub fn cost(&self, cfg: &NpuConfig) -> Cost {
        let (rows, half) = (self.x.rows as u64, self.head as u64 / 2);
        let lanes = u64::from(cfg.vector_lanes.max(1));
        let mut cost = Work {
            rows: self.x.rows,
            cols: self.x.cols,
            passes: 3,
            row_passes: 0,
            special_ops: 2 * rows * half,
            reduces: false,
        }
        .cost(cfg);
        let angles = 2 * rows * half.div_ceil(lanes);
        cost.cycles += angles;
        cost.active_cycles += angles;
        cost.vector_ops += 2 * rows * half;
        cost.read(self.x.space, self.x.bytes());
        cost.read(self.y.space, self.y.bytes());
        cost.write(self.d.space, self.d.bytes());
        cost
    }
}
