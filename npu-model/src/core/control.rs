//! Control commands: what the sequencer executes itself.

use isa::npu::registers::{FaultCode, irq};
use isa::npu::{CLUSTER_SEMAPHORES, Command, Ctrl, CtrlOp, Header, REGIONS};

use super::queue::{LOOP_DEPTH, Loop};
use super::{CALL_DEPTH, Core, Cursor, ENGINES, Issued, Queue, Sequenced};
use crate::config::NpuConfig;
use crate::dma::Region;
use crate::fault::Fault;
use crate::memory::Memory;
use crate::ops::Cost;
use crate::stalls::Cause;

/// First id of SETR that is a scalar register.
const FIRST_SCALAR: u64 = REGIONS as u64;

impl Core {
    /// Executes a control command, or says what it waits for.
    pub(super) fn control(
        &mut self,
        cfg: &NpuConfig,
        command: &Command,
        memory: &mut dyn Memory,
        stamp: u64,
        words: u64,
    ) -> Result<Sequenced, Fault> {
        let at = self.queue().next_at();
        let queue = u8::try_from(self.active).expect("four queues");
        let (index, h) = (self.queue().index, command.header);
        let isa::npu::Body::Ctrl(c) = &command.body else { return Ok(Sequenced::Idle) };
        let op = CtrlOp::from_code(c.op).ok_or(Fault::command(c.op, "CTRL operation"))?;
        let q = self.queue();
        if !q.semaphores.available(&h) {
            return Ok(Sequenced::Semaphore);
        }
        let skip = h.pred == 1 && !q.predicate;
        // The trip count's register stays in LOOP's extension; others generate addresses.
        let (c, trips_from) = match (&command.agu, op) {
            (Some(agu), CtrlOp::Loop) => {
                if agu.lp != c.id || agu.ia | agu.ib | agu.ic | agu.im != 0 {
                    return Err(Fault::operand(
                        agu.lp,
                        "LOOP's extension names its loop and a register only",
                    ));
                }
                (*c, Some(agu.areg))
            }
            (Some(_), _) => match q.resolve(*command)?.body {
                isa::npu::Body::Ctrl(c) => (c, None),
                _ => return Ok(Sequenced::Idle),
            },
            (None, _) => (*c, None),
        };
        if !skip && let Some(wait) = self.wait(cfg, (&h, op), &c, memory, stamp)? {
            return Ok(wait);
        }
        let q = self.queue_mut();
        if !q.semaphores.acquire(&h) {
            return Ok(Sequenced::Semaphore);
        }
        q.advance(words);
        self.effects.acquired = true;
        if !skip {
            self.execute(cfg, op, &c, trips_from, memory)?;
        }
        let q = self.queue_mut();
        if op == CtrlOp::Irq && !skip {
            q.complete(index, h.tag, memory, stamp)?;
            q.passes += 1;
        }
        if h.irq | h.prof | h.brk == 1 {
            let issued = Issued {
                command: *command,
                index,
                at,
                region: Region::default(),
                mark: q.mark,
                pass: q.passes,
                queue,
                epoch: q.epoch,
                skip,
                stamp,
                transfer: None,
                cost: Cost::default(),
            };
            if h.brk == 1 {
                self.queue_mut().breaking = Some(index);
            }
            self.retire(&issued, memory, (stamp, stamp + 1), [0; 5])?;
        }
        let yields = op == CtrlOp::Yield && !skip;
        if h.pre == 1 || yields {
            self.switch_point(yields);
        }
        Ok(Sequenced::Control(op))
    }

    /// What the operation has to wait for; nothing of it has happened then, except that BARRIER told the others.
    fn wait(
        &mut self,
        cfg: &NpuConfig,
        (h, op): (&Header, CtrlOp),
        c: &Ctrl,
        memory: &mut dyn Memory,
        stamp: u64,
    ) -> Result<Option<Sequenced>, Fault> {
        let occupied = |s: &Self, mask: u64| (0..ENGINES).any(|e| mask >> e & 1 == 1 && s.engine_occupied(e));
        Ok(match op {
            CtrlOp::Fence if occupied(self, c.emask) => Some(Sequenced::Fence),
            CtrlOp::Pwr if c.mode > 0 && occupied(self, c.emask) => Some(Sequenced::Fence),
            CtrlOp::Sem if c.mode == 2 && self.queue().semaphores.get(c.id) < c.cnt => {
                Some(Sequenced::Semaphore)
            }
            CtrlOp::Barrier => self.barrier(cfg, h, c)?,
            CtrlOp::Lutld => self.load_table(c, memory)?,
            CtrlOp::Waitmem => self.poll(cfg, c, memory, stamp)?,
            CtrlOp::Save if c.mode > 1 => return Err(Fault::operand(c.mode, "SAVE mode")),
            CtrlOp::Save if c.mode == 0 => self.move_context(c, true, occupied(self, 0x3F))?,
            CtrlOp::Restore => self.move_context(c, false, occupied(self, 0x3F))?,
            _ => None,
        })
    }

    fn barrier(&mut self, cfg: &NpuConfig, h: &Header, c: &Ctrl) -> Result<Option<Sequenced>, Fault> {
        let me = 1 << self.number;
        if c.cmask == 0 {
            return Err(Fault::new(FaultCode::DimsZero, 0, "BARRIER of no core"));
        }
        if c.cmask & me == 0 || c.cmask >> cfg.cores != 0 {
            return Err(Fault::operand(c.cmask, "BARRIER of cores that do not exist, or without this one"));
        }
        if !(CLUSTER_SEMAPHORES..64).contains(&c.id) {
            return Err(Fault::operand(c.id, "BARRIER needs a cluster semaphore"));
        }
        if (h.w0_n > 0 && h.w0_id == c.id) || (h.w1_n > 0 && h.w1_id == c.id) {
            return Err(Fault::operand(c.id, "BARRIER acquires its own semaphore"));
        }
        let others = u64::from(c.cmask.count_ones()) - 1;
        let q = &mut self.queues[self.active];
        if !q.arrived {
            q.arrived = true;
            self.effects.remote = Some((c.cmask & !me, c.id, 1));
        }
        if q.semaphores.get(c.id) < others {
            return Ok(Some(Sequenced::Semaphore));
        }
        q.arrived = false;
        q.semaphores.set(c.id, q.semaphores.get(c.id) - others)?;
        Ok(None)
    }

    fn execute(
        &mut self,
        cfg: &NpuConfig,
        op: CtrlOp,
        c: &Ctrl,
        trips_from: Option<u64>,
        memory: &mut dyn Memory,
    ) -> Result<(), Fault> {
        let q = &mut self.queues[self.active];
        match op {
            CtrlOp::Nop
            | CtrlOp::Fence
            | CtrlOp::Barrier
            | CtrlOp::Irq
            | CtrlOp::Lutld
            | CtrlOp::Waitmem
            | CtrlOp::Yield
            | CtrlOp::Restore => {}
            CtrlOp::Sem => match c.mode {
                0 => q.semaphores.set(c.id, c.cnt)?,
                1 if c.cmask != 0 => {
                    if c.id < CLUSTER_SEMAPHORES {
                        return Err(Fault::operand(c.id, "only cluster semaphores reach other cores"));
                    }
                    if c.cmask >> cfg.cores != 0 {
                        return Err(Fault::operand(c.cmask, "SEM posts to cores that do not exist"));
                    }
                    if c.cnt > 255 {
                        return Err(Fault::new(FaultCode::SemaphoreOverflow, c.id, "a semaphore passed 255"));
                    }
                    if c.cmask >> self.number & 1 == 1 {
                        q.semaphores.post(c.id, c.cnt, Cause::Dependency)?;
                    }
                    self.effects.remote = Some((c.cmask & !(1 << self.number), c.id, c.cnt));
                }
                1 => q.semaphores.post(c.id, c.cnt, Cause::Dependency)?,
                2 => {}
                m => return Err(Fault::operand(m, "SEM mode")),
            },
            CtrlOp::PmuRd => self.write_counters(c, memory)?,
            CtrlOp::PmuMark => q.mark = c.cnt,
            CtrlOp::Setr => q.set_register(c)?,
            CtrlOp::Call => q.call(c)?,
            CtrlOp::Ret => q.ret()?,
            CtrlOp::Jump => q.jump(c)?,
            CtrlOp::Loop => q.begin_loop(c, trips_from)?,
            CtrlOp::Endl => q.end_loop(c.id)?,
            CtrlOp::Save => {
                if c.mode == 1 {
                    q.dirty.clear();
                }
            }
            CtrlOp::Pwr => {
                if c.mode > 2 {
                    return Err(Fault::operand(c.mode, "PWR mode"));
                }
                if c.emask == 0 || c.emask >> ENGINES != 0 {
                    return Err(Fault::operand(c.emask, "PWR of no engine"));
                }
                self.effects.power = Some((c.emask, c.mode));
            }
            CtrlOp::Dvfs => {
                q.dvfs = (c.cnt | c.mode << 16, q.dvfs.1 + 1);
                q.irq_stat |= irq::DVFS;
            }
            CtrlOp::Wrmem => self.write_word(c, memory)?,
            CtrlOp::Setp => q.set_predicate(c)?,
            CtrlOp::Trap => return Err(Fault::new(FaultCode::Trap, c.imm, "TRAP was executed")),
            CtrlOp::Stop => q.stopped = true,
        }
        Ok(())
    }
}

impl Queue {
    pub(super) fn scalar(&self, id: u64) -> Result<u64, Fault> {
        let register = self.scalars.get(usize::try_from(id).unwrap_or(usize::MAX));
        register.copied().ok_or(Fault::operand(id, "scalar register"))
    }

    fn set_register(&mut self, c: &Ctrl) -> Result<(), Fault> {
        if c.id < FIRST_SCALAR {
            if c.mode != 0 {
                return Err(Fault::operand(c.mode, "region registers are only set"));
            }
            self.regions[usize::try_from(c.id).expect("below 16")] = Region { base: c.imm, limit: c.moff };
            return Ok(());
        }
        let value = match c.mode {
            0 => c.imm,
            1 => self.scalar(c.id - FIRST_SCALAR)?.wrapping_add(c.imm),
            2 => self.scalar(c.cnt)?,
            m => return Err(Fault::operand(m, "SETR mode")),
        };
        let slot = self.scalars.get_mut(usize::try_from(c.id - FIRST_SCALAR).unwrap_or(usize::MAX));
        *slot.ok_or(Fault::operand(c.id, "region or scalar register"))? = value;
        Ok(())
    }

    fn list(&self, c: &Ctrl) -> Result<Cursor, Fault> {
        let region = self.regions[(c.region & 15) as usize];
        if !c.moff.is_multiple_of(32) {
            return Err(Fault::new(FaultCode::Unaligned, c.moff, "a list starts between command words"));
        }
        if c.moff + 32 > region.limit {
            return Err(Fault::new(FaultCode::RegionLimit, c.moff, "a list leaves its region"));
        }
        let end = region.base.checked_add(region.limit);
        let end = end.ok_or(Fault::new(FaultCode::RegionLimit, region.limit, "a region wraps around"))?;
        Ok(Cursor::List { at: region.base + c.moff, end })
    }

    fn call(&mut self, c: &Ctrl) -> Result<(), Fault> {
        if self.calls.len() >= CALL_DEPTH {
            return Err(Fault::new(FaultCode::CallDepth, self.calls.len() as u64, "CALL too deep"));
        }
        let list = self.list(c)?;
        self.calls.push(self.cursor);
        self.cursor = list;
        Ok(())
    }

    fn ret(&mut self) -> Result<(), Fault> {
        if self.loops.last().is_some_and(|l| l.calls == self.calls.len()) && !self.calls.is_empty() {
            return Err(Fault::new(FaultCode::LoopNesting, self.loops.len() as u64, "RET inside a loop"));
        }
        let back = self.calls.pop().ok_or(Fault::new(FaultCode::CallDepth, 0, "RET without CALL"))?;
        self.cursor = back;
        Ok(())
    }

    fn in_list(&self, what: &'static str) -> Result<(), Fault> {
        if matches!(self.cursor, Cursor::List { .. }) { Ok(()) } else { Err(Fault::operand(0, what)) }
    }

    fn jump(&mut self, c: &Ctrl) -> Result<(), Fault> {
        self.in_list("JUMP outside a list")?;
        let taken = match c.mode {
            0 => self.predicate,
            1 => !self.predicate,
            2 => true,
            m => return Err(Fault::operand(m, "JUMP mode")),
        };
        let list = self.list(c)?;
        if taken {
            self.cursor = list;
        }
        Ok(())
    }

    fn begin_loop(&mut self, c: &Ctrl, trips_from: Option<u64>) -> Result<(), Fault> {
        self.in_list("LOOP outside a list")?;
        if c.id >= LOOP_DEPTH as u64 {
            return Err(Fault::operand(c.id, "loop number"));
        }
        if self.loops.iter().any(|l| l.id == c.id) {
            return Err(Fault::new(FaultCode::LoopNesting, c.id, "LOOP inside a loop of the same number"));
        }
        let trips = match trips_from {
            Some(register) => self.scalar(register)?,
            None => c.cnt,
        };
        if trips == 0 {
            return Err(Fault::new(FaultCode::DimsZero, c.id, "LOOP of no trips"));
        }
        self.loops.push(Loop { id: c.id, trips, trip: 0, body: self.cursor, calls: self.calls.len() });
        Ok(())
    }

    fn end_loop(&mut self, id: u64) -> Result<(), Fault> {
        let calls = self.calls.len();
        let open = self.loops.last_mut().filter(|l| l.id == id && l.calls == calls);
        let open =
            open.ok_or(Fault::new(FaultCode::LoopNesting, id, "ENDL of a loop that is not the innermost"))?;
        open.trip += 1;
        if open.trip < open.trips {
            self.cursor = open.body;
        } else {
            self.loops.pop();
        }
        Ok(())
    }

    fn set_predicate(&mut self, c: &Ctrl) -> Result<(), Fault> {
        let value = self.scalar(c.id)?;
        self.predicate = match c.mode {
            0 => value == c.imm,
            1 => value != c.imm,
            2 => value < c.imm,
            3 => value >= c.imm,
            4 => true,
            5 => false,
            6 => !self.predicate,
            m => return Err(Fault::operand(m, "SETP mode")),
        };
        Ok(())
    }
}
