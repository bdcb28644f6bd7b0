//! `presil exec` on hand-made programs: exit codes, console, commit log, hangs, and files that are no programs.

mod common;

use common::{Ran, presil};

/// Where a program starts and, 8 KiB further, `tohost`.
const BASE: u64 = 0x8000_0000;
const TOHOST: u64 = BASE + 0x2000;
/// Registers.
const T0: u32 = 5;
const T1: u32 = 6;
const A0: u32 = 10;
/// A jump to itself, `wfi`, and a word that is no instruction.
const FOREVER: u32 = 0x0000_006f;
const WFI: u32 = 0x1050_0073;
const ILLEGAL: u32 = 0;

fn addi(rd: u32, rs: u32, value: u32) -> u32 {
    value << 20 | rs << 15 | rd << 7 | 0x13
}

fn slli(rd: u32, rs: u32, by: u32) -> u32 {
    by << 20 | rs << 15 | 1 << 12 | rd << 7 | 0x13
}

/// `sd` of a register to `tohost`, whose address is in `t0`.
fn tell_host(register: u32) -> u32 {
    register << 20 | T0 << 15 | 3 << 12 | 0x23
}

/// The first instruction of every program: `auipc t0, 2`, the address of `tohost`.
const HOST_ADDRESS: u32 = 2 << 12 | T0 << 7 | 0x17;

fn exit(code: u32) -> Vec<u32> {
    vec![HOST_ADDRESS, addi(A0, 0, code << 1 | 1), tell_host(A0), FOREVER]
}

/// Writes one byte to the console and exits with 0.
fn say(byte: u8) -> Vec<u32> {
    let print = [addi(T1, 0, 0x101), slli(T1, T1, 48), addi(T1, T1, byte.into()), tell_host(T1)];
    [&[HOST_ADDRESS][..], &print, &exit(0)[1..]].concat()
}

/// An executable of one segment at `BASE` with the symbol `tohost`.
fn elf(code: &[u32]) -> Vec<u8> {
    const STRINGS: &[u8] = b"\0tohost\0\0";
    let code: Vec<u8> = code.iter().flat_map(|w| w.to_le_bytes()).collect();
    let (code_at, code_bytes) = (64 + 56, code.len() as u64);
    let symbols_at = (code_at + code_bytes).next_multiple_of(8);
    let strings_at = symbols_at + 48;
    let sections_at = (strings_at + STRINGS.len() as u64).next_multiple_of(8);
    let mut file: Vec<u8> = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    let mut put = |values: &[(u64, usize)]| {
        values.iter().for_each(|&(v, n)| file.extend(&v.to_le_bytes()[..n]));
    };
    // Header: executable, RISC-V, entry, tables.
    put(&[(2, 2), (243, 2), (1, 4), (BASE, 8), (64, 8), (sections_at, 8), (0, 4)]);
    put(&[(64, 2), (56, 2), (1, 2), (64, 2), (3, 2), (2, 2)]);
    // The segment, with room for `tohost`.
    put(&[(1, 4), (5, 4), (code_at, 8), (BASE, 8), (BASE, 8), (code_bytes, 8), (0x3000, 8), (8, 8)]);
    code.iter().for_each(|&byte| put(&[(byte.into(), 1)]));
    (code_at + code_bytes..symbols_at + 24).for_each(|_| put(&[(0, 1)]));
    put(&[(1, 4), (0x10, 1), (0, 1), (0xfff1, 2), (TOHOST, 8), (8, 8)]);
    STRINGS.iter().for_each(|&byte| put(&[(byte.into(), 1)]));
    (strings_at + STRINGS.len() as u64..sections_at).for_each(|_| put(&[(0, 1)]));
    let mut section = |kind: u64, at: u64, bytes: u64, link: u64, entry: u64| {
        put(&[(0, 4), (kind, 4), (0, 8), (0, 8), (at, 8), (bytes, 8), (link, 4), (1, 4), (8, 8), (entry, 8)]);
    };
    section(0, 0, 0, 0, 0);
    section(2, symbols_at, 48, 2, 24);
    section(3, strings_at, STRINGS.len() as u64, 0, 0);
    file
}

/// Runs a file with these options; the temporary directory is left out of the messages.
fn exec(name: &str, content: &[u8], options: &[&str]) -> Ran {
    let path = format!("{}/{name}", env!("CARGO_TARGET_TMPDIR"));
    std::fs::write(&path, content).expect("a temporary file");
    let mut ran = presil(&[&["exec", &path], options].concat());
    ran.err = ran.err.replace(&format!("{}/", env!("CARGO_TARGET_TMPDIR")), "");
    ran
}

fn refused(name: &str, content: &[u8]) -> String {
    let ran = exec(name, content, &[]);
    assert_eq!(ran.code, 3, "{name}: {}", ran.err);
    assert!(ran.out.is_empty(), "{name} wrote to standard output: {}", ran.out);
    ran.err
}

#[test]
fn the_exit_code_says_whether_the_guest_passed() {
    for core in ["functional", "little"] {
        let passed = exec(&format!("pass-{core}.elf"), &elf(&exit(0)), &["--core", core, "--json"]);
        assert_eq!(passed.code, 0, "{}", passed.err);
        let result: serde_json::Value = serde_json::from_str(&passed.out).expect("one JSON document");
        assert_eq!(result["exit_code"], 0);
        assert_eq!(result["instructions"], 3);
        assert_eq!(result["harts"][0]["instructions"], 3);
        assert_eq!(result["harts"][0]["causes"]["total"], result["cycles"]);
        let failed = exec(&format!("fail-{core}.elf"), &elf(&exit(7)), &["--core", core, "--json"]);
        assert_eq!(failed.code, 1, "{}", failed.err);
        let result: serde_json::Value = serde_json::from_str(&failed.out).expect("one JSON document");
        assert_eq!(result["exit_code"], 7);
    }
    let functional = exec("fail.elf", &elf(&exit(7)), &[]);
    insta::assert_snapshot!(functional.err, @"failed: fail.elf: exit code 7, 3 instructions in 3 cycles, 1.00 a cycle, 1 hart");
}

#[test]
fn the_little_core_takes_longer_than_the_functional_one() {
    let cycles = |core: &str| {
        let ran = exec(&format!("cycles-{core}.elf"), &elf(&exit(0)), &["--core", core, "--json"]);
        let result: serde_json::Value = serde_json::from_str(&ran.out).expect("one JSON document");
        result["cycles"].as_u64().expect("a number")
    };
    assert_eq!(cycles("functional"), 3);
    // Its first fetch misses every cache and goes to memory: 100 ns are 180 cycles at 1.8 GHz.
    assert!(cycles("little") > 180);
}

#[test]
fn the_console_goes_to_standard_output_unless_json_does() {
    let plain = exec("say.elf", &elf(&say(b'k')), &[]);
    assert_eq!((plain.code, plain.out.as_str()), (0, "k"), "{}", plain.err);
    insta::assert_snapshot!(plain.err, @"passed: say.elf: exit code 0, 7 instructions in 7 cycles, 1.00 a cycle, 1 hart");
    let json = exec("say-json.elf", &elf(&say(b'k')), &["--json"]);
    assert!(json.err.starts_with('k'), "{}", json.err);
    assert!(serde_json::from_str::<serde_json::Value>(&json.out).is_ok(), "{}", json.out);
}

#[test]
fn commits_are_logged_one_a_line() {
    let path = format!("{}/commits.log", env!("CARGO_TARGET_TMPDIR"));
    let ran = exec("commits.elf", &elf(&exit(0)), &["--log-commits", &path]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let log = std::fs::read_to_string(&path).expect("the log");
    insta::assert_snapshot!(log, @r"
    core   0: 3 0x0000000080000000 (0x00002297) x5  0x0000000080002000
    core   0: 3 0x0000000080000004 (0x00100513) x10 0x0000000000000001
    core   0: 3 0x0000000080000008 (0x00a2b023) mem 0x0000000080002000 0x0000000000000001
    ");
    let nowhere = format!("{}/no-such-folder/commits.log", env!("CARGO_TARGET_TMPDIR"));
    let ran = exec("commits.elf", &elf(&exit(0)), &["--log-commits", &nowhere]);
    assert_eq!(ran.code, 3);
    assert!(
        ran.err.contains("--log-commits no-such-folder/commits.log: cannot write the commit log"),
        "{}",
        ran.err
    );
}

#[test]
fn a_guest_that_does_not_come_to_an_exit_is_a_simulation_fault() {
    let fault = |name: &str, code: &[u32], options: &[&str]| {
        let ran = exec(name, &elf(code), options);
        assert_eq!(ran.code, 4, "{}", ran.err);
        assert!(ran.out.is_empty(), "{}", ran.out);
        ran.err
    };
    insta::assert_snapshot!(fault("hang.elf", &[FOREVER], &["--max-instructions", "1000"]), @r"
    simulation fault: hang.elf: guest fault: no exit after 1000 instructions; hart 0 running at 0x80000000
      help: --max-instructions N lets it run on, --log-commits FILE shows what it does
    ");
    insta::assert_snapshot!(fault("sleep.elf", &[WFI, FOREVER], &[]), @"simulation fault: sleep.elf: guest fault: deadlock: hart 0 in wfi before 0x80000004 waits for nothing: it enabled no interrupt");
    insta::assert_snapshot!(fault("lost.elf", &[ILLEGAL], &[]), @"simulation fault: lost.elf: guest fault: hart 0: the trap handler at 0x0 itself traps (mcause 1, mtval 0x0)");
}

#[test]
fn files_that_are_no_programs_are_refused_with_their_place() {
    insta::assert_snapshot!(refused("short.elf", &[&b"\x7fELF"[..], &[0; 20]].concat()), @"error: short.elf: cannot load the ELF: not a 64-bit ELF: Invalid ELF header size or alignment");
    insta::assert_snapshot!(refused("noise.elf", &[0xa5; 4096]), @"error: noise.elf: cannot load the ELF: not a 64-bit ELF: Unsupported ELF header");
    insta::assert_snapshot!(refused("empty.elf", b""), @"error: empty.elf: cannot load the ELF: not a 64-bit ELF: Invalid ELF header size or alignment");
    let good = elf(&exit(0));
    let mut x86 = good.clone();
    x86[18] = 62;
    insta::assert_snapshot!(refused("x86.elf", &x86), @"error: x86.elf: cannot load the ELF: machine 62: expected RISC-V (243)");
    let mut shared = good.clone();
    shared[16] = 3;
    insta::assert_snapshot!(refused("shared.elf", &shared), @"error: shared.elf: cannot load the ELF: type 3: expected a statically linked executable (2)");
    let mut low = good.clone();
    low[64 + 24 + 3] = 0;
    insta::assert_snapshot!(refused("low.elf", &low), @"error: low.elf: cannot load the ELF: segment 0: 0x0 + 0x3000 is not inside DRAM (0x80000000 + 0x80000000)");
    let mut cut = good;
    cut.truncate(120);
    assert!(refused("cut.elf", &cut).starts_with("error: cut.elf: cannot load the ELF: "));
}

#[test]
fn missing_files_and_impossible_options_are_refused() {
    let missing = presil(&["exec", "no-such.elf"]);
    assert_eq!(missing.code, 3);
    assert!(missing.err.starts_with("error: no-such.elf: cannot be read: "), "{}", missing.err);
    let folder = presil(&["exec", env!("CARGO_TARGET_TMPDIR")]);
    assert_eq!(folder.code, 3, "{}", folder.err);
    for (harts, code) in [("0", 3), ("65", 3), ("-1", 2), ("many", 2)] {
        let ran = exec(&format!("harts{harts}.elf"), &elf(&exit(0)), &["--harts", harts]);
        assert_eq!(ran.code, code, "{}", ran.err);
        assert!(code == 2 || ran.err.contains("expected 1 to 64"), "{}", ran.err);
    }
    assert_eq!(exec("zero.elf", &elf(&exit(0)), &["--max-instructions", "0"]).code, 2);
    assert_eq!(exec("core.elf", &elf(&exit(0)), &["--core", "giant"]).code, 2);
    assert_eq!(exec("harts2.elf", &elf(&exit(0)), &["--harts", "2"]).code, 0);
}
