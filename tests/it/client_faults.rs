//! Clients that break an exchange off in its middle harm themselves alone, and no backend is
//! blamed for them.

use std::time::Duration;

use lb_proto::v1::Failures;
use lb_tests::{
    backend::{Action, Backend, Gate, ok},
    client::{Client, get},
    eventually::eventually,
};
use tokio::time::Instant;

use crate::one_proxy;

/// Answers the head of a request, and then waits for a body that does not come.
fn early() -> Backend {
    Backend::scripted(|request| match request.path() {
        "/early" => vec![
            Action::Send(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\na".to_vec()),
            Action::Hang,
        ],
        _ => vec![Action::Send(ok("a"))],
    })
}

#[tokio::test]
async fn what_a_client_breaks_behind_the_head_of_the_response_is_not_the_backends_fault() {
    let backend = early();
    let cluster = one_proxy(&[&backend]).await;
    let chunked = "POST /early HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let trailers = format!("0\r\nX: {}\r\n\r\n", "a".repeat(9000));
    let known = "POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n";
    for (what, head, rest) in [
        ("a bad chunk", chunked, "zz\r\n"),
        ("trailers without end", chunked, trailers.as_str()),
        ("an early end", known, "abc"),
    ] {
        let began = Instant::now();
        let mut client = Client::connect(cluster.address()).await;
        client.send(head).await;
        assert!(client.head().await.unwrap().starts_with("HTTP/1.1 200"), "{what}");
        client.send(rest).await;
        if head == known {
            client.finish().await;
        }
        assert!(client.rest().await.len() <= 1, "{what}");
        // Not the minute that a silent backend has.
        assert!(began.elapsed() < Duration::from_secs(10), "{what}: {:?}", began.elapsed());
    }
    eventually("the backend is not blamed", async || {
        let totals = cluster.api.backend("backend1").await.totals.unwrap_or_default();
        let failures = totals.failures.unwrap_or_default();
        if totals.requests == 3 && totals.in_flight == 0 && failures == Failures::default() {
            Ok(())
        } else {
            Err(format!("{totals:?}"))
        }
    })
    .await;
}

#[tokio::test]
async fn a_204_that_announces_a_body_ends_its_connection() {
    let backend = Backend::scripted(|request| match request.path() {
        "/204" => vec![
            Action::Send(b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec()),
            Action::Pause(Duration::from_millis(3)),
            Action::Send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil".to_vec()),
        ],
        _ => vec![Action::Send(ok("a"))],
    });
    let cluster = one_proxy(&[&backend]).await;
    for _ in 0..30 {
        let mut client = Client::connect(cluster.address()).await;
        client.send("GET /204 HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(client.response().await.status, 204);
        assert_eq!(get(cluster.address(), "/").await.text(), "a");
    }
}

#[tokio::test]
async fn a_flood_of_empty_lines_is_refused() {
    let backend = Backend::saying("a");
    let cluster = one_proxy(&[&backend]).await;
    let mut client = Client::connect(cluster.address()).await;
    client.try_send("\r\n".repeat(8192)).await.ok();
    let answer = String::from_utf8_lossy(&client.rest().await).into_owned();
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    // A few are passed over, and count from request to request.
    let mut client = Client::connect(cluster.address()).await;
    for _ in 0..40 {
        client.send("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(client.response().await.text(), "a");
    }
}

#[tokio::test]
async fn a_request_that_was_answered_an_interim_response_is_not_sent_again() {
    let interim = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n";
    let gate = Gate::default();
    let dies = || {
        let gate = gate.clone();
        Backend::scripted(move |_| {
            vec![Action::Send(interim.to_vec()), Action::Await(gate.clone()), Action::Reset]
        })
    };
    let (first, second) = (dies(), dies());
    let cluster = one_proxy(&[&first, &second]).await;
    let mut client = Client::connect(cluster.address()).await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(client.head().await.unwrap().starts_with("HTTP/1.1 103 "));
    gate.open();
    let response = client.response().await;
    response.expect(502, "backend_reset");
    assert_eq!(first.requests() + second.requests(), 1);
}
