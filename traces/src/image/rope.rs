//! The rotary table of a model.
//!
//! Models: inverse frequencies with linear and Llama 3 stretching. Does not model: stretching that changes within
//! a sequence (Phi 3's factors are chosen by the positions of a run). Source: the rotary embedding and Llama 3.1 model definitions as published with their weights.

use std::f64::consts::TAU;

use crate::workload::{ModelSpec, RopeScaling};

/// Angle per position of each rotary pair, `head_dim / 2` of them, computed in fp64 and rounded once.
#[must_use]
#[allow(clippy::cast_possible_truncation, reason = "rounding to fp32 is the point")]
pub fn inverse_frequencies(spec: &ModelSpec) -> Vec<f32> {
    let factors = spec.extras.rope_factors.iter().copied().chain(std::iter::repeat(1.0));
    series(spec.rope.theta, spec.head_dim)
        .zip(factors)
        .map(|(plain, factor)| (stretch(plain, spec.rope.scaling) / factor) as f32)
        .collect()
}

/// The same for windowed layers that have a base of their own, which is never stretched; else none.
#[must_use]
#[allow(clippy::cast_possible_truncation, reason = "rounding to fp32 is the point")]
pub fn local_frequencies(spec: &ModelSpec) -> Vec<f32> {
    let theta = spec.extras.window.and_then(|w| w.local_theta);
    theta.map_or_else(Vec::new, |theta| series(theta, spec.head_dim).map(|f| f as f32).collect())
}

fn series(theta: f64, head_dim: u32) -> impl Iterator<Item = f64> {
    (0..head_dim / 2).map(move |i| 1.0 / libm::pow(theta, f64::from(2 * i) / f64::from(head_dim)))
}

fn stretch(plain: f64, scaling: RopeScaling) -> f64 {
    match scaling {
        RopeScaling::None => plain,
        RopeScaling::Linear { factor } => plain / factor,
        RopeScaling::Llama3 {
            factor,
            low_freq_factor: low,
            high_freq_factor: high,
            original_max_position,
        } => {
            // Wavelengths that fit the original context.
            let fits = f64::from(original_max_position) * plain / TAU;
            if fits > high {
                plain
            } else if fits < low {
                plain / factor
            } else {
                let kept = (fits - low) / (high - low);
                kept * plain + (1.0 - kept) * plain / factor
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::model_preset;

    #[test]
    fn the_table_starts_at_one_and_ends_near_one_over_theta() {
        let spec = model_preset("qwen2.5-7b").expect("preset").spec;
        let table = inverse_frequencies(&spec);
        assert_eq!(table.len(), 64);
        assert_eq!(table[0].to_bits(), 1.0f32.to_bits());
        assert!(table.windows(2).all(|w| w[1] < w[0]));
        // Halfway: 1 / sqrt(theta) = 1e-3.
        assert!((table[32] - 1e-3).abs() < 1e-9);
    }

    #[test]
    fn llama_3_keeps_short_waves_and_divides_long_ones() {
        let mut spec = model_preset("llama-3.1-8b").expect("preset").spec;
        let stretched = inverse_frequencies(&spec);
        let RopeScaling::Llama3 { factor, .. } = spec.rope.scaling else { panic!("Llama 3 scaling") };
        spec.rope.scaling = RopeScaling::None;
        let plain = inverse_frequencies(&spec);
        assert_eq!(stretched[0].to_bits(), plain[0].to_bits());
        let ratio = f64::from(plain[63]) / f64::from(stretched[63]);
        assert!((ratio - factor).abs() < 1e-5, "{ratio}");
        let between = plain.iter().zip(&stretched).filter(|(p, s)| {
            let ratio = f64::from(**p) / f64::from(**s);
            ratio > 1.001 && ratio < factor - 0.001
        });
        assert!(between.count() > 2);
        spec.rope.scaling = RopeScaling::Linear { factor: 4.0 };
        assert!((inverse_frequencies(&spec)[5] * 4.0 - plain[5]).abs() < 1e-7);
    }
}
