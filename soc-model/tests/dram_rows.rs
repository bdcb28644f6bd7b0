//! Every timing row decides something: moving it moves the commands of some small scenario, equally in both engines.

use soc_model::dram::standard::{ROWS, STANDARDS};
use soc_model::dram::{BurstChannel, Controller, Done, Place, Request, Standard, TickChannel, Timings};

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
fn run(t: Timings, steps: &[Step]) -> Vec<Done> {
    let (mut a, mut b) =
        (TickChannel::new(t, Controller::DEFAULT), BurstChannel::new(t, Controller::DEFAULT));
    let (mut x, mut y) = (Vec::new(), Vec::new());
    let list = requests(steps);
    let mut next = 0;
    while next < list.len() || !a.is_empty() {
        while next < list.len() && list[next].0 <= a.now() {
            assert!(a.offer(list[next].1, &mut x) && b.offer(list[next].1, &mut y), "few requests at a time");
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

#[test]
fn every_row_decides_something() {
    let mut idle = Vec::new();
    for (name, text) in STANDARDS {
        let t = Standard::parse(text).expect(name).timings;
        let base: Vec<Vec<Done>> = scenarios().iter().map(|s| run(t, s)).collect();
        for (row, ck) in t.rows() {
            let alive = [ck + 1, ck + 7, ck.saturating_sub(1), 1].into_iter().any(|to| {
                changed(text, row, to)
                    .is_some_and(|t| scenarios().iter().zip(&base).any(|(s, b)| run(t, s) != *b))
            });
            if !alive {
                idle.push((name, row));
            }
        }
        assert_eq!(t.rows().len(), ROWS.len());
    }
    // PREab is only sent ahead of REFab, whose nRFCab is longer: nRPab is carried, validated, and never decides.
    let expected: Vec<_> = STANDARDS.iter().map(|(name, _)| (*name, "nRPab")).collect();
    assert_eq!(idle, expected);
}

#[test]
fn an_unloaded_read_takes_the_sum_of_its_steps() {
    for (name, text) in STANDARDS {
        let t = Standard::parse(text).expect(name).timings;
        let done = run(t, &[(0, 0, 1, 0, false), (500, 0, 1, 1, false), (1000, 0, 2, 0, false)]);
        // ACT1 at 0, CAS at nRCD, RD a CK later; a hit needs CAS and RD; a conflict PRE first.
        let latency: Vec<u64> = done.iter().map(|d| d.done - d.accepted).collect();
        let data = 1 + t.cl + t.bl_min;
        assert_eq!(latency, [t.rcd + data, data, t.rp_pb + t.rcd + data], "{name}");
    }
}
