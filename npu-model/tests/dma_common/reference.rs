//! What a DMA command leaves, byte by byte and row by row as `isa::npu::dma` words it; shares nothing with the model.

use half::f16;
use isa::npu::{Body, Command, Dma, Extension, Index};

use super::World;

/// Bytes of a row in memory.
fn far_row(d: &Dma, x: &Index, row: usize) -> usize {
    let pad = |n: usize| n.div_ceil(16) * 16;
    match d.codec {
        0 => row,
        7 | 8 => {
            let elements = row / 2;
            let codes = if x.qf == 2 { elements } else { elements / 2 };
            pad(codes + if x.qs == 0 { 2 * groups(x, elements) } else { 0 })
        }
        c => panic!("codec {c} has no reference"),
    }
}

fn group(x: &Index, elements: usize) -> usize {
    match x.qgrp {
        1 => elements,
        g => [16, 32, 64, 128, 256][g as usize - 2],
    }
}

fn groups(x: &Index, elements: usize) -> usize {
    elements.div_ceil(group(x, elements))
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().enumerate().map(|(i, b)| u64::from(*b) << (8 * i)).sum()
}

/// The list's entries, as many as rows.
fn list(d: &Dma, x: &Index, spm: &[u8]) -> Vec<usize> {
    let at = x.idx as usize * 32;
    let rows = d.n1 as usize + 1;
    if x.ifm == 3 {
        let set = |i: &usize| spm[at + i / 8] & 1 << (i % 8) != 0;
        return (0..=x.icnt as usize).filter(set).take(rows).collect();
    }
    let size = [2, 4, 8][x.ifm as usize];
    (0..rows).map(|i| number(&spm[at + size * i..][..size]) as usize).collect()
}

fn f16_at(bytes: &[u8], i: usize) -> f32 {
    f16::from_le_bytes([bytes[2 * i], bytes[2 * i + 1]]).to_f32()
}

fn quantised(x: &Index, row: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let elements = row.len() / 2;
    let limit = if x.qf == 2 { 127.0f32 } else { 7.0 };
    let clean = |i: usize| match f16_at(row, i) {
        v if v.is_nan() => 0.0,
        v => v.clamp(-65504.0, 65504.0),
    };
    let (mut codes, mut scales) = (Vec::new(), Vec::new());
    for i in 0..elements {
        let g = group(x, elements);
        let of_group = i / g * g..(i / g * g + g).min(elements);
        let largest = of_group.map(|k| clean(k).abs()).max_by(f32::total_cmp).expect("not empty");
        let scale = f16::from_f32(largest / limit);
        if i % g == 0 {
            scales.extend(scale.to_le_bytes());
        }
        let ratio = if scale.to_f32() == 0.0 { 0.0 } else { clean(i) / scale.to_f32() };
        codes.push(ratio.round_ties_even().max(-limit).min(limit) as i8 as u8);
    }
    if x.qf == 0 {
        codes = codes.chunks(2).map(|c| c[0] % 16 + c[1] % 16 * 16).collect();
    }
    (codes, scales)
}

fn dequantised(x: &Index, elements: usize, codes: &[u8], scales: &[u8]) -> Vec<u8> {
    let code = |i: usize| {
        if x.qf == 2 {
            return i32::from(codes[i] as i8);
        }
        let nibble = i32::from(codes[i / 2] >> (4 * (i % 2)) & 15);
        if nibble > 7 { nibble - 16 } else { nibble }
    };
    let g = group(x, elements);
    (0..elements)
        .flat_map(|i| {
            let v = code(i) as f32 * f16_at(scales, i / g);
            // Stored NaNs are canonical.
            (if v.is_nan() { f16::from_bits(0x7E00) } else { f16::from_f32(v) }).to_le_bytes()
        })
        .collect()
}

/// The state after `text`, one DMA command, executed by `core`.
pub fn after(before: &World, core: usize, text: &str) -> World {
    let words = isa::npu::text::assemble(text).expect("assembles");
    let command = Command::decode(&words).expect("decodes");
    let Body::Dma(d) = command.body else { panic!("not a DMA") };
    let x = match command.extension {
        Some(Extension::Index(x)) => x,
        _ => Index::default(),
    };
    let mut w = before.clone();
    let (row, rows, planes) = ((d.n0 as usize + 1) * 16, d.n1 as usize + 1, d.n2 as usize + 1);
    let far = far_row(&d, &x, row);
    let or = |stride: usize, packed: usize| if stride == 0 { packed } else { stride };
    let far_pitch = or(d.mst1 as usize * 16, far);
    let far_plane = or(d.mst2 as usize * 16, far_pitch * rows);
    let own_pitch = or(d.sst1 as usize * 32, row);
    let own_plane = or(d.sst2 as usize * 32, own_pitch * rows);
    let numbers = if matches!(d.gs, 1 | 2) { list(&d, &x, &before.spm[core]) } else { (0..rows).collect() };
    let far_listed = (d.gs == 1) == (d.dir == 0);
    let targets: Vec<usize> = match (d.dir, d.cmask) {
        (2, 0) if command.extension.is_some() => vec![x.rcore as usize],
        (0 | 2, mask) if mask != 0 => (0..8).filter(|c| mask >> c & 1 == 1).collect(),
        _ => vec![core],
    };
    let mut moved = 0;
    for p in 0..planes {
        for (r, n) in numbers.iter().enumerate() {
            let (far_r, own_r) = match d.gs {
                1 | 2 if far_listed => (*n, r),
                1 | 2 => (r, *n),
                _ => (r, r),
            };
            let own_at = d.saddr as usize * 32 + p * own_plane + own_r * own_pitch;
            let logical = p * far_plane + far_r * far_pitch;
            let copy_to =
                if command.extension.is_some() && d.cmask == 0 { x.raddr } else { d.moff } as usize * 32;
            // Index in memory of a byte of the far row.
            let physical = |i: usize| {
                let at = d.moff as usize + logical + i;
                if d.gs != 3 {
                    return at;
                }
                let size = 1 << x.plog;
                let entry = x.ptab as usize + at / size * 4;
                number(&before.memory.bytes[entry..][..4]) as usize * size + at % size
            };
            let elements = row / 2;
            let table = x.qs as usize * 32 + moved * 2 * if d.codec >= 7 { groups(&x, elements) } else { 0 };
            match d.dir {
                0 => {
                    let bytes: Vec<u8> = (0..far).map(|i| before.memory.bytes[physical(i)]).collect();
                    let plain = match d.codec {
                        8 => {
                            let codes = if x.qf == 2 { elements } else { elements / 2 };
                            let scales = if x.qs == 0 { &bytes[codes..] } else { &before.spm[core][table..] };
                            dequantised(&x, elements, &bytes, scales)
                        }
                        _ => bytes,
                    };
                    for t in &targets {
                        w.spm[*t][own_at..own_at + row].copy_from_slice(&plain);
                    }
                }
                1 => {
                    let plain = &before.spm[core][own_at..own_at + row];
                    let mut bytes = plain.to_vec();
                    if d.codec == 7 {
                        let (codes, scales) = quantised(&x, plain);
                        bytes = codes;
                        if x.qs == 0 {
                            bytes.extend(scales);
                        } else {
                            w.spm[core][table..table + scales.len()].copy_from_slice(&scales);
                        }
                        bytes.resize(far, 0);
                    }
                    for (i, b) in bytes.iter().enumerate() {
                        w.memory.bytes[physical(i)] = *b;
                    }
                }
                2 => {
                    for t in &targets {
                        let from = before.spm[core][own_at..own_at + row].to_vec();
                        w.spm[*t][copy_to + logical..][..row].copy_from_slice(&from);
                    }
                }
                _ => {
                    for i in 0..row {
                        w.spm[core][own_at + i] = (d.moff >> (i % 4 * 8)) as u8;
                    }
                }
            }
            moved += 1;
        }
    }
    w
}
