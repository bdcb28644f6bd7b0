//! Rows of references: read, checked, printed.

use std::io::Write;

use clap::{Args, Command};
use serde::Serialize;
use serde_json::Value;

use crate::error::CliError;

/// How a model's figure is held against its reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    /// Within the band on either side.
    Equal,
    /// Anything up to the reference and its band.
    AtMost,
    /// Anything from the reference less its band on.
    AtLeast,
    /// Both are shares; the error is their difference in points.
    Points,
}

impl Rule {
    fn named(name: &str) -> Option<Self> {
        match name {
            "equal" => Some(Self::Equal),
            "at-most" => Some(Self::AtMost),
            "at-least" => Some(Self::AtLeast),
            "points" => Some(Self::Points),
            _ => None,
        }
    }

    /// Per cent by which the rule is missed, or the difference.
    fn error(self, model: f64, reference: f64) -> f64 {
        let error = 100.0 * (model / reference - 1.0);
        match self {
            Self::Equal => error,
            Self::AtMost => error.max(0.0),
            Self::AtLeast => error.min(0.0),
            Self::Points => 100.0 * (model - reference),
        }
    }
}

/// One reference.
pub(super) struct Row {
    pub case: String,
    /// Options of the suite's command.
    pub command: String,
    /// JSON pointer; `sum:` before it adds up a list.
    pub metric: String,
    pub reference: f64,
    pub band: f64,
    pub rule: Rule,
    pub source: String,
    pub note: String,
}

/// One row, checked.
#[derive(Debug, Serialize)]
pub(super) struct Checked {
    pub suite: &'static str,
    pub case: String,
    pub metric: String,
    pub model: f64,
    pub reference: f64,
    pub error_percent: f64,
    pub band_percent: f64,
    pub pass: bool,
    pub source: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub note: String,
}

impl Row {
    /// The row against what its command printed.
    pub(super) fn check(&self, suite: &'static str, document: &Value) -> Result<Checked, CliError> {
        let number = |value: &Value, pointer: &str| {
            value.pointer(pointer).and_then(Value::as_f64).ok_or_else(|| {
                CliError::input(format!("{suite}: {}: the command prints no number at {pointer}", self.case))
            })
        };
        let model = match self.metric.strip_prefix("sum:") {
            None => number(document, &self.metric)?,
            Some(pointer) => {
                let list = document.as_array().map(Vec::as_slice).unwrap_or_default();
                list.iter().map(|item| number(item, pointer)).sum::<Result<f64, _>>()?
            }
        };
        let error = self.rule.error(model, self.reference);
        let name = self.metric.trim_start_matches("sum:").trim_start_matches('/').replace('/', ".");
        let suffix = match self.rule {
            Rule::Equal => "",
            Rule::AtMost => " (at most)",
            Rule::AtLeast => " (at least)",
            Rule::Points => " (points)",
        };
        Ok(Checked {
            suite,
            case: self.case.clone(),
            metric: format!("{name}{suffix}"),
            model,
            reference: self.reference,
            error_percent: error,
            band_percent: self.band,
            // Integers are exact; a float's last bits are not an error.
            pass: error.is_finite() && error.abs() <= self.band + 1e-9,
            source: self.source.clone(),
            note: self.note.clone(),
        })
    }
}

const HEADER: &str = "case,command,metric,reference,band_percent,rule,source,note";

/// Reads rows; `#` starts a comment, fields hold no commas.
pub(super) fn parse(file: &str, text: &str) -> Result<Vec<Row>, CliError> {
    let mut rows = Vec::new();
    let mut lines = (1..).zip(text.lines()).filter(|(_, l)| !l.starts_with('#') && !l.trim().is_empty());
    if lines.next().map(|l| l.1) != Some(HEADER) {
        return Err(CliError::input(format!("{file}: expected the header {HEADER}")));
    }
    for (number, line) in lines {
        let bad = |message: &str| CliError::input(format!("{file}:{number}: {message}"));
        let fields: Vec<&str> = line.split(',').map(str::trim).collect();
        let [case, command, metric, reference, band, rule, source, note] = fields[..] else {
            return Err(bad("expected eight fields"));
        };
        let float = |text: &str| text.parse::<f64>().ok().filter(|x| x.is_finite());
        rows.push(Row {
            case: case.to_owned(),
            command: command.to_owned(),
            metric: metric.to_owned(),
            reference: float(reference).ok_or_else(|| bad("reference is no number"))?,
            band: float(band).ok_or_else(|| bad("band is no number"))?,
            rule: Rule::named(rule).ok_or_else(|| bad("rule is none of equal, at-most, at-least, points"))?,
            source: source.to_owned(),
            note: note.to_owned(),
        });
    }
    Ok(rows)
}

/// Options of a command, parsed as its command line would be.
///
/// # Errors
/// As clap says it.
pub(in crate::cmd) fn options<A: Args>(command: &str) -> Result<A, CliError> {
    options_of(&command.split_whitespace().collect::<Vec<_>>())
}

/// The same, already in words.
///
/// # Errors
/// As clap says it.
pub(super) fn options_of<A: Args>(words: &[&str]) -> Result<A, CliError> {
    let words = core::iter::once(&"row").chain(words).copied();
    A::augment_args(Command::new("row"))
        .try_get_matches_from(words)
        .and_then(|matches| A::from_arg_matches(&matches))
        .map_err(|e| CliError::input(e.to_string().replace('\n', " ")))
}

/// A table for people: rows that fail and those that are not exact; the exact ones are counted.
pub(super) fn print(out: &mut dyn Write, checked: &[Checked]) -> Result<(), CliError> {
    writeln!(
        out,
        "{:8} {:52} {:>16} {:>16} {:>9} {:>7}",
        "suite", "case, metric", "model", "reference", "error %", "band %"
    )?;
    let mut exact = 0;
    for c in checked {
        if c.pass && c.error_percent.abs() < 1e-9 && c.band_percent == 0.0 {
            exact += 1;
            continue;
        }
        let name = format!("{}, {}", c.case.escape_debug(), c.metric);
        let mark = if c.pass { "" } else { "  FAILS" };
        writeln!(
            out,
            "{:8} {name:52} {:>16} {:>16} {:>9.2} {:>7}{mark}",
            c.suite,
            short(c.model),
            short(c.reference),
            c.error_percent,
            c.band_percent
        )?;
        if !c.note.is_empty() {
            writeln!(out, "{:8} - {}", "", c.note)?;
        }
    }
    let failed = checked.iter().filter(|c| !c.pass).count();
    writeln!(out, "{} rows: {exact} exact (not listed), {failed} fail", checked.len())?;
    Ok(())
}

/// Whole numbers whole, others with five digits.
fn short(x: f64) -> String {
    if x.fract() == 0.0 { format!("{x}") } else { format!("{x:.5}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_miss_on_their_side_only() {
        for (rule, model, error) in [
            (Rule::Equal, 11.0, 10.0),
            (Rule::Equal, 9.0, -10.0),
            (Rule::AtMost, 9.0, 0.0),
            (Rule::AtMost, 11.0, 10.0),
            (Rule::AtLeast, 11.0, 0.0),
            (Rule::AtLeast, 9.0, -10.0),
        ] {
            assert!((rule.error(model, 10.0) - error).abs() < 1e-9, "{rule:?} {model}");
        }
        assert!((Rule::Points.error(0.72, 0.7) - 2.0).abs() < 1e-9);
    }

    #[test]
    fn a_row_outside_its_band_fails_and_bad_rows_name_their_line() {
        let text = format!("# c\n{HEADER}\na,--x 1,/y,10,5,equal,s,\n");
        let rows = parse("f.csv", &text).unwrap_or_else(|e| panic!("{e}"));
        for (model, pass) in [(10.5, true), (10.6, false), (9.5, true), (9.4, false)] {
            let checked = rows[0].check("npu", &serde_json::json!({ "y": model })).expect("a number");
            assert_eq!(checked.pass, pass, "{model}");
        }
        assert!(rows[0].check("npu", &serde_json::json!({ "z": 1 })).is_err());
        let wrong = text.replace("equal", "about");
        assert!(parse("f.csv", &wrong).is_err_and(|e| e.to_string().contains("f.csv:3: rule")));
        assert!(parse("f.csv", "x\n").is_err());
    }
}
