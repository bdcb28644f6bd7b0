//! Texts of a GGUF file with a SentencePiece vocabulary, and its long frequency factors, on the modelled phone.

mod common;
#[allow(dead_code, reason = "only a part of the writer is needed here")]
mod gguf_writer;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::presil;
use gguf_writer::{LLAMA, Meta, assemble, assemble_with, keys, parts, spec};
use proptest::prelude::*;
use serde_json::{Value, json};
use traces::gguf::GgufModel;
use traces::image::Tensor;
use traces::workload::{Family, ModelSpec, Rope, RopeLayout};

/// As Llama 2 talks.
const TEMPLATE: &str = "{% for m in messages %}{% if m.role == 'user' %}{{ bos_token + '[INST] ' + m.content.strip() + ' \
                        [/INST]' }}{% else %}{{ ' ' + m.content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}";

fn words() -> Vec<String> {
    let mut out = ["<unk>", "<s>", "</s>"].map(str::to_owned).to_vec();
    out.extend((0..=255).map(|b: u8| format!("<0x{b:02X}>")));
    let pieces = ["▁t", "he", "▁the", "▁e", "nd", "▁end", "▁", "e", "t", "h", "n", "d", "▁i"];
    out.extend(pieces.map(str::to_owned));
    out
}

fn vocabulary() -> Vec<(String, Meta)> {
    let words = words();
    let types = (0..words.len()).map(|i| match i {
        0 => 2,
        1 | 2 => 3,
        3..259 => 6,
        _ => 1,
    });
    let scores = (0u16..).take(words.len()).map(|i| if i < 259 { 0.0 } else { 259.0 - f32::from(i) });
    let all = [
        ("model", Meta::Text("llama".to_owned())),
        ("token_type", Meta::Integers(types.collect())),
        ("scores", Meta::Floats(scores.collect())),
        ("tokens", Meta::Texts(words)),
        ("unknown_token_id", Meta::Number(0)),
        ("bos_token_id", Meta::Number(1)),
        ("eos_token_id", Meta::Number(2)),
        ("chat_template", Meta::Text(TEMPLATE.to_owned())),
    ];
    let place = |key: &str| if key == "chat_template" { "tokenizer" } else { "tokenizer.ggml" };
    all.into_iter().map(|(key, value)| (format!("{}.{key}", place(key)), value)).collect()
}

fn written(name: &str, bytes: &[u8]) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, bytes).expect("a temporary file");
    path
}

fn constants(architecture: &str) -> [(String, Meta); 2] {
    [("rope.freq_base", 10_000.0), ("attention.layer_norm_rms_epsilon", 1e-5)]
        .map(|(key, value)| (format!("{architecture}.{key}"), Meta::Float(value)))
}

fn llama(name: &str) -> PathBuf {
    written(name, &llama_file())
}

fn llama_file() -> Vec<u8> {
    let s = spec();
    let mut meta = keys("llama", &s);
    meta.extend(constants("llama"));
    meta.extend(vocabulary());
    let whole = [("token_embd.weight", Tensor::Embed), ("output_norm.weight", Tensor::FinalNorm)];
    assemble(&s, &meta, &parts(&s, &whole, &LLAMA), &[])
}

fn record(path: &Path, extra: &[&str]) -> Value {
    let model = path.to_str().expect("UTF-8");
    let ran = presil(&[&["run", "--soc", "tiny", "--model", model, "--json"], extra].concat());
    assert_eq!(ran.code, 0, "{extra:?}: {}", ran.err);
    serde_json::from_str(&ran.out).expect("one JSON document")
}

#[test]
fn a_text_is_pieces_and_the_answer_streams_as_it_reads() {
    let path = llama("pieces-run.gguf");
    let extra = ["--prompt", "the end é", "--decode", "12"];
    let output = record(&path, &extra)["output"].clone();
    let words = words();
    let id = |word: &str| words.iter().position(|w| w == word).expect("a word");
    let expected = ["<s>", "▁the", "▁end", "▁", "<0xC3>", "<0xA9>"].map(id);
    assert_eq!(output["prompt_ids"], json!(expected));
    let tokenizer = GgufModel::open(&path).expect("a file").tokenizer().expect("a tokenizer");
    let ids: Vec<u32> = serde_json::from_value(output["tokens"].clone()).expect("ids");
    assert_eq!(output["text"], tokenizer.decode(&ids));
    let model = path.to_str().expect("UTF-8");
    let ran = presil(&[&["run", "--soc", "tiny", "--model", model], &extra[..]].concat());
    let text = output["text"].as_str().expect("text");
    let start = text.split('\u{FFFD}').next().expect("a beginning");
    assert!(ran.code == 0 && ran.out.starts_with(start), "{:?} {text:?}", ran.out);
}

#[test]
fn a_conversation_keeps_what_it_knows() {
    let path = llama("pieces-chat.gguf");
    let mut child = Command::new(env!("CARGO_BIN_EXE_presil"))
        .args(["chat", "--soc", "tiny", "--model", path.to_str().expect("UTF-8"), "--json", "--most", "4"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts");
    child.stdin.take().expect("piped").write_all(b"the end\nthe\n").expect("read");
    let out = child.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{said}");
    let record: Value = serde_json::from_slice(&out.stdout).expect("JSON");
    let turns = record["turns"].as_array().expect("turns");
    // <s> ▁ [ I N S T ] ▁the ▁end ▁ [ / I N S T ]: read once, and known when the second question comes.
    assert_eq!((turns[0]["read_tokens"].as_u64(), turns[0]["reused_tokens"].as_u64()), (Some(18), Some(0)));
    assert!(turns[1]["reused_tokens"].as_u64() >= Some(18), "{record}");
    let tokenizer = GgufModel::open(&path).expect("a file").tokenizer().expect("a tokenizer");
    for turn in turns {
        let mut ids: Vec<u32> = serde_json::from_value(turn["tokens"].clone()).expect("ids");
        ids.retain(|id| *id != 2);
        assert_eq!(turn["text"], tokenizer.decode_whole(&ids));
    }
}

/// A Phi 3 whose original context is 32 of 128 positions.
fn phi(name: &str, long: Option<Vec<f32>>) -> PathBuf {
    let s = ModelSpec {
        family: Family::Phi3,
        tied_embedding: false,
        rope: Rope { layout: RopeLayout::Half, ..spec().rope },
        ..spec()
    };
    let mut meta = keys("phi3", &s);
    meta.extend(constants("phi3"));
    meta.push(("phi3.rope.scaling.attn_factor".to_owned(), Meta::Float(1.25)));
    meta.push(("phi3.rope.scaling.original_context_length".to_owned(), Meta::Number(32)));
    meta.extend(vocabulary());
    let whole = [
        ("token_embd.weight", Tensor::Embed),
        ("output_norm.weight", Tensor::FinalNorm),
        ("output.weight", Tensor::Head),
    ];
    let mut layer = LLAMA.to_vec();
    layer.retain(|(n, _)| ["attn_norm", "ffn_norm", "attn_output", "ffn_down"].contains(&&n[..n.len() - 7]));
    layer.push(("attn_qkv.weight", &[Tensor::Query, Tensor::Key, Tensor::Value]));
    layer.push(("ffn_up.weight", &[Tensor::Gate, Tensor::Up]));
    let mut vectors = vec![("rope_factors_short.weight", factors(1.0, 0.125))];
    vectors.extend(long.map(|long| ("rope_factors_long.weight", long)));
    written(name, &assemble_with(&s, &meta, &parts(&s, &whole, &layer), &[], &vectors))
}

fn factors(first: f32, step: f32) -> Vec<f32> {
    (0u8..8).map(|i| first + step * f32::from(i)).collect()
}

#[test]
fn long_runs_of_phi_3_rotate_by_the_long_factors() {
    let path = phi("phi-long.gguf", Some(factors(2.0, 3.5)));
    let model = GgufModel::open(&path).expect("a good file");
    assert_eq!(model.spec.max_position, 128);
    for (positions, first, step) in [(0, 1.0, 0.125), (32, 1.0, 0.125), (33, 2.0, 3.5), (128, 2.0, 3.5)] {
        let layout = model.layout_as(&model.scheme, positions).expect("a layout");
        for (i, angle) in (0u8..8).zip(&layout.inv_freq) {
            let i = f64::from(i);
            let expected = 10_000f64.powf(-i / 8.0) / (first + step * i);
            assert!((f64::from(*angle) / expected - 1.0).abs() < 1e-6, "{positions} {i}: {angle}");
        }
        // Queries and keys are stretched by the attention factor alike: 1.25 squared, over the root of 16.
        let scale = f32::from_bits(u32::try_from(layout.header.att_scale).expect("fp32"));
        assert!((scale - 1.5625 / 4.0).abs() < 1e-7, "{scale}");
    }
    // The same prompt begins differently in a run that is to become long, and as before in one that is not.
    let first = |decode: &str| {
        let output =
            record(&path, &["--prompt", "the end the end the end", "--decode", decode])["output"].clone();
        output["logprobs"][0].as_f64().expect("a number")
    };
    let [short, longer, long] = ["2", "20", "60"].map(first);
    assert!((short - longer).abs() < 1e-12 && (short - long).abs() > 1e-9, "{short} {longer} {long}");
    // Without long factors the context ends where they would act.
    let path = phi("phi-short.gguf", None);
    assert_eq!(GgufModel::open(&path).expect("a good file").spec.max_position, 32);
    let model = path.to_str().expect("UTF-8");
    let ran = presil(&["run", "--soc", "tiny", "--model", model, "--prompt", "the", "--decode", "60"]);
    assert!(ran.code == 3 && ran.err.contains("takes at most 32"), "{}", ran.err);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_vocabulary_with_flipped_bits_gives_ids_or_says_why(
        flips in prop::collection::vec((0usize..12_000, 0u8..8), 1..4),
    ) {
        use std::sync::LazyLock;
        static GOOD: LazyLock<Vec<u8>> = LazyLock::new(llama_file);
        let mut bytes = GOOD.clone();
        for (at, bit) in flips {
            bytes[at] ^= 1 << bit;
        }
        let path = written("pieces-flipped.gguf", &bytes);
        if let Ok(model) = GgufModel::open(&path) {
            match model.tokenizer() {
                Err(error) => prop_assert!(!error.problems.is_empty()),
                Ok(tokenizer) => {
                    let ids = tokenizer.encode("the end<s> é \u{1F642}  ▁").expect("a text");
                    prop_assert!(ids.iter().all(|id| *id < model.spec.vocab));
                    prop_assert!(!tokenizer.decode_whole(&ids).is_empty());
                }
            }
        }
    }
}
