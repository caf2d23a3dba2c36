//! A proxy that runs out of connections or memory gives things up in order, and says so.

mod siege;

use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};

use futures_util::future::join_all;
use lb_tests::{
    backend::{Action, Backend, Gate, ok},
    client::{Client, get},
    cluster::{Cluster, no_checks},
    eventually::eventually,
    exposition::Scrape,
};

use crate::{one_proxy_with, program};

const GET: &str = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";

/// Who comes is let in although all places are taken, because idle clients give theirs up;
/// who is at work keeps it. Status, metrics, events and the log tell of it.
#[tokio::test]
async fn idle_clients_make_room_and_everybody_is_told() {
    let gate = Gate::default();
    let held = gate.clone();
    let backend = Backend::scripted(move |request| match request.path() {
        "/held" => vec![Action::Await(held.clone()), Action::Send(ok("held"))],
        _ => vec![Action::Send(ok("a"))],
    });
    let args = ["--max-connections=20", "--workers=2"];
    let cluster = one_proxy_with(&args, &[&backend]).await;
    let mut busy = Vec::new();
    for _ in 0..5 {
        let mut client = Client::connect(cluster.address()).await;
        client.send("GET /held HTTP/1.1\r\nHost: test\r\n\r\n").await;
        busy.push(client);
    }
    backend.reached(5).await;
    let mut idle = Vec::new();
    for _ in 0..14 {
        let mut client = Client::connect(cluster.address()).await;
        client.send(GET).await;
        assert_eq!(client.response().await.text(), "a");
        idle.push(client);
    }
    // 19 of 20: those that have been idle for longest go until there are fewer than 16.
    for client in idle.drain(..3) {
        let mut client = client;
        assert_eq!(client.end().await.unwrap(), b"", "closed, not reset");
    }
    let mut events = cluster.api.watch(1000).await;
    loop {
        let event = events.message().await.unwrap().unwrap();
        if event.r#type == "proxy_overloaded" {
            let message = event.reason.unwrap().message;
            assert!(message.contains("of 20 connections are in use"), "{message}");
            break;
        }
    }
    // It is quiet again: the next ones find room, and those at work have theirs.
    eventually("nothing is given up any more", async || {
        let stage = Scrape::of(cluster.proxy(0).admin()).await.value("lb_overload_stage");
        if stage == 0.0 { Ok(()) } else { Err(stage) }
    })
    .await;
    let scrape = Scrape::of(cluster.proxy(0).admin()).await;
    let closed = scrape.value("lb_overload_closed_connections_total");
    assert!((4.0..=5.0).contains(&closed), "two workers round up: {closed}");
    assert_eq!(get(cluster.address(), "/").await.text(), "a");
    gate.open();
    for client in &mut busy {
        assert_eq!(client.response().await.text(), "held");
    }
    let ready = get(cluster.proxy(0).admin(), "/readyz?verbose").await;
    assert!(ready.status == 200 && ready.text().contains("overload"), "{ready:?}");
    let page = cluster.lbctl(&["describe", "proxy", "proxy-1"]).await.expect(0).stdout;
    assert!(page.contains("overloaded") && page.contains(" of 20"), "{page}");
    cluster.proxy(0).process().complaint("of 20 connections are in use").await;
}

/// Who has only connected, or sent half a head, keeps its place no longer than others need it.
#[tokio::test]
async fn clients_that_ask_for_nothing_make_room_too() {
    let backend = Backend::saying("a");
    let args = ["--max-connections=20", "--workers=2"];
    let cluster = one_proxy_with(&args, &[&backend]).await;
    // Far longer than this test waits.
    let slow = cluster.lbctl(&["set-listener", "default", "--header-timeout", "10m"]).await;
    assert_eq!(slow.code, 0, "{slow:?}");
    let mut silent = Vec::new();
    for number in 0..40 {
        let mut client = Client::connect(cluster.address()).await;
        client.try_send(["", "GET / HT", "\r\n"][number % 3]).await.ok();
        silent.push(client);
    }
    assert_eq!(get(cluster.address(), "/").await.text(), "a");
    for client in &mut silent[..10] {
        assert_eq!(client.rest().await, b"", "closed without a word");
    }
}

/// Who sends nothing of its body keeps its place no longer than others need it, and no backend
/// is blamed. (A body has a minute otherwise, longer than this test waits.)
#[tokio::test]
async fn clients_that_stall_in_a_body_make_room_too() {
    let backend = Backend::saying("a");
    let args = ["--max-connections=20", "--workers=2"];
    let cluster = one_proxy_with(&args, &[&backend]).await;
    let mut stalled = Vec::new();
    for number in 0..20 {
        let mut client = Client::connect(cluster.address()).await;
        let rest = ["Content-Length: 9\r\n\r\nsome", "Transfer-Encoding: chunked\r\n\r\n9;"];
        client.send(format!("POST / HTTP/1.1\r\nHost: test\r\n{}", rest[number % 2])).await;
        stalled.push(client);
    }
    backend.reached(20).await;
    assert_eq!(get(cluster.address(), "/").await.text(), "a");
    // Those first that have been silent for longest, and about a fifth of them.
    stalled[0].response().await.expect(408, "client_body_timeout");
    let totals = cluster.api.backend("backend1").await.totals.unwrap_or_default();
    assert_eq!(totals.failures.unwrap_or_default(), Default::default(), "it is not to blame");
}

/// Who was answered before all of its body had come keeps its place until that has, and no longer
/// when others want it.
#[tokio::test]
async fn a_client_that_is_refused_while_it_sends_makes_room_with_its_last_byte() {
    let args = ["--max-connections=1", "--workers=1"];
    let cluster = Cluster::start_with(program(), 1, &args).await;
    // Far longer than this test waits.
    let slow = cluster.lbctl(&["set-listener", "default", "--drain-timeout", "10m"]).await;
    assert_eq!(slow.code, 0, "{slow:?}");
    let mut client = Client::connect(cluster.address()).await;
    client.send("PUT / HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nab").await;
    client.response().await.expect(503, "no_healthy_backend");
    client.send("cde").await;
    let mut next = Client::connect(cluster.address()).await;
    next.send(GET).await;
    next.response().await.expect(503, "no_healthy_backend");
}

/// The admin address takes only so many descriptors, whoever connects to it.
#[tokio::test]
async fn silent_clients_of_the_admin_address_take_nothing_from_traffic() {
    let backend = Backend::saying("a");
    let cluster = Cluster::start(program().with_descriptors(256), 1).await;
    cluster.api.change_pool(no_checks).await;
    cluster.add_backends(&[backend.address()]).await;
    let admin = cluster.proxy(0).admin();
    let before = Scrape::of(admin).await.value("process_open_fds");
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(Client::connect(admin).await);
    }
    let after = Scrape::of(admin).await.value("process_open_fds");
    assert!(after <= before + 20.0, "{before} descriptors became {after}");
    assert_eq!(get(admin, "/readyz").await.status, 200);
    assert_eq!(get(cluster.address(), "/").await.text(), "a");
}

#[tokio::test]
async fn a_bound_of_memory_that_cannot_be_kept_is_refused_with_a_remedy() {
    let directory = tempfile::tempdir().unwrap();
    let data_dir = format!("--data-dir={}", directory.path().display());
    let args = ["data-plane", "--port=0", "--admin=127.0.0.1:0", "--max-memory=1M", &data_dir];
    let ended = program().run(&args).await;
    assert_ne!(ended.code, 0);
    assert!(ended.stderr.contains("--max-memory 1MiB is too little"), "{}", ended.stderr);
}

/// Clients that send half a request, or take long for an answer, get free places, and those of
/// clients that give theirs back no faster than they do so themselves.
#[tokio::test]
async fn who_behaves_keeps_a_place_beside_those_who_never_give_theirs_back() {
    const HALF_A_BODY: &str =
        "POST /body HTTP/1.1\r\nHost: test\r\nContent-Length: 100000\r\n\r\nxx";
    const LONG: &str = "GET /held HTTP/1.1\r\nHost: test\r\n\r\n";
    for stalling in [HALF_A_BODY, LONG] {
        let gate = Gate::default();
        let held = gate.clone();
        let backend = Backend::scripted(move |request| match request.path() {
            "/" => vec![Action::Send(ok("a"))],
            _ => vec![Action::Await(held.clone()), Action::Send(ok("held"))],
        });
        let args = ["--max-connections=40", "--workers=2"];
        let cluster = one_proxy_with(&args, &[&backend]).await;
        let many = ["set-listener", "default", "--max-requests", "1000000"];
        drop(cluster.lbctl(&many).await.expect(0));
        let is_full = AtomicBool::new(false);
        // They have their places before the others come: nobody gets one that never comes back.
        let mut behaving = Vec::new();
        for _ in 0..4 {
            let mut client = Client::connect(cluster.address()).await;
            client.send(GET).await;
            assert_eq!(client.response().await.status, 200);
            behaving.push(client);
        }
        let behave = async |mut client: Client| {
            let mut left = 200;
            while left > 0 {
                client.send(GET).await;
                let answer = client.response().await;
                assert_eq!((answer.status, answer.field("Connection")), (200, None), "{left}");
                left -= u32::from(is_full.load(Relaxed));
            }
        };
        let stall = async {
            let mut stalled = Vec::new();
            for _ in 0..80 {
                let mut client = Client::connect(cluster.address()).await;
                client.send(stalling).await;
                stalled.push(client);
            }
            eventually("all places are taken", async || {
                let scrape = Scrape::of(cluster.proxy(0).admin()).await;
                let open = scrape.value(r#"lb_connections{side="downstream",state="open"}"#);
                if open >= 40.0 { Ok(()) } else { Err(open) }
            })
            .await;
            is_full.store(true, Relaxed);
            stalled
        };
        let (stalled, _) = tokio::join!(stall, join_all(behaving.into_iter().map(behave)));
        drop(stalled);
    }
}

/// A client that asks again and again for long owes nothing: it does not keep others from places.
#[tokio::test]
async fn a_client_that_never_rests_keeps_no_places_from_going_on() {
    let backend = Backend::saying("a");
    let args = ["--max-connections=2", "--workers=1"];
    let cluster = one_proxy_with(&args, &[&backend]).await;
    let mut restless = Client::connect(cluster.address()).await;
    // At this pace for longer than an answer may be owed. Nobody else is there.
    for _ in 0..150 {
        restless.send(GET).await;
        let answer = restless.response().await;
        assert_eq!((answer.status, answer.field("Connection")), (200, None));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut second = Client::connect(cluster.address()).await;
    second.send(GET).await;
    let answer = second.response().await;
    assert_eq!((answer.status, answer.field("Connection")), (200, Some("close")), "it is full");
}
