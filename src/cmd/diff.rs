//! `presil diff`: two runs held against each other; a regression ends with exit code 1.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use reports::diff::compare::Side;
use reports::diff::{Gate, compare, load, output};

use super::write_json;
use crate::error::CliError;

/// Options of `presil diff`.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Example: presil diff baselines/tiny-qwen2.5-1.5b.json new/run.json --gate baselines/gate.toml"
)]
pub struct Args {
    /// Run record (or a run's folder) that sets the standard
    #[arg(value_name = "BASE.json")]
    base: PathBuf,
    /// Run record (or a run's folder) to judge
    #[arg(value_name = "NEW.json")]
    new: PathBuf,
    /// Tolerances by metric [default: 1 % on the headline metrics]
    #[arg(long, value_name = "FILE.toml")]
    gate: Option<PathBuf>,
    /// Write the table as Markdown
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// Write one JUnit test case a metric
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Compares, writes and prints.
///
/// # Errors
/// If a file is no record or no gate, or a metric got worse than the gate allows.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<(), CliError> {
    let mut problems = Vec::new();
    let mut keep = |path: &Path| load(path).map_err(|e| problems.push(e.to_string())).ok();
    let (base, new) = (keep(&args.base), keep(&args.new));
    let gate = match args.gate.as_deref().map_or(Ok(Gate::default()), gate) {
        Ok(gate) => Some(gate),
        Err(all) => {
            problems.extend(all);
            None
        }
    };
    let (Some((base, base_file)), Some((new, new_file)), Some(gate)) = (base, new, gate) else {
        return Err(CliError::Input(problems));
    };
    let (base_file, new_file) = (base_file.display().to_string(), new_file.display().to_string());
    let diff = compare(&base, &new, &gate).map_err(|missing| {
        let message = |(path, side): (String, Side)| match side {
            Side::Base => format!("{base_file}: {path}: missing, but {new_file} has it"),
            Side::New => format!("{new_file}: {path}: missing, but {base_file} has it"),
            Side::Both => format!("{base_file}: {path}: missing in both records, but the gate names it"),
        };
        CliError::Input(missing.into_iter().map(message).collect())
    })?;
    if let Some(file) = &args.markdown {
        write(file, &output::markdown(&diff))?;
    }
    if let Some(file) = &args.junit {
        write(file, &output::junit(&diff, &format!("{base_file} against {new_file}")))?;
    }
    if args.json {
        write_json(out, &output::document(&diff, &base_file, &new_file))?;
    } else {
        out.write_all(output::text(&diff).as_bytes())?;
    }
    if diff.passes() { Ok(()) } else { Err(CliError::DoesNotHold(output::regressions(&diff))) }
}

fn gate(file: &Path) -> Result<Gate, Vec<String>> {
    let place = file.display().to_string();
    let text = fs::read(file).map_err(|e| vec![format!("{place}: cannot be read: {e}")])?;
    let text = String::from_utf8(text)
        .map_err(|e| vec![format!("{place}: offset {}: not UTF-8 text", e.utf8_error().valid_up_to())])?;
    Gate::parse(&place, &text).map_err(|e| e.problems)
}

fn write(file: &Path, text: &str) -> Result<(), CliError> {
    reports::write::atomic(file, text).map_err(|e| CliError::input(e.to_string()))
}
