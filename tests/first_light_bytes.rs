//! The same command prints the same bytes, with and without an output folder.

mod common;

use common::presil;

#[test]
fn two_runs_print_the_same_bytes_with_and_without_an_output_folder() {
    let run = |more: &[&str]| {
        let all =
            ["run", "--soc", "tiny", "--model", "qwen2.5-1.5b", "--prefill", "9", "--decode", "2", "--json"];
        let ran = presil(&[&all[..], more].concat());
        assert_eq!(ran.code, 0, "{}", ran.err);
        ran.out
    };
    let once = run(&[]);
    assert!(once.contains("\"digest\""));
    assert_eq!(once, run(&[]));
    let folder = format!("{}/output", env!("CARGO_TARGET_TMPDIR"));
    assert_eq!(once, run(&["-o", &folder]));
    let written = std::fs::read_to_string(format!("{folder}/run.json")).expect("a record");
    let parse = |text: &str| serde_json::from_str::<serde_json::Value>(text).expect("JSON");
    assert_eq!(parse(&written), parse(&once));
    // Another seed is another prompt, and other token ids.
    assert_ne!(once, run(&["--seed", "1"]));
}
