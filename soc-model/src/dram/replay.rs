//! One channel alone, fed a stream or a trace: the library behind `presil dram replay`.
//!
//! ```text
//! stream or trace ─► in-order source, 64 B = two bursts ─► tick or burst engine ─► cycles, latencies, commands
//!                                                         └── sampled: settle, measure, jump ──┘
//! ```
//!
//! Models: an in-order source with head-of-line blocking that offers bursts before each CK until one is refused.
//! Does not model: PHY and network latency. Source: conventions of our Ramulator 2.1 reference measurements.

use super::map::MapError;
use super::replay_io::ReplayResult;
use super::sample::SETTLE_CK;
use super::streams::{Load, StreamKind};
use super::{
    AddressMap, BURST_BYTES, BurstChannel, Commands, Controller, Done, Place, Refresh, Request, Standard,
    States, TickChannel,
};

/// Which engine replays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// The oracle, every CK.
    Tick,
    /// The event-skipping engine.
    Burst,
    /// The event-skipping engine on a systematic sample of a saturating stream, extrapolated between samples.
    Sampled,
}

impl Path {
    /// The name on the command line and in results.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tick => "tick",
            Self::Burst => "burst",
            Self::Sampled => "sampled",
        }
    }
}

/// Where transactions come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// The first `count` transactions of a stream at a load.
    Stream {
        /// Which stream.
        kind: StreamKind,
        /// How many transactions.
        count: u64,
        /// When they arrive.
        load: Load,
    },
    /// Given transactions.
    Trace {
        /// In order.
        transactions: Vec<Transaction>,
        /// Keep only one outstanding.
        chase: bool,
    },
}

/// One 64-byte transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// Byte address in the channel.
    pub address: u64,
    /// Write, or read.
    pub write: bool,
    /// Earliest CK.
    pub due: u64,
}

impl Input {
    fn count(&self) -> u64 {
        match self {
            Self::Stream { count, .. } => *count,
            Self::Trace { transactions, .. } => transactions.len() as u64,
        }
    }
    fn chase(&self) -> bool {
        match self {
            Self::Stream { load, .. } => *load == Load::Chase,
            Self::Trace { chase, .. } => *chase,
        }
    }
    fn get(&self, i: u64, line_ck: u64) -> Transaction {
        match self {
            Self::Stream { kind, load, .. } => {
                let (address, write) = kind.transaction(i);
                Transaction { address, write, due: load.due(i, line_ck) }
            }
            Self::Trace { transactions, .. } => {
                transactions[usize::try_from(i).expect("an index into the trace")]
            }
        }
    }
}

/// What a replay measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Measured {
    /// The path used: a stream too short or too irregular to sample is run in full.
    pub path: Path,
    /// CKs until the last burst was done.
    pub ck_cycles: u64,
    /// Transactions.
    pub transactions: u64,
    /// Latency in CK of every burst read: counts by latency.
    pub read_latency: Vec<u64>,
    /// Sum over read transactions of last burst done minus arrival, in CK.
    pub transaction_latency_sum: u64,
    /// Commands.
    pub commands: Commands,
    /// CKs in each state of power.
    pub states: States,
}

/// A replay: what, on what, how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplayOptions {
    /// Speed grade.
    pub standard: Standard,
    /// Queues.
    pub controller: Controller,
    /// Address map, at any capacity; its row field is fitted to the standard's channel.
    pub map: AddressMap,
    /// Engine.
    pub path: Path,
    /// Transactions.
    pub input: Input,
}

/// Replays and reports.
///
/// # Errors
/// If the map cannot be fitted to the standard's channel.
pub fn replay(options: &ReplayOptions) -> Result<ReplayResult, MapError> {
    let map = options.map.resized(options.standard.channel_bits)?;
    if options.standard.burst_bytes > BURST_BYTES
        && map.place(BURST_BYTES) != (Place { column: 1, ..Place::default() })
    {
        return Err(MapError::SplitBurst);
    }
    let m = measure(&options.standard, options.controller, &map, options.path, &options.input);
    Ok(ReplayResult::new(&options.standard, &m))
}

enum Engine {
    Tick(Box<TickChannel>),
    Burst(Box<BurstChannel>),
}

impl Engine {
    fn offer(&mut self, r: Request, done: &mut Vec<Done>) -> bool {
        match self {
            Self::Tick(e) => e.offer(r, done),
            Self::Burst(e) => e.offer(r, done),
        }
    }
    /// False if a read would be refused; the oracle is simply asked.
    fn has_read_room(&self) -> bool {
        match self {
            Self::Tick(_) => true,
            Self::Burst(e) => e.has_room(false, false),
        }
    }
    fn tick(&mut self, done: &mut Vec<Done>) {
        match self {
            Self::Tick(e) => e.tick(done),
            Self::Burst(e) => e.tick(done),
        }
    }
    fn now(&self) -> u64 {
        match self {
            Self::Tick(e) => e.now(),
            Self::Burst(e) => e.now(),
        }
    }
    fn is_empty(&self) -> bool {
        match self {
            Self::Tick(e) => e.is_empty(),
            Self::Burst(e) => e.is_empty(),
        }
    }
    fn skip(&mut self, before: u64) {
        if let Self::Burst(e) = self {
            let to = e.next_event().min(before).max(e.now());
            e.skip_to(to);
        }
    }
    fn states(&self, ck: u64) -> States {
        match self {
            Self::Tick(e) => e.states(ck),
            Self::Burst(e) => e.states(ck),
        }
    }
    fn commands(&self) -> Commands {
        match self {
            Self::Tick(e) => *e.commands(),
            Self::Burst(e) => *e.commands(),
        }
    }
}

/// Runs the input through one channel.
#[must_use]
pub fn measure(standard: &Standard, c: Controller, map: &AddressMap, path: Path, input: &Input) -> Measured {
    let engine = match path {
        Path::Tick => Engine::Tick(Box::new(TickChannel::new(standard.timings, c))),
        Path::Burst | Path::Sampled => Engine::Burst(Box::new(BurstChannel::new(standard.timings, c))),
    };
    let saturating = matches!(input, Input::Stream { load: Load::Saturating, .. });
    let mut run = Run::new(engine, standard, map, input);
    let interval = match c.refresh {
        Refresh::PerBank => standard.timings.refi_pb * standard.timings.banks,
        Refresh::None | Refresh::AllBank => standard.timings.refi,
    };
    let mut sampling = (path == Path::Sampled && saturating).then(|| Sampling::new(interval));
    loop {
        let mut wake = run.offer();
        run.engine.tick(&mut run.done);
        run.collect();
        if run.head.is_none() && run.engine.is_empty() {
            break;
        }
        if let Some(s) = &mut sampling {
            s.step(&mut run);
            wake = wake.min(s.until);
        }
        run.engine.skip(wake);
    }
    let path = match path {
        Path::Sampled if run.extra_ck == 0 => Path::Burst,
        other => other,
    };
    run.finish(path)
}

/// Transactions that can be under way at once, and more.
const OPEN: u64 = 1024;

/// A transaction under way.
#[derive(Clone, Copy, Default)]
struct Open {
    bursts_left: u8,
    arrival: u64,
    done: u64,
}

/// A source, a channel and what has been seen so far.
struct Run<'a> {
    engine: Engine,
    standard: &'a Standard,
    map: &'a AddressMap,
    input: &'a Input,
    line_ck: u64,
    line_bursts: u64,
    count: u64,
    chase: bool,
    open_loop: bool,
    /// Transaction at the head of the source, its number, and its next burst.
    head: Option<Transaction>,
    index: u64,
    part: u64,
    arrival: u64,
    /// Transactions offered, which mark their bursts with it.
    sequence: u64,
    open: Vec<Open>,
    outstanding: u32,
    quiet_at: u64,
    last_done: Option<u64>,
    latencies: Vec<u64>,
    transaction_latency_sum: u64,
    done: Vec<Done>,
    /// What jumps have added.
    extra_ck: u64,
    extra: Commands,
    extra_states: States,
}

impl<'a> Run<'a> {
    fn new(engine: Engine, standard: &'a Standard, map: &'a AddressMap, input: &'a Input) -> Self {
        let (count, line_ck) = (input.count(), standard.line_ck());
        Self {
            engine,
            standard,
            map,
            input,
            line_ck,
            line_bursts: standard.line_bursts(),
            count,
            chase: input.chase(),
            open_loop: matches!(input, Input::Stream { load: Load::Fraction(_), .. }),
            head: (count > 0).then(|| input.get(0, line_ck)),
            index: 0,
            part: 0,
            arrival: 0,
            sequence: 0,
            open: vec![Open::default(); usize::try_from(OPEN).expect("small")],
            outstanding: 0,
            quiet_at: 0,
            last_done: None,
            latencies: vec![0; 1024],
            transaction_latency_sum: 0,
            done: Vec::with_capacity(64),
            extra_ck: 0,
            extra: Commands::default(),
            extra_states: States::default(),
        }
    }

    /// Sends bursts until one is refused or not yet due; returns the CK at which the source next acts by itself.
    fn offer(&mut self) -> u64 {
        let now = self.engine.now();
        while let Some(t) = self.head {
            if self.part == 0 && self.chase && (self.outstanding > 0 || now < self.quiet_at) {
                return if self.outstanding > 0 { u64::MAX } else { self.quiet_at };
            }
            // The source sees the clock one CK late, as the reference's driver does.
            if t.due > 0 && now <= t.due {
                return t.due + 1;
            }
            if !t.write && !self.engine.has_read_room() {
                return u64::MAX;
            }
            let tag = u32::try_from(self.sequence % OPEN).expect("below 1024");
            let mut place = self.map.place(t.address + BURST_BYTES * self.part);
            if self.line_bursts == 1 {
                place = self.standard.fold(place);
            }
            let request = Request { place, write: t.write, class: 0, tag };
            if !self.engine.offer(request, &mut self.done) {
                return u64::MAX;
            }
            self.outstanding += 1;
            if self.part == 0 {
                let arrival = if self.open_loop { t.due } else { self.arrival };
                let bursts_left = if self.line_bursts == 2 { 2 } else { 1 };
                self.open[tag as usize] = Open { bursts_left, arrival, done: 0 };
            }
            if self.part + 1 < self.line_bursts {
                self.part += 1;
            } else {
                self.part = 0;
                self.sequence += 1;
                self.arrival = now;
                self.move_to(self.index + 1);
            }
        }
        u64::MAX
    }

    fn move_to(&mut self, index: u64) {
        self.index = index;
        self.head = (index < self.count).then(|| self.input.get(index, self.line_ck));
    }

    /// Books the bursts issued in the last CK.
    fn collect(&mut self) {
        for d in self.done.drain(..) {
            self.outstanding -= 1;
            self.quiet_at = self.quiet_at.max(d.done + 1);
            self.last_done = self.last_done.max(Some(d.done));
            let open = &mut self.open[d.tag as usize];
            open.bursts_left -= 1;
            open.done = open.done.max(d.done);
            if self.chase && open.bursts_left == 0 {
                self.arrival = open.done + 1;
            }
            if d.write {
                continue;
            }
            if open.bursts_left == 0 {
                self.transaction_latency_sum += open.done + 1 - open.arrival;
            }
            let ck = usize::try_from(d.done + 1 - d.accepted).expect("a latency fits");
            if ck >= self.latencies.len() {
                self.latencies.resize(ck + 1, 0);
            }
            self.latencies[ck] += 1;
        }
    }

    fn finish(self, path: Path) -> Measured {
        let mut commands = self.engine.commands();
        commands.add_scaled(&self.extra, &Commands::default(), 1);
        let ck = self.last_done.map_or(0, |d| d + 1);
        let mut states = self.engine.states(ck.max(self.engine.now()));
        states.add_scaled(&self.extra_states, &States::default(), 1);
        Measured {
            path,
            states,
            ck_cycles: ck + self.extra_ck,
            transactions: self.count,
            read_latency: self.latencies,
            transaction_latency_sum: self.transaction_latency_sum,
            commands,
        }
    }
}

/// Refresh intervals measured at least, and skipped at most per measured one.
const LEAST_WINDOWS: u64 = 30;
const MOST_SKIPPED: u64 = 24;

/// What had been counted when a measured interval began.
struct Before {
    index: u64,
    commands: Commands,
    states: States,
    latencies: Vec<u64>,
    transaction_latency_sum: u64,
}

/// Settle, measure exactly one refresh interval, extrapolate, jump; the controller keeps its state.
struct Sampling {
    refi: u64,
    until: u64,
    skipped: Option<u64>,
    before: Option<Before>,
}

impl Sampling {
    fn new(refi: u64) -> Self {
        Self { refi, until: SETTLE_CK, skipped: None, before: None }
    }

    fn step(&mut self, run: &mut Run<'_>) {
        let now = run.engine.now();
        if now < self.until {
            return;
        }
        if let Some(before) = self.before.take() {
            self.jump(run, &before);
            self.until = now + SETTLE_CK;
        } else {
            self.before = Some(Before {
                index: run.index,
                commands: run.engine.commands(),
                states: run.engine.states(now),
                latencies: run.latencies.clone(),
                transaction_latency_sum: run.transaction_latency_sum,
            });
            self.until = now + self.refi;
        }
    }

    fn jump(&mut self, run: &mut Run<'_>, before: &Before) {
        let moved = run.index - before.index;
        let left = run.count - run.index;
        let planned = *self.skipped.get_or_insert_with(|| {
            (run.count / (moved.max(1) * LEAST_WINDOWS)).min(MOST_SKIPPED + 1).saturating_sub(1)
        });
        // The end is run exactly, so that the drain is that of the whole stream.
        let times = planned.min((left / moved.max(1)).saturating_sub(1));
        if times == 0 || moved == 0 {
            return;
        }
        run.extra_ck += self.refi * times;
        run.extra.add_scaled(&run.engine.commands(), &before.commands, times);
        run.extra_states.add_scaled(&run.engine.states(run.engine.now()), &before.states, times);
        for (ck, n) in run.latencies.iter_mut().enumerate() {
            *n += (*n - before.latencies.get(ck).copied().unwrap_or(0)) * times;
        }
        run.transaction_latency_sum += (run.transaction_latency_sum - before.transaction_latency_sum) * times;
        if run.part == 0 {
            run.move_to(run.index + moved * times);
        } else {
            // The head's first half is already in the channel: its second follows, then the stream jumps.
            run.index += moved * times;
        }
    }
}
