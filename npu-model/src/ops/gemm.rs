//! GEMM: C (M x N) = A (M x K) x B (K x N), accumulated in ACC, optionally drained through an epilogue.
//!
//! Shapes: A rows of K in SPM; B rows of N in SPM (with `tb` N rows of K, unscaled); accumulators of 4 bytes in ACC.
//!   Strides in granules, 0 = rows packed to the byte. int4 has its low nibble first.
//!   grp 2..6: after every group of G rows of B, and after a last partial group, follow N scales in `sf`, and with
//!   zpm 2 then N minima in `sf`; `s` must point right behind the first group and `bst` must be 0. grp 1: one fp32
//!   per column at `s`, used at drain.
//! Formats: A fp16, bf16, fp32 with B int4, uint4, int8, uint8, fp16, bf16, fp32: fp32 accumulation. A int8 with B
//!   int4 or int8 and grp 0 or 1: int32 accumulation, wrapping.
//! Arithmetic: grouped weights are w = fp16(q scale), with zpm 2 w = fp16(q scale + minimum): product and sum each
//!   rounded to fp32, then once to fp16. Other integer weights are the integer itself. Products with A are taken in
//!   fp32. acc += a w for ascending k, product and sum each rounded to fp32. init 0 starts at 0, 1 keeps the
//!   accumulator, 3 first multiplies each row by its fp32 of `s`. See `gemm_drain` for what follows.
//! Bound: MACs (R C, halved for 16-bit operands, an eighth for fp32) or the weight load (R cycles a fold), or on
//!   the GEMV path B's bytes. A fold covers R rows of K times the rate, and does not straddle scale groups.
//!   df 0 takes the GEMV path for at most `array::GEMV_ROWS` rows where it is faster.
//! Cycles: array::hidden_ws or array::gemv, and a constant of 8 a command (operand buffers 3, scratchpad read 5).

use isa::image::{group_rows, scale_bytes};
use isa::npu::{Epilogue, Format, GRANULE, Gemm};

use super::cost::{Cost, Path};
use super::gemm_drain::Drain;
use super::number::{self, Scale};
use super::operand::{self, Rows, Shape};
use crate::array::{self, Array, Folding, MESH_CONSTANT, Product, READ_LATENCY, Rate};
use crate::config::NpuConfig;
use crate::fault::Fault;
use crate::local::{Local, Space};

#[derive(Clone, Copy, Debug)]
enum Weights {
    /// K rows of N.
    Rows(Rows),
    /// N rows of K.
    Transposed(Rows),
    /// K packed rows of N, scales after every group.
    Grouped { base: usize, row_bytes: usize, group: usize, format: Format, scale: Scale, minima: bool },
}

#[derive(Clone, Copy, Debug)]
enum Init {
    Zero,
    Keep,
    /// Address of the fp32 row factors.
    Scale(usize),
}

/// A checked command.
pub(super) struct Plan {
    a: Rows,
    b: Weights,
    acc: Rows,
    init: Init,
    integer: bool,
    drain: Option<Drain>,
    m: usize,
    k: usize,
    n: usize,
    b_bytes: u64,
    decoded: bool,
    array: Array,
    rate: Rate,
    folding: Folding,
    path: Path,
    cycles: array::Cycles,
}

/// An accumulator element: fp32, or int32 that wraps.
pub(super) trait Element: Copy {
    const ZERO: Self;
    fn from_bits(bits: u32) -> Self;
    fn to_bits(self) -> u32;
    fn from_f32(value: f32) -> Self;
    fn mac(&mut self, a: Self, w: Self);
}

impl Element for f32 {
    const ZERO: Self = 0.0;
    fn from_bits(bits: u32) -> Self {
        Self::from_bits(bits)
    }
    fn to_bits(self) -> u32 {
        number::to_fp32(self)
    }
    fn from_f32(value: f32) -> Self {
        value
    }
    #[inline]
    fn mac(&mut self, a: Self, w: Self) {
        *self += a * w;
    }
}

impl Element for i32 {
    const ZERO: Self = 0;
    fn from_bits(bits: u32) -> Self {
        bits.cast_signed()
    }
    fn to_bits(self) -> u32 {
        self.cast_unsigned()
    }
    fn from_f32(value: f32) -> Self {
        value as Self // codes of at most 8 bits: exact
    }
    #[inline]
    fn mac(&mut self, a: Self, w: Self) {
        *self = self.wrapping_add(a.wrapping_mul(w));
    }
}

fn unsupported(g: &Gemm) -> Result<(), Fault> {
    let flags = [
        (g.acc16, "acc16: accumulation is 32 bits wide"),
        (g.ta, "ta: A is not transposed"),
        (g.sp24, "sp24: B is dense"),
        (g.zpm & 1, "zpm: neither integer zero points nor codebooks execute"),
        (g.rnd, "rnd: only nearest even executes"),
        (g.keepb, "keepb: B is always loaded"),
        (g.ploadb, "ploadb: B is always used"),
        (u64::from(g.init == 2), "init: accumulators do not start at the bias"),
        (u64::from(g.df == 2), "df: output-stationary does not execute"),
        (u64::from(g.grp == 7), "grp: 128 x 128 blocks do not execute"),
    ];
    match flags.iter().find(|f| f.0 != 0) {
        Some(&(value, text)) => Err(Fault::not_in_cap(value, text)),
        None => Ok(()),
    }
}

fn weights(cfg: &NpuConfig, g: &Gemm, format: Format, k: u64, n: u64) -> Result<(Weights, u64), Fault> {
    let group = group_rows(g.grp);
    let shape = |rows, cols| Shape {
        what: "B leaves the scratchpad",
        space: Space::Spm,
        granule: g.b,
        stride: g.bst,
        rows,
        cols,
        format,
    };
    if g.tb == 1 {
        if g.grp != 0 {
            return Err(Fault::operand(g.grp, "grp: a transposed B has no scales"));
        }
        if format.bits() < 8 {
            return Err(Fault::not_in_cap(g.bf, "tb: a B of 4 bits is not transposed"));
        }
        let rows = Rows::new(cfg, shape(n, k))?;
        return Ok((Weights::Transposed(rows), rows.bytes()));
    }
    if group == 0 {
        let rows = Rows::new(cfg, shape(k, n))?;
        return Ok((Weights::Rows(rows), rows.bytes()));
    }
    if number::is_float(format) {
        return Err(Fault::operand(g.bf, "grp: only integer weights have group scales"));
    }
    let scale = Scale::from_code(g.sf);
    let minima = g.zpm == 2;
    if minima && scale == Scale::E8m0 {
        return Err(Fault::operand(g.sf, "sf: a minimum has a sign, e8m0 has none"));
    }
    if g.bst != 0 {
        return Err(Fault::operand(g.bst, "bst: rows with scales in line are packed"));
    }
    let row_bytes = format.bytes(n);
    if g.s * GRANULE != g.b * GRANULE + group.min(k) * row_bytes {
        return Err(Fault::operand(g.s, "s: scales do not lie right behind the first group's rows"));
    }
    let table = n * scale_bytes(g.sf) * if minima { 2 } else { 1 };
    let bytes = k * row_bytes + k.div_ceil(group) * table;
    let base = operand::range(cfg, Space::Spm, g.b * GRANULE, bytes, "B leaves the scratchpad")?;
    let (row_bytes, group) = (row_bytes as usize, group as usize);
    let grouped = Weights::Grouped { base, row_bytes, group, format, scale, minima };
    Ok((grouped, bytes))
}

fn accumulator(
    cfg: &NpuConfig,
    g: &Gemm,
    epilogue: Option<&Epilogue>,
    m: u64,
    n: u64,
) -> Result<Rows, Fault> {
    let (granule, stride) = match (g.drain, g.csp) {
        (0, 1) => return Err(Fault::operand(g.csp, "csp: without drain C is the accumulator")),
        (_, 0) => (g.c, g.cst),
        _ => (epilogue.map_or(0, |e| e.aca), 0),
    };
    Rows::destination(
        cfg,
        Shape {
            what: "the accumulators leave ACC",
            space: Space::Acc,
            granule,
            stride,
            rows: m,
            cols: n,
            format: Format::Fp32,
        },
    )
}

fn init(cfg: &NpuConfig, g: &Gemm, integer: bool, m: u64) -> Result<Init, Fault> {
    match g.init {
        0 => Ok(Init::Zero),
        1 => Ok(Init::Keep),
        _ if g.grp != 0 => Err(Fault::operand(g.grp, "init: `s` cannot be both scales and row factors")),
        _ if integer => Err(Fault::operand(g.init, "init: integer accumulators are not rescaled")),
        _ => operand::range(cfg, Space::Spm, g.s * GRANULE, m * 4, "the row factors leave the scratchpad")
            .map(Init::Scale),
    }
}

impl Plan {
    pub fn new(cfg: &NpuConfig, g: &Gemm, epilogue: Option<&Epilogue>) -> Result<Self, Fault> {
        use Format::{Bf16, Fp16, Fp32, Int4, Int8, Uint4, Uint8};
        unsupported(g)?;
        let (m, k, n) = (g.m + 1, g.k + 1, g.n + 1);
        let af = operand::format_of(cfg, g.af, &[Int8, Fp16, Bf16, Fp32], "af: not a format of A")?;
        let bf = operand::format_of(
            cfg,
            g.bf,
            &[Int4, Uint4, Int8, Uint8, Fp16, Bf16, Fp32],
            "bf: not a format of B",
        )?;
        let integer = af == Int8;
        if integer && number::is_float(bf) {
            return Err(Fault::operand(g.bf, "bf: an integer A needs an integer B"));
        }
        if integer && matches!(bf, Uint4 | Uint8) {
            return Err(Fault::not_in_cap(g.bf, "bf: an integer A needs a signed B"));
        }
        if g.zpm == 2 && group_rows(g.grp) == 0 {
            return Err(Fault::operand(g.zpm, "zpm: minima need scale groups"));
        }
        if integer && g.grp > 1 {
            return Err(Fault::not_in_cap(g.grp, "grp: integer accumulation has no group scales"));
        }
        let a = Rows::new(
            cfg,
            Shape {
                what: "A leaves the scratchpad",
                space: Space::Spm,
                granule: g.a,
                stride: g.ast,
                rows: m,
                cols: k,
                format: af,
            },
        )?;
        let (b, b_bytes) = weights(cfg, g, bf, k, n)?;
        let acc = accumulator(cfg, g, epilogue, m, n)?;
        let init = init(cfg, g, integer, m)?;
        let drain = if g.drain == 1 {
            Some(Drain::new(cfg, g, epilogue, integer, acc)?)
        } else if epilogue.is_some() || g.act != 0 {
            return Err(Fault::operand(g.act, "drain: an epilogue runs only at drain"));
        } else {
            None
        };
        let rate = match (af, bf) {
            (Int8, _) => Rate::Full,
            (Fp32, _) | (_, Fp32) => Rate::Eighth,
            _ => Rate::Half,
        };
        let array = Array { rows: u64::from(cfg.rows.max(1)), cols: u64::from(cfg.cols.max(1)) };
        let folding = Folding::new(array.rows, rate, group_rows(g.grp));
        let product = Product { m, k, n };
        let (path, cycles) = path(cfg, g.df, array, product, rate, folding, b_bytes)
            // 14 bits of K, 12 of N and M, 32 of rows: at most 2^26 folds of 2^32 cycles.
            .expect("a command's cycles fit 64 bits");
        Ok(Self {
            a,
            b,
            acc,
            init,
            integer,
            drain,
            m: m as usize,
            k: k as usize,
            n: n as usize,
            b_bytes,
            decoded: !integer && !number::is_float(bf),
            array,
            rate,
            folding,
            path,
            cycles,
        })
    }

    pub fn run(&self, local: &mut Local) -> Result<(), Fault> {
        if self.integer {
            let mut acc: Vec<i32> = self.start(local)?;
            self.multiply(local, &mut acc)?;
            self.finish(local, &acc, |&v| v as f32)
        } else {
            let mut acc: Vec<f32> = self.start(local)?;
            self.multiply(local, &mut acc)?;
            self.finish(local, &acc, |&v| v)
        }
    }

    fn start<T: Element + core::ops::Mul<Output = T>>(&self, local: &Local) -> Result<Vec<T>, Fault> {
        let mut acc = vec![T::ZERO; self.m * self.n];
        if let Init::Zero = self.init {
            return Ok(acc);
        }
        for (r, row) in acc.chunks_exact_mut(self.n).enumerate() {
            for (v, b) in row.iter_mut().zip(self.acc.raw(local, r)?.chunks_exact(4)) {
                *v = T::from_bits(u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
            }
            if let Init::Scale(at) = self.init {
                let factor = T::from_bits(local.word(Space::Spm, at + 4 * r)?);
                row.iter_mut().for_each(|v| *v = *v * factor);
            }
        }
        Ok(acc)
    }

    fn multiply<T: Element>(&self, local: &Local, acc: &mut [T]) -> Result<(), Fault> {
        let (k, n) = (self.k, self.n);
        let mut decoded = vec![0.0f32; k.max(n)];
        let mut a = vec![T::ZERO; self.m * k];
        for (r, row) in a.chunks_exact_mut(k).enumerate() {
            self.a.read(local, r, &mut decoded[..k])?;
            row.iter_mut().zip(&decoded).for_each(|(a, &v)| *a = T::from_f32(v));
        }
        let mut weight = vec![T::ZERO; n];
        let (mut scales, mut lows) = (vec![0.0f32; n], vec![0.0f32; n]);
        let mut table = vec![[T::ZERO; 16]; n];
        let transposed = self.transpose::<T>(local, &mut decoded)?;
        for step in 0..k {
            let row = match self.b {
                Weights::Transposed(_) => &transposed[step * n..(step + 1) * n],
                Weights::Rows(b) => {
                    b.read(local, step, &mut decoded[..n])?;
                    weight.iter_mut().zip(&decoded).for_each(|(w, &v)| *w = T::from_f32(v));
                    &weight
                }
                Weights::Grouped { base, row_bytes, group, format, scale, minima } => {
                    let vector = n * scale.bytes();
                    let start =
                        base + (step / group) * (group * row_bytes + vector * (1 + usize::from(minima)));
                    if step % group == 0 {
                        let at = start + group.min(k - step) * row_bytes;
                        scale.decode(local.bytes(Space::Spm, at, vector)?, &mut scales);
                        if minima {
                            scale.decode(local.bytes(Space::Spm, at + vector, vector)?, &mut lows);
                        }
                        if format.bits() == 4 {
                            tabulate(format, &scales, minima.then_some(&lows), &mut table);
                        }
                    }
                    let codes = local.bytes(Space::Spm, start + (step % group) * row_bytes, row_bytes)?;
                    if format.bits() == 4 {
                        look_up(codes, &table, &mut weight);
                    } else {
                        number::decode_row(format, codes, &mut decoded[..n]);
                        let low = |c: usize| if minima { Some(lows[c]) } else { None };
                        for (c, (w, &q)) in weight.iter_mut().zip(&decoded).enumerate() {
                            *w = T::from_f32(dequantise(q, scales[c], low(c)));
                        }
                    }
                    &weight
                }
            };
            for (r, acc) in acc.chunks_exact_mut(n).enumerate() {
                let a = a[r * k + step];
                for (c, &w) in acc.iter_mut().zip(row) {
                    c.mac(a, w);
                }
            }
        }
        Ok(())
    }

    /// A transposed B as K rows of N; empty for any other.
    fn transpose<T: Element>(&self, local: &Local, scratch: &mut [f32]) -> Result<Vec<T>, Fault> {
        let Weights::Transposed(b) = self.b else { return Ok(Vec::new()) };
        let mut out = vec![T::ZERO; self.k * self.n];
        for column in 0..self.n {
            b.read(local, column, &mut scratch[..self.k])?;
            for (step, &v) in scratch[..self.k].iter().enumerate() {
                out[step * self.n + column] = T::from_f32(v);
            }
        }
        Ok(out)
    }

    fn finish<T: Element>(
        &self,
        local: &mut Local,
        acc: &[T],
        to_f32: impl Fn(&T) -> f32,
    ) -> Result<(), Fault> {
        let vectors = self.drain.as_ref().map(|d| d.vectors(local)).transpose()?;
        let mut values = vec![0.0; self.n];
        for (r, row) in acc.chunks_exact(self.n).enumerate() {
            // R's row is read before the accumulators are stored: it may lie on them.
            if let (Some(drain), Some(vectors)) = (&self.drain, &vectors) {
                values.iter_mut().zip(row).for_each(|(v, a)| *v = to_f32(a));
                drain.apply(local, vectors, r, &mut values)?;
            }
            let bytes = local.bytes_mut(Space::Acc, self.acc.at(r), self.acc.row_bytes)?;
            for (b, v) in bytes.chunks_exact_mut(4).zip(row) {
                b.copy_from_slice(&v.to_bits().to_le_bytes());
            }
            match &self.drain {
                Some(drain) if drain.is_raw() => {
                    drain.store_raw(local, r, row.iter().map(|v| v.to_bits()))?
                }
                Some(drain) => drain.store(local, r, &values)?,
                None => {}
            }
        }
        Ok(())
    }

    pub fn cost(&self) -> Cost {
        let c = self.cycles;
        let (m, k, n) = (self.m as u64, self.k as u64, self.n as u64);
        let macs = m * k * n;
        let (a_reads, b_reads, acc_passes, padded_macs) = match self.path {
            Path::WeightStationary => {
                let n_folds = n.div_ceil(self.array.cols);
                let padded = c.folds * self.folding.fold_rows * self.array.cols * m;
                (n_folds, 1, self.folding.k_folds(k), padded)
            }
            Path::Gemv => (1, c.folds, 1, macs),
        };
        let tile = 4 * m * n;
        let mut cost = Cost {
            cycles: c.fill + c.active + c.drain + c.constant,
            start_cycles: c.constant,
            fill_cycles: c.fill,
            active_cycles: c.active,
            drain_cycles: c.drain,
            macs,
            padded_macs,
            rate: Some(self.rate),
            path: Some(self.path),
            spm_read_bytes: a_reads * self.a.bytes() + b_reads * self.b_bytes,
            acc_read_bytes: (acc_passes - 1) * tile,
            acc_write_bytes: acc_passes * tile,
            decoded_weights: if self.decoded { b_reads * k * n } else { 0 },
            ..Cost::default()
        };
        if !matches!(self.init, Init::Zero) {
            cost.acc_read_bytes += tile;
        }
        if let Init::Scale(_) = self.init {
            cost.spm_read_bytes += 4 * m;
            cost.vector_ops += m * n;
        }
        if let Some(drain) = &self.drain {
            drain.charge(&mut cost, m, n);
        }
        cost
    }
}

/// A code with its scale and, where there is one, its minimum.
fn dequantise(code: f32, scale: f32, low: Option<f32>) -> f32 {
    let scaled = code * scale;
    number::round_fp16(low.map_or(scaled, |low| scaled + low))
}

/// The 16 weights a code of 4 bits can mean in each column of a group: 16 roundings serve all its rows.
fn tabulate<T: Element>(format: Format, scales: &[f32], lows: Option<&Vec<f32>>, table: &mut [[T; 16]]) {
    let bias = if format == Format::Int4 { 8i16 } else { 0 };
    for (c, (entry, &scale)) in table.iter_mut().zip(scales).enumerate() {
        for (code, w) in (0i16..).zip(entry.iter_mut()) {
            let code = f32::from((code ^ bias) - bias);
            *w = T::from_f32(dequantise(code, scale, lows.map(|lows| lows[c])));
        }
    }
}

/// A packed row of codes of 4 bits as weights.
fn look_up<T: Element>(codes: &[u8], table: &[[T; 16]], weights: &mut [T]) {
    let pairs = weights.chunks_mut(2).zip(table.chunks(2));
    for (&byte, (w, t)) in codes.iter().zip(pairs) {
        w[0] = t[0][usize::from(byte & 15)];
        if let ([_, w], [_, t]) = (w, t) {
            *w = t[usize::from(byte >> 4)];
        }
    }
}

/// The path a command takes and its cycles, the constant included.
fn path(
    cfg: &NpuConfig,
    df: u64,
    array: Array,
    p: Product,
    rate: Rate,
    folding: Folding,
    b_bytes: u64,
) -> Option<(Path, array::Cycles)> {
    let ws = || array::hidden_ws(array, p, folding);
    let gemv = || array::gemv(array, p, rate, b_bytes, u64::from(cfg.gemv_bytes_per_cycle));
    let (path, cycles) = match df {
        1 => (Path::WeightStationary, ws()?),
        3 => (Path::Gemv, gemv()?),
        _ if p.m > array::GEMV_ROWS => (Path::WeightStationary, ws()?),
        _ => {
            let (ws, gemv) = (ws()?, gemv()?);
            if gemv.total()? < ws.total()? { (Path::Gemv, gemv) } else { (Path::WeightStationary, ws) }
        }
    };
    Some((path, array::Cycles { constant: MESH_CONSTANT + READ_LATENCY, ..cycles }))
}
