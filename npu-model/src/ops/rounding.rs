//! Conversion of fp32 results to every format a command writes, in four rounding modes.
//!
//! Models: nearest with ties to even, nearest with ties away from zero, toward zero, stochastic; saturation.
//! Does not model: exception flags.
//! Source: IEEE 754-2019 for the modes and for overflow; OCP 8-bit floating point 1.0 (e4m3 overflows to NaN).
//!
//! Floats: a finite value beyond the largest finite one overflows to infinity (e4m3, which has none: NaN), toward
//!   zero to the largest; with `saturate` always, and infinities too, to the largest. NaN is canonical.
//! Integers: the rounded value, with `saturate` clamped, otherwise its low bits. NaN is 0.
//! Stochastic: with f the fraction of the value between its two neighbours in magnitude, away from zero if a draw of
//!   24 bits is below f 2^24. Draw i of a command with seed s is the top 24 bits of SplitMix64's output function at
//!   s 2^32 + i + 1, i the element's index in the result, row by row.

use isa::npu::Format;

use super::number;

/// Rounding mode: the `rnd` field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// Nearest, ties to even.
    NearestEven,
    /// Nearest, ties away from zero.
    HalfAway,
    /// Toward zero.
    TowardZero,
    /// Stochastic, with this seed.
    Stochastic(u64),
}

impl Rounding {
    /// The mode of a two-bit code.
    #[must_use]
    pub const fn from_code(code: u64, seed: u64) -> Self {
        match code & 3 {
            0 => Self::NearestEven,
            1 => Self::HalfAway,
            2 => Self::TowardZero,
            _ => Self::Stochastic(seed),
        }
    }

    /// A whole number next to `x`; `index` chooses the draw.
    fn whole(self, x: f64, index: u64) -> f64 {
        match self {
            Self::NearestEven => x.round_ties_even(),
            Self::HalfAway => x.round(),
            Self::TowardZero => x.trunc(),
            Self::Stochastic(seed) => {
                let (whole, fraction) = (x.trunc(), x.fract().abs());
                let up = f64::from(draw(seed, index)) < fraction * 16_777_216.0;
                if up { whole + 1f64.copysign(x) } else { whole }
            }
        }
    }
}

/// 24 random bits.
fn draw(seed: u64, index: u64) -> u32 {
    let mut z = (seed << 32).wrapping_add(index).wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((z ^ (z >> 31)) >> 40) as u32
}

/// A binary float format.
#[derive(Clone, Copy, Debug)]
struct Float {
    significand_bits: i32,
    exponent_bits: i32,
    /// Largest finite magnitude.
    largest: f64,
    infinity: u32,
    nan: u32,
}

const FP16: Float =
    Float { significand_bits: 10, exponent_bits: 5, largest: 65_504.0, infinity: 0x7C00, nan: 0x7E00 };
const BF16: Float = Float {
    significand_bits: 7,
    exponent_bits: 8,
    largest: 3.389_531_389_251_535_5e38,
    infinity: 0x7F80,
    nan: 0x7FC0,
};
const E4M3: Float =
    Float { significand_bits: 3, exponent_bits: 4, largest: 448.0, infinity: 0x7F, nan: 0x7F };
const E5M2: Float =
    Float { significand_bits: 2, exponent_bits: 5, largest: 57_344.0, infinity: 0x7C, nan: 0x7E };

/// 2^n for the exponents of binary formats.
fn power(n: i32) -> f64 {
    f64::from_bits(((1023 + n) as u64) << 52)
}

/// Exponent of a positive fp32, that of the smallest normal for subnormals.
fn exponent(x: f32) -> i32 {
    (((x.to_bits() >> 23) & 0xFF).max(1) as i32) - 127
}

impl Float {
    fn encode(self, x: f32, rounding: Rounding, saturate: bool, index: u64) -> u32 {
        let sign = (x.to_bits() >> 31) << (self.significand_bits + self.exponent_bits);
        if x.is_nan() {
            return self.nan;
        }
        let bias = (1 << (self.exponent_bits - 1)) - 1;
        let exponent = exponent(x.abs()).max(1 - bias);
        let unit = power(exponent - self.significand_bits);
        let rounded = rounding.whole(f64::from(x.abs()) / unit, index) * unit;
        let largest = saturate || (rounding == Rounding::TowardZero && x.is_finite());
        if rounded > self.largest {
            if !largest && self.infinity == self.nan {
                return self.nan;
            }
            return sign | if largest { self.code(self.largest as f32, bias) } else { self.infinity };
        }
        sign | self.code(rounded as f32, bias)
    }

    /// Bits of a magnitude the format holds.
    fn code(self, x: f32, bias: i32) -> u32 {
        let exponent = exponent(x).max(1 - bias);
        let units = f64::from(x) / power(exponent - self.significand_bits);
        let hidden = 1 << self.significand_bits;
        // A significand without its hidden bit is subnormal: exponent field 0.
        let field = exponent + bias - 1;
        (units as u32) + ((field as u32) * hidden)
    }
}

fn integer(x: f32, (low, high): (i64, i64), rounding: Rounding, saturate: bool, index: u64) -> u32 {
    let whole = rounding.whole(f64::from(x), index) as i64;
    (if saturate { whole.clamp(low, high) } else { whole }) as u32
}

/// Formats results convert to: fp32, and those with fewer bits that are neither microscaling nor a codebook.
pub const WRITTEN: &[Format] = &[
    Format::Fp32,
    Format::Fp16,
    Format::Bf16,
    Format::Fp8E4m3,
    Format::Fp8E5m2,
    Format::Int4,
    Format::Uint4,
    Format::Int8,
    Format::Uint8,
    Format::Int16,
];

/// Bits of `x` in `format`, one of [`WRITTEN`]; of anything else, of fp32.
#[must_use]
pub fn encode(format: Format, x: f32, rounding: Rounding, saturate: bool, index: u64) -> u32 {
    match format {
        Format::Fp16 => FP16.encode(x, rounding, saturate, index),
        Format::Bf16 => BF16.encode(x, rounding, saturate, index),
        Format::Fp8E4m3 => E4M3.encode(x, rounding, saturate, index),
        Format::Fp8E5m2 => E5M2.encode(x, rounding, saturate, index),
        Format::Int4 => integer(x, (-8, 7), rounding, saturate, index) & 15,
        Format::Uint4 => integer(x, (0, 15), rounding, saturate, index) & 15,
        Format::Int8 => integer(x, (-128, 127), rounding, saturate, index) & 0xFF,
        Format::Uint8 => integer(x, (0, 255), rounding, saturate, index) & 0xFF,
        Format::Int16 => integer(x, (-32_768, 32_767), rounding, saturate, index) & 0xFFFF,
        _ => number::to_fp32(x),
    }
}

/// One row of results as `format`; `first` is the index of the row's first element in the result.
pub fn encode_row(
    format: Format,
    values: &[f32],
    rounding: Rounding,
    saturate: bool,
    first: u64,
    bytes: &mut [u8],
) {
    let fast = rounding == Rounding::NearestEven && (format == Format::Fp16 || !saturate);
    if format == Format::Fp32 || (fast && matches!(format, Format::Fp16 | Format::Bf16)) {
        return number::encode_row(format, values, saturate, bytes);
    }
    let codes = (first..).zip(values).map(|(i, &v)| encode(format, v, rounding, saturate, i));
    if format.bits() == 4 {
        bytes.fill(0);
        for (i, code) in codes.enumerate() {
            bytes[i / 2] |= (code << (4 * (i % 2))) as u8;
        }
    } else if format.bits() == 8 {
        bytes.iter_mut().zip(codes).for_each(|(b, code)| *b = code as u8);
    } else {
        let pairs = bytes.as_chunks_mut::<2>().0;
        pairs.iter_mut().zip(codes).for_each(|(b, code)| *b = (code as u16).to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Rounding::{HalfAway, NearestEven, Stochastic, TowardZero};

    fn decoded(format: Format, code: u32) -> f32 {
        let mut out = [0.0];
        number::decode_row(format, &code.to_le_bytes()[..(format.bits() as usize).div_ceil(8)], &mut out);
        out[0]
    }

    #[test]
    fn nearest_even_equals_the_half_crate() {
        let mut bits = 1u32;
        for _ in 0..200_000 {
            bits = bits.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let x = f32::from_bits(bits);
            assert_eq!(
                encode(Format::Fp16, x, NearestEven, false, 0),
                u32::from(number::to_fp16(x)),
                "{x:e}"
            );
            assert_eq!(
                encode(Format::Bf16, x, NearestEven, false, 0),
                u32::from(number::to_bf16(x)),
                "{x:e}"
            );
        }
    }

    #[test]
    fn every_narrow_value_converts_to_itself_in_every_mode() {
        for &format in WRITTEN.iter().filter(|f| f.bits() <= 16) {
            for code in 0..1u32 << format.bits() {
                let x = decoded(format, code);
                for rounding in [NearestEven, HalfAway, TowardZero, Stochastic(3)] {
                    let got = encode(format, x, rounding, false, 9);
                    assert!(got == code || x.is_nan(), "{} {code:#x} {x:e}: {got:#x}", format.name());
                }
            }
        }
    }

    #[test]
    fn ties_and_overflow_follow_the_mode() {
        let q = |x, mode| decoded(Format::Int8, encode(Format::Int8, x, mode, true, 0));
        assert_eq!([q(2.5, NearestEven), q(2.5, HalfAway), q(-2.5, HalfAway)], [2.0, 3.0, -3.0]);
        assert_eq!([q(2.9, TowardZero), q(-2.9, TowardZero), q(300.0, NearestEven)], [2.0, -2.0, 127.0]);
        assert_eq!(encode(Format::Int8, 300.0, NearestEven, false, 0), 300 & 0xFF);
        assert_eq!(encode(Format::Int8, f32::NAN, NearestEven, true, 0), 0);
        // Between 16 and 18 e4m3 steps by 2: 17 is a tie.
        let e = |x, mode| decoded(Format::Fp8E4m3, encode(Format::Fp8E4m3, x, mode, false, 0));
        assert_eq!([e(17.0, NearestEven), e(17.0, HalfAway), e(17.9, TowardZero)], [16.0, 18.0, 16.0]);
        assert!(e(480.0, NearestEven).is_nan() && e(f32::INFINITY, TowardZero).is_nan());
        assert_eq!((e(464.0, NearestEven), e(1e9, TowardZero)), (448.0, 448.0));
        assert_eq!(encode(Format::Fp16, 1e9, TowardZero, false, 0), 0x7BFF);
        assert_eq!(encode(Format::Fp16, f32::NEG_INFINITY, TowardZero, false, 0), 0xFC00);
        assert_eq!(encode(Format::Bf16, f32::MAX, NearestEven, true, 0), 0x7F7F);
    }

    #[test]
    fn stochastic_rounding_is_unbiased_and_replays() {
        let n = 100_000u32;
        let up = (0..n).filter(|&i| encode(Format::Int8, 2.3, Stochastic(7), true, i.into()) == 3).count();
        assert!((29_500..30_500).contains(&up), "{up}");
        let again =
            |seed| (0..64).map(|i| encode(Format::Fp16, 1.0003, Stochastic(seed), true, i)).sum::<u32>();
        assert_eq!(again(7), again(7));
        assert_ne!(again(7), again(8));
        let mut row = [0u8; 2];
        encode_row(Format::Int4, &[-1.0, 7.4, -9.0], NearestEven, true, 0, &mut row);
        assert_eq!(row, [0x7F, 0x08]);
    }
}
