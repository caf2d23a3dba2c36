//! What clients get, as operators are told it: of the last seconds, by the pool that was to answer,
//! and with what the proxies answer by themselves.

use std::collections::BTreeMap;

use lb_proto::v1::{self as pb, object::Object as Any};
use lb_tests::{
    backend::{Action, Backend, Gate, ok},
    client::{Client, get},
    cluster::{Cluster, no_checks},
    eventually::eventually,
    scene::{self, Scene},
    scripted::Draft,
};
use serde_json::Value;

use crate::program;

fn route(name: &str, pools: &[&str]) -> Draft {
    let share = |pool: &&str| pb::WeightedPool { pool: (*pool).to_owned(), weight: Some(1) };
    let route = pb::Route {
        name: name.to_owned(),
        listener: "default".to_owned(),
        path_prefix: format!("/{name}"),
        pools: pools.iter().map(share).collect(),
        ..pb::Route::default()
    };
    Any::Route(route).into()
}

/// Answers by pool: how many below 500, how many above, and why.
type Told = BTreeMap<String, (u64, u64, BTreeMap<String, u64>)>;

fn add(told: &mut Told, report: &pb::StatsReport) {
    assert!(report.tells_answers);
    for part in &report.answers {
        let pool = told.entry(part.pool.clone()).or_default();
        pool.0 += part.status_classes[..4].iter().sum::<u64>();
        pool.1 += part.status_classes[4];
        for (reason, count) in &part.failures {
            *pool.2.entry(reason.clone()).or_default() += count;
        }
        let timed: u64 = part.durations.iter().flat_map(|all| &all.counts).sum();
        assert!(timed <= part.status_classes.iter().sum(), "{part:?}");
    }
}

#[tokio::test]
async fn a_proxy_tells_answers_by_the_pool_that_gave_them() {
    let spare = Backend::saying("spare");
    let other = |name: &str, fallback: &str| {
        let (name, fallback_pool) = (name.to_owned(), fallback.to_owned());
        Any::Pool(pb::Pool { name, fallback_pool, ..scene::pool("round_robin") }).into()
    };
    let mut objects = vec![other("spare", ""), other("empty", "spare")];
    let wire = pb::Backend {
        id: "s".to_owned(),
        pool: "spare".to_owned(),
        address: spare.address().to_string(),
        incarnation: 1,
        ..pb::Backend::default()
    };
    objects.extend([Any::Backend(wire).into(), scene::up("s", &spare).into()]);
    objects.extend([route("moved", &["empty"]), route("both", &["default", "spare"])]);
    let mut scene = Scene::start(program(), scene::pool("round_robin"), objects).await;
    let proxy = scene.address();
    for _ in 0..10 {
        assert_eq!(get(proxy, "/moved").await.text(), "spare");
    }
    let mut both = [get(proxy, "/both").await.status, get(proxy, "/both").await.status];
    both.sort_unstable();
    assert_eq!(both, [200, 503], "one of the two pools has no backend");
    for _ in 0..7 {
        get(proxy, "/").await.expect(503, "no_healthy_backend");
    }
    let mut client = Client::connect(proxy).await;
    client.send("GET / HTTP/1.1\r\n\r\n").await;
    client.response().await.expect(400, "client_protocol_error");

    let none = BTreeMap::new();
    let eight = BTreeMap::from([("no_healthy_backend".to_owned(), 8)]);
    let expected = Told::from([
        (String::new(), (1, 0, none.clone())),
        ("default".to_owned(), (0, 8, eight)),
        ("spare".to_owned(), (11, 0, none)),
    ]);
    let mut told = Told::new();
    while told != expected {
        add(&mut told, &scene.control_plane().statistics.report().await);
        let all: u64 = told.values().map(|(well, failed, _)| well + failed).sum();
        assert!(all <= 20, "{told:#?}");
    }
}

async fn status(cluster: &Cluster) -> Value {
    let status = cluster.lbctl(&["status", "-o", "json"]).await.expect(0);
    serde_json::from_str(&status.stdout).unwrap()
}

#[tokio::test]
async fn an_operator_is_told_at_once_that_every_client_is_refused() {
    let backend = Backend::saying("a");
    let mut cluster = Cluster::start(program(), 2).await;
    cluster.api.change_pool(no_checks).await;
    let ids = cluster.add_backends(&[backend.address()]).await;
    for address in cluster.addresses() {
        assert_eq!(get(address, "/").await.status, 200);
    }
    drop(cluster.lbctl(&["disable-backend", &ids[0]]).await.expect(0));
    let refused = async |cluster: &Cluster| {
        for address in cluster.addresses() {
            for _ in 0..15 {
                get(address, "/").await.expect(503, "no_healthy_backend");
            }
        }
    };
    let alarm = async |cluster: &Cluster| {
        eventually("status tells it", async || {
            // Again each time: it is about the last seconds.
            refused(cluster).await;
            let page = cluster.lbctl(&["status"]).await.expect(0).stdout;
            let found = page.lines().find(|line| line.contains("are 5xx: no_healthy_backend"));
            found.map(str::to_owned).ok_or(page)
        })
        .await
    };
    let line = alarm(&cluster).await;
    assert!(line.starts_with("! pool default: "), "{line}");
    let told = status(&cluster).await;
    let recent = &told["traffic"]["recent"];
    assert!(recent["failed"].as_u64().unwrap() >= 20, "{told:#}");
    assert!(told["traffic"]["requests_per_second"].as_f64().unwrap() > 0.0, "{told:#}");
    assert_eq!(told["pools"][0]["traffic"]["recent"]["failures"], recent["failures"]);
    let check = cluster.lbctl(&["check"]).await;
    assert!(check.stdout.contains("are 5xx: no_healthy_backend"), "{}", check.stdout);
    let stats = cluster.lbctl(&["stats"]).await.expect(0).stdout;
    assert!(stats.contains("UTC, ") && stats.contains("when the control plane started"), "{stats}");

    // A control plane that has just begun tells the same, and since when it counts.
    cluster.kill_control_plane().await;
    cluster.start_control_plane().await;
    cluster.settled().await;
    alarm(&cluster).await;
    let page = cluster.lbctl(&["describe", "pool", "default"]).await.expect(0).stdout;
    assert!(
        page.contains("\nclients, last ") && page.contains("\ngiven to backends since "),
        "{page}"
    );
    assert!(page.contains("no_healthy_backend"), "{page}");
}

#[tokio::test]
async fn what_clients_wait_in_line_is_in_what_they_wait() {
    let gate = Gate::default();
    let held = gate.clone();
    let backend = Backend::scripted(move |request| match request.path() {
        "/held" => vec![Action::Await(held.clone()), Action::Send(ok("held"))],
        _ => vec![Action::Send(ok("a"))],
    });
    let cluster = Cluster::start(program(), 1).await;
    let proxy = cluster.address();
    cluster
        .api
        .change_pool(|pool| {
            no_checks(pool);
            pool.max_in_flight = 1;
            pool.queue_timeout_ms = 60_000;
        })
        .await;
    cluster.add_backends(&[backend.address()]).await;
    let slots = async || {
        let told = status(&cluster).await;
        told["pools"][0]["slots"].clone()
    };
    eventually("the proxy has the slot", async || {
        let slots = slots().await;
        if slots["proxies"][0]["granted"] == 1 { Ok(()) } else { Err(slots) }
    })
    .await;
    let mut first = Client::connect(proxy).await;
    first.send("GET /held HTTP/1.1\r\nHost: a\r\n\r\n").await;
    backend.reached(1).await;
    let mut second = Client::connect(proxy).await;
    second.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    eventually("it waits", async || {
        let slots = slots().await;
        if slots["waiting"] == 1 { Ok(()) } else { Err(slots) }
    })
    .await;
    let waiting_since = tokio::time::Instant::now();
    eventually("both are on the screen", async || {
        let page = cluster.lbctl(&["status"]).await.expect(0).stdout;
        if page.contains("in flight 1, 1 in line\n") { Ok(()) } else { Err(page) }
    })
    .await;
    let waited = waiting_since.elapsed();
    gate.open();
    assert_eq!(first.response().await.status, 200);
    assert_eq!(second.response().await.status, 200);
    let recent = eventually("both are told", async || {
        let recent = status(&cluster).await["pools"][0]["traffic"]["recent"].clone();
        if recent["answers"] == 2 { Ok(recent) } else { Err(recent) }
    })
    .await;
    // Both have, the one at the backend and the other in line.
    for quantile in ["latency_p50_us", "latency_p99_us"] {
        assert!(u128::from(recent[quantile].as_u64().unwrap()) >= waited.as_micros(), "{recent}");
    }
}
