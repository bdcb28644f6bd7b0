//! The model image: a header of 64-bit words, then tensors as the NPU reads them.
//!
//! A matrix of K inputs and N outputs is stored as column panels of `panel` columns. In a panel, rows follow each
//! other packed; after each scale group of rows come that group's scales (one a column, fp16 unless [`Matrix`] says
//! otherwise), then its zero points or minima if it has any. With one scale a column (`group` = 1) they follow the
//! last row, as fp32. Every panel is padded to 64 bytes. So any run of whole groups of one panel is one contiguous
//! piece, whatever the tile size, core count or policy.
//!
//! QKV columns are ordered by KV head: its query heads, its key, its value. Where layers differ in how their matrices
//! are stored, a table behind the header says so: [`crate::kinds`].

use crate::npu::ops::Format;

/// "presilim" in little-endian bytes.
pub const MAGIC: u64 = 0x6D69_6C69_7365_7270;
/// Version of this layout.
pub const VERSION: u64 = 4;

macro_rules! header {
    ($( $field:ident $text:literal ),* $(,)?) => {
        /// The header's fields, one 64-bit word each, in this order.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct ImageHeader { $( #[doc = $text] pub $field: u64, )* }

        impl ImageHeader {
            /// Words in the header.
            pub const WORDS: usize = [$( stringify!($field) ),*].len();
            /// The header as words.
            #[must_use]
            pub fn to_words(&self) -> [u64; Self::WORDS] { [$( self.$field ),*] }
            /// The header from words.
            #[must_use]
            pub fn from_words(words: &[u64; Self::WORDS]) -> Self {
                let [$( $field ),*] = *words;
                Self { $( $field ),* }
            }
        }
    };
}

header! {
    magic "MAGIC",
    version "VERSION",
    bytes "bytes of header and tensors",
    hidden "width of the residual stream",
    layers "decoder layers",
    heads "query heads",
    kv_heads "key and value heads",
    head_dim "width of a head",
    ffn "width of the feed-forward layer",
    vocab "tokens in the vocabulary",
    flags "what the model has beyond the plain block: the `FLAG_` bits; one that is not known is refused",
    eps "RMS norm epsilon, fp32 bits",
    att_scale "factor on attention scores, fp32 bits",
    panel "columns of a panel",
    qkv_as "how QKV is stored: `Matrix::code`",
    out_as "the same of the attention output matrix",
    gate_as "the same of the gate",
    up_as "the same of up",
    act_format "format code of GEMM activations: fp16, or int8 quantised by row or block",
    layer0 "offset of layer 0",
    layer_stride "bytes from one layer to the next",
    norm1 "offset in a layer: attention norm, fp32",
    qkv "offset in a layer: QKV matrix",
    bias "offset in a layer: QKV bias, fp32, columns as QKV",
    qk_norm "offset in a layer: query norm then key norm, fp32",
    out "offset in a layer: attention output matrix",
    norm2 "offset in a layer: feed-forward norm, fp32",
    gate "offset in a layer: gate matrix",
    up "offset in a layer: up matrix",
    down "offset in a layer: down matrix",
    embed "offset of the embedding, fp16 rows",
    embed_stride "bytes of an embedding row",
    final_norm "offset of the last norm, fp32",
    head "offset of the head matrix",
    inv_freq "offset of the rotary inverse frequencies, fp32, head_dim / 2",
    embed_scale "FLAG_EMBED_SCALE: factor on embedding rows, fp32 bits",
    attention_cap "FLAG_ATTENTION_CAP: c of scores c * tanh(s / c), fp32 bits",
    logit_cap "FLAG_LOGIT_CAP: the same of logits",
    window "FLAG_WINDOW: positions a windowed layer sees, its own included",
    window_period "FLAG_WINDOW: layers period - 1, 2 * period - 1, ... see all positions; 0: none does",
    inv_freq_local "FLAG_LOCAL_ROPE: offset of the windowed layers' rotary table",
    post_norm1 "FLAG_POST_NORMS: offset in a layer of the norm of the attention output, fp32",
    post_norm2 "FLAG_POST_NORMS: offset in a layer of the norm of the feed-forward output, fp32",
    norm1_bias "FLAG_LAYER_NORM: offset in a layer, fp32",
    norm2_bias "FLAG_LAYER_NORM: offset in a layer, fp32",
    out_bias "FLAG_DENSE_BIAS: offset in a layer, fp32",
    up_bias "FLAG_DENSE_BIAS: offset in a layer, fp32",
    down_bias "FLAG_DENSE_BIAS: offset in a layer, fp32",
    embed_norm "FLAG_EMBED_NORM: offset of the embedding's layer norm, fp32, weight then bias",
    positions "FLAG_POSITIONS: offset of the learned position rows, fp16, at the embedding's stride",
    position_count "FLAG_POSITIONS: how many there are",
    token_types "FLAG_TOKEN_TYPES: offset of the token type rows, fp16, at the embedding's stride",
    token_type_count "FLAG_TOKEN_TYPES: how many there are",
    down_as "how down is stored: `Matrix::code`",
    head_as "the same of the head",
    act_group "GEMM `grp` code of int8 activations' blocks; 0: one scale a row",
    input_cols "FLAG_STEM: values of an input row that the first matrix multiplies",
    input_stride "FLAG_STEM: bytes from one input row to the next; less than a row's where rows overlap",
    stem "FLAG_STEM: offset of the first matrix",
    stem_as "FLAG_STEM: how it is stored: `Matrix::code`; its input is fp16 whatever `act_format` says",
    stem_bias "FLAG_STEM2: offset of its bias, fp32",
    stem2 "FLAG_STEM2: offset of the second matrix",
    stem2_as "FLAG_STEM2: how it is stored",
    stem2_bias "FLAG_STEM2: offset of its bias, fp32",
}

/// Flag: QKV has a bias.
pub const FLAG_BIAS: u64 = 1;
/// Flag: queries and keys are normed.
pub const FLAG_QK_NORM: u64 = 2;
/// Flag: RoPE rotates neighbours instead of halves.
pub const FLAG_ROPE_INTER: u64 = 4;
/// Flag: embedding rows are scaled.
pub const FLAG_EMBED_SCALE: u64 = 1 << 3;
/// Flag: attention scores are soft-capped.
pub const FLAG_ATTENTION_CAP: u64 = 1 << 4;
/// Flag: logits are soft-capped.
pub const FLAG_LOGIT_CAP: u64 = 1 << 5;
/// Flag: some or all layers see a window of positions.
pub const FLAG_WINDOW: u64 = 1 << 6;
/// Flag: windowed layers have a rotary table of their own.
pub const FLAG_LOCAL_ROPE: u64 = 1 << 7;
/// Flag: the outputs of attention and feed-forward are normed before they join the residual stream.
pub const FLAG_POST_NORMS: u64 = 1 << 8;
/// Flag: the gate is GELU (tanh form) instead of SiLU.
pub const FLAG_GATE_GELU: u64 = 1 << 9;
/// Flag: bidirectional attention; the result is a vector (mean over positions, normalised, unless a flag says otherwise)
/// and there is no head.
pub const FLAG_ENCODER: u64 = 1 << 10;
/// Flag: layer norms with biases, applied to the sum of residual stream and output, instead of RMS norms before.
pub const FLAG_LAYER_NORM: u64 = 1 << 11;
/// Flag: no gate; the feed-forward layer is down(gelu(up(x))), GELU in its erf form.
pub const FLAG_PLAIN_FFN: u64 = 1 << 12;
/// Flag: attention output, up and down projections have biases.
pub const FLAG_DENSE_BIAS: u64 = 1 << 13;
/// Flag: learned position rows are added to the embedding; nothing is rotated.
pub const FLAG_POSITIONS: u64 = 1 << 14;
/// Flag: token type rows are added to the embedding.
pub const FLAG_TOKEN_TYPES: u64 = 1 << 15;
/// Flag: the embedding is layer-normed.
pub const FLAG_EMBED_NORM: u64 = 1 << 16;
/// Flag: matrices are stored as the table of [`crate::kinds`] behind the header says.
pub const FLAG_KINDS: u64 = 1 << 17;
/// Flag: an encoder's vector is the first position's instead of the mean.
pub const FLAG_POOL_FIRST: u64 = 1 << 25;
/// Flag: an encoder's vector is not normalised.
pub const FLAG_POOL_PLAIN: u64 = 1 << 26;

/// Flag: an encoder's layer norms come before attention and network, and one more, weight then bias at `final_norm`,
/// behind the last layer; the result is all rows it gives.
pub const FLAG_PRE_NORM: u64 = 1 << 19;
/// Flag: GELU of the feed-forward layer is the tanh form.
pub const FLAG_GELU_TANH: u64 = 1 << 20;
/// Flag: rows are no tokens: an input of fp16 rows times a matrix, plus the position rows (which hold its bias, and in
/// row 0 a class token, where there are any).
pub const FLAG_STEM: u64 = 1 << 21;
/// Flag: two matrices: both have biases and GELU, the second takes three rows of the first's output, two rows apart,
/// the first of them one before its own.
pub const FLAG_STEM2: u64 = 1 << 22;

/// Rows a scale group of GEMM `grp` code covers; 0 where scales do not repeat along K.
#[must_use]
pub const fn group_rows(grp: u64) -> u64 {
    match grp {
        2 => 16,
        3 => 32,
        4 => 64,
        5 | 7 => 128,
        6 => 256,
        _ => 0,
    }
}

/// Bytes of a scale in GEMM's `sf` code: fp16, bf16, fp32, e8m0.
#[must_use]
pub const fn scale_bytes(sf: u64) -> u64 {
    match sf {
        0 | 1 => 2,
        2 => 4,
        _ => 1,
    }
}

/// How a matrix is stored: GEMM's codes for its weights, and the width of a panel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Matrix {
    /// Columns of a panel.
    pub panel: u64,
    /// Format of the weights.
    pub format: Format,
    /// GEMM `grp` code.
    pub grp: u64,
    /// GEMM `sf` code: format of scales and minima.
    pub sf: u64,
    /// GEMM `zpm` code: 1 adds a zero point in `format` a scale, 2 a minimum in `sf`.
    pub zpm: u64,
}

impl Matrix {
    /// Symmetric weights with fp16 scales (fp32 if there is one a column).
    #[must_use]
    pub const fn symmetric(panel: u64, format: Format, grp: u64) -> Self {
        Self { panel, format, grp, sf: if grp == 1 { 2 } else { 0 }, zpm: 0 }
    }

    /// Everything but the panel as a header word: format, then from bit 4 `grp`, from bit 7 `sf`, from bit 9 `zpm`.
    #[must_use]
    pub const fn code(&self) -> u64 {
        self.format.code() | self.grp << 4 | self.sf << 7 | self.zpm << 9
    }

    /// From such a word; `None` if it is none.
    #[must_use]
    pub fn from_code(panel: u64, code: u64) -> Option<Self> {
        let format = Format::from_code(code & 15)?;
        let known = code >> 11 == 0;
        known.then_some(Self { panel, format, grp: code >> 4 & 7, sf: code >> 7 & 3, zpm: code >> 9 & 3 })
    }

    /// Bytes of one packed row of a panel.
    #[must_use]
    pub const fn row_bytes(&self) -> u64 {
        self.format.bytes(self.panel)
    }

    /// Bytes of one group's scales and what goes with them; 0 without scales.
    #[must_use]
    pub const fn table_bytes(&self) -> u64 {
        if self.grp == 0 {
            return 0;
        }
        let scales = self.panel * scale_bytes(self.sf);
        match self.zpm {
            1 => scales + self.format.bytes(self.panel),
            2 => 2 * scales,
            _ => scales,
        }
    }

    /// Byte offset, within a panel, of row `k` (a multiple of the group, or any row if scales do not repeat).
    #[must_use]
    pub const fn row_offset(&self, k: u64) -> u64 {
        let rows = k * self.row_bytes();
        match group_rows(self.grp) {
            0 => rows,
            g => rows + k.div_ceil(g) * self.table_bytes(),
        }
    }

    /// Bytes of a panel of `k` rows before padding.
    #[must_use]
    pub const fn panel_bytes(&self, k: u64) -> u64 {
        self.row_offset(k) + if self.grp == 1 { self.table_bytes() } else { 0 }
    }

    /// Bytes from one panel to the next.
    #[must_use]
    pub const fn panel_stride(&self, k: u64) -> u64 {
        self.panel_bytes(k).div_ceil(64) * 64
    }

    /// Bytes of all panels of a matrix of `k` inputs and `n` outputs.
    #[must_use]
    pub const fn bytes(&self, k: u64, n: u64) -> u64 {
        n.div_ceil(self.panel) * self.panel_stride(k)
    }
}

/// Bytes of one packed row of a panel.
#[must_use]
pub const fn row_bytes(panel: u64, format: Format) -> u64 {
    format.bytes(panel)
}

/// [`Matrix::row_offset`] of symmetric weights.
#[must_use]
pub const fn row_offset(k: u64, panel: u64, format: Format, grp: u64) -> u64 {
    Matrix::symmetric(panel, format, grp).row_offset(k)
}

/// [`Matrix::panel_bytes`] of symmetric weights.
#[must_use]
pub const fn panel_bytes(k: u64, panel: u64, format: Format, grp: u64) -> u64 {
    Matrix::symmetric(panel, format, grp).panel_bytes(k)
}

/// [`Matrix::panel_stride`] of symmetric weights.
#[must_use]
pub const fn panel_stride(k: u64, panel: u64, format: Format, grp: u64) -> u64 {
    Matrix::symmetric(panel, format, grp).panel_stride(k)
}

/// Bytes of a K x N matrix of symmetric weights.
#[must_use]
pub const fn matrix_bytes(k: u64, n: u64, panel: u64, format: Format, grp: u64) -> u64 {
    Matrix::symmetric(panel, format, grp).bytes(k, n)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_follow_each_group_and_grow_with_their_format() {
        let m = Matrix { panel: 16, format: Format::Uint4, grp: 3, sf: 0, zpm: 2 };
        assert_eq!((m.row_bytes(), m.table_bytes()), (8, 64));
        assert_eq!((m.row_offset(32), m.row_offset(40)), (32 * 8 + 64, 40 * 8 + 128));
        assert_eq!(Matrix { sf: 2, ..m }.table_bytes(), 128);
        assert_eq!(Matrix { sf: 3, zpm: 0, ..m }.table_bytes(), 16);
        assert_eq!(Matrix { zpm: 1, ..m }.table_bytes(), 32 + 8);
        // Scales by column follow the last row; 128 x 8 + 64 bytes are 17 lines of 64.
        assert_eq!(panel_bytes(128, 16, Format::Uint4, 1), 1024 + 64);
        assert_eq!(matrix_bytes(128, 33, 16, Format::Uint4, 1), 3 * 17 * 64);
        assert_eq!(panel_bytes(128, 16, Format::Fp16, 0), 128 * 32);
        assert_eq!(Matrix::from_code(16, m.code()), Some(m));
        assert!(Matrix::from_code(16, m.code() | 1 << 11).is_none());
        // 48 rows are one whole group of 32 and one partial: two tables.
        assert_eq!(panel_stride(48, 16, Format::Int4, 3), 448);
    }
}
