//! What a run is to do: the model's shape or weights, and whose token ids.

use std::path::Path;
use std::sync::Arc;

use traces::model_file::ModelFile;
use traces::tokenizer::Tokenizer;
use traces::workload::{ModelSpec, QuantScheme, Stem, load_model};

use super::Args;
use crate::error::CliError;
use crate::session::{GivenIds, TextJob, ids};

/// What is to run, and how long it is.
pub(super) struct Workload {
    pub(super) model: ModelSpec,
    /// The file's own scheme, if it decides.
    pub(super) quant: Option<QuantScheme>,
    pub(super) text: Option<TextJob>,
    pub(super) ids: Option<GivenIds>,
    pub(super) prefill: u32,
    pub(super) decode: u32,
    pub(super) context: u32,
}

/// Prompt tokens, and tokens made, unless options say otherwise.
const DEFAULT_PREFILL: u32 = 128;
const DEFAULT_DECODE: u32 = 16;

fn count(ids: &[u32]) -> u32 {
    u32::try_from(ids.len()).unwrap_or(u32::MAX)
}

impl Args {
    /// The model, its weights if it is to compute, ids where they are given.
    pub(super) fn workload(&self) -> Result<Workload, CliError> {
        let file = if ModelFile::is_one(&self.model) { Some(ModelFile::open(&self.model)?) } else { None };
        let Some(file) = file else {
            self.needs_text(&load_model(&self.model)?)?;
            let asked = [("--prompt", self.prompt.is_some()), ("--logits-of", self.logits_of.is_some())];
            if let Some((option, _)) = asked.into_iter().find(|(_, given)| *given) {
                if Path::new(&self.model).is_dir() {
                    return Err(CliError::input(format!(
                        "--model: {}: expected config.json and model.safetensors (or model.safetensors.index.json) in \
                         this folder",
                        self.model
                    )));
                }
                return Err(CliError::input(format!(
                    "{option}: `{}` has no weights and no tokenizer\n  help: --model FILE.gguf or a folder with \
                     safetensors, or --prefill N for a run without values",
                    self.model
                )));
            }
            return self.shapes(load_model(&self.model)?, None);
        };
        let (model, quant) = (file.spec().clone(), file.scheme(self.quant.as_deref())?);
        self.suits(&model)?;
        if self.prompt.is_none() && self.logits_of.is_none() {
            return self.shapes(model, quant);
        }
        let tokenizer = file.tokenizer()?;
        let stop = if self.stop_at_eos { ends(&tokenizer)? } else { Vec::new() };
        let (prompt, forced) = self.given(&tokenizer, model.vocab)?;
        let decode = if forced.is_empty() { self.makes(&model) } else { count(&forced) };
        let prefill = count(&prompt);
        let (text, ids) = if self.shape_only {
            (None, Some(GivenIds { prompt, made: Vec::new(), stop }))
        } else {
            let (model, tokenizer) = (Arc::new(file), Arc::new(tokenizer));
            (Some(TextJob { model, tokenizer, prompt, forced, stop }), None)
        };
        Ok(Workload { model, quant, text, ids, prefill, decode, context: 0 })
    }

    /// Tokens to make: an encoder makes none.
    fn makes(&self, model: &ModelSpec) -> u32 {
        if model.extras.encoder.is_some() { 0 } else { self.decode.unwrap_or(DEFAULT_DECODE) }
    }

    /// Refuses text for an encoder of images or sound.
    fn needs_text(&self, model: &ModelSpec) -> Result<(), CliError> {
        let what = match model.extras.stem {
            Some(Stem::Patches { .. }) => "images",
            Some(Stem::Frames { .. }) => "sound",
            None => return Ok(()),
        };
        let asked = [("--prompt", self.prompt.is_some()), ("--logits-of", self.logits_of.is_some())];
        match asked.into_iter().find(|(_, given)| *given) {
            Some((option, _)) => Err(CliError::input(format!(
                "{option}: `{}` encodes {what}, no text\n  help: leave it out for a run without values; --prefill N has N of \
                 its {} rows",
                model.name, model.max_position
            ))),
            None => Ok(()),
        }
    }

    /// Refuses what an encoder cannot be asked.
    fn suits(&self, model: &ModelSpec) -> Result<(), CliError> {
        let asked = [
            ("--decode", self.decode.is_some()),
            ("--context", self.context > 0),
            ("--logits-of", self.logits_of.is_some()),
            ("--stop-at-eos", self.stop_at_eos),
            ("--tokens-from", self.tokens_from.is_some()),
            ("--temperature", self.sampling.sampling().candidates() > 0),
        ];
        match asked.into_iter().find(|(_, given)| *given) {
            Some((option, _)) if model.extras.encoder.is_some() => Err(CliError::input(format!(
                "{option}: `{}` is an encoder: it makes one vector of a prompt, and no tokens\n  help: --prompt TEXT, or \
                 --prefill N for a run without values",
                model.name
            ))),
            _ => Ok(()),
        }
    }

    /// A run without values.
    fn shapes(&self, model: ModelSpec, quant: Option<QuantScheme>) -> Result<Workload, CliError> {
        self.suits(&model)?;
        let decode = self.makes(&model);
        // An image or a sound is all there unless somebody wants less of it.
        let rows = if model.extras.stem.is_some() { model.max_position } else { DEFAULT_PREFILL };
        let prefill = self.prefill.unwrap_or(rows);
        let work = Workload { model, quant, text: None, ids: None, prefill, decode, context: self.context };
        let Some(path) = &self.tokens_from else { return Ok(work) };
        let recorded = ids::recorded(path, work.model.vocab)?;
        Ok(Workload {
            prefill: count(&recorded.ids.prompt),
            decode: self.decode.unwrap_or(recorded.limit),
            context: recorded.context,
            ids: Some(recorded.ids),
            ..work
        })
    }

    /// Ids of the prompt, and those to score. Without a prompt scoring starts behind what every text starts with, or
    /// behind the first of the ids.
    fn given(&self, tokenizer: &Tokenizer, vocab: u32) -> Result<(Vec<u32>, Vec<u32>), CliError> {
        let mut forced = match &self.logits_of {
            Some(argument) => ids::list("--logits-of", argument, vocab)?,
            None => Vec::new(),
        };
        let mut prompt = tokenizer.encode(self.prompt.as_deref().unwrap_or_default())?;
        if prompt.is_empty() {
            if self.prompt.is_some() {
                return Err(CliError::input("--prompt: expected at least one token"));
            }
            if forced.len() < 2 {
                return Err(CliError::input(
                    "--logits-of: expected at least two tokens: without --prompt the first is what the others follow",
                ));
            }
            prompt.push(forced.remove(0));
        }
        match prompt.iter().find(|id| **id >= vocab) {
            Some(id) => Err(CliError::input(format!("--prompt: the tokenizer gives token {id} of {vocab}"))),
            None => Ok((prompt, forced)),
        }
    }
}

fn ends(tokenizer: &Tokenizer) -> Result<Vec<u32>, CliError> {
    match tokenizer.ends() {
        [] => Err(CliError::input("--stop-at-eos: the model's files name no token that ends a text")),
        some => Ok(some.to_vec()),
    }
}
