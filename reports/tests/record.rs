//! The record: conversion in closed form, laws that catch what they should, and JSON that reads back.

mod common;

use reports::columns::{self, COLUMNS};
use reports::facts::KvFacts;
use reports::{CheckError, ReadError, RunFacts, RunRecord};
use serde_json::Value;
use sim_kernel::{Bytes, Energy, Time};

fn record() -> RunRecord {
    RunRecord::from_facts(&common::facts()).expect("the made-up facts hold every law")
}

fn close(found: f64, expected: f64) {
    assert!((found - expected).abs() <= 1e-12 * expected.abs(), "{found} is not {expected}");
}

#[test]
fn figures_follow_from_their_definitions() {
    let r = record();
    close(r.time.ttft_s, 0.1);
    close(r.time.tpot_mean_s.expect("five tokens"), 0.025);
    // Gaps of 24, 25, 24, 27 ms: nearest ranks 2 and 4.
    close(r.time.tpot_p50_s.expect("five tokens"), 0.024);
    close(r.time.tpot_p99_s.expect("five tokens"), 0.027);
    assert_eq!(r.time.token_s, [0.1, 0.124, 0.149, 0.173, 0.2]);
    close(r.throughput.prefill_tok_per_s.expect("a prompt"), 1280.0);
    close(r.throughput.decode_tok_per_s.expect("five tokens"), 40.0);
    close(r.energy.decode_j_per_token.expect("five tokens"), 0.5 / 4.0);
    close(r.efficiency.effective_tops, 2.0 * 198e9 / 0.2 / 1e12);
    close(r.efficiency.utilisation, (195.9e9 / 16e12 + 2.1e9 / 4e12) / 0.2);
    close(r.efficiency.tops_per_w.array_vmin.expect("given"), 2.0 * 198e9 / 0.1 / 1e12);
    close(r.efficiency.tops_per_w.npu_rail.expect("given"), 2.0 * 198e9 / 0.3 / 1e12);
    close(r.efficiency.tops_per_w.workload.expect("given"), 2.0 * 198e9 / 0.8 / 1e12);
    close(r.power.mean_w, 4.0);
    close(r.power.peak_w.expect("given"), 7.25);
    close(r.dram.bandwidth_gb_per_s, 3.16 / 0.2);
    close(r.dram.utilisation, 15.8 / 68.0);
    close(r.dram.decode_read_bytes_per_token.expect("five tokens"), 745e6);
    close(r.firmware.instructions_per_token.expect("five tokens"), 100_000.0);
    close(r.area_mm2.as_ref().expect("given").total, 16.5);
}

#[test]
fn keys_come_in_the_order_of_the_contract() {
    let value = serde_json::to_value(record()).expect("a record is JSON");
    let keys: Vec<&str> = value.as_object().expect("an object").keys().map(String::as_str).collect();
    assert_eq!(
        keys.join(" "),
        "schema soc model policy workload firmware boot time throughput energy efficiency power area_mm2 thermal \
         dram cycles commands ops memory_model validity digest version config"
    );
}

#[test]
fn preemption_is_told_where_there_was_any() {
    let mut facts = common::facts();
    let told = reports::record::Preemption { level2: 3, saved_bytes: 4096, ..Default::default() };
    facts.preemption = Some(told);
    let json = RunRecord::from_facts(&facts).expect("consistent facts").to_json().expect("JSON");
    assert!(json.contains("\"preemption\": {"), "{json}");
    assert_eq!(RunRecord::from_json(&json).expect("the same record").preemption, Some(told));
}

#[test]
fn pages_of_the_cache_are_those_its_positions_fill() {
    let mut facts = common::facts();
    let kv = KvFacts {
        bits: 8,
        row_bytes: 144,
        streams: 12,
        page_bytes: 1024,
        positions: 132,
        pages_used: 12 * 19,
        pages_total: 12 * 20,
    };
    facts.kv = Some(kv);
    let record = RunRecord::from_facts(&facts).expect("consistent facts");
    let told = record.kv.expect("the facts have it");
    assert_eq!((told.bytes_used, told.bytes_reserved), (132 * 144 * 12, 240 * 1024));
    let json = record.to_json().expect("JSON");
    assert_eq!(RunRecord::from_json(&json).expect("the same record").kv, Some(told));
    for wrong in [
        KvFacts { pages_used: 12 * 19 - 1, ..kv },
        KvFacts { pages_total: 12 * 19 - 1, ..kv },
        KvFacts { positions: 136, ..kv },
    ] {
        facts.kv = Some(wrong);
        assert!(RunRecord::from_facts(&facts).is_err(), "{wrong:?}");
    }
}

#[test]
fn a_figure_without_model_or_occasion_is_absent() {
    let mut facts = common::facts();
    facts.token_times.truncate(1);
    facts.workload.decode_tokens = 1;
    facts.workload.prompt_tokens = 0;
    facts.boot = None;
    facts.thermal = None;
    facts.area_um2 = None;
    facts.energy.array_vmin = None;
    facts.energy.peak_microwatts = None;
    let text = RunRecord::from_facts(&facts).expect("still a run").to_json().expect("JSON");
    for key in [
        "tpot_mean_s",
        "tpot_p50_s",
        "tpot_p99_s",
        "prefill_tok_per_s",
        "decode_tok_per_s",
        "decode_j_per_token",
        "array_vmin",
        "peak_w",
        "area_mm2",
        "thermal",
        "boot",
        "output",
        "decode_read_bytes_per_token",
        "instructions_per_token",
        "null",
    ] {
        assert!(!text.contains(key), "{key} must be absent");
    }
}

/// Breaks the facts in one place and returns the messages of the laws that noticed.
fn broken(damage: impl FnOnce(&mut RunFacts)) -> String {
    let mut facts = common::facts();
    damage(&mut facts);
    let errors = RunRecord::from_facts(&facts).expect_err("a law must notice");
    errors.iter().map(CheckError::to_string).collect::<Vec<_>>().join("; ")
}

#[test]
fn every_law_notices_its_breach() {
    type Damage = fn(&mut RunFacts);
    let cases: [(&str, Damage); 19] = [
        ("components sum to the total", |f| {
            *f.energy.by_component.get_mut("fabric").expect("there") += Energy::new(1);
        }),
        ("prefill + decode == total", |f| f.energy.decode += Energy::new(1)),
        ("ops spend no more", |f| f.ops[0].energy = f.energy.total),
        ("NPU rail is part", |f| f.energy.npu_rail = f.energy.total + Energy::new(1)),
        ("array alone", |f| f.energy.array_vmin = Some(f.energy.npu_rail + Energy::new(1))),
        ("ops' MACs == engines' MACs", |f| f.ops[0].macs += 1),
        ("engines' MACs == the model's MACs", |f| f.model_macs = Some(1)),
        ("MACs x 1e15 <= peak", |f| f.work.get_mut("int4").expect("there").peak_macs_per_s = 979_000_000_000),
        ("dram read: bytes requested == bytes served", |f| f.dram.moved.read += Bytes::new(1)),
        ("dram write: bytes requested == bytes served", |f| f.dram.absorbed.write += Bytes::new(1)),
        ("decode reads are part", |f| f.dram.decode_read = f.dram.moved.read + Bytes::new(1)),
        ("ops move no more", |f| f.ops[0].dram_bytes = Bytes::new(4_000_000_000)),
        ("bytes x 1e15 <= peak", |f| f.dram.peak_bytes_per_s = 15_799_999_999),
        ("cycles.cpu.big0: causes sum", |f| f.cycles.get_mut("cpu.big0").expect("there").total += 1),
        ("`Busy` is not snake_case", |f| {
            f.cycles.get_mut("cpu.big0").expect("there").causes.insert("Busy".to_owned(), 0);
        }),
        ("no cause may be called", |f| {
            f.cycles.get_mut("cpu.big0").expect("there").causes.insert("total".to_owned(), 0);
        }),
        ("tokens arrive in order", |f| f.token_times[1] = Time::ZERO),
        ("last token is inside", |f| f.end = Time::from_ns(199_999_999)),
        ("tokens delivered == tokens asked", |f| f.workload.decode_tokens = 6),
    ];
    for (expected, damage) in cases {
        let found = broken(damage);
        assert!(found.contains(expected), "wanted `{expected}`, got `{found}`");
    }
}

#[test]
fn large_energies_keep_parts_and_whole_together() {
    // 18 kJ in odd femtojoules over many components: far beyond what a double holds exactly.
    let mut facts = common::facts();
    facts.energy.by_component =
        (0..1000).map(|i| (format!("c{i:03}"), Energy::new(18_000_000_000_000_001 - i))).collect();
    facts.energy.total = facts.energy.by_component.values().copied().sum();
    facts.energy.decode = facts.energy.total - facts.energy.prefill;
    let r = RunRecord::from_facts(&facts).expect("sums are exact in integers");
    let sum: f64 = r.energy.by_component.values().sum();
    assert!((sum - r.energy.total_j).abs() <= 1e-9 * r.energy.total_j);
}

#[test]
fn json_reads_back_and_is_the_same_bytes_twice() {
    let text = record().to_json().expect("JSON");
    assert_eq!(text, record().to_json().expect("JSON"));
    assert_eq!(RunRecord::from_json(&text).expect("its own text"), record());
}

#[test]
fn other_documents_are_refused_with_the_reason() {
    let text = record().to_json().expect("JSON");
    let refuse = |text: &str| RunRecord::from_json(text).expect_err("not a record").to_string();
    assert!(refuse("{").contains("EOF"));
    assert!(refuse("[1]").contains("schema is null"));
    assert!(refuse(&text.replace("presil.run/1", "presil.run/9")).contains("presil.run/9"));
    let mut value: Value = serde_json::from_str(&text).expect("JSON");
    value["time"]["tpot_mean_s"] = Value::Null;
    assert!(matches!(
        RunRecord::from_json(&value.to_string()),
        Err(ReadError::Null { path }) if path == "time.tpot_mean_s"
    ));
    value["time"] = Value::from(3);
    assert!(refuse(&value.to_string()).contains("invalid type"));
}

#[test]
fn a_number_json_cannot_hold_is_found_by_path() {
    let mut r = record();
    r.time.tpot_p99_s = Some(f64::NAN);
    let errors = r.check().expect_err("not a number");
    assert_eq!(errors, [CheckError::NotFinite { path: "time.tpot_p99_s".to_owned() }]);
}

#[test]
fn every_column_reads_the_key_it_names() {
    let r = record();
    let value = serde_json::to_value(&r).expect("JSON");
    for c in COLUMNS {
        let at_path = c.path.split('.').fold(&value, |v, key| &v[key]).as_f64();
        assert!(at_path.is_some(), "{}: the made-up record must have every metric", c.path);
        assert_eq!(at_path, (c.get)(&r), "{}", c.path);
        assert!(c.description.ends_with('.'), "{}: one sentence", c.path);
    }
    let mut paths: Vec<_> = COLUMNS.iter().map(|c| c.path).collect();
    paths.sort_unstable();
    paths.dedup();
    assert_eq!(paths.len(), COLUMNS.len(), "a path twice");
    assert!(columns::headlines().count() >= 5);
}

#[test]
fn metrics_page_is_current() {
    let fresh = columns::markdown();
    if include_str!("../METRICS.md") != fresh {
        let place = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("METRICS.md");
        std::fs::write(&place, fresh).expect("the temporary folder is writable");
        panic!("reports/METRICS.md is stale: copy {} over it", place.display());
    }
}
