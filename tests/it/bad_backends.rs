//! One of three backends never answers, each in another way; nothing but traffic can tell.

use lb_proto::v1 as pb;
use lb_tests::{
    backend::{Action, Backend},
    cluster::{Cluster, no_checks},
    load::Load,
    port::{BlackHole, Port},
};

use crate::program;

/// A fleet of eight before two backends that are well, with short patience for each attempt.
async fn fleet() -> (Cluster, [Backend; 2]) {
    let well = [Backend::saying("well"), Backend::saying("well")];
    let cluster = Cluster::start(program(), 8).await;
    let set = |pool: &mut pb::Pool| {
        no_checks(pool);
        pool.connect_timeout_ms = 1000;
        pool.retries = Some(pb::Retries { try_timeout_ms: 1000, ..pb::Retries::default() });
    };
    cluster.api.change_pool(set).await;
    (cluster, well)
}

/// All GETs are answered, from before the bad one joins until it is out and long after.
async fn costs_no_request(bad: std::net::SocketAddr) {
    let (cluster, well) = fleet().await;
    cluster.add_backends(&[well[0].address(), well[1].address()]).await;
    let load = Load::start(&cluster.addresses(), 1);
    load.answered(100).await;
    let ids = cluster.add_backends(&[bad]).await;
    let mut events = cluster.api.watch(100).await;
    loop {
        let event = events.message().await.unwrap().expect("events go on");
        if event.r#type == "breaker_opened" && event.name == ids[0] {
            break;
        }
    }
    load.answered(500).await;
    load.stop().await.assert_flawless();
}

#[tokio::test]
async fn one_that_resets_costs_no_request() {
    let bad = Backend::scripted(|_| vec![Action::Reset]);
    costs_no_request(bad.address()).await;
}

#[tokio::test]
async fn one_that_refuses_costs_no_request() {
    let bad = Port::reserve();
    costs_no_request(bad.address()).await;
}

#[tokio::test]
async fn one_that_hangs_costs_no_request() {
    let bad = Backend::scripted(|_| vec![Action::Hang]);
    costs_no_request(bad.address()).await;
}

#[tokio::test]
async fn one_whose_backlog_is_full_costs_no_request() {
    let bad = BlackHole::open();
    costs_no_request(bad.address()).await;
}
