//! Engines that share scratchpad banks and accumulator ports slow each other by what is not served.

mod queue_common;

use npu_model::{Cause, LocalPorts, NpuConfig, ops};
use queue_common::{Setup, Timed, config};

fn with(banks: u32, bank_bytes_per_cycle: u32, accumulator_ports: u32) -> NpuConfig {
    NpuConfig { ports: LocalPorts { banks, bank_bytes_per_cycle, accumulator_ports }, ..config() }
}

/// Cycles of an engine of core 0 by cause, after `ring` has run.
fn spent(cfg: &NpuConfig, ring: &str, engine: &str, cause: Cause) -> u64 {
    let mut t = Timed::with(cfg.clone(), &Setup::default().ring(0, 0, ring));
    t.run();
    let meters = t.cluster.meters(t.now);
    meters.iter().find(|m| m.0 == 0 && m.1 == engine).expect("an engine").2.spent()[cause as usize]
}

const VEC: &str = "vec.add x=0 y=512 d=1024 xf=fp32 yf=fp32 dfm=fp32 rows=15 cols=255";

#[test]
fn one_engine_alone_is_bound_by_what_the_banks_serve() {
    let command =
        isa::npu::Command::decode(&isa::npu::text::assemble(VEC).expect("assembles")).expect("decodes");
    let cost = ops::cost(&command, &config()).expect("executes");
    let bytes = cost.spm_read_bytes + cost.spm_write_bytes;
    assert!(bytes / cost.cycles > 64, "{bytes} bytes in {} cycles", cost.cycles);
    for (banks, width) in [(4, 16), (2, 16), (1, 8)] {
        let lost = spent(&with(banks, width, 1), VEC, "vp", Cause::BankConflict);
        // All bytes at the banks' rate take this long.
        let all = bytes / u64::from(banks * width);
        let expected = all - cost.cycles;
        assert!(lost.abs_diff(expected) <= 1 + all / 200, "{banks} banks of {width}: {lost}, not {expected}");
    }
    assert_eq!(spent(&with(16, 64, 1), VEC, "vp", Cause::BankConflict), 0, "wide enough");
    assert_eq!(spent(&config(), VEC, "vp", Cause::BankConflict), 0, "ideal");
}

#[test]
fn engines_together_lose_what_neither_loses_alone() {
    let gemm = "gemm a=0 b=64 c=0 m=255 n=7 k=7 af=int8 bf=int8 cf=int32";
    let load = "dma ch=1 region=1 saddr=1500 n0=1023";
    let narrow = with(8, 16, 2);
    for (alone, engine) in [(gemm, "mx"), (VEC, "vp")] {
        assert_eq!(spent(&narrow, alone, engine, Cause::BankConflict), 0, "{alone}");
    }
    let together = format!("{gemm}\n{VEC}\n{load}");
    let lost: Vec<u64> =
        ["mx", "vp"].iter().map(|e| spent(&narrow, &together, e, Cause::BankConflict)).collect();
    assert!(lost.iter().any(|n| *n > 0), "{lost:?}");
    // Monotone: fewer banks, more lost; what an engine does stays what it is.
    let fewer: Vec<u64> =
        ["mx", "vp"].iter().map(|e| spent(&with(4, 16, 2), &together, e, Cause::BankConflict)).collect();
    assert!(fewer[1] > lost[1], "{fewer:?} against {lost:?}");
    for engine in ["mx", "vp"] {
        let active = |cfg| spent(cfg, &together, engine, Cause::Active);
        assert_eq!(active(&narrow), active(&config()), "{engine}");
    }
}

#[test]
fn accumulator_ports_are_shared() {
    let gemm = "gemm a=0 b=64 c=0 m=255 n=7 k=7 af=int8 bf=int8 cf=int32 init=1";
    let vec = "vec.cvt x=256 xs=1 xf=fp32 d=300 ds=1 dfm=fp32 rows=15 cols=15";
    let together = format!("{gemm}\n{vec}\n{vec}\n{vec}\n{vec}");
    let lost = |ports| spent(&with(64, 256, ports), &together, "mx", Cause::BankConflict);
    assert!(lost(1) > 0, "one port is not enough for both");
    assert_eq!(lost(8), 0);
}
