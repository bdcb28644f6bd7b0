//! `presil dram replay`: the promised keys, the recorded reference figures, and what is refused.

mod common;

use common::presil;
use serde_json::Value;

fn replay(options: &str) -> Value {
    let words: Vec<&str> = ["dram", "replay"].into_iter().chain(options.split_whitespace()).collect();
    let ran = presil(&[&words[..], &["--json"]].concat());
    assert_eq!(ran.code, 0, "{options}: {}", ran.err);
    assert!(ran.err.is_empty(), "{options}: {}", ran.err);
    serde_json::from_str(&ran.out).expect("one JSON document")
}

/// Runs a command line that must be refused as input; the temporary directory is left out of the message.
fn refused(options: &[&str]) -> String {
    let ran = presil(&[&["dram", "replay"], options].concat());
    assert_eq!(ran.code, 3, "{options:?}: {}", ran.err);
    assert!(ran.out.is_empty(), "{options:?} wrote to standard output: {}", ran.out);
    ran.err.replace(&format!("{}/", env!("CARGO_TARGET_TMPDIR")), "")
}

fn file(name: &str, content: &[u8]) -> String {
    let path = format!("{}/{name}", env!("CARGO_TARGET_TMPDIR"));
    std::fs::write(&path, content).expect("a temporary file");
    path
}

fn number(value: &Value) -> f64 {
    value.as_f64().expect("a number")
}

/// Ramulator 2.1's recorded figures: 20 000 dependent random reads take 1 090 386 CK, 64.32 ns a burst.
#[test]
fn a_pointer_chase_matches_the_recorded_reference() {
    let chase = replay("--standard lpddr5-6400 --stream rand_read --count 20000 --load chase");
    assert!((number(&chase["ck_cycles"]) / 1_090_386.0 - 1.0).abs() < 0.01, "{chase}");
    assert!((number(&chase["read_latency_ns"]["mean"]) / 64.32 - 1.0).abs() < 0.03, "{chase}");
    assert_eq!(chase["transactions"], 20_000);
    assert_eq!(chase["path"], "burst");
    for key in ["bandwidth_gb_per_s", "utilisation", "energy_j"] {
        assert!(number(&chase[key]) > 0.0, "{key}");
    }
    let rows = ["row_hits", "row_misses", "row_conflicts"].map(|key| number(&chase[key]));
    assert!((rows.iter().sum::<f64>() - 40_000.0).abs() < 0.5, "a burst is one of the three: {rows:?}");
}

#[test]
fn the_three_paths_agree() {
    let run = |path: &str, count: u32| {
        replay(&format!("--standard lpddr5x-9600 --stream mix21 --count {count} --path {path}"))
    };
    let mut tick = run("tick", 60_000);
    tick["path"] = "burst".into();
    assert_eq!(tick, run("burst", 60_000));
    // A sampled stream must be long beside its samples.
    let (burst, sampled) = (run("burst", 1_000_000), run("sampled", 1_000_000));
    assert_eq!(sampled["path"], "sampled");
    let error = number(&sampled["ck_cycles"]) / number(&burst["ck_cycles"]) - 1.0;
    assert!(error.abs() < 0.02, "{error}");
}

#[test]
fn a_trace_of_a_stream_is_that_stream() {
    let lines: String = (0..3000).map(|i| format!("R {:#x}\n", i * 64)).collect();
    let trace = file("sequential.trace", lines.as_bytes());
    let of_trace = replay(&format!("--standard lpddr5x-8533 --trace {trace}"));
    assert_eq!(of_trace, replay("--standard lpddr5x-8533 --stream seq_read --count 3000"));
    // Due far apart, each read stands alone: the last is due in CK 2 000 000.
    let apart = file("apart.trace", b"# due\nR 0x0 0\nW 0x40 1000000\nR 0x80 2000000\n");
    let apart = replay(&format!("--standard lpddr5-6400 --trace {apart}"));
    assert!((2_000_000.0..2_000_400.0).contains(&number(&apart["ck_cycles"])), "{apart}");
}

#[test]
fn maps_by_name_and_by_string_are_the_same() {
    let by_name = replay("--standard lpddr5-6400 --stream rand_read --count 5000 --map map-32");
    let options = ["dram", "replay", "--standard", "lpddr5-6400", "--stream", "rand_read", "--count", "5000"];
    let string = ["--map", "row:15 bank:2 column:6 group:2 byte:5", "--json"];
    let ran = presil(&[&options[..], &string].concat());
    assert_eq!(serde_json::from_str::<Value>(&ran.out).expect("one JSON document"), by_name);
    assert_ne!(by_name, replay("--standard lpddr5-6400 --stream rand_read --count 5000"));
}

#[test]
fn a_shown_standard_is_a_standard_file() {
    for name in presil(&["list", "standards"]).out.lines() {
        let path = file(&format!("{name}.toml"), presil(&["show", "standard", name]).out.as_bytes());
        let options = "--stream seq_read --count 2000";
        assert_eq!(
            replay(&format!("--standard {path} {options}")),
            replay(&format!("--standard {name} {options}"))
        );
    }
}

#[test]
fn wrong_names_name_the_nearest_and_all_are_reported() {
    let wrong = [
        "--standard",
        "lpddr5x-9601",
        "--stream",
        "seq_raed",
        "--count",
        "9",
        "--load",
        "2",
        "--map",
        "map-b",
        "--path",
        "brust",
    ];
    insta::assert_snapshot!(refused(&wrong), @r"
    error: --standard: no DRAM standard is called `lpddr5x-9601`; the nearest is `lpddr5x-9600`
    error: --load: load `2` is neither `0` (saturating), a fraction of the pin peak up to 1, nor `chase`
    error: --path: no path is called `brust`; there are `tick`, `burst` and `sampled`
    error: --map: no address map is called `map-b`; the nearest is `map-a`
    error: --stream: no stream is called `seq_raed`; the nearest is `seq_read`
    ");
    let stream = ["--standard", "lpddr5-6400", "--stream", "seq_read", "--count", "9"];
    insta::assert_snapshot!(refused(&[&stream[..], &["--map", "row:15 bnak:2 byte:5"]].concat()), @"error: --map: no field is called `bnak`; the nearest is `bank`");
    let late =
        ["--standard", "lpddr5-6400", "--stream", "seq_read", "--count", "100000", "--load", "0.000001"];
    insta::assert_snapshot!(refused(&[&late[..], &["--path", "tick"]].concat()), @r"
    error: --path tick: it walks every CK, and the last transaction is due in CK 399996000000, beyond 4294967296
      help: --path burst gives the same cycles
    ");
}

#[test]
fn wrong_files_name_their_line() {
    let with = |options: &[&str]| refused(&[&["--standard", "lpddr5-6400"], options].concat());
    let words = file("words.trace", b"R 0x40\nread 0x80\n");
    insta::assert_snapshot!(with(&["--trace", &words]), @"error: words.trace:2: expected `R` or `W`, found `read`");
    let far = file("far.trace", b"R 0x40\nR 0x40000000\n");
    insta::assert_snapshot!(with(&["--trace", &far]), @"error: far.trace:2: address 0x40000000 lies beyond the channel's 0x40000000 bytes");
    let none = file("none.trace", b"# nothing\n");
    insta::assert_snapshot!(with(&["--trace", &none]), @"error: none.trace: no transactions; expected lines such as `R 0x1000` or `W 0x1040 120`");
    let binary = file("binary.trace", b"R 0x40\n\xff\xfe");
    insta::assert_snapshot!(with(&["--trace", &binary]), @"error: binary.trace: not a text file: byte 7 is not UTF-8");
    insta::assert_snapshot!(with(&["--trace", &words, "--load", "0.5"]), @"error: --load 0.5: a trace says itself when its transactions are due; expected 0 or chase");
    assert!(with(&["--trace", "no-such.trace"]).starts_with("error: no-such.trace: cannot be read: "));
    let text = presil(&["show", "standard", "lpddr5-6400"]).out.replace("nRAS =", "nRSA =");
    let typo = file("typo-standard.toml", text.as_bytes());
    let stream = ["--standard", &typo, "--stream", "seq_read", "--count", "9"];
    insta::assert_snapshot!(refused(&stream), @r"
    error: --standard: typo-standard.toml: line 14: unknown key `nRSA`; the nearest is `nRAS`
    error: --standard: typo-standard.toml: line 7: timing row `nRAS` is missing
    ");
}

#[test]
fn wrong_usage_exits_2() {
    for options in [
        &["--standard", "lpddr5-6400"][..],
        &["--stream", "seq_read", "--count", "9"],
        &["--standard", "lpddr5-6400", "--stream", "seq_read"],
        &["--standard", "lpddr5-6400", "--stream", "seq_read", "--count", "0"],
        &["--standard", "lpddr5-6400", "--stream", "seq_read", "--count", "9", "--trace", "t"],
    ] {
        let ran = presil(&[&["dram", "replay"], options].concat());
        assert_eq!(ran.code, 2, "{options:?}: {}", ran.err);
    }
}

#[test]
fn text_has_the_same_figures() {
    let ran =
        presil(&["dram", "replay", "--standard", "lpddr5-6400", "--stream", "seq_read", "--count", "1000"]);
    insta::assert_snapshot!(ran.out, @r"
    standard        lpddr5-6400, one x16 channel
    path            burst
    transactions    1000 of 64 bytes in 4241 CK
    bandwidth       12.073 GB/s, 94.32 % of the pins' peak
    read latency    mean 107.92 ns, p50 103.75 ns, p99 361.25 ns
    rows            1964 hits, 24 misses, 12 conflicts
    energy          2.455892e-6 J, 4.80 pJ/bit read
    ");
}

#[test]
fn the_knobs_reach_the_controller() {
    let run = |options: &str| {
        let r = replay(&format!("--standard lpddr5-6400 --stream mix21 --count 20000 {options}"));
        number(&r["utilisation"])
    };
    let base = run("");
    assert!(run("--refresh none") > base && run("--read-buffer 64 --write-buffer 64") > base);
    assert!(run("--watermarks 0.5,0.9") < base && run("--row-policy closed:4") < base);
    assert!(run("--link-ecc") < base && run("--temperature 95") < base && run("--density 32") < base);
    assert!(
        (run("--watermarks 0.2,0.8 --wck need-sync --scheduler oldest-ready --row-policy open") - base).abs()
            < 1e-12
    );
    let of = |options: &str| replay(&format!("--standard lpddr5-6400 {options}"));
    let banks = of("--stream rand50 --count 5000 --refresh per-bank");
    assert!(banks["commands"]["bank_refreshes"].as_u64() > Some(0), "{banks}");
    assert_eq!(banks["commands"]["refreshes"], 0);
    let sleepy =
        of("--stream rand_read --count 2000 --load 0.001 --power-down-after 100 --self-refresh-after 1000");
    assert!(
        number(&sleepy["state_ns"]["self_refresh"]) > 0.0 && number(&sleepy["state_ns"]["power_down"]) > 0.0
    );
    let awake = of("--stream rand_read --count 2000 --load 0.001");
    assert!(number(&sleepy["energy_j"]) < number(&awake["energy_j"]));
}

#[test]
fn device_modes_are_a_choice_of_the_user() {
    let of =
        |options: &str| replay(&format!("--standard lpddr5-6400 --stream seq_read --count 20000 {options}"));
    for mode in ["", "--burst-length 32", "--burst-length 32 --bank-mode 8-bank"] {
        let r = of(mode);
        assert!(number(&r["utilisation"]) > 0.9, "{mode}: {r}");
        assert_eq!(r["commands"]["reads"], if mode.is_empty() { 40_000 } else { 20_000 }, "{mode}");
    }
    let slow = of("--bank-mode 16-bank --frequency-scale 500");
    assert!(number(&slow["bandwidth_gb_per_s"]) < 6.4 && number(&slow["utilisation"]) > 0.9, "{slow}");
    let base = ["--standard", "lpddr5-6400", "--stream", "seq_read", "--count", "9"];
    let wrong = |options: &[&str]| refused(&[&base[..], options].concat());
    insta::assert_snapshot!(wrong(&["--bank-mode", "16-bank"]));
    insta::assert_snapshot!(wrong(&["--bank-mode", "8-bank"]));
    insta::assert_snapshot!(wrong(&["--burst-length", "32", "--map", "map-32"]));
    insta::assert_snapshot!(wrong(&[
        "--row-policy",
        "close",
        "--refresh",
        "bank",
        "--watermarks",
        "0.9,0.1",
        "--density",
        "12"
    ]));
    insta::assert_snapshot!(wrong(&["--read-buffer", "65", "--postpone-refresh", "9"]));
    let lpddr6 = ["--standard", "lpddr6-10667", "--stream", "seq_read", "--count", "9", "--link-ecc"];
    insta::assert_snapshot!(refused(&lpddr6));
}

#[test]
fn writes_alone_have_no_read_latency_and_all_figures_are_numbers() {
    let trace = file("writes.trace", b"W 0x0 0\nW 0x40 100\nW 0x80 5000\n");
    for input in ["--stream write_only --count 3000", &format!("--trace {trace}")] {
        let r = replay(&format!("--standard lpddr5x-10667 {input}"));
        assert!(r.get("read_latency_ns").is_none() && r.get("read_pj_per_bit").is_none(), "{r}");
        for key in ["bandwidth_gb_per_s", "utilisation", "energy_j", "write_pj_per_bit"] {
            assert!(number(&r[key]) > 0.0, "{key}: {r}");
        }
        assert_eq!(r["commands"]["reads"], 0);
    }
}

#[test]
fn contradictions_of_a_timing_file_name_file_line_and_row() {
    let text = presil(&["show", "standard", "lpddr5-6400"]).out;
    let with = |name: &str, from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        let path = file(name, text.replace(from, to).as_bytes());
        refused(&["--standard", &path, "--stream", "seq_read", "--count", "9"])
    };
    insta::assert_snapshot!(with("ras.toml", "nRAS = { ck = 34", "nRAS = { ck = 50"));
    insta::assert_snapshot!(with("refi.toml", "nREFI = { ck = 3125", "nREFI = { ck = 0"));
    insta::assert_snapshot!(with("row.toml", "nFAW = ", "# nFAW = "));
    insta::assert_snapshot!(with(
        "key.toml",
        "[variant.link-ecc]",
        "[controller]\nrow-policy = \"closd\"\nread-buffer = 99\n\n[variant.link-ecc]"
    ));
}
