//! A product's function: tiles of weights through the kernels, rows of accumulators through the drain.

use super::codes;
use super::drain::Vectors;
use super::kernels::{self, Fp32, LANES, Left, Narrow, Step, Wide};
use super::rules::Arithmetic;
use super::tile::{Source, Stationary, Tile};
use super::weights::{Weights, Zero};
use super::{Init, Plan, Product};
use crate::fault::Fault;
use crate::local::{Local, Space};
use crate::ops::cost::Path;
use crate::ops::number;

/// The matrix engine's own state: the B the array holds, and buffers kept from command to command.
#[derive(Clone, Debug, Default)]
pub(crate) struct Matrix {
    held: Held,
    buffers: Buffers,
}

/// The stationary B of the array, if it holds one; a queue takes its own along when it gives the core up.
pub(crate) type Held = Option<Stationary>;

impl Matrix {
    /// Gives the array another B, or none, for the one it holds.
    pub(crate) fn exchange(&mut self, other: Held) -> Held {
        std::mem::replace(&mut self.held, other)
    }
}

/// Two engines that differ only in their buffers are equal.
impl PartialEq for Matrix {
    fn eq(&self, other: &Self) -> bool {
        self.held == other.held
    }
}

impl Eq for Matrix {}

#[derive(Clone, Debug, Default)]
struct Buffers {
    a: Vec<f32>,
    row: Vec<f32>,
    tile: Tile,
    /// Float accumulators, rows padded.
    sums: Vec<f32>,
    /// Integer accumulators.
    integers: Vec<i32>,
    /// Sums of a block or of a part of K.
    part: Vec<f32>,
    wide_part: Vec<f64>,
    vectors: Vectors,
}

/// fp32 values a tile of weights should not pass, so that it stays in the host's first-level cache.
const TILE_VALUES: usize = 4096;
/// Products of two 8-bit integers of which fp32 holds every sum: 256 x 255 x 255 < 2^24.
const EXACT_ROWS: usize = 256;

struct Operands<'a> {
    plan: &'a Plan,
    weights: Weights,
    source: Source<'a>,
    local: &'a Local,
    columns: usize,
}

impl Operands<'_> {
    /// sums += A x B over rows `from..to` of K, which lie in one group.
    fn multiply<S: Step>(
        &self,
        (from, to): (usize, usize),
        finished: bool,
        a: &[f32],
        tile: &mut Tile,
        sums: &mut [S::Sum],
    ) -> Result<(), Fault> {
        let step = tile_rows(self.columns);
        let mut first = from;
        while first < to {
            let rows = step.min(to - first);
            self.weights.decode(self.source, self.local, (first, rows), finished, tile)?;
            let left = Left { values: a, stride: self.plan.k, first, steps: rows };
            if self.weights.is_sparse() {
                kernels::sparse::<S>(sums, self.columns, left, &tile.values, &tile.positions);
            } else {
                kernels::dense::<S>(sums, self.columns, left, &tile.values);
            }
            first += rows;
        }
        Ok(())
    }
}

/// Rows of K in a tile: a multiple of 16, so of the four rows of sparse weights and of whole bytes.
const fn tile_rows(columns: usize) -> usize {
    let rows = TILE_VALUES / columns / 16 * 16;
    if rows < 16 { 16 } else { rows }
}

impl Plan {
    pub fn run(&self, local: &mut Local) -> Result<(), Fault> {
        let Some(product) = &self.product else {
            local.matrix.held = Some(self.b.latch(local)?);
            return Ok(());
        };
        let mut buffers = core::mem::take(&mut local.matrix.buffers);
        let outcome = self.product(product, local, &mut buffers);
        local.matrix.buffers = buffers;
        outcome
    }

    fn product(&self, p: &Product, local: &mut Local, b: &mut Buffers) -> Result<(), Fault> {
        self.sum(p, local, b)?;
        // What the array holds afterwards: all of B if one fold was all, otherwise nothing that can be named.
        if !p.keep {
            local.matrix.held = if self.timing.fits && self.timing.path == Path::WeightStationary {
                Some(self.b.latch(local)?)
            } else {
                None
            };
        }
        self.finish(p, local, b)
    }

    fn sum(&self, p: &Product, local: &Local, b: &mut Buffers) -> Result<(), Fault> {
        let (weights, source) = if p.keep {
            self.b.held(local.matrix.held.as_ref())?
        } else {
            (self.b, Source::Scratchpad(local))
        };
        let columns = self.n.next_multiple_of(LANES);
        b.tile.reset(tile_rows(columns), columns);
        p.a.read(local, &mut b.a, &mut b.row)?;
        self.start(p, local, columns, b)?;
        let o = Operands { plan: self, weights, source, local, columns };
        match self.rules.arithmetic {
            Arithmetic::Float => self.float(&o, b),
            Arithmetic::Integer => self.integer(&o, b),
            Arithmetic::Blocks(rows) => self.blocks(&o, p, rows, b),
        }
    }

    fn integral(&self) -> bool {
        self.rules.arithmetic == Arithmetic::Integer
    }

    /// Accumulators before the first product.
    fn start(&self, p: &Product, local: &Local, columns: usize, b: &mut Buffers) -> Result<(), Fault> {
        let narrow = self.rules.narrow;
        let len = self.m * columns;
        if self.integral() {
            b.integers.clear();
            b.integers.resize(len, 0);
        } else {
            b.sums.clear();
            b.sums.resize(len, 0.0);
        }
        if let Init::Bias(bias) = p.init {
            if self.integral() {
                for row in b.integers.chunks_exact_mut(columns) {
                    let words = bias.raw(local, 0)?.as_chunks::<4>().0;
                    row.iter_mut().zip(words).for_each(|(v, w)| *v = i32::from_le_bytes(*w));
                }
                return Ok(());
            }
            for row in b.sums.chunks_exact_mut(columns) {
                bias.read(local, 0, &mut row[..self.n])?;
                if narrow {
                    row.iter_mut().for_each(|v| *v = number::round_fp16(*v));
                }
            }
            return Ok(());
        }
        if let Init::Zero = p.init {
            return Ok(());
        }
        for r in 0..self.m {
            let words = p.acc.raw(local, r)?.as_chunks::<4>().0;
            if self.integral() {
                let row = &mut b.integers[r * columns..][..self.n];
                row.iter_mut().zip(words).for_each(|(v, w)| *v = i32::from_le_bytes(*w));
                continue;
            }
            let row = &mut b.sums[r * columns..][..self.n];
            row.iter_mut().zip(words).for_each(|(v, w)| *v = f32::from_le_bytes(*w));
            if let Init::Scale(at) = p.init {
                let factor = f32::from_bits(local.word(Space::Spm, at + 4 * r)?);
                row.iter_mut().for_each(|v| *v *= factor);
                if narrow {
                    row.iter_mut().for_each(|v| *v = number::round_fp16(*v));
                }
            }
        }
        Ok(())
    }

    fn float(&self, o: &Operands<'_>, b: &mut Buffers) -> Result<(), Fault> {
        let blocks = o.weights.in_blocks();
        if blocks {
            codes::arrange(o.weights.format, &mut b.sums);
        }
        let mut first = 0;
        while first < self.k {
            let end = o.weights.group_end(first);
            let one = self.m == 1 && !self.rules.narrow;
            if self.rules.narrow {
                o.multiply::<Narrow>((first, end), true, &b.a, &mut b.tile, &mut b.sums)?;
            } else if one
                && let Some(codes) = o.weights.codes(o.source, (first, end - first), &mut b.tile.table)?
            {
                codes.accumulate(&b.a[first..], &mut b.sums);
            } else {
                o.multiply::<Fp32>((first, end), true, &b.a, &mut b.tile, &mut b.sums)?;
            }
            first = end;
        }
        if blocks {
            codes::restore(o.weights.format, &mut b.sums);
        }
        Ok(())
    }

    fn integer(&self, o: &Operands<'_>, b: &mut Buffers) -> Result<(), Fault> {
        if self.rules.wide {
            b.wide_part.clear();
            b.wide_part.resize(b.integers.len(), 0.0);
            o.multiply::<Wide>((0, self.k), false, &b.a, &mut b.tile, &mut b.wide_part)?;
            for (sum, part) in b.integers.iter_mut().zip(&b.wide_part) {
                *sum = sum.wrapping_add(*part as i64 as i32);
            }
        } else {
            for first in (0..self.k).step_by(EXACT_ROWS) {
                b.part.clear();
                b.part.resize(b.integers.len(), 0.0);
                let end = self.k.min(first + EXACT_ROWS);
                o.multiply::<Fp32>((first, end), false, &b.a, &mut b.tile, &mut b.part)?;
                for (sum, part) in b.integers.iter_mut().zip(&b.part) {
                    *sum = sum.wrapping_add(*part as i32);
                }
            }
        }
        if self.rules.narrow {
            b.integers.iter_mut().for_each(|v| *v = (*v << 8) >> 8);
        }
        Ok(())
    }

    fn blocks(&self, o: &Operands<'_>, p: &Product, rows: usize, b: &mut Buffers) -> Result<(), Fault> {
        for first in (0..self.k).step_by(rows) {
            let range = (first, self.k.min(first + rows));
            b.part.clear();
            b.part.resize(b.sums.len(), 0.0);
            if self.rules.wide {
                b.wide_part.clear();
                b.wide_part.resize(b.sums.len(), 0.0);
                o.multiply::<Wide>(range, false, &b.a, &mut b.tile, &mut b.wide_part)?;
                b.part.iter_mut().zip(&b.wide_part).for_each(|(p, w)| *p = *w as i64 as i32 as f32);
            } else {
                o.multiply::<Fp32>(range, false, &b.a, &mut b.tile, &mut b.part)?;
            }
            let pairs = b.sums.chunks_exact_mut(o.columns).zip(b.part.chunks_exact_mut(o.columns));
            for (r, (sums, part)) in pairs.enumerate() {
                let mut total = 0.0;
                if let Some(blocks) = p.a.blocks {
                    let (scale, sum) = blocks.get(o.local, r, first / blocks.rows)?;
                    part.iter_mut().for_each(|p| *p *= scale);
                    total = sum;
                }
                if o.weights.scaled {
                    part.iter_mut().zip(&b.tile.table.scales).for_each(|(p, s)| *p *= s);
                }
                self.add(sums, part.iter().copied());
                if o.weights.zero == Zero::Minimum {
                    self.add(sums, b.tile.table.lows.iter().map(|low| total * low));
                }
            }
        }
        Ok(())
    }

    fn add(&self, sums: &mut [f32], terms: impl Iterator<Item = f32>) {
        if self.rules.narrow {
            sums.iter_mut().zip(terms).for_each(|(s, t)| *s = number::round_fp16(*s + t));
        } else {
            sums.iter_mut().zip(terms).for_each(|(s, t)| *s += t);
        }
    }

    fn finish(&self, p: &Product, local: &mut Local, b: &mut Buffers) -> Result<(), Fault> {
        let columns = self.n.next_multiple_of(LANES);
        if let Some(drain) = &p.drain {
            drain.read(local, &mut b.vectors)?;
        }
        b.row.resize(self.n, 0.0);
        let values = &mut b.row[..self.n];
        for r in 0..self.m {
            let at = r * columns..r * columns + self.n;
            // R's row is read before the accumulators are stored: it may lie on them.
            if let Some(drain) = &p.drain {
                if self.integral() {
                    values.iter_mut().zip(&b.integers[at.clone()]).for_each(|(v, a)| *v = *a as f32);
                } else {
                    values.copy_from_slice(&b.sums[at.clone()]);
                }
                drain.apply(local, &mut b.vectors, r, values)?;
            }
            let words = local.bytes_mut(Space::Acc, p.acc.at(r), p.acc.row_bytes)?.as_chunks_mut::<4>().0;
            if self.integral() {
                words.iter_mut().zip(&b.integers[at]).for_each(|(w, v)| *w = v.to_le_bytes());
            } else {
                let stored = b.sums[at].iter().map(|v| number::to_fp32(*v));
                words.iter_mut().zip(stored).for_each(|(w, v)| *w = v.to_le_bytes());
            }
            if let Some(drain) = &p.drain {
                drain.store(local, r, values, p.acc)?;
            }
        }
        Ok(())
    }
}
