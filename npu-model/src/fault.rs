//! A fault of an NPU command: the code FAULT reads, the value FAULT_ADDR reads, and a sentence for people.

use core::fmt;

use isa::npu::registers::FaultCode;

/// Why a command did not execute. Modelled software's fault, never the simulator's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What FAULT reads.
    pub code: FaultCode,
    /// What FAULT_ADDR reads: the offending address, count or code.
    pub value: u64,
    /// The operand or field, and the rule it breaks.
    pub text: &'static str,
}

impl Fault {
    /// A fault.
    #[must_use]
    pub const fn new(code: FaultCode, value: u64, text: &'static str) -> Self {
        Self { code, value, text }
    }

    /// Valid in the command table, but not executed by this NPU.
    #[must_use]
    pub const fn not_in_cap(value: u64, text: &'static str) -> Self {
        Self::new(FaultCode::NotInCap, value, text)
    }

    /// Operands that do not fit together.
    #[must_use]
    pub const fn operand(value: u64, text: &'static str) -> Self {
        Self::new(FaultCode::BadOperand, value, text)
    }

    /// A code the command table does not have.
    #[must_use]
    pub const fn command(value: u64, text: &'static str) -> Self {
        Self::new(FaultCode::BadCommand, value, text)
    }

    /// A range that leaves its scratchpad or accumulator.
    #[must_use]
    pub const fn range(value: u64, text: &'static str) -> Self {
        Self::new(FaultCode::LocalRange, value, text)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} ({:#x}): {}", self.code, self.value, self.text)
    }
}

impl core::error::Error for Fault {}
