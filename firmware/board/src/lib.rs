//! The parts of the firmware that only compute: reading the device tree, choosing a token.
//!
//! No hardware access, no allocation, so everything here is tested on the host.
#![no_std]

pub mod fdt;
pub mod pick;
pub mod tree;

pub use pick::Best;
pub use tree::Tree;
