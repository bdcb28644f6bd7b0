//! Every knob of the controller against recorded runs of Ramulator 2.1 (main, June 2026): its LPDDR5 controller on one
//! x16 LPDDR5-6400 channel, 8 Gb, map-a, our nine streams sent in order by a driver linked to the library.

use soc_model::dram::controller::WATERMARKS;
use soc_model::dram::replay::{Input, Path, measure};
use soc_model::dram::replay_io::ReplayResult;
use soc_model::dram::streams::{Load, StreamKind};
use soc_model::dram::{AddressMap, Controller, Refresh, RowPolicy, Scheduler, Standard, Wck};

fn knobs(name: &str) -> Controller {
    let base = Controller::DEFAULT;
    let buffers = |slots| {
        let mut c = Controller { read_buffer: slots, write_buffer: slots, ..base };
        c.set_watermarks(WATERMARKS[0], WATERMARKS[1]);
        c
    };
    let closed = |cap| Controller { rows: RowPolicy::Closed { cap }, ..base };
    match name {
        "base" => base,
        "none" => Controller { refresh: Refresh::None, ..base },
        "pb" => Controller { refresh: Refresh::PerBank, ..base },
        "wck" => Controller { wck: Wck::AlwaysOn, ..base },
        "b16" => buffers(16),
        "b64" => buffers(64),
        "wm" => {
            let mut c = base;
            c.set_watermarks(500, 900);
            c
        }
        "closed4" => closed(4),
        "closed1" => closed(1),
        "rowhit" => Controller { scheduler: Scheduler::RowHitFirst, ..base },
        "rowhitclosed" => Controller { scheduler: Scheduler::RowHitFirst, ..closed(4) },
        other => panic!("no knobs called {other}"),
    }
}

fn run(name: &str, map: &str, path: Path, kind: StreamKind, count: u64, load: Load) -> (u64, ReplayResult) {
    let standard = Standard::named("lpddr5-6400").unwrap();
    let map = AddressMap::named_or_parsed(map).unwrap();
    let m = measure(&standard, knobs(name), &map, path, &Input::Stream { kind, count, load });
    (m.ck_cycles, ReplayResult::new(&standard, &m))
}

#[test]
fn cycles_latencies_and_rows_are_those_of_the_reference_whatever_is_set() {
    let file = format!("{}/data/dram_reference.csv", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(file).unwrap();
    let mut seen = 0;
    for line in text.lines().skip(1) {
        let f: Vec<&str> = line.split(',').collect();
        let number = |n: usize| f[n].parse::<u64>().unwrap();
        let (kind, load) = (f[2].parse().unwrap(), f[1].parse::<Load>().unwrap());
        let (ck, r) = run(f[0], "map-a", Path::Burst, kind, number(3), load);
        assert_eq!(ck, number(4), "{line}");
        assert_eq!([r.row_hits, r.row_misses, r.row_conflicts], [number(6), number(7), number(8)], "{line}");
        let mean = r.read_latency_ns.map_or(0.0, |l| l.mean / 1.25);
        assert!((mean - f[5].parse::<f64>().unwrap()).abs() < 0.005, "{line}: {mean}");
        seen += 1;
    }
    assert_eq!(seen, 96);
}

/// Knobs, map, and the percentage of the pins' peak for seq_read, rand_read, mix21 and strided.
const SENSITIVITY: [(&str, &str, [f64; 4]); 8] = [
    ("base", "map-a", [93.37, 69.91, 68.58, 7.67]),
    ("none", "map-a", [100.00, 75.16, 73.74, 8.16]),
    ("wck", "map-a", [93.37, 69.89, 68.85, 7.68]),
    ("b16", "map-a", [93.20, 58.81, 54.30, 7.67]),
    ("b64", "map-a", [93.35, 71.71, 79.04, 7.67]),
    ("wm", "map-a", [93.38, 69.96, 60.71, 7.67]),
    ("closed4", "map-a", [69.30, 69.96, 53.95, 7.67]),
    ("base", "map-32", [93.39, 44.10, 67.86, 7.71]),
];

#[test]
fn what_moves_the_reference_moves_the_model_as_far() {
    let kinds = [StreamKind::SeqRead, StreamKind::RandRead, StreamKind::Mix21, StreamKind::Strided];
    let base =
        kinds.map(|k| 100.0 * run("base", "map-a", Path::Burst, k, 100_000, Load::Saturating).1.utilisation);
    for (name, map, expected) in SENSITIVITY {
        for (i, kind) in kinds.into_iter().enumerate() {
            let (_, r) = run(name, map, Path::Burst, kind, 100_000, Load::Saturating);
            let (percent, moved) = (100.0 * r.utilisation, expected[i] - SENSITIVITY[0].2[i]);
            assert!((percent - expected[i]).abs() < 0.2, "{name} {map} {}: {percent}", kind.name());
            let same_way = (percent - base[i]) * moved > 0.0;
            assert!(moved.abs() < 0.2 || same_way, "{name} {map} {}: {percent}", kind.name());
        }
    }
}

#[test]
fn the_oracle_gives_the_same_figures() {
    for name in ["base", "pb", "closed4", "rowhit", "b64"] {
        for kind in [StreamKind::Rand50, StreamKind::Interleave4, StreamKind::WriteOnly] {
            let of = |path| run(name, "map-a", path, kind, 5_000, Load::Saturating).0;
            assert_eq!(of(Path::Tick), of(Path::Burst), "{name} {}", kind.name());
        }
    }
}

/// Ramulator 2.1's LPDDR6 device (10667 MT/s, BL24, x12), 50,000 transactions, in its CK, two of which are one of ours.
const LPDDR6: [(&str, u64); 7] = [
    ("seq_read", 676_605),
    ("rand_read", 1_253_349),
    ("mix21", 951_403),
    ("strided", 10_111_285),
    ("write_only", 678_736),
    ("rand50", 1_636_962),
    ("interleave4", 1_538_856),
];

#[test]
fn lpddr6_is_within_a_percent_and_a_half() {
    let standard = Standard::named("lpddr6-10667").unwrap();
    let map = AddressMap::named_or_parsed("map-a").unwrap().resized(standard.channel_bits).unwrap();
    for (name, ck) in LPDDR6 {
        let input = Input::Stream { kind: name.parse().unwrap(), count: 50_000, load: Load::Saturating };
        let m = measure(&standard, Controller::DEFAULT, &map, Path::Burst, &input);
        let error = 2.0 * m.ck_cycles as f64 / ck as f64 - 1.0;
        assert!(error.abs() < 0.015, "{name}: {error}");
    }
}
