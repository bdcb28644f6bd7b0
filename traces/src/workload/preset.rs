//! The model presets built into the program, and how a model argument is resolved.

use std::io::Read as _;
use std::path::Path;

use serde::Deserialize;

use super::error::{WorkloadError, WorkloadProblem, unknown_name};
use super::extras::{Encoder, Extras, Stem};
use super::hugging_face;
use super::model::{Family, ModelSpec, Rope, RopeLayout, RopeScaling};
use crate::gguf::GgufModel;

macro_rules! presets {
    ($($name:literal),* $(,)?) => {
        /// Model presets by name.
        const MODELS: &[(&str, &str)] = &[
            $(($name, include_str!(concat!("../../presets/models/", $name, ".toml"))),)*
        ];
    };
}

presets![
    "mimo-7b",
    "qwen2.5-1.5b",
    "qwen2.5-7b",
    "qwen3-8b",
    "qwen3-14b",
    "llama-3.2-1b",
    "llama-3.2-3b",
    "llama-3.1-8b",
    "llama-2-7b",
    "phi-3-mini",
    "gemma-2-2b",
    "gemma-3-1b",
    "whisper-small-encoder",
    "siglip-so400m",
];

/// Largest `config.json` that is read.
const MAX_FILE: u64 = 4 << 20;

/// Names of the model presets.
pub fn model_names() -> impl Iterator<Item = &'static str> {
    MODELS.iter().map(|(name, _)| *name)
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct RawModel {
    source: String,
    family: Family,
    hidden: u32,
    layers: u32,
    heads: u32,
    kv_heads: u32,
    head_dim: u32,
    ffn: u32,
    vocab: u32,
    norm_eps: f64,
    qkv_bias: bool,
    qk_norm: bool,
    rope_theta: f64,
    rope_scaling: Option<RopeScaling>,
    tied_embedding: bool,
    max_position: u32,
    #[serde(default)]
    extras: Extras,
    /// What an encoder of images or sound has besides.
    stem: Option<RawStem>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct RawStem {
    /// Of sound: values of a frame.
    mel_bins: Option<u32>,
    /// Of images: values of a patch.
    patch_values: Option<u32>,
    /// Parameters that are counted and not computed.
    head_params: Option<u64>,
    gelu_tanh: bool,
}

impl RawStem {
    fn extras(&self) -> Extras {
        let stem = match (self.mel_bins, self.patch_values) {
            (Some(bins), _) => Stem::Frames { bins },
            (None, values) => Stem::Patches {
                values: values.unwrap_or(0),
                class: false,
                head_params: self.head_params.unwrap_or(0),
            },
        };
        Extras {
            encoder: Some(Encoder { token_types: 0 }),
            stem: Some(stem),
            gelu_tanh: self.gelu_tanh,
            ..Extras::default()
        }
    }
}

/// A preset with the source of its figures.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelPreset {
    /// The shape.
    pub spec: ModelSpec,
    /// Where its figures are from.
    pub source: String,
}

/// Loads a model preset.
///
/// # Errors
/// If there is none of that name, with the nearest.
///
/// # Panics
/// If the built-in text is not a model, which a test excludes for all of them.
pub fn model_preset(name: &str) -> Result<ModelPreset, WorkloadError> {
    let Some((_, text)) = MODELS.iter().find(|(candidate, _)| *candidate == name) else {
        let valid: Vec<&str> = model_names().collect();
        return Err(unknown_name("--model", "model preset, nor a file,", name, &valid));
    };
    let raw: RawModel = toml::from_str(text).expect("built-in presets are valid");
    let spec = ModelSpec {
        name: name.to_owned(),
        family: raw.family,
        hidden: raw.hidden,
        layers: raw.layers,
        heads: raw.heads,
        kv_heads: raw.kv_heads,
        head_dim: raw.head_dim,
        ffn: raw.ffn,
        vocab: raw.vocab,
        norm_eps: raw.norm_eps,
        qkv_bias: raw.qkv_bias,
        qk_norm: raw.qk_norm,
        rope: Rope {
            theta: raw.rope_theta,
            layout: RopeLayout::Half,
            scaling: raw.rope_scaling.unwrap_or(RopeScaling::None),
        },
        tied_embedding: raw.tied_embedding,
        max_position: raw.max_position,
        extras: raw.stem.as_ref().map_or(raw.extras, RawStem::extras),
    };
    spec.check(&format!("preset {name}"))?;
    Ok(ModelPreset { spec, source: raw.source })
}

/// Resolves a model argument: a preset name, the path of a Hugging Face `config.json`, of its folder, or of a GGUF file.
///
/// # Errors
/// If it is neither, or the file does not describe a model that is supported.
pub fn load_model(argument: &str) -> Result<ModelSpec, WorkloadError> {
    let path = Path::new(argument);
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
    let is_file = extension == "json" || extension == "gguf" || argument.contains('/') || path.exists();
    if !is_file || model_names().any(|name| name == argument) {
        return model_preset(argument).map(|preset| preset.spec);
    }
    if GgufModel::is_one(argument) {
        return GgufModel::open(path).map(|model| model.spec);
    }
    // A folder stands for its config.json.
    let inside = path.join("config.json");
    let path = if path.is_dir() { inside.as_path() } else { path };
    let argument = &path.display().to_string();
    let mut bytes = Vec::new();
    std::fs::File::open(path).and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut bytes)).map_err(
        |e| WorkloadProblem::new("--model", "", format!("cannot read `{argument}`: {}", e.kind())),
    )?;
    if bytes.len() as u64 > MAX_FILE {
        let message = format!("more than {MAX_FILE} bytes, expected a config.json");
        return Err(WorkloadProblem::new(argument, "", message).into());
    }
    let text = String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        WorkloadProblem::new(argument, "", format!("not a text file: byte {at} is not UTF-8, expected JSON"))
    })?;
    hugging_face::read(&text, argument)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_loads_and_counts_the_published_parameters() {
        // In millions, from the model cards, to 1 %.
        let published = [
            ("mimo-7b", 7_625), // 7.83 B with its prediction layer (0.21 B, not modelled)
            ("qwen2.5-1.5b", 1_544),
            ("qwen2.5-7b", 7_616),
            ("qwen3-8b", 8_191),
            ("qwen3-14b", 14_768),
            ("llama-3.2-1b", 1_236),
            ("llama-3.2-3b", 3_213),
            ("llama-3.1-8b", 8_030),
            ("llama-2-7b", 6_738),
            ("phi-3-mini", 3_821),
            ("gemma-2-2b", 2_614),
            ("gemma-3-1b", 1_000),
            ("whisper-small-encoder", 88), // of 244 M with its decoder
            ("siglip-so400m", 428),        // 15.2 M of them are the pooling head's
        ];
        assert_eq!(published.map(|(name, _)| name).to_vec(), model_names().collect::<Vec<_>>());
        for (name, millions) in published {
            let preset = model_preset(name).expect(name);
            assert!(!preset.source.is_empty(), "{name}");
            let ours = preset.spec.params() / 1_000_000;
            assert!(ours.abs_diff(millions) * 100 <= millions, "{name}: {ours} M, published {millions} M");
        }
    }

    #[test]
    fn a_wrong_name_names_the_nearest() {
        let error = load_model("mimo-8b").expect_err("no such preset").to_string();
        assert!(error.contains("did you mean `mimo-7b`?"), "{error}");
        let error = load_model("zzz").expect_err("no such preset").to_string();
        assert!(error.contains("there are: mimo-7b, "), "{error}");
        assert!(load_model("no/such/file.json").expect_err("no file").to_string().contains("cannot read"));
        assert!(load_model("/dev/zero").expect_err("no end").to_string().contains("more than 4194304 bytes"));
    }
}
