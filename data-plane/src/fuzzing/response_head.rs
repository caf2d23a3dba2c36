//! Responses: a body ends where RFC 9112, 6.3 says, and a client is told so in a way that
//! it cannot misread.

use super::{
    adapter::{self, MovedEnd, Response, find_head, move_body, read_response},
    chunked_body::in_chunks,
    message::{Framed, Message, is_token},
};
use crate::h1::{
    Version,
    body::{BodyLength, Framing},
    request::Method,
    response::Delivery,
};

/// Reads the bytes as what a backend sends, for every kind of request and client.
pub fn response_head(data: &[u8]) {
    let Ok(Some(length)) = find_head(data, data.len().max(1)) else { return };
    let (head, body) = data.split_at(length);
    for method in [Method::Head, Method::Idempotent, Method::Other] {
        for version in [Version::Http10, Version::Http11] {
            for keep_alive in [false, true] {
                let delivery = Delivery { version, keep_alive, trailers: true, date: None };
                if let Some(response) = checked(head, method, None, delivery) {
                    body_arrives(&response, body);
                }
            }
        }
    }
}

/// Reads a complete head and checks what was made of it.
pub(super) fn checked(
    head: &[u8],
    method: Method,
    asked: Option<&[u8]>,
    delivery: Delivery,
) -> Option<Response> {
    let response = read_response(head, method, asked, delivery)?;
    let received = Message::response(head).expect("a malformed head is accepted");
    assert!((100..1000).contains(&response.status));
    assert_eq!(received.start[1], response.status.to_string().as_bytes());
    assert_eq!(response.body, body_length(&received, method, response.status));
    keeps_as_it_says(&received, &response, method);
    let written = Message::response(&response.encoded).expect("a malformed head is written");
    assert_eq!(written.start[..2], [&b"HTTP/1.1"[..], received.start[1]]);
    // A reason beyond ASCII may be left out.
    assert!(written.start[2] == received.start[2] || written.start[2].is_empty());
    is_framed(&received, &written, &response, method, delivery);
    let named = received.list("connection");
    assert_eq!(written.end_to_end(&[]), received.end_to_end(&named));
    client_understands(&response, method, delivery);
    Some(response)
}

/// RFC 9112, 6.3, with every doubt a refusal.
fn body_length(received: &Message<'_>, method: Method, status: u16) -> BodyLength {
    let framed = received.framed().expect("a doubtful framing is accepted");
    let is_old = received.start[0] == b"HTTP/1.0";
    assert!(!(is_old && framed == Framed::Chunked), "chunks in HTTP/1.0");
    if method == Method::Head || has_no_body(status) {
        return BodyLength::Known(0);
    }
    match framed {
        Framed::Chunked => BodyLength::Chunked,
        Framed::Length(length) => BodyLength::Known(length),
        Framed::Unsaid => BodyLength::UntilClose,
    }
}

fn has_no_body(status: u16) -> bool {
    status < 200 || status == 204 || status == 304
}

/// The backend's connection is not reused against its will, nor behind an open end.
fn keeps_as_it_says(received: &Message<'_>, response: &Response, method: Method) {
    let options = received.list("connection");
    assert!(options.iter().all(|option| is_token(option)), "Connection names what is no token");
    let says = |text: &str| options.iter().any(|option| option == text.as_bytes());
    let is_old = received.start[0] == b"HTTP/1.0";
    let keeps = !says("close") && (!is_old || says("keep-alive"));
    // What announces a body that it must not have may well send it.
    let is_bodiless = method == Method::Head || has_no_body(response.status);
    let lies = is_bodiless
        && response.status >= 200
        && !matches!(received.framed(), Some(Framed::Unsaid | Framed::Length(0)));
    assert_eq!(response.keep_alive, keeps && !lies && response.body != BodyLength::UntilClose);
}

/// Exactly one framing, which this client knows; a length is never invented.
fn is_framed(
    received: &Message<'_>,
    written: &Message<'_>,
    response: &Response,
    method: Method,
    delivery: Delivery,
) {
    let framed = written.framed().expect("a doubtful framing is written");
    assert!(written.all("content-length").len() < 2, "Content-Length is written twice");
    let told = match received.framed() {
        Some(Framed::Length(length)) => Framed::Length(length),
        _ => Framed::Unsaid,
    };
    let expected = match (response.status, response.body, delivery.version) {
        (..200 | 204, _, _) => Framed::Unsaid,
        (304, _, _) => told,
        _ if method == Method::Head => told,
        (_, BodyLength::Known(length), _) => Framed::Length(length),
        (_, _, Version::Http11) => Framed::Chunked,
        (_, _, Version::Http10) => Framed::Unsaid,
    };
    assert_eq!(framed, expected);
    let options = written.list("connection");
    let said: Vec<&[u8]> = options.iter().map(Vec::as_slice).collect();
    match (response.status, delivery.keep_alive, delivery.version) {
        // A switch of protocols is said with Connection, too.
        (101, _, _) => assert!(said.is_empty() || said == [b"upgrade"]),
        (..200, _, _) | (_, true, Version::Http11) => assert!(said.is_empty()),
        (_, true, Version::Http10) => assert_eq!(said, [b"keep-alive"]),
        (_, false, _) => assert_eq!(said, [b"close"]),
    }
    for gone in ["keep-alive", "proxy-connection", "te"] {
        assert!(written.all(gone).is_empty(), "{gone} is passed on");
    }
    assert!(response.status == 101 || written.all("upgrade").is_empty(), "Upgrade is passed on");
}

/// Our own parser, in the client's place, reads the same response.
fn client_understands(response: &Response, method: Method, delivery: Delivery) {
    let length = response.encoded.len();
    let told = Message::response(&response.encoded).map(|told| told.list("upgrade").join(&b','));
    assert_eq!(find_head(&response.encoded, length), Ok(Some(length)), "not a whole head");
    let Some(again) = read_response(&response.encoded, method, told.as_deref(), delivery) else {
        let fields = response.encoded.split(|&byte| byte == b'\n').count();
        assert!(fields > 90, "our own parser refuses what we write");
        return;
    };
    let expected = match response.framing {
        Some(Framing::Chunked) => BodyLength::Chunked,
        Some(Framing::Identity) => response.body,
        None => BodyLength::UntilClose,
    };
    assert_eq!((again.status, again.body), (response.status, expected));
}

/// The body reaches the client as the backend sent it, in the framing that was announced.
fn body_arrives(response: &Response, input: &[u8]) {
    let cuts = adapter::cuts(input);
    let plain = move_body(input, &cuts, response.body, Framing::Identity);
    match response.body {
        BodyLength::Known(length) => {
            let available = usize::try_from(length).unwrap_or(usize::MAX).min(input.len());
            assert_eq!(plain.out, &input[..available]);
            assert_eq!(plain.end == MovedEnd::Done, available as u64 == length);
        }
        BodyLength::UntilClose => assert_eq!(plain.out, input),
        BodyLength::Chunked => {}
    }
    if response.framing == Some(Framing::Chunked) {
        let chunked = move_body(input, &cuts, response.body, Framing::Chunked);
        assert_eq!(chunked.end, plain.end);
        in_chunks(&chunked, &plain.out);
    }
}
