//! Shared by the DMA tests: a flat memory, and command texts run by the time-free cores and by the cluster in time.
#![allow(
    dead_code,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap,
    reason = "each test file uses a part of this; test sizes are small"
)]

#[path = "../random/mod.rs"]
mod random;
pub mod reference;

use std::collections::BTreeMap;

use isa::npu::registers as reg;
use npu_model::{
    Activity, BusFault, Cause, Cluster, ClusterTiming, Content, Cores, Executed, Fault, FlowRequest,
    IdSource, LocalPorts, Memory, NpuConfig, NpuEvent, Outside, Requester, Stuck, ops,
};
pub use random::Random;
use sim_kernel::{Bytes, Hertz, Stream, Time};

/// Address of the first byte of memory.
pub const BASE: u64 = 0x8000_0000;
/// Where rings lie, one a core, beyond what regions reach.
const RINGS: u64 = BASE + MEMORY;
/// Bytes region 0 covers.
pub const MEMORY: u64 = 1 << 20;

/// Four cores with 64 KiB of scratchpad.
pub fn config() -> NpuConfig {
    NpuConfig {
        cores: 4,
        rows: 16,
        cols: 16,
        frequency: Hertz::new(1_000_000_000),
        scratchpad: Bytes::new(64 * 1024),
        accumulator: Bytes::new(4 * 1024),
        dma_in_channels: 2,
        dma_out_channels: 2,
        dma_bytes_per_cycle: 64,
        dma_outstanding: Bytes::new(16 * 1024),
        vector_lanes: 16,
        fifo_depth: 16,
        decode_cycles: 4,
        gemv_bytes_per_cycle: 64,
        formats: ops::FORMATS,
        ports: LocalPorts::IDEAL,
    }
}

/// Control path of the test cluster.
pub fn timing() -> ClusterTiming {
    ClusterTiming {
        doorbell_cycles: 10,
        dma_setup_cycles: 16,
        hop_cycles: 8,
        memory_latency: Time::from_ns(100),
    }
}

/// A memory that answers from `BASE` on; bytes in `hidden` have an address but no value.
#[derive(Clone)]
pub struct Flat {
    pub bytes: Vec<u8>,
    pub hidden: core::ops::Range<u64>,
}

impl Flat {
    pub fn new(seed: u64) -> Self {
        let mut bytes = Random(seed).bytes(MEMORY as usize);
        bytes.resize((MEMORY + 64 * 1024) as usize, 0);
        Self { bytes, hidden: 0..0 }
    }

    fn range(&self, addr: u64, n: usize) -> Result<core::ops::Range<usize>, BusFault> {
        let at = addr.checked_sub(BASE).ok_or(BusFault(addr))? as usize;
        if at.checked_add(n).is_none_or(|end| end > self.bytes.len()) {
            return Err(BusFault(addr));
        }
        Ok(at..at + n)
    }

    fn content(&self, at: usize) -> Content {
        if self.hidden.contains(&(at as u64)) { Content::AddressOnly } else { Content::Stored }
    }
}

impl Memory for Flat {
    fn read(&mut self, addr: u64, out: &mut [u8]) -> Result<Content, BusFault> {
        let r = self.range(addr, out.len())?;
        let content = self.content(r.start);
        if content == Content::Stored {
            out.copy_from_slice(&self.bytes[r]);
        }
        Ok(content)
    }

    fn write(&mut self, addr: u64, data: &[u8]) -> Result<Content, BusFault> {
        let r = self.range(addr, data.len())?;
        let content = self.content(r.start);
        if content == Content::Stored {
            self.bytes[r].copy_from_slice(data);
        }
        Ok(content)
    }
}

/// Scratchpads and memory: what a command list works on, and what it leaves.
#[derive(Clone)]
pub struct World {
    pub spm: Vec<Vec<u8>>,
    pub memory: Flat,
}

impl World {
    pub fn new(seed: u64) -> Self {
        let cfg = config();
        let spm = (0..cfg.cores)
            .map(|c| Random(seed ^ u64::from(c) << 40).bytes(cfg.scratchpad.get() as usize))
            .collect();
        Self { spm, memory: Flat::new(seed ^ 0xABCD) }
    }

    pub fn mem(&self) -> &[u8] {
        &self.memory.bytes[..MEMORY as usize]
    }

    /// Equal scratchpads and memory below the rings.
    pub fn assert_same(&self, other: &Self, what: &str) {
        for (i, (a, b)) in self.spm.iter().zip(&other.spm).enumerate() {
            if let Some(at) = a.iter().zip(b).position(|(a, b)| a != b) {
                panic!("{what}: scratchpad {i} differs at {at:#x}: {:#x}, not {:#x}", a[at], b[at]);
            }
        }
        if let Some(at) = self.mem().iter().zip(other.mem()).position(|(a, b)| a != b) {
            panic!("{what}: memory differs at {at:#x}: {:#x}, not {:#x}", self.mem()[at], other.mem()[at]);
        }
    }
}

/// Puts each core's commands into its ring and returns the words.
fn rings(memory: &mut Flat, lists: &[&str]) -> Vec<u64> {
    let mut out = Vec::new();
    for (i, text) in lists.iter().enumerate() {
        let words = isa::npu::text::assemble(text).unwrap_or_else(|e| panic!("{text}: {}", e.message));
        for (k, w) in words.iter().enumerate() {
            memory.write(RINGS + i as u64 * 8192 + k as u64 * 32, &w.to_bytes()).expect("in range");
        }
        out.push(words.len() as u64);
    }
    out
}

fn registers(core: u64, words: u64) -> [(u64, u64); 6] {
    [
        (reg::REGION0, BASE),
        (reg::REGION0 + 8, MEMORY),
        (reg::QBASE, RINGS + core * 8192),
        (reg::QSIZE, 8),
        (reg::QCTRL, 1),
        (reg::QTAIL, words),
    ]
}

/// Runs command lists, one a core, without time.
pub fn functional(world: &World, lists: &[&str]) -> Result<World, Fault> {
    let cfg = config();
    let mut cores = Cores::new(cfg.clone());
    let mut memory = world.memory.clone();
    for (c, spm) in cores.cores.iter_mut().zip(&world.spm) {
        c.local.spm.clone_from(spm);
    }
    for (i, words) in rings(&mut memory, lists).into_iter().enumerate() {
        for (offset, value) in registers(i as u64, words) {
            assert!(cores.cores[i].store(&cfg, offset, value));
        }
    }
    match cores.run(&mut memory, None, &mut Stream::new(1, "test", "order")) {
        Ok(()) => {}
        Err(Stuck::Fault(_, f, _)) => return Err(f),
        Err(Stuck::Deadlock(w)) => panic!("deadlock: {w:?}"),
    }
    Ok(World { spm: cores.cores.into_iter().map(|c| c.local.spm).collect(), memory })
}

/// A command that ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    pub core: usize,
    pub engine: usize,
    pub index: u64,
    pub active: u64,
    /// Cycles of its own time that were not active, by cause.
    pub waits: Vec<(Cause, u64)>,
    pub total: u64,
    pub activity: Activity,
}

impl Ended {
    pub fn waited(&self, cause: Cause) -> u64 {
        self.waits.iter().filter(|w| w.0 == cause).map(|w| w.1).sum()
    }
}

/// One flow memory was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    pub core: usize,
    pub fetch: bool,
    pub runs: Vec<(u64, u64)>,
    pub write: bool,
    pub qos: u64,
    pub slc: u64,
    pub tag: u64,
    pub cap: u64,
}

impl Asked {
    pub fn bytes(&self) -> u64 {
        self.runs.iter().map(|r| r.1).sum()
    }
}

enum Event {
    Npu(usize, NpuEvent),
    Flow(usize, Requester),
}

/// The chip around the cluster: flows take a latency and move at their cap, or at `rate` if that is lower.
pub struct Chip {
    memory: Flat,
    queue: BTreeMap<(Time, u64), Event>,
    sequence: u64,
    rate: u64,
    pub asked: Vec<Asked>,
    pub executed: Vec<Ended>,
}

impl Memory for Chip {
    fn read(&mut self, addr: u64, out: &mut [u8]) -> Result<Content, BusFault> {
        self.memory.read(addr, out)
    }
    fn write(&mut self, addr: u64, data: &[u8]) -> Result<Content, BusFault> {
        self.memory.write(addr, data)
    }
}

impl Chip {
    fn push(&mut self, at: Time, event: Event) {
        self.sequence += 1;
        self.queue.insert((at, self.sequence), event);
    }
}

impl Outside for Chip {
    fn schedule(&mut self, at: Time, core: usize, event: NpuEvent) {
        self.push(at, Event::Npu(core, event));
    }

    fn start_flow(&mut self, at: Time, flow: &FlowRequest) {
        let asked = Asked {
            core: flow.core,
            fetch: flow.requester == Requester::Fetch,
            runs: flow.runs.to_vec(),
            write: flow.write,
            qos: flow.qos,
            slc: flow.slc,
            tag: flow.tag,
            cap: flow.cap,
        };
        let fs = u128::from(asked.bytes()) * 1_000_000_000_000_000 / u128::from(flow.cap.min(self.rate));
        let end = at + Time::from_ns(100) + Time::new(fs as u64);
        self.push(end, Event::Flow(flow.core, flow.requester));
        self.asked.push(asked);
    }

    fn interrupt(&mut self, _core: usize, _level: bool) {}

    fn executed(&mut self, core: usize, engine: usize, what: &Executed<'_>) {
        let mut own = what.waits[5..].to_vec();
        own.push(what.rest);
        self.executed.push(Ended {
            core,
            engine,
            index: what.issued.index,
            active: what.active,
            waits: own,
            total: what.active + what.rest.1 + what.waits[5..].iter().map(|w| w.1).sum::<u64>(),
            activity: *what.activity,
        });
    }
}

/// What a timed run leaves.
pub struct Timed {
    pub world: World,
    pub cluster: Cluster,
    pub asked: Vec<Asked>,
    pub executed: Vec<Ended>,
    pub end: Time,
}

impl Timed {
    /// Bytes memory served to DMA channels: (read, written).
    pub fn served(&self) -> (u64, u64) {
        let sum = |write| self.asked.iter().filter(|a| !a.fetch && a.write == write).map(Asked::bytes).sum();
        (sum(false), sum(true))
    }
}

/// Runs command lists, one a core, in time. `rate` bounds every flow, in bytes a second.
pub fn timed(world: &World, lists: &[&str], shape_only: bool, rate: u64) -> Result<Timed, Fault> {
    timed_on(config(), world, lists, shape_only, rate)
}

/// The same on another configuration.
pub fn timed_on(
    cfg: NpuConfig,
    world: &World,
    lists: &[&str],
    shape_only: bool,
    rate: u64,
) -> Result<Timed, Fault> {
    let ids = shape_only.then(|| IdSource::new(1, 100, Vec::new()));
    let mut cluster = Cluster::new(cfg, timing(), ids);
    let mut chip = Chip {
        memory: world.memory.clone(),
        queue: BTreeMap::new(),
        sequence: 0,
        rate,
        asked: Vec::new(),
        executed: Vec::new(),
    };
    for (c, spm) in cluster.cores.cores.iter_mut().zip(&world.spm) {
        c.local.spm.clone_from(spm);
    }
    for (i, words) in rings(&mut chip.memory, lists).into_iter().enumerate() {
        for (offset, value) in registers(i as u64, words) {
            assert!(cluster.store(Time::ZERO, i, offset, value, &mut chip));
        }
    }
    let mut end = Time::ZERO;
    while let Some(((now, _), event)) = chip.queue.pop_first() {
        end = now;
        match event {
            Event::Npu(core, e) => cluster.on_event(now, core, e, &mut chip),
            Event::Flow(core, r) => cluster.flow_done(now, core, r, &mut chip),
        }
    }
    if let Some((f, _)) = cluster.cores.cores.iter().find_map(|c| c.fault().map(|f| (f.1.fault, 0))) {
        return Err(f);
    }
    assert!(cluster.quiescent(), "the lists did not end: {:?}", cluster.cores.waits());
    let spm = cluster.cores.cores.iter().map(|c| c.local.spm.clone()).collect();
    Ok(Timed {
        world: World { spm, memory: chip.memory },
        cluster,
        asked: chip.asked,
        executed: chip.executed,
        end,
    })
}
