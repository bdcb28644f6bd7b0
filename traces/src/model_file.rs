//! A model with its weights, whatever its files: what a functional run needs of it.

use std::path::Path;

use crate::gguf::GgufModel;
use crate::image::ImageLayout;
use crate::safetensors::SafetensorsModel;
use crate::tokenizer::Tokenizer;
use crate::workload::{ModelSpec, QuantScheme, WorkloadError};

/// An opened model.
#[derive(Debug, PartialEq)]
pub enum ModelFile {
    /// A GGUF file.
    Gguf(Box<GgufModel>),
    /// A folder of safetensors files.
    Safetensors(Box<SafetensorsModel>),
}

impl ModelFile {
    /// Whether an argument names one.
    #[must_use]
    pub fn is_one(argument: &str) -> bool {
        GgufModel::is_one(argument) || SafetensorsModel::is_one(argument)
    }

    /// Opens it and checks everything but the weights' values.
    ///
    /// # Errors
    /// What is wrong with it, with file and byte or key.
    pub fn open(argument: &str) -> Result<Self, WorkloadError> {
        let path = Path::new(argument);
        if SafetensorsModel::is_one(argument) {
            return SafetensorsModel::open(path).map(Box::new).map(Self::Safetensors);
        }
        GgufModel::open(path).map(Box::new).map(Self::Gguf)
    }

    /// Shape.
    #[must_use]
    pub fn spec(&self) -> &ModelSpec {
        match self {
            Self::Gguf(m) => &m.spec,
            Self::Safetensors(m) => &m.spec,
        }
    }

    /// The scheme of that name, or without one what the files decide, if they do: a folder's plain numbers can be
    /// quantised to any.
    ///
    /// # Errors
    /// If there is no such scheme or the files cannot be computed in it.
    pub fn scheme(&self, asked: Option<&str>) -> Result<Option<QuantScheme>, WorkloadError> {
        match (self, asked) {
            (Self::Gguf(m), None) => Ok(Some(m.scheme.clone())),
            (Self::Gguf(m), Some(name)) => m.scheme_named(name).map(Some),
            (Self::Safetensors(_), None) => Ok(None),
            (Self::Safetensors(_), Some(name)) => QuantScheme::named(name).map(Some),
        }
    }

    /// The tokenizer.
    ///
    /// # Errors
    /// If it is of a kind that is not known or does not match the vocabulary.
    pub fn tokenizer(&self) -> Result<Tokenizer, WorkloadError> {
        match self {
            Self::Gguf(m) => m.tokenizer(),
            Self::Safetensors(m) => m.tokenizer(),
        }
    }

    /// The chat template, if there is one.
    ///
    /// # Errors
    /// If its file cannot be read.
    pub fn chat_template(&self) -> Result<Option<String>, WorkloadError> {
        match self {
            Self::Gguf(m) => Ok(m.chat_template().map(str::to_owned)),
            Self::Safetensors(m) => m.chat_template(),
        }
    }

    /// Bytes of the tensors in the files.
    #[must_use]
    pub fn weight_bytes(&self) -> u64 {
        match self {
            Self::Gguf(m) => m.weight_bytes(),
            Self::Safetensors(m) => m.weight_bytes(),
        }
    }

    /// Elements of the tensors in the files.
    #[must_use]
    pub fn weight_elements(&self) -> u64 {
        match self {
            Self::Gguf(m) => m.weight_elements(),
            Self::Safetensors(m) => m.weight_elements(),
        }
    }

    /// The layout of its image under a scheme, for a run of that many positions: some models rotate longer runs by
    /// other factors.
    ///
    /// # Errors
    /// If the model's sizes have no layout.
    pub fn layout(&self, scheme: &QuantScheme, positions: u64) -> Result<ImageLayout, WorkloadError> {
        match self {
            Self::Gguf(m) => m.layout_as(scheme, positions),
            Self::Safetensors(m) => ImageLayout::new(&m.spec.at(positions), scheme),
        }
    }

    /// The whole image.
    ///
    /// # Errors
    /// If weights cannot be read.
    pub fn image(&self, layout: &ImageLayout, scheme: &QuantScheme) -> Result<Vec<u8>, WorkloadError> {
        match self {
            Self::Gguf(m) => m.image_as(layout, scheme),
            Self::Safetensors(m) => m.image(layout, scheme),
        }
    }
}
