//! A core's sequencer in time: command fetch and dispatch.

use isa::npu::{Body, Word};
use sim_kernel::{Cycles, Time};

use super::{Cluster, CoreTime, FETCH_BYTES, FlowRequest, NpuEvent, Outside, Requester};
use crate::core::Sequenced;
use crate::fault::Fault;
use crate::stalls::Cause;

impl Cluster {
    /// Whether the words at `address` are in the fetch buffer; asks for what is missing, and for what comes next.
    fn fetched(&mut self, now: Time, core: usize, address: u64, out: &mut impl Outside) -> bool {
        let block = address / FETCH_BYTES * FETCH_BYTES;
        // A command may end in the next block.
        let last = (address + 63) / FETCH_BYTES * FETCH_BYTES;
        let cap = self.channel_rate();
        let t = &mut self.time[core];
        let have = |t: &CoreTime, b: u64| t.blocks.contains(&Some(b));
        let ready = have(t, block) && have(t, last);
        let near = address - block > FETCH_BYTES / 2;
        for wanted in [block, last, block + FETCH_BYTES] {
            let speculative = wanted != block && wanted != last;
            if have(t, wanted) || t.fetching.contains(&wanted) || (speculative && !(ready && near)) {
                continue;
            }
            t.fetching.push_back(wanted);
            t.fetched_bytes += FETCH_BYTES;
            out.start_flow(
                now,
                &FlowRequest {
                    core,
                    requester: Requester::Fetch,
                    runs: &[(wanted, FETCH_BYTES)],
                    write: false,
                    qos: 3,
                    cap,
                },
            );
        }
        t.waiting_fetch = !ready;
        ready
    }

    /// Bytes a second a channel can move: its width, and what it may have in flight over the memory's latency.
    pub(super) fn channel_rate(&self) -> u64 {
        let cfg = &self.cores.cfg;
        let width = u64::from(cfg.dma_bytes_per_cycle) * cfg.frequency.get();
        let latency = u128::from(self.timing.memory_latency.get().max(1));
        let in_flight =
            u128::from(cfg.dma_outstanding.get()) * u128::from(sim_kernel::units::FS_PER_S) / latency;
        width.min(u64::try_from(in_flight).unwrap_or(u64::MAX))
    }

    pub(super) fn sequence(&mut self, now: Time, core: usize, out: &mut impl Outside) {
        let seen = |s: &Self| {
            let m = &s.time[core].meter;
            (m.spent()[Cause::Active as usize], s.cores.cores[core].next_index(), m.position())
        };
        let before = seen(self);
        self.dispatch(now, core, out);
        let after = seen(self);
        let (cycles, commands) = (after.0 - before.0, after.1 - before.1);
        self.time[core].commands += commands;
        if cycles > 0 || commands > 0 {
            // Its active cycles of one event follow each other, up to where the meter stands.
            let edge = |n: u64| self.clock.edge(Cycles::new(n));
            out.sequenced(core, edge(after.2 - cycles), edge(after.2), cycles, commands);
        }
    }

    fn dispatch(&mut self, now: Time, core: usize, out: &mut impl Outside) {
        let start = self.clock.at_or_after(now).get();
        let mut cycle = start;
        let cause = match self.time[core].blocked.take() {
            Some(Sequenced::Semaphore) => Cause::Imbalance,
            Some(Sequenced::FifoFull(_) | Sequenced::Fence) => Cause::Dependency,
            _ => Cause::Command,
        };
        self.time[core].meter.until(start, cause);
        while let Some(address) = self.cores.cores[core].next_address() {
            if !self.fetched(now, core, address, out) {
                return;
            }
            // Control commands act on shared state, so they act at their own time.
            if cycle > start && self.is_control(address, out) {
                return self.wake_sequencer(core, self.clock.edge(Cycles::new(cycle)), out);
            }
            let header = self.header_at(address, out);
            let index = address;
            let stamp = cycle;
            let result = {
                let cfg = self.cores.cfg.clone();
                self.cores.cores[core].sequence(&cfg, out, stamp)
            };
            match result {
                Ok(Sequenced::Dispatched(engine)) => {
                    let decode = u64::from(self.cores.cfg.decode_cycles);
                    let ready = self.clock.edge(Cycles::new(cycle + decode));
                    let e = &mut self.time[core].engines[engine];
                    e.ready.push_back(ready);
                    if e.running.is_none() && !e.kicked {
                        e.kicked = true;
                        out.schedule(ready, core, NpuEvent::Kick(u8::try_from(engine).expect("six engines")));
                    }
                }
                Ok(Sequenced::Control(_)) => {
                    out.interrupt(core, self.cores.cores[core].interrupt());
                    if let Some(h) = header {
                        self.total.add_command(&isa::npu::Command {
                            header: h,
                            body: Body::Ctrl(isa::npu::Ctrl::default()),
                            extension: None,
                        });
                        let posts = [(h.s0_id, h.s0_n), (h.s1_id, h.s1_n)];
                        self.post(now, core, posts, Cause::Dependency, out);
                    }
                }
                Ok(blocked) => {
                    self.time[core].blocked = Some(blocked);
                    return;
                }
                Err(f) => return self.fault(core, f, index, out),
            }
            cycle += 1;
            self.time[core].meter.until(cycle, Cause::Active);
        }
    }

    fn header_at(&self, address: u64, out: &mut impl Outside) -> Option<isa::npu::Header> {
        let mut bytes = [0; 32];
        out.read(address, &mut bytes).ok()?;
        isa::npu::Header::decode(&Word::from_bytes(&bytes))
    }

    fn is_control(&self, address: u64, out: &mut impl Outside) -> bool {
        self.header_at(address, out).is_some_and(|h| h.opcode == isa::npu::ops::OPCODE_CTRL)
    }

    pub(super) fn fault(&mut self, core: usize, fault: Fault, index: u64, out: &mut impl Outside) {
        self.cores.cores[core].raise(fault, index);
        out.interrupt(core, self.cores.cores[core].interrupt());
    }
}
