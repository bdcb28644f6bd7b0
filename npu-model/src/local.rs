//! The two memories of a core, with bounds-checked access by byte address.
//!
//! Models: contents of scratchpad and accumulator.
//! Does not model: time, ports, bank conflicts (the engines charge those).
//! Source: `isa::npu` (granules of 32 bytes, little-endian elements).

use isa::npu::GRANULE;

use crate::core::dirty::Dirty;
use crate::fault::Fault;

/// Which local memory an operand lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// Scratchpad.
    Spm,
    /// Accumulator.
    Acc,
}

impl Space {
    /// The space a one-bit field selects.
    #[must_use]
    pub const fn from_bit(bit: u64) -> Self {
        if bit == 0 { Self::Spm } else { Self::Acc }
    }
}

/// Contents of one core's memories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Local {
    /// Scratchpad.
    pub spm: Vec<u8>,
    /// Accumulator.
    pub acc: Vec<u8>,
    /// Look-up tables of [`LUT_ENTRIES`] fp16 values, loaded by LUTLD.
    pub luts: Vec<[u16; LUT_ENTRIES]>,
    /// The predicate as the vector engine last wrote it; a command with `setp` sets it.
    pub predicate: bool,
    /// Pages written since someone last asked.
    pub touched: Dirty,
}

/// Entries of a look-up table.
pub const LUT_ENTRIES: usize = 256;
/// Look-up tables of a core: LUT ids are 4 bits wide.
pub const LUTS: usize = 16;
/// Bytes LUTLD reads.
pub const LUT_BYTES: usize = 2 * LUT_ENTRIES;

impl Local {
    /// Zeroed memories of these sizes.
    #[must_use]
    pub fn new(spm_bytes: usize, acc_bytes: usize) -> Self {
        Self {
            spm: vec![0; spm_bytes],
            acc: vec![0; acc_bytes],
            luts: vec![[0; LUT_ENTRIES]; LUTS],
            predicate: false,
            touched: Dirty::sized(spm_bytes as u64, acc_bytes as u64),
        }
    }

    /// Table `id` as fp16 bits: zeros until LUTLD loads it. Only the id's low 4 bits count.
    #[must_use]
    pub fn lut(&self, id: u64) -> &[u16; LUT_ENTRIES] {
        &self.luts[(id & 15) as usize]
    }

    /// Loads table `id` from little-endian fp16 values.
    pub fn set_lut(&mut self, id: u64, bytes: &[u8; LUT_BYTES]) {
        let table = &mut self.luts[(id & 15) as usize];
        for (entry, b) in table.iter_mut().zip(bytes.as_chunks::<2>().0) {
            *entry = u16::from_le_bytes(*b);
        }
        self.touched.mark_lut(id);
    }

    /// Table `id` as LUTLD reads it.
    #[must_use]
    pub fn lut_bytes(&self, id: u64) -> [u8; LUT_BYTES] {
        let mut out = [0; LUT_BYTES];
        for (bytes, entry) in out.as_chunks_mut::<2>().0.iter_mut().zip(self.lut(id)) {
            *bytes = entry.to_le_bytes();
        }
        out
    }

    const fn memory(&self, space: Space) -> &Vec<u8> {
        match space {
            Space::Spm => &self.spm,
            Space::Acc => &self.acc,
        }
    }

    /// `len` bytes from byte address `at`.
    ///
    /// # Errors
    /// `LocalRange` if they leave the memory.
    #[inline]
    pub fn bytes(&self, space: Space, at: usize, len: usize) -> Result<&[u8], Fault> {
        at.checked_add(len)
            .and_then(|end| self.memory(space).get(at..end))
            .ok_or(Fault::range(at as u64, "a read leaves its local memory"))
    }

    /// `len` writable bytes from byte address `at`.
    ///
    /// # Errors
    /// `LocalRange` if they leave the memory.
    #[inline]
    pub fn bytes_mut(&mut self, space: Space, at: usize, len: usize) -> Result<&mut [u8], Fault> {
        self.touched.mark(space, at as u64, len as u64);
        let memory = match space {
            Space::Spm => &mut self.spm,
            Space::Acc => &mut self.acc,
        };
        at.checked_add(len)
            .and_then(|end| memory.get_mut(at..end))
            .ok_or(Fault::range(at as u64, "a write leaves its local memory"))
    }

    /// The 32-bit word at byte address `at`.
    ///
    /// # Errors
    /// `LocalRange` if it leaves the memory.
    pub fn word(&self, space: Space, at: usize) -> Result<u32, Fault> {
        let b = self.bytes(space, at, 4)?;
        Ok(u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
    }

    /// Stores a 32-bit word at byte address `at`.
    ///
    /// # Errors
    /// `LocalRange` if it leaves the memory.
    pub fn set_word(&mut self, space: Space, at: usize, value: u32) -> Result<(), Fault> {
        self.bytes_mut(space, at, 4)?.copy_from_slice(&value.to_le_bytes());
        Ok(())
    }

    /// Byte address of a granule; `None` where `usize` cannot hold it.
    #[must_use]
    pub fn address(granule: u64) -> Option<usize> {
        granule.checked_mul(GRANULE).and_then(|b| usize::try_from(b).ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_start_at_zero_and_keep_what_was_loaded() {
        let mut local = Local::new(64, 64);
        let mut bytes = [0; LUT_BYTES];
        (bytes[2], bytes[3]) = (0x00, 0x3C);
        local.set_lut(3, &bytes);
        assert_eq!((local.lut(3)[0], local.lut(3)[1], local.lut(2)[1]), (0, 0x3C00, 0));
    }
}
