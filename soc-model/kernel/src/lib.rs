//! Simulated time, events, random streams and energy: what every model is built on.
//!
//! Nothing here knows what is simulated. Time is integer femtoseconds, energy integer femtojoules with
//! attojoule coefficients; floats are denied in this crate so that neither can pick up rounding.
#![deny(clippy::float_arithmetic)]

pub mod clock;
pub mod energy;
pub mod probe;
pub mod queue;
pub mod random;
pub mod units;

pub use clock::Clock;
pub use energy::{ActionId, EnergyLedger};
pub use probe::{Arguments, Flow, Name, Names, Probe, Sink, Track, TrackInfo, TrackKind};
pub use queue::{Digest, EventCode, EventQueue, Phase, Rank, RankTable};
pub use random::Stream;
pub use units::{Addr, Bytes, Cycles, Energy, Hertz, MilliVolt, Time};
