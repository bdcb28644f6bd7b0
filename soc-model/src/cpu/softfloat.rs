//! IEEE 754 binary32 and binary64 arithmetic on integers: all RISC-V rounding modes, all exception flags.
//!
//! Models: add, multiply, fused multiply-add, divide, square root, compares, conversions, canonical NaN results,
//! tininess detected after rounding.
//! Does not model: NaN payload propagation (RISC-V does not have it), half and quad precision.
//! Source: IEEE 754-2019; RISC-V Instruction Set Manual, Volume I, 20240411, chapters "F" and "D Extension".
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "significands and exponents are cut out of and packed into bit patterns"
)]

/// Inexact.
pub const NX: u8 = 1;
/// Underflow.
pub const UF: u8 = 2;
/// Overflow.
pub const OF: u8 = 4;
/// Divide by zero.
pub const DZ: u8 = 8;
/// Invalid operation.
pub const NV: u8 = 16;

/// Rounding direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Round {
    /// To nearest, ties to even.
    NearestEven,
    /// Towards zero.
    TowardZero,
    /// Towards minus infinity.
    Down,
    /// Towards plus infinity.
    Up,
    /// To nearest, ties away from zero.
    NearestMaxMagnitude,
}

impl Round {
    /// The mode with this encoding, if it is one.
    #[must_use]
    pub const fn from_bits(rm: u8) -> Option<Self> {
        match rm {
            0 => Some(Self::NearestEven),
            1 => Some(Self::TowardZero),
            2 => Some(Self::Down),
            3 => Some(Self::Up),
            4 => Some(Self::NearestMaxMagnitude),
            _ => None,
        }
    }

    /// Whether to step away from zero, given what was cut off relative to half a unit.
    fn away(self, negative: bool, odd: bool, rest: u64, half: u64) -> bool {
        match self {
            Self::NearestEven => rest > half || rest == half && odd,
            Self::NearestMaxMagnitude => rest >= half,
            Self::TowardZero => false,
            Self::Down => negative && rest != 0,
            Self::Up => !negative && rest != 0,
        }
    }
}

/// A binary interchange format.
pub trait Format: Copy {
    /// Stored significand bits.
    const FRAC: u32;
    /// Exponent bits.
    const EXP: u32;
    /// Exponent bias.
    const BIAS: i32 = (1 << (Self::EXP - 1)) - 1;
    /// Bit of the sign.
    const SIGN: u64 = 1 << (Self::FRAC + Self::EXP);
    /// Infinity.
    const INF: u64 = ((1 << Self::EXP) - 1) << Self::FRAC;
    /// The canonical NaN.
    const NAN: u64 = Self::INF | 1 << (Self::FRAC - 1);
}

/// binary32.
#[derive(Clone, Copy, Debug)]
pub struct F32;
/// binary64.
#[derive(Clone, Copy, Debug)]
pub struct F64;
impl Format for F32 {
    const FRAC: u32 = 23;
    const EXP: u32 = 8;
}
impl Format for F64 {
    const FRAC: u32 = 52;
    const EXP: u32 = 11;
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Zero,
    Finite,
    Inf,
    QuietNan,
    SignalingNan,
}

/// sig / 2^63 * 2^exp for a finite number, top bit of sig set.
#[derive(Clone, Copy)]
struct Unpacked {
    kind: Kind,
    negative: bool,
    exp: i32,
    sig: u64,
}

impl Unpacked {
    fn is_nan(self) -> bool {
        matches!(self.kind, Kind::QuietNan | Kind::SignalingNan)
    }
}

fn unpack<F: Format>(bits: u64) -> Unpacked {
    let negative = bits & F::SIGN != 0;
    let frac = bits & ((1 << F::FRAC) - 1);
    let biased = (bits & (F::SIGN - 1)) >> F::FRAC;
    let made = |kind, exp, sig| Unpacked { kind, negative, exp, sig };
    if biased == (1 << F::EXP) - 1 {
        let quiet = frac >> (F::FRAC - 1) == 1;
        let nan = if quiet { Kind::QuietNan } else { Kind::SignalingNan };
        return made(if frac == 0 { Kind::Inf } else { nan }, 0, 0);
    }
    if biased == 0 {
        if frac == 0 {
            return made(Kind::Zero, 0, 0);
        }
        let shift = frac.leading_zeros();
        return made(Kind::Finite, 1 - F::BIAS + (63 - F::FRAC as i32) - shift as i32, frac << shift);
    }
    made(Kind::Finite, biased as i32 - F::BIAS, (frac | 1 << F::FRAC) << (63 - F::FRAC))
}

fn zero<F: Format>(negative: bool) -> u64 {
    if negative { F::SIGN } else { 0 }
}

fn infinity<F: Format>(negative: bool) -> u64 {
    F::INF | zero::<F>(negative)
}

/// Shifts right, keeping a one in the lowest bit if anything was lost.
fn shift_right_jam(x: u128, by: u32) -> u128 {
    match by {
        0 => x,
        1..=127 => x >> by | u128::from(x << (128 - by) != 0),
        _ => u128::from(x != 0),
    }
}

/// Rounds sig / 2^63 * 2^exp (top bit of sig set, lowest bit sticky) into the format.
fn round_pack<F: Format>(negative: bool, exp: i32, sig: u64, rm: Round, flags: &mut u8) -> u64 {
    let drop = 63 - F::FRAC;
    let half = 1u64 << (drop - 1);
    let cut = (1u64 << drop) - 1;
    let least = 1 - F::BIAS;
    let (mut exp, mut sig, mut tiny) = (exp, sig, false);
    if exp < least {
        // With an unbounded exponent, would rounding reach the least normal number?
        let carries = sig | cut == u64::MAX && rm.away(negative, true, sig & cut, half);
        tiny = exp < least - 1 || !carries;
        sig = shift_right_jam(u128::from(sig), (least - exp) as u32) as u64;
        exp = least;
    }
    let rest = sig & cut;
    let mut kept = sig >> drop;
    if rest != 0 {
        *flags |= NX;
        if tiny {
            *flags |= UF;
        }
        kept += u64::from(rm.away(negative, kept & 1 == 1, rest, half));
    }
    if kept >> (F::FRAC + 1) != 0 {
        kept >>= 1;
        exp += 1;
    }
    if exp > F::BIAS {
        *flags |= OF | NX;
        let to_infinity = match rm {
            Round::NearestEven | Round::NearestMaxMagnitude => true,
            Round::TowardZero => false,
            Round::Down => negative,
            Round::Up => !negative,
        };
        return if to_infinity { infinity::<F>(negative) } else { infinity::<F>(negative) - 1 };
    }
    // A subnormal has no hidden bit; adding the fields lets a carry into the exponent happen by itself.
    let base = (exp + F::BIAS - 1) as u64;
    zero::<F>(negative) | ((base << F::FRAC) + kept)
}

/// As `round_pack`, for a value whose bit 127 weighs 2^exp.
fn round_pack_wide<F: Format>(negative: bool, exp: i32, x: u128, rm: Round, flags: &mut u8) -> u64 {
    let shift = x.leading_zeros();
    let x = x << shift;
    let sig = (x >> 64) as u64 | u64::from(x as u64 != 0);
    round_pack::<F>(negative, exp - shift as i32, sig, rm, flags)
}

fn nan_result<F: Format>(operands: &[Unpacked], flags: &mut u8) -> u64 {
    if operands.iter().any(|u| u.kind == Kind::SignalingNan) {
        *flags |= NV;
    }
    F::NAN
}

fn invalid<F: Format>(flags: &mut u8) -> u64 {
    *flags |= NV;
    F::NAN
}

/// a + b.
pub fn add<F: Format>(a: u64, b: u64, rm: Round, flags: &mut u8) -> u64 {
    let (x, y) = (unpack::<F>(a), unpack::<F>(b));
    if x.is_nan() || y.is_nan() {
        return nan_result::<F>(&[x, y], flags);
    }
    match (x.kind, y.kind) {
        (Kind::Inf, Kind::Inf) if x.negative != y.negative => invalid::<F>(flags),
        (Kind::Inf, _) => a,
        (_, Kind::Inf) => b,
        (Kind::Zero, Kind::Zero) if x.negative == y.negative => a,
        (Kind::Zero, Kind::Zero) => zero::<F>(rm == Round::Down),
        (Kind::Zero, _) => b,
        (_, Kind::Zero) => a,
        _ => {
            let p = u128::from(x.sig) << 61;
            let q = u128::from(y.sig) << 61;
            sum::<F>((x.negative, x.exp, p), (y.negative, y.exp, q), rm, flags)
        }
    }
}

/// a - b.
pub fn sub<F: Format>(a: u64, b: u64, rm: Round, flags: &mut u8) -> u64 {
    // A NaN stays a NaN of the same kind under a change of sign.
    add::<F>(a, b ^ F::SIGN, rm, flags)
}

/// Sum of two non-zero numbers given as (sign, weight of bit 124, value below 2^126).
fn sum<F: Format>(a: (bool, i32, u128), b: (bool, i32, u128), rm: Round, flags: &mut u8) -> u64 {
    let (mut p, mut q) = (a.2, b.2);
    let d = a.1 - b.1;
    if d >= 0 {
        q = shift_right_jam(q, d as u32);
    } else {
        p = shift_right_jam(p, d.unsigned_abs());
    }
    let exp = a.1.max(b.1) + 3;
    if a.0 == b.0 {
        return round_pack_wide::<F>(a.0, exp, p + q, rm, flags);
    }
    match p.cmp(&q) {
        core::cmp::Ordering::Equal => zero::<F>(rm == Round::Down),
        core::cmp::Ordering::Greater => round_pack_wide::<F>(a.0, exp, p - q, rm, flags),
        core::cmp::Ordering::Less => round_pack_wide::<F>(b.0, exp, q - p, rm, flags),
    }
}

/// a * b.
pub fn mul<F: Format>(a: u64, b: u64, rm: Round, flags: &mut u8) -> u64 {
    let (x, y) = (unpack::<F>(a), unpack::<F>(b));
    if x.is_nan() || y.is_nan() {
        return nan_result::<F>(&[x, y], flags);
    }
    let negative = x.negative != y.negative;
    match (x.kind, y.kind) {
        (Kind::Inf, Kind::Zero) | (Kind::Zero, Kind::Inf) => invalid::<F>(flags),
        (Kind::Inf, _) | (_, Kind::Inf) => infinity::<F>(negative),
        (Kind::Zero, _) | (_, Kind::Zero) => zero::<F>(negative),
        _ => {
            let product = u128::from(x.sig) * u128::from(y.sig);
            round_pack_wide::<F>(negative, x.exp + y.exp + 1, product, rm, flags)
        }
    }
}

/// a * b + c, rounded once.
pub fn fma<F: Format>(a: u64, b: u64, c: u64, rm: Round, flags: &mut u8) -> u64 {
    let (x, y, z) = (unpack::<F>(a), unpack::<F>(b), unpack::<F>(c));
    if matches!((x.kind, y.kind), (Kind::Inf, Kind::Zero) | (Kind::Zero, Kind::Inf)) {
        return invalid::<F>(flags);
    }
    if x.is_nan() || y.is_nan() || z.is_nan() {
        return nan_result::<F>(&[x, y, z], flags);
    }
    let negative = x.negative != y.negative;
    if x.kind == Kind::Inf || y.kind == Kind::Inf {
        let clash = z.kind == Kind::Inf && z.negative != negative;
        return if clash { invalid::<F>(flags) } else { infinity::<F>(negative) };
    }
    if z.kind == Kind::Inf {
        return c;
    }
    if x.kind == Kind::Zero || y.kind == Kind::Zero {
        return match z.kind {
            Kind::Zero if z.negative == negative => c,
            Kind::Zero => zero::<F>(rm == Round::Down),
            _ => c,
        };
    }
    // Two 53-bit significands leave at least 22 zero bits below the product, so this shift is exact.
    let product = (u128::from(x.sig) * u128::from(y.sig)) >> 2;
    if z.kind == Kind::Zero {
        return round_pack_wide::<F>(negative, x.exp + y.exp + 3, product, rm, flags);
    }
    let addend = u128::from(z.sig) << 61;
    sum::<F>((negative, x.exp + y.exp, product), (z.negative, z.exp, addend), rm, flags)
}

/// a / b.
pub fn div<F: Format>(a: u64, b: u64, rm: Round, flags: &mut u8) -> u64 {
    let (x, y) = (unpack::<F>(a), unpack::<F>(b));
    if x.is_nan() || y.is_nan() {
        return nan_result::<F>(&[x, y], flags);
    }
    let negative = x.negative != y.negative;
    match (x.kind, y.kind) {
        (Kind::Inf, Kind::Inf) | (Kind::Zero, Kind::Zero) => invalid::<F>(flags),
        (Kind::Inf, _) => infinity::<F>(negative),
        (_, Kind::Inf) | (Kind::Zero, _) => zero::<F>(negative),
        (_, Kind::Zero) => {
            *flags |= DZ;
            infinity::<F>(negative)
        }
        _ => {
            let dividend = u128::from(x.sig) << 63;
            let divisor = u128::from(y.sig);
            let wide = (dividend / divisor) << 64 | u128::from(dividend % divisor != 0);
            round_pack_wide::<F>(negative, x.exp - y.exp, wide, rm, flags)
        }
    }
}

/// Square root.
pub fn sqrt<F: Format>(a: u64, rm: Round, flags: &mut u8) -> u64 {
    let x = unpack::<F>(a);
    match x.kind {
        Kind::QuietNan | Kind::SignalingNan => nan_result::<F>(&[x], flags),
        Kind::Zero => a,
        _ if x.negative => invalid::<F>(flags),
        Kind::Inf => a,
        Kind::Finite => {
            let odd = x.exp & 1;
            let radicand = u128::from(x.sig) << (63 + odd);
            let root = radicand.isqrt();
            let wide = root << 64 | u128::from(root * root != radicand);
            round_pack_wide::<F>(false, (x.exp - odd) / 2, wide, rm, flags)
        }
    }
}

/// Numeric order of two numbers that are not NaN; the zeros are equal.
fn less<F: Format>(a: u64, b: u64) -> bool {
    let key = |v: u64| {
        let magnitude = (v & (F::SIGN - 1)) as i64;
        if v & F::SIGN == 0 { magnitude } else { -magnitude }
    };
    key(a) < key(b)
}

/// a == b; only a signalling NaN is invalid.
pub fn eq<F: Format>(a: u64, b: u64, flags: &mut u8) -> bool {
    let (x, y) = (unpack::<F>(a), unpack::<F>(b));
    if x.is_nan() || y.is_nan() {
        nan_result::<F>(&[x, y], flags);
        return false;
    }
    a == b || x.kind == Kind::Zero && y.kind == Kind::Zero
}

/// a < b; any NaN is invalid.
pub fn lt<F: Format>(a: u64, b: u64, flags: &mut u8) -> bool {
    if unpack::<F>(a).is_nan() || unpack::<F>(b).is_nan() {
        *flags |= NV;
        return false;
    }
    less::<F>(a, b)
}

/// a <= b; any NaN is invalid.
pub fn le<F: Format>(a: u64, b: u64, flags: &mut u8) -> bool {
    if unpack::<F>(a).is_nan() || unpack::<F>(b).is_nan() {
        *flags |= NV;
        return false;
    }
    !less::<F>(b, a)
}

/// The smaller (or, with `largest`, the larger) of two numbers; a NaN loses to a number, -0 is below +0.
pub fn min_max<F: Format>(a: u64, b: u64, largest: bool, flags: &mut u8) -> u64 {
    let (x, y) = (unpack::<F>(a), unpack::<F>(b));
    if x.is_nan() || y.is_nan() {
        let none = nan_result::<F>(&[x, y], flags);
        return if !x.is_nan() {
            a
        } else if !y.is_nan() {
            b
        } else {
            none
        };
    }
    let a_below = less::<F>(a, b) || x.negative && !y.negative && !less::<F>(b, a);
    if a_below == largest { b } else { a }
}

/// The ten-bit class mask of `fclass`.
#[must_use]
pub fn class<F: Format>(a: u64) -> u64 {
    let x = unpack::<F>(a);
    let subnormal = a & F::INF == 0;
    let bit = match (x.kind, x.negative) {
        (Kind::Inf, true) => 0,
        (Kind::Finite, true) => 1 + u32::from(subnormal),
        (Kind::Zero, true) => 3,
        (Kind::Zero, false) => 4,
        (Kind::Finite, false) => 6 - u32::from(subnormal),
        (Kind::Inf, false) => 7,
        (Kind::SignalingNan, _) => 8,
        (Kind::QuietNan, _) => 9,
    };
    1 << bit
}

/// An integer type of a conversion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Int {
    /// Width: 32 or 64.
    pub bits: u32,
    /// Two's complement.
    pub signed: bool,
}

/// Rounds to an integer, saturating; a 32-bit result comes sign-extended, as registers hold it.
pub fn to_int<F: Format>(a: u64, to: Int, rm: Round, flags: &mut u8) -> u64 {
    let x = unpack::<F>(a);
    let extend = |v: u64| if to.bits == 32 { i64::from(v as u32 as i32) as u64 } else { v };
    let most = u64::MAX >> (64 - to.bits + u32::from(to.signed));
    let least = if to.signed { 1u64 << (to.bits - 1) } else { 0 };
    let saturate = |negative: bool| extend(if negative { least.wrapping_neg() } else { most });
    let (magnitude, inexact) = match x.kind {
        Kind::Zero => return 0,
        Kind::Finite if x.exp <= 63 => {
            // Integer part above bit 64, fraction below.
            let fixed = if x.exp >= 0 {
                u128::from(x.sig) << (x.exp + 1)
            } else {
                shift_right_jam(u128::from(x.sig), x.exp.unsigned_abs() - 1)
            };
            let (whole, rest) = (fixed >> 64, fixed as u64);
            let up = rm.away(x.negative, whole & 1 == 1, rest, 1 << 63);
            (whole + u128::from(up), rest != 0)
        }
        _ => {
            *flags |= NV;
            return saturate(x.negative && !x.is_nan());
        }
    };
    let limit = if x.negative { least } else { most };
    if magnitude > u128::from(limit) {
        *flags |= NV;
        return saturate(x.negative);
    }
    if inexact {
        *flags |= NX;
    }
    let magnitude = magnitude as u64;
    extend(if x.negative { magnitude.wrapping_neg() } else { magnitude })
}

/// Converts an integer register value of the given type.
pub fn from_int<F: Format>(value: u64, from: Int, rm: Round, flags: &mut u8) -> u64 {
    let value = match (from.bits, from.signed) {
        (32, true) => i64::from(value as u32 as i32) as u64,
        (32, false) => value & 0xffff_ffff,
        _ => value,
    };
    let negative = from.signed && value >> 63 == 1;
    let magnitude = if negative { value.wrapping_neg() } else { value };
    if magnitude == 0 {
        return 0;
    }
    round_pack_wide::<F>(negative, 63, u128::from(magnitude) << 64, rm, flags)
}

/// Converts between formats.
pub fn convert<From: Format, To: Format>(a: u64, rm: Round, flags: &mut u8) -> u64 {
    let x = unpack::<From>(a);
    match x.kind {
        Kind::QuietNan | Kind::SignalingNan => nan_result::<To>(&[x], flags),
        Kind::Inf => infinity::<To>(x.negative),
        Kind::Zero => zero::<To>(x.negative),
        Kind::Finite => round_pack::<To>(x.negative, x.exp, x.sig, rm, flags),
    }
}

#[cfg(test)]
#[path = "softfloat_tests.rs"]
mod tests;
