//! The sampled memory against the exact engine running the same closed-loop flows in full.

mod dram_exact;

use dram_exact::{Transfer, exact, workload};
use sim_kernel::{Bytes, Time};
use soc_model::dram::streams::mixed;
use soc_model::dram::{AddressMap, Controller, DramConfig, ExactMemory, MemorySystem, Qos, Standard};

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

/// Loads as (workers, of which write).
const LOADS: [(usize, usize); 12] =
    [(1, 0), (2, 0), (4, 0), (8, 0), (12, 0), (16, 0), (1, 1), (4, 1), (4, 4), (6, 3), (12, 4), (16, 8)];
const SIZES: [u64; 3] = [64 << 10, 128 << 10, 256 << 10];

fn check(cfg: &DramConfig, bytes: u64, sizes: &[u64], seeds: std::ops::Range<u64>, band_permyriad: i64) {
    let mut squares = 0;
    let mut count = 0;
    for (workers, writers) in LOADS {
        for seed in seeds.clone() {
            let error = error_permyriad(cfg, &workload(workers, writers, bytes, sizes, seed), seed);
            assert!(
                error.abs() <= band_permyriad,
                "{workers} flows, {writers} of them writing, seed {seed}: {error} hundredths of a percent"
            );
            squares += error * error;
            count += 1;
        }
    }
    let rms_bound = band_permyriad / 2;
    assert!(squares <= count * rms_bound * rms_bound, "rms beyond half the band: {squares} over {count}");
}

/// 48 MiB: 800,000 transactions.
const LONG: u64 = 48 << 20;
/// 8 MiB: 130,000 transactions.
const SHORT: u64 = 8 << 20;

#[test]
fn times_are_within_two_percent_at_the_presets_grant() {
    check(&config(4, 1024, 4096, "map-bg8-xor"), LONG, &SIZES, 1..3, 200);
}

#[test]
fn times_of_long_transfers_are_within_two_percent() {
    check(&config(4, 1024, 4096, "map-bg8-xor"), LONG, &[4 << 20], 1..2, 200);
}

/// As many flows as the DMA channels of the largest chip.
#[test]
fn times_of_many_flows_are_within_three_percent() {
    let cfg = config(4, 1024, 4096, "map-bg8-xor");
    for (flows, writers) in [(24, 0), (24, 8), (31, 0), (32, 12)] {
        for seed in 1..3 {
            let error = error_permyriad(&cfg, &workload(flows, writers, LONG, &SIZES, seed), seed);
            assert!(error.abs() <= 300, "{flows} flows, {writers} of them writing, seed {seed}: {error}");
        }
    }
}

#[test]
fn times_of_little_traffic_are_within_three_percent() {
    check(&config(4, 1024, 4096, "map-bg8-xor"), SHORT, &SIZES, 1..3, 300);
}

#[test]
fn times_are_within_three_percent_at_a_large_grant_and_another_map() {
    check(&config(4, 256, 16384, "map-a"), SHORT, &SIZES, 1..3, 300);
}

/// A known weakness: with turns of 256 bytes the flows' relative banks stay what they are for a whole transfer, so
/// one occurrence of a load differs from the next and an average of samples misses both.
#[test]
fn times_are_within_fifteen_percent_at_a_tiny_grant() {
    check(&config(4, 256, 256, "map-a"), SHORT, &SIZES, 1..3, 1500);
}

#[test]
fn short_runs_are_within_six_percent() {
    let cfg = config(4, 1024, 4096, "map-bg8-xor");
    for (workers, run) in [(1, 512), (1, 1024), (4, 512), (12, 512), (12, 1024), (12, 4096)] {
        let mut work = workload(workers, 0, 4 << 20, &[64 << 10], 7);
        for (n, t) in work.iter_mut().flatten().enumerate() {
            let base = t.runs[0].0;
            let pieces = (64 << 10) / run;
            t.runs =
                (0..pieces).map(|i| ((base + i * 0x3_5400 + n as u64 * 0x400) % (7 << 30), run)).collect();
        }
        let errors: Vec<i64> = (1..=4).map(|seed| error_permyriad(&cfg, &work, seed)).collect();
        let mean = errors.iter().sum::<i64>() / 4;
        assert!(mean.abs() <= 600, "{workers} flows of {run}-byte runs: {mean}");
        assert!(errors.iter().all(|e| e.abs() <= 700), "{workers} flows of {run}-byte runs: {errors:?}");
    }
}

#[test]
fn a_cap_below_the_share_sets_the_pace_and_leaves_the_rest_to_others() {
    let cfg = config(4, 1024, 4096, "map-bg8-xor");
    let mut memory = MemorySystem::new(cfg, 1);
    let slow = memory.start_flow(Time::ZERO, &[(0, 1 << 20)], false, Qos::Bulk, 1_000_000_000);
    let mut finished = Vec::new();
    let mut first = None;
    memory.start_flow(Time::ZERO, &[(1 << 30, 64 << 20)], false, Qos::Bulk, u64::MAX);
    while let Some(t) = memory.next_completion() {
        memory.finish_into(t, &mut finished);
        first = first.or(finished.first().copied());
    }
    let megabyte = Bytes::new(1 << 20).time_at(1_000_000_000);
    let slow_end = finished.iter().find(|f| f.1 == slow).unwrap().0;
    assert!(slow_end > megabyte && slow_end.get() < megabyte.get() + 1_000_000_000, "{slow_end}");
    assert!(slow_end.get() - memory.unloaded_read_latency().get() - megabyte.get() < 10, "paced exactly");
    assert_eq!(first.map(|f| f.1), finished.first().map(|f| f.1));
    let fast_end = finished.iter().find(|f| f.1 != slow).unwrap().0;
    let rate = u128::from((64u64 << 20) * 1_000_000_000) * 1_000_000 / u128::from(fast_end.get());
    assert!((60_000_000_000..72_000_000_000).contains(&rate), "the other flow got {rate} B/s of 76.8 GB/s");
}

#[test]
fn urgent_flows_go_first() {
    let cfg = config(4, 1024, 4096, "map-bg8-xor");
    let run = |qos| {
        let mut memory = MemorySystem::new(cfg.clone(), 1);
        for i in 0..6 {
            memory.start_flow(Time::ZERO, &[(i << 28, 1 << 20)], false, Qos::Bulk, u64::MAX);
        }
        let id = memory.start_flow(Time::ZERO, &[(9 << 28, 1 << 20)], false, qos, u64::MAX);
        let mut finished = Vec::new();
        while let Some(t) = memory.next_completion() {
            memory.finish_into(t, &mut finished);
        }
        assert_eq!(finished.len(), 7);
        assert!(finished.is_sorted());
        finished.iter().find(|f| f.1 == id).unwrap().0
    };
    assert!(run(Qos::Urgent).get() * 4 < run(Qos::Bulk).get());
}

#[test]
fn cpu_lines_wait_for_loaded_channels_and_slow_them_down() {
    let cfg = config(4, 1024, 4096, "map-bg8-xor");
    let mut memory = MemorySystem::new(cfg.clone(), 1);
    let t = cfg.timings();
    let ns = |ck: u64| ck * 1_000_000_000 / (cfg.ck_hz() / 1000);
    let idle = memory.access_line(Time::ZERO, 0, false);
    let closed = 1 + t.rcd + t.cl + t.bl_min + t.ccd_l;
    assert_eq!(idle.get() / 1000, ns(closed), "CAS, ACT, RD, data, the line's second burst");
    let hit = memory.access_line(Time::from_ns(10_000), 64, false);
    assert_eq!((hit - Time::from_ns(10_000)).get() / 1000, ns(closed - t.rcd));
    assert_eq!(memory.stats().line_wait, Time::ZERO);
    let flows = |memory: &mut MemorySystem| {
        for i in 0..12 {
            memory.start_flow(Time::from_ns(20_000), &[(i << 28, 1 << 18)], false, Qos::Bulk, u64::MAX);
        }
        memory.next_completion().unwrap()
    };
    let undisturbed = flows(&mut MemorySystem::new(cfg.clone(), 1));
    let before = flows(&mut memory);
    assert_eq!(before, undisturbed);
    let loaded = memory.access_line(Time::from_ns(20_100), 1 << 20, false) - Time::from_ns(20_100);
    assert!(loaded > idle && loaded.get() < 10 * idle.get(), "{loaded}");
    for i in 0..1000 {
        let _ = memory.access_line(Time::from_ns(20_100 + i), i << 10, i % 3 == 0);
    }
    assert!(memory.next_completion().unwrap() > before);
    assert_eq!(memory.stats().cpu.read_bytes + memory.stats().cpu.write_bytes, 1003 * 64);
}

#[test]
fn half_the_clock_takes_about_twice_the_time() {
    let work = workload(12, 0, 8 << 20, &SIZES, 3);
    let nominal = config(4, 1024, 4096, "map-bg8-xor");
    let half = DramConfig { frequency_permille: 500, ..nominal.clone() };
    let (fast, memory) = sampled(&nominal, &work, 1);
    let (slow, _) = sampled(&half, &work, 1);
    let percent = slow * 100 / fast;
    assert!((180..=205).contains(&percent), "{percent}: constraints in nanoseconds do not scale");
    assert_eq!(memory.peak_bytes_per_s(), 76_800_000_000);
    assert!(error_permyriad(&half, &work, 1).abs() <= 300);
}

#[test]
fn the_clock_may_change_under_way_and_runs_repeat() {
    let run = || {
        let mut memory = MemorySystem::new(config(4, 1024, 4096, "map-bg8-xor"), 5);
        for i in 0..12 {
            memory.start_flow(Time::ZERO, &[(i * 77_777, 100_000)], i % 3 == 0, Qos::Bulk, u64::MAX);
        }
        memory.set_frequency_permille(Time::from_ns(5_000), 400);
        let mut finished = memory.finish_until(Time::from_ns(4_000));
        while let Some(t) = memory.next_completion() {
            memory.finish_into(t, &mut finished);
        }
        (finished, memory.stats().clone())
    };
    assert_eq!(run(), run());
    assert_eq!(run().1.npu.read_bytes + run().1.npu.write_bytes, 1_200_000);
}

#[test]
fn sampled_activates_are_near_the_exact_count() {
    let cfg = config(1, 1024, 4096, "map-bg8-xor");
    let (_, memory) = sampled(&cfg, &workload(1, 0, 8 << 20, &[1 << 20], 1), 1);
    // One sequential stream opens each 2 KiB row once, and reopens open rows after each refresh.
    let s = memory.stats();
    let least = (8 << 20) / 2048;
    assert!((least..least * 3 / 2).contains(&s.activates), "{s:?}");
    assert_eq!(s.read_bursts, (8 << 20) / 32);
    let expected = s.elapsed.as_ns() / 3903;
    assert!(s.refreshes.abs_diff(expected) <= 2, "{s:?}");
    assert!(s.busy[0] <= s.elapsed);
}

#[test]
fn an_empty_flow_completes_and_configurations_are_checked() {
    let cfg = config(4, 1024, 4096, "map-a");
    let mut memory = MemorySystem::new(cfg.clone(), 1);
    assert!(memory.quiescent() && memory.next_completion().is_none());
    let id = memory.start_flow(Time::ZERO, &[], false, Qos::Bulk, 0);
    assert_eq!(memory.finish_until(Time::from_ns(1000)).first().map(|f| f.1), Some(id));
    let bad = DramConfig { channels: 0, grant_bytes: 100, frequency_permille: 0, ..cfg };
    assert_eq!(bad.validate().unwrap_err().len(), 3);
}

/// The closed loop on the memory that simulates every burst; returns its end.
fn in_full(cfg: &DramConfig, workers: &[Vec<Transfer>]) -> (Time, ExactMemory) {
    let mut memory = ExactMemory::new(cfg.clone());
    let mut at = vec![0usize; workers.len()];
    let mut owner = Vec::new();
    for (w, list) in workers.iter().enumerate() {
        owner.push((memory.start_flow(Time::ZERO, &list[0].runs, list[0].write, Qos::Bulk, u64::MAX), w));
    }
    let (mut out, mut end) = (Vec::new(), Time::ZERO);
    while let Some(now) = memory.next_completion() {
        out.clear();
        memory.finish_into(now, &mut out);
        for (time, id) in &out {
            let (_, w) = owner.remove(owner.iter().position(|o| o.0 == *id).unwrap());
            end = end.max(*time);
            at[w] += 1;
            if let Some(t) = workers[w].get(at[w]) {
                owner.push((memory.start_flow(now, &t.runs, t.write, Qos::Bulk, u64::MAX), w));
            }
        }
    }
    assert!(memory.quiescent());
    (end, memory)
}

#[test]
fn the_memory_in_full_is_the_closed_loop_in_full() {
    let cfg = config(4, 1024, 4096, "map-bg8-xor");
    for (workers, writers) in [(1, 0), (4, 1), (12, 0), (12, 4)] {
        let work = workload(workers, writers, 4 << 20, &SIZES, 11);
        let reference = i128::from(exact(&cfg, &work)) * 1_000_000_000_000_000 / i128::from(cfg.ck_hz());
        let (end, memory) = in_full(&cfg, &work);
        let permyriad = (i128::from(end.get()) - reference) * 10_000 / reference;
        assert!(permyriad.abs() <= 50, "{workers}/{writers}: {permyriad}");
        let stats = memory.stats();
        let asked: u64 = work.iter().flatten().flat_map(|t| &t.runs).map(|r| r.1).sum();
        assert_eq!(stats.npu.read_bytes + stats.npu.write_bytes, asked);
    }
}

/// What sampled and exact memory share, as far as these tests use it.
trait Channels {
    fn start(&mut self, now: Time, runs: &[(u64, u64)], write: bool);
    fn line(&mut self, now: Time, offset: u64, write: bool) -> Time;
    fn finish(&mut self, now: Time) -> usize;
}

impl Channels for MemorySystem {
    fn start(&mut self, now: Time, runs: &[(u64, u64)], write: bool) {
        self.start_flow(now, runs, write, Qos::Bulk, u64::MAX);
    }
    fn line(&mut self, now: Time, offset: u64, write: bool) -> Time {
        self.access_line(now, offset, write)
    }
    fn finish(&mut self, now: Time) -> usize {
        self.finish_until(now).len()
    }
}

impl Channels for ExactMemory {
    fn start(&mut self, now: Time, runs: &[(u64, u64)], write: bool) {
        self.start_flow(now, runs, write, Qos::Bulk, u64::MAX);
    }
    fn line(&mut self, now: Time, offset: u64, write: bool) -> Time {
        self.access_line(now, offset, write)
    }
    fn finish(&mut self, now: Time) -> usize {
        self.finish_until(now).len()
    }
}

fn scattered(i: u64) -> u64 {
    (mixed(i) >> 32) << 6
}

/// Mean latency in picoseconds of CPU reads 250 ns apart beside long flows, one line in four a write.
fn line_latency(memory: &mut impl Channels, reads: u64, writes: u64) -> u64 {
    for i in 0..reads + writes {
        memory.start(Time::ZERO, &[((i * 7919) << 16, 64 << 20)], i >= reads);
    }
    let (mut sum, mut read) = (0, 0);
    for i in 0..1000 {
        let now = Time::from_ns(5_000 + 250 * i);
        assert_eq!(memory.finish(now), 0, "a flow ended under the probes");
        let write = i % 4 == 3;
        let took = (memory.line(now, scattered(i), write) - now).get() / 1000;
        if !write {
            (sum, read) = (sum + took, read + 1);
        }
    }
    sum / read
}

/// 250 us are about 64 refresh intervals of each channel, of which some dozen are sampled, half of those with sixteen lines:
/// the mean of so few is uncertain by a tenth and more, so the mean error over the loads has the narrower band.
#[test]
fn lines_under_load_take_as_long_sampled_as_in_full() {
    let cfg = config(4, 1024, 4096, "map-bg8-xor");
    let loads = [(0, 0), (1, 0), (2, 0), (4, 0), (8, 0), (12, 0), (16, 0), (1, 1), (2, 2), (8, 4), (0, 4)];
    let mut sum = 0;
    for (reads, writes) in loads {
        let exact = line_latency(&mut ExactMemory::new(cfg.clone()), reads, writes).cast_signed();
        // Other draws of the sampler's: the mean of some.
        let sampled =
            (1..=SEEDS).map(|seed| line_latency(&mut MemorySystem::new(cfg.clone(), seed), reads, writes));
        let sampled = sampled.sum::<u64>().cast_signed() / SEEDS.cast_signed();
        let permille = (sampled - exact) * 1000 / exact;
        assert!(
            permille.abs() <= 150,
            "{reads} reads, {writes} writes: {sampled} ps sampled, {exact} in full"
        );
        sum += permille;
    }
    let mean = sum / loads.len().cast_signed() as i64;
    assert!(mean.abs() <= 60, "mean error {mean} permille");
}

/// The time at which flows of 4 MiB have ended beside lines that ask for a twentieth of the pins' rate.
fn end_under_noise(memory: &mut impl Channels, flows: u64, writers: u64) -> u64 {
    let size = 4 << 20;
    for i in 0..flows {
        memory.start(Time::ZERO, &[((i * 7919) << 16, size)], i + writers >= flows);
    }
    let (mut left, mut i) = (usize::try_from(flows).unwrap(), 0);
    loop {
        // 64 bytes every 16.7 ns are 5 % of 76.8 GB/s.
        let now = Time::new(16_667_000 * i);
        left -= memory.finish(now);
        if left == 0 {
            return now.get();
        }
        let _ = memory.line(now, scattered(i), i % 4 == 3);
        i += 1;
    }
}

/// Draws of the sampler over which means are taken.
const SEEDS: u64 = 8;

/// Single draws within 5 %, their mean within 2.5 %. Where every flow writes, lines wait for the controller's patience
/// and turn the bus round together, so one costs the less the more come: measured beside other lines than these, 12 %.
#[test]
fn flows_beside_random_lines_end_within_two_and_a_half_percent() {
    let cfg = config(4, 1024, 4096, "map-bg8-xor");
    for (flows, writers) in [(2, 0), (12, 0), (2, 1), (4, 2), (12, 4), (4, 4)] {
        let exact = end_under_noise(&mut ExactMemory::new(cfg.clone()), flows, writers).cast_signed();
        let (mean_band, band) = if flows == writers { (1200, 1300) } else { (250, 500) };
        let mut sum = 0;
        for seed in 1..=SEEDS {
            let mut memory = MemorySystem::new(cfg.clone(), seed);
            let sampled = end_under_noise(&mut memory, flows, writers).cast_signed();
            let permyriad = (sampled - exact) / (exact / 10_000);
            assert!(
                permyriad.abs() <= band,
                "{flows} flows, {writers} writing, seed {seed}: {permyriad} hundredths of a percent"
            );
            sum += permyriad;
        }
        let mean = sum / SEEDS.cast_signed();
        assert!(mean.abs() <= mean_band, "{flows} flows, {writers} writing: {mean} hundredths of a percent");
    }
}
