//! What a transfer asks of memory, scratchpads and the channel: runs, bytes, cycles.
//!
//! Models: contiguous runs of memory; a page table read before the rows it places; codecs at the channel's width.
//! Does not model: the latency of a list's read from the scratchpad.
//! Source: `isa::npu::dma`; rates are estimates, accuracy class C.

use isa::npu::dma::{PAGE_ENTRY_BYTES, Transform};
use sim_kernel::Hertz;

use super::coding::Coding;
use super::lists::{Found, Side};
use super::{Direction, Transfer, arrange};

/// Bytes a transfer moves, and the cycles its channel needs for them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes read from memory, page table included.
    pub memory_read: u64,
    /// Bytes written to memory.
    pub memory_written: u64,
    /// Bytes read from the issuing core's scratchpad, lists and tables included.
    pub spm_read: u64,
    /// Bytes written to scratchpads, all destinations together.
    pub spm_write: u64,
    /// Bytes that crossed the fabric, times destinations.
    pub fabric: u64,
    /// Bytes that left the core for others, counted once.
    pub crossing: u64,
    /// Bytes the channel moved: those of memory, or of scratchpads where no memory takes part.
    pub moved: u64,
    /// Cycles the channel is busy at its full width.
    pub beats: u64,
}

impl Traffic {
    /// Bytes a second memory may be asked for: what a channel of `channel` bytes a second allows, less where the
    /// channel's cycles go to the scratchpad side.
    #[must_use]
    pub fn cap(&self, channel: u64, width: u64, clock: Hertz) -> u64 {
        let memory = self.memory_read + self.memory_written;
        if memory.div_ceil(width) >= self.beats {
            return channel;
        }
        let rate = u128::from(memory) * u128::from(clock.get()) / u128::from(self.beats);
        channel.min(u64::try_from(rate).unwrap_or(u64::MAX)).max(1)
    }
}

/// Memory runs of one phase of a transfer; the next starts when they are done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Phase {
    /// Contiguous (address, bytes).
    pub runs: Vec<(u64, u64)>,
    /// Whether they are written.
    pub write: bool,
}

fn push(runs: &mut Vec<(u64, u64)>, at: u64, bytes: u64) {
    match runs.last_mut() {
        Some((last, n)) if *last + *n == at => *n += bytes,
        _ => runs.push((at, bytes)),
    }
}

impl Transfer {
    /// Appends the contiguous runs of memory rows to `runs`.
    pub fn runs(&self, found: &Found, runs: &mut Vec<(u64, u64)>) {
        if self.list.is_none() && self.pages.is_none() && self.far.contiguous() {
            return runs.push((self.far.at, self.far.bytes()));
        }
        for at in self.addresses(&self.far, Side::Far, found) {
            let Some(pages) = &self.pages else {
                push(runs, at, self.far.row);
                continue;
            };
            for (page, within, n) in pages.pieces(at, self.far.row) {
                push(runs, found.pages[&page] + within, n);
            }
        }
    }

    /// Runs of the page table.
    fn table_runs(&self, found: &Found) -> Vec<(u64, u64)> {
        let mut runs = Vec::new();
        if let Some(pages) = &self.pages {
            found.pages.keys().for_each(|p| push(&mut runs, pages.entry(*p), PAGE_ENTRY_BYTES));
        }
        runs
    }

    /// The memory phases of a transfer, in order; none if no memory takes part.
    ///
    /// A page table is read before the rows it places; a reduction reads its rows before it writes them.
    #[must_use]
    pub fn phases(&self, found: &Found) -> Vec<Phase> {
        let mut phases = Vec::new();
        if !self.uses_memory() {
            return phases;
        }
        let table = self.table_runs(found);
        if !table.is_empty() {
            phases.push(Phase { runs: table, write: false });
        }
        let mut runs = Vec::new();
        self.runs(found, &mut runs);
        let write = self.direction == Direction::Store;
        if write && self.reduction.is_some() {
            phases.push(Phase { runs: runs.clone(), write: false });
        }
        phases.push(Phase { runs, write });
        phases.retain(|p| !p.runs.is_empty());
        phases
    }

    /// Bytes of zeros written beside the rows of a destination.
    fn padding(&self, found: &Found) -> u64 {
        let to = self.destination();
        if !self.pad {
            return 0;
        }
        let reach = to.padded().row;
        if self.tform != Transform::None {
            return (reach - to.row) * to.rows * to.planes;
        }
        let moved = self.moved_rows(found);
        let source_listed = self.list.is_some_and(|l| (l.side == Side::Far) == core::ptr::eq(to, &self.own));
        let missing = if source_listed { self.plain.1 - moved } else { 0 };
        ((reach - to.row) * moved + reach * missing) * to.planes
    }

    /// What the transfer moves, through a channel of `width` bytes a cycle.
    #[must_use]
    pub fn traffic(&self, found: &Found, width: u64) -> Traffic {
        let (row, _, planes) = self.plain;
        let rows = self.moved_rows(found) * planes;
        let plain = rows * row;
        let streamed = matches!(self.coding, Coding::Stream { .. });
        let far = if streamed { self.far.bytes() } else { rows * self.far.row };
        let own = if self.tform == Transform::None { plain } else { self.own.bytes() };
        let (padding, n) = (self.padding(found), self.destinations());
        let list = self.list.map_or(0, |l| l.bytes());
        let table = self.coding.table(self.direction, row, rows);
        let table_of = |written| table.filter(|t| t.written == written).map_or(0, |t| t.bytes);
        let walked = found.pages.len() as u64 * PAGE_ENTRY_BYTES;
        let reduced = u64::from(self.reduction.is_some());
        let mut t = Traffic { spm_read: list, memory_read: walked, fabric: walked, ..Traffic::default() };
        match self.direction {
            Direction::Load => {
                t.memory_read += far;
                t.spm_read += table_of(false) + reduced * own * n;
                t.spm_write = (own + padding + table_of(true)) * n;
                t.fabric += far + plain * (n - 1);
            }
            Direction::Store => {
                t.memory_read += reduced * far;
                t.memory_written = far;
                t.spm_read += own + table_of(false);
                t.spm_write = table_of(true);
                t.fabric += (1 + reduced) * far;
            }
            Direction::Copy => {
                t.spm_read += own + reduced * plain * n;
                t.spm_write = (plain + padding) * n;
                t.fabric = plain * n;
            }
            Direction::Fill => t.spm_write = own,
        }
        if matches!(self.direction, Direction::Load | Direction::Copy) {
            t.crossing = plain + padding;
        }
        let memory = t.memory_read + t.memory_written;
        t.moved = if self.uses_memory() { memory } else { own };
        t.beats = (memory.max(own + padding).div_ceil(width))
            .max(self.coding.cycles(plain, width))
            .max(arrange::cycles(self.tform, own, width));
        t
    }
}
