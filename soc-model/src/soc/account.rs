//! What a run amounts to: counts at time zero, at the first token and at the end, and the energy between them.
//!
//! Models: energy per action times counts, leakage by block and temperature, one cause for every engine-cycle.
//! Does not model: voltage changes within a run, temperature changes within a run.
//! Source: the energy table named in the configuration; `dram::energy`.

use std::collections::BTreeMap;

use npu_model::cluster::Gated;
use npu_model::cluster::SEQUENCER;
use npu_model::{Activity, Cause, ENGINES, MacClass, Meter, OpKey, OpRow, Preemptions};
use sim_kernel::{Clock, Energy, EnergyLedger, Hertz, MilliVolt, Time};

use super::build::BuildError;
use super::chip::World;
use super::cycles_at;
use super::traffic::TrafficResult;
use crate::config::SocConfig;
use crate::cpu::{CAUSES, Hart, HartStats};
use crate::dram::MemoryStats;
use crate::dram::energy::{DramAction, system_counts};
use crate::fabric::{Asked, Client, Content, Contention, FabricStats, SlcUse};
use crate::power::EnergyTable;

/// Counts at one instant.
#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    pub(super) at: Time,
    pub(super) npu: Activity,
    meters: Vec<(usize, &'static str, Meter)>,
    executed: Vec<(usize, &'static str, u64)>,
    /// Sequencer cycles: all, and those of cores that had a list.
    sequencer: (u64, u64),
    fetched: u64,
    harts: Vec<HartStats>,
    pub(super) dram: MemoryStats,
    pub(super) fabric: FabricStats,
    doorbells: u64,
    lines: [u64; 2],
    preemptions: Preemptions,
    /// Nanoseconds of a core's leakage that gated engines saved.
    gated_ns: u64,
}

/// Collects what reports need.
#[derive(Clone, Debug)]
pub struct Account {
    cfg: SocConfig,
    table: EnergyTable,
    hart_names: Vec<String>,
    zero: Option<Snapshot>,
    first: Option<Snapshot>,
}

/// Cycles of one engine by cause.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EngineCycles {
    /// All of them.
    pub total: u64,
    /// By cause.
    pub causes: BTreeMap<String, u64>,
}

/// A figure for boot, prefill and decode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Phases<T> {
    /// From reset to time zero.
    pub boot: T,
    /// From time zero to the first token.
    pub prefill: T,
    /// From the first token to the end.
    pub decode: T,
}

/// One operation of the model, with its energy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpResult {
    /// Pass, layer, kind.
    pub key: OpKey,
    /// Counts and times (from reset).
    pub row: OpRow,
    /// Dynamic energy.
    pub energy: Energy,
}

/// A finished run, in integers.
#[derive(Clone, Debug)]
pub struct RunResult {
    /// Time zero, from reset.
    pub zero: Time,
    /// End of the run, from reset.
    pub end: Time,
    /// Tokens and when they were written, from reset.
    pub tokens: Vec<(u32, Time)>,
    /// The model's choice at each token; another than the token only where one was forced.
    pub chosen: Vec<u32>,
    /// Natural logarithm of each token's probability; empty in a shape-only run.
    pub logprobs: Vec<f64>,
    /// When an encoder's vector was complete, and its values; those are missing in a shape-only run.
    pub embedding: Option<(Time, Vec<f32>)>,
    /// Energy by component.
    pub energy: Phases<BTreeMap<String, Energy>>,
    /// Part of prefill and decode energy on the NPU's supply.
    pub npu_rail: Energy,
    /// The matrix arrays alone at their lowest voltage, for the same MACs.
    pub array_vmin: Energy,
    /// Instructions retired.
    pub instructions: Phases<u64>,
    /// Interrupts taken since time zero.
    pub interrupts: u64,
    /// Doorbells rung since time zero.
    pub doorbells: u64,
    /// What the NPU did since time zero.
    pub npu: Activity,
    /// Bytes of commands the NPU fetched since time zero.
    pub command_bytes: u64,
    /// Lines the CPUs' shared cache read and wrote since time zero.
    pub cpu_lines: [u64; 2],
    /// Bytes memory served since time zero: (read, written) for the NPU, then for the CPUs.
    pub served: [(u64, u64); 2],
    /// Bytes of synthetic noise memory served since time zero.
    pub noise_bytes: u64,
    /// What memory moved since time zero by what it carried, and the memory's energy for it.
    pub traffic: Vec<TrafficResult>,
    /// What clients had of the system cache since time zero; empty without one.
    pub slc: Vec<SlcUse>,
    /// Bytes it wrote back.
    pub slc_written_back: u64,
    /// Who waited for whom since time zero, by client.
    pub contention: Contention,
    /// Names of the clients.
    pub clients: Vec<String>,
    /// Bytes memory served in decode.
    pub decode_read_bytes: u64,
    /// Memory's peak.
    pub peak_bytes_per_s: u64,
    /// Engines by name.
    pub cycles: BTreeMap<String, EngineCycles>,
    /// Preemption of NPU queues since time zero.
    pub preemptions: Preemptions,
    /// Commands executed since time zero, by NPU engine; of a sequencer, all it dispatched.
    pub commands: BTreeMap<String, u64>,
    /// Operations in order.
    pub ops: Vec<OpResult>,
    /// Pages of the cache of keys and values, of all layers and heads, as the firmware told: taken, there are.
    pub kv_pages: (u64, u64),
    /// Digest of all events.
    pub digest: String,
    /// Events dispatched.
    pub events: u64,
    /// Console output.
    pub console: String,
    /// Resident bytes of modelled memory.
    pub resident_bytes: u64,
    /// fp32 logits of the last step, where the run computes them.
    pub samples: u64,
}

impl Account {
    /// An empty account.
    ///
    /// # Errors
    /// If the energy table does not exist.
    pub fn new(cfg: SocConfig, hart_names: Vec<String>) -> Result<Self, BuildError> {
        let table = EnergyTable::preset(&cfg.power.energy_table).map_err(|e| BuildError::Config {
            path: "power.energy-table".to_owned(),
            problem: e.to_string(),
        })?;
        let account = Self { cfg, table, hart_names, zero: None, first: None };
        // Every row a run may need is looked up once now, so that a gap shows before the run and not after it.
        account.coefficients()?;
        Ok(account)
    }

    fn snapshot(&self, world: &World, harts: &[Hart], at: Time) -> Snapshot {
        let meters = world.npu.meters(at);
        Snapshot {
            at,
            npu: *world.npu.total(),
            executed: world.npu.executed(),
            sequencer: (sequencer_cycles(&meters), active_cycles(&meters)),
            meters,
            fetched: world.npu.fetched_bytes(),
            harts: harts.iter().map(Hart::stats).collect(),
            dram: world.chip.fabric.memory_stats().clone(),
            fabric: world.chip.fabric.stats().clone(),
            doorbells: world.chip.doorbells,
            lines: world.chip.lines_asked,
            preemptions: world.npu.preemptions(),
            gated_ns: gated_ns(&world.npu.gated(at), self.cfg.npu.frequency_hz),
        }
    }

    /// Counts in the middle of a run, for windows that follow each other: waits under way are not idle.
    pub(super) fn window(&self, world: &World, harts: &[Hart], at: Time) -> Snapshot {
        let mut s = self.snapshot(world, harts, at);
        s.sequencer.1 = world.npu.sequencing_cycles(at).min(s.sequencer.0);
        s
    }

    /// Time zero, of each turn anew.
    pub(super) fn start(&mut self, world: &World, harts: &[Hart], at: Time) {
        self.zero = Some(self.snapshot(world, harts, at));
        self.first = None;
    }

    /// The first token has been written.
    pub(super) fn first_token(&mut self, world: &World, harts: &[Hart], at: Time) {
        self.first = Some(self.snapshot(world, harts, at));
    }

    /// The run is over.
    pub(super) fn finish(&mut self, world: &World, harts: &[Hart], end: Time) -> RunResult {
        let last = self.snapshot(world, harts, end);
        let reset = Snapshot {
            at: Time::ZERO,
            npu: Activity::default(),
            meters: world
                .npu
                .meters(Time::ZERO)
                .into_iter()
                .map(|(c, n, _)| (c, n, Meter::default()))
                .collect(),
            executed: world.npu.executed().into_iter().map(|(c, n, _)| (c, n, 0)).collect(),
            sequencer: (0, 0),
            fetched: 0,
            harts: vec![HartStats::default(); harts.len()],
            dram: MemoryStats { busy: vec![Time::ZERO; last.dram.busy.len()], ..MemoryStats::default() },
            fabric: FabricStats::new(world.chip.fabric.clients()),
            doorbells: 0,
            lines: [0; 2],
            preemptions: Preemptions::default(),
            gated_ns: 0,
        };
        let zero = self.zero.clone().unwrap_or_else(|| reset.clone());
        let first = self.first.clone().unwrap_or_else(|| last.clone());
        let k = self.coefficients().expect("looked up when the account was made");
        let total = |s: &Snapshot| s.harts.iter().map(|h| h.instructions).sum::<u64>();
        let npu = last.npu.since(&zero.npu);
        let asked = [npu.memory_read + last.fetched - zero.fetched, npu.memory_written];
        RunResult {
            zero: zero.at,
            end,
            tokens: world.chip.mailbox.tokens.clone(),
            chosen: world.chip.mailbox.chosen.clone(),
            logprobs: world.chip.mailbox.logprobs.clone(),
            embedding: world.chip.mailbox.embedded.map(|at| (at, world.chip.mailbox.embedding.clone())),
            energy: Phases {
                boot: self.energy(&k, &reset, &zero),
                prefill: self.energy(&k, &zero, &first),
                decode: self.energy(&k, &first, &last),
            },
            npu_rail: self.rail(&k, &zero, &first) + self.rail(&k, &first, &last),
            array_vmin: k.array_vmin(&npu),
            instructions: Phases {
                boot: total(&zero),
                prefill: total(&first) - total(&zero),
                decode: total(&last) - total(&first),
            },
            interrupts: last.harts.iter().zip(&zero.harts).map(|(b, a)| b.interrupts - a.interrupts).sum(),
            doorbells: last.doorbells - zero.doorbells,
            npu,
            command_bytes: last.fetched - zero.fetched,
            cpu_lines: [last.lines[0] - zero.lines[0], last.lines[1] - zero.lines[1]],
            served: served(&zero.dram, &last.dram),
            noise_bytes: last.dram.noise_bytes - zero.dram.noise_bytes,
            traffic: traffic(&zero, &last),
            slc: slc(&zero, &last),
            slc_written_back: moved(&zero, &last)[Content::WriteBack as usize].write,
            contention: last.fabric.contention.since(&zero.fabric.contention),
            clients: (0..world.chip.fabric.clients()).map(Client::name).collect(),
            decode_read_bytes: served(&first.dram, &last.dram).iter().map(|s| s.0).sum(),
            peak_bytes_per_s: world.chip.fabric.dram().peak_bytes_per_s(),
            cycles: self.cycles(world, &zero, &last),
            preemptions: last.preemptions.since(&zero.preemptions),
            commands: last
                .executed
                .iter()
                .zip(&zero.executed)
                .map(|((core, name, b), (_, _, a))| (format!("npu{core}_{name}"), b - a))
                .collect(),
            ops: ops(world, &k, zero.at, from_memory(asked, &slc(&zero, &last))),
            kv_pages: world.chip.mailbox.pages,
            digest: world.chip.queue.digest().hex(),
            events: world.chip.queue.dispatched(),
            console: String::from_utf8_lossy(&world.chip.console).into_owned(),
            resident_bytes: world.chip.memory.residency().pages * 64 * 1024,
            samples: last.dram.samples,
        }
    }

    fn cycles(&self, world: &World, zero: &Snapshot, last: &Snapshot) -> BTreeMap<String, EngineCycles> {
        let mut out = BTreeMap::new();
        for ((core, name, end), (_, _, start)) in last.meters.iter().zip(&zero.meters) {
            let mut e = EngineCycles { total: end.total() - start.total(), ..EngineCycles::default() };
            for cause in Cause::ALL {
                let n = end.spent()[*cause as usize] - start.spent()[*cause as usize];
                e.causes.insert(cause.name().to_owned(), n);
            }
            out.insert(format!("npu{core}_{name}"), e);
        }
        for (i, name) in self.hart_names.iter().enumerate() {
            out.insert(name.clone(), self.hart_cycles(i, zero, last));
        }
        let ck = Clock::new(Hertz::new(world.chip.fabric.dram().ck_hz()));
        for (i, (end, start)) in last.dram.busy.iter().zip(&zero.dram.busy).enumerate() {
            let total = cycles_at(&ck, last.at) - cycles_at(&ck, zero.at);
            let busy = cycles_at(&ck, *end - *start).min(total);
            let causes = BTreeMap::from([("active".to_owned(), busy), ("idle".to_owned(), total - busy)]);
            out.insert(format!("dram{i}"), EngineCycles { total, causes });
        }
        out
    }

    /// A sleeping hart's clock runs on without it: what it has not counted yet is idle.
    fn hart_cycles(&self, hart: usize, zero: &Snapshot, last: &Snapshot) -> EngineCycles {
        let clock = self.hart_clock(hart);
        let padded = |s: &Snapshot| {
            let h = &s.harts[hart];
            let mut causes = h.causes;
            let idle = CAUSES.iter().position(|(_, n)| *n == "idle").expect("harts can idle");
            causes[idle] += cycles_at(&clock, s.at).saturating_sub(h.cycles);
            causes
        };
        let (a, b) = (padded(zero), padded(last));
        let causes: BTreeMap<String, u64> = CAUSES
            .iter()
            .zip(b.iter().zip(a))
            .map(|((_, name), (b, a))| ((*name).to_owned(), b - a))
            .collect();
        EngineCycles { total: causes.values().sum(), causes }
    }

    fn cluster_of(&self, hart: usize) -> &str {
        self.hart_names[hart].trim_start_matches("cpu_").trim_end_matches(|c: char| c.is_ascii_digit())
    }

    pub(super) fn hart_clock(&self, hart: usize) -> Clock {
        Clock::new(Hertz::new(self.cfg.cpu[self.cluster_of(hart)].frequency_hz))
    }

    pub(super) fn coefficients(&self) -> Result<Coefficients, BuildError> {
        Coefficients::new(&self.cfg, &self.table)
    }

    /// Energy between two snapshots, by component.
    pub(super) fn energy(
        &self,
        k: &Coefficients,
        from: &Snapshot,
        to: &Snapshot,
    ) -> BTreeMap<String, Energy> {
        let mut l = EnergyLedger::default();
        self.charge_npu(&mut l, k, from, to);
        self.charge_cpu(&mut l, k, from, to);
        // Transfers were charged where they moved; fabric and memory see the same bytes.
        let one = l.domain("memory", MilliVolt::new(1), MilliVolt::new(1));
        for (action, count) in system_counts(&seen(from, to)) {
            let component = match action {
                DramAction::PhyBurst => "dram_phy",
                DramAction::ActiveStandbyNs
                | DramAction::PrechargedStandbyNs
                | DramAction::PowerDownNs
                | DramAction::SelfRefreshNs => "dram_background",
                _ => "dram_device",
            };
            let c = action.coefficient();
            let id = l.action(component, c.action, c.attojoules, one);
            l.charge(id, count);
        }
        let mut out: BTreeMap<String, Energy> = BTreeMap::new();
        for row in l.rows() {
            *out.entry(row.component).or_default() += row.energy;
        }
        out
    }

    fn charge_npu(&self, l: &mut EnergyLedger, k: &Coefficients, from: &Snapshot, to: &Snapshot) {
        let one = l.domain("npu", MilliVolt::new(1), MilliVolt::new(1));
        let mut charge = |component: &str, action: &str, attojoules: u64, count: u64| {
            let id = l.action(component, action, attojoules, one);
            l.charge(id, count);
        };
        for (component, action, attojoules, count) in k.activity(&to.npu.since(&from.npu)) {
            charge(component, action, attojoules, count);
        }
        let all = to.sequencer.0 - from.sequencer.0;
        let active = to.sequencer.1 - from.sequencer.1;
        charge("npu_core", "active_cycle", k.core_active, active);
        charge("npu_core", "idle_cycle", k.core_idle, all.saturating_sub(active));
        let ns = (to.at - from.at).as_ns();
        let gated = to.gated_ns - from.gated_ns;
        let leaking = (ns * u64::from(self.cfg.npu.cores)).saturating_sub(gated);
        charge("npu_leakage", "core_ns", k.leak_npu, leaking);
        charge("fabric", "leakage_ns", k.leak_fabric, ns);
    }

    fn charge_cpu(&self, l: &mut EnergyLedger, k: &Coefficients, from: &Snapshot, to: &Snapshot) {
        let one = l.domain("cpu", MilliVolt::new(1), MilliVolt::new(1));
        let mut charge = |component: &str, action: &str, attojoules: u64, count: u64| {
            let id = l.action(component, action, attojoules, one);
            l.charge(id, count);
        };
        let ns = (to.at - from.at).as_ns();
        let (mut l2, mut l3) = (0, 0);
        for (hart, (b, a)) in to.harts.iter().zip(&from.harts).enumerate() {
            let cluster = self.cluster_of(hart);
            let component = format!("cpu_{cluster}");
            let c = &k.cpu[cluster];
            let classes = |h: &HartStats| {
                let n = h.classes;
                [n.alu, n.mul_div, n.load, n.store, n.amo, n.branch, n.fp, n.system]
            };
            for (i, (b, a)) in classes(b).into_iter().zip(classes(a)).enumerate() {
                charge(&component, INSTRUCTION_CLASSES[i], c.classes[i], b - a);
            }
            let stalls = |h: &HartStats| {
                let busy = CAUSES.iter().zip(h.causes).filter(|((_, n), _)| *n != "active" && *n != "idle");
                busy.map(|(_, n)| n).sum::<u64>()
            };
            charge(&component, "stall_cycle", c.stall, stalls(b) - stalls(a));
            charge("cpu_leakage", "hart_ns", c.leak, ns);
            l2 += b.l1i_misses + b.l1d_misses - a.l1i_misses - a.l1d_misses;
            l3 += b.l2_misses + b.write_backs - a.l2_misses - a.write_backs;
        }
        charge("cpu_caches", "l2_access", k.l2, l2);
        if self.cfg.l3.is_some() {
            charge("cpu_caches", "l3_access", k.l3, l3);
            charge("cpu_leakage", "l3_ns", k.leak_l3, ns);
        }
        if let Some(slc) = &self.cfg.slc {
            let accesses =
                |s: &Snapshot| s.fabric.slc.iter().map(|u| u.hits + u.fills + u.write_backs).sum::<u64>();
            charge("fabric_slc", "access", k.slc, accesses(to) - accesses(from));
            charge("fabric_slc", "mib_ns", k.leak_slc, ns * (slc.bytes >> 20));
        }
    }

    fn rail(&self, k: &Coefficients, from: &Snapshot, to: &Snapshot) -> Energy {
        let mut l = EnergyLedger::default();
        self.charge_npu(&mut l, k, from, to);
        l.rows().iter().filter(|r| r.component.starts_with("npu_")).map(|r| r.energy).sum()
    }
}

/// Thousandths of a core's leakage that are an engine's: DMA channels, MX, VP. Estimate, accuracy class C: the array is
/// most of a core's logic, the rest is its memories'.
const LEAKAGE_SHARE: [u64; ENGINES] = [10, 10, 10, 10, 400, 150];
/// Thousandths of its leakage an engine still has with retention, and off. Estimate, accuracy class C.
const LEAKAGE_LEFT: [u64; 2] = [300, 30];

/// Nanoseconds of a whole core's leakage that gated engines saved.
fn gated_ns(gated: &[Gated], hertz: u64) -> u64 {
    let saved: u128 = gated
        .iter()
        .map(|g| {
            let [retention, off] = LEAKAGE_LEFT.map(|left| u128::from(1000 - left));
            let cycles = u128::from(g.retention) * retention + u128::from(g.off) * off;
            cycles * u128::from(LEAKAGE_SHARE[g.engine])
        })
        .sum();
    u64::try_from(saved * 1000 / u128::from(hertz)).expect("a run's nanoseconds")
}

/// Classes of instructions, as the energy table's actions.
const INSTRUCTION_CLASSES: [&str; 8] = ["alu", "mul_div", "load", "store", "amo", "branch", "fp", "system"];

fn sequencer_cycles(meters: &[(usize, &'static str, Meter)]) -> u64 {
    meters.iter().filter(|m| m.1 == SEQUENCER).map(|m| m.2.total()).sum()
}

/// A core is active while its sequencer has a list: lists end when every engine is done.
fn active_cycles(meters: &[(usize, &'static str, Meter)]) -> u64 {
    let active = |m: &Meter| m.total() - m.spent()[Cause::Idle as usize];
    meters.iter().filter(|m| m.1 == SEQUENCER).map(|m| active(&m.2)).sum()
}

/// What the memory did between two snapshots.
fn seen(from: &Snapshot, to: &Snapshot) -> MemoryStats {
    let (b, a) = (&to.dram, &from.dram);
    MemoryStats {
        read_bursts: b.read_bursts - a.read_bursts,
        write_bursts: b.write_bursts - a.write_bursts,
        activates: b.activates - a.activates,
        line_activates: b.line_activates - a.line_activates,
        refreshes: b.refreshes - a.refreshes,
        noise_bytes: b.noise_bytes - a.noise_bytes,
        busy: b.busy.iter().zip(&a.busy).map(|(b, a)| *b - *a).collect(),
        elapsed: to.at - from.at,
        ..MemoryStats::default()
    }
}

fn moved(from: &Snapshot, to: &Snapshot) -> Vec<Asked> {
    to.fabric.moved.iter().zip(&from.fabric.moved).map(|(b, a)| b.since(*a)).collect()
}

fn slc(from: &Snapshot, to: &Snapshot) -> Vec<SlcUse> {
    let before = |i: usize| from.fabric.slc.get(i).copied().unwrap_or_default();
    to.fabric.slc.iter().enumerate().map(|(i, u)| u.since(before(i))).collect()
}

fn traffic(from: &Snapshot, to: &Snapshot) -> Vec<TrafficResult> {
    super::traffic::traffic(&moved(from, to), &seen(from, to))
}

fn served(from: &MemoryStats, to: &MemoryStats) -> [(u64, u64); 2] {
    let d = |b: &crate::dram::config::Moved, a: &crate::dram::config::Moved| {
        (b.read_bytes - a.read_bytes, b.write_bytes - a.write_bytes)
    };
    [d(&to.npu, &from.npu), d(&to.cpu, &from.cpu)]
}

/// What of the bytes the NPU asked for went to memory and not to the system cache: of reads, commands included, then of
/// writes, each with what was asked for.
fn from_memory(asked: [u64; 2], slc: &[SlcUse]) -> [(u64, u64); 2] {
    let npu = slc.iter().skip(Client::NpuIn(0).index());
    let hits = npu.fold([0; 2], |[r, w], u| [r + u.hit_read_bytes, w + u.hit_write_bytes]);
    [0, 1].map(|i| (asked[i].saturating_sub(hits[i]), asked[i]))
}

/// Ops since `zero`. What the system cache answered cost memory nothing; it is taken off all ops alike.
fn ops(world: &World, k: &Coefficients, zero: Time, served: [(u64, u64); 2]) -> Vec<OpResult> {
    let part = |bytes: u64, (served, asked): (u64, u64)| {
        let bytes = u128::from(bytes) * u128::from(served.min(asked)) / u128::from(asked.max(1));
        u64::try_from(bytes).unwrap_or(u64::MAX)
    };
    let rows = world.npu.ops.rows().iter().filter(|(_, r)| r.start >= zero.get());
    let out = rows.map(|(key, row)| {
        let attojoules: u128 =
            k.activity(&row.activity).map(|(_, _, a, n)| u128::from(a) * u128::from(n)).sum::<u128>()
                + k.memory(
                    part(row.activity.memory_read, served[0]),
                    part(row.activity.memory_written, served[1]),
                );
        let energy = Energy::new(u64::try_from(attojoules / 1000).expect("energy within 18 kJ"));
        OpResult { key: *key, row: *row, energy }
    });
    out.filter(|o| o.row.activity.commands > 0).collect()
}

#[derive(Clone, Debug, Default)]
struct CpuCoefficients {
    classes: [u64; 8],
    stall: u64,
    leak: u64,
}

/// Attojoules at the run's voltages.
#[derive(Clone, Debug, Default)]
pub(super) struct Coefficients {
    mac: [u64; 4],
    operand: [u64; 4],
    array_vmin: [u64; 4],
    actions: [u64; 13],
    core_active: u64,
    core_idle: u64,
    leak_npu: u64,
    leak_fabric: u64,
    leak_l3: u64,
    leak_slc: u64,
    l2: u64,
    l3: u64,
    slc: u64,
    cpu: BTreeMap<String, CpuCoefficients>,
}

/// A microwatt for a nanosecond is 1000 attojoules.
const ATTOJOULES_PER_UW_NS: u64 = 1000;

impl Coefficients {
    fn new(cfg: &SocConfig, table: &EnergyTable) -> Result<Self, BuildError> {
        let bad = |e: crate::config::ConfigError| BuildError::Config {
            path: "power.energy-table".to_owned(),
            problem: e.to_string(),
        };
        let n = &cfg.npu;
        let (mv, vmin, fabric) = (n.voltage_mv.into(), n.vmin_mv.into(), cfg.power.fabric_mv.into());
        let at = |c: &str, a: &str, mv: u64| table.lookup(c, a).map(|r| r.attojoules_at(mv)).map_err(bad);
        let sized =
            |c: &str, a: &str, bytes: u64| table.sized(c, a, bytes).map(|r| r.attojoules_at(mv)).map_err(bad);
        let leak = |block: &str, mv: u64| -> Result<u64, BuildError> {
            let row = table.leakage(block).map_err(bad)?;
            let power = row.microwatts_at(mv, cfg.power.temperature_mc.into());
            Ok(if cfg.power.leakage { power * ATTOJOULES_PER_UW_NS } else { 0 })
        };
        let mut k = Self::default();
        for c in MacClass::ALL {
            let (i, mac, operand) =
                (c as usize, format!("mac_{}", c.name()), format!("operand_{}", c.name()));
            k.mac[i] = at("npu.matrix", &mac, mv)?;
            k.operand[i] = at("npu.matrix", &operand, mv)?;
            k.array_vmin[i] = at("npu.matrix", &mac, vmin)? + at("npu.matrix", &operand, vmin)?;
        }
        let (spm, acc) = (n.scratchpad_bytes, n.accumulator_bytes);
        k.actions = [
            sized("npu.scratchpad", "read_byte", spm)?,
            sized("npu.scratchpad", "write_byte", spm)?,
            sized("npu.accumulator", "read_byte", acc)?,
            sized("npu.accumulator", "write_byte", acc)?,
            at("npu.vector", "op_fp32", mv)?,
            at("npu.vector", "special_fp32", mv)?,
            at("npu.matrix", "weight_decode", mv)?,
            at("npu.dma", "byte", mv)?,
            at("npu.dma", "transfer", mv)?,
            at("npu.sequencer", "command", mv)?,
            at("npu.sequencer", "semaphore", mv)?,
            at("fabric", "byte_hop", fabric)? * u64::from(cfg.fabric.hops),
            at("fabric", "request", fabric)?,
        ];
        k.core_active = at("npu.core", "active_cycle", mv)?;
        k.core_idle = at("npu.core", "idle_cycle", mv)?;
        k.leak_npu = leak("npu.core", mv)?;
        k.leak_fabric = leak("fabric", fabric)?;
        k.leak_l3 = leak("cpu.l3", fabric)?;
        if cfg.slc.is_some() {
            k.leak_slc = leak("cpu.slc", fabric)?;
            k.slc = at("cpu.slc", "access", fabric)?;
        }
        k.l2 = at("cpu.l2", "access", fabric)?;
        k.l3 = at("cpu.l3", "access", fabric)?;
        for (name, cluster) in &cfg.cpu {
            let component = format!("cpu.{}", cluster.energy_class.name());
            let v = cluster.voltage_mv.into();
            let mut c =
                CpuCoefficients { stall: at(&component, "stall_cycle", v)?, ..CpuCoefficients::default() };
            for (slot, action) in c.classes.iter_mut().zip(INSTRUCTION_CLASSES) {
                *slot = at(&component, action, v)?;
            }
            c.leak = leak(&component, v)?;
            k.cpu.insert(name.clone(), c);
        }
        Ok(k)
    }

    /// (component, action, attojoules, count) of everything an activity is charged with.
    fn activity(&self, a: &Activity) -> impl Iterator<Item = (&'static str, &'static str, u64, u64)> + use<> {
        let x = self.actions;
        let (mac, operand) = (self.mac, self.operand);
        let a = *a;
        let matrix = (0..4).flat_map(move |i| {
            [("npu_matrix", "mac", mac[i], a.macs[i]), ("npu_matrix", "operand", operand[i], a.macs[i])]
        });
        matrix.chain([
            ("npu_scratchpad", "read_byte", x[0], a.spm_read),
            ("npu_scratchpad", "write_byte", x[1], a.spm_write),
            ("npu_accumulator", "read_byte", x[2], a.acc_read),
            ("npu_accumulator", "write_byte", x[3], a.acc_write),
            ("npu_vector", "op", x[4], a.vector_ops),
            ("npu_vector", "special", x[5], a.special_ops),
            ("npu_matrix", "weight_decode", x[6], a.decoded_weights),
            ("npu_dma", "byte", x[7], a.dma_bytes),
            ("npu_dma", "transfer", x[8], a.transfers),
            ("npu_sequencer", "command", x[9], a.commands),
            ("npu_sequencer", "semaphore", x[10], a.semaphores),
            ("fabric", "byte", x[11], a.fabric_bytes),
            ("fabric", "request", x[12], a.transfers),
        ])
    }

    /// Attojoules memory spends on bytes, beside activates, refresh and standby.
    fn memory(&self, read: u64, written: u64) -> u128 {
        let each = |action: DramAction| u128::from(action.coefficient().attojoules);
        let (r, w) = (u128::from(read / 32), u128::from(written / 32));
        r * each(DramAction::ReadBurst)
            + w * each(DramAction::WriteBurst)
            + (r + w) * each(DramAction::PhyBurst)
    }

    fn array_vmin(&self, a: &Activity) -> Energy {
        let sum: u128 = a.macs.iter().zip(self.array_vmin).map(|(n, e)| u128::from(*n) * u128::from(e)).sum();
        Energy::new(u64::try_from(sum / 1000).expect("energy within 18 kJ"))
    }
}

/// Peak MACs a second of a cluster in a class.
#[must_use]
pub fn peak_macs_per_s(cfg: &SocConfig, class: MacClass) -> u64 {
    let (num, den) = class.rate();
    cfg.npu.int8_macs_per_second() * num / den
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gated_array_saves_its_share_of_leakage() {
        let gated = |engine, retention, off| [Gated { core: 0, engine, retention, off }];
        // A millisecond at 1 GHz: 40 % of a core is the array, of which 97 % or 70 % are saved.
        assert_eq!(gated_ns(&gated(4, 0, 1_000_000), 1_000_000_000), 388_000);
        assert_eq!(gated_ns(&gated(4, 1_000_000, 0), 1_000_000_000), 280_000);
        assert_eq!(gated_ns(&[], 1_000_000_000), 0);
        assert!(LEAKAGE_SHARE.iter().sum::<u64>() < 1000);
    }
}
