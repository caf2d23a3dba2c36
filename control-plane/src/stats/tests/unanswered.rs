//! Backends that have requests in progress and answer none.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// A report of requests in flight, of which so many have no answer yet.
fn waiting(proxy: &str, sequence: u64, answered: u64, in_flight: u32, unanswered: u32) -> Report {
    let mut report = report(proxy, sequence, answered, in_flight);
    report.interval = SECOND;
    report.backends[0].unanswered = unanswered;
    report
}

fn told(statistics: &Statistics) -> Option<(u32, u64)> {
    let (id, incarnation) = b();
    let found = statistics.unanswered(&id, incarnation)?;
    Some((found.requests, found.silent.as_secs()))
}

#[tokio::test(start_paused = true)]
async fn a_silence_counts_from_the_last_answer_while_requests_wait() {
    let (statistics, catalog) = (Statistics::default(), catalog(&[("b", 2)]));
    for sequence in 1..=5 {
        count(&statistics, &waiting("p1", sequence, 100, 6, 6), &catalog);
        assert_eq!(told(&statistics), Some((6, 0)), "it answers all the while");
        advance(SECOND).await;
    }
    for sequence in 6..=15 {
        count(&statistics, &waiting("p1", sequence, 0, 6, 6), &catalog);
        assert_eq!(told(&statistics), Some((6, sequence - 5)));
        advance(SECOND).await;
    }
    // A failure is no answer; one of whatever status is.
    let mut failed = waiting("p1", 16, 0, 6, 6);
    failed.backends[0].counters.failures.timeout = 6;
    count(&statistics, &failed, &catalog);
    assert_eq!(told(&statistics), Some((6, 11)));
    let mut answered = waiting("p1", 17, 0, 6, 6);
    answered.backends[0].counters.failures.status_5xx = 1;
    count(&statistics, &answered, &catalog);
    assert_eq!(told(&statistics), Some((6, 0)));
    advance(10 * SECOND).await;
    assert_eq!(told(&statistics), None, "nobody has told for long");
}

#[tokio::test(start_paused = true)]
async fn neither_a_rest_nor_streams_nor_what_another_proxy_is_answered_is_a_silence() {
    let (statistics, catalog) = (Statistics::default(), catalog(&[("b", 2)]));
    count(&statistics, &waiting("p1", 1, 100, 0, 0), &catalog);
    advance(60 * SECOND).await;
    // It had nothing to answer until now.
    count(&statistics, &waiting("p1", 2, 0, 1, 1), &catalog);
    assert_eq!(told(&statistics), Some((1, 0)));
    // Whatever is in flight has begun to be answered.
    for sequence in 3..=20 {
        advance(SECOND).await;
        count(&statistics, &waiting("p1", sequence, 0, 4, 0), &catalog);
        assert_eq!(told(&statistics), None);
    }
    for sequence in 1..=20 {
        advance(SECOND).await;
        count(&statistics, &waiting("p1", 20 + sequence, 0, 6, 2), &catalog);
        count(&statistics, &waiting("p2", sequence, 1, 0, 0), &catalog);
        assert_eq!(told(&statistics), Some((2, 0)));
    }
}
