//! Attention of one KV head: rotate, append to the cache, then flash attention over blocks of keys.
//!
//! With one row, the query heads of the KV head are packed into the rows of one tile; with more, each query head
//! is a tile of its own. The list of a head is position-dependent: it is written anew for a prefill chunk and
//! patched for a decode step (only the commands that mention the position change).

use isa::npu::{Command, Dma, Format, Gemm, Position, VecFn, VecOp};

use crate::cache::{self, Rows};
use crate::dense::rotation_waits;
use crate::emit::{Emitter, Sem, Sink};
use crate::norm::{everyone, granule, linear};
use crate::plan::share;
use crate::program::Context;
use crate::sem;

const FP16: u64 = Format::Fp16 as u64;
const FP32: u64 = Format::Fp32 as u64;
/// Mask code: keys up to the query and not before its window.
const MASK_WINDOW: u64 = 2;

/// A head's list for positions `start .. start + rows`.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    /// KV head of the model.
    pub head: u64,
    /// Its number among this core's heads.
    pub i: u64,
    /// Position of the first row.
    pub start: u64,
    /// Whether it is a list for layers that see a window.
    pub windowed: bool,
}

/// Whether two decode steps share the command structure, so that patching suffices.
#[must_use]
pub fn same_shape(cx: &Context, windowed: bool, before: u64, now: u64) -> bool {
    let blocks =
        |start: u64| (first_block(cx, windowed, start), (start + cx.plan.rows).div_ceil(cx.plan.block));
    blocks(before) == blocks(now)
}

/// The first block of keys that a query at `position` sees any of: blocks before it are not even read.
fn first_block(cx: &Context, windowed: bool, position: u64) -> u64 {
    if windowed { (position + 1).saturating_sub(cx.model.h.window) / cx.plan.block } else { 0 }
}

/// Most words a head's list can take at `positions` positions.
#[must_use]
pub fn most_words(cx: &Context, positions: u64) -> u64 {
    let (g, tiles) = tiles(cx);
    let blocks = positions.div_ceil(cx.plan.block);
    let extra = 2 * (cache::words(cx) - 1);
    12 + extra + 4 * g + g * tiles * (blocks * (7 + extra) + 2)
}

/// Head tiles and row tiles.
fn tiles(cx: &Context) -> (u64, u64) {
    if cx.plan.rows == 1 {
        (1, cx.model.group().div_ceil(cx.plan.att_rows))
    } else {
        (cx.model.group(), cx.plan.rows.div_ceil(cx.plan.att_rows))
    }
}

/// Norms queries and keys, rotates them, appends K and V to the cache.
fn prologue<S: Sink>(e: &mut Emitter<S>, cx: &Context, h: &Head) {
    let (m, p) = (cx.model, cx.plan);
    let (hd, g, cols) = (m.h.head_dim, m.group(), m.group_cols());
    let at = p.qkv_at(h.i);
    let ready = [rotation_waits(cx, h.head)];
    if m.encoder() {
        // Positions are in the embedding: nothing is normed or rotated.
        return append(e, cx, h, ready[0]);
    }
    let mut acquire: &[Sem] = &ready;
    if m.qk_norm() {
        for k in 0..=g {
            let head = at + k * hd * 2;
            let v = VecOp {
                x: granule(head),
                y: granule(p.qk_norm + if k == g { hd * 4 } else { 0 }),
                d: granule(head),
                rows: p.rows - 1,
                cols: hd - 1,
                xst: granule(cols * 2),
                dst: granule(cols * 2),
                xf: FP16,
                yf: FP32,
                dfm: FP16,
                bc: 1,
                imm: m.h.eps,
                ..VecOp::default()
            };
            e.push(acquire, &[], cx.tag, Command::vec(VecFn::Rmsnorm, v, None));
            acquire = &[];
        }
    }
    let rope = VecOp {
        x: granule(at),
        y: granule(if h.windowed && m.local_rope() { p.inv_freq_local } else { p.inv_freq }),
        d: granule(at),
        rows: p.rows - 1,
        cols: (g + 1) * hd - 1,
        xst: granule(cols * 2),
        dst: granule(cols * 2),
        xf: FP16,
        yf: FP32,
        dfm: FP16,
        bc: 1,
        imm: hd,
        ..VecOp::default()
    };
    let func = if m.rope_inter() { VecFn::RopeInter } else { VecFn::RopeHalf };
    e.push(
        acquire,
        &[(sem::ROTATED, 1)],
        cx.tag,
        Command::vec(func, rope, Some(Position { q0: h.start, ..Position::default() })),
    );
    append(e, cx, h, (sem::ROTATED, 1));
}

/// Appends keys and values to the cache once `ready`.
fn append<S: Sink>(e: &mut Emitter<S>, cx: &Context, h: &Head, ready: Sem) {
    let (m, p) = (cx.model, cx.plan);
    let (hd, g, cols) = (m.h.head_dim, m.group(), m.group_cols());
    let at = p.qkv_at(h.i);
    for value in [false, true] {
        let rows = Rows { head: h.head, value, position: h.start, count: p.rows };
        let store = cache::store(cx, &rows, at + (g + u64::from(value)) * hd * 2, cols * 2);
        let (acquire, post): (&[Sem], &[Sem]) =
            if value { (&[], &[(sem::APPENDED, 1)]) } else { (&[ready], &[]) };
        e.push(acquire, post, cx.tag, store);
    }
}

/// Writes the whole list of a head, or with `only_changed` those commands that mention the position.
///
/// The latter is valid only over a list written for a position of the [`same_shape`].
pub fn head<S: Sink>(e: &mut Emitter<S>, cx: &Context, h: &Head, only_changed: bool) {
    let (p, g) = (cx.plan, cx.model.group());
    prologue(e, cx, h);
    let (head_tiles, row_tiles) = tiles(cx);
    let mut buffer = 0;
    for t in 0..head_tiles * row_tiles {
        let (q, r) = (t / row_tiles, t % row_tiles * p.att_rows);
        let rows = if p.rows == 1 { p.att_rows.min(g - r) } else { p.att_rows.min(p.rows - r) };
        // Keys a tile may see: with one row all, as in an encoder; with more, up to the last row's own position.
        let all = p.rows == 1 || cx.model.encoder();
        let keys = if all { h.start + p.rows } else { h.start + r + rows };
        let blocks = keys.div_ceil(p.block);
        let begin = first_block(cx, h.windowed, h.start + if p.rows == 1 { 0 } else { r });
        for b in begin..blocks {
            let job = Block {
                h,
                q,
                r,
                rows,
                k0: b * p.block,
                keys: p.block.min(keys - b * p.block),
                buffer,
                first: b == begin,
                last: b + 1 == blocks,
                opens: t == 0 && b == begin,
            };
            // A window's first block is where its end moves along.
            if only_changed && !job.last && !(h.windowed && job.first) {
                e.skip(block_words(cx));
            } else {
                block(e, cx, &job);
            }
            buffer = (buffer + 1) % p.kv_buffers;
        }
        finish(e, cx, h, q, r, rows, t + 1 == head_tiles * row_tiles);
    }
    send(e, cx, h);
    e.ret();
}

/// Attention of a head whose queries are loaded, over the first `keys` keys of the cache, all of them seen by all rows.
///
/// The loads of keys and values come behind whatever loads the queries on the same channel, so nothing more is awaited.
pub fn over_keys<S: Sink>(e: &mut Emitter<S>, cx: &Context, h: &Head, keys: u64) {
    let (p, g) = (cx.plan, cx.model.group());
    let (head_tiles, row_tiles) = tiles(cx);
    let mut buffer = 0;
    for t in 0..head_tiles * row_tiles {
        let (q, r) = (t / row_tiles, t % row_tiles * p.att_rows);
        let rows = if p.rows == 1 { p.att_rows.min(g - r) } else { p.att_rows.min(p.rows - r) };
        let blocks = keys.div_ceil(p.block);
        for b in 0..blocks {
            let (first, last) = (b == 0, b + 1 == blocks);
            let (k0, keys) = (b * p.block, p.block.min(keys - b * p.block));
            block(e, cx, &Block { h, q, r, rows, k0, keys, buffer, first, last, opens: false });
            buffer = (buffer + 1) % p.kv_buffers;
        }
        finish(e, cx, h, q, r, rows, t + 1 == head_tiles * row_tiles);
    }
}

struct Block<'a> {
    h: &'a Head,
    q: u64,
    r: u64,
    rows: u64,
    k0: u64,
    keys: u64,
    buffer: u64,
    first: bool,
    last: bool,
    opens: bool,
}

/// Words of a block's commands: two loads, scores, softmax step with extension, values.
fn block_words(cx: &Context) -> u64 {
    4 + 2 * cache::words(cx)
}

/// Offset in SPM and row stride of a tile's queries (and, in place, of its outputs).
fn query(cx: &Context, h: &Head, q: u64, r: u64) -> (u64, u64) {
    let (hd, at) = (cx.model.h.head_dim, cx.plan.qkv_at(h.i));
    if cx.plan.rows == 1 {
        (at + r * hd * 2, hd * 2)
    } else {
        let stride = cx.model.group_cols() * 2;
        (at + q * hd * 2 + r * stride, stride)
    }
}

/// Which keys of a block a tile may not see: with one row those before a window, with more also those behind a row.
fn mask(cx: &Context, j: &Block) -> u64 {
    let one = cx.plan.rows == 1;
    let cut = j.k0 + cx.model.h.window <= j.h.start;
    match (j.h.windowed, one) {
        (false, _) => u64::from(!one && !cx.model.encoder()),
        (true, true) if !cut => 0,
        (true, _) => MASK_WINDOW,
    }
}

fn block<S: Sink>(e: &mut Emitter<S>, cx: &Context, j: &Block) {
    let (m, p) = (cx.model, cx.plan);
    let hd = m.h.head_dim;
    let (b, row) = (j.buffer, hd * 2);
    let kv = p.kv[b as usize];
    let values = kv + p.block * row;
    let rows = |value| Rows { head: j.h.head, value, position: j.k0, count: j.keys };
    let opens = if j.opens { (sem::APPENDED, 1) } else { (0, 0) };
    e.push(&[(sem::kv_free(b), 1), opens], &[], cx.tag, cache::load(cx, &rows(false), kv));
    e.push(&[], &[(sem::kv_full(b), 1)], cx.tag, cache::load(cx, &rows(true), values));
    let (a, ast) = query(cx, j.h, j.q, j.r);
    let scores = Gemm {
        a: granule(a),
        b: granule(kv),
        m: j.rows - 1,
        n: j.keys - 1,
        k: hd - 1,
        ast: granule(ast),
        bst: granule(row),
        af: FP16,
        bf: FP16,
        cf: FP32,
        tb: 1,
        ..Gemm::default()
    };
    e.push(&[(sem::kv_full(b), 1)], &[(sem::SCORES, 1)], cx.tag, Command::gemm(scores, None));
    let mask = mask(cx, j);
    let step = VecOp {
        xs: 1,
        y: granule(p.stats),
        d: granule(p.probs),
        rows: j.rows - 1,
        cols: j.keys - 1,
        dst: granule(p.block * 2),
        xf: FP32,
        yf: FP32,
        dfm: FP16,
        imm: m.h.att_scale,
        mask,
        upd: u64::from(!j.first),
        ..VecOp::default()
    };
    let position = Position {
        q0: j.h.start + if p.rows > 1 { j.r } else { 0 },
        k0: j.k0,
        rdiv: if p.rows == 1 { m.group() - 1 } else { 0 },
        win: if mask == MASK_WINDOW { m.h.window } else { 0 },
        alpha: granule(p.alpha),
        cap: m.attention_cap(),
        ..Position::default()
    };
    e.push(
        &[(sem::SCORES, 1)],
        &[(sem::PROBS, 1)],
        cx.tag,
        Command::vec(VecFn::FaStep, step, Some(position)),
    );
    let output = Gemm {
        a: granule(p.probs),
        b: granule(values),
        c: granule(accumulator(p)),
        s: if j.first { 0 } else { granule(p.alpha) },
        m: j.rows - 1,
        n: hd - 1,
        k: j.keys - 1,
        ast: granule(p.block * 2),
        bst: granule(row),
        af: FP16,
        bf: FP16,
        cf: FP32,
        init: if j.first { 0 } else { 3 },
        ..Gemm::default()
    };
    let free = if j.first { (sem::ATT_FREE, 1) } else { (0, 0) };
    let done = if j.last { (sem::ATT_DONE, 1) } else { (0, 0) };
    e.push(&[(sem::PROBS, 1), free], &[(sem::kv_free(b), 1), done], cx.tag, Command::gemm(output, None));
}

/// The output accumulator lies behind the scores.
fn accumulator(p: &crate::plan::Plan) -> u64 {
    (p.att_rows * p.block * 4).div_ceil(32) * 32
}

fn finish<S: Sink>(e: &mut Emitter<S>, cx: &Context, h: &Head, q: u64, r: u64, rows: u64, last: bool) {
    let (d, dst) = query(cx, h, q, r);
    let v = VecOp {
        x: granule(accumulator(cx.plan)),
        xs: 1,
        y: granule(cx.plan.stats),
        d: granule(d),
        rows: rows - 1,
        cols: cx.model.h.head_dim - 1,
        dst: granule(dst),
        xf: FP32,
        yf: FP32,
        dfm: FP16,
        ..VecOp::default()
    };
    let post = [(sem::ATT_FREE, 1), if last { (sem::ATT_SEND, 1) } else { (0, 0) }];
    e.push(&[(sem::ATT_DONE, 1)], &post, cx.tag, Command::vec(VecFn::FaFin, v, None));
}

/// Multicasts the KV head's outputs into everyone's input of the output projection.
fn send<S: Sink>(e: &mut Emitter<S>, cx: &Context, h: &Head) {
    let (m, p, n) = (cx.model, cx.plan, cx.caps.cores);
    let (from, to) = share(m.h.kv_heads, cx.core, n);
    let bytes = m.group() * m.h.head_dim * 2;
    let d = Dma {
        n0: bytes / 16 - 1,
        n1: p.rows - 1,
        mst1: p.a_stride / 16,
        sst1: granule(m.group_cols() * 2),
        cmask: everyone(n),
        ..linear(2, cx.caps.out_channel(), 0, granule(p.a2 + h.head * bytes), p.qkv_at(h.i), 16)
    };
    let acquire = [(sem::ATT_SEND, 1), if !p.resident && h.head == from { (sem::A_DONE, n) } else { (0, 0) }];
    let post = if h.head + 1 == to { (sem::A_ALL, 1) } else { (0, 0) };
    e.push(&acquire, &[post], cx.tag, Command::dma(d));
}
