//! Run records, columns, tables and plots: everything between a finished run and what people read.
//!
//! ```text
//! RunFacts (integers) -> check -> RunRecord (JSON units) -> summary | run.json | CSV | SVG
//!                                        ^ columns: name, unit, path, direction of every metric
//! ```

pub mod columns;
pub mod diff;
pub mod error;
pub mod facts;
pub mod html;
pub mod plots;
pub mod record;
pub mod summary;
pub mod tables;
pub mod write;

mod convert;

pub use error::{CheckError, ReadError, WriteError};
pub use facts::RunFacts;
pub use record::{RunRecord, SCHEMA};
