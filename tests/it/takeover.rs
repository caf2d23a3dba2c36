//! A new process takes the sockets over from the old one, and no client notices.

use lb_tests::{
    backend::{Action, Backend, Gate, ok},
    client::{Client, get, try_get},
    cluster::Cluster,
    load::Load,
};
use rustix::process::Signal;

use crate::program;

/// Each start takes over if there is somebody to take over from.
const ARGS: [&str; 3] = ["--takeover", "--accept-grace=500ms", "--workers=2"];

/// Requests that are in the air while processes change; 10 000 in full.
fn requests() -> u64 {
    if std::env::var("LB_TEST_SCALE").is_ok_and(|scale| scale == "full") { 10_000 } else { 1_500 }
}

#[tokio::test]
async fn no_request_fails_while_processes_take_over_from_one_another() {
    let backend = Backend::saying("a");
    let mut cluster = Cluster::start_with(program(), 1, &ARGS).await;
    cluster.add_backends(&[backend.address()]).await;
    let address = cluster.address();
    let kept = Load::start(&[address], 8);
    // And those who connect for each request.
    let closing: Vec<_> = (0..4)
        .map(|_| {
            let count = requests() / 4;
            tokio::spawn(async move {
                for _ in 0..count {
                    assert_eq!(try_get(address, "/").await.expect("an answer").text(), "a");
                }
            })
        })
        .collect();
    let mut generations = 0;
    while generations < 3 || closing.iter().any(|client| !client.is_finished()) {
        kept.answered(requests() / 8).await;
        let mut old = cluster.take_proxy(0);
        cluster.start_proxy(0).await;
        assert_eq!(old.exited().await, 0);
        generations += 1;
    }
    for client in closing {
        client.await.expect("every request is answered");
    }
    let tally = kept.stop().await;
    println!("{} requests on kept connections, {generations} take-overs", tally.answered);
    tally.assert_flawless();
}

#[tokio::test]
async fn requests_in_flight_end_in_the_old_process_and_the_new_one_follows() {
    let gate = Gate::default();
    let held = gate.clone();
    let backend = Backend::scripted(move |request| match request.path() {
        "/slow" => vec![Action::Await(held.clone()), Action::Send(ok("slow"))],
        _ => vec![Action::Send(ok("quick"))],
    });
    let mut cluster = Cluster::start_with(program(), 1, &ARGS).await;
    cluster.add_backends(&[backend.address()]).await;
    let mut slow = Client::connect(cluster.address()).await;
    slow.send("GET /slow HTTP/1.1\r\nHost: test\r\n\r\n").await;
    backend.reached(1).await;
    let before = cluster.api.proxy("proxy-1").await;

    let mut old = cluster.take_proxy(0);
    cluster.start_proxy(0).await;
    assert_eq!(get(cluster.address(), "/").await.text(), "quick");
    cluster.settled().await;
    let after = cluster.api.proxy("proxy-1").await;
    assert_eq!(after.state, "synced");
    assert_ne!(before.instance_id, after.instance_id);
    // Readiness is that of the new process.
    assert_eq!(get(cluster.proxy(0).admin(), "/readyz").await.status, 200);
    assert_eq!(old.exit_code(), None, "it waits for the request in flight");
    gate.open();
    let response = slow.response().await;
    assert_eq!((response.status, response.text().as_str()), (200, "slow"));
    assert_eq!(response.field("Connection"), Some("close"), "{response:?}");
    assert_eq!(old.exited().await, 0);
    // A change reaches the new process.
    let second = Backend::saying("second");
    cluster.add_backends(&[second.address()]).await;
    while get(cluster.address(), "/").await.text() != "second" {}
}

#[tokio::test]
async fn a_drain_cuts_what_a_process_has_left_that_was_taken_over_twice() {
    let switching =
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n";
    let backend = Backend::scripted(move |request| match request.path() {
        "/chat" => vec![Action::Send(switching.to_vec()), Action::Hang],
        _ => vec![Action::Send(ok("drained"))],
    });
    let mut cluster = Cluster::start_with(program(), 1, &ARGS).await;
    let id = cluster.add_backends(&[backend.address()]).await.remove(0);
    let (mut chats, mut former) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        let mut chat = Client::connect(cluster.address()).await;
        let asked =
            "GET /chat HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n";
        chat.send(asked).await;
        assert_eq!(chat.response().await.status, 101);
        chats.push(chat);
        former.push(cluster.take_proxy(0));
        cluster.start_proxy(0).await;
    }
    let other = Backend::saying("other");
    cluster.add_backends(&[other.address()]).await;
    let drain = ["drain-backend", &id, "--timeout", "1s", "--wait", "--remove"];
    let told = cluster.lbctl(&drain).await.expect(0);
    assert!(told.stdout.contains("2 cut at the deadline"), "{}", told.stdout);
    for (mut chat, mut process) in chats.into_iter().zip(former) {
        assert_eq!(chat.reset().await, b"");
        assert_eq!(process.exited().await, 0);
    }
}

#[tokio::test]
async fn a_new_process_that_fails_changes_nothing() {
    let backend = Backend::saying("a");
    let mut cluster = Cluster::start_with(program(), 1, &ARGS).await;
    cluster.add_backends(&[backend.address()]).await;
    let data_dir = format!("--data-dir={}", cluster.proxy(0).data_dir().display());
    let refused = cluster
        .program()
        .run(&["data-plane", "--takeover", "--id=other", &data_dir, "--port=0"])
        .await
        .expect(78);
    assert!(refused.stderr.contains("is proxy proxy-1, not other"), "{refused:?}");
    let load = Load::start(&[cluster.address()], 4);
    load.answered(50).await;
    let (port, memory) = (format!("--port={}", cluster.address().port()), "--max-memory=1MiB");
    for _ in 0..5 {
        let bound = ["data-plane", "--takeover", &data_dir, "--host=127.0.0.1", &port, memory];
        let refused = cluster.program().run(&bound).await.expect(78);
        assert!(refused.stderr.contains("--max-memory 1MiB is too little"), "{refused:?}");
        load.answered(50).await;
    }
    load.stop().await.assert_flawless();
    assert_eq!(get(cluster.address(), "/").await.text(), "a");
    // It can still be taken over, and stopped as ever.
    let mut old = cluster.take_proxy(0);
    cluster.start_proxy(0).await;
    assert_eq!(old.exited().await, 0);
    let mut last = cluster.take_proxy(0);
    last.signal(Signal::TERM);
    assert_eq!(last.exited().await, 0);
    assert!(Client::try_connect(cluster.address()).await.is_err(), "nobody listens any more");
}
