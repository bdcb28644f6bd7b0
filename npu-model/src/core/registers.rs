//! The MMIO pages of a core: one a queue, with the core's PMU and capabilities in each.

use isa::npu::registers as reg;
use isa::npu::registers::{QUEUE_STRIDE, QUEUES, SCALARS, state};
use isa::npu::{REGIONS, SEMAPHORES};

use super::{CONTROL, Core, Queue};
use crate::config::NpuConfig;
use crate::ops;
use crate::stalls::Cause;

/// Number within a block of registers of 8 bytes, if the offset is in it.
fn within(offset: u64, first: u64, count: usize) -> Option<usize> {
    let i = usize::try_from(offset.checked_sub(first)? / 8).ok()?;
    (offset.is_multiple_of(8) && i < count).then_some(i)
}

impl Core {
    /// Reads a register; `None` where there is none.
    #[must_use]
    pub fn load(&self, cfg: &NpuConfig, offset: u64) -> Option<u64> {
        let (number, offset) = (usize::try_from(offset / QUEUE_STRIDE).ok()?, offset % QUEUE_STRIDE);
        let wide = |lo: u32, hi: u32| u64::from(lo) | u64::from(hi) << 32;
        let q = self.queues.get(number)?;
        if let Some(value) = q.load(offset) {
            return Some(value);
        }
        if let Some(i) = within(offset, reg::PMU0, reg::PMU_COUNTERS) {
            return Some(self.pmu.counter(i, self.raw(self.pmu.select(i))));
        }
        if let Some(i) = within(offset, reg::PMU_SEL0, reg::PMU_COUNTERS) {
            return Some(self.pmu.select(i));
        }
        Some(match offset {
            reg::QSTAT => self.state(number),
            reg::PMU_CTRL => self.pmu.control(),
            reg::CAP_VERSION => reg::VERSION,
            reg::CAP_CORES => u64::from(cfg.cores),
            reg::CAP_CORE => self.number as u64,
            reg::CAP_ARRAY => wide(cfg.rows, cfg.cols),
            reg::CAP_SPM => cfg.scratchpad.get(),
            reg::CAP_ACC => cfg.accumulator.get(),
            reg::CAP_DMA => wide(cfg.dma_in_channels, cfg.dma_out_channels),
            reg::CAP_FORMATS => cfg.formats,
            reg::CAP_FIFO => u64::from(cfg.fifo_depth),
            reg::CAP_LANES => u64::from(cfg.vector_lanes),
            reg::CAP_CTRL => CONTROL.iter().fold(0, |bits, op| bits | 1 << op.code()),
            reg::CAP_VEC0 => ops::caps()[0],
            reg::CAP_VEC1 => ops::caps()[1],
            reg::CAP_VEC2 => ops::caps()[2],
            reg::CAP_QUEUES => QUEUES as u64,
            reg::CAP_PMU => reg::PMU_COUNTERS as u64,
            reg::CAP_MOVES => crate::dma::caps(),
            _ => return None,
        })
    }

    /// What QSTAT of a queue reads.
    #[must_use]
    pub fn state(&self, number: usize) -> u64 {
        let q = &self.queues[number];
        let active = number == self.active;
        if q.fault.is_some() {
            state::FAULT
        } else if q.killed {
            state::KILLED
        } else if q.frozen {
            state::FROZEN
        } else if q.stopped {
            state::STOPPED
        } else if q.held || (!active && q.pending()) {
            state::PREEMPTED
        } else if active && !self.quiescent() {
            state::RUNNING
        } else {
            state::IDLE
        }
    }

    /// Writes a register; false where there is none to write.
    #[must_use]
    pub fn store(&mut self, cfg: &NpuConfig, offset: u64, value: u64) -> bool {
        let (number, offset) = (usize::try_from(offset / QUEUE_STRIDE), offset % QUEUE_STRIDE);
        let Ok(number) = number else { return false };
        if number >= self.queues.len() {
            return false;
        }
        if let Some(i) = within(offset, reg::PMU_SEL0, reg::PMU_COUNTERS) {
            let raw = self.raw(value);
            return self.pmu.set_select(i, value, raw);
        }
        match offset {
            reg::QCTRL if value & 2 != 0 => {
                let q = &mut self.queues[number];
                *q = Queue::new(cfg, q.epoch.wrapping_add(1));
                true
            }
            reg::PREEMPT => {
                self.preempt(number, value);
                true
            }
            reg::PMU_CTRL => {
                let raws: Vec<u64> = self.pmu.selects().iter().map(|s| self.raw(*s)).collect();
                self.pmu.store(value, &raws);
                true
            }
            _ => self.queues[number].store(offset, value),
        }
    }
}

impl Queue {
    fn load(&self, offset: u64) -> Option<u64> {
        if let Some(i) = within(offset, reg::SREG0, SCALARS) {
            return Some(self.scalars[i]);
        }
        if let Some(i) = within(offset, reg::SEM0, SEMAPHORES) {
            return Some(self.semaphores.get(i as u64));
        }
        if let Some(i) = within(offset, reg::REGION0, 2 * REGIONS) {
            let r = self.regions[i / 2];
            return Some(if i.is_multiple_of(2) { r.base } else { r.limit });
        }
        Some(match offset {
            reg::QCTRL => {
                u64::from(self.enabled)
                    | u64::from(self.paused) << 2
                    | u64::from(self.priority) << 4
                    | u64::from(self.context) << 8
            }
            reg::QBASE => self.ring.0,
            reg::QSIZE => u64::from(self.ring.1),
            reg::QTAIL => self.tail,
            reg::QHEAD => self.head,
            reg::CBASE => self.completion.0,
            reg::CSIZE => u64::from(self.completion.1),
            reg::CTAIL => self.completed,
            reg::IRQ_STAT => self.irq_stat,
            reg::IRQ_EN => self.irq_enable,
            reg::FAULT => self.fault.map_or(0, |f| f.fault.code.code()),
            reg::FAULT_INDEX => self.fault.map_or(0, |f| f.index),
            reg::FAULT_ADDR => self.fault.map_or(0, |f| f.fault.value),
            reg::FAULT_COMMAND => self.fault.map_or(0, |f| f.at),
            reg::PREEMPT => self.asked.into(),
            reg::PREEMPT_AUTO => self.auto.into(),
            reg::SAVE_BASE => self.save_area.0,
            reg::SAVE_LIMIT => self.save_area.1,
            reg::SAVE_BYTES => self.save_bytes,
            reg::SAVE_CYCLES => self.save_cycles,
            reg::PREEMPTIONS => self.preemptions,
            reg::WATCHDOG => self.watchdog,
            reg::DVFS => self.dvfs.0 | (self.dvfs.1 & 0xFFFF_FFFF) << 32,
            reg::PREDICATE => u64::from(self.predicate),
            _ => return None,
        })
    }

    fn store(&mut self, offset: u64, value: u64) -> bool {
        let log2 = |v: u64| u32::try_from(v.min(20)).expect("at most 20");
        let byte = |v: u64| u8::try_from(v & 0xFF).expect("8 bits");
        if let Some(i) = within(offset, reg::SREG0, SCALARS) {
            self.scalars[i] = value;
            return true;
        }
        if let Some(i) = within(offset, reg::SEM0, SEMAPHORES) {
            if let Err(f) = self.semaphores.post(i as u64, value, Cause::Dependency) {
                self.raise(f, self.index, self.next_at());
            }
            return true;
        }
        if let Some(i) = within(offset, reg::PIO0, 4) {
            return self.pio_store(i, value);
        }
        if let Some(i) = within(offset, reg::REGION0, 2 * REGIONS) {
            let r = &mut self.regions[i / 2];
            *(if i.is_multiple_of(2) { &mut r.base } else { &mut r.limit }) = value;
            return true;
        }
        match offset {
            reg::QCTRL => {
                (self.enabled, self.paused) = (value & 1 == 1, value >> 2 & 1 == 1);
                (self.priority, self.context) = (byte(value >> 4 & 15), byte(value >> 8));
                self.frozen = false;
            }
            reg::QBASE => self.ring.0 = value,
            reg::QSIZE => self.ring.1 = log2(value),
            reg::QTAIL => self.tail = value,
            reg::CBASE => self.completion.0 = value,
            reg::CSIZE => self.completion.1 = log2(value),
            reg::IRQ_EN => self.irq_enable = value,
            reg::IRQ_ACK => self.irq_stat &= !value,
            reg::PREEMPT_AUTO => self.auto = byte(value & 3),
            reg::SAVE_BASE => self.save_area.0 = value,
            reg::SAVE_LIMIT => self.save_area.1 = value,
            reg::WATCHDOG => self.watchdog = value,
            reg::PREDICATE => self.predicate = value & 1 == 1,
            _ => return false,
        }
        true
    }
}
