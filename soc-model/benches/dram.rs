//! How many transactions a second one channel takes: the event-skipping engine by stream, and the sampled path.
#![allow(missing_docs, reason = "criterion's macro makes a public function")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use soc_model::dram::replay::{Input, Path, measure};
use soc_model::dram::streams::{Load, StreamKind};
use soc_model::dram::{AddressMap, Controller, Standard};

fn benches(c: &mut Criterion) {
    let standard = Standard::named("lpddr5-6400").expect("built in");
    let map = AddressMap::named_or_parsed("map-a").expect("built in");
    for (path, count) in [(Path::Burst, 20_000), (Path::Sampled, 2_000_000)] {
        let mut group = c.benchmark_group(format!("dram {}", path.name()));
        group.sample_size(20);
        group.throughput(Throughput::Elements(count));
        for kind in StreamKind::ALL {
            let input = Input::Stream { kind, count, load: Load::Saturating };
            group.bench_function(kind.name(), |b| {
                b.iter(|| measure(&standard, Controller::DEFAULT, &map, path, &input).ck_cycles);
            });
        }
        group.finish();
    }
}

criterion_group!(all, benches);
criterion_main!(all);
