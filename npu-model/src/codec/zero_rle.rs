//! Runs of zeros: a control byte c below 128 is followed by c + 1 literal bytes, any other stands for c - 127 zeros.
//!
//! Models: function. Does not model: time.
//! Source: `isa::npu::dma`. The stream ends where the output is full; zeros may follow.

use super::{StreamError, padding};

const LONGEST: usize = 128;

/// Compresses bytes.
#[must_use]
pub fn encode(bytes: &[u8]) -> Vec<u8> {
    let zeros = |at: usize| bytes[at..].iter().take(LONGEST).take_while(|b| **b == 0).count();
    let mut out = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let run = zeros(at);
        if run > 0 {
            out.push((run + 127) as u8);
            at += run;
            continue;
        }
        // A single zero between literals costs less as a literal.
        let mut end = at + 1;
        while end < bytes.len() && end - at < LONGEST && (bytes[end] != 0 || zeros(end) < 2) {
            end += 1;
        }
        out.push((end - at - 1) as u8);
        out.extend_from_slice(&bytes[at..end]);
        at = end;
    }
    out
}

/// Decompresses a stream into `out`.
///
/// # Errors
/// If it does not fill `out` exactly.
pub fn decode(stream: &[u8], out: &mut [u8]) -> Result<(), StreamError> {
    let (mut at, mut filled) = (0, 0);
    while filled < out.len() {
        let control = usize::from(*stream.get(at).ok_or(StreamError::Short)?);
        at += 1;
        let n = if control < LONGEST { control + 1 } else { control - 127 };
        let to = out.get_mut(filled..filled + n).ok_or(StreamError::Long)?;
        if control < LONGEST {
            to.copy_from_slice(stream.get(at..at + n).ok_or(StreamError::Short)?);
            at += n;
        } else {
            to.fill(0);
        }
        filled += n;
    }
    padding(&stream[at..])
}
