//! Every deadline of a listener and of a pool, as it is set with lbctl: what ends, how, and
//! who is blamed.

use std::time::Duration;

use lb_proto::v1::Failures;
use lb_tests::{
    backend::{Action, Backend, ok},
    client::{Client, exchange, get},
    cluster::{Cluster, no_checks},
    eventually::eventually,
    port::Port,
};
use tokio::{
    net::{TcpSocket, TcpStream},
    time::{Instant, timeout},
};

use crate::{one_proxy, program};

/// Runs it, and checks that it took about this long: never less, and not as long as any
/// deadline that was not set.
async fn taking<T>(wanted: Duration, work: impl Future<Output = T>) -> T {
    let began = Instant::now();
    let output = work.await;
    let took = began.elapsed();
    println!("{took:?} for {wanted:?}");
    // Timers count whole ticks, and the client's clock begins a moment after theirs.
    assert!(took + Duration::from_millis(60) >= wanted, "{took:?}");
    assert!(took < wanted + Duration::from_secs(2), "{took:?}");
    output
}

const SOON: Duration = Duration::from_millis(400);

async fn set(cluster: &Cluster, command: &str, flags: &[&str]) {
    let args = [&[command, "default"], flags].concat();
    drop(cluster.lbctl(&args).await.expect(0));
}

/// Waits until the backend's failures are these.
async fn blamed(cluster: &Cluster, id: &str, wanted: Failures) {
    eventually("the backend's failures are told", async || {
        let totals = cluster.api.backend(id).await.totals.unwrap_or_default();
        let failures = totals.failures.unwrap_or_default();
        let known = totals.requests > 0 && totals.in_flight == 0;
        if known && failures == wanted { Ok(()) } else { Err(format!("{totals:?}")) }
    })
    .await;
}

#[tokio::test]
async fn a_head_has_its_time() {
    let backend = Backend::saying("a");
    let cluster = one_proxy(&[&backend]).await;
    set(&cluster, "set-listener", &["--header-timeout", "400ms"]).await;
    for half in ["G", "GET / HTTP/1.1\r\nHost: te", "GET / HTTP/1.1\r\nHost: test\r\n"] {
        let answer = taking(SOON, exchange(cluster.address(), "GET", half)).await.unwrap();
        answer.expect(408, "client_header_timeout");
        assert_eq!(answer.field("Connection"), Some("close"));
    }
    // Dripping does not buy time.
    let mut client = Client::connect(cluster.address()).await;
    let dripped = async {
        for byte in b"GET / HTTP/1.1\r\nHost: a-name-that-takes-a-while\r\n" {
            if client.try_send([*byte]).await.is_err() {
                break;
            }
            if timeout(Duration::from_millis(20), client.head()).await.is_ok() {
                break;
            }
        }
    };
    taking(SOON, dripped).await;
    // Who says nothing is told nothing.
    let mut silent = Client::connect(cluster.address()).await;
    assert_eq!(taking(SOON, silent.end()).await.unwrap(), b"");
    assert_eq!(backend.requests(), 0);
}

#[tokio::test]
async fn a_body_has_its_time_between_two_reads() {
    let early = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nearly";
    let backend = Backend::scripted(move |request| match request.path() {
        "/early" => vec![Action::Send(early.into()), Action::ReadBody],
        _ => vec![Action::ReadBody, Action::Send(ok("a"))],
    });
    let cluster = one_proxy(&[&backend]).await;
    set(&cluster, "set-listener", &["--body-idle-timeout", "400ms"]).await;
    let head = |path| format!("POST {path} HTTP/1.1\r\nHost: test\r\nContent-Length: 40\r\n\r\n");
    let mut client = Client::connect(cluster.address()).await;
    client.send(head("/") + "half").await;
    taking(SOON, client.response()).await.expect(408, "client_body_timeout");
    // A slow one that goes on is in time, however long it takes in all.
    let mut client = Client::connect(cluster.address()).await;
    client.send(head("/")).await;
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        client.send("slow").await;
    }
    assert_eq!(client.response().await.text(), "a");
    // When the response has begun, there is no other way than to cut it short.
    let mut client = Client::connect(cluster.address()).await;
    client.send(head("/early") + "half").await;
    client.head().await.unwrap();
    assert_eq!(taking(SOON, client.reset()).await, b"early");
    blamed(&cluster, "backend1", Failures::default()).await;
    let process = cluster.api.proxy("proxy-1").await.process.unwrap();
    assert_eq!(process.own_answers["client_body_timeout"], 2, "{process:?}");
}

#[tokio::test]
async fn a_backend_has_its_time_to_connect() {
    // One whose queue is full answers nothing.
    let port = Port::reserve();
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(port.address()).unwrap();
    let _listener = socket.listen(1).unwrap();
    let mut queued = Vec::new();
    while let Ok(stream) =
        timeout(Duration::from_millis(300), TcpStream::connect(port.address())).await
    {
        queued.push(stream.unwrap());
    }
    let cluster = Cluster::start(program(), 1).await;
    cluster.api.change_pool(no_checks).await;
    let id = cluster.add_backends(&[port.address()]).await.remove(0);
    set(&cluster, "set-pool", &["--connect-timeout", "400ms"]).await;
    let answer = taking(SOON, get(cluster.address(), "/")).await;
    answer.expect(504, "backend_connect_timeout");
    blamed(&cluster, &id, Failures { connect: 1, ..Failures::default() }).await;
    // With somewhere else to go, the client gets its answer all the same.
    let other = Backend::saying("other");
    cluster.add_backends(&[other.address()]).await;
    for _ in 0..2 {
        assert_eq!(get(cluster.address(), "/").await.text(), "other");
    }
}

#[tokio::test]
async fn a_backend_has_its_time_to_answer() {
    let backend = Backend::scripted(|_| vec![Action::ReadBody, Action::Hang]);
    let cluster = one_proxy(&[&backend]).await;
    set(&cluster, "set-pool", &["--request-timeout", "400ms"]).await;
    taking(SOON, get(cluster.address(), "/")).await.expect(504, "backend_timeout");
    blamed(&cluster, "backend1", Failures { timeout: 1, ..Failures::default() }).await;
}

#[tokio::test]
async fn a_response_has_its_time_between_two_reads() {
    let cut = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nonly\r\n";
    let long = "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nonly";
    let backend = Backend::scripted(move |request| match request.path() {
        "/slow" => {
            let mut actions =
                vec![Action::Send("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n".into())];
            for _ in 0..8 {
                actions.push(Action::Pause(Duration::from_millis(150)));
                actions.push(Action::Send("x".into()));
            }
            actions
        }
        "/long" => vec![Action::Send(long.into()), Action::Hang],
        _ => vec![Action::Send(cut.into()), Action::Hang],
    });
    let cluster = one_proxy(&[&backend]).await;
    set(&cluster, "set-pool", &["--response-idle-timeout", "400ms"]).await;
    for (path, end) in [("/chunked", "4\r\nonly\r\n"), ("/long", "only")] {
        let mut client = Client::connect(cluster.address()).await;
        client.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n")).await;
        client.head().await.unwrap();
        assert_eq!(taking(SOON, client.reset()).await, end.as_bytes());
    }
    assert_eq!(get(cluster.address(), "/slow").await.text(), "xxxxxxxx");
    blamed(&cluster, "backend1", Failures { timeout: 2, ..Failures::default() }).await;
}

#[tokio::test]
async fn a_client_has_its_time_to_read() {
    // More than all buffers on the way hold.
    let body = vec![b'x'; 32 << 20];
    let chunk =
        [format!("{:x}\r\n", body.len()).into_bytes(), body.clone(), b"\r\n".into()].concat();
    let backend = Backend::scripted(move |request| {
        let (framing, body) = match request.path() {
            "/chunked" => ("Transfer-Encoding: chunked".to_owned(), chunk.clone()),
            _ => (format!("Content-Length: {}", body.len()), body.clone()),
        };
        vec![
            Action::Send(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n").into()),
            Action::Send(body),
        ]
    });
    let cluster = one_proxy(&[&backend]).await;
    set(&cluster, "set-listener", &["--write-idle-timeout", "400ms"]).await;
    for (path, aborts) in [("/length", 1), ("/chunked", 2)] {
        let mut client = Client::connect(cluster.address()).await;
        client.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n")).await;
        eventually("the reader that stopped is given up", async || {
            let process = cluster.api.proxy("proxy-1").await.process.unwrap_or_default();
            if process.client_aborts == aborts { Ok(()) } else { Err(process.client_aborts) }
        })
        .await;
        assert!(client.reset().await.len() < 32 << 20);
    }
    blamed(&cluster, "backend1", Failures::default()).await;
}

#[tokio::test]
async fn a_client_has_its_time_between_two_requests() {
    let backend = Backend::saying("a");
    let cluster = one_proxy(&[&backend]).await;
    set(&cluster, "set-listener", &["--keep-alive-timeout", "400ms"]).await;
    // The second ends with an empty line more than it should, as some old clients' do.
    for end in ["", "\r\n"] {
        let mut client = Client::connect(cluster.address()).await;
        client.send(format!("GET / HTTP/1.1\r\nHost: test\r\n\r\n{end}")).await;
        assert_eq!(client.response().await.text(), "a");
        assert_eq!(taking(SOON, client.end()).await.unwrap(), b"", "without a word");
    }
}
