//! Harts alone behind an ideal neighbour: traps, atomics, code changes, timing in closed form, independence of slices.

mod cpu_support;

use cpu_support::*;
use isa::rv64::Op;
use sim_kernel::{Addr, Bytes, Hertz, Time};
use soc_model::cpu::{Cause, CoreConfig, Hart, InOrderConfig, Stop};

const MSTATUS: i32 = 0x300;
const MIE: i32 = 0x304;
const MTVEC: i32 = 0x305;
const MEPC: i32 = 0x341;
const MCAUSE: i32 = 0x342;
const MTVAL: i32 = 0x343;
const TIME: i32 = 0xc01;

const GIGAHERTZ: Hertz = Hertz::new(1_000_000_000);

fn cores() -> [CoreConfig; 2] {
    [CoreConfig::Functional, CoreConfig::InOrder(InOrderConfig::little())]
}

fn hart(config: &CoreConfig) -> Hart {
    let mut hart = Hart::new(0, config, GIGAHERTZ).expect("a valid core");
    hart.reset(BASE, 0, 0);
    hart
}

/// Runs until the hart sleeps, in slices; checks the protocol on the way.
fn run_to_sleep(hart: &mut Hart, bus: &mut Ideal, slice: Time) {
    let mut now = hart.local_time();
    for _ in 0..1_000_000 {
        let before = bus.calls.len();
        let stop = hart.run(now, now + slice, bus);
        assert!(bus.calls[before..].iter().all(|&t| t == now), "the outside was asked at another time");
        match stop {
            Stop::Wfi => return,
            Stop::SharedAt(t) | Stop::Quantum(t) => {
                assert!(t > now, "time must move");
                now = t;
            }
            other => panic!("unexpected {other:?}"),
        }
    }
    panic!("the program does not end");
}

fn run(program: &Asm, config: &CoreConfig) -> (Hart, Ideal) {
    let mut bus = Ideal::new(program);
    let mut hart = hart(config);
    run_to_sleep(&mut hart, &mut bus, Time::from_ns(1000));
    (hart, bus)
}

#[test]
fn traps_tell_cause_place_and_value() {
    // What is executed, and the mcause and mtval it must leave.
    type Case<'a> = (&'a dyn Fn(&mut Asm), u64, u64);
    let cases: [Case<'_>; 9] = [
        (
            &|a| {
                a.op(Op::Ecall);
            },
            11,
            0,
        ),
        (
            &|a| {
                a.op(Op::Ebreak);
            },
            3,
            u64::MAX,
        ),
        (
            &|a| {
                a.word(0x1020_0073);
            },
            2,
            0x1020_0073,
        ),
        (
            &|a| {
                a.csr(Op::Csrrs, A0, 0x180, ZERO);
            },
            2,
            0x1800_2573,
        ),
        (
            &|a| {
                a.csr(Op::Csrrw, ZERO, TIME, A0);
            },
            2,
            0xc015_1073,
        ),
        (
            &|a| {
                a.r(Op::FaddD, 1, 2, 3);
            },
            2,
            0x0231_00d3,
        ),
        (
            &|a| {
                a.i(Op::Ld, A0, ZERO, 64);
            },
            5,
            64,
        ),
        (
            &|a| {
                a.s(Op::Sw, A0, ZERO, 64);
            },
            7,
            64,
        ),
        (
            &|a| {
                a.i(Op::Jalr, ZERO, ZERO, 128);
            },
            1,
            128,
        ),
    ];
    for (n, (emit, cause, value)) in cases.into_iter().enumerate() {
        let mut a = Asm::new();
        a.la(T0, "handler").csr(Op::Csrrw, ZERO, MTVEC, T0).label("here");
        emit(&mut a);
        a.i(Op::Addi, A3, ZERO, 1).op(Op::Wfi);
        a.label("handler")
            .csr(Op::Csrrs, A0, MCAUSE, ZERO)
            .csr(Op::Csrrs, A1, MEPC, ZERO)
            .csr(Op::Csrrs, A2, MTVAL, ZERO)
            .op(Op::Wfi);
        for core in cores() {
            let (h, _) = run(&a, &core);
            let here = BASE + a.offset("here");
            let place = if cause == 1 { 128 } else { here };
            let value = if value == u64::MAX { here } else { value };
            assert_eq!((h.register(A0), h.register(A1), h.register(A2)), (cause, place, value), "case {n}");
            assert_eq!((h.register(A3), h.stats().exceptions), (0, 1));
        }
    }
}

#[test]
fn misaligned_data_works_but_misaligned_atomics_trap() {
    let mut a = Asm::new();
    a.la(T0, "handler").csr(Op::Csrrw, ZERO, MTVEC, T0);
    a.li(S0, BASE + 0x1_ffff).li(T1, 0x1122_3344_5566_7788);
    a.s(Op::Sd, T1, S0, 0).i(Op::Lw, A0, S0, 2).i(Op::Lhu, A1, S0, 3);
    a.r(Op::AmoaddW, A2, S0, T1).op(Op::Wfi);
    a.label("handler").csr(Op::Csrrs, A3, MCAUSE, ZERO).op(Op::Wfi);
    for core in cores() {
        let (h, _) = run(&a, &core);
        assert_eq!((h.register(A0), h.register(A1)), (0x3344_5566, 0x4455));
        assert_eq!((h.register(A2), h.register(A3)), (0, 6));
    }
}

#[test]
fn address_only_memory_faults_and_is_reported() {
    let mut a = Asm::new();
    a.la(T0, "handler").csr(Op::Csrrw, ZERO, MTVEC, T0).li(S0, BASE + 0x10_0040);
    a.label("load").i(Op::Ld, A0, S0, 0).op(Op::Wfi);
    a.label("handler").csr(Op::Csrrs, A1, MCAUSE, ZERO).op(Op::Wfi);
    for core in cores() {
        let mut bus = Ideal::new(&a);
        let hidden = Addr::new(BASE + 0x10_0000);
        bus.memory.make_address_only(hidden, Bytes::new(0x1_0000)).expect("whole page");
        let mut h = hart(&core);
        run_to_sleep(&mut h, &mut bus, Time::from_ns(1000));
        assert_eq!(h.register(A1), 5);
        assert_eq!(h.address_only_fault(), Some((BASE + a.offset("load"), BASE + 0x10_0040)));
    }
}

#[test]
fn wfi_sleeps_until_an_enabled_interrupt_and_takes_it_if_allowed() {
    let mut a = Asm::new();
    a.la(T0, "handler").csr(Op::Csrrw, ZERO, MTVEC, T0);
    a.li(T1, 1 << 7).csr(Op::Csrrw, ZERO, MIE, T1).csr(Op::Csrrsi, ZERO, MSTATUS, 8);
    a.op(Op::Wfi).label("after").i(Op::Addi, A1, A1, 1).op(Op::Wfi);
    a.word(0x13).label("handler").csr(Op::Csrrs, A0, MCAUSE, ZERO).csr(Op::Csrrs, A2, MEPC, ZERO);
    a.csr(Op::Csrrw, ZERO, MIE, ZERO).op(Op::Mret);
    for core in cores() {
        let (mut h, mut bus) = run(&a, &core);
        assert!(h.asleep() && h.register(A1) == 0);
        bus.lines.software = true;
        let later = h.local_time() + Time::from_ns(500);
        h.set_interrupt_lines(true, false, false);
        assert!(!h.wakes(), "that interrupt is not enabled");
        bus.lines.timer = true;
        let stop = h.run(later, later + Time::from_ns(1000), &mut bus);
        assert!(!matches!(stop, Stop::Wfi) || h.register(A1) == 1);
        run_to_sleep(&mut h, &mut bus, Time::from_ns(1000));
        assert_eq!(h.register(A0), 1 << 63 | 7);
        assert_eq!((h.register(A1), h.register(A2)), (1, BASE + a.offset("after")));
        assert_eq!(h.stats().interrupts, 1);
        assert!(h.stats().cause(Cause::Idle) >= 490, "half a microsecond asleep at 1 GHz");
    }
}

#[test]
fn changed_code_runs_after_fence_i() {
    let mut a = Asm::new();
    let patched = isa::rv64::encode(&isa::rv64::Inst { rd: A0, imm: 7, ..isa::rv64::Inst::new(Op::Addi) });
    a.la(T0, "site").li(T1, u64::from(patched)).i(Op::Addi, S0, ZERO, 2);
    a.label("site").i(Op::Addi, A0, ZERO, 1).r(Op::Add, A1, A1, A0);
    a.s(Op::Sw, T1, T0, 0).op(Op::FenceI).i(Op::Addi, S0, S0, -1).branch(Op::Bne, S0, ZERO, "site");
    a.op(Op::Wfi);
    for core in cores() {
        let (h, _) = run(&a, &core);
        assert_eq!(h.register(A1), 1 + 7);
        let s = h.stats();
        assert_eq!(s.classes.total(), s.instructions, "flushed code keeps its counts");
    }
}

/// A program that meets every kind of global instruction, L1 and L2 misses, dirty victims and branches.
fn busy_program() -> Asm {
    let mut a = Asm::new();
    a.li(S0, BASE + 0x10_0000).li(S1, DEVICE).li(T2, 6000);
    a.label("loop");
    a.i(Op::Ld, T0, S0, 0).r(Op::Add, A0, A0, T0).s(Op::Sd, A0, S0, 8);
    a.i(Op::Addi, S0, S0, 192).i(Op::Andi, T1, T2, 63).branch(Op::Bne, T1, ZERO, "skip");
    a.r(Op::AmoaddD, T0, S0, T2).i(Op::Lw, T0, S1, 0).s(Op::Sw, T0, S1, 0);
    a.op(Op::Fence).csr(Op::Csrrs, A1, TIME, ZERO).r(Op::Mul, A2, A1, T0);
    a.put(isa::rv64::Inst { rd: T0, rs1: S0, ..isa::rv64::Inst::new(Op::LrD) });
    a.r(Op::ScD, A3, S0, T2);
    a.label("skip").r(Op::Divu, A2, A0, T2).i(Op::Addi, T2, T2, -1);
    a.branch(Op::Bne, T2, ZERO, "loop").op(Op::Wfi);
    a
}

#[test]
fn results_and_times_do_not_depend_on_the_slice() {
    let program = busy_program();
    for core in cores() {
        let mut seen = Vec::new();
        for slice in [Time::from_ns(1000), Time::from_ns(17), Time::from_ps(1000)] {
            let mut bus = Ideal::new(&program);
            let mut h = hart(&core);
            run_to_sleep(&mut h, &mut bus, slice);
            let registers: Vec<u64> = (0..32).map(|r| h.register(r)).collect();
            seen.push((registers, h.stats(), h.local_time(), bus.calls, bus.write_backs));
        }
        assert!(seen[0].1.instructions > 20_000 && seen[0].3.len() > 100);
        assert_eq!(seen[0], seen[1]);
        assert_eq!(seen[0], seen[2]);
    }
}

#[test]
fn every_cycle_has_one_cause_and_every_instruction_one_class() {
    for core in cores() {
        let (h, bus) = run(&busy_program(), &core);
        let s = h.stats();
        assert_eq!(s.causes.iter().sum::<u64>(), s.cycles);
        assert_eq!(s.classes.total(), s.instructions);
        // The last cycle is the one the hart is in.
        let elapsed = h.local_time().as_ns();
        assert!(s.cycles == elapsed || s.cycles == elapsed + 1, "{} cycles in {elapsed} ns", s.cycles);
        assert!(s.cause(Cause::Mmio) > 0);
        assert_eq!(s.classes.amo, 3 * (6000 / 64));
        if matches!(core, CoreConfig::InOrder(_)) {
            for cause in [Cause::Dram, Cause::L3, Cause::Branch, Cause::Dependency, Cause::Frontend] {
                assert!(s.cause(cause) > 0, "{cause:?}");
            }
            assert_eq!(s.write_backs, bus.write_backs.len() as u64);
            assert!(s.write_backs > 0 && s.l2_misses > 5900);
        }
    }
}

/// Cycles per iteration of a loop body repeated in a straight line, as the difference of two lengths.
fn slope(config: &InOrderConfig, setup: &dyn Fn(&mut Asm), body: &dyn Fn(&mut Asm)) -> u64 {
    let cycles = |copies: u32| {
        let mut a = Asm::new();
        setup(&mut a);
        // Twice through, so that the second pass finds its code and data in the caches.
        a.i(Op::Addi, S1, ZERO, 3).label("again");
        for _ in 0..copies {
            body(&mut a);
        }
        a.i(Op::Addi, S1, S1, -1).branch(Op::Beq, S1, ZERO, "end").jump(ZERO, "again");
        a.label("end").op(Op::Wfi);
        let (h, _) = run(&a, &CoreConfig::InOrder(config.clone()));
        let s = h.stats();
        s.cycles - s.cause(Cause::Frontend)
    };
    let (short, long) = (100, 300);
    (cycles(long) - cycles(short)).div_ceil(3 * u64::from(long - short))
}

#[test]
fn in_order_timing_in_closed_form() {
    let c = InOrderConfig::little();
    let none = |_: &mut Asm| {};
    let pointer = |a: &mut Asm| {
        a.li(S0, BASE + 0x1_0000).s(Op::Sd, S0, S0, 0).li(T2, 3);
    };
    // One instruction, each needing the one before: its latency.
    let dependent = slope(&c, &none, &|a| {
        a.i(Op::Addi, T0, T0, 1);
    });
    assert_eq!(dependent, 1);
    let mul = slope(&c, &none, &|a| {
        a.r(Op::Mul, T0, T0, T0);
    });
    assert_eq!(mul, u64::from(c.mul_cycles));
    let div = slope(&c, &none, &|a| {
        a.r(Op::Divu, T0, T1, T1);
    });
    assert_eq!(div, u64::from(c.div_cycles), "independent divides share one unit");
    let chase = slope(&c, &pointer, &|a| {
        a.i(Op::Ld, S0, S0, 0);
    });
    assert_eq!(chase, u64::from(c.l1d.latency_cycles));
    // Groups of independent instructions: width and ports.
    let six = |a: &mut Asm| {
        for rd in [A0, A1, A2, A3, T0, T1] {
            a.i(Op::Addi, rd, ZERO, 1);
        }
    };
    assert_eq!(slope(&c, &none, &six), 6 / u64::from(c.issue_width));
    let narrow = InOrderConfig { issue_width: 1, ..c.clone() };
    assert_eq!(slope(&narrow, &none, &six), 6);
    let one_port = InOrderConfig { memory_ports: 1, ..c.clone() };
    let loads = |a: &mut Asm| {
        for rd in [A0, A1, A2, A3] {
            a.i(Op::Ld, rd, S0, 0);
        }
    };
    assert_eq!(slope(&one_port, &pointer, &loads), 4);
    assert_eq!(slope(&c, &pointer, &loads), 2);
}

#[test]
fn a_wrong_prediction_costs_its_penalty() {
    // A branch that alternates: two-bit counters see it wrong at least every second time.
    let mut a = Asm::new();
    a.li(T2, 1000).label("loop").i(Op::Andi, T0, T2, 1).branch(Op::Bne, T0, ZERO, "odd").word(0x13);
    a.label("odd").i(Op::Addi, T2, T2, -1).branch(Op::Bne, T2, ZERO, "loop").op(Op::Wfi);
    let c = InOrderConfig::little();
    let slow = InOrderConfig { mispredict_cycles: c.mispredict_cycles + 5, ..c.clone() };
    let (fast, slow) =
        (run(&a, &CoreConfig::InOrder(c)).0.stats(), run(&a, &CoreConfig::InOrder(slow)).0.stats());
    assert!((500..=1010).contains(&fast.mispredicts), "{}", fast.mispredicts);
    assert_eq!(fast.mispredicts, slow.mispredicts);
    assert_eq!(slow.cycles - fast.cycles, 5 * fast.mispredicts);
}

#[test]
fn a_line_taken_away_is_missed_again() {
    let mut a = Asm::new();
    a.li(S0, BASE + 0x1_0000).i(Op::Ld, T0, S0, 0).i(Op::Ld, T1, S0, 8).op(Op::Wfi);
    a.i(Op::Ld, T0, S0, 16).op(Op::Wfi);
    let (mut h, mut bus) = run(&a, &CoreConfig::InOrder(InOrderConfig::little()));
    let misses = h.stats().l1d_misses;
    assert_eq!(misses, 1);
    h.invalidate_line(BASE + 0x1_0000);
    bus.lines.software = true;
    h.set_interrupt_lines(true, false, false);
    // Not enabled, so it still sleeps: restart it past the first wait instead.
    h.reset(BASE, 0, 0);
    run_to_sleep(&mut h, &mut bus, Time::from_ns(1000));
    assert_eq!(h.stats().l1d_misses, misses + 1);
}

#[test]
fn one_of_two_harts_loses_the_reservation() {
    // Each: load-reserved, wait for the other by a device read, store-conditional.
    let mut a = Asm::new();
    a.li(S0, BASE + 0x1_0000);
    a.put(isa::rv64::Inst { rd: T0, rs1: S0, ..isa::rv64::Inst::new(Op::LrW) });
    a.i(Op::Addi, T0, T0, 1).li(S1, DEVICE).i(Op::Lw, T1, S1, 0);
    a.r(Op::ScW, A0, S0, T0).i(Op::Lw, T1, S1, 0).op(Op::Wfi);
    let mut bus = Ideal::new(&a);
    let mut harts: Vec<Hart> =
        (0..2).map(|id| Hart::new(id, &CoreConfig::Functional, GIGAHERTZ).expect("a valid core")).collect();
    let mut at = [Some(Time::ZERO); 2];
    for h in &mut harts {
        h.reset(BASE, 0, 0);
    }
    while let Some((now, id)) = (0..2).filter_map(|id| at[id].map(|t| (t, id))).min() {
        at[id] = match harts[id].run(now, now + Time::from_ns(1000), &mut bus) {
            Stop::SharedAt(t) | Stop::Quantum(t) => Some(t),
            Stop::Wfi => None,
            other => panic!("unexpected {other:?}"),
        };
    }
    assert_eq!((harts[0].register(A0), harts[1].register(A0)), (0, 1));
    assert_eq!(bus.memory.read::<4>(BASE + 0x1_0000), Ok(1));
}

#[test]
fn the_instruction_limit_is_exact_and_a_watched_store_stops() {
    let mut a = Asm::new();
    a.li(S0, BASE + 0x1_0000).label("loop").i(Op::Addi, T0, T0, 1).s(Op::Sd, T0, S0, 0).jump(ZERO, "loop");
    for core in cores() {
        let mut bus = Ideal::new(&a);
        let mut h = hart(&core);
        h.set_instruction_limit(1_003);
        let mut now = Time::ZERO;
        loop {
            match h.run(now, now + Time::from_ns(100), &mut bus) {
                Stop::SharedAt(t) | Stop::Quantum(t) => now = t,
                Stop::Limit => break,
                other => panic!("unexpected {other:?}"),
            }
        }
        assert_eq!((h.instructions(), h.stats().classes.total()), (1_003, 1_003));
        h.set_instruction_limit(u64::MAX);
        bus.memory.watch(BASE + 0x1_0000);
        let before = h.register(T0);
        now = now.max(h.local_time());
        let stop = loop {
            match h.run(now, now + Time::from_ns(100), &mut bus) {
                Stop::SharedAt(t) | Stop::Quantum(t) => now = t,
                other => break other,
            }
        };
        assert!(matches!(stop, Stop::Watch(_)));
        assert!(h.register(T0) <= before + 1);
    }
}

#[test]
fn a_handler_that_cannot_run_is_reported() {
    let mut a = Asm::new();
    a.word(0);
    for core in cores() {
        let mut bus = Ideal::new(&a);
        let mut h = hart(&core);
        let mut now = Time::ZERO;
        loop {
            match h.run(now, now + Time::from_ns(100), &mut bus) {
                Stop::SharedAt(t) | Stop::Quantum(t) => now = t,
                other => break assert_eq!(other, Stop::Lost),
            }
        }
        assert_eq!(h.last_exception(), Some((0, 1, 0)), "mtvec is zero, and nothing is there");
    }
}

#[test]
fn a_sequential_stream_is_fetched_ahead_within_pages() {
    const LINES: u64 = 1024;
    let mut a = Asm::new();
    a.li(S0, BASE + 0x10_0000).li(T2, LINES);
    a.label("loop").i(Op::Ld, T0, S0, 0).r(Op::Add, A0, A0, T0).i(Op::Addi, S0, S0, 64);
    a.i(Op::Addi, T2, T2, -1).branch(Op::Bne, T2, ZERO, "loop").op(Op::Wfi);
    let on = InOrderConfig::little();
    let off = InOrderConfig { prefetch_lines: 0, ..on.clone() };
    let (with, bus) = run(&a, &CoreConfig::InOrder(on.clone()));
    let without = run(&a, &CoreConfig::InOrder(off)).0.stats();
    let with = with.stats();
    let code = without.l2_misses - LINES;
    assert_eq!(without.prefetches, 0);
    let mut lines: Vec<u64> = bus.requests.iter().map(|r| r.addr).collect();
    lines.sort_unstable();
    lines.dedup();
    // Every line is asked for exactly once, by a miss or ahead of it.
    assert_eq!(with.l2_misses + with.prefetches, LINES + code);
    assert_eq!((lines.len(), bus.requests.len()), (1026, 1026));
    assert_eq!(LINES + code, 1026, "two lines of code");
    // Of the 64 lines of a page, at most one in five misses, plus one where the stream starts over.
    let per_page = 64u64.div_ceil(u64::from(on.prefetch_lines) + 1) + 1;
    assert!(with.l2_misses <= LINES / 64 * per_page + code, "{}", with.l2_misses);
    assert!(with.cycles * 2 < without.cycles, "{} and {}", with.cycles, without.cycles);
}

#[test]
fn a_new_frequency_starts_at_its_time_even_asleep() {
    // Sleeps at once; woken, it counts 1000 dependent additions and sleeps again.
    let mut a = Asm::new();
    a.li(T1, 1 << 3).csr(Op::Csrrw, ZERO, MIE, T1).op(Op::Wfi).li(T2, 1000).label("loop");
    a.i(Op::Addi, T2, T2, -1).branch(Op::Bne, T2, ZERO, "loop").csr(Op::Csrrw, ZERO, MIE, ZERO).op(Op::Wfi);
    let (mut h, mut bus) = run(&a, &CoreConfig::Functional);
    let mut at = Time::from_ns(10_000);
    for hertz in [3_000_000_000, 500_000_000] {
        h.set_frequency(at, Hertz::new(hertz));
        assert_eq!(h.local_time(), at);
        at += Time::from_ns(10_000);
    }
    bus.lines.software = true;
    h.set_interrupt_lines(true, false, false);
    assert!(h.wakes());
    let before = h.instructions();
    let mut now = at;
    while let Stop::SharedAt(t) | Stop::Quantum(t) = h.run(now, now + Time::from_ns(100), &mut bus) {
        now = t;
    }
    // The second `wfi` is asked for at the time of the instruction before it.
    let executed = h.instructions() - before;
    assert_eq!((h.local_time() - at).as_ns(), 2 * executed, "two nanoseconds each at 500 MHz");
    // 10 us at 1 GHz, 10 us at 3 GHz, 10 us at 500 MHz, less what is still to come.
    assert_eq!(h.stats().cycles, 10_000 + 30_000 + 5_000 + executed);
}
