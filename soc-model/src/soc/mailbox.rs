//! The mailbox: the outside world's side of a job. Prompt tokens go in, generated tokens come out with their time.
//!
//! Models: one job at a time; the other side may put tokens of its own in place of generated ones, or stop an answer,
//! without delay. Does not model: who the other side is. Source: `isa::memory_map::mailbox`.

use isa::memory_map::mailbox as reg;
use sim_kernel::Time;

/// How tokens are drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Draw {
    /// Candidates, 1 to 1024; 0 is the likeliest token without a draw.
    pub candidates: u32,
    /// fp32 bits of the temperature, above 0.
    pub temperature: u32,
    /// fp32 bits of the part of the probability that stays, 1 for all.
    pub top_p: u32,
    /// Seed.
    pub seed: u64,
}

/// What the outside world asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// Prompt.
    pub prompt: Vec<u32>,
    /// Most tokens to make.
    pub decode: u64,
    /// Positions resident before the prompt.
    pub context: u64,
    /// Tokens to go on with, the first ones first, whatever the model would choose; it is scored on them.
    pub forced: Vec<u32>,
    /// Tokens after which no more are wanted.
    pub stop: Vec<u32>,
    /// How tokens are chosen.
    pub draw: Draw,
}

/// Mailbox state.
#[derive(Clone, Debug, Default)]
pub(super) struct Mailbox {
    turn: Turn,
    taken: usize,
    next: u64,
    waiting: bool,
    ready: bool,
    done: bool,
    error: Option<u64>,
    refused: Option<u64>,
    /// Pages of the cache the firmware has taken, and has.
    pub(super) pages: (u64, u64),
    first: Option<Time>,
    logits: Option<u64>,
    width: u64,
    result: Option<u64>,
    accesses: u64,
    /// The answer's tokens and when they were written: the model's choice, or what was forced in its place.
    pub(super) tokens: Vec<(u32, Time)>,
    /// The model's choices.
    pub(super) chosen: Vec<u32>,
    /// Natural logarithm of each token's probability, where the logits have values.
    pub(super) logprobs: Vec<f64>,
    /// When an encoder's result was complete.
    pub(super) embedded: Option<Time>,
    /// Its values, where there are any.
    pub(super) embedding: Vec<f32>,
}

impl Mailbox {
    pub(super) fn new(turn: Turn) -> Self {
        Self { turn, ..Self::default() }
    }

    /// Another job after one that is done; it has still to be posted.
    pub(super) fn renew(&mut self, turn: Turn) {
        let (logits, width, accesses, pages) = (self.logits, self.width, self.accesses, self.pages);
        *self = Self { turn, logits, width, accesses, pages, ..Self::default() };
    }

    /// Whether the interrupt line is up.
    pub(super) const fn interrupt(&self) -> bool {
        self.waiting
    }

    /// The job is posted.
    pub(super) fn ring(&mut self) {
        self.waiting = true;
    }

    pub(super) const fn accesses(&self) -> u64 {
        self.accesses
    }
    pub(super) const fn done(&self) -> bool {
        self.done
    }
    pub(super) const fn error(&self) -> Option<u64> {
        self.error
    }
    /// Why the firmware refused the job.
    pub(super) const fn refused(&self) -> Option<u64> {
        self.refused
    }
    /// Address of the logits, as the firmware told it.
    pub(super) const fn logits(&self) -> Option<u64> {
        self.logits
    }
    /// Address and number of an encoder's values, as the firmware told them.
    pub(super) fn result(&self) -> Option<(u64, u64)> {
        self.result.map(|at| (at, self.width))
    }
    pub(super) fn take_ready(&mut self) -> bool {
        core::mem::take(&mut self.ready)
    }
    pub(super) fn take_first_token(&mut self) -> Option<Time> {
        self.first.take()
    }

    pub(super) fn load(&mut self, offset: u64) -> Option<u64> {
        self.accesses += 1;
        Some(match offset {
            reg::STATUS => u64::from(self.waiting),
            reg::PROMPT_LEN => self.turn.prompt.len() as u64,
            reg::DECODE_LEN => self.turn.decode,
            reg::CONTEXT => self.turn.context,
            reg::TOKEN_IN => {
                // The job is taken with its first token.
                self.waiting = false;
                let token = self.turn.prompt.get(self.taken).copied().unwrap_or(0);
                self.taken += 1;
                u64::from(token)
            }
            reg::NEXT => self.next,
            reg::CANDIDATES => self.turn.draw.candidates.into(),
            reg::TEMPERATURE => self.turn.draw.temperature.into(),
            reg::TOP_P => self.turn.draw.top_p.into(),
            reg::SEED => self.turn.draw.seed,
            _ => return None,
        })
    }

    pub(super) fn store(&mut self, now: Time, offset: u64, value: u64) -> bool {
        self.accesses += 1;
        match offset {
            reg::TOKEN_OUT => {
                if self.tokens.is_empty() {
                    self.first = Some(now);
                }
                let chosen = u32::try_from(value).unwrap_or(u32::MAX);
                let token = self.turn.forced.get(self.tokens.len()).copied().unwrap_or(chosen);
                self.next = if self.turn.stop.contains(&token) { reg::STOP } else { u64::from(token) };
                self.chosen.push(chosen);
                self.tokens.push((token, now));
            }
            reg::DONE => self.done = true,
            reg::READY => self.ready = true,
            reg::ERROR => self.error = Some(value),
            reg::PHASE => {}
            reg::LOGITS => self.logits = Some(value),
            reg::REFUSED => self.refused = Some(value),
            reg::KV_USED => self.pages.0 = value,
            reg::KV_TOTAL => self.pages.1 = value,
            reg::EMBEDDING_WIDTH => self.width = value,
            reg::EMBEDDING => {
                self.first = Some(now);
                self.embedded = Some(now);
                self.result = Some(value);
            }
            _ => return false,
        }
        true
    }
}
