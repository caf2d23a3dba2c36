//! A backend that has just come is led up to its share, by the clock of the control plane.

use std::{collections::BTreeMap, net::SocketAddr};

use lb_proto::v1 as pb;
use lb_tests::{
    backend::Backend,
    client::Client,
    cluster::Cluster,
    load::Load,
    scene::{self, Scene, unix_ms},
    scripted::ControlPlane,
};

use crate::program;

/// The longest there is: its ramp hardly moves while a test counts.
const DURATION_MS: u32 = 900_000;
const REQUESTS: usize = 900;

/// Which bodies come how often, on one connection.
async fn bodies(address: SocketAddr) -> BTreeMap<String, usize> {
    let mut client = Client::connect(address).await;
    let mut bodies = BTreeMap::new();
    for _ in 0..REQUESTS {
        client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
        *bodies.entry(client.response().await.text()).or_default() += 1;
    }
    bodies
}

/// A backend that has so many percent of its ramp behind it, by a clock that is ahead.
fn joining(id: &str, backend: &Backend, percent: u64, ahead_ms: u64) -> pb::BackendStatus {
    let age_ms = u64::from(DURATION_MS) * percent / 100;
    let since_unix_ms = unix_ms() + ahead_ms - age_ms;
    let slow_start = pb::SlowStart { since_unix_ms, duration_ms: DURATION_MS };
    pb::BackendStatus { slow_start: Some(slow_start), ..scene::up(id, backend) }
}

#[track_caller]
fn assert_near(found: &BTreeMap<String, usize>, body: &str, share: f64) {
    let count = found.get(body).copied().unwrap_or(0) as f64;
    let expected = share * REQUESTS as f64;
    // Four standard deviations of as many independent picks.
    let tolerance = 4.0 * (REQUESTS as f64 * share * (1.0 - share)).sqrt();
    assert!((count - expected).abs() <= tolerance, "{body}: {count}, not {expected}: {found:?}");
}

#[tokio::test]
async fn the_share_of_a_newcomer_follows_the_ramp_on_every_proxy() {
    let [a, b, c] = ["a", "b", "c"].map(Backend::saying);
    let ahead_ms = 7_200_000;
    let mut control_plane = ControlPlane::start().await;
    control_plane.ahead_ms = ahead_ms;
    let warm = [scene::backend(&a, scene::up("a", &a)), scene::backend(&b, scene::up("b", &b))];
    let new = scene::backend(&c, joining("c", &c, 50, ahead_ms));
    let backends = [warm.concat(), new.to_vec()].concat();
    let pool = scene::pool("round_robin");
    let mut scene = Scene::start_as(program(), control_plane, 2, &[], pool, backends).await;
    // Of every two turns of the newcomer, one is passed on.
    for address in scene.addresses() {
        assert_near(&bodies(address).await, "c", 0.5 / 3.0);
    }
    // From the beginning on it gets a tenth of its turns; at the end all of them.
    scene.tell(vec![joining("c", &c, 0, ahead_ms).into()]).await;
    assert_near(&bodies(scene.address()).await, "c", 0.1 / 3.0);
    scene.tell(vec![joining("c", &c, 100, ahead_ms).into()]).await;
    assert_eq!(bodies(scene.address()).await["c"], REQUESTS / 3);
}

#[tokio::test]
async fn the_control_plane_tells_when_a_ramp_began() {
    let [a, b] = ["a", "b"].map(Backend::saying);
    let cluster = Cluster::start(program(), 2).await;
    cluster.add_backends(&[a.address()]).await;
    cluster.api.change_pool(|pool| pool.slow_start_ms = Some(DURATION_MS)).await;
    // Without traffic there is nothing to spare a newcomer.
    let load = Load::start(&cluster.addresses(), 2);
    load.answered(2500).await;
    cluster.add_backends(&[b.address()]).await;
    cluster.settled().await;
    for address in cluster.addresses() {
        assert_near(&bodies(address).await, "b", 0.1 / 2.0);
    }
    load.stop().await.assert_flawless();
}

#[tokio::test]
async fn least_connections_does_not_starve_a_newcomer() {
    let [a, b, c] = ["a", "b", "c"].map(Backend::saying);
    let warm = [scene::backend(&a, scene::up("a", &a)), scene::backend(&b, scene::up("b", &b))];
    let backends = [warm.concat(), scene::backend(&c, joining("c", &c, 50, 0)).to_vec()].concat();
    let scene = Scene::start(program(), scene::pool("least_connections"), backends).await;
    assert_near(&bodies(scene.address()).await, "c", 0.5 / 3.0);
}

#[tokio::test]
async fn nobody_is_led_up_where_nobody_is_warm_nor_where_clients_belong_to_backends() {
    let [a, b] = ["a", "b"].map(Backend::saying);
    let new =
        [scene::backend(&a, joining("a", &a, 10, 0)), scene::backend(&b, joining("b", &b, 90, 0))];
    let mut scene = Scene::start(program(), scene::pool("round_robin"), new.concat()).await;
    assert_eq!(bodies(scene.address()).await["a"], REQUESTS / 2);
    let pool = scene::pool("ip_hash");
    scene.tell(vec![pb::object::Object::Pool(pool).into()]).await;
    scene.tell(vec![scene::up("a", &a).into()]).await;
    // All of them are one client.
    assert_eq!(bodies(scene.address()).await.len(), 1);
    scene.tell(vec![joining("a", &a, 0, 0).into(), scene::up("b", &b).into()]).await;
    assert_eq!(bodies(scene.address()).await.len(), 1);
}
