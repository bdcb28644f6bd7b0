//! The default run of `presil run` and its neighbours against physics and closed forms.

use presil::session::pages::PageChoice;
use presil::session::sampling::Sampling;
use presil::session::{RunRequest, run};
use reports::RunRecord;
use serde_json::Value;
use soc_model::config::resolve;
use soc_model::soc::MemoryTiming;
use traces::workload::{ModelSpec, QuantScheme, load_model};

/// One run; its record as JSON.
fn record(soc: &str, sets: &[&str], model: &str, tokens: (u32, u32)) -> (RunRequest, Value) {
    let (request, record) = outcome(soc, sets, model, tokens);
    let json = record.to_json().expect("a record");
    (request, serde_json::from_str(&json).expect("JSON"))
}

/// One run; its record.
fn outcome(soc: &str, sets: &[&str], model: &str, tokens: (u32, u32)) -> (RunRequest, RunRecord) {
    let sets: Vec<String> = sets.iter().map(ToString::to_string).collect();
    let request = RunRequest {
        soc: resolve(soc, &sets).expect("a chip").config,
        model: load_model(model).expect("a model"),
        quant: QuantScheme::named("w4a16-g128").expect("a scheme"),
        prefill_tokens: tokens.0,
        decode_tokens: tokens.1,
        context_tokens: 0,
        memory_model: MemoryTiming::Sampled,
        firmware: None,
        seed: 0,
        text: None,
        ids: None,
        sampling: Sampling::default(),
        pages: PageChoice::default(),
    };
    let outcome = run(&request, &mut |_| {}).expect("the run ends");
    (request, outcome.record)
}

/// The README shows what the default run prints, and its roofline: `PRESIL_BLESS=1` renews both.
fn check_readme(record: &RunRecord) {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = reports::summary::text(record);
    let shown: String =
        text.lines().take_while(|l| !l.starts_with("Memory")).map(|l| format!("{l}\n")).collect();
    let plot = reports::plots::roofline(record).expect("a plot");
    let (readme, svg) = (root.join("README.md"), root.join("docs/roofline.svg"));
    let page = std::fs::read_to_string(&readme).expect("README.md");
    let (open, close) = ("<!-- default run -->\n```text\n", "```\n<!-- end -->");
    let from = page.find(open).expect("the README's example") + open.len();
    let to = from + page[from..].find(close).expect("the end of the README's example");
    #[allow(clippy::disallowed_methods, reason = "blessing is asked for by the environment, as insta does")]
    if std::env::var("PRESIL_BLESS").is_ok() {
        std::fs::write(&readme, format!("{}{shown}{}", &page[..from], &page[to..]))
            .expect("README.md is written");
        std::fs::write(&svg, &plot).expect("the plot is written");
        return;
    }
    assert_eq!(&page[from..to], shown, "README.md shows another run; PRESIL_BLESS=1 renews it");
    assert_eq!(
        std::fs::read_to_string(&svg).expect("docs/roofline.svg"),
        plot,
        "docs/roofline.svg is another run's"
    );
}

fn number(v: &Value, path: &str) -> f64 {
    v.pointer(path).and_then(Value::as_f64).unwrap_or_else(|| panic!("{path} is a number"))
}

/// Inputs and outputs of every matrix of a layer.
fn matrices(m: &ModelSpec) -> [(u64, u64); 5] {
    let (hidden, ffn) = (u64::from(m.hidden), u64::from(m.ffn));
    let (q, kv) = (u64::from(m.heads * m.head_dim), u64::from(m.kv_heads * m.head_dim));
    [(hidden, q + 2 * kv), (q, hidden), (hidden, ffn), (hidden, ffn), (ffn, hidden)]
}

/// Bytes a decoded token reads in `w4a16-g128` with `positions` keys and values: from shapes alone.
fn bytes_per_token(m: &ModelSpec, positions: f64) -> f64 {
    let layer: u64 = matrices(m).iter().map(|(k, n)| k * n / 2 + k.div_ceil(128) * n * 2).sum();
    let hidden = u64::from(m.hidden);
    let head = hidden * u64::from(m.vocab) + hidden.div_ceil(128) * u64::from(m.vocab) * 2;
    let kv = u64::from(2 * m.kv_heads * m.head_dim * 2 * m.layers);
    #[allow(clippy::cast_precision_loss, reason = "far below 2^53")]
    let (weights, kv) = ((u64::from(m.layers) * layer + head) as f64, kv as f64);
    weights + kv * positions
}

fn assert_within(what: &str, got: f64, want: f64, relative: f64) {
    assert!((got / want - 1.0).abs() <= relative, "{what}: {got}, expected {want} within {relative}");
}

/// Bytes read a token lie within 2 % of weights, scales, keys and values.
fn check_bytes(request: &RunRequest, r: &Value) {
    let resident = f64::from(request.prefill_tokens) + f64::from(request.decode_tokens) / 2.0;
    let want = bytes_per_token(&request.model, resident);
    assert_within("bytes a token", number(r, "/dram/decode_read_bytes_per_token"), want, 0.02);
}

fn check_sums(r: &Value) {
    for (engine, causes) in r["cycles"].as_object().expect("engines") {
        let causes = causes.as_object().expect("causes");
        let of = |v: &Value| v.as_u64().expect("a count");
        let sum: u64 = causes.iter().filter(|(name, _)| *name != "total").map(|(_, v)| of(v)).sum();
        assert_eq!(sum, of(&causes["total"]), "{engine}");
    }
    let parts = r["energy"]["by_component"].as_object().expect("components");
    let sum: f64 = parts.values().map(|v| v.as_f64().expect("joules")).sum();
    assert_within("energy", sum, number(r, "/energy/total_j"), 1e-9);
    let decoded = number(r, "/workload/decode_tokens") - 1.0;
    let phases = number(r, "/energy/prefill_j") + number(r, "/energy/decode_j_per_token") * decoded;
    assert_within("energy of phases", phases, number(r, "/energy/total_j"), 1e-9);
}

/// Multiply-accumulates of the record's operations against the shapes of the model.
fn check_macs(request: &RunRequest, r: &Value) {
    let m = &request.model;
    let (rows, steps) = (u64::from(request.prefill_tokens), u64::from(request.decode_tokens) - 1);
    let dense: u64 = matrices(m).iter().map(|(k, n)| k * n).sum();
    let head = u64::from(m.hidden) * u64::from(m.vocab) * (steps + 1);
    let sum = |attention: bool, phase: &str| -> u64 {
        let ops = r["ops"].as_array().expect("operations").iter();
        ops.filter(|o| (o["kind"] == "attention") == attention && o["phase"] == phase)
            .map(|o| o["macs"].as_u64().expect("a count"))
            .sum()
    };
    let linear = sum(false, "prefill") + sum(false, "decode");
    assert_eq!(linear, (rows + steps) * dense * u64::from(m.layers) + head);
    let pair = 2 * u64::from(m.heads * m.head_dim) * u64::from(m.layers);
    assert_eq!(sum(true, "decode"), (rows + 1..=rows + steps).sum::<u64>() * pair);
    let prefill = sum(true, "prefill");
    assert!(prefill >= rows * (rows + 1) / 2 * pair && prefill <= rows * rows * pair, "{prefill}");
}

#[test]
fn the_default_run_obeys_physics() {
    let (request, made) = outcome("xring-o1", &[], "mimo-7b", (128, 16));
    check_readme(&made);
    let r: Value = serde_json::from_str(&made.to_json().expect("a record")).expect("JSON");
    check_bytes(&request, &r);
    check_sums(&r);
    check_macs(&request, &r);
    let decode = number(&r, "/throughput/decode_tok_per_s");
    let peak = number(&r, "/dram/peak_gb_per_s") * 1e9;
    let bytes = number(&r, "/dram/decode_read_bytes_per_token");
    assert!(decode >= 10.0 && decode <= 0.95 * peak / bytes, "{decode} tokens/s of {}", peak / bytes);
    let prefill = number(&r, "/throughput/prefill_tok_per_s");
    assert!((600.0..=1600.0).contains(&prefill), "{prefill}");
    assert!(number(&r, "/dram/bandwidth_gb_per_s") < number(&r, "/dram/peak_gb_per_s"));
    assert!(number(&r, "/efficiency/utilisation") < 1.0);
    let per_watt = |which| number(&r, &format!("/efficiency/tops_per_w/{which}"));
    assert!(per_watt("array_vmin") > per_watt("npu_rail"));
    assert!(per_watt("npu_rail") > per_watt("workload"));
    // The firmware is in charge, and cheap.
    let firmware = |which: &str| number(&r, &format!("/firmware/{which}"));
    assert!(firmware("instructions_per_token") > 1000.0);
    assert!(firmware("instructions_per_token") <= 300_000.0);
    assert!(firmware("interrupts") > 0.0 && firmware("doorbells") > 0.0);
}

#[test]
fn another_number_of_cores_is_tiled_differently_by_the_same_firmware() {
    let run = |sets: &[&str]| record("xring-o1", sets, "qwen2.5-1.5b", (16, 2)).1;
    let (six, three) = (run(&[]), run(&["npu.cores=3"]));
    assert_eq!(six["firmware"]["sha256"], three["firmware"]["sha256"]);
    assert_eq!(number(&six, "/firmware/doorbells"), 2.0 * number(&three, "/firmware/doorbells"));
    let engines =
        |r: &Value| r["cycles"].as_object().expect("engines").keys().filter(|n| n.ends_with("_mx")).count();
    assert_eq!((engines(&six), engines(&three)), (6, 3));
    // Each of fewer cores has more of every matrix.
    let active = number(&three, "/cycles/npu0_mx/active") / number(&six, "/cycles/npu0_mx/active");
    assert!((1.7..=2.3).contains(&active), "{active}");
}

#[test]
fn a_long_inner_dimension_and_a_large_vocabulary_run_on_one_core() {
    let config = r#"{"architectures":["Qwen2ForCausalLM"],"model_type":"qwen2","hidden_size":3584,
        "num_hidden_layers":2,"num_attention_heads":28,"num_key_value_heads":4,"intermediate_size":18944,
        "vocab_size":151936,"rms_norm_eps":1e-6,"rope_theta":1000000.0,"max_position_embeddings":4096,
        "tie_word_embeddings":false,"hidden_act":"silu"}"#;
    let path = format!("{}/wide.json", env!("CARGO_TARGET_TMPDIR"));
    std::fs::write(&path, config).expect("a temporary file");
    for soc in ["xring-o1", "tiny"] {
        let (request, r) = record(soc, &["npu.cores=1"], &path, (9, 3));
        assert_eq!((request.model.ffn, request.model.vocab), (18_944, 151_936));
        check_bytes(&request, &r);
        check_sums(&r);
        check_macs(&request, &r);
    }
}
