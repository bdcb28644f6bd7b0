//! The chip around the NPU: harts, caches, fabric, memory, power, presets, assembly.

pub mod config;
pub mod power;
