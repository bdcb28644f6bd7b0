//! The chip assembled: harts, NPU cluster, caches, fabric, memory and devices on one event queue.
//!
//! ```text
//! harts ─ L1/L2 ─┬─ L3 ─┐
//!                ├─ devices, NPU registers
//! NPU DMA ───────┴─ fabric ─ memory channels
//! ```
//! Models: everything the parts model, in one total order of events; the mailbox plays the outside world.
//! Does not model: coherence states between private caches.
//! Source: each part's own header.

mod account;
mod build;
mod chip;
mod devicetree;
mod mailbox;
mod observe;
mod proven;
mod symbols;
mod traffic;

use sim_kernel::{Cycles, Sink, Time};
use thiserror::Error;

use crate::cpu::{Hart, Stop};

pub use crate::fabric::MemoryTiming;
pub use account::{Account, EngineCycles, OpResult, Phases, RunResult, peak_macs_per_s};
pub use build::{BuildError, FirmwareImage, Job, ModelImage, SocBuilder};
use chip::{Event, World};
pub use mailbox::{Draw, Turn};
use observe::Observer;
pub use proven::sampling_unproven;
use symbols::Symbols;
pub use traffic::TrafficResult;

/// The modelled software, or the model, came to an end it should not have.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SocFault {
    /// The firmware gave up.
    #[error("the firmware stopped: {reason}\n  console: {console}")]
    Firmware {
        /// What its error code means.
        reason: String,
        /// Last lines of the console.
        console: String,
    },
    /// The firmware refused the job, or the rest of it: the chip takes another.
    #[error("the firmware ended the job after {tokens} tokens: {reason}\n  console: {console}")]
    Refused {
        /// What its code means.
        reason: String,
        /// Tokens it had delivered.
        tokens: usize,
        /// Last lines of the console.
        console: String,
    },
    /// An NPU core faulted.
    #[error("npu{core} command {index}: {fault}\n  console: {console}")]
    Npu {
        /// Core.
        core: usize,
        /// Command number or address.
        index: u64,
        /// Fault.
        fault: String,
        /// Last lines of the console.
        console: String,
    },
    /// A hart can never run on.
    #[error("hart {hart} at pc {pc:#x}: {reason}\n  console: {console}")]
    Hart {
        /// Hart.
        hart: usize,
        /// Program counter.
        pc: u64,
        /// Why.
        reason: String,
        /// Last lines of the console.
        console: String,
    },
    /// Nothing can happen any more, but the job is not done.
    #[error("deadlock at {at}: nothing can happen any more\n  {waits}\n  console: {console}")]
    Deadlock {
        /// When.
        at: Time,
        /// Who waits for whom.
        waits: String,
        /// Last lines of the console.
        console: String,
    },
}

/// Hears of a run's tokens: all there are, and when each arrived.
pub type Listener<'a> = &'a mut dyn FnMut(&[(u32, Time)]);

/// Instructions all harts together may retire without a mailbox access or a doorbell before the run counts as hung:
/// several times what the shipped firmware takes to write lists for 131,072 positions.
const PATIENCE_INSTRUCTIONS: u64 = 1_000_000_000;
/// Events that may pass without a mailbox access or a doorbell: a list that calls itself keeps the engines busy with
/// every hart asleep. Some hundred times what the largest pass of a shipped model takes.
const PATIENCE_EVENTS: u64 = 500_000_000;
/// Events between two looks at the above.
const LOOK_EVERY: u64 = 0x1000;
/// Latest time a run may reach, well inside the range of `Time`.
const HORIZON: Time = Time::from_ns(18_000_000_000_000);

/// When somebody outside the harts last heard from them.
#[derive(Clone, Copy, Debug, Default)]
struct SignOfLife {
    signs: u64,
    instructions: u64,
    events: u64,
}

/// A chip with firmware and model loaded, ready to run.
pub struct Soc {
    world: World,
    harts: Vec<Hart>,
    scheduled: Vec<Option<Time>>,
    hart_names: Vec<String>,
    account: Account,
    heard: SignOfLife,
    symbols: Symbols,
    booted: bool,
}

impl Soc {
    /// Runs from reset until the job is done; `progress` hears how many tokens there are after each.
    ///
    /// # Errors
    /// The fault that ended the run.
    pub fn run(self, progress: &mut dyn FnMut(u64)) -> Result<RunResult, SocFault> {
        self.run_telling(&mut |tokens| progress(tokens.len() as u64))
    }

    /// The same, but `told` hears all tokens there are, and when each arrived, after each.
    ///
    /// # Errors
    /// The fault that ended the run.
    pub fn run_telling(mut self, told: Listener) -> Result<RunResult, SocFault> {
        self.run_to_end(told, None)
    }

    /// One turn of several: the first boots the chip, later ones find it as the one before left it, caches and resident
    /// positions included. Times in the result count from reset, everything else from the turn's own time zero; what
    /// passes between turns is not simulated.
    ///
    /// # Errors
    /// The fault that ended the turn; the chip is of no use after it, except after [`SocFault::Refused`].
    pub fn turn(&mut self, turn: Turn, told: Listener) -> Result<RunResult, SocFault> {
        self.world.chip.mailbox.renew(turn);
        self.run_to_end(told, None)
    }

    /// The same, shown to `sink` while it happens; also what led to a fault is shown.
    ///
    /// # Errors
    /// The fault that ended the run.
    pub fn run_observed(mut self, told: Listener, sink: &mut dyn Sink) -> Result<RunResult, SocFault> {
        let channels = self.world.chip.fabric.dram().channels as usize;
        let observer = Observer::new(&self.world.npu, &self.hart_names, channels, &self.account);
        self.world.chip.observer = Some(Box::new(observer));
        let outcome = self.run_to_end(told, Some(sink));
        if let Some(mut o) = self.world.chip.observer.take() {
            let end = self.end(self.world.chip.queue.now());
            o.sample(end, &self.account, &self.world, &self.harts);
            o.close(end);
            if let Ok(result) = &outcome {
                o.accounts(result, |engine| self.hertz_of(engine));
            }
            o.drain(sink);
        }
        outcome
    }

    fn hertz_of(&self, engine: &str) -> u64 {
        if let Some(hart) = self.hart_names.iter().position(|h| h == engine) {
            return self.account.hart_clock(hart).frequency().get();
        }
        if engine.starts_with("npu") {
            return self.world.npu.clock().frequency().get();
        }
        self.world.chip.fabric.dram().ck_hz()
    }

    /// After every event of an observed run.
    fn observe(&mut self, now: Time, sink: &mut dyn Sink) {
        let Some(mut o) = self.world.chip.observer.take() else { return };
        if o.due(now) {
            o.sample(now, &self.account, &self.world, &self.harts);
        }
        o.tokens(&self.world.chip.mailbox.tokens);
        if o.full() {
            o.drain(sink);
        }
        self.world.chip.observer = Some(o);
    }

    fn run_to_end(&mut self, told: Listener, mut sink: Option<&mut dyn Sink>) -> Result<RunResult, SocFault> {
        if self.booted {
            self.world.chip.schedule_job(self.end(self.world.chip.queue.now()));
        } else {
            self.booted = true;
            for hart in 0..self.harts.len() {
                self.schedule_hart(hart, Time::ZERO);
            }
        }
        let mut known = 0;
        while let Some((now, rank, event)) = self.world.chip.queue.pop() {
            match event {
                Event::Hart(hart) => self.run_hart(now, hart as usize)?,
                Event::Npu(event) => {
                    let core = self.world.chip.core_of(rank);
                    self.world.npu.on_event(now, core, event, &mut self.world.chip);
                }
                Event::Memory => self.memory_event(now),
                Event::Job => self.start_job(now),
            }
            self.settle(now);
            if let Some(sink) = &mut sink {
                self.observe(now, *sink);
            }
            self.check(now)?;
            let tokens = &self.world.chip.mailbox.tokens;
            if tokens.len() != known {
                known = tokens.len();
                told(tokens);
            }
            if self.finished() {
                self.world.chip.fabric.settle(now);
                if let Some(refused) = self.refused() {
                    return Err(refused);
                }
                return Ok(self.account.finish(&self.world, &self.harts, self.end(now)));
            }
        }
        Err(self.deadlock())
    }

    fn schedule_hart(&mut self, hart: usize, at: Time) {
        if self.scheduled[hart].is_none_or(|t| at < t) {
            self.scheduled[hart] = Some(at);
            self.world.chip.schedule_hart(hart, at);
        }
    }

    fn run_hart(&mut self, now: Time, hart: usize) -> Result<(), SocFault> {
        if self.scheduled[hart] != Some(now) {
            // A later wake-up that an earlier one made superfluous.
            return Ok(());
        }
        self.scheduled[hart] = None;
        let until = now + Time::from_ns(1000);
        let (pc, ran) = (self.harts[hart].pc(), self.harts[hart].instructions());
        let slept = self.harts[hart].asleep();
        let stop = self.harts[hart].run(now, until, &mut self.world);
        if let Some(o) = &mut self.world.chip.observer
            && !(slept && self.harts[hart].asleep() && self.harts[hart].instructions() == ran)
        {
            o.hart_ran(&self.harts[hart], hart, now, pc, &self.symbols);
        }
        match stop {
            Stop::Wfi => {
                let timer = self.harts[hart].enabled_interrupts() >> 7 & 1 == 1;
                if let Some(at) = self.world.chip.clint.deadline(now, hart).filter(|_| timer) {
                    self.schedule_hart(hart, at);
                }
            }
            Stop::SharedAt(at) | Stop::Quantum(at) | Stop::Watch(at) => self.schedule_hart(hart, at),
            Stop::Limit => return Err(self.hart_fault(hart, "its instruction limit is reached".to_owned())),
            Stop::Lost => {
                let why = self.harts[hart].last_exception().map_or_else(String::new, |(cause, pc, value)| {
                    format!("trap handler traps into itself: mcause {cause}, mepc {pc:#x}, mtval {value:#x}")
                });
                return Err(self.hart_fault(hart, why));
            }
        }
        Ok(())
    }

    fn hart_fault(&self, hart: usize, reason: String) -> SocFault {
        let only = self.harts[hart].address_only_fault().map(|(pc, addr)| {
            format!("; it read {addr:#x} at pc {pc:#x}, which a shape-only run does not store")
        });
        SocFault::Hart {
            hart,
            pc: self.harts[hart].pc(),
            reason: reason + &only.unwrap_or_default(),
            console: self.world.chip.console_tail(),
        }
    }

    fn memory_event(&mut self, now: Time) {
        let World { chip, npu } = &mut self.world;
        if chip.memory_due != Some(now) {
            // An event that an earlier one made superfluous; the one that is due stands in the queue.
            return;
        }
        chip.memory_due = None;
        for (core, requester) in chip.finished_flows(now) {
            let arrival = now + chip.fabric_latency;
            npu.flow_done(arrival, core, requester, chip);
        }
    }

    /// After every event: interrupt lines reach sleeping harts, DMA writes leave no stale lines, memory is watched.
    fn settle(&mut self, now: Time) {
        let chip = &mut self.world.chip;
        while let Some(line) = chip.snoops.pop() {
            if let Some(l3) = &mut chip.l3 {
                l3.cache.invalidate_line(line);
            }
            self.harts.iter_mut().for_each(|h| h.invalidate_line(line));
        }
        chip.watch_memory(now);
        if core::mem::take(&mut chip.lines_changed) {
            for hart in 0..self.harts.len() {
                if self.harts[hart].asleep() {
                    let l = self.world.chip.lines(now, hart);
                    self.harts[hart].set_interrupt_lines(l.software, l.timer, l.external);
                    if self.harts[hart].wakes() {
                        self.schedule_hart(hart, now);
                    }
                }
            }
        }
        if let Some(at) = self.world.chip.mailbox.take_first_token() {
            self.world.chip.fabric.settle(now);
            self.account.first_token(&self.world, &self.harts, at);
        }
        if self.world.chip.mailbox.take_ready() {
            // The outside world answers a little later, when the harts have gone to sleep.
            self.world.chip.schedule_job(now + Time::from_ns(20_000));
        }
    }

    /// Time zero: the prompt arrives. It waits until every hart sleeps, so that boot is over on all of them.
    fn start_job(&mut self, now: Time) {
        if self.harts.iter().any(|h| !h.asleep()) {
            return self.world.chip.schedule_job(now + Time::from_ns(20_000));
        }
        self.world.chip.fabric.settle(now);
        self.account.start(&self.world, &self.harts, now);
        if let Some(mut o) = self.world.chip.observer.take() {
            o.time_zero(now, &self.account, &self.world, &self.harts);
            self.world.chip.observer = Some(o);
        }
        self.world.chip.ring_job();
    }

    fn check(&mut self, now: Time) -> Result<(), SocFault> {
        let chip = &self.world.chip;
        if let Some(code) = chip.mailbox.error() {
            // An NPU fault says more than the firmware's word for it.
            if let Some(fault) = self.npu_fault() {
                return Err(fault);
            }
            let reason = isa::memory_map::error::text(code).to_owned();
            return Err(SocFault::Firmware { reason, console: chip.console_tail() });
        }
        if chip.queue.dispatched().is_multiple_of(LOOK_EVERY) {
            self.look_for_life(now)?;
        }
        if now > HORIZON {
            return Err(self.hung(format!("the run passes {HORIZON}, the longest there is")));
        }
        Ok(())
    }

    /// Ends a run in which firmware or NPU go round in circles.
    fn look_for_life(&mut self, now: Time) -> Result<(), SocFault> {
        let chip = &self.world.chip;
        let seen = SignOfLife {
            signs: chip.mailbox.accesses() + chip.doorbells,
            instructions: self.harts.iter().map(Hart::instructions).sum(),
            events: chip.queue.dispatched(),
        };
        if seen.signs != self.heard.signs {
            self.heard = seen;
        }
        let instructions = seen.instructions - self.heard.instructions;
        let events = seen.events - self.heard.events;
        if instructions > PATIENCE_INSTRUCTIONS || events > PATIENCE_EVENTS {
            return Err(self.hung(format!(
                "no mailbox access and no doorbell in {instructions} instructions and {events} events, at {now}: it \
                 hangs"
            )));
        }
        Ok(())
    }

    /// The fault of a run without end, told of the first hart that is awake.
    fn hung(&self, reason: String) -> SocFault {
        self.hart_fault(self.harts.iter().position(|h| !h.asleep()).unwrap_or(0), reason)
    }

    fn npu_fault(&self) -> Option<SocFault> {
        self.world.npu.cores.cores.iter().find_map(|c| {
            let (_, stopped) = c.fault()?;
            let console = self.world.chip.console_tail();
            let (index, fault) = (stopped.index, stopped.fault.to_string());
            Some(SocFault::Npu { core: c.number, index, fault, console })
        })
    }

    fn refused(&self) -> Option<SocFault> {
        let chip = &self.world.chip;
        let reason = isa::memory_map::error::text(chip.mailbox.refused()?).to_owned();
        let (tokens, console) = (chip.mailbox.tokens.len(), chip.console_tail());
        Some(SocFault::Refused { reason, tokens, console })
    }

    fn finished(&self) -> bool {
        self.world.chip.mailbox.done()
            && self.harts.iter().all(Hart::asleep)
            && self.world.npu.quiescent()
            && self.world.chip.memory_quiescent()
    }

    fn end(&self, now: Time) -> Time {
        self.harts.iter().map(Hart::local_time).fold(now, Time::max)
    }

    fn deadlock(&self) -> SocFault {
        if let Some(fault) = self.npu_fault() {
            return fault;
        }
        let mut waits: Vec<String> = Vec::new();
        for (name, h) in self.hart_names.iter().zip(&self.harts) {
            waits.push(format!(
                "{name} sleeps at pc {:#x}, waiting for interrupts {:#x}",
                h.pc(),
                h.enabled_interrupts()
            ));
        }
        waits.extend(self.world.npu.cores.waits());
        SocFault::Deadlock {
            at: self.world.chip.queue.now(),
            waits: waits.join("\n  "),
            console: self.world.chip.console_tail(),
        }
    }
}

/// Cycles of `clock` that have begun by `t`.
fn cycles_at(clock: &sim_kernel::Clock, t: Time) -> u64 {
    let c: Cycles = clock.at_or_after(t);
    c.get()
}
