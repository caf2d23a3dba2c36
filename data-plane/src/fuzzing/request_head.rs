//! Request heads: what is accepted is what it seems to be, and is written so that nobody
//! can read anything else.

use super::{
    adapter::{self, FALLBACK_HOST, PEER, Request, find_head, read_request},
    message::{Framed, Message, is_hop_by_hop, is_token},
};
use crate::h1::{Version, body::BodyLength, request::Method};

/// Reads the bytes as the beginning of a client's connection.
pub fn request_head(data: &[u8]) {
    if let Some(head) = first_head(data) {
        checked(head, false);
        checked(head, true);
    }
}

/// The first head of a stream, if it has one; its end must not depend on the pieces.
pub(super) fn first_head(stream: &[u8]) -> Option<&[u8]> {
    let stream = adapter::beginning(stream)?;
    let whole = find_head(stream, stream.len().max(1)).ok();
    for piece in [1, 7] {
        assert_eq!(find_head(stream, piece).ok(), whole, "pieces of {piece} change the head");
    }
    let at_once = adapter::parse_at_once(stream);
    if let Ok(Some(length)) = at_once {
        assert_eq!(whole, Some(Some(length)), "at once it is another head");
    }
    let head = &stream[..whole??];
    let empty_line = head.windows(4).position(|bytes| bytes == b"\r\n\r\n");
    assert_eq!(empty_line.map(|at| at + 4), Some(head.len()), "not the first empty line");
    let lone = |pair: &[u8]| pair[1] == b'\n' && pair[0] != b'\r';
    assert!(!head.windows(2).any(lone), "a bare LF passed");
    Some(head)
}

/// Reads a complete head and checks what was made of it.
pub(super) fn checked(head: &[u8], peer_trusted: bool) -> Option<Request> {
    let Some(request) = read_request(head, peer_trusted) else {
        assert!(!is_ordinary(head), "an ordinary request is refused");
        return None;
    };
    let received = Message::request(head).expect("a malformed head is accepted");
    was_understood(&received, &request);
    let written = Message::request(&request.encoded).expect("a malformed head is written");
    is_faithful(&received, &written, &request, peer_trusted);
    means_the_same_again(&request, peer_trusted);
    Some(request)
}

/// The head says what the proxy took from it.
fn was_understood(received: &Message<'_>, request: &Request) {
    let [method, target, version] = received.start;
    assert_eq!(version == b"HTTP/1.1", request.version == Version::Http11);
    assert_eq!(method == b"HEAD", request.method == Method::Head);
    assert!(method != b"CONNECT" && method != b"TRACE", "a method that is not served");
    let framed = received.framed().expect("a doubtful framing is accepted");
    let length = match framed {
        Framed::Unsaid => BodyLength::Known(0),
        Framed::Length(length) => BodyLength::Known(length),
        Framed::Chunked => BodyLength::Chunked,
    };
    assert_eq!(request.body, length);
    let is_old = request.version == Version::Http10;
    assert!(!(is_old && framed == Framed::Chunked), "chunks in HTTP/1.0");
    let hosts = received.all("host");
    assert!(hosts.len() == 1 || is_old && hosts.is_empty(), "{} Host fields", hosts.len());
    assert!(hosts.iter().all(|host| is_plain_host(host)), "a doubtful Host is accepted");
    let (authority, path) = split_target(target, method);
    assert_eq!(request.path, path, "another path");
    let host = authority.or_else(|| hosts.first().copied());
    assert_eq!(request.host.as_deref(), host);
    assert!(host.is_none_or(is_plain_host), "a doubtful authority is accepted");
    let options = received.list("connection");
    assert!(options.iter().all(|option| is_token(option)), "Connection names what is no token");
    let says = |text: &str| options.iter().any(|option| option == text.as_bytes());
    assert_eq!(request.keep_alive, !says("close") && (!is_old || says("keep-alive")));
    let expects = received.list("expect");
    assert!(expects.iter().all(|value| value == b"100-continue"), "an unknown expectation");
    assert_eq!(request.expects_continue, !expects.is_empty() && !is_old);
}

/// What the backend is told is what the client said, without what concerned only the
/// client's connection.
fn is_faithful(received: &Message<'_>, written: &Message<'_>, request: &Request, trusted: bool) {
    assert_eq!(written.start, [received.start[0], &request.path, b"HTTP/1.1"]);
    let host = request.host.as_deref().unwrap_or(FALLBACK_HOST.as_bytes());
    assert_eq!(written.all("host"), [host]);
    // A length of 0 may be left out, nothing else.
    let framed = match request.body {
        BodyLength::Known(0) if written.all("content-length").is_empty() => Framed::Unsaid,
        BodyLength::Known(length) => Framed::Length(length),
        BodyLength::Chunked => Framed::Chunked,
        BodyLength::UntilClose => panic!("a request has no such body"),
    };
    assert_eq!(written.framed(), Some(framed));
    assert!(written.all("content-length").len() < 2, "Content-Length is written twice");
    for gone in ["expect", "keep-alive", "proxy-connection", "proxy-authorization", "proxy"] {
        assert!(written.all(gone).is_empty(), "{gone} is forwarded");
    }
    concerns_this_hop(received, written);
    let named = received.list("connection");
    assert_eq!(written.end_to_end(&[]), received.end_to_end(&named));
    for own in ["X_Forwarded_For", "x_forwarded-host", "X-Forwarded_Proto", "X_Request_Id"] {
        assert!(written.all(own).is_empty(), "{own} is forwarded");
    }
    counts_hops(received, written);
    let peer = PEER.to_string();
    let forwarded = written.list("x-forwarded-for");
    assert_eq!(written.all("x-forwarded-for").len(), 1);
    assert_eq!(forwarded.last().map(Vec::as_slice), Some(peer.as_bytes()));
    assert!(!written.list("x-request-id").is_empty() || !received.all("x-request-id").is_empty());
    if !trusted {
        assert_eq!(forwarded.len(), 1, "an untrusted X-Forwarded-For is forwarded");
        assert_eq!(written.all("x-forwarded-proto"), [b"http"]);
        assert_eq!(written.all("x-forwarded-host"), [host]);
    }
}

/// An OPTIONS goes one hop less far (RFC 9110, 7.6.2).
fn counts_hops(received: &Message<'_>, written: &Message<'_>) {
    if received.start[0] != b"OPTIONS" {
        return;
    }
    if let [hops] = received.all("max-forwards")[..]
        && hops.len() < 15
        && hops.iter().all(u8::is_ascii_digit)
        && let Some(hops) = str::from_utf8(hops).ok().and_then(|hops| hops.parse::<u64>().ok())
        && !received.list("connection").contains(&b"max-forwards".to_vec())
    {
        let left = hops.saturating_sub(1).to_string();
        assert_eq!(written.all("max-forwards"), [left.as_bytes()]);
    }
}

/// What Connection says to the backend is the proxy's own: it may ask for a switch that
/// the client asked for, and for trailers.
fn concerns_this_hop(received: &Message<'_>, written: &Message<'_>) {
    let options = written.list("connection");
    let says = |text: &str| options.iter().any(|option| option == text.as_bytes());
    assert!(
        options.iter().all(|option| option == b"upgrade" || option == b"te"),
        "a client's Connection is forwarded"
    );
    let protocols = written.list("upgrade");
    assert_eq!(says("upgrade"), !protocols.is_empty(), "Upgrade without its Connection");
    let asked = received.list("upgrade");
    assert!(protocols.iter().all(|one| asked.contains(one)), "a protocol nobody asked for");
    if !protocols.is_empty() {
        assert!(received.list("connection").contains(&b"upgrade".to_vec()));
        assert_eq!(received.start[2], b"HTTP/1.1", "HTTP/1.0 has no Upgrade");
    }
    let codings = written.list("te");
    assert!(codings.iter().all(|coding| coding == b"trailers"), "TE is forwarded");
}

/// Our own parser, in the backend's place, reads the same request.
fn means_the_same_again(request: &Request, peer_trusted: bool) {
    let length = request.encoded.len();
    assert_eq!(find_head(&request.encoded, length), Ok(Some(length)), "not a whole head");
    let Some(again) = read_request(&request.encoded, peer_trusted) else {
        // The proxy adds a few fields, which may be one too many for the next proxy.
        let fields = request.encoded.split(|&byte| byte == b'\n').count();
        assert!(fields > 90, "our own parser refuses what we write");
        return;
    };
    assert_eq!(again.path, request.path);
    assert_eq!(
        again.host.as_deref().unwrap_or_default(),
        request.host.as_deref().unwrap_or(FALLBACK_HOST.as_bytes())
    );
    assert_eq!((again.method, again.body), (request.method, request.body));
    assert_eq!((again.version, again.expects_continue), (Version::Http11, false));
}

/// The authority of an absolute target, and the path that a backend is asked for.
fn split_target<'b>(target: &'b [u8], method: &[u8]) -> (Option<&'b [u8]>, Vec<u8>) {
    assert!(!target.contains(&b'#'), "a fragment is accepted");
    if target.starts_with(b"/") {
        return (None, target.to_vec());
    }
    if target == b"*" {
        assert_eq!(method, b"OPTIONS");
        return (None, target.to_vec());
    }
    let scheme = target.iter().position(|&byte| byte == b':').expect("not a URL");
    let name = target[..scheme].to_ascii_lowercase();
    assert!(name == b"http" || name == b"https", "a foreign scheme is accepted");
    let rest = target[scheme..].strip_prefix(b"://").expect("a URL without an authority");
    let end = rest.iter().position(|byte| b"/?".contains(byte)).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    assert!(!authority.is_empty(), "an empty authority is accepted");
    match (path, method) {
        ([], b"OPTIONS") => (Some(authority), b"*".to_vec()),
        ([], _) => (Some(authority), b"/".to_vec()),
        ([b'?', ..], _) => (Some(authority), [b"/", path].concat()),
        _ => (Some(authority), path.to_vec()),
    }
}

/// Nothing that separates, quotes or escapes; a port is digits.
fn is_plain_host(host: &[u8]) -> bool {
    let end = host.iter().rposition(|&byte| byte == b']').map_or(0, |bracket| bracket + 1);
    let mut port = host[end..].splitn(2, |&byte| byte == b':').skip(1);
    host.iter().all(|byte| byte.is_ascii_graphic() && !b"\"#,/<>?@\\^`{|}".contains(byte))
        && port.next().is_none_or(|port| port.iter().all(u8::is_ascii_digit))
}

/// A request that every server must understand. The converse of all the rest: a parser
/// that refuses everything is never wrong.
fn is_ordinary(head: &[u8]) -> bool {
    let Some(message) = Message::request(head) else { return false };
    let [method, target, version] = message.start;
    let plain = |bytes: &[u8]| bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"-.".contains(b));
    let is_path = |byte: &u8| byte.is_ascii_alphanumeric() || b"/?=&-._~".contains(byte);
    let hosts = message.all("host");
    head.len() < 4096
        && message.fields.len() < 90
        && [&b"GET"[..], b"HEAD", b"POST", b"PUT", b"DELETE", b"PATCH"].contains(&method)
        && target.starts_with(b"/")
        && target.iter().all(is_path)
        && version == b"HTTP/1.1"
        && matches!(hosts[..], [host] if plain(host))
        && message.framed().is_some()
        && message.all("content-length").iter().all(|length| length.len() < 20)
        && message.fields.iter().all(|(name, _)| {
            let is_expected = !is_hop_by_hop(name)
                || [&b"host"[..], b"content-length", b"transfer-encoding"]
                    .iter()
                    .any(|known| name.eq_ignore_ascii_case(known));
            plain(name) && is_expected
        })
}
