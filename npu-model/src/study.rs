//! One matrix product on one array: the cycles of a published or of our own design, alone or behind a memory.
//!
//! Models: compute cycles by closed form; with a memory of fixed bandwidth, a schedule of tiles whose loads,
//!   computation and write-back overlap through double buffers.
//! Does not model: memory latency, DRAM timing, command dispatch; one core.
//! Source: `array` for the forms. Local memory a PE as in the XRING-class core (1.5 MiB scratchpad and 128 KiB
//!   accumulator for 64 x 64 PEs; estimate, accuracy class C).
//!
//! Behind a memory, A and B arrive from it and C returns to it in A's width. A tile is Mt x Kt x Nt; two A tiles
//! and two B tiles fit the scratchpad, two C tiles the accumulator. A tile's operands are loaded while the previous
//! tile computes, unless they are there already; a finished C tile is written while a later one computes. So
//!   total = load of the first tile + sum over tiles of max(compute, transfers) + fill and drain + last write-back,
//! for the best of a few hundred tile shapes and both loop orders. Nothing else is assumed or fitted.

use crate::array::{self, Array, Cycles, Folding, Product, Rate};

/// Whose array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Design {
    /// This project's.
    Default,
    /// SCALE-Sim's: every fold serial.
    ScaleSim,
    /// Gemmini's execute controller and mesh.
    Gemmini,
    /// tinyTPU's core.
    TinyTpu,
}

/// What stays in the array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dataflow {
    /// B.
    WeightStationary,
    /// C.
    OutputStationary,
    /// A, in the GEMV path.
    Gemv,
    /// GEMV for few rows where it is faster, else weight-stationary.
    Auto,
}

/// Whether loading the stationary operand shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightLoad {
    /// Every fold loads, streams and drains by itself.
    Exposed,
    /// Double-buffered.
    Hidden,
}

/// Formats of A and B.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Formats {
    /// int4 by int4.
    Int4,
    /// int8 by int8.
    Int8,
    /// int8 activations, int4 weights.
    W4A8,
    /// fp16 by fp16.
    Fp16,
    /// bf16 by bf16.
    Bf16,
    /// fp16 activations, int4 weights (scales not counted).
    W4A16,
    /// fp16 activations, int8 weights.
    W8A16,
    /// fp32 by fp32.
    Fp32,
}

impl Formats {
    /// MAC rate, and bits of an element of A (and C) and of B.
    #[must_use]
    pub const fn rate_and_bits(self) -> (Rate, u64, u64) {
        match self {
            Self::Int4 => (Rate::Double, 4, 4),
            Self::Int8 => (Rate::Full, 8, 8),
            Self::W4A8 => (Rate::Full, 8, 4),
            Self::Fp16 | Self::Bf16 => (Rate::Half, 16, 16),
            Self::W4A16 => (Rate::Half, 16, 4),
            Self::W8A16 => (Rate::Half, 16, 8),
            Self::Fp32 => (Rate::Eighth, 32, 32),
        }
    }
}

/// Bytes per cycle as a fraction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bandwidth {
    /// Bytes.
    pub bytes: u64,
    /// In this many cycles.
    pub cycles: u64,
}

/// What to compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Study {
    /// Whose array.
    pub design: Design,
    /// Its size.
    pub array: Array,
    /// What stays in it.
    pub dataflow: Dataflow,
    /// Whether the load shows.
    pub weight_load: WeightLoad,
    /// Formats.
    pub formats: Formats,
    /// Width of the GEMV path's weight stream.
    pub gemv_bytes_per_cycle: u64,
    /// Memory; `None` is ideal.
    pub memory: Option<Bandwidth>,
}

/// What limits a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// MACs.
    Compute,
    /// Loading the stationary operand.
    WeightLoad,
    /// Filling and draining the array.
    FillDrain,
    /// The weight stream of the GEMV path.
    WeightStream,
    /// The memory.
    Memory,
}

impl Bound {
    /// Name in results.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Compute => "compute",
            Self::WeightLoad => "weight_load",
            Self::FillDrain => "fill_drain",
            Self::WeightStream => "weight_stream",
            Self::Memory => "memory",
        }
    }
}

/// Result of a study.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcome {
    /// Cycles with operands in place.
    pub compute_cycles: u64,
    /// Cycles with the memory.
    pub total_cycles: u64,
    /// Multiply-accumulates asked for.
    pub macs: u64,
    /// MACs over what the array could do in the total cycles.
    pub utilisation: f64,
    /// What limits it.
    pub bound_by: Bound,
}

/// Why a study has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StudyError {
    /// M, K, N, rows, columns or a bandwidth is zero.
    Zero(&'static str),
    /// The count does not fit 64 bits.
    TooLarge,
    /// The design has no such mode.
    Mode(&'static str),
}

impl core::fmt::Display for StudyError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Zero(what) => write!(f, "{what} is 0; expected at least 1"),
            Self::TooLarge => f.write_str("the product is too large: its cycles or MACs pass 64 bits"),
            Self::Mode(text) => f.write_str(text),
        }
    }
}

impl core::error::Error for StudyError {}

/// The array's discipline once dataflow, design and load are settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    ExposedWs,
    ExposedOs,
    HiddenWs,
    HiddenOs,
    GemminiWs,
    GemminiOs,
    TinyTpu,
    Gemv,
}

impl Study {
    /// Runs one product.
    ///
    /// # Errors
    /// Zero sizes, modes a design does not have, counts beyond 64 bits.
    pub fn run(&self, p: Product) -> Result<Outcome, StudyError> {
        let sizes = [
            (p.m, "M"),
            (p.k, "K"),
            (p.n, "N"),
            (self.array.rows, "rows"),
            (self.array.cols, "cols"),
            (self.gemv_bytes_per_cycle, "the GEMV stream's width"),
            (self.memory.map_or(1, |m| m.bytes.min(m.cycles)), "the memory's bandwidth"),
        ];
        if let Some((_, what)) = sizes.iter().find(|s| s.0 == 0) {
            return Err(StudyError::Zero(what));
        }
        let macs = p.macs().ok_or(StudyError::TooLarge)?;
        self.forms()?
            .iter()
            .filter_map(|&form| self.outcome(form, p, macs))
            .min_by_key(|o| o.total_cycles)
            .ok_or(StudyError::TooLarge)
    }

    /// The forms to choose from.
    fn forms(&self) -> Result<&'static [Form], StudyError> {
        use Dataflow::{Auto, Gemv, OutputStationary, WeightStationary};
        use WeightLoad::{Exposed, Hidden};
        match (self.design, self.dataflow, self.weight_load) {
            (Design::Default, Gemv, _) => Ok(&[Form::Gemv]),
            (Design::Default, Auto, Hidden) => Ok(&[Form::HiddenWs, Form::Gemv]),
            (Design::Default, Auto, Exposed) => Ok(&[Form::ExposedWs, Form::Gemv]),
            (_, Gemv, _) => Err(StudyError::Mode("only the default array has a GEMV path")),
            (Design::Default, WeightStationary, Hidden) => Ok(&[Form::HiddenWs]),
            (Design::Default, OutputStationary, Hidden) => Ok(&[Form::HiddenOs]),
            (Design::Default | Design::ScaleSim, OutputStationary, Exposed) => Ok(&[Form::ExposedOs]),
            (Design::Default | Design::ScaleSim, _, Exposed) => Ok(&[Form::ExposedWs]),
            (Design::ScaleSim, _, Hidden) => {
                Err(StudyError::Mode("the scalesim array runs folds serially: its weight load is exposed"))
            }
            (Design::Gemmini | Design::TinyTpu, _, Exposed) => {
                Err(StudyError::Mode("the gemmini and tinytpu arrays always hide the weight load"))
            }
            (Design::Gemmini, OutputStationary, Hidden) => Ok(&[Form::GemminiOs]),
            (Design::Gemmini, _, Hidden) => Ok(&[Form::GemminiWs]),
            (Design::TinyTpu, OutputStationary, Hidden) => {
                Err(StudyError::Mode("the tinytpu array is weight-stationary"))
            }
            (Design::TinyTpu, _, Hidden) => Ok(&[Form::TinyTpu]),
        }
    }

    fn cycles(&self, form: Form, p: Product) -> Option<Cycles> {
        let (rate, _, b_bits) = self.formats.rate_and_bits();
        let folding = Folding::new(self.array.rows, rate, 0);
        let own = |c: Cycles| Cycles { constant: array::MESH_CONSTANT + array::READ_LATENCY, ..c };
        match form {
            Form::ExposedWs => array::exposed_ws(self.array, p, folding),
            Form::ExposedOs => array::exposed_os(self.array, p, rate),
            Form::HiddenWs => array::hidden_ws(self.array, p, folding).map(own),
            Form::HiddenOs => array::hidden_os(self.array, p, rate).map(own),
            Form::GemminiWs => array::gemmini_ws(self.array, p, folding),
            Form::GemminiOs => array::gemmini_os(self.array, p, rate),
            Form::TinyTpu => array::tinytpu_ws(self.array, p, folding),
            Form::Gemv => {
                let bytes = p.k.checked_mul(p.n)?.checked_mul(b_bits)?.div_ceil(8);
                array::gemv(self.array, p, rate, bytes, self.gemv_bytes_per_cycle).map(own)
            }
        }
    }

    fn outcome(&self, form: Form, p: Product, macs: u64) -> Option<Outcome> {
        let cycles = self.cycles(form, p)?;
        let compute_cycles = cycles.total()?;
        let (total_cycles, memory_cycles) = match self.memory {
            None => (compute_cycles, 0),
            Some(memory) => Schedule { study: self, form, memory, p }.best()?,
        };
        let (num, den) = self.formats.rate_and_bits().0.fraction();
        let peak = self.array.rows as f64 * self.array.cols as f64 * num as f64 / den as f64;
        let weight_load = match form {
            Form::HiddenWs | Form::GemminiWs | Form::TinyTpu => p.m < self.array.rows && cycles.folds > 1,
            _ => false,
        };
        let stream = form == Form::Gemv && {
            let compute = Cycles { folds: 1, ..cycles };
            let macs_only = array::gemv(self.array, p, self.formats.rate_and_bits().0, 0, 1)?;
            compute.active > macs_only.active
        };
        let bound_by = if memory_cycles > compute_cycles {
            Bound::Memory
        } else if cycles.fill.checked_add(cycles.drain)? > cycles.active {
            Bound::FillDrain
        } else if weight_load {
            Bound::WeightLoad
        } else if stream {
            Bound::WeightStream
        } else {
            Bound::Compute
        };
        let utilisation = macs as f64 / (peak * total_cycles as f64);
        Some(Outcome { compute_cycles, total_cycles, macs, utilisation, bound_by })
    }
}

/// Scratchpad bits a PE, as in the XRING-class core: 1.5 MiB for 64 x 64. Estimate, accuracy class C.
const SCRATCHPAD_BITS_PER_PE: u128 = 8 * 1536 * 1024 / 4096;
/// Accumulators a PE, as in the XRING-class core: 128 KiB of 4 bytes for 64 x 64. Estimate, accuracy class C.
const ACCUMULATORS_PER_PE: u128 = 128 * 1024 / 4 / 4096;

/// A product cut into tiles.
struct Schedule<'a> {
    study: &'a Study,
    form: Form,
    memory: Bandwidth,
    p: Product,
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
    /// Total cycles of the best schedule, and the cycles its transfers alone would take.
    fn best(&self) -> Option<(u64, u64)> {
        let (rows, cols) = (self.study.array.rows, self.study.array.cols);
        let pes = u128::from(rows).checked_mul(u128::from(cols))?;
        let accumulators = pes.checked_mul(ACCUMULATORS_PER_PE)?;
        let scratchpad = pes.checked_mul(SCRATCHPAD_BITS_PER_PE)?;
        let (rate, a_bits, b_bits) = self.study.formats.rate_and_bits();
        let k_unit = Folding::new(rows, rate, 0).fold_rows;
        let n_unit = cols;
        let m_unit = rows;
        let mut best: Option<(u128, u128)> = None;
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
                        let Some(candidate) = self.total(cuts, m_outer) else { continue };
                        if best.is_none_or(|b| candidate.0 < b.0) {
                            best = Some(candidate);
                        }
                    }
                }
            }
        }
        let (total, transfers) = best?;
        Some((u64::try_from(total).ok()?, u64::try_from(transfers).ok()?))
    }

    /// Cycles of one schedule, and those of its transfers.
    fn total(&self, [m, n, k]: [Cut; 3], m_outer: bool) -> Option<(u128, u128)> {
        let (_, a_bits, b_bits) = self.study.formats.rate_and_bits();
        // With K whole, the outer loop's operand stays while the inner loop runs, so it is loaded once for each
        // value of the outer loop; a lone tile is loaded once, by the first step.
        let (a_stays, b_stays) = (k.count == 1 && m_outer, k.count == 1 && !m_outer);
        let a_alone = m.count == 1 && k.count == 1;
        let b_alone = n.count == 1 && k.count == 1;
        let (mut sum, mut bits_moved) = (0u128, 0u128);
        for (mi, (mt, ms)) in m.parts().into_iter().enumerate() {
            for (ni, (nt, ns)) in n.parts().into_iter().enumerate() {
                for (ki, (kt, ks)) in k.parts().into_iter().enumerate() {
                    let count = u128::from(ms).checked_mul(u128::from(ns))?.checked_mul(u128::from(ks))?;
                    if count == 0 {
                        continue;
                    }
                    let compute = u128::from(self.step(Product { m: mt, k: kt, n: nt }, ki == 1)?);
                    let a = area(mt, kt, a_bits)?;
                    let b = area(kt, nt, b_bits)?;
                    let c = if ki == 1 { area(mt, nt, a_bits)? } else { 0 };
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
                    bits_moved = bits.into_iter().try_fold(bits_moved, u128::checked_add)?;
                }
            }
        }
        let (m1, n1, k1) = (m.tile.min(self.p.m), n.tile.min(self.p.n), k.tile.min(self.p.k));
        let first_load = area(m1, k1, a_bits)?.checked_add(area(k1, n1, b_bits)?)?;
        let last_store = area(m.last, n.last, a_bits)?;
        let once = self.once()?;
        let total = self
            .transfer(first_load)?
            .checked_add(sum)?
            .checked_add(once)?
            .checked_add(self.transfer(last_store)?)?;
        Some((total, self.transfer(bits_moved)?))
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
    fn step(&self, p: Product, last_k: bool) -> Option<u64> {
        let c = self.study.cycles(self.form, p)?;
        let rows = self.study.array.rows;
        let (rate, _, _) = self.study.formats.rate_and_bits();
        let stream = p.m.checked_mul(Folding::new(rows, rate, 0).stretch)?;
        let chunks = stream.div_ceil(rows);
        match self.form {
            Form::ExposedWs => c.total(),
            // A tile's drain follows its last step along K.
            Form::ExposedOs => c.active.checked_add(if last_k { c.drain } else { 0 }),
            Form::HiddenOs | Form::GemminiOs | Form::Gemv => Some(c.active),
            Form::HiddenWs => c.folds.checked_mul(stream.max(rows)),
            Form::GemminiWs => c.folds.checked_mul(chunks.checked_mul(rows)?),
            Form::TinyTpu => {
                let issued = chunks.checked_mul(array::TINYTPU_BUBBLE)?.checked_add(stream)?;
                c.folds.checked_mul(issued.max(rows.checked_add(array::TINYTPU_BUBBLE)?))
            }
        }
    }

    /// Fill, drain and constant a job pays once.
    fn once(&self) -> Option<u128> {
        let c = self.study.cycles(self.form, self.p)?;
        match self.form {
            Form::ExposedWs | Form::ExposedOs => Some(0),
            _ => Some(u128::from(c.fill) + u128::from(c.drain) + u128::from(c.constant)),
        }
    }

    /// Cycles the memory takes for `bits`.
    fn transfer(&self, bits: u128) -> Option<u128> {
        let bytes = bits.div_ceil(8);
        Some(bytes.checked_mul(u128::from(self.memory.cycles))?.div_ceil(u128::from(self.memory.bytes)))
    }
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
