//! A narrow in-order core in time: what can issue in a cycle, and what every lost cycle was lost to.
//!
//! ```text
//!  L1I -> predict -> issue (in order, stalls on use) -> ALU | MUL/DIV | FP | load/store -> L1D -> L2 -> Bus::line
//! ```
//!
//! Models: issue width, memory ports, operand readiness, load-use, unpipelined divide, bimodal prediction with
//! return stack and indirect targets, private caches with outstanding misses.
//! Does not model: prefetchers, TLBs, pairing rules beyond width and ports, store forwarding (an L1 hit), the second
//! line of an access that crosses lines, bank conflicts.
//! Source: LLVM `AArch64SchedA510.td` (issue and latencies of the Cortex-A510, the A520's published predecessor),
//! chipsandcheese.com "Arm's Cortex A510" (2023-10-01), AnandTech 18871 (Cortex-A520); what those do not say is an
//! estimate, accuracy class C.
#![allow(
    clippy::cast_possible_truncation,
    reason = "table indices are masked, latencies come from small integers"
)]

use super::blocks::{FLOW, Micro};
use super::cache::{CacheConfig, CacheConfigError, TagArray};
use super::pipeline::{Account, NotYet, Outside, Pipeline};
use super::stats::{CAUSES, Cause};
use super::{Bus, blocks};
use isa::rv64::{Class, Op};
use serde::{Deserialize, Serialize};

/// Parameters of an in-order core. Cycles are of the core's clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct InOrderConfig {
    /// Instructions issued in a cycle at most.
    pub issue_width: u32,
    /// Loads and stores issued in a cycle at most.
    pub memory_ports: u32,
    /// Outstanding line misses.
    pub miss_registers: u32,
    /// Result latency of a multiply.
    pub mul_cycles: u32,
    /// Result latency of a divide; the unit is busy as long.
    pub div_cycles: u32,
    /// Result latency of floating-point add, multiply, compare and conversion.
    pub fp_cycles: u32,
    /// Result latency of a fused multiply-add.
    pub fma_cycles: u32,
    /// Result latency of floating-point divide and square root; the unit is busy as long.
    pub fp_div_cycles: u32,
    /// Result latency of an atomic on a line in the L1.
    pub atomic_cycles: u32,
    /// Cycles lost to a misprediction.
    pub mispredict_cycles: u32,
    /// Cycles lost to a trap, a return from one, or another serialising instruction.
    pub serialise_cycles: u32,
    /// Two-bit counters of the branch predictor; a power of two.
    pub predictor_entries: u32,
    /// Depth of the return stack.
    pub return_stack: u32,
    /// L1 instruction cache.
    pub l1i: CacheConfig,
    /// L1 data cache; its latency is load to use.
    pub l1d: CacheConfig,
    /// Private L2.
    pub l2: CacheConfig,
}

/// Why a core configuration is impossible.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CoreConfigError {
    /// A count that must not be zero, or must be a power of two.
    #[error("{field} = {value}: expected {expected}")]
    Field {
        /// Which.
        field: &'static str,
        /// Value given.
        value: u32,
        /// What would do.
        expected: &'static str,
    },
    /// A cache geometry.
    #[error("{cache}: {source}")]
    Cache {
        /// Which.
        cache: &'static str,
        /// Why.
        source: CacheConfigError,
    },
}

impl InOrderConfig {
    /// A Cortex-A520-class little core.
    #[must_use]
    pub fn little() -> Self {
        Self {
            // LLVM AArch64SchedA510: IssueWidth 3, "dual-issues under most circumstances"; the A520 has one ALU less.
            issue_width: 2,
            // Chips and Cheese, A510: two load/store ports.
            memory_ports: 2,
            // Estimate, accuracy class C.
            miss_registers: 8,
            // LLVM AArch64SchedA510: multiply 3, divide 8 to 16 (64-bit: 16), FP 4.
            mul_cycles: 3,
            div_cycles: 16,
            fp_cycles: 4,
            fma_cycles: 4,
            // Estimates, accuracy class C.
            fp_div_cycles: 18,
            atomic_cycles: 6,
            // Chips and Cheese, A510: at least 8.
            mispredict_cycles: 8,
            // Estimates, accuracy class C.
            serialise_cycles: 8,
            predictor_entries: 4096,
            return_stack: 8,
            // Arm's A520 page allows 32 or 64 KiB; A510 load to use 2 to 3 cycles (Chips and Cheese).
            l1i: CacheConfig { bytes: 32 << 10, ways: 4, line_bytes: 64, latency_cycles: 1 },
            l1d: CacheConfig { bytes: 32 << 10, ways: 4, line_bytes: 64, latency_cycles: 3 },
            // 128 to 512 KiB per complex; latency by analogy with the A725's 9 cycles, accuracy class C.
            l2: CacheConfig { bytes: 256 << 10, ways: 8, line_bytes: 64, latency_cycles: 9 },
        }
    }

    /// Checks every field.
    ///
    /// # Errors
    /// All reasons why the configuration is impossible.
    pub fn validate(&self) -> Result<(), Vec<CoreConfigError>> {
        let mut errors = Vec::new();
        for (field, value) in [
            ("issue-width", self.issue_width),
            ("memory-ports", self.memory_ports),
            ("miss-registers", self.miss_registers),
            ("mul-cycles", self.mul_cycles),
            ("div-cycles", self.div_cycles),
            ("fp-cycles", self.fp_cycles),
            ("fma-cycles", self.fma_cycles),
            ("fp-div-cycles", self.fp_div_cycles),
            ("atomic-cycles", self.atomic_cycles),
        ] {
            if value == 0 || value > 1000 {
                errors.push(CoreConfigError::Field { field, value, expected: "1 to 1000" });
            }
        }
        if !self.predictor_entries.is_power_of_two() || self.predictor_entries > 1 << 20 {
            errors.push(CoreConfigError::Field {
                field: "predictor-entries",
                value: self.predictor_entries,
                expected: "a power of two up to 1048576",
            });
        }
        for (cache, config) in [("l1i", &self.l1i), ("l1d", &self.l1d), ("l2", &self.l2)] {
            if let Err(source) = config.sets() {
                errors.push(CoreConfigError::Cache { cache, source });
            } else if config.line_bytes != 64 {
                let source = CacheConfigError::Line(config.line_bytes);
                errors.push(CoreConfigError::Cache { cache, source });
            }
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }
}

/// A line on its way into the private caches.
#[derive(Clone, Copy, Debug)]
struct Miss {
    line: u64,
    done: u64,
    cause: Cause,
}

const LINE_SHIFT: u32 = 6;
const TARGETS: usize = 256;

/// State of an in-order core.
#[derive(Clone, Debug)]
pub(super) struct InOrder {
    config: InOrderConfig,
    cycle: u64,
    /// Issued in this cycle: instructions, of these loads and stores.
    slots: u32,
    memory_slots: u32,
    ready: [u64; 128],
    waiting: [Cause; 128],
    /// The unpipelined units.
    divider_free: u64,
    fp_divider_free: u64,
    latency: [u32; 16],
    fetch_line: u64,
    l1i: TagArray,
    l1d: TagArray,
    l2: TagArray,
    misses: Vec<Miss>,
    /// No miss is outstanding from this cycle on.
    misses_end: u64,
    /// Result of the last `data`: when, and what waiting for it is called.
    data_ready: (u64, Cause),
    counters: Vec<u8>,
    targets: Vec<u64>,
    returns: Vec<u64>,
    account: Account,
    pub mispredicts: u64,
    pub l1i_misses: u64,
    pub l1d_misses: u64,
    pub l2_misses: u64,
    pub write_backs: u64,
}

impl InOrder {
    pub(super) fn new(config: &InOrderConfig) -> Result<Self, Vec<CoreConfigError>> {
        config.validate()?;
        let tags = |c: &CacheConfig| TagArray::new(c).expect("validated above");
        let mut latency = [1; 16];
        for (class, cycles) in [
            (Class::Mul, config.mul_cycles),
            (Class::Div, config.div_cycles),
            (Class::FpAdd, config.fp_cycles),
            (Class::FpMul, config.fp_cycles),
            (Class::FpConvert, config.fp_cycles),
            (Class::FpMove, config.fp_cycles.min(2)),
            (Class::FpFma, config.fma_cycles),
            (Class::FpDiv, config.fp_div_cycles),
            (Class::FpSqrt, config.fp_div_cycles),
        ] {
            latency[class as usize] = cycles;
        }
        Ok(Self {
            config: config.clone(),
            cycle: 0,
            slots: 0,
            memory_slots: 0,
            ready: [0; 128],
            waiting: [Cause::Dependency; 128],
            divider_free: 0,
            fp_divider_free: 0,
            latency,
            fetch_line: u64::MAX,
            l1i: tags(&config.l1i),
            l1d: tags(&config.l1d),
            l2: tags(&config.l2),
            misses: Vec::new(),
            misses_end: 0,
            data_ready: (0, Cause::Dependency),
            counters: vec![1; config.predictor_entries as usize],
            targets: vec![0; TARGETS],
            returns: Vec::new(),
            account: Account::default(),
            mispredicts: 0,
            l1i_misses: 0,
            l1d_misses: 0,
            l2_misses: 0,
            write_backs: 0,
        })
    }

    /// Moves to a later cycle; the cycles in between belong to `cause`.
    #[inline(always)]
    fn stall(&mut self, until: u64, cause: Cause) {
        if until > self.cycle {
            let issued = u64::from(self.slots > 0);
            self.account.add(Cause::Active, issued);
            self.account.add(cause, until - self.cycle - issued);
            self.cycle = until;
            self.slots = 0;
            self.memory_slots = 0;
        }
    }

    /// A line of the private L2 moves into an L1.
    fn fill_l1(&mut self, line: u64, write: bool, fetch: bool) {
        if fetch {
            self.l1i.fill(line, false);
            return;
        }
        if let Some(victim) = self.l1d.fill(line, write)
            && victim.dirty
        {
            // The L2 includes the L1, so the line is there.
            self.l2.touch(victim.addr, true);
        }
    }

    /// A line arrives from outside: into the L2, pushing a victim out, and into an L1.
    fn fill_l2<B: Bus>(&mut self, line: u64, write: bool, fetch: bool, out: &mut Outside<'_, B>) {
        if let Some(victim) = self.l2.fill(line, false) {
            let inner = self.l1d.invalidate(victim.addr).is_some_and(|v| v.dirty);
            self.l1i.invalidate(victim.addr);
            if victim.dirty || inner {
                self.write_backs += 1;
                let now = out.edge(self.cycle);
                out.bus.write_back(now, out.hart, victim.addr);
            }
        }
        self.fill_l1(line, write, fetch);
    }

    /// Room in the miss registers, waiting if there is none.
    fn free_miss_register(&mut self) {
        let now = self.cycle;
        self.misses.retain(|m| m.done > now);
        if self.misses.len() < self.config.miss_registers as usize {
            return;
        }
        let first = self.misses.iter().min_by_key(|m| m.done).copied().expect("the list is full");
        self.stall(first.done, first.cause);
        self.misses.retain(|m| m.done > first.done);
    }

    fn outstanding(&self, line: u64) -> Option<Miss> {
        if self.misses_end <= self.cycle {
            return None;
        }
        self.misses.iter().find(|m| m.line == line && m.done > self.cycle).copied()
    }

    #[inline(never)]
    fn data_miss<B: Bus>(&mut self, addr: u64, write: bool, out: &mut Outside<'_, B>) -> Result<(), NotYet> {
        let line = self.l1d.line_of(addr);
        let l2_latency = u64::from(self.config.l2.latency_cycles);
        if self.l2.touch(line, false) {
            self.l1d_misses += 1;
            self.fill_l1(line, write, false);
            let arrives = self.outstanding(line >> LINE_SHIFT);
            let hit = self.cycle + l2_latency;
            self.data_ready = arrives.map_or((hit, Cause::Memory), |m| (m.done.max(hit), m.cause));
            return Ok(());
        }
        self.free_miss_register();
        if self.cycle > out.now_cycle {
            return Err(NotYet);
        }
        self.l1d_misses += 1;
        self.l2_misses += 1;
        let (done, cause) = out.line(self.cycle, line, write, false);
        self.fill_l2(line, write, false, out);
        let done = done + l2_latency;
        self.misses.push(Miss { line: line >> LINE_SHIFT, done, cause });
        self.misses_end = self.misses_end.max(done);
        self.data_ready = (done, cause);
        Ok(())
    }

    #[inline(never)]
    fn fetch_line<B: Bus>(&mut self, line: u64, out: &mut Outside<'_, B>) -> Result<(), NotYet> {
        if self.l1i.touch(line << LINE_SHIFT, false) {
            return Ok(());
        }
        let addr = line << LINE_SHIFT;
        let latency = u64::from(self.config.l2.latency_cycles);
        if self.l2.touch(addr, false) {
            self.l1i_misses += 1;
            self.fill_l1(addr, false, true);
            self.stall(self.cycle + latency, Cause::Frontend);
            return Ok(());
        }
        if self.cycle > out.now_cycle {
            return Err(NotYet);
        }
        self.l1i_misses += 1;
        self.l2_misses += 1;
        let (done, _) = out.line(self.cycle, addr, false, true);
        self.fill_l2(addr, false, true, out);
        self.stall(done + latency, Cause::Frontend);
        Ok(())
    }

    fn mispredict(&mut self) {
        self.mispredicts += 1;
        self.stall(self.cycle + 1 + u64::from(self.config.mispredict_cycles), Cause::Branch);
    }

    #[inline(always)]
    fn conditional(&mut self, pc: u64, taken: bool) {
        let mask = self.counters.len() - 1;
        let counter = &mut self.counters[(pc >> 1) as usize & mask];
        let predicted = *counter >= 2;
        *counter = if taken { (*counter + 1).min(3) } else { counter.saturating_sub(1) };
        if predicted != taken {
            self.mispredict();
        } else if taken {
            // The group ends at a taken branch; the target is fetched in the next cycle.
            self.stall(self.cycle + 1, Cause::Branch);
        }
    }

    fn jump(&mut self, micro: &Micro, pc: u64, next: u64) {
        const RA: u8 = 1;
        if micro.op == Op::Jalr {
            let predicted = if micro.rs1 == RA && micro.rd != RA {
                self.returns.pop()
            } else {
                let slot = &mut self.targets[(pc >> 1) as usize % TARGETS];
                Some(core::mem::replace(slot, next))
            };
            if predicted != Some(next) {
                self.mispredict();
            }
        }
        if micro.rd == RA {
            if self.returns.len() == self.config.return_stack as usize && !self.returns.is_empty() {
                self.returns.remove(0);
            }
            if self.config.return_stack > 0 {
                self.returns.push(pc.wrapping_add(u64::from(micro.len)));
            }
        }
        if self.slots > 0 {
            self.stall(self.cycle + 1, Cause::Branch);
        }
    }
}

impl Pipeline for InOrder {
    const TIMED: bool = true;

    #[inline(always)]
    fn cycle(&self, _: u64) -> u64 {
        self.cycle
    }

    fn advance_to(&mut self, cycle: u64, _: u64, cause: Cause) {
        self.stall(cycle, cause);
    }

    #[inline(always)]
    fn fetch<B: Bus>(&mut self, pc: u64, len: u8, out: &mut Outside<'_, B>) -> Result<(), NotYet> {
        let first = pc >> LINE_SHIFT;
        let last = pc.wrapping_add(u64::from(len) - 1) >> LINE_SHIFT;
        if first != self.fetch_line && last != self.fetch_line {
            self.fetch_line(first, out)?;
            self.fetch_line = first;
        }
        if last != self.fetch_line {
            self.fetch_line(last, out)?;
            self.fetch_line = last;
        }
        Ok(())
    }

    #[inline(always)]
    fn issue(&mut self, micro: &Micro) {
        if self.slots >= self.config.issue_width {
            self.stall(self.cycle + 1, Cause::Dependency);
        }
        let [a, b, c] = micro.sources;
        for source in [a, b, c] {
            let at = self.ready[usize::from(source & 127)];
            if at > self.cycle {
                self.stall(at, self.waiting[usize::from(source & 127)]);
            }
        }
        match micro.class {
            Class::Load | Class::Store | Class::Amo if self.memory_slots >= self.config.memory_ports => {
                self.stall(self.cycle + 1, Cause::Dependency);
            }
            Class::Div => self.stall(self.divider_free, Cause::Dependency),
            Class::FpDiv | Class::FpSqrt => self.stall(self.fp_divider_free, Cause::Dependency),
            _ => {}
        }
    }

    #[inline(always)]
    fn data<B: Bus>(&mut self, addr: u64, write: bool, out: &mut Outside<'_, B>) -> Result<(), NotYet> {
        if self.l1d.touch(addr, write) {
            let hit = self.cycle + u64::from(self.config.l1d.latency_cycles);
            self.data_ready = (hit, Cause::Dependency);
            if self.misses_end > self.cycle
                && let Some(miss) = self.outstanding(addr >> LINE_SHIFT)
            {
                self.data_ready = (miss.done.max(hit), miss.cause);
            }
            return Ok(());
        }
        self.data_miss(addr, write, out)
    }

    #[inline(always)]
    fn retire(&mut self, micro: &Micro, pc: u64, next: u64) {
        self.slots += 1;
        let dest = usize::from(micro.dest & 127);
        let mut result = (self.cycle + u64::from(self.latency[micro.class as usize & 15]), Cause::Dependency);
        match micro.class {
            Class::Load => {
                self.memory_slots += 1;
                result = self.data_ready;
            }
            Class::Store => self.memory_slots += 1,
            Class::Amo => {
                self.memory_slots += 1;
                let (ready, cause) = self.data_ready;
                result = (ready + u64::from(self.config.atomic_cycles), cause);
            }
            Class::Div => self.divider_free = result.0,
            Class::FpDiv | Class::FpSqrt => self.fp_divider_free = result.0,
            Class::System => self.stall(self.cycle + 1, Cause::System),
            _ => {}
        }
        if micro.dest != blocks::SINK {
            self.ready[dest] = result.0;
            self.waiting[dest] = result.1;
        }
        if micro.flags & FLOW != 0 {
            if micro.class == Class::Branch {
                self.conditional(pc, next != pc.wrapping_add(u64::from(micro.len)));
            } else {
                self.jump(micro, pc, next);
            }
        }
    }

    fn device(&mut self, done: u64, _: u64) {
        self.stall(done, Cause::Mmio);
        self.data_ready = (self.cycle, Cause::Mmio);
    }

    fn drain(&mut self) {
        while let Some(first) = self.misses.iter().min_by_key(|m| m.done).copied() {
            self.stall(first.done, first.cause);
            self.misses.retain(|m| m.done > first.done);
        }
    }

    fn redirect(&mut self) {
        self.fetch_line = u64::MAX;
        self.stall(self.cycle + u64::from(self.config.serialise_cycles), Cause::System);
    }

    fn invalidate_line(&mut self, addr: u64) {
        self.l1d.invalidate(addr);
        self.l1i.invalidate(addr);
        self.l2.invalidate(addr);
    }

    fn invalidate_code(&mut self) {
        self.l1i.clear();
        self.fetch_line = u64::MAX;
    }

    fn account(&self, _: u64) -> [u64; CAUSES.len()] {
        let mut causes = self.account.causes;
        causes[Cause::Active as usize] += u64::from(self.slots > 0);
        causes
    }
}
