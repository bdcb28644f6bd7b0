//! How fast the study of products is: the law alone, behind a memory, and the set measured on SCALE-Sim.
#![allow(missing_docs, reason = "criterion's macro makes a public function")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use npu_model::array::{Array, Product};
use npu_model::study::{Bandwidth, Dataflow, Discipline, Formats, LocalMemory, Study};

const SET: [(u64, u64, u64); 7] = [
    (128, 128, 128),
    (512, 512, 512),
    (1024, 1024, 1024),
    (128, 4096, 4096),
    (1, 4096, 4096),
    (2048, 2048, 8192),
    (64, 768, 3072),
];

fn study(name: &str, memory: Option<Bandwidth>) -> Study {
    let array = Array { rows: 128, cols: 128 };
    Study {
        discipline: Discipline::named(name).expect("built in"),
        array,
        dataflow: Dataflow::WeightStationary,
        weight_load: None,
        formats: Formats::Int8,
        local: LocalMemory::in_proportion(array),
        memory,
    }
}

fn set(study: &Study) -> u64 {
    let run = |(m, k, n)| study.run(black_box(Product { m, k, n })).expect("small").total_cycles;
    SET.into_iter().map(run).sum()
}

fn benches(c: &mut Criterion) {
    for name in ["scalesim", "gemmini", "default"] {
        let ideal = study(name, None);
        c.bench_function(&format!("set of 7, {name}, ideal memory"), |b| b.iter(|| set(&ideal)));
    }
    let behind = study("default", Some(Bandwidth { bytes: 768, cycles: 10 }));
    c.bench_function("set of 7, default, 76.8 bytes a cycle", |b| b.iter(|| set(&behind)));
}

criterion_group!(all, benches);
criterion_main!(all);
