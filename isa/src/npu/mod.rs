//! The NPU command set: 256-bit self-contained words, four in-order engines, counting semaphores.
//!
//! `word` is the bit container, `layout` the field tables (one row a field), `ops` the operation tables, `dma` the
//! codes and byte layouts of transfers,
//! `command` a decoded command with its extensions, `registers` the MMIO page, `text` the assembler.
//!
//! # Conventions every engine obeys
//! - Scratchpad (SPM) and accumulator (ACC) addresses and strides are in granules of 32 bytes.
//! - A command acquires its `w0`/`w1` semaphores before it starts and posts `s0`/`s1` when its writes are visible.
//! - Semaphores 0..=47 are local to a core. Posting 48..=63 adds to that semaphore in *every* enabled core;
//!   a core acquires from its own copy. So "all of n cores have posted" is an acquire of n.
//! - Region registers are read when the sequencer dispatches a command, not when its engine starts it.
//! - Reserved bits must be zero.
//! - A core has four queues, one of which is active. A queue has its own semaphores, region and scalar registers,
//!   predicate, call stack, loops and FIFOs; local memories and engines are the core's. A post to 48..=63 reaches the
//!   queue of the same number in every core.
//! - An address-generation extension stands last; the sequencer applies it (trip number times its adds) at dispatch.
//! - A command with `pred` is skipped when the predicate is 0 at dispatch; its waits and posts happen in order.

pub mod command;
pub mod dma;
pub mod layout;
pub mod ops;
pub mod pmu;
pub mod registers;
#[cfg(feature = "text")]
pub mod text;
pub mod word;

pub use command::{Body, Command, DecodeError, Extension};
pub use layout::{Agu, Ctrl, Dma, Epilogue, Field, Gemm, Header, Index, Position, Vec as VecOp};
pub use ops::{CtrlOp, Engine, Format, VecFn};
pub use word::Word;

/// Bytes in a scratchpad granule.
pub const GRANULE: u64 = 32;
/// First cluster-visible semaphore.
pub const CLUSTER_SEMAPHORES: u64 = 48;
/// Semaphores per core.
pub const SEMAPHORES: usize = 64;
/// Most cores: `cmask` is 8 bits wide.
pub const MAX_CORES: usize = 8;
/// Region registers per queue.
pub const REGIONS: usize = 16;
