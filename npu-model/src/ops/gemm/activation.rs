//! Activations of the epilogue, each step one fp32 operation, transcendental functions `libm`'s.
//!
//! relu: below zero becomes 0; relu2 relu(x) relu(x). gelu-tanh (0.5 x) (1 + tanh(0.7978846 (x + 0.044715 ((x x) x)))).
//! gelu-erf (0.5 x) (1 + erf(x 0.70710677)). silu x / (1 + e^-x), sigmoid 1 / (1 + e^-x). clamp: `lo` if x < lo, then
//! `hi` if x > hi, limits bf16. LUT: T is table `lut` over [lo, hi]; t = (x - lo) (255 / (hi - lo)), clamped to 0..=255,
//! NaN to 0; i = the integer part of t, at most 254; T_i + (t - i) (T_(i+1) - T_i).

use isa::npu::{Epilogue, Gemm};

use crate::fault::Fault;
use crate::local::{LUT_ENTRIES, Local};
use crate::ops::number;

/// sqrt(2 / pi) and the cubic coefficient of GELU's tanh form (Hendrycks and Gimpel).
const GELU_SCALE: f32 = 0.797_884_6;
const GELU_CUBIC: f32 = 0.044_715;

/// A checked activation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Activation {
    None,
    Relu,
    Relu2,
    GeluTanh,
    GeluErf,
    Silu,
    Sigmoid,
    Tanh,
    Exp,
    Clamp(f32, f32),
    /// Table, low end, entries a unit.
    Lut(u64, f32, f32),
}

pub(super) fn gelu_tanh(x: f32) -> f32 {
    (0.5 * x) * (1.0 + libm::tanhf(GELU_SCALE * (x + GELU_CUBIC * ((x * x) * x))))
}

fn gelu_erf(x: f32) -> f32 {
    (0.5 * x) * (1.0 + libm::erff(x * core::f32::consts::FRAC_1_SQRT_2))
}

fn relu(x: f32) -> f32 {
    if x < 0.0 { 0.0 } else { x }
}

fn clamp(x: f32, low: f32, high: f32) -> f32 {
    let x = if x < low { low } else { x };
    if x > high { high } else { x }
}

fn look_up(table: &[u16; LUT_ENTRIES], x: f32, low: f32, scale: f32) -> f32 {
    let t = (x - low) * scale;
    let t = if t > 0.0 { number::min(t, 255.0) } else { 0.0 };
    let i = (t as usize).min(LUT_ENTRIES - 2);
    let (a, b) = (number::from_fp16(table[i]), number::from_fp16(table[i + 1]));
    a + (t - i as f32) * (b - a)
}

impl Activation {
    pub fn new(g: &Gemm, e: &Epilogue) -> Result<Self, Fault> {
        let limit = |bits: u64| f32::from_bits((bits as u32) << 16);
        Ok(match g.act {
            0 => Self::None,
            1 => Self::Relu,
            2 => Self::Relu2,
            3 => Self::GeluTanh,
            4 => Self::GeluErf,
            5 => Self::Silu,
            6 => Self::Sigmoid,
            7 => Self::Tanh,
            8 => Self::Exp,
            9 => Self::Clamp(limit(e.lo), limit(e.hi)),
            15 => Self::Lut(e.lut, limit(e.lo), 255.0 / (limit(e.hi) - limit(e.lo))),
            code => return Err(Fault::command(code, "act")),
        })
    }

    pub fn apply(self, local: &Local, values: &mut [f32]) {
        let map = |values: &mut [f32], f: fn(f32) -> f32| values.iter_mut().for_each(|v| *v = f(*v));
        match self {
            Self::None => {}
            Self::Relu => map(values, relu),
            Self::Relu2 => map(values, |x| relu(x) * relu(x)),
            Self::GeluTanh => map(values, gelu_tanh),
            Self::GeluErf => map(values, gelu_erf),
            Self::Silu => map(values, number::silu),
            Self::Sigmoid => map(values, |x| 1.0 / (1.0 + libm::expf(-x))),
            Self::Tanh => map(values, libm::tanhf),
            Self::Exp => map(values, libm::expf),
            Self::Clamp(low, high) => values.iter_mut().for_each(|v| *v = clamp(*v, low, high)),
            Self::Lut(id, low, scale) => {
                let table = local.lut(id);
                values.iter_mut().for_each(|v| *v = look_up(table, *v, low, scale));
            }
        }
    }

    /// Elementary and special operations of one element.
    pub const fn operations(self) -> (u64, u64) {
        match self {
            Self::None => (0, 0),
            Self::Relu => (1, 0),
            Self::Relu2 | Self::Clamp(..) => (2, 0),
            Self::Lut(..) => (3, 0),
            Self::GeluTanh => (8, 1),
            Self::GeluErf => (4, 1),
            Self::Silu | Self::Sigmoid => (0, 2),
            Self::Tanh | Self::Exp => (0, 1),
        }
    }
}
