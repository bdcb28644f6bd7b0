//! Quantising a spilled hidden layer by rows before the down projection.
//!
//! A row's scale needs the whole row, but cores hold columns: each core loads whole rows of the spilled layer,
//! quantises them, writes them back as int8 panels and sends their scales to everyone. Scales of blocks need no more
//! than the block: the layer stays fp16 in memory, and each core quantises the chunks it receives for itself.

use isa::npu::{Command, Dma};

use crate::emit::{Emitter, Sem, Sink};
use crate::model::Model;
use crate::norm::{everyone, granule, linear, quantise_rows};
use crate::plan::{Plan, share};
use crate::program::Context;
use crate::sem;

/// Rows of a step: their scales fill one granule.
pub const BATCH: u64 = 8;

/// Whether the input region of `rows` rows can serve as the pass's row buffer.
#[must_use]
pub fn fits(model: &Model, plan: &Plan, rows: u64) -> bool {
    model.h.panel >= 32 && BATCH * model.h.ffn * 2 <= rows * plan.a_stride
}

/// Turns the spilled fp16 hidden layer into int8 panels where a row has one scale; all of it is written when `H8_ALL` reaches the cores.
pub fn quantise_hidden<S: Sink>(e: &mut Emitter<S>, cx: &Context) {
    let (p, n) = (cx.plan, cx.caps.cores);
    if cx.model.by_block() {
        return;
    }
    let (from, to) = share(p.rows.div_ceil(BATCH), cx.core, n);
    let (from, to) = (from * BATCH, (to * BATCH).min(p.rows));
    if from >= to {
        e.sync_in_order(&[(sem::H_ALL, n)], &[(sem::H8_ALL, 1)]);
        return;
    }
    let bytes = BATCH * cx.model.h.ffn * 2;
    let buffers = if 2 * bytes <= p.rows * p.a_stride { 2 } else { 1 };
    let mut r = from;
    let mut i = 0;
    while r < to {
        let b = i % buffers;
        let rows = BATCH.min(to - r);
        step(e, cx, (r, rows), (b, p.a + b * bytes), r == from, r + rows >= to);
        r += rows;
        i += 1;
    }
}

fn step<S: Sink>(
    e: &mut Emitter<S>,
    cx: &Context,
    (r, rows): (u64, u64),
    (b, at): (u64, u64),
    first: bool,
    last: bool,
) {
    let (m, p, n) = (cx.model, cx.plan, cx.caps.cores);
    let (panel, stride) = (m.h.panel, m.h.ffn * 2);
    // The same rows in fp16 and int8 panels differ only in the bytes of an element.
    let transfer = |dir, ch, element: u64, offset: u64| Dma {
        n0: panel * element / 16 - 1,
        n1: rows - 1,
        n2: m.h.ffn / panel - 1,
        mst1: panel * element / 16,
        mst2: p.rows * panel * element / 16,
        sst1: granule(stride),
        sst2: granule(panel * element),
        ..linear(dir, ch, cx.h_region, offset + r * panel * element, at, 16)
    };
    let acquire = [(sem::row_free(b), 1), if first { (sem::H_ALL, n) } else { (0, 0) }];
    let load = transfer(0, cx.caps.misc_channel(), 2, cx.h_offset);
    e.push(&acquire, &[(sem::row_full(b), 1)], cx.tag, Command::dma(load));
    let scales = p.a_scale + r * 4;
    let wait: &[Sem] = &[(sem::row_full(b), 1)];
    quantise_rows(e, cx, (at, stride, scales), (rows, m.h.ffn), wait, &[(sem::out_full(b), 1)]);
    let store = transfer(1, cx.caps.out_channel(), 1, cx.h8_offset);
    e.push(&[(sem::out_full(b), 1)], &[(sem::row_free(b), 1)], cx.tag, Command::dma(store));
    let tell: &[Sem] = if last { &[(sem::H8_ALL, 1)] } else { &[] };
    let send =
        Dma { cmask: everyone(n), ..linear(2, cx.caps.out_channel(), 0, granule(scales), scales, BATCH * 4) };
    e.push(&[], tell, cx.tag, Command::dma(send));
}
