//! The tokenizer a GGUF file carries.
//!
//! Models: byte-level BPE from tokens and merges, pre-tokenizers by name (one row each), special tokens in the text.
//! Does not model: sentencepiece and WordPiece vocabularies.
//! Source: the GGUF specification's tokenizer keys; each row's splitting rule as its model family publishes it.

use serde_json::{Map, json};

use super::reader::{Contents, Value};
use crate::tokenizer::{Start, Tokenizer, byte_of};
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

/// Names of control tokens that end a turn, whether or not the metadata says so.
const TURN_ENDS: [&str; 5] = ["<|im_end|>", "<|eot_id|>", "<|end|>", "<|endoftext|>", "<end_of_turn>"];

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

    fn flag(&self, key: &str) -> bool {
        self.contents.metadata.get(key) == Some(&Value::Bool(true))
    }

    fn id(&self, key: &str, vocab: u32) -> Result<Option<u32>, WorkloadError> {
        let Some(value) = self.contents.metadata.get(key) else { return Ok(None) };
        match value.unsigned().and_then(|id| u32::try_from(id).ok()).filter(|id| *id < vocab) {
            Some(id) => Ok(Some(id)),
            None => Err(self.bad(key, format!("expected a token below {vocab}"))),
        }
    }
}

/// The tokenizer described by `metadata` for a vocabulary of `vocab` tokens.
///
/// # Errors
/// If its kind is not known, or it contradicts itself or the vocabulary.
pub(super) fn tokenizer(contents: &Contents, vocab: u32, place: &str) -> Result<Tokenizer, WorkloadError> {
    let keys = Keys { contents, place };
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
    let id = |key: &str| keys.id(key, vocab);
    let (begin, end) = (id("tokenizer.ggml.bos_token_id")?, id("tokenizer.ggml.eos_token_id")?);
    let mut ends = vec![end, id("tokenizer.ggml.eot_token_id")?, id("tokenizer.ggml.eom_token_id")?];
    let control = tokens.iter().zip(&types).map(|(token, kind)| (*token, *kind == CONTROL));
    ends.extend(
        (0u32..)
            .zip(control)
            .map(|(id, (token, control))| (control && TURN_ENDS.contains(&token)).then_some(id)),
    );
    let start = if keys.flag("tokenizer.ggml.add_bos_token") {
        let missing =
            || keys.bad("tokenizer.ggml.bos_token_id", "is missing, but every text is to start with it");
        Start::Token(begin.ok_or_else(missing)?)
    } else {
        Start::Nothing
    };
    let text = |id: Option<u32>| {
        id.and_then(|id| tokens.get(usize::try_from(id).ok()?)).map(|t| (*t).to_owned()).unwrap_or_default()
    };
    let pieces = tokens.iter().zip(&types).map(|(token, kind)| piece(token, *kind)).collect();
    Ok(Tokenizer::new(inner, pieces, start, ends.into_iter().flatten(), [text(begin), text(end)]))
}

/// Type of every token; plain where the file does not say.
fn types(keys: &Keys<'_>, count: usize) -> Result<Vec<u64>, WorkloadError> {
    let key = "tokenizer.ggml.token_type";
    let types: Vec<u64> = match keys.contents.metadata.get(key) {
        None => vec![1; count],
        Some(Value::Array(values)) => values.iter().map(|v| v.unsigned().unwrap_or(0)).collect(),
        Some(_) => return Err(keys.bad(key, "expected a list")),
    };
    if types.len() != count {
        return Err(keys.bad(key, format!("{} types for {count} tokens", types.len())));
    }
    Ok(types)
}

fn build(
    keys: &Keys<'_>,
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

fn piece(token: &str, kind: u64) -> Vec<u8> {
    match kind {
        CONTROL => Vec::new(),
        USER_DEFINED => token.as_bytes().to_vec(),
        _ => token.chars().map(byte_of).collect::<Option<_>>().unwrap_or_else(|| token.as_bytes().to_vec()),
    }
}
