//! Workloads in, observations out.

pub mod analysis;
pub mod gguf;
pub mod image;
pub mod perfetto;
pub mod topology;
pub mod workload;
