//! Who gets which request, as clients see it.

use std::{collections::BTreeMap, net::SocketAddr};

use lb_proto::v1::object::Object as Any;
use lb_tests::{
    backend::{Action, Backend, Gate, ok},
    client::{Client, exchange, get},
    cluster::Cluster,
};

use crate::{one_proxy, program};

fn three_backends() -> [Backend; 3] {
    ["a", "b", "c"].map(Backend::saying)
}

async fn set_algorithm(cluster: &Cluster, algorithm: &str) {
    cluster.api.change_pool(|pool| algorithm.clone_into(&mut pool.algorithm)).await;
}

async fn ask(proxy: SocketAddr, times: usize) -> Vec<String> {
    let mut bodies = Vec::new();
    for _ in 0..times {
        bodies.push(get(proxy, "/").await.text());
    }
    bodies
}

fn count(bodies: &[String]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for body in bodies {
        *counts.entry(body.as_str()).or_default() += 1;
    }
    counts
}

#[tokio::test]
async fn round_robin_is_exact_over_all_workers_and_connections() {
    let [a, b, c] = three_backends();
    let cluster = one_proxy(&[&a, &b, &c]).await;
    assert_eq!(ask(cluster.address(), 7).await, ["a", "b", "c", "a", "b", "c", "a"]);
}

#[tokio::test]
async fn weights_of_1_2_1_give_5_10_5_of_20_requests() {
    let [a, b, c] = three_backends();
    let cluster = Cluster::start(program(), 1).await;
    set_algorithm(&cluster, "weighted_round_robin").await;
    for (backend, weight) in [(&a, 1), (&b, 2), (&c, 1)] {
        cluster.api.add_backend(backend.address(), weight).await;
    }
    cluster.settled().await;
    let bodies = ask(cluster.address(), 20).await;
    assert_eq!(count(&bodies), BTreeMap::from([("a", 5), ("b", 10), ("c", 5)]), "{bodies:?}");
    // Smoothly: nobody gets three in a row.
    assert!(!bodies.windows(3).any(|three| three[0] == three[1] && three[1] == three[2]));
}

#[tokio::test]
async fn weight_0_takes_nothing() {
    let [a, b, c] = three_backends();
    let cluster = Cluster::start(program(), 1).await;
    for (backend, weight) in [(&a, 1), (&b, 0), (&c, 1)] {
        cluster.api.add_backend(backend.address(), weight).await;
    }
    cluster.settled().await;
    assert_eq!(ask(cluster.address(), 4).await, ["a", "c", "a", "c"]);
}

async fn ask_for(proxy: SocketAddr, client: &str) -> String {
    let request = format!(
        "GET / HTTP/1.1\r\nHost: test\r\nX-Forwarded-For: {client}\r\nConnection: close\r\n\r\n"
    );
    exchange(proxy, "GET", request).await.expect("an answer").text()
}

#[tokio::test]
async fn ip_hash_sticks_to_the_client_that_a_believed_peer_names() {
    let [a, b, c] = three_backends();
    let cluster = one_proxy(&[&a, &b, &c]).await;
    set_algorithm(&cluster, "ip_hash").await;
    let clients: Vec<String> = (1..=24).map(|n| format!("203.0.113.{n}")).collect();

    // Nobody is believed yet: all requests come from this machine.
    let mut bodies = Vec::new();
    for client in &clients {
        bodies.push(ask_for(cluster.address(), client).await);
    }
    assert_eq!(count(&bodies).len(), 1, "{bodies:?}");

    cluster.api.change_listener(|listener| "always".clone_into(&mut listener.trust_xff)).await;
    let mut homes = Vec::new();
    for client in &clients {
        homes.push(ask_for(cluster.address(), client).await);
    }
    assert_eq!(count(&homes).len(), 3, "24 clients reach all three: {homes:?}");
    for (client, home) in clients.iter().zip(&homes) {
        assert_eq!(ask_for(cluster.address(), client).await, *home, "{client}");
    }
}

#[tokio::test]
async fn ip_hash_agrees_on_all_proxies() {
    let [a, b, c] = three_backends();
    let cluster = Cluster::start(program(), 2).await;
    set_algorithm(&cluster, "ip_hash").await;
    cluster.api.change_listener(|listener| "always".clone_into(&mut listener.trust_xff)).await;
    cluster.add_backends(&[a.address(), b.address(), c.address()]).await;
    for n in 1..=10 {
        let client = format!("198.51.100.{n}");
        let [one, other] = cluster.addresses()[..] else { panic!("two proxies") };
        assert_eq!(ask_for(one, &client).await, ask_for(other, &client).await, "{client}");
    }
}

#[tokio::test]
async fn least_connections_spreads_requests_that_take_long() {
    let gate = Gate::default();
    let slow = |body: &'static str| {
        let gate = gate.clone();
        Backend::scripted(move |_| vec![Action::Await(gate.clone()), Action::Send(ok(body))])
    };
    let backends = [slow("a"), slow("b"), slow("c")];
    let cluster = one_proxy(&[&backends[0], &backends[1], &backends[2]]).await;
    set_algorithm(&cluster, "least_connections").await;
    let mut clients = Vec::new();
    for sent in 1..=9 {
        let mut client = Client::connect(cluster.address()).await;
        client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
        clients.push(client);
        // The next one chooses when this one counts.
        lb_tests::eventually::eventually("the request arrives", async || {
            let arrived: usize = backends.iter().map(Backend::requests).sum();
            if arrived == sent { Ok(()) } else { Err(arrived) }
        })
        .await;
    }
    assert_eq!(backends.each_ref().map(Backend::requests), [3, 3, 3]);
    gate.open();
    for mut client in clients {
        assert_eq!(client.response().await.status, 200);
    }
}

#[tokio::test]
async fn routes_choose_the_pool_by_host_and_path() {
    let (web, api) = (Backend::saying("web"), Backend::saying("api"));
    let cluster = one_proxy(&[&web]).await;
    let pool = lb_proto::v1::Pool { name: "api".to_owned(), ..Default::default() };
    cluster.api.put_applied(Any::Pool(pool)).await;
    let backend = lb_proto::v1::Backend {
        pool: "api".to_owned(),
        address: api.address().to_string(),
        ..Default::default()
    };
    cluster.api.put_applied(Any::Backend(backend)).await;
    let route = lb_proto::v1::Route {
        name: "api".to_owned(),
        path_prefix: "/api".to_owned(),
        pool: "api".to_owned(),
        ..Default::default()
    };
    cluster.api.put_applied(Any::Route(route)).await;
    cluster.settled().await;
    for (path, body) in [("/", "web"), ("/api/users", "api"), ("/api", "api"), ("/apiary", "web")] {
        assert_eq!(get(cluster.address(), path).await.text(), body, "{path}");
    }
}
