//! Where the sampled memory path is held against the burst path, and where it is not.
//!
//! Models: nothing. Does not model: anything.
//! Source: `tests/dram_sampled.rs` and `tests/fabric.rs`, whose bands hold inside these bounds; as many flows as the DMA
//! channels of the largest chip (8 cores of 4) are among them.

use crate::config::SocConfig;

/// Smallest grant: below it the flows' relative banks stay what they are for a whole transfer.
const LEAST_GRANT: u64 = 4096;
/// Most CPU noise, in thousandths of the peak.
const MOST_NOISE: u32 = 300;

/// Why a chip lies outside the region in which the error of the sampled memory path is asserted; `None` inside.
#[must_use]
pub fn sampling_unproven(cfg: &SocConfig) -> Option<String> {
    let mut why = Vec::new();
    let grant = cfg.dram.grant_bytes;
    if grant < LEAST_GRANT {
        why.push(format!("dram.grant is {grant} B, proven from {LEAST_GRANT} B on"));
    }
    let noise = cfg.traffic.map_or(0, |t| t.cpu_noise_permille);
    if noise > MOST_NOISE {
        let percent = f64::from(noise) / 10.0;
        why.push(format!("traffic.cpu-noise is {percent} % of the peak, proven up to {} %", MOST_NOISE / 10));
    }
    (!why.is_empty()).then(|| why.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::resolve;

    fn why(sets: &[&str]) -> Option<String> {
        let sets: Vec<String> = sets.iter().map(|s| (*s).to_owned()).collect();
        sampling_unproven(&resolve("tiny", &sets).expect("a preset").config)
    }

    #[test]
    fn presets_are_proven_and_what_leaves_the_region_is_named() {
        for name in ["xring-o1", "snapdragon-8-gen3", "snapdragon-8-elite", "a18-pro", "tensor-g4", "tiny"] {
            assert_eq!(sampling_unproven(&resolve(name, &[]).expect("a preset").config), None, "{name}");
        }
        assert_eq!(why(&["dram.grant=4 KiB", "traffic.cpu-noise=0.3"]), None);
        let both = why(&["dram.grant=1 KiB", "traffic.cpu-noise=0.305"]).expect("outside");
        assert_eq!(
            both,
            "dram.grant is 1024 B, proven from 4096 B on; traffic.cpu-noise is 30.5 % of the peak, proven up to 30 %"
        );
        assert_eq!(
            why(&["npu.cores=8", "npu.dma-in-channels=3"]),
            None,
            "as many DMA channels as there can be"
        );
    }
}
