//! Families of models in GGUF files: shapes, fused and extra tensors, flags of the image, and what they say.

mod common;
#[allow(dead_code, reason = "only a part of the writer is needed here")]
mod gguf_writer;
#[path = "support/reference.rs"]
#[allow(dead_code, reason = "encoders share parts of it")]
mod reference;

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use common::presil;
use gguf_writer::{Flaws, GOOD, LLAMA, Meta, SEED, assemble, keys, metadata, parts, spec};
use isa::image::{self, ImageHeader};
use reference::Reference;
use serde_json::Value;
use traces::gguf::GgufModel;
use traces::image::{Tensor, build_image, random_tensors};
use traces::workload::{Encoder, Extras, Family, ModelSpec, QuantScheme, Rope, RopeLayout, Window};

/// A family's file: how it differs from Llama's.
struct Case {
    architecture: &'static str,
    spec: ModelSpec,
    whole: Vec<(&'static str, Tensor)>,
    layer: Vec<(&'static str, &'static [Tensor])>,
    /// Keys behind the architecture's name.
    keys: Vec<(&'static str, Meta)>,
    flags: u64,
}

fn base(family: Family) -> ModelSpec {
    let plain = spec();
    ModelSpec { family, rope: Rope { layout: RopeLayout::Half, ..plain.rope }, ..plain }
}

fn decoder(architecture: &'static str, spec: ModelSpec) -> Case {
    let eps = "attention.layer_norm_rms_epsilon";
    Case {
        architecture,
        spec,
        whole: vec![("token_embd.weight", Tensor::Embed), ("output_norm.weight", Tensor::FinalNorm)],
        layer: LLAMA.to_vec(),
        keys: vec![("rope.freq_base", Meta::Float(10_000.0)), (eps, Meta::Float(1e-5))],
        flags: 0,
    }
}

const BIASES: [(&str, &[Tensor]); 3] = [
    ("attn_q.bias", &[Tensor::QueryBias]),
    ("attn_k.bias", &[Tensor::KeyBias]),
    ("attn_v.bias", &[Tensor::ValueBias]),
];
const HEAD_NORMS: [(&str, &[Tensor]); 2] =
    [("attn_q_norm.weight", &[Tensor::QueryNorm]), ("attn_k_norm.weight", &[Tensor::KeyNorm])];
const POST_NORMS: [(&str, &[Tensor]); 2] = [
    ("post_attention_norm.weight", &[Tensor::PostAttnNorm]),
    ("post_ffw_norm.weight", &[Tensor::PostFfnNorm]),
];

fn qwens() -> [Case; 2] {
    let mut two = decoder("qwen2", ModelSpec { qkv_bias: true, ..base(Family::Qwen2) });
    two.layer.extend(BIASES);
    two.flags = image::FLAG_BIAS;
    let mut three = decoder("qwen3", ModelSpec { qk_norm: true, ..base(Family::Qwen3) });
    three.layer.extend(HEAD_NORMS);
    three.keys.push(("attention.key_length", Meta::Number(16)));
    three.flags = image::FLAG_QK_NORM;
    [two, three]
}

fn phi() -> Case {
    // A stretched context: 0.5 / sqrt(16) is what 2^-0.5 squared makes of 1 / 4.
    let window = Some(Window { positions: 24, period: 0, local_theta: None });
    let extras = Extras { attention_scale: Some(0.25 * 0.25), window, ..Extras::default() };
    let spec = ModelSpec { max_position: 64, extras, tied_embedding: false, ..base(Family::Phi3) };
    let mut case = decoder("phi3", spec);
    case.whole.push(("output.weight", Tensor::Head));
    case.layer
        .retain(|(n, _)| !["attn_q", "attn_k", "attn_v", "ffn_gate", "ffn_up"].contains(&&n[..n.len() - 7]));
    case.layer.push(("attn_qkv.weight", &[Tensor::Query, Tensor::Key, Tensor::Value]));
    case.layer.push(("ffn_up.weight", &[Tensor::Gate, Tensor::Up]));
    case.keys.push(("attention.sliding_window", Meta::Number(24)));
    case.flags = image::FLAG_WINDOW;
    case.keys.push(("rope.scaling.attn_factor", Meta::Float(0.5)));
    case.keys.push(("rope.scaling.original_context_length", Meta::Number(64)));
    case
}

fn gemmas() -> [Case; 2] {
    let extras = |window, caps: Option<(f64, f64)>| Extras {
        embed_scale: Some(8.0),
        attention_cap: caps.map(|c| c.0),
        logit_cap: caps.map(|c| c.1),
        window: Some(window),
        post_norms: true,
        gate_gelu: true,
        ..Extras::default()
    };
    let flags = image::FLAG_EMBED_SCALE | image::FLAG_WINDOW | image::FLAG_POST_NORMS | image::FLAG_GATE_GELU;
    let window = Window { positions: 32, period: 2, local_theta: None };
    let mut two =
        decoder("gemma2", ModelSpec { extras: extras(window, Some((40.0, 20.0))), ..base(Family::Gemma2) });
    two.layer.extend(POST_NORMS);
    two.keys.push(("attention.sliding_window", Meta::Number(32)));
    two.keys.push(("attn_logit_softcapping", Meta::Float(40.0)));
    two.keys.push(("final_logit_softcapping", Meta::Float(20.0)));
    two.flags = flags | image::FLAG_ATTENTION_CAP | image::FLAG_LOGIT_CAP;
    let window = Window { positions: 48, period: 6, local_theta: Some(10_000.0) };
    let spec = ModelSpec { layers: 7, extras: extras(window, None), qk_norm: true, ..base(Family::Gemma3) };
    let mut three = decoder("gemma3", spec);
    three.layer.extend(POST_NORMS);
    three.layer.extend(HEAD_NORMS);
    three.keys.push(("attention.sliding_window", Meta::Number(48)));
    three.flags = flags | image::FLAG_LOCAL_ROPE | image::FLAG_QK_NORM;
    [two, three]
}

fn bert() -> Case {
    let extras = Extras { encoder: Some(Encoder { token_types: 2 }), ..Extras::default() };
    let spec = ModelSpec {
        kv_heads: 4,
        qkv_bias: true,
        tied_embedding: false,
        vocab: 273,
        norm_eps: f64::from(1e-12f32),
        extras,
        ..base(Family::Bert)
    };
    let encoder =
        image::FLAG_ENCODER | image::FLAG_LAYER_NORM | image::FLAG_PLAIN_FFN | image::FLAG_DENSE_BIAS;
    Case {
        architecture: "bert",
        spec,
        whole: vec![
            ("token_embd.weight", Tensor::Embed),
            ("token_embd_norm.weight", Tensor::EmbedNorm),
            ("token_embd_norm.bias", Tensor::EmbedNormBias),
            ("position_embd.weight", Tensor::Positions),
            ("token_types.weight", Tensor::TokenTypes),
        ],
        layer: [
            &BIASES[..],
            &[
                ("attn_q.weight", &[Tensor::Query]),
                ("attn_k.weight", &[Tensor::Key]),
                ("attn_v.weight", &[Tensor::Value]),
                ("attn_output.weight", &[Tensor::Output]),
                ("attn_output.bias", &[Tensor::OutputBias]),
                ("attn_output_norm.weight", &[Tensor::AttnNorm]),
                ("attn_output_norm.bias", &[Tensor::AttnNormBias]),
                ("ffn_up.weight", &[Tensor::Up]),
                ("ffn_up.bias", &[Tensor::UpBias]),
                ("ffn_down.weight", &[Tensor::Down]),
                ("ffn_down.bias", &[Tensor::DownBias]),
                ("layer_output_norm.weight", &[Tensor::FfnNorm]),
                ("layer_output_norm.bias", &[Tensor::FfnNormBias]),
            ],
        ]
        .concat(),
        keys: vec![("attention.layer_norm_epsilon", Meta::Float(1e-12))],
        flags: image::FLAG_BIAS
            | encoder
            | image::FLAG_POSITIONS
            | image::FLAG_TOKEN_TYPES
            | image::FLAG_EMBED_NORM,
    }
}

/// Files written by now.
static WRITTEN: AtomicU32 = AtomicU32::new(0);

/// Writes the file; returns its path.
fn written(case: Case) -> std::path::PathBuf {
    let meta = keys(case.architecture, &case.spec);
    written_with("family", meta, case)
}

/// The same with a name and keys before those of the case.
fn written_with(name: &str, mut meta: Vec<(String, Meta)>, case: Case) -> std::path::PathBuf {
    meta.extend(case.keys.into_iter().map(|(k, v)| (format!("{}.{k}", case.architecture), v)));
    let bytes = assemble(&case.spec, &meta, &parts(&case.spec, &case.whole, &case.layer), &[]);
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}.gguf", case.architecture));
    // Tests at the same time write the same files: each appears whole.
    let own = path.with_extension(WRITTEN.fetch_add(1, Ordering::Relaxed).to_string());
    std::fs::write(&own, bytes).expect("a temporary file");
    std::fs::rename(&own, &path).expect("the same folder");
    path
}

fn all() -> Vec<Case> {
    qwens().into_iter().chain([phi()]).chain(gemmas()).chain([bert()]).collect()
}

#[test]
fn shapes_images_and_flags_of_every_family() {
    let scheme = QuantScheme::named("fp16").expect("scheme");
    for case in all() {
        let (name, mut expected, flags) = (case.architecture, case.spec.clone(), case.flags);
        expected.name = format!("family-{name}");
        let model = GgufModel::open(&written(case)).expect(name);
        assert_eq!(model.spec, expected, "{name}");
        let (layout, image) =
            build_image(&expected, &scheme, &mut random_tensors(SEED, &expected)).expect(name);
        let read = model.layout().expect(name);
        assert_eq!(read, layout, "{name}");
        assert!(model.image(&read).expect(name) == image, "{name}: the images differ");
        let h: ImageHeader = layout.header;
        assert_eq!(h.flags, flags, "{name}");
        assert_eq!(model.weight_elements(), expected.params(), "{name}: parameters");
        assert_eq!(layout.tensors.iter().map(|t| t.bytes).sum::<u64>(), h.bytes, "{name}");
        let number = |bits: u64| f32::from_bits(u32::try_from(bits).expect("fp32"));
        if name == "phi3" {
            assert!((number(h.att_scale) - 0.0625).abs() < 1e-9);
        }
        if name == "gemma2" {
            assert_eq!((h.window, h.window_period, h.embed_scale), (32, 2, u64::from(8f32.to_bits())));
            assert_eq!(
                [h.attention_cap, h.logit_cap].map(number).map(f32::to_bits),
                [40f32, 20.0].map(f32::to_bits)
            );
        }
        if name == "bert" {
            assert_eq!((h.position_count, h.token_type_count, h.gate, h.head), (128, 2, h.up, h.bytes));
        }
    }
}

#[test]
fn every_decoder_runs_and_an_encoder_makes_no_tokens() {
    for case in all() {
        let name = case.architecture;
        assert_eq!(case.flags & !runtime::model::FLAGS, 0, "{name}");
        let encoder = case.flags & image::FLAG_ENCODER != 0;
        let path = written(case);
        let model = path.to_str().expect("UTF-8");
        let mut line = vec!["run", "--soc", "tiny", "--model", model, "--prefill", "5", "--json"];
        if encoder {
            let refused = presil(&[&line[..], &["--decode", "2"]].concat());
            assert!(refused.code == 3 && refused.err.contains("is an encoder"), "{}", refused.err);
        } else {
            line.extend(["--decode", "2"]);
        }
        let ran = presil(&line);
        assert_eq!(ran.code, 0, "{name}: {}", ran.err);
    }
}

const PROMPT: &str = "the end is near and on the other hand is 42 0123456789 98765432";
const MADE: usize = 12;

/// A run's record.
fn record(path: &Path, more: &[&str]) -> Value {
    let model = path.to_str().expect("UTF-8");
    let ran = presil(&[&["run", "--soc", "tiny", "--model", model, "--json"], more].concat());
    assert_eq!(ran.code, 0, "{more:?}: {}", ran.err);
    serde_json::from_str(&ran.out).expect("one JSON document")
}

/// Tokens and their log-probabilities by the reference transformer, keys visited as one block.
fn expected(spec: &ModelSpec, prompt: &[u32]) -> (Vec<u64>, Vec<f64>) {
    let scheme = QuantScheme::named("fp16").expect("scheme");
    let mut reference = Reference::new(spec, &scheme, &mut random_tensors(SEED, spec));
    let mut logits = prompt.iter().map(|t| reference.step(*t as usize, 512)).last().expect("a prompt");
    let (mut tokens, mut logprobs) = (Vec::new(), Vec::new());
    for _ in 0..MADE {
        let best = (0..logits.len()).fold(0, |best, i| if logits[i] > logits[best] { i } else { best });
        let sum: f64 = logits.iter().map(|l| (f64::from(*l) - f64::from(logits[best])).exp()).sum();
        tokens.push(best as u64);
        logprobs.push(-sum.ln());
        logits = reference.step(best, 512);
    }
    (tokens, logprobs)
}

#[test]
fn gemma_and_phi_say_what_the_reference_says_beyond_their_windows() {
    for case in gemmas().into_iter().chain([phi()]) {
        let (name, spec) = (case.architecture, case.spec.clone());
        let window = spec.extras.window.expect("a window").positions as usize;
        let mut meta = metadata(&spec, &Flaws { architecture: name, ..GOOD });
        let own: Vec<String> = case.keys.iter().map(|(k, _)| format!("{name}.{k}")).collect();
        meta.retain(|(k, _)| !own.contains(k));
        let path = written_with("talking", meta, case);
        let prompt =
            GgufModel::open(&path).expect(name).tokenizer().expect("one").encode(PROMPT).expect("text");
        assert!(prompt.len() + MADE > window + 4, "{name}: {} tokens", prompt.len());
        let (tokens, logprobs) = expected(&spec, &prompt);
        for cores in ["1", "2", "4"] {
            let cores = format!("npu.cores={cores}");
            let ran = record(&path, &["--prompt", PROMPT, "--decode", "12", "--set", &cores]);
            assert_eq!(ran["output"]["tokens"], serde_json::json!(tokens), "{name} {cores}");
            let given = ran["output"]["logprobs"].as_array().expect("a list");
            assert_eq!(given.len(), MADE);
            for (ours, theirs) in given.iter().zip(&logprobs) {
                let error = (ours.as_f64().expect("a number") - theirs).abs();
                assert!(error < 2e-3, "{name} {cores}: {ours} {theirs}");
            }
            let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("talking-{name}.json"));
            std::fs::write(&kept, ran.to_string()).expect("a file");
            let from = kept.to_str().expect("UTF-8");
            let shapes = record(&path, &["--shape-only", "--tokens-from", from, "--set", &cores]);
            for key in ["time", "cycles", "dram", "commands", "ops", "energy", "digest"] {
                assert_eq!(shapes[key], ran[key], "{name} {cores}: {key}");
            }
        }
    }
}
