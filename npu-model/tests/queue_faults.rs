//! Every fault stops its own queue at the command that caused it, and no words do worse than that.

mod queue_common;

use isa::npu::registers as reg;
use isa::npu::registers::{FaultCode, QUEUE_STRIDE, state};
use isa::npu::text::assemble;
use isa::npu::{DecodeError, Word};
use npu_model::{Cores, Stuck};
use queue_common::{BASE, DATA, LISTS, MEMORY, Ram, Setup, Timed, Untimed, both, config, ring};
use sim_kernel::Stream;

/// Ring text (with a list that `ctrl.call` reaches), fault, index of the command.
fn reachable() -> Vec<(FaultCode, &'static str, &'static str, u64)> {
    use FaultCode::*;
    vec![
        (LocalRange, "ctrl.nop\ngemm a=0xFFFFF af=int8 bf=int8 cf=int32", "", 1),
        (LocalRange, "dma region=1 saddr=0x7FF n0=15", "", 0),
        (LocalRange, "vec.cvt xf=fp32 d=0x1FF ds=1 dfm=fp32 cols=63", "", 0),
        (LocalRange, "ctrl.call", "ctrl.loop cnt=3\ndma dir=3 saddr=1 | agu ia=0xFFFFFFFE\nctrl.endl", 4),
        (RegionLimit, "ctrl.nop\nctrl.nop\ndma region=1 moff=0x1FFF0 n0=1", "", 2),
        (RegionLimit, "ctrl.wrmem region=1 moff=0x20000", "", 0),
        (RegionLimit, "ctrl.call moff=0x20000", "", 0),
        (RegionLimit, "ctrl.call moff=0x1FFE0", "", 2),
        (NotInCap, "dma ch=3", "", 0),
        (SemaphoreOverflow, "ctrl.sem id=3 cnt=255\nctrl.nop s0_id=3 s0_n=1", "", 1),
        (SemaphoreOverflow, "ctrl.sem id=3 cnt=255\ndma dir=3 s0_id=3 s0_n=1\nctrl.fence emask=63", "", 1),
        (SemaphoreOverflow, "ctrl.sem id=3 cnt=256", "", 0),
        (BadOperand, "ctrl.sem mode=3", "", 0),
        (BadOperand, "ctrl.jump mode=2", "", 0),
        (BadOperand, "ctrl.barrier cmask=2 id=50", "", 0),
        (BadOperand, "ctrl.pwr emask=64", "", 0),
        (Bus, "ctrl.setr id=3 imm=0x1000 moff=0x1000\ndma region=3", "", 1),
        (Bus, "ctrl.setr id=3 imm=0x1000 moff=0x1000\nctrl.lutld region=3", "", 1),
        (Bus, "ctrl.setr id=3 imm=0x1000 moff=0x1000\nctrl.call region=3", "", 2),
        (CallDepth, "ctrl.ret", "", 0),
        (CallDepth, "ctrl.call", "ctrl.call", 4),
        (Trap, "ctrl.nop\nctrl.trap imm=5", "", 1),
        (Unaligned, "ctrl.call moff=8", "", 0),
        (Unaligned, "ctrl.wrmem region=1 moff=4", "", 0),
        (Unaligned, "ctrl.lutld region=1 moff=8", "", 0),
        (DimsZero, "ctrl.call", "ctrl.loop", 1),
        (DimsZero, "ctrl.barrier id=50", "", 0),
        (DimsZero, "ctrl.pmu_rd region=1", "", 0),
        (LoopNesting, "ctrl.call", "ctrl.endl", 1),
        (LoopNesting, "ctrl.call", "ctrl.loop id=1 cnt=2\nctrl.ret", 2),
        (LoopNesting, "ctrl.call", "ctrl.loop id=1 cnt=2\nctrl.loop id=1 cnt=2", 2),
        (LoopNesting, "dma dir=3 | agu lp=1", "", 0),
        (Timeout, "ctrl.waitmem region=1 imm=1 cnt=1", "", 0),
    ]
}

#[test]
fn faults_stop_their_queue_with_index_and_address_and_others_go_on() {
    for (code, text, list, index) in reachable() {
        let other =
            "ctrl.wrmem region=1 moff=0x1000 imm=0x77\ndma dir=3 n0=15\nctrl.fence emask=63\nctrl.irq";
        let setup = Setup::default().ring(0, 0, text).list(0, list).ring(0, 2, other).ring(1, 0, other);
        let (u, t) = both(&setup);
        let page = |q: u64, r: u64| q * QUEUE_STRIDE + r;
        for load in [&(|c, r| u.load(c, r)) as &dyn Fn(usize, u64) -> u64, &|c, r| t.load(c, r)] {
            let what = format!("{} `{text}` `{list}`", code.name());
            assert_eq!(load(0, reg::FAULT), code.code(), "{what}");
            assert_eq!(load(0, reg::QSTAT), state::FAULT, "{what}");
            assert_eq!(load(0, reg::FAULT_INDEX), index, "{what}");
            let at = load(0, reg::FAULT_COMMAND);
            let known = at == 0x1000 || (ring(0, 0)..=LISTS + 0x2_0000).contains(&at);
            assert!(known, "{what}: at {at:#x}");
            assert_eq!(load(0, page(2, reg::QSTAT)), state::IDLE, "{what}: queue 2 goes on");
            assert_eq!(load(0, page(2, reg::CTAIL)), 1, "{what}");
            assert_eq!(load(1, reg::CTAIL), 1, "{what}: core 1 goes on");
        }
    }
}

#[test]
fn a_faulted_queue_keeps_its_state_until_it_is_reset() {
    let text = "ctrl.setr id=16 imm=9\nctrl.sem id=5 cnt=3\nctrl.nop w0_id=5 w0_n=1\nctrl.trap w0_id=5 w0_n=1 imm=0x1234";
    let setup = Setup::default().ring(0, 0, text);
    let mut t = Timed::new(&setup);
    t.run();
    assert_eq!(t.load(0, reg::FAULT_ADDR), 0x1234);
    assert_eq!((t.load(0, reg::QHEAD), t.load(0, reg::SREG0), t.load(0, reg::SEM0 + 40)), (3, 9, 2));
    t.store(0, reg::QCTRL, 2);
    assert_eq!((t.load(0, reg::FAULT), t.load(0, reg::SREG0), t.load(0, reg::SEM0 + 40)), (0, 0, 0));
}

#[test]
fn words_that_are_no_command_fault_as_such() {
    let mut opcode = Word::default();
    opcode.set(0, 8, 0x80);
    let (mut reserved, mut truncated) = (Word::default(), assemble("dma dir=3 | agu").unwrap()[0]);
    reserved.set(156, 1, 1);
    let mut three = truncated;
    three.set(8, 2, 3);
    truncated.set(8, 2, 2);
    for (word, code) in [
        (opcode, FaultCode::BadCommand),
        (reserved, FaultCode::ReservedBit),
        (truncated, FaultCode::BadCommand),
        (three, FaultCode::BadCommand),
    ] {
        let mut u = Untimed::new(&Setup::default(), 0);
        u.ram.put(ring(0, 0) + 32, &word.to_bytes());
        for (r, v) in [(reg::QBASE, ring(0, 0)), (reg::QSIZE, 4), (reg::QCTRL, 1), (reg::QTAIL, 2)] {
            u.store(0, r, v);
        }
        assert!(matches!(u.run(), Err(Stuck::Fault(0, f, 1)) if f.code == code), "{word:?}");
    }
    assert_eq!(isa::npu::Command::length(&three), Err(DecodeError::ExtensionCount(3)));
}

#[test]
fn watchdogs_end_what_would_not() {
    let endless = "ctrl.jump mode=2";
    let starved = "ctrl.nop w0_id=1 w0_n=1";
    for (text, list) in [("ctrl.call", endless), (starved, ""), ("dma dir=3 w0_id=1 w0_n=1", "")] {
        let setup = Setup::default()
            .ring(0, 0, text)
            .list(0, list)
            .ring(0, 1, "ctrl.wrmem region=1 imm=4")
            .register(0, reg::WATCHDOG, 5_000);
        let (u, t) = both(&setup);
        assert_eq!(u.load(0, reg::FAULT), FaultCode::Watchdog.code(), "{text}");
        assert_eq!(t.load(0, reg::FAULT), FaultCode::Watchdog.code(), "{text}");
        assert!(t.now.as_ns() < 8_000, "{text}: {:?}", t.now);
        assert_eq!(t.chip.ram.word(DATA), 4, "{text}: the other queue ran");
    }
    // A queue that writes records is left alone.
    let busy = "ctrl.loop cnt=200\nctrl.irq\ndma region=1 n0=15\nctrl.fence emask=63\nctrl.endl\nctrl.ret";
    let setup = Setup::default().ring(0, 0, "ctrl.call").list(0, busy).register(0, reg::WATCHDOG, 5_000);
    let (_, t) = both(&setup);
    assert!(t.now.as_ns() > 20_000 && t.load(0, reg::FAULT) == 0);
}

#[test]
fn every_fault_has_a_way_to_it() {
    let reached: Vec<FaultCode> = reachable().iter().map(|r| r.0).collect();
    for code in FaultCode::ALL {
        let elsewhere = match code {
            // The tests above.
            FaultCode::BadCommand | FaultCode::ReservedBit | FaultCode::Watchdog => true,
            // Raised by indexed and compressed transfers, whose tests are theirs.
            FaultCode::IndexBound | FaultCode::Stream => true,
            _ => false,
        };
        assert!(elsewhere || reached.contains(code), "{}", code.name());
    }
}

/// A million words: random ones, and valid ones with bits flipped, in rings that end anywhere.
#[test]
fn a_million_random_words_do_no_harm() {
    let valid = assemble(
        "dma region=1 n0=3 s0_id=1 s0_n=1
         dma dir=1 ch=2 region=1 n0=3 w0_id=1 w0_n=1
         dma dir=2 ch=2 moff=9 cmask=2 n0=1
         dma dir=3 n0=7 pre=1
         gemm m=3 n=7 k=7 af=int8 bf=int8 cf=int32
         gemm m=3 n=7 k=7 af=fp16 bf=fp16 cf=fp16 drain=1 csp=1 c=99 | epi aca=2
         vec.cvt xf=fp32 d=64 dfm=fp16 rows=1 cols=7
         vec.add xf=fp32 yf=fp32 d=64 dfm=fp16 cols=7 bc=4
         ctrl.sem id=3 cnt=4 mode=1
         ctrl.setr id=17 imm=3
         ctrl.call region=0 moff=64
         ctrl.jump region=0 mode=2
         ctrl.loop id=1 cnt=3 | agu lp=1
         ctrl.endl id=1
         ctrl.setp id=1 mode=2 imm=4
         ctrl.wrmem region=1 imm=4 prof=1
         ctrl.waitmem region=1 imm=4 cnt=1
         ctrl.pmu_rd region=1 imm=7
         ctrl.lutld region=1 id=4
         ctrl.save region=1
         ctrl.restore region=1
         ctrl.barrier cmask=3 id=50
         ctrl.yield
         ctrl.pwr emask=48 mode=1
         ctrl.irq brk=1
         ctrl.ret",
    )
    .unwrap();
    let mut random = Stream::new(6, "npu", "fuzz");
    let cfg = config();
    let mut cores = Cores::new(cfg);
    let mut ram = Ram(vec![0; MEMORY]);
    let mut seen = std::collections::BTreeMap::new();
    let (mut words, mut runs, mut idle) = (0u64, 0u64, 0u64);
    while words < 1_000_000 {
        let length = 1 + random.below(40);
        for i in 0..length {
            let mut word = valid[usize::try_from(random.below(valid.len() as u64)).unwrap()];
            match random.below(8) {
                0 => word = Word(core::array::from_fn(|_| random.below(u64::MAX))),
                1..=4 => {
                    for _ in 0..=random.below(3) {
                        let bit = usize::try_from(random.below(256)).unwrap();
                        word.0[bit / 64] ^= 1 << (bit % 64);
                    }
                }
                _ => {}
            }
            ram.put(ring(0, 0) + 32 * i, &word.to_bytes());
            // Lists find the same words.
            ram.put(LISTS + 32 * i, &word.to_bytes());
        }
        // The other core only receives.
        assert!(cores.cores[1].store(&cores.cfg, reg::QCTRL, 2));
        let core = &mut cores.cores[0];
        for (register, value) in [
            (reg::QCTRL, 2),
            (reg::QBASE, ring(0, 0)),
            (reg::QSIZE, 7),
            (reg::CBASE, BASE + 0x1_0000),
            (reg::CSIZE, 5),
            (reg::region(0), LISTS),
            (reg::region(0) + 8, 0x1000),
            (reg::region(1), DATA),
            (reg::region(1) + 8, 0x1_8000),
            (reg::SEM0 + 8, 3),
            (reg::WATCHDOG, 200),
            (reg::QCTRL, 1),
            (reg::QTAIL, length),
        ] {
            assert!(core.store(&cores.cfg, register, value));
        }
        words += length;
        runs += 1;
        match cores.run(&mut ram, None, &mut random) {
            Ok(()) => idle += 1,
            Err(Stuck::Fault(0, fault, index)) => {
                assert!(index < cores.cores[0].queues[0].next_index() + 1, "{fault}: command {index}");
                *seen.entry(fault.code.name()).or_insert(0u64) += 1;
            }
            Err(stuck) => panic!("run {runs}: {stuck:?}"),
        }
    }
    // Most kinds of fault turn up, and some rings are harmless.
    assert!(idle > 0 && seen.len() >= 12, "{idle} of {runs} runs without a fault; {seen:?}");
}

/// The same words in time: fewer, since time costs.
#[test]
fn random_words_do_no_harm_in_time() {
    let mut random = Stream::new(7, "npu", "fuzz");
    for _ in 0..2_000 {
        let setup = Setup::default().register(0, reg::WATCHDOG, 20_000);
        let mut t = Timed::new(&setup);
        let length = 1 + random.below(12);
        for i in 0..length {
            let mut word = assemble("ctrl.setr id=1 imm=0x80040000 moff=0x1000").unwrap()[0];
            if random.below(2) == 0 {
                word = assemble("dma region=1 n0=9").unwrap()[0];
            }
            for _ in 0..random.below(4) {
                let bit = usize::try_from(random.below(256)).unwrap();
                word.0[bit / 64] ^= 1 << (bit % 64);
            }
            t.chip.ram.put(ring(0, 0) + 32 * i, &word.to_bytes());
        }
        for (r, v) in [
            (reg::QBASE, ring(0, 0)),
            (reg::QSIZE, 7),
            (reg::CBASE, DATA),
            (reg::QCTRL, 1),
            (reg::QTAIL, length),
        ] {
            t.store(0, r, v);
        }
        t.run();
        let settled = [state::IDLE, state::FAULT, state::STOPPED, state::FROZEN];
        assert!(settled.contains(&t.load(0, reg::QSTAT)), "state {}", t.load(0, reg::QSTAT));
    }
}
