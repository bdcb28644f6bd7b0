//! Files of `-o DIR`: the record, its tables and its plots, each written beside its name and then renamed.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::error::WriteError;
use crate::record::RunRecord;
use crate::{plots, tables};

/// What the host spent on a run; kept apart because it differs from run to run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct HostFacts {
    /// Wall time in nanoseconds, measured by the caller.
    pub host_ns: u64,
    /// Events dispatched.
    pub events: u64,
}

#[derive(Serialize)]
struct SimFile {
    host_s: f64,
    events: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    events_per_s: Option<f64>,
}

impl HostFacts {
    /// Events per second of host time, where any time passed.
    #[must_use]
    pub fn events_per_s(&self) -> Option<f64> {
        (self.host_ns > 0).then(|| self.events as f64 * 1e9 / self.host_ns as f64)
    }

    /// Text of `sim.json`.
    ///
    /// # Errors
    /// When serialisation fails.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        let file = SimFile {
            host_s: self.host_ns as f64 / 1e9,
            events: self.events,
            events_per_s: self.events_per_s(),
        };
        serde_json::to_string_pretty(&file).map(|text| text + "\n")
    }
}

/// Writes a file so that readers see either the old content or all of the new.
///
/// # Errors
/// When the file system refuses.
pub fn atomic(path: &Path, content: &str) -> Result<(), WriteError> {
    let failed = |source| WriteError::File { path: path.to_owned(), source };
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let partial = path.with_file_name(name);
    let outcome = fs::write(&partial, content).and_then(|()| fs::rename(&partial, path));
    outcome.map_err(|source| {
        // Best effort: the error that matters is the one being returned.
        let _ = fs::remove_file(&partial);
        failed(source)
    })
}

/// Writes everything a run leaves behind into a directory, made if missing, and returns the paths.
///
/// # Errors
/// When the file system refuses, or a plot cannot be drawn.
pub fn run_directory(
    directory: &Path,
    record: &RunRecord,
    host: Option<&HostFacts>,
) -> Result<Vec<PathBuf>, WriteError> {
    fs::create_dir_all(directory)
        .map_err(|source| WriteError::File { path: directory.to_owned(), source })?;
    let mut files = vec![
        ("ops.csv", tables::ops_csv(record)),
        ("energy.csv", tables::energy_csv(record)),
        ("cycles.csv", tables::cycles_csv(record)),
        ("energy_by_component.svg", plots::energy_by_component(record)?),
        ("time_by_kind.svg", plots::time_by_kind(record)?),
        ("roofline.svg", plots::roofline(record)?),
    ];
    if !record.contention.is_empty() {
        files.push(("contention.csv", tables::contention_csv(record)));
    }
    if let Some(host) = host {
        files.push(("sim.json", host.to_json()?));
    }
    // The record comes last: where it is, the rest is.
    files.push(("run.json", record.to_json()?));
    let mut paths = Vec::new();
    for (name, content) in files {
        let path = directory.join(name);
        atomic(&path, &content)?;
        paths.push(path);
    }
    Ok(paths)
}
