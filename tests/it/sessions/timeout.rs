//! `--session-timeout` of the control plane: sessions without a file of declared state.

use lb_tests::{backend::Backend, cluster::Cluster};

use super::visit;
use crate::{program, seed_rest::ask};

#[tokio::test]
async fn a_control_plane_is_started_with_sessions() {
    let cluster = Cluster::start_as(program(), 1, &[], &["--session-timeout", "5m"]).await;
    let backends = [Backend::saying("one"), Backend::saying("two")];
    cluster.add_backends(&[backends[0].address(), backends[1].address()]).await;
    let first = visit(cluster.address(), None).await;
    for _ in 0..3 {
        assert_eq!(visit(cluster.address(), Some(&first.begun())).await.said, first.said);
    }
    assert_eq!(
        ask(cluster.http(), "GET", "/lb/config", "", "").await.json()["SESSION_TIMEOUT"],
        300
    );
    let pool = cluster.lbctl(&["describe", "pool", "default"]).await.expect(0).stdout;
    assert!(pool.contains("5m"), "{pool}");
}

#[tokio::test]
async fn it_is_applied_at_every_start_and_leaves_the_rest_of_the_cookie_alone() {
    let mut cluster = Cluster::start_as(program(), 1, &[], &["--session-timeout", "5m"]).await;
    let set = ["set-pool", "default", "--session-ttl", "2h", "--session-cookie", "own"];
    drop(cluster.lbctl(&set).await.expect(0));
    cluster.kill_control_plane().await;
    cluster.start_control_plane().await;
    let affinity = cluster.api.pool().await.affinity.unwrap();
    assert_eq!((affinity.ttl_ms, affinity.cookie.as_str()), (300_000, "own"));
    let revision = cluster.api.revision().await;
    cluster.kill_control_plane().await;
    cluster.start_control_plane().await;
    assert_eq!(cluster.api.revision().await, revision, "a restart leaves no trace");
}

#[tokio::test]
async fn what_makes_no_sense_is_told_in_one_sentence() {
    let directory = tempfile::tempdir().unwrap();
    let data_dir = format!("--data-dir={}", directory.path().display());
    let run = async |args: &[&str]| {
        let base = ["control-plane", "--grpc=127.0.0.1:0", "--http=127.0.0.1:0", &data_dir];
        program().run(&[&base, args].concat()).await
    };
    let bad = run(&["--session-timeout=8d"]).await.expect(2).stderr;
    assert!(bad.contains("1s to 7d, in whole seconds"), "{bad}");
    let both = run(&["--session-timeout=1h", "--config=lb.toml"]).await.expect(2).stderr;
    assert!(both.contains("cannot be used with"), "{both}");
}
