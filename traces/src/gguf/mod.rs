//! GGUF files: models with their weights and tokenizer.
//!
//! Models: structure, block formats, shapes of the families in `shape`, tokenizers of three kinds.
//! Does not model: other architectures, mixtures of experts, unigram tokenizers.
//! Source: the GGUF specification and tensor names as published with ggml.

mod blocks;
mod model;
mod names;
mod reader;
mod shape;
mod tokenizer;

pub use blocks::{TensorType, type_of};
pub use model::GgufModel;
pub use reader::{Contents, TensorInfo, Value, read};
