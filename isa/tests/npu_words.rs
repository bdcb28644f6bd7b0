//! The command tables: round trips, reserved bits, widths against an independent bit library, the worked example.

use bitvec::prelude::*;
use isa::npu::layout::Field;
use isa::npu::text::{assemble, disassemble, disassemble_words};
use isa::npu::*;
use proptest::prelude::*;

fn word(seed: [u64; 4]) -> Word {
    Word(seed)
}

fn pinned(w: &Word, fields: &[Field]) {
    // The same field read by shifts and by bitvec must agree: the tables mean what they say.
    let bits = w.0.view_bits::<Lsb0>();
    for f in fields {
        let (lo, hi) = (f.lo as usize, (f.lo + f.width) as usize);
        assert_eq!(w.get(f.lo, f.width), bits[lo..hi].load_le::<u64>(), "{}", f.name);
    }
}

proptest! {
    #[test]
    fn fields_agree_with_bitvec(seed in any::<[u64; 4]>()) {
        let w = word(seed);
        for fields in [Header::FIELDS, Dma::FIELDS, Gemm::FIELDS, VecOp::FIELDS, Ctrl::FIELDS, Epilogue::FIELDS, Index::FIELDS, Position::FIELDS] {
            pinned(&w, fields);
        }
    }

    #[test]
    fn what_decodes_encodes_to_the_same_words(mut seed in any::<[u64; 4]>(), ext in any::<[u64; 4]>(), op in 0usize..4) {
        seed[0] = (seed[0] & !0xFF) | [0x00, 0x20, 0x40, 0x60][op];
        seed[0] &= !(1 << 9);
        let words = [word(seed), word(ext)];
        if let Ok(c) = Command::decode(&words) {
            let (a, b) = c.encode();
            prop_assert_eq!(a, words[0]);
            if let Some(b) = b { prop_assert_eq!(b, words[1]); }
            let text = disassemble(&c);
            let back = assemble(&text).unwrap();
            prop_assert_eq!(back[0], words[0], "{}", text);
        }
    }

    #[test]
    fn no_word_panics(seed in any::<[u64; 4]>(), ext in any::<[u64; 4]>()) {
        let _ = Command::decode(&[word(seed), word(ext)]);
        let _ = Command::decode(&[word(seed)]);
    }
}

#[test]
fn the_worked_example_of_the_proposal() {
    let g = Gemm {
        a: 0x100,
        b: 0x2000,
        s: 0x1800,
        n: 255,
        k: 2047,
        ast: 128,
        bst: 4,
        cst: 32,
        af: 6,
        bf: 0,
        cf: 8,
        df: 3,
        init: 1,
        grp: 5,
        ..Gemm::default()
    };
    let mut c = Command::gemm(g, None);
    c.header = Header { w0_id: 1, w0_n: 1, s0_id: 2, s0_n: 1, tag: 7, ..Header::default() };
    let hex: String = c.encode().0.to_bytes().iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(hex, "40004100200400070001000002000000000300e01ffe0f402000103040130500");
    insta::assert_snapshot!(disassemble(&c), @"gemm a=256 b=0x2000 s=0x1800 n=255 k=2047 ast=128 bst=4 cst=32 af=fp16 bf=int4 cf=fp32 df=3 init=1 grp=5 w0_id=1 w0_n=1 s0_id=2 s0_n=1 tag=7");
}

#[test]
fn reserved_bits_and_unknown_codes_are_refused() {
    let (mut w, _) = Command::vec(VecFn::Cvt, VecOp::default(), None).encode();
    w.set(255, 1, 1);
    assert_eq!(Command::decode(&[w]), Err(DecodeError::ReservedBits));
    let (mut w, _) = Command::ctrl(CtrlOp::Nop, Ctrl::default()).encode();
    w.set(156, 36, 1);
    assert_eq!(Command::decode(&[w]), Err(DecodeError::ReservedBits));
    w.set(156, 36, 0);
    w.set(64, 6, 60);
    assert_eq!(Command::decode(&[w]), Err(DecodeError::Code("op", 60)));
    let mut opcode = Word::default();
    opcode.set(0, 8, 0x80);
    assert_eq!(Command::decode(&[opcode]), Err(DecodeError::Opcode(0x80)));
    let (mut g, _) = Command::gemm(Gemm::default(), None).encode();
    g.set(219, 4, 15);
    assert_eq!(Command::decode(&[g]), Err(DecodeError::Code("af", 15)));
    g.set(219, 4, 0);
    g.set(8, 2, 1);
    assert_eq!(Command::decode(&[g]), Err(DecodeError::Truncated));
    assert_eq!(Command::decode(&[g, Word([9, 0, 0, 0])]), Err(DecodeError::ExtensionType(9)));
}

/// Every field of the index extension at its largest value, alone and all together, is text and back.
#[test]
fn the_index_extension_round_trips_as_text() {
    let largest = |f: &Field| (1u64 << f.width) - 1;
    let fields: Vec<&Field> = Index::FIELDS.iter().filter(|f| f.name != "type_").collect();
    let mut all = Index::default();
    for f in &fields {
        let mut one = Index::default();
        assert!(one.set_field(f.name, largest(f)) && all.set_field(f.name, largest(f)));
        for index in [one, all] {
            let mut c = Command::dma(Dma { gs: 1, ..Dma::default() });
            c.extension = Some(Extension::Index(index));
            let (first, second) = c.encode();
            let text = disassemble(&c);
            let words = assemble(&text).unwrap_or_else(|e| panic!("{text}: {}", e.message));
            assert_eq!(words, [first, second.expect("an extension")], "{text}");
        }
    }
    let text =
        "dma moff=4096 n0=15 n1=31 codec=8 gs=3 | idx icnt=63 ibound=1023 plog=12 ptab=64 qgrp=3 qf=int8";
    let words = assemble(text).expect("assembles");
    assert_eq!(disassemble_words(&words).expect("decodes"), [text.replace("4096", "0x1000")]);
    assert_eq!(isa::npu::dma::kv_row_bytes(128, 8, 3), Some(144), "128 codes, 4 scales, padded to 16");
    assert_eq!(isa::npu::dma::kv_row_bytes(128, 4, 1), Some(80));
    assert_eq!(isa::npu::dma::kv_row_bytes(128, 4, 7), None);
}

#[test]
fn assembler_errors_name_line_and_nearest() {
    let e = assemble("dma n0=3\ngemm mm=3").unwrap_err();
    assert_eq!((e.line, e.message.as_str()), (2, "unknown field `mm`; nearest: `m`"));
    let e = assemble("vec.rmsnrm").unwrap_err();
    assert_eq!(e.message, "unknown vector function `rmsnrm`; nearest: `rmsnorm`");
    assert_eq!(assemble("gemm m=4096").unwrap_err().message, "`m` is 12 bits wide, 4096 does not fit");
    let words =
        assemble("vec.fa_step x=1 xs=1 xf=fp32 | pos q0=7 win=0 # attention\n\nctrl.irq tag=3").unwrap();
    assert_eq!(words.len(), 3);
    assert_eq!(disassemble_words(&words).unwrap().len(), 2);
}

#[test]
fn codes_are_unique_and_named_once() {
    for (i, a) in VecFn::ALL.iter().enumerate() {
        assert!(VecFn::ALL[i + 1..].iter().all(|b| a.code() != b.code() && a.name() != b.name()));
    }
    for (i, a) in CtrlOp::ALL.iter().enumerate() {
        assert_eq!(a.code(), i as u64);
    }
    assert_eq!(Format::ALL.len(), 16);
    let mut offsets: Vec<u64> = isa::npu::registers::TABLE.iter().map(|r| r.offset).collect();
    offsets.dedup();
    assert_eq!(offsets.len(), isa::npu::registers::TABLE.len());
    assert!(isa::memory_map::TABLE.windows(2).all(|w| w[0].base + w[0].bytes <= w[1].base));
}
