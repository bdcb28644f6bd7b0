//! GEMM in all formats, scale modes, orders and accumulators, against a reference on ndarray matrices written from the
//! documented order and not from the code.
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap,
    reason = "test sizes are small"
)]

mod ops_common;

use half::f16;
use isa::npu::{Command, Epilogue, Format, Gemm};
use ndarray::Array2;
use npu_model::{Local, Space};
use ops_common::{Random, assert_same, config, get, memories, put, put_scales, row_bytes, run};
use proptest::prelude::*;

const A: usize = 0;
const B: usize = 64 * 1024;
const S: usize = 160 * 1024;
const AS: usize = 192 * 1024;
const BIAS: usize = 224 * 1024;
const ACA: usize = 4096;

const fn granule(byte: usize) -> u64 {
    (byte / 32) as u64
}

fn fp16(v: f32) -> f32 {
    f16::from_f32(v).to_f32()
}

const fn rows_of(group: u64) -> usize {
    match group {
        2 => 16,
        3 => 32,
        4 => 64,
        5 | 7 => 128,
        6 => 256,
        _ => 0,
    }
}

const fn is_integer(f: Format) -> bool {
    matches!(f, Format::Int2 | Format::Int4 | Format::Uint4 | Format::Int8 | Format::Uint8 | Format::Int16)
}

const fn is_wide_float(f: Format) -> bool {
    matches!(f, Format::Fp16 | Format::Bf16 | Format::Fp32)
}

const fn is_mx(f: Format) -> bool {
    matches!(f, Format::Mxfp4 | Format::Mxfp8)
}

/// The fields of a command and what lies in memory; everything else follows.
#[derive(Clone, Debug)]
struct Case {
    g: Gemm,
    e: Epilogue,
    af: Format,
    bf: Format,
    seed: u64,
}

impl Case {
    /// The nearest valid command.
    fn new(mut g: Gemm, mut e: Epilogue, af: Format, mut bf: Format, seed: u64) -> Self {
        if is_mx(af) {
            (e.ag, e.asf, e.asum) = (3, 3, 0);
        } else if is_wide_float(af) {
            (e.ag, e.asum) = (0, 0);
        }
        if rows_of(e.ag) == 0 {
            (e.ag, e.asum, e.asp) = (0, 0, 0);
        }
        if e.asum == 1 && e.asf == 3 {
            e.asf = 2;
        }
        let blocked = !is_wide_float(af) && (rows_of(e.ag) != 0 || rows_of(g.grp) != 0);
        if is_integer(af) && !is_integer(bf) && !(bf == Format::Codebook4 && blocked) {
            bf = Format::Int8;
        }
        g.zpm = if bf == Format::Codebook4 { 3 } else { g.zpm % 3 };
        if !is_integer(bf) && bf != Format::Codebook4 {
            g.zpm = 0;
        }
        if is_mx(bf) {
            (g.grp, g.sf) = (3, 3);
        } else if is_wide_float(bf) && rows_of(g.grp) != 0 {
            g.grp = 0;
        }
        if g.zpm == 1 && g.grp == 0 {
            g.grp = 1;
        }
        if g.sp24 == 1 {
            g.tb = 0;
        }
        if g.zpm == 2 {
            let sums = is_wide_float(af) || (e.asum == 1 && rows_of(e.ag) <= rows_of(g.grp));
            if rows_of(g.grp) == 0 || g.sp24 == 1 || !sums {
                g.zpm = 0;
            } else if g.sf == 3 {
                g.sf = 2;
            }
        }
        if g.init == 3 && (g.grp != 0 || (is_integer(af) && rows_of(e.ag) == 0)) {
            g.init = 2;
        }
        let group = rows_of(g.grp);
        if group != 0 && g.grp != 7 && g.tb == 0 {
            g.n = (g.n + 1).next_multiple_of(if g.sp24 == 1 { 16 } else { 8 }) - 1;
            if (g.k as usize) < group {
                g.k = (g.k + 1).next_multiple_of(16).min(group as u64) - 1;
            }
        }
        if g.sp24 == 1 {
            g.k = (g.k + 1).next_multiple_of(4) - 1;
        }
        (g.af, g.bf) = (af.code(), bf.code());
        (g.a, g.b, g.c, g.s) = (granule(A), granule(B), granule(ACA), granule(S));
        (e.as_, e.bias) = (granule(AS), if g.init == 2 { granule(BIAS) } else { 0 });
        let integer = is_integer(af) && rows_of(e.ag) == 0 && rows_of(g.grp) == 0;
        e.bff = if g.init != 2 { 0 } else { if integer { Format::Int32 } else { Format::Bf16 }.code() };
        Self { g, e, af, bf, seed }
    }

    const fn sizes(&self) -> (usize, usize, usize) {
        (self.g.m as usize + 1, self.g.k as usize + 1, self.g.n as usize + 1)
    }

    /// Rows of K a table covers.
    fn group(&self) -> usize {
        if rows_of(self.g.grp) == 0 { self.sizes().1 } else { rows_of(self.g.grp) }
    }

    fn scaled(&self) -> bool {
        rows_of(self.g.grp) != 0
    }

    fn blocked(&self) -> bool {
        !is_wide_float(self.af) && (rows_of(self.e.ag) != 0 || self.scaled())
    }

    fn integer(&self) -> bool {
        is_integer(self.af) && !self.blocked()
    }
}

/// What B means: for each column the terms of its sum in order, and its tables by group and column.
struct Weights {
    terms: Vec<Vec<(usize, f32)>>,
    scales: Array2<f32>,
    lows: Array2<f32>,
    book: Vec<f32>,
}

/// Draws B and stores it as the layout says.
fn store_b(case: &mut Case, local: &mut Local, random: &mut Random) -> Weights {
    let (_, k, n) = case.sizes();
    let (group, sf) = (case.group(), case.g.sf);
    let spread = if case.g.grp == 7 { 128 } else { 1 };
    let groups = k.div_ceil(group);
    let scales = random.scales(groups, n.div_ceil(spread), sf);
    let lows = if case.g.zpm == 1 {
        random.matrix(groups, n.div_ceil(spread), case.bf)
    } else {
        random.scales(groups, n.div_ceil(spread), sf)
    };
    let book: Vec<f32> = (0..16).map(|_| fp16(random.float(3.0))).collect();
    let mut bytes = [0; 512];
    for (i, v) in book.iter().enumerate() {
        bytes[2 * i..2 * i + 2].copy_from_slice(&f16::from_f32(*v).to_le_bytes());
    }
    local.set_lut(case.e.cb, &bytes);
    let table = |local: &mut Local, g: usize, at: usize| {
        let mut len = put_scales(local, at, &scales.row(g).to_vec(), sf);
        if case.g.zpm == 2 {
            len += put_scales(local, at + len, &lows.row(g).to_vec(), sf);
        } else if case.g.zpm == 1 {
            let points = lows.row(g).to_owned().insert_axis(ndarray::Axis(0));
            put(local, Space::Spm, at + len, 0, &points, case.bf);
            len += row_bytes(points.ncols(), case.bf);
        }
        len
    };
    let in_line = case.scaled() && case.g.tb == 0 && case.g.grp != 7;
    let mut terms = vec![Vec::new(); n];
    let (mut at, mut side) = (B, S);
    let row = row_bytes(n, case.bf);
    let codes = random.matrix(k, n, case.bf);
    if case.g.tb == 1 {
        put(local, Space::Spm, B, row_bytes(k, case.bf), &codes.t().to_owned(), case.bf);
    }
    for g in 0..groups {
        for first in (g * group..k.min((g + 1) * group)).step_by(if case.g.sp24 == 1 { 4 } else { 1 }) {
            if case.g.sp24 == 1 {
                let values = codes.slice(ndarray::s![first..first + 2, ..]).to_owned();
                put(local, Space::Spm, at, row, &values, case.bf);
                at += 2 * row;
                for c in 0..n {
                    let (p, q) = (random.below(4) as usize, random.below(4) as usize);
                    terms[c].extend([(first + p, values[[0, c]]), (first + q, values[[1, c]])]);
                    let byte = &mut local.spm[at + c / 2];
                    let nibble = (p | q << 2) as u8;
                    *byte = if c % 2 == 0 { nibble } else { *byte & 15 | nibble << 4 };
                }
                at += n.div_ceil(2);
                continue;
            }
            (0..n).for_each(|c| terms[c].push((first, codes[[first, c]])));
            if case.g.tb == 0 {
                let values = codes.row(first).to_owned().insert_axis(ndarray::Axis(0));
                put(local, Space::Spm, at, row, &values, case.bf);
                at += row;
            }
        }
        if in_line {
            if g == 0 {
                case.g.s = granule(at);
            }
            at += table(local, g, at);
        } else {
            side += table(local, g, side);
        }
    }
    let wide = |t: &Array2<f32>| Array2::from_shape_fn((groups, n), |(g, c)| t[[g, c / spread]]);
    Weights { terms, scales: wide(&scales), lows: wide(&lows), book }
}

/// Draws and stores A's block table: scale and sum of every row and block.
fn store_blocks(
    case: &mut Case,
    local: &mut Local,
    random: &mut Random,
    a: &Array2<f32>,
) -> Array2<(f32, f32)> {
    let block = rows_of(case.e.ag);
    if block == 0 {
        return Array2::default((a.nrows(), 1));
    }
    let scales = random.scales(a.nrows(), a.ncols().div_ceil(block), case.e.asf);
    let sums = random.scales(a.nrows(), scales.ncols(), case.e.asf);
    let both = Array2::from_shape_fn(scales.dim(), |at| (scales[at], sums[at]));
    let bytes = [2, 2, 4, 1][case.e.asf as usize];
    let row = scales.ncols() * if case.e.asum == 1 { 2 } else { 1 };
    let stride = if case.e.asp == 0 { row } else { row + case.e.asp as usize };
    if case.e.asp != 0 {
        case.e.asp = stride as u64;
    }
    for (r, values) in both.rows().into_iter().enumerate() {
        let flat: Vec<f32> =
            values.iter().flat_map(|(s, t)| if case.e.asum == 1 { vec![*s, *t] } else { vec![*s] }).collect();
        put_scales(local, AS + r * stride * bytes, &flat, case.e.asf);
    }
    both
}

fn narrow(case: &Case, v: f32) -> f32 {
    if case.g.acc16 == 1 && !case.integer() { fp16(v) } else { v }
}

/// The documented sum of one element.
fn element(case: &Case, a: &[f32], blocks: &[(f32, f32)], w: &Weights, c: usize, start: f32) -> f32 {
    let group = case.group();
    let code = |(k, q): (usize, f32)| match case.g.zpm {
        1 => q - w.lows[[k / group, c]],
        3 => w.book[q as usize],
        _ => q,
    };
    if !case.blocked() {
        return w.terms[c].iter().fold(start, |acc, &(k, q)| {
            let mut v = code((k, q));
            if case.scaled() {
                v *= w.scales[[k / group, c]];
                v = fp16(if case.g.zpm == 2 { v + w.lows[[k / group, c]] } else { v });
            }
            narrow(case, acc + a[k] * v)
        });
    }
    let (mine, theirs) = (rows_of(case.e.ag), rows_of(case.g.grp));
    let block = if mine.min(theirs) == 0 { mine.max(theirs) } else { mine.min(theirs) };
    let exact = is_integer(case.af) && is_integer(case.bf);
    (0..a.len().div_ceil(block)).fold(start, |acc, t| {
        let terms = w.terms[c].iter().filter(|(k, _)| k / block == t);
        let mut p = if exact {
            let dot: i64 = terms.map(|&(k, q)| a[k] as i64 * code((k, q)) as i64).sum();
            (dot as i32) as f32
        } else {
            terms.fold(0.0, |sum, &(k, q)| sum + a[k] * code((k, q)))
        };
        let first = t * block;
        if let Some(block) = first.checked_div(mine) {
            p *= blocks[block].0;
        }
        if let Some(group) = first.checked_div(theirs) {
            p *= w.scales[[group, c]];
        }
        let mut acc = narrow(case, acc + p);
        if case.g.zpm == 2 {
            acc = narrow(case, acc + blocks[first / mine].1 * w.lows[[first / theirs, c]]);
        }
        acc
    })
}

fn check(mut case: Case) {
    let cfg = config();
    let mut local = memories(&cfg);
    let mut random = Random(case.seed);
    let (m, k, n) = case.sizes();
    let a = random.matrix(m, k, case.af);
    let stored = if case.g.ta == 1 { a.t().to_owned() } else { a.clone() };
    put(&mut local, Space::Spm, A, row_bytes(stored.ncols(), case.af), &stored, case.af);
    let w = store_b(&mut case, &mut local, &mut random);
    let blocks = store_blocks(&mut case, &mut local, &mut random, &a);
    let kind = if case.integer() { Format::Int32 } else { Format::Fp32 };
    let acc = random.matrix(m, n, kind);
    put(&mut local, Space::Acc, ACA, 4 * n, &acc, kind);
    let bias_format = if case.integer() { Format::Int32 } else { Format::Bf16 };
    let bias = random.matrix(1, n, bias_format);
    put(&mut local, Space::Spm, BIAS, 0, &bias, bias_format);
    let factors = random.matrix(1, m, Format::Fp32);
    if case.g.init == 3 {
        put(&mut local, Space::Spm, S, 0, &factors, Format::Fp32);
    }
    let needs = rows_of(case.e.ag) != 0 || case.g.init == 2 || case.bf == Format::Codebook4;
    run(&Command::gemm(case.g, needs.then_some(case.e)), &cfg, &mut local);
    let start = |r: usize, c: usize| match case.g.init {
        0 => 0.0,
        1 => acc[[r, c]],
        2 => narrow(&case, bias[[0, c]]),
        _ => narrow(&case, acc[[r, c]] * factors[[0, r]]),
    };
    if case.integer() {
        for ((r, c), _) in acc.indexed_iter() {
            let terms = w.terms[c].iter().map(|&(k, q)| {
                let q = if case.g.zpm == 1 { q - w.lows[[0, c]] } else { q };
                a[[r, k]] as i64 * q as i64
            });
            let sum = (start(r, c) as i64 + terms.sum::<i64>()) as i32;
            let sum = if case.g.acc16 == 1 { sum << 8 >> 8 } else { sum };
            let got = local.word(Space::Acc, ACA + 4 * (r * n + c)).expect("in range").cast_signed();
            assert_eq!(got, sum, "{case:?} at {r}, {c}");
        }
        return;
    }
    let expected = Array2::from_shape_fn((m, n), |(r, c)| {
        element(&case, &a.row(r).to_vec(), &blocks.row(r).to_vec(), &w, c, start(r, c))
    });
    let got = get(&local, Space::Acc, ACA, 4 * n, (m, n), Format::Fp32);
    assert_same(&got, &expected, &format!("{case:?}"));
}

fn formats(excluded: &[Format]) -> Vec<Format> {
    let all = Format::ALL.iter().copied();
    all.filter(|f| ![Format::Int32, Format::Reserved15].contains(f) && !excluded.contains(f)).collect()
}

fn cases() -> impl Strategy<Value = Case> {
    let a = prop::sample::select(formats(&[Format::Int2, Format::Codebook4]));
    let b = prop::sample::select(formats(&[]));
    let scales = (0u64..8, 0u64..4, 0u64..3, prop_oneof![Just(0u64), 2u64..7], 0u64..4, 0u64..2, 0u64..4);
    let bits = (0u64..2, 0u64..2, prop::bool::weighted(0.2), prop::bool::weighted(0.2));
    ((1u64..6, 1u64..300, 1u64..50), a, b, scales, bits, (0u64..4, 0u64..4, 0u64..16), any::<u64>()).prop_map(
        |(
            (m, k, n),
            af,
            bf,
            (grp, sf, zpm, ag, asf, asum, asp),
            (ta, tb, sp24, acc16),
            (init, df, cb),
            seed,
        )| {
            let (sp24, acc16) = (u64::from(sp24), u64::from(acc16));
            let size = Gemm { m: m - 1, k: k - 1, n: n - 1, ..Gemm::default() };
            let g = Gemm { grp, sf, zpm, ta, tb, sp24, acc16, init, df, ..size };
            Case::new(g, Epilogue { ag, asf, asum, asp, cb, ..Epilogue::default() }, af, bf, seed)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn every_product_follows_its_documented_order(case in cases()) {
        check(case);
    }
}

/// One case of every pair of formats, whatever the random ones leave out.
#[test]
fn every_pair_of_formats_executes_in_every_scale_mode() {
    for af in formats(&[Format::Int2, Format::Codebook4]) {
        for bf in formats(&[]) {
            for grp in 0..8 {
                for (ag, asum, zpm) in [(0, 0, 0), (0, 0, 1), (0, 0, 2), (3, 0, 1), (3, 1, 2)] {
                    let g = Gemm { m: 1, k: 149, n: 15, grp, zpm, sf: 2, ..Gemm::default() };
                    let e = Epilogue { ag, asum, asf: 2, cb: 5, ..Epilogue::default() };
                    check(Case::new(g, e, af, bf, 11));
                }
            }
        }
    }
}

/// What a fraction of the sum of magnitudes the worst element is away from f64 on the same codes and scales.
fn worst_error(af: Format, bf: Format, g: Gemm, e: Epilogue) -> f64 {
    let mut case = Case::new(Gemm { m: 5, k: 511, n: 15, ..g }, e, af, bf, 3);
    let cfg = config();
    let mut local = memories(&cfg);
    let mut random = Random(case.seed);
    let (m, k, n) = case.sizes();
    let a = random.matrix(m, k, af);
    put(&mut local, Space::Spm, A, row_bytes(k, af), &a, af);
    let w = store_b(&mut case, &mut local, &mut random);
    let blocks = store_blocks(&mut case, &mut local, &mut random, &a);
    let needs = rows_of(case.e.ag) != 0 || case.bf == Format::Codebook4;
    run(&Command::gemm(case.g, needs.then_some(case.e)), &cfg, &mut local);
    let got = get(&local, Space::Acc, ACA, 4 * n, (m, n), Format::Fp32);
    let weight = |c: usize, k: usize, q: f32| {
        let q = f64::from(if case.g.zpm == 3 { w.book[q as usize] } else { q });
        let table = [k / case.group(), c];
        let scaled = if case.scaled() { q * f64::from(w.scales[table]) } else { q };
        if case.g.zpm == 2 { scaled + f64::from(w.lows[table]) } else { scaled }
    };
    let errors = got.indexed_iter().map(|((r, c), got)| {
        let products = w.terms[c].iter().map(|&(k, q)| {
            let block = k.checked_div(rows_of(case.e.ag)).map_or(1.0, |b| f64::from(blocks[[r, b]].0));
            f64::from(a[[r, k]]) * block * weight(c, k, q)
        });
        let (sum, all) = products.fold((0.0, 0.0), |(sum, all), p| (sum + p, all + p.abs()));
        (f64::from(*got) - sum).abs() / all
    });
    errors.fold(0.0, f64::max)
}

#[test]
fn rounding_errors_against_f64_lie_in_their_bands() {
    use Format::{Bf16, Codebook4, Fp8E4m3, Fp8E5m2, Fp16, Int4, Int8, Mxfp4, Mxfp8, Uint4};
    let none = Gemm::default();
    let grouped = Gemm { grp: 3, ..none };
    let plain = Epilogue::default();
    let blocks = Epilogue { ag: 3, asf: 2, ..plain };
    // Sums of 512 products in fp32; weights rounded to fp16; sums rounded to fp16.
    for (af, bf, g, e, low, high) in [
        (Bf16, Bf16, none, plain, 1e-9, 2e-7),
        (Fp16, Fp8E5m2, none, plain, 1e-9, 2e-7),
        (Fp8E4m3, Fp8E4m3, Gemm { grp: 7, sf: 2, ..none }, Epilogue { ag: 5, asf: 2, ..plain }, 1e-9, 2e-7),
        (Mxfp8, Mxfp4, none, plain, 1e-9, 2e-7),
        (Int8, Int4, grouped, blocks, 1e-9, 2e-7),
        (Int8, Codebook4, grouped, blocks, 1e-9, 2e-7),
        (Fp16, Int4, grouped, plain, 1e-6, 1e-4),
        (Fp16, Uint4, Gemm { zpm: 2, ..grouped }, plain, 1e-6, 1e-4),
        (Fp16, Fp16, Gemm { acc16: 1, ..none }, plain, 1e-5, 2e-3),
    ] {
        let worst = worst_error(af, bf, g, e);
        assert!((low..high).contains(&worst), "{} x {}: {worst:e}", af.name(), bf.name());
    }
}
