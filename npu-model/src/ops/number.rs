//! Number formats of the engines: bytes to fp32 and back, bit-defined.
//!
//! Models: int8, uint8, int32, fp16, bf16, fp32; rounding to nearest, ties to even; one NaN per format.
//!   The other formats are in `narrow`, the other rounding modes in `rounding`.
//! Does not model: exception flags.
//! Source: IEEE 754-2019 (binary16, binary32); bfloat16 is binary32's upper half.
//!
//! Every conversion to fp32 is exact except int32's. A NaN that is stored is the positive quiet NaN of its
//! format, so results do not depend on the host's NaN payloads.

use isa::npu::Format;

use super::narrow;

/// Format codes the engines execute; bit i is code i.
pub const FORMATS: u64 = {
    let mut mask = 0;
    let mut i = 0;
    while i < Format::ALL.len() {
        if executed(Format::ALL[i]) {
            mask |= 1 << Format::ALL[i].code();
        }
        i += 1;
    }
    mask
};

/// Whether any engine operation reads or writes this format.
#[must_use]
pub const fn executed(format: Format) -> bool {
    !matches!(format, Format::Reserved15)
}

/// Whether the format is a float the vector engine computes with.
#[must_use]
pub const fn is_float(format: Format) -> bool {
    matches!(format, Format::Fp16 | Format::Bf16 | Format::Fp32)
}

/// The fp32 nearest `x` that fp16 can hold; magnitudes from 65520 become infinite.
#[inline]
#[must_use]
pub fn round_fp16(x: f32) -> f32 {
    const SMALLEST_NORMAL: f32 = 6.103_515_6e-5; // 2^-14
    let bits = x.to_bits();
    let magnitude = f32::from_bits(bits & 0x7FFF_FFFF);
    // Normal range: round the significand to 10 stored bits, ties to even, by integer carry.
    let normal = f32::from_bits(
        (bits & 0x7FFF_FFFF).wrapping_add(0x0FFF).wrapping_add((bits >> 13) & 1) & 0xFFFF_E000,
    );
    // Subnormal range: at 0.75 an fp32's spacing is 2^-24, that of fp16's subnormals.
    let subnormal = (magnitude + 0.75) - 0.75;
    let rounded = if magnitude < SMALLEST_NORMAL { subnormal } else { normal };
    let rounded = if magnitude >= 65_520.0 { f32::INFINITY } else { rounded };
    let rounded = if magnitude.is_nan() { f32::NAN } else { rounded };
    f32::from_bits((rounded.to_bits() & 0x7FFF_FFFF) | (bits & 0x8000_0000))
}

/// The fp32 equal to an fp16.
#[inline]
#[must_use]
pub fn from_fp16(h: u16) -> f32 {
    const REBIAS: f32 = 5.192_297e33; // 2^112
    let magnitude = f32::from_bits(u32::from(h & 0x7FFF) << 13) * REBIAS;
    let special = if magnitude >= 65_536.0 { 0x7F80_0000 } else { 0 };
    f32::from_bits(magnitude.to_bits() | special | (u32::from(h & 0x8000) << 16))
}

/// The nearest fp16, NaN canonical.
#[inline]
#[must_use]
pub fn to_fp16(x: f32) -> u16 {
    if x.is_nan() { 0x7E00 } else { half::f16::from_f32(x).to_bits() }
}

/// The nearest fp16, clamped to the largest finite ones.
#[inline]
#[must_use]
pub fn to_fp16_saturating(x: f32) -> u16 {
    match to_fp16(x) {
        0x7C00 => 0x7BFF,
        0xFC00 => 0xFBFF,
        h => h,
    }
}

/// The nearest bfloat16, NaN canonical.
#[inline]
#[must_use]
pub fn to_bf16(x: f32) -> u16 {
    if x.is_nan() { 0x7FC0 } else { half::bf16::from_f32(x).to_bits() }
}

/// Bits of an fp32 as stored: NaN is canonical.
#[inline]
#[must_use]
pub fn to_fp32(x: f32) -> u32 {
    if x.is_nan() { 0x7FC0_0000 } else { x.to_bits() }
}

/// x / (1 + e^-x), the exponential and the division each rounded to fp32.
#[inline]
#[must_use]
pub fn silu(x: f32) -> f32 {
    x / (1.0 + libm::expf(-x))
}

/// `y` if it is greater, else `x` (so a NaN in `y` is ignored).
#[inline]
#[must_use]
pub fn max(x: f32, y: f32) -> f32 {
    if y > x { y } else { x }
}

/// `y` if it is less, else `x`.
#[inline]
#[must_use]
pub fn min(x: f32, y: f32) -> f32 {
    if y < x { y } else { x }
}

/// Format of a scale: GEMM's `sf` code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// binary16.
    Fp16,
    /// bfloat16.
    Bf16,
    /// binary32.
    Fp32,
    /// 2^(code - 127), 255 is NaN.
    E8m0,
}

impl Scale {
    /// The format of a two-bit code.
    #[must_use]
    pub const fn from_code(code: u64) -> Self {
        match code & 3 {
            0 => Self::Fp16,
            1 => Self::Bf16,
            2 => Self::Fp32,
            _ => Self::E8m0,
        }
    }

    /// Bytes of a scale.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Self::Fp16 | Self::Bf16 => 2,
            Self::Fp32 => 4,
            Self::E8m0 => 1,
        }
    }

    /// Scales as fp32; `bytes` holds exactly `out.len()` of them.
    pub fn decode(self, bytes: &[u8], out: &mut [f32]) {
        match self {
            Self::Fp16 => decode_row(Format::Fp16, bytes, out),
            Self::Bf16 => decode_row(Format::Bf16, bytes, out),
            Self::Fp32 => decode_row(Format::Fp32, bytes, out),
            Self::E8m0 => out.iter_mut().zip(bytes).for_each(|(o, &b)| *o = narrow::from_e8m0(b)),
        }
    }
}

/// A row of fp16, 32 at a time: infinities and NaNs, which cost a comparison each, are looked for first.
fn decode_fp16(bytes: &[u8], out: &mut [f32]) {
    let (outs, last) = out.as_chunks_mut::<32>();
    let (ins, rest) = bytes.as_chunks::<64>();
    for (out, bytes) in outs.iter_mut().zip(ins) {
        let mut codes = [0u16; 32];
        codes.iter_mut().zip(bytes.as_chunks::<2>().0).for_each(|(h, b)| *h = u16::from_le_bytes(*b));
        let special = codes.iter().fold(0u16, |any, h| any | u16::from(h & 0x7C00 == 0x7C00));
        if special == 0 {
            out.iter_mut().zip(codes).for_each(|(o, h)| *o = from_finite_fp16(h));
        } else {
            out.iter_mut().zip(codes).for_each(|(o, h)| *o = from_fp16(h));
        }
    }
    for (o, b) in last.iter_mut().zip(rest.as_chunks::<2>().0) {
        *o = from_fp16(u16::from_le_bytes(*b));
    }
}

/// The fp32 equal to a finite fp16.
#[inline]
fn from_finite_fp16(h: u16) -> f32 {
    const REBIAS: f32 = 5.192_297e33; // 2^112
    let wide = i32::from(h.cast_signed()) << 13;
    f32::from_bits(wide.cast_unsigned() & 0x8FFF_E000) * REBIAS
}

/// Values rounded to fp16 in place, 16 at a time: by integer carry where all are normal in fp16.
pub fn round_row_fp16(values: &mut [f32]) {
    let (chunks, rest) = values.as_chunks_mut::<16>();
    for chunk in chunks {
        // Magnitudes from 2^-14 to below 65504 and half a step: outside one of the differences is negative.
        let odd = chunk.iter().fold(0, |any, v| {
            let magnitude = (v.to_bits() & 0x7FFF_FFFF).cast_signed();
            any | magnitude.wrapping_sub(0x3880_0000) | 0x477F_EFFFi32.wrapping_sub(magnitude)
        });
        if odd < 0 {
            chunk.iter_mut().for_each(|v| *v = round_fp16(*v));
        } else {
            chunk.iter_mut().for_each(|v| *v = round_normal_fp16(*v));
        }
    }
    rest.iter_mut().for_each(|v| *v = round_fp16(*v));
}

/// [`round_fp16`] of a value that is zero or normal in fp16 and rounds to no more than its largest.
#[inline]
#[must_use]
pub fn round_normal_fp16(x: f32) -> f32 {
    let bits = x.to_bits();
    f32::from_bits(bits.wrapping_add(0x0FFF).wrapping_add((bits >> 13) & 1) & 0xFFFF_E000)
}

/// One packed row of `format` as fp32; `bytes` holds exactly `out.len()` elements.
///
/// Formats that are not executed leave zeros: operands are checked before anything is decoded.
pub fn decode_row(format: Format, bytes: &[u8], out: &mut [f32]) {
    match format {
        Format::Int8 => {
            for (o, &b) in out.iter_mut().zip(bytes) {
                *o = f32::from(b.cast_signed());
            }
        }
        Format::Uint8 => out.iter_mut().zip(bytes).for_each(|(o, &b)| *o = f32::from(b)),
        Format::Int32 => {
            for (o, b) in out.iter_mut().zip(bytes.chunks_exact(4)) {
                *o = i32::from_le_bytes([b[0], b[1], b[2], b[3]]) as f32;
            }
        }
        Format::Fp16 => {
            decode_fp16(bytes, out);
        }
        Format::Bf16 => {
            for (o, b) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                *o = f32::from_bits(u32::from(u16::from_le_bytes(*b)) << 16);
            }
        }
        Format::Fp32 => {
            for (o, b) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
                *o = f32::from_le_bytes(*b);
            }
        }
        _ => {
            if !narrow::decode_row(format, bytes, out) {
                out.fill(0.0);
            }
        }
    }
}

/// One row of fp32 as `format`, which is fp16, bf16 or fp32; `saturate` keeps fp16 finite.
pub fn encode_row(format: Format, values: &[f32], saturate: bool, bytes: &mut [u8]) {
    match format {
        Format::Fp16 => {
            let convert = if saturate { to_fp16_saturating } else { to_fp16 };
            for (b, &v) in bytes.chunks_exact_mut(2).zip(values) {
                b.copy_from_slice(&convert(v).to_le_bytes());
            }
        }
        Format::Bf16 => {
            for (b, &v) in bytes.chunks_exact_mut(2).zip(values) {
                b.copy_from_slice(&to_bf16(v).to_le_bytes());
            }
        }
        Format::Fp32 => {
            for (b, &v) in bytes.chunks_exact_mut(4).zip(values) {
                b.copy_from_slice(&to_fp32(v).to_le_bytes());
            }
        }
        _ => bytes.fill(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fp16_decodes_as_the_half_crate_does() {
        for h in 0..=u16::MAX {
            let expected = half::f16::from_bits(h).to_f32();
            let got = from_fp16(h);
            assert!(got.to_bits() == expected.to_bits() || (got.is_nan() && expected.is_nan()), "{h:#x}");
        }
    }

    #[test]
    fn rounding_to_fp16_in_place_equals_conversion_and_back() {
        // Around every fp16 value: itself, both neighbours in fp32, and the tie to its successor.
        for h in 0..=u16::MAX {
            let x = from_fp16(h);
            let tie = f32::from_bits(x.to_bits().wrapping_add(0x1000));
            for base in [x, tie] {
                for delta in [0u32, 1, u32::MAX] {
                    let v = f32::from_bits(base.to_bits().wrapping_add(delta));
                    let expected = half::f16::from_f32(v).to_f32();
                    let got = round_fp16(v);
                    assert!(
                        got.to_bits() == expected.to_bits() || (got.is_nan() && expected.is_nan()),
                        "{v:e}: {got:e}, not {expected:e}"
                    );
                }
            }
        }
        // Subnormal ties lie elsewhere.
        for i in 0..5000u32 {
            for sign in [1.0f32, -1.0] {
                let v = sign * (i as f32) * f32::from_bits(0x3280_0000); // 2^-26
                assert_eq!(round_fp16(v).to_bits(), half::f16::from_f32(v).to_f32().to_bits());
            }
        }
    }

    #[test]
    fn the_format_mask_lists_what_executes() {
        let names: Vec<_> =
            Format::ALL.iter().filter(|f| FORMATS >> f.code() & 1 == 1).map(|f| f.name()).collect();
        let all: Vec<_> = Format::ALL.iter().map(|f| f.name()).filter(|n| *n != "reserved15").collect();
        assert_eq!(names, all);
    }
}
