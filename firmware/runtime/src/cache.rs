//! The cache of keys and values: where a head's rows are, and the transfers that write and read them.
//!
//! Rows lie one after another by position, per layer, head and kind: in pages, or of an encoder in one piece. In int8 or int4 the DMA quantises a row on its
//! way to memory and restores fp16 on its way back, so nothing else knows the format.

use isa::cache::{GROUP, PLAIN_BITS};
use isa::npu::dma::{Addressing, Codec};
use isa::npu::{Command, Dma, Extension, Format, Index};

use crate::emit::R_KV;
use crate::norm::{granule, linear};
use crate::program::Context;

/// Keys or values of a head from a position on.
#[derive(Clone, Copy, Debug)]
pub struct Rows {
    /// KV head of the model.
    pub head: u64,
    /// Values rather than keys.
    pub value: bool,
    /// First position.
    pub position: u64,
    /// Positions.
    pub count: u64,
}

/// Bytes of a layer's cache that has no pages.
#[must_use]
pub const fn layer_bytes(kv_heads: u64, head_dim: u64, positions: u64, bits: u64) -> u64 {
    kv_heads * 2 * positions * isa::cache::row_bytes(head_dim, bits)
}

/// Words of one of these commands.
#[must_use]
pub const fn words(cx: &Context) -> u64 {
    if cx.kv_bits == PLAIN_BITS && cx.pages.is_none() { 1 } else { 2 }
}

fn offset(cx: &Context, r: &Rows) -> u64 {
    let row = isa::cache::row_bytes(cx.model.h.head_dim, cx.kv_bits);
    let stream = r.head * 2 + u64::from(r.value);
    match cx.pages {
        None => (stream * cx.positions + r.position) * row,
        Some(pages) => ((stream * pages.paging.groups) << pages.paging.page_log2) + r.position * row,
    }
}

/// The command with what pages and, unless rows are stored as they are, the codec need.
fn command(cx: &Context, codec: Codec, dma: Dma) -> Command {
    let (mut dma, mut index) = (dma, Index::default());
    if let Some(pages) = cx.pages {
        (dma.gs, index) = (Addressing::Paged.code(), pages.index);
    }
    if cx.kv_bits != PLAIN_BITS {
        let qf = if cx.kv_bits == 8 { Format::Int8 } else { Format::Int4 };
        (dma.codec, index.qgrp, index.qf) = (codec.code(), GROUP, qf.code());
    }
    let extension = (words(cx) == 2).then_some(Extension::Index(index));
    Command { extension, ..Command::dma(dma) }
}

/// Stores rows that lie in the scratchpad at `spm`, `stride` bytes apart.
#[must_use]
pub fn store(cx: &Context, r: &Rows, spm: u64, stride: u64) -> Command {
    let units = cx.model.h.head_dim * 2 / 16;
    let plain = Dma {
        n0: units - 1,
        n1: r.count - 1,
        sst1: granule(stride),
        ..linear(1, cx.caps.out_channel(), R_KV, offset(cx, r), spm, 16)
    };
    let stride = if cx.kv_bits == PLAIN_BITS { units } else { 0 };
    command(cx, Codec::KvQuantise, Dma { mst1: stride, ..plain })
}

/// Loads rows to `spm`, packed, as fp16.
#[must_use]
pub fn load(cx: &Context, r: &Rows, spm: u64) -> Command {
    let row = cx.model.h.head_dim * 2;
    let all = linear(0, cx.caps.misc_channel(), R_KV, offset(cx, r), spm, r.count * row);
    if cx.kv_bits == PLAIN_BITS {
        return command(cx, Codec::None, all);
    }
    command(cx, Codec::KvDequantise, Dma { n0: row / 16 - 1, n1: r.count - 1, ..all })
}
