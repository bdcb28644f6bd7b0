//! A 256-bit command word: bit 0 is the least significant bit of the first byte.

/// One command or extension word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Word(pub [u64; 4]);

/// Bytes in a word.
pub const WORD_BYTES: u64 = 32;

impl Word {
    /// Bits `lo .. lo + width`, `width` at most 64.
    #[inline]
    #[must_use]
    pub const fn get(&self, lo: u32, width: u32) -> u64 {
        let (i, shift) = ((lo / 64) as usize, lo % 64);
        let mut value = self.0[i] >> shift;
        if shift + width > 64 {
            value |= self.0[i + 1] << (64 - shift);
        }
        if width == 64 { value } else { value & ((1 << width) - 1) }
    }

    /// Sets bits `lo .. lo + width`.
    ///
    /// # Panics
    /// If `value` does not fit: a truncated field would be another command.
    #[inline]
    pub const fn set(&mut self, lo: u32, width: u32, value: u64) {
        assert!(width == 64 || value >> width == 0, "field overflow in an NPU command");
        let (i, shift) = ((lo / 64) as usize, lo % 64);
        let mask = if width == 64 { u64::MAX } else { (1 << width) - 1 };
        self.0[i] = (self.0[i] & !(mask << shift)) | (value << shift);
        if shift + width > 64 {
            let back = 64 - shift;
            self.0[i + 1] = (self.0[i + 1] & !(mask >> back)) | (value >> back);
        }
    }

    /// The word from 32 little-endian bytes.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        let mut lanes = [0; 4];
        for (lane, chunk) in lanes.iter_mut().zip(bytes.chunks_exact(8)) {
            *lane = u64::from_le_bytes([
                chunk[0], chunk[1], chunk[2], chunk[3], chunk[4], chunk[5], chunk[6], chunk[7],
            ]);
        }
        Self(lanes)
    }

    /// The word as 32 little-endian bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 32] {
        let mut out = [0; 32];
        for (chunk, lane) in out.chunks_exact_mut(8).zip(self.0) {
            chunk.copy_from_slice(&lane.to_le_bytes());
        }
        out
    }
}
