//! Bad input exits 3 (usage 2) with a message that names the place and what would be right.

mod common;

use common::presil;

/// Writes a file for one test and returns its path.
fn file(name: &str, content: &[u8]) -> String {
    let path = format!("{}/{name}", env!("CARGO_TARGET_TMPDIR"));
    std::fs::write(&path, content).expect("a temporary file");
    path
}

/// Runs a command line that must be refused with `code`; the message, with the temporary directory left out.
fn refused(code: i32, arguments: &[&str]) -> String {
    let ran = presil(arguments);
    assert_eq!(ran.code, code, "{arguments:?}: {}", ran.err);
    assert!(ran.out.is_empty(), "{arguments:?} wrote to standard output: {}", ran.out);
    ran.err.replace(&format!("{}/", env!("CARGO_TARGET_TMPDIR")), "")
}

#[test]
fn unknown_names_name_the_nearest() {
    insta::assert_snapshot!(refused(3, &["run", "--set", "npu.coers=2"]), @r"
    error: --set npu.coers=2: npu.coers: unknown path
      help: did you mean `npu.cores`?
    ");
    insta::assert_snapshot!(refused(3, &["run", "--model", "mimo-8b"]), @r"
    error: --model: no model preset, nor a file, `mimo-8b`
      help: did you mean `mimo-7b`?
    ");
    insta::assert_snapshot!(refused(3, &["run", "--soc", "nosuch"]), @r"
    error: --soc: no SoC preset `nosuch`, nor a file of that name
      help: valid here: xring-o1, snapdragon-8-gen3, snapdragon-8-elite, a18-pro, tensor-g4, tiny
    ");
    insta::assert_snapshot!(refused(3, &["run", "--quant", "w4a16"]), @r"
    error: --quant: no quantisation scheme `w4a16`
      help: did you mean `w4a16-g128`?
    ");
    insta::assert_snapshot!(refused(3, &["show", "energy", "n3"]), @r"
    error: energy table: n3: no such energy table
      help: did you mean `n3e`?
    ");
}

#[test]
fn wrong_values_say_what_is_expected() {
    insta::assert_snapshot!(refused(3, &["run", "--set", "npu.cores=0"]), @"error: --set npu.cores=0: npu.cores: expected a whole number from 1 to 8, found 0");
    insta::assert_snapshot!(refused(3, &["run", "--set", "npu.cores=banana"]), @r#"error: --set npu.cores=banana: npu.cores: expected a whole number from 0 to 4294967295, found "banana""#);
    insta::assert_snapshot!(refused(3, &["run", "--set", "npu.frequency=900"]), @r#"error: --set npu.frequency=900: npu.frequency: expected a frequency with its unit (Hz, kHz, MHz, GHz), such as "1.2 GHz", found 900"#);
    insta::assert_snapshot!(refused(3, &["run", "--set", "cpu.bgi.frequency=2 GHz"]), @r"
    error: --set cpu.bgi.frequency=2 GHz: cpu.bgi.frequency: unknown path
      help: did you mean `cpu.big`?
    ");
}

#[test]
fn wrong_soc_files_name_file_line_and_key() {
    let typo = file("typo.toml", b"[npu]\ncoers = 3\n");
    insta::assert_snapshot!(refused(3, &["run", "--soc", &typo]), @r"
    error: typo.toml:2: npu.coers: unknown key
      | coers = 3
      help: did you mean `cores`?
    ");
    let binary = file("binary.toml", b"\xff\xfe\x00");
    insta::assert_snapshot!(refused(3, &["run", "--soc", &binary]), @"error: binary.toml: not a text file: byte 0 is not UTF-8, expected TOML");
    let typed = file("typed.toml", b"extends = \"tiny\"\n\n[npu]\nscratchpad = 4096\n");
    insta::assert_snapshot!(refused(3, &["run", "--soc", &typed]), @r#"
    error: typed.toml:4: npu.scratchpad: expected a size with its unit (B, KiB, MiB, GiB), such as "1.5 MiB", found 4096
      | scratchpad = 4096
    "#);
}

#[test]
fn wrong_model_files_name_file_line_and_key() {
    let open = file("open.json", b"[1,2");
    insta::assert_snapshot!(refused(3, &["run", "--model", &open]), @"error: open.json:1:4: not valid JSON: EOF while parsing a list at line 1 column 4");
    let zero = file("zero.json", br#"{"architectures":["LlamaForCausalLM"],"hidden_size":0}"#);
    assert!(refused(3, &["run", "--model", &zero]).contains("num_attention_heads: is missing"));
    let image = file("image.gguf", b"GGUF\x03\0\0\0\xff\xff\xff\xff");
    assert!(
        refused(3, &["run", "--model", &image])
            .contains("image.gguf byte 8: tensor count: expected 8 bytes, the file has 4 more")
    );
    let long = ["run", "--model", "llama-2-7b", "--prefill", "4096"];
    insta::assert_snapshot!(refused(3, &long), @"error: --prefill + --decode + --context: 4112 tokens, llama-2-7b takes at most 4096");
    let large = refused(3, &["run", "--soc", "tiny", "--model", "llama-2-7b", "--quant", "fp16"]);
    assert!(large.contains("dram.capacity is 4294967296"), "{large}");
}

#[test]
fn several_problems_are_reported_at_once() {
    insta::assert_snapshot!(refused(3, &["run", "--soc", "tinny", "--model", "mimo", "--quant", "fp8"]), @r"
    error: --soc: no SoC preset `tinny`, nor a file of that name
      help: did you mean `tiny`?
    error: --model: no model preset, nor a file, `mimo`
      help: did you mean `mimo-7b`?
    error: --quant: no quantisation scheme `fp8`
      help: did you mean `fp16`?
    ");
}

#[test]
fn wrong_usage_exits_2() {
    for arguments in [
        &["run", "--frobnicate"][..],
        &["run", "--prefill", "0"],
        &["run", "--decode", "0"],
        &["run", "--prefill", "0", "--decode", "0"],
        &["run", "--prefill", "many"],
        &["run", "--memory-model", "perfect"],
        &["nosuch"],
        &["list", "nosuch"],
        &[],
    ] {
        let message = refused(2, arguments);
        assert!(message.len() > 15, "{arguments:?}: {message}");
    }
}
