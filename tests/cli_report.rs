//! The report page, the C header, manual pages and completions.

mod common;

use std::path::Path;
use std::process::Command;

use common::presil;
use isa::npu::{Gemm, Header, Word, registers};

const RECORD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/baselines/tiny-qwen2.5-1.5b.json");

fn path(name: &str) -> String {
    format!("{}/report-{name}", env!("CARGO_TARGET_TMPDIR"))
}

fn out(arguments: &[&str]) -> String {
    let ran = presil(arguments);
    assert_eq!(ran.code, 0, "{arguments:?}: {}", ran.err);
    ran.out
}

fn page() -> String {
    let file = path("page.html");
    out(&["report", RECORD, "-o", &file]);
    std::fs::read_to_string(file).expect("a page")
}

#[test]
fn the_page_is_whole_and_loads_nothing() {
    let page = page();
    for id in ["figures", "energy", "cycles", "roofline", "timeline", "ops", "metrics", "config"] {
        assert!(page.contains(&format!("<section id=\"{id}\">")), "no section {id}");
    }
    for outside in ["http:", "https:", "src=", "href=", "@import", "url("] {
        assert!(!page.contains(outside), "the page has {outside}");
    }
    for tag in ["section", "div", "svg", "table", "details", "span", "g", "ol", "ul"] {
        let (open, close) = (format!("<{tag}"), format!("</{tag}>"));
        let opened = page.matches(&format!("{open}>")).count() + page.matches(&format!("{open} ")).count();
        assert_eq!(opened, page.matches(&close).count(), "<{tag}>");
    }
    let shown = page.split("<script>").next().expect("the part before the script");
    for figure in ["NaN", ">inf", "\"inf", ">-inf"] {
        assert!(!shown.contains(figure), "a figure is not finite: {figure}");
    }
    assert!(page.len() < 2_000_000, "{} bytes", page.len());
    assert_eq!(page, self::page(), "the same record gives the same page");
}

#[test]
fn every_stacked_bar_fills_its_width() {
    let page = page();
    let cycles = page.split("<section id=\"cycles\">").nth(1).and_then(|s| s.split("</section>").next());
    let mut bars = 0;
    for bar in cycles.expect("a section").split("<div class=\"bar\">").skip(1) {
        let widths = bar.split("width:").skip(1).filter_map(|w| w.split('%').next()?.parse::<f64>().ok());
        let sum: f64 = widths.sum();
        assert!((sum - 100.0).abs() < 0.02, "{sum} % in {bar}");
        bars += 1;
    }
    assert!(bars > 10, "{bars} bars");
}

#[test]
fn what_is_no_record_makes_no_page() {
    let file = path("none.html");
    let ran = presil(&["report", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"), "-o", &file]);
    assert_eq!(ran.code, 3, "{}", ran.err);
    assert!(ran.err.contains("Cargo.toml:1: "), "{}", ran.err);
    assert!(!Path::new(&file).exists());
}

/// A C program that sets every field of a GEMM word to a value of its own and prints the four lanes.
fn program() -> (String, Word) {
    let (mut text, mut word) = (String::new(), Word::default());
    text.push_str(
        "#include <stdio.h>\n#include \"presil_npu.h\"\nint main(void)\n{\n    presil_word w = {{0}};\n",
    );
    for (layout, fields) in [("HDR", Header::FIELDS), ("GEMM", Gemm::FIELDS)] {
        for (i, field) in fields.iter().enumerate() {
            let value = (0x9e37_79b9 * (i as u64 + 1)) & ((1u64 << field.width) - 1);
            word.set(field.lo, field.width, value);
            let name = format!("{layout}_{}", field.name.trim_end_matches('_').to_ascii_uppercase());
            text.push_str(&format!("    PRESIL_SET(&w, {name}, UINT64_C({value}));\n"));
            text.push_str(&format!("    if (PRESIL_GET(&w, {name}) != UINT64_C({value})) return 1;\n"));
        }
    }
    text.push_str("    for (int i = 0; i < 4; i++) printf(\"%016llx\\n\", (unsigned long long)w.lane[i]);\n");
    text.push_str("    return 0;\n}\n");
    (text, word)
}

#[test]
fn the_c_header_encodes_as_the_tables_do() {
    let header = out(&["isa", "header", "--c"]);
    for register in registers::TABLE {
        let line = format!("#define PRESIL_REG_{} UINT64_C({:#x})", register.name, register.offset);
        assert!(header.contains(&line), "{line}");
    }
    assert!(out(&["isa", "header", "--linker"]).contains("ORIGIN = 0x80000000"));
    assert_eq!(presil(&["isa", "header"]).code, 2, "one of the two forms must be chosen");

    let folder = path("c");
    std::fs::create_dir_all(&folder).expect("a folder");
    let (text, word) = program();
    let file = |name: &str| format!("{folder}/{name}");
    std::fs::write(file("presil_npu.h"), header).expect("a file");
    std::fs::write(file("main.c"), text).expect("a file");
    let flags = ["-std=c99", "-Wall", "-Wextra", "-pedantic", "-Werror", "-o"];
    // Machines without a C compiler have checked the text above.
    let Ok(compiled) = Command::new("cc").args(flags).args([file("main"), file("main.c")]).output() else {
        return;
    };
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    let ran = Command::new(file("main")).output().expect("the program starts");
    assert!(ran.status.success(), "a field does not read back");
    let lanes: String = word.0.iter().map(|lane| format!("{lane:016x}\n")).collect();
    assert_eq!(String::from_utf8_lossy(&ran.stdout), lanes);
}

#[test]
fn manual_and_completions_cover_every_command() {
    let folder = path("man");
    out(&["docs", "man", "-o", &folder]);
    for page in ["presil", "presil-run", "presil-diff", "presil-npu-gemm", "presil-isa-header"] {
        let text = std::fs::read_to_string(format!("{folder}/{page}.1")).expect("a manual page");
        assert!(text.contains(".SH SYNOPSIS") && text.contains("Example"), "{page}");
    }
    for shell in ["bash", "zsh", "fish"] {
        let script = out(&["completions", shell]);
        for word in ["diff", "report", "--gate", "--memory-model", "memory-model"]
            .iter()
            .filter(|w| shell != "fish" || !w.starts_with("--"))
        {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
}
