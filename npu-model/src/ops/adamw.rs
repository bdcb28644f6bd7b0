//! ADAMW: one optimiser step (Loshchilov and Hutter 2019), optionally with stochastic rounding of the parameters.
//!
//! Shapes: x gradients rows x cols; d parameters rows x cols, read and written; y 2 rows x cols fp32, read and
//!   written: the first moments' rows, then the second moments', `yst` granules apart (0 = packed). imm = granule in
//!   SPM of eight 32-bit words: step size a, beta1, beta2, epsilon, decay w, c1 = 1 / (1 - beta1^t),
//!   c2 = 1 / (1 - beta2^t), all fp32, and a seed (u32).
//! Formats: x and d fp16, bf16 or fp32.
//! Arithmetic: m' = beta1 m + (1 - beta1) g; v' = beta2 v + (1 - beta2) (g g);
//!   p' = (p - (a w) p) - (a (m' c1)) / (sqrt(v' c2) + epsilon). rnd = 0 rounds p' to nearest even. rnd = 3 rounds it
//!   to one of its two neighbours in d's format, away from zero if a draw below 2^24 is below the fraction
//!   of the way times 2^24; element i (row by row) takes the draw of `random.rs` with seed 0 at counter (seed, i).
//!   Beyond the largest finite value: infinity.
//! Bound: fifteen passes, one of them a root and one a division.

use isa::npu::{Format, GRANULE};

use super::cost::Cost;
use super::operand::{self, Rows};
use super::random::{DRAWS, draw};
use super::vector::{FLOATS, Request, Work};
use crate::config::NpuConfig;
use crate::fault::Fault;
use crate::local::{Local, Space};

/// Bytes of the parameter words.
const PARAMETERS: u64 = 32;

/// A checked command.
pub(super) struct Plan {
    x: Rows,
    moments: Rows,
    d: Rows,
    parameters: usize,
    stochastic: bool,
}

struct Step {
    size: f32,
    beta1: f32,
    beta2: f32,
    epsilon: f32,
    decay: f32,
    c1: f32,
    c2: f32,
    seed: u32,
}

impl Step {
    /// New parameter; the moments are updated.
    fn apply(&self, g: f32, p: f32, m: &mut f32, v: &mut f32) -> f32 {
        *m = self.beta1 * *m + (1.0 - self.beta1) * g;
        *v = self.beta2 * *v + (1.0 - self.beta2) * (g * g);
        let denominator = libm::sqrtf(*v * self.c2) + self.epsilon;
        (p - (self.size * self.decay) * p) - (self.size * (*m * self.c1)) / denominator
    }
}

/// `x` rounded to a neighbour in fp16 or bf16 by a draw; fp32 and what is not finite stay.
fn stochastic(format: Format, x: f32, draw: u32) -> f32 {
    let (fraction_bits, lowest, largest) = match format {
        Format::Fp16 => (10, -14, 65_504.0f64),
        Format::Bf16 => (7, -126, 3.389_531_389_251_535_5e38),
        _ => return x,
    };
    if !x.is_finite() {
        return x;
    }
    let exponent = ((x.to_bits() >> 23 & 0xFF) as i32 - 127).max(lowest);
    let unit = f64::from_bits(((exponent - fraction_bits + 1023) as u64) << 52);
    let units = f64::from(x.abs()) / unit;
    let up = f64::from(draw) < units.fract() * f64::from(DRAWS);
    let rounded = (units.floor() + if up { 1.0 } else { 0.0 }) * unit;
    let magnitude = if rounded > largest { f32::INFINITY } else { rounded as f32 };
    magnitude.copysign(x)
}

impl Plan {
    pub fn new(r: &Request<'_>) -> Result<Self, Fault> {
        let at = r.body.imm * GRANULE;
        let what = "imm: the step's parameters leave the SPM";
        Ok(Self {
            x: r.x(FLOATS)?,
            moments: r.y_written(r.y_format(&[Format::Fp32])?, 2 * r.rows, r.cols)?,
            d: r.d(FLOATS)?,
            parameters: operand::range(r.cfg, Space::Spm, at, PARAMETERS, what)?,
            stochastic: r.body.rnd == 3,
        })
    }

    fn step(&self, local: &Local) -> Result<Step, Fault> {
        let word = |i: usize| local.word(Space::Spm, self.parameters + 4 * i);
        let float = |i| word(i).map(f32::from_bits);
        Ok(Step {
            size: float(0)?,
            beta1: float(1)?,
            beta2: float(2)?,
            epsilon: float(3)?,
            decay: float(4)?,
            c1: float(5)?,
            c2: float(6)?,
            seed: word(7)?,
        })
    }

    pub fn run(&self, local: &mut Local) -> Result<(), Fault> {
        let (rows, cols) = (self.x.rows, self.x.cols);
        let step = self.step(local)?;
        let mut buffers: [Vec<f32>; 4] = core::array::from_fn(|_| local.rows.take(cols));
        let [g, p, m, v] = &mut buffers;
        for row in 0..rows {
            self.x.read(local, row, g)?;
            self.d.read(local, row, p)?;
            self.moments.read(local, row, m)?;
            self.moments.read(local, rows + row, v)?;
            for (j, (((p, g), m), v)) in p.iter_mut().zip(&*g).zip(&mut *m).zip(&mut *v).enumerate() {
                *p = step.apply(*g, *p, m, v);
                if self.stochastic {
                    let bits = draw(0, u64::from(step.seed), (row * cols + j) as u32);
                    *p = stochastic(self.d.format, *p, bits);
                }
            }
            self.d.write(local, row, p)?;
            self.moments.write(local, row, m)?;
            self.moments.write(local, rows + row, v)?;
        }
        local.rows.give(buffers);
        Ok(())
    }

    pub fn cost(&self, cfg: &NpuConfig) -> Cost {
        let mut work = Work::elements(&self.x, 15);
        work.special_ops = 2 * (self.x.rows * self.x.cols) as u64;
        let mut cost = work.cost(cfg);
        cost.read(self.x.space, self.x.bytes());
        cost.read(self.d.space, self.d.bytes());
        cost.read(self.moments.space, self.moments.bytes());
        cost.read(Space::Spm, PARAMETERS);
        cost.write(self.d.space, self.d.bytes());
        cost.write(self.moments.space, self.moments.bytes());
        cost
    }
}
