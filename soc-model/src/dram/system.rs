//! The memory as the SoC sees it: bulk flows and CPU lines over interleaved channels, at the speed a sampled
//! exact engine gives the present set of flows.
//!
//! ```text
//! start_flow ─► per-channel sub-flows ─► equal shares of the channel's sampled capacity ─► finish_until
//! access_line ─► steals its service time from the flows of one channel, returns its completion
//! ```
//!
//! Models: interleave, grants, max-min sharing under caps, urgent lines, refresh and bank conflicts (by sampling).
//! Does not model: order within a flow, differences between occurrences of the same number of reads and writes.
//! Source: our own; the error against the exact engine is asserted in tests/dram_sampled.rs.

use super::config::{DramConfig, LINE_BYTES, MemoryStats};
use super::interleave::{Interleave, burst_span};
use super::noise::{MOST_AT_ONCE, Noise};
use super::sample::{KEPT_RUNS, Measured, Sampler};
use super::share::{NOISE, Sub, UNITS_PER_BYTE, part_of};
use super::{BANKS, BURST_BYTES, Timings};
use sim_kernel::Time;
use sim_kernel::units::FS_PER_S;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

mod progress;

/// Most reads or writes told apart in a channel's load.
const MOST_FLOWS: usize = 31;
/// Steps of shortness of a channel's contiguous pieces against the grant.
const SHORTNESS: usize = 4;

/// How urgent a flow is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Qos {
    /// Shares what urgent flows leave.
    Bulk,
    /// Served first, up to 15/16 of a channel.
    Urgent,
}

/// A bulk transfer as it is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Transfer<'a> {
    /// Contiguous (offset, bytes) runs.
    pub runs: &'a [(u64, u64)],
    /// Write, or read.
    pub write: bool,
    /// How urgent.
    pub qos: Qos,
    /// Weight among those that are not urgent.
    pub weight: u32,
    /// Whom its bytes are counted for.
    pub client: u16,
    /// Most bytes a second the requester can take or give.
    pub cap: u64,
}

/// A bulk transfer under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowId(u64);

impl FlowId {
    pub(super) const fn new(id: u64) -> Self {
        Self(id)
    }
}

#[derive(Clone, Debug)]
struct Flow {
    id: u64,
    write: bool,
    urgent: bool,
    cap: u64,
    /// Bytes of all bursts.
    work: u64,
    shortness: usize,
    runs: Vec<(u64, u64)>,
    kept_bytes: u64,
    pending: u32,
    /// Shares still being served, some of them for a flow that has ended.
    parts: u32,
    end: u64,
}

/// What must be found again before a channel's time goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stale {
    Nothing,
    /// The next end.
    Next,
    /// The load and everything that follows from it.
    Load,
}

#[derive(Clone, Debug)]
struct Channel {
    subs: Vec<Sub>,
    /// Femtosecond up to which the sub-flows have been served.
    at: u64,
    /// Service time CPU lines have taken and flows have not yet paid.
    debt: u64,
    stale: Stale,
    /// Of its sub-flows without noise: those that read, those that write, and the sum of their steps of shortness.
    reads: usize,
    writes: usize,
    short: usize,
    /// Earliest end of a sub-flow; `u64::MAX` without any.
    next: u64,
    /// When the load is looked at again although no flow comes or goes.
    resample: u64,
    entry: usize,
    /// Work done since it was last booked, and what all its sub-flows do a femtosecond.
    served: u128,
    rate: u64,
    activates_scaled: u128,
    busy: u64,
    line_free: u64,
    rows: [u32; BANKS],
    bank_free: [u64; BANKS],
}

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    sums: Measured,
    samples: u64,
    /// Time all channels together have spent under this load, and how much of it makes the next sample due.
    exposure_fs: u64,
    next_exposure: u64,
    bytes_per_s: u64,
    /// Activates per byte, times 2^20.
    activates_scaled: u64,
    line_fs: u64,
    /// Time a line takes from the flows.
    line_cost_fs: u64,
}

/// Samples of a load that all measure the latency of lines too; later only every fourth does.
const ALWAYS_PROBED: u64 = 24;
/// The next sample of a load is due when the time under it has grown by one part in so many, and by so many refresh
/// intervals at least, all channels together.
const GROWTH: u64 = 8;
const LEAST_STEP: u64 = 2;
/// A load under which less than one part in so many of all time is spent is not sampled for it.
const LEAST_SHARE: u64 = 512;
const NO_ENTRY: u16 = u16::MAX;
const NO_ROW: u32 = u32::MAX;

/// The memory of the chip.
#[derive(Clone, Debug)]
pub struct MemorySystem {
    cfg: DramConfig,
    il: Interleave,
    sampler: Sampler,
    ck_hz: u64,
    timings: Timings,
    flows: Vec<Flow>,
    free: Vec<u32>,
    live: u32,
    next_id: u64,
    channels: Vec<Channel>,
    index: Vec<u16>,
    entries: Vec<Entry>,
    /// Time all channels together have spent under any load.
    exposure_fs: u64,
    finished: BinaryHeap<Reverse<(u64, u64)>>,
    read_latency: u64,
    write_latency: u64,
    refresh_fs: u64,
    refresh_carry: (u64, u64),
    noise: Option<Noise>,
    /// What a flow's weight is multiplied with beside noise that shares.
    turn: u32,
    /// Bytes of flows' parts that are over, by client.
    served: Vec<u64>,
    /// What an equal share has left at its last turn of a whole grant, by flows in turns.
    last_turns: Vec<u128>,
    stats: MemoryStats,
}

impl MemorySystem {
    /// An idle memory; `seed` picks the addresses samples continue at when a flow ends within one.
    ///
    /// # Panics
    /// If the configuration does not validate.
    #[must_use]
    pub fn new(cfg: DramConfig, seed: u64) -> Self {
        if let Err(errors) = cfg.validate() {
            panic!("an invalid memory configuration was built: {errors:?}");
        }
        let (il, timings) = (cfg.interleave(), cfg.timings());
        let map = cfg.channel_map().expect("validated");
        let capacity = cfg.capacity.get();
        let sampler = Sampler::new(timings, cfg.controller, map, il, cfg.grant_bytes, capacity, seed);
        let channel = Channel {
            subs: Vec::with_capacity(32),
            at: 0,
            debt: 0,
            stale: Stale::Nothing,
            reads: 0,
            writes: 0,
            short: 0,
            next: u64::MAX,
            resample: u64::MAX,
            entry: 0,
            served: 0,
            rate: 0,
            activates_scaled: 0,
            busy: 0,
            line_free: 0,
            rows: [NO_ROW; BANKS],
            bank_free: [0; BANKS],
        };
        let channels = vec![channel; cfg.channels as usize];
        let stats = MemoryStats { busy: vec![Time::ZERO; channels.len()], ..MemoryStats::default() };
        let mut system = Self {
            cfg,
            il,
            sampler,
            ck_hz: 0,
            timings,
            flows: Vec::new(),
            free: Vec::new(),
            live: 0,
            next_id: 0,
            channels,
            index: Vec::new(),
            entries: Vec::new(),
            exposure_fs: 0,
            finished: BinaryHeap::new(),
            read_latency: 0,
            write_latency: 0,
            refresh_fs: 0,
            refresh_carry: (0, 0),
            noise: None,
            turn: 1,
            served: Vec::new(),
            last_turns: Vec::new(),
            stats,
        };
        system.retime();
        system
    }

    /// The same with noise from now on.
    #[must_use]
    pub fn with_noise(mut self, noise: Noise) -> Self {
        (self.noise, self.sampler.noise) = (Some(noise), Some(noise));
        self.count_for(noise.client);
        let cap = (noise.bytes_per_s / self.il.channels).max(1);
        let (client, urgent) = (noise.client, noise.urgent);
        // Shares follow what moves in a turn: of noise as many lines as can be late, of a flow a grant.
        let lines = (self.cfg.grant_bytes / LINE_BYTES).clamp(1, 1 << 16);
        self.turn = u32::try_from(if urgent { 1 } else { lines }).expect("clamped");
        let own = u32::try_from(lines.min(MOST_AT_ONCE)).expect("clamped");
        let weight = noise.weight.saturating_mul(if urgent { 1 } else { own });
        let (total, remaining) = (0, u128::MAX);
        for c in &mut self.channels {
            let write = false;
            c.subs.push(Sub {
                flow: NOISE,
                client,
                weight,
                write,
                urgent,
                fixed: false,
                cap,
                rate: 0,
                total,
                remaining,
                last_turn: None,
            });
            c.stale = Stale::Load;
        }
        self
    }

    /// Bytes a client's flows, or the noise, have been served up to the last advance, in whole bursts.
    #[must_use]
    pub fn served(&self, client: u16) -> u64 {
        let live = self.channels.iter().flat_map(|c| &c.subs).filter(|s| s.client == client).map(Sub::served);
        self.served.get(usize::from(client)).copied().unwrap_or(0) + live.sum::<u64>()
    }

    /// The same of the first clients.
    pub fn served_into(&self, out: &mut [u64]) {
        out.fill(0);
        let known = self.served.len().min(out.len());
        out[..known].copy_from_slice(&self.served[..known]);
        for s in self.channels.iter().flat_map(|c| &c.subs) {
            if let Some(bytes) = out.get_mut(usize::from(s.client)) {
                *bytes += s.served();
            }
        }
    }

    fn count_for(&mut self, client: u16) {
        if self.served.len() <= usize::from(client) {
            self.served.resize(usize::from(client) + 1, 0);
        }
    }

    fn retime(&mut self) {
        self.ck_hz = self.cfg.ck_hz();
        self.sampler.hertz = self.ck_hz;
        self.timings = self.cfg.timings();
        self.sampler.timings = self.timings;
        let t = self.timings;
        self.read_latency = self.cfg.unloaded_read_latency().get();
        // A write is done when taken.
        self.write_latency = self.fs(1);
        self.refresh_fs = self.fs(t.refi);
        self.entries.clear();
        self.index.clear();
        self.index.resize((MOST_FLOWS + 1) * (MOST_FLOWS + 1) * SHORTNESS, NO_ENTRY);
        for c in &mut self.channels {
            c.stale = if c.subs.is_empty() { Stale::Nothing } else { Stale::Load };
        }
    }

    /// Femtoseconds of `ck` command clocks.
    fn fs(&self, ck: u64) -> u64 {
        let fs = u128::from(ck) * u128::from(FS_PER_S) / u128::from(self.ck_hz);
        u64::try_from(fs).expect("a constraint is far below the range of time")
    }

    /// The parameters.
    #[must_use]
    pub fn config(&self) -> &DramConfig {
        &self.cfg
    }

    /// Pin bandwidth of all channels in bytes a second.
    #[must_use]
    pub fn peak_bytes_per_s(&self) -> u64 {
        self.cfg.peak_bytes_per_s()
    }

    /// Latency of a read that finds another row open in its bank and the channel idle.
    pub fn unloaded_read_latency(&self) -> Time {
        Time::new(self.read_latency)
    }

    /// No flow is under way or finished and not yet taken.
    #[must_use]
    pub fn quiescent(&self) -> bool {
        self.live == 0 && self.finished.is_empty()
    }

    /// Flows under way.
    #[must_use]
    pub fn flows(&self) -> u32 {
        self.live
    }

    /// Changes the clock at `now`; flows under way continue at the new speed.
    pub fn set_frequency_permille(&mut self, now: Time, permille: u32) {
        self.advance(now.get());
        for index in 0..self.channels.len() {
            self.book(index);
        }
        self.cfg.frequency_permille = permille.clamp(100, 1500);
        self.retime();
    }

    /// Starts a bulk transfer of contiguous (offset, bytes) runs; `cap` is the most bytes a second the
    /// requester can take or give.
    pub fn start_flow(&mut self, now: Time, runs: &[(u64, u64)], write: bool, qos: Qos, cap: u64) -> FlowId {
        self.start(now, &Transfer { runs, write, qos, weight: 1, client: 0, cap })
    }

    /// Changes the most bytes a second the requester of a flow under way can take or give.
    pub fn set_cap(&mut self, now: Time, id: FlowId, cap: u64) {
        self.advance(now.get());
        let Some(slot) = self.flows.iter().position(|f| f.pending > 0 && f.id == id.0) else { return };
        let (cap, work) = (cap.max(1), self.flows[slot].work);
        if self.flows[slot].cap == cap {
            return;
        }
        self.flows[slot].cap = cap;
        for c in &mut self.channels {
            for s in c.subs.iter_mut().filter(|s| s.flow as usize == slot) {
                s.cap = part_of(cap, s.total, work);
                c.stale = Stale::Load;
            }
        }
    }

    /// Starts a bulk transfer of a client.
    pub fn start(&mut self, now: Time, transfer: &Transfer<'_>) -> FlowId {
        let Transfer { runs, write, qos, weight, client, cap } = *transfer;
        self.advance(now.get());
        self.count_for(client);
        let id = self.next_id;
        self.next_id += 1;
        let slot = self.take_slot();
        let urgent = qos == Qos::Urgent;
        let (mut asked, mut work, mut pieces) = (0u64, 0u64, 0u64);
        for &run in runs {
            let (a, b) = burst_span(run);
            asked += run.1;
            work += b - a;
            pieces += self.pieces(b - a);
        }
        self.account(asked, work, write);
        let cap = cap.max(1);
        let shortness = self.shortness(work, pieces);
        let mut pending = 0;
        for index in 0..self.channels.len() {
            let total = self.channel_bytes(index as u64, runs);
            if total == 0 {
                continue;
            }
            pending += 1;
            let channel = &mut self.channels[index];
            channel.stale = Stale::Load;
            channel.reads += usize::from(!write);
            channel.writes += usize::from(write);
            channel.short += shortness;
            channel.subs.push(Sub {
                flow: slot,
                client,
                weight: weight.max(1).saturating_mul(self.turn),
                write,
                urgent,
                fixed: false,
                cap: part_of(cap, total, work),
                rate: 0,
                total,
                remaining: u128::from(total) * UNITS_PER_BYTE,
                last_turn: Some(0),
            });
        }
        let flow = &mut self.flows[slot as usize];
        (flow.id, flow.write, flow.urgent, flow.cap) = (id, write, urgent, cap);
        (flow.shortness, flow.pending, flow.parts, flow.end) = (shortness, pending, pending, now.get());
        flow.work = work;
        flow.runs.clear();
        flow.runs.extend_from_slice(&runs[..runs.len().min(KEPT_RUNS)]);
        flow.kept_bytes = flow.runs.iter().map(|r| r.1).sum();
        self.live += 1;
        if pending == 0 {
            self.retire(slot);
        }
        FlowId(id)
    }

    fn account(&mut self, asked: u64, work: u64, write: bool) {
        let s = &mut self.stats;
        s.npu.requests += 1;
        if write {
            s.npu.write_bytes += asked;
            s.write_bursts += work / BURST_BYTES;
        } else {
            s.npu.read_bytes += asked;
            s.read_bursts += work / BURST_BYTES;
        }
    }

    fn channel_bytes(&self, channel: u64, runs: &[(u64, u64)]) -> u64 {
        runs.iter()
            .map(|&run| {
                let (a, b) = burst_span(run);
                self.il.below(b, channel) - self.il.below(a, channel)
            })
            .sum()
    }

    /// Contiguous channel-local pieces of a run, all channels together.
    fn pieces(&self, bytes: u64) -> u64 {
        bytes.div_ceil(self.il.bytes).min(self.il.channels)
    }

    /// 0 where pieces are as long as a grant, up to 3 where they are an eighth of it or less.
    fn shortness(&self, bytes: u64, pieces: u64) -> usize {
        let mean = (bytes / pieces.max(1)).max(1);
        (1..SHORTNESS as u64).take_while(|s| mean << s <= self.cfg.grant_bytes).count()
    }

    fn take_slot(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            self.flows.push(Flow {
                id: 0,
                write: false,
                urgent: false,
                cap: 0,
                work: 0,
                shortness: 0,
                runs: Vec::with_capacity(KEPT_RUNS),
                kept_bytes: 0,
                pending: 0,
                parts: 0,
                end: 0,
            });
            u32::try_from(self.flows.len() - 1).expect("few flows at a time")
        })
    }

    fn retire(&mut self, slot: u32) {
        let flow = &self.flows[slot as usize];
        let latency = if flow.write { self.write_latency } else { self.read_latency };
        self.finished.push(Reverse((flow.end + latency, flow.id)));
        self.live -= 1;
        self.release(slot);
    }

    /// Frees the slot of a flow that has ended and whose shares are all served.
    fn release(&mut self, slot: u32) {
        let flow = &self.flows[slot as usize];
        if flow.pending == 0 && flow.parts == 0 {
            self.free.push(slot);
        }
    }

    /// One 64-byte line of a CPU: when a read's data is back, or a write is taken.
    ///
    /// The line cuts in at its channel: flows there lose the service time it takes.
    pub fn access_line(&mut self, now: Time, offset: u64, write: bool) -> Time {
        let (index, local) = self.il.split(offset);
        let index = usize::try_from(index).expect("a channel number");
        self.refresh(index);
        let t = self.timings;
        let place = self.sampler.map.place(local);
        let bank = usize::from(place.bank);
        let open = self.channels[index].rows[bank];
        // Flows that will be gone by `now` do not delay a line, nor it them.
        let loaded = !self.channels[index].subs.is_empty() && self.channels[index].next > now.get();
        let hit = open == place.row;
        let (opening, slots) = match (hit, open == NO_ROW) {
            (true, _) => (0, 2 * t.ccd_s),
            (false, true) => (t.rcd, 2 * t.ccd_s + 2),
            (false, false) => (t.rp_pb + t.rcd, 2 * t.ccd_s + 2),
        };
        let unloaded = self.fs(1 + opening + t.read_latency() + t.ccd_l);
        let (service, cycle) = (self.fs(slots), self.fs(t.rc));
        let (loaded_fs, cost) = if loaded {
            let entry = &self.entries[self.channels[index].entry];
            (entry.line_fs, service.max(entry.line_cost_fs))
        } else {
            (0, service)
        };
        let channel = &mut self.channels[index];
        let mut start = now.get().max(channel.line_free);
        if !hit {
            start = start.max(channel.bank_free[bank]);
            channel.bank_free[bank] = start + cycle;
            self.stats.activates += 1;
            self.stats.line_activates += 1;
        }
        channel.rows[bank] = place.row;
        channel.line_free = channel.line_free.max(now.get()) + service;
        if loaded {
            channel.debt += cost;
            channel.next = channel.next.saturating_add(cost);
        }
        let latency = if loaded { loaded_fs.max(unloaded) } else { unloaded };
        if !loaded {
            channel.busy += service;
            self.stats.busy[index] += Time::new(service);
        }
        let done = start + latency;
        self.stats.line_wait += Time::new(done - now.get() - unloaded);
        self.stats.cpu.requests += 1;
        if write {
            self.stats.cpu.write_bytes += LINE_BYTES;
            self.stats.write_bursts += LINE_BYTES / BURST_BYTES;
            let buffered = u64::from(self.cfg.controller.write_buffer) / 2 * service;
            return Time::new(start.saturating_sub(buffered).max(now.get()) + self.write_latency);
        }
        self.stats.cpu.read_bytes += LINE_BYTES;
        self.stats.read_bursts += LINE_BYTES / BURST_BYTES;
        Time::new(done)
    }

    /// No flow completes before this time, given the present flows: call `finish_until` then. (It is the exact
    /// completion unless channels finish their parts of a flow at different times.) `None` without flows.
    #[must_use]
    pub fn next_completion(&mut self) -> Option<Time> {
        let mut next = self.finished.peek().map_or(u64::MAX, |r| r.0.0);
        let latency = self.read_latency.min(self.write_latency);
        for index in 0..self.channels.len() {
            self.refresh(index);
            next = next.min(self.channels[index].next.saturating_add(latency));
        }
        (next != u64::MAX).then(|| Time::new(next))
    }

    /// Advances to `now` and appends the flows finished by then, in (time, id) order.
    pub fn finish_into(&mut self, now: Time, out: &mut Vec<(Time, FlowId)>) {
        self.advance(now.get());
        while let Some(&Reverse((at, id))) = self.finished.peek() {
            if at > now.get() {
                break;
            }
            self.finished.pop();
            out.push((Time::new(at), FlowId(id)));
        }
    }

    /// Advances to `now` and takes the flows finished by then, in (time, id) order.
    pub fn finish_until(&mut self, now: Time) -> Vec<(Time, FlowId)> {
        let mut out = Vec::new();
        self.finish_into(now, &mut out);
        out
    }

    /// What has been done up to the last advance.
    #[must_use]
    pub fn stats(&self) -> &MemoryStats {
        &self.stats
    }
}
