//! What is waited for, and what is told meanwhile.

use super::*;

fn proxies(states: &[&str]) -> Vec<ProxyView> {
    states
        .iter()
        .enumerate()
        .map(|(index, state)| {
            let (id, state) = (format!("proxy-{}", index + 1), (*state).to_owned());
            ProxyView::from(pb::Proxy { id, state, ..pb::Proxy::default() })
        })
        .collect()
}

#[test]
fn enough_proxies_in_sync_end_the_wait() {
    let fleet = proxies(&["synced", "behind", "synced"]);
    assert!(matches!(look_at_proxies(&fleet, Some(2)), Look::Done(_)));
    assert_eq!(
        look_at_proxies(&fleet, Some(3)),
        Look::NotYet("2/3 proxies are in sync; proxy-2 is behind".to_owned())
    );
    assert!(matches!(look_at_proxies(&fleet, None), Look::NotYet(_)));
    assert!(matches!(look_at_proxies(&proxies(&["synced", "lost"]), None), Look::Done(_)));
    assert!(matches!(look_at_proxies(&proxies(&["synced", "stopped"]), None), Look::Done(_)));
    assert!(matches!(look_at_proxies(&[], None), Look::NotYet(_)));
}

#[test]
fn what_a_former_check_said_is_not_taken_for_the_new_one() {
    let mut wire = pb::BackendView {
        backend: Some(pb::Backend { id: "b1".to_owned(), ..pb::Backend::default() }),
        status: Some(pb::BackendStatus {
            health: pb::Health::Up.into(),
            ..pb::BackendStatus::default()
        }),
        checks: Some(pb::CheckReport { awaited: true, ..pb::CheckReport::default() }),
        ..pb::BackendView::default()
    };
    let looked = |wire: &pb::BackendView| {
        let view = BackendView::from(wire.clone());
        (judge_backend(&view, Awaited::Healthy), judge_pool("p", &[view]))
    };
    let text = "the check of b1 was changed, and has not been made since".to_owned();
    assert_eq!(looked(&wire), (Look::NotYet(text.clone()), Look::NotYet(text)));
    wire.checks.as_mut().unwrap().awaited = false;
    assert!(matches!(looked(&wire), (Look::Done(_), Look::Done(_))));
}

#[test]
fn an_empty_pool_is_not_healthy() {
    assert!(matches!(judge_pool("default", &[]), Look::NotYet(_)));
}

#[test]
fn a_backend_that_its_breaker_keeps_out_is_not_healthy_although_its_verdict_is_up() {
    let reason = |code: &str, message: &str| {
        Some(pb::Reason { code: code.to_owned(), message: message.to_owned() })
    };
    let mut wire = pb::BackendView {
        backend: Some(pb::Backend { id: "backend2".to_owned(), ..pb::Backend::default() }),
        status: Some(pb::BackendStatus {
            health: pb::Health::Up.into(),
            reason: reason("check_passed", "GET /health answered 200 in 6 ms"),
            ejection: Some(pb::Ejection {
                by: "breaker".to_owned(),
                reason: reason("breaker_consecutive_failures", "5 requests in a row failed"),
                ..pb::Ejection::default()
            }),
            ..pb::BackendStatus::default()
        }),
        checks: Some(pb::CheckReport {
            failures_in_a_row: 1,
            last_result: reason("backend_connect_refused", "refused the connection"),
            ..pb::CheckReport::default()
        }),
        ..pb::BackendView::default()
    };
    let is_healthy = |wire: &pb::BackendView| {
        let view = BackendView::from(wire.clone());
        let of_pool = judge_pool("default", std::slice::from_ref(&view));
        let look = judge_backend(&view, Awaited::Healthy);
        assert_eq!(matches!(look, Look::Done(_)), matches!(of_pool, Look::Done(_)));
        look
    };
    let Look::NotYet(text) = is_healthy(&wire) else { panic!("it serves nobody") };
    insta::assert_snapshot!(text, @"backend2 is up, breaker open: 5 requests in a row failed (breaker_consecutive_failures); its check fails too: refused the connection (backend_connect_refused)");
    wire.status.as_mut().unwrap().ejection = None;
    assert!(matches!(is_healthy(&wire), Look::NotYet(_)), "its last check failed");
    wire.checks = None;
    assert!(matches!(is_healthy(&wire), Look::Done(_)));
}

#[test]
fn a_proxy_that_never_came_is_waited_for() {
    let fleet = proxies(&["synced"]);
    assert!(matches!(look_at_proxy(&fleet, "proxy-1", Awaited::Synced), Look::Done(_)));
    assert!(matches!(look_at_proxy(&fleet, "proxy-9", Awaited::Synced), Look::NotYet(_)));
    assert!(matches!(look_at_proxy(&fleet, "proxy-1", Awaited::Lost), Look::NotYet(_)));
    let fleet = proxies(&["stopped", "lost"]);
    for (id, condition, done) in [
        ("proxy-1", Awaited::Stopped, true),
        ("proxy-1", Awaited::Lost, true),
        ("proxy-2", Awaited::Lost, true),
        ("proxy-2", Awaited::Stopped, false),
    ] {
        let look = look_at_proxy(&fleet, id, condition);
        assert_eq!(matches!(look, Look::Done(_)), done, "{id} {condition:?}");
    }
}
