//! Integers in, floats out: the one place where a run's counts become seconds, joules and rates.
//!
//! Each figure is one division of two exactly rounded operands, so parts and wholes agree far inside 1e-9.

use std::collections::BTreeMap;

use sim_kernel::{Bytes, Energy, Time};

use crate::facts::{OpFacts, RunFacts, Traffic, WaitFacts};
use crate::record::{
    Area, Boot, Dram, Efficiency, EnergyUse, Firmware, LostTo, Op, Power, RunRecord, SCHEMA, Slc, TOTAL,
    Thermal, Throughput, Times, TopsPerWatt, TrafficOf, Validity, Wait,
};

fn seconds(time: Time) -> f64 {
    time.get() as f64 / 1e15
}

fn joules(energy: Energy) -> f64 {
    energy.get() as f64 / 1e15
}

/// The quotient, or nothing where the divisor is zero.
fn ratio(dividend: f64, divisor: f64) -> Option<f64> {
    (divisor > 0.0).then(|| dividend / divisor)
}

/// The converted record of facts that passed their check.
pub(crate) fn record(f: &RunFacts) -> RunRecord {
    RunRecord {
        schema: SCHEMA.to_owned(),
        soc: f.soc.clone(),
        model: f.model.clone(),
        policy: f.policy.clone(),
        workload: f.workload,
        firmware: firmware(f),
        boot: f.boot.map(|b| Boot { time_s: seconds(b.time), energy_j: joules(b.energy) }),
        time: times(f),
        throughput: throughput(f),
        energy: EnergyUse {
            total_j: joules(f.energy.total),
            prefill_j: joules(f.energy.prefill),
            decode_j_per_token: ratio(joules(f.energy.decode), later_tokens(f)),
            by_component: f.energy.by_component.iter().map(|(k, v)| (k.clone(), joules(*v))).collect(),
        },
        efficiency: efficiency(f),
        power: Power {
            mean_w: f.energy.total.get() as f64 / f.end.get() as f64,
            peak_w: f.energy.peak_microwatts.map(|uw| uw as f64 / 1e6),
        },
        area_mm2: f.area_um2.as_ref().map(|parts| Area {
            total: parts.values().sum::<u64>() as f64 / 1e6,
            by_component: parts.iter().map(|(k, v)| (k.clone(), *v as f64 / 1e6)).collect(),
        }),
        thermal: f
            .thermal
            .map(|t| Thermal { junction_c: t.junction as f64 / 1e3, skin_c: t.skin as f64 / 1e3 }),
        dram: dram(f),
        slc: slc(f),
        contention: f.contention.iter().map(|(k, w)| (k.clone(), wait(w))).collect(),
        cycles: cycles(f),
        commands: f.commands.clone(),
        preemption: f.preemption,
        kv: f.kv.as_ref().map(crate::record::Kv::new),
        ops: f.ops.iter().map(op).collect(),
        output: f.output.clone(),
        memory_model: f.memory_model,
        validity: Validity {
            band_percent: f64::from(f.validity.band_permille) / 10.0,
            basis: f.validity.basis.clone(),
        },
        digest: f.digest.clone(),
        version: f.version.clone(),
        config: f.config.clone(),
    }
}

/// Tokens after the first: what decode figures are per.
fn later_tokens(f: &RunFacts) -> f64 {
    f.token_times.len().saturating_sub(1) as f64
}

fn firmware(f: &RunFacts) -> Firmware {
    Firmware {
        sha256: f.firmware.sha256.clone(),
        instructions: f.firmware.instructions,
        instructions_per_token: ratio(f.firmware.decode_instructions as f64, later_tokens(f)),
        interrupts: f.firmware.interrupts,
        doorbells: f.firmware.doorbells,
    }
}

fn times(f: &RunFacts) -> Times {
    let mut gaps: Vec<Time> = f.token_times.windows(2).map(|w| w[1] - w[0]).collect();
    gaps.sort_unstable();
    let nearest_rank = |percent: usize| {
        let rank = (gaps.len() * percent).div_ceil(100);
        gaps.get(rank.saturating_sub(1)).copied().map(seconds)
    };
    Times {
        ttft_s: f.token_times.first().copied().map_or(0.0, seconds),
        tpot_mean_s: mean_gap(f).map(|fs| fs / 1e15),
        tpot_p50_s: nearest_rank(50),
        tpot_p99_s: nearest_rank(99),
        total_s: seconds(f.end),
        token_s: f.token_times.iter().copied().map(seconds).collect(),
    }
}

/// Mean time per token after the first, in femtoseconds.
fn mean_gap(f: &RunFacts) -> Option<f64> {
    let (first, last) = (f.token_times.first()?, f.token_times.last()?);
    ratio((*last - *first).get() as f64, later_tokens(f))
}

fn throughput(f: &RunFacts) -> Throughput {
    let first = f.token_times.first().copied().map_or(0.0, seconds);
    let prompt = f.workload.prompt_tokens;
    Throughput {
        prefill_tok_per_s: (prompt > 0).then_some(prompt as f64).and_then(|p| ratio(p, first)),
        decode_tok_per_s: mean_gap(f).and_then(|fs| ratio(1e15, fs)),
    }
}

fn efficiency(f: &RunFacts) -> Efficiency {
    let macs: u64 = f.work.values().map(|w| w.macs).sum();
    let operations = 2.0 * macs as f64;
    let end = seconds(f.end);
    // Operations per femtojoule are 1e15 operations per joule, and TOPS/W is 1e12 operations per joule.
    let per_watt = |energy: Energy| ratio(operations * 1e3, energy.get() as f64);
    Efficiency {
        effective_tops: operations / end / 1e12,
        tops_per_w: TopsPerWatt {
            array_vmin: f.energy.array_vmin.and_then(per_watt),
            npu_rail: per_watt(f.energy.npu_rail),
            workload: per_watt(f.energy.total),
        },
        // Formats share the array, so the time each would need at its own peak adds up.
        utilisation: f
            .work
            .values()
            .filter_map(|w| ratio(w.macs as f64, w.peak_macs_per_s as f64))
            .sum::<f64>()
            / end,
        peak_tops: f.work.iter().map(|(k, w)| (k.clone(), 2.0 * w.peak_macs_per_s as f64 / 1e12)).collect(),
    }
}

fn dram(f: &RunFacts) -> Dram {
    let Traffic { read, write } = f.dram.moved;
    let bytes = |b: Bytes| b.get() as f64;
    let rate = (bytes(read) + bytes(write)) / seconds(f.end);
    let peak = f.dram.peak_bytes_per_s as f64;
    Dram {
        read_bytes: read.get(),
        write_bytes: write.get(),
        bandwidth_gb_per_s: rate / 1e9,
        peak_gb_per_s: peak / 1e9,
        utilisation: ratio(rate, peak).unwrap_or(0.0),
        decode_read_bytes_per_token: ratio(bytes(f.dram.decode_read), later_tokens(f)),
        traffic: f
            .dram
            .traffic
            .iter()
            .map(|(content, t)| {
                let bits = 8.0 * (bytes(t.moved.read) + bytes(t.moved.write));
                let of = TrafficOf {
                    read_bytes: t.moved.read.get(),
                    write_bytes: t.moved.write.get(),
                    energy_j: joules(t.energy),
                    pj_per_bit: ratio(t.energy.get() as f64 / 1e3, bits),
                };
                (content.clone(), of)
            })
            .collect(),
    }
}

fn slc(f: &RunFacts) -> Option<Slc> {
    let hits: u64 = f.slc.values().map(|s| s.hits).sum();
    let misses: u64 = f.slc.values().map(|s| s.misses).sum();
    let hit_rate = ratio(hits as f64, (hits + misses) as f64).unwrap_or(0.0);
    (!f.slc.is_empty()).then(|| Slc { hit_rate, by_client: f.slc.clone() })
}

fn wait(w: &WaitFacts) -> Wait {
    let spent = w.spent.get() as f64;
    // Who lost all its time would have needed none: no factor says that, so a femtosecond is left to it.
    let slowdown = |lost: f64| if spent > 0.0 { spent / (spent - lost).max(1.0) } else { 1.0 };
    let sum = |held: &BTreeMap<String, Time>| held.values().map(|t| t.get() as f64).sum::<f64>();
    let lost_to = |held: &BTreeMap<String, Time>| LostTo {
        lost_s: sum(held) / 1e15,
        slowdown: slowdown(sum(held)),
        held_s: held.iter().map(|(k, t)| (k.clone(), seconds(*t))).collect(),
    };
    Wait {
        spent_s: seconds(w.spent),
        slowdown: slowdown(w.lost.values().map(sum).sum()),
        by: w.lost.iter().map(|(aggressor, held)| (aggressor.clone(), lost_to(held))).collect(),
    }
}

fn cycles(f: &RunFacts) -> BTreeMap<String, BTreeMap<String, u64>> {
    f.cycles
        .iter()
        .map(|(engine, facts)| {
            let mut causes = facts.causes.clone();
            causes.insert(TOTAL.to_owned(), facts.total);
            (engine.clone(), causes)
        })
        .collect()
}

fn op(o: &OpFacts) -> Op {
    Op {
        name: o.name.clone(),
        kind: o.kind.clone(),
        phase: o.phase,
        unit: o.unit.clone(),
        start_s: seconds(o.start),
        duration_s: seconds(o.duration),
        macs: o.macs,
        dram_bytes: o.dram_bytes.get(),
        energy_j: joules(o.energy),
        bound_by: o.bound_by.clone(),
    }
}
