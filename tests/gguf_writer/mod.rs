//! Writes small GGUF files: random weights, a byte-level vocabulary of its own.

use half::f16;
use traces::image::{Tensor, TensorSource, random_tensors};
use traces::workload::{Family, ModelSpec, Rope, RopeLayout, RopeScaling};

/// Seed of the weights.
pub const SEED: u64 = 7;
/// Words that are one token, by merges of two tokens each.
const MERGES: [&str; 12] =
    ["t h", "th e", "Ġ the", "i n", "a n", "an d", "Ġ and", "Ġ i", "Ġi s", "o n", "e r", "r e"];

/// The model: grouped heads, neighbours rotated, a tied head.
pub fn spec() -> ModelSpec {
    ModelSpec {
        name: "own".to_owned(),
        family: Family::Llama,
        hidden: 64,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        head_dim: 16,
        ffn: 192,
        vocab: 272,
        norm_eps: f64::from(1e-5f32),
        qkv_bias: false,
        qk_norm: false,
        rope: Rope { theta: 10_000.0, layout: RopeLayout::Interleaved, scaling: RopeScaling::None },
        tied_embedding: true,
        max_position: 128,
    }
}

/// The character a byte is written as.
fn letter(byte: u8) -> char {
    let own = |b: u8| matches!(b, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    if own(byte) {
        return char::from(byte);
    }
    let before = u32::try_from((0..byte).filter(|b| !own(*b)).count()).expect("few");
    char::from_u32(256 + before).expect("a letter")
}

/// Two control tokens, all bytes, the merged words, fillers.
pub fn tokens() -> Vec<String> {
    let mut out = vec!["<|start|>".to_owned(), "<|end|>".to_owned()];
    out.extend((0..=255).map(|b| letter(b).to_string()));
    out.extend(MERGES.iter().map(|m| m.replace(' ', "")));
    out.extend((out.len()..272).map(|i| format!("<|filler{i}|>")));
    out
}

/// A file under construction.
#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn text(&mut self, text: &str) {
        self.0.extend((text.len() as u64).to_le_bytes());
        self.0.extend(text.as_bytes());
    }
    fn key(&mut self, key: &str, code: u32) {
        self.text(key);
        self.0.extend(code.to_le_bytes());
    }
    fn texts(&mut self, key: &str, texts: &[String]) {
        self.key(key, 9);
        self.0.extend(8u32.to_le_bytes());
        self.0.extend((texts.len() as u64).to_le_bytes());
        texts.iter().for_each(|t| self.text(t));
    }
}

/// What differs from a good file.
#[derive(Clone, Copy)]
pub struct Flaws {
    /// Pre-tokenizer.
    pub pre: &'static str,
    /// Architecture.
    pub architecture: &'static str,
    /// Type code of the output norm.
    pub norm_type: u32,
    /// Tokens left out of the vocabulary.
    pub missing_tokens: usize,
}

/// None.
pub const GOOD: Flaws = Flaws { pre: "smollm", architecture: "llama", norm_type: 0, missing_tokens: 0 };

/// The file's bytes.
pub fn file(flaws: &Flaws) -> Vec<u8> {
    let s = spec();
    let mut w = Writer::default();
    let mut tensors = vec![(Tensor::Embed, 0, "token_embd.weight".to_owned())];
    tensors.push((Tensor::FinalNorm, 0, "output_norm.weight".to_owned()));
    for layer in 0..s.layers {
        for (tensor, name) in [
            (Tensor::AttnNorm, "attn_norm"),
            (Tensor::FfnNorm, "ffn_norm"),
            (Tensor::Query, "attn_q"),
            (Tensor::Key, "attn_k"),
            (Tensor::Value, "attn_v"),
            (Tensor::Output, "attn_output"),
            (Tensor::Gate, "ffn_gate"),
            (Tensor::Up, "ffn_up"),
            (Tensor::Down, "ffn_down"),
        ] {
            tensors.push((tensor, layer, format!("blk.{layer}.{name}.weight")));
        }
    }
    w.0.extend(b"GGUF\x03\0\0\0");
    w.0.extend((tensors.len() as u64).to_le_bytes());
    w.0.extend(16u64.to_le_bytes());
    metadata(&mut w, &s, flaws);
    let mut data = Vec::new();
    let mut source = random_tensors(SEED, &s);
    for (tensor, layer, name) in tensors {
        let (rows, cols) = tensor.shape(&s);
        let values = source.values(tensor, layer).expect("values");
        w.text(&name);
        let dims: Vec<u64> = if rows == 1 { vec![cols as u64] } else { vec![cols as u64, rows as u64] };
        w.0.extend(u32::try_from(dims.len()).expect("few").to_le_bytes());
        dims.iter().for_each(|d| w.0.extend(d.to_le_bytes()));
        let kind = if tensor == Tensor::FinalNorm { flaws.norm_type } else { u32::from(rows > 1) };
        w.0.extend(kind.to_le_bytes());
        w.0.extend((data.len() as u64).to_le_bytes());
        if rows == 1 {
            data.extend(values.iter().flat_map(|v| v.to_le_bytes()));
        } else {
            data.extend(values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()));
        }
        data.resize(data.len().div_ceil(32) * 32, 0);
    }
    w.0.resize(w.0.len().div_ceil(32) * 32, 0);
    w.0.extend(data);
    w.0
}

/// Sixteen entries.
fn metadata(w: &mut Writer, s: &ModelSpec, flaws: &Flaws) {
    for (key, text) in [
        ("general.architecture", flaws.architecture),
        ("tokenizer.ggml.model", "gpt2"),
        ("tokenizer.ggml.pre", flaws.pre),
    ] {
        w.key(key, 8);
        w.text(text);
    }
    for (key, value) in [
        ("block_count", s.layers),
        ("context_length", s.max_position),
        ("embedding_length", s.hidden),
        ("feed_forward_length", s.ffn),
        ("attention.head_count", s.heads),
        ("attention.head_count_kv", s.kv_heads),
    ] {
        w.key(&format!("{}.{key}", flaws.architecture), 4);
        w.0.extend(value.to_le_bytes());
    }
    for (key, value) in [("rope.freq_base", 10_000.0f32), ("attention.layer_norm_rms_epsilon", 1e-5)] {
        w.key(&format!("{}.{key}", flaws.architecture), 6);
        w.0.extend(value.to_le_bytes());
    }
    let tokens = tokens();
    w.texts("tokenizer.ggml.tokens", &tokens[..tokens.len() - flaws.missing_tokens]);
    w.texts("tokenizer.ggml.merges", &MERGES.map(str::to_owned));
    w.key("tokenizer.ggml.token_type", 9);
    w.0.extend(5u32.to_le_bytes());
    let count = tokens.len() - flaws.missing_tokens;
    w.0.extend((count as u64).to_le_bytes());
    for i in 0..count {
        w.0.extend((if i < 2 { 3i32 } else { 1 }).to_le_bytes());
    }
    w.key("tokenizer.ggml.add_bos_token", 7);
    w.0.push(1);
    w.key("tokenizer.ggml.bos_token_id", 4);
    w.0.extend(0u32.to_le_bytes());
}
