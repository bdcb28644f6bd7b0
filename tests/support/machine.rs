//! A cluster without time that runs what the firmware's runtime writes, driven through its registers.

use isa::cache::PageChoice;
use isa::image::ImageHeader;
use isa::npu::Word;
use isa::npu::registers as reg;
use isa::npu::registers::state;
use npu_model::{BusFault, Content, Cores, LocalPorts, Memory, NpuConfig, Stuck};
use runtime::emit::R_ARENA;
use runtime::model::ModelError;
use runtime::program::{COMPLETION_LOG2, Places, RING_LOG2, completion_offset, result_offset, ring_offset};
use runtime::{Caps, Emitter, Model, Plan, Program, Sink, Step, draw};
use sim_kernel::{Bytes, Hertz, Stream};
use soc_model::soc::Draw;

const IMAGE: u64 = 0x8000_0000;
const ARENA: u64 = 0x10_0000_0000;
const BULK: u64 = 0x18_0000_0000;
const ARENA_BYTES: usize = 24 << 20;

/// Save areas of preempted cores, and the ring of who preempts them.
const SAVE: u64 = 0x30_0000_0000;
const SAVE_STRIDE: u64 = 4 << 20;

/// Memory in four pieces.
struct Dram {
    pieces: [(u64, Vec<u8>); 4],
    /// Control commands of the lists are points at which a core may be given away.
    switch_points: bool,
}

impl Dram {
    fn range(&mut self, at: u64, len: usize) -> Result<&mut [u8], BusFault> {
        for (base, bytes) in &mut self.pieces {
            let Some(offset) = at.checked_sub(*base).and_then(|o| usize::try_from(o).ok()) else { continue };
            if let Some(range) = bytes.get_mut(offset..offset.saturating_add(len)) {
                return Ok(range);
            }
        }
        Err(BusFault(at))
    }
}

impl Memory for Dram {
    fn read(&mut self, at: u64, out: &mut [u8]) -> Result<Content, BusFault> {
        out.copy_from_slice(self.range(at, out.len())?);
        Ok(Content::Stored)
    }
    fn write(&mut self, at: u64, data: &[u8]) -> Result<Content, BusFault> {
        self.range(at, data.len())?.copy_from_slice(data);
        Ok(Content::Stored)
    }
}

impl Sink for Dram {
    fn put(&mut self, index: u64, word: &Word) {
        let mut word = *word;
        // No extension has type 0, so this is a control command.
        if self.switch_points && word.get(0, 8) == 0 {
            word.set(10, 1, 1);
        }
        self.write(ARENA + index * 32, &word.to_bytes()).expect("lists stay in the arena");
    }

    fn put_data(&mut self, index: u64, word: &Word) {
        self.write(ARENA + index * 32, &word.to_bytes()).expect("tables stay in the arena");
    }
}

/// What a machine is built from.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Cores.
    pub cores: u32,
    /// Scratchpad bytes of a core.
    pub scratchpad: u64,
    /// Accumulator bytes of a core.
    pub accumulator: u64,
    /// DMA channels that read.
    pub channels: u32,
    /// Most rows of a prefill chunk.
    pub chunk: u64,
    /// Most positions.
    pub positions: u64,
    /// Seed of the order in which engines take turns.
    pub order: u64,
    /// Bits of an element of the cache.
    pub kv_bits: u64,
    /// What of its pages is asked for.
    pub pages: PageChoice,
}

impl Shape {
    /// Room for everything resident, a chunk of 8, 64 positions in pages of at least 5.
    pub const fn usual(cores: u32) -> Self {
        Self {
            cores,
            scratchpad: 1 << 20,
            accumulator: 8 << 10,
            channels: 2,
            chunk: 8,
            positions: 64,
            order: 1,
            kv_bits: 16,
            pages: PageChoice { page_positions: 5, pool_positions: 0 },
        }
    }
}

/// The cluster, its memory and the program on it.
pub struct Machine {
    cores: Cores,
    memory: Dram,
    program: Program,
    tails: Vec<u64>,
    order: Stream,
    caps: Caps,
    model: Model,
    position: u64,
    /// Whether some prefill chunk spilled.
    pub spilled: bool,
    /// What interrupts the next pass.
    pub interruption: Option<Interruption>,
    candidates: u64,
}

/// Someone else who wants the cores.
#[derive(Clone, Copy, Debug)]
pub struct Interruption {
    /// Preemption level: 1, 2 or 3.
    pub level: u64,
    /// Rounds of all units before it comes.
    pub after: u64,
    /// Cores it wants, as a mask.
    pub cores: u64,
}

/// What a pass over the model left.
pub struct Sampled {
    /// The token, if one was wanted.
    pub token: usize,
    /// Its logits.
    pub logits: Vec<f32>,
}

fn configuration(s: &Shape) -> NpuConfig {
    NpuConfig {
        cores: s.cores,
        rows: 16,
        cols: 16,
        frequency: Hertz::new(1_000_000_000),
        scratchpad: Bytes::new(s.scratchpad),
        accumulator: Bytes::new(s.accumulator),
        dma_in_channels: s.channels,
        dma_out_channels: 1,
        dma_bytes_per_cycle: 32,
        dma_outstanding: Bytes::new(4096),
        vector_lanes: 16,
        fifo_depth: 4,
        decode_cycles: 2,
        gemv_bytes_per_cycle: 32,
        formats: u64::MAX,
        ports: LocalPorts::IDEAL,
    }
}

/// The model an image describes, read as the firmware reads it.
pub fn model_of(image: &[u8]) -> Result<Model, ModelError> {
    let word = |i: usize| {
        let bytes = image.get(i * 8..i * 8 + 8).unwrap_or(&[0; 8]);
        u64::from_le_bytes(bytes.try_into().expect("8 bytes"))
    };
    let header = ImageHeader::from_words(&core::array::from_fn(word));
    Model::read(header, |i| word(ImageHeader::WORDS + usize::try_from(i).expect("small")))
}

/// Capabilities as a driver reads them.
fn capabilities(cores: &Cores) -> Caps {
    let read = |offset| cores.cores[0].load(&cores.cfg, offset).expect("a register");
    let low = |v: u64| v & 0xFFFF_FFFF;
    Caps {
        cores: read(reg::CAP_CORES),
        rows: low(read(reg::CAP_ARRAY)),
        cols: read(reg::CAP_ARRAY) >> 32,
        spm: read(reg::CAP_SPM),
        acc: read(reg::CAP_ACC),
        dma_in: low(read(reg::CAP_DMA)),
        dma_out: read(reg::CAP_DMA) >> 32,
        formats: read(reg::CAP_FORMATS),
        functions: [reg::CAP_VEC0, reg::CAP_VEC1, reg::CAP_VEC2].map(read),
    }
}

impl Machine {
    /// Starts a cluster with `image` loaded and the decode lists written.
    pub fn new(shape: &Shape, image: Vec<u8>) -> Self {
        let model = model_of(&image).expect("an image the runtime accepts");
        let cores = Cores::new(configuration(shape));
        let caps = capabilities(&cores);
        let bulk = 8 << 20;
        let places = Places {
            image: IMAGE,
            arena: (ARENA, ARENA_BYTES as u64),
            bulk: (BULK, bulk),
            positions: shape.positions,
            chunk: shape.chunk,
            kv_bits: shape.kv_bits,
            pages: shape.pages,
        };
        let bulk = vec![0xFF; usize::try_from(bulk).expect("small")];
        let save = vec![0; shape.cores as usize * usize::try_from(SAVE_STRIDE).expect("small")];
        let mut memory = Dram {
            pieces: [(IMAGE, image), (ARENA, vec![0; ARENA_BYTES]), (BULK, bulk), (SAVE, save)],
            switch_points: true,
        };
        let mut program = Program::new(caps, model, places, &mut memory).expect("a plan that fits");
        // Other jobs were there before: the first page this one takes is not the first there is.
        for of_eight in [8, 3, 5, 2, 7, 0] {
            program.hold(shape.positions * of_eight / 8, &mut memory).expect("pages for all positions");
        }
        let mut machine = Self {
            tails: vec![0; cores.cores.len()],
            caps,
            model,
            order: Stream::new(shape.order, "npu", "order"),
            cores,
            memory,
            program,
            position: 0,
            spilled: false,
            interruption: None,
            candidates: 0,
        };
        machine.start();
        machine
    }

    fn start(&mut self) {
        for core in 0..self.cores.cores.len() {
            let n = core as u64;
            for (register, value) in [
                (reg::QBASE, ARENA + ring_offset(n)),
                (reg::QSIZE, RING_LOG2),
                (reg::CBASE, ARENA + completion_offset(n)),
                (reg::CSIZE, COMPLETION_LOG2),
                (reg::region(R_ARENA), ARENA),
                (reg::region(R_ARENA) + 8, ARENA_BYTES as u64),
                (reg::QCTRL, 1),
            ] {
                assert!(self.cores.cores[core].store(&self.cores.cfg, register, value));
            }
            let first = ring_offset(n) / 32;
            self.tails[core] = self.program.init(&mut self.memory, first) - first;
            self.ring(core);
        }
        self.run();
    }

    fn ring(&mut self, core: usize) {
        assert!(self.cores.cores[core].store(&self.cores.cfg, reg::QTAIL, self.tails[core]));
    }

    fn run(&mut self) {
        match self.cores.run(&mut self.memory, None, &mut self.order) {
            Ok(()) => {}
            Err(Stuck::Fault(core, fault, index)) => panic!("npu{core} command {index}: {fault}"),
            Err(Stuck::Deadlock(waits)) => panic!("deadlock:\n{}", waits.join("\n")),
        }
    }

    fn rounds(&mut self, count: u64) {
        for _ in 0..count {
            if !self.cores.round(&mut self.memory, None) {
                break;
            }
        }
    }

    /// Takes the cores out of a pass at level 3 and resets their queues.
    fn kill(&mut self, i: Interruption) {
        self.rounds(i.after);
        for c in &mut self.cores.cores {
            assert!(c.store(&self.cores.cfg, reg::PREEMPT, 3));
        }
        while self.cores.round(&mut self.memory, None) {}
        for c in &mut self.cores.cores {
            assert_eq!(c.load(&self.cores.cfg, reg::QSTAT), Some(state::KILLED), "it was still running");
            assert!(c.store(&self.cores.cfg, reg::QCTRL, 2));
        }
    }

    /// Rings another queue's doorbell in the middle of a pass: it fills all local memory if that is saved for us.
    fn interrupt(&mut self, i: Interruption) {
        self.rounds(i.after);
        let (cfg, spm) = (self.cores.cfg.clone(), self.cores.cfg.scratchpad.get());
        for core in (0..self.cores.cores.len()).filter(|c| i.cores >> c & 1 == 1) {
            let area = SAVE + core as u64 * SAVE_STRIDE;
            let mut text = String::new();
            if i.level == 2 {
                // Rows of 2 KiB, each 16 bytes further: whatever lies there.
                let rows = spm / 2048 - 1;
                text += &format!("dma region=1 n0=127 n1={rows} mst1=1 s0_id=1 s0_n=1\n");
                text += "gemm af=fp16 bf=fp16 cf=fp32 m=7 n=15 k=31 w0_id=1 w0_n=1 s0_id=2 s0_n=1\n";
                text += "ctrl.nop w0_id=2 w0_n=1\n";
            }
            text += "ctrl.irq tag=77";
            let words = isa::npu::text::assemble(&text).expect("assembles");
            let ring = area + SAVE_STRIDE - 8192;
            for (n, w) in (0u64..).zip(&words) {
                self.memory.write(ring + 32 * n, &w.to_bytes()).expect("in the area");
            }
            let page = reg::QUEUE_STRIDE;
            for (register, value) in [
                (reg::PREEMPT_AUTO, i.level),
                (reg::SAVE_BASE, area),
                (reg::SAVE_LIMIT, SAVE_STRIDE - 8192),
                (page + reg::QBASE, ring),
                (page + reg::QSIZE, 4),
                (page + reg::CBASE, ring + 4096),
                (page + reg::region(1), area),
                (page + reg::region(1) + 8, SAVE_STRIDE - 8192),
                (page + reg::QCTRL, 1 | 7 << 4),
                (page + reg::QTAIL, words.len() as u64),
            ] {
                assert!(self.cores.cores[core].store(&cfg, register, value), "{register:#x}");
            }
        }
    }

    /// Bytes saved so far, and preemptions of work that was not done, by level.
    pub fn preempted(&self) -> (u64, [u64; 3]) {
        self.cores.cores.iter().map(npu_model::Core::preemptions).fold((0, [0; 3]), |(b, l), p| {
            (b + p.saved_bytes, core::array::from_fn(|i| l[i] + p.by_level[i]))
        })
    }

    /// Plans of decode and prefill.
    pub fn plans(&self) -> (&Plan, &Plan) {
        self.program.plans()
    }

    /// Keys the running softmax takes at a time, for each position of a prompt and its continuation.
    pub fn blocks(&self, prompt: usize, tokens: usize) -> Vec<usize> {
        let mut out = Vec::new();
        while out.len() < prompt {
            let rows = self.program.next_rows((prompt - out.len()) as u64);
            let rows = usize::try_from(rows).expect("small");
            let plan = Plan::new(&self.caps, &self.model, rows as u64).expect("a plan that fits");
            out.extend(std::iter::repeat_n(usize::try_from(plan.block).expect("small"), rows));
        }
        let decode = usize::try_from(self.plans().0.block).expect("small");
        out.extend(std::iter::repeat_n(decode, tokens));
        out
    }

    /// The vector of these tokens, and the keys the running softmax took at a time.
    pub fn encode(&mut self, tokens: &[usize]) -> (Vec<f32>, usize) {
        self.position = 0;
        assert!(self.pass_lists(tokens, true), "nothing interrupts it");
        let rows = tokens.len();
        let passes = self.program.next_rows(rows as u64) == rows as u64;
        let block = if passes { self.blocks(rows, 0)[0] } else { self.long_block() };
        let width = usize::try_from(self.model.h.hidden).expect("small");
        (self.result(width), block)
    }

    /// Keys at a time where rows come in chunks, and chunks' most rows.
    fn long_block(&self) -> usize {
        usize::try_from(self.program.long().plan.block).expect("small")
    }

    /// Most rows of a chunk of the last pass that had several.
    pub fn chunk_rows(&self) -> usize {
        usize::try_from(self.program.long().plan.rows).expect("small")
    }

    /// All rows an image's or a sound's input becomes, and the keys the running softmax took at a time. `input` are its
    /// rows as the host lays them out: fp16 values at the image's stride.
    pub fn encode_rows(&mut self, input: &[u8], rows: usize) -> (Vec<f32>, usize) {
        self.position = 0;
        // The input's place is known once there are lists for as many rows; it is read when they run.
        let step = Step { start: 0, rows: rows as u64, sample: true, candidates: 0 };
        self.program.prepare(&step, &mut |_| 0, &mut self.memory).expect("lists that fit");
        self.memory.write(BULK + self.program.input_offset(), input).expect("in bulk memory");
        assert!(self.pass_lists(&vec![0; rows], true), "nothing interrupts it");
        (self.result(rows * usize::try_from(self.model.h.hidden).expect("small")), self.long_block())
    }

    /// An encoder's result.
    fn result(&mut self, values: usize) -> Vec<f32> {
        let mut out = vec![0; values * 4];
        self.memory.read(BULK + self.program.logits_offset(), &mut out).expect("in bulk memory");
        out.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().expect("4 bytes"))).collect()
    }

    /// One pass over `tokens`; samples from the last row if `sample`.
    pub fn pass(&mut self, tokens: &[usize], sample: bool) -> Option<Sampled> {
        if !self.pass_lists(tokens, sample) {
            // Starting over is the client's matter: the same pass again, on fresh queues.
            self.start();
            return self.pass(tokens, sample);
        }
        sample.then(|| self.sampled())
    }

    /// Writes and runs the lists of a pass; false if it was killed.
    fn pass_lists(&mut self, tokens: &[usize], sample: bool) -> bool {
        let step =
            Step { start: self.position, rows: tokens.len() as u64, sample, candidates: self.candidates };
        let list = |row: u64| tokens[usize::try_from(row).expect("small")] as u64;
        let tops = self.program.prepare(&step, &mut { list }, &mut self.memory).expect("lists that fit");
        self.spilled |= step.rows > 1 && !self.plans().1.resident;
        for (core, top) in tops.into_iter().enumerate().take(self.cores.cores.len()) {
            let n = core as u64;
            // A core without a share of the vocabulary writes no record: what lies there must not win.
            let none = [0u32.to_le_bytes(), f32::NEG_INFINITY.to_le_bytes()].concat();
            self.memory.write(ARENA + result_offset(n), &none).expect("in the arena");
            let entry = ring_offset(n) / 32 + self.tails[core] % (1 << RING_LOG2);
            Emitter::new(&mut self.memory, entry).call(R_ARENA, top);
            self.tails[core] += 1;
        }
        // Doorbells in a core-dependent order: nobody may rely on another having started.
        for core in (0..self.cores.cores.len()).rev() {
            self.ring(core);
        }
        match self.interruption.take() {
            Some(i) if i.level == 3 => {
                self.kill(i);
                return false;
            }
            Some(i) => self.interrupt(i),
            None => {}
        }
        self.run();
        self.position += step.rows;
        true
    }

    /// Goes on behind the first `position` positions.
    pub fn resume(&mut self, position: u64) {
        self.position = position;
    }

    /// How the tokens that follow are chosen.
    pub fn draw(&mut self, d: &Draw) {
        self.candidates = d.candidates.into();
        let row = draw::parameters(d.temperature.into(), d.top_p.into(), d.candidates.into(), d.seed);
        self.memory.put(draw::parameters_offset() / 32, &row);
    }

    /// A pass at a position that the next pass takes again.
    pub fn again(&mut self, tokens: &[usize]) -> Option<Sampled> {
        let sampled = self.pass(tokens, true);
        self.position -= tokens.len() as u64;
        sampled
    }

    fn sampled(&mut self) -> Sampled {
        let mut best = (0, f32::NEG_INFINITY);
        // Core 0 draws from everyone's candidates.
        let choosing = if self.candidates > 0 { 1 } else { self.cores.cores.len() as u64 };
        for core in 0..choosing {
            let mut record = [0; 8];
            self.memory.read(ARENA + result_offset(core), &mut record).expect("in the arena");
            let (index, value) = record.split_at(4);
            let value = f32::from_le_bytes(value.try_into().expect("4 bytes"));
            if value > best.1 {
                best = (u32::from_le_bytes(index.try_into().expect("4 bytes")), value);
            }
        }
        let mut logits = vec![0; usize::try_from(self.model.h.vocab * 4).expect("small")];
        self.memory.read(BULK + self.program.logits_offset(), &mut logits).expect("in bulk memory");
        let logits = logits.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().expect("4 bytes")));
        Sampled { token: best.0 as usize, logits: logits.collect() }
    }

    /// Overwrites the cached keys and values of a layer before position `end` with what is no number.
    pub fn spoil(&mut self, layer: u64, end: u64) {
        let pages = *self.program.pages().expect("a decoder has pages");
        let (p, base) = (pages.paging, pages.region(layer).0);
        let (size, all) = (p.page_bytes(), end * p.row);
        for stream in 0..p.streams {
            for page in 0..all.div_ceil(size) {
                let mut entry = [0; 4];
                self.memory.read(base + 4 * (stream * p.groups + page), &mut entry).expect("a table");
                let at = base + u64::from(u32::from_le_bytes(entry)) * size;
                let bytes = usize::try_from(size.min(all - page * size)).expect("small");
                self.memory.write(at, &vec![0xFF; bytes]).expect("a page");
            }
        }
    }

    /// Runs `prompt` in chunks and then `count - 1` decode steps; returns tokens and the logits of each.
    pub fn generate(&mut self, prompt: &[usize], count: usize) -> Vec<Sampled> {
        let mut out = Vec::new();
        let mut rest = prompt;
        while !rest.is_empty() {
            let rows = usize::try_from(self.program.next_rows(rest.len() as u64)).expect("small");
            let (piece, left) = rest.split_at(rows);
            out.extend(self.pass(piece, left.is_empty()));
            rest = left;
        }
        while out.len() < count {
            let last = out.last().expect("the prompt's token").token;
            out.extend(self.pass(&[last], true));
        }
        out
    }
}
