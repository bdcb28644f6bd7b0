//! Workloads in, observations out.
