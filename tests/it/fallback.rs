//! A pool that has no backend for its requests: another one takes them, or they get an answer
//! that was written down; with the control plane away, too.

use lb_tests::{
    backend::{Action, Backend, Gate, ok},
    client::{Client, get},
    cluster::{Cluster, no_checks},
    eventually::eventually,
    exposition::Scrape,
};

use crate::program;

#[tokio::test]
async fn another_pool_serves_and_then_the_answer_that_was_written_down() {
    let spare = Backend::scripted(|_| vec![Action::Send(ok("spare"))]);
    let mut cluster = Cluster::start(program(), 2).await;
    cluster.api.change_pool(no_checks).await;
    let run = async |cluster: &Cluster, args: &[&str]| cluster.lbctl(args).await;

    // What refers to nothing, or to itself, is refused and changes nothing.
    let bad = run(&cluster, &["set-pool", "default", "--fallback-pool", "spare"]).await;
    assert!(bad.stderr.contains("\"spare\", which does not exist"), "{}", bad.stderr);
    let bad = run(&cluster, &["set-pool", "default", "--fallback-pool", "default"]).await;
    assert!(bad.stderr.contains("is its own fallback"), "{}", bad.stderr);

    drop(run(&cluster, &["add-pool", "spare", "--health", "none"]).await.expect(0));
    let address = spare.address().to_string();
    let set: [&[&str]; 3] = [
        &["add-backend", &address, "--pool", "spare", "--id", "s1"],
        &["set-pool", "default", "--fallback-pool", "spare"],
        &["set-pool", "default", "--fallback-status", "200", "--fallback-body", "back soon"],
    ];
    for args in set {
        drop(run(&cluster, args).await.expect(0));
    }
    let removed = run(&cluster, &["remove-pool", "spare"]).await;
    assert!(removed.stderr.contains("pool default, as its fallback"), "{}", removed.stderr);
    let page = run(&cluster, &["describe", "pool", "default"]).await.expect(0).stdout;
    assert!(page.contains("spare") && page.contains("back soon"), "{page}");

    for address in cluster.addresses() {
        assert_eq!(get(address, "/").await.text(), "spare");
    }
    drop(run(&cluster, &["disable-backend", "s1"]).await.expect(0));
    cluster.kill_control_plane().await;
    for address in cluster.addresses() {
        let response = get(address, "/").await;
        assert_eq!((response.status, response.text().as_str()), (200, "back soon"));
        assert_eq!(response.field("Content-Type"), Some("text/plain; charset=utf-8"));
    }
    let scrape = Scrape::of(cluster.proxy(0).admin()).await;
    for (to, count) in [("pool", 1.0), ("answer", 1.0)] {
        let series = format!("lb_pool_fallbacks_total{{pool=\"default\",to=\"{to}\"}}");
        assert!((scrape.value(&series) - count).abs() < f64::EPSILON, "{series}");
    }
}

/// What is up but has no room is no reason to fall back: the client is told that it may come
/// again, and by what it was kept.
#[tokio::test]
async fn a_pool_without_room_says_so_and_does_not_fall_back() {
    let gate = Gate::default();
    let holds = gate.clone();
    let busy = Backend::scripted(move |request| match request.path() {
        "/held" => vec![Action::Await(holds.clone()), Action::Send(ok("held"))],
        _ => vec![Action::Send(ok("free"))],
    });
    let cluster = Cluster::start(program(), 1).await;
    cluster.api.change_pool(no_checks).await;
    let run = async |args: &[&str]| drop(cluster.lbctl(args).await.expect(0));
    run(&["set-pool", "default", "--fallback-status", "200", "--fallback-body", "back soon"]).await;
    run(&["add-pool", "first", "--health", "none", "--fallback-pool", "default"]).await;
    run(&["add-route", "first", "--path-prefix", "/first", "--pool", "first"]).await;
    let ids = cluster.add_backends(&[busy.address()]).await;
    run(&["set-backend", &ids[0], "--max-in-flight", "1"]).await;
    run(&["set-pool", "default", "--queue-length", "1", "--queue-timeout", "2s"]).await;
    let proxy = cluster.address();
    let waiting = async || {
        let slots = cluster.api.backend(&ids[0]).await.slots.unwrap_or_default();
        slots.proxies.iter().map(|share| (share.granted, share.waiting)).collect::<Vec<_>>()
    };
    eventually("the proxy has the slot", async || {
        let slots = waiting().await;
        if slots == [(1, 0)] { Ok(()) } else { Err(format!("{slots:?}")) }
    })
    .await;
    let mut served = Client::connect(proxy).await;
    served.send("GET /held HTTP/1.1\r\nHost: a\r\n\r\n").await;
    busy.reached(1).await;
    for path in ["/", "/first"] {
        let mut waits = Client::connect(proxy).await;
        waits.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        eventually("it waits", async || {
            let slots = waiting().await;
            if slots == [(1, 1)] { Ok(()) } else { Err(format!("{slots:?}")) }
        })
        .await;
        get(proxy, path).await.expect(503, "queue_full");
        waits.response().await.expect(503, "queue_timeout");
    }
    gate.open();
    assert_eq!(served.response().await.status, 200);
    assert_eq!(busy.requests(), 1);

    run(&["set-backend", &ids[0], "--max-in-flight", "0"]).await;
    let limit = ["add-limit", "gentle", "--rate", "1/h", "--burst", "1", "--scope", "backend"];
    run(&limit).await;
    assert_eq!(get(proxy, "/").await.status, 200);
    for path in ["/", "/first"] {
        let refused = get(proxy, path).await;
        refused.expect(429, "rate_limited");
        assert!(refused.text().contains("limit gentle"), "{}", refused.text());
    }
    let scrape = Scrape::of(cluster.proxy(0).admin()).await;
    let none = scrape.value("lb_own_answers_total{reason=\"no_healthy_backend\"}");
    let answers = scrape.value("lb_pool_fallbacks_total{pool=\"default\",to=\"answer\"}");
    assert!(none == 0.0 && answers == 0.0, "{none} {answers}");
}

/// A pool's own limits hold for what another pool hands to it, too.
#[tokio::test]
async fn what_falls_back_is_counted_by_the_limits_of_the_pool_that_serves_it() {
    let spare = Backend::saying("spare");
    let cluster = Cluster::start(program(), 1).await;
    let run = async |args: &[&str]| drop(cluster.lbctl(args).await.expect(0));
    run(&["add-pool", "spare", "--health", "none"]).await;
    run(&["add-backend", &spare.address().to_string(), "--pool", "spare"]).await;
    run(&["set-pool", "default", "--fallback-pool", "spare"]).await;
    let limit = ["--rate", "1/h", "--burst", "2", "--scope", "proxy", "--pool", "spare"];
    run(&[&["add-limit", "by-key", "--key", "header:X-Key"][..], &limit].concat()).await;
    let mut client = Client::connect(cluster.address()).await;
    let mut send = async |field: &str| {
        client.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{field}\r\n")).await;
        client.response().await
    };
    for status in [200, 200, 429] {
        let answer = send("X-Key: a\r\n").await;
        assert_eq!(answer.status, status);
        assert!(status == 200 || answer.text().contains("limit by-key"), "{}", answer.text());
    }
    assert_eq!(send("X-Key: b\r\n").await.status, 200);
    assert_eq!(send("").await.status, 200, "it is not limited");
    assert_eq!(spare.requests(), 4);
}
