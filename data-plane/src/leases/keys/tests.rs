//! The keys of a limit, by what workers let pass and what is sent up.

use lb_core::{
    lease::{QuantityKind, Sort},
    limit::MICROS,
};

use super::*;
use crate::{
    leases::{Copy, held::Held},
    worker::now,
};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn quantity() -> Quantity {
    Quantity { kind: QuantityKind::Limit, name: "by-key".into(), incarnation: 1 }
}

fn keys() -> (HeldKeys, Arc<KeyLease>, Instant) {
    let start = now();
    let wanted = Wanted { amount: 100 * MICROS, sort: Sort::RateByKey { burst: 9 } };
    let held = HeldKeys::new(7, wanted, 2, Table::new(10, wanted.amount, 9), start);
    let lease = Arc::clone(&held.lease);
    (held, lease, start)
}

const KEY: u64 = 5;

/// Of so much for a second, or of nothing without an answer.
fn grant(key: Option<u64>, answers: u64, proxies: u32) -> pb::LeaseGrant {
    pb::LeaseGrant {
        key,
        holder: 7,
        term: 1,
        id: answers,
        answers,
        lease_ms: 1000,
        amount: 80 * MICROS,
        safe: 50 * MICROS,
        proxies,
        ..pb::LeaseGrant::default()
    }
}

fn hear(held: &mut HeldKeys, wire: &pb::LeaseGrant, now: Instant) -> Result<Applied, Refused> {
    held.hear(wire, convert::lease_grant_from_wire(wire), now)
}

/// The keys that are reported.
fn report(held: &mut HeldKeys, repeats: bool, now: Instant) -> Vec<Option<u64>> {
    let mut reports = Vec::new();
    held.report(&quantity(), repeats, now, &mut reports);
    reports.iter().map(|report| report.key).collect()
}

#[test]
fn a_key_that_was_refused_is_reported_and_what_it_is_lent_reaches_the_workers() {
    let (mut held, lease, start) = keys();
    let mut copy = Copy::default();
    let mut admitted =
        |at: Instant| (0..40).filter(|_| lease.take(KEY, &mut copy, at).is_admitted()).count();
    assert_eq!(admitted(start), 8);
    assert_eq!(report(&mut held, false, start + ms(1)), [None, Some(KEY)]);
    assert_eq!(report(&mut held, true, start + ms(999)), [Some(KEY)]);
    let again = report(&mut held, true, start + ms(1001));
    assert_eq!(again, [None, Some(KEY)], "that it is there, now and then");
    assert_eq!(lease.newest().hot_keys(), 1);
    hear(&mut held, &grant(Some(KEY), 3, 2), start + ms(1001)).unwrap();
    assert!(held.is_stale, "workers are told once for all that a message says");
    assert_eq!(lease.newest().pace_of(KEY, start + ms(1500)), 50 * MICROS);
    held.publish();
    assert!(!held.is_stale);
    assert_eq!(lease.newest().pace_of(KEY, start + ms(1500)), 80 * MICROS);
    assert_eq!(lease.newest().pace_of(KEY + 1, start + ms(1500)), 50 * MICROS);
    assert_eq!(admitted(start + ms(1500)), 8);
    assert!(lease.take_refused().is_empty(), "it has a lease");
    assert_eq!(held.asked[&KEY].0.asked.load(Relaxed), 40, "all that ask for it count");
    report(&mut held, true, start + ms(1600));
    assert_eq!(held.asked[&KEY].1, 40, "and each once");
    assert_eq!(admitted(start + ms(1600)), 8, "what came in since, at its own pace");
    let reports = held.hot.reports(start + ms(1700));
    assert_eq!(reports.len(), 1);
    assert!(reports[0].1.demand > 0, "so much is needed");
}

#[test]
fn a_key_that_others_ask_for_is_opened_and_closed_and_forgotten_when_its_lease_is_over() {
    let (mut held, lease, start) = keys();
    let mut copy = Copy::default();
    for key in [KEY, KEY + 1] {
        (0..8).for_each(|_| _ = lease.take(key, &mut copy, start));
        hear(&mut held, &grant(Some(key), 0, 2), start).unwrap();
    }
    report(&mut held, false, start);
    hear(&mut held, &grant(Some(KEY), 1, 2), start).unwrap();
    held.publish();
    assert_eq!(lease.newest().hot_keys(), 2);
    let mut after = 0;
    while lease.newest().hot_keys() > 0 {
        after += 100;
        report(&mut held, true, start + ms(after));
        assert!(after < 60_000, "it stays hot");
    }
    assert!(held.asked.is_empty());
    // As if no time had gone by in which they fill.
    assert_eq!(lease.take(KEY, &mut copy, start).remaining(), 7, "it had a pace of its own");
    assert!(!lease.take(KEY + 1, &mut copy, start).is_admitted(), "this one had none");
}

#[test]
fn the_even_share_of_every_key_follows_the_number_of_proxies_and_the_limit() {
    let (mut held, lease, start) = keys();
    let cold = |after| lease.newest().cold.rate(start + ms(after)) / MICROS;
    assert_eq!(cold(0), 50);
    hear(&mut held, &grant(None, 0, 4), start).unwrap();
    held.publish();
    assert_eq!((cold(0), held.hot.proxies()), (25, 4));
    held.is_stale = false;
    hear(&mut held, &grant(None, 0, 4), start).unwrap();
    assert!(!held.is_stale, "nothing is new");
    let wanted = Wanted { amount: 200 * MICROS, sort: Sort::RateByKey { burst: 100 } };
    held.change(wanted, start);
    assert_eq!((cold(0), lease.newest().cold.burst()), (50, 25));
    held.retire(start + ms(10));
    assert_eq!(cold(10_000), 0, "another process has the even shares");
}

#[test]
fn a_larger_burst_can_be_owed() {
    let (mut held, lease, start) = keys();
    let wanted = Wanted { amount: 100 * MICROS, sort: Sort::RateByKey { burst: 4000 } };
    held.change(wanted, start);
    let mut copy = Copy::default();
    let admitted = (0..9000).filter(|_| lease.take(KEY, &mut copy, start).is_admitted()).count();
    assert_eq!(admitted, 2000, "of two proxies one half");
}

#[test]
fn grants_of_keys_are_for_the_holder_that_asked() {
    let (held, lease, start) = keys();
    let mut held = Held::Keys(held);
    let strange = pb::LeaseGrant { holder: 8, ..grant(None, 0, 4) };
    assert_eq!(held.hear(&strange, start), Ok(false));
    held.publish_heard();
    assert_eq!(lease.newest().cold.rate(start), 50 * MICROS);
    held.hear(&grant(None, 0, 4), start).unwrap();
    assert_eq!(lease.newest().cold.rate(start), 50 * MICROS);
    held.publish_heard();
    assert_eq!(lease.newest().cold.rate(start), 25 * MICROS);
    assert_eq!((held.remembered(), held.is_busy(), held.rests_on()), ((0, 4), false, 0));
}
