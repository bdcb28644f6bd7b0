//! The contract of the DMA engine: every code of its tables with every other is executed as the reference says or is
//! refused, every sentence a fault can say is said, and no words make it panic.
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap,
    reason = "test sizes are small"
)]

mod dma_common;

use std::collections::BTreeSet;

use dma_common::{BASE, Flat, MEMORY, Random, World, config, functional, reference, timed};
use isa::npu::dma::{Addressing, Codec, DmaDirection, Reduction, Transform};
use isa::npu::registers::FaultCode;
use isa::npu::{Body, Command, Word};
use npu_model::codec::{entropy, zero_rle};
use npu_model::dma::{Direction, Region, Transfer};
use npu_model::{Cores, Fault, Memory};

/// One choice of every code.
#[derive(Clone, Copy, Debug)]
struct Combination {
    dir: DmaDirection,
    codec: Codec,
    tform: Transform,
    gs: Addressing,
    red: Option<Reduction>,
    zp: bool,
}

impl Combination {
    fn all() -> Vec<Self> {
        let mut out = Vec::new();
        let reds: Vec<Option<Reduction>> =
            core::iter::once(None).chain(Reduction::ALL.iter().map(|r| Some(*r))).collect();
        for &dir in DmaDirection::ALL {
            for &codec in Codec::ALL {
                for &tform in Transform::ALL {
                    for &gs in Addressing::ALL {
                        for &red in &reds {
                            for zp in [false, true] {
                                out.push(Self { dir, codec, tform, gs, red, zp });
                            }
                        }
                    }
                }
            }
        }
        out
    }

    fn streamed(&self) -> bool {
        matches!(self.codec, Codec::ZeroRle | Codec::Entropy)
    }

    /// Whether the command set gives the combination a meaning.
    fn executes(&self) -> bool {
        use DmaDirection::{Copy, Fill, Load, Store};
        let listed = matches!(self.gs, Addressing::Gather | Addressing::Scatter);
        let own_listed = listed && (self.gs == Addressing::Scatter) == (self.dir == Load);
        let codec = match self.codec {
            Codec::None => true,
            Codec::ZeroRle | Codec::Entropy => self.dir == Load && !listed,
            Codec::Palette | Codec::Sparse24 | Codec::KvDequantise => self.dir == Load,
            Codec::Nibble | Codec::MxSplit => matches!(self.dir, Load | Store),
            Codec::KvQuantise => self.dir == Store,
        };
        let reduced = self.tform == Transform::None && !(self.dir == Store && self.codec != Codec::None);
        let nothing = self.codec == Codec::None
            && self.tform == Transform::None
            && self.gs == Addressing::Dense
            && self.red.is_none()
            && !self.zp;
        codec
            && (self.gs != Addressing::Paged || matches!(self.dir, Load | Store))
            && (self.tform == Transform::None || !own_listed)
            && (self.red.is_none() || reduced)
            && (!self.zp || matches!(self.dir, Load | Copy))
            && (self.dir != Fill || nothing)
    }

    /// The command: two planes of 32 rows of 64 bytes, strides on both sides.
    fn text(&self, clen: usize) -> String {
        let far = if self.streamed() { "" } else { "mst1=8 mst2=384" };
        let own = match self.tform {
            Transform::None | Transform::Transpose16 => "sst1=3 sst2=300",
            Transform::Tiles => "sst2=300",
            Transform::Transpose8 => "sst1=2 sst2=300",
        };
        let (ch, moff) = match self.dir {
            DmaDirection::Load => (0, 0x8000),
            DmaDirection::Store => (2, 0x8000),
            DmaDirection::Copy => (2, 0),
            DmaDirection::Fill => (0, 0x1234_5678),
        };
        let mut ext = match self.gs {
            Addressing::Dense => String::new(),
            Addressing::Gather | Addressing::Scatter => "idx=1900 icnt=39 ibound=40".to_owned(),
            Addressing::Paged => "plog=9 ptab=64 icnt=255 ibound=2047".to_owned(),
        };
        ext += match self.codec {
            Codec::None => String::new(),
            Codec::ZeroRle | Codec::Entropy => format!(" clen={clen}"),
            Codec::Palette => " qf=uint4 ef=fp16 qs=1700".to_owned(),
            Codec::Sparse24 => " ef=int8".to_owned(),
            Codec::Nibble => " qf=int4".to_owned(),
            Codec::MxSplit => " qf=mxfp4 qs=1700".to_owned(),
            Codec::KvQuantise | Codec::KvDequantise => " qf=int4 qgrp=2 qs=1700".to_owned(),
        }
        .as_str();
        if let Some(r) = self.red {
            ext += &format!(" rop={}", r.code());
        }
        if self.dir == DmaDirection::Copy {
            ext += " rcore=2 raddr=1024";
        }
        let bar = if ext.is_empty() { "" } else { "| idx " };
        format!(
            "dma dir={} ch={ch} moff={moff} saddr=128 n0=3 n1=31 n2=1 {far} {own} codec={} tform={} gs={} red={} zp={} {bar}{ext}",
            self.dir.code(),
            self.codec.code(),
            self.tform.code(),
            self.gs.code(),
            u8::from(self.red.is_some()),
            u8::from(self.zp),
        )
    }

    /// A world in which the command finds what it needs, and the compressed units of a stream - 1.
    fn world(&self, base: &World, random: &mut Random) -> (World, usize) {
        let mut world = base.clone();
        if self.codec == Codec::Sparse24 {
            // Nibbles that are two places in order, wherever they are read.
            let nibble = |r: &mut Random| [4u8, 8, 12, 9, 13, 14][r.below(6) as usize];
            world.memory.bytes[..MEMORY as usize / 8]
                .iter_mut()
                .for_each(|b| *b = nibble(random) | nibble(random) << 4);
        }
        for i in 0..40 {
            let v = random.below(41) as u16;
            world.spm[1][1900 * 32 + 2 * i..][..2].copy_from_slice(&v.to_le_bytes());
        }
        // Behind the table itself.
        let mut pages: Vec<u32> = (3..256).collect();
        for i in 0..256usize {
            let page = if pages.is_empty() {
                0
            } else {
                pages.swap_remove(random.below(pages.len() as u64) as usize)
            };
            world.memory.bytes[64 + 4 * i..][..4].copy_from_slice(&page.to_le_bytes());
        }
        let mut clen = 0;
        if self.streamed() {
            let plain: Vec<u8> = (0..4096).map(|_| (random.below(20) * random.below(3)) as u8).collect();
            let encode = if self.codec == Codec::ZeroRle { zero_rle::encode } else { entropy::encode };
            let mut stream = encode(&plain);
            stream.resize(stream.len().next_multiple_of(16), 0);
            clen = stream.len() / 16 - 1;
            for (i, b) in stream.into_iter().enumerate() {
                let at = 0x8000 + i;
                let entry = 64 + at / 512 * 4;
                let page =
                    u32::from_le_bytes(world.memory.bytes[entry..entry + 4].try_into().expect("4 bytes"));
                let paged = page as usize * 512 + at % 512;
                world.memory.bytes[if self.gs == Addressing::Paged { paged } else { at }] = b;
            }
        }
        (world, clen)
    }
}

#[test]
fn every_code_with_every_other_executes_as_the_reference_says_or_is_refused() {
    let mut random = Random(21);
    let (base, mut other) = (World::new(21), World::new(9));
    other.memory.hidden = 0x8000..MEMORY;
    let (mut executed, mut refused) = (0, 0);
    let (mut codecs, mut forms) = (BTreeSet::new(), BTreeSet::new());
    for c in Combination::all() {
        let (world, clen) = c.world(&base, &mut random);
        let text = c.text(clen);
        let lists = ["", text.as_str(), "", ""];
        if !c.executes() {
            let fault = functional(&world, &lists).err().unwrap_or_else(|| panic!("{text}: executed"));
            assert!(matches!(fault.code, FaultCode::BadOperand | FaultCode::RegionLimit), "{text}: {fault}");
            refused += 1;
            continue;
        }
        executed += 1;
        codecs.insert(c.codec);
        forms.insert((c.tform, c.gs));
        let expected = reference::after(&world, 1, &text);
        let t = timed(&world, &lists, false, 1 << 40).unwrap_or_else(|f| panic!("{text}: {f}"));
        t.world.assert_same(&expected, &text);
        let total = t.cluster.total();
        assert_eq!(t.served(), (total.memory_read, total.memory_written), "{text}: bytes at both ends");
        let width = u64::from(config().dma_bytes_per_cycle);
        let bound = (total.memory_read + total.memory_written).max(4096).div_ceil(width);
        assert!(total.active_cycles >= bound, "{text}: {} cycles", total.active_cycles);
        // Timing does not read values: bytes that have only an address take as long, if nothing is looked up.
        if c.gs == Addressing::Dense {
            let shape = timed(&other, &lists, true, 1 << 40).unwrap_or_else(|f| panic!("{text}: {f}"));
            assert_eq!((shape.end, shape.cluster.total()), (t.end, total), "{text}");
        }
    }
    assert_eq!((codecs.len(), forms.len()), (Codec::ALL.len(), 16), "{executed} executed, {refused} refused");
}

const LOAD: &str = "dma n0=3 n1=7 saddr=8 moff=4096";
const STORE: &str = "dma dir=1 ch=2 n0=3 n1=7 saddr=8 moff=4096";
const COPY: &str = "dma dir=2 ch=2 n0=3 n1=7 saddr=8 moff=64";
const FILL: &str = "dma dir=3 n0=3 n1=7 saddr=8";
const LIST: &str = "idx idx=32 icnt=7 ibound=31";
const PAGES: &str = "idx plog=9 ptab=64 icnt=15 ibound=100";

use FaultCode::{BadCommand, BadOperand, Bus, IndexBound, LocalRange, NotInCap, RegionLimit, Stream};

/// A valid command, what is added to it, its extension, and the fault that answers.
const FAULTS: &[(&str, &str, &str, FaultCode, &str)] = &[
    (LOAD, "ch=2", "", BadOperand, "channels that load do not store, and the reverse"),
    (STORE, "ch=1", "", BadOperand, "channels that load do not store, and the reverse"),
    (LOAD, "codec=9", "", BadCommand, "codec"),
    (LOAD, "gs=1", "", BadOperand, "lists, pages and codecs need the index extension"),
    (LOAD, "codec=8", "", BadOperand, "lists, pages and codecs need the index extension"),
    (LOAD, "", "idx qgrp=1", BadOperand, "this transfer does not use a field of its extension"),
    (LOAD, "gs=1", "idx icnt=7 plog=6", BadOperand, "this transfer does not use a field of its extension"),
    (LOAD, "", "idx raddr=1", BadOperand, "this transfer does not use a field of its extension"),
    (LOAD, "cmask=16", "", BadOperand, "a core mask names cores that do not exist or cannot be written"),
    (FILL, "cmask=1", "", BadOperand, "a core mask names cores that do not exist or cannot be written"),
    ("dma dir=2 ch=2", "", "idx rcore=4", BadOperand, "rcore: there is no such core"),
    (COPY, "", "idx rcore=1", BadOperand, "moff: raddr is the destination"),
    (LOAD, "gs=1", "idx icnt=6 ibound=9", BadOperand, "icnt: fewer entries than rows"),
    (COPY, "gs=3", "idx plog=9", BadOperand, "gs: only memory has pages"),
    (LOAD, "gs=3", "idx plog=5", BadOperand, "plog: pages have 64 bytes to 16 MiB"),
    (LOAD, "gs=3", "idx plog=9 ptab=0xfffffff", RegionLimit, "the page table leaves its region"),
    (FILL, "zp=1", "", BadOperand, "a fill takes no codec, arrangement, list, reduction or padding"),
    ("dma dir=3 moff=0x100000000", "", "", BadOperand, "moff: a fill takes 32 bits"),
    (STORE, "zp=1", "", BadOperand, "zp: only scratchpads are padded"),
    (LOAD, "codec=1 mst1=4", "idx clen=3", BadOperand, "codec: a stream has no rows in memory"),
    (LOAD, "gs=2 tform=2", LIST, BadOperand, "tform: an arrangement needs all rows in order"),
    (LOAD, "tform=1 sst1=2 zp=1", "", BadOperand, "sst1: tiles are packed"),
    (LOAD, "tform=1", "", BadOperand, "n1: tiles have 32 rows, unless zp fills them up"),
    ("dma n0=2 n1=31", "tform=1", "", BadOperand, "n0: rows of tiles are multiples of 32 bytes"),
    (LOAD, "red=1 tform=2", "", BadOperand, "red: rows are reduced as they are"),
    (LOAD, "red=1", "idx rop=4", BadCommand, "rop"),
    (LOAD, "saddr=2047", "", LocalRange, "a transfer leaves the scratchpad"),
    (LOAD, "sst1=3 zp=1 saddr=2025", "", LocalRange, "a transfer leaves the scratchpad"),
    (LOAD, "sst1=1", "", BadOperand, "rows overlap in the scratchpad"),
    (STORE, "mst1=1", "", BadOperand, "rows overlap at the destination"),
    (COPY, "mst1=3", "", BadOperand, "rows overlap at the destination"),
    (LOAD, "gs=1", "idx idx=0xfffff icnt=7", LocalRange, "the index list leaves the scratchpad"),
    (LOAD, "codec=3", "idx qf=uint8 ef=int8 qs=2047", LocalRange, "the codec's table leaves the scratchpad"),
    (COPY, "moff=2047", "", LocalRange, "a transfer leaves the destination scratchpad"),
    (LOAD, "moff=0xffffffff", "", RegionLimit, "a transfer leaves its region"),
    (LOAD, "gs=1", "idx icnt=7 ibound=0xffffffff", RegionLimit, "a transfer leaves its region"),
    (LOAD, "gs=3 moff=8192", PAGES, IndexBound, "a transfer leaves its page table"),
    (LOAD, "codec=7", "idx qgrp=1", BadOperand, "codec: not in this direction"),
    (LOAD, "codec=3", "idx qf=uint8 ef=fp32", BadOperand, "ef: elements have 8 or 16 bits"),
    (LOAD, "codec=3", "idx qf=fp16", BadOperand, "qf: indices are int2, uint4 or uint8"),
    (LOAD, "codec=5", "idx qf=int8", BadOperand, "qf: nibbles are int4 or uint4"),
    (LOAD, "codec=6", "idx qf=int8", BadOperand, "qf: rows are whole blocks of mxfp4 or mxfp8"),
    ("dma", "codec=6", "idx qf=mxfp8", BadOperand, "qf: rows are whole blocks of mxfp4 or mxfp8"),
    (LOAD, "codec=8", "idx qf=fp16 qgrp=1", BadOperand, "qf: KV codes are int8 or int4"),
    (LOAD, "codec=8", "idx qf=int8", BadOperand, "qgrp: KV scales need a group"),
    // Found when the transfer starts.
    (LOAD, "gs=1", "idx idx=40 icnt=7 ibound=31", IndexBound, "an index exceeds its bound"),
    (LOAD, "gs=3", "idx plog=9 ptab=512 icnt=15 ibound=100", IndexBound, "a page number exceeds its bound"),
    (LOAD, "gs=3", "idx plog=9 ptab=512 icnt=15 ibound=0xffffffff", RegionLimit, "a page leaves its region"),
    (LOAD, "codec=1 moff=8192", "idx clen=0", Stream, "a compressed stream ends early"),
    (
        LOAD,
        "codec=1 moff=8704",
        "idx clen=31",
        Stream,
        "a compressed stream does not end where its output does",
    ),
    (LOAD, "codec=4", "idx ef=int8", Stream, "a compressed stream holds a value no encoder writes"),
];

/// The valid command with some fields replaced.
fn changed(base: &str, change: &str, extension: &str) -> String {
    let name = |item: &str| item.split('=').next().unwrap_or_default().to_owned();
    let replaced: BTreeSet<String> = change.split_whitespace().map(name).collect();
    let kept: Vec<&str> = base.split_whitespace().filter(|item| !replaced.contains(&name(item))).collect();
    let bar = if extension.is_empty() { "" } else { "|" };
    format!("{} {change} {bar} {extension}", kept.join(" "))
}

/// Lists, tables and streams the faults above are about.
fn faulty_world() -> World {
    let mut w = World::new(3);
    let (spm, memory) = (&mut w.spm[1], &mut w.memory.bytes);
    spm[32 * 32..34 * 32].fill(1);
    spm[40 * 32..41 * 32].copy_from_slice(&[0xFF; 32]);
    memory[512..1024].fill(0xFF);
    memory[4096..8192].fill(0);
    // One run of zeros; a run that passes the end of 512 bytes.
    memory[8192..8208].fill(0x80);
    memory[8704..9216].fill(0xFE);
    w
}

#[test]
fn every_fault_is_reached_and_no_other_sentence_exists() {
    let world = faulty_world();
    let mut said = BTreeSet::new();
    for base in [LOAD, STORE, COPY, FILL] {
        functional(&world, &["", base, "", ""]).unwrap_or_else(|f| panic!("{base}: {f}"));
    }
    for extension in [LIST, PAGES] {
        // Valid before they are changed: the list's entries are 0x0101, so with that bound only.
        let gs = if extension == LIST { 1 } else { 3 };
        let text = changed(LOAD, &format!("gs={gs}"), extension);
        let words = isa::npu::text::assemble(&text).expect("assembles");
        let c = Command::decode(&words).expect("decodes");
        let Body::Dma(d) = c.body else { panic!("a DMA") };
        Transfer::new(&c, &d, Region { base: BASE, limit: MEMORY }, &config()).expect("valid");
    }
    for &(base, change, extension, code, text) in FAULTS {
        let command = changed(base, change, extension);
        let lists = ["", command.as_str(), "", ""];
        let fault = functional(&world, &lists).err().unwrap_or_else(|| panic!("{command}: executed"));
        assert_eq!((fault.code, fault.text), (code, text), "{command}");
        let in_time = timed(&world, &lists, false, 1 << 40).err();
        assert_eq!(in_time, Some(fault), "{command}: in time");
        said.insert(text);
    }
    said.extend(unreachable_by_text().iter().map(|f| f.text));
    for source in SOURCES {
        for sentence in sentences(source) {
            assert!(said.contains(sentence.as_str()), "no test reaches `{sentence}`");
        }
    }
}

/// Faults no assembled command reaches on this configuration.
fn unreachable_by_text() -> Vec<Fault> {
    let mut cfg = config();
    let region = Region { base: BASE, limit: MEMORY };
    let words = isa::npu::text::assemble(LOAD).expect("assembles");
    let c = Command::decode(&words).expect("decodes");
    let Body::Dma(d) = c.body else { panic!("a DMA") };
    let mut out = Vec::new();
    let mut fault = |c: &Command, d: &isa::npu::Dma, cfg: &npu_model::NpuConfig, code| {
        let f = Transfer::new(c, d, region, cfg).expect_err("faults");
        assert_eq!(f.code, code);
        out.push(f);
    };
    let mut epilogue = c;
    epilogue.extension = Some(isa::npu::Extension::Epilogue(isa::npu::Epilogue::default()));
    fault(&epilogue, &d, &cfg, BadCommand);
    // Two-bit fields have no unknown codes; a wider value stands for one.
    fault(&c, &isa::npu::Dma { dir: 4, ..d }, &cfg, BadCommand);
    fault(&c, &isa::npu::Dma { tform: 4, ..d }, &cfg, BadCommand);
    fault(&c, &isa::npu::Dma { gs: 4, ..d }, &cfg, BadCommand);
    cfg.dma_out_channels = 1;
    fault(&c, &isa::npu::Dma { ch: 3, ..d }, &cfg, NotInCap);
    let t = Transfer::new(&c, &d, Region { base: 64, limit: MEMORY }, &cfg).expect("valid");
    let mut memory = Flat::new(1);
    let found = t.find(&[], &mut memory).expect("nothing to find");
    let f = t.load(&found, Vec::new(), &mut memory, &mut []).expect_err("nothing answers there");
    assert_eq!(f.code, Bus);
    out.push(f);
    out
}

const SOURCES: &[&str] = &[
    include_str!("../src/codec/mod.rs"),
    include_str!("../src/dma/apply.rs"),
    include_str!("../src/dma/arrange.rs"),
    include_str!("../src/dma/check.rs"),
    include_str!("../src/dma/coding.rs"),
    include_str!("../src/dma/lists.rs"),
    include_str!("../src/dma/mod.rs"),
    include_str!("../src/dma/traffic.rs"),
];

/// String literals of a source that are no comment, lint reason or assertion.
fn sentences(source: &str) -> impl Iterator<Item = String> {
    source
        .lines()
        .filter(|l| {
            let l = l.trim_start();
            !["//", "reason =", "const _"].iter().any(|skipped| l.starts_with(skipped))
                && !l.contains("expect(")
        })
        .flat_map(|l| l.split('"').skip(1).step_by(2))
        .map(str::to_owned)
}

/// Does to `cores` what a command says, through the same calls as the engines.
fn run(words: &[Word], cores: &mut Cores, memory: &mut Flat) -> Result<(), Fault> {
    let Ok(c) = Command::decode(words) else { return Err(Fault::command(0, "no command")) };
    let Body::Dma(d) = c.body else { return Err(Fault::command(0, "no transfer")) };
    let t = Transfer::new(&c, &d, Region { base: BASE, limit: MEMORY }, &cores.cfg)?;
    let spm = &mut cores.cores[1].local.spm;
    let found = t.find(spm, memory)?;
    let traffic = t.traffic(&found, 64);
    let phases = t.phases(&found);
    let of =
        |write| phases.iter().filter(|p| p.write == write).flat_map(|p| &p.runs).map(|r| r.1).sum::<u64>();
    assert_eq!((of(false), of(true)), (traffic.memory_read, traffic.memory_written), "{c:?}");
    match t.direction {
        Direction::Load => {
            let table = t.table(spm);
            t.load(&found, table, memory, &mut [spm])?;
        }
        Direction::Store => t.store(&found, memory, spm)?,
        Direction::Copy => {
            let pieces = t.pieces(&found, spm);
            t.deliver(&found, &pieces, &mut cores.cores[2].local.spm);
        }
        Direction::Fill => t.fill(spm),
    }
    Ok(())
}

/// Random words, and valid commands with a few bits flipped: whatever they are, they fault or execute.
#[test]
fn no_words_make_the_engine_panic() {
    let mut random = Random(31);
    // Lists, pages and places in order, as one of the combinations wants them.
    let sparse = Combination { codec: Codec::Sparse24, ..Combination::all()[0] };
    let (world, _) = sparse.world(&World::new(31), &mut random);
    let mut cores = Cores::new(config());
    let mut memory = world.memory.clone();
    let seeds: Vec<Vec<Word>> = Combination::all()
        .into_iter()
        .filter(|c| c.executes() && random.below(4) == 0)
        .map(|c| isa::npu::text::assemble(&c.text(40)).expect("assembles"))
        .collect();
    let (mut faulted, mut executed) = (0u32, 0u32);
    for round in 0..200_000u32 {
        if round % 64 == 0 {
            for (c, spm) in cores.cores.iter_mut().zip(&world.spm) {
                c.local.spm.clone_from(spm);
            }
            memory.clone_from(&world.memory);
        }
        let words = if round % 8 == 0 {
            let mut word = || Word([random.next(), random.next(), random.next(), random.next()]);
            let mut words = vec![word(), word()];
            words[0].0[0] = words[0].0[0] & !0x3FF | 0x20 | (random.next() & 1) << 8;
            words[1].0 = [words[1].0[0] & !0xFF | 2, words[1].0[1], words[1].0[2], words[1].0[3] & 0x1FF];
            words
        } else {
            let mut words = seeds[random.below(seeds.len() as u64) as usize].clone();
            for _ in 0..=random.below(2) {
                let bit = random.below(256 * words.len() as u64);
                words[bit as usize / 256].0[bit as usize % 256 / 64] ^= 1 << (bit % 64);
            }
            words
        };
        match run(&words, &mut cores, &mut memory) {
            Ok(()) => executed += 1,
            Err(_) => faulted += 1,
        }
    }
    assert!(executed > 20_000 && faulted > 20_000, "{executed} executed, {faulted} faulted");
    let mut answer = [0; 4];
    assert!(memory.read(BASE, &mut answer).is_ok());
}

/// Streams of random bytes, and real ones with bits flipped, decode or are refused.
#[test]
fn hostile_streams_are_refused() {
    let mut random = Random(41);
    let mut refused = [0u32; 2];
    for round in 0..4000u64 {
        let plain: Vec<u8> =
            (0..random.below(600) + 1).map(|_| (random.below(9) * random.below(4)) as u8).collect();
        for (k, (encode, decode)) in [
            (zero_rle::encode as fn(&[u8]) -> Vec<u8>, zero_rle::decode as fn(&[u8], &mut [u8]) -> _),
            (entropy::encode, entropy::decode),
        ]
        .into_iter()
        .enumerate()
        {
            let mut stream = encode(&plain);
            let mut out = vec![1; plain.len()];
            assert_eq!(decode(&stream, &mut out), Ok(()));
            assert_eq!(out, plain);
            stream.extend([0; 15]);
            assert_eq!(decode(&stream, &mut out), Ok(()), "padding is no content");
            if round % 3 == 0 {
                let at = random.below(stream.len() as u64) as usize;
                stream.truncate(at);
            } else {
                let bit = random.below(stream.len() as u64 * 8);
                stream[bit as usize / 8] ^= 1 << (bit % 8);
            }
            let damaged = decode(&stream, &mut out);
            refused[k] += u32::from(damaged.is_err());
            let noise = random.bytes(700);
            let _ = decode(&noise, &mut out);
        }
    }
    assert!(refused[0] > 1000 && refused[1] > 3000, "{refused:?}");
}
