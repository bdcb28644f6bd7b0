//! A of a product: its elements as fp32, and the scales and sums of its blocks along K.

use isa::image::group_rows;
use isa::npu::{Epilogue, Format, GRANULE, Gemm};

use super::weights::is_microscaling;
use crate::config::NpuConfig;
use crate::fault::Fault;
use crate::local::{Local, Space};
use crate::ops::number::Scale;
use crate::ops::operand::{self, Rows, Shape};

/// A checked A.
#[derive(Clone, Copy, Debug)]
pub(super) struct Activations {
    rows: Rows,
    transposed: bool,
    pub blocks: Option<Blocks>,
}

/// The scale table of blocks along K.
#[derive(Clone, Copy, Debug)]
pub(super) struct Blocks {
    /// Elements of a block.
    pub rows: usize,
    base: usize,
    /// Values from one row of A to the next.
    stride: usize,
    scale: Scale,
    /// Whether a sum follows each scale.
    pub sums: bool,
}

impl Activations {
    pub fn new(cfg: &NpuConfig, g: &Gemm, e: &Epilogue, format: Format) -> Result<Self, Fault> {
        let (m, k) = (g.m + 1, g.k + 1);
        let (rows, cols) = if g.ta == 1 { (k, m) } else { (m, k) };
        let (what, space) = ("A leaves the scratchpad", Space::Spm);
        let rows = Rows::new(cfg, Shape { what, space, granule: g.a, stride: g.ast, rows, cols, format })?;
        Ok(Self { rows, transposed: g.ta == 1, blocks: blocks(cfg, e, format, m, k)? })
    }

    /// Bytes of elements and block scales.
    pub fn bytes(&self, m: u64, k: u64) -> u64 {
        let table =
            self.blocks.map_or(0, |b| m * k.div_ceil(b.rows as u64) * b.values() * b.scale.bytes() as u64);
        self.rows.bytes() + table
    }

    /// M rows of K.
    pub fn read(&self, local: &Local, out: &mut Vec<f32>, row: &mut Vec<f32>) -> Result<(), Fault> {
        let (rows, cols) = (self.rows.rows, self.rows.cols);
        out.resize(rows * cols, 0.0);
        if !self.transposed {
            for (r, out) in out.chunks_exact_mut(cols).enumerate() {
                self.rows.read(local, r, out)?;
            }
            return Ok(());
        }
        row.resize(cols, 0.0);
        for r in 0..rows {
            self.rows.read(local, r, row)?;
            out[r..].iter_mut().step_by(rows).zip(&*row).for_each(|(o, v)| *o = *v);
        }
        Ok(())
    }
}

fn blocks(cfg: &NpuConfig, e: &Epilogue, format: Format, m: u64, k: u64) -> Result<Option<Blocks>, Fault> {
    if is_microscaling(format) && (e.ag, e.asf) != (3, 3) {
        return Err(Fault::operand(e.ag, "ag: microscaling operands have e8m0 scales by 32"));
    }
    if e.ag == 7 {
        return Err(Fault::operand(e.ag, "ag: A's scales have one row each"));
    }
    let rows = group_rows(e.ag);
    if rows == 0 {
        let fault = Fault::operand(e.asum, "asum: there are no blocks to sum");
        return if e.asum == 1 { Err(fault) } else { Ok(None) };
    }
    if matches!(format, Format::Fp16 | Format::Bf16 | Format::Fp32) {
        return Err(Fault::operand(e.ag, "ag: floats of 16 and 32 bits have no block scales"));
    }
    let scale = Scale::from_code(e.asf);
    if e.asum == 1 && scale == Scale::E8m0 {
        return Err(Fault::operand(e.asf, "asf: a sum has a sign, e8m0 has none"));
    }
    let mut b = Blocks { rows: rows as usize, base: 0, stride: 0, scale, sums: e.asum == 1 };
    let row = k.div_ceil(rows) * b.values();
    let stride = if e.asp == 0 { row } else { e.asp };
    let bytes = ((m - 1) * stride + row) * scale.bytes() as u64;
    b.base = operand::range(cfg, Space::Spm, e.as_ * GRANULE, bytes, "A's scales leave the scratchpad")?;
    b.stride = stride as usize;
    Ok(Some(b))
}

impl Blocks {
    /// Values a block has in the table.
    const fn values(&self) -> u64 {
        1 + self.sums as u64
    }

    /// Scale and sum (0 without one) of block `block` of row `row`.
    pub fn get(&self, local: &Local, row: usize, block: usize) -> Result<(f32, f32), Fault> {
        let (size, values) = (self.scale.bytes(), self.values() as usize);
        let at = self.base + (row * self.stride + block * values) * size;
        let mut out = [0.0; 2];
        let bytes = local.bytes(Space::Spm, at, values * size)?;
        self.scale.decode(bytes, &mut out[..values]);
        Ok((out[0], out[1]))
    }
}
