//! Families of models in GGUF files: shapes, fused and extra tensors, flags of the image, and a firmware that refuses.

mod common;
#[allow(dead_code, reason = "only a part of the writer is needed here")]
mod gguf_writer;

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use common::presil;
use gguf_writer::{LLAMA, Meta, SEED, assemble, keys, parts, spec};
use isa::image::{self, ImageHeader};
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
    let extras = Extras { attention_scale: Some(0.25 * 0.25), ..Extras::default() };
    let spec = ModelSpec { max_position: 64, extras, tied_embedding: false, ..base(Family::Phi3) };
    let mut case = decoder("phi3", spec);
    case.whole.push(("output.weight", Tensor::Head));
    case.layer
        .retain(|(n, _)| !["attn_q", "attn_k", "attn_v", "ffn_gate", "ffn_up"].contains(&&n[..n.len() - 7]));
    case.layer.push(("attn_qkv.weight", &[Tensor::Query, Tensor::Key, Tensor::Value]));
    case.layer.push(("ffn_up.weight", &[Tensor::Gate, Tensor::Up]));
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
    let spec = ModelSpec { extras: extras(window, None), qk_norm: true, ..base(Family::Gemma3) };
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
    let mut meta = keys(case.architecture, &case.spec);
    meta.extend(case.keys.into_iter().map(|(k, v)| (format!("{}.{k}", case.architecture), v)));
    let bytes = assemble(&case.spec, &meta, &parts(&case.spec, &case.whole, &case.layer), &[]);
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("family-{}.gguf", case.architecture));
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
fn what_the_firmware_does_not_compute_it_refuses() {
    let known = runtime::model::FLAGS;
    for case in all() {
        let (name, unknown) = (case.architecture, case.flags & !known);
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
        if unknown == 0 {
            assert_eq!(ran.code, 0, "{name}: {}", ran.err);
        } else {
            let flags = format!("{unknown:#x}");
            assert!(ran.code == 4 && ran.err.contains("does not compute"), "{name}: {}", ran.err);
            assert!(ran.err.contains(&flags), "{name}: {}", ran.err);
        }
    }
}
