//! The mailbox: the outside world's side of a job. Prompt tokens go in, generated tokens come out with their time.
//!
//! Models: one job. Does not model: who is on the other side. Source: `isa::memory_map::mailbox`.

use isa::memory_map::mailbox as reg;
use sim_kernel::Time;

/// Mailbox state.
#[derive(Clone, Debug, Default)]
pub(super) struct Mailbox {
    prompt: Vec<u32>,
    taken: usize,
    decode: u64,
    context: u64,
    waiting: bool,
    ready: bool,
    done: bool,
    error: Option<u64>,
    first: Option<Time>,
    logits: Option<u64>,
    accesses: u64,
    /// Generated tokens and when they were written.
    pub(super) tokens: Vec<(u32, Time)>,
    /// Natural logarithm of each token's probability, where the logits have values.
    pub(super) logprobs: Vec<f64>,
}

impl Mailbox {
    pub(super) fn new(prompt: Vec<u32>, decode: u64, context: u64) -> Self {
        Self { prompt, decode, context, ..Self::default() }
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
    /// Address of the logits, as the firmware told it.
    pub(super) const fn logits(&self) -> Option<u64> {
        self.logits
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
            reg::PROMPT_LEN => self.prompt.len() as u64,
            reg::DECODE_LEN => self.decode,
            reg::CONTEXT => self.context,
            reg::TOKEN_IN => {
                // The job is taken with its first token.
                self.waiting = false;
                let token = self.prompt.get(self.taken).copied().unwrap_or(0);
                self.taken += 1;
                u64::from(token)
            }
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
                self.tokens.push((u32::try_from(value).unwrap_or(u32::MAX), now));
            }
            reg::DONE => self.done = true,
            reg::READY => self.ready = true,
            reg::ERROR => self.error = Some(value),
            reg::PHASE => {}
            reg::LOGITS => self.logits = Some(value),
            _ => return false,
        }
        true
    }
}
