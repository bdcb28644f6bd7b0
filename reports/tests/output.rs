//! What people and spreadsheets see of a record: the summary, tables, plots and the result directory.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use reports::write::{HostFacts, atomic, run_directory};
use reports::{RunRecord, plots, summary, tables};

fn record() -> RunRecord {
    RunRecord::from_facts(&common::facts()).expect("the made-up facts hold every law")
}

fn scratch(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    if path.exists() {
        fs::remove_dir_all(&path).expect("an old scratch folder can go");
    }
    path
}

#[test]
fn summary_of_the_made_up_run() {
    insta::assert_snapshot!(summary::text(&record()));
}

#[test]
fn quantities_keep_four_digits_and_pick_a_prefix() {
    for (value, unit, expected) in [
        (0.0, "s", "0 s"),
        (0.025, "s", "25.00 ms"),
        (0.999_99, "s", "1.000 s"),
        (1234.5, "s", "1234 s"),
        (3.1e-7, "J", "310.0 nJ"),
        (3_100_000_000.0, "B", "3.100 GB"),
        (1_250_000.0, "", "1 250 000"),
        (0.0612, "", "0.061200"),
        (15.8, "GB/s", "15.80 GB/s"),
    ] {
        assert_eq!(summary::quantity(value, unit), expected);
    }
}

#[test]
fn tables_have_one_line_per_row_and_shares_of_one() {
    let r = record();
    let ops = tables::ops_csv(&r);
    assert_eq!(ops.lines().count(), 1 + r.ops.len());
    assert!(ops.starts_with("name,kind,phase,unit,start_s,duration_s,macs,dram_bytes,energy_j,bound_by\n"));
    assert_eq!(
        ops.lines().nth(1),
        Some("layer0.qkv,qkv,prefill,npu,0,0.02,40000000000,10000000,0.01,compute")
    );
    for text in [tables::energy_csv(&r), tables::cycles_csv(&r)] {
        assert!(
            text.lines()
                .skip(1)
                .all(|l| l.split(',').count() == text.lines().next().map_or(0, |h| h.split(',').count()))
        );
    }
    let shares: f64 = tables::energy_csv(&r)
        .lines()
        .skip(1)
        .map(|l| l.rsplit(',').next().and_then(|s| s.parse::<f64>().ok()).expect("a share"))
        .sum();
    assert!((shares - 1.0).abs() < 1e-4, "{shares}");
    let mut odd = r;
    odd.ops[0].name = "a,\"b\"".to_owned();
    assert!(tables::ops_csv(&odd).contains("\n\"a,\"\"b\"\"\",qkv,"));
}

/// Attribute of every element of a kind, as numbers.
fn attributes(svg: &str, element: &str, attribute: &str) -> Vec<f64> {
    svg.split(&format!("<{element} "))
        .skip(1)
        .filter_map(|rest| rest.split('>').next())
        .map(|tag| {
            let tag = format!(" {tag}");
            let value = tag.split_once(&format!(" {attribute}=\"")).and_then(|(_, v)| v.split('"').next());
            value.and_then(|v| v.parse().ok()).unwrap_or_else(|| panic!("no {attribute} in <{element}{tag}>"))
        })
        .collect()
}

#[test]
fn plots_name_what_they_show_and_stay_on_their_sheet() {
    let r = record();
    let energy = plots::energy_by_component(&r).expect("drawn");
    let time = plots::time_by_kind(&r).expect("drawn");
    let roofline = plots::roofline(&r).expect("drawn");
    for name in r.energy.by_component.keys() {
        assert!(energy.contains(name.as_str()), "{name}");
    }
    for word in ["mlp", "attention", "norm", "prefill", "decode"] {
        assert!(time.contains(word), "{word}");
    }
    for word in ["DRAM 68.00 GB/s", "int4 32 TOPS", "fp16 8 TOPS", "useful TOPS", "mlp 60.00 ms"] {
        assert!(roofline.contains(word), "{word}");
    }
    for svg in [energy, time, roofline] {
        let width = attributes(&svg, "svg", "width")[0];
        let height = attributes(&svg, "svg", "height")[0];
        assert!(attributes(&svg, "text", "x").iter().all(|x| (0.0..=width).contains(x)));
        assert!(attributes(&svg, "text", "y").iter().all(|y| (0.0..=height).contains(y)));
        assert!(attributes(&svg, "text", "font-size").iter().all(|size| *size >= 10.0), "legible");
        assert!(!svg.contains("NaN"));
    }
}

#[test]
fn longest_energy_bar_is_the_largest_component() {
    let svg = plots::energy_by_component(&record()).expect("drawn");
    // Bars follow the white sheet in order of size.
    let widths = attributes(&svg, "rect", "width");
    assert_eq!(widths.len(), 12);
    assert!(widths[1..].windows(2).all(|w| w[0] >= w[1]), "{widths:?}");
    // 260 mJ against 8 mJ.
    assert!((widths[1] / widths[11] - 260.0 / 8.0).abs() < 3.0, "{widths:?}");
}

#[test]
fn plots_of_a_record_without_ops_are_drawn_empty() {
    let mut r = record();
    r.ops.clear();
    r.energy.by_component.clear();
    r.efficiency.peak_tops.clear();
    r.dram.peak_gb_per_s = 0.0;
    for svg in [plots::energy_by_component(&r), plots::time_by_kind(&r), plots::roofline(&r)] {
        let svg = svg.expect("drawn");
        assert!(svg.starts_with("<svg") && !svg.contains("NaN") && !svg.contains("inf"));
    }
}

#[test]
fn a_result_directory_holds_everything_twice_the_same() {
    let host = HostFacts { host_ns: 500_000_000, events: 1_000 };
    let folders = [scratch("result-a"), scratch("result-b")];
    let written: Vec<Vec<PathBuf>> =
        folders.iter().map(|d| run_directory(d, &record(), Some(&host)).expect("written")).collect();
    assert_eq!(written[0].len(), 8);
    for (a, b) in written[0].iter().zip(&written[1]) {
        assert_eq!(fs::read(a).expect("there"), fs::read(b).expect("there"), "{}", a.display());
    }
    assert_eq!(fs::read_dir(&folders[0]).expect("there").count(), 8, "no temporary file stays");
    let text = fs::read_to_string(folders[0].join("run.json")).expect("there");
    assert_eq!(RunRecord::from_json(&text).expect("a record"), record());
    let sim = fs::read_to_string(folders[0].join("sim.json")).expect("there");
    assert!(sim.contains("\"events_per_s\": 2000.0"), "{sim}");
}

#[test]
fn a_refused_file_is_named_and_leaves_nothing() {
    let folder = scratch("refused");
    fs::create_dir_all(folder.join("taken")).expect("made");
    let error = atomic(&folder.join("taken"), "text").expect_err("a folder is in the way");
    assert!(error.to_string().contains("taken"));
    assert_eq!(fs::read_dir(&folder).expect("there").count(), 1);
    let error =
        run_directory(&folder.join("taken/../file-missing/\0"), &record(), None).expect_err("no such name");
    assert!(error.to_string().starts_with("cannot write"));
}
