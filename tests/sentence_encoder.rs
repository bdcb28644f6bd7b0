//! Sentence encoders end to end: files the test writes itself, vectors against a plain float transformer.

mod common;
#[allow(dead_code, reason = "only a part of the writer is needed here")]
mod gguf_writer;

use std::fs;
use std::path::{Path, PathBuf};

use common::presil;
use gguf_writer::{Meta, SEED, assemble, keys, parts, spec};
use ndarray::{Array1, Array2, Axis, s};
use serde_json::{Map, Value, json};
use traces::gguf::GgufModel;
use traces::image::{Tensor, TensorSource, random_tensors, tensors_of};
use traces::workload::{Encoder, Extras, Family, ModelSpec, Pooling, Rope, RopeLayout};

const PROMPT: &str = "The quick Dógs run, and the FOX is zzz?!";
const MEAN: Pooling = Pooling { first: false, as_it_is: false };

fn bert() -> ModelSpec {
    let plain = spec();
    ModelSpec {
        name: "tiny-bert".to_owned(),
        family: Family::Bert,
        kv_heads: 4,
        qkv_bias: true,
        tied_embedding: false,
        norm_eps: f64::from(1e-12f32),
        rope: Rope { layout: RopeLayout::Half, ..plain.rope },
        extras: Extras { encoder: Some(Encoder { token_types: 2 }), ..Extras::default() },
        ..plain
    }
}

/// Words, beginnings marked as GGUF does; the first five are special.
fn words() -> Vec<String> {
    let mut out: Vec<String> = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(str::to_owned).to_vec();
    out.extend(('a'..='y').map(|c| format!("▁{c}")));
    out.extend(('a'..='y').map(|c| c.to_string()));
    out.extend(["▁the", "▁quick", "▁dog", "▁run", "▁is", "▁fo", "▁,", "▁?", "▁and", "nd"].map(str::to_owned));
    out.extend((out.len()..272).map(|i| format!("▁unused{i}")));
    out
}

/// What [`PROMPT`] is: worked out by hand.
const PIECES: [&str; 15] = [
    "[CLS]", "▁the", "▁quick", "▁dog", "s", "▁run", "▁,", "▁and", "▁the", "▁fo", "x", "▁is", "[UNK]", "▁?",
    "[UNK]",
];

fn prompt_ids() -> Vec<usize> {
    let words = words();
    let ids = PIECES.iter().map(|p| words.iter().position(|w| w == p).expect("a word"));
    ids.chain([3]).collect()
}

const WHOLE: [(&str, &str, Tensor); 5] = [
    ("token_embd.weight", "embeddings.word_embeddings.weight", Tensor::Embed),
    ("token_embd_norm.weight", "embeddings.LayerNorm.weight", Tensor::EmbedNorm),
    ("token_embd_norm.bias", "embeddings.LayerNorm.bias", Tensor::EmbedNormBias),
    ("position_embd.weight", "embeddings.position_embeddings.weight", Tensor::Positions),
    ("token_types.weight", "embeddings.token_type_embeddings.weight", Tensor::TokenTypes),
];
const LAYER: [(&str, &str, &[Tensor]); 16] = [
    ("attn_q.weight", "attention.self.query.weight", &[Tensor::Query]),
    ("attn_k.weight", "attention.self.key.weight", &[Tensor::Key]),
    ("attn_v.weight", "attention.self.value.weight", &[Tensor::Value]),
    ("attn_q.bias", "attention.self.query.bias", &[Tensor::QueryBias]),
    ("attn_k.bias", "attention.self.key.bias", &[Tensor::KeyBias]),
    ("attn_v.bias", "attention.self.value.bias", &[Tensor::ValueBias]),
    ("attn_output.weight", "attention.output.dense.weight", &[Tensor::Output]),
    ("attn_output.bias", "attention.output.dense.bias", &[Tensor::OutputBias]),
    ("attn_output_norm.weight", "attention.output.LayerNorm.weight", &[Tensor::AttnNorm]),
    ("attn_output_norm.bias", "attention.output.LayerNorm.bias", &[Tensor::AttnNormBias]),
    ("ffn_up.weight", "intermediate.dense.weight", &[Tensor::Up]),
    ("ffn_up.bias", "intermediate.dense.bias", &[Tensor::UpBias]),
    ("ffn_down.weight", "output.dense.weight", &[Tensor::Down]),
    ("ffn_down.bias", "output.dense.bias", &[Tensor::DownBias]),
    ("layer_output_norm.weight", "output.LayerNorm.weight", &[Tensor::FfnNorm]),
    ("layer_output_norm.bias", "output.LayerNorm.bias", &[Tensor::FfnNormBias]),
];

/// A file; layers' matrices in the type of that code, if there is one.
fn gguf(name: &str, pooling: Option<u32>, code: Option<u32>) -> PathBuf {
    let s = bert();
    let mut meta = keys("bert", &s);
    meta.push(("bert.attention.layer_norm_epsilon".to_owned(), Meta::Float(1e-12)));
    meta.extend(pooling.map(|kind| ("bert.pooling_type".to_owned(), Meta::Number(kind))));
    let words = words();
    for (key, value) in [
        ("model", Meta::Text("bert".to_owned())),
        ("scores", Meta::Floats(vec![-1000.0; words.len()])),
        ("token_type", Meta::Integers((0..words.len()).map(|i| if i < 5 { 3 } else { 1 }).collect())),
        ("tokens", Meta::Texts(words)),
        ("unknown_token_id", Meta::Number(1)),
        ("cls_token_id", Meta::Number(2)),
        ("seperator_token_id", Meta::Number(3)),
    ] {
        meta.push((format!("tokenizer.ggml.{key}"), value));
    }
    let whole = WHOLE.map(|(name, _, tensor)| (name, tensor));
    let layer = LAYER.map(|(name, _, tensors)| (name, tensors));
    let parts = parts(&s, &whole, &layer);
    let matrix = |name: &str| name.starts_with("blk.") && name.ends_with(".weight") && !name.contains("norm");
    let types: Vec<(&str, u32)> = match code {
        Some(code) => {
            parts.iter().filter(|(name, _)| matrix(name)).map(|(name, _)| (name.as_str(), code)).collect()
        }
        None => Vec::new(),
    };
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.gguf"));
    fs::write(&path, assemble(&s, &meta, &parts, &types)).expect("a temporary file");
    path
}

fn tokenizer() -> Value {
    let name = |(i, word): (usize, String)| {
        let name = match word.strip_prefix('▁') {
            Some(start) => start.to_owned(),
            None if i < 5 => word,
            None => format!("##{word}"),
        };
        (name, json!(i))
    };
    let vocab: Map<String, Value> = words().into_iter().enumerate().map(name).collect();
    let special = |id: usize, content: &str| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
               "normalized": false, "special": true})
    };
    let added: Vec<Value> = words()[..5].iter().enumerate().map(|(i, w)| special(i, w)).collect();
    let piece = |name: &str| json!({"SpecialToken": {"id": name, "type_id": 0}});
    let text = |id: &str| json!({"Sequence": {"id": id, "type_id": 0}});
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
                       "strip_accents": null, "lowercase": true},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [piece("[CLS]"), text("A"), piece("[SEP]")],
            "pair": [piece("[CLS]"), text("A"), piece("[SEP]"), text("B"), piece("[SEP]")],
            "special_tokens": {
                "[CLS]": {"id": "[CLS]", "ids": [2], "tokens": ["[CLS]"]},
                "[SEP]": {"id": "[SEP]", "ids": [3], "tokens": ["[SEP]"]},
            },
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {"type": "WordPiece", "vocab": vocab, "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                  "max_input_chars_per_word": 100},
    })
}

/// A folder in fp32; `modules` are the files about pooling.
fn folder(name: &str, modules: &[(&str, Value)]) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(path.join("1_Pooling")).expect("a folder");
    let spec = bert();
    let (mut header, mut data) = (Map::new(), Vec::new());
    let mut source = random_tensors(SEED, &spec);
    for (tensor, layer) in tensors_of(&spec) {
        let whole = WHOLE.iter().find(|w| w.2 == tensor).map(|w| w.1.to_owned());
        let inner = LAYER.iter().find(|l| l.2[0] == tensor).map(|l| format!("encoder.layer.{layer}.{}", l.1));
        let (rows, cols) = tensor.shape(&spec);
        let shape = if rows == 1 { vec![cols] } else { vec![rows, cols] };
        let values = source.values(tensor, layer).expect("values");
        let start = data.len();
        data.extend(values.iter().flat_map(|v| v.to_le_bytes()));
        let entry = json!({"dtype": "F32", "shape": shape, "data_offsets": [start, data.len()]});
        header.insert(whole.or(inner).expect("a name"), entry);
    }
    let header = Value::from(header).to_string();
    let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat();
    fs::write(path.join("model.safetensors"), bytes).expect("a file");
    let config = json!({
        "architectures": ["BertModel"], "hidden_act": "gelu", "hidden_size": spec.hidden, "intermediate_size": spec.ffn,
        "layer_norm_eps": 1e-12, "max_position_embeddings": spec.max_position, "model_type": "bert",
        "num_attention_heads": spec.heads, "num_hidden_layers": spec.layers, "type_vocab_size": 2,
        "vocab_size": spec.vocab,
    });
    let usual = [("config.json", config), ("tokenizer.json", tokenizer())];
    for (name, value) in usual.iter().chain(modules) {
        fs::write(path.join(name), value.to_string()).expect("a file");
    }
    path
}

fn module(index: usize, name: &str, path: &str) -> Value {
    json!({"idx": index, "name": index.to_string(), "path": path, "type": format!("sentence_transformers.models.{name}")})
}

/// Files of a sentence encoder that pools by `mode`.
fn modules(mode: &str, normalize: bool) -> Vec<(&'static str, Value)> {
    let mut list = vec![module(0, "Transformer", ""), module(1, "Pooling", "1_Pooling")];
    if normalize {
        list.push(module(2, "Normalize", "2_Normalize"));
    }
    let mut settings = json!({"word_embedding_dimension": 64, "pooling_mode_cls_token": false,
        "pooling_mode_mean_tokens": false, "pooling_mode_max_tokens": false});
    settings[format!("pooling_mode_{mode}")] = json!(true);
    vec![("modules.json", Value::from(list)), ("1_Pooling/config.json", settings)]
}

/// The encoder as its paper has it, in double precision, from a source of weights.
fn reference(source: &mut impl TensorSource, tokens: &[usize], pooling: Pooling) -> Array1<f64> {
    let spec = bert();
    let mut matrix = |tensor: Tensor, layer: u32| {
        let values = source.values(tensor, layer).expect("values").into_iter().map(f64::from).collect();
        Array2::from_shape_vec(tensor.shape(&spec), values).expect("its shape")
    };
    let norm = |x: &Array2<f64>, gain: &Array2<f64>, bias: &Array2<f64>| {
        let mean = x.mean_axis(Axis(1)).expect("columns").insert_axis(Axis(1));
        let spread = x.var_axis(Axis(1), 0.0).mapv(|v| (v + 1e-12).sqrt()).insert_axis(Axis(1));
        (x - &mean) / &spread * gain + bias
    };
    let embed = matrix(Tensor::Embed, 0).select(Axis(0), tokens);
    let positions = matrix(Tensor::Positions, 0).slice_move(s![..tokens.len(), ..]);
    let x = embed + positions + matrix(Tensor::TokenTypes, 0).slice(s![..1, ..]);
    let mut x = norm(&x, &matrix(Tensor::EmbedNorm, 0), &matrix(Tensor::EmbedNormBias, 0));
    for l in 0..spec.layers {
        let mut dense =
            |x: &Array2<f64>, weight: Tensor, bias: Tensor| x.dot(&matrix(weight, l).t()) + matrix(bias, l);
        let q = dense(&x, Tensor::Query, Tensor::QueryBias);
        let k = dense(&x, Tensor::Key, Tensor::KeyBias);
        let v = dense(&x, Tensor::Value, Tensor::ValueBias);
        let mut attended = Array2::<f64>::zeros(q.raw_dim());
        let width = spec.head_dim as usize;
        for head in 0..spec.heads as usize {
            let of = |m: &Array2<f64>| m.slice(s![.., head * width..(head + 1) * width]).to_owned();
            let mut scores = of(&q).dot(&of(&k).t()) / f64::from(spec.head_dim).sqrt();
            for mut row in scores.rows_mut() {
                let most = row.fold(f64::MIN, |a, b| a.max(*b));
                row.mapv_inplace(|s| (s - most).exp());
                let sum = row.sum();
                row /= sum;
            }
            attended.slice_mut(s![.., head * width..(head + 1) * width]).assign(&scores.dot(&of(&v)));
        }
        let x1 = x + dense(&attended, Tensor::Output, Tensor::OutputBias);
        let x1 = norm(&x1, &matrix(Tensor::AttnNorm, l), &matrix(Tensor::AttnNormBias, l));
        let mut dense =
            |x: &Array2<f64>, weight: Tensor, bias: Tensor| x.dot(&matrix(weight, l).t()) + matrix(bias, l);
        let up = dense(&x1, Tensor::Up, Tensor::UpBias);
        let up = up.mapv(|v| 0.5 * v * (1.0 + libm::erf(v * std::f64::consts::FRAC_1_SQRT_2)));
        let x2 = x1 + dense(&up, Tensor::Down, Tensor::DownBias);
        x = norm(&x2, &matrix(Tensor::FfnNorm, l), &matrix(Tensor::FfnNormBias, l));
    }
    let vector = if pooling.first { x.row(0).to_owned() } else { x.mean_axis(Axis(0)).expect("rows") };
    let length = if pooling.as_it_is { 1.0 } else { vector.dot(&vector).sqrt() };
    vector / length
}

/// Cosine to the expected vector, and its length in parts of that one's.
fn likeness(path: &Path, extra: &[&str], expected: &Array1<f64>) -> (f64, f64) {
    let model = path.to_str().expect("UTF-8");
    let ran =
        presil(&[&["run", "--soc", "tiny", "--model", model, "--prompt", PROMPT, "--json"], extra].concat());
    assert_eq!(ran.code, 0, "{model} {extra:?}: {}", ran.err);
    let record: Value = serde_json::from_str(&ran.out).expect("JSON");
    assert_eq!(record["output"]["prompt_ids"], json!(prompt_ids()), "{model}");
    let values = record["output"]["embedding"].as_array().expect("a vector");
    let vector: Array1<f64> = values.iter().map(|v| v.as_f64().expect("a number")).collect();
    let lengths = [vector.dot(&vector).sqrt(), expected.dot(expected).sqrt()];
    (vector.dot(expected) / lengths[0] / lengths[1], lengths[0] / lengths[1])
}

#[test]
fn vectors_from_folders_are_a_float_transformers() {
    for (name, files, pooling) in [
        ("plain", vec![], MEAN),
        ("mean", modules("mean_tokens", true), MEAN),
        ("cls", modules("cls_token", true), Pooling { first: true, ..MEAN }),
        ("long-mean", modules("mean_tokens", false), Pooling { as_it_is: true, ..MEAN }),
        ("long-cls", modules("cls_token", false), Pooling { first: true, as_it_is: true }),
        (
            "newer",
            vec![
                (
                    "modules.json",
                    json!([module(0, "transformer.Transformer", ""), module(1, "Pooling", "1_Pooling")]),
                ),
                ("1_Pooling/config.json", json!({"pooling_mode": "cls"})),
            ],
            Pooling { first: true, as_it_is: true },
        ),
    ] {
        let path = folder(&format!("encoder-{name}"), &files);
        let expected = reference(&mut random_tensors(SEED, &bert()), &prompt_ids(), pooling);
        for (quant, least) in [("fp16", 0.9999), ("w8a8", 0.98)] {
            let (cosine, length) = likeness(&path, &["--quant", quant], &expected);
            assert!(cosine >= least, "{name} {quant}: {cosine}");
            assert!((length - 1.0).abs() < 0.05, "{name} {quant}: length {length}");
        }
        let (cosine, _) = likeness(&path, &["--set", "npu.cores=1"], &expected);
        assert!(cosine >= 0.9999, "{name}: {cosine}");
    }
}

#[test]
fn vectors_from_gguf_are_a_float_transformers() {
    let first = Pooling { first: true, ..MEAN };
    for (name, kind, pooling) in
        [("bert", None, MEAN), ("bert-mean", Some(1), MEAN), ("bert-cls", Some(2), first)]
    {
        let path = gguf(name, kind, None);
        let model = GgufModel::open(&path).expect("a good file");
        let expected = reference(&mut model.source(), &prompt_ids(), pooling);
        let (cosine, length) = likeness(&path, &[], &expected);
        assert!(cosine >= 0.9999 && (length - 1.0).abs() < 1e-3, "{name}: {cosine} {length}");
    }
    // Weights of eight bits, with activations in fp16 and in int8.
    let path = gguf("bert-q8", None, Some(8));
    let model = GgufModel::open(&path).expect("a good file");
    let expected = reference(&mut model.source(), &prompt_ids(), MEAN);
    for (quant, least) in [("gguf-q8_0", 0.999), ("w4a8-g32", 0.98)] {
        let (cosine, _) = likeness(&path, &["--quant", quant], &expected);
        assert!(cosine >= least, "{quant}: {cosine}");
    }
}

#[test]
fn poolings_that_are_not_modelled_name_file_and_key() {
    let with = |files: &[(&'static str, Value)]| [&modules("mean_tokens", true)[..], files].concat();
    let settings = "1_Pooling/config.json";
    for (name, files, parts) in [
        ("max", modules("max_tokens", true), [settings, "pooling_mode_max_tokens: is not supported"]),
        ("last", modules("lasttoken", true), [settings, "pooling_mode_lasttoken: is not supported"]),
        (
            "two",
            with(&[(settings, json!({"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": true}))]),
            [settings, "is on beside pooling_mode_mean_tokens"],
        ),
        ("none", with(&[(settings, json!({}))]), [settings, "no pooling is on"]),
        ("mode", with(&[(settings, json!({"pooling_mode": "max"}))]), [settings, "\"max\" is not supported"]),
        (
            "dense",
            with(&[("modules.json", json!([module(0, "Transformer", ""), module(1, "Dense", "1_Dense")]))]),
            ["modules.json: [1].type", "`sentence_transformers.models.Dense` is not supported there"],
        ),
        (
            "outside",
            with(&[("modules.json", json!([module(0, "Transformer", ""), module(1, "Pooling", "../x")]))]),
            ["modules.json: [1].path", "expected a folder's name"],
        ),
        (
            "bare",
            with(&[("modules.json", json!([module(0, "Transformer", "")]))]),
            ["modules.json", "has no Pooling"],
        ),
        ("text", with(&[("modules.json", json!({}))]), ["modules.json", "expected a list of modules"]),
    ] {
        let path = folder(&format!("encoder-not-{name}"), &files);
        let ran =
            presil(&["run", "--soc", "tiny", "--model", path.to_str().expect("UTF-8"), "--prompt", "x"]);
        assert_eq!(ran.code, 3, "{name}: {}", ran.err);
        // Messages are wrapped to the terminal's width.
        let said = ran.err.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(parts.iter().all(|part| said.contains(part)), "{name}: {said}");
    }
    for kind in [0, 3, 4] {
        let path = gguf(&format!("bert-pooling-{kind}"), Some(kind), None);
        let ran =
            presil(&["run", "--soc", "tiny", "--model", path.to_str().expect("UTF-8"), "--prompt", "x"]);
        let part =
            format!("bert.pooling_type: expected 1 (the mean) or 2 (the first token's vector), found {kind}");
        let said = ran.err.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(ran.code == 3 && said.contains(&part), "{}: {said}", ran.code);
    }
}
