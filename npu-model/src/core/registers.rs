//! The MMIO page of a core.

use isa::npu::REGIONS;
use isa::npu::registers as reg;

use super::{CONTROL, Core};
use crate::config::NpuConfig;
use crate::ops;

impl Core {
    /// Reads a register; `None` where there is none.
    #[must_use]
    pub fn load(&self, cfg: &NpuConfig, offset: u64) -> Option<u64> {
        let wide = |lo: u32, hi: u32| u64::from(lo) | u64::from(hi) << 32;
        Some(match offset {
            reg::QCTRL => u64::from(self.enabled),
            reg::QBASE => self.ring.0,
            reg::QSIZE => u64::from(self.ring.1),
            reg::QTAIL => self.tail,
            reg::QHEAD => self.head,
            reg::QSTAT if self.fault.is_some() => 2,
            reg::QSTAT if self.stopped => 3,
            reg::QSTAT => u64::from(!self.quiescent()),
            reg::CBASE => self.completion.0,
            reg::CSIZE => u64::from(self.completion.1),
            reg::CTAIL => self.completed,
            reg::IRQ_STAT => self.irq_stat,
            reg::IRQ_EN => self.irq_enable,
            reg::FAULT => self.fault.map_or(0, |f| f.0.code as u64),
            reg::FAULT_INDEX => self.fault.map_or(0, |f| f.1),
            reg::FAULT_ADDR => self.fault.map_or(0, |f| f.0.value),
            o if (reg::REGION0..reg::REGION0 + 16 * REGIONS as u64).contains(&o) && o % 8 == 0 => {
                let r = self.regions[((o - reg::REGION0) / 16) as usize];
                if o % 16 == 0 { r.base } else { r.limit }
            }
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
            _ => return None,
        })
    }

    /// Writes a register; false where there is none to write.
    #[must_use]
    pub fn store(&mut self, cfg: &NpuConfig, offset: u64, value: u64) -> bool {
        let log2 = |v: u64| u32::try_from(v.min(20)).expect("at most 20");
        match offset {
            reg::QCTRL if value & 2 != 0 => *self = Self::new(self.number, cfg),
            reg::QCTRL => self.enabled = value & 1 == 1,
            reg::QBASE => self.ring.0 = value,
            reg::QSIZE => self.ring.1 = log2(value),
            reg::QTAIL => self.tail = value,
            reg::CBASE => self.completion.0 = value,
            reg::CSIZE => self.completion.1 = log2(value),
            reg::IRQ_EN => self.irq_enable = value,
            reg::IRQ_ACK => self.irq_stat &= !value,
            o if (reg::REGION0..reg::REGION0 + 16 * REGIONS as u64).contains(&o) && o % 8 == 0 => {
                let r = &mut self.regions[((o - reg::REGION0) / 16) as usize];
                *(if o % 16 == 0 { &mut r.base } else { &mut r.limit }) = value;
            }
            _ => return false,
        }
        true
    }
}
