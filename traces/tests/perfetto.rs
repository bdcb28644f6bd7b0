//! Traces written are traces read; files that are not whole, or not ours, are errors with a place and never a panic.

use sim_kernel::{Arguments, Flow, Names, Probe, Sink, Time, Track, TrackInfo, TrackKind};
use traces::analysis::{collect, ops, stalls, summary};
use traces::perfetto::{Event, Reader, TraceError, Writer};

fn track(group: &str, name: &str, kind: TrackKind) -> TrackInfo {
    TrackInfo { group: group.to_owned(), name: name.to_owned(), kind }
}

/// A made-up run of one engine: two commands of 30 and 12 cycles at 1 GHz, the second after time zero with the first.
fn small() -> Vec<u8> {
    let mut w = Writer::new(Vec::new(), &[("soc", "made-up"), ("model", "none")]);
    let mut names = Names::default();
    let watts = TrackKind::Counter { unit: "W", decimals: 6 };
    for t in [
        track("run", "job", TrackKind::Spans),
        track("run", "accounts", TrackKind::Spans),
        track("npu0", "npu0_mx", TrackKind::Spans),
        track("power", "power_total", watts),
    ] {
        w.track(&t);
    }
    let all = ["time_zero", "layer0.qkv", "cycles", "macs", "end", "npu0_mx", "active", "idle", "total"];
    let [zero, op, cycles, macs, end, engine, active, idle, total] = all.map(|n| names.of(n));
    let [hertz, commands] = ["hertz", "commands"].map(|n| names.of(n));
    names.texts().iter().for_each(|n| w.name(n));
    let none = Arguments::default();
    let at = Time::from_ns;
    let (job, accounts, mx, power) = (Track::at(0), Track::at(1), Track::at(2), Track::at(3));
    let instant =
        |track, name, at, arguments| Probe::Instant { track, name, at, flow: Flow::None, arguments };
    let span = |start, end, cycle_count| Probe::Span {
        track: mx,
        name: op,
        start: at(start),
        end: at(end),
        flow: Flow::Through(7),
        arguments: none.with(cycles, cycle_count).with(macs, 1000),
    };
    let account =
        none.with(active, 42).with(idle, 158).with(total, 200).with(hertz, 1_000_000_000).with(commands, 2);
    for p in [
        span(10, 20, 10),
        instant(job, zero, at(100), none),
        Probe::Counter { track: power, at: at(100), value: 1_500_000 },
        span(100, 130, 30),
        span(140, 152, 12),
        Probe::Counter { track: power, at: at(200), value: 2_500_000 },
        instant(job, end, at(300), none),
        instant(accounts, engine, at(300), account),
        Probe::Counter { track: power, at: at(300), value: 0 },
    ] {
        w.emit(&p);
    }
    w.finish(&[("digest", "00ff")]).expect("a vector takes everything")
}

#[test]
fn what_was_written_is_read() {
    let file = small();
    let c = collect(&file[..]).expect("a whole trace");
    let s = summary(&c);
    assert_eq!((s.run["soc"].as_str(), s.run["digest"].as_str()), ("made-up", "00ff"));
    assert_eq!((s.slices, s.bytes), (2, file.len() as u64));
    assert!((s.duration_s - 200e-9).abs() < 1e-15 && (s.boot_s - 100e-9).abs() < 1e-15);
    assert_eq!((s.counters[0].mean, s.counters[0].max), (2.0, 2.5));
    let mx = s.tracks.iter().find(|t| t.name == "npu0_mx").expect("declared");
    assert_eq!((mx.slices, mx.boot_slices), (2, 1));
    let o = ops(&c);
    let row = &o.ops[0];
    assert_eq!((row.name.as_str(), row.layer, row.kind.as_str()), ("layer0.qkv", Some(0), "qkv"));
    assert_eq!((row.figures.count, row.figures.macs, row.figures.share_percent), (2, 2000, 100.0));
    assert!((row.figures.mx_s - 42e-9).abs() < 1e-15);
    let e = &stalls(&c).engines["npu0_mx"];
    assert_eq!((e.total_cycles, e.commands, e.causes["active"].cycles), (200, Some(2), 42));
    assert_eq!(e.causes.values().map(|c| c.percent).sum::<f64>(), 100.0);
}

#[test]
fn begins_and_ends_alternate_and_names_are_written_once() {
    let file = small();
    let mut r = Reader::new(&file[..]);
    let (mut open, mut slices) = (false, 0);
    while let Some(e) = r.next_event().expect("a whole trace") {
        match e {
            Event::Begin { name, .. } => {
                assert!(!std::mem::replace(&mut open, true));
                assert_eq!(r.name(name), "layer0.qkv");
                assert_eq!(r.arguments().next().map(|a| a.0), Some("cycles"));
                slices += 1;
            }
            Event::End { .. } => assert!(std::mem::replace(&mut open, false)),
            _ => {}
        }
    }
    assert_eq!((open, slices), (false, 3));
    let found = file.windows(10).filter(|w| *w == b"layer0.qkv").count();
    assert_eq!(found, 1);
}

#[test]
fn every_truncation_is_an_error_with_the_offset() {
    let file = small();
    for n in 0..file.len() {
        match collect(&file[..n]).expect_err("a part is not the whole") {
            TraceError::Truncated { offset } => assert_eq!(offset, n as u64),
            TraceError::Foreign { offset, .. } => assert_eq!((offset, n), (0, 0)),
            other => panic!("{n} bytes: {other}"),
        }
    }
    let more = [&file[..], b"\x0a\x00"].concat();
    assert!(
        matches!(collect(&more[..]), Err(TraceError::Damaged { offset, .. }) if offset == file.len() as u64)
    );
}

#[test]
fn no_flipped_bit_makes_a_panic_and_most_are_noticed() {
    let file = small();
    let mut noticed = 0;
    for bit in 0..file.len() * 8 {
        let mut damaged = file.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        match collect(&damaged[..]) {
            Err(e) => {
                assert!(e.to_string().starts_with("at byte "), "{e}");
                noticed += 1;
            }
            // Then the views must bear it too.
            Ok(c) => drop((summary(&c), ops(&c), stalls(&c))),
        }
    }
    assert!(noticed * 3 > file.len() * 8, "{noticed} of {}", file.len() * 8);
}

#[test]
fn other_files_are_named_as_such() {
    let text = collect(&b"[base]\nsoc = \"tiny\"\n"[..]).expect_err("a text");
    assert_eq!(
        text.to_string(),
        "at byte 0: not a trace that presil wrote: a trace packet begins with byte 0x0a, found 0x5b"
    );
    // A Perfetto trace of something else: one packet with a timestamp and a named event.
    let other = [0x0a, 0x06, 0x40, 0x01, 0x5a, 0x02, 0x48, 0x03];
    let e = collect(&other[..]).expect_err("no header");
    assert_eq!(
        e.to_string(),
        "at byte 0: not a trace that presil wrote: the first event must be `presil.trace/1`"
    );
    let long = collect(&[0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f][..]).expect_err("4 GiB");
    assert!(matches!(long, TraceError::Damaged { offset: 0, .. }), "{long}");
}
