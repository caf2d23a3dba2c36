//! A client whose backend has as many requests as it may have: it goes elsewhere for one request
//! and belongs where it did, or waits.

use std::time::Duration;

use lb_tests::{
    backend::{Action, Backend, Gate, ok},
    client::{Client, exchange},
    cluster::{Cluster, no_checks},
    eventually::eventually,
    exposition::Scrape,
};

use super::{aged, counted, ring, sticky, visit};
use crate::program;

/// A fleet of one before a backend that takes one request at a time, and another one.
struct Scene {
    cluster: Cluster,
    own: Backend,
    _other: Backend,
    /// Of a client of the first.
    cookie: String,
    gate: Gate,
}

async fn scene() -> Scene {
    let gate = Gate::default();
    let held = gate.clone();
    let own = Backend::scripted(move |request| match request.path() {
        "/slow" => vec![Action::Await(held.clone()), Action::Send(ok("own, late"))],
        _ => vec![Action::Send(ok("own"))],
    });
    let cluster = Cluster::start(program(), 1).await;
    cluster.api.change_pool(no_checks).await;
    cluster.api.change_pool(sticky).await;
    let ids = cluster.add_backends(&[own.address()]).await;
    let cookie = visit(cluster.address(), None).await.begun();
    let other = Backend::saying("other");
    cluster.add_backends(&[other.address()]).await;
    drop(cluster.lbctl(&["set-backend", &ids[0], "--max-in-flight", "1"]).await.expect(0));
    Scene { cluster, own, _other: other, cookie, gate }
}

impl Scene {
    /// Sends a request that takes the one place, and stays; once the proxy has been lent it.
    async fn fill(&self) -> Client {
        let before = self.own.requests();
        let mut client = Client::connect(self.cluster.address()).await;
        loop {
            self.ask(&mut client, "/slow").await;
            tokio::select! {
                _ = self.own.reached(before + 1) => return client,
                elsewhere = client.response() => {
                    assert_eq!(elsewhere.text(), "other");
                    // A connection has so many requests at most.
                    if elsewhere.field("Connection") == Some("close") {
                        client = Client::connect(self.cluster.address()).await;
                    }
                }
            }
        }
    }

    async fn ask(&self, client: &mut Client, path: &str) {
        let cookie = &self.cookie;
        client.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\nCookie: {cookie}\r\n\r\n")).await;
    }
}

#[tokio::test]
async fn a_client_goes_elsewhere_for_one_request_and_keeps_its_session() {
    let scene = scene().await;
    let ring = ring(&scene.cluster).await;
    let address = scene.cluster.address();
    let mut first = scene.fill().await;
    for _ in 0..3 {
        let elsewhere = visit(address, Some(&scene.cookie)).await;
        assert_eq!((elsewhere.said.as_str(), &elsewhere.cookie), ("other", &None));
    }
    assert!(counted(&scene.cluster, 1, "at_cap").await >= 3.0);
    // Its time goes on meanwhile: it is renewed, for its own backend.
    let old = aged(&ring, &scene.cookie, Duration::from_secs(600));
    let renewed = visit(address, Some(&old)).await;
    assert_eq!(renewed.said, "other");
    let renewed = renewed.begun();
    // Whoever has none gets one of the backend that answers.
    let new = visit(address, None).await;
    assert_eq!(new.said, "other");
    let new = new.begun();

    scene.gate.open();
    assert_eq!(first.response().await.text(), "own, late");
    for cookie in [&scene.cookie, &renewed] {
        eventually("the client is where it belongs", async || {
            let visit = visit(address, Some(cookie)).await;
            if visit.said == "own" { Ok(()) } else { Err(format!("{visit:?}")) }
        })
        .await;
    }
    assert_eq!(visit(address, Some(&new)).await.said, "other");
}

/// A backend that drains keeps its clients and is not picked: so they may be left with no other.
#[tokio::test]
async fn a_client_that_its_pool_has_no_other_backend_for_gets_the_fallback_pools() {
    let scene = scene().await;
    let address = scene.cluster.address();
    let run = async |args: &[&str]| drop(scene.cluster.lbctl(args).await.expect(0));
    let mut first = scene.fill().await;
    run(&["disable-backend", "backend2"]).await;
    run(&["drain-backend", "backend1"]).await;
    // Nobody else could serve it: it waits.
    let mut waits = Client::connect(address).await;
    scene.ask(&mut waits, "/").await;
    eventually("it waits", async || {
        let scrape = Scrape::of(scene.cluster.proxy(0).admin()).await;
        let waits = scrape.value("lb_queue_depth{pool=\"default\"}");
        if waits == 1.0 { Ok(()) } else { Err(waits) }
    })
    .await;
    let spare = Backend::saying("spare");
    run(&["add-pool", "spare", "--health", "none"]).await;
    run(&["add-backend", &spare.address().to_string(), "--pool", "spare"]).await;
    run(&["set-pool", "default", "--fallback-pool", "spare"]).await;
    let elsewhere = visit(address, Some(&scene.cookie)).await;
    assert_eq!((elsewhere.said.as_str(), &elsewhere.cookie), ("spare", &None));
    assert_eq!(visit(address, None).await.said, "spare");

    scene.gate.open();
    assert_eq!(first.response().await.text(), "own, late");
    assert_eq!(waits.response().await.text(), "own");
    eventually("it is back where it belongs", async || {
        let visit = visit(address, Some(&scene.cookie)).await;
        if visit.said == "own" { Ok(()) } else { Err(format!("{visit:?}")) }
    })
    .await;
}

#[tokio::test]
async fn a_client_of_a_strict_pool_waits_in_line_and_is_told_when_that_was_in_vain() {
    let scene = scene().await;
    let address = scene.cluster.address();
    let set = ["set-pool", "default", "--session-strict", "true", "--queue-timeout", "200ms"];
    drop(scene.cluster.lbctl(&set).await.expect(0));
    let mut first = scene.fill().await;
    let request = format!(
        "GET / HTTP/1.1\r\nHost: test\r\nCookie: {}\r\nConnection: close\r\n\r\n",
        scene.cookie
    );
    let in_vain = exchange(address, "GET", &request).await.unwrap();
    in_vain.expect(503, "queue_timeout");
    assert_eq!(in_vain.field("Set-Cookie"), None, "the session goes on");
    assert!(in_vain.field("Retry-After").is_some());
    // Others do not wait for it.
    assert_eq!(visit(address, None).await.said, "other");

    drop(scene.cluster.lbctl(&["set-pool", "default", "--queue-timeout", "60s"]).await.expect(0));
    let mut second = Client::connect(address).await;
    scene.ask(&mut second, "/").await;
    eventually("it waits", async || {
        let scrape = Scrape::of(scene.cluster.proxy(0).admin()).await;
        let waits = scrape.value("lb_queue_depth{pool=\"default\"}");
        if waits == 1.0 { Ok(()) } else { Err(waits) }
    })
    .await;
    scene.gate.open();
    assert_eq!(first.response().await.text(), "own, late");
    let waited = second.response().await;
    assert_eq!((waited.status, waited.text().as_str()), (200, "own"));
    assert_eq!(waited.field("Set-Cookie"), None);
    assert_eq!(counted(&scene.cluster, 1, "at_cap").await, 0.0);
}
