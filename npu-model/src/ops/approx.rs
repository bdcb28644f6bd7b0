//! Special functions of the vector engine in four accuracies, the `acc` field of a VEC command.
//!
//! Models: 0 the exact reference (`libm`, fp32); 1 polynomials after range reduction; 2 and 3 tables of 256 and 64
//!   equal segments with linear interpolation. All in fp32, multiply then add, so every accuracy is bit-defined.
//! Does not model: the rounding of a particular product's tables (these hold fp32 knots), subnormal inputs of the
//!   tables below what the range reduction keeps.
//! Source: coefficients are Chebyshev interpolations made for this file; erf is Abramowitz and Stegun 7.1.26.
//!
//! Range reduction: e^x = 2^n e^r, |r| <= ln 2 / 2 (polynomial), or 2^n 2^f, f in [0, 1) (table); 1 / x and log x by
//! exponent and significand; 1 / sqrt x by an even exponent and a significand in [1, 4). Polynomial inverse and root
//! take one Newton step. tanh, sigmoid and the gates of GELU are tables over |x| below 8, 16 and 5, mirrored for
//! negative x, constant beyond; as polynomials they are built from e^x and 1 / x.
//!
//! Cost (class C): the exact reference is charged as a full-precision unit would be, the polynomial likewise; a table
//! replaces a special operation by one elementary one (the interpolation), and sigmoid, tanh and the gates become one
//! look-up where the other accuracies need several passes.

use std::sync::LazyLock;

use super::number;

/// Value of the `acc` field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Accuracy {
    Exact,
    Polynomial,
    Lut256,
    Lut64,
}

impl Accuracy {
    pub const fn from_field(acc: u64) -> Self {
        match acc {
            0 => Self::Exact,
            1 => Self::Polynomial,
            2 => Self::Lut256,
            _ => Self::Lut64,
        }
    }

    pub const fn is_table(self) -> bool {
        matches!(self, Self::Lut256 | Self::Lut64)
    }
}

/// A special function of one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Special {
    Exp,
    Log,
    Rsqrt,
    Recip,
    Tanh,
    Sigmoid,
    Silu,
    GeluT,
    GeluE,
}

/// What one evaluation costs: ALU passes, special operations, look-ups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Charge {
    pub passes: u64,
    pub special: u64,
    pub lookups: u64,
}

const LOG2_E: f32 = core::f32::consts::LOG2_E;
const LN_2: f32 = core::f32::consts::LN_2;
/// ln 2 in two parts: the first has 9 significant bits, so that n times it is exact.
const LN_2_HIGH: f32 = 0.693_359_4;
const LN_2_LOW: f32 = -2.121_944_4e-4;
/// sqrt(2 / pi) and the cubic coefficient of GELU's tanh form (Hendrycks and Gimpel).
const GELU_SCALE: f32 = 0.797_884_6;
const GELU_CUBIC: f32 = 0.044_715;

/// e^r on |r| <= ln 2 / 2.
const EXP: [f32; 6] = [1.000_000_1, 1.0, 0.499_988_7, 0.166_665_05, 0.041_917_507, 0.008_369_148];
/// 1 / m on [1, 2).
const RECIP: [f32; 5] = [3.535_533_7, -4.924_175, 3.377_936_4, -1.141_837_6, 0.152_245_02];
/// 1 / sqrt m on [1, 4).
const RSQRT: [f32; 6] =
    [1.905_758_1, -1.514_921_9, 0.825_425_8, -0.255_778_8, 0.041_405_947, -0.002_717_960_4];
/// log(1 + t) / t on [sqrt 1/2 - 1, sqrt 2 - 1].
const LOG: [f32; 9] = [
    1.0,
    -0.5,
    0.333_341_93,
    -0.250_013_5,
    0.199_559_33,
    -0.165_779_93,
    0.149_774_01,
    -0.142_692_58,
    0.085_333_13,
];

fn horner(c: &[f32], x: f32) -> f32 {
    c.iter().rev().fold(0.0, |sum, c| sum * x + c)
}

/// x 2^n, in two steps so that neither factor overflows.
fn scale(x: f32, n: i32) -> f32 {
    let n = n.clamp(-240, 240);
    let power = |n: i32| f32::from_bits(((n + 127) as u32) << 23);
    x * power(n >> 1) * power(n - (n >> 1))
}

/// Significand in [1, 2) and exponent of a positive finite value.
fn split(x: f32) -> (f32, i32) {
    let (x, bias) = if x < f32::MIN_POSITIVE { (x * 4_294_967_296.0, 32) } else { (x, 0) };
    let bits = x.to_bits();
    (f32::from_bits((bits & 0x007F_FFFF) | 0x3F80_0000), (bits >> 23) as i32 - 127 - bias)
}

/// Knots of one function at equal distances, for both table sizes.
struct Table {
    knots: [Vec<f32>; 2],
}

impl Table {
    fn new(width: f64, f: impl Fn(f64) -> f64) -> Self {
        let knots = |n: u32| (0..=n).map(|i| f(width * f64::from(i) / f64::from(n)) as f32).collect();
        Self { knots: [knots(256), knots(64)] }
    }

    /// Value at `t` of the width, t in [0, 1].
    fn at(&self, accuracy: Accuracy, t: f32) -> f32 {
        let knots = &self.knots[usize::from(accuracy == Accuracy::Lut64)];
        let segments = knots.len() - 1;
        let position = t * segments as f32;
        let i = (position as usize).min(segments - 1);
        let (a, b) = (knots[i], knots[i + 1]);
        a + (position - i as f32) * (b - a)
    }
}

struct Tables {
    exp2: Table,
    log1p: Table,
    recip: Table,
    rsqrt: Table,
    tanh: Table,
    sigmoid: Table,
    gate_t: Table,
    gate_e: Table,
}

const TANH_WIDTH: f32 = 8.0;
const SIGMOID_WIDTH: f32 = 16.0;
const GATE_WIDTH: f32 = 5.0;

static TABLES: LazyLock<Tables> = LazyLock::new(|| Tables {
    exp2: Table::new(1.0, libm::exp2),
    log1p: Table::new(1.0, libm::log1p),
    recip: Table::new(1.0, |t| 1.0 / (1.0 + t)),
    rsqrt: Table::new(3.0, |t| 1.0 / libm::sqrt(1.0 + t)),
    tanh: Table::new(f64::from(TANH_WIDTH), libm::tanh),
    sigmoid: Table::new(f64::from(SIGMOID_WIDTH), |x| 1.0 / (1.0 + libm::exp(-x))),
    gate_t: Table::new(f64::from(GATE_WIDTH), |x| {
        let u = f64::from(GELU_SCALE) * (x + f64::from(GELU_CUBIC) * x * x * x);
        0.5 * (1.0 + libm::tanh(u))
    }),
    gate_e: Table::new(f64::from(GATE_WIDTH), |x| {
        0.5 * (1.0 + libm::erf(x * core::f64::consts::FRAC_1_SQRT_2))
    }),
});

fn exp(a: Accuracy, x: f32) -> f32 {
    if x.is_nan() {
        return x;
    }
    if x > 89.0 {
        return f32::INFINITY;
    }
    if x < -104.0 {
        return 0.0;
    }
    if a.is_table() {
        let t = x * LOG2_E;
        let n = t.floor();
        return scale(TABLES.exp2.at(a, t - n), n as i32);
    }
    let n = (x * LOG2_E).round_ties_even();
    let r = (x - n * LN_2_HIGH) - n * LN_2_LOW;
    scale(horner(&EXP, r), n as i32)
}

fn log(a: Accuracy, x: f32) -> f32 {
    if x.is_nan() || x < 0.0 {
        return f32::NAN;
    }
    if x == 0.0 || x == f32::INFINITY {
        return if x == 0.0 { f32::NEG_INFINITY } else { x };
    }
    let (m, e) = split(x);
    if a.is_table() {
        return e as f32 * LN_2 + TABLES.log1p.at(a, m - 1.0);
    }
    let (m, e) = if m > core::f32::consts::SQRT_2 { (0.5 * m, e + 1) } else { (m, e) };
    let t = m - 1.0;
    e as f32 * LN_2 + t * horner(&LOG, t)
}

fn recip(a: Accuracy, x: f32) -> f32 {
    if x.is_nan() || x == 0.0 || x.is_infinite() {
        return 1.0 / x;
    }
    let (m, e) = split(x.abs());
    let r = if a.is_table() {
        TABLES.recip.at(a, m - 1.0)
    } else {
        let r = horner(&RECIP, m);
        r * (2.0 - m * r)
    };
    scale(r, -e).copysign(x)
}

fn rsqrt(a: Accuracy, x: f32) -> f32 {
    if x.is_nan() || x < 0.0 {
        return f32::NAN;
    }
    if x == 0.0 || x == f32::INFINITY {
        return if x == 0.0 { f32::INFINITY } else { 0.0 };
    }
    let (m, e) = split(x);
    let (m, e) = if e % 2 == 0 { (m, e) } else { (2.0 * m, e - 1) };
    let r = if a.is_table() {
        TABLES.rsqrt.at(a, (m - 1.0) * (1.0 / 3.0))
    } else {
        let r = horner(&RSQRT, m);
        let r = r * (1.5 - 0.5 * m * r * r);
        r * (1.5 - 0.5 * m * r * r)
    };
    scale(r, -e / 2)
}

/// A table over |x| < `width` that is 1 beyond.
fn saturating(table: &Table, width: f32, a: Accuracy, x: f32) -> f32 {
    let x = x.abs();
    match x {
        x if x < width => table.at(a, x / width),
        x if x.is_nan() => x,
        _ => 1.0,
    }
}

/// The same for a function with f(-x) = 1 - f(x).
fn gate(table: &Table, width: f32, a: Accuracy, x: f32) -> f32 {
    let v = saturating(table, width, a, x);
    if x < 0.0 { 1.0 - v } else { v }
}

fn tanh(a: Accuracy, x: f32) -> f32 {
    if a.is_table() {
        return saturating(&TABLES.tanh, TANH_WIDTH, a, x).copysign(x);
    }
    (1.0 - 2.0 * recip(a, 1.0 + exp(a, 2.0 * x.abs()))).copysign(x)
}

fn erf(a: Accuracy, x: f32) -> f32 {
    const C: [f32; 5] = [0.254_829_6, -0.284_496_74, 1.421_413_7, -1.453_152, 1.061_405_4];
    let t = recip(a, 1.0 + 0.327_591_1 * x.abs());
    (1.0 - (t * horner(&C, t)) * exp(a, -(x * x))).copysign(x)
}

/// The argument of GELU's tanh.
fn gelu_argument(x: f32) -> f32 {
    GELU_SCALE * (x + GELU_CUBIC * ((x * x) * x))
}

impl Special {
    /// The function at `x`.
    #[inline]
    pub fn eval(self, a: Accuracy, x: f32) -> f32 {
        if a == Accuracy::Exact { self.exact(x) } else { self.approximate(a, x) }
    }

    fn exact(self, x: f32) -> f32 {
        match self {
            Self::Exp => libm::expf(x),
            Self::Log => libm::logf(x),
            Self::Rsqrt => 1.0 / libm::sqrtf(x),
            Self::Recip => 1.0 / x,
            Self::Tanh => libm::tanhf(x),
            Self::Sigmoid => 1.0 / (1.0 + libm::expf(-x)),
            Self::Silu => number::silu(x),
            Self::GeluT => (0.5 * x) * (1.0 + libm::tanhf(gelu_argument(x))),
            Self::GeluE => (0.5 * x) * (1.0 + libm::erff(x * core::f32::consts::FRAC_1_SQRT_2)),
        }
    }

    fn approximate(self, a: Accuracy, x: f32) -> f32 {
        match self {
            Self::Exp => exp(a, x),
            Self::Log => log(a, x),
            Self::Rsqrt => rsqrt(a, x),
            Self::Recip => recip(a, x),
            Self::Tanh => tanh(a, x),
            Self::Sigmoid if a.is_table() => gate(&TABLES.sigmoid, SIGMOID_WIDTH, a, x),
            Self::Sigmoid => recip(a, 1.0 + exp(a, -x)),
            Self::Silu => x * Self::Sigmoid.approximate(a, x),
            Self::GeluT if a.is_table() => x * gate(&TABLES.gate_t, GATE_WIDTH, a, x),
            Self::GeluT => (0.5 * x) * (1.0 + tanh(a, gelu_argument(x))),
            Self::GeluE if a.is_table() => x * gate(&TABLES.gate_e, GATE_WIDTH, a, x),
            Self::GeluE => (0.5 * x) * (1.0 + erf(a, x * core::f32::consts::FRAC_1_SQRT_2)),
        }
    }

    /// Cost of one evaluation.
    pub const fn charge(self, a: Accuracy) -> Charge {
        if a.is_table() {
            let product = matches!(self, Self::Silu | Self::GeluT | Self::GeluE) as u64;
            return Charge { passes: 1 + product, special: 0, lookups: 1 };
        }
        let (passes, special) = match self {
            Self::Exp | Self::Log | Self::Recip => (1, 1),
            // The reference takes a root and divides; the polynomial is of the inverse root itself.
            Self::Rsqrt if matches!(a, Accuracy::Exact) => (2, 2),
            Self::Rsqrt => (1, 1),
            // Negate and exponentiate; add one and invert.
            Self::Sigmoid => (2, 2),
            // The same, and the product.
            Self::Silu => (3, 2),
            // Double and exponentiate; add one and invert; double; subtract from one.
            Self::Tanh => (4, 2),
            // Two products to the cube, its coefficient, the sum, the scale; tanh; add one, halve, multiply.
            Self::GeluT => (12, 2),
            // Scale and erf; add one, halve, multiply.
            Self::GeluE => (4, 1),
        };
        Charge { passes, special, lookups: 0 }
    }
}

/// Derivative of GELU's tanh form.
pub(super) fn gelu_tanh_slope(x: f32) -> f32 {
    let t = libm::tanhf(gelu_argument(x));
    let inner = GELU_SCALE * (1.0 + 0.134_145 * (x * x));
    0.5 * (1.0 + t) + ((0.5 * x) * (1.0 - t * t)) * inner
}

/// Derivative of GELU's erf form: the normal distribution's integral plus x times its density.
pub(super) fn gelu_erf_slope(x: f32) -> f32 {
    const DENSITY: f32 = 0.398_942_3; // 1 / sqrt(2 pi)
    let cdf = 0.5 * (1.0 + libm::erff(x * core::f32::consts::FRAC_1_SQRT_2));
    cdf + x * (DENSITY * libm::expf(-0.5 * (x * x)))
}
