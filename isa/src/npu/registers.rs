//! The NPU's MMIO page: one 64 KiB window a core, all registers 64 bits wide.

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
    QCTRL = 0x000 Rw "bit 0 enable; a write of 2 resets queue, semaphores and region registers",
    QBASE = 0x008 Rw "ring base, 64-byte aligned physical address",
    QSIZE = 0x010 Rw "log2 of the ring's entries of 32 bytes",
    QTAIL = 0x018 Rw "doorbell: entry index one past the last command; the write submits",
    QHEAD = 0x020 Ro "entry index of the next command to fetch",
    QSTAT = 0x028 Ro "0 idle, 1 running, 2 fault, 3 stopped",
    CBASE = 0x030 Rw "completion ring base; records of 32 bytes: command index, tag, time stamp, status",
    CSIZE = 0x038 Rw "log2 of the completion ring's entries",
    CTAIL = 0x040 Ro "completion records written",
    IRQ_STAT = 0x060 Ro "bit 0 completion, bit 1 fault",
    IRQ_EN = 0x068 Rw "interrupt enables, as IRQ_STAT",
    IRQ_ACK = 0x070 Wo "a written 1 clears the bit of IRQ_STAT",
    FAULT = 0x080 Ro "fault code, 0 = none",
    FAULT_INDEX = 0x088 Ro "index of the faulting command since reset",
    FAULT_ADDR = 0x090 Ro "address or value the fault concerns",
    REGION0 = 0x100 Rw "region registers: base at 16 i, limit in bytes at 16 i + 8, i = 0..15",
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
}

/// Version of this command set, as CAP_VERSION reads.
pub const VERSION: u64 = 1;

/// Registers of region `i`: base, then limit.
#[must_use]
pub const fn region(i: u64) -> u64 {
    REGION0 + 16 * i
}

/// Why a queue stopped; FAULT reads the code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FaultCode {
    /// Unknown opcode, sub-operation, format or extension, or a reserved bit set.
    BadCommand = 1,
    /// A scratchpad or accumulator range leaves its memory.
    LocalRange = 2,
    /// A memory operand leaves its region.
    RegionLimit = 3,
    /// Valid, but not in CAP.
    NotInCap = 4,
    /// A semaphore passed 255.
    SemaphoreOverflow = 5,
    /// Operands do not fit together (formats, groups, shapes).
    BadOperand = 6,
    /// The fabric refused the address.
    Bus = 7,
    /// CALL too deep, or RET without CALL.
    CallDepth = 8,
    /// TRAP was executed.
    Trap = 9,
    /// A list's entry or a page number exceeds its bound.
    IndexBound = 16,
    /// A compressed stream does not decode.
    Stream = 17,
}

impl FaultCode {
    /// Every fault.
    pub const ALL: &'static [Self] = &[
        Self::BadCommand,
        Self::LocalRange,
        Self::RegionLimit,
        Self::NotInCap,
        Self::SemaphoreOverflow,
        Self::BadOperand,
        Self::Bus,
        Self::CallDepth,
        Self::Trap,
        Self::IndexBound,
        Self::Stream,
    ];
}

/// Bytes of a completion record: command index, tag, time stamp (NPU cycles), status, 8 bytes each.
pub const COMPLETION_BYTES: u64 = 32;
