//! GEMM's drain: what happens to accumulators on their way out, one row at a time.
//!
//! Order, each step one fp32 operation: v = fp32(accumulator); times A's row scale (`ag` 1, in `asf`); times B's column
//!   scale (`grp` 1, in `sf`); plus bias (fp32, fp16, bf16; not with init 2, which started at it); activation; element-
//!   wise with R (add, subtract, multiply, maximum, or silu(v) R or gelu-tanh(v) R; R fp32, fp16 or bf16 in SPM or
//!   ACC); with `amax` the row's largest |v| (NaNs ignored) goes to SPM at `amaxa` as fp32, one a row; times the output
//!   scale (`osm` 1 `os` itself, 2 its column's, 3 its row's of the fp32 table at granule `os`); plus the zero point
//!   `ozp` (int16; integer results only); conversion to `cf`.
//! Conversion: see `rounding`, by `rnd`, `sat` and `seed`; int32 only as the untouched integer accumulator. With
//!   csp = 0 the results replace the accumulators, so `cf` must be 4 bytes wide; with csp = 1 they go to SPM and the
//!   accumulator (at `aca`, rows packed) keeps the sums.
//! Rows leave the array one a cycle through the epilogue, so it adds no cycles.

use isa::npu::{Epilogue, Format, GRANULE, Gemm};

use super::activation::{Activation, gelu_tanh};
use crate::config::NpuConfig;
use crate::fault::Fault;
use crate::local::{Local, Space};
use crate::ops::cost::Cost;
use crate::ops::number::{self, Scale};
use crate::ops::operand::{self, Rows, Shape};
use crate::ops::rounding::{self, Rounding, WRITTEN};

/// Formats of a bias and of R.
const FLOATS: &[Format] = &[Format::Fp32, Format::Fp16, Format::Bf16];

#[derive(Clone, Copy, Debug)]
enum Combine {
    Add,
    Sub,
    Mul,
    SiluMul,
    GeluMul,
    Max,
}

/// A vector of scales in the scratchpad.
#[derive(Clone, Copy, Debug)]
struct Scales {
    at: usize,
    len: usize,
    scale: Scale,
}

impl Scales {
    fn new(cfg: &NpuConfig, granule: u64, len: u64, code: u64, what: &'static str) -> Result<Self, Fault> {
        let scale = Scale::from_code(code);
        let at = operand::range(cfg, Space::Spm, granule * GRANULE, len * scale.bytes() as u64, what)?;
        Ok(Self { at, len: len as usize, scale })
    }

    const fn bytes(&self) -> usize {
        self.len * self.scale.bytes()
    }

    /// The scales as fp32; nothing without any.
    fn read(scales: Option<Self>, local: &Local, out: &mut Vec<f32>) -> Result<(), Fault> {
        out.clear();
        let Some(s) = scales else { return Ok(()) };
        out.resize(s.len, 0.0);
        s.scale.decode(local.bytes(Space::Spm, s.at, s.bytes())?, out);
        Ok(())
    }
}

#[derive(Clone, Copy, Debug)]
enum OutputScale {
    None,
    Tensor(f32),
    Columns(Scales),
    Rows(Scales),
}

/// A checked drain.
pub(super) struct Drain {
    out: Rows,
    raw: bool,
    saturate: bool,
    rounding: Rounding,
    row_scales: Option<Scales>,
    column_scales: Option<Scales>,
    bias: Option<Rows>,
    activation: Activation,
    combine: Option<(Combine, Rows)>,
    /// Address of the row maxima.
    maxima: Option<usize>,
    scale: OutputScale,
    zero_point: f32,
}

/// The drain's vectors, read before anything is written.
#[derive(Clone, Debug, Default)]
pub(super) struct Vectors {
    rows: Vec<f32>,
    columns: Vec<f32>,
    bias: Vec<f32>,
    scale: Vec<f32>,
    second: Vec<f32>,
}

/// The bias, if there is one.
pub(super) fn bias(cfg: &NpuConfig, g: &Gemm, e: &Epilogue, integer: bool) -> Result<Option<Rows>, Fault> {
    if e.bff == 0 {
        return Ok(None);
    }
    let formats = if integer && g.init == 2 { &[Format::Int32] } else { FLOATS };
    let format = operand::format_of(cfg, e.bff, formats, "bff: not a format of this bias")?;
    let (what, space) = ("the bias leaves the scratchpad", Space::Spm);
    let shape = Shape { what, space, granule: e.bias, stride: 0, rows: 1, cols: g.n + 1, format };
    Rows::new(cfg, shape).map(Some)
}

fn combine(cfg: &NpuConfig, e: &Epilogue, m: u64, n: u64) -> Result<Option<(Combine, Rows)>, Fault> {
    let combine = match e.ew {
        0 => return Ok(None),
        1 => Combine::Add,
        2 => Combine::Sub,
        3 => Combine::Mul,
        4 => Combine::SiluMul,
        5 => Combine::GeluMul,
        6 => Combine::Max,
        code => return Err(Fault::command(code, "ew")),
    };
    let r = Rows::new(
        cfg,
        Shape {
            what: "R leaves its memory",
            space: Space::from_bit(e.rs),
            granule: e.r,
            stride: e.rst,
            rows: m,
            cols: n,
            format: operand::format_of(cfg, e.rf, FLOATS, "rf: not a format of R")?,
        },
    )?;
    Ok(Some((combine, r)))
}

fn output_scale(cfg: &NpuConfig, e: &Epilogue, m: u64, n: u64) -> Result<OutputScale, Fault> {
    let table = |len| Scales::new(cfg, e.os, len, 2, "output scales leave the scratchpad");
    Ok(match e.osm {
        0 => OutputScale::None,
        1 => OutputScale::Tensor(f32::from_bits(e.os as u32)),
        2 => OutputScale::Columns(table(n)?),
        _ => OutputScale::Rows(table(m)?),
    })
}

fn destination(cfg: &NpuConfig, g: &Gemm, format: Format, acc: Rows) -> Result<Rows, Fault> {
    if g.csp == 0 {
        if format.bits() != 32 {
            return Err(Fault::operand(g.cf, "cf: results in the accumulator are 4 bytes wide"));
        }
        return Ok(Rows { format, ..acc });
    }
    Rows::destination(
        cfg,
        Shape {
            what: "C leaves the scratchpad",
            space: Space::Spm,
            granule: g.c,
            stride: g.cst,
            rows: g.m + 1,
            cols: g.n + 1,
            format,
        },
    )
}

impl Drain {
    pub fn new(cfg: &NpuConfig, g: &Gemm, e: &Epilogue, integer: bool, acc: Rows) -> Result<Self, Fault> {
        let (m, n) = (g.m + 1, g.n + 1);
        let format = operand::format(cfg, g.cf, "cf: not a format of C")?;
        if format != Format::Int32 && !WRITTEN.contains(&format) {
            return Err(Fault::not_in_cap(g.cf, "cf: not a format of C"));
        }
        if e.ozp != 0 && matches!(format.bits(), 32) | is_float(format) {
            return Err(Fault::operand(e.ozp, "ozp: only integer results have a zero point"));
        }
        let what = "B's scales leave the scratchpad";
        let column_scales = if g.grp == 1 { Some(Scales::new(cfg, g.s, n, g.sf, what)?) } else { None };
        let what = "A's scales leave the scratchpad";
        let row_scales = if e.ag == 1 { Some(Scales::new(cfg, e.as_, m, e.asf, what)?) } else { None };
        let maxima = if e.amax == 1 {
            let what = "row maxima leave the scratchpad";
            Some(operand::range(cfg, Space::Spm, e.amaxa * GRANULE, 4 * m, what)?)
        } else {
            None
        };
        let drain = Self {
            out: destination(cfg, g, format, acc)?,
            raw: format == Format::Int32,
            saturate: g.sat == 1,
            rounding: Rounding::from_code(g.rnd, e.seed),
            row_scales,
            column_scales,
            bias: if g.init == 2 { None } else { bias(cfg, g, e, integer)? },
            activation: Activation::new(g, e)?,
            combine: combine(cfg, e, m, n)?,
            maxima,
            scale: output_scale(cfg, e, m, n)?,
            zero_point: f32::from(e.ozp as i16),
        };
        if drain.raw && (!integer || drain.touches()) {
            return Err(Fault::operand(g.cf, "cf: int32 is the untouched integer accumulator"));
        }
        Ok(drain)
    }

    fn touches(&self) -> bool {
        self.row_scales.is_some()
            || self.column_scales.is_some()
            || self.bias.is_some()
            || self.combine.is_some()
            || self.activation != Activation::None
            || !matches!(self.scale, OutputScale::None)
    }

    pub fn read(&self, local: &Local, vectors: &mut Vectors) -> Result<(), Fault> {
        vectors.bias.clear();
        if let Some(rows) = self.bias {
            vectors.bias.resize(rows.cols, 0.0);
            rows.read(local, 0, &mut vectors.bias)?;
        }
        let scale = match self.scale {
            OutputScale::Columns(s) | OutputScale::Rows(s) => Some(s),
            OutputScale::None | OutputScale::Tensor(_) => None,
        };
        Scales::read(self.row_scales, local, &mut vectors.rows)?;
        Scales::read(self.column_scales, local, &mut vectors.columns)?;
        Scales::read(scale, local, &mut vectors.scale)
    }

    /// Everything but the conversion, on row `r`.
    pub fn apply(
        &self,
        local: &mut Local,
        vectors: &mut Vectors,
        r: usize,
        values: &mut [f32],
    ) -> Result<(), Fault> {
        if let Some(&scale) = vectors.rows.get(r) {
            values.iter_mut().for_each(|v| *v *= scale);
        }
        values.iter_mut().zip(&vectors.columns).for_each(|(v, s)| *v *= s);
        values.iter_mut().zip(&vectors.bias).for_each(|(v, b)| *v += b);
        self.activation.apply(local, values);
        if let Some((combine, rows)) = &self.combine {
            vectors.second.resize(values.len(), 0.0);
            rows.read(local, r, &mut vectors.second)?;
            let pairs = values.iter_mut().zip(&vectors.second);
            match combine {
                Combine::Add => pairs.for_each(|(v, r)| *v += r),
                Combine::Sub => pairs.for_each(|(v, r)| *v -= r),
                Combine::Mul => pairs.for_each(|(v, r)| *v *= r),
                Combine::SiluMul => pairs.for_each(|(v, r)| *v = number::silu(*v) * r),
                Combine::GeluMul => pairs.for_each(|(v, r)| *v = gelu_tanh(*v) * r),
                Combine::Max => pairs.for_each(|(v, r)| *v = number::max(*v, *r)),
            }
        }
        if let Some(at) = self.maxima {
            let largest = values.iter().fold(0.0, |most, v| number::max(most, v.abs()));
            local.set_word(Space::Spm, at + 4 * r, f32::to_bits(largest))?;
        }
        match self.scale {
            OutputScale::None => {}
            OutputScale::Tensor(s) => values.iter_mut().for_each(|v| *v *= s),
            OutputScale::Columns(_) => values.iter_mut().zip(&vectors.scale).for_each(|(v, s)| *v *= s),
            OutputScale::Rows(_) => values.iter_mut().for_each(|v| *v *= vectors.scale[r]),
        }
        if self.zero_point != 0.0 {
            values.iter_mut().for_each(|v| *v += self.zero_point);
        }
        Ok(())
    }

    /// Converts and stores row `r`, whose accumulators (`acc`) are stored already.
    pub fn store(&self, local: &mut Local, r: usize, values: &[f32], acc: Rows) -> Result<(), Fault> {
        if self.raw {
            if self.out.space == Space::Spm {
                let words = local.bytes(Space::Acc, acc.at(r), acc.row_bytes)?.to_vec();
                local.bytes_mut(Space::Spm, self.out.at(r), words.len())?.copy_from_slice(&words);
            }
            return Ok(());
        }
        let bytes = local.bytes_mut(self.out.space, self.out.at(r), self.out.row_bytes)?;
        let first = (r * self.out.cols) as u64;
        rounding::encode_row(self.out.format, values, self.rounding, self.saturate, first, bytes);
        Ok(())
    }

    /// Operands and operations of the drain. In place, the accumulator's last write carries the result.
    pub fn charge(&self, cost: &mut Cost, m: u64, n: u64) {
        for scales in [self.row_scales, self.column_scales].into_iter().flatten() {
            cost.read(Space::Spm, scales.bytes() as u64);
            cost.vector_ops += m * n;
        }
        if let Some(bias) = self.bias {
            cost.read(bias.space, bias.bytes());
            cost.vector_ops += m * n;
        }
        let (elementary, special) = self.activation.operations();
        cost.vector_ops += elementary * m * n;
        cost.special_ops += special * m * n;
        if let Some((combine, r)) = &self.combine {
            cost.read(r.space, r.bytes());
            cost.vector_ops += m * n;
            let (elementary, special) = match combine {
                Combine::SiluMul => Activation::Silu.operations(),
                Combine::GeluMul => Activation::GeluTanh.operations(),
                Combine::Add | Combine::Sub | Combine::Mul | Combine::Max => (0, 0),
            };
            cost.vector_ops += elementary * m * n;
            cost.special_ops += special * m * n;
        }
        if self.maxima.is_some() {
            cost.vector_ops += m * n;
            cost.write(Space::Spm, 4 * m);
        }
        match self.scale {
            OutputScale::None => {}
            OutputScale::Tensor(_) => cost.vector_ops += m * n,
            OutputScale::Columns(s) | OutputScale::Rows(s) => {
                cost.read(Space::Spm, s.bytes() as u64);
                cost.vector_ops += m * n;
            }
        }
        if self.zero_point != 0.0 {
            cost.vector_ops += m * n;
        }
        if self.out.space == Space::Spm {
            cost.write(Space::Spm, self.out.bytes());
        }
    }
}

const fn is_float(format: Format) -> bool {
    number::is_float(format) || matches!(format, Format::Fp8E4m3 | Format::Fp8E5m2)
}
