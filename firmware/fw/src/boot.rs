//! Entry of every hart, and the way into and out of a trap.
//!
//! Hart 0 clears the statics and goes on; the others sleep until hart 0 rings them, which it does only once the
//! statics are cleared. `tp` holds the hart's number. The firmware uses no floating point: `mstatus.FS` stays off,
//! so an instruction that did would be reported as a trap instead of losing registers.
#![allow(unsafe_code, reason = "what runs before Rust can, and the symbols it is entered by")]

use core::arch::global_asm;

use board::tree::MAX_HARTS;

global_asm!(
    ".section .text.boot, \"ax\"",
    ".global _start",
    "_start:",
    "csrw mie, zero",
    "csrci mstatus, 8",
    ".option push",
    ".option norelax",
    "la gp, __global_pointer$",
    ".option pop",
    "mv tp, a0",
    "la t0, trap_entry",
    "csrw mtvec, t0",
    "bnez a0, 3f",
    // Hart 0.
    "la sp, __stack_top",
    "la t0, __bss_start",
    "la t1, __bss_end",
    "1:",
    "bgeu t0, t1, 2f",
    "sd zero, 0(t0)",
    "addi t0, t0, 8",
    "j 1b",
    "2:",
    "call {main}",
    // The others; those without a stack stay here for good.
    "3:",
    "li t0, {harts}",
    "bltu a0, t0, 5f",
    "4:",
    "wfi",
    "j 4b",
    "5:",
    "la sp, __secondary_stacks_top",
    "addi t0, a0, -1",
    "slli t0, t0, 12",
    "sub sp, sp, t0",
    "li t0, 8",
    "csrw mie, t0",
    "6:",
    "wfi",
    "csrr t0, mip",
    "andi t0, t0, 8",
    "beqz t0, 6b",
    "call {secondary}",
    main = sym hart0,
    secondary = sym secondary,
    harts = const MAX_HARTS,
);

// Saves what a call may change, hands over to `trap`, resumes. `mtvec` needs four-byte alignment.
global_asm!(
    ".section .text.boot, \"ax\"",
    ".balign 4",
    "trap_entry:",
    "addi sp, sp, -128",
    "sd ra, 0(sp)",
    "sd t0, 8(sp)",
    "sd t1, 16(sp)",
    "sd t2, 24(sp)",
    "sd t3, 32(sp)",
    "sd t4, 40(sp)",
    "sd t5, 48(sp)",
    "sd t6, 56(sp)",
    "sd a0, 64(sp)",
    "sd a1, 72(sp)",
    "sd a2, 80(sp)",
    "sd a3, 88(sp)",
    "sd a4, 96(sp)",
    "sd a5, 104(sp)",
    "sd a6, 112(sp)",
    "sd a7, 120(sp)",
    "csrr a0, mcause",
    "csrr a1, mepc",
    "csrr a2, mtval",
    "call {trap}",
    "ld ra, 0(sp)",
    "ld t0, 8(sp)",
    "ld t1, 16(sp)",
    "ld t2, 24(sp)",
    "ld t3, 32(sp)",
    "ld t4, 40(sp)",
    "ld t5, 48(sp)",
    "ld t6, 56(sp)",
    "ld a0, 64(sp)",
    "ld a1, 72(sp)",
    "ld a2, 80(sp)",
    "ld a3, 88(sp)",
    "ld a4, 96(sp)",
    "ld a5, 104(sp)",
    "ld a6, 112(sp)",
    "ld a7, 120(sp)",
    "addi sp, sp, 128",
    "mret",
    trap = sym trap,
);

extern "C" fn hart0(_hart: usize, tree: usize) -> ! {
    crate::start::run(tree)
}

extern "C" fn secondary(hart: usize) -> ! {
    crate::harts::serve(hart)
}

extern "C" fn trap(cause: usize, pc: usize, value: usize) {
    crate::interrupts::dispatch(cause, pc, value)
}
