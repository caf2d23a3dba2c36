//! HTTP/1 from both sides: what clients may do, what backends may do, and what the proxy
//! makes of it.

use std::time::Duration;

use lb_tests::{
    backend::{Action, Backend, Request, ok},
    client::{Client, exchange},
};

use crate::one_proxy;

/// Answers with bytes as they are, after the whole request was read.
fn raw(answer: impl Into<Vec<u8>>) -> Vec<Action> {
    vec![Action::ReadBody, Action::Send(answer.into())]
}

const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
    5\r\nhello\r\n7;ext=1\r\n, world\r\n0\r\n\r\n";

fn various(request: &Request) -> Vec<Action> {
    match request.path() {
        "/204" => raw("HTTP/1.1 204 No Content\r\n\r\n"),
        "/304" => raw("HTTP/1.1 304 Not Modified\r\nETag: \"1\"\r\nContent-Length: 12\r\n\r\n"),
        "/chunked" if request.method() == "HEAD" => {
            raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        }
        "/chunked" => raw(CHUNKED),
        "/to-the-end" => {
            let mut actions = raw("HTTP/1.1 200 OK\r\n\r\nto the end");
            actions.push(Action::Close);
            actions
        }
        _ if request.method() == "HEAD" => raw("HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n"),
        _ => raw(ok("hello, world")),
    }
}

#[tokio::test]
async fn http_1_0_clients_get_an_answer_and_its_end() {
    let backend = Backend::scripted(various);
    let cluster = one_proxy(&[&backend]).await;
    let mut client = Client::connect(cluster.address()).await;
    client.send("GET / HTTP/1.0\r\n\r\n").await;
    let response = client.response().await;
    assert_eq!(response.text(), "hello, world");
    assert_eq!(response.field("Connection"), Some("close"));
    assert_eq!(client.rest().await, b"");

    let mut client = Client::connect(cluster.address()).await;
    for _ in 0..3 {
        client.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await;
        let response = client.response().await;
        assert_eq!(response.text(), "hello, world");
        assert_eq!(response.field("Connection"), Some("keep-alive"));
    }
    // They know no chunks: only the end of the connection can end this body.
    client.send("GET /chunked HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await;
    let response = client.response().await;
    assert_eq!(response.text(), "hello, world");
    assert_eq!(response.field("Transfer-Encoding"), None);
    assert_eq!(response.field("Connection"), Some("close"));
}

#[tokio::test]
async fn bodies_of_every_framing_arrive_on_one_connection() {
    let backend = Backend::scripted(various);
    let cluster = one_proxy(&[&backend]).await;
    let mut client = Client::connect(cluster.address()).await;
    for (path, body) in
        [("/", "hello, world"), ("/chunked", "hello, world"), ("/to-the-end", "to the end")]
    {
        client.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n")).await;
        let response = client.response().await;
        assert_eq!((response.status, response.text().as_str()), (200, body), "{path}");
        assert_eq!(response.field("Connection"), None, "{path}");
    }
}

#[tokio::test]
async fn head_204_and_304_have_no_body_and_keep_the_connection() {
    let backend = Backend::scripted(various);
    let cluster = one_proxy(&[&backend]).await;
    let mut client = Client::connect(cluster.address()).await;
    let requests = [
        ("HEAD", "/", 200, Some("12")),
        ("HEAD", "/chunked", 200, None),
        ("GET", "/204", 204, None),
        ("GET", "/304", 304, Some("12")),
        ("GET", "/", 200, Some("12")),
    ];
    for (method, path, status, length) in requests {
        client.send(format!("{method} {path} HTTP/1.1\r\nHost: test\r\n\r\n")).await;
        let response = client.try_response(method).await.unwrap();
        assert_eq!(response.status, status, "{method} {path}");
        assert_eq!(response.field("Content-Length"), length, "{method} {path}: {response:?}");
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_their_order() {
    let backend = Backend::scripted(|request| raw(ok(request.path())));
    let cluster = one_proxy(&[&backend]).await;
    let mut client = Client::connect(cluster.address()).await;
    let mut all = String::new();
    for number in 0..20 {
        let body = "x".repeat(number);
        all +=
            &format!("POST /{number} HTTP/1.1\r\nHost: test\r\nContent-Length: {number}\r\n\r\n");
        all += &body;
        all += &format!("GET /get-{number} HTTP/1.1\r\nHost: test\r\n\r\n");
    }
    client.send(all).await;
    for number in 0..20 {
        assert_eq!(client.response().await.text(), format!("/{number}"));
        assert_eq!(client.response().await.text(), format!("/get-{number}"));
    }
    let posts = backend.recorded();
    let posts = posts.iter().filter(|recorded| recorded.request.method() == "POST");
    assert!(posts.enumerate().all(|(number, post)| post.body == "x".repeat(number).as_bytes()));
}

#[tokio::test]
async fn who_expects_100_continue_is_told_to() {
    let backend = Backend::scripted(|_| raw(ok("thanks")));
    let cluster = one_proxy(&[&backend]).await;
    let mut client = Client::connect(cluster.address()).await;
    let head = "POST / HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n";
    client.send(head).await;
    assert_eq!(client.response().await.status, 100);
    client.send("body").await;
    assert_eq!(client.response().await.text(), "thanks");
    // One that did not wait is not told.
    client.send(head.to_owned() + "more").await;
    assert_eq!(client.response().await.text(), "thanks");
    let [first, second] = &backend.recorded()[..] else { panic!("two requests") };
    assert_eq!((&*first.body, &*second.body), (&b"body"[..], &b"more"[..]));
    let unknown = head.replace("100-continue", "miracles") + "more";
    exchange(cluster.address(), "POST", unknown)
        .await
        .unwrap()
        .expect(417, "client_protocol_error");
}

#[tokio::test]
async fn an_early_answer_reaches_a_client_that_is_still_sending() {
    let refusal = "HTTP/1.1 413 Content Too Large\r\nContent-Length: 5\r\n\r\nlarge";
    let backend = Backend::scripted(move |_| vec![Action::Send(refusal.into()), Action::Hang]);
    let cluster = one_proxy(&[&backend]).await;
    let mut client = Client::connect(cluster.address()).await;
    client.send("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 10000000\r\n\r\n").await;
    client.send([b'x'; 10_000]).await;
    let response = client.response().await;
    assert_eq!((response.status, response.text().as_str()), (413, "large"));
    // What is left of the body cannot be told from a next request.
    assert_eq!(response.field("Connection"), Some("close"));
    assert_eq!(client.rest().await, b"");
}

#[tokio::test]
async fn interim_responses_are_passed_on() {
    let answer = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n".to_owned()
        + str::from_utf8(&ok("done")).unwrap();
    let backend = Backend::scripted(move |_| raw(answer.clone()));
    let cluster = one_proxy(&[&backend]).await;
    let mut client = Client::connect(cluster.address()).await;
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
    let hints = client.response().await;
    assert_eq!((hints.status, hints.field("Link")), (103, Some("</a.css>")));
    assert_eq!(client.response().await.text(), "done");
    // HTTP/1.0 knows none.
    client.send("GET / HTTP/1.0\r\nHost: test\r\n\r\n").await;
    assert_eq!(client.response().await.text(), "done");
}

#[tokio::test]
async fn fields_for_one_hop_go_no_further() {
    let answer = "HTTP/1.1 200 OK\r\nConnection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=9\r\n\
        Proxy-Authenticate: x\r\nX-End: 1\r\nContent-Length: 0\r\n\r\n";
    let backend = Backend::scripted(move |_| raw(answer));
    let cluster = one_proxy(&[&backend]).await;
    let request = "GET /p?q=1 HTTP/1.1\r\nHost: www.example.com\r\n\
        Connection: close, X-Secret\r\nX-Secret: 1\r\nKeep-Alive: 300\r\nTE: gzip\r\n\
        Proxy-Connection: keep-alive\r\nProxy-Authorization: x\r\nUpgrade: h2c\r\n\
        X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\n\
        X-End: 1\r\nCookie: a=1\r\nX-Request-Id: given\r\n\r\n";
    let response = exchange(cluster.address(), "GET", request).await.unwrap();
    let seen = backend.recorded().remove(0).request;
    assert!(seen.head.starts_with("GET /p?q=1 HTTP/1.1\r\n"), "{seen:?}");
    for gone in [
        "X-Secret",
        "Keep-Alive",
        "TE",
        "Proxy-Connection",
        "Proxy-Authorization",
        "Upgrade",
        "Content-Length",
    ] {
        assert_eq!(seen.field(gone), None, "{gone}: {}", seen.head);
    }
    for (name, value) in [
        ("Host", "www.example.com"),
        ("X-End", "1"),
        ("Cookie", "a=1"),
        ("X-Request-Id", "given"),
        // The client is not trusted: only what we saw ourselves is true.
        ("X-Forwarded-For", "127.0.0.1"),
        ("X-Forwarded-Proto", "http"),
        ("X-Forwarded-Host", "www.example.com"),
    ] {
        assert_eq!(seen.field(name), Some(value), "{name}: {}", seen.head);
    }
    for gone in ["X-Hop", "Keep-Alive", "Proxy-Authenticate"] {
        assert_eq!(response.field(gone), None, "{gone}: {}", response.head);
    }
    assert_eq!(response.field("X-End"), Some("1"));
}

#[tokio::test]
async fn an_absolute_target_beats_the_host_field() {
    let backend = Backend::scripted(|_| raw(ok("")));
    let cluster = one_proxy(&[&backend]).await;
    let request =
        "GET http://www.example.com:81/p HTTP/1.1\r\nHost: other\r\nConnection: close\r\n\r\n";
    exchange(cluster.address(), "GET", request).await.unwrap();
    let seen = backend.recorded().remove(0).request;
    assert_eq!((seen.path(), seen.field("Host")), ("/p", Some("www.example.com:81")));
}

#[tokio::test]
async fn what_a_backend_cut_off_is_never_complete_at_the_client() {
    let cut: [(&str, &str); 6] = [
        ("/length", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this"),
        ("/length/none", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"),
        ("/chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\nonly this"),
        ("/chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nonly\r\n"),
        ("/last", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nonly\r\n0\r\n"),
        ("/bad", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nonlyxx\r\n"),
    ];
    let backend = Backend::scripted(move |request| {
        let (path, end) = request.path().rsplit_once('.').expect("a path with an ending");
        let (_, bytes) = cut.iter().find(|(known, _)| *known == path).expect("a known path");
        let end = if end == "close" { Action::Close } else { Action::Reset };
        // Sent long before the end, so that the head has been passed on.
        vec![Action::Send((*bytes).into()), Action::Pause(Duration::from_millis(50)), end]
    });
    let cluster = one_proxy(&[&backend]).await;
    for (path, _) in cut {
        for end in ["close", "reset"] {
            for version in ["1.1", "1.0"] {
                let request = format!("GET {path}.{end} HTTP/{version}\r\nHost: test\r\n\r\n");
                let outcome = exchange(cluster.address(), "GET", request).await;
                let complete = outcome.as_ref().is_ok_and(|response| response.status == 200);
                assert!(!complete, "{path}.{end} in HTTP/{version}: {outcome:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_backend_that_breaks_the_protocol_is_a_502() {
    let bad: [(&str, &str); 9] = [
        ("/garbage", "what is this?\r\n\r\n"),
        ("/lf", "HTTP/1.1 200 OK\nContent-Length: 0\n\n"),
        (
            "/both",
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        ("/two", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"),
        ("/sign", "HTTP/1.1 200 OK\r\nContent-Length: +3\r\n\r\nabc"),
        ("/gzip", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
        ("/old", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ("/switch", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n"),
        ("/status", "HTTP/1.1 1000 Oh\r\nContent-Length: 0\r\n\r\n"),
    ];
    let backend = Backend::scripted(move |request| {
        let (_, bytes) = bad.iter().find(|(path, _)| *path == request.path()).expect("known");
        raw(*bytes)
    });
    let cluster = one_proxy(&[&backend]).await;
    let mut client = Client::connect(cluster.address()).await;
    for (path, _) in bad {
        client.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n")).await;
        // The client did nothing wrong and keeps its connection.
        let response = client.response().await;
        response.expect(502, "backend_protocol_error");
        assert!(response.text().contains("backend1"), "{path}: {}", response.text());
    }
}

#[tokio::test]
async fn a_connection_on_which_more_came_than_announced_is_not_used_again() {
    let mut answer = ok("one");
    answer.extend_from_slice(&ok("poison"));
    let backend = Backend::scripted(move |_| raw(answer.clone()));
    let cluster = one_proxy(&[&backend]).await;
    let mut client = Client::connect(cluster.address()).await;
    for asked in 1..=4 {
        client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
        assert_eq!(client.response().await.text(), "one");
        assert_eq!(backend.connections(), asked);
    }
}

#[tokio::test]
async fn connections_to_backends_are_kept_and_used_again() {
    let backend = Backend::saying("a");
    let cluster = one_proxy(&[&backend]).await;
    let mut client = Client::connect(cluster.address()).await;
    for _ in 0..10 {
        client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
        assert_eq!(client.response().await.text(), "a");
    }
    assert_eq!(backend.connections(), 1);
}

#[tokio::test]
async fn a_request_may_come_byte_by_byte_and_after_empty_lines() {
    let backend = Backend::scripted(various);
    let cluster = one_proxy(&[&backend]).await;
    let mut client = Client::connect(cluster.address()).await;
    for _ in 0..3 {
        for byte in b"\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n" {
            client.send([*byte]).await;
            // The pace of a slow client: bytes that arrive together test nothing.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(client.response().await.text(), "hello, world");
    }
}
