//! The model as its image describes it.

use isa::image::{
    self, FLAG_BIAS, FLAG_DENSE_BIAS, FLAG_EMBED_NORM, FLAG_ENCODER, FLAG_LAYER_NORM, FLAG_PLAIN_FFN,
    FLAG_POSITIONS, FLAG_QK_NORM, FLAG_ROPE_INTER, FLAG_TOKEN_TYPES, ImageHeader,
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
pub const FLAGS: u64 = FLAG_BIAS | FLAG_QK_NORM | FLAG_ROPE_INTER | ENCODER;

/// What makes an encoder; computed together or not at all.
const ENCODER: u64 = FLAG_ENCODER
    | FLAG_LAYER_NORM
    | FLAG_PLAIN_FFN
    | FLAG_DENSE_BIAS
    | FLAG_POSITIONS
    | FLAG_TOKEN_TYPES
    | FLAG_EMBED_NORM;
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
    /// Format code.
    pub format: Format,
    /// Scale group code.
    pub group: u64,
}

/// A checked image header.
#[derive(Clone, Copy, Debug)]
pub struct Model {
    /// The header.
    pub h: ImageHeader,
    body: Format,
    head: Format,
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
        let (Some(body), Some(head)) = (Format::from_code(h.body_format), Format::from_code(h.head_format))
        else {
            return Err(ModelError::NotAnImage);
        };
        if h.flags & !FLAGS != 0 {
            return Err(ModelError::Unknown(h.flags & !FLAGS));
        }
        let encoder = h.flags & ENCODER;
        if encoder != 0 && encoder != ENCODER {
            return Err(ModelError::Unknown(encoder));
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
        {
            return Err(ModelError::BadShape);
        }
        let model = Self { h, body, head };
        if !model.group_cols().is_multiple_of(h.panel) { Err(ModelError::BadShape) } else { Ok(model) }
    }

    /// Query heads of one KV head.
    #[must_use]
    pub const fn group(&self) -> u64 {
        self.h.heads / self.h.kv_heads
    }
    /// Columns of one KV head's share of QKV.
    #[must_use]
    pub const fn group_cols(&self) -> u64 {
        (self.group() + 2) * self.h.head_dim
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
    /// Whether RoPE rotates neighbours.
    #[must_use]
    pub const fn rope_inter(&self) -> bool {
        self.h.flags & FLAG_ROPE_INTER != 0
    }
    /// Whether GEMM inputs are quantised to int8 by row.
    #[must_use]
    pub const fn quantised(&self) -> bool {
        self.h.act_format == Format::Int8 as u64
    }
    /// Formats of layers and head.
    #[must_use]
    pub const fn formats(&self) -> (Format, Format) {
        (self.body, self.head)
    }

    const fn body_matrix(&self, offset: u64, k: u64, n: u64) -> Matrix {
        Matrix { offset, k, panels: n / self.h.panel, format: self.body, group: self.h.body_group }
    }
    /// QKV.
    #[must_use]
    pub const fn qkv(&self) -> Matrix {
        self.body_matrix(self.h.qkv, self.h.hidden, self.h.kv_heads * self.group_cols())
    }
    /// Attention output.
    #[must_use]
    pub const fn out(&self) -> Matrix {
        self.body_matrix(self.h.out, self.att_cols(), self.h.hidden)
    }
    /// Gate.
    #[must_use]
    pub const fn gate(&self) -> Matrix {
        self.body_matrix(self.h.gate, self.h.hidden, self.h.ffn)
    }
    /// Up.
    #[must_use]
    pub const fn up(&self) -> Matrix {
        self.body_matrix(self.h.up, self.h.hidden, self.h.ffn)
    }
    /// Down.
    #[must_use]
    pub const fn down(&self) -> Matrix {
        self.body_matrix(self.h.down, self.h.ffn, self.h.hidden)
    }
    /// The head.
    #[must_use]
    pub const fn lm_head(&self) -> Matrix {
        Matrix {
            offset: self.h.head,
            k: self.h.hidden,
            panels: self.h.vocab / self.h.panel,
            format: self.head,
            group: self.h.head_group,
        }
    }
}

impl Matrix {
    /// Rows a tile must be a multiple of, the last excepted.
    #[must_use]
    pub const fn row_step(&self) -> u64 {
        match image::group_rows(self.group) {
            0 => 32,
            g => g,
        }
    }

    /// Rows of the largest tile that fits `bytes`, balanced over the tiles of `k` rows.
    #[must_use]
    pub fn tile_rows(&self, panel: u64, k: u64, bytes: u64) -> u64 {
        let step = self.row_step();
        let tail = if self.group == 1 { panel * 4 } else { 0 };
        let per_step = image::row_offset(step, panel, self.format, self.group);
        // At most 16,384 rows a GEMM (the `k` field).
        let most = ((bytes - tail) / per_step).clamp(1, 16_384 / step) * step;
        let tiles = k.div_ceil(most);
        k.div_ceil(tiles).div_ceil(step) * step
    }
}
