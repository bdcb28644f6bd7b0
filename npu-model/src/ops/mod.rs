//! The operations of the matrix and vector engines: what they accept, compute and cost. One file an operation.
//!
//! Models: GEMM and VEC commands of `isa::npu` that [`executes`] lists, bit-exactly; their cycles and actions.
//! Does not model: DMA and CTRL commands (the engines in time do), anything [`check`] answers with NotInCap.
//! Source: `isa::npu` for the encoding; each file for its arithmetic.
//!
//! A command is first turned into a plan: every field checked, every operand a byte range known to lie in its
//! memory. [`check`], [`execute`] and [`cost()`] share that plan, so what is checked is what runs and is charged.
//!
//! Arithmetic is fp32, every operation rounded once, multiply then add, sums in ascending order; exponentials,
//! sines and roots are `libm`'s. Stored NaNs are canonical. Reads of a row complete before its writes; a GEMM reads
//! A, B, scales, rescale vector and bias completely before it writes anything.
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap,
    reason = "fields are at most 36 bits and every address is range-checked against a memory before it is narrowed"
)]

mod argmax;
mod cost;
mod elementwise;
mod flash;
pub(crate) mod gemm;
mod narrow;
pub mod number;
mod operand;
mod qdyn;
mod rmsnorm;
mod rope;
mod rounding;
mod vector;

use isa::npu::{Body, Command, Extension, VecFn};

pub use cost::{Cost, Path};
pub use number::FORMATS;

use crate::config::NpuConfig;
use crate::fault::Fault;
use crate::local::Local;

/// Token ids of a shape-only run, by position.
pub type Ids<'a> = &'a dyn Fn(u64) -> u32;

/// Who computes a VEC function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kernel {
    Elementwise(elementwise::Op),
    Rmsnorm,
    Rope(rope::Pairing),
    FlashStep,
    FlashFinish,
    Qdyn,
    Argmax,
}

/// The one table of executed VEC functions; capability registers and checks derive from it.
const fn kernel(function: VecFn) -> Option<Kernel> {
    use elementwise::Op;
    match function {
        VecFn::Cvt => Some(Kernel::Elementwise(Op::Convert)),
        VecFn::Add => Some(Kernel::Elementwise(Op::Add)),
        VecFn::Sub => Some(Kernel::Elementwise(Op::Sub)),
        VecFn::Mul => Some(Kernel::Elementwise(Op::Mul)),
        VecFn::Max => Some(Kernel::Elementwise(Op::Max)),
        VecFn::Min => Some(Kernel::Elementwise(Op::Min)),
        VecFn::Silu => Some(Kernel::Elementwise(Op::Silu)),
        VecFn::Swiglu => Some(Kernel::Elementwise(Op::Swiglu)),
        VecFn::Rmsnorm => Some(Kernel::Rmsnorm),
        VecFn::FaStep => Some(Kernel::FlashStep),
        VecFn::FaFin => Some(Kernel::FlashFinish),
        VecFn::RopeHalf => Some(Kernel::Rope(rope::Pairing::Half)),
        VecFn::RopeInter => Some(Kernel::Rope(rope::Pairing::Neighbour)),
        VecFn::Qdyn => Some(Kernel::Qdyn),
        VecFn::Argmax => Some(Kernel::Argmax),
        VecFn::Div
        | VecFn::Fma
        | VecFn::Abs
        | VecFn::Neg
        | VecFn::Clamp
        | VecFn::Cmp
        | VecFn::Select
        | VecFn::Relu
        | VecFn::GeluT
        | VecFn::GeluE
        | VecFn::Sigmoid
        | VecFn::Tanh
        | VecFn::Exp
        | VecFn::Log
        | VecFn::Rsqrt
        | VecFn::Recip
        | VecFn::Lut
        | VecFn::Geglu
        | VecFn::Reglu
        | VecFn::Rsum
        | VecFn::Rmax
        | VecFn::Rabsmax
        | VecFn::Rsumsq
        | VecFn::Cumsum
        | VecFn::Layernorm
        | VecFn::Softmax
        | VecFn::Softcap
        | VecFn::Deq
        | VecFn::Mxq
        | VecFn::Transpose
        | VecFn::Permute
        | VecFn::Pad
        | VecFn::Topk
        | VecFn::Sample
        | VecFn::Route
        | VecFn::Segsum
        | VecFn::Dsoftmax
        | VecFn::Drmsnorm
        | VecFn::Dlayernorm
        | VecFn::Dsilu
        | VecFn::Dgelu
        | VecFn::Xent
        | VecFn::Adamw => None,
    }
}

/// Whether this NPU executes a VEC function.
#[must_use]
pub const fn executes(function: VecFn) -> bool {
    kernel(function).is_some()
}

/// What CAP_VEC0..CAP_VEC2 read: bit `code % 64` of word `code / 64` for every executed VEC function.
#[must_use]
pub const fn caps() -> [u64; 3] {
    let mut words = [0; 3];
    let mut i = 0;
    while i < VecFn::ALL.len() {
        if executes(VecFn::ALL[i]) {
            let code = VecFn::ALL[i].code();
            words[(code / 64) as usize] |= 1 << (code % 64);
        }
        i += 1;
    }
    words
}

/// A checked command.
enum Plan {
    Gemm(Box<gemm::Plan>),
    Elementwise(elementwise::Plan),
    Rmsnorm(rmsnorm::Plan),
    Rope(rope::Plan),
    FlashStep(flash::Step),
    FlashFinish(flash::Finish),
    Qdyn(qdyn::Plan),
    Argmax(argmax::Plan),
    /// DMA and CTRL: checked, executed and charged by their own engines.
    Elsewhere,
}

fn plan(command: &Command, cfg: &NpuConfig) -> Result<Plan, Fault> {
    match &command.body {
        Body::Gemm(body) => {
            let epilogue = match &command.extension {
                Some(Extension::Epilogue(e)) => Some(e),
                Some(_) => return Err(Fault::command(0, "a GEMM takes only the epilogue extension")),
                None => None,
            };
            Ok(Plan::Gemm(Box::new(gemm::Plan::new(cfg, body, epilogue)?)))
        }
        Body::Vec(body) => {
            let position = match &command.extension {
                Some(Extension::Position(e)) => Some(e),
                Some(_) => return Err(Fault::command(0, "a VEC takes only the position extension")),
                None => None,
            };
            let function = VecFn::from_code(body.func).ok_or(Fault::command(body.func, "func"))?;
            let kernel =
                kernel(function).ok_or(Fault::not_in_cap(body.func, "this VEC function does not execute"))?;
            let request = vector::Request::new(cfg, body, position, kernel)?;
            Ok(match kernel {
                Kernel::Elementwise(op) => Plan::Elementwise(elementwise::Plan::new(&request, op)?),
                Kernel::Rmsnorm => Plan::Rmsnorm(rmsnorm::Plan::new(&request)?),
                Kernel::Rope(pairing) => Plan::Rope(rope::Plan::new(&request, pairing)?),
                Kernel::FlashStep => Plan::FlashStep(flash::Step::new(&request)?),
                Kernel::FlashFinish => Plan::FlashFinish(flash::Finish::new(&request)?),
                Kernel::Qdyn => Plan::Qdyn(qdyn::Plan::new(&request)?),
                Kernel::Argmax => Plan::Argmax(argmax::Plan::new(&request)?),
            })
        }
        Body::Dma(_) | Body::Ctrl(_) => Ok(Plan::Elsewhere),
    }
}

/// Checks a GEMM or VEC command: formats, functions, operand rules, ranges. Passes DMA and CTRL commands.
///
/// # Errors
/// The fault the queue stops with.
pub fn check(command: &Command, cfg: &NpuConfig) -> Result<(), Fault> {
    plan(command, cfg).map(|_| ())
}

/// Executes a GEMM or VEC command on one core's memories.
///
/// With `ids` (a shape-only run) nothing is computed except ARGMAX, whose winner is the id of its position.
///
/// # Errors
/// The fault the queue stops with; memories are then unchanged, unless they are smaller than `cfg` says.
pub fn execute(
    command: &Command,
    cfg: &NpuConfig,
    local: &mut Local,
    ids: Option<Ids<'_>>,
) -> Result<(), Fault> {
    let plan = plan(command, cfg)?;
    if let Some(ids) = ids {
        return match plan {
            Plan::Argmax(p) => p.run_shape_only(local, ids),
            _ => Ok(()),
        };
    }
    match plan {
        Plan::Gemm(p) => p.run(local),
        Plan::Elementwise(p) => p.run(local),
        Plan::Rmsnorm(p) => p.run(local),
        Plan::Rope(p) => p.run(local),
        Plan::FlashStep(p) => p.run(local),
        Plan::FlashFinish(p) => p.run(local),
        Plan::Qdyn(p) => p.run(local),
        Plan::Argmax(p) => p.run(local),
        Plan::Elsewhere => Err(Fault::command(0, "neither a GEMM nor a VEC command")),
    }
}

/// Cost of a GEMM or VEC command in its engine; zero for DMA and CTRL commands.
///
/// # Errors
/// The fault [`check`] answers with.
pub fn cost(command: &Command, cfg: &NpuConfig) -> Result<Cost, Fault> {
    Ok(match plan(command, cfg)? {
        Plan::Gemm(p) => p.cost(),
        Plan::Elementwise(p) => p.cost(cfg),
        Plan::Rmsnorm(p) => p.cost(cfg),
        Plan::Rope(p) => p.cost(cfg),
        Plan::FlashStep(p) => p.cost(cfg),
        Plan::FlashFinish(p) => p.cost(cfg),
        Plan::Qdyn(p) => p.cost(cfg),
        Plan::Argmax(p) => p.cost(cfg),
        Plan::Elsewhere => Cost::default(),
    })
}
