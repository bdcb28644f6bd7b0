//! Workloads in, observations out.

pub mod analysis;
pub mod gguf;
pub mod image;
pub mod model_file;
pub mod perfetto;
pub mod safetensors;
pub mod template;
pub mod tokenizer;
pub mod topology;
pub mod workload;
