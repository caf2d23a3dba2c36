//! When another backend is tried, when a request is sent again, and what clients are told
//! when neither helps.

use std::time::Duration;

use lb_proto::v1::{Health, HealthCheck};
use lb_tests::{
    backend::{Action, Backend, Gate, ok},
    client::{Client, exchange, get},
    cluster::Cluster,
    eventually::eventually,
};
use tokio::time::Instant;

use crate::{one_proxy, program};

const POST: &str =
    "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbody";

#[tokio::test]
async fn a_refused_connection_goes_to_another_backend() {
    let (mut gone, here) = (Backend::saying("gone"), Backend::saying("here"));
    let cluster = one_proxy(&[&gone, &here]).await;
    gone.stop().await;
    for _ in 0..6 {
        assert_eq!(get(cluster.address(), "/").await.text(), "here");
        // Nothing was written yet, so this holds for every method.
        let response = exchange(cluster.address(), "POST", POST).await.unwrap();
        assert_eq!(response.text(), "here");
    }
}

#[tokio::test]
async fn without_anywhere_to_go_the_client_is_told_why() {
    let mut backends = ["a", "b"].map(Backend::saying);
    let cluster = one_proxy(&[&backends[0], &backends[1]]).await;
    for backend in &mut backends {
        backend.stop().await;
    }
    let mut client = Client::connect(cluster.address()).await;
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
    let response = client.response().await;
    response.expect(502, "backend_connect_refused");
    assert_eq!(response.field("Content-Type"), Some("application/json"));
    // The connection is as good as before.
    client.send("HEAD / HTTP/1.1\r\nHost: test\r\n\r\n").await;
    let response = client.try_response("HEAD").await.unwrap();
    assert_eq!(response.status, 502);
}

#[tokio::test]
async fn a_pool_that_cannot_serve_is_a_503_with_a_time() {
    let backend = Backend::saying("a");
    let cluster = Cluster::start(program(), 1).await;
    let response = get(cluster.address(), "/").await;
    response.expect(503, "no_healthy_backend");
    assert!(response.text().contains("lbctl add-backend"), "{}", response.text());

    backend.set_healthy(false);
    let id = cluster.api.add_backend(backend.address(), 1).await;
    cluster.api.verdict(&id, Health::Down).await;
    drop(cluster.lbctl(&["wait", "proxies"]).await.expect(0));
    let began = Instant::now();
    let response = get(cluster.address(), "/").await;
    response.expect(503, "no_healthy_backend");
    assert!(response.field("Retry-After").is_some(), "{response:?}");
    println!("503 within {:?}", began.elapsed());
    assert_eq!(backend.requests(), 0);

    cluster.api.delete("route", "default").await;
    get(cluster.address(), "/").await.expect(404, "no_route");
}

#[tokio::test]
async fn an_idempotent_request_is_sent_again_when_no_byte_was_answered() {
    let dies = || Backend::scripted(|_| vec![Action::ReadBody, Action::Reset]);
    let (first, second) = (dies(), Backend::saying("second"));
    let cluster = one_proxy(&[&first, &second]).await;
    for method in ["GET", "PUT", "DELETE", "OPTIONS"] {
        for _ in 0..2 {
            let request = format!(
                "{method} / HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\n\
                 Connection: close\r\n\r\nbody"
            );
            let response = exchange(cluster.address(), method, request).await.unwrap();
            assert_eq!((response.status, response.text().as_str()), (200, "second"), "{method}");
        }
    }
    assert!(first.requests() >= 4);
    assert!(second.recorded().iter().all(|seen| seen.body == b"body"));
}

#[tokio::test]
async fn of_eighty_requests_on_closing_connections_gets_are_answered_and_posts_come_once() {
    // Says nothing of it, and closes a connection as its second request comes.
    let backend = Backend::scripted(|request| match request.number {
        1 => vec![Action::ReadBody, Action::Send(ok("fresh"))],
        _ => vec![Action::ReadBody, Action::Close],
    });
    let cluster = one_proxy(&[&backend]).await;
    for number in 0..80 {
        let mut client = Client::connect(cluster.address()).await;
        client.send(format!("GET /get/{number} HTTP/1.1\r\nHost: test\r\n\r\n")).await;
        assert_eq!(client.response().await.text(), "fresh", "GET {number}");
        let head = format!("POST /post/{number} HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\n");
        client.send(head + "\r\nbody").await;
        // An answer of whichever kind, and never a silent end.
        let status = client.response().await.status;
        assert!(matches!(status, 200 | 502), "POST {number}: {status}");
    }
    let recorded = backend.recorded();
    for number in 0..80 {
        let path = format!("/post/{number}");
        let times = recorded.iter().filter(|seen| seen.request.path() == path).count();
        assert_eq!(times, 1, "{path}");
    }
}

#[tokio::test]
async fn a_post_that_was_written_is_never_sent_again() {
    let backends = ["a", "b"].map(|_| Backend::scripted(|_| vec![Action::ReadBody, Action::Reset]));
    let cluster = one_proxy(&[&backends[0], &backends[1]]).await;
    for sent in 1..=4 {
        let response = exchange(cluster.address(), "POST", POST).await.unwrap();
        response.expect(502, "backend_reset");
        let delivered: usize = backends.iter().map(Backend::requests).sum();
        assert_eq!(delivered, sent);
    }
}

/// A body without the framing of its chunks, if it has any.
fn unframed(body: &[u8]) -> String {
    let text = std::str::from_utf8(body).unwrap();
    if !text.ends_with("0\r\n\r\n") {
        return text.to_owned();
    }
    let chunks = text.split("\r\n").skip(1).step_by(2);
    chunks.collect()
}

#[tokio::test]
async fn a_put_of_64_kib_is_sent_again_whole_however_it_came() {
    let resets = Backend::scripted(|_| vec![Action::ReadBody, Action::Reset]);
    let well = Backend::saying("well");
    let cluster = one_proxy(&[&resets, &well]).await;
    let body = "0123456789abcdef".repeat(4096);
    assert_eq!(body.len(), 64 * 1024);
    let chunked = body.as_bytes()[..40_000]
        .chunks(999)
        .map(|chunk| format!("{:x}\r\n{}\r\n", chunk.len(), std::str::from_utf8(chunk).unwrap()));
    let chunked = chunked.collect::<String>() + "0\r\n\r\n";
    let known = |body: &str| format!("Content-Length: {}\r\n\r\n{body}", body.len());
    let longer = known(&(body.clone() + "x"));
    for (rest, is_kept) in [
        (known(&body), true),
        (format!("Transfer-Encoding: chunked\r\n\r\n{chunked}"), true),
        // One byte more than is kept goes through, and is gone.
        (longer, false),
    ] {
        let mut statuses = Vec::new();
        for _ in 0..2 {
            let before = resets.requests();
            let mut client = Client::connect(cluster.address()).await;
            let head = "PUT / HTTP/1.1\r\nHost: test\r\n";
            // The body comes when the head is long there.
            let (first, second) = rest.split_at(rest.len() / 2);
            client.send(format!("{head}{first}")).await;
            if before < resets.requests() {
                resets.reached(before + 1).await;
            }
            client.send(second).await;
            statuses.push(client.response().await.status);
        }
        statuses.sort_unstable();
        assert_eq!(statuses, if is_kept { [200, 200] } else { [200, 502] });
        if is_kept {
            let recorded = well.recorded();
            let [.., one, other] = &recorded[..] else { panic!("{recorded:?}") };
            // How it is cut into chunks is nobody's affair.
            let (one, other) = (unframed(&one.body), unframed(&other.body));
            assert!(one == other && body.starts_with(&one), "{} and {}", one.len(), other.len());
        }
    }
}

#[tokio::test]
async fn a_get_survives_a_kept_connection_that_the_backend_closes() {
    // Each connection answers once and then dies with the next request on it.
    let backend = Backend::scripted(|request| match request.number {
        1 => vec![Action::ReadBody, Action::Send(ok("fresh"))],
        _ => vec![Action::Close],
    });
    let cluster = one_proxy(&[&backend]).await;
    let mut client = Client::connect(cluster.address()).await;
    for _ in 0..10 {
        client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
        let response = client.response().await;
        assert_eq!((response.status, response.text().as_str()), (200, "fresh"));
    }
}

#[tokio::test]
async fn what_is_left_of_an_upload_never_begins_another_connection() {
    // More than is kept to be sent again has gone when the kept connection ends.
    let backend = Backend::scripted(|request| match request.number {
        1 => vec![Action::ReadBody, Action::Send(ok("first"))],
        _ => vec![Action::ReadSome(150_000), Action::Close],
    });
    let cluster = one_proxy(&[&backend]).await;
    // One client, so that it is one worker, which has the connection.
    let mut client = Client::connect(cluster.address()).await;
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
    assert_eq!(client.response().await.text(), "first");
    client.send("PUT / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: test\r\n\r\n".repeat(100);
    let chunk = format!("{:x}\r\n{smuggled}\r\n", smuggled.len());
    for _ in 0..150_000_usize.div_ceil(smuggled.len()) {
        client.send(chunk.as_str()).await;
    }
    client.response().await.expect(502, "backend_reset");
    assert_eq!((backend.connections(), backend.requests()), (1, 2));
}

#[tokio::test]
async fn a_backend_that_says_close_is_believed() {
    let answer = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\na";
    let backend = Backend::scripted(move |_| {
        vec![Action::ReadBody, Action::Send(answer.into()), Action::Close]
    });
    let cluster = one_proxy(&[&backend]).await;
    let mut client = Client::connect(cluster.address()).await;
    for asked in 1..=5 {
        client.send("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n").await;
        let response = client.response().await;
        assert_eq!(response.text(), "a");
        // The client's connection is another matter.
        assert_eq!(response.field("Connection"), None);
        assert_eq!((backend.connections(), backend.requests() as u64), (asked, asked));
    }
}

#[tokio::test]
async fn a_backend_without_an_answer_in_time_is_a_504() {
    let slow = || Backend::scripted(|_| vec![Action::ReadBody, Action::Hang]);
    let (one, other) = (slow(), slow());
    let cluster = one_proxy(&[&one, &other]).await;
    cluster.api.change_pool(|pool| pool.request_timeout_ms = 300).await;
    for request in ["GET / HTTP/1.1\r\nHost: test\r\n\r\n", POST] {
        let before = one.requests() + other.requests();
        let began = Instant::now();
        let response = exchange(cluster.address(), "GET", request).await.unwrap();
        response.expect(504, "backend_timeout");
        assert!(began.elapsed() >= Duration::from_millis(290), "{:?}", began.elapsed());
        // Time that is over cannot be had again from another backend.
        assert_eq!(one.requests() + other.requests(), before + 1);
    }
}

#[tokio::test]
async fn the_time_in_which_the_client_sends_is_not_the_backends() {
    let backend = Backend::saying("a");
    let cluster = one_proxy(&[&backend]).await;
    cluster.api.change_pool(|pool| pool.request_timeout_ms = 400).await;
    let mut client = Client::connect(cluster.address()).await;
    client.send("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 8\r\n\r\n").await;
    client.drip("xxxxxxxx", Duration::from_millis(100)).await;
    assert_eq!(client.response().await.text(), "a");
}

#[tokio::test]
async fn a_slow_head_is_a_408_and_a_silent_connection_just_ends() {
    let backend = Backend::saying("a");
    let cluster = one_proxy(&[&backend]).await;
    cluster.api.change_listener(|listener| listener.header_timeout_ms = 200).await;
    let mut slow = Client::connect(cluster.address()).await;
    slow.send("GET / HTTP/1.1\r\nHost: te").await;
    slow.response().await.expect(408, "client_header_timeout");
    let mut silent = Client::connect(cluster.address()).await;
    assert_eq!(silent.rest().await, b"");
    assert_eq!(backend.bytes(), 0);
}

#[tokio::test]
async fn an_unhealthy_answer_to_a_check_is_told_with_its_status() {
    let backend = Backend::saying("a");
    let cluster = Cluster::start(program(), 0).await;
    cluster
        .api
        .change_pool(|pool| {
            pool.health_check =
                Some(HealthCheck { path: "/health".to_owned(), ..Default::default() });
        })
        .await;
    backend.set_healthy(false);
    let added = cluster.lbctl(&["add-backend", &backend.address().to_string()]).await.expect(0);
    assert!(added.stdout.contains("503"), "{added:?}");
    assert!(added.stdout.contains("next: "), "{added:?}");
}

#[tokio::test]
async fn a_request_that_kills_whoever_takes_it_is_sent_twice_at_most() {
    let gate = Gate::default();
    let door = gate.clone();
    let backend = Backend::scripted(move |request| match request.path() {
        "/kill" => vec![Action::ReadBody, Action::Close],
        _ => vec![Action::Await(door.clone()), Action::Send(ok("kept"))],
    });
    let cluster = one_proxy(&[&backend]).await;
    // Many connections to the backend are kept.
    let clients = (0..8).map(|_| {
        let address = cluster.address();
        tokio::spawn(async move { get(address, "/").await })
    });
    let clients: Vec<_> = clients.collect();
    eventually("all requests are at the backend", async || match backend.requests() {
        8 => Ok(()),
        other => Err(other.to_string()),
    })
    .await;
    gate.open();
    for client in clients {
        assert_eq!(client.await.unwrap().text(), "kept");
    }
    for sent in 1..=4 {
        get(cluster.address(), "/kill").await.expect(502, "backend_reset");
        assert!(backend.requests() - 8 <= 2 * sent, "{} for {sent}", backend.requests() - 8);
    }
}

#[tokio::test]
async fn an_upload_that_was_begun_is_never_begun_again_in_its_middle() {
    let (dies, other) = (Backend::scripted(|_| vec![Action::Reset]), Backend::saying("other"));
    let cluster = one_proxy(&[&dies, &other]).await;
    for _ in 0..10 {
        let mut client = Client::connect(cluster.address()).await;
        client.send("PUT / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n").await;
        let smuggled = "\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: test\r\n\r\n";
        let body = format!("{}{}", "x".repeat(2000), smuggled);
        // The proxy may have given up by now.
        drop(client.try_send(format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len())).await);
        if let Ok(response) = client.try_response("PUT").await {
            assert!(matches!(response.status, 200 | 502), "{response:?}");
        }
    }
    for seen in other.recorded() {
        assert_eq!(seen.request.path(), "/", "{seen:?}");
        assert_eq!(seen.request.method(), "PUT", "{seen:?}");
    }
}

/// What is no answer, and of which the client was told nothing: half a head, no HTTP, interim
/// responses that are not passed on.
#[tokio::test]
async fn a_response_that_never_became_one_is_asked_of_another_backend() {
    let interims = "HTTP/1.1 100 Continue\r\n\r\n";
    for said in ["HTTP/1.1 200 OK\r\nContent-Le", "+OK ready\r\n\r\n", interims] {
        // On a kept connection it is the same.
        let bad = Backend::scripted(move |request| match request.number {
            1 if request.path() == "/first" => vec![Action::Send(ok("first"))],
            _ => vec![Action::ReadBody, Action::Send(said.into()), Action::Close],
        });
        let well = Backend::saying("well");
        let cluster = one_proxy(&[&bad, &well]).await;
        let interim = said == interims;
        let head = if interim { "HTTP/1.0" } else { "HTTP/1.1" };
        let ask = async |method: &str, path: &str| {
            let text = format!(
                "{method} {path} {head}\r\nHost: a\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            );
            exchange(cluster.address(), method, &text).await.unwrap()
        };
        for _ in 0..2 {
            assert!(["first", "well"].contains(&ask("GET", "/first").await.text().as_str()));
        }
        for _ in 0..6 {
            assert_eq!(ask("GET", "/").await.text(), "well", "{said:?}");
        }
        let asked = bad.requests();
        assert!(asked >= 3, "{asked}");
        let statuses = [ask("POST", "/").await.status, ask("POST", "/").await.status];
        assert!(statuses == [200, 502] || statuses == [502, 200], "{said:?}: {statuses:?}");
        eventually("each of them is the backend's failure", async || {
            let totals = cluster.api.backend("backend1").await.totals.unwrap_or_default();
            let failures = totals.failures.unwrap_or_default();
            let failed = failures.protocol + failures.reset;
            if failed >= asked as u64 { Ok(()) } else { Err(format!("{failures:?} of {asked}")) }
        })
        .await;
    }
}
