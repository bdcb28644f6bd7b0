//! What a memory is built from, and what it counts.
//!
//! Models: the checks on a configuration; statistics by class of requester. Does not model: anything in time.
//! Source: our own.

use super::interleave::Interleave;
use super::map::MapError;
use super::{AddressMap, BURST_BYTES, Controller, Standard, Timings};
use sim_kernel::units::FS_PER_S;
use sim_kernel::{Bytes, Time};

/// Bytes of a CPU line.
pub const LINE_BYTES: u64 = 64;

/// The memory's parameters, resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DramConfig {
    /// Speed grade of every channel.
    pub standard: Standard,
    /// x16 channels.
    pub channels: u32,
    /// Bytes of all channels together.
    pub capacity: Bytes,
    /// Bytes in one channel before the next takes over.
    pub interleave_bytes: u64,
    /// Bytes a flow sends to a channel before the next flow's turn.
    pub grant_bytes: u64,
    /// Address map within a channel.
    pub map: AddressMap,
    /// Queues of each channel's controller.
    pub controller: Controller,
    /// CK relative to nominal, in thousandths.
    pub frequency_permille: u32,
}

/// What is wrong with a memory configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DramConfigError {
    /// A number outside what the model covers.
    #[error("{key} = {value} must be {expected}")]
    Range {
        /// Key.
        key: &'static str,
        /// Value.
        value: u64,
        /// What is accepted.
        expected: &'static str,
    },
    /// The map does not fit the channel.
    #[error("map: {0}")]
    Map(#[from] MapError),
}

impl DramConfig {
    /// Everything that is wrong.
    ///
    /// # Errors
    /// All violated rules.
    pub fn validate(&self) -> Result<(), Vec<DramConfigError>> {
        let mut errors = Vec::new();
        let mut check = |ok: bool, key, value, expected| {
            if !ok {
                errors.push(DramConfigError::Range { key, value, expected });
            }
        };
        let (channels, capacity) = (u64::from(self.channels), self.capacity.get());
        check((1..=64).contains(&channels), "channels", channels, "1 to 64");
        check((1 << 24..=1 << 40).contains(&capacity), "capacity", capacity, "16 MiB to 1 TiB");
        let multiple = |v: u64| v >= LINE_BYTES && v.is_multiple_of(LINE_BYTES) && v <= 1 << 24;
        let rule = "a multiple of 64, at most 16 MiB";
        check(multiple(self.interleave_bytes), "interleave-bytes", self.interleave_bytes, rule);
        check(multiple(self.grant_bytes), "grant-bytes", self.grant_bytes, rule);
        let permille = u64::from(self.frequency_permille);
        check((100..=1500).contains(&permille), "frequency-scale", permille, "100 to 1500 thousandths");
        for (key, value, expected) in self.controller.problems() {
            check(false, key, value, expected);
        }
        let bytes = self.standard.burst_bytes;
        check(bytes == BURST_BYTES, "burst bytes", bytes, "32: a whole memory is modelled with BL16 only");
        if errors.is_empty()
            && let Err(e) = self.channel_map()
        {
            errors.push(e.into());
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    pub(crate) fn channel_map(&self) -> Result<AddressMap, MapError> {
        let bytes = self.capacity.get().div_ceil(u64::from(self.channels)).next_power_of_two();
        self.map.resized(bytes.trailing_zeros())
    }

    pub(crate) fn interleave(&self) -> Interleave {
        Interleave { channels: u64::from(self.channels), bytes: self.interleave_bytes }
    }

    /// Pin bandwidth of all channels in bytes a second.
    #[must_use]
    pub fn peak_bytes_per_s(&self) -> u64 {
        self.ck_hz() * BURST_BYTES / self.timings().bl_min * u64::from(self.channels)
    }

    /// Latency of a read that finds another row open in its bank and the channel idle.
    ///
    /// # Panics
    /// Never: a constraint is far below the range of time.
    pub fn unloaded_read_latency(&self) -> Time {
        let t = self.timings();
        // Rows stay open, so a new flow finds another's: PRE, ACT1, CAS, RD, data.
        let ck = t.rp_pb + t.rcd + 1 + t.read_latency();
        let fs = u128::from(ck) * u128::from(FS_PER_S) / u128::from(self.ck_hz());
        Time::new(u64::try_from(fs).expect("a constraint is far below the range of time"))
    }

    /// Constraints at the configured clock.
    #[must_use]
    pub fn timings(&self) -> Timings {
        self.standard.timings.at_permille(self.frequency_permille)
    }

    /// Command clock in hertz at the configured scale.
    #[must_use]
    pub fn ck_hz(&self) -> u64 {
        self.standard.ck.get() * u64::from(self.frequency_permille) / 1000
    }
}

/// Bytes moved for one class of requester.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub write_bytes: u64,
    /// Transfers or lines asked.
    pub requests: u64,
}

/// What the memory has done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryStats {
    /// Bulk flows.
    pub npu: Moved,
    /// CPU lines.
    pub cpu: Moved,
    /// Bytes of synthetic noise read.
    pub noise_bytes: u64,
    /// Of the activates, those CPU lines needed (sampled path; elsewhere 0).
    pub line_activates: u64,
    /// RD commands, 32 bytes each; exact for what was asked.
    pub read_bursts: u64,
    /// WR commands; exact for what was asked.
    pub write_bursts: u64,
    /// ACT (and later PRE) pairs, in proportion to what the samples showed.
    pub activates: u64,
    /// REFab, all channels.
    pub refreshes: u64,
    /// Per channel: time with at least one flow.
    pub busy: Vec<Time>,
    /// Time all channels have been powered, up to the last advance.
    pub elapsed: Time,
    /// Time CPU lines waited beyond the unloaded latency.
    pub line_wait: Time,
    /// Samples of the exact engine taken.
    pub samples: u64,
    /// Changes of a channel's set of flows.
    pub load_changes: u64,
}
