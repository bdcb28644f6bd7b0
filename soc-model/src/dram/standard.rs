//! Speed grades: the timing table of one LPDDR channel, read from a preset with a source on every row.
//!
//! Models: rows by density, burst length, bank mode, link ECC and temperature. Does not model: set B write latency,
//! DVFSC. Source: each row of presets/dram/*.toml names its own.

use super::controller::RawController;
use super::map::nearest;
pub use super::timings::{ROWS, Timings};
use super::{Controller, Place};
use serde::Deserialize;
use sim_kernel::Hertz;
use std::collections::BTreeMap;

/// What is wrong with a standard's file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StandardError {
    /// No preset of that name.
    #[error("no DRAM standard is called `{name}`; the nearest is `{nearest}`")]
    UnknownStandard {
        /// What was asked.
        name: String,
        /// The most similar preset.
        nearest: String,
    },
    /// Not TOML, or a key or type that does not belong.
    #[error("line {line}: {message}")]
    Syntax {
        /// Line, from one.
        line: usize,
        /// What is wrong there.
        message: String,
    },
    /// A key that does not exist.
    #[error("line {line}: unknown key `{key}`; the nearest is `{nearest}`")]
    UnknownKey {
        /// Line, from one.
        line: usize,
        /// The key.
        key: String,
        /// The most similar key.
        nearest: String,
    },
    /// A timing row that must be there is not.
    #[error("line {line}: timing row `{row}` is missing")]
    MissingRow {
        /// Line of the table it belongs to.
        line: usize,
        /// JEDEC name.
        row: &'static str,
    },
    /// Values that contradict each other or the model's range.
    #[error("line {line}: {message}")]
    Invalid {
        /// Line of the row or key.
        line: usize,
        /// Rows, values and what would be right.
        message: String,
    },
}

/// Why a mode does not exist for a device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ModeError {
    /// The file has no rows for it.
    #[error("{standard} has no [variant.{variant}] rows; it has {has}")]
    NoRows {
        /// The standard.
        standard: String,
        /// The mode.
        variant: String,
        /// Those it has.
        has: String,
    },
    /// 16-bank mode ends at 3200 Mb/s.
    #[error(
        "16-bank mode ends at 3200 Mb/s, the data run at {mega_bits} Mb/s; a lower clock or bank-group mode works"
    )]
    TooFast {
        /// Mb/s and pin.
        mega_bits: u64,
    },
    /// Not modelled.
    #[error("16-bank mode is modelled with bursts of 16 beats only")]
    SixteenBl32,
    /// JEDEC has no BL16 in 8-bank mode.
    #[error("8-bank mode has bursts of 32 beats only")]
    EightNeedsBl32,
    /// Derating adds nanoseconds.
    #[error("timing row `{row}` has no `ps`, which derating above 85 C needs")]
    NoPicoseconds {
        /// The row.
        row: &'static str,
    },
    /// The mode's rows contradict each other.
    #[error("{message}")]
    Contradiction {
        /// Rows and values.
        message: String,
    },
}

/// How the banks of a device are arranged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BankMode {
    /// Four groups of four, with longer distances within a group.
    BankGroup,
    /// Sixteen equal banks; up to 3200 Mb/s.
    Sixteen,
    /// Eight equal banks of twice the row; BL32 only.
    Eight,
}

impl std::str::FromStr for BankMode {
    type Err = String;
    fn from_str(name: &str) -> Result<Self, String> {
        let modes = [("bank-group", Self::BankGroup), ("16-bank", Self::Sixteen), ("8-bank", Self::Eight)];
        modes.iter().find(|m| m.0 == name).map(|m| m.1).ok_or_else(|| {
            format!(
                "no bank mode is called `{name}`; the nearest is `{}`",
                nearest(name, modes.iter().map(|m| m.0))
            )
        })
    }
}

/// What is set on a device of a standard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode {
    /// Gigabits of the channel's die, if not the file's own.
    pub density_gbit: Option<u64>,
    /// Bursts of 32 beats, 64 bytes.
    pub bl32: bool,
    /// Banks.
    pub banks: BankMode,
    /// Parity on the link in both directions.
    pub link_ecc: bool,
    /// Above 85 C: slower rows.
    pub hot: bool,
    /// Refresh interval in thousandths of nREFI.
    pub refresh_permille: u32,
    /// Clock in thousandths of nominal.
    pub frequency_permille: u32,
}

impl Mode {
    /// As the file says.
    pub const NOMINAL: Self = Self {
        density_gbit: None,
        bl32: false,
        banks: BankMode::BankGroup,
        link_ecc: false,
        hot: false,
        refresh_permille: 1000,
        frequency_permille: 1000,
    };
}

/// A speed grade, resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standard {
    /// Name, as on the command line.
    pub name: String,
    /// Command clock.
    pub ck: Hertz,
    /// log2 of the bytes of one channel.
    pub channel_bits: u32,
    /// Constraints.
    pub timings: Timings,
    /// Bytes of a burst, and CKs of its data on the bus.
    pub burst_bytes: u64,
    /// CKs the data of a burst takes at the pins' peak.
    pub burst_ck: u64,
    /// Banks.
    pub banks: BankMode,
    /// The controller of the file, or the default one.
    pub controller: Controller,
    /// Rows that are analogue times, in ps; 0 for the others.
    picoseconds: Timings,
    /// Rows that differ in a mode, by the mode's name: row, CK, ps.
    variants: BTreeMap<String, Vec<(String, u64, u64)>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawStandard {
    name: String,
    #[serde(rename = "description")]
    _description: String,
    ck_hz: u64,
    density_gbit: u64,
    #[serde(rename = "density-source")]
    _density_source: String,
    timing: toml::Spanned<BTreeMap<String, toml::Spanned<RawRow>>>,
    #[serde(default)]
    variant: BTreeMap<String, BTreeMap<String, toml::Spanned<RawRow>>>,
    #[serde(default)]
    controller: RawController,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRow {
    ck: u64,
    #[serde(default)]
    ps: u64,
    #[serde(rename = "source")]
    _source: String,
}

const KEYS: [&str; 11] = [
    "name",
    "description",
    "ck-hz",
    "density-gbit",
    "density-source",
    "timing",
    "variant",
    "controller",
    "ck",
    "ps",
    "source",
];

/// Names of the modes a file can have rows for.
pub const VARIANTS: [&str; 7] =
    ["density-8", "density-16", "density-32", "link-ecc", "bl32", "8-bank", "16-bank"];

/// What JEDEC adds to tRCD, tRAS, tRP and tRRD above 85 C.
const DERATING_PS: u64 = 1875;
/// Fastest data of 16-bank mode, in bits a second and pin, with the rounding of a clock in hertz.
const SIXTEEN_BANK_BITS_PER_S: u64 = 3_200_000_100;

/// Names and texts of the built-in standards. LPDDR5T is a name for the 9600 bin: it has no AC table of its own.
pub const STANDARDS: [(&str, &str); 6] = [
    ("lpddr5-6400", include_str!("../../presets/dram/lpddr5-6400.toml")),
    ("lpddr5x-8533", include_str!("../../presets/dram/lpddr5x-8533.toml")),
    ("lpddr5x-9600", include_str!("../../presets/dram/lpddr5x-9600.toml")),
    ("lpddr5t-9600", include_str!("../../presets/dram/lpddr5x-9600.toml")),
    ("lpddr5x-10667", include_str!("../../presets/dram/lpddr5x-10667.toml")),
    ("lpddr6-10667", include_str!("../../presets/dram/lpddr6-10667.toml")),
];

impl Standard {
    /// A built-in standard.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn named(name: &str) -> Result<Self, Vec<StandardError>> {
        match STANDARDS.iter().find(|(n, _)| *n == name) {
            Some((_, text)) => Ok(Self { name: name.to_owned(), ..Self::parse(text)? }),
            None => Err(vec![StandardError::UnknownStandard {
                name: name.to_owned(),
                nearest: nearest(name, STANDARDS.iter().map(|(n, _)| *n)),
            }]),
        }
    }

    /// A standard from the text of its file.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn parse(text: &str) -> Result<Self, Vec<StandardError>> {
        let raw: RawStandard = toml::from_str(text).map_err(|e| vec![syntax(text, &e)])?;
        let mut errors = Vec::new();
        let (table, rows) = (line_of(text, raw.timing.span().start), raw.timing.get_ref());
        unknown_rows(text, rows, &[], &mut errors);
        let timings = Timings::from_rows(|row| {
            let found = rows.get(row);
            if found.is_none() {
                errors.push(StandardError::MissingRow { line: table, row });
            }
            found.map_or(0, |r| r.get_ref().ck)
        });
        let picoseconds = Timings::from_rows(|row| rows.get(row).map_or(0, |r| r.get_ref().ps));
        if errors.is_empty() {
            errors.extend(timings.problems().into_iter().map(|(row, message)| StandardError::Invalid {
                line: rows.get(row).map_or(table, |r| line_of(text, r.span().start)),
                message,
            }));
        }
        let variants = variants(text, &raw.variant, &mut errors);
        let (controller, problems) = raw.controller.resolve();
        let line = text.lines().position(|l| l.trim() == "[controller]").map_or(1, |l| l + 1);
        errors.extend(problems.into_iter().map(|message| StandardError::Invalid { line, message }));
        let key_line = |key: &str| text.lines().position(|l| l.starts_with(key)).map_or(1, |l| l + 1);
        if !(100_000_000..=4_000_000_000).contains(&raw.ck_hz) {
            let message = format!("ck-hz = {} is outside 100 MHz to 4 GHz", raw.ck_hz);
            errors.push(StandardError::Invalid { line: key_line("ck-hz"), message });
        }
        if !(raw.density_gbit.is_power_of_two() && (1..=64).contains(&raw.density_gbit)) {
            let message = format!("density-gbit = {} is not a power of two up to 64", raw.density_gbit);
            errors.push(StandardError::Invalid { line: key_line("density-gbit"), message });
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        Ok(Self {
            name: raw.name,
            ck: Hertz::new(raw.ck_hz),
            channel_bits: 27 + raw.density_gbit.trailing_zeros(),
            timings,
            burst_bytes: super::BURST_BYTES,
            burst_ck: timings.bl_min,
            banks: BankMode::BankGroup,
            controller,
            picoseconds,
            variants,
        })
    }

    /// The same device in another mode.
    ///
    /// # Errors
    /// Why the mode does not exist.
    pub fn with(&self, mode: Mode) -> Result<Self, Vec<ModeError>> {
        let (mut out, mut errors) = (self.clone(), Vec::new());
        if let Some(gbit) = mode.density_gbit {
            out.apply(&format!("density-{gbit}"), &mut errors);
            out.channel_bits = 27 + gbit.trailing_zeros();
        }
        if mode.link_ecc {
            out.apply("link-ecc", &mut errors);
        }
        let rate = self.ck.get() * 8 / 1000 * u64::from(mode.frequency_permille);
        match (mode.banks, mode.bl32) {
            (BankMode::BankGroup, false) => {}
            (BankMode::BankGroup, true) => out.apply("bl32", &mut errors),
            (BankMode::Sixteen, _) if rate > SIXTEEN_BANK_BITS_PER_S => {
                errors.push(ModeError::TooFast { mega_bits: rate / 1_000_000 });
            }
            (BankMode::Sixteen, true) => errors.push(ModeError::SixteenBl32),
            (BankMode::Sixteen, false) => out.apply("16-bank", &mut errors),
            (BankMode::Eight, false) => errors.push(ModeError::EightNeedsBl32),
            (BankMode::Eight, true) => {
                out.apply("8-bank", &mut errors);
                out.timings.banks = 8;
            }
        }
        if mode.bl32 {
            (out.burst_bytes, out.burst_ck) = (2 * self.burst_bytes, 2 * self.burst_ck);
        }
        out.banks = mode.banks;
        if mode.hot {
            out.derate(&mut errors);
        }
        out.timings = out.timings.at_permille(mode.frequency_permille);
        out.ck = Hertz::new(self.ck.get() * u64::from(mode.frequency_permille) / 1000);
        for row in [&mut out.timings.refi, &mut out.timings.refi_pb] {
            *row = *row * u64::from(mode.refresh_permille) / 1000;
        }
        let problems = out.timings.problems().into_iter();
        errors.extend(problems.map(|(_, message)| ModeError::Contradiction { message }));
        if errors.is_empty() { Ok(out) } else { Err(errors) }
    }

    fn apply(&mut self, variant: &str, errors: &mut Vec<ModeError>) {
        let Some(rows) = self.variants.get(variant) else {
            let (standard, has) = (self.name.clone(), self.variants.keys().cloned().collect::<Vec<_>>());
            let has = if has.is_empty() { "none".to_owned() } else { has.join(", ") };
            errors.push(ModeError::NoRows { standard, variant: variant.to_owned(), has });
            return;
        };
        for (row, ck, ps) in rows {
            *self.timings.row_mut(row).expect("checked when read") = *ck;
            *self.picoseconds.row_mut(row).expect("checked when read") = *ps;
        }
    }

    fn derate(&mut self, errors: &mut Vec<ModeError>) {
        for row in ["nRCD", "nRCDw", "nRAS", "nRPpb", "nRPab", "nRRD"] {
            let ps = *self.picoseconds.row_mut(row).expect("a row");
            if ps == 0 {
                errors.push(ModeError::NoPicoseconds { row });
                continue;
            }
            let ck = u128::from(ps + DERATING_PS) * u128::from(self.ck.get());
            let ck = u64::try_from(ck.div_ceil(1_000_000_000_000)).expect("a row is short");
            let value = self.timings.row_mut(row).expect("a row");
            *value = ck.max(*value);
        }
        let t = &mut self.timings;
        t.rc = t.rc.max(t.ras + t.rp_pb);
        t.faw = t.faw.max(4 * t.rrd);
    }

    /// Pin bandwidth of one channel in bytes a second.
    #[must_use]
    pub fn peak_bytes_per_s(&self) -> u64 {
        self.ck.get() * self.burst_bytes / self.burst_ck
    }

    /// CKs of 64 bytes at the pins' peak.
    #[must_use]
    pub fn line_ck(&self) -> u64 {
        64 / self.burst_bytes * self.burst_ck
    }

    /// Bursts of a 64-byte line.
    #[must_use]
    pub fn line_bursts(&self) -> u64 {
        64 / self.burst_bytes
    }

    /// The place of a burst in the device's own banks: in 8-bank mode two of sixteen make one of twice the row.
    #[must_use]
    pub fn fold(&self, place: Place) -> Place {
        if self.banks == BankMode::Eight {
            let column = place.column | u16::from(place.bank >> 3) << 6;
            Place { bank: place.bank & 7, column, ..place }
        } else {
            place
        }
    }
}

fn unknown_rows(
    text: &str,
    rows: &BTreeMap<String, toml::Spanned<RawRow>>,
    more: &[&'static str],
    errors: &mut Vec<StandardError>,
) {
    for (key, row) in
        rows.iter().filter(|(key, _)| !ROWS.contains(&key.as_str()) && !more.contains(&key.as_str()))
    {
        errors.push(StandardError::UnknownKey {
            line: line_of(text, row.span().start),
            key: key.clone(),
            nearest: nearest(key, ROWS.iter().chain(more).copied()),
        });
    }
}

type Variants = BTreeMap<String, Vec<(String, u64, u64)>>;

fn variants(
    text: &str,
    raw: &BTreeMap<String, BTreeMap<String, toml::Spanned<RawRow>>>,
    errors: &mut Vec<StandardError>,
) -> Variants {
    let mut out = Variants::new();
    for (name, rows) in raw {
        if !VARIANTS.contains(&name.as_str()) {
            let line = text.lines().position(|l| l.contains(&format!("variant.{name}"))).map_or(1, |l| l + 1);
            let nearest = nearest(name, VARIANTS.iter().copied());
            errors.push(StandardError::UnknownKey { line, key: name.clone(), nearest });
        }
        unknown_rows(text, rows, &["nCCD_mesh"], errors);
        for (row, value) in rows.iter().filter(|(_, v)| v.get_ref().ck == 0) {
            let message = format!("timing row `{row}` is zero; every constraint takes at least one CK");
            errors.push(StandardError::Invalid { line: line_of(text, value.span().start), message });
        }
        let rows = rows.iter().map(|(row, v)| (row.clone(), v.get_ref().ck, v.get_ref().ps)).collect();
        out.insert(name.clone(), rows);
    }
    out
}

fn line_of(text: &str, offset: usize) -> usize {
    text.get(..offset).map_or(1, |t| t.matches('\n').count() + 1)
}

fn syntax(text: &str, e: &toml::de::Error) -> StandardError {
    let line = e.span().map_or(1, |s| line_of(text, s.start));
    let unknown = e.message().strip_prefix("unknown field `").and_then(|m| m.split_once('`'));
    match unknown {
        Some((key, _)) => StandardError::UnknownKey {
            line,
            key: key.to_owned(),
            nearest: nearest(key, KEYS.iter().copied()),
        },
        None => StandardError::Syntax { line, message: e.message().to_owned() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(text: &str) -> Vec<String> {
        Standard::parse(text).unwrap_err().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn presets_load_and_carry_their_peaks() {
        for (name, text) in STANDARDS {
            let s = Standard::parse(text).expect(name);
            assert_eq!(Standard::named(name).unwrap().name, name);
            assert!(s.name == name || name == "lpddr5t-9600");
            assert_eq!(s.timings.rows().len(), ROWS.len());
        }
        let peak = |n: &str| Standard::named(n).unwrap().peak_bytes_per_s();
        assert_eq!(peak("lpddr5-6400"), 12_800_000_000);
        assert_eq!(peak("lpddr5x-9600"), 19_200_000_000);
        assert_eq!(peak("lpddr5x-8533") / 1_000_000, 17_066);
    }

    #[test]
    fn every_mistake_is_named_with_its_place() {
        let good = STANDARDS[0].1;
        let without = good.lines().filter(|l| !l.starts_with("nRCD ")).collect::<Vec<_>>().join("\n");
        assert_eq!(errors(&without), ["line 7: timing row `nRCD` is missing"]);
        let typo = good.replace("nRAS =", "nRSA =");
        assert!(
            errors(&typo)[0].ends_with("unknown key `nRSA`; the nearest is `nRAS`"),
            "{:?}",
            errors(&typo)
        );
        assert_eq!(errors(&typo)[1], "line 7: timing row `nRAS` is missing");
        let key = good.replace("ck-hz", "ck-hertz");
        assert!(
            errors(&key)[0].contains("unknown key `ck-hertz`; the nearest is `ck-hz`"),
            "{:?}",
            errors(&key)
        );
        let wrong = good.replace("nRAS = { ck = 34", "nRAS = { ck = 134").replace("ck = 3125", "ck = 0");
        let found = errors(&wrong);
        assert!(found.iter().any(|e| e.contains("nRAS = 134 exceeds nRC = 49")), "{found:?}");
        assert!(found.iter().any(|e| e.contains("`nREFI` is zero")), "{found:?}");
        let unknown = Standard::named("lpddr5x-9601").unwrap_err();
        assert!(unknown[0].to_string().ends_with("the nearest is `lpddr5x-9600`"));
    }
}
