//! Encoders whose rows come in chunks on a time-free NPU, against references: every value, bit for bit.

#[allow(dead_code, reason = "only a part of what the functional tests share is needed here")]
mod support;

use support::encoder::{Encoder, Tower};
use support::machine::{Machine, Shape};
use traces::image::{build_image, random_tensors};
use traces::workload::{
    Encoder as EncoderKind, Extras, Family, ModelSpec, QuantScheme, Rope, RopeLayout, RopeScaling, Stem,
};

fn model(name: &str, family: Family, stem: Option<Stem>, positions: u32) -> ModelSpec {
    ModelSpec {
        name: name.to_owned(),
        family,
        hidden: 128,
        layers: 2,
        heads: 4,
        kv_heads: 4,
        head_dim: 32,
        ffn: 256,
        vocab: if stem.is_some() { 1 } else { 331 },
        norm_eps: 1e-6,
        qkv_bias: true,
        qk_norm: false,
        rope: Rope { theta: 10_000.0, layout: RopeLayout::Half, scaling: RopeScaling::None },
        tied_embedding: false,
        max_position: positions,
        extras: Extras {
            encoder: Some(EncoderKind { token_types: if stem.is_some() { 0 } else { 2 } }),
            stem,
            ..Extras::default()
        },
    }
}

/// Patches with heads of 24 that are stored as 32, a hidden layer of 200 stored as 224, five heads, no class token.
fn siglip() -> ModelSpec {
    let stem = Stem::Patches { values: 75, class: false, head_params: 0 };
    let plain = model("siglip", Family::Siglip, Some(stem), 96);
    let extras = Extras { gelu_tanh: true, ..plain.extras };
    ModelSpec { hidden: 96, heads: 4, kv_heads: 4, head_dim: 24, ffn: 200, extras, ..plain }
}

/// Patches behind a class token; 16 values of padding beside 27.
fn vit() -> ModelSpec {
    let stem = Stem::Patches { values: 27, class: true, head_params: 0 };
    ModelSpec { heads: 8, kv_heads: 8, head_dim: 16, ..model("vit", Family::Vit, Some(stem), 97) }
}

fn whisper() -> ModelSpec {
    model("whisper", Family::Whisper, Some(Stem::Frames { bins: 16 }), 101)
}

/// An accumulator that holds 40 rows or so of a panel of 64 columns: texts and images come in chunks.
fn shape(cores: u32, scratchpad: u64) -> Shape {
    Shape { scratchpad, accumulator: 10 << 10, chunk: 101, positions: 112, ..Shape::usual(cores) }
}

/// Values of an input row, deterministic and exact in fp16.
fn pixel(row: usize, col: usize) -> f32 {
    let n = u16::try_from((row * 37 + col * 101 + row * col) % 251).expect("small");
    (f32::from(n) - 125.0) / 64.0
}

/// The input's rows, and their bytes as the host lays them out.
fn input(spec: &ModelSpec, rows: usize) -> (Vec<Vec<f32>>, Vec<u8>) {
    let (count, values, width) = match spec.extras.stem.expect("rows") {
        Stem::Patches { values, .. } => (rows, values as usize, (values as usize).div_ceil(16) * 16),
        Stem::Frames { bins } => (2 * rows + 2, bins as usize, bins as usize),
    };
    let class = matches!(spec.extras.stem, Some(Stem::Patches { class: true, .. }));
    let frames = matches!(spec.extras.stem, Some(Stem::Frames { .. }));
    let blank = |r: usize| (class && r == 0) || (frames && (r == 0 || r + 1 == count));
    let all: Vec<Vec<f32>> =
        (0..count).map(|r| (0..values).map(|c| if blank(r) { 0.0 } else { pixel(r, c) }).collect()).collect();
    let mut bytes = Vec::new();
    for row in &all {
        let padded = row.iter().copied().chain(std::iter::repeat(0.0)).take(width);
        bytes.extend(padded.flat_map(|v| half::f16::from_f32(v).to_le_bytes()));
    }
    (all, bytes)
}

fn same(got: &[f32], expected: &[f32], what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}");
    let wrong = got.iter().zip(expected).filter(|(a, b)| a.to_bits() != b.to_bits()).count();
    let worst = got.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0f32, f32::max);
    assert_eq!(wrong, 0, "{what}: {wrong} of {} values differ by up to {worst}", got.len());
}

/// Encodes inputs of several lengths; returns the largest chunk of each.
fn check_rows(spec: &ModelSpec, quant: &str, shape: &Shape, lengths: &[usize]) -> Vec<usize> {
    let scheme = QuantScheme::named(quant).expect("scheme");
    let (_, image) = build_image(spec, &scheme, &mut random_tensors(3, spec)).expect("image");
    let mut machine = Machine::new(shape, image);
    let reference = Tower::new(spec, &scheme, &mut random_tensors(3, spec));
    let chunks = lengths.iter().map(|rows| {
        let (values, bytes) = input(spec, *rows);
        let (got, block) = machine.encode_rows(&bytes, *rows);
        let what = format!("{} {quant} {shape:?} {rows} rows", spec.name);
        same(&got, &reference.encode(&values, *rows, block), &what);
        machine.chunk_rows()
    });
    chunks.collect()
}

#[test]
fn images_and_sound_in_chunks_on_any_number_of_cores() {
    for spec in [siglip(), vit(), whisper()] {
        let most = spec.max_position as usize;
        for (quant, scratchpad) in [("fp16", 80 << 10), ("w8a8", 96 << 10), ("w4a16-g128", 512 << 10)] {
            for cores in [1, 2, 3, 4] {
                let chunks = check_rows(&spec, quant, &shape(cores, scratchpad), &[most, most, 30]);
                assert!(chunks[0] < most, "{chunks:?}");
            }
        }
    }
}

#[test]
fn images_and_sound_in_one_chunk_and_in_one_row() {
    for spec in [siglip(), vit(), whisper()] {
        let shape = Shape { accumulator: 64 << 10, ..shape(2, 1 << 20) };
        let most = spec.max_position as usize;
        assert_eq!(check_rows(&spec, "fp16", &shape, &[most, 1, 2]), [most, 1, 2]);
    }
}

#[test]
fn a_few_rows_with_one_scale_each() {
    for spec in [siglip(), vit(), whisper()] {
        for cores in [1, 3] {
            check_rows(
                &spec,
                "w8a8",
                &Shape { accumulator: 64 << 10, ..shape(cores, 512 << 10) },
                &[1, 2, 7, 9],
            );
        }
    }
}

#[test]
fn more_cores_than_heads_and_panels() {
    for spec in [siglip(), whisper()] {
        check_rows(&spec, "fp16", &shape(8, 80 << 10), &[spec.max_position as usize, 7]);
    }
}

#[test]
fn the_order_of_engines_changes_nothing() {
    for order in 0..8 {
        let shape = Shape { order, channels: 1 + u32::from(order % 2 == 0), ..shape(3, 96 << 10) };
        for (spec, quant) in [(siglip(), "w8a8"), (whisper(), "fp16")] {
            check_rows(&spec, quant, &shape, &[61]);
        }
    }
}

/// Texts in chunks and texts of one pass, in turns, against the reference of both.
#[test]
fn texts_longer_than_a_pass() {
    let plain = model("text", Family::Bert, None, 112);
    let narrow = ModelSpec { hidden: 96, heads: 6, kv_heads: 3, head_dim: 16, ffn: 352, ..plain.clone() };
    for spec in [plain, narrow] {
        for (quant, scratchpad) in [("fp16", 96 << 10), ("w8a8", 112 << 10), ("w4a16-g128", 512 << 10)] {
            for cores in [1, 2, 4] {
                let scheme = QuantScheme::named(quant).expect("scheme");
                let (_, image) = build_image(&spec, &scheme, &mut random_tensors(5, &spec)).expect("image");
                let shape = shape(cores, scratchpad);
                let mut machine = Machine::new(&shape, image);
                let reference = Encoder::new(&spec, &scheme, &mut random_tensors(5, &spec));
                for length in [101, 9, 100, 100, 2, 101] {
                    let tokens: Vec<usize> = (0..length).map(|i| (i * 41 + length) % 331).collect();
                    let (got, block) = machine.encode(&tokens);
                    let what = format!("{} {quant} {shape:?} {length}", spec.name);
                    same(&got, &reference.encode(&tokens, block), &what);
                }
                assert!(machine.chunk_rows() < 100, "{}", machine.chunk_rows());
            }
        }
    }
}
