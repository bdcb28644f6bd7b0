//! The structure of a GGUF file: header, metadata, tensor table.
//!
//! Models: versions 2 and 3, little-endian. Does not model: version 1, big-endian files, files in several pieces.
//! Source: the GGUF specification as published with ggml.
//!
//! A file is not trusted: every count is held against the bytes that are left before anything is allocated.

use std::collections::BTreeMap;
use std::io::Read;

use super::blocks::{TensorType, type_names, type_of};
use crate::workload::{WorkloadError, WorkloadProblem};

/// Longest string.
const MOST_TEXT: u64 = 1 << 24;
/// Most elements of all arrays together: vocabularies have some hundred thousand.
const MOST_ELEMENTS: u64 = 1 << 23;
/// Most tensors.
const MOST_TENSORS: u64 = 1 << 20;
/// Fewest bytes of a metadata entry and of a tensor's row.
const LEAST_ENTRY: u64 = 13;
const LEAST_TENSOR: u64 = 32;

/// A metadata value; integers of every width are one kind.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Unsigned integer.
    Unsigned(u64),
    /// Signed integer.
    Signed(i64),
    /// Floating point.
    Float(f64),
    /// Truth value.
    Bool(bool),
    /// Text.
    Text(String),
    /// Values of one type.
    Array(Vec<Value>),
}

impl Value {
    /// The value as an unsigned integer, if it is one.
    #[must_use]
    pub fn unsigned(&self) -> Option<u64> {
        match self {
            Self::Unsigned(v) => Some(*v),
            Self::Signed(v) => u64::try_from(*v).ok(),
            _ => None,
        }
    }
}

/// A row of the tensor table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Dimensions, the one whose elements follow each other first.
    pub dims: Vec<u64>,
    /// How elements are stored.
    pub kind: &'static TensorType,
    /// First byte in the file.
    pub start: u64,
    /// Bytes.
    pub bytes: u64,
    /// Byte of the file where the row is.
    pub described_at: u64,
}

impl TensorInfo {
    /// Elements.
    #[must_use]
    pub fn elements(&self) -> u64 {
        self.dims.iter().product()
    }
}

/// What a file says about itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Contents {
    /// Metadata by key.
    pub metadata: BTreeMap<String, Value>,
    /// Tensors by name.
    pub tensors: BTreeMap<String, TensorInfo>,
    /// Byte of the file where each metadata entry is.
    pub described_at: BTreeMap<String, u64>,
}

impl Contents {
    /// The file and the byte where a metadata entry is, or the file where it is not there.
    #[must_use]
    pub fn place_of(&self, file: &str, key: &str) -> String {
        self.described_at.get(key).map_or_else(|| file.to_owned(), |at| format!("{file} byte {at}"))
    }
}

struct Reader<R> {
    inner: R,
    at: u64,
    len: u64,
    elements: u64,
    place: String,
}

impl<R: Read> Reader<R> {
    fn bad<T>(&self, at: u64, field: &str, message: impl std::fmt::Display) -> Result<T, WorkloadError> {
        Err(WorkloadProblem::new(format!("{} byte {at}", self.place), field, message.to_string()).into())
    }

    fn left(&self) -> u64 {
        self.len.saturating_sub(self.at)
    }

    fn bytes(&mut self, count: u64, field: &str) -> Result<Vec<u8>, WorkloadError> {
        let (Ok(size), true) = (usize::try_from(count), count <= self.left()) else {
            let left = self.left();
            return self.bad(self.at, field, format!("expected {count} bytes, the file has {left} more"));
        };
        let mut out = vec![0; size];
        if let Err(e) = self.inner.read_exact(&mut out) {
            return self.bad(self.at, field, format!("cannot be read: {}", e.kind()));
        }
        self.at += count;
        Ok(out)
    }

    fn word<const N: usize>(&mut self, field: &str) -> Result<[u8; N], WorkloadError> {
        let (left, at) = (self.left(), self.at);
        if (N as u64) > left {
            return self.bad(at, field, format!("expected {N} bytes, the file has {left} more"));
        }
        let mut out = [0; N];
        if let Err(e) = self.inner.read_exact(&mut out) {
            return self.bad(at, field, format!("cannot be read: {}", e.kind()));
        }
        self.at += N as u64;
        Ok(out)
    }

    fn u32(&mut self, field: &str) -> Result<u32, WorkloadError> {
        self.word(field).map(u32::from_le_bytes)
    }

    fn u64(&mut self, field: &str) -> Result<u64, WorkloadError> {
        self.word(field).map(u64::from_le_bytes)
    }

    /// A count of things of at least `least` bytes each.
    fn count(&mut self, field: &str, least: u64, most: u64) -> Result<u64, WorkloadError> {
        let at = self.at;
        let count = self.u64(field)?;
        let room = (self.left() / least).min(most);
        if count > room {
            return self.bad(at, field, format!("expected at most {room} in this file, found {count}"));
        }
        Ok(count)
    }

    fn text(&mut self, field: &str) -> Result<String, WorkloadError> {
        let at = self.at;
        let count = self.count(field, 1, MOST_TEXT)?;
        match String::from_utf8(self.bytes(count, field)?) {
            Ok(text) => Ok(text),
            Err(_) => self.bad(at, field, "expected UTF-8"),
        }
    }

    fn value(&mut self, code: u32, field: &str, depth: u32) -> Result<Value, WorkloadError> {
        let at = self.at;
        Ok(match code {
            0 => Value::Unsigned(u8::from_le_bytes(self.word(field)?).into()),
            1 => Value::Signed(i8::from_le_bytes(self.word(field)?).into()),
            2 => Value::Unsigned(u16::from_le_bytes(self.word(field)?).into()),
            3 => Value::Signed(i16::from_le_bytes(self.word(field)?).into()),
            4 => Value::Unsigned(self.u32(field)?.into()),
            5 => Value::Signed(i32::from_le_bytes(self.word(field)?).into()),
            6 => Value::Float(f32::from_le_bytes(self.word(field)?).into()),
            7 => match self.word::<1>(field)? {
                [0] => Value::Bool(false),
                [1] => Value::Bool(true),
                [other] => return self.bad(at, field, format!("expected 0 or 1, found {other}")),
            },
            8 => Value::Text(self.text(field)?),
            9 if depth < 2 => self.array(field, depth)?,
            9 => return self.bad(at, field, "arrays are nested too deeply"),
            10 => Value::Unsigned(self.u64(field)?),
            11 => Value::Signed(i64::from_le_bytes(self.word(field)?)),
            12 => Value::Float(f64::from_le_bytes(self.word(field)?)),
            other => {
                return self.bad(at, field, format!("expected a value type from 0 to 12, found {other}"));
            }
        })
    }

    fn array(&mut self, field: &str, depth: u32) -> Result<Value, WorkloadError> {
        let code = self.u32(field)?;
        let at = self.at;
        let least = [1, 1, 2, 2, 4, 4, 4, 1, 8, 12, 8, 8, 8];
        let least = usize::try_from(code).ok().and_then(|c| least.get(c)).copied().unwrap_or(1);
        let count = self.count(field, least, MOST_ELEMENTS)?;
        self.elements += count;
        if self.elements > MOST_ELEMENTS {
            return self.bad(at, field, format!("more than {MOST_ELEMENTS} array elements in one file"));
        }
        (0..count).map(|_| self.value(code, field, depth + 1)).collect::<Result<_, _>>().map(Value::Array)
    }

    /// Values by key, and where each entry is.
    #[allow(clippy::type_complexity, reason = "taken apart by its only caller")]
    fn metadata(
        &mut self,
        count: u64,
    ) -> Result<(BTreeMap<String, Value>, BTreeMap<String, u64>), WorkloadError> {
        let (mut out, mut places) = (BTreeMap::new(), BTreeMap::new());
        for i in 0..count {
            let at = self.at;
            let key = self.text(&format!("metadata key {i}"))?;
            let code = self.u32(&key)?;
            let value = self.value(code, &key, 0)?;
            if out.insert(key.clone(), value).is_some() {
                return self.bad(at, &key, "is there twice");
            }
            places.insert(key, at);
        }
        Ok((out, places))
    }

    /// One row; `start` is still counted from the first tensor's data.
    fn tensor(&mut self, name: &str, at: u64, alignment: u64) -> Result<TensorInfo, WorkloadError> {
        let rank_at = self.at;
        let rank = self.u32(name)?;
        if !(1..=4).contains(&rank) {
            return self.bad(rank_at, name, format!("expected 1 to 4 dimensions, found {rank}"));
        }
        let dims_at = self.at;
        let dims: Vec<u64> = (0..rank).map(|_| self.u64(name)).collect::<Result<_, _>>()?;
        let type_at = self.at;
        let code = self.u32(name)?;
        let offset_at = self.at;
        let offset = self.u64(name)?;
        let Some(kind) = type_of(code) else {
            return self.bad(type_at, name, format!("expected a type of {}, found {code}", type_names()));
        };
        let elements = dims.iter().try_fold(1u64, |n, d| n.checked_mul(*d)).filter(|n| *n > 0);
        let Some(elements) = elements.filter(|n| *n < 1 << 48) else {
            return self.bad(dims_at, name, format!("dimensions {dims:?} are none a tensor can have"));
        };
        if !dims[0].is_multiple_of(kind.elements) {
            let message = format!("rows of {} are no multiple of {}'s {}", dims[0], kind.name, kind.elements);
            return self.bad(dims_at, name, message);
        }
        if !offset.is_multiple_of(alignment) {
            return self.bad(
                offset_at,
                name,
                format!("expected an offset aligned to {alignment}, found {offset}"),
            );
        }
        let bytes = elements / kind.elements * kind.bytes;
        Ok(TensorInfo { dims, kind, start: offset, bytes, described_at: at })
    }

    fn tensors(&mut self, count: u64, alignment: u64) -> Result<BTreeMap<String, TensorInfo>, WorkloadError> {
        let mut out = BTreeMap::new();
        for i in 0..count {
            let at = self.at;
            let name = self.text(&format!("name of tensor {i}"))?;
            let info = self.tensor(&name, at, alignment)?;
            if out.insert(name.clone(), info).is_some() {
                return self.bad(at, &name, "is there twice");
            }
        }
        let data = self.at.div_ceil(alignment) * alignment;
        for (name, info) in &mut out {
            let end = data.checked_add(info.start).and_then(|s| s.checked_add(info.bytes));
            if end.is_none_or(|end| end > self.len) {
                let message = format!(
                    "its {} bytes at offset {} from byte {data} leave the file of {} bytes",
                    info.bytes, info.start, self.len
                );
                return self.bad(info.described_at, name, message);
            }
            info.start += data;
        }
        self.overlaps(&out)?;
        Ok(out)
    }

    fn overlaps(&self, tensors: &BTreeMap<String, TensorInfo>) -> Result<(), WorkloadError> {
        let mut order: Vec<(&String, &TensorInfo)> = tensors.iter().collect();
        order.sort_by_key(|(_, info)| info.start);
        for pair in order.windows(2) {
            let ((first, a), (second, b)) = (pair[0], pair[1]);
            if a.start + a.bytes > b.start {
                return self.bad(b.described_at, second, format!("its data overlaps {first}'s"));
            }
        }
        Ok(())
    }
}

/// Reads everything before the tensors' data. `len` is the file's length, `place` its name in messages.
///
/// # Errors
/// The first thing that is wrong, with its byte and field.
pub fn read(input: impl Read, len: u64, place: &str) -> Result<Contents, WorkloadError> {
    let mut r = Reader { inner: input, at: 0, len, elements: 0, place: place.to_owned() };
    if r.word::<4>("magic")? != *b"GGUF" {
        return r.bad(0, "magic", "expected `GGUF`");
    }
    match r.u32("version")? {
        2 | 3 => {}
        v if (2..=3).contains(&v.swap_bytes()) => {
            return r.bad(4, "version", "big-endian files cannot be read");
        }
        other => return r.bad(4, "version", format!("expected 2 or 3, found {other}")),
    }
    let tensors = r.count("tensor count", LEAST_TENSOR, MOST_TENSORS)?;
    let entries = r.count("metadata count", LEAST_ENTRY, MOST_ELEMENTS)?;
    let (metadata, described_at) = r.metadata(entries)?;
    let alignment = match metadata.get("general.alignment") {
        None => 32,
        Some(value) => match value.unsigned() {
            Some(a) if a.is_power_of_two() && (8..=1 << 16).contains(&a) => a,
            _ => {
                let at = described_at.get("general.alignment").copied().unwrap_or(r.at);
                return r.bad(at, "general.alignment", "expected a power of two from 8 to 65536");
            }
        },
    };
    let tensors = r.tensors(tensors, alignment)?;
    Ok(Contents { metadata, tensors, described_at })
}
