//! A time-free NPU: runs queues to completion in any order the semaphores allow.
//!
//! Models: function of the whole cluster; a fault stops its queue and the others go on. Does not model: time: WAITMEM
//! gives up, and watchdogs bite, when nothing else can happen; a watchdog also counts commands.
//! Source: `isa::npu`.
//!
//! The order in which runnable engines take turns comes from a seeded stream. A command list is race-free exactly
//! if every order gives the same bytes, which tests check by trying several.

use isa::npu::ops::OPCODE_CTRL;
use isa::npu::registers::FaultCode;
use isa::npu::{Body, Command, CtrlOp, Extension, Header, VecOp, Word};
use sim_kernel::Stream;

use crate::config::NpuConfig;
use crate::core::{Core, ENGINES, Issued, Phase, Sequenced};
use crate::dma::Direction;
use crate::fault::Fault;
use crate::local::Space;
use crate::memory::Memory;
use crate::ops::{self, Ids};
use crate::stalls::Cause;

/// Why a cluster stopped before its queues were empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stuck {
    /// A core faulted: core, fault, command index.
    Fault(usize, Fault, u64),
    /// Nothing can run: who waits for what, one line each.
    Deadlock(Vec<String>),
}

/// The cores of a cluster.
#[derive(Clone, Debug)]
pub struct Cores {
    /// Configuration.
    pub cfg: NpuConfig,
    /// The cores.
    pub cores: Vec<Core>,
}

impl Cores {
    /// Cores out of reset.
    #[must_use]
    pub fn new(cfg: NpuConfig) -> Self {
        let cores = (0..cfg.cores as usize).map(|i| Core::new(i, &cfg)).collect();
        Self { cfg, cores }
    }

    /// Whether a command writes to a core whose context of the same queue is, or is about to be, saved.
    #[must_use]
    pub fn target_absent(&self, core: usize, issued: &Issued) -> bool {
        let targets = targets(&issued.command) & !(1 << core);
        let queue = issued.queue as usize;
        targets != 0 && self.cores.iter().enumerate().any(|(i, c)| targets >> i & 1 == 1 && c.absent(queue))
    }

    /// Applies a started command's function unless it is skipped, and notes what it wrote.
    ///
    /// # Errors
    /// The fault the hardware raises.
    pub fn apply(
        &mut self,
        core: usize,
        issued: &Issued,
        memory: &mut dyn Memory,
        ids: Option<Ids>,
    ) -> Result<(), Fault> {
        if issued.skip {
            return Ok(());
        }
        let performed = self.perform(core, issued, memory, ids);
        let c = &mut self.cores[core];
        let q = &mut c.queues[issued.queue as usize];
        q.dirty.absorb(&mut c.local.touched);
        if let Body::Vec(VecOp { setp: 1, .. }) = issued.command.body {
            q.set_predicate_to(c.local.predicate);
        }
        let Some(t) = &issued.transfer else {
            q.dirty.mark_command(&issued.command);
            return performed;
        };
        let mask = if t.cores == 0 { 1 << core } else { t.cores };
        for (_, c) in self.cores.iter_mut().enumerate().filter(|(i, _)| mask >> i & 1 == 1) {
            for (at, bytes) in t.written() {
                c.queues[issued.queue as usize].dirty.mark(Space::Spm, at, bytes);
            }
        }
        performed
    }

    /// Applies a command's function; its posts are to be made when its writes are visible.
    ///
    /// # Errors
    /// The fault the hardware raises.
    pub fn perform(
        &mut self,
        core: usize,
        issued: &Issued,
        memory: &mut dyn Memory,
        ids: Option<Ids>,
    ) -> Result<(), Fault> {
        let Some(t) = &issued.transfer else {
            return ops::execute(&issued.command, &self.cfg, &mut self.cores[core].local, ids);
        };
        let own = &mut self.cores[core].local.spm;
        let found = t.find(own, memory)?;
        let mask = if t.cores == 0 { 1 << core } else { t.cores };
        match t.direction {
            Direction::Load => {
                let table = t.table(own);
                let wanted = self.cores.iter_mut().enumerate().filter(|(i, _)| mask >> i & 1 == 1);
                let mut spms: Vec<&mut Vec<u8>> = wanted.map(|(_, c)| &mut c.local.spm).collect();
                t.load(&found, table, memory, &mut spms)
            }
            Direction::Store => t.store(&found, memory, own),
            Direction::Copy => {
                let pieces = t.pieces(&found, own);
                for (_, c) in self.cores.iter_mut().enumerate().filter(|(i, _)| mask >> i & 1 == 1) {
                    t.deliver(&found, &pieces, &mut c.local.spm);
                }
                Ok(())
            }
            Direction::Fill => {
                t.fill(own);
                Ok(())
            }
        }
    }

    /// Runs until every queue is empty or stopped.
    ///
    /// # Errors
    /// The first queue's fault, or a deadlock with who waits for what.
    pub fn run(
        &mut self,
        memory: &mut dyn Memory,
        ids: Option<Ids>,
        order: &mut Stream,
    ) -> Result<(), Stuck> {
        loop {
            while self.step(memory, ids, order) {}
            if !self.give_up(memory) {
                break;
            }
        }
        if let Some((core, stopped)) = self.cores.iter().find_map(|c| Some((c.number, c.fault()?.1))) {
            return Err(Stuck::Fault(core, stopped.fault, stopped.index));
        }
        if self.cores.iter().all(Core::quiescent) { Ok(()) } else { Err(Stuck::Deadlock(self.waits())) }
    }

    /// Lets units take turns in a random order; false when nothing can happen any more.
    ///
    /// Some units pause for many rounds, so that the others run as far ahead of them as semaphores let them.
    fn step(&mut self, memory: &mut dyn Memory, ids: Option<Ids>, order: &mut Stream) -> bool {
        let mut pause = vec![0u64; self.cores.len() * (ENGINES + 1)];
        for _ in 0..64 {
            let mut progress = false;
            let (n, first) = (pause.len(), usize::try_from(order.below(997)).expect("small"));
            for k in 0..n {
                let slot = (k + first) % n;
                let (core, unit) = (slot / (ENGINES + 1), slot % (ENGINES + 1));
                if pause[slot] > 0 {
                    pause[slot] -= 1;
                    continue;
                }
                if order.below(32) == 0 {
                    pause[slot] = order.below(200);
                    continue;
                }
                for _ in 0..=order.below(3) {
                    progress |= self.unit(core, unit, memory, ids);
                }
            }
            // Nothing ran: it is over only if nobody pauses and a whole round again changes nothing.
            if !progress {
                return self.round(memory, ids);
            }
        }
        true
    }

    /// Every unit once; false if none could run.
    pub fn round(&mut self, memory: &mut dyn Memory, ids: Option<Ids>) -> bool {
        let mut progress = false;
        for core in 0..self.cores.len() {
            for unit in (0..=ENGINES).rev() {
                progress |= self.unit(core, unit, memory, ids);
            }
        }
        progress
    }

    fn unit(&mut self, core: usize, unit: usize, memory: &mut dyn Memory, ids: Option<Ids>) -> bool {
        let ran =
            if unit == ENGINES { self.sequence(core, memory) } else { self.engine(core, unit, memory, ids) };
        self.settle(core, memory) | ran
    }

    /// Switches queues as far as that goes without a command.
    fn settle(&mut self, core: usize, memory: &mut dyn Memory) -> bool {
        let mut changed = false;
        loop {
            let c = &mut self.cores[core];
            let mut now = c.reconsider();
            if c.drained() {
                c.leave();
                now = true;
            }
            if matches!(c.phase(), Phase::Moving(_)) {
                // A fault of the move stands in its queue.
                let _stopped = c.moved(memory, 0);
                now = true;
            }
            if !now {
                return changed;
            }
            changed = true;
        }
    }

    /// Nothing can happen: what waits with a limit has waited long enough. False if nothing does.
    fn give_up(&mut self, memory: &mut dyn Memory) -> bool {
        for i in 0..self.cores.len() {
            let q = self.cores[i].queue_mut();
            let (index, at) = (q.next_index(), q.next_at());
            let fault = if q.alive() && q.has_work() && q.polls_with_limit() {
                Fault::new(FaultCode::Timeout, at, "WAITMEM waited in vain")
            } else if q.pending() && q.watchdog > 0 {
                Fault::new(FaultCode::Watchdog, 0, "the queue waits for what will not come")
            } else {
                continue;
            };
            q.raise(fault, index, at);
            self.settle(i, memory);
            return true;
        }
        false
    }

    fn sequence(&mut self, core: usize, memory: &mut dyn Memory) -> bool {
        let c = &mut self.cores[core];
        let (queue, index, at) = (c.active(), c.queue().next_index(), c.queue().next_at());
        if let Some(f) = c.watchdog(None) {
            c.queue_mut().raise(f, index, at);
            return true;
        }
        let word = c.queue().peek(memory);
        if word.is_some_and(|w| reads_counters(&w)) {
            let raws: Vec<u64> = c.pmu.selects().iter().map(|s| c.raw(*s)).collect();
            c.pmu.refresh(&raws);
        }
        let header = word.and_then(|w| Header::decode(&w));
        let mut outcome = c.sequence(&self.cfg, memory, 0);
        if let Ok(Sequenced::Read(..)) = outcome {
            c.queue_mut().arrive();
            outcome = c.sequence(&self.cfg, memory, 0);
        }
        let effects = c.effects;
        match outcome {
            Ok(outcome) => {
                if let Some((mask, id, n)) = effects.remote {
                    for i in (0..self.cores.len()).filter(|i| mask >> i & 1 == 1) {
                        self.post_one(i, queue, id, n, None);
                    }
                }
                if let (Sequenced::Control(_), Some(h)) = (outcome, header) {
                    self.post(core, queue, &h, (index, at));
                }
                effects.remote.is_some()
                    || matches!(outcome, Sequenced::Control(_) | Sequenced::Dispatched(_) | Sequenced::Move)
            }
            Err(fault) => {
                c.queues[queue].raise(fault, index, at);
                true
            }
        }
    }

    fn engine(&mut self, core: usize, engine: usize, memory: &mut dyn Memory, ids: Option<Ids>) -> bool {
        let Some(issued) = self.cores[core].front(engine) else { return false };
        if self.target_absent(core, issued) {
            return false;
        }
        let (h, queue) = (issued.command.header, issued.queue as usize);
        let q = &mut self.cores[core].queues[queue];
        if !q.semaphores.acquire(&h) {
            return false;
        }
        let Some(issued) = q.fifo[engine].pop_front() else { return false };
        let applied = self.apply(core, &issued, memory, ids);
        let c = &mut self.cores[core];
        c.pmu.commands[engine] += 1;
        let ended = applied.and_then(|()| c.retire(&issued, memory, (0, 0), [0; 5]));
        match ended {
            Ok(()) => self.post(core, queue, &h, (issued.index, issued.at)),
            Err(f) => c.queues[queue].raise(f, issued.index, issued.at),
        }
        true
    }

    fn post(&mut self, core: usize, queue: usize, h: &Header, place: (u64, u64)) {
        for (id, n) in [(h.s0_id, h.s0_n), (h.s1_id, h.s1_n)] {
            if n == 0 {
                continue;
            }
            let to = if id >= isa::npu::CLUSTER_SEMAPHORES { 0..self.cores.len() } else { core..core + 1 };
            for i in to {
                self.post_one(i, queue, id, n, (i == core).then_some(place));
            }
        }
    }

    /// `place` is the command (index, address) that posts, if it is the queue's own.
    fn post_one(&mut self, core: usize, queue: usize, id: u64, n: u64, place: Option<(u64, u64)>) {
        let q = &mut self.cores[core].queues[queue];
        if let Err(f) = q.semaphores.post(id, n, Cause::Dependency) {
            let (index, at) = place.unwrap_or((q.next_index(), q.next_at()));
            q.raise(f, index, at);
        }
    }

    /// Who waits for which semaphore.
    #[must_use]
    pub fn waits(&self) -> Vec<String> {
        let mut out = Vec::new();
        for c in &self.cores {
            for (number, q) in c.queues.iter().enumerate() {
                let queue = if number == 0 { String::new() } else { format!(" queue {number}") };
                for (e, fifo) in q.fifo.iter().enumerate() {
                    let Some(i) = fifo.front() else { continue };
                    let h = i.command.header;
                    for (id, n) in [(h.w0_id, h.w0_n), (h.w1_id, h.w1_n)] {
                        let have = q.semaphores.get(id);
                        if n > have {
                            let name = ["dma0", "dma1", "dma2", "dma3", "mx", "vp"][e];
                            out.push(format!(
                                "npu{}{queue} {name} command {} waits for semaphore {id} to reach {n}, it is {have}",
                                c.number, i.index
                            ));
                        }
                    }
                }
                if q.next().is_some() {
                    out.push(format!("npu{}{queue} sequencer stands at {:#x}", c.number, q.next_at()));
                }
            }
        }
        out
    }
}

/// Cores a transfer writes to, as a mask; 0 = its own.
pub(crate) const fn targets(command: &Command) -> u64 {
    match (&command.body, &command.extension) {
        (Body::Dma(d), Some(Extension::Index(i))) if d.dir == 2 && d.cmask == 0 => 1 << i.rcore,
        (Body::Dma(d), _) if d.dir == 0 || d.dir == 2 => d.cmask,
        _ => 0,
    }
}

/// Whether a command word is PMU_RD.
pub(crate) const fn reads_counters(word: &Word) -> bool {
    word.get(0, 8) == OPCODE_CTRL && word.get(64, 6) == CtrlOp::PmuRd.code()
}
