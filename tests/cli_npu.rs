//! `presil npu gemm`: arrays as files, overrides, SCALE-Sim's files in and out.

mod common;

use common::presil;
use serde_json::Value;

fn gemm(options: &str) -> Value {
    let words: Vec<&str> = ["npu", "gemm"].into_iter().chain(options.split_whitespace()).collect();
    let ran = presil(&[&words[..], &["--json"]].concat());
    assert_eq!(ran.code, 0, "{options}: {}", ran.err);
    serde_json::from_str(&ran.out).expect("one JSON document")
}

/// What is said of options that are refused; the temporary directory is left out.
fn refused(options: &str) -> String {
    let words: Vec<&str> = ["npu", "gemm"].into_iter().chain(options.split_whitespace()).collect();
    let ran = presil(&words);
    assert_eq!(ran.code, 3, "{options}: {}", ran.err);
    ran.err.replace(&format!("{}/", env!("CARGO_TARGET_TMPDIR")), "")
}

fn file(name: &str, content: &str) -> String {
    let path = format!("{}/{name}", env!("CARGO_TARGET_TMPDIR"));
    std::fs::write(&path, content).expect("a temporary file");
    path
}

#[test]
fn a_shown_array_is_an_array_file_and_wrong_ones_name_their_line() {
    for name in presil(&["list", "arrays"]).out.lines() {
        let path = file(&format!("{name}.toml"), &presil(&["show", "array", name]).out);
        let options = "--m 33 --k 40 --n 50";
        assert_eq!(gemm(&format!("--array {path} {options}")), gemm(&format!("--array {name} {options}")));
    }
    let text = presil(&["show", "array", "tinytpu"]).out.replace("bubble =", "buble =");
    let typo = file("typo-array.toml", &text);
    let said = refused(&format!("--array {typo} --m 1 --k 1 --n 1"));
    assert!(said.starts_with("error: typo-array.toml: line 22: unknown field `buble`"), "{said}");
    insta::assert_snapshot!(refused("--array gemini --m 1 --k 1 --n 1"), @"error: --array: no array is called `gemini`; there are default, scalesim, gemmini, gemmini-mesh, tinytpu, tiny-tpu, leo-tpu, redmule and files ending in .toml");
    let said = refused("--array gemmini --array-set read-latncy=6 --m 1 --k 1 --n 1");
    assert!(said.starts_with("error: --array-set read-latncy=6: no such key; there are"), "{said}");
}

/// Cycle counts measured on Gemmini's execute controller.
#[test]
fn overrides_change_what_they_name() {
    let at = |set: &str| {
        let sets = if set.is_empty() { String::new() } else { format!("--array-set {set}") };
        gemm(&format!("--array gemmini --dataflow ws --m 64 --k 64 --n 64 {sets}"))["compute_cycles"].clone()
    };
    assert_eq!(at(""), 1078);
    assert_eq!(at("read-latency=8"), 1702);
    assert_eq!(at("count-from=command"), 1081);
    let clipped = |folds: &str| {
        gemm(&format!("--array scalesim --rows 8 --dataflow ws --m 4 --k 13 --n 11 --edge-folds {folds}"))
    };
    assert_eq!(clipped("padded")["compute_cycles"], 4 * (2 * 8 + 8 + 4 - 2));
    assert_eq!(clipped("clipped")["compute_cycles"], 26 + 20 + 21 + 15);
    // Input-stationary is weight-stationary for the transposed product.
    let is = gemm("--array scalesim --dataflow is --m 100 --k 70 --n 300")["compute_cycles"].clone();
    assert_eq!(is, gemm("--array scalesim --dataflow ws --m 300 --k 70 --n 100")["compute_cycles"]);
}

/// SCALE-Sim 3.0.0's own reports of the same layers on a 4x6 and an 8x4 array.
#[test]
fn reports_have_scale_sims_columns_and_figures() {
    let topology = file("reports.csv", "Layer,M,N,K,\na,5,7,9,\n");
    let folder = format!("{}/reports", env!("CARGO_TARGET_TMPDIR"));
    gemm(&format!(
        "--array scalesim --rows 4 --cols 6 --dataflow is --batch-file {topology} --reports {folder}"
    ));
    let read = |name: &str| std::fs::read_to_string(format!("{folder}/{name}.csv")).expect("a report");
    insta::assert_snapshot!(read("COMPUTE_REPORT"), @r"
    LayerID, Total Cycles (incl. prefetch), Total Cycles, Stall Cycles, Overall Util %, Mapping Efficiency %, Compute Util %,
    0, 56, 56, 0, 23.4375, 62.5, 18.229166666666664,
    ");
    let bandwidth = read("BANDWIDTH_REPORT");
    assert!(
        bandwidth.starts_with(
            "LayerID, Avg IFMAP SRAM BW, Avg FILTER SRAM BW, Avg OFMAP SRAM BW, Avg IFMAP DRAM BW"
        )
    );
    assert!(bandwidth.contains("\n0, 0.8035714285714286, 1.125, 1.875, "), "{bandwidth}");
    let access = read("DETAILED_ACCESS_REPORT");
    assert_eq!(access.lines().next().map(|l| l.split(", ").count()), Some(19));
    assert!(
        access.contains("\n0, 1, 42, 45, 5, 49, 63, 7, 55, 105, 0, 56, 45, 0, 56, 63, 0, 56, 35,\n"),
        "{access}"
    );
    let said = refused(&format!("--m 1 --k 1 --n 1 --reports {topology}"));
    assert!(said.contains("--reports reports.csv"), "{said}");
}

#[test]
fn convolutions_become_products_and_errors_name_line_and_column() {
    let header = "Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, Num Filter, Strides,\n";
    let network = file(
        "network.csv",
        &format!("{header}conv1, 224, 224, 7, 7, 3, 64, 2,\nfc, 1, 1, 1, 1, 512, 1000, 1,\n"),
    );
    let list = gemm(&format!("--array scalesim --dataflow os --batch-file {network}"));
    assert_eq!(list[0]["macs"], 110 * 110 * 147 * 64);
    assert_eq!((&list[1]["macs"], &list[1]["layer"]), (&(512 * 1000).into(), &"fc".into()));
    let wrong =
        file("wrong.csv", &format!("{header}conv1, 224, 224, 7, 7, 3, x, 2,\nconv2, 4, 4, 5, 4, 1, 1, 1,\n"));
    insta::assert_snapshot!(refused(&format!("--batch-file {wrong}")), @r"
    error: wrong.csv:2:27: num filter: expected a whole number, found `x`
    error: wrong.csv:3:14: filter height 5 is above the input's 4
    ");
    let other = file("other.csv", "name,rows,cols\na,1,2\n");
    assert!(
        refused(&format!("--batch-file {other}")).starts_with("error: other.csv:1:6: expected the header")
    );
}
