//! Quantisation schemes: how each class of tensor is stored and computed.
//!
//! Models: formats, groups and their bits. Does not model: the values. Source: the scheme definitions of this
//! project's interface (w4a16 in groups of 128 is the AWQ and GPTQ layout with symmetric int4).

use serde::Serialize;

/// A stored number format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TensorFormat {
    /// Signed 4-bit integer.
    Int4,
    /// Signed 8-bit integer.
    Int8,
    /// IEEE 754 half precision.
    Fp16,
}

impl TensorFormat {
    /// Bits of one element, scales apart.
    #[must_use]
    pub const fn bits(self) -> u64 {
        match self {
            Self::Int4 => 4,
            Self::Int8 => 8,
            Self::Fp16 => 16,
        }
    }
}

/// How a weight matrix of K rows (inputs) is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum WeightQuant {
    /// Plain elements without scales.
    Plain(TensorFormat),
    /// One fp16 scale per group of rows in a column.
    Grouped {
        /// Format of an element.
        format: TensorFormat,
        /// Rows of a group.
        group: u32,
    },
    /// One fp16 scale per column.
    PerChannel(TensorFormat),
}

/// Bits of one scale (fp16).
pub const SCALE_BITS: u64 = 16;

impl WeightQuant {
    /// Format of an element.
    #[must_use]
    pub const fn format(self) -> TensorFormat {
        match self {
            Self::Plain(format) | Self::Grouped { format, .. } | Self::PerChannel(format) => format,
        }
    }

    /// Bits of a K x N matrix, scales included.
    #[must_use]
    pub const fn matrix_bits(self, k: u64, n: u64) -> u64 {
        let scales = match self {
            Self::Plain(_) => 0,
            Self::Grouped { group, .. } => k.div_ceil(group as u64) * n,
            Self::PerChannel(_) => n,
        };
        k * n * self.format().bits() + scales * SCALE_BITS
    }
}

/// How every class of tensor is stored and computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct QuantScheme {
    /// Name.
    pub name: &'static str,
    /// Projections of the blocks.
    pub body: WeightQuant,
    /// Output head.
    pub head: WeightQuant,
    /// Embedding rows.
    pub embedding: TensorFormat,
    /// Key and value cache.
    pub kv: TensorFormat,
    /// Left operand of the projections.
    pub activation: TensorFormat,
}

impl QuantScheme {
    /// Every scheme.
    pub const ALL: [Self; 3] = [
        Self {
            name: "w4a16-g128",
            body: WeightQuant::Grouped { format: TensorFormat::Int4, group: 128 },
            head: WeightQuant::Grouped { format: TensorFormat::Int8, group: 128 },
            embedding: TensorFormat::Fp16,
            kv: TensorFormat::Fp16,
            activation: TensorFormat::Fp16,
        },
        Self {
            name: "w8a8",
            body: WeightQuant::PerChannel(TensorFormat::Int8),
            head: WeightQuant::PerChannel(TensorFormat::Int8),
            embedding: TensorFormat::Fp16,
            kv: TensorFormat::Fp16,
            activation: TensorFormat::Int8,
        },
        Self {
            name: "fp16",
            body: WeightQuant::Plain(TensorFormat::Fp16),
            head: WeightQuant::Plain(TensorFormat::Fp16),
            embedding: TensorFormat::Fp16,
            kv: TensorFormat::Fp16,
            activation: TensorFormat::Fp16,
        },
    ];
}
