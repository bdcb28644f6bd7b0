//! What a DMA command leaves, byte by byte and row by row as `isa::npu::dma` words it; shares nothing with the model.

use half::{bf16, f16};
use isa::npu::{Body, Command, Dma, Extension, Index};

use super::World;

/// The command's parts, with the strides filled in.
struct Job {
    d: Dma,
    x: Index,
    core: usize,
    extended: bool,
    row: usize,
    rows: usize,
    planes: usize,
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().enumerate().map(|(i, b)| u64::from(*b) << (8 * i)).sum()
}

fn or(stride: usize, packed: usize) -> usize {
    if stride == 0 { packed } else { stride }
}

fn f16_at(bytes: &[u8], i: usize) -> f32 {
    f16::from_le_bytes([bytes[2 * i], bytes[2 * i + 1]]).to_f32()
}

fn nibble(bytes: &[u8], i: usize) -> u8 {
    bytes[i / 2] >> (4 * (i % 2)) & 15
}

impl Job {
    fn new(core: usize, text: &str) -> Self {
        let words = isa::npu::text::assemble(text).expect("assembles");
        let command = Command::decode(&words).expect("decodes");
        let Body::Dma(d) = command.body else { panic!("not a DMA") };
        let (x, extended) = match command.extension {
            Some(Extension::Index(x)) => (x, true),
            _ => (Index::default(), false),
        };
        let (row, rows, planes) = ((d.n0 as usize + 1) * 16, d.n1 as usize + 1, d.n2 as usize + 1);
        Self { d, x, core, extended, row, rows, planes }
    }

    fn group(&self) -> usize {
        match self.x.qgrp {
            1 => self.row / 2,
            g => [16, 32, 64, 128, 256][g as usize - 2],
        }
    }

    fn groups(&self) -> usize {
        (self.row / 2).div_ceil(self.group())
    }

    /// Bytes of an element: of a palette's entry or of a sparse row.
    fn width(&self) -> usize {
        // int8, uint8, fp8 and mxfp8 are single bytes.
        if matches!(self.x.ef, 2 | 3 | 9 | 10 | 12) { 1 } else { 2 }
    }

    /// Bits of a palette's index.
    fn index_bits(&self) -> usize {
        match self.x.qf {
            14 => 2,
            1 => 4,
            _ => 8,
        }
    }

    /// Bytes of a microscaling block without its scale.
    fn block(&self) -> usize {
        if self.x.qf == 11 { 16 } else { 32 }
    }

    /// Bytes of a row in memory.
    fn far_row(&self) -> usize {
        let elements = self.row / 2;
        let n = match self.d.codec {
            0 => self.row,
            1 | 2 => (self.x.clen as usize + 1) * 16,
            3 => (self.row / self.width() * self.index_bits()).div_ceil(8),
            4 => self.row / 2 + (self.row / self.width() / 4).div_ceil(2),
            5 => self.row / 2,
            6 => self.row / self.block() * (self.block() + 1),
            7 | 8 => {
                let codes = if self.x.qf == 2 { elements } else { elements / 2 };
                codes + if self.x.qs == 0 { 2 * self.groups() } else { 0 }
            }
            c => panic!("codec {c} has no reference"),
        };
        n.div_ceil(16) * 16
    }

    /// Bytes a row has in the codec's table.
    fn table_row(&self) -> usize {
        match self.d.codec {
            6 => self.row / self.block(),
            7 | 8 if self.x.qs != 0 => 2 * self.groups(),
            _ => 0,
        }
    }

    /// The list's entries, as many as rows.
    fn list(&self, spm: &[u8]) -> Vec<usize> {
        if !matches!(self.d.gs, 1 | 2) {
            return (0..self.rows).collect();
        }
        let at = self.x.idx as usize * 32;
        if self.x.ifm == 3 {
            let set = |i: &usize| spm[at + i / 8] & 1 << (i % 8) != 0;
            return (0..=self.x.icnt as usize).filter(set).take(self.rows).collect();
        }
        let size = [2, 4, 8][self.x.ifm as usize];
        (0..self.rows).map(|i| number(&spm[at + size * i..][..size]) as usize).collect()
    }

    /// Row numbers (far, own) of the moved rows.
    fn numbers(&self, spm: &[u8]) -> Vec<(usize, usize)> {
        let far_listed = (self.d.gs == 1) == (self.d.dir == 0);
        let pair = |(r, n): (usize, &usize)| match self.d.gs {
            1 | 2 if far_listed => (*n, r),
            1 | 2 => (r, *n),
            _ => (r, r),
        };
        self.list(spm).iter().enumerate().map(pair).collect()
    }

    fn own_pitch(&self) -> usize {
        let packed = [self.row, self.row, self.rows, 2 * self.rows][self.d.tform as usize];
        or(self.d.sst1 as usize * 32, packed)
    }

    fn own_plane(&self) -> usize {
        let rows = [self.rows, self.rows.div_ceil(32) * 32, self.row, self.row / 2][self.d.tform as usize];
        or(self.d.sst2 as usize * 32, self.own_pitch() * rows)
    }

    /// Where byte `i` of a plain row lies in the own scratchpad.
    fn own(&self, plane: usize, r: usize, i: usize) -> usize {
        let base = self.d.saddr as usize * 32 + plane * self.own_plane();
        base + match self.d.tform {
            0 => r * self.own_pitch() + i,
            1 => {
                // Tiles left to right, then down; a tile is 32 rows of 32 bytes.
                let tile = r / 32 * (self.row / 32) + i / 32;
                tile * 1024 + (r % 32) * 32 + i % 32
            }
            2 => i * self.own_pitch() + r,
            _ => i / 2 * self.own_pitch() + 2 * r + i % 2,
        }
    }

    /// Where byte `i` of a far row lies: index in memory, or address in a destination scratchpad.
    fn far(&self, before: &World, plane: usize, r: usize, i: usize) -> usize {
        let pitch = or(self.d.mst1 as usize * 16, self.far_row());
        let logical = plane * or(self.d.mst2 as usize * 16, pitch * self.rows) + r * pitch + i;
        if self.d.dir == 2 {
            let granule = if self.extended && self.d.cmask == 0 { self.x.raddr } else { self.d.moff };
            return granule as usize * 32 + logical;
        }
        let at = self.d.moff as usize + logical;
        if self.d.gs != 3 {
            return at;
        }
        let size = 1 << self.x.plog;
        let entry = self.x.ptab as usize + at / size * 4;
        number(&before.memory.bytes[entry..][..4]) as usize * size + at % size
    }

    /// A far row decoded; `table` is the row's part of the codec's table, or the whole palette.
    fn decoded(&self, far: &[u8], table: &[u8]) -> Vec<u8> {
        let width = self.width();
        match self.d.codec {
            3 => (0..self.row / width)
                .flat_map(|i| {
                    let bit = i * self.index_bits();
                    let index = usize::from(far[bit / 8]) >> (bit % 8) & ((1 << self.index_bits()) - 1);
                    table[index * width..(index + 1) * width].to_vec()
                })
                .collect(),
            4 => {
                let places = &far[self.row / 2..];
                let mut out = vec![0; self.row];
                for g in 0..self.row / width / 4 {
                    let n = usize::from(nibble(places, g));
                    for (k, place) in [n & 3, n >> 2].into_iter().enumerate() {
                        for b in 0..width {
                            out[(4 * g + place) * width + b] = far[(2 * g + k) * width + b];
                        }
                    }
                }
                out
            }
            5 => (0..self.row)
                .map(|i| match nibble(far, i) {
                    n if self.x.qf == 0 && n > 7 => n | 0xF0,
                    n => n,
                })
                .collect(),
            6 => far[..self.row / self.block() * (self.block() + 1)]
                .chunks(self.block() + 1)
                .flat_map(|b| b[1..].to_vec())
                .collect(),
            8 => {
                let codes = if self.x.qf == 2 { self.row / 2 } else { self.row / 4 };
                self.dequantised(far, if self.x.qs == 0 { &far[codes..] } else { table })
            }
            _ => far.to_vec(),
        }
    }

    fn dequantised(&self, codes: &[u8], scales: &[u8]) -> Vec<u8> {
        let code = |i: usize| match self.x.qf {
            2 => i32::from(codes[i] as i8),
            _ if nibble(codes, i) > 7 => i32::from(nibble(codes, i)) - 16,
            _ => i32::from(nibble(codes, i)),
        };
        (0..self.row / 2)
            .flat_map(|i| {
                let v = code(i) as f32 * f16_at(scales, i / self.group());
                // Stored NaNs are canonical.
                (if v.is_nan() { f16::from_bits(0x7E00) } else { f16::from_f32(v) }).to_le_bytes()
            })
            .collect()
    }

    /// Codes and scales of a plain row.
    fn quantised(&self, row: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let (elements, g) = (row.len() / 2, self.group());
        let limit = if self.x.qf == 2 { 127.0f32 } else { 7.0 };
        let clean = |i: usize| match f16_at(row, i) {
            v if v.is_nan() => 0.0,
            v => v.clamp(-65504.0, 65504.0),
        };
        let (mut codes, mut scales) = (Vec::new(), Vec::new());
        for i in 0..elements {
            let of_group = i / g * g..(i / g * g + g).min(elements);
            let largest = of_group.map(|k| clean(k).abs()).max_by(f32::total_cmp).expect("not empty");
            let scale = f16::from_f32(largest / limit);
            if i % g == 0 {
                scales.extend(scale.to_le_bytes());
            }
            let ratio = if scale.to_f32() == 0.0 { 0.0 } else { clean(i) / scale.to_f32() };
            codes.push(ratio.round_ties_even().max(-limit).min(limit) as i8 as u8);
        }
        if self.x.qf == 0 {
            codes = codes.chunks(2).map(|c| c[0] % 16 + c[1] % 16 * 16).collect();
        }
        (codes, scales)
    }

    /// A plain row as it lies in memory, and what goes to the codec's table.
    fn encoded(&self, row: &[u8], table: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let (mut far, scales) = match self.d.codec {
            5 => {
                let code = |b: &u8| match self.x.qf {
                    0 => i32::from(*b as i8).clamp(-8, 7) & 15,
                    _ => i32::from(*b).min(15),
                };
                (row.chunks(2).map(|c| (code(&c[0]) + 16 * code(&c[1])) as u8).collect(), Vec::new())
            }
            6 => {
                let blocks = row.chunks(self.block()).zip(table);
                (blocks.flat_map(|(b, s)| [&[*s], b].concat()).collect(), Vec::new())
            }
            7 => {
                let (codes, scales) = self.quantised(row);
                if self.x.qs == 0 { ([codes, scales].concat(), Vec::new()) } else { (codes, scales) }
            }
            _ => (row.to_vec(), Vec::new()),
        };
        far.resize(self.far_row(), 0);
        (far, scales)
    }

    /// What lands at a destination that holds `old`.
    fn reduced(&self, old: &[u8], new: &[u8]) -> Vec<u8> {
        if self.d.red == 0 {
            return new.to_vec();
        }
        let float = |b: &[u8]| f32::from_bits(number(b) as u32);
        let store = |v: f32| (if v.is_nan() { 0x7FC0_0000 } else { v.to_bits() }).to_le_bytes().to_vec();
        if self.x.rop == 1 {
            let value = |b: &[u8]| bf16::from_bits(number(b) as u16).to_f32();
            let sum = |(a, b): (&[u8], &[u8])| match value(a) + value(b) {
                v if v.is_nan() => 0x7FC0u16.to_le_bytes(),
                v => bf16::from_f32(v).to_le_bytes(),
            };
            return old.chunks(2).zip(new.chunks(2)).flat_map(sum).collect();
        }
        let both = |(a, b): (&[u8], &[u8])| match self.x.rop {
            0 => store(float(a) + float(b)),
            2 => ((number(a) + number(b)) as u32).to_le_bytes().to_vec(),
            _ if float(a).is_nan() => store(float(b)),
            _ if float(b).is_nan() || float(b) <= float(a) => store(float(a)),
            _ => store(float(b)),
        };
        old.chunks(4).zip(new.chunks(4)).flat_map(both).collect()
    }

    fn targets(&self) -> Vec<usize> {
        match (self.d.dir, self.d.cmask) {
            (2, 0) if self.extended => vec![self.x.rcore as usize],
            (0 | 2, mask) if mask != 0 => (0..8).filter(|c| mask >> c & 1 == 1).collect(),
            _ => vec![self.core],
        }
    }

    /// Bytes from the start of a destination row to where padding ends, where rows are as they are.
    fn reach(&self) -> usize {
        let pitch = if self.d.dir == 2 { or(self.d.mst1 as usize * 16, self.row) } else { self.own_pitch() };
        pitch.max(self.row)
    }

    /// Zeros where no row landed: rows a bitmap left out, the ends of arranged rows, the rest of a tile.
    fn pad(&self, before: &World, spm: &mut [u8], moved: usize) {
        for p in 0..self.planes {
            match self.d.tform {
                0 => {
                    for r in moved..self.rows {
                        let dense = self.d.dir == 2;
                        let at = if dense { self.far(before, p, r, 0) } else { self.own(p, r, 0) };
                        spm[at..at + self.reach()].fill(0);
                    }
                }
                1 => {
                    for r in self.rows..self.rows.div_ceil(32) * 32 {
                        (0..self.row).for_each(|i| spm[self.own(p, r, i)] = 0);
                    }
                }
                t => {
                    let (row, rows) =
                        if t == 2 { (self.rows, self.row) } else { (2 * self.rows, self.row / 2) };
                    for r in 0..rows {
                        let at = self.d.saddr as usize * 32 + p * self.own_plane() + r * self.own_pitch();
                        spm[at + row..at + self.own_pitch()].fill(0);
                    }
                }
            }
        }
    }
}

/// Decodes the stream of codec 1.
fn runs_of_zeros(stream: &[u8], n: usize) -> Vec<u8> {
    let (mut out, mut left) = (Vec::new(), stream.iter());
    while out.len() < n {
        let c = *left.next().expect("long enough");
        if c < 128 {
            out.extend(left.by_ref().take(usize::from(c) + 1));
        } else {
            out.extend(vec![0; usize::from(c) - 127]);
        }
    }
    out
}

/// Decodes the stream of codec 2: sixteen states, 12-bit frequencies, refilled by bytes below 2^23.
fn numeral_system(stream: &[u8], n: usize) -> Vec<u8> {
    let frequency = |s: usize| number(&stream[2 * s..2 * s + 2]);
    let mut states: Vec<u64> = (0..16).map(|i| number(&stream[512 + 4 * i..516 + 4 * i])).collect();
    let mut refill = stream[576..].iter();
    (0..n)
        .map(|i| {
            let (high, low) = (states[i % 16] / 4096, states[i % 16] % 4096);
            let (mut symbol, mut start) = (0, 0);
            while start + frequency(symbol) <= low {
                start += frequency(symbol);
                symbol += 1;
            }
            states[i % 16] = high * frequency(symbol) + low - start;
            while states[i % 16] < 1 << 23 {
                states[i % 16] = states[i % 16] * 256 + u64::from(*refill.next().expect("long enough"));
            }
            symbol as u8
        })
        .collect()
}

/// The state after `text`, one DMA command, executed by `core`.
pub fn after(before: &World, core: usize, text: &str) -> World {
    let j = Job::new(core, text);
    let mut w = before.clone();
    let numbers = j.numbers(&before.spm[core]);
    let far_bytes = |w: &World, p: usize, r: usize| -> Vec<u8> {
        (0..j.far_row()).map(|i| w.memory.bytes[j.far(before, p, r, i)]).collect()
    };
    let mut stream = Vec::new();
    if matches!(j.d.codec, 1 | 2) {
        let (bytes, n) = (far_bytes(before, 0, 0), j.row * j.rows * j.planes);
        stream = if j.d.codec == 1 { runs_of_zeros(&bytes, n) } else { numeral_system(&bytes, n) };
    }
    let mut moved = 0;
    for p in 0..j.planes {
        for (far_r, own_r) in &numbers {
            let table_at = j.x.qs as usize * 32 + moved * j.table_row();
            let table = before.spm[core][table_at..].to_vec();
            let own_row: Vec<u8> = if j.d.dir == 3 {
                (0..j.row).map(|i| (j.d.moff >> (i % 4 * 8)) as u8).collect()
            } else {
                (0..j.row).map(|i| before.spm[core][j.own(p, *own_r, i)]).collect()
            };
            match j.d.dir {
                0 => {
                    let plain = if stream.is_empty() {
                        j.decoded(&far_bytes(before, p, *far_r), &table)
                    } else {
                        stream[moved * j.row..(moved + 1) * j.row].to_vec()
                    };
                    for t in j.targets() {
                        let old: Vec<u8> = (0..j.row).map(|i| w.spm[t][j.own(p, *own_r, i)]).collect();
                        for (i, b) in j.reduced(&old, &plain).into_iter().enumerate() {
                            w.spm[t][j.own(p, *own_r, i)] = b;
                        }
                        if j.d.zp == 1 && j.d.tform == 0 {
                            let at = j.own(p, *own_r, 0);
                            w.spm[t][at + j.row..at + j.reach()].fill(0);
                        }
                        if j.d.codec == 6 {
                            let far = far_bytes(before, p, *far_r);
                            for i in 0..j.table_row() {
                                w.spm[t][table_at + i] = far[i * (j.block() + 1)];
                            }
                        }
                    }
                }
                1 => {
                    let (far, scales) = j.encoded(&own_row, &table);
                    let old = far_bytes(&w, p, *far_r);
                    for (i, b) in j.reduced(&old, &far).into_iter().enumerate() {
                        w.memory.bytes[j.far(before, p, *far_r, i)] = b;
                    }
                    w.spm[core][table_at..table_at + scales.len()].copy_from_slice(&scales);
                }
                2 => {
                    for t in j.targets() {
                        let at = j.far(before, p, *far_r, 0);
                        let new = j.reduced(&w.spm[t][at..at + j.row], &own_row);
                        w.spm[t][at..at + j.row].copy_from_slice(&new);
                        if j.d.zp == 1 {
                            w.spm[t][at + j.row..at + j.reach()].fill(0);
                        }
                    }
                }
                _ => (0..j.row).for_each(|i| w.spm[core][j.own(p, *own_r, i)] = own_row[i]),
            }
            moved += 1;
        }
    }
    // A list of the written side says nothing of rows that are missing; a copy's destination is never arranged.
    if j.d.zp == 1 && j.d.gs != 2 {
        for t in j.targets() {
            if j.d.dir == 0 || j.d.tform == 0 {
                j.pad(before, &mut w.spm[t], numbers.len());
            }
        }
    }
    w
}
