//! The only calls from here into `h1`, made as `http` makes them but without I/O.

use std::net::{IpAddr, Ipv4Addr};

use lb_core::model::HttpLimits;

use crate::h1::{
    Version,
    body::{BodyLength, BodyReader, Framing},
    field_storage, fields,
    request::{self, Forwarding, Method},
    response::{self, Delivery},
    scan::{HeadScan, ScanError},
};

/// The client's address.
pub(super) const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
/// The host of a request that names none.
pub(super) const FALLBACK_HOST: &str = "203.0.113.1:8080";
/// The most bytes of the extensions of one chunk.
pub(super) const EXTENSION_BYTES_MAX: usize =
    HttpLimits::DEFAULT.chunk_extension_bytes_max as usize;
/// The most bytes of all trailers.
pub(super) const TRAILER_BYTES_MAX: usize = HttpLimits::DEFAULT.trailer_bytes_max as usize;

/// The stream behind its leading empty lines; `None` when it cannot become a request.
pub(super) fn beginning(mut stream: &[u8]) -> Option<&[u8]> {
    while let Some(rest) = stream.strip_prefix(b"\r\n") {
        stream = rest;
    }
    stream
        .first()
        .is_none_or(|first| fields::is_token_byte(*first) || *first == b'\r')
        .then_some(stream)
}

/// Looks for the end of a head, the bytes coming in pieces of this size.
pub(super) fn find_head(bytes: &[u8], piece: usize) -> Result<Option<usize>, ScanError> {
    let mut scan = HeadScan::default();
    let mut end = 0;
    loop {
        end = bytes.len().min(end + piece);
        let found = scan.advance(&bytes[..end], &HttpLimits::DEFAULT)?;
        if found.is_some() || end == bytes.len() {
            return Ok(found);
        }
    }
}

/// Reads the head of a stream in one go, as is done with one that came at once: its
/// length if it is accepted, `None` while it is not complete.
pub(super) fn parse_at_once(stream: &[u8]) -> Result<Option<usize>, ()> {
    let mut storage = field_storage();
    match request::parse(stream, &HttpLimits::DEFAULT, &mut storage) {
        Ok(head) => Ok(head.map(|head| head.len())),
        Err(_) => Err(()),
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
    let head = request::parse(head, &HttpLimits::DEFAULT, &mut storage).ok()??;
    let mut encoded = Vec::new();
    let forwarding = Forwarding {
        mark: b"",
        peer: PEER,
        peer_trusted,
        fallback_host: FALLBACK_HOST,
        request_id: 0x0123_4567_89ab_cdef,
        own_cookies: &[],
        keeps_named: false,
    };
    head.encode(&forwarding, &mut encoded);
    Some(Request {
        method: head.method,
        path: path(&head),
        host: head.host.map(<[u8]>::to_vec),
        version: head.version,
        body: head.body,
        keep_alive: head.keep_alive,
        expects_continue: head.expects_continue,
        encoded,
    })
}

/// The path for the backend.
fn path(head: &request::RequestHead<'_, '_>) -> Vec<u8> {
    match head.written_path() {
        query if query.starts_with(b"?") => [b"/", query].concat(),
        path => path.to_vec(),
    }
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

/// Reads a complete response head; `None` when it is refused, as is a switch to
/// a protocol that the forwarded request did not ask for.
pub(super) fn read_response(
    head: &[u8],
    method: Method,
    asked: Option<&[u8]>,
    delivery: Delivery,
) -> Option<Response> {
    let mut storage = field_storage();
    let head = response::parse(head, method, &mut storage).ok()??;
    if head.status == 101 && !asked.is_some_and(|asked| head.switches_to_one_of(asked)) {
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
    let mut reader = BodyReader::new(length, &HttpLimits::DEFAULT, true, false);
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
