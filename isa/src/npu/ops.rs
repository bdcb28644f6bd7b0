//! Operation tables: engines, formats, vector functions, control operations.

/// The unit that executes a command: opcode bits 7:5.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Engine {
    /// Sequencer (CTRL).
    Sq,
    /// DMA.
    Dma,
    /// Matrix engine.
    Mx,
    /// Vector engine.
    Vp,
}

/// Opcode of CTRL commands.
pub const OPCODE_CTRL: u64 = 0x00;
/// Opcode of DMA commands.
pub const OPCODE_DMA: u64 = 0x20;
/// Opcode of GEMM commands.
pub const OPCODE_GEMM: u64 = 0x40;
/// Opcode of VEC commands.
pub const OPCODE_VEC: u64 = 0x60;
/// Extension type: epilogue.
pub const EXT_EPILOGUE: u64 = 0x01;
/// Extension type: index.
pub const EXT_INDEX: u64 = 0x02;
/// Extension type: address generation.
pub const EXT_AGU: u64 = 0x03;
/// Extension type: attention and position.
pub const EXT_POSITION: u64 = 0x04;

macro_rules! coded {
    ($(#[$doc:meta])* $name:ident { $( $variant:ident = $code:literal $text:literal $help:literal ),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum $name { $( #[doc = $help] $variant = $code, )* }

        impl $name {
            /// Every row of the table.
            pub const ALL: &'static [Self] = &[$( Self::$variant ),*];
            /// The row with this code.
            #[must_use]
            pub const fn from_code(code: u64) -> Option<Self> {
                match code { $( $code => Some(Self::$variant), )* _ => None }
            }
            /// Code in the command word.
            #[must_use]
            pub const fn code(self) -> u64 { self as u64 }
            /// Name in the assembler.
            #[must_use]
            pub const fn name(self) -> &'static str { match self { $( Self::$variant => $text, )* } }
            /// One line of help.
            #[must_use]
            pub const fn help(self) -> &'static str { match self { $( Self::$variant => $help, )* } }
            /// The row with this assembler name.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|r| r.name() == name)
            }
        }
    };
}

pub(crate) use coded;

coded!(
    /// Number formats, 4-bit code.
    Format {
    Int4 = 0 "int4" "4-bit two's complement, two a byte, low nibble first",
    Uint4 = 1 "uint4" "4-bit unsigned",
    Int8 = 2 "int8" "8-bit two's complement",
    Uint8 = 3 "uint8" "8-bit unsigned",
    Int16 = 4 "int16" "16-bit two's complement",
    Int32 = 5 "int32" "32-bit two's complement",
    Fp16 = 6 "fp16" "IEEE binary16",
    Bf16 = 7 "bf16" "bfloat16",
    Fp32 = 8 "fp32" "IEEE binary32",
    Fp8E4m3 = 9 "fp8e4m3" "8-bit float, 4 exponent bits, finite only",
    Fp8E5m2 = 10 "fp8e5m2" "8-bit float, 5 exponent bits",
    Mxfp4 = 11 "mxfp4" "e2m1 with an e8m0 scale per 32",
    Mxfp8 = 12 "mxfp8" "e4m3 with an e8m0 scale per 32",
    Codebook4 = 13 "codebook4" "4-bit index into a LUT",
    Int2 = 14 "int2" "2-bit two's complement",
    Reserved15 = 15 "reserved15" "reserved",
});

impl Format {
    /// Bits of one element.
    #[must_use]
    pub const fn bits(self) -> u64 {
        match self {
            Self::Int2 => 2,
            Self::Int4 | Self::Uint4 | Self::Mxfp4 | Self::Codebook4 => 4,
            Self::Int8 | Self::Uint8 | Self::Fp8E4m3 | Self::Fp8E5m2 | Self::Mxfp8 | Self::Reserved15 => 8,
            Self::Int16 | Self::Fp16 | Self::Bf16 => 16,
            Self::Int32 | Self::Fp32 => 32,
        }
    }

    /// Bytes of `n` packed elements, rounded up.
    #[must_use]
    pub const fn bytes(self, n: u64) -> u64 {
        (n * self.bits()).div_ceil(8)
    }
}

coded!(
    /// VEC functions.
    VecFn {
    Cvt = 0x00 "cvt" "d = x in another format",
    Add = 0x01 "add" "d = x + y",
    Sub = 0x02 "sub" "d = x - y",
    Mul = 0x03 "mul" "d = x * y",
    Div = 0x04 "div" "d = x / y",
    Max = 0x05 "max" "d = max(x, y)",
    Min = 0x06 "min" "d = min(x, y)",
    Fma = 0x07 "fma" "d = d + x * y",
    Abs = 0x08 "abs" "d = |x|",
    Neg = 0x09 "neg" "d = -x",
    Clamp = 0x0A "clamp" "d = x clamped to limits in y or imm",
    Cmp = 0x0B "cmp" "d = 1 where x relates to y as mask says, else 0",
    Select = 0x0C "select" "d = x where d is not 0, else y",
    Relu = 0x10 "relu" "rectifier",
    GeluT = 0x11 "gelu_t" "GELU, tanh form",
    GeluE = 0x12 "gelu_e" "GELU, erf form",
    Silu = 0x13 "silu" "x * sigmoid(x)",
    Sigmoid = 0x14 "sigmoid" "logistic function",
    Tanh = 0x15 "tanh" "hyperbolic tangent",
    Exp = 0x16 "exp" "exponential",
    Log = 0x17 "log" "natural logarithm",
    Rsqrt = 0x18 "rsqrt" "reciprocal square root",
    Recip = 0x19 "recip" "reciprocal",
    Lut = 0x1A "lut" "look-up in table imm, interpolated for floats",
    Swiglu = 0x20 "swiglu" "silu(x) * y",
    Geglu = 0x21 "geglu" "gelu(x) * y, tanh form or (imm = 1) erf form",
    Reglu = 0x22 "reglu" "relu(x) * y",
    Rsum = 0x30 "rsum" "row sum, continued with upd",
    Rmax = 0x31 "rmax" "row maximum, continued with upd",
    Rabsmax = 0x32 "rabsmax" "row absolute maximum, continued with upd",
    Rsumsq = 0x33 "rsumsq" "row sum of squares, continued with upd",
    Cumsum = 0x34 "cumsum" "row prefix sum",
    Rmsnorm = 0x40 "rmsnorm" "x / rms(x) * y",
    Layernorm = 0x41 "layernorm" "(x - mean) / std * gain + bias",
    Softmax = 0x42 "softmax" "row softmax with scale, cap and mask",
    FaStep = 0x43 "fa_step" "one flash-attention block: P, rescale vector, running maximum and sum",
    FaFin = 0x44 "fa_fin" "x / running sum",
    Softcap = 0x45 "softcap" "cap * tanh(x / cap)",
    RopeHalf = 0x50 "rope_half" "rotary embedding, halves rotated",
    RopeInter = 0x51 "rope_inter" "rotary embedding, neighbours rotated",
    Qdyn = 0x60 "qdyn" "dynamic quantisation by row absmax, with scales",
    Deq = 0x61 "deq" "codes times scales by group, column, row or imm",
    Mxq = 0x62 "mxq" "quantise to mxfp4 or mxfp8, e8m0 scales at y",
    Transpose = 0x70 "transpose" "rows become columns",
    Permute = 0x71 "permute" "the two outer axes exchanged",
    Pad = 0x72 "pad" "zero columns before and after",
    Argmax = 0x80 "argmax" "index and value of each row's first maximum",
    Topk = 0x81 "topk" "the k largest with indices, merged with upd",
    Sample = 0x82 "sample" "draw by temperature, top-k, top-p, min-p and seed",
    Route = 0x90 "route" "each token's k experts and weights, each expert's tokens",
    Segsum = 0x91 "segsum" "rows summed by segment",
    Dsoftmax = 0xA0 "dsoftmax" "softmax backward",
    Drmsnorm = 0xA1 "drmsnorm" "RMS norm backward",
    Dlayernorm = 0xA2 "dlayernorm" "layer norm backward",
    Dsilu = 0xA3 "dsilu" "SiLU backward",
    Dgelu = 0xA4 "dgelu" "GELU backward, tanh form or (imm = 1) erf form",
    Xent = 0xA5 "xent" "cross-entropy: losses and gradient",
    Adamw = 0xA6 "adamw" "AdamW step, rounding the parameters to nearest or stochastically",
});

coded!(
    /// CTRL operations.
    CtrlOp {
    Nop = 0 "nop" "nothing but waits and posts",
    Fence = 1 "fence" "wait until the engines of emask have retired everything older",
    Sem = 2 "sem" "mode 0 set semaphore id to cnt; mode 1 post cnt, with cmask to those cores (id at least 48); mode 2 wait for at least cnt without subtracting",
    Barrier = 3 "barrier" "post 1 to semaphore id (48..63) of the other cores of cmask, then take one post of each of them",
    Irq = 4 "irq" "write a completion record with tag and raise the queue interrupt",
    PmuRd = 5 "pmu_rd" "write the counters of the mask imm, 8 bytes each, to region + moff",
    PmuMark = 6 "pmu_mark" "mark a counter region",
    Setr = 7 "setr" "id 0..15: region register id = imm (base) with limit moff bytes; id 16..31: scalar register id - 16, mode 0 = imm, 1 += imm, 2 = scalar cnt",
    Lutld = 8 "lutld" "load table id (0..15), 256 fp16 values, from region + moff",
    Call = 9 "call" "go on at region + moff until ret",
    Ret = 10 "ret" "return from call",
    Jump = 11 "jump" "in a list, go on at region + moff: mode 0 if the predicate is 1, 1 if it is 0, 2 always",
    Loop = 12 "loop" "in a list, begin loop id (0..3) of cnt trips, or of as many as areg of the extension says",
    Endl = 13 "endl" "end loop id",
    Yield = 14 "yield" "let another queue run if one has work",
    Save = 15 "save" "mode 0 save dirty local memory, tables and registers to region + moff; mode 1 declare local memory clean",
    Restore = 16 "restore" "restore what SAVE saved there",
    Pwr = 17 "pwr" "engines of emask, once idle: mode 0 on, 1 clock-gated with retention, 2 off; work wakes them",
    Dvfs = 18 "dvfs" "clock hint cnt, mode: register DVFS and its interrupt tell the firmware",
    Waitmem = 19 "waitmem" "poll 8 bytes at region + moff until mode 0 equal to imm, 1 not equal, 2 at least imm, 3 some bit of imm set; fault after cnt us (0 = never)",
    Wrmem = 20 "wrmem" "write imm to region + moff: mode 0 8 bytes, 1 4 bytes, 2 8 bytes of scalar id",
    Setp = 21 "setp" "predicate = scalar id against imm: mode 0 equal, 1 not equal, 2 below, 3 at least (unsigned); 4 = 1, 5 = 0, 6 inverted",
    Trap = 22 "trap" "fault on purpose",
    Stop = 23 "stop" "stop the queue",
});
