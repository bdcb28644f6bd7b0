//! `presil exec`: a bare-metal RV64 program on the modelled harts.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use soc_model::exec::{self, ExecCore, ExecError, ExecOptions, ExecResult};

use super::{read_file, write_json};
use crate::error::CliError;

/// Largest ELF that is read: a quarter of the board's memory, debug information included.
const MOST_ELF_BYTES: u64 = 512 << 20;

/// Options of `presil exec`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example: presil exec rv64ui-p-add --core little --json\n\n\
                        What the guest prints goes to standard output, with --json to standard error. Exit code 0: \
                        the guest passed, 1: it failed, 4: it hung.")]
pub struct Args {
    /// Statically linked RV64 executable that exits through `tohost`, as the RISC-V tests do
    elf: PathBuf,
    /// Kind of the harts
    #[arg(long, default_value = "functional", value_name = "KIND")]
    core: CoreName,
    /// Number of harts; all start at the entry with their number in a0
    #[arg(long, default_value_t = 1, value_name = "N")]
    harts: usize,
    /// Instructions of all harts together after which the guest counts as hung
    #[arg(long, default_value_t = 4_000_000_000, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    max_instructions: u64,
    /// Write one line for every committed instruction, in the format of Spike's commit log
    #[arg(long, value_name = "FILE")]
    log_commits: Option<PathBuf>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Kinds of harts.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum CoreName {
    /// One instruction a cycle at 1 GHz
    Functional,
    /// A520-class in-order cores at 1.8 GHz with their caches
    Little,
}

/// Runs the program and prints what came out.
///
/// # Errors
/// If the file is no such program, the guest fails, or it does not come to an exit.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<(), CliError> {
    let elf = read_file(&args.elf, MOST_ELF_BYTES)?;
    let options = ExecOptions {
        core: match args.core {
            CoreName::Functional => ExecCore::Functional,
            CoreName::Little => ExecCore::Little,
        },
        harts: args.harts,
        max_instructions: args.max_instructions,
    };
    let result = match &args.log_commits {
        None => exec::run(&elf, &options, None),
        Some(path) => logged(&elf, &options, path),
    };
    let result = result.map_err(|e| explain(args, &e))?;
    if args.json {
        // A closed standard error is no reason to lose the result.
        let _ = io::stderr().write_all(&result.console);
        write_json(out, &result)?;
    } else {
        out.write_all(&result.console)?;
    }
    out.flush()?;
    let summary = summary(args, &result);
    if result.exit_code != 0 {
        return Err(CliError::DoesNotHold(summary));
    }
    let _ = writeln!(io::stderr(), "passed: {summary}");
    Ok(())
}

fn logged(elf: &[u8], options: &ExecOptions, path: &Path) -> Result<ExecResult, ExecError> {
    let mut log = BufWriter::new(File::create(path)?);
    let result = exec::run(elf, options, Some(&mut log));
    // What was logged before a fault is what one looks for the fault in.
    log.flush()?;
    result
}

fn explain(args: &Args, error: &ExecError) -> CliError {
    let file = args.elf.display();
    match error {
        ExecError::Hung { .. } => CliError::Simulation(format!(
            "{file}: {error}\n  help: --max-instructions N lets it run on, --log-commits FILE shows what it does"
        )),
        ExecError::Deadlock { .. } | ExecError::Lost { .. } => {
            CliError::Simulation(format!("{file}: {error}"))
        }
        ExecError::Log(_) => {
            let log = args.log_commits.as_deref().unwrap_or(Path::new(""));
            CliError::input(format!("--log-commits {}: {error}", log.display()))
        }
        ExecError::Option { .. } => CliError::input(error.to_string()),
        ExecError::Elf(_) | ExecError::Core(_) | ExecError::Region(_) | ExecError::Memory(_) => {
            CliError::input(format!("{file}: {error}"))
        }
    }
}

fn summary(args: &Args, r: &ExecResult) -> String {
    let plural = if r.harts.len() == 1 { "" } else { "s" };
    format!(
        "{}: exit code {}, {} instructions in {} cycles, {:.2} a cycle, {} hart{plural}",
        args.elf.display(),
        r.exit_code,
        r.instructions,
        r.cycles,
        r.ipc,
        r.harts.len()
    )
}
