//! Norms of what attention and feed-forward layer give, before it joins the residual stream.
//!
//! A row's norm needs the whole row, but cores compute columns. Resident: outputs are gathered by multicast in every
//! core, which norms all rows and adds them to its copy of the residual stream. Spilled: outputs go to memory as the
//! residual stream does; each core takes whole rows of both, norms, adds and writes the sum back. Sums run over a row
//! in ascending order either way, so the result does not depend on how many cores there are.

use isa::npu::{Command, Dma, Format, VecFn, VecOp};

use crate::emit::{Emitter, R_BULK, R_LAYER, Sem, Sink};
use crate::norm::{granule, linear, load_weights, rows_of};
use crate::program::Context;
use crate::sem;

const FP32: u64 = Format::Fp32 as u64;

/// What a projection into the residual stream posts when it is delivered.
#[must_use]
pub const fn told(cx: &Context) -> Sem {
    (if cx.model.post_norms() { sem::POST_ALL } else { sem::X_ALL }, 1)
}

/// Where such a projection is gathered in the scratchpad (resident).
#[must_use]
pub const fn target(cx: &Context) -> u64 {
    if cx.model.post_norms() { cx.plan.output } else { cx.plan.x }
}

/// Where it goes in bulk memory (spilled).
#[must_use]
pub const fn spilled(cx: &Context) -> u64 {
    if cx.model.post_norms() { cx.output_offset } else { cx.x_offset }
}

/// Loads the norm's weights ahead of the projection, where the model has such norms.
pub fn load<S: Sink>(e: &mut Emitter<S>, cx: &Context, offset: u64) {
    if cx.model.post_norms() {
        load_weights(e, cx, R_LAYER, offset, false);
    }
}

/// Norms the gathered outputs and adds them to the residual stream, where the model has such norms.
pub fn join<S: Sink>(e: &mut Emitter<S>, cx: &Context) {
    let (p, n) = (cx.plan, cx.caps.cores);
    if !cx.model.post_norms() {
        return;
    }
    if !p.resident {
        return join_spilled(e, cx);
    }
    // X_ALL says that every core has read its gathered outputs: the next may come.
    let wait = [(sem::POST_ALL, n), (sem::NORM_FULL, 1)];
    e.push(&wait, &[(sem::NORM_FREE, 1)], cx.tag, norm(cx, p.rows, p.output));
    e.push(&[], &[(sem::X_ALL, 1)], cx.tag, add(cx, p.rows, p.x, p.output));
}

/// The norm of fp32 rows in place.
fn norm(cx: &Context, rows: u64, x: u64) -> Command {
    let v = VecOp {
        x: granule(x),
        y: granule(cx.plan.norm),
        d: granule(x),
        rows: rows - 1,
        cols: cx.model.h.hidden - 1,
        xf: FP32,
        yf: FP32,
        dfm: FP32,
        bc: 1,
        imm: cx.model.h.eps,
        ..VecOp::default()
    };
    Command::vec(VecFn::Rmsnorm, v, None)
}

/// fp32 rows `x` plus fp32 rows `y`, in place of `x`.
fn add(cx: &Context, rows: u64, x: u64, y: u64) -> Command {
    let v = VecOp {
        x: granule(x),
        y: granule(y),
        d: granule(x),
        rows: rows - 1,
        cols: cx.model.h.hidden - 1,
        xf: FP32,
        yf: FP32,
        dfm: FP32,
        ..VecOp::default()
    };
    Command::vec(VecFn::Add, v, None)
}

/// This core's rows, in batches: outputs and residual stream from memory, the sum back to it.
fn join_spilled<S: Sink>(e: &mut Emitter<S>, cx: &Context) {
    let (m, p, n) = (cx.model, cx.plan, cx.caps.cores);
    let (panel, hidden) = (m.h.panel, m.h.hidden);
    let (from, to) = rows_of(cx);
    if from == to {
        let wait = [(sem::POST_ALL, n), (sem::NORM_FULL, 1)];
        return e.sync_in_order(&wait, &[(sem::NORM_FREE, 1), (sem::X_ALL, 1)]);
    }
    let mut r = from;
    while r < to {
        let rows = p.row_batch.min(to - r);
        let (first, last, b) = (r == from, r + rows == to, (r - from) / p.row_batch % 2);
        let output = p.row[b as usize];
        let x = output + p.row_batch * hidden * 4;
        let transfer = |dir, ch, base: u64, at| Dma {
            n0: panel * 4 / 16 - 1,
            n1: rows - 1,
            n2: hidden / panel - 1,
            mst1: panel * 4 / 16,
            mst2: p.rows * panel * 4 / 16,
            sst1: granule(hidden * 4),
            sst2: granule(panel * 4),
            ..linear(dir, ch, R_BULK, base + r * panel * 4, at, 16)
        };
        let misc = cx.caps.misc_channel();
        let wait = [(sem::row_free(b), 1), if first { (sem::POST_ALL, n) } else { (0, 0) }];
        e.push(&wait, &[], cx.tag, Command::dma(transfer(0, misc, cx.output_offset, output)));
        e.push(&[], &[(sem::row_full(b), 1)], cx.tag, Command::dma(transfer(0, misc, cx.x_offset, x)));
        // Norm weights are acquired once and given back with the last batch.
        let wait = [(sem::row_full(b), 1), if first { (sem::NORM_FULL, 1) } else { (0, 0) }];
        let free: &[Sem] = if last { &[(sem::NORM_FREE, 1)] } else { &[] };
        e.push(&wait, free, cx.tag, norm(cx, rows, output));
        e.push(&[], &[(sem::out_full(b), 1)], cx.tag, add(cx, rows, x, output));
        let store = transfer(1, cx.caps.out_channel(), cx.x_offset, x);
        let post = [(sem::row_free(b), 1), if last { (sem::X_ALL, 1) } else { (0, 0) }];
        e.push(&[(sem::out_full(b), 1)], &post, cx.tag, Command::dma(store));
        r += rows;
    }
}
