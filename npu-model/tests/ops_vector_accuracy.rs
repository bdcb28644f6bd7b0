//! Error of vector functions against f64, by accuracy (`acc`): largest and mean, each held from above and below, so
//! that a row here is what is measured and not a loose bound.
#![allow(clippy::cast_possible_truncation, reason = "fields of test commands")]

mod ops_common;

use isa::npu::{Command, Format, Position, VecFn, VecOp};
use ndarray::Array2;
use npu_model::{Local, Space};
use ops_common::{Random, config, get, memories, put, run};

const X: usize = 0;
const Y: usize = 64 * 1024;
const D: usize = 128 * 1024;
const ALPHA: usize = 224 * 1024;
const FP32: Format = Format::Fp32;

/// Largest and mean error.
type Errors = (f64, f64);

/// How far a result is from the exact one.
#[derive(Clone, Copy)]
enum Measure {
    Absolute,
    Relative,
}

impl Measure {
    fn of(self, got: impl Iterator<Item = f32>, exact: impl Iterator<Item = f64>) -> Errors {
        let (mut worst, mut sum, mut n) = (0.0f64, 0.0, 0.0);
        for (g, e) in got.zip(exact) {
            let distance = (f64::from(g) - e).abs();
            let error = match self {
                Self::Absolute => distance,
                Self::Relative if e == 0.0 => continue,
                Self::Relative => distance / e.abs(),
            };
            assert!(error.is_finite(), "{g:e} for {e:e}");
            (worst, sum, n) = (worst.max(error), sum + error, n + 1.0);
        }
        (worst, sum / n)
    }
}

/// Holds measured errors to what is stated: at most that, and not less than half of it.
fn hold(name: &str, acc: usize, got: Errors, stated: Errors) {
    let line = format!("{name} acc={acc}: ({:.2e}, {:.2e}) stated {stated:?}", got.0, got.1);
    for (got, stated) in [(got.0, stated.0), (got.1, stated.1)] {
        assert!(got <= stated && got >= 0.5 * stated, "{line}");
    }
}

fn granule(byte: usize) -> u64 {
    (byte / 32) as u64
}

fn body(x: &Array2<f32>, acc: usize) -> VecOp {
    VecOp {
        x: granule(X),
        y: granule(Y),
        d: granule(D),
        rows: x.nrows() as u64 - 1,
        cols: x.ncols() as u64 - 1,
        xf: FP32.code(),
        yf: FP32.code(),
        dfm: FP32.code(),
        acc: acc as u64,
        ..VecOp::default()
    }
}

fn put32(local: &mut Local, at: usize, m: &Array2<f32>) {
    put(local, Space::Spm, at, 4 * m.ncols(), m, FP32);
}

fn get32(local: &Local, at: usize, (rows, cols): (usize, usize)) -> Array2<f32> {
    get(local, Space::Spm, at, 4 * cols, (rows, cols), FP32)
}

/// Points of an interval, equally spaced, or by powers.
fn points(low: f64, high: f64, logarithmic: bool) -> Array2<f32> {
    let n = 8192;
    Array2::from_shape_fn((1, n), |(_, i)| {
        let t = (i as f64 + 0.37) / n as f64;
        (if logarithmic { low * (high / low).powf(t) } else { low + (high - low) * t }) as f32
    })
}

fn normal_cdf(x: f64) -> f64 {
    0.5 * libm::erfc(-x * core::f64::consts::FRAC_1_SQRT_2)
}

fn gelu_t(x: f64) -> f64 {
    0.5 * x * (1.0 + (0.797_884_560_802_865_4 * (x + 0.044_715 * x * x * x)).tanh())
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// Function, interval, whether its points are logarithmic, measure, exact function, errors by accuracy.
type Row = (VecFn, f64, f64, bool, Measure, fn(f64) -> f64, [Errors; 4]);

const SPECIAL: &[Row] = &[
    (
        VecFn::Exp,
        -87.0,
        88.0,
        false,
        Measure::Relative,
        f64::exp,
        [(7.7e-8, 2.6e-8), (2.8e-7, 7.2e-8), (5.2e-6, 1.3e-6), (2.1e-5, 1.1e-5)],
    ),
    (
        VecFn::Log,
        1.0e-6,
        1.0e6,
        true,
        Measure::Absolute,
        f64::ln,
        [(5.6e-7, 1.7e-7), (1.2e-6, 2.2e-7), (3.1e-6, 8.0e-7), (3.5e-5, 1.3e-5)],
    ),
    (
        VecFn::Rsqrt,
        1.0e-6,
        1.0e6,
        true,
        Measure::Relative,
        |x| 1.0 / x.sqrt(),
        [(9.6e-8, 3.3e-8), (1.5e-7, 3.9e-8), (1.4e-5, 3.3e-6), (2.2e-4, 5.2e-5)],
    ),
    (
        VecFn::Recip,
        1.0e-6,
        1.0e6,
        true,
        Measure::Relative,
        |x| 1.0 / x,
        [(6.6e-8, 2.4e-8), (2.5e-7, 6.6e-8), (4.3e-6, 1.6e-6), (6.8e-5, 2.5e-5)],
    ),
    (
        VecFn::Tanh,
        -10.0,
        10.0,
        false,
        Measure::Absolute,
        f64::tanh,
        [(9.1e-8, 1.7e-8), (2.2e-7, 2.1e-8), (1.1e-4, 9.2e-6), (1.7e-3, 1.5e-4)],
    ),
    (
        VecFn::Sigmoid,
        -20.0,
        20.0,
        false,
        Measure::Absolute,
        sigmoid,
        [(9.8e-8, 1.7e-8), (2.8e-7, 4.1e-8), (5.3e-5, 4.6e-6), (8.4e-4, 7.3e-5)],
    ),
    (
        VecFn::Silu,
        -20.0,
        20.0,
        false,
        Measure::Absolute,
        |x| x * sigmoid(x),
        [(1.4e-6, 1.6e-7), (3.2e-6, 4.9e-7), (8.8e-5, 9.4e-6), (1.4e-3, 1.5e-4)],
    ),
    (
        VecFn::GeluT,
        -8.0,
        8.0,
        false,
        Measure::Absolute,
        gelu_t,
        [(4.8e-7, 3.5e-8), (4.8e-7, 3.7e-8), (1.6e-5, 2.3e-6), (2.5e-4, 3.6e-5)],
    ),
    (
        VecFn::GeluE,
        -8.0,
        8.0,
        false,
        Measure::Absolute,
        |x| x * normal_cdf(x),
        [(5.1e-7, 4.1e-8), (5.1e-7, 7.4e-8), (1.6e-5, 2.3e-6), (2.6e-4, 3.6e-5)],
    ),
    (
        VecFn::Softcap,
        -100.0,
        100.0,
        false,
        Measure::Absolute,
        |x| 30.0 * (x / 30.0).tanh(),
        [(3.5e-6, 7.0e-7), (7.9e-6, 1.1e-6), (3.2e-3, 8.2e-4), (5.1e-2, 1.4e-2)],
    ),
];

#[test]
fn special_functions_have_the_stated_errors() {
    let cfg = config();
    for &(function, low, high, logarithmic, measure, exact, stated) in SPECIAL {
        let x = points(low, high, logarithmic);
        for (acc, stated) in stated.into_iter().enumerate() {
            let mut local = memories(&cfg);
            put32(&mut local, X, &x);
            let vec = VecOp { imm: u64::from(30f32.to_bits()), ..body(&x, acc) };
            run(&Command::vec(function, vec, None), &cfg, &mut local);
            let got = get32(&local, D, x.dim());
            let errors = measure.of(got.iter().copied(), x.iter().map(|x| exact(f64::from(*x))));
            hold(function.name(), acc, errors, stated);
        }
    }
}

/// Function, measure, exact function, errors by accuracy.
type GatedRow = (VecFn, Measure, fn(f64) -> f64, [Errors; 4]);

/// Gated functions and the quotient, of y = 1.7.
const GATED: &[GatedRow] = &[
    (
        VecFn::Swiglu,
        Measure::Absolute,
        |x| x * sigmoid(x) * f64::from(1.7f32),
        [(1.6e-6, 1.5e-7), (4.1e-6, 3.0e-7), (1.5e-4, 3.9e-5), (2.4e-3, 6.2e-4)],
    ),
    (
        VecFn::Geglu,
        Measure::Absolute,
        |x| gelu_t(x) * f64::from(1.7f32),
        [(1.3e-6, 1.2e-7), (1.3e-6, 1.2e-7), (2.7e-5, 3.9e-6), (4.3e-4, 6.1e-5)],
    ),
    (
        VecFn::Div,
        Measure::Relative,
        |x| x / f64::from(1.7f32),
        [(6.3e-8, 2.5e-8), (1.1e-7, 3.8e-8), (1.1e-6, 9.9e-7), (1.6e-5, 1.6e-5)],
    ),
];

#[test]
fn gated_functions_have_the_stated_errors() {
    let cfg = config();
    let x = points(-8.0, 8.0, false);
    for &(function, measure, exact, stated) in GATED {
        for (acc, stated) in stated.into_iter().enumerate() {
            let mut local = memories(&cfg);
            put32(&mut local, X, &x);
            let vec = VecOp { bc: 3, imm: u64::from(1.7f32.to_bits()), ..body(&x, acc) };
            run(&Command::vec(function, vec, None), &cfg, &mut local);
            let got = get32(&local, D, x.dim());
            let errors = measure.of(got.iter().copied(), x.iter().map(|x| exact(f64::from(*x))));
            hold(function.name(), acc, errors, stated);
        }
    }
}

/// A matrix and what f64 makes of its rows.
fn rows_of(x: &Array2<f32>) -> Vec<Vec<f64>> {
    x.rows().into_iter().map(|r| r.iter().map(|v| f64::from(*v)).collect()).collect()
}

fn mean(row: &[f64]) -> f64 {
    row.iter().sum::<f64>() / row.len() as f64
}

fn softmax(row: &[f64]) -> Vec<f64> {
    let m = row.iter().copied().fold(f64::MIN, f64::max);
    let e: Vec<f64> = row.iter().map(|v| (v - m).exp()).collect();
    let l: f64 = e.iter().sum();
    e.iter().map(|e| e / l).collect()
}

fn normalised(row: &[f64], centred: bool) -> (Vec<f64>, f64) {
    let mu = if centred { mean(row) } else { 0.0 };
    let t: Vec<f64> = row.iter().map(|v| v - mu).collect();
    let r = 1.0 / (mean(&t.iter().map(|t| t * t).collect::<Vec<_>>()) + 1.0e-5).sqrt();
    (t.iter().map(|t| t * r).collect(), r)
}

/// Row functions by accuracy: SOFTMAX of scores up to 20, norms, the attention of one block.
const ROWS: &[(&str, [Errors; 4])] = &[
    ("softmax", [(5.9e-8, 6.2e-10), (7.6e-8, 6.7e-10), (5.3e-7, 7.5e-9), (7.2e-6, 1.1e-7)]),
    ("rmsnorm", [(3.8e-7, 7.6e-8), (3.8e-7, 8.2e-8), (7.0e-6, 2.0e-6), (1.1e-4, 2.9e-5)]),
    ("layernorm", [(5.0e-7, 8.9e-8), (4.8e-7, 9.4e-8), (6.8e-6, 2.1e-6), (1.1e-4, 3.1e-5)]),
    ("fa_step and fa_fin", [(4.4e-5, 7.0e-7), (4.4e-5, 7.0e-7), (4.4e-5, 7.0e-7), (4.8e-5, 7.1e-7)]),
];

#[test]
fn row_functions_have_the_stated_errors() {
    let cfg = config();
    let mut random = Random(11);
    let (rows, cols) = (16, 256);
    let scores = random.matrix(rows, cols, FP32) * 10.0;
    let gain = Array2::from_elem((1, cols), 1.0f32);
    for &(name, stated) in ROWS {
        for (acc, stated) in stated.into_iter().enumerate() {
            let mut local = memories(&cfg);
            put32(&mut local, X, &scores);
            put32(&mut local, Y, &gain);
            let one = VecOp { imm: u64::from(1f32.to_bits()), ..body(&scores, acc) };
            let norm = VecOp { imm: u64::from(1.0e-5f32.to_bits()), bc: 1, ..one };
            let exact: Vec<f64> = match name {
                "softmax" => {
                    run(&Command::vec(VecFn::Softmax, one, None), &cfg, &mut local);
                    rows_of(&scores).iter().flat_map(|r| softmax(r)).collect()
                }
                "rmsnorm" => {
                    run(&Command::vec(VecFn::Rmsnorm, VecOp { bc: 0, ..norm }, None), &cfg, &mut local);
                    rows_of(&scores).iter().flat_map(|r| normalised(r, false).0).collect()
                }
                "layernorm" => {
                    run(&Command::vec(VecFn::Layernorm, norm, None), &cfg, &mut local);
                    rows_of(&scores).iter().flat_map(|r| normalised(r, true).0).collect()
                }
                _ => attention(&mut local, &scores, one, &cfg),
            };
            let got = get32(&local, D, (rows, exact.len() / rows));
            hold(name, acc, Measure::Absolute.of(got.iter().copied(), exact.into_iter()), stated);
        }
    }
}

/// Probabilities of one block, each row's sum of them over the running sum: their exact values.
fn attention(local: &mut Local, scores: &Array2<f32>, one: VecOp, cfg: &npu_model::NpuConfig) -> Vec<f64> {
    let position = Position { alpha: granule(ALPHA), ..Position::default() };
    let step = VecOp { dfm: Format::Fp16.code(), ..one };
    run(&Command::vec(VecFn::FaStep, step, Some(position)), cfg, local);
    let p = get(local, Space::Spm, D, 2 * scores.ncols(), scores.dim(), Format::Fp16);
    put32(local, X, &p);
    run(&Command::vec(VecFn::FaFin, VecOp { acc: one.acc, ..one }, None), cfg, local);
    rows_of(scores).iter().flat_map(|r| softmax(r)).collect()
}

/// Gradients, losses, sums, the optimiser, a draw's log-probability and a router's weights; by accuracy where the
/// function takes it.
const TRAINING: &[(&str, &[Errors])] = &[
    ("dsoftmax", &[(3.7e-5, 4.0e-6)]),
    ("drmsnorm", &[(1.1e-6, 1.2e-7), (9.7e-7, 1.3e-7), (2.9e-5, 4.5e-6), (5.6e-4, 6.8e-5)]),
    ("dlayernorm", &[(1.5e-6, 1.3e-7), (1.5e-6, 1.3e-7), (3.0e-5, 4.8e-6), (5.6e-4, 6.6e-5)]),
    ("xent gradient", &[(3.3e-8, 7.5e-10), (3.3e-8, 8.7e-10), (7.1e-8, 7.6e-9), (8.8e-7, 8.5e-8)]),
    ("xent loss", &[(4.2e-7, 2.1e-7), (6.6e-7, 2.7e-7), (1.3e-6, 5.8e-7), (1.8e-5, 7.7e-6)]),
    ("adamw", &[(1.4e-7, 3.0e-8)]),
    ("dsilu", &[(3.1e-7, 2.6e-8)]),
    ("dgelu", &[(3.1e-7, 2.7e-8)]),
    ("rsum", &[(1.5e-5, 4.2e-6)]),
    ("rsumsq", &[(1.9e-4, 9.9e-5)]),
    ("cumsum", &[(1.6e-5, 2.0e-6)]),
    ("sample", &[(1.1e-6, 3.5e-7), (8.7e-7, 3.3e-7), (9.4e-7, 3.8e-7), (1.2e-5, 9.8e-6)]),
    ("route", &[(4.9e-8, 1.4e-8), (4.9e-8, 1.4e-8), (3.5e-7, 8.3e-8), (3.8e-6, 1.4e-6)]),
];

#[test]
fn gradients_and_sums_have_the_stated_errors() {
    let mut random = Random(12);
    let (rows, cols) = (16, 256);
    let [x, y, old] = core::array::from_fn(|_| random.matrix(rows, cols, FP32));
    for &(name, stated) in TRAINING {
        for (acc, stated) in stated.iter().enumerate() {
            let (got, exact) = trained(name, acc, &x, &y, &old);
            hold(name, acc, Measure::Absolute.of(got.iter().copied(), exact.into_iter()), *stated);
        }
    }
}

/// Result of a function on fp32 operands, and the exact one.
fn trained(
    name: &str,
    acc: usize,
    x: &Array2<f32>,
    y: &Array2<f32>,
    old: &Array2<f32>,
) -> (Array2<f32>, Vec<f64>) {
    let cfg = config();
    let (rows, cols) = x.dim();
    let mut local = memories(&cfg);
    put32(&mut local, X, x);
    put32(&mut local, Y, y);
    put32(&mut local, D, old);
    let position = Some(Position { alpha: granule(ALPHA), ..Position::default() });
    let one = VecOp { imm: u64::from(1f32.to_bits()), ..body(x, acc) };
    let epsilon = VecOp { imm: u64::from(1.0e-5f32.to_bits()), ..one };
    let [xs, ys, olds] = [x, y, old].map(rows_of);
    let each = |f: &dyn Fn(f64, f64) -> f64| -> Vec<f64> {
        xs.iter().flatten().zip(ys.iter().flatten()).map(|(x, y)| f(*x, *y)).collect()
    };
    let (function, vec, exact): (VecFn, VecOp, Vec<f64>) = match name {
        "dsoftmax" => {
            let rows = xs.iter().zip(&ys).flat_map(|(x, y)| {
                let s: f64 = x.iter().zip(y).map(|(x, y)| x * y).sum();
                x.iter().zip(y).map(move |(x, y)| y * (x - s)).collect::<Vec<_>>()
            });
            (VecFn::Dsoftmax, one, rows.collect())
        }
        "drmsnorm" | "dlayernorm" => {
            let centred = name == "dlayernorm";
            let rows = xs.iter().zip(&olds).flat_map(|(dy, v)| {
                let (n, r) = normalised(v, centred);
                let g: Vec<f64> = dy.iter().zip(&ys[0]).map(|(d, g)| d * g).collect();
                let a = if centred { mean(&g) } else { 0.0 };
                let b = mean(&g.iter().zip(&n).map(|(g, n)| g * n).collect::<Vec<_>>());
                g.iter().zip(&n).map(|(g, n)| (g - a - n * b) * r).collect::<Vec<_>>()
            });
            (if centred { VecFn::Dlayernorm } else { VecFn::Drmsnorm }, epsilon, rows.collect())
        }
        "xent gradient" | "xent loss" => {
            let p: Vec<Vec<f64>> = xs.iter().map(|r| softmax(r)).collect();
            for r in 0..rows {
                local.set_word(Space::Spm, Y + 4 * r, r as u32).expect("in range");
            }
            let gradient = p.iter().enumerate().flat_map(|(r, p)| {
                p.iter().enumerate().map(move |(c, p)| p - f64::from(u8::from(r == c))).collect::<Vec<_>>()
            });
            let exact = if name == "xent loss" {
                p.iter().enumerate().map(|(r, p)| -p[r].ln()).collect()
            } else {
                gradient.collect()
            };
            (VecFn::Xent, VecOp { yf: Format::Int32.code(), ..one }, exact)
        }
        "adamw" => return adamw(x, y, old),
        "sample" | "route" => return selected(name, acc, &(x * 5.0)),
        "dsilu" => {
            let f = |x: f64, y: f64| y * sigmoid(x) * (1.0 + x * (1.0 - sigmoid(x)));
            (VecFn::Dsilu, one, each(&f))
        }
        "dgelu" => {
            let density = |x: f64| (-0.5 * x * x).exp() / (2.0 * core::f64::consts::PI).sqrt();
            (VecFn::Dgelu, VecOp { imm: 1, ..one }, each(&|x, y| y * (normal_cdf(x) + x * density(x))))
        }
        "rsum" => (VecFn::Rsum, one, xs.iter().map(|r| r.iter().sum()).collect()),
        "rsumsq" => (VecFn::Rsumsq, one, xs.iter().map(|r| r.iter().map(|v| v * v).sum()).collect()),
        _ => {
            let running = |r: &Vec<f64>| {
                let mut s = 0.0;
                r.iter()
                    .map(|v| {
                        s += v;
                        s
                    })
                    .collect::<Vec<_>>()
            };
            (VecFn::Cumsum, one, xs.iter().flat_map(running).collect())
        }
    };
    let position = if matches!(name, "dsoftmax" | "dsilu" | "dgelu") { None } else { position };
    run(&Command::vec(function, vec, position), &cfg, &mut local);
    let at = if name == "xent loss" { ALPHA } else { D };
    let width = exact.len() / rows;
    assert!(width == cols || width == 1);
    (get32(&local, at, (rows, width)), exact)
}

fn adamw(x: &Array2<f32>, y: &Array2<f32>, old: &Array2<f32>) -> (Array2<f32>, Vec<f64>) {
    let cfg = config();
    let mut local = memories(&cfg);
    let v = old.mapv(f32::abs);
    put32(&mut local, X, x);
    put32(&mut local, Y, y);
    put32(&mut local, Y + 4 * x.len(), &v);
    put32(&mut local, D, old);
    let words = [1.0e-3f32, 0.9, 0.95, 1.0e-8, 0.1, 5.0, 10.0];
    for (i, w) in words.iter().enumerate() {
        local.set_word(Space::Spm, ALPHA + 4 * i, w.to_bits()).expect("in range");
    }
    run(&Command::vec(VecFn::Adamw, VecOp { imm: granule(ALPHA), ..body(x, 0) }, None), &cfg, &mut local);
    let [a, b1, b2, e, w, c1, c2] = words.map(f64::from);
    let f = |g: f64, m: f64, v: f64, p: f64| {
        let (m, v) = (b1 * m + (1.0 - b1) * g, b2 * v + (1.0 - b2) * g * g);
        p - a * w * p - a * m * c1 / ((v * c2).sqrt() + e)
    };
    let all = x.iter().zip(y).zip(&v).zip(old);
    let exact = all.map(|(((g, m), v), p)| f(f64::from(*g), f64::from(*m), f64::from(*v), f64::from(*p)));
    (get32(&local, D, x.dim()), exact.collect())
}

/// Log-probability of each row's greedy draw, or the weights of its eight largest.
fn selected(name: &str, acc: usize, x: &Array2<f32>) -> (Array2<f32>, Vec<f64>) {
    let cfg = config();
    let mut local = memories(&cfg);
    put32(&mut local, X, x);
    put32(&mut local, Y, &Array2::zeros((1, 8)));
    let mut sorted: Vec<Vec<f64>> = rows_of(x).iter().map(|r| softmax(r)).collect();
    sorted.iter_mut().for_each(|r| r.sort_by(|a, b| b.total_cmp(a)));
    let (function, vec, words) = if name == "sample" {
        (VecFn::Sample, body(x, acc), 4)
    } else {
        (VecFn::Route, VecOp { imm: 8, yf: Format::Int32.code(), ..body(x, acc) }, 16)
    };
    run(&Command::vec(function, vec, Some(Position::default())), &cfg, &mut local);
    let records = get32(&local, D, (x.nrows(), words));
    if name == "sample" {
        return (records.slice(ndarray::s![.., 2..3]).to_owned(), sorted.iter().map(|r| r[0].ln()).collect());
    }
    let exact = sorted.iter().flat_map(|r| r[..8].to_vec()).collect();
    (records.slice(ndarray::s![.., 1..;2]).to_owned(), exact)
}
