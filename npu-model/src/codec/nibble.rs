//! Nibbles in memory, bytes in the scratchpad, low nibble first.
//!
//! Models: function; packing saturates to the nibble's range. Does not model: time.
//! Source: `isa::npu::dma`.

/// Nibbles to bytes, sign extended if `signed`.
pub fn expand(nibbles: &[u8], signed: bool, out: &mut [u8]) {
    for (i, byte) in out.iter_mut().enumerate() {
        let top = nibbles[i / 2] >> (i % 2 * 4) << 4;
        *byte = if signed { (top.cast_signed() >> 4).cast_unsigned() } else { top >> 4 };
    }
}

/// Bytes to nibbles, which start as zeros.
pub fn pack(bytes: &[u8], signed: bool, out: &mut [u8]) {
    for (i, byte) in bytes.iter().enumerate() {
        let nibble =
            if signed { byte.cast_signed().clamp(-8, 7).cast_unsigned() & 15 } else { (*byte).min(15) };
        out[i / 2] |= nibble << (i % 2 * 4);
    }
}
