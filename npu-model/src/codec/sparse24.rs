//! Two of four: of every four elements two are kept, with their places in two bits each.
//!
//! Models: function. A row is its kept elements, then one nibble a group of four (place of the first in the low two
//!   bits), low nibble first; the first place is below the second.
//! Does not model: time.
//! Source: `isa::npu::dma`.

use super::StreamError;

/// Bytes of the kept elements and of the places of a plain row.
#[must_use]
pub const fn sizes(row: usize, width: usize) -> (usize, usize) {
    (row / 2, (row / width / 4).div_ceil(2))
}

/// Expands a row.
///
/// # Errors
/// If places are not in order.
pub fn expand(kept: &[u8], places: &[u8], width: usize, out: &mut [u8]) -> Result<(), StreamError> {
    out.fill(0);
    for (i, group) in out.chunks_exact_mut(4 * width).enumerate() {
        let nibble = usize::from(places[i / 2] >> (i % 2 * 4));
        let (first, second) = (nibble & 3, nibble >> 2 & 3);
        if first >= second {
            return Err(StreamError::Invalid);
        }
        for (k, place) in [first, second].into_iter().enumerate() {
            group[place * width..][..width].copy_from_slice(&kept[(2 * i + k) * width..][..width]);
        }
    }
    Ok(())
}

/// Kept elements and places of a row; `None` if a group of four has more than two that are not zero.
#[must_use]
pub fn encode(row: &[u8], width: usize) -> Option<(Vec<u8>, Vec<u8>)> {
    let (kept, places) = sizes(row.len(), width);
    let (mut kept, mut places) = (Vec::with_capacity(kept), vec![0; places]);
    for (i, group) in row.chunks_exact(4 * width).enumerate() {
        let zero = |k: usize| group[k * width..][..width].iter().all(|b| *b == 0);
        let mut chosen: Vec<usize> = (0..4).filter(|k| !zero(*k)).collect();
        if chosen.len() > 2 {
            return None;
        }
        // Zeros fill up, so that there are always two places in order.
        for k in 0..4 {
            if chosen.len() < 2 && !chosen.contains(&k) {
                chosen.push(k);
            }
        }
        chosen.sort_unstable();
        places[i / 2] |= ((chosen[0] | chosen[1] << 2) << (i % 2 * 4)) as u8;
        chosen.iter().for_each(|k| kept.extend_from_slice(&group[k * width..][..width]));
    }
    Some((kept, places))
}
