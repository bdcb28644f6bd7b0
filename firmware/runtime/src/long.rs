//! Encoders whose rows do not fit a pass at once: long texts, images, sound.
//!
//! The residual stream of all rows is in memory, in chunks of equal rows (or one less, so that none is padded). A layer
//! takes all chunks through its first half (norm, QKV, keys and values to the cache, queries to memory), then all through
//! its second (attention over all keys, and what follows). Chunks share the lists of a half: they find their
//! rows through region registers. A half starts when `X_ALL` says that everyone is done with the one before, so a
//! core's own keys and values, which nobody else reads, are in memory by then.

use isa::kinds::MAX_KINDS;
use isa::npu::{Command, Ctrl, CtrlOp, Dma, MAX_CORES};
use isa::tags::{MARK_LAYERS, OpKind};

use crate::attention::{Head, over_keys};
use crate::cache::{self, Rows};
use crate::dense::{Slots, head_qkv};
use crate::emit::{
    Emitter, R_ARENA, R_BULK, R_GAIN, R_HIDDEN, R_IMAGE, R_KV, R_LAYER, R_QUERY, R_SHIFT, Sem, Sink,
};
use crate::encoder::{self, Also};
use crate::layer::behind;
use crate::norm::{embed, everyone, granule, linear, norm, rows_of};
use crate::plan::{Plan, share};
use crate::program::{Base, Context, Unfit, result_offset};
use crate::sem;
use crate::stem::{self, Buffers};

/// Entries of the lists of a kind of layers: by half, then by chunk (with the plan's rows, with one less).
type Halves = [[u64; 2]; 2];
/// Chunks that marks tell apart.
const MARKED: u64 = (1 << 16) / MARK_LAYERS;

/// Rows in chunks, and where they are in memory.
#[derive(Clone, Copy, Debug, Default)]
pub struct Long {
    /// Rows.
    pub rows: u64,
    /// The plan of a chunk; its rows are the most of any.
    pub plan: Plan,
    /// Chunks.
    count: u64,
    /// Those that have the plan's rows; the others have one less.
    full: u64,
    x: u64,
    hidden: u64,
    queries: u64,
    buffers: Buffers,
    result: u64,
    top: [u64; MAX_CORES],
}

fn aligned(bytes: u64) -> u64 {
    bytes.div_ceil(4096) * 4096
}

impl Long {
    /// Plans `rows` rows in the fewest chunks that leave room for weights, or that fit at all; `free` is where
    /// bulk memory is free, `result` where the result goes (images and sound: behind everything else).
    pub(crate) fn new(base: &Base, rows: u64, free: u64, result: u64) -> Result<Self, Unfit> {
        let (caps, m) = (&base.caps, &base.model);
        let h = &m.h;
        let plan = |count: u64, roomy| Plan::long(caps, m, rows.div_ceil(count), roomy);
        let find = |roomy| (1..=rows).find_map(|count| plan(count, roomy).map(|p| (count, p)));
        let (count, plan) = find(true).or_else(|| find(false)).ok_or(Unfit::Scratchpad)?;
        // As few chunks as rows of that many need.
        let count = rows.div_ceil(plan.rows).min(count);
        let full = count - (count * plan.rows - rows);
        let queries = aligned(free);
        let x = queries + aligned(rows * m.att_cols() * 2);
        let hidden = x + aligned(count * plan.rows * h.hidden * 4);
        let input = hidden + aligned(plan.rows * h.ffn * 3);
        let (read, between) = if m.stem() { stem::bytes(m, rows) } else { (0, 0) };
        let buffers = Buffers { input, between: input + aligned(read) };
        let behind = buffers.between + aligned(between);
        let (result, end) = if m.stem() { (behind, behind + rows * h.hidden * 4) } else { (result, behind) };
        if end > base.places.bulk.1 {
            return Err(Unfit::Bulk);
        }
        Ok(Self { rows, plan, count, full, x, hidden, queries, buffers, result, top: [0; MAX_CORES] })
    }

    /// Byte offset of the result in bulk memory.
    #[must_use]
    pub const fn result(&self) -> u64 {
        self.result
    }

    /// Byte offset of the input in bulk memory.
    #[must_use]
    pub const fn input(&self) -> u64 {
        self.buffers.input
    }

    /// Each core's top list as a byte offset in the arena.
    #[must_use]
    pub fn tops(&self) -> [u64; MAX_CORES] {
        self.top.map(|entry| entry * 32)
    }

    /// First row and rows of chunk `c`.
    const fn chunk(&self, c: u64) -> (u64, u64) {
        let less = c.saturating_sub(self.full);
        (c * self.plan.rows - less, if c < self.full { self.plan.rows } else { self.plan.rows - 1 })
    }

    fn context<'a>(&self, base: &'a Base, plan: &'a Plan, core: u64, first: u64) -> Context<'a> {
        Context {
            caps: &base.caps,
            model: &base.model,
            plan,
            core,
            tag: 0,
            positions: base.places.positions,
            kv_bits: base.places.kv_bits,
            pages: None,
            x_offset: self.x,
            h_region: R_HIDDEN,
            h_offset: 0,
            h8_offset: plan.rows * base.model.h.ffn * 2,
            output_offset: 0,
            first,
            logits_offset: self.result,
            result_offset: result_offset(core),
            attention: (0, 0),
        }
    }

    /// Writes all lists from entry `at` on, below entry `limit`.
    pub(crate) fn write<S: Sink>(
        &mut self,
        base: &Base,
        (mut at, limit): (u64, u64),
        tokens: &mut dyn FnMut(u64) -> u64,
        sink: &mut S,
    ) -> Result<(), Unfit> {
        let plans = [self.plan, Plan { rows: self.plan.rows - 1, ..self.plan }];
        let sizes = if self.full < self.count { 2 } else { 1 };
        for core in 0..base.caps.cores {
            let mut halves = [Halves::default(); MAX_KINDS];
            for (kind, halves) in halves.iter_mut().enumerate().take(base.model.kinds()) {
                let model = base.model.of_kind(kind);
                for (size, plan) in plans[..sizes].iter().enumerate() {
                    if at + 65_536 > limit {
                        return Err(Unfit::Arena);
                    }
                    let cx = Context { model: &model, ..self.context(base, plan, core, 0) };
                    let mut e = Emitter::new(sink, at);
                    first_half(&mut e, &cx);
                    halves[0][size] = at;
                    halves[1][size] = e.position();
                    second_half(&mut e, &cx, self.rows);
                    at = e.position();
                }
            }
            let embedding = if base.model.stem() { 0 } else { 2 * self.rows };
            if at + 65_536 + embedding + base.model.h.layers * self.count * 16 > limit {
                return Err(Unfit::Arena);
            }
            let mut e = Emitter::new(sink, at);
            self.write_top(&mut e, base, (core, &plans), &halves, tokens);
            self.top[core as usize] = at;
            at = e.position();
        }
        Ok(())
    }

    fn write_top<S: Sink>(
        &self,
        e: &mut Emitter<S>,
        base: &Base,
        (core, plans): (u64, &[Plan; 2]),
        halves: &[Halves; MAX_KINDS],
        tokens: &mut dyn FnMut(u64) -> u64,
    ) {
        let (h, places) = (&base.model.h, &base.places);
        let size = |c: u64| usize::from(c >= self.full);
        e.set_region(R_IMAGE, places.image, h.bytes);
        e.set_region(R_BULK, places.bulk.0, places.bulk.1);
        e.set_region(R_HIDDEN, places.bulk.0 + self.hidden, self.plan.rows * h.ffn * 3);
        let cx = self.context(base, &plans[0], core, 0);
        let c = cx.tagged(OpKind::Embed);
        if base.model.stem() {
            e.sync(&[], &[(sem::X_ALL, 1)]);
            let stride = self.plan.rows * h.hidden * 4;
            let chunks = (0..self.count).map(|c| (self.chunk(c).0, self.chunk(c).1, self.x + c * stride));
            stem::stem(e, &c, &self.buffers, self.rows, chunks);
        } else {
            for n in 0..self.count {
                let first = self.chunk(n).0;
                let cx = self.context(base, &plans[size(n)], core, first);
                self.set_stream(e, base, n);
                embed(e, &cx.tagged(OpKind::Embed), &mut |row| tokens(first + row));
                if n + 1 < self.count {
                    e.sync_in_order(&[(sem::X_ALL, base.caps.cores)], &[]);
                }
            }
        }
        let row = isa::cache::row_bytes(h.head_dim, places.kv_bits);
        let mut before = None;
        for (l, layer) in (0..).zip(base.model.layers()) {
            e.set_region(R_LAYER, places.image + layer.offset, layer.bytes);
            base.set_norm(e, before, Some(layer.offset));
            before = Some(layer.offset);
            for (half, lists) in halves[layer.kind].iter().enumerate() {
                for c in 0..self.count {
                    let first = self.chunk(c).0;
                    let mark = l + c.min(MARKED - 1) * MARK_LAYERS;
                    e.ctrl(&[], &[], CtrlOp::PmuMark, Ctrl { cnt: mark, ..Ctrl::default() });
                    // Keys and values are written at the chunk's own positions and read from the first on.
                    let position = if half == 0 { first * row } else { 0 };
                    if half == 0 || c == 0 {
                        e.set_region(R_KV, places.bulk.0 + position, base.kv_layer - position);
                    }
                    let bytes = base.model.att_cols() * 2;
                    let queries = self.queries + first * bytes;
                    e.set_region(R_QUERY, places.bulk.0 + queries, self.chunk(c).1 * bytes);
                    self.set_stream(e, base, c);
                    e.call(R_ARENA, lists[size(c)] * 32);
                }
            }
        }
        base.set_norm(e, before, None);
        e.set_region(R_BULK, places.bulk.0, places.bulk.1);
        e.sync_in_order(&[(sem::X_ALL, base.caps.cores)], &[]);
        if base.model.stem() || core == 0 {
            self.finish(e, base, (core, plans));
        }
        e.fence();
        e.ctrl(&[], &[], CtrlOp::Irq, Ctrl::default());
        e.ret();
    }

    /// Points the lists at the residual stream of chunk `c`.
    fn set_stream<S: Sink>(&self, e: &mut Emitter<S>, base: &Base, c: u64) {
        let bytes = self.plan.rows * base.model.h.hidden * 4;
        e.set_region(R_BULK, base.places.bulk.0 + c * bytes, self.x + bytes);
    }

    /// The last norm of each core's rows, to memory; of a text their mean, which one core makes.
    fn finish<S: Sink>(&self, e: &mut Emitter<S>, base: &Base, (core, plans): (u64, &[Plan; 2])) {
        let (h, stem) = (&base.model.h, base.model.stem());
        let cx = self.context(base, &self.plan, core, 0).tagged(OpKind::Head);
        let p = cx.plan;
        let batches = |c: u64| {
            let cx = self.context(base, &plans[usize::from(c >= self.full)], core, 0);
            let rows = self.chunk(c).1;
            match (stem, encoder::pools_first(&base.model)) {
                (true, _) => rows_of(&cx),
                (false, false) => (0, rows),
                (false, true) => (0, u64::from(c == 0)),
            }
        };
        if (0..self.count).all(|c| batches(c).0 == batches(c).1) {
            return;
        }
        encoder::load(e, &cx, (R_GAIN, 0), (R_SHIFT, 0), Also::Nothing);
        if !stem {
            let bytes = (p.row_batch * 4).div_ceil(16) * 16;
            let zeros = Dma { dir: 3, ..linear(0, cx.caps.misc_channel(), 0, 0, p.segments, bytes) };
            e.push(&[], &[(sem::logits_full(0), 1)], cx.tag, Command::dma(zeros));
            e.sync_in_order(&[(sem::logits_full(0), 1)], &[]);
        }
        let mut i = 0;
        for c in 0..self.count {
            let (first, chunk) = self.chunk(c);
            let (mut r, to) = batches(c);
            while r < to {
                let (rows, b) = (p.row_batch.min(to - r), i % 2);
                let at = p.row[b as usize];
                let x = self.x + c * self.plan.rows * h.hidden * 4 + r * h.panel * 4;
                let load = Dma {
                    n0: h.panel * 4 / 16 - 1,
                    n1: rows - 1,
                    n2: h.hidden / h.panel - 1,
                    mst1: h.panel * 4 / 16,
                    mst2: chunk * h.panel * 4 / 16,
                    sst1: granule(h.hidden * 4),
                    sst2: granule(h.panel * 4),
                    ..linear(0, cx.caps.misc_channel(), R_BULK, x, at, 16)
                };
                e.push(&[(sem::row_free(b), 1)], &[(sem::row_full(b), 1)], cx.tag, Command::dma(load));
                let weights: Sem = if i == 0 { (sem::NORM_FULL, 1) } else { (0, 0) };
                let normed: &[Sem] = if stem { &[(sem::out_full(b), 1)] } else { &[] };
                let wait = [(sem::row_full(b), 1), weights];
                e.push(&wait, normed, cx.tag, encoder::layernorm(&cx, rows, at));
                if stem {
                    let bytes = h.hidden * 4;
                    let to = self.result + (first + r) * bytes;
                    let store = linear(1, cx.caps.out_channel(), R_BULK, to, at, rows * bytes);
                    e.push(&[(sem::out_full(b), 1)], &[(sem::row_free(b), 1)], cx.tag, Command::dma(store));
                } else {
                    e.push(&[], &[(sem::row_free(b), 1)], cx.tag, encoder::add_rows(&cx, rows, at, i > 0));
                }
                r += rows;
                i += 1;
            }
        }
        e.sync_in_order(&[], &[(sem::NORM_FREE, 1)]);
        if !stem {
            encoder::scale(e, &cx, if encoder::pools_first(&base.model) { 1 } else { self.rows });
            encoder::send_pool(e, &cx);
        }
    }
}

/// Norm, QKV, keys and values to the cache, queries to memory.
fn first_half<S: Sink>(e: &mut Emitter<S>, cx: &Context) {
    let (from, to) = share(cx.model.h.kv_heads, cx.core, cx.caps.cores);
    let c = cx.tagged(OpKind::AttnNorm);
    encoder::load(e, &c, (R_GAIN, 0), (R_SHIFT, 0), Also::Attention);
    let ready = norm(e, &c, from < to);
    if from == to {
        e.sync_in_order(&[ready], &[(sem::X_ALL, 1)]);
        return e.ret();
    }
    let c = cx.tagged(OpKind::Qkv);
    let mut slots = Slots::default();
    for head in from..to {
        let start = match head - from {
            0 => Some(ready),
            1 => None,
            // The buffer's last head is in memory.
            _ => Some((sem::HEAD_FREE, 1)),
        };
        let i = head - from;
        head_qkv(e, &c, &mut slots, (head, i, cx.plan.qkv_at(i % 2)), start, (sem::QKV_DONE, 1));
        store(e, &c, (head, i), to);
    }
    e.ret();
}

/// The transfer of a head's queries between memory and its buffer, but for its direction's channel.
fn queries(cx: &Context, (dir, channel): (u64, u64), (head, i): (u64, u64)) -> Dma {
    let (m, p) = (cx.model, cx.plan);
    let bytes = m.group() * m.h.head_dim * 2;
    Dma {
        n0: bytes / 16 - 1,
        n1: p.rows - 1,
        mst1: bytes / 16,
        sst1: granule(m.group_cols() * 2),
        ..linear(dir, channel, R_QUERY, head * p.rows * bytes, p.qkv_at(i % 2), 16)
    }
}

/// Queries to memory, keys and values to the cache.
fn store<S: Sink>(e: &mut Emitter<S>, cx: &Context, (head, i): (u64, u64), to: u64) {
    let (m, p) = (cx.model, cx.plan);
    let (hd, g, stride) = (m.h.head_dim, m.group(), m.group_cols() * 2);
    let d = queries(cx, (1, cx.caps.out_channel()), (head, i));
    e.push(&[(sem::QKV_DONE, 1)], &[], cx.tag, Command::dma(d));
    for value in [false, true] {
        let rows = Rows { head, value, position: 0, count: p.rows };
        let at = p.qkv_at(i % 2) + (g + u64::from(value)) * hd * 2;
        let free: Sem = if value && head + 2 < to { (sem::HEAD_FREE, 1) } else { (0, 0) };
        let done: Sem = if value && head + 1 == to { (sem::X_ALL, 1) } else { (0, 0) };
        e.push(&[], &[free, done], cx.tag, cache::store(cx, &rows, at, stride));
    }
}

/// Attention over all `keys` keys, then the rest of the layer.
fn second_half<S: Sink>(e: &mut Emitter<S>, cx: &Context, keys: u64) {
    let (m, p, n) = (cx.model, cx.plan, cx.caps.cores);
    let (from, to) = share(m.h.kv_heads, cx.core, n);
    let c = cx.tagged(OpKind::Attention);
    if from == to {
        e.sync_in_order(&[(sem::X_ALL, n)], &[(sem::A_ALL, 1)]);
    }
    for head in from..to {
        let i = head - from;
        let d = queries(&c, (0, c.caps.misc_channel()), (head, i));
        let start: &[Sem] = match i {
            0 => &[(sem::X_ALL, n)],
            1 => &[],
            _ => &[(sem::HEAD_FREE, 1)],
        };
        e.push(start, &[], c.tag, Command::dma(d));
        over_keys(e, &c, &Head { head, i: i % 2, start: 0, windowed: false }, keys);
        let bytes = m.group() * m.h.head_dim * 2;
        let send = Dma {
            n0: bytes / 16 - 1,
            n1: p.rows - 1,
            mst1: p.a_stride / 16,
            sst1: granule(m.group_cols() * 2),
            cmask: everyone(n),
            ..linear(2, c.caps.out_channel(), 0, granule(p.a2 + head * bytes), p.qkv_at(i % 2), 16)
        };
        let free: Sem = if head + 2 < to { (sem::HEAD_FREE, 1) } else { (0, 0) };
        let done: Sem = if head + 1 == to { (sem::A_ALL, 1) } else { (0, 0) };
        e.push(&[(sem::ATT_SEND, 1)], &[free, done], c.tag, Command::dma(send));
    }
    behind(e, cx, Slots::default());
    e.ret();
}
