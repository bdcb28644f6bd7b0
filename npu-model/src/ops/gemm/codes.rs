//! Integer codes with scales to weights in one pass, a block of 64 columns at a time.
//!
//! A block's codes are taken from words, code k of every word at once, so its columns come in an order of their own
//! ([`ORDERS`]); tables and accumulators of a product follow it, and its results are put back in order. Every column
//! computes w = fp16((q - z) s) or fp16(q s + minimum) and acc += a w, each step rounded to fp32, on the host's
//! widest vectors: no result depends on their width.

use fearless_simd::{Level, Simd, dispatch, f32x16, i32x16, prelude::*, u8x32, u8x64, u32x8, u32x16};
use isa::npu::Format;

use super::kernels::LANES;

/// Columns of a block.
pub(super) const BLOCK: usize = 4 * LANES;

/// The column at each place of a block, for codes of four and of eight bits.
const ORDERS: [[u8; BLOCK]; 2] = {
    let mut orders = [[0; BLOCK]; 2];
    let mut place = 0;
    while place < BLOCK {
        let (k, lane) = (place / LANES, place % LANES);
        orders[0][place] = (8 * (lane % 8) + 4 * (lane / 8) + k) as u8;
        orders[1][place] = (4 * lane + k) as u8;
        place += 1;
    }
    orders
};

const fn order(format: Format) -> &'static [u8; BLOCK] {
    if format.bits() == 4 { &ORDERS[0] } else { &ORDERS[1] }
}

/// What turns a code of this format into an unsigned one: the bits to flip in a word, and what that adds to it.
const fn flip(format: Format) -> (u32, f32) {
    match format {
        Format::Int4 => (0x8888_8888, 8.0),
        Format::Int8 => (0x8080_8080, 128.0),
        _ => (0, 0.0),
    }
}

/// Whether codes of this format can be taken in blocks.
pub(super) const fn decodes(format: Format) -> bool {
    matches!(format, Format::Int4 | Format::Uint4 | Format::Int8 | Format::Uint8)
}

/// Rows of whole blocks from the order of columns to that of blocks.
pub(super) fn arrange(format: Format, rows: &mut [f32]) {
    for block in rows.as_chunks_mut::<BLOCK>().0 {
        let columns = *block;
        block.iter_mut().zip(order(format)).for_each(|(v, c)| *v = columns[usize::from(c & 63)]);
    }
}

/// The way back.
pub(super) fn restore(format: Format, rows: &mut [f32]) {
    for block in rows.as_chunks_mut::<BLOCK>().0 {
        let places = *block;
        places.iter().zip(order(format)).for_each(|(v, c)| block[usize::from(c & 63)] = *v);
    }
}

/// The table of a group of rows, a value a column, in the order of blocks.
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    scales: Vec<f32>,
    /// Subtracted from unsigned codes, where that is not 0 everywhere.
    shifts: Vec<f32>,
    /// Added to scaled codes, if there are minima.
    lows: Vec<f32>,
}

impl Table {
    /// The table of a group: its scales, and its zero points or minima if it has any.
    pub fn fill(&mut self, format: Format, scales: &[f32], points: Option<&[f32]>, minima: Option<&[f32]>) {
        let order = order(format);
        let take = |to: &mut Vec<f32>, from: &[f32]| {
            to.resize(from.len(), 0.0);
            for (to, from) in to.as_chunks_mut::<BLOCK>().0.iter_mut().zip(from.as_chunks::<BLOCK>().0) {
                to.iter_mut().zip(order).for_each(|(v, c)| *v = from[usize::from(c & 63)]);
            }
        };
        take(&mut self.scales, scales);
        take(&mut self.shifts, points.unwrap_or_default());
        take(&mut self.lows, minima.unwrap_or_default());
        let (_, bias) = flip(format);
        if bias != 0.0 {
            self.shifts.resize(scales.len(), 0.0);
            self.shifts.iter_mut().for_each(|s| *s += bias);
        }
    }
}

/// Rows of codes of one group, which all round to fp16 as if they were normal there.
#[derive(Clone, Copy)]
pub(super) struct Codes<'a> {
    /// From the first row's first byte to the last row's last.
    pub bytes: &'a [u8],
    /// Bytes from one row to the next.
    pub stride: usize,
    pub rows: usize,
    pub columns: usize,
    pub format: Format,
    pub table: &'a Table,
}

/// A block's part of a table.
struct Block<S: Simd, const BITS: usize, const SHIFT: bool, const LOW: bool> {
    flip: u32,
    scales: [f32x16<S>; 4],
    shifts: [f32x16<S>; 4],
    lows: [f32x16<S>; 4],
}

/// The four strips of a block.
#[inline(always)]
fn strips<S: Simd>(simd: S, values: &[f32], block: usize) -> [f32x16<S>; 4] {
    let values = &values[block * BLOCK..][..BLOCK];
    core::array::from_fn(|k| f32x16::from_slice(simd, &values[k * LANES..][..LANES]))
}

impl<S: Simd, const BITS: usize, const SHIFT: bool, const LOW: bool> Block<S, BITS, SHIFT, LOW> {
    const BYTES: usize = BLOCK * BITS / 8;

    #[inline(always)]
    fn new(simd: S, codes: &Codes<'_>, block: usize) -> Self {
        let (table, none) = (codes.table, [f32x16::splat(simd, 0.0); 4]);
        Self {
            flip: flip(codes.format).0,
            scales: strips(simd, &table.scales, block),
            shifts: if SHIFT { strips(simd, &table.shifts, block) } else { none },
            lows: if LOW { strips(simd, &table.lows, block) } else { none },
        }
    }

    /// The block's codes of a row: words of which strip k takes code k.
    #[inline(always)]
    fn words(&self, simd: S, bytes: &[u8]) -> u32x16<S> {
        let words: u32x16<S> = if BITS == 4 {
            let words: u32x8<S> = u8x32::from_slice(simd, &bytes[..32]).bitcast();
            words.combine(words >> 16)
        } else {
            u8x64::from_slice(simd, &bytes[..64]).bitcast()
        };
        if SHIFT { words ^ self.flip } else { words }
    }

    /// The weights of strip `k`.
    #[inline(always)]
    fn weights(&self, words: u32x16<S>, k: usize) -> f32x16<S> {
        let code = (words >> (BITS * k) as u32) & ((1 << BITS) - 1);
        let mut weight: f32x16<S> = code.bitcast::<i32x16<S>>().to_float();
        if SHIFT {
            weight -= self.shifts[k];
        }
        weight *= self.scales[k];
        if LOW {
            weight += self.lows[k];
        }
        let bits: u32x16<S> = weight.bitcast();
        let rounded = (bits + 0x0FFF + ((bits >> 13) & 1)) & 0xFFFF_E000;
        rounded.bitcast()
    }
}

/// Something done to the rows of a group.
trait Action {
    fn act<S: Simd, const BITS: usize, const SHIFT: bool, const LOW: bool>(self, simd: S, codes: &Codes<'_>);
}

/// Stores the weights in rows of `columns`.
struct Store<'a>(&'a mut [f32]);

impl Action for Store<'_> {
    #[inline(always)]
    fn act<S: Simd, const BITS: usize, const SHIFT: bool, const LOW: bool>(self, simd: S, codes: &Codes<'_>) {
        for b in 0..codes.columns / BLOCK {
            let block = Block::<S, BITS, SHIFT, LOW>::new(simd, codes, b);
            for row in 0..codes.rows {
                let words = block.words(
                    simd,
                    &codes.bytes[row * codes.stride + b * Block::<S, BITS, SHIFT, LOW>::BYTES..],
                );
                let out = &mut self.0[row * codes.columns + b * BLOCK..][..BLOCK];
                for (k, out) in out.chunks_exact_mut(LANES).enumerate() {
                    block.weights(words, k).store_slice(out);
                }
            }
        }
    }
}

/// Adds a row of A times the weights to sums.
struct Add<'a>(&'a [f32], &'a mut [f32]);

impl Action for Add<'_> {
    #[inline(always)]
    fn act<S: Simd, const BITS: usize, const SHIFT: bool, const LOW: bool>(self, simd: S, codes: &Codes<'_>) {
        for (b, sums) in self.1.chunks_exact_mut(BLOCK).enumerate() {
            let block = Block::<S, BITS, SHIFT, LOW>::new(simd, codes, b);
            let mut sum = strips(simd, sums, 0);
            for (row, a) in self.0[..codes.rows].iter().enumerate() {
                let words = block.words(
                    simd,
                    &codes.bytes[row * codes.stride + b * Block::<S, BITS, SHIFT, LOW>::BYTES..],
                );
                for (k, sum) in sum.iter_mut().enumerate() {
                    *sum += block.weights(words, k) * *a;
                }
            }
            sum.iter().zip(sums.chunks_exact_mut(LANES)).for_each(|(v, out)| v.store_slice(out));
        }
    }
}

impl Codes<'_> {
    fn run(&self, level: Level, action: impl Action) {
        let (shift, low) = (!self.table.shifts.is_empty(), !self.table.lows.is_empty());
        match (self.format.bits(), shift, low) {
            (4, false, false) => dispatch!(level, simd => action.act::<_, 4, false, false>(simd, self)),
            (4, false, true) => dispatch!(level, simd => action.act::<_, 4, false, true>(simd, self)),
            (4, true, false) => dispatch!(level, simd => action.act::<_, 4, true, false>(simd, self)),
            (4, true, true) => dispatch!(level, simd => action.act::<_, 4, true, true>(simd, self)),
            (_, false, false) => dispatch!(level, simd => action.act::<_, 8, false, false>(simd, self)),
            (_, false, true) => dispatch!(level, simd => action.act::<_, 8, false, true>(simd, self)),
            (_, true, false) => dispatch!(level, simd => action.act::<_, 8, true, false>(simd, self)),
            (_, true, true) => dispatch!(level, simd => action.act::<_, 8, true, true>(simd, self)),
        }
    }

    /// Writes the weights to rows of `columns` values.
    pub fn finish(&self, out: &mut [f32]) {
        self.run(Level::new(), Store(out));
    }

    /// sums += `a`, a value a row, times the weights, in ascending order of rows.
    pub fn accumulate(&self, a: &[f32], sums: &mut [f32]) {
        self.run(Level::new(), Add(a, sums));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::number;

    /// Every set of vectors this host has.
    fn levels() -> Vec<Level> {
        let best = Level::new();
        #[cfg(target_arch = "x86_64")]
        let less = [
            best.as_sse2().map(Simd::level),
            best.as_sse4_2().map(Simd::level),
            best.as_avx2().map(Simd::level),
        ];
        #[cfg(not(target_arch = "x86_64"))]
        let less = [None];
        less.into_iter().flatten().chain([best]).collect()
    }

    #[test]
    fn blocks_equal_columns_one_by_one_on_all_vectors() {
        const ROWS: usize = 5;
        let columns = 2 * BLOCK;
        let mut state = 1u32;
        let mut draw = |n: u32| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) % n
        };
        let cases = [Format::Int4, Format::Uint4, Format::Int8, Format::Uint8];
        for (format, extra) in cases.into_iter().flat_map(|f| (0..3).map(move |extra| (f, extra))) {
            let row_bytes = columns * format.bits() as usize / 8;
            let bytes: Vec<u8> = (0..ROWS * row_bytes).map(|_| draw(256) as u8).collect();
            // fp16 of all signs, some of them subnormal.
            let mut half = || number::from_fp16((draw(0x3800) | draw(2) << 15) as u16);
            let scales: Vec<f32> = (0..columns).map(|_| half()).collect();
            let minima: Vec<f32> = (0..columns).map(|_| half()).collect();
            let a: Vec<f32> = (0..ROWS).map(|_| half() * 8.0).collect();
            let start: Vec<f32> = (0..columns).map(|_| half()).collect();
            let mut points = vec![0.0; columns];
            number::decode_row(format, &bytes[..row_bytes], &mut points);
            let (points, minima) = ((extra == 1).then_some(&points[..]), (extra == 2).then_some(&minima[..]));

            let (mut weights, mut sums) = (Vec::new(), start.clone());
            for (row, a) in bytes.chunks_exact(row_bytes).zip(&a) {
                let mut codes = vec![0.0; columns];
                number::decode_row(format, row, &mut codes);
                for (c, code) in codes.into_iter().enumerate() {
                    let value = (code - points.map_or(0.0, |p| p[c])) * scales[c];
                    let weight = number::round_fp16(minima.map_or(value, |m| value + m[c]));
                    sums[c] += a * weight;
                    weights.push(weight);
                }
            }

            let mut table = Table::default();
            table.fill(format, &scales, points, minima);
            let codes =
                Codes { bytes: &bytes, stride: row_bytes, rows: ROWS, columns, format, table: &table };
            let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            for level in levels() {
                let (mut stored, mut added) = (vec![0.0; ROWS * columns], start.clone());
                codes.run(level, Store(&mut stored));
                restore(format, &mut stored);
                assert_eq!(bits(&stored), bits(&weights), "{} {extra} {level:?}", format.name());
                arrange(format, &mut added);
                codes.run(level, Add(&a, &mut added));
                restore(format, &mut added);
                assert_eq!(bits(&added), bits(&sums), "{} {extra} {level:?}", format.name());
            }
        }
    }
}
