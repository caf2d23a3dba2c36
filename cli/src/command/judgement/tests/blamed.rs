//! Who is named when the answers of a pool are failures.

use super::*;
use crate::{args::OutputFormat, command::describe_pool, output::Screen};

/// The pool's second backend failed some requests, and its first one fewer.
fn failing() -> Facts {
    let mut facts = answered([0, 26, 0, 0, 6], &[]);
    facts.backends = [("b1", 1), ("b2", 7), ("b3", 0)]
        .map(|(id, failed)| {
            BackendView::from(pb::BackendView {
                backend: Some(pb::Backend {
                    id: id.to_owned(),
                    pool: "default".to_owned(),
                    address: format!("localhost:80{}", &id[1..]),
                    weight: Some(1),
                    admin_state: pb::AdminState::Enabled.into(),
                    ..pb::Backend::default()
                }),
                status: Some(pb::BackendStatus {
                    health: pb::Health::Up.into(),
                    ..pb::BackendStatus::default()
                }),
                totals: Some(pb::BackendTotals {
                    requests: 15,
                    failures: Some(pb::Failures { status_5xx: failed, ..pb::Failures::default() }),
                    ..pb::BackendTotals::default()
                }),
                ..pb::BackendView::default()
            })
        })
        .into();
    facts
}

#[test]
fn the_backend_with_most_failures_is_named_and_its_page_and_the_pools_say_the_same() {
    let facts = failing();
    let findings = about(&facts, "pool", "default");
    let finding = findings.into_iter().find(|finding| finding.check == "pool_answers").unwrap();
    let next = finding.remedy.unwrap();
    insta::assert_snapshot!(next, @"look at the log of the server of b2, localhost:802, which has most of the failures so far (status 5xx 7)");
    let (pool, backends) = (&facts.pools[0], &facts.backends);
    let of = |at: usize| remedy_at_backend(&backends[at], pool, backends);
    assert_eq!([of(0), of(1), of(2)], [None, Some(next.clone()), None]);
    let page = describe_pool(pool, backends, 0, Screen::new(OutputFormat::Table));
    assert_eq!(page.lines().last(), Some(&*format!("next: {next}")));
}

#[test]
fn nobody_is_blamed_for_what_the_proxies_refuse() {
    let mut facts = failing();
    facts.pools = answered([0, 26, 0, 0, 6], &[("queue_full", 6)]).pools;
    let (pool, backends) = (&facts.pools[0], &facts.backends);
    assert_eq!(remedy_at_backend(&backends[1], pool, backends), None);
}

#[test]
fn nobody_is_blamed_where_answers_are_well() {
    let mut facts = failing();
    facts.pools = answered([0, 32, 0, 0, 0], &[]).pools;
    let (pool, backends) = (&facts.pools[0], &facts.backends);
    assert_eq!(remedy_at_backend(&backends[1], pool, backends), None);
    let page = describe_pool(pool, backends, 0, Screen::new(OutputFormat::Table));
    assert_eq!(page.lines().last(), Some("next: nothing to do"));
}
