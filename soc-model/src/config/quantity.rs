//! Quantities as people write them ("3.9 GHz", "1.5 MiB") turned into exact integers, never through a float.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};

/// A family of units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// In hertz.
    Frequency,
    /// In bytes.
    Size,
    /// In millivolts.
    Voltage,
    /// In thousandths of a degree Celsius.
    Temperature,
    /// In thousandths.
    Ratio,
    /// In bytes a second.
    Bandwidth,
}

impl Unit {
    const ALL: [Self; 6] =
        [Self::Frequency, Self::Size, Self::Voltage, Self::Temperature, Self::Ratio, Self::Bandwidth];

    /// Name used as `format` in the JSON Schema.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Frequency => "frequency",
            Self::Size => "size",
            Self::Voltage => "voltage",
            Self::Temperature => "temperature",
            Self::Ratio => "ratio",
            Self::Bandwidth => "bandwidth",
        }
    }

    /// The unit whose schema format is `name`.
    #[must_use]
    pub fn of_format(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|unit| unit.name() == name)
    }

    /// What a value must look like.
    #[must_use]
    pub const fn expects(self) -> &'static str {
        match self {
            Self::Frequency => "a frequency with its unit (Hz, kHz, MHz, GHz), such as \"1.2 GHz\"",
            Self::Size => "a size with its unit (B, KiB, MiB, GiB), such as \"1.5 MiB\"",
            Self::Voltage => "a voltage with its unit (mV, V), such as \"0.75 V\"",
            Self::Temperature => "a temperature such as \"45 C\"",
            Self::Ratio => "a ratio such as 0.8 or \"80 %\", in steps of a thousandth",
            Self::Bandwidth => "a bandwidth with its unit (kB/s, MB/s, GB/s), such as \"20 GB/s\"",
        }
    }

    const fn suffixes(self) -> &'static [(&'static str, u64)] {
        match self {
            Self::Frequency => &[("GHz", 1_000_000_000), ("MHz", 1_000_000), ("kHz", 1_000), ("Hz", 1)],
            Self::Size => &[("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("B", 1)],
            Self::Voltage => &[("mV", 1), ("V", 1_000)],
            Self::Temperature => &[("°C", 1_000), ("C", 1_000)],
            Self::Ratio => &[("%", 10), ("", 1_000)],
            Self::Bandwidth => &[("GB/s", 1_000_000_000), ("MB/s", 1_000_000), ("kB/s", 1_000)],
        }
    }

    /// Parses a written quantity into the integer unit; `None` if it is not one or is not a whole number of it.
    #[must_use]
    pub fn parse(self, text: &str) -> Option<u64> {
        let text = text.trim();
        let (number, scale) =
            self.suffixes().iter().find_map(|(suffix, scale)| Some((text.strip_suffix(suffix)?, *scale)))?;
        scaled(number.trim_end(), scale)
    }

    /// Parses a TOML value: a string, or a bare number where the unit has none.
    #[must_use]
    pub fn parse_value(self, value: &toml::Value) -> Option<u64> {
        match (self, value) {
            (_, toml::Value::String(text)) => self.parse(text),
            (Self::Ratio, toml::Value::Integer(n)) => u64::try_from(*n).ok()?.checked_mul(1_000),
            (Self::Ratio, toml::Value::Float(f)) => self.parse(&f.to_string()),
            _ => None,
        }
    }
}

/// `text` as a decimal number times `scale`, if that is a whole number.
fn scaled(text: &str, scale: u64) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if whole.is_empty() || text.ends_with('.') || whole.len() + fraction.len() > 24 {
        return None;
    }
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) {
        return None;
    }
    let mantissa: u128 = format!("{whole}{fraction}").parse().ok()?;
    let product = mantissa.checked_mul(u128::from(scale))?;
    let divisor = 10u128.pow(u32::try_from(fraction.len()).ok()?);
    if product % divisor != 0 {
        return None;
    }
    u64::try_from(product / divisor).ok()
}

macro_rules! written {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name(pub u64);

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let value = toml::Value::deserialize(deserializer)?;
                let unit = Unit::$name;
                unit.parse_value(&value)
                    .map(Self)
                    .ok_or_else(|| serde::de::Error::custom(format!("expected {}", unit.expects())))
            }
        }

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                let unit = Unit::$name;
                if unit == Unit::Ratio {
                    json_schema!({ "type": ["number", "string"], "format": unit.name() })
                } else {
                    json_schema!({ "type": "string", "format": unit.name() })
                }
            }
        }
    };
}

written!(
    /// Hertz, written "1.2 GHz".
    Frequency);
written!(
    /// Bytes, written "1.5 MiB".
    Size);
written!(
    /// Millivolts, written "0.75 V".
    Voltage);
written!(
    /// Thousandths of a degree Celsius, written "45 C".
    Temperature);
written!(
    /// Thousandths, written 0.8 or "80 %".
    Ratio);
written!(
    /// Bytes a second, written "20 GB/s".
    Bandwidth);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_quantities_are_exact() {
        assert_eq!(Unit::Frequency.parse("0.895 GHz"), Some(895_000_000));
        assert_eq!(Unit::Frequency.parse("3.9GHz"), Some(3_900_000_000));
        assert_eq!(Unit::Size.parse("1.5 MiB"), Some(1_572_864));
        assert_eq!(Unit::Voltage.parse("0.75 V"), Some(750));
        assert_eq!(Unit::Voltage.parse("750 mV"), Some(750));
        assert_eq!(Unit::Temperature.parse("45 C"), Some(45_000));
        assert_eq!(Unit::Ratio.parse("80 %"), Some(800));
        assert_eq!(Unit::Bandwidth.parse("12.5 GB/s"), Some(12_500_000_000));
        assert_eq!(Unit::Ratio.parse_value(&toml::Value::Float(0.85)), Some(850));
        assert_eq!(Unit::Ratio.parse_value(&toml::Value::Integer(1)), Some(1000));
    }

    #[test]
    fn what_is_not_a_whole_number_of_the_unit_is_refused() {
        for text in [
            "",
            "GHz",
            "1",
            "1.5.2 GHz",
            "-1 GHz",
            "1e9 Hz",
            "0.1 Hz",
            "1. GHz",
            ".5 GHz",
            "1 GB",
            "9999999999999999999999 GHz",
        ] {
            assert_eq!(Unit::Frequency.parse(text), None, "{text}");
        }
        assert_eq!(Unit::Size.parse("0.3 B"), None);
        assert_eq!(Unit::Ratio.parse_value(&toml::Value::Float(0.0001)), None);
        assert_eq!(Unit::Ratio.parse_value(&toml::Value::Float(f64::NAN)), None);
    }
}
