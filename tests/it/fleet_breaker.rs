//! One breaker, one probe and one verdict for a fleet of real proxies.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use lb_proto::v1::{self as pb, Health, object::Object as Any};
use lb_tests::{
    backend::{Action, Backend, ok},
    client::{Client, exchange},
    cluster::Cluster,
    eventually::eventually,
    exposition::Scrape,
    load::Load,
    scene,
};
use tonic::Streaming;

use crate::program;

const GET: &str = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";
const UNWELL: &[u8] = b"HTTP/1.1 503 Unwell\r\nContent-Length: 0\r\n\r\n";

/// Answers 503 at once while it fails, and else `recovered`; its checks pass all the time.
fn sinkhole() -> (Backend, Arc<AtomicBool>) {
    let failing = Arc::new(AtomicBool::new(true));
    let fails = Arc::clone(&failing);
    let answer = move || if fails.load(SeqCst) { UNWELL.to_vec() } else { ok("recovered") };
    (Backend::scripted(move |_| vec![Action::ReadBody, Action::Send(answer())]), failing)
}

async fn event(events: &mut Streaming<pb::Event>, wanted: &str, name: &str) -> pb::Event {
    loop {
        let event = events.message().await.unwrap().expect("events go on");
        if event.r#type == wanted && event.name == name {
            return event;
        }
    }
}

async fn breaker(cluster: &Cluster, open_ms: u32) {
    let set = |pool: &mut pb::Pool| {
        pool.algorithm = "least_connections".to_owned();
        pool.breaker = Some(pb::Breaker { open_ms, ..pb::Breaker::default() });
    };
    cluster.api.change_pool(set).await;
}

#[tokio::test]
async fn a_sinkhole_costs_a_fleet_of_eight_little_and_then_nothing() {
    let well: Vec<Backend> = (0..19).map(|_| Backend::saying("well")).collect();
    let (bad, _) = sinkhole();
    let cluster = Cluster::start(program(), 8).await;
    breaker(&cluster, 60_000).await;
    let mut addresses: Vec<_> = well.iter().map(Backend::address).collect();
    addresses.push(bad.address());
    let ids = cluster.add_backends(&addresses).await;
    let mut events = cluster.api.watch(0).await;
    let load = Load::start(&cluster.addresses(), 2);
    let opened = event(&mut events, "breaker_opened", &ids[19]).await;
    assert_eq!(opened.reason.unwrap().code, "breaker_consecutive_failures");
    cluster.settled().await;
    let swallowed = bad.requests();
    let asked = "GET /lb/health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let health = exchange(cluster.http(), "GET", asked).await.unwrap().text();
    assert!(health.contains("\"serving_backends\":19"), "{health}");
    println!("swallowed by the sinkhole over all eight proxies: {swallowed}");
    load.answered(2000).await;
    assert_eq!(bad.requests(), swallowed, "an open breaker lets nothing through");
    // Five, and what the clients could send until the proxies had heard of it.
    assert!(swallowed < 100, "{swallowed} requests were swallowed");
    load.stop().await.assert_flawless();
    let text = cluster.lbctl(&["describe", "backend", &ids[19]]).await.expect(0).stdout;
    assert!(text.contains("breaker") && text.contains("in a row"), "{text}");
    let scrape = Scrape::of(cluster.http()).await;
    let of_bad = |name: &str, more: &str| {
        scrape.value(&format!("{name}{{pool=\"default\",backend=\"{}\"{more}}}", ids[19]))
    };
    assert_eq!(of_bad("lb_breaker_state", ",state=\"open\""), 1.0);
    assert_eq!(of_bad("lb_breaker_state", ",state=\"closed\""), 0.0);
    assert_eq!(of_bad("lb_backend_state", ",state=\"ejected\""), 1.0);
    assert_eq!(of_bad("lb_backend_weight_effective", ""), 0.0);
    assert_eq!(of_bad("lb_backend_up", ""), 0.0);
    let opened = "lb_breaker_transitions_total{pool=\"default\",from=\"closed\",to=\"open\",\
                  reason=\"breaker_consecutive_failures\"}";
    assert_eq!(scrape.value(opened), 1.0);
    assert_eq!(scrape.value("lb_backends{pool=\"default\",state=\"up\"}"), 19.0);
    assert_eq!(scrape.value("lb_backends{pool=\"default\",state=\"ejected\"}"), 1.0);
}

#[tokio::test]
async fn one_request_of_the_fleet_at_a_time_tries_a_backend_until_it_is_well() {
    let well = [Backend::saying("well"), Backend::saying("well")];
    let (bad, failing) = sinkhole();
    let cluster = Cluster::start(program(), 4).await;
    breaker(&cluster, 300).await;
    let ids = cluster.add_backends(&[well[0].address(), well[1].address(), bad.address()]).await;
    let mut events = cluster.api.watch(0).await;
    let load = Load::start(&cluster.addresses(), 2);
    event(&mut events, "breaker_opened", &ids[2]).await;
    cluster.settled().await;
    let before = bad.requests();
    event(&mut events, "breaker_half_opened", &ids[2]).await;
    let again = event(&mut events, "breaker_opened", &ids[2]).await;
    assert_eq!(again.reason.unwrap().code, "breaker_probe_failed");
    let probes = bad.requests() - before;
    assert_eq!(probes, 1, "one failed probe opens it again");
    failing.store(false, SeqCst);
    event(&mut events, "breaker_closed", &ids[2]).await;
    load.answered_by("recovered").await;
    load.stop().await.assert_flawless();
}

#[tokio::test]
async fn a_client_that_never_ends_its_body_keeps_nobody_from_trying_a_backend() {
    let well = [Backend::saying("well"), Backend::saying("well")];
    let (bad, failing) = sinkhole();
    let cluster = Cluster::start(program(), 1).await;
    breaker(&cluster, 300).await;
    let ids = cluster.add_backends(&[well[0].address(), well[1].address(), bad.address()]).await;
    let mut events = cluster.api.watch(0).await;
    let load = Load::start(&cluster.addresses(), 1);
    event(&mut events, "breaker_opened", &ids[2]).await;
    failing.store(false, SeqCst);
    // From now on all others that come are uploads which do not end.
    load.stop().await.assert_flawless();
    event(&mut events, "breaker_half_opened", &ids[2]).await;
    let before = bad.requests();
    let mut dripping = VecDeque::new();
    // For want of others, one of them tries it in the end.
    while bad.requests() == before {
        let asked = well[0].requests() + well[1].requests();
        let mut client = Client::connect(cluster.address()).await;
        client.send("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 99\r\n\r\nbegun").await;
        dripping.push_back(client);
        while bad.requests() == before && well[0].requests() + well[1].requests() == asked {
            tokio::task::yield_now().await;
        }
        if dripping.len() > 100 {
            dripping.pop_front();
        }
    }
    // It does not end, and the next one may try all the same.
    let load = Load::start(&cluster.addresses(), 1);
    load.answered_by("recovered").await;
    event(&mut events, "breaker_closed", &ids[2]).await;
    load.stop().await.assert_flawless();
}

#[tokio::test]
async fn a_killed_control_plane_leaves_breakers_as_they_are_and_finds_them_so() {
    let well = [Backend::saying("well"), Backend::saying("well")];
    let (bad, failing) = sinkhole();
    let mut cluster = Cluster::start(program(), 3).await;
    breaker(&cluster, 60_000).await;
    let ids = cluster.add_backends(&[well[0].address(), well[1].address(), bad.address()]).await;
    let mut events = cluster.api.watch(0).await;
    let load = Load::start(&cluster.addresses(), 2);
    event(&mut events, "breaker_opened", &ids[2]).await;
    cluster.settled().await;
    let swallowed = bad.requests();
    cluster.kill_control_plane().await;
    load.answered(300).await;
    assert_eq!(bad.requests(), swallowed, "the proxies go on by what they know");
    failing.store(false, SeqCst);
    cluster.start_control_plane().await;
    let view = cluster.api.backend(&ids[2]).await;
    assert!(view.status.unwrap().ejection.is_some(), "a restart forgets nothing");
    // Once its proxies have reported, or are lost, it is tried and found well.
    load.answered_by("recovered").await;
    load.stop().await.assert_flawless();
}

/// Sends GETs to all proxies in turn, those to the first one marked.
async fn ask_all(clients: &mut [Client], rounds: usize) {
    for _ in 0..rounds {
        for (number, client) in clients.iter_mut().enumerate() {
            let mark = if number == 0 { "X-First: yes\r\n" } else { "" };
            client.send(&format!("GET / HTTP/1.1\r\nHost: test\r\n{mark}\r\n")).await;
            assert_eq!(client.response().await.status, 200);
        }
    }
}

#[tokio::test]
async fn a_backend_that_one_proxy_cannot_reach_stays_up_for_the_others() {
    let well = [Backend::saying("well"), Backend::saying("well")];
    let partial = Backend::scripted(|request| match request.field("X-First") {
        Some(_) => vec![Action::Reset],
        None => vec![Action::Send(ok("partial"))],
    });
    let cluster = Cluster::start(program(), 4).await;
    let addresses = [well[0].address(), well[1].address(), partial.address()];
    let ids = cluster.add_backends(&addresses).await;
    let mut events = cluster.api.watch(0).await;
    let mut clients = Vec::new();
    for address in cluster.addresses() {
        clients.push(Client::connect(address).await);
    }
    let told = async { event(&mut events, "views_differ", &ids[2]).await };
    let asked = async {
        loop {
            ask_all(&mut clients, 10).await;
        }
    };
    let told = tokio::select! { told = told => told, () = asked => unreachable!() };
    let reason = told.reason.unwrap();
    assert_eq!(reason.code, "unreachable_from_proxy");
    assert!(reason.message.contains("proxy-1"), "{reason:?}");
    let status = cluster.api.backend(&ids[2]).await.status.unwrap();
    assert_eq!((status.health(), status.ejection), (Health::Up, None));
    let text = eventually("it is told who avoids it", async || {
        ask_all(&mut clients, 10).await;
        let text = cluster.lbctl(&["describe", "backend", &ids[2]]).await.expect(0).stdout;
        let mut avoids = text.lines().filter(|line| line.starts_with("  avoided by"));
        let told = avoids.any(|line| line.contains(" proxy-1: "));
        if told { Ok(text) } else { Err(text) }
    })
    .await;
    assert!(text.contains("by proxy-1: its requests"), "{text}");
    let wide = cluster.lbctl(&["get", "backends", "-o", "wide"]).await.expect(0).stdout;
    let avoided = |id: &str| {
        let line = wide.lines().find(|line| line.starts_with(id)).unwrap();
        line.contains("proxy-1")
    };
    assert!(wide.contains("AVOIDED BY") && avoided(&ids[2]) && !avoided(&ids[0]), "{wide}");
    let status = cluster.lbctl(&["status"]).await.expect(0).stdout;
    assert!(status.contains("avoided by proxy-1"), "{status}");
    let served = partial.requests();
    for _ in 0..30 {
        for client in &mut clients[1..] {
            client.send(GET).await;
            assert_eq!(client.response().await.status, 200);
        }
    }
    assert!(partial.requests() > served, "the others go on");
}

#[tokio::test]
async fn a_prober_that_is_cut_off_empties_no_pool_without_traffic() {
    let cut_off = Arc::new(AtomicBool::new(false));
    let servers: Vec<Backend> = (0..4)
        .map(|_| {
            let is_cut_off = Arc::clone(&cut_off);
            Backend::scripted(move |request| match request.path() {
                "/checked" if is_cut_off.load(SeqCst) => vec![Action::Reset],
                _ => vec![Action::Send(ok("served"))],
            })
        })
        .collect();
    let cluster = Cluster::start(program(), 1).await;
    let checked = |pool: &mut pb::Pool| {
        let check = pool.health_check.get_or_insert_default();
        check.path = "/checked".to_owned();
        // Long enough for the proxies to report what they see, on a busy machine too.
        (check.interval_ms, check.edge_interval_ms) = (1000, 1000);
    };
    cluster.api.change_pool(checked).await;
    // Two of the servers are in both pools, two in the quiet one alone.
    let mut quiet = pb::Pool { name: "quiet".to_owned(), ..scene::pool("round_robin") };
    checked(&mut quiet);
    cluster.api.put_applied(Any::Pool(quiet)).await;
    cluster.add_backends(&[servers[0].address(), servers[1].address()]).await;
    let ids = ["q1", "q2", "q3", "q4"];
    for (id, server) in ids.iter().zip(&servers) {
        let backend = pb::Backend {
            id: (*id).to_owned(),
            pool: "quiet".to_owned(),
            address: server.address().to_string(),
            weight: Some(1),
            ..pb::Backend::default()
        };
        cluster.api.put_applied(Any::Backend(backend)).await;
        cluster.api.verdict(id, Health::Up).await;
    }
    let load = Load::start(&cluster.addresses(), 2);
    load.answered(10).await;
    cut_off.store(true, SeqCst);
    // The other two, of which nobody sees anything, may fall before anybody contradicts.
    for id in &ids[..2] {
        eventually("the check is contradicted", async || {
            let status = cluster.api.backend(id).await.status.unwrap();
            let reason = status.reason.clone().unwrap_or_default();
            if reason.code == "check_contradicted" { Ok(()) } else { Err(format!("{status:?}")) }
        })
        .await;
        let status = cluster.api.backend(id).await.status.unwrap();
        assert_eq!(status.health(), Health::Up, "{id}");
    }
    load.stop().await.assert_flawless();
}

#[tokio::test]
async fn a_backend_that_only_the_checks_cannot_reach_stays_in() {
    let cut_off = Arc::new(AtomicBool::new(false));
    let is_cut_off = Arc::clone(&cut_off);
    let served = Backend::scripted(move |request| match request.path() {
        "/checked" if is_cut_off.load(SeqCst) => vec![Action::Reset],
        "/checked" => vec![Action::Send(ok("well"))],
        _ => vec![Action::Send(ok("served"))],
    });
    let other = Backend::scripted(|_| vec![Action::Send(ok("other"))]);
    let cluster = Cluster::start(program(), 3).await;
    let set = |pool: &mut pb::Pool| {
        let check = pool.health_check.get_or_insert_default();
        check.path = "/checked".to_owned();
        // Long enough for the proxies to report what they see, on a busy machine too.
        (check.interval_ms, check.edge_interval_ms) = (1000, 1000);
    };
    cluster.api.change_pool(set).await;
    let ids = cluster.add_backends(&[served.address(), other.address()]).await;
    let mut events = cluster.api.watch(0).await;
    let load = Load::start(&cluster.addresses(), 1);
    load.answered_by("served").await;
    cut_off.store(true, SeqCst);
    let told = event(&mut events, "views_differ", &ids[0]).await;
    assert_eq!(told.reason.unwrap().code, "check_failing");
    let status = cluster.api.backend(&ids[0]).await.status.unwrap();
    assert_eq!(status.health(), Health::Up);
    assert_eq!(status.reason.unwrap().code, "check_contradicted");
    load.answered_by("served").await;
    cut_off.store(false, SeqCst);
    event(&mut events, "views_agree", &ids[0]).await;
    load.stop().await.assert_flawless();
}
