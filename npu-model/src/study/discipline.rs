//! How an array takes its operands, as data, and the one law that turns it into cycles.
//!
//! ```text
//!  lead   fold 0        fold 1        ...  last fold   tail   skew          (slots, one streamed row each)
//!  |--R--|chunk|chunk*|chunk|chunk*|  ...  |chunk|chu|--R--|--R+C-2--| + constants
//!                  * the chunk beside which the next stationary operand moves in
//! ```
//!
//! Models: serial, pipelined and hidden exchange of the stationary operand; rows streamed exactly or in chunks;
//!   bubbles; commands that arrive slowly; read latency beyond the operand queues; both operands in one bank.
//! Does not model: write-back stalls, address translation, command hazards other than the paired issue.
//! Source: structure from cycle counts measured on public RTL (Gemmini's mesh and execute controller, tinyTPU,
//!   tiny-tpu, leo47007's TPU, RedMulE) and SCALE-Sim v3; no number is fitted here, each is a preset's value.
//!
//! B stationary (ws): S = M rows stream past folds of K x N. C stationary (os): S = K steps into tiles of M x N.
//! A stationary (is) is ws of the transposed product. All counts are inclusive and exact; `None` is beyond 64 bits.

use serde::{Deserialize, Serialize};

use crate::array::{Array, Cycles, Folding, Product, Rate};

/// Whether folds share the array.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Overlap {
    /// A fold starts when the previous one has drained.
    Serial,
    /// A fold's exchange follows the previous fold's rows at once, but takes slots of its own.
    Pipelined,
    /// The exchange takes place beside the previous fold's rows.
    Hidden,
}

/// Beside what a hidden exchange takes place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Exchange {
    /// There is none, or it needs no slots.
    None,
    /// The whole fold, which lasts at least as many slots.
    Fold,
    /// The fold's last chunk, which lasts at least as many slots.
    TailChunk,
}

/// The last fold of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LastFold {
    /// Has nothing beside it and lasts its rows.
    Exact,
    /// Lasts as long as any other.
    LikeOthers,
}

/// Registers a wavefront passes between the first input and the last output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Skew {
    /// Down the rows and across the columns: R + C - 2.
    RowsAndCols,
    /// Down the rows, inputs being broadcast: R - 1.
    Rows,
    /// None.
    None,
}

/// Rows a compute command streams at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Chunk {
    /// All of them.
    Whole,
    /// As many as the array has.
    Rows,
}

/// What one instruction covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Instruction {
    /// One chunk.
    Chunk,
    /// A chunk of every fold along K: one that overwrites, one that accumulates.
    KFolds,
}

/// Where counting starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CountFrom {
    /// The first operand read.
    Read,
    /// Acceptance of the first command.
    Command,
}

/// What a fold costs where K, M or N leaves part of the array unused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EdgeFolds {
    /// As much as a whole one.
    Padded,
    /// Exchange and skew of its own rows and columns.
    Clipped,
}

/// One way of running an array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode {
    /// Whether folds share the array.
    pub overlap: Overlap,
    /// Slots before the first row (of every fold, if it is exposed), in array heights.
    pub lead: u64,
    /// Operand reads take place in the lead.
    pub lead_reads: bool,
    /// Slots after the last row, in array heights.
    pub tail: u64,
    /// Beside what the exchange takes place.
    pub exchange: Exchange,
    /// The last fold.
    pub last_fold: LastFold,
    /// Pipeline registers.
    pub skew: Skew,
    /// Rows of a compute command.
    pub chunk: Chunk,
    /// Least rows of a chunk that has nothing beside it and is not the last.
    pub chunk_least: u64,
    /// Streamed rows come in multiples of this.
    pub round_to: u64,
    /// Cycles a streamed row takes.
    pub step_cycles: u64,
    /// Idle slots after each instruction.
    pub bubble: u64,
    /// What an instruction covers.
    pub instruction: Instruction,
    /// Idle slots between serial folds.
    pub fold_gap: u64,
    /// Commands a chunk needs.
    pub commands_per_chunk: u64,
    /// Cycles between commands.
    pub command_interval: u64,
    /// From the first command to the first read.
    pub command_latency: u64,
    /// Where counting starts.
    pub count_from: CountFrom,
    /// Scratchpad read latency.
    pub read_latency: u64,
    /// Reads under way at once; 0: as many as the latency asks for.
    pub read_queue: u64,
    /// Both operands lie in one single-ported bank.
    pub same_bank: bool,
    /// Operand buffers and edge registers.
    pub constant: u64,
}

/// The operand that stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stationary {
    /// B: weight-stationary.
    B,
    /// C: output-stationary.
    C,
}

/// Folds along one dimension: whole ones and perhaps a last one of its own size.
#[derive(Clone, Copy)]
struct Folds {
    count: u128,
    whole: u128,
    last: u128,
}

impl Folds {
    fn new(count: u64, whole: u64, last: u64, edges: EdgeFolds) -> Self {
        let last = if edges == EdgeFolds::Padded { whole } else { last };
        Self { count: count.into(), whole: whole.into(), last: last.into() }
    }

    /// PE rows or columns of all of them.
    fn sum(self) -> Option<u128> {
        (self.count - 1).checked_mul(self.whole)?.checked_add(self.last)
    }

    fn first(self) -> u128 {
        if self.count > 1 { self.whole } else { self.last }
    }
}

/// One product on one array in one mode.
pub(super) struct Job {
    mode: Mode,
    height: Folds,
    width: Folds,
    rows: u128,
    stream: u128,
    stationary: Stationary,
}

impl Job {
    /// `None` if a size passes 64 bits.
    pub(super) fn new(
        mode: Mode,
        stationary: Stationary,
        array: Array,
        p: Product,
        rate: Rate,
        edges: EdgeFolds,
    ) -> Option<Self> {
        let (num, den) = rate.fraction();
        let (heights, stream) = match stationary {
            Stationary::B => {
                let folding = Folding::new(array.rows, rate, 0);
                let count = folding.k_folds(p.k);
                let rest = u128::from(p.k) - u128::from(count - 1) * u128::from(folding.fold_rows);
                let last = (rest * u128::from(den)).div_ceil(u128::from(num)).min(array.rows.into());
                let last = u64::try_from(last).ok()?;
                (Folds::new(count, array.rows, last, edges), u128::from(p.m) * u128::from(folding.stretch))
            }
            Stationary::C => {
                let count = p.m.div_ceil(array.rows);
                let heights = Folds::new(count, array.rows, p.m - (count - 1) * array.rows, edges);
                (heights, (u128::from(p.k) * u128::from(den)).div_ceil(u128::from(num)))
            }
        };
        let count = p.n.div_ceil(array.cols);
        let width = Folds::new(count, array.cols, p.n - (count - 1) * array.cols, edges);
        let stream = stream.div_ceil(mode.round_to.into()).checked_mul(mode.round_to.into())?;
        Some(Self { mode, height: heights, width, rows: array.rows.into(), stream, stationary })
    }

    fn folds(&self) -> Option<u128> {
        self.height.count.checked_mul(self.width.count)
    }

    /// Slots of a chunk of `rows`, which must be in step with its commands.
    fn chunk(&self, rows: u128) -> Option<u128> {
        let commands = u128::from(self.mode.commands_per_chunk) * u128::from(self.mode.command_interval);
        let slots = rows.checked_mul(self.mode.step_cycles.into())?.max(commands);
        slots.checked_add(self.mode.bubble.into())
    }

    /// Slots of the chunks before a fold's last, and the rows of that.
    fn chunks(&self) -> Option<(u128, u128)> {
        let size = match self.mode.chunk {
            Chunk::Whole => self.stream,
            Chunk::Rows => self.rows,
        };
        let before = self.stream.div_ceil(size) - 1;
        Some((before.checked_mul(self.chunk(size)?)?, self.stream - before * size))
    }

    /// A fold beside which an operand of `exchange` rows moves.
    fn paired(&self, exchange: u128) -> Option<u128> {
        let (before, tail) = self.chunks()?;
        match self.mode.exchange {
            Exchange::None => before.checked_add(self.chunk(tail)?),
            Exchange::Fold => Some(before.checked_add(self.chunk(tail)?)?.max(self.chunk(exchange)?)),
            Exchange::TailChunk => before.checked_add(self.chunk(tail.max(exchange))?),
        }
    }

    /// A fold with nothing beside it; the job's last ends with its last row and needs no more commands.
    fn alone(&self, last: bool) -> Option<u128> {
        let (before, tail) = self.chunks()?;
        if last {
            let rows = tail.checked_mul(self.mode.step_cycles.into())?;
            return before.checked_add(rows)?.checked_add(self.mode.bubble.into());
        }
        before.checked_add(self.chunk(tail.max(self.mode.chunk_least.into()))?)
    }

    fn lead(&self, rows: u128) -> Option<u128> {
        rows.checked_mul(self.mode.lead.into())
    }

    /// Registers of all folds (serial) or of the last.
    fn skew(&self) -> Option<u128> {
        let folds = self.folds()?;
        let (rows, cols, times) = if self.mode.overlap == Overlap::Serial {
            let rows = self.height.sum()?.checked_mul(self.width.count)?;
            (rows, self.width.sum()?.checked_mul(self.height.count)?, folds)
        } else {
            (self.height.last, self.width.last, 1)
        };
        Some(match self.mode.skew {
            Skew::RowsAndCols => rows.checked_add(cols)? - 2 * times,
            Skew::Rows => rows - times,
            Skew::None => 0,
        })
    }

    /// Slots of all folds: streaming, waiting for the exchange, and for a bank both operands lie in.
    fn active(&self) -> Option<u128> {
        self.streaming()?.checked_add(self.bank_conflicts()?)
    }

    fn streaming(&self) -> Option<u128> {
        let folds = self.folds()?;
        let m = &self.mode;
        if m.instruction == Instruction::KFolds {
            let chunks = self.stream.div_ceil(self.rows);
            let instructions = u128::from(m.bubble) * self.height.count.min(2);
            let rows = self.height.count.checked_mul(self.rows)?.checked_mul(m.step_cycles.into())?;
            return rows.checked_add(instructions)?.checked_mul(chunks)?.checked_mul(self.width.count);
        }
        // Exchanges of whole and of edge folds; a job's first operand has moved in with the lead.
        let exact = m.last_fold == LastFold::Exact;
        let edge = self.width.count;
        let whole = (self.height.count - 1).checked_mul(edge)?;
        let (first_whole, first_edge) = if self.height.count > 1 { (1, 0) } else { (0, 1) };
        match m.overlap {
            Overlap::Serial => {
                let gaps = (folds - 1).checked_mul(m.fold_gap.into())?;
                self.alone(true)?.checked_mul(folds)?.checked_add(gaps)
            }
            Overlap::Pipelined => {
                let leads = self.height.sum()?.checked_mul(edge)? - self.height.first();
                self.alone(false)?
                    .checked_mul(folds - 1)?
                    .checked_add(self.alone(true)?)?
                    .checked_add(self.lead(leads)?)
            }
            Overlap::Hidden if exact => {
                let wholes = self.paired(self.height.whole)?.checked_mul(whole - first_whole)?;
                let edges = self.paired(self.height.last)?.checked_mul(edge - first_edge)?;
                wholes.checked_add(edges)?.checked_add(self.alone(true)?)
            }
            Overlap::Hidden => {
                let wholes = self.paired(self.height.whole)?.checked_mul(whole)?;
                wholes.checked_add(self.paired(self.height.last)?.checked_mul(edge)?)
            }
        }
    }

    /// Slots lost where both operands are read in one slot from one bank.
    fn bank_conflicts(&self) -> Option<u128> {
        match (self.mode.same_bank, self.stationary, self.mode.overlap) {
            // C stays: A and B are read in every slot.
            (true, Stationary::C, _) => self.stream.checked_mul(self.folds()?),
            // B stays: its next rows are read beside A's.
            (true, Stationary::B, Overlap::Hidden) => {
                Some(self.height.sum()?.checked_mul(self.width.count)? - self.height.first())
            }
            _ => Some(0),
        }
    }

    /// What reads lose whose latency is longer than the queue behind it: read i starts a latency after read i - Q.
    fn starved(&self, reads: u128) -> Option<u128> {
        let (latency, queue) = (u128::from(self.mode.read_latency), u128::from(self.mode.read_queue));
        if queue == 0 || latency <= queue || reads == 0 {
            return Some(0);
        }
        ((reads - 1) / queue).checked_mul(latency - queue)
    }

    fn constant(&self) -> u128 {
        let m = &self.mode;
        let start = match m.count_from {
            CountFrom::Read => 0,
            CountFrom::Command => u128::from(m.command_latency) + u128::from(m.command_interval.max(1)) - 1,
        };
        start + u128::from(m.constant) + u128::from(m.read_latency)
    }

    /// Cycles of the job.
    pub(super) fn cycles(&self) -> Option<Cycles> {
        let m = &self.mode;
        let serial = m.overlap == Overlap::Serial;
        let folds = self.folds()?;
        let heights = self.height.sum()?.checked_mul(self.width.count)?;
        let lead = self.lead(if serial { heights } else { self.height.first() })?;
        let tail = (if serial { heights } else { self.height.last }).checked_mul(m.tail.into())?;
        let slots = self.active()?;
        let reads = if m.lead_reads { slots.checked_add(lead)? } else { slots };
        let active = slots.checked_add(self.starved(reads)?)?;
        let uncounted = !m.lead_reads && m.count_from == CountFrom::Read;
        Some(Cycles {
            folds: narrow(folds)?,
            fill: narrow(if uncounted { 0 } else { lead })?,
            active: narrow(active)?,
            drain: narrow(self.skew()?.checked_add(tail)?)?,
            constant: narrow(self.constant())?,
        })
    }

    /// Cycles of this product as one tile in the middle of a job; `last_k` if its sums leave the array after it.
    pub(super) fn tile(&self, last_k: bool) -> Option<u128> {
        let folds = self.folds()?;
        let m = &self.mode;
        let slots = match m.overlap {
            Overlap::Serial => {
                let c = self.cycles()?;
                let drained = last_k || self.stationary == Stationary::B;
                return Some(
                    u128::from(c.fill) + u128::from(c.active) + if drained { c.drain.into() } else { 0 },
                );
            }
            _ if m.instruction == Instruction::KFolds => self.streaming()?,
            Overlap::Pipelined => {
                self.alone(false)?.checked_add(self.lead(self.rows)?)?.checked_mul(folds)?
            }
            Overlap::Hidden => self.paired(self.rows)?.checked_mul(folds)?,
        };
        let slots = slots.checked_add(self.bank_conflicts()?)?;
        slots.checked_add(self.starved(slots)?)
    }

    /// What a job of tiles pays once.
    pub(super) fn once(&self) -> Option<u128> {
        let constant = self.constant();
        if self.mode.overlap == Overlap::Serial {
            return Some(constant);
        }
        let tail = self.height.last.checked_mul(self.mode.tail.into())?;
        self.lead(self.height.first())?.checked_add(self.skew()?)?.checked_add(tail)?.checked_add(constant)
    }
}

fn narrow(value: u128) -> Option<u64> {
    u64::try_from(value).ok()
}
