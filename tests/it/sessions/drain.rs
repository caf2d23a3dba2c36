//! A drain leaves clients their sessions until a little before its deadline.

use lb_tests::eventually::eventually;

use super::{counted, fleet, visit};

#[tokio::test]
async fn a_draining_backend_keeps_its_sessions_and_nothing_is_cut_when_they_move() {
    let (cluster, _backends) = fleet(2, 2).await;
    let mut first = visit(cluster.address(), None).await;
    while first.said != "backend1" {
        first = visit(cluster.address(), None).await;
    }
    let cookie = first.begun();
    drop(cluster.lbctl(&["--timeout", "6s", "drain-backend", "backend1"]).await.expect(0));
    for address in cluster.addresses() {
        for _ in 0..4 {
            assert_eq!(visit(address, None).await.said, "backend2", "no new clients");
        }
        assert_eq!(visit(address, Some(&cookie)).await.said, "backend1");
    }
    // What is still asked for there is told.
    let shown = eventually("its sessions are counted", async || {
        visit(cluster.address(), Some(&cookie)).await;
        let shown = cluster.lbctl(&["describe", "backend", "backend1"]).await.expect(0).stdout;
        if shown.contains("its sessions stay for") && !shown.contains("(0 requests") {
            Ok(shown)
        } else {
            Err(shown)
        }
    })
    .await;
    println!("{shown}");
    // They are given another backend before the deadline, and the drain ends with nothing cut.
    let moved = eventually("its sessions have moved", async || {
        let visit = visit(cluster.proxy(1).address(), Some(&cookie)).await;
        if visit.said == "backend2" { Ok(visit) } else { Err(format!("{visit:?}")) }
    })
    .await;
    moved.begun();
    let drained = eventually("it is drained", async || {
        let view = cluster.api.backend("backend1").await;
        let drain = view.backend.and_then(|backend| backend.drain).unwrap();
        if drain.ended { Ok(drain) } else { Err(format!("{drain:?}")) }
    })
    .await;
    assert_eq!(drained.cut, 0);
    assert!(counted(&cluster, 2, "drained").await >= 1.0);
}
