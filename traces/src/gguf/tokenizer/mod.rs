//! The tokenizer a GGUF file carries.
//!
//! Models: byte-level BPE (`gpt2`), pieces merged by score (`llama`), WordPiece (`bert`); special tokens in the text, tokens
//! around it. Does not model: unigram models (`t5`), RWKV's, and what else there is.
//! Source: the GGUF specification's tokenizer keys, their defaults as ggml's loader has them.

mod bytes;
mod pieces;
mod split;
#[cfg(test)]
mod tests;
mod words;

use std::collections::BTreeSet;

use super::reader::{Contents, Value};
use crate::tokenizer::{Engine, Frame, Tokenizer};
use crate::workload::{WorkloadError, WorkloadProblem};

/// Token types of the specification.
const NORMAL: u64 = 1;
const UNKNOWN: u64 = 2;
const CONTROL: u64 = 3;
const USER_DEFINED: u64 = 4;
const UNUSED: u64 = 5;
const BYTE: u64 = 6;

/// Names of control tokens that end a turn, whether or not the metadata says so.
const TURN_ENDS: [&str; 9] = [
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|eot|>",
    "<|end|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<end_of_turn>",
    "<EOT>",
];

struct Keys<'a> {
    contents: &'a Contents,
    place: &'a str,
}

impl<'a> Keys<'a> {
    fn bad(&self, key: &str, message: impl Into<String>) -> WorkloadError {
        WorkloadProblem::new(self.contents.place_of(self.place, key), key, message).into()
    }

    fn text(&self, key: &str) -> Result<&'a str, WorkloadError> {
        match self.contents.metadata.get(key) {
            Some(Value::Text(text)) => Ok(text),
            Some(_) => Err(self.bad(key, "expected text")),
            None => Err(self.bad(key, "is missing")),
        }
    }

    fn texts(&self, key: &str) -> Result<Vec<&'a str>, WorkloadError> {
        let Some(Value::Array(values)) = self.contents.metadata.get(key) else {
            return Err(self.bad(key, "expected a list of texts"));
        };
        let text = |v: &'a Value| if let Value::Text(t) = v { Some(t.as_str()) } else { None };
        values.iter().map(|v| text(v).ok_or_else(|| self.bad(key, "expected a list of texts"))).collect()
    }

    /// A truth value; `default` where there is none.
    fn flag(&self, key: &str, default: bool) -> Result<bool, WorkloadError> {
        match self.contents.metadata.get(key) {
            None => Ok(default),
            Some(Value::Bool(b)) => Ok(*b),
            Some(_) => Err(self.bad(key, "expected true or false")),
        }
    }

    fn id(&self, key: &str, vocab: u32) -> Result<Option<u32>, WorkloadError> {
        let Some(value) = self.contents.metadata.get(key) else { return Ok(None) };
        match value.unsigned().and_then(|id| u32::try_from(id).ok()).filter(|id| *id < vocab) {
            Some(id) => Ok(Some(id)),
            None => Err(self.bad(key, format!("expected a token below {vocab}"))),
        }
    }

    /// The first of some keys that is there.
    fn first_id(&self, keys: &[&str], vocab: u32) -> Result<Option<u32>, WorkloadError> {
        for key in keys {
            if let Some(id) = self.id(&format!("tokenizer.ggml.{key}"), vocab)? {
                return Ok(Some(id));
            }
        }
        Ok(None)
    }
}

/// The vocabulary: texts, and what kind each is of.
struct Vocabulary<'a> {
    tokens: Vec<&'a str>,
    types: Vec<u64>,
}

impl<'a> Vocabulary<'a> {
    fn read(keys: &Keys<'a>, vocab: u32) -> Result<Self, WorkloadError> {
        let key = "tokenizer.ggml.tokens";
        let tokens = keys.texts(key)?;
        if tokens.len() as u64 != u64::from(vocab) {
            let message = format!("{} tokens, but the embedding has {vocab} rows", tokens.len());
            return Err(keys.bad(key, message));
        }
        let mut seen = BTreeSet::new();
        if let Some((id, twice)) = tokens.iter().enumerate().find(|(_, t)| !seen.insert(**t)) {
            let message = format!("token {id} `{}` is there twice", twice.escape_debug());
            return Err(keys.bad(key, message));
        }
        let types = types(keys, tokens.len())?;
        Ok(Self { tokens, types })
    }

    /// Id, text and type of each.
    fn each(&self) -> impl Iterator<Item = (u32, &'a str, u64)> {
        (0u32..).zip(self.tokens.iter().zip(&self.types)).map(|(id, (token, kind))| (id, *token, *kind))
    }

    /// The token of that text.
    fn named(&self, text: &str) -> Option<u32> {
        self.each().find(|(_, token, _)| *token == text).map(|(id, _, _)| id)
    }

    /// Tokens that are found in the text as they are, as the library wants them.
    fn added(&self) -> Vec<serde_json::Value> {
        let marks = self.each().filter(|(_, _, kind)| [CONTROL, USER_DEFINED].contains(kind));
        let described = marks.map(|(id, token, kind)| {
            serde_json::json!({
                "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": kind == CONTROL,
            })
        });
        described.collect()
    }
}

/// What a kind of tokenizer comes to.
struct Built {
    engine: Engine,
    /// Bytes of every token.
    pieces: Vec<Vec<u8>>,
    /// Whether texts begin and end with a token unless the file says otherwise.
    frame: [bool; 2],
}

/// The tokenizer described by `metadata` for a vocabulary of `vocab` tokens.
///
/// # Errors
/// If its kind is not known, or it contradicts itself or the vocabulary.
pub(super) fn tokenizer(contents: &Contents, vocab: u32, place: &str) -> Result<Tokenizer, WorkloadError> {
    let keys = Keys { contents, place };
    let kind = keys.text("tokenizer.ggml.model")?;
    let build = match kind {
        "gpt2" => bytes::build,
        "llama" => pieces::build,
        "bert" => words::build,
        _ => {
            let message = format!("expected `gpt2`, `llama` or `bert`, found `{kind}`");
            return Err(keys.bad("tokenizer.ggml.model", message));
        }
    };
    let pre = if kind == "gpt2" { Some(split::named(&keys)?) } else { None };
    let words = Vocabulary::read(&keys, vocab)?;
    let Built { engine, pieces, frame } = build(&keys, &words, pre)?;
    let (mut begin, mut end) =
        (keys.first_id(&["bos_token_id"], vocab)?, keys.first_id(&["eos_token_id"], vocab)?);
    if kind == "bert" {
        // The specification spells it so.
        let (class, separator) = (["cls_token_id"], ["seperator_token_id", "separator_token_id"]);
        begin = begin.or(keys.first_id(&class, vocab)?).or_else(|| words.named("[CLS]"));
        end = keys.first_id(&separator, vocab)?.or_else(|| words.named("[SEP]")).or(end);
    }
    let mut ends =
        vec![end, keys.first_id(&["eot_token_id"], vocab)?, keys.first_id(&["eom_token_id"], vocab)?];
    let turns = words.each().filter(|(_, token, kind)| *kind == CONTROL && TURN_ENDS.contains(token));
    ends.extend(turns.map(|(id, _, _)| Some(id)));
    let around = |asked: bool, id: Option<u32>, name: &str, what: &str| {
        let message = format!("is missing, but every text is to {what} with it");
        if asked { id.map(Some).ok_or_else(|| keys.bad(name, message)) } else { Ok(None) }
    };
    let starts = keys.flag("tokenizer.ggml.add_bos_token", frame[0])? || kind == "bert";
    let stops = keys.flag("tokenizer.ggml.add_eos_token", frame[1])? || kind == "bert";
    let frame = Frame::Tokens([
        around(starts, begin, "tokenizer.ggml.bos_token_id", "start")?,
        around(stops, end, "tokenizer.ggml.eos_token_id", "end")?,
    ]);
    let text = |id: Option<u32>| {
        let token = id.and_then(|id| words.tokens.get(usize::try_from(id).ok()?));
        token.map(|t| (*t).to_owned()).unwrap_or_default()
    };
    let names = [text(begin), text(end)];
    Ok(Tokenizer::new(engine, pieces, frame, ends.into_iter().flatten(), names))
}

/// Type of every token; plain where the file does not say.
fn types(keys: &Keys<'_>, count: usize) -> Result<Vec<u64>, WorkloadError> {
    let key = "tokenizer.ggml.token_type";
    let types: Vec<u64> = match keys.contents.metadata.get(key) {
        None => vec![NORMAL; count],
        Some(Value::Array(values)) => values.iter().map(|v| v.unsigned().unwrap_or(0)).collect(),
        Some(_) => return Err(keys.bad(key, "expected a list")),
    };
    if types.len() != count {
        return Err(keys.bad(key, format!("{} types for {count} tokens", types.len())));
    }
    Ok(types)
}
