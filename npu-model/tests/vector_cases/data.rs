//! Reductions, tables, scales, moved elements, routing.

use isa::npu::{Command, Format, Position, VecFn, VecOp};
use ndarray::{Array2, Axis};

use super::rows::sum;
use super::selection::few;
use super::{Bench, Build, D, FLOATS, X, Y, as_fp16};
use crate::ops_common::round;

pub(super) const CASES: &[(VecFn, Build)] = &[
    (VecFn::Rsum, |b| reduce(b, VecFn::Rsum, 0.0, |s, v| s + v)),
    (VecFn::Rmax, |b| reduce(b, VecFn::Rmax, f32::NEG_INFINITY, f32::max)),
    (VecFn::Rabsmax, |b| reduce(b, VecFn::Rabsmax, 0.0, |a, v| a.max(v.abs()))),
    (VecFn::Rsumsq, |b| reduce(b, VecFn::Rsumsq, 0.0, |s, v| s + v * v)),
    (VecFn::Cumsum, cumsum),
    (VecFn::Lut, lut_of_floats),
    (VecFn::Lut, lut_of_codes),
    (VecFn::Deq, deq),
    (VecFn::Deq, deq_micro),
    (VecFn::Mxq, mxq),
    (VecFn::Transpose, transpose),
    (VecFn::Permute, permute),
    (VecFn::Pad, pad),
    (VecFn::Route, route),
    (VecFn::Segsum, segsum),
];

fn reduce(b: &mut Bench, function: VecFn, start: f32, f: fn(f32, f32) -> f32) -> Command {
    let x = b.x();
    let upd = b.random.below(2);
    let old = b.random.matrix(b.rows, 1, b.df);
    b.put(D, &old, b.df);
    let first = |r: usize| if upd == 1 { old[[r, 0]] } else { start };
    b.expect_d(&Array2::from_shape_fn((b.rows, 1), |(r, _)| x.row(r).iter().fold(first(r), |s, v| f(s, *v))));
    Command::vec(function, VecOp { upd, ..b.vec() }, None)
}

fn cumsum(b: &mut Bench) -> Command {
    let mut x = b.x();
    x.accumulate_axis_inplace(Axis(1), |before, v| *v += before);
    b.expect_d(&x);
    Command::vec(VecFn::Cumsum, b.vec(), None)
}

/// A table of random fp16 values under an id.
fn table(b: &mut Bench) -> (u64, Vec<f32>) {
    let id = b.random.below(16);
    let values: Vec<f32> = (0..256).map(|_| as_fp16(b.random.float(4.0))).collect();
    let bytes: Vec<u8> = values.iter().flat_map(|v| half::f16::from_f32(*v).to_le_bytes()).collect();
    b.local.set_lut(id, bytes.as_slice().try_into().expect("512 bytes"));
    (id, values)
}

fn lut_of_floats(b: &mut Bench) -> Command {
    let (imm, values) = table(b);
    let mut x = b.x();
    x[[0, 0]] = f32::NAN;
    b.put(X, &x, b.xf);
    let (low, scale) = (-1.5f32, 90.0f32);
    b.put_words(Y, &[low.to_bits(), scale.to_bits()]);
    b.expect_d(&x.mapv(|x| {
        let t = (x - low) * scale;
        let t = if t.is_nan() { 0.0 } else { t.clamp(0.0, 255.0) };
        let i = (t as usize).min(254);
        values[i] + (t - i as f32) * (values[i + 1] - values[i])
    }));
    Command::vec(VecFn::Lut, VecOp { imm, ..b.vec() }, None)
}

fn lut_of_codes(b: &mut Bench) -> Command {
    let (imm, values) = table(b);
    b.xf = Format::Int8;
    let x = b.x();
    b.expect_d(&x.mapv(|code| values[(code + 128.0) as usize]));
    Command::vec(VecFn::Lut, VecOp { imm, ..b.vec() }, None)
}

fn deq(b: &mut Bench) -> Command {
    b.xf = [Format::Int4, Format::Int8, Format::Int32][b.random.below(3) as usize];
    let (x, yf, bc) = (b.x(), FLOATS[b.random.below(3) as usize], b.random.below(4));
    let group = 1 + b.random.below(40) as usize;
    let (rows, cols) = match bc {
        0 => (b.rows, b.cols.div_ceil(group)),
        1 => (1, b.cols),
        _ => (b.rows, 1),
    };
    let y = b.random.matrix(rows, cols, yf);
    b.put(Y, &y, yf);
    let scale = 0.037f32;
    b.expect_d(&Array2::from_shape_fn(x.dim(), |(r, c)| {
        let s = match bc {
            0 => y[[r, c / group]],
            1 => y[[0, c]],
            2 => y[[r, 0]],
            _ => scale,
        };
        x[[r, c]] * s
    }));
    let imm = if bc == 0 { group as u64 } else { u64::from(scale.to_bits()) };
    Command::vec(VecFn::Deq, VecOp { bc, imm, yf: yf.code(), ..b.vec() }, None)
}

/// Every value of an element format by code, sign bit left out.
fn elements(format: Format) -> Vec<f64> {
    if format == Format::Mxfp4 {
        return vec![0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];
    }
    (0..=0x7Eu32)
        .map(|code| match (code >> 3, f64::from(code & 7) / 8.0) {
            (0, f) => f * 2f64.powi(-6),
            (e, f) => (1.0 + f) * 2f64.powi(e as i32 - 7),
        })
        .collect()
}

/// Signed codes packed as the format says.
fn packed(format: Format, codes: &[u8]) -> Vec<u8> {
    if format == Format::Mxfp8 {
        return codes.to_vec();
    }
    codes.chunks(2).map(|pair| pair[0] | pair.get(1).map_or(0, |c| c << 4)).collect()
}

fn micro(b: &mut Bench) -> (Format, u8) {
    if b.random.below(2) == 0 { (Format::Mxfp4, 8) } else { (Format::Mxfp8, 0x80) }
}

fn deq_micro(b: &mut Bench) -> Command {
    let (format, sign) = micro(b);
    let values = elements(format);
    let blocks = b.cols.div_ceil(32);
    let mut d = Array2::zeros((b.rows, b.cols));
    for r in 0..b.rows {
        let scales: Vec<u8> = (0..blocks).map(|_| 120 + b.random.below(14) as u8).collect();
        let codes: Vec<u8> = (0..b.cols)
            .map(|_| b.random.below(values.len() as u64) as u8 | (b.random.below(2) as u8 * sign))
            .collect();
        for (c, code) in codes.iter().enumerate() {
            let v = values[usize::from(code & (sign - 1))] * 2f64.powi(i32::from(scales[c / 32]) - 127);
            d[[r, c]] = if code & sign == 0 { v as f32 } else { -(v as f32) };
        }
        let bytes = packed(format, &codes);
        b.local.spm[X + r * bytes.len()..][..bytes.len()].copy_from_slice(&bytes);
        b.local.spm[Y + r * blocks..][..blocks].copy_from_slice(&scales);
    }
    b.expect_d(&d);
    Command::vec(VecFn::Deq, VecOp { xf: format.code(), imm: 32, ..b.vec() }, None)
}

fn mxq(b: &mut Bench) -> Command {
    let (format, sign) = micro(b);
    let values = elements(format);
    // Blocks of very different size, one of zeros, one with a NaN.
    let mut x = Array2::from_shape_fn((b.rows, b.cols), |(r, c)| {
        let size = 2f32.powi(3 * (r as i32) - 5 * (c as i32 / 32));
        round(b.random.float(size), b.xf)
    });
    if b.random.below(3) == 0 {
        x.row_mut(0).fill(0.0);
    } else if b.random.below(3) == 0 {
        x[[b.rows - 1, b.cols - 1]] = f32::NAN;
    }
    b.put(X, &x, b.xf);
    let emax = if format == Format::Mxfp4 { 2 } else { 8 };
    for r in 0..b.rows {
        let (mut codes, mut scales) = (Vec::new(), Vec::new());
        for block in x.row(r).to_vec().chunks(32) {
            let a = block.iter().fold(0.0f64, |a, v| a.max(f64::from(v.abs())));
            if block.iter().any(|v| v.is_nan()) {
                scales.push(255);
                codes.extend(vec![0; block.len()]);
                continue;
            }
            let e = if a == 0.0 { -127 } else { (a.log2().floor() as i32 - emax).max(-127) };
            scales.push((e + 127) as u8);
            for v in block {
                let m = f64::from(v.abs()) / 2f64.powi(e);
                // The nearest of all values; of two equally near ones the one with the even code.
                let near = |c: &usize| ((values[*c] - m).abs() * 1.0e6) as u64 * 2 + (*c as u64 & 1);
                let code = (0..values.len()).min_by_key(near).expect("some") as u8;
                codes.push(if v.is_sign_negative() && code != 0 { code | sign } else { code });
            }
        }
        let signed = |bytes: &[u8]| {
            Array2::from_shape_fn((1, bytes.len()), |(_, i)| f32::from(bytes[i].cast_signed()))
        };
        let bytes = packed(format, &codes);
        b.expect("codes", D + r * bytes.len(), &signed(&bytes), Format::Int8);
        b.expect("scales", Y + r * scales.len(), &signed(&scales), Format::Int8);
    }
    Command::vec(VecFn::Mxq, VecOp { dfm: format.code(), ..b.vec() }, None)
}

/// A random matrix of a format whose elements only move.
fn moved(b: &mut Bench) -> Array2<f32> {
    b.xf =
        [Format::Int8, Format::Int32, Format::Fp16, Format::Bf16, Format::Fp32][b.random.below(5) as usize];
    b.df = b.xf;
    b.x()
}

fn transpose(b: &mut Bench) -> Command {
    let x = moved(b);
    b.expect_d(&x.t().as_standard_layout().to_owned());
    Command::vec(VecFn::Transpose, b.vec(), None)
}

fn permute(b: &mut Bench) -> Command {
    let planes = 1 + b.random.below(3) as usize;
    let inner = b.rows;
    b.rows *= planes;
    let x = moved(b);
    let cube = x.to_shape((planes, inner, b.cols)).expect("whole planes").permuted_axes([1, 0, 2]);
    let d = cube.as_standard_layout().to_shape((b.rows, b.cols)).expect("the same size").to_owned();
    b.expect_d(&d);
    Command::vec(VecFn::Permute, VecOp { imm: planes as u64, ..b.vec() }, None)
}

fn pad(b: &mut Bench) -> Command {
    let x = moved(b);
    let (before, after) = (b.random.below(9) as usize, b.random.below(9) as usize);
    let mut d = Array2::zeros((b.rows, b.cols + before + after));
    d.slice_mut(ndarray::s![.., before..before + b.cols]).assign(&x);
    b.expect_d(&d);
    Command::vec(VecFn::Pad, VecOp { imm: (after << 16 | before) as u64, ..b.vec() }, None)
}

fn route(b: &mut Bench) -> Command {
    let x = few(b);
    let k = 1 + b.random.below(b.cols.min(8) as u64) as usize;
    let only = b.random.below(2);
    let q0 = b.random.below(500);
    let mut lists: Vec<Vec<u32>> = vec![Vec::new(); b.cols];
    for (r, row) in x.rows().into_iter().enumerate() {
        let mut order: Vec<usize> = (0..b.cols).collect();
        order.sort_by(|i, j| row[*j].total_cmp(&row[*i]));
        order.truncate(k);
        let e = |c: &usize| libm::expf(row[*c] - row[order[0]]);
        let over: Vec<usize> = if only == 1 { order.clone() } else { (0..b.cols).collect() };
        let l = sum(&over.iter().map(e).collect::<Vec<f32>>());
        let words: Vec<u32> = order.iter().flat_map(|c| [*c as u32, (e(c) * (1.0 / l)).to_bits()]).collect();
        b.expect_words("experts", D + 8 * k * r, &words);
        for c in order {
            lists[c].push(q0 as u32 + r as u32);
        }
    }
    let counts: Vec<u32> = lists.iter().map(|l| l.len() as u32).collect();
    b.expect_words("counts", Y, &counts);
    let first = Y + (4 * b.cols).next_multiple_of(32);
    for (i, list) in lists.iter().enumerate().filter(|(_, l)| !l.is_empty()) {
        b.expect_words("tokens", first + 4 * b.rows * i, list);
    }
    let vec = VecOp { imm: only << 8 | k as u64, yf: Format::Int32.code(), ..b.vec() };
    Command::vec(VecFn::Route, vec, Some(Position { q0, ..Position::default() }))
}

fn segsum(b: &mut Bench) -> Command {
    let x = b.x();
    let (segments, upd) = (1 + b.random.below(5) as usize, b.random.below(2));
    let ids: Vec<i64> = (0..b.rows).map(|_| b.random.below(7) as i64 - 1).collect();
    b.put_words(Y, &ids.iter().map(|i| *i as i32 as u32).collect::<Vec<u32>>());
    let mut d = b.random.matrix(segments, b.cols, Format::Fp32);
    b.put(D, &d, Format::Fp32);
    if upd == 0 {
        d.fill(0.0);
    }
    for (r, id) in ids.iter().enumerate() {
        if (0..segments as i64).contains(id) {
            let mut row = d.row_mut(*id as usize);
            row += &x.row(r);
        }
    }
    b.df = Format::Fp32;
    b.expect_d(&d);
    let vec = VecOp { imm: segments as u64, upd, yf: Format::Int32.code(), ..b.vec() };
    Command::vec(VecFn::Segsum, vec, None)
}
