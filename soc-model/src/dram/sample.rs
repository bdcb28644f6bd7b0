//! Samples of a loaded channel: the exact engine, fed by the present flows for one refresh interval.
//!
//! ```text
//! flows at their present addresses ─► turns of `grant` bytes ─► BurstChannel ─► bursts, activates, line latency
//! ```
//!
//! Models: settling, exactly one refresh interval of measurement, sparse urgent probe lines.
//! Does not model: the interval itself being cut short by flows that end; results are averaged over occurrences.
//! Source: systematic sampling; the settling time and interval come from our feasibility measurements.

use std::collections::VecDeque;

use super::config::LINE_BYTES;
use super::interleave::{Interleave, Walker};
use super::noise::{Noise, NoiseLines};
use super::streams::mixed;
use super::{AddressMap, BURST_BYTES, BurstChannel, Controller, Done, Request, Timings};

/// CKs before measurement starts.
pub const SETTLE_CK: u64 = 600;
/// Probe lines spread over the refresh interval after the measured one. Few show how long a line takes; what lines take
/// from the flows shows only beside many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probes {
    /// None: the interval is not simulated.
    None,
    /// Lines as far apart as those of a few busy cores: their latency counts.
    Sparse,
    /// Lines of about 8 % of the pins' rate: the bandwidth they cost counts.
    Dense,
}

impl Probes {
    const fn lines(self) -> u32 {
        match self {
            Self::None => 0,
            Self::Sparse => 16,
            Self::Dense => PROBES,
        }
    }

    /// CKs from the first line to where what lines take is counted: a line costs something long after it came.
    const fn lead(self) -> u64 {
        match self {
            Self::None | Self::Sparse => 0,
            Self::Dense => SETTLE_CK,
        }
    }
}

/// Dense lines in a refresh interval.
const PROBES: u32 = 48;
/// The golden ratio's part of 2^64: steps of it are spread evenly however many there are.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;
/// Lines sent in a sample at most.
const MOST_LINES: u32 = 128;
/// Runs of a flow kept for sampling.
pub const KEPT_RUNS: usize = 256;
/// A flow with more runs than this is a pattern that a sample continues from its start; after the end of one with
/// fewer, a sample goes on somewhere else, as the requester's next flow would.
const PATTERN_RUNS: usize = 8;
/// Repeated patterns are moved by multiples of this, which leaves columns where they are.
const PATTERN_SHIFT: u64 = 1 << 20;
/// Bursts offered in one CK at most: runs that lie in one burst merge in the queue and never fill it.
const MOST_BURSTS: u64 = 256;
/// Tags from here on are probe lines; the flows' bursts have tag 0.
const PROBE_TAG: u32 = 1;
/// Tag of noise.
const NOISE_TAG: u32 = u32::MAX;

/// Sums over samples of one kind of load.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Measured {
    /// CKs measured.
    pub ck: u64,
    /// Bursts issued in them.
    pub bursts: u64,
    /// Activates.
    pub activates: u64,
    /// Probe lines that read and came back.
    pub probes: u64,
    /// Probe lines sent.
    pub sent: u64,
    /// CKs from offering a probe line that reads to its last data.
    pub probe_ck: u64,
    /// Bursts of the flows in measured intervals that one with probes followed, and in those that followed.
    pub alone: u64,
    /// Their bursts beside the probes.
    pub beside: u64,
}

/// A flow as the sampler sees it.
#[derive(Clone, Copy, Debug)]
pub struct Sampled<'a> {
    /// Its runs.
    pub runs: &'a [(u64, u64)],
    /// Bytes, over all channels, it has moved already in whole turns.
    pub skip: u64,
    /// Write, or read.
    pub write: bool,
}

/// Half a line that waits for room.
#[derive(Clone, Copy, Debug)]
struct Half {
    address: u64,
    write: bool,
    number: u32,
}

#[derive(Clone, Debug)]
struct Cursor {
    walker: Walker,
    runs: [(u64, u64); 1],
    /// Reads the flow's own runs; after their end, a run somewhere else.
    own: bool,
    /// Bursts since the walk began.
    walked: u64,
    /// Added to the addresses of a pattern that is repeated.
    shift: u64,
    write: bool,
    left: u64,
}

/// The parts of a sample that do not depend on the flows.
#[derive(Clone, Debug)]
pub struct Sampler {
    /// Constraints at the present clock.
    pub timings: Timings,
    /// Queues.
    pub controller: Controller,
    /// Address map of a channel.
    pub map: AddressMap,
    /// Interleave.
    pub il: Interleave,
    /// Bytes a flow sends before the next has its turn.
    pub grant_bytes: u64,
    /// Bytes of all channels.
    pub capacity: u64,
    /// Command clock, for the noise's pace.
    pub hertz: u64,
    /// Noise beside the flows.
    pub noise: Option<Noise>,
    lines: Option<NoiseLines>,
    cursors: Vec<Cursor>,
    done: Vec<Done>,
    draws: u64,
    /// Steps of the golden ratio, one for each time writes were filled in.
    fills: u64,
}

impl Sampler {
    /// A sampler whose replacement addresses follow `seed`.
    #[must_use]
    pub fn new(
        timings: Timings,
        controller: Controller,
        map: AddressMap,
        il: Interleave,
        grant_bytes: u64,
        capacity: u64,
        seed: u64,
    ) -> Self {
        let draws = mixed(seed);
        Self {
            timings,
            controller,
            map,
            il,
            grant_bytes,
            capacity,
            hertz: 0,
            noise: None,
            lines: None,
            cursors: Vec::new(),
            done: Vec::new(),
            draws,
            fills: draws,
        }
    }

    fn draw(&mut self) -> u64 {
        self.draws = self.draws.wrapping_add(1);
        mixed(self.draws)
    }

    /// The next burst of the flow whose turn it is: local address, direction.
    fn next_burst(&mut self, turn: usize, flows: &[Sampled<'_>]) -> u64 {
        loop {
            let c = &mut self.cursors[turn];
            let address = if c.own { c.walker.next(flows[turn].runs) } else { c.walker.next(&c.runs) };
            if let Some(a) = address {
                c.walked += 1;
                return a.wrapping_add(c.shift);
            }
            // Writes that come round again before the first has left the queue would merge with it for ever.
            let least = if self.cursors[turn].write { u64::from(self.controller.write_buffer) } else { 0 };
            let c = &mut self.cursors[turn];
            if c.own && flows[turn].runs.len() > PATTERN_RUNS && c.walked > least {
                c.walker = Walker::new(self.il, c.walker.channel());
                c.walked = 0;
                // Elsewhere: the rows it opened last time are not those of the requester's next flow.
                let shift = self.draw() & !(PATTERN_SHIFT - 1);
                self.cursors[turn].shift = shift;
                continue;
            }
            let longest = flows[turn].runs.iter().map(|r| r.1).max().unwrap_or(0);
            let bytes = longest.max(self.il.bytes * self.il.channels * 2);
            let base = self.draw() % (self.capacity / 4096) * 4096;
            let c = &mut self.cursors[turn];
            (c.own, c.shift) = (false, 0);
            c.runs = [(base, bytes)];
            c.walker = Walker::starting_at(self.il, c.walker.channel(), &c.runs, 0);
        }
    }

    /// Sends the noise that is due, at most `bytes` of it: when the next is due, 0 where the controller refused.
    fn feed_noise(&mut self, engine: &mut BurstChannel, bytes: u64) -> u64 {
        let Some(noise) = &mut self.lines else { return u64::MAX };
        let (now, mut left) = (engine.now(), bytes);
        while left > 0 {
            let address = match noise.due(now) {
                Ok(a) => a,
                Err(at) => return at,
            };
            let (place, class) = (self.map.place(address), u8::from(noise.cfg.urgent));
            if !engine.offer(Request { place, write: false, class, tag: NOISE_TAG }, &mut self.done) {
                return 0;
            }
            noise.taken();
            left = left.saturating_sub(BURST_BYTES);
        }
        u64::MAX
    }

    /// Sends bursts in turns until one is refused. `waiting` is one that was refused before.
    fn feed(
        &mut self,
        engine: &mut BurstChannel,
        flows: &[Sampled<'_>],
        turn: &mut usize,
        waiting: &mut Option<Request>,
    ) {
        for _ in 0..MOST_BURSTS {
            if *turn == self.cursors.len() {
                // The turn of noise that shares.
                let left = self.lines.as_ref().map_or(0, |n| n.turn_left);
                if self.feed_noise(engine, left) == 0 {
                    return;
                }
                let grant = self.grant_bytes;
                if let Some(n) = self.lines.as_mut().filter(|n| n.turn_left == 0) {
                    n.turn_left = grant;
                }
                *turn = 0;
                if flows.is_empty() {
                    return;
                }
                continue;
            }
            let write = self.cursors[*turn].write;
            if !engine.has_room(write, false) {
                return;
            }
            let request = match waiting.take() {
                Some(r) => r,
                None => {
                    let address = self.next_burst(*turn, flows);
                    Request { place: self.map.place(address), write, class: 0, tag: 0 }
                }
            };
            if !engine.offer(request, &mut self.done) {
                *waiting = Some(request);
                return;
            }
            let c = &mut self.cursors[*turn];
            c.left = c.left.saturating_sub(BURST_BYTES);
            if c.left == 0 {
                c.left = self.grant_bytes;
                let sharing = self.lines.as_ref().is_some_and(|n| !n.cfg.urgent);
                *turn = if *turn + 1 == self.cursors.len() + usize::from(sharing) { 0 } else { *turn + 1 };
            }
        }
    }

    /// Offers the halves of urgent lines that are not yet taken.
    fn probe(&mut self, engine: &mut BurstChannel, unsent: &mut VecDeque<Half>) {
        while let Some(&Half { address, write, number }) = unsent.front() {
            let (place, tag) = (self.map.place(address), PROBE_TAG + number);
            if !engine.offer(Request { place, write, class: 1, tag }, &mut self.done) {
                return;
            }
            unsent.pop_front();
        }
    }

    /// An urgent line at a random address.
    fn line(&mut self, number: u32, write: bool) -> [Half; 2] {
        let line = self.draw() << 6;
        [0, BURST_BYTES].map(|half| Half { address: line + half, write, number })
    }

    /// As many writes of lines as earlier ones may have left in the queue: with reads waiting, the controller writes only
    /// when the queue is nearly full, and an interval's probes alone would never make it.
    fn fill_writes(&mut self, unsent: &mut VecDeque<Half>) {
        let (least, most) = (self.controller.drain_until_below, self.controller.drain_above);
        let span = u64::from(most.saturating_sub(least)).max(1);
        // All levels in turn: whether the controller writes at all decides more than anything else drawn here.
        self.fills = self.fills.wrapping_add(GOLDEN);
        let bursts = u64::from(least) + (((self.fills >> 32) * span) >> 32);
        for _ in 0..bursts / (LINE_BYTES / BURST_BYTES) {
            let line = self.line(MOST_LINES - 1, true);
            unsent.extend(line);
        }
    }

    /// Measures one refresh interval of `channel` under `flows` and noise where there is some, and what `probes` ask of
    /// lines in the next.
    ///
    /// # Panics
    /// Without either.
    pub fn run(&mut self, channel: u64, flows: &[Sampled<'_>], probes: Probes) -> Measured {
        assert!(!flows.is_empty() || self.noise.is_some(), "an idle channel needs no sample");
        let grant = self.grant_bytes;
        self.lines = self.noise.map(|n| {
            // Other lines in every sample.
            let (seed, hertz) = (self.draw(), self.hertz);
            let channel_bytes = 1 << self.map.bits();
            NoiseLines::new(Noise { seed, ..n }, channel, self.il.channels, channel_bytes, hertz, 0, grant)
        });
        let urgent = self.noise.is_some_and(|n| n.urgent);
        // Somewhere in the turn of one of the flows; the others stand between two turns of theirs.
        let mut turn = usize::try_from(self.draw() % flows.len().max(1) as u64).expect("an index");
        let left = (1 + self.draw() % (grant / BURST_BYTES)) * BURST_BYTES;
        self.cursors.clear();
        self.cursors.extend(flows.iter().enumerate().map(|(i, f)| {
            let left = if i == turn { left } else { grant };
            let skip = f.skip + (grant - left) * self.il.channels;
            Cursor {
                walker: Walker::starting_at(self.il, channel, f.runs, skip),
                runs: [(0, 0)],
                own: true,
                walked: 0,
                shift: 0,
                write: f.write,
                left,
            }
        }));
        let mut engine = BurstChannel::new(self.timings, self.controller);
        let measured = SETTLE_CK..SETTLE_CK + self.timings.refi;
        let lines = probes.lines();
        let beside_from = measured.end + probes.lead();
        let end = if lines > 0 { beside_from + self.timings.refi } else { measured.end };
        let spacing = (self.timings.refi / u64::from(lines.max(1))).max(1);
        let mut m = Measured { ck: self.timings.refi, ..Measured::default() };
        let mut waiting = None;
        // The engine starts right behind a refresh: a random phase keeps probes from meeting the next one always
        // at the same distance.
        let mut probe_due = if lines > 0 { measured.end + self.draw() % spacing } else { u64::MAX };
        // When each probe was sent, and bursts of it still out.
        let mut out = [(0, u8::MAX); MOST_LINES as usize];
        let mut sent = 0;
        let mut unsent = VecDeque::new();
        let mut activates_before = 0;
        while engine.now() < end {
            let now = engine.now();
            if now >= probe_due && sent < MOST_LINES {
                probe_due += spacing;
                if sent == 0 && !flows.iter().any(|f| f.write) {
                    self.fill_writes(&mut unsent);
                }
                // One in four writes, as caches write back.
                let line = self.line(sent, sent % 4 == 3);
                unsent.extend(line);
                out[sent as usize] = (now, 2);
                sent += 1;
            }
            self.probe(&mut engine, &mut unsent);
            let mut wake = u64::MAX;
            if urgent {
                wake = self.feed_noise(&mut engine, u64::MAX);
            }
            if !urgent || !flows.is_empty() {
                self.feed(&mut engine, flows, &mut turn, &mut waiting);
            }
            if self.lines.is_some() && !urgent {
                wake = self.lines.as_mut().map_or(u64::MAX, |n| n.due(now).err().unwrap_or(now + 1));
            }
            engine.tick(&mut self.done);
            for d in self.done.drain(..) {
                m.bursts += u64::from(measured.contains(&now));
                if d.tag < PROBE_TAG || d.tag == NOISE_TAG {
                    m.beside += u64::from(now >= beside_from && probes == Probes::Dense);
                    continue;
                }
                let (since, left) = &mut out[(d.tag - PROBE_TAG) as usize];
                *left -= 1;
                if *left == 0 && !d.write && probes == Probes::Sparse {
                    m.probes += 1;
                    m.probe_ck += d.done + 1 - *since;
                }
            }
            if now < measured.start {
                activates_before = engine.commands().activates;
            } else if now < measured.end {
                m.activates = engine.commands().activates - activates_before;
            }
            let to = engine.next_event().min(end).min(probe_due.min(wake).max(engine.now()));
            engine.skip_to(to);
        }
        if probes == Probes::Dense {
            (m.sent, m.alone) = (u64::from(lines), m.bursts);
        }
        if probes == Probes::Sparse && m.probes == 0 && sent > 0 {
            // Where none came back, they take at least that long.
            (m.probes, m.probe_ck) = (1, end - out[0].0);
        }
        m
    }
}
