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
fn every_executed_function_equals_its_reference() {
    for &function in VecFn::ALL {
        let cases = cases(function);
        assert!(!cases.is_empty(), "{} has no case", function.name());
        for (i, build) in cases.into_iter().enumerate() {
            for round in 0..120 {
                let mut bench = Bench::new(seed(function, i, round));
                let command = build(&mut bench);
                let Body::Vec(body) = &command.body else { panic!("a VEC command") };
                assert_eq!(body.func, function.code(), "the case is of the function it stands under");
                bench.check(&command, function.name());
            }
        }
    }
}

fn cost(build: Build, seed: u64, rows: usize, cols: usize) -> (Command, ops::Cost, NpuConfig) {
    let mut bench = Bench::sized(seed, rows, cols);
    let command = build(&mut bench);
    let cost = ops::cost(&command, &bench.cfg).unwrap_or_else(|f| panic!("{f}: {command:?}"));
    (command, cost, bench.cfg)
}

#[test]
fn costs_lie_above_their_bounds_grow_and_have_energy() {
    for &function in VecFn::ALL {
        for (i, build) in cases(function).into_iter().enumerate() {
            for round in 0..8 {
                let seed = seed(function, i, round);
                let name = function.name();
                // The same seed draws the same fields, whatever the shape, up to where operands are filled.
                let of = |rows, cols| cost(build, seed, rows, cols);
                let (command, small, mut cfg) = of(2, 16);
                let lanes = u64::from(cfg.vector_lanes);
                assert!(small.active_cycles >= (2 * 16u64).div_ceil(lanes), "{name} passes the lanes once");
                assert_eq!(
                    small.cycles,
                    small.start_cycles + small.fill_cycles + small.active_cycles + small.drain_cycles
                );
                let account = Activity::of_cost(&small);
                assert!(account.vector_ops >= 1, "{name} does something");
                assert!(account.spm_read + account.acc_read > 0, "{name} reads");
                assert!(account.spm_write + account.acc_write > 0, "{name} writes");
                cfg.vector_lanes *= 4;
                let wide = ops::cost(&command, &cfg).expect("still valid");
                assert!(wide.active_cycles <= small.active_cycles, "{name}: more lanes take no longer");
                assert_eq!(wide.spm_read_bytes, small.spm_read_bytes, "{name}: lanes do not change traffic");
            }
        }
    }
}
