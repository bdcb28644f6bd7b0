//! One channel alone, fed a stream or a trace: the library behind `presil dram replay`.
//!
//! ```text
//! stream or trace ─► in-order source, 64 B = two bursts ─► tick or burst engine ─► cycles, latencies, commands
//! ```
//!
//! Models: an in-order source with head-of-line blocking that offers bursts before each CK until one is refused.
//! Does not model: PHY and network latency. Source: conventions of our Ramulator 2.1 reference measurements.

use super::map::MapError;
use super::replay_io::ReplayResult;
use super::streams::{Load, StreamKind};
use super::{AddressMap, BurstChannel, Commands, Controller, Done, Request, Standard, TickChannel};

/// Which engine replays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// The oracle, every CK.
    Tick,
    /// The event-skipping engine.
    Burst,
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
    fn get(&self, i: u64) -> Transaction {
        match self {
            Self::Stream { kind, load, .. } => {
                let (address, write) = kind.transaction(i);
                Transaction { address, write, due: load.due(i) }
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
    let mut engine = match path {
        Path::Tick => Engine::Tick(Box::new(TickChannel::new(standard.timings, c))),
        Path::Burst => Engine::Burst(Box::new(BurstChannel::new(standard.timings, c))),
    };
    let (count, chase) = (input.count(), input.chase());
    let mut done = Vec::with_capacity(64);
    let (mut index, mut half) = (0u64, 0u64);
    let mut head = (count > 0).then(|| input.get(0));
    let mut arrival = 0;
    let mut last_done = None;
    // Open transactions: bursts still missing, arrival; tags are transaction numbers modulo the ring.
    let mut open = vec![(0u8, 0u64, 0u64); 4096];
    let (mut outstanding_until, mut outstanding) = (0u64, 0u32);
    let mut latencies = vec![0u64; 1024];
    let mut transaction_latency_sum = 0;
    loop {
        let now = engine.now();
        let mut wake = u64::MAX;
        while let Some(t) = head {
            if half == 0 && chase && (outstanding > 0 || now < outstanding_until) {
                wake = if outstanding > 0 { u64::MAX } else { outstanding_until };
                break;
            }
            if now < t.due + 1 && t.due > 0 {
                wake = t.due + 1;
                break;
            }
            let tag = u32::try_from(index % 4096).expect("below 4096");
            let request =
                Request { place: map.place(t.address + 32 * half), write: t.write, urgent: false, tag };
            if !engine.offer(request, &mut done) {
                break;
            }
            if half == 0 {
                let since = if matches!(input, Input::Stream { load: Load::Fraction(_), .. }) {
                    t.due
                } else {
                    arrival
                };
                open[tag as usize] = (2, since, 0);
            }
            outstanding += 1;
            half += 1;
            if half == 2 {
                half = 0;
                index += 1;
                arrival = now;
                head = (index < count).then(|| input.get(index));
            }
        }
        engine.tick(&mut done);
        for d in done.drain(..) {
            outstanding -= 1;
            outstanding_until = outstanding_until.max(d.done + 1);
            last_done = last_done.max(Some(d.done));
            if !d.write {
                let ck = usize::try_from(d.done + 1 - d.accepted).expect("a latency fits");
                if ck >= latencies.len() {
                    latencies.resize(ck + 1, 0);
                }
                latencies[ck] += 1;
            }
            let slot = &mut open[d.tag as usize];
            slot.0 -= 1;
            slot.2 = slot.2.max(d.done);
            if slot.0 == 0 {
                if !d.write {
                    transaction_latency_sum += slot.2 + 1 - slot.1;
                }
                if chase {
                    arrival = slot.2 + 1;
                }
            }
        }
        if head.is_none() && engine.is_empty() {
            break;
        }
        engine.skip(wake);
    }
    Measured {
        ck_cycles: last_done.map_or(0, |d| d + 1),
        transactions: count,
        read_latency: latencies,
        transaction_latency_sum,
        commands: engine.commands(),
    }
}
