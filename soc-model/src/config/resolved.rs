//! The resolved description of one SoC: plain integers, every invariant checked, nothing left to default.
//!
//! Models: what each component is built from. Does not model: anything. Source: the preset each value came from.

use std::collections::BTreeMap;

use serde::Serialize;

/// A whole SoC, as every component is built from it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SocConfig {
    /// Name of the preset or file it was resolved from.
    pub name: String,
    /// Who boots and with which time base.
    pub boot: BootConfig,
    /// CPU clusters by name.
    pub cpu: BTreeMap<String, ClusterConfig>,
    /// The cache all clusters share.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub l3: Option<L3Config>,
    /// The system cache in front of memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slc: Option<SlcConfig>,
    /// The neural processing unit.
    pub npu: NpuConfig,
    /// What connects clusters, NPU and memory.
    pub fabric: FabricConfig,
    /// Memory channels behind the fabric.
    pub dram: DramConfig,
    /// Memory traffic of other software.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traffic: Option<TrafficConfig>,
    /// Energy coefficients, supplies and temperature.
    pub power: PowerConfig,
}

/// Who boots and with which time base.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BootConfig {
    /// Cluster of hart 0, which also runs the NPU driver.
    pub cluster: String,
    /// Frequency of `mtime` in hertz.
    pub timebase_hz: u64,
}

/// One group of equal cores on one clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClusterConfig {
    /// Number of cores.
    pub count: u32,
    /// Core clock in hertz.
    pub frequency_hz: u64,
    /// Supply at that clock in millivolts.
    pub voltage_mv: u32,
    /// Pipeline.
    pub core: CoreConfig,
    /// Level-1 instruction cache of each core.
    pub l1i: CacheConfig,
    /// Level-1 data cache of each core.
    pub l1d: CacheConfig,
    /// Level-2 cache of each core.
    pub l2: CacheConfig,
    /// Row family of the energy table that this cluster charges (`little`, `mid`, `big`, `prime`).
    pub energy_class: EnergyClass,
}

/// Which family of CPU rows in the energy table a cluster charges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum EnergyClass {
    /// A520 class.
    Little,
    /// A720 and A725 class.
    Mid,
    /// X3 and X4 class.
    Big,
    /// X925 class.
    Prime,
}

impl EnergyClass {
    /// Every class, in ascending order of size.
    pub const ALL: [Self; 4] = [Self::Little, Self::Mid, Self::Big, Self::Prime];

    /// The class as written in files; also the component of its rows after `cpu.`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Little => "little",
            Self::Mid => "mid",
            Self::Big => "big",
            Self::Prime => "prime",
        }
    }
}

/// A core's pipeline, one variant per timing model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CoreConfig {
    /// In-order multiple issue.
    InOrder(InOrderConfig),
}

/// An in-order pipeline; latencies in cycles from issue to a dependent issue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InOrderConfig {
    /// Instructions issued a cycle at most.
    pub issue_width: u32,
    /// Loads and stores issued a cycle at most.
    pub memory_ports: u32,
    /// Integer multiply.
    pub mul_cycles: u32,
    /// Integer divide; the unit is busy as long.
    pub div_cycles: u32,
    /// Floating-point add, multiply, compare and convert.
    pub fp_cycles: u32,
    /// Fused multiply-add.
    pub fma_cycles: u32,
    /// Floating-point divide and square root; the unit is busy as long.
    pub fp_div_cycles: u32,
    /// Atomic on a line in the level-1 data cache.
    pub atomic_cycles: u32,
    /// Mispredicted branch to the first instruction of the right path.
    pub mispredict_penalty_cycles: u32,
    /// Lost to a trap, a return from one, or another serialising instruction.
    pub serialise_cycles: u32,
    /// Entries of the two-bit branch direction table.
    pub predictor_entries: u32,
    /// Entries of the return-address stack.
    pub return_stack_entries: u32,
    /// Lines fetched ahead of a sequential stream; 0 is no prefetching.
    pub prefetch_lines: u32,
    /// Outstanding private-cache misses.
    pub miss_registers: u32,
}

/// A set-associative cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct CacheConfig {
    /// Capacity.
    pub bytes: u64,
    /// Associativity.
    pub ways: u32,
    /// Line length.
    pub line_bytes: u32,
    /// Cycles of a hit in the clock of its owner; for level-1 data the load-to-use latency.
    pub latency_cycles: u32,
}

impl CacheConfig {
    /// Number of sets.
    #[must_use]
    pub const fn sets(&self) -> u64 {
        self.bytes / (self.ways as u64 * self.line_bytes as u64)
    }
}

/// The cache all clusters share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct L3Config {
    /// Its clock in hertz.
    pub frequency_hz: u64,
    /// Geometry; latency in cycles of its own clock.
    pub cache: CacheConfig,
}

/// The system cache in front of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct SlcConfig {
    /// Capacity.
    pub bytes: u64,
    /// Associativity.
    pub ways: u32,
    /// Cycles of a look-up in the fabric's clock.
    pub latency_cycles: u32,
    /// Bytes a cycle all hits together get.
    pub bytes_per_cycle: u32,
    /// Ways CPUs may fill, from the first up.
    pub cpu_ways: u32,
    /// Ways the NPU may fill, from the last down.
    pub npu_ways: u32,
}

/// A number format the NPU computes in or decodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum NumberFormat {
    /// Signed 4-bit integer.
    Int4,
    /// Unsigned 4-bit integer.
    Uint4,
    /// Signed 8-bit integer.
    Int8,
    /// Signed 16-bit integer.
    Int16,
    /// IEEE 754 half precision.
    Fp16,
    /// Brain float.
    Bf16,
    /// 8-bit float (E4M3).
    Fp8,
    /// OCP microscaling 4-bit float.
    Mxfp4,
}

impl NumberFormat {
    /// Every format.
    pub const ALL: [Self; 8] =
        [Self::Int4, Self::Uint4, Self::Int8, Self::Int16, Self::Fp16, Self::Bf16, Self::Fp8, Self::Mxfp4];

    /// The format as written in files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Int4 => "int4",
            Self::Uint4 => "uint4",
            Self::Int8 => "int8",
            Self::Int16 => "int16",
            Self::Fp16 => "fp16",
            Self::Bf16 => "bf16",
            Self::Fp8 => "fp8",
            Self::Mxfp4 => "mxfp4",
        }
    }
}

/// The neural processing unit. Sizes, widths and depths are per core.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NpuConfig {
    /// Whether firmware may use it; reaches firmware through the device tree.
    pub driver: bool,
    /// Cores.
    pub cores: u32,
    /// Rows of the matrix array (K).
    pub rows: u32,
    /// Columns of the matrix array (N).
    pub cols: u32,
    /// Clock in hertz.
    pub frequency_hz: u64,
    /// Supply at that clock in millivolts.
    pub voltage_mv: u32,
    /// Lowest supply the array works at, in millivolts.
    pub vmin_mv: u32,
    /// Scratchpad.
    pub scratchpad_bytes: u64,
    /// Accumulator memory.
    pub accumulator_bytes: u64,
    /// Banks of the scratchpad; consecutive lines lie in consecutive banks.
    pub scratchpad_banks: u32,
    /// Bytes each bank moves a cycle.
    pub scratchpad_bank_bytes_per_cycle: u32,
    /// Ports of the accumulator memory.
    pub accumulator_ports: u32,
    /// DMA channels from memory.
    pub dma_in_channels: u32,
    /// DMA channels to memory.
    pub dma_out_channels: u32,
    /// Bytes each DMA channel moves a cycle.
    pub dma_bytes_per_cycle: u32,
    /// Bytes in flight over all channels of a core; bandwidth is at most this over the memory latency.
    pub dma_outstanding_bytes: u64,
    /// Single-precision lanes of the vector engine; half precision runs at twice the lanes.
    pub vector_lanes_fp32: u32,
    /// Weight bytes a cycle into the matrix-vector path.
    pub gemv_bytes_per_cycle: u32,
    /// Commands each engine queue holds.
    pub fifo_depth: u32,
    /// Cycles to decode a command.
    pub decode_cycles: u32,
    /// Cycles from a doorbell to the first command fetch.
    pub doorbell_cycles: u32,
    /// Cycles to set up a DMA transfer.
    pub dma_setup_cycles: u32,
    /// Formats the hardware executes.
    pub formats: Vec<NumberFormat>,
}

impl NpuConfig {
    /// Dense int8 multiply-accumulates a second over all cores.
    #[must_use]
    pub fn int8_macs_per_second(&self) -> u64 {
        u64::from(self.cores) * u64::from(self.rows) * u64::from(self.cols) * self.frequency_hz
    }
}

/// What connects clusters, NPU and memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct FabricConfig {
    /// Clock in hertz.
    pub frequency_hz: u64,
    /// Bytes a cycle, each way, of the NPU's and of the shared cache's link to memory.
    pub bytes_per_cycle: u32,
    /// Bytes a cycle, each way, of each NPU core's port.
    pub npu_port_bytes_per_cycle: u32,
    /// Bytes a cycle, each way, of each CPU cluster's port at the shared cache.
    pub cpu_port_bytes_per_cycle: u32,
    /// Cycles of one hop.
    pub hop_latency_cycles: u32,
    /// Hops between an NPU core or the shared cache and a memory controller.
    pub hops: u32,
    /// Weights of background, prefetch and normal transfers.
    pub qos_weights: [u32; 3],
    /// Most bytes a second the NPU may move.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub npu_limit_bytes_per_s: Option<u64>,
    /// Most bytes a second the CPUs may move.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_limit_bytes_per_s: Option<u64>,
}

/// Memory traffic of other software.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct TrafficConfig {
    /// Random lines read, in thousandths of the channels' peak.
    pub cpu_noise_permille: u32,
    /// Their class.
    pub cpu_noise_class: QosClass,
}

/// Class of traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum QosClass {
    /// Whatever can wait.
    Background,
    /// What is fetched ahead.
    Prefetch,
    /// What is needed.
    Normal,
    /// What cannot wait.
    Urgent,
}

/// Memory channels behind the fabric.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DramConfig {
    /// Name of the standard and speed bin.
    pub standard: String,
    /// Channels of 16 data bits.
    pub channels: u32,
    /// Capacity of all channels.
    pub capacity_bytes: u64,
    /// Clock relative to the standard's, in thousandths.
    pub frequency_scale_permille: u32,
    /// Consecutive bytes on one channel.
    pub interleave_bytes: u64,
    /// Bytes of one DMA run granted to a channel before another is served.
    pub grant_bytes: u64,
    /// Name of the address map within a channel.
    pub address_map: String,
}

/// Energy coefficients, supplies and temperature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PowerConfig {
    /// Name of the energy table.
    pub energy_table: String,
    /// Whether leakage is charged.
    pub leakage: bool,
    /// Supply of fabric and memory controllers in millivolts.
    pub fabric_mv: u32,
    /// Junction temperature in thousandths of a degree Celsius, until heat is modelled.
    pub temperature_mc: u32,
}
