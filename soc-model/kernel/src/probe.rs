//! Observation without influence: components emit spans and counters, a sink keeps or drops them.

use crate::queue::Rank;
use crate::units::Time;

/// Names a kind of span in the emitting crate's own table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpanId(pub u32);

/// One observation. `track` tells lanes of one component apart (engines, banks).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// Something lasted from `start` to `end`.
    Span {
        /// Emitting component.
        rank: Rank,
        /// Lane within the component.
        track: u8,
        /// What happened.
        id: SpanId,
        /// Free argument: a tag, a command index, an address.
        argument: u64,
        /// First instant.
        start: Time,
        /// First instant after.
        end: Time,
    },
    /// A value changed.
    Counter {
        /// Emitting component.
        rank: Rank,
        /// Lane within the component.
        track: u8,
        /// When.
        at: Time,
        /// New value.
        value: i64,
    },
}

/// Takes probes. A sink can never answer, so it can never change a run.
pub trait Sink {
    /// Keeps one observation.
    fn emit(&mut self, probe: &Probe);
}

impl Sink for () {
    fn emit(&mut self, _probe: &Probe) {}
}

impl Sink for Vec<Probe> {
    fn emit(&mut self, probe: &Probe) {
        self.push(*probe);
    }
}
