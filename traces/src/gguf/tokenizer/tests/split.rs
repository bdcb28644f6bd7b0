//! Rules that split text before byte-level BPE, by examples worked out by hand.

use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer as _, PreTokenizerWrapper};

use super::super::super::reader::Value;
use super::super::Keys;
use super::super::split::{PreTokenizer, named, names};
use super::{contents, read, texts};
use crate::tokenizer::byte_of;

fn with_row<T>(name: &str, told: impl FnOnce(Result<&'static PreTokenizer, String>) -> T) -> T {
    let contents = contents(vec![("pre", Value::Text(name.to_owned()))]);
    told(named(&Keys { contents: &contents, place: "file" }).map_err(|e| e.to_string()))
}

fn splits(name: &str, text: &str) -> Vec<String> {
    let steps = with_row(name, |row| row.expect("a row").steps());
    let steps: PreTokenizerWrapper = serde_json::from_value(steps).expect("steps the library takes");
    let mut split = PreTokenizedString::from(text);
    steps.pre_tokenize(&mut split).expect("a text");
    let parts = split.get_splits(OffsetReferential::Original, OffsetType::Byte);
    parts.into_iter().map(|(_, (from, to), _)| text[from..to].to_owned()).collect()
}

#[test]
fn every_rule_splits_as_worked_out_by_hand() {
    let gpt_2 = ("I've 123 cats!!  ok\n", &["I", "'ve", " 123", " cats", "!!", " ", " ok", "\n"][..]);
    let digits = ("I've 123!", &["I", "'ve", " ", "1", "2", "3", "!"][..]);
    let llama =
        ("I'VE 12345 cats!\n\n  ok", &["I", "'VE", " ", "123", "45", " cats", "!\n\n", " ", " ok"][..]);
    let qwen = ("We'LL 12 n\u{303}o\r\n", &["We", "'LL", " ", "1", "2", " n", "\u{303}o", "\r\n"][..]);
    let bloom = ("Hi there, (you)! 12", &["Hi", " there", ", (", "you", ")!", " 12"][..]);
    for (names, (text, expected)) in [
        (&["gpt-2", "phi-2", "mpt", "olmo", "exaone4"][..], gpt_2),
        (&["smollm", "starcoder", "refact", "command-r", "codeshell", "minerva-7b"], digits),
        (&["llama-bpe", "llama3", "dbrx", "smaug-bpe", "glm4", "falcon3", "pixtral"], llama),
        (&["qwen2", "stablelm2", "deepseek-r1-qwen", "hunyuan"], qwen),
        (&["qwen35"], ("We'LL 12 n\u{303}o", &["We", "'LL", " ", "1", "2", " n\u{303}o"])),
        (&["seed-coder"], ("a!\n\n12 b", &["a", "!", "\n\n", "1", "2", " b"])),
        (
            &["tekken"],
            (
                "HTTPServer iPhone's ABC 12/\n",
                &["HTTPServer", " i", "Phone", "'s", " ABC", " ", "1", "2", "/\n"],
            ),
        ),
        (
            &["gpt-4o", "llama4"],
            (
                "HTTPServer iPhone's ABC'S 1234/\n",
                &["HTTPServer", " i", "Phone's", " ABC'S", " ", "123", "4", "/\n"],
            ),
        ),
        (
            &["falcon"],
            ("a-b 12345 <x> it's", &["a", "-", "b", " ", "123", "45", " ", "<", "x", ">", " it", "'", "s"]),
        ),
        (
            &["deepseek-llm"],
            ("Hi  there, 12\nok中文 ", &["Hi", " ", " there", ",", " ", "1", "2", "\n", "ok", "中文", " "]),
        ),
        // The published signs have `:-~`, so plain letters too; what lies below Chinese has the ellipsis.
        (&["deepseek-llm"], ("Été ѣ\u{561}…\u{3002}", &["É", "t", "é", " ѣ", "\u{561}", "…", "\u{3002}"])),
        (&["deepseek-coder"], ("Hi, 12\n中文 ", &["Hi", ",", " ", "1", "2", "\n", "中文", " "])),
        (&["deepseek-v3"], ("x.map 12345 中文か!\n", &["x", ".map", " ", "123", "45", " ", "中文か", "!\n"])),
        (&["bloom", "poro-chat"], bloom),
        (&["viking"], ("Hi, 12", &["Hi", ",", " ", "1", "2"])),
    ] {
        for name in names {
            assert_eq!(splits(name, text), expected, "{name}: {text:?}");
        }
    }
}

#[test]
fn every_name_builds_and_only_some_compose() {
    let letters: Vec<String> = (0..=0x143u32)
        .filter_map(char::from_u32)
        .filter(|c| byte_of(*c).is_some())
        .map(|c| c.to_string())
        .collect();
    assert_eq!(letters.len(), 256);
    for name in names() {
        let described = contents(vec![
            ("model", Value::Text("gpt2".to_owned())),
            ("pre", Value::Text(name.to_owned())),
            ("tokens", texts(&letters)),
            ("merges", texts::<String>([])),
            ("bos_token_id", Value::Unsigned(0)),
        ]);
        let tokenizer = read(&described).expect(name);
        let [apart, whole] = ["e\u{301} 7", "\u{e9} 7"].map(|text| tokenizer.encode(text).expect(name));
        let composes =
            ["mpt", "olmo", "command-r", "qwen2", "deepseek-r1-qwen", "megrez", "stablelm2", "qwen35"];
        assert_eq!(apart == whole, composes.contains(&name), "{name}");
        let begins = ["llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral", "tekken"].contains(&name);
        assert_eq!(whole.len() == 5, begins, "{name}: {whole:?}");
        assert_eq!(tokenizer.decode(&apart[apart.len() - 2..]), " 7");
    }
}

#[test]
fn an_unknown_rule_names_the_nearest() {
    with_row("llama-bpm", |row| {
        let error = row.expect_err("unknown");
        assert!(
            error.contains("no pre-tokenizer `llama-bpm`") && error.contains("did you mean `llama-bpe`?"),
            "{error}"
        );
    });
}
