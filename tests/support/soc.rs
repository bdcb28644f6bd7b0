//! A small model on a whole chip: harts run the shipped firmware, the engines compute or only take time.

use isa::cache::{CacheShape, PageChoice, Paging};
use isa::image::ImageHeader;
use isa::npu::Word;
use isa::npu::registers as reg;
use npu_model::{Cores, LocalPorts, NpuConfig};
use runtime::program::Places;
use runtime::{Caps, Model, Plan, Program, Sink};
use sim_kernel::{Bytes, Hertz};
use soc_model::config::{SocConfig, resolve};
use soc_model::soc::{
    BuildError, Draw, FirmwareImage, Job, ModelImage, RunResult, SocBuilder, SocFault, Turn,
};
use traces::image::{ImageLayout, build_image, random_tensors};
use traces::workload::{Extras, Family, ModelSpec, QuantScheme, Rope, RopeLayout, RopeScaling};

/// The firmware that ships.
pub const FIRMWARE: &[u8] = include_bytes!("../../firmware/prebuilt/firmware.elf");
/// Seed of weights and of every random stream.
pub const SEED: u64 = 7;

/// One run: chip, model, job.
#[derive(Clone, Debug)]
pub struct Case {
    /// Chip.
    pub soc: SocConfig,
    /// Model.
    pub spec: ModelSpec,
    /// Its quantisation scheme.
    pub quant: QuantScheme,
    /// Prompt tokens.
    pub prompt: Vec<u32>,
    /// Tokens to make.
    pub decode: u64,
    /// Positions resident before.
    pub context: u64,
    /// Most rows of a prefill chunk.
    pub chunk: u32,
    /// How tokens are chosen.
    pub draw: Draw,
    /// What of the cache's pages is asked for.
    pub pages: PageChoice,
}

/// What the engines do with data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compute {
    /// They compute it.
    Values,
    /// They do not: ids by position come from here, the rest are drawn.
    Shapes(Vec<(u64, u32)>),
}

/// Why a case ended early.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Refused before it ran.
    Refused(BuildError),
    /// Faulted while it ran.
    Faulted(SocFault),
}

/// Grouped queries, three panels of feed-forward in four, a vocabulary that no number of cores divides.
pub fn small_model() -> ModelSpec {
    ModelSpec {
        name: "small".to_owned(),
        family: Family::Llama,
        hidden: 128,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        head_dim: 32,
        ffn: 256,
        vocab: 320,
        norm_eps: 1e-6,
        qkv_bias: false,
        qk_norm: false,
        rope: Rope { theta: 10_000.0, layout: RopeLayout::Half, scaling: RopeScaling::None },
        tied_embedding: false,
        max_position: 4096,
        extras: Extras::default(),
    }
}

/// SoC `tiny` with these `--set` options.
pub fn tiny<S: AsRef<str>>(sets: &[S]) -> SocConfig {
    let sets: Vec<String> = sets.iter().map(|s| s.as_ref().to_owned()).collect();
    resolve("tiny", &sets).expect("options of the preset").config
}

/// Prompt ids below the vocabulary, none like its neighbour.
pub fn prompt(spec: &ModelSpec, length: u32) -> Vec<u32> {
    (0..length).map(|i| (i * 37 + 11) % spec.vocab).collect()
}

impl Case {
    /// The small model on `tiny`.
    pub fn new<S: AsRef<str>>(sets: &[S], quant: &str) -> Self {
        let spec = small_model();
        let quant = QuantScheme::named(quant).expect("a scheme");
        Self {
            soc: tiny(sets),
            prompt: prompt(&spec, 21),
            spec,
            quant,
            decode: 6,
            context: 0,
            chunk: 8,
            draw: Draw::default(),
            pages: PageChoice::default(),
        }
    }

    /// The chip with everything loaded.
    pub fn builder(&self, compute: &Compute) -> SocBuilder {
        let layout = ImageLayout::new(&self.spec, &self.quant).expect("a layout");
        let (stored, functional, ids) = match compute {
            Compute::Values => (vec![(0, self.image())], true, Vec::new()),
            Compute::Shapes(ids) => (layout.stored(), false, ids.clone()),
        };
        let m = &self.spec;
        let positions = self.positions();
        let kv = self.paging().bulk_bytes();
        let rows = if m.extras.post_norms { 2 } else { 1 };
        let spill = u64::from(self.chunk) * (rows * u64::from(m.hidden) * 4 + u64::from(m.ffn) * 3);
        SocBuilder {
            config: self.soc.clone(),
            firmware: FirmwareImage { place: "built-in".to_owned(), elf: FIRMWARE.to_vec() },
            model: ModelImage {
                bytes: layout.bytes(),
                stored,
                functional,
                bulk_bytes: kv + spill + u64::from(m.vocab) * 4 + 64 * 1024,
                vocab: m.vocab.into(),
            },
            job: Job {
                turn: Turn {
                    prompt: self.prompt.clone(),
                    decode: self.decode,
                    context: self.context,
                    draw: self.draw,
                    ..Turn::default()
                },
                positions,
                chunk: self.chunk,
                kv_bits: u32::try_from(self.quant.kv.bits()).expect("small"),
                pages: self.pages,
                ids,
                seed: SEED,
            },
            memory: soc_model::soc::MemoryTiming::Sampled,
            reversed: false,
        }
    }

    /// Runs it to its last token.
    ///
    /// # Errors
    /// How else it ended.
    pub fn run(&self, compute: &Compute) -> Result<RunResult, Ended> {
        let soc = self.builder(compute).build().map_err(Ended::Refused)?;
        soc.run(&mut |_| {}).map_err(Ended::Faulted)
    }

    /// How the cache is cut.
    pub fn paging(&self) -> Paging {
        let m = &self.spec;
        let shape = CacheShape {
            layers: m.layers.into(),
            kv_heads: m.kv_heads.into(),
            head_dim: m.head_dim.into(),
            bits: self.quant.kv.bits(),
            positions: self.positions(),
        };
        Paging::new(&shape, self.pages).expect("pages that are not too small")
    }

    fn positions(&self) -> u64 {
        (self.context + self.prompt.len() as u64 + self.decode).div_ceil(16) * 16
    }

    /// The whole model image.
    pub fn image(&self) -> Vec<u8> {
        build_image(&self.spec, &self.quant, &mut random_tensors(SEED, &self.spec)).expect("an image").1
    }

    /// Keys the running softmax takes at a time, by position, as the firmware plans it.
    pub fn blocks(&self) -> Vec<usize> {
        let mut words = [0; ImageHeader::WORDS];
        for (word, bytes) in words.iter_mut().zip(self.image().chunks_exact(8)) {
            *word = u64::from_le_bytes(bytes.try_into().expect("8 bytes"));
        }
        let model = Model::new(ImageHeader::from_words(&words)).expect("an image the runtime accepts");
        let caps = capabilities(&self.soc);
        let places = Places {
            image: 0,
            arena: (1 << 30, 56 << 20),
            bulk: (1 << 31, 1 << 30),
            positions: self.positions(),
            chunk: self.chunk.into(),
            kv_bits: self.quant.kv.bits(),
            pages: self.pages,
        };
        let program = Program::new(caps, model, places, &mut Nowhere).expect("a plan that fits");
        let chunk = usize::try_from(program.chunk_rows()).expect("small");
        let size = |rows: usize| {
            let plan = Plan::new(&caps, &model, rows as u64).expect("a plan that fits");
            usize::try_from(plan.block).expect("small")
        };
        let mut out = Vec::new();
        for piece in self.prompt.chunks(chunk) {
            out.extend(std::iter::repeat_n(size(piece.len()), piece.len()));
        }
        out.extend((0..self.decode).map(|_| size(1)));
        out
    }
}

/// Command lists that nobody runs.
struct Nowhere;

impl Sink for Nowhere {
    fn put(&mut self, _index: u64, _word: &Word) {}
}

/// Capabilities as a driver on this chip reads them.
fn capabilities(soc: &SocConfig) -> Caps {
    let n = &soc.npu;
    let cores = Cores::new(NpuConfig {
        cores: n.cores,
        rows: n.rows,
        cols: n.cols,
        frequency: Hertz::new(n.frequency_hz),
        scratchpad: Bytes::new(n.scratchpad_bytes),
        accumulator: Bytes::new(n.accumulator_bytes),
        dma_in_channels: n.dma_in_channels,
        dma_out_channels: n.dma_out_channels,
        dma_bytes_per_cycle: n.dma_bytes_per_cycle,
        dma_outstanding: Bytes::new(n.dma_outstanding_bytes),
        vector_lanes: n.vector_lanes_fp32,
        fifo_depth: n.fifo_depth,
        decode_cycles: n.decode_cycles,
        gemv_bytes_per_cycle: n.gemv_bytes_per_cycle,
        formats: npu_model::ops::FORMATS,
        ports: LocalPorts::IDEAL,
    });
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
