//! Sessions: a client stays with its backend on every proxy, through everything that leaves the
//! backend in its pool, and nobody is led anywhere by a cookie that the fleet has not given.

mod bound;
mod caching;
mod distribution;
mod drain;
mod forged;
mod full;
mod keys;
mod lasting;
mod rotation;
mod shared_routes;
mod timeout;

use std::{net::SocketAddr, time::Duration};

use lb_core::{
    affinity::{Inspected, KeyRing, Value},
    model::{BackendId, PoolName},
};
use lb_proto::v1 as pb;
use lb_tests::{
    backend::Backend,
    client::{Client, Response, exchange},
    cluster::Cluster,
    exposition::Scrape,
    scene::unix_ms,
    scripted::Proxy,
};
use tokio::sync::mpsc;

use crate::program;

/// The name of the cookie unless a pool has another.
const NAME: &str = "lb_session";

/// What a visit came to.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Visit {
    status: u16,
    /// The body: which backend answered.
    said: String,
    /// The cookie that was set, without its attributes.
    cookie: Option<String>,
}

impl Visit {
    fn of(response: &Response) -> Self {
        let set = response.field("Set-Cookie");
        let cookie = set.map(|set| set.split(';').next().unwrap_or_default().to_owned());
        Self { status: response.status, said: response.text(), cookie }
    }

    /// The cookie that this visit began a session with.
    #[track_caller]
    fn begun(&self) -> String {
        assert_eq!(self.status, 200, "{self:?}");
        self.cookie.clone().unwrap_or_else(|| panic!("a session was begun: {self:?}"))
    }
}

/// One GET, with a cookie or without.
async fn visit(address: SocketAddr, cookie: Option<&str>) -> Visit {
    let field = cookie.map(|cookie| format!("Cookie: {cookie}\r\n")).unwrap_or_default();
    let request = format!("GET / HTTP/1.1\r\nHost: test\r\n{field}Connection: close\r\n\r\n");
    let response = exchange(address, "GET", request).await;
    Visit::of(&response.unwrap_or_else(|why| panic!("no answer: {why}")))
}

/// The same on a connection that is kept.
async fn revisit(client: &mut Client, cookie: Option<&str>) -> Visit {
    let field = cookie.map(|cookie| format!("Cookie: {cookie}\r\n")).unwrap_or_default();
    client.send(format!("GET / HTTP/1.1\r\nHost: test\r\n{field}\r\n")).await;
    Visit::of(&client.response().await)
}

/// Turns sessions by cookie on.
fn sticky(pool: &mut pb::Pool) {
    pool.affinity = Some(pb::Affinity { kind: "cookie".to_owned(), ..pb::Affinity::default() });
}

/// A fleet with sessions before backends that say their own ids.
async fn fleet(proxies: usize, backends: usize) -> (Cluster, Vec<Backend>) {
    let cluster = Cluster::start(program(), proxies).await;
    cluster.api.change_pool(sticky).await;
    let backends: Vec<Backend> =
        (1..=backends).map(|number| Backend::saying(&format!("backend{number}"))).collect();
    let addresses: Vec<SocketAddr> = backends.iter().map(Backend::address).collect();
    cluster.add_backends(&addresses).await;
    (cluster, backends)
}

/// How often sessions of the pool `default` came to this, over all proxies.
async fn counted(cluster: &Cluster, proxies: usize, result: &str) -> f64 {
    let series = format!("lb_session_requests_total{{pool=\"default\",result=\"{result}\"}}");
    let mut sum = 0.0;
    for index in 0..proxies {
        sum += Scrape::of(cluster.proxy(index).admin()).await.find(&series).unwrap_or_default();
    }
    sum
}

/// The keys of a fleet, as a proxy is told them.
async fn ring(cluster: &Cluster) -> KeyRing {
    let (told, mut taken) = mpsc::unbounded_channel();
    let spy = Proxy::observed(
        cluster.api.channel(),
        "spy",
        |_| None,
        move |news| {
            told.send(news).ok();
        },
    )
    .await
    .expect("the control plane is there");
    taken.recv().await.expect("a configuration is sent");
    let held = spy.left().await;
    held.snapshot().session_keys().expect("there are keys").ring.clone()
}

/// A cookie as it would be if it had been set so long ago, with the usual TTL.
fn aged(ring: &KeyRing, cookie: &str, age: Duration) -> String {
    let (name, value) = cookie.split_once('=').unwrap();
    let now_s = unix_ms() / 1000;
    let said = Inspected::read(value.as_bytes(), Some(ring), now_s).unwrap();
    let (pool, backend) =
        (PoolName::new(&said.pool).unwrap(), BackendId::new(&said.backend).unwrap());
    let set_s = now_s - age.as_secs();
    let value = Value::sign(ring, &pool, &backend, said.incarnation, set_s, TTL);
    format!("{name}={}", str::from_utf8(value.as_bytes()).unwrap())
}

/// How long a session lives unless a pool says otherwise.
const TTL: Duration = Duration::from_secs(3600);
