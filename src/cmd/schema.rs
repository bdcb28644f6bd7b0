//! `presil schema`: the JSON Schema of the files people write.

use std::io::Write;

use clap::ValueEnum;
use reports::diff::gate_schema;
use soc_model::config::soc_schema;

use super::write_json;
use crate::error::CliError;
use crate::sweep::schema::space_schema;

/// Options of `presil schema`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example: presil schema soc > soc.schema.json")]
pub struct Args {
    /// Kind of file
    kind: Kind,
    /// The output is one JSON document with or without this
    #[arg(long)]
    json: bool,
}

/// Kinds of files.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    /// A SoC description
    Soc,
    /// A sweep
    Sweep,
    /// What `presil diff` counts as worse
    Gate,
}

/// Prints the schema.
///
/// # Errors
/// If `out` takes no more.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<(), CliError> {
    match args.kind {
        Kind::Soc => write_json(out, &soc_schema()),
        Kind::Sweep => write_json(out, &space_schema()),
        Kind::Gate => write_json(out, &gate_schema()),
    }
}
