//! Which arithmetic a pair of formats takes, and at which rate.

use isa::image::group_rows;
use isa::npu::{Epilogue, Format, Gemm};

use super::weights::{Weights, Zero, is_integer};
use crate::array::Rate;
use crate::fault::Fault;

/// Formats of A.
pub(super) const A_FORMATS: &[Format] = &[
    Format::Int4,
    Format::Uint4,
    Format::Int8,
    Format::Uint8,
    Format::Int16,
    Format::Fp16,
    Format::Bf16,
    Format::Fp32,
    Format::Fp8E4m3,
    Format::Fp8E5m2,
    Format::Mxfp4,
    Format::Mxfp8,
];

/// Formats of B.
pub(super) const B_FORMATS: &[Format] = &[
    Format::Int2,
    Format::Int4,
    Format::Uint4,
    Format::Int8,
    Format::Uint8,
    Format::Int16,
    Format::Fp16,
    Format::Bf16,
    Format::Fp32,
    Format::Fp8E4m3,
    Format::Fp8E5m2,
    Format::Mxfp4,
    Format::Mxfp8,
    Format::Codebook4,
];

/// How products are summed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arithmetic {
    /// Whole weights, float accumulators.
    Float,
    /// Codes, integer accumulators.
    Integer,
    /// A dot product of this many rows of K, then its scales; float accumulators.
    Blocks(usize),
}

/// The arithmetic of a command.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    pub arithmetic: Arithmetic,
    /// Sums of products are int32 that fp32 would not hold.
    pub wide: bool,
    /// Accumulators are fp16 or int24.
    pub narrow: bool,
    pub rate: Rate,
}

const fn is_float(format: Format) -> bool {
    matches!(format, Format::Fp16 | Format::Bf16 | Format::Fp32)
}

const fn bits(format: Format) -> u64 {
    match format {
        Format::Mxfp4 => 8, // decoded to fp8
        f => f.bits(),
    }
}

/// Bits of the multiplier's wider operand after weight decode.
fn width(a: Format, b: Format) -> u64 {
    let weight = match b {
        // Entries are fp16.
        Format::Codebook4 => 16,
        Format::Int2 => 4,
        // fp8 holds every code of four bits, but not of eight.
        Format::Int8 | Format::Uint8 if !is_integer(a) => 16,
        f => bits(f),
    };
    weight.max(bits(a))
}

fn rate(a: Format, b: Format) -> Rate {
    match width(a, b) {
        32.. => Rate::Eighth,
        16.. => Rate::Half,
        8.. => Rate::Full,
        _ => Rate::Double,
    }
}

impl Rules {
    pub fn new(g: &Gemm, e: &Epilogue, af: Format, b: &Weights) -> Result<Self, Fault> {
        let bf = b.format;
        let (a_block, b_group) = (group_rows(e.ag), b.scale_group());
        let integer = is_integer(af);
        let blocked = !is_float(af) && (a_block, b_group) != (0, 0);
        let suits = is_integer(bf) || (blocked && bf == Format::Codebook4);
        if integer && !suits {
            return Err(Fault::operand(g.bf, "bf: an integer A needs an integer B, or in blocks a codebook"));
        }
        let arithmetic = if blocked {
            let shorter = if a_block.min(b_group) == 0 { a_block.max(b_group) } else { a_block.min(b_group) };
            if b.zero == Zero::Minimum && (e.asum == 0 || a_block > b_group) {
                let text = "asum: minima need the sums of A's blocks, none longer than a group";
                return Err(Fault::operand(e.asum, text));
            }
            Arithmetic::Blocks(shorter as usize)
        } else if integer {
            Arithmetic::Integer
        } else {
            Arithmetic::Float
        };
        let wide = integer && is_integer(bf) && (af == Format::Int16 || bf == Format::Int16);
        Ok(Self { arithmetic, wide, narrow: g.acc16 == 1, rate: rate(af, bf) })
    }
}
