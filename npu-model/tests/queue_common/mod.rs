//! What the queue tests share: a small cluster driven through its registers, without time and in time.
#![allow(dead_code, reason = "every test file uses its part")]

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use isa::npu::registers as reg;
use isa::npu::text::assemble;
use npu_model::{
    BusFault, Cluster, ClusterTiming, Content, Cores, FlowRequest, LocalPorts, Memory, NpuConfig, NpuEvent,
    Outside, Requester, Stuck,
};
use sim_kernel::{Bytes, EventCode, Hertz, Stream, Time};

/// First address of memory.
pub const BASE: u64 = 0x8000_0000;
/// Bytes of it.
pub const MEMORY: usize = 4 << 20;
/// Where lists are: region 0.
pub const LISTS: u64 = BASE + 0x2_0000;
/// Where data is: region 1.
pub const DATA: u64 = BASE + 0x4_0000;
/// Bytes of each.
pub const REGION: u64 = 0x2_0000;

/// Ring of a queue.
pub const fn ring(core: u64, queue: u64) -> u64 {
    BASE + (core * 4 + queue) * 0x1000
}
/// Completion ring of a queue.
pub const fn records(core: u64, queue: u64) -> u64 {
    BASE + 0x1_0000 + (core * 4 + queue) * 0x400
}
/// Save area of a queue.
pub const fn area(core: u64, queue: u64) -> u64 {
    BASE + 0x10_0000 + (core * 4 + queue) * 0x2_0000
}

/// Flat memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ram(pub Vec<u8>);

impl Ram {
    fn range(&mut self, at: u64, len: usize) -> Result<&mut [u8], BusFault> {
        let start = at.checked_sub(BASE).and_then(|o| usize::try_from(o).ok()).ok_or(BusFault(at))?;
        self.0.get_mut(start..start.saturating_add(len)).ok_or(BusFault(at))
    }
    pub fn put(&mut self, at: u64, bytes: &[u8]) {
        self.range(at, bytes.len()).expect("in memory").copy_from_slice(bytes);
    }
    pub fn word(&self, at: u64) -> u64 {
        let o = usize::try_from(at - BASE).expect("in memory");
        u64::from_le_bytes(self.0[o..o + 8].try_into().expect("8 bytes"))
    }
}

impl Memory for Ram {
    fn read(&mut self, at: u64, out: &mut [u8]) -> Result<Content, BusFault> {
        out.copy_from_slice(self.range(at, out.len())?);
        Ok(Content::Stored)
    }
    fn write(&mut self, at: u64, data: &[u8]) -> Result<Content, BusFault> {
        self.range(at, data.len())?.copy_from_slice(data);
        Ok(Content::Stored)
    }
}

/// Two cores of 8x8.
pub fn config() -> NpuConfig {
    NpuConfig {
        cores: 2,
        rows: 8,
        cols: 8,
        frequency: Hertz::new(1_000_000_000),
        scratchpad: Bytes::new(64 << 10),
        accumulator: Bytes::new(16 << 10),
        dma_in_channels: 2,
        dma_out_channels: 1,
        dma_bytes_per_cycle: 32,
        dma_outstanding: Bytes::new(4096),
        vector_lanes: 8,
        fifo_depth: 4,
        decode_cycles: 4,
        gemv_bytes_per_cycle: 32,
        formats: u64::MAX,
        ports: LocalPorts::IDEAL,
    }
}

/// What is asked of a cluster before it runs.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// (core, queue, text of its ring).
    pub rings: Vec<(u64, u64, String)>,
    /// (byte offset in region 0, text).
    pub lists: Vec<(u64, String)>,
    /// (byte offset in region 1, bytes).
    pub data: Vec<(u64, Vec<u8>)>,
    /// (core, register offset in the core's window, value), after the defaults.
    pub registers: Vec<(u64, u64, u64)>,
}

impl Setup {
    pub fn ring(mut self, core: u64, queue: u64, text: &str) -> Self {
        self.rings.push((core, queue, text.to_owned()));
        self
    }
    pub fn list(mut self, offset: u64, text: &str) -> Self {
        self.lists.push((offset, text.to_owned()));
        self
    }
    pub fn data(mut self, offset: u64, bytes: &[u8]) -> Self {
        self.data.push((offset, bytes.to_vec()));
        self
    }
    pub fn register(mut self, core: u64, offset: u64, value: u64) -> Self {
        self.registers.push((core, offset, value));
        self
    }

    fn words(text: &str) -> Vec<u8> {
        let words = assemble(text).unwrap_or_else(|e| panic!("line {}: {}\n{text}", e.line, e.message));
        words.iter().flat_map(|w| w.to_bytes()).collect()
    }

    fn memory(&self) -> Ram {
        let mut ram = Ram(vec![0; MEMORY]);
        for (core, queue, text) in &self.rings {
            ram.put(ring(*core, *queue), &Self::words(text));
        }
        for (offset, text) in &self.lists {
            ram.put(LISTS + offset, &Self::words(text));
        }
        for (offset, bytes) in &self.data {
            ram.put(DATA + offset, bytes);
        }
        ram
    }

    /// Every register store, doorbells last.
    pub fn all_stores(&self) -> Vec<(u64, u64, u64)> {
        self.stores()
    }

    fn stores(&self) -> Vec<(u64, u64, u64)> {
        let mut out = Vec::new();
        for (core, queue, _) in &self.rings {
            let page = queue * reg::QUEUE_STRIDE;
            for (register, value) in [
                (reg::QBASE, ring(*core, *queue)),
                (reg::QSIZE, 7),
                (reg::CBASE, records(*core, *queue)),
                (reg::CSIZE, 5),
                (reg::region(0), LISTS),
                (reg::region(0) + 8, REGION),
                (reg::region(1), DATA),
                (reg::region(1) + 8, REGION),
                (reg::SAVE_BASE, area(*core, *queue)),
                (reg::SAVE_LIMIT, 0x2_0000),
                (reg::QCTRL, 1),
            ] {
                out.push((*core, page + register, value));
            }
        }
        out.extend(&self.registers);
        for (core, queue, text) in &self.rings {
            let words = Self::words(text).len() as u64 / 32;
            out.push((*core, queue * reg::QUEUE_STRIDE + reg::QTAIL, words));
        }
        out
    }
}

/// A cluster without time.
pub struct Untimed {
    pub cores: Cores,
    pub ram: Ram,
    pub order: Stream,
}

impl Untimed {
    pub fn new(setup: &Setup, order: u64) -> Self {
        Self::with(config(), setup, order)
    }
    pub fn with(cfg: NpuConfig, setup: &Setup, order: u64) -> Self {
        let mut u =
            Self { cores: Cores::new(cfg), ram: setup.memory(), order: Stream::new(order, "npu", "order") };
        for (core, offset, value) in setup.stores() {
            u.store(core, offset, value);
        }
        u
    }
    pub fn store(&mut self, core: u64, offset: u64, value: u64) {
        let core = usize::try_from(core).expect("small");
        assert!(self.cores.cores[core].store(&self.cores.cfg, offset, value), "register {offset:#x}");
    }
    pub fn load(&self, core: usize, offset: u64) -> u64 {
        self.cores.cores[core].load(&self.cores.cfg, offset).expect("a register")
    }
    pub fn run(&mut self) -> Result<(), Stuck> {
        self.cores.run(&mut self.ram, None, &mut self.order)
    }
    /// Every unit once; false when nothing could run.
    pub fn round_once(&mut self) -> bool {
        self.cores.round(&mut self.ram, None)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Npu(usize, u64),
    Flow(usize, u64),
}

/// The chip around a timed cluster: events in order, memory with a latency and a rate.
pub struct Chip {
    pub ram: Ram,
    events: BinaryHeap<Reverse<(Time, u64, usize)>>,
    kinds: Vec<Option<(usize, Result<NpuEvent, Requester>)>>,
    pub digest: u64,
    pub read_bytes: u64,
    pub written_bytes: u64,
}

impl Chip {
    fn push(&mut self, at: Time, core: usize, what: Result<NpuEvent, Requester>) {
        let n = self.kinds.len();
        self.kinds.push(Some((core, what)));
        self.events.push(Reverse((at, n as u64, n)));
    }
}

impl Memory for Chip {
    fn read(&mut self, at: u64, out: &mut [u8]) -> Result<Content, BusFault> {
        self.ram.read(at, out)
    }
    fn write(&mut self, at: u64, data: &[u8]) -> Result<Content, BusFault> {
        self.ram.write(at, data)
    }
}

impl Outside for Chip {
    fn schedule(&mut self, at: Time, core: usize, event: NpuEvent) {
        self.push(at, core, Ok(event));
    }
    fn start_flow(&mut self, at: Time, flow: &FlowRequest) {
        let bytes: u64 = flow.runs.iter().map(|r| r.1).sum();
        *(if flow.write { &mut self.written_bytes } else { &mut self.read_bytes }) += bytes;
        // 100 ns and 32 bytes a nanosecond.
        self.push(at + Time::from_ns(100 + bytes / 32), flow.core, Err(flow.requester));
    }
    fn interrupt(&mut self, _core: usize, _level: bool) {}
}

/// A cluster in time.
pub struct Timed {
    pub cluster: Cluster,
    pub chip: Chip,
    pub now: Time,
}

impl Timed {
    pub fn new(setup: &Setup) -> Self {
        Self::with(config(), setup)
    }
    pub fn with(cfg: NpuConfig, setup: &Setup) -> Self {
        let timing = ClusterTiming {
            doorbell_cycles: 20,
            dma_setup_cycles: 10,
            hop_cycles: 3,
            memory_latency: Time::from_ns(100),
        };
        let chip = Chip {
            ram: setup.memory(),
            events: BinaryHeap::new(),
            kinds: Vec::new(),
            digest: 0,
            read_bytes: 0,
            written_bytes: 0,
        };
        let mut t = Self { cluster: Cluster::new(cfg, timing, None), chip, now: Time::ZERO };
        for (core, offset, value) in setup.stores() {
            t.store(core, offset, value);
        }
        t
    }
    pub fn store(&mut self, core: u64, offset: u64, value: u64) {
        let core = usize::try_from(core).expect("small");
        assert!(self.cluster.store(self.now, core, offset, value, &mut self.chip), "register {offset:#x}");
    }
    pub fn load(&self, core: usize, offset: u64) -> u64 {
        self.cluster.load(self.now, core, offset).expect("a register")
    }
    /// Runs up to an instant; false when no event is left.
    pub fn run_until(&mut self, until: Time) -> bool {
        for _ in 0..2_000_000u32 {
            let Some(Reverse((at, _, n))) = self.chip.events.peek().copied() else { return false };
            if at > until {
                return true;
            }
            self.chip.events.pop();
            self.now = at;
            let (core, what) = self.chip.kinds[n].take().expect("once");
            match what {
                Ok(event) => {
                    self.chip.digest = self.chip.digest.rotate_left(5) ^ event.code() ^ at.get();
                    self.cluster.on_event(at, core, event, &mut self.chip);
                }
                Err(requester) => self.cluster.flow_done(at, core, requester, &mut self.chip),
            }
        }
        panic!("two million events and no end");
    }
    pub fn run(&mut self) {
        assert!(!self.run_until(Time::new(u64::MAX)));
        for (core, name, meter) in self.cluster.meters(self.now) {
            let cycles = self.cluster.clock().at_or_after(self.now).get();
            assert!(
                meter.total() >= cycles,
                "npu{core} {name}: {} of {cycles} cycles have a cause",
                meter.total()
            );
        }
    }
}

/// Runs to the end without time in four orders and once in time; all must leave the same data and faults.
pub fn both(setup: &Setup) -> (Untimed, Timed) {
    let mut timed = Timed::new(setup);
    timed.run();
    let from = usize::try_from(DATA - BASE).expect("small");
    let mut last = None;
    for order in 0..4 {
        let mut untimed = Untimed::new(setup, order);
        let outcome = untimed.run();
        for (i, c) in untimed.cores.cores.iter().enumerate() {
            let in_time = &timed.cluster.cores.cores[i];
            for (q, (a, b)) in c.queues.iter().zip(&in_time.queues).enumerate() {
                let (a, b) = (a.fault.map(|f| f.fault.code), b.fault.map(|f| f.fault.code));
                assert_eq!(a, b, "npu{i} queue {q}, order {order}: {outcome:?}");
            }
            assert_eq!(c.quiescent(), in_time.quiescent(), "npu{i}, order {order}: {outcome:?}");
            assert!(c.local.spm == in_time.local.spm, "npu{i} scratchpads differ in order {order}");
            assert!(c.local.acc == in_time.local.acc, "npu{i} accumulators differ in order {order}");
        }
        let to = from + usize::try_from(REGION).expect("small");
        assert!(untimed.ram.0[from..to] == timed.chip.ram.0[from..to], "data differs in order {order}");
        last = Some(untimed);
    }
    (last.expect("four orders"), timed)
}
