//! Operands in local memory: a rectangle of rows, checked once, then read and written a row at a time.

use isa::npu::{Format, GRANULE};

use super::number;
use crate::config::NpuConfig;
use crate::fault::Fault;
use crate::local::{Local, Space};

/// What a command says about an operand.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub what: &'static str,
    pub space: Space,
    pub granule: u64,
    /// Row stride in granules; 0 packs rows without padding.
    pub stride: u64,
    pub rows: u64,
    pub cols: u64,
    pub format: Format,
}

/// A checked operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rows {
    pub space: Space,
    pub base: usize,
    pub stride: usize,
    pub rows: usize,
    pub cols: usize,
    pub row_bytes: usize,
    pub format: Format,
}

/// Faults unless the NPU executes `format` at all; `what` names the field.
pub(super) fn format(cfg: &NpuConfig, code: u64, what: &'static str) -> Result<Format, Fault> {
    let format = Format::from_code(code).ok_or(Fault::command(code, what))?;
    if cfg.formats & number::FORMATS & (1 << code) == 0 {
        return Err(Fault::not_in_cap(code, what));
    }
    Ok(format)
}

/// The same, and it must be one of `allowed`.
pub(super) fn format_of(
    cfg: &NpuConfig,
    code: u64,
    allowed: &[Format],
    what: &'static str,
) -> Result<Format, Fault> {
    let format = format(cfg, code, what)?;
    if allowed.contains(&format) { Ok(format) } else { Err(Fault::not_in_cap(code, what)) }
}

/// Faults unless `len` bytes from byte `at` lie in the memory.
pub(super) fn range(
    cfg: &NpuConfig,
    space: Space,
    at: u64,
    len: u64,
    what: &'static str,
) -> Result<usize, Fault> {
    let size = match space {
        Space::Spm => cfg.scratchpad.get(),
        Space::Acc => cfg.accumulator.get(),
    };
    match at.checked_add(len) {
        Some(end) if end <= size => Ok(at as usize),
        _ => Err(Fault::range(at, what)),
    }
}

impl Rows {
    /// A source.
    pub fn new(cfg: &NpuConfig, s: Shape) -> Result<Self, Fault> {
        let row_bytes = s.format.bytes(s.cols);
        let stride = if s.stride == 0 { row_bytes } else { s.stride * GRANULE };
        let len = (s.rows - 1) * stride + row_bytes;
        let base = range(cfg, s.space, s.granule * GRANULE, len, s.what)?;
        Ok(Self {
            space: s.space,
            base,
            stride: stride as usize,
            rows: s.rows as usize,
            cols: s.cols as usize,
            row_bytes: row_bytes as usize,
            format: s.format,
        })
    }

    /// A destination: as a source, and its rows must not overlap each other.
    pub fn destination(cfg: &NpuConfig, s: Shape) -> Result<Self, Fault> {
        let rows = Self::new(cfg, s)?;
        if rows.stride < rows.row_bytes && rows.rows > 1 {
            return Err(Fault::operand(s.stride, "destination rows overlap: the stride is below a row"));
        }
        Ok(rows)
    }

    /// Bytes of all elements, padding between rows not counted.
    pub const fn bytes(&self) -> u64 {
        (self.rows * self.row_bytes) as u64
    }

    /// Address of row `r`.
    pub const fn at(&self, r: usize) -> usize {
        self.base + r * self.stride
    }

    /// Row `r` as stored.
    #[inline]
    pub fn raw<'a>(&self, local: &'a Local, r: usize) -> Result<&'a [u8], Fault> {
        local.bytes(self.space, self.at(r), self.row_bytes)
    }

    /// Row `r` as fp32.
    #[inline]
    pub fn read(&self, local: &Local, r: usize, out: &mut [f32]) -> Result<(), Fault> {
        number::decode_row(self.format, self.raw(local, r)?, out);
        Ok(())
    }

    /// Stores row `r`.
    #[inline]
    pub fn write(&self, local: &mut Local, r: usize, values: &[f32]) -> Result<(), Fault> {
        self.write_saturating(local, r, values, false)
    }

    /// Stores row `r`; `saturate` keeps fp16 finite.
    #[inline]
    pub fn write_saturating(
        &self,
        local: &mut Local,
        r: usize,
        values: &[f32],
        saturate: bool,
    ) -> Result<(), Fault> {
        let bytes = local.bytes_mut(self.space, self.at(r), self.row_bytes)?;
        number::encode_row(self.format, values, saturate, bytes);
        Ok(())
    }
}
