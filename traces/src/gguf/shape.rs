//! A GGUF file's shape, from its metadata and the names of its tensors.
//!
//! Models: Llama (neighbours rotated, as its converted queries and keys expect), Qwen 2 and 3, Phi 3, Gemma 2 and 3, BERT.
//! Does not model: experts, partial rotation, YaRN.
//! Source: the GGUF specification's metadata keys, as the converters published with ggml write them.

use super::names::{LONG_FACTORS, SHORT_FACTORS};
use super::reader::{Contents, Value};
use crate::workload::{
    Encoder, Extras, Family, ModelSpec, Pooling, Rope, RopeLayout, RopeScaling, Window, WorkloadError,
    WorkloadProblem,
};

/// Architecture, family, how heads are rotated.
const ARCHITECTURES: [(&str, Family, RopeLayout); 7] = [
    ("llama", Family::Llama, RopeLayout::Interleaved),
    ("qwen2", Family::Qwen2, RopeLayout::Half),
    ("qwen3", Family::Qwen3, RopeLayout::Half),
    ("phi3", Family::Phi3, RopeLayout::Half),
    ("gemma2", Family::Gemma2, RopeLayout::Half),
    ("gemma3", Family::Gemma3, RopeLayout::Half),
    ("bert", Family::Bert, RopeLayout::Half),
];

/// What `config.json` calls a dimension, and what this format does.
const NAMES: [(&str, &str); 14] = [
    ("hidden_size", "embedding_length"),
    ("num_hidden_layers", "block_count"),
    ("num_attention_heads", "attention.head_count"),
    ("num_key_value_heads", "attention.head_count_kv"),
    ("head_dim", "attention.key_length"),
    ("intermediate_size", "feed_forward_length"),
    ("vocab_size", "vocab_size"),
    ("max_position_embeddings", "context_length"),
    ("rms_norm_eps", "attention.layer_norm_rms_epsilon"),
    ("rope_theta", "rope.freq_base"),
    ("sliding_window", "attention.sliding_window"),
    ("attn_logit_softcapping", "attn_logit_softcapping"),
    ("final_logit_softcapping", "final_logit_softcapping"),
    ("rope_local_base_freq", "rope.freq_base_swa"),
];

pub(super) struct Keys<'a> {
    pub(super) place: &'a str,
    pub(super) contents: &'a Contents,
    pub(super) architecture: &'a str,
}

impl Keys<'_> {
    fn bad(&self, key: &str, message: impl Into<String>) -> WorkloadError {
        WorkloadProblem::new(self.contents.place_of(self.place, key), key, message).into()
    }

    fn get(&self, key: &str) -> (String, Option<&Value>) {
        let key = format!("{}.{key}", self.architecture);
        let value = self.contents.metadata.get(&key);
        (key, value)
    }

    fn maybe(&self, key: &str) -> Result<Option<u32>, WorkloadError> {
        let (key, value) = self.get(key);
        let Some(value) = value else { return Ok(None) };
        match value.unsigned().and_then(|v| u32::try_from(v).ok()) {
            Some(v) => Ok(Some(v)),
            None => Err(self.bad(&key, "expected one number of 32 bits")),
        }
    }

    fn number(&self, key: &str) -> Result<u32, WorkloadError> {
        self.maybe(key)?.ok_or_else(|| self.bad(&self.get(key).0, "is missing"))
    }

    fn float(&self, key: &str) -> Result<Option<f64>, WorkloadError> {
        match self.get(key) {
            (_, None) => Ok(None),
            (_, Some(Value::Float(v))) => Ok(Some(*v)),
            (key, Some(_)) => Err(self.bad(&key, "expected a floating-point number")),
        }
    }

    fn scaling(&self) -> Result<RopeScaling, WorkloadError> {
        let (key, value) = self.get("rope.scaling.type");
        match value {
            None => Ok(RopeScaling::None),
            Some(Value::Text(t)) if t == "none" => Ok(RopeScaling::None),
            Some(Value::Text(t)) if t == "linear" => {
                let factor = self.float("rope.scaling.factor")?.filter(|f| *f >= 1.0 && f.is_finite());
                let factor = factor.ok_or_else(|| self.bad(&key, "linear needs a factor of at least 1"))?;
                Ok(RopeScaling::Linear { factor })
            }
            // Phi 3's factors are tensors.
            Some(Value::Text(t)) if t == "longrope" => Ok(RopeScaling::None),
            Some(_) => Err(self.bad(&key, "expected `none`, `linear` or `longrope`")),
        }
    }

    fn family(&self) -> Result<(Family, RopeLayout), WorkloadError> {
        let found = ARCHITECTURES.iter().find(|(name, _, _)| *name == self.architecture);
        found.map(|(_, family, layout)| (*family, *layout)).ok_or_else(|| {
            let known: Vec<&str> = ARCHITECTURES.iter().map(|a| a.0).collect();
            let message = format!("expected one of {}, found `{}`", known.join(", "), self.architecture);
            let key = "general.architecture";
            WorkloadProblem::new(self.contents.place_of(self.place, key), key, message).into()
        })
    }

    /// The shape; what the tensors tell, they tell.
    pub(super) fn spec(&self, vocab: u64, name: String) -> Result<ModelSpec, WorkloadError> {
        let has = |tensor: &str| self.contents.tensors.contains_key(tensor);
        let (family, layout) = self.family()?;
        if self.maybe("expert_count")?.is_some_and(|n| n > 0) {
            return Err(self.bad(&self.get("expert_count").0, "mixtures of experts are not modelled"));
        }
        let (hidden, heads) = (self.number("embedding_length")?, self.number("attention.head_count")?);
        let head_dim = match self.maybe("attention.key_length")? {
            Some(width) => width,
            None if hidden > 0 && heads > 0 && hidden.is_multiple_of(heads) => hidden / heads,
            None => {
                let (key, of) = (self.get("embedding_length").0, self.get("attention.head_count").0);
                return Err(self.bad(&key, format!("expected a multiple of {of} ({heads}), found {hidden}")));
            }
        };
        if let Some(other) = self.maybe("vocab_size")?.filter(|v| u64::from(*v) != vocab) {
            let message = format!("expected the embedding's {vocab} rows, found {other}");
            return Err(self.bad(&self.get("vocab_size").0, message));
        }
        for key in ["attention.value_length", "rope.dimension_count"] {
            if let Some(other) = self.maybe(key)?.filter(|v| *v != head_dim) {
                let message = format!("expected the head's width of {head_dim}, found {other}");
                return Err(self.bad(&self.get(key).0, message));
            }
        }
        let encoder = family == Family::Bert;
        let eps_key =
            if encoder { "attention.layer_norm_epsilon" } else { "attention.layer_norm_rms_epsilon" };
        let eps = self.float(eps_key)?.ok_or_else(|| self.bad(&self.get(eps_key).0, "is missing"))?;
        let layers = self.number("block_count")?;
        let default_theta = if family == Family::Gemma3 { 1e6 } else { 10_000.0 };
        let spec = ModelSpec {
            name,
            family,
            hidden,
            layers,
            heads,
            kv_heads: self.maybe("attention.head_count_kv")?.unwrap_or(heads),
            head_dim,
            ffn: self.number("feed_forward_length")?,
            vocab: u32::try_from(vocab).unwrap_or(u32::MAX),
            norm_eps: eps,
            qkv_bias: has("blk.0.attn_q.bias"),
            qk_norm: has("blk.0.attn_q_norm.weight"),
            rope: Rope {
                theta: self.float("rope.freq_base")?.unwrap_or(default_theta),
                layout,
                scaling: self.scaling()?,
            },
            tied_embedding: !encoder && !has("output.weight"),
            max_position: self.positions(family)?,
            extras: self.extras(family, (hidden, heads, head_dim), layers)?,
        };
        spec.check(self.place).map_err(|e| self.named(e))?;
        Ok(spec)
    }

    /// Where Phi 3's other factors begin to act, if the file has both kinds.
    pub(super) fn original(&self) -> Result<Option<u32>, WorkloadError> {
        let both = [SHORT_FACTORS, LONG_FACTORS].iter().all(|name| self.contents.tensors.contains_key(*name));
        if both { self.maybe("rope.scaling.original_context_length") } else { Ok(None) }
    }

    /// How an encoder's rows become its vector, by the specification's numbers; always at length one, as ggml's
    /// embedding tool leaves it.
    fn pooling(&self) -> Result<Pooling, WorkloadError> {
        let (key, name) = (self.get("pooling_type").0, |n: u32| match n {
            0 => "none",
            3 => "the last token's",
            4 => "a ranking's",
            _ => "unknown",
        });
        match self.maybe("pooling_type")? {
            None | Some(1) => Ok(Pooling::default()),
            Some(2) => Ok(Pooling { first: true, ..Pooling::default() }),
            Some(other) => {
                let message = format!(
                    "expected 1 (the mean) or 2 (the first token's vector), found {other} ({})",
                    name(other)
                );
                Err(self.bad(&key, message))
            }
        }
    }

    /// Problems under this file's keys and at their bytes.
    fn named(&self, mut error: WorkloadError) -> WorkloadError {
        for problem in &mut error.problems {
            let Some((_, key)) = NAMES.iter().find(|(name, _)| *name == problem.key) else { continue };
            problem.key = self.get(key).0;
            problem.place = self.contents.place_of(self.place, &problem.key);
            for (name, key) in NAMES {
                problem.message = problem.message.replace(name, &self.get(key).0);
            }
        }
        error
    }

    /// Longest context: Phi 3's ends where its other factors would begin to act, if they are not there.
    fn positions(&self, family: Family) -> Result<u32, WorkloadError> {
        let context = self.number("context_length")?;
        if family != Family::Phi3 {
            return Ok(context);
        }
        let original = self.maybe("rope.scaling.original_context_length")?.unwrap_or(context);
        Ok(if self.original()?.is_some() { context } else { context.min(original) })
    }

    fn extras(
        &self,
        family: Family,
        (hidden, heads, head_dim): (u32, u32, u32),
        layers: u32,
    ) -> Result<Extras, WorkloadError> {
        let root = |n: u32| f64::from(n).sqrt();
        Ok(match family {
            Family::Llama | Family::Qwen2 | Family::Qwen3 | Family::Mimo => Extras::default(),
            Family::Phi3 => {
                // The factor stretches cosine and sine alike, queries' and keys': scores by its square.
                let stretch = self.float("rope.scaling.attn_factor")?.filter(|f| *f > 0.0);
                // Every layer has the window; 0 is none, and one as long as the context never acts.
                let most = self.positions(family)?;
                let window = self.maybe("attention.sliding_window")?.filter(|w| (1..most).contains(w));
                Extras {
                    attention_scale: stretch.map(|f| f * f / root(head_dim)),
                    window: window.map(|positions| Window { positions, period: 0, local_theta: None }),
                    ..Extras::default()
                }
            }
            Family::Gemma2 | Family::Gemma3 => {
                let second = family == Family::Gemma2;
                // The 27B models scale by the width a head would have, had all of them together the residual's.
                let large = layers == if second { 46 } else { 62 };
                let window = self.maybe("attention.sliding_window")?;
                let window = window.or(second.then_some(4096));
                let local_theta =
                    if second { None } else { Some(self.float("rope.freq_base_swa")?.unwrap_or(10_000.0)) };
                let (cap, last) = ("attn_logit_softcapping", "final_logit_softcapping");
                let or = |default: f64| second.then_some(default);
                Extras {
                    embed_scale: Some(root(hidden)),
                    attention_scale: large.then(|| 1.0 / root(hidden / heads.max(1))),
                    attention_cap: self.float(cap)?.or(or(50.0)),
                    logit_cap: self.float(last)?.or(or(30.0)),
                    window: window.map(|positions| Window {
                        positions,
                        period: if second { 2 } else { 6 },
                        local_theta,
                    }),
                    post_norms: true,
                    gate_gelu: true,
                    ..Extras::default()
                }
            }
            Family::Vit | Family::Siglip | Family::Whisper => Extras::default(),
            Family::Bert => {
                let token_types = self.contents.tensors.get("token_types.weight");
                let rows = token_types.and_then(|t| t.dims.get(1)).copied().unwrap_or(1);
                let token_types = u32::try_from(rows).unwrap_or(u32::MAX);
                let encoder = Some(Encoder { token_types });
                Extras { encoder, pooling: self.pooling()?, ..Extras::default() }
            }
        })
    }
}
