//! A client's connection as the proxy would forward it, read by every kind of server.
//! Where two of them see different requests, one client can put words into another's.

use super::{
    adapter::{self, MovedEnd, move_body},
    message::is_hop_by_hop,
    readers::{READERS, Seen, StreamEnd},
    reference::read_chunked,
    request_head,
};
use crate::h1::body::{BodyLength, Framing};

/// Requests of one connection; more bring nothing new.
const REQUESTS_MAX: usize = 8;

/// Reads the bytes as all that a client sends on a connection.
pub fn differential(data: &[u8]) {
    let forwarded = forward(data);
    for reader in READERS {
        let (seen, end) = reader.read(&forwarded.bytes);
        assert_eq!(
            seen,
            forwarded.requests,
            "to a server where {} this is something else: {:?}",
            reader.name,
            String::from_utf8_lossy(&forwarded.bytes)
        );
        // A request that was cut short must not look complete, nor the next ones begin in it.
        assert_eq!(end == StreamEnd::Clean, forwarded.is_whole, "{}: {end:?}", reader.name);
    }
}

/// What the backends were sent for one client, as if it were one connection.
#[derive(Debug, Default)]
struct Forwarded {
    bytes: Vec<u8>,
    /// The requests that were completed, as the proxy understood them.
    requests: Vec<Seen>,
    /// The last request, too, was completed.
    is_whole: bool,
}

fn forward(mut stream: &[u8]) -> Forwarded {
    let mut forwarded = Forwarded { is_whole: true, ..Forwarded::default() };
    for _ in 0..REQUESTS_MAX {
        let Some(head) = request_head::first_head(stream) else { break };
        let Some(request) = request_head::checked(head, false) else { break };
        stream = adapter::beginning(stream).unwrap_or_default();
        let body = &stream[head.len()..];
        let cuts = adapter::cuts(body);
        let framing = match request.body {
            BodyLength::Chunked => Framing::Chunked,
            BodyLength::Known(_) | BodyLength::UntilClose => Framing::Identity,
        };
        let moved = move_body(body, &cuts, request.body, framing);
        forwarded.bytes.extend_from_slice(&request.encoded);
        forwarded.bytes.extend_from_slice(&moved.out);
        if moved.end != MovedEnd::Done {
            forwarded.is_whole = false;
            break;
        }
        carries_no_framing_behind_the_body(&moved.out, framing);
        let plain = move_body(body, &cuts, request.body, Framing::Identity);
        let method = head.split(|&byte| byte == b' ').next().unwrap_or_default();
        forwarded.requests.push(Seen {
            method: method.to_vec(),
            target: request.path.clone(),
            body: plain.out,
        });
        stream = &body[moved.consumed..];
        if !request.keep_alive {
            break;
        }
    }
    forwarded
}

/// Trailers, which some servers add to the head, say nothing about this connection.
fn carries_no_framing_behind_the_body(body: &[u8], framing: Framing) {
    if framing == Framing::Chunked {
        for name in read_chunked(body).trailer_names {
            assert!(!is_hop_by_hop(&name), "a trailer {:?}", String::from_utf8_lossy(&name));
        }
    }
}
