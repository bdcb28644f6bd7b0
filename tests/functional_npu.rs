//! The firmware's command lists on a time-free NPU against a reference transformer: every logit, bit for bit.

#[allow(dead_code, reason = "only a part of what the functional tests share is needed here")]
mod support;

use proptest::prelude::*;
use support::agree::{Resident, check_turns};
use support::encoder::Encoder;
use support::machine::{Interruption, Machine, Shape};
use traces::image::{build_image, random_tensors};
use traces::workload::{
    Encoder as EncoderKind, Extras, Family, ModelSpec, Pooling, QuantScheme, Rope, RopeLayout, RopeScaling,
};

/// Prompts and how many tokens follow each; the second turn finds the cache as the first left it.
const TURNS: [(usize, usize); 2] = [(21, 12), (14, 5)];
const SCHEMES: [&str; 5] = ["fp16", "w4a16-g128", "w8a8", "w8a16", "w4a8-g32"];

/// GQA, three panels of feed-forward in four, a vocabulary that no number of cores divides.
fn model() -> ModelSpec {
    ModelSpec {
        name: "plain".to_owned(),
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
        extras: Extras::default(),
    }
}

/// One of each: bias and a tied head; norms of heads and neighbours rotated; one key a query and partial groups;
/// fewer panels than cores.
fn variants() -> [ModelSpec; 4] {
    let plain = model();
    [
        ModelSpec { name: "biased".to_owned(), qkv_bias: true, tied_embedding: true, ..plain.clone() },
        ModelSpec {
            name: "normed".to_owned(),
            qk_norm: true,
            heads: 8,
            kv_heads: 4,
            head_dim: 16,
            ffn: 384,
            vocab: 336,
            rope: Rope { layout: RopeLayout::Interleaved, ..plain.rope },
            ..plain.clone()
        },
        ModelSpec {
            name: "narrow".to_owned(),
            hidden: 96,
            heads: 6,
            kv_heads: 6,
            head_dim: 16,
            ffn: 640,
            vocab: 256,
            layers: 3,
            ..plain.clone()
        },
        ModelSpec {
            name: "tiny".to_owned(),
            hidden: 64,
            heads: 2,
            kv_heads: 1,
            head_dim: 16,
            ffn: 192,
            vocab: 192,
            ..plain
        },
    ]
}

/// Chunks of 8 split the prompts into whole ones and a rest.
fn shape(cores: u32, scratchpad: u64) -> Shape {
    Shape { scratchpad, ..Shape::usual(cores) }
}

/// Generates on the machine and compares tokens and logits with the reference.
fn check(spec: &ModelSpec, quant: &str, shape: &Shape) -> Resident {
    check_turns(spec, quant, shape, &TURNS)
}

#[test]
fn resident_plans_on_any_number_of_cores() {
    for quant in SCHEMES {
        for cores in [1, 2, 3, 4, 6, 8] {
            assert_eq!(check(&model(), quant, &shape(cores, 1 << 20)), (true, true));
        }
    }
}

#[test]
fn spilled_plans_on_any_number_of_cores() {
    for quant in ["fp16", "w4a16-g128", "w4a8-g32"] {
        for cores in [1, 2, 3, 4, 6, 8] {
            assert_eq!(check(&model(), quant, &shape(cores, 64 << 10)), (false, false));
        }
    }
}

#[test]
fn decode_stays_resident_where_prefill_spills() {
    let narrow = variants()[2].clone();
    for quant in ["fp16", "w4a16-g128"] {
        let shape = Shape { chunk: 32, accumulator: 16 << 10, ..shape(3, 144 << 10) };
        assert_eq!(check(&narrow, quant, &shape), (true, false));
    }
}

#[test]
fn quantised_hidden_layers_spill_where_their_rows_fit_the_input() {
    // Rests of 21 and 14 rows: two row buffers, one, and rows too long to spill.
    for (cores, ffn) in [(1, 256), (2, 256), (3, 192), (4, 256), (6, 192), (8, 256)] {
        let spec = ModelSpec { ffn, ..model() };
        let shape = Shape { chunk: 32, accumulator: 16 << 10, ..shape(cores, 72 << 10) };
        assert_eq!(check(&spec, "w8a8", &shape), (true, false), "{cores} cores");
    }
}

#[test]
fn every_kind_of_block_in_every_scheme() {
    for spec in variants() {
        for quant in SCHEMES {
            for (cores, scratchpad) in [(1, 256 << 10), (2, 1 << 20), (3, 256 << 10), (4, 72 << 10)] {
                // Quantised inputs do not spill.
                let scratchpad = if quant == "w8a8" { scratchpad.max(256 << 10) } else { scratchpad };
                check(&spec, quant, &shape(cores, scratchpad));
            }
        }
    }
}

#[test]
fn the_order_of_engines_changes_nothing() {
    for scratchpad in [1 << 20, 64 << 10] {
        for order in 0..12 {
            let shape = Shape { order, channels: 1 + u32::from(order % 2 == 0), ..shape(4, scratchpad) };
            check(&model(), "w4a16-g128", &shape);
            check(&variants()[1], "fp16", &Shape { cores: 3, ..shape });
        }
    }
}

/// Encoders: one like BERT in its proportions, one with grouped queries and a hidden layer that cores share unevenly.
fn encoders() -> [ModelSpec; 2] {
    let plain = ModelSpec {
        name: "encoder".to_owned(),
        family: Family::Bert,
        kv_heads: 4,
        vocab: 331,
        qkv_bias: true,
        tied_embedding: false,
        norm_eps: f64::from(1e-12f32),
        max_position: 160,
        extras: Extras { encoder: Some(EncoderKind { token_types: 2 }), ..Extras::default() },
        ..model()
    };
    let odd = ModelSpec {
        name: "uneven".to_owned(),
        hidden: 96,
        heads: 6,
        kv_heads: 3,
        head_dim: 16,
        ffn: 352,
        ..plain.clone()
    };
    [plain, odd]
}

/// Encodes texts of several lengths and compares each vector; returns whether a plan stayed in the scratchpads.
fn check_encoder(spec: &ModelSpec, quant: &str, shape: &Shape) -> bool {
    let scheme = QuantScheme::named(quant).expect("scheme");
    let seed = 11;
    let (_, image) = build_image(spec, &scheme, &mut random_tensors(seed, spec)).expect("image");
    let mut machine = Machine::new(shape, image);
    let reference = Encoder::new(spec, &scheme, &mut random_tensors(seed, spec));
    let most = usize::try_from(shape.chunk).expect("small");
    for length in [1, 2, most, most - 11, 21, 21] {
        let tokens: Vec<usize> = (0..length).map(|i| (i * 41 + length) % spec.vocab as usize).collect();
        let (got, block) = machine.encode(&tokens);
        let expected = reference.encode(&tokens, block);
        let wrong = got.iter().zip(&expected).filter(|(a, b)| a.to_bits() != b.to_bits()).count();
        let worst = got.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0f32, f32::max);
        let what = format!("{} {quant} {shape:?} {length}", spec.name);
        assert_eq!(wrong, 0, "{what}: {wrong} of {} values differ by up to {worst}", got.len());
        let length = got.iter().map(|v| v * v).sum::<f32>();
        assert!((length - 1.0).abs() < 1e-4 || spec.extras.pooling.as_it_is, "{length}");
    }
    !machine.spilled
}

#[test]
fn an_encoder_s_vector_is_the_first_row_or_of_any_length_where_the_image_says_so() {
    let mut resident = [0, 0];
    for (first, as_it_is) in [(true, false), (false, true), (true, true)] {
        let [mut spec, _] = encoders();
        spec.extras.pooling = Pooling { first, as_it_is };
        for cores in [1, 3] {
            for scratchpad in [512 << 10, 144 << 10] {
                let shape = Shape { chunk: 48, ..shape(cores, scratchpad) };
                resident[usize::from(check_encoder(&spec, "fp16", &shape))] += 1;
            }
        }
    }
    assert!(resident.iter().all(|n| *n > 0), "spilled and resident plans: {resident:?}");
}

#[test]
fn an_encoder_s_vectors_on_any_number_of_cores() {
    let mut resident = [0, 0];
    for spec in encoders() {
        for quant in ["fp16", "w8a8", "w4a16-g128"] {
            for cores in [1, 2, 4, 8] {
                for scratchpad in [512 << 10, 144 << 10] {
                    let shape = Shape { chunk: 48, ..shape(cores, scratchpad) };
                    resident[usize::from(check_encoder(&spec, quant, &shape))] += 1;
                }
            }
        }
    }
    assert!(resident.iter().all(|n| *n > 0), "spilled and resident plans: {resident:?}");
}

#[test]
fn an_encoder_s_attention_crosses_blocks_of_keys() {
    // The accumulator holds 75 rows of 32 keys: two tiles of rows, five blocks of keys, no mask.
    for cores in [1, 2] {
        let shape = Shape { accumulator: 19_200, chunk: 150, positions: 160, ..shape(cores, 1 << 20) };
        check_encoder(&encoders()[0], "fp16", &shape);
    }
}

#[test]
fn attention_crosses_blocks_of_keys() {
    // The accumulator holds two rows of 48 keys: prefill takes 2 rows a tile, decode starts its second block.
    for cores in [1, 2] {
        for scratchpad in [1 << 20, 64 << 10] {
            let shape = Shape { accumulator: 640, chunk: 16, ..shape(cores, scratchpad) };
            check(&model(), "fp16", &shape);
        }
    }
}

#[test]
fn a_feed_forward_layer_far_larger_than_a_slot() {
    let spec =
        ModelSpec { ffn: 18_944, layers: 1, hidden: 64, heads: 2, kv_heads: 2, head_dim: 32, ..model() };
    for (quant, scratchpad) in
        [("fp16", 96 << 10), ("w4a16-g128", 96 << 10), ("w8a8", 1 << 20), ("w4a8-g32", 96 << 10)]
    {
        check(&spec, quant, &shape(3, scratchpad));
    }
}

#[test]
fn quantised_keys_and_values_on_any_number_of_cores() {
    for kv_bits in [8, 4] {
        for (cores, scratchpad) in [(1, 1 << 20), (2, 64 << 10), (3, 1 << 20), (4, 64 << 10)] {
            check(&model(), "fp16", &Shape { kv_bits, ..shape(cores, scratchpad) });
        }
        for spec in variants() {
            check(&spec, "w4a16-g128", &Shape { kv_bits, ..shape(2, 256 << 10) });
        }
        // Several blocks of keys; heads of 80, whose rows are padded.
        let blocks = Shape { accumulator: 640, chunk: 16, kv_bits, ..shape(2, 1 << 20) };
        check(&model(), "fp16", &blocks);
        let wide = ModelSpec { head_dim: 80, ..model() };
        check(&wide, "w8a8", &Shape { kv_bits, ..shape(4, 1 << 20) });
    }
}

#[test]
fn hundreds_of_positions_in_many_blocks_of_keys() {
    // Blocks of 16 to 48 keys: a prompt of 300 crosses six borders at least.
    let spec = ModelSpec { max_position: 512, ..variants()[3].clone() };
    for (kv_bits, cores) in [(16, 1), (8, 2), (4, 4)] {
        let small =
            Shape { accumulator: 1 << 10, chunk: 24, positions: 384, kv_bits, ..shape(cores, 256 << 10) };
        let (_, image) =
            build_image(&spec, &QuantScheme::named("fp16").expect("scheme"), &mut random_tensors(7, &spec))
                .expect("image");
        let most = Machine::new(&small, image).blocks(300, 60).into_iter().max().expect("blocks");
        assert!(most <= 128, "{most} keys a block");
        check_turns(&spec, "fp16", &small, &[(300, 30), (20, 12)]);
    }
}

/// What a prompt and its continuation gave: tokens with the bits of their logits, and what preemption there was.
struct Generated {
    tokens: Vec<(usize, Vec<u32>)>,
    saved_bytes: u64,
    by_level: [u64; 3],
}

/// A prompt of 21 and five tokens more.
fn generate(quant: &str, cores: u32, interruption: Option<Interruption>) -> Generated {
    let (spec, scheme) = (model(), QuantScheme::named(quant).expect("a scheme"));
    let (_, image) = build_image(&spec, &scheme, &mut random_tensors(7, &spec)).expect("an image");
    let scratchpad = 256 << 10;
    let mut machine = Machine::new(&shape(cores, scratchpad), image);
    machine.interruption = interruption;
    let prompt: Vec<usize> = (0..21).map(|i| (i * 37 + 11) % 320).collect();
    let made = machine.generate(&prompt, 5);
    let tokens = made.iter().map(|s| (s.token, s.logits.iter().map(|l| l.to_bits()).collect())).collect();
    let (saved_bytes, by_level) = machine.preempted();
    Generated { tokens, saved_bytes, by_level }
}

#[test]
fn preempting_a_prefill_at_any_level_changes_no_logit() {
    for (quant, cores) in [("w4a16-g128", 4u32), ("w8a8", 3), ("fp16", 1), ("w4a8-g32", 2)] {
        let alone = generate(quant, cores, None);
        assert_eq!(alone.saved_bytes, 0);
        for level in 1..=3u64 {
            let (mut seen, mut saved) = (0, 0);
            for moment in 0..8u64 {
                let all = (1 << cores) - 1;
                let wanted = if moment % 2 == 0 { all } else { 1 };
                let i = Interruption { level, after: 3 + 29 * moment, cores: wanted };
                let got = generate(quant, cores, Some(i));
                assert!(got.tokens == alone.tokens, "{quant}, {cores} cores, {i:?}");
                seen += got.by_level[usize::try_from(level).expect("small") - 1];
                saved += got.saved_bytes;
            }
            assert!(seen >= 4, "{quant}: level {level} took {seen} queues out");
            assert_eq!(saved > 0, level == 2, "{quant}: level {level} saved {saved} bytes");
        }
    }
}

fn specs() -> impl Strategy<Value = ModelSpec> {
    let widths = (4u32..=10, 1u32..=3, 1u32..=4, 1u32..=3, 1u32..=2, 4u32..=30, 4u32..=30);
    (widths, any::<[bool; 4]>()).prop_map(|((hidden, layers, kv_heads, group, head, ffn, vocab), flags)| {
        let [qkv_bias, qk_norm, tied_embedding, interleaved] = flags;
        let layout = if interleaved { RopeLayout::Interleaved } else { RopeLayout::Half };
        ModelSpec {
            name: "random".to_owned(),
            hidden: hidden * 16,
            layers,
            heads: kv_heads * group,
            kv_heads,
            head_dim: head * 16,
            ffn: ffn * 16,
            vocab: vocab * 16,
            qkv_bias,
            qk_norm,
            tied_embedding,
            rope: Rope { layout, ..model().rope },
            ..model()
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_model_on_any_cluster(
        spec in specs(),
        quant in 0usize..SCHEMES.len(),
        cores in 1u32..=8,
        room in 0u64..=3,
        channels in 1u32..=3,
        chunk in 1u64..=24,
        order in any::<u64>(),
    ) {
        let least = if SCHEMES[quant] == "w8a8" { 320 } else { 96 };
        let scratchpad = (least << 10) << room;
        check(&spec, SCHEMES[quant], &Shape { channels, chunk, order, ..shape(cores, scratchpad) });
    }
}
