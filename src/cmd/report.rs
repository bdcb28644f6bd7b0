//! `presil report`: one self-contained page of a run.

use std::io::Write;
use std::path::PathBuf;

use reports::diff::load;

use super::write_json;
use crate::error::CliError;

/// Options of `presil report`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example: presil report results/run.json -o report.html")]
pub struct Args {
    /// Run record, or the folder a run wrote
    #[arg(value_name = "RUN.json|DIR")]
    run: PathBuf,
    /// Page to write
    #[arg(short, long = "output", value_name = "FILE.html", default_value = "report.html")]
    output: PathBuf,
    /// Print one JSON document that names the page
    #[arg(long)]
    json: bool,
}

/// Reads the record and writes the page.
///
/// # Errors
/// If the file is no run record, or the page cannot be written.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<(), CliError> {
    let (record, file) = load(&args.run).map_err(|e| CliError::input(e.to_string()))?;
    let page = reports::html::page(&record);
    reports::write::atomic(&args.output, &page).map_err(|e| CliError::input(e.to_string()))?;
    let name = args.output.display().to_string();
    if args.json {
        let from = file.display().to_string();
        return write_json(out, &serde_json::json!({ "page": name, "bytes": page.len(), "record": from }));
    }
    writeln!(out, "wrote {name} ({} bytes)", page.len())?;
    Ok(())
}
