//! The event-skipping engine equals the every-CK oracle on random traffic, command for command.

use sim_kernel::Stream;
use soc_model::dram::{
    AddressMap, BurstChannel, Commands, Controller, Done, Refresh, Request, RowPolicy, Scheduler, Standard,
    States, TickChannel, Wck, standard::STANDARDS,
};

/// Random requests with their earliest CK: bursts of activity, runs of neighbours, repeats, urgent ones.
fn traffic(r: &mut Stream, map: &AddressMap, count: u64) -> Vec<(u64, Request)> {
    let writes = r.below(101);
    let local = r.below(101);
    let gap = [0, 0, 1, 3, 20, 400, 4000][usize::try_from(r.below(7)).unwrap()];
    let urgent = [0, 1, 1, 10][usize::try_from(r.below(4)).unwrap()];
    let span_bits = 12 + r.below(19);
    let (mut address, mut due) = (0u64, 0u64);
    (0..count)
        .map(|i| {
            address =
                if r.below(100) < local { address + 32 } else { r.next_u64() & ((1 << span_bits) - 32) };
            due += r.below(2 * gap + 1);
            let write = r.below(100) < writes;
            let class = if r.below(50) < urgent { u8::try_from(1 + r.below(3)).unwrap() } else { 0 };
            let tag = u32::try_from(i).unwrap();
            (due, Request { place: map.place(address), write, class, tag })
        })
        .collect()
}

fn one<T: Copy>(r: &mut Stream, of: &[T]) -> T {
    of[usize::try_from(r.below(of.len() as u64)).unwrap()]
}

fn controller(r: &mut Stream) -> Controller {
    let most = one(r, &[32, 32, 64]);
    let size = |r: &mut Stream| u32::try_from(1 + r.below(most)).unwrap();
    let (read_buffer, write_buffer) = (size(r), size(r));
    let drain_above = u32::try_from(r.below(u64::from(write_buffer))).unwrap();
    let drain_until_below = u32::try_from(1 + r.below(u64::from(drain_above) + 1)).unwrap();
    let power_down_after = one(r, &[u64::MAX, u64::MAX, 1, 20, 100, 300]);
    let self_refresh_after =
        if power_down_after == u64::MAX { u64::MAX } else { one(r, &[u64::MAX, 300, 2000]) };
    let closed = RowPolicy::Closed { cap: u32::try_from(1 + r.below(6)).unwrap() };
    Controller {
        read_buffer,
        write_buffer,
        drain_above,
        drain_until_below,
        read_patience: one(r, &[u64::MAX, 100, 700]),
        refresh: one(
            r,
            &[Refresh::None, Refresh::AllBank, Refresh::AllBank, Refresh::PerBank, Refresh::PerBank],
        ),
        postpone: one(r, &[0, 0, 1, 8]),
        rows: one(r, &[RowPolicy::Open, RowPolicy::Open, closed, closed, RowPolicy::Adaptive]),
        scheduler: one(r, &[Scheduler::OldestReady, Scheduler::RowHitFirst]),
        wck: one(r, &[Wck::NeedSync, Wck::NeedSync, Wck::AlwaysOn]),
        age_limit: one(r, &[u64::MAX, 50, 1000]),
        power_down_after,
        self_refresh_after,
    }
}

fn limit(now: u64) {
    assert!(now < 60_000_000, "the channel makes progress");
}

fn by_tick(mut e: TickChannel, traffic: &[(u64, Request)]) -> (Vec<Done>, Commands, States) {
    let (mut done, mut next) = (Vec::new(), 0);
    while next < traffic.len() || !e.is_empty() {
        while next < traffic.len() && traffic[next].0 <= e.now() && e.offer(traffic[next].1, &mut done) {
            next += 1;
        }
        e.tick(&mut done);
        limit(e.now());
    }
    (done, *e.commands(), e.states(e.now()))
}

fn by_burst(mut e: BurstChannel, traffic: &[(u64, Request)], end: u64) -> (Vec<Done>, Commands, States, u64) {
    let (mut done, mut next, mut ticks) = (Vec::new(), 0, 0);
    while next < traffic.len() || !e.is_empty() {
        while next < traffic.len() && traffic[next].0 <= e.now() && e.offer(traffic[next].1, &mut done) {
            next += 1;
        }
        e.tick(&mut done);
        ticks += 1;
        let arrival = traffic.get(next).map_or(u64::MAX, |t| t.0).max(e.now());
        let blocked = traffic.get(next).is_none_or(|t| !e.has_room(t.1.write, t.1.class > 0));
        let to = if blocked { e.next_event() } else { e.next_event().min(arrival) };
        e.skip_to(to);
        limit(e.now());
    }
    (done, *e.commands(), e.states(end), ticks)
}

#[test]
fn random_traffic_gives_the_same_commands_at_the_same_ck() {
    let mut sum = Commands::default();
    let mut slept = States::default();
    let mut skipped = 0u64;
    for seed in 0..400 {
        let mut r = Stream::new(seed, "test.dram", "equal");
        let (_, text) = one(&mut r, &STANDARDS);
        let mut t = Standard::parse(text).unwrap().timings.at_permille(one(&mut r, &[1000, 500, 1200]));
        match r.below(6) {
            0 => (t.ccd_s, t.ccd_l, t.bl_min, t.bl_max, t.interleave) = (6, 8, 6, 8, 2),
            1 => t.rcd_w = t.rcd / 2,
            _ => {}
        }
        let names = ["map-a", "map-32", "map-bg8", "map-a-xor", "map-bg8-xor"];
        let map = AddressMap::named_or_parsed(one(&mut r, &names)).unwrap();
        let c = controller(&mut r);
        let requests = traffic(&mut r, &map, 2000);
        let (a, commands, states) = by_tick(TickChannel::new(t, c), &requests);
        let ck = states.active + states.precharged + states.power_down + states.self_refresh;
        let (b, same, spent, ticks) = by_burst(BurstChannel::new(t, c), &requests, ck);
        assert_eq!(a.len(), requests.len(), "seed {seed}: every request is answered once");
        assert_eq!(a.iter().zip(&b).position(|(x, y)| x != y), None, "seed {seed} {c:?}");
        assert_eq!(commands, same, "seed {seed} {c:?}");
        assert_eq!(states, spent, "seed {seed} {c:?}");
        sum.add_scaled(&commands, &Commands::default(), 1);
        slept.add_scaled(&states, &States::default(), 1);
        skipped += a.iter().map(|d| d.done).max().unwrap_or(0).saturating_sub(ticks);
    }
    let used = [
        sum.reads,
        sum.writes,
        sum.auto_precharges,
        sum.bank_refreshes,
        sum.power_downs,
        sum.self_refreshes,
        sum.row_conflicts,
        sum.forwarded,
        slept.power_down,
        slept.self_refresh,
        skipped,
    ];
    assert!(used.iter().all(|&n| n > 0), "the traffic exercises the rules: {used:?}");
}
