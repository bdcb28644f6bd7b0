//! A queue of higher priority takes the core: what was interrupted goes on as if it had not been.

mod queue_common;

use isa::npu::registers as reg;
use isa::npu::registers::{QUEUE_STRIDE, irq, state};
use npu_model::Stuck;
use queue_common::{DATA, Ram, Setup, Timed, Untimed, area};
use sim_kernel::Time;

const Q1: u64 = QUEUE_STRIDE;

/// Two cores that exchange tiles: each loads, multiplies by a B its array holds, converts, sends its piece to both, and stores. Every round
/// has a command at which the core may be given away.
fn victim(core: u64) -> String {
    format!(
        "
        ctrl.lutld id=3 region=1 moff=0x{lut:x}
        dma dir=3 saddr=1200 n0=63 s0_id=6 s0_n=1
        gemm a=1200 b=1200 c=0 m=7 n=15 k=15 af=int8 bf=int8 cf=int32 w0_id=6 w0_n=1
        ctrl.loop id=0 cnt=12
        dma region=1 moff=0x{a:x} saddr=0 n0=15 w0_id=4 w0_n=1 s0_id=1 s0_n=1 | agu im=256
        dma ch=1 region=1 moff=0x8000 saddr=64 n0=31 cmask=3 s0_id=48 s0_n=1 w0_id=5 w0_n=1
        gemm a=0 b=64 c=0 m=7 n=7 k=7 af=int8 bf=int8 cf=int32 w0_id=1 w0_n=1 w1_id=48 w1_n=2 ploadb=1
        gemm a=0 b=64 c=0 m=7 n=7 k=7 af=int8 bf=int8 cf=int32 s0_id=2 s0_n=1 init=1 keepb=1
        vec.cvt x=0 xs=1 xf=int32 d=512 dfm=fp32 rows=7 cols=15 w0_id=2 w0_n=1 s0_id=3 s0_n=1 pre=1
        dma dir=2 ch=2 saddr=512 moff={to} n0=31 cmask=3 w0_id=3 w0_n=1 s0_id=49 s0_n=1
        dma dir=1 ch=2 region=1 moff=0x{out:x} saddr=1024 n0=63 w0_id=49 w0_n=2 s0_id=50 s0_n=1 | agu im=1024
        ctrl.nop w0_id=50 w0_n=2 s0_id=4 s0_n=1 s1_id=5 s1_n=1
        ctrl.endl id=0
        ctrl.fence emask=63
        ctrl.irq tag=1
        ctrl.ret",
        lut = 0x9000 + 512 * core,
        a = 0x4000 * core,
        to = 1024 + 16 * core,
        out = 0x1_0000 + 0x8000 * core,
    )
}

/// Overwrites all local memory, takes a while, and says so.
fn intruder(core: u64) -> String {
    format!(
        "
        ctrl.lutld id=3 region=1 moff=0x9400
        dma dir=3 saddr=0 n0=4095 s0_id=1 s0_n=1
        gemm a=0 b=0 c=0 m=63 n=63 k=15 af=int8 bf=int8 cf=int32 w0_id=1 w0_n=1 s0_id=2 s0_n=1
        dma ch=1 region=1 moff=0x8000 saddr=0 n0=1023 w0_id=2 w0_n=1
        ctrl.fence emask=63
        ctrl.wrmem region=1 moff=0x{done:x} imm=1
        ctrl.irq tag=2",
        done = 0xF000 + 8 * core
    )
}

fn setup() -> Setup {
    let mut data = vec![0u8; 0x1_0000];
    let mut x = 12345u32;
    for byte in &mut data[..0xF000] {
        x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *byte = u8::try_from(x >> 24).expect("8 bits");
    }
    let mut s = Setup::default().data(0, &data);
    for core in 0..2 {
        let start = "ctrl.sem id=4 cnt=1\nctrl.sem id=5 cnt=1\nctrl.call moff=";
        s = s.ring(core, 0, &format!("{start}0x{:x}", 0x1000 * core)).list(0x1000 * core, &victim(core));
        s = s.register(core, reg::IRQ_EN, 0xFF);
    }
    s
}

/// Writes queue 1's ring of a core and everything but its doorbell; answers the doorbell's value.
fn prepare(ram: &mut Ram, core: u64, mut store: impl FnMut(u64, u64)) -> u64 {
    let words = isa::npu::text::assemble(&intruder(core)).expect("assembles");
    for (i, w) in (0u64..).zip(&words) {
        ram.put(queue_common::ring(core, 1) + 32 * i, &w.to_bytes());
    }
    for (r, v) in [
        (reg::QBASE, queue_common::ring(core, 1)),
        (reg::QSIZE, 6),
        (reg::CBASE, queue_common::records(core, 1)),
        (reg::CSIZE, 4),
        (reg::region(1), DATA),
        (reg::region(1) + 8, queue_common::REGION),
        (reg::QCTRL, 1 | 5 << 4),
    ] {
        store(Q1 + r, v);
    }
    words.len() as u64
}

/// What the victim leaves in memory.
fn results(ram: &Ram) -> Vec<u8> {
    let from = usize::try_from(DATA - queue_common::BASE + 0x1_0000).expect("small");
    ram.0[from..from + 0x1_0000].to_vec()
}

fn alone() -> (Vec<u8>, Time) {
    let mut t = Timed::new(&setup());
    t.run();
    assert_eq!((t.load(0, reg::CTAIL), t.load(1, reg::CTAIL)), (1, 1));
    let mut u = Untimed::new(&setup(), 0);
    u.run().expect("ends");
    assert!(results(&u.ram) == results(&t.chip.ram) && results(&u.ram).iter().any(|b| *b != 0));
    (results(&t.chip.ram), t.now)
}

#[test]
fn saved_contexts_come_back_wherever_they_are_interrupted_in_time() {
    let (expected, end) = alone();
    let (mut by_cores, mut bytes) = ([0; 3], 0);
    for i in 0..60 {
        let mut t = Timed::new(&setup());
        for core in 0..2 {
            t.store(core, reg::PREEMPT_AUTO, 2);
        }
        assert!(t.run_until(Time::new(end.get() / 60 * i + 1)));
        let cores = if i % 3 == 0 { 0..2 } else { i % 2..i % 2 + 1 };
        for core in cores {
            let mut chip = t.chip.ram.clone();
            let tail = prepare(&mut chip, core, |r, v| t.store(core, r, v));
            t.chip.ram = chip;
            t.store(core, Q1 + reg::QTAIL, tail);
        }
        t.run();
        assert!(results(&t.chip.ram) == expected, "interrupted at {i}/60: tensors differ");
        for core in 0..2usize {
            assert_eq!((t.load(core, reg::QSTAT), t.load(core, reg::CTAIL)), (state::IDLE, 1), "{i}");
        }
        let p = t.cluster.preemptions();
        assert_eq!(p.saved_bytes, p.restored_bytes, "{i}");
        assert!(p.saved_bytes == 0 || p.move_cycles > p.saved_bytes / 32, "{i}: {p:?}");
        by_cores[usize::try_from(p.by_level[1]).expect("at most 2")] += 1;
        bytes = bytes.max(p.saved_bytes);
        let total = t.cluster.total();
        assert_eq!(total.memory_written, t.chip.written_bytes, "{i}: bytes asked for");
        assert_eq!(total.memory_read + t.cluster.fetched_bytes(), t.chip.read_bytes, "{i}: and read");
    }
    assert!(by_cores[1] > 20 && by_cores[2] > 10, "{by_cores:?}");
    assert!(bytes > 2 * 16_384, "both contexts: {bytes}");
}

#[test]
fn saved_contexts_come_back_in_any_order_without_time() {
    let (expected, _) = alone();
    let mut preempted = 0;
    for order in 0..40u64 {
        let mut u = Untimed::new(&setup(), order);
        for core in 0..2 {
            u.store(core, reg::PREEMPT_AUTO, 2);
        }
        // One round of turns is at most a few commands of each unit: interrupt somewhere.
        let mut small = order / 2;
        while small > 0 && u.round_once() {
            small -= 1;
        }
        for core in 0..1 + order % 2 {
            let mut ram = u.ram.clone();
            let tail = prepare(&mut ram, core, |r, v| u.store(core, r, v));
            u.ram = ram;
            u.store(core, Q1 + reg::QTAIL, tail);
        }
        u.run().expect("ends");
        assert!(results(&u.ram) == expected, "order {order}: tensors differ");
        preempted += u.cores.cores.iter().map(|c| c.preemptions().by_level[1]).sum::<u64>();
    }
    assert!(preempted > 20, "{preempted}");
}

#[test]
fn level_1_leaves_at_the_next_switch_point_and_saves_nothing() {
    // An intruder that stays in its own part of the scratchpad.
    let (expected, end) = alone();
    for i in 1..40 {
        let mut t = Timed::new(&setup());
        t.store(0, reg::PREEMPT_AUTO, 1);
        t.run_until(Time::new(end.get() / 40 * i));
        let polite = "dma dir=3 saddr=1500 n0=63\nctrl.fence emask=63\nctrl.irq";
        let words = isa::npu::text::assemble(polite).expect("assembles");
        for (n, w) in (0u64..).zip(&words) {
            t.chip.ram.put(queue_common::ring(0, 1) + 32 * n, &w.to_bytes());
        }
        for (r, v) in [
            (reg::QBASE, queue_common::ring(0, 1)),
            (reg::QSIZE, 6),
            (reg::CBASE, queue_common::records(0, 1)),
            (reg::QCTRL, 1 | 5 << 4),
            (reg::QTAIL, 3),
        ] {
            t.store(0, Q1 + r, v);
        }
        t.run();
        assert!(results(&t.chip.ram) == expected, "interrupted at {i}/40");
        let p = t.cluster.preemptions();
        assert_eq!((p.saved_bytes, t.load(0, Q1 + reg::CTAIL)), (0, 1));
        assert!(p.by_level[0] <= 1 && p.by_level[1] == 0);
    }
}

#[test]
fn level_3_kills_and_memory_holds_whole_results_only() {
    let (expected, end) = alone();
    for i in 1..20u64 {
        let mut t = Timed::new(&setup());
        t.run_until(Time::new(end.get() / 20 * i));
        for core in 0..2 {
            t.store(core, reg::PREEMPT, 3);
        }
        t.run();
        let got = results(&t.chip.ram);
        // Each piece of 1 KiB was stored by one command: it is there whole, or not at all.
        for (piece, (a, b)) in got.chunks(1024).zip(expected.chunks(1024)).enumerate() {
            assert!(a == b || a.iter().all(|x| *x == 0), "piece {piece} is torn");
        }
        for core in 0..2usize {
            assert_eq!(t.load(core, reg::QSTAT), state::KILLED);
            assert_eq!(t.load(core, reg::IRQ_STAT) & irq::PREEMPT, irq::PREEMPT);
            assert_eq!(t.load(core, reg::CTAIL), 0);
        }
        assert_eq!(t.cluster.preemptions().by_level[2], 2);
        // The client starts over.
        let again = setup();
        for (core, offset, value) in again.all_stores() {
            if offset == reg::QBASE {
                t.store(core, reg::QCTRL, 2);
            }
            t.store(core, offset, value);
        }
        t.run();
        assert!(results(&t.chip.ram) == expected, "restarted after {i}/20");
    }
}

#[test]
fn a_held_queue_waits_until_it_is_let_go() {
    let (expected, end) = alone();
    let mut t = Timed::new(&setup());
    t.run_until(Time::new(end.get() / 2));
    for core in 0..2 {
        t.store(core, reg::PREEMPT, 2);
    }
    t.run();
    assert_eq!((t.load(0, reg::QSTAT), t.load(0, reg::CTAIL)), (state::PREEMPTED, 0));
    assert!(t.load(0, reg::SAVE_BYTES) > 8192);
    for core in 0..2 {
        t.store(core, reg::PREEMPT, 0);
    }
    t.run();
    assert_eq!((t.load(0, reg::QSTAT), t.load(0, reg::CTAIL)), (state::IDLE, 1));
    assert!(results(&t.chip.ram) == expected);
}

#[test]
fn a_save_area_that_is_too_small_is_a_fault() {
    let (_, end) = alone();
    let mut t = Timed::new(&setup());
    t.store(0, reg::SAVE_LIMIT, 4096);
    t.store(0, reg::SAVE_BASE, area(0, 0));
    t.run_until(Time::new(end.get() / 2));
    t.store(0, reg::PREEMPT, 2);
    t.run();
    assert_eq!(t.load(0, reg::QSTAT), state::FAULT);
    let mut u = Untimed::new(&setup(), 1);
    u.store(0, reg::SAVE_LIMIT, 4096);
    u.store(0, reg::PREEMPT, 2);
    assert!(matches!(u.run(), Err(Stuck::Fault(0, ..))));
}

#[test]
fn the_fields_of_commands_name_all_they_write() {
    // What marks pages in a shape-only run covers what a computing run wrote.
    let mut u = Untimed::new(&setup(), 3);
    let mut shape = Untimed::new(&setup(), 3);
    u.run().expect("ends");
    let ids = |_: u64| 0;
    shape.cores.run(&mut shape.ram, Some(&ids), &mut shape.order).expect("ends");
    for (a, b) in u.cores.cores.iter().zip(&shape.cores.cores) {
        assert!(b.queues[0].dirty.covers(&a.queues[0].dirty) && !a.queues[0].dirty.is_clean());
    }
}
