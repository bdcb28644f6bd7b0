//! Reads a run record from a file or a run's folder; whatever is wrong is reported with file, line and key.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::ReadError;
use crate::record::RunRecord;

/// A record that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct LoadError {
    /// File, and line where one is known.
    pub place: String,
    /// What is wrong.
    pub message: String,
    /// What the line says, shortened.
    pub line: Option<String>,
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)?;
        if let Some(line) = &self.line {
            write!(f, "\n  | {line}")?;
        }
        Ok(())
    }
}

/// The record in `path`, or in `run.json` of the folder `path`, and the file it came from.
///
/// # Errors
/// If there is no such file, or it is not a run record of this schema with finite numbers throughout.
pub fn load(path: &Path) -> Result<(RunRecord, PathBuf), LoadError> {
    let file = if path.is_dir() { path.join("run.json") } else { path.to_owned() };
    let fail = |message: String| LoadError { place: file.display().to_string(), message, line: None };
    let bytes = fs::read(&file).map_err(|e| fail(format!("cannot be read: {e}")))?;
    let text = String::from_utf8(bytes).map_err(|e| {
        fail(format!("offset {}: not UTF-8 text, so not a run record", e.utf8_error().valid_up_to()))
    })?;
    let record = RunRecord::from_json(&text).map_err(|error| explain(&file, &text, &error))?;
    Ok((record, file))
}

/// Adds the place to what reading said.
fn explain(file: &Path, text: &str, error: &ReadError) -> LoadError {
    let message = error.to_string();
    let at = match error {
        // Struct errors found in the parsed document carry no line; the same text read as a record has one.
        ReadError::Json(e) if e.line() == 0 => {
            serde_json::from_str::<RunRecord>(text).err().map(|e| e.line())
        }
        ReadError::Json(e) => Some(e.line()),
        ReadError::Schema { .. } => line_of(text, "schema"),
        ReadError::Null { path } => line_of(text, path),
    };
    let message = match error {
        ReadError::Schema { found, expected } if found == "null" => {
            format!("schema: missing, expected \"{expected}\": not a run record")
        }
        // The place says it already.
        _ => message.split(" at line ").next().unwrap_or_default().to_owned(),
    };
    let place = at.map_or_else(|| file.display().to_string(), |line| format!("{}:{line}", file.display()));
    let line = at.and_then(|line| text.lines().nth(line.saturating_sub(1))).map(shortened);
    LoadError { place, message, line }
}

/// At most 100 characters of a line.
fn shortened(line: &str) -> String {
    let line = line.trim();
    if line.chars().count() <= 100 {
        line.to_owned()
    } else {
        line.chars().take(99).collect::<String>() + "…"
    }
}

/// Line of the value at a path such as `time.ttft_s` or `ops[3].energy_j` in valid JSON.
fn line_of(text: &str, path: &str) -> Option<usize> {
    let steps: Vec<&str> = path.split(['.', '[']).map(|s| s.trim_end_matches(']')).collect();
    let mut rest = text;
    for step in steps {
        rest = enter(rest, step)?;
    }
    Some(1 + text[..text.len() - rest.len()].matches('\n').count())
}

/// What follows the start of member `step` of the object or array that `text` starts with.
fn enter<'a>(text: &'a str, step: &str) -> Option<&'a str> {
    let text = text.trim_start();
    let object = text.starts_with('{');
    let mut rest = text.get(1..)?;
    let mut index = 0usize;
    loop {
        rest = rest.trim_start().trim_start_matches(',').trim_start();
        if rest.starts_with(['}', ']']) || rest.is_empty() {
            return None;
        }
        let mut found = !object && step.parse() == Ok(index);
        if object {
            let (key, after) = value(rest)?;
            found = key.as_str() == Some(step);
            rest = after.trim_start().strip_prefix(':')?.trim_start();
        }
        if found {
            return Some(rest);
        }
        rest = value(rest)?.1;
        index += 1;
    }
}

/// The JSON value `text` starts with, and what follows it.
fn value(text: &str) -> Option<(Value, &str)> {
    let mut stream = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    let value = stream.next()?.ok()?;
    Some((value, text.get(stream.byte_offset()..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_a_line() {
        let text = "{\n \"a\": {\n  \"b\": 1,\n  \"c\": [1,\n   {\"d\": null}]\n }\n}";
        assert_eq!(line_of(text, "a.b"), Some(3));
        assert_eq!(line_of(text, "a.c[1].d"), Some(5));
        assert_eq!(line_of(text, "a.x"), None);
        assert_eq!(line_of(text, "a.c[2]"), None);
    }
}
