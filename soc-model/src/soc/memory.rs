//! The chip's memory channels, by the way they are timed.
//!
//! Models: nothing itself; it passes every call on. Does not model: anything.
//! Source: `dram::MemorySystem` (sampled) and `dram::ExactMemory` (every burst).

use sim_kernel::Time;

use crate::dram::{DramConfig, ExactMemory, FlowId, MemoryStats, MemorySystem, Qos};

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
    pub(super) fn new(timing: MemoryTiming, config: DramConfig, seed: u64) -> Self {
        match timing {
            MemoryTiming::Sampled => Self::Sampled(Box::new(MemorySystem::new(config, seed))),
            MemoryTiming::Burst => Self::Burst(Box::new(ExactMemory::new(config))),
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

    pub(super) fn start_flow(
        &mut self,
        now: Time,
        runs: &[(u64, u64)],
        write: bool,
        qos: Qos,
        cap_bytes_per_s: u64,
    ) -> FlowId {
        match self {
            Self::Sampled(m) => m.start_flow(now, runs, write, qos, cap_bytes_per_s),
            Self::Burst(m) => m.start_flow(now, runs, write, qos, cap_bytes_per_s),
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
