//! The sampled memory against the exact engine running the same closed-loop flows in full.

mod dram_exact;

use dram_exact::{Transfer, exact, workload};
use sim_kernel::{Bytes, Time};
use soc_model::dram::{
    AddressMap, Controller, DramConfig, MemorySystem, Qos, Standard,
};

fn config(channels: u32, interleave: u64, grant: u64, map: &str) -> DramConfig {
    DramConfig {
        standard: Standard::named("lpddr5x-9600").unwrap(),
        channels,
        capacity: Bytes::new(u64::from(channels) << 31),
        interleave_bytes: interleave,
        grant_bytes: grant,
        map: AddressMap::named_or_parsed(map).unwrap(),
        controller: Controller::PHONE,
        frequency_permille: 1000,
    }
}

/// The same closed loop on the sampled memory; returns femtoseconds and the memory.
fn sampled(cfg: &DramConfig, workers: &[Vec<Transfer>], seed: u64) -> (u64, MemorySystem) {
    let mut memory = MemorySystem::new(cfg.clone(), seed);
    let mut at = vec![0usize; workers.len()];
    let mut owner = Vec::new();
    let mut out = Vec::new();
    let mut end = 0;
    for (w, list) in workers.iter().enumerate() {
        owner.push((memory.start_flow(Time::ZERO, &list[0].runs, list[0].write, Qos::Bulk, u64::MAX), w));
    }
    while let Some(now) = memory.next_completion() {
        out.clear();
        memory.finish_into(now, &mut out);
        for (time, id) in &out {
            let index = owner.iter().position(|o| o.0 == *id).unwrap();
            let (_, w) = owner.remove(index);
            end = end.max(time.get());
            at[w] += 1;
            if let Some(t) = workers[w].get(at[w]) {
                owner.push((memory.start_flow(now, &t.runs, t.write, Qos::Bulk, u64::MAX), w));
            }
        }
    }
    assert!(memory.quiescent() && owner.is_empty());
    (end, memory)
}

fn error_permyriad(cfg: &DramConfig, workers: &[Vec<Transfer>], seed: u64) -> i64 {
    let ck = exact(cfg, workers);
    let (fs, memory) = sampled(cfg, workers, seed);
    let reference = u128::from(ck) * 1_000_000_000_000_000 / u128::from(cfg.ck_hz());
    let (a, b) = (i128::from(fs), i128::try_from(reference).unwrap());
    let asked: u64 = workers.iter().flatten().flat_map(|t| &t.runs).map(|r| r.1).sum();
    let stats = memory.stats();
    assert_eq!(stats.npu.read_bytes + stats.npu.write_bytes, asked, "bytes are conserved");
    i64::try_from((a - b) * 10_000 / b).unwrap()
}

#[test]
fn survey() {
    let sizes = [64 << 10, 128 << 10, 256 << 10];
    for (il, grant) in [(256, 4096), (256, 256), (4096, 1024), (1024,16384)] {
        for map in ["map-a", "map-bg8-xor"] {
            let cfg = config(4, il, grant, map);
            let mut text = String::new();
            for (k, w) in [(1, 0), (2, 0), (4, 0), (12, 0), (16, 0), (1, 1), (12, 4), (4, 1), (6, 3)] {
                for seed in 1..=2 {
                    let workers = workload(k, w, 8 << 20, &sizes, seed);
                    text += &format!("{k}/{w}:{} ", error_permyriad(&cfg, &workers, seed));
                }
            }
            println!("{il} {grant} {map}: {text}");
        }
    }
}
