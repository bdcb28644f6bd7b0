//! `presil sweep` from outside: the same bytes however it is run, nothing run twice, errors that name their place.

#![cfg(unix)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use common::presil;
use serde_json::Value;

const GOALS: &str = "[objectives]\nminimise = [\"time.ttft_s\", \"energy.total_j\"]\n";

/// Six points of a fraction of a second each.
const GRID: &str = "\
[base]
soc = \"tiny\"
model = \"qwen2.5-1.5b\"
prefill = 8
decode = 1
[grid]
\"npu.cores\" = [1, 2]
\"npu.frequency\" = [\"400 MHz\", \"500 MHz\", \"600 MHz\"]
";

/// An empty folder of this test's own.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("sweep-{name}"));
    if folder.exists() {
        fs::remove_dir_all(&folder).expect("a folder of ours");
    }
    fs::create_dir_all(&folder).expect("a folder");
    folder
}

/// Writes a space of this name, with the usual objectives, and returns its path.
fn space(folder: &Path, text: &str) -> String {
    let path = folder.join("space.toml");
    fs::write(&path, format!("{text}{GOALS}")).expect("a file");
    path.display().to_string()
}

/// Everything a sweep leaves behind.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for inner in [folder.to_owned(), folder.join("results")] {
        for entry in fs::read_dir(&inner).expect("a folder").map(|e| e.expect("an entry").path()) {
            if entry.is_file() {
                let name = entry.strip_prefix(folder).expect("inside").display().to_string();
                found.insert(name, fs::read(&entry).expect("a file"));
            }
        }
    }
    found
}

/// Results, each with the file it is and the time it was written: both change when it is made again.
fn written(folder: &Path) -> BTreeMap<PathBuf, (u64, i64, i64)> {
    let results = fs::read_dir(folder.join("results")).into_iter().flatten().flatten().map(|e| e.path());
    results
        .filter(|path| path.extension().is_some_and(|e| e == "json"))
        .map(|path| {
            let m = fs::metadata(&path).expect("a result stays");
            (path, (m.ino(), m.mtime(), m.mtime_nsec()))
        })
        .collect()
}

fn start(space: &str, output: &Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_presil"))
        .args(["sweep", space, "--jobs", "1", "-o"])
        .arg(output)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts")
}

/// Waits for the first result of a sweep at work; false if it ended before it could be seen at work.
fn at_work(child: &mut Child, output: &Path) -> bool {
    while written(output).is_empty() {
        if child.try_wait().expect("a child").is_some() {
            return false;
        }
        std::thread::yield_now();
    }
    true
}

#[test]
fn jobs_kills_and_signals_leave_the_same_bytes_and_run_nothing_twice() {
    let folder = folder("bytes");
    let space = space(&folder, GRID);
    let (one, two, killed, stopped) =
        (folder.join("one"), folder.join("two"), folder.join("killed"), folder.join("stopped"));
    let sweep = |output: &Path, jobs: &str| {
        let output = output.display().to_string();
        let ran = presil(&["sweep", &space, "-o", &output, "--jobs", jobs]);
        assert_eq!(ran.code, 0, "{}", ran.err);
        ran
    };
    let first = sweep(&one, "1");
    assert!(first.err.contains("6 points, 6 different designs: reused 0, 6 to run"), "{}", first.err);
    assert!(first.err.contains("6 of 6 designs, about 0 s left"), "{}", first.err);
    let whole = files(&one);
    for name in ["points.csv", "pareto.csv", "sweep.json", "scatter.svg"] {
        assert!(whole.contains_key(name), "{name}");
    }
    assert_eq!(sweep(&two, "2").out, first.out);
    assert!(files(&two) == whole, "--jobs changes what is written");

    for (output, signal) in [(&killed, None), (&stopped, Some("-TERM"))] {
        let mut child = start(&space, output);
        assert!(at_work(&mut child, output), "all was over at once");
        match signal {
            None => child.kill().expect("a child"),
            Some(signal) => {
                let id = child.id().to_string();
                assert!(Command::new("kill").args([signal, &id]).status().expect("kill").success());
            }
        }
        let end = child.wait_with_output().expect("a child");
        let message = String::from_utf8_lossy(&end.stderr);
        if signal.is_some() {
            assert_eq!(end.status.code(), Some(75), "{message}");
            assert!(message.contains("the same command goes on from here"), "{message}");
        }
        assert!(!output.join("points.csv").exists(), "a table of a part of the points");
        let before = written(output);
        assert!((1..6).contains(&before.len()), "{} results", before.len());
        let again = sweep(output, "2");
        let reused = format!("reused {}, {} to run", before.len(), 6 - before.len());
        assert!(again.err.contains(&reused), "{reused}: {}", again.err);
        let after = written(output);
        assert!(before.iter().all(|(path, time)| after.get(path) == Some(time)), "a result was made again");
        assert!(files(output) == whole, "a resumed sweep differs");
    }
    assert!(sweep(&one, "2").err.contains("reused 6, 0 to run"));
    assert!(files(&one) == whole);
}

#[test]
fn a_failing_point_is_a_row_and_the_others_finish() {
    let folder = folder("failing");
    let text = GRID.replace("\"npu.cores\" = [1, 2]", "\"npu.scratchpad\" = [\"4 KiB\", \"512 KiB\"]");
    let space = space(&folder, &text);
    let output = folder.join("out").display().to_string();
    let ran = presil(&["sweep", &space, "-o", &output, "--json"]);
    assert_eq!(ran.code, 1, "{}", ran.err);
    assert!(ran.err.contains("failed: 3 of 6 points\n  point 0: "), "{}", ran.err);
    let document: Value = serde_json::from_str(&ran.out).expect("one JSON document");
    assert_eq!(fs::read_to_string(folder.join("out/sweep.json")).expect("a file"), ran.out);
    assert_eq!(document["schema"], "presil.sweep/1");
    let points = document["points"].as_array().expect("points");
    let status: Vec<&str> = points.iter().filter_map(|p| p["status"].as_str()).collect();
    assert_eq!(status, ["failed", "failed", "failed", "ok", "ok", "ok"]);
    assert!(points[0]["error"].as_str().is_some_and(|e| e.len() > 15), "{}", points[0]);
    assert_eq!(points[4]["overrides"]["npu.frequency"], "500 MHz");
    let front: Vec<u64> =
        document["pareto"].as_array().expect("a list").iter().filter_map(Value::as_u64).collect();
    assert!(!front.is_empty() && front.iter().all(|p| (3..6).contains(p)), "{front:?}");
    // The figures are those of the record, and the CSV's are the same.
    let key = points[3]["key"].as_str().expect("a key");
    let record = fs::read_to_string(folder.join(format!("out/results/{key}.json"))).expect("a result");
    let record: Value = serde_json::from_str(&record).expect("a record");
    assert_eq!(points[3]["metrics"]["time.ttft_s"], record["time"]["ttft_s"]);
    assert_eq!(points[3]["digest"], record["digest"]);
    let csv = fs::read_to_string(folder.join("out/points.csv")).expect("a file");
    let header: Vec<&str> = csv.lines().next().expect("a header").split(',').collect();
    let column = header.iter().position(|name| *name == "time.ttft_s").expect("a column");
    let row: Vec<&str> = csv.lines().nth(4).expect("a row").split(',').collect();
    assert_eq!(row[column].parse::<f64>().ok(), record["time"]["ttft_s"].as_f64());
    assert_eq!(csv.lines().count(), 7);
    let pareto = fs::read_to_string(folder.join("out/pareto.csv")).expect("a file");
    assert_eq!(pareto.lines().count(), front.len() + 1);
}

#[test]
fn a_result_equals_the_run_it_stands_for() {
    let folder = folder("equal");
    let text =
        GRID.replace("[1, 2]", "[2]").replace("[\"400 MHz\", \"500 MHz\", \"600 MHz\"]", "[\"400 MHz\"]");
    let space = space(&folder, &text);
    let output = folder.join("out").display().to_string();
    let ran = presil(&["sweep", &space, "-o", &output, "--json"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let document: Value = serde_json::from_str(&ran.out).expect("one JSON document");
    let key = document["points"][0]["key"].as_str().expect("a key");
    let options = ["--soc", "tiny", "--model", "qwen2.5-1.5b", "--prefill", "8", "--decode", "1"];
    let mut line = vec!["run", "--json", "--set", "npu.cores=2", "--set", "npu.frequency=400 MHz"];
    line.extend(options);
    let record = fs::read_to_string(folder.join(format!("out/results/{key}.json"))).expect("a result");
    assert_eq!(presil(&line).out, record);
}

#[test]
fn wrong_spaces_exit_3_and_name_file_line_and_key() {
    let folder = folder("wrong");
    let output = folder.join("out").display().to_string();
    let refused = |text: &str| {
        let path = folder.join("space.toml");
        fs::write(&path, text).expect("a file");
        let ran = presil(&["sweep", &path.display().to_string(), "-o", &output]);
        assert_eq!(ran.code, 3, "{text}: {}", ran.err);
        assert!(ran.out.is_empty() && !Path::new(&output).exists(), "{text}");
        ran.err.replace(&format!("{}/", folder.display()), "")
    };
    for (text, message) in [
        (format!("[gird]\n{GOALS}"), "space.toml:1: gird: unknown key\n  | [gird]\n  help: did you mean `grid`?"),
        (format!("[grid]\nmodle = [\"mimo-7b\"]\n{GOALS}"), "space.toml:2: grid.modle: unknown key\n  | modle = [\"mimo-7b\"]\n  help: did you mean `model`?"),
        (format!("[grid]\n\"npu.coers\" = [2]\n{GOALS}"), "space.toml:2: grid.\"npu.coers\": unknown path\n  | \"npu.coers\" = [2]\n  help: did you mean `npu.cores`?"),
        (format!("[grid]\nnpu.cores = [2]\n{GOALS}"), "space.toml:2: grid.npu: expected a value, found a table\n  | npu.cores = [2]\n  help: a --set path goes in quotes: \"npu.cores\""),
        (format!("[grid]\n\"npu.cores\" = [\n  2,\n  \"banana\",\n]\n{GOALS}"), "space.toml:4: grid.\"npu.cores\": expected a whole number from 0 to 4294967295, found \"banana\""),
        (format!("[grid]\n\"npu.cores\" = [2, 4, 2]\n{GOALS}"), "space.toml:2: grid.\"npu.cores\": 2 is given twice"),
        (format!("[grid]\n\"npu.cores\" = []\n{GOALS}"), "space.toml:2: grid.\"npu.cores\": expected at least one value, found []"),
        (format!("[grid]\n\"npu.cores\" = 2\n{GOALS}"), "space.toml:2: grid.\"npu.cores\": expected a list of values, found a value of type integer"),
        (format!("[grid]\n\"npu.cores\" = [[2]]\n{GOALS}"), "space.toml:2: grid.\"npu.cores\": expected a string, a whole number"),
        (format!("[grid]\n\"npu.cores\" = [9, 0]\n{GOALS}"), "npu.cores: expected a whole number from 1 to 8, found 9\nerror: no point of the grid can be run"),
        (format!("[grid]\n{GOALS}"), "space.toml:1: grid: expected at least one list of values"),
        (format!("[base]\nprefill = [1, 2]\n[grid]\nseed = [1]\n{GOALS}"), "space.toml:2: base.prefill: expected one value, found a list"),
        (format!("[base]\nprefill = \"8\"\n[grid]\nseed = [1]\n{GOALS}"), "space.toml:2: base.prefill: expected a whole number from 0, found \"8\""),
        (format!("[base]\nprefill = 0\n[grid]\nseed = [1]\n{GOALS}"), "space.toml:2: base.prefill: invalid value '0'"),
        (format!("[base]\nmodel = \"mimo-8b\"\n[grid]\nseed = [1]\n{GOALS}"), "space.toml:2: base.model: no model preset, nor a file, `mimo-8b`\n  | model = \"mimo-8b\"\n  help: did you mean `mimo-7b`?"),
        (format!("[grid]\nsoc = [\"tiny\", \"nosuch\"]\n{GOALS}"), "space.toml:2: grid.soc: no SoC preset `nosuch`"),
        (format!("base = 3\n[grid]\nseed = [1]\n{GOALS}"), "space.toml:1: base: expected a table, found a value of type integer"),
        ("[grid]\nseed = [1]\n".to_owned(), "space.toml:2: objectives: expected at least one metric to minimise or maximise"),
        ("[grid]\nseed = [1]\n[objectives]\nminimise = [\"time.tfft_s\"]\n".to_owned(), "space.toml:4: objectives.minimise: no metric `time.tfft_s`\n  | minimise = [\"time.tfft_s\"]\n  help: did you mean `time.ttft_s`?"),
        ("[grid]\nseed = [1]\n[objectives]\nminimize = [\"time.ttft_s\"]\n".to_owned(), "space.toml:4: objectives.minimize: unknown key"),
        ("[grid]\nseed = [1]\n[objectives]\nminimise = [\"time.ttft_s\"]\nconstraints = [\"area_mm2.total 40\"]\n".to_owned(), "space.toml:5: objectives.constraints: expected a metric, one of < <= > >=, and a number"),
        ("[grid\nseed = [1]\n".to_owned(), "space.toml:1: not valid TOML"),
        (format!("[grid]\nseed = [1]\nseed = [2]\n{GOALS}"), "space.toml:3: not valid TOML: duplicate key"),
    ] {
        let error = refused(&text);
        assert!(error.contains(message), "{text}\nwanted: {message}\ngot: {error}");
    }
    // All problems at once, in the order of the file.
    let several = refused("[base]\nsoc = 3\n[grid]\n\"npu.cores\" = []\n[objectives]\nminimise = \"x\"\n");
    let lines: Vec<&str> = several.lines().filter(|l| l.starts_with("error: ")).collect();
    assert_eq!(lines.len(), 3, "{several}");
    assert!(
        lines.iter().zip([2, 4, 6]).all(|(l, n)| l.starts_with(&format!("error: space.toml:{n}: "))),
        "{several}"
    );
}

#[test]
fn things_that_are_no_space_exit_3_and_wrong_usage_2() {
    let folder = folder("no-space");
    let output = folder.join("out").display().to_string();
    let binary = folder.join("trace.pftrace");
    fs::write(&binary, b"\x0a\xff\xfe\x00").expect("a file");
    let path = |p: &Path| p.display().to_string();
    let missing = path(&folder.join("missing.toml"));
    for (arguments, code, message) in [
        (vec!["sweep", &path(&binary), "-o", &output], 3, "not a text file: byte 1 is not UTF-8"),
        (vec!["sweep", &missing, "-o", &output], 3, "missing.toml: cannot be read"),
        (vec!["sweep", &path(&folder), "-o", &output], 3, "cannot be read"),
        (vec!["sweep", &missing], 2, "--output"),
        (vec!["sweep", &missing, "-o", &output, "--jobs", "0"], 2, "--jobs"),
    ] {
        let ran = presil(&arguments);
        assert_eq!(ran.code, code, "{arguments:?}: {}", ran.err);
        assert!(ran.err.contains(message), "{arguments:?}: {}", ran.err);
    }
    let good = space(&folder, GRID);
    let ran = presil(&["sweep", &good, "-o", &path(&binary)]);
    assert_eq!(ran.code, 3, "{}", ran.err);
    assert!(ran.err.contains("--output: "), "{}", ran.err);
}

#[test]
fn the_schema_knows_every_option() {
    let schema: Value = serde_json::from_str(&presil(&["schema", "sweep"]).out).expect("a schema");
    let names = |table: &str| -> Vec<String> {
        let properties = schema["properties"][table]["properties"].as_object().expect("properties");
        properties.keys().cloned().collect()
    };
    assert!(names("base").contains(&"memory-model".to_owned()));
    assert_eq!(names("base"), names("grid"));
}
