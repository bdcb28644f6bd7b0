//! The oracle and the event-skipping engine against recorded cycle counts of Ramulator 2.1's LPDDR5 model.

use soc_model::dram::replay::{Input, Measured, Path, measure};
use soc_model::dram::streams::{Load, StreamKind};
use soc_model::dram::{AddressMap, Controller, Standard};

fn run(path: Path, kind: StreamKind, count: u64, load: Load, refresh: bool) -> Measured {
    let standard = Standard::named("lpddr5-6400").unwrap();
    let map = AddressMap::named_or_parsed("map-a").unwrap();
    let controller = Controller { refresh, ..Controller::DEFAULT };
    measure(&standard, controller, &map, path, &Input::Stream { kind, count, load })
}

#[test]
fn print_all() {
    use StreamKind::*;
    for path in [Path::Tick, Path::Burst] {
    for (kind, count, load, refresh, want) in [
        (SeqRead, 200_000, Load::Saturating, false, 800_035),
        (Strided, 50_000, Load::Saturating, false, 2_449_991),
        (RandRead, 200_000, Load::Saturating, false, 1_064_426),
        (Mix21, 200_000, Load::Saturating, false, 1_084_878),
        (RandRead, 20_000, Load::Chase, false, 0),
        (SeqRead, 200_000, Load::Saturating, true, 856_796),
        (RandRead, 200_000, Load::Saturating, true, 1_144_323),
        (Mix21, 200_000, Load::Saturating, true, 1_166_456),
        (Strided, 50_000, Load::Saturating, true, 2_606_763),
        (RandRead, 100_000, Load::Fraction(175_000), true, 2_285_747),
        (RandRead, 100_000, Load::Fraction(350_000), true, 1_142_915),
        (RandRead, 100_000, Load::Fraction(525_000), true, 761_978),
        (RandRead, 20_000, Load::Chase, true, 1_090_386),
    ] {
        let start = std::time::Instant::now();
        let m = run(path, kind, count, load, refresh);
        let bursts: u64 = m.read_latency.iter().sum();
        let sum: u64 = m.read_latency.iter().enumerate().map(|(l, n)| l as u64 * n).sum();
        println!("{path:?} {kind:?} {load:?} {refresh} got {} want {want} lat {:.2} txn {:.2} rows {} {} {} {:?}", m.ck_cycles,
          sum as f64 / bursts as f64 * 1.25, m.transaction_latency_sum as f64 / count as f64 * 1.25, m.commands.row_hits, m.commands.row_misses, m.commands.row_conflicts, start.elapsed());
    }}
}
