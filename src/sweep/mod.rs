//! A sweep: from `SPACE.toml` to a table of every point, the front of the best and a plot.
//!
//! ```text
//! SPACE.toml -> Space (strict) -> Plan (points, designs by content) -> Runner (threads, results, resume)
//!            -> Table -> points.csv, pareto.csv, sweep.json, scatter.svg
//! ```

pub mod goals;
pub mod options;
pub mod plan;
pub mod progress;
pub mod runner;
pub mod schema;
pub mod space;
pub mod table;
#[cfg(test)]
mod tests;

use std::fs::{self, File, TryLockError};
use std::path::Path;

use reports::write::atomic;

use crate::error::CliError;
use table::Table;

/// Folder of results below the folder of the sweep.
pub const RESULTS: &str = "results";

/// File below it that names the build of presil all results are of.
const BUILD: &str = "build";

/// The build of presil that is running, by the content of its executable: a changed model gives other results under
/// the same version. None if it cannot be read, which equals no build.
#[must_use]
pub fn build() -> Option<String> {
    let executable = std::env::current_exe().and_then(fs::read).ok()?;
    Some(blake3::hash(&executable).to_hex().to_string())
}

/// Makes the folder of a sweep, keeps other sweeps out of it for as long as the returned file is open, and removes
/// results that are not this build's. Also returned is how many those were.
///
/// # Errors
/// If it cannot be made or another sweep is at work in it.
pub fn claim(folder: &Path, build: Option<&str>) -> Result<(File, usize), CliError> {
    let results = folder.join(RESULTS);
    let refused = |path: &Path, e: &dyn std::fmt::Display| {
        CliError::input(format!("--output: {} cannot be written: {e}", path.display()))
    };
    fs::create_dir_all(&results).map_err(|e| refused(&results, &e))?;
    let path = folder.join("sweep.lock");
    let lock = File::create(&path).map_err(|e| refused(&path, &e))?;
    lock.try_lock().map_err(|e| match e {
        TryLockError::WouldBlock => {
            CliError::input(format!("--output: another sweep is at work in {}", folder.display()))
        }
        TryLockError::Error(e) => refused(&path, &e),
    })?;
    let stamp = results.join(BUILD);
    let ours = build.is_some_and(|build| fs::read_to_string(&stamp).is_ok_and(|known| known == build));
    let mut removed = 0;
    for entry in fs::read_dir(&results).map_err(|e| refused(&results, &e))?.flatten() {
        let path = entry.path();
        match path.extension().and_then(|e| e.to_str()) {
            // What a killed sweep was writing; nobody else is. It may stay: no reader takes it for a result.
            Some("tmp") => drop(fs::remove_file(&path)),
            Some("json") if !ours => {
                fs::remove_file(&path).map_err(|e| refused(&path, &e))?;
                removed += 1;
            }
            _ => {}
        }
    }
    // Last: until it is there, whatever is found is another build's.
    if !ours {
        atomic(&stamp, build.unwrap_or_default()).map_err(|e| CliError::input(e.to_string()))?;
    }
    Ok((lock, removed))
}

/// Writes the files of a finished sweep and returns how many.
///
/// # Errors
/// If one cannot be drawn or written.
pub fn write(folder: &Path, table: &Table<'_>, document: &str) -> Result<usize, CliError> {
    let failed = |e: reports::WriteError| CliError::input(e.to_string());
    let files = [
        ("points.csv", table.points_csv()),
        ("pareto.csv", table.pareto_csv()),
        ("scatter.svg", table.scatter().map_err(failed)?),
        // Last: where it is, the rest is.
        ("sweep.json", document.to_owned()),
    ];
    for (name, content) in &files {
        atomic(&folder.join(name), content).map_err(failed)?;
    }
    Ok(files.len())
}
