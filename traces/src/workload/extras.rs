//! What some models have beyond the plain block.
//!
//! Models: Gemma's scales, caps, windows, norms and gate; BERT's encoder; per-frequency factors of long contexts.
//! Does not model: experts, partial rotation. Source: the model definitions as published with their weights.

use serde::{Deserialize, Serialize};

/// Layers that see only the positions near their own.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Window {
    /// Positions such a layer sees, its own included.
    pub positions: u32,
    /// Layers `period - 1`, `2 * period - 1`, ... see everything; 0: none does.
    pub period: u32,
    /// Base of the windowed layers' rotary frequencies, if it is another.
    pub local_theta: Option<f64>,
}

/// What makes a block one of BERT's: layer norms after, plain feed-forward network, biases, learned positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Encoder {
    /// Token types.
    pub token_types: u32,
}

/// How an encoder's rows become one vector; the mean of all at length one by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Pooling {
    /// The first token's row instead of the mean of all.
    pub first: bool,
    /// Not brought to length one.
    pub as_it_is: bool,
}

impl Pooling {
    /// Whether it is the usual one.
    #[must_use]
    pub fn is_usual(&self) -> bool {
        *self == Self::default()
    }
}

/// Other rotary factors for runs with positions beyond the original context.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct LongRope {
    /// Positions of the original context.
    pub original: u32,
    /// What each frequency is divided by beyond it.
    pub factors: Vec<f64>,
}

/// What an encoder of images or sound makes its rows of. Its norms come before attention and network, and one more
/// behind the last layer; its feed-forward layer has no gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stem {
    /// A product with each patch of an image.
    Patches {
        /// Values of a patch: channels x size x size.
        values: u32,
        /// Whether row 0 is a learned class token, which is the result.
        class: bool,
        /// Parameters of a head behind the rows that is counted and not computed.
        head_params: u64,
    },
    /// Two convolutions of width 3 over frames of sound, the second every other frame, with GELU behind each.
    Frames {
        /// Values of a frame.
        bins: u32,
    },
}

impl Stem {
    /// Values a row of the first product has.
    #[must_use]
    pub const fn values(self) -> u64 {
        match self {
            Self::Patches { values, .. } => values as u64,
            Self::Frames { bins } => 3 * bins as u64,
        }
    }

    /// Parameters of stem and head of a model of that width.
    #[must_use]
    pub const fn params(self, hidden: u64) -> u64 {
        match self {
            Self::Patches { class, head_params, .. } => {
                (self.values() + 1 + class as u64) * hidden + head_params
            }
            Self::Frames { .. } => (self.values() + 3 * hidden + 2) * hidden,
        }
    }
}

/// Differences from the plain block; none by default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Extras {
    /// Factor on embedding rows.
    pub embed_scale: Option<f64>,
    /// Factor on attention scores instead of one over the root of a head's width.
    pub attention_scale: Option<f64>,
    /// Cap c of attention scores s: c * tanh(s / c).
    pub attention_cap: Option<f64>,
    /// The same of logits.
    pub logit_cap: Option<f64>,
    /// Windowed layers.
    pub window: Option<Window>,
    /// Whether the outputs of attention and feed-forward network are normed too.
    pub post_norms: bool,
    /// Whether the gate is GELU in its tanh form.
    pub gate_gelu: bool,
    /// What each rotary frequency is divided by; empty: by nothing.
    pub rope_factors: Vec<f64>,
    /// Factors of longer runs, if there are others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub long_rope: Option<LongRope>,
    /// How an encoder's rows become its vector.
    #[serde(skip_serializing_if = "Pooling::is_usual")]
    pub pooling: Pooling,
    /// An encoder instead of a decoder.
    pub encoder: Option<Encoder>,
    /// Its rows come from an image or a sound instead of tokens.
    pub stem: Option<Stem>,
    /// Whether its GELU is the tanh form.
    pub gelu_tanh: bool,
}

impl Extras {
    /// Whether there are none.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        *self == Self::default()
    }

    /// What is wrong with them, by key.
    pub(super) fn problems(&self, head_dim: u32) -> Vec<(&'static str, String)> {
        let mut out = Vec::new();
        let positive = [
            ("embed_scale", self.embed_scale),
            ("attention_scale", self.attention_scale),
            ("attn_logit_softcapping", self.attention_cap),
            ("final_logit_softcapping", self.logit_cap),
        ];
        for (key, value) in positive {
            if let Some(v) = value.filter(|v| !(1e-6..=1e6).contains(v)) {
                out.push((key, format!("expected from 0.000001 to 1000000, found {v}")));
            }
        }
        if let Some(window) = self.window {
            // The width of a command's field.
            let most = (1 << 20) - 1;
            if !(1..=most).contains(&window.positions) {
                let message = format!("expected from 1 to {most}, found {}", window.positions);
                out.push(("sliding_window", message));
            }
            if let Some(theta) = window.local_theta.filter(|t| !(1.0..=1e12).contains(t)) {
                out.push(("rope_local_base_freq", format!("expected from 1 to 1e12, found {theta}")));
            }
        }
        let long = self.long_rope.iter().map(|long| &long.factors);
        for factors in long.chain([&self.rope_factors].into_iter().filter(|f| !f.is_empty())) {
            if factors.len() != head_dim as usize / 2 {
                let message = format!("expected {} factors, found {}", head_dim / 2, factors.len());
                out.push(("rope_scaling", message));
            }
            if let Some(f) = factors.iter().find(|f| !(1e-3..=1e6).contains(*f)) {
                out.push(("rope_scaling", format!("expected factors from 0.001 to 1000000, found {f}")));
            }
        }
        if let Some(e) = self.encoder.filter(|e| self.stem.is_none() && !(1..=64).contains(&e.token_types)) {
            out.push(("type_vocab_size", format!("expected from 1 to 64, found {}", e.token_types)));
        }
        match self.stem {
            Some(Stem::Patches { values, .. }) if !(1..=1 << 16).contains(&values) => {
                out.push(("patch_size", format!("expected patches of 1 to 65536 values, found {values}")));
            }
            // Rows overlap by whole frames, which transfers move in pieces of 16 bytes.
            Some(Stem::Frames { bins }) if !(8..=4096).contains(&bins) || bins % 16 != 0 => {
                out.push((
                    "num_mel_bins",
                    format!("expected a multiple of 16 from 16 to 4096, found {bins}"),
                ));
            }
            _ => {}
        }
        out
    }
}
