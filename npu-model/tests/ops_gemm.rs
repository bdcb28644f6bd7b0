//! GEMM against a reference on ndarray matrices, written from the documented order and not from the code.
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap,
    reason = "test sizes are small"
)]

mod ops_common;

use half::f16;
use isa::npu::{Command, Epilogue, Format, Gemm};
use ndarray::{Array1, Array2};
use npu_model::{Space, ops};
use ops_common::{Random, assert_same, config, get, memories, pitch, put, put_scales, row_bytes, run};
use proptest::prelude::*;

/// Byte addresses of the operands in the scratchpad.
const A: usize = 0;
const B: usize = 64 * 1024;
const S: usize = 128 * 1024;
const AS: usize = S + 4096;
const BIAS: usize = S + 8192;
const R: usize = S + 16 * 1024;
const OUT: usize = 192 * 1024;
/// Accumulators of a product that drains to the scratchpad.
const ACA: usize = 4096;

const fn granule(byte: usize) -> u64 {
    (byte / 32) as u64
}

fn silu(x: f32) -> f32 {
    x / (1.0 + libm::expf(-x))
}

/// acc + sum over k of a w, ascending.
fn product(a: &Array2<f32>, w: &Array2<f32>, acc: &Array2<f32>) -> Array2<f32> {
    Array2::from_shape_fn(acc.dim(), |(m, n)| {
        a.row(m).iter().zip(w.column(n)).fold(acc[[m, n]], |sum, (a, w)| sum + a * w)
    })
}

#[derive(Clone, Copy, Debug)]
struct Case {
    m: usize,
    k: usize,
    n: usize,
    af: Format,
    bf: Format,
    tb: bool,
    init: u64,
    df: u64,
    strides: [u64; 3],
    seed: u64,
}

impl Case {
    fn gemm(&self) -> Gemm {
        Gemm {
            a: granule(A),
            b: granule(B),
            c: granule(ACA),
            s: granule(S),
            m: self.m as u64 - 1,
            n: self.n as u64 - 1,
            k: self.k as u64 - 1,
            ast: self.strides[0],
            bst: self.strides[1],
            cst: self.strides[2],
            af: self.af.code(),
            bf: self.bf.code(),
            cf: Format::Fp32.code(),
            tb: u64::from(self.tb),
            init: self.init,
            df: self.df,
            ..Gemm::default()
        }
    }
}

/// A stride of whole granules that holds a row, or 0.
fn stride(choice: u64, cols: usize, format: Format) -> u64 {
    if choice == 0 { 0 } else { row_bytes(cols, format).div_ceil(32) as u64 + choice - 1 }
}

fn floats() -> impl Strategy<Value = Case> {
    let a = prop_oneof![Just(Format::Fp16), Just(Format::Bf16), Just(Format::Fp32)];
    let b = prop_oneof![
        Just(Format::Int4),
        Just(Format::Int8),
        Just(Format::Fp16),
        Just(Format::Bf16),
        Just(Format::Fp32)
    ];
    let init = prop_oneof![Just(0u64), Just(1), Just(3)];
    let df = prop_oneof![Just(0u64), Just(1), Just(3)];
    (
        (1usize..12, 1usize..80, 1usize..40),
        a,
        b,
        any::<bool>(),
        init,
        df,
        [0u64..3, 0u64..3, 0u64..3],
        any::<u64>(),
    )
        .prop_map(|((m, k, n), af, bf, tb, init, df, s, seed)| {
            let tb = tb && bf != Format::Int4;
            let strides = [
                stride(s[0], k, af),
                if tb { stride(s[1], k, bf) } else { stride(s[1], n, bf) },
                stride(s[2], n, Format::Fp32),
            ];
            Case { m, k, n, af, bf, tb, init, df, strides, seed }
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn float_products_accumulate_in_k_order(case in floats()) {
        let cfg = config();
        let mut local = memories(&cfg);
        let mut random = Random(case.seed);
        let a = random.matrix(case.m, case.k, case.af);
        let b = random.matrix(case.k, case.n, case.bf);
        let acc = random.matrix(case.m, case.n, Format::Fp32);
        let factors = random.matrix(1, case.m, Format::Fp32);
        let stored = if case.tb { b.t().to_owned() } else { b.clone() };
        let b_cols = stored.ncols();
        let acc_pitch = pitch(case.n, Format::Fp32, case.strides[2]);
        put(&mut local, Space::Spm, A, pitch(case.k, case.af, case.strides[0]), &a, case.af);
        put(&mut local, Space::Spm, B, pitch(b_cols, case.bf, case.strides[1]), &stored, case.bf);
        put(&mut local, Space::Spm, S, 0, &factors, Format::Fp32);
        put(&mut local, Space::Acc, ACA, acc_pitch, &acc, Format::Fp32);
        run(&Command::gemm(case.gemm(), None), &cfg, &mut local);
        let start = match case.init {
            0 => Array2::zeros(acc.dim()),
            1 => acc,
            _ => Array2::from_shape_fn(acc.dim(), |(m, n)| acc[[m, n]] * factors[[0, m]]),
        };
        let got = get(&local, Space::Acc, ACA, acc_pitch, (case.m, case.n), Format::Fp32);
        assert_same(&got, &product(&a, &b, &start), "accumulators");
    }

    #[test]
    fn group_scales_are_decoded_to_fp16_weights(
        (m, k, n) in (1usize..6, 1usize..150, 1usize..9),
        grp in 2u64..7, code in 0usize..4, sf in 0u64..4, minima: bool, seed: u64
    ) {
        let cfg = config();
        let mut local = memories(&cfg);
        let mut random = Random(seed);
        let minima = minima && sf != 3;
        let bf = [Format::Int4, Format::Uint4, Format::Int8, Format::Uint8][code];
        // The first group's rows must end on a granule: 32 columns of int4 are half of one.
        let n = n * 8;
        let group = [16usize, 32, 64, 128, 256][grp as usize - 2];
        let row = row_bytes(n, bf);
        let k = if k < group { k.next_multiple_of(32 / row.min(32)).min(group) } else { k };
        prop_assume!((group.min(k) * row).is_multiple_of(32));
        let a = random.matrix(m, k, Format::Fp16);
        let codes = random.matrix(k, n, bf);
        let scales = random.scales(k.div_ceil(group), n, sf);
        let lows = random.scales(k.div_ceil(group), n, sf);
        put(&mut local, Space::Spm, A, row_bytes(k, Format::Fp16), &a, Format::Fp16);
        let mut at = B;
        for (g, scale) in scales.rows().into_iter().enumerate() {
            let rows = codes.slice(ndarray::s![g * group..k.min((g + 1) * group), ..]).to_owned();
            put(&mut local, Space::Spm, at, row, &rows, bf);
            at += rows.nrows() * row;
            at += put_scales(&mut local, at, &scale.to_vec(), sf);
            if minima {
                at += put_scales(&mut local, at, &lows.row(g).to_vec(), sf);
            }
        }
        let zpm = if minima { 2 } else { 0 };
        let image = isa::image::Matrix { panel: n as u64, format: bf, grp, sf, zpm };
        prop_assert_eq!((at - B) as u64, image.row_offset(k as u64));
        let gemm = Gemm {
            b: granule(B),
            c: granule(ACA),
            s: granule(B + group.min(k) * row),
            m: m as u64 - 1,
            n: n as u64 - 1,
            k: k as u64 - 1,
            af: Format::Fp16.code(),
            bf: bf.code(),
            grp,
            sf,
            zpm,
            ..Gemm::default()
        };
        run(&Command::gemm(gemm, None), &cfg, &mut local);
        let w = Array2::from_shape_fn((k, n), |(k, n)| {
            let scaled = codes[[k, n]] * scales[[k / group, n]];
            f16::from_f32(if minima { scaled + lows[[k / group, n]] } else { scaled }).to_f32()
        });
        let got = get(&local, Space::Acc, ACA, row_bytes(n, Format::Fp32), (m, n), Format::Fp32);
        assert_same(&got, &product(&a, &w, &Array2::zeros((m, n))), "accumulators");
    }

    #[test]
    fn integer_products_are_exact(
        (m, k, n) in (1usize..12, 1usize..300, 1usize..40), int4: bool, keep: bool, tb: bool, seed: u64
    ) {
        let cfg = config();
        let mut local = memories(&cfg);
        let mut random = Random(seed);
        let bf = if int4 { Format::Int4 } else { Format::Int8 };
        let tb = tb && !int4;
        let a = random.matrix(m, k, Format::Int8);
        let b = random.matrix(k, n, bf);
        let acc = random.matrix(m, n, Format::Int32);
        let stored = if tb { b.t().to_owned() } else { b.clone() };
        put(&mut local, Space::Spm, A, k, &a, Format::Int8);
        put(&mut local, Space::Spm, B, row_bytes(stored.ncols(), bf), &stored, bf);
        put(&mut local, Space::Acc, ACA, 4 * n, &acc, Format::Int32);
        let gemm = Gemm {
            b: granule(B),
            c: granule(ACA),
            m: m as u64 - 1,
            n: n as u64 - 1,
            k: k as u64 - 1,
            af: Format::Int8.code(),
            bf: bf.code(),
            cf: Format::Int32.code(),
            init: u64::from(keep),
            tb: u64::from(tb),
            drain: seed & 1,
            ..Gemm::default()
        };
        run(&Command::gemm(gemm, None), &cfg, &mut local);
        let integer = |m: &Array2<f32>| m.mapv(|v| v as i64);
        let mut expected = integer(&a).dot(&integer(&b));
        if keep {
            expected += &integer(&acc);
        }
        let got = Array2::from_shape_fn((m, n), |(r, c)| {
            i64::from(local.word(Space::Acc, ACA + 4 * (r * n + c)).expect("in range").cast_signed())
        });
        prop_assert_eq!(got, expected);
    }

    #[test]
    fn the_drain_follows_its_order(
        (m, k, n) in (1usize..6, 1usize..40, 1usize..40),
        (integer, row_scale, column_scale, to_spm, half_bias) in any::<(bool, bool, bool, bool, bool)>(),
        bias: bool,
        act in prop_oneof![Just(0u64), Just(1), Just(5)],
        ew in prop_oneof![0u64..5, Just(6)],
        (r_half, r_acc, saturate) in any::<(bool, bool, bool)>(),
        seed: u64
    ) {
        let cfg = config();
        let mut local = memories(&cfg);
        let mut random = Random(seed);
        let (af, bf) = if integer { (Format::Int8, Format::Int4) } else { (Format::Fp16, Format::Fp16) };
        let a = random.matrix(m, k, af);
        let b = random.matrix(k, n, bf);
        let (sa, sb) = (random.matrix(1, m, Format::Fp32), random.matrix(1, n, Format::Fp32));
        let bias_format = if half_bias { Format::Fp16 } else { Format::Fp32 };
        let bias_values = random.matrix(1, n, bias_format);
        let r_format = if r_half { Format::Fp16 } else { Format::Fp32 };
        let r = random.matrix(m, n, r_format);
        put(&mut local, Space::Spm, A, row_bytes(k, af), &a, af);
        put(&mut local, Space::Spm, B, row_bytes(n, bf), &b, bf);
        put(&mut local, Space::Spm, S, 0, &sb, Format::Fp32);
        put(&mut local, Space::Spm, AS, 0, &sa, Format::Fp32);
        put(&mut local, Space::Spm, BIAS, 0, &bias_values, bias_format);
        let (r_space, r_at) = if r_acc { (Space::Acc, 32 * 1024) } else { (Space::Spm, R) };
        put(&mut local, r_space, r_at, row_bytes(n, r_format), &r, r_format);
        // A scaled column needs grp = 1; a saturating fp16 result needs large values, so scale them up.
        let cf = if to_spm { Format::Fp16 } else { Format::Fp32 };
        let gemm = Gemm {
            b: granule(B),
            c: if to_spm { granule(OUT) } else { granule(ACA) },
            csp: u64::from(to_spm),
            s: granule(S),
            m: m as u64 - 1,
            n: n as u64 - 1,
            k: k as u64 - 1,
            af: af.code(),
            bf: bf.code(),
            cf: cf.code(),
            grp: u64::from(column_scale),
            sf: 2,
            drain: 1,
            act,
            sat: u64::from(saturate),
            ..Gemm::default()
        };
        let epilogue = Epilogue {
            ew,
            r: granule(r_at),
            rs: u64::from(r_acc),
            rf: r_format.code(),
            bias: granule(BIAS),
            bff: if bias { bias_format.code() } else { 0 },
            as_: granule(AS),
            ag: u64::from(row_scale),
            asf: 2,
            aca: granule(ACA),
            ..Epilogue::default()
        };
        run(&Command::gemm(gemm, Some(epilogue)), &cfg, &mut local);
        let sums = product(&a, &b, &Array2::zeros((m, n)));
        let sums = if integer { a.mapv(|v| v as i32).dot(&b.mapv(|v| v as i32)).mapv(|v| v as f32) } else { sums };
        let mut v = sums.clone();
        if row_scale {
            v = Array2::from_shape_fn((m, n), |(i, j)| v[[i, j]] * sa[[0, i]]);
        }
        if column_scale {
            v *= &sb;
        }
        if bias {
            v += &bias_values;
        }
        v.mapv_inplace(|x| match act {
            1 if x < 0.0 => 0.0,
            5 => silu(x),
            _ => x,
        });
        match ew {
            1 => v += &r,
            2 => v -= &r,
            3 => v *= &r,
            4 => v = v.mapv(silu) * &r,
            6 => v.zip_mut_with(&r, |v, &r| if r > *v { *v = r }),
            _ => {}
        }
        if to_spm {
            let expected = v.mapv(|x| {
                let h = f16::from_f32(x).to_f32();
                if saturate { h.clamp(-65504.0, 65504.0) } else { h }
            });
            let got = get(&local, Space::Spm, OUT, 2 * n, (m, n), Format::Fp16);
            assert_same(&got, &expected, "C in the scratchpad");
            if !integer {
                let kept = get(&local, Space::Acc, ACA, 4 * n, (m, n), Format::Fp32);
                assert_same(&kept, &sums, "sums kept in the accumulator");
            }
        } else {
            let got = get(&local, Space::Acc, ACA, 4 * n, (m, n), Format::Fp32);
            assert_same(&got, &v, "C in the accumulator");
        }
    }
}

fn scalar(a: f32, b: f32, cf: Format, sat: u64) -> u32 {
    let cfg = config();
    let mut local = memories(&cfg);
    put(&mut local, Space::Spm, A, 4, &Array2::from_elem((1, 1), a), Format::Fp32);
    put(&mut local, Space::Spm, B, 4, &Array2::from_elem((1, 1), b), Format::Fp32);
    let gemm = Gemm {
        b: granule(B),
        c: granule(OUT),
        csp: 1,
        af: Format::Fp32.code(),
        bf: Format::Fp32.code(),
        cf: cf.code(),
        drain: 1,
        sat,
        ..Gemm::default()
    };
    run(&Command::gemm(gemm, None), &cfg, &mut local);
    local.word(Space::Spm, OUT).expect("in range")
}

#[test]
fn conversion_saturates_overflows_and_has_one_nan() {
    assert_eq!(scalar(65520.0, 1.0, Format::Fp16, 0) & 0xFFFF, 0x7C00);
    assert_eq!(scalar(65520.0, 1.0, Format::Fp16, 1) & 0xFFFF, 0x7BFF);
    assert_eq!(scalar(-1.0e9, 1.0, Format::Fp16, 1) & 0xFFFF, 0xFBFF);
    assert_eq!(scalar(65519.0, 1.0, Format::Fp16, 0) & 0xFFFF, 0x7BFF);
    assert_eq!(scalar(f32::INFINITY, 0.0, Format::Fp32, 0), 0x7FC0_0000);
    assert_eq!(scalar(f32::INFINITY, 0.0, Format::Fp16, 1) & 0xFFFF, 0x7E00);
}

#[test]
fn integer_accumulators_wrap() {
    let cfg = config();
    let mut local = memories(&cfg);
    put(&mut local, Space::Spm, A, 1, &Array2::from_elem((1, 1), 127.0), Format::Int8);
    put(&mut local, Space::Spm, B, 1, &Array2::from_elem((1, 1), 127.0), Format::Int8);
    local.set_word(Space::Acc, ACA, i32::MAX.cast_unsigned()).expect("in range");
    let gemm = Gemm {
        b: granule(B),
        c: granule(ACA),
        af: Format::Int8.code(),
        bf: Format::Int8.code(),
        init: 1,
        ..Gemm::default()
    };
    run(&Command::gemm(gemm, None), &cfg, &mut local);
    let got = local.word(Space::Acc, ACA).expect("in range").cast_signed();
    assert_eq!(got, i32::MIN + 127 * 127 - 1);
}

#[test]
fn rounding_error_against_f64_lies_in_its_band() {
    let cfg = config();
    let mut local = memories(&cfg);
    let mut random = Random(1);
    let (m, k, n) = (8, 1000, 16);
    let a = random.matrix(m, k, Format::Fp16);
    let b = random.matrix(k, n, Format::Fp16);
    put(&mut local, Space::Spm, A, 2 * k, &a, Format::Fp16);
    put(&mut local, Space::Spm, B, 2 * n, &b, Format::Fp16);
    let gemm = Gemm {
        b: granule(B),
        c: granule(ACA),
        m: m as u64 - 1,
        n: n as u64 - 1,
        k: k as u64 - 1,
        af: Format::Fp16.code(),
        bf: Format::Fp16.code(),
        ..Gemm::default()
    };
    run(&Command::gemm(gemm, None), &cfg, &mut local);
    let got = get(&local, Space::Acc, ACA, 4 * n, (m, n), Format::Fp32);
    let exact = a.mapv(f64::from).dot(&b.mapv(f64::from));
    let magnitude = a.mapv(|v| f64::from(v.abs())).dot(&b.mapv(|v| f64::from(v.abs())));
    let errors: Array1<f64> =
        got.iter().zip(&exact).zip(&magnitude).map(|((g, e), s)| (f64::from(*g) - e).abs() / s).collect();
    let unit = f64::from(f32::EPSILON) / 2.0;
    let worst = errors.fold(0.0f64, |w, e| w.max(*e));
    // At least some roundings, at most the worst case of K sums and a product each, usually about its root.
    assert!(worst > 0.01 * unit, "no rounding at all: {worst:e}");
    assert!(worst < 4.0 * (k as f64).sqrt() * unit, "{worst:e}");
}

fn cost(gemm: Gemm) -> ops::Cost {
    ops::cost(&Command::gemm(gemm, None), &config()).expect("valid")
}

#[test]
fn costs_follow_the_closed_forms() {
    let base = Gemm {
        b: granule(B),
        m: 31,
        n: 31,
        k: 63,
        af: Format::Int8.code(),
        bf: Format::Int8.code(),
        df: 1,
        ..Gemm::default()
    };
    // 16 x 16: load 16, then 8 folds of 32 rows, skew 30, constant 3 + 5.
    let c = cost(base);
    assert_eq!(c.cycles, 16 + 8 * 32 + 30 + 8);
    assert_eq!((c.macs, c.padded_macs), (32 * 32 * 64, 32 * 32 * 64));
    // Operands of 16 bits halve the rows a fold covers, fp32 leaves an eighth.
    let c = cost(Gemm { af: Format::Fp16.code(), bf: Format::Fp16.code(), ..base });
    assert_eq!(c.cycles, 16 + 16 * 32 + 30 + 8);
    let c = cost(Gemm { af: Format::Fp32.code(), bf: Format::Fp32.code(), ..base });
    assert_eq!(c.cycles, 16 + 64 * 32 + 30 + 8);
    // Few rows: a fold costs its weight load.
    let c = cost(Gemm { m: 3, ..base });
    assert_eq!(c.cycles, 16 + 7 * 16 + 4 + 30 + 8);
    // B streams once: 64 x 32 bytes at 64 a cycle. One row leaves most of the array idle, so auto takes it.
    let c = cost(Gemm { m: 0, df: 3, ..base });
    assert_eq!(c.cycles, 16 + 64 * 32 / 64 + 30 + 8);
    assert_eq!(cost(Gemm { m: 0, df: 0, ..base }), c);
    // Bytes: A once a column fold, B once, partial sums through the accumulator once a K fold.
    let c = cost(base);
    assert_eq!(c.spm_read_bytes, 2 * 32 * 64 + 64 * 32);
    assert_eq!((c.acc_read_bytes, c.acc_write_bytes), (3 * 4096, 4 * 4096));
    let c = cost(Gemm { init: 1, ..base });
    assert_eq!(c.acc_read_bytes, 4 * 4096);
}
