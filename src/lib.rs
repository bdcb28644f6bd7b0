//! The `presil` command as a library: parse, call, print. One file per command under `cmd`.

pub mod cli;
pub mod cmd;
pub mod error;
pub mod session;
pub mod sweep;

pub use error::CliError;
