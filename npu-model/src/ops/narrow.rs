//! Formats of at most 16 bits that are neither fp16 nor bf16: packed rows to fp32, exactly.
//!
//! Models: int2, int4, uint4, int16; fp8 e4m3 (finite, one NaN) and e5m2; e2m1, the element of mxfp4; e8m0 scales.
//! Does not model: the scales of microscaling formats (operands carry those beside their elements).
//! Source: OCP 8-bit floating point 1.0; OCP microscaling formats 1.0.
//!
//! Elements of 2 and 4 bits lie low bits first. Codes of a codebook decode to their number, 0 to 15.

use isa::npu::Format;

use super::number;

/// Values of e2m1 by code.
const E2M1: [f32; 16] =
    [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0];

/// Values of fp8 e4m3 by code: bias 7, no infinities, NaN at the ends.
const E4M3: [f32; 256] = {
    let mut table = [0.0; 256];
    let mut code = 0;
    while code < 256 {
        let magnitude = (code & 0x7F) as u32;
        // The exponent is seven too small for fp32's bias less 2^120; the product is exact.
        let value = if magnitude == 0x7F {
            f32::NAN
        } else {
            f32::from_bits(magnitude << 20) * f32::from_bits((120 + 127) << 23)
        };
        table[code] = if code < 128 { value } else { -value };
        code += 1;
    }
    table
};

/// The fp32 equal to an fp8 e4m3.
#[inline]
#[must_use]
pub const fn from_e4m3(code: u8) -> f32 {
    E4M3[code as usize]
}

/// The fp32 equal to an fp8 e5m2: binary16's upper half.
#[inline]
#[must_use]
pub fn from_e5m2(code: u8) -> f32 {
    number::from_fp16(u16::from(code) << 8)
}

/// The fp32 equal to an e2m1 in the low four bits.
#[inline]
#[must_use]
pub const fn from_e2m1(code: u8) -> f32 {
    E2M1[(code & 15) as usize]
}

/// The power of two of an e8m0: 2^(code - 127), exact down to fp32's subnormal 2^-127; 255 is NaN.
#[inline]
#[must_use]
pub const fn from_e8m0(code: u8) -> f32 {
    match code {
        0 => f32::from_bits(0x0040_0000),
        255 => f32::NAN,
        c => f32::from_bits((c as u32) << 23),
    }
}

#[inline]
fn nibbles(bytes: &[u8], out: &mut [f32], value: impl Fn(u8) -> f32) {
    let (outs, last) = out.as_chunks_mut::<8>();
    let (ins, rest) = bytes.split_at(4 * outs.len());
    for (out, bytes) in outs.iter_mut().zip(ins.as_chunks::<4>().0) {
        // Eight nibbles to the low halves of eight bytes, by halves.
        let x = u64::from(u32::from_le_bytes(*bytes));
        let x = (x | x << 16) & 0x0000_FFFF_0000_FFFF;
        let x = (x | x << 8) & 0x00FF_00FF_00FF_00FF;
        let x = (x | x << 4) & 0x0F0F_0F0F_0F0F_0F0F;
        out.iter_mut().zip(x.to_le_bytes()).for_each(|(o, c)| *o = value(c));
    }
    for (i, o) in last.iter_mut().enumerate() {
        *o = value(rest[i / 2] >> (4 * (i % 2)) & 15);
    }
}

/// One packed row as fp32; false if `format` is none of this file's.
pub fn decode_row(format: Format, bytes: &[u8], out: &mut [f32]) -> bool {
    match format {
        Format::Int2 => {
            for (i, o) in out.iter_mut().enumerate() {
                let code = bytes[i / 4] >> (2 * (i % 4)) & 3;
                *o = f32::from((code << 6).cast_signed() >> 6);
            }
        }
        Format::Int4 => nibbles(bytes, out, |b| (i32::from(b ^ 8) - 8) as f32),
        Format::Uint4 | Format::Codebook4 => nibbles(bytes, out, f32::from),
        Format::Mxfp4 => nibbles(bytes, out, from_e2m1),
        Format::Int16 => {
            for (o, b) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                *o = f32::from(i16::from_le_bytes(*b));
            }
        }
        Format::Fp8E4m3 | Format::Mxfp8 => {
            out.iter_mut().zip(bytes).for_each(|(o, &b)| *o = from_e4m3(b));
        }
        Format::Fp8E5m2 => out.iter_mut().zip(bytes).for_each(|(o, &b)| *o = from_e5m2(b)),
        _ => return false,
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sign, exponent and significand by their definition.
    fn value(code: u32, exponent_bits: u32, significand_bits: u32) -> f64 {
        let exponent = code >> significand_bits & ((1 << exponent_bits) - 1);
        let significand = f64::from(code & ((1 << significand_bits) - 1)) / f64::from(1 << significand_bits);
        let bias = (1 << (exponent_bits - 1)) - 1;
        let sign = if code >> (exponent_bits + significand_bits) & 1 == 1 { -1.0 } else { 1.0 };
        let scale = f64::from(exponent.max(1)) - f64::from(bias);
        sign * (significand + f64::from(exponent.min(1))) * scale.exp2()
    }

    #[test]
    fn eight_and_four_bit_floats_follow_their_definition() {
        for code in 0..=255u8 {
            let wide = u32::from(code);
            if code & 0x7F == 0x7F {
                assert!(from_e4m3(code).is_nan());
            } else {
                assert_eq!(f64::from(from_e4m3(code)).to_bits(), value(wide, 4, 3).to_bits());
            }
            match code & 0x7F {
                0x7C => assert!(from_e5m2(code).is_infinite()),
                0x7D..=0x7F => assert!(from_e5m2(code).is_nan()),
                _ => assert_eq!(f64::from(from_e5m2(code)).to_bits(), value(wide, 5, 2).to_bits()),
            }
            if code < 16 {
                assert_eq!(f64::from(from_e2m1(code)).to_bits(), value(wide, 2, 1).to_bits());
            }
            if code < 255 {
                assert_eq!(f64::from(from_e8m0(code)), (f64::from(code) - 127.0).exp2());
            }
        }
        assert!(from_e8m0(255).is_nan());
        assert_eq!((from_e4m3(0x7E), from_e5m2(0x7B)), (448.0, 57_344.0));
    }

    #[test]
    fn packed_codes_unpack_low_bits_first() {
        let mut out = [9.0; 5];
        assert!(decode_row(Format::Int2, &[0b11_10_01_00, 0b10], &mut out));
        assert_eq!(out, [0.0, 1.0, -2.0, -1.0, -2.0]);
        assert!(decode_row(Format::Int4, &[0x8F, 0x70, 0x03], &mut out));
        assert_eq!(out, [-1.0, -8.0, 0.0, 7.0, 3.0]);
        assert!(decode_row(Format::Codebook4, &[0x8F, 0x70, 0x03], &mut out));
        assert_eq!(out, [15.0, 8.0, 0.0, 7.0, 3.0]);
        assert!(!decode_row(Format::Fp32, &[0; 20], &mut out));
    }
}
