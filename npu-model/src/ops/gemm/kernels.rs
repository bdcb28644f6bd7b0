//! The inner loops: accumulators plus activations times a tile of decoded weights, K ascending.
//!
//! Rows of accumulators and of weights are padded to [`LANES`] columns. Each column's sum is taken one K step after
//! the other; vectors run across columns, so no order but the documented one is ever used.

use fearless_simd::{Level, dispatch};

use crate::ops::number;

/// Columns a strip covers.
pub(super) const LANES: usize = 16;

/// One multiply-accumulate of a kind of accumulator.
pub(super) trait Step {
    type Sum: Copy;
    fn step(sum: Self::Sum, a: f32, w: f32) -> Self::Sum;
}

/// fp32, product and sum rounded.
pub(super) struct Fp32;

impl Step for Fp32 {
    type Sum = f32;
    #[inline(always)]
    fn step(sum: f32, a: f32, w: f32) -> f32 {
        sum + a * w
    }
}

/// The same, then rounded to fp16.
pub(super) struct Narrow;

impl Step for Narrow {
    type Sum = f32;
    #[inline(always)]
    fn step(sum: f32, a: f32, w: f32) -> f32 {
        number::round_fp16(sum + a * w)
    }
}

/// Sums of products of integers of at most 16 bits: 2^14 of them stay below 2^53, where f64 is exact.
pub(super) struct Wide;

impl Step for Wide {
    type Sum = f64;
    #[inline(always)]
    fn step(sum: f64, a: f32, w: f32) -> f64 {
        sum + f64::from(a) * f64::from(w)
    }
}

/// Activations of a tile: rows of `stride` values, of which the tile takes those from `first` on.
#[derive(Clone, Copy)]
pub(super) struct Left<'a> {
    pub values: &'a [f32],
    pub stride: usize,
    pub first: usize,
    pub steps: usize,
}

impl<'a> Left<'a> {
    fn row(&self, r: usize) -> &'a [f32] {
        &self.values[r * self.stride + self.first..][..self.steps]
    }
}

/// Two rows of A past a strip of 16 columns: sums stay in registers over all steps.
#[inline(always)]
fn rows<S: Step>(
    sums: &mut [[S::Sum; LANES]],
    (chunks, chunk): (usize, usize),
    a: [&[f32]; 2],
    w: &[[f32; LANES]],
) {
    let (mut first, mut second) = (sums[chunk], sums[chunks + chunk]);
    for ((a, b), w) in a[0].iter().zip(a[1]).zip(w[chunk..].iter().step_by(chunks)) {
        for ((s, t), w) in first.iter_mut().zip(&mut second).zip(w) {
            *s = S::step(*s, *a, *w);
            *t = S::step(*t, *b, *w);
        }
    }
    (sums[chunk], sums[chunks + chunk]) = (first, second);
}

/// One row of A past C strips.
#[inline(always)]
fn row<S: Step, const C: usize>(
    sums: &mut [[S::Sum; LANES]],
    (chunks, chunk): (usize, usize),
    a: &[f32],
    w: &[[f32; LANES]],
) {
    let mut sum: [[S::Sum; LANES]; C] = core::array::from_fn(|c| sums[chunk + c]);
    for (a, w) in a.iter().zip(w.chunks_exact(chunks)) {
        for (sum, w) in sum.iter_mut().zip(&w[chunk..chunk + C]) {
            for (s, w) in sum.iter_mut().zip(w) {
                *s = S::step(*s, *a, *w);
            }
        }
    }
    sums[chunk..chunk + C].copy_from_slice(&sum);
}

/// sums (M rows of `columns`) += A x `weights` (K steps of `columns`); `columns` is a multiple of [`LANES`].
pub(super) fn dense<S: Step>(sums: &mut [S::Sum], columns: usize, a: Left<'_>, weights: &[f32]) {
    dispatch!(Level::new(), _simd => dense_here::<S>(sums, columns, a, weights));
}

/// [`dense`] with the caller's vectors.
#[inline(always)]
fn dense_here<S: Step>(sums: &mut [S::Sum], columns: usize, a: Left<'_>, weights: &[f32]) {
    let chunks = columns / LANES;
    let sums = sums.as_chunks_mut::<LANES>().0;
    let w = weights[..a.steps * columns].as_chunks::<LANES>().0;
    let mut pairs = sums.chunks_exact_mut(2 * chunks);
    let mut r = 0;
    for pair in &mut pairs {
        for chunk in 0..chunks {
            rows::<S>(pair, (chunks, chunk), [a.row(r), a.row(r + 1)], w);
        }
        r += 2;
    }
    let last = pairs.into_remainder();
    if !last.is_empty() {
        let mut chunk = 0;
        while chunk + 2 <= chunks {
            row::<S, 2>(last, (chunks, chunk), a.row(r), w);
            chunk += 2;
        }
        if chunk < chunks {
            row::<S, 1>(last, (chunks, chunk), a.row(r), w);
        }
    }
}

/// The same for 2:4 sparse weights: for four K steps two rows of values, and where in the four each belongs.
pub(super) fn sparse<S: Step>(
    sums: &mut [S::Sum],
    columns: usize,
    a: Left<'_>,
    weights: &[f32],
    positions: &[u8],
) {
    for (r, sums) in sums.chunks_exact_mut(columns).enumerate() {
        let rows = weights.chunks_exact(columns).zip(positions.chunks_exact(columns));
        let fours = a.row(r).as_chunks::<4>().0;
        for ((w, at), four) in rows.zip(fours.iter().flat_map(|four| [four, four])) {
            for ((s, w), at) in sums.iter_mut().zip(w).zip(at) {
                *s = S::step(*s, four[usize::from(at & 3)], *w);
            }
        }
    }
}
