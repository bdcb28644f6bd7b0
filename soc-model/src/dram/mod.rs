//! The phone's memory: LPDDR channels, their controllers and the interleave over them.
//!
//! ```text
//!  flows, CPU lines ──► MemorySystem (system.rs) ──► per-channel capacity, measured by
//!                                                    burst.rs (event-skipping engine, equal to tick)
//!             or ExactMemory (exact.rs) ───────────► every burst in burst.rs, no sampling
//!  replayed streams ──► replay.rs ─────────────────► tick.rs (plain every-CK oracle)
//!  address ──► map.rs ──► bank, row, column          timings: standard.rs, presets/dram/*.toml
//! ```
//!
//! Models: bank groups, two-step activation, WCK sync, oldest-ready scheduling, write drain, all-bank refresh.
//! Does not model: several ranks, per-bank refresh, power-down entry and exit times, link ECC, PHY latency.
//! Source: JESD209-5 timing tables as quoted in the presets; controller rules of Ramulator 2.1's LPDDR5 model.

pub mod burst;
pub mod config;
pub mod energy;
pub mod exact;
pub mod interleave;
pub mod map;
pub mod noise;
pub mod replay;
pub mod replay_io;
mod ring;
pub mod sample;
pub mod standard;
pub mod streams;
pub mod system;
pub mod tick;

pub use burst::BurstChannel;
pub use config::{DramConfig, DramConfigError, MemoryStats};
pub use exact::ExactMemory;
pub use map::AddressMap;
pub use noise::Noise;
pub use standard::{Standard, Timings};
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

/// One 32-byte burst asked of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Request {
    /// Where.
    pub place: Place,
    /// Write, or read.
    pub write: bool,
    /// Cuts in before ordinary requests; may use the reserve of the read buffer.
    pub urgent: bool,
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

/// The controller's queues and write-drain thresholds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Controller {
    /// Reads that can wait; at most 32.
    pub read_buffer: u32,
    /// Writes that can wait; at most 32.
    pub write_buffer: u32,
    /// Writing starts when more writes than this wait (or no read does).
    pub drain_above: u32,
    /// Writing ends when fewer writes than this wait and a read does.
    pub drain_until_below: u32,
    /// A read that has waited this many CK ends writing whatever the thresholds say; `u64::MAX` never does.
    pub read_patience: u64,
    /// Refresh commands are sent.
    pub refresh: bool,
}

/// Slots of the read buffer only urgent requests may take.
pub const URGENT_RESERVE: u32 = 8;

impl Controller {
    /// Buffers of 32, drain from 0.8 down to 0.2, no limit on waiting: Ramulator 2.1's defaults for LPDDR5.
    pub const DEFAULT: Self = Self {
        read_buffer: 32,
        write_buffer: 32,
        drain_above: 25,
        drain_until_below: 7,
        read_patience: u64::MAX,
        refresh: true,
    };

    /// The same with a limit on waiting: without one, writers that keep the buffer filled starve the last reads
    /// of a transfer for as long as they write. The limit is an estimate, accuracy class C.
    pub const PHONE: Self = Self { read_patience: 512, ..Self::DEFAULT };
}

/// Commands a channel has issued.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Commands {
    /// RD.
    pub reads: u64,
    /// WR.
    pub writes: u64,
    /// ACT1/ACT2 pairs.
    pub activates: u64,
    /// PREpb.
    pub precharges: u64,
    /// PREab.
    pub precharges_all: u64,
    /// REFab.
    pub refreshes: u64,
    /// CAS (WCK sync).
    pub syncs: u64,
    /// Bursts whose first command was RD or WR.
    pub row_hits: u64,
    /// Bursts that found their bank closed.
    pub row_misses: u64,
    /// Bursts that had to close another row.
    pub row_conflicts: u64,
    /// Reads answered from the write buffer, and writes merged into it.
    pub forwarded: u64,
}

impl Commands {
    /// Adds `times` times what `after` has more than `before`.
    pub fn add_scaled(&mut self, after: &Self, before: &Self, times: u64) {
        let fields = |c: &Self| {
            [
                c.reads,
                c.writes,
                c.activates,
                c.precharges,
                c.precharges_all,
                c.refreshes,
                c.syncs,
                c.row_hits,
                c.row_misses,
                c.row_conflicts,
                c.forwarded,
            ]
        };
        let (after, before, mut sum) = (fields(after), fields(before), fields(self));
        for (s, (a, b)) in sum.iter_mut().zip(after.iter().zip(before)) {
            *s += (a - b) * times;
        }
        let [
            reads,
            writes,
            activates,
            precharges,
            precharges_all,
            refreshes,
            syncs,
            row_hits,
            row_misses,
            row_conflicts,
            forwarded,
        ] = sum;
        *self = Self {
            reads,
            writes,
            activates,
            precharges,
            precharges_all,
            refreshes,
            syncs,
            row_hits,
            row_misses,
            row_conflicts,
            forwarded,
        };
    }
}
