//! What an encoder of images or sound was asked to compute, of what its padded image makes the engines compute.

use isa::tags::OpKind;
use soc_model::soc::OpResult;
use traces::image::ImageLayout;
use traces::workload::Stem;

use super::RunRequest;

/// Multiply-accumulates of an operation without those of zeros that only pad: exactly, for every product's count is a
/// multiple of its padded width.
pub(super) fn asked(q: &RunRequest, layout: &ImageLayout, o: &OpResult, macs: u64) -> u64 {
    let Some(kind) = OpKind::from_code(o.key.tag) else { return macs };
    let (used, stored) = widths(q, layout, kind);
    macs / stored * used
}

/// The width of an operation's padded side as the model has it, and as the image stores it.
fn widths(q: &RunRequest, layout: &ImageLayout, kind: OpKind) -> (u64, u64) {
    let m = &q.model;
    let Some(stem) = m.extras.stem else { return (1, 1) };
    let h = &layout.header;
    let heads = u64::from(m.heads / m.kv_heads + 2);
    let (head, wide) = (u64::from(m.head_dim), h.head_dim);
    match kind {
        OpKind::Qkv => (heads * head, (heads * wide).div_ceil(h.panel) * h.panel),
        OpKind::Attention | OpKind::OutProj => (head, wide),
        OpKind::GateUp | OpKind::Down => (m.ffn.into(), h.ffn),
        OpKind::Embed => match stem {
            // A class token's row is multiplied with zeros.
            Stem::Patches { class, .. } => {
                let rows = u64::from(q.prefill_tokens);
                ((rows - u64::from(class)) * stem.values(), rows * h.input_cols)
            }
            Stem::Frames { .. } => (1, 1),
        },
        _ => (1, 1),
    }
}

/// Multiply-accumulates of a stem from its shapes.
pub(super) fn stem(q: &RunRequest) -> u64 {
    let (rows, hidden) = (u64::from(q.prefill_tokens), u64::from(q.model.hidden));
    match q.model.extras.stem {
        None => 0,
        Some(stem @ Stem::Patches { class, .. }) => (rows - u64::from(class)) * stem.values() * hidden,
        Some(stem @ Stem::Frames { .. }) => (2 * rows * stem.values() + rows * 3 * hidden) * hidden,
    }
}
