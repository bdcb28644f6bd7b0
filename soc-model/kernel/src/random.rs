//! Named random streams: keyed by (seed, component path, purpose), so that adding a component shifts no other.

/// A counter-based generator (SplitMix64 over a key).
#[derive(Clone, Debug)]
pub struct Stream {
    key: u64,
    counter: u64,
}

fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

impl Stream {
    /// The stream of `purpose` in the component at `path`.
    #[must_use]
    pub fn new(seed: u64, path: &str, purpose: &str) -> Self {
        let mut key = mix(seed);
        for b in path.bytes().chain([0xFF]).chain(purpose.bytes()) {
            key = mix(key ^ u64::from(b));
        }
        Self { key, counter: 0 }
    }

    /// The next 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.counter += 1;
        mix(self.key ^ mix(self.counter))
    }

    /// A number below `bound` (bias below 2^-32 for bounds below 2^32).
    ///
    /// # Panics
    /// If `bound` is zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "no number lies below zero");
        let wide = u128::from(self.next_u64()) * u128::from(bound);
        u64::try_from(wide >> 64).expect("high half")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_independent_and_repeatable() {
        let take = |p: &str| {
            let mut s = Stream::new(7, p, "ids");
            (0..4).map(|_| s.next_u64()).collect::<Vec<_>>()
        };
        assert_eq!(take("soc.dram"), take("soc.dram"));
        assert_ne!(take("soc.dram"), take("soc.npu"));
        assert!((0..1000).all(|_| Stream::new(1, "a", "b").below(10) < 10));
    }
}
