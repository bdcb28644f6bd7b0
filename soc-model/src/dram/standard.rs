//! Speed grades: the timing table of one LPDDR channel, read from a preset with a source on every row.
//!
//! Models: the constraints the channel engines obey, in CK. Does not model: temperature derating, set B write
//! latency, BL32. Source: each row of presets/dram/*.toml names its own.

use super::map::nearest;
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
    #[error("timing row `{row}` is missing")]
    MissingRow {
        /// JEDEC name.
        row: &'static str,
    },
    /// Values that contradict each other or the model's range.
    #[error("{message}")]
    Invalid {
        /// Rows, values and what would be right.
        message: String,
    },
}

macro_rules! timing_rows {
    ($( $field:ident = $name:literal : $text:literal ),* $(,)?) => {
        /// Timing constraints in CK.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct Timings {
            $( #[doc = $text] pub $field: u64, )*
            /// Distance at which a burst of another bank group meshes with one in flight; 0 where none does.
            pub interleave: u64,
        }

        /// JEDEC names of all rows.
        pub const ROWS: &[&str] = &[ $( $name, )* ];

        impl Timings {
            fn from_rows(rows: &BTreeMap<String, toml::Spanned<RawRow>>, errors: &mut Vec<StandardError>) -> Self {
                Self { $( $field: rows.get($name).map_or_else(
                    || { errors.push(StandardError::MissingRow { row: $name }); 0 },
                    |r| r.get_ref().ck,
                ), )* interleave: 0 }
            }

            /// JEDEC name and value of every row.
            #[must_use]
            pub fn rows(&self) -> Vec<(&'static str, u64)> {
                vec![ $( ($name, self.$field), )* ]
            }
        }
    };
}

timing_rows! {
    cl = "nCL": "Read latency.",
    cwl = "nCWL": "Write latency.",
    rcd = "nRCD": "ACT1 to RD.",
    rcd_w = "nRCDw": "ACT1 to WR.",
    rp_pb = "nRPpb": "Per-bank precharge to ACT1.",
    rp_ab = "nRPab": "All-bank precharge to ACT1.",
    ras = "nRAS": "ACT1 to precharge.",
    rc = "nRC": "ACT1 to ACT1 of the same bank.",
    wr = "nWR": "End of write data to precharge.",
    rtp = "nRTP": "RD to precharge.",
    rrd = "nRRD": "ACT1 to ACT1 of another bank.",
    faw = "nFAW": "Window of four ACT1.",
    ccd_s = "nCCD_S": "Column command to column command, other bank group.",
    ccd_l = "nCCD_L": "Column command to column command, same bank group.",
    bl_min = "nBL_min": "Burst on the bus, other bank group.",
    bl_max = "nBL_max": "Burst on the bus, same bank group.",
    wtr_s = "nWTR_S": "End of write data to RD, other bank group.",
    wtr_l = "nWTR_L": "End of write data to RD, same bank group.",
    ppd = "nPPD": "Precharge to precharge.",
    aad = "nAAD": "Latest ACT2 after its ACT1.",
    rfc_ab = "nRFCab": "All-bank refresh to ACT1.",
    refi = "nREFI": "Average all-bank refresh interval.",
    rfc_pb = "nRFCpb": "Per-bank refresh to ACT1 of the same bank.",
    refi_pb = "nREFIpb": "Average per-bank refresh interval.",
    pbr2pbr = "npbR2pbR": "Per-bank refresh to per-bank refresh.",
    pbr2act = "npbR2act": "Per-bank refresh to ACT1 of another bank.",
    xp = "nXP": "Leaving power-down to the next command.",
    xsr = "nXSR": "Leaving self-refresh to the next command.",
    cspd = "nCSPD": "Shortest power-down.",
    sr = "nSR": "Shortest self-refresh.",
    wck_postamble = "nWCKPST": "WCK keeps running after a burst.",
}

impl Timings {
    /// RD to the end of its data.
    #[must_use]
    pub const fn read_latency(&self) -> u64 {
        self.cl + self.bl_min
    }
    /// RD to WR, any bank group.
    #[must_use]
    pub const fn read_to_write(&self) -> u64 {
        (self.cl + self.bl_min + 2).saturating_sub(self.cwl)
    }
    /// WR to RD of another bank group.
    #[must_use]
    pub const fn write_to_read_other(&self) -> u64 {
        self.cwl + self.bl_min + self.wtr_s
    }
    /// WR to RD of the same bank group.
    #[must_use]
    pub const fn write_to_read_same(&self) -> u64 {
        self.cwl + self.bl_max + self.wtr_l
    }
    /// WR to precharge.
    #[must_use]
    pub const fn write_to_precharge(&self) -> u64 {
        self.cwl + self.bl_min + self.wr
    }

    /// The constraints at `permille` of the nominal CK: rows that JEDEC fixes in nanoseconds shrink with the
    /// clock (rounded up), rows it fixes in CK stay. Latencies follow the clock as the RL and WL tables do.
    #[must_use]
    pub fn at_permille(&self, permille: u32) -> Self {
        let scaled = |ck: u64, least: u64| (ck * u64::from(permille)).div_ceil(1000).max(least);
        let mut t = *self;
        for (row, least) in [
            (&mut t.cl, 4),
            (&mut t.cwl, 2),
            (&mut t.rcd, 2),
            (&mut t.rcd_w, 2),
            (&mut t.rp_pb, 2),
            (&mut t.rp_ab, 2),
            (&mut t.ras, 3),
            (&mut t.wr, 3),
            (&mut t.rtp, 2),
            (&mut t.rrd, 2),
            (&mut t.faw, 8),
            (&mut t.wtr_s, 4),
            (&mut t.wtr_l, 4),
            (&mut t.rfc_ab, 4),
            (&mut t.refi, 16),
            (&mut t.rfc_pb, 4),
            (&mut t.refi_pb, 16),
            (&mut t.pbr2pbr, 2),
            (&mut t.pbr2act, 2),
            (&mut t.xp, 3),
            (&mut t.xsr, 4),
            (&mut t.cspd, 2),
            (&mut t.sr, 2),
        ] {
            *row = scaled(*row, least);
        }
        t.rc = scaled(self.rc, 0).max(t.ras + t.rp_pb);
        t
    }

    fn validate(&self, errors: &mut Vec<StandardError>) {
        let mut check = |ok: bool, message: String| {
            if !ok {
                errors.push(StandardError::Invalid { message });
            }
        };
        for (name, ck) in self.rows() {
            check(ck > 0, format!("timing row `{name}` is zero; every constraint takes at least one CK"));
            let most = match name {
                "nREFI" | "nREFIpb" | "nRFCab" | "nXSR" => MAX_REFRESH_CK,
                "nRFCpb" => MAX_BANK_REFRESH_CK,
                _ => MAX_ROW_CK,
            };
            check(ck <= most, format!("timing row `{name}` = {ck} CK exceeds the model's {most} CK"));
        }
        check(
            self.ras <= self.rc,
            format!("nRAS = {} exceeds nRC = {}; nRC is nRAS + nRPpb", self.ras, self.rc),
        );
        check(
            self.rp_pb <= self.rp_ab,
            format!("nRPpb = {} exceeds nRPab = {}; closing all banks takes longer", self.rp_pb, self.rp_ab),
        );
        check(self.ccd_s <= self.ccd_l, format!("nCCD_S = {} exceeds nCCD_L = {}", self.ccd_s, self.ccd_l));
        check(
            self.bl_min <= self.bl_max,
            format!("nBL_min = {} exceeds nBL_max = {}", self.bl_min, self.bl_max),
        );
        check(self.wtr_s <= self.wtr_l, format!("nWTR_S = {} exceeds nWTR_L = {}", self.wtr_s, self.wtr_l));
        check(self.rrd <= self.faw, format!("nRRD = {} exceeds nFAW = {}", self.rrd, self.faw));
        check(
            self.cl + self.bl_min + 2 > self.cwl,
            format!("nCWL = {} leaves no read-to-write gap after nCL = {}", self.cwl, self.cl),
        );
        check(self.rcd_w <= self.rcd, format!("nRCDw = {} exceeds nRCD = {}", self.rcd_w, self.rcd));
        check(
            self.rfc_pb <= self.rfc_ab,
            format!("nRFCpb = {} exceeds nRFCab = {}; all banks take longer", self.rfc_pb, self.rfc_ab),
        );
        check(
            self.refi_pb > self.pbr2pbr.max(self.rc + self.rp_pb),
            format!("nREFIpb = {} leaves no time between refreshes of banks", self.refi_pb),
        );
        check(
            self.refi > self.rfc_ab + self.rc + self.rp_ab + self.write_to_precharge(),
            format!("nREFI = {} leaves no time between refreshes of nRFCab = {}", self.refi, self.rfc_ab),
        );
    }
}

/// Longest row the engine's calendar of 1024 CK holds: WR to precharge is a sum of three, scaled by up to 1.5.
pub const MAX_ROW_CK: u64 = 200;
/// Longest per-bank refresh; it is on the same calendar.
pub const MAX_BANK_REFRESH_CK: u64 = 600;
/// Longest refresh row.
pub const MAX_REFRESH_CK: u64 = 100_000;

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
    timing: BTreeMap<String, toml::Spanned<RawRow>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRow {
    ck: u64,
    #[serde(rename = "source")]
    _source: String,
}

const KEYS: [&str; 8] =
    ["name", "description", "ck-hz", "density-gbit", "density-source", "timing", "ck", "source"];

/// Names and texts of the built-in standards.
pub const STANDARDS: [(&str, &str); 3] = [
    ("lpddr5-6400", include_str!("../../presets/dram/lpddr5-6400.toml")),
    ("lpddr5x-8533", include_str!("../../presets/dram/lpddr5x-8533.toml")),
    ("lpddr5x-9600", include_str!("../../presets/dram/lpddr5x-9600.toml")),
];

impl Standard {
    /// A built-in standard.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn named(name: &str) -> Result<Self, Vec<StandardError>> {
        match STANDARDS.iter().find(|(n, _)| *n == name) {
            Some((_, text)) => Self::parse(text),
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
        for (key, row) in &raw.timing {
            if !ROWS.contains(&key.as_str()) {
                errors.push(StandardError::UnknownKey {
                    line: line_of(text, row.span().start),
                    key: key.clone(),
                    nearest: nearest(key, ROWS.iter().copied()),
                });
            }
        }
        let timings = Timings::from_rows(&raw.timing, &mut errors);
        if errors.is_empty() {
            timings.validate(&mut errors);
        }
        if !(100_000_000..=4_000_000_000).contains(&raw.ck_hz) {
            let message = format!("ck-hz = {} is outside 100 MHz to 4 GHz", raw.ck_hz);
            errors.push(StandardError::Invalid { message });
        }
        if !(raw.density_gbit.is_power_of_two() && (1..=64).contains(&raw.density_gbit)) {
            let message = format!("density-gbit = {} is not a power of two up to 64", raw.density_gbit);
            errors.push(StandardError::Invalid { message });
        }
        if errors.is_empty() {
            Ok(Self {
                name: raw.name,
                ck: Hertz::new(raw.ck_hz),
                channel_bits: 27 + raw.density_gbit.trailing_zeros(),
                timings,
            })
        } else {
            Err(errors)
        }
    }

    /// Pin bandwidth of one channel in bytes a second: a burst every `nBL_min`.
    #[must_use]
    pub fn peak_bytes_per_s(&self) -> u64 {
        self.ck.get() * super::BURST_BYTES / self.timings.bl_min
    }
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
            assert_eq!(s.name, name);
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
        let without = good.lines().filter(|l| !l.starts_with("nRCD")).collect::<Vec<_>>().join("\n");
        assert_eq!(errors(&without), ["timing row `nRCD` is missing"]);
        let typo = good.replace("nRAS =", "nRSA =");
        assert!(
            errors(&typo)[0].ends_with("unknown key `nRSA`; the nearest is `nRAS`"),
            "{:?}",
            errors(&typo)
        );
        assert_eq!(errors(&typo)[1], "timing row `nRAS` is missing");
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
