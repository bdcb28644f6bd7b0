//! The commands, one file each: `Args` that clap parses and a `run` that writes the result to `out`.
//!
//! A new command is a file here with `Args` and `run`, its `mod` line, a variant and its arm.

use std::io::Write;

use clap::Subcommand;

use crate::error::CliError;

pub mod list;
pub mod npu;
pub mod run;
pub mod schema;
pub mod show;
pub mod trace;

/// What presil does.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Run a model on a SoC: time, throughput, energy and where they went
    Run(run::Args),
    /// List what is built in
    List(list::Args),
    /// Show something built in or a file, resolved, each value with its source
    Show(show::Args),
    /// The NPU alone: matrix products, assembler, disassembler
    Npu(npu::Args),
    /// What is in a trace, what took the engines' time, what they waited for
    Trace(trace::Args),
    /// Print the JSON Schema of a kind of file
    Schema(schema::Args),
}

impl Command {
    /// Runs the command, writing its result to `out`.
    ///
    /// # Errors
    /// Whatever ends it early.
    pub fn run(&self, out: &mut dyn Write) -> Result<(), CliError> {
        match self {
            Self::Run(args) => run::run(args, out),
            Self::List(args) => list::run(args, out),
            Self::Show(args) => show::run(args, out),
            Self::Npu(args) => npu::run(args, out),
            Self::Trace(args) => trace::run(args, out),
            Self::Schema(args) => schema::run(args, out),
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
