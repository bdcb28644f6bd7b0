//! Where things are: one row a window.

/// A window of the physical address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Name.
    pub name: &'static str,
    /// First address.
    pub base: u64,
    /// Bytes.
    pub bytes: u64,
    /// What it is.
    pub text: &'static str,
}

macro_rules! windows {
    ($( $name:ident = $base:literal, $bytes:literal, $text:literal );* $(;)?) => {
        $( #[doc = $text] pub const $name: Window = Window { name: stringify!($name), base: $base, bytes: $bytes, text: $text }; )*
        /// The device windows; DRAM follows at [`DRAM_BASE`].
        pub const TABLE: &[Window] = &[$( $name ),*];
    };
}

windows! {
    CLINT = 0x0200_0000, 0x1_0000, "timer and inter-processor interrupts";
    PLIC = 0x0C00_0000, 0x40_0000, "external interrupts";
    UART = 0x1000_0000, 0x1000, "console";
    MAILBOX = 0x1001_0000, 0x1000, "jobs in, tokens out";
    NPU = 0x2000_0000, 0x8_0000, "NPU cores, 64 KiB each";
}

/// First byte of DRAM.
pub const DRAM_BASE: u64 = 0x8000_0000;
/// Bytes of one NPU core's window.
pub const NPU_STRIDE: u64 = 0x1_0000;

/// PLIC source of the mailbox.
pub const IRQ_MAILBOX: u32 = 1;
/// PLIC source of NPU core 0; core i is this plus i.
pub const IRQ_NPU0: u32 = 8;

/// Mailbox registers, 64 bits each.
pub mod mailbox {
    /// RO: 1 while a job waits.
    pub const STATUS: u64 = 0x00;
    /// RO: prompt tokens of the job.
    pub const PROMPT_LEN: u64 = 0x08;
    /// RO: tokens to generate, the one from prefill included.
    pub const DECODE_LEN: u64 = 0x10;
    /// RO: KV positions already resident.
    pub const CONTEXT: u64 = 0x18;
    /// RO: pops the next prompt token.
    pub const TOKEN_IN: u64 = 0x20;
    /// WO: a generated token.
    pub const TOKEN_OUT: u64 = 0x28;
    /// WO: the job is done.
    pub const DONE: u64 = 0x30;
    /// WO: boot is done, jobs are welcome.
    pub const READY: u64 = 0x38;
    /// WO: the firmware gives up; the code says why, the console more.
    pub const ERROR: u64 = 0x40;
    /// WO: 1 = the phase that follows is prefill, 2 = decode; for accounting only.
    pub const PHASE: u64 = 0x48;
    /// WO: address of the logits buffer, fp32, one a token of the vocabulary; written once before READY. Whoever
    /// sits on the other side may look there when a token arrives.
    pub const LOGITS: u64 = 0x50;
    /// RO: the token the answer goes on with, read before each step but the first: the one last written to TOKEN_OUT
    /// unless the other side wants another in its place, or [`STOP`] where it wants no more.
    pub const NEXT: u64 = 0x58;
    /// RO: candidates each token of the job is drawn from, 1 to 1024; 0 is the likeliest token without a draw, and the
    /// three registers that follow are not read.
    pub const CANDIDATES: u64 = 0x60;
    /// RO: temperature, fp32 bits, above 0.
    pub const TEMPERATURE: u64 = 0x68;
    /// RO: of the candidates, those that make up this part of the probability stay; fp32 bits, 1 keeps all.
    pub const TOP_P: u64 = 0x70;
    /// RO: seed of the draws; a draw depends on it and on the position.
    pub const SEED: u64 = 0x78;
    /// WO: the job ends here: a code of [`super::error`] says why, the console more. DONE follows, and other jobs are
    /// welcome.
    pub const REFUSED: u64 = 0xC8;
    /// WO: pages of the KV cache taken, of all layers and heads; written before DONE.
    pub const KV_USED: u64 = 0xD0;
    /// WO: pages there are; written once before READY, by firmware that pages its cache.
    pub const KV_TOTAL: u64 = 0xD8;
    /// WO: values of an encoder's result, fp32; written once before READY, by firmware that runs an encoder.
    pub const EMBEDDING_WIDTH: u64 = 0xE0;
    /// WO: address of an encoder's result, which is complete; written once a job.
    pub const EMBEDDING: u64 = 0xE8;
    /// What NEXT reads where the answer is to end.
    pub const STOP: u64 = u64::MAX;
}

/// Codes the firmware writes to the mailbox's ERROR register.
pub mod error {
    /// The device tree has no enabled NPU.
    pub const NO_NPU: u64 = 1;
    /// The model image is not one.
    pub const BAD_IMAGE: u64 = 2;
    /// The model's working set does not fit scratchpad, accumulator or arena.
    pub const DOES_NOT_FIT: u64 = 3;
    /// An NPU core reported a fault.
    pub const NPU_FAULT: u64 = 4;
    /// An unexpected trap.
    pub const TRAP: u64 = 5;
    /// A panic.
    pub const PANIC: u64 = 6;
    /// CAP lacks something the model needs.
    pub const NOT_IN_CAP: u64 = 7;
    /// The model has something this firmware does not compute.
    pub const NOT_COMPUTED: u64 = 8;
    /// The positions of a job need more pages than the KV cache has.
    pub const NO_PAGES: u64 = 9;

    /// What a code means.
    #[must_use]
    pub const fn text(code: u64) -> &'static str {
        match code {
            NO_NPU => "the device tree has no enabled NPU, and this firmware computes on nothing else",
            BAD_IMAGE => "the model image is damaged or of another version",
            DOES_NOT_FIT => "the model's working set does not fit the NPU's scratchpad or the arena",
            NPU_FAULT => "an NPU core stopped with a fault",
            TRAP => "the firmware took an unexpected trap",
            PANIC => "the firmware panicked",
            NOT_IN_CAP => "the NPU lacks a format or function the model needs",
            NOT_COMPUTED => "the model has something this firmware does not compute",
            NO_PAGES => "no page of the cache of keys and values is left",
            _ => "unknown code",
        }
    }
}
