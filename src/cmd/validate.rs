//! `presil validate`: the models against published and measured references, row by row.
//!
//! ```text
//!  validation/*.csv: case, command, metric, reference, band, rule, source, note
//!     npu-*.csv -> `presil npu gemm`     dram.csv -> `presil dram replay`     silicon.csv -> `presil run`
//! ```
//!
//! A row's command is what a user would type, its metric a place in the JSON that prints; so a row is added by adding
//! a line, and repeated by hand by copying it.

mod llm;
mod npu;
mod rows;

use std::io::Write;
use std::path::PathBuf;

use clap::ValueEnum;

pub(super) use self::rows::options;
use super::{dram, run, write_json};
use crate::error::CliError;
use crate::session;

/// Options of `presil validate`.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Example: presil validate --suite npu --json\n         presil validate --suite llm --gguf \
                        SmolLM2-135M-Instruct.Q4_1.gguf --reference greedy.json\n\nThe exit code is 1 if a row's error is \
                        above its band."
)]
pub struct Args {
    /// What to hold against its references: npu (SCALE-Sim, RTL, ONNXim, TPU), dram (Ramulator 2.1), silicon (published
    /// rates of phones), llm (tokens of a float reference), or all that need no files
    #[arg(long, default_value = "all")]
    suite: Suite,
    /// Weights the llm suite runs
    #[arg(long, value_name = "FILE.gguf", requires = "reference")]
    gguf: Option<PathBuf>,
    /// Prompts and tokens the llm suite expects
    #[arg(long, value_name = "FILE.json", requires = "gguf")]
    reference: Option<PathBuf>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Suite {
    Npu,
    Dram,
    Llm,
    Silicon,
    All,
}

/// Built-in rows: suite and file.
const FILES: [(Suite, &str, &str); 5] = [
    (Suite::Npu, "npu-scalesim.csv", include_str!("../../validation/npu-scalesim.csv")),
    (Suite::Npu, "npu-rtl.csv", include_str!("../../validation/npu-rtl.csv")),
    (Suite::Npu, "npu-onnxim.csv", include_str!("../../validation/npu-onnxim.csv")),
    (Suite::Dram, "dram.csv", include_str!("../../validation/dram.csv")),
    (Suite::Silicon, "silicon.csv", include_str!("../../validation/silicon.csv")),
];

impl Suite {
    const fn name(self) -> &'static str {
        match self {
            Self::Npu => "npu",
            Self::Dram => "dram",
            Self::Llm => "llm",
            Self::Silicon => "silicon",
            Self::All => "all",
        }
    }

    fn includes(self, other: Self) -> bool {
        self == Self::All || self == other
    }
}

/// Runs every row and prints them.
///
/// # Errors
/// If a file is wrong, a run ends early, or a row does not hold (after all are printed).
pub fn run(args: &Args, out: &mut dyn Write) -> Result<(), CliError> {
    let mut checked = Vec::new();
    for (suite, file, text) in FILES.iter().filter(|f| args.suite.includes(f.0)) {
        let parsed = rows::parse(file, text)?;
        let mut last: Option<(String, serde_json::Value)> = None;
        for row in parsed {
            let document = match last.take() {
                Some((command, document)) if command == row.command => document,
                _ => document(*suite, &row.command)
                    .map_err(|e| CliError::input(format!("{file}: {}: {e}", row.case)))?,
            };
            checked.push(row.check(suite.name(), &document)?);
            last = Some((row.command, document));
        }
    }
    if args.suite.includes(Suite::Npu) {
        checked.extend(npu::rank_correlations()?);
    }
    match (&args.gguf, &args.reference) {
        (Some(gguf), Some(reference)) if args.suite.includes(Suite::Llm) => {
            checked.extend(llm::check(gguf, reference)?);
        }
        (Some(_), _) => return Err(CliError::input("--gguf: only the llm suite reads it")),
        (None, _) if args.suite == Suite::Llm => {
            return Err(CliError::input("--suite llm: expected --gguf FILE.gguf and --reference FILE.json"));
        }
        _ => {}
    }
    if args.json {
        write_json(out, &checked)?;
    } else {
        rows::print(out, &checked)?;
    }
    let failed = checked.iter().filter(|c| !c.pass).count();
    if failed == 0 {
        Ok(())
    } else {
        Err(CliError::DoesNotHold(format!("{failed} of {} rows", checked.len())))
    }
}

/// What a row's command prints.
fn document(suite: Suite, command: &str) -> Result<serde_json::Value, CliError> {
    match suite {
        Suite::Dram => dram::document(command),
        Suite::Silicon => {
            let outcome = session::run(&rows::options::<run::Args>(command)?.request()?, &mut |_| {})?;
            let text = outcome.record.to_json().map_err(|e| CliError::Simulation(e.to_string()))?;
            serde_json::from_str(&text).map_err(|e| CliError::Simulation(e.to_string()))
        }
        _ => npu::document(command),
    }
}
