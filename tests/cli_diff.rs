//! `presil diff`: a regression exits 1 and says where it came from, an improvement never fails, bad input exits 3 with
//! its place.

mod common;

use common::{Ran, presil};
use serde_json::{Value, json};

const BASE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/baselines/tiny-qwen2.5-1.5b.json");

fn path(name: &str) -> String {
    format!("{}/diff-{name}", env!("CARGO_TARGET_TMPDIR"))
}

fn file(name: &str, content: impl AsRef<[u8]>) -> String {
    let path = path(name);
    std::fs::write(&path, content).expect("a temporary file");
    path
}

fn base() -> Value {
    serde_json::from_str(&std::fs::read_to_string(BASE).expect("a baseline")).expect("JSON")
}

/// A copy of the baseline with one change.
fn changed(name: &str, change: impl FnOnce(&mut Value)) -> String {
    let mut record = base();
    change(&mut record);
    file(name, serde_json::to_string_pretty(&record).expect("JSON"))
}

fn scale(record: &mut Value, pointer: &str, factor: f64) {
    let value = record.pointer_mut(pointer).expect("a metric of the baseline");
    *value = json!(value.as_f64().expect("a number") * factor);
}

fn diff(new: &str, more: &[&str]) -> Ran {
    presil(&[&["diff", BASE, new][..], more].concat())
}

fn refused(new: &str, parts: &[&str]) {
    for order in [["diff", BASE, new], ["diff", new, BASE]] {
        let ran = presil(&order);
        assert_eq!(ran.code, 3, "{}", ran.err);
        assert!(ran.out.is_empty(), "{}", ran.out);
        for part in parts {
            assert!(ran.err.contains(part), "`{part}` is not in: {}", ran.err);
        }
    }
}

#[test]
fn a_run_is_no_worse_than_itself() {
    let ran = diff(BASE, &["--json"]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    let document: Value = serde_json::from_str(&ran.out).expect("one JSON document");
    assert_eq!(document["pass"], json!(true));
    let metrics = document["metrics"].as_array().expect("metrics");
    assert!(metrics.len() >= 8 && metrics.iter().all(|m| m["verdict"] == "within" && m["change"] == 0.0));
}

#[test]
fn half_the_memory_speed_names_metrics_and_ops() {
    let run = |name: &str, sets: &[&str]| {
        let folder = path(name);
        let fixed = [
            "run",
            "--soc",
            "tiny",
            "--model",
            "qwen2.5-1.5b",
            "--prefill",
            "4",
            "--decode",
            "2",
            "-o",
            &folder,
        ];
        let ran = presil(&[&fixed[..], sets].concat());
        assert_eq!(ran.code, 0, "{}", ran.err);
        folder
    };
    let full = run("full", &[]);
    let half = run("half", &["--set", "dram.frequency-scale=0.5"]);
    let (markdown, junit) = (path("half.md"), path("half.xml"));
    let ran = presil(&["diff", &full, &half, "--json", "--markdown", &markdown, "--junit", &junit]);
    assert_eq!(ran.code, 1, "{}", ran.err);
    assert!(ran.err.contains("time.tpot_mean_s (Time per output token, mean)"), "{}", ran.err);
    let document: Value = serde_json::from_str(&ran.out).expect("one JSON document");
    let metrics = document["metrics"].as_array().expect("metrics");
    let tpot = metrics.iter().find(|m| m["path"] == "time.tpot_mean_s").expect("a headline");
    let from = tpot["contributions"].as_array().expect("contributions");
    // Memory-bound decode: the widest matrices lose most, and no op gets its time back.
    assert!(
        from.iter().any(|c| c["what"] == "decode.gate_up" && c["change"].as_f64() > Some(0.0)),
        "{from:?}"
    );
    let moved: f64 = from.iter().filter_map(|c| c["change"].as_f64()).sum();
    let whole = tpot["change"].as_f64().expect("a number");
    assert!(moved > 0.5 * whole && moved < 1.001 * whole, "{moved} of {whole} explained");
    assert!(
        document["notes"].to_string().contains("frequency_scale_permille: 1000 -> 500"),
        "{}",
        document["notes"]
    );

    let regressed = document["regressed"].as_array().expect("paths").len();
    let (markdown, junit) = (std::fs::read_to_string(markdown), std::fs::read_to_string(junit));
    assert!(markdown.expect("Markdown").contains("| Decode rate (`throughput.decode_tok_per_s`) |"));
    assert_eq!(junit.expect("JUnit").matches("<failure ").count(), regressed);

    // The other way round everything got better: nothing fails.
    let ran = presil(&["diff", &half, &full]);
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    assert!(ran.out.contains("improved"), "{}", ran.out);
}

#[test]
fn direction_and_tolerance_decide() {
    let faster = changed("faster.json", |r| scale(r, "/throughput/decode_tok_per_s", 2.0));
    assert_eq!(diff(&faster, &[]).code, 0);
    let slower = changed("slower.json", |r| scale(r, "/throughput/decode_tok_per_s", 0.97));
    let ran = diff(&slower, &[]);
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("1 of") && ran.err.contains("throughput.decode_tok_per_s"), "{}", ran.err);
    let wide = file("wide.toml", "[metric.\"throughput.decode_tok_per_s\"]\nrelative = 0.05\n");
    assert_eq!(diff(&slower, &["--gate", &wide]).code, 0);
    let absolute = file("absolute.toml", "[metric.\"throughput.decode_tok_per_s\"]\nabsolute = 1e-6\n");
    assert_eq!(diff(&slower, &["--gate", &absolute]).code, 1);
    // Not a headline: compared only where the gate names it.
    let wordy = changed("wordy.json", |r| scale(r, "/firmware/instructions_per_token", 1.5));
    assert_eq!(diff(&wordy, &[]).code, 0);
    let gate = file("wordy.toml", "[metric.\"firmware.instructions_per_token\"]\nrelative = 0.1\n");
    assert_eq!(diff(&wordy, &["--gate", &gate]).code, 1);
}

#[test]
fn what_is_no_record_is_an_error_with_a_place() {
    let line = |key: &str| {
        let text = std::fs::read_to_string(BASE).expect("a baseline");
        1 + text.lines().position(|l| l.contains(key)).expect("a line with the key")
    };
    let at = format!(":{}: ", line("\"ttft_s\""));
    let text = std::fs::read_to_string(BASE).expect("a baseline");
    let value = base()["time"]["ttft_s"].to_string();
    let nan = file("nan.json", text.replacen(&format!("\"ttft_s\": {value}"), "\"ttft_s\": NaN", 1));
    refused(&nan, &["diff-nan.json", &at, "\"ttft_s\": NaN"]);
    let null = changed("null.json", |r| r["time"]["ttft_s"] = Value::Null);
    refused(&null, &["diff-null.json", &at, "time.ttft_s is null"]);
    let word = changed("word.json", |r| r["time"]["ttft_s"] = json!("fast"));
    refused(&word, &["diff-word.json", &at, "expected f64"]);
    let missing =
        changed("missing.json", |r| drop(r["time"].as_object_mut().expect("a map").remove("ttft_s")));
    refused(&missing, &["diff-missing.json:", "missing field `ttft_s`"]);
    let optional =
        changed("optional.json", |r| drop(r["time"].as_object_mut().expect("a map").remove("tpot_mean_s")));
    refused(&optional, &["diff-optional.json: time.tpot_mean_s: missing"]);
    let schema = changed("schema.json", |r| r["schema"] = json!("presil.run/2"));
    refused(&schema, &["diff-schema.json:2: ", "\"presil.run/2\", expected \"presil.run/1\""]);
    let cut = file("cut.json", &text[..text.len() / 2]);
    refused(&cut, &["diff-cut.json:", "EOF"]);
    refused(&file("binary.json", b"{\"schema\": \xff}"), &["diff-binary.json: offset 11: not UTF-8"]);
    refused(&file("other.json", "[1, 2]"), &["diff-other.json: schema: missing"]);
    refused(&path("none.json"), &["diff-none.json: cannot be read"]);
}

#[test]
fn a_wrong_gate_is_an_error_with_a_place() {
    let gate =
        file("typo.toml", "[default]\nrelative = 0.02\n\n[metric.\"time.ttft\"]\nrelative = \"1 %\"\n");
    let ran = diff(BASE, &["--gate", &gate]);
    assert_eq!(ran.code, 3);
    assert!(ran.err.contains("typo.toml:4: metric.\"time.ttft\": no such metric"), "{}", ran.err);
    assert!(ran.err.contains("did you mean `time.ttft_s`?"), "{}", ran.err);
    let gate = file("cut.toml", "[default\n");
    assert!(diff(BASE, &["--gate", &gate]).err.contains("cut.toml:1: "));
    let schema = presil(&["schema", "gate"]);
    let schema: Value = serde_json::from_str(&schema.out).expect("one JSON document");
    assert!(schema.pointer("/properties/metric/properties/time.ttft_s").is_some());
}
