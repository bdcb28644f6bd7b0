//! The scratchpad map and tile sizes for a number of rows, from capabilities and model alone.

use isa::cache::MOST_BLOCK;

use crate::caps::Caps;
use crate::model::Model;
use crate::sem::MAX_SLOTS;

/// Where everything lives in a core's scratchpad (byte offsets) and how big tiles are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Rows (token positions) the lists are for.
    pub rows: u64,
    /// Whether all activations stay in scratchpads.
    pub resident: bool,
    /// Residual stream, rows x hidden fp32 (resident).
    pub x: u64,
    /// GEMM input, rows x `a_stride`.
    pub a: u64,
    /// Bytes of a GEMM input row.
    pub a_stride: u64,
    /// Gathered attention output (resident); spilled plans reuse `a`.
    pub a2: u64,
    /// Feed-forward hidden layer, rows x ffn fp16 (resident).
    pub h: u64,
    /// Chunk buffers of the hidden layer (spilled; they lie over `a`).
    pub chunk: [u64; 2],
    /// Hidden columns of a chunk.
    pub chunk_cols: u64,
    /// Panels accumulated together while chunks pass.
    pub chunk_panels: u64,
    /// Q/K/V of a KV head, rows x group columns fp16.
    pub qkv: u64,
    /// Bytes from one head's Q/K/V buffer to the next.
    pub qkv_stride: u64,
    /// K/V block buffers: K, then V.
    pub kv: [u64; 2],
    /// How many there are.
    pub kv_buffers: u64,
    /// Key positions of a block.
    pub block: u64,
    /// Query rows of an attention tile.
    pub att_rows: u64,
    /// Probabilities, attention rows x block fp16.
    pub probs: u64,
    /// Running maximum and sum.
    pub stats: u64,
    /// Rescale vector.
    pub alpha: u64,
    /// Output staging tiles (spilled).
    pub out: [u64; 2],
    /// Residual tiles (spilled).
    pub res: [u64; 2],
    /// Up-projection tile.
    pub up: u64,
    /// Row-wise pass: input rows then output rows (spilled).
    pub row: [u64; 2],
    /// Rows of one step of a row-wise pass.
    pub row_batch: u64,
    /// Norm weights, fp32.
    pub norm: u64,
    /// QKV biases of this core's heads, fp32.
    pub bias: u64,
    /// Biases of attention output, up and down projection, fp32 (encoders).
    pub dense_bias: [u64; 3],
    /// Sum of all rows, then what scales it, fp32 (encoders).
    pub pool: u64,
    /// The pool each row belongs to (encoders).
    pub segments: u64,
    /// Query and key norm weights, fp32.
    pub qk_norm: u64,
    /// Rotary inverse frequencies, fp32.
    pub inv_freq: u64,
    /// Those of windowed layers, where they have their own.
    pub inv_freq_local: u64,
    /// Outputs to be normed, rows x hidden fp32 (resident, post norms).
    pub output: u64,
    /// Scales of the quantised GEMM input, fp32: one a row, or by block [`Model::scales_of`] a row.
    pub a_scale: u64,
    /// Scales of each chunk buffer (spilled, by block).
    pub chunk_scale: [u64; 2],
    /// Logits buffers.
    pub logits: [u64; 2],
    /// Panels of a logits buffer.
    pub logits_panels: u64,
    /// Result record.
    pub result: u64,
    /// Weight slots.
    pub slots: u64,
    /// Bytes of a slot.
    pub slot_bytes: u64,
    /// Number of slots.
    pub slot_count: u64,
}

struct Bump {
    at: u64,
}

impl Bump {
    fn take(&mut self, bytes: u64) -> u64 {
        let at = self.at;
        self.at = (at + bytes).div_ceil(64) * 64;
        at
    }
}

/// This core's share `[from, to)` of `count` things.
#[must_use]
pub const fn share(count: u64, core: u64, cores: u64) -> (u64, u64) {
    (count * core / cores, count * (core + 1) / cores)
}

impl Plan {
    /// The plan for `rows` rows, or `None` if nothing fits.
    #[must_use]
    pub fn new(caps: &Caps, model: &Model, rows: u64) -> Option<Self> {
        if !Self::panel_fits(caps, model, rows) {
            return None;
        }
        let resident = Self::resident(caps, model, rows, caps.spm / 2);
        // Quantised inputs can stay where weights get little room, if their rows are too long to spill.
        resident
            .or_else(|| Self::spilled(caps, model, rows))
            .or_else(|| if model.quantised() { Self::resident(caps, model, rows, 0) } else { None })
    }

    fn constants(model: &Model, caps: &Caps, rows: u64, b: &mut Bump) -> Self {
        let heads = model.h.kv_heads.div_ceil(caps.cores);
        Self {
            rows,
            inv_freq: b.take(model.h.head_dim * 2),
            inv_freq_local: b.take(if model.local_rope() { model.h.head_dim * 2 } else { 0 }),
            norm: b.take(model.h.hidden * if model.encoder() { 8 } else { 4 }),
            dense_bias: [model.h.hidden, model.h.ffn, model.h.hidden]
                .map(|n| b.take(if model.encoder() { n * 4 } else { 0 })),
            pool: b.take(if model.encoder() { model.h.hidden * 4 + 64 } else { 0 }),
            segments: b.take(if model.encoder() { rows * 4 } else { 0 }),
            bias: b.take(if model.bias() { heads * model.group_cols() * 4 } else { 0 }),
            qk_norm: b.take(if model.qk_norm() { model.h.head_dim * 8 } else { 0 }),
            a_scale: b.take(if model.by_row() { rows * 4 } else { 0 }),
            result: b.take(32),
            stats: b.take(rows.max(model.group()) * 8),
            alpha: b.take(rows.max(model.group()) * 4),
            a_stride: (model.h.hidden.max(model.att_cols()) * 2).div_ceil(32) * 32,
            ..Self::default()
        }
    }

    /// Whether a panel's sums fit the accumulator.
    const fn panel_fits(caps: &Caps, model: &Model, rows: u64) -> bool {
        rows * model.h.panel * 4 <= caps.acc
    }

    /// Attention tile sizes: scores and output of a tile share the accumulator.
    fn attention(&mut self, caps: &Caps, model: &Model, largest_block: u64) -> Option<()> {
        let rows = if self.rows == 1 { model.group() } else { self.rows };
        let hd = model.h.head_dim;
        let mut tile = rows;
        while tile * (hd + 32) * 4 > caps.acc {
            if tile == 1 {
                return None;
            }
            tile = tile.div_ceil(2);
        }
        self.att_rows = tile;
        self.block = ((caps.acc / (tile * 4) - hd) / 16 * 16).min(largest_block);
        Some(())
    }

    fn finish(mut self, caps: &Caps, model: &Model, b: &mut Bump, least: u64) -> Option<Self> {
        self.slots = b.at;
        let left = caps.spm.checked_sub(b.at)?;
        let step = model.step_bytes() + model.h.panel * 4;
        // Many slots where they can be large; four (two a weight channel) where more would make tiles short.
        let most = if left / MAX_SLOTS >= 64 * 1024 { MAX_SLOTS } else { 4 };
        let count = (left / step).min(most);
        if left < least || count < 2 {
            return None;
        }
        self.slot_count = count;
        // A DMA run is at most 256 KiB.
        self.slot_bytes = (left / self.slot_count).min(256 * 1024) / 64 * 64;
        Some(self)
    }

    fn resident(caps: &Caps, model: &Model, rows: u64, least: u64) -> Option<Self> {
        let mut b = Bump { at: 0 };
        let mut p = Self::constants(model, caps, rows, &mut b);
        p.resident = true;
        // K/V buffers take at most an eighth of the scratchpad.
        p.attention(caps, model, (caps.spm / (64 * model.h.head_dim) / 16 * 16).clamp(16, MOST_BLOCK))?;
        p.x = b.take(rows * model.h.hidden * 4);
        p.a = b.take(rows * p.a_stride);
        p.a2 = b.take(rows * p.a_stride);
        p.h = b.take(rows * model.h.ffn * 2);
        p.output = b.take(if model.post_norms() { rows * model.h.hidden * 4 } else { 0 });
        if model.by_block() {
            let longest = model.h.hidden.max(model.att_cols()).max(model.h.ffn);
            p.a_scale = b.take(rows * model.scales_of(longest) * 4);
        }
        p.qkv_stride = (rows * model.group_cols() * 2).div_ceil(64) * 64;
        p.qkv = b.take(p.qkv_stride * model.h.kv_heads.div_ceil(caps.cores));
        p.kv_buffers = 2;
        let kv = p.block * model.h.head_dim * 4;
        p.kv = [b.take(kv), b.take(kv)];
        p.probs = b.take(p.att_rows * p.block * 2);
        p.up = b.take(rows * model.h.panel * 2);
        p.logits_panels = (16 * 1024 / (model.h.panel * 4)).max(1);
        let logits = p.logits_panels * model.h.panel * 4;
        p.logits = [b.take(logits), b.take(logits)];
        // Less than half the scratchpad for weights would starve the array: spill instead, where that is possible.
        p.finish(caps, model, &mut b, least)
    }

    /// The plan for chunks of `rows` rows of a long encoder: spilled, with two buffers for heads and for blocks of
    /// keys, and at least an eighth of the scratchpad for weights if `roomy`.
    #[must_use]
    pub fn long(caps: &Caps, model: &Model, rows: u64, roomy: bool) -> Option<Self> {
        if !Self::panel_fits(caps, model, rows) {
            return None;
        }
        Self::in_memory(caps, model, rows, true).filter(|p| !roomy || p.is_roomy(caps))
    }

    /// Whether weights have at least an eighth of the scratchpad: with less, tiles are short and lists long.
    #[must_use]
    pub const fn is_roomy(&self, caps: &Caps) -> bool {
        self.slot_bytes * self.slot_count >= caps.spm / 8
    }

    fn spilled(caps: &Caps, model: &Model, rows: u64) -> Option<Self> {
        Self::in_memory(caps, model, rows, false)
    }

    fn in_memory(caps: &Caps, model: &Model, rows: u64, long: bool) -> Option<Self> {
        let mut b = Bump { at: 0 };
        let mut p = Self::constants(model, caps, rows, &mut b);
        let panel = model.h.panel;
        p.attention(caps, model, 128)?;
        // Two chunks of the hidden layer lie over the input; each has at least one step of the down matrix's rows.
        let step = model.down_step().max(panel);
        p.chunk_cols = (p.a_stride / 4 / step * step).clamp(step, model.h.ffn.div_ceil(step) * step);
        // A stem's rows are longer, and fewer at a time.
        let least = if long && model.stem() { model.stems().map(|m| m.k * 2) } else { [0; 2] };
        // A few rows of an encoder in chunks leave room for the rows that are quantised at a time all the same.
        let batch = if long && model.by_row() { crate::quant::BATCH * model.h.ffn * 2 } else { 0 };
        let rows_bytes = (rows * p.a_stride).max(2 * rows * p.chunk_cols * 2).max(batch);
        p.a = b.take(rows_bytes.max(least[0]).max(least[1]));
        p.a2 = p.a;
        p.chunk = [p.a, p.a + rows * p.chunk_cols * 2];
        let fits = if long { model.h.panel >= 32 } else { crate::quant::fits(model, &p, rows) };
        if model.by_row() && !fits {
            return None;
        }
        if model.by_block() {
            p.a_scale = b.take(rows * model.scales_of(model.h.hidden.max(model.att_cols())) * 4);
            let chunk = rows * model.scales_of(p.chunk_cols) * 4;
            p.chunk_scale = [b.take(chunk), b.take(chunk)];
        }
        p.chunk_panels = (caps.acc / (rows * panel * 4)).clamp(1, 16);
        // One region, three uses that never overlap in time: attention, dense tiles, row-wise passes.
        let base = b.at;
        p.kv_buffers = 1 + u64::from(long);
        p.qkv_stride = (rows * model.group_cols() * 2).div_ceil(64) * 64;
        let heads = model.h.kv_heads.div_ceil(caps.cores);
        p.qkv = b.take(p.qkv_stride * if long { heads.min(2) } else { heads });
        p.kv = [b.take(p.block * model.h.head_dim * 4); 2];
        if long {
            p.kv[1] = b.take(p.block * model.h.head_dim * 4);
        }
        p.probs = b.take(p.att_rows * p.block * 2);
        let mut dense = Bump { at: base };
        let tile = rows * panel * 4;
        p.out = [dense.take(tile), dense.take(tile)];
        p.res = [dense.take(tile), dense.take(tile)];
        p.up = dense.take(rows * panel * 2);
        b.at = b.at.max(dense.at);
        // Rows wide and narrow; an encoder's embedding also adds rows of positions, a normed output wide rows.
        let row = model.h.hidden * if model.encoder() || model.post_norms() { 8 } else { 6 };
        let mut batch = 8;
        while batch > 1 && base + 2 * batch * row > b.at {
            batch /= 2;
        }
        p.row_batch = batch;
        let mut rows_at = Bump { at: base };
        p.row = [rows_at.take(batch * row), rows_at.take(batch * row)];
        b.at = b.at.max(rows_at.at);
        // The head comes when all three uses are over: its logits may take the whole region.
        p.logits_panels = ((b.at - base) / 2 / (panel * 4)).clamp(1, 64);
        p.logits = [base, base + p.logits_panels * panel * 4];
        p.finish(caps, model, &mut b, 0)
    }

    /// Byte offset of weight slot `i`.
    #[must_use]
    pub const fn slot(&self, i: u64) -> u64 {
        self.slots + i * self.slot_bytes
    }

    /// Byte offset of Q/K/V of this core's `i`-th KV head.
    #[must_use]
    pub const fn qkv_at(&self, i: u64) -> u64 {
        self.qkv + i * self.qkv_stride
    }

    /// Bytes of spilled residual stream, hidden layer and outputs to be normed in memory.
    #[must_use]
    pub const fn bulk_bytes(&self, model: &Model) -> u64 {
        let outputs = if model.post_norms() { model.h.hidden * 4 } else { 0 };
        if self.resident { 0 } else { self.rows * (model.h.hidden * 4 + model.h.ffn * 3 + outputs) }
    }
}
