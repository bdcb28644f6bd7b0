//! The contract between software and silicon, shared by the firmware and every model.
//!
//! `no_std`, no dependencies, no notion of time or energy: tables of instructions, commands and registers,
//! and the layouts of what the loader places in memory. Encoders, decoders, documentation and checks are
//! derived from the tables.
#![no_std]

#[cfg(feature = "text")]
extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod boot;
pub mod cache;
#[cfg(feature = "text")]
pub mod header;
pub mod image;
pub mod kinds;
pub mod memory_map;
pub mod npu;
pub mod rv64;
pub mod tags;
