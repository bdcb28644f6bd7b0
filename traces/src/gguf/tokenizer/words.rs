//! WordPiece vocabularies, where the file marks the beginnings of words instead of what goes on.

use serde_json::{Map, json};

use super::split::PreTokenizer;
use super::{Built, CONTROL, Keys, UNKNOWN, UNUSED, USER_DEFINED, Vocabulary};
use crate::tokenizer::{Engine, SPACE};
use crate::workload::WorkloadError;

/// Longest word, in characters, as BERT's tokenizer in Hugging Face tokenizers has it.
const LONGEST: u32 = 100;

/// The engine and bytes of a `bert` vocabulary.
pub(super) fn build(
    keys: &Keys<'_>,
    words: &Vocabulary<'_>,
    _: Option<&PreTokenizer>,
) -> Result<Built, WorkloadError> {
    let count = u32::try_from(words.tokens.len()).unwrap_or(u32::MAX);
    let unknown = keys.id("tokenizer.ggml.unknown_token_id", count)?.or_else(|| words.named("[UNK]"));
    let unknown = unknown.ok_or_else(|| keys.bad("tokenizer.ggml.unknown_token_id", "is missing"))?;
    let (mut vocab, mut pieces, mut unknown_name) = (Map::new(), Vec::new(), String::new());
    for (id, token, kind) in words.each() {
        let whole = [CONTROL, UNKNOWN, USER_DEFINED, UNUSED].contains(&kind) || id == unknown;
        let name = match token.strip_prefix(SPACE) {
            _ if whole => token.to_owned(),
            Some(word) => word.to_owned(),
            None => format!("##{token}"),
        };
        pieces.push(match kind {
            CONTROL | UNKNOWN => Vec::new(),
            _ => token.replace(SPACE, " ").into_bytes(),
        });
        if id == unknown {
            unknown_name.clone_from(&name);
        }
        if vocab.insert(name.clone(), json!(id)).is_some() {
            let message = format!("token {id} `{}` means the same as another", token.escape_debug());
            return Err(keys.bad("tokenizer.ggml.tokens", message));
        }
    }
    let lower = keys.flag("tokenizer.ggml.normalizer.lowercase", true)?;
    let accents = keys.flag("tokenizer.ggml.normalizer.strip_accents", lower)?;
    let document = json!({
        "version": "1.0",
        "added_tokens": words.added(),
        "normalizer": {
            "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
            "strip_accents": accents, "lowercase": lower,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "model": {
            "type": "WordPiece", "vocab": vocab, "unk_token": unknown_name, "continuing_subword_prefix": "##",
            "max_input_chars_per_word": LONGEST,
        },
    });
    let inner = serde_json::from_value(document)
        .map_err(|e| keys.bad("tokenizer.ggml", format!("does not build: {e}")))?;
    Ok(Built { engine: Engine::Library(Box::new(inner)), pieces, frame: [true, true] })
}
