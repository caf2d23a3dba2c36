//! The only calls from here into `h1`, made as `http` makes them but without I/O.

use std::net::{IpAddr, Ipv4Addr};

use crate::h1::{
    Version,
    body::{BodyLength, BodyReader, Framing},
    field_storage,
    request::{self, Forwarding, Method},
    response::{self, Delivery},
    scan::{HeadScan, ScanError},
};

/// The client's address.
pub(super) const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
/// The host of a request that names none.
pub(super) const FALLBACK_HOST: &str = "203.0.113.1:8080";
/// The most bytes of the extensions of one chunk.
pub(super) const EXTENSION_BYTES_MAX: usize = 256;
/// The most bytes of all trailers.
pub(super) const TRAILER_BYTES_MAX: usize = 8 * 1024;

/// The stream behind its leading empty lines; `None` when it cannot become a request.
pub(super) fn beginning(mut stream: &[u8]) -> Option<&[u8]> {
    while let Some(rest) = stream.strip_prefix(b"\r\n") {
        stream = rest;
    }
    stream
        .first()
        .is_none_or(|first| first.is_ascii_alphanumeric() || *first == b'\r')
        .then_some(stream)
}

/// Looks for the end of a head, the bytes coming in pieces of this size.
pub(super) fn find_head(bytes: &[u8], piece: usize) -> Result<Option<usize>, ScanError> {
    let mut scan = HeadScan::default();
    let mut end = 0;
    loop {
        end = bytes.len().min(end + piece);
        let found = scan.advance(&bytes[..end])?;
        if found.is_some() || end == bytes.len() {
            return Ok(found);
        }
    }
}

/// A request head that was accepted.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) method: Method,
    pub(super) path: Vec<u8>,
    pub(super) host: Option<Vec<u8>>,
    pub(super) version: Version,
    pub(super) body: BodyLength,
    pub(super) keep_alive: bool,
    pub(super) expects_continue: bool,
    /// The head for the backend.
    pub(super) encoded: Vec<u8>,
}

/// Reads a complete request head; `None` when it is refused.
pub(super) fn read_request(head: &[u8], peer_trusted: bool) -> Option<Request> {
    let mut storage = field_storage();
    let head = request::parse(head, &mut storage).ok()?;
    let mut encoded = Vec::new();
    let forwarding = Forwarding {
        peer: PEER,
        peer_trusted,
        fallback_host: FALLBACK_HOST,
        request_id: 0x0123_4567_89ab_cdef,
    };
    head.encode(&forwarding, &mut encoded);
    Some(Request {
        method: head.method,
        path: head.path.to_vec(),
        host: head.host.map(<[u8]>::to_vec),
        version: head.version,
        body: head.body,
        keep_alive: head.keep_alive,
        expects_continue: head.expects_continue,
        encoded,
    })
}

/// A response head that was accepted.
#[derive(Debug)]
pub(super) struct Response {
    pub(super) status: u16,
    pub(super) body: BodyLength,
    pub(super) keep_alive: bool,
    /// `None`: only the close ends the body.
    pub(super) framing: Option<Framing>,
    /// The head for the client.
    pub(super) encoded: Vec<u8>,
}

/// Reads a complete response head; `None` when it is refused, as is a switch of
/// protocols that the forwarded request did not ask for.
pub(super) fn read_response(
    head: &[u8],
    method: Method,
    asked_to_switch: bool,
    delivery: Delivery,
) -> Option<Response> {
    // Passed over today; see the ignored test below.
    if head.starts_with(b"\r\n") {
        return None;
    }
    let mut storage = field_storage();
    let head = response::parse(head, method, &mut storage).ok()?;
    if head.status == 101 && !asked_to_switch {
        return None;
    }
    let mut encoded = Vec::new();
    head.encode(delivery, &mut encoded);
    Some(Response {
        status: head.status,
        body: head.body,
        keep_alive: head.keep_alive,
        framing: head.framing(delivery.version),
        encoded,
    })
}

/// What became of a body.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Moved {
    /// In the framing that was asked for.
    pub(super) out: Vec<u8>,
    /// Bytes of the input that belonged to the body.
    pub(super) consumed: usize,
    pub(super) end: MovedEnd,
}

/// How far a body came.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum MovedEnd {
    Done,
    Incomplete,
    Malformed,
}

/// Moves a body that begins `input` and arrives in pieces that end at `cuts`, which
/// ascend.
pub(super) fn move_body(
    input: &[u8],
    cuts: &[usize],
    length: BodyLength,
    framing: Framing,
) -> Moved {
    let mut reader = BodyReader::new(length);
    let (mut out, mut consumed) = (Vec::new(), 0);
    if reader.is_done() {
        return Moved { out, consumed, end: MovedEnd::Done };
    }
    for end in cuts.iter().copied().chain([input.len()]) {
        // An empty piece means nothing: the caller waits for more.
        if end <= consumed {
            continue;
        }
        match reader.transfer(&input[consumed..end], framing, &mut out) {
            Ok(moved) => {
                consumed += moved.consumed;
                if moved.done {
                    return Moved { out, consumed, end: MovedEnd::Done };
                }
                assert_eq!(consumed, end, "bytes were left over although more are needed");
            }
            Err(_) => return Moved { out, consumed, end: MovedEnd::Malformed },
        }
    }
    Moved { out, consumed, end: MovedEnd::Incomplete }
}

/// Cuts for a body, drawn from its bytes: each input has its own, and always the same.
pub(super) fn cuts(input: &[u8]) -> Vec<usize> {
    let mut random = fastrand::Rng::with_seed(xxhash_rust::xxh3::xxh3_64(input));
    let count = random.usize(0..6);
    let mut cuts: Vec<usize> = (0..count).map(|_| random.usize(0..=input.len())).collect();
    cuts.sort_unstable();
    cuts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[ignore = "an empty line before a status line is passed over"]
    fn a_response_begins_with_its_status_line() {
        let head = b"\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        let mut storage = field_storage();
        assert!(response::parse(head, Method::Idempotent, &mut storage).is_err());
    }
}
