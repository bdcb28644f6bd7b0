//! `presil run`: a model on a SoC.

mod job;

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use isa::boot::MOST_ROWS;
use sim_kernel::Time;
use soc_model::config::{SocConfig, resolve};
use soc_model::soc::{MemoryTiming, sampling_unproven};
use traces::workload::QuantScheme;

use super::speaker::Speaker;
use crate::error::CliError;
use crate::session::pages::{PageArgs, paging};
use crate::session::sampling::{KvFormat, SamplingArgs};
use crate::session::{self, RunOutcome, RunRequest, TextJob};
use job::Workload;

/// Longest prompt, answer or context that is accepted at all; the model's own limit is usually far lower.
const MAX_TOKENS: i64 = 1 << 20;
/// What a preset or config.json is quantised to, and what a folder with weights is computed in.
const DEFAULT_QUANT: &str = "w4a16-g128";
const DEFAULT_COMPUTED: &str = "fp16";

/// Options of `presil run`.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Example: presil run --soc xring-o1 --model qwen2.5-1.5b --prefill 64 --decode 8 --set \
                        npu.cores=4 --json\n         presil run --model FILE.gguf --prompt \"The capital of \
                        France is\" --decode 16\n         presil run --model FILE.gguf --prompt \"2 + 2 =\" --logits-of \
                        216,36 --json\n         presil run --model FILE.gguf --prompt \"Once upon a time\" --temperature 0.8 \
                        --top-k 40 --top-p 0.95 --seed 7 --kv int8\n         presil run --model qwen2.5-1.5b \
                        --context 4000 --kv int4 --kv-page 256 --kv-pool 4352\n         presil run --model FOLDER-OF-AN-ENCODER --prompt \"A small brown dog\" --json\n         presil run \
                        --model siglip-so400m --quant w8a8 --json"
)]
pub struct Args {
    /// SoC preset or TOML file
    #[arg(long, default_value = "xring-o1", value_name = "NAME|FILE")]
    soc: String,
    /// Model preset, Hugging Face config.json or folder, or GGUF file
    #[arg(long, default_value = "mimo-7b", value_name = "NAME|FILE")]
    model: String,
    /// Quantisation scheme; of a GGUF file `fp16`, or `w4a8-g32` for its weights as they are and int8 activations
    /// [default: w4a16-g128, fp16 where a folder's weights compute, a GGUF file's own]
    #[arg(long, value_name = "SCHEME")]
    quant: Option<String>,
    /// Text the model is to go on with, or an encoder to make a vector of; needs files with weights and a tokenizer
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["prefill", "context"])]
    prompt: Option<String>,
    /// Score these token ids instead of making tokens: their log-probabilities and the perplexity. Ids with commas, or
    /// a file of them or of a run's record
    #[arg(long, value_name = "TOKENS|FILE", conflicts_with_all = ["decode", "prefill", "context", "shape_only", "stop_at_eos"])]
    logits_of: Option<String>,
    /// Weights have addresses but no values, also with --prompt; made ids are drawn from the seed
    #[arg(long)]
    shape_only: bool,
    /// Take prompt and made ids from this run's record, without values: the same cycles as that run
    #[arg(long, value_name = "RUN.json", conflicts_with_all = ["prompt", "logits_of", "prefill", "context"])]
    tokens_from: Option<PathBuf>,
    /// End the answer at a token that ends a text
    #[arg(long, requires = "prompt")]
    stop_at_eos: bool,
    /// Prompt tokens, or rows of an encoder of images or sound [default: 128, or all rows]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=MAX_TOKENS))]
    prefill: Option<u32>,
    /// Tokens made, the one from prefill included [default: 16, or as the record has it]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=MAX_TOKENS))]
    decode: Option<u32>,
    /// Tokens whose keys and values are resident before the prompt
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=MAX_TOKENS))]
    context: u32,
    /// How keys and values are stored [default: as the scheme says, fp16]
    #[arg(long, value_name = "FORMAT")]
    kv: Option<KvFormat>,
    #[command(flatten)]
    pages: PageArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
    /// How memory is timed [default: sampled where its error is proven, else burst]
    #[arg(long, value_name = "MODEL")]
    memory_model: Option<MemoryModelName>,
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
pub(super) enum MemoryModelName {
    /// Every command of a systematic sample of the traffic, extrapolated between samples
    Sampled,
    /// Every burst: without sampling error, and a hundred times slower
    Burst,
}

impl MemoryModelName {
    pub(super) const fn timing(self) -> MemoryTiming {
        match self {
            Self::Sampled => MemoryTiming::Sampled,
            Self::Burst => MemoryTiming::Burst,
        }
    }

    /// What was asked for, or what is proven for this chip.
    pub(super) fn timing_for(asked: Option<Self>, soc: &SocConfig) -> MemoryTiming {
        match asked {
            Some(name) => name.timing(),
            None if sampling_unproven(soc).is_some() => MemoryTiming::Burst,
            None => MemoryTiming::Sampled,
        }
    }
}

/// Says on standard error where memory is timed otherwise than people may expect.
pub(super) fn tell_memory_model(asked: Option<MemoryModelName>, soc: &SocConfig) {
    let Some(why) = sampling_unproven(soc) else { return };
    match asked {
        None => log(&format!("every memory burst is simulated: {why} (--memory-model sampled is faster)")),
        Some(MemoryModelName::Sampled) => log(&format!("sampled memory outside its proven region: {why}")),
        Some(MemoryModelName::Burst) => {}
    }
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
        let workload = self.workload().map_err(&mut keep).ok();
        let computes = workload.as_ref().is_some_and(|w| w.text.is_some());
        let default = if computes { DEFAULT_COMPUTED } else { DEFAULT_QUANT };
        let quant = match workload.as_ref().and_then(|w| w.quant.clone()) {
            Some(own) => Ok(own),
            None => QuantScheme::named(self.quant.as_deref().unwrap_or(default)),
        };
        let quant = quant.map_err(|e| keep(e.into())).ok();
        let (Some(soc), Some(workload), Some(quant)) = (soc, workload, quant) else {
            return Err(CliError::Input(problems));
        };
        let Workload { model, quant: _, text, ids, prefill, decode, context } = workload;
        let mut quant = quant;
        if let Some(kv) = self.kv {
            quant.kv = kv.tensor();
        }
        let x = &model.extras;
        if x.encoder.is_some() && x.stem.is_none() && u64::from(prefill) > MOST_ROWS {
            return Err(CliError::input(format!(
                "{}: {prefill} tokens, an encoder of text takes at most {MOST_ROWS} at once",
                if self.prompt.is_some() { "--prompt" } else { "--prefill" }
            )));
        }
        let tokens = u64::from(prefill) + u64::from(decode) + u64::from(context);
        if tokens > u64::from(model.max_position) {
            let first = if self.prompt.is_some() { "--prompt" } else { "--prefill" };
            return Err(CliError::input(format!(
                "{first} + --decode + --context: {tokens} tokens, {} takes at most {}",
                model.name, model.max_position
            )));
        }
        let pages = self.pages.choice();
        let kv = match paging(&model, &quant, tokens, pages)? {
            Some(paging) => paging.total_pages() * paging.page_bytes(),
            None => quant.kv_bytes_per_token(&model) * tokens,
        };
        let needed = quant.weight_bytes_per_token(&model) + kv;
        if needed > soc.config.dram.capacity_bytes {
            return Err(CliError::input(format!(
                "{} in {} needs {needed} bytes for weights and keys and values, dram.capacity is {}\n  help: a \
                 smaller model, fewer tokens or --set dram.capacity=\"16 GiB\"",
                model.name, quant.name, soc.config.dram.capacity_bytes
            )));
        }
        let memory_model = MemoryModelName::timing_for(self.memory_model, &soc.config);
        Ok(RunRequest {
            soc: soc.config,
            model,
            quant,
            prefill_tokens: prefill,
            decode_tokens: decode,
            context_tokens: context,
            memory_model,
            firmware: self.firmware.clone(),
            seed: self.seed,
            text,
            ids,
            sampling: self.sampling.sampling(),
            pages,
        })
    }
}

/// Resolves, runs and prints.
///
/// # Errors
/// If the input is wrong or the simulation ends early.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<(), CliError> {
    let request = args.request()?;
    if let Some(folder) = &args.output {
        // Said now, and not after minutes of simulation.
        std::fs::create_dir_all(folder)
            .map_err(|e| CliError::input(format!("cannot write {}: {e}", folder.display())))?;
    }
    tell_memory_model(args.memory_model, &request.soc);
    let outcome = match &request.text {
        Some(job) if !args.json && job.forced.is_empty() && request.decode_tokens > 0 => {
            speak(&request, job, args.trace.as_deref(), out)?
        }
        _ => {
            let bar = progress_bar(u64::from(request.decode_tokens));
            let told = &mut |tokens: &[(u32, Time)]| bar.set_position(tokens.len() as u64);
            let outcome = session::run_traced(&request, told, args.trace.as_deref())?;
            bar.finish_and_clear();
            outcome
        }
    };
    log(&host_line(&outcome));
    if let Some(job) = &request.text {
        log(&widths(&request, job)?);
    }
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

/// Host time, and the rate of tokens it makes with loading and booting included.
fn host_line(outcome: &RunOutcome) -> String {
    let milliseconds = outcome.host.host_ns / 1_000_000;
    let line = format!("host: {milliseconds} ms, {} events", outcome.host.events);
    let tokens = outcome.record.workload.decode_tokens;
    if tokens == 0 {
        return line;
    }
    let hundredths = tokens * 100_000 / milliseconds.max(1);
    format!("{line}, {}.{:02} tokens/s", hundredths / 100, hundredths % 100)
}

/// Runs with the text written as it appears.
fn speak(
    request: &RunRequest,
    job: &TextJob,
    trace: Option<&Path>,
    out: &mut dyn Write,
) -> Result<RunOutcome, CliError> {
    let mut speaker = Speaker::new(&job.tokenizer, out);
    let outcome = session::run_traced(request, &mut |tokens| speaker.hear(tokens), trace)?;
    speaker.finish()?;
    writeln!(out, "\n")?;
    Ok(outcome)
}

/// How wide weights are in the file and in the image, where rows of the embedding are fp16 beside the matrices; then a
/// line for each kind of layers, if they are not all stored alike.
fn widths(request: &RunRequest, job: &TextJob) -> Result<String, CliError> {
    let decimal = |hundredths: u64| format!("{}.{:02}", hundredths / 100, hundredths % 100);
    let text = |bytes: u64| decimal(bytes * 800 / job.model.weight_elements().max(1));
    let (model, quant) = (&request.model, &request.quant);
    let layout = job.model.layout(quant, request.positions())?;
    let rows: u64 = layout.tensors.iter().filter(|t| t.name == "embed").map(|t| t.bytes).sum();
    let (file, image) = (text(job.model.weight_bytes()), text(layout.bytes() - rows));
    let mut out = format!(
        "weights: {file} bits each in the file, {image} in the image and {} of embedding rows",
        text(rows)
    );
    for (kind, body) in quant.kinds().enumerate().filter(|_| quant.is_mixed()) {
        let layers = (0..model.layers).filter(|l| quant.kind_of(*l) == kind).count();
        let each = body.hundredths(model).into_iter().map(|(name, bits)| format!("{name} {}", decimal(bits)));
        let each: Vec<String> = each.collect();
        out += &format!("\n  {layers} of {} layers: {}", model.layers, each.join(", "));
    }
    Ok(out)
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
