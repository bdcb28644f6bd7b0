//! The phone's memory: LPDDR channels, their controllers and the interleave over them.
//!
//! ```text
//!  flows, CPU lines ──► MemorySystem (system.rs) ──► per-channel capacity, measured by
//!                                                    burst.rs (event-skipping engine, equal to tick)
//!             or ExactMemory (exact.rs) ───────────► every burst in burst.rs, no sampling
//!  replayed streams ──► replay.rs ─────────────────► tick.rs (plain every-CK oracle)
//!  address ──► map.rs ──► bank, row, column          timings: standard.rs, constraints.rs, presets/dram/*.toml
//! ```
//!
//! Models: bank groups, two-step activation, WCK sync, two schedulers, three row policies, write drain, all-bank and
//! per-bank refresh with postponing, power-down, self-refresh. Does not model: several ranks, PHY latency.
//! Source: JESD209-5 timing tables as quoted in the presets; controller rules of Ramulator 2.1's LPDDR5 model.

pub mod burst;
pub mod config;
pub mod constraints;
pub mod controller;
pub mod energy;
pub mod exact;
pub mod interleave;
pub mod map;
pub mod noise;
pub mod replay;
pub mod replay_io;
mod ring;
pub mod sample;
mod share;
pub mod standard;
pub mod streams;
pub mod system;
pub mod tick;
pub mod timings;

pub use burst::BurstChannel;
pub use config::{DramConfig, DramConfigError, MemoryStats};
pub use controller::{Controller, Refresh, RowPolicy, Scheduler, Wck};
pub use exact::ExactMemory;
pub use map::AddressMap;
pub use noise::Noise;
pub use standard::{BankMode, Mode, Standard, Timings};
pub use system::{FlowId, MemorySystem, Qos, Transfer};
pub use tick::TickChannel;

/// Banks of a channel: four groups of four.
pub const BANKS: usize = 16;
/// Bank groups of a channel.
pub const GROUPS: usize = 4;
/// Bytes of one burst: BL16 on sixteen pins.
pub const BURST_BYTES: u64 = 32;

/// Where a burst lives in a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Place {
    /// Flat bank number: group x 4 + bank in group.
    pub bank: u8,
    /// Row.
    pub row: u32,
    /// Column in units of bursts.
    pub column: u16,
}

impl Place {
    /// Bank group.
    #[must_use]
    pub const fn group(self) -> usize {
        (self.bank >> 2) as usize
    }
}

/// One burst asked of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Request {
    /// Where.
    pub place: Place,
    /// Write, or read.
    pub write: bool,
    /// Class of service, 0 to 3: a higher one is served first, any above 0 may use the reserve of the read buffer.
    pub class: u8,
    /// The sender's mark, returned with the completion.
    pub tag: u32,
}

/// A burst that has been issued to the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done {
    /// The sender's mark.
    pub tag: u32,
    /// Write, or read.
    pub write: bool,
    /// CK in which the controller took the burst.
    pub accepted: u64,
    /// CK in which the data is back (read) or the command was issued (write).
    pub done: u64,
}

macro_rules! counters {
    ($( #[$doc:meta] $name:ident { $( $field:ident : $text:literal ),* $(,)? } )*) => { $(
        #[$doc]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $name { $( #[doc = $text] pub $field: u64, )* }

        impl $name {
            /// Name and value of every counter.
            #[must_use]
            pub fn named(&self) -> Vec<(&'static str, u64)> {
                vec![ $( (stringify!($field), self.$field), )* ]
            }

            /// Adds `times` times what `after` has more than `before`.
            pub fn add_scaled(&mut self, after: &Self, before: &Self, times: u64) {
                $( self.$field += (after.$field - before.$field) * times; )*
            }
        }
    )* };
}

counters! {
    /// Commands a channel has issued.
    Commands {
        reads: "RD, with auto-precharge or without.",
        writes: "WR, with auto-precharge or without.",
        activates: "ACT1/ACT2 pairs.",
        precharges: "PREpb.",
        auto_precharges: "Rows closed by their last RD or WR.",
        precharges_all: "PREab.",
        refreshes: "REFab.",
        bank_refreshes: "REFpb.",
        syncs: "CAS (WCK sync).",
        power_downs: "Entries into power-down.",
        self_refreshes: "Entries into self-refresh.",
        row_hits: "Bursts whose first command was RD or WR.",
        row_misses: "Bursts that found their bank closed.",
        row_conflicts: "Bursts that had to close another row.",
        forwarded: "Reads answered from the write buffer, and writes merged into it.",
    }
    /// CKs a channel has spent in each state of power.
    States {
        active: "At least one row open.",
        precharged: "All rows closed.",
        power_down: "In power-down.",
        self_refresh: "In self-refresh.",
    }
}
