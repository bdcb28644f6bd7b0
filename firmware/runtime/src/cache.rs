//! The cache of keys and values: where a head's rows are, and the transfers that write and read them.
//!
//! Rows lie one after another by position, per layer, head and kind. In int8 or int4 the DMA quantises a row on its
//! way to memory and restores fp16 on its way back, so nothing else knows the format.

use isa::cache::{GROUP, PLAIN_BITS};
use isa::npu::dma::Codec;
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

/// Bytes of a layer's cache.
#[must_use]
pub const fn layer_bytes(kv_heads: u64, head_dim: u64, positions: u64, bits: u64) -> u64 {
    kv_heads * 2 * positions * isa::cache::row_bytes(head_dim, bits)
}

/// Words of one of these commands.
#[must_use]
pub const fn words(cx: &Context) -> u64 {
    if cx.kv_bits == PLAIN_BITS { 1 } else { 2 }
}

fn offset(cx: &Context, r: &Rows) -> u64 {
    let row = isa::cache::row_bytes(cx.model.h.head_dim, cx.kv_bits);
    ((r.head * 2 + u64::from(r.value)) * cx.positions + r.position) * row
}

/// The command with what a codec needs.
fn coded(cx: &Context, codec: Codec, dma: Dma) -> Command {
    let qf = if cx.kv_bits == 8 { Format::Int8 } else { Format::Int4 };
    let index = Index { qgrp: GROUP, qf: qf.code(), ..Index::default() };
    Command { extension: Some(Extension::Index(index)), ..Command::dma(Dma { codec: codec.code(), ..dma }) }
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
    if cx.kv_bits == PLAIN_BITS {
        return Command::dma(Dma { mst1: units, ..plain });
    }
    coded(cx, Codec::KvQuantise, plain)
}

/// Loads rows to `spm`, packed, as fp16.
#[must_use]
pub fn load(cx: &Context, r: &Rows, spm: u64) -> Command {
    let row = cx.model.h.head_dim * 2;
    let all = linear(0, cx.caps.misc_channel(), R_KV, offset(cx, r), spm, r.count * row);
    if cx.kv_bits == PLAIN_BITS {
        return Command::dma(all);
    }
    coded(cx, Codec::KvDequantise, Dma { n0: row / 16 - 1, n1: r.count - 1, ..all })
}
