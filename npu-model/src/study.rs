//! One matrix product on one array: the cycles of a published or of our own design, alone or behind a memory.
//!
//! Models: compute cycles by the law of `discipline`; with a memory of fixed bandwidth, a schedule of tiles whose
//!   loads, computation and write-back overlap through double buffers.
//! Does not model: memory latency, DRAM timing, command dispatch; one core.
//! Source: `discipline` and `array` for the cycles; [`LocalMemory::in_proportion`] for the memories of arrays that name none.
//!
//! Behind a memory, A and B arrive from it and C returns to it in A's width. A tile is Mt x Kt x Nt; two A tiles
//! and two B tiles fit the scratchpad, two C tiles the accumulator. A tile's operands are loaded while the previous
//! tile computes, unless they are there already; a finished C tile is written while a later one computes. So
//!   total = load of the first tile + sum over tiles of max(compute, transfers) + fill and drain + last write-back,
//! for the best of a few hundred tile shapes and both loop orders. Nothing else is assumed or fitted.

pub mod access;
pub mod discipline;
pub mod preset;
mod schedule;

use crate::array::{self, Array, Cycles, MESH_CONSTANT, Product, READ_LATENCY, Rate};
use discipline::{Exchange, Job, Mode, Overlap, Stationary};
pub use preset::{ARRAYS, ArrayError, Discipline};
use schedule::Schedule;

/// What stays in the array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dataflow {
    /// B.
    WeightStationary,
    /// C.
    OutputStationary,
    /// A: weight-stationary for the transposed product.
    InputStationary,
    /// A, in the GEMV path.
    Gemv,
    /// GEMV for at most [`array::GEMV_ROWS`] rows where it is faster, else weight-stationary.
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

/// Bytes of a core's memories.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalMemory {
    /// Scratchpad.
    pub scratchpad: u64,
    /// Accumulator.
    pub accumulator: u64,
}

impl LocalMemory {
    /// As much a PE as in the XRING-class core: 1.5 MiB and 128 KiB for 64 x 64. Estimate, accuracy class C.
    #[must_use]
    pub const fn in_proportion(array: Array) -> Self {
        let pes = array.rows.saturating_mul(array.cols);
        Self {
            scratchpad: pes.saturating_mul(1536 * 1024 / 4096),
            accumulator: pes.saturating_mul(128 * 1024 / 4096),
        }
    }
}

/// What to compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Study {
    /// Whose array.
    pub discipline: Discipline,
    /// Its size here.
    pub array: Array,
    /// What stays in it.
    pub dataflow: Dataflow,
    /// Whether the load shows; `None`: hidden if the array can.
    pub weight_load: Option<WeightLoad>,
    /// Formats.
    pub formats: Formats,
    /// Memories of the core; they matter only behind a memory.
    pub local: LocalMemory,
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
    /// Bytes of A, B and C that pass the memory port; with an ideal memory each once.
    pub traffic: [u64; 3],
    /// Folds, or passes of the GEMV path.
    pub folds: u64,
    /// Compute cycles that are latency of buffers and memories.
    pub constant_cycles: u64,
    /// The dataflow taken: what `Auto` became.
    pub dataflow: Dataflow,
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

/// A way to run a product, once dataflow, array and load are settled.
#[derive(Clone, Copy, Debug)]
enum Form {
    Systolic {
        mode: Mode,
        stationary: Stationary,
        /// A stays: B of the transposed product.
        transposed: bool,
    },
    Gemv {
        bytes_per_cycle: u64,
    },
}

impl Form {
    const fn is_gemv(self) -> bool {
        matches!(self, Self::Gemv { .. })
    }

    const fn dataflow(self) -> Dataflow {
        match self {
            Self::Systolic { transposed: true, .. } => Dataflow::InputStationary,
            Self::Systolic { stationary: Stationary::C, .. } => Dataflow::OutputStationary,
            Self::Systolic { .. } => Dataflow::WeightStationary,
            Self::Gemv { .. } => Dataflow::Gemv,
        }
    }

    /// The product as the array sees it.
    const fn product(self, p: Product) -> Product {
        match self {
            Self::Systolic { transposed: true, .. } => Product { m: p.n, k: p.k, n: p.m },
            _ => p,
        }
    }
}

impl Study {
    /// Runs one product.
    ///
    /// # Errors
    /// Zero sizes, modes an array does not have, counts beyond 64 bits.
    pub fn run(&self, p: Product) -> Result<Outcome, StudyError> {
        let sizes = [
            (p.m, "M"),
            (p.k, "K"),
            (p.n, "N"),
            (self.array.rows, "rows"),
            (self.array.cols, "cols"),
            (self.discipline.gemv_bytes_per_cycle.unwrap_or(1), "the GEMV stream's width"),
            (self.local.scratchpad, "the scratchpad"),
            (self.local.accumulator, "the accumulator"),
            (self.memory.map_or(1, |m| m.bytes.min(m.cycles)), "the memory's bandwidth"),
        ];
        if let Some((_, what)) = sizes.iter().find(|s| s.0 == 0) {
            return Err(StudyError::Zero(what));
        }
        let macs = p.macs().ok_or(StudyError::TooLarge)?;
        let (first, second) = self.forms()?;
        let second = second.filter(|_| p.m <= array::GEMV_ROWS);
        [Some(first), second]
            .into_iter()
            .flatten()
            .filter_map(|form| self.outcome(form, p, macs))
            .min_by_key(|o| o.total_cycles)
            .ok_or(StudyError::TooLarge)
    }

    /// The form, and one that may be faster for few rows.
    fn forms(&self) -> Result<(Form, Option<Form>), StudyError> {
        let gemv = self.discipline.gemv_bytes_per_cycle.map(|bytes_per_cycle| Form::Gemv { bytes_per_cycle });
        let (loads, stationary) = match self.dataflow {
            Dataflow::Gemv => {
                let form = gemv.ok_or(StudyError::Mode("the array has no GEMV path"))?;
                return Ok((form, None));
            }
            Dataflow::OutputStationary => (self.discipline.output_stationary, Stationary::C),
            // An array that keeps only C does so whatever is free to choose.
            Dataflow::Auto if self.discipline.weight_stationary == preset::Loads::default() => {
                (self.discipline.output_stationary, Stationary::C)
            }
            _ => (self.discipline.weight_stationary, Stationary::B),
        };
        let mode = match (self.weight_load, loads.exposed, loads.hidden) {
            (None | Some(WeightLoad::Hidden), _, Some(mode))
            | (None | Some(WeightLoad::Exposed), Some(mode), _) => mode,
            (_, None, None) if stationary == Stationary::B => {
                return Err(StudyError::Mode(
                    "the array is output-stationary: it has no weight-stationary mode",
                ));
            }
            (_, None, None) => {
                return Err(StudyError::Mode(
                    "the array is weight-stationary: it has no output-stationary mode",
                ));
            }
            (Some(WeightLoad::Hidden), Some(_), None) => {
                return Err(StudyError::Mode("the array has one operand register a PE: its load is exposed"));
            }
            (_, None, Some(_)) => return Err(StudyError::Mode("the array always hides this load")),
        };
        let transposed = self.dataflow == Dataflow::InputStationary;
        let gemv = gemv.filter(|_| self.dataflow == Dataflow::Auto);
        Ok((Form::Systolic { mode, stationary, transposed }, gemv))
    }

    /// Bits of an element of the operands as the form sees them, and of C.
    const fn bits(&self, form: Form) -> [u64; 3] {
        let (_, a, b) = self.formats.rate_and_bits();
        match form {
            Form::Systolic { transposed: true, .. } => [b, a, a],
            _ => [a, b, a],
        }
    }

    fn rate(&self) -> Rate {
        self.formats.rate_and_bits().0
    }

    /// A systolic job, of a product as the array sees it.
    fn job(&self, mode: Mode, stationary: Stationary, p: Product) -> Option<Job> {
        Job::new(mode, stationary, self.array, p, self.rate(), self.discipline.edge_folds)
    }

    /// Cycles of a product as the array sees it.
    fn cycles(&self, form: Form, p: Product) -> Option<Cycles> {
        match form {
            Form::Systolic { mode, stationary, .. } => self.job(mode, stationary, p)?.cycles(),
            Form::Gemv { bytes_per_cycle } => {
                let bytes = p.k.checked_mul(p.n)?.checked_mul(self.bits(form)[1])?.div_ceil(8);
                let cycles = array::gemv(self.array, p, self.rate(), bytes, bytes_per_cycle)?;
                Some(Cycles { constant: MESH_CONSTANT + READ_LATENCY, ..cycles })
            }
        }
    }

    fn outcome(&self, form: Form, p: Product, macs: u64) -> Option<Outcome> {
        let seen = form.product(p);
        let cycles = self.cycles(form, seen)?;
        let compute_cycles = cycles.total()?;
        let (total_cycles, memory_cycles, mut moved) = match self.memory {
            None => {
                let [a, b, c] = self.bits(form);
                let bits = [(seen.m, seen.k, a), (seen.k, seen.n, b), (seen.m, seen.n, c)];
                let bits =
                    bits.map(|(x, y, z)| u128::from(x).saturating_mul(y.into()).saturating_mul(z.into()));
                (compute_cycles, 0, bits)
            }
            Some(memory) => {
                let best = Schedule { study: self, form, memory, p: seen }.best()?;
                (best.total, best.transfers, best.bits)
            }
        };
        if form.dataflow() == Dataflow::InputStationary {
            moved.swap(0, 1);
        }
        let (num, den) = self.rate().fraction();
        let peak = self.array.rows as f64 * self.array.cols as f64 * num as f64 / den as f64;
        let weight_load = match form {
            Form::Systolic { mode, stationary: Stationary::B, .. } => {
                mode.overlap == Overlap::Hidden
                    && mode.exchange != Exchange::None
                    && seen.m < self.array.rows
                    && cycles.folds > 1
            }
            _ => false,
        };
        let stream =
            form.is_gemv() && cycles.active > array::gemv(self.array, seen, self.rate(), 0, 1)?.active;
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
        let traffic = moved.map(|bits| u64::try_from(bits.div_ceil(8)).unwrap_or(u64::MAX));
        Some(Outcome {
            compute_cycles,
            total_cycles,
            macs,
            utilisation,
            bound_by,
            traffic,
            folds: cycles.folds,
            constant_cycles: cycles.constant,
            dataflow: form.dataflow(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn study(name: &str, rows: u64, dataflow: Dataflow, weight_load: WeightLoad) -> Study {
        let array = Array { rows, cols: rows };
        Study {
            discipline: Discipline::named(name).expect("built in"),
            array,
            dataflow,
            weight_load: Some(weight_load),
            formats: Formats::Int8,
            local: LocalMemory::in_proportion(array),
            memory: None,
        }
    }

    const fn product(m: u64, k: u64, n: u64) -> Product {
        Product { m, k, n }
    }

    const HBM: Option<Bandwidth> = Some(Bandwidth { bytes: 768, cycles: 10 });

    #[test]
    fn serial_folds_equal_scale_sim() {
        use Dataflow::{OutputStationary, WeightStationary};
        // SCALE-Sim v3, total cycles of its compute report; it numbers them from 0, so it prints one less.
        let printed = [
            (32, WeightStationary, product(512, 512, 512), 155_135),
            (128, WeightStationary, product(1024, 1024, 1024), 89_983),
            (32, OutputStationary, product(128, 4096, 4096), 2_128_895),
            (128, OutputStationary, product(1, 4096, 11008), 374_099),
        ];
        for (rows, dataflow, p, cycles) in printed {
            for name in ["scalesim", "default"] {
                let outcome = study(name, rows, dataflow, WeightLoad::Exposed).run(p).expect("small");
                assert_eq!(outcome.compute_cycles, cycles + 1, "{rows} {dataflow:?} {p:?}");
                assert_eq!(outcome.total_cycles, outcome.compute_cycles);
            }
        }
    }

    /// ONNXim's totals for int8 at 76.8 bytes a cycle (one core, HBM2, weights preloaded behind computation).
    const ONNXIM: [(u64, Product, f64); 7] = [
        (32, product(512, 512, 512), 132_833.0),
        (32, product(1024, 1024, 1024), 1_050_985.0),
        (32, product(64, 768, 3072), 148_476.0),
        (128, product(512, 512, 512), 13_634.0),
        (128, product(128, 4096, 4096), 341_585.0),
        (128, product(1, 4096, 4096), 283_922.0),
        (128, product(2048, 2048, 8192), 3_027_247.0),
    ];

    #[test]
    fn totals_behind_a_memory_lie_between_the_bound_and_onnxim() {
        for (rows, p, reference) in ONNXIM {
            let hidden = study("default", rows, Dataflow::WeightStationary, WeightLoad::Hidden);
            let total = Study { memory: HBM, ..hidden }.run(p).expect("small").total_cycles as f64;
            let (m, k, n) = (p.m as f64, p.k as f64, p.n as f64);
            let bound = (m * k * n / (rows * rows) as f64).max((m * k + k * n + m * n) / 76.8);
            assert!(total >= bound, "{rows} {p:?}: {total} under {bound}");
            assert!(total <= 1.1 * reference, "{rows} {p:?}: {total}, ONNXim {reference}");
            if rows == 32 {
                assert!((total / reference - 1.0).abs() < 0.02, "{p:?}: {total}, ONNXim {reference}");
            }
        }
    }

    #[test]
    fn one_tile_is_load_compute_and_write_back() {
        // 64 x 64, 64 rows: everything fits one tile, nothing overlaps.
        let hidden = study("default", 64, Dataflow::WeightStationary, WeightLoad::Hidden);
        let p = product(64, 64, 64);
        let ideal = hidden.run(p).expect("small");
        assert_eq!(ideal.compute_cycles, 64 + 64 + 126 + 8);
        let slow = Study { memory: Some(Bandwidth { bytes: 1, cycles: 1 }), ..hidden }.run(p).expect("small");
        assert_eq!(slow.total_cycles, 2 * 64 * 64 + ideal.compute_cycles + 64 * 64);
        assert_eq!(slow.bound_by, Bound::Memory);
    }

    #[test]
    fn more_bandwidth_or_memory_is_never_slower() {
        let hidden = study("default", 16, Dataflow::Auto, WeightLoad::Hidden);
        for p in [product(1, 300, 500), product(100, 300, 500), product(40, 4000, 16), product(17, 17, 17)] {
            let mut last = u64::MAX;
            for bytes in [1, 2, 7, 40, 1000, 1_000_000] {
                let memory = Some(Bandwidth { bytes, cycles: 3 });
                let outcome = Study { memory, ..hidden }.run(p).expect("small");
                assert!(outcome.total_cycles <= last && outcome.total_cycles >= outcome.compute_cycles);
                last = outcome.total_cycles;
                let local = LocalMemory { scratchpad: 1 << 30, accumulator: 1 << 30 };
                let large = Study { memory, local, ..hidden }.run(p).expect("small");
                assert!(large.total_cycles <= outcome.total_cycles);
            }
        }
    }

    #[test]
    fn auto_takes_the_faster_path_and_utilisation_is_of_the_format() {
        let run = |dataflow, m, formats| {
            Study { formats, ..study("default", 64, dataflow, WeightLoad::Hidden) }
                .run(product(m, 4096, 4096))
                .expect("small")
        };
        assert_eq!(run(Dataflow::Auto, 1, Formats::W4A16), run(Dataflow::Gemv, 1, Formats::W4A16));
        assert_eq!(
            run(Dataflow::Auto, 128, Formats::Int8),
            run(Dataflow::WeightStationary, 128, Formats::Int8)
        );
        assert_eq!(run(Dataflow::Gemv, 1, Formats::W4A16).bound_by, Bound::WeightStream);
        assert_eq!(run(Dataflow::WeightStationary, 1, Formats::Int8).bound_by, Bound::WeightLoad);
        for formats in [Formats::Int4, Formats::Int8, Formats::Fp16, Formats::Fp32] {
            let u = run(Dataflow::WeightStationary, 4096, formats).utilisation;
            assert!(u > 0.999 && u <= 1.0, "{formats:?}: {u}");
        }
    }

    #[test]
    fn what_has_no_answer_is_an_error() {
        let hidden = study("default", 64, Dataflow::WeightStationary, WeightLoad::Hidden);
        assert_eq!(hidden.run(product(0, 1, 1)), Err(StudyError::Zero("M")));
        let flat = Study { array: Array { rows: 64, cols: 0 }, ..hidden };
        assert_eq!(flat.run(product(1, 1, 1)), Err(StudyError::Zero("cols")));
        let huge = product(u64::MAX, u64::MAX, u64::MAX);
        for memory in [None, HBM] {
            assert_eq!(Study { memory, ..hidden }.run(huge), Err(StudyError::TooLarge));
            // As large as a MAC count can be: an answer or an error, but no overflow.
            for p in [product(u64::MAX, 1, 1), product(1, u64::MAX, 1), product(1, 1, u64::MAX)] {
                for rows in [1, u64::MAX] {
                    let array = Array { rows, cols: rows };
                    let outcome = Study { memory, array, ..hidden }.run(p);
                    assert!(
                        outcome.is_ok_and(|o| o.macs == u64::MAX) || outcome == Err(StudyError::TooLarge)
                    );
                }
            }
        }
        let modes = [
            ("scalesim", Dataflow::WeightStationary, WeightLoad::Hidden),
            ("tinytpu", Dataflow::WeightStationary, WeightLoad::Exposed),
            ("tinytpu", Dataflow::OutputStationary, WeightLoad::Hidden),
            ("gemmini", Dataflow::Gemv, WeightLoad::Hidden),
        ];
        for (name, dataflow, load) in modes {
            let outcome = study(name, 16, dataflow, load).run(product(1, 1, 1));
            assert!(matches!(outcome, Err(StudyError::Mode(_))), "{name} {dataflow:?} {load:?}");
        }
    }
}
