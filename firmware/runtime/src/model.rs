//! The model as its image describes it.

use isa::image::{
    self, FLAG_ATTENTION_CAP, FLAG_BIAS, FLAG_DENSE_BIAS, FLAG_EMBED_NORM, FLAG_EMBED_SCALE, FLAG_ENCODER,
    FLAG_GATE_GELU, FLAG_GELU_TANH, FLAG_KINDS, FLAG_LAYER_NORM, FLAG_LOCAL_ROPE, FLAG_LOGIT_CAP,
    FLAG_PLAIN_FFN, FLAG_POOL_FIRST, FLAG_POOL_PLAIN, FLAG_POSITIONS, FLAG_POST_NORMS, FLAG_PRE_NORM,
    FLAG_QK_NORM, FLAG_ROPE_INTER, FLAG_STEM, FLAG_STEM2, FLAG_TOKEN_TYPES, FLAG_WINDOW, ImageHeader,
    Matrix as Stored,
};
use isa::kinds::LayerKinds;
use isa::npu::Format;

use crate::kinds;

/// Why an image cannot run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelError {
    /// Not an image, or of another version.
    NotAnImage,
    /// A size is zero or does not divide as the layout needs.
    BadShape,
    /// Flags of something that is not computed here.
    Unknown(u64),
    /// The table of kinds of layers is damaged: what is wrong.
    Kinds(&'static str),
}

/// What the lists of this library compute; an image with any other flag is refused, never run without it.
pub const FLAGS: u64 =
    FLAG_BIAS | FLAG_ROPE_INTER | FLAG_KINDS | ENCODER | POOLING | DECODER | STEM | STEM_MAY;

/// What makes an encoder; computed together or not at all.
const ENCODER: u64 = FLAG_ENCODER
    | FLAG_LAYER_NORM
    | FLAG_PLAIN_FFN
    | FLAG_DENSE_BIAS
    | FLAG_POSITIONS
    | FLAG_TOKEN_TYPES
    | FLAG_EMBED_NORM;
/// What an encoder may have.
const POOLING: u64 = FLAG_POOL_FIRST | FLAG_POOL_PLAIN;
/// The same of an encoder of images or sound.
const STEM: u64 = FLAG_ENCODER
    | FLAG_LAYER_NORM
    | FLAG_PLAIN_FFN
    | FLAG_DENSE_BIAS
    | FLAG_POSITIONS
    | FLAG_PRE_NORM
    | FLAG_STEM;
/// What such an encoder may have besides.
const STEM_MAY: u64 = FLAG_GELU_TANH | FLAG_STEM2;
/// What a decoder may have and an encoder may not.
const DECODER: u64 = FLAG_QK_NORM
    | FLAG_EMBED_SCALE
    | FLAG_ATTENTION_CAP
    | FLAG_LOGIT_CAP
    | FLAG_WINDOW
    | FLAG_LOCAL_ROPE
    | FLAG_POST_NORMS
    | FLAG_GATE_GELU;
/// Largest window: the width of its field in a command.
const MOST_WINDOW: u64 = (1 << 20) - 1;

/// A matrix of the image: where it is and how it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Matrix {
    /// Offset (in a layer, or in the image for the head).
    pub offset: u64,
    /// Inputs.
    pub k: u64,
    /// Panels.
    pub panels: u64,
    /// Panels' width, format, scales and minima.
    pub stored: Stored,
    /// Rows a tile must be a multiple of, the last excepted.
    pub row_step: u64,
}

/// Columns of one KV head's share of QKV: of an encoder of images or sound padded to whole panels.
pub(crate) const fn group_cols(h: &ImageHeader) -> u64 {
    let cols = (h.heads / h.kv_heads + 2) * h.head_dim;
    if h.flags & FLAG_STEM == 0 { cols } else { cols.div_ceil(h.panel) * h.panel }
}

/// A checked image header, and the matrices of one kind of layers: the first unless [`Model::of_kind`] chose another.
#[derive(Clone, Copy, Debug)]
pub struct Model {
    /// The header.
    pub h: ImageHeader,
    kinds: LayerKinds,
    /// QKV, values apart from it, attention output, gate, up, down, head.
    matrices: [Matrix; MATRICES],
    /// Elements of a block of int8 activations, 0 without blocks.
    block: u64,
    sums: bool,
    step_bytes: u64,
    down_step: u64,
}

/// Matrices of a kind of layers, and the head.
pub const MATRICES: usize = 7;

/// Where a layer is and of which kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Kind.
    pub kind: usize,
    /// Offset in the image.
    pub offset: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Model {
    /// Checks a header whose layers are all of one kind.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn new(h: ImageHeader) -> Result<Self, ModelError> {
        Self::read(h, |_| 0)
    }

    /// Checks a header; `word` gives the 64-bit words behind it by number, and is asked for none of them unless there
    /// are kinds of layers, then for at most [`LayerKinds::MOST_WORDS`].
    ///
    /// # Errors
    /// If it is no image of this version or its sizes do not fit the layout's rules.
    pub fn read(h: ImageHeader, word: impl FnMut(u64) -> u64) -> Result<Self, ModelError> {
        if h.magic != image::MAGIC || h.version != image::VERSION {
            return Err(ModelError::NotAnImage);
        }
        if h.flags & !FLAGS != 0 {
            return Err(ModelError::Unknown(h.flags & !FLAGS));
        }
        let encoder = h.flags & (ENCODER | STEM | STEM_MAY);
        if encoder != 0 && encoder != ENCODER && encoder & !STEM_MAY != STEM {
            return Err(ModelError::Unknown(encoder));
        }
        if h.flags & FLAG_STEM != 0 && Self::bad_stem(&h) {
            return Err(ModelError::BadShape);
        }
        if encoder != 0 && h.flags & DECODER != 0 {
            return Err(ModelError::Unknown(h.flags & DECODER));
        }
        if (encoder == 0 || h.flags & FLAG_STEM != 0) && h.flags & POOLING != 0 {
            return Err(ModelError::Unknown(h.flags & POOLING));
        }
        let sizes = [h.hidden, h.layers, h.heads, h.kv_heads, h.head_dim, h.ffn, h.vocab, h.panel];
        if sizes.contains(&0)
            || !h.heads.is_multiple_of(h.kv_heads)
            || !h.head_dim.is_multiple_of(16)
            || !h.hidden.is_multiple_of(h.panel)
            || !h.ffn.is_multiple_of(h.panel)
            || (encoder == 0 && !h.vocab.is_multiple_of(h.panel))
            || !h.panel.is_multiple_of(16)
            || !h.hidden.is_multiple_of(16)
            || h.act_group == 1
            || h.act_group > 6
            || !Self::extras_fit(&h)
        {
            return Err(ModelError::BadShape);
        }
        let head = Stored::from_code(h.panel, h.head_as).ok_or(ModelError::NotAnImage)?;
        let kinds = if h.flags & FLAG_KINDS == 0 { kinds::plain(&h) } else { kinds::read(&h, word)? };
        let quantised = h.act_format == Format::Int8 as u64;
        let block = if quantised { image::group_rows(h.act_group) } else { 0 };
        let mut model = Self {
            h,
            kinds,
            matrices: [kinds::matrix(&h, 0, 0, (0, 0), head); MATRICES],
            block,
            sums: block > 0 && head.zpm == 2,
            step_bytes: 0,
            down_step: 0,
        };
        for kind in kinds.all() {
            for part in kind.parts {
                let stored = Stored::from_code(h.panel, part.code).ok_or(ModelError::NotAnImage)?;
                model.sums |= block > 0 && stored.zpm == 2;
            }
        }
        // A tile's scales of A start at a granule too: eight values.
        let least = 8 * block / (1 + u64::from(model.sums));
        for kind in (0..kinds.count()).rev() {
            let each = kinds::matrices(&h, &kinds.all()[kind], least).ok_or(ModelError::NotAnImage)?;
            model.matrices = each;
            model.down_step = model.down_step.max(model.down().row_step);
            let steps = each.iter().filter(|m| m.panels > 0).map(|m| m.stored.row_offset(m.row_step));
            model.step_bytes = model.step_bytes.max(steps.max().unwrap_or(0));
        }
        if !model.group_cols().is_multiple_of(h.panel) { Err(ModelError::BadShape) } else { Ok(model) }
    }

    /// Whether windows and caps are numbers that can be used.
    fn extras_fit(h: &ImageHeader) -> bool {
        let has = |flag| h.flags & flag != 0;
        let fits = |flag, cap: u64| !has(flag) || (1..=u64::from(u32::MAX)).contains(&cap);
        (!has(FLAG_WINDOW) || (1..=MOST_WINDOW).contains(&h.window))
            && (!has(FLAG_LOCAL_ROPE) || has(FLAG_WINDOW))
            && fits(FLAG_ATTENTION_CAP, h.attention_cap)
            && fits(FLAG_LOGIT_CAP, h.logit_cap)
            && fits(FLAG_EMBED_SCALE, h.embed_scale)
    }

    /// Kinds of layers.
    #[must_use]
    pub const fn kinds(&self) -> usize {
        self.kinds.count()
    }
    /// The same model with the matrices of another kind of layers.
    #[must_use]
    pub fn of_kind(&self, kind: usize) -> Self {
        let least = 8 * self.block / (1 + u64::from(self.sums));
        let each = kinds::matrices(&self.h, &self.kinds.all()[kind], least);
        Self { matrices: each.unwrap_or(self.matrices), ..*self }
    }
    /// All layers in order.
    pub fn layers(&self) -> impl Iterator<Item = Layer> + '_ {
        (0..self.h.layers).scan(self.h.layer0, |at, l| {
            let (kind, offset) = (self.kinds.of(l), *at);
            let bytes = self.kinds.all()[kind].bytes;
            *at += bytes;
            Some(Layer { kind, offset, bytes })
        })
    }
    /// Whether the stem's rows cannot be loaded, or its matrices are no plain fp16.
    fn bad_stem(h: &ImageHeader) -> bool {
        let second = h.flags & FLAG_STEM2 != 0;
        let plain = Stored::symmetric(h.panel, Format::Fp16, 0).code();
        h.input_cols == 0
            || !h.input_cols.is_multiple_of(16)
            || !h.input_stride.is_multiple_of(16)
            || h.input_stride == 0
            || h.position_count == 0
            || h.stem_as != plain
            || (second && h.stem2_as != plain)
    }

    /// Query heads of one KV head.
    #[must_use]
    pub const fn group(&self) -> u64 {
        self.h.heads / self.h.kv_heads
    }
    /// Columns of one KV head's share of QKV, up to whole panels.
    #[must_use]
    pub const fn group_cols(&self) -> u64 {
        group_cols(&self.h)
    }
    /// Width of the attention output.
    #[must_use]
    pub const fn att_cols(&self) -> u64 {
        self.h.heads * self.h.head_dim
    }
    /// Whether QKV has a bias.
    #[must_use]
    pub const fn bias(&self) -> bool {
        self.h.flags & FLAG_BIAS != 0
    }
    /// Whether queries and keys are normed.
    #[must_use]
    pub const fn qk_norm(&self) -> bool {
        self.h.flags & FLAG_QK_NORM != 0
    }
    /// Whether some layers see a window of positions.
    #[must_use]
    pub const fn windows(&self) -> bool {
        self.h.flags & FLAG_WINDOW != 0
    }
    /// Whether layer `l` does.
    #[must_use]
    pub const fn windowed(&self, l: u64) -> bool {
        let period = self.h.window_period;
        self.windows() && (period == 0 || !(l + 1).is_multiple_of(period))
    }
    /// Whether any layer sees a window, or (`windowed` false) any sees all positions.
    #[must_use]
    pub const fn has_layers(&self, windowed: bool) -> bool {
        let period = self.h.window_period;
        if windowed {
            self.windows() && period != 1
        } else {
            !self.windows() || (period > 0 && period <= self.h.layers)
        }
    }
    /// Whether windowed layers rotate by a table of their own.
    #[must_use]
    pub const fn local_rope(&self) -> bool {
        self.h.flags & FLAG_LOCAL_ROPE != 0
    }
    /// Whether the outputs of attention and feed-forward layer are normed before they join the residual stream.
    #[must_use]
    pub const fn post_norms(&self) -> bool {
        self.h.flags & FLAG_POST_NORMS != 0
    }
    /// Whether the gate is GELU.
    #[must_use]
    pub const fn gate_gelu(&self) -> bool {
        self.h.flags & FLAG_GATE_GELU != 0
    }
    /// Factor on embedding rows, if any, as fp32 bits.
    #[must_use]
    pub fn embed_scale(&self) -> Option<u64> {
        (self.h.flags & FLAG_EMBED_SCALE != 0).then_some(self.h.embed_scale)
    }
    /// Cap of logits, if any, as fp32 bits.
    #[must_use]
    pub fn logit_cap(&self) -> Option<u64> {
        (self.h.flags & FLAG_LOGIT_CAP != 0).then_some(self.h.logit_cap)
    }
    /// Cap of attention scores as fp32 bits; 0: none.
    #[must_use]
    pub const fn attention_cap(&self) -> u64 {
        if self.h.flags & FLAG_ATTENTION_CAP != 0 { self.h.attention_cap } else { 0 }
    }
    /// Whether it is an encoder: norms behind the sums, biases, no gate, no cache, a vector instead of tokens.
    #[must_use]
    pub const fn encoder(&self) -> bool {
        self.h.flags & FLAG_ENCODER != 0
    }
    /// Whether an encoder's rows come from an input in memory instead of tokens; its norms are before its sums.
    #[must_use]
    pub const fn stem(&self) -> bool {
        self.h.flags & FLAG_STEM != 0
    }
    /// Whether the stem has a second matrix, and GELU behind both.
    #[must_use]
    pub const fn second_stem(&self) -> bool {
        self.h.flags & FLAG_STEM2 != 0
    }
    /// Whether a plain feed-forward layer's GELU is the tanh form.
    #[must_use]
    pub const fn gelu_tanh(&self) -> bool {
        self.h.flags & FLAG_GELU_TANH != 0
    }
    /// The stem's matrices, fp16; the second only where there is one.
    #[must_use]
    pub fn stems(&self) -> [Matrix; 2] {
        let stored = Stored::symmetric(self.h.panel, Format::Fp16, 0);
        let panels = self.h.hidden / self.h.panel;
        [(self.h.stem, self.h.input_cols), (self.h.stem2, 3 * self.h.hidden)].map(|(offset, k)| Matrix {
            offset,
            k,
            panels,
            stored,
            row_step: 16,
        })
    }
    /// The same model with fp16 activations, as the stem computes.
    #[must_use]
    pub const fn in_halves(&self) -> Self {
        let h = ImageHeader { act_format: Format::Fp16 as u64, ..self.h };
        Self { h, block: 0, sums: false, ..*self }
    }
    /// Whether RoPE rotates neighbours.
    #[must_use]
    pub const fn rope_inter(&self) -> bool {
        self.h.flags & FLAG_ROPE_INTER != 0
    }
    /// Whether GEMM inputs are quantised to int8.
    #[must_use]
    pub const fn quantised(&self) -> bool {
        self.h.act_format == Format::Int8 as u64
    }
    /// Whether each row of them has one scale.
    #[must_use]
    pub const fn by_row(&self) -> bool {
        self.quantised() && self.block == 0
    }
    /// Whether they have a scale a block of a row.
    #[must_use]
    pub const fn by_block(&self) -> bool {
        self.block != 0
    }
    /// Whether a block's sum goes with its scale: some matrix has minima.
    #[must_use]
    pub const fn sums(&self) -> bool {
        self.sums
    }
    /// fp32 values that go with a row of `cols` columns quantised by block.
    #[must_use]
    pub const fn scales_of(&self, cols: u64) -> u64 {
        if self.block == 0 { 0 } else { cols.div_ceil(self.block) << self.sums as u64 }
    }
    /// Formats of the matrices, of all kinds of layers.
    pub fn formats(&self) -> impl Iterator<Item = Format> + '_ {
        let of = |kind| {
            let there = self.of_kind(kind).matrices.into_iter().filter(|m| m.panels > 0);
            there.map(|m| m.stored.format)
        };
        (0..self.kinds()).flat_map(of)
    }
    /// QKV, or queries and keys alone where values are apart.
    #[must_use]
    pub const fn qkv(&self) -> Matrix {
        self.matrices[0]
    }
    /// Values, where they are apart; else there are no panels.
    #[must_use]
    pub const fn value(&self) -> Matrix {
        self.matrices[1]
    }
    /// Attention output.
    #[must_use]
    pub const fn out(&self) -> Matrix {
        self.matrices[2]
    }
    /// Gate.
    #[must_use]
    pub const fn gate(&self) -> Matrix {
        self.matrices[3]
    }
    /// Up.
    #[must_use]
    pub const fn up(&self) -> Matrix {
        self.matrices[4]
    }
    /// Down.
    #[must_use]
    pub const fn down(&self) -> Matrix {
        self.matrices[5]
    }
    /// The head.
    #[must_use]
    pub const fn lm_head(&self) -> Matrix {
        self.matrices[6]
    }
    /// Rows that tiles of the down matrix are a multiple of, in every kind of layers.
    #[must_use]
    pub const fn down_step(&self) -> u64 {
        self.down_step
    }
    /// Bytes of the most that a step of rows of any matrix takes.
    #[must_use]
    pub const fn step_bytes(&self) -> u64 {
        self.step_bytes
    }
}

impl Matrix {
    /// Rows of the largest tile that fits `bytes`, balanced over the tiles of `k` rows.
    #[must_use]
    pub fn tile_rows(&self, k: u64, bytes: u64) -> u64 {
        let step = self.row_step;
        let tail = if self.stored.grp == 1 { self.stored.table_bytes() } else { 0 };
        let per_step = self.stored.row_offset(step);
        // At most 16,384 rows a GEMM (the `k` field).
        let most = ((bytes - tail) / per_step).clamp(1, 16_384 / step) * step;
        let tiles = k.div_ceil(most);
        k.div_ceil(tiles).div_ceil(step) * step
    }
}
