//! Progress of flows between events: what has been served, what ends next, and when a load is measured again.

use sim_kernel::Time;
use sim_kernel::units::FS_PER_S;

use super::super::BURST_BYTES;
use super::super::config::LINE_BYTES;
use super::super::sample::{Probes, Sampled};
use super::super::share::{NOISE, UNITS_PER_BYTE, bytes_of, last_turn, share};
use super::{
    ALWAYS_PROBED, Channel, Entry, GROWTH, LEAST_SHARE, LEAST_STEP, MOST_FLOWS, MemorySystem, NO_ENTRY,
    SHORTNESS, Stale,
};

impl MemorySystem {
    pub(super) fn advance(&mut self, now: u64) {
        for index in 0..self.channels.len() {
            self.advance_channel(index, now);
        }
        if let Some(noise) = self.noise {
            let bytes = self.served(noise.client) / LINE_BYTES * LINE_BYTES;
            self.stats.read_bursts += (bytes - self.stats.noise_bytes) / BURST_BYTES;
            self.stats.noise_bytes = bytes;
        }
        let elapsed = now.saturating_sub(self.stats.elapsed.get());
        if elapsed > 0 {
            self.stats.elapsed = Time::new(now);
            self.refresh_carry.0 += elapsed;
            let intervals = self.refresh_carry.0 / self.refresh_fs;
            self.refresh_carry.0 -= intervals * self.refresh_fs;
            self.stats.refreshes += intervals * u64::from(self.cfg.channels);
        }
    }

    pub(super) fn advance_channel(&mut self, index: usize, now: u64) {
        while self.channels[index].at < now {
            if self.channels[index].subs.is_empty() {
                self.channels[index].at = now;
                return;
            }
            self.refresh(index);
            let c = &mut self.channels[index];
            let end = now.min(c.next).min(c.resample);
            let span = end - c.at;
            self.entries[c.entry].exposure_fs += span;
            self.exposure_fs += span;
            let paid = c.debt.min(span);
            c.debt -= paid;
            c.busy += span;
            c.at = end;
            let served_for = u128::from(span - paid);
            c.served += u128::from(c.rate) * served_for;
            for s in &mut c.subs {
                s.remaining = s.remaining.saturating_sub(u128::from(s.rate) * served_for);
            }
            if end == c.next {
                self.complete_subs(index);
            } else if end == c.resample {
                // The same load, further on in its flows: sampled again if it is due.
                c.stale = Stale::Load;
            }
        }
    }

    pub(super) fn complete_subs(&mut self, index: usize) {
        let end = self.channels[index].at;
        let c = &mut self.channels[index];
        c.stale = c.stale.max(Stale::Next);
        let mut i = 0;
        while i < self.channels[index].subs.len() {
            let sub = &mut self.channels[index].subs[i];
            if sub.flow == NOISE {
                i += 1;
                continue;
            }
            let (slot, served) = (sub.flow, sub.remaining == 0);
            let over = sub.last_turn.is_some_and(|left| sub.remaining <= left);
            if over {
                sub.last_turn = None;
            }
            let flow = &mut self.flows[slot as usize];
            if served {
                // Order matters to nothing but samples, which take turns in it: keep it.
                let c = &mut self.channels[index];
                let gone = c.subs.remove(i);
                c.stale = Stale::Load;
                self.served[usize::from(gone.client)] += gone.total;
                c.reads -= usize::from(!flow.write);
                c.writes -= usize::from(flow.write);
                c.short -= flow.shortness;
                flow.parts -= 1;
            } else {
                i += 1;
            }
            if over {
                flow.end = flow.end.max(end);
                flow.pending -= 1;
                if flow.pending == 0 {
                    self.retire(slot);
                }
            } else if served {
                self.release(slot);
            }
        }
    }

    /// Finds what is stale: after a load has changed its capacity and shares, else only the next end.
    pub(super) fn refresh(&mut self, index: usize) {
        let stale = self.channels[index].stale;
        if stale == Stale::Nothing || stale == Stale::Load && !self.resolve(index) {
            return;
        }
        let c = &mut self.channels[index];
        c.stale = Stale::Nothing;
        let mut first = (u128::MAX, 1u64);
        for s in c.subs.iter().filter(|s| s.flow != NOISE) {
            let due = s.due();
            // due / rate < first, without dividing.
            let sooner = match s.rate == first.1 || first.0 == u128::MAX {
                true => due < first.0,
                false => due * u128::from(first.1) < first.0 * u128::from(s.rate),
            };
            if sooner {
                first = (due, s.rate);
            }
        }
        let span = u64::try_from(first.0.div_ceil(u128::from(first.1))).unwrap_or(u64::MAX);
        c.next = c.at.saturating_add(span).saturating_add(if span == u64::MAX { 0 } else { c.debt });
    }

    /// Books what was served under the old load, then finds capacity and shares of the new one; false if there is none.
    pub(super) fn resolve(&mut self, index: usize) -> bool {
        self.book(index);
        let c = &mut self.channels[index];
        c.stale = Stale::Nothing;
        if c.subs.is_empty() {
            (c.next, c.debt, c.resample) = (u64::MAX, 0, u64::MAX);
            return false;
        }
        self.stats.load_changes += 1;
        let entry = self.entry_for(index);
        self.sample_if_due(entry, index);
        let e = &self.entries[entry];
        // The other channels are mostly under the same load.
        let resample = e.next_exposure.saturating_sub(e.exposure_fs) / self.il.channels;
        let c = &mut self.channels[index];
        c.entry = entry;
        c.resample = c.at.saturating_add(resample.max(self.refresh_fs));
        share(&mut c.subs, e.bytes_per_s);
        c.rate = c.subs.iter().map(|s| s.rate).sum();
        let (rotation, grant) = (c.subs.len(), self.cfg.grant_bytes);
        for flows in self.last_turns.len()..=rotation {
            self.last_turns.push(last_turn(grant, flows.max(1) as u128));
        }
        let whole = self.last_turns[rotation];
        for s in c.subs.iter_mut().filter(|s| s.last_turn.is_some()) {
            // A flow at its own pace takes no turn later than that.
            let free = s.rate < s.cap && !s.urgent;
            s.last_turn = Some(match free {
                true if s.total >= grant => whole,
                true => last_turn(s.total, rotation as u128),
                false => 0,
            });
        }
        true
    }

    pub(super) fn book(&mut self, index: usize) {
        let c = &mut self.channels[index];
        self.stats.busy[index] = Time::new(c.busy);
        if c.served == 0 {
            return;
        }
        c.activates_scaled += (c.served >> 20) * u128::from(self.entries[c.entry].activates_scaled);
        c.served = 0;
        let whole = bytes_of(c.activates_scaled);
        c.activates_scaled -= u128::from(whole) * UNITS_PER_BYTE;
        self.stats.activates += whole;
    }

    pub(super) fn entry_for(&mut self, index: usize) -> usize {
        let Channel { reads, writes, short, .. } = self.channels[index];
        let shortness = short.div_ceil((reads + writes).max(1)).min(SHORTNESS - 1);
        let key = (shortness * (MOST_FLOWS + 1) + reads.min(MOST_FLOWS)) * (MOST_FLOWS + 1)
            + writes.min(MOST_FLOWS);
        if self.index[key] == NO_ENTRY {
            self.index[key] = u16::try_from(self.entries.len()).expect("fewer entries than keys");
            self.entries.push(Entry::default());
        }
        usize::from(self.index[key])
    }

    /// Samples a load when it first occurs and after so much time under it: often at first, then ever more rarely.
    pub(super) fn sample_if_due(&mut self, entry: usize, index: usize) {
        let e = &mut self.entries[entry];
        if e.samples > 0 && e.exposure_fs < e.next_exposure {
            return;
        }
        let step = (e.exposure_fs / GROWTH).max(self.exposure_fs / LEAST_SHARE);
        e.next_exposure = e.exposure_fs + step.max(LEAST_STEP * self.refresh_fs);
        let channel = &self.channels[index];
        let (channels, grant) = (self.il.channels, self.cfg.grant_bytes);
        let flows = &self.flows;
        let sampled: Vec<Sampled<'_>> = channel
            .subs
            .iter()
            .filter(|s| s.flow != NOISE)
            .map(|s| {
                let flow = &flows[s.flow as usize];
                // Whole turns: what a flow has had of its present one, if it is its turn, the sample draws.
                let served = s.total - bytes_of(s.remaining).min(s.total);
                let skip = served / grant * grant * channels % flow.kept_bytes.max(1);
                Sampled { runs: &flow.runs, skip, write: s.write }
            })
            .collect();
        let peak = self.peak_bytes_per_s() / channels;
        let e = &mut self.entries[entry];
        let probes = match e.samples {
            n if n >= ALWAYS_PROBED && !n.is_multiple_of(4) => Probes::None,
            n if (n / 4 + n).is_multiple_of(2) => Probes::Sparse,
            _ => Probes::Dense,
        };
        e.samples += 1;
        let m = self.sampler.run(index as u64, &sampled, probes);
        self.stats.samples += 1;
        let e = &mut self.entries[entry];
        let s = &mut e.sums;
        s.ck += m.ck;
        s.bursts += m.bursts;
        s.activates += m.activates;
        s.probes += m.probes;
        s.probe_ck += m.probe_ck;
        s.sent += m.sent;
        s.alone += m.alone;
        s.beside += m.beside;
        let bytes = u128::from(s.bursts.max(1)) * u128::from(BURST_BYTES);
        let rate = bytes * u128::from(self.ck_hz) / u128::from(s.ck);
        let line = u128::from(s.probe_ck) * u128::from(FS_PER_S)
            / (u128::from(s.probes.max(1)) * u128::from(self.ck_hz));
        // Writes that merge in the queue cost no data beat; what is served still passes the pins.
        e.bytes_per_s = u64::try_from(rate).expect("a bandwidth").min(peak);
        e.line_fs = u64::try_from(line).expect("a latency");
        // What the flows lost beside the probes, at their own pace; not less than the line's own command slots.
        let lost =
            u128::from(s.alone.saturating_sub(s.beside)) * u128::from(s.ck) / u128::from(s.bursts.max(1));
        let cost = lost * u128::from(FS_PER_S) / (u128::from(s.sent.max(1)) * u128::from(self.ck_hz));
        e.line_cost_fs = u64::try_from(cost).expect("a share of an interval");
        e.activates_scaled =
            u64::try_from((u128::from(s.activates) << 20) / bytes).expect("less than one a byte");
    }
}
