//! Every model preset on the smallest chip and on the one with most cores and least scratchpad each.

mod common;

use common::presil;
use serde_json::Value;

#[test]
fn every_model_runs_or_says_that_memory_is_too_small() {
    let listed = presil(&["list", "models"]);
    let mut ran = 0;
    for model in listed.out.lines() {
        for chip in ["tiny", "a18-pro"] {
            let rows: &[&str] = if model.contains("encoder") || model.contains("siglip") {
                &["--prefill", "40"]
            } else {
                &["--prefill", "4", "--decode", "2"]
            };
            let done = presil(&[&["run", "--soc", chip, "--model", model, "--json"], rows].concat());
            if done.code == 3 && done.err.contains("dram.capacity is") {
                continue;
            }
            assert_eq!(done.code, 0, "{model} on {chip}: {}", done.err);
            let record: Value = serde_json::from_str(&done.out).expect("one JSON document");
            assert!(record["time"]["total_s"].as_f64() > Some(0.0), "{model} on {chip}");
            ran += 1;
        }
    }
    assert!(ran >= 20, "{ran} runs");
}
