//! Observations of a run as a Perfetto trace: written while the run goes on, read back packet by packet.
//!
//! What a file holds, beside what the Perfetto schema says:
//! - Timestamps are whole nanoseconds from reset, rounded down, on the trace's default clock. Cycles of engines faster
//!   than 1 GHz are shorter than that, so every slice of an NPU engine carries its exact length as argument `cycles`.
//! - Slices of an engine's track are its active cycles and nothing else. What it waited for before (`wait_...`) and what
//!   its command took beside (`fill_drain`, `dram`) are arguments, in cycles.
//! - The instants of track `accounts` hold every engine's exact cycles by cause from time zero to the end.
//! - The first event is named [`HEADER`], the last one [`FOOTER`]; both carry text, and the footer the number of slices.
//!
//! Source: the published `perfetto_trace.proto`; only the fields used here are declared.

mod proto;
mod read;
mod write;

pub use read::{Event, Reader, TraceError, TrackEntry};
pub use write::Writer;

/// Name of the first event, and version of what this module says about files.
pub const HEADER: &str = "presil.trace/1";
/// Name of the last event.
pub const FOOTER: &str = "presil.end";
/// Argument of the footer: slices in the file.
pub const SLICES: &str = "slices";
/// Name of the track with the engines' accounts.
pub const ACCOUNTS: &str = "accounts";
/// Sequence of packets everything is written in.
const SEQUENCE: u32 = 1;
/// Tag and wire type of a packet in a trace: field 1, length-delimited.
const PACKET_TAG: u8 = 0x0a;
/// Nanosecond in femtoseconds.
const FS_PER_NS: u64 = 1_000_000;
