//! The command line: parse, dispatch, print what went wrong, exit with the code of its kind.

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;

use crate::cmd::Command;
use crate::error::CliError;

/// A phone SoC with an NPU that runs real firmware and accounts for every cycle and joule.
#[derive(Parser, Debug)]
#[command(
    name = "presil",
    version,
    propagate_version = true,
    after_help = "Exit codes: 0 done, 1 done and it does not hold, 2 usage, 3 bad input, 4 simulation fault, \
                  75 interrupted.\n\nExample: presil run --soc xring-o1 --model mimo-7b --json"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// The command line itself, for manual pages and completions.
pub(crate) fn command() -> clap::Command {
    <Cli as clap::CommandFactory>::command()
}

/// Runs one command line and returns its exit code.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        // Help and version are "errors" of clap that go to standard output and end with 0.
        Err(error) => {
            let code = if error.use_stderr() { 2 } else { 0 };
            return if error.print().is_ok() { ExitCode::from(code) } else { ExitCode::FAILURE };
        }
    };
    let mut out = io::stdout().lock();
    let outcome = cli.command.run(&mut out).and_then(|()| out.flush().map_err(CliError::from));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if error.code() != 0 {
                // If standard error is gone too, the exit code still tells.
                let _ = writeln!(io::stderr(), "{error}");
            }
            ExitCode::from(error.code())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::command;

    #[test]
    fn the_command_line_is_consistent_and_every_command_has_an_example() {
        let mut command = command();
        command.build();
        command.clone().debug_assert();
        assert!(command.get_after_help().is_some_and(|text| text.to_string().contains("Example")));
        has_examples(&command);
    }

    fn has_examples(command: &clap::Command) {
        for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
            let help = sub.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Example: presil "), "{} has no example", sub.get_name());
            has_examples(sub);
        }
    }
}
