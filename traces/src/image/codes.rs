//! Weights as their file holds them: integer codes, and what turns them into values.
//!
//! Models: codes of at most eight bits with a scale, and maybe a minimum, a group along a row, regrouped and packed
//!   into an image without rounding. Does not model: codebooks. Source: `isa::image`.

use isa::image::Matrix;
use isa::npu::Format;

/// Codes row by row, outputs x inputs: value = scale x code + minimum.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Coded {
    /// Elements of a group.
    pub group: usize,
    /// Codes.
    pub codes: Vec<i8>,
    /// A scale a group.
    pub scales: Vec<f32>,
    /// A minimum a group, or none at all.
    pub minima: Vec<f32>,
}

impl Coded {
    /// What the codes stand for.
    #[must_use]
    pub fn values(&self) -> Vec<f32> {
        let mut out = Vec::with_capacity(self.codes.len());
        self.append(0..self.scales.len(), &mut out);
        out
    }

    /// The same in rows of `width`, which are whole groups.
    pub fn rows(&self, width: usize) -> impl Iterator<Item = Vec<f32>> {
        let groups = width / self.group;
        (0..self.codes.len() / width).map(move |row| {
            let mut out = Vec::with_capacity(width);
            self.append(row * groups..(row + 1) * groups, &mut out);
            out
        })
    }

    /// Appends the values of some groups.
    fn append(&self, groups: core::ops::Range<usize>, out: &mut Vec<f32>) {
        let codes = self.codes[groups.start * self.group..].chunks(self.group);
        for ((i, scale), codes) in groups.clone().zip(&self.scales[groups]).zip(codes) {
            match self.minima.get(i) {
                Some(minimum) => out.extend(codes.iter().map(|q| scale * f32::from(*q) + minimum)),
                None => out.extend(codes.iter().map(|q| scale * f32::from(*q))),
            }
        }
    }

    /// The same in groups of `group`, which divides its own, and with minima if `minimum` asks for them.
    #[must_use]
    pub fn regrouped(mut self, group: usize, minimum: bool) -> Self {
        let times = self.group / group;
        let repeated =
            |values: &[f32]| values.iter().flat_map(|v| std::iter::repeat_n(*v, times)).collect::<Vec<_>>();
        if times > 1 {
            self.scales = repeated(&self.scales);
            self.minima = repeated(&self.minima);
            self.group = group;
        }
        if minimum && self.minima.is_empty() {
            self.minima = vec![0.0; self.scales.len()];
        }
        self
    }
}

/// Packs codes of `k` inputs into panels from the start of `image`.
///
/// # Panics
/// If the image ends before the matrix.
pub(super) fn pack_codes(image: &mut [u8], coded: &Coded, k: usize, stored: Matrix) {
    let index = |value: u64| usize::try_from(value).expect("an image that is built fits the host");
    let (panel, group) = (index(stored.panel), coded.group);
    let (groups, row_bytes) = (k / group, index(stored.row_bytes()));
    for (p, columns) in coded.codes.chunks_exact(k * panel).enumerate() {
        let panel_at = p * index(stored.panel_stride(k as u64));
        for g in 0..groups {
            let at = panel_at + index(stored.row_offset((g * group) as u64));
            let rows = &mut image[at..at + group * row_bytes];
            let part = g * group..(g + 1) * group;
            if stored.format == Format::Int8 {
                for (c, column) in columns.chunks_exact(k).enumerate() {
                    for (row, code) in rows.chunks_exact_mut(row_bytes).zip(&column[part.clone()]) {
                        row[c] = code.cast_unsigned();
                    }
                }
            } else {
                for (c, pair) in columns.chunks_exact(2 * k).enumerate() {
                    let (low, high) = pair.split_at(k);
                    let codes = low[part.clone()].iter().zip(&high[part.clone()]);
                    for (row, (low, high)) in rows.chunks_exact_mut(row_bytes).zip(codes) {
                        row[c] = low.cast_unsigned() & 15 | high.cast_unsigned() << 4;
                    }
                }
            }
            let mut table = at + group * row_bytes;
            for values in [&coded.scales, &coded.minima] {
                for c in 0..if values.is_empty() { 0 } else { panel } {
                    let value = values[(p * panel + c) * groups + g];
                    if stored.sf == 2 {
                        image[table..table + 4].copy_from_slice(&value.to_le_bytes());
                        table += 4;
                    } else {
                        image[table..table + 2].copy_from_slice(&half::f16::from_f32(value).to_le_bytes());
                        table += 2;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regrouping_and_packing_keep_every_value() {
        // 16 columns of 64 inputs.
        let codes: Vec<i8> = (0..16 * 64).map(|i: i32| i8::try_from(i * 7 % 16).expect("small")).collect();
        let scales: Vec<f32> = (0..32u16).map(|i| f32::from(i) + 0.5).collect();
        let minima: Vec<f32> = (0..32u16).map(|i| -f32::from(i)).collect();
        let coded = Coded { group: 32, codes: codes.clone(), scales: scales.clone(), minima };
        let halves = coded.clone().regrouped(16, true);
        assert_eq!(halves.values(), coded.values());
        let bare = Coded { minima: Vec::new(), ..coded.clone() };
        assert_eq!(bare.clone().regrouped(32, true).values(), bare.values());
        let stored = Matrix { panel: 16, format: Format::Uint4, grp: 3, sf: 2, zpm: 2 };
        let mut image = vec![0; usize::try_from(stored.bytes(64, 16)).expect("small")];
        pack_codes(&mut image, &coded, 64, stored);
        let at = |k: u64| usize::try_from(stored.row_offset(k)).expect("small");
        // Input 33 of column 5, then the second group's scale and minimum of column 5.
        assert_eq!(image[at(33) + 2] >> 4, codes[5 * 64 + 33].cast_unsigned());
        let number = |at: usize| f32::from_le_bytes([image[at], image[at + 1], image[at + 2], image[at + 3]]);
        let table = at(32) + 32 * 8;
        assert_eq!([number(table + 20), number(table + 64 + 20)], [scales[11], -11.0]);
    }
}
