//! The console: a 16550 that only sends.

use core::fmt;

use crate::hardware::CONSOLE;

/// Transmit register.
const THR: u64 = 0;
/// Line status register, and its bit that says the transmit register is empty.
const LSR: u64 = 5;
const THR_EMPTY: u8 = 0x20;

/// Writes to the console.
pub struct Console;

impl fmt::Write for Console {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        for byte in s.bytes() {
            while CONSOLE.load8(LSR) & THR_EMPTY == 0 {
                core::hint::spin_loop();
            }
            CONSOLE.store8(THR, byte);
        }
        Ok(())
    }
}

/// Prints a line on the console.
macro_rules! line {
    ($($arguments:tt)*) => {{
        use core::fmt::Write as _;
        // The console takes everything: its writer never fails.
        let _ = writeln!($crate::console::Console, $($arguments)*);
    }};
}
pub(crate) use line;
