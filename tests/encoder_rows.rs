//! Encoders of images and sound, and long texts, on whole chips: records, counts, cycles and what is refused.

mod common;
#[allow(dead_code, reason = "only a part of what the tests on chips share is needed here")]
#[path = "support/soc.rs"]
mod soc;

use common::presil;
use serde_json::Value;
use soc::{Case, Compute};
use traces::workload::{Encoder, Extras, Family, ModelSpec, Stem};

/// A file for one test.
fn file(name: &str, content: &str) -> String {
    let path = format!("{}/{name}", env!("CARGO_TARGET_TMPDIR"));
    std::fs::write(&path, content).expect("a temporary file");
    path
}

fn run(arguments: &[&str]) -> Value {
    let ran = presil(&[&["run", "--json"], arguments].concat());
    assert_eq!(ran.code, 0, "{arguments:?}: {}", ran.err);
    serde_json::from_str(&ran.out).expect("one JSON document")
}

fn macs(record: &Value, kind: &str) -> u64 {
    let ops = record["ops"].as_array().expect("ops");
    ops.iter().filter(|o| o["kind"] == kind).map(|o| o["macs"].as_u64().expect("a count")).sum()
}

const WHISPER: &str = r#"{"model_type": "whisper", "d_model": 192, "encoder_layers": 2, "encoder_attention_heads": 3,
  "encoder_ffn_dim": 400, "num_mel_bins": 80, "max_source_positions": 600, "vocab_size": 51865}"#;
const SIGLIP: &str = r#"{"model_type": "siglip", "vision_config": {"hidden_size": 288, "intermediate_size": 300,
  "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 98, "patch_size": 14}}"#;
const VIT: &str = r#"{"architectures": ["ViTForImageClassification"], "model_type": "vit", "hidden_size": 128,
  "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 96, "patch_size": 16}"#;

#[test]
fn small_towers_count_what_their_shapes_ask_for() {
    // Rows, width, heads' width together, hidden layer, stem, keys a row sees: all rows; padding is not counted.
    for (text, name, rows, d, ffn, stem) in [
        (WHISPER, "whisper.json", 600u64, 192u64, 400u64, 1200 * 240 * 192 + 600 * 576 * 192),
        (SIGLIP, "siglip.json", 49, 288, 300, 49 * 588 * 288),
        (VIT, "vit.json", 37, 128, 256, 36 * 768 * 128),
    ] {
        let path = file(name, text);
        for quant in ["fp16", "w8a8"] {
            let record = run(&["--soc", "tiny", "--model", &path, "--quant", quant]);
            let layers = 2;
            assert_eq!(macs(&record, "embed"), stem, "{name} {quant}");
            assert_eq!(macs(&record, "qkv"), layers * rows * d * 3 * d, "{name} {quant}");
            assert_eq!(macs(&record, "attention"), layers * 2 * rows * rows * d, "{name} {quant}");
            assert_eq!(macs(&record, "out_proj"), layers * rows * d * d, "{name} {quant}");
            assert_eq!(macs(&record, "gate_up"), layers * rows * d * ffn, "{name} {quant}");
            assert_eq!(macs(&record, "down"), layers * rows * d * ffn, "{name} {quant}");
            let positive = |at: &str| record.pointer(at).and_then(Value::as_f64).is_some_and(|v| v > 0.0);
            for at in [
                "/time/ttft_s",
                "/throughput/prefill_tok_per_s",
                "/energy/total_j",
                "/efficiency/utilisation",
                "/efficiency/effective_tops",
            ] {
                assert!(positive(at), "{name} {quant}: {at}");
            }
            assert_eq!(record["workload"]["prompt_tokens"], rows, "{name}");
        }
    }
}

#[test]
fn presets_encode_all_their_rows_or_as_many_as_asked_for() {
    let record = run(&["--model", "siglip-so400m", "--quant", "w8a8"]);
    assert_eq!(
        (&record["workload"]["prompt_tokens"], &record["model"]["params"]),
        (&729.into(), &428_225_600u64.into())
    );
    assert_eq!(macs(&record, "attention"), 27 * 2 * 729 * 729 * 1152);
    assert_eq!(macs(&record, "embed"), 729 * 588 * 1152);
    let part = run(&["--soc", "tiny", "--model", "whisper-small-encoder", "--prefill", "40"]);
    assert_eq!(
        (&part["workload"]["prompt_tokens"], &part["model"]["params"]),
        (&40.into(), &88_154_112u64.into())
    );
    assert_eq!(macs(&part, "embed"), (80 * 240 + 40 * 2304) * 768);
    assert_eq!(macs(&part, "gate_up"), 12 * 40 * 768 * 3072);
}

#[test]
fn what_they_cannot_be_asked_is_refused() {
    let path = file("whisper-asked.json", WHISPER);
    for (arguments, says) in [
        (
            vec!["--model", "siglip-so400m", "--prompt", "a cat"],
            "--prompt: `siglip-so400m` encodes images, no text",
        ),
        (vec!["--model", "whisper-small-encoder", "--prompt", "a"], "encodes sound, no text"),
        (vec!["--model", &path, "--decode", "4"], "--decode: `whisper-asked` is an encoder"),
        (vec!["--model", &path, "--context", "4"], "--context: `whisper-asked` is an encoder"),
        (vec!["--model", &path, "--prefill", "601"], "takes at most 600"),
    ] {
        let ran = presil(&[&["run"], arguments.as_slice()].concat());
        assert_eq!(ran.code, 3, "{arguments:?}: {}", ran.err);
        assert!(ran.err.contains(says), "{arguments:?}: {}", ran.err);
    }
}

/// An encoder of that stem, or of texts without one.
fn case(stem: Option<Stem>, rows: u32, quant: &str) -> Case {
    let plain = soc::small_model();
    let token_types = if stem.is_some() { 0 } else { 2 };
    let extras = Extras { encoder: Some(Encoder { token_types }), stem, ..Extras::default() };
    let spec = ModelSpec {
        family: if stem.is_some() { Family::Vit } else { Family::Bert },
        kv_heads: 4,
        vocab: if stem.is_some() { 1 } else { 320 },
        qkv_bias: true,
        max_position: rows,
        extras,
        ..plain
    };
    let prompt = soc::prompt(&spec, rows);
    Case { spec, prompt, decode: 0, chunk: rows, ..Case::new::<&str>(&[], quant) }
}

#[test]
fn runs_without_values_take_the_cycles_of_those_with() {
    let patches = Stem::Patches { values: 75, class: true, head_params: 0 };
    for (stem, rows) in [(Some(patches), 390), (Some(Stem::Frames { bins: 16 }), 301), (None, 700)] {
        for quant in ["fp16", "w8a8"] {
            let case = case(stem, rows, quant);
            let run = |compute: &Compute| {
                let mut builder = case.builder(compute);
                builder.model.bulk_bytes += 16 << 20;
                builder.build().expect("a chip").run(&mut |_| {}).expect("no fault")
            };
            let (values, shapes) = (run(&Compute::Values), run(&Compute::Shapes(Vec::new())));
            let what = format!("{stem:?} {quant}");
            assert_eq!(values.end, shapes.end, "{what}");
            assert_eq!(values.npu.macs, shapes.npu.macs, "{what}");
            assert_eq!(values.digest, shapes.digest, "{what}");
            let layers: std::collections::BTreeSet<u64> = values.ops.iter().map(|o| o.key.mark).collect();
            assert!(layers.len() > 3, "several chunks: {layers:?}");
            let vector = &values.embedding.as_ref().expect("a result").1;
            assert!(vector.len() == 128 && vector.iter().all(|v| v.is_finite()), "{what}");
        }
    }
}
