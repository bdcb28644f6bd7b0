//! The tokenizer of a Hugging Face folder: `tokenizer.json`, and what its neighbours say about special tokens.
//!
//! Models: whatever the `tokenizers` library reads; bytes of tokens for byte-level and sentencepiece-style decoders.
//! Does not model: other decoders when text streams (their tokens' own text is written).
//! Source: the layout of `tokenizer.json`, `tokenizer_config.json` and `generation_config.json` as Hugging Face writes.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Engine, Frame, Tokenizer, byte_of};
use crate::workload::{WorkloadError, WorkloadProblem};

/// How a token's text stands for bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Spelling {
    /// A character a byte.
    Bytes,
    /// Text with a visible space, bytes as `<0x0A>`.
    Pieces,
}

/// The tokenizer `text` describes, for a vocabulary of `vocab` tokens; `config` and `generation` may add tokens that end
/// a text.
///
/// # Errors
/// If the library does not take it, or it has more tokens than the vocabulary.
pub(crate) fn from_json(
    text: &[u8],
    [config, generation]: [Option<&Value>; 2],
    vocab: u32,
    place: &str,
) -> Result<Tokenizer, WorkloadError> {
    let bad = |key: &str, message: String| WorkloadError::from(WorkloadProblem::new(place, key, message));
    let mut inner =
        tokenizers::Tokenizer::from_bytes(text).map_err(|e| bad("", format!("does not build: {e}")))?;
    // One text at a time: padding would be computed like tokens, and a text that is too long is refused, not cut.
    inner.with_padding(None);
    inner.with_truncation(None).map_err(|e| bad("truncation", e.to_string()))?;
    let document: Value =
        serde_json::from_slice(text).map_err(|e| bad("", format!("not valid JSON: {e}")))?;
    let tokens = inner.get_vocab(true);
    let most = tokens.values().copied().max().unwrap_or(0);
    if most >= vocab {
        let message = format!("has token {most}, but the embedding has {vocab} rows");
        return Err(bad("model.vocab", message));
    }
    let spelling = if has_byte_level(&document["decoder"]) { Spelling::Bytes } else { Spelling::Pieces };
    let added = document["added_tokens"].as_array().cloned().unwrap_or_default();
    let special: BTreeSet<u32> =
        added.iter().filter(|t| t["special"] == Value::Bool(true)).filter_map(|t| id(&t["id"])).collect();
    let known: BTreeSet<u32> = added.iter().filter_map(|t| id(&t["id"])).collect();
    let pieces = (0..vocab).map(|i| match inner.id_to_token(i) {
        None => Vec::new(),
        Some(_) if special.contains(&i) => Vec::new(),
        Some(token) if known.contains(&i) => token.into_bytes(),
        Some(token) => piece(&token, spelling),
    });
    let pieces = pieces.collect();
    let named = |key: &str| config.and_then(|c| name(&c[key])).unwrap_or_default();
    let begin_end = [named("bos_token"), named("eos_token")];
    let mut ends: Vec<u32> = inner.token_to_id(&begin_end[1]).into_iter().collect();
    match generation.map(|g| &g["eos_token_id"]) {
        Some(Value::Array(ids)) => ends.extend(ids.iter().filter_map(id)),
        Some(one) => ends.extend(id(one)),
        None => {}
    }
    ends.retain(|id| *id < vocab);
    let engine = Engine::Library(Box::new(inner));
    Ok(Tokenizer::new(engine, pieces, Frame::Library, ends.into_iter(), begin_end))
}

fn id(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|n| u32::try_from(n).ok())
}

/// A special token's text: itself, or the `content` of an object.
fn name(value: &Value) -> Option<String> {
    value.as_str().or_else(|| value["content"].as_str()).map(str::to_owned)
}

fn has_byte_level(decoder: &Value) -> bool {
    decoder["type"] == "ByteLevel"
        || decoder["decoders"].as_array().is_some_and(|all| all.iter().any(|d| d["type"] == "ByteLevel"))
}

fn piece(token: &str, spelling: Spelling) -> Vec<u8> {
    match spelling {
        Spelling::Bytes => {
            token.chars().map(byte_of).collect::<Option<_>>().unwrap_or_else(|| token.as_bytes().to_vec())
        }
        Spelling::Pieces => {
            let hex = token.strip_prefix("<0x").and_then(|t| t.strip_suffix('>'));
            match hex.and_then(|h| u8::from_str_radix(h, 16).ok()) {
                Some(byte) => vec![byte],
                None => token.replace('\u{2581}', " ").into_bytes(),
            }
        }
    }
}
