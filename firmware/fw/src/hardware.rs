//! Everything that touches hardware or memory Rust does not own: registers, CSRs, the loader's memory.
#![allow(unsafe_code, reason = "registers and memory handed over by the loader have no safe access")]

use core::arch::asm;

use isa::memory_map::{CLINT, DRAM_BASE, MAILBOX, NPU, NPU_STRIDE, PLIC, UART, Window};
use isa::npu::Word;
use runtime::Sink;

/// Interrupt enables: bits of `mie` and, by number, causes of interrupts.
pub const SOFTWARE: usize = 3;
/// Timer.
pub const TIMER: usize = 7;
/// External.
pub const EXTERNAL: usize = 11;

/// Registers of a device.
#[derive(Clone, Copy)]
pub struct Device {
    base: usize,
    bytes: usize,
}

/// The console.
pub const CONSOLE: Device = Device::new(UART);
/// Jobs in, tokens out.
pub const JOBS: Device = Device::new(MAILBOX);
/// Timer and inter-processor interrupts.
pub const TIMERS: Device = Device::new(CLINT);
/// The interrupt controller.
pub const CONTROLLER: Device = Device::new(PLIC);

impl Device {
    const fn new(w: Window) -> Self {
        Self { base: w.base as usize, bytes: w.bytes as usize }
    }

    /// Registers of an NPU core.
    ///
    /// # Panics
    /// If there is no room for so many cores in the memory map.
    pub fn npu(core: u64) -> Self {
        assert!((core + 1) * NPU_STRIDE <= NPU.bytes, "no such NPU core");
        Self { base: (NPU.base + core * NPU_STRIDE) as usize, bytes: NPU_STRIDE as usize }
    }

    fn at<T>(self, offset: u64) -> *mut T {
        let (offset, size) = (offset as usize, size_of::<T>());
        assert!(offset % size == 0 && offset + size <= self.bytes, "no register there");
        (self.base + offset) as *mut T
    }

    /// Reads a 64-bit register.
    pub fn load(self, offset: u64) -> u64 {
        // SAFETY: `at` keeps the aligned address inside a window of the memory map, which holds registers only.
        unsafe { self.at::<u64>(offset).read_volatile() }
    }

    /// Writes a 64-bit register.
    pub fn store(self, offset: u64, value: u64) {
        // SAFETY: as in `load`; devices reach memory only in the arena and bulk memory, of which Rust has no references.
        unsafe { self.at::<u64>(offset).write_volatile(value) }
    }

    /// Reads a 32-bit register.
    pub fn load32(self, offset: u64) -> u32 {
        // SAFETY: as in `load`.
        unsafe { self.at::<u32>(offset).read_volatile() }
    }

    /// Writes a 32-bit register.
    pub fn store32(self, offset: u64, value: u32) {
        // SAFETY: as in `store`.
        unsafe { self.at::<u32>(offset).write_volatile(value) }
    }

    /// Reads an 8-bit register.
    pub fn load8(self, offset: u64) -> u8 {
        // SAFETY: as in `load`.
        unsafe { self.at::<u8>(offset).read_volatile() }
    }

    /// Writes an 8-bit register.
    pub fn store8(self, offset: u64, value: u8) {
        // SAFETY: as in `store`.
        unsafe { self.at::<u8>(offset).write_volatile(value) }
    }
}

/// Makes memory written so far visible to devices before the registers written next, and the reverse.
pub fn fence() {
    // SAFETY: a fence only orders; without `nomem` the compiler keeps memory accesses on their side of it.
    unsafe { asm!("fence iorw, iorw", options(nostack, preserves_flags)) }
}

/// Lets this hart be interrupted by `causes` (bits by cause number) from now on.
pub fn enable(causes: usize) {
    // SAFETY: the trap entry is in place since the first instructions; it saves all it changes.
    unsafe { asm!("csrs mie, {0}", "csrsi mstatus, 8", in(reg) causes, options(nostack)) }
}

/// No interrupts of `causes` from now on.
pub fn disable(causes: usize) {
    // SAFETY: fewer interrupts than before.
    unsafe { asm!("csrc mie, {0}", in(reg) causes, options(nostack)) }
}

/// Sleeps until `done`, which only an interrupt can make true.
///
/// Interrupts are held back while `done` is asked, and a pending one ends the sleep: none is missed in between.
pub fn sleep_until(mut done: impl FnMut() -> bool) {
    loop {
        // SAFETY: interrupts are held back until the matching `csrsi` below.
        unsafe { asm!("csrci mstatus, 8", options(nostack)) }
        let finished = done();
        if !finished {
            // SAFETY: sleeps; memory may have changed when it returns, which the missing `nomem` says.
            unsafe { asm!("wfi", options(nostack)) }
        }
        // SAFETY: undoes the `csrci`; every caller runs with interrupts enabled.
        unsafe { asm!("csrsi mstatus, 8", options(nostack)) }
        if finished {
            return;
        }
    }
}

/// Sleeps for good.
pub fn park() -> ! {
    loop {
        // SAFETY: no interrupt is enabled, so nothing runs on this hart again.
        unsafe { asm!("csrw mie, zero", "csrci mstatus, 8", "wfi", options(nostack)) }
    }
}

/// This hart's number.
pub fn hart() -> usize {
    let hart;
    // SAFETY: reads a CSR without side effects.
    unsafe { asm!("csrr {0}, mhartid", out(reg) hart, options(nomem, nostack, preserves_flags)) }
    hart
}

/// Bytes the loader left at `address`, for as long as the firmware runs.
///
/// # Panics
/// If they are not in DRAM behind the firmware's own part.
pub fn loaded(address: usize, bytes: usize) -> &'static [u8] {
    /// The firmware's own part of DRAM, as in `link.ld`.
    const OWN: u64 = 4 << 20;
    assert!(
        address as u64 >= DRAM_BASE + OWN && address.checked_add(bytes).is_some(),
        "the loader's data is not behind the firmware"
    );
    // SAFETY: the bytes lie outside the firmware's memory, the loader wrote them before reset and nothing else writes them
    // (the device tree blob is the only thing read this way).
    unsafe { core::slice::from_raw_parts(address as *const u8, bytes) }
}

/// Memory the NPU shares with hart 0, in 64-bit words.
pub struct Shared {
    base: usize,
    bytes: u64,
    /// Whether a word was dropped because it lies outside.
    pub overflow: bool,
}

impl Shared {
    /// Memory of `bytes` at `base`, or nothing if that is not memory behind the firmware, 64-byte aligned.
    pub fn new(base: u64, bytes: u64) -> Option<Self> {
        let free = base >= DRAM_BASE + (4 << 20) && base % 64 == 0 && base.checked_add(bytes).is_some();
        free.then_some(Self { base: base as usize, bytes, overflow: false })
    }

    /// The 64-bit word at `offset`.
    ///
    /// # Panics
    /// If it lies outside or is not aligned.
    pub fn word(&self, offset: u64) -> u64 {
        assert!(
            offset % 8 == 0 && offset < self.bytes && self.bytes - offset >= 8,
            "read outside shared memory"
        );
        // SAFETY: inside memory the loader set aside; volatile, because the NPU writes it.
        unsafe { ((self.base + offset as usize) as *const u64).read_volatile() }
    }
}

impl Sink for Shared {
    #[inline(always)]
    fn put(&mut self, index: u64, word: &Word) {
        if index >= self.bytes / 32 {
            self.overflow = true;
            return;
        }
        // SAFETY: entry `index` lies inside memory the loader set aside, aligned to 64 bytes, and no reference to
        // it exists; a fence precedes every doorbell, so plain stores are enough.
        unsafe { ((self.base + index as usize * 32) as *mut [u64; 4]).write(word.0) }
    }
}
