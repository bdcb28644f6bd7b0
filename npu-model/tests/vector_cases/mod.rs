//! Cases of the vector contract: for each function operands, the command, and what it must leave, computed on ndarray
//! matrices from the documented order and not from the code.
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap,
    reason = "test sizes are small"
)]

mod data;
mod elementwise;
mod rows;
mod selection;
mod training;

use half::{bf16, f16};
use isa::npu::{Body, Command, Format, VecFn, VecOp};
use ndarray::Array2;
use npu_model::{Local, NpuConfig, Space};

use crate::ops_common::{self, Random, config, get, memories, put, round};

pub const X: usize = 0;
pub const Y: usize = 64 * 1024;
pub const D: usize = 128 * 1024;
pub const ALPHA: usize = 200 * 1024;

/// Builds one case on a bench.
pub type Build = fn(&mut Bench) -> Command;

/// Every case; a function may have several.
pub fn all() -> Vec<(VecFn, Build)> {
    [elementwise::CASES, rows::CASES, selection::CASES, data::CASES, training::CASES].concat()
}

/// A region and what it must hold.
struct Expect {
    what: &'static str,
    at: usize,
    pitch: usize,
    values: Array2<f32>,
    format: Format,
}

/// Memories with operands, and expectations.
pub struct Bench {
    pub cfg: NpuConfig,
    pub local: Local,
    pub random: Random,
    pub rows: usize,
    pub cols: usize,
    pub xf: Format,
    pub df: Format,
    expects: Vec<Expect>,
}

pub const FLOATS: [Format; 3] = [Format::Fp16, Format::Bf16, Format::Fp32];

pub const fn granule(byte: usize) -> u64 {
    (byte / 32) as u64
}

impl Bench {
    /// A bench of random shape and formats.
    pub fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let (rows, cols) = (1 + random.below(6) as usize, 1 + random.below(70) as usize);
        Self::sized(random.next(), rows, cols)
    }

    /// A bench of this shape.
    pub fn sized(seed: u64, rows: usize, cols: usize) -> Self {
        let cfg = config();
        let local = memories(&cfg);
        let mut random = Random(seed);
        let (xf, df) = (FLOATS[random.below(3) as usize], FLOATS[random.below(3) as usize]);
        Self { cfg, local, random, rows, cols, xf, df, expects: Vec::new() }
    }

    /// The body both sources and the destination of which are where the bench puts them, rows packed.
    pub fn vec(&self) -> VecOp {
        VecOp {
            x: granule(X),
            y: granule(Y),
            d: granule(D),
            rows: self.rows as u64 - 1,
            cols: self.cols as u64 - 1,
            xf: self.xf.code(),
            yf: Format::Fp32.code(),
            dfm: self.df.code(),
            ..VecOp::default()
        }
    }

    /// Puts a packed matrix.
    pub fn put(&mut self, at: usize, m: &Array2<f32>, format: Format) {
        put(&mut self.local, Space::Spm, at, ops_common::row_bytes(m.ncols(), format), m, format);
    }

    /// Puts 32-bit words.
    pub fn put_words(&mut self, at: usize, words: &[u32]) {
        for (i, w) in words.iter().enumerate() {
            self.local.set_word(Space::Spm, at + 4 * i, *w).expect("in range");
        }
    }

    /// A random first source.
    pub fn x(&mut self) -> Array2<f32> {
        let m = self.random.matrix(self.rows, self.cols, self.xf);
        self.put(X, &m, self.xf);
        m
    }

    /// A random fp32 matrix in the second source's place.
    pub fn y(&mut self, rows: usize, cols: usize) -> Array2<f32> {
        let m = self.random.matrix(rows, cols, Format::Fp32);
        self.put(Y, &m, Format::Fp32);
        m
    }

    /// Expects a packed matrix, rounded to `format`.
    pub fn expect(&mut self, what: &'static str, at: usize, values: &Array2<f32>, format: Format) {
        let pitch = ops_common::row_bytes(values.ncols(), format);
        let values = values.mapv(|v| round(v, format));
        self.expects.push(Expect { what, at, pitch, values, format });
    }

    /// Expects a packed matrix at d in its format.
    pub fn expect_d(&mut self, values: &Array2<f32>) {
        self.expect("d", D, values, self.df);
    }

    /// Expects 32-bit words, NaN-free ones compared as bits.
    pub fn expect_words(&mut self, what: &'static str, at: usize, words: &[u32]) {
        let values = Array2::from_shape_fn((1, words.len()), |(_, i)| f32::from_bits(words[i]));
        self.expects.push(Expect { what, at, pitch: 0, values, format: Format::Fp32 });
    }

    /// Moves the first source to the accumulator, the command too.
    pub fn x_to_accumulator(&mut self, command: &mut Command) {
        let Body::Vec(body) = &mut command.body else { panic!("a VEC command") };
        body.xs = 1;
        let len = self.local.acc.len().min(Y);
        self.local.acc[..len].copy_from_slice(&self.local.spm[..len]);
        self.local.spm[..len].fill(0xA5);
    }

    /// Runs the command, compares every expected region, and every other byte with what it was.
    pub fn check(mut self, command: &Command, name: &str) {
        let before = self.local.clone();
        ops_common::run(command, &self.cfg, &mut self.local);
        let mut rest = self.local.clone();
        for e in &self.expects {
            let got = get(&self.local, Space::Spm, e.at, e.pitch, e.values.dim(), e.format);
            for ((at, g), v) in got.indexed_iter().zip(&e.values) {
                assert!(
                    g.to_bits() == v.to_bits() || (g.is_nan() && v.is_nan()),
                    "{name} {} at {at:?}: {g:e} ({:#x}), not {v:e} ({:#x}); {command:?}",
                    e.what,
                    g.to_bits(),
                    v.to_bits()
                );
            }
            for r in 0..e.values.nrows() {
                let (from, len) = (e.at + r * e.pitch, ops_common::row_bytes(e.values.ncols(), e.format));
                rest.spm[from..from + len].copy_from_slice(&before.spm[from..from + len]);
            }
        }
        // Which pages were touched is not a result.
        rest.touched = before.touched.clone();
        assert!(!self.expects.is_empty(), "{name} expects something");
        assert!(rest == before, "{name} wrote beyond its results; {command:?}");
    }
}

/// Bits of the nearest fp16, and of bf16's upper half.
pub fn bf16_bits(v: f32) -> u64 {
    u64::from(bf16::from_f32(v).to_bits())
}

/// The nearest fp16.
pub fn as_fp16(v: f32) -> f32 {
    f16::from_f32(v).to_f32()
}
