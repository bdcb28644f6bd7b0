//! The control and status registers of a hart in machine mode, and its traps.
//!
//! Models: the registers of the table in `isa`, with machine mode as the only privilege.
//! Does not model: physical memory protection (its registers keep what is written and protect nothing), event
//! counters beyond cycle and instret (they read zero), counter access from lower modes.
//! Source: RISC-V Instruction Set Manual, Volume II, 20240411, chapter "Machine-Level ISA".
#![allow(clippy::cast_possible_truncation, reason = "flag and mode fields are cut out of register values")]

use isa::rv64::csr::{Access, Csr, lookup};

/// `mstatus` fields.
const MIE: u64 = 1 << 3;
const MPIE: u64 = 1 << 7;
/// Previous privilege: only machine mode exists, so it always reads as 3.
const MPP: u64 = 3 << 11;
const FS: u64 = 3 << 13;
const SD: u64 = 1 << 63;

/// Interrupt bits of `mip` and `mie`.
const MSI: u64 = 1 << 3;
const MTI: u64 = 1 << 7;
const MEI: u64 = 1 << 11;

/// RV64, and the letters A, C, D, F, I, M; B since Zba, Zbb and Zbs are all there.
const MISA: u64 = 2 << 62 | 1 | 1 << 1 | 1 << 2 | 1 << 3 | 1 << 5 | 1 << 8 | 1 << 12;

const INTERRUPT: u64 = 1 << 63;

/// Exception causes.
pub(super) mod cause {
    pub(in crate::cpu) const FETCH_FAULT: u64 = 1;
    pub(in crate::cpu) const ILLEGAL: u64 = 2;
    pub(in crate::cpu) const BREAKPOINT: u64 = 3;
    pub(in crate::cpu) const MISALIGNED_LOAD: u64 = 4;
    pub(in crate::cpu) const LOAD_FAULT: u64 = 5;
    pub(in crate::cpu) const MISALIGNED_STORE: u64 = 6;
    pub(in crate::cpu) const STORE_FAULT: u64 = 7;
    pub(in crate::cpu) const ECALL_M: u64 = 11;
}

/// A counter that follows another one, or stands still.
#[derive(Clone, Copy, Debug, Default)]
struct Follower {
    offset: u64,
    frozen: Option<u64>,
}

impl Follower {
    fn read(self, now: u64) -> u64 {
        self.frozen.unwrap_or_else(|| now.wrapping_add(self.offset))
    }
    fn write(&mut self, now: u64, value: u64) {
        match &mut self.frozen {
            Some(frozen) => *frozen = value,
            None => self.offset = value.wrapping_sub(now),
        }
    }
    fn freeze(&mut self, now: u64, stop: bool) {
        let value = self.read(now);
        self.frozen = stop.then_some(value);
        self.offset = value.wrapping_sub(now);
    }
}

/// What counters read at the moment of an access.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Moment {
    pub cycle: u64,
    pub instret: u64,
    pub mtime: u64,
}

/// The registers.
#[derive(Clone, Debug)]
pub(super) struct CsrFile {
    hart: u64,
    pub mstatus: u64,
    pub mie: u64,
    mtvec: u64,
    mscratch: u64,
    mepc: u64,
    mcause: u64,
    mtval: u64,
    lines: u64,
    mcounteren: u64,
    inhibit: u64,
    cycle: Follower,
    instret: Follower,
    pmpcfg: [u64; 16],
    pmpaddr: [u64; 64],
    pub fflags: u8,
    pub frm: u8,
    /// An enabled interrupt is pending and machine interrupts are on.
    pub attention: bool,
}

impl CsrFile {
    pub(super) fn new(hart: usize) -> Self {
        Self {
            hart: hart as u64,
            mstatus: MPP,
            mie: 0,
            mtvec: 0,
            mscratch: 0,
            mepc: 0,
            mcause: 0,
            mtval: 0,
            lines: 0,
            mcounteren: 0,
            inhibit: 0,
            cycle: Follower::default(),
            instret: Follower::default(),
            pmpcfg: [0; 16],
            pmpaddr: [0; 64],
            fflags: 0,
            frm: 0,
            attention: false,
        }
    }

    fn refresh(&mut self) {
        self.attention = self.mstatus & MIE != 0 && self.lines & self.mie != 0;
    }

    pub(super) fn set_lines(&mut self, msip: bool, mtip: bool, meip: bool) {
        self.lines = (u64::from(msip) * MSI) | (u64::from(mtip) * MTI) | (u64::from(meip) * MEI);
        self.refresh();
    }

    /// Whether `wfi` would go on: an interrupt is pending and enabled in `mie`, whatever `mstatus` says.
    pub(super) fn wakes(&self) -> bool {
        self.lines & self.mie != 0
    }

    /// Enabled interrupts, as bits of `mie`.
    pub(super) fn enabled(&self) -> u64 {
        self.mie
    }

    #[inline(always)]
    pub(super) fn fp_on(&self) -> bool {
        self.mstatus & FS != 0
    }

    #[inline(always)]
    pub(super) fn fp_dirty(&mut self) {
        self.mstatus |= FS;
    }

    /// Enters a trap: returns where its handler is.
    pub(super) fn trap(&mut self, pc: u64, cause: u64, tval: u64) -> u64 {
        self.mepc = pc;
        self.mcause = cause;
        self.mtval = tval;
        let was_on = self.mstatus & MIE != 0;
        self.mstatus = self.mstatus & !(MIE | MPIE) | (u64::from(was_on) * MPIE);
        self.refresh();
        let vectored = self.mtvec & 1 == 1 && cause & INTERRUPT != 0;
        let base = self.mtvec & !3;
        if vectored { base.wrapping_add(4 * (cause & !INTERRUPT)) } else { base }
    }

    /// The interrupt to take now, if one is: external before software before timer.
    pub(super) fn interrupt(&self) -> Option<u64> {
        let pending = self.lines & self.mie;
        let first = [MEI, MSI, MTI].into_iter().find(|bit| pending & bit != 0)?;
        self.attention.then(|| INTERRUPT | u64::from(first.trailing_zeros()))
    }

    /// Leaves a trap: returns where to go on.
    pub(super) fn mret(&mut self) -> u64 {
        let on = self.mstatus & MPIE != 0;
        self.mstatus = self.mstatus & !MIE | MPIE | (u64::from(on) * MIE);
        self.refresh();
        self.mepc
    }

    /// Reads a register; `None` is an illegal instruction.
    pub(super) fn read(&self, number: u16, at: &Moment) -> Option<u64> {
        let (row, index) = lookup(number)?;
        let index = usize::from(index);
        Some(match row.csr {
            Csr::Fflags | Csr::Frm | Csr::Fcsr if !self.fp_on() => return None,
            Csr::Fflags => u64::from(self.fflags),
            Csr::Frm => u64::from(self.frm),
            Csr::Fcsr => u64::from(self.frm) << 5 | u64::from(self.fflags),
            Csr::Mstatus => self.mstatus | if self.mstatus & FS == FS { SD } else { 0 },
            Csr::Misa => MISA,
            Csr::Mie => self.mie,
            Csr::Mtvec => self.mtvec,
            Csr::Mcounteren => self.mcounteren,
            Csr::Mcountinhibit => self.inhibit,
            Csr::Mscratch => self.mscratch,
            Csr::Mepc => self.mepc,
            Csr::Mcause => self.mcause,
            Csr::Mtval => self.mtval,
            Csr::Mip => self.lines,
            Csr::Pmpcfg => self.pmpcfg[index],
            Csr::Pmpaddr => self.pmpaddr[index],
            Csr::Mcycle | Csr::Cycle => self.cycle.read(at.cycle),
            Csr::Minstret | Csr::Instret => self.instret.read(at.instret),
            Csr::Time => at.mtime,
            Csr::Mhartid => self.hart,
            Csr::Mhpmevent
            | Csr::Tselect
            | Csr::Tdata
            | Csr::Mhpmcounter
            | Csr::Hpmcounter
            | Csr::Mvendorid
            | Csr::Marchid
            | Csr::Mimpid
            | Csr::Mconfigptr => 0,
        })
    }

    /// Writes a register; `None` is an illegal instruction.
    pub(super) fn write(&mut self, number: u16, value: u64, at: &Moment) -> Option<()> {
        let (row, index) = lookup(number)?;
        if row.access == Access::ReadOnly {
            return None;
        }
        let index = usize::from(index);
        match row.csr {
            Csr::Fflags | Csr::Frm | Csr::Fcsr => {
                if row.csr != Csr::Frm {
                    self.fflags = value as u8 & 31;
                }
                if row.csr != Csr::Fflags {
                    let field = if row.csr == Csr::Fcsr { value >> 5 } else { value };
                    self.frm = field as u8 & 7;
                }
                self.fp_dirty();
            }
            Csr::Mstatus => self.mstatus = value & (MIE | MPIE | FS) | MPP,
            Csr::Mie => self.mie = value & (MSI | MTI | MEI),
            Csr::Mtvec => self.mtvec = value & !2,
            Csr::Mcounteren => self.mcounteren = value & 0xffff_ffff,
            Csr::Mcountinhibit => {
                self.inhibit = value & 5;
                self.cycle.freeze(at.cycle, value & 1 != 0);
                // This instruction retires before or after the counter stops, as the counter then stands.
                self.instret.freeze(at.instret + 1, value & 4 != 0);
            }
            Csr::Mscratch => self.mscratch = value,
            Csr::Mepc => self.mepc = value & !1,
            Csr::Mcause => self.mcause = value,
            Csr::Mtval => self.mtval = value,
            Csr::Pmpcfg => self.pmpcfg[index] = value,
            Csr::Pmpaddr => self.pmpaddr[index] = value & ((1 << 54) - 1),
            Csr::Mcycle => self.cycle.write(at.cycle + 1, value),
            Csr::Minstret => self.instret.write(at.instret + 1, value),
            // Fixed, wired to devices, or events that are not counted: a write is allowed and changes nothing.
            Csr::Misa | Csr::Mip | Csr::Tselect | Csr::Tdata | Csr::Mhpmevent | Csr::Mhpmcounter => {}
            Csr::Cycle
            | Csr::Time
            | Csr::Instret
            | Csr::Hpmcounter
            | Csr::Mvendorid
            | Csr::Marchid
            | Csr::Mimpid
            | Csr::Mhartid
            | Csr::Mconfigptr => return None,
        }
        self.refresh();
        Some(())
    }
}
