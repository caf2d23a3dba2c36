//! A switch of protocols: only when the client asked, the backend was asked and the
//! backend agreed. Until its 101 a request's body ends where its head says.

use super::{
    adapter::{MovedEnd, Request, find_head, move_body},
    message::Message,
    request_head, response_head,
};
use crate::h1::{Version, body::Framing, response::Delivery};

/// More interim responses than this are a backend gone mad.
const INTERIM_MAX: usize = 16;

/// Reads the bytes as a request with its body, and behind it what the backend answers.
pub fn upgrade(data: &[u8]) {
    let Some(head) = request_head::first_head(data) else { return };
    let Some(request) = request_head::checked(head, false) else { return };
    let start = data.len() - after(data, head).len();
    let body = move_body(&data[start..], &[], request.body, Framing::Identity);
    if body.end == MovedEnd::Done {
        answered(&request, &data[start + body.consumed..]);
    }
}

/// The stream behind its first head, before which there may be empty lines.
fn after<'b>(stream: &'b [u8], head: &[u8]) -> &'b [u8] {
    let mut rest = stream;
    while let Some(behind) = rest.strip_prefix(b"\r\n") {
        rest = behind;
    }
    &rest[head.len()..]
}

fn answered(request: &Request, mut answer: &[u8]) {
    let forwarded = Message::request(&request.encoded).expect("a malformed head is written");
    let protocols = forwarded.list("upgrade");
    for _ in 0..INTERIM_MAX {
        let Ok(Some(length)) = find_head(answer, answer.len().max(1)) else { return };
        let (head, rest) = answer.split_at(length);
        let delivery = Delivery {
            version: request.version,
            keep_alive: request.keep_alive,
            trailers: true,
            date: None,
        };
        let asked = (!protocols.is_empty()).then(|| protocols.join(&b','));
        let Some(response) =
            response_head::checked(head, request.method, asked.as_deref(), delivery)
        else {
            return;
        };
        if response.status == 101 {
            assert!(asked.is_some(), "a switch that was not asked for");
            assert_eq!(request.version, Version::Http11, "HTTP/1.0 has no Upgrade");
            let received = Message::response(head).expect("it was accepted");
            let chosen = received.list("upgrade");
            assert!(chosen.iter().all(|protocol| protocols.contains(protocol)));
            let told = Message::response(&response.encoded).expect("it was checked");
            assert_eq!(told.list("upgrade"), chosen, "the client is told another protocol");
            return;
        }
        if response.status >= 200 {
            return;
        }
        answer = rest;
    }
}
