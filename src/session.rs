//! One run: what is asked of the simulator and what comes back. The seam between the command line and the chip.

use soc_model::config::SocConfig;
use traces::workload::{ModelSpec, QuantScheme};

use crate::error::CliError;

/// How memory is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryModel {
    /// Every command of a systematic sample of the traffic, extrapolated between samples.
    Sampled,
}

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
    /// Tokens made, the one from prefill included, at least 1.
    pub decode_tokens: u32,
    /// Tokens resident before the prompt.
    pub context_tokens: u32,
    /// How memory is timed.
    pub memory_model: MemoryModel,
    /// Seed of every random stream.
    pub seed: u64,
}

/// What a run returns, ready to print.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunOutcome {
    /// The record as one JSON document with a final newline.
    pub json: String,
    /// The record as text people read.
    pub summary: String,
}

/// Builds the chip, loads the model and runs it to the last token.
///
/// # Errors
/// If the modelled software faults, or the model has a gap.
pub fn run(request: &RunRequest) -> Result<RunOutcome, CliError> {
    Err(CliError::Simulation(format!(
        "model gap: nothing assembles {} to run {} yet (extend src/session.rs)",
        request.soc.name, request.model.name
    )))
}
