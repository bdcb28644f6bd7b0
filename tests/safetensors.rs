//! Models as folders of safetensors files the test writes itself, and folders that are not what they should be.

mod common;
#[allow(dead_code, reason = "only a part of the writer is needed here")]
mod gguf_writer;

use std::fs;
use std::path::{Path, PathBuf};

use common::presil;
use gguf_writer::{GOOD, MERGES, SEED, file, spec, tokens};
use half::{bf16, f16};
use serde_json::{Map, Value, json};
use traces::image::{RandomTensors, Tensor, TensorSource, build_image, random_tensors, tensors_of};
use traces::safetensors::SafetensorsModel;
use traces::workload::{Extras, Family, ModelSpec, QuantScheme, Rope, RopeLayout, Window, WorkloadError};

const PROMPT: &str = "the end is 42, señor";

/// The writer's model, halves rotated.
fn halves() -> ModelSpec {
    let s = spec();
    ModelSpec { rope: Rope { layout: RopeLayout::Half, ..s.rope }, ..s }
}

fn name(tensor: Tensor, layer: u32) -> String {
    let part = match tensor {
        Tensor::Embed => return "model.embed_tokens.weight".to_owned(),
        Tensor::FinalNorm => return "model.norm.weight".to_owned(),
        Tensor::AttnNorm => "input_layernorm",
        Tensor::FfnNorm => "post_attention_layernorm",
        Tensor::Query => "self_attn.q_proj",
        Tensor::Key => "self_attn.k_proj",
        Tensor::Value => "self_attn.v_proj",
        Tensor::Output => "self_attn.o_proj",
        Tensor::Gate => "mlp.gate_proj",
        Tensor::Up => "mlp.up_proj",
        Tensor::Down => "mlp.down_proj",
        other => unreachable!("{other:?}"),
    };
    format!("model.layers.{layer}.{part}.weight")
}

/// Rows of every head in the order halves are rotated in: a converter to GGUF does the reverse.
fn unrotated(values: &[f32], cols: usize, head: usize) -> Vec<f32> {
    let rows: Vec<&[f32]> = values.chunks_exact(cols).collect();
    let order = |j: usize| if j < head / 2 { 2 * j } else { 2 * (j - head / 2) + 1 };
    (0..rows.len()).flat_map(|r| rows[r / head * head + order(r % head)].to_vec()).collect()
}

fn encoded(values: &[f32], dtype: &str) -> Vec<u8> {
    match dtype {
        "F32" => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        "F16" => values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect(),
        _ => values.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect(),
    }
}

/// One file of tensors: name, type, dimensions, data.
fn shard(tensors: &[(String, &str, Vec<usize>, Vec<u8>)]) -> Vec<u8> {
    let (mut header, mut data) = (Map::new(), Vec::new());
    for (name, dtype, shape, bytes) in tensors {
        let end = data.len() + bytes.len();
        header
            .insert(name.clone(), json!({"dtype": dtype, "shape": shape, "data_offsets": [data.len(), end]}));
        data.extend(bytes);
    }
    let header = Value::from(header).to_string();
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat()
}

fn config() -> Value {
    let s = spec();
    json!({
        "architectures": ["LlamaForCausalLM"], "hidden_size": s.hidden, "intermediate_size": s.ffn,
        "num_hidden_layers": s.layers, "num_attention_heads": s.heads, "num_key_value_heads": s.kv_heads,
        "vocab_size": s.vocab, "rms_norm_eps": s.norm_eps, "rope_theta": 10_000.0, "tie_word_embeddings": true,
        "max_position_embeddings": s.max_position, "hidden_act": "silu",
    })
}

/// The GGUF file's vocabulary as Hugging Face writes it.
fn tokenizer() -> Value {
    let vocab: Map<String, Value> = tokens().into_iter().zip(0u32..).map(|(t, i)| (t, json!(i))).collect();
    let merges: Vec<Value> = MERGES.iter().map(|m| json!(m.split(' ').collect::<Vec<_>>())).collect();
    let special = |id: u32, content: &str| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
               "normalized": false, "special": true})
    };
    let bytes =
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    let start = json!({"SpecialToken": {"id": "<|start|>", "type_id": 0}});
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [special(0, "<|start|>"), special(1, "<|end|>")],
        "normalizer": null,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": true}, bytes]},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [start, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [start, {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": {"<|start|>": {"id": "<|start|>", "ids": [0], "tokens": ["<|start|>"]}},
        },
        "decoder": bytes,
        "model": {"type": "BPE", "vocab": vocab, "merges": merges, "fuse_unk": false, "byte_fallback": false},
    })
}

/// A folder in two files, with the same model as the GGUF writer's. `dtype` is that of matrices.
fn folder(called: &str, dtype: &'static str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(called);
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).expect("a folder");
    let (s, mut shards, mut map) = (spec(), [Vec::new(), Vec::new()], Map::new());
    let mut source = random_tensors(SEED, &s);
    for (tensor, layer) in tensors_of(&s) {
        let (rows, cols) = tensor.shape(&s);
        let mut values = source.values(tensor, layer).expect("values");
        if matches!(tensor, Tensor::Query | Tensor::Key) {
            values = unrotated(&values, cols, s.head_dim as usize);
        }
        let dtype = if rows == 1 { "F32" } else { dtype };
        let shape = if rows == 1 { vec![cols] } else { vec![rows, cols] };
        map.insert(name(tensor, layer), json!(format!("part-{}.safetensors", layer % 2)));
        shards[layer as usize % 2].push((name(tensor, layer), dtype, shape, encoded(&values, dtype)));
    }
    for (i, tensors) in shards.iter().enumerate() {
        fs::write(path.join(format!("part-{i}.safetensors")), shard(tensors)).expect("a file");
    }
    let write = |name: &str, value: &Value| fs::write(path.join(name), value.to_string()).expect("a file");
    write("config.json", &config());
    write("tokenizer.json", &tokenizer());
    write(
        "tokenizer_config.json",
        &json!({"bos_token": "<|start|>", "eos_token": {"content": "<|end|>"},
                                           "chat_template": "{{ messages[0].content }}"}),
    );
    write("model.safetensors.index.json", &json!({"metadata": {}, "weight_map": map}));
    path
}

/// Random weights as a file of a narrower type has them.
struct Narrow(RandomTensors, &'static str);

impl TensorSource for Narrow {
    fn values(&mut self, tensor: Tensor, layer: u32) -> Result<Vec<f32>, WorkloadError> {
        let mut values = self.0.values(tensor, layer)?;
        let s = spec();
        let (rows, cols) = tensor.shape(&s);
        if matches!(tensor, Tensor::Query | Tensor::Key) {
            values = unrotated(&values, cols, s.head_dim as usize);
        }
        if rows > 1 {
            for v in &mut values {
                *v = match self.1 {
                    "F16" => f16::from_f32(*v).to_f32(),
                    "BF16" => bf16::from_f32(*v).to_f32(),
                    _ => *v,
                };
            }
        }
        Ok(values)
    }
}

#[test]
fn images_are_the_files_weights_in_every_type_and_scheme() {
    for dtype in ["F32", "F16", "BF16"] {
        let path = folder(&format!("st-{dtype}"), dtype);
        let model = SafetensorsModel::open(&path).expect("a good folder");
        assert_eq!(model.spec, ModelSpec { name: format!("st-{dtype}"), ..halves() });
        assert_eq!(model.weight_elements(), spec().params());
        for scheme in QuantScheme::ALL {
            let mut source = Narrow(random_tensors(SEED, &spec()), dtype);
            let (layout, image) = build_image(&halves(), &scheme, &mut source).expect("image");
            assert!(model.image(&layout, &scheme).expect("weights") == image, "{dtype} {}", scheme.name);
        }
    }
}

/// Gemma 3 in small.
fn gemma() -> ModelSpec {
    let window = Some(Window { positions: 24, period: 6, local_theta: Some(10_000.0) });
    let extras =
        Extras { embed_scale: Some(8.0), window, post_norms: true, gate_gelu: true, ..Extras::default() };
    ModelSpec { family: Family::Gemma3, name: "st-gemma".to_owned(), qk_norm: true, extras, ..halves() }
}

const fn is_norm(tensor: Tensor) -> bool {
    matches!(
        tensor,
        Tensor::AttnNorm
            | Tensor::FfnNorm
            | Tensor::PostAttnNorm
            | Tensor::PostFfnNorm
            | Tensor::FinalNorm
            | Tensor::QueryNorm
            | Tensor::KeyNorm
    )
}

/// Random weights whose norms went through a file that holds them less one.
struct LessOne(RandomTensors);

impl TensorSource for LessOne {
    fn values(&mut self, tensor: Tensor, layer: u32) -> Result<Vec<f32>, WorkloadError> {
        let mut values = self.0.values(tensor, layer)?;
        if is_norm(tensor) {
            values.iter_mut().for_each(|v| *v = (*v - 1.0) + 1.0);
        }
        Ok(values)
    }
}

#[test]
fn gemmas_norms_are_stored_less_one() {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("st-gemma");
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).expect("a folder");
    let s = gemma();
    let called = |tensor: Tensor, layer: u32| {
        let part = match tensor {
            Tensor::FfnNorm => "pre_feedforward_layernorm",
            Tensor::PostAttnNorm => "post_attention_layernorm",
            Tensor::PostFfnNorm => "post_feedforward_layernorm",
            Tensor::QueryNorm => "self_attn.q_norm",
            Tensor::KeyNorm => "self_attn.k_norm",
            other => return name(other, layer),
        };
        format!("model.layers.{layer}.{part}.weight")
    };
    let (mut source, mut tensors) = (random_tensors(SEED, &s), Vec::new());
    for (tensor, layer) in tensors_of(&s) {
        let (rows, cols) = tensor.shape(&s);
        let mut values = source.values(tensor, layer).expect("values");
        if is_norm(tensor) {
            values.iter_mut().for_each(|v| *v -= 1.0);
        }
        let shape = if rows == 1 { vec![cols] } else { vec![rows, cols] };
        tensors.push((called(tensor, layer), "F32", shape, encoded(&values, "F32")));
    }
    fs::write(path.join("model.safetensors"), shard(&tensors)).expect("a file");
    let mut settings = config();
    for (key, value) in [
        ("architectures", json!(["Gemma3ForCausalLM"])),
        ("hidden_activation", json!("gelu_pytorch_tanh")),
        ("head_dim", json!(s.head_dim)),
        ("query_pre_attn_scalar", json!(s.head_dim)),
        ("sliding_window", json!(24)),
    ] {
        settings[key] = value;
    }
    fs::write(path.join("config.json"), settings.to_string()).expect("a file");
    let model = SafetensorsModel::open(&path).expect("a good folder");
    assert_eq!(model.spec, s);
    let scheme = QuantScheme::named("w4a16-g128").expect("scheme");
    let (layout, image) = build_image(&s, &scheme, &mut LessOne(random_tensors(SEED, &s))).expect("image");
    assert!(model.image(&layout, &scheme).expect("weights") == image, "the images differ");
}

#[test]
fn a_folder_says_what_the_same_model_in_gguf_says() {
    let path = folder("st-run", "F16");
    let gguf = Path::new(env!("CARGO_TARGET_TMPDIR")).join("st-same.gguf");
    fs::write(&gguf, file(&GOOD)).expect("a file");
    let output = |model: &Path| {
        let model = model.to_str().expect("UTF-8");
        let ran = presil(&[
            "run", "--soc", "tiny", "--model", model, "--prompt", PROMPT, "--decode", "10", "--json",
        ]);
        assert_eq!(ran.code, 0, "{}", ran.err);
        serde_json::from_str::<Value>(&ran.out).expect("JSON")["output"].clone()
    };
    let (ours, theirs) = (output(&path), output(&gguf));
    for key in ["tokens", "text", "prompt_ids"] {
        assert_eq!(ours[key], theirs[key], "{key}");
    }
    // Halves add up in another order than neighbours.
    let logprobs = |o: &Value| o["logprobs"].as_array().expect("a list").clone();
    for (a, b) in logprobs(&ours).iter().zip(&logprobs(&theirs)) {
        assert!((a.as_f64().expect("a number") - b.as_f64().expect("a number")).abs() < 2e-3, "{a} {b}");
    }
    let model = path.to_str().expect("UTF-8");
    let ran = presil(&[
        "run", "--soc", "tiny", "--model", model, "--prompt", PROMPT, "--decode", "4", "--quant", "w8a16",
        "--json",
    ]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let record: Value = serde_json::from_str(&ran.out).expect("JSON");
    assert!(record["model"]["quant"] == "w8a16" && record["output"]["tokens"][0].is_u64());
    // Without a prompt a folder is its shape.
    let ran =
        presil(&["run", "--soc", "tiny", "--model", model, "--prefill", "9", "--decode", "2", "--json"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
}

/// What a folder has wrong: name, change, what the message has.
type Flaw = (&'static str, fn(&Path), &'static str);

#[test]
fn folders_that_are_not_what_they_should_be_exit_3_and_say_where() {
    fn index(path: &Path, change: impl Fn(&mut Map<String, Value>)) {
        let file = path.join("model.safetensors.index.json");
        let mut index: Value = serde_json::from_slice(&fs::read(&file).expect("a file")).expect("JSON");
        change(index["weight_map"].as_object_mut().expect("an object"));
        fs::write(file, index.to_string()).expect("a file");
    }
    let flaws: [Flaw; 10] = [
        (
            "gone",
            |p| fs::remove_file(p.join("part-1.safetensors")).expect("there"),
            "part-1.safetensors: cannot be read",
        ),
        (
            "outside",
            |p| index(p, |m| m["model.norm.weight"] = json!("../x")),
            "model.norm.weight: expected a file's name",
        ),
        (
            "moved",
            |p| index(p, |m| m["model.norm.weight"] = json!("part-1.safetensors")),
            "the index says it is in part-1",
        ),
        (
            "promised",
            |p| index(p, |m| drop(m.insert("x".to_owned(), json!("part-0.safetensors")))),
            "x: is not there",
        ),
        (
            "cut",
            |p| {
                let file = p.join("part-0.safetensors");
                let bytes = fs::read(&file).expect("there");
                fs::write(&file, &bytes[..bytes.len() - 1]).expect("written");
            },
            "data_offsets: expected a range within",
        ),
        (
            "shape",
            |p| {
                let text = fs::read_to_string(p.join("config.json")).expect("there");
                fs::write(
                    p.join("config.json"),
                    text.replace("\"intermediate_size\":192", "\"intermediate_size\":208"),
                )
                .expect("written");
            },
            "expected dimensions [208, 64], found [192, 64]",
        ),
        (
            "layers",
            |p| {
                let text = fs::read_to_string(p.join("config.json")).expect("there");
                fs::write(
                    p.join("config.json"),
                    text.replace("\"num_hidden_layers\":2", "\"num_hidden_layers\":1"),
                )
                .expect("written");
            },
            "is no tensor this architecture is known to have",
        ),
        (
            "words",
            |p| {
                let text = fs::read_to_string(p.join("tokenizer.json")).expect("there");
                fs::write(p.join("tokenizer.json"), text.replace(":271", ":272")).expect("written");
            },
            "has token 272, but the embedding has 272 rows",
        ),
        (
            "mute",
            |p| fs::remove_file(p.join("tokenizer.json")).expect("there"),
            "tokenizer.json: cannot be read",
        ),
        (
            "tongue",
            |p| fs::write(p.join("tokenizer.json"), "{}").expect("written"),
            "tokenizer.json: does not build",
        ),
    ];
    for (name, flaw, part) in flaws {
        let path = folder(&format!("st-flaw-{name}"), "F16");
        flaw(&path);
        let ran =
            presil(&["run", "--soc", "tiny", "--model", path.to_str().expect("UTF-8"), "--prompt", "x"]);
        assert!(ran.code == 3 && ran.err.contains(part), "{name}: {} {}", ran.code, ran.err);
    }
}
