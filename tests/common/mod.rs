//! Runs the built command.

use std::process::{Command, Output};

/// What one command line gave.
pub struct Ran {
    /// Exit code.
    pub code: i32,
    /// Standard output.
    #[allow(dead_code, reason = "not every suite reads what it says")]
    pub out: String,
    /// Standard error.
    pub err: String,
}

/// Runs `presil` with these arguments.
pub fn presil(arguments: &[&str]) -> Ran {
    let Output { status, stdout, stderr } =
        Command::new(env!("CARGO_BIN_EXE_presil")).args(arguments).output().expect("the command starts");
    let text = |bytes| String::from_utf8(bytes).expect("presil writes UTF-8");
    let ran = Ran { code: status.code().unwrap_or(-1), out: text(stdout), err: text(stderr) };
    assert!(!ran.err.contains("panicked"), "{arguments:?}: {}", ran.err);
    ran
}
