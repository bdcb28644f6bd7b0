//! `presil list`: names of what is built in.

use std::io::Write;

use clap::ValueEnum;
use soc_model::config::{soc_names, standard_names};
use soc_model::power::energy_table_names;
use traces::workload::{QuantScheme, model_names};

use super::write_json;
use crate::error::CliError;

/// Options of `presil list`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example: presil list socs")]
pub struct Args {
    /// What to list
    what: What,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Kinds of things that are built in.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum What {
    /// SoC presets
    Socs,
    /// Model presets
    Models,
    /// Quantisation schemes
    Quants,
    /// Memory standards and speed bins
    Standards,
    /// Matrix arrays of `npu gemm`
    Arrays,
    /// Energy tables
    Energy,
}

/// Prints one name a line, or a JSON list.
///
/// # Errors
/// If `out` takes no more.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<(), CliError> {
    let names: Vec<&str> = match args.what {
        What::Socs => soc_names().collect(),
        What::Models => model_names().collect(),
        What::Quants => QuantScheme::ALL.map(|scheme| scheme.name).to_vec(),
        What::Standards => standard_names().collect(),
        What::Arrays => npu_model::study::ARRAYS.iter().map(|a| a.0).collect(),
        What::Energy => energy_table_names().collect(),
    };
    if args.json {
        return write_json(out, &names);
    }
    for name in names {
        writeln!(out, "{name}")?;
    }
    Ok(())
}
