//! The fabric: from masters over links to the memory channels, and what each master had to wait for.
//!
//! ```text
//! NPU core ports ─► NPU link ─┐                      ┌─► channel
//! CPU ports ─► L3 ─► CPU link ┴─► (system cache) ────┼─► channel
//!                                 noise ─────────────┴─► ...
//! ```
//!
//! Models: contended links, bandwidth limits of clients, classes by weight, a system cache, who waited for whom,
//! traffic by content.
//! Does not model: a transfer held up by a busy channel gives the link time it cannot use back only when the set of
//! transfers changes; noise crosses neither the CPU's link nor the system cache; hits of a transfer take their time
//! beside its misses.
//! Source: `network` (max-min shares), `channels` (memory), `alone` (what a transfer would get by itself).

mod alone;
mod channels;
pub mod contention;
pub mod network;
pub mod slc;

use sim_kernel::Time;
use sim_kernel::units::FS_PER_S;

use crate::dram::config::LINE_BYTES;
use crate::dram::interleave::burst_span;
use crate::dram::{DramConfig, FlowId, MemoryStats, Noise, Qos, Transfer};
use alone::Alone;
use channels::Channels;
pub use channels::MemoryTiming;
pub use contention::{Contention, Held};
use network::{Demand, MOST_CROSSED, Queue, fill};
use slc::SystemCache;
pub use slc::{Hint, SlcParameters, SlcUse};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Femtoseconds after which losses of lines and noise are split among those who moved bytes.
const WINDOW: u64 = 10_000_000_000;

/// Who uses memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// All harts, through the shared cache.
    Cpu,
    /// Synthetic noise.
    Noise,
    /// An NPU core's loads and command fetches.
    NpuIn(usize),
    /// An NPU core's stores.
    NpuOut(usize),
}

impl Client {
    /// Its number.
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::Cpu => 0,
            Self::Noise => 1,
            Self::NpuIn(core) => 2 + 2 * core,
            Self::NpuOut(core) => 3 + 2 * core,
        }
    }

    /// Name in reports of client number `index`.
    #[must_use]
    pub fn name(index: usize) -> String {
        match index {
            0 => "cpu".to_owned(),
            1 => "cpu_noise".to_owned(),
            n if n % 2 == 0 => format!("npu{}_in", n / 2 - 1),
            n => format!("npu{}_out", n / 2 - 1),
        }
    }
}

/// Class of a transfer, as the DMA command's `qos` field codes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Class {
    /// Whatever can wait.
    Background,
    /// What is fetched ahead.
    Prefetch,
    /// What is needed.
    Normal,
    /// What cannot wait: served before the others, up to 15/16 of a channel or link.
    Urgent,
}

impl Class {
    /// The class of a 2-bit code.
    #[must_use]
    pub const fn of_code(code: u64) -> Self {
        match code & 3 {
            0 => Self::Background,
            1 => Self::Prefetch,
            2 => Self::Normal,
            _ => Self::Urgent,
        }
    }
}

/// What a transfer carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Content {
    /// Weights and their scales.
    Weights,
    /// Keys and values.
    Kv,
    /// Activations, logits and everything else DMA moves.
    Activations,
    /// NPU commands.
    Commands,
    /// Lines of harts.
    Cpu,
    /// Synthetic noise.
    Noise,
    /// Dirty lines the system cache writes back.
    WriteBack,
}

impl Content {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Weights, Self::Kv, Self::Activations, Self::Commands, Self::Cpu, Self::Noise, Self::WriteBack];

    /// Name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Weights => "weights",
            Self::Kv => "kv",
            Self::Activations => "activations",
            Self::Commands => "commands",
            Self::Cpu => "cpu",
            Self::Noise => "cpu_noise",
            Self::WriteBack => "slc_write_backs",
        }
    }
}

/// Parameters of the fabric, in integers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FabricParameters {
    /// NPU cores.
    pub cores: usize,
    /// CPU clusters.
    pub clusters: usize,
    /// Bytes a second of each NPU core's port, each way.
    pub npu_port: u64,
    /// Bytes a second of the NPU's link to memory, each way.
    pub npu_link: u64,
    /// Bytes a second of each CPU cluster's port at the shared cache, each way.
    pub cpu_port: u64,
    /// Bytes a second of the shared cache's link to memory, each way.
    pub cpu_link: u64,
    /// Time of one beat on any of them.
    pub beat: Time,
    /// Most bytes a second of the NPU, both ways together.
    pub npu_limit: Option<u64>,
    /// Most bytes a second of the CPUs, both ways together.
    pub cpu_limit: Option<u64>,
    /// Weights of the classes below urgent.
    pub weights: [u32; 3],
    /// Noise: bytes a second and class.
    pub noise: Option<(u64, Class)>,
    /// System cache.
    pub slc: Option<SlcParameters>,
}

/// A bulk transfer as a master asks for it.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Who asks.
    pub client: Client,
    /// Class.
    pub class: Class,
    /// What becomes of lines the system cache does not have.
    pub hint: Hint,
    /// What it carries.
    pub content: Content,
    /// Contiguous (offset in memory, bytes) runs.
    pub runs: &'a [(u64, u64)],
    /// Write to memory.
    pub write: bool,
    /// Most bytes a second the requester can move.
    pub cap: u64,
}

/// Bytes asked for, by what they carry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Read.
    pub read: u64,
    /// Written.
    pub write: u64,
}

impl Asked {
    const fn add(&mut self, bytes: u64, write: bool) {
        if write {
            self.write += bytes;
        } else {
            self.read += bytes;
        }
    }

    /// What was asked beyond `earlier`.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Self {
        Self { read: self.read - earlier.read, write: self.write - earlier.write }
    }

    /// Both ways together.
    #[must_use]
    pub const fn total(self) -> u64 {
        self.read + self.write
    }
}

/// What the fabric has done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FabricStats {
    /// Bytes masters asked for by content, in the order of [`Content::ALL`].
    pub asked: [Asked; Content::ALL.len()],
    /// Of these, bytes the channels moved.
    pub moved: [Asked; Content::ALL.len()],
    /// Who waited for whom.
    pub contention: Contention,
    /// What clients had of the system cache; empty without one.
    pub slc: Vec<SlcUse>,
}

impl FabricStats {
    /// Of a fabric that has done nothing yet.
    #[must_use]
    pub fn new(clients: usize) -> Self {
        let none = [Asked::default(); Content::ALL.len()];
        Self { asked: none, moved: none, contention: Contention::new(clients), slc: Vec::new() }
    }
}

/// A transfer of the fabric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TransferId(u64);

/// A transfer under way.
#[derive(Clone, Debug)]
struct Live {
    id: TransferId,
    /// Its part from memory, unless the system cache had all of it.
    memory: Option<FlowId>,
    /// When its hits are there.
    hits: u64,
    client: usize,
    start: u64,
    alone: u64,
    /// Its own bytes, in whole bursts.
    bytes: u64,
    demand: Demand,
    rate: u64,
    held: bool,
    /// Femtoseconds a contended link took from it, and since when that is counted.
    link_lost: u64,
    since: u64,
    served: Vec<u64>,
}

/// Links, limits and memory channels.
pub struct Fabric {
    cfg: FabricParameters,
    memory: Channels,
    alone: Alone,
    /// Bytes a second of the links transfers share.
    links: Vec<u64>,
    /// Links that can bound transfers at all: narrower than what lies behind them.
    bounding: bool,
    cpu_ports: Vec<[Queue; 2]>,
    cpu_link: [Queue; 2],
    cpu_limit: Option<Queue>,
    slc: Option<SystemCache>,
    /// Until when hits keep the system cache busy.
    slc_free: u64,
    /// Write-backs under way.
    posted: Vec<FlowId>,
    next_id: u64,
    done: BinaryHeap<Reverse<(u64, u64)>>,
    ended: Vec<(Time, FlowId)>,
    missed: Vec<(u64, u64)>,
    back: Vec<(u64, u64)>,
    live: Vec<Live>,
    pool: Vec<Vec<u64>>,
    window: Window,
    stats: FabricStats,
    rates: Vec<u64>,
    held: Vec<bool>,
    demands: Vec<Demand>,
}

/// What lines and noise have lost since losses were last split.
#[derive(Clone, Debug)]
struct Window {
    from: u64,
    lines: u64,
    link: u64,
    noise_from: u64,
    served: Vec<u64>,
}

impl Fabric {
    /// An idle fabric in front of idle channels.
    #[must_use]
    pub fn new(cfg: FabricParameters, dram: DramConfig, timing: MemoryTiming, seed: u64) -> Self {
        let noise = cfg.noise.map(|(bytes_per_s, class)| Noise {
            bytes_per_s: bytes_per_s.min(cfg.cpu_limit.unwrap_or(u64::MAX)),
            urgent: class == Class::Urgent,
            weight: weight(&cfg, class),
            client: narrow(Client::Noise.index()),
            seed,
        });
        let alone = Alone::new(&dram, seed);
        let peak = dram.peak_bytes_per_s();
        let memory = Channels::new(timing, dram, seed, noise);
        let mut links = vec![cfg.npu_port; 2 * cfg.cores];
        links.extend([cfg.npu_link, cfg.npu_link, cfg.npu_limit.unwrap_or(u64::MAX / 64)]);
        let bounding = links.iter().any(|l| *l < peak);
        let clients = Client::NpuIn(cfg.cores).index();
        let queue = |rate| Queue::new(LINE_BYTES, rate, cfg.beat);
        Self {
            cpu_ports: vec![[queue(cfg.cpu_port); 2]; cfg.clusters],
            cpu_link: [queue(cfg.cpu_link); 2],
            cpu_limit: cfg.cpu_limit.map(|rate| Queue::new(LINE_BYTES, rate, Time::new(u64::MAX))),
            slc: cfg.slc.map(|p| SystemCache::new(p, clients)),
            slc_free: 0,
            posted: Vec::new(),
            next_id: 0,
            done: BinaryHeap::new(),
            ended: Vec::new(),
            missed: Vec::new(),
            back: Vec::new(),
            memory,
            alone,
            links,
            bounding,
            live: Vec::new(),
            pool: Vec::new(),
            window: Window { from: 0, lines: 0, link: 0, noise_from: 0, served: vec![0; clients] },
            stats: FabricStats::new(clients),
            rates: Vec::new(),
            held: Vec::new(),
            demands: Vec::new(),
            cfg,
        }
    }

    /// The memory's parameters.
    #[must_use]
    pub fn dram(&self) -> &DramConfig {
        self.memory.config()
    }

    /// What the channels have done.
    #[must_use]
    pub fn memory_stats(&self) -> &MemoryStats {
        self.memory.stats()
    }

    /// What the fabric has done, up to the last [`Fabric::settle`].
    #[must_use]
    pub const fn stats(&self) -> &FabricStats {
        &self.stats
    }

    /// Clients there are.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.window.served.len()
    }

    /// Nothing is under way.
    #[must_use]
    pub fn quiescent(&self) -> bool {
        self.memory.quiescent() && self.done.is_empty()
    }

    /// Starts a transfer.
    ///
    /// # Panics
    /// If a client asks that has no DMA.
    pub fn start_flow(&mut self, now: Time, r: &Request<'_>) -> TransferId {
        let client = r.client.index();
        let way = usize::from(r.write);
        let core = match r.client {
            Client::NpuIn(c) | Client::NpuOut(c) => c,
            Client::Cpu | Client::Noise => panic!("harts ask for lines, not for transfers"),
        };
        let npu = 2 * self.cfg.cores;
        let limit = self.cfg.npu_limit.map(|_| npu + 2);
        let crosses: [Option<usize>; MOST_CROSSED] = [Some(2 * core + way), Some(npu + way), limit];
        let widest = crosses.iter().flatten().map(|l| self.links[*l]).min().unwrap_or(u64::MAX);
        let cap = r.cap.min(widest).max(1);
        let (weight, urgent) = (weight(&self.cfg, r.class), r.class == Class::Urgent);
        let bytes: u64 = r.runs.iter().map(|run| run.1).sum();
        self.stats.asked[r.content as usize].add(bytes, r.write);
        let (hit, latency) = self.look_up(now, client, r);
        let runs = core::mem::take(&mut self.missed);
        let runs_left: &[(u64, u64)] = if self.slc.is_some() { &runs } else { r.runs };
        self.stats.moved[r.content as usize].add(bytes - hit, r.write);
        let bursts: u64 = runs_left.iter().map(|&run| burst_span(run)).map(|(a, b)| b - a).sum();
        let qos = if urgent { Qos::Urgent } else { Qos::Bulk };
        let transfer = Transfer { runs: runs_left, write: r.write, qos, weight, client: narrow(client), cap };
        let alone = self.alone.femtoseconds(runs_left, r.write, cap);
        let own = self.slc.as_ref().map_or(0, |c| time_of(hit, cap.min(c.parameters().bytes_per_s)));
        let memory = (bursts > 0 || hit == 0).then(|| self.memory.start(now, &transfer));
        let hits = now.get() + own.max((self.slc_free.saturating_sub(now.get())) * u64::from(hit > 0));
        if let Some(cache) = &mut self.slc {
            let (from, to) = (client * self.window.served.len(), (client + 1) * self.window.served.len());
            let blamed = &mut cache.evicted_bytes[from..to];
            let again: u64 = blamed.iter().sum();
            if again > 0 {
                let lost = u128::from(alone) * u128::from(again.min(bursts)) / u128::from(bursts.max(1));
                let lost = u64::try_from(lost).expect("part of a time").saturating_sub(time_of(again, cap));
                self.stats.contention.lose(Held::Cache, client, lost, blamed);
                blamed.fill(0);
            }
        }
        self.missed = runs;
        let id = TransferId(self.next_id);
        self.next_id += 1;
        let mut served = self.pool.pop().unwrap_or_default();
        self.served_into(&mut served);
        let alone = if memory.is_some() { alone.max(own) } else { own } + latency;
        self.live.push(Live {
            id,
            memory,
            hits: hits + latency,
            client,
            start: now.get(),
            alone,
            bytes: bursts,
            demand: Demand { cap, weight, urgent, crosses },
            rate: cap,
            held: false,
            link_lost: 0,
            since: now.get(),
            served,
        });
        if memory.is_none() {
            self.done.push(Reverse((hits + latency, id.0)));
        }
        self.share_links(now);
        id
    }

    /// What the system cache has of a transfer, and how long it looked; `missed` gets the rest, and what it writes
    /// back sets off.
    fn look_up(&mut self, now: Time, client: usize, r: &Request<'_>) -> (u64, u64) {
        let Some(cache) = &mut self.slc else { return (0, 0) };
        self.missed.clear();
        self.back.clear();
        let hit = cache.access(client, r.runs, r.write, r.hint, &mut self.missed, &mut self.back);
        let p = *cache.parameters();
        if hit > 0 {
            self.slc_free = self.slc_free.max(now.get()) + time_of(hit, p.bytes_per_s);
        }
        if !self.back.is_empty() {
            let bytes: u64 = self.back.iter().map(|b| b.1).sum();
            self.stats.moved[Content::WriteBack as usize].add(bytes, true);
            let transfer = Transfer {
                runs: &self.back,
                write: true,
                qos: Qos::Bulk,
                weight: self.cfg.weights[0],
                client: narrow(client),
                cap: u64::MAX,
            };
            self.posted.push(self.memory.start(now, &transfer));
        }
        (hit, p.latency.get())
    }

    /// Bytes every client has been served.
    fn served_into(&self, out: &mut Vec<u64>) {
        out.resize(self.clients(), 0);
        self.memory.served_into(out);
        let cpu = &self.memory.stats().cpu;
        out[Client::Cpu.index()] = cpu.read_bytes + cpu.write_bytes;
    }

    /// Shares the links among the transfers under way, where one of them can bound any.
    fn share_links(&mut self, now: Time) {
        if !self.bounding {
            return;
        }
        self.demands.clear();
        self.demands.extend(self.live.iter().map(|l| l.demand));
        fill(&self.demands, &self.links, &mut self.rates, &mut self.held);
        for i in 0..self.live.len() {
            let (rate, held) = (self.rates[i], self.held[i]);
            let l = &mut self.live[i];
            l.book(now.get());
            l.held = held;
            if l.rate != rate {
                l.rate = rate;
                if let Some(id) = l.memory {
                    self.memory.set_cap(now, id, rate);
                }
            }
        }
    }

    /// Nothing will be asked for a time before `now`: what was asked until then need not be kept.
    pub fn catch_up(&mut self, now: Time) {
        self.memory.catch_up(now);
    }

    /// One line of a hart of CPU cluster `cluster`, from behind the shared cache: when a read's data is back, or a
    /// write is taken.
    pub fn access_line(&mut self, now: Time, cluster: usize, offset: u64, write: bool) -> Time {
        let way = usize::from(write);
        self.stats.asked[Content::Cpu as usize].add(LINE_BYTES, write);
        let mut late = self.cpu_ports[cluster][way].send(now) + self.cpu_link[way].send(now);
        if let Some(limit) = &mut self.cpu_limit {
            late += limit.send(now);
        }
        let (done, waited) = self.line_served(now + late, offset, write);
        if !write {
            self.stats.contention.spend(Client::Cpu.index(), done - now);
            self.window.lines += waited.get();
            self.window.link += late.get();
        }
        done
    }

    /// A line from the system cache or memory: when it is there, and what of that it waited for other traffic.
    fn line_served(&mut self, now: Time, offset: u64, write: bool) -> (Time, Time) {
        let cpu = Client::Cpu.index();
        let before = self.memory.stats().line_wait;
        let mut now = now;
        if let Some(cache) = &mut self.slc {
            self.missed.clear();
            self.back.clear();
            let run = [(offset / LINE_BYTES * LINE_BYTES, LINE_BYTES)];
            let hit = cache.access(cpu, &run, write, Hint::Allocate, &mut self.missed, &mut self.back);
            let p = *cache.parameters();
            for &(at, bytes) in &self.back {
                self.stats.moved[Content::WriteBack as usize].add(bytes, true);
                for line in 0..bytes / LINE_BYTES {
                    let _posted = self.memory.access_line(now, at + line * LINE_BYTES, true);
                }
            }
            now += p.latency;
            if hit > 0 {
                let start = now.get().max(self.slc_free);
                self.slc_free = start + time_of(LINE_BYTES, p.bytes_per_s);
                return (Time::new(start), Time::new(start - now.get()));
            }
        }
        self.stats.moved[Content::Cpu as usize].add(LINE_BYTES, write);
        let before = if self.back.is_empty() { before } else { self.memory.stats().line_wait };
        let done = self.memory.access_line(now, offset, write);
        let waited = self.memory.stats().line_wait - before;
        if let Some(cache) = &mut self.slc {
            let clients = self.window.served.len();
            let blamed = &mut cache.evicted_bytes[cpu * clients..(cpu + 1) * clients];
            if !write && blamed.iter().any(|b| *b > 0) {
                let lost = (done - now).saturating_sub(waited).get();
                self.stats.contention.lose(Held::Cache, cpu, lost, blamed);
            }
            blamed.fill(0);
        }
        (done, waited)
    }

    /// A line that the shared cache has, on its way to a hart of `cluster`: what it waits for others at the port.
    pub fn cached_line(&mut self, now: Time, cluster: usize) -> Time {
        self.cpu_ports[cluster][0].send(now)
    }

    /// No transfer completes before this time.
    pub fn next_completion(&mut self) -> Option<Time> {
        let cached = self.done.peek().map(|d| Time::new(d.0.0));
        self.memory.next_completion().into_iter().chain(cached).min()
    }

    /// Advances to `now` and appends the transfers finished by then, in (time, id) order.
    pub fn finish_into(&mut self, now: Time, out: &mut Vec<(Time, TransferId)>) {
        let from = out.len();
        self.ended.clear();
        self.memory.finish_into(now, &mut self.ended);
        let latency = self.slc.as_ref().map_or(0, |c| c.parameters().latency.get());
        for (at, flow) in self.ended.drain(..) {
            match self.live.iter().find(|l| l.memory == Some(flow)) {
                Some(l) => self.done.push(Reverse(((at.get() + latency).max(l.hits), l.id.0))),
                None => {
                    let i = self.posted.iter().position(|p| *p == flow).expect("a write-back");
                    self.posted.swap_remove(i);
                }
            }
        }
        while let Some(&Reverse((at, id))) = self.done.peek().filter(|d| d.0.0 <= now.get()) {
            self.done.pop();
            out.push((Time::new(at), TransferId(id)));
        }
        if from == out.len() {
            return;
        }
        let mut served = self.pool.pop().unwrap_or_default();
        self.served_into(&mut served);
        for (at, id) in &out[from..] {
            let i = self.live.iter().position(|l| l.id == *id).expect("every transfer was started here");
            let mut l = self.live.swap_remove(i);
            l.book(at.get());
            self.stats.contention.spend(l.client, at.saturating_sub(Time::new(l.start)));
            let lost = at.get().saturating_sub(l.start).saturating_sub(l.alone);
            for (before, after) in l.served.iter_mut().zip(&served) {
                *before = after - *before;
            }
            // What its own bytes took is in its time alone.
            l.served[l.client] = l.served[l.client].saturating_sub(l.bytes);
            let link = l.link_lost.min(lost);
            if link > 0 {
                let mut crossing = l.served.clone();
                crossing[..Client::NpuIn(0).index()].fill(0);
                self.stats.contention.lose(Held::Link, l.client, link, &crossing);
            }
            self.stats.contention.lose(Held::Memory, l.client, lost - link, &l.served);
            self.pool.push(l.served);
        }
        self.pool.push(served);
        self.share_links(now);
        if now.get() - self.window.from >= WINDOW {
            self.settle(now);
        }
    }

    /// Splits what lines and noise have lost since the last time.
    pub fn settle(&mut self, now: Time) {
        if let Some(cache) = &self.slc {
            self.stats.slc = cache.uses().to_vec();
        }
        let mut served = self.pool.pop().unwrap_or_default();
        self.served_into(&mut served);
        let mut moved = self.window.served.clone();
        for (before, after) in moved.iter_mut().zip(&served) {
            *before = after - *before;
        }
        let w = &mut self.window;
        let cpu = Client::Cpu.index();
        let (lines, link) = (core::mem::take(&mut w.lines), core::mem::take(&mut w.link));
        self.stats.contention.lose(Held::Memory, cpu, lines, &moved);
        // Only harts cross the CPU's links.
        let mut own = vec![0; moved.len()];
        own[cpu] = 1;
        self.stats.contention.lose(Held::Link, cpu, link, &own);
        if let Some((rate, _)) = self.cfg.noise {
            let (noise, at) = (Client::Noise.index(), self.memory.stats().elapsed.get());
            let elapsed = at.saturating_sub(w.noise_from);
            let wanted = u128::from(rate) * u128::from(elapsed) / u128::from(FS_PER_S);
            let got = u128::from(moved[noise]).min(wanted);
            if let Some(lost) = (u128::from(elapsed) * (wanted - got)).checked_div(wanted) {
                self.stats.contention.spend(noise, Time::new(elapsed));
                let mut others = moved;
                others[noise] = 0;
                let lost = u64::try_from(lost).expect("part of the time elapsed");
                self.stats.contention.lose(Held::Memory, noise, lost, &others);
            }
            w.noise_from = at;
            let read = self.memory.stats().noise_bytes;
            self.stats.asked[Content::Noise as usize].read = read;
            self.stats.moved[Content::Noise as usize].read = read;
        }
        w.from = now.get();
        core::mem::swap(&mut w.served, &mut served);
        self.pool.push(served);
    }
}

impl Live {
    /// Counts what links have taken from it up to `now`.
    fn book(&mut self, now: u64) {
        let span = now.saturating_sub(self.since);
        self.since = now;
        if self.held && self.rate < self.demand.cap {
            let cap = u128::from(self.demand.cap);
            let lost = u128::from(span) * (cap - u128::from(self.rate)) / cap;
            self.link_lost += u64::try_from(lost).expect("part of the span");
        }
    }
}

/// Femtoseconds of `bytes` at a rate.
fn time_of(bytes: u64, per_second: u64) -> u64 {
    let fs = u128::from(bytes) * u128::from(FS_PER_S) / u128::from(per_second.max(1));
    u64::try_from(fs).unwrap_or(u64::MAX / 4)
}

/// Weight of a class among those that share.
fn weight(cfg: &FabricParameters, class: Class) -> u32 {
    match class {
        Class::Background => cfg.weights[0],
        Class::Prefetch => cfg.weights[1],
        // Urgent transfers share among themselves.
        Class::Normal | Class::Urgent => cfg.weights[2],
    }
}

fn narrow(client: usize) -> u16 {
    u16::try_from(client).expect("few clients")
}
