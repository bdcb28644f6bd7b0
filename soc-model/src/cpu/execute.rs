//! What every instruction does to registers and memory; no time.
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "RISC-V registers are bit patterns that instructions read as signed, unsigned or shorter"
)]

use super::blocks::Micro;
use super::csr::{Moment, cause};
use super::float::{self, Operands, Outcome};
use super::hart::Hart;
use super::memory::{GuestMemory, MemoryFault};
use isa::rv64::Op;

/// Why an instruction did not simply finish.
pub(super) enum Exit {
    /// An exception.
    Trap(u64, u64),
    /// The address is not stored memory: ask the devices, in global time.
    Device(u64),
    /// Finished, and it changed code or a watched line; the program goes on at the address.
    Touched(u64),
    /// Finished: wait for an interrupt.
    Wait(u64),
}

/// The width and kind of a load.
#[derive(Clone, Copy)]
pub(super) enum Load {
    Signed(u8),
    Unsigned(u8),
    Single,
    Double,
}

fn sext32(v: u64) -> u64 {
    v as u32 as i32 as i64 as u64
}

fn mulh(a: u64, b: u64) -> u64 {
    ((i128::from(a as i64) * i128::from(b as i64)) >> 64) as u64
}

fn mulhsu(a: u64, b: u64) -> u64 {
    (i128::from(a as i64).wrapping_mul(i128::from(b)) >> 64) as u64
}

fn mulhu(a: u64, b: u64) -> u64 {
    ((u128::from(a) * u128::from(b)) >> 64) as u64
}

fn div(a: u64, b: u64) -> u64 {
    if b == 0 { u64::MAX } else { (a as i64).wrapping_div(b as i64) as u64 }
}

fn rem(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { (a as i64).wrapping_rem(b as i64) as u64 }
}

fn divw(a: u64, b: u64) -> u64 {
    if b as u32 == 0 { u64::MAX } else { (a as i32).wrapping_div(b as i32) as i64 as u64 }
}

fn remw(a: u64, b: u64) -> u64 {
    if b as u32 == 0 { sext32(a) } else { (a as i32).wrapping_rem(b as i32) as i64 as u64 }
}

fn orc_b(v: u64) -> u64 {
    u64::from_le_bytes(v.to_le_bytes().map(|byte| if byte == 0 { 0 } else { 0xff }))
}

/// What an atomic leaves in memory.
fn atomic(op: Op, old: u64, new: u64) -> u64 {
    match op {
        Op::AmoswapW | Op::AmoswapD => new,
        Op::AmoaddW | Op::AmoaddD => old.wrapping_add(new),
        Op::AmoxorW | Op::AmoxorD => old ^ new,
        Op::AmoandW | Op::AmoandD => old & new,
        Op::AmoorW | Op::AmoorD => old | new,
        Op::AmominW | Op::AmominD => (old as i64).min(new as i64) as u64,
        Op::AmomaxW | Op::AmomaxD => (old as i64).max(new as i64) as u64,
        Op::AmominuW => u64::from((old as u32).min(new as u32)),
        Op::AmomaxuW => u64::from((old as u32).max(new as u32)),
        Op::AmominuD => old.min(new),
        Op::AmomaxuD => old.max(new),
        _ => unreachable!("only atomics are passed here"),
    }
}

/// The kind of a load instruction, `None` for others.
pub(super) fn load_kind(op: Op) -> Option<Load> {
    Some(match op {
        Op::Lb => Load::Signed(1),
        Op::Lh => Load::Signed(2),
        Op::Lw => Load::Signed(4),
        Op::Ld => Load::Signed(8),
        Op::Lbu => Load::Unsigned(1),
        Op::Lhu => Load::Unsigned(2),
        Op::Lwu => Load::Unsigned(4),
        Op::Flw => Load::Single,
        Op::Fld => Load::Double,
        _ => return None,
    })
}

impl Load {
    pub(super) fn bytes(self) -> u8 {
        match self {
            Self::Signed(n) | Self::Unsigned(n) => n,
            Self::Single => 4,
            Self::Double => 8,
        }
    }
}

/// Width of a store instruction, and whether its data is a floating-point register.
pub(super) fn store_kind(op: Op) -> Option<(u8, bool)> {
    Some(match op {
        Op::Sb => (1, false),
        Op::Sh => (2, false),
        Op::Sw => (4, false),
        Op::Sd => (8, false),
        Op::Fsw => (4, true),
        Op::Fsd => (8, true),
        _ => return None,
    })
}

fn load_exit(fault: MemoryFault, addr: u64) -> Exit {
    match fault {
        MemoryFault::Unmapped(at) if at == addr => Exit::Device(addr),
        MemoryFault::Unmapped(at) | MemoryFault::AddressOnly(at) => Exit::Trap(cause::LOAD_FAULT, at),
    }
}

fn store_exit(fault: MemoryFault, addr: u64) -> Exit {
    match fault {
        MemoryFault::Unmapped(at) if at == addr => Exit::Device(addr),
        MemoryFault::Unmapped(at) | MemoryFault::AddressOnly(at) => Exit::Trap(cause::STORE_FAULT, at),
    }
}

impl Hart {
    #[inline(always)]
    fn rs1(&self, u: &Micro) -> u64 {
        self.x[usize::from(u.rs1)]
    }

    #[inline(always)]
    fn rs2(&self, u: &Micro) -> u64 {
        self.x[usize::from(u.rs2)]
    }

    /// Address of a load, store or atomic.
    #[inline(always)]
    pub(super) fn address(&self, u: &Micro) -> u64 {
        self.rs1(u).wrapping_add(u.imm as i64 as u64)
    }

    #[inline(always)]
    fn load<const N: usize>(&self, u: &Micro, memory: &GuestMemory) -> Result<u64, Exit> {
        let addr = self.address(u);
        memory.read::<N>(addr).map_err(|fault| load_exit(fault, addr))
    }

    #[inline(always)]
    fn store<const N: usize>(
        &mut self,
        u: &Micro,
        value: u64,
        next: u64,
        memory: &mut GuestMemory,
    ) -> Result<u64, Exit> {
        let addr = self.address(u);
        match memory.write::<N>(addr, value) {
            Ok(false) => Ok(next),
            Ok(true) => Err(Exit::Touched(next)),
            Err(fault) => Err(store_exit(fault, addr)),
        }
    }

    /// Executes one instruction at `pc`; returns the address of the next.
    #[inline(always)]
    pub(super) fn execute(&mut self, u: &Micro, pc: u64, memory: &mut GuestMemory) -> Result<u64, Exit> {
        let next = pc.wrapping_add(u64::from(u.len));
        let imm = u.imm as i64 as u64;
        let a = self.rs1(u);
        let b = self.rs2(u);
        let branch = |taken: bool| Ok(if taken { pc.wrapping_add(imm) } else { next });
        let value = match u.op {
            Op::Lui => imm,
            Op::Auipc => pc.wrapping_add(imm),
            Op::Jal => {
                self.x[usize::from(u.rd)] = next;
                return Ok(pc.wrapping_add(imm));
            }
            Op::Jalr => {
                self.x[usize::from(u.rd)] = next;
                return Ok(a.wrapping_add(imm) & !1);
            }
            Op::Beq => return branch(a == b),
            Op::Bne => return branch(a != b),
            Op::Blt => return branch((a as i64) < b as i64),
            Op::Bge => return branch(a as i64 >= b as i64),
            Op::Bltu => return branch(a < b),
            Op::Bgeu => return branch(a >= b),
            Op::Lb => self.load::<1>(u, memory)? as i8 as i64 as u64,
            Op::Lh => self.load::<2>(u, memory)? as i16 as i64 as u64,
            Op::Lw => sext32(self.load::<4>(u, memory)?),
            Op::Ld => self.load::<8>(u, memory)?,
            Op::Lbu => self.load::<1>(u, memory)?,
            Op::Lhu => self.load::<2>(u, memory)?,
            Op::Lwu => self.load::<4>(u, memory)?,
            Op::Sb => return self.store::<1>(u, b, next, memory),
            Op::Sh => return self.store::<2>(u, b, next, memory),
            Op::Sw => return self.store::<4>(u, b, next, memory),
            Op::Sd => return self.store::<8>(u, b, next, memory),
            Op::Addi => a.wrapping_add(imm),
            Op::Slti => u64::from((a as i64) < imm as i64),
            Op::Sltiu => u64::from(a < imm),
            Op::Xori => a ^ imm,
            Op::Ori => a | imm,
            Op::Andi => a & imm,
            Op::Slli => a << (imm & 63),
            Op::Srli => a >> (imm & 63),
            Op::Srai => (a as i64 >> (imm & 63)) as u64,
            Op::Add => a.wrapping_add(b),
            Op::Sub => a.wrapping_sub(b),
            Op::Sll => a << (b & 63),
            Op::Slt => u64::from((a as i64) < b as i64),
            Op::Sltu => u64::from(a < b),
            Op::Xor => a ^ b,
            Op::Srl => a >> (b & 63),
            Op::Sra => (a as i64 >> (b & 63)) as u64,
            Op::Or => a | b,
            Op::And => a & b,
            Op::Addiw => sext32(a.wrapping_add(imm)),
            Op::Slliw => sext32(a << (imm & 31)),
            Op::Srliw => sext32(u64::from(a as u32 >> (imm & 31))),
            Op::Sraiw => (a as i32 >> (imm & 31)) as i64 as u64,
            Op::Addw => sext32(a.wrapping_add(b)),
            Op::Subw => sext32(a.wrapping_sub(b)),
            Op::Sllw => sext32(a << (b & 31)),
            Op::Srlw => sext32(u64::from(a as u32 >> (b & 31))),
            Op::Sraw => (a as i32 >> (b & 31)) as i64 as u64,
            Op::Mul => a.wrapping_mul(b),
            Op::Mulh => mulh(a, b),
            Op::Mulhsu => mulhsu(a, b),
            Op::Mulhu => mulhu(a, b),
            Op::Div => div(a, b),
            Op::Divu => a.checked_div(b).unwrap_or(u64::MAX),
            Op::Rem => rem(a, b),
            Op::Remu => a.checked_rem(b).unwrap_or(a),
            Op::Mulw => sext32(a.wrapping_mul(b)),
            Op::Divw => divw(a, b),
            Op::Divuw => (a as u32).checked_div(b as u32).map_or(u64::MAX, |q| sext32(u64::from(q))),
            Op::Remw => remw(a, b),
            Op::Remuw => sext32(u64::from((a as u32).checked_rem(b as u32).unwrap_or(a as u32))),
            Op::AddUw => (a & 0xffff_ffff).wrapping_add(b),
            Op::Sh1add => (a << 1).wrapping_add(b),
            Op::Sh2add => (a << 2).wrapping_add(b),
            Op::Sh3add => (a << 3).wrapping_add(b),
            Op::Sh1addUw => ((a & 0xffff_ffff) << 1).wrapping_add(b),
            Op::Sh2addUw => ((a & 0xffff_ffff) << 2).wrapping_add(b),
            Op::Sh3addUw => ((a & 0xffff_ffff) << 3).wrapping_add(b),
            Op::SlliUw => (a & 0xffff_ffff) << (imm & 63),
            Op::Andn => a & !b,
            Op::Orn => a | !b,
            Op::Xnor => !(a ^ b),
            Op::Clz => u64::from(a.leading_zeros()),
            Op::Ctz => u64::from(a.trailing_zeros()),
            Op::Cpop => u64::from(a.count_ones()),
            Op::SextB => a as i8 as i64 as u64,
            Op::SextH => a as i16 as i64 as u64,
            Op::Clzw => u64::from((a as u32).leading_zeros()),
            Op::Ctzw => u64::from((a as u32).trailing_zeros()),
            Op::Cpopw => u64::from((a as u32).count_ones()),
            Op::ZextH => a & 0xffff,
            Op::Max => (a as i64).max(b as i64) as u64,
            Op::Maxu => a.max(b),
            Op::Min => (a as i64).min(b as i64) as u64,
            Op::Minu => a.min(b),
            Op::Rol => a.rotate_left(b as u32 & 63),
            Op::Ror => a.rotate_right(b as u32 & 63),
            Op::Rori => a.rotate_right(imm as u32 & 63),
            Op::Rolw => sext32(u64::from((a as u32).rotate_left(b as u32 & 31))),
            Op::Rorw => sext32(u64::from((a as u32).rotate_right(b as u32 & 31))),
            Op::Roriw => sext32(u64::from((a as u32).rotate_right(imm as u32 & 31))),
            Op::OrcB => orc_b(a),
            Op::Rev8 => a.swap_bytes(),
            Op::Bclr => a & !(1 << (b & 63)),
            Op::Bclri => a & !(1 << (imm & 63)),
            Op::Bext => a >> (b & 63) & 1,
            Op::Bexti => a >> (imm & 63) & 1,
            Op::Binv => a ^ 1 << (b & 63),
            Op::Binvi => a ^ 1 << (imm & 63),
            Op::Bset => a | 1 << (b & 63),
            Op::Bseti => a | 1 << (imm & 63),
            Op::Flw | Op::Fld | Op::Fsw | Op::Fsd => return self.fp_memory(u, next, memory),
            _ => return self.execute_other(u, pc, next, memory),
        };
        self.x[usize::from(u.rd)] = value;
        Ok(next)
    }

    #[inline(always)]
    fn fp_memory(&mut self, u: &Micro, next: u64, memory: &mut GuestMemory) -> Result<u64, Exit> {
        if !self.csr.fp_on() {
            return Err(self.illegal(u));
        }
        let data = self.f[usize::from(u.rs2 & 31)];
        let value = match u.op {
            Op::Fsw => return self.store::<4>(u, data, next, memory),
            Op::Fsd => return self.store::<8>(u, data, next, memory),
            Op::Flw => self.load::<4>(u, memory)? | 0xffff_ffff_0000_0000,
            _ => self.load::<8>(u, memory)?,
        };
        self.f[usize::from(u.rd & 31)] = value;
        self.csr.fp_dirty();
        Ok(next)
    }

    /// Puts a value read from a device where the load instruction wants it.
    pub(super) fn finish_load(&mut self, u: &Micro, kind: Load, value: u64) {
        let value = match kind {
            Load::Signed(1) => value as i8 as i64 as u64,
            Load::Signed(2) => value as i16 as i64 as u64,
            Load::Signed(4) => sext32(value),
            Load::Signed(_) | Load::Unsigned(_) => value,
            Load::Single | Load::Double => {
                let boxed = if matches!(kind, Load::Single) { 0xffff_ffff_0000_0000 } else { 0 };
                self.f[usize::from(u.rd & 31)] = value | boxed;
                self.csr.fp_dirty();
                return;
            }
        };
        self.x[usize::from(u.rd)] = value;
    }

    /// Data of a store instruction.
    pub(super) fn store_data(&self, u: &Micro, fp: bool) -> u64 {
        if fp { self.f[usize::from(u.rs2 & 31)] } else { self.rs2(u) }
    }

    /// The exception of an instruction that decodes but may not execute; its word is filled in by the caller.
    fn illegal(&self, _: &Micro) -> Exit {
        Exit::Trap(cause::ILLEGAL, 0)
    }

    #[inline(never)]
    fn execute_other(
        &mut self,
        u: &Micro,
        pc: u64,
        next: u64,
        memory: &mut GuestMemory,
    ) -> Result<u64, Exit> {
        match u.op {
            Op::Fence => Ok(next),
            Op::FenceI => {
                self.blocks.flush();
                Ok(next)
            }
            Op::Ecall => Err(Exit::Trap(cause::ECALL_M, 0)),
            Op::Ebreak => Err(Exit::Trap(cause::BREAKPOINT, pc)),
            Op::Mret => Ok(self.csr.mret()),
            Op::Wfi => Err(Exit::Wait(next)),
            Op::Csrrw | Op::Csrrs | Op::Csrrc | Op::Csrrwi | Op::Csrrsi | Op::Csrrci => {
                self.csr_access(u).ok_or_else(|| self.illegal(u))?;
                Ok(next)
            }
            Op::LrW | Op::LrD => self.load_reserved(u, next, memory),
            Op::ScW | Op::ScD => self.store_conditional(u, next, memory),
            _ if u.op >= Op::AmoswapW && u.op <= Op::AmomaxuD => self.read_modify_write(u, next, memory),
            _ => {
                if !self.csr.fp_on() {
                    return Err(self.illegal(u));
                }
                let f = |r: u8| self.f[usize::from(r & 31)];
                let operands = Operands { f1: f(u.rs1), f2: f(u.rs2), f3: f(u.rs3), x1: self.rs1(u) };
                match float::execute(u, &operands, &mut self.csr) {
                    Some(Outcome::Fp(value)) => self.f[usize::from(u.rd & 31)] = value,
                    Some(Outcome::Int(value)) => self.x[usize::from(u.rd)] = value,
                    None => return Err(self.illegal(u)),
                }
                Ok(next)
            }
        }
    }

    fn csr_access(&mut self, u: &Micro) -> Option<()> {
        let number = u.imm as u16 & 0xfff;
        let at: Moment = self.moment;
        let source = match u.op {
            Op::Csrrwi | Op::Csrrsi | Op::Csrrci => u64::from(u.rs1),
            _ => self.rs1(u),
        };
        let old = self.csr.read(number, &at)?;
        match u.op {
            Op::Csrrw | Op::Csrrwi => self.csr.write(number, source, &at)?,
            _ if u.rs1 == 0 => {}
            Op::Csrrs | Op::Csrrsi => self.csr.write(number, old | source, &at)?,
            _ => self.csr.write(number, old & !source, &at)?,
        }
        self.x[usize::from(u.rd)] = old;
        Some(())
    }

    fn load_reserved(&mut self, u: &Micro, next: u64, memory: &mut GuestMemory) -> Result<u64, Exit> {
        let addr = self.rs1(u);
        let word = u.op == Op::LrW;
        if !addr.is_multiple_of(if word { 4 } else { 8 }) {
            return Err(Exit::Trap(cause::MISALIGNED_LOAD, addr));
        }
        let read = if word { memory.read::<4>(addr).map(sext32) } else { memory.read::<8>(addr) };
        let value = read.map_err(|_| Exit::Trap(cause::LOAD_FAULT, addr))?;
        memory.reserve(self.id, addr);
        self.x[usize::from(u.rd)] = value;
        Ok(next)
    }

    fn store_conditional(&mut self, u: &Micro, next: u64, memory: &mut GuestMemory) -> Result<u64, Exit> {
        let addr = self.rs1(u);
        let word = u.op == Op::ScW;
        if !addr.is_multiple_of(if word { 4 } else { 8 }) {
            return Err(Exit::Trap(cause::MISALIGNED_STORE, addr));
        }
        memory.read::<1>(addr).map_err(|_| Exit::Trap(cause::STORE_FAULT, addr))?;
        let held = memory.take_reservation(self.id, addr);
        let value = self.rs2(u);
        self.x[usize::from(u.rd)] = u64::from(!held);
        if !held {
            return Ok(next);
        }
        self.write_atomic(addr, value, word, next, memory)
    }

    fn read_modify_write(&mut self, u: &Micro, next: u64, memory: &mut GuestMemory) -> Result<u64, Exit> {
        let addr = self.rs1(u);
        let word = u.op <= Op::AmomaxuW;
        if !addr.is_multiple_of(if word { 4 } else { 8 }) {
            return Err(Exit::Trap(cause::MISALIGNED_STORE, addr));
        }
        let read = if word { memory.read::<4>(addr).map(sext32) } else { memory.read::<8>(addr) };
        let old = read.map_err(|_| Exit::Trap(cause::STORE_FAULT, addr))?;
        let source = if word { sext32(self.rs2(u)) } else { self.rs2(u) };
        self.x[usize::from(u.rd)] = old;
        self.write_atomic(addr, atomic(u.op, old, source), word, next, memory)
    }

    fn write_atomic(
        &mut self,
        addr: u64,
        value: u64,
        word: bool,
        next: u64,
        memory: &mut GuestMemory,
    ) -> Result<u64, Exit> {
        let written = if word { memory.write::<4>(addr, value) } else { memory.write::<8>(addr, value) };
        match written {
            Ok(false) => Ok(next),
            Ok(true) => Err(Exit::Touched(next)),
            Err(_) => Err(Exit::Trap(cause::STORE_FAULT, addr)),
        }
    }
}
