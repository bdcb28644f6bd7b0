//! Models as Hugging Face folders: `config.json`, safetensors files, `tokenizer.json`.
//!
//! Models: single and sharded files, tensor names of the supported families, ranges read where they lie.
//! Does not model: other containers of weights, quantised checkpoints.
//! Source: the safetensors format; tensor names of Hugging Face transformers.

mod header;
mod model;
mod names;
mod pooling;

pub use header::{Element, Entry, read};
pub use model::SafetensorsModel;
