//! What the instruction loop asks of a core's timing, and the core that has none.

use super::blocks::Micro;
use super::stats::{CAUSES, Cause};
use super::{Bus, LineRequest};
use sim_kernel::{Clock, Cycles, Time};

/// The access cannot go on before the global time has caught up with the hart.
pub(super) struct NotYet;

/// The outside world as a pipeline sees it during one call of `Hart::run`.
pub(super) struct Outside<'a, B: Bus> {
    pub bus: &'a mut B,
    pub clock: &'a Clock,
    pub hart: usize,
    /// The cycle of the global time; only there may the bus be asked for lines.
    pub now_cycle: u64,
}

impl<B: Bus> Outside<'_, B> {
    pub(super) fn edge(&self, cycle: u64) -> Time {
        self.clock.edge(Cycles::new(cycle))
    }

    /// Asks for a line: the cycle in which it is here, and what waiting for it is called.
    pub(super) fn line(&mut self, cycle: u64, addr: u64, write: bool, fetch: bool) -> (u64, Cause) {
        let now = self.edge(cycle);
        let reply = self.bus.line(LineRequest { now, hart: self.hart, addr, write, fetch });
        let cause = match reply.source {
            super::LineSource::SharedCache => Cause::L3,
            super::LineSource::Dram => Cause::Dram,
        };
        (self.clock.at_or_after(reply.done).get().max(cycle), cause)
    }
}

/// Cycles of one hart, each with one cause.
#[derive(Clone, Debug, Default)]
pub(super) struct Account {
    pub causes: [u64; CAUSES.len()],
}

impl Account {
    pub(super) fn add(&mut self, cause: Cause, cycles: u64) {
        self.causes[cause as usize] += cycles;
    }
}

/// Timing of one core. All methods are idempotent until `retire`: a step that answers `NotYet` is done again.
pub(super) trait Pipeline {
    /// Whether instructions go through `fetch`, `issue` and `retire` one by one.
    const TIMED: bool;

    /// Local cycle, given how many instructions have retired.
    fn cycle(&self, instret: u64) -> u64;
    /// Lets time pass until `cycle`, for one reason.
    fn advance_to(&mut self, cycle: u64, instret: u64, cause: Cause);
    /// The instruction at `pc` enters a new line of the instruction cache (or might).
    fn fetch<B: Bus>(&mut self, pc: u64, len: u8, out: &mut Outside<'_, B>) -> Result<(), NotYet>;
    /// Waits until operands and an issue slot are there.
    fn issue(&mut self, micro: &Micro);
    /// Looks a data address up; the result is remembered for `retire`.
    fn data<B: Bus>(&mut self, addr: u64, write: bool, out: &mut Outside<'_, B>) -> Result<(), NotYet>;
    /// The instruction is done; `next` is where the program goes on.
    fn retire(&mut self, micro: &Micro, pc: u64, next: u64);
    /// A device answered in this cycle; the core waited for it.
    fn device(&mut self, done: u64, instret: u64);
    /// Waits for all outstanding misses.
    fn drain(&mut self);
    /// Pays for a trap or a return from one, and forgets the fetch position.
    fn redirect(&mut self);
    /// A line changed hands: DMA wrote it or another agent owns it now.
    fn invalidate_line(&mut self, addr: u64);
    /// `fence.i`.
    fn invalidate_code(&mut self);
    /// Cycles by cause so far.
    fn account(&self, instret: u64) -> [u64; CAUSES.len()];
}

/// One instruction a cycle.
#[derive(Clone, Debug, Default)]
pub(super) struct Functional {
    /// Cycles that were not instructions.
    extra: u64,
    account: Account,
}

impl Pipeline for Functional {
    const TIMED: bool = false;

    #[inline(always)]
    fn cycle(&self, instret: u64) -> u64 {
        instret + self.extra
    }
    fn advance_to(&mut self, cycle: u64, instret: u64, cause: Cause) {
        let passed = cycle.saturating_sub(self.cycle(instret));
        self.extra += passed;
        self.account.add(cause, passed);
    }
    fn fetch<B: Bus>(&mut self, _: u64, _: u8, _: &mut Outside<'_, B>) -> Result<(), NotYet> {
        Ok(())
    }
    fn issue(&mut self, _: &Micro) {}
    fn data<B: Bus>(&mut self, _: u64, _: bool, _: &mut Outside<'_, B>) -> Result<(), NotYet> {
        Ok(())
    }
    fn retire(&mut self, _: &Micro, _: u64, _: u64) {}
    fn device(&mut self, done: u64, instret: u64) {
        self.advance_to(done, instret, Cause::Mmio);
    }
    fn drain(&mut self) {}
    fn redirect(&mut self) {}
    fn invalidate_line(&mut self, _: u64) {}
    fn invalidate_code(&mut self) {}
    fn account(&self, instret: u64) -> [u64; CAUSES.len()] {
        let mut causes = self.account.causes;
        causes[Cause::Active as usize] += instret;
        causes
    }
}
