//! Synthetic transaction streams for one channel.
//!
//! Models: sequential, random, mixed and bank-conflicting 64-byte transactions, at a load.
//! Does not model: anything data dependent. Source: our own definitions, pinned by FNV-1a check values.

/// Bytes the streams stay within.
pub const STREAM_BYTES: u64 = 1 << 30;
/// Bytes of a transaction.
pub const TRANSACTION_BYTES: u64 = 64;

/// Flows of `flows12`, and transactions in a turn of one.
const FLOWS: u64 = 12;
const FLOW_LINES: u64 = 4096 / TRANSACTION_BYTES;

/// A synthetic stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamKind {
    /// Reads of consecutive lines.
    SeqRead,
    /// Reads of lines drawn at random.
    RandRead,
    /// Two sequential reads, then one sequential write in the other half.
    Mix21,
    /// Reads of the same bank, the next row each time.
    Strided,
    /// Writes of consecutive lines.
    WriteOnly,
    /// Writes of lines drawn at random.
    RandWrite,
    /// Lines drawn at random, each read or written with equal chance.
    Rand50,
    /// Four sequential reads in turn, a quarter of the memory apart: the same bank, four rows.
    Interleave4,
    /// One sequential read, then one sequential write in the other half.
    Copy,
    /// Twelve sequential reads in turns of 4 KiB, from places drawn at random: six cores that load and prefetch.
    Flows12,
}

impl StreamKind {
    /// All streams.
    pub const ALL: [Self; 10] = [
        Self::SeqRead,
        Self::RandRead,
        Self::Mix21,
        Self::Strided,
        Self::WriteOnly,
        Self::RandWrite,
        Self::Rand50,
        Self::Interleave4,
        Self::Copy,
        Self::Flows12,
    ];

    /// The name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::SeqRead => "seq_read",
            Self::RandRead => "rand_read",
            Self::Mix21 => "mix21",
            Self::Strided => "strided",
            Self::WriteOnly => "write_only",
            Self::RandWrite => "rand_write",
            Self::Rand50 => "rand50",
            Self::Interleave4 => "interleave4",
            Self::Copy => "copy",
            Self::Flows12 => "flows12",
        }
    }

    /// Address and direction of transaction `i`.
    #[must_use]
    pub fn transaction(self, i: u64) -> (u64, bool) {
        match self {
            Self::SeqRead => (TRANSACTION_BYTES * i % STREAM_BYTES, false),
            Self::WriteOnly => (TRANSACTION_BYTES * i % STREAM_BYTES, true),
            Self::RandRead => (random_line(mixed((1 << 32) + i)), false),
            Self::RandWrite => (random_line(mixed((1 << 32) + i)), true),
            Self::Rand50 => {
                let draw = mixed((1 << 32) + i);
                (random_line(draw), draw >> 63 == 1)
            }
            Self::Interleave4 => {
                let quarter = STREAM_BYTES / 4;
                (i % 4 * quarter + TRANSACTION_BYTES * (i / 4) % quarter, false)
            }
            Self::Copy => {
                let half = STREAM_BYTES / 2;
                (i % 2 * half + TRANSACTION_BYTES * (i / 2) % half, i % 2 == 1)
            }
            Self::Flows12 => {
                let (turn, line) = (i / FLOW_LINES, i % FLOW_LINES);
                let (flow, round) = (turn % FLOWS, turn / FLOWS);
                // Each flow walks its own part, from somewhere in it.
                let part = STREAM_BYTES / 16;
                let at =
                    random_line(mixed((1 << 33) + flow)) + (round * FLOW_LINES + line) * TRANSACTION_BYTES;
                (flow * part + at % part, false)
            }
            Self::Mix21 => {
                let (round, place) = (i / 3, i % 3);
                let half = STREAM_BYTES / 2;
                if place == 2 {
                    (half + TRANSACTION_BYTES * round % half, true)
                } else {
                    (TRANSACTION_BYTES * (2 * round + place) % half, false)
                }
            }
            Self::Strided => ((32 << 10) * i % STREAM_BYTES, false),
        }
    }
}

const fn random_line(draw: u64) -> u64 {
    draw % (STREAM_BYTES / TRANSACTION_BYTES) * TRANSACTION_BYTES
}

/// SplitMix64's finaliser.
#[must_use]
pub const fn mixed(x: u64) -> u64 {
    let x = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// When transactions arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// As fast as the controller takes them.
    Saturating,
    /// Open loop at this many millionths of the pin peak.
    Fraction(u32),
    /// One outstanding at a time.
    Chase,
}

impl Load {
    /// CK at which transaction `i` is due; 0 unless open loop. `line_ck`: CKs of a line at the pins' peak.
    #[must_use]
    pub fn due(self, i: u64, line_ck: u64) -> u64 {
        match self {
            Self::Fraction(millionths) => {
                let ck = u128::from(i) * u128::from(line_ck) * 1_000_000 / u128::from(millionths.max(1));
                u64::try_from(ck).expect("a stream fits the range of CKs")
            }
            Self::Saturating | Self::Chase => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_have_their_check_values() {
        for (kind, expected) in [
            (StreamKind::SeqRead, 0x0ec0_fde0_f4ef_6345),
            (StreamKind::RandRead, 0x1eb5_18c7_bf27_4bef),
            (StreamKind::Mix21, 0x33db_2ebd_a5ef_9978),
            (StreamKind::Strided, 0x4e32_907b_ac70_5495),
        ] {
            let mut hash = 0xcbf2_9ce4_8422_2325_u64;
            for i in 0..1000 {
                let (address, write) = kind.transaction(i);
                for byte in (address * 2 + u64::from(write)).to_le_bytes() {
                    hash = (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
                }
            }
            assert_eq!(hash, expected, "{}", kind.name());
        }
        let first: Vec<u64> = (0..3).map(|i| StreamKind::RandRead.transaction(i).0).collect();
        assert_eq!(first, [0x2080_4e00, 0x1665_5bc0, 0x141c_0880]);
    }
}
