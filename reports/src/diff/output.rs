//! A comparison as text for the terminal, Markdown, JUnit XML and JSON.

use serde_json::{Value, json};

use super::compare::{Change, Contribution, Diff, Verdict};
use crate::summary::quantity;

/// Notes printed before the rest is counted.
const NOTES: usize = 12;

fn percent(change: &Change) -> String {
    change.relative().map_or_else(|| "-".to_owned(), |r| format!("{:+.2} %", 100.0 * r))
}

/// Tolerance in words: `1 %`, `0.5 mJ`, `2 % or 1 mJ`.
fn limit(change: &Change) -> String {
    let relative = change.tolerance.relative.map(|r| format!("{} %", trimmed(100.0 * r)));
    let absolute = change.tolerance.absolute.map(|a| quantity(a, change.column.unit));
    match (relative, absolute) {
        (Some(r), Some(a)) => format!("{r} or {a}"),
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => "0".to_owned(),
    }
}

fn trimmed(value: f64) -> String {
    let text = format!("{value:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn contribution(c: &Contribution) -> String {
    let sign = if c.new < c.base { "-" } else { "+" };
    let moved = quantity((c.new - c.base).abs(), c.unit);
    format!("{} {sign}{moved} ({} -> {})", c.what, quantity(c.base, c.unit), quantity(c.new, c.unit))
}

fn verdict_line(diff: &Diff) -> String {
    let of = |v: Verdict| diff.changes.iter().filter(|c| c.verdict == v).count();
    format!(
        "{} metrics compared: {} regressed, {} improved, {} within tolerance",
        diff.changes.len(),
        of(Verdict::Regressed),
        of(Verdict::Improved),
        of(Verdict::Within)
    )
}

fn notes(diff: &Diff) -> Vec<String> {
    let mut notes: Vec<String> = diff.notes.iter().take(NOTES).cloned().collect();
    if diff.notes.len() > NOTES {
        notes.push(format!("and {} more differences", diff.notes.len() - NOTES));
    }
    notes
}

/// The regressed metrics in one line: path and name of each.
#[must_use]
pub fn regressions(diff: &Diff) -> String {
    let names: Vec<String> =
        diff.regressed().map(|c| format!("{} ({}) {}", c.column.path, c.column.name, percent(c))).collect();
    format!("{} of {} metrics regressed: {}", names.len(), diff.changes.len(), names.join(", "))
}

/// The table a terminal shows.
#[must_use]
pub fn text(diff: &Diff) -> String {
    let mut lines = vec![format!(
        "{:<30} {:>14} {:>14} {:>10} {:>12}  verdict",
        "metric", "base", "new", "change", "tolerance"
    )];
    for c in &diff.changes {
        lines.push(format!(
            "{:<30} {:>14} {:>14} {:>10} {:>12}  {}",
            c.column.name,
            quantity(c.base, c.column.unit),
            quantity(c.new, c.column.unit),
            percent(c),
            limit(c),
            c.verdict.word()
        ));
        lines.extend(c.contributions.iter().map(|one| format!("    from {}", contribution(one))));
    }
    lines.push(String::new());
    lines.push(verdict_line(diff));
    if !diff.notes.is_empty() {
        lines.push("Also different:".to_owned());
        lines.extend(notes(diff).into_iter().map(|note| format!("  {note}")));
    }
    lines.push(String::new());
    lines.join("\n")
}

/// A section for a pull request or a job summary.
#[must_use]
pub fn markdown(diff: &Diff) -> String {
    let head = if diff.passes() { "No regression" } else { "Regression" };
    let mut lines = vec![
        format!("### {head}"),
        String::new(),
        verdict_line(diff) + ".",
        String::new(),
        "| metric | base | new | change | tolerance | verdict |".to_owned(),
        "|---|---:|---:|---:|---:|---|".to_owned(),
    ];
    for c in &diff.changes {
        let strong = if c.verdict == Verdict::Regressed { "**" } else { "" };
        lines.push(format!(
            "| {} (`{}`) | {} | {} | {} | {} | {strong}{}{strong} |",
            c.column.name,
            c.column.path,
            quantity(c.base, c.column.unit),
            quantity(c.new, c.column.unit),
            percent(c),
            limit(c),
            c.verdict.word()
        ));
    }
    for c in diff.regressed().filter(|c| !c.contributions.is_empty()) {
        lines.push(String::new());
        lines.push(format!("**{}** comes from:", c.column.name));
        lines.push(String::new());
        lines.extend(c.contributions.iter().map(|one| format!("- {}", contribution(one))));
    }
    if !diff.notes.is_empty() {
        lines.push(String::new());
        lines.push("Also different:".to_owned());
        lines.push(String::new());
        lines.extend(notes(diff).into_iter().map(|note| format!("- `{}`", note.replace('`', "'"))));
    }
    lines.push(String::new());
    lines.join("\n")
}

fn xml(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // XML 1.0 has no way to write these.
            c if c.is_control() && c != '\n' && c != '\t' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// JUnit XML: one test case a metric, as CI systems read it.
#[must_use]
pub fn junit(diff: &Diff, suite: &str) -> String {
    let failures = diff.regressed().count();
    let mut text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites tests=\"{n}\" failures=\"{failures}\">\n  \
         <testsuite name=\"{}\" tests=\"{n}\" failures=\"{failures}\" errors=\"0\" skipped=\"0\">\n",
        xml(suite),
        n = diff.changes.len(),
    );
    for c in &diff.changes {
        let case = format!("    <testcase classname=\"presil.diff\" name=\"{}\"", xml(c.column.path));
        if c.verdict != Verdict::Regressed {
            text.push_str(&format!("{case}/>\n"));
            continue;
        }
        let message = format!(
            "{}: {} -> {} ({}), tolerance {}",
            c.column.name,
            quantity(c.base, c.column.unit),
            quantity(c.new, c.column.unit),
            percent(c),
            limit(c)
        );
        let from: Vec<String> = c.contributions.iter().map(contribution).collect();
        text.push_str(&format!(
            "{case}>\n      <failure type=\"regression\" message=\"{}\">{}</failure>\n    </testcase>\n",
            xml(&message),
            xml(&from.join("\n"))
        ));
    }
    text.push_str("  </testsuite>\n</testsuites>\n");
    text
}

/// The JSON document.
#[must_use]
pub fn document(diff: &Diff, base: &str, new: &str) -> Value {
    let metrics: Vec<Value> = diff
        .changes
        .iter()
        .map(|c| {
            let from: Vec<Value> = c
                .contributions
                .iter()
                .map(|one| {
                    let change = one.new - one.base;
                    json!({ "what": one.what, "unit": one.unit, "base": one.base, "new": one.new, "change": change })
                })
                .collect();
            let mut row = json!({
                "path": c.column.path,
                "name": c.column.name,
                "unit": c.column.unit,
                "better": c.column.direction.word(),
                "base": c.base,
                "new": c.new,
                "change": c.new - c.base,
                "allowed": c.tolerance.allowed(c.base),
                "verdict": c.verdict.word(),
                "contributions": from,
            });
            if let (Some(relative), Some(row)) = (c.relative(), row.as_object_mut()) {
                row.insert("relative".to_owned(), json!(relative));
            }
            row
        })
        .collect();
    let regressed: Vec<&str> = diff.regressed().map(|c| c.column.path).collect();
    json!({
        "schema": "presil.diff/1",
        "base": base,
        "new": new,
        "pass": diff.passes(),
        "regressed": regressed,
        "metrics": metrics,
        "notes": diff.notes,
    })
}
