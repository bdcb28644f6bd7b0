//! A clock whose n-th edge is computed from n, so a period is never summed and nothing drifts.

use crate::units::{Cycles, FS_PER_S, Hertz, Time};

/// One clock domain: a frequency and the edge it is anchored to. A frequency change is a new anchor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    hertz: u64,
    /// Cycles and femtoseconds of a stretch that has a whole number of both: hertz and 10^15 without common factors.
    stretch: (u64, u64),
    anchor_time: u64,
    anchor_cycle: u64,
}

impl Clock {
    /// A clock with edge 0 at time zero.
    ///
    /// # Panics
    /// If the frequency is zero; configurations are validated before clocks are built.
    #[must_use]
    pub const fn new(frequency: Hertz) -> Self {
        assert!(frequency.get() > 0, "a clock needs a frequency");
        let hertz = frequency.get();
        Self { hertz, stretch: stretch(hertz), anchor_time: 0, anchor_cycle: 0 }
    }

    /// The frequency.
    pub const fn frequency(&self) -> Hertz {
        Hertz::new(self.hertz)
    }

    /// Time of edge `n`: anchor + floor((n - n0) * 10^15 / hertz).
    ///
    /// # Panics
    /// If `n` lies before the anchor.
    pub fn edge(&self, n: Cycles) -> Time {
        let since = n.get().checked_sub(self.anchor_cycle).expect("edge before the clock's anchor");
        let (cycles, fs) = self.stretch;
        let fs = match since.checked_mul(fs) {
            Some(product) => product / cycles,
            None => u64::try_from(u128::from(since) * u128::from(fs) / u128::from(cycles))
                .expect("edge within the range of simulated time"),
        };
        Time::new(self.anchor_time + fs)
    }

    /// The first edge at or after `t`.
    ///
    /// # Panics
    /// If `t` lies before the anchor.
    pub fn at_or_after(&self, t: Time) -> Cycles {
        let since = t.get().checked_sub(self.anchor_time).expect("time before the clock's anchor");
        let (cycles, fs) = self.stretch;
        let n = match since.checked_mul(cycles) {
            Some(product) => product.div_ceil(fs),
            None => u64::try_from((u128::from(since) * u128::from(cycles)).div_ceil(u128::from(fs)))
                .expect("cycle count fits"),
        };
        let mut n = self.anchor_cycle + n;
        // floor() in edge() can place edge n one femtosecond before the exact quotient.
        while n > self.anchor_cycle && self.edge(Cycles::new(n - 1)) >= t {
            n -= 1;
        }
        Cycles::new(n)
    }

    /// Number of edges strictly before or at `t`, minus one: the cycle that is running at `t`.
    pub fn cycle_at(&self, t: Time) -> Cycles {
        let n = self.at_or_after(t);
        if self.edge(n) == t { n } else { Cycles::new(n.get() - 1) }
    }

    /// Time `n` cycles after the first edge at or after `t`.
    pub fn after(&self, t: Time, n: Cycles) -> Time {
        self.edge(self.at_or_after(t) + n)
    }

    /// Continues at another frequency from the first edge at or after `t`.
    #[must_use]
    pub fn retuned(&self, t: Time, frequency: Hertz) -> Self {
        let n = self.at_or_after(t);
        Self { anchor_time: self.edge(n).get(), anchor_cycle: n.get(), ..Self::new(frequency) }
    }
}

/// hertz and femtoseconds a second, divided by all they have in common.
const fn stretch(hertz: u64) -> (u64, u64) {
    let (mut a, mut b) = (hertz, FS_PER_S);
    while b > 0 {
        (a, b) = (b, a % b);
    }
    (hertz / a, FS_PER_S / a)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_are_those_of_the_whole_quotients() {
        let hours = 3600 * FS_PER_S;
        for hertz in [1, 32_768, 1_000_000_007, 2_000_000_000, 3_900_000_000] {
            let clock = Clock::new(Hertz::new(hertz));
            for n in [0, 1, 2, hertz - 1, hertz, 7 * hertz + 5, 3600 * hertz] {
                let fs = u128::from(n) * u128::from(FS_PER_S) / u128::from(hertz);
                assert_eq!(u128::from(clock.edge(Cycles::new(n)).get()), fs, "{n} at {hertz}");
            }
            for t in [0, 1, 999_983, FS_PER_S / 3, hours - 1, hours] {
                let n = clock.at_or_after(Time::new(t));
                assert!(clock.edge(n).get() >= t);
                assert!(n.get() == 0 || clock.edge(Cycles::new(n.get() - 1)).get() < t, "{t} at {hertz}");
            }
        }
    }

    #[test]
    fn a_billion_edges_do_not_drift() {
        let c = Clock::new(Hertz::new(895_000_000));
        assert_eq!(c.edge(Cycles::new(895_000_000)), Time::new(FS_PER_S));
        assert_eq!(c.edge(Cycles::new(895_000_000 * 3600)), Time::new(FS_PER_S * 3600));
    }

    #[test]
    fn edge_and_inverse_agree() {
        let c = Clock::new(Hertz::new(1_066_666_667)).retuned(Time::new(12_345_678), Hertz::new(333_333_333));
        for n in (0..20_000u64).map(|i| i * 7 + 100) {
            let e = c.edge(Cycles::new(n));
            assert_eq!(c.at_or_after(e), Cycles::new(n));
            assert_eq!(c.at_or_after(e + Time::new(1)), Cycles::new(n + 1));
            assert_eq!(c.cycle_at(e + Time::new(5)), Cycles::new(n));
        }
    }
}
