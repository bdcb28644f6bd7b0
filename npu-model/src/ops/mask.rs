//! Which columns of a row of scores count, for SOFTMAX and FA_STEP.
//!
//! mask 0: all. mask 1: key k0 + j where it is not after query q0 + r / (rdiv + 1). mask 2: also not `win` or more
//! before the query (win = 0: none is). mask 3: where bit j of the row's bit string is 1, bit 0 lowest in the first
//! byte; the string of a row takes cols / 8 bytes, rounded up.
//! A column that does not count has the score -infinity, whatever was computed for it.

use isa::npu::{Format, Position};

use super::operand::{Rows, Shape};
use super::vector::Request;
use crate::fault::Fault;
use crate::local::{Local, Space};

/// A checked mask.
#[derive(Clone, Copy, Debug)]
pub(super) enum Mask {
    None,
    Position { query: u64, key: u64, rows_per_position: u64, window: u64 },
    Bits(Rows),
}

impl Mask {
    /// The mask a command asks for; bit strings start at granule `bits` of the second source's space.
    pub fn new(r: &Request<'_>, bits: u64) -> Result<Self, Fault> {
        let position = |p: &Position, window| Self::Position {
            query: p.q0,
            key: p.k0,
            rows_per_position: p.rdiv + 1,
            window,
        };
        Ok(match r.body.mask {
            0 => Self::None,
            1 => position(r.position()?, 0),
            2 => {
                let p = r.position()?;
                position(p, p.win)
            }
            _ => Self::Bits(Rows::new(
                r.cfg,
                Shape {
                    what: "the mask's bits leave their memory",
                    space: Space::from_bit(r.body.ys),
                    granule: bits,
                    stride: r.body.yst,
                    rows: r.rows,
                    cols: r.cols.div_ceil(8),
                    format: Format::Int8,
                },
            )?),
        })
    }

    /// Makes the scores of row `row` that do not count -infinity.
    pub fn apply(&self, local: &Local, row: usize, scores: &mut [f32]) -> Result<(), Fault> {
        match *self {
            Self::None => {}
            Self::Position { query, key, rows_per_position, window } => {
                let cols = scores.len() as u64;
                let query = query + row as u64 / rows_per_position;
                let end = (query + 1).saturating_sub(key).min(cols);
                let first = if window == 0 { 0 } else { (query + 1).saturating_sub(window) };
                let start = first.saturating_sub(key).min(end);
                scores[..start as usize].fill(f32::NEG_INFINITY);
                scores[end as usize..].fill(f32::NEG_INFINITY);
            }
            Self::Bits(rows) => {
                let bits = rows.raw(local, row)?;
                for (j, s) in scores.iter_mut().enumerate() {
                    if bits[j / 8] >> (j % 8) & 1 == 0 {
                        *s = f32::NEG_INFINITY;
                    }
                }
            }
        }
        Ok(())
    }

    /// Where the mask's bits are read, and how many bytes.
    pub const fn read(&self) -> Option<(Space, u64)> {
        match self {
            Self::Bits(rows) => Some((rows.space, rows.bytes())),
            _ => None,
        }
    }
}
