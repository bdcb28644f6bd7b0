//! Arrangements of a plane in the own scratchpad: tiles of 32 rows, transposes.

use isa::npu::dma::Transform;

use crate::fault::Fault;

/// Rows of a tile, and bytes of a row's part in it.
const TILE: u64 = 32;

/// Shape of a plane in the own scratchpad (bytes of a row, rows), if its plain rows are (bytes, rows).
pub(super) fn shape(tform: Transform, (row, rows): (u64, u64), pad: bool) -> Result<(u64, u64), Fault> {
    match tform {
        Transform::None => Ok((row, rows)),
        Transform::Tiles => {
            if !row.is_multiple_of(TILE) {
                return Err(Fault::operand(row, "n0: rows of tiles are multiples of 32 bytes"));
            }
            if !rows.is_multiple_of(TILE) && !pad {
                return Err(Fault::operand(rows, "n1: tiles have 32 rows, unless zp fills them up"));
            }
            Ok((row * rows.next_multiple_of(TILE), 1))
        }
        Transform::Transpose8 => Ok((rows, row)),
        Transform::Transpose16 => Ok((2 * rows, row / 2)),
    }
}

/// Where in an arranged plane the `unit`-byte element at (row, offset) of the plain plane lies, and the unit.
fn place(tform: Transform, row: usize, rows: usize, r: usize, at: usize) -> usize {
    match tform {
        Transform::None => r * row + at,
        Transform::Tiles => {
            let tile = TILE as usize;
            (r / tile * (row / tile) + at / tile) * tile * tile + r % tile * tile + at % tile
        }
        Transform::Transpose8 => at * rows + r,
        Transform::Transpose16 => at / 2 * 2 * rows + 2 * r,
    }
}

const fn unit(tform: Transform, row: usize) -> usize {
    match tform {
        Transform::None => row,
        Transform::Tiles => TILE as usize,
        Transform::Transpose8 => 1,
        Transform::Transpose16 => 2,
    }
}

/// Arranges a plain plane of `rows` rows into `own`, which starts as zeros.
pub(super) fn forward(tform: Transform, plain: &[u8], rows: usize, own: &mut [u8]) {
    let row = plain.len() / rows;
    let unit = unit(tform, row);
    for (i, element) in plain.chunks_exact(unit).enumerate() {
        let (r, at) = (i * unit / row, i * unit % row);
        own[place(tform, row, rows, r, at)..][..unit].copy_from_slice(element);
    }
}

/// The plain plane of `rows` rows of an arranged one.
pub(super) fn backward(tform: Transform, own: &[u8], rows: usize, plain: &mut [u8]) {
    let row = plain.len() / rows;
    let unit = unit(tform, row);
    for (i, element) in plain.chunks_exact_mut(unit).enumerate() {
        let (r, at) = (i * unit / row, i * unit % row);
        element.copy_from_slice(&own[place(tform, row, rows, r, at)..][..unit]);
    }
}

/// Cycles for `bytes`: a transposer fills a block by rows and empties it by columns in turn, so it moves half a
/// channel's width a cycle (estimate, accuracy class C); tiles are addresses only.
pub(super) const fn cycles(tform: Transform, bytes: u64, width: u64) -> u64 {
    match tform {
        Transform::None | Transform::Tiles => bytes.div_ceil(width),
        Transform::Transpose8 | Transform::Transpose16 => bytes.div_ceil(width.div_ceil(2)),
    }
}
