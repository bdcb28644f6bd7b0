//! Reads a Hugging Face `config.json` as it is.
//!
//! Models: the families of [`Family`], with the defaults their Hugging Face classes define. Phi 3's contexts end where
//! its other factors would begin to act, if they are not there.
//! Does not model: windows of other families than Gemma and Phi 3, mixtures of experts, partial rotary embedding, biases of
//! decoders beyond q, k and v: a key that asks for one is an error that names it. Keys that do not change the
//! arithmetic are ignored.
//! Source: the configuration classes of Hugging Face transformers (Llama, Qwen2, Qwen3, Phi3, Gemma2, Gemma3Text, Bert)
//! and `XiaomiMiMo`; ViT, `SiglipVision`, Whisper (of the last two files of whole models do: what is not the encoder is
//! ignored).

use serde_json::{Map, Value};

use super::error::{WorkloadError, WorkloadProblem, unknown_name};
use super::extras::{Encoder, Extras, LongRope, Stem, Window};
use super::model::{Family, ModelSpec, Rope, RopeLayout, RopeScaling};

/// Architecture, model type (which files without an architecture still have) and family.
const ARCHITECTURES: [(&str, &str, Family); 14] = [
    ("LlamaForCausalLM", "llama", Family::Llama),
    ("Qwen2ForCausalLM", "qwen2", Family::Qwen2),
    ("Qwen3ForCausalLM", "qwen3", Family::Qwen3),
    ("MiMoForCausalLM", "mimo", Family::Mimo),
    ("Phi3ForCausalLM", "phi3", Family::Phi3),
    ("Gemma2ForCausalLM", "gemma2", Family::Gemma2),
    ("Gemma3ForCausalLM", "gemma3_text", Family::Gemma3),
    ("BertModel", "bert", Family::Bert),
    ("ViTModel", "vit", Family::Vit),
    ("ViTForImageClassification", "vit", Family::Vit),
    ("SiglipVisionModel", "siglip_vision_model", Family::Siglip),
    ("SiglipModel", "siglip", Family::Siglip),
    ("WhisperForConditionalGeneration", "whisper", Family::Whisper),
    ("WhisperModel", "whisper", Family::Whisper),
];

/// One JSON object being read, with all that was wrong in it.
struct Reader<'a> {
    file: &'a str,
    text: &'a str,
    object: &'a Map<String, Value>,
    problems: Vec<WorkloadProblem>,
}

impl Reader<'_> {
    /// File and the line of the key's first occurrence.
    fn place(&self, key: &str) -> String {
        let quoted = format!("\"{key}\"");
        match self.text.find(&quoted) {
            Some(at) => format!("{}:{}", self.file, self.text[..at].matches('\n').count() + 1),
            None => self.file.to_owned(),
        }
    }

    fn fail(&mut self, key: &str, message: String) {
        let place = self.place(key);
        self.problems.push(WorkloadProblem::new(place, key, message));
    }

    /// The value of a key; `null` counts as absent, as it does for Hugging Face.
    fn get(&self, key: &str) -> Option<Value> {
        self.object.get(key).filter(|value| !value.is_null()).cloned()
    }

    fn count(&mut self, key: &str, default: Option<u32>) -> u32 {
        match self.get(key) {
            Some(value) => match value.as_u64().and_then(|n| u32::try_from(n).ok()) {
                Some(n) => n,
                None => {
                    self.fail(key, format!("expected a whole number, found {value}"));
                    1
                }
            },
            None => default.unwrap_or_else(|| {
                self.fail(key, "is missing, expected a whole number".to_owned());
                1
            }),
        }
    }

    fn number(&mut self, key: &str, default: f64) -> f64 {
        match self.get(key) {
            Some(value) => value.as_f64().unwrap_or_else(|| {
                self.fail(key, format!("expected a number, found {value}"));
                default
            }),
            None => default,
        }
    }

    fn flag(&mut self, key: &str, default: bool) -> bool {
        match self.get(key) {
            Some(value) => value.as_bool().unwrap_or_else(|| {
                self.fail(key, format!("expected true or false, found {value}"));
                default
            }),
            None => default,
        }
    }

    /// A key that changes the arithmetic: only `supported` values pass.
    fn only(&mut self, key: &str, supported: &[Value]) {
        if let Some(value) = self.get(key)
            && !supported.contains(&value)
        {
            let list: Vec<String> = supported.iter().map(Value::to_string).collect();
            let only = if list.is_empty() { String::new() } else { format!(", only {}", list.join(" or ")) };
            self.fail(key, format!("{value} is not supported{only}"));
        }
    }
}

/// Reads the text of a `config.json`; `file` names it in messages.
pub(crate) fn read(text: &str, file: &str) -> Result<ModelSpec, WorkloadError> {
    let value: Value = serde_json::from_str(text).map_err(|e| {
        WorkloadProblem::new(
            format!("{file}:{}:{}", e.line(), e.column()),
            "",
            format!("not valid JSON: {e}"),
        )
    })?;
    let Some(object) = value.as_object() else {
        return Err(WorkloadProblem::new(file, "", "expected a JSON object at the top").into());
    };
    let mut reader = Reader { file, text, object, problems: Vec::new() };
    let family = family(&reader)?;
    if let (Family::Siglip, Some(Value::Object(vision))) = (family, object.get("vision_config")) {
        reader.object = vision;
    }
    unsupported(&mut reader, family);
    let spec = spec(&mut reader, family);
    let mut problems = reader.problems;
    if problems.is_empty()
        && let Err(error) = spec.check(file)
    {
        problems.extend(error.problems);
    }
    if problems.is_empty() { Ok(spec) } else { Err(WorkloadError { problems }) }
}

fn family(reader: &Reader<'_>) -> Result<Family, WorkloadError> {
    let architectures = ARCHITECTURES.map(|(name, _, _)| name);
    let Some(named) = reader.get("architectures") else {
        let kind = reader.get("model_type");
        let kind = kind.as_ref().and_then(Value::as_str);
        let found = ARCHITECTURES.iter().find(|(_, model_type, _)| kind == Some(model_type));
        return found.map(|(_, _, family)| *family).ok_or_else(|| {
            let message = "expected a list with a name, or a supported model_type";
            let problem = WorkloadProblem::new(reader.place("model_type"), "architectures", message);
            problem.help(format!("supported: {}", architectures.join(", "))).into()
        });
    };
    let Some(name) = named.as_array().and_then(|list| list.first()?.as_str()) else {
        let message = format!("expected a list with a name, found {named}");
        return Err(WorkloadProblem::new(reader.place("architectures"), "architectures", message).into());
    };
    let found = ARCHITECTURES.iter().find(|(candidate, _, _)| *candidate == name);
    found.map(|(_, _, family)| *family).ok_or_else(|| {
        unknown_name(&reader.place("architectures"), "support for the architecture", name, &architectures)
    })
}

/// Refuses what would change the arithmetic and is not modelled.
fn unsupported(reader: &mut Reader<'_>, family: Family) {
    let off = [Value::Bool(false)];
    match family {
        Family::Bert => {
            reader.only("hidden_act", &[Value::from("gelu")]);
            reader.only("position_embedding_type", &[Value::from("absolute")]);
        }
        Family::Vit => reader.only("hidden_act", &[Value::from("gelu")]),
        Family::Siglip => reader.only("hidden_act", &[Value::from("gelu_pytorch_tanh"), Value::from("gelu")]),
        Family::Whisper => reader.only("activation_function", &[Value::from("gelu")]),
        // The older key says `gelu` in some files and means the same.
        Family::Gemma2 | Family::Gemma3 => {
            reader.only("hidden_activation", &[Value::from("gelu_pytorch_tanh")]);
        }
        _ => reader.only("hidden_act", &[Value::from("silu")]),
    }
    reader.only("mlp_bias", &off);
    let gemma = matches!(family, Family::Gemma2 | Family::Gemma3);
    if let Some(Value::Array(kinds)) = reader.get("layer_types")
        && !gemma
        && let Some(kind) = kinds.iter().find(|kind| **kind != "full_attention")
    {
        reader.fail("layer_types", format!("{kind} is not supported, only \"full_attention\""));
    }
    reader.only("use_mrope", &off);
    for key in ["num_experts", "num_local_experts", "n_routed_experts", "quantization_config"] {
        reader.only(key, &[]);
    }
    if !gemma {
        reader.only("attn_logit_softcapping", &[]);
    }
    match family {
        Family::Qwen2 | Family::Qwen3 | Family::Mimo => reader.only("use_sliding_window", &off),
        Family::Llama => {
            reader.only("sliding_window", &[]);
            reader.only("pretraining_tp", &[Value::from(1)]);
        }
        Family::Phi3 => {
            reader.only("partial_rotary_factor", &[Value::from(1), Value::from(1.0)]);
        }
        Family::Gemma2 | Family::Gemma3 => reader.only("use_bidirectional_attention", &off),
        Family::Bert => reader.only("is_decoder", &off),
        Family::Vit | Family::Siglip | Family::Whisper => {}
    }
    match family {
        Family::Llama | Family::Qwen3 | Family::Phi3 | Family::Gemma2 | Family::Gemma3 => {
            reader.only("attention_bias", &off);
        }
        Family::Bert | Family::Vit | Family::Siglip | Family::Whisper => {}
        Family::Qwen2 | Family::Mimo => reader.only("attention_bias", &[Value::Bool(true)]),
    }
}

fn spec(reader: &mut Reader<'_>, family: Family) -> ModelSpec {
    if let Family::Vit | Family::Siglip | Family::Whisper = family {
        return rows_spec(reader, family);
    }
    let hidden = reader.count("hidden_size", None);
    let heads = reader.count("num_attention_heads", None);
    let default_head = match family {
        Family::Qwen3 => Some(128),
        Family::Gemma2 | Family::Gemma3 => Some(256),
        _ if heads > 0 && hidden.is_multiple_of(heads) => Some(hidden / heads),
        _ => None,
    };
    if default_head.is_none() && reader.get("head_dim").is_none() {
        reader.fail("hidden_size", format!("{hidden} is not a multiple of num_attention_heads ({heads})"));
    }
    let head_dim = reader.count("head_dim", Some(default_head.unwrap_or(1)));
    let default_theta = match family {
        Family::Mimo => 640_000.0,
        Family::Gemma3 => 1_000_000.0,
        _ => 10_000.0,
    };
    let default_context = match family {
        Family::Llama => 2_048,
        Family::Phi3 => 4_096,
        Family::Gemma2 => 8_192,
        Family::Gemma3 => 131_072,
        // Of images and sound the input decides: they are read elsewhere.
        Family::Bert | Family::Vit | Family::Siglip | Family::Whisper => 512,
        Family::Qwen2 | Family::Qwen3 | Family::Mimo => 32_768,
    };
    let context = reader.count("max_position_embeddings", Some(default_context));
    let (eps_key, default_eps) = match family {
        Family::Phi3 => ("rms_norm_eps", 1e-5),
        Family::Bert => ("layer_norm_eps", 1e-12),
        _ => ("rms_norm_eps", 1e-6),
    };
    let layers = reader.count("num_hidden_layers", None);
    let extras = extras(reader, family, (hidden, head_dim, context));
    // Without factors for longer contexts, Phi 3's end with the original.
    let max_position = match family {
        Family::Phi3 => {
            let original = reader.count("original_max_position_embeddings", Some(context));
            if extras.long_rope.is_some() { context } else { context.min(original) }
        }
        _ => context,
    };
    ModelSpec {
        name: name(reader.file),
        family,
        hidden,
        layers,
        heads,
        kv_heads: reader.count("num_key_value_heads", Some(heads)),
        head_dim,
        ffn: reader.count("intermediate_size", None),
        vocab: reader.count("vocab_size", None),
        norm_eps: reader.number(eps_key, default_eps),
        qkv_bias: matches!(family, Family::Qwen2 | Family::Mimo | Family::Bert),
        qk_norm: matches!(family, Family::Qwen3 | Family::Gemma3),
        rope: rope(reader, default_theta, family),
        // An encoder has no head at all.
        tied_embedding: family != Family::Bert
            && reader.flag("tie_word_embeddings", matches!(family, Family::Gemma2 | Family::Gemma3)),
        max_position,
        extras,
    }
}

/// The file's stem.
fn name(file: &str) -> String {
    let stem = std::path::Path::new(file);
    // A directory of a model holds a file called config.json: its own name says more.
    let named_by = match stem.file_stem().and_then(|s| s.to_str()) {
        Some("config") => stem.parent().and_then(|p| p.file_name()).or(stem.file_stem()),
        _ => stem.file_stem(),
    };
    named_by.map_or_else(|| "model".to_owned(), |name| name.to_string_lossy().into_owned())
}

/// The encoders of images and sound, whose files have keys and defaults of their own.
fn rows_spec(reader: &mut Reader<'_>, family: Family) -> ModelSpec {
    let whisper = family == Family::Whisper;
    let keys = if whisper {
        ["d_model", "encoder_layers", "encoder_attention_heads", "encoder_ffn_dim"]
    } else {
        ["hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"]
    };
    // Files leave out what the class's default is, as SigLIP's base model does.
    let defaults = if whisper { [384, 4, 6, 1536] } else { [768, 12, 12, 3072] };
    let [hidden, layers, heads, ffn] = core::array::from_fn(|i| reader.count(keys[i], Some(defaults[i])));
    if heads == 0 || !hidden.is_multiple_of(heads) {
        reader.fail(keys[0], format!("{hidden} is not a multiple of {} ({heads})", keys[2]));
    }
    let (stem, positions) = if whisper {
        let stem = Stem::Frames { bins: reader.count("num_mel_bins", Some(80)) };
        (stem, reader.count("max_source_positions", Some(1500)))
    } else {
        patches(reader, family, (hidden, ffn))
    };
    let default_eps = if family == Family::Vit { 1e-12 } else { 1e-6 };
    let act = reader.get("hidden_act");
    ModelSpec {
        name: name(reader.file),
        family,
        hidden,
        layers,
        heads,
        kv_heads: heads,
        head_dim: hidden.checked_div(heads).unwrap_or(1).max(1),
        ffn,
        vocab: 1,
        norm_eps: if whisper { 1e-5 } else { reader.number("layer_norm_eps", default_eps) },
        qkv_bias: family != Family::Vit || reader.flag("qkv_bias", true),
        qk_norm: false,
        rope: Rope { theta: 10_000.0, layout: RopeLayout::Half, scaling: RopeScaling::None },
        tied_embedding: false,
        max_position: positions,
        extras: Extras {
            encoder: Some(Encoder { token_types: 0 }),
            stem: Some(stem),
            gelu_tanh: family == Family::Siglip && act.is_none_or(|a| a == "gelu_pytorch_tanh"),
            ..Extras::default()
        },
    }
}

/// A stem of patches, and the positions it gives.
fn patches(reader: &mut Reader<'_>, family: Family, (hidden, ffn): (u32, u32)) -> (Stem, u32) {
    let size = reader.count("image_size", Some(224));
    let patch = reader.count("patch_size", Some(16));
    let channels = reader.count("num_channels", Some(3));
    let class = family == Family::Vit;
    let side = size.checked_div(patch).unwrap_or(0);
    if side == 0 {
        reader.fail("patch_size", format!("expected from 1 to image_size ({size}), found {patch}"));
    }
    let head = !class && reader.flag("vision_use_head", true);
    let (h, f) = (u64::from(hidden), u64::from(ffn));
    // A query, attention with biases, a norm, a feed-forward layer with biases.
    let head_params = if head { h + 4 * (h + 1) * h + 2 * h + (2 * f + 1) * h + f } else { 0 };
    let values = channels.saturating_mul(patch).saturating_mul(patch);
    let positions = side.saturating_mul(side).saturating_add(u32::from(class));
    (Stem::Patches { values, class, head_params }, positions.max(1))
}

fn extras(reader: &mut Reader<'_>, family: Family, (hidden, head_dim, context): (u32, u32, u32)) -> Extras {
    let root = |n: f64| n.sqrt();
    match family {
        Family::Llama | Family::Qwen2 | Family::Qwen3 | Family::Mimo => Extras::default(),
        Family::Phi3 => {
            let positions = reader.count("sliding_window", Some(context));
            // Every layer has it (2047 of 4096 positions); a longer one never acts.
            let acts = positions < context;
            let window = acts.then_some(Window { positions, period: 0, local_theta: None });
            Extras { window, ..long_rope(reader, head_dim, context) }
        }
        Family::Gemma2 | Family::Gemma3 => {
            let second = family == Family::Gemma2;
            let scalar = reader.number("query_pre_attn_scalar", 256.0);
            let cap = |reader: &mut Reader<'_>, key: &str, default: f64| {
                // Gemma 2's class has defaults; `null` is none at all.
                let absent = second && !reader.object.contains_key(key);
                if absent { Some(default) } else { reader.get(key).map(|_| reader.number(key, default)) }
            };
            let attention_cap = cap(reader, "attn_logit_softcapping", 50.0);
            let logit_cap = cap(reader, "final_logit_softcapping", 30.0);
            let positions = reader.count("sliding_window", Some(4096));
            let period = reader.count("sliding_window_pattern", Some(if second { 2 } else { 6 }));
            layer_types(reader, period);
            let local_theta = (!second).then(|| reader.number("rope_local_base_freq", 10_000.0));
            let scale = 1.0 / root(scalar);
            let plain = (scale - 1.0 / root(f64::from(head_dim))).abs() < 1e-12;
            Extras {
                embed_scale: Some(root(f64::from(hidden))),
                attention_scale: (!plain).then_some(scale),
                attention_cap,
                logit_cap,
                window: Some(Window { positions, period, local_theta }),
                post_norms: true,
                gate_gelu: true,
                ..Extras::default()
            }
        }
        Family::Vit | Family::Siglip | Family::Whisper => Extras::default(),
        Family::Bert => {
            let token_types = reader.count("type_vocab_size", Some(2));
            Extras { encoder: Some(Encoder { token_types }), ..Extras::default() }
        }
    }
}

/// Where a file lists its layers' kinds, they must be those the period gives.
fn layer_types(reader: &mut Reader<'_>, period: u32) {
    let Some(Value::Array(kinds)) = reader.get("layer_types") else { return };
    for (layer, kind) in (0u32..).zip(&kinds) {
        let full = period > 0 && (layer + 1).is_multiple_of(period);
        let expected = if full { "full_attention" } else { "sliding_attention" };
        if kind != expected {
            let message = format!("layer {layer} is {kind}, only \"{expected}\" is supported there");
            return reader.fail("layer_types", message);
        }
    }
}

/// Phi 3's factors within the original context and beyond it, and what its longer training did to scores.
fn long_rope(reader: &mut Reader<'_>, head_dim: u32, context: u32) -> Extras {
    let found = ["rope_parameters", "rope_scaling"].map(|key| (key, reader.get(key)));
    let Some((key, settings)) = found.into_iter().find_map(|(key, s)| s.map(|s| (key, s))) else {
        return Extras::default();
    };
    let kind = settings.get("rope_type").or_else(|| settings.get("type"));
    if !kind.is_some_and(|kind| kind == "longrope" || kind == "su") {
        return Extras::default();
    }
    let list = |name: &str| -> Option<Vec<f64>> {
        settings[name].as_array().and_then(|all| all.iter().map(Value::as_f64).collect())
    };
    let names = ["short_factor", "long_factor"];
    let lists = names.map(|name| (name, list(name)));
    if let Some((name, _)) = lists.iter().find(|(_, factors)| factors.is_none()) {
        reader.fail(key, format!("{name}: expected a list of numbers"));
        return Extras::default();
    }
    let [rope_factors, factors] = lists.map(|(_, factors)| factors.unwrap_or_default());
    let inner = settings["original_max_position_embeddings"].as_u64().and_then(|n| u32::try_from(n).ok());
    let original = reader.count("original_max_position_embeddings", Some(inner.unwrap_or(context)));
    let longer = f64::from(context) / f64::from(original.max(1));
    // Cosine and sine are stretched, of queries and keys alike: scores by the square of the factor.
    let square = match settings["attention_factor"].as_f64() {
        Some(factor) => Some(factor * factor),
        None => (longer > 1.0).then(|| 1.0 + libm::log(longer) / libm::log(f64::from(original))),
    };
    Extras {
        attention_scale: square.map(|square| square / f64::from(head_dim).sqrt()),
        rope_factors,
        long_rope: Some(LongRope { original, factors }),
        ..Extras::default()
    }
}

/// Rotary settings: the older `rope_theta` and `rope_scaling`, or the newer `rope_parameters` with both.
fn rope(reader: &mut Reader<'_>, default_theta: f64, family: Family) -> Rope {
    let mut theta = reader.number("rope_theta", default_theta);
    let (key, settings) = match reader.get("rope_parameters") {
        Some(settings) => ("rope_parameters", Some(settings)),
        None => ("rope_scaling", reader.get("rope_scaling")),
    };
    let mut scaling = RopeScaling::None;
    match settings {
        None => {}
        Some(Value::Object(settings)) => {
            theta = settings.get("rope_theta").and_then(Value::as_f64).unwrap_or(theta);
            match rope_scaling(&settings, family) {
                Ok(found) => scaling = found,
                Err(message) => reader.fail(key, message),
            }
        }
        Some(other) => reader.fail(key, format!("expected an object, found {other}")),
    }
    Rope { theta, layout: RopeLayout::Half, scaling }
}

fn rope_scaling(settings: &Map<String, Value>, family: Family) -> Result<RopeScaling, String> {
    let number = |key: &str| {
        let value = settings.get(key).and_then(Value::as_f64);
        value.filter(|n| *n >= 1.0 && n.is_finite()).ok_or_else(|| format!("{key}: expected a number from 1"))
    };
    let kind = settings.get("rope_type").or_else(|| settings.get("type")).and_then(Value::as_str);
    match kind {
        Some("default") => Ok(RopeScaling::None),
        // The factors are read apart.
        Some("longrope" | "su") if family == Family::Phi3 => Ok(RopeScaling::None),
        Some("linear") => Ok(RopeScaling::Linear { factor: number("factor")? }),
        Some("llama3") => {
            let original = settings.get("original_max_position_embeddings").and_then(Value::as_u64);
            let original = original.and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0);
            Ok(RopeScaling::Llama3 {
                factor: number("factor")?,
                low_freq_factor: number("low_freq_factor")?,
                high_freq_factor: number("high_freq_factor")?,
                original_max_position: original
                    .ok_or("original_max_position_embeddings: expected a whole number from 1")?,
            })
        }
        Some(other) => Err(format!(
            "rope type `{other}` is not supported, only default, linear, llama3 and, for Phi 3, longrope"
        )),
        None => Err("expected a rope_type: default, linear or llama3".to_owned()),
    }
}

#[cfg(test)]
mod tests;
