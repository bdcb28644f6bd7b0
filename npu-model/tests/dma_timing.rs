//! What transfers take, in closed form, and whom the rest is charged to: channel, ring, decoder, memory.
#![allow(clippy::cast_possible_truncation, reason = "test sizes are small")]

mod dma_common;

use dma_common::{Ended, Random, Timed, World, config, timed, timed_on};
use isa::npu::registers::CAP_MOVES;
use npu_model::Cause;
use npu_model::codec::entropy;

/// A bandwidth no channel reaches; flows still take 100 cycles of latency.
const FAST: u64 = 1 << 40;
const LATENCY: u64 = 100;
const SETUP: u64 = 16;
const HOP: u64 = 8;

fn run(lists: &[&str]) -> Timed {
    timed(&World::new(1), lists, true, FAST).unwrap_or_else(|f| panic!("{f}"))
}

fn only(t: &Timed) -> &Ended {
    assert_eq!(t.executed.len(), 1);
    &t.executed[0]
}

/// Causes of every engine sum to its cycles.
fn balanced(t: &Timed) {
    let meters = t.cluster.meters(t.end);
    let total = meters[0].2.total();
    assert!(meters.iter().all(|(_, _, m)| m.total() == total), "{meters:?}");
    let spent = |cause: Cause| -> u64 {
        meters.iter().filter(|m| m.1.starts_with("dma")).map(|m| m.2.spent()[cause as usize]).sum()
    };
    for cause in [Cause::DmaBandwidth, Cause::Fabric, Cause::Dram] {
        assert_eq!(spent(cause), t.executed.iter().map(|e| e.waited(cause)).sum::<u64>(), "{}", cause.name());
    }
}

#[test]
fn transfers_alone_in_closed_form() {
    // 4096 bytes at 64 a cycle, and what is beside them.
    let cases = [
        ("dma n0=255", 64, SETUP, LATENCY),
        ("dma dir=1 ch=2 n0=255", 64, SETUP, LATENCY),
        ("dma dir=3 n0=255", 64, SETUP + HOP, 0),
        ("dma dir=2 ch=2 n0=255 moff=512", 64, SETUP + HOP, 0),
        ("dma dir=2 ch=2 n0=255 moff=512 cmask=15", 64, SETUP + HOP, 0),
        ("dma n0=255 cmask=15", 64, SETUP, LATENCY),
        // Read and written: two flows of 4096 bytes.
        ("dma dir=1 ch=2 n0=255 red=1", 128, SETUP, 2 * LATENCY),
        // Half the bytes in memory, the same in the scratchpad.
        ("dma n0=255 codec=5 | idx qf=uint4", 64, SETUP, LATENCY),
        ("dma n0=3 n1=63 tform=2", 128, SETUP, LATENCY),
        ("dma n0=3 n1=63 tform=1", 64, SETUP, LATENCY),
        // 48 bytes of zeros behind each of 64 rows of 16.
        ("dma n0=0 n1=63 sst1=2 zp=1", 64, SETUP, LATENCY),
    ];
    for (text, active, fill, dram) in cases {
        let t = run(&["", text, "", ""]);
        let e = only(&t);
        assert_eq!(
            (e.active, e.waited(Cause::FillDrain), e.waited(Cause::Dram)),
            (active, fill, dram),
            "{text}"
        );
        assert_eq!((e.waited(Cause::Fabric), e.waited(Cause::DmaBandwidth)), (0, 0), "{text}");
        balanced(&t);
    }
}

#[test]
fn a_page_table_is_read_before_its_rows() {
    let text = "dma n0=255 gs=3 qos=3 slc=2 tag=7 | idx plog=9 ptab=4096 icnt=15 ibound=0xffffffff";
    let mut world = World::new(1);
    for i in 0..16u32 {
        world.memory.bytes[4096 + 4 * i as usize..][..4].copy_from_slice(&(100 - i).to_le_bytes());
    }
    let t = timed(&world, &["", text, "", ""], false, FAST).unwrap_or_else(|f| panic!("{f}"));
    let flows: Vec<_> = t.asked.iter().filter(|a| !a.fetch).collect();
    assert_eq!(flows.len(), 2);
    assert_eq!(flows[0].runs, [(dma_common::BASE + 4096, 32)], "eight pages are touched");
    assert_eq!(flows[1].runs.len(), 8);
    assert!(flows.iter().all(|f| (f.qos, f.slc, f.tag, f.write) == (3, 2, 7, false)));
    // 4096 + 32 bytes and twice the latency, the table's half cycle rounded up with the rest.
    let e = only(&t);
    assert_eq!((e.active, e.waited(Cause::Dram)), (65, 2 * LATENCY));
    balanced(&t);
}

#[test]
fn hints_reach_memory_with_every_flow() {
    for code in 0..4 {
        for (dir, ch, red) in [(0, 0, 0), (0, 1, 0), (1, 2, 0), (1, 3, 1)] {
            let text = format!("dma dir={dir} ch={ch} red={red} n0=3 qos={code} slc={} tag=9", 3 - code);
            let t = run(&["", "", &text, ""]);
            let flows: Vec<_> = t.asked.iter().filter(|a| !a.fetch).collect();
            assert_eq!(flows.len(), 1 + red, "{text}");
            assert!(flows.iter().all(|f| (f.core, f.qos, f.slc, f.tag) == (2, code, 3 - code, 9)), "{text}");
        }
    }
}

/// Bytes in flight over the memory's latency bound a channel; what that costs is the channel's, not memory's.
#[test]
fn outstanding_bytes_bound_a_channel() {
    let mut before = u64::MAX;
    for outstanding in [512, 1024, 2048, 3200, 6400, 12_800] {
        let mut cfg = config();
        cfg.dma_outstanding = sim_kernel::Bytes::new(outstanding);
        let t = timed_on(cfg, &World::new(1), &["dma n0=1023", "", "", ""], true, FAST).expect("runs");
        let e = only(&t);
        // 100 ns at 1 GHz: outstanding / 100 bytes a cycle, at most 64.
        let alone = (16_384 * 100u64).div_ceil(outstanding.min(6400));
        assert_eq!((e.active, e.waited(Cause::DmaBandwidth)), (256, alone - 256), "{outstanding}");
        assert_eq!(e.total, alone + LATENCY + SETUP);
        assert!(e.total <= before, "more in flight is not slower");
        before = e.total;
        balanced(&t);
    }
}

/// Channels of a core have their own flows at the same time; what they share is memory, the ring and the decoder.
#[test]
fn channels_run_side_by_side() {
    let two = run(&["dma n0=1023\ndma ch=1 n0=1023 saddr=512", "", "", ""]);
    let one = run(&["dma n0=1023\ndma n0=1023 saddr=512", "", "", ""]);
    let (a, b) = (&two.executed[0], &two.executed[1]);
    assert_eq!((a.engine, b.engine, a.total, b.total), (0, 1, 372, 372));
    assert!(two.end + sim_kernel::Time::from_ns(300) < one.end);
    balanced(&two);
}

#[test]
fn the_ring_is_shared_and_its_waits_are_the_fabrics() {
    // Every core to everyone, at once: all links are wanted by all, one after another.
    let all: Vec<String> = (0..4)
        .map(|c| format!("dma dir=2 ch=2 n0=1023 saddr=0 moff={} cmask=15", 512 + 512 * (c % 2)))
        .collect();
    let lists: Vec<&str> = all.iter().map(String::as_str).collect();
    let t = run(&lists);
    let mut waits: Vec<u64> = t.executed.iter().map(|e| e.waited(Cause::Fabric)).collect();
    waits.sort_unstable();
    assert_eq!(waits, [0, 256, 512, 768]);
    assert!(t.executed.iter().all(|e| e.total == 256 + SETUP + HOP + e.waited(Cause::Fabric)));
    balanced(&t);
    // To the next core only: nobody shares a link.
    let next: Vec<String> =
        (0..4).map(|c| format!("dma dir=2 ch=2 n0=1023 moff=512 cmask={}", 1 << ((c + 1) % 4))).collect();
    let lists: Vec<&str> = next.iter().map(String::as_str).collect();
    let t = run(&lists);
    assert!(t.executed.iter().all(|e| e.waited(Cause::Fabric) == 0 && e.total == 256 + SETUP + HOP));
    // Loads that are multicast share the ring too, beside memory that would serve all at once.
    let loads = "dma n0=1023 cmask=15";
    let t = run(&[loads; 4]);
    let slowest = t.executed.iter().map(|e| e.total).max();
    assert_eq!(slowest, Some(4 * 256 + 2 * SETUP), "the last one's bytes follow three others'");
    balanced(&t);
    // A narrow memory hides it: bytes arrive more slowly than the ring takes them.
    let slow = timed(&World::new(1), &[loads; 4], true, 8_000_000_000).expect("runs");
    assert!(slow.executed.iter().all(|e| e.waited(Cause::Fabric) == 0));
}

#[test]
fn streams_are_decoded_by_one_decoder_a_core() {
    let mut random = Random(3);
    let mut world = World::new(1);
    let plain: Vec<u8> = (0..4096).map(|_| (random.below(8) * random.below(3)) as u8).collect();
    let mut stream = entropy::encode(&plain);
    stream.resize(stream.len().next_multiple_of(16), 0);
    world.memory.bytes[..stream.len()].copy_from_slice(&stream);
    let load = |ch, saddr| {
        format!("dma n0=15 n1=15 ch={ch} codec=2 saddr={saddr} | idx clen={}", stream.len() / 16 - 1)
    };
    let both = format!("{}\n{}", load(0, 0), load(1, 256));
    let t = timed(&world, &[&both, "", "", ""], false, FAST).unwrap_or_else(|f| panic!("{f}"));
    assert_eq!((&t.world.spm[0][..4096], &t.world.spm[0][8192..12_288]), (&plain[..], &plain[..]));
    // 16 bytes a cycle: 256 cycles each; the second begins a cycle later and waits for the first.
    let (a, b) = (&t.executed[0], &t.executed[1]);
    assert_eq!((a.active, a.waited(Cause::DmaBandwidth)), (256, 0));
    assert_eq!((b.active, b.total), (256, 2 * 256 - 1 + SETUP));
    // Another core has its own, and a narrow memory takes as long for the stream as for its bytes.
    let t = timed(&world, &[&load(0, 0), &load(0, 0), "", ""], false, FAST).expect("runs");
    assert!(t.executed.iter().all(|e| e.waited(Cause::DmaBandwidth) == 0));
    let narrow = timed(&world, &[&load(0, 0), "", "", ""], false, 1_000_000_000).expect("runs");
    assert_eq!(narrow.executed[0].total, stream.len() as u64 + LATENCY + SETUP);
    balanced(&narrow);
}

/// Longer transfers and narrower memories take longer; nothing moves faster than channel or memory allow.
#[test]
fn time_is_monotone_and_above_its_bounds() {
    let forms = [
        ("dma codec=8", "| idx qf=int8 qgrp=3"),
        ("dma dir=1 ch=2 codec=7", "| idx qf=int4 qgrp=2"),
        ("dma tform=3", ""),
        ("dma codec=6", "| idx qf=mxfp4 qs=1500"),
        ("dma gs=1", "| idx idx=1900 icnt=31 ibound=60"),
        ("dma cmask=15 red=1", ""),
    ];
    for (fields, ext) in forms {
        let mut shorter = 0;
        for n1 in [0, 3, 8, 31] {
            let text = format!("{fields} n0=7 n1={n1} {ext}");
            let mut faster = 0;
            for rate in [FAST, 32_000_000_000, 5_000_000_000, 300_000_000] {
                let mut world = World::new(1);
                world.spm[1][1900 * 32..1910 * 32].fill(0);
                let t =
                    timed(&world, &["", &text, "", ""], true, rate).unwrap_or_else(|f| panic!("{text}: {f}"));
                let (e, a) = (only(&t), &only(&t).activity);
                assert!(e.total >= faster, "{text} at {rate}");
                assert!(e.active * 64 >= a.memory_read + a.memory_written, "{text}");
                assert!(
                    (e.total - SETUP) * rate / 1_000_000_000 >= a.memory_read + a.memory_written,
                    "{text}"
                );
                faster = e.total;
                balanced(&t);
            }
            assert!(faster > shorter, "{text} is longer");
            shorter = faster;
        }
    }
    let caps = run(&["", "", "", ""]).cluster.load(sim_kernel::Time::ZERO, 0, CAP_MOVES);
    assert_eq!(caps, Some(0x0FFF_01FF), "every code of the four tables");
}
