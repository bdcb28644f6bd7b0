//! Workloads in, observations out.

pub mod image;
pub mod workload;
