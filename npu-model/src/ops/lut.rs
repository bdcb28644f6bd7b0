//! LUT: a look-up in one of the core's tables, as LUTLD loads them.
//!
//! Shapes: x and d rows x cols; imm = table id in bits 3:0, the other bits 0; for float x, y a row of two fp32:
//!   low and scale.
//! Formats: x fp16, bf16 or fp32, int8 or uint8; d fp16, bf16 or fp32. Table entries T are fp16.
//! Arithmetic: integers select an entry, int8 code + 128, uint8 code. For floats t = (x - low) scale, clamped to
//!   0..=255, NaN to 0; i = the integer part of t, at most 254; d = T_i + (t - i) (T_(i+1) - T_i).
//! Bound: one pass for integers, three for floats (subtract, multiply, interpolate).

use isa::npu::Format;

use super::cost::Cost;
use super::number;
use super::operand::Rows;
use super::vector::{FLOATS, Request, Work};
use crate::config::NpuConfig;
use crate::fault::Fault;
use crate::local::{LUT_ENTRIES, Local};

/// A checked command.
pub(super) struct Plan {
    x: Rows,
    /// Low end and scale; integers have none.
    y: Option<Rows>,
    d: Rows,
    table: u64,
}

fn interpolate(table: &[u16; LUT_ENTRIES], x: f32, [low, scale]: [f32; 2]) -> f32 {
    let t = (x - low) * scale;
    let t = if t > 0.0 { number::min(t, 255.0) } else { 0.0 };
    let i = (t as usize).min(LUT_ENTRIES - 2);
    let (a, b) = (number::from_fp16(table[i]), number::from_fp16(table[i + 1]));
    a + (t - i as f32) * (b - a)
}

impl Plan {
    pub fn new(r: &Request<'_>) -> Result<Self, Fault> {
        let table = r.body.imm;
        if table > 15 {
            return Err(Fault::operand(table, "imm: table ids are 0 to 15"));
        }
        let x = r.x(&[Format::Fp16, Format::Bf16, Format::Fp32, Format::Int8, Format::Uint8])?;
        let y = if number::is_float(x.format) { Some(r.y(&[Format::Fp32], 1, 2, 0)?) } else { None };
        Ok(Self { x, y, d: r.d(FLOATS)?, table })
    }

    pub fn run(&self, local: &mut Local) -> Result<(), Fault> {
        let mut x = local.rows.take(self.x.cols);
        let mut range = [0.0; 2];
        if let Some(y) = self.y {
            y.read(local, 0, &mut range)?;
        }
        for row in 0..self.x.rows {
            let table = local.lut(self.table);
            if self.y.is_some() {
                self.x.read(local, row, &mut x)?;
                x.iter_mut().for_each(|x| *x = interpolate(table, *x, range));
            } else {
                let flip = if self.x.format == Format::Int8 { 0x80 } else { 0 };
                for (x, b) in x.iter_mut().zip(self.x.raw(local, row)?) {
                    *x = number::from_fp16(table[usize::from(b ^ flip)]);
                }
            }
            self.d.write(local, row, &x)?;
        }
        local.rows.give([x]);
        Ok(())
    }

    pub fn cost(&self, cfg: &NpuConfig) -> Cost {
        let mut cost = Work::elements(&self.x, if self.y.is_some() { 3 } else { 1 }).cost(cfg);
        cost.read(self.x.space, self.x.bytes());
        if let Some(y) = self.y {
            cost.read(y.space, y.bytes());
        }
        cost.write(self.d.space, self.d.bytes());
        cost
    }
}
