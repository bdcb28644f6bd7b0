//! The `presil` command.
fn main() {}
