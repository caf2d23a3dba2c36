use super::*;
use crate::h1::field_storage;

fn forwarded(head: &str) -> Result<String, BadRequest> {
    forwarded_with(head, false)
}

fn forwarded_with(head: &str, peer_trusted: bool) -> Result<String, BadRequest> {
    let mut storage = field_storage();
    let head = parse(head.as_bytes(), &HttpLimits::default(), &mut storage)?.expect("a whole head");
    let forwarding = Forwarding {
        mark: b"CDN-Loop: lb-1\r\n",
        peer: "192.0.2.1".parse().unwrap(),
        peer_trusted,
        fallback_host: "10.0.0.1:80",
        request_id: 0xabc,
        own_cookies: &[],
        keeps_named: false,
    };
    let mut out = Vec::new();
    head.encode(&forwarding, &mut out);
    Ok(String::from_utf8(out).unwrap())
}

fn refusal(head: &str) -> u16 {
    forwarded(head).map_or_else(|bad| bad.status, |out| panic!("forwarded as {out:?}"))
}

#[test]
fn a_request_is_forwarded_with_what_the_proxy_adds() {
    assert_eq!(
        forwarded("GET /a?b HTTP/1.1\r\nHost: x\r\nAccept:  */* \r\n\r\n").unwrap(),
        "GET /a?b HTTP/1.1\r\nHost: x\r\nAccept: */*\r\nX-Forwarded-For: 192.0.2.1\r\n\
         CDN-Loop: lb-1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: x\r\n\
         X-Request-Id: 00000000000000000000000000000abc\r\n\r\n"
    );
}

#[test]
fn how_often_a_request_has_passed_is_told_and_cannot_be_hidden() {
    let passages = |fields: &str| {
        let head = format!("GET / HTTP/1.1\r\nHost: x\r\n{fields}\r\n");
        let mut storage = field_storage();
        let head = parse(head.as_bytes(), &HttpLimits::DEFAULT, &mut storage).unwrap().unwrap();
        (head.has_passed, head.passages(b"lb-1"))
    };
    assert_eq!(passages("X: lb-1\r\n"), (false, 0));
    assert_eq!(passages("CDN-Loop:\r\n"), (true, 0));
    assert_eq!(passages("CDN-Loop: lb-11, a; lb-1, LB-1\r\n"), (true, 0));
    assert_eq!(passages("cdn-loop: lb-1;a=b , x,lb-1\r\nCDN-LOOP: lb-1\r\n"), (true, 3));
    let sent = forwarded(
        "GET / HTTP/1.1\r\nHost: x\r\nConnection: CDN-Loop\r\nCDN-Loop: other\r\nCDN_Loop: 1\r\n\r\n",
    );
    let sent = sent.unwrap();
    assert!(sent.contains("CDN-Loop: other\r\n") && sent.contains("CDN-Loop: lb-1\r\n"), "{sent}");
    assert!(!sent.contains("CDN_Loop"), "{sent}");
}

#[test]
fn doubtful_framing_is_refused() {
    for fields in [
        "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: 1\r\nContent-Length: 2\r\n",
        "Content-Length: +1\r\n",
        "Content-Length: 1, 1\r\n",
        "Content-Length:\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding:\r\n",
        "Transfer-Encoding : chunked\r\n",
        "X: a\r\n folded\r\n",
        "X\0: a\r\n",
        "X: a\0b\r\n",
        "X: a\rb\r\n",
        "X Y: a\r\n",
        ": a\r\n",
        "Host: again\r\n",
        "Connection: a b\r\n",
    ] {
        assert_eq!(
            refusal(&format!("POST / HTTP/1.1\r\nHost: x\r\n{fields}\r\n")),
            400,
            "{fields:?}"
        );
    }
    assert_eq!(refusal("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), 400);
}

#[test]
fn identical_lengths_are_one() {
    let out =
        forwarded("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n");
    assert_eq!(out.unwrap().matches("Content-Length: 3\r\n").count(), 1);
}

#[test]
fn host_is_there_once_and_valid() {
    assert_eq!(refusal("GET / HTTP/1.1\r\n\r\n"), 400);
    assert_eq!(refusal("GET / HTTP/1.1\r\nHost: a b\r\n\r\n"), 400);
    assert_eq!(refusal("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"), 400);
    let old = forwarded("GET / HTTP/1.0\r\n\r\n").unwrap();
    assert!(old.starts_with("GET / HTTP/1.1\r\nHost: 10.0.0.1:80\r\n"), "{old}");
}

#[test]
fn an_absolute_target_beats_host() {
    let out = forwarded("GET http://real:81/p HTTP/1.1\r\nHost: other\r\n\r\n").unwrap();
    assert!(out.starts_with("GET /p HTTP/1.1\r\nHost: real:81\r\n"), "{out}");
    let out = forwarded("OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    assert!(out.starts_with("OPTIONS * HTTP/1.1\r\n"), "{out}");
    for target in
        ["ftp://a/", "http://", "http://a b/", "http://u@a/", "http://:80/", "*", "a", "/#f"]
    {
        assert_eq!(refusal(&format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n")), 400, "{target}");
    }
}

#[test]
fn hop_by_hop_fields_and_those_named_in_connection_stay_behind() {
    let out = forwarded(
        "GET / HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, X-Mine\r\nX-Mine: 1\r\n\
         Keep-Alive: timeout=5\r\nProxy-Authorization: secret\r\nTE: gzip\r\n\
         Upgrade: h2c\r\nExpect: 100-continue\r\nX-Other: 2\r\n\r\n",
    )
    .unwrap();
    for gone in ["X-Mine", "Keep-Alive", "Connection", "Proxy-", "TE:", "Upgrade", "Expect"] {
        assert!(!out.contains(gone), "{gone} in {out}");
    }
    assert!(out.contains("X-Other: 2\r\n"));
}

#[test]
fn an_untrusted_peer_cannot_forge_earlier_hops() {
    let head = "GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 1.1.1.1\r\n\
                X-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\nX-Forwarded-For: 2.2.2.2\r\n\r\n";
    let out = forwarded(head).unwrap();
    assert!(out.contains(
        "X-Forwarded-For: 192.0.2.1\r\nCDN-Loop: lb-1\r\nX-Forwarded-Proto: http\r\n\
         X-Forwarded-Host: x\r\n"
    ));
    assert!(!out.contains("evil") && !out.contains("1.1.1.1"));
    let out = forwarded_with(head, true).unwrap();
    assert!(out.contains("X-Forwarded-For: 1.1.1.1, 2.2.2.2, 192.0.2.1\r\n"), "{out}");
    assert!(
        out.contains("X-Forwarded-Proto: https\r\n") && out.contains("X-Forwarded-Host: evil\r\n")
    );
}

#[test]
fn each_refusal_has_its_status() {
    assert_eq!(refusal("GET / HTTP/2.0\r\nHost: x\r\n\r\n"), 505);
    assert_eq!(refusal("CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n"), 405);
    assert_eq!(refusal("TRACE / HTTP/1.1\r\nHost: x\r\n\r\n"), 405);
    assert_eq!(refusal("GET / HTTP/1.1\r\nHost: x\r\nExpect: tea\r\n\r\n"), 417);
    assert_eq!(refusal("GET / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue, tea\r\n\r\n"), 417);
    assert!(forwarded("GET / HTTP/1.1\r\nHost: x\r\nExpect:\r\n\r\n").is_ok());
    let many = "X: y\r\n".repeat(101);
    assert_eq!(refusal(&format!("GET / HTTP/1.1\r\nHost: x\r\n{many}\r\n")), 431);
    for line in
        ["GET  / HTTP/1.1", "GET / HTTP/1.1 ", "G@T / HTTP/1.1", "GET /\tx HTTP/1.1", "GET /", ""]
    {
        assert_eq!(refusal(&format!("{line}\r\nHost: x\r\n\r\n")), 400, "{line:?}");
    }
}

#[test]
fn keep_alive_follows_version_and_connection() {
    let keeps = |head: &str| {
        let mut storage = field_storage();
        let head = parse(head.as_bytes(), &HttpLimits::default(), &mut storage);
        head.unwrap().unwrap().keep_alive
    };
    assert!(keeps("GET / HTTP/1.1\r\nHost: x\r\n\r\n"));
    assert!(!keeps("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"));
    assert!(!keeps("GET / HTTP/1.0\r\n\r\n"));
    assert!(keeps("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n"));
}

#[test]
fn an_upgrade_is_passed_on_only_if_it_can_be() {
    let asks = |line: &str, fields: &str| {
        forwarded(&format!("{line}\r\nHost: x\r\n{fields}\r\n")).unwrap()
    };
    let out = asks(
        "GET / HTTP/1.1",
        "Connection: Upgrade, X-A\r\nX-A: 1\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n",
    );
    assert!(out.contains("Connection: upgrade\r\nUpgrade: websocket\r\n"), "{out}");
    assert!(out.contains("Sec-WebSocket-Key: k\r\n") && !out.contains("X-A"), "{out}");
    let out =
        asks("GET / HTTP/1.1", "Connection: Upgrade\r\nUpgrade: h2c,websocket,HTTP/2, x/1\r\n");
    assert!(out.contains("\r\nUpgrade: websocket, x/1\r\n"), "{out}");
    for (line, fields) in [
        ("GET / HTTP/1.1", "Upgrade: websocket\r\n"),
        ("GET / HTTP/1.1", "Connection: Upgrade\r\n"),
        ("GET / HTTP/1.0", "Connection: Upgrade\r\nUpgrade: websocket\r\n"),
        ("POST / HTTP/1.1", "Connection: Upgrade\r\nUpgrade: a\r\nContent-Length: 1\r\n"),
        ("POST / HTTP/1.1", "Connection: Upgrade\r\nUpgrade: a\r\nTransfer-Encoding: chunked\r\n"),
        ("GET / HTTP/1.1", "Connection: Upgrade\r\nUpgrade: h2c, HTTP/2.0\r\n"),
        ("GET / HTTP/1.1", "Connection: Upgrade\r\nUpgrade: a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q\r\n"),
        ("GET / HTTP/1.1", "Connection: Upgrade\r\nUpgrade: a\r\nUpgrade: b\r\n"),
        ("GET / HTTP/1.1", "Connection: Upgrade\r\nUpgrade: a b\r\n"),
    ] {
        let out = asks(line, fields);
        assert!(!out.to_lowercase().contains("upgrade"), "{fields:?}: {out}");
    }
}

#[test]
fn a_client_that_takes_trailers_is_offered_them() {
    let out = forwarded("GET / HTTP/1.1\r\nHost: x\r\nTE: gzip, trailers\r\n\r\n").unwrap();
    assert!(out.contains("TE: trailers\r\nConnection: TE\r\n"), "{out}");
}

#[test]
fn an_empty_path_is_a_slash() {
    let out = forwarded("GET http://b?y HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    assert!(out.starts_with("GET /?y HTTP/1.1\r\nHost: b\r\n"), "{out}");
}

#[test]
fn a_head_is_found_in_front_of_what_follows_it() {
    let input = b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET /2";
    let mut storage = field_storage();
    let head = parse(input, &HttpLimits::default(), &mut storage).unwrap().unwrap();
    assert_eq!(head.len(), input.len() - 6);
    let mut storage = field_storage();
    assert!(parse(&input[..20], &HttpLimits::default(), &mut storage).unwrap().is_none());
}

#[test]
fn a_bare_lf_ends_no_line() {
    for head in [
        "GET / HTTP/1.1\nHost: x\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\nA: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\n\n",
        "GET / HTTP/1.1\r\nHost: x\n\r\n",
    ] {
        assert_eq!(refusal(head), 400, "{head:?}");
    }
}

#[test]
fn bounds_are_those_of_the_listener() {
    let limits = HttpLimits {
        request_line_bytes_max: 64,
        head_bytes_max: 256,
        fields_max: 3,
        ..HttpLimits::default()
    };
    let status = |head: &str| {
        let mut storage = field_storage();
        parse(head.as_bytes(), &limits, &mut storage).err().map(|bad| bad.status)
    };
    let line = |path: usize| format!("GET /{} HTTP/1.1", "a".repeat(path - "GET / HTTP/1.1".len()));
    assert_eq!(status(&format!("{}\r\nHost: x\r\n\r\n", line(64))), None);
    assert_eq!(status(&format!("{}\r\nHost: x\r\n\r\n", line(65))), Some(414));
    assert_eq!(status("GET / HTTP/1.1\r\nHost: x\r\nA: 1\r\nB: 2\r\n\r\n"), None);
    assert_eq!(status("GET / HTTP/1.1\r\nHost: x\r\nA: 1\r\nB: 2\r\nC: 3\r\n\r\n"), Some(431));
    let large = format!("GET / HTTP/1.1\r\nHost: x\r\nA: {}\r\n\r\n", "a".repeat(256));
    assert_eq!(status(&large), Some(431));
}
