//! The NPU: sequencer, DMA, scratchpad, matrix and vector engines.

pub mod array;
pub mod config;
pub mod fault;
pub mod local;
pub mod ops;
pub mod study;

pub use config::NpuConfig;
pub use fault::Fault;
pub use local::{Local, Space};
