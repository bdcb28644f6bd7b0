//! Firmware that is none, hangs or traps, and models that do not fit: a message and the right exit code, soon.

mod common;

use common::presil;

const FIRMWARE: &[u8] = include_bytes!("../firmware/prebuilt/firmware.elf");

fn file(name: &str, content: &[u8]) -> String {
    let path = format!("{}/{name}", env!("CARGO_TARGET_TMPDIR"));
    std::fs::write(&path, content).expect("a temporary file");
    path
}

/// Runs a small model on `tiny` with other arguments; it must end with `code`. Its message.
fn ends(code: i32, arguments: &[&str]) -> String {
    let all =
        [&["run", "--soc", "tiny", "--model", "qwen2.5-1.5b", "--prefill", "4", "--decode", "1"], arguments];
    let ran = presil(&all.concat());
    assert_eq!(ran.code, code, "{arguments:?}: {}", ran.err);
    assert!(ran.out.is_empty(), "{arguments:?}: {}", ran.out);
    ran.err
}

/// A riscv64 executable of one segment that holds these instructions and starts at the first.
fn elf(code: &[u32]) -> Vec<u8> {
    let base = isa::memory_map::DRAM_BASE;
    let mut out = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    let bytes = code.len() as u64 * 4;
    // Executable, RISC-V, version; entry, program headers behind this header, no sections.
    for half in [2u16, 243] {
        out.extend(half.to_le_bytes());
    }
    out.extend(1u32.to_le_bytes());
    for word in [base, 64, 0] {
        out.extend(word.to_le_bytes());
    }
    out.extend(0u32.to_le_bytes());
    for half in [64u16, 56, 1, 64, 0, 0] {
        out.extend(half.to_le_bytes());
    }
    // Loadable, read and execute.
    for word in [1u32, 5] {
        out.extend(word.to_le_bytes());
    }
    for word in [120, base, base, bytes, bytes, 4] {
        out.extend(u64::to_le_bytes(word));
    }
    out.extend(code.iter().flat_map(|i| i.to_le_bytes()));
    out
}

#[test]
fn firmware_that_never_ends_is_stopped() {
    // jal x0, 0
    let path = file("spin.elf", &elf(&[0x0000_006F]));
    let message = ends(4, &["--firmware", &path]);
    assert!(message.contains("no mailbox access and no doorbell"), "{message}");
    assert!(message.contains("pc 0x80000000"), "{message}");
    // wfi with no interrupt enabled, then the same again
    let path = file("sleep.elf", &elf(&[0x1050_0073, 0xFFDF_F06F]));
    let message = ends(4, &["--firmware", &path]);
    assert!(message.contains("deadlock") && message.contains("cpu_little0 sleeps"), "{message}");
}

#[test]
fn firmware_that_traps_without_a_handler_is_told() {
    // An instruction of all zeros.
    let path = file("illegal.elf", &elf(&[0]));
    let message = ends(4, &["--firmware", &path]);
    assert!(message.contains("hart 0") && message.contains("mcause"), "{message}");
    // ld x1, 0(x0): address 0 is nowhere.
    let path = file("load.elf", &elf(&[0x0000_3083]));
    let message = ends(4, &["--firmware", &path]);
    assert!(message.contains("mcause"), "{message}");
}

#[test]
fn every_truncated_firmware_is_refused() {
    for length in [0, 3, 16, 63, 64, 200, 3000, 40_000, FIRMWARE.len() - 1] {
        let path = file("truncated.elf", &FIRMWARE[..length]);
        let message = ends(3, &["--firmware", &path]);
        assert!(message.contains("truncated.elf: "), "{length}: {message}");
    }
}

#[test]
fn models_that_do_not_fit_are_refused_with_both_sizes() {
    let message = ends(3, &["--set", "dram.capacity=512 MiB"]);
    assert!(message.contains("dram.capacity is 536870912"), "{message}");
    let message = ends(3, &["--quant", "fp16", "--set", "dram.capacity=1 GiB"]);
    assert!(message.contains("dram.capacity is 1073741824"), "{message}");
    let message = ends(3, &["--set", "npu.rows=0"]);
    assert!(message.contains("npu.rows: expected a power of two"), "{message}");
    let message = ends(3, &["--set", "npu.dma-in-channels=3", "--set", "npu.dma-out-channels=2"]);
    assert!(message.contains("npu.dma-in-channels: expected at most 4 channels"), "{message}");
}

#[test]
fn without_its_driver_the_npu_makes_no_token() {
    let message = ends(4, &["--set", "npu.driver=off"]);
    assert!(message.contains("the device tree has no enabled NPU"), "{message}");
}
