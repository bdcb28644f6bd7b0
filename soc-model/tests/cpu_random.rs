//! Random programs over every row of the instruction table: both core kinds must compute the same, for any slice.

mod cpu_support;

use cpu_support::*;
use isa::rv64::{Class, Inst, Op, ROWS, decode32};
use sim_kernel::{Addr, Hertz, Time};
use soc_model::cpu::{CoreConfig, Hart, InOrderConfig, Stop};

const LENGTH: u64 = 600;
const DATA: u64 = BASE + 0x8_0000;
const MSTATUS: i32 = 0x300;
const MTVEC: i32 = 0x305;
const MSCRATCH: i32 = 0x340;
const MEPC: i32 = 0x341;
const FCSR: i32 = 0x003;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

/// One random instruction: any row but the ones that read clocks, leave the program or wait.
fn instruction(random: &mut Random) -> Inst {
    loop {
        let row = &ROWS[usize::try_from(random.below(ROWS.len() as u64)).expect("small")];
        let word = row.matches | u32::try_from(random.next() >> 32).expect("32 bits") & !row.mask;
        let mut inst = decode32(word).expect("a word of the table decodes");
        match row.class {
            Class::System if inst.op != Op::Fence => continue,
            Class::Load | Class::Store | Class::Amo => inst.rs1 = S0,
            // Over the next instruction, taken or not.
            Class::Branch => inst.imm = 8,
            Class::Jump if inst.op == Op::Jalr => continue,
            Class::Jump => inst.imm = 8,
            _ => {}
        }
        // The pointer to the data must survive.
        let writes_int = row.format.operands().rd_int;
        if writes_int && inst.rd == S0 {
            continue;
        }
        return inst;
    }
}

fn program(seed: u64) -> Asm {
    let mut random = Random(seed);
    let mut a = Asm::new();
    a.jump(ZERO, "start").label("handler").csr(Op::Csrrw, T0, MSCRATCH, T0);
    a.csr(Op::Csrrs, T0, MEPC, ZERO).i(Op::Addi, T0, T0, 4).csr(Op::Csrrw, ZERO, MEPC, T0);
    a.csr(Op::Csrrw, T0, MSCRATCH, T0).op(Op::Mret);
    a.label("start").la(T0, "handler").csr(Op::Csrrw, ZERO, MTVEC, T0);
    a.li(T0, 0x6000).csr(Op::Csrrs, ZERO, MSTATUS, T0);
    for register in (1..32).filter(|&r| r != S0) {
        a.li(register, random.next());
        a.put(Inst { rd: register, rs1: register, ..Inst::new(Op::FmvDX) });
    }
    a.li(S0, DATA).csr(Op::Csrrw, ZERO, FCSR, T1);
    for _ in 0..LENGTH {
        a.put(instruction(&mut random));
    }
    // The last random instruction may skip one.
    a.word(0x13).csr(Op::Csrrs, T0, FCSR, ZERO).op(Op::Wfi);
    a
}

fn outcome(a: &Asm, core: &CoreConfig, slice: Time) -> (Vec<u64>, Vec<u64>, Vec<u8>, u64, u64) {
    let mut bus = Ideal::new(a);
    let mut h = Hart::new(0, core, Hertz::new(1_000_000_000)).expect("a valid core");
    h.reset(BASE, 0, 0);
    let mut now = Time::ZERO;
    loop {
        match h.run(now, now + slice, &mut bus) {
            Stop::SharedAt(t) | Stop::Quantum(t) => now = t,
            Stop::Wfi => break,
            other => panic!("unexpected {other:?}"),
        }
    }
    let mut data = vec![0; 0x1100];
    bus.memory.read_bytes(Addr::new(DATA - 0x880), &mut data).expect("test memory");
    let s = h.stats();
    assert_eq!(s.classes.total(), s.instructions);
    assert_eq!(s.causes.iter().sum::<u64>(), s.cycles);
    let int = (0..32).map(|r| h.register(r)).collect();
    let fp = (0..32).map(|r| h.fp_register(r)).collect();
    (int, fp, data, s.instructions, s.exceptions)
}

#[test]
fn core_kinds_and_slices_agree_on_random_programs() {
    let little = CoreConfig::InOrder(InOrderConfig::little());
    let (mut exceptions, mut stored) = (0, false);
    for seed in 1..=150u64 {
        let a = program(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let reference = outcome(&a, &CoreConfig::Functional, Time::from_ns(1000));
        assert_eq!(reference, outcome(&a, &little, Time::from_ns(1000)), "seed {seed}");
        assert_eq!(reference, outcome(&a, &little, Time::from_ns(3)), "seed {seed}, short slices");
        exceptions += reference.4;
        stored |= reference.2.iter().any(|&b| b != 0);
        assert!(reference.3 > LENGTH, "the program ran through");
    }
    assert!(exceptions > 0 && stored, "illegal rounding modes trap, and stores reach memory");
}
