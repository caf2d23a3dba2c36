//! Requests whose framing is in doubt: refused, and nothing of them reaches a backend.
//! A lenient backend could read each of them as two.

use lb_tests::{
    backend::Backend,
    client::{Client, exchange, get},
};

use crate::one_proxy;

/// What an attacker wants a backend to take for a request of its own.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: test\r\n\r\n";

/// Request line and fields, each a request that must be refused for its head alone.
const BAD_HEADS: [(&str, &str); 56] = [
    // Two framings.
    (
        "length and chunks",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n",
    ),
    (
        "chunks and length",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n",
    ),
    (
        "chunks and length 0",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n",
    ),
    ("two lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nContent-Length: 5\r\n"),
    ("two lengths in one", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4, 5\r\n"),
    (
        "GET with both",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n",
    ),
    // Encodings that are not exactly `chunked`.
    ("twice chunked", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n"),
    (
        "chunked in two fields",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
    ),
    (
        "chunked, then identity",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
    ),
    ("identity", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n"),
    ("gzip, chunked", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n"),
    ("chunked, gzip", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n"),
    ("xchunked", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n"),
    ("chunked in quotes", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n"),
    (
        "chunked with a parameter",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked;a=b\r\n",
    ),
    (
        "chunked behind a vertical tab",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n",
    ),
    ("no encoding", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n"),
    ("chunked comma", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked,\r\n"),
    ("chunks in HTTP/1.0", "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n"),
    // Lengths that are not digits.
    ("plus", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +4\r\n"),
    ("minus", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -4\r\n"),
    ("hexadecimal", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x4\r\n"),
    ("no length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n"),
    ("length in two words", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1 0\r\n"),
    ("length with a point", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4.0\r\n"),
    (
        "length beyond 64 bits",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551620\r\n",
    ),
    // Names.
    ("space before the colon", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length : 4\r\n"),
    ("tab before the colon", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding\t: chunked\r\n"),
    ("space before a name", "POST / HTTP/1.1\r\n Host: a\r\nContent-Length: 4\r\n"),
    ("folded line", "POST / HTTP/1.1\r\nHost: a\r\nX: 1\r\n Transfer-Encoding: chunked\r\n"),
    ("folded value", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n"),
    ("no name", "POST / HTTP/1.1\r\nHost: a\r\n: 4\r\n"),
    ("no colon", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length 4\r\n"),
    ("name in parentheses", "POST / HTTP/1.1\r\nHost: a\r\n(Content-Length): 4\r\n"),
    ("NUL in a name", "POST / HTTP/1.1\r\nHost: a\r\nContent\0-Length: 4\r\n"),
    // Ends of lines.
    ("bare LF", "POST / HTTP/1.1\r\nHost: a\r\nX: 1\nTransfer-Encoding: chunked\r\n"),
    ("bare LF in the request line", "POST / HTTP/1.1\nHost: a\r\n"),
    ("bare CR in a value", "POST / HTTP/1.1\r\nHost: a\r\nX: 1\rTransfer-Encoding: chunked\r\n"),
    ("two CRs", "POST / HTTP/1.1\r\nHost: a\r\nX: 1\r\r\nContent-Length: 4\r\n"),
    ("NUL in a value", "POST / HTTP/1.1\r\nHost: a\r\nX: 1\0\r\n"),
    ("control character", "POST / HTTP/1.1\r\nHost: a\r\nX: \x01\r\n"),
    // Hosts.
    ("no host", "GET / HTTP/1.1\r\n"),
    ("two hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n"),
    ("the same host twice", "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n"),
    ("two hosts in HTTP/1.0", "GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n"),
    ("host with a path", "GET / HTTP/1.1\r\nHost: a/b\r\n"),
    ("host with a space", "GET / HTTP/1.1\r\nHost: a b\r\n"),
    ("host with a name", "GET / HTTP/1.1\r\nHost: me@a\r\n"),
    // Request lines.
    ("two spaces", "GET  / HTTP/1.1\r\nHost: a\r\n"),
    ("tabs", "GET\t/\tHTTP/1.1\r\nHost: a\r\n"),
    ("space in the target", "GET /a b HTTP/1.1\r\nHost: a\r\n"),
    ("no version", "GET /\r\nHost: a\r\n"),
    ("target without a slash", "GET a HTTP/1.1\r\nHost: a\r\n"),
    ("fragment", "GET /#a HTTP/1.1\r\nHost: a\r\n"),
    ("lower-case version", "GET / http/1.1\r\nHost: a\r\n"),
    ("NUL in the target", "GET /\0 HTTP/1.1\r\nHost: a\r\n"),
];

#[tokio::test]
async fn a_head_in_doubt_is_answered_400_and_nothing_of_it_is_forwarded() {
    let backend = Backend::saying("a");
    let cluster = one_proxy(&[&backend]).await;
    let mut wrong = Vec::new();
    for (what, head) in BAD_HEADS {
        let mut client = Client::connect(cluster.address()).await;
        client.send(format!("{head}\r\n0\r\n\r\n{SMUGGLED}")).await;
        let answer = String::from_utf8_lossy(&client.rest().await).into_owned();
        let refused =
            answer.starts_with("HTTP/1.1 400 ") && answer.contains("client_protocol_error");
        // One answer and then the end: what follows is not read as a request.
        if !refused || answer.matches("HTTP/1.1 ").count() != 1 {
            wrong.push(format!("{what}: {answer:?}"));
        }
        if backend.bytes() > 0 {
            let seen = backend.recorded();
            panic!("{what}: the backend was reached by {seen:#?}");
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(get(cluster.address(), "/").await.text(), "a");
}

#[tokio::test]
async fn what_is_not_served_is_refused_with_its_own_status() {
    let backend = Backend::saying("a");
    let cluster = one_proxy(&[&backend]).await;
    let long = "x".repeat(9000);
    let many: String = (0..200).map(|n| format!("X-{n}: 1\r\n")).collect();
    let large: String = (0..30).map(|n| format!("X-{n}: {}\r\n", "x".repeat(4000))).collect();
    for (status, request) in [
        (505, "GET / HTTP/2.0\r\nHost: a\r\n\r\n".to_owned()),
        (505, "GET / HTTP/1.2\r\nHost: a\r\n\r\n".to_owned()),
        (405, "CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
        (405, "TRACE / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
        (414, format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n")),
        (431, format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n")),
        (431, format!("GET / HTTP/1.1\r\nHost: a\r\n{large}\r\n")),
        (400, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned()),
        (400, "\x16\x03\x01\x02\x00\x01".to_owned()),
    ] {
        let mut client = Client::connect(cluster.address()).await;
        // It may refuse before it has seen all.
        client.try_send(&request).await.ok();
        let response = client.response().await;
        let shown = &request[..request.len().min(40)];
        // The preface of HTTP/2 names a version, too.
        let fits =
            response.status == status || (request.starts_with("PRI") && response.status == 505);
        assert!(fits, "{shown:?}: {response:?}");
        assert_eq!(client.rest().await, b"", "{shown:?}");
    }
    assert_eq!(backend.bytes(), 0);
}

/// Chunked bodies that break off the rules, each followed by a request.
const BAD_CHUNKS: [(&str, &str); 14] = [
    ("size with a prefix", "0x4\r\nabcd\r\n0\r\n\r\n"),
    ("size with a sign", "+4\r\nabcd\r\n0\r\n\r\n"),
    ("size that is none", "zz\r\nabcd\r\n0\r\n\r\n"),
    ("no size", "\r\nabcd\r\n0\r\n\r\n"),
    ("size beyond 64 bits", "10000000000000004\r\nabcd\r\n0\r\n\r\n"),
    ("space before the size", " 4\r\nabcd\r\n0\r\n\r\n"),
    ("bare LF behind the size", "4\nabcd\r\n0\r\n\r\n"),
    ("bare LF in an extension", "4;a\nb\r\nabcd\r\n0\r\n\r\n"),
    ("bare CR behind the size", "4\rabcd\r\n0\r\n\r\n"),
    ("longer than its size", "2\r\nabcd\r\n0\r\n\r\n"),
    ("bare LF behind the data", "4\r\nabcd\n0\r\n\r\n"),
    ("bare LF at the end", "4\r\nabcd\r\n0\n\n"),
    ("bare LF behind the last size", "4\r\nabcd\r\n0\n\r\n"),
    ("NUL in a trailer", "4\r\nabcd\r\n0\r\nX: \0\r\n\r\n"),
];

#[tokio::test]
async fn a_malformed_chunk_never_ends_as_a_second_request() {
    let backend = Backend::saying("a");
    let cluster = one_proxy(&[&backend]).await;
    let head = "POST /first HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (what, body) in BAD_CHUNKS {
        for split in [false, true] {
            let mut client = Client::connect(cluster.address()).await;
            if split {
                // The head is on its way to the backend before the body is seen.
                let before = backend.requests();
                client.send(head).await;
                backend.reached(before + 1).await;
                client.send(format!("{body}{SMUGGLED}")).await;
            } else {
                client.send(format!("{head}{body}{SMUGGLED}")).await;
            }
            let answer = String::from_utf8_lossy(&client.rest().await).into_owned();
            assert!(!answer.contains("200 OK"), "{what}: {answer}");
            assert!(answer.matches("HTTP/1.1 ").count() <= 1, "{what}: {answer}");
        }
    }
    let paths: Vec<String> =
        backend.recorded().iter().map(|seen| seen.request.path().to_owned()).collect();
    assert!(paths.iter().all(|path| path == "/first"), "{paths:?}");
    assert_eq!(get(cluster.address(), "/").await.text(), "a");
}

#[tokio::test]
async fn unusual_but_clear_requests_are_forwarded_in_our_own_framing() {
    let backend = Backend::saying("a");
    let cluster = one_proxy(&[&backend]).await;
    let rest = "Host: test\r\nConnection: close\r\n";
    let chunks = "4;x=\"y\"\r\nabcd\r\n00\r\nX-Trailer: 1\r\n\r\n";
    for (what, request) in [
        ("case", format!("POST / HTTP/1.1\r\n{rest}TRANSFER-encoding: ChUnKeD\r\n\r\n{chunks}")),
        (
            "spaces",
            format!("POST / HTTP/1.1\r\n{rest}Transfer-Encoding:  chunked \t\r\n\r\n{chunks}"),
        ),
        (
            "same length",
            format!("POST / HTTP/1.1\r\n{rest}Content-Length: 4\r\nContent-Length: 4\r\n\r\nabcd"),
        ),
        ("zeros", format!("POST / HTTP/1.1\r\n{rest}Content-Length: 0004\r\n\r\nabcd")),
        ("empty lines", format!("\r\n\r\nPOST / HTTP/1.1\r\n{rest}Content-Length: 4\r\n\r\nabcd")),
    ] {
        let before = backend.requests();
        let response = exchange(cluster.address(), "POST", request).await.expect(what);
        assert_eq!(response.status, 200, "{what}: {response:?}");
        let seen = backend.recorded().remove(before);
        let framings = seen.request.head.lines().filter(|line| {
            let line = line.to_lowercase();
            line.starts_with("content-length:") || line.starts_with("transfer-encoding:")
        });
        let framings: Vec<&str> = framings.collect();
        match framings[..] {
            ["Content-Length: 4"] => assert_eq!(seen.body, b"abcd", "{what}"),
            ["Transfer-Encoding: chunked"] => {
                assert_eq!(seen.body, b"4\r\nabcd\r\n0\r\n\r\n", "{what}");
            }
            _ => panic!("{what}: {framings:?}"),
        }
    }
}
