//! Gradients and the optimiser.

use half::{bf16, f16};
use isa::npu::{Command, Format, Position, VecFn, VecOp};
use ndarray::{Array2, Axis};

use super::rows::sum;
use super::selection::draw;
use super::{ALPHA, Bench, Build, D, Y, granule};

pub(super) const CASES: &[(VecFn, Build)] = &[
    (VecFn::Dsoftmax, dsoftmax),
    (VecFn::Drmsnorm, drmsnorm),
    (VecFn::Dlayernorm, dlayernorm),
    (VecFn::Xent, xent),
    (VecFn::Adamw, adamw),
];

const EPSILON: f32 = 1.0e-5;

fn dsoftmax(b: &mut Bench) -> Command {
    let (x, y) = (b.x(), b.y(b.rows, b.cols));
    let scale = 0.125f32;
    let s = (&x * &y).map_axis(Axis(1), |row| sum(&row.to_vec())).insert_axis(Axis(1));
    b.expect_d(&((&y * &(&x - &s)) * scale));
    Command::vec(VecFn::Dsoftmax, VecOp { imm: u64::from(scale.to_bits()), ..b.vec() }, None)
}

/// Gradient, input in d's place, gain, and what the sums start from.
fn norm(b: &mut Bench, sums: usize) -> (Array2<f32>, Array2<f32>, Array2<f32>, Array2<f32>, u64) {
    let (dy, gain) = (b.x(), b.y(1, b.cols));
    let v = b.random.matrix(b.rows, b.cols, b.df);
    b.put(D, &v, b.df);
    let upd = b.random.below(2);
    let mut start = b.random.matrix(sums, b.cols, Format::Fp32);
    b.put(ALPHA, &start, Format::Fp32);
    if upd == 0 {
        start.fill(0.0);
    }
    (dy, gain, v, start, upd)
}

fn finish(b: &Bench, function: VecFn, upd: u64) -> Command {
    let position = Position { alpha: granule(ALPHA), ..Position::default() };
    Command::vec(function, VecOp { upd, imm: u64::from(EPSILON.to_bits()), ..b.vec() }, Some(position))
}

fn drmsnorm(b: &mut Bench) -> Command {
    let (dy, gain, v, mut sums, upd) = norm(b, 1);
    let cols = b.cols as f32;
    let mut d = Array2::zeros(v.dim());
    for r in 0..b.rows {
        let squares: Vec<f32> = v.row(r).iter().map(|v| v * v).collect();
        let inverse = 1.0 / libm::sqrtf(sum(&squares) / cols + EPSILON);
        let g: Vec<f32> = (0..b.cols).map(|c| dy[[r, c]] * gain[[0, c]]).collect();
        let products: Vec<f32> = g.iter().zip(v.row(r)).map(|(g, v)| g * v).collect();
        let k = (sum(&products) / cols) * (inverse * inverse);
        for c in 0..b.cols {
            d[[r, c]] = (g[c] - v[[r, c]] * k) * inverse;
            sums[[0, c]] += dy[[r, c]] * (v[[r, c]] * inverse);
        }
    }
    b.expect_d(&d);
    b.expect("gain", ALPHA, &sums, Format::Fp32);
    finish(b, VecFn::Drmsnorm, upd)
}

fn dlayernorm(b: &mut Bench) -> Command {
    let (dy, gain, v, mut sums, upd) = norm(b, 2);
    let cols = b.cols as f32;
    let mut d = Array2::zeros(v.dim());
    for r in 0..b.rows {
        let mean = sum(&v.row(r).to_vec()) / cols;
        let t = v.row(r).mapv(|v| v - mean);
        let variance = sum(&t.mapv(|t| t * t).to_vec()) / cols;
        let inverse = 1.0 / libm::sqrtf(variance + EPSILON);
        let n = t * inverse;
        let g = &dy.row(r) * &gain.row(0);
        let a = sum(&g.to_vec()) / cols;
        let k = sum(&(&g * &n).to_vec()) / cols;
        for c in 0..b.cols {
            d[[r, c]] = ((g[c] - a) - n[c] * k) * inverse;
            sums[[0, c]] += dy[[r, c]] * n[c];
            sums[[1, c]] += dy[[r, c]];
        }
    }
    b.expect_d(&d);
    b.expect("gain and bias", ALPHA, &sums, Format::Fp32);
    finish(b, VecFn::Dlayernorm, upd)
}

fn xent(b: &mut Bench) -> Command {
    let x = b.x();
    let factor = 0.25f32;
    let mut d = Array2::zeros(x.dim());
    let mut losses = Array2::zeros((b.rows, 1));
    let mut targets = Vec::new();
    for r in 0..b.rows {
        if b.random.below(4) == 0 {
            targets.push([-100i32, b.cols as i32][b.random.below(2) as usize].cast_unsigned());
            continue;
        }
        let target = b.random.below(b.cols as u64) as usize;
        targets.push(target as u32);
        let m = x.row(r).iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let e: Vec<f32> = x.row(r).iter().map(|v| libm::expf(v - m)).collect();
        let l = sum(&e);
        losses[[r, 0]] = libm::logf(l) - (x[[r, target]] - m);
        for c in 0..b.cols {
            let hit = if c == target { 1.0 } else { 0.0 };
            d[[r, c]] = (e[c] * (1.0 / l) - hit) * factor;
        }
    }
    b.put_words(Y, &targets);
    b.expect_d(&d);
    b.expect("losses", ALPHA, &losses, Format::Fp32);
    let vec = VecOp { yf: Format::Int32.code(), imm: u64::from(factor.to_bits()), ..b.vec() };
    let position = Position { alpha: granule(ALPHA), ..Position::default() };
    Command::vec(VecFn::Xent, vec, Some(position))
}

/// The two neighbours of a value in a format, toward and away from zero.
fn neighbours(v: f32, format: Format) -> (f32, f32) {
    let magnitude = v.abs();
    let (down, up) = match format {
        Format::Fp16 => {
            let near = f16::from_f32(magnitude);
            let low = if near.to_f32() > magnitude { f16::from_bits(near.to_bits() - 1) } else { near };
            (low.to_f32(), f16::from_bits(low.to_bits() + 1).to_f32())
        }
        _ => {
            let low = bf16::from_bits((magnitude.to_bits() >> 16) as u16);
            (low.to_f32(), bf16::from_bits(low.to_bits() + 1).to_f32())
        }
    };
    (down.copysign(v), up.copysign(v))
}

fn adamw(b: &mut Bench) -> Command {
    let g = b.x();
    let p = b.random.matrix(b.rows, b.cols, b.df);
    b.put(D, &p, b.df);
    let m = b.random.matrix(b.rows, b.cols, Format::Fp32);
    let v = b.random.matrix(b.rows, b.cols, Format::Fp32).mapv(f32::abs);
    b.put(Y, &m, Format::Fp32);
    b.put(Y + 4 * b.rows * b.cols, &v, Format::Fp32);
    let [a, beta1, beta2, epsilon, decay, c1, c2] = [1.0e-2f32, 0.9, 0.95, 1.0e-8, 0.1, 5.263_158, 10.25];
    let seed = b.random.next() as u32;
    let words = [a, beta1, beta2, epsilon, decay, c1, c2].map(f32::to_bits);
    b.put_words(ALPHA, &[&words[..], &[seed]].concat());
    let m = &m * beta1 + &(&g * (1.0 - beta1));
    let v = &v * beta2 + &(&(&g * &g) * (1.0 - beta2));
    let rnd = 3 * b.random.below(2);
    let d = Array2::from_shape_fn(p.dim(), |(r, c)| {
        let denominator = libm::sqrtf(v[[r, c]] * c2) + epsilon;
        let old = p[[r, c]];
        let new = (old - (a * decay) * old) - (a * (m[[r, c]] * c1)) / denominator;
        if rnd == 0 || b.df == Format::Fp32 {
            return new;
        }
        let (down, up) = neighbours(new, b.df);
        let fraction = f64::from(new - down) / f64::from(up - down);
        let bits = draw(0, u64::from(seed), (r * b.cols + c) as u32);
        if f64::from(bits) < fraction * 16_777_216.0 { up } else { down }
    });
    b.expect_d(&d);
    b.expect("first moments", Y, &m, Format::Fp32);
    b.expect("second moments", Y + 4 * b.rows * b.cols, &v, Format::Fp32);
    Command::vec(VecFn::Adamw, VecOp { rnd, imm: granule(ALPHA), ..b.vec() }, None)
}
