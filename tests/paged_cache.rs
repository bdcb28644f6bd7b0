//! The cache of keys and values in pages: whatever pages are free, in whatever order, nothing but addresses changes.

mod common;
#[allow(dead_code, reason = "only a part of the writer is needed here")]
mod gguf_writer;
#[allow(dead_code, reason = "only a part of what the functional tests share is needed here")]
#[path = "support/soc.rs"]
mod soc;
#[allow(dead_code, reason = "only a part of what the functional tests share is needed here")]
mod support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use common::presil;
use gguf_writer::{GOOD, SEED, file, spec};
use isa::cache::{PageChoice, Paging};
use isa::tags::OpKind;
use proptest::prelude::*;
use runtime::pages::{Exhausted, Slabs};
use serde_json::Value;
use soc::{Case, Compute, prompt};
use soc_model::soc::{MemoryTiming, RunResult, SocBuilder, SocFault, Turn};
use support::machine::{Interruption, Machine, Shape};
use traces::image::{build_image, random_tensors};
use traces::workload::{ModelSpec, QuantScheme, TensorFormat};

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_slab_is_taken_twice_and_none_is_lost(
        total in 1u64..=300,
        wanted in proptest::collection::vec(0u64..=310, 1..60),
    ) {
        let mut slabs = Slabs::new(total);
        let mut held: Vec<u16> = Vec::new();
        for n in wanted {
            let before = (slabs.taken().to_vec(), slabs.free().to_vec());
            match slabs.hold(n) {
                Err(Exhausted) => {
                    prop_assert!(n > total);
                    prop_assert_eq!((slabs.taken(), slabs.free()), (&*before.0, &*before.1));
                }
                Ok(changed) => {
                    prop_assert!(n <= total);
                    let was = held.len() as u64;
                    prop_assert_eq!(changed, was.min(n)..was.max(n));
                    // What holds positions that stay is not moved.
                    let stay = held.len().min(slabs.taken().len());
                    prop_assert_eq!(&slabs.taken()[..stay], &held[..stay]);
                    held = slabs.taken().to_vec();
                }
            }
            prop_assert_eq!(slabs.taken().len() + slabs.free().len(), usize::try_from(total).expect("small"));
            let all: BTreeSet<u16> = slabs.taken().iter().chain(slabs.free()).copied().collect();
            prop_assert_eq!(all.len() as u64, total);
            prop_assert!(all.iter().all(|s| u64::from(*s) < total));
        }
    }
}

#[test]
fn slabs_that_were_given_back_come_last() {
    let mut slabs = Slabs::new(8);
    assert_eq!(slabs.hold(3), Ok(0..3));
    assert_eq!(slabs.taken(), [0, 1, 2]);
    assert_eq!(slabs.hold(0), Ok(0..3));
    assert_eq!(slabs.hold(4), Ok(0..4));
    let again = slabs.taken().to_vec();
    assert!(again.iter().any(|s| *s > 2) && again.windows(2).any(|w| w[0] > w[1]), "{again:?}");
}

fn fp16() -> QuantScheme {
    QuantScheme::named("fp16").expect("a scheme")
}

/// What a machine makes of two conversations in turn: tokens and the bits of all logits.
fn conversations(
    spec: &ModelSpec,
    shape: &Shape,
    interruption: Option<Interruption>,
) -> Vec<(usize, Vec<u32>)> {
    let (_, image) = build_image(spec, &fp16(), &mut random_tensors(SEED, spec)).expect("an image");
    let mut machine = Machine::new(shape, image);
    machine.interruption = interruption;
    let mut out = Vec::new();
    for (at, length, made) in [(0, 50, 12), (61, 20, 9), (0, 9, 4), (12, 60, 3), (33, 21, 14), (0, 100, 2)] {
        machine.resume(at);
        let prompt: Vec<usize> = (0..length).map(|i| (i * 37 + 11 + length) % spec.vocab as usize).collect();
        let tokens = machine.generate(&prompt, made);
        out.extend(tokens.iter().map(|s| (s.token, s.logits.iter().map(|l| l.to_bits()).collect())));
    }
    out
}

#[test]
fn pages_of_any_size_in_any_order_change_no_logit() {
    let spec = spec();
    for kv_bits in [16, 8, 4] {
        let small = |cores| Shape { positions: 128, kv_bits, chunk: 12, ..Shape::usual(cores) };
        // One page holds a whole stream: the cache as it was without pages.
        let whole = PageChoice { page_positions: 128, pool_positions: 0 };
        let expected = conversations(&spec, &Shape { pages: whole, ..small(1) }, None);
        assert_eq!(expected.len(), 44);
        for (cores, page_positions) in [(1, 1), (1, 5), (2, 1), (3, 20), (4, 3), (4, 64)] {
            let pages = PageChoice { page_positions, pool_positions: 0 };
            let got = conversations(&spec, &Shape { pages, ..small(cores) }, None);
            assert!(got == expected, "{kv_bits} bits, {cores} cores, {page_positions} positions a page");
        }
        // Blocks of few keys: each ends anywhere in a page. Pages outlast a core that is taken away.
        let blocks = |pages| Shape { accumulator: 640, pages, ..small(2) };
        let expected = conversations(&spec, &blocks(whole), None);
        for level in 1..=3 {
            let pages = PageChoice { page_positions: 2, pool_positions: 0 };
            let i = Interruption { level, after: 40, cores: 3 };
            assert!(
                conversations(&spec, &blocks(pages), Some(i)) == expected,
                "{kv_bits} bits, level {level}"
            );
        }
    }
}

fn tokens(r: &RunResult) -> Vec<u32> {
    r.tokens.iter().map(|t| t.0).collect()
}

#[test]
fn the_chip_makes_the_same_tokens_of_any_pages_and_takes_the_same_time_without_values() {
    for kv in [TensorFormat::Fp16, TensorFormat::Int8, TensorFormat::Int4] {
        let case = |page_positions, pool_positions| {
            let mut case = Case::new(&["npu.cores=2"], "fp16");
            (case.quant.kv, case.decode) = (kv, 12);
            case.pages = PageChoice { page_positions, pool_positions };
            case
        };
        let expected = case(64, 0).run(&Compute::Values).expect("the run ends");
        for (page_positions, pool_positions) in [(1, 0), (1, 32), (7, 40)] {
            let case = case(page_positions, pool_positions);
            let got = case.run(&Compute::Values).expect("the run ends");
            assert_eq!(tokens(&got), tokens(&expected), "{kv:?}, {page_positions} positions a page");
            let first = case.prompt.len() as u64;
            let ids = (first..).zip(tokens(&got)).collect();
            let shapes = case.run(&Compute::Shapes(ids)).expect("the run ends");
            assert_eq!((shapes.end, shapes.decode_read_bytes), (got.end, got.decode_read_bytes));
            let paging = case.paging();
            let used = paging.pages_for(first + case.decode - 1) * paging.slab_pages();
            assert_eq!(got.kv_pages, (used, paging.total_pages()));
            assert_eq!(shapes.kv_pages, got.kv_pages);
        }
    }
}

#[test]
fn scattered_pages_take_as_long_sampled_as_burst_by_burst() {
    for page_positions in [1, 8] {
        let mut case = Case::new(&["npu.cores=2"], "fp16");
        (case.context, case.decode) = (400, 4);
        case.pages.page_positions = page_positions;
        let time = |memory| {
            let builder = SocBuilder { memory, ..case.builder(&Compute::Shapes(Vec::new())) };
            let result = builder.build().expect("a chip").run(&mut |_| {}).expect("the run ends");
            result.end.saturating_sub(result.zero).get()
        };
        let (sampled, burst) = (time(MemoryTiming::Sampled), time(MemoryTiming::Burst));
        assert!(
            sampled.abs_diff(burst) * 20 < burst,
            "{page_positions}: {sampled} fs sampled, {burst} exact"
        );
    }
}

/// Entries of the page table that a transfer of these rows reads.
fn entries(p: &Paging, from: u64, count: u64) -> u64 {
    let page = |byte: u64| byte >> p.page_log2;
    page((from + count) * p.row - 1) - page(from * p.row) + 1
}

#[test]
fn attention_reads_the_cache_and_its_page_table_to_the_byte() {
    for (kv, page_positions) in [
        (TensorFormat::Fp16, 1),
        (TensorFormat::Fp16, 9),
        (TensorFormat::Int8, 3),
        (TensorFormat::Int4, 100),
        (TensorFormat::Int8, 0),
    ] {
        let mut case = Case::new(&["npu.cores=2"], "fp16");
        (case.quant.kv, case.prompt, case.decode, case.context) = (kv, prompt(&case.spec, 1), 6, 700);
        case.pages.page_positions = page_positions;
        let (paging, block) = (case.paging(), case.blocks()[0] as u64);
        let result = case.run(&Compute::Shapes(Vec::new())).expect("the run ends");
        let mut expected = (0, 0);
        for position in 700u64..706 {
            let keys = position + 1;
            let blocks = (0..keys.div_ceil(block)).map(|b| (b * block, block.min(keys - b * block)));
            let table: u64 = blocks.map(|(from, count)| entries(&paging, from, count)).sum();
            // Its own row is placed by the table, too.
            let table = 4 * (table + entries(&paging, position, 1));
            expected.0 += (keys * paging.row + table) * paging.slab_pages();
            expected.1 += paging.row * paging.slab_pages();
        }
        let attention = result.ops.iter().filter(|o| o.key.tag == OpKind::Attention as u64);
        let moved = attention
            .fold((0, 0), |(r, w), o| (r + o.row.activity.memory_read, w + o.row.activity.memory_written));
        assert_eq!(moved, expected, "{kv:?}, {page_positions} positions a page");
    }
}

#[test]
fn a_job_that_needs_more_pages_ends_and_the_next_one_is_served() {
    let mut case = Case::new(&["npu.cores=2"], "fp16");
    case.decode = 60;
    case.pages = PageChoice { page_positions: 4, pool_positions: 40 };
    let turn = |prompt: &[u32], context: usize, decode: u64| Turn {
        prompt: prompt.to_vec(),
        decode,
        context: context as u64,
        ..Turn::default()
    };
    let free = {
        let mut case = case.clone();
        case.pages.pool_positions = 0;
        tokens(&case.run(&Compute::Values).expect("the run ends"))
    };
    let mut soc = case.builder(&Compute::Values).build().expect("a chip");
    let mut heard = Vec::new();
    let told = &mut |t: &[(u32, sim_kernel::Time)]| heard = t.iter().map(|t| t.0).collect();
    let ended = soc.turn(turn(&case.prompt, 0, 60), told).expect_err("too few pages");
    // Rows of 64 bytes, pages of 256: the token at position 40 is fed back nowhere.
    let Some(SocFault::Refused { tokens: made, console, .. }) = Some(ended.clone()) else {
        panic!("{ended}")
    };
    assert_eq!((made, heard.len()), (20, 20));
    assert_eq!(heard, free[..20]);
    assert!(console.contains("position 40 needs 88 pages, the cache has 80 for 40 positions"), "{console}");
    // A shorter job finds the chip in order, also one that goes on from what is resident.
    let again = tokens(&soc.turn(turn(&case.prompt, 0, 9), &mut |_| {}).expect("a turn"));
    assert_eq!(again, free[..9]);
    let more = soc.turn(turn(&free[8..9], case.prompt.len() + 8, 7), &mut |_| {}).expect("a turn");
    assert_eq!(tokens(&more), free[9..16]);
    assert_eq!(more.kv_pages.1, 80);
    // A prompt too long is refused before its first token.
    let long = prompt(&case.spec, 41);
    match soc.turn(turn(&long, 0, 1), &mut |_| {}) {
        Err(SocFault::Refused { tokens: 0, .. }) => {}
        other => panic!("{:?}", other.map(|r| r.tokens)),
    }
}

/// The small file in the tests' own folder.
fn written(name: &str) -> String {
    let path: PathBuf = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, file(&GOOD)).expect("a temporary file");
    path.to_str().expect("UTF-8").to_owned()
}

const TEXT: &str = "the end is near";

fn arguments<'a>(model: &'a str, extra: &[&'a str]) -> Vec<&'a str> {
    [&["run", "--soc", "tiny", "--model", model, "--prompt", TEXT], extra].concat()
}

fn run(model: &str, extra: &[&str]) -> Value {
    let ran = presil(&[&arguments(model, extra)[..], &["--json"]].concat());
    assert_eq!(ran.code, 0, "{extra:?}: {}", ran.err);
    serde_json::from_str(&ran.out).expect("one JSON document")
}

#[test]
fn the_record_says_what_the_cache_takes() {
    let model = written("paged-record.gguf");
    let usual = run(&model, &["--decode", "24"]);
    for (kv, row, page) in [("fp16", 32, "3"), ("int8", 32, "10"), ("int4", 16, "1")] {
        let record = run(&model, &["--decode", "24", "--kv", kv, "--kv-page", page, "--kv-pool", "60"]);
        let get = |key: &str| record["kv"][key].as_u64().expect("a number");
        let prompt = record["workload"]["prompt_tokens"].as_u64().expect("a number");
        let positions = prompt + 23;
        assert_eq!(get("positions"), positions, "{kv}");
        let page: u64 = page.parse().expect("a number");
        assert_eq!(get("page_bytes"), (page * row).next_power_of_two().max(64));
        let spec = spec();
        let streams = 2 * u64::from(spec.kv_heads) * u64::from(spec.layers);
        assert_eq!(get("pages_used"), streams * (positions * row).div_ceil(get("page_bytes")));
        let most = (prompt + 24).div_ceil(16) * 16;
        assert_eq!(get("pages_total"), streams * (most.min(60) * row).div_ceil(get("page_bytes")));
        assert_eq!(get("bytes_used"), positions * row * streams);
        assert_eq!(get("bytes_reserved"), get("pages_total") * get("page_bytes"));
        assert_eq!(
            get("bits"),
            match kv {
                "fp16" => 16,
                "int8" => 8,
                _ => 4,
            }
        );
        if kv == "fp16" {
            assert_eq!(record["output"]["tokens"], usual["output"]["tokens"]);
            assert_eq!(record["output"]["logprobs"], usual["output"]["logprobs"]);
        }
    }
}

#[test]
fn a_pool_that_is_too_small_ends_the_answer_with_what_is_missing() {
    let model = written("paged-pool.gguf");
    let all = presil(&arguments(&model, &["--decode", "40"]));
    assert_eq!(all.code, 0, "{}", all.err);
    let text = all.out.split("\n\n").next().expect("the text comes first");
    let options = ["--decode", "40", "--kv-page", "2", "--kv-pool", "24"];
    let ran = presil(&arguments(&model, &options));
    assert_eq!(ran.code, 4, "{}", ran.err);
    assert!(!ran.out.is_empty() && text.starts_with(ran.out.trim_end()), "{} | {text}", ran.out);
    assert!(ran.err.contains("no page of the cache of keys and values is left"), "{}", ran.err);
    assert!(ran.err.contains("position 24 needs ") && ran.err.contains("for 24 positions"), "{}", ran.err);
    // What the options cannot be.
    for extra in [["--kv-page", "0"], ["--kv-pool", "0"], ["--kv-page", "x"]] {
        assert_eq!(presil(&arguments(&model, &extra)).code, 2, "{extra:?}");
    }
    let long = presil(&["run", "--prefill", "20", "--context", "20000", "--kv-page", "1"]);
    assert!(
        long.code == 3 && long.err.contains("--kv-page: pages of 1 positions"),
        "{} {}",
        long.code,
        long.err
    );
}
