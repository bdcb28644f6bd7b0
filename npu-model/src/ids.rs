//! Token ids of a shape-only run: given by a functional run's record, or drawn from a named random stream.

use sim_kernel::Stream;

/// Answers which token stands at a position, without computing logits.
#[derive(Clone, Debug)]
pub struct IdSource {
    seed: u64,
    vocab: u64,
    given: Vec<(u64, u32)>,
}

impl IdSource {
    /// Ids drawn for `seed` below `vocab`, except at the positions in `given` (sorted by position).
    #[must_use]
    pub fn new(seed: u64, vocab: u64, mut given: Vec<(u64, u32)>) -> Self {
        given.sort_unstable();
        Self { seed, vocab: vocab.max(1), given }
    }

    /// The id at a position.
    #[must_use]
    pub fn id(&self, position: u64) -> u32 {
        if let Ok(i) = self.given.binary_search_by_key(&position, |g| g.0) {
            return self.given[i].1;
        }
        let mut stream = Stream::new(self.seed ^ position.rotate_left(32), "npu", "token ids");
        u32::try_from(stream.below(self.vocab)).expect("a vocabulary fits 32 bits")
    }
}
