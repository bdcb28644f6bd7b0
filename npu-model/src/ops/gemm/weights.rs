//! B of a product: where its rows and tables lie, and their decoding into tiles of fp32.

use isa::image::{group_rows, scale_bytes};
use isa::npu::{Format, GRANULE, Gemm};

use super::codes::{self, BLOCK, Codes};
use super::kernels::LANES;
use super::tile::{GroupTable, Source, Stationary, Tile};
use crate::config::NpuConfig;
use crate::fault::Fault;
use crate::local::{Local, Space};
use crate::ops::number::{self, Scale};
use crate::ops::operand::{self, Rows, Shape};

/// What goes with a scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Zero {
    None,
    /// An integer in the weights' format, subtracted from the code.
    Point,
    /// A float in the scales' format, added to the scaled code.
    Minimum,
    /// Codes are indices into this look-up table.
    Codebook(u64),
}

/// How B is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// K rows of N.
    Rows,
    /// N rows of K.
    Transposed,
    /// For four rows of K two rows of N values and one of N position pairs.
    Sparse,
}

/// A checked B.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Weights {
    order: Order,
    pub format: Format,
    k: usize,
    n: usize,
    base: usize,
    /// Bytes from one stored row (of the sparse order: four rows of K) to the next.
    stride: usize,
    row_bytes: usize,
    /// Rows of K that share a table; K where tables do not repeat.
    group: usize,
    /// Whether scales are applied inside the sum.
    pub scaled: bool,
    pub zero: Zero,
    scale: Scale,
    /// Columns a scale covers.
    spread: usize,
    /// Tables in line behind their group's rows; `None`: one after the other from this address.
    tables: Option<usize>,
    table_bytes: usize,
    /// Bytes of rows and tables.
    pub bytes: u64,
}

fn zero(g: &Gemm, format: Format, codebook: u64) -> Result<Zero, Fault> {
    let integer = is_integer(format);
    if (g.zpm == 3) != (format == Format::Codebook4) {
        return Err(Fault::operand(g.bf, "bf: codebook weights and zpm 3 need each other"));
    }
    match g.zpm {
        0 => Ok(Zero::None),
        3 => Ok(Zero::Codebook(codebook)),
        _ if !integer => Err(Fault::operand(g.zpm, "zpm: zero points and minima need integer weights")),
        1 if g.grp == 0 => Err(Fault::operand(g.zpm, "zpm: zero points need scales")),
        1 => Ok(Zero::Point),
        _ if group_rows(g.grp) == 0 => Err(Fault::operand(g.zpm, "zpm: minima need scale groups")),
        _ if g.sf == 3 => Err(Fault::operand(g.sf, "sf: a minimum has a sign, e8m0 has none")),
        _ => Ok(Zero::Minimum),
    }
}

/// Whether codes of this format are integers.
pub(super) const fn is_integer(format: Format) -> bool {
    matches!(
        format,
        Format::Int2 | Format::Int4 | Format::Uint4 | Format::Int8 | Format::Uint8 | Format::Int16
    )
}

/// Whether the format's scales are e8m0 by 32 elements.
pub(super) const fn is_microscaling(format: Format) -> bool {
    matches!(format, Format::Mxfp4 | Format::Mxfp8)
}

fn order(g: &Gemm, k: u64) -> Result<Order, Fault> {
    match (g.tb, g.sp24) {
        (0, 0) => Ok(Order::Rows),
        (1, 0) => Ok(Order::Transposed),
        (1, _) => Err(Fault::operand(g.sp24, "sp24: a sparse B is not transposed")),
        _ if !k.is_multiple_of(4) => Err(Fault::operand(g.k, "sp24: K is no multiple of four")),
        _ if g.bst != 0 => Err(Fault::operand(g.bst, "bst: a sparse B is packed")),
        _ if g.zpm == 2 => Err(Fault::operand(g.zpm, "zpm: minima would fill a sparse B's zeros")),
        _ => Ok(Order::Sparse),
    }
}

impl Weights {
    pub fn new(cfg: &NpuConfig, g: &Gemm, format: Format, codebook: u64) -> Result<Self, Fault> {
        let (k, n) = (g.k + 1, g.n + 1);
        let order = order(g, k)?;
        let zero = zero(g, format, codebook)?;
        if is_microscaling(format) && (g.grp, g.sf) != (3, 3) {
            return Err(Fault::operand(g.grp, "grp: microscaling weights have e8m0 scales by 32 rows"));
        }
        let repeats = group_rows(g.grp);
        if repeats != 0 && number::is_float(format) {
            return Err(Fault::operand(g.grp, "grp: floats of 16 and 32 bits have no group scales"));
        }
        let group = if repeats == 0 { k } else { repeats };
        let spread = if g.grp == 7 { 128 } else { 1 };
        let table_columns = n.div_ceil(spread);
        let extra = match zero {
            Zero::Point => format.bytes(table_columns),
            Zero::Minimum => table_columns * scale_bytes(g.sf),
            Zero::None | Zero::Codebook(_) => 0,
        };
        let table_bytes = table_columns * scale_bytes(g.sf) + extra;
        let used = repeats != 0 || matches!(zero, Zero::Point);
        let in_line = repeats != 0 && g.grp != 7 && order != Order::Transposed;
        if in_line && g.bst != 0 {
            return Err(Fault::operand(g.bst, "bst: rows with scales in line are packed"));
        }
        let (rows, cols) = if order == Order::Transposed { (n, k) } else { (k, n) };
        let row_bytes = format.bytes(cols);
        let stride = match order {
            Order::Sparse => 2 * row_bytes + n.div_ceil(2),
            _ if g.bst != 0 => g.bst * GRANULE,
            _ => row_bytes,
        };
        let row_count = if order == Order::Sparse { rows / 4 } else { rows };
        let what = "B leaves the scratchpad";
        let tables = k.div_ceil(group) * table_bytes;
        let mut weights = Self {
            order,
            format,
            k: k as usize,
            n: n as usize,
            base: 0,
            stride: stride as usize,
            row_bytes: row_bytes as usize,
            group: group as usize,
            scaled: repeats != 0,
            zero,
            scale: Scale::from_code(g.sf),
            spread: spread as usize,
            tables: None,
            table_bytes: table_bytes as usize,
            bytes: row_count * (if order == Order::Sparse { stride } else { row_bytes })
                + if used { tables } else { 0 },
        };
        if order == Order::Sparse {
            let len = row_count * stride + if in_line { tables } else { 0 };
            weights.base = operand::range(cfg, Space::Spm, g.b * GRANULE, len, what)?;
        } else if in_line {
            weights.base = operand::range(cfg, Space::Spm, g.b * GRANULE, weights.bytes, what)?;
        } else {
            let (space, granule) = (Space::Spm, g.b);
            let shape = Shape { what, space, granule, stride: g.bst, rows, cols, format };
            weights.base = Rows::new(cfg, shape)?.base;
        }
        if in_line {
            if g.s * GRANULE != weights.table(0) as u64 {
                return Err(Fault::operand(g.s, "s: scales do not lie right behind the first group's rows"));
            }
        } else if used {
            let what = "B's scales leave the scratchpad";
            weights.tables = Some(operand::range(cfg, Space::Spm, g.s * GRANULE, tables, what)?);
        }
        Ok(weights)
    }

    pub const fn is_sparse(&self) -> bool {
        matches!(self.order, Order::Sparse)
    }

    /// Rows of a scale group, 0 where none is applied inside the sum.
    pub const fn scale_group(&self) -> u64 {
        if self.scaled { self.group as u64 } else { 0 }
    }

    /// First row of K in `group`'s neighbour above.
    pub fn group_end(&self, row: usize) -> usize {
        ((row / self.group + 1) * self.group).min(self.k)
    }

    /// Address of stored row `row` (sparse: of the four from there), tables in line counted.
    fn row(&self, row: usize) -> usize {
        let rows = if self.is_sparse() { row / 4 } else { row };
        let tables =
            if self.scaled && self.tables.is_none() { row / self.group * self.table_bytes } else { 0 };
        self.base + rows * self.stride + tables
    }

    fn table(&self, group: usize) -> usize {
        if let Some(at) = self.tables {
            return at + group * self.table_bytes;
        }
        let rows = self.group_end(group * self.group);
        let rows = if self.is_sparse() { rows / 4 } else { rows };
        self.base + rows * self.stride + group * self.table_bytes
    }

    /// Takes a copy of everything a product reads of B.
    pub fn latch(&self, local: &Local) -> Result<Stationary, Fault> {
        let rows = if self.order == Order::Transposed { self.n } else { self.k };
        let end = match (self.order, self.tables) {
            (Order::Transposed, _) => self.base + (rows - 1) * self.stride + self.row_bytes,
            (_, None) if self.scaled => self.table((self.k - 1) / self.group) + self.table_bytes,
            (Order::Sparse, _) => self.base + self.k / 4 * self.stride,
            _ => self.base + (rows - 1) * self.stride + self.row_bytes,
        };
        let piece = |at: usize, len| Ok((at, local.bytes(Space::Spm, at, len)?.to_vec()));
        let tables = self.tables.unwrap_or(end);
        let groups = if self.tables.is_some() { self.k.div_ceil(self.group) } else { 0 };
        let pieces = [piece(self.base, end - self.base)?, piece(tables, groups * self.table_bytes)?];
        Ok(Stationary { weights: *self, pieces })
    }

    /// The latched weights, if they are of this kind and size.
    pub fn held<'a>(&self, held: Option<&'a Stationary>) -> Result<(Self, Source<'a>), Fault> {
        let missing = Fault::operand(0, "keepb: the array does not hold this B");
        let held = held.ok_or(missing)?;
        let at = |w: &Self| Self { base: 0, stride: 0, tables: None, ..*w };
        if at(&held.weights) == at(self) { Ok((held.weights, Source::Array(held))) } else { Err(missing) }
    }

    /// Decodes `rows` rows of K from `first` on, all of one group, into `tile`: codes less their zero points, or
    /// with `finished` whole weights.
    pub fn decode(
        &self,
        source: Source<'_>,
        local: &Local,
        (first, rows): (usize, usize),
        finished: bool,
        tile: &mut Tile,
    ) -> Result<(), Fault> {
        let columns = tile.table.scales.len();
        if finished && let Some(codes) = self.codes(source, (first, rows), &mut tile.table)? {
            codes.finish(&mut tile.values);
            return Ok(());
        }
        self.load_table(source, first, &mut tile.table)?;
        let stored = match self.order {
            Order::Rows => {
                for r in 0..rows {
                    let bytes = source.bytes(self.row(first + r), self.row_bytes)?;
                    number::decode_row(self.format, bytes, &mut tile.values[r * columns..][..self.n]);
                }
                rows
            }
            Order::Transposed => {
                self.transpose(source, first, rows, tile)?;
                rows
            }
            Order::Sparse => {
                self.pairs(source, first, rows, tile)?;
                rows / 2
            }
        };
        let values = &mut tile.values[..stored * columns];
        match self.zero {
            Zero::Codebook(id) => {
                let book = codebook(local, id);
                values.iter_mut().for_each(|v| *v = book[*v as usize & 15]);
            }
            Zero::Point => {
                for row in values.chunks_exact_mut(columns) {
                    row.iter_mut().zip(&tile.table.lows).for_each(|(v, z)| *v -= z);
                }
            }
            Zero::None | Zero::Minimum => {}
        }
        if finished && self.scaled {
            for row in values.chunks_exact_mut(columns) {
                let pairs = row.iter_mut().zip(&tile.table.scales);
                if self.zero == Zero::Minimum {
                    pairs.zip(&tile.table.lows).for_each(|((v, s), low)| *v = *v * s + low);
                } else {
                    pairs.for_each(|(v, s)| *v *= s);
                }
                if tile.table.normal {
                    row.iter_mut().for_each(|v| *v = number::round_normal_fp16(*v));
                } else {
                    number::round_row_fp16(row);
                }
            }
            if self.in_blocks() {
                codes::arrange(self.format, values);
            }
        }
        Ok(())
    }

    /// Whether finished weights, and the accumulators they are added to, lie in the order of blocks.
    pub const fn in_blocks(&self) -> bool {
        self.scaled
            && matches!(self.order, Order::Rows)
            && codes::decodes(self.format)
            && self.n.is_multiple_of(BLOCK)
    }

    /// Rows of K that become finished weights in one pass, if they do; the group's table is loaded.
    pub fn codes<'a>(
        &self,
        source: Source<'a>,
        (first, rows): (usize, usize),
        table: &'a mut GroupTable,
    ) -> Result<Option<Codes<'a>>, Fault> {
        if !self.in_blocks() {
            return Ok(None);
        }
        self.load_table(source, first, table)?;
        if !table.normal {
            return Ok(None);
        }
        let (stride, columns, format) = (self.stride, self.n, self.format);
        let bytes = source.bytes(self.row(first), (rows - 1) * stride + self.row_bytes)?;
        Ok(Some(Codes { bytes, stride, rows, columns, format, table: &table.blocks }))
    }

    /// Loads the table of the group row `row` belongs to, unless it is there or not needed.
    fn load_table(&self, source: Source<'_>, row: usize, table: &mut GroupTable) -> Result<(), Fault> {
        let group = row / self.group;
        if (self.scaled || self.zero == Zero::Point) && table.group != Some(group) {
            self.read_table(source, group, table)?;
        }
        Ok(())
    }

    fn read_table(&self, source: Source<'_>, group: usize, table: &mut GroupTable) -> Result<(), Fault> {
        let (at, n) = (self.table(group), self.n.div_ceil(self.spread));
        let scales = n * self.scale.bytes();
        self.scale.decode(source.bytes(at, scales)?, &mut table.scales[..n]);
        let lows = &mut table.lows[..n];
        match self.zero {
            Zero::Minimum => self.scale.decode(source.bytes(at + scales, scales)?, lows),
            Zero::Point => {
                let bytes = source.bytes(at + scales, self.table_bytes - scales)?;
                number::decode_row(self.format, bytes, lows);
            }
            Zero::None | Zero::Codebook(_) => {}
        }
        if self.spread > 1 {
            for c in (0..self.n).rev() {
                table.scales[c] = table.scales[c / self.spread];
                table.lows[c] = table.lows[c / self.spread];
            }
        }
        table.normal = self.rounds_as_normal(&table.scales[..self.n], &table.lows[..self.n]);
        if self.in_blocks() {
            let lows = |wanted| (self.zero == wanted).then_some(table.lows.as_slice());
            let (points, minima) = (lows(Zero::Point), lows(Zero::Minimum));
            table.blocks.fill(self.format, &table.scales, points, minima);
        }
        table.group = Some(group);
        Ok(())
    }

    /// Whether every finished weight of a group rounds to fp16 as if it were normal there.
    ///
    /// Codes have at most nine bits, differences to a zero point included, so bounded scales and minima keep
    /// weights finite. What lies below fp16's normal range is zero if scales are normal and nothing is added; if
    /// scales and minima are fp16 it is a multiple of fp16's smallest step, which no rounding changes.
    fn rounds_as_normal(&self, scales: &[f32], lows: &[f32]) -> bool {
        const SMALLEST_NORMAL: f32 = 6.103_515_6e-5; // 2^-14
        if !is_integer(self.format) || self.format.bits() > 8 {
            return false;
        }
        let minima = self.zero == Zero::Minimum;
        let least = match self.scale {
            Scale::Fp16 => 0.0,
            _ if minima => return false,
            _ => SMALLEST_NORMAL,
        };
        let bounded = |values: &[f32], most: f32| {
            let out = |v: &f32| u32::from(!(least..=most).contains(&v.abs()));
            values.iter().fold(0, |any, v| any | out(v)) == 0
        };
        bounded(scales, 64.0) && (!minima || bounded(lows, 16_384.0))
    }

    /// Stored rows are columns: a strip of columns is decoded, then turned.
    fn transpose(&self, source: Source<'_>, first: usize, rows: usize, tile: &mut Tile) -> Result<(), Fault> {
        let columns = tile.table.scales.len();
        // Tiles start at whole bytes: their rows are multiples of four, and no format has fewer than two bits.
        let skipped = self.format.bytes(first as u64) as usize;
        let taken = self.format.bytes(rows as u64) as usize;
        for start in (0..self.n).step_by(LANES) {
            let width = LANES.min(self.n - start);
            for (c, row) in tile.row.chunks_exact_mut(rows).take(width).enumerate() {
                let at = self.base + (start + c) * self.stride + skipped;
                number::decode_row(self.format, source.bytes(at, taken)?, row);
            }
            for r in 0..rows {
                let out = &mut tile.values[r * columns + start..][..width];
                out.iter_mut().zip(tile.row[r..].iter().step_by(rows)).for_each(|(o, v)| *o = *v);
            }
        }
        Ok(())
    }

    fn pairs(&self, source: Source<'_>, first: usize, rows: usize, tile: &mut Tile) -> Result<(), Fault> {
        let columns = tile.table.scales.len();
        for four in 0..rows / 4 {
            let at = self.row(first + 4 * four);
            for half in 0..2 {
                let bytes = source.bytes(at + half * self.row_bytes, self.row_bytes)?;
                let r = (2 * four + half) * columns;
                number::decode_row(self.format, bytes, &mut tile.values[r..][..self.n]);
                let bytes = source.bytes(at + 2 * self.row_bytes, self.n.div_ceil(2))?;
                for (c, position) in tile.positions[r..][..self.n].iter_mut().enumerate() {
                    *position = bytes[c / 2] >> (4 * (c % 2) + 2 * half) & 3;
                }
            }
        }
        Ok(())
    }
}

/// The first 16 entries of a look-up table.
fn codebook(local: &Local, id: u64) -> [f32; 16] {
    core::array::from_fn(|i| number::from_fp16(local.lut(id)[i]))
}
