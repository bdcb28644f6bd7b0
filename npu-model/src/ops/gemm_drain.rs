//! GEMM's drain: what happens to accumulators on their way out, one row at a time.
//!
//! Order, each step one fp32 operation: v = fp32(accumulator); times A's row scale (`ag` 1, fp32); times B's column
//!   scale (`grp` 1, fp32); plus bias (fp32 or fp16); activation (none, relu, silu); element-wise with R (add,
//!   subtract, multiply, maximum, or silu(v) R; R fp32 or fp16 in SPM or ACC); conversion to `cf`.
//! Conversion: fp32; fp16, nearest even, overflow to infinity or with `sat` to +-65504; int32 only as the untouched
//!   integer accumulator. With csp = 0 the results replace the accumulators, so `cf` must be 4 bytes wide; with
//!   csp = 1 they go to SPM and the accumulator (at `aca`, rows packed) keeps the sums.
//! relu: values below zero become 0. Rows leave the array one a cycle through the epilogue, so it adds no cycles.

use isa::npu::{Epilogue, Format, Gemm};

use super::cost::Cost;
use super::number;
use super::operand::{self, Rows, Shape};
use crate::config::NpuConfig;
use crate::fault::Fault;
use crate::local::{Local, Space};

#[derive(Clone, Copy, Debug)]
enum Activation {
    None,
    Relu,
    Silu,
}

#[derive(Clone, Copy, Debug)]
enum Combine {
    Add,
    Sub,
    Mul,
    SiluMul,
    Max,
}

/// A checked drain.
pub(super) struct Drain {
    out: Rows,
    raw: bool,
    saturate: bool,
    row_scales: Option<Rows>,
    column_scales: Option<Rows>,
    bias: Option<Rows>,
    activation: Activation,
    combine: Option<(Combine, Rows)>,
}

/// The drain's vectors, read before anything is written.
pub(super) struct Vectors {
    rows: Vec<f32>,
    columns: Vec<f32>,
    bias: Vec<f32>,
}

fn vector(
    cfg: &NpuConfig,
    granule: u64,
    len: u64,
    format: Format,
    what: &'static str,
) -> Result<Rows, Fault> {
    Rows::new(cfg, Shape { what, space: Space::Spm, granule, stride: 0, rows: 1, cols: len, format })
}

fn activation(g: &Gemm) -> Result<Activation, Fault> {
    match g.act {
        0 => Ok(Activation::None),
        1 => Ok(Activation::Relu),
        5 => Ok(Activation::Silu),
        2..=4 | 6..=9 | 15 => Err(Fault::not_in_cap(g.act, "act: this activation does not execute")),
        code => Err(Fault::command(code, "act")),
    }
}

fn combine(cfg: &NpuConfig, e: &Epilogue, m: u64, n: u64) -> Result<Option<(Combine, Rows)>, Fault> {
    let combine = match e.ew {
        0 => return Ok(None),
        1 => Combine::Add,
        2 => Combine::Sub,
        3 => Combine::Mul,
        4 => Combine::SiluMul,
        5 => return Err(Fault::not_in_cap(e.ew, "ew: GELU does not execute")),
        6 => Combine::Max,
        code => return Err(Fault::command(code, "ew")),
    };
    let format = operand::format_of(cfg, e.rf, &[Format::Fp32, Format::Fp16], "rf: R is fp32 or fp16")?;
    let r = Rows::new(
        cfg,
        Shape {
            what: "R leaves its memory",
            space: Space::from_bit(e.rs),
            granule: e.r,
            stride: e.rst,
            rows: m,
            cols: n,
            format,
        },
    )?;
    Ok(Some((combine, r)))
}

fn row_scales(cfg: &NpuConfig, e: &Epilogue, m: u64) -> Result<Option<Rows>, Fault> {
    match (e.ag, e.asf) {
        (0, _) => Ok(None),
        (1, 2) => vector(cfg, e.as_, m, Format::Fp32, "A's scales leave the scratchpad").map(Some),
        (1, code) => Err(Fault::not_in_cap(code, "asf: A's scales are fp32")),
        (code, _) => Err(Fault::not_in_cap(code, "ag: A has at most one scale a row")),
    }
}

impl Drain {
    pub fn new(
        cfg: &NpuConfig,
        g: &Gemm,
        epilogue: Option<&Epilogue>,
        integer: bool,
        acc: Rows,
    ) -> Result<Self, Fault> {
        let (m, n) = (g.m + 1, g.n + 1);
        let e = epilogue.copied().unwrap_or_default();
        let flags = [
            (e.osm, "osm: results are not requantised"),
            (e.amax, "amax: the row maximum is not written"),
            (e.asum, "asum: there are no block sums"),
        ];
        if let Some(&(value, text)) = flags.iter().find(|f| f.0 != 0) {
            return Err(Fault::not_in_cap(value, text));
        }
        let format = operand::format_of(
            cfg,
            g.cf,
            &[Format::Fp32, Format::Fp16, Format::Int32],
            "cf: C drains to fp32, fp16 or int32",
        )?;
        let out = if g.csp == 0 {
            if format == Format::Fp16 {
                return Err(Fault::operand(g.cf, "cf: results in the accumulator are 4 bytes wide"));
            }
            Rows { format, ..acc }
        } else {
            Rows::destination(
                cfg,
                Shape {
                    what: "C leaves the scratchpad",
                    space: Space::Spm,
                    granule: g.c,
                    stride: g.cst,
                    rows: m,
                    cols: n,
                    format,
                },
            )?
        };
        let column_scales = if g.grp == 1 {
            if g.sf != 2 {
                return Err(Fault::not_in_cap(g.sf, "sf: scales by column are fp32"));
            }
            Some(vector(cfg, g.s, n, Format::Fp32, "B's scales leave the scratchpad")?)
        } else {
            None
        };
        let bias = if e.bff == 0 {
            None
        } else {
            let f =
                operand::format_of(cfg, e.bff, &[Format::Fp32, Format::Fp16], "bff: bias is fp32 or fp16")?;
            Some(vector(cfg, e.bias, n, f, "the bias leaves the scratchpad")?)
        };
        let drain = Self {
            out,
            raw: format == Format::Int32,
            saturate: g.sat == 1,
            row_scales: row_scales(cfg, &e, m)?,
            column_scales,
            bias,
            activation: activation(g)?,
            combine: combine(cfg, &e, m, n)?,
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
            || !matches!(self.activation, Activation::None)
    }

    /// Whether results are the accumulators' bits.
    pub const fn is_raw(&self) -> bool {
        self.raw
    }

    pub fn vectors(&self, local: &Local) -> Result<Vectors, Fault> {
        let read = |v: Option<Rows>| -> Result<Vec<f32>, Fault> {
            let Some(v) = v else { return Ok(Vec::new()) };
            let mut out = vec![0.0; v.cols];
            v.read(local, 0, &mut out)?;
            Ok(out)
        };
        Ok(Vectors {
            rows: read(self.row_scales)?,
            columns: read(self.column_scales)?,
            bias: read(self.bias)?,
        })
    }

    /// Everything but the conversion, on row `r`.
    pub fn apply(&self, local: &Local, vectors: &Vectors, r: usize, values: &mut [f32]) -> Result<(), Fault> {
        if let Some(&scale) = vectors.rows.get(r) {
            values.iter_mut().for_each(|v| *v *= scale);
        }
        values.iter_mut().zip(&vectors.columns).for_each(|(v, s)| *v *= s);
        values.iter_mut().zip(&vectors.bias).for_each(|(v, b)| *v += b);
        match self.activation {
            Activation::None => {}
            Activation::Relu => values.iter_mut().for_each(|v| *v = if *v < 0.0 { 0.0 } else { *v }),
            Activation::Silu => values.iter_mut().for_each(|v| *v = number::silu(*v)),
        }
        if let Some((combine, rows)) = &self.combine {
            let mut second = vec![0.0; values.len()];
            rows.read(local, r, &mut second)?;
            let pairs = values.iter_mut().zip(&second);
            match combine {
                Combine::Add => pairs.for_each(|(v, r)| *v += r),
                Combine::Sub => pairs.for_each(|(v, r)| *v -= r),
                Combine::Mul => pairs.for_each(|(v, r)| *v *= r),
                Combine::SiluMul => pairs.for_each(|(v, r)| *v = number::silu(*v) * r),
                Combine::Max => pairs.for_each(|(v, r)| *v = number::max(*v, *r)),
            }
        }
        Ok(())
    }

    pub fn store(&self, local: &mut Local, r: usize, values: &[f32]) -> Result<(), Fault> {
        self.out.write_saturating(local, r, values, self.saturate)
    }

    pub fn store_raw(
        &self,
        local: &mut Local,
        r: usize,
        bits: impl Iterator<Item = u32>,
    ) -> Result<(), Fault> {
        let bytes = local.bytes_mut(self.out.space, self.out.at(r), self.out.row_bytes)?;
        for (b, v) in bytes.chunks_exact_mut(4).zip(bits) {
            b.copy_from_slice(&v.to_le_bytes());
        }
        Ok(())
    }

    /// Operands and operations of the drain. In place, the accumulator's last write carries the result.
    pub fn charge(&self, cost: &mut Cost, m: u64, n: u64) {
        for v in [self.row_scales, self.column_scales, self.bias].into_iter().flatten() {
            cost.read(v.space, v.bytes());
            cost.vector_ops += m * n;
        }
        match self.activation {
            Activation::None => {}
            Activation::Relu => cost.vector_ops += m * n,
            Activation::Silu => cost.special_ops += 2 * m * n,
        }
        if let Some((combine, r)) = &self.combine {
            cost.read(r.space, r.bytes());
            cost.vector_ops += m * n;
            if let Combine::SiluMul = combine {
                cost.special_ops += 2 * m * n;
            }
        }
        if self.out.space == Space::Spm {
            cost.write(Space::Spm, self.out.bytes());
        }
    }
}
