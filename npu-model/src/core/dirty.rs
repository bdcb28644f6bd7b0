//! Which pages of local memory a queue's commands have written: what a level-2 preemption has to save.
//!
//! Models: 4 KiB pages of scratchpad and accumulator, look-up tables one by one.
//! Does not model: content. In a run that computes, every write marks its page; in a shape-only run the fields of a
//! command do, generously.
//! Source: page size is an estimate, accuracy class C.

use isa::npu::{Body, Command, Extension, Format, GRANULE};

use crate::config::NpuConfig;
use crate::local::{LUT_BYTES, LUTS, Space};

/// Bytes of a page.
pub const PAGE_BYTES: u64 = 4096;
/// Bytes of the register image at the start of a save area.
pub const REGISTER_BYTES: u64 = 1024;
/// Bytes of the save area before the pages: registers, then tables.
pub const SAVE_HEADER: u64 = REGISTER_BYTES + (LUTS * LUT_BYTES) as u64;

/// Pages written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dirty {
    spm: Vec<u64>,
    acc: Vec<u64>,
    luts: u64,
    sizes: (u64, u64),
}

fn words(bytes: u64) -> usize {
    usize::try_from(bytes.div_ceil(PAGE_BYTES).div_ceil(64)).expect("a local memory")
}

impl Dirty {
    /// Nothing written.
    #[must_use]
    pub fn new(cfg: &NpuConfig) -> Self {
        Self::sized(cfg.scratchpad.get(), cfg.accumulator.get())
    }

    /// Nothing written, of memories of these sizes.
    #[must_use]
    pub fn sized(spm: u64, acc: u64) -> Self {
        Self { spm: vec![0; words(spm)], acc: vec![0; words(acc)], luts: 0, sizes: (spm, acc) }
    }

    /// Marks `len` bytes from `at`, as far as they are in the memory.
    pub fn mark(&mut self, space: Space, at: u64, len: u64) {
        let (map, size) = match space {
            Space::Spm => (&mut self.spm, self.sizes.0),
            Space::Acc => (&mut self.acc, self.sizes.1),
        };
        let end = at.saturating_add(len).min(size);
        if at >= end {
            return;
        }
        for page in at / PAGE_BYTES..=(end - 1) / PAGE_BYTES {
            map[usize::try_from(page / 64).expect("inside")] |= 1 << (page % 64);
        }
    }

    /// Marks a look-up table.
    pub const fn mark_lut(&mut self, id: u64) {
        self.luts |= 1 << (id & (LUTS as u64 - 1));
    }

    /// Adds what another map has, and clears that.
    pub fn absorb(&mut self, other: &mut Self) {
        for (a, b) in self.spm.iter_mut().zip(&mut other.spm).chain(self.acc.iter_mut().zip(&mut other.acc)) {
            *a |= core::mem::take(b);
        }
        self.luts |= core::mem::take(&mut other.luts);
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.spm.fill(0);
        self.acc.fill(0);
        self.luts = 0;
    }

    /// Whether nothing is marked.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.luts == 0 && self.spm.iter().chain(&self.acc).all(|w| *w == 0)
    }

    /// Whether every mark of `other` is one here.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        let within = |a: &[u64], b: &[u64]| a.iter().zip(b).all(|(a, b)| b & !a == 0);
        within(&self.spm, &other.spm) && within(&self.acc, &other.acc) && other.luts & !self.luts == 0
    }

    /// Numbers of the marked tables.
    pub fn luts(&self) -> impl Iterator<Item = u64> + use<> {
        let luts = self.luts;
        (0..LUTS as u64).filter(move |i| luts >> i & 1 == 1)
    }

    /// Contiguous stretches as (space, first byte, bytes).
    #[must_use]
    pub fn stretches(&self) -> Vec<(Space, u64, u64)> {
        let mut out: Vec<(Space, u64, u64)> = Vec::new();
        for (space, map, size) in
            [(Space::Spm, &self.spm, self.sizes.0), (Space::Acc, &self.acc, self.sizes.1)]
        {
            for page in (0..size.div_ceil(PAGE_BYTES))
                .filter(|p| map[usize::try_from(p / 64).expect("inside")] >> (p % 64) & 1 == 1)
            {
                let (at, len) = (page * PAGE_BYTES, PAGE_BYTES.min(size - page * PAGE_BYTES));
                match out.last_mut() {
                    Some((s, start, bytes)) if *s == space && *start + *bytes == at => *bytes += len,
                    _ => out.push((space, at, len)),
                }
            }
        }
        out
    }

    /// Offset in the save area of a byte of local memory.
    #[must_use]
    pub const fn offset(&self, space: Space, at: u64) -> u64 {
        match space {
            Space::Spm => SAVE_HEADER + at,
            Space::Acc => SAVE_HEADER + self.sizes.0.next_multiple_of(PAGE_BYTES) + at,
        }
    }

    /// Bytes a save area of these memories needs.
    #[must_use]
    pub const fn area_bytes(&self) -> u64 {
        self.offset(Space::Acc, self.sizes.1)
    }

    /// (offset, bytes) of everything a save moves: registers, marked tables, marked pages.
    #[must_use]
    pub fn runs(&self) -> Vec<(u64, u64)> {
        let mut out = vec![(0, REGISTER_BYTES)];
        out.extend(self.luts().map(|i| (REGISTER_BYTES + i * LUT_BYTES as u64, LUT_BYTES as u64)));
        out.extend(self.stretches().into_iter().map(|(s, at, n)| (self.offset(s, at), n)));
        out
    }

    /// Marks what a GEMM or VEC command says it writes.
    pub fn mark_command(&mut self, command: &Command) {
        let or = |stride: u64, packed: u64| if stride == 0 { packed } else { stride * GRANULE };
        let mut rows = |space, granule: u64, n: u64, stride: u64, row: u64| {
            self.mark(space, granule * GRANULE, (n - 1) * stride.max(row) + row);
        };
        match &command.body {
            Body::Gemm(g) => {
                let (m, row) = (g.m + 1, (g.n + 1) * 4);
                let to_spm = g.drain == 1 && g.csp == 1;
                rows(if to_spm { Space::Spm } else { Space::Acc }, g.c, m, or(g.cst, row), row);
                if let Some(Extension::Epilogue(e)) = &command.extension {
                    rows(Space::Acc, e.aca, m, row, row);
                    if e.amax == 1 {
                        rows(Space::Spm, e.amaxa, 1, 0, m * 4);
                    }
                }
            }
            Body::Vec(v) => {
                let n = v.rows + 1;
                let bits = Format::from_code(v.dfm).map_or(32, Format::bits);
                let row = ((v.cols + 1) * bits).div_ceil(8);
                rows(Space::from_bit(v.ds), v.d, n, or(v.dst, row), row);
                if v.bc == 0 || v.stat | v.upd == 1 {
                    rows(Space::from_bit(v.ys), v.y, n, or(v.yst, 16), 16);
                }
                if let Some(Extension::Position(p)) = &command.extension {
                    rows(Space::Spm, p.alpha, 1, 0, n * 4);
                }
            }
            Body::Dma(_) | Body::Ctrl(_) => {}
        }
    }
}
