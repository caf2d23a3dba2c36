//! What is found, and how bad it is.

mod bare;
mod blamed;
mod hanging;
mod undeclared;

use std::time::Duration;

use lb_core::model::{HostMatch, ListenerName, PathMatch, PoolName, Route, RouteName, RoutePools};
use lb_proto::v1 as pb;

use super::*;
use crate::view::{BackendView, ObjectView, PoolView, ProxyView};

fn proxy(id: &str, state: &str) -> ProxyView {
    let listen_addresses = vec![pb::ListenAddress {
        listener: "extra".to_owned(),
        address: "127.0.0.1:8080".to_owned(),
    }];
    ProxyView::from(pb::Proxy {
        id: id.to_owned(),
        state: state.to_owned(),
        build_version: env!("CARGO_PKG_VERSION").to_owned(),
        listen_addresses,
        ..pb::Proxy::default()
    })
}

fn facts(proxies: Vec<ProxyView>) -> Facts {
    let pool = pb::Pool { name: "default".to_owned(), ..pb::Pool::default() };
    Facts {
        server: "http://a:9400".to_owned(),
        build_version: env!("CARGO_PKG_VERSION").to_owned(),
        skew: Some(Duration::from_secs(60)),
        takes_writes: Some(true),
        refused_config: None,
        undeclared: None,
        proxies,
        refused: Vec::new(),
        pools: vec![PoolView::from(pb::PoolStatus {
            pool: Some(pool),
            down: 1,
            ..pb::PoolStatus::default()
        })],
        unrouted: None,
        backends: vec![BackendView::from(pb::BackendView {
            backend: Some(pb::Backend {
                id: "b1".to_owned(),
                pool: "default".to_owned(),
                address: "localhost:8001".to_owned(),
                ..pb::Backend::default()
            }),
            status: Some(pb::BackendStatus {
                health: pb::Health::Down.into(),
                reason: Some(pb::Reason {
                    code: "check_status".to_owned(),
                    message: "404".to_owned(),
                }),
                ..pb::BackendStatus::default()
            }),
            ..pb::BackendView::default()
        })],
        listeners: Vec::new(),
        routes: Vec::new(),
        now_unix_ms: 1_795_384_331_000,
    }
}

fn found(facts: &Facts) -> Vec<(&'static str, Level)> {
    judge(facts).iter().map(|finding| (finding.check, finding.level)).collect()
}

#[test]
fn whatever_is_wrong_is_found_and_has_a_remedy() {
    let mut elsewhere = proxy("p1", "lost");
    elsewhere.build_version = "0.0.1".to_owned();
    let mut remote = proxy("p2", "synced");
    remote.build_version = "0.0.1".to_owned();
    remote.elsewhere = true;
    let facts = facts(vec![elsewhere, remote]);
    assert_eq!(
        found(&facts),
        [
            ("control_plane_reachable", Level::Ok),
            ("control_plane_version", Level::Ok),
            ("control_plane_store", Level::Ok),
            ("clock_skew", Level::Warning),
            ("proxy_state", Level::Failed),
            ("proxy_version", Level::Warning),
            ("listener_object", Level::Warning),
            ("route_exists", Level::Failed),
            ("pool_serves", Level::Failed),
            ("backend_up", Level::Failed),
            ("backend_loopback", Level::Warning),
        ]
    );
    for finding in judge(&facts) {
        assert_eq!(finding.remedy.is_none(), finding.level == Level::Ok, "{finding:?}");
    }
    let of_status = judge(&facts).into_iter().find(|f| f.check == "backend_up").unwrap();
    assert!(of_status.remedy.unwrap().contains("--health-path"));
}

#[test]
fn a_backend_that_is_a_proxy_is_found() {
    let mut facts = facts(vec![proxy("p1", "synced")]);
    assert!(found(&facts).iter().all(|(check, _)| *check != "backend_leads_back"));
    "localhost:8080".clone_into(&mut facts.backends[0].address);
    facts.backends[0].resolved_addresses = vec!["127.0.0.1:8080".to_owned()];
    let findings = about(&facts, "backend", "b1");
    let back = findings.iter().find(|f| f.check == "backend_leads_back").unwrap();
    assert_eq!(back.message, "b1 localhost:8080 is listener extra of proxy p1");
}

#[test]
fn without_a_proxy_nothing_serves() {
    assert!(found(&facts(Vec::new())).contains(&("proxies_connected", Level::Failed)));
    let stopped = vec![proxy("p1", "stopped")];
    assert!(found(&facts(stopped)).contains(&("proxies_connected", Level::Failed)));
}

#[test]
fn a_proxy_that_was_stopped_in_order_is_as_it_should_be() {
    let findings = found(&facts(vec![proxy("p1", "synced"), proxy("p2", "stopped")]));
    assert!(findings.contains(&("proxy_state", Level::Ok)), "{findings:?}");
    let findings = judge(&facts(vec![proxy("p1", "synced"), proxy("p2", "lost")]));
    let lost = findings.iter().find(|f| f.check == "proxy_state").unwrap();
    assert!(lost.remedy.as_deref().unwrap().contains("lbctl forget-proxy p2"), "{lost:?}");
}

#[test]
fn what_a_fallback_answers_is_a_warning() {
    let level = |facts: &Facts| {
        let of = |check| judge(facts).iter().find(|f| f.check == check).unwrap().level;
        (of("route_served"), of("pool_serves"))
    };
    let mut facts = facts(vec![proxy("p1", "synced")]);
    facts.routes = vec![route("all", "extra", "", "/")];
    assert_eq!(level(&facts), (Level::Failed, Level::Failed));
    // A fallback pool that has nothing either is none.
    facts.pools[0].fallback_pool = Some("spare".to_owned());
    assert_eq!(level(&facts), (Level::Failed, Level::Failed));
    let mut spare = facts.backends[0].clone();
    "spare".clone_into(&mut spare.pool);
    spare.health = "up";
    facts.backends.push(spare);
    assert_eq!(level(&facts), (Level::Warning, Level::Warning));
    for finding in judge(&facts).iter().filter(|finding| finding.check == "pool_serves") {
        assert!(finding.message.ends_with("; its fallback pool spare answers"), "{finding:?}");
    }
    facts.pools[0].fallback_pool = None;
    let answer = pb::StaticAnswer { status: 200, ..pb::StaticAnswer::default() };
    let pool = pb::Pool {
        name: "default".to_owned(),
        fallback_answer: Some(answer),
        ..pb::Pool::default()
    };
    facts.pools[0].fallback_answer = PoolView::from(pool).fallback_answer;
    assert_eq!(level(&facts), (Level::Warning, Level::Warning));
}

#[test]
fn a_proxy_that_is_not_let_in_is_a_failure() {
    let mut facts = facts(vec![proxy("p1", "synced")]);
    facts.refused = vec![pb::RefusedProxy::default().into()];
    assert!(found(&facts).contains(&("proxy_refused", Level::Failed)));
}

#[test]
fn a_store_that_takes_no_writes_is_a_failure() {
    let mut facts = facts(vec![proxy("p1", "synced")]);
    facts.takes_writes = Some(false);
    assert!(found(&facts).contains(&("control_plane_store", Level::Failed)));
    // A control plane that does not tell is not accused.
    facts.takes_writes = None;
    assert!(found(&facts).iter().all(|(check, _)| *check != "control_plane_store"));
}

fn route(name: &str, listener: &str, host: &str, path: &str) -> Route {
    Route {
        name: RouteName::new(name).unwrap(),
        listener: ListenerName::new(listener).unwrap(),
        host: HostMatch::parse_stored(host).unwrap(),
        path: PathMatch::parse_stored("", path).unwrap(),
        pools: RoutePools::one(PoolName::default_pool()),
    }
}

fn listener(name: &str) -> ObjectView {
    let listener = pb::Listener { name: name.to_owned(), ..pb::Listener::default() };
    let object = Some(pb::object::Object::Listener(listener));
    ObjectView::read(pb::Object { object, revision: 1 }).unwrap()
}

#[test]
fn every_way_in_which_a_route_never_matches_is_told() {
    let mut facts = facts(vec![proxy("p1", "synced")]);
    facts.routes = vec![
        route("port", "extra", "a.example:80", "/"),
        route("query", "extra", "", "/a?b"),
        route("fragment", "extra", "", "/#top"),
        route("silent", "internal", "", "/"),
        route("twin-a", "extra", "", "/x"),
        route("twin-b", "extra", "", "/x"),
    ];
    for (name, why) in [
        ("port", "has a port"),
        ("query", "has a query"),
        ("fragment", "has a fragment"),
        ("silent", "no proxy listens for internal"),
        ("twin-b", "route twin-a matches the same requests"),
    ] {
        let findings = about(&facts, "route", name);
        let never = findings.iter().find(|f| f.check == "route_reachable").unwrap();
        assert!(never.message.contains(why), "{never:?}");
        // What gets nothing at all comes first.
        assert_eq!(findings[0].check, "route_served");
    }
    assert!(about(&facts, "route", "twin-a").iter().all(|f| f.check == "route_served"));
}

#[test]
fn a_listener_that_nobody_can_reach_is_one_finding() {
    let mut facts = facts(vec![proxy("p1", "synced"), proxy("p2", "synced")]);
    facts.listeners = vec![listener("extra"), listener("internal")];
    facts.routes = vec![route("e", "extra", "", "/"), route("i", "internal", "", "/")];
    assert!(about(&facts, "listener", "extra").is_empty());
    let [finding] = &about(&facts, "listener", "internal")[..] else { panic!("one") };
    assert!(finding.message.starts_with("no proxy has an address"), "{finding:?}");
    facts.proxies[0].listen[0].listener = "internal".to_owned();
    let [finding] = &about(&facts, "listener", "internal")[..] else { panic!("one") };
    assert_eq!(finding.message, "p2 has no address for listener internal");
}

#[test]
fn without_a_proxy_no_listener_is_said_to_have_an_address_at_each() {
    let mut facts = facts(Vec::new());
    facts.listeners = vec![listener("extra"), listener("internal")];
    let findings = judge(&facts);
    let listeners = findings.iter().filter(|finding| finding.check == "listener_address");
    let told: Vec<&str> = listeners.map(|finding| finding.message.as_str()).collect();
    assert_eq!(told, ["2 listeners, and no proxy that could have an address for one"]);
}

#[test]
fn two_names_of_one_server_are_told() {
    let mut facts = facts(vec![proxy("p1", "synced")]);
    let mut twin = facts.backends[0].clone();
    twin.id = "b2".to_owned();
    twin.address = "vm:8001".to_owned();
    facts.backends[0].resolved_addresses =
        vec!["127.0.0.1:8001".to_owned(), "[::1]:8001".to_owned()];
    twin.resolved_addresses = vec!["[::1]:8001".to_owned()];
    facts.backends.push(twin);
    let findings = about(&facts, "backend", "b2");
    let twin = findings.iter().find(|f| f.check == "backend_twin").unwrap();
    insta::assert_snapshot!(twin.message, @"b1 localhost:8001 and b2 vm:8001 are one server, [::1]:8001, and it gets the requests of both");
    facts.backends[1].pool = "other".to_owned();
    let findings = about(&facts, "backend", "b2");
    assert!(findings.iter().all(|f| f.check != "backend_twin"), "{findings:?}");
}

#[test]
fn a_pool_whose_only_backend_has_weight_0_is_told_so() {
    let mut facts = facts(vec![proxy("p1", "synced")]);
    facts.backends[0].health = "up";
    facts.backends[0].weight = 0;
    let findings = about(&facts, "pool", "default");
    let pool = findings.iter().find(|f| f.check == "pool_serves").unwrap();
    assert_eq!(pool.level, Level::Failed);
    insta::assert_snapshot!(pool.message, @"pool default: its only backend has weight 0: requests are answered 503");
    insta::assert_snapshot!(pool.remedy.as_deref().unwrap(), @"'lbctl set-backend b1 --weight 1'");
    // One of two that is down does not hide the other.
    let mut down = facts.backends[0].clone();
    (down.health, down.weight) = ("down", 1);
    facts.backends.push(down);
    let counts = facts.pools[0].backends.as_mut().unwrap();
    counts.up = 1;
    let findings = about(&facts, "pool", "default");
    let pool = findings.iter().find(|f| f.check == "pool_serves").unwrap();
    insta::assert_snapshot!(pool.message, @"pool default: none of its 2 backends gets requests: 1 down, 1 with weight 0");
}

#[test]
fn a_pool_whose_backends_are_kept_out_says_so_once() {
    let mut facts = facts(vec![proxy("p1", "synced")]);
    let mut spare = facts.backends[0].clone();
    (spare.pool, spare.health) = ("spare".to_owned(), "up");
    facts.backends.push(spare);
    let ejection = pb::Ejection { by: "breaker".to_owned(), ..pb::Ejection::default() };
    facts.backends[0].health = "up";
    facts.backends[0].standing.ejection = Some(ejection.into());
    let told = |up: u32, out: u32, down: u32, facts: &mut Facts| {
        facts.pools = vec![PoolView::from(pb::PoolStatus {
            pool: Some(pb::Pool {
                name: "default".to_owned(),
                fallback_pool: "spare".to_owned(),
                ..pb::Pool::default()
            }),
            up,
            out,
            down,
            ..pb::PoolStatus::default()
        })];
        let findings = about(facts, "pool", "default");
        findings.into_iter().find(|f| f.check == "pool_serves").unwrap().message
    };
    insta::assert_snapshot!(told(1, 1, 0, &mut facts), @"pool default: its only backend gets no requests: 1 kept out by a breaker or as an outlier; its fallback pool spare answers");
    // An older control plane does not tell who of those that are up is out.
    assert_eq!(told(1, 0, 0, &mut facts), told(1, 1, 0, &mut facts));
    insta::assert_snapshot!(told(1, 1, 1, &mut facts), @"pool default: none of its 2 backends gets requests: 1 down, 1 kept out by a breaker or as an outlier; its fallback pool spare answers");
}

#[test]
fn ages_are_told_where_there_are_any() {
    let mut facts = facts(vec![proxy("p1", "synced")]);
    let now = facts.now_unix_ms;
    facts.backends[0].since_unix_ms = Some(now - 41_000);
    facts.backends[0].checks = Some(
        pb::CheckReport { last_success_unix_ms: now - 43_000, ..pb::CheckReport::default() }.into(),
    );
    let told = |facts: &Facts| about(facts, "backend", "b1")[0].message.clone();
    insta::assert_snapshot!(told(&facts), @"b1 localhost:8001 down for 41s: 404 (check_status); its check passed 43s ago");
    facts.backends[0].since_unix_ms = None;
    facts.backends[0].checks = None;
    facts.backends[0].health = "unknown";
    insta::assert_snapshot!(told(&facts), @"b1 localhost:8001 unknown: 404 (check_status)");
}

#[test]
fn several_proxies_have_no_address() {
    let mut facts =
        facts(vec![proxy("p1", "synced"), proxy("p2", "synced"), proxy("p3", "synced")]);
    let listener = pb::Listener { name: "extra".to_owned(), ..pb::Listener::default() };
    let object = Some(pb::object::Object::Listener(listener));
    facts.listeners.extend(ObjectView::read(pb::Object { object, revision: 1 }));
    facts.routes = vec![route("e", "extra", "", "/")];
    facts.proxies[0].listen.clear();
    facts.proxies[1].listen.clear();
    let finding = about(&facts, "listener", "extra").remove(0);
    assert_eq!(finding.message, "p1, p2 have no address for listener extra");
}

/// A pool whose clients were answered so in ten seconds.
fn answered(classes: [u64; 5], failures: &[(&str, u64)]) -> Facts {
    let mut facts = facts(vec![proxy("p1", "synced")]);
    let failures = failures.iter().map(|(reason, count)| ((*reason).to_owned(), *count));
    facts.pools = vec![PoolView::from(pb::PoolStatus {
        pool: Some(pb::Pool { name: "default".to_owned(), ..pb::Pool::default() }),
        recent: Some(pb::RecentAnswers {
            window_ms: 10_000,
            status_classes: classes.into(),
            failures: failures.collect(),
            ..pb::RecentAnswers::default()
        }),
        ..pb::PoolStatus::default()
    })];
    facts
}

fn answers(classes: [u64; 5], failures: &[(&str, u64)]) -> Option<(Level, String)> {
    let findings = about(&answered(classes, failures), "pool", "default");
    let finding = findings.into_iter().find(|finding| finding.check == "pool_answers")?;
    let remedy = finding.remedy.unwrap_or_default();
    Some((finding.level, format!("{}\n{remedy}", finding.message)))
}

#[test]
fn a_pool_whose_clients_are_failed_is_told_with_the_reasons_of_the_last_seconds() {
    let (level, text) = answers([0, 40, 0, 0, 960], &[("queue_full", 950)]).unwrap();
    assert_eq!(level, Level::Failed);
    insta::assert_snapshot!(text, @r"
    pool default: 96.00% of 1000 answers of the last 10s are 5xx: queue_full 95/s, 5xx of backends 1.0/s
    its backends take no more at a time: add one, or allow more with 'lbctl set-pool default --max-in-flight N'; 'lbctl describe pool default' shows who waits
    ");
    let (level, text) = answers([0, 970, 0, 0, 30], &[("backend_timeout", 5)]).unwrap();
    assert_eq!(level, Level::Warning);
    insta::assert_snapshot!(text, @r"
    pool default: 3.00% of 1000 answers of the last 10s are 5xx: 5xx of backends 2.5/s, backend_timeout 0.5/s
    'lbctl get backends --pool default' shows which of them fails: look at the log of its server
    ");
}

#[test]
fn proxies_without_a_slot_of_their_own_are_told_what_gives_them_one() {
    let (_, text) = answers([0, 500, 0, 0, 500], &[("no_lease", 500)]).unwrap();
    assert!(text.contains("no_lease 50/s"), "{text}");
    assert!(text.contains("'lbctl get proxies' shows who is cut off"), "{text}");
}

#[test]
fn few_failures_and_few_answers_are_no_news() {
    assert_eq!(answers([0, 990, 0, 0, 10], &[]), None, "one of a hundred");
    assert!(answers([0, 989, 0, 0, 11], &[]).is_some());
    assert_eq!(answers([0, 0, 0, 0, 19], &[]), None, "too few to tell");
    assert_eq!(answers([0, 10, 0, 990, 0], &[]), None, "4xx are the clients' affair");
}

#[test]
fn answers_of_no_pool_are_told_too() {
    let mut facts = answered([0, 100, 0, 0, 0], &[]);
    facts.unrouted = Some(crate::view::RecentView::from(pb::RecentAnswers {
        window_ms: 10_000,
        status_classes: vec![0, 0, 0, 0, 200],
        failures: [("config_missing".to_owned(), 200)].into(),
        ..pb::RecentAnswers::default()
    }));
    let findings = judge(&facts);
    let finding = findings.iter().find(|finding| finding.check == "route_answers").unwrap();
    assert!(finding.is_trouble());
    insta::assert_snapshot!(finding.message, @"requests that reach no pool: 100% of 200 answers of the last 10s are 5xx: config_missing 20/s");
}
