//! Traps: interrupts are noted for those who wait, anything else is the end.

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use isa::memory_map::{IRQ_MAILBOX, IRQ_NPU0, error};
use isa::npu::MAX_CORES;
use isa::npu::registers as reg;

use crate::console::line;
use crate::failure::give_up;
use crate::hardware::{self, CONTROLLER, Device, EXTERNAL, SOFTWARE, TIMER};
use crate::harts;

/// Bit i: NPU core i has completed a pass.
static COMPLETED: AtomicU32 = AtomicU32::new(0);
/// Bit i: NPU core i has stopped with a fault.
static FAULTED: AtomicU32 = AtomicU32::new(0);
/// The mailbox's interrupt is claimed: it stays so until the job is done.
static JOB_CLAIMED: AtomicBool = AtomicBool::new(false);

/// Offsets for hart 0's machine context: RISC-V Platform-Level Interrupt Controller Specification 1.0.0, chapter 3.
const PRIORITY: u64 = 0;
const ENABLE: u64 = 0x2000;
const THRESHOLD: u64 = 0x20_0000;
const CLAIM: u64 = 0x20_0004;

const INTERRUPT: usize = 1 << 63;

/// Called by the trap entry.
pub fn dispatch(cause: usize, pc: usize, value: usize) {
    if cause & INTERRUPT != 0 {
        match cause & !INTERRUPT {
            SOFTWARE => return harts::rung(),
            TIMER => return harts::alarm(),
            EXTERNAL => return external(),
            _ => {}
        }
    }
    line!("trap on hart {}: mcause {cause:#x} mepc {pc:#x} mtval {value:#x}", hardware::hart());
    give_up(error::TRAP)
}

/// Serves every pending source, so that cores that finish together cost one trap.
fn external() {
    loop {
        let source = CONTROLLER.load32(CLAIM);
        match source {
            0 => return,
            // The line stays up while the job waits.
            IRQ_MAILBOX => JOB_CLAIMED.store(true, Ordering::Relaxed),
            _ => {
                if let Some(core) = source.checked_sub(IRQ_NPU0).filter(|c| (*c as usize) < MAX_CORES) {
                    npu(core);
                }
                CONTROLLER.store32(CLAIM, source);
            }
        }
    }
}

fn npu(core: u32) {
    let device = Device::npu(u64::from(core));
    let status = device.load(reg::IRQ_STAT);
    device.store(reg::IRQ_ACK, status);
    if status & 1 != 0 {
        COMPLETED.fetch_or(1 << core, Ordering::Relaxed);
    }
    if status & 2 != 0 {
        FAULTED.fetch_or(1 << core, Ordering::Relaxed);
    }
}

/// Lets the mailbox and the first `cores` NPU cores interrupt hart 0.
pub fn route(cores: u64) {
    let mut sources: u64 = 1 << IRQ_MAILBOX;
    for core in 0..cores {
        sources |= 1 << (u64::from(IRQ_NPU0) + core);
    }
    for source in (0..64).filter(|s| sources >> s & 1 == 1) {
        CONTROLLER.store32(PRIORITY + 4 * source, 1);
    }
    CONTROLLER.store32(ENABLE, sources as u32);
    CONTROLLER.store32(THRESHOLD, 0);
    hardware::enable(1 << EXTERNAL);
}

/// Sleeps until a core has faulted or all of `mask` have completed; returns (completed, faulted) and forgets both.
pub fn wait_for_npu(mask: u32) -> (u32, u32) {
    hardware::sleep_until(|| {
        COMPLETED.load(Ordering::Relaxed) & mask == mask || FAULTED.load(Ordering::Relaxed) != 0
    });
    hardware::fence();
    (COMPLETED.swap(0, Ordering::Relaxed), FAULTED.swap(0, Ordering::Relaxed))
}

/// Sleeps until the mailbox has a job.
pub fn wait_for_job() {
    hardware::sleep_until(|| JOB_CLAIMED.load(Ordering::Relaxed));
}

/// The mailbox may interrupt again.
pub fn job_done() {
    JOB_CLAIMED.store(false, Ordering::Relaxed);
    CONTROLLER.store32(CLAIM, IRQ_MAILBOX);
}
