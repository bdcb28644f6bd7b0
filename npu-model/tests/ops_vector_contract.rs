//! The contract of the vector engine: every function of the table, on random shapes and formats, leaves what
//! its reference does and nothing else; its cost lies at or above its bound, grows with its operands and has energy.

mod ops_common;
mod vector_cases;

use isa::npu::{Body, Command, VecFn};
use npu_model::{Activity, NpuConfig, ops};
use vector_cases::{Bench, Build, all};

fn seed(function: VecFn, build: usize, round: u64) -> u64 {
    (function.code() << 32 | (build as u64) << 24) + round
}

fn cases(function: VecFn) -> Vec<Build> {
    all().into_iter().filter(|c| c.0 == function).map(|c| c.1).collect()
}

#[test]
fn every_function_equals_its_reference() {
    for &function in VecFn::ALL {
        let cases = cases(function);
        assert!(!cases.is_empty(), "{} has no case", function.name());
        for (i, build) in cases.into_iter().enumerate() {
            for round in 0..120 {
                let mut bench = Bench::new(seed(function, i, round));
                let mut command = build(&mut bench);
                let Body::Vec(body) = &command.body else { panic!("a VEC command") };
                assert_eq!(body.func, function.code(), "the case is of the function it stands under");
                let (first, second) = command.encode();
                let text = isa::npu::text::disassemble(&command);
                let again = isa::npu::text::assemble(&text).expect("what is printed assembles");
                assert_eq!(again, [Some(first), second].into_iter().flatten().collect::<Vec<_>>(), "{text}");
                if round % 4 == 3 {
                    bench.x_to_accumulator(&mut command);
                }
                bench.check(&command, function.name());
            }
        }
    }
}

/// The command with other numbers of rows and columns.
fn resized(command: &Command, rows: u64, cols: u64) -> Command {
    let mut command = *command;
    let Body::Vec(body) = &mut command.body else { panic!("a VEC command") };
    (body.rows, body.cols) = (rows - 1, cols - 1);
    command
}

/// Energy of a command in any table whose rows are all positive.
fn energy(cost: &ops::Cost) -> u64 {
    let a = Activity::of_cost(cost);
    a.spm_read + a.spm_write + a.acc_read + a.acc_write + a.vector_ops + 10 * a.special_ops
}

#[test]
fn costs_lie_above_their_bounds_grow_and_have_energy() {
    for &function in VecFn::ALL {
        for (i, build) in cases(function).into_iter().enumerate() {
            for round in 0..8 {
                let name = function.name();
                let mut bench = Bench::sized(seed(function, i, round), 2, 16);
                let command = build(&mut bench);
                let Body::Vec(body) = &command.body else { panic!("a VEC command") };
                let (rows, cols) = (body.rows + 1, body.cols + 1);
                let mut cfg = bench.cfg;
                let of = |c: &Command, cfg: &NpuConfig| ops::cost(c, cfg);
                let small = of(&command, &cfg).expect("valid");
                let lanes = u64::from(cfg.vector_lanes);
                assert!(small.active_cycles >= (rows * cols).div_ceil(lanes), "{name} passes the lanes once");
                let account = Activity::of_cost(&small);
                assert!(account.vector_ops >= 1, "{name} does something");
                assert!(account.spm_read + account.acc_read > 0, "{name} reads");
                assert!(account.spm_write + account.acc_write > 0, "{name} writes");
                let mut grown = 0;
                for (more_rows, more_cols) in [(2 * rows, cols), (rows, 2 * cols), (2 * rows, 4 * cols)] {
                    // Limits of a case's other operands may forbid the larger shape; not all of them do.
                    let Ok(big) = of(&resized(&command, more_rows, more_cols), &cfg) else { continue };
                    assert!(big.cycles >= small.cycles, "{name}: more work takes no less time");
                    assert!(energy(&big) > energy(&small), "{name}: more work takes more energy");
                    grown += 1;
                }
                assert!(grown > 0, "{name} can grow");
                cfg.vector_lanes *= 4;
                let wide = of(&command, &cfg).expect("still valid");
                assert!(wide.active_cycles <= small.active_cycles, "{name}: more lanes take no longer");
                assert_eq!(energy(&wide), energy(&small), "{name}: lanes do not change what is done");
            }
        }
    }
}

#[test]
fn cheaper_accuracies_cost_no_more_and_others_do_not_take_the_field() {
    let mut takers = 0;
    for &function in VecFn::ALL {
        let build = cases(function)[0];
        let mut bench = Bench::sized(seed(function, 0, 0), 2, 64);
        let command = build(&mut bench);
        let with = |acc| {
            let mut command = command;
            let Body::Vec(body) = &mut command.body else { panic!("a VEC command") };
            body.acc = acc;
            ops::cost(&command, &bench.cfg)
        };
        let exact = with(0).expect("valid");
        match with(1) {
            Err(fault) => assert_eq!(fault.text, "acc: this function approximates nothing"),
            Ok(polynomial) => {
                takers += 1;
                let [fine, coarse] = [2, 3].map(|acc| with(acc).expect("valid"));
                // FA_FIN inverts once a row instead of dividing every element: one pass over the row values.
                let inverse = u64::from(function == VecFn::FaFin);
                assert!(polynomial.cycles <= exact.cycles + inverse, "{}", function.name());
                assert!(polynomial.special_ops <= exact.special_ops, "{}", function.name());
                assert!(fine.cycles <= polynomial.cycles, "{}", function.name());
                assert!(fine.special_ops < exact.special_ops, "{} looks up", function.name());
                assert_eq!(fine, coarse, "the size of a table is not its time");
            }
        }
    }
    assert_eq!(takers, 23, "functions with special functions inside");
}

/// Passes over the lanes, row passes, cycles no lane shares, and whether rows are reduced, for 3 rows of 40.
const COSTS: &[(VecFn, &str, [u64; 3], bool)] = &[
    (VecFn::Cvt, "", [1, 0, 0], false),
    (VecFn::Add, "", [1, 0, 0], false),
    (VecFn::Sub, "", [1, 0, 0], false),
    (VecFn::Mul, "", [1, 0, 0], false),
    (VecFn::Div, "", [2, 0, 0], false),
    (VecFn::Max, "", [1, 0, 0], false),
    (VecFn::Min, "", [1, 0, 0], false),
    (VecFn::Fma, "", [2, 0, 0], false),
    (VecFn::Abs, "", [1, 0, 0], false),
    (VecFn::Neg, "", [1, 0, 0], false),
    (VecFn::Clamp, "bc=3", [2, 0, 0], false),
    (VecFn::Cmp, "", [1, 0, 0], false),
    (VecFn::Select, "", [1, 0, 0], false),
    (VecFn::Relu, "", [1, 0, 0], false),
    (VecFn::GeluT, "", [12, 0, 0], false),
    (VecFn::GeluT, "acc=2", [2, 0, 0], false),
    (VecFn::GeluE, "", [4, 0, 0], false),
    (VecFn::Silu, "", [3, 0, 0], false),
    (VecFn::Silu, "acc=3", [2, 0, 0], false),
    (VecFn::Sigmoid, "", [2, 0, 0], false),
    (VecFn::Sigmoid, "acc=2", [1, 0, 0], false),
    (VecFn::Tanh, "", [4, 0, 0], false),
    (VecFn::Tanh, "acc=2", [1, 0, 0], false),
    (VecFn::Exp, "", [1, 0, 0], false),
    (VecFn::Log, "", [1, 0, 0], false),
    (VecFn::Rsqrt, "", [2, 0, 0], false),
    (VecFn::Rsqrt, "acc=1", [1, 0, 0], false),
    (VecFn::Recip, "", [1, 0, 0], false),
    (VecFn::Lut, "", [3, 0, 0], false),
    (VecFn::Lut, "xf=int8", [1, 0, 0], false),
    (VecFn::Swiglu, "", [4, 0, 0], false),
    (VecFn::Geglu, "", [13, 0, 0], false),
    (VecFn::Geglu, "imm=1", [5, 0, 0], false),
    (VecFn::Reglu, "", [2, 0, 0], false),
    (VecFn::Rsum, "", [1, 0, 0], true),
    (VecFn::Rsum, "upd=1", [1, 1, 0], true),
    (VecFn::Rmax, "", [1, 0, 0], true),
    (VecFn::Rabsmax, "", [1, 0, 0], true),
    (VecFn::Rsumsq, "", [1, 0, 0], true),
    (VecFn::Cumsum, "", [2, 0, 0], true),
    (VecFn::Rmsnorm, "", [3, 3, 0], true),
    (VecFn::Layernorm, "", [6, 5, 0], true),
    (VecFn::Layernorm, "bc=1", [5, 5, 0], true),
    (VecFn::Softmax, "", [3, 1, 0], true),
    (VecFn::Softmax, "| pos cap=1", [9, 1, 0], true),
    (VecFn::FaStep, "dfm=fp16 | pos", [2, 3, 0], true),
    (VecFn::FaStep, "dfm=fp16 | pos cap=1", [8, 3, 0], true),
    (VecFn::FaStep, "dfm=fp16 acc=2 | pos cap=1", [5, 3, 0], true),
    (VecFn::FaFin, "", [1, 0, 0], false),
    (VecFn::FaFin, "acc=2", [1, 1, 0], false),
    (VecFn::Softcap, "", [6, 0, 0], false),
    // Two passes over 20 angles a row beside the three over the row.
    (VecFn::RopeHalf, "imm=40 | pos", [3, 0, 12], false),
    (VecFn::RopeInter, "imm=40 | pos", [3, 0, 12], false),
    (VecFn::Qdyn, "dfm=int8", [2, 2, 0], true),
    (VecFn::Deq, "xf=int8 imm=8", [1, 0, 0], false),
    (VecFn::Mxq, "dfm=mxfp8", [2, 0, 0], true),
    (VecFn::Transpose, "", [2, 0, 0], false),
    (VecFn::Permute, "imm=3", [1, 0, 0], false),
    (VecFn::Pad, "imm=4", [1, 0, 0], false),
    (VecFn::Argmax, "| pos", [1, 1, 0], true),
    (VecFn::Topk, "imm=5 | pos", [1, 0, 15], true),
    (VecFn::Sample, "| pos", [2, 2, 120], true),
    (VecFn::Route, "yf=int32 imm=2", [2, 3, 6], true),
    // Four rows of sums beside the three.
    (VecFn::Segsum, "yf=int32 imm=4", [1, 0, 12], false),
    (VecFn::Dsoftmax, "", [4, 0, 0], true),
    (VecFn::Drmsnorm, "| pos", [9, 5, 0], true),
    (VecFn::Dlayernorm, "| pos", [13, 7, 0], true),
    (VecFn::Dsilu, "", [7, 0, 0], false),
    (VecFn::Dgelu, "", [18, 0, 0], false),
    (VecFn::Xent, "yf=int32 | pos", [4, 4, 0], true),
    (VecFn::Adamw, "imm=300", [15, 0, 0], false),
];

#[test]
fn costs_follow_the_closed_form_of_each_function() {
    let cfg = ops_common::config();
    let start = 5 + 4 + 1; // scratchpad read, ALU stages, write
    let tree = 4 * 4; // log2 of 16 lanes, stages each
    for &(function, fields, [passes, row_passes, serial], reduces) in COSTS {
        let text = format!("vec.{} y=1000 d=2000 rows=2 cols=39", function.name());
        let given = |field: &str| fields.contains(field);
        let default =
            |field: &str| if given(&format!("{field}=")) { String::new() } else { format!("{field}=fp32") };
        let c = ops_common::command(&format!(
            "{text} {} {} {} {fields}",
            default("xf"),
            default("yf"),
            default("dfm")
        ));
        let cost = ops::cost(&c, &cfg).unwrap_or_else(|f| panic!("{f}: {text} {fields}"));
        // 40 columns are three vectors of 16 lanes; 3 row values are one.
        let active = 3 * 3 * passes + row_passes + serial;
        let tree = if reduces { tree } else { 0 };
        assert_eq!(
            (cost.active_cycles, cost.drain_cycles, cost.cycles),
            (active, tree, start + active + tree),
            "{text} {fields}"
        );
    }
    for &function in VecFn::ALL {
        assert!(COSTS.iter().any(|c| c.0 == function), "{} has no closed form", function.name());
    }
}

/// The set of columns a command names, in the order it names them.
fn words(local: &npu_model::Local, at: usize, n: usize) -> Vec<u32> {
    (0..n).map(|i| local.word(npu_model::Space::Spm, at + 4 * i).expect("in range")).collect()
}

#[test]
fn draws_are_as_frequent_as_their_probabilities() {
    let cfg = ops_common::config();
    let mut local = ops_common::memories(&cfg);
    let logits = [1.0f32, 0.0, 2.0, -1.0];
    for (i, v) in logits.into_iter().enumerate() {
        local.set_word(npu_model::Space::Spm, 4 * i, v.to_bits()).expect("in range");
    }
    for (i, w) in [0.5f32.to_bits(), 1f32.to_bits(), 0, 0, 77, 0].into_iter().enumerate() {
        local.set_word(npu_model::Space::Spm, 3200 + 4 * i, w).expect("in range");
    }
    let mut counts = [0u32; 4];
    let n = 20_000;
    for position in 0..n {
        let c = format!("vec.sample y=100 d=200 cols=3 xf=fp32 yf=fp32 | pos q0={position}");
        ops::execute(&ops_common::command(&c), &cfg, &mut local, None).expect("valid");
        let index = words(&local, 6400, 1)[0];
        counts[usize::try_from(index).expect("small")] += 1;
    }
    let e = logits.map(|v| f64::from(v / 0.5).exp());
    let sum: f64 = e.iter().sum();
    for (count, e) in counts.into_iter().zip(e) {
        let p = e / sum;
        let deviation = (p * (1.0 - p) * f64::from(n)).sqrt();
        assert!((f64::from(count) - p * f64::from(n)).abs() < 4.0 * deviation, "{counts:?}");
    }
}

#[test]
fn a_shape_only_run_gives_the_id_of_the_position() {
    let cfg = ops_common::config();
    let mut local = ops_common::memories(&cfg);
    let ids = |position: u64| if position == 7 { 130 } else { 5 };
    let mut execute = |text: &str, n| {
        ops::execute(&ops_common::command(text), &cfg, &mut local, Some(&ids)).expect("valid");
        words(&local, 6400, n)
    };
    let one = 1f32.to_bits();
    let (empty, nothing) = (u32::MAX, f32::NEG_INFINITY.to_bits());
    let top = "vec.topk d=200 cols=99 xf=fp32 imm=3";
    assert_eq!(execute(&format!("{top} | pos q0=7"), 6), [0, 0, empty, nothing, empty, nothing]);
    assert_eq!(execute(&format!("{top} upd=1 | pos q0=7 k0=100"), 6), [130, one, 0, 0, empty, nothing]);
    assert_eq!(execute(&format!("{top} upd=1 | pos q0=7 k0=200"), 6), [130, one, 0, 0, 200, 0]);
    let sample = "vec.sample x=300 y=100 d=200 xf=int32 yf=fp32 cols=2 | pos";
    assert_eq!(execute(&format!("{sample} q0=7"), 4), [130, one, 0, 0]);
    assert_eq!(execute(&format!("{sample} q0=8"), 4), [5, one, 0, 0]);
}

#[test]
fn the_predicate_says_whether_any_result_is_not_zero() {
    let cfg = ops_common::config();
    let mut local = ops_common::memories(&cfg);
    for (i, v) in [0.0f32, -0.0, 2.0, 0.0].into_iter().enumerate() {
        local.set_word(npu_model::Space::Spm, 4 * i, v.to_bits()).expect("in range");
    }
    let mut after = |text: &str| {
        ops::execute(&ops_common::command(text), &cfg, &mut local, None).expect("valid");
        local.predicate
    };
    assert!(after("vec.cvt d=200 cols=2 xf=fp32 dfm=fp32 setp=1"));
    assert!(after("vec.cvt d=200 cols=1 xf=fp32 dfm=fp32"), "without setp it stays");
    assert!(!after("vec.cvt d=200 cols=1 xf=fp32 dfm=fp32 setp=1"));
    assert!(after("vec.rmax d=200 cols=3 xf=fp32 dfm=fp32 setp=1"));
    assert!(!after("vec.rsum d=200 cols=1 xf=fp32 dfm=fp32 setp=1"));
    assert!(after("vec.cumsum d=200 cols=3 xf=fp32 dfm=fp32 setp=1"));
    assert!(!after("vec.cmp d=200 cols=3 xf=fp32 dfm=fp32 bc=3 imm=0x40a00000 setp=1"), "nothing equals 5");
}
