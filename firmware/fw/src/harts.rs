//! The other harts: rung once by hart 0 to see that they live, asleep otherwise.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::hardware::{self, SOFTWARE, TIMER, TIMERS, fence, sleep_until};

/// Bit i: hart i has answered.
static ANSWERED: AtomicU64 = AtomicU64::new(0);
/// Set by the timer.
static LATE: AtomicBool = AtomicBool::new(false);

/// Offsets in the timer block: SiFive FU540-C000 Manual v1p0, chapter 9.
const fn msip(hart: usize) -> u64 {
    hart as u64 * 4
}
const fn mtimecmp(hart: usize) -> u64 {
    0x4000 + hart as u64 * 8
}
const MTIME: u64 = 0xBFF8;

/// A hart other than 0 after its first ring, which is still pending.
pub fn serve(_hart: usize) -> ! {
    hardware::enable(1 << SOFTWARE);
    sleep_until(|| false);
    hardware::park()
}

/// Software interrupt: the other harts answer hart 0; hart 0 just wakes.
pub fn rung() {
    let hart = hardware::hart();
    TIMERS.store32(msip(hart), 0);
    if hart != 0 {
        ANSWERED.fetch_or(1 << hart, Ordering::Release);
        fence();
        TIMERS.store32(msip(0), 1);
    }
}

/// Timer interrupt.
pub fn alarm() {
    TIMERS.store(mtimecmp(hardware::hart()), u64::MAX);
    LATE.store(true, Ordering::Relaxed);
}

/// Rings the harts of `expected` (bits by number) and returns those that answered, at the latest after 100 ms.
pub fn roll_call(expected: u64, timebase_hz: u64) -> u64 {
    let others = expected & !1;
    fence();
    for hart in (0..64).filter(|h| others >> h & 1 == 1) {
        TIMERS.store32(msip(hart), 1);
    }
    // Without a known rate: a million ticks.
    let ticks = if timebase_hz == 0 { 1_000_000 } else { timebase_hz / 10 };
    TIMERS.store(mtimecmp(0), TIMERS.load(MTIME).saturating_add(ticks));
    hardware::enable(1 << SOFTWARE | 1 << TIMER);
    sleep_until(|| ANSWERED.load(Ordering::Acquire) & others == others || LATE.load(Ordering::Relaxed));
    hardware::disable(1 << SOFTWARE | 1 << TIMER);
    TIMERS.store(mtimecmp(0), u64::MAX);
    ANSWERED.load(Ordering::Acquire) & others | 1
}
