//! The screen, as people see it.

use lb_core::model::{HostMatch, ListenerName, PathMatch, PoolName, Route, RouteName, RoutePools};

use super::*;
use crate::{args::OutputFormat, view::ObjectView};

const NOW_MS: u64 = 1_795_384_331_000;

fn status(proxies: Vec<pb::Proxy>, up: u32, down: u32) -> pb::GetStatusResponse {
    pb::GetStatusResponse {
        server_id: "cp-1".to_owned(),
        build_version: env!("CARGO_PKG_VERSION").to_owned(),
        version: Some(pb::Version { revision: 118, ..pb::Version::default() }),
        started_unix_ms: NOW_MS - 192_000,
        last_change_unix_ms: NOW_MS - 12_000,
        proxies,
        pools: vec![pb::PoolStatus {
            pool: Some(pb::Pool {
                name: "default".to_owned(),
                algorithm: "round_robin".to_owned(),
                ..pb::Pool::default()
            }),
            up,
            down,
            recent: Some(recent()),
            ..pb::PoolStatus::default()
        }],
        recent: Some(recent()),
        ..pb::GetStatusResponse::default()
    }
}

/// Nothing in ten seconds.
fn recent() -> pb::RecentAnswers {
    pb::RecentAnswers { window_ms: 10_400, ..pb::RecentAnswers::default() }
}

fn proxy(id: &str, state: &str) -> pb::Proxy {
    let (id, state) = (id.to_owned(), state.to_owned());
    pb::Proxy { id, state, applied_revision: 117, last_seen_ms: 9_600, ..Default::default() }
}

#[test]
fn a_proxy_that_was_stopped_is_no_alarm_and_one_that_is_lost_can_be_forgotten() {
    let proxies = vec![proxy("proxy-1", "synced"), proxy("proxy-2", "stopped")];
    let text = shown(status(proxies, 3, 0), &[]);
    assert!(text.starts_with("FLEET    1/1 proxies in sync, 1 stopped at revision"), "{text}");
    assert!(!text.contains('!'), "{text}");
    let text = shown(status(vec![proxy("proxy-2", "stopped")], 3, 0), &[]);
    assert!(text.contains("! no proxy is connected: nothing serves"), "{text}");
    let proxies = vec![proxy("proxy-1", "synced"), proxy("proxy-2", "lost")];
    let text = shown(status(proxies, 3, 0), &[]);
    let alarm = text.lines().skip_while(|line| !line.starts_with('!')).collect::<Vec<_>>();
    insta::assert_snapshot!(alarm.join("\n"), @r"
    ! proxy-2 lost at revision 117, last heard of 9.6s ago
      next: look at its process and its network ('lbctl describe proxy proxy-2'); if it will not come back, 'lbctl forget-proxy proxy-2'
    ");
}

#[test]
fn a_pool_without_backends_is_told_if_a_route_leads_there() {
    let mut status = status(vec![proxy("proxy-1", "synced")], 3, 0);
    let empty = |name: &str| pb::Pool { name: name.to_owned(), ..pb::Pool::default() };
    let mut kept = empty("kept");
    kept.fallback_pool = "default".to_owned();
    for pool in [empty("spare"), empty("blue"), kept] {
        status.pools.push(pb::PoolStatus { pool: Some(pool), ..pb::PoolStatus::default() });
    }
    let routes = [route("a", "blue"), route("b", "blue"), route("c", "kept")];
    let text = routed(status, &[], &routes);
    let alarm = text.lines().skip_while(|line| !line.starts_with('!')).collect::<Vec<_>>();
    insta::assert_snapshot!(alarm.join("\n"), @r"
    ! pool blue: it has no backends, and route a and 1 more lead there
      next: 'lbctl add-backend HOST:PORT --pool blue'
    ! pool kept: it has no backends, and route c leads there; its fallback pool default answers
      next: 'lbctl add-backend HOST:PORT --pool kept'
    1 warning about the set-up: 'lbctl check' lists all
    ");
}

fn route(name: &str, pool: &str) -> Route {
    Route {
        name: RouteName::new(name).unwrap(),
        listener: ListenerName::default_listener(),
        host: HostMatch::Any,
        path: PathMatch::Prefix(format!("/{name}").into()),
        pools: RoutePools::one(PoolName::new(pool).unwrap()),
    }
}

fn shown(status: pb::GetStatusResponse, known: &[BackendView]) -> String {
    routed(status, known, &[route("default", "default")])
}

/// The screen with these routes; to the backends that are known come those that are counted.
fn routed(mut status: pb::GetStatusResponse, known: &[BackendView], routes: &[Route]) -> String {
    for proxy in &mut status.proxies {
        proxy.build_version.clone_from(&status.build_version);
        let listener = "default".to_owned();
        proxy.listen_addresses = vec![pb::ListenAddress { listener, address: String::new() }];
    }
    let mut facts = Facts::of(&status, NOW_MS);
    for pool in &mut facts.pools {
        "http".clone_into(&mut pool.health);
    }
    let listener = pb::Listener { name: "default".to_owned(), ..pb::Listener::default() };
    let object = Some(pb::object::Object::Listener(listener));
    facts.listeners.extend(ObjectView::read(pb::Object { object, revision: 1 }));
    facts.routes = routes.to_vec();
    facts.backends = known.to_vec();
    let up = known.iter().filter(|backend| backend.health == "up").count();
    facts.backends.extend((up..status.pools[0].up as usize).map(|_| {
        let health = pb::Health::Up.into();
        let status = Some(pb::BackendStatus { health, ..pb::BackendStatus::default() });
        backend2(pb::BackendView { status, ..pb::BackendView::default() })
    }));
    page(&StatusView::new(status, &facts), NOW_MS, Screen::new(OutputFormat::Table))
}

#[test]
fn a_quiet_day_has_no_alarms() {
    let text = shown(status(vec![proxy("proxy-1", "synced")], 3, 0), &[]);
    insta::assert_snapshot!(text, @r"
    FLEET    1/1 proxies in sync at revision 118 (changed 12s ago)
    CONTROL  cp-1, version 0.1.0, up 3m12s
    TRAFFIC  last 10s: 0 req/s  - ok  p50 -  p99 -  in flight 0

    POOL     ALGORITHM     UP  DOWN  REQ/S  SUCCESS  P99
    default  round_robin  3/3     0      0        -    -
    ");
}

/// Three pools at work: of one that is well the control plane's whole life is not.
#[test]
fn traffic_is_what_clients_were_answered_in_the_last_seconds() {
    let counts =
        [("no_route", 12), ("queue_full", 1), ("rate_limited", 5200), ("queue_timeout", 2)];
    let mut durations = lb_core::stats::LatencyHistogram::default();
    [700, 800, 900, 1_000_000].into_iter().for_each(|us| durations.record(us));
    let recent = |ok: u64, failed: u64| pb::RecentAnswers {
        window_ms: 10_400,
        status_classes: vec![0, ok, 0, 0, failed],
        durations: Some(lb_proto::convert::histogram_to_wire(&durations)),
        failures: [("no_healthy_backend".to_owned(), failed)].into(),
        ..pb::RecentAnswers::default()
    };
    let mut status = status(vec![proxy("proxy-1", "synced")], 3, 0);
    (status.recent, status.pools[0].recent) =
        (Some(recent(52_000, 104)), Some(recent(52_000, 104)));
    (status.pools[0].down, status.pools[0].out) = (1, 1);
    status.totals = Some(pb::BackendTotals {
        successes: 10,
        failures: Some(pb::Failures { timeout: 990, ..pb::Failures::default() }),
        in_flight: 2,
        request_rate: 7.0,
        ..pb::BackendTotals::default()
    });
    status.recent_own_answers = counts.map(|(reason, count)| (reason.to_owned(), count)).into();
    status.pools[0].slots = Some(pb::SlotsReport {
        proxies: vec![pb::SlotsShare { waiting: 19, ..pb::SlotsShare::default() }],
        adaptive: None,
    });
    let text = shown(status, &[]);
    insta::assert_snapshot!(text, @r"
    FLEET    1/1 proxies in sync at revision 118 (changed 12s ago)
    CONTROL  cp-1, version 0.1.0, up 3m12s
    TRAFFIC  last 10s: 5010 req/s  99.80% ok  p50 0.90ms  p99 1.00s  in flight 2, 19 in line
    ANSWERS  of the proxies' own: rate_limited 500/s, no_route 1.2/s, queue_timeout 0.2/s, queue_full 0.1/s

    POOL     ALGORITHM             UP  DOWN  REQ/S  SUCCESS    P99
    default  round_robin  2/4 (1 out)     1   5010   99.80%  1.00s
    ");
}

#[test]
fn of_a_control_plane_that_tells_no_recent_answers_it_is_said_since_when_it_counts() {
    let mut status = status(vec![proxy("proxy-1", "synced")], 3, 0);
    status.recent = None;
    status.totals = Some(pb::BackendTotals {
        successes: 10,
        failures: Some(pb::Failures { timeout: 10, ..pb::Failures::default() }),
        request_rate: 7.0,
        ..pb::BackendTotals::default()
    });
    let text = shown(status, &[]);
    let line = text.lines().find(|line| line.starts_with("TRAFFIC")).unwrap();
    insta::assert_snapshot!(line, @"TRAFFIC  7.0 req/s; since the control plane started:  50.00% ok  p50 -  p99 -  in flight 0");
}

/// A backend of which this is known.
fn backend2(known: pb::BackendView) -> BackendView {
    let backend = pb::Backend {
        id: "backend2".to_owned(),
        address: "localhost:8002".to_owned(),
        pool: "default".to_owned(),
        ..pb::Backend::default()
    };
    BackendView::from(pb::BackendView { backend: Some(backend), ..known })
}

#[test]
fn what_is_wrong_is_told_with_the_next_step() {
    let down = backend2(pb::BackendView {
        status: Some(pb::BackendStatus {
            health: pb::Health::Down.into(),
            reason: Some(pb::Reason {
                code: "backend_connect_refused".to_owned(),
                message: "connection refused".to_owned(),
            }),
            since_unix_ms: NOW_MS - 41_000,
            ..pb::BackendStatus::default()
        }),
        ..pb::BackendView::default()
    });
    let proxies = vec![proxy("proxy-1", "synced"), proxy("proxy-2", "behind")];
    insta::assert_snapshot!(shown(status(proxies, 2, 1), &[down]), @r"
    FLEET    1/2 proxies in sync at revision 118 (changed 12s ago)
    CONTROL  cp-1, version 0.1.0, up 3m12s
    TRAFFIC  last 10s: 0 req/s  - ok  p50 -  p99 -  in flight 0

    POOL     ALGORITHM     UP  DOWN  REQ/S  SUCCESS  P99
    default  round_robin  2/3     1      0        -    -

    ! proxy-2 behind at revision 117, last heard of 9.6s ago
      next: 'lbctl describe proxy proxy-2'
    ! backend2 localhost:8002 down for 41s: connection refused (backend_connect_refused)
      next: nothing listens at localhost:8002: start the server, or correct the address with 'lbctl set-backend backend2 --address HOST:PORT'
    ");
}

#[test]
fn checks_that_fail_are_told_before_they_take_a_backend_down() {
    let view = backend2(pb::BackendView {
        status: Some(pb::BackendStatus {
            health: pb::Health::Up.into(),
            since_unix_ms: NOW_MS - 41_000,
            ..pb::BackendStatus::default()
        }),
        checks: Some(pb::CheckReport {
            failures_in_a_row: 2,
            last_result: Some(pb::Reason {
                code: "backend_connect_refused".to_owned(),
                message: "connection refused".to_owned(),
            }),
            ..pb::CheckReport::default()
        }),
        ..pb::BackendView::default()
    });
    let text = shown(status(vec![proxy("proxy-1", "synced")], 3, 0), &[view]);
    let alarm = text.lines().skip_while(|line| !line.starts_with('!')).collect::<Vec<_>>();
    insta::assert_snapshot!(alarm.join("\n"), @r"
    ! backend2 localhost:8002 up for 41s: 2 checks in a row failed: connection refused (backend_connect_refused)
      next: nothing listens at localhost:8002: start the server, or correct the address with 'lbctl set-backend backend2 --address HOST:PORT'
    ");
}

#[test]
fn a_pool_without_a_backend_that_is_up_is_told_although_it_is_meant_so() {
    let mut status = status(vec![proxy("proxy-1", "synced")], 0, 0);
    (status.pools[0].disabled, status.pools[0].draining) = (2, 1);
    let text = shown(status, &[]);
    let alarm = text.lines().skip_while(|line| !line.starts_with('!')).collect::<Vec<_>>();
    insta::assert_snapshot!(alarm.join("\n"), @r"
    ! pool default: none of its 3 backends is up: 2 disabled, 1 draining
      next: 'lbctl describe pool default'
    ");
}

#[test]
fn an_empty_installation_says_how_to_begin() {
    insta::assert_snapshot!(shown(status(Vec::new(), 0, 0), &[]), @r"
    FLEET    no proxy connected at revision 118 (changed 12s ago)
    CONTROL  cp-1, version 0.1.0, up 3m12s
    TRAFFIC  last 10s: 0 req/s  - ok  p50 -  p99 -  in flight 0

    POOL     ALGORITHM     UP  DOWN  REQ/S  SUCCESS  P99
    default  round_robin  0/0     0      0        -    -

    ! no proxy is connected: nothing serves
      next: start one with 'lbctl data-plane', or the whole balancer with 'lbctl dev'
    ! there are no backends
      next: 'lbctl add-backend HOST:PORT'
    ");
}

#[test]
fn a_proxy_that_is_refused_is_told_with_the_reason_and_the_next_step() {
    let mut status = status(vec![proxy("proxy-1", "synced")], 3, 0);
    status.refused = vec![pb::RefusedProxy {
        id: "proxy-1".to_owned(),
        peer_address: "10.0.0.7:4711".to_owned(),
        reason: Some(pb::Reason {
            code: "proxy_id_in_use".to_owned(),
            message: "the proxy id proxy-1 is in use".to_owned(),
        }),
        since_unix_ms: NOW_MS - 61_000,
        attempts: 23,
        ..pb::RefusedProxy::default()
    }];
    let text = shown(status, &[]);
    let alarm: Vec<&str> = text.lines().skip_while(|line| !line.starts_with('!')).collect();
    insta::assert_snapshot!(alarm.join("\n"), @r"
    ! proxy-1 from 10.0.0.7:4711 is refused, 23 attempts in 1m1s: the proxy id proxy-1 is in use (proxy_id_in_use)
      next: give it '--id' and '--data-dir' of its own, or stop one of the two; until then it serves what it has on its disk
    ");
}

#[test]
fn a_pool_whose_backends_have_no_weight_is_told_although_all_are_up() {
    let status = status(vec![proxy("proxy-1", "synced")], 1, 0);
    let health = pb::Health::Up.into();
    let mut backend = backend2(pb::BackendView {
        status: Some(pb::BackendStatus { health, ..pb::BackendStatus::default() }),
        ..pb::BackendView::default()
    });
    backend.weight = 0;
    let text = shown(status, &[backend]);
    let alarm: Vec<&str> = text.lines().skip_while(|line| !line.starts_with('!')).collect();
    insta::assert_snapshot!(alarm.join("\n"), @r"
    ! pool default: its only backend has weight 0: requests are answered 503
      next: 'lbctl set-backend backend2 --weight 1'
    ");
}

#[test]
fn a_store_that_takes_no_writes_is_told_and_the_set_up_is_left_to_check() {
    let status = status(vec![proxy("proxy-1", "synced")], 0, 0);
    let mut facts = Facts::of(&status, NOW_MS);
    facts.takes_writes = Some(false);
    facts.skew = Some(Duration::from_secs(60));
    let text = page(&StatusView::new(status, &facts), NOW_MS, Screen::new(OutputFormat::Table));
    assert!(text.contains("\n! its store takes no writes"), "{text}");
    assert!(!text.contains("clock"), "{text}");
    assert!(text.ends_with(" about the set-up: 'lbctl check' lists all\n"), "{text}");
}
