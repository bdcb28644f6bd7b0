//! The contract between software and silicon: instruction and command tables, registers, image layouts.
#![no_std]

#[cfg(test)]
extern crate std;

pub mod rv64;
