//! Floating-point instructions on registers: NaN boxing, rounding-mode choice, and the fast path.
//!
//! The fast path uses the host's binary32/64 add, subtract, multiply, divide and square root, which Rust defines as
//! IEEE 754 nearest-even with no regard to the environment. It is taken only when nearest-even is asked for, the
//! inexact flag is already set and the result is finite and above the least normal number: then no other flag can
//! arise, so nothing has to be observed. Everything else is done by `softfloat`.
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "binary32 values are the low half of a register"
)]

use super::blocks::Micro;
use super::csr::CsrFile;
use super::softfloat::{self as soft, F32, F64, Format, Int, NX, Round};
use isa::rv64::Op;

const BOX: u64 = 0xffff_ffff_0000_0000;
const I32: Int = Int { bits: 32, signed: true };
const U32: Int = Int { bits: 32, signed: false };
const I64: Int = Int { bits: 64, signed: true };
const U64: Int = Int { bits: 64, signed: false };

/// The binary32 in a register: the canonical NaN if it is not boxed.
pub(super) fn unbox(value: u64) -> u64 {
    if value & BOX == BOX { value & !BOX } else { F32::NAN }
}

/// Operands of one instruction.
pub(super) struct Operands {
    pub f1: u64,
    pub f2: u64,
    pub f3: u64,
    pub x1: u64,
}

/// A result and the register file it goes to.
pub(super) enum Outcome {
    Fp(u64),
    Int(u64),
}

fn quick64(csr: &CsrFile, rm: Round, result: f64) -> Option<u64> {
    let magnitude = result.abs();
    let safe = magnitude > f64::MIN_POSITIVE && magnitude < f64::INFINITY;
    (safe && rm == Round::NearestEven && csr.fflags & NX != 0).then(|| result.to_bits())
}

fn quick32(csr: &CsrFile, rm: Round, result: f32) -> Option<u64> {
    let magnitude = result.abs();
    let safe = magnitude > f32::MIN_POSITIVE && magnitude < f32::INFINITY;
    (safe && rm == Round::NearestEven && csr.fflags & NX != 0).then(|| u64::from(result.to_bits()))
}

/// Executes an arithmetic, conversion or move instruction; `None` is an illegal instruction.
#[inline(never)]
pub(super) fn execute(micro: &Micro, o: &Operands, csr: &mut CsrFile) -> Option<Outcome> {
    let rounds = micro.op.row().format.operands().rounds;
    let rm = if !rounds {
        Round::NearestEven
    } else {
        Round::from_bits(if micro.rm == 7 { csr.frm } else { micro.rm })?
    };
    if let Some(result) = single(micro.op, o, rm, csr) {
        csr.fp_dirty();
        return Some(Outcome::Fp(BOX | result));
    }
    if let Some(result) = double(micro.op, o, rm, csr) {
        csr.fp_dirty();
        return Some(Outcome::Fp(result));
    }
    let before = csr.fflags;
    let value = to_integer(micro.op, o, rm, &mut csr.fflags)?;
    if csr.fflags != before {
        csr.fp_dirty();
    }
    Some(Outcome::Int(value))
}

/// Instructions with a binary32 result.
fn single(op: Op, o: &Operands, rm: Round, csr: &mut CsrFile) -> Option<u64> {
    let (a, b, c) = (unbox(o.f1), unbox(o.f2), unbox(o.f3));
    let host = |v: u64| f32::from_bits(v as u32);
    let neg = F32::SIGN;
    let quick = match op {
        Op::FaddS => quick32(csr, rm, host(a) + host(b)),
        Op::FsubS => quick32(csr, rm, host(a) - host(b)),
        Op::FmulS => quick32(csr, rm, host(a) * host(b)),
        Op::FdivS => quick32(csr, rm, host(a) / host(b)),
        Op::FsqrtS => quick32(csr, rm, host(a).sqrt()),
        _ => None,
    };
    if quick.is_some() {
        return quick;
    }
    let flags = &mut csr.fflags;
    Some(match op {
        Op::FaddS => soft::add::<F32>(a, b, rm, flags),
        Op::FsubS => soft::sub::<F32>(a, b, rm, flags),
        Op::FmulS => soft::mul::<F32>(a, b, rm, flags),
        Op::FdivS => soft::div::<F32>(a, b, rm, flags),
        Op::FsqrtS => soft::sqrt::<F32>(a, rm, flags),
        Op::FmaddS => soft::fma::<F32>(a, b, c, rm, flags),
        Op::FmsubS => soft::fma::<F32>(a, b, c ^ neg, rm, flags),
        Op::FnmsubS => soft::fma::<F32>(a ^ neg, b, c, rm, flags),
        Op::FnmaddS => soft::fma::<F32>(a ^ neg, b, c ^ neg, rm, flags),
        Op::FsgnjS => a & !neg | b & neg,
        Op::FsgnjnS => a & !neg | !b & neg,
        Op::FsgnjxS => a ^ b & neg,
        Op::FminS => soft::min_max::<F32>(a, b, false, flags),
        Op::FmaxS => soft::min_max::<F32>(a, b, true, flags),
        Op::FcvtSW => soft::from_int::<F32>(o.x1, I32, rm, flags),
        Op::FcvtSWu => soft::from_int::<F32>(o.x1, U32, rm, flags),
        Op::FcvtSL => soft::from_int::<F32>(o.x1, I64, rm, flags),
        Op::FcvtSLu => soft::from_int::<F32>(o.x1, U64, rm, flags),
        Op::FmvWX => o.x1 & !BOX,
        Op::FcvtSD => soft::convert::<F64, F32>(o.f1, rm, flags),
        _ => return None,
    })
}

/// Instructions with a binary64 result.
fn double(op: Op, o: &Operands, rm: Round, csr: &mut CsrFile) -> Option<u64> {
    let (a, b, c) = (o.f1, o.f2, o.f3);
    let host = f64::from_bits;
    let neg = F64::SIGN;
    let quick = match op {
        Op::FaddD => quick64(csr, rm, host(a) + host(b)),
        Op::FsubD => quick64(csr, rm, host(a) - host(b)),
        Op::FmulD => quick64(csr, rm, host(a) * host(b)),
        Op::FdivD => quick64(csr, rm, host(a) / host(b)),
        Op::FsqrtD => quick64(csr, rm, host(a).sqrt()),
        _ => None,
    };
    if quick.is_some() {
        return quick;
    }
    let flags = &mut csr.fflags;
    Some(match op {
        Op::FaddD => soft::add::<F64>(a, b, rm, flags),
        Op::FsubD => soft::sub::<F64>(a, b, rm, flags),
        Op::FmulD => soft::mul::<F64>(a, b, rm, flags),
        Op::FdivD => soft::div::<F64>(a, b, rm, flags),
        Op::FsqrtD => soft::sqrt::<F64>(a, rm, flags),
        Op::FmaddD => soft::fma::<F64>(a, b, c, rm, flags),
        Op::FmsubD => soft::fma::<F64>(a, b, c ^ neg, rm, flags),
        Op::FnmsubD => soft::fma::<F64>(a ^ neg, b, c, rm, flags),
        Op::FnmaddD => soft::fma::<F64>(a ^ neg, b, c ^ neg, rm, flags),
        Op::FsgnjD => a & !neg | b & neg,
        Op::FsgnjnD => a & !neg | !b & neg,
        Op::FsgnjxD => a ^ b & neg,
        Op::FminD => soft::min_max::<F64>(a, b, false, flags),
        Op::FmaxD => soft::min_max::<F64>(a, b, true, flags),
        Op::FcvtDW => soft::from_int::<F64>(o.x1, I32, rm, flags),
        Op::FcvtDWu => soft::from_int::<F64>(o.x1, U32, rm, flags),
        Op::FcvtDL => soft::from_int::<F64>(o.x1, I64, rm, flags),
        Op::FcvtDLu => soft::from_int::<F64>(o.x1, U64, rm, flags),
        Op::FmvDX => o.x1,
        Op::FcvtDS => soft::convert::<F32, F64>(unbox(a), rm, flags),
        _ => return None,
    })
}

/// Instructions with an integer result.
fn to_integer(op: Op, o: &Operands, rm: Round, flags: &mut u8) -> Option<u64> {
    let (d, e) = (o.f1, o.f2);
    let (a, b) = (unbox(d), unbox(e));
    Some(match op {
        Op::FcvtWS => soft::to_int::<F32>(a, I32, rm, flags),
        Op::FcvtWuS => soft::to_int::<F32>(a, U32, rm, flags),
        Op::FcvtLS => soft::to_int::<F32>(a, I64, rm, flags),
        Op::FcvtLuS => soft::to_int::<F32>(a, U64, rm, flags),
        Op::FcvtWD => soft::to_int::<F64>(d, I32, rm, flags),
        Op::FcvtWuD => soft::to_int::<F64>(d, U32, rm, flags),
        Op::FcvtLD => soft::to_int::<F64>(d, I64, rm, flags),
        Op::FcvtLuD => soft::to_int::<F64>(d, U64, rm, flags),
        Op::FeqS => u64::from(soft::eq::<F32>(a, b, flags)),
        Op::FltS => u64::from(soft::lt::<F32>(a, b, flags)),
        Op::FleS => u64::from(soft::le::<F32>(a, b, flags)),
        Op::FeqD => u64::from(soft::eq::<F64>(d, e, flags)),
        Op::FltD => u64::from(soft::lt::<F64>(d, e, flags)),
        Op::FleD => u64::from(soft::le::<F64>(d, e, flags)),
        Op::FclassS => soft::class::<F32>(a),
        Op::FclassD => soft::class::<F64>(d),
        // Moves take the bits as they are, boxed or not.
        Op::FmvXW => i64::from(d as u32 as i32) as u64,
        Op::FmvXD => d,
        _ => return None,
    })
}
