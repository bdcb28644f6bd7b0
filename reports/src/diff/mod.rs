//! Two runs held against each other: which metrics got worse beyond a tolerance, and which ops that came from.
//!
//! Models: nothing. Reads two records and a gate; directions come from the column table.

pub mod compare;
pub mod gate;
pub mod load;
pub mod output;

pub use compare::{Change, Contribution, Diff, Verdict, compare};
pub use gate::{Gate, GateError, Tolerance, gate_schema};
pub use load::{LoadError, load};
