//! One run: what is asked of the simulator and what comes back. The seam between the command line and the chip.

pub mod conversation;
mod facts;
mod host;
pub mod ids;
mod padding;
pub mod pages;
pub mod sampling;
mod trace_file;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use reports::RunRecord;
use reports::facts::{Output, Score};
use reports::write::HostFacts;
use sim_kernel::Stream;
use soc_model::config::SocConfig;
use soc_model::soc::{
    BuildError, FirmwareImage, Job, Listener, MemoryTiming, ModelImage, RunResult, SocBuilder, SocFault, Turn,
};
use traces::image::{ImageLayout, stored_spec};
use traces::model_file::ModelFile;
use traces::tokenizer::Tokenizer;
use traces::workload::{ModelSpec, QuantScheme, Stem};

use crate::error::CliError;
use pages::PageChoice;
use sampling::Sampling;
use trace_file::TraceFile;

/// The firmware that ships with presil.
const FIRMWARE: &[u8] = include_bytes!("../../firmware/prebuilt/firmware.elf");
/// Most rows of a prefill chunk unless a policy says otherwise.
pub const PREFILL_CHUNK: u32 = 128;

/// Everything that decides the result of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct RunRequest {
    /// The chip.
    pub soc: SocConfig,
    /// The model.
    pub model: ModelSpec,
    /// How it is quantised.
    pub quant: QuantScheme,
    /// Prompt tokens, at least 1.
    pub prefill_tokens: u32,
    /// Tokens made, the one from prefill included, at least 1; 0 of an encoder.
    pub decode_tokens: u32,
    /// Tokens resident before the prompt.
    pub context_tokens: u32,
    /// How memory is timed.
    pub memory_model: MemoryTiming,
    /// Firmware to run instead of the built-in one.
    pub firmware: Option<PathBuf>,
    /// Seed of every random stream.
    pub seed: u64,
    /// Weights and a prompt: a functional run. Without, weights have addresses but no values.
    pub text: Option<TextJob>,
    /// Ids a shape-only run is to have; without, they are drawn from the seed.
    pub ids: Option<GivenIds>,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// What of the cache's pages is asked for.
    pub pages: PageChoice,
}

impl RunRequest {
    /// Positions memory is reserved for.
    #[must_use]
    pub fn positions(&self) -> u64 {
        u64::from(self.context_tokens) + u64::from(self.prefill_tokens) + u64::from(self.decode_tokens)
    }
}

/// Ids of another run, for one without values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GivenIds {
    /// Of the prompt.
    pub prompt: Vec<u32>,
    /// Of the answer; the rest is drawn.
    pub made: Vec<u32>,
    /// Tokens that end the answer.
    pub stop: Vec<u32>,
}

/// A model with its weights, and what it is asked.
#[derive(Clone, Debug)]
pub struct TextJob {
    /// The opened files.
    pub model: Arc<ModelFile>,
    /// Its tokenizer.
    pub tokenizer: Arc<Tokenizer>,
    /// Ids of the prompt.
    pub prompt: Vec<u32>,
    /// Ids the model is scored on, instead of making its own.
    pub forced: Vec<u32>,
    /// Ids that end the answer.
    pub stop: Vec<u32>,
}

impl PartialEq for TextJob {
    fn eq(&self, other: &Self) -> bool {
        (&self.prompt, &self.forced, &self.stop) == (&other.prompt, &other.forced, &other.stop)
            && self.model == other.model
    }
}

/// What a run returns.
#[derive(Clone, Debug)]
pub struct RunOutcome {
    /// The record.
    pub record: RunRecord,
    /// Host time and events: not part of the record, which is the same on every machine.
    pub host: HostFacts,
}

/// Builds the chip, loads the model and runs it to the last token. `progress` hears of every token.
///
/// # Errors
/// If the input does not fit the chip, the modelled software faults, or a conservation law is broken.
pub fn run(request: &RunRequest, progress: &mut dyn FnMut(u64)) -> Result<RunOutcome, CliError> {
    run_traced(request, &mut |tokens| progress(tokens.len() as u64), None)
}

/// The same, but `told` hears all tokens there are after each, and with a Perfetto trace of it where `trace` names a file: the outcome does not depend on it. A run that
/// faults leaves its trace, for that is when one wants to see it.
///
/// # Errors
/// As [`run`], and if the trace cannot be written.
pub fn run_traced(
    request: &RunRequest,
    told: Listener,
    trace: Option<&Path>,
) -> Result<RunOutcome, CliError> {
    let clock = host::Stopwatch::start();
    let firmware = firmware(request.firmware.as_deref())?;
    let sha256 = facts::sha256(&firmware.elf);
    let layout = match &request.text {
        Some(job) => job.model.layout(&request.quant, request.positions())?,
        None => ImageLayout::new(&request.model.at(request.positions()), &request.quant)?,
    };
    let soc = builder(request, firmware, &layout)?.build().map_err(build_error)?;
    let outcome = match trace {
        None => soc.run_telling(told),
        Some(path) => {
            let mut file = TraceFile::create(path, &header(request))?;
            let outcome = soc.run_observed(told, file.sink());
            file.finish(&footer(&outcome))?;
            outcome
        }
    };
    let result = outcome.map_err(|e: SocFault| CliError::Simulation(e.to_string()))?;
    let host = HostFacts { host_ns: clock.nanoseconds(), events: result.events };
    let facts = facts::facts(request, &layout, &result, sha256);
    let record = RunRecord::from_facts(&facts).map_err(|laws| {
        let all: Vec<String> = laws.iter().map(ToString::to_string).collect();
        CliError::Simulation(format!("a conservation law is broken:\n  {}", all.join("\n  ")))
    })?;
    Ok(RunOutcome { record, host })
}

/// SHA-256 of the firmware a request with this file would run.
///
/// # Errors
/// If the file cannot be read.
pub fn firmware_sha256(path: Option<&Path>) -> Result<String, CliError> {
    Ok(facts::sha256(&firmware(path)?.elf))
}

/// What a trace says about its run before it.
fn header(q: &RunRequest) -> Vec<(&'static str, String)> {
    vec![
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ("soc", q.soc.name.clone()),
        ("soc_hash", q.soc.hash()),
        ("model", q.model.name.clone()),
        ("quant", q.quant.name.to_string()),
        ("prefill", q.prefill_tokens.to_string()),
        ("decode", q.decode_tokens.to_string()),
        ("context", q.context_tokens.to_string()),
        ("seed", q.seed.to_string()),
    ]
}

/// What a trace says about its run after it.
fn footer(outcome: &Result<RunResult, SocFault>) -> Vec<(&'static str, String)> {
    match outcome {
        Ok(r) => vec![("digest", r.digest.clone())],
        Err(fault) => vec![("fault", fault.to_string())],
    }
}

fn build_error(e: BuildError) -> CliError {
    CliError::input(e.to_string())
}

fn firmware(path: Option<&Path>) -> Result<FirmwareImage, CliError> {
    match path {
        None => Ok(FirmwareImage { place: "built-in".to_owned(), elf: FIRMWARE.to_vec() }),
        Some(path) => {
            let place = path.display().to_string();
            let elf =
                std::fs::read(path).map_err(|e| CliError::input(format!("{place}: cannot be read: {e}")))?;
            Ok(FirmwareImage { place, elf })
        }
    }
}

/// What a functional run said.
fn output(q: &RunRequest, job: &TextJob, r: &RunResult) -> Output {
    let tokens: Vec<u32> = r.tokens.iter().map(|t| t.0).collect();
    let score = (!job.forced.is_empty())
        .then(|| Score { perplexity: perplexity(&r.logprobs), chosen: r.chosen.clone() });
    Output {
        text: job.tokenizer.decode(&tokens),
        tokens,
        logprobs: r.logprobs.clone(),
        prompt_ids: job.prompt.clone(),
        limit: q.decode_tokens.into(),
        embedding: r.embedding.iter().flat_map(|e| e.1.iter().copied()).collect(),
        score,
    }
}

#[allow(clippy::cast_precision_loss, reason = "a run has far fewer tokens than 2^52")]
fn perplexity(logprobs: &[f64]) -> f64 {
    libm::exp(-logprobs.iter().sum::<f64>() / logprobs.len().max(1) as f64)
}

/// Most rows of a prefill chunk; an encoder takes all its rows at once.
fn chunk(q: &RunRequest) -> u32 {
    if q.model.extras.encoder.is_some() { q.prefill_tokens.max(1) } else { PREFILL_CHUNK }
}

/// The chip for a request: memory sized for the job; ids that nothing gives are drawn from the seed.
fn builder(
    request: &RunRequest,
    firmware: FirmwareImage,
    layout: &ImageLayout,
) -> Result<SocBuilder, CliError> {
    let positions = request.positions();
    let mut turn = Turn {
        decode: request.decode_tokens.into(),
        context: request.context_tokens.into(),
        draw: request.sampling.draw(request.seed),
        ..Turn::default()
    };
    let mut ids = Vec::new();
    let stored = match (&request.text, &request.ids) {
        (Some(job), _) => {
            (turn.prompt, turn.forced, turn.stop) =
                (job.prompt.clone(), job.forced.clone(), job.stop.clone());
            vec![(0, job.model.image(layout, &request.quant)?)]
        }
        (None, Some(given)) => {
            (turn.prompt, turn.stop) = (given.prompt.clone(), given.stop.clone());
            let first = u64::from(request.context_tokens) + given.prompt.len() as u64;
            ids = (first..).zip(given.made.iter().copied()).collect();
            layout.stored()
        }
        (None, None) => {
            let mut drawn = Stream::new(request.seed, "session", "prompt ids");
            let vocab = u64::from(request.model.vocab);
            let mut draw = || u32::try_from(drawn.below(vocab)).expect("a vocabulary fits 32 bits");
            turn.prompt = (0..request.prefill_tokens).map(|_| draw()).collect();
            layout.stored()
        }
    };
    let chunk = chunk(request);
    let bulk_bytes = bulk_bytes(&request.model, &request.quant, positions, chunk, request.pages)?;
    Ok(SocBuilder {
        config: request.soc.clone(),
        firmware,
        model: ModelImage {
            bytes: layout.bytes(),
            stored,
            functional: request.text.is_some(),
            bulk_bytes,
            vocab: request.model.vocab.into(),
        },
        job: Job {
            turn,
            positions,
            chunk,
            kv_bits: kv_bits(&request.quant),
            pages: request.pages,
            ids,
            seed: request.seed,
        },
        memory: request.memory_model,
        reversed: false,
    })
}

/// Bits of an element of the cache.
fn kv_bits(quant: &QuantScheme) -> u32 {
    u32::try_from(quant.kv.bits()).unwrap_or(u32::MAX)
}

/// Keys and values of that many positions, activations of a spilled prefill chunk, logits.
fn bulk_bytes(
    m: &ModelSpec,
    quant: &QuantScheme,
    positions: u64,
    chunk: u32,
    choice: PageChoice,
) -> Result<u64, CliError> {
    let m = &stored_spec(m);
    let kv = match pages::paging(m, quant, positions, choice)? {
        Some(paging) => paging.bulk_bytes(),
        None => quant.kv_bytes_per_token(m) * pages::rounded(positions),
    };
    // Residual stream, and beside it outputs that are normed before they join it.
    let streams = if m.extras.post_norms { 2 } else { 1 };
    let spill = u64::from(chunk) * (streams * u64::from(m.hidden) * 4 + u64::from(m.ffn) * 3);
    let rows = rows_bytes(m, pages::rounded(positions), chunk.into());
    Ok(kv + spill + u64::from(m.vocab) * 4 + 64 * 1024 + rows)
}

/// What an encoder's rows take besides, where a pass does not hold them all: queries, residual stream, the widest chunk's
/// hidden layer; of an image or a sound also its input, what is between two products, and the result.
fn rows_bytes(m: &ModelSpec, positions: u64, rows: u64) -> u64 {
    if m.extras.encoder.is_none() {
        return 0;
    }
    let (hidden, ffn) = (u64::from(m.hidden), u64::from(m.ffn));
    let chunks = rows * (m.q_width() * 2 + hidden * 8 + ffn * 3) + ffn * 3 + 16 * 4096;
    let layer = 2 * m.kv_width() * 2 * positions;
    let stem = match m.extras.stem {
        None => 0,
        Some(Stem::Patches { values, .. }) => rows * (u64::from(values) + 16) * 2 + rows * hidden * 4,
        Some(Stem::Frames { bins }) => (2 * rows + 2) * (u64::from(bins) + hidden) * 2 + rows * hidden * 4,
    };
    chunks + layer + stem
}
