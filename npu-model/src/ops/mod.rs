//! The operations of the matrix and vector engines: what they accept, compute and cost. One file an operation.
//!
//! Models: GEMM commands and all VEC functions of `isa::npu`, bit-exactly; their cycles and actions.
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

mod adamw;
mod approx;
mod argmax;
mod cost;
mod deq;
mod dnorm;
mod dsoftmax;
mod elementwise;
mod flash;
pub(crate) mod gemm;
mod layernorm;
mod lut;
mod mask;
mod mxq;
mod narrow;
pub mod number;
mod operand;
mod qdyn;
mod random;
mod reduce;
mod rmsnorm;
mod rope;
mod rounding;
mod route;
mod sample;
mod segsum;
mod shuffle;
mod softmax;
mod topk;
mod vector;
mod xent;

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
    Layernorm,
    Softmax,
    Rope(rope::Pairing),
    FlashStep,
    FlashFinish,
    Qdyn,
    Argmax,
    Topk,
    Sample,
    Reduce(reduce::Reduction),
    Lut,
    Deq,
    Mxq,
    Shuffle(shuffle::Move),
    Route,
    Segsum,
    Dsoftmax,
    Dnorm { centred: bool },
    Xent,
    Adamw,
}

impl Kernel {
    /// Which fields that change a function's meaning this one takes.
    const fn takes(self) -> vector::Takes {
        let none = vector::Takes::NONE;
        match self {
            Self::Elementwise(op) => op.takes(),
            Self::Rmsnorm | Self::Layernorm => vector::Takes { accuracy: true, statistics: true, ..none },
            Self::Softmax => vector::Takes { accuracy: true, mask: true, statistics: true, ..none },
            Self::FlashStep => vector::Takes { accuracy: true, mask: true, update: true, ..none },
            Self::FlashFinish | Self::Sample | Self::Route | Self::Xent => {
                vector::Takes { accuracy: true, ..none }
            }
            Self::Dnorm { .. } => vector::Takes { accuracy: true, update: true, ..none },
            Self::Argmax | Self::Topk | Self::Segsum => vector::Takes { update: true, ..none },
            Self::Reduce(r) => {
                let update = !matches!(r, reduce::Reduction::Running);
                vector::Takes { update, predicate: true, ..none }
            }
            Self::Adamw => vector::Takes { rounding: true, ..none },
            // Its statistics are the sums of its blocks.
            Self::Qdyn => vector::Takes { statistics: true, ..none },
            Self::Rope(_) | Self::Lut | Self::Deq | Self::Mxq | Self::Shuffle(_) | Self::Dsoftmax => none,
        }
    }
}

/// The one table of executed VEC functions.
const fn kernel(function: VecFn) -> Kernel {
    use approx::Special;
    use elementwise::Op;
    use reduce::Reduction;
    use shuffle::Move;
    match function {
        VecFn::Cvt => Kernel::Elementwise(Op::Convert),
        VecFn::Add => Kernel::Elementwise(Op::Add),
        VecFn::Sub => Kernel::Elementwise(Op::Sub),
        VecFn::Mul => Kernel::Elementwise(Op::Mul),
        VecFn::Div => Kernel::Elementwise(Op::Div),
        VecFn::Max => Kernel::Elementwise(Op::Max),
        VecFn::Min => Kernel::Elementwise(Op::Min),
        VecFn::Fma => Kernel::Elementwise(Op::Fma),
        VecFn::Abs => Kernel::Elementwise(Op::Abs),
        VecFn::Neg => Kernel::Elementwise(Op::Neg),
        VecFn::Clamp => Kernel::Elementwise(Op::Clamp),
        VecFn::Cmp => Kernel::Elementwise(Op::Cmp),
        VecFn::Select => Kernel::Elementwise(Op::Select),
        VecFn::Relu => Kernel::Elementwise(Op::Relu),
        VecFn::Swiglu => Kernel::Elementwise(Op::Swiglu),
        VecFn::Geglu => Kernel::Elementwise(Op::Geglu),
        VecFn::Reglu => Kernel::Elementwise(Op::Reglu),
        VecFn::Softcap => Kernel::Elementwise(Op::Softcap),
        VecFn::Dsilu => Kernel::Elementwise(Op::Dsilu),
        VecFn::Dgelu => Kernel::Elementwise(Op::Dgelu),
        VecFn::GeluT => Kernel::Elementwise(Op::Special(Special::GeluT)),
        VecFn::GeluE => Kernel::Elementwise(Op::Special(Special::GeluE)),
        VecFn::Silu => Kernel::Elementwise(Op::Special(Special::Silu)),
        VecFn::Sigmoid => Kernel::Elementwise(Op::Special(Special::Sigmoid)),
        VecFn::Tanh => Kernel::Elementwise(Op::Special(Special::Tanh)),
        VecFn::Exp => Kernel::Elementwise(Op::Special(Special::Exp)),
        VecFn::Log => Kernel::Elementwise(Op::Special(Special::Log)),
        VecFn::Rsqrt => Kernel::Elementwise(Op::Special(Special::Rsqrt)),
        VecFn::Recip => Kernel::Elementwise(Op::Special(Special::Recip)),
        VecFn::Layernorm => Kernel::Layernorm,
        VecFn::Softmax => Kernel::Softmax,
        VecFn::Topk => Kernel::Topk,
        VecFn::Sample => Kernel::Sample,
        VecFn::Rmsnorm => Kernel::Rmsnorm,
        VecFn::FaStep => Kernel::FlashStep,
        VecFn::FaFin => Kernel::FlashFinish,
        VecFn::RopeHalf => Kernel::Rope(rope::Pairing::Half),
        VecFn::RopeInter => Kernel::Rope(rope::Pairing::Neighbour),
        VecFn::Qdyn => Kernel::Qdyn,
        VecFn::Argmax => Kernel::Argmax,
        VecFn::Lut => Kernel::Lut,
        VecFn::Rsum => Kernel::Reduce(Reduction::Sum),
        VecFn::Rmax => Kernel::Reduce(Reduction::Max),
        VecFn::Rabsmax => Kernel::Reduce(Reduction::AbsMax),
        VecFn::Rsumsq => Kernel::Reduce(Reduction::SumSquares),
        VecFn::Cumsum => Kernel::Reduce(Reduction::Running),
        VecFn::Deq => Kernel::Deq,
        VecFn::Mxq => Kernel::Mxq,
        VecFn::Transpose => Kernel::Shuffle(Move::Transpose),
        VecFn::Permute => Kernel::Shuffle(Move::Permute),
        VecFn::Pad => Kernel::Shuffle(Move::Pad),
        VecFn::Route => Kernel::Route,
        VecFn::Segsum => Kernel::Segsum,
        VecFn::Dsoftmax => Kernel::Dsoftmax,
        VecFn::Drmsnorm => Kernel::Dnorm { centred: false },
        VecFn::Dlayernorm => Kernel::Dnorm { centred: true },
        VecFn::Xent => Kernel::Xent,
        VecFn::Adamw => Kernel::Adamw,
    }
}

/// What CAP_VEC0..CAP_VEC2 read: bit `code % 64` of word `code / 64` for every VEC function, as all execute.
#[must_use]
pub const fn caps() -> [u64; 3] {
    let mut words = [0; 3];
    let mut i = 0;
    while i < VecFn::ALL.len() {
        let code = VecFn::ALL[i].code();
        words[(code / 64) as usize] |= 1 << (code % 64);
        i += 1;
    }
    words
}

/// A checked command.
enum Plan {
    Gemm(Box<gemm::Plan>),
    Elementwise(elementwise::Plan),
    Rmsnorm(rmsnorm::Plan),
    Layernorm(layernorm::Plan),
    Softmax(softmax::Plan),
    Rope(rope::Plan),
    FlashStep(flash::Step),
    FlashFinish(flash::Finish),
    Qdyn(qdyn::Plan),
    Argmax(argmax::Plan),
    Topk(topk::Plan),
    Sample(sample::Plan),
    Reduce(reduce::Plan),
    Lut(lut::Plan),
    Deq(deq::Plan),
    Mxq(mxq::Plan),
    Shuffle(shuffle::Plan),
    Route(route::Plan),
    Segsum(segsum::Plan),
    Dsoftmax(dsoftmax::Plan),
    Dnorm(dnorm::Plan),
    Xent(xent::Plan),
    Adamw(adamw::Plan),
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
            let kernel = kernel(function);
            let request = vector::Request::new(cfg, body, position, kernel)?;
            Ok(match kernel {
                Kernel::Elementwise(op) => Plan::Elementwise(elementwise::Plan::new(&request, op)?),
                Kernel::Rmsnorm => Plan::Rmsnorm(rmsnorm::Plan::new(&request)?),
                Kernel::Layernorm => Plan::Layernorm(layernorm::Plan::new(&request)?),
                Kernel::Softmax => Plan::Softmax(softmax::Plan::new(&request)?),
                Kernel::Topk => Plan::Topk(topk::Plan::new(&request)?),
                Kernel::Sample => Plan::Sample(sample::Plan::new(&request)?),
                Kernel::Reduce(r) => Plan::Reduce(reduce::Plan::new(&request, r)?),
                Kernel::Lut => Plan::Lut(lut::Plan::new(&request)?),
                Kernel::Deq => Plan::Deq(deq::Plan::new(&request)?),
                Kernel::Mxq => Plan::Mxq(mxq::Plan::new(&request)?),
                Kernel::Shuffle(m) => Plan::Shuffle(shuffle::Plan::new(&request, m)?),
                Kernel::Route => Plan::Route(route::Plan::new(&request)?),
                Kernel::Segsum => Plan::Segsum(segsum::Plan::new(&request)?),
                Kernel::Dsoftmax => Plan::Dsoftmax(dsoftmax::Plan::new(&request)?),
                Kernel::Dnorm { centred } => Plan::Dnorm(dnorm::Plan::new(&request, centred)?),
                Kernel::Xent => Plan::Xent(xent::Plan::new(&request)?),
                Kernel::Adamw => Plan::Adamw(adamw::Plan::new(&request)?),
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
/// With `ids` (a shape-only run) nothing is computed except ARGMAX, TOPK and SAMPLE, whose winner is the id of
/// their position.
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
            Plan::Topk(p) => p.run_shape_only(local, ids),
            Plan::Sample(p) => p.run_shape_only(local, ids),
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
        Plan::Topk(p) => p.run(local),
        Plan::Sample(p) => p.run(local),
        Plan::Reduce(p) => p.run(local),
        Plan::Lut(p) => p.run(local),
        Plan::Deq(p) => p.run(local),
        Plan::Mxq(p) => p.run(local),
        Plan::Shuffle(p) => p.run(local),
        Plan::Route(p) => p.run(local),
        Plan::Segsum(p) => p.run(local),
        Plan::Dsoftmax(p) => p.run(local),
        Plan::Dnorm(p) => p.run(local),
        Plan::Xent(p) => p.run(local),
        Plan::Adamw(p) => p.run(local),
        Plan::Layernorm(p) => p.run(local),
        Plan::Softmax(p) => p.run(local),
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
        Plan::Topk(p) => p.cost(cfg),
        Plan::Sample(p) => p.cost(cfg),
        Plan::Reduce(p) => p.cost(cfg),
        Plan::Lut(p) => p.cost(cfg),
        Plan::Deq(p) => p.cost(cfg),
        Plan::Mxq(p) => p.cost(cfg),
        Plan::Shuffle(p) => p.cost(cfg),
        Plan::Route(p) => p.cost(cfg),
        Plan::Segsum(p) => p.cost(cfg),
        Plan::Dsoftmax(p) => p.cost(cfg),
        Plan::Dnorm(p) => p.cost(cfg),
        Plan::Xent(p) => p.cost(cfg),
        Plan::Adamw(p) => p.cost(cfg),
        Plan::Layernorm(p) => p.cost(cfg),
        Plan::Softmax(p) => p.cost(cfg),
        Plan::Elsewhere => Cost::default(),
    })
}
