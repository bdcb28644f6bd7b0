//! Given tokens, ends of texts and conversations on the modelled phone, with files the test writes itself.

mod common;
#[allow(dead_code, reason = "only a part of the writer is needed here")]
mod gguf_writer;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::{Ran, presil};
use gguf_writer::{Flaws, GOOD, file};
use serde_json::Value;

const PROMPT: &str = "the end is near";
const TEMPLATE: &str = "{{ bos_token }}{% for m in messages %}\n{% if m.role == 'user' %}{{ '\\nQ:' + m.content }}{% else \
                        %}{{ '\\nA:' + m.content + eos_token }}{% endif %}\n{% endfor %}\n{% if add_generation_prompt \
                        %}{{ '\\nA:' }}{% endif %}";

/// A file in the tests' own folder.
fn written(name: &str, flaws: &Flaws) -> String {
    let path: PathBuf = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, file(flaws)).expect("a temporary file");
    path.to_str().expect("UTF-8").to_owned()
}

fn json(ran: &Ran) -> Value {
    assert_eq!(ran.code, 0, "{}", ran.err);
    serde_json::from_str(&ran.out).expect("one JSON document")
}

fn run(model: &str, extra: &[&str]) -> Value {
    json(&presil(&[&["run", "--soc", "tiny", "--model", model, "--json"], extra].concat()))
}

fn ids(value: &Value) -> Vec<u64> {
    value.as_array().expect("a list").iter().map(|v| v.as_u64().expect("an id")).collect()
}

fn listed(ids: &[u64]) -> String {
    ids.iter().map(u64::to_string).collect::<Vec<_>>().join(",")
}

/// With standard input.
fn chat(input: &str, arguments: &[&str]) -> Ran {
    let mut child = Command::new(env!("CARGO_BIN_EXE_presil"))
        .arg("chat")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts");
    // A command that refuses its arguments reads nothing.
    let _ = child.stdin.take().expect("piped").write_all(input.as_bytes());
    let out = child.wait_with_output().expect("it ends");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    Ran { code: out.status.code().unwrap_or(-1), out: text(out.stdout), err: text(out.stderr) }
}

/// Everything that counts cycles, bytes or time.
const COUNTS: [&str; 9] =
    ["time", "cycles", "dram", "commands", "ops", "energy", "firmware", "digest", "workload"];

#[test]
fn given_tokens_are_scored_in_the_same_cycles() {
    let model = written("score-own.gguf", &GOOD);
    let free = run(&model, &["--prompt", PROMPT, "--decode", "6"]);
    let made = ids(&free["output"]["tokens"]);
    assert!(free["output"]["score"].is_null());
    let own = run(&model, &["--prompt", PROMPT, "--logits-of", &listed(&made)]);
    for key in COUNTS {
        assert_eq!(own[key], free[key], "{key}");
    }
    assert_eq!(own["output"]["logprobs"], free["output"]["logprobs"]);
    assert_eq!(ids(&own["output"]["score"]["chosen"]), made);
    // Other tokens: what was chosen before the first difference is the same, the rest follows the given ones.
    let mut other = made.clone();
    other[2] = (made[2] + 1) % 272;
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("score-ids.txt");
    std::fs::write(&path, format!("[{}]\n", listed(&other))).expect("a file");
    let scored = run(&model, &["--prompt", PROMPT, "--logits-of", path.to_str().expect("UTF-8")]);
    let (output, logprobs) = (&scored["output"], scored["output"]["logprobs"].as_array().expect("a list"));
    assert_eq!(ids(&output["tokens"]), other);
    assert_eq!(ids(&output["score"]["chosen"])[..3], made[..3]);
    assert_eq!(logprobs[..2], free["output"]["logprobs"].as_array().expect("a list")[..2]);
    assert!(logprobs[2].as_f64() < free["output"]["logprobs"][2].as_f64());
    let sum: f64 = logprobs.iter().map(|l| l.as_f64().expect("a number")).sum();
    let perplexity = output["score"]["perplexity"].as_f64().expect("a number");
    assert!((perplexity - (-sum / 6.0).exp()).abs() < 1e-9 * perplexity, "{perplexity} {sum}");
    // The same from a record, and from the page for people.
    let record = Path::new(env!("CARGO_TARGET_TMPDIR")).join("score-run.json");
    std::fs::write(&record, scored.to_string()).expect("a file");
    let record = record.to_str().expect("UTF-8");
    assert_eq!(run(&model, &["--prompt", PROMPT, "--logits-of", record])["output"], *output);
    let page =
        presil(&["run", "--soc", "tiny", "--model", &model, "--prompt", PROMPT, "--logits-of", record]);
    assert!(page.out.contains("Scored on 6 given tokens") && page.out.contains("Perplexity"), "{}", page.out);
    // Without a prompt, the beginning every text of this file has.
    let bare = run(&model, &["--logits-of", "5,6,7"]);
    assert_eq!(
        (ids(&bare["output"]["prompt_ids"]), ids(&bare["output"]["tokens"])),
        (vec![0], vec![5, 6, 7])
    );
}

#[test]
fn a_run_without_values_takes_the_cycles_of_one_with() {
    let model = written("shapes-own.gguf", &GOOD);
    let computed = run(&model, &["--prompt", PROMPT, "--decode", "9"]);
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("shapes-run.json");
    std::fs::write(&path, computed.to_string()).expect("a file");
    let path = path.to_str().expect("UTF-8");
    let shapes = run(&model, &["--shape-only", "--tokens-from", path]);
    for key in COUNTS {
        assert_eq!(shapes[key], computed[key], "{key}");
    }
    assert!(shapes["output"].is_null());
    // Ids of the prompt alone leave the others to the seed: rows of the embedding lie elsewhere, work is the same.
    let drawn = run(&model, &["--shape-only", "--prompt", PROMPT, "--decode", "9"]);
    assert_eq!(drawn["commands"], computed["commands"]);
    assert!(drawn["output"].is_null());
    // An answer that a token ended.
    let stop = ids(&computed["output"]["tokens"]);
    let ends = written("shapes-ends.gguf", &Flaws { end: u32::try_from(stop[4]).expect("small"), ..GOOD });
    let ended = run(&ends, &["--prompt", PROMPT, "--decode", "9", "--stop-at-eos"]);
    let made = ids(&ended["output"]["tokens"]);
    assert!(made.len() <= 5 && made.last() == Some(&stop[4]), "{made:?}");
    assert_eq!(ended["output"]["limit"], 9);
    std::fs::write(path, ended.to_string()).expect("a file");
    let shapes = run(&ends, &["--tokens-from", path]);
    for key in COUNTS {
        assert_eq!(shapes[key], ended[key], "stopped: {key}");
    }
}

#[test]
fn a_conversation_reads_only_what_is_new() {
    let model = written("chat-own.gguf", &Flaws { template: Some(TEMPLATE), ..GOOD });
    let arguments = ["--soc", "tiny", "--model", &model, "--most", "5"];
    let turns = json(&chat("the end\n\nand on\n", &[&arguments[..], &["--json"]].concat()));
    let turns = turns["turns"].as_array().expect("turns").clone();
    assert_eq!(turns.len(), 2);
    assert_eq!(turns[0]["reused_tokens"], 0);
    let answers = turns.iter().map(|t| ids(&t["tokens"])).collect::<Vec<_>>();
    let known = turns[1]["reused_tokens"].as_u64().expect("a count");
    let first = turns[0]["read_tokens"].as_u64().expect("a count");
    assert!(known >= first, "the first prompt is resident: {known} {first}");
    assert!(turns.iter().all(|t| t["energy_j"].as_f64() > Some(0.0) && t["ttft_s"].as_f64() > Some(0.0)));
    // What was kept is what would be computed anew: a run of the whole text gives the same answer.
    let text = format!("\nQ:the end\nA:{}<|end|>\nQ:and on\nA:", turns[0]["text"].as_str().expect("text"));
    if !text.contains('\u{FFFD}') {
        let whole = run(&model, &["--prompt", &text, "--decode", "5"]);
        assert_eq!(ids(&whole["output"]["tokens"]), answers[1]);
    }
    let plain = chat("the end\n\nand on\n", &arguments);
    assert_eq!(plain.code, 0, "{}", plain.err);
    assert_eq!(plain.out.matches("J simulated]").count(), 2, "{}", plain.out);
    assert!(!plain.out.contains("> ") && plain.err.is_empty(), "{} {}", plain.out, plain.err);
    let again = chat("the end\n\nand on\n", &arguments);
    assert_eq!(again.out, plain.out);
}

#[test]
fn a_conversation_grows_by_pages_until_there_are_none() {
    let model = written("chat-pages.gguf", &Flaws { template: Some(TEMPLATE), ..GOOD });
    let lines = "the end\nand on\n";
    let talk = |extra: &[&str]| {
        let arguments = [&["--soc", "tiny", "--model", &model, "--most", "5", "--json"], extra].concat();
        json(&chat(lines, &arguments))["turns"].as_array().expect("turns").clone()
    };
    let (usual, small) = (talk(&[]), talk(&["--kv-page", "1"]));
    let count = |turn: &Value, key: &str| turn["kv"][key].as_u64().expect("a count");
    for (a, b) in usual.iter().zip(&small) {
        assert_eq!((&a["tokens"], count(a, "positions")), (&b["tokens"], count(b, "positions")));
        // Two positions of 32 bytes a page; keys and values of two heads in two layers.
        assert_eq!(count(b, "page_bytes"), 64);
        assert_eq!(count(b, "pages_used"), 8 * count(b, "positions").div_ceil(2));
    }
    let (first, second) = (count(&small[0], "positions"), count(&small[1], "positions"));
    assert!(first < second);
    // Room for the first turn and not for the second: its text stays.
    let pool = first.to_string();
    let arguments = ["--soc", "tiny", "--model", &model, "--most", "5", "--kv-page", "1", "--kv-pool", &pool];
    let ended = chat(lines, &arguments);
    assert_eq!(ended.code, 4, "{}", ended.err);
    assert_eq!(ended.out.matches("J simulated]").count(), 1, "{}", ended.out);
    assert!(ended.err.contains("no page of the cache of keys and values is left"), "{}", ended.err);
}

#[test]
fn a_conversation_draws_by_its_seed() {
    let model = written("chat-draws.gguf", &Flaws { template: Some(TEMPLATE), ..GOOD });
    let answers = |extra: &[&str]| {
        let arguments =
            [&["--soc", "tiny", "--model", &model, "--most", "8", "--kv", "int8", "--json"], extra];
        let turns = json(&chat("the end\nand on\n", &arguments.concat()));
        turns["turns"].as_array().expect("turns").iter().map(|t| ids(&t["tokens"])).collect::<Vec<_>>()
    };
    let draws = ["--temperature", "2.5", "--top-p", "0.95", "--seed", "3"];
    let drawn = answers(&draws);
    assert_eq!(drawn, answers(&[&draws[..], &["--set", "npu.cores=4"]].concat()));
    assert_ne!(drawn, answers(&[]));
    assert_ne!(drawn, answers(&["--temperature", "2.5", "--top-p", "0.95", "--seed", "4"]));
    assert_eq!(answers(&["--temperature", "0", "--seed", "3"])[0], answers(&["--seed", "3"])[0]);
}

#[test]
fn what_cannot_be_talked_with_or_scored_says_why() {
    let plain = written("refused-own.gguf", &GOOD);
    let strict = "a\n{{ raise_exception('no such talk') }}";
    let strict = written("refused-strict.gguf", &Flaws { template: Some(strict), ..GOOD });
    let broken = written("refused-broken.gguf", &Flaws { template: Some("a\nb\n{% nosuch %}"), ..GOOD });
    let good = written("refused-good.gguf", &Flaws { template: Some(TEMPLATE), ..GOOD });
    for (arguments, part) in [
        (&["--model", plain.as_str()][..], "tokenizer.chat_template: is missing"),
        (&["--model", "mimo-7b"], "a conversation needs weights"),
        (&["--model", &strict], "line 2: invalid operation: no such talk"),
        (&["--model", &broken], "line 3"),
        (&["--model", &good, "--context", "129"], "the model takes 128"),
        (&["--model", &good, "--context", "4"], "--context holds 4"),
        (&["--model", &good, "--date", "2026-02-30"], "expected a day"),
        (&["--model", &good, "--quant", "w8a8"], "decides how its weights are stored"),
    ] {
        let ran = chat("hello\n", &[&["--soc", "tiny"], arguments].concat());
        assert!(ran.code == 3 && ran.err.contains(part), "{arguments:?}: {} {}", ran.code, ran.err);
    }
    let record = Path::new(env!("CARGO_TARGET_TMPDIR")).join("refused-run.json");
    std::fs::write(&record, r#"{"output": {"tokens": [1, 2, 300], "prompt_ids": [1]}}"#).expect("a file");
    let record = record.to_str().expect("UTF-8");
    for (arguments, part) in [
        (&["--prompt", "x", "--logits-of", "1,x"][..], "token 1: expected token ids"),
        (&["--prompt", "x", "--logits-of", "1,272"], "token 1: expected an id below 272, found 272"),
        (
            &["--prompt", "x", "--logits-of", record],
            "output.tokens: token 2: expected an id below 272, found 300",
        ),
        (&["--prompt", "x", "--logits-of", ""], "expected at least one token"),
        (&["--tokens-from", record], "output.tokens: token 2"),
        (&["--tokens-from", "no/such.json"], "cannot be read"),
    ] {
        let ran = presil(&[&["run", "--soc", "tiny", "--model", &plain], arguments].concat());
        assert!(ran.code == 3 && ran.err.contains(part), "{arguments:?}: {} {}", ran.code, ran.err);
    }
    for arguments in [
        &["--prompt", "x", "--tokens-from", record][..],
        &["--stop-at-eos"],
        &["--logits-of", "1", "--decode", "2"],
    ] {
        let ran = presil(&[&["run", "--model", &plain], arguments].concat());
        assert_eq!(ran.code, 2, "{arguments:?}: {}", ran.err);
    }
}
