//! Plots as SVG text. Of a run: energy by component, time by kind of op, roofline. Of many: scatter.
//!
//! Laid out by hand in pixels on the SVG backend, so that bytes depend on the record alone: no system font is
//! opened and no text is measured. Labels are anchored where they cannot meet.

mod bars;
mod canvas;
mod roofline;
pub mod scatter;

use std::collections::BTreeMap;

use crate::error::WriteError;
use crate::facts::Phase;
use crate::record::RunRecord;
use bars::{Bar, BarChart};

/// Bars drawn before the rest is summed into one.
const BARS: usize = 14;

/// Energy of the run by component, largest first.
///
/// # Errors
/// When the backend refuses to draw.
pub fn energy_by_component(record: &RunRecord) -> Result<String, WriteError> {
    let one = |(name, &value): (&String, &f64)| Bar { name: name.clone(), parts: vec![value] };
    BarChart {
        plot: "energy_by_component",
        title: "Energy by component".to_owned(),
        subtitle: subtitle(record),
        unit: "J",
        series: vec!["energy"],
        bars: largest(record.energy.by_component.iter().map(one).collect()),
    }
    .draw()
}

/// Time spent in each kind of op, prefill and decode apart, largest first.
///
/// # Errors
/// When the backend refuses to draw.
pub fn time_by_kind(record: &RunRecord) -> Result<String, WriteError> {
    let mut kinds: BTreeMap<&str, [f64; 2]> = BTreeMap::new();
    for op in &record.ops {
        let slot = match op.phase {
            Phase::Prefill => 0,
            Phase::Decode => 1,
        };
        kinds.entry(&op.kind).or_default()[slot] += op.duration_s;
    }
    let one = |(name, parts): (&str, [f64; 2])| Bar { name: name.to_owned(), parts: parts.to_vec() };
    BarChart {
        plot: "time_by_kind",
        title: "Time by kind of op (sum of durations)".to_owned(),
        subtitle: subtitle(record),
        unit: "s",
        series: vec!["prefill", "decode"],
        bars: largest(kinds.into_iter().map(one).collect()),
    }
    .draw()
}

/// Operations per byte against operations per second, one point per kind of op and phase, under the roofs.
///
/// # Errors
/// When the backend refuses to draw.
pub fn roofline(record: &RunRecord) -> Result<String, WriteError> {
    roofline::draw(record, &subtitle(record))
}

fn subtitle(record: &RunRecord) -> String {
    let w = &record.workload;
    format!(
        "{} {} on {}, {} prompt tokens, {} tokens made",
        record.model.name, record.model.quant, record.soc.name, w.prompt_tokens, w.decode_tokens
    )
}

/// Bars by size, the smallest folded into one at the end.
fn largest(mut bars: Vec<Bar>) -> Vec<Bar> {
    bars.sort_by(|a, b| b.sum().total_cmp(&a.sum()).then_with(|| a.name.cmp(&b.name)));
    if bars.len() > BARS {
        let rest = bars.split_off(BARS - 1);
        let width = rest.first().map_or(0, |b| b.parts.len());
        let parts = (0..width).map(|i| rest.iter().map(|b| b.parts[i]).sum()).collect();
        bars.push(Bar { name: format!("the rest ({})", rest.len()), parts });
    }
    bars
}
