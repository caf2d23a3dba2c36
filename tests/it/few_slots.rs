//! Fewer slots than proxies, and no control plane to hand them round.

use std::time::Duration;

use lb_tests::{
    client::get,
    cluster::{Cluster, no_checks},
    eventually::eventually,
    meter::Meter,
};

use crate::program;

async fn is_served(cluster: &Cluster, proxy: usize) {
    eventually("it is served", async || {
        let answer = get(cluster.proxy(proxy).address(), "/").await;
        if answer.status == 200 { Ok(()) } else { Err(answer.text()) }
    })
    .await;
}

#[tokio::test]
async fn who_has_no_slot_for_want_of_a_control_plane_says_so() {
    let meter = Meter::open("well", Duration::from_millis(10));
    let mut cluster = Cluster::start(program(), 2).await;
    let change = |pool: &mut lb_proto::v1::Pool| {
        no_checks(pool);
        pool.request_timeout_ms = 1000;
        pool.queue_timeout_ms = 200;
    };
    cluster.api.change_pool(change).await;
    let ids = cluster.add_backends(&[meter.address()]).await;
    drop(cluster.lbctl(&["set-backend", &ids[0], "--max-in-flight", "1"]).await.expect(0));
    for proxy in 0..2 {
        is_served(&cluster, proxy).await;
    }
    cluster.kill_control_plane().await;
    for proxy in 0..2 {
        eventually("it has none", async || {
            let text = get(cluster.proxy(proxy).address(), "/").await.text();
            if text.contains("no_lease") { Ok(()) } else { Err(text) }
        })
        .await;
        get(cluster.proxy(proxy).address(), "/").await.expect(503, "no_lease");
    }
    cluster.start_control_plane().await;
    for proxy in 0..2 {
        is_served(&cluster, proxy).await;
    }
    assert_eq!(meter.most(), 1);
}
