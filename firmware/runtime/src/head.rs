//! From the last hidden state to a token: logits in pieces, a running maximum, both written to memory.

use isa::npu::{Command, Format, Position, VecFn, VecOp};

use crate::dense::{Slots, head_panel};
use crate::emit::{Emitter, R_ARENA, R_BULK, Sink};
use crate::norm::{final_norm, granule, linear};
use crate::plan::share;
use crate::program::Context;
use crate::sem;

/// Most pieces the logits of one core are computed in.
pub const MAX_PIECES: usize = 128;

/// Where the commands are that mention the position being sampled.
#[derive(Clone, Copy, Debug)]
pub struct Pieces {
    at: [u32; MAX_PIECES],
    count: usize,
}

impl Default for Pieces {
    fn default() -> Self {
        Self { at: [0; MAX_PIECES], count: 0 }
    }
}

/// Writes the head's list; `position` is the position being sampled. `None` if there are too many pieces.
pub fn head<S: Sink>(e: &mut Emitter<S>, cx: &Context, position: u64) -> Option<Pieces> {
    let (m, p) = (cx.model, cx.plan);
    let (from, to) = share(m.lm_head().panels, cx.core, cx.caps.cores);
    let mut slots = Slots::default();
    let mut pieces = Pieces::default();
    let ready = final_norm(e, cx);
    let width = m.h.panel * 4;
    if from == to {
        e.sync_in_order(&[ready], &[]);
    }
    let mut q = from;
    while q < to {
        let panels = p.logits_panels.min(to - q);
        let b = pieces.count as u64 % 2;
        let buffer = p.logits[b as usize];
        // The sequencer takes the buffer, so that the first GEMM has an acquire left for the hidden state.
        e.sync(&[(sem::logits_free(b), 2)], &[]);
        for i in 0..panels {
            let acquire = (pieces.count == 0 && i == 0).then_some(ready);
            // SCORES is idle here: capped logits are complete once the vector engine has been over them.
            let full = if m.logit_cap().is_some() { (sem::SCORES, 1) } else { (sem::logits_full(b), 2) };
            let post = (i + 1 == panels).then_some(full);
            head_panel(e, cx, &mut slots, q + i, buffer + i * width, acquire, post);
        }
        if let Some(cap) = m.logit_cap() {
            let capped = softcap(buffer, panels * m.h.panel, cap);
            e.push(&[(sem::SCORES, 1)], &[(sem::logits_full(b), 2)], cx.tag, capped);
        }
        *pieces.at.get_mut(pieces.count)? = u32::try_from(e.position()).ok()?;
        argmax(e, cx, position, q, pieces.count as u64);
        let d =
            linear(1, cx.caps.out_channel(), R_BULK, cx.logits_offset + q * width, buffer, panels * width);
        e.push(&[(sem::logits_full(b), 1)], &[(sem::logits_free(b), 1)], cx.tag, Command::dma(d));
        q += panels;
        pieces.count += 1;
    }
    if from < to {
        let d = linear(1, cx.caps.out_channel(), R_ARENA, cx.result_offset, p.result, 16);
        e.push(&[(sem::ATT_SEND, 1)], &[], cx.tag, Command::dma(d));
    }
    e.ret();
    Some(pieces)
}

/// Caps logits where they are.
fn softcap(at: u64, count: u64, cap: u64) -> Command {
    let v = VecOp {
        x: granule(at),
        d: granule(at),
        cols: count - 1,
        xf: Format::Fp32.code(),
        yf: Format::Fp32.code(),
        dfm: Format::Fp32.code(),
        imm: cap,
        ..VecOp::default()
    };
    Command::vec(VecFn::Softcap, v, None)
}

/// Rewrites the commands of a head's list that mention the position.
pub fn patch<S: Sink>(e: &mut Emitter<S>, cx: &Context, pieces: &Pieces, position: u64) {
    let (from, _) = share(cx.model.lm_head().panels, cx.core, cx.caps.cores);
    for (i, at) in pieces.at[..pieces.count].iter().enumerate() {
        e.seek(u64::from(*at));
        argmax(e, cx, position, from + i as u64 * cx.plan.logits_panels, i as u64);
    }
}

/// The running maximum over piece `piece`, which starts at panel `q`.
fn argmax<S: Sink>(e: &mut Emitter<S>, cx: &Context, position: u64, q: u64, piece: u64) {
    let (m, p, b) = (cx.model, cx.plan, piece % 2);
    let to = share(m.lm_head().panels, cx.core, cx.caps.cores).1;
    let panels = p.logits_panels.min(to - q);
    let v = VecOp {
        x: granule(p.logits[b as usize]),
        d: granule(p.result),
        cols: panels * m.h.panel - 1,
        xf: Format::Fp32.code(),
        yf: Format::Fp32.code(),
        dfm: Format::Fp32.code(),
        upd: u64::from(piece > 0),
        ..VecOp::default()
    };
    // ATT_SEND is idle here: it tells the writer that the result is final.
    let post = [(sem::logits_free(b), 1), if q + panels == to { (sem::ATT_SEND, 1) } else { (0, 0) }];
    let at = Position { q0: position, k0: q * m.h.panel, ..Position::default() };
    e.push(&[(sem::logits_full(b), 1)], &post, cx.tag, Command::vec(VecFn::Argmax, v, Some(at)));
}
