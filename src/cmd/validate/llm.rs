//! The llm suite: text of the modelled phone against a float reference of the same weights.

use std::path::Path;

use serde::Deserialize;

use super::rows::{Checked, options_of};
use crate::cmd::{read_text, run};
use crate::error::CliError;
use crate::session;

/// Largest reference file that is read.
const MOST_BYTES: u64 = 1 << 26;
/// Below this margin to the second best, in nats, two float programs may choose differently.
const MARGIN: f64 = 0.05;
/// Largest mean and largest single difference of log-probabilities, in nats.
const MEAN: f64 = 0.005;
const MOST: f64 = 0.05;

/// Beyond this mean difference from a program with quantised activations, in nats, it is another model.
const ANOTHER: f64 = 1.0;

/// Prompts and what a float program makes of them; other fields are of no interest here.
#[derive(Deserialize)]
struct Reference {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    prompt: String,
    prompt_ids: Vec<u32>,
    f32_greedy: Vec<Token>,
    /// Tokens of a program that quantises activations.
    #[serde(default)]
    tokens: Vec<Quantised>,
}

#[derive(Deserialize)]
struct Quantised {
    id: u32,
    logprob: f64,
}

#[derive(Deserialize)]
struct Token {
    id: u32,
    logprob: f64,
    margin: f64,
}

/// Mean and largest difference of log-probabilities from those expected.
fn differences(expected: impl Iterator<Item = f64>, found: &[f64]) -> (f64, f64) {
    let all: Vec<f64> = expected.zip(found).map(|(a, b)| (a - b).abs()).collect();
    (all.iter().sum::<f64>() / all.len().max(1) as f64, all.iter().fold(0.0, |a: f64, b| a.max(*b)))
}

/// Runs every prompt.
///
/// # Errors
/// If a file is wrong or a run ends early.
pub(super) fn check(gguf: &Path, reference: &Path) -> Result<Vec<Checked>, CliError> {
    let text = read_text(reference, MOST_BYTES)?;
    let parsed: Reference =
        serde_json::from_str(&text).map_err(|e| CliError::input(format!("{}: {e}", reference.display())))?;
    let source = format!("float reference: {}", reference.display());
    let mut out = Vec::new();
    for case in &parsed.cases {
        let row = |metric: &str, model: f64, reference: f64, error: f64, band: f64, note: String| Checked {
            suite: "llm",
            case: case.prompt.clone(),
            metric: metric.to_owned(),
            model,
            reference,
            error_percent: error,
            band_percent: band,
            pass: error.abs() <= band,
            source: source.clone(),
            note,
        };
        let count = case.f32_greedy.len().max(1).to_string();
        let gguf = gguf.display().to_string();
        let words = ["--model", &gguf, "--prompt", &case.prompt, "--decode", &count];
        let request = options_of::<run::Args>(&words)?.request()?;
        let same = request.text.as_ref().is_some_and(|job| job.prompt == case.prompt_ids);
        let share = if same { 1.0 } else { 0.0 };
        out.push(row("prompt_ids", share, 1.0, 100.0 * (share - 1.0), 0.0, String::new()));
        let record = session::run(&request, &mut |_| {})?.record;
        let Some(output) = record.output else {
            return Err(CliError::Simulation("a functional run has no output".to_owned()));
        };
        let agreed = case.f32_greedy.iter().zip(&output.tokens).take_while(|(r, t)| r.id == **t).count();
        // From the first choice the reference itself was unsure of, the texts may differ.
        let sure = case.f32_greedy.iter().position(|t| t.margin < MARGIN).unwrap_or(case.f32_greedy.len());
        let held = if agreed >= sure { 0.0 } else { 100.0 * (agreed as f64 / sure as f64 - 1.0) };
        let note = format!("{sure} tokens until the reference's margin is below {MARGIN} nats");
        out.push(row("equal_tokens", agreed as f64, case.f32_greedy.len() as f64, held, 0.0, note));
        let expected = case.f32_greedy.iter().take(agreed).map(|r| r.logprob);
        let (mean, most) = differences(expected, &output.logprobs);
        let nats = |band| format!("band: {band} nats on {agreed} equal tokens; per cent are of a nat");
        out.push(row("logprob_mean_difference_nats", mean, 0.0, 100.0 * mean, 100.0 * MEAN, nats(MEAN)));
        out.push(row("logprob_most_difference_nats", most, 0.0, 100.0 * most, 100.0 * MOST, nats(MOST)));
        // That program is no reference: its noise is reported beside ours, and only another model would fail.
        let alike = case.tokens.iter().zip(&output.tokens).take_while(|(q, t)| q.id == **t).count();
        if alike > 0 {
            let (mean, most) =
                differences(case.tokens.iter().take(alike).map(|q| q.logprob), &output.logprobs);
            let note = format!("{most} at most on {alike} equal tokens; reported");
            let mut told =
                row("quantised_logprob_mean_difference_nats", mean, 0.0, 100.0 * mean, 100.0 * ANOTHER, note);
            told.source = format!("program with quantised activations: {}", reference.display());
            out.push(told);
        }
    }
    Ok(out)
}
