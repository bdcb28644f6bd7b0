//! The repository keeps its own rules: dependency line, file sizes, headers, and pages that stay true.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Which workspace crate may depend on which, in any kind of dependency. The root package may use all of them.
const EDGES: &[(&str, &[&str])] = &[
    ("isa", &[]),
    ("sim-kernel", &["isa"]),
    ("npu-model", &["isa", "sim-kernel"]),
    ("soc-model", &["isa", "sim-kernel", "npu-model"]),
    ("traces", &["isa", "sim-kernel"]),
    ("reports", &["isa", "sim-kernel", "soc-model", "traces"]),
    ("presil", &["isa", "sim-kernel", "npu-model", "soc-model", "traces", "reports"]),
];

/// Longest file, in lines.
const LINES: usize = 800;
/// Files that are tables of data and may be longer.
const TABLES: &[&str] = &[];

/// Folders of sources; everything else at the top is documents.
const FOLDERS: &[&str] = &[
    "isa",
    "soc-model",
    "npu-model",
    "traces",
    "reports",
    "src",
    "tests",
    "firmware",
    "docs",
    "validation",
    ".ci",
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// All files below a folder, without build output, in order of path.
fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> =
        fs::read_dir(folder).expect("a folder").map(|e| e.expect("an entry").path()).collect();
    entries.sort();
    for path in entries {
        if !path.is_dir() {
            files.push(path);
        } else if path.file_name().is_some_and(|n| n != "target") {
            walk(&path, files);
        }
    }
}

/// Files of the repository with one of the endings, as (path from the root, text).
fn texts(endings: &[&str]) -> Vec<(String, String)> {
    let mut files: Vec<PathBuf> = fs::read_dir(root())
        .expect("the root")
        .map(|e| e.expect("an entry").path())
        .filter(|p| p.is_file())
        .collect();
    for folder in FOLDERS.iter().map(|f| root().join(f)).filter(|f| f.exists()) {
        walk(&folder, &mut files);
    }
    files
        .iter()
        .map(|p| (p.strip_prefix(root()).expect("inside").to_string_lossy().into_owned(), p))
        .filter(|(name, _)| endings.iter().any(|e| name.ends_with(e)))
        .map(|(name, p)| (name, read(p)))
        .collect()
}

fn fail_with(rule: &str, found: &[String]) {
    assert!(found.is_empty(), "{rule}:\n  {}", found.join("\n  "));
}

fn packages(manifest: &Path) -> Vec<Value> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--offline", "--no-deps", "--manifest-path"])
        .arg(manifest)
        .output()
        .expect("cargo starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let value: Value = serde_json::from_slice(&output.stdout).expect("metadata is JSON");
    value["packages"].as_array().expect("packages").clone()
}

/// Dependencies on folders of this repository, as (name, kind, inside `firmware/`).
fn local_edges(package: &Value) -> Vec<(String, String, bool)> {
    let firmware = root().join("firmware");
    package["dependencies"]
        .as_array()
        .expect("dependencies")
        .iter()
        .filter_map(|d| {
            let path = fs::canonicalize(d["path"].as_str()?).expect("a path dependency exists");
            let name = d["name"].as_str().expect("a name").to_owned();
            let kind = d["kind"].as_str().unwrap_or("normal").to_owned();
            Some((name, kind, path.starts_with(fs::canonicalize(&firmware).unwrap_or(firmware.clone()))))
        })
        .collect()
}

/// Why an edge may not be, if it may not.
fn objection(from: &str, to: &str, kind: &str, to_firmware: bool) -> Option<String> {
    let allowed = if to_firmware {
        from == "presil" && kind == "dev"
    } else {
        // A crate may test itself with its optional features on.
        (from == to && kind == "dev")
            || EDGES.iter().any(|(crate_name, targets)| *crate_name == from && targets.contains(&to))
    };
    (!allowed).then(|| format!("{from} -> {to} ({kind})"))
}

#[test]
fn dependencies_follow_the_line() {
    let mut packages = packages(&root().join("Cargo.toml"));
    // Tests use the firmware's runtime; cargo lists it here, its own workspace checks it.
    packages.retain(|p| p["name"] != "runtime");
    let names: BTreeSet<&str> = packages.iter().filter_map(|p| p["name"].as_str()).collect();
    let known: BTreeSet<&str> = EDGES.iter().map(|e| e.0).collect();
    assert_eq!(names, known, "a crate came or went: give it its line in ARCHITECTURE.md and here");
    let mut found = Vec::new();
    for package in &packages {
        let from = package["name"].as_str().expect("a name");
        for (to, kind, to_firmware) in local_edges(package) {
            found.extend(objection(from, &to, &kind, to_firmware));
        }
    }
    fail_with("edges outside the dependency line", &found);
}

#[test]
fn the_line_refuses_what_it_should() {
    for (from, to, kind, to_firmware, refused) in [
        ("isa", "sim-kernel", "normal", false, true),
        ("soc-model", "reports", "dev", false, true),
        ("traces", "soc-model", "normal", false, true),
        ("presil", "runtime", "normal", true, true),
        ("soc-model", "runtime", "dev", true, true),
        ("presil", "runtime", "dev", true, false),
        ("reports", "soc-model", "normal", false, false),
        ("isa", "isa", "dev", false, false),
        ("reports", "npu-model", "normal", false, true),
    ] {
        assert_eq!(objection(from, to, kind, to_firmware).is_some(), refused, "{from} -> {to} ({kind})");
    }
}

#[test]
fn firmware_knows_only_the_contract() {
    let manifest = root().join("firmware/Cargo.toml");
    if !manifest.exists() {
        return;
    }
    let mut found = Vec::new();
    for package in packages(&manifest) {
        let edges = local_edges(&package).into_iter().filter(|(to, _, inside)| !inside && to != "isa");
        found.extend(edges.map(|(to, kind, _)| format!("{} -> {to} ({kind})", package["name"])));
    }
    fail_with("firmware may depend on isa alone", &found);
}

#[test]
fn files_stay_readable() {
    let files: BTreeMap<String, usize> =
        texts(&[".rs"]).into_iter().map(|(name, text)| (name, text.lines().count())).collect();
    assert!(files.len() > 15, "the walk found only {} files", files.len());
    let long: Vec<String> = files
        .iter()
        .filter(|(name, lines)| **lines > LINES && !TABLES.contains(&name.as_str()))
        .map(|(name, lines)| format!("{name}: {lines} lines"))
        .collect();
    fail_with("files over 800 lines that are not tables", &long);
    let stale: Vec<String> = TABLES
        .iter()
        .filter(|t| files.get(**t).is_none_or(|lines| *lines <= LINES))
        .map(|t| (*t).to_owned())
        .collect();
    fail_with("tables that no longer need their exception", &stale);
}

#[test]
fn every_source_opens_with_its_role() {
    let bare: Vec<String> = texts(&[".rs"])
        .into_iter()
        .filter(|(_, text)| !text.starts_with("//! "))
        .map(|(name, _)| name)
        .collect();
    fail_with("files that do not start with `//! `", &bare);
}

/// Lines of fenced blocks of a page.
fn fenced(text: &str) -> Vec<&str> {
    let mut inside = false;
    text.lines()
        .filter(|line| {
            let fence = line.starts_with("```");
            inside ^= fence;
            inside && !fence
        })
        .collect()
}

#[test]
fn ci_runs_the_readme_test_command() {
    let readme = read(&root().join("README.md"));
    let commands: Vec<&str> = fenced(&readme).into_iter().filter(|l| l.starts_with("cargo test")).collect();
    let [command] = commands[..] else {
        panic!("README.md names {} test commands, one is wanted", commands.len())
    };
    let ci = read(&root().join(".ci/run"));
    let runs = ci.lines().any(|line| line.split(" 2>&1").next() == Some(command));
    assert!(runs, ".ci/run does not run `{command}`");
}

#[test]
fn links_lead_somewhere() {
    let mut dead = Vec::new();
    let mut seen = 0;
    for (name, text) in texts(&[".md"]) {
        let folder = root().join(&name).parent().expect("a folder").to_owned();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next()) {
            seen += 1;
            if !target.contains("://") && !folder.join(target).exists() {
                dead.push(format!("{name}: {target}"));
            }
        }
    }
    assert!(seen >= 5, "only {seen} links found");
    fail_with("dead links", &dead);
}

/// Tests named in MODEL.md as `file` `function` exist.
#[test]
fn claims_name_tests_that_exist() {
    // Claims, and the recipes of how one adds something: both name the tests that hold them.
    let model = read(&root().join("MODEL.md")) + &read(&root().join("CONTRIBUTING.md"));
    let (mut file, mut checked, mut missing) = (String::new(), 0, Vec::new());
    for word in model.lines().filter(|l| l.starts_with("| ")).flat_map(|l| l.split('`').skip(1).step_by(2)) {
        if word.contains('/') {
            file = word.to_owned();
            if !root().join(&file).exists() {
                missing.push(file.clone());
            }
        } else if !file.is_empty()
            && word.contains('_')
            && !word.contains(['.', ' ', '-'])
            && file.ends_with(".rs")
        {
            checked += 1;
            if !read(&root().join(&file)).contains(&format!("fn {word}(")) {
                missing.push(format!("{file}: {word}"));
            }
        }
    }
    assert!(checked >= 4, "only {checked} tests named");
    fail_with("MODEL.md or CONTRIBUTING.md names what does not exist", &missing);
}

#[test]
fn nothing_names_a_machine_or_a_registry() {
    // Spelled in pieces, or this file would find itself.
    let places = ["work", "root", "farm", "home"].map(|p| format!("/{p}/"));
    let hosts = [("crates", "io"), ("pypi", "org"), ("npmjs", "org"), ("debian", "org")]
        .map(|(a, b)| format!("{a}.{b}"));
    let mut found = Vec::new();
    for (name, text) in texts(&[".md", ".rs", ".toml", ".sh", ".ld", "/run", "LICENSE-APACHE", "LICENSE-MIT"])
    {
        for (number, line) in (1..).zip(text.lines()) {
            let place = places.iter().any(|p| {
                line.match_indices(p.as_str()).any(|(at, _)| {
                    !line[..at].ends_with(|c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '}'))
                })
            });
            if place || hosts.iter().any(|h| line.contains(h.as_str())) {
                found.push(format!("{name}:{number}: {}", line.trim()));
            }
        }
    }
    fail_with("machine paths or registry hosts", &found);
}
