//! One layer of one core, as a list that every layer shares: weights and cache are found through region
//! registers.

use isa::tags::OpKind;

use crate::dense::{Input, Slots, down_chunked, gate_up, input_read, project, qkv};
use crate::emit::{Emitter, R_GAIN, R_LAYER, R_SHIFT, Sink};
use crate::encoder::{self, Also};
use crate::norm::{after_gather, load_weights, norm};
use crate::plan::share;
use crate::post;
use crate::program::Context;
use crate::quant::quantise_hidden;
use crate::sem;

/// Writes the layer's list.
pub fn layer<S: Sink>(e: &mut Emitter<S>, cx: &Context) {
    let mut slots = Slots::default();
    attention(e, cx, &mut slots);
    behind(e, cx, slots);
    e.ret();
}

/// What follows once every core has the attention's output: projection, norm and feed-forward layer.
pub fn behind<S: Sink>(e: &mut Emitter<S>, cx: &Context, mut slots: Slots) {
    let (m, p, n) = (cx.model, cx.plan, cx.caps.cores);
    let c = cx.tagged(OpKind::OutProj);
    let out = m.out();
    let busy = has_panels(&c, out.panels);
    let ready = after_gather(e, &c, (p.a2, p.a_stride), m.att_cols(), (sem::A_ALL, n), busy);
    let input = Input { at: p.a2, stride: p.a_stride, k0: 0, cols: m.att_cols(), rows: p.rows };
    let bias = |i: usize| m.encoder().then_some(p.dense_bias[i]);
    post::load(e, &c, m.h.post_norm1);
    project(e, &c, &mut slots, &out, input, ready, bias(0));
    post::join(e, &c);

    let c = cx.tagged(OpKind::FfnNorm);
    if m.encoder() {
        // Norms behind the sums: the attention's own comes here.
        let (gain, shift) = if m.stem() { (m.h.norm2, m.h.norm2_bias) } else { (m.h.norm1, m.h.norm1_bias) };
        encoder::load(e, &c, (R_LAYER, gain), (R_LAYER, shift), Also::FeedForward);
    } else {
        load_weights(e, &c, R_LAYER, m.h.norm2, false);
    }
    let ready = norm(e, &c, has_panels(&c, m.up().panels));

    let c = cx.tagged(OpKind::GateUp);
    gate_up(e, &c, &mut slots, ready);

    let c = cx.tagged(OpKind::Down);
    post::load(e, &c, m.h.post_norm2);
    if p.resident {
        let down = m.down();
        let busy = has_panels(&c, down.panels);
        let ready = after_gather(e, &c, (p.h, m.h.ffn * 2), m.h.ffn, (sem::H_ALL, n), busy);
        let input = Input { at: p.h, stride: m.h.ffn * 2, k0: 0, cols: m.h.ffn, rows: p.rows };
        project(e, &c, &mut slots, &down, input, ready, bias(2));
    } else {
        if m.quantised() {
            quantise_hidden(e, &c);
        }
        down_chunked(e, &c, &mut slots, bias(2));
    }
    post::join(e, &c);
}

pub(crate) fn has_panels(cx: &Context, panels: u64) -> bool {
    let (from, to) = share(panels, cx.core, cx.caps.cores);
    from < to
}

/// Norm, QKV and attention of this core's KV heads.
fn attention<S: Sink>(e: &mut Emitter<S>, cx: &Context, slots: &mut Slots) {
    let (m, p, n) = (cx.model, cx.plan, cx.caps.cores);
    let (from, to) = share(m.h.kv_heads, cx.core, n);
    let c = cx.tagged(OpKind::AttnNorm);
    if m.encoder() {
        encoder::load(e, &c, (R_GAIN, 0), (R_SHIFT, 0), Also::Attention);
    } else {
        load_weights(e, &c, R_LAYER, m.h.norm1, true);
    }
    let ready = norm(e, &c, from < to);
    if from == to {
        // More cores than KV heads: this one keeps the cluster's counts and waits.
        if p.resident {
            e.sync_in_order(&[ready], &[(sem::A_ALL, 1)]);
        } else {
            e.sync_in_order(&[ready], &[(sem::A_DONE, 1)]);
            e.sync_in_order(&[(sem::A_DONE, n)], &[(sem::A_ALL, 1)]);
        }
        return;
    }
    let c = cx.tagged(OpKind::Qkv);
    for (i, head) in (from..to).enumerate() {
        let i = i as u64;
        qkv(e, &c, slots, head, i, (i == 0).then_some(ready));
    }
    if !p.resident {
        input_read(e, &c);
    }
    for i in 0..to - from {
        let (region, offset) = cx.attention_call(i);
        e.call(region, offset);
    }
}
