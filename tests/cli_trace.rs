//! A traced run is the same run, and what the trace says is what the record says.

mod common;

use common::presil;
use serde_json::Value;

const RUN: [&str; 10] =
    ["run", "--soc", "tiny", "--model", "qwen2.5-1.5b", "--prefill", "4", "--decode", "2", "--json"];

fn path(name: &str) -> String {
    format!("{}/{name}", env!("CARGO_TARGET_TMPDIR"))
}

fn json(arguments: &[&str]) -> Value {
    let ran = presil(arguments);
    assert_eq!(ran.code, 0, "{arguments:?}: {}", ran.err);
    serde_json::from_str(&ran.out).expect("one JSON document")
}

fn traced(name: &str) -> (String, String) {
    let file = path(name);
    let ran = presil(&[&RUN[..], &["--trace", &file]].concat());
    assert_eq!(ran.code, 0, "{}", ran.err);
    (file, ran.out)
}

#[test]
fn a_traced_run_prints_the_same_bytes_and_two_traces_are_the_same_file() {
    let plain = presil(&RUN);
    let (first, out) = traced("first.pftrace");
    assert_eq!(plain.out, out);
    let (second, _) = traced("second.pftrace");
    assert!(std::fs::read(first).expect("written") == std::fs::read(second).expect("written"));
}

#[test]
fn slices_commands_and_causes_are_those_of_the_record() {
    let (file, out) = traced("record.pftrace");
    let record: Value = serde_json::from_str(&out).expect("one JSON document");
    let summary = json(&["trace", "summary", &file, "--json"]);
    let stalls = json(&["trace", "stalls", &file, "--json"]);
    let engines = record["cycles"].as_object().expect("engines");
    assert!(engines.len() > 8);
    for (engine, cycles) in engines {
        let said = &stalls["engines"][engine];
        let causes = said["causes"].as_object().expect("causes");
        let percent: f64 = causes.values().map(|c| c["percent"].as_f64().expect("a number")).sum();
        assert!((percent - 100.0).abs() < 1e-9, "{engine}: {percent}");
        let sum: u64 = causes.values().map(|c| c["cycles"].as_u64().expect("cycles")).sum();
        assert_eq!(Some(sum), cycles["total"].as_u64(), "{engine}");
        for (cause, share) in causes {
            assert_eq!(share["cycles"], cycles[cause], "{engine} {cause}");
        }
    }
    let tracks = summary["tracks"].as_array().expect("tracks");
    let row = |name: &str| tracks.iter().find(|t| t["name"] == name).expect("a track");
    let mut commands = 0;
    for (engine, count) in record["commands"].as_object().expect("engines") {
        commands += count.as_u64().expect("a count");
        assert_eq!(&stalls["engines"][engine]["commands"], count);
        if !engine.ends_with("_sq") {
            assert_eq!(&row(engine)["slices"], count, "{engine}");
        }
    }
    assert!(commands > 10_000);
    let rung: u64 = tracks.iter().filter_map(|t| t["instants"]["doorbell"].as_u64()).sum();
    let taken: u64 = tracks.iter().filter_map(|t| t["instants"]["interrupt"].as_u64()).sum();
    assert_eq!(Some(rung), record["firmware"]["doorbells"].as_u64());
    assert_eq!(Some(taken), record["firmware"]["interrupts"].as_u64());
    assert_eq!(summary["tokens"]["count"], 2);
    assert_eq!(summary["run"]["digest"], record["digest"]);
    near(&summary["duration_s"], &record["time"]["total_s"], 1e-8);
    near(&summary["tokens"]["first_s"], &record["time"]["ttft_s"], 1e-8);
}

/// Two figures agree to this many, absolutely.
fn near(a: &Value, b: &Value, within: f64) {
    let (a, b) = (a.as_f64().expect("a number"), b.as_f64().expect("a number"));
    assert!((a - b).abs() < within, "{a} and {b}");
}

#[test]
fn counters_integrate_to_the_record() {
    let (file, out) = traced("counters.pftrace");
    let record: Value = serde_json::from_str(&out).expect("one JSON document");
    let summary = json(&["trace", "summary", &file, "--json"]);
    let mean = |name: &str| {
        let rows = summary["counters"].as_array().expect("counters");
        rows.iter().find(|c| c["name"] == name).and_then(|c| c["mean"].as_f64()).expect("a counter")
    };
    let power = record["power"]["mean_w"].as_f64().expect("watts");
    assert!((mean("power_total") / power - 1.0).abs() < 1e-4, "{} and {power} W", mean("power_total"));
    let parts: f64 = ["power_npu", "power_cpu", "power_dram", "power_fabric"].iter().map(|n| mean(n)).sum();
    assert!((parts / power - 1.0).abs() < 1e-4, "{parts} and {power} W");
    let rate = record["dram"]["bandwidth_gb_per_s"].as_f64().expect("GB/s");
    let moved = mean("dram_read") + mean("dram_write");
    assert!((moved / rate - 1.0).abs() < 1e-4, "{moved} and {rate} GB/s");
}

#[test]
fn ops_cover_all_active_time() {
    let (file, _) = traced("ops.pftrace");
    let o = json(&["trace", "ops", &file, "--json"]);
    for rows in ["kinds", "ops"] {
        let rows = o[rows].as_array().expect("rows");
        let share: f64 = rows.iter().map(|r| r["share_percent"].as_f64().expect("a number")).sum();
        assert!((share - 100.0).abs() < 1e-9, "{share}");
    }
    let names: Vec<&str> =
        o["ops"].as_array().expect("rows").iter().filter_map(|r| r["name"].as_str()).collect();
    assert!(names.contains(&"layer12.qkv") && names.contains(&"head"), "{names:?}");
    let text = presil(&["trace", "ops", &file, "--top", "3"]);
    assert!(text.out.contains("gate_up") && text.code == 0);
    let text = presil(&["trace", "stalls", &file]);
    assert!(text.out.contains("npu0_mx") && text.out.contains("fill_drain"), "{}", text.out);
}

#[test]
fn bad_traces_and_places_exit_3_and_say_where() {
    let refused = |arguments: &[&str]| {
        let ran = presil(arguments);
        assert_eq!((ran.code, ran.out.as_str()), (3, ""), "{arguments:?}: {}", ran.err);
        ran.err.replace(&format!("{}/", env!("CARGO_TARGET_TMPDIR")), "")
    };
    let text = path("trace.toml");
    std::fs::write(&text, "[base]\n").expect("a temporary file");
    insta::assert_snapshot!(refused(&["trace", "summary", &text]), @"error: trace.toml: at byte 0: not a trace that presil wrote: a trace packet begins with byte 0x0a, found 0x5b");
    let (file, _) = traced("whole.pftrace");
    let whole = std::fs::read(&file).expect("written");
    let cut = path("cut.pftrace");
    std::fs::write(&cut, &whole[..100_000]).expect("a temporary file");
    insta::assert_snapshot!(refused(&["trace", "stalls", &cut]), @"error: cut.pftrace: at byte 100000: the trace ends here, before its last packet; was its run interrupted?");
    assert!(refused(&["trace", "ops", &path("missing.pftrace")]).contains("missing.pftrace: cannot be read"));
    let nowhere = path("no/such/folder/x.pftrace");
    assert!(
        refused(&[&RUN[..], &["--trace", &nowhere]].concat()).contains("--trace: no/such/folder/x.pftrace")
    );
}
