//! Limits of requests in progress, over a fleet of real processes, against a backend that
//! records how many it has at once.

use std::time::Duration;

use lb_tests::{
    client::{Client, get},
    cluster::{Cluster, no_checks},
    eventually::eventually,
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
    cluster.proxy(2).signal(Signal::STOP);
    load.answered(100).await;
    let mut leaves = cluster.take_proxy(3);
    leaves.signal(Signal::TERM);
    leaves.exited().await;
    cluster.start_proxy(0).await;
    load.answered(100).await;
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

#[tokio::test]
async fn two_slots_go_round_eight_proxies() {
    let meter = Meter::open("well", Duration::from_millis(40));
    let (cluster, _) = capped(8, &meter, 2).await;
    // Turns take a second or so, and longer where eight processes share few cores.
    let patient = ["set-pool", "default", "--request-timeout", "20s", "--queue-timeout", "15s"];
    drop(cluster.lbctl(&patient).await.expect(0));
    let load = Load::start(&cluster.addresses(), 1);
    load.answered(300).await;
    let used = meter.mean(Duration::from_secs(5)).await / 2.0;
    println!("{:.1} % of 2 slots in use", used * 100.0);
    load.stop().await.assert_flawless();
    assert_eq!(meter.most(), 2);
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
