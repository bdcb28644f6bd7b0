//! What counts as worse: the gate file, read strictly, every problem with its line.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use serde_json::{Value, json};
use soc_model::config::nearest;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::columns::{self, COLUMNS};

/// How much worse a metric may get. With both limits given, the wider one counts.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tolerance {
    /// Share of the base value.
    pub relative: Option<f64>,
    /// In the metric's unit.
    pub absolute: Option<f64>,
}

impl Tolerance {
    /// Room around `base`, in the metric's unit.
    #[must_use]
    pub fn allowed(&self, base: f64) -> f64 {
        (self.relative.unwrap_or(0.0) * base.abs()).max(self.absolute.unwrap_or(0.0))
    }
}

/// Tolerances by metric.
#[derive(Clone, Debug, PartialEq)]
pub struct Gate {
    /// For headline metrics without a row of their own.
    pub default: Tolerance,
    /// Rows by path; any metric may have one.
    pub metric: BTreeMap<String, Tolerance>,
}

impl Default for Gate {
    /// One percent on the headline metrics.
    fn default() -> Self {
        Self { default: Tolerance { relative: Some(0.01), absolute: None }, metric: BTreeMap::new() }
    }
}

/// Everything wrong with a gate file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct GateError {
    /// One message a problem, each with file, line and key.
    pub problems: Vec<String>,
}

impl fmt::Display for GateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problems.join("\n"))
    }
}

impl Gate {
    /// Reads a gate; `place` is its file name.
    ///
    /// # Errors
    /// Every unknown key, unknown metric and value that is no tolerance, with its line.
    pub fn parse(place: &str, text: &str) -> Result<Self, GateError> {
        let mut reader = Reader { place, text, problems: Vec::new() };
        let gate = reader.gate();
        if reader.problems.is_empty() { Ok(gate) } else { Err(GateError { problems: reader.problems }) }
    }

    /// The tolerance of a metric, if it is compared at all.
    #[must_use]
    pub fn tolerance(&self, column: &columns::Column) -> Option<Tolerance> {
        self.metric.get(column.path).copied().or(column.headline.then_some(self.default))
    }
}

struct Reader<'a> {
    place: &'a str,
    text: &'a str,
    problems: Vec<String>,
}

impl Reader<'_> {
    fn problem(&mut self, span: &Range<usize>, key: &str, message: &str) {
        let start = span.start.min(self.text.len());
        let number = 1 + self.text.as_bytes()[..start].iter().filter(|b| **b == b'\n').count();
        let line = self.text.lines().nth(number - 1).unwrap_or("").trim();
        let key = if key.is_empty() { String::new() } else { format!("{key}: ") };
        self.problems.push(format!("{}:{number}: {key}{message}\n  | {line}", self.place));
    }

    fn unknown(&mut self, span: &Range<usize>, path: &str, what: &str, name: &str, valid: &[&str]) {
        let help = match nearest(name, valid.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None if valid.len() <= 4 => format!("valid here: {}", valid.join(", ")),
            None => "METRICS.md lists them all".to_owned(),
        };
        self.problem(span, path, &format!("no such {what}\n  help: {help}"));
    }

    fn gate(&mut self) -> Gate {
        let mut gate = Gate { metric: BTreeMap::new(), ..Gate::default() };
        let root = match DeTable::parse(self.text) {
            Ok(root) => root,
            Err(error) => {
                let message = error.message().to_owned();
                self.problem(&error.span().unwrap_or(0..0), "", &message);
                return gate;
            }
        };
        for (key, value) in root.get_ref() {
            match key.get_ref().as_ref() {
                "default" => gate.default = self.tolerance("default", value),
                "metric" => match value.get_ref() {
                    DeValue::Table(rows) => self.rows(rows, &mut gate),
                    _ => self.problem(&value.span(), "metric", "expected a table of metrics"),
                },
                other => self.unknown(&key.span(), other, "key", other, &["default", "metric"]),
            }
        }
        gate
    }

    fn rows(&mut self, rows: &DeTable<'_>, gate: &mut Gate) {
        let paths: Vec<&str> = COLUMNS.iter().map(|c| c.path).collect();
        for (key, value) in rows {
            let name = key.get_ref().as_ref();
            let path = format!("metric.\"{name}\"");
            if columns::find(name).is_some() {
                let tolerance = self.tolerance(&path, value);
                gate.metric.insert(name.to_owned(), tolerance);
            } else if paths.iter().any(|p| p.starts_with(&format!("{name}."))) {
                let help = format!("quote the whole path: [metric.\"{name}.…\"]");
                self.problem(&key.span(), &path, &format!("no such metric\n  help: {help}"));
            } else {
                self.unknown(&key.span(), &path, "metric", name, &paths);
            }
        }
    }

    fn tolerance(&mut self, path: &str, value: &Spanned<DeValue<'_>>) -> Tolerance {
        let mut tolerance = Tolerance::default();
        let DeValue::Table(table) = value.get_ref() else {
            self.problem(&value.span(), path, "expected a table with `relative`, `absolute` or both");
            return tolerance;
        };
        if table.is_empty() {
            self.problem(&value.span(), path, "expected `relative`, `absolute` or both");
        }
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            match name {
                "relative" => tolerance.relative = self.limit(&format!("{path}.relative"), value),
                "absolute" => tolerance.absolute = self.limit(&format!("{path}.absolute"), value),
                _ => self.unknown(
                    &key.span(),
                    &format!("{path}.{name}"),
                    "key",
                    name,
                    &["relative", "absolute"],
                ),
            }
        }
        tolerance
    }

    fn limit(&mut self, path: &str, value: &Spanned<DeValue<'_>>) -> Option<f64> {
        let number: Option<f64> = match value.get_ref() {
            DeValue::Float(f) => f.as_str().replace('_', "").parse().ok(),
            DeValue::Integer(i) => i.as_str().replace('_', "").parse().ok(),
            _ => None,
        };
        let number = number.filter(|n| n.is_finite() && *n >= 0.0);
        if number.is_none() {
            self.problem(&value.span(), path, "expected a number of at least 0, for example 0.02");
        }
        number
    }
}

/// JSON Schema of a gate file.
#[must_use]
pub fn gate_schema() -> Value {
    let number = |text: &str| json!({ "type": "number", "minimum": 0, "description": text });
    let tolerance = json!({
        "type": "object",
        "description": "How much worse a metric may get; with both limits, the wider one counts.",
        "properties": {
            "relative": number("Share of the base value."),
            "absolute": number("In the metric's unit."),
        },
        "additionalProperties": false,
        "minProperties": 1,
    });
    let metrics: serde_json::Map<String, Value> = COLUMNS
        .iter()
        .map(|c| {
            let text = format!("{} ({}; better: {})", c.description, c.name, c.direction.word());
            (c.path.to_owned(), json!({ "$ref": "#/$defs/tolerance", "description": text }))
        })
        .collect();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Gate: what counts as worse",
        "type": "object",
        "properties": {
            "default": {
                "$ref": "#/$defs/tolerance",
                "description": "For headline metrics without a row of their own; 1 % if absent.",
            },
            "metric": {
                "type": "object",
                "description": "Rows by the metric's path; a row replaces the default.",
                "properties": metrics,
                "additionalProperties": false,
            },
        },
        "additionalProperties": false,
        "$defs": { "tolerance": tolerance },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_gives_its_rows_and_the_default_to_headlines() {
        let gate = Gate::parse(
            "gate.toml",
            "[default]\nrelative = 0.02\n[metric.\"time.ttft_s\"]\nrelative = 0.01\nabsolute = 1e-3\n\
             [metric.\"dram.utilisation\"]\nabsolute = 0\n",
        )
        .expect("a good gate");
        let of = |path: &str| gate.tolerance(columns::find(path).expect("a metric"));
        assert_eq!(of("time.ttft_s"), Some(Tolerance { relative: Some(0.01), absolute: Some(0.001) }));
        assert_eq!(of("energy.total_j"), Some(Tolerance { relative: Some(0.02), absolute: None }));
        assert_eq!(of("dram.utilisation"), Some(Tolerance { relative: None, absolute: Some(0.0) }));
        assert_eq!(of("power.mean_w"), None);
        assert_eq!(of("time.ttft_s").expect("a row").allowed(0.2), 0.002);
    }

    #[test]
    fn every_problem_has_its_line_and_the_nearest_name() {
        let text = "[default]\nrelativ = 0.02\n[metric.\"time.ttft\"]\nrelative = -1\n[metric.\"time.ttft_s\"]\n\
                    relative = \"1 %\"\n[metric.time]\nx = 1\n[gates]\n";
        let error = Gate::parse("g.toml", text).expect_err("a bad gate").to_string();
        for part in [
            "g.toml:2: default.relativ: no such key",
            "did you mean `relative`?",
            "g.toml:3: metric.\"time.ttft\": no such metric",
            "did you mean `time.ttft_s`?",
            "g.toml:6: metric.\"time.ttft_s\".relative: expected a number",
            "quote the whole path",
            "g.toml:9: gates: no such key",
        ] {
            assert!(error.contains(part), "{part} is not in:\n{error}");
        }
        let error = Gate::parse("g.toml", "[default\n").expect_err("not TOML").to_string();
        assert!(error.starts_with("g.toml:1: "), "{error}");
    }

    #[test]
    fn the_schema_names_every_metric() {
        let schema = gate_schema();
        let metrics = schema["properties"]["metric"]["properties"].as_object().expect("properties");
        assert_eq!(metrics.len(), COLUMNS.len());
    }
}
