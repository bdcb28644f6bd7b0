//! Drawing a token on the NPU: every core finds the likeliest of its share of the vocabulary, core 0 gathers them and
//! draws one.
//!
//! Runs behind the head, when logits are in memory and weight slots are idle: candidates, logits and parameters lie
//! there. Core 0 sees the candidates in ascending order of shares, so the draw does not depend on how many cores
//! there are.

use isa::npu::{Command, Format, Position, VecFn, VecOp, Word};

use crate::emit::{Emitter, R_ARENA, R_BULK, Sink};
use crate::norm::{granule, linear};
use crate::plan::share;
use crate::program::{Context, result_offset};
use crate::sem;

/// Most candidates.
pub const MOST: u64 = 1024;
/// Entries of a core's list.
pub const ENTRIES: u64 = 512;
/// Most columns of a vector command.
const COLUMNS: u64 = 65_536;
/// Bytes of the parameter row.
const PARAMETERS: u64 = 32;

/// Byte offset in the arena of the parameter row: behind core 0's result record.
#[must_use]
pub const fn parameters_offset() -> u64 {
    result_offset(0) + 32
}

/// The parameter row: temperature and top-p as fp32 bits.
#[must_use]
pub const fn parameters(temperature: u64, top_p: u64, candidates: u64, seed: u64) -> Word {
    Word([temperature & 0xFFFF_FFFF | top_p << 32, candidates << 32, seed, 0])
}

/// Where things are in the weight slots.
struct Room {
    /// Records of a core: whole granules.
    records: u64,
    /// Cores with a share of the vocabulary, and how many of them come before this one.
    cores: u64,
    before: u64,
    /// First byte of all records, of the parameters, of logits.
    first: u64,
    parameters: u64,
    logits: u64,
    /// Columns that fit there.
    columns: u64,
}

impl Room {
    fn new(cx: &Context, candidates: u64) -> Option<Self> {
        let (p, panels) = (cx.plan, cx.model.lm_head().panels);
        let has = |core: u64| {
            let (from, to) = share(panels, core, cx.caps.cores);
            from < to
        };
        let records = candidates.next_multiple_of(4);
        let cores = (0..cx.caps.cores).filter(|c| has(*c)).count() as u64;
        let before = (0..cx.core).filter(|c| has(*c)).count() as u64;
        let parameters = p.slots + cores * records * 8;
        let logits = parameters + PARAMETERS;
        let left = (p.slots + p.slot_count * p.slot_bytes).checked_sub(logits)?;
        let columns = (left / 32 * 8).min(COLUMNS);
        (columns > 0).then_some(Self { records, cores, before, first: p.slots, parameters, logits, columns })
    }

    const fn own(&self) -> u64 {
        self.first + self.before * self.records * 8
    }
}

/// Writes the list that draws the token of `position` from `candidates`; `None` if it does not fit.
pub fn draw<S: Sink>(e: &mut Emitter<S>, cx: &Context, position: u64, candidates: u64) -> Option<()> {
    let room = Room::new(cx, candidates)?;
    let n = cx.caps.cores;
    let (from, to) = share(cx.model.lm_head().panels, cx.core, n);
    let (start, end) = (from * cx.model.h.panel, to * cx.model.h.panel);
    if (end - start).div_ceil(room.columns) * 3 + 20 > ENTRIES {
        return None;
    }
    // Logits are in memory, and nobody's slots are in use any more.
    e.fence();
    if n > 1 {
        e.sync(&[], &[(sem::DRAW_READY, 1)]);
        e.sync(&[(sem::DRAW_READY, n)], &[]);
    }
    let mut first = start;
    while first < end {
        let columns = room.columns.min(end - first);
        candidates_of(e, cx, &room, (position, first, columns), first == start, first + columns == end);
        first += columns;
    }
    if n > 1 {
        gather(e, cx, &room, start < end);
    }
    if cx.core == 0 {
        sample(e, cx, &room, position);
    }
    e.ret();
    Some(())
}

/// Takes logits of some columns into account.
fn candidates_of<S: Sink>(
    e: &mut Emitter<S>,
    cx: &Context,
    room: &Room,
    (position, first, columns): (u64, u64, u64),
    opens: bool,
    last: bool,
) {
    let ch = cx.caps.misc_channel();
    let load = linear(0, ch, R_BULK, cx.logits_offset + first * 4, room.logits, columns * 4);
    e.push(&[(sem::row_free(0), 1)], &[(sem::row_full(0), 1)], cx.tag, Command::dma(load));
    let v = VecOp {
        x: granule(room.logits),
        d: granule(room.own()),
        cols: columns - 1,
        xf: Format::Fp32.code(),
        yf: Format::Fp32.code(),
        dfm: Format::Fp32.code(),
        imm: room.records,
        upd: u64::from(!opens),
        ..VecOp::default()
    };
    let at = Position { q0: position, k0: first, ..Position::default() };
    // Core 0's stay where they are, and its vector engine draws behind them.
    let sends = last && cx.core > 0;
    let post = [(sem::row_free(0), 1), if sends { (sem::ATT_SEND, 1) } else { (0, 0) }];
    e.push(&[(sem::row_full(0), 1)], &post, cx.tag, Command::vec(VecFn::Topk, v, Some(at)));
}

/// Brings this core's candidates to core 0, and waits for everyone's.
fn gather<S: Sink>(e: &mut Emitter<S>, cx: &Context, room: &Room, any: bool) {
    let n = cx.caps.cores;
    if !any || cx.core == 0 {
        e.sync(&[], &[(sem::DRAW_GATHERED, 1)]);
    } else {
        let own = room.own();
        let mut d = linear(2, cx.caps.out_channel(), 0, granule(own), own, room.records * 8);
        d.cmask = 1;
        e.push(&[(sem::ATT_SEND, 1)], &[(sem::DRAW_GATHERED, 1)], cx.tag, Command::dma(d));
    }
    e.sync(&[(sem::DRAW_GATHERED, n)], &[]);
}

/// Draws one of all candidates.
fn sample<S: Sink>(e: &mut Emitter<S>, cx: &Context, room: &Room, position: u64) {
    let p = cx.plan;
    let ch = cx.caps.misc_channel();
    let load = linear(0, ch, R_ARENA, parameters_offset(), room.parameters, PARAMETERS);
    e.push(&[], &[(sem::row_full(0), 1)], cx.tag, Command::dma(load));
    let v = VecOp {
        x: granule(room.first),
        y: granule(room.parameters),
        d: granule(p.result),
        cols: room.cores * room.records - 1,
        xf: Format::Int32.code(),
        yf: Format::Fp32.code(),
        dfm: Format::Fp32.code(),
        ..VecOp::default()
    };
    let at = Position { q0: position, ..Position::default() };
    e.push(&[(sem::row_full(0), 1)], &[(sem::ATT_SEND, 1)], cx.tag, Command::vec(VecFn::Sample, v, Some(at)));
    let d = linear(1, cx.caps.out_channel(), R_ARENA, cx.result_offset, p.result, 16);
    e.push(&[(sem::ATT_SEND, 1)], &[], cx.tag, Command::dma(d));
}
