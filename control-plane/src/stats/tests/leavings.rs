//! What proxies have left of backends that drain.

use super::*;

fn draining(mut catalog: Catalog) -> Catalog {
    let mut backend = catalog.backends()[&b().0].value.clone();
    backend.admin_state = AdminState::Draining;
    catalog.put(Resource::Backend(backend), 5);
    catalog
}

/// A report of somebody who serves from revision 5.
fn leaving(instance: &str, sequence: u64, in_flight: u32, upgraded: u32, cut: u32) -> Report {
    let mut report = report("p1", sequence, 0, in_flight);
    report.instance = process(instance);
    report.applied_revision = 5;
    report.backends[0].upgraded = upgraded;
    report.backends[0].cut = cut;
    report
}

const LEASE: Duration = Duration::from_secs(5);

/// What is left of a drain that began just now.
fn left_of(statistics: &Statistics, present: &str) -> Leaving {
    left_since(statistics, present, Instant::now())
}

fn left_since(statistics: &Statistics, present: &str, since: Instant) -> Leaving {
    let ((id, incarnation), proxy) = (b(), ProxyId::new("p1").unwrap());
    let present = Some(&process(present));
    let asked = Asked { proxy: &proxy, present, ended: false, since, lease: LEASE };
    statistics.leaving(&id, incarnation, [asked])[0]
}

fn left(statistics: &Statistics) -> Leaving {
    left_of(statistics, "i1")
}

#[tokio::test(start_paused = true)]
async fn what_a_proxy_has_left_of_a_draining_backend_is_its_newest_word() {
    let statistics = Statistics::default();
    let catalog = draining(catalog(&[("b", 2)]));
    count(&statistics, &leaving("i1", 1, 5, 2, 0), &catalog);
    let expected = Leaving { applied_revision: 5, requests: 3, upgraded: 2, ..Leaving::default() };
    assert_eq!(left(&statistics), expected);
    // It holds, however long nothing else is heard: only more news may end a drain.
    advance(Duration::from_secs(60)).await;
    assert_eq!(left(&statistics), expected);
    count(&statistics, &leaving("i1", 2, 0, 0, 5), &catalog);
    // What it does not name any more is not in flight, and stays cut.
    let idle = Report { backends: Vec::new(), ..leaving("i1", 3, 0, 0, 0) };
    count(&statistics, &idle, &catalog);
    assert_eq!(left(&statistics), Leaving { applied_revision: 5, cut: 5, ..Leaving::default() });
}

#[tokio::test(start_paused = true)]
async fn a_process_that_was_taken_over_is_waited_for_until_it_falls_silent() {
    let statistics = Statistics::default();
    let catalog = draining(catalog(&[("b", 2)]));
    count(&statistics, &leaving("old", 1, 2, 2, 0), &catalog);
    count(&statistics, &leaving("new", 1, 0, 0, 0), &catalog);
    let left = || left_of(&statistics, "new");
    assert_eq!(left().upgraded, 2, "the old one still has its connections");
    advance(LEASE - Duration::from_millis(1)).await;
    statistics.forget_removed(&catalog);
    assert_eq!(left().upgraded, 2, "it may be late");
    advance(Duration::from_millis(1)).await;
    assert_eq!(left(), Leaving { applied_revision: 5, ..Leaving::default() });
}

#[tokio::test(start_paused = true)]
async fn a_process_that_was_taken_over_is_asked_what_it_has_left() {
    let statistics = Statistics::default();
    let undrained = catalog(&[("b", 2)]);
    let idle = |instance, sequence| Report {
        backends: Vec::new(),
        ..leaving(instance, sequence, 0, 0, 0)
    };
    count(&statistics, &idle("old", 1), &undrained);
    advance(Duration::from_millis(10)).await;
    let (began, catalog) = (Instant::now(), draining(undrained));
    let unheard = || left_since(&statistics, "new", began).unheard;
    advance(Duration::from_millis(10)).await;
    count(&statistics, &idle("new", 1), &catalog);
    assert!(unheard(), "what it has got since its last report is not known");
    count(&statistics, &idle("old", 2), &catalog);
    assert!(unheard(), "this report may have been made before");
    count(&statistics, &leaving("old", 3, 1, 1, 0), &catalog);
    assert!(!unheard());
    assert_eq!(left_since(&statistics, "new", began).upgraded, 1);
    // One that ended before without anything is not waited for, but for a moment.
    count(&statistics, &idle("old", 4), &catalog);
    advance(Duration::from_secs(1)).await;
    let later = Instant::now();
    assert!(!left_since(&statistics, "new", later).unheard);
}

#[tokio::test(start_paused = true)]
async fn who_is_present_is_what_the_fleet_says_and_not_who_reports() {
    let statistics = Statistics::default();
    let catalog = draining(catalog(&[("b", 2)]));
    let count = |instance, sequence, left, present: Option<&str>| {
        let present = present.map(process);
        statistics.count(&leaving(instance, sequence, left, left, 0), present.as_ref(), &catalog)
    };
    // The control plane has restarted while one process takes over from another: the old one
    // is heard first.
    assert!(count("old", 400, 2, None).is_news);
    assert!(count("new", 3, 1, Some("new")).is_news);
    assert!(count("old", 401, 2, Some("new")).is_news);
    let left = || left_of(&statistics, "new");
    assert_eq!(left(), Leaving { applied_revision: 5, upgraded: 3, ..Leaving::default() });
    assert_eq!(statistics.reports().lost, 0, "what was before is not known to be lost");
    // It is taken over again before the first has ended: all three are told apart.
    assert!(count("newest", 1, 1, Some("newest")).is_news);
    for instance in ["old", "new"] {
        assert!(count(instance, 402, 1, Some("newest")).is_news);
    }
    assert_eq!(left_of(&statistics, "newest").upgraded, 3);
    assert_eq!(statistics.all().in_flight, 3, "each has its own in flight");
    advance(LEASE).await;
    assert!(count("newest", 2, 1, Some("newest")).is_news);
    assert_eq!(left_of(&statistics, "newest").upgraded, 1, "the others are silent");
    assert_eq!(statistics.all().in_flight, 1);
    // One that falls silent for long is not mistaken for another one when it comes back.
    assert!(!count("old", 402, 1, Some("newest")).is_news);
}

#[tokio::test(start_paused = true)]
async fn what_its_last_process_had_ends_with_a_proxy_and_not_what_the_others_have() {
    let statistics = Statistics::default();
    let catalog = draining(catalog(&[("b", 2)]));
    count(&statistics, &leaving("new", 1, 3, 0, 1), &catalog);
    count(&statistics, &leaving("old", 1, 2, 2, 0), &catalog);
    let ((id, incarnation), proxy) = (b(), ProxyId::new("p1").unwrap());
    let of = |present, ended| {
        let since = Instant::now();
        let asked = Asked { proxy: &proxy, present, ended, since, lease: LEASE };
        let left = statistics.leaving(&id, incarnation, [asked])[0];
        (left.requests, left.upgraded, left.cut)
    };
    let new = process("new");
    assert_eq!(of(Some(&new), false), (3, 2, 1));
    assert_eq!(of(Some(&new), true), (0, 2, 1));
    assert_eq!(of(None, false), (3, 2, 1), "nobody follows: all may be there");
    let mut there = statistics.processes(LEASE);
    there.sort();
    assert_eq!(there, [(proxy.clone(), new.clone()), (proxy.clone(), process("old"))]);
    advance(LEASE).await;
    assert_eq!(statistics.processes(LEASE), []);
    assert!(statistics.has_told(&proxy, &new) && !statistics.has_told(&proxy, &process("none")));
}

#[tokio::test(start_paused = true)]
async fn what_a_process_cut_that_has_ended_is_told_at_the_end_of_the_drain() {
    let statistics = Statistics::default();
    let undrained = catalog(&[("b", 2)]);
    let catalog = draining(catalog(&[("b", 2)]));
    count(&statistics, &leaving("old", 1, 0, 0, 2), &catalog);
    count(&statistics, &leaving("new", 1, 0, 0, 0), &catalog);
    advance(Duration::from_secs(60)).await;
    statistics.forget_removed(&catalog);
    assert_eq!(left_of(&statistics, "new").cut, 2);
    statistics.forget_removed(&undrained);
    assert_eq!(left_of(&statistics, "new").cut, 0, "it is enabled again");
}

#[tokio::test(start_paused = true)]
async fn a_process_that_goes_on_is_not_forgotten_with_its_proxy() {
    let statistics = Statistics::default();
    let catalog = draining(catalog(&[("b", 2)]));
    count(&statistics, &leaving("new", 1, 1, 1, 0), &catalog);
    count(&statistics, &leaving("old", 1, 2, 2, 0), &catalog);
    let proxy = ProxyId::new("p1").unwrap();
    statistics.forget_proxy(&proxy, Some(&process("new")), LEASE);
    assert_eq!(statistics.processes(LEASE), [(proxy.clone(), process("old"))]);
    assert_eq!(left_of(&statistics, "new").upgraded, 2);
    advance(LEASE).await;
    assert!(statistics.has_told(&proxy, &process("old")));
    statistics.forget_proxy(&proxy, None, LEASE);
    assert!(!statistics.has_told(&proxy, &process("old")), "it is silent");
}

#[tokio::test(start_paused = true)]
async fn sums_of_what_is_told_end_at_the_greatest_number() {
    let (statistics, most) = (Statistics::default(), u32::MAX);
    let catalog = draining(catalog(&[("b", 2)]));
    for instance in ["old", "new"] {
        count(&statistics, &leaving(instance, 1, most, 0, most), &catalog);
    }
    let left = left_of(&statistics, "new");
    assert_eq!((left.requests, left.upgraded, left.cut), (most, 0, most));
    for instance in ["old", "new"] {
        count(&statistics, &leaving(instance, 2, most, most, most), &catalog);
    }
    assert_eq!(left_of(&statistics, "new").upgraded, most);
    let key = b();
    assert_eq!(statistics.all().in_flight, most);
    assert_eq!(statistics.pools()[&PoolName::default_pool()].in_flight, most);
    assert_eq!(statistics.backend(&key.0, key.1).0.in_flight, most);
    assert_eq!(statistics.backends(&[key])[0].1, most);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_kept_of_backends_that_do_not_drain() {
    let (statistics, catalog) = (Statistics::default(), catalog(&[("b", 2)]));
    count(&statistics, &leaving("i1", 1, 5, 2, 9), &catalog);
    assert_eq!(left(&statistics), Leaving { applied_revision: 5, ..Leaving::default() });
}
