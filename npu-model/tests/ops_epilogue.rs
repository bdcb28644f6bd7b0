//! GEMM's epilogue, kept weights and costs, and dynamic quantisation by blocks, against references written from the
//! documents.
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap,
    reason = "test sizes are small"
)]

mod ops_common;

use half::{bf16, f16};
use isa::npu::registers::FaultCode;
use isa::npu::{Command, Epilogue, Format, Gemm, VecFn, VecOp};
use ndarray::Array2;
use npu_model::{Space, ops};
use ops_common::{
    Random, assert_same, config, get, memories, put, put_scales, round, row_bytes, run, small_float,
};
use proptest::prelude::*;

const A: usize = 0;
const B: usize = 32 * 1024;
const R: usize = 64 * 1024;
const TABLES: usize = 96 * 1024;
const MAXIMA: usize = 128 * 1024;
const OUT: usize = 160 * 1024;
const ACA: usize = 4096;

const fn granule(byte: usize) -> u64 {
    (byte / 32) as u64
}

/// All finite values of a format, ascending.
fn values(format: Format) -> Vec<f64> {
    let mut all: Vec<f64> = (0..1u32 << format.bits())
        .map(|c| match format {
            Format::Int4 => f64::from(((c as u8) << 4) as i8 >> 4),
            Format::Int8 => f64::from(c as u8 as i8),
            Format::Int16 => f64::from(c as u16 as i16),
            Format::Uint4 | Format::Uint8 => f64::from(c),
            Format::Fp16 => f16::from_bits(c as u16).to_f64(),
            Format::Bf16 => bf16::from_bits(c as u16).to_f64(),
            _ => f64::from(small_float(c, format)),
        })
        .filter(|v| v.is_finite())
        .collect();
    all.sort_by(f64::total_cmp);
    all.dedup_by(|a, b| a == b);
    all
}

/// The documented draw of element `index`.
fn draw(seed: u64, index: u64) -> u64 {
    Random((seed << 32).wrapping_add(index).wrapping_mul(0x9E37_79B9_7F4A_7C15)).next() >> 40
}

/// `x` in a format of these values, saturated, by the definition of the modes.
fn convert(x: f32, all: &[f64], mode: u64, seed: u64, index: u64) -> f64 {
    let x = f64::from(x).clamp(all[0], all[all.len() - 1]);
    let above = all.partition_point(|v| *v < x);
    if all[above] == x {
        return x;
    }
    let (low, high) = (all[above - 1], all[above]);
    let (small, large) = if x >= 0.0 { (low, high) } else { (high, low) };
    let fraction = (x - small) / (large - small);
    // The neighbour whose last bit is 0: a multiple of twice the step.
    let even = if (small / (large - small)).rem_euclid(2.0) == 0.0 { small } else { large };
    match mode {
        0 if fraction == 0.5 => even,
        0 => {
            if fraction > 0.5 {
                large
            } else {
                small
            }
        }
        1 => {
            if fraction >= 0.5 {
                large
            } else {
                small
            }
        }
        2 => small,
        _ => {
            if (draw(seed, index) as f64) < fraction * 16_777_216.0 {
                large
            } else {
                small
            }
        }
    }
}

fn activation(x: f32, act: u64, (low, high): (f32, f32), table: &[f32]) -> f32 {
    let relu = |x: f32| if x < 0.0 { 0.0 } else { x };
    match act {
        1 => relu(x),
        2 => relu(x) * relu(x),
        3 => gelu(x),
        4 => (0.5 * x) * (1.0 + libm::erff(x * 0.707_106_77)),
        5 => x / (1.0 + libm::expf(-x)),
        6 => 1.0 / (1.0 + libm::expf(-x)),
        7 => libm::tanhf(x),
        8 => libm::expf(x),
        9 => {
            let x = if x < low { low } else { x };
            if x > high { high } else { x }
        }
        15 => {
            let p = ((x - low) * (255.0 / (high - low))).clamp(0.0, 255.0);
            let i = (p.floor() as usize).min(254);
            table[i] + (p - i as f32) * (table[i + 1] - table[i])
        }
        _ => x,
    }
}

fn gelu(x: f32) -> f32 {
    (0.5 * x) * (1.0 + libm::tanhf(0.797_884_6 * (x + 0.044_715 * ((x * x) * x))))
}

const RESULTS: [Format; 9] = [
    Format::Fp16,
    Format::Bf16,
    Format::Fp8E4m3,
    Format::Fp8E5m2,
    Format::Int4,
    Format::Uint4,
    Format::Int8,
    Format::Uint8,
    Format::Int16,
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn epilogues_follow_their_order_into_every_format(
        (m, k, n) in (1usize..5, 1usize..24, 1usize..20),
        act in prop_oneof![0u64..10, Just(15)],
        (ew, osm, rnd) in (0u64..7, 0u64..4, 0u64..4),
        (ag, asf, grp, sf) in (0u64..2, 0u64..4, 0u64..2, 0u64..4),
        (bias, rf) in (0usize..4, 0usize..3),
        cf in prop::sample::select(&RESULTS[..]),
        (ozp, lut) in (-9i16..9, 0u64..16),
        seed: u64
    ) {
        let floats = [Format::Fp32, Format::Fp16, Format::Bf16];
        let cfg = config();
        let mut local = memories(&cfg);
        let mut random = Random(seed);
        let a = random.matrix(m, k, Format::Fp16);
        let b = random.matrix(k, n, Format::Fp16);
        put(&mut local, Space::Spm, A, 2 * k, &a, Format::Fp16);
        put(&mut local, Space::Spm, B, 2 * n, &b, Format::Fp16);
        let rf = floats[rf];
        let r = random.matrix(m, n, rf);
        put(&mut local, Space::Spm, R, row_bytes(n, rf), &r, rf);
        let (row, column) = (random.scales(1, m, asf) * 64.0, random.scales(1, n, sf) * 64.0);
        put_scales(&mut local, TABLES, &row.row(0).to_vec(), asf);
        put_scales(&mut local, TABLES + 4096, &column.row(0).to_vec(), sf);
        let bff = if bias == 3 { None } else { Some(floats[bias]) };
        let bias = bff.map_or_else(|| Array2::zeros((1, n)), |f| random.matrix(1, n, f));
        put(&mut local, Space::Spm, TABLES + 8192, 0, &bias, bff.unwrap_or(Format::Fp32));
        let outs = random.matrix(1, m.max(n), Format::Fp32) * 8.0;
        put(&mut local, Space::Spm, TABLES + 12_288, 0, &outs, Format::Fp32);
        let table: Vec<f32> = (0..256).map(|_| f16::from_f32(random.float(4.0)).to_f32()).collect();
        let mut bytes = [0; 512];
        for (i, v) in table.iter().enumerate() {
            bytes[2 * i..2 * i + 2].copy_from_slice(&f16::from_f32(*v).to_le_bytes());
        }
        local.set_lut(lut, &bytes);
        let integer = cf.bits() <= 16 && values(cf).iter().all(|v| v.fract() == 0.0 && v.abs() < 40_000.0);
        let ozp = if integer { ozp } else { 0 };
        let limits = (round(-0.7, Format::Bf16), round(0.4, Format::Bf16));
        let upper = |v: f32| u64::from(v.to_bits() >> 16);
        let tensor = 3.3f32;
        let gemm = Gemm {
            a: granule(A), b: granule(B), c: granule(OUT), csp: 1, s: granule(TABLES + 4096),
            m: m as u64 - 1, k: k as u64 - 1, n: n as u64 - 1,
            af: Format::Fp16.code(), bf: Format::Fp16.code(), cf: cf.code(),
            grp, sf, drain: 1, act, rnd, sat: 1,
            ..Gemm::default()
        };
        let epilogue = Epilogue {
            ew, r: granule(R), rf: rf.code(),
            bias: granule(TABLES + 8192), bff: bff.map_or(0, |f| f.code()),
            osm, os: if osm == 1 { u64::from(tensor.to_bits()) } else { granule(TABLES + 12_288) },
            ozp: u64::from(ozp.cast_unsigned()), lo: upper(limits.0), hi: upper(limits.1), lut,
            amax: 1, amaxa: granule(MAXIMA), as_: granule(TABLES), ag, asf, aca: granule(ACA),
            seed: seed & 0xFFFF,
            ..Epilogue::default()
        };
        run(&Command::gemm(gemm, Some(epilogue)), &cfg, &mut local);
        let all = values(cf);
        let mut largest = Array2::zeros((1, m));
        let expected = Array2::from_shape_fn((m, n), |(i, j)| {
            let mut v = a.row(i).iter().zip(b.column(j)).fold(0.0f32, |sum, (a, b)| sum + a * b);
            if ag == 1 { v *= row[[0, i]]; }
            if grp == 1 { v *= column[[0, j]]; }
            if bff.is_some() { v += bias[[0, j]]; }
            v = activation(v, act, limits, &table);
            let second = r[[i, j]];
            v = match ew {
                1 => v + second,
                2 => v - second,
                3 => v * second,
                4 => (v / (1.0 + libm::expf(-v))) * second,
                5 => gelu(v) * second,
                6 => if second > v { second } else { v },
                _ => v,
            };
            largest[[0, i]] = v.abs().max(largest[[0, i]]);
            v *= match osm { 0 => 1.0, 1 => tensor, 2 => outs[[0, j]], _ => outs[[0, i]] };
            if ozp != 0 { v += f32::from(ozp); }
            convert(v, &all, rnd, seed & 0xFFFF, (i * n + j) as u64) as f32
        });
        let got = get(&local, Space::Spm, OUT, row_bytes(n, cf), (m, n), cf);
        assert_same(&got.mapv(|v| v + 0.0), &expected.mapv(|v| v + 0.0), &format!("{gemm:?} {epilogue:?}"));
        assert_same(&get(&local, Space::Spm, MAXIMA, 0, (1, m), Format::Fp32), &largest, "maxima");
    }

    #[test]
    fn quantisation_by_blocks_writes_codes_scales_and_sums(
        (rows, cols) in (1usize..5, 1usize..200), imm in 0u64..7, sums: bool,
        (xf, yf) in (0usize..3, 0usize..3), df in 0usize..4, seed: u64
    ) {
        let floats = [Format::Fp32, Format::Fp16, Format::Bf16];
        let (xf, yf) = (floats[xf], floats[yf]);
        let (df, limit) =
            [(Format::Int8, 127.0), (Format::Int4, 7.0), (Format::Fp8E4m3, 448.0), (Format::Fp8E5m2, 57_344.0)][df];
        let cfg = config();
        let mut local = memories(&cfg);
        let x = Random(seed).matrix(rows, cols, xf);
        put(&mut local, Space::Spm, A, row_bytes(cols, xf), &x, xf);
        let vec = VecOp {
            x: granule(A), y: granule(TABLES), d: granule(OUT), rows: rows as u64 - 1, cols: cols as u64 - 1,
            xf: xf.code(), yf: yf.code(), dfm: df.code(), imm, stat: u64::from(sums), ..VecOp::default()
        };
        run(&Command::vec(VecFn::Qdyn, vec, None), &cfg, &mut local);
        let block = [cols, cols, 16, 32, 64, 128, 256][imm as usize];
        let each = if sums { 2 } else { 1 };
        let blocks = cols.div_ceil(block);
        let mut table = Array2::zeros((rows, each * blocks));
        let all = values(df);
        let mut codes = Array2::zeros((rows, cols));
        for r in 0..rows {
            for t in 0..blocks {
                let range = t * block..cols.min((t + 1) * block);
                let largest = range.clone().fold(0.0f32, |m, c| m.max(x[[r, c]].abs()));
                let factor = if largest == 0.0 { 0.0 } else { limit / largest };
                let mut sum = 0.0;
                for c in range {
                    let code = convert((x[[r, c]] * factor).clamp(-limit, limit), &all, 0, 0, 0) as f32;
                    codes[[r, c]] = code;
                    sum += code;
                }
                let scale = round(largest / limit, yf);
                table[[r, each * t]] = scale;
                if sums { table[[r, 2 * t + 1]] = round(sum * scale, yf); }
            }
        }
        let got = get(&local, Space::Spm, OUT, row_bytes(cols, df), (rows, cols), df);
        assert_same(&got.mapv(|v| v + 0.0), &codes.mapv(|v| v + 0.0), "codes");
        let pitch = row_bytes(each * blocks, yf);
        let got = get(&local, Space::Spm, TABLES, pitch, table.dim(), yf);
        assert_same(&got.mapv(|v| v + 0.0), &table.mapv(|v| v + 0.0), "table");
    }
}

/// W4A8 in groups of 32, as firmware would run it: QDYN by blocks with sums, then uint4 weights with minima.
#[test]
fn quantised_products_stay_near_the_exact_ones() {
    let cfg = config();
    let mut local = memories(&cfg);
    let mut random = Random(5);
    let (m, k, n) = (8, 512, 16);
    let x = random.matrix(m, k, Format::Fp16);
    let codes = random.matrix(k, n, Format::Uint4);
    let (scales, lows) = (random.scales(k / 32, n, 0), random.scales(k / 32, n, 0));
    put(&mut local, Space::Spm, A, 2 * k, &x, Format::Fp16);
    let mut at = B;
    for g in 0..k / 32 {
        let rows = codes.slice(ndarray::s![32 * g..32 * g + 32, ..]).to_owned();
        put(&mut local, Space::Spm, at, 8, &rows, Format::Uint4);
        at += 32 * 8;
        at += put_scales(&mut local, at, &scales.row(g).to_vec(), 0);
        at += put_scales(&mut local, at, &lows.row(g).to_vec(), 0);
    }
    let fp16 = Format::Fp16.code();
    let quantise = VecOp {
        x: granule(A),
        y: granule(TABLES),
        d: granule(OUT),
        rows: m as u64 - 1,
        cols: k as u64 - 1,
        xf: fp16,
        yf: Format::Fp32.code(),
        dfm: Format::Int8.code(),
        imm: 3,
        stat: 1,
        ..VecOp::default()
    };
    run(&Command::vec(VecFn::Qdyn, quantise, None), &cfg, &mut local);
    let gemm = Gemm {
        a: granule(OUT),
        b: granule(B),
        c: granule(ACA),
        s: granule(B + 256),
        m: m as u64 - 1,
        k: k as u64 - 1,
        n: n as u64 - 1,
        af: Format::Int8.code(),
        bf: Format::Uint4.code(),
        grp: 3,
        zpm: 2,
        ..Gemm::default()
    };
    let blocks = Epilogue { as_: granule(TABLES), ag: 3, asf: 2, asum: 1, ..Epilogue::default() };
    run(&Command::gemm(gemm, Some(blocks)), &cfg, &mut local);
    let got = get(&local, Space::Acc, ACA, 4 * n, (m, n), Format::Fp32);
    let weights = Array2::from_shape_fn((k, n), |(k, n)| {
        f64::from(codes[[k, n]]) * f64::from(scales[[k / 32, n]]) + f64::from(lows[[k / 32, n]])
    });
    let exact = x.mapv(f64::from).dot(&weights);
    // Against the codes that were multiplied only fp32 rounds; against x also the quantisation to 8 bits.
    let table = get(&local, Space::Spm, TABLES, 8 * (k / 32), (m, k / 16), Format::Fp32);
    let quantised = get(&local, Space::Spm, OUT, k, (m, k), Format::Int8);
    let seen = Array2::from_shape_fn((m, k), |(r, c)| {
        f64::from(quantised[[r, c]]) * f64::from(table[[r, 2 * (c / 32)]])
    });
    let magnitude = seen.mapv(f64::abs).dot(&weights.mapv(f64::abs));
    let worst = |reference: &Array2<f64>| {
        let errors =
            got.iter().zip(reference).zip(&magnitude).map(|((g, e), s)| (f64::from(*g) - e).abs() / s);
        errors.fold(0.0f64, f64::max)
    };
    let (rounding, quantisation) = (worst(&seen.dot(&weights)), worst(&exact));
    assert!((1e-9..4e-7).contains(&rounding), "{rounding:e}");
    assert!((1e-5..3e-3).contains(&quantisation), "{quantisation:e}");
}

fn small(df: u64) -> Gemm {
    Gemm {
        a: granule(A),
        b: granule(B),
        c: granule(ACA),
        m: 2,
        k: 15,
        n: 15,
        af: Format::Int8.code(),
        bf: Format::Int8.code(),
        df,
        ..Gemm::default()
    }
}

#[test]
fn the_array_keeps_the_weights_it_was_given() {
    let cfg = config();
    let mut local = memories(&cfg);
    let mut random = Random(9);
    let a = random.matrix(3, 16, Format::Int8);
    let (b, c) = (random.matrix(16, 16, Format::Int8), random.matrix(16, 16, Format::Int8));
    put(&mut local, Space::Spm, A, 16, &a, Format::Int8);
    let sums = |local: &npu_model::Local| get(local, Space::Acc, ACA, 64, (3, 16), Format::Int32);
    let kept = Command::gemm(Gemm { keepb: 1, ..small(0) }, None);
    // A preload, then the scratchpad changes: the product takes what was loaded.
    put(&mut local, Space::Spm, B, 16, &b, Format::Int8);
    run(&Command::gemm(Gemm { ploadb: 1, ..small(0) }, None), &cfg, &mut local);
    put(&mut local, Space::Spm, B, 16, &c, Format::Int8);
    run(&kept, &cfg, &mut local);
    assert_same(&sums(&local), &a.dot(&b), "preloaded");
    // A product that fits leaves its weights.
    run(&Command::gemm(small(1), None), &cfg, &mut local);
    put(&mut local, Space::Spm, B, 16, &b, Format::Int8);
    run(&kept, &cfg, &mut local);
    assert_same(&sums(&local), &a.dot(&c), "left behind");
    // Other formats or sizes are not held, and a dataflow that streams B leaves nothing.
    let int4 = Format::Int4.code();
    for (between, wanted) in [
        (None, Gemm { k: 11, ..small(1) }),
        (None, Gemm { bf: int4, ..small(1) }),
        (Some(2), small(0)),
        (Some(3), small(0)),
    ] {
        run(&Command::gemm(small(1), None), &cfg, &mut local);
        if let Some(df) = between {
            run(&Command::gemm(small(df), None), &cfg, &mut local);
        }
        let command = Command::gemm(Gemm { keepb: 1, ..wanted }, None);
        let fault = ops::execute(&command, &cfg, &mut local, None).expect_err("not held");
        assert_eq!(fault.code, FaultCode::BadOperand, "{wanted:?}");
    }
    // Weights with tables, in line and apart, are kept with them.
    for (change, s) in
        [("grp=2 zpm=1", B + 16 * 8), ("grp=7 zpm=1", TABLES), ("grp=2 zpm=1 tb=1", TABLES), ("sp24=1", 0)]
    {
        let text =
            format!("gemm m=2 k=15 n=15 af=int8 bf=uint4 b={} s={} c=128 {change}", granule(B), granule(s));
        local.spm[B..B + 512].fill_with(|| random.next() as u8);
        local.spm[TABLES..TABLES + 512].fill_with(|| random.next() as u8 & 0x3F);
        run(&ops_common::command(&format!("{text} df=1")), &cfg, &mut local);
        let first = local.acc.clone();
        local.spm[B..B + 512].fill(1);
        local.spm[TABLES..TABLES + 512].fill(1);
        run(&ops_common::command(&format!("{text} df=1")), &cfg, &mut local.clone());
        run(&ops_common::command(&format!("{text} keepb=1")), &cfg, &mut local);
        assert_eq!(local.acc, first, "{change}");
    }
    let cost = |g: Gemm| ops::cost(&Command::gemm(g, None), &cfg).expect("valid");
    let (whole, load, rest) =
        (cost(small(1)), cost(Gemm { ploadb: 1, ..small(1) }), cost(Gemm { keepb: 1, ..small(1) }));
    assert_eq!((load.active_cycles, load.macs, load.spm_read_bytes), (16, 0, 256));
    assert_eq!(rest.cycles + 16, whole.cycles);
    assert_eq!(rest.spm_read_bytes + 256, whole.spm_read_bytes);
}

/// MAC cycles of a product at its rate, and the scratchpad bytes nothing can avoid.
#[test]
fn costs_are_above_their_bound_and_grow_with_every_size() {
    let cfg = config();
    let pairs = [
        ("int4", "int4", 2.0),
        ("int8", "int4", 1.0),
        ("int8", "int2", 1.0),
        ("int16", "int8", 0.5),
        ("fp16", "int4", 0.5),
        ("fp8e4m3", "fp8e5m2", 1.0),
        ("fp8e4m3", "int4", 1.0),
        ("fp8e4m3", "int8", 0.5),
        ("bf16", "fp8e4m3", 0.5),
        ("fp32", "int8", 0.125),
        ("fp16", "fp32", 0.125),
    ];
    for (af, bf, rate) in pairs {
        for flags in
            ["df=0", "df=1", "df=2", "df=3", "df=1 sp24=1", "df=1 ta=1 tb=1", "df=1 acc16=1", "df=2 init=1"]
        {
            let cost = |m: u64, k: u64, n: u64| {
                let sizes = format!("m={} k={} n={}", m - 1, k - 1, n - 1);
                let c = ops_common::command(&format!("gemm {sizes} af={af} bf={bf} b=512 {flags}"));
                ops::cost(&c, &cfg).unwrap_or_else(|f| panic!("{af} {bf} {flags}: {f}"))
            };
            let base = cost(20, 64, 40);
            let work = 20.0 * 64.0 * 40.0 / if flags.contains("sp24") { 2.0 } else { 1.0 };
            assert_eq!(base.macs as f64, work, "{af} {bf} {flags}");
            assert!(base.cycles as f64 >= work / (256.0 * rate), "{af} {bf} {flags}: {base:?}");
            assert!(base.spm_read_bytes > 0 && base.acc_write_bytes > 0 && base.padded_macs >= base.macs);
            for more in [cost(33, 64, 40), cost(20, 128, 40), cost(20, 64, 57)] {
                assert!(more.cycles >= base.cycles, "{af} {bf} {flags}");
                assert!(more.spm_read_bytes >= base.spm_read_bytes && more.macs > base.macs);
            }
        }
    }
    let of = |text: &str| ops::cost(&ops_common::command(text), &cfg).expect("valid");
    // Output-stationary: 2 x 3 tiles of K = 64 steps, shift-out 16, skew 30, constant 8.
    assert_eq!(of("gemm m=19 k=63 n=39 af=int8 bf=int8 b=512 df=2").cycles, 2 * 3 * 64 + 16 + 30 + 8);
    // Half the rows of K: two folds of 16 instead of four, three column folds.
    assert_eq!(of("gemm m=19 k=63 n=39 af=int8 bf=int8 b=512 df=1 sp24=1").cycles, 16 + 6 * 20 + 30 + 8);
    // Blocks of 16 rows of K: four folds though four-bit operands would fill two.
    let blocked = of("gemm m=19 k=63 n=31 af=int4 bf=int4 b=512 s=520 grp=2 df=1");
    assert_eq!(blocked.cycles, 16 + 2 * 4 * 20 + 30 + 8);
    assert_eq!(blocked.vector_ops, 20 * 32 * 4 * 2);
}
