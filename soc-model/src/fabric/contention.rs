//! Who waited for whom: the time each client lost to others, by what they held.
//!
//! ```text
//! transfer ends ─► its time, less its time alone ─► lost to links, memory ─► split by the bytes others moved meanwhile
//! ```
//!
//! Models: exact sums; a transfer's loss is split among the others in proportion to the bytes they were served
//! while it ran (of a link: only those that cross it); what a client does to itself is on the diagonal and no loss.
//! Does not model: chains (a transfer that started late because the one before it was late lost nothing itself).
//! Source: our own definition, in the manner of slowdown accounting for shared memory (Subramanian et al., MICRO 2015).

use sim_kernel::Time;

/// What was held by somebody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Held {
    /// A link or a client's bandwidth limit.
    Link,
    /// A memory channel.
    Memory,
    /// A place in the system cache.
    Cache,
}

impl Held {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Link, Self::Memory, Self::Cache];

    /// Name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Link => "link",
            Self::Memory => "memory",
            Self::Cache => "cache",
        }
    }
}

/// The matrix, in femtoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contention {
    clients: usize,
    /// Time of all transfers and lines of a client, from request to last byte.
    spent: Vec<u64>,
    /// Lost, by (held, victim, aggressor).
    lost: Vec<u64>,
}

impl Contention {
    /// Nobody has waited yet.
    #[must_use]
    pub fn new(clients: usize) -> Self {
        Self { clients, spent: vec![0; clients], lost: vec![0; clients * clients * Held::ALL.len()] }
    }

    fn index(&self, held: Held, victim: usize, aggressor: usize) -> usize {
        (held as usize * self.clients + victim) * self.clients + aggressor
    }

    /// A client's transfer took this long.
    pub fn spend(&mut self, client: usize, time: Time) {
        self.spent[client] += time.get();
    }

    /// Splits what `victim` lost in proportion to `moved` of each client; without any movement nobody is to blame
    /// and nothing is counted.
    pub fn lose(&mut self, held: Held, victim: usize, lost: u64, moved: &[u64]) {
        let all: u128 = moved.iter().map(|m| u128::from(*m)).sum();
        if all == 0 || lost == 0 {
            return;
        }
        let (mut given, mut most) = (0, 0);
        for (aggressor, m) in moved.iter().enumerate().filter(|(_, m)| **m > 0) {
            let part = u128::from(lost) * u128::from(*m) / all;
            let part = u64::try_from(part).expect("a part of a u64");
            let i = self.index(held, victim, aggressor);
            self.lost[i] += part;
            given += part;
            if *m > moved[most] {
                most = aggressor;
            }
        }
        // What rounding left goes to whoever moved most.
        let i = self.index(held, victim, most);
        self.lost[i] += lost - given;
    }

    /// Time of a client's transfers and lines.
    pub fn spent(&self, client: usize) -> Time {
        Time::new(self.spent[client])
    }

    /// What `victim` lost to `aggressor`.
    pub fn lost(&self, held: Held, victim: usize, aggressor: usize) -> Time {
        Time::new(self.lost[self.index(held, victim, aggressor)])
    }

    /// What `victim` lost to everybody else, by everything.
    pub fn lost_to_others(&self, victim: usize) -> Time {
        let others = (0..self.clients).filter(|a| *a != victim);
        others.flat_map(|a| Held::ALL.map(|h| self.lost(h, victim, a))).sum()
    }

    /// What happened since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let less = |b: &[u64], a: &[u64]| b.iter().zip(a).map(|(b, a)| b - a).collect();
        Self {
            clients: self.clients,
            spent: less(&self.spent, &earlier.spent),
            lost: less(&self.lost, &earlier.lost),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_is_split_by_bytes_and_nothing_is_left_over() {
        let mut c = Contention::new(3);
        c.spend(0, Time::new(1000));
        c.lose(Held::Memory, 0, 100, &[0, 2, 1]);
        assert_eq!(c.lost(Held::Memory, 0, 1), Time::new(67));
        assert_eq!(c.lost(Held::Memory, 0, 2), Time::new(33));
        c.lose(Held::Link, 0, 10, &[5, 5, 0]);
        assert_eq!((c.lost(Held::Link, 0, 0), c.lost(Held::Link, 0, 1)), (Time::new(5), Time::new(5)));
        assert_eq!(c.lost_to_others(0), Time::new(105));
        let before = c.clone();
        c.lose(Held::Memory, 0, 100, &[0, 0, 0]);
        assert_eq!(c, before, "nobody is to blame");
        assert_eq!(c.since(&before).lost_to_others(0), Time::ZERO);
    }
}
