//! A GGUF file as a model: its shape from the metadata, its weights as a source of tensors.
//!
//! Models: Llama (neighbours rotated, as its converted queries and keys expect), Qwen 2, Qwen 3; frequency factors.
//! Does not model: experts, sliding windows, partial rotation, YaRN.
//! Source: the GGUF specification's metadata keys; tensor names as the converters published with ggml write them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::reader::{Contents, TensorInfo, Value, read};
use super::tokenizer::tokenizer;
use crate::image::{ImageLayout, Tensor, TensorSource, fill_image, tensors_of};
use crate::tokenizer::Tokenizer;
use crate::workload::{
    Family, ModelSpec, QuantScheme, Rope, RopeLayout, RopeScaling, TensorFormat, WeightQuant, WorkloadError,
    WorkloadProblem,
};

/// Frequency factors: what each rotary frequency is divided by.
const FACTORS: &str = "rope_freqs.weight";

/// An opened file whose shape is known and whose tensors are all there.
#[derive(Debug)]
pub struct GgufModel {
    /// Shape.
    pub spec: ModelSpec,
    /// How the NPU computes it: fp16 matrices, named after the file's most frequent type.
    pub scheme: QuantScheme,
    path: PathBuf,
    file: File,
    contents: Contents,
}

impl PartialEq for GgufModel {
    fn eq(&self, other: &Self) -> bool {
        self.path == other.path && self.contents == other.contents
    }
}

struct Keys<'a> {
    place: &'a str,
    contents: &'a Contents,
    architecture: &'a str,
}

impl Keys<'_> {
    fn bad(&self, key: &str, message: impl Into<String>) -> WorkloadError {
        WorkloadProblem::new(self.contents.place_of(self.place, key), key, message).into()
    }

    fn get(&self, key: &str) -> (String, Option<&Value>) {
        let key = format!("{}.{key}", self.architecture);
        let value = self.contents.metadata.get(&key);
        (key, value)
    }

    fn maybe(&self, key: &str) -> Result<Option<u32>, WorkloadError> {
        let (key, value) = self.get(key);
        let Some(value) = value else { return Ok(None) };
        match value.unsigned().and_then(|v| u32::try_from(v).ok()) {
            Some(v) => Ok(Some(v)),
            None => Err(self.bad(&key, "expected one number of 32 bits")),
        }
    }

    fn number(&self, key: &str) -> Result<u32, WorkloadError> {
        self.maybe(key)?.ok_or_else(|| self.bad(&self.get(key).0, "is missing"))
    }

    fn float(&self, key: &str) -> Result<Option<f64>, WorkloadError> {
        match self.get(key) {
            (_, None) => Ok(None),
            (_, Some(Value::Float(v))) => Ok(Some(*v)),
            (key, Some(_)) => Err(self.bad(&key, "expected a floating-point number")),
        }
    }

    fn scaling(&self) -> Result<RopeScaling, WorkloadError> {
        let (key, value) = self.get("rope.scaling.type");
        match value {
            None => Ok(RopeScaling::None),
            Some(Value::Text(t)) if t == "none" => Ok(RopeScaling::None),
            Some(Value::Text(t)) if t == "linear" => {
                let factor = self.float("rope.scaling.factor")?.filter(|f| *f >= 1.0 && f.is_finite());
                let factor = factor.ok_or_else(|| self.bad(&key, "linear needs a factor of at least 1"))?;
                Ok(RopeScaling::Linear { factor })
            }
            Some(_) => Err(self.bad(&key, "expected `none` or `linear`")),
        }
    }

    /// The shape; `biased` and `normed` as the tensors tell.
    fn spec(&self, vocab: u64, name: String, has: impl Fn(&str) -> bool) -> Result<ModelSpec, WorkloadError> {
        let (family, layout) = match self.architecture {
            "llama" => (Family::Llama, RopeLayout::Interleaved),
            "qwen2" => (Family::Qwen2, RopeLayout::Half),
            "qwen3" => (Family::Qwen3, RopeLayout::Half),
            other => {
                let message = format!("expected llama, qwen2 or qwen3, found `{other}`");
                return Err(self.bad("general.architecture", message));
            }
        };
        if self.maybe("expert_count")?.is_some_and(|n| n > 0) {
            return Err(self.bad(&self.get("expert_count").0, "mixtures of experts are not modelled"));
        }
        let (hidden, heads) = (self.number("embedding_length")?, self.number("attention.head_count")?);
        let derived = hidden.checked_div(heads).unwrap_or(0);
        let head_dim = self.maybe("attention.key_length")?.unwrap_or(derived);
        for key in ["attention.value_length", "rope.dimension_count"] {
            if let Some(other) = self.maybe(key)?.filter(|v| *v != head_dim) {
                let message = format!("expected the head's width of {head_dim}, found {other}");
                return Err(self.bad(&self.get(key).0, message));
            }
        }
        let eps = self.float("attention.layer_norm_rms_epsilon")?;
        let spec = ModelSpec {
            name,
            family,
            hidden,
            layers: self.number("block_count")?,
            heads,
            kv_heads: self.maybe("attention.head_count_kv")?.unwrap_or(heads),
            head_dim,
            ffn: self.number("feed_forward_length")?,
            vocab: u32::try_from(vocab).unwrap_or(u32::MAX),
            norm_eps: eps
                .ok_or_else(|| self.bad(&self.get("attention.layer_norm_rms_epsilon").0, "is missing"))?,
            qkv_bias: has("blk.0.attn_q.bias"),
            qk_norm: has("blk.0.attn_q_norm.weight"),
            rope: Rope {
                theta: self.float("rope.freq_base")?.unwrap_or(10_000.0),
                layout,
                scaling: self.scaling()?,
            },
            tied_embedding: !has("output.weight"),
            max_position: self.number("context_length")?,
        };
        spec.check(self.place)?;
        Ok(spec)
    }
}

fn tensor_name(tensor: Tensor, layer: u32) -> String {
    let part = match tensor {
        Tensor::Embed => return "token_embd.weight".to_owned(),
        Tensor::FinalNorm => return "output_norm.weight".to_owned(),
        Tensor::Head => return "output.weight".to_owned(),
        Tensor::AttnNorm => "attn_norm.weight",
        Tensor::FfnNorm => "ffn_norm.weight",
        Tensor::Query => "attn_q.weight",
        Tensor::Key => "attn_k.weight",
        Tensor::Value => "attn_v.weight",
        Tensor::QueryBias => "attn_q.bias",
        Tensor::KeyBias => "attn_k.bias",
        Tensor::ValueBias => "attn_v.bias",
        Tensor::QueryNorm => "attn_q_norm.weight",
        Tensor::KeyNorm => "attn_k_norm.weight",
        Tensor::Output => "attn_output.weight",
        Tensor::Gate => "ffn_gate.weight",
        Tensor::Up => "ffn_up.weight",
        Tensor::Down => "ffn_down.weight",
    };
    format!("blk.{layer}.{part}")
}

/// Checks that the tensors are the model's, in shape and type, and no others.
fn check_tensors(spec: &ModelSpec, contents: &Contents, place: &str) -> Result<(), WorkloadError> {
    let mut known = BTreeSet::from([FACTORS.to_owned()]);
    for (tensor, layer) in tensors_of(spec) {
        let name = tensor_name(tensor, layer);
        let (rows, cols) = tensor.shape(spec);
        let (rows, cols) = (rows as u64, cols as u64);
        match contents.tensors.get(&name) {
            None => return Err(WorkloadProblem::new(place, name, "is missing").into()),
            Some(info) => {
                let shape = [cols, rows];
                let expected = if rows == 1 { &shape[..1] } else { &shape[..] };
                check_tensor(info, &name, expected, place)?;
            }
        }
        known.insert(name);
    }
    if let Some(info) = contents.tensors.get(FACTORS) {
        check_tensor(info, FACTORS, &[u64::from(spec.head_dim) / 2], place)?;
    }
    match contents.tensors.iter().find(|(name, _)| !known.contains(*name)) {
        None => Ok(()),
        Some((name, info)) => {
            let place = format!("{place} byte {}", info.described_at);
            Err(WorkloadProblem::new(place, name, "is no tensor this architecture is known to have").into())
        }
    }
}

fn check_tensor(info: &TensorInfo, name: &str, expected: &[u64], place: &str) -> Result<(), WorkloadError> {
    let place = format!("{place} byte {}", info.described_at);
    if info.dims != expected {
        let message = format!("expected dimensions {expected:?}, found {:?}", info.dims);
        return Err(WorkloadProblem::new(place, name, message).into());
    }
    if !info.kind.decodes() {
        let message = format!("is of type {}, whose values cannot be decoded", info.kind.name);
        return Err(WorkloadProblem::new(place, name, message).into());
    }
    Ok(())
}

/// fp16 throughout, named after the type most of the blocks' weights have.
fn scheme(contents: &Contents) -> QuantScheme {
    let mut elements: BTreeMap<&'static str, u64> = BTreeMap::new();
    for (_, info) in contents.tensors.iter().filter(|(name, _)| name.starts_with("blk.")) {
        *elements.entry(info.kind.scheme).or_default() += info.elements();
    }
    let name = elements.iter().max_by_key(|(_, n)| **n).map_or("gguf", |(name, _)| *name);
    let plain = WeightQuant::Plain(TensorFormat::Fp16);
    QuantScheme {
        name,
        body: plain,
        head: plain,
        embedding: TensorFormat::Fp16,
        kv: TensorFormat::Fp16,
        activation: TensorFormat::Fp16,
    }
}

impl GgufModel {
    /// Whether an argument names a GGUF file: by its ending, or by its first bytes.
    #[must_use]
    pub fn is_one(argument: &str) -> bool {
        let path = Path::new(argument);
        let named = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf"));
        let starts = || {
            let mut magic = [0; 4];
            File::open(path).and_then(|mut f| f.read_exact(&mut magic)).is_ok() && magic == *b"GGUF"
        };
        named || (path.is_file() && starts())
    }

    /// Opens a file and checks everything but the weights' values.
    ///
    /// # Errors
    /// What is wrong with it, with byte or key.
    pub fn open(path: &Path) -> Result<Self, WorkloadError> {
        let place = path.display().to_string();
        let unreadable =
            |e: std::io::Error| WorkloadProblem::new(&place, "", format!("cannot be read: {}", e.kind()));
        // Asked before it is opened: opening a pipe would wait for its other end.
        if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
            return Err(WorkloadProblem::new(&place, "", "is not a file").into());
        }
        let file = File::open(path).map_err(unreadable)?;
        let len = file.metadata().map_err(unreadable)?.len();
        let contents = read(BufReader::with_capacity(1 << 16, &file), len, &place)?;
        let name = path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
        let spec = Self::spec_of(&contents, &place, name)?;
        let scheme = scheme(&contents);
        Ok(Self { spec, scheme, path: path.to_owned(), file, contents })
    }

    fn spec_of(contents: &Contents, place: &str, name: String) -> Result<ModelSpec, WorkloadError> {
        let architecture = match contents.metadata.get("general.architecture") {
            Some(Value::Text(text)) => text,
            _ => return Err(WorkloadProblem::new(place, "general.architecture", "expected a name").into()),
        };
        let Some(embedding) = contents.tensors.get("token_embd.weight") else {
            return Err(WorkloadProblem::new(place, "token_embd.weight", "is missing").into());
        };
        let vocab = embedding.dims.get(1).copied().unwrap_or(0);
        let keys = Keys { place, contents, architecture };
        let spec = keys.spec(vocab, name, |tensor| contents.tensors.contains_key(tensor))?;
        check_tensors(&spec, contents, place)?;
        Ok(spec)
    }

    /// The file's tokenizer.
    ///
    /// # Errors
    /// If it is of a kind that is not known or does not match the vocabulary.
    pub fn tokenizer(&self) -> Result<Tokenizer, WorkloadError> {
        tokenizer(&self.contents, self.spec.vocab, &self.path.display().to_string())
    }

    /// The chat template, if the file has one.
    #[must_use]
    pub fn chat_template(&self) -> Option<&str> {
        match self.contents.metadata.get("tokenizer.chat_template") {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// Bytes of the tensors in the file.
    #[must_use]
    pub fn weight_bytes(&self) -> u64 {
        self.contents.tensors.values().map(|t| t.bytes).sum()
    }

    /// Elements of the tensors in the file.
    #[must_use]
    pub fn weight_elements(&self) -> u64 {
        self.contents.tensors.values().map(TensorInfo::elements).sum()
    }

    /// The layout of its image, the file's frequency factors included.
    ///
    /// # Errors
    /// If the model's sizes have no layout or the factors cannot be read.
    pub fn layout(&self) -> Result<ImageLayout, WorkloadError> {
        let mut layout = ImageLayout::new(&self.spec, &self.scheme)?;
        if let Some(info) = self.contents.tensors.get(FACTORS) {
            for (frequency, factor) in layout.inv_freq.iter_mut().zip(self.decode(FACTORS, info)?) {
                if !(1e-3..=1e6).contains(&factor) {
                    let place = format!("{} byte {}", self.path.display(), info.start);
                    let message = format!("expected factors from 0.001 to 1000000, found {factor}");
                    return Err(WorkloadProblem::new(place, FACTORS, message).into());
                }
                *frequency /= factor;
            }
        }
        Ok(layout)
    }

    /// The whole image.
    ///
    /// # Errors
    /// If weights cannot be read.
    pub fn image(&self, layout: &ImageLayout) -> Result<Vec<u8>, WorkloadError> {
        fill_image(layout, &self.spec, &self.scheme, &mut Weights(self))
    }

    fn decode(&self, name: &str, info: &TensorInfo) -> Result<Vec<f32>, WorkloadError> {
        let mut bytes = vec![0; usize::try_from(info.bytes).unwrap_or(usize::MAX)];
        let mut file = &self.file;
        file.seek(SeekFrom::Start(info.start)).and_then(|_| file.read_exact(&mut bytes)).map_err(|e| {
            let place = format!("{} byte {}", self.path.display(), info.start);
            WorkloadProblem::new(place, name, format!("cannot be read: {}", e.kind()))
        })?;
        Ok(info.kind.values(&bytes))
    }
}

/// A file's weights as the image builder asks for them.
struct Weights<'a>(&'a GgufModel);

impl TensorSource for Weights<'_> {
    fn values(&mut self, tensor: Tensor, layer: u32) -> Result<Vec<f32>, WorkloadError> {
        let name = tensor_name(tensor, layer);
        match self.0.contents.tensors.get(&name) {
            Some(info) => self.0.decode(&name, info),
            None => Err(WorkloadProblem::new(self.0.path.display().to_string(), name, "is missing").into()),
        }
    }
}
