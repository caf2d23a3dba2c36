//! Limits while a process takes over from another one and no control plane is there.

use std::time::Duration;

use lb_tests::{
    client::Client,
    cluster::{Cluster, no_checks},
    eventually::eventually,
    paced::{Arrivals, Paced},
};
use tokio::time::interval;

use crate::program;

const ARGS: [&str; 3] = ["--takeover", "--accept-grace=30s", "--workers=1"];
const GET: &str = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";
/// Of 100 a second over two proxies.
const SAFE_SHARE: f64 = 50.0;
/// Of 20 over two proxies.
const BURST: f64 = 10.0;
/// What comes at the share in a tenth of a second.
const SLACK: f64 = SAFE_SHARE / 10.0;

/// Clients whose connections are kept by the process that will be taken over, one request each.
async fn kept(cluster: &Cluster, count: usize) -> Vec<Client> {
    let mut kept = Vec::new();
    for _ in 0..count {
        let mut client = Client::connect(cluster.address()).await;
        client.send(GET).await;
        assert_eq!(client.response().await.field("Connection"), None);
        kept.push(client);
    }
    kept
}

#[tokio::test]
async fn two_processes_of_a_proxy_have_one_safe_share_between_them() {
    let backend = Arrivals::open();
    let mut cluster = Cluster::start_with(program(), 2, &ARGS).await;
    cluster.api.change_pool(no_checks).await;
    cluster.add_backends(&[backend.address()]).await;
    let limit = ["add-limit", "all", "--rate", "100/s", "--burst", "20"];
    drop(cluster.lbctl(&limit).await.expect(0));
    eventually("both have a share", async || {
        let shown = cluster.lbctl(&["get", "limits", "-o", "wide"]).await.expect(0).stdout;
        if shown.matches("leased").count() == 2 { Ok(()) } else { Err(shown) }
    })
    .await;
    let first = cluster.address();
    let load = Paced::start(&[(first, 3.0 * SAFE_SHARE)]);
    backend.within(Duration::from_secs(2)).await;
    cluster.kill_control_plane().await;
    // Leases end, and the safe shares begin.
    backend.within(Duration::from_secs(3)).await;
    let alone = backend.within(Duration::from_secs(2)).await;
    println!("one process at its safe share: {:.1} per second", alone.mean());
    assert!(alone.worst_second() as f64 <= SAFE_SHARE + BURST + SLACK, "{}", alone.worst_second());
    let clients = kept(&cluster, 400).await;
    load.stop().await;

    let mut former = cluster.take_proxy(0);
    cluster.start_proxy(0).await;
    let load = Paced::start(&[(first, 3.0 * SAFE_SHARE)]);
    let asking = tokio::spawn(async move {
        let (mut ticks, mut admitted) = (interval(Duration::from_millis(10)), 0);
        for mut client in clients {
            ticks.tick().await;
            client.send(GET).await;
            let answer = client.response().await;
            assert_eq!(answer.field("Connection"), Some("close"), "the former process answers");
            admitted += u32::from(answer.status == 200);
        }
        admitted
    });
    let seconds = 4.0;
    let both = backend.within(Duration::from_secs_f64(seconds)).await;
    let admitted = asking.await.unwrap();
    let (sum, worst) = ((both.mean() * seconds).round(), both.worst_second());
    println!("both: {sum} in {seconds} s, {worst} in the worst second; {admitted} by the former");
    // What either's bucket holds, and one share.
    let bursts = 2.0 * BURST + SLACK;
    assert!(sum <= SAFE_SHARE * seconds + bursts, "{sum} in {seconds} s");
    assert!(worst as f64 <= SAFE_SHARE + bursts, "{worst} in one second");
    assert!(f64::from(admitted) <= BURST + 1.0, "the former lets no more pass than its bucket has");
    let after = backend.within(Duration::from_secs(3)).await;
    println!("the new process: {:.1} per second", after.mean());
    assert!((0.5 * SAFE_SHARE..=SAFE_SHARE + bursts / 3.0).contains(&after.mean()));
    load.stop().await;
    assert_eq!(former.exit_code(), None, "it is there all the time");
    former.kill().await;
}
