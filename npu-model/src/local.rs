//! The two memories of a core, with bounds-checked access by byte address.
//!
//! Models: contents of scratchpad and accumulator.
//! Does not model: time, ports, bank conflicts (the engines charge those).
//! Source: `isa::npu` (granules of 32 bytes, little-endian elements).

use isa::npu::GRANULE;

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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Local {
    /// Scratchpad.
    pub spm: Vec<u8>,
    /// Accumulator.
    pub acc: Vec<u8>,
}

impl Local {
    /// Zeroed memories of these sizes.
    #[must_use]
    pub fn new(spm_bytes: usize, acc_bytes: usize) -> Self {
        Self { spm: vec![0; spm_bytes], acc: vec![0; acc_bytes] }
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
