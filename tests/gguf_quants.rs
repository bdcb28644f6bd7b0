//! Weights in every type a GGUF file stores them in, each computed as it is stored.

mod common;
#[allow(dead_code, reason = "only a part of the writer is needed here")]
mod gguf_writer;
#[allow(dead_code, reason = "only a part of what the functional tests share is needed here")]
mod support;

use std::path::{Path, PathBuf};

use common::presil;
use gguf_writer::{GOOD, LLAMA, assemble, file, metadata, parts, spec};
use serde_json::Value;
use support::machine::{Machine, Sampled, Shape};
use support::reference::Reference;
use traces::gguf::GgufModel;
use traces::image::Tensor;
use traces::workload::{ModelSpec, QuantScheme};

/// Type codes, and what a file of each is called.
const TYPES: [(u32, &str); 8] = [
    (2, "gguf-q4_0"),
    (3, "gguf-q4_1"),
    (6, "gguf-q5_0"),
    (7, "gguf-q5_1"),
    (8, "gguf-q8_0"),
    (12, "gguf-q4_k"),
    (13, "gguf-q5_k"),
    (14, "gguf-q6_k"),
];
/// Files whose layers differ: the scheme's name, types by name, kinds of layers, elements of a block of activations.
struct Mix {
    name: &'static str,
    types: &'static [(&'static str, u32)],
    kinds: usize,
    block: u32,
}

const MIXES: [Mix; 4] = [
    // As llama.cpp mixes them: some layers' values and down matrix wider than the rest, the head wider still.
    Mix {
        name: "gguf-q4_k",
        types: &[
            ("weight", 12),
            ("norm.weight", 0),
            ("blk.1.attn_v.weight", 14),
            ("blk.1.ffn_down.weight", 14),
            ("blk.3.attn_v.weight", 14),
            ("blk.3.ffn_down.weight", 14),
            ("attn_output.weight", 13),
            ("token_embd.weight", 8),
        ],
        kinds: 2,
        block: 32,
    },
    // Queries unlike keys, and three kinds in no order.
    Mix {
        name: "gguf-q4_1",
        types: &[
            ("weight", 3),
            ("norm.weight", 0),
            ("blk.0.attn_v.weight", 14),
            ("blk.1.ffn_gate.weight", 8),
            ("blk.2.attn_q.weight", 12),
            ("blk.2.attn_k.weight", 14),
            ("blk.3.attn_v.weight", 14),
            ("attn_output.weight", 6),
        ],
        kinds: 3,
        block: 16,
    },
    // A layer of floats and one of codes beside floats.
    Mix {
        name: "gguf-q8_0",
        types: &[
            ("weight", 8),
            ("norm.weight", 0),
            ("blk.1.attn_q.weight", 1),
            ("blk.1.attn_k.weight", 1),
            ("blk.1.attn_v.weight", 1),
            ("blk.1.ffn_down.weight", 1),
            ("blk.2.attn_k.weight", 1),
        ],
        kinds: 3,
        block: 0,
    },
    // Heads narrower than a panel: values are stored as queries and keys are.
    Mix {
        name: "gguf-q4_k",
        types: &[
            ("weight", 12),
            ("norm.weight", 0),
            ("blk.1.attn_v.weight", 14),
            ("blk.2.ffn_up.weight", 14),
        ],
        kinds: 3,
        block: 16,
    },
];

/// The shape of a mix's file.
fn mixed(i: usize) -> ModelSpec {
    let s = ModelSpec { layers: 4, ..wide() };
    if i == 3 { ModelSpec { heads: 8, kv_heads: 4, head_dim: 32, vocab: 320, ..s } } else { s }
}

/// A file whose matrices are wide enough for every type: `types` by their layer names, or with the layer.
fn quantised(s: &ModelSpec, types: &[(&str, u32)]) -> Vec<u8> {
    let whole = [("token_embd.weight", Tensor::Embed), ("output_norm.weight", Tensor::FinalNorm)];
    let parts = parts(s, &whole, &LLAMA);
    let code = |name: &str| types.iter().rev().find(|(n, _)| name.ends_with(n)).map(|(_, code)| *code);
    let each = parts.iter().filter_map(|(name, _)| Some((name.as_str(), code(name)?)));
    // What is not named is fp16.
    let each: Vec<(&str, u32)> = each.filter(|(_, code)| *code != 1).collect();
    assemble(s, &metadata(s, &GOOD), &parts, &each)
}

/// The shape of [`quantised`] files: every row is whole superblocks.
fn wide() -> ModelSpec {
    ModelSpec { hidden: 256, head_dim: 64, ffn: 512, ..spec() }
}

fn written(name: &str, bytes: &[u8]) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, bytes).expect("a temporary file");
    path
}

/// All matrices of one type; norms stay fp32.
fn uniform(code: u32) -> [(&'static str, u32); 2] {
    [("weight", code), ("norm.weight", 0)]
}

/// A file of each type and of each mix; tests run at the same time, so each has its own.
fn files(test: &str) -> Vec<(String, PathBuf)> {
    let one = |(code, name): &(u32, &str)| {
        ((*name).to_owned(), written(&format!("{test}-{name}.gguf"), &quantised(&wide(), &uniform(*code))))
    };
    let mut out: Vec<_> = TYPES.iter().map(one).collect();
    out.extend(MIXES.iter().enumerate().map(|(i, mix)| {
        (mix.name.to_owned(), written(&format!("{test}-mixed{i}.gguf"), &quantised(&mixed(i), mix.types)))
    }));
    out
}

const PROMPT: usize = 11;
const MADE: usize = 3;

fn generate(model: &GgufModel, scheme: &QuantScheme, cores: u32, scratchpad: u64) -> Vec<Sampled> {
    let layout = model.layout_as(scheme, 0).expect("a layout");
    let image = model.image_as(&layout, scheme).expect("weights");
    let shape = Shape {
        cores,
        scratchpad,
        accumulator: 8 << 10,
        channels: 2,
        chunk: 8,
        positions: 64,
        order: 1,
        kv_bits: 16,
        pages: Shape::usual(cores).pages,
    };
    let mut machine = Machine::new(&shape, image);
    let prompt: Vec<usize> = (0..PROMPT).map(|i| (i * 37 + 11) % 272).collect();
    let blocks = machine.blocks(PROMPT, MADE);
    let made = machine.generate(&prompt, MADE);
    assert_eq!(machine.spilled, scratchpad < 1 << 20, "{}: {scratchpad} bytes", scheme.name);
    if scheme.activation_block > 0 {
        // The same by the transformer that knows nothing of images.
        let mut reference = Reference::new(&model.spec, scheme, &mut model.source());
        let mut blocks = blocks.into_iter();
        let mut step = |token| reference.step(token, blocks.next().expect("a block a position")).to_vec();
        let mut logits = Vec::new();
        for token in prompt {
            logits = step(token);
        }
        for (i, got) in made.iter().enumerate() {
            assert_eq!(bits(&logits), bits(&got.logits), "{}: token {i}", scheme.name);
            if i + 1 < MADE {
                logits = step(got.token);
            }
        }
    }
    made
}

fn bits(logits: &[f32]) -> Vec<u32> {
    logits.iter().map(|l| l.to_bits()).collect()
}

#[test]
fn stored_weights_give_the_bits_of_weights_decoded_beforehand() {
    for (name, path) in files("stored") {
        let model = GgufModel::open(&path).expect("a good file");
        assert_eq!(model.scheme.name, name);
        let wide = model.scheme_named("fp16").expect("a scheme");
        let expected = generate(&model, &wide, 1, 1 << 20);
        let spread = expected[0].logits.iter().fold(0.0f32, |m, l| m.max(l.abs()));
        assert!((0.1..1e3).contains(&spread), "{name}: logits up to {spread}");
        for (cores, scratchpad) in [(1, 1 << 20), (3, 1 << 20), (2, 64 << 10)] {
            for (ours, theirs) in generate(&model, &model.scheme, cores, scratchpad).iter().zip(&expected) {
                assert_eq!((ours.token, bits(&ours.logits)), (theirs.token, bits(&theirs.logits)), "{name}");
            }
        }
    }
}

/// Hundredths of a bit a weight of a type takes in the image.
fn stored_bits(code: u32) -> u64 {
    match code {
        2 => 450,
        3 => 500,
        6 | 8 => 850,
        7 => 900,
        12 => 600,
        13 | 14 => 1000,
        _ => 1600,
    }
}

#[test]
fn every_layers_matrices_take_what_their_own_types_take() {
    for (i, mix) in MIXES.iter().enumerate() {
        let s = mixed(i);
        let path = written(&format!("bytes{i}.gguf"), &quantised(&s, mix.types));
        let model = GgufModel::open(&path).expect("a good file");
        let layout = model.layout().expect("a layout");
        assert_eq!((model.scheme.kinds().count(), layout.kinds.len()), (mix.kinds, mix.kinds));
        let code = |layer: u32, name: &str| {
            let name = format!("blk.{layer}.{name}.weight");
            mix.types.iter().rev().find(|(n, _)| name.ends_with(n)).map_or(1, |(_, code)| *code)
        };
        let mut wanted = 0;
        for layer in 0..s.layers {
            let bits = |name, tensor: Tensor| {
                let (rows, cols) = tensor.shape(&s);
                stored_bits(code(layer, name)) * (rows * cols) as u64
            };
            let each = ["attn_q", "attn_k", "attn_v"].map(|name| code(layer, name));
            // Queries unlike keys, and values where heads are narrow, are stored as what holds all of them.
            let joined = |a: u32, b: u32| match (a, b) {
                _ if a == b => stored_bits(a),
                (1, _) | (_, 1) => 1600,
                // int8 in groups of 16 with fp32 scales and minima.
                _ => 1200,
            };
            let of = |tensor: Tensor| (tensor.shape(&s).0 * tensor.shape(&s).1) as u64;
            let (q, k, v) = (of(Tensor::Query), of(Tensor::Key), of(Tensor::Value));
            wanted += if i == 3 {
                joined(each[0], each[2]) * (q + k + v)
            } else {
                joined(each[0], each[1]) * (q + k) + stored_bits(each[2]) * v
            };
            wanted += bits("attn_output", Tensor::Output) + bits("ffn_gate", Tensor::Gate);
            wanted += bits("ffn_up", Tensor::Up) + bits("ffn_down", Tensor::Down);
        }
        let matrices = ["qkv", "value", "out", "gate", "up", "down"];
        let took: u64 = layout.tensors.iter().filter(|t| matrices.contains(&t.name)).map(|t| t.bytes).sum();
        assert_eq!(took * 800, wanted, "mix {i}");
        // What a run is told it reads: the head too.
        let head = layout.tensors.iter().find(|t| t.name == "head").expect("a head").bytes;
        assert_eq!(model.scheme.weight_bytes_per_token(&s), took + head, "mix {i}");
    }
}

#[test]
fn activations_in_blocks_meet_every_type() {
    for (i, (name, path)) in files("blocks").into_iter().enumerate() {
        let model = GgufModel::open(&path).expect("a good file");
        let block = i.checked_sub(TYPES.len()).map_or(32, |i| MIXES[i].block);
        if block == 0 {
            let refused = model.scheme_named("w4a8-g32").expect_err("floats").to_string();
            assert!(refused.contains("has matrices of floats"), "{refused}");
            continue;
        }
        let scheme = model.scheme_named("w4a8-g32").expect("a scheme");
        assert_eq!((scheme.name, scheme.activation_block), (&*format!("{name}-a8-g{block}"), block));
        for (cores, scratchpad) in [(1, 1 << 20), (3, 64 << 10)] {
            assert_eq!(generate(&model, &scheme, cores, scratchpad).len(), MADE);
        }
    }
}

fn record(arguments: &[&str]) -> Value {
    let ran = presil(arguments);
    assert_eq!(ran.code, 0, "{arguments:?}: {}", ran.err);
    serde_json::from_str(&ran.out).expect("one JSON document")
}

#[test]
fn a_token_reads_what_the_file_stores_and_values_change_no_cycle() {
    let path = written("reads.gguf", &quantised(&wide(), &uniform(3)));
    let path = path.to_str().expect("UTF-8");
    let run = ["run", "--soc", "tiny", "--model", path, "--prompt", "the end", "--decode", "6", "--json"];
    let with = |more: &[&str]| record(&[&run[..], more].concat());
    let (own, half, blocks) = (with(&[]), with(&["--quant", "fp16"]), with(&["--quant", "w4a8-g32"]));
    assert_eq!(own["output"]["logprobs"], half["output"]["logprobs"]);
    assert_eq!(own["model"]["quant"], "gguf-q4_1");
    assert_eq!(blocks["model"]["quant"], "gguf-q4_1-a8-g32");
    let bytes = |r: &Value| r["dram"]["decode_read_bytes_per_token"].as_f64().expect("a number");
    // 5 bits a weight instead of 16, and the same norms, cache and commands.
    assert!(bytes(&own) * 2.0 < bytes(&half), "{} {}", bytes(&own), bytes(&half));
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join("reads-run.json");
    for (scheme, functional) in [("gguf-q4_1", &own), ("w4a8-g32", &blocks)] {
        std::fs::write(&kept, functional.to_string()).expect("a temporary file");
        let from = kept.to_str().expect("UTF-8");
        let shapes = record(&[
            "run",
            "--soc",
            "tiny",
            "--model",
            path,
            "--tokens-from",
            from,
            "--quant",
            scheme,
            "--json",
        ]);
        assert_eq!(shapes["cycles"], functional["cycles"], "{scheme}");
    }
}

#[test]
fn a_token_reads_each_layer_as_it_is_stored_and_shapes_know_the_kinds() {
    let tokens = ["run", "--soc", "tiny", "--prompt", "the end", "--decode", "6", "--json", "--model"];
    let mix = &MIXES[0];
    let files = [("kinds.gguf", mix.types), ("narrow.gguf", &uniform(12)[..])];
    let runs = files.map(|(name, types)| {
        let path = written(name, &quantised(&mixed(0), types));
        let layout = GgufModel::open(&path).expect("a good file").layout().expect("a layout");
        let read = ["qkv", "value", "out", "gate", "up", "down", "head"];
        let bytes: u64 = layout.tensors.iter().filter(|t| read.contains(&t.name)).map(|t| t.bytes).sum();
        let path = path.to_str().expect("UTF-8").to_owned();
        (record(&[&tokens[..], &[&path]].concat()), u32::try_from(bytes).expect("small"), path)
    });
    let [(mixed, wide, path), (narrow, less, _)] = &runs;
    // The prompt is one chunk: it and five more passes read every matrix once. (Lists are longer too, where slots hold
    // fewer rows of the wider matrices.)
    let bytes = |r: &Value| r["dram"]["traffic"]["weights"]["read_bytes"].as_u64().expect("a number");
    assert_eq!(bytes(mixed) - bytes(narrow), 6 * u64::from(wide - less));
    let half = record(&[&tokens[..], &[path, "--quant", "fp16"]].concat());
    assert_eq!(mixed["output"]["logprobs"], half["output"]["logprobs"]);
    let kinds = &mixed["config"]["layer_kinds"];
    assert_eq!((&kinds[0]["layers"], &kinds[1]["layers"]), (&2.into(), &2.into()), "{kinds}");
    assert_eq!(
        (&kinds[0]["bits"]["value"], &kinds[1]["bits"]["value"]),
        (&Value::Null, &10.0.into()),
        "{kinds}"
    );
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join("kinds-run.json");
    std::fs::write(&kept, mixed.to_string()).expect("a temporary file");
    let from = kept.to_str().expect("UTF-8");
    let shapes = record(&["run", "--soc", "tiny", "--model", path, "--tokens-from", from, "--json"]);
    assert_eq!(shapes["cycles"], mixed["cycles"]);
    assert_eq!(&shapes["config"]["layer_kinds"], kinds);
}

#[test]
fn schemes_a_file_cannot_be_computed_in_are_refused() {
    let (four, half) =
        (written("four.gguf", &quantised(&wide(), &uniform(2))), written("half.gguf", &file(&GOOD)));
    for (path, scheme, part) in [
        (&four, "w8a8", "expected `gguf-q4_0`, `fp16` or `w4a8-g32`, found `w8a8`"),
        (&half, "w4a8-g32", "has matrices of floats"),
    ] {
        let path = path.to_str().expect("UTF-8");
        let ran = presil(&["run", "--soc", "tiny", "--model", path, "--prompt", "x", "--quant", scheme]);
        assert!(ran.code == 3 && ran.err.contains(part), "{scheme}: {} {}", ran.code, ran.err);
    }
}
