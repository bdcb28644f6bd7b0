//! What was done, in counts that energy and reports are made of; by operation of the model.

use std::collections::BTreeMap;

use isa::npu::Command;

use crate::array::Rate;
use crate::dma::Traffic;
use crate::ops::Cost;

/// Classes of MACs that differ in rate and energy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum MacClass {
    /// int4 by int4.
    Int4,
    /// int8 by int8 (or narrower weights).
    Int8,
    /// 16-bit floating point.
    Fp16,
    /// 32-bit floating point.
    Fp32,
}

impl MacClass {
    /// Every class.
    pub const ALL: [Self; 4] = [Self::Int4, Self::Int8, Self::Fp16, Self::Fp32];

    /// Name, as the energy table's format.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Int4 => "int4",
            Self::Int8 => "int8",
            Self::Fp16 => "fp16",
            Self::Fp32 => "fp32",
        }
    }

    const fn of(rate: Rate) -> Self {
        match rate {
            Rate::Double => Self::Int4,
            Rate::Full => Self::Int8,
            Rate::Half => Self::Fp16,
            Rate::Eighth => Self::Fp32,
        }
    }

    /// MACs a cycle of an R x C array as (numerator, denominator) of R * C.
    #[must_use]
    pub const fn rate(self) -> (u64, u64) {
        match self {
            Self::Int4 => (2, 1),
            Self::Int8 => (1, 1),
            Self::Fp16 => (1, 2),
            Self::Fp32 => (1, 8),
        }
    }
}

macro_rules! counts {
    ($( $field:ident $text:literal ),* $(,)?) => {
        /// Counts of energy-relevant actions.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Activity {
            /// Useful MACs by class.
            pub macs: [u64; 4],
            $( #[doc = $text] pub $field: u64, )*
        }
        impl Activity {
            /// Adds another account.
            pub fn add(&mut self, other: &Self) {
                for (a, b) in self.macs.iter_mut().zip(other.macs) { *a += b; }
                $( self.$field += other.$field; )*
            }
            /// What this account has beyond `earlier`.
            #[must_use]
            pub fn since(&self, earlier: &Self) -> Self {
                let mut out = *self;
                for (a, b) in out.macs.iter_mut().zip(earlier.macs) { *a -= b; }
                $( out.$field -= earlier.$field; )*
                out
            }
            /// All useful MACs.
            #[must_use]
            pub fn total_macs(&self) -> u64 { self.macs.iter().sum() }
        }
    };
}

counts! {
    spm_read "Scratchpad bytes read.",
    spm_write "Scratchpad bytes written.",
    acc_read "Accumulator bytes read.",
    acc_write "Accumulator bytes written.",
    vector_ops "Elementary vector operations.",
    special_ops "Exponentials, roots, sines and divisions.",
    decoded_weights "Weights decoded from a narrower format.",
    dma_bytes "Bytes DMA moved.",
    memory_read "Bytes DMA read from memory.",
    memory_written "Bytes DMA wrote to memory.",
    fabric_bytes "Bytes times destinations that crossed the fabric.",
    transfers "DMA commands.",
    commands "Commands dispatched.",
    semaphores "Semaphore acquires and posts.",
    active_cycles "Engine cycles doing what the engine is for.",
}

impl Activity {
    /// The account of a GEMM or VEC command.
    #[must_use]
    pub fn of_cost(c: &Cost) -> Self {
        let mut a = Self {
            spm_read: c.spm_read_bytes,
            spm_write: c.spm_write_bytes,
            acc_read: c.acc_read_bytes,
            acc_write: c.acc_write_bytes,
            vector_ops: c.vector_ops,
            special_ops: c.special_ops,
            decoded_weights: c.decoded_weights,
            active_cycles: c.active_cycles,
            ..Self::default()
        };
        if let Some(rate) = c.rate {
            a.macs[MacClass::of(rate) as usize] = c.macs;
        }
        a
    }

    /// The account of a transfer.
    #[must_use]
    pub fn of_transfer(t: &Traffic) -> Self {
        Self {
            dma_bytes: t.moved,
            memory_read: t.memory_read,
            memory_written: t.memory_written,
            spm_read: t.spm_read,
            spm_write: t.spm_write,
            fabric_bytes: t.fabric,
            active_cycles: t.beats,
            transfers: 1,
            ..Self::default()
        }
    }

    /// Adds what every command costs: dispatch and its semaphores.
    pub fn add_command(&mut self, c: &Command) {
        let h = &c.header;
        self.commands += 1;
        self.semaphores += [h.w0_n, h.w1_n, h.s0_n, h.s1_n].iter().filter(|n| **n > 0).count() as u64;
    }
}

/// Which operation of the model a command belongs to: pass, mark (layer), tag (kind).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OpKey {
    /// Completion records before it: the number of the pass over the model.
    pub pass: u64,
    /// Value of the last PMU_MARK: the layer.
    pub mark: u64,
    /// Tag: the kind.
    pub tag: u64,
}

/// One operation over all cores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpRow {
    /// Start of its first command, femtoseconds.
    pub start: u64,
    /// End of its last command, femtoseconds.
    pub end: u64,
    /// What it did.
    pub activity: Activity,
    /// Busy cycles of all DMA channels, MX and VP: what bounds it is read from these.
    pub busy: [u64; 3],
    /// Cycles its transfers were slower than their channels.
    pub dram_cycles: u64,
}

/// All operations of a run.
#[derive(Clone, Debug, Default)]
pub struct OpTable {
    rows: BTreeMap<OpKey, OpRow>,
}

impl OpTable {
    /// The row of an operation.
    pub fn row(&mut self, key: OpKey, now: u64) -> &mut OpRow {
        self.rows.entry(key).or_insert(OpRow { start: now, ..OpRow::default() })
    }

    /// All rows in order of pass, layer and kind.
    #[must_use]
    pub const fn rows(&self) -> &BTreeMap<OpKey, OpRow> {
        &self.rows
    }
}
