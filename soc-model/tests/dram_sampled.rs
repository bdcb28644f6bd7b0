//! The sampled memory against the exact engine running the same closed-loop flows in full.

use sim_kernel::{Bytes, Stream, Time};
use soc_model::dram::interleave::{Interleave, Walker};
use soc_model::dram::{
    AddressMap, BurstChannel, Controller, DramConfig, Done, MemorySystem, Qos, Request, Standard,
};

/// One transfer of a worker.
#[derive(Clone, Debug)]
struct Transfer {
    runs: Vec<(u64, u64)>,
    write: bool,
}

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

struct Part {
    flow: usize,
    transfer: usize,
    walker: Walker,
    left: u64,
    pending: Option<u64>,
}

/// All channels exactly, burst by burst; every worker starts its next transfer when the last one completes.
/// Returns the CK at which the last transfer is complete.
fn exact(cfg: &DramConfig, workers: &[Vec<Transfer>]) -> u64 {
    let il = Interleave { channels: u64::from(cfg.channels), bytes: cfg.interleave_bytes };
    let map = cfg.map.resized(31).unwrap();
    let mut engines: Vec<BurstChannel> =
        (0..cfg.channels).map(|_| BurstChannel::new(cfg.timings(), cfg.controller)).collect();
    let mut parts: Vec<Vec<Part>> = engines.iter().map(|_| Vec::new()).collect();
    let mut turns = vec![0usize; engines.len()];
    // Per worker: transfer under way, bursts not yet offered, bursts not yet back, latest completion.
    let mut state: Vec<(usize, u64, u64, u64)> = vec![(0, 0, 0, 0); workers.len()];
    let mut done: Vec<Done> = Vec::new();
    let mut now = 0u64;
    let mut end = 0;
    let mut starts: Vec<(u64, usize)> = (0..workers.len()).map(|w| (0, w)).collect();
    while !starts.is_empty() || state.iter().any(|s| s.1 + s.2 > 0) {
        starts.retain(|&(at, w)| {
            if at > now {
                return true;
            }
            let transfer = &workers[w][state[w].0];
            let mut bursts = 0;
            for (c, list) in parts.iter_mut().enumerate() {
                let mut count = Walker::new(il, c as u64);
                let mut n = 0;
                while count.next(&transfer.runs).is_some() {
                    n += 1;
                }
                if n > 0 {
                    let walker = Walker::new(il, c as u64);
                    list.push(Part { flow: w, transfer: state[w].0, walker, left: cfg.grant_bytes, pending: None });
                }
                bursts += n;
            }
            state[w].1 = bursts;
            false
        });
        let mut next = u64::MAX;
        for (c, engine) in engines.iter_mut().enumerate() {
            engine.skip_to(now);
            while !parts[c].is_empty() {
                turns[c] %= parts[c].len();
                let part = &mut parts[c][turns[c]];
                let w = part.flow;
                let transfer = &workers[w][part.transfer];
                let Some(address) = part.pending.take().or_else(|| part.walker.next(&transfer.runs)) else {
                    parts[c].remove(turns[c]);
                    continue;
                };
                let place = map.place(address);
                let tag = u32::try_from(w).unwrap();
                let request = Request { place, write: transfer.write, urgent: false, tag };
                if !engine.offer(request, &mut done) {
                    part.pending = Some(address);
                    break;
                }
                state[w].1 -= 1;
                if transfer.write {
                    state[w].3 = now;
                } else {
                    state[w].2 += 1;
                }
                part.left -= 32;
                if part.left == 0 {
                    part.left = cfg.grant_bytes;
                    turns[c] += 1;
                }
            }
            engine.tick(&mut done);
            next = next.min(engine.next_event());
        }
        for d in done.drain(..).filter(|d| !d.write) {
            let s = &mut state[d.tag as usize];
            s.2 -= 1;
            s.3 = s.3.max(d.done + 1);
        }
        for (w, s) in state.iter_mut().enumerate() {
            if s.3 > 0 && s.1 + s.2 == 0 {
                end = end.max(s.3);
                s.0 += 1;
                if s.0 < workers[w].len() {
                    starts.push((s.3.max(now + 1), w));
                }
                s.3 = 0;
            }
        }
        let due = starts.iter().map(|s| s.0).min().unwrap_or(u64::MAX);
        now = next.min(due).max(now + 1);
    }
    end
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

/// `count` workers, of which the last `writers` write, moving about `bytes` in transfers of varying size.
fn workload(count: usize, writers: usize, bytes: u64, sizes: &[u64], seed: u64) -> Vec<Vec<Transfer>> {
    let mut random = Stream::new(seed, "test", "workload");
    let mut workers = vec![Vec::new(); count];
    let mut moved = 0;
    while moved < bytes {
        for (w, list) in workers.iter_mut().enumerate() {
            let size = sizes[usize::try_from(random.below(sizes.len() as u64)).unwrap()];
            let base = random.below(1 << 20) << 12;
            moved += size;
            list.push(Transfer { runs: vec![(base, size)], write: w + writers >= count });
        }
    }
    workers
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
