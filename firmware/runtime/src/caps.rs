//! What the NPU says about itself, as read from its capability registers.

use isa::npu::Format;

/// Capabilities of the cluster; all cores are alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caps {
    /// Cores.
    pub cores: u64,
    /// Array rows.
    pub rows: u64,
    /// Array columns.
    pub cols: u64,
    /// Scratchpad bytes of a core.
    pub spm: u64,
    /// Accumulator bytes of a core.
    pub acc: u64,
    /// DMA channels that read memory.
    pub dma_in: u64,
    /// DMA channels that write.
    pub dma_out: u64,
    /// Bit i: format code i executes.
    pub formats: u64,
    /// Bits of executed VEC functions by code.
    pub functions: [u64; 3],
}

impl Caps {
    /// Whether the engines take `format`.
    #[must_use]
    pub const fn has_format(&self, format: Format) -> bool { self.formats >> format.code() & 1 == 1 }

    /// Whether the vector engine has a function.
    #[must_use]
    pub const fn has_function(&self, f: isa::npu::VecFn) -> bool {
        let code = f.code();
        code < 192 && self.functions[(code / 64) as usize] >> (code % 64) & 1 == 1
    }

    /// The channel that carries activations; weights use the channels below it, or share it if it is the only one.
    #[must_use]
    pub const fn misc_channel(&self) -> u64 { self.dma_in - 1 }

    /// The first channel that writes.
    #[must_use]
    pub const fn out_channel(&self) -> u64 { self.dma_in }

    /// Channels that carry weights.
    #[must_use]
    pub const fn weight_channels(&self) -> u64 { if self.dma_in > 1 { self.dma_in - 1 } else { 1 } }
}
