//! Token ids people give: lists on the command line or in files, and those of a run's record.

use std::path::Path;

use serde_json::Value;

use super::GivenIds;
use crate::error::CliError;

/// Largest file of ids or record that is read.
const MOST_BYTES: u64 = 256 << 20;

/// Ids of an argument: a list with commas or spaces, or a file of such a list or of a record.
///
/// # Errors
/// If it is neither, or an id is not below `vocab`.
pub fn list(option: &str, argument: &str, vocab: u32) -> Result<Vec<u32>, CliError> {
    let path = Path::new(argument);
    let (place, text) = if path.exists() {
        (format!("{option}: {argument}"), crate::cmd::read_text(path, MOST_BYTES)?)
    } else {
        (option.to_owned(), argument.to_owned())
    };
    if let Ok(record @ Value::Object(_)) = serde_json::from_str::<Value>(&text) {
        return ids_at(&place, &record, "/output/tokens", vocab);
    }
    let inner = text.trim().trim_start_matches('[').trim_end_matches(']');
    let words = inner.split(|c: char| c == ',' || c.is_whitespace()).filter(|w| !w.is_empty());
    let mut out = Vec::new();
    for (i, word) in words.enumerate() {
        let id = word.parse::<u32>().map_err(|_| {
            let word: String = word.chars().take(40).collect();
            let hint = "token ids with commas between them, or a file of them";
            CliError::input(format!("{place}: token {i}: expected {hint}, found `{}`", word.escape_debug()))
        })?;
        out.push(below(&place, i, id.into(), vocab)?);
    }
    if out.is_empty() {
        return Err(CliError::input(format!("{place}: expected at least one token id")));
    }
    Ok(out)
}

fn below(place: &str, i: usize, id: u64, vocab: u32) -> Result<u32, CliError> {
    match u32::try_from(id) {
        Ok(small) if small < vocab => Ok(small),
        _ => Err(CliError::input(format!("{place}: token {i}: expected an id below {vocab}, found {id}"))),
    }
}

fn ids_at(place: &str, record: &Value, at: &str, vocab: u32) -> Result<Vec<u32>, CliError> {
    let key = at.trim_start_matches('/').replace('/', ".");
    let list = record.pointer(at).and_then(Value::as_array).filter(|l| !l.is_empty());
    let list = list.ok_or_else(|| {
        CliError::input(format!("{place}: {key}: expected token ids, as a run with --prompt has them"))
    })?;
    let place = format!("{place}: {key}");
    let id = |(i, v): (usize, &Value)| below(&place, i, v.as_u64().unwrap_or(u64::MAX), vocab);
    list.iter().enumerate().map(id).collect()
}

/// What a functional run's record says about its ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// The ids, and the token that ended the answer if one did.
    pub ids: GivenIds,
    /// Tokens asked for.
    pub limit: u32,
    /// Positions resident before the prompt.
    pub context: u32,
}

/// Reads the record of a functional run: a file, or a folder with `run.json`.
///
/// # Errors
/// If it is none, or an id is not below `vocab`.
pub fn recorded(path: &Path, vocab: u32) -> Result<Recorded, CliError> {
    let inside = path.join("run.json");
    let path = if path.is_dir() { inside.as_path() } else { path };
    let place = format!("--tokens-from: {}", path.display());
    let record: Value = serde_json::from_str(&crate::cmd::read_text(path, MOST_BYTES)?)
        .map_err(|e| CliError::input(format!("{place}:{}:{}: not valid JSON: {e}", e.line(), e.column())))?;
    let prompt = ids_at(&place, &record, "/output/prompt_ids", vocab)?;
    let made = ids_at(&place, &record, "/output/tokens", vocab)?;
    let number = |at: &str| record.pointer(at).and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok());
    let count = u32::try_from(made.len()).unwrap_or(u32::MAX);
    let limit = number("/output/limit").filter(|limit| *limit >= count).unwrap_or(count);
    let stop = made.last().copied().filter(|_| count < limit).into_iter().collect();
    let context = number("/workload/context_tokens").unwrap_or(0);
    Ok(Recorded { ids: GivenIds { prompt, made, stop }, limit, context })
}
