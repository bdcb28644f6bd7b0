//! The model as its image describes it.

use isa::image::{self, FLAG_BIAS, FLAG_QK_NORM, FLAG_ROPE_INTER, ImageHeader, Matrix as Stored};
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
pub const FLAGS: u64 = FLAG_BIAS | FLAG_QK_NORM | FLAG_ROPE_INTER;

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

/// A checked image header.
#[derive(Clone, Copy, Debug)]
pub struct Model {
    /// The header.
    pub h: ImageHeader,
    /// QKV, attention output, gate, up, down, head.
    stored: [Stored; 6],
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
        let mut stored = [Stored::symmetric(h.panel, Format::Fp16, 0); 6];
        for (s, code) in stored.iter_mut().zip([h.qkv_as, h.out_as, h.gate_as, h.up_as, h.down_as, h.head_as])
        {
            *s = Stored::from_code(h.panel, code).ok_or(ModelError::NotAnImage)?;
        }
        if h.flags & !FLAGS != 0 {
            return Err(ModelError::Unknown(h.flags & !FLAGS));
        }
        let sizes = [h.hidden, h.layers, h.heads, h.kv_heads, h.head_dim, h.ffn, h.vocab, h.panel];
        if sizes.contains(&0)
            || !h.heads.is_multiple_of(h.kv_heads)
            || !h.head_dim.is_multiple_of(16)
            || !h.hidden.is_multiple_of(h.panel)
            || !h.ffn.is_multiple_of(h.panel)
            || !h.vocab.is_multiple_of(h.panel)
            || !h.panel.is_multiple_of(16)
            || !h.hidden.is_multiple_of(16)
            || h.act_group == 1
            || h.act_group > 6
        {
            return Err(ModelError::BadShape);
        }
        let model = Self { h, stored };
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
        self.quantised() && self.h.act_group == 0
    }
    /// Whether they have a scale a block of a row.
    #[must_use]
    pub const fn by_block(&self) -> bool {
        self.quantised() && self.h.act_group != 0
    }
    /// Whether a block's sum goes with its scale: some matrix has minima.
    #[must_use]
    pub fn sums(&self) -> bool {
        self.by_block() && self.stored.iter().any(|s| s.zpm == 2)
    }
    /// fp32 values that go with a row of `cols` columns quantised by block.
    #[must_use]
    pub fn scales_of(&self, cols: u64) -> u64 {
        if self.by_block() {
            cols.div_ceil(image::group_rows(self.h.act_group)) * (1 + u64::from(self.sums()))
        } else {
            0
        }
    }

    /// Formats of the matrices.
    #[must_use]
    pub fn formats(&self) -> [Format; 6] {
        self.stored.map(|s| s.format)
    }

    fn matrix(&self, which: usize, offset: u64, k: u64, n: u64) -> Matrix {
        let stored = self.stored[which];
        let group = match image::group_rows(stored.grp) {
            0 => 32,
            g => g,
        };
        // A tile's scales of A start at a granule too.
        let row_step = match self.scales_of(group) {
            0 => group,
            _ => {
                let block = image::group_rows(self.h.act_group);
                group.max(8 * block / (1 + u64::from(self.sums())))
            }
        };
        Matrix { offset, k, panels: n / self.h.panel, stored, row_step }
    }
    /// QKV.
    #[must_use]
    pub fn qkv(&self) -> Matrix {
        self.matrix(0, self.h.qkv, self.h.hidden, self.h.kv_heads * self.group_cols())
    }
    /// Attention output.
    #[must_use]
    pub fn out(&self) -> Matrix {
        self.matrix(1, self.h.out, self.att_cols(), self.h.hidden)
    }
    /// Gate.
    #[must_use]
    pub fn gate(&self) -> Matrix {
        self.matrix(2, self.h.gate, self.h.hidden, self.h.ffn)
    }
    /// Up.
    #[must_use]
    pub fn up(&self) -> Matrix {
        self.matrix(3, self.h.up, self.h.hidden, self.h.ffn)
    }
    /// Down.
    #[must_use]
    pub fn down(&self) -> Matrix {
        self.matrix(4, self.h.down, self.h.ffn, self.h.hidden)
    }
    /// The head.
    #[must_use]
    pub fn lm_head(&self) -> Matrix {
        self.matrix(5, self.h.head, self.h.hidden, self.h.vocab)
    }
    /// Bytes of the most that a step of rows of any matrix takes.
    #[must_use]
    pub fn step_bytes(&self) -> u64 {
        let all = [self.qkv(), self.out(), self.gate(), self.up(), self.down(), self.lm_head()];
        all.iter().map(|m| m.stored.row_offset(m.row_step)).max().unwrap_or(0)
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
