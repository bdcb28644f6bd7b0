//! The pipeline as a whole: presets, files, options, errors.

use super::*;

/// Writes a file of its own for one test and returns its path.
fn file(name: &str, content: &str) -> String {
    let directory = std::env::temp_dir().join(format!("presil-config-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a temporary directory");
    let path = directory.join(name);
    std::fs::write(&path, content).expect("a temporary file");
    path.display().to_string()
}

fn with(option: &str) -> SocConfig {
    resolve("xring-o1", &[option.to_owned()]).unwrap_or_else(|e| panic!("{option}: {e}")).config
}

fn refused(soc: &str, option: &str) -> String {
    let sets: Vec<String> = Some(option).filter(|o| !o.is_empty()).map(str::to_owned).into_iter().collect();
    resolve(soc, &sets).expect_err(option).to_string()
}

#[test]
fn every_preset_resolves_and_every_value_has_a_source() {
    for name in soc_names() {
        let resolved = resolve(name, &[]).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(resolved.config.name, name);
        let bare: Vec<&String> = resolved
            .entries
            .iter()
            .filter(|(path, entry)| path.as_str() != "name" && entry.origin.source.is_none())
            .map(|(path, _)| path)
            .collect();
        assert!(bare.is_empty(), "{name}: no source for {bare:?}");
    }
}

#[test]
fn the_xring_preset_has_the_published_figures() {
    let soc = resolve("xring-o1", &[]).expect("preset").config;
    assert_eq!(soc.npu.int8_macs_per_second() * 2 / 1_000_000_000, 43_991);
    let bytes = u64::from(soc.npu.cores) * (soc.npu.scratchpad_bytes + soc.npu.accumulator_bytes);
    assert_eq!(bytes, 6 * (1536 + 128) * 1024);
    assert_eq!(soc.cpu.values().map(|c| c.count).sum::<u32>(), 10);
    assert_eq!((soc.dram.channels, soc.dram.standard.as_str()), (4, "lpddr5x-9600"));
}

#[test]
fn every_promised_path_can_be_set() {
    assert_eq!(with("npu.cores=2").npu.cores, 2);
    assert_eq!(with("npu.rows=32").npu.rows, 32);
    assert_eq!(with("npu.cols=128").npu.cols, 128);
    assert_eq!(with("npu.frequency=1.2 GHz").npu.frequency_hz, 1_200_000_000);
    assert_eq!(with("npu.scratchpad=2 MiB").npu.scratchpad_bytes, 2 << 20);
    assert!(!with("npu.driver=off").npu.driver);
    assert_eq!(with("dram.standard=lpddr5x-8533").dram.standard, "lpddr5x-8533");
    assert_eq!(with("dram.channels=2").dram.channels, 2);
    assert_eq!(with("dram.frequency-scale=0.5").dram.frequency_scale_permille, 500);
    assert_eq!(with("dram.frequency-scale=80 %").dram.frequency_scale_permille, 800);
    for cluster in ["prime", "big", "mid", "little"] {
        let soc = with(&format!("cpu.{cluster}.frequency=1.5GHz"));
        assert_eq!(soc.cpu[cluster].frequency_hz, 1_500_000_000);
    }
    assert_eq!(
        with("npu.formats=[\"int8\", \"fp16\"]").npu.formats,
        [NumberFormat::Int8, NumberFormat::Fp16]
    );
}

#[test]
fn a_later_option_wins_and_says_so() {
    let sets = ["npu.cores=2".to_owned(), "npu.cores=3".to_owned()];
    let resolved = resolve("xring-o1", &sets).expect("resolves");
    assert_eq!(resolved.config.npu.cores, 3);
    assert_eq!(resolved.origin("npu.cores").map(|o| o.layer.as_str()), Some("--set npu.cores=3"));
    assert!(resolved.to_toml().contains("cores = 3                                # --set npu.cores=3"));
}

#[test]
fn wrong_options_say_what_is_right() {
    for (option, says) in [
        ("npu.coers=2", "did you mean `npu.cores`?"),
        ("nup.cores=2", "did you mean `npu`?"),
        ("cpu.bgi.frequency=1 GHz", "did you mean `cpu.big`?"),
        ("npu.cores=banana", "npu.cores: expected a whole number from 0 to 4294967295, found \"banana\""),
        ("npu.cores=0", "npu.cores: expected a whole number from 1 to 8, found 0"),
        ("npu.cores=-1", "npu.cores: expected a whole number"),
        ("npu.cores=99999999999999999999", "npu.cores: expected a whole number"),
        ("npu.frequency=1", "npu.frequency: expected a frequency with its unit"),
        ("npu.frequency=0 Hz", "npu.frequency: expected from 1 MHz to 10 GHz, found 0 Hz"),
        ("npu.driver=maybe", "npu.driver: expected one of on, off"),
        ("npu.formats=[\"int7\"]", "npu.formats: expected a list of int4"),
        ("npu", "expected path=value"),
        ("=3", "unknown path"),
        ("npu=3", "is a table, expected a key in it"),
        ("npu.cores.x=3", "unknown path"),
        ("extends=tiny", "unknown path"),
        ("dram.standard=lpddr5x-8532", "did you mean `lpddr5x-8533`?"),
        ("dram.channels=3", "expected a power of two from 1 to 16, found 3"),
        ("boot.cluster=midd", "did you mean `mid`?"),
        ("power.energy-table=n3", "did you mean `n3e`?"),
        ("l3.ways=0", "l3.ways: expected a whole number from 1 to 64"),
        ("npu.scratchpad-banks=3", "npu.scratchpad-banks: expected a power of two"),
        ("npu.accumulator-ports=0", "npu.accumulator-ports: expected"),
        ("npu.scratchpad=1 B", "npu.scratchpad: expected 64 KiB to 32 MiB"),
    ] {
        let error = refused("xring-o1", option);
        assert!(error.contains(says), "{option}: {error}");
        assert!(error.contains(&format!("--set {option}")), "{option}: {error}");
    }
}

#[test]
fn all_problems_are_reported_at_once_each_with_its_line() {
    let text = "extends = \"xring-o1\"\n[npu]\ncoers = 3\nrows = \"x\"\n[fabrik]\nhops = 2\n";
    let path = file("many.toml", text);
    let problems = resolve(&path, &[]).expect_err("is wrong").problems;
    let places: Vec<String> = problems.iter().map(|p| p.place.replace(&path, "many.toml")).collect();
    assert_eq!(places, ["many.toml:3", "many.toml:4", "many.toml:5"]);
    assert_eq!(problems[0].help.as_deref(), Some("did you mean `cores`?"));
    assert_eq!(problems[2].help.as_deref(), Some("did you mean `fabric`?"));
    let path = file("relations.toml", "extends = \"tiny\"\n[npu]\nrows = 48\nvoltage = \"2 V\"\n");
    assert_eq!(resolve(&path, &[]).expect_err("is wrong").problems.len(), 2);
}

#[test]
fn files_that_are_not_configurations_are_refused_cleanly() {
    assert!(refused("nosuch", "").contains("no SoC preset `nosuch`"));
    assert!(refused("xring-01", "").contains("did you mean `xring-o1`?"));
    assert!(refused("no/such.toml", "").contains("cannot read `no/such.toml`"));
    let directory = file("x.toml", "").replace("x.toml", "");
    assert!(refused(&directory, "").contains("cannot read"));
    let binary = file("binary.toml", "");
    std::fs::write(&binary, b"\xff\xfe\x00").expect("a temporary file");
    assert!(refused(&binary, "").contains("byte 0 is not UTF-8"));
    assert!(refused("/dev/zero", "").contains("more than 4194304 bytes"));
    assert!(refused(&file("array.toml", "[1, 2]\n"), "").contains("not valid TOML"));
    assert!(refused(&file("list.toml", "[[npu]]\ncores = 1\n"), "").contains("npu: expected a table"));
    assert!(refused(&file("empty.toml", ""), "").contains("start the file with extends = \"xring-o1\""));
    assert!(refused(&file("typed.toml", "extends = 3\n"), "").contains("expected a preset name or a path"));
    assert!(
        refused(&file("name.toml", "extends = \"tiny\"\n[cpu.Big]\ncount = 1\n"), "")
            .contains("small letters")
    );
}

#[test]
fn extends_follows_files_beside_the_file_and_refuses_circles() {
    file("base.toml", "extends = \"tiny\"\n[npu]\ncores = 4\nrows = { value = 16, source = \"mine\" }\n");
    let path = file("derived.toml", "extends = \"base.toml\"\n[npu]\ncores = 0b11\n");
    let resolved = resolve(&path, &[]).expect("resolves");
    assert_eq!((resolved.config.npu.cores, resolved.config.npu.rows, resolved.config.npu.cols), (3, 16, 32));
    assert_eq!(resolved.config.name, "derived");
    assert_eq!(resolved.origin("npu.rows").and_then(|o| o.source.as_deref()), Some("mine"));
    file("circle-a.toml", "extends = \"circle-b.toml\"\n");
    let path = file("circle-b.toml", "extends = \"circle-a.toml\"\n");
    assert!(refused(&path, "").contains("extends itself in the end"));
}

#[test]
fn the_hash_is_of_what_was_resolved_and_the_printed_form_resolves_to_it() {
    let plain = resolve("tiny", &[]).expect("preset");
    assert_eq!(
        plain.config.hash(),
        resolve("tiny", &["npu.cores=2".into()]).expect("resolves").config.hash()
    );
    assert_ne!(
        plain.config.hash(),
        resolve("tiny", &["npu.cores=1".into()]).expect("resolves").config.hash()
    );
    assert_eq!(plain.config.hash().len(), 64);
    let printed = resolve(&file("printed.toml", &plain.to_toml()), &[]).expect("what is printed can be read");
    assert_eq!(printed.config, plain.config);
}

#[test]
fn the_schema_allows_what_the_reader_allows() {
    let schema = soc_schema();
    let cores = &schema["properties"]["npu"]["properties"]["cores"];
    assert_eq!(cores["anyOf"][0]["type"], "integer");
    assert_eq!(cores["anyOf"][1]["required"], serde_json::json!(["value"]));
    assert_eq!(schema["properties"]["npu"]["additionalProperties"], false);
    assert_eq!(schema["properties"]["extends"]["type"], "string");
    assert!(schema.get("required").is_none());
    let l3 = &schema["properties"]["l3"];
    assert!(l3["properties"]["size"].is_object(), "{l3}");
}
