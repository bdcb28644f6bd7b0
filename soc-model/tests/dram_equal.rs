//! The event-skipping engine equals the every-CK oracle on random traffic, command for command.

use sim_kernel::Stream;
use soc_model::dram::{
    AddressMap, BurstChannel, Commands, Controller, Done, Request, Standard, TickChannel, standard::STANDARDS,
};

/// Random requests with their earliest CK: bursts of activity, runs of neighbours, repeats, urgent ones.
fn traffic(r: &mut Stream, map: &AddressMap, count: u64) -> Vec<(u64, Request)> {
    let writes = r.below(101);
    let local = r.below(101);
    let gap = [0, 0, 1, 3, 20, 400][usize::try_from(r.below(6)).unwrap()];
    let span_bits = 12 + r.below(19);
    let (mut address, mut due) = (0u64, 0u64);
    (0..count)
        .map(|i| {
            address =
                if r.below(100) < local { address + 32 } else { r.next_u64() & ((1 << span_bits) - 32) };
            due += r.below(2 * gap + 1);
            let write = r.below(100) < writes;
            let urgent = !write && r.below(50) == 0;
            let tag = u32::try_from(i).unwrap();
            (due, Request { place: map.place(address), write, urgent, tag })
        })
        .collect()
}

fn controller(r: &mut Stream) -> Controller {
    let size = |r: &mut Stream| u32::try_from(1 + r.below(32)).unwrap();
    let (read_buffer, write_buffer) = (size(r), size(r));
    let drain_above = u32::try_from(r.below(u64::from(write_buffer))).unwrap();
    let drain_until_below = u32::try_from(1 + r.below(u64::from(drain_above) + 1)).unwrap();
    let read_patience = [u64::MAX, 100, 700][usize::try_from(r.below(3)).unwrap()];
    let refresh = r.below(8) > 0;
    Controller { read_buffer, write_buffer, drain_above, drain_until_below, read_patience, refresh }
}

fn limit(now: u64) {
    assert!(now < 20_000_000, "the channel makes progress");
}

fn by_tick(mut e: TickChannel, traffic: &[(u64, Request)]) -> (Vec<Done>, Commands) {
    let (mut done, mut next) = (Vec::new(), 0);
    while next < traffic.len() || !e.is_empty() {
        while next < traffic.len() && traffic[next].0 <= e.now() && e.offer(traffic[next].1, &mut done) {
            next += 1;
        }
        e.tick(&mut done);
        limit(e.now());
    }
    (done, *e.commands())
}

fn by_burst(mut e: BurstChannel, traffic: &[(u64, Request)]) -> (Vec<Done>, Commands, u64) {
    let (mut done, mut next, mut ticks) = (Vec::new(), 0, 0);
    while next < traffic.len() || !e.is_empty() {
        while next < traffic.len() && traffic[next].0 <= e.now() && e.offer(traffic[next].1, &mut done) {
            next += 1;
        }
        e.tick(&mut done);
        ticks += 1;
        let arrival = traffic.get(next).map_or(u64::MAX, |t| t.0).max(e.now());
        let blocked = traffic.get(next).is_none_or(|t| !e.has_room(t.1.write, t.1.urgent));
        let to = if blocked { e.next_event() } else { e.next_event().min(arrival) };
        e.skip_to(to);
        limit(e.now());
    }
    (done, *e.commands(), ticks)
}

#[test]
fn random_traffic_gives_the_same_commands_at_the_same_ck() {
    let (mut reads, mut conflicts, mut forwarded, mut skipped) = (0, 0, 0, 0u64);
    for seed in 0..150 {
        let mut r = Stream::new(seed, "test.dram", "equal");
        let (_, text) = STANDARDS[usize::try_from(r.below(3)).unwrap()];
        let t = Standard::parse(text)
            .unwrap()
            .timings
            .at_permille([1000, 500, 1200][usize::try_from(r.below(3)).unwrap()]);
        let names = ["map-a", "map-32", "map-bg8", "map-a-xor", "map-bg8-xor"];
        let map = AddressMap::named_or_parsed(names[usize::try_from(r.below(5)).unwrap()]).unwrap();
        let c = controller(&mut r);
        let requests = traffic(&mut r, &map, 3000);
        let (a, commands) = by_tick(TickChannel::new(t, c), &requests);
        let (b, same, ticks) = by_burst(BurstChannel::new(t, c), &requests);
        assert_eq!(a.len(), requests.len(), "seed {seed}: every request is answered once");
        assert_eq!(a.iter().zip(&b).position(|(x, y)| x != y), None, "seed {seed} {c:?}");
        assert_eq!(commands, same, "seed {seed} {c:?}");
        reads += commands.reads;
        conflicts += commands.row_conflicts;
        forwarded += commands.forwarded;
        skipped += a.iter().map(|d| d.done).max().unwrap_or(0).saturating_sub(ticks);
    }
    assert!(reads > 0 && conflicts > 0 && forwarded > 0 && skipped > 0, "the traffic exercises the rules");
}
