//! Devices every RV64 machine has: timer and software interrupts, interrupt controller, console.
//!
//! Models: a CLINT-style block, a PLIC-style controller with one machine context per hart, a 16550-style console that
//! only sends.
//! Does not model: console input and baud rate, edge-triggered gateways, contexts of other modes.
//! Source: RISC-V Platform-Level Interrupt Controller Specification 1.0.0; SiFive FU540-C000 Manual v1p0 (CLINT
//! layout); the 16550 line status register.
#![allow(clippy::cast_possible_truncation, reason = "registers are cut to their 32 or 64 bits")]

use super::BusFault;
use sim_kernel::Time;
use sim_kernel::units::FS_PER_S;

/// First address of the timer block.
pub const CLINT_BASE: u64 = 0x0200_0000;
/// Size of the timer block.
pub const CLINT_BYTES: u64 = 0x1_0000;
/// First address of the interrupt controller.
pub const PLIC_BASE: u64 = 0x0c00_0000;
/// Size of the interrupt controller.
pub const PLIC_BYTES: u64 = 0x400_0000;
/// First address of the console.
pub const UART_BASE: u64 = 0x1000_0000;
/// Size of the console.
pub const UART_BYTES: u64 = 0x100;
/// First address of DRAM.
pub const DRAM_BASE: u64 = 0x8000_0000;

fn width(addr: u64, size: u8) -> BusFault {
    BusFault::Width { addr, size }
}

/// Timer and software interrupts: `msip` at 4 × hart, `mtimecmp` at 0x4000 + 8 × hart, `mtime` at 0xbff8.
#[derive(Clone, Debug)]
pub struct Clint {
    timebase_hz: u64,
    /// Difference between `mtime` and the ticks of simulated time; software may write `mtime`.
    offset: u64,
    msip: Vec<bool>,
    mtimecmp: Vec<u64>,
}

const MTIMECMP: u64 = 0x4000;
const MTIME: u64 = 0xbff8;

impl Clint {
    /// A block for `harts` harts whose `mtime` ticks `timebase_hz` times a second.
    ///
    /// # Panics
    /// If the rate is zero: configurations are validated before devices are built.
    #[must_use]
    pub fn new(harts: usize, timebase_hz: u64) -> Self {
        assert!(timebase_hz > 0, "a timer needs a rate");
        Self { timebase_hz, offset: 0, msip: vec![false; harts], mtimecmp: vec![u64::MAX; harts] }
    }

    fn ticks(&self, now: Time) -> u64 {
        let ticks = u128::from(now.get()) * u128::from(self.timebase_hz) / u128::from(FS_PER_S);
        ticks as u64
    }

    /// The real-time counter.
    #[must_use]
    pub fn mtime(&self, now: Time) -> u64 {
        self.ticks(now).wrapping_add(self.offset)
    }

    /// Level of a hart's software interrupt line.
    #[must_use]
    pub fn software(&self, hart: usize) -> bool {
        self.msip.get(hart).copied().unwrap_or(false)
    }

    /// Level of a hart's timer interrupt line.
    #[must_use]
    pub fn timer(&self, now: Time, hart: usize) -> bool {
        self.mtimecmp.get(hart).is_some_and(|&at| self.mtime(now) >= at)
    }

    /// When a hart's timer line will rise, if ever; `now` if it is up.
    #[must_use]
    pub fn deadline(&self, now: Time, hart: usize) -> Option<Time> {
        let at = *self.mtimecmp.get(hart)?;
        if self.timer(now, hart) {
            return Some(now);
        }
        let ticks = u128::from(self.ticks(now)) + u128::from(at - self.mtime(now));
        let fs = (ticks * u128::from(FS_PER_S)).div_ceil(u128::from(self.timebase_hz));
        u64::try_from(fs).ok().map(Time::new)
    }

    /// Reads a register.
    ///
    /// # Errors
    /// If there is none of this width at the offset.
    pub fn load(&mut self, now: Time, offset: u64, size: u8) -> Result<u64, BusFault> {
        let (value, within) = match offset {
            0..MTIMECMP => {
                let msip = self.msip.get((offset / 4) as usize).ok_or(BusFault::Unmapped(offset))?;
                return if size == 4 && offset.is_multiple_of(4) {
                    Ok(u64::from(*msip))
                } else {
                    Err(width(offset, size))
                };
            }
            MTIMECMP..MTIME => {
                let index = ((offset - MTIMECMP) / 8) as usize;
                (*self.mtimecmp.get(index).ok_or(BusFault::Unmapped(offset))?, offset % 8)
            }
            _ if offset < MTIME + 8 => (self.mtime(now), offset % 8),
            _ => return Err(BusFault::Unmapped(offset)),
        };
        match (size, within) {
            (8, 0) => Ok(value),
            (4, 0) => Ok(value & 0xffff_ffff),
            (4, 4) => Ok(value >> 32),
            _ => Err(width(offset, size)),
        }
    }

    /// Writes a register.
    ///
    /// # Errors
    /// If there is none of this width at the offset.
    pub fn store(&mut self, now: Time, offset: u64, size: u8, value: u64) -> Result<(), BusFault> {
        if offset < MTIMECMP {
            let msip = self.msip.get_mut((offset / 4) as usize).ok_or(BusFault::Unmapped(offset))?;
            if size != 4 || !offset.is_multiple_of(4) {
                return Err(width(offset, size));
            }
            *msip = value & 1 == 1;
            return Ok(());
        }
        let old = self.load(now, offset & !7, 8)?;
        let new = match (size, offset % 8) {
            (8, 0) => value,
            (4, 0) => old & !0xffff_ffff | value & 0xffff_ffff,
            (4, 4) => old & 0xffff_ffff | value << 32,
            _ => return Err(width(offset, size)),
        };
        if offset >= MTIME {
            self.offset = new.wrapping_sub(self.ticks(now));
        } else {
            self.mtimecmp[((offset - MTIMECMP) / 8) as usize] = new;
        }
        Ok(())
    }
}

/// Interrupt sources of the controller; source 0 does not exist.
pub const PLIC_SOURCES: u32 = 64;
const PENDING: u64 = 0x1000;
const ENABLE: u64 = 0x2000;
const CONTEXT: u64 = 0x20_0000;

#[derive(Clone, Debug, Default)]
struct Context {
    enable: u64,
    threshold: u32,
}

/// Interrupt controller: level-triggered sources with priorities, one machine context per hart.
#[derive(Clone, Debug)]
pub struct Plic {
    priority: [u32; PLIC_SOURCES as usize],
    /// Source lines as devices drive them.
    level: u64,
    /// Latched by the gateway and not claimed.
    pending: u64,
    /// Claimed and not completed: the gateway is closed.
    in_service: u64,
    contexts: Vec<Context>,
}

impl Plic {
    /// A controller with one context per hart.
    #[must_use]
    pub fn new(harts: usize) -> Self {
        Self {
            priority: [0; PLIC_SOURCES as usize],
            level: 0,
            pending: 0,
            in_service: 0,
            contexts: vec![Context::default(); harts],
        }
    }

    /// Drives the line of a source; sources beyond the last, and source 0, are ignored.
    pub fn set_source(&mut self, source: u32, high: bool) {
        if source == 0 || source >= PLIC_SOURCES {
            return;
        }
        let bit = 1u64 << source;
        self.level = if high { self.level | bit } else { self.level & !bit };
        self.latch();
    }

    fn latch(&mut self) {
        self.pending |= self.level & !self.in_service;
    }

    /// The pending, enabled source of highest priority (lowest number among equals), 0 if none is above zero.
    fn best(&self, context: &Context) -> u32 {
        let candidates = self.pending & context.enable;
        let mut best = (0, 0);
        for source in 1..PLIC_SOURCES {
            let priority = self.priority[source as usize];
            if candidates >> source & 1 == 1 && priority > best.0 {
                best = (priority, source);
            }
        }
        best.1
    }

    /// Level of a hart's external interrupt line.
    #[must_use]
    pub fn external(&self, hart: usize) -> bool {
        self.contexts.get(hart).is_some_and(|context| {
            let best = self.best(context);
            best != 0 && self.priority[best as usize] > context.threshold
        })
    }

    /// Reads a register; reading a claim register claims.
    ///
    /// # Errors
    /// If there is none of this width at the offset.
    pub fn load(&mut self, offset: u64, size: u8) -> Result<u64, BusFault> {
        if size != 4 || !offset.is_multiple_of(4) {
            return Err(width(offset, size));
        }
        let half = |word: u64| (word >> (32 * (offset / 4 % 2))) & 0xffff_ffff;
        match offset {
            0..PENDING => self
                .priority
                .get((offset / 4) as usize)
                .map(|&p| u64::from(p))
                .ok_or(BusFault::Unmapped(offset)),
            PENDING..0x1008 => Ok(half(self.pending)),
            ENABLE..CONTEXT => {
                let (context, at) = (self.context((offset - ENABLE) / 0x80, offset)?, offset % 0x80);
                if at < 8 { Ok(half(context.enable)) } else { Err(BusFault::Unmapped(offset)) }
            }
            CONTEXT.. => {
                let context = self.context((offset - CONTEXT) / 0x1000, offset)?;
                match offset % 0x1000 {
                    0 => Ok(u64::from(context.threshold)),
                    4 => {
                        let best = self.best(context);
                        let bit = if best == 0 { 0 } else { 1u64 << best };
                        self.pending &= !bit;
                        self.in_service |= bit;
                        Ok(u64::from(best))
                    }
                    _ => Err(BusFault::Unmapped(offset)),
                }
            }
            _ => Err(BusFault::Unmapped(offset)),
        }
    }

    fn context(&self, index: u64, offset: u64) -> Result<&Context, BusFault> {
        self.contexts.get(index as usize).ok_or(BusFault::Unmapped(offset))
    }

    /// Writes a register; writing a claim register completes.
    ///
    /// # Errors
    /// If there is none of this width at the offset.
    pub fn store(&mut self, offset: u64, size: u8, value: u64) -> Result<(), BusFault> {
        if size != 4 || !offset.is_multiple_of(4) {
            return Err(width(offset, size));
        }
        let unmapped = BusFault::Unmapped(offset);
        match offset {
            0..4 => {}
            4..PENDING => {
                let slot = self.priority.get_mut((offset / 4) as usize).ok_or(unmapped)?;
                *slot = value as u32 & 7;
            }
            // Pending bits are read-only.
            PENDING..0x1008 => {}
            ENABLE..CONTEXT => {
                let index = ((offset - ENABLE) / 0x80) as usize;
                let context = self.contexts.get_mut(index).ok_or(unmapped)?;
                let shift = match offset % 0x80 {
                    0 => 0,
                    4 => 32,
                    _ => return Err(unmapped),
                };
                let mask = 0xffff_ffffu64 << shift;
                // Bit 0 is no source.
                context.enable = (context.enable & !mask | value << shift & mask) & !1;
            }
            CONTEXT.. => {
                let index = ((offset - CONTEXT) / 0x1000) as usize;
                let context = self.contexts.get_mut(index).ok_or(unmapped)?;
                match offset % 0x1000 {
                    0 => context.threshold = value as u32 & 7,
                    4 if value < u64::from(PLIC_SOURCES) && context.enable >> value & 1 == 1 => {
                        self.in_service &= !(1 << value);
                        self.latch();
                    }
                    // A completion of a source this context does not enable is ignored.
                    4 => {}
                    _ => return Err(unmapped),
                }
            }
            _ => return Err(unmapped),
        }
        Ok(())
    }
}

/// Console: a byte written to offset 0 is sent; the line status at offset 5 always says there is room.
#[derive(Clone, Debug, Default)]
pub struct Uart {
    output: Vec<u8>,
}

impl Uart {
    /// Bytes sent since the last call.
    pub fn take_output(&mut self) -> Vec<u8> {
        core::mem::take(&mut self.output)
    }

    /// Reads a register.
    ///
    /// # Errors
    /// If it is not one of the eight byte registers.
    pub fn load(&mut self, offset: u64, size: u8) -> Result<u64, BusFault> {
        const TRANSMITTER_EMPTY: u64 = 0x60;
        match offset {
            5 if size == 1 => Ok(TRANSMITTER_EMPTY),
            0..8 if size == 1 => Ok(0),
            _ => Err(width(offset, size)),
        }
    }

    /// Writes a register.
    ///
    /// # Errors
    /// If it is not one of the eight byte registers.
    pub fn store(&mut self, offset: u64, size: u8, value: u64) -> Result<(), BusFault> {
        match offset {
            0 if size == 1 => self.output.push(value as u8),
            1..8 if size == 1 => {}
            _ => return Err(width(offset, size)),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Clint, Plic, Time, Uart};

    const MS: Time = Time::from_ns(1_000_000);

    #[test]
    fn the_timer_rises_exactly_at_its_tick() {
        let mut c = Clint::new(2, 10_000_000);
        c.store(MS, 0x4008, 8, 10_001).expect("mtimecmp of hart 1");
        assert_eq!(c.load(MS, 0xbff8, 8), Ok(10_000));
        assert!(!c.timer(MS, 1) && !c.timer(MS, 0));
        let at = c.deadline(MS, 1).expect("armed");
        assert_eq!(at, MS + Time::from_ns(100));
        assert!(c.timer(at, 1) && !c.timer(Time::new(at.get() - 1), 1));
        assert_eq!(c.deadline(MS, 0), None, "the reset value lies beyond simulated time");
    }

    #[test]
    fn halves_of_timer_registers_and_a_written_mtime() {
        let mut c = Clint::new(1, 1_000_000);
        c.store(Time::ZERO, 0x4000, 4, 7).expect("low half");
        c.store(Time::ZERO, 0x4004, 4, 1).expect("high half");
        assert_eq!(c.load(Time::ZERO, 0x4000, 8), Ok(1 << 32 | 7));
        c.store(MS, 0xbff8, 8, 5).expect("mtime");
        assert_eq!(c.mtime(MS + MS), 1005);
        c.store(MS, 0, 4, 3).expect("msip");
        assert!(c.software(0));
        assert!(c.load(MS, 4, 4).is_err(), "there is one hart");
        assert!(c.store(MS, 0x4002, 2, 0).is_err());
    }

    #[test]
    fn claims_follow_priority_and_close_the_gateway() {
        let mut p = Plic::new(2);
        for (source, priority) in [(3, 2), (9, 5), (40, 5)] {
            p.store(4 * source, 4, priority).expect("priority");
            p.set_source(u32::try_from(source).expect("small"), true);
        }
        p.store(0x2080, 4, 1 << 3 | 1 << 9).expect("enables of hart 1, low");
        p.store(0x2084, 4, 1 << 8).expect("enables of hart 1, high");
        assert!(p.external(1) && !p.external(0));
        let claim = 0x20_1004;
        assert_eq!(p.load(claim, 4), Ok(9), "equal priorities: the lowest number");
        assert_eq!(p.load(claim, 4), Ok(40));
        p.store(0x20_1000, 4, 2).expect("threshold");
        assert!(!p.external(1), "priority 2 is not above threshold 2");
        p.store(claim, 4, 9).expect("complete");
        assert!(p.external(1), "the line is still up, so it is pending again");
        p.set_source(9, false);
        assert_eq!(p.load(claim, 4), Ok(9), "once latched it stays until claimed");
        p.store(claim, 4, 9).expect("complete");
        assert!(!p.external(1));
    }

    #[test]
    fn the_console_collects_bytes() {
        let mut u = Uart::default();
        for byte in b"ok" {
            assert_eq!(u.load(5, 1), Ok(0x60));
            u.store(0, 1, u64::from(*byte)).expect("room");
        }
        assert_eq!(u.take_output(), b"ok");
        assert!(u.take_output().is_empty());
        assert!(u.store(0, 4, 0).is_err());
    }
}
