use super::*;
use crate::epoch;

const MS: Duration = Duration::from_millis(1);
const POLICY: Policy = Policy { limit_min: 1, limit_max: 1000 };

/// A limit, and a clock.
struct Bench {
    limit: Concurrency,
    now: Instant,
}

impl Bench {
    fn new() -> Self {
        Self { limit: Concurrency::new(POLICY, epoch()), now: epoch() }
    }

    /// Reports of a tenth of a second each, of answers that take `time` with this part of the limit in use.
    fn answers(&mut self, reports: u32, answers: u64, time: Duration, used: f64) {
        for _ in 0..reports {
            self.now += 100 * MS;
            let in_flight = whole(f64::from(self.limit.limit()) * used).max(1).into();
            let count = u32::try_from(answers).unwrap();
            let sample = Sample { answers, time: time * count, in_flight, ..Sample::default() };
            self.limit.record(&sample, self.now);
        }
    }
}

#[test]
fn a_limit_that_is_not_used_does_not_grow() {
    let mut bench = Bench::new();
    bench.answers(100, 50, 10 * MS, 0.4);
    assert_eq!(bench.limit.limit(), 20);
    assert_eq!(bench.limit.course(), Course::Unused);
    bench.answers(100, 50, 10 * MS, 1.0);
    assert!(bench.limit.limit() > 40, "{}", bench.limit.limit());
}

#[test]
fn good_times_of_a_limit_that_is_not_hit_are_not_interrupted_to_measure() {
    let mut bench = Bench::new();
    bench.answers(10, 50, 10 * MS, 0.9);
    for _ in 0..1000 {
        let before = bench.limit.limit();
        bench.answers(1, 50, 10 * MS, 0.9);
        assert!(bench.limit.limit() >= before);
    }
    assert_eq!((bench.limit.limit(), bench.limit.course()), (1000, Course::Highest));
}

#[test]
fn it_begins_with_a_measurement_and_no_lower_than_what_was_there() {
    let mut limit = Concurrency::new(POLICY, epoch());
    assert_eq!((limit.limit(), limit.course()), (7, Course::Measuring));
    limit.found(500);
    assert_eq!(limit.limit(), 238);
    limit.set_policy(Policy { limit_max: 4, ..POLICY });
    assert_eq!(limit.limit(), 1);
}

/// Requests that clients or the proxy gave up say that the backend is slow, if they took
/// long; and nothing if they did not.
#[test]
fn given_up_requests_count_where_they_took_longer_than_usual() {
    let gives_up = |after: Duration| {
        let mut bench = Bench::new();
        bench.answers(100, 50, 10 * MS, 1.0);
        let before = bench.limit.limit();
        for _ in 0..10 {
            bench.now += 300 * MS;
            let given_up_time = after * 500;
            let in_flight = bench.limit.limit().into();
            let sample = Sample { given_up: 500, given_up_time, in_flight, ..Sample::default() };
            bench.limit.record(&sample, bench.now);
        }
        (before, bench.limit)
    };
    let (before, limit) = gives_up(100 * MS);
    assert!(limit.limit() < before / 2, "{before} became {}", limit.limit());
    let (before, limit) = gives_up(5 * MS);
    assert_eq!(limit.limit(), before);
    assert_eq!(limit.unqueued(), Some(10 * MS));
}

/// Where requests that were sent before never end, the measurement is given up.
#[test]
fn a_measurement_that_cannot_begin_is_given_up() {
    let mut bench = Bench::new();
    bench.answers(10, 50, 10 * MS, 1.0);
    let mut lowest = u32::MAX;
    for _ in 0..300 {
        bench.now += 100 * MS;
        let sample = Sample { answers: 10, time: 100 * MS, in_flight: 5_000, ..Sample::default() };
        bench.limit.record(&sample, bench.now);
        lowest = lowest.min(bench.limit.limit());
    }
    assert!(lowest < 400, "it was tried: {lowest}");
    assert!(bench.limit.limit() > 400, "{}", bench.limit.limit());
}

#[test]
fn a_report_counts_once_and_a_silent_proxy_not_at_all() {
    let now = epoch();
    let mut fleet = FleetConcurrency::new(POLICY, now);
    let told = |answers: u64, in_use, aside| Told {
        in_use,
        aside,
        sums: Sums { answers, time_us: answers * 10_000, ..Sums::default() },
        ..Told::default()
    };
    // The first only says where its sums stand.
    fleet.hear(&1, told(1_000_000, 3, 1), true, now);
    fleet.hear(&2, told(0, 0, 0), true, now);
    assert_eq!(fleet.limit().round.answers, 0);
    fleet.hear(&1, told(1_000_007, 3, 1), true, now);
    fleet.hear(&1, told(1_000_007, 3, 1), true, now);
    assert_eq!((fleet.limit().round.answers, fleet.limit().round.wanted_max), (7, 2));
    // One that counts anew is not taken for one that goes back.
    fleet.hear(&1, told(5, 3, 1), true, now);
    fleet.hear(&1, told(6, 3, 1), true, now);
    assert_eq!(fleet.limit().round.answers, 8);
    assert_eq!(fleet.slots(now), 7 + 1, "what is aside does not use the limit up");
    assert_eq!(fleet.slots(now + HEARD), 7);
    fleet.hear(&2, told(0, 5, 0), true, now + HEARD);
    assert_eq!(fleet.limit().round.wanted_max, 5, "not what the other one had");
    assert!((fleet.limit().round.mean_s() - 0.01).abs() < 1e-9);
}

const HEARD: Duration = Duration::from_secs(1);

#[test]
fn nothing_is_decided_while_nothing_may_change() {
    let now = epoch();
    let mut fleet = FleetConcurrency::new(POLICY, now);
    for answers in 1..100 {
        let sums = Sums { answers: answers * 100, time_us: answers * 100, ..Sums::default() };
        for holder in 1..=8 {
            let told = Told { holds: 40, in_use: 4, sums, ..Told::default() };
            fleet.hear(&holder, told, false, now);
        }
    }
    assert_eq!(fleet.limit().unqueued(), None);
    // It goes on from what they have: 320, first measured with less.
    assert_eq!(fleet.limit().limit(), 151);
}
