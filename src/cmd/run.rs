//! `presil run`: a model on a SoC.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use soc_model::config::resolve;
use soc_model::soc::MemoryTiming;
use traces::workload::{QuantScheme, load_model};

use crate::error::CliError;
use crate::session::{self, RunRequest};

/// Longest prompt, answer or context that is accepted at all; the model's own limit is usually far lower.
const MAX_TOKENS: i64 = 1 << 20;

/// Options of `presil run`.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Example: presil run --soc xring-o1 --model qwen2.5-1.5b --prefill 64 --decode 8 --set \
                        npu.cores=4 --json"
)]
pub struct Args {
    /// SoC preset or TOML file
    #[arg(long, default_value = "xring-o1", value_name = "NAME|FILE")]
    soc: String,
    /// Model preset or Hugging Face config.json
    #[arg(long, default_value = "mimo-7b", value_name = "NAME|FILE")]
    model: String,
    /// Quantisation scheme
    #[arg(long, default_value = "w4a16-g128", value_name = "SCHEME")]
    quant: String,
    /// Prompt tokens
    #[arg(long, default_value_t = 128, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=MAX_TOKENS))]
    prefill: u32,
    /// Tokens made, the one from prefill included
    #[arg(long, default_value_t = 16, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=MAX_TOKENS))]
    decode: u32,
    /// Tokens whose keys and values are resident before the prompt
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=MAX_TOKENS))]
    context: u32,
    /// How memory is timed
    #[arg(long, default_value = "sampled", value_name = "MODEL")]
    memory_model: MemoryModelName,
    /// Replace a value of the SoC, for example npu.cores=4
    #[arg(long = "set", value_name = "PATH=VALUE")]
    sets: Vec<String>,
    /// Firmware ELF to run instead of the built-in one
    #[arg(long, value_name = "ELF")]
    firmware: Option<PathBuf>,
    /// Write run.json, tables and plots to this folder
    #[arg(short, long = "output", value_name = "DIR")]
    output: Option<PathBuf>,
    /// Write a Perfetto trace of the run to this file
    #[arg(long, value_name = "FILE.pftrace")]
    trace: Option<PathBuf>,
    /// Seed of every random stream
    #[arg(long, default_value_t = 0, value_name = "N")]
    seed: u64,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Names of memory timing models.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum MemoryModelName {
    /// Every command of a systematic sample of the traffic, extrapolated between samples
    Sampled,
    /// Every burst: without sampling error, and a hundred times slower
    Burst,
}

impl Args {
    /// Resolves names, files and options; every problem in them is reported at once.
    ///
    /// # Errors
    /// If any of it is wrong.
    pub fn request(&self) -> Result<RunRequest, CliError> {
        let mut problems = Vec::new();
        let mut keep = |error: CliError| match error {
            CliError::Input(messages) => problems.extend(messages),
            other => problems.push(other.to_string()),
        };
        let soc = resolve(&self.soc, &self.sets).map_err(|e| keep(e.into())).ok();
        let model = load_model(&self.model).map_err(|e| keep(e.into())).ok();
        let quant = QuantScheme::named(&self.quant).map_err(|e| keep(e.into())).ok();
        let (Some(soc), Some(model), Some(quant)) = (soc, model, quant) else {
            return Err(CliError::Input(problems));
        };
        let tokens = u64::from(self.prefill) + u64::from(self.decode) + u64::from(self.context);
        if tokens > u64::from(model.max_position) {
            return Err(CliError::input(format!(
                "--prefill + --decode + --context: {tokens} tokens, {} takes at most {}",
                model.name, model.max_position
            )));
        }
        let needed = quant.weight_bytes_per_token(&model) + quant.kv_bytes_per_token(&model) * tokens;
        if needed > soc.config.dram.capacity_bytes {
            return Err(CliError::input(format!(
                "{} in {} needs {needed} bytes for weights and keys and values, dram.capacity is {}\n  help: a \
                 smaller model, fewer tokens or --set dram.capacity=\"16 GiB\"",
                model.name, quant.name, soc.config.dram.capacity_bytes
            )));
        }
        Ok(RunRequest {
            soc: soc.config,
            model,
            quant,
            prefill_tokens: self.prefill,
            decode_tokens: self.decode,
            context_tokens: self.context,
            memory_model: match self.memory_model {
                MemoryModelName::Sampled => MemoryTiming::Sampled,
                MemoryModelName::Burst => MemoryTiming::Burst,
            },
            firmware: self.firmware.clone(),
            seed: self.seed,
        })
    }
}

/// Resolves, runs and prints.
///
/// # Errors
/// If the input is wrong or the simulation ends early.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<(), CliError> {
    let request = args.request()?;
    let bar = progress_bar(u64::from(request.decode_tokens));
    let outcome =
        session::run_traced(&request, &mut |tokens| bar.set_position(tokens), args.trace.as_deref())?;
    bar.finish_and_clear();
    let seconds = outcome.host.host_ns / 1_000_000;
    log(&format!("host: {seconds} ms, {} events", outcome.host.events));
    if let Some(folder) = &args.output {
        let files = reports::write::run_directory(folder, &outcome.record, Some(&outcome.host))
            .map_err(|e| CliError::input(e.to_string()))?;
        log(&format!("wrote {} files to {}", files.len(), folder.display()));
    }
    let text = if args.json {
        outcome.record.to_json().map_err(|e| CliError::Simulation(e.to_string()))?
    } else {
        reports::summary::text(&outcome.record)
    };
    out.write_all(text.as_bytes())?;
    Ok(())
}

/// One line to standard error.
fn log(line: &str) {
    // A closed standard error is no reason to lose a finished run.
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// A bar on a terminal, nothing elsewhere.
fn progress_bar(tokens: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{elapsed} {bar:30} {pos}/{len} tokens, {eta} left")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(tokens).with_style(style);
    bar.tick();
    bar
}
