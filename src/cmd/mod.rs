//! The commands, one file each: `Args` that clap parses and a `run` that writes the result to `out`.
//!
//! A new command is a file here with `Args` and `run`, its `mod` line, a variant and its arm.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use clap::Subcommand;

use crate::error::CliError;

pub mod chat;
pub mod diff;
pub mod docs;
pub mod dram;
pub mod exec;
pub mod isa;
pub mod list;
pub mod npu;
pub mod report;
pub mod run;
pub mod schema;
pub mod show;
mod speaker;
pub mod sweep;
pub mod trace;
pub mod validate;

/// What presil does.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Run a model on a SoC: time, throughput, energy and where they went
    Run(run::Args),
    /// Talk with a model on a SoC: text as it is made, simulated time and energy of every turn
    Chat(chat::Args),
    /// Run a bare-metal RV64 program on the modelled harts
    Exec(exec::Args),
    /// List what is built in
    List(list::Args),
    /// Show something built in or a file, resolved, each value with its source
    Show(show::Args),
    /// Run every point of a grid, and find the best
    Sweep(sweep::Args),
    /// The NPU alone: matrix products, assembler, disassembler
    Npu(npu::Args),
    /// What is in a trace, what took the engines' time, what they waited for
    Trace(trace::Args),
    /// One memory channel alone: bandwidth, latency and energy of a stream or a trace
    Dram(dram::Args),
    /// Hold the models against published and measured references: exit code 1 if a row is outside its band
    Validate(validate::Args),
    /// Print the JSON Schema of a kind of file
    Schema(schema::Args),
    /// Write one self-contained page of a run
    Report(report::Args),
    /// Hold a run against another: exit code 1 if it got worse
    Diff(diff::Args),
    /// The contract of software and silicon, for other tool chains
    Isa(isa::Args),
    /// Write manual pages
    Docs(docs::Args),
    /// Print shell completions
    Completions(docs::CompletionArgs),
}

impl Command {
    /// Runs the command, writing its result to `out`.
    ///
    /// # Errors
    /// Whatever ends it early.
    pub fn run(&self, out: &mut dyn Write) -> Result<(), CliError> {
        match self {
            Self::Run(args) => run::run(args, out),
            Self::Chat(args) => chat::run(args, out),
            Self::Exec(args) => exec::run(args, out),
            Self::List(args) => list::run(args, out),
            Self::Show(args) => show::run(args, out),
            Self::Sweep(args) => sweep::run(args, out),
            Self::Npu(args) => npu::run(args, out),
            Self::Trace(args) => trace::run(args, out),
            Self::Dram(args) => dram::run(args, out),
            Self::Validate(args) => validate::run(args, out),
            Self::Schema(args) => schema::run(args, out),
            Self::Report(args) => report::run(args, out),
            Self::Diff(args) => diff::run(args, out),
            Self::Isa(args) => isa::run(args, out),
            Self::Docs(args) => docs::run(args, out),
            Self::Completions(args) => docs::completions(args, out),
        }
    }
}

/// Writes a JSON document.
///
/// # Errors
/// If `out` takes no more.
pub fn write_json(out: &mut dyn Write, document: &impl serde::Serialize) -> Result<(), CliError> {
    serde_json::to_writer_pretty(&mut *out, document).map_err(std::io::Error::from)?;
    writeln!(out)?;
    Ok(())
}

/// Reads a file of at most `most` bytes: a device that never ends is refused like a file that is too long.
///
/// # Errors
/// If it cannot be read or is longer.
fn read_file(path: &Path, most: u64) -> Result<Vec<u8>, CliError> {
    let bad = |problem: String| CliError::input(format!("{}: {problem}", path.display()));
    let unreadable = |e: std::io::Error| bad(format!("cannot be read: {e}"));
    let mut bytes = Vec::new();
    File::open(path).and_then(|f| f.take(most + 1).read_to_end(&mut bytes)).map_err(unreadable)?;
    if bytes.len() as u64 > most {
        return Err(bad(format!("longer than the {most} bytes such a file may have")));
    }
    Ok(bytes)
}

/// The same for text.
///
/// # Errors
/// If it cannot be read, is longer, or is not UTF-8.
pub(crate) fn read_text(path: &Path, most: u64) -> Result<String, CliError> {
    String::from_utf8(read_file(path, most)?).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        CliError::input(format!("{}: not a text file: byte {at} is not UTF-8", path.display()))
    })
}
