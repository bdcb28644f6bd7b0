//! What a trace says, read in one pass: memory grows with tracks, names and engines, never with the file.

mod collect;
mod views;

pub use collect::{Collected, CounterTotal, OpTotal, TrackTotal, collect};
pub use views::{
    CauseShare, CounterRow, EngineStalls, KindRow, OpFigures, OpRow, Ops, Stalls, Summary, TokenTimes,
    TrackRow, ops, stalls, summary,
};
