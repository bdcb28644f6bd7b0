//! Closed-loop flows on all channels, exactly: the reference the sampled memory is held against.

use sim_kernel::Stream;
use soc_model::dram::interleave::{Interleave, Walker};
use soc_model::dram::{BurstChannel, Done, DramConfig, Request};

/// One transfer of a worker.
#[derive(Clone, Debug)]
pub struct Transfer {
    /// Contiguous (offset, bytes).
    pub runs: Vec<(u64, u64)>,
    /// Write, or read.
    pub write: bool,
}

struct Part {
    flow: usize,
    transfer: usize,
    walker: Walker,
    left: u64,
    pending: Option<u64>,
}

/// All channels exactly, burst by burst; every worker starts its next transfer when the last one completes.
/// Returns the CK at which the last transfer is complete.
pub fn exact(cfg: &DramConfig, workers: &[Vec<Transfer>]) -> u64 {
    let il = Interleave { channels: u64::from(cfg.channels), bytes: cfg.interleave_bytes };
    let map = cfg.map.resized(31).unwrap();
    let mut engines: Vec<BurstChannel> =
        (0..cfg.channels).map(|_| BurstChannel::new(cfg.timings(), cfg.controller)).collect();
    let mut parts: Vec<Vec<Part>> = engines.iter().map(|_| Vec::new()).collect();
    let mut turns = vec![0usize; engines.len()];
    // Per worker: transfer under way, bursts not yet offered, bursts not yet back, latest completion.
    let mut state: Vec<(usize, u64, u64, u64)> = vec![(0, 0, 0, 0); workers.len()];
    let mut done: Vec<Done> = Vec::new();
    let mut now = 0u64;
    let mut end = 0;
    let mut starts: Vec<(u64, usize)> = (0..workers.len()).map(|w| (0, w)).collect();
    while !starts.is_empty() || state.iter().any(|s| s.1 + s.2 > 0) {
        starts.retain(|&(at, w)| {
            if at > now {
                return true;
            }
            let transfer = &workers[w][state[w].0];
            let mut bursts = 0;
            for (c, list) in parts.iter_mut().enumerate() {
                let mut count = Walker::new(il, c as u64);
                let mut n = 0;
                while count.next(&transfer.runs).is_some() {
                    n += 1;
                }
                if n > 0 {
                    let walker = Walker::new(il, c as u64);
                    list.push(Part {
                        flow: w,
                        transfer: state[w].0,
                        walker,
                        left: cfg.grant_bytes,
                        pending: None,
                    });
                }
                bursts += n;
            }
            state[w].1 = bursts;
            false
        });
        let mut next = u64::MAX;
        for (c, engine) in engines.iter_mut().enumerate() {
            engine.skip_to(now);
            while !parts[c].is_empty() {
                turns[c] %= parts[c].len();
                let part = &mut parts[c][turns[c]];
                let w = part.flow;
                let transfer = &workers[w][part.transfer];
                let Some(address) = part.pending.take().or_else(|| part.walker.next(&transfer.runs)) else {
                    parts[c].remove(turns[c]);
                    continue;
                };
                let place = map.place(address);
                let tag = u32::try_from(w).unwrap();
                let request = Request { place, write: transfer.write, class: 0, tag };
                if !engine.offer(request, &mut done) {
                    part.pending = Some(address);
                    break;
                }
                state[w].1 -= 1;
                if transfer.write {
                    state[w].3 = now;
                } else {
                    state[w].2 += 1;
                }
                part.left -= 32;
                if part.left == 0 {
                    part.left = cfg.grant_bytes;
                    turns[c] += 1;
                }
            }
            engine.tick(&mut done);
            next = next.min(engine.next_event());
        }
        for d in done.drain(..).filter(|d| !d.write) {
            let s = &mut state[d.tag as usize];
            s.2 -= 1;
            s.3 = s.3.max(d.done + 1);
        }
        for (w, s) in state.iter_mut().enumerate() {
            if s.3 > 0 && s.1 + s.2 == 0 {
                end = end.max(s.3);
                s.0 += 1;
                if s.0 < workers[w].len() {
                    starts.push((s.3.max(now + 1), w));
                }
                s.3 = 0;
            }
        }
        let due = starts.iter().map(|s| s.0).min().unwrap_or(u64::MAX);
        now = next.min(due).max(now + 1);
    }
    end
}

/// `count` workers, of which the last `writers` write, moving about `bytes` in transfers of varying size.
pub fn workload(count: usize, writers: usize, bytes: u64, sizes: &[u64], seed: u64) -> Vec<Vec<Transfer>> {
    let mut random = Stream::new(seed, "test", "workload");
    let mut workers = vec![Vec::new(); count];
    let mut moved = 0;
    while moved < bytes {
        for (w, list) in workers.iter_mut().enumerate() {
            let size = sizes[usize::try_from(random.below(sizes.len() as u64)).unwrap()];
            let base = random.below(1 << 20) << 12;
            moved += size;
            list.push(Transfer { runs: vec![(base, size)], write: w + writers >= count });
        }
    }
    workers
}
