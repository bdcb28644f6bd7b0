//! Row-wise steps: embedding, norms, and getting the result to every core.

use isa::npu::{Command, Dma, Format, GRANULE, VecFn, VecOp};

use crate::emit::{Emitter, R_BULK, R_IMAGE, R_LAYER, Sem, Sink};
use crate::encoder;
use crate::plan::share;
use crate::program::Context;
use crate::sem;

const FP16: u64 = Format::Fp16 as u64;
const FP32: u64 = Format::Fp32 as u64;
const INT8: u64 = Format::Int8 as u64;
/// Second operand: the immediate.
const IMMEDIATE: u64 = 3;

/// Scratchpad bytes as granules.
#[must_use]
pub const fn granule(bytes: u64) -> u64 {
    bytes / GRANULE
}

/// A contiguous transfer of `bytes` (a multiple of 16, at most 256 KiB).
#[must_use]
pub fn linear(dir: u64, ch: u64, region: u64, moff: u64, spm: u64, bytes: u64) -> Dma {
    Dma { dir, ch, region, moff, saddr: granule(spm), n0: bytes / 16 - 1, qos: 2, ..Dma::default() }
}

/// All cores' bits.
#[must_use]
pub const fn everyone(cores: u64) -> u64 {
    (1 << cores) - 1
}

/// Rows of a row-wise pass this core does: multiples of the batch.
#[must_use]
pub fn rows_of(cx: &Context) -> (u64, u64) {
    let batch = cx.plan.row_batch;
    let (from, to) = share(cx.plan.rows.div_ceil(batch), cx.core, cx.caps.cores);
    ((from * batch).min(cx.plan.rows), (to * batch).min(cx.plan.rows))
}

/// Loads norm weights (and, with `layer_start`, the layer's biases and query/key norms before them).
pub fn load_weights<S: Sink>(e: &mut Emitter<S>, cx: &Context, region: u64, offset: u64, layer_start: bool) {
    let (m, p, ch) = (cx.model, cx.plan, cx.caps.misc_channel());
    let mut acquire: &[Sem] = &[(sem::NORM_FREE, 1)];
    if layer_start && let Some(d) = qkv_bias(cx) {
        e.push(acquire, &[], cx.tag, Command::dma(d));
        acquire = &[];
    }
    if layer_start && m.qk_norm() {
        let d = linear(0, ch, R_LAYER, m.h.qk_norm, p.qk_norm, m.h.head_dim * 8);
        e.push(acquire, &[], cx.tag, Command::dma(d));
        acquire = &[];
    }
    let d = linear(0, ch, region, offset, p.norm, m.h.hidden * 4);
    e.push(acquire, &[(sem::NORM_FULL, 1)], cx.tag, Command::dma(d));
}

/// The transfer of this core's QKV biases, if it needs any.
pub fn qkv_bias(cx: &Context) -> Option<Dma> {
    let (m, cols) = (cx.model, cx.model.group_cols() * 4);
    let (from, to) = share(m.h.kv_heads, cx.core, cx.caps.cores);
    let offset = m.h.bias + from * cols;
    (m.bias() && to > from)
        .then(|| linear(0, cx.caps.misc_channel(), R_LAYER, offset, cx.plan.bias, (to - from) * cols))
}

fn rmsnorm(cx: &Context, rows: u64, x: u64, d: u64, d_stride: u64) -> Command {
    let hidden = cx.model.h.hidden;
    Command::vec(
        VecFn::Rmsnorm,
        VecOp {
            x: granule(x),
            y: granule(cx.plan.norm),
            d: granule(d),
            rows: rows - 1,
            cols: hidden - 1,
            xst: granule(hidden * 4),
            dst: granule(d_stride),
            xf: FP32,
            yf: FP32,
            dfm: FP16,
            bc: 1,
            imm: cx.model.h.eps,
            ..VecOp::default()
        },
        None,
    )
}

/// Quantises the GEMM input in place: int8 rows at the fp16 row's stride, scales to the scale table.
pub fn quantise<S: Sink>(
    e: &mut Emitter<S>,
    cx: &Context,
    (at, stride): (u64, u64),
    (rows, cols): (u64, u64),
    acquire: &[Sem],
    post: &[Sem],
) {
    quantise_rows(e, cx, (at, stride, cx.plan.a_scale), (rows, cols), acquire, post);
}

/// The same with the scales' place given.
pub fn quantise_rows<S: Sink>(
    e: &mut Emitter<S>,
    cx: &Context,
    (at, stride, scales): (u64, u64, u64),
    (rows, cols): (u64, u64),
    acquire: &[Sem],
    post: &[Sem],
) {
    let v = VecOp {
        x: granule(at),
        y: granule(scales),
        d: granule(at),
        rows: rows - 1,
        cols: cols - 1,
        xst: granule(stride),
        dst: granule(stride),
        xf: FP16,
        yf: FP32,
        dfm: INT8,
        imm: cx.model.h.act_group,
        stat: u64::from(cx.model.sums()),
        ..VecOp::default()
    };
    e.push(acquire, post, cx.tag, Command::vec(VecFn::Qdyn, v, None));
}

/// The norm before a dense phase: reads the residual stream, leaves the GEMM input in every core.
///
/// Returns what the first GEMM must acquire. `needed` is false for a core that has no share of the phase.
pub fn norm<S: Sink>(e: &mut Emitter<S>, cx: &Context, needed: bool) -> Sem {
    let (p, n) = (cx.plan, cx.caps.cores);
    if p.resident {
        if cx.model.encoder() {
            // Also a core without a share goes on with the normed rows.
            encoder::norm_resident(e, cx);
            return after_gather(e, cx, (p.a, p.a_stride), cx.model.h.hidden, (sem::A_READY, 1), needed);
        }
        if !needed {
            // The weights were loaded for nothing but keep their place in the protocol.
            e.sync_in_order(
                &[(sem::X_ALL, n), (sem::NORM_FULL, 1)],
                &[(sem::NORM_FREE, 1), (sem::A_READY, 1)],
            );
            return (sem::A_READY, 1);
        }
        let c = rmsnorm(cx, p.rows, p.x, p.a, p.a_stride);
        e.push(&[(sem::X_ALL, n), (sem::NORM_FULL, 1)], &[(sem::A_READY, 1), (sem::NORM_FREE, 1)], cx.tag, c);
        return after_gather(e, cx, (p.a, p.a_stride), cx.model.h.hidden, (sem::A_READY, 1), needed);
    }
    spilled_norm(e, cx);
    after_gather(e, cx, (p.a, p.a_stride), cx.model.h.hidden, (sem::A_ALL, n), needed)
}

/// Quantises a gathered input where the model asks for it; returns what the first GEMM must acquire.
pub fn after_gather<S: Sink>(
    e: &mut Emitter<S>,
    cx: &Context,
    (at, stride): (u64, u64),
    cols: u64,
    ready: Sem,
    needed: bool,
) -> Sem {
    if !cx.model.quantised() || !needed {
        return ready;
    }
    quantise(e, cx, (at, stride), (cx.plan.rows, cols), &[ready], &[(sem::QUANTISED, 1)]);
    (sem::QUANTISED, 1)
}

/// One core's rows of the residual stream, in batches: load from memory, norm, multicast into everyone's input.
fn spilled_norm<S: Sink>(e: &mut Emitter<S>, cx: &Context) {
    let (m, p, n) = (cx.model, cx.plan, cx.caps.cores);
    let (from, to) = rows_of(cx);
    if from == to {
        e.sync_in_order(&[(sem::X_ALL, n), (sem::NORM_FULL, 1)], &[(sem::NORM_FREE, 1), (sem::A_ALL, 1)]);
        return;
    }
    let (panel, hidden) = (m.h.panel, m.h.hidden);
    let mut r = from;
    let mut i = 0;
    while r < to {
        let rows = p.row_batch.min(to - r);
        let (last, b) = (r + rows == to, i % 2);
        let buffer = p.row[b as usize];
        let result = buffer + p.row_batch * hidden * 4;
        let load = Dma {
            n0: panel * 4 / 16 - 1,
            n1: rows - 1,
            n2: hidden / panel - 1,
            mst1: panel * 4 / 16,
            mst2: p.rows * panel * 4 / 16,
            sst1: granule(hidden * 4),
            sst2: granule(panel * 4),
            ..linear(0, cx.caps.misc_channel(), R_BULK, cx.x_offset + r * panel * 4, buffer, 16)
        };
        let first: &[Sem] =
            if i == 0 { &[(sem::row_free(b), 1), (sem::X_ALL, n)] } else { &[(sem::row_free(b), 1)] };
        e.push(first, &[(sem::row_full(b), 1)], cx.tag, Command::dma(load));
        // Norm weights are acquired once and given back with the last batch.
        let both: &[Sem] =
            if i == 0 { &[(sem::row_full(b), 1), (sem::NORM_FULL, 1)] } else { &[(sem::row_full(b), 1)] };
        let done: &[Sem] =
            if last { &[(sem::out_full(b), 1), (sem::NORM_FREE, 1)] } else { &[(sem::out_full(b), 1)] };
        if m.stem() {
            e.push(both, done, cx.tag, encoder::layernorm_to(cx, rows, buffer, result));
        } else if m.encoder() {
            e.push(both, &[], cx.tag, encoder::layernorm(cx, rows, buffer));
            e.push(&[], done, cx.tag, encoder::narrow(cx, rows, buffer, (result, hidden * 2)));
            // The normed rows are what the sums go on with; the copy to the cores follows on the same channel.
            let store = Dma { dir: 1, ch: cx.caps.out_channel(), ..load };
            e.push(&[(sem::out_full(b), 1)], &[], cx.tag, Command::dma(store));
        } else {
            e.push(both, done, cx.tag, rmsnorm(cx, rows, buffer, result, hidden * 2));
        }
        let send = Dma {
            n0: hidden * 2 / 16 - 1,
            n1: rows - 1,
            mst1: p.a_stride / 16,
            sst1: granule(hidden * 2),
            cmask: everyone(n),
            ..linear(2, cx.caps.out_channel(), 0, granule(p.a + r * p.a_stride), result, 16)
        };
        // X_ALL said that every core has stored its last output, so nobody reads the inputs any more.
        let tell: &[Sem] =
            if last { &[(sem::row_free(b), 1), (sem::A_ALL, 1)] } else { &[(sem::row_free(b), 1)] };
        let computed: &[Sem] = if m.encoder() && !m.stem() { &[] } else { &[(sem::out_full(b), 1)] };
        e.push(computed, tell, cx.tag, Command::dma(send));
        r += rows;
        i += 1;
    }
}

/// Puts the embedding rows of `tokens` into the residual stream: one DMA a token, then widening to fp32.
pub fn embed<S: Sink>(e: &mut Emitter<S>, cx: &Context, tokens: &mut dyn FnMut(u64) -> u64) {
    let (m, p) = (cx.model, cx.plan);
    let hidden = m.h.hidden;
    let ch = cx.caps.misc_channel();
    if p.resident {
        // The rows land where the GEMM input will be, and widen into the residual stream.
        for r in 0..p.rows {
            let row = linear(0, ch, R_IMAGE, embedding_row(cx, tokens(r)), p.a + r * p.a_stride, hidden * 2);
            let post: &[Sem] = if r + 1 == p.rows { &[(sem::row_full(0), 1)] } else { &[] };
            e.push(&[], post, cx.tag, Command::dma(row));
        }
        if m.encoder() {
            return encoder::sum_resident(e, cx);
        }
        // Not A_READY: the first GEMM, already queued, would take it for the norm's.
        e.push(&[(sem::row_full(0), 1)], &[(sem::X_ALL, 1)], cx.tag, widen(cx, p.rows, p.a, p.a_stride, p.x));
        return;
    }
    let (from, to) = rows_of(cx);
    if from == to {
        e.sync(&[], &[(sem::X_ALL, 1)]);
        return;
    }
    let mut i = 0;
    let mut r = from;
    while r < to {
        let rows = p.row_batch.min(to - r);
        let b = i % 2;
        let buffer = p.row[b as usize];
        let wide = buffer + p.row_batch * hidden * 2;
        for k in 0..rows {
            let row =
                linear(0, ch, R_IMAGE, embedding_row(cx, tokens(r + k)), buffer + k * hidden * 2, hidden * 2);
            let acquire: &[Sem] = if k == 0 { &[(sem::row_free(b), 1)] } else { &[] };
            let post: &[Sem] = if k + 1 == rows { &[(sem::row_full(b), 1)] } else { &[] };
            e.push(acquire, post, cx.tag, Command::dma(row));
        }
        if m.encoder() {
            encoder::sum_spilled(e, cx, (r, rows), (b, buffer, wide), (r == from, r + rows == to));
        } else {
            let c = widen(cx, rows, buffer, hidden * 2, wide);
            e.push(&[(sem::row_full(b), 1)], &[(sem::out_full(b), 1)], cx.tag, c);
        }
        let store = Dma {
            n0: m.h.panel * 4 / 16 - 1,
            n1: rows - 1,
            n2: hidden / m.h.panel - 1,
            mst1: m.h.panel * 4 / 16,
            mst2: p.rows * m.h.panel * 4 / 16,
            sst1: granule(hidden * 4),
            sst2: granule(m.h.panel * 4),
            ..linear(1, cx.caps.out_channel(), R_BULK, cx.x_offset + r * m.h.panel * 4, wide, 16)
        };
        let last = r + rows == to;
        let tell: &[Sem] =
            if last { &[(sem::row_free(b), 1), (sem::X_ALL, 1)] } else { &[(sem::row_free(b), 1)] };
        e.push(&[(sem::out_full(b), 1)], tell, cx.tag, Command::dma(store));
        r += rows;
        i += 1;
    }
}

/// Offset of a token's embedding row in the image.
#[must_use]
pub const fn embedding_row(cx: &Context, token: u64) -> u64 {
    cx.model.h.embed + token * cx.model.h.embed_stride
}

/// fp16 rows as fp32, scaled where the model scales its embedding.
fn widen(cx: &Context, rows: u64, x: u64, x_stride: u64, d: u64) -> Command {
    let hidden = cx.model.h.hidden;
    let scale = cx.model.embed_scale();
    Command::vec(
        if scale.is_some() { VecFn::Mul } else { VecFn::Cvt },
        VecOp {
            bc: if scale.is_some() { IMMEDIATE } else { 0 },
            imm: scale.unwrap_or(0),
            x: granule(x),
            d: granule(d),
            rows: rows - 1,
            cols: hidden - 1,
            xst: granule(x_stride),
            dst: granule(hidden * 4),
            xf: FP16,
            yf: FP16,
            dfm: FP32,
            ..VecOp::default()
        },
        None,
    )
}

/// The norm of the last row alone, before the head: into row 0 of the GEMM input of every core.
pub fn final_norm<S: Sink>(e: &mut Emitter<S>, cx: &Context) -> Sem {
    let (m, p, n) = (cx.model, cx.plan, cx.caps.cores);
    let hidden = m.h.hidden;
    let row = p.rows - 1;
    load_weights(e, cx, R_IMAGE, m.h.final_norm, false);
    if p.resident {
        let c = rmsnorm(cx, 1, p.x + row * hidden * 4, p.a, p.a_stride);
        e.push(&[(sem::X_ALL, n), (sem::NORM_FULL, 1)], &[(sem::A_READY, 1), (sem::NORM_FREE, 1)], cx.tag, c);
    } else {
        let panel = m.h.panel;
        let load = Dma {
            n0: panel * 4 / 16 - 1,
            n1: hidden / panel - 1,
            mst1: p.rows * panel * 4 / 16,
            ..linear(0, cx.caps.misc_channel(), R_BULK, cx.x_offset + row * panel * 4, p.row[0], 16)
        };
        // X_ALL also says that nobody writes row buffers or inputs any more: both are this core's own again.
        e.push(&[(sem::X_ALL, n)], &[(sem::row_full(0), 1)], cx.tag, Command::dma(load));
        let c = rmsnorm(cx, 1, p.row[0], p.a, p.a_stride);
        e.push(
            &[(sem::row_full(0), 1), (sem::NORM_FULL, 1)],
            &[(sem::A_READY, 1), (sem::NORM_FREE, 1)],
            cx.tag,
            c,
        );
    }
    if m.quantised() {
        quantise(e, cx, (p.a, p.a_stride), (1, hidden), &[(sem::A_READY, 1)], &[(sem::QUANTISED, 1)]);
        return (sem::QUANTISED, 1);
    }
    (sem::A_READY, 1)
}
