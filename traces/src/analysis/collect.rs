//! One pass over a trace: totals by track, by operation and by engine.
//!
//! Slices and instants before time zero belong to the boot and are counted apart, as the run record does.

use std::collections::BTreeMap;
use std::io::Read;

use crate::perfetto::{ACCOUNTS, Event, Reader, TraceError};

/// Totals of one track.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TrackTotal {
    /// Name.
    pub name: String,
    /// Group.
    pub group: String,
    /// Unit, of counters.
    pub unit: Option<String>,
    /// Slices since time zero.
    pub slices: u64,
    /// Slices before time zero.
    pub boot_slices: u64,
    /// Sum of the slices' cycles since time zero, where they say them.
    pub cycles: u128,
    /// Sum of the commands of a sequencer's slices since time zero.
    pub commands: u128,
    /// Sum of the slices' nanoseconds since time zero.
    pub busy_ns: u128,
    /// Instants since time zero, by name.
    pub instants: BTreeMap<String, u64>,
    /// Of a counter: integral of the value over nanoseconds since time zero, smallest and largest value.
    pub counter: Option<CounterTotal>,
}

/// Totals of a counter since time zero.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CounterTotal {
    /// Integral over nanoseconds.
    pub integral: f64,
    /// Largest value.
    pub max: f64,
    /// Last value.
    pub last: f64,
    at: u64,
}

/// Totals of an operation on one engine, since time zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpTotal {
    /// Slices.
    pub count: u64,
    /// Sum of their cycles.
    pub cycles: u128,
    /// Sum of their nanoseconds.
    pub busy_ns: u128,
    /// Sum of bytes moved.
    pub bytes: u128,
    /// Sum of MACs.
    pub macs: u128,
}

/// Everything the views are made of.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Collected {
    /// What the trace says about its run before it.
    pub header: BTreeMap<String, String>,
    /// And after it.
    pub footer: BTreeMap<String, String>,
    /// Nanosecond of time zero, if it came to that.
    pub zero_ns: Option<u64>,
    /// Nanosecond of the end.
    pub end_ns: u64,
    /// Nanoseconds of the tokens.
    pub tokens_ns: Vec<u64>,
    /// Tracks in order of the file.
    pub tracks: Vec<TrackTotal>,
    /// By (name of the slice, number of the track).
    pub ops: BTreeMap<(String, usize), OpTotal>,
    /// Exact accounts of the engines: cycles by cause, `total`, `hertz`, `commands`.
    pub accounts: BTreeMap<String, BTreeMap<String, u64>>,
    /// Packets' end: size of the file.
    pub bytes: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Numbers {
    cycles: Option<u64>,
    commands: u64,
    bytes: u64,
    macs: u64,
}

#[derive(Default)]
struct Pass {
    out: Collected,
    /// Slices under way by track: name, start, numbers.
    open: Vec<Vec<(u64, u64, Numbers)>>,
    /// Operations by (number of the name, track), until names are looked up at the end.
    ops: BTreeMap<(u64, usize), OpTotal>,
}

/// Reads a whole trace.
///
/// # Errors
/// If it is no trace, not all of one, or contradicts itself.
pub fn collect(input: impl Read) -> Result<Collected, TraceError> {
    let mut reader = Reader::new(input);
    let mut pass = Pass::default();
    while let Some(event) = reader.next_event()? {
        pass.event(&reader, event)?;
    }
    for ((name, track), total) in pass.ops {
        let slot = pass.out.ops.entry((reader.name(name).to_owned(), track)).or_default();
        slot.add(&total);
    }
    let mut out = pass.out;
    out.header = reader.header().cloned().unwrap_or_default();
    out.footer = reader.footer().cloned().unwrap_or_default();
    out.bytes = reader.offset();
    out.agree(&reader)?;
    Ok(out)
}

impl OpTotal {
    /// Adds another total.
    pub fn add(&mut self, other: &Self) {
        self.count += other.count;
        self.cycles += other.cycles;
        self.busy_ns += other.busy_ns;
        self.bytes += other.bytes;
        self.macs += other.macs;
    }
}

fn damaged<R: Read>(reader: &Reader<R>, problem: String) -> TraceError {
    TraceError::Damaged { offset: reader.offset(), problem }
}

impl Pass {
    fn event<R: Read>(&mut self, reader: &Reader<R>, event: Event) -> Result<(), TraceError> {
        match event {
            Event::Track(number) => {
                let t = &reader.tracks()[number];
                let counter = t.unit.is_some().then(CounterTotal::default);
                let (name, group, unit) = (t.name.clone(), t.group.clone(), t.unit.clone());
                self.out.tracks.push(TrackTotal { name, group, unit, counter, ..TrackTotal::default() });
                self.open.push(Vec::new());
            }
            Event::Begin { track, name, at } => {
                let mut n = Numbers::default();
                for (key, value) in reader.arguments() {
                    match key {
                        "cycles" => n.cycles = Some(value),
                        "commands" => n.commands = value,
                        "bytes" => n.bytes = value,
                        "macs" => n.macs = value,
                        _ => {}
                    }
                }
                self.open[track].push((name, at, n));
            }
            Event::End { track, at } => {
                let begun = self.open[track].pop();
                let (name, start, n) =
                    begun.ok_or_else(|| damaged(reader, "a slice ends that did not begin".to_owned()))?;
                let ns = at.checked_sub(start);
                let ns = ns.ok_or_else(|| {
                    damaged(reader, format!("a slice ends at {at} ns, it began at {start} ns"))
                })?;
                self.slice(track, name, start, ns, n);
            }
            Event::Instant { track, name, at } => self.instant(reader, track, name, at)?,
            Event::Counter { track, at, value } => self.counter(track, at, value),
        }
        Ok(())
    }

    fn since_zero(&self, at: u64) -> bool {
        self.out.zero_ns.is_some_and(|zero| at >= zero)
    }

    fn slice(&mut self, track: usize, name: u64, start: u64, ns: u64, n: Numbers) {
        let counted = self.since_zero(start);
        let t = &mut self.out.tracks[track];
        if !counted {
            t.boot_slices += 1;
            return;
        }
        t.slices += 1;
        t.cycles += u128::from(n.cycles.unwrap_or(0));
        t.commands += u128::from(n.commands);
        t.busy_ns += u128::from(ns);
        self.ops.entry((name, track)).or_default().add(&OpTotal {
            count: 1,
            cycles: n.cycles.unwrap_or(0).into(),
            busy_ns: ns.into(),
            bytes: n.bytes.into(),
            macs: n.macs.into(),
        });
    }

    fn instant<R: Read>(
        &mut self,
        reader: &Reader<R>,
        track: usize,
        name: u64,
        at: u64,
    ) -> Result<(), TraceError> {
        let name = reader.name(name).to_owned();
        match name.as_str() {
            "time_zero" => self.out.zero_ns = Some(at),
            "token" => self.out.tokens_ns.push(at),
            "end" => self.out.end_ns = at,
            _ => {}
        }
        let counted = self.since_zero(at);
        let t = &mut self.out.tracks[track];
        if t.name != ACCOUNTS {
            *t.instants.entry(name).or_default() += u64::from(counted);
            return Ok(());
        }
        let account: BTreeMap<String, u64> = reader.arguments().map(|(k, v)| (k.to_owned(), v)).collect();
        if self.out.accounts.insert(name.clone(), account).is_some() {
            return Err(damaged(reader, format!("two accounts of {name}")));
        }
        Ok(())
    }

    fn counter(&mut self, track: usize, at: u64, value: f64) {
        let from = self.out.zero_ns.unwrap_or(u64::MAX);
        let Some(c) = &mut self.out.tracks[track].counter else { return };
        let start = c.at.max(from);
        c.integral += c.last * at.saturating_sub(start) as f64;
        (c.at, c.last) = (at, value);
        if at >= from {
            c.max = c.max.max(value);
        }
    }
}

/// Names in an account that are no causes.
pub(super) const NO_CAUSES: [&str; 3] = ["total", "hertz", "commands"];

impl Collected {
    /// Holds slices against accounts: an NPU engine's slices sum to its active cycles, its commands to their number.
    fn agree<R: Read>(&self, reader: &Reader<R>) -> Result<(), TraceError> {
        for (engine, account) in &self.accounts {
            let get = |key: &str| u128::from(account.get(key).copied().unwrap_or(0));
            let causes: u128 = account
                .iter()
                .filter(|(k, _)| !NO_CAUSES.contains(&k.as_str()))
                .map(|(_, n)| u128::from(*n))
                .sum();
            if causes != get("total") {
                let problem =
                    format!("{engine}: causes sum to {causes} cycles, its total is {}", get("total"));
                return Err(damaged(reader, problem));
            }
            let commands = account.contains_key("commands");
            let Some(t) = self.tracks.iter().find(|t| commands && t.name == *engine) else { continue };
            if t.cycles != get("active") {
                let problem =
                    format!("{engine}: slices sum to {} cycles, {} were active", t.cycles, get("active"));
                return Err(damaged(reader, problem));
            }
            let counted = if t.commands > 0 { t.commands } else { u128::from(t.slices) };
            if counted != get("commands") {
                let problem = format!("{engine}: {counted} commands in slices, {} executed", get("commands"));
                return Err(damaged(reader, problem));
            }
        }
        Ok(())
    }
}
