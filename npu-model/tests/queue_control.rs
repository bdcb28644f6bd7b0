//! Every control operation, without time and in time.

mod queue_common;

use isa::npu::CtrlOp;
use isa::npu::registers as reg;
use isa::npu::registers::{FaultCode, QUEUE_STRIDE, completion, irq, state};
use npu_model::Cause;
use queue_common::{DATA, Setup, Timed, Untimed, both, records};
use sim_kernel::Time;

/// Stores 64 bytes of scratchpad from granule 0 to region 1 + 0x1000.
const OUT: &str = "dma dir=1 ch=2 region=1 moff=0x1000 n0=15";

fn bytes(n: u8) -> Vec<u8> {
    (0..=255).map(|i: u8| i.wrapping_mul(7).wrapping_add(n)).collect()
}

#[test]
fn cap_lists_every_control_operation() {
    let u = Untimed::new(&Setup::default(), 0);
    let all = CtrlOp::ALL.iter().fold(0, |bits, op| bits | 1 << op.code());
    assert_eq!(u.load(0, reg::CAP_CTRL), all);
    assert_eq!(u.load(1, 3 * QUEUE_STRIDE + reg::CAP_QUEUES), 4);
}

#[test]
fn loops_generate_addresses() {
    let list = "
        ctrl.setr id=16 imm=2
        ctrl.loop id=1 | agu lp=1 areg=0
        ctrl.loop id=0 cnt=2
        dma region=1 moff=0x100 saddr=3 n0=1 s0_id=1 s0_n=1 | agu lp=0 ia=0xFFFFFFFF im=64
        ctrl.endl id=0
        ctrl.wrmem region=1 moff=0x2000 imm=5 | agu lp=1 im=8
        ctrl.endl id=1
        ctrl.nop w0_id=1 w0_n=4
        dma dir=1 ch=2 region=1 moff=0x1000 saddr=2 n0=3
        ctrl.ret";
    let setup = Setup::default().ring(0, 0, "ctrl.call").list(0, list).data(0x100, &bytes(3));
    let (_, t) = both(&setup);
    let source = bytes(3);
    let at = |o: u64| usize::try_from(DATA - queue_common::BASE + o).unwrap();
    let out = &t.chip.ram.0[at(0x1000)..at(0x1040)];
    assert_eq!(&out[..32], &source[64..96], "trip 1 went one granule down");
    assert_eq!(&out[32..], &source[..32], "trip 0");
    assert_eq!((t.chip.ram.word(DATA + 0x2000), t.chip.ram.word(DATA + 0x2008)), (5, 5));
    assert_eq!(t.chip.ram.word(DATA + 0x2010), 0);
}

#[test]
fn every_engine_takes_generated_addresses() {
    // C = A B by tiles of 8 columns of B: b and c move; then y = C + C row by row.
    let list = "
        dma region=1 moff=0 saddr=0 n0=15 s0_id=1 s0_n=1
        ctrl.nop w0_id=1 w0_n=1
        ctrl.loop id=2 cnt=3
        gemm a=0 b=2 c=0 m=1 n=7 k=7 af=int8 bf=int8 cf=int32 | agu lp=2 ib=1 ic=2
        ctrl.endl id=2
        ctrl.fence emask=63
        ctrl.loop id=0 cnt=3
        vec.cvt x=0 xs=1 xf=int32 d=64 dfm=fp32 rows=1 cols=7 | agu lp=0 ia=2 ic=2
        ctrl.endl id=0
        ctrl.fence emask=63
        dma dir=1 ch=2 region=1 moff=0x1000 saddr=64 n0=11
        ctrl.ret";
    let setup = Setup::default().ring(0, 0, "ctrl.call").list(0, list).data(0, &bytes(1));
    let (_, t) = both(&setup);
    let source = bytes(1);
    let value = |i: usize| i64::from(i8::from_le_bytes([source[i]]));
    for (tile, row, col) in [(0, 0, 0), (1, 1, 3), (2, 1, 7), (2, 0, 5)] {
        let expected: i64 = (0..8).map(|k| value(row * 8 + k) * value(64 + 32 * tile + k * 8 + col)).sum();
        let at = DATA + 0x1000 + (tile * 64 + row * 32 + col * 4) as u64;
        let word = u32::try_from(t.chip.ram.word(at & !7) >> (8 * (at & 7)) & 0xFFFF_FFFF).unwrap();
        assert_eq!(f32::from_bits(word), expected as f32, "tile {tile} row {row} column {col}");
    }
}

#[test]
fn predicates_skip_operations_but_not_waits_and_posts() {
    let list = "
        ctrl.setr id=17 imm=9
        ctrl.setp id=1 mode=2 imm=9
        dma dir=3 saddr=0 n0=15 pred=1 s0_id=3 s0_n=1
        ctrl.wrmem region=1 moff=0 imm=1 pred=1 w0_id=3 w0_n=1 s0_id=4 s0_n=2
        ctrl.wrmem region=1 moff=8 imm=2 w0_id=4 w0_n=2
        ctrl.jump mode=0 moff=0x400
        ctrl.setp id=1 mode=3 imm=9
        ctrl.jump moff=0x400
        ctrl.wrmem region=1 moff=16 imm=3
        ctrl.ret";
    let taken = "ctrl.wrmem region=1 moff=24 imm=4 pred=1\nctrl.ret";
    let setup = Setup::default()
        .ring(0, 0, &format!("dma region=1 moff=0x100 n0=15\nctrl.fence emask=63\nctrl.call\n{OUT}"))
        .list(0, list)
        .list(0x400, taken)
        .data(0x100, &bytes(9));
    let (_, t) = both(&setup);
    let words: Vec<u64> = (0..4).map(|i| t.chip.ram.word(DATA + 8 * i)).collect();
    assert_eq!(words, [0, 2, 0, 4]);
    assert_eq!(t.chip.ram.word(DATA + 0x1000).to_le_bytes(), bytes(9)[..8], "the fill was skipped");
}

#[test]
fn scalar_registers_and_predicates_count() {
    // A loop made of JUMP: five rounds.
    let body = "
        ctrl.setr id=16 mode=1 imm=1
        ctrl.wrmem mode=2 id=0 region=1 moff=0
        ctrl.setr id=18 mode=2 cnt=0
        ctrl.setp id=2 mode=1 imm=5
        ctrl.jump
        ctrl.setp mode=6
        ctrl.wrmem mode=1 region=1 moff=12 imm=0xABCD pred=1
        ctrl.setp mode=5
        ctrl.wrmem region=1 moff=16 imm=1 pred=1
        ctrl.setp mode=4
        ctrl.wrmem region=1 moff=24 imm=1 pred=1
        ctrl.ret";
    let (u, t) = both(&Setup::default().ring(0, 0, "ctrl.call").list(0, body));
    assert_eq!(t.chip.ram.word(DATA), 5);
    assert_eq!(t.chip.ram.word(DATA + 8), 0xABCD << 32, "P was 0 after the last round, then inverted");
    assert_eq!((t.chip.ram.word(DATA + 16), t.chip.ram.word(DATA + 24)), (0, 1));
    assert_eq!(u.load(0, reg::SREG0 + 16), 5);
    assert_eq!(u.load(0, reg::PREDICATE), 1);
}

#[test]
fn tables_are_loaded() {
    let setup = Setup::default()
        .ring(1, 0, "ctrl.lutld id=5 region=1 moff=0x200")
        .data(0x200, &[bytes(1), bytes(2)].concat());
    let (u, t) = both(&setup);
    let all = [bytes(1), bytes(2)].concat();
    for local in [&u.cores.cores[1].local, &t.cluster.cores.cores[1].local] {
        assert_eq!(local.lut_bytes(5).to_vec(), all);
        assert_eq!(local.lut(4), &[0; 256]);
    }
    assert!(t.cluster.total().memory_read >= 512);
}

#[test]
fn cores_wait_for_memory_and_write_it() {
    let setup = Setup::default()
        .ring(0, 0, "ctrl.waitmem region=1 moff=0 mode=2 imm=7 cnt=100\nctrl.wrmem region=1 moff=8 imm=1")
        .ring(1, 0, "dma dir=3 n0=15\nctrl.fence emask=63\nctrl.wrmem region=1 moff=0 imm=9");
    let (_, t) = both(&setup);
    assert_eq!(t.chip.ram.word(DATA + 8), 1);
    let waiting = Setup::default().ring(0, 0, "ctrl.waitmem region=1 moff=0 mode=3 imm=7 cnt=3");
    let (u, t) = both(&waiting);
    assert_eq!(u.load(0, reg::FAULT), FaultCode::Timeout.code());
    assert!(t.now > Time::from_ns(3000) && t.now < Time::from_ns(5000), "3 us, then the fault: {:?}", t.now);
    let met = Setup::default().ring(
        0,
        0,
        "ctrl.waitmem region=1 moff=0 mode=1 imm=1\nctrl.waitmem region=1 moff=0 imm=0",
    );
    assert!(both(&met).1.cluster.quiescent());
}

#[test]
fn barriers_hold_until_all_have_come() {
    let setup = Setup::default()
        .ring(
            0,
            0,
            "dma region=1 moff=0 saddr=0 n0=1023\nctrl.fence emask=63\nctrl.wrmem region=1 moff=0x1F000 imm=1\n\
             ctrl.barrier cmask=3 id=60\nctrl.barrier cmask=3 id=60\nctrl.wrmem region=1 moff=0x1F008 imm=2",
        )
        .ring(1, 0, "ctrl.barrier cmask=3 id=60\nctrl.waitmem region=1 moff=0x1F000 imm=1 cnt=1\nctrl.barrier cmask=3 id=60");
    let (u, t) = both(&setup);
    assert_eq!(u.load(1, reg::SEM0 + 8 * 60), 0, "every arrival was taken");
    let waited = |core: usize| {
        let meters = t.cluster.meters(t.now);
        meters.iter().find(|m| m.0 == core && m.1 == "sq").unwrap().2.spent()[Cause::Imbalance as usize]
    };
    assert!(waited(1) > 500, "core 1 waits for core 0's load: {}", waited(1));
    let alone = Setup::default().ring(0, 0, "ctrl.barrier cmask=1 id=50");
    assert!(both(&alone).1.cluster.quiescent());
}

#[test]
fn semaphores_are_posted_to_chosen_cores() {
    let setup = Setup::default().ring(0, 0, "ctrl.sem mode=1 cmask=2 id=50 cnt=3").ring(
        1,
        0,
        "ctrl.sem mode=2 id=50 cnt=3",
    );
    let (u, t) = both(&setup);
    assert_eq!((u.load(0, reg::SEM0 + 400), u.load(1, reg::SEM0 + 400)), (0, 3));
    assert_eq!((t.load(0, reg::SEM0 + 400), t.load(1, reg::SEM0 + 400)), (0, 3));
}

#[test]
fn counters_are_written_to_memory() {
    use isa::npu::pmu::PmuEvent;
    let ring =
        format!("dma region=1 n0=63\n{OUT}\nctrl.fence emask=63\nctrl.pmu_rd region=1 moff=0x400 imm=13");
    let mut setup = Setup::default().ring(0, 0, &ring);
    let commands = PmuEvent::Commands.code();
    for (i, select) in [commands, 0, commands | 6 << 8, PmuEvent::PortBeats.code()].iter().enumerate() {
        setup = setup.register(0, reg::PMU_SEL0 + 8 * i as u64, *select);
    }
    let mut u = Untimed::new(&setup, 1);
    u.run().unwrap();
    assert_eq!(
        [0, 8].map(|o| u.ram.word(DATA + 0x400 + o)),
        [1, 3],
        "one load, three commands before PMU_RD"
    );
    let mut t = Timed::new(&setup);
    t.run();
    assert_eq!([0, 8, 16].map(|o| t.chip.ram.word(DATA + 0x400 + o)), [1, 3, 32]);
    assert_eq!(t.load(0, reg::PMU0 + 16), 4, "and PMU_RD itself");
}

#[test]
fn every_pmu_event_reads() {
    use isa::npu::pmu::{PmuEvent, UNITS};
    let ring = format!("dma region=1 n0=1023\ndma region=1 n0=0\nctrl.irq\n{OUT}");
    let mut t = Timed::new(&Setup::default().ring(0, 0, &ring));
    t.run();
    let total: u64 = (0..UNITS).map(|u| t.cluster.raw(t.now, 0, PmuEvent::Active.code() | u << 8)).sum();
    assert!(total > 0);
    for event in PmuEvent::ALL {
        for unit in 0..UNITS {
            assert!(
                t.cluster.store(t.now, 0, reg::PMU_SEL0, event.code() | unit << 8, &mut t.chip),
                "{event:?}"
            );
            assert_eq!(t.load(0, reg::PMU0), 0, "{event:?} starts at 0");
        }
    }
    let raw = |e: PmuEvent, unit: u64| t.cluster.raw(t.now, 0, e.code() | unit << 8);
    assert_eq!((raw(PmuEvent::PortAccepted, 0), raw(PmuEvent::PortCompleted, 0)), (2, 2));
    assert_eq!(raw(PmuEvent::PortBeats, 0), 513);
    let histogram = PmuEvent::ALL.iter().filter(|e| e.name().starts_with("latency"));
    assert_eq!(histogram.map(|e| raw(*e, 0)).sum::<u64>(), 2);
    assert_eq!((raw(PmuEvent::Latency128, 0), raw(PmuEvent::Latency1024, 0)), (1, 1));
    assert_eq!((raw(PmuEvent::Retired, 0), raw(PmuEvent::Cycles, 0)), (1, t.now.as_ns()));
    assert!(!t.cluster.store(t.now, 0, reg::PMU_SEL0, 0xFF, &mut t.chip), "no such event");
}

#[test]
fn contexts_are_saved_and_restored_by_command() {
    let list = format!(
        "
        dma region=1 n0=15
        ctrl.setr id=20 imm=77
        ctrl.lutld id=2 region=1 moff=0
        ctrl.save region=2
        dma dir=3 n0=15
        ctrl.lutld id=2 region=1 moff=0x200
        ctrl.setr id=20 imm=1
        ctrl.fence emask=63
        ctrl.restore region=2
        ctrl.wrmem mode=2 id=4 region=1 moff=0x800
        {OUT}
        ctrl.ret"
    );
    let area = queue_common::area(0, 0);
    let setup = Setup::default()
        .ring(0, 0, &format!("ctrl.setr id=2 imm={area} moff=0x20000\nctrl.call"))
        .list(0, &list)
        .data(0, &[bytes(4), bytes(5)].concat());
    let (u, t) = both(&setup);
    assert_eq!(t.chip.ram.word(DATA + 0x1000).to_le_bytes(), bytes(4)[..8]);
    assert_eq!(t.chip.ram.word(DATA + 0x800), 77);
    assert_eq!(u.cores.cores[0].local.lut_bytes(2).to_vec(), [bytes(4), bytes(5)].concat());
    // Registers, one table, one page; there and back.
    assert_eq!(t.load(0, reg::SAVE_BYTES), 2 * (1024 + 512 + 4096));
    assert!(t.load(0, reg::SAVE_CYCLES) > 2 * 5632 / 32);
    let p = t.cluster.preemptions();
    assert_eq!((p.saved_bytes, p.restored_bytes, p.switches), (5632, 5632, 0));
    let never = Setup::default().ring(
        0,
        0,
        &format!("ctrl.setr id=2 imm={area} moff=0x20000\nctrl.restore region=2"),
    );
    assert_eq!(both(&never).0.load(0, reg::FAULT), FaultCode::BadOperand.code());
}

#[test]
fn gated_engines_wake_for_work() {
    let run = |mode: &str| {
        let ring = format!("dma dir=3 n0=15\nctrl.pwr emask=1 {mode}\ndma dir=3 n0=15");
        let (_, t) = both(&Setup::default().ring(0, 0, &ring));
        let meters = t.cluster.meters(t.now);
        let woke = meters.iter().find(|m| m.1 == "dma0").unwrap().2.spent()[Cause::PowerWake as usize];
        (woke, t.cluster.gated(t.now).iter().map(|g| (g.retention > 0, g.off > 0)).collect::<Vec<_>>())
    };
    assert_eq!(run("mode=0"), (0, vec![]));
    assert_eq!(run("mode=1"), (1_000, vec![(true, false)]));
    assert_eq!(run("mode=2"), (20_000, vec![(false, true)]));
}

#[test]
fn hints_reach_the_firmware() {
    let (u, t) =
        both(&Setup::default().ring(0, 0, "ctrl.dvfs cnt=3 mode=2").register(0, reg::IRQ_EN, irq::DVFS));
    for value in [u.load(0, reg::DVFS), t.load(0, reg::DVFS)] {
        assert_eq!(value, 1 << 32 | 2 << 16 | 3);
    }
    assert!(t.cluster.cores.cores[0].interrupt());
}

#[test]
fn profiles_interrupts_and_debug_stops() {
    let ring =
        "dma region=1 n0=255 prof=1 tag=9\ndma dir=3 n0=0 irq=1 tag=8 brk=1\ndma dir=3 n0=0 tag=7 irq=1";
    let mut t = Timed::new(&Setup::default().ring(0, 0, ring));
    t.run();
    assert_eq!(t.load(0, reg::QSTAT), state::FROZEN);
    assert_eq!(t.load(0, reg::CTAIL), 2, "the third was never dispatched");
    let word = |record: u64, i: u64| t.chip.ram.word(records(0, 0) + 32 * record + 8 * i);
    assert_eq!((word(0, 0), word(0, 1) & 0xFFFF), (0, 9 | completion::PROFILE << 8));
    let (issued, times) = (word(0, 1) >> 16, word(0, 2));
    assert!(issued >= 20, "after the doorbell");
    assert_eq!(times & 0xFFFF_FFFF, 4, "cycles from issue to start: decode");
    assert_eq!(times >> 32, 100 + 4096 / 32 + 10, "latency, bytes, set-up");
    assert_eq!(word(0, 3) >> 52, (100 + 10) / 4, "what was not active");
    assert_eq!((word(1, 0), word(1, 1), word(1, 3)), (1, 8, 1));
    assert_eq!(t.load(0, reg::IRQ_STAT), irq::DONE | irq::DEBUG);
    t.store(0, reg::QCTRL, 1);
    t.run();
    assert_eq!((t.load(0, reg::QSTAT), t.load(0, reg::CTAIL)), (state::IDLE, 3));
    let mut u = Untimed::new(&Setup::default().ring(0, 0, ring), 3);
    u.run().unwrap();
    assert_eq!((u.load(0, reg::QSTAT), u.load(0, reg::CTAIL)), (state::FROZEN, 2));
    u.store(0, reg::QCTRL, 1);
    u.run().unwrap();
    assert_eq!((u.load(0, reg::QSTAT), u.load(0, reg::CTAIL)), (state::IDLE, 3));
}

#[test]
fn commands_come_by_pio() {
    let words = isa::npu::text::assemble(
        "ctrl.wrmem region=1 moff=0 imm=3\ndma dir=3 n0=0 s0_id=1 s0_n=1 | agu lp=0",
    )
    .unwrap();
    let mut setup = Setup::default().ring(0, 1, "");
    for word in &words[..1] {
        for (i, lane) in (0..).zip(word.0) {
            setup = setup.register(0, QUEUE_STRIDE + reg::PIO0 + 8 * i, lane);
        }
    }
    let (_, t) = both(&setup);
    assert_eq!(t.chip.ram.word(DATA), 3);
    // Half a command waits for the other half; then it faults, since no loop is open.
    for word in &words[1..2] {
        for (i, lane) in (0..).zip(word.0) {
            setup = setup.register(0, QUEUE_STRIDE + reg::PIO0 + 8 * i, lane);
        }
    }
    let (u, _) = both(&setup);
    assert_eq!(u.load(0, QUEUE_STRIDE + reg::FAULT), 0);
    for (i, lane) in (0..).zip(words[2].0) {
        setup = setup.register(0, QUEUE_STRIDE + reg::PIO0 + 8 * i, lane);
    }
    let (u, t) = both(&setup);
    assert_eq!(u.load(0, QUEUE_STRIDE + reg::FAULT), FaultCode::LoopNesting.code());
    assert_eq!(t.load(0, QUEUE_STRIDE + reg::FAULT_INDEX), 1);
    assert_eq!(t.load(0, QUEUE_STRIDE + reg::FAULT_COMMAND), u64::MAX);
}

#[test]
fn stop_stops_and_yield_gives_way() {
    let (u, _) = both(&Setup::default().ring(0, 0, "ctrl.stop\nctrl.trap"));
    assert_eq!((u.load(0, reg::QSTAT), u.load(0, reg::QHEAD)), (state::STOPPED, 1));
    // Queue 0 yields to queue 1, which finds what 0 wrote before, and 0 finds what 1 wrote.
    let setup = Setup::default()
        .ring(0, 0, "ctrl.wrmem region=1 moff=0 imm=1\nctrl.yield\nctrl.waitmem region=1 moff=8 imm=2 cnt=1")
        .ring(0, 1, "ctrl.waitmem region=1 moff=0 imm=1 cnt=1\nctrl.wrmem region=1 moff=8 imm=2");
    let (u, t) = both(&setup);
    assert!(u.cores.cores[0].quiescent());
    assert_eq!(t.cluster.preemptions().switches, 2);
}
