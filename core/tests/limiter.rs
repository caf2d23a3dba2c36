//! The token bucket against another's (`governor`), and the table of buckets by key at
//! size, under contention and beyond its memory.

use std::{
    num::NonZeroU32,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use governor::{Quota, RateLimiter, clock::FakeRelativeClock};
use lb_core::{
    lease::Stages,
    limit::{Alike, Bucket, Decision, KeyHasher, MICROS, Pace, Table, nanos_between},
};
use proptest::prelude::*;

#[expect(clippy::disallowed_methods, reason = "the one epoch of a simulated clock")]
fn epoch() -> Instant {
    Instant::now()
}

fn admits(decision: Decision) -> bool {
    decision.is_admitted()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Rates that divide a second into whole nanoseconds, at times that are whole parts
    /// of a token: there both compute without rounding, and must agree on every request.
    #[test]
    fn every_decision_is_governors(
        (rate, grid) in prop::sample::select(vec![(1, 1_000_000_u64), (10, 100_000), (100, 10_000), (1000, 1000), (8, 125_000)]),
        burst in 1_u32..50,
        steps in prop::collection::vec(prop_oneof![Just(0), 0_u64..400, 0_u64..4000], 1..300),
    ) {
        let nonzero = |n| NonZeroU32::new(n).unwrap();
        let clock = FakeRelativeClock::default();
        let quota = Quota::per_second(nonzero(rate)).allow_burst(nonzero(burst));
        let oracle = RateLimiter::direct_with_clock(quota, clock.clone());
        let start = epoch();
        let pace = Pace::new(u64::from(rate) * MICROS, burst, start);
        let (bucket, table) = (Bucket::new(), Table::new(1, u64::from(rate) * MICROS, burst));
        let usual = Bucket::new();
        let mut now = start;
        for step in steps {
            let step = Duration::from_nanos(step * grid);
            clock.advance(step);
            now += step;
            let expected = oracle.check().is_ok();
            prop_assert_eq!(admits(bucket.take(&pace, now)), expected, "after {:?}", now - start);
            prop_assert_eq!(admits(table.take(7, &pace, now)), expected);
            let taken = usual.take_usual(&pace, nanos_between(start, now));
            prop_assert_eq!(taken.is_some(), expected);
            prop_assert!(taken.is_some() || !admits(usual.take(&pace, now)));
        }
    }

    /// What is given back was never taken: buckets of both kinds go on like one from which it
    /// was not asked for.
    #[test]
    fn a_token_that_is_given_back_was_not_taken(
        burst in 1_u32..20,
        steps in prop::collection::vec((0_u64..300, any::<bool>()), 1..200),
    ) {
        let mut now = epoch();
        let pace = Pace::new(10 * MICROS, burst, now);
        let (plain, bucket, table) = (Bucket::new(), Bucket::new(), Table::new(1, 10 * MICROS, burst));
        for (ms, is_kept) in steps {
            now += Duration::from_millis(ms);
            if is_kept {
                let expected = plain.take(&pace, now);
                prop_assert_eq!(bucket.take(&pace, now), expected);
                prop_assert_eq!(table.take(7, &pace, now), expected);
            } else if admits(bucket.take(&pace, now)) {
                prop_assert!(admits(table.take(7, &pace, now)));
                bucket.give_back();
                table.give_back(7, &pace, now);
            }
        }
    }

    /// Of what is taken for alike the same is told, whatever came between.
    #[test]
    fn of_what_is_alike_the_same_is_told(
        rate in prop_oneof![1_u64..20, 1000..2000_u64, Just(10_000_000)],
        burst in 1_u32..200,
        steps in prop::collection::vec(0_u64..3000, 2..100),
    ) {
        let start = epoch();
        let mut now = start;
        let pace = Pace::new(rate * MICROS, burst, now);
        let (table, bucket) = (Table::new(1, rate * MICROS, burst), Bucket::new());
        table.take(7, &pace, now);
        bucket.take(&pace, now);
        let (mut last, mut told) = (Alike::NONE, None);
        for micros in steps {
            now += Duration::from_micros(micros);
            let origin = start.checked_sub(Duration::from_millis(3)).unwrap();
            let elapsed = nanos_between(origin, now).wrapping_sub_signed(pace.start_after(origin));
            let taken = table.take_usual(7, &pace, elapsed);
            prop_assert_eq!(bucket.take_usual(&pace, elapsed), taken);
            let Some(taken) = taken else { continue };
            let decision = taken.decision(&pace);
            prop_assert!(taken.is_among(&taken.alike()) && !taken.is_among(&Alike::NONE));
            if taken.is_among(&last) {
                prop_assert_eq!(Some(decision), told);
            }
            (last, told) = (taken.alike(), Some(decision));
        }
    }

    /// A refusal says exactly when to come again.
    #[test]
    fn whoever_waits_as_told_is_admitted(rate in 1..20_000_000_u64, burst in 1_u32..20, pause_ms in 0..5000_u64) {
        let start = epoch();
        let pace = Pace::new(rate, burst, start);
        let bucket = Bucket::new();
        for _ in 0..burst {
            prop_assert!(admits(bucket.take(&pace, start)));
        }
        let now = start + Duration::from_millis(pause_ms);
        if let Decision::Refused { retry_after } = bucket.take(&pace, now) {
            let just_before = now + retry_after - Duration::from_nanos(1);
            // A part of a token may have been under way already.
            let slack = Duration::from_nanos(1_000_000_000_000_u64.div_ceil(rate));
            prop_assert!(retry_after <= slack || !admits(bucket.take(&pace, just_before.checked_sub(slack).unwrap())));
            prop_assert!(admits(bucket.take(&pace, now + retry_after)));
        }
    }
}

#[test]
fn what_was_never_taken_does_no_harm_when_it_is_given_back() {
    let (now, bucket) = (epoch(), Bucket::new());
    bucket.give_back();
    assert!(admits(bucket.take(&Pace::new(MICROS, 1, now), now)));
}

#[test]
fn a_table_that_is_fitted_to_a_larger_burst_remembers_who_owes_all_of_it() {
    const BURST: u32 = 100_000;
    let now = epoch();
    let table = Table::new(1, MICROS, 1);
    table.fit(MICROS, BURST);
    let pace = Pace::new(MICROS, BURST, now);
    let admitted = (0..2 * BURST).filter(|_| admits(table.take(7, &pace, now))).count();
    assert_eq!(admitted, BURST as usize);
}

#[test]
fn an_answer_tells_what_is_left() {
    let start = epoch();
    let pace = Pace::new(2 * MICROS, 3, start);
    let bucket = Bucket::new();
    for (remaining, full_after_seconds) in [(2, 1), (1, 1), (0, 2)] {
        let admitted = Decision::Admitted { remaining, full_after_seconds };
        assert_eq!(bucket.take(&pace, start), admitted);
    }
    let retry_after = Duration::from_millis(500);
    assert_eq!(bucket.take(&pace, start), Decision::Refused { retry_after });
}

#[test]
fn a_lease_that_ends_slows_the_bucket_by_itself() {
    let start = epoch();
    let at = |ms| start + Duration::from_millis(ms);
    let stages = Stages {
        lease: 100 * MICROS,
        lease_until: at(1000),
        between: 0,
        safe_from: at(2000),
        safe: 10 * MICROS,
    };
    let pace = Pace::new(0, 1, start).replaced(&stages, 1, start);
    let bucket = Bucket::new();
    let admitted =
        |from: u64, to: u64| (from..to).filter(|&ms| admits(bucket.take(&pace, at(ms)))).count();
    assert_eq!(admitted(0, 1000), 100);
    assert_eq!(admitted(1000, 2000), 1, "what came in until then");
    assert_eq!(admitted(2000, 3000), 9);
    let decision = Bucket::new();
    assert!(admits(decision.take(&pace, at(1500))));
    let refused = decision.take(&pace, at(1500));
    let retry_after = Duration::from_millis(1100);
    assert_eq!(refused, Decision::Refused { retry_after }, "the safe share comes again");
}

#[test]
fn whoever_is_refused_hears_of_the_share_that_can_be_had() {
    let start = epoch();
    // 60 a minute over eight proxies, and this one had no traffic.
    let even = MICROS / 8;
    let stages = Stages {
        lease: even / 32,
        lease_until: start + Duration::from_secs(1),
        between: even / 32,
        safe_from: start + Duration::from_secs(3),
        safe: even,
    };
    let pace = Pace::new(0, 1, start).replaced(&stages, 1, start);
    let bucket = Bucket::new();
    assert!(admits(bucket.take(&pace, start)));
    let told = bucket.take(&pace, start).retry_after_seconds();
    assert!(told.is_some_and(|seconds| (9..=10).contains(&seconds)), "not 256: {told:?}");
    // A key that is not hot yet may have all of it once it is.
    let cold = Pace::new(even, 1, start).reaching(MICROS);
    let bucket = Bucket::new();
    assert!(admits(bucket.take(&cold, start)));
    let told = bucket.take(&cold, start).retry_after_seconds();
    assert!(told.is_some_and(|seconds| (2..=3).contains(&seconds)), "not 8: {told:?}");
}

#[test]
fn a_million_keys_take_seventeen_bytes_each() {
    let per_key = Table::new(1_000_000, MICROS, 2).bytes() as f64 / 1e6;
    println!("{per_key:.1} bytes per key");
    assert!(per_key <= 17.0, "{per_key}");
}

#[test]
fn many_keys_have_a_bucket_each() {
    // As full as a table for a million is with a million.
    const KEYS: u32 = 125_000;
    let start = epoch();
    let pace = Pace::new(MICROS, 1, start);
    let table = Table::new(KEYS as usize, MICROS, 1);
    let hasher = KeyHasher::new([3, 4]);
    let keys = || (0..KEYS).map(|key| hasher.bytes(&key.to_le_bytes()));
    for expected in [true, false] {
        let differ = keys().filter(|&key| admits(table.take(key, &pace, start)) != expected);
        let differ = differ.count();
        // Some lost their place to others, or share it with another.
        assert!(differ < KEYS as usize / 20, "{differ} keys differ");
    }
    println!("{} of {KEYS} forgiven", table.forgiven());
    // Once all are full again, nobody is missed: other keys take their places.
    let (before, later) = (table.forgiven(), start + Duration::from_secs(2));
    for key in keys() {
        assert!(admits(table.take(key ^ (1 << 60), &pace, later)));
    }
    let forgiven = table.forgiven() - before;
    assert!(forgiven < u64::from(KEYS) / 20, "{forgiven}");
}

#[test]
fn who_owes_least_is_forgotten_first() {
    let start = epoch();
    let pace = Pace::new(MICROS, 10, start);
    // One set: the number of places of the smallest table.
    let table = Table::new(1, MICROS, 10);
    let key = |n: u64| n << 40;
    for n in 1..=8 {
        for _ in 0..n {
            assert!(admits(table.take(key(n), &pace, start)));
        }
    }
    // The first one's bucket is full again after a second.
    let now = start + Duration::from_secs(1);
    assert!(admits(table.take(key(9), &pace, now)));
    assert_eq!(table.forgiven(), 0);
    // The next owes least, one token, like the one that has just come.
    assert!(admits(table.take(key(10), &pace, now)));
    assert_eq!(table.forgiven(), 1);
    // Those that owe most are still known.
    for _ in 0..3 {
        assert!(admits(table.take(key(8), &pace, now)));
    }
    assert!(!admits(table.take(key(8), &pace, now)));
    table.forget(key(8));
    assert!(admits(table.take(key(8), &pace, now)));
}

#[test]
fn workers_together_admit_what_one_would() {
    let start = epoch();
    let pace = Pace::new(1000 * MICROS, 100, start);
    let (bucket, table) = (Bucket::new(), Table::new(100, 1000 * MICROS, 100));
    let ticks = AtomicU64::new(0);
    let work = || {
        let mut admitted = [0_u64; 5];
        loop {
            // Times of different workers are out of order by as much as they overtake.
            let tick = ticks.fetch_add(1, Ordering::Relaxed);
            if tick >= 16_000 {
                return admitted;
            }
            let now = start + Duration::from_nanos(tick * 62_500);
            admitted[4] += u64::from(admits(bucket.take(&pace, now)));
            for (key, admitted) in (0..4).zip(&mut admitted) {
                *admitted += u64::from(admits(table.take(key << 41 | key, &pace, now)));
            }
        }
    };
    let workers: Vec<[u64; 5]> = thread::scope(|scope| {
        let workers: Vec<_> = (0..4).map(|_| scope.spawn(work)).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).collect()
    });
    for bucket in 0..5 {
        let admitted: u64 = workers.iter().map(|admitted| admitted[bucket]).sum();
        // A second at 1000/s after a burst of 100, whatever the order was. A key may have
        // one more for each worker that brought it in.
        assert!((1095..=1103).contains(&admitted), "{admitted}");
    }
}
