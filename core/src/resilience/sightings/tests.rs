use super::*;
use crate::{
    epoch,
    model::InstanceId,
    resilience::{breaker::Reporter, hearing::Hearing},
};

const WINDOW: Duration = Duration::from_secs(10);
const LEASE: Duration = Duration::from_secs(5);

fn proxy(name: &str) -> ProxyId {
    ProxyId::new(name).unwrap()
}

fn served(successes: u32) -> Traffic {
    let outcomes = Outcomes { successes, ..Outcomes::default() };
    Traffic { outcomes, ..Traffic::default() }
}

fn unreached(transport: u32) -> Traffic {
    let outcomes = Outcomes { transport, ..Outcomes::default() };
    Traffic { outcomes, trailing_failures: transport, ..Traffic::default() }
}

fn broken_off(transport: u32) -> Traffic {
    Traffic { broke_off: true, ..unreached(transport) }
}

fn gateway(gateway: u32) -> Traffic {
    let outcomes = Outcomes { gateway, ..Outcomes::default() };
    Traffic { outcomes, trailing_failures: gateway, ..Traffic::default() }
}

fn begun() -> Traffic {
    Traffic { answered: true, ..Traffic::default() }
}

/// What is seen, and who was heard when.
struct Bench {
    start: Instant,
    sightings: Sightings,
    hearing: Hearing,
}

impl Bench {
    fn new() -> Self {
        Self { start: epoch(), sightings: Sightings::new(), hearing: Hearing::new() }
    }

    fn at(&self, ms: u64) -> Instant {
        self.start + Duration::from_millis(ms)
    }

    fn hear(&mut self, ms: u64, name: &str, traffic: Traffic) {
        let (now, instance) = (self.at(ms), InstanceId::new("1").unwrap());
        let reporter = Reporter { proxy: proxy(name), instance };
        self.hearing.heard(&reporter, now);
        let since = self.hearing.tells_since(&reporter);
        self.sightings.record(&proxy(name), Traffic { since, ..traffic }, WINDOW, now);
    }

    fn sums(&mut self, ms: u64) -> (u64, u64, u64) {
        let now = self.at(ms);
        self.sightings.weigh(&self.hearing.jury(false, LEASE, now), WINDOW, now);
        self.sightings.sums(now)
    }
}

/// Records what came at these moments, in milliseconds, then has everybody say that there was
/// nothing more, and gives the sums.
fn sums(reports: &[(u64, &str, Traffic)]) -> (u64, u64, u64) {
    let mut bench = Bench::new();
    for (ms, name, traffic) in reports {
        bench.hear(*ms, name, *traffic);
        bench.sums(*ms);
    }
    let last = reports.last().unwrap().0;
    for (later, (_, name, _)) in (1..=3).flat_map(|n| reports.iter().map(move |r| (n, r))) {
        bench.hear(last + later, name, Traffic::default());
    }
    bench.sums(last + 3)
}

#[test]
fn failures_in_a_row_are_counted_over_the_fleet_and_ended_by_any_success() {
    assert_eq!(sums(&[(0, "a", unreached(2)), (1, "b", unreached(3))]).0, 5);
    assert_eq!(sums(&[(0, "a", gateway(4)), (1, "b", served(1))]), (0, 4, 5));
    let outcomes = Outcomes { successes: 3, gateway: 4, ..Outcomes::default() };
    let mixed = Traffic { outcomes, trailing_failures: 2, ..Traffic::default() };
    let reports = [(0, "b", Traffic::default()), (0, "a", unreached(4)), (1, "b", mixed)];
    assert_eq!(sums(&reports), (2, 4, 7), "a is left out");
}

#[test]
fn a_proxy_that_alone_cannot_reach_a_backend_is_left_out() {
    let reports = [(0, "a", served(9)), (1, "b", served(9)), (250, "b", unreached(7))];
    assert_eq!(sums(&reports), (0, 0, 18), "what b was served with is still true");
    // Who got a status has reached it.
    assert_eq!(sums(&[(0, "a", served(9)), (250, "b", gateway(7))]), (7, 7, 16));
    // It may have got one last: the order is not told.
    let outcomes = Outcomes { successes: 1, transport: 7, gateway: 7, other: 0 };
    let either = Traffic { outcomes, trailing_failures: 7, ..Traffic::default() };
    assert_eq!(sums(&[(0, "a", served(9)), (250, "b", either)]), (7, 14, 24));
    // Nobody says otherwise.
    assert_eq!(sums(&[(0, "b", served(9)), (250, "b", unreached(7))]), (7, 7, 16));
}

#[test]
fn the_word_counts_when_most_fail_or_nobody_is_served_any_more() {
    let both = [(0, "a", served(1)), (0, "b", served(1)), (250, "a", unreached(3))];
    assert_eq!(sums(&both).0, 0);
    let both = [&both[..], &[(300, "b", unreached(3))]].concat();
    assert_eq!(sums(&both).0, 6);
    let idle = [(0, "a", served(1)), (9_000, "b", unreached(3))];
    assert_eq!(sums(&idle).0, 0);
    let idle = [&idle[..], &[(10_001, "b", unreached(3))]].concat();
    assert_eq!(sums(&idle).0, 6, "what was left out counts as well");
    // Two of three fail, and the third was served before.
    let most = [(0, "a", served(1)), (100, "b", unreached(2)), (100, "c", unreached(2))];
    assert_eq!(sums(&most).0, 4);
    // It still is: what it tells of began after they had failed.
    let quiet = [200, 300, 400].map(|ms| (ms, "a", Traffic::default()));
    let later = [(800, "a", served(1)), (900, "b", unreached(5)), (901, "c", unreached(5))];
    assert_eq!(sums(&[&most[..], &quiet, &later].concat()).0, 0);
    // It may have been before they failed.
    assert_eq!(sums(&[&most[..], &later].concat()).0, 10);
}

#[test]
fn a_failure_waits_for_those_that_may_have_been_served() {
    let mut bench = Bench::new();
    bench.hear(0, "a", Traffic::default());
    bench.hear(10, "b", unreached(9));
    assert_eq!(bench.sums(10).0, 0, "a has not told anything of that time");
    assert!(bench.sightings.is_in_doubt());
    bench.hear(250, "a", Traffic::default());
    bench.hear(500, "a", Traffic::default());
    assert_eq!(bench.sums(500).0, 0, "that may be of before");
    bench.hear(750, "a", Traffic::default());
    assert_eq!(bench.sums(750).0, 9);
    assert!(!bench.sightings.is_in_doubt());
    bench.hear(800, "b", unreached(1));
    bench.hear(1_000, "a", served(1));
    bench.hear(1_250, "a", Traffic::default());
    bench.hear(1_500, "a", Traffic::default());
    assert_eq!(bench.sums(1_500), (0, 9, 10), "one success ends the row, and the last one is b's");
}

#[test]
fn who_fails_too_is_not_waited_for_nor_who_is_silent() {
    let mut bench = Bench::new();
    bench.hear(0, "a", Traffic::default());
    bench.hear(10, "b", unreached(3));
    bench.hear(20, "a", unreached(2));
    assert_eq!(bench.sums(20).0, 5);
    bench.hear(30, "c", Traffic::default());
    bench.hear(5_000, "b", unreached(1));
    bench.hear(5_001, "a", unreached(1));
    assert_eq!(bench.sums(5_030).0, 5);
    assert_eq!(bench.sums(5_031).0, 7, "c was not heard for a lease");
}

#[test]
fn a_proxy_that_is_gone_has_been_served_all_the_same() {
    let mut bench = Bench::new();
    bench.hear(0, "a", served(1));
    bench.sightings.forget(&proxy("a"));
    bench.hearing.forget_proxy(&proxy("a"));
    bench.hear(9_000, "b", unreached(5));
    assert_eq!(bench.sums(9_000).0, 0);
    bench.hear(10_001, "b", unreached(1));
    assert_eq!(bench.sums(10_001).0, 6);
}

#[test]
fn who_had_been_served_when_it_failed_is_believed_however_long_it_waits() {
    let mut bench = Bench::new();
    bench.hear(0, "a", served(1));
    bench.hear(9_900, "b", unreached(5));
    for ms in [10_000, 12_000, 14_000] {
        bench.hear(ms, "a", Traffic::default());
    }
    assert_eq!(bench.sums(14_000).0, 0);
    assert!(!bench.sightings.is_in_doubt());
}

#[test]
fn time_alone_makes_nothing_count() {
    let mut bench = Bench::new();
    bench.hear(0, "a", served(1));
    for ms in [1, 2, 3, 4] {
        bench.hear(ms, "b", unreached(9));
        bench.hear(ms, "a", Traffic::default());
    }
    for ms in (0..60_000).step_by(250) {
        bench.hear(10 + ms, "a", Traffic::default());
        assert_eq!(bench.sums(10 + ms).0, 0);
    }
}

#[test]
fn a_response_that_has_begun_contradicts_who_cannot_reach_the_backend() {
    assert_eq!(sums(&[(0, "a", begun()), (250, "b", unreached(7))]), (0, 0, 0));
    let told = [(0, "a", begun()), (9_000, "b", unreached(3)), (10_001, "b", unreached(3))];
    assert_eq!(sums(&told[..2]).0, 0);
    assert_eq!(sums(&told).0, 6, "it may take no more requests by now");
    // Who got a status has reached the backend, too.
    assert_eq!(sums(&[(0, "a", begun()), (250, "b", gateway(7))]), (7, 7, 7));
}

#[test]
fn what_has_only_begun_is_no_success() {
    assert_eq!(sums(&[(0, "a", gateway(4)), (1, "a", begun()), (2, "a", gateway(1))]), (5, 5, 5));
    // All begin and break off: nobody is served, whoever began last.
    let broken: Vec<_> = (0..10)
        .flat_map(|n| [(100 * n, "a", begun()), (100 * n + 50, "a", broken_off(1))])
        .collect();
    assert_eq!(sums(&broken), (10, 10, 10));
    let both = [&[(0, "a", begun()), (50, "b", unreached(5))], &broken[1..2]].concat();
    assert_eq!(sums(&both).0, 6, "what b had kept to itself counts as well");
    // The order within a report is not told: what broke off may have come later.
    let either = Traffic { answered: true, ..broken_off(1) };
    assert_eq!(sums(&[(0, "a", either), (50, "b", unreached(5))]).0, 6);
    assert_eq!(sums(&[(0, "b", served(1)), (1, "a", either)]).0, 0, "its own affair");
}

#[test]
fn what_was_its_own_affair_stays_that_when_its_next_response_begins() {
    let back = [(250, "b", unreached(7)), (500, "b", begun())];
    for other in [begun(), served(1)] {
        let told = [&[(0, "a", other)], &back[..]].concat();
        let successes = other.outcomes.successes.into();
        assert_eq!(sums(&told), (0, 0, successes), "a is served");
        // So it stays when it gets a status, which is a failure of its own.
        let quiet = [300, 400, 450].map(|ms| (ms, "a", Traffic::default()));
        let status = [&told[..2], &quiet, &[(500, "b", gateway(1))]].concat();
        assert_eq!(sums(&status).0, 1);
        // What has only begun ends no row: if b fails again, it goes on.
        let again = [&told[..], &[(20_000, "b", unreached(1))]].concat();
        assert_eq!(sums(&again).0, 8);
    }
    // Nobody else says that it was no affair of the backend.
    assert_eq!(sums(&back), (7, 7, 7));
    assert_eq!(sums(&[&[(0, "a", Traffic::default())], &back[..]].concat()), (7, 7, 7));
}

#[test]
fn a_backend_that_breaks_off_all_that_it_begins_is_believed_by_nobody() {
    // One after the other: whenever one fails, the last word of the other one is a beginning.
    let in_turn = |names: &[&'static str], until: u64| -> Vec<(u64, &'static str, Traffic)> {
        let one = |n: u64| {
            let name = names[usize::try_from(n).unwrap() % names.len()];
            [(100 * n, name, broken_off(1)), (100 * n + 50, name, begun())]
        };
        (0..until).flat_map(one).collect()
    };
    assert_eq!(sums(&in_turn(&["a", "b"], 10)), (10, 10, 10));
    let before = [(0, "c", begun())];
    let told = [&before[..], &in_turn(&["a", "b", "c"], 10)].concat();
    assert!(sums(&told).0 >= 8, "{:?}: what c began with is believed at first", sums(&told));
    // A window later it is believed again, and so it is once a response is complete.
    let told = [(0, "a", broken_off(1)), (10_001, "a", begun()), (10_300, "b", unreached(7))];
    assert_eq!(sums(&told), (1, 0, 0));
    let told = [(0, "a", broken_off(1)), (100, "a", begun()), (200, "b", unreached(7))];
    assert_eq!(sums(&told), (8, 8, 8));
    let told = [&told[..2], &[(150, "a", served(1)), (160, "a", begun())], &told[2..]].concat();
    assert_eq!(sums(&told).0, 0);
}

#[test]
fn a_failure_goes_on_waiting_when_the_next_response_begins() {
    // When a fails as well, nobody contradicts b any more; but b does a.
    for (other, count) in [(begun(), 0), (unreached(1), 7)] {
        let mut bench = Bench::new();
        bench.hear(0, "a", begun());
        bench.sums(0);
        bench.hear(250, "b", unreached(7));
        bench.sums(250);
        bench.hear(500, "b", begun());
        assert_eq!(bench.sums(500).0, 0, "a has not told anything of that time");
        bench.hear(600, "a", other);
        for ms in [750, 1_000, 1_250] {
            bench.hear(ms, "a", Traffic::default());
            bench.hear(ms, "b", Traffic::default());
        }
        assert_eq!(bench.sums(1_250).0, count);
    }
}

#[test]
fn who_sees_what_is_told() {
    let (start, mut sightings) = (epoch(), Sightings::new());
    sightings.record(&proxy("a"), served(1), WINDOW, start);
    assert_eq!(sightings.disagreement(WINDOW, start), None);
    sightings.record(&proxy("b"), unreached(1), WINDOW, start);
    let told = Views { failing: vec![proxy("b")], serving: vec![proxy("a")] };
    assert_eq!(sightings.disagreement(WINDOW, start), Some(told));
    assert_eq!(sightings.disagreement(WINDOW, start + 2 * WINDOW), None);
    sightings.forget(&proxy("b"));
    assert_eq!(sightings.disagreement(WINDOW, start), None);
}
