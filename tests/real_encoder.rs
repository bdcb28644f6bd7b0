//! A real sentence encoder against vectors computed elsewhere. Its files are fetched by `.ci/real_model`, which runs this.

mod common;

use std::io::Write as _;
use std::path::Path;

use common::presil;
use serde_json::Value;

const REFERENCE: &str = include_str!("data/minilm-l6-v2.json");
/// Least cosine of a vector to the reference's in fp16 and w8a8.
const COSINE: f64 = 0.999;
const COSINE_INT8: f64 = 0.98;
/// Similarities that differ by less may change places in w8a8: four times the error of a difference of two, whose
/// square root of mean squares is measured as 0.0096. No order changed in them is further apart than 0.022.
const MARGIN_INT8: f64 = 0.04;
/// Least mean of Kendall's tau over the queries in w8a8; measured 0.953.
const TAU_INT8: f64 = 0.93;

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().expect("a list").iter().map(|v| v.as_f64().expect("a number")).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Similarity of every pair.
fn similarities(vectors: &[Vec<f64>]) -> Vec<Vec<f64>> {
    vectors.iter().map(|a| vectors.iter().map(|b| dot(a, b) / length(a) / length(b)).collect()).collect()
}

fn length(a: &[f64]) -> f64 {
    dot(a, a).sqrt()
}

/// How far a set of vectors is from the reference's.
struct Closeness {
    /// Least cosine of a sentence.
    cosine: f64,
    /// Mean of Kendall's tau over the queries, each ranking all other sentences.
    tau: f64,
    /// Largest difference of similarities in the reference whose order is another here.
    changed: f64,
}

/// The sentences' vectors in a scheme against the reference's.
fn closeness(scheme: &str) -> Closeness {
    let reference: Value = serde_json::from_str(REFERENCE).expect("JSON");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("real-model/all_minilm_l6_v2");
    assert!(folder.is_dir(), "{} is not there: .ci/real_model fetches it", folder.display());
    let folder = folder.to_str().expect("UTF-8");
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for case in reference["cases"].as_array().expect("cases") {
        let text = case["text"].as_str().expect("text");
        let ran = presil(&["run", "--model", folder, "--quant", scheme, "--prompt", text, "--json"]);
        assert_eq!(ran.code, 0, "{text}: {}", ran.err);
        let record: Value = serde_json::from_str(&ran.out).expect("JSON");
        assert_eq!(record["output"]["prompt_ids"], case["prompt_ids"], "{text}");
        ours.push(numbers(&record["output"]["embedding"]));
        theirs.push(numbers(&case["embedding"]));
    }
    let cosines = ours.iter().zip(&theirs).map(|(a, b)| dot(a, b) / length(a) / length(b));
    let cosine = cosines.fold(1.0, f64::min);
    let (ours, theirs) = (similarities(&ours), similarities(&theirs));
    let (mut concordant, mut pairs, mut changed) = (0.0, 0.0, 0.0_f64);
    let count = ours.len();
    for query in 0..count {
        for a in (0..count).filter(|a| *a != query) {
            for b in (a + 1..count).filter(|b| *b != query) {
                let gap = theirs[query][a] - theirs[query][b];
                let same = (gap > 0.0) == (ours[query][a] > ours[query][b]);
                pairs += 1.0;
                concordant += if same { 1.0 } else { 0.0 };
                changed = if same { changed } else { changed.max(gap.abs()) };
            }
        }
    }
    let tau = 2.0 * concordant / pairs - 1.0;
    let line = format!(
        "{scheme} encoder: cosine at least {cosine:.6}, Kendall's tau {tau:.4}, orders changed up to {changed:.4} apart"
    );
    writeln!(std::io::stdout(), "{line}").expect("standard output");
    Closeness { cosine, tau, changed }
}

#[test]
#[ignore = "needs a model of 91 MB: .ci/real_model fetches it"]
fn a_real_encoders_vectors_and_their_order_are_the_references() {
    let fp16 = closeness("fp16");
    assert!(fp16.cosine >= COSINE, "cosine {}", fp16.cosine);
    assert!(fp16.changed <= 0.0, "an order of similarities {} apart changed", fp16.changed);
}

#[test]
#[ignore = "needs a model of 91 MB: .ci/real_model fetches it"]
fn int8_keeps_the_order_of_sentences_that_are_clearly_apart() {
    let int8 = closeness("w8a8");
    assert!(int8.cosine >= COSINE_INT8, "cosine {}", int8.cosine);
    assert!(int8.changed <= MARGIN_INT8, "an order of similarities {} apart changed", int8.changed);
    assert!(int8.tau >= TAU_INT8, "Kendall's tau {}", int8.tau);
}
