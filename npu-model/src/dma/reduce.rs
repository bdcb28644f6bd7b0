//! Reductions into a destination: destination = destination + source, or the larger of both.

use isa::npu::dma::Reduction;

use crate::ops::number::{to_bf16, to_fp32};

fn words(to: &mut [u8], from: &[u8], f: impl Fn(u32, u32) -> u32) {
    for (a, b) in to.chunks_exact_mut(4).zip(from.chunks_exact(4)) {
        let word = |x: &[u8]| u32::from_le_bytes([x[0], x[1], x[2], x[3]]);
        let v = f(word(a), word(b));
        a.copy_from_slice(&v.to_le_bytes());
    }
}

/// Reduces `from` into `to`.
pub(super) fn into(reduction: Reduction, to: &mut [u8], from: &[u8]) {
    match reduction {
        Reduction::AddFp32 => words(to, from, |a, b| to_fp32(f32::from_bits(a) + f32::from_bits(b))),
        Reduction::AddInt32 => words(to, from, u32::wrapping_add),
        Reduction::MaxFp32 => words(to, from, |a, b| {
            let (x, y) = (f32::from_bits(a), f32::from_bits(b));
            to_fp32(if y > x || x.is_nan() { y } else { x })
        }),
        Reduction::AddBf16 => {
            for (a, b) in to.chunks_exact_mut(2).zip(from.chunks_exact(2)) {
                let value = |x: &[u8]| f32::from_bits(u32::from(u16::from_le_bytes([x[0], x[1]])) << 16);
                let sum = to_bf16(value(a) + value(b));
                a.copy_from_slice(&sum.to_le_bytes());
            }
        }
    }
}
