//! The links between masters and memory, and what a transfer can get of them.
//!
//! ```text
//! NPU core ports ─► NPU link ─┐
//! CPU ports ─► L3 ─► CPU link ┴─► system cache ─► memory channels
//! ```
//!
//! Models: every link carries so many bytes a second each way; transfers that cross one share it max-min fairly by
//! the weight of their class, urgent ones first; a client's limit is one more link it crosses both ways; lines of
//! harts queue for their links one after the other.
//! Does not model: packets, virtual channels, buffers; lines of harts take nothing from the transfers' shares.
//! Source: max-min fairness by filling the tightest resource first (Bertsekas and Gallager, Data Networks, 6.5.2);
//! widths and clocks come with the configuration.

use sim_kernel::Time;
use sim_kernel::units::FS_PER_S;

/// Links a transfer crosses at most: core port, cluster link, client limit.
pub const MOST_CROSSED: usize = 3;
/// Part of every link, as a divisor, that urgent transfers leave to the others.
const RESERVE: u64 = 16;

/// What one transfer asks of the network.
#[derive(Clone, Copy, Debug)]
pub struct Demand {
    /// Most bytes a second it can take or give on its own.
    pub cap: u64,
    /// Weight of its class.
    pub weight: u32,
    /// Its class comes before the others.
    pub urgent: bool,
    /// Links it crosses.
    pub crosses: [Option<usize>; MOST_CROSSED],
}

/// Max-min fair rates of `demands` over links of these capacities; `held` tells whose rate a link bounds.
///
/// Urgent demands are filled first and leave a sixteenth of each link to the others.
pub fn fill(demands: &[Demand], capacities: &[u64], rates: &mut Vec<u64>, held: &mut Vec<bool>) {
    let mut left = capacities.to_vec();
    rates.clear();
    rates.resize(demands.len(), 0);
    held.clear();
    held.resize(demands.len(), false);
    for urgent in [true, false] {
        let mut open: Vec<usize> = (0..demands.len()).filter(|i| demands[*i].urgent == urgent).collect();
        let mut room: Vec<u64> = left.clone();
        if urgent && open.len() < demands.len() {
            room.iter_mut().for_each(|r| *r -= *r / RESERVE);
        }
        let full = room.clone();
        while !open.is_empty() {
            // The lowest rate a unit of weight can reach: at a link, or at somebody's own cap.
            let mut weights = vec![0u64; room.len()];
            for i in &open {
                crossed(&demands[*i]).for_each(|l| weights[l] += u64::from(demands[*i].weight));
            }
            let level = |l: usize| room[l] / weights[l].max(1);
            let links = (0..room.len()).filter(|l| weights[*l] > 0).map(level).min().unwrap_or(u64::MAX);
            let own = |i: &usize| demands[*i].cap.div_ceil(u64::from(demands[*i].weight.max(1)));
            let caps = open.iter().map(own).min().unwrap_or(u64::MAX);
            let lowest = links.min(caps);
            let by_link = links < caps;
            let tight: Vec<bool> =
                (0..room.len()).map(|l| by_link && weights[l] > 0 && level(l) == lowest).collect();
            let mut rest = Vec::new();
            for &i in &open {
                let d = &demands[i];
                let stopped = crossed(d).any(|l| tight[l]);
                if own(&i) == lowest {
                    rates[i] = d.cap.max(1);
                } else if stopped {
                    rates[i] = (lowest * u64::from(d.weight)).max(1);
                    held[i] = true;
                } else {
                    rest.push(i);
                    continue;
                }
                crossed(d).for_each(|l| room[l] = room[l].saturating_sub(rates[i]));
            }
            open = rest;
        }
        for ((l, full), room) in left.iter_mut().zip(full).zip(room) {
            *l -= full - room;
        }
    }
}

fn crossed(d: &Demand) -> impl Iterator<Item = usize> + use<> {
    d.crosses.into_iter().flatten()
}

/// One direction of a link as lines of harts see it: a queue of one server.
#[derive(Clone, Copy, Debug)]
pub struct Queue {
    /// Femtoseconds a line occupies it.
    line_fs: u64,
    /// Of these, how many a line passes in anyway, as part of the hop.
    hidden_fs: u64,
    free: u64,
}

impl Queue {
    /// A queue of `bytes_per_s`; `hidden` is the time of one beat, which the hop's latency holds already.
    #[must_use]
    pub fn new(line_bytes: u64, bytes_per_s: u64, hidden: Time) -> Self {
        let fs = u128::from(line_bytes) * u128::from(FS_PER_S) / u128::from(bytes_per_s.max(1));
        Self { line_fs: u64::try_from(fs).unwrap_or(u64::MAX / 4), hidden_fs: hidden.get(), free: 0 }
    }

    /// Sends a line at `now`: what it waits for those before it, and for its beats beyond the first.
    pub fn send(&mut self, now: Time) -> Time {
        let start = now.get().max(self.free);
        self.free = start + self.line_fs;
        Time::new(start - now.get() + self.line_fs.saturating_sub(self.hidden_fs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demand(cap: u64, weight: u32, urgent: bool, crosses: &[usize]) -> Demand {
        let mut c = [None; MOST_CROSSED];
        for (slot, l) in c.iter_mut().zip(crosses) {
            *slot = Some(*l);
        }
        Demand { cap, weight, urgent, crosses: c }
    }

    fn rates(demands: &[Demand], capacities: &[u64]) -> Vec<u64> {
        let (mut rates, mut held) = (Vec::new(), Vec::new());
        fill(demands, capacities, &mut rates, &mut held);
        rates
    }

    #[test]
    fn shares_are_those_of_the_textbook() {
        // Bertsekas and Gallager's example in small: a long flow over both links, short ones on each.
        let long = demand(u64::MAX, 1, false, &[0, 1]);
        let short = |l| demand(u64::MAX, 1, false, &[l]);
        assert_eq!(rates(&[long, short(0), short(1)], &[10, 30]), [5, 5, 25]);
        assert_eq!(rates(&[long, short(0), short(0), short(1)], &[30, 30]), [10, 10, 10, 20]);
        // A cap below the fair share leaves the rest to the others; equal weights share equally, others by weight.
        assert_eq!(rates(&[demand(4, 1, false, &[0]), short(0), short(0)], &[30]), [4, 13, 13]);
        assert_eq!(rates(&[demand(u64::MAX, 3, false, &[0]), short(0)], &[40]), [30, 10]);
        // Nobody is held where the link is wide enough.
        let mut held = Vec::new();
        fill(&[demand(4, 1, false, &[0]), demand(5, 1, false, &[0])], &[9], &mut Vec::new(), &mut held);
        assert_eq!(held, [false, false]);
    }

    #[test]
    fn urgent_comes_first_and_leaves_a_sixteenth() {
        let urgent = demand(u64::MAX, 1, true, &[0]);
        let shared = demand(u64::MAX, 1, false, &[0]);
        assert_eq!(rates(&[shared, urgent], &[160]), [10, 150]);
        assert_eq!(rates(&[urgent], &[160]), [160]);
        assert_eq!(rates(&[shared, demand(40, 1, true, &[0])], &[160]), [120, 40]);
    }

    /// Max-min on random networks: no link is overfull, and whoever is below its cap crosses a full link on which
    /// nobody of the same class has more a unit of weight.
    #[test]
    fn every_rate_has_a_reason() {
        let mut seed = 3u64;
        let mut draw = |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % below
        };
        for _ in 0..500 {
            let links: Vec<u64> = (0..1 + draw(5)).map(|_| 1_000_000 + draw(9_000_000)).collect();
            let count = links.len() as u64;
            let demands: Vec<Demand> = (0..1 + draw(12))
                .map(|_| {
                    let mut over: Vec<usize> =
                        (0..1 + draw(3)).map(|_| usize::try_from(draw(count)).expect("small")).collect();
                    over.sort_unstable();
                    over.dedup();
                    demand(
                        100_000 + draw(8_000_000),
                        [1, 2, 4][usize::try_from(draw(3)).expect("small")],
                        false,
                        &over,
                    )
                })
                .collect();
            let r = rates(&demands, &links);
            for (l, capacity) in links.iter().enumerate() {
                let sum: u64 =
                    demands.iter().zip(&r).filter(|(d, _)| crossed(d).any(|x| x == l)).map(|x| x.1).sum();
                assert!(sum <= *capacity, "{sum} over {capacity}");
            }
            for (i, d) in demands.iter().enumerate().filter(|(i, d)| r[*i] < d.cap) {
                let reason = crossed(d).any(|l| {
                    let on = || demands.iter().zip(&r).filter(|(d, _)| crossed(d).any(|x| x == l));
                    let sum: u64 = on().map(|x| x.1).sum();
                    let most = on().map(|(d, r)| r / u64::from(d.weight)).max().expect("at least itself");
                    sum + 200 >= links[l] && r[i] / u64::from(d.weight) + 200 >= most
                });
                assert!(reason, "{d:?} at {} of {r:?} on {links:?}", r[i]);
            }
        }
    }

    #[test]
    fn lines_queue_one_after_the_other() {
        // 64 bytes at 32 a cycle of 1 GHz: two beats, of which one is the hop's.
        let mut q = Queue::new(64, 32_000_000_000, Time::from_ns(1));
        let waits: Vec<u64> = (0..3).map(|_| q.send(Time::from_ns(10)).as_ns()).collect();
        assert_eq!(waits, [1, 3, 5]);
        assert_eq!(q.send(Time::from_ns(100)), Time::from_ns(1));
        let mut wide = Queue::new(64, 64_000_000_000, Time::from_ns(1));
        assert_eq!(wide.send(Time::from_ns(5)), Time::ZERO);
    }
}
