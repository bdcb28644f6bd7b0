//! The NPU's MMIO page: one 64 KiB window a core, all registers 64 bits wide.

use super::ops::coded;

/// How software may use a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read only.
    Ro,
    /// Write only.
    Wo,
    /// Read and write.
    Rw,
}

/// A row of the register table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Name.
    pub name: &'static str,
    /// Byte offset in the core's window.
    pub offset: u64,
    /// Access.
    pub access: Access,
    /// Meaning.
    pub text: &'static str,
}

macro_rules! registers {
    ($( $name:ident = $offset:literal $access:ident $text:literal ),* $(,)?) => {
        $( #[doc = $text] pub const $name: u64 = $offset; )*
        /// The table.
        pub const TABLE: &[Row] = &[
            $( Row { name: stringify!($name), offset: $offset, access: Access::$access, text: $text } ),*
        ];
    };
}

registers! {
    QCTRL = 0x000 Rw "bit 0 enable, bit 2 pause, bits 7:4 priority, bits 15:8 context number (free for software); a write with bit 1 resets queue, semaphores and registers",
    QBASE = 0x008 Rw "ring base, 64-byte aligned physical address",
    QSIZE = 0x010 Rw "log2 of the ring's entries of 32 bytes",
    QTAIL = 0x018 Rw "doorbell: entry index one past the last command; the write submits",
    QHEAD = 0x020 Ro "entry index of the next command to fetch",
    QSTAT = 0x028 Ro "bits 7:0 0 idle, 1 running, 2 fault, 3 stopped, 4 preempted, 5 killed, 6 frozen",
    CBASE = 0x030 Rw "completion ring base; records of 32 bytes: command index, tag, time stamp, status",
    CSIZE = 0x038 Rw "log2 of the completion ring's entries",
    CTAIL = 0x040 Ro "completion records written",
    IRQ_STAT = 0x060 Ro "bit 0 completion, 1 fault, 2 switched out, 3 debug stop, 4 DVFS hint",
    IRQ_EN = 0x068 Rw "interrupt enables, as IRQ_STAT",
    IRQ_ACK = 0x070 Wo "a written 1 clears the bit of IRQ_STAT",
    FAULT = 0x080 Ro "fault code, 0 = none",
    FAULT_INDEX = 0x088 Ro "index of the faulting command since reset",
    FAULT_ADDR = 0x090 Ro "address or value the fault concerns",
    FAULT_COMMAND = 0x098 Ro "address of the faulting command's first word; all ones = PIO",
    PREEMPT = 0x0A0 Rw "a written 1, 2 or 3 takes the queue out at that level (1 next command with `pre`, 2 drain and save, 3 kill); 0 lets it run again; reads the level asked for",
    PREEMPT_AUTO = 0x0A8 Rw "level at which work in a queue of higher priority takes this one out; 0 = not before it is idle",
    SAVE_BASE = 0x0B0 Rw "where level 2 saves to, 64-byte aligned physical address",
    SAVE_LIMIT = 0x0B8 Rw "bytes there",
    SAVE_BYTES = 0x0C0 Ro "bytes saved and restored since reset",
    SAVE_CYCLES = 0x0C8 Ro "cycles that took",
    PREEMPTIONS = 0x0D0 Ro "times the queue was switched out with work left",
    WATCHDOG = 0x0D8 Rw "cycles a queue may run without writing a completion record, 0 = any number",
    DVFS = 0x0E0 Ro "hint of the last DVFS: cnt in bits 15:0, mode in 21:16; count of hints in 63:32",
    REGION0 = 0x100 Rw "region registers: base at 16 i, limit in bytes at 16 i + 8, i = 0..15",
    SREG0 = 0x200 Rw "scalar registers, 8 bytes each",
    PREDICATE = 0x280 Rw "bit 0: the predicate",
    SEM0 = 0x300 Rw "semaphores, 8 bytes each; a written n posts n",
    PIO0 = 0x500 Wo "one word of a command in four stores, the last of which submits it; runs before the ring's next command",
    PMU0 = 0x800 Ro "counters, 8 bytes each; shared by the core's queues",
    PMU_SEL0 = 0x900 Rw "event of each counter, see `pmu`",
    PMU_CTRL = 0xA00 Rw "bit 0: counters stand still; a write with bit 1 takes a snapshot that counters read until bit 0 is written as 0; with bit 2 sets them to 0",
    CAP_VERSION = 0xF00 Ro "command-set version",
    CAP_CORES = 0xF08 Ro "cores in the cluster",
    CAP_CORE = 0xF10 Ro "this core's number",
    CAP_ARRAY = 0xF18 Ro "rows in bits 31:0, columns in 63:32",
    CAP_SPM = 0xF20 Ro "scratchpad bytes",
    CAP_ACC = 0xF28 Ro "accumulator bytes",
    CAP_DMA = 0xF30 Ro "DMA channels in: bits 31:0, out: 63:32",
    CAP_FORMATS = 0xF38 Ro "bit i: format code i executes",
    CAP_FIFO = 0xF40 Ro "commands an engine's FIFO holds",
    CAP_LANES = 0xF48 Ro "fp32 vector lanes",
    CAP_CTRL = 0xF50 Ro "bit i: CTRL operation i executes",
    CAP_VEC0 = 0xF58 Ro "bit i: VEC function i executes, codes 0x00..0x3F",
    CAP_VEC1 = 0xF60 Ro "codes 0x40..0x7F",
    CAP_VEC2 = 0xF68 Ro "codes 0x80..0xBF",
    CAP_QUEUES = 0xF70 Ro "queues of a core: pages of 4 KiB from the core's window on",
    CAP_PMU = 0xF78 Ro "PMU counters",
    CAP_MOVES = 0xF80 Ro "what DMA executes, bit i for code i: codecs in bits 15:0, tforms 19:16, gs 23:20, rops 31:24",
}

/// Version of this command set, as CAP_VERSION reads.
pub const VERSION: u64 = 1;

/// Registers of region `i`: base, then limit.
#[must_use]
pub const fn region(i: u64) -> u64 {
    REGION0 + 16 * i
}

coded!(
    /// Why a queue stopped; FAULT reads the code. The one table of faults.
    FaultCode {
    BadCommand = 1 "bad_command" "Unknown opcode, sub-operation, format or extension, or the words end early.",
    LocalRange = 2 "local_range" "A scratchpad or accumulator range leaves its memory.",
    RegionLimit = 3 "region_limit" "A memory operand leaves its region.",
    NotInCap = 4 "not_in_cap" "Valid, but not in CAP.",
    SemaphoreOverflow = 5 "semaphore_overflow" "A semaphore passed 255.",
    BadOperand = 6 "bad_operand" "Operands do not fit together (formats, groups, shapes).",
    Bus = 7 "bus" "The fabric refused the address.",
    CallDepth = 8 "call_depth" "CALL too deep, or RET without CALL.",
    Trap = 9 "trap" "TRAP was executed.",
    ReservedBit = 10 "reserved_bit" "A reserved bit is set.",
    Unaligned = 11 "unaligned" "A memory operand is not aligned as the operation demands.",
    DimsZero = 12 "dims_zero" "A count, mask or number of trips is zero.",
    IndexBound = 13 "index_bound" "An index exceeds ibound.",
    LoopNesting = 14 "loop_nesting" "Loops too deep, ended without a beginning, or left by RET.",
    Timeout = 15 "timeout" "WAITMEM waited longer than its count of microseconds.",
    Watchdog = 16 "watchdog" "The queue ran for WATCHDOG cycles without a completion record.",
    Stream = 17 "stream" "A compressed stream does not decode.",
});

/// States QSTAT reads.
pub mod state {
    /// Nothing to do.
    pub const IDLE: u64 = 0;
    /// Commands are fetched or executed.
    pub const RUNNING: u64 = 1;
    /// Stopped by a fault.
    pub const FAULT: u64 = 2;
    /// STOP was executed.
    pub const STOPPED: u64 = 3;
    /// Work waits while another queue runs.
    pub const PREEMPTED: u64 = 4;
    /// Killed by a level-3 preemption: reset it before it is used again.
    pub const KILLED: u64 = 5;
    /// Frozen after a command with `brk`: writing QCTRL resumes it.
    pub const FROZEN: u64 = 6;
}

/// Bits of IRQ_STAT, IRQ_EN and IRQ_ACK.
pub mod irq {
    /// A completion record was written, or a command with `irq` ended.
    pub const DONE: u64 = 1;
    /// The queue faulted.
    pub const FAULT: u64 = 2;
    /// The queue was switched out or killed.
    pub const PREEMPT: u64 = 4;
    /// A command with `brk` ended.
    pub const DEBUG: u64 = 8;
    /// DVFS was executed: the register of that name has the hint.
    pub const DVFS: u64 = 16;
}

/// Queues of a core.
pub const QUEUES: usize = 4;
/// Bytes from one queue's page to the next in a core's window.
pub const QUEUE_STRIDE: u64 = 0x1000;
/// Scalar registers of a queue.
pub const SCALARS: usize = 16;
/// Counters of the PMU of a core.
pub const PMU_COUNTERS: usize = 32;
/// Command words the PIO path of a queue holds.
pub const PIO_WORDS: usize = 16;

/// Kinds of completion records: bits 15:8 of the second word.
pub mod completion {
    /// IRQ, or a command with `irq`: index, tag, time stamp, status 1.
    pub const IRQ: u64 = 0;
    /// A command with `prof`: index; tag, kind and t_issue in bits 63:16; cycles from issue to start in bits 31:0 and
    /// from start to end in 63:32; status 1 in bits 3:0 and cycles / 4 in five fields of 12 bits: waited for operands,
    /// for other engines, for output buffers, for other cores, and cycles of its own that were not active.
    pub const PROFILE: u64 = 1;
}

/// Bytes of a completion record: command index, tag, time stamp (NPU cycles), status, 8 bytes each.
pub const COMPLETION_BYTES: u64 = 32;
