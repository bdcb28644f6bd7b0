//! Order-0 entropy coding of bytes by a range variant of asymmetric numeral systems.
//!
//! ```text
//! 256 u16 frequencies, sum 4096 │ 16 u32 states │ bytes the states are refilled from │ zeros
//! ```
//! Models: function. Byte i belongs to state i mod 16; a state stays in 2^23..2^31 and starts (as the decoder ends)
//!   at 2^23, which makes a damaged stream almost certainly an invalid one.
//! Does not model: time.
//! Source: J. Duda, "Asymmetric numeral systems" (arXiv 1311.2540), range variant; layout `isa::npu::dma`.

use super::{StreamError, padding};

/// States that decode side by side.
pub const LANES: usize = 16;
const BITS: u32 = 12;
const TOTAL: u32 = 1 << BITS;
const LOW: u32 = 1 << 23;
const HIGH: u32 = 1 << 31;
/// Bytes before the refill bytes.
pub const HEADER: usize = 512 + 4 * LANES;

/// Frequencies that sum to 4096, at least 1 for every byte that occurs.
fn frequencies(bytes: &[u8]) -> [u32; 256] {
    let mut count = [0u64; 256];
    bytes.iter().for_each(|b| count[usize::from(*b)] += 1);
    let all = (bytes.len() as u64).max(1);
    let mut out = [0u32; 256];
    for (f, n) in out.iter_mut().zip(count) {
        *f = if n == 0 { 0 } else { ((n * u64::from(TOTAL) / all) as u32).max(1) };
    }
    let mut sum: u32 = out.iter().sum();
    if sum == 0 {
        (out[0], sum) = (TOTAL, TOTAL);
    }
    // What rounding left over goes to the most frequent byte, what it took too much comes from the largest ones.
    let largest = |out: &[u32; 256]| (0..256).max_by_key(|i| (out[*i], 255 - *i)).unwrap_or(0);
    while sum > TOTAL {
        out[largest(&out)] -= 1;
        sum -= 1;
    }
    out[largest(&out)] += TOTAL - sum;
    out
}

fn starts(frequency: &[u32; 256]) -> [u32; 256] {
    let mut start = [0; 256];
    for i in 1..256 {
        start[i] = start[i - 1] + frequency[i - 1];
    }
    start
}

/// Compresses bytes.
#[must_use]
pub fn encode(bytes: &[u8]) -> Vec<u8> {
    let frequency = frequencies(bytes);
    let start = starts(&frequency);
    let mut states = [LOW; LANES];
    let mut refill = Vec::new();
    for (i, b) in bytes.iter().enumerate().rev() {
        let (f, s) = (frequency[usize::from(*b)], start[usize::from(*b)]);
        let x = &mut states[i % LANES];
        // f is at most 4096, so the bound is at most 2^31.
        while u64::from(*x) >= u64::from(LOW >> BITS << 8) * u64::from(f) {
            refill.push((*x & 255) as u8);
            *x >>= 8;
        }
        *x = (*x / f) << BITS | (*x % f + s);
    }
    let mut out = Vec::new();
    frequency.iter().for_each(|f| out.extend_from_slice(&(*f as u16).to_le_bytes()));
    states.iter().for_each(|x| out.extend_from_slice(&x.to_le_bytes()));
    out.extend(refill.iter().rev());
    out
}

/// Decompresses a stream into `out`.
///
/// # Errors
/// If it does not fill `out` exactly, or is none.
pub fn decode(stream: &[u8], out: &mut [u8]) -> Result<(), StreamError> {
    let (header, refill) = stream.split_at_checked(HEADER).ok_or(StreamError::Short)?;
    let mut frequency = [0u32; 256];
    for (f, b) in frequency.iter_mut().zip(header.chunks_exact(2)) {
        *f = u32::from(u16::from_le_bytes([b[0], b[1]]));
    }
    if frequency.iter().sum::<u32>() != TOTAL {
        return Err(StreamError::Invalid);
    }
    let start = starts(&frequency);
    let mut symbols = Vec::with_capacity(TOTAL as usize);
    for (symbol, f) in (0..=255u8).zip(frequency) {
        symbols.resize(symbols.len() + f as usize, symbol);
    }
    let mut states = [0u32; LANES];
    for (x, b) in states.iter_mut().zip(header[512..].chunks_exact(4)) {
        *x = u32::from_le_bytes([b[0], b[1], b[2], b[3]]);
        if !(LOW..HIGH).contains(x) {
            return Err(StreamError::Invalid);
        }
    }
    let mut next = 0;
    for (i, byte) in out.iter_mut().enumerate() {
        let x = &mut states[i % LANES];
        let slot = *x & (TOTAL - 1);
        let symbol = symbols[slot as usize];
        let (f, s) = (frequency[usize::from(symbol)], start[usize::from(symbol)]);
        *x = f * (*x >> BITS) + slot - s;
        while *x < LOW {
            *x = *x << 8 | u32::from(*refill.get(next).ok_or(StreamError::Short)?);
            next += 1;
        }
        *byte = symbol;
    }
    if states.iter().any(|x| *x != LOW) {
        return Err(StreamError::Long);
    }
    padding(&refill[next..])
}
