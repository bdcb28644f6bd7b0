//! ARGMAX, TOPK, SAMPLE, QDYN and ROPE.

use isa::npu::{Command, Format, Position, VecFn, VecOp};
use ndarray::Array2;

use super::{Bench, Build, D, X, Y};

pub(super) const CASES: &[(VecFn, Build)] = &[
    (VecFn::Argmax, argmax),
    (VecFn::Topk, topk),
    (VecFn::Sample, sample_logits),
    (VecFn::Sample, sample_records),
    (VecFn::Qdyn, qdyn),
    (VecFn::RopeHalf, |b| rope(b, VecFn::RopeHalf)),
    (VecFn::RopeInter, |b| rope(b, VecFn::RopeInter)),
];

/// Few distinct values, so that ties happen.
pub(super) fn few(b: &mut Bench) -> Array2<f32> {
    let x = Array2::from_shape_simple_fn((b.rows, b.cols), || b.random.below(17) as f32 / 4.0 - 2.0);
    b.put(X, &x, b.xf);
    x
}

fn argmax(b: &mut Bench) -> Command {
    b.xf = Format::Fp32;
    let x = few(b);
    let k0 = b.random.below(1000);
    for (r, row) in x.rows().into_iter().enumerate() {
        let best = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let at = row.iter().position(|v| *v == best).expect("some") as u32;
        b.expect_words("record", D + 16 * r, &[k0 as u32 + at, best.to_bits(), 0, 0]);
    }
    Command::vec(VecFn::Argmax, b.vec(), Some(Position { k0, ..Position::default() }))
}

fn topk(b: &mut Bench) -> Command {
    let mut x = few(b);
    x[[0, 0]] = f32::NAN;
    b.put(X, &x, b.xf);
    let (k, k0, upd) = (1 + b.random.below(9) as usize, 100 + b.random.below(1000), b.random.below(2));
    for r in 0..b.rows {
        // What is there already, in order, with an empty place at the end.
        let mut old: Vec<(u32, f32)> = (0..k).map(|i| (i as u32, 1.5 - 0.5 * i as f32)).collect();
        if k > 2 {
            old[k - 1] = (u32::MAX, f32::NEG_INFINITY);
        }
        let words: Vec<u32> = old.iter().flat_map(|o| [o.0, o.1.to_bits()]).collect();
        b.put_words(D + 8 * k * r, &words);
        let mut all: Vec<(u32, f32)> = if upd == 1 { old } else { Vec::new() };
        all.retain(|a| a.0 != u32::MAX);
        all.extend(x.row(r).iter().enumerate().map(|(c, v)| (k0 as u32 + c as u32, *v)));
        all.retain(|a| !a.1.is_nan());
        all.sort_by(|a, b| b.1.total_cmp(&a.1));
        all.resize(all.len().max(k), (u32::MAX, f32::NEG_INFINITY));
        let words: Vec<u32> = all[..k].iter().flat_map(|a| [a.0, a.1.to_bits()]).collect();
        b.expect_words("records", D + 8 * k * r, &words);
    }
    let vec = VecOp { imm: k as u64, upd, ..b.vec() };
    Command::vec(VecFn::Topk, vec, Some(Position { k0, ..Position::default() }))
}

/// SplitMix64 at a counter of 32 + 32 bits: its upper 24 bits.
pub(super) fn draw(seed: u64, high: u64, low: u32) -> u32 {
    let counter = u128::from(high) << 32 | u128::from(low);
    let state = u128::from(seed) + (counter + 1) * 0x9E37_79B9_7F4A_7C15;
    let mut z = state as u64;
    for (shift, factor) in [(30, 0xBF58_476D_1CE4_E5B9u64), (27, 0x94D0_49BB_1331_11EB)] {
        z = (z ^ (z >> shift)).wrapping_mul(factor);
    }
    z ^= z >> 31;
    (z >> 40) as u32
}

struct Draw {
    temperature: f32,
    top_p: f32,
    min_p: f32,
    top_k: u32,
    seed: u64,
}

fn parameters(b: &mut Bench) -> Draw {
    let pick = |b: &mut Bench, choices: &[f32]| choices[b.random.below(choices.len() as u64) as usize];
    let d = Draw {
        temperature: pick(b, &[0.0, 0.7, 1.0, 2.5, f32::NAN]),
        top_p: pick(b, &[0.0, 0.3, 0.9, 1.0]),
        min_p: pick(b, &[0.0, 0.1, 2.0]),
        top_k: b.random.below(12) as u32,
        seed: b.random.next(),
    };
    let words = [
        d.temperature.to_bits(),
        d.top_p.to_bits(),
        d.min_p.to_bits(),
        d.top_k,
        d.seed as u32,
        (d.seed >> 32) as u32,
        7,
        7,
    ];
    b.put_words(Y, &words);
    d
}

/// The record a draw from these candidates, in order of x, gives.
fn drawn(mut all: Vec<(u32, f32)>, d: &Draw, position: u64, stream: u32, none: u32) -> [u32; 4] {
    let record = |index: u32, v: f32, log: f32| [index, v.to_bits(), log.to_bits(), 0];
    all.sort_by(|a, b| b.1.total_cmp(&a.1));
    if d.top_k > 0 {
        all.truncate(d.top_k as usize);
    }
    let Some(&(first, best)) = all.first() else {
        return record(none, f32::NEG_INFINITY, f32::NEG_INFINITY);
    };
    let greedy = d.temperature <= 0.0 || d.temperature.is_nan();
    let t = if greedy { 1.0 } else { d.temperature };
    let w: Vec<f32> = all.iter().map(|a| libm::expf((a.1 - best) / t)).collect();
    let s = super::rows::sum(&w);
    let log = |v: f32| (v - best) / t - libm::logf(s);
    if greedy {
        return record(first, best, log(best));
    }
    let mut kept: Vec<f32> = w.iter().copied().take_while(|w| *w >= d.min_p).collect();
    if kept.is_empty() {
        kept.push(1.0);
    }
    if d.top_p > 0.0 && d.top_p < 1.0 {
        let mut n = 1;
        while n < kept.len() && super::rows::sum(&kept[..n]) < d.top_p * s {
            n += 1;
        }
        kept.truncate(n);
    }
    let target = draw(d.seed, position, stream) as f32 / 16_777_216.0 * super::rows::sum(&kept);
    let mut winner = 0;
    while winner + 1 < kept.len() && super::rows::sum(&kept[..=winner]) <= target {
        winner += 1;
    }
    record(all[winner].0, all[winner].1, log(all[winner].1))
}

fn sample_logits(b: &mut Bench) -> Command {
    let x = few(b);
    let d = parameters(b);
    let (q0, k0, imm) = (b.random.below(1 << 32), b.random.below(1000), b.random.below(1 << 32));
    for (r, row) in x.rows().into_iter().enumerate() {
        let all = row.iter().enumerate().map(|(c, v)| (k0 as u32 + c as u32, *v)).collect();
        let record = drawn(all, &d, q0, (imm as u32).wrapping_add(r as u32), k0 as u32);
        b.expect_words("record", D + 16 * r, &record);
    }
    Command::vec(VecFn::Sample, VecOp { imm, ..b.vec() }, Some(Position { q0, k0, ..Position::default() }))
}

fn sample_records(b: &mut Bench) -> Command {
    let d = parameters(b);
    let q0 = b.random.below(1 << 20);
    let (rows, cols) = (b.rows, b.cols.min(20));
    b.cols = cols;
    for r in 0..rows {
        let mut all = Vec::new();
        let mut words = Vec::new();
        for _ in 0..cols {
            let empty = b.random.below(5) == 0;
            let value = b.random.below(9) as f32 / 4.0;
            let index = if empty { u32::MAX } else { b.random.below(100_000) as u32 };
            words.extend([index, value.to_bits()]);
            if !empty {
                all.push((index, value));
            }
        }
        b.put_words(X + 8 * cols * r, &words);
        b.expect_words("record", D + 16 * r, &drawn(all, &d, q0, r as u32, 5));
    }
    let vec = VecOp { xf: Format::Int32.code(), ..b.vec() };
    Command::vec(VecFn::Sample, vec, Some(Position { q0, k0: 5, ..Position::default() }))
}

fn qdyn(b: &mut Bench) -> Command {
    let x = b.x();
    let mut codes = Array2::zeros(x.dim());
    let mut scales = Array2::zeros((b.rows, 1));
    for (r, row) in x.rows().into_iter().enumerate() {
        let a = row.iter().fold(0.0f32, |a, v| a.max(v.abs()));
        scales[[r, 0]] = a / 127.0;
        for (c, v) in row.iter().enumerate() {
            let code = if a == 0.0 { 0.0 } else { libm::rintf(v * (127.0 / a)).clamp(-127.0, 127.0) };
            codes[[r, c]] = code + 0.0;
        }
    }
    b.expect("codes", D, &codes, Format::Int8);
    b.expect("scales", Y, &scales, Format::Fp32);
    Command::vec(VecFn::Qdyn, VecOp { dfm: Format::Int8.code(), ..b.vec() }, None)
}

fn rope(b: &mut Bench, function: VecFn) -> Command {
    let half = 1 + b.random.below(4) as usize;
    b.cols = b.cols.next_multiple_of(2 * half);
    let x = b.x();
    let frequency = b.y(1, half);
    let (q0, rdiv) = (b.random.below(5000), b.random.below(3));
    let d = Array2::from_shape_fn(x.dim(), |(r, c)| {
        let (head, j) = (c / (2 * half) * 2 * half, c % (2 * half));
        let inter = function == VecFn::RopeInter;
        let (pair, last) = if inter { (j / 2, j % 2 == 1) } else { (j % half, j >= half) };
        let (p, q) = if inter { (2 * pair, 2 * pair + 1) } else { (pair, pair + half) };
        let angle = (q0 + r as u64 / (rdiv + 1)) as f32 * frequency[[0, pair]];
        let (sin, cos) = (libm::sinf(angle), libm::cosf(angle));
        let (a, b) = (x[[r, head + p]], x[[r, head + q]]);
        if last { a * sin + b * cos } else { a * cos - b * sin }
    });
    b.expect_d(&d);
    let vec = VecOp { imm: 2 * half as u64, ..b.vec() };
    Command::vec(function, vec, Some(Position { q0, rdiv, ..Position::default() }))
}
