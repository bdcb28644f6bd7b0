//! Proofs over the whole table: no overlaps, round trips, known words.

use super::{Inst, OP_COUNT, ROWS, compressed, decode, decode32, encode};

#[test]
fn no_two_rows_match_the_same_word() {
    for (n, a) in ROWS.iter().enumerate() {
        assert_eq!(a.op as usize, n);
        assert_eq!(a.matches & !a.mask, 0, "{} matches outside its mask", a.mnemonic);
        assert_eq!(a.mask & 0x7f, 0x7f, "{} must fix its opcode", a.mnemonic);
        for b in &ROWS[n + 1..] {
            let common = a.mask & b.mask;
            assert_ne!(a.matches & common, b.matches & common, "{} and {} overlap", a.mnemonic, b.mnemonic);
            assert_ne!(a.mnemonic, b.mnemonic);
        }
    }
    const { assert!(OP_COUNT < 0xff) };
}

/// A small counter-based generator: enough to fill operand fields.
fn mix(n: u64) -> u32 {
    let mut z = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (z >> 32) as u32
}

#[test]
fn every_row_round_trips_with_random_operands() {
    for (n, row) in ROWS.iter().enumerate() {
        for k in 0..500 {
            let word = row.matches | mix((n * 1000 + k) as u64) & !row.mask;
            let inst = decode32(word).unwrap_or_else(|| panic!("{} does not decode", row.mnemonic));
            assert_eq!(inst.op, row.op);
            let again = decode32(encode(&inst)).expect("an encoded instruction decodes");
            assert_eq!(again, inst, "{word:#010x}");
        }
    }
}

#[test]
fn compressed_rows_claim_each_half_word_at_most_once() {
    for half in 0..=u16::MAX {
        let claims = compressed::ROWS.iter().filter(|row| row.claims(half)).count();
        assert!(claims <= usize::from(half & 3 != 3), "{half:#06x} claimed {claims} times");
        if let Some(inst) = compressed::expand(half) {
            let long = decode32(encode(&inst)).expect("an expansion is a legal instruction");
            assert_eq!(Inst { len: 2, ..long }, inst, "{half:#06x}");
        }
    }
}

#[test]
fn known_words_disassemble() {
    // Words and texts as the GNU assembler pairs them.
    for (word, text) in [
        (0x0000_0297, "auipc t0, 0x0"),
        (0xfff0_0513, "addi a0, zero, -1"),
        (0x0053_3423, "sd t0, 8(t1)"),
        (0xfe52_8ee3, "beq t0, t0, pc-4"),
        (0x0040_006f, "jal zero, pc+4"),
        (0x3005_1073, "csrrw zero, mstatus, a0"),
        (0x1005_a52f, "lr.w a0, (a1)"),
        (0x02b5_7553, "fadd.d fa0, fa0, fa1, dyn"),
        (0x4501, "addi a0, zero, 0"),
        (0x8082, "jalr zero, 0(ra)"),
        (0x1141, "addi sp, sp, -16"),
        (0xe406, "sd ra, 8(sp)"),
        (0xbfd5, "jal zero, pc-12"),
    ] {
        let inst = decode(word).expect("a known word decodes");
        assert_eq!(std::format!("{inst}"), text);
    }
}

#[test]
fn reserved_and_foreign_words_are_illegal() {
    // zeros, ones, sret, sfence.vma, reserved c.lui and c.jr, an RV32-only shift amount in a word shift
    for word in [0, u32::MAX, 0x1020_0073, 0x1200_0073, 0x6081, 0x8002, 0x0200_101b] {
        assert!(decode(word).is_none(), "{word:#010x}");
    }
}
