//! Indices of 2, 4 or 8 bits into a table of 1- or 2-byte entries, low bits first.
//!
//! Models: function; every index has an entry, so nothing can fail. Does not model: time.
//! Source: `isa::npu::dma`.

/// Expands indices of `bits` bits by a table of `2^bits` entries of `width` bytes.
pub fn expand(indices: &[u8], bits: usize, table: &[u8], width: usize, out: &mut [u8]) {
    let each = 8 / bits;
    for (i, entry) in out.chunks_exact_mut(width).enumerate() {
        let index = usize::from(indices[i / each]) >> (i % each * bits) & ((1 << bits) - 1);
        entry.copy_from_slice(&table[index * width..][..width]);
    }
}

/// Indices of a row of entries; `None` if one is not in the table.
#[must_use]
pub fn encode(row: &[u8], bits: usize, table: &[u8], width: usize) -> Option<Vec<u8>> {
    let each = 8 / bits;
    let mut out = vec![0; (row.len() / width).div_ceil(each)];
    for (i, value) in row.chunks_exact(width).enumerate() {
        let index = table.chunks_exact(width).take(1 << bits).position(|e| e == value)?;
        out[i / each] |= (index << (i % each * bits)) as u8;
    }
    Some(out)
}
