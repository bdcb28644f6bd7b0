//! The chip's memory channels, by the way they are timed.
//!
//! Models: nothing itself; it passes every call on. Does not model: anything.
//! Source: `dram::MemorySystem` (sampled) and `dram::ExactMemory` (every burst).

use sim_kernel::Time;

use crate::dram::{DramConfig, ExactMemory, FlowId, MemoryStats, MemorySystem, Noise, Transfer};

/// How memory is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryTiming {
    /// Every command of a systematic sample of the traffic, extrapolated between samples.
    Sampled,
    /// Every burst.
    Burst,
}

/// The memory channels.
pub(super) enum Channels {
    Sampled(Box<MemorySystem>),
    Burst(Box<ExactMemory>),
}

impl Channels {
    /// Idle channels; `seed` picks the addresses samples continue at.
    pub(super) fn new(timing: MemoryTiming, config: DramConfig, seed: u64, noise: Option<Noise>) -> Self {
        match timing {
            MemoryTiming::Sampled => {
                let memory = MemorySystem::new(config, seed);
                Self::Sampled(Box::new(noise.into_iter().fold(memory, MemorySystem::with_noise)))
            }
            MemoryTiming::Burst => {
                let memory = ExactMemory::new(config);
                Self::Burst(Box::new(noise.into_iter().fold(memory, ExactMemory::with_noise)))
            }
        }
    }

    /// Bytes each of the first clients has been served up to the last advance.
    pub(super) fn served_into(&self, out: &mut [u64]) {
        match self {
            Self::Sampled(m) => m.served_into(out),
            Self::Burst(m) => {
                for (client, bytes) in (0..).zip(out) {
                    *bytes = m.served(client);
                }
            }
        }
    }

    /// Changes the most bytes a second a transfer under way may move.
    pub(super) fn set_cap(&mut self, now: Time, id: FlowId, cap: u64) {
        match self {
            Self::Sampled(m) => m.set_cap(now, id, cap),
            Self::Burst(m) => m.set_cap(now, id, cap),
        }
    }

    pub(super) fn config(&self) -> &DramConfig {
        match self {
            Self::Sampled(m) => m.config(),
            Self::Burst(m) => m.config(),
        }
    }

    pub(super) fn stats(&self) -> &MemoryStats {
        match self {
            Self::Sampled(m) => m.stats(),
            Self::Burst(m) => m.stats(),
        }
    }

    pub(super) fn quiescent(&self) -> bool {
        match self {
            Self::Sampled(m) => m.quiescent(),
            Self::Burst(m) => m.quiescent(),
        }
    }

    pub(super) fn start(&mut self, now: Time, transfer: &Transfer<'_>) -> FlowId {
        match self {
            Self::Sampled(m) => m.start(now, transfer),
            Self::Burst(m) => m.start(now, transfer),
        }
    }

    /// Nothing will be asked for a time before `now`: what was asked until then need not be kept.
    pub(super) fn catch_up(&mut self, now: Time) {
        match self {
            Self::Sampled(_) => {}
            Self::Burst(m) => m.catch_up(now),
        }
    }

    pub(super) fn access_line(&mut self, now: Time, offset: u64, write: bool) -> Time {
        match self {
            Self::Sampled(m) => m.access_line(now, offset, write),
            Self::Burst(m) => m.access_line(now, offset, write),
        }
    }

    /// No flow completes before this time.
    pub(super) fn next_completion(&mut self) -> Option<Time> {
        match self {
            Self::Sampled(m) => m.next_completion(),
            Self::Burst(m) => m.next_completion(),
        }
    }

    pub(super) fn finish_into(&mut self, now: Time, out: &mut Vec<(Time, FlowId)>) {
        match self {
            Self::Sampled(m) => m.finish_into(now, out),
            Self::Burst(m) => m.finish_into(now, out),
        }
    }
}
