//! Clients that take all that the ports of the control plane have, and ask for nothing.

use std::net::SocketAddr;

use lb_tests::{
    client::{Client, get},
    cluster::Cluster,
    eventually::eventually,
};

use crate::program;

/// More than the process has descriptors for.
const CLIENTS: usize = 300;
const DESCRIPTORS: u64 = 256;

/// Clients that send this and nothing more, and stay.
async fn flood(address: SocketAddr, bytes: &[u8]) -> Vec<Client> {
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let mut client = Client::connect(address).await;
        // Some are closed again at once, as others come.
        client.try_send(bytes).await.ok();
        clients.push(client);
    }
    clients
}

async fn works(cluster: &Cluster) {
    for command in [&["get", "pools"][..], &["set-pool", "default", "--fall", "4"]] {
        let ended = cluster.lbctl(command).await;
        assert_eq!(ended.code, 0, "{command:?}: {}", ended.stderr);
    }
    assert_eq!(get(cluster.http(), "/readyz").await.status, 200);
}

/// Nobody is locked out of gRPC by those who only connect, or speak HTTP/2 and ask nothing; who
/// does not even do that is closed.
#[tokio::test]
async fn silent_clients_lock_nobody_out_of_grpc() {
    let cluster = Cluster::start(program().with_descriptors(DESCRIPTORS), 1).await;
    let mut silent = flood(cluster.grpc(), b"").await;
    works(&cluster).await;
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let _idle = flood(cluster.grpc(), preface).await;
    works(&cluster).await;
    // The proxy is still there, and was all the time.
    assert!(cluster.lbctl(&["status"]).await.expect(0).stdout.contains("1/1"));
    for client in &mut silent {
        client.end().await.ok();
    }
    // Of the places, a few stay with those who spoke HTTP/2 for as long as they answer pings.
    works(&cluster).await;
}

/// Nor out of HTTP by those who begin a request and do not end it.
#[tokio::test]
async fn half_requests_lock_nobody_out_of_http() {
    let cluster = Cluster::start(program().with_descriptors(DESCRIPTORS), 0).await;
    let body = "POST /lb/backends/add HTTP/1.1\r\nHost: 127.0.0.1\r\n\
                Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{";
    for bytes in
        ["", "GET /livez HTTP/1.1\r\nHo", body, &body.replace("/lb/backends/add", "/v1/apply")]
    {
        let _clients = flood(cluster.http(), bytes.as_bytes()).await;
        eventually("requests are answered", async || {
            match lb_tests::client::try_get(cluster.http(), "/readyz").await {
                Ok(answer) if answer.status == 200 => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
        works(&cluster).await;
    }
}

/// A body that stays away is not waited for for ever.
#[tokio::test]
async fn a_body_that_does_not_come_is_answered_408() {
    let cluster = Cluster::start(program(), 0).await;
    let mut clients = Vec::new();
    for path in ["/lb/backends/add", "/v1/apply"] {
        let mut client = Client::connect(cluster.http()).await;
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n\
             Content-Length: 1000\r\n\r\n{{"
        );
        client.send(&head).await;
        clients.push(client);
    }
    for client in &mut clients {
        let answer = client.response().await;
        assert_eq!(answer.status, 408);
        assert!(answer.text().contains("body was not complete in time"), "{}", answer.text());
        client.end().await.ok();
    }
}

/// What somebody sends without end is held up to 16 KiB and no further; ordinary requests and
/// answers may be as long as ever.
#[tokio::test]
async fn a_head_that_does_not_end_is_held_no_longer_than_it_may_be() {
    let cluster = Cluster::start(program(), 1).await;
    for (address, path) in [(cluster.http(), "/v1/pools"), (cluster.proxy(0).admin(), "/metrics")] {
        let ask = async |fields: String| {
            let mut client = Client::connect(address).await;
            client.send(format!("GET {path} HTTP/1.1\r\n{fields}")).await;
            client.response().await.status
        };
        let host = "Host: 127.0.0.1\r\n";
        // No end of it is ever sent.
        assert_eq!(ask(format!("{host}X: {}", "y".repeat(17 << 10))).await, 431, "{path}");
        assert_eq!(ask(format!("{host}X: {}\r\n\r\n", "y".repeat(8 << 10))).await, 200, "{path}");
        // Nor is it guessed for whom a request is (RFC 9112, 3.2).
        assert_eq!(ask("\r\n".to_owned()).await, 400, "{path}");
        assert_eq!(ask(format!("{host}{host}\r\n")).await, 400, "{path}");
    }
    let backends: Vec<_> = (1..=2000)
        .map(|number| format!(r#"{{"id":"b{number}","address":"127.0.0.1:{number}"}}"#))
        .collect();
    let mut client = Client::connect(cluster.http()).await;
    let body = format!(r#"{{"backends":[{}],"x":"{}"}}"#, backends.join(","), "y".repeat(900_000));
    let head = format!(
        "POST /v1/apply HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    client.send(head + &body).await;
    let answer = client.response().await;
    // All of it was read: it is the last field that is wrong.
    assert_eq!(answer.status, 400, "{}", answer.text());
    assert!(answer.text().contains('x'), "{}", answer.text());
}
