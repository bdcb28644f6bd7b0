//! Everything around harts and NPU engines: memory, shared cache, devices, the event queue.

use isa::memory_map as map;
use npu_model::{
    BusFault as NpuBusFault, Cluster, Content, Executed, FlowRequest, Memory, NpuEvent, Outside, Requester,
};
use sim_kernel::{Addr, Bytes, Clock, Cycles, EventCode, EventQueue, Phase, Rank, Time};

use isa::tags::OpKind;

use super::mailbox::Mailbox;
use super::observe::Observer;
use crate::cpu::devices::{Clint, Plic, Uart};
use crate::cpu::{
    Bus, BusFault, GuestMemory, InterruptLines, LineReply, LineRequest, LineSource, MemoryFault,
    SharedAccess, SharedCache,
};
use crate::fabric::{Class, Client, Content as Carries, Fabric, Hint, Request, TransferId};

/// What happens to a component.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// A hart runs on.
    Hart(u32),
    /// An NPU core's engine or sequencer.
    Npu(NpuEvent),
    /// Transfers of the memory end.
    Memory,
    /// The outside world posts the job.
    Job,
}

impl EventCode for Event {
    fn code(&self) -> u64 {
        match self {
            Self::Hart(h) => 0x1000_0000 | u64::from(*h),
            Self::Npu(e) => 0x2000_0000 | e.code(),
            Self::Memory => 0x3000_0000,
            Self::Job => 0x4000_0000,
        }
    }
}

/// Ranks of the components, by name.
#[derive(Clone, Debug)]
pub(super) struct Ranks {
    pub(super) harts: Vec<Rank>,
    pub(super) cores: Vec<Rank>,
    pub(super) memory: Rank,
    pub(super) mailbox: Rank,
}

/// The cache that harts share, on its own clock.
pub(super) struct SharedLevel {
    pub(super) cache: SharedCache,
    pub(super) clock: Clock,
    pub(super) latency: Cycles,
}

/// The chip without harts and engines.
pub(super) struct Chip {
    pub(super) queue: EventQueue<Event>,
    pub(super) ranks: Ranks,
    pub(super) memory: GuestMemory,
    pub(super) fabric: Fabric,
    /// CPU cluster of every hart.
    pub(super) clusters: Vec<usize>,
    /// Addresses of the model's image.
    pub(super) image: (u64, u64),
    pub(super) l3: Option<SharedLevel>,
    pub(super) fabric_latency: Time,
    pub(super) clint: Clint,
    pub(super) plic: Plic,
    pub(super) uart: Uart,
    pub(super) mailbox: Mailbox,
    pub(super) console: Vec<u8>,
    pub(super) flows: Vec<(TransferId, usize, Requester)>,
    pub(super) ended: Vec<(Time, TransferId)>,
    pub(super) memory_due: Option<Time>,
    pub(super) lines_changed: bool,
    pub(super) snoops: Vec<u64>,
    /// Addresses harts cache and DMA writes: rings, lists, results.
    pub(super) shared_window: (u64, u64),
    pub(super) doorbells: u64,
    /// Lines the shared cache asked memory to read and to write.
    pub(super) lines_asked: [u64; 2],
    pub(super) runs: Vec<(u64, u64)>,
    pub(super) observer: Option<Box<Observer>>,
    /// Tokens in the vocabulary of a functional run: the logits that are looked at when a token arrives.
    pub(super) observed_vocab: Option<u64>,
}

/// Chip and NPU cluster: what a hart sees.
pub(super) struct World {
    pub(super) chip: Chip,
    pub(super) npu: Cluster,
}

impl Chip {
    pub(super) fn core_of(&self, rank: Rank) -> usize {
        self.ranks.cores.iter().position(|r| *r == rank).expect("an NPU event belongs to an NPU core")
    }

    pub(super) fn schedule_hart(&mut self, hart: usize, at: Time) {
        let id = u32::try_from(hart).expect("few harts");
        self.queue.schedule(at, Phase::Tick, self.ranks.harts[hart], Event::Hart(id));
    }

    pub(super) fn schedule_job(&mut self, at: Time) {
        self.queue.schedule(at, Phase::Deliver, self.ranks.mailbox, Event::Job);
    }

    pub(super) fn ring_job(&mut self) {
        self.mailbox.ring();
        self.update_mailbox_line();
    }

    fn update_mailbox_line(&mut self) {
        self.plic.set_source(map::IRQ_MAILBOX, self.mailbox.interrupt());
        self.lines_changed = true;
    }

    /// Makes sure an event stands at the memory's next completion.
    pub(super) fn watch_memory(&mut self, now: Time) {
        let Some(next) = self.fabric.next_completion() else { return };
        let next = next.max(now);
        if self.memory_due.is_none_or(|due| next < due) {
            self.memory_due = Some(next);
            self.queue.schedule(next, Phase::Deliver, self.ranks.memory, Event::Memory);
        }
    }

    /// Transfers that have ended by `now`, oldest first.
    pub(super) fn finished_flows(&mut self, now: Time) -> Vec<(usize, Requester)> {
        self.ended.clear();
        let mut ended = core::mem::take(&mut self.ended);
        self.fabric.finish_into(now, &mut ended);
        let out = ended
            .iter()
            .map(|(_, id)| {
                let i = self.flows.iter().position(|f| f.0 == *id).expect("every flow has an owner");
                let (_, core, requester) = self.flows.swap_remove(i);
                (core, requester)
            })
            .collect();
        self.ended = ended;
        out
    }

    pub(super) fn memory_quiescent(&self) -> bool {
        self.flows.is_empty() && self.fabric.quiescent()
    }

    /// Notes how probable the answer's last token was, from the logits in memory. An observation from outside: it
    /// costs no modelled time and changes nothing.
    fn observe_logits(&mut self) {
        let (Some(vocab), Some(at)) = (self.observed_vocab, self.mailbox.logits()) else { return };
        let Some((token, _)) = self.mailbox.tokens.last().copied() else { return };
        let mut content = vec![0; usize::try_from(vocab * 4).unwrap_or(0)];
        if self.memory.read_bytes(Addr::new(at), &mut content).is_ok() {
            self.mailbox.logprobs.extend(log_probability(&content, token));
        }
    }

    /// Takes an encoder's values out of memory, in a functional run: as `observe_logits`, from outside.
    fn observe_embedding(&mut self) {
        let Some((at, width)) = self.mailbox.result().filter(|_| self.observed_vocab.is_some()) else {
            return;
        };
        let mut content = vec![0; usize::try_from(width.min(MOST_VALUES) * 4).unwrap_or(0)];
        if self.memory.read_bytes(Addr::new(at), &mut content).is_ok() {
            let (values, _) = content.as_chunks::<4>();
            self.mailbox.embedding = values.iter().map(|b| f32::from_le_bytes(*b)).collect();
        }
    }

    pub(super) fn lines(&self, now: Time, hart: usize) -> InterruptLines {
        InterruptLines {
            software: self.clint.software(hart),
            timer: self.clint.timer(now, hart),
            external: self.plic.external(hart),
        }
    }

    pub(super) fn console_tail(&self) -> String {
        let text = String::from_utf8_lossy(&self.console);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(4)..].join(" | ")
    }

    fn snoop(&mut self, addr: u64, bytes: usize) {
        let (base, size) = self.shared_window;
        if addr >= base && addr < base + size {
            let last = (addr + bytes as u64 - 1) / 64;
            self.snoops.extend((addr / 64..=last).map(|l| l * 64));
        }
    }

    /// Offset in DRAM of a line, if it is one.
    fn dram_offset(&self, addr: u64) -> Option<u64> {
        let offset = addr.checked_sub(map::DRAM_BASE)?;
        (offset < self.fabric.dram().capacity.get()).then_some(offset)
    }

    fn line_from_memory(&mut self, now: Time, hart: usize, addr: u64, write: bool) -> Time {
        let Some(offset) = self.dram_offset(addr) else { return now };
        self.lines_asked[usize::from(write)] += 1;
        // Harts run ahead of the queue, each by its own amount, never behind it.
        self.fabric.catch_up(self.queue.now());
        self.fabric.access_line(now, self.clusters[hart], offset, write)
    }

    /// What a transfer carries, by where it lies and which operation it belongs to.
    fn carries(&self, flow: &FlowRequest) -> Carries {
        let at = flow.runs.first().map_or(0, |r| r.0);
        match flow.requester {
            Requester::Fetch | Requester::Control(_) | Requester::Posted => Carries::Commands,
            Requester::Context => Carries::Activations,
            Requester::Channel(_) if at >= self.image.0 && at - self.image.0 < self.image.1 => {
                Carries::Weights
            }
            Requester::Channel(_) if flow.tag == OpKind::Attention as u64 => Carries::Kv,
            Requester::Channel(_) => Carries::Activations,
        }
    }
}

impl Memory for Chip {
    fn read(&mut self, addr: u64, out: &mut [u8]) -> Result<Content, NpuBusFault> {
        match self.memory.read_bytes(Addr::new(addr), out) {
            Ok(()) => Ok(Content::Stored),
            Err(MemoryFault::AddressOnly(_)) => Ok(Content::AddressOnly),
            Err(MemoryFault::Unmapped(a)) => Err(NpuBusFault(a)),
        }
    }

    fn write(&mut self, addr: u64, data: &[u8]) -> Result<Content, NpuBusFault> {
        self.snoop(addr, data.len());
        match self.memory.write_bytes(Addr::new(addr), data) {
            Ok(()) => Ok(Content::Stored),
            Err(MemoryFault::AddressOnly(_)) => Ok(Content::AddressOnly),
            Err(MemoryFault::Unmapped(a)) => Err(NpuBusFault(a)),
        }
    }
}

impl Outside for Chip {
    fn schedule(&mut self, at: Time, core: usize, event: NpuEvent) {
        let phase = if matches!(event, NpuEvent::Post(..)) { Phase::Deliver } else { Phase::Tick };
        self.queue.schedule(at, phase, self.ranks.cores[core], Event::Npu(event));
    }

    fn start_flow(&mut self, at: Time, flow: &FlowRequest) {
        self.runs.clear();
        let mut runs = core::mem::take(&mut self.runs);
        runs.extend(flow.runs.iter().map(|(a, n)| (a - map::DRAM_BASE, *n)));
        let request = Request {
            client: if flow.write { Client::NpuOut(flow.core) } else { Client::NpuIn(flow.core) },
            class: Class::of_code(flow.qos),
            hint: Hint::of_code(flow.slc),
            content: self.carries(flow),
            runs: &runs,
            write: flow.write,
            cap: flow.cap,
        };
        let id = self.fabric.start_flow(at, &request);
        self.runs = runs;
        self.flows.push((id, flow.core, flow.requester));
    }

    fn interrupt(&mut self, core: usize, level: bool) {
        let source = map::IRQ_NPU0 + u32::try_from(core).expect("at most 8 cores");
        self.plic.set_source(source, level);
        self.lines_changed = true;
        if let Some(o) = &mut self.observer {
            o.interrupt_line(self.queue.now(), core, level);
        }
    }

    fn executed(&mut self, core: usize, engine: usize, what: &Executed<'_>) {
        if let Some(o) = &mut self.observer {
            o.executed(core, engine, what);
        }
    }

    fn sequenced(&mut self, core: usize, start: Time, end: Time, cycles: u64, commands: u64) {
        if let Some(o) = &mut self.observer {
            o.sequenced(core, start, end, cycles, commands);
        }
    }
}

impl World {
    fn device(addr: u64) -> Option<(map::Window, u64)> {
        map::TABLE.iter().find(|w| addr >= w.base && addr - w.base < w.bytes).map(|w| (*w, addr - w.base))
    }
}

impl Bus for World {
    fn memory(&mut self) -> &mut GuestMemory {
        &mut self.chip.memory
    }

    fn line(&mut self, r: LineRequest) -> LineReply {
        let c = &mut self.chip;
        let (mut looked_up, mut write_back) = (r.now, None);
        if let Some(l3) = &mut c.l3 {
            looked_up = l3.clock.after(r.now, l3.latency);
            match l3.cache.access(r.addr) {
                SharedAccess::Hit => {
                    let waits = c.fabric.cached_line(r.now, c.clusters[r.hart]);
                    return LineReply { done: looked_up + waits, source: LineSource::SharedCache };
                }
                SharedAccess::Miss { write_back: victim } => write_back = victim,
            }
        }
        if let Some(victim) = write_back {
            let _posted = c.line_from_memory(r.now, r.hart, victim, true);
        }
        let read = c.line_from_memory(r.now, r.hart, r.addr, false).saturating_sub(r.now);
        LineReply { done: looked_up + read + c.fabric_latency * 2, source: LineSource::Dram }
    }

    fn write_back(&mut self, now: Time, hart: usize, addr: u64) {
        let victim = match &mut self.chip.l3 {
            Some(l3) => l3.cache.write_back(addr),
            None => Some(addr),
        };
        if let Some(victim) = victim {
            let _posted = self.chip.line_from_memory(now, hart, victim, true);
        }
    }

    fn mmio_load(&mut self, now: Time, _hart: usize, addr: u64, size: u8) -> Result<(u64, Time), BusFault> {
        let (window, offset) = Self::device(addr).ok_or(BusFault::Unmapped(addr))?;
        let c = &mut self.chip;
        let value = match window {
            map::CLINT => c.clint.load(now, offset, size)?,
            map::PLIC => c.plic.load(offset, size)?,
            map::UART => c.uart.load(offset, size)?,
            _ if size != 8 => return Err(BusFault::Width { addr, size }),
            map::MAILBOX => {
                let v = c.mailbox.load(offset).ok_or(BusFault::Unmapped(addr))?;
                c.update_mailbox_line();
                v
            }
            _ => {
                let core = usize::try_from(offset / map::NPU_STRIDE).expect("at most 8 cores");
                self.npu.load(now, core, offset % map::NPU_STRIDE).ok_or(BusFault::Unmapped(addr))?
            }
        };
        self.chip.lines_changed = true;
        Ok((value, now + self.chip.fabric_latency * 2))
    }

    fn mmio_store(
        &mut self,
        now: Time,
        hart: usize,
        addr: u64,
        size: u8,
        value: u64,
    ) -> Result<Time, BusFault> {
        let (window, offset) = Self::device(addr).ok_or(BusFault::Unmapped(addr))?;
        let c = &mut self.chip;
        match window {
            map::CLINT => c.clint.store(now, offset, size, value)?,
            map::PLIC => c.plic.store(offset, size, value)?,
            map::UART => {
                c.uart.store(offset, size, value)?;
                let text = c.uart.take_output();
                c.console.extend(text);
            }
            _ if size != 8 => return Err(BusFault::Width { addr, size }),
            map::MAILBOX if !c.mailbox.store(now, offset, value) => return Err(BusFault::Unmapped(addr)),
            map::MAILBOX if offset == map::mailbox::TOKEN_OUT => c.observe_logits(),
            map::MAILBOX if offset == map::mailbox::EMBEDDING => c.observe_embedding(),
            map::MAILBOX => {}
            _ => {
                let core = usize::try_from(offset / map::NPU_STRIDE).expect("at most 8 cores");
                let register = offset % map::NPU_STRIDE;
                if let Some(o) = &mut self.chip.observer {
                    match register {
                        isa::npu::registers::QTAIL => o.doorbell(now, hart, core),
                        isa::npu::registers::IRQ_ACK => o.acknowledged(now, hart, core),
                        _ => {}
                    }
                }
                if !self.npu.store(now, core, register, value, &mut self.chip) {
                    return Err(BusFault::Unmapped(addr));
                }
                self.chip.doorbells += u64::from(register == isa::npu::registers::QTAIL);
            }
        }
        self.chip.lines_changed = true;
        Ok(now + self.chip.fabric_latency)
    }

    fn interrupt_lines(&mut self, now: Time, hart: usize) -> InterruptLines {
        self.chip.lines(now, hart)
    }

    fn mtime(&mut self, now: Time) -> u64 {
        self.chip.clint.mtime(now)
    }
}

/// Most values of an encoder's result that are looked at.
const MOST_VALUES: u64 = 1 << 20;

/// Natural logarithm of a token's softmax over little-endian fp32 logits.
fn log_probability(logits: &[u8], token: u32) -> Option<f64> {
    let value = |b: &[u8; 4]| f64::from(f32::from_le_bytes(*b));
    let (all, _) = logits.as_chunks::<4>();
    let chosen = value(all.get(usize::try_from(token).ok()?)?);
    let most = all.iter().map(value).fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = all.iter().map(|b| libm::exp(value(b) - most)).sum();
    Some(chosen - most - libm::log(sum))
}

/// Bytes as the kernel's quantity.
pub(super) const fn bytes(n: u64) -> Bytes {
    Bytes::new(n)
}
