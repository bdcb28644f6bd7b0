//! Byte-level BPE: tokens and merges, a rule that splits text before.

use serde_json::{Map, json};

use super::split::PreTokenizer;
use super::{Built, CONTROL, Keys, USER_DEFINED, Vocabulary};
use crate::tokenizer::{Engine, byte_of};
use crate::workload::WorkloadError;

/// The engine and bytes of a `gpt2` vocabulary.
pub(super) fn build(
    keys: &Keys<'_>,
    words: &Vocabulary<'_>,
    pre: Option<&PreTokenizer>,
) -> Result<Built, WorkloadError> {
    let pre = pre.ok_or_else(|| keys.bad("tokenizer.ggml.pre", "is missing"))?;
    let vocab: Map<String, serde_json::Value> =
        words.each().map(|(id, token, _)| (token.to_owned(), json!(id))).collect();
    let mut merges = Vec::new();
    for (i, merge) in keys.texts("tokenizer.ggml.merges")?.into_iter().enumerate() {
        let parts = merge.split_once(' ').filter(|(a, b)| {
            !a.is_empty()
                && vocab.contains_key(*a)
                && vocab.contains_key(*b)
                && vocab.contains_key(&format!("{a}{b}"))
        });
        let Some((a, b)) = parts else {
            let message = format!("merge {i} `{}` is not of tokens that are there", merge.escape_debug());
            return Err(keys.bad("tokenizer.ggml.merges", message));
        };
        merges.push(json!([a, b]));
    }
    let document = json!({
        "version": "1.0",
        "added_tokens": words.added(),
        "normalizer": if pre.composed { json!({"type": "NFC"}) } else { json!(null) },
        "pre_tokenizer": pre.steps(),
        "model": {
            "type": "BPE", "vocab": vocab, "merges": merges, "ignore_merges": pre.ignore_merges,
            "byte_fallback": false, "fuse_unk": false,
        },
    });
    let inner = serde_json::from_value(document)
        .map_err(|e| keys.bad("tokenizer.ggml", format!("does not build: {e}")))?;
    let pieces = words.each().map(|(_, token, kind)| piece(token, kind)).collect();
    Ok(Built { engine: Engine::Library(Box::new(inner)), pieces, frame: [pre.begins, false] })
}

fn piece(token: &str, kind: u64) -> Vec<u8> {
    match kind {
        CONTROL => Vec::new(),
        USER_DEFINED => token.as_bytes().to_vec(),
        _ => token.chars().map(byte_of).collect::<Option<_>>().unwrap_or_else(|| token.as_bytes().to_vec()),
    }
}
