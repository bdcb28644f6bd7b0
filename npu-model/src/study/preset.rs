//! Arrays as files: sizes and modes, each value with its source; built-in ones, files, and overrides.
//!
//! Models: strict reading of TOML; a missing, unknown or ill-typed key is an error with its place.
//! Does not model: anything. Source: each value of presets/array/*.toml names its own.

use serde::{Deserialize, Deserializer};

use super::discipline::{Chunk, CountFrom, EdgeFolds, Exchange, Instruction, LastFold, Mode, Overlap, Skew};
use crate::array::Array;

/// Built-in arrays and their files.
pub const ARRAYS: [(&str, &str); 8] = [
    ("default", include_str!("../../presets/array/default.toml")),
    ("scalesim", include_str!("../../presets/array/scalesim.toml")),
    ("gemmini", include_str!("../../presets/array/gemmini.toml")),
    ("gemmini-mesh", include_str!("../../presets/array/gemmini-mesh.toml")),
    ("tinytpu", include_str!("../../presets/array/tinytpu.toml")),
    ("tiny-tpu", include_str!("../../presets/array/tiny-tpu.toml")),
    ("leo-tpu", include_str!("../../presets/array/leo-tpu.toml")),
    ("redmule", include_str!("../../presets/array/redmule.toml")),
];

/// Tables an array file has and a chip's does not.
const TABLES: [&str; 5] = ["size", "weight-stationary", "output-stationary", "gemv", "edge-folds"];
/// Largest parameter: products of two stay far from 64 bits.
const LARGEST: u64 = 1 << 32;

/// What an array can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Discipline {
    /// Its own size.
    pub size: Array,
    /// Folds partly used.
    pub edge_folds: EdgeFolds,
    /// B stays.
    pub weight_stationary: Loads,
    /// C stays.
    pub output_stationary: Loads,
    /// Width of the GEMV path's weight stream in bytes, if there is such a path.
    pub gemv_bytes_per_cycle: Option<u64>,
}

/// Modes by whether loading the stationary operand shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loads {
    /// It shows.
    pub exposed: Option<Mode>,
    /// It is double-buffered.
    pub hidden: Option<Mode>,
}

/// What is wrong with an array's file or an override.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArrayError(String);

impl core::fmt::Display for ArrayError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(&self.0)
    }
}

impl core::error::Error for ArrayError {}

/// A value and where it is from.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sourced<T> {
    value: T,
    #[serde(rename = "source", deserialize_with = "some_text")]
    _source: (),
}

fn some_text<'de, D: Deserializer<'de>>(d: D) -> Result<(), D::Error> {
    let text = String::deserialize(d)?;
    if text.trim().is_empty() {
        return Err(serde::de::Error::custom("a value's source is empty; expected where it is from"));
    }
    Ok(())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawArray {
    #[serde(rename = "name")]
    _name: String,
    #[serde(rename = "description")]
    _description: String,
    edge_folds: Sourced<EdgeFolds>,
    size: RawSize,
    #[serde(default)]
    weight_stationary: RawLoads,
    #[serde(default)]
    output_stationary: RawLoads,
    gemv: Option<RawGemv>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSize {
    rows: Sourced<u64>,
    cols: Sourced<u64>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLoads {
    exposed: Option<RawMode>,
    hidden: Option<RawMode>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawGemv {
    bytes_per_cycle: Sourced<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawMode {
    overlap: Sourced<Overlap>,
    lead: Sourced<u64>,
    lead_reads: Sourced<bool>,
    tail: Sourced<u64>,
    exchange: Sourced<Exchange>,
    last_fold: Sourced<LastFold>,
    skew: Sourced<Skew>,
    chunk: Sourced<Chunk>,
    chunk_least: Sourced<u64>,
    round_to: Sourced<u64>,
    step_cycles: Sourced<u64>,
    bubble: Sourced<u64>,
    instruction: Sourced<Instruction>,
    fold_gap: Sourced<u64>,
    commands_per_chunk: Sourced<u64>,
    command_interval: Sourced<u64>,
    command_latency: Sourced<u64>,
    count_from: Sourced<CountFrom>,
    read_latency: Sourced<u64>,
    read_queue: Sourced<u64>,
    same_bank: Sourced<bool>,
    constant: Sourced<u64>,
}

impl RawMode {
    fn checked(self, place: &str) -> Result<Mode, ArrayError> {
        let mode = Mode {
            overlap: self.overlap.value,
            lead: self.lead.value,
            lead_reads: self.lead_reads.value,
            tail: self.tail.value,
            exchange: self.exchange.value,
            last_fold: self.last_fold.value,
            skew: self.skew.value,
            chunk: self.chunk.value,
            chunk_least: self.chunk_least.value,
            round_to: self.round_to.value,
            step_cycles: self.step_cycles.value,
            bubble: self.bubble.value,
            instruction: self.instruction.value,
            fold_gap: self.fold_gap.value,
            commands_per_chunk: self.commands_per_chunk.value,
            command_interval: self.command_interval.value,
            command_latency: self.command_latency.value,
            count_from: self.count_from.value,
            read_latency: self.read_latency.value,
            read_queue: self.read_queue.value,
            same_bank: self.same_bank.value,
            constant: self.constant.value,
        };
        for (key, value, least) in [
            ("lead", mode.lead, 0),
            ("tail", mode.tail, 0),
            ("chunk-least", mode.chunk_least, 1),
            ("round-to", mode.round_to, 1),
            ("step-cycles", mode.step_cycles, 1),
            ("bubble", mode.bubble, 0),
            ("fold-gap", mode.fold_gap, 0),
            ("commands-per-chunk", mode.commands_per_chunk, 0),
            ("command-interval", mode.command_interval, 0),
            ("command-latency", mode.command_latency, 0),
            ("read-latency", mode.read_latency, 0),
            ("read-queue", mode.read_queue, 0),
            ("constant", mode.constant, 0),
        ] {
            if !(least..=LARGEST).contains(&value) {
                let message = format!("{place}.{key} is {value}; expected {least} to {LARGEST}");
                return Err(ArrayError(message));
            }
        }
        if mode.instruction == Instruction::KFolds && mode.chunk == Chunk::Whole {
            return Err(ArrayError(format!("{place}: instruction = \"k-folds\" needs chunk = \"rows\"")));
        }
        Ok(mode)
    }
}

impl RawLoads {
    fn checked(self, place: &str) -> Result<Loads, ArrayError> {
        let checked = |mode: Option<RawMode>, load: &str| {
            mode.map(|m| m.checked(&format!("{place}.{load}"))).transpose()
        };
        Ok(Loads { exposed: checked(self.exposed, "exposed")?, hidden: checked(self.hidden, "hidden")? })
    }
}

impl RawArray {
    fn checked(self) -> Result<Discipline, ArrayError> {
        let size = Array { rows: self.size.rows.value, cols: self.size.cols.value };
        if size.rows == 0 || size.cols == 0 {
            return Err(ArrayError("size: rows and cols are at least 1".to_owned()));
        }
        let gemv = self.gemv.map(|g| g.bytes_per_cycle.value);
        if gemv == Some(0) {
            return Err(ArrayError("gemv.bytes-per-cycle is 0; expected at least 1".to_owned()));
        }
        let discipline = Discipline {
            size,
            edge_folds: self.edge_folds.value,
            weight_stationary: self.weight_stationary.checked("weight-stationary")?,
            output_stationary: self.output_stationary.checked("output-stationary")?,
            gemv_bytes_per_cycle: gemv,
        };
        let none = Loads::default();
        if discipline.weight_stationary == none && discipline.output_stationary == none {
            let message =
                "an array needs a table such as [weight-stationary.hidden] or [output-stationary.exposed]";
            return Err(ArrayError(message.to_owned()));
        }
        Ok(discipline)
    }
}

impl Discipline {
    /// A built-in array.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let (_, text) = ARRAYS.iter().find(|a| a.0 == name)?;
        Some(Self::parse(text, &[]).expect("built-in arrays are read by a test"))
    }

    /// Whether a file is meant to be an array, not a chip.
    #[must_use]
    pub fn is_one(text: &str) -> bool {
        text.parse::<toml::Table>().is_ok_and(|t| TABLES.iter().any(|key| t.contains_key(*key)))
    }

    /// Reads an array file, then replaces keys of every mode: `read-latency=6`.
    ///
    /// # Errors
    /// The first thing that is wrong, with its line.
    pub fn parse(text: &str, sets: &[String]) -> Result<Self, ArrayError> {
        let raw: RawArray = toml::from_str(text).map_err(|e| ArrayError(placed(text, &e)))?;
        let plain = raw.checked()?;
        if sets.is_empty() {
            return Ok(plain);
        }
        let mut table: toml::Table = toml::from_str(text).map_err(|e| ArrayError(placed(text, &e)))?;
        for set in sets {
            replace(&mut table, set)?;
        }
        let raw: RawArray = table.try_into().map_err(|e: toml::de::Error| {
            ArrayError(format!("--array-set: {}", e.to_string().trim().replace('\n', " ")))
        })?;
        raw.checked().map_err(|e| ArrayError(format!("--array-set: {e}")))
    }
}

/// Replaces a key in every mode that has it.
fn replace(table: &mut toml::Table, set: &str) -> Result<(), ArrayError> {
    let bad = |message: String| ArrayError(format!("--array-set {set}: {message}"));
    let (key, text) = set.split_once('=').ok_or_else(|| bad("expected KEY=VALUE".to_owned()))?;
    let (key, text) = (key.trim(), text.trim());
    let value = match (text.parse::<i64>(), text.parse::<bool>()) {
        (Ok(n), _) => toml::Value::Integer(n),
        (_, Ok(b)) => toml::Value::Boolean(b),
        _ => toml::Value::String(text.to_owned()),
    };
    let mut keys = Vec::new();
    let mut found = false;
    for stationary in ["weight-stationary", "output-stationary"] {
        let Some(loads) = table.get_mut(stationary).and_then(toml::Value::as_table_mut) else { continue };
        for (_, mode) in loads.iter_mut() {
            let Some(mode) = mode.as_table_mut() else { continue };
            keys = mode.keys().cloned().collect();
            if let Some(slot) = mode.get_mut(key).and_then(toml::Value::as_table_mut) {
                slot.insert("value".to_owned(), value.clone());
                found = true;
            }
        }
    }
    if found { Ok(()) } else { Err(bad(format!("no such key; there are {}", keys.join(", ")))) }
}

/// A TOML error with its line, on one line.
fn placed(text: &str, error: &toml::de::Error) -> String {
    let message = error.message().trim().replace('\n', " ");
    match error.span() {
        Some(span) => {
            let line = 1 + text[..span.start.min(text.len())].matches('\n').count();
            format!("line {line}: {message}")
        }
        None => message,
    }
}
