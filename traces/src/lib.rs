//! Workloads in, observations out.

pub mod analysis;
pub mod image;
pub mod perfetto;
pub mod workload;
