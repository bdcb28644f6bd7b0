//! Weights and text from a GGUF file the test writes itself, and files that are not what they should be.

mod common;
#[allow(dead_code, reason = "only a part of the writer is needed here")]
mod gguf_writer;
#[allow(dead_code, reason = "only a part of what the functional tests share is needed here")]
mod support;

use std::path::{Path, PathBuf};

use common::presil;
use gguf_writer::{Flaws, GOOD, SEED, file, spec};
use proptest::prelude::*;
use serde_json::Value;
use soc_model::config::soc_names;
use support::machine::{Machine, Shape};
use support::reference::Reference;
use traces::gguf::{GgufModel, read};
use traces::image::{build_image, random_tensors};
use traces::workload::QuantScheme;

const PROMPT: &str = "the end<|end|> is 42, señor";
const COUNT: usize = 12;

/// A file in the tests' own folder.
fn written(name: &str, bytes: &[u8]) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, bytes).expect("a temporary file");
    path
}

/// A run's record.
fn record(path: &Path, extra: &[&str]) -> Value {
    let count = COUNT.to_string();
    let model = path.to_str().expect("UTF-8");
    let mut arguments =
        vec!["run", "--soc", "tiny", "--model", model, "--prompt", PROMPT, "--decode", &count, "--json"];
    arguments.extend(extra);
    let ran = presil(&arguments);
    assert_eq!(ran.code, 0, "{arguments:?}: {}", ran.err);
    serde_json::from_str(&ran.out).expect("one JSON document")
}

/// Tokens and their log-probabilities by the reference transformer, keys visited as one block.
fn expected(prompt: &[u32]) -> (Vec<u64>, Vec<f64>) {
    let scheme = QuantScheme::named("fp16").expect("scheme");
    let spec = spec();
    let mut reference = Reference::new(&spec, &scheme, &mut random_tensors(SEED, &spec));
    let (_, image) = build_image(&spec, &scheme, &mut random_tensors(SEED, &spec)).expect("image");
    let blocks = Machine::new(&Shape::usual(1), image).blocks(prompt.len(), COUNT);
    let mut blocks = blocks.into_iter();
    let mut logits = Vec::new();
    for token in prompt {
        let index = usize::try_from(*token).expect("small");
        logits = reference.step(index, blocks.next().expect("a block a position")).to_vec();
    }
    let (mut tokens, mut logprobs) = (Vec::new(), Vec::new());
    for _ in 0..COUNT {
        let best = (0..logits.len()).rev().max_by(|a, b| logits[*a].total_cmp(&logits[*b])).expect("logits");
        let sum: f64 = logits.iter().map(|l| (f64::from(*l) - f64::from(logits[best])).exp()).sum();
        tokens.push(best as u64);
        logprobs.push(-sum.ln());
        if let Some(block) = blocks.next() {
            logits = reference.step(best, block).to_vec();
        }
    }
    (tokens, logprobs)
}

#[test]
fn the_image_is_the_files_weights() {
    let model = GgufModel::open(&written("image-own.gguf", &file(&GOOD))).expect("a good file");
    let expected_spec = traces::workload::ModelSpec { name: "image-own".to_owned(), ..spec() };
    assert_eq!(model.spec, expected_spec);
    assert_eq!(model.scheme.name, "gguf-f16");
    let scheme = QuantScheme::named("fp16").expect("scheme");
    let (layout, image) = build_image(&spec(), &scheme, &mut random_tensors(SEED, &spec())).expect("image");
    let read = model.layout().expect("layout");
    assert_eq!(read, layout);
    assert!(model.image(&read).expect("weights") == image, "the images differ");
}

#[test]
fn text_comes_out_of_the_modelled_phone() {
    let path = written("text-own.gguf", &file(&GOOD));
    let model = GgufModel::open(&path).expect("a good file");
    let tokenizer = model.tokenizer().expect("a tokenizer");
    let prompt = tokenizer.encode(PROMPT).expect("a text");
    let (tokens, logprobs) = expected(&prompt);
    for cores in [&[][..], &["--set", "npu.cores=1"], &["--set", "npu.cores=4"]] {
        let record = record(&path, cores);
        let output = &record["output"];
        assert_eq!(output["tokens"], serde_json::json!(tokens), "{cores:?}");
        let given = output["logprobs"].as_array().expect("a list");
        for (ours, theirs) in given.iter().zip(&logprobs) {
            let error = (ours.as_f64().expect("a number") - theirs).abs();
            assert!(error < 2e-3, "{cores:?}: {ours} {theirs}");
        }
        assert_eq!(given.len(), COUNT);
        let ids: Vec<u32> = tokens.iter().map(|t| u32::try_from(*t).expect("small")).collect();
        assert_eq!(output["text"], tokenizer.decode(&ids));
        assert_eq!(record["model"]["quant"], "gguf-f16");
    }
}

#[test]
fn the_tokenizer_takes_merges_digits_bytes_and_special_tokens() {
    let path = written("tokens-own.gguf", &file(&GOOD));
    let tokenizer = GgufModel::open(&path).expect("a good file").tokenizer().expect("a tokenizer");
    let words = gguf_writer::tokens();
    let id =
        |word: &str| u32::try_from(words.iter().position(|w| w == word).expect("a word")).expect("small");
    let expected = [
        "<|start|>",
        "the",
        "Ġ",
        "e",
        "n",
        "d",
        "<|end|>",
        "Ġis",
        "Ġ",
        "4",
        "2",
        ",",
        "Ġ",
        "s",
        "e",
        "Ã",
        "±",
        "on",
    ]
    .map(id)
    .to_vec();
    let text = "the end<|end|> is 42, seño";
    let mut expected = expected;
    let last = expected.len() - 1;
    expected[last] = id("o");
    assert_eq!(tokenizer.encode(text).expect("a text"), expected);
    assert_eq!(tokenizer.decode(&expected), "the end is 42, seño");
}

#[test]
fn a_file_without_a_prompt_runs_without_values() {
    let path = written("shape-own.gguf", &file(&GOOD));
    let model = path.to_str().expect("UTF-8");
    let ran =
        presil(&["run", "--soc", "tiny", "--model", model, "--prefill", "19", "--decode", "3", "--json"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let record: Value = serde_json::from_str(&ran.out).expect("one JSON document");
    assert!(record["output"].is_null() && record["model"]["quant"] == "gguf-f16");
}

#[test]
fn text_is_written_as_it_appears() {
    let path = written("stream-own.gguf", &file(&GOOD));
    let model = path.to_str().expect("UTF-8");
    let ran = presil(&["run", "--soc", "tiny", "--model", model, "--prompt", PROMPT, "--decode", "12"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let text = record(&path, &[])["output"]["text"].as_str().expect("text").to_owned();
    let start = text.split('\u{FFFD}').next().expect("a beginning");
    assert!(ran.out.starts_with(start), "{:?} {text:?}", ran.out);
    assert!(ran.err.contains("bits each in the file"), "{}", ran.err);
}

#[test]
fn what_does_not_fit_exits_3_and_says_where() {
    let good = written("good-own.gguf", &file(&GOOD));
    let good = good.to_str().expect("UTF-8");
    for (arguments, part) in [
        (&["--model", "mimo-7b", "--prompt", "x"][..], "no weights and no tokenizer"),
        (&["--model", good, "--prompt", "x", "--quant", "w8a8"], "decides how its weights are stored"),
        (&["--model", good, "--prompt", "x", "--decode", "128"], "takes at most 128"),
    ] {
        let ran = presil(&[&["run", "--soc", "tiny"], arguments].concat());
        assert!(ran.code == 3 && ran.err.contains(part), "{arguments:?}: {} {}", ran.code, ran.err);
    }
    let ran = presil(&["run", "--model", good, "--prompt", "x", "--prefill", "4"]);
    assert_eq!(ran.code, 2, "{}", ran.err);
    let q2 = Flaws { norm_type: 10, ..GOOD };
    for (name, flaws, part) in [
        ("pre", Flaws { pre: "nosuch", ..GOOD }, "no pre-tokenizer `nosuch`"),
        ("architecture", Flaws { architecture: "mamba", ..GOOD }, "found `mamba`"),
        ("type", q2, "output_norm.weight"),
        (
            "strange",
            Flaws { norm_type: 77, ..GOOD },
            "expected a type of F32 (0), F16 (1), Q4_0 (2), Q4_1 (3), Q5_0 (6), Q5_1 (7), Q8_0 (8), Q2_K (10), Q3_K (11), Q4_K (12), Q5_K (13), Q6_K (14), I8 (24), I16 (25), I32 (26), BF16 (30), found 77",
        ),
        ("vocabulary", Flaws { missing_tokens: 3, ..GOOD }, "269 tokens, but the embedding has 272 rows"),
    ] {
        let path = written(&format!("flaw-{name}.gguf"), &file(&flaws));
        let ran = presil(&["run", "--model", path.to_str().expect("UTF-8"), "--prompt", "x"]);
        assert!(ran.code == 3 && ran.err.contains(part), "{name}: {} {}", ran.code, ran.err);
    }
}

/// A good file with other bytes at some places.
fn patched(name: &str, patches: &[(usize, &[u8])]) -> PathBuf {
    let mut bytes = file(&GOOD);
    for (at, patch) in patches {
        bytes[*at..*at + patch.len()].copy_from_slice(patch);
    }
    written(&format!("patched-{name}.gguf"), &bytes)
}

#[test]
fn dimensions_that_cannot_be_exit_3_at_their_byte() {
    let bytes = file(&GOOD);
    // Behind a key comes the code of its type.
    let value_of = |key: &str| {
        let at = bytes.windows(key.len()).position(|w| w == key.as_bytes()).expect("a key");
        at + key.len() + 4
    };
    for (key, value, part) in [
        ("block_count", 0, "llama.block_count: expected from 1 to 1024, found 0"),
        ("block_count", 1, "is no tensor this architecture is known to have"),
        ("embedding_length", 0, "expected a multiple of llama.attention.head_count (4), found 0"),
        ("attention.head_count", 0, "expected a multiple of llama.attention.head_count (0), found 64"),
        (
            "attention.head_count_kv",
            3,
            "llama.attention.head_count_kv: expected a divisor of llama.attention.head_count (4), found 3",
        ),
        (
            "feed_forward_length",
            1 << 30,
            "llama.feed_forward_length: expected from 64 to 262144, found 1073741824",
        ),
        ("context_length", u32::MAX, "llama.context_length: expected from 1 to 16777216, found 4294967295"),
        ("vocab_size", 271, "llama.vocab_size: expected the embedding's 272 rows, found 271"),
    ] {
        let (key, value) = (format!("llama.{key}"), u32::to_le_bytes(value));
        let path = patched("dimension", &[(value_of(&key), &value)]);
        let error = GgufModel::open(&path).expect_err("refused").to_string();
        assert!(error.contains(part) && error.contains(".gguf byte "), "{key}: {error}");
    }
}

#[test]
fn weights_that_are_no_numbers_exit_3_at_their_byte() {
    let contents = read(&file(&GOOD)[..], file(&GOOD).len() as u64, "file").expect("a good file");
    for (name, value) in [
        ("token_embd.weight", &[0, 0x7E][..]),
        ("blk.1.ffn_down.weight", &[0, 0xFC]),
        ("output_norm.weight", &[0, 0, 0xC0, 0x7F]),
    ] {
        let at = usize::try_from(contents.tensors[name].start).expect("small") + 4;
        let path = patched("number", &[(at, value)]);
        let ran =
            presil(&["run", "--soc", "tiny", "--model", path.to_str().expect("UTF-8"), "--prompt", "x"]);
        let part = format!(".gguf byte {at}: {name}: expected finite numbers, found ");
        assert!(ran.code == 3 && ran.err.contains(&part), "{name}: {} {}", ran.code, ran.err);
    }
}

#[test]
fn every_chip_says_the_same() {
    let path = written("chips-own.gguf", &file(&GOOD));
    let expected = record(&path, &[])["output"].take();
    for soc in soc_names() {
        let model = path.to_str().expect("UTF-8");
        let count = COUNT.to_string();
        let ran = presil(&[
            "run", "--soc", soc, "--model", model, "--prompt", PROMPT, "--decode", &count, "--json",
        ]);
        assert_eq!(ran.code, 0, "{soc}: {}", ran.err);
        let mut record: Value = serde_json::from_str(&ran.out).expect("one JSON document");
        assert_eq!(record["output"].take(), expected, "{soc}");
    }
}

/// Reads bytes as a file.
fn parsed(bytes: &[u8]) -> Result<traces::gguf::Contents, String> {
    read(bytes, bytes.len() as u64, "file").map_err(|e| e.to_string())
}

#[test]
fn truncated_files_are_refused_at_every_length() {
    let bytes = file(&GOOD);
    assert!(parsed(&bytes).is_ok());
    // Before the data every byte; in it a few.
    let head = bytes.len() - usize::try_from(spec().params() * 2).expect("small");
    for length in (0..head).chain((head..bytes.len() - 64).step_by(997)) {
        let error = parsed(&bytes[..length]).expect_err("cut short");
        assert!(error.starts_with("file byte "), "{length}: {error}");
    }
}

#[test]
fn absurd_counts_are_refused_before_anything_is_allocated() {
    let bytes = file(&GOOD);
    for at in [8, 16, 24] {
        let mut bytes = bytes.clone();
        bytes[at..at + 8].copy_from_slice(&(1u64 << 60).to_le_bytes());
        let error = parsed(&bytes).expect_err("too many");
        assert!(error.contains("found 1152921504606846976"), "{at}: {error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2048, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn flipped_bits_never_panic(flips in prop::collection::vec((0usize..9000, 0u8..8), 1..6)) {
        use std::sync::LazyLock;
        static GOOD_FILE: LazyLock<Vec<u8>> = LazyLock::new(|| file(&GOOD));
        let mut bytes = GOOD_FILE.clone();
        for (at, bit) in flips {
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
        }
        if let Err(error) = parsed(&bytes) {
            prop_assert!(error.starts_with("file byte "), "{}", error);
        }
    }

    #[test]
    fn what_still_opens_with_flipped_bits_has_a_layout_and_a_tokenizer_or_says_why(
        flips in prop::collection::vec((0usize..7500, 0u8..8), 1..3),
    ) {
        let mut bytes = file(&GOOD);
        for (at, bit) in flips {
            bytes[at] ^= 1 << bit;
        }
        let path = written("flipped-own.gguf", &bytes);
        if let Ok(model) = GgufModel::open(&path) {
            for error in [model.layout().err(), model.tokenizer().err()].into_iter().flatten() {
                prop_assert!(!error.problems.is_empty());
            }
            if let Ok(tokenizer) = model.tokenizer() {
                let ids = tokenizer.encode(PROMPT).expect("a text");
                prop_assert!(ids.iter().all(|id| *id < model.spec.vocab));
            }
        }
    }
}
