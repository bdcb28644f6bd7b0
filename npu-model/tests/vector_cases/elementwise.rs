//! Element-wise functions.

use isa::npu::{Command, Format, VecFn, VecOp};
use ndarray::{Array2, Zip};

use super::{Bench, Build, D, FLOATS, bf16_bits};

pub(super) const CASES: &[(VecFn, Build)] = &[
    (VecFn::Cvt, |b| unary(b, VecFn::Cvt, |x| x)),
    (VecFn::Abs, |b| unary(b, VecFn::Abs, |x| f32::from_bits(x.to_bits() & 0x7FFF_FFFF))),
    (VecFn::Neg, |b| unary(b, VecFn::Neg, |x| f32::from_bits(x.to_bits() ^ 0x8000_0000))),
    (VecFn::Relu, |b| unary(b, VecFn::Relu, |x| if x > 0.0 { x } else { 0.0 })),
    (VecFn::GeluT, |b| unary(b, VecFn::GeluT, gelu_t)),
    (VecFn::GeluE, |b| unary(b, VecFn::GeluE, gelu_e)),
    (VecFn::Silu, |b| unary(b, VecFn::Silu, silu)),
    (VecFn::Sigmoid, |b| unary(b, VecFn::Sigmoid, sigmoid)),
    (VecFn::Tanh, |b| unary(b, VecFn::Tanh, libm::tanhf)),
    (VecFn::Exp, |b| unary(b, VecFn::Exp, libm::expf)),
    (VecFn::Log, |b| unary(b, VecFn::Log, libm::logf)),
    (VecFn::Rsqrt, |b| unary(b, VecFn::Rsqrt, |x| 1.0 / libm::sqrtf(x))),
    (VecFn::Recip, |b| unary(b, VecFn::Recip, |x| 1.0 / x)),
    (VecFn::Add, |b| binary(b, VecFn::Add, |x, y| x + y)),
    (VecFn::Sub, |b| binary(b, VecFn::Sub, |x, y| x - y)),
    (VecFn::Mul, |b| binary(b, VecFn::Mul, |x, y| x * y)),
    (VecFn::Div, |b| binary(b, VecFn::Div, |x, y| x / y)),
    (VecFn::Max, |b| binary(b, VecFn::Max, |x, y| if y > x { y } else { x })),
    (VecFn::Min, |b| binary(b, VecFn::Min, |x, y| if y < x { y } else { x })),
    (VecFn::Swiglu, |b| binary(b, VecFn::Swiglu, |x, y| silu(x) * y)),
    (VecFn::Geglu, |b| formed(b, VecFn::Geglu, [|x, y| gelu_t(x) * y, |x, y| gelu_e(x) * y])),
    (VecFn::Reglu, |b| binary(b, VecFn::Reglu, |x, y| if x > 0.0 { x * y } else { 0.0 * y })),
    (VecFn::Dsilu, |b| {
        binary(b, VecFn::Dsilu, |x, y| {
            let s = sigmoid(x);
            y * (s * (1.0 + x * (1.0 - s)))
        })
    }),
    (VecFn::Dgelu, |b| formed(b, VecFn::Dgelu, [|x, y| y * dgelu_t(x), |x, y| y * dgelu_e(x)])),
    (VecFn::Fma, fma),
    (VecFn::Select, select),
    (VecFn::Clamp, clamp),
    (VecFn::Cmp, cmp),
    (VecFn::Softcap, softcap),
];

pub(super) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + libm::expf(-x))
}

fn silu(x: f32) -> f32 {
    x / (1.0 + libm::expf(-x))
}

fn gelu_argument(x: f32) -> f32 {
    let cube = (x * x) * x;
    0.797_884_6 * (x + 0.044_715 * cube)
}

fn gelu_t(x: f32) -> f32 {
    (0.5 * x) * (1.0 + libm::tanhf(gelu_argument(x)))
}

fn gelu_e(x: f32) -> f32 {
    (0.5 * x) * (1.0 + libm::erff(x * core::f32::consts::FRAC_1_SQRT_2))
}

fn dgelu_t(x: f32) -> f32 {
    let t = libm::tanhf(gelu_argument(x));
    let slope = 0.797_884_6 * (1.0 + 0.134_145 * (x * x));
    0.5 * (1.0 + t) + ((0.5 * x) * (1.0 - t * t)) * slope
}

fn dgelu_e(x: f32) -> f32 {
    let cdf = 0.5 * (1.0 + libm::erff(x * core::f32::consts::FRAC_1_SQRT_2));
    cdf + x * (0.398_942_3 * libm::expf(-0.5 * (x * x)))
}

fn unary(b: &mut Bench, function: VecFn, f: fn(f32) -> f32) -> Command {
    let x = b.x();
    b.expect_d(&x.mapv(f));
    Command::vec(function, b.vec(), None)
}

/// A second source by one of the broadcasts, its body fields, and its full matrix.
fn second(b: &mut Bench, choices: u64) -> (VecOp, Array2<f32>) {
    let bc = b.random.below(choices);
    let yf = FLOATS[b.random.below(3) as usize];
    let (rows, cols) = match bc {
        0 => (b.rows, b.cols),
        1 => (1, b.cols),
        _ => (b.rows, 1),
    };
    let y = b.random.matrix(rows, cols, yf);
    b.put(super::Y, &y, yf);
    let imm = b.random.float(3.0);
    let full = match bc {
        3 => Array2::from_elem((b.rows, b.cols), imm),
        _ => y.broadcast((b.rows, b.cols)).expect("shapes fit").to_owned(),
    };
    let imm = if bc == 3 { u64::from(imm.to_bits()) } else { 0 };
    (VecOp { bc, yf: yf.code(), imm, ..b.vec() }, full)
}

fn binary(b: &mut Bench, function: VecFn, f: fn(f32, f32) -> f32) -> Command {
    let x = b.x();
    let (vec, y) = second(b, 4);
    b.expect_d(&Zip::from(&x).and(&y).map_collect(|x, y| f(*x, *y)));
    Command::vec(function, vec, None)
}

/// Functions whose imm selects a form of GELU.
fn formed(b: &mut Bench, function: VecFn, forms: [fn(f32, f32) -> f32; 2]) -> Command {
    let x = b.x();
    let (vec, y) = second(b, 3);
    let form = b.random.below(2);
    let f = forms[form as usize];
    b.expect_d(&Zip::from(&x).and(&y).map_collect(|x, y| f(*x, *y)));
    Command::vec(function, VecOp { imm: form, ..vec }, None)
}

fn old_d(b: &mut Bench) -> Array2<f32> {
    let d = b.random.matrix(b.rows, b.cols, b.df);
    let d = d.mapv(|v| if v.abs() < 0.7 { 0.0 } else { v });
    b.put(D, &d, b.df);
    d
}

fn fma(b: &mut Bench) -> Command {
    let (x, d) = (b.x(), old_d(b));
    let (vec, y) = second(b, 4);
    b.expect_d(&(&d + &(&x * &y)));
    Command::vec(VecFn::Fma, vec, None)
}

fn select(b: &mut Bench) -> Command {
    let (x, d) = (b.x(), old_d(b));
    let (vec, y) = second(b, 4);
    b.expect_d(&Zip::from(&x).and(&y).and(&d).map_collect(|x, y, d| if *d != 0.0 { *x } else { *y }));
    Command::vec(VecFn::Select, vec, None)
}

fn clamp(b: &mut Bench) -> Command {
    let x = b.x();
    let limits = [-0.75f32, 0.5];
    let vec = if b.random.below(2) == 0 {
        b.put_words(super::Y, &limits.map(f32::to_bits));
        VecOp { bc: 1, ..b.vec() }
    } else {
        VecOp { bc: 3, imm: bf16_bits(limits[0]) | bf16_bits(limits[1]) << 16, ..b.vec() }
    };
    b.expect_d(&x.mapv(|x| x.max(limits[0]).min(limits[1])));
    Command::vec(VecFn::Clamp, vec, None)
}

fn cmp(b: &mut Bench) -> Command {
    let few = Array2::from_shape_simple_fn((b.rows, b.cols), || b.random.below(4) as f32);
    b.put(super::X, &few, b.xf);
    let mut y = Array2::from_shape_simple_fn((b.rows, b.cols), || b.random.below(4) as f32);
    y[[0, 0]] = f32::NAN;
    b.put(super::Y, &y, Format::Fp32);
    let mask = b.random.below(4);
    let holds = |x: f32, y: f32| match (mask, x.partial_cmp(&y)) {
        (0, o) => o == Some(core::cmp::Ordering::Equal),
        (1, o) => o == Some(core::cmp::Ordering::Less),
        (2, o) => o.is_some_and(core::cmp::Ordering::is_le),
        (_, o) => o != Some(core::cmp::Ordering::Equal),
    };
    b.expect_d(&Zip::from(&few).and(&y).map_collect(|x, y| if holds(*x, *y) { 1.0 } else { 0.0 }));
    Command::vec(VecFn::Cmp, VecOp { mask, ..b.vec() }, None)
}

fn softcap(b: &mut Bench) -> Command {
    let x = b.x();
    let cap = 1.5f32;
    b.expect_d(&x.mapv(|x| cap * libm::tanhf(x / cap)));
    Command::vec(VecFn::Softcap, VecOp { imm: u64::from(cap.to_bits()), ..b.vec() }, None)
}
