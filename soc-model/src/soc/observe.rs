//! What a chip shows of itself while it runs: spans on harts and NPU engines, counters of memory, work and power.
//!
//! Models: nothing. Observation reads state between events and schedules none, so a run is the same with and without.
//! Does not model: per-instruction detail; a hart's function is read where it meets the outside world.
//! Source: the meters and counts that the run record is made of.

use isa::tags::OpKind;
use npu_model::cluster::{ENGINE_NAMES, SEQUENCER};
use npu_model::{Activity, Cause, Cluster, Executed, MX};
use sim_kernel::units::FS_PER_S;
use sim_kernel::{Arguments, Flow, Name, Names, Probe, Sink, Time, Track, TrackInfo, TrackKind};

use super::account::{Account, Coefficients, RunResult, Snapshot};
use super::chip::World;
use super::symbols::Symbols;
use crate::cpu::Hart;

/// Length of the windows counters are averaged over.
const WINDOW: Time = Time::from_ns(1_000_000);
/// Probes kept before they are handed on.
pub(super) const BATCH: usize = 1024;
/// Counters of power: class and how its components' names begin; what begins otherwise is the fabric's.
const POWER: [(&str, &str); 3] = [("npu", "npu_"), ("cpu", "cpu_"), ("dram", "dram_")];

/// Names that probes use all the time.
#[derive(Clone, Copy, Debug)]
struct Fixed {
    waits: [Name; Cause::ALL.len()],
    causes: [Name; Cause::ALL.len()],
    cycles: Name,
    command: Name,
    bytes: Name,
    macs: Name,
    vector_ops: Name,
    commands: Name,
    dispatch: Name,
    core: Name,
    interrupt: Name,
    interrupt_raised: Name,
    acknowledged: Name,
    doorbell: Name,
    token: Name,
    id: Name,
    running: Name,
}

impl Fixed {
    fn new(n: &mut Names) -> Self {
        Self {
            waits: core::array::from_fn(|i| n.of(&format!("wait_{}", Cause::ALL[i].name()))),
            causes: core::array::from_fn(|i| n.of(Cause::ALL[i].name())),
            cycles: n.of("cycles"),
            command: n.of("command"),
            bytes: n.of("bytes"),
            macs: n.of("macs"),
            vector_ops: n.of("vector_ops"),
            commands: n.of("commands"),
            dispatch: n.of("dispatch"),
            core: n.of("core"),
            interrupt: n.of("interrupt"),
            interrupt_raised: n.of("interrupt_raised"),
            acknowledged: n.of("interrupt_acknowledged"),
            doorbell: n.of("doorbell"),
            token: n.of("token"),
            id: n.of("id"),
            running: n.of("running"),
        }
    }
}

#[derive(Clone, Debug)]
struct CoreLanes {
    sequencer: Track,
    engines: [Option<Track>; npu_model::ENGINES],
    /// Dispatch under way: start, end, cycles, commands, flow.
    dispatch: Option<(Time, Time, u64, u64, Flow)>,
    /// Flow of a doorbell whose list has not begun.
    rung: Option<u64>,
    /// Flow of the list that runs.
    current: Option<u64>,
    /// The interrupt line is up, for this flow.
    line: bool,
    raised: Option<u64>,
}

#[derive(Clone, Debug)]
struct HartLane {
    track: Track,
    /// Function under way: name, start, end so far.
    open: Option<(Name, Time, Time)>,
    interrupts: u64,
}

#[derive(Clone, Debug)]
struct Counters {
    read: Track,
    write: Track,
    channels: Vec<Track>,
    macs: Track,
    power: Vec<Track>,
    total: Track,
    tokens: Track,
}

/// Collects a chip's probes.
#[derive(Debug)]
pub(super) struct Observer {
    names: Names,
    tracks: Vec<TrackInfo>,
    declared: (usize, usize),
    probes: Vec<Probe>,
    fixed: Fixed,
    job: Track,
    accounts: Track,
    harts: Vec<HartLane>,
    cores: Vec<CoreLanes>,
    counters: Counters,
    coefficients: Coefficients,
    last: Option<Snapshot>,
    next_window: Time,
    next_flow: u64,
    tokens: usize,
    /// Names of operations by layer and kind.
    operations: Vec<Vec<Option<Name>>>,
}

struct Lanes(Vec<TrackInfo>);

impl Lanes {
    fn add(&mut self, group: &str, name: &str, kind: TrackKind) -> Track {
        self.0.push(TrackInfo { group: group.to_owned(), name: name.to_owned(), kind });
        Track::at(self.0.len() - 1)
    }
    fn spans(&mut self, group: &str, name: &str) -> Track {
        self.add(group, name, TrackKind::Spans)
    }
    fn counter(&mut self, group: &str, name: &str, unit: &'static str, decimals: u32) -> Track {
        self.add(group, name, TrackKind::Counter { unit, decimals })
    }
}

impl Observer {
    pub(super) fn new(npu: &Cluster, harts: &[String], channels: usize, account: &Account) -> Self {
        let (mut l, mut names) = (Lanes(Vec::new()), Names::default());
        let job = l.spans("run", "job");
        let accounts = l.spans("run", "accounts");
        let tokens = l.counter("run", "tokens", "tokens", 0);
        let lane =
            |h: &String, l: &mut Lanes| HartLane { track: l.spans("cpu", h), open: None, interrupts: 0 };
        let harts = harts.iter().map(|h| lane(h, &mut l)).collect();
        let cores = (0..npu.cores.cores.len()).map(|i| {
            let group = format!("npu{i}");
            let sequencer = l.spans(&group, &format!("npu{i}_{SEQUENCER}"));
            let mut engines = [None; npu_model::ENGINES];
            for e in npu.engines() {
                engines[e] = Some(l.spans(&group, &format!("npu{i}_{}", ENGINE_NAMES[e])));
            }
            let quiet = (None, None, None, false, None);
            let (dispatch, rung, current, line, raised) = quiet;
            CoreLanes { sequencer, engines, dispatch, rung, current, line, raised }
        });
        let cores = cores.collect();
        let counters = Counters {
            read: l.counter("memory", "dram_read", "GB/s", 9),
            write: l.counter("memory", "dram_write", "GB/s", 9),
            channels: (0..channels).map(|i| l.counter("memory", &format!("dram{i}_busy"), "%", 4)).collect(),
            macs: l.counter("npu", "mac_rate", "TMAC/s", 12),
            power: POWER
                .iter()
                .map(|p| p.0)
                .chain(["fabric"])
                .map(|n| l.counter("power", &format!("power_{n}"), "W", 6))
                .collect(),
            total: l.counter("power", "power_total", "W", 6),
            tokens,
        };
        let fixed = Fixed::new(&mut names);
        Self {
            names,
            tracks: l.0,
            declared: (0, 0),
            probes: Vec::with_capacity(2 * BATCH),
            fixed,
            job,
            accounts,
            harts,
            cores,
            counters,
            coefficients: account.coefficients().expect("looked up when the account was made"),
            last: None,
            next_window: Time::ZERO,
            next_flow: 1,
            tokens: 0,
            operations: Vec::new(),
        }
    }

    /// Hands everything collected on; what is still open stays.
    pub(super) fn drain(&mut self, sink: &mut dyn Sink) {
        self.tracks[self.declared.0..].iter().for_each(|t| sink.track(t));
        self.names.texts()[self.declared.1..].iter().for_each(|n| sink.name(n));
        self.declared = (self.tracks.len(), self.names.texts().len());
        self.probes.iter().for_each(|p| sink.emit(p));
        self.probes.clear();
    }

    pub(super) const fn full(&self) -> bool {
        self.probes.len() >= BATCH
    }

    fn span(
        &mut self,
        track: Track,
        name: Name,
        (start, end): (Time, Time),
        flow: Flow,
        arguments: Arguments,
    ) {
        self.probes.push(Probe::Span { track, name, start, end, flow, arguments });
    }

    fn instant(&mut self, track: Track, name: Name, at: Time, flow: Flow, arguments: Arguments) {
        self.probes.push(Probe::Instant { track, name, at, flow, arguments });
    }

    fn mark(&mut self, name: &str, at: Time) {
        let name = self.names.of(name);
        self.instant(self.job, name, at, Flow::None, Arguments::default());
    }

    /// Name of an operation: `layer12.qkv`, or the kind alone where it belongs to no layer.
    fn operation(&mut self, layer: u64, tag: u64) -> Name {
        let kind = OpKind::from_code(tag).unwrap_or(OpKind::None);
        let row =
            if kind.per_layer() { usize::try_from(layer).unwrap_or(usize::MAX).saturating_add(1) } else { 0 };
        // Layers come from firmware: a number no model has is named, not remembered.
        if row > 4096 {
            return self.names.of(kind.name());
        }
        if self.operations.len() <= row {
            self.operations.resize(row + 1, Vec::new());
        }
        let at = kind as usize;
        let known = &mut self.operations[row];
        if known.len() <= at {
            known.resize(at + 1, None);
        }
        if let Some(name) = known[at] {
            return name;
        }
        let text = if row == 0 { kind.name().to_owned() } else { format!("layer{layer}.{}", kind.name()) };
        let name = self.names.of(&text);
        self.operations[row][at] = Some(name);
        name
    }

    /// A command ended: its active part is the slice, everything else of its engine's time is in the arguments.
    pub(super) fn executed(&mut self, core: usize, engine: usize, x: &Executed<'_>) {
        let Some(track) = self.cores[core].engines[engine] else { return };
        let name = self.operation(x.issued.mark % isa::tags::MARK_LAYERS, x.issued.command.header.tag);
        let f = self.fixed;
        let mut a = Arguments::default().with(f.cycles, x.active).with(f.command, x.issued.index);
        for (cause, cycles) in x.waits {
            a = a.unless_zero(f.waits[cause as usize], cycles);
        }
        a = a.unless_zero(f.causes[x.rest.0 as usize], x.rest.1);
        a = if engine < MX {
            a.with(f.bytes, x.activity.dma_bytes)
        } else if engine == MX {
            a.with(f.macs, x.activity.total_macs())
        } else {
            a.with(f.vector_ops, x.activity.vector_ops + x.activity.special_ops)
        };
        self.span(track, name, (x.start, x.end), Flow::None, a);
    }

    /// The sequencer was active; what follows without a gap is one slice.
    pub(super) fn sequenced(&mut self, core: usize, start: Time, end: Time, cycles: u64, commands: u64) {
        let c = &mut self.cores[core];
        let rung = c.rung.take();
        if let Some(d) = c.dispatch.as_mut().filter(|d| d.1 == start && rung.is_none()) {
            (d.1, d.2, d.3) = (end, d.2 + cycles, d.3 + commands);
            return;
        }
        if rung.is_some() {
            c.current = rung;
        }
        let flow = rung.map_or(Flow::None, Flow::Through);
        let before = c.dispatch.replace((start, end, cycles, commands, flow));
        self.dispatched(core, before);
    }

    fn dispatched(&mut self, core: usize, what: Option<(Time, Time, u64, u64, Flow)>) {
        let Some((start, end, cycles, commands, flow)) = what else { return };
        let f = self.fixed;
        let a = Arguments::default().with(f.cycles, cycles).with(f.commands, commands);
        self.span(self.cores[core].sequencer, f.dispatch, (start, end), flow, a);
    }

    /// A hart rang a core's doorbell.
    pub(super) fn doorbell(&mut self, now: Time, hart: usize, core: usize) {
        let flow = self.next_flow;
        self.next_flow += 1;
        self.cores[core].rung = Some(flow);
        let a = Arguments::default().with(self.fixed.core, core as u64);
        self.instant(self.harts[hart].track, self.fixed.doorbell, now, Flow::Through(flow), a);
    }

    /// A core's interrupt line has this level from now on.
    pub(super) fn interrupt_line(&mut self, now: Time, core: usize, level: bool) {
        let c = &mut self.cores[core];
        if level && !c.line {
            c.raised = c.current.take();
            let (track, flow) = (c.sequencer, c.raised.map_or(Flow::None, Flow::Through));
            self.instant(track, self.fixed.interrupt_raised, now, flow, Arguments::default());
        }
        self.cores[core].line = level;
    }

    /// A hart acknowledged a core's interrupt.
    pub(super) fn acknowledged(&mut self, now: Time, hart: usize, core: usize) {
        let flow = self.cores[core].raised.take().map_or(Flow::None, Flow::Ends);
        let a = Arguments::default().with(self.fixed.core, core as u64);
        self.instant(self.harts[hart].track, self.fixed.acknowledged, now, flow, a);
    }

    /// A hart ran from `from` in the function at `pc`; it sleeps now, or goes on.
    pub(super) fn hart_ran(&mut self, hart: &Hart, index: usize, from: Time, pc: u64, symbols: &Symbols) {
        let (to, taken) = (hart.local_time(), hart.interrupts_taken());
        let name = match symbols.at(pc) {
            Some(function) => self.names.of(function),
            None => self.fixed.running,
        };
        let lane = &mut self.harts[index];
        let (track, new) = (lane.track, taken - lane.interrupts);
        lane.interrupts = taken;
        let ended = match &mut lane.open {
            Some(open) if open.0 == name => {
                open.2 = to;
                None
            }
            open => open.replace((name, from, to)).map(|(n, start, _)| (n, start, from)),
        };
        let slept = if hart.asleep() { lane.open.take() } else { None };
        for (name, start, end) in ended.into_iter().chain(slept) {
            self.span(track, name, (start, end), Flow::None, Arguments::default());
        }
        for _ in 0..new {
            self.instant(track, self.fixed.interrupt, from, Flow::None, Arguments::default());
        }
    }

    /// Whether a window of the counters has ended.
    pub(super) fn due(&self, now: Time) -> bool {
        now >= self.next_window
    }

    /// Ends a window of the counters: each gets the mean since the last window as its value from then.
    pub(super) fn sample(&mut self, now: Time, account: &Account, world: &World, harts: &[Hart]) {
        let s = account.window(world, harts, now);
        self.next_window = now + WINDOW;
        let Some(last) = self.last.replace(s) else { return };
        let s = self.last.clone().expect("just put there");
        let span = (s.at - last.at).get();
        if span == 0 {
            return;
        }
        let rate = |n: u64| {
            u64::try_from(u128::from(n) * u128::from(FS_PER_S) / u128::from(span)).unwrap_or(u64::MAX)
        };
        let c = self.counters.clone();
        let moved = |f: fn(&crate::dram::MemoryStats) -> u64| f(&s.dram) - f(&last.dram);
        let mut values = vec![
            (c.read, rate(moved(|d| d.npu.read_bytes + d.cpu.read_bytes))),
            (c.write, rate(moved(|d| d.npu.write_bytes + d.cpu.write_bytes))),
            (c.macs, rate(Activity::since(&s.npu, &last.npu).total_macs())),
        ];
        let busy = s.dram.busy.iter().zip(&last.dram.busy).map(|(b, a)| b.saturating_sub(*a).get());
        // Millionths of the window, as a percentage with four decimals.
        let share = |b: u64| u64::try_from(u128::from(b) * 1_000_000 / u128::from(span)).unwrap_or(u64::MAX);
        values.extend(c.channels.iter().copied().zip(busy.map(share)));
        let mut classes = [0u64; POWER.len() + 1];
        for (component, energy) in account.energy(&self.coefficients, &last, &s) {
            let class = POWER.iter().position(|p| component.starts_with(p.1)).unwrap_or(POWER.len());
            classes[class] += energy.get();
        }
        // Femtojoules a second are 1e-9 microwatts.
        let microwatts =
            |fj: u64| u64::try_from(u128::from(fj) * 1_000_000 / u128::from(span)).unwrap_or(u64::MAX);
        values.extend(c.power.iter().copied().zip(classes.map(microwatts)));
        values.push((c.total, microwatts(classes.iter().sum())));
        self.probes.extend(values.into_iter().map(|(track, value)| Probe::Counter {
            track,
            at: last.at,
            value,
        }));
    }

    /// Time zero is now.
    pub(super) fn time_zero(&mut self, now: Time, account: &Account, world: &World, harts: &[Hart]) {
        self.sample(now, account, world, harts);
        self.mark("time_zero", now);
    }

    /// Tokens written so far.
    pub(super) fn tokens(&mut self, tokens: &[(u32, Time)]) {
        let f = self.fixed;
        for (id, at) in &tokens[self.tokens..] {
            self.instant(self.job, f.token, *at, Flow::None, Arguments::default().with(f.id, u64::from(*id)));
            self.tokens += 1;
            let value = self.tokens as u64;
            self.probes.push(Probe::Counter { track: self.counters.tokens, at: *at, value });
        }
    }

    /// Closes what is open when a run ends.
    pub(super) fn close(&mut self, end: Time) {
        for core in 0..self.cores.len() {
            let open = self.cores[core].dispatch.take();
            self.dispatched(core, open);
        }
        for hart in 0..self.harts.len() {
            if let Some((name, start, to)) = self.harts[hart].open.take() {
                self.span(self.harts[hart].track, name, (start, to), Flow::None, Arguments::default());
            }
        }
        let c = self.counters.clone();
        let values = [c.read, c.write, c.macs, c.total].into_iter().chain(c.channels).chain(c.power);
        self.probes.extend(values.map(|track| Probe::Counter { track, at: end, value: 0 }));
        self.mark("end", end);
    }

    /// The exact account of every engine from time zero to the end, as the record has it.
    pub(super) fn accounts(&mut self, result: &RunResult, hertz: impl Fn(&str) -> u64) {
        for (engine, cycles) in &result.cycles {
            let mut a = Arguments::default();
            for (cause, n) in &cycles.causes {
                a = a.with(self.names.of(cause), *n);
            }
            a = a.with(self.names.of("total"), cycles.total).with(self.names.of("hertz"), hertz(engine));
            if let Some(n) = result.commands.get(engine) {
                a = a.with(self.fixed.commands, *n);
            }
            let name = self.names.of(engine);
            self.instant(self.accounts, name, result.end, Flow::None, a);
        }
    }
}
