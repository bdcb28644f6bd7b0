//! From a configuration, a firmware ELF and a model image to a chip ready to run.
//!
//! The builder plays flash and boot ROM: it places firmware, device tree and model in memory before time zero,
//! and nothing else.

use isa::memory_map as map;
use npu_model::{Cluster, ClusterTiming, IdSource};
use object::{Object, ObjectSegment};
use sim_kernel::{Addr, Bytes, Clock, Cycles, EventQueue, Hertz, RankTable, Time};
use thiserror::Error;

use super::account::Account;
use super::chip::{Chip, Ranks, SharedLevel, World, bytes};
use super::mailbox::{Mailbox, Turn};
use super::symbols::Symbols;
use super::{Soc, devicetree};
use crate::config::{self, SocConfig};
use crate::cpu::devices::{Clint, Plic, Uart};
use crate::cpu::{CacheConfig, CoreConfig, GuestMemory, Hart, InOrderConfig, SharedCache};
use crate::dram::{AddressMap, Controller, DramConfig, Standard};
use crate::fabric::{Class, Fabric, FabricParameters, MemoryTiming, SlcParameters};

/// Granularity of address-only ranges.
const PAGE: u64 = 64 * 1024;
/// Bytes of an image that are stored at a time.
const PIECE: usize = 1 << 20;
/// Room for the firmware and its stacks, from the start of DRAM.
const FIRMWARE_BYTES: u64 = 4 << 20;
/// Where the device tree blob goes.
const BLOB_OFFSET: u64 = FIRMWARE_BYTES;
/// Where the arena starts.
const ARENA_OFFSET: u64 = 8 << 20;
/// Bytes of the arena: rings, command lists, results.
const ARENA_BYTES: u64 = 56 << 20;
/// Where the model image starts.
const IMAGE_OFFSET: u64 = ARENA_OFFSET + ARENA_BYTES;

/// Why a chip cannot be built from its input.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BuildError {
    /// The firmware is no bootable ELF.
    #[error("firmware {place}: {problem}")]
    Firmware {
        /// File or "built-in".
        place: String,
        /// What is wrong.
        problem: String,
    },
    /// Model, cache and firmware do not fit.
    #[error(
        "{needed} bytes for firmware, model, keys and values and activations; dram.capacity is {capacity}"
    )]
    Memory {
        /// Bytes needed.
        needed: u64,
        /// Bytes there are.
        capacity: u64,
    },
    /// A value of the configuration the models refuse.
    #[error("{path}: {problem}")]
    Config {
        /// Dotted path.
        path: String,
        /// What is wrong.
        problem: String,
    },
}

/// An ELF file's bytes and where they came from.
#[derive(Clone, Debug)]
pub struct FirmwareImage {
    /// File or "built-in".
    pub place: String,
    /// Content.
    pub elf: Vec<u8>,
}

/// A model as the loader places it.
#[derive(Clone, Debug)]
pub struct ModelImage {
    /// Bytes of the whole image.
    pub bytes: u64,
    /// (offset, content) pieces to store.
    pub stored: Vec<(u64, Vec<u8>)>,
    /// Whether all of it is stored: a functional run.
    pub functional: bool,
    /// Bytes of KV cache, activations and logits the run needs.
    pub bulk_bytes: u64,
    /// Tokens in the vocabulary.
    pub vocab: u64,
}

/// What the outside world asks first, and what for all it asks is set before reset.
#[derive(Clone, Debug)]
pub struct Job {
    /// The first turn.
    pub turn: Turn,
    /// Positions the cache is made for, in all turns.
    pub positions: u64,
    /// Most rows of a prefill chunk.
    pub chunk: u32,
    /// Bits of an element of the cache of keys and values: 16, 8 or 4.
    pub kv_bits: u32,
    /// What of that cache's pages is asked for.
    pub pages: isa::cache::PageChoice,
    /// Ids a shape-only run must produce, by position; the rest are drawn.
    pub ids: Vec<(u64, u32)>,
    /// Seed of every random stream.
    pub seed: u64,
}

/// Where things are in memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    pub(super) image: u64,
    pub(super) arena: (u64, u64),
    pub(super) bulk: (u64, u64),
    pub(super) chunk: u32,
    pub(super) positions: u32,
    pub(super) kv_bits: u32,
    pub(super) kv_page: u32,
    pub(super) kv_pool: u32,
}

/// Builds chips.
#[derive(Clone, Debug)]
pub struct SocBuilder {
    /// Configuration.
    pub config: SocConfig,
    /// Firmware.
    pub firmware: FirmwareImage,
    /// Model.
    pub model: ModelImage,
    /// Job.
    pub job: Job,
    /// How memory is timed.
    pub memory: MemoryTiming,
    /// Names components are registered in, reversed: a test of assembly order.
    pub reversed: bool,
}

fn config_error(path: &str, problem: impl ToString) -> BuildError {
    BuildError::Config { path: path.to_owned(), problem: problem.to_string() }
}

impl SocBuilder {
    /// Builds the chip with everything in its place.
    ///
    /// # Errors
    /// Whatever of the input does not fit.
    pub fn build(mut self) -> Result<Soc, BuildError> {
        let stored = std::mem::take(&mut self.model.stored);
        let cfg = &self.config;
        let layout = self.layout()?;
        let (harts, hart_names) = harts(cfg)?;
        let mut memory = GuestMemory::new();
        let capacity = Bytes::new(cfg.dram.capacity_bytes / PAGE * PAGE);
        memory
            .add_region(Addr::new(map::DRAM_BASE), capacity)
            .map_err(|e| config_error("dram.capacity", e))?;
        let entry = self.load_firmware(&mut memory)?;
        self.load_model(stored, &mut memory, &layout)?;
        let blob = devicetree::blob(cfg, &layout, harts.len()).map_err(|e| config_error("npu", e))?;
        write(&mut memory, map::DRAM_BASE + BLOB_OFFSET, &blob);
        let names = hart_names.iter().cloned().chain((0..cfg.npu.cores).map(|i| format!("npu{i}")));
        let mut names: Vec<String> = names.chain(["memory".to_owned(), "mailbox".to_owned()]).collect();
        if self.reversed {
            names.reverse();
        }
        let table = RankTable::new(names);
        let ranks = Ranks {
            harts: hart_names.iter().map(|n| table.rank(n)).collect(),
            cores: (0..cfg.npu.cores).map(|i| table.rank(&format!("npu{i}"))).collect(),
            memory: table.rank("memory"),
            mailbox: table.rank("mailbox"),
        };
        let dram = dram(cfg)?;
        let memory_latency = dram.unloaded_read_latency();
        let fabric = Clock::new(Hertz::new(cfg.fabric.frequency_hz));
        let hops = Cycles::new(u64::from(cfg.fabric.hop_latency_cycles) * u64::from(cfg.fabric.hops));
        let fabric_latency = fabric.edge(hops);
        let npu = self.npu(memory_latency + fabric_latency * 2);
        let parameters = fabric_parameters(cfg, dram.peak_bytes_per_s());
        let chip = Chip {
            queue: EventQueue::new(&table),
            ranks,
            memory,
            fabric: Fabric::new(parameters, dram, self.memory, self.job.seed),
            clusters: clusters(cfg),
            image: (layout.image, self.model.bytes),
            l3: shared_level(cfg)?,
            fabric_latency,
            clint: Clint::new(harts.len(), cfg.boot.timebase_hz),
            plic: Plic::new(harts.len()),
            uart: Uart::default(),
            mailbox: Mailbox::new(self.job.turn.clone()),
            console: Vec::new(),
            flows: Vec::new(),
            ended: Vec::new(),
            memory_due: None,
            lines_changed: false,
            snoops: Vec::new(),
            shared_window: layout.arena,
            doorbells: 0,
            lines_asked: [0; 2],
            runs: Vec::new(),
            observer: None,
            observed_vocab: self.model.functional.then_some(self.model.vocab),
        };
        let mut harts = harts;
        for (i, h) in harts.iter_mut().enumerate() {
            h.reset(entry, i as u64, map::DRAM_BASE + BLOB_OFFSET);
        }
        Ok(Soc {
            scheduled: vec![None; harts.len()],
            account: Account::new(cfg.clone(), hart_names.clone())?,
            world: World { chip, npu },
            harts,
            hart_names,
            heard: super::SignOfLife::default(),
            symbols: Symbols::new(&self.firmware.elf),
            booted: false,
        })
    }

    fn layout(&self) -> Result<Layout, BuildError> {
        let up = |n: u64| n.div_ceil(PAGE) * PAGE;
        let bulk = up(IMAGE_OFFSET + self.model.bytes);
        let end = bulk.saturating_add(up(self.model.bulk_bytes));
        let capacity = self.config.dram.capacity_bytes;
        if end > capacity {
            return Err(BuildError::Memory { needed: end, capacity });
        }
        Ok(Layout {
            image: map::DRAM_BASE + IMAGE_OFFSET,
            arena: (map::DRAM_BASE + ARENA_OFFSET, ARENA_BYTES),
            bulk: (map::DRAM_BASE + bulk, end - bulk),
            chunk: self.job.chunk,
            kv_bits: self.job.kv_bits,
            kv_page: u32::try_from(self.job.pages.page_positions)
                .map_err(|_| config_error("--kv-page", "too long"))?,
            kv_pool: u32::try_from(self.job.pages.pool_positions)
                .map_err(|_| config_error("--kv-pool", "too long"))?,
            positions: u32::try_from(self.job.positions.div_ceil(16) * 16)
                .map_err(|_| config_error("--context", "too long"))?,
        })
    }

    fn load_firmware(&self, memory: &mut GuestMemory) -> Result<u64, BuildError> {
        let bad = |problem: String| BuildError::Firmware { place: self.firmware.place.clone(), problem };
        let file =
            object::File::parse(&*self.firmware.elf).map_err(|e| bad(format!("not an ELF file: {e}")))?;
        if file.architecture() != object::Architecture::Riscv64 {
            return Err(bad(format!("expected a riscv64 ELF, found {:?}", file.architecture())));
        }
        let mut loaded = 0;
        for s in file.segments() {
            let (at, size) = (s.address(), s.size());
            let end = at.checked_add(size).ok_or_else(|| bad(format!("segment at {at:#x} wraps around")))?;
            if size == 0 {
                continue;
            }
            if at < map::DRAM_BASE || end > map::DRAM_BASE + FIRMWARE_BYTES {
                let top = map::DRAM_BASE + FIRMWARE_BYTES;
                let range = format!("{:#x}..{top:#x}", map::DRAM_BASE);
                return Err(bad(format!("segment {at:#x}..{end:#x} leaves the firmware's range {range}")));
            }
            let data = s.data().map_err(|e| bad(format!("segment at {at:#x}: {e}")))?;
            write(memory, at, data);
            loaded += 1;
        }
        if loaded == 0 {
            return Err(bad("it has no loadable segment".to_owned()));
        }
        let entry = file.entry();
        if !(map::DRAM_BASE..map::DRAM_BASE + FIRMWARE_BYTES).contains(&entry) {
            return Err(bad(format!("entry {entry:#x} lies outside its memory")));
        }
        Ok(entry)
    }

    fn load_model(
        &self,
        pieces: Vec<(u64, Vec<u8>)>,
        memory: &mut GuestMemory,
        layout: &Layout,
    ) -> Result<(), BuildError> {
        let stored = pieces.iter().map(|(o, c)| o + c.len() as u64).max().unwrap_or(0).div_ceil(PAGE) * PAGE;
        for (offset, mut content) in pieces {
            // From its end on, giving back what is stored: gigabytes of weights are not to be there twice.
            while !content.is_empty() {
                let at = (content.len() - 1) / PIECE * PIECE;
                write(memory, layout.image + offset + at as u64, &content[at..]);
                content.truncate(at);
                content.shrink_to_fit();
            }
        }
        if self.model.functional {
            return Ok(());
        }
        let bulk_end = layout.bulk.0 + layout.bulk.1;
        let from = layout.image + stored;
        memory
            .make_address_only(Addr::new(from), bytes(bulk_end - from))
            .map_err(|e| config_error("dram.capacity", e))
    }

    fn npu(&self, memory_latency: Time) -> Cluster {
        let n = &self.config.npu;
        let timing = ClusterTiming {
            doorbell_cycles: n.doorbell_cycles.into(),
            dma_setup_cycles: n.dma_setup_cycles.into(),
            hop_cycles: u64::from(self.config.fabric.hop_latency_cycles).max(1),
            memory_latency,
        };
        let ids = (!self.model.functional)
            .then(|| IdSource::new(self.job.seed, self.model.vocab, self.job.ids.clone()));
        Cluster::new(npu_config(n), timing, ids)
    }
}

/// The NPU model's configuration from the resolved one.
fn npu_config(n: &config::NpuConfig) -> npu_model::NpuConfig {
    // A format the configuration names is offered if the model executes it, with those its datapath also decodes:
    // unsigned with signed bytes, codes of two bits and codebooks with int4, all of 8-bit floats with fp8. Sums in
    // fp32 and int32 always are.
    let named = |f: isa::npu::Format| {
        use isa::npu::Format;
        let name = match f {
            Format::Fp32 | Format::Int32 => return true,
            Format::Uint8 => "int8",
            Format::Int2 | Format::Codebook4 => "int4",
            Format::Fp8E4m3 | Format::Fp8E5m2 | Format::Mxfp8 => "fp8",
            f => f.name(),
        };
        n.formats.iter().any(|named| named.name() == name)
    };
    let formats = isa::npu::Format::ALL.iter().filter(|f| named(**f)).fold(0, |bits, f| bits | 1 << f.code());
    npu_model::NpuConfig {
        cores: n.cores,
        rows: n.rows,
        cols: n.cols,
        frequency: Hertz::new(n.frequency_hz),
        scratchpad: bytes(n.scratchpad_bytes),
        accumulator: bytes(n.accumulator_bytes),
        dma_in_channels: n.dma_in_channels,
        dma_out_channels: n.dma_out_channels,
        dma_bytes_per_cycle: n.dma_bytes_per_cycle,
        dma_outstanding: bytes(n.dma_outstanding_bytes),
        vector_lanes: n.vector_lanes_fp32,
        fifo_depth: n.fifo_depth,
        decode_cycles: n.decode_cycles,
        gemv_bytes_per_cycle: n.gemv_bytes_per_cycle,
        formats: formats & npu_model::ops::FORMATS,
        ports: npu_model::LocalPorts {
            banks: n.scratchpad_banks,
            bank_bytes_per_cycle: n.scratchpad_bank_bytes_per_cycle,
            accumulator_ports: n.accumulator_ports,
        },
    }
}

fn write(memory: &mut GuestMemory, at: u64, content: &[u8]) {
    memory.write_bytes(Addr::new(at), content).expect("the layout was checked against the capacity");
}

const fn cache(c: &config::CacheConfig) -> CacheConfig {
    CacheConfig { bytes: c.bytes, ways: c.ways, line_bytes: c.line_bytes, latency_cycles: c.latency_cycles }
}

/// Number of every hart's cluster, in the order of `harts`.
fn clusters(cfg: &SocConfig) -> Vec<usize> {
    let boot = cfg.cpu.get_key_value(&cfg.boot.cluster).into_iter();
    let rest = cfg.cpu.iter().filter(|(name, _)| **name != cfg.boot.cluster);
    let sized = boot.chain(rest).enumerate();
    sized.flat_map(|(i, (_, c))| core::iter::repeat_n(i, c.count as usize)).collect()
}

fn shared_level(cfg: &SocConfig) -> Result<Option<SharedLevel>, BuildError> {
    let Some(l3) = &cfg.l3 else { return Ok(None) };
    let geometry = cache(&l3.cache);
    Ok(Some(SharedLevel {
        cache: SharedCache::new(&geometry).map_err(|e| config_error("l3", e))?,
        clock: Clock::new(Hertz::new(l3.frequency_hz)),
        latency: Cycles::new(u64::from(geometry.latency_cycles)),
    }))
}

fn fabric_parameters(cfg: &SocConfig, peak: u64) -> FabricParameters {
    let f = &cfg.fabric;
    let rate = |bytes: u32| u64::from(bytes) * f.frequency_hz;
    let class = |c: config::QosClass| match c {
        config::QosClass::Background => Class::Background,
        config::QosClass::Prefetch => Class::Prefetch,
        config::QosClass::Normal => Class::Normal,
        config::QosClass::Urgent => Class::Urgent,
    };
    let clock = Clock::new(Hertz::new(f.frequency_hz));
    let slc = cfg.slc.map(|s| SlcParameters {
        bytes: s.bytes,
        ways: s.ways,
        cpu_ways: s.cpu_ways,
        npu_ways: s.npu_ways,
        bytes_per_s: rate(s.bytes_per_cycle),
        latency: clock.edge(Cycles::new(s.latency_cycles.into())),
    });
    FabricParameters {
        cores: cfg.npu.cores as usize,
        clusters: cfg.cpu.len(),
        npu_port: rate(f.npu_port_bytes_per_cycle),
        npu_link: rate(f.bytes_per_cycle),
        cpu_port: rate(f.cpu_port_bytes_per_cycle),
        cpu_link: rate(f.bytes_per_cycle),
        beat: clock.edge(Cycles::new(1)),
        npu_limit: f.npu_limit_bytes_per_s,
        cpu_limit: f.cpu_limit_bytes_per_s,
        weights: f.qos_weights,
        noise: cfg.traffic.map(|t| (peak * u64::from(t.cpu_noise_permille) / 1000, class(t.cpu_noise_class))),
        slc,
    }
}

/// All harts: the boot cluster's first, then the others by cluster name.
fn harts(cfg: &SocConfig) -> Result<(Vec<Hart>, Vec<String>), BuildError> {
    let boot = cfg.cpu.get_key_value(&cfg.boot.cluster).into_iter();
    let rest = cfg.cpu.iter().filter(|(name, _)| **name != cfg.boot.cluster);
    let (mut out, mut names) = (Vec::new(), Vec::new());
    for (name, c) in boot.chain(rest) {
        let config::CoreConfig::InOrder(core) = &c.core;
        let core = CoreConfig::InOrder(InOrderConfig {
            issue_width: core.issue_width,
            memory_ports: core.memory_ports,
            miss_registers: core.miss_registers,
            mul_cycles: core.mul_cycles,
            div_cycles: core.div_cycles,
            fp_cycles: core.fp_cycles,
            fma_cycles: core.fma_cycles,
            fp_div_cycles: core.fp_div_cycles,
            atomic_cycles: core.atomic_cycles,
            mispredict_cycles: core.mispredict_penalty_cycles,
            serialise_cycles: core.serialise_cycles,
            predictor_entries: core.predictor_entries,
            return_stack: core.return_stack_entries,
            prefetch_lines: core.prefetch_lines,
            l1i: cache(&c.l1i),
            l1d: cache(&c.l1d),
            l2: cache(&c.l2),
        });
        for i in 0..c.count {
            let hart = Hart::new(out.len(), &core, Hertz::new(c.frequency_hz)).map_err(|errors| {
                let all: Vec<String> = errors.iter().map(ToString::to_string).collect();
                config_error(&format!("cpu.{name}"), all.join("; "))
            })?;
            out.push(hart);
            names.push(format!("cpu_{name}{i}"));
        }
    }
    Ok((out, names))
}

fn dram(cfg: &SocConfig) -> Result<DramConfig, BuildError> {
    let d = &cfg.dram;
    let joined = |errors: Vec<String>| errors.join("; ");
    let standard = Standard::named(&d.standard)
        .map_err(|e| config_error("dram.standard", joined(e.iter().map(ToString::to_string).collect())))?;
    let map = AddressMap::named_or_parsed(&d.address_map).map_err(|e| config_error("dram.address-map", e))?;
    let config = DramConfig {
        standard,
        channels: d.channels,
        capacity: bytes(d.capacity_bytes),
        interleave_bytes: d.interleave_bytes,
        grant_bytes: d.grant_bytes,
        map,
        controller: Controller::PHONE,
        frequency_permille: d.frequency_scale_permille,
    };
    config
        .validate()
        .map_err(|e| config_error("dram", joined(e.iter().map(ToString::to_string).collect())))?;
    Ok(config)
}
