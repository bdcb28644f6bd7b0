//! Workloads in, observations out.

pub mod workload;
