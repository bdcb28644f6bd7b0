//! A clock whose n-th edge is computed from n, so a period is never summed and nothing drifts.

use crate::units::{Cycles, FS_PER_S, Hertz, Time};

/// One clock domain: a frequency and the edge it is anchored to. A frequency change is a new anchor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    hertz: u64,
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
        Self { hertz: frequency.get(), anchor_time: 0, anchor_cycle: 0 }
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
        let since =
            u128::from(n.get().checked_sub(self.anchor_cycle).expect("edge before the clock's anchor"));
        let fs = since * u128::from(FS_PER_S) / u128::from(self.hertz);
        Time::new(self.anchor_time + u64::try_from(fs).expect("edge within the range of simulated time"))
    }

    /// The first edge at or after `t`.
    ///
    /// # Panics
    /// If `t` lies before the anchor.
    pub fn at_or_after(&self, t: Time) -> Cycles {
        let since =
            u128::from(t.get().checked_sub(self.anchor_time).expect("time before the clock's anchor"));
        let n = (since * u128::from(self.hertz)).div_ceil(u128::from(FS_PER_S));
        let mut n = self.anchor_cycle + u64::try_from(n).expect("cycle count fits");
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
        Self { hertz: frequency.get(), anchor_time: self.edge(n).get(), anchor_cycle: n.get() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
