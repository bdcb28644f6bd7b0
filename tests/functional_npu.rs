//! The firmware's command lists on a time-free NPU against a reference transformer, token by token.

mod support;

use support::machine::{Machine, Shape};
use support::reference::Reference;
use traces::image::{build_image, random_tensors};
use traces::workload::{Family, ModelSpec, QuantScheme, Rope, RopeLayout, RopeScaling};

const PROMPT: usize = 21;
const TOKENS: usize = 12;

fn model(name: &str) -> ModelSpec {
    ModelSpec {
        name: name.to_owned(),
        family: Family::Llama,
        hidden: 128,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        head_dim: 32,
        ffn: 256,
        vocab: 320,
        norm_eps: 1e-6,
        qkv_bias: false,
        qk_norm: false,
        rope: Rope { theta: 10_000.0, layout: RopeLayout::Half, scaling: RopeScaling::None },
        tied_embedding: false,
        max_position: 128,
    }
}

fn shape(cores: u32, scratchpad: u64) -> Shape {
    Shape { cores, scratchpad, accumulator: 16 << 10, channels: 2, chunk: 16, positions: 64, order: 1 }
}

fn scheme(name: &str) -> QuantScheme {
    QuantScheme::named(name).expect("scheme")
}

/// Generates on the machine and checks tokens and logits, bit for bit; returns whether (decode, prefill) stayed
/// resident.
fn check(spec: &ModelSpec, quant: &str, shape: &Shape) -> (bool, bool) {
    let scheme = scheme(quant);
    let seed = 7;
    let (_, image) = build_image(spec, &scheme, &mut random_tensors(seed, spec)).expect("image");
    let mut machine = Machine::new(shape, image);
    let prompt: Vec<usize> = (0..PROMPT).map(|i| (i * 37 + 11) % spec.vocab as usize).collect();
    let blocks = machine.blocks(PROMPT, TOKENS);
    let made = machine.generate(&prompt, TOKENS);

    let mut reference = Reference::new(spec, &scheme, &mut random_tensors(seed, spec));
    let mut blocks = blocks.into_iter();
    let mut logits = Vec::new();
    for token in prompt {
        logits = reference.step(token, blocks.next().expect("a block a position")).to_vec();
    }
    let what = format!("{} {quant} {shape:?}", spec.name);
    for (i, got) in made.iter().enumerate() {
        let best = (0..logits.len()).rev().max_by(|a, b| logits[*a].total_cmp(&logits[*b])).expect("logits");
        let wrong = logits.iter().zip(&got.logits).filter(|(a, b)| a.to_bits() != b.to_bits()).count();
        let worst = logits.iter().zip(&got.logits).map(|(a, b)| (a - b).abs()).fold(0.0f32, f32::max);
        assert_eq!(wrong, 0, "{what}: token {i}: {wrong} logits differ, by up to {worst}");
        assert_eq!(got.token, best, "{what}: token {i}");
        if i + 1 < made.len() {
            logits = reference.step(best, blocks.next().expect("a block a position")).to_vec();
        }
    }
    assert_eq!(made.len(), TOKENS);
    let (decode, prefill) = machine.plans();
    (decode.resident, prefill.resident)
}

#[test]
fn a_resident_model_on_one_core() {
    for quant in ["fp16", "w4a16-g128", "w8a8"] {
        assert_eq!(check(&model("plain"), quant, &shape(1, 1 << 20)), (true, true));
    }
}
