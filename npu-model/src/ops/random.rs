//! The engines' random draws: a function of counters, never of what was drawn before.
//!
//! Models: 24 bits from SplitMix64's output function (Steele, Lea and Flood 2014) at a seed plus a counter times the
//!   golden ratio, modulo 2^64.
//! Does not model: a hardware generator's sequence.
//! Source: the paper above.

/// 24 random bits at counter (`high`, `low`) of a seed.
pub(super) const fn draw(seed: u64, high: u64, low: u32) -> u32 {
    let counter = (high << 32 | low as u64).wrapping_add(1);
    let mut z = seed.wrapping_add(counter.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((z ^ (z >> 31)) >> 40) as u32
}

/// Draws are below this.
pub(super) const DRAWS: f32 = 16_777_216.0;
