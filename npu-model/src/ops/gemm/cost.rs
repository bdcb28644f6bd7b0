//! A product's path through the array, its cycles and its actions.
//!
//! Models: the closed forms of `array` for weight-stationary products (load hidden), output-stationary ones and the
//!   GEMV path, and a constant of 8 a command (operand buffers 3, scratchpad read 5).
//! Does not model: overlap of a preload with the command before it; the array clipping part folds.
//! Source: `array`; energy actions are estimates, accuracy class C.
//!
//! A fold covers R rows of K times the rate and does not straddle scale groups or blocks; of sparse weights only the
//! rows kept count. df 0 takes the GEMV path for at most `array::GEMV_ROWS` rows where it is faster. ta and tb cost no
//! cycles: Gemmini's transposer hides under the weight load (public RTL). A kept B spares the first load and B's
//! bytes; a preload costs R cycles. Narrow accumulators move 2 (fp16) or 3 (int24) of 4 bytes.

use isa::npu::{Format, Gemm};

use super::rules::{Arithmetic, Rules};
use super::weights::{Weights, Zero};
use super::{Init, Plan};
use crate::array::{self, Array, Folding, MESH_CONSTANT, Product, READ_LATENCY};
use crate::config::NpuConfig;
use crate::fault::Fault;
use crate::ops::cost::{Cost, Path};

/// Cycles of a command and what they depend on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timing {
    array: Array,
    folding: Folding,
    /// Rows of K the array multiplies.
    k: u64,
    /// Whether all of B is one fold.
    pub fits: bool,
    pub path: Path,
    cycles: array::Cycles,
}

/// The path a command takes and its cycles without the constant.
fn path(
    cfg: &NpuConfig,
    df: u64,
    array: Array,
    p: Product,
    (rules, folding): (&Rules, Folding),
    b_bytes: u64,
) -> Option<(Path, array::Cycles)> {
    let ws = || array::hidden_ws(array, p, folding);
    let gemv = || array::gemv(array, p, rules.rate, b_bytes, u64::from(cfg.gemv_bytes_per_cycle));
    Some(match df {
        1 => (Path::WeightStationary, ws()?),
        2 => (Path::OutputStationary, array::hidden_os(array, p, rules.rate)?),
        3 => (Path::Gemv, gemv()?),
        _ if p.m > array::GEMV_ROWS => (Path::WeightStationary, ws()?),
        _ => {
            let (ws, gemv) = (ws()?, gemv()?);
            if gemv.total()? < ws.total()? { (Path::Gemv, gemv) } else { (Path::WeightStationary, ws) }
        }
    })
}

impl Timing {
    pub fn new(cfg: &NpuConfig, g: &Gemm, rules: &Rules, b: &Weights) -> Result<Self, Fault> {
        let kept = if b.is_sparse() { 2 } else { 1 };
        let array = Array { rows: u64::from(cfg.rows.max(1)), cols: u64::from(cfg.cols.max(1)) };
        let group = match rules.arithmetic {
            Arithmetic::Float => b.scale_group(),
            Arithmetic::Integer => 0,
            Arithmetic::Blocks(rows) => rows as u64,
        };
        let folding = Folding::new(array.rows, rules.rate, group / kept);
        let p = Product { m: g.m + 1, k: (g.k + 1) / kept, n: g.n + 1 };
        let fits = folding.k_folds(p.k) == 1 && p.n <= array.cols;
        let held = g.keepb == 1 || g.ploadb == 1;
        if held && !fits {
            return Err(Fault::operand(g.n, "keepb: the array does not hold all of B"));
        }
        if held && g.df > 1 {
            return Err(Fault::operand(g.df, "keepb: only a weight-stationary array keeps B"));
        }
        let df = if held { 1 } else { g.df };
        let (path, mut cycles) = path(cfg, df, array, p, (rules, folding), b.bytes)
            // 14 bits of K, 12 of N and M, 32 of rows: at most 2^26 folds of 2^32 cycles.
            .expect("a command's cycles fit 64 bits");
        if g.keepb == 1 {
            cycles.fill = 0;
        }
        if g.ploadb == 1 {
            cycles = array::Cycles { folds: 1, active: array.rows, ..array::Cycles::default() };
        }
        cycles.constant = MESH_CONSTANT + READ_LATENCY;
        Ok(Self { array, folding, k: p.k, fits, path, cycles })
    }
}

impl Plan {
    /// Weights that are decoded on their way into the array.
    fn decoded(&self) -> u64 {
        let codes = match self.rules.arithmetic {
            Arithmetic::Float => !matches!(self.b.format, Format::Fp16 | Format::Bf16 | Format::Fp32),
            Arithmetic::Integer | Arithmetic::Blocks(_) => {
                matches!(self.b.zero, Zero::Point | Zero::Codebook(_)) || self.b.format == Format::Mxfp4
            }
        };
        if codes { self.timing.k * self.n as u64 } else { 0 }
    }

    pub fn cost(&self) -> Cost {
        let (t, c) = (&self.timing, self.timing.cycles);
        let (m, n) = (self.m as u64, self.n as u64);
        let mut cost = Cost {
            cycles: c.fill + c.active + c.drain + c.constant,
            start_cycles: c.constant,
            fill_cycles: c.fill,
            active_cycles: c.active,
            drain_cycles: c.drain,
            ..Cost::default()
        };
        let Some(p) = &self.product else {
            cost.spm_read_bytes = self.b.bytes;
            cost.decoded_weights = self.decoded();
            return cost;
        };
        let columns = n.div_ceil(t.array.cols);
        cost.macs = m * t.k * n;
        let (a_reads, b_reads, acc_passes);
        (a_reads, b_reads, acc_passes, cost.padded_macs) = match t.path {
            Path::WeightStationary => {
                let padded = c.folds * t.folding.fold_rows * t.array.cols * m;
                (columns, u64::from(!p.keep), t.folding.k_folds(t.k), padded)
            }
            Path::OutputStationary => {
                let padded = c.folds * t.array.rows * t.array.cols * t.k;
                (columns, m.div_ceil(t.array.rows), 1, padded)
            }
            Path::Gemv => (1, c.folds, 1, cost.macs),
        };
        let tile = m * n * self.accumulator_bytes();
        cost.rate = Some(self.rules.rate);
        cost.path = Some(t.path);
        cost.spm_read_bytes = a_reads * p.a.bytes(m, self.k as u64) + b_reads * self.b.bytes;
        cost.acc_read_bytes = (acc_passes - 1) * tile;
        cost.acc_write_bytes = acc_passes * tile;
        cost.decoded_weights = b_reads * self.decoded();
        if let Arithmetic::Blocks(rows) = self.rules.arithmetic {
            let steps = u64::from(p.a.blocks.is_some())
                + u64::from(self.b.scaled)
                + if self.b.zero == Zero::Minimum { 3 } else { 1 };
            cost.vector_ops += m * n * (self.k as u64).div_ceil(rows as u64) * steps;
        }
        match p.init {
            Init::Zero => {}
            Init::Keep => cost.acc_read_bytes += tile,
            Init::Bias(bias) => cost.spm_read_bytes += bias.bytes(),
            Init::Scale(_) => {
                cost.acc_read_bytes += tile;
                cost.spm_read_bytes += 4 * m;
                cost.vector_ops += m * n;
            }
        }
        if let Some(drain) = &p.drain {
            drain.charge(&mut cost, m, n);
        }
        cost
    }

    const fn accumulator_bytes(&self) -> u64 {
        match (self.rules.narrow, self.rules.arithmetic) {
            (false, _) => 4,
            (true, Arithmetic::Integer) => 3,
            (true, _) => 2,
        }
    }
}
