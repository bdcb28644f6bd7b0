//! VEC functions against references on ndarray matrices, written from the documented order and not from the code.
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap,
    reason = "test sizes are small"
)]

mod ops_common;

use half::f16;
use isa::npu::{Command, Format, Position, VecFn, VecOp};
use ndarray::{Array1, Array2, Axis};
use npu_model::{Local, Space, ops};
use ops_common::{Random, assert_same, config, get, memories, pitch, put, round, row_bytes, run};
use proptest::prelude::*;

const X: usize = 0;
const Y: usize = 64 * 1024;
const D: usize = 128 * 1024;
const ALPHA: usize = 200 * 1024;

const fn granule(byte: usize) -> u64 {
    (byte / 32) as u64
}

fn silu(x: f32) -> f32 {
    x / (1.0 + libm::expf(-x))
}

fn float() -> impl Strategy<Value = Format> {
    prop_oneof![Just(Format::Fp16), Just(Format::Bf16), Just(Format::Fp32)]
}

fn stride(choice: u64, cols: usize, format: Format) -> u64 {
    if choice == 0 { 0 } else { row_bytes(cols, format).div_ceil(32) as u64 + choice - 1 }
}

/// One source, one destination, the command's fields for them.
#[derive(Debug)]
struct Operands {
    rows: usize,
    cols: usize,
    xf: Format,
    df: Format,
    xst: u64,
    dst: u64,
    in_place: bool,
}

impl Operands {
    fn destination(&self) -> usize {
        if self.in_place { X } else { D }
    }

    fn vec(&self) -> VecOp {
        VecOp {
            x: granule(X),
            y: granule(Y),
            d: granule(self.destination()),
            rows: self.rows as u64 - 1,
            cols: self.cols as u64 - 1,
            xst: self.xst,
            dst: self.dst,
            xf: self.xf.code(),
            yf: Format::Fp32.code(),
            dfm: self.df.code(),
            ..VecOp::default()
        }
    }

    fn put_x(&self, local: &mut Local, x: &Array2<f32>) {
        put(local, Space::Spm, X, pitch(self.cols, self.xf, self.xst), x, self.xf);
    }

    fn result(&self, local: &Local) -> Array2<f32> {
        let p = pitch(self.cols, self.df, self.dst);
        get(local, Space::Spm, self.destination(), p, (self.rows, self.cols), self.df)
    }
}

fn operands() -> impl Strategy<Value = Operands> {
    (1usize..7, 1usize..70, float(), float(), 0u64..3, 0u64..3, any::<bool>()).prop_map(
        |(rows, cols, xf, df, xs, ds, in_place)| {
            // In place means the same rows, so the same format and stride.
            let df = if in_place { xf } else { df };
            let xst = stride(xs, cols, xf);
            let dst = if in_place { xst } else { stride(ds, cols, df) };
            Operands { rows, cols, xf, df, xst, dst, in_place }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn element_wise_functions(o in operands(), which in 0usize..8, bc in 0u64..4, yf in float(), seed: u64) {
        let functions = [
            VecFn::Cvt, VecFn::Add, VecFn::Sub, VecFn::Mul, VecFn::Max, VecFn::Min, VecFn::Silu, VecFn::Swiglu,
        ];
        let function = functions[which];
        let cfg = config();
        let mut local = memories(&cfg);
        let mut random = Random(seed);
        let x = random.matrix(o.rows, o.cols, o.xf);
        let imm = random.float(3.0);
        let (y_rows, y_cols) = match bc { 0 => (o.rows, o.cols), 1 => (1, o.cols), _ => (o.rows, 1) };
        let y = random.matrix(y_rows, y_cols, yf);
        let yst = if bc == 1 { 0 } else { stride(seed % 3, y_cols, yf) };
        o.put_x(&mut local, &x);
        put(&mut local, Space::Spm, Y, pitch(y_cols, yf, yst), &y, yf);
        let vec = VecOp { yst, yf: yf.code(), bc, imm: u64::from(imm.to_bits()), ..o.vec() };
        run(&Command::vec(function, vec, None), &cfg, &mut local);
        let second = match bc {
            3 => Array2::from_elem(x.dim(), imm),
            _ => y.broadcast(x.dim()).expect("shapes fit").to_owned(),
        };
        let expected = match function {
            VecFn::Cvt => x.clone(),
            VecFn::Add => &x + &second,
            VecFn::Sub => &x - &second,
            VecFn::Mul => &x * &second,
            VecFn::Silu => x.mapv(silu),
            VecFn::Swiglu => x.mapv(silu) * &second,
            VecFn::Max => ndarray::Zip::from(&x).and(&second).map_collect(|&x, &y| if y > x { y } else { x }),
            _ => ndarray::Zip::from(&x).and(&second).map_collect(|&x, &y| if y < x { y } else { x }),
        };
        assert_same(&o.result(&local), &expected.mapv(|v| round(v, o.df)), function.name());
    }

    #[test]
    fn integers_convert_to_floats(rows in 1usize..5, cols in 1usize..60, wide: bool, df in float(), seed: u64) {
        let cfg = config();
        let mut local = memories(&cfg);
        let xf = if wide { Format::Int32 } else { Format::Int8 };
        let x = Random(seed).matrix(rows, cols, xf);
        let o = Operands { rows, cols, xf, df, xst: 0, dst: 0, in_place: false };
        // From the accumulator this time.
        put(&mut local, Space::Acc, X, row_bytes(cols, xf), &x, xf);
        run(&Command::vec(VecFn::Cvt, VecOp { xs: 1, ..o.vec() }, None), &cfg, &mut local);
        assert_same(&o.result(&local), &x.mapv(|v| round(v, df)), "cvt");
    }

    #[test]
    fn rmsnorm(o in operands(), seed: u64) {
        let cfg = config();
        let mut local = memories(&cfg);
        let mut random = Random(seed);
        let x = random.matrix(o.rows, o.cols, o.xf);
        let gain = random.matrix(1, o.cols, Format::Fp32);
        let epsilon = 1.0e-5f32;
        o.put_x(&mut local, &x);
        put(&mut local, Space::Spm, Y, 0, &gain, Format::Fp32);
        let vec = VecOp { imm: u64::from(epsilon.to_bits()), ..o.vec() };
        run(&Command::vec(VecFn::Rmsnorm, vec, None), &cfg, &mut local);
        let squares = x.map_axis(Axis(1), |row| row.iter().fold(0.0f32, |s, v| s + v * v));
        let r = squares.mapv(|s| 1.0 / libm::sqrtf(s / o.cols as f32 + epsilon));
        let expected = (&x * &r.insert_axis(Axis(1))) * &gain;
        assert_same(&o.result(&local), &expected.mapv(|v| round(v, o.df)), "rmsnorm");
    }

    #[test]
    fn rope(
        half in 1usize..9, heads in 1usize..4, rows in 1usize..7, inter: bool, in_place: bool,
        xf in float(), q0 in 0u64..5000, rdiv in 0u64..3, seed: u64
    ) {
        let cfg = config();
        let mut local = memories(&cfg);
        let mut random = Random(seed);
        let o = Operands { rows, cols: 2 * half * heads, xf, df: xf, xst: 0, dst: 0, in_place };
        let x = random.matrix(rows, o.cols, xf);
        let frequency = random.matrix(1, half, Format::Fp32).mapv(f32::abs);
        o.put_x(&mut local, &x);
        put(&mut local, Space::Spm, Y, 0, &frequency, Format::Fp32);
        let position = Position { q0, rdiv, ..Position::default() };
        let function = if inter { VecFn::RopeInter } else { VecFn::RopeHalf };
        let vec = VecOp { imm: 2 * half as u64, ..o.vec() };
        run(&Command::vec(function, vec, Some(position)), &cfg, &mut local);
        let expected = Array2::from_shape_fn(x.dim(), |(r, c)| {
            let (head, j) = (c / (2 * half), c % (2 * half));
            let (pair, second) = if inter { (j / 2, j % 2 == 1) } else { (j % half, j >= half) };
            let angle = (q0 + r as u64 / (rdiv + 1)) as f32 * frequency[[0, pair]];
            let (sin, cos) = (libm::sinf(angle), libm::cosf(angle));
            let (first, last) = if inter { (2 * pair, 2 * pair + 1) } else { (pair, pair + half) };
            let (a, b) = (x[[r, head * 2 * half + first]], x[[r, head * 2 * half + last]]);
            round(if second { a * sin + b * cos } else { a * cos - b * sin }, xf)
        });
        assert_same(&o.result(&local), &expected, function.name());
    }

    #[test]
    fn qdyn(o in operands(), in_place: bool, zero_row: bool, seed: u64) {
        let cfg = config();
        let mut local = memories(&cfg);
        let mut x = Random(seed).matrix(o.rows, o.cols, o.xf);
        if zero_row {
            x.row_mut(0).fill(0.0);
        }
        let o = Operands { df: Format::Int8, dst: if in_place { o.xst } else { 0 }, in_place, ..o };
        // Rows of codes in place need the source's stride unless the rows are packed granules apart.
        prop_assume!(!in_place || o.xst != 0 || o.rows == 1);
        o.put_x(&mut local, &x);
        run(&Command::vec(VecFn::Qdyn, o.vec(), None), &cfg, &mut local);
        let largest = x.map_axis(Axis(1), |row| row.iter().fold(0.0f32, |m, v| m.max(v.abs())));
        let expected = Array2::from_shape_fn(x.dim(), |(r, c)| {
            let a = largest[r];
            if a == 0.0 { 0.0 } else { libm::rintf(x[[r, c]] * (127.0 / a)).clamp(-127.0, 127.0) }
        });
        assert_same(&o.result(&local).mapv(|v| v + 0.0), &expected.mapv(|v| v + 0.0), "codes");
        let scales = get(&local, Space::Spm, Y, 4, (o.rows, 1), Format::Fp32);
        assert_same(&scales, &largest.mapv(|a| a / 127.0).insert_axis(Axis(1)), "scales");
    }

    #[test]
    fn flash_step_over_blocks_keeps_a_running_softmax(
        rows in 1usize..6, blocks in proptest::collection::vec(1usize..20, 1..4),
        mask in 0u64..3, q0 in 0u64..40, k0 in 0u64..20, rdiv in 0u64..3, win in 0u64..12, seed: u64
    ) {
        let cfg = config();
        let mut local = memories(&cfg);
        let mut random = Random(seed);
        let scale = 0.7f32;
        let mut state: Array1<(f32, f32)> = Array1::from_elem(rows, (f32::NEG_INFINITY, 0.0));
        let mut first_key = k0;
        for (index, &cols) in blocks.iter().enumerate() {
            let scores = random.matrix(rows, cols, Format::Fp32) * 4.0;
            put(&mut local, Space::Spm, X, 4 * cols, &scores, Format::Fp32);
            let vec = VecOp {
                x: granule(X), y: granule(Y), d: granule(D),
                rows: rows as u64 - 1, cols: cols as u64 - 1,
                xf: Format::Fp32.code(), yf: Format::Fp32.code(), dfm: Format::Fp16.code(),
                imm: u64::from(scale.to_bits()), mask, upd: u64::from(index > 0),
                ..VecOp::default()
            };
            let position =
                Position { q0, k0: first_key, rdiv, win, alpha: granule(ALPHA), ..Position::default() };
            run(&Command::vec(VecFn::FaStep, vec, Some(position)), &cfg, &mut local);
            let mut p = Array2::zeros((rows, cols));
            let mut alphas = Array2::zeros((rows, 1));
            for r in 0..rows {
                let query = (q0 + r as u64 / (rdiv + 1)) as i64;
                let seen = |j: usize| {
                    let behind = query - (first_key + j as u64) as i64;
                    mask == 0 || (behind >= 0 && (mask == 1 || win == 0 || behind < win as i64))
                };
                let (m, l) = state[r];
                let keys: Vec<usize> = (0..cols).filter(|&j| seen(j)).collect();
                let new_m = keys.iter().fold(m, |m, &j| m.max(scores[[r, j]] * scale));
                let mut sum = 0.0f32;
                for &j in &keys {
                    let e = libm::expf(scores[[r, j]] * scale - new_m);
                    p[[r, j]] = f16::from_f32(e).to_f32();
                    sum += e;
                }
                let alpha = match (m.is_finite(), new_m.is_finite()) {
                    (false, false) => 1.0,
                    (false, true) => 0.0,
                    _ => libm::expf(m - new_m),
                };
                alphas[[r, 0]] = alpha;
                state[r] = (new_m, l * alpha + sum);
            }
            assert_same(&get(&local, Space::Spm, D, 2 * cols, (rows, cols), Format::Fp16), &p, "probabilities");
            assert_same(&get(&local, Space::Spm, ALPHA, 4, (rows, 1), Format::Fp32), &alphas, "alpha");
            let pairs = Array2::from_shape_fn((rows, 2), |(r, c)| if c == 0 { state[r].0 } else { state[r].1 });
            assert_same(&get(&local, Space::Spm, Y, 8, (rows, 2), Format::Fp32), &pairs, "running pairs");
            first_key += cols as u64;
        }
        // And the end: x / l, 0 where no key was seen.
        let x = random.matrix(rows, 9, Format::Fp32);
        put(&mut local, Space::Acc, 0, 36, &x, Format::Fp32);
        let vec = VecOp {
            xs: 1, y: granule(Y), d: granule(D), rows: rows as u64 - 1, cols: 8,
            xf: Format::Fp32.code(), yf: Format::Fp32.code(), dfm: Format::Fp16.code(),
            ..VecOp::default()
        };
        run(&Command::vec(VecFn::FaFin, vec, None), &cfg, &mut local);
        let expected = Array2::from_shape_fn(x.dim(), |(r, c)| {
            let l = state[r].1;
            f16::from_f32(if l == 0.0 { 0.0 } else { x[[r, c]] / l }).to_f32()
        });
        assert_same(&get(&local, Space::Spm, D, 18, (rows, 9), Format::Fp16), &expected, "fa_fin");
    }

    #[test]
    fn argmax(
        rows in 1usize..4, blocks in proptest::collection::vec(1usize..30, 1..4), k0 in 0u64..1000, seed: u64
    ) {
        let cfg = config();
        let mut local = memories(&cfg);
        let mut random = Random(seed);
        let mut seen = Array2::<f32>::zeros((rows, 0));
        for (index, &cols) in blocks.iter().enumerate() {
            // Few distinct values, so that ties happen.
            let x = Array2::from_shape_simple_fn((rows, cols), || random.below(7) as f32 - 3.0);
            put(&mut local, Space::Spm, X, 4 * cols, &x, Format::Fp32);
            let vec = VecOp {
                d: granule(D), rows: rows as u64 - 1, cols: cols as u64 - 1, xf: Format::Fp32.code(),
                upd: u64::from(index > 0),
                ..VecOp::default()
            };
            let position = Position { k0: k0 + seen.ncols() as u64, ..Position::default() };
            run(&Command::vec(VecFn::Argmax, vec, Some(position)), &cfg, &mut local);
            seen.append(Axis(1), x.view()).expect("same rows");
        }
        for (r, row) in seen.rows().into_iter().enumerate() {
            let best = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let index = k0 + row.iter().position(|&v| v == best).expect("some") as u64;
            let record: Vec<u32> =
                (0..4).map(|i| local.word(Space::Spm, D + 16 * r + 4 * i).expect("in range")).collect();
            prop_assert_eq!(record, vec![index as u32, best.to_bits(), 0, 0]);
        }
    }
}

#[test]
fn argmax_ignores_nan_and_reports_a_row_of_them() {
    let cfg = config();
    let mut local = memories(&cfg);
    let x = ndarray::array![[f32::NAN, 1.0, f32::NAN], [f32::NAN, f32::NAN, f32::NAN]];
    put(&mut local, Space::Spm, X, 12, &x, Format::Fp32);
    let vec = VecOp { d: granule(D), rows: 1, cols: 2, xf: Format::Fp32.code(), ..VecOp::default() };
    let position = Position { k0: 10, ..Position::default() };
    run(&Command::vec(VecFn::Argmax, vec, Some(position)), &cfg, &mut local);
    let word = |i: usize| local.word(Space::Spm, D + 4 * i).expect("in range");
    assert_eq!((word(0), word(1)), (11, 1.0f32.to_bits()));
    assert_eq!((word(4), word(5)), (10, f32::NEG_INFINITY.to_bits()));
}

#[test]
fn a_shape_only_run_computes_nothing_but_the_winner() {
    let cfg = config();
    let mut local = memories(&cfg);
    let before = local.clone();
    let ids = |position: u64| if position == 7 { 130 } else { 5 };
    let add = VecOp { y: granule(Y), d: granule(D), xf: 8, yf: 8, dfm: 8, cols: 9, ..VecOp::default() };
    ops::execute(&Command::vec(VecFn::Add, add, None), &cfg, &mut local, Some(&ids)).expect("valid");
    assert_eq!(local, before);
    let argmax = |k0: u64, upd: u64, q0: u64| {
        let vec = VecOp { d: granule(D), cols: 99, xf: 8, upd, ..VecOp::default() };
        Command::vec(VecFn::Argmax, vec, Some(Position { q0, k0, ..Position::default() }))
    };
    let mut sample = |k0, upd, q0| {
        ops::execute(&argmax(k0, upd, q0), &cfg, &mut local, Some(&ids)).expect("valid");
        let word = |i: usize| local.word(Space::Spm, D + 4 * i).expect("in range");
        (word(0), f32::from_bits(word(1)))
    };
    assert_eq!(sample(0, 0, 7), (0, 0.0), "the id lies in the next columns");
    assert_eq!(sample(100, 1, 7), (130, 1.0));
    assert_eq!(sample(200, 1, 7), (130, 1.0), "later columns do not displace it");
    assert_eq!(sample(0, 0, 8), (5, 1.0));
}

#[test]
fn the_sources_range_is_checked_in_shape_only_runs_too() {
    let cfg = config();
    let mut local = memories(&cfg);
    let vec = VecOp { x: (1 << 20) - 1, xf: 8, yf: 8, dfm: 8, ..VecOp::default() };
    let fault = ops::execute(&Command::vec(VecFn::Silu, vec, None), &cfg, &mut local, Some(&|_| 0));
    assert_eq!(fault.expect_err("outside").text, "x leaves its memory");
}

#[test]
fn rounding_errors_against_f64_lie_in_their_bands() {
    let cfg = config();
    let mut local = memories(&cfg);
    let mut random = Random(3);
    let (rows, cols) = (8, 256);
    let o = Operands { rows, cols, xf: Format::Fp32, df: Format::Fp32, xst: 0, dst: 0, in_place: false };
    let x = random.matrix(rows, cols, Format::Fp32);
    let gain = Array2::from_elem((1, cols), 1.0f32);
    o.put_x(&mut local, &x);
    put(&mut local, Space::Spm, Y, 0, &gain, Format::Fp32);
    let worst = |local: &Local, exact: &dyn Fn(usize, usize) -> f64| {
        let got = o.result(local);
        got.indexed_iter().fold(0.0f64, |w, ((r, c), g)| {
            let e = exact(r, c);
            w.max((f64::from(*g) - e).abs() / e.abs().max(1.0e-30))
        })
    };
    run(&Command::vec(VecFn::Rmsnorm, o.vec(), None), &cfg, &mut local);
    let error = worst(&local, &|r, c| {
        let mean = x.row(r).iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / cols as f64;
        f64::from(x[[r, c]]) / mean.sqrt()
    });
    assert!(error > 1.0e-8 && error < 3.0e-6, "rmsnorm {error:e}");
    run(&Command::vec(VecFn::Silu, o.vec(), None), &cfg, &mut local);
    let error = worst(&local, &|r, c| f64::from(x[[r, c]]) / (1.0 + (-f64::from(x[[r, c]])).exp()));
    assert!(error > 1.0e-8 && error < 4.0e-7, "silu {error:e}");
}

#[test]
fn costs_are_passes_over_the_lanes() {
    let cfg = config();
    let cost = |f, rows: u64, cols: u64, position| {
        let vec = VecOp {
            y: granule(Y),
            d: granule(D),
            rows: rows - 1,
            cols: cols - 1,
            xf: 8,
            yf: 8,
            dfm: 6,
            imm: 8,
            ..VecOp::default()
        };
        ops::cost(&Command::vec(f, vec, position), &cfg).expect("valid")
    };
    let position = Some(Position { alpha: granule(ALPHA), ..Position::default() });
    let start = 5 + 4 + 1; // scratchpad read, ALU stages, write
    let tree = 4 * 4; // log2 of 16 lanes, stages each
    assert_eq!(cost(VecFn::Add, 3, 40, None).cycles, start + 3 * 3);
    assert_eq!(cost(VecFn::Silu, 3, 40, None).cycles, start + 3 * 3 * 3);
    assert_eq!(cost(VecFn::Swiglu, 3, 48, None).cycles, start + 3 * 3 * 4);
    assert_eq!(cost(VecFn::Rmsnorm, 3, 40, None).cycles, start + 3 * 3 * 3 + 3 + tree);
    assert_eq!(cost(VecFn::FaStep, 3, 40, position).cycles, start + 3 * 3 * 2 + 3 + tree);
    assert_eq!(cost(VecFn::FaFin, 3, 40, None).cycles, start + 3 * 3);
    assert_eq!(cost(VecFn::RopeHalf, 3, 40, position).cycles, start + 3 * 3 * 3 + 3 * 2);
    assert_eq!(cost(VecFn::Argmax, 3, 40, position).cycles, start + 3 * 3 + 1 + tree);
    let c = cost(VecFn::Add, 3, 40, None);
    assert_eq!((c.spm_read_bytes, c.spm_write_bytes, c.vector_ops), (2 * 3 * 40 * 4, 3 * 40 * 2, 120));
    assert_eq!(cost(VecFn::FaStep, 3, 40, position).special_ops, 3 * 41);
}
