//! How a proxy starts and ends.

use std::{net::SocketAddr, time::Duration};

use lb_tests::{
    backend::{Action, Backend, Gate, ok},
    client::{Client, get},
    cluster::Cluster,
    eventually::eventually,
    load::Load,
    port::Port,
    process::Process,
};
use rustix::process::Signal;
use tokio::time::Instant;

use crate::program;

#[tokio::test]
async fn sigterm_lets_requests_in_flight_complete() {
    let gate = Gate::default();
    let held = gate.clone();
    let backend = Backend::scripted(move |request| match request.path() {
        "/slow" => vec![Action::Await(held.clone()), Action::Send(ok("slow"))],
        _ => vec![Action::Send(ok("quick"))],
    });
    let args = ["--accept-grace=0s", "--drain-timeout=30s"];
    let mut cluster = Cluster::start_with(program(), 1, &args).await;
    cluster.add_backends(&[backend.address()]).await;
    let address = cluster.address();
    let mut slow = Client::connect(address).await;
    slow.send("GET /slow HTTP/1.1\r\nHost: test\r\n\r\n").await;
    backend.reached(1).await;
    // One that is between two requests.
    let mut idle = Client::connect(address).await;
    idle.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
    assert_eq!(idle.response().await.text(), "quick");

    let mut proxy = cluster.take_proxy(0);
    proxy.signal(Signal::TERM);
    refused(address).await;
    assert_eq!(idle.rest().await, b"", "an idle connection is closed, without a word");
    assert_eq!(proxy.exit_code(), None, "it waits for the request in flight");
    gate.open();
    let response = slow.response().await;
    assert_eq!((response.status, response.text().as_str()), (200, "slow"));
    assert_eq!(response.field("Connection"), Some("close"), "{response:?}");
    assert_eq!(proxy.exited().await, 0);
}

#[tokio::test]
async fn a_proxy_that_waits_for_its_last_requests_still_takes_changes() {
    let gate = Gate::default();
    let held = gate.clone();
    let backend =
        Backend::scripted(move |_| vec![Action::Await(held.clone()), Action::Send(ok("slow"))]);
    let args = ["--accept-grace=0s", "--drain-timeout=30s"];
    let mut cluster = Cluster::start_with(program(), 1, &args).await;
    let ids = cluster.add_backends(&[backend.address()]).await;
    let address = cluster.address();
    let mut slow = Client::connect(address).await;
    slow.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
    backend.reached(1).await;
    let mut proxy = cluster.take_proxy(0);
    proxy.signal(Signal::TERM);
    refused(address).await;
    let change = ["set-pool", "default", "--request-timeout", "20s"];
    let done = cluster.lbctl(&change).await.expect(0).stdout;
    assert!(done.contains("applied 1/1 proxies"), "{done}");
    // A drain counts what it has, and cuts that in the end.
    let drain = ["drain-backend", &ids[0], "--timeout", "1s", "--wait", "--force"];
    let done = cluster.lbctl(&drain).await.expect(0).stdout;
    println!("{done}");
    let response = slow.response().await;
    response.expect(503, "drain_deadline");
    assert_eq!(proxy.exited().await, 0);
}

#[tokio::test]
async fn an_empty_line_does_not_make_an_idle_connection_busy() {
    let backend = Backend::saying("a");
    let args = ["--accept-grace=0s", "--drain-timeout=30s", "--workers=1"];
    let mut cluster = Cluster::start_with(program(), 1, &args).await;
    cluster.add_backends(&[backend.address()]).await;
    let mut idle = Client::connect(cluster.address()).await;
    idle.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
    assert_eq!(idle.response().await.text(), "a");
    idle.send("\r\n").await;
    // What is answered later was sent later: by now the empty line has been read.
    get(cluster.address(), "/").await;
    let mut proxy = cluster.take_proxy(0);
    let began = Instant::now();
    proxy.signal(Signal::TERM);
    assert_eq!(idle.rest().await, b"");
    assert_eq!(proxy.exited().await, 0);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[tokio::test]
async fn sixty_requests_in_flight_complete_and_are_told_to_close() {
    let gate = Gate::default();
    let held = gate.clone();
    let backend =
        Backend::scripted(move |_| vec![Action::Await(held.clone()), Action::Send(ok("done"))]);
    let mut cluster = Cluster::start_with(program(), 1, &["--accept-grace=0s"]).await;
    cluster.add_backends(&[backend.address()]).await;
    let mut clients = Vec::new();
    for _ in 0..60 {
        let mut client = Client::connect(cluster.address()).await;
        client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
        clients.push(client);
    }
    backend.reached(60).await;
    let address = cluster.address();
    let mut proxy = cluster.take_proxy(0);
    proxy.signal(Signal::TERM);
    refused(address).await;
    gate.open();
    for mut client in clients {
        let response = client.response().await;
        assert_eq!((response.status, response.text().as_str()), (200, "done"));
        assert_eq!(response.field("Connection"), Some("close"), "{response:?}");
    }
    assert_eq!(proxy.exited().await, 0);
}

#[tokio::test]
async fn in_the_grace_period_everybody_is_served_and_told_to_go() {
    let backend = Backend::saying("a");
    let args = ["--accept-grace=2s", "--drain-timeout=20s"];
    let mut cluster = Cluster::start_with(program(), 2, &args).await;
    cluster.add_backends(&[backend.address()]).await;
    let (address, admin) = (cluster.address(), cluster.proxy(0).admin());
    let load = Load::start(&[address], 4);
    load.answered(50).await;
    let mut proxy = cluster.take_proxy(0);
    proxy.signal(Signal::TERM);
    // Whoever asks for readiness sends it nothing new from now on.
    eventually("readiness is off", async || {
        let ready = get(admin, "/readyz").await;
        if ready.status == 503 { Ok(()) } else { Err(ready.status) }
    })
    .await;
    let response = get(address, "/").await;
    assert_eq!(response.status, 200);
    let mut client = Client::connect(address).await;
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
    assert_eq!(client.response().await.field("Connection"), Some("close"));
    load.stop().await.assert_flawless();
    assert_eq!(proxy.exited().await, 0);
}

#[tokio::test]
async fn a_second_signal_ends_at_once() {
    let gate = Gate::default();
    let backend = Backend::scripted(move |_| vec![Action::Await(gate.clone())]);
    let mut cluster = Cluster::start_with(program(), 1, &["--accept-grace=0s"]).await;
    cluster.add_backends(&[backend.address()]).await;
    let mut client = Client::connect(cluster.address()).await;
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
    backend.reached(1).await;
    let mut proxy = cluster.take_proxy(0);
    proxy.signal(Signal::TERM);
    proxy.complaint("stopping").await;
    proxy.signal(Signal::INT);
    assert_eq!(proxy.exited().await, 3);
}

#[tokio::test]
async fn a_proxy_whose_parent_is_gone_ends() {
    let mut cluster = Cluster::start(program(), 1).await;
    let mut proxy = cluster.take_proxy(0);
    proxy.close_stdin();
    assert_eq!(proxy.exited().await, 0);
}

/// A proxy beside the first one that calls itself the same.
fn second_of_the_same_id(cluster: &Cluster) -> Process {
    let args = [
        "data-plane".to_owned(),
        "--id=proxy-1".to_owned(),
        format!("--control-plane=http://{}", cluster.grpc()),
        "--host=127.0.0.1".to_owned(),
        "--port=0".to_owned(),
        "--admin=127.0.0.1:0".to_owned(),
        format!("--data-dir={}", cluster.path("second").display()),
        "--exit-with-parent".to_owned(),
    ];
    program().start("second proxy-1", &args)
}

#[tokio::test]
async fn a_second_live_proxy_of_the_same_id_is_refused_by_name() {
    let backend = Backend::saying("a");
    let cluster = Cluster::start(program(), 1).await;
    cluster.add_backends(&[backend.address()]).await;
    let second = second_of_the_same_id(&cluster);
    second.complaint("proxy id proxy-1 is in use by another live proxy").await;
    second.complaint("--id").await;
    // The first one goes on as if nothing had happened.
    assert_eq!(cluster.api.proxy("proxy-1").await.state, "synced");
    assert_eq!(get(cluster.address(), "/").await.text(), "a");
}

#[tokio::test]
async fn a_proxy_that_is_refused_after_it_has_waited_says_so_and_so_does_the_fleet() {
    let mut cluster = Cluster::start(program(), 1).await;
    cluster.kill_control_plane().await;
    let second = second_of_the_same_id(&cluster);
    second.complaint("no control plane answers there").await;
    cluster.start_control_plane().await;
    // Whichever of the two comes later.
    let refused = "the control plane refuses this proxy";
    tokio::select! {
        () = second.complaint(refused) => {}
        () = cluster.proxy(0).process().complaint(refused) => {}
    }
    cluster.control_plane().complaint("a proxy is refused").await;
    let status = cluster.lbctl(&["status"]).await.expect(0).stdout;
    assert!(status.contains("proxy-1 from 127.0.0.1:"), "{status}");
    assert!(status.contains("is in use by another live proxy"), "{status}");
    assert!(status.contains("'--data-dir' of its own"), "{status}");
    let check = cluster.lbctl(&["check", "-o", "json"]).await.expect(1).stdout;
    assert!(check.contains("proxy_refused"), "{check}");
}

#[tokio::test]
async fn a_data_directory_belongs_to_one_proxy() {
    let cluster = Cluster::start(program(), 1).await;
    let directory = cluster.proxy(0).data_dir().display().to_string();
    let data_dir = format!("--data-dir={directory}");
    let args = ["data-plane", "--host=127.0.0.1", "--port=0", "--admin=127.0.0.1:0", &data_dir];
    let refused = program().run(&args).await.expect(78);
    assert!(refused.stderr.contains(&directory), "{refused:?}");
    assert!(refused.stderr.contains("another proxy is using it"), "{refused:?}");
}

#[tokio::test]
async fn a_taken_port_is_noticed_although_workers_share_theirs() {
    let cluster = Cluster::start(program(), 1).await;
    let data_dir = format!("--data-dir={}", cluster.path("second").display());
    let taken = Port::reserve();
    let _listener = taken.listen();
    // That of a stranger, and that of another proxy.
    for port in [taken.address().port(), cluster.address().port()] {
        let port = format!("--port={port}");
        let args = ["data-plane", "--host=127.0.0.1", &port, "--admin=127.0.0.1:0", &data_dir];
        let refused = program().run(&args).await.expect(9);
        assert!(refused.stderr.contains("in use"), "{refused:?}");
        assert!(refused.stderr.contains("--port"), "{refused:?}");
    }
}

/// Waits until nobody listens there.
async fn refused(address: SocketAddr) {
    eventually("new connections are refused", async || match Client::try_connect(address).await {
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}
