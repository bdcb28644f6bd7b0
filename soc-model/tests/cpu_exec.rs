//! `exec` end to end on hand-made ELF files: exits, console, several harts, faults, hostile input.

mod cpu_support;

use cpu_support::*;
use isa::rv64::Op;
use soc_model::exec::{DRAM_BYTES, ExecCore, ExecError, ExecOptions, ExecResult, run};

/// Where the test images keep their host words and data.
const TOHOST: u64 = BASE + 0x2000;
const FROMHOST: u64 = BASE + 0x2040;
const DATA: u64 = BASE + 0x3000;
const CLINT: u64 = 0x0200_0000;
const UART: u64 = 0x1000_0000;

const MSTATUS: i32 = 0x300;
const MIE: i32 = 0x304;
const MTVEC: i32 = 0x305;
const MHARTID: i32 = 0xf14;

/// An ELF with one segment at `BASE` and the two host symbols.
fn elf(code: &[u8]) -> Vec<u8> {
    let strings = b"\0tohost\0fromhost\0";
    let symbols_at = 0x1000 + code.len().next_multiple_of(8);
    let strings_at = symbols_at + 3 * 24;
    let sections_at = (strings_at + strings.len()).next_multiple_of(8);
    let mut f = Vec::new();
    f.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    let half = |f: &mut Vec<u8>, v: u16| f.extend(v.to_le_bytes());
    let word = |f: &mut Vec<u8>, v: u32| f.extend(v.to_le_bytes());
    let long = |f: &mut Vec<u8>, v: usize| f.extend((v as u64).to_le_bytes());
    let [base, tohost, fromhost] =
        [BASE, TOHOST, FROMHOST].map(|v| usize::try_from(v).expect("addresses fit the host"));
    half(&mut f, 2);
    half(&mut f, 243);
    word(&mut f, 1);
    long(&mut f, base);
    long(&mut f, 64);
    long(&mut f, sections_at);
    word(&mut f, 0);
    for v in [64, 56, 1, 64, 3, 2] {
        half(&mut f, v);
    }
    word(&mut f, 1);
    word(&mut f, 5);
    for v in [0x1000, base, base, code.len(), 0x10000, 0x1000] {
        long(&mut f, v);
    }
    f.resize(0x1000, 0);
    f.extend(code);
    f.resize(symbols_at, 0);
    f.resize(symbols_at + 24, 0);
    for (name, value) in [(1, tohost), (8, fromhost)] {
        word(&mut f, name);
        half(&mut f, 0x10);
        half(&mut f, 0xfff1);
        long(&mut f, value);
        long(&mut f, 8);
    }
    f.extend(strings);
    f.resize(sections_at, 0);
    let section = |f: &mut Vec<u8>, kind: u32, at: usize, bytes: usize, link: u32, entry: usize| {
        word(f, 0);
        word(f, kind);
        for v in [0, 0, at, bytes] {
            long(f, v);
        }
        word(f, link);
        word(f, 1);
        long(f, 1);
        long(f, entry);
    };
    section(&mut f, 0, 0, 0, 0, 0);
    section(&mut f, 2, symbols_at, 72, 2, 24);
    section(&mut f, 3, strings_at, strings.len(), 0, 0);
    f
}

fn options(core: ExecCore, harts: usize) -> ExecOptions {
    ExecOptions { core, harts, max_instructions: 2_000_000 }
}

fn execute(a: &Asm, core: ExecCore, harts: usize) -> Result<ExecResult, ExecError> {
    run(&elf(&a.bytes()), &options(core, harts), None)
}

/// Writes the exit code in `A0` to `tohost`, then loops.
fn exit(a: &mut Asm) {
    a.i(Op::Slli, A0, A0, 1).i(Op::Ori, A0, A0, 1).li(T0, TOHOST).s(Op::Sd, A0, T0, 0);
    a.label("forever").jump(ZERO, "forever");
}

const CORES: [ExecCore; 2] = [ExecCore::Functional, ExecCore::Little];

#[test]
fn exit_codes_and_counts_come_out() {
    for (code, core) in [(0, CORES[0]), (0, CORES[1]), (21, CORES[0]), (1337, CORES[1])] {
        let mut a = Asm::new();
        a.li(A0, code);
        exit(&mut a);
        let r = execute(&a, core, 1).expect("it exits");
        assert_eq!(r.exit_code, i64::try_from(code).expect("small"));
        assert!(r.instructions >= a.here() / 4 - 1 && r.instructions <= a.here() / 4, "{}", r.instructions);
        let h = &r.harts[0];
        assert_eq!(h.causes["total"], h.cycles);
        assert_eq!(h.causes.iter().filter(|(k, _)| **k != "total").map(|(_, v)| v).sum::<u64>(), h.cycles);
    }
}

#[test]
fn console_by_htif_by_call_and_by_uart() {
    let mut a = Asm::new();
    // putchar 'H' over device 1
    a.li(T0, TOHOST).li(T1, 1 << 56 | 1 << 48 | u64::from(b'H')).s(Op::Sd, T1, T0, 0);
    a.li(S0, FROMHOST).label("answer").i(Op::Ld, T2, S0, 0).branch(Op::Beq, T2, ZERO, "answer");
    a.s(Op::Sd, ZERO, S0, 0);
    // write(1, "i!", 2) by the proxy
    a.li(S1, DATA).li(T1, u64::from(b'i') | u64::from(b'!') << 8).s(Op::Sd, T1, S1, 64);
    a.li(T1, 64).s(Op::Sd, T1, S1, 0).li(T1, 1).s(Op::Sd, T1, S1, 8);
    a.i(Op::Addi, T1, S1, 64).s(Op::Sd, T1, S1, 16).li(T1, 2).s(Op::Sd, T1, S1, 24);
    a.s(Op::Sd, S1, T0, 0);
    a.label("done").i(Op::Ld, T2, S0, 0).branch(Op::Beq, T2, ZERO, "done");
    a.i(Op::Ld, A1, S1, 0).li(T1, UART).li(T2, u64::from(b'?')).s(Op::Sb, T2, T1, 0);
    // The call's result, 2, becomes the exit code.
    a.i(Op::Addi, A0, A1, 0);
    exit(&mut a);
    for core in CORES {
        let r = execute(&a, core, 1).expect("it exits");
        assert_eq!((r.exit_code, r.console.as_slice()), (2, b"Hi!?".as_slice()));
    }
}

#[test]
fn harts_count_together_and_wake_each_other() {
    let mut a = Asm::new();
    a.li(S0, DATA).li(T2, 100).li(T1, 1).label("count").r(Op::AmoaddD, T0, S0, T1);
    a.i(Op::Addi, T2, T2, -1).branch(Op::Bne, T2, ZERO, "count");
    // Every hart but the first sends hart 0 a software interrupt and sleeps for good.
    a.csr(Op::Csrrs, A1, MHARTID, ZERO).li(S1, CLINT).branch(Op::Beq, A1, ZERO, "first");
    a.s(Op::Sw, T1, S1, 0).label("sleep").op(Op::Wfi).jump(ZERO, "sleep");
    a.label("first").li(T1, 8).csr(Op::Csrrw, ZERO, MIE, T1).li(A2, 400);
    a.label("wait").op(Op::Wfi).s(Op::Sw, ZERO, S1, 0).i(Op::Ld, A0, S0, 0).branch(Op::Bne, A0, A2, "wait");
    exit(&mut a);
    for core in CORES {
        let r = execute(&a, core, 4).expect("it exits");
        assert_eq!(r.exit_code, 400);
        assert_eq!(r.harts.len(), 4);
        assert!(r.harts.iter().all(|h| h.classes.amo == 100));
        assert_eq!(r.instructions, r.harts.iter().map(|h| h.instructions).sum::<u64>());
        let again = execute(&a, core, 4).expect("it exits");
        assert_eq!(r, again, "a run repeats exactly");
    }
}

#[test]
fn a_timer_interrupt_comes_at_its_time() {
    let mut a = Asm::new();
    a.la(T0, "handler").csr(Op::Csrrw, ZERO, MTVEC, T0).li(S0, CLINT + 0x4000).li(T1, 500);
    a.s(Op::Sd, T1, S0, 0).li(T1, 1 << 7).csr(Op::Csrrw, ZERO, MIE, T1).csr(Op::Csrrsi, ZERO, MSTATUS, 8);
    a.label("sleep").op(Op::Wfi).jump(ZERO, "sleep");
    a.label("handler").csr(Op::Csrrs, A0, 0xc01, ZERO);
    exit(&mut a);
    for core in CORES {
        let r = execute(&a, core, 1).expect("it exits");
        assert!((500..=502).contains(&r.exit_code), "mtime in the handler: {}", r.exit_code);
        assert_eq!(r.harts[0].interrupts, 1);
        assert!(r.harts[0].causes["idle"] > 40_000, "50 microseconds asleep");
    }
}

#[test]
fn guests_that_do_not_end_are_named() {
    let fault = |emit: &dyn Fn(&mut Asm), harts| {
        let mut a = Asm::new();
        emit(&mut a);
        let error = execute(&a, ExecCore::Little, harts).expect_err("it cannot exit");
        assert!(error.is_guest_fault());
        error
    };
    let hung = fault(&|a| _ = a.label("x").jump(ZERO, "x"), 2);
    assert!(matches!(hung, ExecError::Hung { instructions: 2_000_000, .. }), "{hung}");
    let asleep = fault(
        &|a| {
            a.li(T1, 8).csr(Op::Csrrw, ZERO, MIE, T1).label("x").op(Op::Wfi).jump(ZERO, "x");
        },
        2,
    );
    let text = asleep.to_string();
    assert!(matches!(asleep, ExecError::Deadlock { .. }));
    assert!(
        text.contains("hart 0") && text.contains("hart 1") && text.contains("software interrupt"),
        "{text}"
    );
    let lost = fault(&|a| _ = a.word(0), 1);
    assert!(matches!(lost, ExecError::Lost { hart: 0, pc: 0, cause: 1, .. }), "{lost}");
}

#[test]
fn the_commit_log_reads_like_spikes() {
    let mut a = Asm::new();
    a.i(Op::Auipc, T0, 0, 0).i(Op::Ld, A0, T0, 0).s(Op::Sw, T0, T0, 0x400).li(A0, 0);
    exit(&mut a);
    let mut log = Vec::new();
    let result = run(&elf(&a.bytes()), &options(ExecCore::Functional, 1), Some(&mut log)).expect("it exits");
    let text = String::from_utf8(log).expect("text");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len() as u64, result.instructions);
    assert_eq!(lines[0], "core   0: 3 0x0000000080000000 (0x00000297) x5  0x0000000080000000");
    assert!(lines[1].starts_with("core   0: 3 0x0000000080000004 (0x0002b503) x10 0x"));
    assert!(lines[1].ends_with(" mem 0x0000000080000000"));
    assert_eq!(lines[2], "core   0: 3 0x0000000080000008 (0x4052a023) mem 0x0000000080000400 0x80000000");
}

#[test]
fn hostile_files_are_errors_and_never_panics() {
    let mut a = Asm::new();
    a.li(A0, 0);
    exit(&mut a);
    let good = elf(&a.bytes());
    let small = ExecOptions { core: ExecCore::Functional, harts: 1, max_instructions: 2_000 };
    assert!(run(&good, &small, None).is_ok());
    for len in (0..0x1000).step_by(7).chain([0x1000, good.len() - 1]) {
        let cut = run(&good[..len], &small, None);
        assert!(cut.is_err() || len > 0x1000, "{len} bytes of {} were accepted", good.len());
    }
    // Every field of the headers, the program header, the symbols and the sections with hostile values.
    let places = (16..120).chain(0x1000 + a.bytes().len()..good.len());
    let mut refused = 0;
    for at in places {
        for value in [0u8, 1, 0x7f, 0x80, 0xff] {
            let mut file = good.clone();
            file[at] = value;
            match run(&file, &small, None) {
                Err(ExecError::Elf(text)) => {
                    assert!(!text.is_empty());
                    refused += 1;
                }
                Err(other) => assert!(other.is_guest_fault(), "{other}"),
                Ok(_) => {}
            }
        }
    }
    assert!(refused > 100, "{refused}");
}

#[test]
fn segments_outside_dram_or_over_each_other_are_refused() {
    let mut a = Asm::new();
    exit(&mut a);
    let good = elf(&a.bytes());
    let message = |at: usize, value: u64| {
        let mut file = good.clone();
        file[at..at + 8].copy_from_slice(&value.to_le_bytes());
        let error = run(&file, &options(ExecCore::Functional, 1), None).expect_err("refused");
        assert!(!error.is_guest_fault());
        error.to_string()
    };
    let (paddr, filesz, memsz, entry) = (64 + 24, 64 + 32, 64 + 40, 24);
    assert!(message(paddr, 0x1000).contains("not inside DRAM"));
    assert!(message(paddr, u64::MAX - 0xff).contains("not inside DRAM"));
    assert!(message(memsz, DRAM_BYTES + 1).contains("not inside DRAM"));
    assert!(message(filesz, 0x2_0000).contains("more bytes in the file"));
    assert!(message(entry, BASE + 1).contains("entry"));
    assert!(message(entry, BASE + 0x10000).contains("entry"));
    let none = ExecOptions { core: ExecCore::Functional, harts: 0, max_instructions: 1 };
    assert!(matches!(run(&good, &none, None), Err(ExecError::Option { option: "harts", .. })));
}
