//! Which traffic the memory's energy went into.
//!
//! Models: bursts charged to what they carried; activates of CPU lines and noise to them, the others by bytes; refresh
//! and standby by bytes. The parts sum to the memory's energy exactly.
//! Does not model: which transfer opened which row.
//! Source: `dram::energy`, counts of the fabric and the memory.

use sim_kernel::Energy;

use crate::dram::MemoryStats;
use crate::dram::config::LINE_BYTES;
use crate::dram::energy::{DramAction, system_counts};
use crate::fabric::{Asked, Content};

/// What memory moved for one kind of content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrafficResult {
    /// What it carried.
    pub content: Content,
    /// Bytes.
    pub moved: Asked,
    /// The memory's energy for it: device, PHY and its share of refresh and standby.
    pub energy: Energy,
}

/// `whole` in proportion to `weights`, without a remainder.
fn split(whole: u128, weights: &[u64]) -> Vec<u128> {
    let all: u128 = weights.iter().map(|w| u128::from(*w)).sum();
    if all == 0 {
        return vec![0; weights.len()];
    }
    let mut parts: Vec<u128> = weights.iter().map(|w| whole * u128::from(*w) / all).collect();
    let most = (0..weights.len()).max_by_key(|i| weights[*i]).unwrap_or(0);
    parts[most] += whole - parts.iter().sum::<u128>();
    parts
}

/// Energy by content from counts of one span of time.
pub(super) fn traffic(moved: &[Asked], stats: &MemoryStats) -> Vec<TrafficResult> {
    let read: Vec<u64> = moved.iter().map(|m| m.read).collect();
    let write: Vec<u64> = moved.iter().map(|m| m.write).collect();
    let bytes: Vec<u64> = moved.iter().map(|m| m.total()).collect();
    let mut attojoules = vec![0u128; moved.len()];
    let mut add = |parts: Vec<u128>| attojoules.iter_mut().zip(parts).for_each(|(sum, part)| *sum += part);
    for (action, count) in system_counts(stats) {
        let each = u128::from(action.coefficient().attojoules);
        let whole = each * u128::from(count);
        match action {
            DramAction::ReadBurst => add(split(whole, &read)),
            DramAction::WriteBurst => add(split(whole, &write)),
            DramAction::ActivatePrecharge => {
                let lines = stats.line_activates.min(count);
                let noise = (stats.noise_bytes / LINE_BYTES).min(count - lines);
                let mut rest = bytes.clone();
                rest[Content::Cpu as usize] = if lines > 0 { 0 } else { rest[Content::Cpu as usize] };
                rest[Content::Noise as usize] = 0;
                let mut parts = split(each * u128::from(count - lines - noise), &rest);
                parts[Content::Cpu as usize] += each * u128::from(lines);
                parts[Content::Noise as usize] += each * u128::from(noise);
                add(parts);
            }
            _ => add(split(whole, &bytes)),
        }
    }
    let row = |(i, content): (usize, Content)| {
        let energy = Energy::new(u64::try_from(attojoules[i] / 1000).expect("energy within 18 kJ"));
        TrafficResult { content, moved: moved[i], energy }
    };
    Content::ALL.into_iter().enumerate().map(row).filter(|t| t.moved.total() > 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use sim_kernel::Time;

    #[test]
    fn parts_are_the_whole_and_lines_pay_for_their_rows() {
        let mut moved = [Asked::default(); Content::ALL.len()];
        moved[Content::Weights as usize] = Asked { read: 3_200_000, write: 0 };
        moved[Content::Cpu as usize] = Asked { read: 64_000, write: 0 };
        moved[Content::Noise as usize] = Asked { read: 640_000, write: 0 };
        let stats = MemoryStats {
            read_bursts: 122_000,
            activates: 13_000,
            line_activates: 900,
            noise_bytes: 640_000,
            refreshes: 7,
            busy: vec![Time::from_ns(50_000)],
            elapsed: Time::from_ns(90_000),
            ..MemoryStats::default()
        };
        let parts = traffic(&moved, &stats);
        let sum: u64 = parts.iter().map(|p| p.energy.get()).sum();
        let whole = crate::dram::energy::attojoules(&system_counts(&stats)) / 1000;
        assert!(whole - u128::from(sum) < 3, "{sum} of {whole} fJ");
        let per_bit = |i: usize| parts[i].energy.get() / (parts[i].moved.total() * 8);
        assert!(
            per_bit(1) > per_bit(0) && per_bit(2) > per_bit(0),
            "random lines cost more a bit: {parts:?}"
        );
    }
}
