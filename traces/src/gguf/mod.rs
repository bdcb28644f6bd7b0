//! GGUF files: models with their weights and tokenizer.
//!
//! Models: structure, block formats, the shapes of Llama, Qwen 2 and Qwen 3, byte-level BPE tokenizers.
//! Does not model: other architectures, mixtures of experts, sentencepiece tokenizers, chat templates.
//! Source: the GGUF specification and tensor names as published with ggml.

mod blocks;
mod model;
mod reader;
mod tokenizer;

pub use blocks::{TensorType, type_of};
pub use model::GgufModel;
pub use reader::{Contents, TensorInfo, Value, read};
