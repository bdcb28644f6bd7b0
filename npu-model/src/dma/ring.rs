//! The ring between the cores of a cluster: who may use which link when.
//!
//! Models: one link each way between neighbours, as wide as a DMA channel; a transfer holds all links from its core to
//!   its destinations, the shorter way round to each, for as long as its bytes take at that width, in order of arrival.
//! Does not model: flits of several transfers interleaved on a link, back-filling of gaps.
//! Source: bidirectional rings with multicast are common in cluster interconnects; width and arbitration are
//!   estimates, accuracy class C.

/// The links' next free cycles.
#[derive(Clone, Debug, Default)]
pub struct Ring {
    /// Link i leads from core i to core i + 1.
    up: Vec<u64>,
    /// Link i leads from core i to core i - 1.
    down: Vec<u64>,
}

impl Ring {
    /// A ring of so many cores, free.
    #[must_use]
    pub fn new(cores: usize) -> Self {
        Self { up: vec![0; cores], down: vec![0; cores] }
    }

    /// Links a multicast from a core to the cores of a mask needs: how many up, how many down.
    fn reach(&self, from: usize, mask: u64) -> (usize, usize) {
        let n = self.up.len();
        let (mut up, mut down) = (0, 0);
        for to in (0..n).filter(|to| mask >> to & 1 == 1) {
            let distance = (to + n - from) % n;
            if distance <= n / 2 {
                up = up.max(distance);
            } else {
                down = down.max(n - distance);
            }
        }
        (up, down)
    }

    /// Takes the links for `beats` cycles as soon as all are free, `cycle` at the earliest, and returns that cycle;
    /// `None` if the data stay in their core.
    pub fn take(&mut self, from: usize, mask: u64, cycle: u64, beats: u64) -> Option<u64> {
        let (up, down) = self.reach(from, mask);
        if up + down == 0 {
            return None;
        }
        let n = self.up.len();
        let ups = (0..up).map(|i| (from + i) % n);
        let downs = (0..down).map(|i| (from + n - i) % n);
        let free = |links: &Vec<u64>, on: &mut dyn Iterator<Item = usize>| on.map(|i| links[i]).max();
        let start = [free(&self.up, &mut ups.clone()), free(&self.down, &mut downs.clone())]
            .into_iter()
            .flatten()
            .fold(cycle, u64::max);
        ups.for_each(|i| self.up[i] = start + beats);
        downs.for_each(|i| self.down[i] = start + beats);
        Some(start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_do_not_meet_and_a_shared_link_is_waited_for() {
        let mut ring = Ring::new(6);
        assert_eq!(ring.take(0, 1, 5, 10), None, "its own core");
        assert_eq!(ring.take(0, 1 << 1, 5, 10), Some(5));
        assert_eq!(ring.take(1, 1 << 2, 5, 10), Some(5), "another link");
        assert_eq!(ring.take(0, 1 << 2, 6, 4), Some(15), "both links, when both are free");
        assert_eq!(ring.take(1, 1 << 0, 6, 4), Some(6), "the other way");
        // To everyone: three links up, two down.
        assert_eq!(ring.take(3, 0b11_1111, 7, 20), Some(7));
        assert_eq!(ring.take(5, 1, 8, 1), Some(27), "link 5 up is taken");
        assert_eq!(ring.take(3, 1 << 2, 8, 1), Some(27), "link 3 down is taken");
    }
}
