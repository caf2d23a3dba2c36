//! Answers that take long: they speak for their backend from their beginning on.

use lb_proto::v1::{self as pb, Health};
use lb_tests::{
    backend::{Action, Backend, Gate, ok},
    client::{Client, exchange},
    cluster::Cluster,
    eventually::eventually,
    exposition::Scrape,
    scene::{self, Scene},
};

use crate::program;

const GET: &str = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";
const MARKED: &str = "GET / HTTP/1.1\r\nHost: test\r\nX-First: yes\r\n\r\n";

/// Begins an answer with this status, and ends it once the gate is open.
fn begins(status: &str, gate: &Gate) -> Vec<Action> {
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: 9\r\n\r\nbegun");
    vec![Action::Send(head.into()), Action::Await(gate.clone()), Action::Send(b"done".into())]
}

/// A client that has the beginning of its answer.
async fn begun(cluster: &Cluster, proxy: usize) -> Client {
    let mut client = Client::connect(cluster.proxy(proxy).address()).await;
    client.send(GET).await;
    assert!(client.head().await.unwrap().contains(" 200 "));
    assert_eq!(client.take(5).await.unwrap(), b"begun");
    client
}

#[tokio::test]
async fn a_proxy_with_nothing_but_streams_speaks_for_a_backend_that_another_cannot_reach() {
    let gate = Gate::default();
    let [one, two] = [gate.clone(), gate.clone()].map(|gate| {
        Backend::scripted(move |request| match request.field("X-First") {
            Some(_) => vec![Action::Send(ok("well"))],
            None => begins("200 OK", &gate),
        })
    });
    let held = gate.clone();
    let partial = Backend::scripted(move |request| match request.field("X-First") {
        Some(_) => vec![Action::Reset],
        None => begins("200 OK", &held),
    });
    let cluster = Cluster::start(program(), 2).await;
    let set = |pool: &mut pb::Pool| {
        // It avoids the backend by itself soon, and tries it soon; and what has begun is recent.
        let breaker = pb::Breaker { open_ms: 200, window_ms: 60_000, ..pb::Breaker::default() };
        pool.breaker = Some(breaker);
    };
    cluster.api.change_pool(set).await;
    let addresses = [one.address(), two.address(), partial.address()];
    let ids = cluster.add_backends(&addresses).await;
    let marked = || {
        let recorded = partial.recorded();
        recorded.iter().filter(|recorded| recorded.request.field("X-First").is_some()).count()
    };
    let mut streams = Vec::new();
    // Five would open the breaker; it is tried three times more.
    while marked() < 8 {
        let before = marked();
        for _ in 0..addresses.len() {
            streams.push(begun(&cluster, 1).await);
        }
        while marked() == before {
            let answer = exchange(cluster.proxy(0).address(), "GET", MARKED).await.unwrap();
            assert_eq!(answer.status, 200, "another backend answers");
            let status = cluster.api.backend(&ids[2]).await.status.unwrap();
            assert_eq!((status.health(), status.ejection), (Health::Up, None));
        }
    }
    let opened = "lb_breaker_transitions_total{pool=\"default\",from=\"closed\",to=\"open\",\
                  reason=\"breaker_consecutive_failures\"}";
    assert_eq!(Scrape::of(cluster.http()).await.find(opened).unwrap_or_default(), 0.0);
    assert!(partial.requests() > marked(), "it had streams of the other one");
    gate.open();
    for mut stream in streams {
        assert_eq!(stream.take(4).await.unwrap(), b"done");
    }
}

#[tokio::test]
async fn an_answer_that_takes_long_is_told_of_twice_and_is_one_success() {
    let gates = [Gate::default(), Gate::default()];
    let [held, unwell] = gates.clone();
    let backend = Backend::scripted(move |request| match request.path() {
        "/short" => vec![Action::Send(ok("short"))],
        "/unwell" => begins("500 Unwell", &unwell),
        _ => begins("200 OK", &held),
    });
    let drafts = scene::backend(&backend, scene::up("b", &backend));
    let mut scene = Scene::start(program(), scene::pool("round_robin"), drafts.into()).await;
    let mut client = Client::connect(scene.address()).await;
    let told = |report: &pb::StatsReport| {
        let told = report.backends.first()?;
        let failed = told.failures.unwrap_or_default().status_5xx;
        let counts = (told.begun, told.successes, failed);
        (counts != (0, 0, 0)).then_some(counts)
    };
    for (path, gate, counts) in [
        ("/short", None, &[(0, 1, 0)][..]),
        ("/unwell", Some(&gates[1]), &[(0, 0, 1)]),
        ("/long", Some(&gates[0]), &[(1, 0, 0), (0, 1, 0)]),
    ] {
        client.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n")).await;
        if let Some(gate) = gate {
            client.head().await.unwrap();
            assert_eq!(client.take(5).await.unwrap(), b"begun");
            if counts.len() > 1 {
                assert_eq!(scene.control_plane().statistics.find(told).await, counts[0]);
            }
            gate.open();
            assert_eq!(client.take(4).await.unwrap(), b"done");
        } else {
            client.response().await;
        }
        let last = counts.last().unwrap();
        assert_eq!(scene.control_plane().statistics.find(told).await, *last, "{path}");
    }
}

#[tokio::test]
async fn what_waits_for_an_answer_is_told_apart_from_what_has_begun_to_be_answered() {
    let gate = Gate::default();
    let held = gate.clone();
    let backend = Backend::scripted(move |request| match request.field("X-First") {
        Some(_) => vec![Action::Hang],
        None => begins("200 OK", &held),
    });
    let cluster = Cluster::start(program(), 1).await;
    let ids = cluster.add_backends(&[backend.address()]).await;
    let unanswered = async || cluster.api.backend(&ids[0]).await.unanswered;
    let mut stream = begun(&cluster, 0).await;
    let mut hanging = Vec::new();
    for _ in 0..2 {
        let mut client = Client::connect(cluster.proxy(0).address()).await;
        client.send(MARKED).await;
        hanging.push(client);
    }
    // For longer than any report takes: its checks pass all the while.
    eventually("two requests wait for long", async || match unanswered().await {
        Some(report) if report.requests == 2 && report.silent_ms > 1500 => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    assert_eq!(cluster.api.backend(&ids[0]).await.status.unwrap().health(), Health::Up);
    drop(hanging);
    eventually("only a stream is left", async || {
        let view = cluster.api.backend(&ids[0]).await;
        match (view.unanswered, view.totals.unwrap_or_default().in_flight) {
            (None, 1) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    gate.open();
    assert_eq!(stream.take(4).await.unwrap(), b"done");
}
