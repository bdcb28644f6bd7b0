//! A made-up run whose laws hold by construction; every figure is chosen for easy division, none is a result.

use std::collections::BTreeMap;

use reports::facts::{
    BootFacts, DramFacts, EnergyFacts, EngineFacts, FirmwareFacts, FormatWork, MemoryModel, ModelInfo, Named,
    OpFacts, Phase, RunFacts, ThermalFacts, Traffic, ValidityFacts, Workload,
};
use sim_kernel::{Bytes, Energy, Time};

const MS: u64 = 1_000_000_000_000;
const MJ: u64 = 1_000_000_000_000;

fn named(name: &str) -> Named {
    Named { name: name.to_owned(), hash: "00ff".to_owned() }
}

fn op(
    name: &str,
    phase: Phase,
    (start_ms, ms): (u64, u64),
    (macs, dram): (u64, u64),
    bound_by: &str,
) -> OpFacts {
    OpFacts {
        name: name.to_owned(),
        kind: name.split('.').next_back().expect("a name has a last part").to_owned(),
        phase,
        unit: "npu".to_owned(),
        start: Time::new(start_ms * MS),
        duration: Time::new(ms * MS),
        macs,
        dram_bytes: Bytes::new(dram),
        energy: Energy::new(10 * MJ),
        bound_by: bound_by.to_owned(),
    }
}

fn ops() -> Vec<OpFacts> {
    use Phase::{Decode, Prefill};
    vec![
        op("layer0.qkv", Prefill, (0, 20), (40_000_000_000, 10_000_000), "compute"),
        op("layer0.attention", Prefill, (20, 10), (2_000_000_000, 1_000_000), "compute"),
        op("layer0.mlp", Prefill, (30, 60), (150_000_000_000, 40_000_000), "compute"),
        op("layer0.norm", Prefill, (90, 5), (0, 500_000), "vector"),
        op("head", Prefill, (95, 5), (500_000_000, 60_000_000), "dram"),
        op("layer0.qkv", Decode, (100, 20), (1_000_000_000, 500_000_000), "dram"),
        op("layer0.attention", Decode, (120, 8), (100_000_000, 30_000_000), "dram"),
        op("layer0.mlp", Decode, (128, 60), (4_000_000_000, 2_100_000_000), "dram"),
        op("layer0.norm", Decode, (188, 2), (0, 500_000), "vector"),
        op("head", Decode, (190, 10), (400_000_000, 350_000_000), "dram"),
    ]
}

fn energy() -> EnergyFacts {
    let parts = [
        ("cpu.big", 25),
        ("cpu.little", 15),
        ("dram.core", 260),
        ("dram.io", 140),
        ("fabric", 40),
        ("npu.dma", 20),
        ("npu.mx", 190),
        ("npu.scratchpad", 60),
        ("npu.vp", 30),
        ("slc", 12),
        ("soc.leakage", 8),
    ];
    EnergyFacts {
        total: Energy::new(800 * MJ),
        prefill: Energy::new(300 * MJ),
        decode: Energy::new(500 * MJ),
        by_component: parts.iter().map(|(k, mj)| ((*k).to_owned(), Energy::new(mj * MJ))).collect(),
        npu_rail: Energy::new(300 * MJ),
        array_vmin: Some(Energy::new(100 * MJ)),
        peak_microwatts: Some(7_250_000),
    }
}

fn engine(causes: &[(&str, u64)]) -> EngineFacts {
    EngineFacts {
        total: causes.iter().map(|c| c.1).sum(),
        causes: causes.iter().map(|(k, n)| ((*k).to_owned(), *n)).collect(),
    }
}

/// The facts.
pub fn facts() -> RunFacts {
    let traffic = |read, write| Traffic { read: Bytes::new(read), write: Bytes::new(write) };
    let mx = engine(&[("busy", 90_000_000), ("wait_weights", 120_000_000), ("wait_semaphore", 30_000_000)]);
    RunFacts {
        soc: named("made-up"),
        model: ModelInfo {
            name: "paper-1b".to_owned(),
            params: 1_000_000_000,
            quant: "w4a16-g128".to_owned(),
        },
        policy: Some(named("default")),
        workload: Workload { prompt_tokens: 128, decode_tokens: 5, context_tokens: 0, seed: 1 },
        firmware: FirmwareFacts {
            sha256: "ab".repeat(32),
            instructions: 1_250_000,
            decode_instructions: 400_000,
            interrupts: 320,
            doorbells: 1_600,
        },
        boot: Some(BootFacts { time: Time::new(3 * MS), energy: Energy::new(MJ) }),
        token_times: [100, 124, 149, 173, 200].iter().map(|ms| Time::new(ms * MS)).collect(),
        end: Time::new(200 * MS),
        energy: energy(),
        work: [
            ("int4", FormatWork { macs: 195_900_000_000, peak_macs_per_s: 16_000_000_000_000 }),
            ("fp16", FormatWork { macs: 2_100_000_000, peak_macs_per_s: 4_000_000_000_000 }),
        ]
        .map(|(k, w)| (k.to_owned(), w))
        .into(),
        model_macs: Some(198_000_000_000),
        area_um2: Some([("npu".to_owned(), 12_500_000), ("slc".to_owned(), 4_000_000)].into()),
        thermal: Some(ThermalFacts { junction: 51_250, skin: 33_000 }),
        dram: DramFacts {
            moved: traffic(3_100_000_000, 60_000_000),
            requested: [
                ("cpu".to_owned(), traffic(10_000_000, 5_000_000)),
                ("npu.dma".to_owned(), traffic(3_140_000_000, 65_000_000)),
            ]
            .into(),
            absorbed: traffic(50_000_000, 10_000_000),
            traffic: BTreeMap::new(),
            decode_read: Bytes::new(2_980_000_000),
            peak_bytes_per_s: 68_000_000_000,
        },
        slc: BTreeMap::new(),
        contention: BTreeMap::new(),
        cycles: BTreeMap::from([
            ("npu.core0.mx".to_owned(), mx.clone()),
            ("npu.core1.mx".to_owned(), mx),
            ("npu.core0.dma".to_owned(), engine(&[("busy", 200_000_000), ("idle", 40_000_000)])),
            (
                "cpu.big0".to_owned(),
                engine(&[("active", 1_000_000), ("idle", 590_000_000), ("dram", 9_000_000)]),
            ),
        ]),
        commands: BTreeMap::from([("npu.core0.mx".to_owned(), 1_200)]),
        preemption: None,
        kv: None,
        ops: ops(),
        output: None,
        memory_model: MemoryModel::Sampled,
        validity: ValidityFacts { band_permille: 150, basis: "Made up for a test.".to_owned() },
        digest: "0123456789abcdef".to_owned(),
        version: "0.0.0".to_owned(),
        config: serde_json::json!({ "npu": { "cores": 2 } }),
    }
}
