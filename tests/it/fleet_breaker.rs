//! One breaker, one probe and one verdict for a fleet of real proxies.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use lb_proto::v1::{self as pb, Health};
use lb_tests::{
    backend::{Action, Backend, ok},
    client::Client,
    cluster::Cluster,
    load::Load,
};
use tonic::Streaming;

use crate::program;

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
    println!("swallowed by the sinkhole over all eight proxies: {swallowed}");
    load.answered(2000).await;
    assert_eq!(bad.requests(), swallowed, "an open breaker lets nothing through");
    // Five, and what the clients could send until the proxies had heard of it.
    assert!(swallowed < 100, "{swallowed} requests were swallowed");
    load.stop().await.assert_flawless();
    let text = cluster.lbctl(&["describe", "backend", &ids[19]]).await.expect(0).stdout;
    assert!(text.contains("breaker") && text.contains("in a row"), "{text}");
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
    let served = partial.requests();
    ask_all(&mut clients[1..], 30).await;
    assert!(partial.requests() > served, "the others go on");
    let text = cluster.lbctl(&["describe", "backend", &ids[2]]).await.expect(0).stdout;
    assert!(text.contains("proxy-1"), "{text}");
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
