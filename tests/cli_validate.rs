//! `presil validate`: every suite holds, a wrong reference fails, and the document has the promised keys.

mod common;
#[allow(dead_code, reason = "only the writer of a good file is needed here")]
mod gguf_writer;

use common::presil;
use gguf_writer::{GOOD, file};
use serde_json::{Value, json};

fn rows(suite: &str) -> Vec<Value> {
    let ran = presil(&["validate", "--suite", suite, "--json"]);
    let rows: Value = serde_json::from_str(&ran.out).expect("one JSON document");
    let rows = rows.as_array().expect("a list").clone();
    let failed: Vec<&Value> = rows.iter().filter(|r| r["pass"] != true).collect();
    assert_eq!((ran.code, failed.len()), (0, 0), "{failed:?} {}", ran.err);
    for row in &rows {
        assert_eq!(row["suite"], suite);
        let number = |key: &str| row[key].as_f64().unwrap_or_else(|| panic!("{key}: {row}"));
        assert!(number("error_percent").abs() <= number("band_percent") + 1e-9, "{row}");
        assert!(number("model").is_finite() && number("reference").is_finite());
        for key in ["case", "metric", "source"] {
            assert!(row[key].as_str().is_some_and(|s| !s.is_empty()), "{key}: {row}");
        }
    }
    rows
}

fn count(rows: &[Value], has: impl Fn(&Value) -> bool) -> usize {
    rows.iter().filter(|r| has(r)).count()
}

#[test]
fn the_npu_suite_holds() {
    let rows = rows("npu");
    let case = |r: &Value, text: &str| r["case"].as_str().is_some_and(|c| c.contains(text));
    let starts = |r: &Value, text: &str| r["case"].as_str().is_some_and(|c| c.starts_with(text));
    let source = |r: &Value, text: &str| r["source"].as_str().is_some_and(|c| c.contains(text));
    let exact = |r: &Value| r["error_percent"] == 0.0 && r["band_percent"] == 0.0;
    assert_eq!(count(&rows, |r| source(r, "SCALE-Sim") && exact(r)), 128);
    assert_eq!(count(&rows, |r| starts(r, "controller") && exact(r)), 242);
    // The one line of RTL that is not met to the cycle: 69 against 67.
    let gap: Vec<&Value> =
        rows.iter().filter(|r| case(r, "redmule one tile K 4") && r["model"] == 69.0).collect();
    assert_eq!(gap.len(), 1);
    assert!(gap[0]["note"].as_str().is_some_and(|n| n.contains("known gap")), "{}", gap[0]);
    // Ours stays between the bound and ONNXim's total, and says what makes the difference.
    let bounded = rows.iter().filter(|r| r["metric"] == "total_cycles (at most)");
    assert!(bounded.clone().count() >= 9);
    assert!(bounded.clone().all(|r| r["note"].as_str().is_some_and(|n| n.contains("over the bound"))));
    // Ranks of TPU products are poor, and reported as they are.
    let ranks: Vec<f64> = rows
        .iter()
        .filter(|r| r["metric"] == "rank_correlation")
        .filter_map(|r| r["model"].as_f64())
        .collect();
    assert_eq!(ranks.len(), 4);
    assert!(ranks.iter().all(|r| (0.15..0.6).contains(r)), "{ranks:?}");
}

#[test]
fn the_dram_suite_holds() {
    let rows = rows("dram");
    assert_eq!(count(&rows, |r| r["band_percent"] == 0.0 && r["metric"] == "ck_cycles"), 4);
    assert_eq!(count(&rows, |r| r["metric"] == "utilisation (points)"), 28);
}

#[test]
fn the_silicon_suite_holds() {
    let rows = rows("silicon");
    let gaps = count(&rows, |r| r["note"].as_str().is_some_and(|n| n.contains("known gap")));
    assert_eq!((rows.len(), gaps), (11, 2));
    // Rows of the known gap are far off on purpose: the model knows nothing of a runtime's maturity.
    assert!(rows.iter().all(|r| {
        let gap = r["note"].as_str().is_some_and(|n| n.contains("known gap"));
        gap == (r["error_percent"].as_f64().is_some_and(|e| e > 45.0))
    }));
}

#[test]
fn text_is_held_against_a_reference_of_the_same_file() {
    let folder = env!("CARGO_TARGET_TMPDIR");
    let (gguf, reference) = (format!("{folder}/validate.gguf"), format!("{folder}/validate.json"));
    std::fs::write(&gguf, file(&GOOD)).expect("a temporary file");
    let prompt = "the end is 42";
    let ran = presil(&["run", "--model", &gguf, "--prompt", prompt, "--decode", "4", "--json"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let record: Value = serde_json::from_str(&ran.out).expect("one JSON document");
    let model = traces::gguf::GgufModel::open(std::path::Path::new(&gguf)).expect("a good file");
    let ids = model.tokenizer().expect("a tokenizer").encode(prompt).expect("a text");
    let tokens = record["output"]["tokens"].as_array().expect("a list");
    let logprobs = record["output"]["logprobs"].as_array().expect("a list");
    let greedy = |wrong: u64, margin: f64| -> Vec<Value> {
        let token = |(id, logprob): (&Value, &Value)| json!({ "id": id.as_u64().expect("an id") ^ wrong, "logprob": logprob, "margin": margin });
        tokens.iter().zip(logprobs).map(token).collect()
    };
    let validate = |greedy: Vec<Value>| {
        let case = json!({ "prompt": prompt, "prompt_ids": ids, "f32_greedy": greedy });
        std::fs::write(&reference, json!({ "cases": [case] }).to_string()).expect("a temporary file");
        presil(&["validate", "--suite", "llm", "--gguf", &gguf, "--reference", &reference, "--json"])
    };
    assert_eq!(validate(greedy(0, 1.0)).code, 0);
    // Other tokens fail, unless the reference itself was not sure of them.
    assert_eq!(validate(greedy(1, 1.0)).code, 1);
    assert_eq!(validate(greedy(1, 0.01)).code, 0);
    std::fs::write(&reference, "{}").expect("a temporary file");
    let ran = presil(&["validate", "--suite", "llm", "--gguf", &gguf, "--reference", &reference]);
    assert_eq!(ran.code, 3);
    assert!(ran.err.contains("missing field `cases`"), "{}", ran.err);
}

#[test]
fn wrong_usage_is_refused() {
    for (options, code) in [
        (&["--suite", "cpu"][..], 2),
        (&["--gguf", "x.gguf"], 2),
        (&["--suite", "llm"], 3),
        (&["--suite", "dram", "--gguf", "x", "--reference", "y"], 3),
        (&["--suite", "llm", "--gguf", "x", "--reference", "no-such.json"], 3),
    ] {
        let ran = presil(&[&["validate"], options].concat());
        assert_eq!(ran.code, code, "{options:?}: {}", ran.err);
    }
}
