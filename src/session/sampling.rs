//! How tokens are chosen and how keys and values are stored: the options `run` and `chat` share.

use clap::ValueEnum;
use soc_model::soc::Draw;
use traces::workload::TensorFormat;

/// Most candidates a token is drawn from.
pub const MOST_CANDIDATES: u32 = 1024;

/// How tokens are chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sampling {
    /// Temperature; 0 chooses the likeliest token.
    pub temperature: f32,
    /// Candidates, the likeliest ones; as many as the NPU takes if not given.
    pub top_k: Option<u32>,
    /// Part of the candidates' probability that stays.
    pub top_p: f32,
}

impl Sampling {
    /// Candidates a token is drawn from; 0 without a draw.
    #[must_use]
    pub fn candidates(&self) -> u32 {
        if self.temperature > 0.0 { self.top_k.unwrap_or(MOST_CANDIDATES) } else { 0 }
    }

    /// What the mailbox says.
    pub(super) fn draw(&self, seed: u64) -> Draw {
        match self.candidates() {
            0 => Draw::default(),
            candidates => Draw {
                candidates,
                temperature: self.temperature.to_bits(),
                top_p: self.top_p.to_bits(),
                seed,
            },
        }
    }
}

/// Options that say how tokens are chosen.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct SamplingArgs {
    /// Temperature tokens are drawn at, by --seed; 0 takes the likeliest
    #[arg(long, default_value_t = 0.0, value_name = "T", value_parser = temperature)]
    temperature: f32,
    /// Draw from the K likeliest tokens, 1 to 1024 [default: 1024]
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_CANDIDATES)))]
    top_k: Option<u32>,
    /// Of these, draw from the likeliest that together have the probability P, above 0 to 1
    #[arg(long, default_value_t = 1.0, value_name = "P", value_parser = part)]
    top_p: f32,
}

impl SamplingArgs {
    /// What they ask for.
    #[must_use]
    pub const fn sampling(&self) -> Sampling {
        Sampling { temperature: self.temperature, top_k: self.top_k, top_p: self.top_p }
    }
}

fn number(text: &str, what: &str, good: impl Fn(f32) -> bool) -> Result<f32, String> {
    text.parse::<f32>().ok().filter(|v| good(*v)).ok_or_else(|| format!("expected {what}"))
}

fn temperature(text: &str) -> Result<f32, String> {
    // Below a hundredth nothing but the likeliest is ever drawn, and quotients by it leave fp32's range.
    number(text, "0, or a number from 0.01 to 100", |t| t == 0.0 || (0.01..=100.0).contains(&t))
}

fn part(text: &str) -> Result<f32, String> {
    number(text, "a number above 0, at most 1", |p| p > 0.0 && p <= 1.0)
}

/// How keys and values are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum KvFormat {
    /// As they are computed
    Fp16,
    /// Eight bits, an fp16 scale for 16 elements
    Int8,
    /// Four bits, an fp16 scale for 16 elements
    Int4,
}

impl KvFormat {
    /// As schemes name it.
    #[must_use]
    pub const fn tensor(self) -> TensorFormat {
        match self {
            Self::Fp16 => TensorFormat::Fp16,
            Self::Int8 => TensorFormat::Int8,
            Self::Int4 => TensorFormat::Int4,
        }
    }
}
