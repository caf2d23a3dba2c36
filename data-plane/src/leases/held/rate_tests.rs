//! A rate on the control thread, by what workers follow and what is sent up.

use std::num::NonZeroU32;

use lb_core::{lease::QuantityKind, limit::MICROS};

use super::*;
use crate::worker::now;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn quantity() -> Quantity {
    Quantity { kind: QuantityKind::Limit, name: "l".into(), incarnation: 1 }
}

fn rate() -> (Held, Arc<RateLease>, Instant) {
    let start = now();
    let wanted = Wanted { amount: 100 * MICROS, sort: Sort::Rate { burst: 80 } };
    let holder = Holder::new(wanted.terms(), wanted.on_loss(), 0, 1, start);
    let held = HeldRate::new(7, holder, wanted, 2, start);
    let lease = Arc::clone(&held.lease);
    (Held::Rate(held), lease, start)
}

fn rate_grant(answers: u64) -> pb::LeaseGrant {
    let grant = Grant {
        term: Term(1),
        id: answers,
        answers,
        lease: ms(1000),
        amount: 50 * MICROS,
        safe: 20 * MICROS,
        carried: false,
        proxies: NonZeroU32::new(4),
    };
    convert::lease_grant_to_wire(&quantity(), None, 7, &grant)
}

#[test]
fn workers_follow_a_rate_at_once_and_what_comes_after_it() {
    let (mut held, lease, start) = rate();
    let rates = |lease: &RateLease| {
        [999, 1000, 2099, 2100].map(|after| lease.newest().rate(start + ms(after)) / MICROS)
    };
    let mut reports = Vec::new();
    held.report(&quantity(), false, start, &mut reports);
    assert_eq!(rates(&lease), [0, 0, 0, 0]);
    held.hear(&rate_grant(1), start).unwrap();
    assert_eq!((rates(&lease), lease.newest().burst()), ([50, 20, 20, 20], 20));
    held.renew(Term(1), start + ms(100), start + ms(200));
    assert_eq!(rates(&lease)[1], 50, "the lease lasts longer");
    held.retire(start + ms(300));
    assert_eq!(rates(&lease)[3], 0, "another process has its safe share");
    assert_eq!((held.remembered(), held.is_busy()), ((20 * MICROS, 4), false));
    let Held::Rate(held) = &mut held else { unreachable!("it holds a rate") };
    held.change(Wanted { amount: MICROS, sort: Sort::Rate { burst: 40 } }, start + ms(300));
    assert_eq!(lease.newest().burst(), 10);
}

#[test]
fn what_was_asked_for_is_reported_once() {
    let (mut held, lease, start) = rate();
    let mut demand = |after: u64, repeats: bool| {
        let mut reports = Vec::new();
        held.report(&quantity(), repeats, start + ms(after), &mut reports);
        reports.pop().map(|report| report.demand / MICROS)
    };
    assert_eq!(demand(0, false), Some(0));
    (0..200).for_each(|_| lease.count(1));
    let asked = demand(5000, true);
    assert!(asked.is_some_and(|rate| (39..=40).contains(&rate)), "{asked:?}");
    let later = demand(10_000, true);
    assert_eq!(later, Some(0));
    // What was reported and taken back makes up for what comes.
    (0..10).for_each(|_| lease.uncount(1));
    assert_eq!(demand(15_000, false), Some(0));
    (0..10).for_each(|_| lease.count(0));
    assert_eq!(demand(20_000, false), Some(0));
    (0..100).for_each(|_| lease.count(0));
    assert!(demand(25_000, false).is_some_and(|rate| (19..=20).contains(&rate)));
}
