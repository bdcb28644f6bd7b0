//! Functions that reduce rows: norms, softmax, attention.

use isa::npu::{Command, Format, Position, VecFn, VecOp};
use ndarray::{Array2, Axis};

use super::{ALPHA, Bench, Build, D, Y, as_fp16, granule};

pub(super) const CASES: &[(VecFn, Build)] = &[
    (VecFn::Rmsnorm, rmsnorm),
    (VecFn::Layernorm, layernorm),
    (VecFn::Softmax, softmax),
    (VecFn::FaStep, fa_step),
    (VecFn::FaFin, fa_fin),
];

const EPSILON: f32 = 1.0e-5;

/// Where `alpha` points, if statistics are asked for.
fn statistics(b: &mut Bench) -> (u64, Option<Position>) {
    let stat = b.random.below(2);
    let position = Position { alpha: granule(ALPHA), ..Position::default() };
    (stat, (stat == 1).then_some(position))
}

pub(super) fn sum(row: &[f32]) -> f32 {
    row.iter().fold(0.0, |s, v| s + v)
}

fn rmsnorm(b: &mut Bench) -> Command {
    let (x, gain) = (b.x(), b.y(1, b.cols));
    let cols = b.cols as f32;
    let squares = x.map_axis(Axis(1), |row| row.iter().fold(0.0f32, |s, v| s + v * v));
    let r = squares.mapv(|s| 1.0 / libm::sqrtf(s / cols + EPSILON)).insert_axis(Axis(1));
    b.expect_d(&((&x * &r) * &gain));
    let (stat, position) = statistics(b);
    if stat == 1 {
        let pairs = Array2::from_shape_fn((b.rows, 2), |(i, j)| if j == 0 { 0.0 } else { r[[i, 0]] });
        b.expect("statistics", ALPHA, &pairs, Format::Fp32);
    }
    Command::vec(VecFn::Rmsnorm, VecOp { stat, imm: u64::from(EPSILON.to_bits()), ..b.vec() }, position)
}

fn layernorm(b: &mut Bench) -> Command {
    let bc = b.random.below(2);
    let (x, y) = (b.x(), b.y(2, b.cols));
    let cols = b.cols as f32;
    let mean = x.map_axis(Axis(1), |row| row.iter().fold(0.0f32, |s, v| s + v) / cols);
    let t = &x - &mean.clone().insert_axis(Axis(1));
    let variance = t.map_axis(Axis(1), |row| row.iter().fold(0.0f32, |s, v| s + v * v) / cols);
    let r = variance.mapv(|v| 1.0 / libm::sqrtf(v + EPSILON));
    let mut d = (&t * &r.clone().insert_axis(Axis(1))) * y.row(0);
    if bc == 0 {
        d += &y.row(1);
    }
    b.expect_d(&d);
    let (stat, position) = statistics(b);
    if stat == 1 {
        let pairs = Array2::from_shape_fn((b.rows, 2), |(i, j)| if j == 0 { mean[i] } else { r[i] });
        b.expect("statistics", ALPHA, &pairs, Format::Fp32);
    }
    Command::vec(VecFn::Layernorm, VecOp { stat, bc, imm: u64::from(EPSILON.to_bits()), ..b.vec() }, position)
}

/// A mask over the bench's rows and columns, with the position extension that describes it; its bits, if it has
/// some, at `bits`.
fn mask(b: &mut Bench, bits: usize) -> (u64, Position, Array2<bool>) {
    let mask = b.random.below(4);
    let p = Position {
        q0: b.random.below(40),
        k0: b.random.below(20),
        rdiv: b.random.below(3),
        win: b.random.below(12),
        alpha: granule(ALPHA),
        ..Position::default()
    };
    let shape = (b.rows, b.cols);
    let seen = match mask {
        3 => {
            let seen = Array2::from_shape_simple_fn(shape, || b.random.below(3) > 0);
            let row_bytes = b.cols.div_ceil(8);
            b.local.spm[bits..bits + b.rows * row_bytes].fill(0);
            for ((r, c), s) in seen.indexed_iter() {
                b.local.spm[bits + r * row_bytes + c / 8] |= u8::from(*s) << (c % 8);
            }
            seen
        }
        _ => Array2::from_shape_fn(shape, |(r, c)| {
            let behind = (p.q0 + r as u64 / (p.rdiv + 1)) as i64 - (p.k0 + c as u64) as i64;
            mask == 0 || (behind >= 0 && (mask == 1 || p.win == 0 || behind < p.win as i64))
        }),
    };
    (mask, p, seen)
}

/// Scaled and, every other time, capped scores.
fn scores(b: &mut Bench, x: &Array2<f32>, scale: f32) -> (u64, Array2<f32>) {
    let scaled = x.mapv(|x| x * scale);
    if b.random.below(2) == 0 {
        return (0, scaled);
    }
    let cap = 1.25f32;
    (u64::from(cap.to_bits()), scaled.mapv(|s| cap * libm::tanhf(s / cap)))
}

fn softmax(b: &mut Bench) -> Command {
    let x = b.x();
    let scale = 1.7f32;
    let (mask, position, seen) = mask(b, Y);
    let (cap, s) = scores(b, &x, scale);
    let stat = b.random.below(2);
    let mut d = Array2::zeros(x.dim());
    let mut pairs = Array2::zeros((b.rows, 2));
    for r in 0..b.rows {
        let keys: Vec<usize> = (0..b.cols).filter(|&c| seen[[r, c]]).collect();
        let m = keys.iter().fold(f32::NEG_INFINITY, |m, &c| m.max(s[[r, c]]));
        let e: Vec<f32> = keys.iter().map(|&c| libm::expf(s[[r, c]] - m)).collect();
        let l = sum(&e);
        for (&c, e) in keys.iter().zip(&e) {
            d[[r, c]] = e * (1.0 / l);
        }
        (pairs[[r, 0]], pairs[[r, 1]]) = (m, l);
    }
    b.expect_d(&d);
    if stat == 1 {
        b.expect("statistics", ALPHA, &pairs, Format::Fp32);
    }
    let position = (stat == 1 || cap != 0 || mask == 1 || mask == 2).then_some(Position { cap, ..position });
    Command::vec(VecFn::Softmax, VecOp { mask, stat, imm: u64::from(scale.to_bits()), ..b.vec() }, position)
}

fn fa_step(b: &mut Bench) -> Command {
    (b.xf, b.df) = (Format::Fp32, Format::Fp16);
    let x = b.x();
    let scale = 0.7f32;
    let old = Array2::from_shape_fn((b.rows, 2), |(r, c)| match (r % 3, c) {
        (0, 0) => f32::NEG_INFINITY,
        (0, _) => 0.0,
        (1, 0) => 0.25,
        (2, 0) => 9.0,
        _ => 1.5,
    });
    b.put(Y, &old, Format::Fp32);
    let (mask, position, seen) = mask(b, Y + (8 * b.rows).next_multiple_of(32));
    let (cap, s) = scores(b, &x, scale);
    let upd = b.random.below(2);
    let mut p = Array2::zeros(x.dim());
    let mut pairs = Array2::zeros((b.rows, 2));
    let mut alphas = Array2::zeros((b.rows, 1));
    for r in 0..b.rows {
        let (m, l) = if upd == 1 { (old[[r, 0]], old[[r, 1]]) } else { (f32::NEG_INFINITY, 0.0) };
        let keys: Vec<usize> = (0..b.cols).filter(|&c| seen[[r, c]]).collect();
        let new = keys.iter().fold(m, |m, &c| m.max(s[[r, c]]));
        let e: Vec<f32> = keys.iter().map(|&c| libm::expf(s[[r, c]] - new)).collect();
        for (&c, e) in keys.iter().zip(&e) {
            p[[r, c]] = as_fp16(*e);
        }
        let alpha = match (m.is_finite(), new.is_finite()) {
            (false, false) => 1.0,
            (false, true) => 0.0,
            _ => libm::expf(m - new),
        };
        alphas[[r, 0]] = alpha;
        (pairs[[r, 0]], pairs[[r, 1]]) = (new, l * alpha + sum(&e));
    }
    b.expect("p", D, &p, Format::Fp16);
    b.expect("pairs", Y, &pairs, Format::Fp32);
    b.expect("alpha", ALPHA, &alphas, Format::Fp32);
    let vec = VecOp { mask, upd, imm: u64::from(scale.to_bits()), ..b.vec() };
    Command::vec(VecFn::FaStep, vec, Some(Position { cap, ..position }))
}

fn fa_fin(b: &mut Bench) -> Command {
    b.xf = Format::Fp32;
    b.df = if b.df == Format::Bf16 { Format::Fp16 } else { b.df };
    let x = b.x();
    let pairs = b.y(b.rows, 2).mapv(|v| if v.abs() < 0.5 { 0.0 } else { v });
    b.put(Y, &pairs, Format::Fp32);
    b.expect_d(&Array2::from_shape_fn(x.dim(), |(r, c)| {
        let l = pairs[[r, 1]];
        if l == 0.0 { 0.0 } else { x[[r, c]] / l }
    }));
    Command::vec(VecFn::FaFin, b.vec(), None)
}
