//! A folder as a model: its shape from `config.json`, its weights as a source of tensors.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use serde_json::Value;

use super::header::{Element, Entry, read};
use super::names::{beside, offset, stored};
use crate::image::{ImageLayout, Tensor, TensorSource, fill_image, tensors_of};
use crate::tokenizer::{Tokenizer, from_json};
use crate::workload::{ModelSpec, QuantScheme, WorkloadError, WorkloadProblem, model_names, read_config};

/// Largest JSON file of a folder.
const MOST_JSON: u64 = 256 << 20;
const ONE_FILE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// An opened folder whose shape is known and whose tensors are all there.
#[derive(Debug)]
pub struct SafetensorsModel {
    /// Shape.
    pub spec: ModelSpec,
    folder: PathBuf,
    files: Vec<(PathBuf, File)>,
    /// By name: index of the file, place in it.
    tensors: BTreeMap<String, (usize, Entry)>,
}

impl PartialEq for SafetensorsModel {
    fn eq(&self, other: &Self) -> bool {
        self.folder == other.folder && self.spec == other.spec && self.tensors == other.tensors
    }
}

pub(super) fn problem(path: &Path, key: &str, message: impl Into<String>) -> WorkloadError {
    WorkloadProblem::new(path.display().to_string(), key, message).into()
}

/// A file that is there and is one; opening a pipe would wait for its other end.
fn open(path: &Path) -> Result<(File, u64), WorkloadError> {
    let unreadable = |e: std::io::Error| problem(path, "", format!("cannot be read: {}", e.kind()));
    if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(problem(path, "", "is not a file"));
    }
    let file = File::open(path).map_err(unreadable)?;
    let len = file.metadata().map_err(unreadable)?.len();
    Ok((file, len))
}

fn bytes(path: &Path) -> Result<Vec<u8>, WorkloadError> {
    let (file, len) = open(path)?;
    if len > MOST_JSON {
        return Err(problem(path, "", format!("longer than the {MOST_JSON} bytes such a file may have")));
    }
    let mut out = Vec::new();
    file.take(MOST_JSON)
        .read_to_end(&mut out)
        .map_err(|e| problem(path, "", format!("cannot be read: {}", e.kind())))?;
    Ok(out)
}

pub(super) fn json(path: &Path) -> Result<Value, WorkloadError> {
    serde_json::from_slice(&bytes(path)?).map_err(|e| {
        let place = format!("{}:{}:{}", path.display(), e.line(), e.column());
        WorkloadProblem::new(place, "", format!("not valid JSON: {e}")).into()
    })
}

/// Names of the files that hold tensors, and which of them an index says holds which.
fn shards(folder: &Path) -> Result<(Vec<String>, BTreeMap<String, String>), WorkloadError> {
    let path = folder.join(INDEX);
    if !path.exists() {
        return Ok((vec![ONE_FILE.to_owned()], BTreeMap::new()));
    }
    let index = json(&path)?;
    let Some(map) = index["weight_map"].as_object() else {
        return Err(problem(&path, "weight_map", "expected an object of tensors and files"));
    };
    let mut out = BTreeMap::new();
    for (tensor, file) in map {
        // A plain name only: an index has no business outside its folder.
        let name = file.as_str().filter(|f| !f.is_empty() && !f.contains(['/', '\\', '\0']) && *f != "..");
        let name =
            name.ok_or_else(|| problem(&path, tensor, format!("expected a file's name, found {file}")))?;
        out.insert(tensor.clone(), name.to_owned());
    }
    let files: BTreeSet<&String> = out.values().collect();
    Ok((files.into_iter().cloned().collect(), out))
}

impl SafetensorsModel {
    /// Whether an argument names such a folder.
    #[must_use]
    pub fn is_one(argument: &str) -> bool {
        let folder = Path::new(argument);
        // A preset's name means the preset, whatever lies beside.
        !model_names().any(|name| name == argument)
            && folder.join("config.json").is_file()
            && (folder.join(ONE_FILE).is_file() || folder.join(INDEX).is_file())
    }

    /// Opens a folder and checks everything but the weights' values.
    ///
    /// # Errors
    /// What is wrong with it, with file, byte or key.
    pub fn open(folder: &Path) -> Result<Self, WorkloadError> {
        let config = folder.join("config.json");
        let text = String::from_utf8(bytes(&config)?).map_err(|e| {
            problem(&config, "", format!("byte {} is not UTF-8", e.utf8_error().valid_up_to()))
        })?;
        let mut spec = read_config(&text, &config.display().to_string())?;
        if spec.extras.stem.is_some() {
            let place = config.display().to_string();
            let text = "weights of encoders of images and sound are not read: name the config.json itself instead of \
                        its folder, for a run without values";
            return Err(WorkloadProblem::new(place, "architectures", text).into());
        }
        if spec.extras.encoder.is_some() {
            spec.extras.pooling = super::pooling::read(folder)?;
        }
        let (names, index) = shards(folder)?;
        let (mut files, mut tensors) = (Vec::new(), BTreeMap::new());
        for (i, name) in names.iter().enumerate() {
            let path = folder.join(name);
            let (file, len) = open(&path)?;
            let place = path.display().to_string();
            for (tensor, entry) in read(BufReader::with_capacity(1 << 16, &file), len, &place)? {
                let at = format!("{place} byte {}", entry.described_at);
                if index.get(&tensor).is_some_and(|other| other != name) {
                    let message = format!("the index says it is in {}", index[&tensor]);
                    return Err(WorkloadProblem::new(at, tensor, message).into());
                }
                if tensors.insert(tensor.clone(), (i, entry)).is_some() {
                    return Err(WorkloadProblem::new(at, tensor, "is in two files").into());
                }
            }
            files.push((path, file));
        }
        if let Some((tensor, file)) = index.iter().find(|(tensor, _)| !tensors.contains_key(*tensor)) {
            return Err(problem(&folder.join(file), tensor, "is not there, but the index says so"));
        }
        let model = Self { spec, folder: folder.to_owned(), files, tensors };
        model.check()?;
        Ok(model)
    }

    /// The tensors are the model's, in shape and type, and no others.
    fn check(&self) -> Result<(), WorkloadError> {
        let mut known = BTreeSet::new();
        for (tensor, layer) in tensors_of(&self.spec) {
            let (name, _, rows) = stored(tensor, layer, &self.spec);
            let Some((file, entry)) = self.tensors.get(&name) else {
                return Err(problem(&self.folder, &name, "is missing"));
            };
            let cols = tensor.shape(&self.spec).1 as u64;
            let expected = if rows == 1 { vec![cols] } else { vec![rows, cols] };
            let place = format!("{} byte {}", self.files[*file].0.display(), entry.described_at);
            if entry.shape != expected {
                let message = format!("expected dimensions {expected:?}, found {:?}", entry.shape);
                return Err(WorkloadProblem::new(place, format!("{name}: shape"), message).into());
            }
            if matches!(entry.element, Element::Other(_)) {
                let message = "expected F32, F16 or BF16, whose values can be decoded";
                return Err(WorkloadProblem::new(place, format!("{name}: dtype"), message).into());
            }
            known.insert(name);
        }
        let stranger = self.tensors.iter().find(|(n, _)| !known.contains(*n) && !beside(n, &self.spec));
        match stranger {
            None => Ok(()),
            Some((name, (file, entry))) => {
                let place = format!("{} byte {}", self.files[*file].0.display(), entry.described_at);
                let message = "is no tensor this architecture is known to have";
                Err(WorkloadProblem::new(place, name, message).into())
            }
        }
    }

    /// The folder's tokenizer.
    ///
    /// # Errors
    /// If there is none that can be read, or it does not match the vocabulary.
    pub fn tokenizer(&self) -> Result<Tokenizer, WorkloadError> {
        let path = self.folder.join("tokenizer.json");
        let [config, generation] = ["tokenizer_config.json", "generation_config.json"].map(|f| self.maybe(f));
        let (config, generation) = (config?, generation?);
        let place = path.display().to_string();
        from_json(&bytes(&path)?, [config.as_ref(), generation.as_ref()], self.spec.vocab, &place)
    }

    fn maybe(&self, name: &str) -> Result<Option<Value>, WorkloadError> {
        let path = self.folder.join(name);
        if path.exists() { json(&path).map(Some) } else { Ok(None) }
    }

    /// The chat template, if the folder has one.
    ///
    /// # Errors
    /// If its file cannot be read.
    pub fn chat_template(&self) -> Result<Option<String>, WorkloadError> {
        let path = self.folder.join("chat_template.jinja");
        if path.exists() {
            let text = String::from_utf8(bytes(&path)?);
            return text.map(Some).map_err(|_| problem(&path, "", "is not UTF-8"));
        }
        Ok(match self.maybe("tokenizer_config.json")?.map(|mut c| c["chat_template"].take()) {
            Some(Value::String(text)) => Some(text),
            // Several by name: the one called default.
            Some(Value::Array(all)) => {
                let default = all.iter().find(|t| t["name"] == "default");
                default.and_then(|t| t["template"].as_str()).map(str::to_owned)
            }
            _ => None,
        })
    }

    /// Bytes of the tensors in the files.
    #[must_use]
    pub fn weight_bytes(&self) -> u64 {
        self.tensors.values().map(|t| t.1.bytes).sum()
    }

    /// Elements of the tensors in the files.
    #[must_use]
    pub fn weight_elements(&self) -> u64 {
        self.tensors.values().map(|t| t.1.elements()).sum()
    }

    /// The whole image under a scheme.
    ///
    /// # Errors
    /// If weights cannot be read.
    pub fn image(&self, layout: &ImageLayout, scheme: &QuantScheme) -> Result<Vec<u8>, WorkloadError> {
        fill_image(layout, &self.spec, scheme, &mut Weights(self))
    }
}

/// A folder's weights as the image builder asks for them: each range is read once, when it is packed.
struct Weights<'a>(&'a SafetensorsModel);

impl TensorSource for Weights<'_> {
    fn values(&mut self, tensor: Tensor, layer: u32) -> Result<Vec<f32>, WorkloadError> {
        let model = self.0;
        let (name, first, _) = stored(tensor, layer, &model.spec);
        let Some((file, entry)) = model.tensors.get(&name) else {
            return Err(problem(&model.folder, &name, "is missing"));
        };
        let (rows, cols) = tensor.shape(&model.spec);
        let element = entry.element.bytes();
        let start = entry.start + first * cols as u64 * element;
        let size = (rows * cols) as u64 * element;
        let (path, file) = &model.files[*file];
        let mut bytes = vec![0; usize::try_from(size).unwrap_or(usize::MAX)];
        let mut file = file;
        file.seek(SeekFrom::Start(start)).and_then(|_| file.read_exact(&mut bytes)).map_err(|e| {
            let place = format!("{} byte {start}", path.display());
            WorkloadProblem::new(place, &name, format!("cannot be read: {}", e.kind()))
        })?;
        let mut values: Vec<f32> = match entry.element {
            Element::F32 => bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            Element::F16 => bytes.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b).to_f32()).collect(),
            Element::Bf16 => bytes.as_chunks().0.iter().map(|b| bf16::from_le_bytes(*b).to_f32()).collect(),
            Element::Other(_) => unreachable!("refused when the folder was opened"),
        };
        if let Some((bad, message)) = tensor.flaw(&model.spec, &values) {
            let place = format!("{} byte {}", path.display(), start + bad as u64 * element);
            return Err(WorkloadProblem::new(place, name, message).into());
        }
        let more = offset(tensor, &model.spec);
        if more != 0.0 {
            values.iter_mut().for_each(|v| *v += more);
        }
        Ok(values)
    }
}
