//! GEMM: C (M x N) = A (M x K) x B (K x N), accumulated in ACC, optionally drained through an epilogue.
//!
//! Operands: A rows of K in SPM, with `ta` K rows of M; B rows of N, with `tb` N rows of K; accumulators of 4 bytes in
//!   ACC. Strides in granules, 0 = rows packed to the byte. Elements below a byte lie low bits first.
//! Scales of B: grp 1 one a column at `s`, applied at drain; 2..6 one a column and group of G rows of K; 7 one a
//!   block of 128 x 128, counted from the command's first row and column. A table is N scales in `sf` (grp 7: one a
//!   block), then with zpm 1 as many zero points in B's format, with zpm 2 minima in `sf`. For grp 2..6 it follows
//!   its group's rows in line (after a last partial group too): `s` points right behind the first group and `bst` is
//!   0. With `tb` and for grp 7 tables follow each other at `s`. mxfp4 and mxfp8 are grp 3, sf 3. A scale of the
//!   whole tensor is the epilogue's `osm` 1.
//! Sparse B (`sp24`): for four rows of K two packed rows of N values, then N nibbles: position of the first value in
//!   bits 1:0, of the second in bits 3:2. Positions without value add nothing.
//! Scales of A (epilogue extension, with or without drain): ag 1 one a row at `as`, applied at drain; 2..6 one a row
//!   and block along K, in `asf`, rows packed or `asp` values apart; with asum 1 each scale is followed by the sum of
//!   its block's scaled elements. mxfp4 and mxfp8 are ag 3, asf 3.
//! Codebooks: entry q of look-up table `cb` of the epilogue extension (table 0 without one), fp16.
//!
//! Arithmetic, by the formats:
//!   A fp16, bf16, fp32: weights are decoded, then acc += a w for ascending k, product and sum each rounded to fp32.
//!   With a scale group w = fp16((q - z) scale), or fp16(q scale + minimum), product and sum each rounded to fp32
//!   first. Without one w is q - z, or the float itself.
//!   A narrower, no group or block: integers multiply and add in int32 that wraps; fp8 as above.
//!   A narrower, with groups of B or blocks of A: along K in blocks of the smaller of the two. dot = the sum of
//!   a (q - z) over the block: int32 that wraps, or if A or B are floats or a codebook, fp32 in ascending k from 0.
//!   Then p = dot, p = p as, p = p bs, acc = acc + p, and with minima acc = acc + (sum minimum), each rounded to fp32.
//!   acc16: float accumulators are rounded to fp16 after every addition, integer ones wrap at 24 bits.
//!   init 0 starts at 0, 1 keeps, 2 starts at the bias, 3 first multiplies each row by its fp32 of `s`.
//!   `drain` says what follows. All dataflows add in the same order.
//! Stationary B: a weight-stationary product whose B fits the array (one fold) leaves it there; so does ploadb, which
//!   does nothing else. keepb multiplies by it and does not read `b`; formats and sizes must be the same.
//! Bound: MACs (R C, doubled for 4-bit operands, halved for 16-bit ones, an eighth for fp32; half the rows of K are
//!   sparse) or the weight load (R cycles a fold), or on the GEMV path B's bytes. See `cost`.

mod activation;
mod activations;
mod codes;
mod cost;
mod drain;
mod kernels;
mod rules;
mod run;
mod tile;
mod weights;

use isa::npu::{Epilogue, GRANULE, Gemm};

use self::activations::Activations;
use self::cost::Timing;
use self::drain::Drain;
use self::rules::{Arithmetic, Rules};
pub(crate) use self::run::{Held, Matrix};
use self::weights::Weights;
use super::operand::{self, Rows, Shape};
use crate::config::NpuConfig;
use crate::fault::Fault;
use crate::local::Space;

#[derive(Clone, Copy, Debug)]
enum Init {
    Zero,
    Keep,
    Bias(Rows),
    /// Address of the fp32 row factors.
    Scale(usize),
}

/// Everything a product has and a preload has not.
struct Product {
    a: Activations,
    acc: Rows,
    init: Init,
    drain: Option<Drain>,
    /// B is the array's.
    keep: bool,
}

/// A checked command.
pub(super) struct Plan {
    m: usize,
    k: usize,
    n: usize,
    b: Weights,
    rules: Rules,
    timing: Timing,
    /// `None` only loads B.
    product: Option<Product>,
}

fn accumulator(cfg: &NpuConfig, g: &Gemm, e: &Epilogue) -> Result<Rows, Fault> {
    let (granule, stride) = match (g.drain, g.csp) {
        (0, 1) => return Err(Fault::operand(g.csp, "csp: without drain C is the accumulator")),
        (_, 0) => (g.c, g.cst),
        _ => (e.aca, 0),
    };
    Rows::destination(
        cfg,
        Shape {
            what: "the accumulators leave ACC",
            space: Space::Acc,
            granule,
            stride,
            rows: g.m + 1,
            cols: g.n + 1,
            format: isa::npu::Format::Fp32,
        },
    )
}

fn init(cfg: &NpuConfig, g: &Gemm, e: &Epilogue, integer: bool) -> Result<Init, Fault> {
    match g.init {
        0 => Ok(Init::Zero),
        1 => Ok(Init::Keep),
        2 => match drain::bias(cfg, g, e, integer)? {
            Some(bias) => Ok(Init::Bias(bias)),
            None => Err(Fault::operand(g.init, "init: there is no bias to start at")),
        },
        _ if g.grp != 0 => Err(Fault::operand(g.grp, "init: `s` cannot be both scales and row factors")),
        _ if integer => Err(Fault::operand(g.init, "init: integer accumulators are not rescaled")),
        _ => {
            let what = "the row factors leave the scratchpad";
            operand::range(cfg, Space::Spm, g.s * GRANULE, (g.m + 1) * 4, what).map(Init::Scale)
        }
    }
}

/// Whether the extension says anything that only a drain can do.
fn drains(g: &Gemm, e: &Epilogue) -> bool {
    let (bias, bff) = if g.init == 2 { (e.bias, e.bff) } else { (0, 0) };
    let product = Epilogue {
        type_: e.type_,
        as_: e.as_,
        ag: e.ag,
        asf: e.asf,
        asum: e.asum,
        asp: e.asp,
        cb: e.cb,
        bias,
        bff,
        ..Epilogue::default()
    };
    *e != product
}

impl Plan {
    pub fn new(cfg: &NpuConfig, g: &Gemm, epilogue: Option<&Epilogue>) -> Result<Self, Fault> {
        let e = epilogue.copied().unwrap_or_default();
        let af = operand::format_of(cfg, g.af, rules::A_FORMATS, "af: not a format of A")?;
        let bf = operand::format_of(cfg, g.bf, rules::B_FORMATS, "bf: not a format of B")?;
        let b = Weights::new(cfg, g, bf, e.cb)?;
        let rules = Rules::new(g, &e, af, &b)?;
        let timing = Timing::new(cfg, g, &rules, &b)?;
        let product = if g.ploadb == 1 {
            if g.keepb == 1 {
                return Err(Fault::operand(g.keepb, "keepb: a preload replaces what it would keep"));
            }
            if g.drain == 1 {
                return Err(Fault::operand(g.drain, "ploadb: a preload has nothing to drain"));
            }
            None
        } else {
            let a = Activations::new(cfg, g, &e, af)?;
            let acc = accumulator(cfg, g, &e)?;
            let integer = rules.arithmetic == Arithmetic::Integer;
            let init = init(cfg, g, &e, integer)?;
            let drain = if g.drain == 1 {
                Some(Drain::new(cfg, g, &e, integer, acc)?)
            } else if g.act != 0 || drains(g, &e) {
                return Err(Fault::operand(g.act, "drain: an epilogue runs only at drain"));
            } else {
                None
            };
            Some(Product { a, acc, init, drain, keep: g.keepb == 1 })
        };
        let (m, k, n) = ((g.m + 1) as usize, (g.k + 1) as usize, (g.n + 1) as usize);
        Ok(Self { m, k, n, b, rules, timing, product })
    }
}
