//! Shared by the operation tests: a small core, matrices packed and unpacked independently of the model.
#![allow(
    dead_code,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap,
    reason = "each test file uses a part of this; test sizes are small"
)]

#[path = "../random/mod.rs"]
mod random;

use half::{bf16, f16};
use isa::npu::{Command, Format, GRANULE};
use ndarray::Array2;
use npu_model::{Local, LocalPorts, NpuConfig, Space, ops};
pub use random::Random;
use sim_kernel::{Bytes, Hertz};

/// A core of 16 x 16 PEs with 256 KiB of scratchpad and 64 KiB of accumulators.
pub fn config() -> NpuConfig {
    NpuConfig {
        cores: 1,
        rows: 16,
        cols: 16,
        frequency: Hertz::new(1_000_000_000),
        scratchpad: Bytes::new(256 * 1024),
        accumulator: Bytes::new(64 * 1024),
        dma_in_channels: 1,
        dma_out_channels: 1,
        dma_bytes_per_cycle: 64,
        dma_outstanding: Bytes::new(4096),
        vector_lanes: 16,
        fifo_depth: 16,
        decode_cycles: 4,
        gemv_bytes_per_cycle: 64,
        formats: ops::FORMATS,
        ports: LocalPorts::IDEAL,
    }
}

/// Its memories, filled with a pattern that is no plausible result.
pub fn memories(cfg: &NpuConfig) -> Local {
    let mut local = Local::new(cfg.scratchpad.get() as usize, cfg.accumulator.get() as usize);
    local.spm.fill(0xA5);
    local.acc.fill(0x5A);
    local
}

impl Random {
    /// Uniform in [-bound, bound].
    pub fn float(&mut self, bound: f32) -> f32 {
        (self.below(2_000_001) as f32 / 1_000_000.0 - 1.0) * bound
    }

    /// A value `format` holds exactly.
    pub fn value(&mut self, format: Format) -> f32 {
        match format {
            Format::Int4 => self.below(16) as f32 - 8.0,
            Format::Uint4 => self.below(16) as f32,
            Format::Int8 => self.below(256) as f32 - 128.0,
            Format::Uint8 => self.below(256) as f32,
            Format::Int32 => self.below(1 << 20) as f32 - 524_288.0,
            Format::Int16 => self.below(1 << 16) as f32 - 32_768.0,
            Format::Int2 => self.below(4) as f32 - 2.0,
            Format::Codebook4 => self.below(16) as f32,
            Format::Fp8E4m3 | Format::Fp8E5m2 | Format::Mxfp4 | Format::Mxfp8 => loop {
                let v = small_float(self.below(1 << format.bits()) as u32, format);
                if v.abs() <= 16.0 {
                    return v;
                }
            },
            _ => {
                let v = self.float(2.0);
                round(v, format)
            }
        }
    }

    pub fn matrix(&mut self, rows: usize, cols: usize, format: Format) -> Array2<f32> {
        Array2::from_shape_simple_fn((rows, cols), || self.value(format))
    }
}

impl Random {
    /// Scales that `sf` holds exactly, about 0.01, of both signs unless they are powers of two.
    pub fn scales(&mut self, rows: usize, cols: usize, sf: u64) -> Array2<f32> {
        Array2::from_shape_simple_fn((rows, cols), || {
            let v = self.float(0.02);
            match sf {
                0 => round(v, Format::Fp16),
                1 => round(v, Format::Bf16),
                2 => v,
                _ => 2f32.powi(-4 - self.below(8) as i32),
            }
        })
    }
}

/// Stores scales of format code `sf` at byte address `at`; their bytes.
pub fn put_scales(local: &mut Local, at: usize, scales: &[f32], sf: u64) -> usize {
    let bytes: Vec<u8> = scales
        .iter()
        .flat_map(|s| match sf {
            0 => f16::from_f32(*s).to_le_bytes().to_vec(),
            1 => bf16::from_f32(*s).to_le_bytes().to_vec(),
            2 => s.to_le_bytes().to_vec(),
            _ => vec![(s.log2() + 127.0) as u8],
        })
        .collect();
    local.spm[at..at + bytes.len()].copy_from_slice(&bytes);
    bytes.len()
}

/// The value nearest `v` in a float format.
pub fn round(v: f32, format: Format) -> f32 {
    match format {
        Format::Fp16 => f16::from_f32(v).to_f32(),
        Format::Bf16 => bf16::from_f32(v).to_f32(),
        _ => v,
    }
}

/// Sign, exponent and significand of a float of 4 or 8 bits, by definition; NaN where the code is no number.
pub fn small_float(code: u32, format: Format) -> f32 {
    let (exponents, significands) = match format {
        Format::Mxfp4 => (2, 1),
        Format::Fp8E5m2 => (5, 2),
        _ => (4, 3),
    };
    let field = code >> significands & ((1 << exponents) - 1);
    let magnitude = code & ((1 << (exponents + significands)) - 1);
    let special = match format {
        Format::Mxfp4 => false,
        Format::Fp8E5m2 => field == 31,
        _ => magnitude == 127,
    };
    if special {
        return f32::NAN;
    }
    let fraction = (code & ((1 << significands) - 1)) as f32 / (1 << significands) as f32;
    let bias = (1 << (exponents - 1)) - 1;
    let sign = if code >> (exponents + significands) & 1 == 1 { -1.0 } else { 1.0 };
    sign * (fraction + field.min(1) as f32) * 2f32.powi(field.max(1) as i32 - bias)
}

/// Bytes of one element row.
pub fn row_bytes(cols: usize, format: Format) -> usize {
    (cols * format.bits() as usize).div_ceil(8)
}

/// Bytes from one row to the next for a stride of `granules`.
pub fn pitch(cols: usize, format: Format, granules: u64) -> usize {
    if granules == 0 { row_bytes(cols, format) } else { (granules * GRANULE) as usize }
}

fn memory(local: &mut Local, space: Space) -> &mut Vec<u8> {
    match space {
        Space::Spm => &mut local.spm,
        Space::Acc => &mut local.acc,
    }
}

/// Stores one element; int4 touches only its nibble.
fn put_element(bytes: &mut [u8], index: usize, v: f32, format: Format) {
    match format {
        Format::Int2 => {
            let shift = 2 * (index % 4);
            bytes[index / 4] = (bytes[index / 4] & !(3 << shift)) | ((v as i32 & 3) as u8) << shift;
        }
        Format::Fp8E4m3 | Format::Fp8E5m2 | Format::Mxfp8 => {
            let code = (0..256).find(|c| small_float(*c, format).to_bits() == v.to_bits());
            bytes[index] = code.expect("a value of the format") as u8;
        }
        Format::Int16 => bytes[2 * index..][..2].copy_from_slice(&(v as i16).to_le_bytes()),
        Format::Int4 | Format::Uint4 | Format::Codebook4 | Format::Mxfp4 => {
            let code = if format == Format::Mxfp4 {
                (0..16).find(|c| small_float(*c, format).to_bits() == v.to_bits()).expect("a value") as u8
            } else {
                (v as i32 & 15) as u8
            };
            let b = &mut bytes[index / 2];
            *b = if index.is_multiple_of(2) { (*b & 0xF0) | code } else { (*b & 0x0F) | (code << 4) };
        }
        Format::Int8 => bytes[index] = v as i8 as u8,
        Format::Uint8 => bytes[index] = v as u8,
        Format::Int32 => bytes[4 * index..][..4].copy_from_slice(&(v as i32).to_le_bytes()),
        Format::Fp16 => bytes[2 * index..][..2].copy_from_slice(&f16::from_f32(v).to_le_bytes()),
        Format::Bf16 => bytes[2 * index..][..2].copy_from_slice(&bf16::from_f32(v).to_le_bytes()),
        _ => bytes[4 * index..][..4].copy_from_slice(&v.to_le_bytes()),
    }
}

/// Stores a matrix at byte address `at` with `pitch` bytes from row to row.
pub fn put(local: &mut Local, space: Space, at: usize, pitch: usize, m: &Array2<f32>, format: Format) {
    for (r, row) in m.rows().into_iter().enumerate() {
        let bytes = &mut memory(local, space)[at + r * pitch..];
        for (i, &v) in row.iter().enumerate() {
            put_element(bytes, i, v, format);
        }
    }
}

/// Loads a matrix of floats, int8 or int32.
pub fn get(
    local: &Local,
    space: Space,
    at: usize,
    pitch: usize,
    (rows, cols): (usize, usize),
    format: Format,
) -> Array2<f32> {
    let memory = match space {
        Space::Spm => &local.spm,
        Space::Acc => &local.acc,
    };
    Array2::from_shape_fn((rows, cols), |(r, c)| {
        let b = &memory[at + r * pitch..];
        match format {
            Format::Int8 => f32::from(b[c] as i8),
            Format::Uint8 => f32::from(b[c]),
            Format::Int16 => f32::from(i16::from_le_bytes([b[2 * c], b[2 * c + 1]])),
            Format::Int4 => f32::from(((b[c / 2] >> (4 * (c % 2))) << 4) as i8 >> 4),
            Format::Uint4 => f32::from((b[c / 2] >> (4 * (c % 2))) & 15),
            Format::Fp8E4m3 | Format::Fp8E5m2 => small_float(u32::from(b[c]), format),
            Format::Int32 => i32::from_le_bytes([b[4 * c], b[4 * c + 1], b[4 * c + 2], b[4 * c + 3]]) as f32,
            Format::Fp16 => f16::from_le_bytes([b[2 * c], b[2 * c + 1]]).to_f32(),
            Format::Bf16 => bf16::from_le_bytes([b[2 * c], b[2 * c + 1]]).to_f32(),
            _ => f32::from_le_bytes([b[4 * c], b[4 * c + 1], b[4 * c + 2], b[4 * c + 3]]),
        }
    })
}

/// Bit equality, any NaN equal to any NaN.
pub fn assert_same(got: &Array2<f32>, expected: &Array2<f32>, what: &str) {
    assert_eq!(got.dim(), expected.dim(), "{what}");
    for ((at, g), e) in got.indexed_iter().zip(expected) {
        assert!(
            g.to_bits() == e.to_bits() || (g.is_nan() && e.is_nan()),
            "{what} at {at:?}: {g:e}, not {e:e}"
        );
    }
}

/// One command from its text.
pub fn command(text: &str) -> Command {
    let words = isa::npu::text::assemble(text).unwrap_or_else(|e| panic!("{text}: {}", e.message));
    Command::decode(&words).unwrap_or_else(|e| panic!("{text}: {e}"))
}

/// Checks, costs and executes a command.
pub fn run(command: &Command, cfg: &NpuConfig, local: &mut Local) {
    ops::check(command, cfg).unwrap_or_else(|f| panic!("{f}: {command:?}"));
    let cost = ops::cost(command, cfg).unwrap_or_else(|f| panic!("{f}: {command:?}"));
    assert_eq!(
        cost.cycles,
        cost.start_cycles + cost.fill_cycles + cost.active_cycles + cost.drain_cycles,
        "cycles are the sum of their causes"
    );
    assert!(cost.active_cycles > 0);
    ops::execute(command, cfg, local, None).unwrap_or_else(|f| panic!("{f}: {command:?}"));
}
