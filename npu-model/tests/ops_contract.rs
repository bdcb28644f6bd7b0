//! The contract: every function of the command table executes with a vector here, every sentence a
//! fault can say is said, and no words make the engines panic.

mod ops_common;

use std::collections::BTreeSet;

use isa::npu::registers::FaultCode;
use isa::npu::{Command, Extension, Format, Index, VecFn, Word};
use npu_model::{Fault, ops};
use ops_common::{Random, command, config, memories};

/// One row of x = [1, -2, 4, 0], y = [3, 1, -1, 2] (fp32) and what the function leaves at `d`, as 32-bit words.
const VECTORS: &[(VecFn, &str, &[u32])] = &[
    (VecFn::Cvt, "dfm=fp16", &[0xC000_3C00, 0x0000_4400]),
    (VecFn::Add, "dfm=fp32", &[0x4080_0000, 0xBF80_0000, 0x4040_0000, 0x4000_0000]),
    (VecFn::Sub, "dfm=fp32", &[0xC000_0000, 0xC040_0000, 0x40A0_0000, 0xC000_0000]),
    (VecFn::Mul, "dfm=fp32", &[0x4040_0000, 0xC000_0000, 0xC080_0000, 0x0000_0000]),
    (VecFn::Max, "dfm=fp32", &[0x4040_0000, 0x3F80_0000, 0x4080_0000, 0x4000_0000]),
    (VecFn::Min, "dfm=fp32", &[0x3F80_0000, 0xC000_0000, 0xBF80_0000, 0x0000_0000]),
    // 0.7310586, -0.23840584, 3.928055, 0
    (VecFn::Silu, "dfm=fp32", &[0x3F3B_26A8, 0xBE74_20A9, 0x407B_6541, 0x0000_0000]),
    (VecFn::Swiglu, "dfm=fp32 bc=3 imm=0x40000000", &[0x3FBB_26A8, 0xBEF4_20A9, 0x40FB_6541, 0x0000_0000]),
    // Squares sum to 21: r = 1 / sqrt(21 / 4 + 1) = 0.4
    (VecFn::Rmsnorm, "dfm=fp32 imm=0x3f800000", &[0x3F99_999A, 0xBF4C_CCCD, 0xBFCC_CCCD, 0x0000_0000]),
    // One row: m = 4, p = e^-3, e^-6, 1, e^-4 as fp16
    (VecFn::FaStep, "dfm=fp16 imm=0x3f800000 | pos alpha=300", &[0x1914_2A5F, 0x24B0_3C00]),
    // y is the pair (3, 1): divided by 1
    (VecFn::FaFin, "dfm=fp16", &[0xC000_3C00, 0x0000_4400]),
    // Position 0 rotates by nothing
    (VecFn::RopeHalf, "dfm=fp32 imm=4 | pos q0=0", &[0x3F80_0000, 0xC000_0000, 0x4080_0000, 0x0000_0000]),
    (VecFn::RopeInter, "dfm=fp32 imm=4 | pos q0=0", &[0x3F80_0000, 0xC000_0000, 0x4080_0000, 0x0000_0000]),
    // 127 / 4 = 31.75: 32, -64 (a tie at -63.5), 127, 0
    (VecFn::Qdyn, "dfm=int8", &[0x007F_C020]),
    (VecFn::Argmax, "| pos k0=5", &[7, 0x4080_0000, 0, 0]),
    (VecFn::Div, "dfm=fp32", &[0x3EAA_AAAB, 0xC000_0000, 0xC080_0000, 0x0000_0000]),
    (VecFn::Fma, "dfm=fp32", &[0x4040_0000, 0xC000_0000, 0xC080_0000, 0xA5A5_A5A5]),
    (VecFn::Abs, "dfm=fp32", &[0x3F80_0000, 0x4000_0000, 0x4080_0000, 0x0000_0000]),
    (VecFn::Neg, "dfm=fp32", &[0xBF80_0000, 0x4000_0000, 0xC080_0000, 0x8000_0000]),
    (VecFn::Clamp, "dfm=fp32 bc=3 imm=0x4000bf80", &[0x3F80_0000, 0xBF80_0000, 0x4000_0000, 0x0000_0000]),
    (VecFn::Cmp, "dfm=fp32 mask=1", &[0x3F80_0000, 0x3F80_0000, 0x0000_0000, 0x3F80_0000]),
    (VecFn::Select, "dfm=fp32", &[0x3F80_0000, 0xC000_0000, 0x4080_0000, 0x0000_0000]),
    (VecFn::Relu, "dfm=fp32", &[0x3F80_0000, 0x0000_0000, 0x4080_0000, 0x0000_0000]),
    (VecFn::GeluT, "dfm=fp32", &[0x3F57_585C, 0xBD39_F7C0, 0x407F_FEDA, 0x0000_0000]),
    (VecFn::GeluE, "dfm=fp32", &[0x3F57_625E, 0xBD3A_5E80, 0x407F_FDEC, 0x0000_0000]),
    (VecFn::Sigmoid, "dfm=fp32", &[0x3F3B_26A8, 0x3DF4_20A9, 0x3F7B_6541, 0x3F00_0000]),
    (VecFn::Tanh, "dfm=fp32", &[0x3F42_F7D6, 0xBF76_CA83, 0x3F7F_D40C, 0x0000_0000]),
    (VecFn::Exp, "dfm=fp32", &[0x402D_F854, 0x3E0A_9555, 0x425A_6482, 0x3F80_0000]),
    (VecFn::Log, "dfm=fp32", &[0x0000_0000, 0x7FC0_0000, 0x3FB1_7218, 0xFF80_0000]),
    (VecFn::Rsqrt, "dfm=fp32", &[0x3F80_0000, 0x7FC0_0000, 0x3F00_0000, 0x7F80_0000]),
    (VecFn::Recip, "dfm=fp32", &[0x3F80_0000, 0xBF00_0000, 0x3E80_0000, 0x7F80_0000]),
    (VecFn::Geglu, "dfm=fp32", &[0x4021_8245, 0xBD39_F7C0, 0xC07F_FEDA, 0x0000_0000]),
    (VecFn::Reglu, "dfm=fp32", &[0x4040_0000, 0x0000_0000, 0xC080_0000, 0x0000_0000]),
    (VecFn::Softcap, "dfm=fp32 imm=0x40000000", &[0x3F6C_9A9E, 0xBFC2_F7D6, 0x3FF6_CA83, 0x0000_0000]),
    (VecFn::Layernorm, "dfm=fp32 bc=1 imm=0", &[0x3EB1_5CAB, 0xBFA2_94F2, 0xBFC0_2464, 0xBF31_5CAB]),
    (VecFn::Softmax, "dfm=fp32 imm=0x3f800000", &[0x3D3E_7BB6, 0x3B17_BCD6, 0x3F6F_1F55, 0x3C8C_2656]),
    (VecFn::Topk, "imm=2 | pos k0=5", &[0x0000_0007, 0x4080_0000, 0x0000_0005, 0x3F80_0000]),
    (VecFn::Sample, "imm=1 | pos k0=5 q0=9", &[0x0000_0007, 0x4080_0000, 0xBF11_B590, 0x0000_0000]),
    (VecFn::Dsilu, "dfm=fp32", &[0x4032_1CDD, 0xBDB9_ED18, 0xBF86_BDB7, 0x3F80_0000]),
    (VecFn::Dgelu, "dfm=fp32", &[0x404F_EDDA, 0xBDB0_54CB, 0xBF80_0AFA, 0x3F80_0000]),
    (VecFn::Lut, "dfm=fp32 imm=3", &[0x0000_0000, 0x0000_0000, 0x3F80_0000, 0x0000_0000]),
    (VecFn::Rsum, "dfm=fp32", &[0x4040_0000, 0xA5A5_A5A5, 0xA5A5_A5A5, 0xA5A5_A5A5]),
    (VecFn::Rmax, "dfm=fp32", &[0x4080_0000, 0xA5A5_A5A5, 0xA5A5_A5A5, 0xA5A5_A5A5]),
    (VecFn::Rabsmax, "dfm=fp32", &[0x4080_0000, 0xA5A5_A5A5, 0xA5A5_A5A5, 0xA5A5_A5A5]),
    (VecFn::Rsumsq, "dfm=fp32", &[0x41A8_0000, 0xA5A5_A5A5, 0xA5A5_A5A5, 0xA5A5_A5A5]),
    (VecFn::Cumsum, "dfm=fp32", &[0x3F80_0000, 0xBF80_0000, 0x4040_0000, 0x4040_0000]),
    (VecFn::Deq, "dfm=fp32 xf=int8 imm=2", &[0x0000_0000, 0x0000_0000, 0xC300_0000, 0x427C_0000]),
    (VecFn::Mxq, "dfm=mxfp8", &[0x0078_F068, 0xA5A5_A5A5, 0xA5A5_A5A5, 0xA5A5_A5A5]),
    (VecFn::Transpose, "dfm=fp32", &[0x3F80_0000, 0xC000_0000, 0x4080_0000, 0x0000_0000]),
    (VecFn::Permute, "dfm=fp32 imm=1", &[0x3F80_0000, 0xC000_0000, 0x4080_0000, 0x0000_0000]),
    (VecFn::Pad, "dfm=fp32 imm=0x10001", &[0x0000_0000, 0x3F80_0000, 0xC000_0000, 0x4080_0000]),
    (VecFn::Route, "imm=0x102 yf=int32", &[0x0000_0002, 0x3F73_DBE6, 0x0000_0000, 0x3D42_41A2]),
    (VecFn::Segsum, "dfm=fp32 imm=2 yf=int32", &[0x3F80_0000, 0xC000_0000, 0x4080_0000, 0]),
    (VecFn::Dsoftmax, "dfm=fp32 imm=0x3f800000", &[0x4140_0000, 0x3F80_0000, 0xC0E0_0000, 0x40C0_0000]),
    (
        VecFn::Drmsnorm,
        "dfm=fp32 imm=0x3f800000 | pos alpha=300",
        &[0x4040_0000, 0xC000_0000, 0xC080_0000, 0x0BA0_C66A],
    ),
    (
        VecFn::Dlayernorm,
        "dfm=fp32 imm=0x3f800000 | pos alpha=300",
        &[0x4070_0000, 0xBFA0_0000, 0xC050_0000, 0x3F40_0000],
    ),
    (
        VecFn::Xent,
        "dfm=fp32 yf=int32 imm=0x3f800000 | pos alpha=300",
        &[0x3D3E_7BB6, 0xBF7F_6843, 0x3F6F_1F55, 0x3C8C_2656],
    ),
    (VecFn::Adamw, "dfm=fp32 imm=300", &[0xBF2A_AAAB, 0x3DF6_04E7, 0xBE60_DBDE, 0xBED4_13CC]),
];

#[test]
fn every_function_has_a_vector() {
    let cfg = config();
    let caps = ops::caps();
    for &function in VecFn::ALL {
        let code = usize::try_from(function.code()).expect("small");
        assert_eq!(caps[code / 64] >> (code % 64) & 1, 1, "{}", function.name());
        let vector = VECTORS.iter().find(|v| v.0 == function);
        let (_, fields, expected) =
            vector.unwrap_or_else(|| panic!("{} executes without a vector", function.name()));
        let mut local = memories(&cfg);
        for (i, v) in [1.0f32, -2.0, 4.0, 0.0].into_iter().enumerate() {
            local.set_word(npu_model::Space::Spm, 4 * i, v.to_bits()).expect("in range");
        }
        for (i, v) in [3.0f32, 1.0, -1.0, 2.0, 1.0, 1.0, 1.0, 1.0].into_iter().enumerate() {
            local.set_word(npu_model::Space::Spm, 3200 + 4 * i, v.to_bits()).expect("in range");
        }
        if matches!(function, VecFn::Xent | VecFn::Segsum) {
            let row_or_column = u32::from(function == VecFn::Xent);
            local.set_word(npu_model::Space::Spm, 3200, row_or_column).expect("in range");
        }
        for (i, v) in [0.5f32, 0.5, 0.5, 1.0, 0.0, 2.0, 4.0].into_iter().enumerate() {
            local.set_word(npu_model::Space::Spm, 9600 + 4 * i, v.to_bits()).expect("in range");
        }
        let mut table = [0; 512];
        table[2..4].copy_from_slice(&[0x00, 0x3C]);
        local.set_lut(3, &table);
        let c = changed(&format!("vec.{} y=100 d=200 cols=3 xf=fp32 yf=fp32", function.name()), fields);
        ops::execute(&c, &cfg, &mut local, None).unwrap_or_else(|f| panic!("{}: {f}", function.name()));
        for (i, e) in expected.iter().enumerate() {
            let got = local.word(npu_model::Space::Spm, 6400 + 4 * i).expect("in range");
            assert_eq!(got, *e, "{} word {i}: {got:#x}, not {e:#x}", function.name());
        }
    }
}

#[test]
fn formats_outside_the_capability_register_do_not_execute() {
    let mut cfg = config();
    let c = command("vec.add d=200 xf=bf16 yf=fp32 dfm=fp32");
    ops::check(&c, &cfg).expect("bf16 executes");
    cfg.formats &= !(1 << Format::Bf16.code());
    assert_eq!(ops::check(&c, &cfg).expect_err("not in CAP").code, FaultCode::NotInCap);
    // Claiming more than the engines can do does not make them do it.
    cfg.formats = u64::MAX;
    let c = command("vec.add d=200 xf=fp8e4m3 yf=fp32 dfm=fp32");
    assert_eq!(ops::check(&c, &cfg).expect_err("never").code, FaultCode::NotInCap);
}

use FaultCode::{BadCommand, BadOperand, LocalRange, NotInCap};

const GEMM: &str = "gemm m=3 n=15 k=15 af=fp16 bf=fp16 b=100 c=10";
const INT: &str = "gemm m=3 n=15 k=15 af=int8 bf=int8 b=100 c=10";
const GROUP: &str = "gemm m=3 n=15 k=15 af=fp16 bf=int4 b=100 c=10";
const DRAIN: &str = "gemm m=3 n=15 k=15 af=fp16 bf=fp16 cf=fp16 b=100 c=1000 csp=1 drain=1";
const ADD: &str = "vec.add y=100 d=200 rows=1 cols=15 xf=fp32 yf=fp32 dfm=fp32";
const STEP: &str = "vec.fa_step y=100 d=200 cols=15 xf=fp32 yf=fp32 dfm=fp16";
const SAMPLE: &str = "vec.sample y=100 d=200 cols=9 xf=fp32 yf=fp32 imm=1";
const TOPK: &str = "vec.topk d=200 cols=9 xf=fp32 imm=3";
const NORM: &str = "vec.layernorm y=100 d=200 cols=9 xf=fp32 yf=fp32 dfm=fp32";
const DGELU: &str = "vec.dgelu y=100 d=200 cols=9 xf=fp32 yf=fp32 dfm=fp32";
const DEQ: &str = "vec.deq y=100 d=200 cols=9 xf=int8 yf=fp32 dfm=fp32 imm=4";
const MOVE: &str = "vec.permute d=200 rows=5 cols=9 xf=fp32 dfm=fp32 imm=2";
const SEGSUM: &str = "vec.segsum y=100 d=200 cols=9 xf=fp32 yf=int32 dfm=fp32 imm=3";
const ROUTE: &str = "vec.route y=100 d=200 cols=9 xf=fp32 yf=int32 imm=2";
const ADAMW: &str = "vec.adamw y=100 d=200 cols=9 xf=fp32 yf=fp32 dfm=fp32 imm=300";
const XENT: &str = "vec.xent y=100 d=200 cols=9 xf=fp32 yf=int32 dfm=fp32";
const QDYN: &str = "vec.qdyn y=100 d=200 cols=63 xf=fp32 yf=fp32 dfm=int8 imm=3 stat=1";
const ROPE: &str = "vec.rope_half y=100 d=200 cols=15 xf=fp32 yf=fp32 dfm=fp32 imm=16";

/// A valid command, what is changed in it, and the fault that answers.
const FAULTS: &[(&str, &str, FaultCode, &str)] = &[
    (GEMM, "af=int2", NotInCap, "af: not a format of A"),
    (GEMM, "bf=int32", NotInCap, "bf: not a format of B"),
    (INT, "bf=fp16", BadOperand, "bf: an integer A needs an integer B, or in blocks a codebook"),
    (INT, "bf=codebook4 zpm=3", BadOperand, "bf: an integer A needs an integer B, or in blocks a codebook"),
    (GEMM, "zpm=3", BadOperand, "bf: codebook weights and zpm 3 need each other"),
    (GEMM, "bf=codebook4", BadOperand, "bf: codebook weights and zpm 3 need each other"),
    (GEMM, "zpm=1 grp=1", BadOperand, "zpm: zero points and minima need integer weights"),
    (GROUP, "zpm=1", BadOperand, "zpm: zero points need scales"),
    (GROUP, "zpm=1 grp=1 s=0xfffff", LocalRange, "B's scales leave the scratchpad"),
    (GROUP, "zpm=2", BadOperand, "zpm: minima need scale groups"),
    (GROUP, "zpm=2 grp=2 sf=3", BadOperand, "sf: a minimum has a sign, e8m0 has none"),
    (
        INT,
        "grp=2 s=108 zpm=2",
        BadOperand,
        "asum: minima need the sums of A's blocks, none longer than a group",
    ),
    (GEMM, "bf=mxfp4", BadOperand, "grp: microscaling weights have e8m0 scales by 32 rows"),
    (GEMM, "af=mxfp8", BadOperand, "ag: microscaling operands have e8m0 scales by 32"),
    (INT, "| epi ag=7", BadOperand, "ag: A's scales have one row each"),
    (INT, "| epi asum=1", BadOperand, "asum: there are no blocks to sum"),
    (GEMM, "| epi ag=2", BadOperand, "ag: floats of 16 and 32 bits have no block scales"),
    (INT, "| epi ag=2 asf=3 asum=1", BadOperand, "asf: a sum has a sign, e8m0 has none"),
    (INT, "| epi ag=2 as_=0xfffff", LocalRange, "A's scales leave the scratchpad"),
    (INT, "init=3", BadOperand, "init: integer accumulators are not rescaled"),
    (INT, "init=2 | epi bff=fp32", NotInCap, "bff: not a format of this bias"),
    (GEMM, "init=2", BadOperand, "init: there is no bias to start at"),
    (GEMM, "init=3 grp=1", BadOperand, "init: `s` cannot be both scales and row factors"),
    (GEMM, "init=3 s=0xfffff", LocalRange, "the row factors leave the scratchpad"),
    (GEMM, "sp24=1 tb=1", BadOperand, "sp24: a sparse B is not transposed"),
    (GEMM, "sp24=1 k=4", BadOperand, "sp24: K is no multiple of four"),
    (GEMM, "sp24=1 bst=1", BadOperand, "bst: a sparse B is packed"),
    (GEMM, "sp24=1 b=0x1fff", LocalRange, "B leaves the scratchpad"),
    (GROUP, "sp24=1 zpm=2 grp=2", BadOperand, "zpm: minima would fill a sparse B's zeros"),
    (GEMM, "grp=2", BadOperand, "grp: floats of 16 and 32 bits have no group scales"),
    (GROUP, "grp=2 bst=1", BadOperand, "bst: rows with scales in line are packed"),
    (GROUP, "grp=2 s=105", BadOperand, "s: scales do not lie right behind the first group's rows"),
    (GROUP, "grp=2 b=0xffff0 s=0xffff4", LocalRange, "B leaves the scratchpad"),
    (GROUP, "grp=7 s=0xfffff", LocalRange, "B's scales leave the scratchpad"),
    (GEMM, "keepb=1 n=16", BadOperand, "keepb: the array does not hold all of B"),
    (INT, "keepb=1 df=3", BadOperand, "keepb: only a weight-stationary array keeps B"),
    (INT, "keepb=1 ploadb=1", BadOperand, "keepb: a preload replaces what it would keep"),
    (INT, "ploadb=1 drain=1", BadOperand, "ploadb: a preload has nothing to drain"),
    (GEMM, "a=0xfffff", LocalRange, "A leaves the scratchpad"),
    (GEMM, "b=0xfffff", LocalRange, "B leaves the scratchpad"),
    (GEMM, "c=0xfffff", LocalRange, "the accumulators leave ACC"),
    (GEMM, "csp=1", BadOperand, "csp: without drain C is the accumulator"),
    (GEMM, "cst=1", BadOperand, "destination rows overlap: the stride is below a row"),
    (GEMM, "act=1", BadOperand, "drain: an epilogue runs only at drain"),
    (GEMM, "| epi ew=1", BadOperand, "drain: an epilogue runs only at drain"),
    (GEMM, "| epi bff=fp32", BadOperand, "drain: an epilogue runs only at drain"),
    (DRAIN, "act=12", BadCommand, "act"),
    (DRAIN, "c=0xfffff", LocalRange, "C leaves the scratchpad"),
    (DRAIN, "cf=mxfp8", NotInCap, "cf: not a format of C"),
    (DRAIN, "cf=int32", BadOperand, "cf: int32 is the untouched integer accumulator"),
    (DRAIN, "c=10 csp=0", BadOperand, "cf: results in the accumulator are 4 bytes wide"),
    (DRAIN, "grp=1 sf=2 s=0xfffff", LocalRange, "B's scales leave the scratchpad"),
    (DRAIN, "| epi osm=2 os=0xfffff", LocalRange, "output scales leave the scratchpad"),
    (DRAIN, "| epi amax=1 amaxa=0xfffff", LocalRange, "row maxima leave the scratchpad"),
    (DRAIN, "| epi ozp=1", BadOperand, "ozp: only integer results have a zero point"),
    (DRAIN, "| epi ag=1 asf=2 as_=0xfffff", LocalRange, "A's scales leave the scratchpad"),
    (DRAIN, "| epi bff=fp8e4m3", NotInCap, "bff: not a format of this bias"),
    (DRAIN, "| epi bff=fp32 bias=0xfffff", LocalRange, "the bias leaves the scratchpad"),
    (DRAIN, "| epi ew=7", BadCommand, "ew"),
    (DRAIN, "| epi ew=1 rf=int8", NotInCap, "rf: not a format of R"),
    (DRAIN, "| epi ew=1 rf=fp32 r=0xfffff", LocalRange, "R leaves its memory"),
    (DRAIN, "| epi aca=0xffff", LocalRange, "the accumulators leave ACC"),
    (ADD, "rnd=1", NotInCap, "rnd: only nearest even executes here"),
    (ADD, "stat=1", NotInCap, "stat: this function has no row statistics"),
    (NORM, "setp=1", NotInCap, "setp: this function does not write the predicate"),
    (ADD, "acc=1", NotInCap, "acc: this function approximates nothing"),
    (ADD, "mask=1", NotInCap, "mask: this function masks nothing"),
    (ADD, "upd=1", NotInCap, "upd: this function keeps no running result"),
    (ADD, "bc=4", NotInCap, "bc: there are no scalar registers"),
    (ADD, "bc=5", BadCommand, "bc"),
    (ADD, "xf=int8", NotInCap, "xf: not a format this function reads"),
    (ADD, "yf=int8", NotInCap, "yf: not a format this function reads"),
    (ADD, "dfm=int8", NotInCap, "dfm: not a format this function writes"),
    (ADD, "x=0xfffff", LocalRange, "x leaves its memory"),
    (ADD, "x=2047 xs=1", LocalRange, "x leaves its memory"),
    (ADD, "y=0xfffff", LocalRange, "y leaves its memory"),
    (ADD, "d=0xfffff", LocalRange, "d leaves its memory"),
    (ADD, "dst=1", BadOperand, "destination rows overlap: the stride is below a row"),
    (STEP, "", BadOperand, "this function needs the position extension"),
    (STEP, "mask=3 yst=4095 rows=99 | pos", LocalRange, "the mask's bits leave their memory"),
    (STEP, "ds=1 | pos", BadOperand, "ds: probabilities go to the scratchpad"),
    (STEP, "ys=1 | pos", BadOperand, "ys: running pairs lie in the scratchpad"),
    (STEP, "| pos alpha=0xfffff", LocalRange, "alpha leaves the SPM"),
    (ROPE, "imm=3 | pos", BadOperand, "imm: the head width must be even and not zero"),
    (ROPE, "imm=6 | pos", BadOperand, "cols: not a multiple of the head width in imm"),
    (QDYN, "imm=7", BadOperand, "imm: not a block of a row"),
    (QDYN, "yst=1 rows=1 cols=511 imm=2", BadOperand, "yst: rows of scales overlap"),
    ("vec.argmax xf=fp32 cols=9", "| pos k0=0xffffffff", BadOperand, "k0: indices pass 32 bits"),
    (SAMPLE, "| pos k0=0xffffffff", BadOperand, "k0: indices pass 32 bits"),
    (TOPK, "| pos k0=0xffffffff", BadOperand, "k0: indices reach the mark of an empty place"),
    (TOPK, "imm=0 | pos", BadOperand, "imm: k lies between 1 and 1024"),
    (TOPK, "imm=1025 | pos", BadOperand, "imm: k lies between 1 and 1024"),
    (TOPK, "", BadOperand, "this function needs the position extension"),
    (
        "vec.softmax xf=fp32 dfm=fp32 d=200 cols=9 mask=1",
        "",
        BadOperand,
        "this function needs the position extension",
    ),
    (
        "vec.softmax xf=fp32 dfm=fp32 d=200 cols=9 stat=1",
        "| pos alpha=0xfffff",
        LocalRange,
        "alpha leaves the SPM",
    ),
    (NORM, "bc=2", BadOperand, "bc: gain and bias (0) or the gain alone (1)"),
    (
        "vec.clamp xf=fp32 dfm=fp32 d=200",
        "bc=2",
        BadOperand,
        "bc: the limits are a row of two (1) or in imm (3)",
    ),
    (DGELU, "bc=3", BadOperand, "bc: imm selects the form of GELU here"),
    (DGELU, "imm=2", BadOperand, "imm: 0 is GELU's tanh form, 1 its erf form"),
    (DEQ, "imm=0", BadOperand, "imm: a group has at least one column"),
    (DEQ, "bc=4", NotInCap, "bc: there are no scalar registers"),
    (DEQ, "bc=5", BadCommand, "bc"),
    (DEQ, "xf=mxfp8", BadOperand, "imm: microscaling codes have a scale for every 32 (bc = 0)"),
    ("vec.lut y=100 d=200 xf=fp32 yf=fp32 dfm=fp32", "imm=16", BadOperand, "imm: table ids are 0 to 15"),
    (MOVE, "dfm=fp16", BadOperand, "dfm: elements keep their format"),
    (MOVE, "imm=4", BadOperand, "imm: the number of planes does not divide the rows"),
    (MOVE, "imm=0", BadOperand, "imm: the number of planes does not divide the rows"),
    (MOVE, "xf=int4 dfm=int4", NotInCap, "xf: not a format this function reads"),
    (SEGSUM, "imm=0", BadOperand, "imm: segments lie between 1 and 4096"),
    (SEGSUM, "imm=4097", BadOperand, "imm: segments lie between 1 and 4096"),
    (ROUTE, "imm=0", BadOperand, "imm: k lies between 1 and the experts, bit 8 restricts the weights"),
    (ROUTE, "imm=11", BadOperand, "imm: k lies between 1 and the experts, bit 8 restricts the weights"),
    (ROUTE, "imm=513", BadOperand, "imm: k lies between 1 and the experts, bit 8 restricts the weights"),
    (ROUTE, "yst=4095", LocalRange, "the experts' lists leave their memory"),
    (ADAMW, "imm=0xffffffff", LocalRange, "imm: the step's parameters leave the SPM"),
    (ADAMW, "rnd=1", NotInCap, "rnd: only nearest even executes here"),
    (ADAMW, "yst=1", BadOperand, "destination rows overlap: the stride is below a row"),
];

/// The valid command with some fields replaced.
fn changed(base: &str, change: &str) -> Command {
    let (fields, extension) = change.split_once('|').unwrap_or((change, ""));
    let name = |item: &str| item.split('=').next().unwrap_or_default().to_owned();
    let replaced: BTreeSet<String> = fields.split_whitespace().map(name).collect();
    let kept: Vec<&str> = base.split_whitespace().filter(|item| !replaced.contains(&name(item))).collect();
    let bar = if change.contains('|') { "|" } else { "" };
    command(&format!("{} {fields} {bar} {extension}", kept.join(" ")))
}

/// Faults no assembled command can reach.
fn unreachable_by_text() -> Vec<Fault> {
    let cfg = config();
    let mut out = Vec::new();
    let mut fault = |c: &Command, cfg| out.push(ops::check(c, cfg).expect_err("faults"));
    let mut gemm = command(GEMM);
    gemm.extension = Some(Extension::Index(Index::default()));
    fault(&gemm, &cfg);
    let mut add = command(ADD);
    add.extension = Some(Extension::Index(Index::default()));
    fault(&add, &cfg);
    let mut unknown = command(ADD);
    if let isa::npu::Body::Vec(v) = &mut unknown.body {
        v.func = 0xFF;
    }
    fault(&unknown, &cfg);
    let dma = command("dma");
    ops::check(&dma, &cfg).expect("not checked here");
    assert_eq!(ops::cost(&dma, &cfg), Ok(ops::Cost::default()));
    // What the array holds is known only when the command runs.
    let kept = changed(INT, "keepb=1");
    out.push(ops::execute(&kept, &cfg, &mut memories(&cfg), None).expect_err("nothing was loaded"));
    out.push(ops::execute(&dma, &cfg, &mut memories(&cfg), None).expect_err("not executed here"));
    out
}

#[test]
fn every_fault_is_reached_and_no_other_sentence_exists() {
    let cfg = config();
    for base in [GEMM, INT, GROUP, DRAIN, ADD, QDYN, NORM, DGELU, DEQ, MOVE, SEGSUM, ROUTE, ADAMW] {
        ops::check(&command(base), &cfg).unwrap_or_else(|f| panic!("{base}: {f}"));
    }
    for base in [STEP, ROPE, SAMPLE, TOPK, XENT] {
        ops::check(&changed(base, "| pos"), &cfg).unwrap_or_else(|f| panic!("{base}: {f}"));
    }
    let mut said = BTreeSet::new();
    for &(base, change, code, text) in FAULTS {
        let c = changed(base, change);
        let fault = ops::check(&c, &cfg).expect_err(change);
        assert_eq!((fault.code, fault.text), (code, text), "{base} {change}");
        let mut local = memories(&cfg);
        let before = local.clone();
        assert_eq!(ops::execute(&c, &cfg, &mut local, None), Err(fault), "execute checks too");
        assert_eq!(ops::cost(&c, &cfg), Err(fault), "cost checks too");
        assert_eq!(local, before, "a faulting command writes nothing");
        said.insert(text);
    }
    said.extend(unreachable_by_text().iter().map(|f| f.text));
    for source in SOURCES {
        for sentence in sentences(source) {
            assert!(said.contains(sentence.as_str()), "no test reaches `{sentence}`");
        }
    }
}

const SOURCES: &[&str] = &[
    include_str!("../src/ops/adamw.rs"),
    include_str!("../src/ops/approx.rs"),
    include_str!("../src/ops/argmax.rs"),
    include_str!("../src/ops/deq.rs"),
    include_str!("../src/ops/dnorm.rs"),
    include_str!("../src/ops/dsoftmax.rs"),
    include_str!("../src/ops/elementwise.rs"),
    include_str!("../src/ops/flash.rs"),
    include_str!("../src/ops/layernorm.rs"),
    include_str!("../src/ops/lut.rs"),
    include_str!("../src/ops/mask.rs"),
    include_str!("../src/ops/gemm/activation.rs"),
    include_str!("../src/ops/gemm/activations.rs"),
    include_str!("../src/ops/gemm/cost.rs"),
    include_str!("../src/ops/gemm/drain.rs"),
    include_str!("../src/ops/gemm/kernels.rs"),
    include_str!("../src/ops/gemm/mod.rs"),
    include_str!("../src/ops/gemm/rules.rs"),
    include_str!("../src/ops/gemm/run.rs"),
    include_str!("../src/ops/gemm/tile.rs"),
    include_str!("../src/ops/gemm/weights.rs"),
    include_str!("../src/ops/mod.rs"),
    include_str!("../src/ops/mxq.rs"),
    include_str!("../src/ops/operand.rs"),
    include_str!("../src/ops/qdyn.rs"),
    include_str!("../src/ops/random.rs"),
    include_str!("../src/ops/reduce.rs"),
    include_str!("../src/ops/rmsnorm.rs"),
    include_str!("../src/ops/rope.rs"),
    include_str!("../src/ops/route.rs"),
    include_str!("../src/ops/sample.rs"),
    include_str!("../src/ops/segsum.rs"),
    include_str!("../src/ops/shuffle.rs"),
    include_str!("../src/ops/softmax.rs"),
    include_str!("../src/ops/topk.rs"),
    include_str!("../src/ops/vector.rs"),
    include_str!("../src/ops/xent.rs"),
];

/// String literals of a source that are no comment, lint reason or assertion.
fn sentences(source: &str) -> impl Iterator<Item = String> {
    source
        .lines()
        .filter(|l| {
            let l = l.trim_start();
            !["//", "reason =", "const _", ".expect("].iter().any(|skipped| l.starts_with(skipped))
        })
        .flat_map(|l| l.split('"').skip(1).step_by(2))
        .map(str::to_owned)
}

/// Random words, and valid commands with a few bits flipped: whatever they are, they fault or execute.
#[test]
fn no_words_make_the_engines_panic() {
    let cfg = config();
    let mut local = memories(&cfg);
    let mut random = Random(7);
    let seeds: Vec<Vec<Word>> = [GEMM, INT, DRAIN, ADD, STEP, ROPE]
        .iter()
        .map(|s| format!("{s} {}", if [STEP, ROPE].contains(s) { "| pos" } else { "" }))
        .chain(["gemm n=15 k=31 af=fp16 bf=int4 b=100 s=104 grp=2".to_owned()])
        .chain(["gemm n=15 k=31 af=int8 bf=uint4 b=100 s=104 grp=2 zpm=2 | epi ag=2 asf=2 asum=1 as_=500"
            .to_owned()])
        .chain(
            ["gemm n=15 k=31 af=mxfp8 bf=mxfp4 b=100 s=108 grp=3 sf=3 | epi ag=3 asf=3 as_=500".to_owned()],
        )
        .chain(["gemm n=15 k=31 af=fp16 bf=codebook4 b=100 zpm=3 sp24=1 drain=1 | epi cb=3 osm=1 amax=1"
            .to_owned()])
        .chain(["gemm n=15 k=15 af=int8 bf=int8 b=100 keepb=1".to_owned()])
        .chain(["vec.qdyn y=100 d=200 cols=15 xf=fp32 yf=fp32 dfm=int8".to_owned()])
        .chain(["vec.rmsnorm y=100 d=200 cols=15 xf=fp32 yf=fp32 dfm=fp32".to_owned()])
        .chain(["vec.argmax xf=fp32 cols=9 | pos k0=9".to_owned()])
        .chain(["vec.fa_fin y=100 d=200 cols=9 xf=fp32 yf=fp32 dfm=fp32".to_owned()])
        .chain([NORM, DGELU, "vec.softmax xf=fp32 dfm=fp32 d=200 cols=9"].map(str::to_owned))
        .chain([DEQ, MOVE, SEGSUM, ROUTE, ADAMW].map(str::to_owned))
        .chain(
            ["vec.rsum d=200 cols=9 xf=fp32 dfm=fp32", "vec.mxq y=100 d=200 cols=9 xf=fp32 dfm=mxfp4"]
                .map(str::to_owned),
        )
        .chain(["vec.drmsnorm y=100 d=200 cols=9 xf=fp32 yf=fp32 dfm=fp32 | pos alpha=300".to_owned()])
        .chain([SAMPLE, TOPK, XENT].map(|s| format!("{s} | pos")))
        .map(|text| isa::npu::text::assemble(&text).unwrap_or_else(|e| panic!("{text}: {}", e.message)))
        .collect();
    let (mut decoded, mut executed) = (0u32, 0u32);
    for round in 0..100_000u32 {
        let words = if round % 4 == 0 {
            let mut word = || Word([random.next(), random.next(), random.next(), random.next()]);
            vec![word(), word()]
        } else {
            let choice = usize::try_from(random.below(seeds.len() as u64)).expect("small");
            let mut words = seeds[choice].clone();
            for _ in 0..=random.below(3) {
                let bit = random.below(256 * words.len() as u64);
                let (word, bit) = (usize::try_from(bit / 256).expect("small"), bit % 256);
                words[word].0[usize::try_from(bit / 64).expect("small")] ^= 1 << (bit % 64);
            }
            words
        };
        let Ok(c) = Command::decode(&words) else { continue };
        decoded += 1;
        let checked = ops::check(&c, &cfg);
        let cost = ops::cost(&c, &cfg);
        assert_eq!(cost.is_ok(), checked.is_ok());
        // Products of more than a million MACs take too long for what they would show.
        if cost.is_ok_and(|cost| cost.macs < 1 << 20 && cost.vector_ops < 1 << 20) {
            let outcome = ops::execute(&c, &cfg, &mut local, None);
            let elsewhere = !matches!(c.body, isa::npu::Body::Gemm(_) | isa::npu::Body::Vec(_));
            // Only execution knows what the array holds.
            let kept = matches!(c.body, isa::npu::Body::Gemm(g) if g.keepb == 1);
            assert!(elsewhere || kept || outcome.is_ok(), "checked, but {outcome:?}");
            executed += u32::from(outcome.is_ok());
        }
    }
    assert!(decoded > 10_000 && executed > 5_000, "{decoded} decoded, {executed} executed");
}
