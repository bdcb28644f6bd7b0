//! The end: tell the mailbox, then sleep for good.

use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, Ordering};

use isa::memory_map::{error, mailbox};

use crate::console::line;
use crate::hardware::{JOBS, fence, park};

/// Gives up with a code of [`isa::memory_map::error`]; the console line that says why comes before.
pub fn give_up(code: u64) -> ! {
    static GIVEN_UP: AtomicBool = AtomicBool::new(false);
    // Telling may itself trap: then there is no mailbox to tell.
    if !GIVEN_UP.swap(true, Ordering::Relaxed) {
        fence();
        JOBS.store(mailbox::ERROR, code);
    }
    park()
}

#[panic_handler]
fn panic(info: &PanicInfo) -> ! {
    static AGAIN: AtomicBool = AtomicBool::new(false);
    // A panic while printing one would never end.
    if !AGAIN.swap(true, Ordering::Relaxed) {
        line!("panic: {info}");
    }
    give_up(error::PANIC)
}
