//! What DMA codecs compute: encoders for offline tools and decoders that answer any bytes without a panic.
//!
//! Models: function of the codecs of `isa::npu::dma`. Does not model: time (`dma::traffic` does).
//! Source: each file; byte layouts are those of `isa::npu::dma`.
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap,
    reason = "byte codecs narrow on purpose"
)]

pub mod kv;
