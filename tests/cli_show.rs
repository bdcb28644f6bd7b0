//! Everything built in can be listed and shown, and what is shown can be read back.

mod common;

use common::presil;

fn shown(arguments: &[&str]) -> String {
    let ran = presil(arguments);
    assert_eq!(ran.code, 0, "{arguments:?}: {}", ran.err);
    assert!(ran.err.is_empty(), "{arguments:?}: {}", ran.err);
    ran.out
}

fn json(arguments: &[&str]) -> serde_json::Value {
    serde_json::from_str(&shown(arguments)).expect("one JSON document")
}

#[test]
fn lists_hold_what_is_built_in() {
    insta::assert_snapshot!(shown(&["list", "socs"]), @r"
    xring-o1
    snapdragon-8-gen3
    snapdragon-8-elite
    a18-pro
    tensor-g4
    tiny
    ");
    insta::assert_snapshot!(shown(&["list", "standards"]), @r"
    lpddr5-6400
    lpddr5x-8533
    lpddr5x-9600
    lpddr5t-9600
    lpddr5x-10667
    lpddr6-10667
    ");
    assert_eq!(
        json(&["list", "quants", "--json"]),
        serde_json::json!(["w4a16-g128", "w4a8-g32", "w8a8", "w8a16", "fp16"])
    );
    assert_eq!(json(&["list", "energy", "--json"]), serde_json::json!(["n3e"]));
}

#[test]
fn everything_listed_can_be_shown() {
    for (kind, list) in
        [("soc", "socs"), ("model", "models"), ("standard", "standards"), ("energy", "energy")]
    {
        for name in shown(&["list", list]).lines() {
            let text = shown(&["show", kind, name]);
            assert!(text.contains("name = "), "{kind} {name}");
            assert!(json(&["show", kind, name, "--json"]).is_object(), "{kind} {name}");
        }
    }
}

#[test]
fn a_shown_soc_is_a_soc_file_with_the_same_configuration() {
    let path = format!("{}/shown.toml", env!("CARGO_TARGET_TMPDIR"));
    let options = ["show", "soc", "tiny", "--set", "npu.cores=1"];
    let text = shown(&options);
    assert!(text.contains("cores = 1                                # --set npu.cores=1"), "{text}");
    std::fs::write(&path, text).expect("a temporary file");
    let again = json(&["show", "soc", &path, "--json"]);
    assert_eq!(again, json(&[&options[..], &["--json"]].concat()));
    assert_ne!(again["hash"], json(&["show", "soc", "tiny", "--json"])["hash"]);
}

#[test]
fn the_schema_is_json_schema() {
    let schema = json(&["schema", "soc"]);
    assert_eq!(schema["additionalProperties"], false);
    assert_eq!(schema["properties"]["npu"]["properties"]["frequency"]["anyOf"][0]["format"], "frequency");
}

#[test]
fn help_has_an_example() {
    for command in ["run", "exec", "dram", "list", "show", "schema"] {
        assert!(shown(&[command, "--help"]).contains("Example: presil "), "{command}");
    }
    assert!(shown(&["--version"]).starts_with("presil "));
}
