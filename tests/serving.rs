//! How tokens are drawn and how keys and values are kept: against a host's draw, on any number of cores, and from the
//! command line.

mod common;
#[allow(dead_code, reason = "only a part of the writer is needed here")]
mod gguf_writer;
#[allow(dead_code, reason = "only a part of what the functional tests share is needed here")]
#[path = "support/soc.rs"]
mod soc;
#[allow(dead_code, reason = "only a part of what the functional tests share is needed here")]
mod support;

use std::path::{Path, PathBuf};

use common::presil;
use gguf_writer::{GOOD, SEED, file, spec};
use serde_json::Value;
use soc::{Case, Compute, prompt, small_model, tiny};
use soc_model::soc::{Draw, RunResult, Turn};
use support::machine::{Machine, Shape};
use traces::image::{build_image, random_tensors};
use traces::workload::{ModelSpec, QuantScheme, TensorFormat};

const PROMPT: &str = "the end is near";

fn fp16() -> QuantScheme {
    QuantScheme::named("fp16").expect("a scheme")
}

/// A machine with the small file's model behind a prompt.
fn machine(cores: u32, spec: &ModelSpec) -> Machine {
    let (_, image) = build_image(spec, &fp16(), &mut random_tensors(SEED, spec)).expect("an image");
    let mut machine = Machine::new(&Shape { scratchpad: 256 << 10, ..Shape::usual(cores) }, image);
    machine.pass(&[0, 7, 9, 5], false);
    machine
}

/// SplitMix64's output at a counter: Steele, Lea and Flood 2014.
fn random(seed: u64, position: u64) -> f32 {
    let golden = 0x9E37_79B9_7F4A_7C15u64;
    let mut z = seed.wrapping_add((position << 32).wrapping_add(1).wrapping_mul(golden));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    #[allow(clippy::cast_precision_loss, reason = "24 bits are exact")]
    let u = ((z ^ (z >> 31)) >> 40) as f32 / 16_777_216.0;
    u
}

/// The candidates in order, with their weights before and after top-p.
fn weights(logits: &[f32], d: &Draw) -> (Vec<usize>, Vec<f32>) {
    let (temperature, top_p) = (f32::from_bits(d.temperature), f32::from_bits(d.top_p));
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
    order.truncate(d.candidates as usize);
    let top = logits[order[0]];
    let mut w: Vec<f32> = order.iter().map(|i| libm::expf((logits[*i] - top) / temperature)).collect();
    let total: f32 = w.iter().sum();
    let mut sum = 0.0;
    let enough = w.iter().position(|w| {
        sum += w;
        top_p < 1.0 && sum >= top_p * total
    });
    w.truncate(enough.map_or(w.len(), |i| i + 1));
    (order, w)
}

/// What a host draws from these logits.
fn drawn(logits: &[f32], d: &Draw, position: u64) -> usize {
    let (order, w) = weights(logits, d);
    let target = random(d.seed, position) * w.iter().sum::<f32>();
    let mut sum = 0.0;
    let hit = w.iter().position(|w| {
        sum += w;
        sum > target
    });
    order[hit.unwrap_or(w.len() - 1)]
}

fn draw(candidates: u32, temperature: f32, top_p: f32, seed: u64) -> Draw {
    Draw { candidates, temperature: temperature.to_bits(), top_p: top_p.to_bits(), seed }
}

#[test]
fn draws_are_a_hosts_on_any_number_of_cores() {
    // One panel: most cores have no share of the vocabulary.
    let narrow = ModelSpec { vocab: 16, tied_embedding: true, ..spec() };
    for spec in [spec(), narrow] {
        for cores in [1, 2, 3, 4, 8] {
            let mut machine = machine(cores, &spec);
            for (i, d) in [
                draw(1024, 1.0, 1.0, 1),
                draw(1024, 0.8, 0.9, 2),
                draw(40, 1.5, 1.0, 3),
                draw(7, 0.7, 0.5, u64::MAX),
                draw(1, 1.0, 1.0, 5),
                draw(1024, 100.0, 1.0, 6),
                draw(1022, 0.01, 0.3, 7),
            ]
            .into_iter()
            .enumerate()
            {
                machine.draw(&d);
                for j in 0..6 {
                    let got = machine.pass(&[3 + i], true).expect("a token");
                    let position = 5 + (i * 6 + j) as u64;
                    let what = format!("{cores} cores, {d:?}, position {position}");
                    assert_eq!(got.token, drawn(&got.logits, &d, position), "{what}");
                }
            }
            // Greedy again.
            machine.draw(&Draw::default());
            let got = machine.pass(&[9], true).expect("a token");
            let best = got.logits.iter().fold(f32::NEG_INFINITY, |m, l| m.max(*l));
            assert_eq!(got.logits[got.token].to_bits(), best.to_bits());
        }
    }
}

#[test]
#[allow(clippy::cast_precision_loss, reason = "counts are small")]
fn draws_have_the_softmaxes_distribution() {
    const DRAWS: u64 = 4000;
    let mut machine = machine(2, &spec());
    for (temperature, top_p, candidates) in [(3.0f32, 1.0f32, 1024u32), (2.0, 0.9, 40)] {
        let mut counts = vec![0u32; 272];
        let mut logits = Vec::new();
        for seed in 0..DRAWS {
            machine.draw(&draw(candidates, temperature, top_p, seed * 7919));
            let got = machine.again(&[11]).expect("a token");
            counts[got.token] += 1;
            logits = got.logits;
        }
        let (order, w) = weights(&logits, &draw(candidates, temperature, top_p, 0));
        let total: f64 = w.iter().map(|w| f64::from(*w)).sum();
        // Pearson's statistic over tokens expected at least five times, the others together.
        let (mut statistic, mut cells, mut rest) = (0.0, 0.0, (0.0, 0.0));
        for (i, token) in order.iter().enumerate() {
            let expected = w.get(i).map_or(0.0, |w| f64::from(*w)) / total * DRAWS as f64;
            let seen = f64::from(counts[*token]);
            if expected >= 5.0 {
                statistic += (seen - expected).powi(2) / expected;
                cells += 1.0;
            } else {
                rest = (rest.0 + seen, rest.1 + expected);
            }
        }
        if rest.1 > 0.0 {
            statistic += (rest.0 - rest.1).powi(2) / rest.1;
            cells += 1.0;
        } else {
            assert!(rest.0 < 0.5, "tokens that top-k or top-p leaves out were drawn {} times", rest.0);
        }
        assert!(cells > 5.0, "T {temperature}: {cells} tokens are too few to compare");
        // Five standard deviations of a chi-square.
        let most = cells + 5.0 * f64::sqrt(2.0 * cells);
        assert!(statistic < most, "T {temperature}: {statistic} over {cells} cells, at most {most}");
    }
}

/// Tokens and bytes read for a token, by a case on the whole chip.
fn whole(case: &Case, compute: &Compute) -> (Vec<u32>, u64, u64) {
    let result = case.run(compute).expect("the run ends");
    let tokens = result.tokens.iter().map(|t| t.0).collect();
    (tokens, result.decode_read_bytes, result.end.get())
}

#[test]
fn contexts_of_thousands_of_positions_read_what_the_cache_holds() {
    // Four heads' rows of 32 elements in two layers; most contexts here take ten blocks and more.
    let (short, long) = (1000u64, 3600u64);
    for (kv, row) in [(TensorFormat::Fp16, 64), (TensorFormat::Int8, 48), (TensorFormat::Int4, 32)] {
        let case = |context| {
            let mut case = Case::new(&["npu.cores=2"], "fp16");
            (case.quant.kv, case.context, case.decode) = (kv, context, 5);
            whole(&case, &Compute::Shapes(Vec::new())).1
        };
        // Command lists grow with the blocks. Four decode steps; K and V of two heads in two layers for each position more.
        let more = case(long) - case(short);
        let exact = 4 * (long - short) * 8 * row;
        assert!(more.abs_diff(exact) * 20 < exact, "{kv:?}: {more} bytes more, {exact} expected");
    }
}

#[test]
fn the_firmware_draws_the_same_on_any_number_of_cores() {
    for kv in [TensorFormat::Fp16, TensorFormat::Int8, TensorFormat::Int4] {
        let case = |cores: u32| {
            let mut case = Case::new(&[format!("npu.cores={cores}")], "w4a16-g128");
            case.quant.kv = kv;
            case.draw = draw(50, 1.2, 0.95, 3);
            case
        };
        let (expected, ..) = whole(&case(1), &Compute::Values);
        for cores in [2, 4] {
            let (tokens, read, end) = whole(&case(cores), &Compute::Values);
            assert_eq!(tokens, expected, "{kv:?}, {cores} cores");
            // A run without values takes the same time.
            let first = case(cores).prompt.len() as u64;
            let ids = (first..).zip(tokens.iter().copied()).collect();
            assert_eq!(whole(&case(cores), &Compute::Shapes(ids)), (tokens, read, end));
        }
    }
    // The vocabulary of 320 and a soc of this test's own.
    assert_eq!((small_model().vocab, tiny(&["npu.cores=2"]).npu.cores), (320, 2));
    assert_eq!(prompt(&small_model(), 2), [11, 48]);
}

#[test]
fn a_second_turn_goes_on_as_one_long_prompt_does() {
    for (kv, draws) in [
        (TensorFormat::Fp16, Draw::default()),
        (TensorFormat::Int8, Draw::default()),
        (TensorFormat::Int4, draw(30, 2.0, 1.0, 9)),
    ] {
        let mut case = Case::new(&["npu.cores=2"], "fp16");
        (case.quant.kv, case.decode) = (kv, 60);
        let chip = || case.builder(&Compute::Values).build().expect("a chip");
        let turn = |prompt: &[u32], context: usize| Turn {
            prompt: prompt.to_vec(),
            decode: 7,
            context: context as u64,
            draw: draws,
            ..Turn::default()
        };
        let tokens = |r: RunResult| r.tokens.iter().map(|t| t.0).collect::<Vec<_>>();
        let mut soc = chip();
        let first = tokens(soc.turn(turn(&case.prompt, 0), &mut |_| {}).expect("a turn"));
        let all = [&case.prompt[..], &first, &[5, 200, 44, 17, 300]].concat();
        // The last token was not fed back: it is read with what is new.
        let known = case.prompt.len() + first.len() - 1;
        let second = tokens(soc.turn(turn(&all[known..], known), &mut |_| {}).expect("a turn"));
        let whole = tokens(chip().turn(turn(&all, 0), &mut |_| {}).expect("a turn"));
        assert_eq!(second, whole, "{kv:?}");
        assert_eq!(second.len(), 7);
    }
}

/// The small file in the tests' own folder.
fn written(name: &str) -> String {
    let path: PathBuf = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, file(&GOOD)).expect("a temporary file");
    path.to_str().expect("UTF-8").to_owned()
}

fn run(model: &str, extra: &[&str]) -> Value {
    let ran =
        presil(&[&["run", "--soc", "tiny", "--model", model, "--prompt", PROMPT, "--json"], extra].concat());
    assert_eq!(ran.code, 0, "{extra:?}: {}", ran.err);
    serde_json::from_str(&ran.out).expect("one JSON document")
}

#[test]
fn the_command_line_draws_and_says_how() {
    let model = written("serving-draw.gguf");
    let options =
        ["--decode", "12", "--temperature", "2.5", "--top-k", "60", "--top-p", "0.95", "--seed", "4"];
    let drawn = run(&model, &options);
    let sampling = serde_json::json!({"temperature": 2.5, "top_k": 60, "top_p": 0.95, "seed": 4});
    assert_eq!(drawn["config"]["sampling"], sampling);
    for cores in ["npu.cores=1", "npu.cores=4"] {
        let other = run(&model, &[&options[..], &["--set", cores]].concat());
        assert_eq!(other["output"]["tokens"], drawn["output"]["tokens"], "{cores}");
    }
    let other = run(&model, &[&options[..8], &["--seed", "5"]].concat());
    assert_ne!(other["output"]["tokens"], drawn["output"]["tokens"]);
    // The likeliest tokens, bit for bit.
    let greedy = run(&model, &["--decode", "12"]);
    assert_ne!(greedy["output"]["tokens"], drawn["output"]["tokens"]);
    assert!(greedy["config"]["sampling"].is_null());
    assert_eq!(run(&model, &["--decode", "12", "--temperature", "0", "--top-k", "5"]), greedy);
    assert_eq!(
        run(&model, &["--decode", "12", "--temperature", "0.01"])["output"]["tokens"],
        greedy["output"]["tokens"]
    );
}

#[test]
#[allow(clippy::cast_precision_loss, reason = "counts are small")]
fn narrow_keys_and_values_move_log_probabilities_a_little() {
    let model = written("serving-kv.gguf");
    let free = run(&model, &["--decode", "24"]);
    let ids: Vec<String> =
        free["output"]["tokens"].as_array().expect("a list").iter().map(Value::to_string).collect();
    let scored = |kv: &str| {
        let record = run(&model, &["--logits-of", &ids.join(","), "--kv", kv]);
        assert_eq!(record["config"]["kv"], kv);
        let list = record["output"]["logprobs"].as_array().expect("a list").clone();
        let written = record["dram"]["write_bytes"].as_u64().expect("bytes");
        (list.iter().map(|l| l.as_f64().expect("a number")).collect::<Vec<_>>(), written)
    };
    let (exact, bytes) = scored("fp16");
    let before = bytes;
    for (kv, mean) in [("int8", 0.002), ("int4", 0.03)] {
        let (other, bytes) = scored(kv);
        let error = exact.iter().zip(&other).map(|(a, b)| (a - b).abs()).sum::<f64>() / exact.len() as f64;
        assert!(error > 0.0 && error < mean, "{kv}: {error} nats on average");
        // Rows of 16 elements are padded to 16 bytes: 32 in int8 as in fp16, 16 in int4.
        assert!(kv == "int8" || bytes < before, "{kv}: {bytes} bytes written, {before} in fp16");
    }
}

#[test]
fn values_that_mean_nothing_are_refused() {
    let model = written("serving-bad.gguf");
    for arguments in [
        &["--temperature=-1"][..],
        &["--temperature=nan"],
        &["--temperature=inf"],
        &["--temperature", "0.001"],
        &["--top-k", "0"],
        &["--top-k", "1025"],
        &["--top-p", "0"],
        &["--top-p", "1.5"],
        &["--top-p", "x"],
        &["--kv", "int3"],
    ] {
        let ran =
            presil(&[&["run", "--soc", "tiny", "--model", &model, "--prompt", PROMPT], arguments].concat());
        assert_eq!(ran.code, 2, "{arguments:?}: {}", ran.err);
        assert_eq!(presil(&[&["chat", "--model", &model], arguments].concat()).code, 2, "{arguments:?}");
    }
    let long = "the end ".repeat(100);
    let ran = presil(&["run", "--soc", "tiny", "--model", &model, "--prompt", &long]);
    assert!(ran.code == 3 && ran.err.contains("takes at most 128"), "{} {}", ran.code, ran.err);
}
