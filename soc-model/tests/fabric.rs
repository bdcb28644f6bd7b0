//! The fabric alone: an NPU weight stream beside noise, classes, limits and narrow links, in closed forms and bands.

use sim_kernel::{Bytes, Time};
use soc_model::dram::{AddressMap, Controller, DramConfig, Standard};
use soc_model::fabric::{
    Class, Client, Content, Fabric, FabricParameters, Held, Hint, MemoryTiming, Request, SlcParameters,
};

const MIB: u64 = 1 << 20;
const CORES: usize = 6;

fn dram() -> DramConfig {
    DramConfig {
        standard: Standard::named("lpddr5x-9600").expect("a standard"),
        channels: 4,
        capacity: Bytes::new(16 << 30),
        interleave_bytes: 1024,
        grant_bytes: 4096,
        map: AddressMap::named_or_parsed("map-bg8-xor").expect("a map"),
        controller: Controller::PHONE,
        frequency_permille: 1000,
    }
}

fn parameters() -> FabricParameters {
    FabricParameters {
        cores: CORES,
        clusters: 1,
        npu_port: 76_800_000_000,
        npu_link: 153_600_000_000,
        cpu_port: 76_800_000_000,
        cpu_link: 153_600_000_000,
        beat: Time::from_ps(833),
        npu_limit: None,
        cpu_limit: None,
        weights: [1, 4, 4],
        noise: None,
        slc: None,
    }
}

fn noisy(permille: u64, class: Class) -> FabricParameters {
    FabricParameters { noise: Some((dram().peak_bytes_per_s() * permille / 1000, class)), ..parameters() }
}

/// What every core streams of its weights, two transfers of 256 KiB at a time: when the last ends, and the fabric.
fn stream(
    parameters: FabricParameters,
    timing: MemoryTiming,
    bytes: u64,
    classes: [Class; 2],
) -> (Time, Fabric) {
    let mut fabric = Fabric::new(parameters, dram(), timing, 1);
    let piece = 256 * 1024;
    let mut owners = Vec::new();
    let start = |fabric: &mut Fabric, at: Time, core: usize, n: u64| {
        let runs = [(core as u64 * 512 * MIB + n * piece, piece)];
        let class = classes[core % 2];
        let client = Client::NpuIn(core);
        let cap = 57_000_000_000;
        let r = Request {
            client,
            class,
            hint: Hint::Stream,
            content: Content::Weights,
            runs: &runs,
            write: false,
            cap,
        };
        fabric.start_flow(at, &r)
    };
    let mut next = [2u64; CORES];
    for core in 0..CORES {
        for n in 0..2 {
            owners.push((start(&mut fabric, Time::ZERO, core, n), core));
        }
    }
    let (mut ended, mut now) = (Vec::new(), Time::ZERO);
    while let Some(at) = fabric.next_completion() {
        now = now.max(at);
        ended.clear();
        fabric.finish_into(now, &mut ended);
        for (_, id) in &ended {
            let i = owners.iter().position(|o| o.0 == *id).expect("an owner");
            let (_, core) = owners.swap_remove(i);
            if next[core] * piece < bytes {
                owners.push((start(&mut fabric, now, core, next[core]), core));
                next[core] += 1;
            }
        }
        if owners.is_empty() {
            break;
        }
    }
    fabric.settle(now);
    (now, fabric)
}

fn rate(bytes: u64, time: Time) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "far below 2^53")]
    let (bytes, fs) = (bytes as f64, time.get() as f64);
    bytes / fs * 1e6
}

/// How much longer a client's transfers took than without the others.
fn slowdown(fabric: &Fabric, client: Client) -> f64 {
    let c = &fabric.stats().contention;
    let (spent, lost) = (c.spent(client.index()), c.lost_to_others(client.index()));
    rate(spent.get(), Time::new(spent.get() - lost.get())) / 1e6
}

/// A stream of 120 MiB beside noise of a share of the peak: rate, time lost to the noise over the run's, slowdown of
/// the noise.
fn beside(permille: u64, class: Class, timing: MemoryTiming, bytes: u64) -> (f64, f64, f64) {
    let p = if permille == 0 { parameters() } else { noisy(permille, class) };
    let (end, fabric) = stream(p, timing, bytes, [Class::Prefetch; 2]);
    let c = &fabric.stats().contention;
    let lost = |core| c.lost(Held::Memory, Client::NpuIn(core).index(), Client::Noise.index());
    let to_noise: Time = (0..CORES).map(lost).sum();
    let noise = if permille == 0 { 1.0 } else { slowdown(&fabric, Client::Noise) };
    (rate(CORES as u64 * bytes, end), rate(to_noise.get(), end) / 1e6, noise)
}

#[test]
fn the_stream_slows_with_the_noise_and_the_noise_with_the_stream() {
    for class in [Class::Urgent, Class::Normal] {
        let mut before = (f64::MAX, -1.0, 0.999);
        for permille in [0, 100, 300, 500] {
            let now = beside(permille, class, MemoryTiming::Sampled, 20 * MIB);
            assert!(now.0 < before.0 && now.1 > before.1, "{class:?} {permille}: {now:?} after {before:?}");
            // Urgent noise gets all it asks for.
            let least = if class == Class::Urgent { 0.999 } else { before.2 };
            assert!(
                now.2 > least && (class == Class::Normal || now.2 < 1.01),
                "{class:?} {permille}: {now:?}"
            );
            before = now;
        }
    }
}

/// Beside noise the sampled path is within 2 % of the burst path up to a tenth of the peak, within 4 % up to three.
#[test]
fn noise_costs_the_same_sampled_and_in_full() {
    for (permille, band) in [(20, 0.02), (50, 0.02), (100, 0.02), (200, 0.04), (300, 0.04)] {
        for class in [Class::Urgent, Class::Normal] {
            let [a, b] = [MemoryTiming::Sampled, MemoryTiming::Burst]
                .map(|timing| beside(permille, class, timing, 4 * MIB).0);
            assert!((a / b - 1.0).abs() < band, "{class:?} {permille}: {a} sampled, {b} in full");
        }
    }
}

#[test]
fn classes_decide_who_is_slowed() {
    let bytes = 8 * MIB;
    for timing in [MemoryTiming::Sampled, MemoryTiming::Burst] {
        let rates: Vec<(f64, f64, f64)> = [Class::Background, Class::Normal, Class::Urgent]
            .into_iter()
            .map(|class| {
                let (end, f) = stream(noisy(500, class), timing, bytes, [Class::Normal; 2]);
                (rate(CORES as u64 * bytes, end), slowdown(&f, Client::Noise), slowdown(&f, Client::NpuIn(0)))
            })
            .collect();
        for pair in rates.windows(2) {
            let ((stream, noise, npu), next) = (pair[0], pair[1]);
            assert!(stream > next.0 && noise > next.1 && npu < next.2, "{timing:?}: {rates:?}");
        }
        // Weights 1 and 4: six cores of two streams each against one noise.
        let (background, normal) = (rates[0].1, rates[1].1);
        assert!((3.0..5.0).contains(&(background / normal)), "{timing:?}: {rates:?}");
    }
}

#[test]
fn limits_and_narrow_links_hold() {
    let bytes = 8 * MIB;
    for timing in [MemoryTiming::Sampled, MemoryTiming::Burst] {
        let limited = FabricParameters { npu_limit: Some(20_000_000_000), ..parameters() };
        let (end, f) = stream(limited, timing, bytes, [Class::Normal; 2]);
        let got = rate(CORES as u64 * bytes, end);
        assert!((19.5..=20.001).contains(&got), "{timing:?}: {got} GB/s of 20");
        let c = &f.stats().contention;
        let (link, memory) = (
            c.lost(Held::Link, 2, Client::NpuIn(1).index()),
            c.lost(Held::Memory, 2, Client::NpuIn(1).index()),
        );
        assert!(link > memory * 10, "{timing:?}: {link} lost to the limit, {memory} to memory");
    }
}

/// A normal and a background transfer on a link of 20 GB/s: 4 to 1.
#[test]
fn shares_of_a_link_follow_weights() {
    for timing in [MemoryTiming::Sampled, MemoryTiming::Burst] {
        let p = FabricParameters { npu_link: 20_000_000_000, ..parameters() };
        let mut fabric = Fabric::new(p, dram(), timing, 1);
        let bytes = 4 * MIB;
        for core in 0..2 {
            let runs = [(core as u64 * 512 * MIB, bytes * [4, 1][core])];
            let class = [Class::Normal, Class::Background][core];
            let cap = 57_000_000_000;
            let r = Request {
                client: Client::NpuIn(core),
                class,
                hint: Hint::Stream,
                content: Content::Kv,
                runs: &runs,
                write: false,
                cap,
            };
            fabric.start_flow(Time::ZERO, &r);
        }
        let mut ended = Vec::new();
        while let Some(at) = fabric.next_completion() {
            fabric.finish_into(at, &mut ended);
            if ended.len() == 2 {
                break;
            }
        }
        // 4 parts at 16 GB/s and 1 at 4 GB/s take as long: 20 MiB at 20 GB/s.
        let want = Bytes::new(5 * bytes).time_at(20_000_000_000).as_ns();
        for (at, _) in &ended {
            assert!(at.as_ns().abs_diff(want) < want / 50, "{timing:?}: {at}, expected {want} ns");
        }
    }
}

/// Lines of harts beside a limit of the CPUs: one every 64 bytes' time.
#[test]
fn lines_wait_for_the_limit_of_their_client() {
    let p = FabricParameters { cpu_limit: Some(1_000_000_000), ..parameters() };
    let mut fabric = Fabric::new(p, dram(), MemoryTiming::Sampled, 1);
    let free = {
        let mut fabric = Fabric::new(parameters(), dram(), MemoryTiming::Sampled, 1);
        fabric.access_line(Time::ZERO, 0, 9 << 20, false)
    };
    for n in 0..10u64 {
        let done = fabric.access_line(Time::ZERO, 0, (9 + n) << 20, false);
        assert!(done >= free + Time::from_ns(64 * n), "line {n}: {done}");
    }
    fabric.settle(Time::from_ns(10_000));
    let c = &fabric.stats().contention;
    assert_eq!(c.lost_to_others(0), Time::ZERO, "nobody else was there");
    let lost = c.lost(Held::Link, 0, 0).as_ns();
    assert!((64 * 45..64 * 46).contains(&lost), "{lost} ns");
}

const CACHE: SlcParameters = SlcParameters {
    bytes: 8 << 20,
    ways: 16,
    cpu_ways: 16,
    npu_ways: 16,
    bytes_per_s: 153_600_000_000,
    latency: Time::from_ns(20),
};

/// Reads the same 4 MiB twice, by two cores: the second is the cache's, at its rate and the port's.
#[test]
fn what_one_core_read_another_finds() {
    for hint in [Hint::Allocate, Hint::Bypass] {
        let mut fabric = Fabric::new(
            FabricParameters { slc: Some(CACHE), ..parameters() },
            dram(),
            MemoryTiming::Sampled,
            1,
        );
        let (mut now, mut took) = (Time::ZERO, Vec::new());
        for core in 0..2 {
            let (client, cap, runs) = (Client::NpuIn(core), 57_000_000_000, [(0, 4 * MIB)]);
            let r = Request {
                client,
                class: Class::Normal,
                hint,
                content: Content::Kv,
                runs: &runs,
                write: false,
                cap,
            };
            fabric.start_flow(now, &r);
            let mut ended = Vec::new();
            while let Some(at) = fabric.next_completion().filter(|_| ended.is_empty()) {
                fabric.finish_into(at, &mut ended);
            }
            took.push((ended[0].0 - now).as_ns());
            now = ended[0].0;
        }
        fabric.settle(now);
        let (first, second) = (fabric.stats().slc[2], fabric.stats().slc[4]);
        let moved = fabric.stats().moved[Content::Kv as usize].read;
        assert_eq!(first.hit_read_bytes + second.hit_read_bytes + moved, 8 * MIB);
        if hint == Hint::Bypass {
            assert_eq!((second.hits, second.misses), (0, 4 * MIB / 64));
        } else {
            assert_eq!((second.hits, second.misses), (4 * MIB / 64, 0));
            // As fast as the channel's cap allows: 4 MiB at 57 GB/s and a look-up.
            let want = Bytes::new(4 * MIB).time_at(57_000_000_000).as_ns() + 20;
            assert!(took[1].abs_diff(want) <= 1, "{took:?}, expected {want}");
            assert!(took[0] > took[1]);
        }
    }
}

/// A line of the CPU is found after a transfer that streams past it, and lost to one that allocates.
#[test]
fn who_evicts_pays() {
    let p = FabricParameters { slc: Some(CACHE), ..parameters() };
    let mut fabric = Fabric::new(p, dram(), MemoryTiming::Sampled, 1);
    let mut now = Time::ZERO;
    let line = |fabric: &mut Fabric, now: Time| (fabric.access_line(now, 0, 8 << 30, false) - now).as_ns();
    let cold = line(&mut fabric, now);
    for (hint, found) in [(Hint::Stream, true), (Hint::Allocate, false)] {
        let runs = [(1 << 30, 32 * MIB)];
        let cap = 57_000_000_000;
        let client = Client::NpuIn(0);
        let content = Content::Weights;
        fabric.start_flow(
            now,
            &Request { client, class: Class::Normal, hint, content, runs: &runs, write: false, cap },
        );
        let mut ended = Vec::new();
        while let Some(at) = fabric.next_completion().filter(|_| ended.is_empty()) {
            fabric.finish_into(at, &mut ended);
        }
        now = ended[0].0;
        let took = line(&mut fabric, now);
        assert_eq!(took < cold / 2, found, "{hint:?}: {took} ns, cold {cold} ns");
    }
    fabric.settle(now);
    let c = &fabric.stats().contention;
    assert!(c.lost(Held::Cache, Client::Cpu.index(), Client::NpuIn(0).index()) > Time::ZERO);
    assert_eq!(c.lost(Held::Cache, Client::NpuIn(0).index(), Client::Cpu.index()), Time::ZERO);
}

/// Mean latency of lines of a hart, 200 ns apart, beside noise and streams.
#[test]
fn lines_wait_longer_the_more_noise_there_is() {
    let mut before = 0;
    for permille in [0, 100, 300, 500, 700] {
        let p = if permille == 0 { parameters() } else { noisy(permille, Class::Urgent) };
        let mut fabric = Fabric::new(p, dram(), MemoryTiming::Sampled, 1);
        for core in 0..CORES {
            let client = Client::NpuIn(core);
            let (class, hint, content) = (Class::Normal, Hint::Stream, Content::Weights);
            let runs = [(core as u64 * 512 * MIB, 64 * MIB)];
            let r = Request { client, class, hint, content, runs: &runs, write: false, cap: u64::MAX };
            fabric.start_flow(Time::ZERO, &r);
        }
        let lines = 500;
        let late = |n: u64| {
            let now = Time::from_ns(1000 + 200 * n);
            (fabric.access_line(now, 0, (8 << 30) + n * 7_777 * 64, false) - now).as_ns()
        };
        let mean = (0..lines).map(late).sum::<u64>() / lines;
        assert!(mean > before, "{permille}: {mean} ns after {before} ns");
        before = mean;
    }
}
