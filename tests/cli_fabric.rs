//! Memory shared with others: noise, classes, limits and the system cache, from the command line.

mod common;

use common::presil;
use serde_json::Value;

/// A short run; its record.
fn run(soc: &str, sets: &[&str], more: &[&str]) -> Value {
    let mut arguments =
        vec!["run", "--soc", soc, "--model", "qwen2.5-1.5b", "--prefill", "2", "--decode", "2", "--json"];
    sets.iter().for_each(|s| arguments.extend(["--set", s]));
    arguments.extend(more);
    let ran = presil(&arguments);
    assert_eq!(ran.code, 0, "{arguments:?}: {}", ran.err);
    serde_json::from_str(&ran.out).expect("one JSON document")
}

fn number(v: &Value, path: &str) -> f64 {
    v.pointer(path).and_then(Value::as_f64).unwrap_or_else(|| panic!("{path} is a number"))
}

/// What the loads of core 0 lost to the noise, as a factor.
fn slowed(r: &Value) -> f64 {
    r.pointer("/contention/npu0_in/by/cpu_noise/slowdown").and_then(Value::as_f64).unwrap_or(1.0)
}

#[test]
fn a_model_that_the_system_cache_holds_pays_memory_for_what_it_was_asked() {
    let config = r#"{"architectures": ["LlamaForCausalLM"], "hidden_size": 256, "intermediate_size": 512, "vocab_size": 2048,
      "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512}"#;
    let path = format!("{}/small-config.json", env!("CARGO_TARGET_TMPDIR"));
    std::fs::write(&path, config).expect("a temporary file");
    for soc in ["a18-pro", "tensor-g4", "snapdragon-8-elite", "snapdragon-8-gen3"] {
        let words = ["--soc", soc, "--model", &path, "--prefill", "9", "--decode", "30", "--json"];
        let ran = presil(&[&["run"], &words[..]].concat());
        assert_eq!(ran.code, 0, "{soc}: {}", ran.err);
        let record: Value = serde_json::from_str(&ran.out).expect("one JSON document");
        let all = |key: &str| {
            record["ops"].as_array().expect("ops").iter().filter_map(|o| o[key].as_f64()).sum::<f64>()
        };
        assert!(all("energy_j") <= number(&record, "/energy/total_j"), "{soc}");
        // Most of what the ops asked for never reached memory.
        assert!(number(&record, "/dram/read_bytes") < 0.5 * all("dram_bytes"), "{soc}");
    }
}

#[test]
fn noise_slows_the_npu_and_its_class_decides_how_much() {
    let quiet = run("tiny", &[], &[]);
    assert!(
        quiet.pointer("/contention/cpu_noise").is_none()
            && quiet.pointer("/dram/traffic/cpu_noise").is_none()
    );
    let mut before = (number(&quiet, "/time/ttft_s"), 1.0);
    let folder = format!("{}/noise", env!("CARGO_TARGET_TMPDIR"));
    for share in ["10 %", "0.3", "0.5"] {
        let sampled = ["-o", &folder, "--memory-model", "sampled"];
        let r = run("tiny", &[&format!("traffic.cpu-noise={share}")], &sampled);
        let now = (number(&r, "/time/ttft_s"), slowed(&r));
        assert!(now.0 > before.0 && now.1 > before.1, "{share}: {now:?} after {before:?}");
        assert!(
            number(&r, "/dram/traffic/cpu_noise/pj_per_bit") > number(&r, "/dram/traffic/weights/pj_per_bit")
        );
        before = now;
    }
    let csv = std::fs::read_to_string(format!("{folder}/contention.csv")).expect("contention.csv");
    assert!(csv.starts_with("victim,aggressor,lost_s,slowdown,link_s,memory_s,cache_s\n"), "{csv}");
    assert!(csv.lines().any(|l| l.starts_with("npu0_in,cpu_noise,")), "{csv}");
    let mut before = f64::MAX;
    for class in ["urgent", "normal", "background"] {
        let class = format!("traffic.cpu-noise-class={class}");
        let r = run("tiny", &["traffic.cpu-noise=0.5", &class], &["--memory-model", "sampled"]);
        let (ttft, noise) = (number(&r, "/time/ttft_s"), number(&r, "/contention/cpu_noise/slowdown"));
        assert!(ttft < before, "{class}: {ttft} s after {before} s");
        assert_eq!(noise < 1.01, class.ends_with("urgent"), "{class}: {noise}");
        before = ttft;
    }
}

/// Sampling where it is proven, else every burst, and the record says why; what is asked for is done all the same.
#[test]
fn the_memory_path_follows_what_is_proven() {
    let told = |sets: &[&str], more: &[&str]| {
        let path = format!("{}/smallest.json", env!("CARGO_TARGET_TMPDIR"));
        let model = r#"{"model_type":"qwen2","hidden_size":256,"num_hidden_layers":2,"num_attention_heads":4,
            "num_key_value_heads":2,"intermediate_size":512,"vocab_size":2048,"max_position_embeddings":512,
            "tie_word_embeddings":true}"#;
        std::fs::write(&path, model).expect("a temporary file");
        let mut arguments =
            vec!["run", "--soc", "tiny", "--model", &path, "--prefill", "2", "--decode", "2", "--json"];
        sets.iter().for_each(|s| arguments.extend(["--set", s]));
        arguments.extend(more);
        let ran = presil(&arguments);
        assert_eq!(ran.code, 0, "{arguments:?}: {}", ran.err);
        let r: Value = serde_json::from_str(&ran.out).expect("one JSON document");
        let basis = r["validity"]["basis"].as_str().expect("text").to_owned();
        let word = r["memory_model"].as_str().expect("text").to_owned();
        (word, basis, number(&r, "/validity/band_percent"), ran.err)
    };
    let sampled = ["--memory-model", "sampled"];
    for sets in [&[][..], &["traffic.cpu-noise=0.3"]] {
        let (word, basis, band, _) = told(sets, &[]);
        assert!(word == "sampled" && band < 30.0 && basis.contains("within 5 %"), "{word} {band} {basis}");
    }
    for (set, why) in [
        ("dram.grant=\"1 KiB\"", "dram.grant is 1024 B, proven from 4096 B on"),
        ("traffic.cpu-noise=0.4", "traffic.cpu-noise is 40 % of the peak, proven up to 30 %"),
    ] {
        let (word, basis, band, err) = told(&[set], &[]);
        assert!(word == "burst" && band < 30.0, "{word} {band}");
        assert!(basis.contains(why) && err.contains(why), "{basis}\n{err}");
        let (word, basis, band, err) = told(&[set], &sampled);
        assert!(word == "sampled" && band > 30.0, "{word} {band}");
        assert!(basis.contains("outside its proven region") && basis.contains(why), "{basis}");
        assert!(err.contains(why), "{err}");
        assert!(!told(&[set], &["--memory-model", "burst"]).3.contains(why));
    }
}

#[test]
fn a_limit_holds_and_is_what_was_waited_for() {
    let r = run("tiny", &["fabric.npu.limit=4 GB/s"], &[]);
    let rate = number(&r, "/dram/bandwidth_gb_per_s");
    assert!((3.0..=4.0).contains(&rate), "{rate} GB/s of 4");
    let held = r.pointer("/contention/npu0_in/by/npu1_in/held_s").expect("core 1 held the link");
    assert!(number(held, "/link") > 0.0, "{held}");
}

#[test]
fn a_system_cache_absorbs_and_is_reported() {
    let path = format!("{}/cached.toml", env!("CARGO_TARGET_TMPDIR"));
    let text = "extends = \"tiny\"\n[slc]\nsize = \"2 MiB\"\nassociativity = 8\nlatency = 16\nwidth = \"64 B\"\n\
                [slc.ways]\ncpu = 2\nnpu = 6\n";
    std::fs::write(&path, text).expect("a temporary file");
    let (plain, cached) = (run("tiny", &[], &[]), run(&path, &[], &[]));
    assert!(plain.get("slc").is_none());
    let read = |r: &Value| number(r, "/dram/read_bytes");
    assert!(read(&cached) < read(&plain), "{} of {}", read(&cached), read(&plain));
    assert!(number(&cached, "/slc/by_client/npu0_in/hits") > 0.0);
    assert!(number(&cached, "/energy/by_component/fabric_slc") > 0.0);
    assert_eq!(cached["output"], plain["output"], "a cache changes no result");
    let elite = run("snapdragon-8-elite", &[], &[]);
    assert!(number(&elite, "/slc/hit_rate") > 0.0);
}

#[test]
fn wrong_values_name_their_key() {
    for (option, says) in [
        ("traffic.cpu-noise=1.5", "traffic.cpu-noise: expected from 0.001 to 0.95 of the peak"),
        ("traffic.cpu-nose=0.5", "did you mean `traffic.cpu-noise`?"),
        ("traffic.cpu-noise-class=normall", "did you mean `normal`?"),
        ("traffic.cpu-noise-class=normal", "traffic.cpu-noise: is missing"),
        ("fabric.npu.limit=20", "expected a bandwidth with its unit"),
        ("fabric.npu.limit=1 kB/s", "fabric.npu.limit: expected from 0.1 GB/s to 1000 GB/s"),
        ("fabric.qos.normal=0", "fabric.qos.normal: expected a whole number from 1 to 64"),
        ("slc.size=1 MiB", "slc"),
    ] {
        let ran = presil(&["run", "--soc", "tiny", "--set", option]);
        assert_eq!(ran.code, 3, "{option}: {}", ran.err);
        assert!(ran.err.contains(says), "{option}: {}", ran.err);
    }
}
