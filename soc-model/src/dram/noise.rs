//! Synthetic noise of a CPU: random lines at a share of the pins' rate, beside everything else.
//!
//! Models: reads of 64-byte lines spread evenly over the channels, at most `OUTSTANDING` late ones a channel.
//! Does not model: writes, locality, the caches a real CPU's lines would come from.
//! Source: our own; it stands for other software on the phone.

use super::config::LINE_BYTES;
use super::streams::mixed;

/// Lines a channel's noise may be behind its rate; a CPU's miss registers are full then and it asks no more.
const OUTSTANDING: u64 = 32;
/// Lines it can send at once in a turn: those that are late, and the one that is due.
pub(super) const MOST_AT_ONCE: u64 = OUTSTANDING + 1;

/// What the noise asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Noise {
    /// Bytes a second, all channels together.
    pub bytes_per_s: u64,
    /// Served before shared flows, as lines of the modelled harts are.
    pub urgent: bool,
    /// Weight among the shared flows where it is not urgent.
    pub weight: u32,
    /// Whom its bytes are counted for.
    pub client: u16,
    /// Seed of its addresses.
    pub seed: u64,
}

/// The noise of one channel, line by line.
#[derive(Clone, Debug)]
pub(super) struct NoiseLines {
    pub(super) cfg: Noise,
    /// Bytes a second of this channel.
    rate: u64,
    hertz: u64,
    /// Mask of channel-local line addresses.
    mask: u64,
    start: u64,
    lines: u64,
    due: u64,
    /// Halves of the present line already taken.
    pub(super) half: u64,
    /// Turns to sit out.
    pub(super) skip: u64,
    pub(super) owed: u64,
    /// Bytes left of the present turn.
    pub(super) turn_left: u64,
}

impl NoiseLines {
    pub(super) fn new(
        cfg: Noise,
        channel: u64,
        channels: u64,
        bytes: u64,
        hertz: u64,
        start: u64,
        turn: u64,
    ) -> Self {
        let seed = mixed(cfg.seed ^ mixed(channel + 1));
        let mut n = Self {
            cfg: Noise { seed, ..cfg },
            rate: (cfg.bytes_per_s / channels).max(1),
            hertz,
            mask: (bytes.next_power_of_two() - 1) & !(LINE_BYTES - 1),
            start,
            lines: 0,
            due: start,
            half: 0,
            skip: 0,
            owed: 0,
            turn_left: turn,
        };
        n.due = n.due_of(0);
        n
    }

    fn due_of(&self, line: u64) -> u64 {
        let ck = u128::from(line) * u128::from(LINE_BYTES) * u128::from(self.hertz) / u128::from(self.rate);
        self.start.saturating_add(u64::try_from(ck).unwrap_or(u64::MAX))
    }

    /// Channel-local address of the half that is due at `now`, or the CK at which one will be.
    pub(super) fn due(&mut self, now: u64) -> Result<u64, u64> {
        if self.due > now {
            return Err(self.due);
        }
        // What is too late was never asked for.
        let behind = self.due_of(self.lines + OUTSTANDING);
        if behind < now {
            self.start += now - behind;
            self.due = self.due_of(self.lines);
        }
        let line = mixed(self.cfg.seed.wrapping_add(self.lines)) & self.mask;
        Ok(line + self.half * super::BURST_BYTES)
    }

    /// The half that was due has been taken.
    pub(super) fn taken(&mut self) {
        self.half ^= 1;
        self.turn_left = self.turn_left.saturating_sub(super::BURST_BYTES);
        if self.half == 0 {
            self.lines += 1;
            self.due = self.due_of(self.lines);
        }
    }
}

/// Turns a participant of `weight` sits out after one of its own when the heaviest weighs `most`; `owed` carries the
/// rest over.
pub(super) fn turns_off(owed: &mut u64, weight: u32, most: u32) -> u64 {
    *owed += u64::from(most.saturating_sub(weight));
    let turns = *owed / u64::from(weight.max(1));
    *owed %= u64::from(weight.max(1));
    turns
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOISE: Noise = Noise { bytes_per_s: 6_400_000_000, urgent: false, weight: 1, client: 0, seed: 7 };

    #[test]
    fn lines_come_at_their_rate_and_late_ones_are_forgotten() {
        // 1.6 GB/s a channel are a line in 40 ns: 32 CK of 800 MHz.
        let mut n = NoiseLines::new(NOISE, 0, 4, 1 << 30, 800_000_000, 0, 64);
        for line in 0..100 {
            assert_eq!(n.due(line * 32).map(|a| a % 64), Ok(0));
            n.taken();
            assert_eq!(n.due(line * 32).map(|a| a % 64), Ok(32));
            n.taken();
            assert_eq!(n.due(line * 32), Err((line + 1) * 32));
        }
        assert!(n.due(1_000_000).is_ok());
        let mut late = 0;
        while n.due(1_000_000).is_ok() {
            n.taken();
            late += 1;
        }
        assert_eq!(late, 2 * (OUTSTANDING + 1));
    }

    #[test]
    fn weights_are_turns() {
        for (weight, most) in [(1, 4), (3, 4), (4, 4), (2, 7)] {
            let (mut owed, mut turns, mut rounds) = (0, 0, 0);
            while rounds < 7000 {
                rounds += 1 + turns_off(&mut owed, weight, most);
                turns += 1;
            }
            let share = u64::from(most) * turns;
            assert!(
                share.abs_diff(rounds * u64::from(weight)) <= 16,
                "{weight} of {most}: {turns} of {rounds}"
            );
        }
    }
}
