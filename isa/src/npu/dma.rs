//! DMA: the code tables of a transfer, and the byte layouts that software and hardware must agree on.
//!
//! # Two sides
//! `n0`, `n1`, `n2` describe plain rows: what the scratchpad holds before `tform` is taken into account. The other
//! side is memory, or for `dir = 2` the destination scratchpad. A codec changes the bytes of a row in memory, a
//! `tform` the arrangement of a plane in the own scratchpad.
//!
//! # Addresses (`gs`, index extension)
//! - Row `r` of plane `p` starts at `base + p * plane stride + r * row stride`, on each side with its own strides.
//! - `gs = 1`, gather: on the side that is read, `r` is replaced by entry `r` of the list at `idx`.
//! - `gs = 2`, scatter: on the side that is written. Planes share the list. Of entries that are equal, the last wins
//!   (with `red` all are added, in order).
//! - `ifm` 0, 1, 2: little-endian entries of 2, 4, 8 bytes; `icnt + 1` of them, at least one a row; an entry above
//!   `ibound` faults. `ifm` 3: `icnt + 1` bits, low bit of the first byte first; the numbers of the bits that are set
//!   are the list. If they are fewer than the rows, only so many rows move (with `zp` the others are zeroed).
//! - `gs = 3`, paged: memory addresses are logical. Byte `a` lies at `base + page(a >> plog) << plog`, plus the low
//!   `plog` bits of `a`, where `page(i)` is the `i`th of `icnt + 1` little-endian u32 entries at byte `ptab` of the
//!   same region: the number of a page of `1 << plog` bytes counted from the region's base. `plog` is 6 to 24. A
//!   page number above `ibound`, and a page beyond the table, fault. Rows may cross pages.
//!
//! # Codecs
//! Codecs 1 and 2 read one stream of `clen + 1` units of 16 bytes at `moff` (through pages with `gs = 3`), zeros
//! after its end; it decodes to all plain rows one after another. Its size is the command's, so timing needs no data.
//! - 1, zero RLE: a control byte c below 128 is followed by c + 1 literal bytes; any other stands for c - 127 zeros.
//! - 2, entropy: 256 u16 frequencies that sum to 4096, 16 u32 states in 2^23..2^31, refill bytes. Byte i is decoded
//!   by state i mod 16: slot = state mod 4096 names the symbol, state = frequency * (state / 4096) + slot - start;
//!   while it is below 2^23 it takes a refill byte. All states end at 2^23.
//!
//! Rows of codecs 3 to 8 have a fixed size in memory, padded with zeros to 16 bytes; strides of 0 are packed rows of
//! that size. With E the elements of a plain row:
//! - 3, palette (load): E indices of 2, 4 or 8 bits (`qf` int2, uint4, uint8), low bits first, into 4, 16 or 256
//!   entries of 1 or 2 bytes (`ef`) in the scratchpad from granule `qs`.
//! - 4, two of four (load): E / 2 kept elements of 1 or 2 bytes (`ef`), then a nibble for each four elements, low
//!   nibble first: place of the first kept one in the low two bits, of the second above, the first below the second.
//! - 5, nibbles (load and store): E nibbles in memory, low first, bytes in the scratchpad; `qf` int4 extends the sign
//!   and saturates to -8..7, uint4 extends zeros and saturates to 15.
//! - 6, microscaling (load and store): blocks of a scale byte and 32 elements (`qf` mxfp4: 16 bytes, mxfp8: 32). The
//!   scratchpad holds the elements in rows and the scales from granule `qs`, row after row without padding.
//! - 7 and 8, KV: `qf` (int8 or int4) codes, low nibble first, then one fp16 scale a group of `qgrp` elements
//!   (1 the row, 2 to 6: 16, 32, 64, 128, 256; the last group may be short). With `qs` not 0 the scales are not in
//!   the row but in the scratchpad from granule `qs`, row after row without padding; codec 7 writes them there,
//!   codec 8 reads them. The scratchpad holds fp16. scale = fp16(absmax / 127 or 7), code = x / scale to the nearest
//!   even, clamped; a NaN counts as 0 and infinities as +-65504. Decoded: fp16(code * scale), a NaN as 0x7E00.
//!
//! # Arrangements (`tform`), reduction, padding
//! A `tform` says how a plane of plain rows lies in the own scratchpad; `sst1` and `sst2` are strides of what lies
//! there. 1: tiles of 32 rows of 32 bytes, left to right, then down, 1 KiB each without padding (rows beyond `n1` are
//! zeros with `zp`). 2 and 3: row i holds the i-th element (1 or 2 bytes) of all plain rows.
//! With `red` what arrives is reduced into the destination in ascending order of rows, see [`Reduction`]; stored NaNs
//! are canonical. With `zp` a load or copy zeros what lies between a row and the next at the destination.

use super::ops::coded;

coded!(
    /// Directions, field `dir`.
    DmaDirection {
    Load = 0 "load" "memory to scratchpads",
    Store = 1 "store" "scratchpad to memory",
    Copy = 2 "copy" "scratchpad to scratchpads",
    Fill = 3 "fill" "a 32-bit word into the scratchpad",
});

coded!(
    /// Codecs, field `codec`.
    Codec {
    None = 0 "none" "bytes as they are",
    ZeroRle = 1 "zero_rle" "runs of zeros",
    Entropy = 2 "entropy" "range asymmetric numeral system, order 0",
    Palette = 3 "palette" "indices into a table",
    Sparse24 = 4 "sparse24" "two of four, expanded",
    Nibble = 5 "nibble" "nibbles to bytes",
    MxSplit = 6 "mx_split" "microscaling blocks to elements and scales",
    KvQuantise = 7 "kv_quantise" "fp16 to int8 or int4 with scales",
    KvDequantise = 8 "kv_dequantise" "int8 or int4 with scales to fp16",
});

coded!(
    /// Arrangements of a plane, field `tform`.
    Transform {
    None = 0 "none" "as it is",
    Tiles = 1 "tiles" "row-major to tiles of 32 rows",
    Transpose8 = 2 "transpose8" "transpose of bytes",
    Transpose16 = 3 "transpose16" "transpose of 16-bit elements",
});

coded!(
    /// Addressing, field `gs`.
    Addressing {
    Dense = 0 "dense" "strides only",
    Gather = 1 "gather" "rows read by list",
    Scatter = 2 "scatter" "rows written by list",
    Paged = 3 "paged" "memory through a page table",
});

coded!(
    /// Reductions, field `rop` where `red` is set.
    Reduction {
    AddFp32 = 0 "add_fp32" "fp32 sum",
    AddBf16 = 1 "add_bf16" "bf16 sum, rounded once",
    AddInt32 = 2 "add_int32" "32-bit sum, wrapping",
    MaxFp32 = 3 "max_fp32" "fp32 maximum; a NaN loses",
});

/// Bytes of a page table's entry.
pub const PAGE_ENTRY_BYTES: u64 = 4;
/// Values `plog` may have.
pub const PAGE_LOG2: core::ops::RangeInclusive<u64> = 6..=24;
/// Rows in memory are a multiple of this many bytes.
pub const ROW_UNIT: u64 = 16;

/// Elements that share a scale, by `qgrp`; 0 stands for the whole row.
#[must_use]
pub const fn kv_group(qgrp: u64) -> Option<u64> {
    match qgrp {
        1 => Some(0),
        2..=6 => Some(8 << (qgrp - 1)),
        _ => None,
    }
}

/// Bytes in memory of a KV row of `elements` codes of `bits` bits, with its scales in line.
#[must_use]
pub const fn kv_row_bytes(elements: u64, bits: u64, qgrp: u64) -> Option<u64> {
    let group = match kv_group(qgrp) {
        Some(0) => elements,
        Some(g) => g,
        None => return None,
    };
    Some(((elements * bits).div_ceil(8) + 2 * elements.div_ceil(group)).next_multiple_of(ROW_UNIT))
}
