//! Kinds of layers: how an image says that its layers' matrices are not all stored alike.
//!
//! An image with [`FLAG_KINDS`](crate::image::FLAG_KINDS) has a table right behind its header's words: how many kinds
//! there are, each kind's words, then every layer's kind, four bits each from bit 0 of the first word on. Layers follow
//! each other from the header's `layer0`, each as long as its kind says; vectors lie at the header's offsets in all of
//! them. The header's words about a layer's matrices and length are 0.
//!
//! Values whose format is not that of queries and keys are a matrix of their own: columns by KV head, in panels that
//! hold no key's columns, so the panel's width divides `head_dim`. Biases stay in the order of QKV.
#![allow(clippy::cast_possible_truncation, reason = "counts and layers are at most a few hundred")]

/// Most kinds.
pub const MAX_KINDS: usize = 8;
/// Most layers of an image with a table.
pub const MAX_LAYERS: u64 = 256;
/// Layers whose kinds share a word.
const LAYERS_A_WORD: u64 = 16;

/// A matrix of a kind of layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// How it is stored: [`Matrix::code`](crate::image::Matrix::code).
    pub code: u64,
    /// Offset in the layer, in the order of [`LayerKind`]'s parts; 0 where there is no such matrix.
    pub offset: u64,
}

/// A kind of layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LayerKind {
    /// Bytes of a layer.
    pub bytes: u64,
    /// QKV or queries and keys alone, values if they are apart, attention output, gate, up, down.
    pub parts: [Part; Self::PARTS],
}

impl LayerKind {
    /// Matrices of a kind.
    pub const PARTS: usize = 6;
    /// Words of a kind: bytes, then code and offset of each matrix.
    pub const WORDS: usize = 1 + 2 * Self::PARTS;

    /// As words.
    #[must_use]
    pub fn to_words(&self) -> [u64; Self::WORDS] {
        let mut out = [self.bytes; Self::WORDS];
        for (words, part) in out[1..].chunks_exact_mut(2).zip(self.parts) {
            words.copy_from_slice(&[part.code, part.offset]);
        }
        out
    }
}

/// All kinds, and which each layer is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerKinds {
    count: usize,
    kinds: [LayerKind; MAX_KINDS],
    of: [u64; (MAX_LAYERS / LAYERS_A_WORD) as usize],
}

impl LayerKinds {
    /// Most words of a table.
    pub const MOST_WORDS: u64 = 1 + (MAX_KINDS * LayerKind::WORDS) as u64 + MAX_LAYERS / LAYERS_A_WORD;

    /// One kind for all layers.
    #[must_use]
    pub const fn one(kind: LayerKind) -> Self {
        Self { count: 1, kinds: [kind; MAX_KINDS], of: [0; (MAX_LAYERS / LAYERS_A_WORD) as usize] }
    }

    /// Words of a table of so many kinds and layers.
    #[must_use]
    pub const fn words(kinds: u64, layers: u64) -> u64 {
        1 + kinds * LayerKind::WORDS as u64 + layers.div_ceil(LAYERS_A_WORD)
    }

    /// Reads the table of an image of `layers` layers; `word` gives its words by number, at most [`Self::MOST_WORDS`].
    /// `None` if it is none: no kinds or too many, too many layers, a layer of a kind that is not there.
    pub fn read(layers: u64, mut word: impl FnMut(u64) -> u64) -> Option<Self> {
        let mut at = 0;
        let mut next = || {
            at += 1;
            word(at - 1)
        };
        let count = usize::try_from(next()).ok().filter(|n| (1..=MAX_KINDS).contains(n))?;
        if layers > MAX_LAYERS {
            return None;
        }
        let mut out = Self { count, ..Self::one(LayerKind::default()) };
        for kind in &mut out.kinds[..count] {
            kind.bytes = next();
            for part in &mut kind.parts {
                part.code = next();
                part.offset = next();
            }
        }
        for of in &mut out.of[..layers.div_ceil(LAYERS_A_WORD) as usize] {
            *of = next();
        }
        (0..layers).all(|l| out.listed(l) < count).then_some(out)
    }

    /// How many kinds there are, at least one.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.count
    }

    /// The kinds.
    #[must_use]
    pub fn all(&self) -> &[LayerKind] {
        &self.kinds[..self.count]
    }

    /// Number of a layer's kind.
    #[must_use]
    pub fn of(&self, layer: u64) -> usize {
        if self.count == 1 { 0 } else { self.listed(layer) }
    }

    const fn listed(&self, layer: u64) -> usize {
        (self.of[(layer / LAYERS_A_WORD) as usize] >> (4 * (layer % LAYERS_A_WORD)) & 15) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_reads_back_and_others_are_none() {
        let kind = |n: u64| LayerKind {
            bytes: 1000 * n,
            parts: core::array::from_fn(|i| Part { code: n, offset: n + i as u64 }),
        };
        // Layer l is of kind l % 3.
        let mut words = [0; LayerKinds::words(3, 20) as usize];
        words[0] = 3;
        for n in 0..3 {
            words[1 + n * LayerKind::WORDS..][..LayerKind::WORDS].copy_from_slice(&kind(n as u64).to_words());
        }
        for l in 0..20 {
            words[1 + 3 * LayerKind::WORDS + l / 16] |= (l as u64 % 3) << (4 * (l % 16));
        }
        let read = |words: &[u64], layers| LayerKinds::read(layers, |i| words[i as usize]);
        let table = read(&words, 20).expect("a table");
        assert_eq!(table.all(), [0, 1, 2].map(kind));
        assert!((0..20).all(|l| table.of(l) == l as usize % 3));
        for count in [0, 9, u64::MAX] {
            assert_eq!(read(&[&[count], &words[1..]].concat(), 20), None, "{count} kinds");
        }
        let mut strange = words;
        strange[words.len() - 1] |= 3 << 12;
        assert_eq!(read(&strange, 20), None);
        assert_eq!(LayerKinds::read(MAX_LAYERS + 1, |_| 1), None);
        assert_eq!(LayerKinds::read(1, |_| 1), None);
        let mut most = 0;
        let all = |i| {
            most = most.max(i + 1);
            if i == 0 { MAX_KINDS as u64 } else { 0 }
        };
        assert!(LayerKinds::read(MAX_LAYERS, all).is_some());
        assert_eq!(most, LayerKinds::MOST_WORDS);
    }
}
