//! The breaker by itself; `tests/fleet_breaker.rs` has it with proxies on a bad network.

mod checks;
mod recovery;

use super::{
    super::{hearing::Hearing, sightings::Outcomes},
    *,
};
use crate::{epoch, model::InstanceId};

const SECOND: Duration = Duration::from_secs(1);
const LEASE: Duration = Duration::from_secs(5);

fn proxy(name: &str) -> ProxyId {
    ProxyId::new(name).unwrap()
}

/// A process by the name of its proxy, and of its start if that is not the first:
/// `proxy/instance`.
fn process(name: &str) -> Reporter {
    let (name, instance) = name.split_once('/').unwrap_or((name, "1"));
    Reporter { proxy: proxy(name), instance: InstanceId::new(instance).unwrap() }
}

fn served(successes: u32) -> Outcomes {
    Outcomes { successes, ..Outcomes::default() }
}

fn gateway(gateway: u32) -> Outcomes {
    Outcomes { gateway, ..Outcomes::default() }
}

/// A breaker, and a clock that all proxies share.
struct Bench {
    breaker: Breaker,
    hearing: Hearing,
    policy: BreakerPolicy,
    start: Instant,
    now: Instant,
    rng: fastrand::Rng,
    has_traffic: bool,
}

impl Bench {
    fn new() -> Self {
        let start = epoch();
        Self {
            breaker: Breaker::new(1, LEASE),
            hearing: Hearing::new(),
            policy: BreakerPolicy::default(),
            start,
            now: start,
            rng: fastrand::Rng::with_seed(1),
            has_traffic: true,
        }
    }

    fn wait(&mut self, span: Duration) -> Option<Event> {
        self.now += span;
        self.advance()
    }

    fn advance(&mut self) -> Option<Event> {
        let (admit, jury) = (|| Ok(()), self.hearing.jury(false, LEASE, self.now));
        let Self { breaker, policy, has_traffic, now, rng, .. } = self;
        breaker.advance(policy, *has_traffic, &jury, admit, *now, rng)
    }

    /// A report, and what it changes.
    fn hear(&mut self, name: &str, outcomes: Outcomes, probe: Option<ProbeWord>) -> Option<Event> {
        self.now += Duration::from_millis(1);
        // Without a success all failures are trailing ones; with one, none are.
        let trailing_failures =
            if outcomes.successes > 0 { 0 } else { outcomes.transport + outcomes.gateway };
        let reporter = process(name);
        self.hearing.heard(&reporter, self.now);
        let since = self.hearing.tells_since(&reporter);
        let traffic = Traffic { outcomes, trailing_failures, since, ..Traffic::default() };
        let report = Report { reporter, sent: self.sent(), traffic, probe };
        let event = self.breaker.report(&self.policy, &report, self.now, &mut self.rng);
        event.or_else(|| self.advance())
    }

    fn sent(&self) -> Duration {
        self.now - self.start
    }

    fn word(&mut self, name: &str, id: TokenId, state: ProbeState) -> Option<Event> {
        self.hear(name, Outcomes::default(), Some(ProbeWord { id, state }))
    }

    /// A quiet report, and the token in its answer.
    fn ask(&mut self, name: &str) -> Option<TokenId> {
        assert_eq!(self.hear(name, Outcomes::default(), None), None);
        self.breaker.offer(&process(name), self.sent(), false, self.now).map(|token| token.id)
    }

    /// Opens it, and waits until it is half-open.
    fn half_open(&mut self) {
        self.hear("a", gateway(5), None).unwrap();
        assert_eq!(self.wait(8 * SECOND), Some(Event::HalfOpened));
    }

    fn is_closed(&self) -> bool {
        self.breaker.phase() == Phase::Closed
    }
}

#[test]
fn five_failures_in_a_row_over_the_fleet_open_it() {
    let mut bench = Bench::new();
    assert_eq!(bench.hear("a", gateway(4), None), None);
    assert_eq!(bench.hear("b", served(1), None), None);
    assert_eq!(bench.hear("a", gateway(2), None), None);
    assert_eq!(bench.hear("b", gateway(2), None), None);
    let event = bench.hear("c", gateway(1), None);
    let cause = Cause::Consecutive { failures: 5 };
    assert!(matches!(event, Some(Event::Opened { cause: c, times: 1, .. }) if c == cause));
}

#[test]
fn half_of_twenty_requests_opens_it_and_other_statuses_count_for_that_only() {
    let mixed = |successes, other| Outcomes { other, ..served(successes) };
    for (successes, other, opens) in
        [(10, 10, true), (11, 10, false), (9, 10, false), (0, 20, true)]
    {
        let mut bench = Bench::new();
        let opened = bench.hear("a", mixed(successes, other), None).is_some();
        assert_eq!(opened, opens, "{successes} {other}");
    }
    let mut bench = Bench::new();
    bench.hear("a", mixed(10, 9), None);
    bench.wait(11 * SECOND);
    assert_eq!(bench.hear("a", mixed(0, 1), None), None, "the window has passed");
}

#[test]
fn either_rule_can_be_off_and_both() {
    let mut bench = Bench::new();
    bench.policy.consecutive_failures = 0;
    assert_eq!(bench.hear("a", gateway(19), None), None);
    bench.policy.failure_ratio_percent = 0;
    assert_eq!(bench.hear("a", gateway(99), None), None);
    bench.policy.consecutive_failures = 200;
    assert!(bench.hear("a", gateway(99), None).is_some());
    bench.policy.consecutive_failures = 0;
    assert_eq!(bench.advance(), Some(Event::Closed { by: ClosedBy::Order }));
}

#[test]
fn each_time_in_a_row_lasts_twice_as_long_to_a_limit_and_jitter_only_adds() {
    let mut bench = Bench::new();
    let mut base = 5.0;
    bench.hear("a", gateway(5), None).unwrap();
    for times in 1..10 {
        assert_eq!(bench.breaker.times(), times);
        let Phase::Open { until } = bench.breaker.phase() else { panic!("not open") };
        let lasts = (until - bench.now).as_secs_f64();
        assert!((base..=base * 1.5).contains(&lasts), "{lasts} for {base}");
        base = f64::min(base * 2.0, 300.0);
        bench.wait(until - bench.now);
        let id = bench.ask("a").unwrap();
        let event = bench.word("a", id, ProbeState::Failed);
        assert!(matches!(event, Some(Event::Opened { cause: Cause::ProbeFailed, .. })));
    }
}

#[test]
fn three_probes_one_at_a_time_close_it() {
    let mut bench = Bench::new();
    bench.half_open();
    for successes in 1..=3 {
        let id = bench.ask("a").unwrap();
        assert_eq!(bench.ask("b"), None, "one is out");
        assert_eq!(bench.word("a", id, ProbeState::InUse), None);
        bench.now += 10 * SECOND;
        assert_eq!(bench.ask("b"), None, "one is under way, however long");
        let event = bench.word("a", id, ProbeState::Succeeded);
        let closed = (successes == 3).then_some(Event::Closed { by: ClosedBy::Probes });
        assert_eq!(event, closed);
        assert_eq!(bench.word("a", id, ProbeState::Succeeded), None, "it is heard once");
    }
    assert!(bench.is_closed());
}

#[test]
fn a_token_that_is_not_used_goes_to_another_once_it_is_dead() {
    let mut bench = Bench::new();
    bench.half_open();
    let first = bench.ask("a").unwrap();
    bench.now += SECOND;
    assert_eq!(bench.ask("a"), None, "it may be used yet");
    bench.now += 10 * SECOND;
    assert_eq!(bench.ask("b"), None, "a has not said that it was not used");
    assert_eq!(bench.hear("a", Outcomes::default(), None), None);
    let (sent, a) = (bench.sent(), process("a"));
    assert!(bench.breaker.offer(&a, sent, true, bench.now).is_none(), "it is another's turn");
    let second = bench.ask("b").unwrap();
    assert!(second > first);
    assert_eq!(bench.word("a", first, ProbeState::Failed), None, "a straggler");
    assert!(!bench.is_closed());
}

#[test]
fn only_its_own_outcome_settles_a_token() {
    let mut bench = Bench::new();
    bench.half_open();
    let id = bench.ask("a").unwrap();
    // What a said before it got the token, and was not yet heard to be heard.
    let earlier = TokenId { term: id.term - 1, ..id };
    for state in [ProbeState::Failed, ProbeState::Succeeded] {
        assert_eq!(bench.word("a", earlier, state), None);
        assert_eq!(bench.word("b", id, state), None);
    }
    assert_eq!(bench.breaker.phase(), Phase::HalfOpen { successes: 0 });
    assert_eq!(bench.breaker.holder(), Some(&proxy("a")));
}

#[test]
fn a_client_that_leaves_sets_the_token_free() {
    let mut bench = Bench::new();
    bench.half_open();
    let id = bench.ask("a").unwrap();
    bench.word("a", id, ProbeState::InUse);
    assert_eq!(bench.hear("a", Outcomes::default(), None), None);
    assert!(bench.ask("b").is_some());
}

#[test]
fn a_proxy_that_is_lost_fails_what_it_was_sending_and_nothing_else() {
    let mut bench = Bench::new();
    bench.half_open();
    let (now, policy) = (bench.now, bench.policy);
    bench.ask("a").unwrap();
    assert_eq!(bench.breaker.lost(&policy, &process("a"), now, &mut bench.rng), None);
    let id = bench.ask("b").unwrap();
    bench.word("b", id, ProbeState::InUse);
    assert_eq!(bench.breaker.lost(&policy, &process("c"), now, &mut bench.rng), None);
    let event = bench.breaker.lost(&policy, &process("b"), now, &mut bench.rng);
    assert!(matches!(event, Some(Event::Opened { cause: Cause::ProbeLost, times: 2, .. })));
}

#[test]
fn a_proxy_that_comes_back_with_a_request_under_way_is_waited_for() {
    let mut bench = Bench::new();
    bench.half_open();
    let id = bench.ask("a").unwrap();
    bench.word("a", id, ProbeState::InUse);
    bench.breaker.lost(&bench.policy, &process("a"), bench.now, &mut bench.rng);
    assert_eq!(bench.word("a", id, ProbeState::InUse), None);
    assert_eq!(bench.wait(20 * SECOND), Some(Event::HalfOpened));
    bench.word("a", id, ProbeState::InUse);
    assert_eq!(bench.ask("b"), None);
    assert_eq!(bench.word("a", id, ProbeState::Succeeded), None);
    assert_eq!(bench.breaker.phase(), Phase::HalfOpen { successes: 0 }, "of another term");
    assert!(bench.ask("b").is_some());
}

#[test]
fn what_a_process_said_that_fell_silent_keeps_nobody_waiting() {
    let mut bench = Bench::new();
    bench.half_open();
    let id = bench.ask("a").unwrap();
    bench.word("a", id, ProbeState::InUse);
    bench.breaker.lost(&bench.policy, &process("a"), bench.now, &mut bench.rng);
    assert_eq!(bench.wait(20 * SECOND), Some(Event::HalfOpened));
    // A report that was long on its way; its process is gone, so that nobody says more.
    bench.word("a", id, ProbeState::InUse);
    bench.now += LEASE - SECOND;
    assert_eq!(bench.ask("b"), None, "it may be under way yet");
    bench.now += SECOND;
    assert!(bench.ask("b").is_some());
}

#[test]
fn a_request_that_takes_too_long_keeps_nobody_waiting() {
    let mut bench = Bench::new();
    bench.half_open();
    let id = bench.ask("a").unwrap();
    let given = bench.now;
    while bench.now < given + TOKEN_LIFE + USE_MAX + LEASE {
        assert_eq!(bench.word("a", id, ProbeState::InUse), None);
        assert_eq!(bench.breaker.holder(), Some(&proxy("a")), "it may end yet");
        bench.now += SECOND;
    }
    assert_eq!(bench.advance(), None);
    assert_eq!(bench.breaker.holder(), None);
    // A proxy of an earlier build speaks of it for ever.
    for _ in 0..70 {
        bench.word("a", id, ProbeState::InUse);
        bench.now += SECOND;
    }
    assert!(bench.ask("b").is_some());
    assert_eq!(bench.breaker.phase(), Phase::HalfOpen { successes: 0 });
}

#[test]
fn a_process_that_was_taken_over_finishes_what_it_tries() {
    let mut bench = Bench::new();
    bench.half_open();
    let id = bench.ask("a/1").unwrap();
    bench.word("a/1", id, ProbeState::InUse);
    assert_eq!(bench.ask("a/2"), None, "one at a time, whatever process it is");
    assert_eq!(bench.word("a/2", id, ProbeState::Succeeded), None, "it is the other's");
    assert_eq!(bench.breaker.phase(), Phase::HalfOpen { successes: 0 });
    bench.word("a/1", id, ProbeState::Succeeded);
    assert_eq!(bench.breaker.phase(), Phase::HalfOpen { successes: 1 });
    // The end of the former one takes nothing from the present one.
    bench.hear("a/2", gateway(2), None);
    let second = bench.ask("a/2").unwrap();
    bench.word("a/2", second, ProbeState::InUse);
    let event = bench.breaker.lost(&bench.policy, &process("a/1"), bench.now, &mut bench.rng);
    assert_eq!(event, None);
    bench.word("a/2", second, ProbeState::Succeeded);
    assert_eq!(bench.breaker.phase(), Phase::HalfOpen { successes: 2 });
}

#[test]
fn reports_that_come_twice_or_late_say_nothing() {
    let mut bench = Bench::new();
    let report = Report {
        reporter: process("a"),
        sent: SECOND,
        traffic: Traffic { outcomes: gateway(3), trailing_failures: 3, ..Traffic::default() },
        probe: None,
    };
    let late = Report { sent: SECOND / 2, ..report.clone() };
    for report in [&report, &report, &late] {
        bench.breaker.report(&bench.policy, report, bench.now, &mut bench.rng);
        assert_eq!(bench.advance(), None);
    }
}

#[test]
fn a_backend_that_cannot_be_spared_stays_in_and_says_so_once() {
    let mut bench = Bench::new();
    let report = Report {
        reporter: process("a"),
        sent: SECOND,
        traffic: Traffic { outcomes: gateway(5), trailing_failures: 5, ..Traffic::default() },
        probe: None,
    };
    bench.breaker.report(&bench.policy, &report, bench.now, &mut bench.rng);
    let mut advance = |admit: Result<(), Refused>| {
        let jury = Jury::default();
        bench.breaker.advance(&bench.policy, true, &jury, || admit, bench.now, &mut bench.rng)
    };
    let (cause, refused) = (Cause::Consecutive { failures: 5 }, Refused::LastOne);
    assert_eq!(advance(Err(refused)), Some(Event::Refused { cause, refused }));
    assert_eq!(advance(Err(refused)), None);
    assert!(matches!(advance(Ok(())), Some(Event::Opened { .. })), "as soon as it can be");
    assert_eq!(bench.breaker.refused(), None);
}

#[test]
fn times_in_a_row_are_forgotten_after_a_quiet_time() {
    let mut bench = Bench::new();
    let close = |bench: &mut Bench| {
        for _ in 0..3 {
            let id = bench.ask("a").unwrap();
            bench.word("a", id, ProbeState::Succeeded);
        }
        assert!(bench.is_closed());
    };
    bench.half_open();
    close(&mut bench);
    bench.wait(49 * SECOND);
    bench.hear("a", gateway(5), None).unwrap();
    assert_eq!(bench.breaker.times(), 2, "within 50 s");
    bench.wait(15 * SECOND).unwrap();
    close(&mut bench);
    bench.wait(100 * SECOND);
    bench.hear("a", gateway(5), None).unwrap();
    assert_eq!(bench.breaker.times(), 1, "after 100 s");
}

#[test]
fn a_proxy_that_alone_cannot_reach_it_does_not_open_it() {
    let mut bench = Bench::new();
    let unreached = Outcomes { transport: 9, ..Outcomes::default() };
    for _ in 0..40 {
        assert_eq!(bench.hear("a", served(3), None), None);
        assert_eq!(bench.hear("b", unreached, None), None);
        bench.now += SECOND / 4;
    }
    let told = bench.breaker.sightings().disagreement(bench.policy.window, bench.now).unwrap();
    assert_eq!((told.failing, told.serving), (vec![proxy("b")], vec![proxy("a")]));
}

#[test]
fn a_restart_goes_on_where_it_was_open() {
    let mut bench = Bench::new();
    bench.breaker = Breaker::resumed(1_000, LEASE, 3, bench.now + 5 * SECOND);
    assert_eq!(bench.wait(4 * SECOND), None);
    assert_eq!(bench.wait(SECOND), Some(Event::HalfOpened));
    let id = bench.ask("a").unwrap();
    assert!(id.term > 1_000);
    bench.word("a", id, ProbeState::Failed);
    assert_eq!(bench.breaker.times(), 4);
}
