//! What DMA codecs compute: encoders for offline tools, and decoders that answer any bytes without a panic.
//!
//! Models: function of the codecs of `isa::npu::dma`. Does not model: time (`dma::traffic` does).
//! Source: each file; byte layouts are those of `isa::npu::dma`.
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap,
    reason = "byte codecs narrow on purpose"
)]

pub mod entropy;
pub mod kv;
pub mod mx;
pub mod nibble;
pub mod palette;
pub mod sparse24;
pub mod zero_rle;

/// Why a stream does not decode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamError {
    /// It ends before the output is full.
    Short,
    /// It holds more than the output takes, or its padding is not zero.
    Long,
    /// A table, a state or an index that no encoder writes.
    Invalid,
}

impl StreamError {
    /// A sentence for people.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Short => "a compressed stream ends early",
            Self::Long => "a compressed stream does not end where its output does",
            Self::Invalid => "a compressed stream holds a value no encoder writes",
        }
    }
}

/// The rest of a stream is padding.
fn padding(rest: &[u8]) -> Result<(), StreamError> {
    if rest.iter().all(|b| *b == 0) { Ok(()) } else { Err(StreamError::Long) }
}
