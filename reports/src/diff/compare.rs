//! The comparison: every metric of the gate judged in its own direction, with the ops behind each change for the worse.

use std::collections::BTreeMap;

use super::gate::{Gate, Tolerance};
use crate::columns::{COLUMNS, Column, Direction};
use crate::facts::Phase;
use crate::record::RunRecord;

/// Contributions kept per metric.
const CONTRIBUTIONS: usize = 3;

/// Name of the part of a change that no op accounts for.
pub const OUTSIDE: &str = "outside ops";

/// What became of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Worse than the tolerance allows.
    Regressed,
    /// Better by more than the tolerance.
    Improved,
    /// Within the tolerance.
    Within,
}

impl Verdict {
    /// The word used in files.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Regressed => "regressed",
            Self::Improved => "improved",
            Self::Within => "within",
        }
    }
}

/// All ops of one kind in one phase, as far as they moved a metric.
#[derive(Clone, Debug, PartialEq)]
pub struct Contribution {
    /// `prefill.qkv`, or [`OUTSIDE`].
    pub what: String,
    /// Unit of both figures.
    pub unit: &'static str,
    /// Sum in the base run, per token where the metric is.
    pub base: f64,
    /// The same in the new run.
    pub new: f64,
}

/// One metric in both runs.
#[derive(Clone, Debug)]
pub struct Change {
    /// The metric.
    pub column: &'static Column,
    /// In the base run.
    pub base: f64,
    /// In the new run.
    pub new: f64,
    /// What was allowed.
    pub tolerance: Tolerance,
    /// Judgement.
    pub verdict: Verdict,
    /// What moved it most, largest first; empty unless it regressed.
    pub contributions: Vec<Contribution>,
}

impl Change {
    /// Change as a share of the base value, where that has one.
    #[must_use]
    pub fn relative(&self) -> Option<f64> {
        (self.base != 0.0).then(|| (self.new - self.base) / self.base.abs())
    }
}

/// The whole comparison.
#[derive(Clone, Debug)]
pub struct Diff {
    /// Every compared metric, in the order of the column table.
    pub changes: Vec<Change>,
    /// What else is different: chip, model, workload, firmware, memory path.
    pub notes: Vec<String>,
}

impl Diff {
    /// The metrics that got worse.
    pub fn regressed(&self) -> impl Iterator<Item = &Change> {
        self.changes.iter().filter(|c| c.verdict == Verdict::Regressed)
    }

    /// Whether nothing got worse.
    #[must_use]
    pub fn passes(&self) -> bool {
        self.regressed().next().is_none()
    }
}

/// Holds `new` against `base`.
///
/// # Errors
/// The paths of compared metrics that only one run has, each with the side that lacks it.
pub fn compare(base: &RunRecord, new: &RunRecord, gate: &Gate) -> Result<Diff, Vec<(String, Side)>> {
    let (mut changes, mut missing) = (Vec::new(), Vec::new());
    for column in COLUMNS {
        let Some(tolerance) = gate.tolerance(column) else { continue };
        match ((column.get)(base), (column.get)(new)) {
            (Some(a), Some(b)) => changes.push(change(column, tolerance, (base, a), (new, b))),
            // A metric the gate names must be there; a headline may be absent from both (no second token, no TPOT).
            (None, None) if gate.metric.contains_key(column.path) => {
                missing.push((column.path.to_owned(), Side::Both));
            }
            (None, None) => {}
            (Some(_), None) => missing.push((column.path.to_owned(), Side::New)),
            (None, Some(_)) => missing.push((column.path.to_owned(), Side::Base)),
        }
    }
    if missing.is_empty() { Ok(Diff { changes, notes: notes(base, new) }) } else { Err(missing) }
}

/// Which record lacks a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The base.
    Base,
    /// The new one.
    New,
    /// Both.
    Both,
}

fn change(
    column: &'static Column,
    tolerance: Tolerance,
    (base_run, base): (&RunRecord, f64),
    (new_run, new): (&RunRecord, f64),
) -> Change {
    let verdict = judge(column.direction, base, new, tolerance.allowed(base));
    let contributions = match verdict {
        Verdict::Regressed => contributions(column, (base_run, base), (new_run, new)),
        Verdict::Improved | Verdict::Within => Vec::new(),
    };
    Change { column, base, new, tolerance, verdict, contributions }
}

/// A metric without a direction may not leave its tolerance either way.
fn judge(direction: Direction, base: f64, new: f64, allowed: f64) -> Verdict {
    let worse = match direction {
        Direction::Lower => new - base,
        Direction::Higher => base - new,
        Direction::Neutral => (new - base).abs(),
    };
    match worse {
        w if w > allowed => Verdict::Regressed,
        w if w < -allowed => Verdict::Improved,
        _ => Verdict::Within,
    }
}

/// What of an op adds up to a metric.
struct Measure {
    phase: Option<Phase>,
    quantity: Quantity,
    per_token: bool,
    /// The metric itself is this sum plus what lies outside the ops.
    sums: bool,
}

/// What is summed over ops.
#[derive(Clone, Copy)]
enum Quantity {
    /// Time by which an op moved the end of the work before it.
    Time,
    Energy,
    Bytes,
}

impl Quantity {
    const fn unit(self) -> &'static str {
        match self {
            Self::Time => "s",
            Self::Energy => "J",
            Self::Bytes => "B",
        }
    }
}

fn measure(path: &str) -> Option<Measure> {
    use Quantity::{Bytes, Energy, Time};
    let m = |phase, quantity, per_token, sums| Some(Measure { phase, quantity, per_token, sums });
    match path {
        "time.ttft_s" => m(Some(Phase::Prefill), Time, false, true),
        "throughput.prefill_tok_per_s" => m(Some(Phase::Prefill), Time, false, false),
        "time.tpot_mean_s" => m(Some(Phase::Decode), Time, true, true),
        "time.tpot_p50_s" | "time.tpot_p99_s" | "throughput.decode_tok_per_s" => {
            m(Some(Phase::Decode), Time, true, false)
        }
        "time.total_s" => m(None, Time, false, true),
        "efficiency.effective_tops" | "efficiency.utilisation" => m(None, Time, false, false),
        "energy.total_j" => m(None, Energy, false, true),
        "energy.prefill_j" => m(Some(Phase::Prefill), Energy, false, true),
        "energy.decode_j_per_token" => m(Some(Phase::Decode), Energy, true, true),
        "power.mean_w" | "efficiency.tops_per_w.npu_rail" | "efficiency.tops_per_w.workload" => {
            m(None, Energy, false, false)
        }
        "dram.read_bytes" | "dram.write_bytes" => m(None, Bytes, false, false),
        "dram.decode_read_bytes_per_token" => m(Some(Phase::Decode), Bytes, true, false),
        _ => None,
    }
}

/// Sums by `phase.kind`. Ops overlap, so an op is credited with the time by which it moved the end of all before it:
/// then ops and the gaps between them add up to the time that passed.
fn sums(run: &RunRecord, measure: &Measure) -> BTreeMap<String, f64> {
    let later = run.workload.decode_tokens.saturating_sub(1).max(1);
    let share = if measure.per_token { 1.0 / later as f64 } else { 1.0 };
    let mut sums = BTreeMap::new();
    let mut frontier = 0.0f64;
    for op in &run.ops {
        let end = op.start_s + op.duration_s;
        let moved = (end - frontier.max(op.start_s)).max(0.0);
        frontier = frontier.max(end);
        if measure.phase.is_some_and(|phase| phase != op.phase) {
            continue;
        }
        let value = match measure.quantity {
            Quantity::Time => moved,
            Quantity::Energy => op.energy_j,
            Quantity::Bytes => op.dram_bytes as f64,
        };
        *sums.entry(format!("{}.{}", op.phase.word(), op.kind)).or_insert(0.0) += share * value;
    }
    sums
}

/// Both sums side by side, what hardly moved left out, largest change first.
fn largest(
    before: &BTreeMap<String, f64>,
    after: &BTreeMap<String, f64>,
    unit: &'static str,
) -> Vec<Contribution> {
    let keys = before.keys().chain(after.keys().filter(|k| !before.contains_key(*k)));
    let mut list: Vec<Contribution> = keys
        .map(|key| Contribution {
            what: key.clone(),
            unit,
            base: before.get(key).copied().unwrap_or(0.0),
            new: after.get(key).copied().unwrap_or(0.0),
        })
        .collect();
    // Differences far below the change of the whole are rounding, not causes.
    let whole: f64 = list.iter().map(|c| (c.new - c.base).abs()).sum();
    list.retain(|c| (c.new - c.base).abs() > whole * 1e-3);
    list.sort_by(|a, b| (b.new - b.base).abs().total_cmp(&(a.new - a.base).abs()).then(a.what.cmp(&b.what)));
    list.truncate(CONTRIBUTIONS);
    list
}

fn contributions(
    column: &Column,
    (base_run, base): (&RunRecord, f64),
    (new_run, new): (&RunRecord, f64),
) -> Vec<Contribution> {
    let Some(measure) = measure(column.path) else { return Vec::new() };
    let (mut before, mut after) = (sums(base_run, &measure), sums(new_run, &measure));
    if measure.sums {
        let outside = |metric: f64, sums: &BTreeMap<String, f64>| metric - sums.values().sum::<f64>();
        before.insert(OUTSIDE.to_owned(), outside(base, &before));
        after.insert(OUTSIDE.to_owned(), outside(new, &after));
    }
    let mut list = largest(&before, &after, measure.quantity.unit());
    if matches!(measure.quantity, Quantity::Energy) && measure.phase.is_none() {
        let parts = |run: &RunRecord| -> BTreeMap<String, f64> {
            run.energy.by_component.iter().map(|(k, v)| (format!("component {k}"), *v)).collect()
        };
        list.extend(largest(&parts(base_run), &parts(new_run), "J"));
    }
    list
}

/// What should be known when reading the table.
fn notes(base: &RunRecord, new: &RunRecord) -> Vec<String> {
    let mut notes = Vec::new();
    let mut note = |what: &str, a: &str, b: &str| {
        if a != b {
            notes.push(format!("{what}: {a} -> {b}"));
        }
    };
    note("chip", &base.soc.name, &new.soc.name);
    note("model", &base.model.name, &new.model.name);
    note("quantisation", &base.model.quant, &new.model.quant);
    for (what, of) in [
        ("prompt tokens", (|r| r.workload.prompt_tokens) as fn(&RunRecord) -> u64),
        ("tokens made", |r| r.workload.decode_tokens),
        ("resident tokens", |r| r.workload.context_tokens),
        ("seed", |r| r.workload.seed),
    ] {
        note(what, &of(base).to_string(), &of(new).to_string());
    }
    note("memory path", base.memory_model.word(), new.memory_model.word());
    let policy = |r: &RunRecord| r.policy.as_ref().map_or("none".to_owned(), |p| p.name.clone());
    note("policy", &policy(base), &policy(new));
    note("version", &base.version, &new.version);
    if base.firmware.sha256 != new.firmware.sha256 {
        notes.push("firmware: another build".to_owned());
    }
    if base.soc.hash != new.soc.hash {
        configuration(&base.config, &new.config, "", &mut notes);
    }
    notes
}

/// Values of the resolved configuration that are different, by path.
fn configuration(a: &serde_json::Value, b: &serde_json::Value, path: &str, notes: &mut Vec<String>) {
    use serde_json::Value;
    match (a, b) {
        (Value::Object(x), Value::Object(y)) => {
            let mut keys: Vec<&String> = x.keys().chain(y.keys().filter(|k| !x.contains_key(*k))).collect();
            keys.dedup();
            for key in keys {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                let absent = Value::Null;
                configuration(x.get(key).unwrap_or(&absent), y.get(key).unwrap_or(&absent), &path, notes);
            }
        }
        (Value::Array(x), Value::Array(y)) if x.len() == y.len() => {
            for (index, (x, y)) in x.iter().zip(y).enumerate() {
                configuration(x, y, &format!("{path}[{index}]"), notes);
            }
        }
        _ if a != b => notes.push(format!("{path}: {a} -> {b}")),
        _ => {}
    }
}
