//! What a sweep may set: options of `presil run` and `--set` paths, and the request that a choice of them makes.

use std::fmt;

use clap::{CommandFactory, Parser};
use serde::Serialize;
use soc_model::config::{ConfigError, check_set, nearest, resolve};
use traces::workload::{QuantScheme, WorkloadError, load_model};

use crate::cmd::run;
use crate::error::CliError;
use crate::session::RunRequest;

/// The kind of value an option takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A string.
    Text,
    /// A whole number from 0.
    Count,
    /// Any number from 0.
    Number,
}

/// Options of `presil run` that a sweep may set.
pub const OPTIONS: &[(&str, Kind)] = &[
    ("soc", Kind::Text),
    ("model", Kind::Text),
    ("quant", Kind::Text),
    ("prefill", Kind::Count),
    ("decode", Kind::Count),
    ("context", Kind::Count),
    ("kv", Kind::Text),
    ("kv-page", Kind::Count),
    ("kv-pool", Kind::Count),
    ("temperature", Kind::Number),
    ("top-k", Kind::Count),
    ("top-p", Kind::Number),
    ("memory-model", Kind::Text),
    ("firmware", Kind::Text),
    ("seed", Kind::Count),
];

/// Options of `presil run` that a sweep may not set: they say where results go, or need a single model's files.
#[cfg(test)]
const NOT_SWEPT: &[&str] = &[
    "set",
    "output",
    "json",
    "trace",
    "prompt",
    "logits-of",
    "tokens-from",
    "shape-only",
    "stop-at-eos",
    "help",
];

/// A value of the file.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Scalar {
    /// A string.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// Another number.
    Float(f64),
    /// True or false.
    Boolean(bool),
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Integer(n) => n.fmt(f),
            Self::Float(x) => write!(f, "{x:?}"),
            Self::Boolean(b) => b.fmt(f),
        }
    }
}

impl Scalar {
    /// The value as TOML writes it, to tell "4" from 4 in messages.
    #[must_use]
    pub fn written(&self) -> String {
        match self {
            Self::Text(text) => format!("{text:?}"),
            other => other.to_string(),
        }
    }
}

/// Why a key or a value is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What is wrong and what was expected.
    pub message: String,
    /// What would be right.
    pub help: Option<String>,
}

impl Refusal {
    pub(super) fn new(message: impl Into<String>, help: Option<String>) -> Self {
        Self { message: message.into(), help }
    }
}

/// `presil run` without the word itself.
#[derive(Parser)]
#[command(no_binary_name = true)]
struct Line {
    #[command(flatten)]
    run: run::Args,
}

/// Whether a key is a `--set` path rather than an option.
#[must_use]
pub fn is_path(key: &str) -> bool {
    key.contains('.')
}

/// What `presil run` takes for an option that is not given.
pub(super) fn default_of(option: &str) -> Option<String> {
    let command = Line::command();
    let argument = command.get_arguments().find(|a| a.get_long() == Some(option))?;
    Some(argument.get_default_values().first()?.to_string_lossy().into_owned())
}

/// Checks a key that is no path: one of the options.
pub(super) fn check_option(key: &str) -> Result<Kind, Refusal> {
    if let Some((_, kind)) = OPTIONS.iter().find(|(name, _)| *name == key) {
        return Ok(*kind);
    }
    let help = match nearest(key, OPTIONS.iter().map(|(name, _)| *name)) {
        Some(near) => format!("did you mean `{near}`?"),
        None => {
            let names: Vec<&str> = OPTIONS.iter().map(|(name, _)| *name).collect();
            format!("options are {}; a --set path goes in quotes: \"npu.cores\"", names.join(", "))
        }
    };
    Err(Refusal::new("unknown key", Some(help)))
}

/// Checks what can be said about a value alone; `socs` are all chips it may be applied to. Ranges and relations
/// between values belong to a point: they fail that point, not the file.
///
/// # Errors
/// What is wrong with it.
pub(super) fn check_value(key: &str, value: &Scalar, socs: &[String]) -> Result<(), Refusal> {
    if is_path(key) {
        return check_path(key, value, socs);
    }
    match (check_option(key)?, value) {
        (Kind::Text, Scalar::Text(_)) => {}
        (Kind::Count, Scalar::Integer(n)) if *n >= 0 => {}
        (Kind::Number, Scalar::Integer(0..)) => {}
        (Kind::Number, Scalar::Float(x)) if *x >= 0.0 => {}
        (Kind::Number, other) => {
            return Err(Refusal::new(format!("expected a number from 0, found {}", other.written()), None));
        }
        (Kind::Text, other) => {
            return Err(Refusal::new(format!("expected a string, found {}", other.written()), None));
        }
        (Kind::Count, other) => {
            return Err(Refusal::new(
                format!("expected a whole number from 0, found {}", other.written()),
                None,
            ));
        }
    }
    Line::try_parse_from([format!("--{key}={value}")]).map_err(|e| {
        // The first paragraph, without the word that opens it and without advice about a command line.
        let text = e.to_string();
        let first = text.split("\n\n").next().unwrap_or_default();
        Refusal::new(one_line(first.trim_start_matches("error: ")), None)
    })?;
    let text = value.to_string();
    match key {
        "soc" => resolve(&text, &[]).map(drop).map_err(|e| of_config(&e)),
        "model" => load_model(&text).map(drop).map_err(|e| of_workload(&e)),
        "quant" => QuantScheme::named(&text).map(drop).map_err(|e| of_workload(&e)),
        _ => Ok(()),
    }
}

/// A path is right if one of the chips has it.
fn check_path(key: &str, value: &Scalar, socs: &[String]) -> Result<(), Refusal> {
    let option = format!("{key}={value}");
    let mut refusal = None;
    for soc in socs {
        match check_set(soc, &option) {
            Ok(()) => return Ok(()),
            Err(e) => refusal = refusal.or(Some(of_config(&e))),
        }
    }
    refusal.map_or(Ok(()), Err)
}

/// Place and message of a problem as one text, the place left out where it only repeats the option.
fn placed(place: &str, message: &str) -> String {
    if place.starts_with("--") { message.to_owned() } else { format!("{place}: {message}") }
}

fn of_config(error: &ConfigError) -> Refusal {
    let Some(first) = error.problems.first() else { return Refusal::new(error.to_string(), None) };
    let message = if first.path.is_empty() || first.place.starts_with("--set") {
        first.message.clone()
    } else {
        format!("{}: {}", first.path, first.message)
    };
    Refusal::new(placed(&first.place, &message), first.help.clone())
}

fn of_workload(error: &WorkloadError) -> Refusal {
    let Some(first) = error.problems.first() else { return Refusal::new(error.to_string(), None) };
    let message = if first.key.is_empty() {
        first.message.clone()
    } else {
        format!("{}: {}", first.key, first.message)
    };
    Refusal::new(placed(&first.place, &message), first.help.clone())
}

/// Text of several lines in one.
pub(super) fn one_line(text: &str) -> String {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")
}

/// The run that these settings ask for, in the order given.
///
/// # Errors
/// As `presil run` with the same options.
pub(super) fn request<'a>(
    settings: impl Iterator<Item = (&'a str, &'a Scalar)>,
) -> Result<RunRequest, CliError> {
    let line = settings.map(|(key, value)| match is_path(key) {
        true => format!("--set={key}={value}"),
        false => format!("--{key}={value}"),
    });
    let line = Line::try_parse_from(line).map_err(|e| CliError::input(one_line(&e.to_string())))?;
    line.run.request()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::{Line, NOT_SWEPT, OPTIONS, Scalar, check_value, default_of};

    #[test]
    fn every_option_of_run_is_sweepable_or_said_not_to_be() {
        let command = Line::command();
        let options: Vec<&str> = command.get_arguments().filter_map(clap::Arg::get_long).collect();
        for option in &options {
            let swept = OPTIONS.iter().any(|(name, _)| name == option);
            assert!(swept != NOT_SWEPT.contains(option), "--{option}: put it into OPTIONS or NOT_SWEPT");
        }
        for (name, _) in OPTIONS {
            assert!(options.contains(name), "run has no --{name}");
        }
    }

    #[test]
    fn values_are_checked_by_the_option_they_are_for() {
        let socs = [default_of("soc").expect("a default")];
        let check = |key: &str, value: Scalar| check_value(key, &value, &socs).map_err(|r| r.message);
        let text = |t: &str| Scalar::Text(t.to_owned());
        assert_eq!(check("prefill", Scalar::Integer(8)), Ok(()));
        assert_eq!(check("npu.cores", Scalar::Integer(9)), Ok(()), "a range is a matter of the point");
        assert_eq!(check("npu.frequency", text("1 GHz")), Ok(()));
        assert_eq!(check("npu.driver", text("off")), Ok(()));
        for (key, value) in [
            ("prefill", text("8")),
            ("prefill", Scalar::Integer(0)),
            ("prefill", Scalar::Integer(-1)),
            ("prefill", Scalar::Float(8.0)),
            ("soc", Scalar::Integer(1)),
            ("soc", text("nosuch")),
            ("model", text("mimo-8b")),
            ("quant", text("w4")),
            ("memory-model", text("perfect")),
            ("npu.cores", text("banana")),
            ("npu.frequency", Scalar::Integer(900)),
            ("npu.coers", Scalar::Integer(2)),
            ("npu.driver", Scalar::Boolean(true)),
            ("output", text("x")),
        ] {
            assert!(check(key, value.clone()).is_err(), "{key} = {value}");
        }
    }
}
