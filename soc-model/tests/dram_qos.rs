//! Classes of service in one channel's controller, and the bound on waiting.

use soc_model::dram::{BurstChannel, Controller, Place, Request, Standard};

/// CKs that a row hit of `class` waits beside a stream of hits of class 2, twenty of which are always there; `None`
/// if it is not served in 2500.
fn wait(class: u8, age_limit: u64) -> Option<u64> {
    let t = Standard::named("lpddr5-6400").unwrap().timings;
    let mut e = BurstChannel::new(t, Controller { age_limit, ..Controller::DEFAULT });
    let (mut done, mut sent, mut back) = (Vec::new(), 0u16, 0);
    while e.now() < 3000 {
        while sent < back + 20 {
            let place = Place { bank: (sent % 4 * 4).to_le_bytes()[0], row: 1, column: sent / 4 % 63 };
            assert!(e.offer(Request { place, class: 2, ..Request::default() }, &mut done));
            sent += 1;
        }
        if e.now() == 500 {
            let place = Place { bank: 0, row: 1, column: 63 };
            assert!(e.offer(Request { place, class, tag: 9, ..Request::default() }, &mut done));
        }
        e.tick(&mut done);
        for d in done.drain(..) {
            if d.tag == 9 {
                return Some(d.done - d.accepted);
            }
            back += 1;
        }
    }
    None
}

#[test]
fn a_higher_class_goes_first_and_age_bounds_the_wait() {
    let below = |most: u64, wait: Option<u64>| wait.is_some_and(|w| w < most);
    assert!(below(40, wait(3, u64::MAX)), "above the stream: {:?}", wait(3, u64::MAX));
    assert!(below(100, wait(2, u64::MAX)), "in turn: {:?}", wait(2, u64::MAX));
    assert_eq!(wait(1, u64::MAX), None, "below it: not while the stream lasts");
    for limit in [200, 600, 1500] {
        for class in [0, 1] {
            let w = wait(class, limit);
            assert!(w.is_some_and(|w| (limit..limit + 40).contains(&w)), "class {class}, {limit} CK: {w:?}");
        }
    }
}
