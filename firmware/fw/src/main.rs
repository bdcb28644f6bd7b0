//! The firmware: M-mode on RV64GC harts, from reset to tokens.
//!
//! `boot` (entry, stacks, trap entry) and `hardware` (registers, shared memory) are the only modules with `unsafe`.
#![cfg_attr(target_arch = "riscv64", no_std, no_main)]

#[cfg(target_arch = "riscv64")]
mod boot;
#[cfg(target_arch = "riscv64")]
mod console;
#[cfg(target_arch = "riscv64")]
mod failure;
#[cfg(target_arch = "riscv64")]
mod hardware;
#[cfg(target_arch = "riscv64")]
mod harts;
#[cfg(target_arch = "riscv64")]
mod interrupts;
#[cfg(target_arch = "riscv64")]
mod jobs;
#[cfg(target_arch = "riscv64")]
mod npu;
#[cfg(target_arch = "riscv64")]
mod start;

#[cfg(not(target_arch = "riscv64"))]
fn main() {
    panic!("the firmware runs on RV64 harts: build it with firmware/scripts/build.sh");
}
