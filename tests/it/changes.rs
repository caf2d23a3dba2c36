//! Changes of the configuration under load, which nobody who is served may notice.

use lb_proto::v1::{self as pb, object::Object};
use lb_tests::{
    backend::{Action, Backend, Gate, ok},
    client::{Client, get},
    cluster::{Cluster, no_checks},
    eventually::eventually,
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

/// A backend whose check, at `/slow`, is answered when the gate opens.
fn slow_to_be_checked(gate: &Gate) -> Backend {
    let gate = gate.clone();
    Backend::scripted(move |request| {
        let answer = Action::Send(ok("well"));
        match request.path() {
            "/slow" => vec![Action::Await(gate.clone()), answer],
            _ => vec![Action::ReadBody, answer],
        }
    })
}

/// A route that moves to backends which were not checked yet, and a backend that moves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_takes_the_place_of_all_that_there_was_serves_before_its_first_check() {
    let gate = Gate::default();
    let former = Backend::saying("former");
    let new = [slow_to_be_checked(&gate), slow_to_be_checked(&gate)];
    let cluster = Cluster::start(program(), 2).await;
    cluster.add_backends(&[former.address()]).await;
    let up = async |id: &str| {
        eventually("it is up", async || {
            let told = cluster.lbctl(&["get", "backends", id]).await.expect(0).stdout;
            if told.contains(" up ") { Ok(()) } else { Err(told) }
        })
        .await;
    };
    up("backend1").await;
    let [first, second] = new.each_ref().map(Backend::address);
    let text = format!(
        "pools = [{{ name = \"web\", health_path = \"/slow\", health_timeout = \"60s\" }}]\n\
         backends = [{{ id = \"one\", address = \"{first}\", pool = \"web\" }}]\n\
         routes = [{{ name = \"default\", pool = \"web\" }}]\n"
    );
    let file = cluster.path("web.toml");
    std::fs::write(&file, text).unwrap();
    let load = Load::start(&cluster.addresses(), 4);
    load.answered(100).await;
    let file = file.display().to_string();
    drop(cluster.lbctl(&["apply", "-f", &file]).await.expect(0));
    load.answered(200).await;
    let address = second.to_string();
    drop(cluster.lbctl(&["set-backend", "one", "--address", &address]).await.expect(0));
    load.answered(200).await;
    assert!(new.iter().all(|backend| backend.requests() > 100));
    load.stop().await.assert_flawless();
    // A name has to be resolved first.
    let address = format!("localhost:{}", first.port());
    drop(cluster.lbctl(&["set-backend", "one", "--address", &address]).await.expect(0));
    let is_served = async || {
        let answer = get(cluster.address(), "/").await;
        if answer.status == 200 { Ok(()) } else { Err(answer.text()) }
    };
    eventually("it is tried where its name leads", is_served).await;
    let told = cluster.lbctl(&["get", "backends", "one"]).await.expect(0).stdout;
    assert!(told.contains("unknown"), "nobody has answered its check: {told}");
    gate.open();
    up("one").await;
}
