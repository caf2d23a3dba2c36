//! Fewer slots than proxies, and no control plane to hand them round.

use std::time::Duration;

use lb_tests::{
    client::get,
    cluster::{Cluster, no_checks},
    eventually::eventually,
    load::Load,
    meter::Meter,
};

use crate::program;

/// Proxies with one slot of one backend among them, and the backend.
async fn one_slot(proxies: usize) -> (Cluster, Meter) {
    let meter = Meter::open("well", Duration::from_millis(10));
    let cluster = Cluster::start(program(), proxies).await;
    let change = |pool: &mut lb_proto::v1::Pool| {
        no_checks(pool);
        pool.request_timeout_ms = 1000;
    };
    cluster.api.change_pool(change).await;
    let ids = cluster.add_backends(&[meter.address()]).await;
    drop(cluster.lbctl(&["set-backend", &ids[0], "--max-in-flight", "1"]).await.expect(0));
    for proxy in 0..proxies {
        is_served(&cluster, proxy).await;
    }
    (cluster, meter)
}

async fn is_served(cluster: &Cluster, proxy: usize) {
    eventually("it is served", async || {
        let answer = get(cluster.proxy(proxy).address(), "/").await;
        if answer.status == 200 { Ok(()) } else { Err(answer.text()) }
    })
    .await;
}

#[tokio::test]
async fn traffic_goes_on_with_one_slot_each_while_nobody_hands_them_round() {
    let (mut cluster, meter) = one_slot(4).await;
    let load = Load::start(&cluster.addresses(), 2);
    load.answered(100).await;
    assert_eq!(meter.take_most(), 1);
    cluster.kill_control_plane().await;
    eventually("nobody hands slots round any more", async || {
        load.answered(1).await;
        if meter.most() == 4 { Ok(()) } else { Err(meter.most()) }
    })
    .await;
    load.answered(1000).await;
    assert_eq!(meter.most(), 4, "never more than one for each proxy");
    cluster.start_control_plane().await;
    eventually("one slot goes round again", async || {
        _ = meter.take_most();
        load.answered(50).await;
        if meter.most() == 1 { Ok(()) } else { Err(meter.most()) }
    })
    .await;
    load.stop().await.assert_flawless();
}

/// The requests of the process before may still be at the backend.
#[tokio::test]
async fn a_proxy_that_starts_without_a_control_plane_says_that_it_has_no_slot_yet() {
    let (mut cluster, meter) = one_slot(2).await;
    cluster.api.change_pool(|pool| pool.queue_timeout_ms = 200).await;
    drop(cluster.lbctl(&["add-pool", "added-later"]).await.expect(0));
    cluster.settled().await;
    // What it serves, and what it may use, after its next start is written once a second.
    for (file, tells) in [("last-good", "added-later"), ("leases", " 0 2 ")] {
        let kept = cluster.proxy(0).data_dir().join(file);
        eventually("it keeps that there is one slot, and that there are two proxies", async || {
            let bytes = std::fs::read(&kept).unwrap_or_default();
            let text = String::from_utf8_lossy(&bytes);
            if text.contains(tells) { Ok(()) } else { Err(text.into_owned()) }
        })
        .await;
    }
    cluster.kill_control_plane().await;
    cluster.kill_proxy(0).await;
    cluster.start_proxy(0).await;
    get(cluster.address(), "/").await.expect(503, "no_lease");
    is_served(&cluster, 0).await;
    is_served(&cluster, 1).await;
    cluster.start_control_plane().await;
    is_served(&cluster, 0).await;
    assert!(meter.most() <= 2);
}

/// A request needs a slot of its backend and one of its pool, and they come to the same proxy.
#[tokio::test]
async fn slots_of_a_pool_and_of_its_backends_are_used_together() {
    let meters = ["a", "b"].map(|name| Meter::open(name, Duration::from_millis(20)));
    let cluster = Cluster::start(program(), 4).await;
    cluster.api.change_pool(no_checks).await;
    let ids = cluster.add_backends(&meters.each_ref().map(Meter::address)).await;
    for (pool, each) in [("2", "1"), ("2", "2"), ("3", "2")] {
        drop(cluster.lbctl(&["set-pool", "default", "--max-in-flight", pool]).await.expect(0));
        for id in &ids {
            drop(cluster.lbctl(&["set-backend", id, "--max-in-flight", each]).await.expect(0));
        }
        let load = Load::start(&cluster.addresses(), 3);
        load.answered(100).await;
        meters.iter().for_each(|meter| _ = meter.take_most());
        load.answered(400).await;
        load.stop().await.assert_flawless();
        let most = meters.each_ref().map(Meter::most);
        println!("pool {pool}, backends {each}: {most:?} at once");
        assert!(most.iter().all(|most| *most <= each.parse().unwrap()), "{most:?} of {each}");
    }
}
