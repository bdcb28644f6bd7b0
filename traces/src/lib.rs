//! Workloads in, observations out.

pub mod gguf;
pub mod image;
pub mod workload;
