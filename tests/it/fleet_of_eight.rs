//! What a fleet of eight does about failing backends when its control plane is killed in the
//! middle of it, and how long its clients wait. Times are printed; what is counted is held.

use std::{
    net::SocketAddr,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use lb_proto::v1::{self as pb, Health};
use lb_tests::{
    backend::{Action, Backend, Gate, ok},
    client::{Client, get},
    cluster::{Cluster, no_checks},
    eventually::eventually,
    load::Load,
    port::{BlackHole, Port},
};
use tokio::time::Instant;
use tonic::Streaming;

use crate::program;

const PROXIES: usize = 8;
const UNWELL: &[u8] = b"HTTP/1.1 503 Unwell\r\nContent-Length: 0\r\n\r\n";

fn is_full() -> bool {
    std::env::var("LB_TEST_SCALE").is_ok_and(|scale| scale == "full")
}

async fn event(events: &mut Streaming<pb::Event>, wanted: &str, name: &str) {
    loop {
        let event = events.message().await.unwrap().expect("events go on");
        if event.r#type == wanted && event.name == name {
            return;
        }
    }
}

#[tokio::test]
async fn a_sinkhole_swallows_little_whenever_the_control_plane_dies() {
    let well: Vec<Backend> = (0..19).map(|_| Backend::saying("well")).collect();
    let bad = Backend::scripted(|_| vec![Action::Send(UNWELL.to_vec())]);
    let mut cluster = Cluster::start(program(), PROXIES).await;
    let set = |pool: &mut pb::Pool| {
        pool.algorithm = "least_connections".to_owned();
        pool.breaker = Some(pb::Breaker { open_ms: 60_000, ..pb::Breaker::default() });
    };
    cluster.api.change_pool(set).await;
    let mut addresses: Vec<_> = well.iter().map(Backend::address).collect();
    addresses.push(bad.address());
    let ids = cluster.add_backends(&addresses).await;
    let load = Load::start(&cluster.addresses(), 2);
    // Its failures are reported, and nobody is there to make anything of them.
    bad.reached(1).await;
    cluster.kill_control_plane().await;
    load.answered(2000).await;
    let alone = bad.requests();
    // Each proxy by itself: five, and what its clients sent at the same time.
    assert!(alone <= PROXIES * (5 + 2), "{alone} were swallowed");
    cluster.start_control_plane().await;
    cluster.settled().await;
    let began = Instant::now();
    let watched = Duration::from_secs(if is_full() { 20 } else { 2 });
    while began.elapsed() < watched {
        load.answered(200).await;
    }
    let swallowed = bad.requests();
    println!(
        "swallowed: {alone} without a control plane, {} within {watched:?} after",
        swallowed - alone
    );
    // Each tries it again when its own time is over, until the fleet's breaker has heard enough.
    assert!(swallowed <= alone + 2 * PROXIES + 5, "{swallowed} were swallowed");
    load.stop().await.assert_flawless();
    let view = cluster.api.backend(&ids[19]).await;
    assert_eq!(view.status.unwrap().health(), Health::Up, "its checks pass");
}

#[tokio::test]
async fn a_sinkhole_is_watched_for_a_while() {
    let well: Vec<Backend> = (0..19).map(|_| Backend::saying("well")).collect();
    let bad = Backend::scripted(|_| vec![Action::Send(UNWELL.to_vec())]);
    let cluster = Cluster::start(program(), PROXIES).await;
    let set = |pool: &mut pb::Pool| {
        pool.algorithm = "least_connections".to_owned();
        pool.breaker = Some(pb::Breaker::default());
    };
    cluster.api.change_pool(set).await;
    let mut addresses: Vec<_> = well.iter().map(Backend::address).collect();
    addresses.push(bad.address());
    let ids = cluster.add_backends(&addresses).await;
    let mut events = cluster.api.watch(0).await;
    let began = Instant::now();
    let load = Load::start(&cluster.addresses(), 2);
    event(&mut events, "breaker_opened", &ids[19]).await;
    let (opened, after) = (bad.requests(), began.elapsed());
    let watched = Duration::from_secs(if is_full() { 20 } else { 3 });
    while began.elapsed() < watched {
        load.answered(200).await;
    }
    let swallowed = bad.requests();
    let tally = load.stop().await;
    println!(
        "of {} requests in {watched:?} the sinkhole swallowed {swallowed}: {opened} until the breaker opened after {after:?}, then one each time it was half-open",
        tally.answered
    );
    tally.assert_flawless();
    // Five, what came before the proxies had heard of it, and two probes in twenty seconds.
    assert!(swallowed < 100, "{swallowed}");
    assert!(swallowed - opened <= 2 * PROXIES + 3, "{swallowed} after {opened}");
}

/// GETs before, while and after one of three goes bad in this way, and the control plane dies
/// just then.
async fn costs_no_request(name: &str, bad: SocketAddr) {
    let well = [Backend::saying("well"), Backend::saying("well")];
    let mut cluster = Cluster::start(program(), PROXIES).await;
    let set = |pool: &mut pb::Pool| {
        no_checks(pool);
        pool.connect_timeout_ms = 1000;
        pool.retries = Some(pb::Retries { try_timeout_ms: 1000, ..pb::Retries::default() });
    };
    cluster.api.change_pool(set).await;
    cluster.add_backends(&[well[0].address(), well[1].address()]).await;
    let load = Load::start(&cluster.addresses(), 1);
    load.answered(100).await;
    cluster.add_backends(&[bad]).await;
    let began = Instant::now();
    // Every third of them goes there first.
    load.answered(10).await;
    cluster.kill_control_plane().await;
    let watched = Duration::from_secs(if is_full() { 15 } else { 3 });
    while began.elapsed() < watched {
        load.answered(100).await;
    }
    cluster.start_control_plane().await;
    cluster.settled().await;
    load.answered(500).await;
    let tally = load.stop().await;
    let whole = began..Instant::now();
    let took = |percent| tally.percentile(percent, std::slice::from_ref(&whole));
    println!(
        "{name}: {} GETs, {} failed, p50 {:?}, p99 {:?}, longest {:?}",
        tally.answered,
        tally.failed,
        took(50),
        took(99),
        took(100),
    );
    tally.assert_flawless();
}

#[tokio::test]
async fn one_that_resets_costs_no_request_although_the_control_plane_dies() {
    let bad = Backend::scripted(|_| vec![Action::Reset]);
    costs_no_request("resets", bad.address()).await;
    assert!(bad.requests() > 0, "it was tried");
}

#[tokio::test]
async fn one_that_hangs_costs_no_request_although_the_control_plane_dies() {
    let bad = Backend::scripted(|_| vec![Action::Hang]);
    costs_no_request("hangs", bad.address()).await;
    assert!(bad.requests() > 0, "it was tried");
}

#[tokio::test]
async fn one_that_refuses_costs_no_request_although_the_control_plane_dies() {
    let bad = Port::reserve();
    costs_no_request("refuses", bad.address()).await;
}

#[tokio::test]
async fn one_whose_backlog_is_full_costs_no_request_although_the_control_plane_dies() {
    let bad = BlackHole::open();
    costs_no_request("black-holes", bad.address()).await;
}

#[tokio::test]
async fn a_backend_that_only_the_checks_cannot_reach_stays_in_over_a_restart() {
    let cut_off = Arc::new(AtomicBool::new(false));
    let is_cut_off = Arc::clone(&cut_off);
    let served = Backend::scripted(move |request| match request.path() {
        "/checked" if is_cut_off.load(SeqCst) => vec![Action::Reset],
        "/checked" => vec![Action::Send(ok("well"))],
        _ => vec![Action::Send(ok("served"))],
    });
    let other = Backend::scripted(|_| vec![Action::Send(ok("other"))]);
    let mut cluster = Cluster::start(program(), PROXIES).await;
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
    event(&mut events, "views_differ", &ids[0]).await;
    cluster.kill_control_plane().await;
    load.answered(200).await;
    load.answered_by("served").await;
    cluster.start_control_plane().await;
    let contradicted = async || {
        let status = cluster.api.backend(&ids[0]).await.status.unwrap();
        assert_eq!(status.health(), Health::Up, "{status:?}");
        let told = status.disagreements.iter().any(|told| told.proxy.is_empty());
        if told { Ok(()) } else { Err(format!("{status:?}")) }
    };
    eventually("the next process finds the same", contradicted).await;
    load.answered_by("served").await;
    load.stop().await.assert_flawless();
}

#[tokio::test]
async fn a_drain_of_websockets_over_eight_proxies_ends_with_the_last_one() {
    let switching =
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n";
    let gates: Vec<Gate> = (0..PROXIES).map(|_| Gate::default()).collect();
    let held = gates.clone();
    let first = Backend::scripted(move |request| match request.path().strip_prefix("/chat/") {
        Some(number) => {
            let gate = held[number.parse::<usize>().unwrap()].clone();
            vec![Action::Send(switching.to_vec()), Action::Await(gate), Action::Close]
        }
        None => vec![Action::Send(ok("first"))],
    });
    let second = Backend::saying("second");
    // Nobody waits for leases to run out: all are back, and that is known.
    let args = ["--heartbeat=200ms", "--lease=60s"];
    let mut cluster = Cluster::start_as(program(), PROXIES, &[], &args).await;
    let id = cluster.add_backends(&[first.address()]).await.remove(0);
    let mut chats = Vec::new();
    for (number, address) in cluster.addresses().into_iter().enumerate() {
        let mut chat = Client::connect(address).await;
        let head = "HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n";
        chat.send(format!("GET /chat/{number} {head}")).await;
        assert_eq!(chat.response().await.status, 101);
        chats.push(chat);
    }
    cluster.add_backends(&[second.address()]).await;
    let load = Load::start(&cluster.addresses(), 1);
    load.answered_by("first").await;
    drop(cluster.lbctl(&["drain-backend", &id, "--remove"]).await.expect(0));
    left(&cluster, &id, 8).await;
    for (number, (mut chat, gate)) in chats.into_iter().zip(&gates).enumerate() {
        if number == 4 {
            cluster.kill_control_plane().await;
            load.answered(200).await;
            cluster.start_control_plane().await;
        }
        left(&cluster, &id, 8 - number).await;
        gate.open();
        chat.rest().await;
    }
    let last = Instant::now();
    let name = format!("backend/{id}");
    let args = ["wait", &name, "--for", "removed", "--timeout", "20s"];
    drop(cluster.lbctl(&args).await.expect(0));
    println!("removed {:?} after the last of eight had ended", last.elapsed());
    load.answered(100).await;
    load.stop().await.assert_flawless();
}

/// Waits until every proxy has told what it has left, and it is so much.
async fn left(cluster: &Cluster, id: &str, upgraded: usize) {
    eventually(&format!("{upgraded} upgraded connections are left"), async || {
        let drain = cluster.api.backend(id).await.drain.unwrap_or_default();
        let told = drain.proxies.iter().filter(|share| share.state == "told").count();
        let sum: u32 = drain.proxies.iter().map(|share| share.upgraded).sum();
        let is_it = told == PROXIES && sum as usize == upgraded;
        if is_it { Ok(()) } else { Err(format!("{drain:?}")) }
    })
    .await;
}

/// A19 of the algorithms: what a backend that joins gets in its first second, and how long
/// clients wait in that, beside seconds in which nothing joins, in turn.
///
/// `LB_TEST_SCALE=full` takes ten of each instead of one.
#[tokio::test]
async fn a_backend_that_joins_is_neither_run_over_nor_left_out() {
    let busy = |says| {
        Backend::scripted(move |_| {
            vec![Action::Pause(Duration::from_millis(5)), Action::Send(ok(says))]
        })
    };
    let (old, new) = ([busy("old"), busy("old"), busy("old")], busy("new"));
    for (algorithm, proxies) in
        [("round_robin", 1), ("round_robin", PROXIES), ("least_connections", PROXIES)]
    {
        let cluster = Cluster::start(program(), proxies).await;
        let set = |pool: &mut pb::Pool| {
            pool.algorithm = algorithm.to_owned();
            pool.slow_start_ms = Some(30_000);
        };
        cluster.api.change_pool(set).await;
        cluster.add_backends(&old.each_ref().map(Backend::address)).await;
        let load = Load::start(&cluster.addresses(), 16 / proxies);
        // The pool's rate is known by then.
        load.answered(3000).await;
        let (mut joins, mut others) = (Vec::new(), Vec::new());
        for _ in 0..if is_full() { 10 } else { 1 } {
            others.push(a_second_of(&load).await);
            let id = cluster.api.add_backend(new.address(), 1).await;
            load.answered_by("new").await;
            let before = load.bodies();
            joins.push(a_second_of(&load).await);
            let after = load.bodies();
            let more = |body| after.get(body).unwrap_or(&0) - before.get(body).unwrap_or(&0);
            let (own, all) = (more("new"), more("new") + more("old"));
            let of_fair = own as f64 / (all as f64 / 4.0);
            println!(
                "{algorithm}, {proxies} proxies: {own} of {all} in the first second, {of_fair:.2} of a fair share"
            );
            assert!((0.02..=1.2).contains(&of_fair), "{of_fair} of a fair share");
            drop(cluster.lbctl(&["remove-backend", &id]).await.expect(0));
        }
        let tally = load.stop().await;
        let p99 = |spans: &[Range<Instant>]| tally.percentile(99, spans);
        let ratio = |join, other| p99(join).as_secs_f64() / p99(other).as_secs_f64();
        let pairs = joins.iter().zip(&others);
        let mut ratios: Vec<f64> = pairs
            .map(|(join, other)| ratio(std::slice::from_ref(join), std::slice::from_ref(other)))
            .collect();
        ratios.sort_by(f64::total_cmp);
        println!(
            "{algorithm}, {proxies} proxies: p99 {:?} while a backend joins, {:?} in the seconds between: {:.2} times; of each pair {:.2} in the middle, {ratios:.2?}",
            p99(&joins),
            p99(&others),
            ratio(&joins, &others),
            ratios[ratios.len() / 2],
        );
        tally.assert_flawless();
    }
    assert_eq!(get(old[0].address(), "/").await.status, 200);
}

/// A second under load.
async fn a_second_of(load: &Load) -> Range<Instant> {
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(1) {
        load.answered(20).await;
    }
    began..Instant::now()
}
