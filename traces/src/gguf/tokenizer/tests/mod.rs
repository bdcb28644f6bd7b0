//! Vocabularies against plain readings of the published procedures, on random texts.

mod pieces;
mod split;
mod words;

use std::collections::BTreeMap;

use sim_kernel::Stream;

use super::super::reader::{Contents, Value};
use super::tokenizer;
use crate::tokenizer::Tokenizer;

/// A vocabulary: text, score, type.
type Words = Vec<(String, f32, u64)>;

fn contents(meta: Vec<(&str, Value)>) -> Contents {
    let metadata: BTreeMap<String, Value> =
        meta.into_iter().map(|(k, v)| (format!("tokenizer.ggml.{k}"), v)).collect();
    Contents { metadata, tensors: BTreeMap::new(), described_at: BTreeMap::new() }
}

fn texts<T: ToString>(all: impl IntoIterator<Item = T>) -> Value {
    Value::Array(all.into_iter().map(|t| Value::Text(t.to_string())).collect())
}

fn described(model: &str, words: &Words, more: Vec<(&str, Value)>) -> Contents {
    let mut meta = vec![
        ("model", Value::Text(model.to_owned())),
        ("tokens", texts(words.iter().map(|w| &w.0))),
        ("scores", Value::Array(words.iter().map(|w| Value::Float(f64::from(w.1))).collect())),
        ("token_type", Value::Array(words.iter().map(|w| Value::Unsigned(w.2)).collect())),
    ];
    meta.extend(more);
    contents(meta)
}

fn read(contents: &Contents) -> Result<Tokenizer, String> {
    let count = match contents.metadata.get("tokenizer.ggml.tokens") {
        Some(Value::Array(all)) => u32::try_from(all.len()).expect("few"),
        _ => 0,
    };
    tokenizer(contents, count, "file").map_err(|e| e.to_string())
}

fn id_of(words: &Words, text: &str) -> Option<u32> {
    words.iter().position(|w| w.0 == text).map(|i| u32::try_from(i).expect("few"))
}

fn below(random: &mut Stream, most: usize) -> usize {
    usize::try_from(random.below(most as u64)).expect("small")
}

/// Some of these, one after the other.
fn strung(random: &mut Stream, letters: &[&str], most: usize) -> String {
    let count = below(random, most + 1);
    (0..count).map(|_| letters[below(random, letters.len())]).collect()
}

#[test]
fn an_unknown_kind_is_refused_with_the_known_ones() {
    let words = vec![("a".to_owned(), 0.0, 1)];
    let error = read(&described("rwkv", &words, vec![])).expect_err("unknown");
    assert!(error.contains("expected `gpt2`, `llama` or `bert`, found `rwkv`"), "{error}");
}
