//! A GGUF file as a model: its shape from the metadata, its weights as a source of tensors.
//!
//! Models: the families of `shape`, fused tensors in parts; frequency factors. Does not model: anything else.
//! Source: tensor names as the converters published with ggml write them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::names::{FACTORS, LONG_FACTORS, SHORT_FACTORS, Stored, stored};
use super::reader::{Contents, TensorInfo, Value, read};
use super::shape::Keys;
use super::tokenizer::tokenizer;
use crate::image::{Coded, ImageLayout, Tensor, TensorSource, fill_image, tensors_of, values_apart};
use crate::tokenizer::Tokenizer;
use crate::workload::{
    Body, Mix, ModelSpec, QuantScheme, TensorFormat, WeightQuant, WorkloadError, WorkloadProblem,
};

/// An opened file whose shape is known and whose tensors are all there.
#[derive(Debug)]
pub struct GgufModel {
    /// Shape.
    pub spec: ModelSpec,
    /// How the NPU computes it unless asked otherwise: matrices as the file holds them, fp16 activations; named after
    /// the file's most frequent type.
    pub scheme: QuantScheme,
    names: [&'static str; 3],
    /// Positions of the original context, where longer runs have other frequency factors.
    original: Option<u32>,
    path: PathBuf,
    file: File,
    contents: Contents,
}

impl PartialEq for GgufModel {
    fn eq(&self, other: &Self) -> bool {
        self.path == other.path && self.contents == other.contents
    }
}

/// Checks that the tensors are the model's, in shape and type, and no others.
fn check_tensors(spec: &ModelSpec, contents: &Contents, place: &str) -> Result<(), WorkloadError> {
    let factors = [FACTORS, SHORT_FACTORS, LONG_FACTORS];
    let mut known = BTreeSet::from(factors.map(str::to_owned));
    for (tensor, layer) in tensors_of(spec) {
        let place_in = stored(tensor, layer, spec);
        let (name, rows, cols) = (place_in.name, place_in.rows, tensor.shape(spec).1 as u64);
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
    for name in factors {
        if let Some(info) = contents.tensors.get(name) {
            check_tensor(info, name, &[u64::from(spec.head_dim) / 2], place)?;
        }
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

/// How the file's matrices lie in the image, each layer's in their own types; named after the type most of the blocks'
/// weights have. Second: that type.
fn scheme(spec: &ModelSpec, contents: &Contents) -> (QuantScheme, [&'static str; 3]) {
    let mut elements: BTreeMap<[&'static str; 3], u64> = BTreeMap::new();
    for (_, info) in contents.tensors.iter().filter(|(name, _)| name.starts_with("blk.")) {
        *elements.entry(info.kind.schemes).or_default() += info.elements();
    }
    let names = elements.iter().max_by_key(|(_, n)| **n).map_or(["gguf"; 3], |(names, _)| *names);
    let kind = |tensor: Tensor, layer: u32| {
        let info = contents.tensors.get(&stored(tensor, layer, spec).name);
        info.map_or(WeightQuant::Plain(TensorFormat::Fp16), |info| info.kind.stored())
    };
    // Values apart need a table of kinds, which has room for so many layers.
    let apart = values_apart(spec) && u64::from(spec.layers) <= isa::kinds::MAX_LAYERS;
    // An encoder has neither gate nor head; what they would be stored as decides nothing.
    let encoder = spec.extras.encoder.is_some();
    let body = |layer: u32| {
        let each = Body {
            qkv: kind(Tensor::Query, layer).joined(kind(Tensor::Key, layer)),
            value: kind(Tensor::Value, layer),
            out: kind(Tensor::Output, layer),
            gate: kind(if encoder { Tensor::Up } else { Tensor::Gate }, layer),
            up: kind(Tensor::Up, layer),
            down: kind(Tensor::Down, layer),
        };
        if apart { each } else { each.together() }
    };
    let bodies: Vec<Body> = (0..spec.layers).map(body).collect();
    let head = match spec.tied_embedding {
        _ if encoder => Tensor::Up,
        true => Tensor::Embed,
        false => Tensor::Head,
    };
    let scheme = QuantScheme {
        name: names[0],
        body: Body::all(WeightQuant::Plain(TensorFormat::Fp16)),
        mix: Mix::NONE,
        head: kind(head, 0),
        embedding: TensorFormat::Fp16,
        kv: TensorFormat::Fp16,
        activation: TensorFormat::Fp16,
        activation_block: 0,
    };
    (scheme.mixed(spec, &bodies), names)
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
        let (spec, original) = Self::spec_of(&contents, &place, name)?;
        let (scheme, names) = scheme(&spec, &contents);
        Ok(Self { spec, scheme, names, original, path: path.to_owned(), file, contents })
    }

    /// The shape, and where other frequency factors begin to act.
    fn spec_of(
        contents: &Contents,
        place: &str,
        name: String,
    ) -> Result<(ModelSpec, Option<u32>), WorkloadError> {
        let architecture = match contents.metadata.get("general.architecture") {
            Some(Value::Text(text)) => text,
            _ => return Err(WorkloadProblem::new(place, "general.architecture", "expected a name").into()),
        };
        let Some(embedding) = contents.tensors.get("token_embd.weight") else {
            return Err(WorkloadProblem::new(place, "token_embd.weight", "is missing").into());
        };
        let vocab = embedding.dims.get(1).copied().unwrap_or(0);
        let keys = Keys { place, contents, architecture };
        let spec = keys.spec(vocab, name)?;
        check_tensors(&spec, contents, place)?;
        Ok((spec, keys.original()?))
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

    /// The scheme of that name: the file's own, `fp16`, or `w4a8-g32`, which keeps the file's weights and quantises
    /// activations to int8 in blocks of 32 (of 16 where a matrix has minima in groups of 16).
    ///
    /// # Errors
    /// If the file cannot be computed so.
    pub fn scheme_named(&self, name: &str) -> Result<QuantScheme, WorkloadError> {
        let problem = |message: String| Err(WorkloadProblem::new("--quant", "", message).into());
        if name == self.scheme.name {
            return Ok(self.scheme.clone());
        }
        match name {
            "fp16" => QuantScheme::named(name),
            "w4a8-g32" => {
                let all = self.scheme.kinds().flat_map(Body::each).chain([self.scheme.head]);
                if all.clone().any(|quant| matches!(quant, WeightQuant::Plain(_))) {
                    let text = "int8 activations need integer weights, and this file has matrices of floats";
                    return problem(text.to_owned());
                }
                let short = all.clone().any(|quant| quant.minimum() && quant.group() == 16);
                let (name, activation_block) = if short { (self.names[2], 16) } else { (self.names[1], 32) };
                Ok(QuantScheme {
                    name,
                    activation: TensorFormat::Int8,
                    activation_block,
                    ..self.scheme.clone()
                })
            }
            _ => problem(format!(
                "a GGUF file decides how its weights are stored: expected `{}`, `fp16` or `w4a8-g32`, found `{name}`",
                self.scheme.name
            )),
        }
    }

    /// The layout of its image under its own scheme.
    ///
    /// # Errors
    /// If the model's sizes have no layout or the factors cannot be read.
    pub fn layout(&self) -> Result<ImageLayout, WorkloadError> {
        self.layout_as(&self.scheme, 0)
    }

    /// The layout of its image under one of its schemes, the file's frequency factors for a run of that many positions
    /// included.
    ///
    /// # Errors
    /// If the model's sizes have no layout or the factors cannot be read.
    pub fn layout_as(&self, scheme: &QuantScheme, positions: u64) -> Result<ImageLayout, WorkloadError> {
        let mut layout = ImageLayout::new(&self.spec, scheme)?;
        let long = self.original.is_some_and(|original| positions > original.into());
        for name in [FACTORS, if long { LONG_FACTORS } else { SHORT_FACTORS }] {
            let Some(info) = self.contents.tensors.get(name) else { continue };
            for (frequency, factor) in layout.inv_freq.iter_mut().zip(self.decode(name, info, 0, 1)?) {
                if !(1e-3..=1e6).contains(&factor) {
                    let place = format!("{} byte {}", self.path.display(), info.start);
                    let message = format!("expected factors from 0.001 to 1000000, found {factor}");
                    return Err(WorkloadProblem::new(place, name, message).into());
                }
                *frequency /= factor;
            }
        }
        Ok(layout)
    }

    /// The whole image under its own scheme.
    ///
    /// # Errors
    /// If weights cannot be read.
    pub fn image(&self, layout: &ImageLayout) -> Result<Vec<u8>, WorkloadError> {
        self.image_as(layout, &self.scheme)
    }

    /// The whole image under one of its schemes.
    ///
    /// # Errors
    /// If weights cannot be read.
    pub fn image_as(&self, layout: &ImageLayout, scheme: &QuantScheme) -> Result<Vec<u8>, WorkloadError> {
        fill_image(layout, &self.spec, scheme, &mut Weights(self))
    }

    /// The weights, tensor by tensor.
    pub fn source(&self) -> impl TensorSource + '_ {
        Weights(self)
    }

    /// Values of some rows.
    fn decode(
        &self,
        name: &str,
        info: &TensorInfo,
        first: u64,
        rows: u64,
    ) -> Result<Vec<f32>, WorkloadError> {
        self.bytes(name, info, first, rows).map(|bytes| info.kind.values(&bytes))
    }

    /// Some rows as they are stored.
    fn bytes(&self, name: &str, info: &TensorInfo, first: u64, rows: u64) -> Result<Vec<u8>, WorkloadError> {
        let row = info.bytes / info.dims[1..].iter().product::<u64>();
        let start = info.start + first * row;
        let mut bytes = vec![0; usize::try_from(rows * row).unwrap_or(usize::MAX)];
        let mut file = &self.file;
        file.seek(SeekFrom::Start(start)).and_then(|_| file.read_exact(&mut bytes)).map_err(|e| {
            let place = format!("{} byte {start}", self.path.display());
            WorkloadProblem::new(place, name, format!("cannot be read: {}", e.kind()))
        })?;
        Ok(bytes)
    }
}

/// A file's weights as the image builder asks for them.
struct Weights<'a>(&'a GgufModel);

impl<'a> Weights<'a> {
    /// What the file has of a tensor, and where.
    fn part(&self, tensor: Tensor, layer: u32) -> Result<(&'a TensorInfo, Stored), WorkloadError> {
        let (model, part) = (self.0, stored(tensor, layer, &self.0.spec));
        let Some(info) = model.contents.tensors.get(&part.name) else {
            return Err(
                WorkloadProblem::new(model.path.display().to_string(), part.name, "is missing").into()
            );
        };
        Ok((info, part))
    }

    fn read(&self, tensor: Tensor, info: &TensorInfo, part: &Stored) -> Result<Vec<u8>, WorkloadError> {
        let rows = tensor.shape(&self.0.spec).0 as u64;
        self.0.bytes(&part.name, info, part.first, rows)
    }
}

impl Weights<'_> {
    /// Numbers that stand for `each` elements of a tensor must be some, or the run would end in no number at all.
    fn finite(&self, tensor: Tensor, layer: u32, each: usize, numbers: &[f32]) -> Result<(), WorkloadError> {
        let Some((bad, message)) = tensor.flaw(&self.0.spec, numbers) else { return Ok(()) };
        let (model, part) = (self.0, stored(tensor, layer, &self.0.spec));
        let at = model.contents.tensors.get(&part.name).map_or(0, |info| {
            let element = (bad * each) as u64 + part.first * info.dims[0];
            info.start + element / info.kind.elements * info.kind.bytes
        });
        let place = format!("{} byte {at}", model.path.display());
        Err(WorkloadProblem::new(place, part.name, message).into())
    }
}

impl TensorSource for Weights<'_> {
    fn values(&mut self, tensor: Tensor, layer: u32) -> Result<Vec<f32>, WorkloadError> {
        let (info, part) = self.part(tensor, layer)?;
        let values = self.read(tensor, info, &part).map(|bytes| info.kind.values(&bytes))?;
        self.finite(tensor, layer, 1, &values)?;
        Ok(values)
    }

    fn codes(&mut self, tensor: Tensor, layer: u32) -> Result<Option<Coded>, WorkloadError> {
        let (info, part) = self.part(tensor, layer)?;
        if !matches!(info.kind.stored(), WeightQuant::Coded { .. }) {
            return Ok(None);
        }
        let coded = self.read(tensor, info, &part).map(|bytes| info.kind.codes(&bytes))?;
        if let Some(coded) = &coded {
            self.finite(tensor, layer, coded.group, &coded.scales)?;
            self.finite(tensor, layer, coded.group, &coded.minima)?;
        }
        Ok(coded)
    }
}
