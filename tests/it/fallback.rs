//! A pool that has no backend for its requests: another one takes them, or they get an answer
//! that was written down; with the control plane away, too. And a pool of which all that there is
//! fails: the other one takes what may be sent again, and everything once this one is avoided.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use lb_proto::v1::{Health, HealthCheck};
use lb_tests::{
    backend::{Action, Backend, Gate, ok},
    client::{Client, Response, exchange, get},
    cluster::{Cluster, no_checks},
    eventually::eventually,
    exposition::Scrape,
    load::Load,
};
use serde_json::Value;

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

const AVOIDED: &str = "lb_backend_avoided{pool=\"default\",backend=\"own\"}";
const FELL: &str = "lb_pool_fallbacks_total{pool=\"default\",to=\"pool\"}";

/// Pool `default` with one backend, `own`, and one that stands in for it. Breakers stay open for
/// long: nobody is tried while a test looks.
async fn spared(cluster: &Cluster, own: &Backend, spare: &Backend) {
    let run = async |args: &[&str]| drop(cluster.lbctl(args).await.expect(0));
    run(&["add-pool", "spare", "--health", "none"]).await;
    run(&["add-backend", &spare.address().to_string(), "--pool", "spare", "--id", "s1"]).await;
    run(&["add-backend", &own.address().to_string(), "--id", "own"]).await;
    let open = ["--breaker-open", "60s", "--slow-start", "0s"];
    run(&[&["set-pool", "default", "--fallback-pool", "spare"], &open[..]].concat()).await;
}

/// One proxy before two such pools, of which nobody checks the backends.
async fn unchecked(own: &Backend, spare: &Backend, proxy_args: &[&str]) -> Cluster {
    let cluster = Cluster::start_with(program(), 1, proxy_args).await;
    cluster.api.change_pool(no_checks).await;
    spared(&cluster, own, spare).await;
    cluster
}

/// A request with a body on a connection of its own.
async fn send(cluster: &Cluster, method: &str) -> Response {
    let request = format!(
        "{method} / HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbody"
    );
    exchange(cluster.address(), method, request).await.unwrap()
}

async fn avoided(cluster: &Cluster, wanted: f64) {
    eventually("the only backend is avoided, or no more", async || {
        let found = Scrape::of(cluster.proxy(0).admin()).await.value(AVOIDED);
        if found == wanted { Ok(()) } else { Err(found) }
    })
    .await;
}

/// As it is without any setting: checks every five seconds, and breakers as they are.
#[tokio::test]
async fn nobody_notices_that_the_only_backend_is_killed_under_load() {
    let (mut own, spare) = (Backend::saying("own"), Backend::saying("spare"));
    let cluster = Cluster::start(program(), 2).await;
    cluster.api.change_pool(|pool| pool.health_check = Some(HealthCheck::default())).await;
    spared(&cluster, &own, &spare).await;
    drop(cluster.lbctl(&["set-pool", "default", "--breaker-open", "5s"]).await.expect(0));
    cluster.api.verdict("own", Health::Up).await;
    drop(cluster.lbctl(&["wait", "proxies"]).await.expect(0));
    let load = Load::start(&cluster.addresses(), 4);
    load.answered_by("own").await;
    own.stop().await;
    load.answered_by("spare").await;
    load.answered(500).await;
    cluster.api.verdict("own", Health::Down).await;
    own.resume();
    load.answered_by("own").await;
    load.answered(100).await;
    load.stop().await.assert_flawless();
}

/// Nobody checks it, and it is not tried before the test is over: all is by the proxy's own view.
#[tokio::test]
async fn a_pool_that_refuses_connections_is_left_alone_until_one_request_is_answered_there() {
    let (mut own, spare) = (Backend::saying("own"), Backend::saying("spare"));
    let cluster = unchecked(&own, &spare, &[]).await;
    assert_eq!(get(cluster.address(), "/").await.text(), "own");
    own.stop().await;
    // Nothing was written there, so that it holds for every method, and costs no permits.
    for sent in 1..=20 {
        for method in ["GET", "POST"] {
            let answer = send(&cluster, method).await;
            assert_eq!((answer.status, answer.text().as_str()), (200, "spare"), "{method} {sent}");
        }
    }
    assert_eq!(spare.requests(), 40);
    avoided(&cluster, 1.0).await;
    own.resume();
    assert_eq!(send(&cluster, "GET").await.text(), "spare", "it is tried later");
    assert_eq!(own.requests(), 1);
    let scrape = Scrape::of(cluster.proxy(0).admin()).await;
    assert_eq!(scrape.value(FELL), 41.0);

    // With times that are over soon it comes back by itself.
    let run = async |args: &[&str]| drop(cluster.lbctl(args).await.expect(0));
    run(&["set-pool", "default", "--breaker-failures", "0", "--breaker-ratio", "0"]).await;
    avoided(&cluster, 0.0).await;
    run(&["set-pool", "default", "--breaker-failures", "5", "--breaker-open", "100ms"]).await;
    own.stop().await;
    for _ in 0..10 {
        assert_eq!(send(&cluster, "GET").await.text(), "spare");
    }
    own.resume();
    eventually("requests go to the pool's own backend", async || {
        let answer = send(&cluster, "GET").await;
        assert_eq!(answer.status, 200);
        if answer.text() == "own" { Ok(()) } else { Err(answer.text()) }
    })
    .await;
    avoided(&cluster, 0.0).await;
    for _ in 0..5 {
        assert_eq!(send(&cluster, "POST").await.text(), "own");
    }
}

#[tokio::test]
async fn a_pool_that_hangs_costs_a_few_requests_the_time_of_one_attempt_and_no_answer() {
    let hangs = Arc::new(AtomicBool::new(false));
    let is_hanging = Arc::clone(&hangs);
    let own = Backend::scripted(move |_| match is_hanging.load(SeqCst) {
        true => vec![Action::Hang],
        false => vec![Action::ReadBody, Action::Send(ok("own"))],
    });
    let spare = Backend::saying("spare");
    let cluster = unchecked(&own, &spare, &[]).await;
    drop(cluster.lbctl(&["set-pool", "default", "--try-timeout", "300ms"]).await.expect(0));
    assert_eq!(send(&cluster, "GET").await.text(), "own");
    hangs.store(true, SeqCst);
    for _ in 0..5 {
        assert_eq!(send(&cluster, "GET").await.text(), "spare");
    }
    avoided(&cluster, 1.0).await;
    let asked = own.requests();
    for method in ["GET", "POST"].repeat(10) {
        assert_eq!(send(&cluster, method).await.text(), "spare");
    }
    assert_eq!(own.requests(), asked, "it is avoided");
}

/// What may have been delivered goes elsewhere only if it may be sent twice.
#[tokio::test]
async fn what_was_written_goes_to_the_other_pool_only_if_it_may_be_sent_again() {
    let is_answering = Arc::new(AtomicBool::new(false));
    let answers = Arc::clone(&is_answering);
    let own = Backend::scripted(move |_| match answers.load(SeqCst) {
        true => {
            let busy = b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy".to_vec();
            vec![Action::ReadBody, Action::Send(busy)]
        }
        false => vec![Action::ReadBody, Action::Reset],
    });
    let spare = Backend::saying("spare");
    let log = tempfile::tempdir().unwrap();
    let path = log.path().join("access.log");
    let cluster = unchecked(&own, &spare, &[&format!("--access-log={}", path.display())]).await;
    // Nothing is avoided here: each request is to meet the backend.
    let run = async |args: &[&str]| drop(cluster.lbctl(args).await.expect(0));
    run(&["set-pool", "default", "--breaker-failures", "0", "--breaker-ratio", "0"]).await;
    send(&cluster, "POST").await.expect(502, "backend_reset");
    assert_eq!((own.requests(), spare.requests()), (1, 0));
    assert_eq!(send(&cluster, "PUT").await.text(), "spare");
    assert_eq!((own.requests(), spare.requests()), (2, 1));
    assert_eq!(spare.recorded()[0].body, b"body");
    is_answering.store(true, SeqCst);
    assert_eq!(send(&cluster, "POST").await.text(), "busy");
    assert_eq!(send(&cluster, "GET").await.text(), "spare");
    assert_eq!((own.requests(), spare.requests()), (4, 2));

    let lines: Vec<Value> = eventually("four lines", async || {
        let text = fs::read_to_string(&path).unwrap_or_default();
        let lines: Vec<_> = text.lines().map(serde_json::from_str).collect();
        if lines.len() < 4 {
            return Err(text);
        }
        lines.into_iter().collect::<Result<_, _>>().map_err(|error| error.to_string())
    })
    .await;
    let told = |line: &Value| {
        let attempts = line["attempts"].as_array().unwrap();
        let backends: Vec<_> = attempts.iter().map(|one| one["backend"].clone()).collect();
        (line["pool"].clone(), line["reason"].clone(), backends, line["status"].clone())
    };
    let (spare_line, both) = (Value::from("spare"), vec!["own".into(), "s1".into()]);
    let only: Vec<Value> = vec!["own".into()];
    let default = Value::from("default");
    let fell = Value::from("pool_fallback");
    // Each worker writes its own lines, so that they come in any order.
    let of = |method: &'static str| lines.iter().filter(move |line| line["method"] == method);
    let mut posts: Vec<_> = of("POST").map(told).collect();
    posts.sort_by_key(|(.., status)| status.as_u64());
    let reset = (default.clone(), "backend_reset".into(), only.clone(), 502.into());
    assert_eq!(posts, [reset, (default, Value::Null, only, 503.into())]);
    for method in ["PUT", "GET"] {
        let moved = (spare_line.clone(), fell.clone(), both.clone(), 200.into());
        assert_eq!(of(method).map(told).collect::<Vec<_>>(), [moved]);
    }
    let scrape = Scrape::of(cluster.proxy(0).admin()).await;
    for (series, count) in [
        ("lb_backend_attempts_total{pool=\"default\",backend=\"own\",result=\"reset\"}", 2.0),
        ("lb_backend_attempts_total{pool=\"default\",backend=\"own\",result=\"status_5xx\"}", 2.0),
        ("lb_backend_attempts_total{pool=\"spare\",backend=\"s1\",result=\"success\"}", 2.0),
        ("lb_retries_total{reason=\"backend_reset\"}", 1.0),
        ("lb_retries_total{reason=\"backend_status\"}", 1.0),
        (FELL, 2.0),
    ] {
        assert_eq!(scrape.value(series), count, "{series}");
    }
}

/// A client whose session is strict has no other backend, and one whose session is not keeps it.
#[tokio::test]
async fn sessions_outlast_the_other_pool_and_strict_ones_do_not_go_there() {
    let (mut own, spare) = (Backend::saying("own"), Backend::saying("spare"));
    let cluster = unchecked(&own, &spare, &[]).await;
    let run = async |args: &[&str]| drop(cluster.lbctl(args).await.expect(0));
    run(&["set-pool", "default", "--sticky", "cookie"]).await;
    let first = get(cluster.address(), "/").await;
    let cookie = first.field("Set-Cookie").unwrap().split(';').next().unwrap().to_owned();
    let mut client = Client::connect(cluster.address()).await;
    let mut ask = async || {
        client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: {cookie}\r\n\r\n")).await;
        client.response().await
    };
    own.stop().await;
    let met = ask().await;
    assert_eq!((met.text().as_str(), met.field("Set-Cookie")), ("spare", None));
    run(&["set-pool", "default", "--session-strict", "true"]).await;
    for _ in 0..8 {
        ask().await.expect(502, "backend_connect_refused");
        assert_eq!(send(&cluster, "GET").await.text(), "spare", "it has no session");
    }
    own.resume();
    // It was not avoided: nobody else could have served these clients.
    let met = ask().await;
    assert_eq!((met.text().as_str(), met.field("Set-Cookie")), ("own", None));
}

/// What the other pool's limits and retries say holds for what comes to it in the middle, and the
/// way is one step long.
#[tokio::test]
async fn the_other_pool_takes_it_as_its_own_and_hands_it_to_nobody() {
    let (mut own, mut spare) = (Backend::saying("own"), Backend::saying("spare"));
    let cluster = unchecked(&own, &spare, &[]).await;
    let run = async |args: &[&str]| drop(cluster.lbctl(args).await.expect(0));
    for pool in ["default", "spare"] {
        run(&["set-pool", pool, "--breaker-failures", "0", "--breaker-ratio", "0"]).await;
    }
    let third = Backend::saying("third");
    run(&["add-pool", "third", "--health", "none"]).await;
    run(&["add-backend", &third.address().to_string(), "--pool", "third"]).await;
    run(&["set-pool", "spare", "--fallback-pool", "third"]).await;
    let rate = ["--rate", "1/h", "--burst", "2", "--scope", "proxy", "--pool", "spare"];
    run(&[&["add-limit", "few"][..], &rate].concat()).await;
    own.stop().await;
    for _ in 0..2 {
        assert_eq!(send(&cluster, "POST").await.text(), "spare");
    }
    let refused = send(&cluster, "POST").await;
    refused.expect(502, "backend_connect_refused");
    assert_eq!(spare.requests(), 2);
    run(&["remove-limit", "few"]).await;

    // A pool of its own kind still goes round its own backends first.
    let second = Backend::saying("second");
    let address = second.address().to_string();
    run(&["add-backend", &address, "--pool", "spare", "--id", "s2"]).await;
    spare.stop().await;
    for _ in 0..4 {
        assert_eq!(send(&cluster, "POST").await.text(), "second");
    }
    run(&["disable-backend", "s2"]).await;
    let refused = send(&cluster, "GET").await;
    refused.expect(502, "backend_connect_refused");
    assert!(refused.text().contains("s1"), "the last one that was asked: {}", refused.text());
    assert_eq!(third.requests(), 0);
}
