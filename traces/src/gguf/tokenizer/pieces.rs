//! SentencePiece vocabularies: tokens, scores and types.
//!
//! Phi 3's special tokens swallow white space behind them; no key says so, only the model's name does.

use super::split::PreTokenizer;
use super::{BYTE, Built, CONTROL, Keys, UNKNOWN, UNUSED, USER_DEFINED, Value, Vocabulary};
use crate::tokenizer::{Engine, Marks, Piece, Pieces, SPACE, rank};
use crate::workload::WorkloadError;

/// Tokens of Phi 3 that leave white space alone.
const PHI_PLAIN: [&str; 3] = ["<unk>", "<s>", "<|endoftext|>"];

/// The engine and bytes of a `llama` vocabulary.
pub(super) fn build(
    keys: &Keys<'_>,
    words: &Vocabulary<'_>,
    _: Option<&PreTokenizer>,
) -> Result<Built, WorkloadError> {
    let phi = is_phi(keys);
    let ranks = ranks(keys, words.tokens.len())?;
    let mut pieces = Pieces {
        known: std::collections::BTreeMap::new(),
        bytes: None,
        unknown: unknown(keys, words)?,
        marks: Marks::default(),
        prefix: keys.flag("tokenizer.ggml.add_space_prefix", true)?,
        squeeze: keys.flag("tokenizer.ggml.remove_extra_whitespaces", false)?,
    };
    let (mut bytes, mut spelled) = ([None; 256], Vec::new());
    for ((id, token, kind), rank) in words.each().zip(ranks) {
        spelled.push(match (kind, byte(token)) {
            (CONTROL | UNKNOWN, _) => Vec::new(),
            (BYTE, Some(b)) => vec![b],
            _ => token.replace(SPACE, " ").into_bytes(),
        });
        match kind {
            BYTE => match byte(token) {
                Some(b) => bytes[usize::from(b)] = Some(id),
                None => {
                    let message = format!("token {id} is a byte, but named `{}`", token.escape_debug());
                    return Err(keys.bad("tokenizer.ggml.tokens", message));
                }
            },
            CONTROL | UNKNOWN => {}
            // What the user defined is found whole, and still comes about with the space put before a text.
            _ => {
                let text = token.replace(' ', "\u{2581}").into_boxed_str();
                pieces.known.entry(text).or_insert(Piece { id, rank, unused: kind == UNUSED });
            }
        }
        if [CONTROL, UNKNOWN, USER_DEFINED].contains(&kind) {
            let strips = phi && kind != UNKNOWN && !PHI_PLAIN.contains(&token);
            pieces.marks.insert(&token.replace(SPACE, " "), id, strips);
        }
    }
    // All or none: a character's bytes must all be there.
    let all: Option<Vec<u32>> = bytes.into_iter().collect();
    pieces.bytes = all.and_then(|all| all.try_into().ok()).map(Box::new);
    if pieces.bytes.is_none() && pieces.unknown.is_none() {
        let message = "has neither tokens of all bytes nor one for what is unknown";
        return Err(keys.bad("tokenizer.ggml.tokens", message));
    }
    Ok(Built { engine: Engine::Pieces(Box::new(pieces)), pieces: spelled, frame: [true, false] })
}

fn is_phi(keys: &Keys<'_>) -> bool {
    let text = |key: &str| match keys.contents.metadata.get(key) {
        Some(Value::Text(text)) => text.to_lowercase(),
        _ => String::new(),
    };
    let name = text("general.name");
    text("general.architecture") == "phi3" || name.contains("phi-3") || name.contains("phi3")
}

/// The byte a token of its own stands for.
fn byte(token: &str) -> Option<u8> {
    let hex = token.strip_prefix("<0x")?.strip_suffix('>')?;
    u8::from_str_radix(hex, 16).ok().filter(|_| hex.len() == 2)
}

fn unknown(keys: &Keys<'_>, words: &Vocabulary<'_>) -> Result<Option<u32>, WorkloadError> {
    let named =
        keys.id("tokenizer.ggml.unknown_token_id", u32::try_from(words.tokens.len()).unwrap_or(u32::MAX))?;
    Ok(named.or_else(|| words.each().find(|(_, _, kind)| *kind == UNKNOWN).map(|(id, _, _)| id)))
}

/// The scores, as ranks.
fn ranks(keys: &Keys<'_>, count: usize) -> Result<Vec<i32>, WorkloadError> {
    let key = "tokenizer.ggml.scores";
    let Some(Value::Array(values)) = keys.contents.metadata.get(key) else {
        return Err(keys.bad(key, "expected a list of numbers"));
    };
    if values.len() != count {
        return Err(keys.bad(key, format!("{} scores for {count} tokens", values.len())));
    }
    let score = |value: &Value| match value {
        Value::Float(score) => rank(*score),
        #[allow(clippy::cast_precision_loss, reason = "whole scores are few thousands")]
        Value::Signed(score) => rank(*score as f64),
        _ => None,
    };
    values.iter().map(|v| score(v).ok_or_else(|| keys.bad(key, "expected a list of numbers"))).collect()
}
