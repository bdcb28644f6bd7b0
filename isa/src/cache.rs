//! How a position's keys, or values, of one head lie in memory: software that writes them and whoever sets memory
//! aside must agree.
//!
//! Rows of fp16 are stored as they are; rows of int8 or int4 as DMA codecs 7 and 8 make them, scales in the row.

use crate::npu::dma::kv_row_bytes;

/// Bits of an element that is stored as it is.
pub const PLAIN_BITS: u64 = 16;
/// Elements that share a scale, as the DMA's `qgrp`: 16. Rows are padded to 16 bytes, so for heads of up to 128
/// elements groups of 32 would take as many bytes.
pub const GROUP: u64 = 2;

/// Bytes of a row of `head_dim` elements of `bits` bits: 16, 8 or 4.
#[must_use]
pub const fn row_bytes(head_dim: u64, bits: u64) -> u64 {
    match kv_row_bytes(head_dim, bits, GROUP) {
        Some(bytes) if bits != PLAIN_BITS => bytes,
        _ => head_dim * 2,
    }
}

#[cfg(test)]
mod tests {
    use super::row_bytes;

    #[test]
    fn rows_are_what_the_codecs_make() {
        // Codes, one fp16 scale for 16 elements, padding to 16 bytes.
        assert_eq!([16, 8, 4].map(|bits| row_bytes(128, bits)), [256, 144, 80]);
        assert_eq!([16, 8, 4].map(|bits| row_bytes(64, bits)), [128, 80, 48]);
        assert_eq!([16, 8, 4].map(|bits| row_bytes(32, bits)), [64, 48, 32]);
        assert_eq!(row_bytes(80, 8), 96);
    }
}
