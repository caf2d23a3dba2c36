//! Retries as a pool's policy has them: which responses are given up for another backend's,
//! how long an attempt may take, and what a budget is worth when everything fails.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use lb_proto::v1::{self as pb, Retries};
use lb_tests::{
    backend::{Action, Backend, Gate, ok},
    client::{Client, exchange, get},
    cluster::{Cluster, no_checks},
    eventually::eventually,
    exposition::Scrape,
    load::Load,
};
use tokio::{task::JoinSet, time::Instant};

use crate::{one_proxy, program};

const POST: &str =
    "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbody";

/// A whole response with this status and body.
fn says(status: u16, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status} Unwell\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into()
}

fn failing(status: u16, body: &'static str) -> Backend {
    Backend::scripted(move |_| vec![Action::ReadBody, Action::Send(says(status, body))])
}

fn hanging() -> Backend {
    Backend::scripted(|_| vec![Action::ReadBody, Action::Hang])
}

fn delivered<'b>(backends: impl IntoIterator<Item = &'b Backend>) -> usize {
    backends.into_iter().map(Backend::requests).sum()
}

/// Only retries are looked at here: nothing else keeps requests from a backend that fails.
fn nothing_ejects(pool: &mut pb::Pool) {
    pool.breaker = Some(pb::Breaker {
        consecutive_failures: Some(0),
        failure_ratio_percent: Some(0),
        ..pb::Breaker::default()
    });
    pool.outlier_detection =
        Some(pb::OutlierDetection { enabled: Some(false), ..pb::OutlierDetection::default() });
}

/// One proxy before these backends, with these retries.
async fn retrying(backends: &[&Backend], retries: Retries) -> Cluster {
    let cluster = one_proxy(backends).await;
    let change = |pool: &mut pb::Pool| {
        nothing_ejects(pool);
        pool.retries = Some(retries);
    };
    cluster.api.change_pool(change).await;
    cluster
}

fn retries(retries: u32) -> Retries {
    Retries { retries: Some(retries), ..Retries::default() }
}

#[tokio::test]
async fn an_unwell_answer_is_given_up_for_another_backends() {
    let unwell = Backend::scripted(|request| {
        let status = request.path()[1..].parse().unwrap();
        vec![Action::ReadBody, Action::Send(says(status, "unwell"))]
    });
    let well = Backend::saying("well");
    let cluster = retrying(&[&unwell, &well], Retries::default()).await;
    for status in [502, 503, 504] {
        for _ in 0..6 {
            let path = format!("/{status}");
            assert_eq!(get(cluster.address(), &path).await.text(), "well", "{status}");
        }
    }
    // A request that moves on takes nobody's turn.
    assert_eq!((unwell.requests(), well.requests()), (9, 18));
    let scrape = Scrape::of(cluster.proxy(0).admin()).await;
    assert_eq!(scrape.value("lb_retries_total{reason=\"backend_status\"}"), 9.0);
    let ratio = scrape.value("lb_retry_budget_remaining_ratio{pool=\"default\"}");
    assert!((0.8..1.0).contains(&ratio), "{ratio}");
    // Any other answer is the client's, whatever it says.
    for status in ["500", "501", "505", "404"] {
        let path = format!("/{status}");
        let told = [get(cluster.address(), &path).await, get(cluster.address(), &path).await];
        assert_eq!(told.iter().filter(|told| told.text() == "unwell").count(), 1, "{status}");
    }
}

/// Three attempts are one request, and its client is told once to send the body.
#[tokio::test]
async fn a_retry_does_not_say_100_continue_again() {
    let early = || Backend::scripted(|_| vec![Action::Send(says(503, "early")), Action::Close]);
    let backends = [early(), early(), early()];
    let cluster = retrying(&backends.each_ref(), retries(2)).await;
    let mut client = Client::connect(cluster.address()).await;
    client
        .send("PUT / HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
        .await;
    let statuses = [client.response().await.status, client.response().await.status];
    assert_eq!(statuses, [100, 503]);
    assert_eq!(delivered(&backends), 3);
}

#[tokio::test]
async fn an_answer_that_cannot_be_given_up_is_passed_on_as_it_is() {
    let backends = [503, 503, 503].map(|status| failing(status, "from the backend"));
    let cluster = retrying(&backends.each_ref(), Retries::default()).await;
    let passed_on = |response: lb_tests::client::Response| {
        assert_eq!((response.status, response.text().as_str()), (503, "from the backend"));
    };
    for sent in 1..=4 {
        passed_on(get(cluster.address(), "/").await);
        assert_eq!(delivered(&backends), 2 * sent, "one retry each");
    }
    // What must not be done twice is sent once.
    for sent in 1..=4 {
        passed_on(exchange(cluster.address(), "POST", POST).await.unwrap());
        assert_eq!(delivered(&backends), 8 + sent);
    }
    // With more retries than backends, each is asked once.
    cluster.api.change_pool(|pool| pool.retries = Some(retries(10))).await;
    passed_on(get(cluster.address(), "/").await);
    assert_eq!(delivered(&backends), 12 + 3);
    cluster.api.change_pool(|pool| pool.retries = Some(retries(0))).await;
    passed_on(get(cluster.address(), "/").await);
    assert_eq!(delivered(&backends), 15 + 1);
    let scrape = Scrape::of(cluster.proxy(0).admin()).await;
    assert_eq!(scrape.value("lb_retries_refused_total{reason=\"retries_exhausted\"}"), 4.0);
}

#[tokio::test]
async fn the_connection_of_an_answer_that_was_given_up_is_used_again_only_if_it_is_clean() {
    let part = "HTTP/1.1 503 Unwell\r\nContent-Length: 60\r\n\r\nHTTP/1.1 200 OK\r\n\r\n";
    let unwell = Backend::scripted(move |request| match request.path() {
        "/whole" => vec![Action::ReadBody, Action::Send(says(503, "all of it"))],
        _ => vec![Action::ReadBody, Action::Send(part.into())],
    });
    let well = Backend::saying("well");
    let cluster = retrying(&[&unwell, &well], Retries::default()).await;
    // One client stays with one worker, which has its own connections.
    let mut client = Client::connect(cluster.address()).await;
    for (path, requests, connections) in [("/whole", 4, 1), ("/part", 8, 4)] {
        for _ in 0..8 {
            client.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n")).await;
            assert_eq!(client.response().await.text(), "well", "{path}");
        }
        assert_eq!((unwell.requests(), unwell.connections()), (requests, connections), "{path}");
    }
}

#[tokio::test]
async fn a_backend_that_begins_to_reset_everything_costs_no_get() {
    let resets = Backend::scripted(|request| match (request.connection, request.number) {
        (1, 1) => vec![Action::ReadBody, Action::Send(ok("once"))],
        _ => vec![Action::ReadBody, Action::Reset],
    });
    let well = Backend::saying("well");
    let cluster = retrying(&[&resets, &well], Retries::default()).await;
    let mut client = Client::connect(cluster.address()).await;
    let mut bodies = Vec::new();
    for _ in 0..8 {
        client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
        bodies.push(client.response().await.text());
    }
    assert_eq!(bodies.iter().filter(|body| *body == "well").count(), 7, "{bodies:?}");
    // Four times its turn: a kept connection that ends is a reason to ask the other one.
    assert_eq!(resets.requests(), 4);
}

#[tokio::test]
async fn a_request_that_kills_whoever_takes_it_reaches_as_many_backends_as_it_has_attempts() {
    let mortal = || {
        Backend::scripted(|request| match request.path() {
            "/kill" => vec![Action::ReadBody, Action::Reset],
            _ => vec![Action::ReadBody, Action::Send(ok("alive"))],
        })
    };
    let backends = [mortal(), mortal(), mortal()];
    let cluster = retrying(&backends.each_ref(), Retries::default()).await;
    let mut client = Client::connect(cluster.address()).await;
    let sum = || backends.iter().map(Backend::requests).sum::<usize>();
    for round in 1..=4 {
        // Each has a connection that is kept.
        for _ in 0..3 {
            client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
            assert_eq!(client.response().await.text(), "alive");
        }
        let before = sum();
        client.send("GET /kill HTTP/1.1\r\nHost: test\r\n\r\n").await;
        assert_eq!(client.response().await.status, 502);
        assert_eq!(sum() - before, 2, "round {round}");
    }
    // With one backend it is asked twice, and no more.
    let alone = mortal();
    let cluster = retrying(&[&alone], Retries::default()).await;
    let mut client = Client::connect(cluster.address()).await;
    for (path, status) in [("/", 200), ("/kill", 502)] {
        client.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n")).await;
        assert_eq!(client.response().await.status, status);
    }
    assert_eq!(alone.requests(), 3);
}

#[tokio::test]
async fn one_of_three_that_hangs_fails_no_get_when_attempts_have_their_time() {
    let (hangs, a, b) = (hanging(), Backend::saying("a"), Backend::saying("b"));
    let own = Retries { try_timeout_ms: 200, ..Retries::default() };
    let cluster = retrying(&[&hangs, &a, &b], own).await;
    let load = Load::start(&cluster.addresses(), 2);
    hangs.reached(8).await;
    load.answered(4).await;
    load.stop().await.assert_flawless();
    let scrape = Scrape::of(cluster.proxy(0).admin()).await;
    assert!(scrape.value("lb_retries_total{reason=\"backend_timeout\"}") >= 6.0);
}

#[tokio::test]
async fn an_attempt_that_nothing_can_follow_has_all_the_time_of_its_request() {
    let slow = || {
        Backend::scripted(|_| {
            let pause = Action::Pause(Duration::from_millis(500));
            vec![Action::ReadBody, pause, Action::Send(ok("late"))]
        })
    };
    let own = Retries { try_timeout_ms: 100, ..Retries::default() };
    let only = slow();
    let cluster = retrying(&[&only], own).await;
    assert_eq!(get(cluster.address(), "/").await.text(), "late");
    let (first, second) = (slow(), slow());
    let cluster = retrying(&[&first, &second], own).await;
    // The last one that may be asked is waited for.
    assert_eq!(get(cluster.address(), "/").await.text(), "late");
    assert_eq!(delivered([&first, &second]), 2);
    assert_eq!(exchange(cluster.address(), "POST", POST).await.unwrap().text(), "late");
    assert_eq!(delivered([&first, &second]), 3);
    // Nor is anybody left without a permit for going elsewhere.
    let broke = Retries { budget_percent: Some(0), budget_floor: Some(0), ..own };
    cluster.api.change_pool(|pool| pool.retries = Some(broke)).await;
    eventually("the budget is empty", async || {
        let scrape = Scrape::of(cluster.proxy(0).admin()).await;
        match scrape.value("lb_retry_budget_remaining_ratio{pool=\"default\"}") {
            0.0 => Ok(()),
            other => Err(other),
        }
    })
    .await;
    assert_eq!(get(cluster.address(), "/").await.text(), "late");
    assert_eq!(delivered([&first, &second]), 4);
}

#[tokio::test]
async fn what_a_client_takes_to_send_is_not_taken_from_the_attempts() {
    let (hangs, answers) = (hanging(), Backend::saying("a"));
    let own = Retries { try_timeout_ms: 200, ..Retries::default() };
    let cluster = retrying(&[&hangs, &answers], own).await;
    cluster.api.change_pool(|pool| pool.request_timeout_ms = 600).await;
    // One of two comes upon the backend that hangs first.
    for _ in 0..2 {
        let mut client = Client::connect(cluster.address()).await;
        client.send("PUT / HTTP/1.1\r\nHost: test\r\nContent-Length: 8\r\n\r\n").await;
        client.drip("xxxxxxxx", Duration::from_millis(100)).await;
        assert_eq!(client.response().await.text(), "a");
    }
    assert_eq!(hangs.requests(), 1);
}

#[tokio::test]
async fn a_retry_does_not_go_where_nothing_new_may_go_by_now() {
    let gate = Gate::default();
    let held = gate.clone();
    let fails = Backend::scripted(move |_| vec![Action::Await(held.clone()), Action::Reset]);
    let drained = Backend::saying("drained");
    let cluster = one_proxy(&[]).await;
    let ids = cluster.add_backends(&[fails.address(), drained.address()]).await;
    let mut clients = Vec::new();
    for _ in 0..2 {
        let mut client = Client::connect(cluster.address()).await;
        client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
        clients.push(client);
    }
    fails.reached(1).await;
    drained.reached(1).await;
    drop(cluster.lbctl(&["drain-backend", &ids[1], "--wait"]).await.expect(0));
    gate.open();
    let mut failed = 0;
    for client in &mut clients {
        failed += usize::from(client.response().await.status == 502);
    }
    assert_eq!((failed, drained.requests()), (1, 1));
}

#[tokio::test]
async fn all_attempts_together_have_the_time_of_one_request() {
    let backends = [(); 3].map(|()| hanging());
    let own = Retries { try_timeout_ms: 700, ..Retries::default() };
    let cluster = retrying(&backends.each_ref(), own).await;
    cluster.api.change_pool(|pool| pool.request_timeout_ms = 1000).await;
    let put = POST.replace("POST", "PUT");
    for (sent, request) in [(2, "GET / HTTP/1.1\r\nHost: test\r\n\r\n"), (4, &put), (5, POST)] {
        let began = Instant::now();
        let response = exchange(cluster.address(), "GET", request).await.unwrap();
        response.expect(504, "backend_timeout");
        let took = began.elapsed();
        let right = Duration::from_millis(940)..Duration::from_millis(1600);
        assert!(right.contains(&took), "{took:?} for {request}");
        assert_eq!(delivered(&backends), sent, "{request}");
    }
}

#[tokio::test]
async fn no_wait_outlasts_the_request() {
    let backends: Vec<Backend> = (0..11).map(|_| failing(503, "from the backend")).collect();
    let cluster = retrying(&backends.iter().collect::<Vec<_>>(), retries(10)).await;
    cluster.api.change_pool(|pool| pool.request_timeout_ms = 150).await;
    let began = Instant::now();
    let response = get(cluster.address(), "/").await;
    assert_eq!((response.status, response.text().as_str()), (503, "from the backend"));
    println!("{} attempts in {:?}", delivered(&backends), began.elapsed());
    // Ten waits are more than a second in the mean.
    assert!((2..=10).contains(&delivered(&backends)));
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_retries_along() {
    let (asked, sixth) = (Arc::new(AtomicUsize::new(0)), Gate::default());
    let backends: Vec<Backend> = (0..11)
        .map(|_| {
            let (asked, sixth) = (Arc::clone(&asked), sixth.clone());
            Backend::scripted(move |_| {
                if asked.fetch_add(1, Ordering::SeqCst) + 1 == 6 {
                    sixth.open();
                }
                vec![Action::Send(says(503, ""))]
            })
        })
        .collect();
    let cluster = retrying(&backends.iter().collect::<Vec<_>>(), retries(10)).await;
    let mut client = Client::connect(cluster.address()).await;
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
    sixth.opened().await;
    client.into_stream().set_zero_linger().unwrap();
    eventually("the client is noticed to be gone", async || {
        let scrape = Scrape::of(cluster.proxy(0).admin()).await;
        let aborts = scrape.value("lb_client_aborts_total");
        let in_flight = scrape.value("lb_upstream_in_flight{pool=\"default\"}");
        let told = format!("{aborts} aborts, {in_flight} in flight");
        if (aborts, in_flight) == (1.0, 0.0) { Ok(()) } else { Err(told) }
    })
    .await;
    assert!(delivered(&backends) < 11, "{}", delivered(&backends));
}

/// Clients that ask each proxy this often, on connections that are kept.
async fn ask_all(proxies: &[SocketAddr], requests_each: usize) {
    const CLIENTS: usize = 4;
    let mut clients = JoinSet::new();
    for &address in proxies.iter().flat_map(|address| [address; CLIENTS]) {
        clients.spawn(async move {
            let mut client = Client::connect(address).await;
            for _ in 0..requests_each / CLIENTS {
                client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
                assert_eq!(client.response().await.status, 503);
            }
        });
    }
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
    }
}

/// With every backend failing, counts what reaches them above what clients sent. The control
/// plane may die in the middle of it.
async fn outage(proxies: usize, control_plane_dies: bool) {
    const EACH: usize = 400;
    let backends = [(); 3].map(|()| failing(503, ""));
    let mut cluster = Cluster::start(program(), proxies).await;
    cluster.api.change_pool(no_checks).await;
    cluster.api.change_pool(nothing_ejects).await;
    cluster.add_backends(&backends.each_ref().map(Backend::address)).await;
    let (began, addresses) = (Instant::now(), cluster.addresses());
    let dies = async {
        if control_plane_dies {
            backends[0].reached(EACH * proxies / 6).await;
            cluster.kill_control_plane().await;
        }
    };
    tokio::join!(ask_all(&addresses, EACH), dies);
    let took = began.elapsed();
    let requests = EACH * proxies;
    let extra = delivered(&backends) - requests;
    // A share of all, and the floor for the ten seconds before and all since.
    let bound = 0.2 * requests as f64 + 10.0 * (10.0 + took.as_secs_f64());
    println!("{proxies} proxies: {extra} retries of {requests} requests, bound {bound} ({took:?})");
    assert!(extra as f64 <= bound, "{extra} retries, and {bound} are allowed");
    assert!(extra >= 60, "{extra} retries: the floor alone is worth more");
    let mut refused = 0.0;
    for index in 0..proxies {
        let scrape = Scrape::of(cluster.proxy(index).admin()).await;
        refused += scrape.value("lb_retries_refused_total{reason=\"retry_budget_exhausted\"}");
    }
    assert_eq!(refused, (requests - extra) as f64);
}

#[tokio::test]
async fn an_outage_behind_one_proxy_is_not_made_worse_than_the_budget_allows() {
    outage(1, false).await;
}

#[tokio::test]
async fn an_outage_behind_three_proxies_is_not_made_worse_than_the_budget_allows() {
    outage(3, false).await;
}

#[tokio::test]
async fn an_outage_behind_eight_proxies_is_not_made_worse_than_the_budget_allows() {
    outage(8, false).await;
}

#[tokio::test]
async fn an_outage_whose_control_plane_dies_is_made_no_worse() {
    outage(8, true).await;
}
