//! How GGUF stores a tensor's elements, and what they stand for.
//!
//! Models: plain formats, blocks of 32 with a scale (and an offset), superblocks of 256 with scales of scales.
//! Does not model: codebook formats, blocks of less than four bits.
//! Source: the block layouts as published with ggml.

use half::{bf16, f16};

use crate::image::Coded;
use crate::workload::{TensorFormat, WeightQuant};

/// A way to store elements.
#[derive(Debug)]
pub struct TensorType {
    /// Code in files.
    pub code: u32,
    /// Name.
    pub name: &'static str,
    /// Names of a scheme whose matrices are mostly of this type: with fp16 activations, with int8 ones in blocks of
    /// 32, and of 16.
    pub schemes: [&'static str; 3],
    /// Elements of a block.
    pub elements: u64,
    /// Bytes of a block.
    pub bytes: u64,
    read: Read,
}

impl PartialEq for TensorType {
    fn eq(&self, other: &Self) -> bool {
        self.code == other.code
    }
}

impl Eq for TensorType {}

/// How a block is read.
#[derive(Debug)]
enum Read {
    /// Its size alone is known.
    No,
    /// A float.
    Float(TensorFormat, fn(&[u8]) -> f32),
    /// Appends codes, scales and minima.
    Codes(Kind, fn(&[u8], &mut Coded)),
}

/// What codes are.
#[derive(Clone, Copy, Debug)]
struct Kind {
    format: TensorFormat,
    group: u32,
    wide: bool,
    minimum: bool,
}

impl Kind {
    /// Groups of 32 with fp16 scales.
    const fn of_32(format: TensorFormat) -> Self {
        Self { format, group: 32, wide: false, minimum: false }
    }

    const fn with_minima(self) -> Self {
        Self { minimum: true, ..self }
    }

    /// fp32 scales: products of fp16 and six or eight bits.
    const fn wide(self) -> Self {
        Self { wide: true, ..self }
    }
}

const INT4: Kind = Kind::of_32(TensorFormat::Int4);
const UINT4: Kind = Kind::of_32(TensorFormat::Uint4);
const INT8: Kind = Kind::of_32(TensorFormat::Int8);

macro_rules! types {
    ($( $code:literal $name:literal $scheme:literal $elements:literal $bytes:literal $read:expr );* $(;)?) => {
        /// The types whose sizes are known; of some no more than that.
        static TYPES: &[TensorType] = &[$(
            TensorType {
                code: $code,
                name: $name,
                schemes: [$scheme, concat!($scheme, "-a8-g32"), concat!($scheme, "-a8-g16")],
                elements: $elements,
                bytes: $bytes,
                read: $read,
            }
        ),*];
    };
}

types! {
    0 "F32" "gguf-f32" 1 4 Read::Float(TensorFormat::Fp16, |b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    1 "F16" "gguf-f16" 1 2 Read::Float(TensorFormat::Fp16, |b| fp16(b, 0));
    2 "Q4_0" "gguf-q4_0" 32 18 Read::Codes(INT4, q4_0);
    3 "Q4_1" "gguf-q4_1" 32 20 Read::Codes(UINT4.with_minima(), q4_1);
    6 "Q5_0" "gguf-q5_0" 32 22 Read::Codes(INT8, q5_0);
    7 "Q5_1" "gguf-q5_1" 32 24 Read::Codes(INT8.with_minima(), q5_1);
    8 "Q8_0" "gguf-q8_0" 32 34 Read::Codes(INT8, q8_0);
    10 "Q2_K" "gguf-q2_k" 256 84 Read::No;
    11 "Q3_K" "gguf-q3_k" 256 110 Read::No;
    12 "Q4_K" "gguf-q4_k" 256 144 Read::Codes(UINT4.wide().with_minima(), q4_k);
    13 "Q5_K" "gguf-q5_k" 256 176 Read::Codes(INT8.wide().with_minima(), q5_k);
    14 "Q6_K" "gguf-q6_k" 256 210 Read::Codes(Kind { group: 16, ..INT8.wide() }, q6_k);
    24 "I8" "gguf-i8" 1 1 Read::No;
    25 "I16" "gguf-i16" 1 2 Read::No;
    26 "I32" "gguf-i32" 1 4 Read::No;
    30 "BF16" "gguf-bf16" 1 2 Read::Float(TensorFormat::Bf16, |b| bf16::from_le_bytes([b[0], b[1]]).to_f32());
}

/// The type of that code, if its size is known.
#[must_use]
pub fn type_of(code: u32) -> Option<&'static TensorType> {
    TYPES.iter().find(|t| t.code == code)
}

/// Names and codes of the types that are read.
#[must_use]
pub fn type_names() -> String {
    let names: Vec<String> = TYPES.iter().map(|t| format!("{} ({})", t.name, t.code)).collect();
    names.join(", ")
}

impl TensorType {
    /// Whether values can be decoded.
    #[must_use]
    pub const fn decodes(&self) -> bool {
        !matches!(self.read, Read::No)
    }

    /// How the image stores a matrix of this type: nothing of it rounded, fp32 excepted, which becomes fp16.
    #[must_use]
    pub const fn stored(&self) -> WeightQuant {
        match self.read {
            Read::Codes(Kind { format, group, wide, minimum }, _) => {
                WeightQuant::Coded { format, group, wide, minimum }
            }
            Read::Float(format, _) => WeightQuant::Plain(format),
            Read::No => WeightQuant::Plain(TensorFormat::Fp16),
        }
    }

    fn blocks<'a>(&self, bytes: &'a [u8]) -> std::slice::ChunksExact<'a, u8> {
        bytes.chunks_exact(usize::try_from(self.bytes).expect("a block is small"))
    }

    /// Codes of whole blocks; `None` of floats and of types that cannot be decoded.
    #[must_use]
    pub fn codes(&self, bytes: &[u8]) -> Option<Coded> {
        let Read::Codes(kind, read) = self.read else { return None };
        let group = usize::try_from(kind.group).expect("a group is small");
        let mut out = Coded { group, ..Coded::default() };
        let blocks = self.blocks(bytes);
        let codes = blocks.len() * usize::try_from(self.elements).expect("a block is small");
        out.codes.reserve(codes);
        out.scales.reserve(codes / group);
        out.minima.reserve(if kind.minimum { codes / group } else { 0 });
        blocks.for_each(|block| read(block, &mut out));
        Some(out)
    }

    /// Values of whole blocks; none if the type cannot be decoded.
    #[must_use]
    pub fn values(&self, bytes: &[u8]) -> Vec<f32> {
        match self.read {
            Read::No => Vec::new(),
            Read::Float(_, read) => self.blocks(bytes).map(read).collect(),
            Read::Codes(..) => self.codes(bytes).map(|coded| coded.values()).unwrap_or_default(),
        }
    }
}

fn fp16(b: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([b[at], b[at + 1]]).to_f32()
}

/// The codes of 16 bytes of nibbles, less `zero`.
fn halves(bytes: &[u8], zero: i8) -> [i8; 32] {
    let mut out = [0; 32];
    let (low, high) = out.split_at_mut(16);
    for ((low, high), b) in low.iter_mut().zip(high).zip(bytes) {
        (*low, *high) = (less(b & 15, zero), less(b >> 4, zero));
    }
    out
}

/// Low nibbles are the first half of a block, high ones the second.
fn nibbles(bytes: &[u8]) -> impl Iterator<Item = u8> + '_ {
    bytes.iter().map(|b| b & 15).chain(bytes.iter().map(|b| b >> 4))
}

/// A code of few bits less `zero`.
fn less(code: u8, zero: i8) -> i8 {
    code.cast_signed() - zero
}

fn q4_0(b: &[u8], out: &mut Coded) {
    out.scales.push(fp16(b, 0));
    out.codes.extend_from_slice(&halves(&b[2..18], 8));
}

fn q4_1(b: &[u8], out: &mut Coded) {
    out.scales.push(fp16(b, 0));
    out.minima.push(fp16(b, 2));
    out.codes.extend_from_slice(&halves(&b[4..20], 0));
}

/// Nibbles with a fifth bit each from `high`.
fn fives<'a>(high: &'a [u8], low: &'a [u8]) -> impl Iterator<Item = u8> + 'a {
    nibbles(low).enumerate().map(|(i, q)| q | (high[i / 8] >> (i % 8) & 1) << 4)
}

fn q5_0(b: &[u8], out: &mut Coded) {
    out.scales.push(fp16(b, 0));
    out.codes.extend(fives(&b[2..6], &b[6..22]).map(|q| less(q, 16)));
}

fn q5_1(b: &[u8], out: &mut Coded) {
    out.scales.push(fp16(b, 0));
    out.minima.push(fp16(b, 2));
    out.codes.extend(fives(&b[4..8], &b[8..24]).map(u8::cast_signed));
}

fn q8_0(b: &[u8], out: &mut Coded) {
    out.scales.push(fp16(b, 0));
    out.codes.extend(b[2..34].iter().map(|q| q.cast_signed()));
}

/// Six-bit scale and offset of the `j`-th 32 elements of a superblock, packed in twelve bytes.
fn scale_and_offset(packed: &[u8], j: usize) -> (f32, f32) {
    let (scale, offset) = if j < 4 {
        (packed[j] & 63, packed[j + 4] & 63)
    } else {
        (packed[j + 4] & 15 | packed[j - 4] >> 6 << 4, packed[j + 4] >> 4 | packed[j] >> 6 << 4)
    };
    (f32::from(scale), f32::from(offset))
}

/// Scale and minimum of the `j`-th 32 elements; both products are exact in fp32.
fn superblock(b: &[u8], j: usize, out: &mut Coded) {
    let (scale, offset) = scale_and_offset(&b[4..16], j);
    out.scales.push(fp16(b, 0) * scale);
    out.minima.push(-(fp16(b, 2) * offset));
}

fn q4_k(b: &[u8], out: &mut Coded) {
    for (pair, codes) in b[16..144].chunks_exact(32).enumerate() {
        for half in 0..2 {
            superblock(b, 2 * pair + half, out);
            out.codes.extend(codes.iter().map(|q| (q >> (4 * half) & 15).cast_signed()));
        }
    }
}

fn q5_k(b: &[u8], out: &mut Coded) {
    let high = &b[16..48];
    for (pair, codes) in b[48..176].chunks_exact(32).enumerate() {
        for half in 0..2 {
            let j = 2 * pair + half;
            superblock(b, j, out);
            let codes = codes.iter().zip(high).map(|(q, h)| q >> (4 * half) & 15 | (h >> j & 1) << 4);
            out.codes.extend(codes.map(u8::cast_signed));
        }
    }
}

fn q6_k(b: &[u8], out: &mut Coded) {
    let d = fp16(b, 208);
    let (low, high, scales) = (&b[..128], &b[128..192], &b[192..208]);
    out.scales.extend(scales.iter().map(|s| d * f32::from(s.cast_signed())));
    for i in 0..256 {
        // Each half of 128: four runs of 32, whose low bits share 64 bytes and high bits 32.
        let (half, run, l) = (i / 128, i % 128 / 32, i % 32);
        let nibble = low[half * 64 + run % 2 * 32 + l] >> (run / 2 * 4) & 15;
        let code = nibble | (high[half * 32 + l] >> (2 * run) & 3) << 4;
        out.codes.push(less(code, 32));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: [u8; 2] = [0x00, 0x3C];
    const TWO: [u8; 2] = [0x00, 0x40];

    fn values(name: &str, block: &[u8]) -> Vec<f32> {
        let kind = TYPES.iter().find(|t| t.name == name).expect("a type");
        assert_eq!(block.len() as u64, kind.bytes, "{name}");
        let out = kind.values(block);
        assert_eq!(out.len() as u64, kind.elements, "{name}");
        out
    }

    #[allow(clippy::float_cmp, reason = "small integers are exact")]
    fn check(name: &str, block: &[u8], expected: impl Fn(usize) -> f32) {
        for (i, value) in values(name, block).into_iter().enumerate() {
            assert_eq!(value, expected(i), "{name} element {i}");
        }
    }

    fn small(i: usize) -> f32 {
        f32::from(u16::try_from(i).expect("small"))
    }

    /// Codes 0..16 in the low nibbles, 15..0 in the high ones.
    fn ramp() -> Vec<u8> {
        (0..16u8).map(|i| i | (15 - i) << 4).collect()
    }

    fn ramp_value(i: usize) -> f32 {
        if i < 16 { small(i) } else { small(31 - i) }
    }

    #[test]
    fn blocks_of_32() {
        check("Q4_0", &[&TWO[..], &ramp()].concat(), |i| 2.0 * (ramp_value(i) - 8.0));
        check("Q4_1", &[&TWO[..], &ONE, &ramp()].concat(), |i| 2.0 * ramp_value(i) + 1.0);
        // The fifth bit is set for elements 0 and 31.
        let high = [1, 0, 0, 0x80];
        let five = |i| ramp_value(i) + if i == 0 || i == 31 { 16.0 } else { 0.0 };
        check("Q5_0", &[&TWO[..], &high, &ramp()].concat(), |i| 2.0 * (five(i) - 16.0));
        check("Q5_1", &[&TWO[..], &ONE, &high, &ramp()].concat(), |i| 2.0 * five(i) + 1.0);
        let signed: Vec<u8> = (0..32i8).map(|i| (i - 16).cast_unsigned()).collect();
        check("Q8_0", &[&TWO[..], &signed].concat(), |i| 2.0 * (small(i) - 16.0));
    }

    #[test]
    fn superblocks() {
        // Scales 1 to 4, then 17 + 16 * 1.., to reach both packings; offsets 5 to 8, then 2.
        let mut packed = [0u8; 12];
        for j in 0..4u8 {
            packed[usize::from(j)] = (j + 1) | 1 << 6;
            packed[usize::from(j) + 4] = (j + 5) | 2 << 6;
            packed[usize::from(j) + 8] = j | 3 << 4;
        }
        let scale = |i: usize| if i < 128 { small(i / 32 + 1) } else { small(i / 32 - 4 + 16) };
        let offset = |i: usize| if i < 128 { small(i / 32 + 5) } else { 3.0 + 32.0 };
        // Codes 0..16 twice: low nibbles the same as high ones.
        let codes: Vec<u8> = (0..128u8).map(|i| i % 16 * 17).collect();
        let code = |i: usize| small(i % 16);
        check("Q4_K", &[&ONE[..], &TWO, &packed, &codes].concat(), |i| scale(i) * code(i) - 2.0 * offset(i));
        // Bit j of every high byte belongs to the j-th 32 elements: set for the second and the last.
        let high = [0x82; 32];
        let five = |i: usize| code(i) + if i / 32 == 1 || i / 32 == 7 { 16.0 } else { 0.0 };
        let block = [&ONE[..], &TWO, &packed, &high, &codes].concat();
        check("Q5_K", &block, |i| scale(i) * five(i) - 2.0 * offset(i));
        // High bits 0, 1, 2, 3 of the four runs.
        let scales: Vec<u8> = (1..=16).collect();
        let block = [&codes[..], &[0b1110_0100; 64], &scales, &TWO].concat();
        check("Q6_K", &block, |i| 2.0 * small(i / 16 + 1) * (code(i) + 16.0 * small(i % 128 / 32) - 32.0));
    }

    #[test]
    fn plain_types() {
        check("F32", &1.5f32.to_le_bytes(), |_| 1.5);
        check("F16", &TWO, |_| 2.0);
        check("BF16", &[0x40, 0x40], |_| 3.0);
        assert!(!type_of(10).expect("Q2_K").decodes() && type_of(99).is_none());
    }
}
