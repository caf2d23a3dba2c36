//! Changes of the configuration under load, which nobody who is served may notice.

use lb_proto::v1::{self as pb, object::Object};
use lb_tests::{
    backend::Backend,
    client::Client,
    cluster::{Cluster, no_checks},
    full_scale,
    load::Load,
};
use tokio::time::Instant;

use crate::program;

const GET: &str = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_under_load_fail_nothing_and_close_no_idle_connection() {
    let count: u32 = if full_scale() { 1000 } else { 100 };
    let backends = ["a", "b", "c"].map(Backend::saying);
    let cluster = Cluster::start(program(), 1).await;
    cluster
        .api
        .change_pool(|pool| {
            no_checks(pool);
            pool.algorithm = "weighted_round_robin".to_owned();
        })
        .await;
    let addresses: Vec<_> = backends.iter().map(Backend::address).collect();
    let ids = cluster.add_backends(&addresses).await;
    let mut idle = Vec::new();
    for _ in 0..50 {
        let mut client = Client::connect(cluster.address()).await;
        client.send(GET).await;
        assert_eq!(client.response().await.status, 200);
        idle.push(client);
    }
    let load = Load::start(&[cluster.address()], 8);
    load.answered(100).await;
    let began = Instant::now();
    for number in 0..count {
        match number % 3 {
            0 => {
                let index = number as usize / 3 % ids.len();
                let backend = pb::Backend {
                    id: ids[index].clone(),
                    address: addresses[index].to_string(),
                    weight: Some(1 + number % 7),
                    ..pb::Backend::default()
                };
                cluster.api.put_applied(Object::Backend(backend)).await;
            }
            1 => cluster.api.change_pool(|pool| pool.request_timeout_ms = 10_000 + number).await,
            _ => {
                cluster
                    .api
                    .change_listener(|listener| listener.keep_alive_timeout_ms = 60_000 + number)
                    .await;
            }
        }
    }
    let took = began.elapsed();
    load.answered(100).await;
    let tally = load.stop().await;
    println!("{count} changes in {took:?}, {} answers, {} failed", tally.answered, tally.failed);
    tally.assert_flawless();
    for client in &mut idle {
        client.send(GET).await;
        assert_eq!(client.response().await.status, 200);
    }
    let connections: u64 = backends.iter().map(Backend::connections).sum();
    println!("{connections} connections to backends for all of that");
}
