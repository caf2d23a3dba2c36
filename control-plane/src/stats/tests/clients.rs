//! What clients were answered in the last seconds.

use super::*;

fn words(counts: &[(&str, u64)]) -> OwnAnswers {
    let counts = counts.iter().map(|(word, count)| ((*word).to_owned(), *count));
    OwnAnswers::new(counts.collect()).unwrap()
}

/// A report of a proxy that had no backend for so many requests, and a route for one less.
fn refusing(sequence: u64, count: u64) -> Report {
    let mut durations = lb_core::stats::LatencyHistogram::default();
    (0..count).for_each(|_| durations.record(100));
    let failed = Answers {
        status_classes: [0, 0, 0, 0, count],
        durations,
        failures: words(&[("no_healthy_backend", count)]),
        ..Answers::default()
    };
    let unrouted = Answers { status_classes: [0, 0, 0, 1, 0], ..Answers::default() };
    let mut report = Report {
        backends: Vec::new(),
        answers: Some(vec![
            AnswersPart { pool: Some(PoolName::default_pool()), answers: failed },
            AnswersPart { pool: None, answers: unrouted },
        ]),
        ..report("p1", sequence, count, 0)
    };
    report.process.own_answers = words(&[("no_healthy_backend", count), ("no_route", 1)]);
    report
}

#[tokio::test(start_paused = true)]
async fn what_proxies_answer_themselves_is_what_clients_of_the_pool_get() {
    let (statistics, catalog) = (Statistics::default(), catalog(&[("b", 2)]));
    for sequence in 1..=4 {
        count(&statistics, &refusing(sequence, 1000), &catalog);
        advance(Duration::from_millis(250)).await;
    }
    assert!(statistics.all().request_rate.abs() < f64::EPSILON, "backends got nothing");
    let recent = statistics.recent();
    let pool = &recent.pools[&PoolName::default_pool()];
    assert_eq!(pool.status_classes, [0, 0, 0, 0, 4000]);
    assert_eq!(pool.durations.count(), 4000);
    assert_eq!(pool.failures.of("no_healthy_backend"), 4000);
    assert_eq!(recent.unrouted.status_classes, [0, 0, 0, 4, 0]);
    assert_eq!(recent.all.status_classes, [0, 0, 0, 4, 4000]);
    assert_eq!(recent.own_answers, words(&[("no_healthy_backend", 4000), ("no_route", 4)]));
    assert!(recent.window >= Duration::from_secs(1) && recent.window < Duration::from_secs(2));
    // It is over, and the sums of a life say nothing of now.
    advance(Duration::from_secs(11)).await;
    let recent = statistics.recent();
    assert_eq!(recent.pools[&PoolName::default_pool()], Answers::default());
    assert!((10..12).contains(&recent.window.as_secs()), "{:?}", recent.window);
}

#[tokio::test(start_paused = true)]
async fn of_a_proxy_that_tells_no_answers_its_backends_stand_for_them() {
    let (statistics, catalog) = (Statistics::default(), catalog(&[("b", 2)]));
    let mut old = report("p1", 1, 10, 0);
    old.backends[0].counters.successes = 7;
    old.backends[0].counters.failures.connect = 3;
    old.backends[0].counters.retries = 1;
    old.process.status_classes = [0, 7, 0, 0, 40];
    count(&statistics, &old, &catalog);
    let recent = statistics.recent();
    let pool = &recent.pools[&PoolName::default_pool()];
    assert_eq!(pool.status_classes, [0, 7, 0, 0, 2]);
    assert_eq!(recent.all.status_classes, [0, 7, 0, 0, 40], "of the whole it tells");
}

#[tokio::test(start_paused = true)]
async fn answers_that_gathered_while_nobody_listened_are_spread_over_that_time() {
    let (statistics, catalog) = (Statistics::default(), catalog(&[("b", 2)]));
    let first = Report { interval: Duration::from_secs(40), ..refusing(1, 40_000) };
    count(&statistics, &first, &catalog);
    let recent = statistics.recent();
    let told = recent.all.status_classes[4] as f64 / recent.window.as_secs_f64();
    assert!((990.0..=1010.0).contains(&told), "{told}");
    assert_eq!(recent.all.status_classes[4], recent.all.durations.count());
    let rate = statistics.proxy(&ProxyId::new("p1").unwrap()).unwrap().1;
    assert!((990.0..=1010.0).contains(&rate), "{rate}");
}
