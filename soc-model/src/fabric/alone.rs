//! How long a transfer would take with the chip to itself: what its loss is measured against.
//!
//! Models: its own cap and links, the channels' rate for one stream of its direction and run length, unloaded latency.
//! Does not model: CPU lines, refresh beyond its mean share.
//! Source: the burst engine on the first transfers of each kind, as `dram::sample` uses it.

use sim_kernel::units::FS_PER_S;

use crate::dram::config::DramConfig;
use crate::dram::interleave::{Interleave, burst_span};
use crate::dram::sample::{Probes, Sampled, Sampler};
use crate::dram::{BURST_BYTES, Timings};

/// Kinds of transfer by length of run against the grant.
const LENGTHS: usize = 4;
/// Transfers of a kind that are measured.
const MEASURED: u32 = 4;
/// Runs of a transfer that are looked at.
const RUNS: usize = 64;

#[derive(Clone, Copy, Debug, Default)]
struct Kind {
    seen: u32,
    bursts: u64,
    ck: u64,
    /// Bytes a second of one channel.
    rate: u64,
}

/// Measures what single transfers get.
#[derive(Clone, Debug)]
pub(super) struct Alone {
    sampler: Sampler,
    il: Interleave,
    ck_hz: u64,
    timings: Timings,
    read_latency: u64,
    write_latency: u64,
    kinds: [Kind; 2 * LENGTHS],
}

impl Alone {
    pub(super) fn new(cfg: &DramConfig, seed: u64) -> Self {
        let (il, timings) = (cfg.interleave(), cfg.timings());
        let map = cfg.channel_map().expect("the memory was built from it");
        let capacity = cfg.capacity.get();
        let mut sampler =
            Sampler::new(timings, cfg.controller, map, il, cfg.grant_bytes, capacity, seed ^ 0xa10e);
        sampler.hertz = cfg.ck_hz();
        Self {
            sampler,
            il,
            ck_hz: cfg.ck_hz(),
            timings,
            read_latency: cfg.unloaded_read_latency().get(),
            write_latency: FS_PER_S / cfg.ck_hz(),
            kinds: [Kind::default(); 2 * LENGTHS],
        }
    }

    /// Bytes a second of one channel for such a transfer alone.
    fn channel_rate(&mut self, runs: &[(u64, u64)], write: bool, length: usize) -> u64 {
        let k = usize::from(write) * LENGTHS + length;
        if self.kinds[k].seen < MEASURED {
            let channel = self.il.split(runs[0].0).0;
            let m = self.sampler.run(
                channel,
                &[Sampled { runs: &runs[..runs.len().min(RUNS)], skip: 0, write }],
                Probes::None,
            );
            let peak = self.ck_hz * BURST_BYTES / self.timings.bl_min;
            let kind = &mut self.kinds[k];
            (kind.seen, kind.bursts, kind.ck) = (kind.seen + 1, kind.bursts + m.bursts, kind.ck + m.ck);
            let bytes = u128::from(kind.bursts.max(1)) * u128::from(BURST_BYTES);
            let rate = bytes * u128::from(self.ck_hz) / u128::from(kind.ck);
            kind.rate = u64::try_from(rate).unwrap_or(peak).min(peak);
        }
        self.kinds[k].rate
    }

    /// Femtoseconds from the request to the last byte; `cap` is the most the requester and its links move.
    pub(super) fn femtoseconds(&mut self, runs: &[(u64, u64)], write: bool, cap: u64) -> u64 {
        let latency = if write { self.write_latency } else { self.read_latency };
        let spans = || runs.iter().map(|&r| burst_span(r));
        let work: u64 = spans().map(|(a, b)| b - a).sum();
        if work == 0 {
            return latency;
        }
        let pieces: u64 =
            spans().map(|(a, b)| (b - a).div_ceil(self.il.bytes).min(self.il.channels)).sum::<u64>().max(1);
        let mean = (work / pieces).max(1);
        let length = (1..LENGTHS as u64).take_while(|s| mean << s <= self.sampler.grant_bytes).count();
        let rate = self.channel_rate(runs, write, length);
        let most = if work >= 8 * self.il.bytes * self.il.channels && runs.len() == 1 {
            work.div_ceil(self.il.channels)
        } else {
            let of = |c: u64| spans().map(|(a, b)| self.il.below(b, c) - self.il.below(a, c)).sum();
            (0..self.il.channels).map(of).max().unwrap_or(work)
        };
        let time = |bytes: u64, rate: u64| u128::from(bytes) * u128::from(FS_PER_S) / u128::from(rate.max(1));
        let fs = time(most, rate).max(time(work, cap));
        latency + u64::try_from(fs).unwrap_or(u64::MAX / 2)
    }
}
