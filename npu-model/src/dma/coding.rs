//! Which codec a transfer runs, with the sizes that follow from the command's fields.

use isa::npu::dma::{Codec, ROW_UNIT, kv_group};
use isa::npu::{Format, GRANULE, Index};

use super::Direction;
use crate::codec::kv;
use crate::fault::Fault;

/// A codec with its parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    /// Bytes as they are.
    None,
    /// fp16 rows to codes and scales, or back; `table` is the scales' address if they are not in the row.
    Kv { shape: kv::Shape, table: Option<u64> },
}

impl Coding {
    /// Checks the codec of a transfer of plain rows (bytes, rows, planes).
    pub(super) fn new(
        codec: Codec,
        x: Option<&Index>,
        direction: Direction,
        (row, _, _): (u64, u64, u64),
    ) -> Result<Self, Fault> {
        if codec == Codec::None {
            return Ok(Self::None);
        }
        let x = x.expect("checked with the extension's fields");
        let fits = match codec {
            Codec::KvQuantise => direction == Direction::Store,
            Codec::KvDequantise => direction == Direction::Load,
            _ => return Err(Fault::not_in_cap(codec.code(), "this DMA codec does not execute")),
        };
        if !fits {
            return Err(Fault::operand(codec.code(), "codec: not in this direction"));
        }
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
        let narrow = |v: u64| usize::try_from(v).expect("a row is at most 256 KiB");
        let shape = kv::Shape { elements: narrow(elements), bits, group: narrow(group) };
        Ok(Self::Kv { shape, table: (x.qs != 0).then_some(x.qs * GRANULE) })
    }

    /// Bytes in memory of a plain row of `row` bytes.
    pub(super) fn far_row(&self, row: u64) -> u64 {
        match self {
            Self::None => row,
            Self::Kv { shape, table } => {
                let scales = if table.is_none() { 2 * shape.groups() } else { 0 };
                ((shape.payload() + scales) as u64).next_multiple_of(ROW_UNIT)
            }
        }
    }

    /// The table in the scratchpad of a transfer of so many rows: address and bytes.
    pub(super) fn table(&self, rows: u64) -> Option<(u64, u64)> {
        match self {
            Self::Kv { shape, table: Some(at) } => Some((*at, rows * 2 * shape.groups() as u64)),
            _ => None,
        }
    }

    /// Decodes one row of memory into a plain row; `table` is the row's part of the table.
    pub(super) fn decode_row(&self, far: &[u8], table: &[u8], plain: &mut [u8]) {
        match self {
            Self::None => plain.copy_from_slice(far),
            Self::Kv { shape, table: at } => {
                let (codes, rest) = far.split_at(shape.payload());
                kv::dequantise(shape, codes, if at.is_some() { table } else { rest }, plain);
            }
        }
    }

    /// Encodes a plain row into a row of memory, which starts as zeros, and the row's part of the table.
    pub(super) fn encode_row(&self, plain: &[u8], far: &mut [u8], table: &mut [u8]) {
        match self {
            Self::None => far.copy_from_slice(plain),
            Self::Kv { shape, table: at } => {
                let (codes, rest) = far.split_at_mut(shape.payload());
                kv::quantise(shape, plain, codes, if at.is_some() { table } else { rest });
            }
        }
    }
}
