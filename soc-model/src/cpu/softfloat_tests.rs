//! Soft-float against independent computations: the host's nearest-even results, and exact products.

use super::*;

/// Bit patterns that reach every corner: specials, halfway cases, subnormals, random.
fn patterns(bits: u32, count: u64) -> impl Iterator<Item = u64> {
    let frac = if bits == 32 { 23 } else { 52 };
    let top = (1u64 << (bits - 1 - frac)) - 1;
    (0..count).map(move |n| {
        let mut z = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        let sign = (z & 1) << (bits - 1);
        let exp = match z >> 1 & 7 {
            0 => 0,
            1 => top,
            2 => 1,
            3 => top - 1,
            4..=6 => (top / 2).wrapping_add(z >> 8 & 63).wrapping_sub(32),
            _ => z >> 8 & top,
        };
        let all = (1u64 << frac) - 1;
        let mantissa = match z >> 4 & 7 {
            0 => 0,
            1 => all,
            2 => 1,
            3 => 1 << (frac - 1),
            _ => z >> 12 & all,
        };
        sign | exp << frac | mantissa
    })
}

// Which NaN the host makes is not defined: decide by bits that the optimiser cannot see through.
fn same(ours: u64, host: f64, what: &str) {
    let bits = std::hint::black_box(host.to_bits());
    let expected = if bits << 1 > F64::INF << 1 { F64::NAN } else { bits };
    assert_eq!(ours, expected, "{what}");
}

fn same32(ours: u64, host: f32, what: &str) {
    let bits = u64::from(std::hint::black_box(host.to_bits()));
    let expected = if bits & 0x7fff_ffff > F32::INF { F32::NAN } else { bits };
    assert_eq!(ours, expected, "{what}");
}

#[test]
fn nearest_even_results_are_the_hosts() {
    let f = f64::from_bits;
    let g = |v: u64| f32::from_bits(v as u32);
    let rne = Round::NearestEven;
    let mut flags = 0;
    let wide: Vec<u64> = patterns(64, 60_000).collect();
    for t in wide.windows(3) {
        let (a, b, c) = (t[0], t[1], t[2]);
        same(add::<F64>(a, b, rne, &mut flags), f(a) + f(b), "add");
        same(sub::<F64>(a, b, rne, &mut flags), f(a) - f(b), "sub");
        same(mul::<F64>(a, b, rne, &mut flags), f(a) * f(b), "mul");
        same(div::<F64>(a, b, rne, &mut flags), f(a) / f(b), "div");
        same(sqrt::<F64>(a, rne, &mut flags), f(a).sqrt(), "sqrt");
        same(fma::<F64>(a, b, c, rne, &mut flags), f(a).mul_add(f(b), f(c)), "fma");
        same32(convert::<F64, F32>(a, rne, &mut flags), f(a) as f32, "narrow");
        assert_eq!(eq::<F64>(a, b, &mut flags), f(a) == f(b));
        assert_eq!(lt::<F64>(a, b, &mut flags), f(a) < f(b));
        assert_eq!(le::<F64>(a, b, &mut flags), f(a) <= f(b));
        same(from_int::<F64>(a, Int { bits: 64, signed: true }, rne, &mut flags), a as i64 as f64, "from");
        same(from_int::<F64>(a, Int { bits: 64, signed: false }, rne, &mut flags), a as f64, "from");
    }
    let narrow: Vec<u64> = patterns(32, 60_000).collect();
    for t in narrow.windows(3) {
        let (a, b, c) = (t[0], t[1], t[2]);
        same32(add::<F32>(a, b, rne, &mut flags), g(a) + g(b), "add");
        same32(mul::<F32>(a, b, rne, &mut flags), g(a) * g(b), "mul");
        same32(div::<F32>(a, b, rne, &mut flags), g(a) / g(b), "div");
        same32(sqrt::<F32>(a, rne, &mut flags), g(a).sqrt(), "sqrt");
        same32(fma::<F32>(a, b, c, rne, &mut flags), g(a).mul_add(g(b), g(c)), "fma");
        same(convert::<F32, F64>(a, rne, &mut flags), f64::from(g(a)), "widen");
    }
}

/// Directed results bracket the nearest one, and are one step apart exactly when the result is inexact.
#[test]
fn directed_modes_bracket_and_inexact_says_so() {
    let value = |v: u64| f64::from_bits(v);
    type Binary = fn(u64, u64, Round, &mut u8) -> u64;
    let ops: [Binary; 3] = [add::<F64>, mul::<F64>, div::<F64>];
    let all: Vec<u64> = patterns(64, 40_000).collect();
    let mut inexact = 0;
    for pair in all.windows(2) {
        for op in ops {
            let mut flags = 0;
            let down = op(pair[0], pair[1], Round::Down, &mut flags);
            let up = op(pair[0], pair[1], Round::Up, &mut 0);
            let near = op(pair[0], pair[1], Round::NearestEven, &mut 0);
            let zero = op(pair[0], pair[1], Round::TowardZero, &mut 0);
            if value(near).is_nan() {
                continue;
            }
            assert!(value(down) <= value(near) && value(near) <= value(up));
            let magnitude = value(down).abs().min(value(up).abs());
            assert!(value(zero).abs() == magnitude);
            let adjacent = value(down) != value(up) && value(down).next_up() == value(up);
            assert_eq!(flags & NX != 0, adjacent, "{:x} {:x}", pair[0], pair[1]);
            assert!(adjacent || value(down) == value(up));
            inexact += u32::from(adjacent);
        }
    }
    assert!(inexact > 10_000, "the patterns must exercise rounding");
}

#[test]
fn ties_go_away_only_in_max_magnitude() {
    let one = 1f32.to_bits();
    let half_step = 2f32.powi(-24).to_bits();
    let up = u64::from(one + 1);
    let sum = |rm| add::<F32>(u64::from(one), u64::from(half_step), rm, &mut 0);
    assert_eq!(sum(Round::NearestEven), u64::from(one));
    assert_eq!(sum(Round::NearestMaxMagnitude), up);
    assert_eq!(sum(Round::Up), up);
    assert_eq!(sum(Round::TowardZero), u64::from(one));
}

#[test]
fn flags_of_the_corner_cases() {
    let d = |v: f64| v.to_bits();
    let flags_of = |op: fn(u64, u64, Round, &mut u8) -> u64, a: f64, b: f64| {
        let mut flags = 0;
        op(d(a), d(b), Round::NearestEven, &mut flags);
        flags
    };
    let tiny = f64::MIN_POSITIVE;
    assert_eq!(flags_of(div::<F64>, 1.0, 0.0), DZ);
    assert_eq!(flags_of(div::<F64>, 0.0, 0.0), NV);
    assert_eq!(flags_of(sub::<F64>, f64::INFINITY, f64::INFINITY), NV);
    assert_eq!(flags_of(mul::<F64>, f64::MAX, 2.0), OF | NX);
    assert_eq!(flags_of(mul::<F64>, tiny, 0.5), 0, "an exact subnormal does not underflow");
    assert_eq!(flags_of(mul::<F64>, tiny.next_up(), 0.5), UF | NX);
    // Just below the least normal, but rounding to 53 bits reaches it: not tiny after rounding.
    assert_eq!(flags_of(mul::<F64>, tiny.next_up(), 1.0 - f64::EPSILON / 2.0), NX);
    let mut flags = 0;
    assert_eq!(fma::<F64>(F64::INF, 0, F64::NAN, Round::NearestEven, &mut flags), F64::NAN);
    assert_eq!(flags, NV, "infinity times zero is invalid even with a quiet NaN addend");
}

#[test]
fn integers_saturate_and_say_invalid() {
    let i32_ = Int { bits: 32, signed: true };
    let u32_ = Int { bits: 32, signed: false };
    let i64_ = Int { bits: 64, signed: true };
    let u64_ = Int { bits: 64, signed: false };
    for (value, to, expected, flag) in [
        (f64::NAN, i32_, 0x7fff_ffff, NV),
        (f64::NAN, u32_, u64::MAX, NV),
        (f64::NEG_INFINITY, i64_, 1 << 63, NV),
        (f64::INFINITY, u64_, u64::MAX, NV),
        (-1.0, u64_, 0, NV),
        (-0.5, u64_, 0, NX),
        (-0.9, i32_, 0, NX),
        (2_147_483_647.5, i32_, 0x7fff_ffff, NX),
        (2_147_483_648.0, i32_, 0x7fff_ffff, NV),
        (-2_147_483_648.0, i32_, 0xffff_ffff_8000_0000, 0),
        (4_294_967_295.0, u32_, u64::MAX, 0),
        (18_446_744_073_709_549_568.0, u64_, 18_446_744_073_709_549_568, 0),
    ] {
        let mut flags = 0;
        let got = to_int::<F64>(value.to_bits(), to, Round::TowardZero, &mut flags);
        assert_eq!((got, flags), (expected, flag), "{value} to {to:?}");
    }
}

#[test]
fn minimum_and_class_know_their_corners() {
    let (pos, neg) = (0u64, F64::SIGN);
    let signaling = F64::INF | 1;
    let mut flags = 0;
    assert_eq!(min_max::<F64>(pos, neg, false, &mut flags), neg);
    assert_eq!(min_max::<F64>(neg, pos, true, &mut flags), pos);
    assert_eq!(min_max::<F64>(F64::NAN, pos, true, &mut flags), pos);
    assert_eq!(flags, 0);
    assert_eq!(min_max::<F64>(signaling, F64::NAN, true, &mut flags), F64::NAN);
    assert_eq!(flags, NV);
    let ladder = [F64::INF | neg, neg | 1 << 52, neg | 1, neg, 0, 1, 1 << 52, F64::INF, signaling, F64::NAN];
    for (bit, value) in ladder.into_iter().enumerate() {
        assert_eq!(class::<F64>(value), 1 << bit);
    }
}
