//! What only encoders compute: embeddings with positions and types, layer norms in place, and the mean of all rows or
//! the first.
//!
//! An encoder norms the sum of residual stream and output, and goes on with the result. So each norm rewrites the
//! residual stream before it makes the next input of it; the norm behind a layer is done where the next one starts.

use isa::image::{FLAG_POOL_FIRST, FLAG_POOL_PLAIN};
use isa::npu::{Command, Dma, Format, VecFn, VecOp};

use crate::emit::{Emitter, R_BULK, R_GAIN, R_IMAGE, R_LAYER, R_SHIFT, Sem, Sink};
use crate::model::Model;
use crate::norm::{granule, linear, qkv_bias};
use crate::program::Context;
use crate::sem;

const FP16: u64 = Format::Fp16 as u64;
const FP32: u64 = Format::Fp32 as u64;
/// Second operand: one row for all; one value a row; the immediate.
const ROW: u64 = 1;
const COLUMN: u64 = 2;
const IMMEDIATE: u64 = 3;
/// Least square of the norm the result is divided by: 1e-12 squared, as PyTorch's `normalize` has it.
const LEAST_SQUARE: u64 = 1e-24f32.to_bits() as u64;

/// What a norm's weights are loaded with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Also {
    /// Biases of QKV and of the attention output.
    Attention,
    /// Biases of up and down projection: the layer before may still read its own when `Attention`'s are loaded.
    FeedForward,
    /// Nothing.
    Nothing,
}

/// Loads a norm's gain and bias, and what else is due, before them.
pub fn load<S: Sink>(e: &mut Emitter<S>, cx: &Context, gain: (u64, u64), shift: (u64, u64), also: Also) {
    let (h, p, ch) = (&cx.model.h, cx.plan, cx.caps.misc_channel());
    let mut acquire: &[Sem] = &[(sem::NORM_FREE, 1)];
    let [out, up, down] = p.dense_bias;
    let bias = |offset, n, at| Some(linear(0, ch, R_LAYER, offset, at, n * 4));
    let due = match also {
        Also::Attention => [bias(h.out_bias, h.hidden, out), qkv_bias(cx)],
        Also::FeedForward => [bias(h.up_bias, h.ffn, up), bias(h.down_bias, h.hidden, down)],
        Also::Nothing => [None, None],
    };
    for d in due.into_iter().flatten() {
        e.push(acquire, &[], cx.tag, Command::dma(d));
        acquire = &[];
    }
    e.push(acquire, &[], cx.tag, Command::dma(linear(0, ch, gain.0, gain.1, p.norm, h.hidden * 4)));
    let d = linear(0, ch, shift.0, shift.1, p.norm + h.hidden * 4, h.hidden * 4);
    e.push(&[], &[(sem::NORM_FULL, 1)], cx.tag, Command::dma(d));
}

/// The layer norm of fp32 rows in place.
#[must_use]
pub fn layernorm(cx: &Context, rows: u64, x: u64) -> Command {
    let hidden = cx.model.h.hidden;
    let v = VecOp {
        x: granule(x),
        y: granule(cx.plan.norm),
        d: granule(x),
        rows: rows - 1,
        cols: hidden - 1,
        xf: FP32,
        yf: FP32,
        dfm: FP32,
        imm: cx.model.h.eps,
        ..VecOp::default()
    };
    Command::vec(VecFn::Layernorm, v, None)
}

/// The layer norm of packed fp32 rows as packed fp16 rows.
#[must_use]
pub fn layernorm_to(cx: &Context, rows: u64, x: u64, d: u64) -> Command {
    let v = VecOp {
        x: granule(x),
        y: granule(cx.plan.norm),
        d: granule(d),
        rows: rows - 1,
        cols: cx.model.h.hidden - 1,
        xf: FP32,
        yf: FP32,
        dfm: FP16,
        imm: cx.model.h.eps,
        ..VecOp::default()
    };
    Command::vec(VecFn::Layernorm, v, None)
}

/// Rows from fp32 to fp16 rows at `stride`.
#[must_use]
pub fn narrow(cx: &Context, rows: u64, x: u64, (d, stride): (u64, u64)) -> Command {
    let v = VecOp {
        x: granule(x),
        d: granule(d),
        rows: rows - 1,
        cols: cx.model.h.hidden - 1,
        dst: granule(stride),
        xf: FP32,
        yf: FP32,
        dfm: FP16,
        ..VecOp::default()
    };
    Command::vec(VecFn::Cvt, v, None)
}

/// The resident norm: every core norms its copy of the residual stream and makes its GEMM input of it.
pub fn norm_resident<S: Sink>(e: &mut Emitter<S>, cx: &Context) {
    let p = cx.plan;
    let wait = [(sem::X_ALL, cx.caps.cores), (sem::NORM_FULL, 1)];
    e.push(&wait, &[(sem::NORM_FREE, 1)], cx.tag, layernorm(cx, p.rows, p.x));
    e.push(&[], &[(sem::A_READY, 1)], cx.tag, narrow(cx, p.rows, p.x, (p.a, p.a_stride)));
}

/// Rows of fp16 plus a row vector of fp16, as fp32.
fn add_type(cx: &Context, rows: u64, (x, stride): (u64, u64), d: u64) -> Command {
    let v = VecOp {
        x: granule(x),
        y: granule(cx.plan.norm),
        d: granule(d),
        rows: rows - 1,
        cols: cx.model.h.hidden - 1,
        xst: granule(stride),
        xf: FP16,
        yf: FP16,
        dfm: FP32,
        bc: ROW,
        ..VecOp::default()
    };
    Command::vec(VecFn::Add, v, None)
}

/// Rows of fp32 plus rows of fp16, in place.
fn add_positions(cx: &Context, rows: u64, x: u64, y: u64) -> Command {
    let v = VecOp {
        x: granule(x),
        y: granule(y),
        d: granule(x),
        rows: rows - 1,
        cols: cx.model.h.hidden - 1,
        xf: FP32,
        yf: FP16,
        dfm: FP32,
        ..VecOp::default()
    };
    Command::vec(VecFn::Add, v, None)
}

fn load_type<S: Sink>(e: &mut Emitter<S>, cx: &Context) {
    // Every token is of the first type; its row takes the norm's place until the first norm.
    let h = &cx.model.h;
    let d = linear(0, cx.caps.misc_channel(), R_IMAGE, h.token_types, cx.plan.norm, h.hidden * 2);
    e.push(&[(sem::NORM_FREE, 1)], &[(sem::NORM_FULL, 1)], cx.tag, Command::dma(d));
}

fn positions(cx: &Context, r: u64, rows: u64, at: u64) -> Dma {
    let h = &cx.model.h;
    Dma {
        n0: h.hidden * 2 / 16 - 1,
        n1: rows - 1,
        mst1: h.embed_stride / 16,
        ..linear(0, cx.caps.misc_channel(), R_IMAGE, h.positions + (cx.first + r) * h.embed_stride, at, 16)
    }
}

/// Token rows, which are where the GEMM input will be, plus type and positions: the residual stream.
pub fn sum_resident<S: Sink>(e: &mut Emitter<S>, cx: &Context) {
    let p = cx.plan;
    load_type(e, cx);
    e.push(&[], &[(sem::row_full(1), 1)], cx.tag, Command::dma(positions(cx, 0, p.rows, p.a2)));
    let wait = [(sem::row_full(0), 1), (sem::NORM_FULL, 1)];
    e.push(&wait, &[(sem::NORM_FREE, 1)], cx.tag, add_type(cx, p.rows, (p.a, p.a_stride), p.x));
    e.push(&[(sem::row_full(1), 1)], &[(sem::X_ALL, 1)], cx.tag, add_positions(cx, p.rows, p.x, p.a2));
}

/// The same for a batch of rows: token rows at `buffer`, sums at `wide`, positions behind them.
pub fn sum_spilled<S: Sink>(
    e: &mut Emitter<S>,
    cx: &Context,
    (r, rows): (u64, u64),
    (b, buffer, wide): (u64, u64, u64),
    (first, last): (bool, bool),
) {
    let hidden = cx.model.h.hidden;
    if first {
        load_type(e, cx);
    }
    let at = wide + cx.plan.row_batch * hidden * 4;
    e.push(&[], &[(sem::row_full(b), 1)], cx.tag, Command::dma(positions(cx, r, rows, at)));
    let wait = [(sem::row_full(b), 2), if first { (sem::NORM_FULL, 1) } else { (0, 0) }];
    let free: &[Sem] = if last { &[(sem::NORM_FREE, 1)] } else { &[] };
    e.push(&wait, free, cx.tag, add_type(cx, rows, (buffer, hidden * 2), wide));
    e.push(&[], &[(sem::out_full(b), 1)], cx.tag, add_positions(cx, rows, wide, at));
}

/// Whether the vector is that of the first row.
pub(crate) const fn pools_first(model: &Model) -> bool {
    model.h.flags & FLAG_POOL_FIRST != 0
}

/// Rows the vector is made of.
const fn pooled(cx: &Context) -> u64 {
    if pools_first(cx.model) { 1 } else { cx.plan.rows }
}

/// Behind the last layer: the last norm, the mean of the pooled rows, and that at length one, to memory.
///
/// The first core does it: the sum's order is that of the rows, whatever the plan.
pub fn pool<S: Sink>(e: &mut Emitter<S>, cx: &Context) {
    let (p, n) = (cx.plan, cx.caps.cores);
    if cx.core > 0 {
        e.sync_in_order(&[(sem::X_ALL, n)], &[]);
        return e.ret();
    }
    load(e, cx, (R_GAIN, 0), (R_SHIFT, 0), Also::Nothing);
    // All rows go to pool 0.
    let zeros =
        Dma { dir: 3, ..linear(0, cx.caps.misc_channel(), 0, 0, p.segments, (p.rows * 4).div_ceil(16) * 16) };
    // Not A_READY: the last layer's first GEMM, still queued, would take it for the norm's.
    e.push(&[], &[(sem::logits_full(0), 1)], cx.tag, Command::dma(zeros));
    if p.resident {
        let wait = [(sem::X_ALL, n), (sem::NORM_FULL, 1)];
        e.push(&wait, &[(sem::NORM_FREE, 1)], cx.tag, layernorm(cx, pooled(cx), p.x));
        e.push(&[(sem::logits_full(0), 1)], &[], cx.tag, add_rows(cx, pooled(cx), p.x, false));
    } else {
        pool_spilled(e, cx);
    }
    scale(e, cx, pooled(cx));
    send_pool(e, cx);
    e.ret();
}

/// Writes the finished pool to memory.
pub(crate) fn send_pool<S: Sink>(e: &mut Emitter<S>, cx: &Context) {
    let (at, bytes) = (cx.plan.pool, cx.model.h.hidden * 4);
    let d = linear(1, cx.caps.out_channel(), R_BULK, cx.logits_offset, at, bytes);
    e.push(&[(sem::ATT_SEND, 1)], &[], cx.tag, Command::dma(d));
}

fn pool_spilled<S: Sink>(e: &mut Emitter<S>, cx: &Context) {
    let (m, p) = (cx.model, cx.plan);
    let (panel, hidden) = (m.h.panel, m.h.hidden);
    let mut r = 0;
    while r < pooled(cx) {
        let rows = p.row_batch.min(pooled(cx) - r);
        let (b, first, last) = (r / p.row_batch % 2, r == 0, r + rows == pooled(cx));
        let at = p.row[b as usize];
        let load = Dma {
            n0: panel * 4 / 16 - 1,
            n1: rows - 1,
            n2: hidden / panel - 1,
            mst1: panel * 4 / 16,
            mst2: p.rows * panel * 4 / 16,
            sst1: granule(hidden * 4),
            sst2: granule(panel * 4),
            ..linear(0, cx.caps.misc_channel(), R_BULK, cx.x_offset + r * panel * 4, at, 16)
        };
        let acquire = [(sem::row_free(b), 1), if first { (sem::X_ALL, cx.caps.cores) } else { (0, 0) }];
        e.push(&acquire, &[(sem::row_full(b), 1)], cx.tag, Command::dma(load));
        let wait = [(sem::row_full(b), 1), if first { (sem::NORM_FULL, 1) } else { (0, 0) }];
        e.push(&wait, &[], cx.tag, layernorm(cx, rows, at));
        let zeros: &[Sem] = if first { &[(sem::logits_full(0), 1)] } else { &[] };
        let done = [(sem::row_free(b), 1), if last { (sem::NORM_FREE, 1) } else { (0, 0) }];
        e.push(zeros, &done, cx.tag, add_rows(cx, rows, at, !first));
        r += rows;
    }
}

/// Adds fp32 rows to the pool.
pub(crate) fn add_rows(cx: &Context, rows: u64, x: u64, keep: bool) -> Command {
    let v = VecOp {
        x: granule(x),
        y: granule(cx.plan.segments),
        d: granule(cx.plan.pool),
        rows: rows - 1,
        cols: cx.model.h.hidden - 1,
        xf: FP32,
        yf: Format::Int32 as u64,
        dfm: FP32,
        imm: 1,
        upd: u64::from(keep),
        ..VecOp::default()
    };
    Command::vec(VecFn::Segsum, v, None)
}

/// The sum of `rows` rows becomes their mean, at length one unless the image says otherwise.
pub(crate) fn scale<S: Sink>(e: &mut Emitter<S>, cx: &Context, rows: u64) {
    let (at, hidden) = (cx.plan.pool, cx.model.h.hidden);
    let factor = at + hidden * 4;
    let vector = VecOp {
        x: granule(at),
        d: granule(at),
        cols: hidden - 1,
        xf: FP32,
        yf: FP32,
        dfm: FP32,
        ..VecOp::default()
    };
    let one = VecOp { x: granule(factor), d: granule(factor), cols: 0, ..vector };
    let mean = VecOp { bc: IMMEDIATE, imm: single(rows), ..vector };
    if cx.model.h.flags & FLAG_POOL_PLAIN != 0 {
        return e.push(&[], &[(sem::ATT_SEND, 1)], cx.tag, Command::vec(VecFn::Div, mean, None));
    }
    e.push(&[], &[], cx.tag, Command::vec(VecFn::Div, mean, None));
    e.push(&[], &[], cx.tag, Command::vec(VecFn::Rsumsq, VecOp { d: granule(factor), ..vector }, None));
    let least = VecOp { bc: IMMEDIATE, imm: LEAST_SQUARE, ..one };
    e.push(&[], &[], cx.tag, Command::vec(VecFn::Max, least, None));
    e.push(&[], &[], cx.tag, Command::vec(VecFn::Rsqrt, one, None));
    // ATT_SEND is idle here: it tells the writer that the result is final.
    let unit = VecOp { y: granule(factor), bc: COLUMN, ..vector };
    e.push(&[], &[(sem::ATT_SEND, 1)], cx.tag, Command::vec(VecFn::Mul, unit, None));
}

/// A number from 1 to 2^24 - 1 as fp32 bits; harts that run this need no floating point.
const fn single(value: u64) -> u64 {
    let exponent = 63 - value.leading_zeros() as u64;
    (127 + exponent) << 23 | (value << (23 - exponent) & 0x7F_FFFF)
}

#[cfg(test)]
mod tests {
    use super::single;

    #[test]
    fn numbers_of_rows_as_floats() {
        for n in [1u16, 2, 3, 7, 21, 128, 139, 2047, 4096, 65_535] {
            assert_eq!(single(n.into()), u64::from(f32::from(n).to_bits()), "{n}");
        }
    }
}
