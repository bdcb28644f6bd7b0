//! Every timing row decides something: moving it moves the commands of some small scenario, equally in both engines.

use soc_model::dram::constraints::{Device, Scope, constraints};
use soc_model::dram::standard::{ROWS, STANDARDS};
use soc_model::dram::{
    BankMode, BurstChannel, Controller, Done, Mode, Place, Refresh, Request, RowPolicy, Standard,
    TickChannel, Timings,
};

/// Earliest CK, bank, row, column, write.
type Step = (u64, u8, u32, u16, bool);

fn scenarios() -> Vec<Vec<Step>> {
    let read = |due, bank, row, column| (due, bank, row, column, false);
    let write = |due, bank, row, column| (due, bank, row, column, true);
    vec![
        // One closed bank; its row again, long after; another row of it.
        vec![read(0, 0, 1, 0), read(300, 0, 1, 1), read(310, 0, 2, 0)],
        // Back to back in one row, then in two bank groups, then a conflict right behind.
        vec![read(0, 0, 1, 0), read(0, 0, 1, 1), read(0, 4, 1, 0), read(0, 8, 1, 0), read(0, 0, 3, 0)],
        // Six activates at once: nRRD and nFAW.
        (0..6).map(|bank| read(0, bank, 1, 0)).collect(),
        // Write, then read of the same and of another group; write again; conflict after the write.
        vec![
            write(0, 0, 1, 0),
            read(40, 0, 1, 1),
            read(300, 4, 1, 0),
            write(340, 4, 1, 1),
            write(380, 4, 2, 0),
        ],
        vec![
            write(0, 0, 1, 0),
            write(0, 4, 1, 0),
            read(300, 0, 1, 3),
            write(300, 0, 1, 4),
            read(335, 4, 1, 5),
        ],
        // Two rows opened together, then both closed by conflicts waiting together.
        vec![read(0, 0, 1, 0), read(0, 1, 1, 0), read(200, 0, 2, 0), read(200, 1, 2, 0)],
        // Column commands on every other CK while a row opens: ACT2 competes for the command slot.
        (0..24u16)
            .map(|i| {
                let late = i > 16;
                let bank = u8::from(i % 2 == 1) * 4 + u8::from(late) * 9;
                read(if late { 230 } else { 200 }, bank, u32::from(late), i)
            })
            .collect(),
        // A write to one group, then a read of another, both rows open.
        vec![read(0, 0, 1, 0), read(0, 4, 1, 0), write(300, 0, 1, 1), read(302, 4, 1, 1)],
        // The bus falls idle for a few CK around the WCK postamble.
        (0..12).map(|i| read(100 + u64::from(i) * u64::from(i + 17), 0, 1, i)).collect(),
        // Across a refresh.
        (0..60).map(|i| read(3000 + 37 * u64::from(i), 0, 1, i)).collect(),
        // Rows of several banks across many refreshes of banks.
        (0..150u16)
            .map(|i| read(29 * u64::from(i), i.to_le_bytes()[0] % 16, u32::from(i / 48), i % 48))
            .collect(),
        // Many rows without a pause, so that refreshes are put off and caught up.
        (0..3000u16)
            .map(|i| read(2 * u64::from(i), (i / 3).to_le_bytes()[0] % 16, u32::from(i / 96), i % 48))
            .collect(),
        // Ever longer pauses: into power-down and self-refresh, and out again at once.
        (0..150u16).map(|i| read(u64::from(i) * (20 + u64::from(i) / 2), 0, 1, i % 48)).collect(),
    ]
}

fn requests(steps: &[Step]) -> Vec<(u64, Request)> {
    steps
        .iter()
        .map(|&(due, bank, row, column, write)| {
            (due, Request { place: Place { bank, row, column }, write, class: 0, tag: 0 })
        })
        .collect()
}

/// Runs both engines every CK and asserts that they agree.
fn run(t: Timings, c: Controller, steps: &[Step]) -> Vec<Done> {
    let (mut a, mut b) = (TickChannel::new(t, c), BurstChannel::new(t, c));
    let (mut x, mut y) = (Vec::new(), Vec::new());
    let list = requests(steps);
    let mut next = 0;
    while next < list.len() || !a.is_empty() {
        while next < list.len() && list[next].0 <= a.now() {
            let taken = a.offer(list[next].1, &mut x);
            assert_eq!(taken, b.offer(list[next].1, &mut y));
            if !taken {
                break;
            }
            next += 1;
        }
        a.tick(&mut x);
        b.tick(&mut y);
        assert!(a.now() < 100_000, "the scenario ends");
    }
    assert_eq!(x, y);
    x
}

/// The preset with one row changed, if it still validates.
fn changed(text: &str, row: &str, to: u64) -> Option<Timings> {
    let lines: Vec<String> = text
        .lines()
        .map(|l| match l.strip_prefix(&format!("{row} = {{ ck = ")).and_then(|rest| rest.split_once(',')) {
            Some((_, rest)) => format!("{row} = {{ ck = {to},{rest}"),
            None => l.to_owned(),
        })
        .collect();
    Standard::parse(&lines.join("\n")).ok().map(|s| s.timings)
}

fn controllers() -> [Controller; 6] {
    let base = Controller::DEFAULT;
    [
        base,
        Controller { refresh: Refresh::PerBank, ..base },
        Controller { refresh: Refresh::PerBank, postpone: 1, ..base },
        Controller { power_down_after: 20, ..base },
        Controller { power_down_after: 20, self_refresh_after: 60, ..base },
        Controller { rows: RowPolicy::Closed { cap: 1 }, ..base },
    ]
}

#[test]
fn every_row_decides_something() {
    let mut idle = Vec::new();
    for (name, text) in STANDARDS.into_iter().filter(|(name, _)| *name != "lpddr5t-9600") {
        let t = Standard::parse(text).expect(name).timings;
        let cases: Vec<_> =
            controllers().into_iter().flat_map(|c| scenarios().into_iter().map(move |s| (c, s))).collect();
        let base: Vec<Vec<Done>> = cases.iter().map(|(c, s)| run(t, *c, s)).collect();
        for (row, ck) in t.rows() {
            let alive = [ck + 1, ck + 7, ck.saturating_sub(1), 1].into_iter().any(|to| {
                changed(text, row, to)
                    .is_some_and(|t| cases.iter().zip(&base).any(|((c, s), b)| run(t, *c, s) != *b))
            });
            if !alive {
                idle.push((name, row));
            }
        }
        assert_eq!(t.rows().len(), ROWS.len());
    }
    // LPDDR6's long precharge, on the way into power-down, outlasts the shortest stay in it.
    assert_eq!(idle, [("lpddr6-10667", "nCSPD")], "rows that never matter");
}

/// Timings of every standard in every mode it has.
fn modes() -> Vec<(String, Timings)> {
    let nominal = Mode::NOMINAL;
    let all = [
        nominal,
        Mode { density_gbit: Some(8), ..nominal },
        Mode { density_gbit: Some(16), ..nominal },
        Mode { density_gbit: Some(32), ..nominal },
        Mode { bl32: true, ..nominal },
        Mode { bl32: true, banks: BankMode::Eight, ..nominal },
        Mode { banks: BankMode::Sixteen, frequency_permille: 300, ..nominal },
        Mode { link_ecc: true, ..nominal },
        Mode { hot: true, refresh_permille: 500, ..nominal },
        Mode { frequency_permille: 500, ..nominal },
    ];
    let mut out = Vec::new();
    for (name, text) in STANDARDS {
        let standard = Standard::parse(text).expect(name);
        for mode in all {
            match standard.with(mode) {
                Ok(s) => out.push((format!("{name} {mode:?}"), s.timings)),
                Err(e) => assert!(name == "lpddr6-10667", "{name} {mode:?}: {e:?}"),
            }
        }
    }
    out
}

/// Rows no distance between two commands is made of: the latest ACT2, when refreshes fall due, how long WCK runs.
/// `every_row_decides_something` moves the first and last, `refreshes_fall_due_at_their_interval` probes the others.
const NOT_DISTANCES: [&str; 4] = ["nAAD", "nREFI", "nREFIpb", "nWCKPST"];

#[test]
fn every_constraint_is_legal_at_t_and_illegal_before() {
    let start = 1000;
    for (name, t) in modes() {
        let table = constraints(&t);
        let mut probed: Vec<&str> = NOT_DISTANCES.to_vec();
        for c in &table {
            let second = match c.scope {
                Scope::Bank => 0,
                Scope::SameGroup => 1,
                Scope::OtherGroup => 4,
                Scope::Channel => 9,
            };
            let mut device = Device::new(&t);
            (0..c.window).for_each(|_| device.issue(c.from, 0, start));
            let legal = |after: u64| device.legal(c.to, second, start + after);
            assert!(legal(c.cycles), "{name}: {c:?} forbids its own distance");
            assert!(!legal(c.cycles - 1), "{name}: {c:?} is not tight");
            if let Some(mesh) = c.mesh {
                assert!(legal(mesh) && !legal(mesh - 1) && !legal(mesh + 1), "{name}: {c:?}");
            }
            probed.extend(c.rows);
        }
        let without: Vec<_> = ROWS.iter().filter(|row| !probed.contains(row)).collect();
        assert!(without.is_empty(), "{name}: rows without a probe: {without:?}");
    }
    assert_eq!(modes().len(), 5 * 10 + 2);
}

#[test]
fn refreshes_fall_due_at_their_interval() {
    for (name, t) in modes() {
        for (refresh, interval) in [(Refresh::AllBank, t.refi), (Refresh::PerBank, t.refi_pb)] {
            let mut e = TickChannel::new(t, Controller { refresh, ..Controller::DEFAULT });
            let mut sent = Vec::new();
            while sent.len() < 3 {
                e.tick(&mut Vec::new());
                if e.commands().refreshes + e.commands().bank_refreshes > sent.len() as u64 {
                    sent.push(e.now());
                }
            }
            assert_eq!(sent, [interval, 2 * interval, 3 * interval], "{name}");
        }
    }
}

#[test]
fn postponed_refreshes_are_caught_up_before_the_ninth() {
    let t = Standard::named("lpddr5-6400").unwrap().timings;
    let c = Controller { postpone: 8, ..Controller::DEFAULT };
    let mut e = TickChannel::new(t, c);
    let (mut done, mut i) = (Vec::new(), 0u32);
    let mut seen = Vec::new();
    while e.now() < 30 * t.refi {
        // Busy at first, then idle.
        while e.now() < 20 * t.refi {
            let place = Place { bank: i.to_le_bytes()[0] % 16, row: i / 1024, column: 0 };
            if !e.offer(Request { place, ..Request::default() }, &mut done) {
                break;
            }
            i += 1;
        }
        e.tick(&mut done);
        seen.push((e.now() / t.refi).saturating_sub(e.commands().refreshes));
    }
    assert_eq!(seen.iter().max(), Some(&9), "the ninth forces all");
    assert_eq!(seen.last(), Some(&0), "an idle channel owes none");
    assert!(e.commands().refreshes >= 29);
}

#[test]
fn an_unloaded_read_takes_the_sum_of_its_steps() {
    for (name, text) in STANDARDS {
        let t = Standard::parse(text).expect(name).timings;
        let done = run(
            t,
            Controller::DEFAULT,
            &[(0, 0, 1, 0, false), (500, 0, 1, 1, false), (1000, 0, 2, 0, false)],
        );
        // ACT1 at 0, CAS at nRCD, RD a CK later; a hit needs CAS and RD; a conflict PRE first.
        let latency: Vec<u64> = done.iter().map(|d| d.done - d.accepted).collect();
        let data = 1 + t.cl + t.bl_min;
        assert_eq!(latency, [t.rcd + data, data, t.rp_pb + t.rcd + data], "{name}");
    }
}
