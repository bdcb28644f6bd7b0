//! Closed forms of matrix arrays: cycles of C (M x N) = A (M x K) x B (K x N), operands already in local memory.
//!
//! Models: our core's weight- and output-stationary forms with hidden weight loads, and a GEMV path that streams B
//!   past a stationary A. Other arrays and disciplines are data of `study::discipline`.
//! Does not model: scratchpad bank conflicts, read latencies beyond the operand queues, issue limits.
//! Source: cycle counts measured on public RTL: Gemmini's MeshWithDelays and ExecuteController.
//!
//! Notation: R, C = PE rows and columns; S = streamed length (M rows when B is stationary, K steps when C is);
//! F = folds. Fill and drain of a pipelined array are paid once a job. Folds partly used cost a whole fold: no
//! measured design shortens them. Every form is exact in integers; `None` is a count beyond 64 bits.

/// M, K and N of a product, each at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Product {
    /// Rows of A and C.
    pub m: u64,
    /// Columns of A, rows of B.
    pub k: u64,
    /// Columns of B and C.
    pub n: u64,
}

impl Product {
    /// Multiply-accumulates.
    #[must_use]
    pub fn macs(self) -> Option<u64> {
        self.m.checked_mul(self.k)?.checked_mul(self.n)
    }
}

/// PE rows and columns, each at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Array {
    /// PE rows; K runs down them.
    pub rows: u64,
    /// PE columns; N runs across them.
    pub cols: u64,
}

/// MACs a PE finishes in a cycle, by the wider operand after weight decode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rate {
    /// Two: both operands int4.
    Double,
    /// One: 8-bit operands.
    Full,
    /// One half: 16-bit operands, whatever the stored weight.
    Half,
    /// One eighth: fp32.
    Eighth,
}

impl Rate {
    /// The rate as numerator and denominator.
    #[must_use]
    pub const fn fraction(self) -> (u64, u64) {
        match self {
            Self::Double => (2, 1),
            Self::Full => (1, 1),
            Self::Half => (1, 2),
            Self::Eighth => (1, 8),
        }
    }
}

/// How K is cut into folds of the array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Folding {
    /// Rows of K a whole fold covers.
    pub fold_rows: u64,
    /// Cycles a streamed row occupies; above 1 only where the array has fewer rows than the rate divides by.
    pub stretch: u64,
    /// Rows of K a scale group covers, 0 for none: a fold does not straddle groups.
    pub group: u64,
}

impl Folding {
    /// The folding of `rows` PE rows at `rate`, with scale groups of `group` rows (0 for none).
    #[must_use]
    pub fn new(rows: u64, rate: Rate, group: u64) -> Self {
        let (num, den) = rate.fraction();
        let fold_rows = (u128::from(rows) * u128::from(num) / u128::from(den)).max(1);
        let fold_rows = u64::try_from(fold_rows).unwrap_or(u64::MAX);
        let stretch = den.div_ceil(rows.saturating_mul(num)).max(1);
        Self { fold_rows: if group == 0 { fold_rows } else { fold_rows.min(group) }, stretch, group }
    }

    /// Folds along K.
    #[must_use]
    pub fn k_folds(&self, k: u64) -> u64 {
        match self.group {
            0 => k.div_ceil(self.fold_rows),
            g => (k / g) * g.div_ceil(self.fold_rows) + (k % g).div_ceil(self.fold_rows),
        }
    }
}

/// Cycles of a job by what the array is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cycles {
    /// Folds, or passes of the GEMV path.
    pub folds: u64,
    /// Before the first useful row enters.
    pub fill: u64,
    /// Streaming.
    pub active: u64,
    /// After the last row entered, until the last result is visible.
    pub drain: u64,
    /// Fixed latency of operand buffers and memory.
    pub constant: u64,
}

impl Cycles {
    /// All of them.
    #[must_use]
    pub fn total(&self) -> Option<u64> {
        self.fill.checked_add(self.active)?.checked_add(self.drain)?.checked_add(self.constant)
    }
}

/// Cycles between operand ports and result port of a mesh with registered edges: operand buffer 1, edge and
/// output registers 2 (Gemmini's mesh, measured).
pub const MESH_CONSTANT: u64 = 3;
/// Scratchpad read latency: one SRAM cycle and four pipeline stages (Gemmini's generated scratchpad).
pub const READ_LATENCY: u64 = 5;
fn narrow(value: u128) -> Option<u64> {
    u64::try_from(value).ok()
}

fn folds(a: u64, b: u64) -> Option<u64> {
    a.checked_mul(b)
}

fn skew(array: Array) -> Option<u64> {
    array.rows.checked_add(array.cols)?.checked_sub(2)
}

/// MAC steps of one PE along `k`.
#[must_use]
pub fn steps(k: u64, rate: Rate) -> Option<u64> {
    let (num, den) = rate.fraction();
    narrow((u128::from(k) * u128::from(den)).div_ceil(u128::from(num)))
}

/// B stationary and double-buffered: the next fold's weights load while this one streams.
/// R + (F - 1) max(S, R) + S + R + C - 2.
#[must_use]
pub fn hidden_ws(array: Array, p: Product, folding: Folding) -> Option<Cycles> {
    let folds = folds(folding.k_folds(p.k), p.n.div_ceil(array.cols))?;
    let stream = p.m.checked_mul(folding.stretch)?;
    Some(Cycles {
        folds,
        fill: array.rows,
        active: (folds - 1).checked_mul(stream.max(array.rows))?.checked_add(stream)?,
        drain: skew(array)?,
        constant: 0,
    })
}

/// C stationary with double-buffered accumulators: a tile shifts out while the next accumulates.
/// F max(S, R) + R (last shift-out) + R + C - 2.
#[must_use]
pub fn hidden_os(array: Array, p: Product, rate: Rate) -> Option<Cycles> {
    let folds = folds(p.m.div_ceil(array.rows), p.n.div_ceil(array.cols))?;
    Some(Cycles {
        folds,
        fill: 0,
        active: folds.checked_mul(steps(p.k, rate)?.max(array.rows))?,
        drain: array.rows.checked_add(skew(array)?)?,
        constant: 0,
    })
}

/// Rows of A the GEMV path holds at once; more rows stream B again. Estimate, accuracy class C.
pub const GEMV_ROWS: u64 = 8;

/// A stationary, B streams past it: `b_bytes` (scales included) at `bytes_per_cycle`, no faster than the MACs.
///
/// A enters and sums leave over the same registers as in the other dataflows, so fill is R and drain R + C - 2,
/// once a job. Every [`GEMV_ROWS`] rows of A stream B once.
#[must_use]
pub fn gemv(array: Array, p: Product, rate: Rate, b_bytes: u64, bytes_per_cycle: u64) -> Option<Cycles> {
    let (num, den) = rate.fraction();
    let peak = u128::from(array.rows).checked_mul(u128::from(array.cols))?.checked_mul(u128::from(num))?;
    let stream = b_bytes.div_ceil(bytes_per_cycle.max(1));
    let pass = |m: u64| -> Option<u64> {
        let macs = u128::from(Product { m, ..p }.macs()?);
        Some(narrow(macs.checked_mul(u128::from(den))?.div_ceil(peak))?.max(stream))
    };
    let (whole, rest) = (p.m / GEMV_ROWS, p.m % GEMV_ROWS);
    let mut active = if whole > 0 { pass(GEMV_ROWS)?.checked_mul(whole)? } else { 0 };
    if rest > 0 {
        active = active.checked_add(pass(rest)?)?;
    }
    let passes = p.m.div_ceil(GEMV_ROWS);
    Some(Cycles { folds: passes, fill: array.rows, active, drain: skew(array)?, constant: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn square(r: u64) -> Array {
        Array { rows: r, cols: r }
    }

    fn full(r: u64) -> Folding {
        Folding::new(r, Rate::Full, 0)
    }

    #[test]
    fn folds_follow_rate_and_groups() {
        assert_eq!(Folding::new(64, Rate::Half, 0).k_folds(128), 4);
        assert_eq!(Folding::new(64, Rate::Full, 32).k_folds(128), 4);
        // Groups of 48 in folds of 32: two folds a group, the last group of 32 one.
        assert_eq!(Folding::new(32, Rate::Full, 48).k_folds(128), 2 + 2 + 1);
        assert_eq!(Folding::new(64, Rate::Double, 0).k_folds(129), 2);
        let tiny = Folding::new(4, Rate::Eighth, 0);
        assert_eq!((tiny.fold_rows, tiny.stretch), (1, 2));
    }

    #[test]
    fn gemv_is_bound_by_the_stream_then_by_the_macs() {
        let p = Product { m: 1, k: 4096, n: 64 };
        let c = gemv(square(64), p, Rate::Half, 4096 * 32 + 32 * 128, 64).expect("small");
        assert_eq!((c.fill, c.active, c.drain), (64, (4096 * 32 + 32 * 128) / 64, 126));
        let p = Product { m: 8, k: 4096, n: 64 };
        let c = gemv(square(64), p, Rate::Eighth, 64, 64).expect("small");
        assert_eq!(c.active, 8 * 4096 * 64 * 8 / 4096);
    }

    #[test]
    fn absurd_sizes_have_no_count_instead_of_a_wrong_one() {
        let p = Product { m: u64::MAX, k: u64::MAX, n: u64::MAX };
        let a = square(1);
        let f = full(1);
        assert_eq!(p.macs(), None);
        for c in [hidden_ws(a, p, f), hidden_os(a, p, Rate::Half)] {
            assert_eq!(c.and_then(|c| c.total()), None);
        }
        assert_eq!(gemv(a, p, Rate::Full, u64::MAX, 1), None);
    }
}
