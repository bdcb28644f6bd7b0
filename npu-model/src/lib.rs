//! The NPU: sequencer, DMA, scratchpad, matrix and vector engines.

pub mod config;

pub use config::NpuConfig;
