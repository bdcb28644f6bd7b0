//! The same memory simulated burst by burst: slower by two orders, without sampling error.
//!
//! ```text
//! start_flow ─► one walk per channel ─► turns of `grant` bytes ─► BurstChannel per channel ─► finish_until
//! access_line ─► an urgent request in its channel; its completion is read off a copy run ahead
//! ```
//!
//! Models: everything burst.rs does, interleave, grants, caps paced by grant.
//! Does not model: flows that start after a line was asked but before it completes (its answer is already given).
//! Source: our own; held against an independent closed-loop driver in tests/dram_sampled.rs.

use super::config::{DramConfig, LINE_BYTES, MemoryStats};
use super::interleave::{Interleave, Walker, burst_span};
use super::noise::{Noise, NoiseLines, turns_off};
use super::system::{FlowId, Qos, Transfer};
use super::{AddressMap, BURST_BYTES, BurstChannel, Done, Place, Request, Timings};
use sim_kernel::units::FS_PER_S;
use sim_kernel::{Clock, Cycles, Hertz, Time};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

/// Tags from here on are CPU lines.
const LINE_TAG: u32 = 1 << 31;
/// Class of CPU lines and urgent flows.
const URGENT: u8 = 1;
/// Tag of noise.
const NOISE_TAG: u32 = LINE_TAG - 1;

#[derive(Clone, Copy, Debug)]
struct Part {
    flow: u32,
    walker: Walker,
    write: bool,
    urgent: bool,
    weight: u32,
    /// Turns to sit out, and what is carried over to the next count of them.
    skip: u64,
    owed: u64,
    /// Bursts not yet taken by the controller, and bytes left of the present turn.
    bursts_left: u64,
    turn_left: u64,
    refused: Option<u64>,
    /// Pace: bytes sent since `start`, bytes a second, and the CK of the next turn.
    sent: u64,
    start: u64,
    cap: u64,
    due: u64,
    /// Bytes sent under earlier caps.
    sent_before: u64,
}

impl Part {
    /// CK at which the requester can have taken or given what was sent.
    fn paced(&self, hertz: u64) -> u64 {
        let ck = u128::from(self.sent) * u128::from(hertz) / u128::from(self.cap);
        self.start.saturating_add(u64::try_from(ck).unwrap_or(u64::MAX))
    }
}

#[derive(Clone, Copy, Debug)]
struct Line {
    ck: u64,
    halves: [Place; 2],
    /// Halves already in the controller.
    sent: usize,
    write: bool,
    tag: u32,
}

#[derive(Clone, Debug)]
struct Channel {
    engine: BurstChannel,
    parts: Vec<Part>,
    turn: usize,
    lines: VecDeque<Line>,
    noise: Option<NoiseLines>,
    noise_bursts: u64,
    done: Vec<Done>,
    busy: u64,
}

#[derive(Clone, Debug)]
struct Flow {
    id: u64,
    write: bool,
    live: bool,
    client: u16,
    /// Bytes of all bursts.
    work: u64,
    runs: Vec<(u64, u64)>,
    /// Bursts not yet taken, and bursts taken whose data is not back.
    to_send: u64,
    in_flight: u64,
    end: u64,
}

/// What happened to bursts of flows in a run of a channel.
#[derive(Clone, Copy, Debug)]
enum Event {
    Taken { flow: u32, at: u64 },
    Paced { flow: u32, at: u64 },
    Done(Done),
}

/// The memory of the chip, simulated in full.
#[derive(Clone, Debug)]
pub struct ExactMemory {
    cfg: DramConfig,
    il: Interleave,
    map: AddressMap,
    timings: Timings,
    clock: Clock,
    channels: Vec<Channel>,
    flows: Vec<Flow>,
    free: Vec<u32>,
    live: u32,
    next_id: u64,
    next_line: u32,
    finished: BinaryHeap<Reverse<(u64, u64)>>,
    events: Vec<Event>,
    /// Bytes of whole bursts taken, by client.
    served: Vec<u64>,
    stats: MemoryStats,
}

impl Channel {
    fn is_idle(&self) -> bool {
        self.parts.is_empty() && self.lines.is_empty() && self.engine.is_empty()
    }

    /// Simulates up to `ck`, or until the line `stop` is complete; then its last data's CK is returned.
    fn run(&mut self, ck: u64, pace: &Pace<'_>, stop: Option<u32>, events: &mut Vec<Event>) -> Option<u64> {
        let mut line_bursts = 0;
        while self.engine.now() < ck {
            let now = self.engine.now();
            let mut wake = self.offer_lines(now);
            if self.noise.as_ref().is_some_and(|n| n.cfg.urgent) {
                wake = wake.min(self.offer_noise(now, pace, u64::MAX).unwrap_or(u64::MAX));
            }
            wake = wake.min(self.offer_flows(now, pace, events));
            self.engine.tick(&mut self.done);
            for d in self.done.drain(..) {
                if d.tag == NOISE_TAG {
                    continue;
                }
                if d.tag < LINE_TAG {
                    events.push(Event::Done(d));
                } else if Some(d.tag) == stop {
                    line_bursts += 1;
                    if line_bursts == 2 {
                        return Some(d.done + 1);
                    }
                }
            }
            let to = self.engine.next_event().min(ck).min(wake.max(self.engine.now()));
            self.engine.skip_to(to);
            if !self.is_idle() {
                self.busy += to - now;
            }
        }
        None
    }

    fn offer_lines(&mut self, now: u64) -> u64 {
        while let Some(line) = self.lines.front_mut() {
            if line.ck > now {
                return line.ck;
            }
            let place = line.halves[line.sent];
            let request = Request { place, write: line.write, class: URGENT, tag: line.tag };
            if !self.engine.offer(request, &mut self.done) {
                return u64::MAX;
            }
            line.sent += 1;
            if line.sent == 2 {
                self.lines.pop_front();
            }
        }
        u64::MAX
    }

    /// Offers the noise that is due, up to `most` bytes: when the next line is due, or nothing if it was refused or
    /// has had its bytes.
    fn offer_noise(&mut self, now: u64, pace: &Pace<'_>, most: u64) -> Option<u64> {
        let noise = self.noise.as_mut()?;
        let mut left = most;
        while left > 0 {
            let address = match noise.due(now) {
                Ok(a) => a,
                Err(at) => return Some(at),
            };
            let request = Request {
                place: pace.map.place(address),
                write: false,
                class: if noise.cfg.urgent { URGENT } else { 0 },
                tag: NOISE_TAG,
            };
            if !self.engine.offer(request, &mut self.done) {
                return None;
            }
            noise.taken();
            self.noise_bursts += 1;
            left = left.saturating_sub(BURST_BYTES);
        }
        None
    }

    /// The turn of noise that shares with the flows; `Err` if the controller refused.
    fn noise_turn(&mut self, now: u64, pace: &Pace<'_>, most: u32) -> Result<Option<u64>, ()> {
        let Some(noise) = &mut self.noise else { return Ok(None) };
        if noise.skip > 0 {
            noise.skip -= 1;
            return Ok(None);
        }
        let left = noise.turn_left;
        if let Some(at) = self.offer_noise(now, pace, left) {
            return Ok(Some(at));
        }
        let Some(noise) = &mut self.noise else { return Ok(None) };
        if noise.turn_left > 0 {
            return Err(());
        }
        noise.turn_left = pace.grant;
        noise.skip = turns_off(&mut noise.owed, noise.cfg.weight, most);
        Ok(None)
    }

    /// The greatest weight among those that take turns.
    fn heaviest(&self) -> u32 {
        let noise = self.noise.as_ref().filter(|n| !n.cfg.urgent).map(|n| n.cfg.weight);
        self.parts.iter().map(|p| p.weight).chain(noise).max().unwrap_or(1)
    }

    fn offer_flows(&mut self, now: u64, pace: &Pace<'_>, events: &mut Vec<Event>) -> u64 {
        let (mut waiting, mut wake) = (0, u64::MAX);
        let noisy = usize::from(self.noise.as_ref().is_some_and(|n| !n.cfg.urgent));
        while self.parts.len() + noisy > 0 && waiting < self.parts.len() + noisy {
            if self.turn >= self.parts.len() + noisy {
                self.turn = 0;
            }
            if self.turn == self.parts.len() {
                match self.noise_turn(now, pace, self.heaviest()) {
                    Ok(None) => waiting = 0,
                    Ok(Some(at)) => (waiting, wake) = (waiting + 1, wake.min(at)),
                    Err(()) => return u64::MAX,
                }
                self.turn += 1;
                continue;
            }
            let part = &mut self.parts[self.turn];
            if part.due > now {
                (waiting, wake) = (waiting + 1, wake.min(part.due));
                self.turn += 1;
                continue;
            }
            if part.skip > 0 {
                (part.skip, waiting) = (part.skip - 1, 0);
                self.turn += 1;
                continue;
            }
            let runs = &pace.flows[part.flow as usize].runs;
            let Some(address) = part.refused.take().or_else(|| part.walker.next(runs)) else {
                self.parts.remove(self.turn);
                continue;
            };
            let (place, write, urgent) = (pace.map.place(address), part.write, part.urgent);
            if !self
                .engine
                .offer(Request { place, write, class: u8::from(urgent), tag: part.flow }, &mut self.done)
            {
                part.refused = Some(address);
                return u64::MAX;
            }
            waiting = 0;
            part.bursts_left -= 1;
            part.sent += BURST_BYTES;
            part.turn_left = part.turn_left.saturating_sub(BURST_BYTES);
            if part.bursts_left == 0 {
                // The requester takes the last turn at its pace too.
                events.push(Event::Paced { flow: part.flow, at: part.paced(pace.hertz) });
            }
            events.push(Event::Taken { flow: part.flow, at: now });
            if part.bursts_left == 0 {
                self.parts.remove(self.turn);
            } else if part.turn_left == 0 {
                part.turn_left = pace.grant;
                part.due = part.paced(pace.hertz);
                let most = self.heaviest();
                let part = &mut self.parts[self.turn];
                part.skip = turns_off(&mut part.owed, part.weight, most);
                self.turn += 1;
            }
        }
        wake
    }
}

/// What a channel needs to know to serve flows.
struct Pace<'a> {
    flows: &'a [Flow],
    map: &'a AddressMap,
    grant: u64,
    hertz: u64,
}

impl ExactMemory {
    /// An idle memory.
    ///
    /// # Panics
    /// If the configuration does not validate.
    #[must_use]
    pub fn new(cfg: DramConfig) -> Self {
        if let Err(errors) = cfg.validate() {
            panic!("an invalid memory configuration was built: {errors:?}");
        }
        let timings = cfg.timings();
        let channel = Channel {
            engine: BurstChannel::new(timings, cfg.controller),
            parts: Vec::new(),
            turn: 0,
            lines: VecDeque::new(),
            noise: None,
            noise_bursts: 0,
            done: Vec::new(),
            busy: 0,
        };
        let channels = vec![channel; cfg.channels as usize];
        Self {
            il: cfg.interleave(),
            map: cfg.channel_map().expect("validated"),
            timings,
            clock: Clock::new(Hertz::new(cfg.ck_hz())),
            stats: MemoryStats { busy: vec![Time::ZERO; channels.len()], ..MemoryStats::default() },
            channels,
            cfg,
            flows: Vec::new(),
            free: Vec::new(),
            live: 0,
            next_id: 0,
            next_line: 0,
            finished: BinaryHeap::new(),
            events: Vec::new(),
            served: Vec::new(),
        }
    }

    /// The same with noise from now on.
    #[must_use]
    pub fn with_noise(mut self, noise: Noise) -> Self {
        let (channels, bytes) = (u64::from(self.cfg.channels), 1u64 << self.map.bits());
        for (index, c) in (0u64..).zip(&mut self.channels) {
            let (ck, hertz) = (c.engine.now(), self.cfg.ck_hz());
            c.noise = Some(NoiseLines::new(noise, index, channels, bytes, hertz, ck, self.cfg.grant_bytes));
        }
        self
    }

    /// Bytes a client's flows, or the noise, have been served up to the last advance, in whole bursts.
    #[must_use]
    pub fn served(&self, client: u16) -> u64 {
        let noise = self.channels.iter().filter(|c| c.noise.as_ref().is_some_and(|n| n.cfg.client == client));
        let bursts: u64 = noise.map(|c| c.noise_bursts).sum();
        self.served.get(usize::from(client)).copied().unwrap_or(0) + bursts * BURST_BYTES
    }

    /// Changes the most bytes a second the requester of a flow under way can take or give.
    pub fn set_cap(&mut self, now: Time, id: FlowId, cap: u64) {
        self.advance(now);
        let Some(slot) = self.flows.iter().position(|f| f.live && FlowId::new(f.id) == id) else { return };
        let ck = self.ck(now);
        for channel in &mut self.channels {
            let Some(part) = channel.parts.iter_mut().find(|p| p.flow as usize == slot) else { continue };
            let bytes = part.sent_before + part.sent + part.bursts_left * BURST_BYTES;
            let share = u128::from(cap) * u128::from(bytes) / u128::from(self.flows[slot].work.max(1));
            part.cap = u64::try_from(share).expect("a share of a u64").max(1);
            (part.sent_before, part.sent, part.start) = (part.sent_before + part.sent, 0, ck);
            part.due = part.due.min(ck);
        }
    }

    /// The parameters.
    #[must_use]
    pub fn config(&self) -> &DramConfig {
        &self.cfg
    }

    /// What has been done up to the last advance.
    #[must_use]
    pub fn stats(&self) -> &MemoryStats {
        &self.stats
    }

    /// No flow is under way or finished and not yet taken.
    #[must_use]
    pub fn quiescent(&self) -> bool {
        self.live == 0 && self.finished.is_empty()
    }

    /// Changes the clock at `now`; commands under way keep the constraints they were issued with.
    pub fn set_frequency_permille(&mut self, now: Time, permille: u32) {
        self.advance(now);
        self.cfg.frequency_permille = permille.clamp(100, 1500);
        self.timings = self.cfg.timings();
        self.clock = self.clock.retuned(now, Hertz::new(self.cfg.ck_hz()));
        for channel in &mut self.channels {
            channel.engine.retime(self.timings);
        }
    }

    fn ck(&self, t: Time) -> u64 {
        self.clock.at_or_after(t).get()
    }

    fn time(&self, ck: u64) -> Time {
        self.clock.edge(Cycles::new(ck))
    }

    /// Starts a bulk transfer; see `MemorySystem::start_flow`.
    pub fn start_flow(&mut self, now: Time, runs: &[(u64, u64)], write: bool, qos: Qos, cap: u64) -> FlowId {
        self.start(now, &Transfer { runs, write, qos, weight: 1, client: 0, cap })
    }

    /// Starts a bulk transfer of a client; see `MemorySystem::start`.
    pub fn start(&mut self, now: Time, transfer: &Transfer<'_>) -> FlowId {
        let Transfer { runs, write, qos, weight, client, cap } = *transfer;
        self.advance(now);
        let id = self.next_id;
        self.next_id += 1;
        let flow = Flow {
            id,
            write,
            live: true,
            client,
            work: 0,
            runs: runs.to_vec(),
            to_send: 0,
            in_flight: 0,
            end: 0,
        };
        let slot = match self.free.pop() {
            Some(slot) => {
                self.flows[slot as usize] = flow;
                slot
            }
            None => {
                self.flows.push(flow);
                u32::try_from(self.flows.len() - 1).expect("few flows at a time")
            }
        };
        let start = self.ck(now);
        let asked: u64 = runs.iter().map(|r| r.1).sum();
        let work: u64 = runs.iter().map(|&r| burst_span(r)).map(|(a, b)| b - a).sum();
        self.flows[slot as usize].to_send = work / BURST_BYTES;
        self.flows[slot as usize].work = work;
        self.flows[slot as usize].end = start;
        for (index, channel) in (0u64..).zip(&mut self.channels) {
            let spans = runs.iter().map(|&r| burst_span(r));
            let bytes: u64 = spans.map(|(a, b)| self.il.below(b, index) - self.il.below(a, index)).sum();
            if bytes == 0 {
                continue;
            }
            let share = u128::from(cap) * u128::from(bytes) / u128::from(work);
            channel.parts.push(Part {
                flow: slot,
                walker: Walker::new(self.il, index),
                write,
                urgent: qos == Qos::Urgent,
                weight,
                skip: 0,
                owed: 0,
                bursts_left: bytes / BURST_BYTES,
                turn_left: self.cfg.grant_bytes,
                refused: None,
                sent: 0,
                start,
                cap: u64::try_from(share).expect("a share of a u64").max(1),
                due: start,
                sent_before: 0,
            });
        }
        let s = &mut self.stats;
        s.npu.requests += 1;
        if write {
            s.npu.write_bytes += asked;
        } else {
            s.npu.read_bytes += asked;
        }
        self.live += 1;
        self.settle(slot);
        FlowId::new(id)
    }

    /// One 64-byte line of a CPU; see `MemorySystem::access_line`.
    pub fn access_line(&mut self, now: Time, offset: u64, write: bool) -> Time {
        let (index, local) = self.il.split(offset & !(LINE_BYTES - 1));
        let index = usize::try_from(index).expect("a channel number");
        let ck = self.ck(now).max(self.channels[index].engine.now());
        let tag = LINE_TAG | self.next_line;
        self.next_line = (self.next_line + 1) % LINE_TAG;
        let halves = [self.map.place(local), self.map.place(local + BURST_BYTES)];
        let line = Line { ck, halves, sent: 0, write, tag };
        let channel = &mut self.channels[index];
        let at = channel.lines.partition_point(|l| l.ck <= ck);
        channel.lines.insert(at, line);
        self.stats.cpu.requests += 1;
        if write {
            self.stats.cpu.write_bytes += LINE_BYTES;
            return self.time(ck + 1);
        }
        self.stats.cpu.read_bytes += LINE_BYTES;
        let (mut ahead, mut ignored) = (self.channels[index].clone(), Vec::new());
        let limit = ck + 100 * self.timings.refi;
        let done = ahead.run(limit, &self.pace(), Some(tag), &mut ignored);
        // Only a controller without `read_patience` starves a line that long.
        let done = self.time(done.unwrap_or(limit));
        self.stats.line_wait += (done - now).saturating_sub(self.cfg.unloaded_read_latency());
        done
    }

    fn pace(&self) -> Pace<'_> {
        Pace { flows: &self.flows, map: &self.map, grant: self.cfg.grant_bytes, hertz: self.cfg.ck_hz() }
    }

    /// No flow completes before this time; call `finish_until` then. `None` without flows.
    #[must_use]
    pub fn next_completion(&self) -> Option<Time> {
        let finished = self.finished.peek().map(|r| r.0.0);
        // Each part needs its bursts at the pins' rate, and a burst in flight its read latency.
        let mut bound = u64::MAX;
        for (slot, flow) in (0u32..).zip(&self.flows).filter(|(_, f)| f.live) {
            let mut least = 1;
            for channel in &self.channels {
                let part = channel.parts.iter().find(|p| p.flow == slot);
                least = least.max(part.map_or(0, |p| p.bursts_left * self.timings.bl_min));
            }
            if !flow.write {
                least = least.max(self.timings.read_latency());
            }
            bound = bound.min(least);
        }
        let now = self.channels[0].engine.now();
        let running = (bound != u64::MAX).then(|| self.time(now + bound).get());
        finished.into_iter().chain(running).min().map(Time::new)
    }

    /// Advances to `now` and takes the flows finished by then, in (time, id) order.
    pub fn finish_until(&mut self, now: Time) -> Vec<(Time, FlowId)> {
        let mut out = Vec::new();
        self.finish_into(now, &mut out);
        out
    }

    /// Advances to `now` and appends the flows finished by then, in (time, id) order.
    pub fn finish_into(&mut self, now: Time, out: &mut Vec<(Time, FlowId)>) {
        self.advance(now);
        while let Some(&Reverse((at, id))) = self.finished.peek() {
            if at > now.get() {
                break;
            }
            self.finished.pop();
            out.push((Time::new(at), FlowId::new(id)));
        }
    }

    /// Simulates up to `now`: nothing may be asked for an earlier time afterwards.
    ///
    /// A line is answered by a copy of its channel that runs ahead, from the last time settled: the closer that is,
    /// the less is simulated twice.
    pub fn catch_up(&mut self, now: Time) {
        if self.ck(now) > self.channels[0].engine.now() {
            self.advance(now);
        }
    }

    fn advance(&mut self, now: Time) {
        let ck = self.ck(now);
        let pace =
            Pace { flows: &self.flows, map: &self.map, grant: self.cfg.grant_bytes, hertz: self.cfg.ck_hz() };
        for channel in &mut self.channels {
            channel.run(ck, &pace, None, &mut self.events);
        }
        let mut events = std::mem::take(&mut self.events);
        for event in events.drain(..) {
            self.note(event);
        }
        self.events = events;
        self.count(now);
    }

    fn note(&mut self, event: Event) {
        let slot = match event {
            Event::Taken { flow, at } => {
                let f = &mut self.flows[flow as usize];
                f.to_send -= 1;
                let client = usize::from(f.client);
                if client >= self.served.len() {
                    self.served.resize(client + 1, 0);
                }
                self.served[client] += BURST_BYTES;
                if f.write {
                    f.end = f.end.max(at)
                } else {
                    f.in_flight += 1
                }
                flow
            }
            Event::Paced { flow, at } => {
                let f = &mut self.flows[flow as usize];
                f.end = f.end.max(at);
                return;
            }
            Event::Done(d) if d.write => return,
            Event::Done(d) => {
                let f = &mut self.flows[d.tag as usize];
                f.in_flight -= 1;
                f.end = f.end.max(d.done + 1);
                d.tag
            }
        };
        self.settle(slot);
    }

    /// Finishes a flow that has nothing left to do.
    fn settle(&mut self, slot: u32) {
        let f = &mut self.flows[slot as usize];
        if !f.live || f.to_send + f.in_flight > 0 {
            return;
        }
        f.live = false;
        let (end, id) = (f.end, f.id);
        self.finished.push(Reverse((self.time(end).get(), id)));
        self.free.push(slot);
        self.live -= 1;
    }

    fn count(&mut self, now: Time) {
        let sum = |f: fn(&super::Commands) -> u64| self.channels.iter().map(|c| f(c.engine.commands())).sum();
        (self.stats.read_bursts, self.stats.write_bursts) = (sum(|c| c.reads), sum(|c| c.writes));
        self.stats.noise_bytes = self.channels.iter().map(|c| c.noise_bursts).sum::<u64>() * BURST_BYTES;
        (self.stats.activates, self.stats.refreshes) = (sum(|c| c.activates), sum(|c| c.refreshes));
        self.stats.elapsed = now.max(self.stats.elapsed);
        for (busy, c) in self.stats.busy.iter_mut().zip(&self.channels) {
            let fs = u128::from(c.busy) * u128::from(FS_PER_S) / u128::from(self.cfg.ck_hz());
            *busy = Time::new(u64::try_from(fs).expect("within the range of time"));
        }
    }
}
