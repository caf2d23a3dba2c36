//! What Prometheus is told, beside what was done.

use std::{net::SocketAddr, time::Duration};

use lb_tests::{
    backend::{Action, Backend, ok},
    client::{Client, get},
    cluster::Cluster,
    eventually::eventually,
    exposition::Scrape,
};
use rustix::process::Signal;

use crate::program;

const OK: &str = "lb_requests_total{route=\"default\",code_class=\"2xx\"}";
const FLEET_OK: &str = "lb_fleet_requests_total{code_class=\"2xx\"}";

/// A series of the pool `default`.
fn of_pool(name: &str, more: &str) -> String {
    format!("{name}{{pool=\"default\"{more}}}")
}

#[tokio::test]
async fn every_request_is_counted_once_by_its_proxy_and_in_the_sums_of_the_fleet() {
    let (first, second) = (Backend::saying("a"), Backend::saying("b"));
    let cluster = Cluster::start(program(), 2).await;
    cluster.add_backends(&[first.address(), second.address()]).await;
    for (proxy, requests) in cluster.addresses().into_iter().zip([7, 4]) {
        for _ in 0..requests {
            assert_eq!(get(proxy, "/").await.status, 200);
        }
    }
    let success = of_pool("lb_upstream_attempts_total", ",result=\"success\"");
    for (index, requests) in [(0, 7.0), (1, 4.0)] {
        // A client has its answer before the worker has counted it.
        let scrape = counted(cluster.proxy(index).admin(), OK, requests).await;
        assert_eq!(scrape.value("lb_requests_received_total"), requests);
        assert_eq!(scrape.value(&success), requests);
        assert_eq!(scrape.value(&of_pool("lb_upstream_duration_seconds_count", "")), requests);
        let waited = "lb_request_duration_seconds_count{route=\"default\"}";
        assert_eq!(scrape.value(waited), requests);
        let each = |id| {
            let labels = format!(",backend=\"{id}\"");
            scrape.value(&of_pool("lb_backend_selections_total", &labels))
        };
        assert_eq!(each("backend1") + each("backend2"), requests);
        assert_eq!(scrape.value("lb_ready"), 1.0);
        assert_eq!(scrape.value("lb_control_staleness_seconds"), 0.0);
        assert!(scrape.value("process_resident_memory_bytes") > 1e6);
    }
    let fleet = counted(cluster.http(), FLEET_OK, 11.0).await;
    assert_eq!(fleet.value("lb_fleet_requests_received_total"), 11.0);
    let fleet_success = of_pool("lb_fleet_upstream_attempts_total", ",result=\"success\"");
    assert_eq!(fleet.value(&fleet_success), 11.0);
    assert_eq!(fleet.value("lb_proxies{state=\"synced\"}"), 2.0);
    assert_eq!(fleet.value(&of_pool("lb_backends", ",state=\"up\"")), 2.0);
    assert_eq!(fleet.value(&of_pool("lb_backend_transitions_total", ",to=\"up\"")), 2.0);
    assert!(fleet.value(&of_pool("lb_backend_checks_total", ",result=\"passed\"")) >= 2.0);
    let revision = cluster.api.revision().await as f64;
    assert_eq!(fleet.value("lb_config_revision{stage=\"committed\"}"), revision);
}

#[tokio::test]
async fn answers_are_told_by_route_and_how_long_clients_waited() {
    let pause = Duration::from_millis(60);
    let slow = Backend::scripted(move |_| vec![Action::Pause(pause), Action::Send(ok("slow"))]);
    let quick = Backend::saying("quick");
    let cluster = Cluster::start(program(), 1).await;
    cluster.add_backends(&[slow.address()]).await;
    let address = quick.address().to_string();
    for command in [
        &["add-pool", "quick"][..],
        &["add-backend", &address, "--pool", "quick"],
        &["add-route", "api", "--path-prefix", "/api", "--pool", "quick"],
        &["remove-route", "default"],
        &["add-route", "home", "--path", "/", "--pool", "default"],
    ] {
        drop(cluster.lbctl(command).await.expect(0));
    }
    for (path, status, times) in [("/api/x", 200, 3), ("/", 200, 2), ("/other", 404, 1)] {
        for _ in 0..times {
            assert_eq!(get(cluster.address(), path).await.status, status);
        }
    }
    let admin = cluster.proxy(0).admin();
    let none = "lb_requests_total{route=\"(none)\",code_class=\"4xx\"}";
    let scrape = counted(admin, none, 1.0).await;
    let of = |name: &str, route: &str| scrape.find(&format!("{name}{{route=\"{route}\"}}"));
    assert_eq!(of("lb_request_duration_seconds_count", "api"), Some(3.0));
    assert_eq!(of("lb_request_duration_seconds_count", "home"), Some(2.0));
    assert_eq!(of("lb_request_duration_seconds_count", "(none)"), Some(1.0));
    assert_eq!(of("lb_request_duration_seconds_count", "default"), None, "it is removed");
    let waited = of("lb_request_duration_seconds_sum", "home").unwrap();
    assert!(waited >= 0.12, "two times 60 ms, and not {waited} s");
}

#[tokio::test]
async fn a_pool_keeps_the_counts_of_a_backend_that_is_removed() {
    let backend = Backend::saying("a");
    let cluster = Cluster::start(program(), 1).await;
    let ids = cluster.add_backends(&[backend.address()]).await;
    for _ in 0..3 {
        assert_eq!(get(cluster.address(), "/").await.status, 200);
    }
    let success = of_pool("lb_upstream_attempts_total", ",result=\"success\"");
    let admin = cluster.proxy(0).admin();
    let before = counted(admin, &success, 3.0).await;
    let fleet_before = counted(cluster.http(), FLEET_OK, 3.0).await;
    cluster.api.delete("backend", &ids[0]).await;
    assert_eq!(get(cluster.address(), "/").await.status, 503);
    let after = counted(admin, "lb_own_answers_total{reason=\"no_healthy_backend\"}", 1.0).await;
    assert_eq!(after.value(&success), 3.0);
    assert_eq!(after.find(&of_pool("lb_backend_selections_total", ",backend=\"backend1\"")), None);
    assert_eq!(after.lower_than(&before), [""; 0]);
    let fleet = counted(cluster.http(), "lb_fleet_requests_received_total", 4.0).await;
    assert_eq!(fleet.lower_than(&fleet_before), [""; 0]);
}

#[tokio::test]
async fn what_is_lost_and_not_ready_is_seen() {
    let mut cluster = Cluster::start_with(program(), 1, &["--accept-grace=30s"]).await;
    let admin = cluster.proxy(0).admin();
    cluster.kill_control_plane().await;
    let scrape = counted(admin, "lb_control_connected", 0.0).await;
    assert_eq!(scrape.value("lb_ready"), 1.0, "traffic does not depend on it");
    assert!(get(admin, "/readyz?verbose").await.text().contains("control-plane ok: away"));
    cluster.start_control_plane().await;
    let scrape = counted(admin, "lb_control_connected", 1.0).await;
    assert!(scrape.value("lb_control_sessions_total") >= 2.0);
    cluster.proxy(0).signal(Signal::TERM);
    counted(admin, "lb_ready", 0.0).await;
    assert_eq!(get(admin, "/readyz").await.status, 503);
    assert_eq!(get(admin, "/livez").await.status, 200);
    cluster.kill_proxy(0).await;
    counted(cluster.http(), "lb_proxies{state=\"lost\"}", 1.0).await;
}

#[tokio::test]
async fn metrics_can_be_read_and_nothing_else() {
    let cluster = Cluster::start(program(), 1).await;
    for address in [cluster.proxy(0).admin(), cluster.http()] {
        for path in ["/metrics", "/livez", "/readyz"] {
            for (method, status) in [("POST", 405), ("DELETE", 405), ("HEAD", 200)] {
                let mut client = Client::connect(address).await;
                client.send(format!("{method} {path} HTTP/1.1\r\nHost: x.example\r\n\r\n")).await;
                let response = client.try_response(method).await.unwrap();
                assert_eq!(response.status, status, "{method} {path}");
                assert!(status != 405 || response.field("Allow").is_some(), "{}", response.head);
            }
        }
        assert_eq!(get(address, "/metric").await.status, 404);
    }
}

/// The first scrape in which a series has a value.
async fn counted(address: SocketAddr, series: &str, value: f64) -> Scrape {
    eventually(&format!("{series} is {value}"), async || {
        let found = Scrape::of(address).await;
        match found.find(series) {
            Some(now) if now == value => Ok(found),
            other => Err(format!("{other:?}")),
        }
    })
    .await
}
