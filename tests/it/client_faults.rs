//! Clients that break an exchange off in its middle harm themselves alone, and no backend is
//! blamed for them.

use std::time::Duration;

use lb_proto::v1::Failures;
use lb_tests::{
    backend::{Action, Backend, Gate, ok},
    client::{Client, get},
    cluster::Cluster,
    eventually::eventually,
    exposition::Scrape,
};
use tokio::time::{Instant, sleep};

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

/// What comes behind an answer that has no body would be taken for the next client's answer.
#[tokio::test]
async fn an_answer_without_a_body_that_announces_one_ends_its_connection() {
    let backend = Backend::scripted(|request| {
        let head: &[u8] = match request.path() {
            "/204" => b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n",
            "/304" => b"HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\n",
            "/head" => b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n",
            _ => return vec![Action::Send(ok("a"))],
        };
        vec![
            Action::Send(head.to_vec()),
            Action::Pause(Duration::from_millis(3)),
            Action::Send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil".to_vec()),
        ]
    });
    let cluster = one_proxy(&[&backend]).await;
    for (method, path, status) in
        [("GET", "/204", 204), ("GET", "/304", 304), ("HEAD", "/head", 200)]
    {
        for _ in 0..30 {
            let mut client = Client::connect(cluster.address()).await;
            client.send(format!("{method} {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
            assert_eq!(client.try_response(method).await.unwrap().status, status, "{path}");
            assert_eq!(get(cluster.address(), "/").await.text(), "a", "after {path}");
        }
    }
}

/// Their backends are free long before the request's time is over.
#[tokio::test]
async fn clients_that_have_left_are_not_waited_for() {
    let backend = Backend::scripted(|_| vec![Action::Hang]);
    let cluster = one_proxy(&[&backend]).await;
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut client = Client::connect(cluster.address()).await;
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        clients.push(client);
    }
    backend.reached(20).await;
    // What some have said behind it hides nothing.
    for (client, more) in
        clients.iter_mut().zip(["\r\n", "G", "GET /2 HTTP/1.1\r\nHost: a\r\n\r\n"])
    {
        client.send(more).await;
    }
    drop(clients);
    eventually("nothing is in flight, and nobody's time was over", async || {
        let scrape = Scrape::of(cluster.proxy(0).admin()).await;
        let left = scrape.value("lb_client_aborts_total");
        if left == 20.0 { Ok(()) } else { Err(left) }
    })
    .await;
}

/// Whoever waits in line and leaves has no turn: the backend hears of the living only.
#[tokio::test]
async fn clients_that_have_left_the_line_are_not_sent_on() {
    let gate = Gate::default();
    let held = gate.clone();
    let backend =
        Backend::scripted(move |_| vec![Action::Await(held.clone()), Action::Send(ok("a"))]);
    let cluster = one_proxy(&[&backend]).await;
    cluster.api.change_pool(|pool| pool.max_in_flight = 1).await;
    cluster.api.settled(1).await;
    let ask = async || {
        let mut client = Client::connect(cluster.address()).await;
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        client
    };
    let waiting = async |count: f64| {
        eventually("so many wait", async || {
            let scrape = Scrape::of(cluster.proxy(0).admin()).await;
            let depth = scrape.value("lb_queue_depth{pool=\"default\"}");
            if depth == count { Ok(()) } else { Err(depth) }
        })
        .await;
    };
    let mut first = ask().await;
    backend.reached(1).await;
    let mut left = Vec::new();
    for _ in 0..5 {
        left.push(ask().await);
    }
    waiting(5.0).await;
    let mut last = ask().await;
    waiting(6.0).await;
    drop(left);
    waiting(1.0).await;
    gate.open();
    assert_eq!(first.response().await.text(), "a");
    assert_eq!(last.response().await.text(), "a");
    assert_eq!(backend.requests(), 2);
}

/// With something unread the system ends a connection by a reset, which may cut the answer.
#[tokio::test]
async fn what_a_client_says_behind_its_last_request_does_not_reset_the_answer() {
    let gate = Gate::default();
    let held = gate.clone();
    let backend = Backend::scripted(move |_| {
        let answer = b"HTTP/1.1 200 OK\r\n\r\nhello".to_vec();
        vec![Action::ReadBody, Action::Await(held.clone()), Action::Send(answer), Action::Close]
    });
    let cluster = one_proxy(&[&backend]).await;
    let request = "POST / HTTP/1.0\r\nContent-Length: 2\r\n\r\nhi";
    let mut clients = Vec::new();
    for number in 1..=10 {
        let mut client = Client::connect(cluster.address()).await;
        client.send(request).await;
        backend.reached(number).await;
        client.send("\r\n").await;
        clients.push(client);
    }
    gate.open();
    for client in &mut clients {
        let said = client.end().await.expect("an end, and no reset");
        assert!(said.ends_with(b"hello"), "{said:?}");
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

/// A backend has its own time for a body, and ends a connection on which none comes.
#[tokio::test]
async fn a_backend_that_waits_for_a_client_no_longer_is_not_blamed() {
    let backend = Backend::scripted(|request| match request.path() {
        "/late" => vec![Action::Pause(Duration::from_millis(1500)), Action::Reset],
        _ => vec![Action::Reset],
    });
    let cluster = one_proxy(&[&backend]).await;
    let post = async |path: &str| {
        let mut client = Client::connect(cluster.address()).await;
        let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n");
        client.send(head + "some").await;
        client.response().await
    };
    post("/late").await.expect(408, "client_body_timeout");
    let failures = async || {
        let totals = cluster.api.backend("backend1").await.totals.unwrap_or_default();
        (totals.requests, totals.in_flight, totals.failures.unwrap_or_default().reset)
    };
    eventually("the backend is not blamed", async || match failures().await {
        (1, 0, 0) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    // At once it is the backend that has failed.
    post("/").await.expect(502, "backend_reset");
    eventually("the backend is blamed", async || match failures().await {
        (2, 0, 1) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}

/// As many clients do, this one reads only when it has sent everything.
async fn upload_first(cluster: &Cluster, length: usize) -> (u16, String) {
    let mut client = Client::connect(cluster.address()).await;
    client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n")).await;
    let piece = vec![b'a'; 64 << 10];
    for _ in 0..length / piece.len() {
        client.send(&piece).await;
    }
    let answer = client.response().await;
    // It stays open where all was sent before there was an answer.
    if answer.field("Connection") == Some("close") {
        assert_eq!(client.end().await.expect("an end, and no reset"), b"");
    }
    (answer.status, answer.text())
}

/// A backend may answer before it has read the request, and read on.
#[tokio::test]
async fn an_early_answer_reaches_a_client_that_sends_on_and_its_body_the_backend() {
    let backend = Backend::scripted(|_| {
        let answer = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 5\r\n\r\nlogin".to_vec();
        vec![Action::Send(answer), Action::ReadBody]
    });
    let cluster = one_proxy(&[&backend]).await;
    let length = 8 << 20;
    for _ in 0..3 {
        assert_eq!(upload_first(&cluster, length).await, (401, "login".to_owned()));
    }
    eventually("all of the bodies has come", async || {
        let bytes = backend.bytes();
        if bytes >= 3 * length as u64 { Ok(()) } else { Err(bytes) }
    })
    .await;
}

/// Nobody reads the rest of these requests but the proxy, and drops it.
#[tokio::test]
async fn a_client_that_sends_on_gets_the_answer_of_who_reads_no_more() {
    let answer = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 5\r\n\r\nlogin";
    let closes = || Backend::scripted(|_| vec![Action::Send(answer.to_vec()), Action::Close]);
    let stops = || {
        let gate = Gate::default();
        Backend::scripted(move |_| vec![Action::Send(answer.to_vec()), Action::Await(gate.clone())])
    };
    for backend in [closes(), stops()] {
        let cluster = one_proxy(&[&backend]).await;
        assert_eq!(upload_first(&cluster, 8 << 20).await, (401, "login".to_owned()));
    }
    let cluster = one_proxy(&[]).await;
    assert_eq!(upload_first(&cluster, 8 << 20).await.0, 503);
    cluster.api.change_listener(|listener| listener.max_body_bytes = 1 << 20).await;
    assert_eq!(upload_first(&cluster, 8 << 20).await.0, 413);
}

/// Whoever only sends on after its answer holds no slot that another one could use.
#[tokio::test]
async fn a_client_that_sends_on_after_its_answer_keeps_no_slot_from_others() {
    let answer = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 5\r\n\r\nlogin";
    for then in [Action::Close, Action::ReadBody] {
        let after = then.clone();
        let backend = Backend::scripted(move |request| match request.path() {
            "/early" => vec![Action::Send(answer.to_vec()), after.clone()],
            _ => vec![Action::Send(ok("a"))],
        });
        let cluster = one_proxy(&[&backend]).await;
        cluster.api.change_pool(|pool| pool.max_in_flight = 1).await;
        let mut client = Client::connect(cluster.address()).await;
        client.send("POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n").await;
        client.send(vec![b'a'; 64 << 10]).await;
        assert_eq!(client.response().await.status, 401, "{then:?}");
        // It is silent, and then sends on.
        assert_eq!(get(cluster.address(), "/").await.status, 200, "{then:?}");
        let sends = async {
            loop {
                client.send(b"a").await;
                sleep(Duration::from_millis(10)).await;
            }
        };
        let answered = async { get(cluster.address(), "/").await.status };
        let status = tokio::select! { status = answered => status, () = sends => 0 };
        assert_eq!(status, 200, "{then:?}: within the time in line");
    }
}
