//! The configuration as it is written: strict structs that reject unknown keys, quantities still with their units.
//!
//! The JSON Schema and the checks of `layer.rs` are derived from these structs, so a key is added here once. A
//! finished configuration has every key; a file may leave out what the preset it `extends` has.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::quantity::{Bandwidth, Frequency, Ratio, Size, Temperature, Voltage};

/// A SoC description.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct RawSoc {
    /// Preset name or path of a file that supplies everything not written here.
    #[allow(dead_code, reason = "followed while layers are read; here for the schema and for strictness")]
    pub(crate) extends: Option<String>,
    /// Name in results; the file's stem if absent.
    pub(crate) name: String,
    /// Who boots and with which time base.
    pub(crate) boot: RawBoot,
    /// CPU clusters by name.
    pub(crate) cpu: BTreeMap<String, RawCluster>,
    /// Cache shared by all clusters; a chip may have none.
    pub(crate) l3: Option<RawL3>,
    /// System cache in front of memory; a chip may have none.
    pub(crate) slc: Option<RawSlc>,
    /// Neural processing unit; sizes, widths and depths are per core.
    pub(crate) npu: RawNpu,
    /// Interconnect.
    pub(crate) fabric: RawFabric,
    /// Memory.
    pub(crate) dram: RawDram,
    /// Memory traffic of other software; none without it.
    pub(crate) traffic: Option<RawTraffic>,
    /// Energy and temperature.
    pub(crate) power: RawPower,
}

/// Who boots and with which time base.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct RawBoot {
    /// Cluster of hart 0, which also runs the NPU driver.
    pub(crate) cluster: String,
    /// Frequency of `mtime`.
    pub(crate) timebase: Frequency,
}

/// One group of equal cores on one clock.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct RawCluster {
    /// Number of cores.
    pub(crate) count: u32,
    /// Core clock.
    pub(crate) frequency: Frequency,
    /// Supply at that clock.
    pub(crate) voltage: Voltage,
    /// CPU rows of the energy table that are charged.
    pub(crate) energy_class: RawEnergyClass,
    /// Level-1 instruction cache of each core.
    pub(crate) l1i: RawCache,
    /// Level-1 data cache of each core.
    pub(crate) l1d: RawCache,
    /// Level-2 cache of each core.
    pub(crate) l2: RawCache,
    /// In-order pipeline; latencies in cycles to a dependent issue.
    pub(crate) in_order: Option<RawInOrder>,
}

/// Family of CPU rows in the energy table.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum RawEnergyClass {
    Little,
    Mid,
    Big,
    Prime,
}

/// An in-order pipeline.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct RawInOrder {
    /// Instructions issued a cycle at most.
    pub(crate) issue_width: u32,
    /// Loads and stores issued a cycle at most.
    pub(crate) memory_ports: u32,
    /// Integer multiply.
    pub(crate) mul: u32,
    /// Integer divide.
    pub(crate) div: u32,
    /// Floating-point add, multiply, compare and convert.
    pub(crate) fp: u32,
    /// Fused multiply-add.
    pub(crate) fma: u32,
    /// Floating-point divide and square root.
    pub(crate) fp_div: u32,
    /// Atomic on a line in the level-1 data cache.
    pub(crate) atomic: u32,
    /// Cycles lost by a mispredicted branch.
    pub(crate) mispredict_penalty: u32,
    /// Cycles lost to a trap, a return from one, or another serialising instruction.
    pub(crate) serialise: u32,
    /// Entries of the branch direction table.
    pub(crate) predictor_entries: u32,
    /// Entries of the return-address stack.
    pub(crate) return_stack_entries: u32,
    /// Lines fetched ahead of a sequential stream; 0 is no prefetching.
    pub(crate) prefetch_lines: u32,
    /// Outstanding private-cache misses.
    pub(crate) miss_registers: u32,
}

/// A set-associative cache.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct RawCache {
    /// Capacity.
    pub(crate) size: Size,
    /// Associativity.
    pub(crate) ways: u32,
    /// Line length.
    pub(crate) line: Size,
    /// Cycles of a hit in the clock of its owner.
    pub(crate) latency: u32,
}

/// Cache shared by all clusters.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct RawL3 {
    /// Its clock.
    pub(crate) frequency: Frequency,
    /// Capacity.
    pub(crate) size: Size,
    /// Associativity.
    pub(crate) ways: u32,
    /// Line length.
    pub(crate) line: Size,
    /// Cycles of a hit in its own clock.
    pub(crate) latency: u32,
}

/// System cache in front of memory, on the fabric's clock; lines of 64 bytes, sixteen under one tag.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct RawSlc {
    /// Capacity.
    pub(crate) size: Size,
    /// Associativity.
    pub(crate) associativity: u32,
    /// Cycles of a look-up.
    pub(crate) latency: u32,
    /// Bytes a cycle all hits together get.
    pub(crate) width: Size,
    /// Ways a client may fill.
    pub(crate) ways: RawSlcWays,
}

/// Ways a client of the system cache may fill.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct RawSlcWays {
    /// CPUs, from the first way up.
    pub(crate) cpu: u32,
    /// NPU, from the last way down.
    pub(crate) npu: u32,
}

/// A switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Switch {
    On,
    Off,
}

/// A number format.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RawFormat {
    Int4,
    Uint4,
    Int8,
    Int16,
    Fp16,
    Bf16,
    Fp8,
    Mxfp4,
}

/// Neural processing unit.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct RawNpu {
    /// Whether firmware may use it; reaches firmware through the device tree.
    pub(crate) driver: Switch,
    /// Cores, 1 to 8.
    pub(crate) cores: u32,
    /// Rows of the matrix array (K).
    pub(crate) rows: u32,
    /// Columns of the matrix array (N).
    pub(crate) cols: u32,
    /// Clock.
    pub(crate) frequency: Frequency,
    /// Supply at that clock.
    pub(crate) voltage: Voltage,
    /// Lowest supply the array works at.
    pub(crate) minimum_voltage: Voltage,
    /// Scratchpad.
    pub(crate) scratchpad: Size,
    /// Accumulator memory.
    pub(crate) accumulator: Size,
    /// Banks of the scratchpad; consecutive lines lie in consecutive banks.
    pub(crate) scratchpad_banks: u32,
    /// Bytes each bank moves a cycle.
    pub(crate) scratchpad_bank_width: Size,
    /// Ports of the accumulator memory, each a row of the array's 4-byte sums read and written a cycle.
    pub(crate) accumulator_ports: u32,
    /// DMA channels from memory.
    pub(crate) dma_in_channels: u32,
    /// DMA channels to memory.
    pub(crate) dma_out_channels: u32,
    /// Bytes each DMA channel moves a cycle.
    pub(crate) dma_width: Size,
    /// Bytes in flight over all channels of a core.
    pub(crate) dma_outstanding: Size,
    /// Single-precision lanes of the vector engine.
    pub(crate) vector_lanes: u32,
    /// Weight bytes a cycle into the matrix-vector path.
    pub(crate) gemv_width: Size,
    /// Commands each engine queue holds.
    pub(crate) fifo_depth: u32,
    /// Cycles to decode a command.
    pub(crate) decode: u32,
    /// Cycles from a doorbell to the first command fetch.
    pub(crate) doorbell: u32,
    /// Cycles to set up a DMA transfer.
    pub(crate) dma_setup: u32,
    /// Formats the hardware executes.
    pub(crate) formats: Vec<RawFormat>,
}

/// Interconnect.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct RawFabric {
    /// Clock.
    pub(crate) frequency: Frequency,
    /// Bytes a cycle, each way, of the NPU's and of the shared cache's link to memory.
    pub(crate) width: Size,
    /// Bytes a cycle, each way, of each NPU core's port.
    pub(crate) npu_port: Size,
    /// Bytes a cycle, each way, of each CPU cluster's port at the shared cache.
    pub(crate) cpu_port: Size,
    /// Cycles of one hop.
    pub(crate) hop_latency: u32,
    /// Hops between an NPU core or the shared cache and a memory controller.
    pub(crate) hops: u32,
    /// Weights of the transfers' classes; urgent transfers come before all of them.
    pub(crate) qos: RawQos,
    /// Regulation of the NPU, all cores together.
    pub(crate) npu: Option<RawClient>,
    /// Regulation of the CPUs, all clusters together.
    pub(crate) cpu: Option<RawClient>,
}

/// Weights of classes of transfers.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct RawQos {
    /// Of class 0.
    pub(crate) background: u32,
    /// Of class 1.
    pub(crate) prefetch: u32,
    /// Of class 2.
    pub(crate) normal: u32,
}

/// A client of the fabric.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct RawClient {
    /// Most it may move, both ways together.
    pub(crate) limit: Bandwidth,
}

/// Memory traffic of other software.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct RawTraffic {
    /// Random lines read, as a share of the channels' peak.
    pub(crate) cpu_noise: Ratio,
    /// Their class; urgent, as the lines of the modelled harts are, where it is not given.
    pub(crate) cpu_noise_class: Option<RawClass>,
}

/// Class of traffic.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum RawClass {
    Background,
    Prefetch,
    Normal,
    Urgent,
}

/// Memory.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct RawDram {
    /// Standard and speed bin.
    pub(crate) standard: String,
    /// Channels of 16 data bits.
    pub(crate) channels: u32,
    /// Capacity of all channels.
    pub(crate) capacity: Size,
    /// Clock relative to the standard's.
    pub(crate) frequency_scale: Ratio,
    /// Consecutive bytes on one channel.
    pub(crate) interleave: Size,
    /// Bytes of one DMA run granted to a channel before another is served.
    pub(crate) grant: Size,
    /// Address map within a channel.
    pub(crate) address_map: String,
}

/// Energy and temperature.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct RawPower {
    /// Name of the energy table.
    pub(crate) energy_table: String,
    /// Whether leakage is charged.
    pub(crate) leakage: Switch,
    /// Supply of fabric and memory controllers.
    pub(crate) fabric_voltage: Voltage,
    /// Junction temperature until heat is modelled.
    pub(crate) temperature: Temperature,
}
