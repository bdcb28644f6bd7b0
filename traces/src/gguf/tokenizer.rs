//! The tokenizer a GGUF file carries: text to token ids and back.
//!
//! Models: byte-level BPE from tokens and merges, pre-tokenizers by name (one row each), special tokens in the text.
//! Does not model: sentencepiece and WordPiece vocabularies, chat templates.
//! Source: the GGUF specification's tokenizer keys; each row's splitting rule as its model family publishes it.

use std::collections::BTreeMap;

use serde_json::{Map, json};

use super::reader::Value;
use crate::workload::{WorkloadError, WorkloadProblem};

/// Token types of the specification.
const CONTROL: u64 = 3;
const USER_DEFINED: u64 = 4;

/// How a family splits text before BPE.
struct PreTokenizer {
    name: &'static str,
    /// The splitting rule; without one, the rule of GPT-2.
    split: Option<&'static str>,
    /// Whether digits are split off one by one before it.
    digits: bool,
    /// Whether text is brought into composed form first.
    composed: bool,
    /// Whether a whole word that is a token is taken before merges are tried.
    ignore_merges: bool,
}

const LLAMA_3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN_2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

const PRE_TOKENIZERS: &[PreTokenizer] = &[
    PreTokenizer { name: "gpt-2", split: None, digits: false, composed: false, ignore_merges: false },
    PreTokenizer { name: "smollm", split: None, digits: true, composed: false, ignore_merges: false },
    PreTokenizer {
        name: "llama-bpe",
        split: Some(LLAMA_3),
        digits: false,
        composed: false,
        ignore_merges: true,
    },
    PreTokenizer { name: "qwen2", split: Some(QWEN_2), digits: false, composed: true, ignore_merges: false },
];

impl PreTokenizer {
    fn steps(&self) -> serde_json::Value {
        let mut steps = Vec::new();
        if self.digits {
            steps.push(json!({"type": "Digits", "individual_digits": true}));
        }
        if let Some(rule) = self.split {
            let pattern = json!({"Regex": rule});
            steps.push(json!({"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": false}));
        }
        steps.push(json!({
            "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": self.split.is_none(),
        }));
        json!({"type": "Sequence", "pretokenizers": steps})
    }
}

/// A tokenizer.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// Bytes of every token.
    pieces: Vec<Vec<u8>>,
    start: Option<u32>,
}

struct Keys<'a> {
    metadata: &'a BTreeMap<String, Value>,
    place: &'a str,
}

impl<'a> Keys<'a> {
    fn bad(&self, key: &str, message: impl Into<String>) -> WorkloadError {
        WorkloadProblem::new(self.place, key, message).into()
    }

    fn text(&self, key: &str) -> Result<&'a str, WorkloadError> {
        match self.metadata.get(key) {
            Some(Value::Text(text)) => Ok(text),
            Some(_) => Err(self.bad(key, "expected text")),
            None => Err(self.bad(key, "is missing")),
        }
    }

    fn texts(&self, key: &str) -> Result<Vec<&'a str>, WorkloadError> {
        let Some(Value::Array(values)) = self.metadata.get(key) else {
            return Err(self.bad(key, "expected a list of texts"));
        };
        let text = |v: &'a Value| if let Value::Text(t) = v { Some(t.as_str()) } else { None };
        values.iter().map(|v| text(v).ok_or_else(|| self.bad(key, "expected a list of texts"))).collect()
    }
}

impl Tokenizer {
    /// The tokenizer described by `metadata` for a vocabulary of `vocab` tokens; `place` names the file.
    ///
    /// # Errors
    /// If its kind is not known, or it contradicts itself or the vocabulary.
    pub fn new(metadata: &BTreeMap<String, Value>, vocab: u32, place: &str) -> Result<Self, WorkloadError> {
        let keys = Keys { metadata, place };
        let kind = keys.text("tokenizer.ggml.model")?;
        if kind != "gpt2" {
            return Err(keys.bad("tokenizer.ggml.model", format!("expected `gpt2`, found `{kind}`")));
        }
        let name = keys.text("tokenizer.ggml.pre")?;
        let Some(pre) = PRE_TOKENIZERS.iter().find(|p| p.name == name) else {
            let known: Vec<&str> = PRE_TOKENIZERS.iter().map(|p| p.name).collect();
            let message = format!("no pre-tokenizer `{name}`, expected one of {}", known.join(", "));
            return Err(keys.bad("tokenizer.ggml.pre", message));
        };
        let tokens = keys.texts("tokenizer.ggml.tokens")?;
        if tokens.len() as u64 != u64::from(vocab) {
            let message = format!("{} tokens, but the embedding has {vocab} rows", tokens.len());
            return Err(keys.bad("tokenizer.ggml.tokens", message));
        }
        let types = types(&keys, tokens.len())?;
        let inner = build(&keys, pre, &tokens, &types)?;
        let pieces = tokens.iter().zip(&types).map(|(token, kind)| piece(token, *kind)).collect();
        Ok(Self { inner, pieces, start: start(&keys, vocab)? })
    }

    /// Ids of a text, special tokens in it recognised; a beginning only if the file asks for one.
    ///
    /// # Errors
    /// If the library refuses the text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, WorkloadError> {
        let encoded = self
            .inner
            .encode_fast(text, false)
            .map_err(|e| WorkloadProblem::new("--prompt", "", format!("cannot be tokenised: {e}")))?;
        Ok(self.start.into_iter().chain(encoded.get_ids().iter().copied()).collect())
    }

    /// Bytes a token stands for; none for control tokens. A character may be spread over several tokens.
    #[must_use]
    pub fn bytes(&self, token: u32) -> &[u8] {
        usize::try_from(token).ok().and_then(|i| self.pieces.get(i)).map_or(&[], Vec::as_slice)
    }

    /// Text of tokens; bytes that are no UTF-8 are replaced.
    #[must_use]
    pub fn decode(&self, tokens: &[u32]) -> String {
        let bytes: Vec<u8> = tokens.iter().flat_map(|t| self.bytes(*t)).copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// Type of every token; plain where the file does not say.
fn types(keys: &Keys, count: usize) -> Result<Vec<u64>, WorkloadError> {
    let key = "tokenizer.ggml.token_type";
    let types: Vec<u64> = match keys.metadata.get(key) {
        None => vec![1; count],
        Some(Value::Array(values)) => values.iter().map(|v| v.unsigned().unwrap_or(0)).collect(),
        Some(_) => return Err(keys.bad(key, "expected a list")),
    };
    if types.len() != count {
        return Err(keys.bad(key, format!("{} types for {count} tokens", types.len())));
    }
    Ok(types)
}

/// The token every text starts with.
fn start(keys: &Keys, vocab: u32) -> Result<Option<u32>, WorkloadError> {
    if keys.metadata.get("tokenizer.ggml.add_bos_token") != Some(&Value::Bool(true)) {
        return Ok(None);
    }
    let key = "tokenizer.ggml.bos_token_id";
    let id = keys.metadata.get(key).and_then(Value::unsigned).and_then(|id| u32::try_from(id).ok());
    match id.filter(|id| *id < vocab) {
        Some(id) => Ok(Some(id)),
        None => Err(keys.bad(key, format!("expected a token below {vocab}"))),
    }
}

fn build(
    keys: &Keys,
    pre: &PreTokenizer,
    tokens: &[&str],
    types: &[u64],
) -> Result<tokenizers::Tokenizer, WorkloadError> {
    let mut vocab = Map::new();
    for (id, token) in tokens.iter().enumerate() {
        if vocab.insert((*token).to_owned(), json!(id)).is_some() {
            let message = format!("token {id} `{}` is there twice", token.escape_debug());
            return Err(keys.bad("tokenizer.ggml.tokens", message));
        }
    }
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
    let added =
        tokens.iter().zip(types).enumerate().filter(|(_, (_, t))| [CONTROL, USER_DEFINED].contains(t));
    let added: Vec<serde_json::Value> = added
        .map(|(id, (token, kind))| {
            json!({
                "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": *kind == CONTROL,
            })
        })
        .collect();
    let document = json!({
        "version": "1.0",
        "added_tokens": added,
        "normalizer": if pre.composed { json!({"type": "NFC"}) } else { json!(null) },
        "pre_tokenizer": pre.steps(),
        "model": {
            "type": "BPE", "vocab": vocab, "merges": merges, "ignore_merges": pre.ignore_merges,
            "byte_fallback": false, "fuse_unk": false,
        },
    });
    serde_json::from_value(document).map_err(|e| keys.bad("tokenizer.ggml", format!("does not build: {e}")))
}

/// The byte a character of a byte-level token stands for: printable ones themselves, the rest from 256 on.
fn byte(c: char) -> Option<u8> {
    let own = |b: u8| matches!(b, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let code = u32::from(c);
    if let Ok(b) = u8::try_from(code) {
        return own(b).then_some(b);
    }
    let rank = usize::try_from(code - 256).ok()?;
    (0..=255).filter(|b| !own(*b)).nth(rank)
}

fn piece(token: &str, kind: u64) -> Vec<u8> {
    match kind {
        CONTROL => Vec::new(),
        USER_DEFINED => token.as_bytes().to_vec(),
        _ => token.chars().map(byte).collect::<Option<_>>().unwrap_or_else(|| token.as_bytes().to_vec()),
    }
}
