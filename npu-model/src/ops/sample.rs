//! SAMPLE: draws one candidate a row by temperature, top-k, min-p and top-p.
//!
//! Shapes: x, by `xf`: a float format, rows x cols logits, column j having index k0 + j; int32, rows of cols records
//!   of 8 bytes (u32 index, u32 fp32 bits) as TOPK writes them, row stride `xst`. y one row of eight 32-bit words:
//!   0 temperature (fp32), 1 top-p (fp32), 2 min-p (fp32), 3 top-k (u32), 4 and 5 seed (u64, low word first), 6 and 7
//!   not read. d one record of 16 bytes a row at stride `dst` (0 = consecutive): u32 index, fp32 value of the
//!   winner, fp32 log-probability, 4 bytes zero. Position extension required: q0 the position sampled, k0 as above.
//!   imm = number of the first row's stream (u32).
//! Arithmetic: the candidates are ordered by descending value, equal values by their order in x; NaN and empty
//!   records are none. Of them the first top-k stay (0 = all). With T = temperature (1 in the log-probability if the
//!   draw is greedy): w_i = e^((v_i - v_0) / T), s = sum of w ascending. Then those with w_i < min-p go, and if top-p
//!   lies in (0, 1) all after the first prefix whose sum is at least top-p s. With t the sum of the n that remain
//!   and u the draw, the winner is the first whose prefix sum exceeds u t, else the last.
//!   log-probability = (v - v_0) / T - log s. A temperature that is not above 0 (or NaN) is greedy: the first
//!   candidate, no draw. A row without candidates gives (k0, -infinity, -infinity); an infinite first candidate
//!   wins with log-probability 0. Exponential by `acc`.
//!   Draw: u = the draw of `random.rs` with the seed at counter (q0, imm + row modulo 2^32), over 2^24. So it depends
//!   on seed, position and stream alone, never on what was drawn before.
//!   In a shape-only run the winner is the id of position q0 with value 1.0 and log-probability 0.
//! Bound: two passes (compare; subtract, divide and exponentiate, reduced to the sum) and one cycle a column for
//!   ordering and the draw's prefix, since top-k is data: long rows go through TOPK first. Class C.

use isa::npu::Format;

use super::approx::{Accuracy, Special};
use super::cost::Cost;
use super::operand::Rows;
use super::random::{DRAWS, draw};
use super::topk::{EMPTY, Record, load};
use super::vector::{FLOATS, Request, Work};
use super::{Ids, number};
use crate::config::NpuConfig;
use crate::fault::Fault;
use crate::local::Local;

/// Words of the parameter row.
const PARAMETERS: u64 = 8;
/// Bytes of a result.
const RECORD: usize = 16;

/// A checked command.
pub(super) struct Plan {
    x: Rows,
    records: bool,
    y: Rows,
    d: Rows,
    cols: usize,
    first: u32,
    position: u64,
    stream: u32,
    accuracy: Accuracy,
}

/// What the parameter row says.
struct Parameters {
    temperature: f32,
    top_p: f32,
    min_p: f32,
    top_k: usize,
    seed: u64,
}

impl Plan {
    pub fn new(r: &Request<'_>) -> Result<Self, Fault> {
        let p = r.position()?;
        if p.k0 + r.cols > 1 << 32 {
            return Err(Fault::operand(p.k0, "k0: indices pass 32 bits"));
        }
        let records = r.body.xf == Format::Int32.code();
        let x = if records { r.x_shaped(Format::Int32, 2 * r.cols)? } else { r.x(FLOATS)? };
        Ok(Self {
            x,
            records,
            y: r.y(&[Format::Fp32], 1, PARAMETERS, 0)?,
            d: r.d_shaped(Format::Int32, RECORD as u64 / 4)?,
            cols: r.cols as usize,
            first: p.k0 as u32,
            position: p.q0,
            stream: r.body.imm as u32,
            accuracy: r.accuracy(),
        })
    }

    fn parameters(&self, local: &Local) -> Result<Parameters, Fault> {
        let word = |i: usize| local.word(self.y.space, self.y.base + 4 * i);
        Ok(Parameters {
            temperature: f32::from_bits(word(0)?),
            top_p: f32::from_bits(word(1)?),
            min_p: f32::from_bits(word(2)?),
            top_k: word(3)? as usize,
            seed: u64::from(word(4)?) | u64::from(word(5)?) << 32,
        })
    }

    /// Candidates of a row in order.
    fn candidates(
        &self,
        local: &mut Local,
        row: usize,
        top_k: usize,
        all: &mut Vec<Record>,
    ) -> Result<(), Fault> {
        all.clear();
        if self.records {
            for i in 0..self.cols {
                let (index, value) = load(local, &self.x, row, i)?;
                if index != EMPTY && !value.is_nan() {
                    all.push((index, value));
                }
            }
        } else {
            let mut x = local.rows.take(self.cols);
            self.x.read(local, row, &mut x)?;
            let valued = x.iter().enumerate().filter(|(_, v)| !v.is_nan());
            all.extend(valued.map(|(j, &v)| (self.first + j as u32, v)));
            local.rows.give([x]);
        }
        // Stable, so equal values keep their order; -0 and 0 are equal.
        all.sort_by(|a, b| b.1.partial_cmp(&a.1).unwrap_or(core::cmp::Ordering::Equal));
        if top_k > 0 {
            all.truncate(top_k);
        }
        Ok(())
    }

    /// Winner and its log-probability.
    fn draw(&self, all: &[Record], p: &Parameters, row: usize, w: &mut [f32]) -> (Record, f32) {
        let Some(&best) = all.first() else {
            return ((self.first, f32::NEG_INFINITY), f32::NEG_INFINITY);
        };
        if best.1.is_infinite() {
            return (best, 0.0);
        }
        let greedy = p.temperature.partial_cmp(&0.0) != Some(core::cmp::Ordering::Greater);
        let temperature = if greedy { 1.0 } else { p.temperature };
        let mut sum = 0.0f32;
        for (w, (_, v)) in w.iter_mut().zip(all) {
            *w = Special::Exp.eval(self.accuracy, (v - best.1) / temperature);
            sum += *w;
        }
        let log = |v: f32| (v - best.1) / temperature - libm::logf(sum);
        if greedy {
            return (best, log(best.1));
        }
        let w = &w[..all.len()];
        let mut n = w.iter().position(|w| *w < p.min_p).unwrap_or(w.len()).max(1);
        if p.top_p > 0.0 && p.top_p < 1.0 {
            let mut prefix = 0.0f32;
            let enough = w[..n].iter().position(|w| {
                prefix += w;
                prefix >= p.top_p * sum
            });
            n = enough.map_or(n, |i| i + 1);
        }
        let total = w[..n].iter().fold(0.0f32, |s, w| s + w);
        let stream = self.stream.wrapping_add(row as u32);
        let target = draw(p.seed, self.position, stream) as f32 / DRAWS * total;
        let mut prefix = 0.0f32;
        let hit = w[..n].iter().position(|w| {
            prefix += w;
            prefix > target
        });
        let winner = all[hit.unwrap_or(n - 1)];
        (winner, log(winner.1))
    }

    pub fn run(&self, local: &mut Local) -> Result<(), Fault> {
        let p = self.parameters(local)?;
        let mut weights = local.rows.take(self.cols);
        let mut all = Vec::with_capacity(self.cols);
        for row in 0..self.x.rows {
            self.candidates(local, row, p.top_k, &mut all)?;
            let (winner, log) = self.draw(&all, &p, row, &mut weights);
            self.store(local, row, winner, log)?;
        }
        local.rows.give([weights]);
        Ok(())
    }

    pub fn run_shape_only(&self, local: &mut Local, ids: Ids<'_>) -> Result<(), Fault> {
        let id = ids(self.position);
        (0..self.x.rows).try_for_each(|row| self.store(local, row, (id, 1.0), 0.0))
    }

    fn store(&self, local: &mut Local, row: usize, winner: Record, log: f32) -> Result<(), Fault> {
        let at = self.d.at(row);
        let words = [winner.0, number::to_fp32(winner.1), number::to_fp32(log), 0];
        for (i, w) in words.into_iter().enumerate() {
            local.set_word(self.d.space, at + 4 * i, w)?;
        }
        Ok(())
    }

    pub fn cost(&self, cfg: &NpuConfig) -> Cost {
        let exp = Special::Exp.charge(self.accuracy);
        let elements = (self.x.rows * self.cols) as u64;
        let work = Work { cols: self.cols, ..Work::elements(&self.x, 1) };
        let mut work = work.special(exp, 1).reducing(2, 2);
        // The division by the temperature.
        work.special_ops += elements;
        let mut cost = work.cost(cfg);
        cost.serial(elements);
        cost.vector_ops += exp.lookups * elements;
        cost.read(self.x.space, self.x.bytes());
        cost.read(self.y.space, self.y.bytes());
        cost.write(self.d.space, self.d.bytes());
        cost
    }
}
