//! The shape of a decoder-only transformer.
//!
//! Models: every dimension and constant that changes the arithmetic. Does not model: weights, tokenisers.
//! Source: each preset names its own.

use serde::{Deserialize, Serialize};

use super::error::{WorkloadError, WorkloadProblem};
use super::extras::{Extras, Stem};

/// A transformer family; it decides tensor names and block structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
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
    /// Gemma 2: every other layer windowed, scores and logits capped.
    Gemma2,
    /// Gemma 3 as text model: five windowed layers in six, normalised q and k.
    Gemma3,
    /// BERT-style encoders.
    Bert,
    /// Vision transformers with a class token.
    Vit,
    /// `SigLIP`'s vision towers.
    Siglip,
    /// Whisper's encoders.
    Whisper,
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
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// Positions divided by a factor.
    Linear {
        /// The divisor.
        factor: f64,
    },
    /// Llama 3's three bands.
    #[serde(rename_all = "kebab-case")]
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
    /// What it has beyond the plain block.
    #[serde(skip_serializing_if = "Extras::is_plain")]
    pub extras: Extras,
}

impl ModelSpec {
    /// The shape as a run of that many positions computes it: with the factors of long runs, if it is one.
    #[must_use]
    pub fn at(&self, positions: u64) -> Self {
        let mut spec = self.clone();
        if let Some(long) = spec.extras.long_rope.take_if(|long| positions > long.original.into()) {
            spec.extras.rope_factors = long.factors;
        }
        spec
    }

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
        let ffn = self.ffn as u64;
        if self.extras.encoder.is_some() {
            // Output, up and down projections have biases too, and both norms.
            return attention + bias + 2 * hidden * ffn + hidden + ffn + hidden + 4 * hidden;
        }
        let norms = if self.extras.post_norms { 4 } else { 2 };
        attention + bias + head_norms + 3 * hidden * ffn + norms * hidden
    }

    /// Parameters of the embedding.
    #[must_use]
    pub const fn embedding_params(&self) -> u64 {
        self.vocab as u64 * self.hidden as u64
    }

    /// All parameters; a tied head counts once.
    #[must_use]
    pub const fn params(&self) -> u64 {
        if let Some(stem) = self.extras.stem {
            // Positions and the last norm; Whisper's keys have no bias.
            let whole = (self.max_position as u64 + 2) * self.hidden as u64;
            let keys = if matches!(stem, Stem::Frames { .. }) { self.kv_width() } else { 0 };
            let layers = self.layers as u64 * (self.block_params() - keys);
            return layers + whole + stem.params(self.hidden as u64);
        }
        if let Some(encoder) = self.extras.encoder {
            let rows = self.vocab as u64 + self.max_position as u64 + encoder.token_types as u64;
            return self.layers as u64 * self.block_params() + (rows + 2) * self.hidden as u64;
        }
        let tables = if self.tied_embedding { 1 } else { 2 };
        self.layers as u64 * self.block_params() + self.hidden as u64 + tables * self.embedding_params()
    }

    /// Checks that every dimension is one a transformer can have; `place` names the file in messages.
    ///
    /// # Errors
    /// Every dimension that is not, under its name in `config.json`.
    pub fn check(&self, place: &str) -> Result<(), WorkloadError> {
        let mut problems = Vec::new();
        for (key, value, low, high) in [
            ("hidden_size", self.hidden, 64, 1 << 16),
            ("num_hidden_layers", self.layers, 1, 1_024),
            ("num_attention_heads", self.heads, 1, 1_024),
            ("num_key_value_heads", self.kv_heads, 1, 1_024),
            ("head_dim", self.head_dim, 2, 1_024),
            ("intermediate_size", self.ffn, 64, 1 << 18),
            // An image or a sound has no vocabulary.
            ("vocab_size", self.vocab, if self.extras.stem.is_some() { 1 } else { 2 }, 1 << 21),
            ("max_position_embeddings", self.max_position, 1, 1 << 24),
        ] {
            if !(low..=high).contains(&value) {
                let message = format!("expected from {low} to {high}, found {value}");
                problems.push(WorkloadProblem::new(place, key, message));
            }
        }
        if !problems.is_empty() {
            return Err(WorkloadError { problems });
        }
        if !self.heads.is_multiple_of(self.kv_heads) {
            let message = format!(
                "expected a divisor of num_attention_heads ({}), found {}",
                self.heads, self.kv_heads
            );
            problems.push(WorkloadProblem::new(place, "num_key_value_heads", message));
        }
        if !self.head_dim.is_multiple_of(2) {
            let message = format!("expected an even number, found {}", self.head_dim);
            problems.push(WorkloadProblem::new(place, "head_dim", message));
        }
        for (key, value, low, high) in
            [("rms_norm_eps", self.norm_eps, 1e-13, 1e-2), ("rope_theta", self.rope.theta, 1.0, 1e12)]
        {
            if !(low..=high).contains(&value) {
                let message = format!("expected from {low} to {high}, found {value}");
                problems.push(WorkloadProblem::new(place, key, message));
            }
        }
        let extras = self.extras.problems(self.head_dim).into_iter();
        problems.extend(extras.map(|(key, message)| WorkloadProblem::new(place, key, message)));
        if problems.is_empty() { Ok(()) } else { Err(WorkloadError { problems }) }
    }
}
