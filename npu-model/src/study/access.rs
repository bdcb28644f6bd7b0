//! What a product's operands cost in local memory: counts, first and last cycles, efficiencies.
//!
//! Models: reads of A and B and writes of C at the array's ports, fold by fold; the columns of SCALE-Sim's reports.
//! Does not model: when memory traffic happens inside a job: it is spread over all of it.
//! Source: SCALE-Sim 3.0.0, run: for serial folds every count and cycle here is the one it prints, except writes of
//!   C in output-stationary folds, where it prints R + C more a fold than there are results.

use super::{Dataflow, Outcome, Study};
use crate::array::Product;

/// Accesses of one operand at one port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Port {
    /// First cycle.
    pub start: u64,
    /// Last cycle.
    pub stop: u64,
    /// Elements.
    pub elements: u64,
}

/// What a product does to the memories.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Access {
    /// A, B and C at the scratchpad and accumulator.
    pub local: [Port; 3],
    /// A, B and C at memory.
    pub memory: [Port; 3],
    /// PEs with an operand over PEs, mean over folds.
    pub mapping_efficiency: f64,
    /// MACs over PE cycles of the folds, as SCALE-Sim counts a fold's cycles.
    pub compute_utilisation: f64,
}

impl Study {
    /// Accesses of a product that has been run.
    #[must_use]
    pub fn access(&self, p: Product, outcome: &Outcome) -> Access {
        let transposed = outcome.dataflow == Dataflow::InputStationary;
        let seen = if transposed { Product { m: p.n, k: p.k, n: p.m } } else { p };
        let mut local = match outcome.dataflow {
            Dataflow::OutputStationary => self.tiles_of_c(seen, outcome),
            Dataflow::Gemv => self.streams_of_b(seen, outcome),
            _ => self.folds_of_b(seen, outcome),
        };
        if transposed {
            local.swap(0, 1);
        }
        let (_, a_bits, b_bits) = self.formats.rate_and_bits();
        let bits = [a_bits, b_bits, a_bits];
        let memory = [0, 1, 2].map(|i| Port {
            start: 0,
            stop: outcome.total_cycles - 1,
            elements: outcome.traffic[i].saturating_mul(8) / bits[i],
        });
        let (rows, cols) = (self.array.rows as f64, self.array.cols as f64);
        let (m, k, n) = (seen.m as f64, seen.k as f64, seen.n as f64);
        let pes = rows * cols * outcome.folds as f64;
        let (mapping_efficiency, cycles) = match outcome.dataflow {
            Dataflow::OutputStationary => (m * n / pes, rows + cols + k - 2.0),
            _ => (k * n / pes, 2.0 * rows + cols + m - 2.0 + cols - 1.0),
        };
        let compute_utilisation = m * k * n / (pes * cycles);
        Access { local, memory, mapping_efficiency, compute_utilisation }
    }

    /// Cycle, numbered from 0, in which the last fold's registers are empty.
    fn last_cycle(&self, outcome: &Outcome) -> u128 {
        outcome.compute_cycles.saturating_sub(outcome.constant_cycles + 1).into()
    }

    fn folds_of_b(&self, p: Product, outcome: &Outcome) -> [Port; 3] {
        let (rows, cols) = (u128::from(self.array.rows), u128::from(self.array.cols));
        let (m, k, n) = (u128::from(p.m), u128::from(p.k), u128::from(p.n));
        let (height, width) = (last(k, rows), last(n, cols));
        let end = self.last_cycle(outcome);
        let stop = |before: u128| end.saturating_sub(before);
        [
            port(
                rows + 1,
                stop((rows + cols - 1).saturating_sub(height + 1)),
                product(m, k, n.div_ceil(cols)),
            ),
            port(1 + rows - k.min(rows), stop((rows + cols + m).saturating_sub(3)), product(k, n, 1)),
            port(2 * rows - 1, stop(cols - width), product(m, n, k.div_ceil(rows))),
        ]
    }

    fn tiles_of_c(&self, p: Product, outcome: &Outcome) -> [Port; 3] {
        let (rows, cols) = (u128::from(self.array.rows), u128::from(self.array.cols));
        let (m, k, n) = (u128::from(p.m), u128::from(p.k), u128::from(p.n));
        let (height, width) = (last(m, rows), last(n, cols));
        let end = self.last_cycle(outcome);
        let stop = |before: u128| end.saturating_sub(before);
        [
            port(1, stop((rows + cols - 1).saturating_sub(height + 1)), product(m, k, n.div_ceil(cols))),
            port(1, stop((rows + cols - 1).saturating_sub(width + 1)), product(k, n, m.div_ceil(rows))),
            port(k - 1, stop(cols - width), product(m, n, 1)),
        ]
    }

    fn streams_of_b(&self, p: Product, outcome: &Outcome) -> [Port; 3] {
        let (m, k, n) = (u128::from(p.m), u128::from(p.k), u128::from(p.n));
        let end = self.last_cycle(outcome);
        [
            port(1, end, product(m, k, 1)),
            port(1, end, product(k, n, outcome.folds.into())),
            port(self.array.rows.into(), end, product(m, n, 1)),
        ]
    }
}

/// A port; counts beyond 64 bits say so by staying at the largest.
fn port(start: u128, stop: u128, elements: u128) -> Port {
    let narrow = |x: u128| u64::try_from(x).unwrap_or(u64::MAX);
    Port { start: narrow(start), stop: narrow(stop), elements: narrow(elements) }
}

fn product(a: u128, b: u128, c: u128) -> u128 {
    a.saturating_mul(b).saturating_mul(c)
}

/// Size of the last fold of `size` cut by `whole`.
const fn last(size: u128, whole: u128) -> u128 {
    (size - 1) % whole + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::array::Array;
    use crate::study::{Discipline, Formats, LocalMemory};

    type Report = (u64, u64, Dataflow, [u64; 3], [u64; 9], [f64; 2]);

    /// SCALE-Sim 3.0.0's detailed access report (SRAM columns) of a run without stalls, its mapping efficiency and
    /// compute utilisation in per cent: rows, columns, dataflow, M, K, N, numbers.
    const REPORTS: [Report; 7] = [
        (
            4,
            4,
            Dataflow::WeightStationary,
            [5, 9, 7],
            [5, 84, 90, 1, 79, 63, 7, 88, 105],
            [65.625, 18.229_166],
        ),
        (4, 6, Dataflow::WeightStationary, [3, 4, 6], [5, 10, 12, 1, 4, 24, 7, 14, 18], [100.0, 15.0]),
        (
            4,
            6,
            Dataflow::OutputStationary,
            [5, 9, 7],
            [1, 60, 90, 1, 60, 126, 8, 62, 75],
            [36.458_333, 19.301_470],
        ),
        (4, 4, Dataflow::OutputStationary, [4, 5, 4], [1, 8, 20, 1, 8, 20, 4, 10, 24], [100.0, 45.454_545]),
        (4, 6, Dataflow::InputStationary, [5, 9, 7], [1, 42, 45, 5, 49, 63, 7, 55, 105], [62.5, 18.229_166]),
        (
            8,
            4,
            Dataflow::WeightStationary,
            [20, 16, 8],
            [9, 149, 640, 1, 122, 128, 15, 151, 320],
            [100.0, 48.780_487],
        ),
        (
            8,
            4,
            Dataflow::OutputStationary,
            [20, 16, 8],
            [1, 149, 640, 1, 149, 384, 15, 155, 232],
            [83.333_333, 51.282_051],
        ),
    ];

    #[test]
    fn serial_folds_access_what_scale_sim_reports() {
        for (rows, cols, dataflow, [m, k, n], numbers, [mapping, compute]) in REPORTS {
            let array = Array { rows, cols };
            let study = Study {
                discipline: Discipline::named("scalesim").expect("built in"),
                array,
                dataflow,
                weight_load: None,
                formats: Formats::Int8,
                local: LocalMemory::in_proportion(array),
                memory: None,
            };
            let p = Product { m, k, n };
            let outcome = study.run(p).expect("small");
            let access = study.access(p, &outcome);
            let mut ours = access.local.map(|p| [p.start, p.stop, p.elements]).concat();
            if dataflow == Dataflow::OutputStationary {
                // The known deviation: it counts R + C writes a fold that no result needs.
                ours[8] += outcome.folds * (rows + cols);
            }
            assert_eq!(ours, numbers, "{rows}x{cols} {dataflow:?} {p:?}");
            assert!((100.0 * access.mapping_efficiency - mapping).abs() < 1e-4, "{p:?}");
            assert!((100.0 * access.compute_utilisation - compute).abs() < 1e-4, "{p:?}");
            assert_eq!(access.memory.map(|p| p.elements), [m * k, k * n, m * n]);
        }
    }
}
