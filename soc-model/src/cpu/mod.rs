//! Harts: RV64GC in machine mode, functional or with a pipeline in time, and what they need around them.
//!
//! ```text
//!              Bus::line (L3, DRAM), Bus::mmio_*, Bus::mtime      -- only at the global time of the access
//!                   ^
//!   Hart { registers, CSRs, decoded blocks } --- pipeline (in-order | functional) --- L1I, L1D, L2 tags
//!                   |
//!              Bus::memory (bytes, no time)
//! ```
//!
//! Models: architectural state exactly; time by core kind.
//! Does not model: supervisor and user mode, virtual memory, sharing states between private caches.
//! Source: RISC-V Instruction Set Manual, Volumes I and II, 20240411.

mod blocks;
pub mod cache;
mod csr;
pub mod devices;
mod execute;
mod float;
mod hart;
pub mod inorder;
pub mod memory;
mod pipeline;
pub mod softfloat;
mod stats;

use serde::{Deserialize, Serialize};
use sim_kernel::Time;

pub use cache::{CacheConfig, CacheConfigError, SharedAccess, SharedCache};
pub use hart::{Commit, CommitRegister, Hart};
pub use inorder::{CoreConfigError, InOrderConfig};
pub use memory::{GuestMemory, MemoryFault, RegionError, Residency};
pub use stats::{CAUSES, Cause, ClassCounts, HartStats};

/// How a hart runs in time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum CoreConfig {
    /// One instruction a cycle, memory without latency: for booting fast.
    Functional,
    /// A narrow in-order pipeline with private caches.
    InOrder(InOrderConfig),
}

/// Why a device access failed; the hart takes an access fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BusFault {
    /// Nothing answers at the address.
    #[error("nothing answers at {0:#x}")]
    Unmapped(u64),
    /// The device has no register of this width there.
    #[error("no register of {size} bytes at {addr:#x}")]
    Width {
        /// Address.
        addr: u64,
        /// Bytes asked for.
        size: u8,
    },
}

/// A line that the private caches of a hart do not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineRequest {
    /// Global time of the request.
    pub now: Time,
    /// Who asks.
    pub hart: usize,
    /// First address of the line.
    pub addr: u64,
    /// The hart will write it.
    pub write: bool,
    /// It is for the instruction cache.
    pub fetch: bool,
}

/// Where a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineSource {
    /// The shared cache.
    SharedCache,
    /// Main memory.
    Dram,
}

/// Answer to a `LineRequest`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineReply {
    /// When the data is in the private cache.
    pub done: Time,
    /// Where it came from.
    pub source: LineSource,
}

/// Levels of the interrupt lines of one hart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InterruptLines {
    /// Machine software interrupt.
    pub software: bool,
    /// Machine timer interrupt.
    pub timer: bool,
    /// Machine external interrupt.
    pub external: bool,
}

/// Everything outside a hart and its private caches.
///
/// Except for `memory`, every method is called only when the hart's own time is the global time `now`, so an
/// implementation may keep order-sensitive state.
pub trait Bus {
    /// The bytes of memory: functional, no time.
    fn memory(&mut self) -> &mut GuestMemory;
    /// Fetches a line into the private caches.
    fn line(&mut self, request: LineRequest) -> LineReply;
    /// A dirty line leaves the private caches.
    fn write_back(&mut self, now: Time, hart: usize, addr: u64);
    /// Reads a device register: value, and when it is back.
    ///
    /// # Errors
    /// If nothing answers.
    fn mmio_load(&mut self, now: Time, hart: usize, addr: u64, size: u8) -> Result<(u64, Time), BusFault>;
    /// Writes a device register: when it is done.
    ///
    /// # Errors
    /// If nothing answers.
    fn mmio_store(
        &mut self,
        now: Time,
        hart: usize,
        addr: u64,
        size: u8,
        value: u64,
    ) -> Result<Time, BusFault>;
    /// The hart's interrupt lines; asked at the start of a run and after every device access.
    fn interrupt_lines(&mut self, now: Time, hart: usize) -> InterruptLines;
    /// The real-time counter.
    fn mtime(&mut self, now: Time) -> u64;
}

/// Why `Hart::run` came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Waiting for an interrupt: run again when one is pending (`Hart::wakes`).
    Wfi,
    /// The next instruction needs the outside world: run again at exactly this time.
    SharedAt(Time),
    /// The time slice is used up: run again at this time.
    Quantum(Time),
    /// A watched line of memory was written: look at it, then run again at this time.
    Watch(Time),
    /// The instruction limit is reached.
    Limit,
    /// The first instruction of the trap handler traps into itself: the hart will never get out.
    Lost,
}
