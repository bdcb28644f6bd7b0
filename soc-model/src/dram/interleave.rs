//! The interleave of channels, and a walk over the part of a transfer that lies in one of them.
//!
//! Models: round-robin chunks of a fixed size. Does not model: hashed channel selection. Source: our own.

/// How addresses are dealt to channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interleave {
    /// Channels.
    pub channels: u64,
    /// Bytes in one channel before the next takes over.
    pub bytes: u64,
}

impl Interleave {
    /// Channel and channel-local address of an offset.
    #[must_use]
    pub const fn split(&self, offset: u64) -> (u64, u64) {
        let chunk = offset / self.bytes;
        (chunk % self.channels, chunk / self.channels * self.bytes + offset % self.bytes)
    }

    /// Bytes of `[0, offset)` that lie in `channel`.
    #[must_use]
    pub fn below(&self, offset: u64, channel: u64) -> u64 {
        let stripe = self.bytes * self.channels;
        let part = (offset % stripe).saturating_sub(channel * self.bytes).min(self.bytes);
        offset / stripe * self.bytes + part
    }
}

/// Start and end of a run, widened to whole bursts.
#[must_use]
pub const fn burst_span(run: (u64, u64)) -> (u64, u64) {
    let mask = super::BURST_BYTES - 1;
    if run.1 == 0 { (run.0, run.0) } else { (run.0 & !mask, (run.0 + run.1 + mask) & !mask) }
}

/// Walks the bursts of a list of runs that lie in one channel.
#[derive(Clone, Copy, Debug)]
pub struct Walker {
    il: Interleave,
    channel: u64,
    run: usize,
    at: u64,
    /// The piece being read: local address and end.
    local: u64,
    piece_end: u64,
}

impl Walker {
    /// A walk of `channel`'s part, from the start.
    #[must_use]
    pub const fn new(il: Interleave, channel: u64) -> Self {
        Self { il, channel, run: 0, at: 0, local: 0, piece_end: 0 }
    }

    /// A walk starting `skip` bytes (over all channels) into the runs.
    #[must_use]
    pub fn starting_at(il: Interleave, channel: u64, runs: &[(u64, u64)], mut skip: u64) -> Self {
        let mut w = Self::new(il, channel);
        while w.run < runs.len() && skip >= runs[w.run].1 {
            skip -= runs[w.run].1;
            w.run += 1;
        }
        w.at = skip & !(super::BURST_BYTES - 1);
        w
    }

    /// The channel walked.
    #[must_use]
    pub const fn channel(&self) -> u64 {
        self.channel
    }

    /// Channel-local address of the next burst, or `None` at the end.
    #[inline]
    pub fn next(&mut self, runs: &[(u64, u64)]) -> Option<u64> {
        if self.local == self.piece_end && !self.next_piece(runs) {
            return None;
        }
        let address = self.local;
        self.local += super::BURST_BYTES;
        Some(address)
    }

    fn next_piece(&mut self, runs: &[(u64, u64)]) -> bool {
        while let Some(&run) = runs.get(self.run) {
            let (start, end) = burst_span(run);
            let mut from = start + self.at;
            let chunk = from / self.il.bytes;
            let ahead = (self.channel + self.il.channels - chunk % self.il.channels) % self.il.channels;
            if ahead > 0 {
                from = (chunk + ahead) * self.il.bytes;
            }
            if from >= end {
                self.run += 1;
                self.at = 0;
                continue;
            }
            let to = end.min((from / self.il.bytes + 1) * self.il.bytes);
            self.local = self.il.split(from).1;
            self.piece_end = self.local + (to - from);
            self.at = to - start;
            return true;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn walks_cover_every_burst_once() {
        let runs = [(96, 5000), (1 << 20, 64), (77_777, 123), (4096, 0)];
        for channels in [1, 3, 4] {
            let il = Interleave { channels, bytes: 256 };
            let mut seen = Vec::new();
            for c in 0..channels {
                let mut w = Walker::new(il, c);
                let mut bytes = 0;
                while let Some(local) = w.next(&runs) {
                    let chunk = local / 256 * channels + c;
                    seen.push(chunk * 256 + local % 256);
                    bytes += 32;
                }
                let count = |r| {
                    let (a, b) = burst_span(r);
                    il.below(b, c) - il.below(a, c)
                };
                assert_eq!(bytes, runs.iter().map(|&r| count(r)).sum::<u64>());
            }
            seen.sort_unstable();
            let mut want: Vec<u64> = runs
                .iter()
                .flat_map(|&r| {
                    let (a, b) = burst_span(r);
                    (a..b).step_by(32)
                })
                .collect();
            want.sort_unstable();
            assert_eq!(seen, want);
        }
    }
}
