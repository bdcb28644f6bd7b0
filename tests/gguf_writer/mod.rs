//! Writes small GGUF files: random weights, a byte-level vocabulary of its own.

use half::f16;
use sim_kernel::Stream;
use traces::image::{Tensor, TensorSource, random_tensors};
use traces::workload::{Extras, Family, ModelSpec, Rope, RopeLayout, RopeScaling};

/// Seed of the weights.
pub const SEED: u64 = 7;
/// Words that are one token, by merges of two tokens each.
pub const MERGES: [&str; 12] =
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
        extras: Extras::default(),
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

/// A metadata value.
pub enum Meta {
    /// Text.
    Text(String),
    /// 32-bit number.
    Number(u32),
    /// fp32.
    Float(f32),
    /// Truth value.
    Flag(bool),
    /// List of texts.
    Texts(Vec<String>),
    /// List of 32-bit integers.
    Integers(Vec<i32>),
    /// List of fp32 numbers.
    Floats(Vec<f32>),
}

/// A tensor of a file: its name, and the model's tensors whose rows follow each other in it.
pub type Part = (String, Vec<(Tensor, u32)>);

#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn word(&mut self, value: u32) {
        self.0.extend(value.to_le_bytes());
    }
    fn long(&mut self, value: usize) {
        self.0.extend((value as u64).to_le_bytes());
    }
    fn text(&mut self, text: &str) {
        self.long(text.len());
        self.0.extend(text.as_bytes());
    }
    fn value(&mut self, value: &Meta) {
        match value {
            Meta::Text(text) => {
                self.word(8);
                self.text(text);
            }
            Meta::Number(n) => {
                self.word(4);
                self.word(*n);
            }
            Meta::Float(x) => {
                self.word(6);
                self.0.extend(x.to_le_bytes());
            }
            Meta::Flag(b) => {
                self.word(7);
                self.0.push(u8::from(*b));
            }
            Meta::Texts(texts) => {
                self.word(9);
                self.word(8);
                self.long(texts.len());
                texts.iter().for_each(|t| self.text(t));
            }
            Meta::Integers(all) => {
                self.word(9);
                self.word(5);
                self.long(all.len());
                all.iter().for_each(|i| self.0.extend(i.to_le_bytes()));
            }
            Meta::Floats(all) => {
                self.word(9);
                self.word(6);
                self.long(all.len());
                all.iter().for_each(|x| self.0.extend(x.to_le_bytes()));
            }
        }
    }
}

/// A matrix of random blocks of a type, their scales such that products keep unit size.
///
/// Empty for types the writer does not know.
fn blocks(code: u32, name: &str, rows: usize, cols: usize) -> Vec<u8> {
    // Elements and bytes of a block, where scale and second factor lie, spread and centre of codes times scales.
    let (elements, bytes, at, more, spread, centre) = match code {
        2 => (32, 18, 0, None, 4.6, 0.0),
        3 => (32, 20, 0, Some(2), 4.6, -7.5),
        6 => (32, 22, 0, None, 9.2, 0.0),
        7 => (32, 24, 0, Some(2), 9.2, -15.5),
        8 => (32, 34, 0, None, 74.0, 0.0),
        12 => (256, 144, 0, Some(2), 4.6 * 32.0, 7.5),
        13 => (256, 176, 0, Some(2), 9.2 * 32.0, 15.5),
        14 => (256, 210, 208, None, 18.0 * 74.0, 0.0),
        _ => return Vec::new(),
    };
    let mut stream = Stream::new(SEED, "blocks", name);
    let mut out: Vec<u8> =
        (0..rows * cols / elements * bytes).map(|_| stream.next_u64().to_le_bytes()[7]).collect();
    let width = f32::from(u16::try_from(cols).expect("narrow"));
    for (i, block) in (0u16..7).cycle().zip(out.chunks_exact_mut(bytes)) {
        let scale = (0.75 + f32::from(i) / 14.0) / (spread * width.sqrt());
        block[at..at + 2].copy_from_slice(&f16::from_f32(scale).to_le_bytes());
        if let Some(at) = more {
            block[at..at + 2].copy_from_slice(&f16::from_f32(scale * centre).to_le_bytes());
        }
    }
    out
}

/// A file of random weights: vectors in fp32, matrices in fp16, those named in `types` in the type of that code.
pub fn assemble(s: &ModelSpec, meta: &[(String, Meta)], parts: &[Part], types: &[(&str, u32)]) -> Vec<u8> {
    assemble_with(s, meta, parts, types, &[])
}

/// The same with vectors that are no weights.
pub fn assemble_with(
    s: &ModelSpec,
    meta: &[(String, Meta)],
    parts: &[Part],
    types: &[(&str, u32)],
    vectors: &[(&str, Vec<f32>)],
) -> Vec<u8> {
    let mut w = Writer::default();
    w.0.extend(b"GGUF\x03\0\0\0");
    w.long(parts.len() + vectors.len());
    w.long(meta.len());
    for (key, value) in meta {
        w.text(key);
        w.value(value);
    }
    let mut data = Vec::new();
    let mut source = random_tensors(SEED, s);
    for (name, tensors) in parts {
        let mut values = Vec::new();
        let (mut rows, mut cols) = (0, 0);
        for (tensor, layer) in tensors {
            let (more, width) = tensor.shape(s);
            (rows, cols) = (rows + more, width);
            values.extend(source.values(*tensor, *layer).expect("values"));
        }
        w.text(name);
        let dims = if rows == 1 { vec![cols] } else { vec![cols, rows] };
        w.word(u32::try_from(dims.len()).expect("few"));
        dims.iter().for_each(|d| w.long(*d));
        let flaw = types.iter().find(|(n, _)| n == name).map(|(_, code)| *code);
        w.word(flaw.unwrap_or(u32::from(rows > 1)));
        w.long(data.len());
        if let Some(code) = flaw.filter(|_| rows > 1) {
            data.extend(blocks(code, name, rows, cols));
        } else if rows == 1 {
            data.extend(values.iter().flat_map(|v| v.to_le_bytes()));
        } else {
            data.extend(values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()));
        }
        data.resize(data.len().div_ceil(32) * 32, 0);
    }
    for (name, values) in vectors {
        w.text(name);
        w.word(1);
        w.long(values.len());
        w.word(0);
        w.long(data.len());
        data.extend(values.iter().flat_map(|v| v.to_le_bytes()));
        data.resize(data.len().div_ceil(32) * 32, 0);
    }
    w.0.resize(w.0.len().div_ceil(32) * 32, 0);
    w.0.extend(data);
    w.0
}

/// Tensors of a layer under their usual names.
pub const LLAMA: [(&str, &[Tensor]); 9] = [
    ("attn_norm.weight", &[Tensor::AttnNorm]),
    ("ffn_norm.weight", &[Tensor::FfnNorm]),
    ("attn_q.weight", &[Tensor::Query]),
    ("attn_k.weight", &[Tensor::Key]),
    ("attn_v.weight", &[Tensor::Value]),
    ("attn_output.weight", &[Tensor::Output]),
    ("ffn_gate.weight", &[Tensor::Gate]),
    ("ffn_up.weight", &[Tensor::Up]),
    ("ffn_down.weight", &[Tensor::Down]),
];

/// A file's tensors: those of no layer, then those of each.
pub fn parts(s: &ModelSpec, whole: &[(&str, Tensor)], layer: &[(&str, &[Tensor])]) -> Vec<Part> {
    let mut out: Vec<Part> = whole.iter().map(|(n, t)| ((*n).to_owned(), vec![(*t, 0)])).collect();
    for l in 0..s.layers {
        let row = |(name, tensors): &(&str, &[Tensor])| {
            (format!("blk.{l}.{name}"), tensors.iter().map(|t| (*t, l)).collect())
        };
        out.extend(layer.iter().map(row));
    }
    out
}

/// The shape's keys.
pub fn keys(architecture: &str, s: &ModelSpec) -> Vec<(String, Meta)> {
    let mut out = vec![("general.architecture".to_owned(), Meta::Text(architecture.to_owned()))];
    for (key, value) in [
        ("block_count", s.layers),
        ("context_length", s.max_position),
        ("embedding_length", s.hidden),
        ("feed_forward_length", s.ffn),
        ("attention.head_count", s.heads),
        ("attention.head_count_kv", s.kv_heads),
        ("vocab_size", s.vocab),
    ] {
        out.push((format!("{architecture}.{key}"), Meta::Number(value)));
    }
    out
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
    /// Token that ends a text.
    pub end: u32,
    /// Chat template.
    pub template: Option<&'static str>,
}

/// None.
pub const GOOD: Flaws =
    Flaws { pre: "smollm", architecture: "llama", norm_type: 0, missing_tokens: 0, end: 1, template: None };

/// The file's bytes.
pub fn file(flaws: &Flaws) -> Vec<u8> {
    let s = spec();
    let whole = [("token_embd.weight", Tensor::Embed), ("output_norm.weight", Tensor::FinalNorm)];
    let norm = [("output_norm.weight", flaws.norm_type)];
    assemble(&s, &metadata(&s, flaws), &parts(&s, &whole, &LLAMA), &norm)
}

/// The metadata of a file with a tokenizer.
pub fn metadata(s: &ModelSpec, flaws: &Flaws) -> Vec<(String, Meta)> {
    let mut out = keys(flaws.architecture, s);
    let mut push = |key: String, value: Meta| out.push((key, value));
    for (key, value) in [("rope.freq_base", 10_000.0f32), ("attention.layer_norm_rms_epsilon", 1e-5)] {
        push(format!("{}.{key}", flaws.architecture), Meta::Float(value));
    }
    let mut tokens = tokens();
    tokens.truncate(tokens.len() - flaws.missing_tokens);
    let types = (0..tokens.len()).map(|i| if i < 2 { 3 } else { 1 }).collect();
    for (key, value) in [
        ("model", Meta::Text("gpt2".to_owned())),
        ("pre", Meta::Text(flaws.pre.to_owned())),
        ("tokens", Meta::Texts(tokens)),
        ("merges", Meta::Texts(MERGES.map(str::to_owned).to_vec())),
        ("token_type", Meta::Integers(types)),
        ("add_bos_token", Meta::Flag(true)),
        ("bos_token_id", Meta::Number(0)),
        ("eos_token_id", Meta::Number(flaws.end)),
    ] {
        push(format!("tokenizer.ggml.{key}"), value);
    }
    if let Some(template) = flaws.template {
        push("tokenizer.chat_template".to_owned(), Meta::Text(template.to_owned()));
    }
    out
}
