//! The `presil` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    presil::cli::main(std::env::args_os())
}
