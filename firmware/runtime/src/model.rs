//! The model as its image describes it.

use isa::image::{
    self, FLAG_BIAS, FLAG_DENSE_BIAS, FLAG_EMBED_NORM, FLAG_ENCODER, FLAG_GELU_TANH, FLAG_LAYER_NORM,
    FLAG_PLAIN_FFN, FLAG_POSITIONS, FLAG_PRE_NORM, FLAG_QK_NORM, FLAG_ROPE_INTER, FLAG_STEM, FLAG_STEM2,
    FLAG_TOKEN_TYPES, ImageHeader, Matrix as Stored,
};
use isa::npu::Format;

/// Why an image cannot run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelError {
    /// Not an image, or of another version.
    NotAnImage,
    /// A size is zero or does not divide as the layout needs.
    BadShape,
    /// Flags of something that is not computed here.
    Unknown(u64),
}

/// What the lists of this library compute; an image with any other flag is refused, never run without it.
pub const FLAGS: u64 = FLAG_BIAS | FLAG_QK_NORM | FLAG_ROPE_INTER | ENCODER | STEM | STEM_MAY;

/// What makes an encoder; computed together or not at all.
const ENCODER: u64 = FLAG_ENCODER
    | FLAG_LAYER_NORM
    | FLAG_PLAIN_FFN
    | FLAG_DENSE_BIAS
    | FLAG_POSITIONS
    | FLAG_TOKEN_TYPES
    | FLAG_EMBED_NORM;
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
const DECODER: u64 = FLAG_QK_NORM;

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
const fn group_cols(h: &ImageHeader) -> u64 {
    let cols = (h.heads / h.kv_heads + 2) * h.head_dim;
    if h.flags & FLAG_STEM == 0 { cols } else { cols.div_ceil(h.panel) * h.panel }
}

/// A checked image header.
#[derive(Clone, Copy, Debug)]
pub struct Model {
    /// The header.
    pub h: ImageHeader,
    /// QKV, attention output, gate, up, down, head.
    matrices: [Matrix; 6],
    /// Elements of a block of int8 activations, 0 without blocks.
    block: u64,
    sums: bool,
    step_bytes: u64,
}

impl Model {
    /// Checks a header.
    ///
    /// # Errors
    /// If it is no image of this version or its sizes do not fit the layout's rules.
    pub fn new(h: ImageHeader) -> Result<Self, ModelError> {
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
        {
            return Err(ModelError::BadShape);
        }
        let mut stored = [Stored::symmetric(h.panel, Format::Fp16, 0); 6];
        for (s, code) in stored.iter_mut().zip([h.qkv_as, h.out_as, h.gate_as, h.up_as, h.down_as, h.head_as])
        {
            *s = Stored::from_code(h.panel, code).ok_or(ModelError::NotAnImage)?;
        }
        let quantised = h.act_format == Format::Int8 as u64;
        let block = if quantised { image::group_rows(h.act_group) } else { 0 };
        let sums = block > 0 && stored.iter().any(|s| s.zpm == 2);
        let att = h.heads * h.head_dim;
        let sizes = [
            (h.qkv, h.hidden, h.kv_heads * group_cols(&h)),
            (h.out, att, h.hidden),
            (h.gate, h.hidden, h.ffn),
            (h.up, h.hidden, h.ffn),
            (h.down, h.ffn, h.hidden),
            (h.head, h.hidden, h.vocab),
        ];
        let matrices: [Matrix; 6] = core::array::from_fn(|i| {
            let (offset, k, n) = sizes[i];
            let group = match image::group_rows(stored[i].grp) {
                0 => 32,
                g => g,
            };
            // A tile's scales of A start at a granule too: eight values.
            let row_step = group.max(8 * block / (1 + u64::from(sums)));
            Matrix { offset, k, panels: n / h.panel, stored: stored[i], row_step }
        });
        let step_bytes = matrices.iter().map(|m| m.stored.row_offset(m.row_step)).max().unwrap_or(0);
        let model = Self { h, matrices, block, sums, step_bytes };
        if !model.group_cols().is_multiple_of(h.panel) { Err(ModelError::BadShape) } else { Ok(model) }
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
    /// Formats of the matrices.
    #[must_use]
    pub fn formats(&self) -> [Format; 6] {
        self.matrices.map(|m| m.stored.format)
    }
    /// QKV.
    #[must_use]
    pub const fn qkv(&self) -> Matrix {
        self.matrices[0]
    }
    /// Attention output.
    #[must_use]
    pub const fn out(&self) -> Matrix {
        self.matrices[1]
    }
    /// Gate.
    #[must_use]
    pub const fn gate(&self) -> Matrix {
        self.matrices[2]
    }
    /// Up.
    #[must_use]
    pub const fn up(&self) -> Matrix {
        self.matrices[3]
    }
    /// Down.
    #[must_use]
    pub const fn down(&self) -> Matrix {
        self.matrices[4]
    }
    /// The head.
    #[must_use]
    pub const fn lm_head(&self) -> Matrix {
        self.matrices[5]
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
