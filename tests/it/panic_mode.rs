//! Few backends of a pool are well: those that accept connections help out.

use std::{collections::BTreeSet, fs, net::SocketAddr};

use lb_proto::v1::{self as pb, Health, object::Object as Any};
use lb_tests::{
    backend::Backend,
    client::get,
    eventually::eventually,
    exposition::Scrape,
    scene::{self, Scene},
    scripted::ControlPlane,
};
use serde_json::Value;

use crate::program;

/// Which bodies come in so many requests.
async fn bodies(address: SocketAddr, requests: usize) -> BTreeSet<String> {
    let mut bodies = BTreeSet::new();
    for _ in 0..requests {
        bodies.insert(get(address, "/").await.text());
    }
    bodies
}

fn set(bodies: &[&str]) -> BTreeSet<String> {
    bodies.iter().map(|body| (*body).to_owned()).collect()
}

async fn panics(admin: SocketAddr) -> f64 {
    Scrape::of(admin).await.value("lb_pool_panic{pool=\"default\"}")
}

#[tokio::test]
async fn those_that_connect_are_used_while_few_are_up_and_it_shows() {
    let [a, b, c, dead, raw] = ["a", "b", "c", "dead", "raw"].map(Backend::saying);
    let never_up = pb::BackendStatus { was_up: false, ..scene::down("raw", &raw, "check_status") };
    let backends = [
        scene::backend(&a, scene::up("a", &a)),
        scene::backend(&b, scene::down("b", &b, "check_status")),
        scene::backend(&c, scene::down("c", &c, "backend_timeout")),
        scene::backend(&dead, scene::down("dead", &dead, "backend_connect_refused")),
        scene::backend(&raw, never_up),
    ];
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("access.log");
    let mut scene = Scene::start_as(
        program(),
        ControlPlane::start().await,
        1,
        &[&format!("--access-log={}", log.display())],
        scene::pool("round_robin"),
        backends.concat(),
    )
    .await;
    assert_eq!(bodies(scene.address(), 9).await, set(&["a", "b", "c"]));
    assert_eq!(panics(scene.admin()).await, 1.0);
    let lines = eventually("nine lines of the access log", async || {
        let text = fs::read_to_string(&log).map_err(|error| error.to_string())?;
        if text.lines().count() == 9 { Ok(text) } else { Err(text) }
    })
    .await;
    for line in lines.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let reason = (line["attempts"][0]["backend"] != "a").then_some("pool_panic");
        assert_eq!(line.get("reason").and_then(Value::as_str), reason, "{line}");
    }
    // With three of four up, nobody else is needed.
    scene.tell(vec![scene::up("b", &b).into(), scene::up("c", &c).into()]).await;
    let before = dead.requests();
    assert_eq!(bodies(scene.address(), 9).await, set(&["a", "b", "c"]));
    assert_eq!(panics(scene.admin()).await, 0.0);
    assert_eq!((dead.requests(), raw.requests()), (before, 0));
    scene.tell(vec![scene::down("b", &b, "check_status").into()]).await;
    assert_eq!(bodies(scene.address(), 9).await, set(&["a", "c"]), "half of them is enough");
}

#[tokio::test]
async fn a_pool_whose_backends_are_all_ejected_uses_them_all_the_same() {
    let [a, b] = ["a", "b"].map(Backend::saying);
    let backends = [
        scene::backend(&a, scene::open("a", &a, 60_000)),
        scene::backend(&b, scene::half_open("b", &b)),
    ];
    let scene = Scene::start(program(), scene::pool("round_robin"), backends.concat()).await;
    assert_eq!(bodies(scene.address(), 4).await, set(&["a", "b"]));
    assert_eq!(panics(scene.admin()).await, 1.0);
}

#[tokio::test]
async fn without_a_threshold_a_pool_fails_closed() {
    let a = Backend::saying("a");
    let closed = pb::Pool { panic_threshold_percent: Some(0), ..scene::pool("round_robin") };
    let down = scene::backend(&a, scene::down("a", &a, "check_status"));
    let mut scene = Scene::start(program(), closed, down.into()).await;
    get(scene.address(), "/").await.expect(503, "no_healthy_backend");
    assert_eq!(panics(scene.admin()).await, 0.0);
    scene.tell(vec![Any::Pool(scene::pool("round_robin")).into()]).await;
    assert_eq!(get(scene.address(), "/").await.text(), "a");
    // Nobody knows whether it is up: there is nobody else, and that is no panic.
    let health = Health::Unknown.into();
    scene.tell(vec![pb::BackendStatus { health, ..scene::up("a", &a) }.into()]).await;
    assert_eq!(get(scene.address(), "/").await.text(), "a");
    assert_eq!(panics(scene.admin()).await, 0.0);
    let closed = pb::Pool { panic_threshold_percent: Some(0), ..scene::pool("round_robin") };
    scene.tell(vec![Any::Pool(closed).into()]).await;
    get(scene.address(), "/").await.expect(503, "no_healthy_backend");
}
