//! What can be wrong with a record: a broken conservation law, a file that is not a record, a file not written.

use std::path::PathBuf;

use thiserror::Error;

/// Two sides of a law that should agree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// The law.
    pub law: &'static str,
    /// Where it was applied.
    pub place: String,
    /// Left side.
    pub left: u128,
    /// Right side.
    pub right: u128,
}

/// A law a finished run breaks: the model, not the user, is wrong.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum CheckError {
    /// Two integers that must be equal are not.
    #[error("{}: {} does not hold, {} against {}", .0.place, .0.law, .0.left, .0.right)]
    NotEqual(Mismatch),
    /// An integer exceeds its bound.
    #[error("{}: {} does not hold, {} is more than {}", .0.place, .0.law, .0.left, .0.right)]
    Exceeds(Mismatch),
    /// Something a record cannot do without is missing.
    #[error("{what} is empty")]
    Empty {
        /// What.
        what: &'static str,
    },
    /// A word that is not snake case.
    #[error("{place}: `{word}` is not snake_case")]
    NotSnakeCase {
        /// Where.
        place: String,
        /// The word.
        word: String,
    },
    /// A cause took the name of the total.
    #[error("cycles.{engine}: no cause may be called `total`")]
    ReservedCause {
        /// The engine.
        engine: String,
    },
    /// A number that JSON cannot hold.
    #[error("{path}: not a finite number")]
    NotFinite {
        /// Path within the record.
        path: String,
    },
    /// A converted figure left its bounds.
    #[error("{path}: {value} is outside {low} to {high}")]
    OutOfRange {
        /// Path within the record.
        path: &'static str,
        /// Value.
        value: f64,
        /// Least.
        low: f64,
        /// Most.
        high: f64,
    },
    /// Converted parts no longer sum to their whole.
    #[error("{path}: parts sum to {parts}, the whole is {whole}")]
    PartsDiffer {
        /// Path within the record.
        path: String,
        /// Sum of the parts.
        parts: f64,
        /// The whole.
        whole: f64,
    },
}

/// A text that is not a run record.
#[derive(Debug, Error)]
pub enum ReadError {
    /// Not JSON, or a key is missing or has the wrong type.
    #[error("not a run record: {0}")]
    Json(#[from] serde_json::Error),
    /// Another schema.
    #[error("not a run record: schema is {found}, expected \"{expected}\"")]
    Schema {
        /// What the file says.
        found: String,
        /// What is read here.
        expected: &'static str,
    },
    /// A null where a number belongs.
    #[error("not a run record: {path} is null; an unknown figure is left out instead")]
    Null {
        /// Path within the record.
        path: String,
    },
}

/// A result that could not be written.
#[derive(Debug, Error)]
pub enum WriteError {
    /// The file system refused.
    #[error("cannot write {}: {source}", path.display())]
    File {
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The record could not be turned into JSON.
    #[error("cannot write the record as JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// A plot could not be drawn.
    #[error("cannot draw {plot}: {reason}")]
    Plot {
        /// Which.
        plot: &'static str,
        /// Why.
        reason: String,
    },
}
