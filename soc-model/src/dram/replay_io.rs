//! What `presil dram replay` reads and prints: loads, trace files, the result record.
//!
//! Models: text in, figures out. Does not model: anything. Source: the units are in the names.

use super::energy::{DramAction, attojoules, command_counts};
use super::replay::{Measured, Path, Transaction};
use super::streams::{Load, StreamKind};
use super::{BURST_BYTES, Standard, map::nearest};
use serde::Serialize;
use sim_kernel::{Clock, Cycles};
use std::collections::BTreeMap;

/// What is wrong with a replay's input.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// A trace line that cannot be read.
    #[error("{file}:{line}: {message}")]
    Trace {
        /// File name as given.
        file: String,
        /// Line, from one.
        line: usize,
        /// What is wrong and what is expected.
        message: String,
    },
    /// A load that is no load.
    #[error("load `{text}` is neither `0` (saturating), a fraction of the pin peak up to 1, nor `chase`")]
    Load {
        /// What was written.
        text: String,
    },
    /// No stream of that name.
    #[error("no stream is called `{name}`; the nearest is `{nearest}`")]
    Stream {
        /// What was asked.
        name: String,
        /// The most similar stream.
        nearest: String,
    },
    /// No path of that name.
    #[error("no path is called `{name}`; there are `tick`, `burst` and `sampled`")]
    Path {
        /// What was asked.
        name: String,
    },
}

impl std::str::FromStr for Load {
    type Err = ReplayError;
    fn from_str(text: &str) -> Result<Self, ReplayError> {
        let bad = || ReplayError::Load { text: text.to_owned() };
        if text == "chase" {
            return Ok(Self::Chase);
        }
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty() && fraction.is_empty()
            || !digits(whole)
            || !digits(fraction)
            || fraction.len() > 6
        {
            return Err(bad());
        }
        let whole: u32 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| bad())? };
        let millionths: u32 = format!("{fraction:0<6}").parse().map_err(|_| bad())?;
        match whole.checked_mul(1_000_000).and_then(|w| w.checked_add(millionths)) {
            Some(0) => Ok(Self::Saturating),
            Some(m) if m <= 1_000_000 => Ok(Self::Fraction(m)),
            _ => Err(bad()),
        }
    }
}

impl std::str::FromStr for StreamKind {
    type Err = ReplayError;
    fn from_str(name: &str) -> Result<Self, ReplayError> {
        Self::ALL.into_iter().find(|k| k.name() == name).ok_or_else(|| ReplayError::Stream {
            name: name.to_owned(),
            nearest: nearest(name, Self::ALL.iter().map(|k| k.name())),
        })
    }
}

impl std::str::FromStr for Path {
    type Err = ReplayError;
    fn from_str(name: &str) -> Result<Self, ReplayError> {
        [Self::Tick, Self::Burst, Self::Sampled]
            .into_iter()
            .find(|p| p.name() == name)
            .ok_or_else(|| ReplayError::Path { name: name.to_owned() })
    }
}

/// Reads a trace: lines `R 0xADDR` or `W 0xADDR`, optionally the CK the transaction is due; `#` starts a comment.
/// A transaction is the 64-byte line its address lies in; addresses must lie below `1 << bits`.
///
/// # Errors
/// The first line that cannot be read.
pub fn parse_trace(file: &str, text: &str, bits: u32) -> Result<Vec<Transaction>, ReplayError> {
    let mut out = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let content = line.split('#').next().unwrap_or_default().trim();
        if content.is_empty() {
            continue;
        }
        let transaction = parse_line(content, bits).map_err(|message| ReplayError::Trace {
            file: file.to_owned(),
            line: index + 1,
            message,
        })?;
        out.push(transaction);
    }
    Ok(out)
}

fn parse_line(line: &str, bits: u32) -> Result<Transaction, String> {
    let mut words = line.split_whitespace();
    let write = match words.next() {
        Some("R" | "r") => false,
        Some("W" | "w") => true,
        other => return Err(format!("expected `R` or `W`, found `{}`", other.unwrap_or_default())),
    };
    let text = words.next().ok_or("expected an address such as `0x1000` after the direction")?;
    let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    let address = digits.and_then(|d| u64::from_str_radix(d, 16).ok());
    let address = address.ok_or_else(|| format!("`{text}` is not an address such as `0x1000`"))?;
    if address >> bits != 0 {
        return Err(format!("address {address:#x} lies beyond the channel's {:#x} bytes", 1u64 << bits));
    }
    let due = match words.next() {
        None => 0,
        Some(ck) => match ck.parse::<u64>() {
            Ok(due) if due < 1 << 40 => due,
            _ => return Err(format!("`{ck}` is not a CK number below 2^40")),
        },
    };
    match words.next() {
        Some(extra) => Err(format!("unexpected `{extra}` after the transaction")),
        None => Ok(Transaction { address: address & !63, write, due }),
    }
}

/// Latency of burst reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct LatencyNs {
    /// Mean.
    pub mean: f64,
    /// Median.
    pub p50: f64,
    /// 99th percentile.
    pub p99: f64,
}

/// The figures of a replay, as printed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ReplayResult {
    /// The path used.
    pub path: &'static str,
    /// CKs until the last burst was done.
    pub ck_cycles: u64,
    /// 64-byte transactions.
    pub transactions: u64,
    /// 10^9 bytes a second.
    pub bandwidth_gb_per_s: f64,
    /// Bandwidth over pin bandwidth.
    pub utilisation: f64,
    /// Latency of 32-byte burst reads from acceptance to data; absent without reads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_latency_ns: Option<LatencyNs>,
    /// Bursts whose first command was RD or WR.
    pub row_hits: u64,
    /// Bursts whose first command was ACT.
    pub row_misses: u64,
    /// Bursts whose first command was PRE.
    pub row_conflicts: u64,
    /// Device, PHY and controller.
    pub energy_j: f64,
    /// The same by command and state, in joules; what did not happen is absent.
    pub energy_by_j: BTreeMap<&'static str, f64>,
    /// Energy of reads a bit: their bursts, and a share by bursts of rows, refresh and standby; absent without reads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_pj_per_bit: Option<f64>,
    /// The same of writes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub write_pj_per_bit: Option<f64>,
    /// Commands issued, by name.
    pub commands: BTreeMap<&'static str, u64>,
    /// Nanoseconds in each state of power.
    pub state_ns: BTreeMap<&'static str, f64>,
}

impl ReplayResult {
    /// The printed figures of a measurement.
    #[must_use]
    pub fn new(standard: &Standard, m: &Measured) -> Self {
        let clock = Clock::new(standard.ck);
        let ns = |ck: u64| clock.edge(Cycles::new(ck)).as_ns();
        let counts = command_counts(&m.commands, standard.burst_bytes / BURST_BYTES, &m.states, ns);
        let joules = |counts: &[_]| attojoules(counts) as f64 * 1e-18;
        let ck_ns = 1e9 / standard.ck.get() as f64;
        let seconds = m.ck_cycles as f64 / standard.ck.get() as f64;
        let bandwidth = if m.ck_cycles == 0 { 0.0 } else { (m.transactions * 64) as f64 / seconds };
        let reads: u64 = m.read_latency.iter().sum();
        let sum: u64 = (0u64..).zip(&m.read_latency).map(|(ck, n)| ck * n).sum();
        let read_latency_ns = (reads > 0).then(|| LatencyNs {
            mean: sum as f64 / reads as f64 * ck_ns,
            p50: percentile(&m.read_latency, reads, 50) as f64 * ck_ns,
            p99: percentile(&m.read_latency, reads, 99) as f64 * ck_ns,
        });
        Self {
            path: m.path.name(),
            ck_cycles: m.ck_cycles,
            transactions: m.transactions,
            bandwidth_gb_per_s: bandwidth / 1e9,
            utilisation: bandwidth / standard.peak_bytes_per_s() as f64,
            read_latency_ns,
            row_hits: m.commands.row_hits,
            row_misses: m.commands.row_misses,
            row_conflicts: m.commands.row_conflicts,
            energy_j: joules(&counts),
            energy_by_j: counts
                .iter()
                .filter(|c| c.1 > 0)
                .map(|c| (c.0.coefficient().action, joules(&[*c])))
                .collect(),
            read_pj_per_bit: pj_per_bit(&counts, DramAction::ReadBurst, DramAction::WriteBurst),
            write_pj_per_bit: pj_per_bit(&counts, DramAction::WriteBurst, DramAction::ReadBurst),
            commands: m.commands.named().into_iter().collect(),
            state_ns: m.states.named().into_iter().map(|(state, ck)| (state, ck as f64 * ck_ns)).collect(),
        }
    }
}

/// Picojoules a bit of `mine`: its own bursts, and its share by bursts of all that is neither its nor `other`'s.
fn pj_per_bit(counts: &[(DramAction, u64)], mine: DramAction, other: DramAction) -> Option<f64> {
    let of = |action| counts.iter().filter(|c| c.0 == action).map(|c| c.1).sum::<u64>();
    let (bursts, all) = (of(mine), of(mine) + of(other));
    let shared: Vec<_> = counts.iter().copied().filter(|c| c.0 != mine && c.0 != other).collect();
    let own = attojoules(&[(mine, bursts)]) as f64;
    let share = attojoules(&shared) as f64 * bursts as f64 / all.max(1) as f64;
    (bursts > 0).then(|| (own + share) / (bursts * BURST_BYTES * 8) as f64 * 1e-6)
}

/// Smallest latency that `percent` of the reads do not exceed.
fn percentile(counts: &[u64], total: u64, percent: u64) -> u64 {
    let rank = (total * percent).div_ceil(100);
    let mut below = 0;
    for (ck, n) in (0u64..).zip(counts) {
        below += n;
        if below >= rank {
            return ck;
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads_and_streams_parse() {
        assert_eq!("0".parse(), Ok(Load::Saturating));
        assert_eq!("0.175".parse(), Ok(Load::Fraction(175_000)));
        assert_eq!(".5".parse(), Ok(Load::Fraction(500_000)));
        assert_eq!("chase".parse(), Ok(Load::Chase));
        for bad in ["1.5", "-1", "", ".", "fast", "99999999999", "0.1234567"] {
            assert!(bad.parse::<Load>().is_err(), "{bad}");
        }
        let e = "seq_raed".parse::<StreamKind>().unwrap_err();
        assert_eq!(e.to_string(), "no stream is called `seq_raed`; the nearest is `seq_read`");
    }

    #[test]
    fn traces_parse_and_errors_name_the_line() {
        let t = parse_trace("t", "# head\nR 0x40\nW 0x7f 12 # late\n\n", 30).unwrap();
        assert_eq!(t[1], Transaction { address: 0x40, write: true, due: 12 });
        let e = |text: &str| parse_trace("a.trace", text, 30).unwrap_err().to_string();
        assert_eq!(e("R 0x0\nX 0x1"), "a.trace:2: expected `R` or `W`, found `X`");
        assert_eq!(e("R"), "a.trace:1: expected an address such as `0x1000` after the direction");
        assert_eq!(e("R 12"), "a.trace:1: `12` is not an address such as `0x1000`");
        assert_eq!(
            e("R 0x40000000"),
            "a.trace:1: address 0x40000000 lies beyond the channel's 0x40000000 bytes"
        );
        assert_eq!(e("R 0x0 soon"), "a.trace:1: `soon` is not a CK number below 2^40");
        assert_eq!(e("R 0x0 1 2"), "a.trace:1: unexpected `2` after the transaction");
    }
}
