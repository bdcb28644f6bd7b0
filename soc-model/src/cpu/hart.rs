//! One hart: architectural state and the loop that runs instructions until the outside world is needed.
//!
//! Protocol: a hart runs inside one event, at most until the time it is given. Before an instruction whose effect is
//! global (a line the private caches lack, an atomic, a fence, a device register, the `time` register, `wfi`) it
//! returns `Stop::SharedAt` with its own time; called again at exactly that time it does that instruction with the
//! outside world's answer and goes on. What a race-free guest computes, and when, does not depend on the bound.
//!
//! Models: RV64GC, Zicsr, Zifencei, Zba, Zbb, Zbs in machine mode; misaligned loads and stores to memory work.
//! Does not model: other privilege modes; interrupts are taken at the ends of decoded runs (at most 48 instructions).
//! Source: RISC-V Instruction Set Manual, Volumes I and II, 20240411.

use super::blocks::{Blocks, FP_BASE, GLOBAL, MEMORY, Micro, NEW_LINE, NoCode, SINK, SYNC, fetch};
use super::csr::{CsrFile, Moment, cause};
use super::execute::{Exit, load_kind, store_kind};
use super::inorder::{CoreConfigError, InOrder};
use super::memory::GuestMemory;
use super::pipeline::{Functional, NotYet, Outside, Pipeline};
use super::stats::{Cause, HartStats};
use super::{Bus, CoreConfig, Stop};
use isa::rv64::{Class, Op};
use sim_kernel::{Clock, Cycles, Hertz, Time};

/// A register written by a committed instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitRegister {
    /// Integer register and its new value.
    Int(u8, u64),
    /// Floating-point register and its new value.
    Fp(u8, u64),
}

/// One committed instruction, for traces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Address.
    pub pc: u64,
    /// Its 16 or 32 bits.
    pub word: u32,
    /// Register written.
    pub register: Option<CommitRegister>,
    /// Address of a load, store or atomic.
    pub address: Option<u64>,
    /// Value and width of a store.
    pub stored: Option<(u64, u8)>,
}

enum Core {
    Functional(Functional),
    InOrder(Box<InOrder>),
}

/// A hart with its pipeline and private caches.
pub struct Hart {
    pub(super) id: usize,
    clock: Clock,
    core: Core,
    /// Indexed by any `u8` without a check; 0 to 31 are the registers, `SINK` swallows writes to x0.
    pub(super) x: [u64; 256],
    pub(super) f: [u64; 32],
    pc: u64,
    pub(super) csr: CsrFile,
    pub(super) blocks: Blocks,
    pub(super) moment: Moment,
    instret: u64,
    limit: u64,
    asleep: bool,
    exceptions: u64,
    interrupts: u64,
    address_only: Option<(u64, u64)>,
    last_exception: Option<(u64, u64, u64)>,
    commits: Option<Vec<Commit>>,
}

/// How the inner loop over one run ended.
enum RunEnd {
    /// Go on at the new pc.
    Next(u64),
    /// The instruction at this pc is not done: come back when global time is there.
    NotYet(u64),
    /// An exception at this pc.
    Trap(u64, u64, u64),
    /// `wfi` is done; the next pc.
    Wait(u64),
}

impl Hart {
    /// A hart that is reset to address 0 with its clock at edge 0.
    ///
    /// # Errors
    /// All reasons why the core configuration is impossible.
    pub fn new(id: usize, config: &CoreConfig, frequency: Hertz) -> Result<Self, Vec<CoreConfigError>> {
        let core = match config {
            CoreConfig::Functional => Core::Functional(Functional::default()),
            CoreConfig::InOrder(c) => Core::InOrder(Box::new(InOrder::new(c)?)),
        };
        Ok(Self {
            id,
            clock: Clock::new(frequency),
            core,
            x: [0; 256],
            f: [0; 32],
            pc: 0,
            csr: CsrFile::new(id),
            blocks: Blocks::new(),
            moment: Moment::default(),
            instret: 0,
            limit: u64::MAX,
            asleep: false,
            exceptions: 0,
            interrupts: 0,
            address_only: None,
            last_exception: None,
            commits: None,
        })
    }

    /// Resets the architectural state: starts at `pc` with two arguments. Counters of time and work go on.
    pub fn reset(&mut self, pc: u64, a0: u64, a1: u64) {
        self.x = [0; 256];
        self.x[10] = a0;
        self.x[11] = a1;
        self.f = [0; 32];
        self.csr = CsrFile::new(self.id);
        self.blocks.flush();
        self.pc = pc;
        self.asleep = false;
    }

    /// Sets the machine software, timer and external interrupt lines.
    pub fn set_interrupt_lines(&mut self, msip: bool, mtip: bool, meip: bool) {
        self.csr.set_lines(msip, mtip, meip);
    }

    /// Whether a hart in `wfi` would go on.
    #[must_use]
    pub fn wakes(&self) -> bool {
        self.csr.wakes()
    }

    /// Whether the hart is waiting in `wfi`.
    #[must_use]
    pub fn asleep(&self) -> bool {
        self.asleep
    }

    /// The enabled interrupts, as bits of `mie`: what a sleeping hart waits for.
    #[must_use]
    pub fn enabled_interrupts(&self) -> u64 {
        self.csr.enabled()
    }

    /// `Hart::run` returns `Stop::Limit` once this many instructions have retired since the hart was made.
    pub fn set_instruction_limit(&mut self, limit: u64) {
        self.limit = limit;
    }

    /// Keeps a record of every instruction from now on; `take_commits` hands it out.
    pub fn record_commits(&mut self) {
        self.commits = Some(Vec::new());
    }

    /// The instructions committed since the last call.
    pub fn take_commits(&mut self) -> Vec<Commit> {
        self.commits.as_mut().map(core::mem::take).unwrap_or_default()
    }

    /// Where the program is.
    #[must_use]
    pub fn pc(&self) -> u64 {
        self.pc
    }

    /// An integer register; x0 for numbers beyond 31.
    #[must_use]
    pub fn register(&self, index: u8) -> u64 {
        if index < 32 { self.x[usize::from(index)] } else { 0 }
    }

    /// The bits of a floating-point register; 0 for numbers beyond 31.
    #[must_use]
    pub fn fp_register(&self, index: u8) -> u64 {
        self.f.get(usize::from(index)).copied().unwrap_or(0)
    }

    /// Instructions retired.
    #[must_use]
    pub fn instructions(&self) -> u64 {
        self.instret
    }

    /// Interrupts taken.
    #[must_use]
    pub fn interrupts_taken(&self) -> u64 {
        self.interrupts
    }

    /// pc and address of the first access to memory that is addressed but not stored, if there was one.
    #[must_use]
    pub fn address_only_fault(&self) -> Option<(u64, u64)> {
        self.address_only
    }

    /// The last exception: pc, `mcause`, `mtval`.
    #[must_use]
    pub fn last_exception(&self) -> Option<(u64, u64, u64)> {
        self.last_exception
    }

    /// The hart's own time: the edge of its current cycle.
    pub fn local_time(&self) -> Time {
        let local = match &self.core {
            Core::Functional(p) => p.cycle(self.instret),
            Core::InOrder(p) => p.cycle(self.instret),
        };
        self.clock.edge(Cycles::new(local))
    }

    /// Changes the clock from the hart's own time, or `at` if that is later; the time until then is idle.
    pub fn set_frequency(&mut self, at: Time, frequency: Hertz) {
        let cycle = self.clock.at_or_after(at).get();
        match &mut self.core {
            Core::Functional(p) => p.advance_to(cycle, self.instret, Cause::Idle),
            Core::InOrder(p) => p.advance_to(cycle, self.instret, Cause::Idle),
        }
        self.clock = self.clock.retuned(self.local_time(), frequency);
    }

    /// A line was written by someone else (DMA): the private caches drop it.
    pub fn invalidate_line(&mut self, addr: u64) {
        self.invalidate_range(addr, 1);
    }

    /// A range was written by someone else (DMA); cheap for any size.
    pub fn invalidate_range(&mut self, addr: u64, bytes: u64) {
        match &mut self.core {
            Core::Functional(p) => p.invalidate(addr, bytes),
            Core::InOrder(p) => p.invalidate(addr, bytes),
        }
    }

    /// The account so far.
    #[must_use]
    pub fn stats(&self) -> HartStats {
        let mut s = HartStats {
            instructions: self.instret,
            classes: self.blocks.classes(),
            exceptions: self.exceptions,
            interrupts: self.interrupts,
            ..HartStats::default()
        };
        match &self.core {
            Core::Functional(p) => s.causes = p.account(self.instret),
            Core::InOrder(p) => {
                s.causes = p.account(self.instret);
                (s.mispredicts, s.write_backs, s.prefetches) = (p.mispredicts, p.write_backs, p.prefetches);
                (s.l1i_misses, s.l1d_misses, s.l2_misses) = (p.l1i_misses, p.l1d_misses, p.l2_misses);
            }
        }
        s.cycles = s.causes.iter().sum();
        s
    }

    /// Runs from global time `now`, at most until `until` (plus the instruction in flight).
    pub fn run(&mut self, now: Time, until: Time, bus: &mut impl Bus) -> Stop {
        let recording = self.commits.is_some();
        let idle = Core::Functional(Functional::default());
        let mut core = core::mem::replace(&mut self.core, idle);
        // Apart from the hart, so that instructions can change the hart while their run is read.
        let mut b = core::mem::take(&mut self.blocks);
        let b = &mut b;
        let stop = match (&mut core, recording) {
            (Core::Functional(p), false) => self.run_core::<_, _, false>(p, b, now, until, bus),
            (Core::Functional(p), true) => self.run_core::<_, _, true>(p, b, now, until, bus),
            (Core::InOrder(p), false) => self.run_core::<_, _, false>(p.as_mut(), b, now, until, bus),
            (Core::InOrder(p), true) => self.run_core::<_, _, true>(p.as_mut(), b, now, until, bus),
        };
        self.core = core;
        self.blocks = core::mem::take(b);
        stop
    }

    fn run_core<P: Pipeline, B: Bus, const RECORD: bool>(
        &mut self,
        p: &mut P,
        blocks: &mut Blocks,
        now: Time,
        until: Time,
        bus: &mut B,
    ) -> Stop {
        let clock = self.clock;
        let now_cycle = clock.at_or_after(now).get();
        let until_cycle = clock.at_or_after(until).get();
        let mut out = Outside { bus, clock: &clock, hart: self.id, now_cycle };
        p.advance_to(now_cycle, self.instret, Cause::Idle);
        self.refresh_lines(now, out.bus);
        if self.asleep {
            if !self.csr.wakes() {
                return Stop::Wfi;
            }
            self.asleep = false;
        }
        loop {
            let cycle = p.cycle(self.instret);
            if self.instret >= self.limit {
                return Stop::Limit;
            }
            if cycle >= until_cycle && cycle > now_cycle {
                return Stop::Quantum(out.edge(cycle));
            }
            if self.csr.attention
                && let Some(interrupt) = self.csr.interrupt()
            {
                self.interrupts += 1;
                self.pc = self.csr.trap(self.pc, interrupt, 0);
                p.redirect();
            }
            let epoch = out.bus.memory().code_epoch();
            if epoch != blocks.epoch {
                blocks.epoch = epoch;
                blocks.flush();
                if out.bus.memory().take_watch_hit() {
                    return Stop::Watch(out.edge(cycle));
                }
            }
            match self.run_block::<P, B, RECORD>(p, blocks, &mut out) {
                RunEnd::Next(pc) => self.pc = pc,
                RunEnd::NotYet(pc) => {
                    self.pc = pc;
                    return Stop::SharedAt(out.edge(p.cycle(self.instret)));
                }
                RunEnd::Trap(pc, cause, tval) => {
                    self.take_exception(p, pc, cause, tval, &mut out);
                    if self.pc == pc {
                        return Stop::Lost;
                    }
                }
                RunEnd::Wait(pc) => {
                    self.pc = pc;
                    if !self.csr.wakes() {
                        self.asleep = true;
                        return Stop::Wfi;
                    }
                }
            }
        }
    }

    fn take_exception<P: Pipeline, B: Bus>(
        &mut self,
        p: &mut P,
        pc: u64,
        cause: u64,
        tval: u64,
        out: &mut Outside<'_, B>,
    ) {
        let tval =
            if cause == cause::ILLEGAL { fetch(out.bus.memory(), pc).map_or(0, u64::from) } else { tval };
        let faults = [cause::FETCH_FAULT, cause::LOAD_FAULT, cause::STORE_FAULT];
        if faults.contains(&cause) && self.address_only.is_none() && out.bus.memory().contains(tval) {
            self.address_only = Some((pc, tval));
        }
        self.exceptions += 1;
        self.last_exception = Some((pc, cause, tval));
        self.pc = self.csr.trap(pc, cause, tval);
        p.redirect();
        // A handler that faults at once would otherwise never move time.
        p.advance_to(p.cycle(self.instret) + 1, self.instret, Cause::System);
    }

    /// Runs decoded instructions from `self.pc` to the next change of flow.
    #[inline(always)]
    fn run_block<P: Pipeline, B: Bus, const RECORD: bool>(
        &mut self,
        p: &mut P,
        blocks: &mut Blocks,
        out: &mut Outside<'_, B>,
    ) -> RunEnd {
        let base = self.pc;
        let (start, len) = match blocks.enter(base, out.bus.memory()) {
            Ok(run) => run,
            Err(NoCode::Illegal(word)) => return RunEnd::Trap(base, cause::ILLEGAL, u64::from(word)),
            Err(NoCode::Fault(addr)) => return RunEnd::Trap(base, cause::FETCH_FAULT, addr),
        };
        let left = usize::try_from(self.limit - self.instret).unwrap_or(usize::MAX);
        let end = start + len.min(left);
        let mut synced = start;
        let mut at = start;
        let mut follows = base;
        let mut micros = blocks.code[start..end].iter();
        let result = loop {
            let Some(u) = micros.next() else {
                break RunEnd::Next(follows);
            };
            let pc = base.wrapping_add(u64::from(u.offset));
            if u.flags & SYNC != 0 {
                self.instret += (at - synced) as u64;
                synced = at;
            }
            if P::TIMED {
                if (u.flags & NEW_LINE != 0 || at == start) && p.fetch(pc, u.len, out).is_err() {
                    break RunEnd::NotYet(pc);
                }
                p.issue(u);
            }
            // Global order first: a look-up that is done again later would find what it brought in itself.
            if u.flags & SYNC != 0 && self.synchronise(p, u, out).is_err() {
                break RunEnd::NotYet(pc);
            }
            if P::TIMED && u.flags & MEMORY != 0 && self.look_up(p, u, out).is_err() {
                break RunEnd::NotYet(pc);
            }
            let before = if RECORD { Some(self.address(u)) } else { None };
            let (next, stop) = match self.execute(u, pc, out.bus.memory()) {
                Ok(next) => (next, None),
                Err(Exit::Touched(next)) => (next, Some(RunEnd::Next(next))),
                Err(Exit::Wait(next)) => (next, Some(RunEnd::Wait(next))),
                Err(Exit::Trap(cause, tval)) => break RunEnd::Trap(pc, cause, tval),
                Err(Exit::Device(addr)) => {
                    self.instret += (at - synced) as u64;
                    synced = at;
                    match self.device(p, u, addr, out) {
                        Ok(true) => (pc.wrapping_add(u64::from(u.len)), None),
                        Ok(false) => break RunEnd::NotYet(pc),
                        Err(cause) => break RunEnd::Trap(pc, cause, addr),
                    }
                }
            };
            if RECORD {
                self.record(u, pc, before, out.bus.memory());
            }
            if P::TIMED {
                p.retire(u, pc, next);
                match u.op {
                    Op::Mret => p.redirect(),
                    Op::Fence => p.drain(),
                    Op::FenceI => p.invalidate_code(),
                    _ => {}
                }
            }
            at += 1;
            follows = next;
            if let Some(stop) = stop {
                break stop;
            }
        };
        self.instret += (at - synced) as u64;
        if at != start + len {
            blocks.not_executed(at, start + len);
        }
        if at > start && blocks.code[at - 1].op == Op::FenceI {
            blocks.flush();
        }
        result
    }

    fn refresh_lines(&mut self, now: Time, bus: &mut impl Bus) {
        let lines = bus.interrupt_lines(now, self.id);
        self.csr.set_lines(lines.software, lines.timer, lines.external);
    }

    /// Before an instruction that counters or global order matter to.
    #[inline(never)]
    fn synchronise<P: Pipeline, B: Bus>(
        &mut self,
        p: &P,
        u: &Micro,
        out: &mut Outside<'_, B>,
    ) -> Result<(), NotYet> {
        let cycle = p.cycle(self.instret);
        self.moment = Moment { cycle, instret: self.instret, mtime: 0 };
        if u.flags & GLOBAL == 0 {
            return Ok(());
        }
        if cycle > out.now_cycle {
            return Err(NotYet);
        }
        if !matches!(u.op, Op::Fence | Op::Wfi) && u.class == Class::System {
            self.moment.mtime = out.bus.mtime(out.edge(cycle));
        }
        Ok(())
    }

    /// Sends the address of a load, store or atomic through the caches, if it is memory.
    #[inline(always)]
    fn look_up<P: Pipeline, B: Bus>(
        &self,
        p: &mut P,
        u: &Micro,
        out: &mut Outside<'_, B>,
    ) -> Result<(), NotYet> {
        let addr = self.address(u);
        if out.bus.memory().contains(addr) { p.data(addr, u.class != Class::Load, out) } else { Ok(()) }
    }

    /// A load or store whose address is no memory: `Ok(false)` if global time is not there yet, or the exception.
    #[inline(never)]
    fn device<P: Pipeline, B: Bus>(
        &mut self,
        p: &mut P,
        u: &Micro,
        addr: u64,
        out: &mut Outside<'_, B>,
    ) -> Result<bool, u64> {
        let cycle = p.cycle(self.instret);
        if cycle > out.now_cycle {
            return Ok(false);
        }
        let now = out.edge(cycle);
        let done = if let Some(kind) = load_kind(u.op) {
            let answer = out.bus.mmio_load(now, self.id, addr, kind.bytes());
            let (value, done) = answer.map_err(|_| cause::LOAD_FAULT)?;
            self.finish_load(u, kind, value);
            done
        } else {
            let (size, fp) = store_kind(u.op).expect("only loads and stores reach devices");
            let value = self.store_data(u, fp) & (u64::MAX >> (64 - 8 * u32::from(size)));
            out.bus.mmio_store(now, self.id, addr, size, value).map_err(|_| cause::STORE_FAULT)?
        };
        // The access may have raised or cleared this hart's own interrupts.
        self.refresh_lines(now, out.bus);
        p.device(out.clock.at_or_after(done).get(), self.instret);
        Ok(true)
    }

    fn record(&mut self, u: &Micro, pc: u64, address: Option<u64>, memory: &GuestMemory) {
        let word = fetch(memory, pc).unwrap_or(0);
        let register = match u.dest {
            SINK => None,
            r if r >= FP_BASE => Some(CommitRegister::Fp(r - FP_BASE, self.f[usize::from(r - FP_BASE)])),
            r => Some(CommitRegister::Int(r, self.x[usize::from(r)])),
        };
        let address = address.filter(|_| u.flags & MEMORY != 0);
        let stored = match (u.class, address) {
            (Class::Store, _) => store_kind(u.op)
                .map(|(size, fp)| (self.store_data(u, fp) & (u64::MAX >> (64 - 8 * u32::from(size))), size)),
            (Class::Amo, Some(addr)) if u.writes_memory() => {
                let word = u.op <= Op::AmomaxuW;
                let read = if word { memory.read::<4>(addr) } else { memory.read::<8>(addr) };
                read.ok().map(|value| (value, if word { 4 } else { 8 }))
            }
            _ => None,
        };
        if let Some(commits) = &mut self.commits {
            commits.push(Commit { pc, word, register, address, stored });
        }
    }
}
