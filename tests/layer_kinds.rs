//! Tables of kinds of layers as nobody should write them: refused by name, by the runtime and by the firmware.

#[allow(dead_code, reason = "only a part of what the functional tests share is needed here")]
#[path = "support/soc.rs"]
mod soc;
#[allow(dead_code, reason = "only a part of what the functional tests share is needed here")]
mod support;

use isa::cache::PageChoice;
use isa::image::{FLAG_KINDS, ImageHeader};
use isa::kinds::{LayerKind, LayerKinds};
use isa::npu::{Format, Word};
use runtime::model::ModelError;
use runtime::program::{Places, Unfit};
use runtime::{Caps, Model, Program, Sink};
use sim_kernel::Stream;
use soc::{Case, Compute, Ended, small_model};
use soc_model::soc::SocFault;
use support::encoder::Encoder;
use support::machine::{Machine, Shape, model_of};
use traces::image::{build_image, random_tensors};
use traces::workload::{Body, Extras, Family, ModelSpec, QuantScheme, TensorFormat, WeightQuant};

/// Panels of 16 columns, so that values can be apart.
fn model(layers: u32) -> ModelSpec {
    ModelSpec { vocab: 272, layers, ..small_model() }
}

const INT8: WeightQuant = WeightQuant::Grouped { format: TensorFormat::Int8, group: 32 };
const INT4: WeightQuant = WeightQuant::Grouped { format: TensorFormat::Int4, group: 64 };

/// Every other layer has values and down matrix in int8, the rest of it int4.
fn scheme(spec: &ModelSpec) -> QuantScheme {
    let body = Body::all(INT4);
    let bodies: Vec<Body> = (0..spec.layers)
        .map(|l| if l % 2 == 0 { body } else { Body { value: INT8, down: INT8, ..body } })
        .collect();
    QuantScheme::named("w4a16-g128").expect("a scheme").mixed(spec, &bodies)
}

fn image(spec: &ModelSpec) -> Vec<u8> {
    build_image(spec, &scheme(spec), &mut random_tensors(7, spec)).expect("an image").1
}

/// Word `i` of the table.
fn at(i: usize) -> usize {
    (ImageHeader::WORDS + i) * 8
}

fn word(image: &[u8], i: usize) -> u64 {
    u64::from_le_bytes(image[at(i)..at(i) + 8].try_into().expect("8 bytes"))
}

fn put(image: &mut [u8], i: usize, value: u64) {
    image[at(i)..at(i) + 8].copy_from_slice(&value.to_le_bytes());
}

/// Words of the table: bytes of the second kind, its QKV, values and down, and the first word of layers.
const BYTES: usize = 1 + LayerKind::WORDS;
const QKV: usize = BYTES + 1;
const VALUE: usize = BYTES + 3;
const DOWN: usize = BYTES + 11;
const LAYERS: usize = 1 + 2 * LayerKind::WORDS;

/// What is wrong with an image: the word to change, to what of what it is, and what is said of it.
type Flaw = (usize, fn(u64) -> u64, &'static str);

const FLAWS: [Flaw; 12] = [
    (0, |_| 0, "no kinds"),
    (0, |_| 9, "too many kinds"),
    (0, |_| u64::MAX, "too many kinds"),
    (LAYERS, |w| w | 0x20, "a layer of a kind that is not there"),
    (BYTES, |b| b + 32, "no whole lines"),
    (BYTES, |b| b << 20, "beyond the image"),
    (BYTES, |b| b - 64, "beyond its layer"),
    (QKV, |c| c | 15, "a format that is not known"),
    (VALUE + 1, |o| o - 64, "overlaps"),
    (VALUE + 1, |o| o + 32, "off a line"),
    (DOWN + 1, |_| u64::MAX - 63, "beyond its layer"),
    (DOWN + 1, |_| 0, "overlaps"),
];

#[test]
fn damaged_tables_are_refused_by_name() {
    let good = image(&model(3));
    let read = model_of(&good).expect("a good image");
    assert_eq!((read.kinds(), read.h.flags & FLAG_KINDS), (2, FLAG_KINDS));
    assert_eq!(read.layers().map(|l| l.kind).collect::<Vec<_>>(), [0, 1, 0]);
    for (i, change, said) in FLAWS {
        let mut image = good.clone();
        let value = change(word(&image, i));
        put(&mut image, i, value);
        match model_of(&image) {
            Err(ModelError::Kinds(why)) => assert!(why.contains(said), "word {i}: {why}, not {said}"),
            other => panic!("word {i} = {value:#x}: {other:?}"),
        }
    }
    // A table that nothing says is there is not read, and one with half its flag is none.
    let mut h = read.h;
    h.flags &= !FLAG_KINDS;
    assert!(Model::read(h, |_| panic!("a word was read")).is_ok());
    assert_eq!(Model::new(read.h).err().map(|e| matches!(e, ModelError::Kinds(_))), Some(true));
    // Panels of two heads' columns: values cannot be apart.
    let h = ImageHeader { panel: 64, vocab: 320, ..read.h };
    let table = |i: u64| word(&good, usize::try_from(i).expect("small"));
    assert!(matches!(Model::read(h, table), Err(ModelError::Kinds(why)) if why.contains("mix them")));
}

struct Nowhere;

impl Sink for Nowhere {
    fn put(&mut self, _index: u64, _word: &Word) {}
}

const CAPS: Caps = Caps {
    cores: 2,
    rows: 16,
    cols: 16,
    spm: 1 << 20,
    acc: 8 << 10,
    dma_in: 2,
    dma_out: 1,
    formats: u64::MAX,
    functions: [u64::MAX; 3],
};

fn places(arena: u64) -> Places {
    Places {
        image: 0,
        arena: (1 << 32, arena),
        bulk: (1 << 33, 1 << 30),
        positions: 64,
        chunk: 8,
        kv_bits: 16,
        pages: PageChoice::default(),
    }
}

#[test]
fn random_tables_panic_nowhere_and_what_is_accepted_lies_in_the_image() {
    let good = image(&model(5));
    let words = usize::try_from(LayerKinds::words(2, 5)).expect("small");
    let mut random = Stream::new(7, "kinds", "tables");
    let mut accepted = 0;
    for _ in 0..200_000 {
        let mut image = good[..at(words)].to_vec();
        for _ in 0..=random.below(2) {
            let i = usize::try_from(random.below(words as u64)).expect("small");
            let value = match random.below(4) {
                0 => random.next_u64(),
                1 => random.below(16),
                2 => word(&image, i) ^ 1 << random.below(64),
                _ => word(&image, i).wrapping_add(random.below(5) * 32).wrapping_sub(64),
            };
            put(&mut image, i, value);
        }
        let Ok(read) = model_of(&image) else { continue };
        accepted += 1;
        for layer in read.layers() {
            assert!(layer.offset + layer.bytes <= read.h.bytes, "{layer:?}");
            let m = read.of_kind(layer.kind);
            for matrix in [m.qkv(), m.value(), m.out(), m.gate(), m.up(), m.down()] {
                let bytes = matrix.stored.panel_stride(matrix.k) * matrix.panels;
                assert!(matrix.offset + bytes <= layer.bytes, "{matrix:?} {layer:?}");
                assert!(matrix.stored.format != Format::Reserved15);
            }
        }
        if accepted % 512 == 0 {
            // Whatever is accepted has lists, or no room for them.
            let _ = Program::new(CAPS, read, places(24 << 20), &mut Nowhere).map(drop);
        }
    }
    assert!((1000..150_000).contains(&accepted), "{accepted}");
}

#[test]
fn an_encoders_layers_of_two_kinds_find_their_norms() {
    let extras = Extras { encoder: Some(traces::workload::Encoder { token_types: 2 }), ..Extras::default() };
    let spec = ModelSpec {
        family: Family::Bert,
        layers: 3,
        kv_heads: 4,
        qkv_bias: true,
        max_position: 64,
        extras,
        ..small_model()
    };
    let scheme = scheme(&spec);
    let (layout, image) = build_image(&spec, &scheme, &mut random_tensors(7, &spec)).expect("an image");
    assert_eq!(layout.kinds.len(), 2);
    let reference = Encoder::new(&spec, &scheme, &mut random_tensors(7, &spec));
    let tokens: Vec<usize> = (0..20).map(|i| i * 41 % 320).collect();
    for (cores, scratchpad) in [(1, 1 << 20), (3, 1 << 20), (2, 96 << 10)] {
        let shape = Shape { chunk: 32, scratchpad, ..Shape::usual(cores) };
        let mut machine = Machine::new(&shape, image.clone());
        let (got, block) = machine.encode(&tokens);
        let expected = reference.encode(&tokens, block);
        let same = got.iter().zip(&expected).all(|(a, b)| a.to_bits() == b.to_bits());
        assert!(same && got.len() == 128, "{cores} cores, {scratchpad} bytes");
    }
}

#[test]
fn lists_of_more_kinds_need_more_of_the_arena() {
    let spec = model(8);
    let one = QuantScheme::named("w4a16-g128").expect("a scheme");
    // Each layer another group of the attention output's scales, or another format.
    let groups = [16, 32, 64, 128].map(|group| WeightQuant::Grouped { format: TensorFormat::Int4, group });
    let wider = [16, 32, 64, 128].map(|group| WeightQuant::Grouped { format: TensorFormat::Int8, group });
    let outs = groups.into_iter().chain(wider);
    let bodies: Vec<Body> = outs.map(|out| Body { out, ..Body::all(INT4) }).collect();
    let eight = one.clone().mixed(&spec, &bodies);
    assert_eq!(eight.kinds().count(), 8);
    let read = |scheme: &QuantScheme| {
        let (_, image) = build_image(&spec, scheme, &mut random_tensors(7, &spec)).expect("an image");
        model_of(&image).expect("a good image")
    };
    let (one, eight) = (read(&one), read(&eight));
    let fits = |model: Model, arena| Program::new(CAPS, model, places(arena), &mut Nowhere).map(drop);
    let mut arena = 1 << 20;
    while fits(one, arena) == Err(Unfit::Arena) {
        arena += 4096;
    }
    assert_eq!(fits(one, arena), Ok(()));
    assert_eq!(fits(eight, arena), Err(Unfit::Arena));
    assert_eq!(fits(eight, 2 * arena), Ok(()));
}

#[test]
fn the_firmware_computes_a_good_table_and_says_what_is_wrong_with_another() {
    let spec = model(3);
    let case = Case { quant: scheme(&spec), spec, decode: 2, ..Case::new::<&str>(&[], "fp16") };
    let good = image(&case.spec);
    let ran = case.run(&Compute::Values).expect("a run");
    let ids: Vec<(u64, u32)> = (case.prompt.len() as u64..).zip(ran.tokens.iter().map(|t| t.0)).collect();
    let shapes = case.run(&Compute::Shapes(ids)).expect("a run");
    assert_eq!((&ran.tokens, &ran.cycles), (&shapes.tokens, &shapes.cycles));
    for (i, change, said) in [FLAWS[2], FLAWS[3], FLAWS[8], FLAWS[10]] {
        let mut image = good.clone();
        let value = change(word(&image, i));
        put(&mut image, i, value);
        let mut builder = case.builder(&Compute::Values);
        builder.model.stored = vec![(0, image)];
        match builder
            .build()
            .map_err(Ended::Refused)
            .and_then(|soc| soc.run(&mut |_| {}).map_err(Ended::Faulted))
        {
            Err(Ended::Faulted(SocFault::Firmware { reason, console })) => {
                assert!(reason.contains("damaged") && console.contains(said), "{reason}: {console}");
            }
            other => panic!("word {i}: {:?}", other.map(|r| r.tokens)),
        }
    }
}
