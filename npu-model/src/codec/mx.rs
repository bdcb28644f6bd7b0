//! Microscaling blocks: in memory a scale byte before each block of 32 elements, in the scratchpad apart.
//!
//! Models: function; only bytes move. Does not model: time.
//! Source: OCP Microscaling Formats 1.0 (blocks of 32 with an E8M0 scale); layout `isa::npu::dma`.

/// Splits blocks of `block` element bytes into elements and scales.
pub fn split(far: &[u8], block: usize, elements: &mut [u8], scales: &mut [u8]) {
    for ((from, to), scale) in
        far.chunks_exact(block + 1).zip(elements.chunks_exact_mut(block)).zip(scales.iter_mut())
    {
        *scale = from[0];
        to.copy_from_slice(&from[1..]);
    }
}

/// Joins elements and scales into blocks.
pub fn join(elements: &[u8], scales: &[u8], block: usize, far: &mut [u8]) {
    for ((to, from), scale) in far.chunks_exact_mut(block + 1).zip(elements.chunks_exact(block)).zip(scales) {
        to[0] = *scale;
        to[1..].copy_from_slice(from);
    }
}
