//! The page a person reads after `presil run`: what came out, what it cost, what it waited for, how far to trust it.

use std::collections::BTreeMap;

use crate::columns::{self, Column};
use crate::record::{RunRecord, TOTAL};

/// Causes that are work rather than waiting; every other cause is a stall.
pub const WORK_CAUSES: &[&str] = &["active", "busy", "compute"];

/// Stall causes shown per kind of engine.
const STALLS_SHOWN: usize = 3;
/// Share of a client's time lost to others from which on it is shown.
const CONTENTION_SHOWN: f64 = 0.01;
/// Components shown before the rest is summed into one line.
const COMPONENTS_SHOWN: usize = 10;

const HEADLINES: &[&str] = &[
    "time.ttft_s",
    "time.tpot_mean_s",
    "time.tpot_p99_s",
    "throughput.prefill_tok_per_s",
    "throughput.decode_tok_per_s",
    "energy.decode_j_per_token",
    "power.mean_w",
    "power.peak_w",
    "efficiency.effective_tops",
    "efficiency.utilisation",
    "area_mm2.total",
    "thermal.junction_c",
    "thermal.skin_c",
];
const EFFICIENCIES: &[&str] =
    &["efficiency.tops_per_w.array_vmin", "efficiency.tops_per_w.npu_rail", "efficiency.tops_per_w.workload"];
const MEMORY: &[&str] =
    &["dram.read_bytes", "dram.write_bytes", "dram.decode_read_bytes_per_token", "dram.bandwidth_gb_per_s"];
const FIRMWARE: &[&str] = &[
    "firmware.instructions",
    "firmware.instructions_per_token",
    "firmware.interrupts",
    "firmware.doorbells",
    "boot.time_s",
    "boot.energy_j",
];

/// A number with its unit at four significant digits, with a prefix where the unit takes one.
#[must_use]
pub fn quantity(value: f64, unit: &str) -> String {
    const PREFIXES: [(f64, &str); 8] =
        [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "u"), (1e-9, "n")];
    match unit {
        "" if value.fract() == 0.0 && value.abs() >= 1.0 => grouped(value),
        "" => significant(value),
        "share" => format!("{:.2} %", 100.0 * value),
        "s" | "J" | "W" | "B" if value != 0.0 => {
            let fits = |&&(factor, prefix): &&(f64, &str)| {
                value.abs() >= factor * 0.999_95 && (prefix != "k" && prefix != "M" || unit == "B")
            };
            let (factor, prefix) = PREFIXES.iter().find(fits).copied().unwrap_or((1e-9, "n"));
            format!("{} {prefix}{unit}", significant(value / factor))
        }
        _ => format!("{} {unit}", significant(value)),
    }
}

fn significant(value: f64) -> String {
    if value == 0.0 {
        return String::from("0");
    }
    let places = [(1e3, 0), (1e2, 1), (1e1, 2), (1.0, 3), (0.1, 4)]
        .into_iter()
        .find(|(least, _)| value.abs() >= least * 0.999_95)
        .map_or(6, |(_, places)| places);
    format!("{value:.places$}")
}

/// A whole number with a space between groups of three digits.
fn grouped(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::from(if value < 0.0 { "-" } else { "" });
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

fn percent(share: f64) -> String {
    format!("{:5.1} %", 100.0 * share)
}

/// Columns of a section that have a value in this record.
fn present<'a>(
    paths: &'a [&str],
    record: &'a RunRecord,
) -> impl Iterator<Item = (&'static Column, f64)> + 'a {
    paths.iter().filter_map(|path| columns::find(path)).filter_map(|c| (c.get)(record).map(|v| (c, v)))
}

fn metrics(lines: &mut Vec<String>, paths: &[&str], record: &RunRecord) {
    lines.extend(present(paths, record).map(|(c, v)| format!("  {:<32}{:>14}", c.name, quantity(v, c.unit))));
}

/// The whole page, ending in a line feed.
#[must_use]
pub fn text(record: &RunRecord) -> String {
    let mut lines = vec![title(record), asked(record), String::new()];
    metrics(&mut lines, HEADLINES, record);
    lines.push(String::new());
    energy(&mut lines, record);
    lines.push(String::new());
    lines.push("Efficiency (useful operations = 2 x unpadded MACs)".to_owned());
    for (c, v) in present(EFFICIENCIES, record) {
        lines.push(format!("  {:<32}{:>14}   {}", c.name, quantity(v, c.unit), c.description));
    }
    lines.push(String::new());
    lines.push(format!("Memory ({} path)", record.memory_model.word()));
    metrics(&mut lines, MEMORY, record);
    lines.push(format!(
        "  {:<32}{:>14}   {} of peak",
        "DRAM peak bandwidth",
        quantity(record.dram.peak_gb_per_s, "GB/s"),
        percent(record.dram.utilisation).trim_start()
    ));
    traffic(&mut lines, record);
    if let Some(slc) = &record.slc {
        let found: u64 = slc.by_client.values().map(|c| c.hit_read_bytes + c.hit_write_bytes).sum();
        let share = format!("{} of lines found", percent(slc.hit_rate).trim_start());
        lines.push(format!("  {:<32}{:>14}   {share}", "System cache", quantity(found as f64, "B")));
    }
    lines.push(String::new());
    stalls(&mut lines, record);
    contention(&mut lines, record);
    lines.push(String::new());
    lines.push("Firmware".to_owned());
    metrics(&mut lines, FIRMWARE, record);
    if let Some(output) = &record.output {
        lines.push(String::new());
        lines.push("Output".to_owned());
        if output.embedding.is_empty() {
            lines.push(format!("  {}", output.text.escape_debug()));
        } else {
            lines.extend(embedding(&output.embedding));
        }
        if let Some(score) = &output.score {
            lines.push(String::new());
            lines.push(format!("Scored on {} given tokens", output.tokens.len()));
            lines.push(format!("  {:<32}{:>14.4}", "Perplexity", score.perplexity));
            lines.push("        token  log-probability        chosen".to_owned());
            for ((token, logprob), chosen) in output.tokens.iter().zip(&output.logprobs).zip(&score.chosen) {
                lines.push(format!("  {token:>11}{logprob:>17.5}{chosen:>14}"));
            }
        }
    }
    lines.push(String::new());
    lines.push(format!(
        "Validity: headline figures within {} % of silicon. {}",
        record.validity.band_percent, record.validity.basis
    ));
    lines.push(format!("Digest {}", record.digest));
    lines.join("\n") + "\n"
}

/// Size and length of an encoder's vector, and how it begins.
fn embedding(values: &[f32]) -> Vec<String> {
    let length = values.iter().map(|v| f64::from(*v) * f64::from(*v)).sum::<f64>().sqrt();
    let first: Vec<String> = values.iter().take(4).map(|v| format!("{v:.5}")).collect();
    vec![
        format!("  {:<32}{:>14}", "Embedding, values", values.len()),
        format!("  {:<32}{length:>14.5}", "Embedding, length"),
        format!("  {:<32}  {} ...", "Embedding, first values", first.join(" ")),
    ]
}

fn title(record: &RunRecord) -> String {
    let policy = record.policy.as_ref().map_or(String::new(), |p| format!(", policy {}", p.name));
    format!("{} {} on {}{policy}", record.model.name, record.model.quant, record.soc.name)
}

fn asked(record: &RunRecord) -> String {
    let w = &record.workload;
    format!(
        "{} prompt tokens, {} tokens made, {} resident, seed {}",
        w.prompt_tokens, w.decode_tokens, w.context_tokens, w.seed
    )
}

fn energy(lines: &mut Vec<String>, record: &RunRecord) {
    lines.push(format!("Energy {}", quantity(record.energy.total_j, "J")));
    let total = record.energy.total_j;
    let share = |v: f64| if total > 0.0 { v / total } else { 0.0 };
    let mut parts: Vec<(&str, f64)> =
        record.energy.by_component.iter().map(|(k, &v)| (k.as_str(), v)).collect();
    parts.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(b.0)));
    let rest = parts.split_off(parts.len().min(COMPONENTS_SHOWN));
    let line = |name: &str, v: f64| format!("  {name:<32}{:>14}  {}", quantity(v, "J"), percent(share(v)));
    lines.extend(parts.iter().map(|(name, v)| line(name, *v)));
    if !rest.is_empty() {
        lines.push(line(&format!("the rest ({})", rest.len()), rest.iter().map(|r| r.1).sum()));
    }
}

/// An engine's name with every number replaced, so that the cores of one kind share a line.
fn kind_of(engine: &str) -> String {
    let mut kind = String::new();
    for c in engine.chars() {
        if !c.is_ascii_digit() {
            kind.push(c);
        } else if !kind.ends_with('*') {
            kind.push('*');
        }
    }
    kind
}

fn stalls(lines: &mut Vec<String>, record: &RunRecord) {
    lines.push("Where cycles went (work, then the largest stalls)".to_owned());
    let mut kinds: BTreeMap<String, BTreeMap<&str, u64>> = BTreeMap::new();
    for (engine, causes) in &record.cycles {
        let sums = kinds.entry(kind_of(engine)).or_default();
        for (cause, n) in causes {
            *sums.entry(cause).or_default() += n;
        }
    }
    for (kind, causes) in kinds {
        let total = causes.get(TOTAL).copied().unwrap_or(0);
        let share = |n: u64| if total > 0 { n as f64 / total as f64 } else { 0.0 };
        let work: u64 = WORK_CAUSES.iter().filter_map(|cause| causes.get(cause)).sum();
        let mut waits: Vec<(&str, u64)> = causes
            .iter()
            .filter(|(cause, n)| **cause != TOTAL && **n > 0 && !WORK_CAUSES.contains(cause))
            .map(|(cause, n)| (*cause, *n))
            .collect();
        waits.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
        let mut line = format!("  {kind:<24}{}", percent(share(work)));
        for (cause, n) in waits.into_iter().take(STALLS_SHOWN) {
            line.push_str(&format!("   {cause} {}", percent(share(n)).trim_start()));
        }
        lines.push(line);
    }
}

fn traffic(lines: &mut Vec<String>, record: &RunRecord) {
    for (content, t) in &record.dram.traffic {
        let bytes = quantity((t.read_bytes + t.write_bytes) as f64, "B");
        let per_bit = t.pj_per_bit.map_or(String::new(), |p| format!("   {p:.2} pJ/bit"));
        lines.push(format!("  {:<32}{bytes:>14}{per_bit}", format!("of it {content}")));
    }
}

/// Who was slowed by whom, where it is worth a line; cores of one kind share one.
fn contention(lines: &mut Vec<String>, record: &RunRecord) {
    let mut kinds: BTreeMap<String, (f64, BTreeMap<String, f64>)> = BTreeMap::new();
    for (victim, w) in &record.contention {
        let kind = kinds.entry(kind_of(victim)).or_default();
        kind.0 += w.spent_s;
        w.by.iter().for_each(|(a, to)| *kind.1.entry(kind_of(a)).or_default() += to.lost_s);
    }
    let mut rows = Vec::new();
    for (victim, (spent, by)) in kinds {
        let lost: f64 = by.values().sum();
        if lost < CONTENTION_SHOWN * spent || lost == 0.0 {
            continue;
        }
        let mut by: Vec<(String, f64)> = by.into_iter().collect();
        by.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        let mut line = format!("  {victim:<24}{:>6} x", significant(spent / (spent - lost).max(1e-15)));
        for (aggressor, lost) in by.into_iter().take(STALLS_SHOWN).filter(|b| b.1 >= 0.001 * spent) {
            line.push_str(&format!("   {aggressor} {}", percent(lost / spent).trim_start()));
        }
        rows.push(line);
    }
    if !rows.is_empty() {
        lines.push(String::new());
        lines.push("Memory shared (time of transfers over time alone; share of it lost to whom)".to_owned());
        lines.extend(rows);
    }
}

#[cfg(test)]
mod tests {
    use super::{EFFICIENCIES, FIRMWARE, HEADLINES, MEMORY, columns};

    #[test]
    fn every_section_names_metrics_that_exist() {
        for path in [HEADLINES, EFFICIENCIES, MEMORY, FIRMWARE].concat() {
            assert!(columns::find(path).is_some(), "{path}");
        }
    }
}
