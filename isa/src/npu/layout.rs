//! The field tables: one row a field, from low bit to high. Structs, encoders, decoders and documentation
//! are derived; a compile-time assertion proves that every layout fills its bits exactly.

use super::word::Word;

/// One field of a layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Name in the assembler.
    pub name: &'static str,
    /// Lowest bit.
    pub lo: u32,
    /// Width in bits.
    pub width: u32,
    /// Meaning.
    pub text: &'static str,
}

macro_rules! layout {
    ($(#[$doc:meta])* $name:ident, $base:literal, $bits:literal, reserved $rsv:literal {
        $( $field:ident : $width:literal $text:literal ),* $(,)?
    }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $name { $( #[doc = $text] pub $field: u64, )* }

        impl $name {
            /// First bit of the layout in its word.
            pub const BASE: u32 = $base;
            /// Reserved bits at the top of the layout; they must be zero.
            pub const RESERVED: u32 = $rsv;
            /// All fields from low to high.
            pub const FIELDS: &'static [Field] = &{
                let mut fields = [$( Field { name: stringify!($field), lo: 0, width: $width, text: $text } ),*];
                let (mut i, mut lo) = (0, $base);
                while i < fields.len() {
                    fields[i].lo = lo;
                    lo += fields[i].width;
                    i += 1;
                }
                assert!(lo + $rsv == $base + $bits, "layout does not fill its bits");
                fields
            };

            /// Writes the fields into `word`.
            ///
            /// # Panics
            /// If a value is wider than its field.
            #[inline]
            pub fn encode(&self, word: &mut Word) {
                let mut lo = $base;
                $( word.set(lo, $width, self.$field); lo += $width; )*
                let _ = lo;
            }

            /// Reads the fields; `None` if a reserved bit is set.
            #[inline]
            #[must_use]
            pub fn decode(word: &Word) -> Option<Self> {
                let mut lo = $base;
                $( let $field = word.get(lo, $width); lo += $width; )*
                let mut left: u32 = $rsv;
                while left > 0 {
                    let width = if left > 64 { 64 } else { left };
                    if word.get(lo, width) != 0 {
                        return None;
                    }
                    lo += width;
                    left -= width;
                }
                Some(Self { $( $field, )* })
            }

            /// Value of the field called `name`.
            #[must_use]
            pub fn field(&self, name: &str) -> Option<u64> {
                $( if name == stringify!($field) { return Some(self.$field); } )*
                None
            }

            /// Sets the field called `name`; false if there is none.
            #[must_use]
            pub fn set_field(&mut self, name: &str, value: u64) -> bool {
                $( if name == stringify!($field) { self.$field = value; return true; } )*
                false
            }
        }
    };
}

layout!(
    /// Bits 63:0 of every command.
    Header, 0, 64, reserved 0 {
    opcode: 8 "operation; the engine is opcode bits 7:5",
    ext: 2 "extension words that follow (0..=3)",
    pre: 1 "a context may be switched out after this command",
    irq: 1 "raise the queue interrupt on completion",
    prof: 1 "write a completion record",
    pred: 1 "skip the operation (not its waits and posts) when the predicate is 0",
    fence: 1 "do not start until all older commands of the same engine have retired",
    brk: 1 "debug stop: freeze the queue after this command",
    w0_id: 6 "semaphore to acquire before start",
    w0_n: 4 "amount (0 = none): wait until at least n, then subtract n",
    w1_id: 6 "second semaphore to acquire",
    w1_n: 4 "amount",
    s0_id: 6 "semaphore to post on completion",
    s0_n: 4 "amount (0 = none)",
    s1_id: 6 "second semaphore to post",
    s1_n: 4 "amount",
    tag: 8 "opaque id for interrupts, traces and profiles",
});

layout!(
    /// DMA body (opcode 0x20): up to three nested runs between memory and scratchpads.
    Dma, 64, 192, reserved 0 {
    dir: 2 "0 memory to SPM, 1 SPM to memory, 2 SPM to SPM of the cores in cmask, 3 fill SPM with the word in moff",
    region: 4 "base register R0..R15, bounds checked",
    moff: 36 "byte offset in the region; with dir 2 the destination granule",
    saddr: 20 "SPM address, granules",
    n0: 14 "inner run length - 1, in 16-byte units",
    n1: 12 "rows - 1",
    n2: 10 "planes - 1",
    mst1: 20 "memory row stride, 16-byte units (with dir 2: destination row stride, 16-byte units)",
    mst2: 24 "memory plane stride, 16-byte units",
    sst1: 12 "SPM row stride, granules; 0 = rows packed without padding",
    sst2: 14 "SPM plane stride, granules; 0 = planes packed without padding",
    codec: 4 "0 none, 1 zero-RLE, 2 entropy, 3 palette, 4 2:4 expand, 5 nibble/byte, 6 MX split, 7 KV quantise, 8 KV dequantise",
    tform: 2 "0 none, 1 row-major/32-row tiles, 2 transpose 8 bit, 3 transpose 16 bit",
    cmask: 8 "multicast core mask (0 = this core)",
    gs: 2 "0 dense, 1 gather rows, 2 scatter rows, 3 paged (all by the index extension)",
    qos: 2 "0 background, 1 prefetch, 2 normal, 3 urgent",
    slc: 2 "system-cache hint: 0 bypass, 1 allocate, 2 stream, 3 keep",
    ch: 2 "DMA channel",
    red: 1 "reduce into the destination",
    zp: 1 "zero-pad short rows",
});

layout!(
    /// GEMM body (opcode 0x40): C (M x N) = A (M x K) times B (K x N), with accumulation, epilogue and conversion.
    Gemm, 64, 192, reserved 0 {
    a: 20 "A (M x K, rows of K) in SPM, granules",
    b: 20 "B (K x N, rows of N; with tb N rows of K) in SPM, granules",
    c: 20 "C (M x N), granules: the accumulator itself, or with drain = 1 and csp = 1 where results go in SPM",
    csp: 1 "C space: 0 ACC, 1 SPM",
    s: 20 "B's scale table, or with init = 3 the fp32 row-rescale vector, in SPM, granules",
    m: 12 "M - 1",
    n: 12 "N - 1",
    k: 14 "K - 1",
    ast: 12 "A row stride, granules; 0 = packed",
    bst: 12 "B row stride, granules; 0 = packed",
    cst: 12 "C row stride, granules; 0 = packed",
    af: 4 "A format",
    bf: 4 "B format",
    cf: 4 "C format",
    acc16: 1 "1 = narrow accumulation: fp16 or int24",
    df: 2 "0 auto, 1 weight-stationary, 2 output-stationary, 3 GEMV (A stationary, B streams once)",
    ta: 1 "A transposed",
    tb: 1 "B transposed",
    init: 2 "0 C = 0, 1 keep, 2 start at the bias (epilogue extension), 3 C rows scaled by s, then accumulate",
    drain: 1 "last K step: run the epilogue and convert to cf",
    sp24: 1 "B is 2:4 structured sparse: for four rows of K two of values, then N nibbles of two positions",
    grp: 3 "scale group of B along K: 0 none, 1 per column, 2 g16, 3 g32, 4 g64, 5 g128, 6 g256, 7 128x128 block",
    sf: 2 "scale format: 0 fp16, 1 bf16, 2 fp32, 3 e8m0",
    zpm: 2 "0 symmetric, 1 integer zero points (in bf) or 2 float minima (in sf) behind each table's scales, 3 codebook",
    act: 4 "activation: 0 none, 1 relu, 2 relu^2, 3 gelu-tanh, 4 gelu-erf, 5 silu, 6 sigmoid, 7 tanh, 8 exp, 9 clamp, 15 LUT",
    rnd: 2 "rounding: 0 nearest even, 1 half away, 2 toward zero, 3 stochastic",
    sat: 1 "saturate",
    keepb: 1 "reuse the stationary B of the previous GEMM",
    ploadb: 1 "only load B into the array",
});

layout!(
    /// VEC body (opcode 0x60): a row-wise function of one or two operands.
    Vec, 64, 192, reserved 1 {
    func: 8 "function",
    x: 20 "first source, granules",
    xs: 1 "its space: 0 SPM, 1 ACC",
    y: 20 "second source, table or statistics, granules",
    ys: 1 "its space",
    d: 20 "destination, granules",
    ds: 1 "its space",
    rows: 12 "rows - 1",
    cols: 16 "columns - 1",
    xst: 12 "first source row stride, granules; 0 = packed",
    yst: 12 "second source row stride; 0 = packed",
    dst: 12 "destination row stride; 0 = packed",
    xf: 4 "first source format",
    yf: 4 "second source format",
    dfm: 4 "destination format",
    bc: 3 "second source broadcast: 0 none, 1 row vector, 2 column vector, 3 imm, 4 scalar register",
    imm: 32 "fp32 bits or u32, by function",
    mask: 2 "0 none, 1 causal, 2 sliding window, 3 explicit bits; with CMP the relation: 0 =, 1 <, 2 <=, 3 not =",
    stat: 1 "norms and SOFTMAX: also write row statistics where alpha points",
    upd: 1 "update running statistics (0 starts them afresh)",
    rnd: 2 "rounding: 0 nearest even, 3 stochastic (ADAMW)",
    setp: 1 "element-wise functions and reductions: the predicate becomes whether any result is not 0",
    acc: 2 "approximation: 0 exact reference, 1 polynomial, 2 LUT-256, 3 LUT-64",
});

layout!(
    /// CTRL body (opcode 0x00): executed by the sequencer.
    Ctrl, 64, 192, reserved 0 {
    op: 6 "sub-operation",
    cmask: 8 "core mask",
    emask: 8 "engine mask: bit 0..3 DMA channels, bit 4 MX, bit 5 VP",
    id: 8 "semaphore, register or loop id",
    mode: 6 "sub-mode",
    cnt: 16 "count, trips or timeout in us",
    region: 4 "base register of a memory operand",
    moff: 36 "byte offset",
    rsv: 36 "reserved, zero",
    imm: 64 "immediate",
});

layout!(
    /// Extension 0x01, after GEMM: epilogue, and scales of A.
    Epilogue, 0, 256, reserved 2 {
    type_: 8 "0x01",
    ew: 4 "element-wise: 0 none, 1 add R, 2 sub R, 3 mul R, 4 silu(C)*R, 5 gelu(C)*R, 6 max R",
    r: 20 "R operand, granules",
    rs: 1 "its space",
    rst: 12 "its row stride, granules; 0 = packed",
    rf: 4 "its format",
    bias: 20 "bias vector (N), granules",
    bff: 4 "bias format; not 0: the bias is added at drain, after scales (0 = no bias, as no bias is int4)",
    osm: 2 "output scale: 0 none, 1 tensor, 2 channel, 3 row",
    os: 32 "fp32 scale, or granule of the fp32 table",
    ozp: 16 "output zero point, int16; integer results only",
    lo: 16 "clamp's low limit, or the low end of the LUT (bf16)",
    hi: 16 "clamp's high limit, or the high end of the LUT (bf16)",
    lut: 4 "LUT of activation 15",
    amax: 1 "write row absmax",
    amaxa: 20 "where",
    as_: 20 "A scale table, granules",
    ag: 3 "A scale group along K, as grp; 1 = one scale a row; 0 = none",
    asf: 2 "A scale format",
    asum: 1 "each A scale is followed by its block's sum",
    aca: 16 "accumulator of the product when C goes to SPM, granules; rows packed",
    asp: 12 "values from one row of the A scale table to the next; 0 = packed",
    cb: 4 "LUT of codebook weights",
    seed: 16 "seed of stochastic rounding",
});

layout!(
    /// Extension 0x02, after DMA: index, page, remote, reduce.
    Index, 0, 256, reserved 55 {
    type_: 8 "0x02",
    idx: 20 "index list in SPM, granules",
    ifm: 2 "its entries: 0 u16, 1 u32, 2 u64, 3 bitmap",
    icnt: 16 "entries (or bits) - 1; with gs 3 entries of the page table - 1",
    ibound: 32 "largest index or page number; fault beyond",
    plog: 5 "log2 of page bytes",
    ptab: 36 "page table: byte offset in the region",
    rcore: 4 "with dir 2 and cmask 0: destination core",
    raddr: 20 "with dir 2 and cmask 0: destination granule (moff is then 0)",
    rop: 3 "with red: 0 add fp32, 1 add bf16, 2 add i32, 3 max fp32",
    qgrp: 3 "codecs 7, 8: elements a scale, 1 the row, 2..6 16, 32, 64, 128, 256",
    qs: 20 "codec 3: palette; 6: block scales; 7, 8: scale table or 0 for scales in the row; granules in SPM",
    qf: 4 "codecs 3 to 8: format in memory",
    ef: 4 "codecs 3, 4: format in the scratchpad",
    clen: 24 "codecs 1, 2: compressed bytes in memory / 16 - 1",
});

layout!(
    /// Extension 0x04, after VEC: attention and position.
    Position, 0, 256, reserved 100 {
    type_: 8 "0x04",
    q0: 32 "position of the first query row; for ARGMAX, TOPK and SAMPLE the position being sampled; for ROUTE the first token",
    k0: 32 "position of the first key column; for ARGMAX, TOPK and SAMPLE the index of the first column",
    rdiv: 12 "rows per position - 1, for query heads packed under one KV head",
    win: 20 "sliding window, 0 = none",
    alpha: 20 "where the fp32 rescale vector, row statistics, losses or gain gradients go, granules",
    cap: 32 "fp32 soft cap of FA_STEP and SOFTMAX, 0 = none",
});

layout!(
    /// Extension 0x03, last: address generation inside a hardware loop. Adds are signed, in two's complement.
    Agu, 0, 256, reserved 106 {
    type_: 8 "0x03",
    lp: 2 "loop, by the id its LOOP has",
    ia: 32 "added to a, x or saddr each trip, granules",
    ib: 32 "to b or y",
    ic: 32 "to c or d",
    im: 40 "to moff, bytes",
    areg: 4 "of LOOP: the scalar register that holds the number of trips",
});
