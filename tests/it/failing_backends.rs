//! Backends that die and return, while clients go on asking.

use lb_proto::v1::Health;
use lb_tests::{
    backend::Backend, client::get, cluster::Cluster, eventually::eventually, load::Load,
};

use crate::program;

#[tokio::test]
async fn a_backend_that_dies_costs_no_request_and_is_explained() {
    let (stays, mut dies) = (Backend::saying("stays"), Backend::saying("dies"));
    let cluster = Cluster::start(program(), 3).await;
    // It gets its whole share as soon as it is back.
    cluster.api.change_pool(|pool| pool.slow_start_ms = Some(0)).await;
    let ids = cluster.add_backends(&[stays.address(), dies.address()]).await;
    let load = Load::start(&cluster.addresses(), 2);
    load.answered_by("dies").await;
    dies.stop().await;
    let view = cluster.api.verdict(&ids[1], Health::Down).await;
    load.answered(100).await;
    let reason = view.status.unwrap().reason.unwrap();
    assert_eq!(reason.code, "backend_connect_refused");
    let checks = view.checks.unwrap();
    assert!(checks.failures_in_a_row >= 3, "{checks:?}");
    assert!(checks.last_success_unix_ms > 0 && checks.next_check_unix_ms > 0, "{checks:?}");

    let text = cluster.lbctl(&["describe", "backend", &ids[1]]).await.expect(0).stdout;
    println!("{text}");
    assert!(text.contains("down") && text.contains("backend_connect_refused"), "{text}");
    for row in ["since", "reason", "last success", "next check", "next: "] {
        assert!(text.contains(row), "{row}: {text}");
    }
    assert!(!text.contains("last success       never"), "{text}");

    dies.resume();
    cluster.api.verdict(&ids[1], Health::Up).await;
    load.answered_by("dies").await;
    // Its breaker closes when enough requests have tried it, one at a time.
    eventually("the breaker is closed", async || {
        let status = cluster.api.backend(&ids[1]).await.status.unwrap();
        status.ejection.map_or(Ok(()), |ejection| Err(format!("{ejection:?}")))
    })
    .await;
    load.stop().await.assert_flawless();
    cluster.settled().await;
    for proxy in cluster.addresses() {
        let both = [get(proxy, "/").await.text(), get(proxy, "/").await.text()];
        assert!(both.contains(&"dies".to_owned()), "{proxy}: {both:?}");
    }
}

#[tokio::test]
async fn a_backend_that_is_down_is_out_of_rotation_on_all_proxies() {
    let (well, unwell) = (Backend::saying("well"), Backend::saying("unwell"));
    let cluster = Cluster::start(program(), 3).await;
    let ids = cluster.add_backends(&[well.address(), unwell.address()]).await;
    // It accepts and would answer: only the verdict keeps traffic away.
    unwell.set_healthy(false);
    let view = cluster.api.verdict(&ids[1], Health::Down).await;
    assert_eq!(view.status.unwrap().reason.unwrap().code, "check_status");
    drop(cluster.lbctl(&["wait", "proxies", "--count", "3"]).await.expect(0));
    let before = unwell.requests();
    for proxy in cluster.addresses() {
        for _ in 0..6 {
            assert_eq!(get(proxy, "/").await.text(), "well");
        }
    }
    assert_eq!(unwell.requests(), before);
    unwell.set_healthy(true);
    drop(cluster.lbctl(&["wait", &format!("backend/{}", ids[1])]).await.expect(0));
}

#[tokio::test]
async fn disabling_and_draining_take_a_backend_out_and_enabling_brings_it_back() {
    let backends = ["a", "b"].map(Backend::saying);
    let cluster = Cluster::start(program(), 2).await;
    let ids = cluster.add_backends(&backends.each_ref().map(Backend::address)).await;
    for command in ["disable-backend", "drain-backend"] {
        let done = cluster.lbctl(&[command, &ids[1]]).await.expect(0);
        assert!(done.stdout.contains("applied 2/2 proxies"), "{done:?}");
        for proxy in cluster.addresses() {
            let bodies = [get(proxy, "/").await.text(), get(proxy, "/").await.text()];
            assert_eq!(bodies, ["a", "a"], "{command}");
        }
        drop(cluster.lbctl(&["enable-backend", &ids[1]]).await.expect(0));
        drop(cluster.lbctl(&["wait", "pool/default"]).await.expect(0));
        cluster.settled().await;
        let proxy = cluster.address();
        let bodies = [get(proxy, "/").await.text(), get(proxy, "/").await.text()];
        assert!(bodies.contains(&"b".to_owned()), "{bodies:?}");
    }
}

#[tokio::test]
async fn no_request_is_lost_while_the_configuration_changes() {
    let backends = ["a", "b", "c"].map(Backend::saying);
    let cluster = Cluster::start(program(), 2).await;
    let mut ids = cluster.add_backends(&backends.each_ref().map(Backend::address)).await;
    let load = Load::start(&cluster.addresses(), 3);
    let algorithms = ["least_connections", "ip_hash", "weighted_round_robin", "round_robin"];
    for round in 0..12 {
        let algorithm = algorithms[round % algorithms.len()];
        cluster.api.change_pool(|pool| algorithm.clone_into(&mut pool.algorithm)).await;
        let moved = round % backends.len();
        cluster.api.delete("backend", &ids[moved]).await;
        ids[moved] = cluster.add_backends(&[backends[moved].address()]).await.remove(0);
        load.answered(10).await;
    }
    load.stop().await.assert_flawless();
}
