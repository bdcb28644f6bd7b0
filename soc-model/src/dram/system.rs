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
use super::noise::Noise;
use super::sample::{KEPT_RUNS, Measured, Probes, Sampled, Sampler};
use super::share::{NOISE, Sub, UNITS_PER_BYTE, last_turn, share};
use super::{BANKS, BURST_BYTES, Timings};
use sim_kernel::Time;
use sim_kernel::units::FS_PER_S;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

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

#[derive(Clone, Debug)]
struct Channel {
    subs: Vec<Sub>,
    /// Femtosecond up to which the sub-flows have been served.
    at: u64,
    /// Service time CPU lines have taken and flows have not yet paid.
    debt: u64,
    dirty: bool,
    /// Earliest end of a sub-flow; `u64::MAX` without any.
    next: u64,
    /// When the load is looked at again although no flow comes or goes.
    resample: u64,
    entry: usize,
    served: u128,
    activates_scaled: u128,
    busy: u64,
    line_free: u64,
    rows: [u32; BANKS],
    bank_free: [u64; BANKS],
}

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    sums: Measured,
    visits: u64,
    next_sample: u64,
    samples: u64,
    last_visit: u64,
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
const ALWAYS_PROBED: u64 = 32;
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
    finished: BinaryHeap<Reverse<(u64, u64)>>,
    read_latency: u64,
    write_latency: u64,
    refresh_fs: u64,
    refresh_carry: (u64, u64),
    noise: Option<Noise>,
    /// Bytes x fs / s served, by client.
    served: Vec<u128>,
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
            dirty: false,
            next: u64::MAX,
            resample: u64::MAX,
            entry: 0,
            served: 0,
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
            finished: BinaryHeap::new(),
            read_latency: 0,
            write_latency: 0,
            refresh_fs: 0,
            refresh_carry: (0, 0),
            noise: None,
            served: Vec::new(),
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
        let (client, weight, urgent) = (noise.client, noise.weight, noise.urgent);
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
            c.dirty = true;
        }
        self
    }

    /// Bytes a client's flows, or the noise, have been served up to the last advance, in whole bursts.
    #[must_use]
    pub fn served(&self, client: u16) -> u64 {
        let units = self.served.get(usize::from(client)).copied().unwrap_or(0);
        u64::try_from(units / UNITS_PER_BYTE).expect("bytes")
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
            c.dirty = !c.subs.is_empty();
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
                let share = u128::from(cap) * u128::from(s.total) / u128::from(work);
                s.cap = u64::try_from(share).expect("a share of a u64").max(1);
                c.dirty = true;
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
        let mut pending = 0;
        for index in 0..self.channels.len() {
            let total = self.channel_bytes(index as u64, runs);
            if total == 0 {
                continue;
            }
            pending += 1;
            let share = u128::from(cap) * u128::from(total) / u128::from(work);
            let channel = &mut self.channels[index];
            channel.dirty = true;
            channel.subs.push(Sub {
                flow: slot,
                client,
                weight: weight.max(1),
                write,
                urgent,
                fixed: false,
                cap: u64::try_from(share).expect("a share of a u64").max(1),
                rate: 0,
                total,
                remaining: u128::from(total) * UNITS_PER_BYTE,
                last_turn: Some(0),
            });
        }
        let shortness = self.shortness(work, pieces);
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
        if self.channels[index].dirty {
            self.resolve(index);
        }
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
            if self.channels[index].dirty {
                self.resolve(index);
            }
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

    fn advance(&mut self, now: u64) {
        for index in 0..self.channels.len() {
            self.advance_channel(index, now);
        }
        if let Some(noise) = self.noise {
            let bytes = self.served(noise.client) / LINE_BYTES * LINE_BYTES;
            self.stats.read_bursts += (bytes - self.stats.noise_bytes) / BURST_BYTES;
            self.stats.noise_bytes = bytes;
        }
        let elapsed = now.saturating_sub(self.stats.elapsed.get());
        if elapsed > 0 {
            self.stats.elapsed = Time::new(now);
            self.refresh_carry.0 += elapsed;
            let intervals = self.refresh_carry.0 / self.refresh_fs;
            self.refresh_carry.0 -= intervals * self.refresh_fs;
            self.stats.refreshes += intervals * u64::from(self.cfg.channels);
        }
    }

    fn advance_channel(&mut self, index: usize, now: u64) {
        while self.channels[index].at < now {
            if self.channels[index].subs.is_empty() {
                self.channels[index].at = now;
                return;
            }
            if self.channels[index].dirty {
                self.resolve(index);
            }
            let c = &mut self.channels[index];
            let end = now.min(c.next).min(c.resample);
            let span = end - c.at;
            self.entries[c.entry].exposure_fs += span;
            let paid = c.debt.min(span);
            c.debt -= paid;
            c.busy += span;
            c.at = end;
            let served_for = u128::from(span - paid);
            for s in &mut c.subs {
                let moved = (u128::from(s.rate) * served_for).min(s.remaining);
                s.remaining -= moved;
                c.served += moved;
                self.served[usize::from(s.client)] += moved;
            }
            if end == c.next {
                self.complete_subs(index);
            } else if end == c.resample {
                // The same load, further on in its flows: sampled again if it is due.
                c.dirty = true;
            }
        }
    }

    fn complete_subs(&mut self, index: usize) {
        let end = self.channels[index].at;
        self.channels[index].dirty = true;
        let mut i = 0;
        while i < self.channels[index].subs.len() {
            let sub = &mut self.channels[index].subs[i];
            if sub.flow == NOISE {
                i += 1;
                continue;
            }
            let (slot, served) = (sub.flow, sub.remaining == 0);
            let over = sub.last_turn.is_some_and(|left| sub.remaining <= left);
            if over {
                sub.last_turn = None;
            }
            let flow = &mut self.flows[slot as usize];
            if served {
                // Order matters to nothing but samples, which take turns in it: keep it.
                self.channels[index].subs.remove(i);
                flow.parts -= 1;
            } else {
                i += 1;
            }
            if over {
                flow.end = flow.end.max(end);
                flow.pending -= 1;
                if flow.pending == 0 {
                    self.retire(slot);
                }
            } else if served {
                self.release(slot);
            }
        }
    }

    /// Books what was served under the old load, then finds capacity and shares of the new one.
    fn resolve(&mut self, index: usize) {
        self.book(index);
        self.channels[index].dirty = false;
        if self.channels[index].subs.is_empty() {
            (self.channels[index].next, self.channels[index].debt) = (u64::MAX, 0);
            self.channels[index].resample = u64::MAX;
            return;
        }
        self.stats.load_changes += 1;
        let entry = self.entry_for(index);
        self.channels[index].entry = entry;
        self.visit(entry, index);
        let capacity = self.entries[entry].bytes_per_s;
        let resample = self.entries[entry].next_exposure.saturating_sub(self.entries[entry].exposure_fs);
        let c = &mut self.channels[index];
        c.resample = c.at.saturating_add(resample.max(self.refresh_fs));
        share(&mut c.subs, capacity);
        let grant = self.cfg.grant_bytes;
        let rotation = c.subs.len() as u128;
        let mut first = (u128::MAX, 1u64);
        for s in c.subs.iter_mut().filter(|s| s.flow != NOISE) {
            if s.last_turn.is_some() {
                // A flow at its own pace takes no turn later than that.
                let free = s.rate < s.cap && !s.urgent;
                s.last_turn = Some(if free { last_turn(s.total.min(grant), rotation) } else { 0 });
            }
            // due / rate < first, without dividing.
            if first.0 == u128::MAX || s.due() * u128::from(first.1) < first.0 * u128::from(s.rate) {
                first = (s.due(), s.rate);
            }
        }
        let span = u64::try_from(first.0.div_ceil(u128::from(first.1))).unwrap_or(u64::MAX);
        c.next = c.at.saturating_add(span).saturating_add(if span == u64::MAX { 0 } else { c.debt });
    }

    fn book(&mut self, index: usize) {
        let c = &mut self.channels[index];
        self.stats.busy[index] = Time::new(c.busy);
        if c.served == 0 {
            return;
        }
        c.activates_scaled += (c.served >> 20) * u128::from(self.entries[c.entry].activates_scaled);
        c.served = 0;
        let whole = c.activates_scaled / UNITS_PER_BYTE;
        c.activates_scaled -= whole * UNITS_PER_BYTE;
        self.stats.activates += u64::try_from(whole).expect("activates are fewer than bytes");
    }

    fn entry_for(&mut self, index: usize) -> usize {
        let (mut reads, mut writes, mut short) = (0usize, 0usize, 0usize);
        for s in self.channels[index].subs.iter().filter(|s| s.flow != NOISE) {
            if s.write {
                writes += 1
            } else {
                reads += 1
            }
            short += self.flows[s.flow as usize].shortness;
        }
        let shortness = short.div_ceil((reads + writes).max(1)).min(SHORTNESS - 1);
        let key = (shortness * (MOST_FLOWS + 1) + reads.min(MOST_FLOWS)) * (MOST_FLOWS + 1)
            + writes.min(MOST_FLOWS);
        if self.index[key] == NO_ENTRY {
            self.index[key] = u16::try_from(self.entries.len()).expect("fewer entries than keys");
            self.entries.push(Entry { last_visit: u64::MAX, ..Entry::default() });
        }
        usize::from(self.index[key])
    }

    /// Counts an occurrence of a load and samples it if it is due, by occurrences or by time: often at first, then
    /// ever more rarely.
    fn visit(&mut self, entry: usize, index: usize) {
        let at = self.channels[index].at;
        let e = &mut self.entries[entry];
        if e.visits > 0 && e.last_visit == at {
            return;
        }
        e.last_visit = at;
        e.visits += 1;
        if e.visits < e.next_sample && e.exposure_fs < e.next_exposure {
            return;
        }
        e.next_sample = e.visits + (e.visits / 4).max(1);
        e.next_exposure = e.exposure_fs + (e.exposure_fs / 4).max(2 * self.refresh_fs);
        let channel = &self.channels[index];
        let channels = self.il.channels;
        let flows = &self.flows;
        let sampled: Vec<Sampled<'_>> = channel
            .subs
            .iter()
            .filter(|s| s.flow != NOISE)
            .map(|s| {
                let flow = &flows[s.flow as usize];
                let left = u64::try_from(s.remaining / UNITS_PER_BYTE).expect("bytes");
                let skip = (s.total - left.min(s.total)) * channels % flow.kept_bytes.max(1);
                Sampled { runs: &flow.runs, skip, write: s.write }
            })
            .collect();
        let peak = self.peak_bytes_per_s() / channels;
        let e = &mut self.entries[entry];
        let probes = match e.samples {
            n if n >= ALWAYS_PROBED && !n.is_multiple_of(4) => Probes::None,
            n if (n / 4 + n).is_multiple_of(2) => Probes::Sparse,
            _ => Probes::Dense,
        };
        e.samples += 1;
        let m = self.sampler.run(index as u64, &sampled, probes);
        self.stats.samples += 1;
        let e = &mut self.entries[entry];
        let s = &mut e.sums;
        s.ck += m.ck;
        s.bursts += m.bursts;
        s.activates += m.activates;
        s.probes += m.probes;
        s.probe_ck += m.probe_ck;
        s.sent += m.sent;
        s.alone += m.alone;
        s.beside += m.beside;
        let bytes = u128::from(s.bursts.max(1)) * u128::from(BURST_BYTES);
        let rate = bytes * u128::from(self.ck_hz) / u128::from(s.ck);
        let line = u128::from(s.probe_ck) * u128::from(FS_PER_S)
            / (u128::from(s.probes.max(1)) * u128::from(self.ck_hz));
        // Writes that merge in the queue cost no data beat; what is served still passes the pins.
        e.bytes_per_s = u64::try_from(rate).expect("a bandwidth").min(peak);
        e.line_fs = u64::try_from(line).expect("a latency");
        // What the flows lost beside the probes, at their own pace; not less than the line's own command slots.
        let lost =
            u128::from(s.alone.saturating_sub(s.beside)) * u128::from(s.ck) / u128::from(s.bursts.max(1));
        let cost = lost * u128::from(FS_PER_S) / (u128::from(s.sent.max(1)) * u128::from(self.ck_hz));
        e.line_cost_fs = u64::try_from(cost).expect("a share of an interval");
        e.activates_scaled =
            u64::try_from((u128::from(s.activates) << 20) / bytes).expect("less than one a byte");
    }
}
