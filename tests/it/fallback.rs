//! A pool that has no backend for its requests: another one takes them, or they get an answer
//! that was written down; with the control plane away, too.

use lb_tests::{
    backend::{Action, Backend, ok},
    client::get,
    cluster::{Cluster, no_checks},
    exposition::Scrape,
};

use crate::program;

#[tokio::test]
async fn another_pool_serves_and_then_the_answer_that_was_written_down() {
    let spare = Backend::scripted(|_| vec![Action::Send(ok("spare"))]);
    let mut cluster = Cluster::start(program(), 2).await;
    cluster.api.change_pool(no_checks).await;
    let run = async |cluster: &Cluster, args: &[&str]| cluster.lbctl(args).await;

    // What refers to nothing, or to itself, is refused and changes nothing.
    let bad = run(&cluster, &["set-pool", "default", "--fallback-pool", "spare"]).await;
    assert!(bad.stderr.contains("\"spare\", which does not exist"), "{}", bad.stderr);
    let bad = run(&cluster, &["set-pool", "default", "--fallback-pool", "default"]).await;
    assert!(bad.stderr.contains("is its own fallback"), "{}", bad.stderr);

    drop(run(&cluster, &["add-pool", "spare", "--health", "none"]).await.expect(0));
    let address = spare.address().to_string();
    let set: [&[&str]; 3] = [
        &["add-backend", &address, "--pool", "spare", "--id", "s1"],
        &["set-pool", "default", "--fallback-pool", "spare"],
        &["set-pool", "default", "--fallback-status", "200", "--fallback-body", "back soon"],
    ];
    for args in set {
        drop(run(&cluster, args).await.expect(0));
    }
    let removed = run(&cluster, &["remove-pool", "spare"]).await;
    assert!(removed.stderr.contains("pool default, as its fallback"), "{}", removed.stderr);
    let page = run(&cluster, &["describe", "pool", "default"]).await.expect(0).stdout;
    assert!(page.contains("spare") && page.contains("back soon"), "{page}");

    for address in cluster.addresses() {
        assert_eq!(get(address, "/").await.text(), "spare");
    }
    drop(run(&cluster, &["disable-backend", "s1"]).await.expect(0));
    cluster.kill_control_plane().await;
    for address in cluster.addresses() {
        let response = get(address, "/").await;
        assert_eq!((response.status, response.text().as_str()), (200, "back soon"));
        assert_eq!(response.field("Content-Type"), Some("text/plain; charset=utf-8"));
    }
    let scrape = Scrape::of(cluster.proxy(0).admin()).await;
    for (to, count) in [("pool", 1.0), ("answer", 1.0)] {
        let series = format!("lb_pool_fallbacks_total{{pool=\"default\",to=\"{to}\"}}");
        assert!((scrape.value(&series) - count).abs() < f64::EPSILON, "{series}");
    }
}
