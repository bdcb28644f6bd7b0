//! How fast the functional GEMM is: a tile of int8 and one of fp16.
#![allow(missing_docs, reason = "criterion's macro makes a public function")]

#[path = "../tests/ops_common/mod.rs"]
mod ops_common;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use isa::npu::{Command, Format, Gemm};
use ops_common::{config, memories, run};

const SIZE: (u64, u64, u64) = (32, 256, 64);

fn benches(c: &mut Criterion) {
    let (m, k, n) = SIZE;
    let mut group = c.benchmark_group("functional gemm 32x256x64");
    group.throughput(Throughput::Elements(m * k * n));
    for (name, format, sums) in [("int8", Format::Int8, Format::Int32), ("fp16", Format::Fp16, Format::Fp32)]
    {
        let gemm = Gemm {
            b: 64 * 1024 / 32,
            m: m - 1,
            k: k - 1,
            n: n - 1,
            af: format.code(),
            bf: format.code(),
            cf: sums.code(),
            ..Gemm::default()
        };
        let (cfg, command) = (config(), Command::gemm(gemm, None));
        let mut local = memories(&cfg);
        group.bench_function(name, |b| b.iter(|| run(&command, &cfg, &mut local)));
    }
    group.finish();
}

criterion_group!(all, benches);
criterion_main!(all);
