//! The DMA engine: what a command touches on both sides, moving the bytes, and what that takes.
//!
//! ```text
//! memory or remote scratchpad ─ rows, list, pages ─ codec ─ plain rows ─ tform ─ rows ─ own scratchpad
//!        `far` grid                `lists`          `coding`             `arrange`      `own` grid
//! ```
//! Models: four directions with strides on both sides, multicast, lists, page tables, codecs, arrangements, reduction.
//! Does not model: streams compressed by the engine itself (codecs 1 to 4 only load).
//! Source: `isa::npu::dma` (layouts), `isa::npu::layout` (fields).
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap,
    reason = "byte codecs narrow on purpose; addresses are checked against a memory before they are narrowed"
)]

mod apply;
mod arrange;
mod check;
mod coding;
mod grid;
mod lists;
mod reduce;
mod ring;
mod traffic;

use std::collections::BTreeMap;

use isa::npu::dma::{Addressing, Codec, Reduction, Transform};
use isa::npu::registers::FaultCode;

pub use grid::Grid;
pub use lists::Found;
pub use ring::Ring;
pub use traffic::{Phase, Traffic};

use crate::fault::Fault;
use crate::memory::{BusFault, Memory};
use coding::Coding;
use lists::{List, Pages, Side};

/// A region register: base address and limit in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Region {
    /// Address of offset 0.
    pub base: u64,
    /// Bytes.
    pub limit: u64,
}

/// Where a transfer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Memory to scratchpads.
    Load,
    /// Scratchpad to memory.
    Store,
    /// Scratchpad to scratchpads.
    Copy,
    /// A word into a scratchpad.
    Fill,
}

/// A checked transfer.
#[derive(Clone, Copy, Debug)]
pub struct Transfer {
    /// Direction.
    pub direction: Direction,
    /// Destination cores, bit mask; 0 = this core.
    pub cores: u64,
    /// Rows in memory, or in the destination scratchpads of a copy.
    pub far: Grid,
    /// Rows in the own scratchpad (of a load: in the scratchpads of all destinations).
    pub own: Grid,
    /// Plain rows: bytes, rows of a plane, planes.
    plain: (u64, u64, u64),
    coding: Coding,
    tform: Transform,
    list: Option<List>,
    pages: Option<Pages>,
    reduction: Option<Reduction>,
    /// Rows that are written are filled with zeros up to their stride.
    pad: bool,
    word: u32,
}

impl Transfer {
    /// Reads what decides the addresses: the list in the issuing core's scratchpad, the page table in memory.
    ///
    /// # Errors
    /// Entries beyond their bound, pages beyond the region, memory that does not answer.
    pub fn find(&self, spm: &[u8], memory: &mut dyn Memory) -> Result<Found, Fault> {
        let mut found = Found::default();
        if let Some(list) = &self.list {
            found.list = Some(list.read(spm, self.plain.1)?);
        }
        if let Some(pages) = &self.pages {
            let mut known = BTreeMap::new();
            for at in self.addresses(&self.far, Side::Far, &found) {
                for (page, _, _) in pages.pieces(at, self.far.row) {
                    pages.walk(page, &mut known, memory)?;
                }
            }
            found.pages = known;
        }
        Ok(found)
    }

    /// Addresses of a side's rows that move, in order.
    fn addresses<'a>(
        &self,
        grid: &'a Grid,
        side: Side,
        found: &'a Found,
    ) -> impl Iterator<Item = u64> + use<'a> {
        // An arrangement or a stream changes the rows of one side; neither goes with a list on that side.
        let rows = if grid.rows == self.plain.1 { self.moved_rows(found) } else { grid.rows };
        let list = found.list.as_deref().filter(|_| self.list.is_some_and(|l| l.side == side));
        (0..grid.planes)
            .flat_map(move |p| (0..rows).map(move |r| grid.row_at(p, list.map_or(r, |l| l[r as usize]))))
    }

    /// Plain rows of a plane that move.
    fn moved_rows(&self, found: &Found) -> u64 {
        found.list.as_ref().map_or(self.plain.1, |l| l.len() as u64)
    }

    /// The grid that is written.
    const fn destination(&self) -> &Grid {
        match self.direction {
            Direction::Load | Direction::Fill => &self.own,
            Direction::Store | Direction::Copy => &self.far,
        }
    }

    /// Whether memory beyond the cluster takes part.
    #[must_use]
    pub const fn uses_memory(&self) -> bool {
        matches!(self.direction, Direction::Load | Direction::Store)
    }

    /// Cores written, this core included where it is one of them.
    #[must_use]
    pub fn destinations(&self) -> u64 {
        u64::from(self.cores.count_ones()).max(1)
    }
}

/// What CAP_MOVES reads: every code of the tables executes.
#[must_use]
pub fn caps() -> u64 {
    let bits = |n: usize| (1u64 << n) - 1;
    bits(Codec::ALL.len())
        | bits(Transform::ALL.len()) << 16
        | bits(Addressing::ALL.len()) << 20
        | bits(Reduction::ALL.len()) << 24
}

fn bus(e: BusFault) -> Fault {
    Fault::new(FaultCode::Bus, e.0, "memory does not answer")
}
