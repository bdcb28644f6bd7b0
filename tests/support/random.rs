//! Random chips and models for tests.

use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use soc_model::config::resolve;
use traces::workload::{Extras, Family, ModelSpec, Rope, RopeLayout, RopeScaling};

/// Names of the quantisation schemes.
pub const SCHEMES: [&str; 3] = ["fp16", "w4a16-g128", "w8a8"];

/// Runs the same `usual` cases every time, or as many others as the environment variable proptest reads asks for.
pub fn runner(usual: u32) -> TestRunner {
    let asked = ProptestConfig::default();
    let cases = if asked.cases == 256 { usual } else { asked.cases };
    let mut seed = [7; 32];
    seed[..4].copy_from_slice(&cases.to_le_bytes());
    let config = ProptestConfig { cases, failure_persistence: None, ..asked };
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed))
}

/// `--set` options; not every combination is a valid chip.
fn sets() -> impl Strategy<Value = Vec<String>> {
    let npu = (1u32..=8, 3u32..=7, 3u32..=7, 17u32..=22, 12u32..=18, prop_oneof![1u32..=4, 2u32..=64]);
    let rest = (1u32..=4, 1u32..=3, 0u32..=3, 1u32..=2, 0u32..=4);
    (npu, rest).prop_map(
        |((cores, rows, cols, spm, acc, fifo), (dma_in, dma_out, channels, harts, lanes))| {
            vec![
                format!("npu.cores={cores}"),
                format!("npu.rows={}", 1 << rows),
                format!("npu.cols={}", 1 << cols),
                format!("npu.scratchpad={} KiB", 1u64 << spm >> 10),
                format!("npu.accumulator={} KiB", (1u64 << acc >> 10).max(1 << (rows + cols) >> 8)),
                format!("npu.fifo-depth={fifo}"),
                format!("npu.dma-in-channels={dma_in}"),
                format!("npu.dma-out-channels={dma_out}"),
                format!("npu.vector-lanes={}", 4 << lanes),
                format!("dram.channels={}", 1 << channels),
                format!("cpu.little.count={harts}"),
            ]
        },
    )
}

/// Options that make a valid chip of `tiny`.
pub fn chips() -> impl Strategy<Value = Vec<String>> {
    sets().prop_filter("a valid chip", |sets| resolve("tiny", sets).is_ok())
}

/// Models whose widths are multiples of 16 up to these.
pub fn models(hidden: u32, ffn: u32, vocab: u32) -> impl Strategy<Value = ModelSpec> {
    let widths = (4..=hidden / 16, 1u32..=3, 1u32..=5, 1u32..=7, 1u32..=8, 4..=ffn / 16, 1..=vocab / 16);
    (widths, any::<[bool; 4]>()).prop_map(|((hidden, layers, kv_heads, group, head, ffn, vocab), flags)| {
        let [qkv_bias, qk_norm, tied_embedding, interleaved] = flags;
        let layout = if interleaved { RopeLayout::Interleaved } else { RopeLayout::Half };
        ModelSpec {
            name: "random".to_owned(),
            hidden: hidden * 16,
            layers,
            heads: kv_heads * group,
            kv_heads,
            head_dim: head * 16,
            ffn: ffn * 16,
            vocab: vocab * 16,
            qkv_bias,
            qk_norm,
            tied_embedding,
            rope: Rope { theta: 10_000.0, layout, scaling: RopeScaling::None },
            family: Family::Llama,
            norm_eps: 1e-6,
            max_position: 4096,
            extras: Extras::default(),
        }
    })
}
