//! Codecs with all their parameters, arrangements of odd planes, and what the offline encoders promise.
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap,
    reason = "test sizes are small"
)]

mod dma_common;

use dma_common::{Random, World, functional, reference, timed};
use npu_model::codec::{entropy, palette, sparse24, zero_rle};

fn check(world: &World, text: &str) {
    let lists = ["", text, "", ""];
    let expected = reference::after(world, 1, text);
    functional(world, &lists).unwrap_or_else(|f| panic!("{text}: {f}")).assert_same(&expected, text);
    let t = timed(world, &lists, false, 1 << 40).unwrap_or_else(|f| panic!("{text}: {f}"));
    t.world.assert_same(&expected, text);
    let shape = timed(world, &lists, true, 1 << 40).unwrap_or_else(|f| panic!("{text}: {f}"));
    assert_eq!((shape.end, shape.cluster.total()), (t.end, t.cluster.total()), "{text}: shape-only");
}

#[test]
fn codecs_of_fixed_size_with_every_parameter() {
    let mut random = Random(51);
    let forms = [
        (3, "qf=int2 ef=int8"),
        (3, "qf=int2 ef=bf16"),
        (3, "qf=uint4 ef=uint8"),
        (3, "qf=uint4 ef=int16"),
        (3, "qf=uint8 ef=fp8e4m3"),
        (3, "qf=uint8 ef=fp16"),
        (4, "ef=int8"),
        (4, "ef=fp16"),
        (5, "qf=int4"),
        (5, "qf=uint4"),
        (6, "qf=mxfp4"),
        (6, "qf=mxfp8"),
    ];
    for (codec, parameters) in forms {
        for dir in if codec >= 5 { 0..2 } else { 0..1 } {
            for round in 0..6 {
                let mut world = World::new(random.next());
                if codec == 4 {
                    let place = |r: &mut Random| [4u8, 8, 12, 9, 13, 14][r.below(6) as usize];
                    world.memory.bytes[..131_072]
                        .iter_mut()
                        .for_each(|b| *b = place(&mut random) | place(&mut random) << 4);
                }
                let n0 = if parameters.contains("mxfp8") { 2 * random.below(4) + 1 } else { random.below(8) };
                let qs = if matches!(codec, 3 | 6) { "qs=1500" } else { "" };
                let strides = if round % 2 == 0 { "" } else { "mst1=16 mst2=100 sst1=5 sst2=40" };
                let text = format!(
                    "dma dir={dir} ch={} codec={codec} n0={n0} n1={} n2={} saddr=9 moff={} {strides} cmask={} \
                     | idx {parameters} {qs}",
                    2 * dir,
                    random.below(6),
                    random.below(3),
                    random.below(60_000),
                    if dir == 0 { random.below(16) } else { 0 },
                );
                check(&world, &text);
            }
        }
    }
}

#[test]
fn planes_are_tiled_and_transposed_there_and_back() {
    let mut random = Random(52);
    for round in 0..60 {
        let world = World::new(round);
        let tform = 1 + round % 3;
        let dir = round / 3 % 3;
        let tiles = tform == 1;
        let n0 = if tiles { 2 * random.below(3) + 1 } else { random.below(6) };
        let zp = dir == 0 && random.below(2) == 0;
        let n1 = if tiles && !zp { 31 + 32 * random.below(2) } else { random.below(40) };
        let stride = if tiles {
            String::new()
        } else {
            format!("sst1={}", (2 * (n1 + 1)).div_ceil(32) + random.below(2))
        };
        let text = format!(
            "dma dir={dir} ch={} tform={tform} n0={n0} n1={n1} n2={} saddr=3 moff={} {stride} zp={}",
            if dir == 0 { 1 } else { 2 },
            random.below(2),
            if dir == 2 { 1000 } else { random.below(100_000) },
            u8::from(zp),
        );
        check(&world, &text);
    }
    // Out and back is the identity: a tile goes to memory row-major and returns as the tile it was.
    let world = World::new(99);
    for tform in 1..4 {
        let list = format!(
            "dma dir=1 ch=2 tform={tform} n0=3 n1=63 moff=65536 saddr=0 s0_id=1 s0_n=1\n\
             dma dir=0 tform={tform} n0=3 n1=63 moff=65536 saddr=512 w0_id=1 w0_n=1"
        );
        let after = functional(&world, &["", &list, "", ""]).unwrap_or_else(|f| panic!("{f}"));
        assert_eq!(after.spm[1][512 * 32..512 * 32 + 4096], world.spm[1][..4096], "tform {tform}");
    }
}

/// What the offline encoders write, the engine expands to what they were given, in less memory.
#[test]
fn compressed_tensors_arrive_whole() {
    let mut random = Random(53);
    let mut world = World::new(1);
    let sparse: Vec<u8> =
        (0..8192).map(|_| if random.below(4) == 0 { random.next() as u8 } else { 0 }).collect();
    // Weights as they come: small values far more often than large ones.
    let skewed: Vec<u8> = (0..8192).map(|_| (0..6).map(|_| random.below(9) as u8).sum::<u8>()).collect();
    let table: Vec<u8> = random.bytes(32);
    let entries: Vec<u8> = (0..4096)
        .flat_map(|_| {
            let i = random.below(16) as usize * 2;
            [table[i], table[i + 1]]
        })
        .collect();
    let pruned: Vec<u8> = (0..2048u32)
        .flat_map(|g| {
            let mut four = [0u8; 4];
            four[(g % 4) as usize] = 7;
            four[(g / 4 % 4) as usize] = random.next() as u8;
            four
        })
        .collect();
    world.spm[1][1900 * 32..1901 * 32].copy_from_slice(&table);
    // Rows of 256 bytes, each packed for itself.
    let rows =
        |f: &dyn Fn(&[u8]) -> Vec<u8>, from: &[u8]| -> Vec<u8> { from.chunks(256).flat_map(f).collect() };
    let cases: [(&str, &[u8], Vec<u8>); 4] = [
        ("codec=1", &sparse, zero_rle::encode(&sparse)),
        ("codec=2", &skewed, entropy::encode(&skewed)),
        ("codec=3", &entries, rows(&|r| palette::encode(r, 4, &table, 2).expect("in the table"), &entries)),
        (
            "codec=4",
            &pruned,
            rows(
                &|r| {
                    let (k, p) = sparse24::encode(r, 1).expect("two of four");
                    [k, p].concat()
                },
                &pruned,
            ),
        ),
    ];
    for (codec, plain, mut stream) in cases {
        stream.resize(stream.len().next_multiple_of(16), 0);
        assert!(stream.len() < plain.len() * 4 / 5, "{codec}: {} bytes", stream.len());
        world.memory.bytes[4096..4096 + stream.len()].copy_from_slice(&stream);
        let parameters = match codec {
            "codec=3" => "qf=uint4 ef=bf16 qs=1900".to_owned(),
            "codec=4" => "ef=uint8".to_owned(),
            _ => format!("clen={}", stream.len() / 16 - 1),
        };
        let text = format!("dma n0=15 n1=31 {codec} moff=4096 saddr=16 | idx {parameters}");
        let t =
            timed(&world, &["", &text, "", ""], false, 1 << 40).unwrap_or_else(|f| panic!("{codec}: {f}"));
        assert_eq!(&t.world.spm[1][512..512 + 8192], plain, "{codec}");
        assert_eq!(t.served().0, stream.len() as u64, "{codec}: memory serves what is stored");
        assert_eq!(t.cluster.total().spm_write, 8192);
    }
    assert!(palette::encode(&[1, 2], 4, &[9; 32], 2).is_none(), "not in the table");
    assert!(sparse24::encode(&[1, 2, 3, 0], 1).is_none(), "three of four");
}
