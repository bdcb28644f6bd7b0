//! `presil docs` and `presil completions`: what the command line says about itself, for manuals and shells.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::error::CliError;

/// Options of `presil docs`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example: presil docs man -o man")]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// One manual page a command
    #[command(after_help = "Example: presil docs man -o man && man man/presil.1")]
    Man {
        /// Folder to write to, made if missing
        #[arg(short, long = "output", value_name = "DIR")]
        output: PathBuf,
    },
}

/// Options of `presil completions`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example: presil completions bash > /etc/bash_completion.d/presil")]
pub struct CompletionArgs {
    /// Shell
    shell: ShellName,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ShellName {
    Bash,
    Zsh,
    Fish,
}

/// Writes the manual pages.
///
/// # Errors
/// If the folder cannot be written.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<(), CliError> {
    let What::Man { output } = &args.what;
    let failed = |e: std::io::Error| CliError::input(format!("{}: cannot be written: {e}", output.display()));
    fs::create_dir_all(output).map_err(failed)?;
    let mut command = crate::cli::command();
    command.build();
    let pages = pages(&command, output, "presil")?;
    writeln!(out, "wrote {pages} pages to {}", output.display())?;
    Ok(())
}

/// One page for a command and each below it, named as `git` names its own: `presil-npu-gemm.1`.
fn pages(command: &clap::Command, folder: &Path, name: &str) -> Result<usize, CliError> {
    let mut text = Vec::new();
    clap_mangen::Man::new(command.clone()).title(name.to_uppercase()).render(&mut text)?;
    let text = String::from_utf8(text).map_err(|e| CliError::input(e.to_string()))?;
    reports::write::atomic(&folder.join(format!("{name}.1")), &text)
        .map_err(|e| CliError::input(e.to_string()))?;
    let mut count = 1;
    for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
        count += pages(sub, folder, &format!("{name}-{}", sub.get_name()))?;
    }
    Ok(count)
}

/// Prints the completion script of a shell.
///
/// # Errors
/// If `out` takes no more.
pub fn completions(args: &CompletionArgs, out: &mut dyn Write) -> Result<(), CliError> {
    let shell = match args.shell {
        ShellName::Bash => Shell::Bash,
        ShellName::Zsh => Shell::Zsh,
        ShellName::Fish => Shell::Fish,
    };
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut crate::cli::command(), "presil", &mut text);
    out.write_all(&text)?;
    Ok(())
}
