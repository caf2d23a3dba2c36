//! Traffic does not depend on the control plane: its death, its return, its empty return.

use lb_proto::v1::{self as pb, Health, object::Object as Any};
use lb_tests::{
    backend::Backend,
    client::{get, try_get},
    cluster::Cluster,
    eventually::eventually,
    load::Load,
};
use rustix::process::Signal;
use tokio::time::Instant;

use crate::program;

/// Two backends behind a number of proxies.
async fn serving(proxies: usize) -> (Cluster, [Backend; 2]) {
    let backends = ["a", "b"].map(Backend::saying);
    let cluster = Cluster::start(program(), proxies).await;
    cluster.add_backends(&backends.each_ref().map(Backend::address)).await;
    (cluster, backends)
}

#[tokio::test]
async fn a_killed_control_plane_costs_no_request_and_no_snapshot() {
    let (mut cluster, _backends) = serving(3).await;
    let load = Load::start(&cluster.addresses(), 2);
    load.answered(50).await;
    cluster.kill_control_plane().await;
    load.answered(300).await;
    let began = Instant::now();
    cluster.start_control_plane().await;
    cluster.settled().await;
    let took = began.elapsed();
    println!("3 proxies in sync {took:?} after the start of the control plane");
    load.answered(50).await;
    load.stop().await.assert_flawless();
    let (proxies, _) = cluster.api.try_proxies().await.unwrap();
    for proxy in proxies {
        assert_eq!(proxy.snapshots_sent, 0, "{proxy:?}");
        assert_eq!(proxy.held_source, "live", "{proxy:?}");
        assert_eq!((proxy.stale_since_unix_ms, proxy.divergences), (0, 0), "{proxy:?}");
    }
}

/// Waits until what the proxy serves is on its disk.
async fn kept_on_disk(cluster: &Cluster, index: usize, backends: usize) {
    let file = cluster.proxy(index).data_dir().join("last-good");
    eventually("the configuration is kept", async || {
        let bytes = std::fs::read(&file).unwrap_or_default();
        let up = bytes.windows(12).filter(|window| window == b"check_passed").count();
        if up == backends { Ok(()) } else { Err(format!("{up} backends up in {file:?}")) }
    })
    .await;
}

#[tokio::test]
async fn a_change_right_after_a_restart_is_not_applied_where_nobody_is_back() {
    let (mut cluster, backends) = serving(2).await;
    // In order: who has come within a tenth of a second is noted then, too.
    let mut stopping = cluster.take_control_plane();
    stopping.signal(Signal::TERM);
    stopping.exited().await;
    cluster.proxy(1).signal(Signal::STOP);
    cluster.start_control_plane().await;
    let address = backends[0].address().to_string();
    let pool = ["add-pool", "other"];
    drop(cluster.lbctl(&[&pool[..], &["--no-wait"]].concat()).await.expect(0));
    let add = ["--timeout", "2s", "add-backend", &address, "--pool", "other"];
    let late = cluster.lbctl(&add).await.expect(6);
    assert!(late.stdout.contains("applied 1/2 proxies"), "{late:?}");
    assert!(late.stderr.contains("proxy-2: not back since the control plane was"), "{late:?}");
    cluster.proxy(1).signal(Signal::CONT);
    let revision = cluster.api.revision().await;
    let wait = format!("revision/{revision}");
    let waited = cluster.lbctl(&["wait", &wait, "--timeout", "30s"]).await.expect(0);
    assert!(waited.stdout.contains("applied 2/2 proxies"), "{waited:?}");
}

#[tokio::test]
async fn an_operator_may_have_a_new_store_taken_as_it_is() {
    let (mut cluster, _backends) = serving(2).await;
    cluster.kill_control_plane().await;
    std::fs::remove_dir_all(cluster.control_plane_dir()).unwrap();
    cluster.start_control_plane().await;
    for id in ["proxy-1", "proxy-2"] {
        eventually("the proxies refuse the empty state", async || {
            let (proxies, _) = cluster.api.try_proxies().await.map_err(|e| e.to_string())?;
            let refuses = proxies.iter().any(|proxy| proxy.id == id && proxy.awaits_consent);
            if refuses { Ok(()) } else { Err(format!("{proxies:?}")) }
        })
        .await;
        let described = cluster.lbctl(&["describe", "proxy", id]).await.expect(0).stdout;
        assert!(described.contains(&format!("'lbctl adopt-store {id}'")), "{described}");
    }
    let unknown = cluster.lbctl(&["adopt-store", "proxy-3"]).await.expect(7);
    assert!(unknown.stderr.contains("proxy proxy-3 does not exist"), "{unknown:?}");
    // One of them first: the other one goes on as it was.
    drop(cluster.lbctl(&["adopt-store", "proxy-1", "--no-wait"]).await.expect(0));
    drop(cluster.lbctl(&["wait", "proxy/proxy-1", "--for", "synced"]).await.expect(0));
    assert_eq!(get(cluster.proxy(0).address(), "/").await.status, 503);
    assert_eq!(get(cluster.proxy(1).address(), "/").await.status, 200);
    let rest = cluster.lbctl(&["adopt-store"]).await.expect(0);
    assert!(rest.stdout.starts_with("proxy-2: told to take"), "{rest:?}");
    assert!(rest.stdout.contains("applied 2/2 proxies"), "{rest:?}");
    let nobody = cluster.lbctl(&["adopt-store"]).await.expect(0);
    assert!(nobody.stdout.starts_with("nothing to do"), "{nobody:?}");
    // They take part in changes again.
    let added = cluster.lbctl(&["add-pool", "other"]).await.expect(0);
    assert!(added.stdout.contains("applied 2/2 proxies"), "{added:?}");
}

#[tokio::test]
async fn a_proxy_that_is_restarted_meanwhile_serves_from_its_disk() {
    let (mut cluster, _backends) = serving(2).await;
    kept_on_disk(&cluster, 0, 2).await;
    let load = Load::start(&[cluster.proxy(1).address()], 2);
    cluster.kill_control_plane().await;
    let mut took = Vec::new();
    for _ in 0..if lb_tests::full_scale() { 10 } else { 3 } {
        cluster.kill_proxy(0).await;
        let began = Instant::now();
        cluster.start_proxy(0).await;
        let response = get(cluster.address(), "/").await;
        took.push(began.elapsed());
        assert_eq!(response.status, 200, "{response:?}");
    }
    took.sort();
    println!("from start to the first 200 without a control plane: {took:?}");
    // Ready, and honest about it.
    let ready = get(cluster.proxy(0).admin(), "/readyz?verbose").await;
    assert_eq!(ready.status, 200, "{}", ready.text());
    assert!(ready.text().contains("stale for"), "{}", ready.text());

    cluster.start_control_plane().await;
    cluster.settled().await;
    let proxy = cluster.api.proxy("proxy-1").await;
    assert_eq!((&*proxy.held_source, proxy.snapshots_sent), ("disk", 0), "{proxy:?}");
    // A proxy that needed nothing hears it with the first heartbeat.
    eventually("the proxy knows that it is in sync", async || {
        let ready = get(cluster.proxy(0).admin(), "/readyz?verbose").await.text();
        if ready.contains("stale for") { Err(ready) } else { Ok(()) }
    })
    .await;
    load.stop().await.assert_flawless();
}

#[tokio::test]
async fn an_emptied_store_never_empties_a_proxy() {
    let (mut cluster, backends) = serving(2).await;
    let load = Load::start(&cluster.addresses(), 2);
    cluster.kill_control_plane().await;
    std::fs::remove_dir_all(cluster.control_plane_dir()).unwrap();
    cluster.start_control_plane().await;
    eventually("the proxies refuse the empty state", async || {
        let (proxies, _) = cluster.api.try_proxies().await.map_err(|e| e.to_string())?;
        let refused = proxies.iter().filter(|proxy| !proxy.refusal.is_empty()).count();
        if refused == 2 { Ok(()) } else { Err(format!("{proxies:?}")) }
    })
    .await;
    load.answered(100).await;
    let status = cluster.lbctl(&["status"]).await.expect(0).stdout;
    println!("{status}");
    for part in ["proxy-1", "proxy-2", "rejected", "refused everything", "pool default"] {
        assert!(status.contains(part), "{part}: {status}");
    }

    // One backend comes back; the other one does not, which somebody wanted.
    let backend = pb::Backend { address: backends[0].address().to_string(), ..Default::default() };
    let options = pb::WriteOptions::default();
    cluster.api.put(Any::Backend(backend), options).await.unwrap();
    cluster.api.verdict("backend1", Health::Up).await;
    cluster.settled().await;
    assert_eq!(get(cluster.address(), "/").await.text(), "a");
    assert_eq!(get(cluster.address(), "/").await.text(), "a");
    load.stop().await.assert_flawless();
    let status = cluster.lbctl(&["status"]).await.expect(0).stdout;
    assert!(!status.contains("refused"), "{status}");
}

#[tokio::test]
async fn a_proxy_without_any_configuration_says_so() {
    let mut cluster = Cluster::start(program(), 1).await;
    cluster.kill_control_plane().await;
    cluster.kill_proxy(0).await;
    std::fs::remove_dir_all(cluster.proxy(0).data_dir()).unwrap();
    cluster.start_proxy(0).await;
    try_get(cluster.address(), "/").await.unwrap().expect(503, "config_missing");
    let ready = get(cluster.proxy(0).admin(), "/readyz").await;
    assert_eq!(ready.status, 503, "{}", ready.text());
    assert_eq!(get(cluster.proxy(0).admin(), "/livez").await.status, 200);
}

#[tokio::test]
async fn what_changed_while_a_proxy_was_away_reaches_it_as_a_delta() {
    let (mut cluster, _backends) = serving(2).await;
    kept_on_disk(&cluster, 0, 2).await;
    cluster.kill_proxy(0).await;
    cluster.api.change_pool(|pool| pool.algorithm = "ip_hash".to_owned()).await;
    cluster.start_proxy(0).await;
    cluster.settled().await;
    let proxy = cluster.api.proxy("proxy-1").await;
    assert_eq!((proxy.snapshots_sent, &*proxy.held_source), (0, "disk"), "{proxy:?}");
    assert!(proxy.deltas_sent >= 1, "{proxy:?}");
    let bodies =
        [get(cluster.address(), "/").await.text(), get(cluster.address(), "/").await.text()];
    assert_eq!(bodies[0], bodies[1]);
}

#[tokio::test]
async fn a_proxy_that_is_gone_is_listed_as_lost() {
    let (mut cluster, _backends) = serving(2).await;
    cluster.kill_proxy(1).await;
    drop(cluster.lbctl(&["wait", "proxy/proxy-2", "--for", "lost"]).await.expect(0));
    let status = cluster.lbctl(&["status"]).await.expect(0).stdout;
    assert!(status.contains("proxy-2 lost"), "{status}");
    // A write from now on does not wait for it.
    let added = cluster.lbctl(&["add-pool", "other"]).await.expect(0);
    assert!(added.stdout.contains("applied 1/1 proxies"), "{added:?}");
}
