use super::*;
use crate::h1::field_storage;

const KEPT: Delivery =
    Delivery { version: Version::Http11, keep_alive: true, trailers: false, date: None };
const OLD: Delivery = Delivery { version: Version::Http10, keep_alive: false, ..KEPT };

fn passed(
    head: &str,
    method: Method,
    delivery: Delivery,
) -> Result<(String, BodyLength), BadResponse> {
    let mut storage = field_storage();
    let head = parse(head.as_bytes(), method, &mut storage)?.expect("a whole head");
    let mut out = Vec::new();
    head.encode(delivery, &mut out);
    Ok((String::from_utf8(out).unwrap(), head.body))
}

fn get(head: &str) -> Result<(String, BodyLength), BadResponse> {
    passed(head, Method::Idempotent, KEPT)
}

#[test]
fn a_response_without_a_date_is_given_one() {
    let lacks = |fields: &str| {
        let head = format!("HTTP/1.1 204 No Content\r\n{fields}\r\n");
        let mut storage = field_storage();
        let head = parse(head.as_bytes(), Method::Idempotent, &mut storage).unwrap().unwrap();
        head.lacks_date()
    };
    assert!(lacks("Data: 1\r\n") && lacks("Connection: date\r\nDate: 1\r\n"));
    assert!(!lacks("dATE: 1\r\n"));
    let dated = Delivery { date: Some(*b"Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"), ..KEPT };
    let (out, _) = passed("HTTP/1.1 204 No Content\r\n\r\n", Method::Idempotent, dated).unwrap();
    assert_eq!(out, "HTTP/1.1 204 No Content\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n");
}

#[test]
fn a_response_is_passed_on_without_the_hop() {
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: keep-alive, X-A\r\n\
                X-A: 1\r\nKeep-Alive: timeout=5\r\nX-B: 2\r\n\r\n";
    let (out, body) = get(head).unwrap();
    assert_eq!(out, "HTTP/1.1 200 OK\r\nX-B: 2\r\nContent-Length: 3\r\n\r\n");
    assert_eq!(body, BodyLength::Known(3));
}

#[test]
fn a_client_that_must_upgrade_is_told_to_what() {
    let head = "HTTP/1.1 426 Upgrade Required\r\nUpgrade: TLS/1.3\r\nConnection: Upgrade\r\n\
                Content-Length: 0\r\n\r\n";
    let (out, _) = get(head).unwrap();
    assert!(out.contains("Connection: upgrade\r\nUpgrade: TLS/1.3\r\n"), "{out}");
    let (out, _) = get(&head.replace("426 Upgrade Required", "200 OK")).unwrap();
    assert!(!out.to_ascii_lowercase().contains("upgrade"), "{out}");
}

#[test]
fn a_switch_is_to_what_was_asked_and_to_few() {
    let switches = |upgrade: &str, asked: &str| {
        let head =
            format!("HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: {upgrade}\r\n\r\n");
        let mut storage = field_storage();
        let head = parse(head.as_bytes(), Method::Idempotent, &mut storage).unwrap().unwrap();
        head.switches_to_one_of(asked.as_bytes())
    };
    assert!(switches("a", "b, A") && switches("a, b", "b, a"));
    assert!(!switches("", "a") && !switches("a, c", "a, b"));
    assert!(!switches("h2c", "a, h2c"), "it was not passed on");
    assert!(switches(&["a"; PROTOCOLS_MAX].join(","), "a"));
    assert!(!switches(&["a"; PROTOCOLS_MAX + 1].join(","), "a"));
}

#[test]
fn a_client_is_told_how_to_authenticate_when_it_must() {
    let head = "HTTP/1.1 407 x\r\nProxy-Authenticate: Basic\r\nProxy-X: y\r\n\r\n";
    let (out, _) = get(head).unwrap();
    assert!(out.contains("Proxy-Authenticate: Basic\r\n") && !out.contains("Proxy-X"), "{out}");
    let (out, _) = get(&head.replace("407", "401")).unwrap();
    assert!(!out.contains("Proxy-"), "{out}");
}

#[test]
fn trailers_that_do_not_come_are_not_announced() {
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-A\r\n";
    let takes = Delivery { trailers: true, ..KEPT };
    let out = |more: &str| {
        let head = format!("{head}{more}\r\n");
        passed(&head, Method::Idempotent, takes).unwrap().0
    };
    assert!(out("").contains("Trailer: X-A\r\n"));
    for named in ["X-A", "Trailer", "X-B"] {
        assert!(!out(&format!("Connection: {named}\r\n")).contains("Trailer"), "{named}");
    }
}

#[test]
fn a_body_without_length_gets_a_framing_that_the_client_knows() {
    let (out, body) = get("HTTP/1.0 200 OK\r\n\r\n").unwrap();
    assert_eq!(body, BodyLength::UntilClose);
    assert!(out.contains("Transfer-Encoding: chunked\r\n"));
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n";
    assert_eq!(get(chunked).unwrap().1, BodyLength::Chunked);
    let (out, _) = passed(chunked, Method::Idempotent, OLD).unwrap();
    assert_eq!(out, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
}

#[test]
fn head_and_304_tell_a_length_and_have_no_body() {
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n";
    let (out, body) = passed(head, Method::Head, KEPT).unwrap();
    assert_eq!(body, BodyLength::Known(0));
    assert!(out.contains("Content-Length: 9\r\n"));
    let (out, body) = get("HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n").unwrap();
    assert_eq!((body, out.contains("Content-Length")), (BodyLength::Known(0), false));
    let (out, body) = get("HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n").unwrap();
    assert_eq!((body, out.contains("Content-Length")), (BodyLength::Known(0), false));
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let (out, body) = passed(head, Method::Head, KEPT).unwrap();
    assert_eq!((body, out.contains("Content-Length")), (BodyLength::Known(0), false));
}

#[test]
fn a_backends_doubtful_framing_is_its_fault() {
    for fields in [
        "Content-Length: 1\r\nContent-Length: 2\r\n",
        "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: x\r\n",
        "Transfer-Encoding: gzip\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "X : y\r\n",
        "X: a\r\n folded\r\n",
    ] {
        assert!(get(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n")).is_err(), "{fields:?}");
    }
    assert!(get("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").is_err());
    for line in ["HTTP/1.1 99 x", "HTTP/1.1 099 x", "HTTP/2 200 OK", "200 OK", ""] {
        assert!(get(&format!("{line}\r\n\r\n")).is_err(), "{line:?}");
    }
}
