//! What an NPU is built from; the TOML layer resolves to this and the capability registers read from it.

use sim_kernel::{Bytes, Hertz};

/// One NPU cluster. All counts are validated before a model is built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NpuConfig {
    /// Cores, 1..=8.
    pub cores: u32,
    /// PE rows of a core's array.
    pub rows: u32,
    /// PE columns of a core's array.
    pub cols: u32,
    /// Clock of all engines.
    pub frequency: Hertz,
    /// Scratchpad of a core.
    pub scratchpad: Bytes,
    /// Accumulator of a core.
    pub accumulator: Bytes,
    /// DMA channels that read memory.
    pub dma_in_channels: u32,
    /// DMA channels that write memory or other scratchpads.
    pub dma_out_channels: u32,
    /// Width of a DMA channel.
    pub dma_bytes_per_cycle: u32,
    /// Bytes a DMA channel keeps in flight; with the memory's latency this bounds its rate.
    pub dma_outstanding: Bytes,
    /// fp32 lanes of the vector engine.
    pub vector_lanes: u32,
    /// Commands an engine's FIFO holds.
    pub fifo_depth: u32,
    /// Cycles from fetch to dispatch of a command.
    pub decode_cycles: u32,
    /// Width of the weight stream into the GEMV path.
    pub gemv_bytes_per_cycle: u32,
    /// Bit i: format code i executes.
    pub formats: u64,
    /// What local memories can serve in a cycle.
    pub ports: LocalPorts,
}

/// Banks and ports of a core's local memories, which its engines share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalPorts {
    /// Banks of the scratchpad; consecutive lines lie in consecutive banks, so every engine uses all of them.
    pub banks: u32,
    /// Bytes a bank moves a cycle.
    pub bank_bytes_per_cycle: u32,
    /// Ports of the accumulator memory, each a row of the array's sums read and written a cycle.
    pub accumulator_ports: u32,
}

impl LocalPorts {
    /// Memories that serve whatever is asked.
    pub const IDEAL: Self = Self { banks: 0, bank_bytes_per_cycle: 0, accumulator_ports: 0 };
}
