//! Looking up routes, against the rules written down as they are told to people: look at
//! every route, keep those that match, take the most specific.

#![expect(clippy::unwrap_used, reason = "clippy does not see that helpers of tests are tests")]

use std::cmp::Reverse;

use lb_core::{
    model::{
        HostMatch, ListenerName, PathMatch, PoolName, Route, RouteName, RoutePools, Unmatched,
    },
    routing::{Obstacle, RouteTable, Verdict, explain, obstacle},
};
use proptest::prelude::*;

fn route(name: &str, host: &str, prefix: &str, exact: &str) -> Route {
    Route {
        name: RouteName::new(name).unwrap(),
        listener: ListenerName::default_listener(),
        host: HostMatch::parse(host).unwrap(),
        path: PathMatch::parse(prefix, exact).unwrap(),
        pools: RoutePools::one(PoolName::default_pool()),
    }
}

fn found<'r>(routes: &'r [Route], host: &str, target: &str) -> Option<&'r str> {
    let table = RouteTable::new(routes.iter().map(|route| (route, route.name.as_str())));
    table.find(host.as_bytes(), target.as_bytes()).copied()
}

/// The rules, told and not laid out: no table, no walking, one route at a time.
fn by_the_rules<'r>(routes: &'r [Route], host: &str, target: &str) -> Option<&'r str> {
    let host = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => name,
        _ => host,
    };
    let host = host.strip_suffix('.').unwrap_or(host).to_lowercase();
    let path = target.split_once('?').map_or(target, |(path, _)| path);
    let host_rank = |route: &Route| match &route.host {
        HostMatch::Any => Some((0, 0)),
        HostMatch::Suffix(suffix) => host.ends_with(&**suffix).then_some((1, suffix.len())),
        HostMatch::Exact(name) => (host == **name).then_some((2, 0)),
    };
    let path_rank = |route: &Route| match &route.path {
        PathMatch::Exact(exact) => (path == &**exact).then_some((1, 0)),
        PathMatch::Prefix(prefix) => {
            let below =
                if prefix.ends_with('/') { prefix.to_string() } else { format!("{prefix}/") };
            let matches = below == "/" || path.starts_with(&below) || format!("{path}/") == below;
            matches.then_some((0, below.len()))
        }
    };
    let matching = routes.iter().filter_map(|route| {
        Some(((host_rank(route)?, path_rank(route)?, Reverse(&route.name)), route.name.as_str()))
    });
    matching.max_by(|a, b| a.0.cmp(&b.0)).map(|(_, name)| name)
}

/// Few different labels and segments, so that many keys share a beginning.
fn host() -> impl Strategy<Value = String> {
    prop::collection::vec("[abA]{0,2}", 1..4).prop_map(|labels| labels.join("."))
}

fn path() -> impl Strategy<Value = String> {
    prop::collection::vec("[xy*]{0,2}", 0..4)
        .prop_map(|segments| segments.iter().map(|s| format!("/{s}")).collect())
}

fn routes() -> impl Strategy<Value = Vec<Route>> {
    let one = ("[a-z]{1,2}", host(), 0..3, path(), any::<bool>());
    let one = one.prop_filter_map("a valid match", |(name, host, kind, path, exact)| {
        let host = match kind {
            0 => String::new(),
            1 => host,
            _ => format!("*.{host}"),
        };
        let (prefix, exact) = if exact { ("", path.as_str()) } else { (path.as_str(), "") };
        Some(Route {
            name: RouteName::new(&name).ok()?,
            listener: ListenerName::default_listener(),
            host: HostMatch::parse(&host).ok()?,
            path: PathMatch::parse(prefix, exact).ok()?,
            pools: RoutePools::one(PoolName::default_pool()),
        })
    });
    prop::collection::vec(one, 0..30).prop_map(|mut routes| {
        // Names are unique among routes.
        routes.sort_by(|a: &Route, b| a.name.cmp(&b.name));
        routes.dedup_by(|a, b| a.name == b.name);
        routes
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn the_table_follows_the_rules(
        routes in routes().prop_shuffle(),
        asked in prop::collection::vec((host(), "(:80)?", path(), "(\\?x=/y)?"), 20),
    ) {
        for (host, port, path, query) in asked {
            let (host, path) = (host + &port, if path.is_empty() { "*".into() } else { path + &query });
            let expected = by_the_rules(&routes, &host, &path);
            prop_assert_eq!(found(&routes, &host, &path), expected, "{} {}", host, path);
        }
    }

    #[test]
    fn the_explanation_is_the_table_s(routes in routes(), host in host(), path in path()) {
        let all: Vec<&Route> = routes.iter().collect();
        let explained = explain(&all, &ListenerName::default_listener(), &host, &path);
        let chosen = explained.chosen.map(|route| route.name.as_str());
        prop_assert_eq!(chosen, found(&routes, &host, &path));
        prop_assert_eq!(explained.others.len() + usize::from(chosen.is_some()), routes.len());
        let beaten = explained.others.iter().any(|(_, verdict)| {
            matches!(
                verdict,
                Verdict::HostLessSpecific | Verdict::PathLessSpecific | Verdict::SameMatch
            )
        });
        prop_assert!(chosen.is_some() || !beaten, "only a match beats another one");
    }

    #[test]
    fn without_an_obstacle_there_is_a_request_for_every_route(routes in routes()) {
        for route in &routes {
            // With labels and segments that no other route names.
            let host = match &route.host {
                HostMatch::Any => "nobody".to_owned(),
                HostMatch::Exact(name) => name.to_string(),
                HostMatch::Suffix(suffix) => format!("nobody{suffix}"),
            };
            let target = match &route.path {
                PathMatch::Exact(path) => path.to_string(),
                PathMatch::Prefix(_) => format!("{}/nothing", route.path.stem()),
            };
            let taken = found(&routes, &host, &target) == Some(route.name.as_str());
            let obstacle = obstacle(&routes, route);
            prop_assert_eq!(taken, obstacle.is_none(), "{:?}: {:?}", route, obstacle);
        }
    }
}

#[test]
fn what_can_never_match_is_told_with_its_reason() {
    let mut with_port = route("port", "", "/", "");
    with_port.host = HostMatch::parse_stored("a.example:8080").unwrap();
    let mut with_query = route("query", "", "/", "");
    with_query.path = PathMatch::parse_stored("", "/search?q=1").unwrap();
    let routes = [
        with_port,
        with_query,
        route("twin-a", "b.example", "/x", ""),
        route("twin-b", "b.example", "/x/", ""),
        route("within", "b.example", "", "/x"),
    ];
    let told: Vec<_> = routes.iter().map(|route| obstacle(&routes, route)).collect();
    assert_eq!(
        told,
        [
            Some(Obstacle::HostHasPort),
            Some(Obstacle::PathHas(Unmatched::Query)),
            None,
            Some(Obstacle::SameMatch(&routes[2])),
            None,
        ]
    );
    for (host, target) in
        [("a.example:8080", "/"), ("a.example", "/search?q=1"), ("b.example", "/x/y")]
    {
        let taken = found(&routes, host, target);
        assert!(taken.is_none_or(|name| name == "twin-a"), "{host}{target}: {taken:?}");
    }
}

#[test]
fn the_most_specific_route_wins() {
    let routes = [
        route("all", "", "/", ""),
        route("api", "", "/api", ""),
        route("v2", "", "/api/v2/", ""),
        route("one", "", "", "/api/one"),
        route("a", "a.example.com", "/", ""),
        route("below", "*.example.com", "/x", ""),
        route("below-b", "*.b.example.com", "/x", ""),
    ];
    for (host, target, expected) in [
        ("z", "/", "all"),
        ("z", "/api", "api"),
        ("z", "/api?x=/api/one", "api"),
        ("z", "/apis", "all"),
        ("z", "/api/v2", "v2"),
        ("z", "/api/v2/y", "v2"),
        ("z", "/api/one", "one"),
        ("z", "/api/one/more", "api"),
        ("A.example.com:8080", "/api", "a"),
        ("q.example.com", "/x/y", "below"),
        ("q.b.example.com", "/x", "below-b"),
        ("q.example.com", "/y", "all"),
        ("example.com", "/x", "all"),
        ("[::1]:80", "*", "all"),
    ] {
        assert_eq!(found(&routes, host, target), Some(expected), "{host} {target}");
    }
}

#[test]
fn a_final_dot_makes_no_other_name() {
    let routes = [
        route("any", "", "/", ""),
        route("dot", "shop.example.", "/", ""),
        route("below", "*.example", "/", ""),
    ];
    for (host, expected) in [
        ("shop.example", "dot"),
        ("SHOP.example.", "dot"),
        ("shop.example.:80", "dot"),
        ("other.example.", "below"),
        ("shop.example..", "any"),
        (".", "any"),
    ] {
        assert_eq!(found(&routes, host, "/"), Some(expected), "{host}");
    }
    let hosts: Vec<&Route> = routes.iter().collect();
    let told = explain(&hosts, &ListenerName::default_listener(), "shop.example.", "/");
    assert_eq!(told.chosen.map(|route| route.name.as_str()), Some("dot"));
}

#[test]
fn without_a_matching_route_there_is_none() {
    let routes = [route("r", "a", "/x", "")];
    assert_eq!(found(&routes, "a", "/y"), None);
    assert_eq!(found(&routes, "b", "/x"), None);
    assert_eq!(found(&[], "a", "/x"), None);
}

#[test]
fn every_other_route_is_told_why() {
    let mut internal = route("internal", "", "/", "");
    internal.listener = ListenerName::new("internal").unwrap();
    let routes = [
        route("a", "a.example.com", "/", ""),
        route("a-api", "a.example.com", "/api", ""),
        route("a-api-again", "a.example.com", "/api/", ""),
        route("all", "", "/", ""),
        route("img", "a.example.com", "/img", ""),
        internal,
        route("other", "b.example.com", "/", ""),
    ];
    let all: Vec<&Route> = routes.iter().collect();
    let listener = ListenerName::default_listener();
    let explained = explain(&all, &listener, "A.EXAMPLE.com:80", "/api/x?y");
    assert_eq!(explained.chosen.unwrap().name.as_str(), "a-api");
    let others: Vec<_> =
        explained.others.iter().map(|(route, verdict)| (route.name.as_str(), *verdict)).collect();
    assert_eq!(
        others,
        [
            ("a", Verdict::PathLessSpecific),
            ("a-api-again", Verdict::SameMatch),
            ("all", Verdict::HostLessSpecific),
            ("img", Verdict::PathDiffers),
            ("internal", Verdict::OtherListener),
            ("other", Verdict::HostDiffers),
        ]
    );
}
