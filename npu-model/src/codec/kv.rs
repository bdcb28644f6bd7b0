//! KV quantisation: rows of fp16 to int8 or int4 codes with one fp16 scale a group, and back.
//!
//! Models: scale = fp16(absmax / 127 or 7), code = x / scale to the nearest even, clamped to +-127 or +-7;
//!   decoded fp16(code * scale). A NaN counts as 0, infinities as +-65504.
//! Does not model: zero points, rounding of a group's maximum to exact codes.
//! Source: `isa::npu::dma`.

use crate::ops::number::{from_fp16, to_fp16};

/// What a row consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Elements of a row.
    pub elements: usize,
    /// Bits of a code: 8 or 4.
    pub bits: usize,
    /// Elements that share a scale, not 0; the last group may be short.
    pub group: usize,
}

impl Shape {
    /// Bytes of a row's codes.
    #[must_use]
    pub const fn payload(&self) -> usize {
        (self.elements * self.bits).div_ceil(8)
    }

    /// Scales of a row.
    #[must_use]
    pub const fn groups(&self) -> usize {
        self.elements.div_ceil(self.group)
    }

    const fn limit(&self) -> f32 {
        if self.bits == 8 { 127.0 } else { 7.0 }
    }
}

fn element(bytes: &[u8], i: usize) -> f32 {
    let v = from_fp16(u16::from_le_bytes([bytes[2 * i], bytes[2 * i + 1]]));
    if v.is_nan() { 0.0 } else { v.clamp(-65_504.0, 65_504.0) }
}

/// Quantises a row of fp16 into codes, which start as zeros, and scales.
pub fn quantise(shape: &Shape, row: &[u8], codes: &mut [u8], scales: &mut [u8]) {
    let limit = shape.limit();
    for first in (0..shape.elements).step_by(shape.group) {
        let group = first..(first + shape.group).min(shape.elements);
        let largest = group.clone().map(|i| element(row, i).abs()).fold(0.0, f32::max);
        let stored = to_fp16(largest / limit);
        let scale = from_fp16(stored);
        scales[first / shape.group * 2..][..2].copy_from_slice(&stored.to_le_bytes());
        for i in group {
            let exact = if scale == 0.0 { 0.0 } else { element(row, i) / scale };
            let code = exact.round_ties_even().clamp(-limit, limit) as i8;
            if shape.bits == 8 {
                codes[i] = code.cast_unsigned();
            } else {
                codes[i / 2] |= (code.cast_unsigned() & 15) << (i % 2 * 4);
            }
        }
    }
}

/// Dequantises codes and scales into a row of fp16.
pub fn dequantise(shape: &Shape, codes: &[u8], scales: &[u8], row: &mut [u8]) {
    for i in 0..shape.elements {
        let code = if shape.bits == 8 {
            codes[i].cast_signed()
        } else {
            // The nibble moved to the top and back extends its sign.
            (codes[i / 2] >> (i % 2 * 4) << 4).cast_signed() >> 4
        };
        let at = i / shape.group * 2;
        let scale = from_fp16(u16::from_le_bytes([scales[at], scales[at + 1]]));
        row[2 * i..][..2].copy_from_slice(&to_fp16(f32::from(code) * scale).to_le_bytes());
    }
}
