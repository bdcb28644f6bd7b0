//! All lists of a model: where they are, when they are written, what changes from token to token.

use isa::cache::{CacheShape, PageChoice, Paging};
use isa::image::ImageHeader;
use isa::kinds::MAX_KINDS;
use isa::npu::{Command, Ctrl, CtrlOp, Dma, MAX_CORES};
use isa::tags::OpKind;

use crate::attention::{self, Head};
use crate::cache;
use crate::caps::Caps;
use crate::draw;
use crate::emit::{Emitter, R_ARENA, R_ATTENTION, R_BULK, R_GAIN, R_IMAGE, R_KV, R_LAYER, R_SHIFT, Sink};
use crate::encoder;
use crate::head::{self, Pieces};
use crate::layer::layer;
use crate::long::Long;
use crate::model::Model;
use crate::norm::{embed, embedding_row, granule, linear};
use crate::pages::Pages;
use crate::plan::{Plan, share};
use crate::sem;

/// Memory the program may use, and how much it must hold.
#[derive(Clone, Copy, Debug)]
pub struct Places {
    /// Address of the image.
    pub image: u64,
    /// Address and bytes for lists and results.
    pub arena: (u64, u64),
    /// Address and bytes for KV cache, activations and logits.
    pub bulk: (u64, u64),
    /// Most positions.
    pub positions: u64,
    /// Most rows of a prefill chunk.
    pub chunk: u64,
    /// Bits of an element of the cache: 16, 8 or 4.
    pub kv_bits: u64,
    /// What of its pages is asked for.
    pub pages: PageChoice,
}

/// What a list is written for.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// Capabilities.
    pub caps: &'a Caps,
    /// Model.
    pub model: &'a Model,
    /// Plan of the shape.
    pub plan: &'a Plan,
    /// Core.
    pub core: u64,
    /// Tag of the commands.
    pub tag: u64,
    /// Most positions of the KV cache.
    pub positions: u64,
    /// Bits of an element of the KV cache.
    pub kv_bits: u64,
    /// Its pages; an encoder's keys and values have none.
    pub pages: Option<&'a Pages>,
    /// Offset in bulk memory of the spilled residual stream.
    pub x_offset: u64,
    /// Region of the spilled hidden layer.
    pub h_region: u64,
    /// Offset in that region of the spilled hidden layer.
    pub h_offset: u64,
    /// Offset in that region of its int8 form.
    pub h8_offset: u64,
    /// Offset in bulk memory of spilled outputs that are normed before they join the residual stream.
    pub output_offset: u64,
    /// Row of the whole input that is row 0 here (long encoders).
    pub first: u64,
    /// Offset in bulk memory of the logits.
    pub logits_offset: u64,
    /// Offset in the arena of this core's result record.
    pub result_offset: u64,
    /// Arena entry of the first attention list, and entries of each: those of layers that see all positions, then
    /// those of windowed ones.
    pub attention: (u64, u64),
}

impl Context<'_> {
    /// The same with another tag.
    #[must_use]
    pub fn tagged(&self, kind: OpKind) -> Self {
        Self { tag: kind.code(), ..*self }
    }
    /// Arena entry of the attention list of this core's `i`-th head.
    #[must_use]
    pub const fn attention_list(&self, windowed: bool, i: u64) -> u64 {
        let behind = if windowed { self.heads() } else { 0 };
        self.attention.0 + (behind + i) * self.attention.1
    }
    /// Region and byte offset at which a layer's list calls it, whatever the kind of layer.
    #[must_use]
    pub const fn attention_call(&self, i: u64) -> (u64, u64) {
        if self.model.windows() {
            (R_ATTENTION, i * self.attention.1 * 32)
        } else {
            (R_ARENA, self.attention_list(false, i) * 32)
        }
    }
    /// KV heads of this core.
    #[must_use]
    pub const fn heads(&self) -> u64 {
        let (from, to) = share(self.model.h.kv_heads, self.core, self.caps.cores);
        to - from
    }
}

/// Why there is no program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// No plan fits scratchpad and accumulator.
    Scratchpad,
    /// Lists or results do not fit the arena.
    Arena,
    /// Cache and activations do not fit bulk memory.
    Bulk,
    /// The pages asked for are too small: there would be too many.
    Paging,
    /// The positions of a step need more pages than there are; nothing has changed.
    Pages,
}

/// Lists of one shape.
#[derive(Clone, Copy, Debug, Default)]
struct Shape {
    plan: Plan,
    top: [u64; MAX_CORES],
    /// Entry of the embedding command in the top list (decode).
    embed: [u64; MAX_CORES],
    /// A list for each kind of layers.
    layer: [[u64; MAX_KINDS]; MAX_CORES],
    head: [u64; MAX_CORES],
    pieces: [Pieces; MAX_CORES],
    attention: [(u64, u64); MAX_CORES],
    /// Position the lists were last written for.
    start: Option<u64>,
    /// Whether the top lists sample.
    sample: bool,
    /// Whether they draw.
    draw: bool,
}

/// One pass over the model: prefill chunk or decode step.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// Position of the first row.
    pub start: u64,
    /// Rows.
    pub rows: u64,
    /// Whether a token is wanted from the last row.
    pub sample: bool,
    /// Candidates it is drawn from, at most [`draw::MOST`]; 0 is the likeliest token without a draw.
    pub candidates: u64,
}

impl Step {
    /// Whether a token is drawn.
    #[must_use]
    pub const fn draws(&self) -> bool {
        self.sample && self.candidates > 0
    }
}

/// What does not change from shape to shape.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Base {
    pub(crate) caps: Caps,
    pub(crate) model: Model,
    pub(crate) places: Places,
    pub(crate) kv_layer: u64,
    pages: Option<Pages>,
    x_offset: u64,
    logits_offset: u64,
}

/// The program of a model on a cluster.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    base: Base,
    decode: Shape,
    prefill: Shape,
    /// Rows of the largest prefill chunk.
    chunk: u64,
    /// First free arena entry after the decode lists.
    free: u64,
    /// Lists of an encoder's rows that do not fit a pass; no rows: none are written.
    long: Long,
}

/// Entries before the lists: a ring and a result record a core.
pub const RING_LOG2: u64 = 6;
const RING_ENTRIES: u64 = 1 << RING_LOG2;
/// Completion records of a core.
pub const COMPLETION_LOG2: u64 = 4;
const RESERVED_ENTRIES: u64 = MAX_CORES as u64 * (RING_ENTRIES + (1 << COMPLETION_LOG2) + 2);

/// Byte offset in the arena of a core's ring.
#[must_use]
pub const fn ring_offset(core: u64) -> u64 {
    core * RING_ENTRIES * 32
}
/// Byte offset in the arena of a core's completion ring.
#[must_use]
pub const fn completion_offset(core: u64) -> u64 {
    (MAX_CORES as u64 * RING_ENTRIES + (core << COMPLETION_LOG2)) * 32
}
/// Byte offset in the arena of a core's result record.
#[must_use]
pub const fn result_offset(core: u64) -> u64 {
    (MAX_CORES as u64 * (RING_ENTRIES + (1 << COMPLETION_LOG2)) + core * 2) * 32
}

/// The cache of a model that makes tokens, empty.
fn paged(h: &ImageHeader, places: &Places) -> Result<Pages, Unfit> {
    let shape = CacheShape {
        layers: h.layers,
        kv_heads: h.kv_heads,
        head_dim: h.head_dim,
        bits: places.kv_bits,
        positions: places.positions,
    };
    let paging = Paging::new(&shape, places.pages).ok_or(Unfit::Paging)?;
    Pages::new(paging, places.arena.0, RESERVED_ENTRIES, places.bulk.0).ok_or(Unfit::Bulk)
}

impl Program {
    /// Plans the model; writes the decode lists.
    ///
    /// # Errors
    /// If scratchpad, arena or bulk memory is too small.
    pub fn new<S: Sink>(caps: Caps, header: Model, places: Places, sink: &mut S) -> Result<Self, Unfit> {
        let model = header;
        let h: &ImageHeader = &model.h;
        if model.stem() {
            return Self::of_rows(caps, model, places, sink);
        }
        let decode = Plan::new(&caps, &model, 1).ok_or(Unfit::Scratchpad)?;
        // Fewer rows at a time until a plan fits, if possible one that leaves weights some room.
        let find = |roomy: bool| {
            let mut rows = places.chunk;
            loop {
                match Plan::new(&caps, &model, rows) {
                    Some(p) if !roomy || p.is_roomy(&caps) => break Some(p),
                    _ if rows <= 1 => break None,
                    _ => rows = if rows > 16 { rows.div_ceil(32) * 16 } else { rows / 2 },
                }
            }
        };
        let prefill = find(true).or_else(|| find(false)).ok_or(Unfit::Scratchpad)?;
        let kv_layer = cache::layer_bytes(h.kv_heads, h.head_dim, places.positions, places.kv_bits);
        let pages = if model.encoder() { None } else { Some(paged(h, &places)?) };
        let cache = pages.as_ref().map_or(kv_layer, |p| p.end - places.bulk.0);
        let x_offset = cache.div_ceil(4096) * 4096;
        let spill = prefill.bulk_bytes(&model).max(decode.bulk_bytes(&model));
        let logits_offset = x_offset + spill.div_ceil(4096) * 4096;
        let result = if model.encoder() { h.hidden } else { h.vocab };
        if logits_offset + result * 4 > places.bulk.1 {
            return Err(Unfit::Bulk);
        }
        let base = Base { caps, model, places, kv_layer, pages, x_offset, logits_offset };
        let mut program = Self {
            base,
            decode: Shape { plan: decode, ..Shape::default() },
            prefill: Shape { plan: prefill, ..Shape::default() },
            chunk: prefill.rows,
            free: pages.as_ref().map_or(RESERVED_ENTRIES, Pages::tables_end),
            long: Long::default(),
        };
        if program.free > base.draw_list(0) {
            return Err(Unfit::Arena);
        }
        if let Some(pages) = &base.pages {
            pages.clear(sink);
        }
        program.free = base.write_shape(&mut program.decode, program.free, sink)?;
        base.write_shape(&mut program.prefill, program.free, sink)?;
        Ok(program)
    }

    /// The pages of the cache, unless the model is an encoder.
    #[must_use]
    pub fn pages(&self) -> Option<&Pages> {
        self.base.pages.as_ref()
    }

    /// Takes or gives back pages until there are those of `positions` positions; of an encoder nothing. A step does that
    /// for its own.
    ///
    /// # Errors
    /// If there are not so many; then nothing changes.
    pub fn hold<S: Sink>(&mut self, positions: u64, sink: &mut S) -> Result<(), Unfit> {
        match &mut self.base.pages {
            Some(pages) => pages.hold(positions, sink).map_err(|_| Unfit::Pages),
            None => Ok(()),
        }
    }

    /// The program of an encoder of images or sound: its lists are written for as many rows as a chunk may have.
    fn of_rows<S: Sink>(caps: Caps, model: Model, places: Places, sink: &mut S) -> Result<Self, Unfit> {
        let h = &model.h;
        let kv_layer = cache::layer_bytes(h.kv_heads, h.head_dim, places.positions, places.kv_bits);
        let base = Base { caps, model, places, kv_layer, pages: None, x_offset: 0, logits_offset: 0 };
        let rows = places.chunk.min(h.position_count);
        let mut program = Self {
            base,
            decode: Shape::default(),
            prefill: Shape::default(),
            chunk: rows,
            free: RESERVED_ENTRIES,
            long: Long::default(),
        };
        program.write_long(rows, &mut |_| 0, sink)?;
        Ok(program)
    }

    /// Writes the lists of an encoder's `rows` rows in chunks, in place of those of a pass.
    fn write_long<S: Sink>(
        &mut self,
        rows: u64,
        tokens: &mut dyn FnMut(u64) -> u64,
        sink: &mut S,
    ) -> Result<(), Unfit> {
        let base = &mut self.base;
        let stem = base.model.stem();
        let free = if stem { base.kv_layer } else { base.logits_offset + base.model.h.hidden * 4 };
        self.long = Long::new(base, rows, free, base.logits_offset)?;
        self.long.write(base, (self.free, base.draw_list(0)), tokens, sink)?;
        base.logits_offset = self.long.result();
        let shape = Shape { plan: self.long.plan, ..Shape::default() };
        if stem {
            self.decode = shape;
        }
        self.prefill = Shape { plan: Plan { rows: 0, ..shape.plan }, ..shape };
        Ok(())
    }

    /// The lists in chunks, where one pass does not do; those of an image do for another.
    fn prepare_long<S: Sink>(
        &mut self,
        step: &Step,
        tokens: &mut dyn FnMut(u64) -> u64,
        sink: &mut S,
    ) -> Option<Result<[u64; MAX_CORES], Unfit>> {
        let stem = self.base.model.stem();
        if !self.base.model.encoder() || (!stem && self.next_rows(step.rows) == step.rows) {
            return None;
        }
        if stem && self.long.rows == step.rows {
            return Some(Ok(self.long.tops()));
        }
        Some(self.write_long(step.rows, tokens, sink).map(|()| self.long.tops()))
    }

    /// Byte offset in bulk memory of an image's or a sound's input rows.
    #[must_use]
    pub fn input_offset(&self) -> u64 {
        self.long.input()
    }

    /// The chunks of the last encoder's input that did not fit a pass.
    #[must_use]
    pub fn long(&self) -> &Long {
        &self.long
    }

    /// Rows of the largest prefill chunk.
    #[must_use]
    pub fn chunk_rows(&self) -> u64 {
        self.chunk
    }

    /// Rows of the next chunk when `left` rows of a prompt are left: the most that have a plan.
    #[must_use]
    pub fn next_rows(&self, left: u64) -> u64 {
        let mut rows = left.min(self.chunk_rows());
        // A rest may be too long to stay resident and too short to spill; one row always fits.
        while rows > 1 && Plan::new(&self.base.caps, &self.base.model, rows).is_none() {
            rows -= 1;
        }
        rows
    }

    /// The plans in force: decode, prefill.
    #[must_use]
    pub fn plans(&self) -> (&Plan, &Plan) {
        (&self.decode.plan, &self.prefill.plan)
    }

    /// Byte offset of the logits, or of an encoder's result, in bulk memory.
    #[must_use]
    pub fn logits_offset(&self) -> u64 {
        self.base.logits_offset
    }

    /// The list that prepares a core's semaphores; runs once after reset.
    pub fn init<S: Sink>(&self, sink: &mut S, at: u64) -> u64 {
        let mut e = Emitter::new(sink, at);
        for (id, count) in sem::INITIAL {
            e.ctrl(&[], &[], CtrlOp::Sem, Ctrl { id: *id, cnt: *count, ..Ctrl::default() });
        }
        e.position()
    }

    /// Writes or patches the lists for `step`; returns each core's top list as a byte offset in the arena.
    ///
    /// # Errors
    /// If a chunk of another size does not fit, or no page is free for its positions.
    pub fn prepare<S: Sink>(
        &mut self,
        step: &Step,
        tokens: &mut dyn FnMut(u64) -> u64,
        sink: &mut S,
    ) -> Result<[u64; MAX_CORES], Unfit> {
        if let Some(done) = self.prepare_long(step, tokens, sink) {
            return done;
        }
        self.hold(step.start + step.rows, sink)?;
        let base = &self.base;
        let shape = if step.rows == 1 { &mut self.decode } else { &mut self.prefill };
        if shape.plan.rows != step.rows {
            // The last chunk of a prompt is shorter: its lists replace the chunk's.
            let plan = Plan::new(&base.caps, &base.model, step.rows).ok_or(Unfit::Scratchpad)?;
            *shape = Shape { plan, ..Shape::default() };
            base.write_shape(shape, self.free, sink)?;
        }
        for core in 0..base.caps.cores {
            base.prepare_core(shape, core, step, tokens, sink)?;
        }
        shape.start = Some(step.start);
        (shape.sample, shape.draw) = (step.sample, step.draws());
        Ok(shape.top.map(|entry| entry * 32))
    }
}

impl Base {
    fn context<'a>(&'a self, shape: &'a Shape, core: u64) -> Context<'a> {
        Context {
            caps: &self.caps,
            model: &self.model,
            plan: &shape.plan,
            core,
            tag: 0,
            positions: self.places.positions,
            kv_bits: self.places.kv_bits,
            pages: self.pages.as_ref(),
            x_offset: self.x_offset,
            h_region: R_BULK,
            first: 0,
            h_offset: self.x_offset + shape.plan.rows * self.model.h.hidden * 4,
            h8_offset: self.x_offset + shape.plan.rows * (self.model.h.hidden * 4 + self.model.h.ffn * 2),
            output_offset: self.x_offset + shape.plan.rows * (self.model.h.hidden * 4 + self.model.h.ffn * 3),
            logits_offset: self.logits_offset,
            result_offset: result_offset(core),
            attention: shape.attention[core as usize],
        }
    }

    /// Writes the lists that do not depend on position: layer and head of every core, and room for the rest.
    fn write_shape<S: Sink>(&self, shape: &mut Shape, mut at: u64, sink: &mut S) -> Result<u64, Unfit> {
        let limit = self.draw_list(0);
        for core in 0..self.caps.cores {
            let i = core as usize;
            let words = attention::most_words(&self.context(shape, core), self.places.positions);
            shape.attention[i] = (at, words);
            let kinds = if self.model.windows() { 2 } else { 1 };
            at += words * self.context(shape, core).heads() * kinds;
            if at + 65_536 > limit {
                return Err(Unfit::Arena);
            }
            let cx = self.context(shape, core);
            let mut e = Emitter::new(sink, at);
            let mut lists = [at; MAX_KINDS];
            layer(&mut e, &cx);
            for (kind, list) in lists.iter_mut().enumerate().take(self.model.kinds()).skip(1) {
                if e.position() + 65_536 > limit {
                    return Err(Unfit::Arena);
                }
                *list = e.position();
                layer(&mut e, &Context { model: &self.model.of_kind(kind), ..cx });
            }
            let head = e.position();
            let pieces = if self.model.encoder() {
                encoder::pool(&mut e, &cx.tagged(OpKind::Head));
                Pieces::default()
            } else {
                head::head(&mut e, &cx.tagged(OpKind::Head), 0).ok_or(Unfit::Arena)?
            };
            let top = e.position();
            (shape.layer[i], shape.head[i], shape.pieces[i], shape.top[i]) = (lists, head, pieces, top);
            let a_layer = if self.model.encoder() || self.model.windows() { 6 } else { 4 };
            at = top + 64 + a_layer * self.model.h.layers + 4 * shape.plan.rows;
            if at > limit {
                return Err(Unfit::Arena);
            }
        }
        shape.start = None;
        Ok(at)
    }

    /// Arena entry of a core's list that draws: at the arena's end.
    const fn draw_list(&self, core: u64) -> u64 {
        (self.places.arena.1 / 32).saturating_sub((MAX_CORES as u64 - core) * draw::ENTRIES)
    }

    fn prepare_core<S: Sink>(
        &self,
        shape: &mut Shape,
        core: u64,
        step: &Step,
        tokens: &mut dyn FnMut(u64) -> u64,
        sink: &mut S,
    ) -> Result<(), Unfit> {
        let i = core as usize;
        let cx = self.context(shape, core);
        // An encoder's passes have nothing to do with each other.
        let patch = shape.start.filter(|_| step.rows == 1 && !self.model.encoder());
        let (from, _) = share(self.model.h.kv_heads, core, self.caps.cores);
        for windowed in [false, true].into_iter().filter(|w| self.model.has_layers(*w)) {
            let same = patch.is_some_and(|s| attention::same_shape(&cx, windowed, s, step.start));
            for k in 0..cx.heads() {
                let h = Head { head: from + k, i: k, start: step.start, windowed };
                let mut e = Emitter::new(sink, cx.attention_list(windowed, k));
                attention::head(&mut e, &cx.tagged(OpKind::Attention), &h, same);
            }
        }
        if step.sample && !self.model.encoder() {
            let mut e = Emitter::new(sink, 0);
            head::patch(&mut e, &cx.tagged(OpKind::Head), &shape.pieces[i], step.start + step.rows);
        }
        if step.draws() {
            let mut e = Emitter::new(sink, self.draw_list(core));
            let position = step.start + step.rows;
            draw::draw(&mut e, &cx.tagged(OpKind::Head), position, step.candidates)
                .ok_or(Unfit::Scratchpad)?;
        }
        // A one-row chunk inside a prompt leaves top lists that do not sample.
        let same = (shape.sample, shape.draw) == (step.sample, step.draws());
        if patch.is_some() && same && cx.plan.resident {
            let (p, ch) = (cx.plan, self.caps.misc_channel());
            let row = linear(0, ch, R_IMAGE, embedding_row(&cx, tokens(0)), p.a, self.model.h.hidden * 2);
            let mut e = Emitter::new(sink, shape.embed[i]);
            e.push(&[], &[(sem::row_full(0), 1)], OpKind::Embed.code(), Command::dma(row));
            return Ok(());
        }
        shape.embed[i] = self.write_top(&cx, shape, step, tokens, sink);
        Ok(())
    }

    /// Points an encoder's norm before its `own` layer (by offset; none: behind the last) at its weights: those of the
    /// layer `before` it or of the embedding, or, where norms come first, the layer's own and one more behind the last.
    pub(crate) fn set_norm<S: Sink>(&self, e: &mut Emitter<S>, before: Option<u64>, own: Option<u64>) {
        let (h, image) = (&self.model.h, self.places.image);
        if !self.model.encoder() {
            return;
        }
        let (gain, shift) = match (before, own) {
            (_, None) if self.model.stem() => (h.final_norm, h.final_norm + h.hidden * 4),
            (_, Some(own)) if self.model.stem() => (own + h.norm1, own + h.norm1_bias),
            (None, _) => (h.embed_norm, h.embed_norm + h.hidden * 4),
            (Some(layer), _) => (layer + h.norm2, layer + h.norm2_bias),
        };
        e.set_region(R_GAIN, image + gain, h.hidden * 4);
        e.set_region(R_SHIFT, image + shift, h.hidden * 4);
    }

    /// Writes a core's top list; returns the entry of its embedding command.
    fn write_top<S: Sink>(
        &self,
        cx: &Context,
        shape: &Shape,
        step: &Step,
        tokens: &mut dyn FnMut(u64) -> u64,
        sink: &mut S,
    ) -> u64 {
        let (h, i) = (&self.model.h, cx.core as usize);
        let mut e = Emitter::new(sink, shape.top[i]);
        e.set_region(R_IMAGE, self.places.image, h.bytes);
        e.set_region(R_BULK, self.places.bulk.0, self.places.bulk.1);
        let table =
            linear(0, self.caps.misc_channel(), R_IMAGE, h.inv_freq, cx.plan.inv_freq, h.head_dim * 2);
        e.push(&[], &[], OpKind::Embed.code(), Command::dma(table));
        if self.model.local_rope() {
            let local = Dma { moff: h.inv_freq_local, saddr: granule(cx.plan.inv_freq_local), ..table };
            e.push(&[], &[], OpKind::Embed.code(), Command::dma(local));
        }
        let embedding = e.position();
        embed(&mut e, &cx.tagged(OpKind::Embed), tokens);
        let mut before = None;
        for (l, layer) in (0..).zip(self.model.layers()) {
            e.ctrl(&[], &[], CtrlOp::PmuMark, Ctrl { cnt: l, ..Ctrl::default() });
            e.set_region(R_LAYER, self.places.image + layer.offset, layer.bytes);
            // An encoder's keys and values are used up when its next layer begins.
            let (kv, limit) =
                self.pages.as_ref().map_or((self.places.bulk.0, self.kv_layer), |p| p.region(l));
            e.set_region(R_KV, kv, limit);
            self.set_norm(&mut e, before, Some(layer.offset));
            before = Some(layer.offset);
            if self.model.windows() {
                let lists = cx.attention_list(self.model.windowed(l), 0) * 32;
                let bytes = cx.attention.1 * cx.heads() * 32;
                e.set_region(R_ATTENTION, self.places.arena.0 + lists, bytes);
            }
            e.call(R_ARENA, shape.layer[i][layer.kind] * 32);
        }
        self.set_norm(&mut e, before, None);
        if step.sample {
            e.call(R_ARENA, shape.head[i] * 32);
            if step.draws() {
                e.call(R_ARENA, self.draw_list(cx.core) * 32);
            }
            e.fence();
        } else {
            e.sync_in_order(&[(sem::X_ALL, self.caps.cores)], &[]);
        }
        e.ctrl(&[], &[], CtrlOp::Irq, Ctrl::default());
        e.ret();
        embedding
    }
}
