//! MXQ: quantisation to microscaling formats, a shared power of two for every 32 columns.
//!
//! Shapes: x and d rows x cols; y one e8m0 byte for every 32 columns of a row, the last block may be short, rows
//!   `yst` granules apart (0 = packed); y is written.
//! Formats: x fp16, bf16 or fp32; d mxfp4 (e2m1, two a byte, low nibble first) or mxfp8 (e4m3).
//! Arithmetic, a block at a time: a = largest |x|; e = floor(log2 a) - 2 for mxfp4, - 8 for mxfp8, at least -127;
//!   scale code e + 127; code = x / 2^e to the nearest, ties to the even code, beyond the largest to the largest. A
//!   block of zeros has scale code 0 and codes 0, one with a NaN or an infinity scale code 255 and codes 0.
//!   The row is read completely before its codes are written.
//! Bound: two passes (absolute value, reduced to the block's maximum; scale and round).
//! Source: OCP microscaling formats 1.0, section 6.3.

use isa::npu::Format;

use super::cost::Cost;
use super::operand::Rows;
use super::vector::{FLOATS, Request, Work};
use crate::config::NpuConfig;
use crate::fault::Fault;
use crate::local::Local;

/// Columns that share a scale.
pub(super) const BLOCK: usize = 32;

/// The power of two of an e8m0 code.
pub(super) fn from_e8m0(code: u8) -> f32 {
    match code {
        0 => f32::from_bits(0x0040_0000),
        255 => f32::NAN,
        c => f32::from_bits(u32::from(c) << 23),
    }
}

/// Magnitude of an element code without sign: `significand` bits of fraction, exponents from `1 - bias`.
fn magnitude(code: u32, significand: u32, bias: i32) -> f64 {
    let fraction = f64::from(code & ((1 << significand) - 1)) / f64::from(1 << significand);
    let exponent = code >> significand;
    let (whole, exponent) = if exponent == 0 { (0.0, 1) } else { (1.0, exponent as i32) };
    (whole + fraction) * power(exponent - bias)
}

fn power(n: i32) -> f64 {
    f64::from_bits(((n + 1023) as u64) << 52)
}

/// An element format: fraction bits, bias, exponent of its largest value, largest code.
#[derive(Clone, Copy, Debug)]
struct Element {
    significand: u32,
    bias: i32,
    largest_exponent: i32,
    largest: u32,
}

const E2M1: Element = Element { significand: 1, bias: 1, largest_exponent: 2, largest: 7 };
const E4M3: Element = Element { significand: 3, bias: 7, largest_exponent: 8, largest: 0x7E };

const fn element(format: Format) -> Element {
    if matches!(format, Format::Mxfp4) { E2M1 } else { E4M3 }
}

impl Element {
    fn value(self, code: u32) -> f64 {
        magnitude(code, self.significand, self.bias)
    }

    /// Nearest code of a magnitude, ties to the even one.
    fn encode(self, v: f64) -> u32 {
        let (mut low, mut high) = (0, self.largest);
        if v >= self.value(high) {
            return high;
        }
        while high - low > 1 {
            let middle = u32::midpoint(low, high);
            if self.value(middle) <= v { low = middle } else { high = middle }
        }
        let (down, up) = (v - self.value(low), self.value(high) - v);
        if down < up || (down.total_cmp(&up).is_eq() && low.is_multiple_of(2)) { low } else { high }
    }
}

/// One packed row of mxfp4 or mxfp8 elements without their scales.
pub(super) fn decode_row(format: Format, bytes: &[u8], out: &mut [f32]) {
    let e = element(format);
    let sign_bit = if format == Format::Mxfp4 { 8 } else { 0x80 };
    for (j, o) in out.iter_mut().enumerate() {
        let code = match format {
            Format::Mxfp4 => bytes[j / 2] >> (4 * (j % 2)) & 15,
            _ => bytes[j],
        };
        let code = u32::from(code);
        let v = match code & (sign_bit - 1) {
            m if m > e.largest => f32::NAN,
            m => e.value(m) as f32,
        };
        *o = if code & sign_bit == 0 { v } else { -v };
    }
}

/// Codes of a block, to be called with each, and its scale code.
fn quantise(format: Format, block: &[f32], mut put: impl FnMut(usize, u8)) -> u8 {
    let e = element(format);
    let largest = block.iter().fold(0.0f32, |a, v| if v.abs() > a { v.abs() } else { a });
    if largest.is_infinite() || block.iter().any(|v| v.is_nan()) {
        (0..block.len()).for_each(|j| put(j, 0));
        return 255;
    }
    let exponent = if largest == 0.0 { -127 } else { floor_log2(largest) - e.largest_exponent };
    let exponent = exponent.max(-127);
    let sign_bit = if format == Format::Mxfp4 { 8 } else { 0x80 };
    for (j, v) in block.iter().enumerate() {
        let code = e.encode(f64::from(v.abs()) * power(-exponent)) as u8;
        put(j, if v.is_sign_negative() && code != 0 { code | sign_bit } else { code });
    }
    (exponent + 127) as u8
}

/// Exponent of the largest power of two that is not above a positive value.
fn floor_log2(x: f32) -> i32 {
    ((f64::from(x).to_bits() >> 52) as i32) - 1023
}

/// A checked command.
pub(super) struct Plan {
    x: Rows,
    y: Rows,
    d: Rows,
}

impl Plan {
    pub fn new(r: &Request<'_>) -> Result<Self, Fault> {
        Ok(Self {
            x: r.x(FLOATS)?,
            y: r.y_written(Format::Int8, r.rows, r.cols.div_ceil(BLOCK as u64))?,
            d: r.d(&[Format::Mxfp4, Format::Mxfp8])?,
        })
    }

    pub fn run(&self, local: &mut Local) -> Result<(), Fault> {
        let mut x = local.rows.take(self.x.cols);
        let format = self.d.format;
        for row in 0..self.x.rows {
            self.x.read(local, row, &mut x)?;
            local.bytes_mut(self.d.space, self.d.at(row), self.d.row_bytes)?.fill(0);
            for (i, block) in x.chunks(BLOCK).enumerate() {
                let codes = local.bytes_mut(self.d.space, self.d.at(row), self.d.row_bytes)?;
                let scale = quantise(format, block, |j, code| match (format, BLOCK * i + j) {
                    (Format::Mxfp4, at) => codes[at / 2] |= code << (4 * (at % 2)),
                    (_, at) => codes[at] = code,
                });
                local.bytes_mut(self.y.space, self.y.at(row) + i, 1)?[0] = scale;
            }
        }
        local.rows.give([x]);
        Ok(())
    }

    pub fn cost(&self, cfg: &NpuConfig) -> Cost {
        let mut cost = Work::elements(&self.x, 2).reducing(0, 0).cost(cfg);
        cost.read(self.x.space, self.x.bytes());
        cost.write(self.y.space, self.y.bytes());
        cost.write(self.d.space, self.d.bytes());
        cost
    }
}
