//! Where the rows of an image or a sound come from: products of an input that lies in memory.
//!
//! An input row of the first product starts a fixed number of bytes behind the one before it, so rows that overlap, as
//! a convolution's do, are unfolded by the transfer that loads them. The last product's rows join the residual
//! stream with their positions. Its operands are fp16 whatever the layers compute in.

use isa::npu::{Command, Dma, Format};

use crate::dense::{ACT_GELU, EW_ADD, Input, Output, Panel, Slots, panel};
use crate::emit::{Emitter, R_BULK, R_IMAGE, Sem, Sink};
use crate::model::Matrix;
use crate::norm::{everyone, granule, linear};
use crate::plan::{Plan, share};
use crate::program::Context;
use crate::sem;

const FP16: u64 = Format::Fp16 as u64;
const FP32: u64 = Format::Fp32 as u64;

/// Where input, and what is between two products, lie in bulk memory.
#[derive(Clone, Copy, Debug, Default)]
pub struct Buffers {
    /// Offset of the input's first row.
    pub input: u64,
    /// Offset of the first product's rows; one row of zeros comes first.
    pub between: u64,
}

/// Rows of which both buffers are made, `rows` being those of the residual stream: of the input (in strides, and
/// bytes), and between.
#[must_use]
pub fn bytes(model: &crate::Model, rows: u64) -> (u64, u64) {
    let h = &model.h;
    if model.second_stem() {
        ((2 * rows - 1) * h.input_stride + h.input_cols * 2, (2 * rows + 1) * h.hidden * 2)
    } else {
        ((rows - 1) * h.input_stride + h.input_cols * 2, 0)
    }
}

/// Rows of a product that the plan's input buffer holds, which is at least one.
#[must_use]
pub const fn tile_rows(plan: &Plan, k: u64) -> u64 {
    let rows = plan.rows * plan.a_stride / (k * 2);
    if rows == 0 {
        1
    } else if rows < plan.rows {
        rows
    } else {
        plan.rows
    }
}

/// Some rows of a product's input.
struct Source {
    offset: u64,
    stride: u64,
    rows: u64,
}

/// Loads the rows into everyone's GEMM input, each core its share, when nobody reads the rows before them any more.
fn gather<S: Sink>(e: &mut Emitter<S>, cx: &Context, s: &Source, k: u64) -> Input {
    let (p, n) = (cx.plan, cx.caps.cores);
    let stride = (k * 2).div_ceil(32) * 32;
    let (from, to) = share(s.rows, cx.core, n);
    if from == to {
        e.sync_in_order(&[(sem::X_ALL, n)], &[(sem::A_ALL, 1)]);
    } else {
        let d = Dma {
            n0: k * 2 / 16 - 1,
            n1: to - from - 1,
            mst1: s.stride / 16,
            sst1: granule(stride),
            cmask: everyone(n),
            ..linear(0, cx.caps.misc_channel(), R_BULK, s.offset + from * s.stride, p.a + from * stride, 16)
        };
        e.push(&[(sem::X_ALL, n)], &[(sem::A_ALL, 1)], cx.tag, Command::dma(d));
    }
    Input { at: p.a, stride, k0: 0, cols: k, rows: s.rows }
}

/// A product of gathered rows; `place` gives what of its panels depends on where they go: the load of what is added,
/// and the store.
fn product<S: Sink>(
    e: &mut Emitter<S>,
    cx: &Context,
    matrix: &Matrix,
    input: Input,
    (bias, act, format): (Option<u64>, u64, u64),
    place: &dyn Fn(u64) -> (Option<Dma>, Dma),
) {
    let (p, n, width) = (cx.plan, cx.caps.cores, cx.model.h.panel);
    let (from, to) = share(matrix.panels, cx.core, n);
    if from == to {
        return e.sync_in_order(&[(sem::A_ALL, n)], &[(sem::X_ALL, 1)]);
    }
    let mut slots = Slots::default();
    for q in from..to {
        let b = (q - from) % 2;
        let (out, res) = (p.out[b as usize], p.res[b as usize]);
        let (load, store) = place(q);
        let gathered: Sem = if q == from { (sem::A_ALL, n) } else { (0, 0) };
        let free = (sem::out_free(b), 1);
        let mut acquire = free;
        if let Some(d) = load {
            let d = Dma { saddr: granule(res), ..d };
            e.push(&[free, gathered], &[(sem::res_full(b), 1)], cx.tag, Command::dma(d));
            acquire = (sem::res_full(b), 1);
        } else if q == from {
            e.sync_in_order(&[gathered], &[]);
        }
        let element = if format == FP16 { 2 } else { 4 };
        let job = Panel {
            matrix,
            region: R_IMAGE,
            index: q,
            input,
            scales: p.a_scale,
            acc: 0,
            keep: false,
            output: Some(Output {
                at: out,
                stride: width * element,
                format,
                ew: load.map(|_| (EW_ADD, res, width * 2, FP16)),
                bias: bias.map(|at| at + q * width * 4),
                act,
            }),
            acquire: Some(acquire),
            post: Some((sem::out_full(b), 1)),
        };
        panel(e, cx, &mut slots, &job);
        let done: Sem = if q + 1 == to { (sem::X_ALL, 1) } else { (0, 0) };
        let store = Dma { saddr: granule(out), ..store };
        e.push(&[(sem::out_full(b), 1)], &[free, done], cx.tag, Command::dma(store));
    }
}

/// Loads a product's bias where the norms' weights will be.
fn load_bias<S: Sink>(e: &mut Emitter<S>, cx: &Context, offset: u64) -> u64 {
    let h = &cx.model.h;
    let d = linear(0, cx.caps.misc_channel(), R_IMAGE, offset, cx.plan.norm, h.hidden * 4);
    e.push(&[(sem::NORM_FREE, 1)], &[(sem::NORM_FULL, 1)], cx.tag, Command::dma(d));
    // The sequencer takes it: products have no acquire left. It is given back where the product is done.
    e.sync_in_order(&[(sem::NORM_FULL, 1)], &[]);
    cx.plan.norm
}

/// Writes the row of zeros before the rows between the products.
fn pad<S: Sink>(e: &mut Emitter<S>, cx: &Context, between: u64) {
    let (at, bytes) = (cx.plan.norm, cx.model.h.hidden * 2);
    let zeros = Dma { dir: 3, ..linear(0, cx.caps.misc_channel(), 0, 0, at, bytes) };
    e.push(&[(sem::NORM_FREE, 1)], &[(sem::NORM_FULL, 1)], cx.tag, Command::dma(zeros));
    let store = linear(1, cx.caps.out_channel(), R_BULK, between, at, bytes);
    e.push(&[(sem::NORM_FULL, 1)], &[(sem::NORM_FREE, 1)], cx.tag, Command::dma(store));
}

/// All of the stem: from the input to the residual stream of every chunk, of which `chunks` gives the first row, the
/// rows, and the offset of the residual stream. Everyone has told `X_ALL` before; everyone does so behind.
pub fn stem<S: Sink>(
    e: &mut Emitter<S>,
    cx: &Context,
    at: &Buffers,
    rows: u64,
    chunks: impl Iterator<Item = (u64, u64, u64)>,
) {
    let floats = cx.model.in_halves();
    let cx = &Context { model: &floats, ..*cx };
    let (h, p) = (&floats.h, cx.plan);
    let [first, second] = floats.stems();
    let (width, hidden) = (h.panel, h.hidden);
    let mut last = (first, at.input, h.input_stride, None, 0);
    if floats.second_stem() {
        if cx.core == 0 {
            pad(e, cx, at.between);
        }
        let bias = load_bias(e, cx, h.stem_bias);
        let tiles = (2 * rows).div_ceil(tile_rows(p, first.k));
        for t in 0..tiles {
            let (from, to) = share(2 * rows, t, tiles);
            let source =
                Source { offset: at.input + from * h.input_stride, stride: h.input_stride, rows: to - from };
            let input = gather(e, cx, &source, first.k);
            let place = |q: u64| {
                let d = Dma {
                    n0: width * 2 / 16 - 1,
                    n1: to - from - 1,
                    mst1: hidden * 2 / 16,
                    sst1: granule(width * 2),
                    ..linear(
                        1,
                        cx.caps.out_channel(),
                        R_BULK,
                        at.between + ((from + 1) * hidden + q * width) * 2,
                        0,
                        16,
                    )
                };
                (None, d)
            };
            product(e, cx, &first, input, (Some(bias), ACT_GELU, FP16), &place);
        }
        e.sync_in_order(&[], &[(sem::NORM_FREE, 1)]);
        let bias = load_bias(e, cx, h.stem2_bias);
        last = (second, at.between, 2 * hidden * 2, Some(bias), ACT_GELU);
    }
    let (matrix, offset, stride, bias, act) = last;
    for (start, rows, x_offset) in chunks {
        let tiles = rows.div_ceil(tile_rows(p, matrix.k));
        for t in 0..tiles {
            let (from, to) = share(rows, t, tiles);
            let source = Source { offset: offset + (start + from) * stride, stride, rows: to - from };
            let input = gather(e, cx, &source, matrix.k);
            let place = |q: u64| {
                let positions = Dma {
                    n0: width * 2 / 16 - 1,
                    n1: to - from - 1,
                    mst1: h.embed_stride / 16,
                    sst1: granule(width * 2),
                    ..linear(
                        0,
                        cx.caps.misc_channel(),
                        R_IMAGE,
                        h.positions + (start + from) * h.embed_stride + q * width * 2,
                        0,
                        16,
                    )
                };
                let (row, bytes) = ((q * rows + from) * width * 4, (to - from) * width * 4);
                (Some(positions), linear(1, cx.caps.out_channel(), R_BULK, x_offset + row, 0, bytes))
            };
            product(e, cx, &matrix, input, (bias, act, FP32), &place);
        }
    }
    if bias.is_some() {
        e.sync_in_order(&[], &[(sem::NORM_FREE, 1)]);
    }
}
