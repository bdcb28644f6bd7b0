//! The shape of a decoder-only transformer.
//!
//! Models: every dimension and constant that changes the arithmetic. Does not model: weights, tokenisers.
//! Source: each preset names its own.

use serde::Serialize;

/// A transformer family; it decides tensor names and block structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    /// Llama 2 and 3.
    Llama,
    /// Qwen 2 and 2.5, biased q, k and v.
    Qwen2,
    /// Qwen 3, normalised q and k.
    Qwen3,
    /// MiMo, a Qwen 2 block.
    Mimo,
    /// Phi 3, fused q, k, v and gate, up.
    Phi3,
}

/// How rotary pairs are laid out in a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RopeLayout {
    /// Element i pairs with i + `head_dim` / 2, as Hugging Face stores weights.
    Half,
    /// Element 2i pairs with 2i + 1.
    Interleaved,
}

/// How rotary frequencies are stretched beyond the trained context.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// Positions divided by a factor.
    Linear {
        /// The divisor.
        factor: f64,
    },
    /// Llama 3's three bands.
    Llama3 {
        /// Divisor of the lowest frequencies.
        factor: f64,
        /// Wavelengths above original / this are fully scaled.
        low_freq_factor: f64,
        /// Wavelengths below original / this are not scaled.
        high_freq_factor: f64,
        /// Context of the first training.
        original_max_position: u32,
    },
}

/// Rotary position embedding.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Rope {
    /// Base of the geometric series of wavelengths.
    pub theta: f64,
    /// Pairing.
    pub layout: RopeLayout,
    /// Stretching.
    pub scaling: RopeScaling,
}

/// The shape of a decoder-only transformer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ModelSpec {
    /// Preset name or file stem.
    pub name: String,
    /// Family.
    pub family: Family,
    /// Width of the residual stream.
    pub hidden: u32,
    /// Blocks.
    pub layers: u32,
    /// Query heads.
    pub heads: u32,
    /// Key and value heads.
    pub kv_heads: u32,
    /// Width of one head.
    pub head_dim: u32,
    /// Width of the gated feed-forward network.
    pub ffn: u32,
    /// Rows of the embedding.
    pub vocab: u32,
    /// Epsilon of the root-mean-square norms.
    pub norm_eps: f64,
    /// Whether q, k and v have a bias.
    pub qkv_bias: bool,
    /// Whether each head of q and k is normalised.
    pub qk_norm: bool,
    /// Rotary position embedding.
    pub rope: Rope,
    /// Whether the head shares the embedding's weights.
    pub tied_embedding: bool,
    /// Longest context.
    pub max_position: u32,
}

impl ModelSpec {
    /// Columns of the query projection.
    #[must_use]
    pub const fn q_width(&self) -> u64 {
        self.heads as u64 * self.head_dim as u64
    }

    /// Columns of the key projection, and of the value projection.
    #[must_use]
    pub const fn kv_width(&self) -> u64 {
        self.kv_heads as u64 * self.head_dim as u64
    }

    /// Parameters of one block.
    #[must_use]
    pub const fn block_params(&self) -> u64 {
        let hidden = self.hidden as u64;
        let attention = hidden * (self.q_width() + 2 * self.kv_width()) + self.q_width() * hidden;
        let bias = if self.qkv_bias { self.q_width() + 2 * self.kv_width() } else { 0 };
        let head_norms = if self.qk_norm { 2 * self.head_dim as u64 } else { 0 };
        attention + bias + head_norms + 3 * hidden * self.ffn as u64 + 2 * hidden
    }

    /// Parameters of the embedding.
    #[must_use]
    pub const fn embedding_params(&self) -> u64 {
        self.vocab as u64 * self.hidden as u64
    }

    /// All parameters; a tied head counts once.
    #[must_use]
    pub const fn params(&self) -> u64 {
        let tables = if self.tied_embedding { 1 } else { 2 };
        self.layers as u64 * self.block_params() + self.hidden as u64 + tables * self.embedding_params()
    }

    /// Keys and values appended per token, in elements over all layers.
    #[must_use]
    pub const fn kv_elements_per_token(&self) -> u64 {
        2 * self.layers as u64 * self.kv_width()
    }
}
