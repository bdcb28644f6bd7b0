//! Control commands: what the sequencer executes itself.

use isa::npu::registers as reg;
use isa::npu::registers::FaultCode;
use isa::npu::{Command, Ctrl, CtrlOp};

use super::{CALL_DEPTH, CONTROL, Core, Cursor, ENGINES, Sequenced};
use crate::dma::Region;
use crate::fault::Fault;
use crate::memory::Memory;
use crate::stalls::Cause;

impl Core {
    pub(super) fn control(
        &mut self,
        command: &Command,
        c: &Ctrl,
        memory: &mut dyn Memory,
        stamp: u64,
        words: u64,
    ) -> Result<Sequenced, Fault> {
        let op = CtrlOp::from_code(c.op).filter(|op| CONTROL.contains(op));
        let op = op.ok_or(Fault::not_in_cap(c.op, "CTRL operation"))?;
        let h = &command.header;
        if !self.semaphores.available(h) {
            return Ok(Sequenced::Semaphore);
        }
        match op {
            CtrlOp::Fence if (0..ENGINES).any(|e| c.emask >> e & 1 == 1 && self.engine_occupied(e)) => {
                return Ok(Sequenced::Fence);
            }
            CtrlOp::Sem if c.mode == 2 && self.semaphores.get(c.id) < c.cnt => {
                return Ok(Sequenced::Semaphore);
            }
            _ => {}
        }
        self.semaphores.acquire(h);
        self.advance(words);
        match op {
            CtrlOp::Sem => match c.mode {
                0 => self.semaphores.set(c.id, c.cnt)?,
                1 => self.semaphores.post(c.id, c.cnt, Cause::Dependency)?,
                2 => {}
                m => return Err(Fault::operand(m, "SEM mode")),
            },
            CtrlOp::Irq => self.complete(h.tag, memory, stamp)?,
            CtrlOp::PmuMark => self.mark = c.cnt,
            CtrlOp::Setr => {
                let slot = self.regions.get_mut(usize::try_from(c.id).unwrap_or(usize::MAX));
                *slot.ok_or(Fault::operand(c.id, "region register"))? = Region { base: c.imm, limit: c.moff };
            }
            CtrlOp::Call => self.call(c)?,
            CtrlOp::Ret => {
                let back = self.calls.pop().ok_or(Fault::new(FaultCode::CallDepth, 0, "RET without CALL"))?;
                self.cursor = back;
            }
            CtrlOp::Trap => return Err(Fault::new(FaultCode::Trap, c.imm, "TRAP was executed")),
            CtrlOp::Stop => self.stopped = true,
            _ => {}
        }
        Ok(Sequenced::Control(op))
    }

    fn call(&mut self, c: &Ctrl) -> Result<(), Fault> {
        if self.calls.len() >= CALL_DEPTH {
            return Err(Fault::new(FaultCode::CallDepth, self.calls.len() as u64, "CALL too deep"));
        }
        let region = self.regions[(c.region & 15) as usize];
        if c.moff + 32 > region.limit || !c.moff.is_multiple_of(32) {
            return Err(Fault::new(FaultCode::RegionLimit, c.moff, "a list leaves its region"));
        }
        self.calls.push(self.cursor);
        self.cursor = Cursor::List { at: region.base + c.moff, end: region.base + region.limit };
        Ok(())
    }

    fn complete(&mut self, tag: u64, memory: &mut dyn Memory, stamp: u64) -> Result<(), Fault> {
        let entry =
            self.completion.0 + (self.completed & ((1 << self.completion.1) - 1)) * reg::COMPLETION_BYTES;
        let mut record = [0; 32];
        for (chunk, value) in record.chunks_exact_mut(8).zip([self.index, tag, stamp, 1]) {
            chunk.copy_from_slice(&value.to_le_bytes());
        }
        memory.write(entry, &record).map_err(|e| Fault::new(FaultCode::Bus, e.0, "a completion record"))?;
        self.completed += 1;
        self.irq_stat |= 1;
        Ok(())
    }

    fn engine_occupied(&self, engine: usize) -> bool {
        self.busy[engine] || !self.fifo[engine].is_empty()
    }
}
