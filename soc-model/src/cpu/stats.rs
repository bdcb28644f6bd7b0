//! What a hart counts: one cause for every cycle, one class for every instruction.

use isa::rv64::Class;
use serde::{Deserialize, Serialize};

/// What a cycle of a hart was spent on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Cause {
    /// At least one instruction issued.
    Active,
    /// Waiting for instructions.
    Frontend,
    /// Waiting for a result of the pipeline or an L1 hit.
    Dependency,
    /// Waiting for the private L2 or for a free miss register.
    Memory,
    /// Waiting for the shared cache.
    L3,
    /// Waiting for main memory.
    Dram,
    /// Waiting for a device register.
    Mmio,
    /// Refilling the pipeline after a misprediction.
    Branch,
    /// Traps, returns and other serialising instructions.
    System,
    /// Asleep in `wfi`, or not started.
    Idle,
}

/// Every cause with its name.
pub const CAUSES: [(Cause, &str); 10] = [
    (Cause::Active, "active"),
    (Cause::Frontend, "frontend"),
    (Cause::Dependency, "dependency"),
    (Cause::Memory, "memory"),
    (Cause::L3, "l3"),
    (Cause::Dram, "dram"),
    (Cause::Mmio, "mmio"),
    (Cause::Branch, "branch"),
    (Cause::System, "system"),
    (Cause::Idle, "idle"),
];

/// Retired instructions by class, as the energy ledger charges them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassCounts {
    /// Integer arithmetic, logic and moves.
    pub alu: u64,
    /// Integer multiply and divide.
    pub mul_div: u64,
    /// Loads.
    pub load: u64,
    /// Stores.
    pub store: u64,
    /// Atomics, load-reserved, store-conditional.
    pub amo: u64,
    /// Branches and jumps.
    pub branch: u64,
    /// Floating point.
    pub fp: u64,
    /// CSR accesses, fences, calls, returns, waits.
    pub system: u64,
}

impl ClassCounts {
    pub(super) fn add(&mut self, class: Class, count: u64) {
        let slot = match class {
            Class::Alu => &mut self.alu,
            Class::Mul | Class::Div => &mut self.mul_div,
            Class::Load => &mut self.load,
            Class::Store => &mut self.store,
            Class::Amo => &mut self.amo,
            Class::Branch | Class::Jump => &mut self.branch,
            Class::FpAdd
            | Class::FpMul
            | Class::FpFma
            | Class::FpDiv
            | Class::FpSqrt
            | Class::FpConvert
            | Class::FpMove => &mut self.fp,
            Class::System => &mut self.system,
        };
        *slot += count;
    }

    pub(super) fn minus(&self, other: &Self) -> Self {
        Self {
            alu: self.alu - other.alu,
            mul_div: self.mul_div - other.mul_div,
            load: self.load - other.load,
            store: self.store - other.store,
            amo: self.amo - other.amo,
            branch: self.branch - other.branch,
            fp: self.fp - other.fp,
            system: self.system - other.system,
        }
    }

    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        let Self { alu, mul_div, load, store, amo, branch, fp, system } = *self;
        alu + mul_div + load + store + amo + branch + fp + system
    }
}

/// The account of one hart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HartStats {
    /// Retired instructions.
    pub instructions: u64,
    /// Cycles of the hart's clock; the sum of `causes`.
    pub cycles: u64,
    /// Cycles by cause, in the order of `CAUSES`.
    pub causes: [u64; CAUSES.len()],
    /// Instructions by class; their sum is `instructions`.
    pub classes: ClassCounts,
    /// Traps taken: exceptions.
    pub exceptions: u64,
    /// Traps taken: interrupts.
    pub interrupts: u64,
    /// Conditional branches and indirect jumps whose prediction was wrong.
    pub mispredicts: u64,
    /// L1 instruction cache misses.
    pub l1i_misses: u64,
    /// L1 data cache misses.
    pub l1d_misses: u64,
    /// Private L2 misses, instructions and data.
    pub l2_misses: u64,
    /// Dirty lines sent out of the private caches.
    pub write_backs: u64,
}

impl HartStats {
    /// Cycles spent on one cause.
    #[must_use]
    pub fn cause(&self, cause: Cause) -> u64 {
        self.causes[cause as usize]
    }
}
