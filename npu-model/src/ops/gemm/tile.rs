//! Where weights are read from, and the tile they are decoded into.

use super::codes;
use super::kernels::LANES;
use super::weights::Weights;
use crate::fault::Fault;
use crate::local::{Local, Space};

/// The bytes of one stationary B, as its load found them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stationary {
    pub(super) weights: Weights,
    /// Address and contents of rows, and of tables that do not lie in line.
    pub(super) pieces: [(usize, Vec<u8>); 2],
}

/// Where a product takes B from.
#[derive(Clone, Copy)]
pub(super) enum Source<'a> {
    Scratchpad(&'a Local),
    Array(&'a Stationary),
}

impl<'a> Source<'a> {
    pub fn bytes(self, at: usize, len: usize) -> Result<&'a [u8], Fault> {
        match self {
            Self::Scratchpad(local) => local.bytes(Space::Spm, at, len),
            Self::Array(b) => {
                let held = b.pieces.iter().find_map(|(base, bytes)| {
                    let start = at.checked_sub(*base)?;
                    bytes.get(start..start.checked_add(len)?)
                });
                held.ok_or(Fault::operand(at as u64, "keepb: the array does not hold this B"))
            }
        }
    }
}

/// Rows of decoded weights and the table of their group.
#[derive(Clone, Debug, Default)]
pub(super) struct Tile {
    /// Rows of `columns` values.
    pub values: Vec<f32>,
    /// Position of each value in its four rows of K; used by sparse weights only.
    pub positions: Vec<u8>,
    pub row: Vec<f32>,
    pub table: GroupTable,
}

/// The table of a group, a value a column.
#[derive(Clone, Debug, Default)]
pub(super) struct GroupTable {
    pub scales: Vec<f32>,
    /// Zero points or minima.
    pub lows: Vec<f32>,
    /// The same for weights decoded in blocks.
    pub blocks: codes::Table,
    /// Group whose table is loaded.
    pub group: Option<usize>,
    /// Whether every finished weight rounds to fp16 as if it were normal there.
    pub normal: bool,
}

impl Tile {
    /// Room for `rows` rows of `columns`; no table is loaded.
    pub fn reset(&mut self, rows: usize, columns: usize) {
        self.table.group = None;
        self.values.resize(rows * columns, 0.0);
        self.positions.resize(rows * columns, 0);
        self.row.resize(rows * LANES, 0.0);
        self.table.scales.resize(columns, 0.0);
        self.table.lows.resize(columns, 0.0);
    }
}
