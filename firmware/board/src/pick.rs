//! The best of the cores' result records, without a branch that depends on the data.
//!
//! A record is the index of a core's first largest logit and that logit. Cores hold rising ranges of the
//! vocabulary, so the lower index among equals is the first of the whole vocabulary. A step's instruction count
//! must not depend on logits: runs without data take as long as runs with.

/// The best record seen so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Best(u64);

/// An fp32's bits as an integer that orders as the number does; both zeros alike, not-a-numbers first.
fn ordered(bits: u32) -> u32 {
    let number = mask((bits & 0x7FFF_FFFF) <= 0x7F80_0000);
    let bits = bits & !mask(bits == 0x8000_0000);
    let flip = mask(bits >> 31 == 1) | 0x8000_0000;
    (bits ^ flip) & number
}

/// All ones or none. Hidden from the optimiser, which otherwise sees a choice and makes a branch of it.
fn mask(yes: bool) -> u32 {
    core::hint::black_box(u32::from(yes)).wrapping_neg()
}

impl Best {
    /// Takes another core's record into account.
    pub fn offer(&mut self, index: u32, value_bits: u32) {
        let key = (ordered(value_bits) as u64) << 32 | !index as u64;
        let take = core::hint::black_box(u64::from(key > self.0)).wrapping_neg();
        self.0 ^= (self.0 ^ key) & take;
    }

    /// Index of the best record; meaningless before the first.
    #[must_use]
    pub const fn index(self) -> u32 {
        !(self.0 as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn best(records: &[(u32, f32)]) -> u32 {
        let mut best = Best::default();
        for (index, value) in records {
            best.offer(*index, value.to_bits());
        }
        best.index()
    }

    #[test]
    fn order_is_that_of_the_numbers() {
        let rising =
            [f32::NEG_INFINITY, f32::MIN, -2.0, -1e-40, 0.0, 1e-40, f32::MIN_POSITIVE, 3.5, f32::INFINITY];
        for (i, low) in rising.iter().enumerate() {
            for high in &rising[i + 1..] {
                assert!(ordered(low.to_bits()) < ordered(high.to_bits()), "{low} {high}");
                assert_eq!(best(&[(1, *low), (2, *high)]), 2);
                assert_eq!(best(&[(1, *high), (2, *low)]), 1);
            }
        }
    }

    #[test]
    fn equals_go_to_the_lower_index_whatever_the_order() {
        assert_eq!(best(&[(700, 1.5), (30, 1.5), (90_000, 1.5)]), 30);
        assert_eq!(best(&[(5, -0.0), (6, 0.0)]), 5);
        assert_eq!(best(&[(0, -7.0), (1, -7.0)]), 0);
    }

    #[test]
    fn a_number_beats_what_is_none() {
        assert_eq!(best(&[(1, f32::NAN), (2, f32::NEG_INFINITY), (3, -f32::NAN)]), 2);
        assert_eq!(best(&[(9, f32::NAN), (4, f32::NAN)]), 4);
    }
}
