//! A time-free NPU: runs queues to completion in any order the semaphores allow.
//!
//! Models: function of the whole cluster. Does not model: time.
//! Source: `isa::npu`.
//!
//! The order in which runnable engines take turns comes from a seeded stream. A command list is race-free exactly
//! if every order gives the same bytes, which tests check by trying several.

use isa::npu::Body;
use sim_kernel::Stream;

use crate::config::NpuConfig;
use crate::core::{Core, ENGINES, Issued, Sequenced};
use crate::dma::{Direction, Transfer};
use crate::fault::Fault;
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

    /// Applies a started command's function and returns its posts, to be made when its writes are visible.
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
        let Body::Dma(d) = &issued.command.body else {
            return ops::execute(&issued.command, &self.cfg, &mut self.cores[core].local, ids);
        };
        let t = Transfer::new(&issued.command, d, issued.region, &self.cfg)?;
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

    /// Runs until every queue is empty.
    ///
    /// # Errors
    /// A fault, or a deadlock with who waits for what.
    pub fn run(
        &mut self,
        memory: &mut dyn Memory,
        ids: Option<Ids>,
        order: &mut Stream,
    ) -> Result<(), Stuck> {
        // Some units pause for many rounds, so that the others run as far ahead of them as semaphores let them.
        let mut pause = vec![0u64; self.cores.len() * (ENGINES + 1)];
        loop {
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
                    progress |= if unit == ENGINES {
                        self.sequence(core, memory)?
                    } else {
                        self.engine(core, unit, memory, ids)?
                    };
                }
            }
            if progress {
                continue;
            }
            // Nothing ran: it is over only if nobody pauses and a whole round again changes nothing.
            pause.fill(0);
            if !self.round(memory, ids)? {
                break;
            }
        }
        if self.cores.iter().all(Core::quiescent) { Ok(()) } else { Err(Stuck::Deadlock(self.waits())) }
    }

    /// Every unit once.
    fn round(&mut self, memory: &mut dyn Memory, ids: Option<Ids>) -> Result<bool, Stuck> {
        let mut progress = false;
        for core in 0..self.cores.len() {
            progress |= self.sequence(core, memory)?;
            for engine in 0..ENGINES {
                progress |= self.engine(core, engine, memory, ids)?;
            }
        }
        Ok(progress)
    }

    fn sequence(&mut self, core: usize, memory: &mut dyn Memory) -> Result<bool, Stuck> {
        let index = self.cores[core].next_index();
        let header = self.peek_header(core, memory);
        match self.cores[core].sequence(&self.cfg, memory, 0) {
            Ok(Sequenced::Control(_)) => {
                let posts = header.map_or([(0, 0); 2], |h| [(h.s0_id, h.s0_n), (h.s1_id, h.s1_n)]);
                self.post(core, posts, Cause::Dependency)?;
                Ok(true)
            }
            Ok(Sequenced::Dispatched(_)) => Ok(true),
            Ok(_) => Ok(false),
            Err(fault) => {
                self.cores[core].raise(fault, index);
                Err(Stuck::Fault(core, fault, index))
            }
        }
    }

    fn peek_header(&self, core: usize, memory: &mut dyn Memory) -> Option<isa::npu::Header> {
        let mut bytes = [0; 32];
        memory.read(self.cores[core].next_address()?, &mut bytes).ok()?;
        isa::npu::Header::decode(&isa::npu::Word::from_bytes(&bytes))
    }

    fn engine(
        &mut self,
        core: usize,
        engine: usize,
        memory: &mut dyn Memory,
        ids: Option<Ids>,
    ) -> Result<bool, Stuck> {
        let c = &mut self.cores[core];
        let Some(issued) = c.fifo[engine].front().copied() else { return Ok(false) };
        let h = issued.command.header;
        if !c.semaphores.acquire(&h) {
            return Ok(false);
        }
        c.fifo[engine].pop_front();
        self.perform(core, &issued, memory, ids).map_err(|f| Stuck::Fault(core, f, issued.index))?;
        self.post(core, [(h.s0_id, h.s0_n), (h.s1_id, h.s1_n)], Cause::Dependency)?;
        Ok(true)
    }

    fn post(&mut self, core: usize, posts: [(u64, u64); 2], cause: Cause) -> Result<(), Stuck> {
        for (id, n) in posts {
            if n == 0 {
                continue;
            }
            let to = if id >= isa::npu::CLUSTER_SEMAPHORES { 0..self.cores.len() } else { core..core + 1 };
            for i in to {
                self.cores[i].semaphores.post(id, n, cause).map_err(|f| Stuck::Fault(core, f, 0))?;
            }
        }
        Ok(())
    }

    /// Who waits for which semaphore.
    #[must_use]
    pub fn waits(&self) -> Vec<String> {
        let mut out = Vec::new();
        for c in &self.cores {
            for (e, fifo) in c.fifo.iter().enumerate() {
                let Some(i) = fifo.front() else { continue };
                let h = i.command.header;
                for (id, n) in [(h.w0_id, h.w0_n), (h.w1_id, h.w1_n)] {
                    if n > c.semaphores.get(id) {
                        let name = ["dma0", "dma1", "dma2", "dma3", "mx", "vp"][e];
                        let have = c.semaphores.get(id);
                        out.push(format!(
                            "npu{} {name} command {} waits for semaphore {id} to reach {n}, it is {have}",
                            c.number, i.index
                        ));
                    }
                }
            }
            if let Some(at) = c.next_address() {
                out.push(format!("npu{} sequencer stands at {at:#x}", c.number));
            }
        }
        out
    }
}
