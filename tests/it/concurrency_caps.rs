//! Limits of requests in progress, over a fleet of real processes, against a backend that
//! records how many it has at once.

use std::time::Duration;

use lb_tests::{
    backend::{Action, Backend, Gate, ok},
    client::{Client, get},
    cluster::{Cluster, no_checks},
    eventually::eventually,
    exposition::Scrape,
    load::Load,
    meter::Meter,
};
use rustix::process::Signal;

use crate::program;

/// So many proxies, and a backend without checks that may have so many requests at once.
async fn capped(proxies: usize, meter: &Meter, slots: u32) -> (Cluster, String) {
    let cluster = Cluster::start(program(), proxies).await;
    cluster
        .api
        .change_pool(|pool| {
            no_checks(pool);
            pool.request_timeout_ms = 1000;
        })
        .await;
    let ids = cluster.add_backends(&[meter.address()]).await;
    let id = ids[0].clone();
    let slots = slots.to_string();
    let done = cluster.lbctl(&["set-backend", &id, "--max-in-flight", &slots]).await.expect(0);
    assert!(done.stdout.contains("applied"), "{done:?}");
    (cluster, id)
}

#[tokio::test]
async fn whoever_waits_does_not_go_where_nothing_new_may_go() {
    let gates = [(); 2].map(|()| Gate::default());
    let backends = gates.each_ref().map(|gate| {
        let gate = gate.clone();
        Backend::scripted(move |_| vec![Action::Await(gate.clone()), Action::Send(ok("a"))])
    });
    let cluster = Cluster::start(program(), 1).await;
    cluster
        .api
        .change_pool(|pool| {
            no_checks(pool);
            pool.queue_timeout_ms = 20_000;
        })
        .await;
    let ids = cluster.add_backends(&backends.each_ref().map(Backend::address)).await;
    for id in &ids {
        let cap = ["set-backend", id, "--max-in-flight", "1"];
        drop(cluster.lbctl(&cap).await.expect(0));
    }
    let mut clients = Vec::new();
    for _ in 0..2 {
        let mut client = Client::connect(cluster.address()).await;
        client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
        clients.push(client);
    }
    for backend in &backends {
        backend.reached(1).await;
    }
    let mut waits = Client::connect(cluster.address()).await;
    waits.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
    eventually("it waits", async || {
        let scrape = Scrape::of(cluster.proxy(0).admin()).await;
        let waiting = scrape.value("lb_queue_depth{pool=\"default\"}");
        if waiting == 1.0 { Ok(()) } else { Err(waiting) }
    })
    .await;
    drop(cluster.lbctl(&["drain-backend", &ids[0]]).await.expect(0));
    gates[0].open();
    let drained = ["wait", &format!("backend/{}", ids[0]), "--for", "drained"];
    drop(cluster.lbctl(&drained).await.expect(0));
    assert_eq!(backends[0].requests(), 1);
    gates[1].open();
    assert_eq!(waits.response().await.text(), "a");
    assert_eq!((backends[0].requests(), backends[1].requests()), (1, 2));
}

#[tokio::test]
async fn a_backend_never_has_more_requests_than_it_may() {
    let meter = Meter::open("well", Duration::from_millis(40));
    let (mut cluster, id) = capped(8, &meter, 10).await;
    let load = Load::start(&cluster.addresses(), 4);
    load.answered(100).await;
    let used = meter.mean(Duration::from_secs(3)).await / 10.0;
    println!("8 proxies: {:.1} % of 10 slots in use, {} at most", used * 100.0, meter.most());
    let text = cluster.lbctl(&["describe", "backend", &id]).await.expect(0).stdout;
    println!("{text}");
    assert!(text.contains(" of 10 in use"), "{text}");

    cluster.kill_proxy(0).await;
    cluster.kill_proxy(1).await;
    load.answered(100).await;
    println!("two killed: {} at most", meter.most());
    cluster.proxy(2).signal(Signal::STOP);
    load.answered(100).await;
    println!("one stopped: {} at most", meter.most());
    let mut leaves = cluster.take_proxy(3);
    leaves.signal(Signal::TERM);
    leaves.exited().await;
    println!("one left: {} at most", meter.most());
    cluster.start_proxy(0).await;
    load.answered(100).await;
    println!("one joined: {} at most", meter.most());
    cluster.proxy(2).signal(Signal::CONT);
    load.answered(100).await;
    let used = meter.mean(Duration::from_secs(3)).await / 10.0;
    println!("6 proxies: {:.1} % of 10 slots in use, {} at most", used * 100.0, meter.most());

    cluster.kill_control_plane().await;
    load.answered(100).await;
    cluster.start_proxy(1).await;
    let used = meter.mean(Duration::from_secs(4)).await / 10.0;
    println!("without it: {:.1} % of 10 slots in use, {} at most", used * 100.0, meter.most());
    cluster.start_control_plane().await;
    cluster.start_proxy(3).await;
    cluster.api.settled(8).await;
    load.answered(400).await;
    let used = meter.mean(Duration::from_secs(3)).await / 10.0;
    println!("restarted: {:.1} % of 10 slots in use, {} at most", used * 100.0, meter.most());
    let tally = load.stop().await;
    println!("{} answered, {} not: {:#?}", tally.answered, tally.failed, tally.failures);
    assert_eq!(meter.most(), 10, "as many as may be were seen, and never more");
}

/// A process that stood still gives up what it was lent, and is lent it again: nobody has to wait
/// until the former lease is over.
#[tokio::test]
async fn a_proxy_that_stood_still_serves_on() {
    let meter = Meter::open("well", Duration::from_millis(10));
    let (cluster, _) = capped(1, &meter, 10).await;
    assert_eq!(get(cluster.address(), "/").await.status, 200);
    cluster.proxy(0).signal(Signal::STOP);
    // For longer than a proxy may go without a look at its lease (0.75 s).
    tokio::time::sleep(Duration::from_millis(1500)).await;
    cluster.proxy(0).signal(Signal::CONT);
    for _ in 0..20 {
        assert_eq!(get(cluster.address(), "/").await.status, 200);
    }
}

#[tokio::test]
async fn two_slots_go_round_eight_proxies() {
    let meter = Meter::open("well", Duration::from_millis(40));
    let (cluster, _) = capped(8, &meter, 2).await;
    // Turns take a second or so, and longer where eight processes share few cores.
    let patient = ["set-pool", "default", "--request-timeout", "20s", "--queue-timeout", "15s"];
    drop(cluster.lbctl(&patient).await.expect(0));
    let load = Load::start(&cluster.addresses(), 3);
    load.answered(300).await;
    let used = meter.mean(Duration::from_secs(5)).await / 2.0;
    println!("{:.1} % of 2 slots in use", used * 100.0);
    load.stop().await.assert_flawless();
    assert_eq!(meter.most(), 2);
}

/// Slots may be in use for two minutes after a proxy fell silent, and none did.
#[tokio::test]
async fn slots_move_at_once_after_a_restart_of_the_control_plane() {
    let gate = Gate::default();
    let held = gate.clone();
    let backend =
        Backend::scripted(move |_| vec![Action::Await(held.clone()), Action::Send(ok("a"))]);
    let mut cluster = Cluster::start(program(), 2).await;
    cluster
        .api
        .change_pool(|pool| {
            no_checks(pool);
            pool.request_timeout_ms = 120_000;
            pool.queue_timeout_ms = 60_000;
        })
        .await;
    let ids = cluster.add_backends(&[backend.address()]).await;
    drop(cluster.lbctl(&["set-backend", &ids[0], "--max-in-flight", "2"]).await.expect(0));
    eventually("each proxy has a slot", async || {
        let text = cluster.lbctl(&["describe", "backend", &ids[0]]).await.expect(0).stdout;
        if text.matches(" 0/1").count() == 2 { Ok(()) } else { Err(text) }
    })
    .await;
    cluster.kill_control_plane().await;
    cluster.start_control_plane().await;
    cluster.api.settled(2).await;
    let mut clients = Vec::new();
    for _ in 0..2 {
        let mut client = Client::connect(cluster.proxy(0).address()).await;
        client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
        clients.push(client);
    }
    backend.reached(2).await;
    gate.open();
    for mut client in clients {
        assert_eq!(client.response().await.text(), "a");
    }
}

#[tokio::test]
async fn who_waits_in_vain_is_told_so() {
    let meter = Meter::open("well", Duration::from_millis(700));
    let (cluster, id) = capped(1, &meter, 1).await;
    drop(
        cluster
            .lbctl(&["set-pool", "default", "--queue-length", "1", "--queue-timeout", "300ms"])
            .await
            .expect(0),
    );
    eventually("the proxy has the slot", async || {
        let backend = cluster.api.backend(&id).await;
        let shares = backend.slots.unwrap_or_default().proxies;
        if shares.iter().any(|share| share.granted == 1) {
            Ok(())
        } else {
            Err(format!("{shares:?}"))
        }
    })
    .await;
    let proxy = cluster.address();
    let mut first = Client::connect(proxy).await;
    first.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    eventually("it is in progress", async || if meter.most() == 1 { Ok(()) } else { Err("no") })
        .await;
    let mut waits = Client::connect(proxy).await;
    waits.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let waiting = async || {
        let backend = cluster.api.backend(&id).await;
        let shares = backend.slots.unwrap_or_default().proxies;
        if shares.iter().any(|share| share.waiting == 1) {
            Ok(())
        } else {
            Err(format!("{shares:?}"))
        }
    };
    eventually("one waits", waiting).await;
    let refused = get(proxy, "/").await;
    refused.expect(503, "queue_full");
    assert_eq!(refused.field("Retry-After"), Some("1"));
    waits.response().await.expect(503, "queue_timeout");
    assert_eq!(first.response().await.status, 200);
}

#[tokio::test]
async fn a_full_backend_is_passed_over_and_the_pool_has_a_limit_of_its_own() {
    let service = Duration::from_millis(100);
    let (small, large) = (Meter::open("small", service), Meter::open("large", service));
    let (cluster, _) = capped(2, &small, 1).await;
    cluster.add_backends(&[large.address()]).await;
    let load = Load::start(&cluster.addresses(), 4);
    load.answered_by("small").await;
    load.answered_by("large").await;
    load.answered(100).await;
    assert_eq!(small.most(), 1);
    assert!(large.most() >= 5, "nobody waits while there is room: {}", large.most());
    load.stop().await.assert_flawless();

    let args = ["set-pool", "default", "--max-in-flight", "3"];
    drop(cluster.lbctl(&args).await.expect(0));
    let load = Load::start(&cluster.addresses(), 4);
    load.answered(100).await;
    let text = cluster.lbctl(&["get", "pools", "-o", "wide"]).await.expect(0).stdout;
    println!("{text}");
    assert!(text.contains("SLOTS") && text.contains("/3"), "{text}");
    let text = cluster.lbctl(&["describe", "pool", "default"]).await.expect(0).stdout;
    assert!(text.contains(" of 3 in use"), "{text}");
    load.stop().await.assert_flawless();

    let third = Meter::open("third", service);
    cluster.add_backends(&[third.address()]).await;
    let load = Load::start(&cluster.addresses(), 4);
    load.answered_by("third").await;
    load.answered(100).await;
    assert!(third.most() <= 3, "{}", third.most());
    load.stop().await.assert_flawless();
    let scraped = get(cluster.proxy(0).admin(), "/metrics").await.text();
    let waits = scraped.lines().find(|line| line.starts_with("lb_queue_waits_total{"));
    let waits = waits.expect("who waited is counted");
    assert!(!waits.ends_with(" 0"), "{waits}");
    assert!(
        scraped.contains("lb_slots{kind=\"pool\",name=\"default\",state=\"free\"}"),
        "{scraped}"
    );
}

/// Two proxies, of which the first has both slots of a backend in use by requests that began as
/// `begin` has it, while each would have one if there were no control plane.
async fn both_slots_taken(
    backend: &Backend,
    begin: impl AsyncFn(&mut Client),
) -> (Cluster, Vec<Client>) {
    let cluster = Cluster::start(program(), 2).await;
    cluster
        .api
        .change_pool(|pool| {
            no_checks(pool);
            pool.request_timeout_ms = 500;
        })
        .await;
    let ids = cluster.add_backends(&[backend.address()]).await;
    drop(cluster.lbctl(&["set-backend", &ids[0], "--max-in-flight", "2"]).await.expect(0));
    // The second has its slot only after the first was told of its even share.
    let lent = async |wanted: &[(&str, u64, u64)]| {
        let slots = cluster.api.backend(&ids[0]).await.slots.unwrap_or_default();
        let is = slots.proxies.iter().map(|share| (&*share.proxy_id, share.granted, share.in_use));
        let is: Vec<_> = is.collect();
        if is == wanted { Ok(()) } else { Err(format!("{is:?}")) }
    };
    let each_has_one = [("proxy-1", 1, 0), ("proxy-2", 1, 0)];
    eventually("each has a slot", async || lent(&each_has_one).await).await;
    let mut clients = Vec::new();
    for _ in 0..2 {
        let mut client = Client::connect(cluster.address()).await;
        begin(&mut client).await;
        clients.push(client);
    }
    let first_has_both = [("proxy-1", 2, 2), ("proxy-2", 0, 0)];
    eventually("both slots are in use", async || lent(&first_has_both).await).await;
    (cluster, clients)
}

/// Without a control plane each proxy has its even share, and what is more ends.
#[tokio::test]
async fn what_holds_a_slot_that_nobody_counts_is_cut() {
    let gate = Gate::default();
    let holds = gate.clone();
    let backend = Backend::scripted(move |_| {
        let begins = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbe";
        let ends = Action::Send(b"en".to_vec());
        vec![Action::Send(begins.into()), Action::Await(holds.clone()), ends]
    });
    let (mut cluster, clients) = both_slots_taken(&backend, async |client| {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let head = client.head().await.unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    })
    .await;
    cluster.kill_control_plane().await;
    let ends =
        clients.into_iter().map(|mut client| tokio::spawn(async move { client.take(4).await }));
    let mut ends: Vec<_> = ends.collect();
    let mut cut = None;
    eventually("one of two is cut", async || {
        cut = ends.iter().position(tokio::task::JoinHandle::is_finished);
        cut.ok_or("none")
    })
    .await;
    let cut = ends.remove(cut.unwrap()).await.unwrap();
    assert!(cut.is_err(), "{cut:?}");
    assert!(!ends[0].is_finished());
    gate.open();
    let whole = ends.remove(0).await.unwrap();
    assert_eq!(whole.as_deref(), Ok(&b"been"[..]), "the other one goes on to its end");
}

/// The same of requests whose clients are still sending, and send for longer than an answer may
/// take.
#[tokio::test]
async fn an_upload_that_holds_a_slot_that_nobody_counts_is_cut() {
    let backend = Backend::scripted(|_| vec![Action::ReadBody, Action::Send(ok("a"))]);
    let (mut cluster, clients) = both_slots_taken(&backend, async |client| {
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbe").await;
    })
    .await;
    cluster.kill_control_plane().await;
    let rest = Gate::default();
    let answers = clients.into_iter().map(|mut client| {
        let rest = rest.clone();
        tokio::spawn(async move {
            tokio::select! {
                answer = client.response() => answer,
                () = rest.opened() => {
                    client.send("en").await;
                    client.response().await
                }
            }
        })
    });
    let mut answers: Vec<_> = answers.collect();
    let mut cut = None;
    eventually("one of two is cut", async || {
        cut = answers.iter().position(tokio::task::JoinHandle::is_finished);
        cut.ok_or("none")
    })
    .await;
    answers.remove(cut.unwrap()).await.unwrap().expect(503, "slot_lost");
    assert!(!answers[0].is_finished());
    rest.open();
    let whole = answers.remove(0).await.unwrap();
    assert_eq!(whole.text(), "a", "the other one goes on to its end");
}

/// What the same processes had of it before keeps nobody waiting.
#[tokio::test]
async fn a_cap_that_is_taken_away_and_set_again_lends_at_once() {
    let meter = Meter::open("well", Duration::from_millis(20));
    let cluster = Cluster::start(program(), 2).await;
    cluster.api.change_pool(no_checks).await;
    cluster.add_backends(&[meter.address()]).await;
    let cap = async |slots: u32| {
        cluster.api.change_pool(|pool| pool.max_in_flight = slots).await;
        cluster.settled().await;
    };
    let load = Load::start(&cluster.addresses(), 4);
    for _ in 0..3 {
        cap(5).await;
        load.answered(100).await;
        cap(0).await;
        load.answered(100).await;
    }
    cap(5).await;
    eventually("no more than five at once", async || {
        _ = meter.take_most();
        load.answered(100).await;
        if meter.most() <= 5 { Ok(()) } else { Err(meter.most()) }
    })
    .await;
    load.stop().await.assert_flawless();
}
