//! Adding up, in virtual time.

mod clients;
mod leavings;
mod unanswered;

use std::time::Duration;

use lb_core::model::{AdminState, Backend, Epoch, Limit, Pool, Resource};
use tokio::time::advance;

use super::{reporters::LOST_MAX, *};

fn catalog(backends: &[(&str, u64)]) -> Catalog {
    let mut catalog = Catalog::default();
    catalog.put(Resource::Pool(Pool::new(PoolName::default_pool())), 1);
    for (port, (id, incarnation)) in (1..).zip(backends) {
        let backend = Backend {
            incarnation: Incarnation(*incarnation),
            ..Backend::new(
                BackendId::new(id).unwrap(),
                PoolName::default_pool(),
                format!("h:{port}").parse().unwrap(),
            )
        };
        catalog.put(Resource::Backend(backend), *incarnation);
    }
    catalog
}

pub(crate) fn report(proxy: &str, sequence: u64, requests: u64, in_flight: u32) -> Report {
    let counters = BackendCounters { requests, successes: requests, ..BackendCounters::default() };
    Report {
        proxy: ProxyId::new(proxy).unwrap(),
        instance: process("i1"),
        sequence,
        interval: Duration::from_millis(250),
        applied_revision: 0,
        applied_epoch: None,
        sent: Duration::from_millis(sequence.saturating_mul(250)),
        probes: Vec::new(),
        limits: Vec::new(),
        backends: vec![BackendPart {
            pool: PoolName::default_pool(),
            backend: BackendId::new("b").unwrap(),
            incarnation: Incarnation(2),
            counters,
            in_flight,
            unanswered: 0,
            upgraded: 0,
            cut: 0,
            sessions: 0,
            trailing_failures: 0,
            begun: 0,
            avoided: false,
        }],
        process: Process { requests, client_connections: 3, ..Process::default() },
        sessions: Vec::new(),
        answers: None,
    }
}

fn process(name: &str) -> InstanceId {
    InstanceId::new(name).unwrap()
}

/// Counts a report of whoever is present: the process of the report, unless it is `old`.
fn count(statistics: &Statistics, report: &Report, catalog: &Catalog) -> Counted {
    let present = if report.instance.as_str() == "old" { "new" } else { report.instance.as_str() };
    statistics.count(report, Some(&process(present)), catalog)
}

#[tokio::test(start_paused = true)]
async fn who_avoids_a_backend_is_known_while_its_report_is_the_newest() {
    let (statistics, catalog) = (Statistics::default(), catalog(&[("b", 2)]));
    let (id, incarnation) = b();
    let avoided = |statistics: &Statistics| {
        let (_, shares) = statistics.backend(&id, incarnation);
        shares.iter().filter(|(_, share)| share.avoided).count()
    };
    count(&statistics, &report("p1", 1, 10, 0), &catalog);
    let mut avoiding = report("p2", 1, 10, 0);
    avoiding.backends[0].avoided = true;
    count(&statistics, &avoiding, &catalog);
    assert_eq!(avoided(&statistics), 1);
    let mut silent = report("p2", 2, 0, 0);
    silent.backends.clear();
    count(&statistics, &silent, &catalog);
    assert_eq!(avoided(&statistics), 0, "its newest report does not say so any more");
    count(&statistics, &Report { sequence: 3, ..avoiding }, &catalog);
    assert_eq!(avoided(&statistics), 1);
    advance(Duration::from_secs(5)).await;
    assert_eq!(avoided(&statistics), 0, "nobody has heard of it for long");
}

fn b() -> (BackendId, Incarnation) {
    (BackendId::new("b").unwrap(), Incarnation(2))
}

#[tokio::test(start_paused = true)]
async fn proxies_add_up_and_are_told_apart() {
    let (statistics, catalog) = (Statistics::default(), catalog(&[("b", 2)]));
    count(&statistics, &report("p1", 1, 10, 2), &catalog);
    count(&statistics, &report("p2", 1, 5, 1), &catalog);
    let (id, incarnation) = b();
    let (totals, shares) = statistics.backend(&id, incarnation);
    assert_eq!((totals.counters.requests, totals.in_flight), (15, 3));
    let shares: Vec<_> =
        shares.iter().map(|(p, t)| (p.as_str(), t.totals.counters.requests)).collect();
    assert_eq!(shares, [("p1", 10), ("p2", 5)]);
    assert_eq!(statistics.pools()[&PoolName::default_pool()].counters.requests, 15);
    assert_eq!(statistics.all().in_flight, 3);
    assert_eq!(statistics.process().client_connections, 6);
}

#[tokio::test(start_paused = true)]
async fn a_repeated_report_counts_once_and_a_new_instance_begins_again() {
    let (statistics, catalog) = (Statistics::default(), catalog(&[("b", 2)]));
    assert_eq!(count(&statistics, &report("p1", 7, 10, 0), &catalog).sequence, 7, "wherever it is");
    assert_eq!(count(&statistics, &report("p1", 7, 10, 0), &catalog).sequence, 7);
    assert_eq!(count(&statistics, &report("p1", 6, 10, 0), &catalog).sequence, 7);
    assert_eq!(statistics.all().counters.requests, 10);
    assert_eq!(count(&statistics, &report("p1", 9, 1, 0), &catalog).sequence, 9, "one is missing");
    let restarted = Report { instance: process("i2"), ..report("p1", 1, 100, 0) };
    assert_eq!(count(&statistics, &restarted, &catalog).sequence, 1);
    assert_eq!(statistics.all().counters.requests, 111);
}

#[tokio::test(start_paused = true)]
async fn lost_reports_are_those_that_can_have_been_made() {
    let (statistics, catalog) = (Statistics::default(), catalog(&[("b", 2)]));
    for (sequence, lost) in [(1, 0), (4, 2), (5 + LOST_MAX, 2 + LOST_MAX)] {
        count(&statistics, &report("p1", sequence, 1, 0), &catalog);
        assert_eq!(statistics.reports().lost, lost);
    }
    // Whoever tells such a number has begun anew.
    for instance in ["i2", "i3"] {
        for sequence in [1, u64::MAX] {
            let nonsense = Report { instance: process(instance), ..report("p1", sequence, 1, 0) };
            assert!(count(&statistics, &nonsense, &catalog).is_news);
        }
    }
    assert_eq!(statistics.reports().lost, 2 + LOST_MAX);
}

#[tokio::test(start_paused = true)]
async fn requests_in_flight_are_those_of_the_newest_report_and_expire() {
    let (statistics, catalog) = (Statistics::default(), catalog(&[("b", 2)]));
    count(&statistics, &report("p1", 1, 1, 4), &catalog);
    assert_eq!(statistics.all().in_flight, 4);
    let idle = Report { backends: Vec::new(), ..report("p1", 2, 0, 0) };
    count(&statistics, &idle, &catalog);
    assert_eq!(statistics.all().in_flight, 0, "what is not named is not in flight");
    count(&statistics, &report("p1", 3, 1, 4), &catalog);
    advance(Duration::from_millis(749)).await;
    assert_eq!(statistics.all().in_flight, 4);
    advance(Duration::from_millis(1)).await;
    assert_eq!(statistics.all().in_flight, 0, "three periods without a word");
}

#[tokio::test(start_paused = true)]
async fn what_is_gone_stays_in_the_sums() {
    let statistics = Statistics::default();
    count(&statistics, &report("p1", 1, 10, 0), &catalog(&[("b", 2)]));
    let after = catalog(&[("b", 9)]);
    statistics.forget_removed(&after);
    count(&statistics, &report("p1", 2, 5, 0), &after);
    statistics.forget_proxy(&ProxyId::new("p1").unwrap(), None, Duration::ZERO);
    let (id, incarnation) = b();
    assert_eq!(statistics.backend(&id, incarnation).0.counters.requests, 0);
    assert_eq!(statistics.pools()[&PoolName::default_pool()].counters.requests, 15);
    assert_eq!(statistics.process().requests, 15);
    statistics.forget_pools(&[PoolName::default_pool()]);
    assert!(statistics.pools().is_empty());
    assert_eq!(statistics.all().counters.requests, 15, "what it did stays in the whole");
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_nobody_made_is_not_counted() {
    let statistics = Statistics::default();
    count(&statistics, &report("p1", 1, 10, 0), &Catalog::default());
    assert!(statistics.pools().is_empty());
}

#[tokio::test(start_paused = true)]
async fn rates_follow_the_last_seconds() {
    let (statistics, catalog) = (Statistics::default(), catalog(&[("b", 2)]));
    for sequence in 1..=40 {
        count(&statistics, &report("p1", sequence, 25, 0), &catalog);
        advance(Duration::from_millis(250)).await;
    }
    let rate = statistics.all().request_rate;
    assert!((95.0..=105.0).contains(&rate), "{rate}");
    advance(Duration::from_secs(11)).await;
    assert!(statistics.all().request_rate.abs() < f64::EPSILON);
}

#[tokio::test(start_paused = true)]
async fn answers_of_the_proxies_add_up_for_each_and_for_the_fleet() {
    let (statistics, catalog) = (Statistics::default(), catalog(&[("b", 2)]));
    let refusing = |proxy: &str, sequence: u64, counts: &[(&str, u64)]| {
        let counts = counts.iter().map(|(reason, n)| ((*reason).to_owned(), *n)).collect();
        let mut report = report(proxy, sequence, 0, 0);
        report.process.own_answers = OwnAnswers::new(counts).unwrap();
        report.process.access_log_dropped = 5;
        report.process.worker_connections = vec![2, 1];
        report
    };
    count(&statistics, &refusing("p1", 1, &[("no_route", 2)]), &catalog);
    count(&statistics, &refusing("p1", 2, &[("no_route", 1), ("internal", 1)]), &catalog);
    count(&statistics, &refusing("p1", 2, &[("no_route", 100)]), &catalog);
    count(&statistics, &refusing("p2", 1, &[("no_route", 4)]), &catalog);

    let p1 = ProxyId::new("p1").unwrap();
    let (process, _) = statistics.proxy(&p1).unwrap();
    let answers: Vec<_> = process.own_answers.iter().collect();
    assert_eq!(answers, [("internal", 1), ("no_route", 3)]);
    assert_eq!(process.access_log_dropped, 10);
    assert_eq!(process.worker_connections, [2, 1]);

    statistics.forget_proxy(&p1, None, Duration::ZERO);
    let fleet = statistics.process();
    let answers: Vec<_> = fleet.own_answers.iter().collect();
    assert_eq!(answers, [("internal", 1), ("no_route", 7)], "what it did stays");
    assert_eq!(fleet.access_log_dropped, 15);
    assert_eq!(fleet.worker_connections, Vec::<u32>::new(), "workers of one proxy are no fleet");
}

#[tokio::test(start_paused = true)]
async fn a_process_that_was_taken_over_reports_its_last_requests_once() {
    let (statistics, catalog) = (Statistics::default(), catalog(&[("b", 2)]));
    let of = |instance: &str, sequence| Report {
        instance: process(instance),
        ..report("p1", sequence, 10, 0)
    };
    assert_eq!(count(&statistics, &of("old", 7), &catalog).sequence, 7);
    assert_eq!(count(&statistics, &of("new", 1), &catalog).sequence, 1);
    assert_eq!(count(&statistics, &of("old", 8), &catalog).sequence, 8);
    // Neither's repetitions are counted.
    assert_eq!(count(&statistics, &of("old", 8), &catalog).sequence, 8);
    assert_eq!(count(&statistics, &of("new", 1), &catalog).sequence, 1);
    assert_eq!(count(&statistics, &of("new", 2), &catalog).sequence, 2);
    let (id, incarnation) = b();
    assert_eq!(statistics.backend(&id, incarnation).0.counters.requests, 40);
}

#[test]
fn what_a_proxy_of_another_store_tells_counts_for_no_backend_here() {
    let catalog = catalog(&[("b", 2)]);
    let statistics = Statistics::default();
    let mut report = report("p1", 1, 10, 4);
    let (ours, theirs) = (Epoch([1; 16]), Epoch([2; 16]));
    report.applied_revision = 99;
    assert!(!report.is_of_another_store(ours), "an older proxy tells no epoch");
    report.applied_epoch = Some(ours);
    assert!(!report.is_of_another_store(ours));
    report.applied_epoch = Some(theirs);
    assert!(report.is_of_another_store(ours));
    report.disown();
    statistics.count(&report, None, &catalog);
    let (totals, shares) = statistics.backend(&BackendId::new("b").unwrap(), Incarnation(2));
    assert_eq!((totals.counters.requests, totals.in_flight, shares.len()), (0, 0, 0));
    // They were requests of the fleet all the same.
    assert_eq!(statistics.all().counters.requests, 10);
    assert_eq!(statistics.process().requests, 10);
    assert_eq!(report.applied_revision, 0);
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_refuses_anywhere_is_told_of_once_and_once_when_it_stops() {
    let statistics = Statistics::default();
    let mut catalog = catalog(&[("b", 2)]);
    let name = LimitName::new("api").unwrap();
    let mut limit = Limit::new(name.clone(), "100/s".parse().unwrap());
    limit.incarnation = Incarnation(3);
    catalog.put(Resource::Limit(limit), 3);
    let say = |proxy, sequence, refused| {
        let counts = LimitCounts { admitted: 20, refused, forgiven: 0 };
        let part = LimitPart {
            limit: name.clone(),
            incarnation: Incarnation(3),
            counts,
            share: LimitShare::default(),
        };
        let said = Report { limits: vec![part], ..report(proxy, sequence, 20 + refused, 0) };
        count(&statistics, &said, &catalog);
    };
    let mut told = Vec::new();
    for second in 0..80 {
        let refused = if (3..9).contains(&second) { [second, 0] } else { [0, 0] };
        say("p1", second + 1, refused[0]);
        say("p2", second + 1, refused[1]);
        told.extend(statistics.limit_news().into_iter().map(|(of, news)| (second, of, news)));
        advance(Duration::from_secs(1)).await;
    }
    let [(began, of, RefusalNews::Began(first)), (ended, _, RefusalNews::Ended(last))] = &told[..]
    else {
        panic!("{told:?}")
    };
    assert_eq!((*began, *ended, of), (4, 68, &name));
    assert_eq!((first.admitted, first.refused), (80, 7));
    assert_eq!((last.refused, last.lasted.as_secs(), last.quiet.as_secs()), (33, 5, 60));
}
