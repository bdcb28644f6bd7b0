//! The small board `exec` runs on: DRAM, a shared cache, timer, interrupt controller, console.
//!
//! Models: a shared cache over a fixed-latency, fixed-rate memory; devices at their usual addresses; other harts'
//! private copies of a line that is fetched to be written are dropped.
//! Does not model: DRAM banks and the fabric (that is the whole SoC's business), upgrades of shared lines.
//! Source: Arm Cortex-A725 Software Optimization Guide (DSU-120: an L3 hit takes 19.5 core and 14.5 DSU cycles at
//! 3 GHz and 2 GHz); the rest is an estimate, accuracy class C.

use super::{DRAM_BYTES, ExecError};
use crate::cpu::devices::{
    CLINT_BASE, CLINT_BYTES, Clint, DRAM_BASE, PLIC_BASE, PLIC_BYTES, Plic, UART_BASE, UART_BYTES, Uart,
};
use crate::cpu::{
    Bus, BusFault, CacheConfig, GuestMemory, InterruptLines, LineReply, LineRequest, LineSource,
    SharedAccess, SharedCache,
};
use sim_kernel::{Addr, Bytes, Time};

/// Ticks of `mtime` in a second: the usual rate of RISC-V boards; accuracy class C.
const TIMEBASE_HZ: u64 = 10_000_000;
/// From a private miss to the line, when the shared cache has it: 19.5 cycles at 1.8 GHz and 14.5 at 2 GHz, less
/// the nine cycles the core itself counts for its L2.
const SHARED_HIT: Time = Time::from_ps(13_080);
/// On top of that from memory; estimate, accuracy class C.
const DRAM_LATENCY: Time = Time::from_ns(100);
/// Time between two lines at 32 GB/s; estimate, accuracy class C.
const DRAM_LINE: Time = Time::from_ns(2);
/// A device access; estimate, accuracy class C.
const DEVICE: Time = Time::from_ns(50);
/// Shared cache of a phone's cluster; estimate, accuracy class C.
const SHARED: CacheConfig = CacheConfig { bytes: 8 << 20, ways: 16, line_bytes: 64, latency_cycles: 0 };

pub(super) struct Board {
    pub memory: GuestMemory,
    pub clint: Clint,
    plic: Plic,
    pub uart: Uart,
    shared: SharedCache,
    dram_free: Time,
    /// Lines that other harts must drop: who fetched, which.
    pub snoops: Vec<(usize, u64)>,
    harts: usize,
}

enum Device {
    Clint(u64),
    Plic(u64),
    Uart(u64),
}

fn device(addr: u64) -> Result<Device, BusFault> {
    let within = |base: u64, bytes: u64| (addr.wrapping_sub(base) < bytes).then(|| addr - base);
    if let Some(offset) = within(CLINT_BASE, CLINT_BYTES) {
        return Ok(Device::Clint(offset));
    }
    if let Some(offset) = within(PLIC_BASE, PLIC_BYTES) {
        return Ok(Device::Plic(offset));
    }
    within(UART_BASE, UART_BYTES).map(Device::Uart).ok_or(BusFault::Unmapped(addr))
}

impl Board {
    pub(super) fn new(harts: usize) -> Result<Self, ExecError> {
        let mut memory = GuestMemory::new();
        memory.add_region(Addr::new(DRAM_BASE), Bytes::new(DRAM_BYTES))?;
        Ok(Self {
            memory,
            clint: Clint::new(harts, TIMEBASE_HZ),
            plic: Plic::new(harts),
            uart: Uart::default(),
            shared: SharedCache::new(&SHARED).expect("a constant geometry that a test builds"),
            dram_free: Time::ZERO,
            snoops: Vec::new(),
            harts,
        })
    }

    /// A line starts its way to or from memory.
    fn dram(&mut self, now: Time) -> Time {
        let start = self.dram_free.max(now);
        self.dram_free = start + DRAM_LINE;
        start
    }
}

impl Bus for Board {
    fn memory(&mut self) -> &mut GuestMemory {
        &mut self.memory
    }

    fn line(&mut self, request: LineRequest) -> LineReply {
        if request.write && self.harts > 1 {
            self.snoops.push((request.hart, request.addr));
        }
        match self.shared.access(request.addr) {
            SharedAccess::Hit => {
                LineReply { done: request.now + SHARED_HIT, source: LineSource::SharedCache }
            }
            SharedAccess::Miss { write_back } => {
                let start = self.dram(request.now + SHARED_HIT);
                if write_back.is_some() {
                    let _ = self.dram(request.now + SHARED_HIT);
                }
                LineReply { done: start + DRAM_LATENCY, source: LineSource::Dram }
            }
        }
    }

    fn write_back(&mut self, now: Time, _: usize, addr: u64) {
        if self.shared.write_back(addr).is_some() {
            let _ = self.dram(now);
        }
    }

    fn mmio_load(&mut self, now: Time, _: usize, addr: u64, size: u8) -> Result<(u64, Time), BusFault> {
        let value = match device(addr)? {
            Device::Clint(offset) => self.clint.load(now, offset, size)?,
            Device::Plic(offset) => self.plic.load(offset, size)?,
            Device::Uart(offset) => self.uart.load(offset, size)?,
        };
        Ok((value, now + DEVICE))
    }

    fn mmio_store(&mut self, now: Time, _: usize, addr: u64, size: u8, value: u64) -> Result<Time, BusFault> {
        match device(addr)? {
            Device::Clint(offset) => self.clint.store(now, offset, size, value)?,
            Device::Plic(offset) => self.plic.store(offset, size, value)?,
            Device::Uart(offset) => self.uart.store(offset, size, value)?,
        }
        Ok(now + DEVICE)
    }

    fn interrupt_lines(&mut self, now: Time, hart: usize) -> InterruptLines {
        InterruptLines {
            software: self.clint.software(hart),
            timer: self.clint.timer(now, hart),
            external: self.plic.external(hart),
        }
    }

    fn mtime(&mut self, now: Time) -> u64 {
        self.clint.mtime(now)
    }
}
