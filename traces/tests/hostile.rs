//! Headers of model files with anything wrong in them: refused with byte and field, never a panic, never a tensor
//! outside its file.

use sim_kernel::Stream;
use traces::gguf::{Contents, Value};
use traces::safetensors::Entry;

/// Inputs; unoptimised builds take a tenth.
const GGUF_INPUTS: u64 = if cfg!(debug_assertions) { 100_000 } else { 1_000_000 };
const SAFETENSORS_INPUTS: u64 = GGUF_INPUTS / 4;
/// Values that counts, lengths and offsets are replaced by.
const LIKELY: [u64; 14] = [
    0,
    1,
    2,
    7,
    0xFF,
    1 << 16,
    (1 << 31) - 1,
    u32::MAX as u64,
    1 << 32,
    1 << 48,
    1 << 60,
    (1 << 63) - 1,
    1 << 63,
    u64::MAX,
];

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

/// A small file with every type of value, three tensors and their data.
fn gguf() -> Vec<u8> {
    let mut out = b"GGUF\x03\0\0\0".to_vec();
    out.extend(3u64.to_le_bytes());
    out.extend(16u64.to_le_bytes());
    let scalars: [(u32, &[u8]); 12] = [
        (0, &[7]),
        (1, &[0xFE]),
        (2, &[1, 2]),
        (3, &[0xFF, 0xFF]),
        (4, &[1, 0, 0, 0]),
        (5, &[2, 0, 0, 0x80]),
        (6, &[0, 0, 0x80, 0x3F]),
        (7, &[1]),
        (8, b"\x04\0\0\0\0\0\0\0text"),
        (10, &[9; 8]),
        (11, &[0xFF; 8]),
        (12, &[0; 8]),
    ];
    for (code, value) in scalars {
        text(&mut out, &format!("a.key{code}"));
        out.extend(code.to_le_bytes());
        out.extend(value);
    }
    text(&mut out, "general.alignment");
    out.extend([4, 0, 0, 0, 32, 0, 0, 0]);
    text(&mut out, "words");
    out.extend([9, 0, 0, 0, 8, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0]);
    ["a", "bc", ""].into_iter().for_each(|w| text(&mut out, w));
    text(&mut out, "numbers");
    out.extend([9, 0, 0, 0, 5, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
    out.extend([0; 8]);
    text(&mut out, "nested");
    out.extend([9, 0, 0, 0, 9, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    out.extend([0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 5, 6]);
    for (name, dims, code, offset) in
        [("plain", &[8u64, 2][..], 0u32, 0u64), ("blocks", &[32, 2], 8, 64), ("last", &[4], 30, 160)]
    {
        text(&mut out, name);
        out.extend(u32::try_from(dims.len()).expect("few").to_le_bytes());
        dims.iter().for_each(|d| out.extend(d.to_le_bytes()));
        out.extend(code.to_le_bytes());
        out.extend(offset.to_le_bytes());
    }
    out.resize(out.len().div_ceil(32) * 32 + 168, 0);
    out
}

fn safetensors() -> Vec<u8> {
    let header = "{\"__metadata__\":{\"format\":\"pt\"},\"a.weight\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":\
                  [0,24]},\"b\":{\"dtype\":\"BF16\",\"shape\":[4],\"data_offsets\":[24,32]},\"c\\u00e9\":{\"dtype\":\
                  \"I64\",\"shape\":[],\"data_offsets\":[32,40]}}   ";
    let mut out = (header.len() as u64).to_le_bytes().to_vec();
    out.extend(header.as_bytes());
    out.resize(out.len() + 40, 0);
    out
}

fn pick(stream: &mut Stream, below: usize) -> usize {
    usize::try_from(stream.below(below.max(1) as u64)).expect("small")
}

/// One change of a kind drawn.
fn change(bytes: &mut Vec<u8>, s: &mut Stream) {
    let at = pick(s, bytes.len());
    let width = [1, 2, 4, 8][pick(s, 4)];
    match s.below(7) {
        0 => bytes[at] ^= 1 << s.below(8),
        1 => bytes[at] = u8::try_from(s.below(256)).expect("a byte"),
        2 | 3 => {
            let value = LIKELY[pick(s, LIKELY.len())].wrapping_sub(s.below(2)).to_le_bytes();
            let to = (at + width).min(bytes.len());
            bytes[at..to].copy_from_slice(&value[..to - at]);
        }
        4 => {
            bytes.remove(at);
        }
        5 => bytes.insert(at, u8::try_from(s.below(256)).expect("a byte")),
        // A piece of the file again, elsewhere.
        _ => {
            let from = pick(s, bytes.len());
            let piece: Vec<u8> = bytes[from..(from + 4 * width).min(bytes.len())].to_vec();
            let to = (at + piece.len()).min(bytes.len());
            bytes[at..to].copy_from_slice(&piece[..to - at]);
        }
    }
}

/// Runs `inputs` variants of a good file; returns how many were taken.
fn hostile(good: &[u8], inputs: u64, name: &str, check: impl Fn(&[u8], u64) -> Result<(), String>) -> u64 {
    check(good, good.len() as u64).expect("the file as it is");
    let mut s = Stream::new(1, "hostile", name);
    let (mut bytes, mut taken) = (Vec::new(), 0);
    for i in 0..inputs {
        bytes.clear();
        bytes.extend_from_slice(good);
        for _ in 0..=s.below(3) {
            change(&mut bytes, &mut s);
            if bytes.is_empty() {
                break;
            }
        }
        if s.below(8) == 0 {
            bytes.truncate(pick(&mut s, bytes.len() + 1));
        }
        // Now and then the file ends before the length it had when it was asked.
        let len = bytes.len() as u64 + if s.below(16) == 0 { s.below(4096) } else { 0 };
        match check(&bytes, len) {
            Ok(()) => taken += 1,
            Err(message) => {
                let place = message.strip_prefix("file byte ").and_then(|m| m.split(':').next());
                let at = place.and_then(|p| p.parse::<u64>().ok());
                assert!(at.is_some_and(|at| at <= len), "input {i}: {message}");
            }
        }
    }
    taken
}

fn gguf_holds(c: &Contents, len: u64) {
    let mut order: Vec<(u64, u64)> = c.tensors.values().map(|t| (t.start, t.start + t.bytes)).collect();
    order.sort_unstable();
    assert!(
        order.windows(2).all(|w| w[0].1 <= w[1].0) && order.iter().all(|t| t.1 <= len),
        "{order:?} {len}"
    );
    assert!(c.tensors.values().all(|t| t.elements() / t.kind.elements * t.kind.bytes == t.bytes));
    assert!(c.metadata.keys().eq(c.described_at.keys()));
    let most = |v: &Value| if let Value::Array(a) = v { a.len() as u64 } else { 0 };
    assert!(c.metadata.values().all(|v| most(v) <= len));
}

#[test]
fn a_million_gguf_headers() {
    let taken = hostile(&gguf(), GGUF_INPUTS, "gguf", |bytes, len| {
        let contents = traces::gguf::read(bytes, len, "file").map_err(|e| e.to_string())?;
        gguf_holds(&contents, len);
        Ok(())
    });
    // Changes of values and names are no errors of structure: both outcomes are common.
    assert!((GGUF_INPUTS / 50..GGUF_INPUTS / 2).contains(&taken), "{taken}");
}

#[test]
fn as_many_safetensors_headers_as_matter() {
    let good = safetensors();
    let taken = hostile(&good, SAFETENSORS_INPUTS, "safetensors", |bytes, len| {
        let tensors = traces::safetensors::read(bytes, len, "file").map_err(|e| e.to_string())?;
        let mut order: Vec<&Entry> = tensors.values().collect();
        order.sort_by_key(|e| (e.start, e.bytes));
        assert!(order.windows(2).all(|w| w[0].start + w[0].bytes == w[1].start));
        assert!(order.last().is_none_or(|e| e.start + e.bytes == len));
        assert!(order.iter().all(|e| e.shape.iter().product::<u64>() * e.element.bytes() == e.bytes));
        Ok(())
    });
    assert!((SAFETENSORS_INPUTS / 200..SAFETENSORS_INPUTS / 2).contains(&taken), "{taken}");
}

/// A header around data of 16 bytes.
fn with_header(header: &str) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0; 16]].concat()
}

#[test]
fn what_is_wrong_with_a_safetensors_header_is_named() {
    let good = "{\"a\":{\"dtype\":\"F16\",\"shape\":[2,2],\"data_offsets\":[0,8]},\"b\":{\"dtype\":\"F32\",\"shape\":[2],\
                \"data_offsets\":[8,16]}}";
    let read = |bytes: &[u8]| traces::safetensors::read(bytes, bytes.len() as u64, "file");
    assert_eq!(read(&with_header(good)).expect("good").len(), 2);
    for (from, to, place, part) in [
        ("[0,8]", "[0,9]", "byte 9", "a: shape"),
        ("[8,16]", "[8,17]", "byte 64", "b: data_offsets: expected a range within 0 to 16"),
        ("[8,16]", "[16,8]", "byte 64", "b: data_offsets"),
        ("[8,16]", "[4,12]", "byte 64", "they overlap those before"),
        (
            "\"shape\":[2,2],\"data_offsets\":[0,8]",
            "\"shape\":[1,2],\"data_offsets\":[0,4]",
            "byte 64",
            "leave a hole",
        ),
        ("[2,2]", "[4294967296,4294967296]", "byte 9", "a: shape"),
        ("F16", "Q16", "byte 9", "a: dtype: `Q16`"),
        ("\"b\"", "\"a\"", "byte 9", "a: is there twice"),
        ("\"shape\":[2]", "\"form\":[2]", "byte 88", "unknown field `form`"),
        ("[2]", "[-2]", "byte 93", "invalid value"),
        ("{\"a\"", "[\"a\"", "byte 8", "expected `{`"),
        ("[8,16]}}", "[8,16]", "byte 1", "EOF"),
    ] {
        assert!(good.contains(from), "{from}");
        let error = read(&with_header(&good.replacen(from, to, 1))).expect_err(to).to_string();
        assert!(error.starts_with(&format!("file {place}")) && error.contains(part), "{to}: {error}");
    }
    let mut long = with_header(good);
    long.push(0);
    assert!(read(&long).expect_err("more data").to_string().contains("belong to none"));
    for (word, part) in [(1u64 << 60, "found 1152921504606846976"), (1, "found 1"), (0, "found 0")] {
        let mut bytes = with_header(good);
        bytes[..8].copy_from_slice(&word.to_le_bytes());
        let error = read(&bytes).expect_err("a length").to_string();
        assert!(error.starts_with("file byte 0: header length: ") && error.contains(part), "{error}");
    }
}
