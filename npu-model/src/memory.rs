//! The memory beyond the NPU, as its engines see it: bytes by physical address, some of them address-only.

/// Whether bytes exist behind an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// They were read or written.
    Stored,
    /// The address is valid, but a shape-only run keeps no bytes there.
    AddressOnly,
}

/// Nothing answers at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BusFault(
    /// The address.
    pub u64,
);

/// Functional access to memory; time is charged elsewhere.
pub trait Memory {
    /// Reads bytes; unless it answers [`Content::Stored`], `out` is left as it was.
    ///
    /// # Errors
    /// If the range leaves memory.
    fn read(&mut self, addr: u64, out: &mut [u8]) -> Result<Content, BusFault>;
    /// Writes bytes.
    ///
    /// # Errors
    /// If the range leaves memory.
    fn write(&mut self, addr: u64, data: &[u8]) -> Result<Content, BusFault>;
}
