//! What a session lasts through.

use std::time::Duration;

use lb_core::affinity::cookie::SKEW_S;
use lb_tests::{
    backend::Backend,
    cluster::{Cluster, no_checks},
    wall_clock::WallClock,
};

use super::{TTL, aged, counted, fleet, ring, sticky, visit};
use crate::program;

const PROXIES: usize = 8;

/// Every session is kept by every proxy.
async fn all_hold(cluster: &Cluster, sessions: &[(String, String)], after: &str) {
    for (number, address) in cluster.addresses().into_iter().enumerate() {
        for (cookie, backend) in sessions {
            let visit = visit(address, Some(cookie)).await;
            assert_eq!(visit.said, *backend, "proxy-{} after {after}: {visit:?}", number + 1);
        }
    }
    println!("{} sessions held on {PROXIES} proxies after {after}", sessions.len());
}

async fn restart_all(cluster: &mut Cluster) {
    for index in 0..PROXIES {
        cluster.kill_proxy(index).await;
        cluster.start_proxy(index).await;
    }
}

#[tokio::test]
async fn a_session_lasts_through_restarts_rotations_changes_and_a_control_plane_that_is_away() {
    let (mut cluster, backends) = fleet(PROXIES, 5).await;
    let mut sessions = Vec::new();
    for _ in 0..12 {
        let first = visit(cluster.address(), None).await;
        // The fifth backend will be removed.
        if first.said != "backend5" {
            sessions.push((first.begun(), first.said));
        }
    }
    all_hold(&cluster, &sessions, "they were begun on the first").await;

    cluster.kill_proxy(2).await;
    cluster.start_proxy(2).await;
    all_hold(&cluster, &sessions, "a restart of the third").await;

    let more = [Backend::saying("backend6"), Backend::saying("backend7")];
    cluster.add_backends(&[more[0].address(), more[1].address()]).await;
    drop(cluster.lbctl(&["set-backend", "backend2", "--weight", "7"]).await.expect(0));
    drop(cluster.lbctl(&["set-backend", "backend3", "--weight", "0"]).await.expect(0));
    drop(cluster.lbctl(&["remove-backend", "backend5"]).await.expect(0));
    drop(cluster.lbctl(&["set-algorithm", "default", "weighted_round_robin"]).await.expect(0));
    all_hold(&cluster, &sessions, "others were added, weighted and removed").await;

    let rotated = cluster.lbctl(&["rotate-session-keys"]).await.expect(0).stdout;
    assert!(rotated.contains("1 former key is believed"), "{rotated}");
    all_hold(&cluster, &sessions, "a rotation of keys").await;
    // What was signed with the former key is signed anew.
    let renewed = visit(cluster.proxy(5).address(), Some(&sessions[0].0)).await;
    let renewed = (renewed.begun(), renewed.said);
    assert!(renewed.1 == sessions[0].1 && renewed.0 != sessions[0].0);
    sessions.push(renewed);
    restart_all(&mut cluster).await;
    cluster.settled().await;
    all_hold(&cluster, &sessions, "a restart of all").await;

    cluster.kill_control_plane().await;
    all_hold(&cluster, &sessions, "the control plane was killed").await;
    restart_all(&mut cluster).await;
    all_hold(&cluster, &sessions, "a restart of all without a control plane").await;
    let new = visit(cluster.address(), None).await;
    sessions.push((new.begun(), new.said));
    all_hold(&cluster, &sessions, "one more was begun without it").await;

    cluster.start_control_plane().await;
    cluster.settled().await;
    // It waits for three leases, in which proxies may be on their way back.
    drop(cluster.lbctl(&["--timeout", "1m", "rotate-session-keys"]).await.expect(0));
    all_hold(&cluster, &sessions, "a second rotation, by a new control plane").await;
    drop(backends);
}

#[tokio::test]
async fn a_backend_that_was_removed_and_added_again_does_not_inherit_sessions() {
    let (cluster, backends) = fleet(3, 2).await;
    let mut first = visit(cluster.address(), None).await;
    if first.said != "backend1" {
        first = visit(cluster.address(), None).await;
    }
    let cookie = first.begun();
    drop(cluster.lbctl(&["remove-backend", "backend1"]).await.expect(0));
    let gone = visit(cluster.proxy(1).address(), Some(&cookie)).await;
    assert_eq!(gone.said, "backend2");
    assert!(gone.begun() != cookie);
    assert_eq!(counted(&cluster, 3, "gone").await, 1.0);

    let address = backends[0].address().to_string();
    drop(cluster.lbctl(&["add-backend", &address, "--id", "backend1"]).await.expect(0));
    cluster.settled().await;
    let shown = cluster.lbctl(&["describe", "session", &cookie]).await.expect(0).stdout;
    assert!(shown.contains("session: other_incarnation"), "{shown}");
    for index in 0..3 {
        let other = visit(cluster.proxy(index).address(), Some(&cookie)).await;
        // Picked for like any new client, and told so.
        assert_ne!(other.begun(), cookie);
    }
    assert_eq!(counted(&cluster, 3, "other_incarnation").await, 3.0);
}

/// A session is what its cookie says, so one that was signed in the past is as old as that.
#[tokio::test]
async fn a_session_slides_and_ends_on_every_proxy() {
    let (cluster, _backends) = fleet(3, 3).await;
    let first = visit(cluster.address(), None).await;
    let (cookie, backend) = (first.begun(), first.said);
    let ring = ring(&cluster).await;
    let skew = Duration::from_secs(SKEW_S);
    for address in cluster.addresses() {
        let after = async |age| visit(address, Some(&aged(&ring, &cookie, age))).await;
        let fresh = after(TTL / 20).await;
        assert_eq!((fresh.said, fresh.cookie), (backend.clone(), None));
        for age in [TTL / 5, TTL, TTL + skew / 2] {
            let slid = after(age).await;
            assert_eq!(slid.said, backend);
            let renewed = visit(address, Some(&slid.begun())).await;
            assert_eq!((renewed.said, renewed.cookie), (backend.clone(), None));
        }
        for age in [TTL + skew + Duration::from_secs(2), 2 * TTL, 100 * TTL] {
            after(age).await.begun();
        }
    }
    assert_eq!(counted(&cluster, 3, "expired").await, 9.0);
}

#[tokio::test]
async fn a_session_slides_and_ends_by_the_wall_clock() {
    let Some(clock) = WallClock::new() else {
        eprintln!("there is no libfaketime here, so no time passes");
        return;
    };
    let cluster = Cluster::start(program().with_wall_clock(&clock), 2).await;
    cluster.api.change_pool(no_checks).await;
    cluster
        .api
        .change_pool(|pool| {
            sticky(pool);
            pool.affinity.as_mut().unwrap().ttl_ms = 3 * 24 * 3_600_000;
        })
        .await;
    let backends = [Backend::saying("backend1"), Backend::saying("backend2")];
    cluster.add_backends(&[backends[0].address(), backends[1].address()]).await;
    let first = visit(cluster.address(), None).await;
    let (cookie, backend) = (first.begun(), first.said);
    assert_eq!(visit(cluster.address(), Some(&cookie)).await.cookie, None, "it is fresh");
    clock.set(2);
    let slid = visit(cluster.proxy(1).address(), Some(&cookie)).await;
    assert_eq!(slid.said, backend);
    let renewed = slid.begun();
    // Three days after it was begun, and two after it was renewed.
    clock.set(4);
    assert_eq!(visit(cluster.address(), Some(&renewed)).await.said, backend);
    visit(cluster.address(), Some(&cookie)).await.begun();
    assert_eq!(counted(&cluster, 2, "expired").await, 1.0);
}
