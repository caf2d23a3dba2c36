//! What a scrape holds, beside what the documentation says.

use std::collections::BTreeSet;

use lb_core::{
    metrics::{BUILD_INFO, PerBackend, process},
    stats::{BackendCounters, LatencyHistogram},
};
use lb_proto::v1::{self as pb, registry_client::RegistryClient, stats_client::StatsClient};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tonic::transport::Endpoint as Client;

use super::DEFINITIONS;
use crate::{Config, Running, listen::Endpoint, start};

/// Head and body of an answer.
async fn ask(running: &Running, request: &str) -> (String, String) {
    let Endpoint::Tcp(address) = running.http() else { panic!("it is on a port") };
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_ascii_lowercase(), body.to_owned())
}

async fn scrape(running: &Running) -> String {
    let request = "GET /metrics HTTP/1.1\r\nHost: lb.monitoring\r\nConnection: close\r\n\r\n";
    let (head, body) = ask(running, request).await;
    assert!(head.starts_with("http/1.1 200 "), "{head}");
    body
}

async fn add_backends(running: &Running, count: usize) {
    let channel = Client::from_shared(running.url()).unwrap().connect().await.unwrap();
    let put = |number: usize| {
        let address = format!("127.1.{}.{}:9", number / 250, number % 250);
        let backend = pb::Backend {
            id: format!("backend{}", number + 1),
            address,
            admin_state: pb::AdminState::Disabled.into(),
            ..Default::default()
        };
        let object = pb::Object { object: Some(pb::object::Object::Backend(backend)), revision: 0 };
        pb::ApplyItem { change: Some(pb::apply_item::Change::Put(object)) }
    };
    let items = (0..count).map(put).collect();
    let request = pb::ApplyRequest { items, ..Default::default() };
    RegistryClient::new(channel).apply(request).await.unwrap();
}

/// A report of 3 requests to one backend, of which 2 were answered well.
async fn report(running: &Running, incarnation: u64) {
    let channel = Client::from_shared(running.url()).unwrap().connect().await.unwrap();
    let mut latency = LatencyHistogram::default();
    latency.record(700);
    let counters = BackendCounters {
        requests: 3,
        successes: 2,
        retries: 1,
        bytes_to_backend: 30,
        latency,
        ..Default::default()
    };
    let part = pb::BackendReport {
        pool: "default".to_owned(),
        backend: "backend1".to_owned(),
        incarnation,
        in_flight: 1,
        ..lb_proto::convert::counters_to_wire(&counters)
    };
    let process = pb::ProcessReport {
        requests: 4,
        status_classes: vec![0, 2, 0, 1, 0],
        own_answers: [("no_route".to_owned(), 1)].into(),
        ..Default::default()
    };
    let report = pb::StatsReport {
        proxy_id: "p1".to_owned(),
        instance_id: "i1".to_owned(),
        sequence: 1,
        interval_ms: 60_000,
        backends: vec![part],
        process: Some(process),
        probes: Vec::new(),
        limits: Vec::new(),
        sent_ms: 1,
        applied_revision: 0,
        applied_epoch: bytes::Bytes::new(),
        pools: Vec::new(),
        ..Default::default()
    };
    let reports = tokio_stream::iter([report.clone(), report]);
    let mut answers = StatsClient::new(channel).report(reports).await.unwrap().into_inner();
    for _ in 0..2 {
        answers.message().await.unwrap().unwrap();
    }
}

/// The rows of the documentation that speak of the control plane.
fn documented() -> Vec<String> {
    let text = include_str!("../../../docs/metrics.md");
    let (_, section) = text.split_once("\n## Control plane\n").expect("there is a section on it");
    let section = section.split_once("\n## ").map_or(section, |(section, _)| section);
    section.lines().filter(|line| line.starts_with("| `")).map(str::to_owned).collect()
}

#[tokio::test]
async fn a_scrape_has_every_metric_and_the_documentation_has_its_row() {
    let running = start(Config::in_memory()).await.unwrap();
    let text = scrape(&running).await;
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let found: BTreeSet<(&str, &str)> = types.collect();
    let defined: Vec<_> =
        std::iter::once(BUILD_INFO).chain(process::DEFINITIONS).chain(DEFINITIONS).collect();
    let expected: BTreeSet<(&str, &str)> =
        defined.iter().map(|d| (d.name, d.kind.name())).collect();
    assert_eq!(found, expected);
    let rows: Vec<String> = DEFINITIONS.iter().map(ToString::to_string).collect();
    assert_eq!(documented(), rows, "docs/metrics.md should read:\n{}", rows.join("\n"));
}

#[tokio::test]
async fn reports_are_told_as_sums_and_a_repetition_once() {
    let running = start(Config::in_memory()).await.unwrap();
    add_backends(&running, 2).await;
    report(&running, 2).await;
    let text = scrape(&running).await;
    for line in [
        "lb_config_revision{stage=\"committed\"} 2.0",
        "lb_objects{kind=\"backend\"} 2.0",
        "lb_registry_writes_total{result=\"stored\"} 1",
        "lb_store_commit_duration_seconds_count 2",
        "lb_events_total{type=\"object_changed\"} 5",
        "lb_backends{pool=\"default\",state=\"disabled\"} 2.0",
        "lb_backends{pool=\"default\",state=\"up\"} 0.0",
        "lb_backend_up{pool=\"default\",backend=\"backend1\"} 0.0",
        "lb_backend_state{pool=\"default\",backend=\"backend1\",state=\"disabled\"} 1.0",
        "lb_backend_state{pool=\"default\",backend=\"backend1\",state=\"up\"} 0.0",
        "lb_breaker_state{pool=\"default\",backend=\"backend1\",state=\"closed\"} 1.0",
        "lb_backend_weight_effective{pool=\"default\",backend=\"backend1\"} 0.0",
        "lb_stats_reports_total{result=\"counted\"} 1",
        "lb_stats_reports_total{result=\"repeated\"} 1",
        "lb_fleet_requests_total{code_class=\"2xx\"} 2",
        "lb_fleet_requests_received_total 4",
        "lb_fleet_own_answers_total{reason=\"no_route\"} 1",
        "lb_fleet_upstream_requests_total{pool=\"default\"} 3",
        "lb_fleet_upstream_duration_seconds_bucket{le=\"0.000512\",pool=\"default\"} 0",
        "lb_fleet_upstream_duration_seconds_bucket{le=\"0.001024\",pool=\"default\"} 1",
        "lb_fleet_backend_attempts_total{pool=\"default\",backend=\"backend1\",result=\"success\"} 2",
        "lb_fleet_backend_in_flight{pool=\"default\",backend=\"backend1\"} 1.0",
        "lb_fleet_backend_selections_total{pool=\"default\",backend=\"backend2\"} 0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
}

#[tokio::test]
async fn a_large_fleet_is_told_by_pool_unless_asked_for() {
    for (metrics_per_backend, told) in [(PerBackend::Auto, false), (PerBackend::On, true)] {
        let running = start(Config { metrics_per_backend, ..Config::in_memory() }).await.unwrap();
        add_backends(&running, PerBackend::AUTO_MAX + 1).await;
        let text = scrape(&running).await;
        assert_eq!(text.contains("backend=\""), told, "{metrics_per_backend:?}");
        assert!(text.contains("lb_backends{pool=\"default\",state=\"disabled\"} 501.0\n"));
    }
}

#[tokio::test]
async fn a_client_is_answered_as_it_asks() {
    let running = start(Config::in_memory()).await.unwrap();
    for (request, expected) in [
        ("GET /metrics HTTP/1.0\r\n", ["http/1.0 200 ", "text/plain; version=0.0.4"]),
        (
            "GET /metrics HTTP/1.0\r\nAccept: application/openmetrics-text;version=1.0.0\r\n",
            ["http/1.0 200 ", "application/openmetrics-text; version=1.0.0; charset=utf-8"],
        ),
        ("HEAD /metrics HTTP/1.0\r\n", ["http/1.0 200 ", "content-length: "]),
        ("POST /metrics HTTP/1.0\r\n", ["http/1.0 405 ", "allow: get,head"]),
        // No page of another site learns anything that it could not guess, and scrapers
        // come by any name.
        ("GET /metrics HTTP/1.0\r\nHost: evil.example\r\n", ["http/1.0 200 ", "no-store"]),
    ] {
        let (head, body) = ask(&running, &format!("{request}\r\n")).await;
        for part in expected {
            assert!(head.contains(part), "{request}: {part} is not in {head}");
        }
        assert_eq!(body.is_empty(), request.starts_with("HEAD"), "{request}");
    }
}
