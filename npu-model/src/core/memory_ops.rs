//! What the sequencer itself reads and writes in memory: records, counters, words, tables, contexts.

use isa::npu::registers as reg;
use isa::npu::registers::FaultCode;
use isa::npu::{Ctrl, REGIONS};

use super::dirty::{REGISTER_BYTES, SAVE_HEADER};
use super::{Core, Issued, Move, Queue, Sequenced};
use crate::config::NpuConfig;
use crate::dma::Region;
use crate::fault::Fault;
use crate::local::{LUT_BYTES, LUTS};
use crate::memory::{BusFault, Content, Memory};

fn bus(e: BusFault) -> Fault {
    Fault::new(FaultCode::Bus, e.0, "memory does not answer the sequencer")
}

impl Queue {
    /// Address of a control command's memory operand.
    pub(super) fn operand(&self, c: &Ctrl, bytes: u64, align: u64) -> Result<u64, Fault> {
        let region = self.regions[(c.region & 15) as usize];
        if !c.moff.is_multiple_of(align) || !region.base.is_multiple_of(align) {
            return Err(Fault::new(
                FaultCode::Unaligned,
                c.moff,
                "a control command's operand is not aligned",
            ));
        }
        if c.moff.saturating_add(bytes) > region.limit {
            return Err(Fault::new(FaultCode::RegionLimit, c.moff, "a control command leaves its region"));
        }
        region.base.checked_add(c.moff).ok_or(Fault::new(FaultCode::Bus, c.moff, "no such address"))
    }

    fn record(&mut self, words: [u64; 4], memory: &mut dyn Memory) -> Result<u64, Fault> {
        let entry = self.completed & ((1 << self.completion.1) - 1);
        let at = self.completion.0.saturating_add(entry * reg::COMPLETION_BYTES);
        let mut record = [0; 32];
        for (chunk, value) in record.chunks_exact_mut(8).zip(words) {
            chunk.copy_from_slice(&value.to_le_bytes());
        }
        memory.write(at, &record).map_err(|e| Fault::new(FaultCode::Bus, e.0, "a completion record"))?;
        self.completed += 1;
        self.quiet_commands = 0;
        Ok(at)
    }

    /// Writes a completion record and raises the interrupt.
    pub(super) fn complete(
        &mut self,
        index: u64,
        tag: u64,
        memory: &mut dyn Memory,
        stamp: u64,
    ) -> Result<(), Fault> {
        self.record([index, tag, stamp, 1], memory)?;
        self.quiet_since = stamp;
        self.irq_stat |= reg::irq::DONE;
        Ok(())
    }

    /// Writes the profile record of a command.
    pub(super) fn profile(
        &mut self,
        issued: &Issued,
        memory: &mut dyn Memory,
        (start, end): (u64, u64),
        stalls: [u64; 5],
    ) -> Result<(), Fault> {
        let short = |cycles: u64| cycles.min(u64::from(u32::MAX));
        let second = issued.command.header.tag
            | reg::completion::PROFILE << 8
            | (issued.stamp & 0xFFFF_FFFF_FFFF) << 16;
        let third = short(start.saturating_sub(issued.stamp)) | short(end.saturating_sub(start)) << 32;
        let fourth = stalls.iter().enumerate().fold(1, |w, (i, n)| w | (n / 4).min(0xFFF) << (4 + 12 * i));
        self.record([issued.index, second, third, fourth], memory).map(|_| ())
    }

    fn registers(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for r in &self.regions {
            out.extend(r.base.to_le_bytes());
            out.extend(r.limit.to_le_bytes());
        }
        for s in &self.scalars {
            out.extend(s.to_le_bytes());
        }
        for word in [u64::from(self.predicate), self.mark, self.index] {
            out.extend(word.to_le_bytes());
        }
        out.extend((0..64).map(|i| u8::try_from(self.semaphores.get(i)).unwrap_or(u8::MAX)));
        out.resize(usize::try_from(REGISTER_BYTES).expect("small"), 0);
        out
    }

    /// Registers from an image; semaphores are not taken from it, since others may have posted meanwhile.
    fn set_registers(&mut self, image: &[u8]) {
        let word = |i: usize| {
            let bytes = image.get(8 * i..8 * i + 8).and_then(|b| <[u8; 8]>::try_from(b).ok());
            bytes.map_or(0, u64::from_le_bytes)
        };
        for (i, r) in self.regions.iter_mut().enumerate() {
            *r = Region { base: word(2 * i), limit: word(2 * i + 1) };
        }
        for (i, s) in self.scalars.iter_mut().enumerate() {
            *s = word(2 * REGIONS + i);
        }
        let after = 2 * REGIONS + self.scalars.len();
        self.predicate = word(after) == 1;
        self.mark = word(after + 1);
    }
}

impl Core {
    /// LUTLD: the table, once its bytes have been read.
    pub(super) fn load_table(
        &mut self,
        c: &Ctrl,
        memory: &mut dyn Memory,
    ) -> Result<Option<Sequenced>, Fault> {
        if c.id >= LUTS as u64 {
            return Err(Fault::operand(c.id, "look-up table"));
        }
        let at = self.queue().operand(c, LUT_BYTES as u64, 32)?;
        if !core::mem::take(&mut self.queue_mut().read) {
            return Ok(Some(Sequenced::Read(at, LUT_BYTES as u64)));
        }
        let mut bytes = [0; LUT_BYTES];
        memory.read(at, &mut bytes).map_err(bus)?;
        self.local.set_lut(c.id, &bytes);
        self.queue_mut().dirty.mark_lut(c.id);
        Ok(None)
    }

    /// WAITMEM: looks once; `None` when satisfied.
    pub(super) fn poll(
        &mut self,
        cfg: &NpuConfig,
        c: &Ctrl,
        memory: &mut dyn Memory,
        stamp: u64,
    ) -> Result<Option<Sequenced>, Fault> {
        if c.mode > 3 {
            return Err(Fault::operand(c.mode, "WAITMEM mode"));
        }
        let q = self.queue_mut();
        let at = q.operand(c, 8, 8)?;
        let (since, _) = *q.polling.get_or_insert((stamp, c.cnt));
        if !core::mem::take(&mut q.read) {
            return Ok(Some(Sequenced::Read(at, 8)));
        }
        let mut bytes = [0; 8];
        let content = memory.read(at, &mut bytes).map_err(bus)?;
        let value = u64::from_le_bytes(bytes);
        let met = match c.mode {
            0 => value == c.imm,
            1 => value != c.imm,
            2 => value >= c.imm,
            _ => value & c.imm != 0,
        };
        // Where a shape-only run keeps no bytes there is nothing to wait for.
        if met || content == Content::AddressOnly {
            q.polling = None;
            return Ok(None);
        }
        let limit = u128::from(c.cnt) * u128::from(cfg.frequency.get()) / 1_000_000;
        if c.cnt > 0 && u128::from(stamp.saturating_sub(since)) >= limit.max(1) {
            return Err(Fault::new(FaultCode::Timeout, at, "WAITMEM waited in vain"));
        }
        Ok(Some(Sequenced::Poll))
    }

    /// WRMEM.
    pub(super) fn write_word(&mut self, c: &Ctrl, memory: &mut dyn Memory) -> Result<(), Fault> {
        let q = self.queue();
        let (value, bytes) = match c.mode {
            0 => (c.imm, 8),
            1 => (c.imm & 0xFFFF_FFFF, 4),
            2 => (q.scalar(c.id)?, 8),
            m => return Err(Fault::operand(m, "WRMEM mode")),
        };
        let at = q.operand(c, bytes, bytes)?;
        let data = value.to_le_bytes();
        memory.write(at, &data[..usize::try_from(bytes).expect("8")]).map_err(bus)?;
        self.effects.written = Some((at, bytes));
        Ok(())
    }

    /// PMU_RD.
    pub(super) fn write_counters(&mut self, c: &Ctrl, memory: &mut dyn Memory) -> Result<(), Fault> {
        if c.imm == 0 {
            return Err(Fault::new(FaultCode::DimsZero, 0, "PMU_RD of no counter"));
        }
        if c.imm >> reg::PMU_COUNTERS != 0 {
            return Err(Fault::operand(c.imm, "PMU_RD of counters that do not exist"));
        }
        let at = self.queue().operand(c, 8 * u64::from(c.imm.count_ones()), 8)?;
        let values = self.pmu.read();
        let wanted = values.iter().enumerate().filter(|(i, _)| c.imm >> i & 1 == 1);
        let bytes: Vec<u8> = wanted.flat_map(|(_, v)| v.to_le_bytes()).collect();
        memory.write(at, &bytes).map_err(bus)?;
        self.effects.written = Some((at, bytes.len() as u64));
        Ok(())
    }

    /// Copies a queue's local memory to its area, with an image of its registers, or back.
    ///
    /// Registers come back only for RESTORE: those of a preempted queue never left it.
    pub(super) fn copy_context(&mut self, m: &Move, memory: &mut dyn Memory) -> Result<(), Fault> {
        let (q, local) = (&mut self.queues[m.queue], &mut self.local);
        let (write, area) = (m.write, m.area);
        let map = match (write, m.command) {
            (true, _) => q.dirty.clone(),
            (false, true) => q.kept.clone(),
            (false, false) => q.saved.clone().unwrap_or_default(),
        };
        let at = |offset: u64| area.saturating_add(offset);
        let narrow = |v: u64| usize::try_from(v).expect("a local memory");
        if write {
            memory.write(area, &q.registers()).map_err(bus)?;
        } else {
            let mut image = vec![0; narrow(REGISTER_BYTES)];
            let content = memory.read(area, &mut image).map_err(bus)?;
            if m.command && content == Content::Stored {
                q.set_registers(&image);
            }
        }
        for id in map.luts() {
            let place = at(REGISTER_BYTES + id * LUT_BYTES as u64);
            let mut bytes = local.lut_bytes(id);
            if write {
                memory.write(place, &bytes).map_err(bus)?;
            } else if memory.read(place, &mut bytes).map_err(bus)? == Content::Stored {
                local.set_lut(id, &bytes);
            }
        }
        for (space, start, len) in map.stretches() {
            let place = at(map.offset(space, start));
            debug_assert!(map.offset(space, start) >= SAVE_HEADER);
            if write {
                memory.write(place, local.bytes(space, narrow(start), narrow(len))?).map_err(bus)?;
            } else {
                let mut bytes = vec![0; narrow(len)];
                if memory.read(place, &mut bytes).map_err(bus)? == Content::Stored {
                    local.bytes_mut(space, narrow(start), narrow(len))?.copy_from_slice(&bytes);
                }
            }
        }
        q.dirty.absorb(&mut local.touched);
        Ok(())
    }
}
