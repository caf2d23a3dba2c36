//! What a scrape holds, beside what the documentation says.

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::AtomicUsize},
};

use lb_core::{
    metrics::{BUILD_INFO, Format, PerBackend, process},
    model::{
        Backend, BackendId, BackendStatus, Health, HostMatch, Incarnation, Listener, ListenerName,
        PathMatch, Pool, PoolName, Resource, Route, RouteName, RoutePools, Snapshot, Standing,
        Version,
    },
};
use tokio::sync::{Notify, mpsc, watch};

use super::{Metrics, *};
use crate::{
    live::{Compiler, Config, Padded},
    stats::Shard,
    status::Status,
    worker::{Admission, Fleet, WorkerHandle},
};

/// A proxy of two workers with this many backends in one pool.
fn proxy(backends: usize, per_backend: PerBackend) -> (Arc<Metrics>, Arc<Config>) {
    let mut resources = vec![
        Resource::Pool(Pool::new(PoolName::default_pool())),
        Resource::Listener(Listener::new(ListenerName::default_listener())),
        Resource::Route(Route {
            name: RouteName::new("all").unwrap(),
            listener: ListenerName::default_listener(),
            host: HostMatch::Any,
            path: PathMatch::parse("", "").unwrap(),
            pools: RoutePools::one(PoolName::default_pool()),
        }),
    ];
    for number in 1..=backends {
        let id = BackendId::new(&format!("backend{number}")).unwrap();
        resources.push(Resource::Backend(Backend {
            source: None,
            drain: None,
            max_in_flight: None,
            id: id.clone(),
            pool: PoolName::default_pool(),
            address: format!("10.{}.{}.1:80", number / 250, number % 250).parse().unwrap(),
            weight: Default::default(),
            admin_state: Default::default(),
            labels: Default::default(),
            incarnation: Incarnation(1),
        }));
        resources.push(Resource::Status(BackendStatus {
            backend: id,
            incarnation: Incarnation(1),
            health: Health::Up,
            addresses: vec!["10.0.0.1:80".parse().unwrap()],
            reason: Default::default(),
            since_unix_ms: 0,
            was_up: true,
            standing: Standing::default(),
        }));
    }
    let (snapshot, rejected) = Snapshot::default().changed(resources, &[]);
    assert_eq!(rejected, []);
    let mut compiler = Compiler::new(2, vec![ListenerName::default_listener()]);
    let config = Arc::new(compiler.compile(&snapshot, None::<Version>));
    let workers = (0..2).map(|_| WorkerHandle {
        mail: mpsc::unbounded_channel().0,
        shard: Arc::new(Shard::default()),
        applied: Padded::default(),
        connections: Padded::default(),
    });
    let fleet = Arc::new(Fleet {
        workers: workers.collect(),
        changed: Notify::new(),
        asked_for_room: Default::default(),
        running: AtomicUsize::new(2),
        admission: Admission::new(100, 1),
        pipes_max: 1,
        replays_max: 0,
        access_log: None,
    });
    let metrics = Metrics {
        status: Arc::new(Status::default()),
        fleet,
        config: watch::channel(Arc::clone(&config)).1,
        ledger: compiler.ledger(),
        per_backend,
    };
    (Arc::new(metrics), config)
}

/// `(name, type)` of every family, as plain text names them.
fn families(text: &str) -> BTreeSet<(String, String)> {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    types.map(|(name, kind)| (name.to_owned(), kind.to_owned())).collect()
}

/// The rows of the documentation that speak of the proxy.
fn documented() -> Vec<String> {
    let text = include_str!("../../../docs/metrics.md");
    let (_, section) = text.split_once("\n## Proxy\n").expect("there is a section on the proxy");
    let section = section.split_once("\n## ").map_or(section, |(section, _)| section);
    section.lines().filter(|line| line.starts_with("| `")).map(str::to_owned).collect()
}

#[test]
fn a_scrape_has_every_metric_and_the_documentation_has_its_row() {
    let (metrics, _) = proxy(3, PerBackend::Auto);
    let text = metrics.scrape(Format::Text).unwrap();
    let defined = std::iter::once(BUILD_INFO).chain(process::DEFINITIONS).chain(DEFINITIONS);
    let expected: BTreeSet<(String, String)> =
        defined.map(|d| (d.name.to_owned(), d.kind.name().to_owned())).collect();
    assert_eq!(families(&text), expected);
    let rows: Vec<String> = DEFINITIONS.iter().map(ToString::to_string).collect();
    assert_eq!(documented(), rows, "docs/metrics.md should read:\n{}", rows.join("\n"));
}

#[test]
fn what_workers_count_is_told() {
    let (metrics, config) = proxy(2, PerBackend::Auto);
    let backend = &config.pools[0].backends[1];
    for worker in 0..2 {
        metrics.fleet.workers[worker].shard.count_request();
        metrics.fleet.workers[worker].shard.unrouted.count(404, None);
        config.route_counters[0].of(worker).count(204, Some(3000));
        backend.count_request(worker);
        backend.count_bytes(worker, 10, 20);
        backend.count_end(worker, None, Some(3000));
    }
    let text = metrics.scrape(Format::OpenMetrics).unwrap();
    for line in [
        "lb_requests_total{route=\"(none)\",code_class=\"4xx\"} 2",
        "lb_requests_total{route=\"all\",code_class=\"2xx\"} 2",
        "lb_request_duration_seconds_bucket{le=\"0.00256\",route=\"all\"} 0",
        "lb_request_duration_seconds_bucket{le=\"0.00512\",route=\"all\"} 2",
        "lb_request_duration_seconds_count{route=\"(none)\"} 0",
        "lb_requests_received_total 2",
        "lb_upstream_attempts_total{pool=\"default\",result=\"success\"} 2",
        "lb_upstream_bytes_total{pool=\"default\",direction=\"from_backend\"} 40",
        "lb_upstream_duration_seconds_bucket{le=\"0.00256\",pool=\"default\"} 0",
        "lb_upstream_duration_seconds_bucket{le=\"0.00512\",pool=\"default\"} 2",
        "lb_upstream_duration_seconds_sum{pool=\"default\"} 0.006",
        "lb_backend_selections_total{pool=\"default\",backend=\"backend1\"} 0",
        "lb_backend_selections_total{pool=\"default\",backend=\"backend2\"} 2",
        "lb_backends_configured{pool=\"default\"} 2.0",
        "lb_ready 0.0",
        "lb_workers 2.0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
}

#[test]
fn a_large_pool_is_told_as_a_whole_unless_asked_for() {
    for (backends, per_backend, told) in [
        (500, PerBackend::Auto, true),
        (501, PerBackend::Auto, false),
        (501, PerBackend::On, true),
        (1, PerBackend::Off, false),
    ] {
        let (metrics, config) = proxy(backends, per_backend);
        config.pools[0].backends[0].count_request(0);
        let text = metrics.scrape(Format::Text).unwrap();
        assert_eq!(text.contains("backend=\""), told, "{backends} {per_backend:?}");
        assert!(text.contains("lb_upstream_requests_total{pool=\"default\"} 1\n"));
    }
}

/// The bound is far above what it takes, because a test build is slow.
#[test]
fn ten_thousand_backends_are_scraped_in_a_moment() {
    for per_backend in [PerBackend::Auto, PerBackend::On] {
        let (metrics, _config) = proxy(10_000, per_backend);
        let began = crate::worker::now();
        let text = metrics.scrape(Format::OpenMetrics).unwrap();
        let took = crate::worker::now() - began;
        println!("{per_backend:?}: {} KiB, {took:?}", text.len() / 1024);
        assert!(took < std::time::Duration::from_secs(10), "{took:?}");
        assert!(text.len() < 16 << 20, "{} bytes", text.len());
    }
}
