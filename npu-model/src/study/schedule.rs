//! A product behind a memory: tiles, what each must move, and what overlaps.
//!
//! Models: double-buffered tiles; loads and write-back beside computation; the best of the tile shapes that fit.
//! Does not model: memory latency; a transfer beside the computation of a tile of another shape.
//! Source: the sum in `study`.

use super::discipline::Stationary;
use super::{Bandwidth, Form, Study};
use crate::array::{Folding, Product};

/// A product cut into tiles.
pub(super) struct Schedule<'a> {
    pub study: &'a Study,
    pub form: Form,
    pub memory: Bandwidth,
    pub p: Product,
}

/// Tiles along one dimension: whole ones, and the last, which may be shorter.
#[derive(Clone, Copy)]
struct Cut {
    tile: u64,
    count: u64,
    last: u64,
}

impl Cut {
    const fn new(size: u64, tile: u64) -> Self {
        let count = size.div_ceil(tile);
        Self { tile, count, last: size - (count - 1) * tile }
    }

    /// Sizes with the number of tiles of that size; the second entry is the last tile.
    const fn parts(self) -> [(u64, u64); 2] {
        [(self.tile, self.count - 1), (self.last, 1)]
    }
}

impl Schedule<'_> {
    /// The best schedule.
    pub fn best(&self) -> Option<Best> {
        let (rows, cols) = (self.study.array.rows, self.study.array.cols);
        let accumulators = u128::from(self.study.local.accumulator / 4);
        let scratchpad = u128::from(self.study.local.scratchpad) * 8;
        let [a_bits, b_bits, _] = self.study.bits(self.form);
        let rate = self.study.rate();
        let k_unit = Folding::new(rows, rate, 0).fold_rows;
        let n_unit = cols;
        let m_unit = rows;
        let once = self.once()?;
        let mut best: Option<(u128, [u128; 3])> = None;
        for mt in sizes(self.p.m, m_unit) {
            for nt in sizes(self.p.n, n_unit) {
                let one = u128::from(mt) * u128::from(nt);
                let copies = if mt == self.p.m && nt == self.p.n { 1 } else { 2 };
                if one > accumulators / copies && (mt > m_unit || nt > n_unit) {
                    continue;
                }
                for kt in sizes(self.p.k, k_unit) {
                    let operands = u128::from(mt) * u128::from(a_bits) + u128::from(nt) * u128::from(b_bits);
                    let Some(bits) = operands.checked_mul(2 * u128::from(kt)) else { continue };
                    if bits > scratchpad && (mt > m_unit || nt > n_unit || kt > k_unit) {
                        continue;
                    }
                    for m_outer in [true, false] {
                        let cuts = [Cut::new(self.p.m, mt), Cut::new(self.p.n, nt), Cut::new(self.p.k, kt)];
                        let Some(candidate) = self.total(cuts, m_outer, once) else { continue };
                        if best.is_none_or(|b| candidate.0 < b.0) {
                            best = Some(candidate);
                        }
                    }
                }
            }
        }
        let (total, bits) = best?;
        let transfers = self.transfer(bits.into_iter().try_fold(0, u128::checked_add)?)?;
        Some(Best { total: u64::try_from(total).ok()?, transfers: u64::try_from(transfers).ok()?, bits })
    }

    /// Cycles of one schedule, and the bits of A, B and C it moves.
    fn total(&self, [m, n, k]: [Cut; 3], m_outer: bool, once: u128) -> Option<(u128, [u128; 3])> {
        let [a_bits, b_bits, c_bits] = self.study.bits(self.form);
        // With K whole, the outer loop's operand stays while the inner loop runs, so it is loaded once for each
        // value of the outer loop; a lone tile is loaded once, by the first step.
        let (a_stays, b_stays) = (k.count == 1 && m_outer, k.count == 1 && !m_outer);
        let a_alone = m.count == 1 && k.count == 1;
        let b_alone = n.count == 1 && k.count == 1;
        let (mut sum, mut bits_moved) = (0u128, [0u128; 3]);
        for (mi, (mt, ms)) in m.parts().into_iter().enumerate() {
            for (ni, (nt, ns)) in n.parts().into_iter().enumerate() {
                for (ki, (kt, ks)) in k.parts().into_iter().enumerate() {
                    let count = u128::from(ms).checked_mul(u128::from(ns))?.checked_mul(u128::from(ks))?;
                    if count == 0 {
                        continue;
                    }
                    let compute = self.step(Product { m: mt, k: kt, n: nt }, ki == 1)?;
                    let a = area(mt, kt, a_bits)?;
                    let b = area(kt, nt, b_bits)?;
                    let c = if ki == 1 { area(mt, nt, c_bits)? } else { 0 };
                    let loads_a = match (a_alone, a_stays) {
                        (true, _) => 0,
                        (false, false) => count,
                        (false, true) => u128::from(ms) * u128::from(ni == 0 || n.count == 1),
                    };
                    let loads_b = match (b_alone, b_stays) {
                        (true, _) => 0,
                        (false, false) => count,
                        (false, true) => u128::from(ns) * u128::from(mi == 0 || m.count == 1),
                    };
                    let first = u128::from(mi == usize::from(m.count == 1))
                        * u128::from(ni == usize::from(n.count == 1))
                        * u128::from(ki == usize::from(k.count == 1));
                    let last = u128::from(mi == 1 && ni == 1 && ki == 1);
                    let classes = Classes { count, compute, a, b, c, loads_a, loads_b, first, last };
                    sum = sum.checked_add(self.class_sum(classes)?)?;
                    let bits = [loads_a.checked_mul(a)?, loads_b.checked_mul(b)?, count.checked_mul(c)?];
                    for (sum, more) in bits_moved.iter_mut().zip(bits) {
                        *sum = sum.checked_add(more)?;
                    }
                }
            }
        }
        let (m1, n1, k1) = (m.tile.min(self.p.m), n.tile.min(self.p.n), k.tile.min(self.p.k));
        let first_load = area(m1, k1, a_bits)?.checked_add(area(k1, n1, b_bits)?)?;
        let last_store = area(m.last, n.last, c_bits)?;
        // A lone tile of an operand is counted once here, since no step loads it.
        for (moved, (alone, bits)) in
            bits_moved.iter_mut().zip([(a_alone, area(m1, k1, a_bits)?), (b_alone, area(k1, n1, b_bits)?)])
        {
            if alone {
                *moved = bits;
            }
        }
        let total = self
            .transfer(first_load)?
            .checked_add(sum)?
            .checked_add(once)?
            .checked_add(self.transfer(last_store)?)?;
        Some((total, bits_moved))
    }

    /// Sum over the steps of one tile shape of max(compute, transfers beside it).
    ///
    /// The first step's load and the last step's write-back are exposed, so they are not beside anything.
    fn class_sum(&self, s: Classes) -> Option<u128> {
        let Classes { count, compute, a, b, c, loads_a, loads_b, first, last } = s;
        let mut sum = 0u128;
        let mut add = |steps: u128, bits: u128| -> Option<()> {
            sum = sum.checked_add(steps.checked_mul(compute.max(self.transfer(bits)?))?)?;
            Some(())
        };
        // The first step loads both operands before the schedule starts.
        let (loads_a, loads_b) = (loads_a.saturating_sub(first), loads_b.saturating_sub(first));
        let both = loads_a.min(loads_b);
        let only_a = loads_a - both;
        let only_b = loads_b - both;
        let loading = both + only_a + only_b;
        let silent = count - loading;
        // The last step writes after everything else; it loads like its neighbours unless it is also the first.
        let (both_last, a_last, b_last, silent_last) = if last == 0 {
            (0, 0, 0, 0)
        } else if both > 0 {
            (1, 0, 0, 0)
        } else if only_a > 0 {
            (0, 1, 0, 0)
        } else if only_b > 0 {
            (0, 0, 1, 0)
        } else {
            (0, 0, 0, 1)
        };
        add(both - both_last, a.checked_add(b)?.checked_add(c)?)?;
        add(both_last, a.checked_add(b)?)?;
        add(only_a - a_last, a.checked_add(c)?)?;
        add(a_last, a)?;
        add(only_b - b_last, b.checked_add(c)?)?;
        add(b_last, b)?;
        add(silent - silent_last, c)?;
        add(silent_last, 0)?;
        Some(sum)
    }

    /// Cycles of one tile in the middle of a job: folds without the fill and drain a job pays once.
    fn step(&self, p: Product, last_k: bool) -> Option<u128> {
        match self.form {
            Form::Systolic { mode, stationary, .. } => {
                // Sums of B-stationary folds leave the array after each.
                let last_k = last_k || stationary == Stationary::B;
                self.study.job(mode, stationary, p)?.tile(last_k)
            }
            Form::Gemv { .. } => Some(self.study.cycles(self.form, p)?.active.into()),
        }
    }

    /// Fill, drain and constant a job pays once.
    fn once(&self) -> Option<u128> {
        match self.form {
            Form::Systolic { mode, stationary, .. } => self.study.job(mode, stationary, self.p)?.once(),
            Form::Gemv { .. } => {
                let c = self.study.cycles(self.form, self.p)?;
                Some(u128::from(c.fill) + u128::from(c.drain) + u128::from(c.constant))
            }
        }
    }

    /// Cycles the memory takes for `bits`.
    fn transfer(&self, bits: u128) -> Option<u128> {
        let bytes = bits.div_ceil(8);
        Some(bytes.checked_mul(u128::from(self.memory.cycles))?.div_ceil(u128::from(self.memory.bytes)))
    }
}

/// The best schedule found.
pub(super) struct Best {
    /// Cycles.
    pub total: u64,
    /// Cycles its transfers alone would take.
    pub transfers: u64,
    /// Bits of A, B and C moved.
    pub bits: [u128; 3],
}

/// Steps of one tile shape.
struct Classes {
    count: u128,
    compute: u128,
    a: u128,
    b: u128,
    c: u128,
    loads_a: u128,
    loads_b: u128,
    first: u128,
    last: u128,
}

fn area(rows: u64, cols: u64, bits: u64) -> Option<u128> {
    u128::from(rows).checked_mul(u128::from(cols))?.checked_mul(u128::from(bits))
}

/// Tile sizes to try: the unit times powers of two, and the whole.
fn sizes(whole: u64, unit: u64) -> impl Iterator<Item = u64> {
    core::iter::successors(Some(unit), |s| s.checked_mul(2))
        .take_while(move |&s| s < whole)
        .chain(core::iter::once(whole))
}
