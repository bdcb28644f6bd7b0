//! The NPU driver: capabilities, queues, one pass of all cores.

use board::{Best, Tree};
use isa::memory_map::{NPU, NPU_STRIDE, error};
use isa::npu::registers as reg;
use isa::npu::{CtrlOp, Format, MAX_CORES, VecFn};
use runtime::emit::{Emitter, R_ARENA};
use runtime::plan::share;
use runtime::program::{COMPLETION_LOG2, Program, RING_LOG2, completion_offset, result_offset, ring_offset};
use runtime::{Caps, Model};

use crate::console::line;
use crate::failure::give_up;
use crate::hardware::{Device, Shared, fence};
use crate::interrupts;

/// The cores and what has been given to them.
pub struct Cluster {
    /// What they can do.
    pub caps: Caps,
    /// Ring entries written, by core.
    tail: [u64; MAX_CORES],
    /// Passes completed.
    passes: u64,
}

/// What of a CAP register a program depends on.
fn caps(device: Device, cores: u64) -> Caps {
    let (array, dma) = (device.load(reg::CAP_ARRAY), device.load(reg::CAP_DMA));
    Caps {
        cores,
        rows: array & 0xFFFF_FFFF,
        cols: array >> 32,
        spm: device.load(reg::CAP_SPM),
        acc: device.load(reg::CAP_ACC),
        dma_in: dma & 0xFFFF_FFFF,
        dma_out: dma >> 32,
        formats: device.load(reg::CAP_FORMATS),
        functions: [device.load(reg::CAP_VEC0), device.load(reg::CAP_VEC1), device.load(reg::CAP_VEC2)],
    }
}

/// Control operations the lists use.
const CONTROL: [CtrlOp; 7] =
    [CtrlOp::Nop, CtrlOp::Fence, CtrlOp::Sem, CtrlOp::Irq, CtrlOp::Setr, CtrlOp::Call, CtrlOp::Ret];

fn refuse(what: core::fmt::Arguments) -> ! {
    line!("npu: {what}");
    give_up(error::NOT_IN_CAP)
}

impl Cluster {
    /// Reads what the enabled cores of the tree can do; they must be alike and numbered from 0.
    pub fn open(tree: &Tree) -> Self {
        let nodes = &tree.npu[..tree.npu_count];
        let cores = nodes.len() as u64;
        for core in 0..cores {
            if !nodes.contains(&(NPU.base + core * NPU_STRIDE)) {
                refuse(format_args!("{cores} cores are enabled, but core {core} is not"));
            }
        }
        let first = caps(Device::npu(0), cores);
        for core in 0..cores {
            let device = Device::npu(core);
            let (version, number) = (device.load(reg::CAP_VERSION), device.load(reg::CAP_CORE));
            if version != reg::VERSION || number != core {
                refuse(format_args!("core {core} says it is core {number} of version {version}"));
            }
            if caps(device, cores) != first {
                refuse(format_args!("cores 0 and {core} differ"));
            }
            let control = device.load(reg::CAP_CTRL);
            if let Some(op) = CONTROL.iter().find(|op| control >> op.code() & 1 == 0) {
                refuse(format_args!("no control operation {}", op.name()));
            }
        }
        if first.dma_in == 0 || first.dma_out == 0 {
            refuse(format_args!("{} DMA channels in, {} out", first.dma_in, first.dma_out));
        }
        line!(
            "npu: {cores} cores, array {}x{}, {} KiB scratchpad, {} KiB accumulator, DMA {} in {} out",
            first.rows,
            first.cols,
            first.spm >> 10,
            first.acc >> 10,
            first.dma_in,
            first.dma_out
        );
        Self { caps: first, tail: [0; MAX_CORES], passes: 0 }
    }

    /// Gives up unless the engines have what the model needs.
    pub fn check(&self, model: &Model) {
        let Some(activations) = Format::from_code(model.h.act_format) else {
            line!("image: unknown activation format {}", model.h.act_format);
            give_up(error::BAD_IMAGE)
        };
        for format in model.formats().into_iter().chain([activations, Format::Fp16]) {
            if !self.caps.has_format(format) {
                refuse(format_args!("no format {}, which the model needs", format.name()));
            }
        }
        let rope = if model.rope_inter() { VecFn::RopeInter } else { VecFn::RopeHalf };
        let quantise = if model.quantised() { VecFn::Qdyn } else { VecFn::Cvt };
        let decoder = [VecFn::Rmsnorm, rope, VecFn::Argmax];
        let encoder = [
            VecFn::Layernorm,
            VecFn::Add,
            VecFn::Segsum,
            VecFn::Div,
            VecFn::Rsumsq,
            VecFn::Max,
            VecFn::Rsqrt,
            VecFn::Mul,
        ];
        let own: &[VecFn] = match (model.stem(), model.encoder()) {
            (true, _) => &encoder[..1],
            (_, true) => &encoder,
            _ => &decoder,
        };
        let extras = [
            model.embed_scale().map(|_| VecFn::Mul),
            model.logit_cap().map(|_| VecFn::Softcap),
            model.post_norms().then_some(VecFn::Add),
        ];
        let always = [VecFn::Cvt, VecFn::FaStep, VecFn::FaFin, quantise];
        for f in always.iter().chain(own).chain(extras.iter().flatten()) {
            if !self.caps.has_function(*f) {
                refuse(format_args!("no vector function {}, which the model needs", f.name()));
            }
        }
    }

    /// Gives up unless the vector engines can draw.
    pub fn check_draw(&self) {
        for f in [VecFn::Topk, VecFn::Sample] {
            if !self.caps.has_function(f) {
                refuse(format_args!("no vector function {}, which drawing tokens needs", f.name()));
            }
        }
    }

    /// Resets the queues, points them at the arena and presets the semaphores.
    pub fn start(&mut self, program: &Program, arena: &mut Shared, base: u64, bytes: u64) {
        // All are reset before any runs: cores post to each other.
        for core in 0..self.caps.cores {
            Device::npu(core).store(reg::QCTRL, 2);
        }
        for core in 0..self.caps.cores {
            let (device, i) = (Device::npu(core), core as usize);
            device.store(reg::QBASE, base + ring_offset(core));
            device.store(reg::QSIZE, RING_LOG2);
            device.store(reg::CBASE, base + completion_offset(core));
            device.store(reg::CSIZE, COMPLETION_LOG2);
            device.store(reg::region(R_ARENA), base);
            device.store(reg::region(R_ARENA) + 8, bytes);
            device.store(reg::IRQ_ACK, 3);
            device.store(reg::IRQ_EN, 3);
            device.store(reg::QCTRL, 1);
            // The presets fit the empty ring.
            let first = ring_offset(core) / 32;
            self.tail[i] = program.init(arena, first) - first;
            assert!(self.tail[i] <= 1 << RING_LOG2, "the presets do not fit a ring");
            fence();
            device.store(reg::QTAIL, self.tail[i]);
        }
    }

    /// Runs every core's list at its byte offset of `top` in the arena and waits for all.
    pub fn pass(&mut self, top: &[u64; MAX_CORES], arena: &mut Shared) {
        for core in 0..self.caps.cores {
            let i = core as usize;
            let slot = ring_offset(core) / 32 + self.tail[i] % (1 << RING_LOG2);
            Emitter::new(arena, slot).call(R_ARENA, top[i]);
            self.tail[i] += 1;
        }
        fence();
        for core in 0..self.caps.cores {
            Device::npu(core).store(reg::QTAIL, self.tail[core as usize]);
        }
        let all = (1u32 << self.caps.cores) - 1;
        let (_, faulted) = interrupts::wait_for_npu(all);
        if faulted != 0 {
            self.report(faulted);
        }
        self.passes += 1;
        for core in 0..self.caps.cores {
            let records = Device::npu(core).load(reg::CTAIL);
            assert!(
                records == self.passes,
                "core {core} has {records} completions after {} passes",
                self.passes
            );
        }
    }

    /// The token the cores' result records agree on.
    pub fn pick(&self, model: &Model, arena: &Shared) -> u64 {
        let panels = model.lm_head().panels;
        let mut best = Best::default();
        for core in 0..self.caps.cores {
            let (from, to) = share(panels, core, self.caps.cores);
            // A core without a share of the vocabulary writes no record.
            if from < to {
                let record = arena.word(result_offset(core));
                best.offer(record as u32, (record >> 32) as u32);
            }
        }
        u64::from(best.index())
    }

    /// The token that core 0 drew.
    pub fn drawn(arena: &Shared) -> u64 {
        arena.word(result_offset(0)) & 0xFFFF_FFFF
    }

    fn report(&self, faulted: u32) -> ! {
        for core in (0..self.caps.cores).filter(|c| faulted >> c & 1 == 1) {
            let device = Device::npu(core);
            line!(
                "npu: core {core} fault {} at command {} address {:#x}",
                device.load(reg::FAULT),
                device.load(reg::FAULT_INDEX),
                device.load(reg::FAULT_ADDR)
            );
        }
        give_up(error::NPU_FAULT)
    }
}
