//! The chip around the NPU: harts, caches, fabric, memory, power, presets, assembly.

pub mod config;
pub mod cpu;
pub mod dram;
pub mod exec;
pub mod fabric;
pub mod power;
pub mod soc;
