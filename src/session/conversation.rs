//! A chip that is asked several times: each turn finds keys and values of the one before in memory.

use isa::cache::Paging;
use reports::facts::KvFacts;
use sim_kernel::{Energy, Time};
use soc_model::soc::{Draw, Job, Listener, ModelImage, Soc, SocBuilder, Turn};
use traces::workload::QuantScheme;

use super::{PREFILL_CHUNK, RunRequest, bulk_bytes, firmware, kv_bits, pages};
use crate::error::CliError;

/// A conversation under way.
pub struct Conversation {
    soc: Soc,
    /// Ids whose keys and values are resident.
    resident: Vec<u32>,
    positions: u32,
    draw: Draw,
    quant: QuantScheme,
    paging: Option<Paging>,
}

/// What a turn came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The answer's ids, the one that ended it included.
    pub tokens: Vec<u32>,
    /// Ids of the prompt that were resident already.
    pub reused: u32,
    /// Ids of the prompt that were read.
    pub read: u32,
    /// From the prompt's doorbell to the first token.
    pub first: Time,
    /// To the end.
    pub total: Time,
    /// Pages of the cache after it.
    pub kv: Option<KvFacts>,
    /// Energy of the turn.
    pub energy: Energy,
    /// Of it, up to the first token.
    pub prefill_energy: Energy,
}

/// Ids two lists begin with alike.
fn alike(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

impl Conversation {
    /// Builds the chip with memory for `positions` positions. Of the request, its text's prompt and its lengths do not
    /// count.
    ///
    /// # Errors
    /// If the input does not fit the chip.
    pub fn open(request: &RunRequest, positions: u32) -> Result<Self, CliError> {
        let Some(job) = &request.text else {
            return Err(CliError::input("--model: a conversation needs a model with weights"));
        };
        let layout = job.model.layout(&request.quant, positions.into())?;
        let paging = pages::paging(&request.model, &request.quant, positions.into(), request.pages)?;
        let builder = SocBuilder {
            config: request.soc.clone(),
            firmware: firmware(request.firmware.as_deref())?,
            model: ModelImage {
                bytes: layout.bytes(),
                stored: vec![(0, job.model.image(&layout, &request.quant)?)],
                functional: true,
                bulk_bytes: bulk_bytes(
                    &request.model,
                    &request.quant,
                    positions.into(),
                    PREFILL_CHUNK,
                    request.pages,
                )?,
                vocab: request.model.vocab.into(),
            },
            job: Job {
                turn: Turn::default(),
                positions: positions.into(),
                chunk: PREFILL_CHUNK,
                kv_bits: kv_bits(&request.quant),
                pages: request.pages,
                ids: Vec::new(),
                seed: request.seed,
            },
            memory: request.memory_model,
            reversed: false,
        };
        let soc = builder.build().map_err(super::build_error)?;
        let draw = request.sampling.draw(request.seed);
        Ok(Self { soc, resident: Vec::new(), positions, draw, quant: request.quant.clone(), paging })
    }

    /// Answers `prompt`, the ids of the whole conversation so far: what it has in common with what is resident is not
    /// read again. At most `most` tokens are made, and none after one of `stop`.
    ///
    /// # Errors
    /// If the conversation has become too long, or the modelled software faults.
    pub fn turn(
        &mut self,
        prompt: &[u32],
        most: u32,
        stop: &[u32],
        told: Listener,
    ) -> Result<Answer, CliError> {
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let left = self.positions.saturating_sub(count(prompt.len()));
        if left == 0 {
            return Err(CliError::input(format!(
                "the conversation has {} tokens, --context holds {}",
                prompt.len(),
                self.positions
            )));
        }
        // At least one id is read: its logits are the answer's beginning.
        let reused = alike(&self.resident, prompt).min(prompt.len().saturating_sub(1));
        // Should the turn end early, what lies behind is written over already.
        self.resident.truncate(reused);
        let turn = Turn {
            prompt: prompt[reused..].to_vec(),
            decode: most.min(left).into(),
            context: reused as u64,
            forced: Vec::new(),
            stop: stop.to_vec(),
            draw: self.draw,
        };
        let result = self.soc.turn(turn, told).map_err(|fault| CliError::Simulation(fault.to_string()))?;
        let tokens: Vec<u32> = result.tokens.iter().map(|t| t.0).collect();
        // The last token is not fed back.
        self.resident = [prompt, &tokens[..tokens.len().saturating_sub(1)]].concat();
        let since = |t: Time| t.saturating_sub(result.zero);
        let sum = |m: &std::collections::BTreeMap<String, Energy>| m.values().copied().sum::<Energy>();
        let prefill_energy = sum(&result.energy.prefill);
        let positions = self.resident.len() as u64;
        let kv = self.paging.and_then(|p| pages::facts(&p, &self.quant, positions, result.kv_pages));
        Ok(Answer {
            tokens,
            kv,
            reused: count(reused),
            read: count(prompt.len() - reused),
            first: since(result.tokens.first().map_or(result.end, |t| t.1)),
            total: since(result.end),
            energy: prefill_energy + sum(&result.energy.decode),
            prefill_energy,
        })
    }
}
