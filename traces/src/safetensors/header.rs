//! The header of a safetensors file: eight bytes of length, a JSON object of tensors, then their data.
//!
//! Models: every rule of the format, held strictly: no tensor twice, no unknown key, sizes that follow from shapes, data
//! without holes or overlaps to the end of the file. Does not model: reading element types of less than a byte.
//! Source: the safetensors format as published with it.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};

use crate::workload::{WorkloadError, WorkloadProblem};

/// Longest header, as the format limits it.
const MOST_HEADER: u64 = 100_000_000;
/// Most dimensions.
const MOST_DIMS: usize = 8;

/// How elements are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    /// 32-bit floating point.
    F32,
    /// IEEE half precision.
    F16,
    /// bfloat16.
    Bf16,
    /// Something of this many bytes whose values are not read.
    Other(u64),
}

impl Element {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "F32" => Self::F32,
            "F16" => Self::F16,
            "BF16" => Self::Bf16,
            "F64" | "I64" | "U64" | "C64" => Self::Other(8),
            "I32" | "U32" => Self::Other(4),
            "I16" | "U16" => Self::Other(2),
            "I8" | "U8" | "BOOL" | "F8_E4M3" | "F8_E5M2" | "F8_E8M0" => Self::Other(1),
            _ => return None,
        })
    }

    /// Bytes of an element.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Other(bytes) => bytes,
        }
    }
}

/// A tensor of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Dimensions, the one whose elements follow each other last.
    pub shape: Vec<u64>,
    /// How elements are stored.
    pub element: Element,
    /// First byte in the file.
    pub start: u64,
    /// Bytes.
    pub bytes: u64,
    /// Byte of the file where the header names it.
    pub described_at: u64,
}

impl Entry {
    /// Elements.
    #[must_use]
    pub fn elements(&self) -> u64 {
        self.bytes / self.element.bytes()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: [u64; 2],
}

/// The object as it stands: what a map would lose, names given twice, is still there.
struct Rows(Vec<(String, Raw)>);

impl<'de> Deserialize<'de> for Rows {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Rows;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Rows, A::Error> {
                let (mut rows, mut metadata) = (Vec::new(), false);
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        map.next_value::<BTreeMap<String, String>>()?;
                        if std::mem::replace(&mut metadata, true) {
                            return Err(A::Error::custom("__metadata__ is there twice"));
                        }
                    } else {
                        rows.push((name, map.next_value()?));
                    }
                }
                Ok(Rows(rows))
            }
        }
        from.deserialize_map(All)
    }
}

/// Byte of `text` at serde's line and column, both from 1.
fn byte_at(text: &[u8], line: usize, column: usize) -> u64 {
    let before: usize =
        text.split_inclusive(|b| *b == b'\n').take(line.saturating_sub(1)).map(<[u8]>::len).sum();
    (before + column.saturating_sub(1)).min(text.len()) as u64
}

fn find(text: &[u8], name: &str) -> u64 {
    let quoted = serde_json::Value::from(name).to_string();
    text.windows(quoted.len()).position(|w| w == quoted.as_bytes()).unwrap_or(0) as u64
}

/// Reads the header of a file of `len` bytes; `place` names it in messages.
///
/// # Errors
/// The first thing that is wrong, with its byte and field.
pub fn read(mut input: impl Read, len: u64, place: &str) -> Result<BTreeMap<String, Entry>, WorkloadError> {
    let bad = |at: u64, field: &str, message: String| {
        WorkloadError::from(WorkloadProblem::new(format!("{place} byte {at}"), field, message))
    };
    let mut word = [0; 8];
    if len < 8 {
        return Err(bad(0, "header length", format!("expected 8 bytes, the file has {len}")));
    }
    input
        .read_exact(&mut word)
        .map_err(|e| bad(0, "header length", format!("cannot be read: {}", e.kind())))?;
    let count = u64::from_le_bytes(word);
    let room = (len - 8).min(MOST_HEADER);
    let (Ok(size), true) = (usize::try_from(count), (2..=room).contains(&count)) else {
        return Err(bad(0, "header length", format!("expected 2 to {room} in this file, found {count}")));
    };
    let mut text = vec![0; size];
    input.read_exact(&mut text).map_err(|e| bad(8, "header", format!("cannot be read: {}", e.kind())))?;
    if text[0] != b'{' {
        return Err(bad(8, "header", "expected `{`".to_owned()));
    }
    let Rows(rows) = serde_json::from_slice(&text)
        .map_err(|e| bad(8 + byte_at(&text, e.line(), e.column()), "header", e.to_string()))?;
    let data = 8 + count;
    let mut out = BTreeMap::new();
    for (name, raw) in rows {
        let at = 8 + find(&text, &name);
        let entry =
            entry(&raw, at, (data, len)).map_err(|(field, why)| bad(at, &format!("{name}: {field}"), why))?;
        if out.insert(name.clone(), entry).is_some() {
            return Err(bad(at, &name, "is there twice".to_owned()));
        }
    }
    covered(&out, data, len).map_err(|(at, name, why)| bad(at, &format!("{name}: data_offsets"), why))?;
    Ok(out)
}

fn entry(raw: &Raw, at: u64, (data, len): (u64, u64)) -> Result<Entry, (&'static str, String)> {
    let Some(element) = Element::named(&raw.dtype) else {
        return Err(("dtype", format!("`{}` is no type that is known", raw.dtype.escape_debug())));
    };
    let [from, to] = raw.data_offsets;
    if from > to || to > len - data {
        return Err((
            "data_offsets",
            format!("expected a range within 0 to {}, found {from} to {to}", len - data),
        ));
    }
    let elements = raw.shape.iter().try_fold(1u64, |n, d| n.checked_mul(*d));
    let bytes = elements.and_then(|n| n.checked_mul(element.bytes()));
    if raw.shape.len() > MOST_DIMS || bytes != Some(to - from) {
        let message = format!("{:?} of {} do not take the {} bytes given", raw.shape, raw.dtype, to - from);
        return Err(("shape", message));
    }
    Ok(Entry { shape: raw.shape.clone(), element, start: data + from, bytes: to - from, described_at: at })
}

/// Data must follow each other without a gap, from the header to the end.
fn covered(entries: &BTreeMap<String, Entry>, data: u64, len: u64) -> Result<(), (u64, String, String)> {
    let mut order: Vec<(&String, &Entry)> = entries.iter().collect();
    order.sort_by_key(|(name, e)| (e.start, e.bytes, *name));
    let mut at = data;
    for (name, e) in order {
        if e.start != at {
            let what = if e.start < at { "overlap those before" } else { "leave a hole before them" };
            let message =
                format!("expected to start at {}, found {}: they {what}", at - data, e.start - data);
            return Err((e.described_at, name.clone(), message));
        }
        at += e.bytes;
    }
    if at == len {
        Ok(())
    } else {
        Err((0, "last tensor".to_owned(), format!("{} bytes behind the tensors belong to none", len - at)))
    }
}
