//! The committed table of channel efficiency by streams, grant, placement and map, and the checks that keep it
//! true: `PRESIL_BLESS=1 cargo test --release -p soc-model --test dram_table` writes it.

mod dram_exact;

use dram_exact::{exact, workload};
use sim_kernel::{Bytes, Stream};
use soc_model::dram::{
    AddressMap, BurstChannel, Commands, Controller, Done, DramConfig, Request, Standard, TickChannel,
};

const STREAMS: [u64; 5] = [1, 2, 4, 12, 16];
const GRANTS: [u64; 9] = [64, 256, 512, 1 << 10, 2 << 10, 4 << 10, 8 << 10, 16 << 10, 32 << 10];
/// Bursts per cell: 6 MiB, twelve rounds of the largest turn.
const BURSTS: u64 = (6 << 20) / 32;

#[derive(Clone, Copy)]
enum Bases {
    Random(u64),
    /// Multiples of this many bytes.
    Step(u64),
}

struct Placement {
    name: &'static str,
    map: &'static str,
    bases: Bases,
    third_writes: bool,
}

const fn placement(name: &'static str, map: &'static str, bases: Bases, third_writes: bool) -> Placement {
    Placement { name, map, bases, third_writes }
}

/// In map-a a bank stripe is 32 KiB and the bank in its group changes every 8 KiB.
const PLACEMENTS: [Placement; 14] = [
    placement("random-1", "map-a", Bases::Random(1), false),
    placement("random-2", "map-a", Bases::Random(2), false),
    placement("random-3", "map-a", Bases::Random(3), false),
    placement("lockstep", "map-a", Bases::Step(1 << 20), false),
    placement("stagger-bank", "map-a", Bases::Step((1 << 20) + (8 << 10)), false),
    placement("stagger-row", "map-a", Bases::Step(32 << 10), false),
    placement("offset-64k", "map-a", Bases::Step(64 << 10), false),
    placement("random-1-bg8", "map-bg8", Bases::Random(1), false),
    placement("lockstep-bg8", "map-bg8", Bases::Step(1 << 20), false),
    placement("random-1-xor", "map-a-xor", Bases::Random(1), false),
    placement("random-1-bg8-xor", "map-bg8-xor", Bases::Random(1), false),
    placement("lockstep-bg8-xor", "map-bg8-xor", Bases::Step(1 << 20), false),
    placement("random-1-third-writes", "map-a", Bases::Random(1), true),
    placement("random-1-bg8-xor-third-writes", "map-bg8-xor", Bases::Random(1), true),
];

enum Engine {
    Oracle(Box<TickChannel>),
    Fast(Box<BurstChannel>),
}

/// CKs that `streams` sequential streams need for `BURSTS` bursts in turns of `grant` bytes.
fn cell(oracle: bool, p: &Placement, streams: u64, grant: u64) -> u64 {
    let t = Standard::named("lpddr5x-9600").unwrap().timings;
    let map = AddressMap::named_or_parsed(p.map).unwrap().resized(31).unwrap();
    let c = Controller::PHONE;
    let mut engine = if oracle {
        Engine::Oracle(Box::new(TickChannel::new(t, c)))
    } else {
        Engine::Fast(Box::new(BurstChannel::new(t, c)))
    };
    let mut next: Vec<u64> = (0..streams)
        .map(|i| match p.bases {
            Bases::Random(seed) => Stream::new(seed, "table", &i.to_string()).below(1 << 19) << 12,
            Bases::Step(bytes) => i * bytes,
        })
        .collect();
    let (mut turn, mut left, mut sent, mut last) = (0usize, grant, 0u64, 0u64);
    let mut done: Vec<Done> = Vec::new();
    loop {
        while sent < BURSTS {
            let write = p.third_writes && turn % 3 == 2;
            let request = Request { place: map.place(next[turn]), write, class: 0, tag: 0 };
            let taken = match &mut engine {
                Engine::Oracle(e) => e.offer(request, &mut done),
                Engine::Fast(e) => e.offer(request, &mut done),
            };
            if !taken {
                break;
            }
            (next[turn], left, sent) = (next[turn] + 32, left - 32, sent + 1);
            if left == 0 {
                (turn, left) = ((turn + 1) % next.len(), grant);
            }
        }
        let empty = match &mut engine {
            Engine::Oracle(e) => {
                e.tick(&mut done);
                e.is_empty()
            }
            Engine::Fast(e) => {
                e.tick(&mut done);
                let to = e.next_event();
                e.skip_to(to);
                e.is_empty()
            }
        };
        last = done.drain(..).map(|d| d.done).max().unwrap_or(0).max(last);
        if empty && sent == BURSTS {
            return last + 1;
        }
    }
}

/// Efficiency in hundredths of a percent: two CK a burst are the pins' limit.
fn permyriad(ck: u64) -> u64 {
    BURSTS * 2 * 10_000 / ck
}

const HEADER: &str = "placement,map,streams,grant_bytes,ck,efficiency_permyriad\n";

fn line(p: &Placement, streams: u64, grant: u64, ck: u64) -> String {
    format!("{},{},{streams},{grant},{ck},{}\n", p.name, p.map, permyriad(ck))
}

fn interleave_config(bytes: u64) -> DramConfig {
    DramConfig {
        standard: Standard::named("lpddr5x-9600").unwrap(),
        channels: 4,
        capacity: Bytes::new(8 << 30),
        interleave_bytes: bytes,
        grant_bytes: 4096,
        map: AddressMap::named_or_parsed("map-bg8-xor").unwrap(),
        controller: Controller::PHONE,
        frequency_permille: 1000,
    }
}

const INTERLEAVES: [u64; 5] = [256, 1 << 10, 4 << 10, 16 << 10, 64 << 10];
const TRANSFERS: [u64; 4] = [4 << 10, 16 << 10, 64 << 10, 256 << 10];
const INTERLEAVE_HEADER: &str = "interleave_bytes,transfer_bytes,workers,ck,efficiency_permyriad\n";

/// Closed-loop reading workers on four channels; 8 MiB together.
fn interleave_line(interleave: u64, transfer: u64, workers: usize) -> String {
    let cfg = interleave_config(interleave);
    let work = workload(workers, 0, 8 << 20, &[transfer], 1);
    let bytes: u64 = work.iter().map(|w| w.len() as u64 * transfer).sum();
    let ck = exact(&cfg, &work);
    format!("{interleave},{transfer},{workers},{ck},{}\n", bytes / 32 * 2 * 10_000 / (ck * 4))
}

fn path(name: &str) -> String {
    format!("{}/data/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn blessing() -> bool {
    #[allow(clippy::disallowed_methods, reason = "writes the committed table on request; no run sees it")]
    std::env::var("PRESIL_BLESS").is_ok_and(|v| v == "1")
}

#[test]
fn the_efficiency_table_is_what_the_oracle_measures() {
    let file = path("dram_efficiency.csv");
    if blessing() {
        let mut text = HEADER.to_owned();
        for p in &PLACEMENTS {
            for streams in STREAMS {
                for grant in GRANTS {
                    text += &line(p, streams, grant, cell(false, p, streams, grant));
                }
            }
        }
        std::fs::write(&file, text).unwrap();
    }
    let text = std::fs::read_to_string(&file).unwrap();
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    assert_eq!(lines.len(), 1 + PLACEMENTS.len() * STREAMS.len() * GRANTS.len());
    assert_eq!(lines[0], HEADER);
    let mut random = Stream::new(2026, "table", "cells");
    for _ in 0..12 {
        let pick = |r: &mut Stream, n: usize| usize::try_from(r.below(n as u64)).unwrap();
        let (p, s, g) = (
            pick(&mut random, PLACEMENTS.len()),
            pick(&mut random, STREAMS.len()),
            pick(&mut random, GRANTS.len()),
        );
        let want =
            line(&PLACEMENTS[p], STREAMS[s], GRANTS[g], cell(true, &PLACEMENTS[p], STREAMS[s], GRANTS[g]));
        assert_eq!(lines[1 + (p * STREAMS.len() + s) * GRANTS.len() + g], want);
    }
}

#[test]
fn the_interleave_table_is_what_the_exact_channels_measure() {
    let file = path("dram_interleave.csv");
    let cells =
        || INTERLEAVES.iter().flat_map(|&i| TRANSFERS.iter().flat_map(move |&t| [6, 12].map(|w| (i, t, w))));
    if blessing() {
        let mut text = INTERLEAVE_HEADER.to_owned();
        for (interleave, transfer, workers) in cells() {
            text += &interleave_line(interleave, transfer, workers);
        }
        std::fs::write(&file, text).unwrap();
    }
    let text = std::fs::read_to_string(&file).unwrap();
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    assert_eq!(lines.len(), 1 + cells().count());
    for (n, (interleave, transfer, workers)) in cells().enumerate().step_by(9) {
        assert_eq!(lines[n + 1], interleave_line(interleave, transfer, workers));
    }
}

#[test]
fn commands_of_a_cell_add_up() {
    let t = Standard::named("lpddr5x-9600").unwrap().timings;
    let mut e = BurstChannel::new(t, Controller::PHONE);
    let mut done = Vec::new();
    let map = AddressMap::named_or_parsed("map-bg8-xor").unwrap();
    let mut sent = 0;
    while sent < 64 || !e.is_empty() {
        while sent < 64
            && e.offer(Request { place: map.place(sent * 32), write: false, class: 0, tag: 0 }, &mut done)
        {
            sent += 1;
        }
        e.tick(&mut done);
    }
    let Commands { reads, row_hits, row_misses, row_conflicts, .. } = *e.commands();
    assert_eq!((reads, row_hits + row_misses + row_conflicts), (64, 64), "{:?}", e.commands());
}
