//! What a command costs: cycles of its engine, and the actions its energy is counted from.

use crate::array::Rate;

/// Path a GEMM command takes through the matrix engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// B stationary, weight load hidden.
    WeightStationary,
    /// C stationary.
    OutputStationary,
    /// A stationary, B streams.
    Gemv,
}

/// Cost of one command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Cycles the engine is occupied: start + fill + active + drain.
    pub cycles: u64,
    /// Fixed latency of the command in the engine.
    pub start_cycles: u64,
    /// Cycles before the first useful row enters.
    pub fill_cycles: u64,
    /// Cycles that stream rows or compute vectors.
    pub active_cycles: u64,
    /// Cycles after the last row entered.
    pub drain_cycles: u64,
    /// Multiply-accumulates asked for.
    pub macs: u64,
    /// Multiply-accumulate slots the array spent while streaming.
    pub padded_macs: u64,
    /// MAC rate of the command's formats; `None` if it uses no MACs.
    pub rate: Option<Rate>,
    /// Path through the matrix engine.
    pub path: Option<Path>,
    /// Bytes read from the scratchpad.
    pub spm_read_bytes: u64,
    /// Bytes written to the scratchpad.
    pub spm_write_bytes: u64,
    /// Bytes read from the accumulator.
    pub acc_read_bytes: u64,
    /// Bytes written to the accumulator.
    pub acc_write_bytes: u64,
    /// Elementary vector operations (an add, a multiply, a comparison, a conversion of one element).
    pub vector_ops: u64,
    /// Exponentials, sines, cosines, square roots and divisions.
    pub special_ops: u64,
    /// Weights decoded from a narrower format.
    pub decoded_weights: u64,
}

impl Cost {
    /// Charges `cycles` that no lane can share, one elementary operation each.
    pub(super) const fn serial(&mut self, cycles: u64) {
        self.cycles += cycles;
        self.active_cycles += cycles;
        self.vector_ops += cycles;
    }

    /// Charges `bytes` read from `space`.
    pub(super) fn read(&mut self, space: crate::local::Space, bytes: u64) {
        match space {
            crate::local::Space::Spm => self.spm_read_bytes += bytes,
            crate::local::Space::Acc => self.acc_read_bytes += bytes,
        }
    }

    /// Charges `bytes` written to `space`.
    pub(super) fn write(&mut self, space: crate::local::Space, bytes: u64) {
        match space {
            crate::local::Space::Spm => self.spm_write_bytes += bytes,
            crate::local::Space::Acc => self.acc_write_bytes += bytes,
        }
    }
}
