//! Quantities that carry their unit in the type; only the arithmetic that makes sense compiles.

use core::fmt;
use core::ops::{Add, AddAssign, Mul, Sub};

macro_rules! quantity {
    ($(#[$doc:meta])* $name:ident, $unit:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        #[must_use]
        pub struct $name(u64);

        impl $name {
            /// Zero of this quantity.
            pub const ZERO: Self = Self(0);
            /// The quantity from its integer count of base units.
            pub const fn new(value: u64) -> Self { Self(value) }
            /// The integer count of base units.
            #[must_use]
            pub const fn get(self) -> u64 { self.0 }
            /// Difference, or zero where it would be negative.
            pub const fn saturating_sub(self, rhs: Self) -> Self { Self(self.0.saturating_sub(rhs.0)) }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { write!(f, "{} {}", self.0, $unit) }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { write!(f, "{} {}", self.0, $unit) }
        }
    };
}

macro_rules! additive {
    ($($name:ident),*) => { $(
        impl Add for $name { type Output = Self; fn add(self, rhs: Self) -> Self { Self(self.0 + rhs.0) } }
        impl AddAssign for $name { fn add_assign(&mut self, rhs: Self) { self.0 += rhs.0; } }
        impl Sub for $name { type Output = Self; fn sub(self, rhs: Self) -> Self { Self(self.0 - rhs.0) } }
        impl Mul<u64> for $name { type Output = Self; fn mul(self, rhs: u64) -> Self { Self(self.0 * rhs) } }
        impl core::iter::Sum for $name {
            fn sum<I: Iterator<Item = Self>>(iter: I) -> Self { iter.fold(Self(0), |a, b| a + b) }
        }
    )* };
}

quantity!(
    /// A point or span of simulated time in femtoseconds; the range is 5.1 hours.
    Time, "fs");
quantity!(
    /// A frequency.
    Hertz, "Hz");
quantity!(
    /// Edges of one clock; never crosses a component boundary.
    Cycles, "cycles");
quantity!(
    /// An amount of data.
    Bytes, "B");
quantity!(
    /// A physical address.
    Addr, "addr");
quantity!(
    /// Energy in femtojoules; the range is 18 kJ.
    Energy, "fJ");
quantity!(
    /// A supply voltage.
    MilliVolt, "mV");
additive!(Time, Cycles, Bytes, Energy);

/// Femtoseconds in a second.
pub const FS_PER_S: u64 = 1_000_000_000_000_000;

impl Time {
    /// The end of time; no event may be scheduled there.
    pub const MAX: Self = Self(u64::MAX);
    /// A span from nanoseconds.
    pub const fn from_ns(ns: u64) -> Self {
        Self(ns * 1_000_000)
    }
    /// A span from picoseconds.
    pub const fn from_ps(ps: u64) -> Self {
        Self(ps * 1_000)
    }
    /// Whole nanoseconds, rounded down.
    #[must_use]
    pub const fn as_ns(self) -> u64 {
        self.0 / 1_000_000
    }
}

impl Add<Bytes> for Addr {
    type Output = Self;
    fn add(self, rhs: Bytes) -> Self {
        Self(self.0 + rhs.0)
    }
}

impl Bytes {
    /// Time to move this many bytes at `per_second` bytes a second, rounded up to a femtosecond.
    pub fn time_at(self, per_second: u64) -> Time {
        let fs = (u128::from(self.0) * u128::from(FS_PER_S)).div_ceil(u128::from(per_second.max(1)));
        Time(u64::try_from(fs).expect("a transfer fits the range of simulated time"))
    }
}
