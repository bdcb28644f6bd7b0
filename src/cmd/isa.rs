//! `presil isa`: the tables that firmware and models are compiled from, for tool chains that are not Rust.

use std::io::Write;

use clap::Subcommand;
use isa::header;

use crate::error::CliError;

/// Options of `presil isa`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example: presil isa header --c > presil_npu.h")]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Command fields, opcodes, registers, memory map
    #[command(after_help = "Example: presil isa header --c > presil_npu.h")]
    Header(HeaderArgs),
}

#[derive(clap::Args, Debug)]
#[group(required = true, multiple = false)]
struct HeaderArgs {
    /// A C header
    #[arg(long)]
    c: bool,
    /// A fragment of a GNU linker script
    #[arg(long)]
    linker: bool,
}

/// Prints the text.
///
/// # Errors
/// If `out` takes no more.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<(), CliError> {
    let What::Header(which) = &args.what;
    let text = if which.c { header::c() } else { header::linker() };
    out.write_all(text.as_bytes())?;
    Ok(())
}
