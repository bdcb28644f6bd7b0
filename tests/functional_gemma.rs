//! What Gemma has beyond the plain block, computed by the firmware's command lists: every logit, bit for bit.

#[path = "support/soc.rs"]
#[allow(dead_code, reason = "only a part of what tests of whole chips share is needed here")]
mod soc;
#[allow(dead_code, reason = "only a part of what the functional tests share is needed here")]
mod support;

use isa::image::{self, ImageHeader};
use proptest::prelude::*;
use runtime::Model;
use runtime::model::ModelError;
use soc::{Case, Compute, Ended, SEED, prompt};
use soc_model::soc::SocFault;
use support::agree::check_turns as check;
use support::machine::{Machine, Shape};
use support::reference::Reference;
use traces::image::{ImageLayout, build_image, random_tensors};
use traces::workload::{Extras, Family, ModelSpec, QuantScheme, Rope, RopeLayout, RopeScaling, Window};

/// Prompts and how many tokens follow each; the second turn finds the cache as the first left it.
type Turns = [(usize, usize)];
const SHORT: &Turns = &[(21, 5), (14, 3)];
/// Blocks of 48 keys and windows of 20: decode steps cross borders of blocks at both ends of the window.
const LONG: &Turns = &[(83, 30), (37, 9)];

/// Eight queries a key: decode steps have tiles as high as those of a prompt, so blocks of keys are as short.
fn plain() -> ModelSpec {
    ModelSpec {
        name: "plain".to_owned(),
        family: Family::Gemma2,
        hidden: 64,
        layers: 3,
        heads: 16,
        kv_heads: 2,
        head_dim: 16,
        ffn: 128,
        vocab: 192,
        norm_eps: 1e-6,
        qkv_bias: false,
        qk_norm: false,
        rope: Rope { theta: 1_000_000.0, layout: RopeLayout::Half, scaling: RopeScaling::None },
        tied_embedding: true,
        max_position: 256,
        extras: Extras::default(),
    }
}

fn with(name: &str, extras: Extras) -> ModelSpec {
    ModelSpec { name: name.to_owned(), extras, ..plain() }
}

fn windowed(name: &str, positions: u32, period: u32, local_theta: Option<f64>) -> ModelSpec {
    let window = Some(Window { positions, period, local_theta });
    with(name, Extras { window, ..Extras::default() })
}

/// Each flag alone.
fn alone() -> Vec<(ModelSpec, &'static Turns)> {
    let x = Extras::default;
    vec![
        (with("scaled embedding", Extras { embed_scale: Some(8.0), ..x() }), SHORT),
        (with("scaled scores", Extras { attention_scale: Some(1.0 / 3.0), ..x() }), SHORT),
        (with("capped scores", Extras { attention_cap: Some(1.5), ..x() }), SHORT),
        (with("capped logits", Extras { logit_cap: Some(2.0), ..x() }), SHORT),
        (with("post norms", Extras { post_norms: true, ..x() }), SHORT),
        (with("gelu", Extras { gate_gelu: true, ..x() }), SHORT),
        (windowed("every second", 20, 2, None), LONG),
        (windowed("all windowed", 20, 0, None), LONG),
        (windowed("period beyond the layers", 53, 6, None), LONG),
        (windowed("none windowed", 20, 1, None), SHORT),
        (windowed("one position", 1, 2, None), LONG),
        (windowed("local rotation", 49, 2, Some(10_000.0)), LONG),
    ]
}

/// All together, in the proportions of the two families.
fn families() -> [ModelSpec; 2] {
    let both = Extras { embed_scale: Some(8.0), post_norms: true, gate_gelu: true, ..Extras::default() };
    let second = Extras {
        attention_cap: Some(1.5),
        logit_cap: Some(2.0),
        attention_scale: Some(1.0 / 12f64.sqrt()),
        window: Some(Window { positions: 20, period: 2, local_theta: None }),
        ..both.clone()
    };
    let window = Some(Window { positions: 20, period: 6, local_theta: Some(10_000.0) });
    let third = with("third", Extras { window, ..both });
    [
        with("second", second),
        ModelSpec { family: Family::Gemma3, layers: 7, qk_norm: true, kv_heads: 4, ..third },
    ]
}

/// Chunks of 16 in two tiles of rows.
fn shape(cores: u32, scratchpad: u64) -> Shape {
    Shape { scratchpad, accumulator: 2048, chunk: 16, positions: 192, ..Shape::usual(cores) }
}

const RESIDENT: u64 = 1 << 20;
const SPILLED: u64 = 64 << 10;
/// Room for a token's activations, not for a chunk's.
const BETWEEN: u64 = 128 << 10;

#[test]
fn each_alone_resident_and_spilled() {
    for (i, (spec, turns)) in (1u32..).zip(alone()) {
        for (j, quant) in (0u32..).zip(["fp16", "w4a16-g128", "w8a8", "w4a8-g32"]) {
            let cores = (i + j) % 4 + 1;
            let what = format!("{}: {quant}", spec.name);
            assert_eq!(check(&spec, quant, &shape(cores, RESIDENT), turns), (true, true), "{what}");
            let (_, prefill) = check(&spec, quant, &shape(5 - cores, SPILLED), turns);
            assert!(!prefill, "{what} did not spill");
        }
    }
}

#[test]
fn both_families_in_every_scheme_on_any_number_of_cores() {
    for spec in families() {
        for quant in ["fp16", "w4a16-g128", "w8a8", "w4a8-g32"] {
            for cores in [1, 2, 3, 4] {
                let long = cores == 2 || quant == "fp16";
                let turns = if long { LONG } else { SHORT };
                assert_eq!(check(&spec, quant, &shape(cores, RESIDENT), turns), (true, true));
                let (_, prefill) = check(&spec, quant, &shape(cores, SPILLED), turns);
                assert!(!prefill, "{}: {quant} did not spill", spec.name);
            }
        }
        assert_eq!(check(&spec, "fp16", &shape(3, BETWEEN), LONG), (true, false));
        assert_eq!(check(&spec, "w4a16-g128", &shape(2, SPILLED), SHORT), (false, false));
        // More cores than key heads, and than panels of the residual stream.
        check(&spec, "fp16", &shape(8, RESIDENT), SHORT);
        check(&spec, "w4a16-g128", &shape(8, SPILLED), SHORT);
        check(&spec, "fp16", &Shape { kv_bits: 8, ..shape(2, RESIDENT) }, LONG);
        check(&spec, "fp16", &Shape { kv_bits: 8, ..shape(3, SPILLED) }, LONG);
    }
}

#[test]
fn no_order_of_engines_and_no_number_of_channels_changes_anything() {
    for spec in families() {
        for order in 0..8 {
            for scratchpad in [RESIDENT, SPILLED] {
                let channels = 1 + u32::try_from(order % 3).expect("small");
                check(&spec, "fp16", &Shape { order, channels, ..shape(4, scratchpad) }, SHORT);
            }
        }
    }
}

#[test]
fn blocks_outside_the_window_are_not_read() {
    let spec = windowed("every second", 20, 2, None);
    for scratchpad in [RESIDENT, SPILLED] {
        let run = |spoiled: bool| {
            let scheme = QuantScheme::named("fp16").expect("scheme");
            let (_, image) = build_image(&spec, &scheme, &mut random_tensors(7, &spec)).expect("image");
            let mut machine = Machine::new(&shape(2, scratchpad), image);
            let tokens: Vec<usize> = (0..150).map(|i| (i * 29 + 3) % 192).collect();
            let all = machine.blocks(150, 1);
            assert!(all.iter().all(|b| *b <= 64), "{all:?} keys a block");
            machine.generate(&tokens[..130], 1);
            let most = *all.iter().max().expect("blocks");
            // Position 130's window begins at 111: what lies a block before that is in no block it needs.
            let unseen = u64::try_from(111 - most + 1).expect("small");
            if spoiled {
                machine.spoil(0, unseen);
                machine.spoil(2, unseen);
            }
            let made = machine.generate(&tokens[130..], 4);
            made.into_iter().flat_map(|s| s.logits).map(f32::to_bits).collect::<Vec<_>>()
        };
        assert!(run(true) == run(false));
    }
    // The layer between sees everything.
    let all = windowed("none windowed", 20, 1, None);
    let scheme = QuantScheme::named("fp16").expect("scheme");
    let (_, image) = build_image(&all, &scheme, &mut random_tensors(7, &all)).expect("image");
    let mut machine = Machine::new(&shape(2, RESIDENT), image);
    machine.generate(&[1; 130], 1);
    machine.spoil(1, 1);
    let made = machine.generate(&[2], 1);
    assert!(made[0].logits.iter().all(|l| l.is_nan()), "a spoiled key that is read shows");
}

/// The reference's greedy continuation of a whole chip's case.
fn continuation(case: &Case) -> Vec<u32> {
    let mut reference = Reference::new(&case.spec, &case.quant, &mut random_tensors(SEED, &case.spec));
    let mut blocks = case.blocks().into_iter();
    let mut step = |token: u32| reference.step(token as usize, blocks.next().expect("a block a position"));
    let mut logits = case.prompt.iter().map(|t| step(*t)).last().expect("a prompt");
    let mut out = Vec::new();
    for _ in 0..case.decode {
        let best = (0..logits.len()).fold(0, |best, i| if logits[i] > logits[best] { i } else { best });
        out.push(u32::try_from(best).expect("small"));
        logits = if (out.len() as u64) < case.decode { step(out[out.len() - 1]) } else { logits };
    }
    out
}

#[test]
fn the_whole_chip_makes_the_references_tokens_and_time_does_not_see_values() {
    for spec in families() {
        for (cores, quant) in [(1, "w4a16-g128"), (2, "fp16"), (4, "w8a8")] {
            let base = Case::new(&[format!("npu.cores={cores}")], quant);
            let case = Case { prompt: prompt(&spec, 70), decode: 12, chunk: 16, spec: spec.clone(), ..base };
            let computed = case.run(&Compute::Values).expect("it runs");
            let tokens: Vec<u32> = computed.tokens.iter().map(|t| t.0).collect();
            assert_eq!(tokens, continuation(&case), "{} {quant} {cores}", spec.name);
            let shapes = case.run(&Compute::Shapes((70..).zip(tokens).collect())).expect("it runs");
            assert_eq!(computed.tokens, shapes.tokens, "tokens and their times: {} {quant}", spec.name);
            assert_eq!((computed.end, &computed.cycles), (shapes.end, &shapes.cycles));
        }
    }
}

#[test]
fn a_longer_context_costs_windowed_layers_next_to_nothing() {
    let read = |period: u32, context: u64| {
        let spec = ModelSpec { layers: 6, ..windowed("period", 20, period, None) };
        let case = Case {
            prompt: prompt(&spec, 5),
            spec,
            decode: 5,
            context,
            ..Case::new(&["npu.cores=2"], "fp16")
        };
        case.run(&Compute::Shapes(Vec::new())).expect("it runs").decode_read_bytes
    };
    let growth = |period| read(period, 4696) - read(period, 600);
    let (all, second, none) = (growth(1), growth(2), growth(0));
    // Keys and values of 4096 positions in each of six layers, for each of four tokens made by decode.
    let bytes = 6 * 4 * 4096 * 2 * 2 * 16 * 2;
    assert!((bytes..bytes + bytes / 10).contains(&all), "{all} against {bytes}");
    assert!((bytes / 2..bytes / 2 + bytes / 10).contains(&second), "{second} against half of {bytes}");
    // Tables of pages are as long as the cache.
    assert!(none < bytes / 25, "{none}");
}

fn specs() -> impl Strategy<Value = ModelSpec> {
    let widths = (4u32..=10, 1u32..=5, 1u32..=4, 1u32..=6, 1u32..=2, 4u32..=20, 4u32..=20);
    let window = (1u32..=80, 0u32..=6, any::<bool>());
    (widths, window, any::<[bool; 9]>()).prop_map(|(widths, (positions, period, own), has)| {
        let (hidden, layers, kv_heads, group, head, ffn, vocab) = widths;
        let [embed, scores, cap, logits, windows, post_norms, gate_gelu, qk_norm, qkv_bias] = has;
        let extras = Extras {
            embed_scale: embed.then(|| f64::from(hidden * 16).sqrt()),
            attention_scale: scores.then_some(0.3),
            attention_cap: cap.then_some(1.25),
            logit_cap: logits.then_some(2.5),
            window: windows.then(|| Window { positions, period, local_theta: own.then_some(10_000.0) }),
            post_norms,
            gate_gelu,
            ..Extras::default()
        };
        ModelSpec {
            hidden: hidden * 16,
            layers,
            heads: kv_heads * group,
            kv_heads,
            head_dim: head * 16,
            ffn: ffn * 16,
            vocab: vocab * 16,
            qkv_bias,
            qk_norm,
            ..with("random", extras)
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_mixture_on_any_cluster(
        spec in specs(),
        quant in 0usize..4,
        cores in 1u32..=8,
        room in 0u64..=3,
        channels in 1u32..=3,
        chunk in 1u64..=24,
        order in any::<u64>(),
    ) {
        let quant = ["fp16", "w4a16-g128", "w8a8", "w4a8-g32"][quant];
        let least = if quant == "w8a8" { 320 } else { 128 };
        let shape = Shape { channels, chunk, order, accumulator: 4096, ..shape(cores, (least << 10) << room) };
        check(&spec, quant, &shape, &[(83, 20), (9, 3)]);
    }
}

fn header(spec: &ModelSpec) -> ImageHeader {
    ImageLayout::new(spec, &QuantScheme::named("fp16").expect("scheme")).expect("a layout").header
}

#[test]
fn an_unknown_flag_is_refused_and_so_are_windows_and_caps_that_cannot_be() {
    let good = header(&families()[0]);
    assert!(Model::new(good).is_ok());
    for flag in (0..64).map(|bit| 1u64 << bit).filter(|flag| runtime::model::FLAGS & flag == 0) {
        let error = Model::new(ImageHeader { flags: good.flags | flag, ..good }).err();
        assert_eq!(error, Some(ModelError::Unknown(flag)));
    }
    for bad in [
        ImageHeader { window: 0, ..good },
        ImageHeader { window: 1 << 20, ..good },
        ImageHeader { logit_cap: 0, ..good },
        ImageHeader { attention_cap: 1 << 32, ..good },
        ImageHeader { flags: good.flags & !image::FLAG_WINDOW | image::FLAG_LOCAL_ROPE, ..good },
    ] {
        assert_eq!(Model::new(bad).err(), Some(ModelError::BadShape), "{bad:?}");
    }
    // On the chip: a message with the flag.
    let case = Case { spec: families()[0].clone(), ..Case::new::<&str>(&[], "fp16") };
    let mut builder = case.builder(&Compute::Shapes(Vec::new()));
    let unknown = 1u64 << 40;
    let words = ImageHeader { flags: good.flags | unknown, ..good }.to_words();
    builder.model.stored[0].1 = words.iter().flat_map(|w| w.to_le_bytes()).collect();
    let ended = builder.build().map_err(Ended::Refused);
    let ended = ended.and_then(|chip| chip.run(&mut |_| {}).map_err(Ended::Faulted));
    let Err(Ended::Faulted(SocFault::Firmware { reason, console, .. })) = ended else { panic!("it ran") };
    assert!(reason.contains("does not compute"), "{reason}");
    assert!(console.contains("0x10000000000"), "{console}");
}
