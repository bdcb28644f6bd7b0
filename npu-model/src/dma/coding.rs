//! Which codec a transfer runs, with the sizes that follow from the command's fields.

use isa::npu::dma::{Codec, ROW_UNIT, kv_group};
use isa::npu::registers::FaultCode;
use isa::npu::{Format, GRANULE, Index};

use super::Direction;
use crate::codec::{StreamError, entropy, kv, mx, nibble, palette, sparse24, zero_rle};
use crate::fault::Fault;

/// A codec with its parameters; `table` and `scales` are scratchpad addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    /// Bytes as they are.
    None,
    /// The whole transfer is one stream of `bytes` in memory.
    Stream { codec: Codec, bytes: u64 },
    /// Indices of `bits` bits, entries of `width` bytes.
    Palette { bits: u64, width: u64, table: u64 },
    /// Elements of `width` bytes.
    Sparse24 { width: u64 },
    /// Nibbles to bytes.
    Nibble { signed: bool },
    /// Blocks of `block` element bytes.
    MxSplit { block: u64, scales: u64 },
    /// fp16 rows to codes and scales, or back; without `table` scales lie in the row.
    Kv { shape: kv::Shape, table: Option<u64> },
}

/// What a codec keeps in the scratchpad beside the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Table {
    pub at: u64,
    pub bytes: u64,
    /// Bytes a row takes; 0 if all rows use the whole table.
    pub row: u64,
    pub written: bool,
}

fn narrow(v: u64) -> usize {
    usize::try_from(v).expect("a row is at most 256 KiB")
}

fn bad_stream(e: StreamError) -> Fault {
    Fault::new(FaultCode::Stream, e as u64, e.text())
}

impl Coding {
    /// Checks the codec of a transfer of plain rows of `row` bytes.
    pub(super) fn new(
        codec: Codec,
        x: Option<&Index>,
        direction: Direction,
        row: u64,
    ) -> Result<Self, Fault> {
        if codec == Codec::None {
            return Ok(Self::None);
        }
        let x = x.expect("checked with the extension's fields");
        let fits = match codec {
            Codec::KvQuantise => direction == Direction::Store,
            Codec::Nibble | Codec::MxSplit => matches!(direction, Direction::Load | Direction::Store),
            _ => direction == Direction::Load,
        };
        if !fits {
            return Err(Fault::operand(codec.code(), "codec: not in this direction"));
        }
        let format = Format::from_code(x.qf);
        let width = match Format::from_code(x.ef).map(Format::bits) {
            Some(8) => Ok(1),
            Some(16) => Ok(2),
            _ => Err(Fault::operand(x.ef, "ef: elements have 8 or 16 bits")),
        };
        Ok(match codec {
            Codec::None => Self::None,
            Codec::ZeroRle | Codec::Entropy => Self::Stream { codec, bytes: (x.clen + 1) * ROW_UNIT },
            Codec::Palette => {
                let bits = match format {
                    Some(Format::Int2) => 2,
                    Some(Format::Uint4) => 4,
                    Some(Format::Uint8) => 8,
                    _ => return Err(Fault::operand(x.qf, "qf: indices are int2, uint4 or uint8")),
                };
                Self::Palette { bits, width: width?, table: x.qs * GRANULE }
            }
            Codec::Sparse24 => Self::Sparse24 { width: width? },
            Codec::Nibble => match format {
                Some(Format::Int4) => Self::Nibble { signed: true },
                Some(Format::Uint4) => Self::Nibble { signed: false },
                _ => return Err(Fault::operand(x.qf, "qf: nibbles are int4 or uint4")),
            },
            Codec::MxSplit => {
                let block = match format {
                    Some(Format::Mxfp4) => 16,
                    Some(Format::Mxfp8) if row.is_multiple_of(32) => 32,
                    _ => return Err(Fault::operand(x.qf, "qf: rows are whole blocks of mxfp4 or mxfp8")),
                };
                Self::MxSplit { block, scales: x.qs * GRANULE }
            }
            Codec::KvQuantise | Codec::KvDequantise => Self::kv(x, row)?,
        })
    }

    fn kv(x: &Index, row: u64) -> Result<Self, Fault> {
        let bits = match Format::from_code(x.qf) {
            Some(Format::Int8) => 8,
            Some(Format::Int4) => 4,
            _ => return Err(Fault::operand(x.qf, "qf: KV codes are int8 or int4")),
        };
        let elements = row / 2;
        let group = match kv_group(x.qgrp) {
            Some(0) => elements,
            Some(g) => g,
            None => return Err(Fault::operand(x.qgrp, "qgrp: KV scales need a group")),
        };
        let shape = kv::Shape { elements: narrow(elements), bits, group: narrow(group) };
        Ok(Self::Kv { shape, table: (x.qs != 0).then_some(x.qs * GRANULE) })
    }

    /// Bytes in memory of a plain row of `row` bytes, or of the whole stream.
    pub(super) fn far_row(&self, row: u64) -> u64 {
        let bytes = match self {
            Self::None => row,
            Self::Stream { bytes, .. } => *bytes,
            Self::Palette { bits, width, .. } => (row / width * bits).div_ceil(8),
            Self::Sparse24 { width } => {
                let (kept, places) = sparse24::sizes(narrow(row), narrow(*width));
                (kept + places) as u64
            }
            Self::Nibble { .. } => row / 2,
            Self::MxSplit { block, .. } => row / block * (block + 1),
            Self::Kv { shape, table } => {
                let scales = if table.is_none() { 2 * shape.groups() } else { 0 };
                (shape.payload() + scales) as u64
            }
        };
        bytes.next_multiple_of(ROW_UNIT)
    }

    /// The table in the scratchpad of a transfer of so many rows of `row` bytes.
    pub(super) fn table(&self, direction: Direction, row: u64, rows: u64) -> Option<Table> {
        let of = |at, row, written| Some(Table { at, bytes: row * rows, row, written });
        match *self {
            Self::Palette { bits, width, table } => {
                Some(Table { at: table, bytes: width << bits, row: 0, written: false })
            }
            Self::MxSplit { block, scales } => of(scales, row / block, direction == Direction::Load),
            Self::Kv { shape, table: Some(at) } => {
                of(at, 2 * shape.groups() as u64, direction == Direction::Store)
            }
            _ => None,
        }
    }

    /// Decodes the whole stream of a transfer.
    pub(super) fn decode_stream(codec: Codec, stream: &[u8], plain: &mut [u8]) -> Result<(), Fault> {
        let decode = if codec == Codec::ZeroRle { zero_rle::decode } else { entropy::decode };
        decode(stream, plain).map_err(bad_stream)
    }

    /// Decodes a row of memory into a plain row; `table` is the row's part of the table, read or written.
    pub(super) fn decode_row(&self, far: &[u8], table: &mut [u8], plain: &mut [u8]) -> Result<(), Fault> {
        match self {
            Self::None | Self::Stream { .. } => plain.copy_from_slice(far),
            Self::Palette { bits, width, .. } => {
                palette::expand(far, narrow(*bits), table, narrow(*width), plain);
            }
            Self::Sparse24 { width } => {
                let (kept, places) = far.split_at(sparse24::sizes(plain.len(), narrow(*width)).0);
                sparse24::expand(kept, places, narrow(*width), plain).map_err(bad_stream)?;
            }
            Self::Nibble { signed } => nibble::expand(far, *signed, plain),
            Self::MxSplit { block, .. } => mx::split(far, narrow(*block), plain, table),
            Self::Kv { shape, table: at } => {
                let (codes, rest) = far.split_at(shape.payload());
                kv::dequantise(shape, codes, if at.is_some() { table } else { rest }, plain);
            }
        }
        Ok(())
    }

    /// Encodes a plain row into a row of memory, which starts as zeros; `table` is the row's part of the table.
    pub(super) fn encode_row(&self, plain: &[u8], far: &mut [u8], table: &mut [u8]) {
        match self {
            Self::Nibble { signed } => nibble::pack(plain, *signed, far),
            Self::MxSplit { block, .. } => mx::join(plain, table, narrow(*block), far),
            Self::Kv { shape, table: at } => {
                let (codes, rest) = far.split_at_mut(shape.payload());
                kv::quantise(shape, plain, codes, if at.is_some() { table } else { rest });
            }
            // The others only load.
            Self::None | Self::Stream { .. } | Self::Palette { .. } | Self::Sparse24 { .. } => {
                far.copy_from_slice(plain);
            }
        }
    }

    /// Cycles the codec needs for `bytes` of plain rows, where the channel moves `width` bytes a cycle.
    ///
    /// Estimates, accuracy class C: codecs of fixed size keep up with the channel; a run-length decoder advances
    /// half a channel's width a cycle, since a control byte must be read before the next is found; the entropy
    /// decoder advances one byte a state and cycle.
    pub(super) const fn cycles(&self, bytes: u64, width: u64) -> u64 {
        let rate = match self {
            Self::Stream { codec: Codec::ZeroRle, .. } => width.div_ceil(2),
            Self::Stream { .. } => entropy::LANES as u64,
            _ => width,
        };
        bytes.div_ceil(rate)
    }
}
