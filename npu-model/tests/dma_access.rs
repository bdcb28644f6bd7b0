//! Directions, strides, lists, pages and KV codecs against the reference; functional, timed and shape-only runs agree.
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    reason = "test sizes are small"
)]

mod dma_common;

use dma_common::{MEMORY, Random, World, functional, reference, timed};

/// A bandwidth no channel reaches.
const FAST: u64 = 1 << 40;

/// Fills a scratchpad with fp16 values, some of them special.
fn floats(random: &mut Random, spm: &mut [u8]) {
    for pair in spm.chunks_exact_mut(2) {
        let v = match random.below(400) {
            0 => 0x7C00u16,
            1 => 0x7E01,
            2 => 0xFC00,
            3 => 0x0001,
            n if n < 60 => 0,
            _ => (random.below(1 << 15) as u16 % 0x5000) | (random.below(2) as u16) << 15,
        };
        pair.copy_from_slice(&v.to_le_bytes());
    }
}

/// Runs a command on core 1 every way there is and compares.
fn check(world: &World, text: &str) {
    let lists = ["", text, "", ""];
    let expected = reference::after(world, 1, text);
    let got = functional(world, &lists).unwrap_or_else(|f| panic!("{text}: {f}"));
    got.assert_same(&expected, text);
    let t = timed(world, &lists, false, FAST).unwrap_or_else(|f| panic!("{text}: {f}"));
    t.world.assert_same(&expected, text);
    let total = t.cluster.total();
    assert_eq!(t.served(), (total.memory_read, total.memory_written), "{text}: bytes at both ends");
    assert!(t.asked.iter().flat_map(|a| &a.runs).all(|r| r.0 >= dma_common::BASE && r.1 > 0), "{text}");
    let shape = timed(world, &lists, true, FAST).unwrap_or_else(|f| panic!("{text}: {f}"));
    assert_eq!((shape.end, &shape.asked), (t.end, &t.asked), "{text}: shape-only timing");
    assert_eq!(shape.cluster.total(), total, "{text}: shape-only counts");
    let slow = timed(world, &lists, false, 1_000_000_000).unwrap_or_else(|f| panic!("{text}: {f}"));
    assert!(slow.end >= t.end, "{text}: slower memory is not faster");
}

/// Three-dimensional strides of both sides within 16 KiB: (text, rows).
fn shape(random: &mut Random, dir: u64) -> (String, u64) {
    let (n0, n1, n2) = (random.below(5), random.below(6), random.below(3));
    let (row, rows) = ((n0 + 1) * 16, n1 + 1);
    let mut out = format!("n0={n0} n1={n1} n2={n2} saddr={}", random.below(64));
    // Far strides lie apart where the far side is written, and may be packed.
    let mst1 = (row + 2 * random.below(5) * 16) / 16;
    if random.below(3) > 0 {
        out += &format!(" mst1={mst1} mst2={}", mst1 * rows + random.below(4));
    }
    let sst1 = row.div_ceil(32) + random.below(3);
    if random.below(3) > 0 {
        out += &format!(" sst1={sst1} sst2={}", sst1 * rows + random.below(4));
    }
    let ch = if dir == 1 || dir == 2 { 2 } else { random.below(2) };
    (out + &format!(" dir={dir} ch={ch} qos={} slc={}", random.below(4), random.below(4)), rows)
}

#[test]
fn dense_transfers_with_strides_on_both_sides() {
    let mut random = Random(11);
    for round in 0..60 {
        let world = World::new(round);
        let dir = round % 4;
        let (fields, _) = shape(&mut random, dir);
        let text = match dir {
            0 | 1 => format!("dma {fields} moff={}", random.below(MEMORY - 65_536)),
            2 => format!("dma {fields} moff={}", 1024 + random.below(256)),
            _ => format!("dma {fields} moff={}", random.next() >> 32),
        };
        check(&world, &text);
        if dir == 0 || dir == 2 {
            check(&world, &format!("{text} cmask={}", 1 + random.below(15)));
        }
        if dir == 2 {
            let remote =
                format!("dma {fields} | idx rcore={} raddr={}", random.below(4), 1024 + random.below(256));
            check(&world, &remote);
        }
    }
}

#[test]
fn lists_number_the_rows_of_either_side() {
    let mut random = Random(12);
    for round in 0..120 {
        let mut world = World::new(round);
        let (dir, gs, ifm) = (round % 3, 1 + round / 3 % 2, round / 6 % 4);
        let (n0, n1, n2) = (random.below(4), random.below(8), random.below(2));
        let entries = if ifm == 3 { 16 + random.below(8) } else { n1 + 1 + random.below(3) };
        let bound = if ifm == 3 { random.below(30) + 24 } else { 20 };
        let at = 1800usize;
        if ifm == 3 {
            world.spm[1][at * 32..at * 32 + 8].copy_from_slice(&random.next().to_le_bytes());
        } else {
            let size = [2usize, 4, 8][ifm as usize];
            for i in 0..entries as usize {
                let v = random.below(bound + 1).to_le_bytes();
                world.spm[1][at * 32 + i * size..][..size].copy_from_slice(&v[..size]);
            }
        }
        let (mst1, sst1) = (n0 + 1 + random.below(3), (n0 + 1).div_ceil(2) + random.below(2));
        let planes = format!("mst2={} sst2={}", mst1 * 60, sst1 * 60);
        let place = if dir == 2 { "".to_owned() } else { format!("moff={}", random.below(100_000)) };
        let remote = if dir == 2 { format!("rcore={} raddr=900", random.below(4)) } else { String::new() };
        let ch = if dir == 0 { 0 } else { 3 };
        let text = format!(
            "dma dir={dir} ch={ch} gs={gs} n0={n0} n1={n1} n2={n2} mst1={mst1} sst1={sst1} {planes} {place} \
             | idx idx={at} ifm={ifm} icnt={} ibound={bound} {remote}",
            entries - 1
        );
        check(&world, &text);
    }
}

/// A page table of shuffled page numbers at byte `ptab`.
fn paged(world: &mut World, random: &mut Random, ptab: u64, plog: u64, entries: u64) {
    let pages = MEMORY >> plog;
    // Pages lie behind the first quarter, where the table is; none is used twice.
    let mut free: Vec<u64> = (pages / 4..pages).collect();
    for i in 0..entries {
        let pick = free.swap_remove(random.below(free.len() as u64) as usize) as u32;
        world.memory.bytes[(ptab + 4 * i) as usize..][..4].copy_from_slice(&pick.to_le_bytes());
    }
}

#[test]
fn pages_place_rows_and_rows_cross_pages() {
    let mut random = Random(13);
    for round in 0..60 {
        let mut world = World::new(round);
        let dir = round % 2;
        let (fields, _) = shape(&mut random, dir);
        let plog = 6 + random.below(8);
        let entries = (1 << (15 - plog)).min((MEMORY * 3 / 4) >> plog);
        let ptab = 4 * random.below(1000);
        paged(&mut world, &mut random, ptab, plog, entries);
        let text = format!(
            "dma {fields} gs=3 moff={} | idx plog={plog} ptab={ptab} icnt={} ibound={}",
            random.below(8192),
            entries - 1,
            (MEMORY >> plog) - 1
        );
        check(&world, &text);
    }
}

#[test]
fn kv_rows_are_quantised_and_dequantised_dense_and_paged() {
    let mut random = Random(14);
    for round in 0..160 {
        let mut world = World::new(round);
        floats(&mut random, &mut world.spm[1]);
        let (dir, paging, table) = (round % 2, round / 2 % 2, round / 4 % 2);
        let qf = ["int8", "int4"][(round / 8 % 2) as usize];
        let (n0, n1, n2) = (random.below(20), random.below(6), random.below(2));
        let qgrp = 1 + random.below(6);
        let (qs, plog, ptab) = (table * 1500, 8 + random.below(4), 512);
        let sst1 = (n0 + 1).div_ceil(2) + random.below(2);
        let mut fields = format!(
            "dma dir={dir} codec={} ch={} n0={n0} n1={n1} n2={n2} sst1={sst1} moff={}",
            if dir == 0 { 8 } else { 7 },
            if dir == 0 { 1 } else { 2 },
            16 * random.below(64)
        );
        if random.below(2) == 0 {
            fields += &format!(" mst1={} mst2={}", 48, 48 * 10);
        }
        let mut ext = format!("| idx qf={qf} qgrp={qgrp} qs={qs}");
        if paging == 1 {
            let entries = (1u64 << (15 - plog)).min((MEMORY * 3 / 4) >> plog);
            paged(&mut world, &mut random, ptab, plog, entries);
            fields += " gs=3";
            ext += &format!(" plog={plog} ptab={ptab} icnt={} ibound={}", entries - 1, (MEMORY >> plog) - 1);
        } else if dir == 0 {
            // Codes and scales as a quantiser leaves them: random scales would mostly overflow.
            floats(&mut random, &mut world.memory.bytes[..65_536]);
            fields += if random.below(2) == 0 { " cmask=11" } else { "" };
        }
        check(&world, &format!("{fields} {ext}"));
    }
}

/// Append one position to a paged int8 cache, then read the whole block back as fp16: what a decode step does.
#[test]
fn an_appended_position_is_read_back_within_half_a_step() {
    let mut world = World::new(5);
    let mut random = Random(15);
    let (head, positions) = (128usize, 32);
    for (i, pair) in world.spm[1][..positions * head * 2].chunks_exact_mut(2).enumerate() {
        let v = half::f16::from_f32((random.below(2001) as f32 - 1000.0) / 250.0 * (1 + i % 3) as f32);
        pair.copy_from_slice(&v.to_le_bytes());
    }
    paged(&mut world, &mut random, 64, 10, 8);
    for (qf, row, step) in [("int8", 144, 127.0f32), ("int4", 80, 7.0)] {
        assert_eq!(isa::npu::dma::kv_row_bytes(128, if qf == "int8" { 8 } else { 4 }, 3), Some(row));
        let ext = format!("idx qf={qf} qgrp=3 plog=10 ptab=64 icnt=7 ibound=1023");
        let mut list = String::new();
        for p in 0..positions {
            list += &format!(
                "dma dir=1 ch=2 codec=7 gs=3 n0=15 saddr={} moff={} | {ext}\n",
                p * 8,
                p as u64 * row
            );
        }
        list += "dma dir=3 n0=511 saddr=512 s0_id=1 s0_n=1\nctrl.fence emask=15\n";
        list += &format!("dma dir=0 codec=8 gs=3 n0=15 n1=31 saddr=512 moff=0 | {ext}");
        let after = functional(&world, &["", &list, "", ""]).unwrap_or_else(|f| panic!("{f}"));
        let value = |at: usize, i: usize| {
            half::f16::from_le_bytes([after.spm[1][at + 2 * i], after.spm[1][at + 2 * i + 1]]).to_f32()
        };
        for g in 0..positions * head / 32 {
            let largest = (0..32).map(|i| value(0, g * 32 + i).abs()).fold(0.0, f32::max);
            for i in g * 32..g * 32 + 32 {
                let (a, b) = (value(0, i), value(512 * 32, i));
                // Half a step, and the roundings of scale and result to fp16.
                assert!(
                    (a - b).abs() <= largest / step * 0.5 + largest / 1024.0,
                    "{qf} element {i}: {a} became {b}"
                );
            }
        }
    }
}
