//! Request heads: what a client may say, and what a backend is told.

use std::{io::Write as _, net::IpAddr};

use lb_core::model::HttpLimits;

use super::{
    FieldStorage, Version,
    body::{BodyLength, write_decimal},
    copy::{self, Survey, write_field},
    fields::{self, ConnectionOptions, Field},
    scan::{ScanError, check_lengths},
};
use crate::reason::Reason;

/// A request head that may be forwarded.
#[derive(Debug)]
pub(crate) struct RequestHead<'h, 'b> {
    pub(crate) method: Method,
    pub(crate) method_name: &'b [u8],
    target: Target<'b>,
    /// From the target if it is absolute, else from Host; `None` in HTTP/1.0 only.
    pub(crate) host: Option<&'b [u8]>,
    pub(crate) version: Version,
    pub(crate) body: BodyLength,
    /// Whether the client wants the connection kept.
    pub(crate) keep_alive: bool,
    /// Whether the client waits for 100 before it sends the body.
    pub(crate) expects_continue: bool,
    /// To which protocols the client would change.
    pub(crate) upgrade: Option<&'b [u8]>,
    /// Whether the client takes trailers.
    pub(crate) takes_trailers: bool,
    /// How many hops an OPTIONS may still go (RFC 9110, 7.6.2).
    pub(crate) max_forwards: Option<u64>,
    /// A body is expected of the method, and its length was given.
    says_empty: bool,
    connection: ConnectionOptions,
    request_id: Option<&'b [u8]>,
    survey: Survey,
    /// The whole head.
    bytes: &'b [u8],
    /// Of the request line, its end included.
    line: usize,
    fields: &'h [httparse::Header<'b>],
}

/// What a proxy needs to know of a method.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Method {
    Head,
    /// GET, OPTIONS, PUT, DELETE: doing it twice is doing it once (RFC 9110, 9.2.2).
    Idempotent,
    Other,
}

impl Method {
    /// Whether a request may be sent again after it was written once.
    pub(crate) fn is_idempotent(self) -> bool {
        self != Self::Other
    }
}

/// Why a request is refused, with the status that says so.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct BadRequest {
    pub(crate) status: u16,
    pub(crate) reason: Reason,
    pub(crate) message: &'static str,
}

const fn bad(message: &'static str) -> BadRequest {
    BadRequest { status: 400, reason: Reason::ClientProtocolError, message }
}

/// A bound was exceeded, or a line ends with LF alone.
pub(crate) fn scan_error(error: ScanError) -> BadRequest {
    let too_large =
        |status, message| BadRequest { status, reason: Reason::HeaderTooLarge, message };
    match error {
        ScanError::BareLf => bad("a line ends with LF alone"),
        ScanError::LineTooLong => too_large(414, "the request line is longer than allowed here"),
        ScanError::HeadTooLong => too_large(431, "the request's head is longer than allowed here"),
    }
}

/// Reads the head at the start of `input`; `None` while it is not complete. Of a
/// complete one, [`RequestHead::len`] tells the length.
pub(crate) fn parse<'h, 'b>(
    input: &'b [u8],
    limits: &HttpLimits,
    storage: &'h mut FieldStorage<'b>,
) -> Result<Option<RequestHead<'h, 'b>>, BadRequest> {
    let mut request = httparse::Request::new(&mut []);
    let room = &mut storage[..limits.fields_max as usize];
    let length = match request.parse_with_uninit_headers(input, room) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(refused(error, input)),
    };
    let (Some(method_name), Some(target), Some(version)) =
        (request.method, request.path, request.version)
    else {
        return Err(bad("the request line is incomplete"));
    };
    let bytes = &input[..length];
    let fields: &'h [httparse::Header<'b>] = request.headers;
    let line = match fields.first() {
        Some(first) => copy::offset(bytes, first.name.as_bytes()).unwrap_or(length),
        None => length - 2,
    };
    if !bytes.ends_with(b"\r\n\r\n") {
        return Err(scan_error(ScanError::BareLf));
    }
    check_lengths(line - 2, length, limits).map_err(scan_error)?;
    let version = if version == 0 { Version::Http10 } else { Version::Http11 };
    let method = method(method_name)?;
    let known = Known::collect(bytes, fields)?;
    let body = known.body(version)?;
    let target = Target::parse(target.as_bytes(), method_name)?;
    let host = host(target.authority, &known, version)?;
    Ok(Some(RequestHead {
        method,
        method_name: method_name.as_bytes(),
        target,
        host,
        version,
        body,
        keep_alive: match version {
            Version::Http11 => !known.connection.close,
            Version::Http10 => known.connection.keep_alive && !known.connection.close,
        },
        // HTTP/1.0 has no 100 to wait for (RFC 9110, 10.1.1).
        expects_continue: known.expects_continue && version == Version::Http11,
        upgrade: known.upgrade(version, body),
        takes_trailers: known.takes_trailers && version == Version::Http11,
        max_forwards: known.max_forwards.filter(|_| method_name == "OPTIONS"),
        says_empty: known.content_length.is_some() && method_name == "PUT",
        connection: known.connection,
        request_id: known.request_id,
        survey: known.survey,
        bytes,
        line,
        fields,
    }))
}

fn refused(error: httparse::Error, head: &[u8]) -> BadRequest {
    match error {
        httparse::Error::TooManyHeaders => BadRequest {
            status: 431,
            reason: Reason::HeaderTooLarge,
            message: "the head has more fields than allowed here",
        },
        httparse::Error::Version if names_other_version(head) => BadRequest {
            status: 505,
            reason: Reason::ClientProtocolError,
            message: "only HTTP/1.1 and HTTP/1.0 are spoken here",
        },
        httparse::Error::HeaderName => bad("a field name is not a token"),
        httparse::Error::HeaderValue => bad("a field value has a forbidden character"),
        _ => bad("the request line is malformed"),
    }
}

/// Whether the request line is well formed but for a version that is not spoken.
fn names_other_version(head: &[u8]) -> bool {
    let line = head.split(|&byte| byte == b'\r').next().unwrap_or_default();
    let mut words = line.split(|&byte| byte == b' ').skip(2);
    let version = words.next().unwrap_or_default();
    words.next().is_none()
        && matches!(version, [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit())
}

fn method(name: &str) -> Result<Method, BadRequest> {
    match name {
        "HEAD" => Ok(Method::Head),
        "GET" | "OPTIONS" | "PUT" | "DELETE" => Ok(Method::Idempotent),
        "CONNECT" | "TRACE" => Err(BadRequest {
            status: 405,
            reason: Reason::ClientProtocolError,
            message: "CONNECT and TRACE are not served here",
        }),
        _ => Ok(Method::Other),
    }
}

/// What the fields say that the proxy itself must understand.
#[derive(Debug, Default)]
struct Known<'b> {
    content_length: Option<u64>,
    transfer_encodings: usize,
    chunked: bool,
    host: Option<&'b [u8]>,
    hosts: usize,
    expects_continue: bool,
    upgrade: Option<&'b [u8]>,
    upgrades: usize,
    takes_trailers: bool,
    max_forwards: Option<u64>,
    request_id: Option<&'b [u8]>,
    connection: ConnectionOptions,
    survey: Survey,
}

impl<'b> Known<'b> {
    fn collect(head: &[u8], fields: &[httparse::Header<'b>]) -> Result<Self, BadRequest> {
        let mut known = Self::default();
        for (index, field) in fields.iter().enumerate() {
            let kind = known
                .survey
                .add(index, head, field)
                .ok_or_else(|| scan_error(ScanError::BareLf))?;
            if kind != Field::Other {
                known.add(kind, field.value)?;
            }
        }
        Ok(known)
    }

    fn add(&mut self, kind: Field, value: &'b [u8]) -> Result<(), BadRequest> {
        match kind {
            Field::ContentLength => {
                let length =
                    fields::content_length(value).ok_or(bad("Content-Length is not a number"))?;
                if self.content_length.is_some_and(|other| other != length) {
                    return Err(bad("the Content-Length fields differ"));
                }
                self.content_length = Some(length);
            }
            Field::TransferEncoding => {
                self.transfer_encodings += 1;
                self.chunked = value.eq_ignore_ascii_case(b"chunked");
            }
            Field::Host => {
                self.hosts += 1;
                self.host = Some(value);
            }
            Field::Connection => self
                .connection
                .add(value)
                .ok_or(bad("Connection is malformed or names too many fields"))?,
            Field::Expect => {
                if !value.eq_ignore_ascii_case(b"100-continue") {
                    return Err(BadRequest {
                        status: 417,
                        reason: Reason::ClientProtocolError,
                        message: "the only expectation known is 100-continue",
                    });
                }
                self.expects_continue = true;
            }
            Field::Upgrade => {
                self.upgrades += 1;
                self.upgrade = Some(value);
            }
            Field::Te => {
                self.takes_trailers |=
                    fields::list(value).any(|coding| coding.eq_ignore_ascii_case(b"trailers"));
            }
            Field::MaxForwards => self.max_forwards = fields::content_length(value),
            Field::XRequestId if !value.is_empty() && self.request_id.is_none() => {
                self.request_id = Some(value);
            }
            Field::XRequestId
            | Field::KeepAlive
            | Field::Trailer
            | Field::XForwardedFor
            | Field::XForwardedHost
            | Field::XForwardedProto
            | Field::Dropped
            | Field::Other => {}
        }
        Ok(())
    }

    /// The protocols to which the client asks to change, if that can be passed on: with
    /// a body nobody could tell where the other protocol begins, and HTTP/2 in the clear
    /// would go past everything that a proxy is for.
    fn upgrade(&self, version: Version, body: BodyLength) -> Option<&'b [u8]> {
        let wanted = self.connection.upgrade
            && self.upgrades == 1
            && version == Version::Http11
            && body == BodyLength::Known(0);
        let value = self.upgrade.filter(|_| wanted)?;
        let mut protocols = fields::list(value).peekable();
        protocols.peek()?;
        protocols.all(fields::is_forwardable_protocol).then_some(value)
    }

    /// RFC 9112, 6.3, without any of its leniencies.
    fn body(&self, version: Version) -> Result<BodyLength, BadRequest> {
        match (self.transfer_encodings, self.content_length) {
            (0, None) => Ok(BodyLength::Known(0)),
            (0, Some(length)) => Ok(BodyLength::Known(length)),
            (_, Some(_)) => Err(bad("both Transfer-Encoding and Content-Length")),
            (1, None) if self.chunked && version == Version::Http11 => Ok(BodyLength::Chunked),
            (1, None) if self.chunked => Err(bad("Transfer-Encoding in an HTTP/1.0 request")),
            _ => Err(bad("Transfer-Encoding is not chunked, once")),
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Target<'b> {
    path: &'b [u8],
    /// The path is empty: there is only a query.
    only_query: bool,
    authority: Option<&'b [u8]>,
}

impl<'b> Target<'b> {
    /// RFC 9112, 3.2.
    fn parse(target: &'b [u8], method: &str) -> Result<Self, BadRequest> {
        // Some servers see blanks beyond ASCII, and with them another target.
        if !target.is_ascii() {
            return Err(bad("the target has characters beyond ASCII; write them as %XX"));
        }
        let of = |path, authority| Self { path, only_query: false, authority };
        if target.starts_with(b"/") {
            return if target.contains(&b'#') {
                Err(bad("the target has a fragment"))
            } else {
                Ok(of(target, None))
            };
        }
        if target == b"*" && method == "OPTIONS" {
            return Ok(of(target, None));
        }
        let rest = [&b"http://"[..], b"https://"]
            .iter()
            .find_map(|scheme| {
                let (start, rest) = target.split_at_checked(scheme.len())?;
                start.eq_ignore_ascii_case(scheme).then_some(rest)
            })
            .ok_or(bad("the target is neither a path nor an http URL"))?;
        let end = rest.iter().position(|b| matches!(b, b'/' | b'?')).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        if matches!(authority, [] | [b':', ..])
            || !fields::is_host(authority)
            || path.contains(&b'#')
        {
            return Err(bad("the authority of the target is malformed"));
        }
        match path.first() {
            Some(b'/') => Ok(of(path, Some(authority))),
            // An absolute OPTIONS without a path means the server (RFC 9112, 3.2.4).
            None if method == "OPTIONS" => Ok(of(b"*", Some(authority))),
            None => Ok(of(b"/", Some(authority))),
            // An empty path is sent as "/" (RFC 9112, 3.2.1).
            Some(_) => Ok(Self { path, only_query: true, authority: Some(authority) }),
        }
    }
}

/// RFC 9112, 3.2: exactly one valid Host in HTTP/1.1; an absolute target beats it.
fn host<'b>(
    authority: Option<&'b [u8]>,
    known: &Known<'b>,
    version: Version,
) -> Result<Option<&'b [u8]>, BadRequest> {
    if known.hosts > 1 {
        return Err(bad("more than one Host"));
    }
    if known.hosts == 0 && version == Version::Http11 {
        return Err(bad("Host is missing"));
    }
    if known.host.is_some_and(|host| !fields::is_host(host)) {
        return Err(bad("Host is malformed"));
    }
    Ok(authority.or(known.host))
}

/// What a proxy adds to a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Forwarding<'a> {
    /// The connection's other end.
    pub(crate) peer: IpAddr,
    /// Whether what the peer says about earlier hops is kept.
    pub(crate) peer_trusted: bool,
    /// For a client that named no host.
    pub(crate) fallback_host: &'a str,
    /// For a request that has no id.
    pub(crate) request_id: u128,
}

impl<'b> RequestHead<'_, 'b> {
    /// How many bytes of the input it is.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The path with its query in the form for routes, or `*`.
    pub(crate) fn path(&self) -> &'b [u8] {
        if self.target.only_query { b"/" } else { self.target.path }
    }

    /// The id that the client gave the request.
    pub(crate) fn request_id(&self) -> Option<&'b [u8]> {
        self.request_id
    }

    /// The value of a field of this lower-case name that the proxy need not understand.
    pub(crate) fn field(&self, name: &[u8]) -> Option<&'b [u8]> {
        self.fields
            .iter()
            .find(|field| field.name.as_bytes().eq_ignore_ascii_case(name))
            .map(|field| field.value)
    }

    /// The path with its query, as it was written.
    pub(crate) fn written_path(&self) -> &'b [u8] {
        self.target.path
    }

    /// The values of all X-Forwarded-For fields, in order.
    pub(crate) fn forwarded_for(&self) -> impl DoubleEndedIterator<Item = &'b [u8]> + Clone {
        self.fields
            .iter()
            .enumerate()
            .filter(|(index, field)| {
                self.survey.is_known(*index)
                    && fields::classify(field.name.as_bytes()) == Field::XForwardedFor
            })
            .map(|(_, field)| field.value)
    }

    /// Writes the head for a backend: always HTTP/1.1, the connection kept.
    pub(crate) fn encode(&self, forwarding: &Forwarding<'_>, out: &mut Vec<u8>) {
        // What is added: fewer than this, but for the addresses of other proxies.
        out.reserve(self.bytes.len() + 256);
        let host = self.host.unwrap_or(forwarding.fallback_host.as_bytes());
        // The usual request keeps its line and its Host where they are.
        let as_it_is = self.target.authority.is_none()
            && self.version == Version::Http11
            && self.host.is_some();
        if !as_it_is {
            self.write_line(host, out);
        }
        let (has_proto, has_host) = self.write_fields(as_it_is, forwarding.peer_trusted, out);
        self.write_forwarded(forwarding, out);
        if !has_proto {
            out.extend_from_slice(b"X-Forwarded-Proto: http\r\n");
        }
        if !has_host {
            write_field(b"X-Forwarded-Host", host, out);
        }
        if self.request_id.is_none() {
            write_request_id(forwarding.request_id, out);
        }
        if let Some(hops) = self.max_forwards {
            out.extend_from_slice(b"Max-Forwards: ");
            write_decimal(hops.saturating_sub(1), out);
            out.extend_from_slice(b"\r\n");
        }
        if let Some(protocols) = self.upgrade {
            out.extend_from_slice(b"Connection: upgrade\r\n");
            write_field(b"Upgrade", protocols, out);
        } else if self.takes_trailers {
            out.extend_from_slice(b"TE: trailers\r\nConnection: TE\r\n");
        }
        match self.body {
            BodyLength::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
            // Where a body is expected, its absence is said (RFC 9110, 8.6).
            BodyLength::Known(length)
                if length > 0 || self.method == Method::Other || self.says_empty =>
            {
                out.extend_from_slice(b"Content-Length: ");
                write_decimal(length, out);
                out.extend_from_slice(b"\r\n");
            }
            BodyLength::Known(_) | BodyLength::UntilClose => {}
        }
        out.extend_from_slice(b"\r\n");
    }

    fn write_line(&self, host: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(self.method_name);
        out.push(b' ');
        if self.target.only_query {
            out.push(b'/');
        }
        out.extend_from_slice(self.target.path);
        out.extend_from_slice(b" HTTP/1.1\r\n");
        write_field(b"Host", host, out);
    }

    /// Passes on what is the client's and the backend's business. Whether an
    /// X-Forwarded-Proto and an X-Forwarded-Host are among it.
    fn write_fields(&self, as_it_is: bool, peer_trusted: bool, out: &mut Vec<u8>) -> (bool, bool) {
        let (mut has_proto, mut has_host) = (false, false);
        let keep = |known: bool, field: &httparse::Header<'_>| {
            let name = field.name.as_bytes();
            if !known {
                return !self.connection.names(name, self.fields);
            }
            match fields::classify(name) {
                Field::Host => as_it_is,
                // One, if there are several: logs and backends must agree.
                Field::XRequestId => {
                    self.request_id.is_some_and(|id| std::ptr::eq(id, field.value))
                }
                Field::Trailer => self.body == BodyLength::Chunked,
                Field::MaxForwards => self.max_forwards.is_none(),
                Field::XForwardedProto => {
                    has_proto |= peer_trusted;
                    peer_trusted
                }
                Field::XForwardedHost => {
                    has_host |= peer_trusted;
                    peer_trusted
                }
                Field::Connection
                | Field::ContentLength
                | Field::TransferEncoding
                | Field::Expect
                | Field::KeepAlive
                | Field::Te
                | Field::Upgrade
                | Field::XForwardedFor
                | Field::Dropped
                | Field::Other => false,
            }
        };
        let line = if as_it_is { self.line } else { 0 };
        let ask_about_all = self.connection.names_any();
        self.survey.copy((self.bytes, line), self.fields, ask_about_all, keep, out);
        (has_proto, has_host)
    }

    /// One X-Forwarded-For: what a trusted peer said, and the peer.
    fn write_forwarded(&self, forwarding: &Forwarding<'_>, out: &mut Vec<u8>) {
        out.extend_from_slice(b"X-Forwarded-For: ");
        if forwarding.peer_trusted {
            for value in self.forwarded_for().filter(|value| !value.is_empty()) {
                out.extend_from_slice(value);
                out.extend_from_slice(b", ");
            }
        }
        write_ip(forwarding.peer, out);
        out.extend_from_slice(b"\r\n");
    }
}

/// As it is written in X-Forwarded-For and in logs.
pub(crate) fn write_ip(ip: IpAddr, out: &mut Vec<u8>) {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let mut text = [b'.'; 15];
            let mut at = 0;
            for octet in ip.octets() {
                if octet >= 100 {
                    text[at] = b'0' + octet / 100;
                    at += 1;
                }
                if octet >= 10 {
                    text[at] = b'0' + octet / 10 % 10;
                    at += 1;
                }
                text[at] = b'0' + octet % 10;
                // The dot is there already.
                at += 2;
            }
            out.extend_from_slice(&text[..at - 1]);
        }
        IpAddr::V6(ip) => write!(out, "{ip}").expect("writing to a Vec cannot fail"),
    }
}

fn write_request_id(id: u128, out: &mut Vec<u8>) {
    out.extend_from_slice(b"X-Request-Id: ");
    out.extend_from_slice(&request_id_text(id));
    out.extend_from_slice(b"\r\n");
}

/// An id that the proxy made, in 32 hexadecimal digits.
pub(crate) fn request_id_text(id: u128) -> [u8; 32] {
    let mut text = [0; 32];
    for (pair, byte) in text.chunks_exact_mut(2).zip(id.to_be_bytes()) {
        pair.copy_from_slice(&HEX[usize::from(byte)]);
    }
    text
}

/// Every byte in two hexadecimal digits.
static HEX: [[u8; 2]; 256] = {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut table = [[0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = [DIGITS[byte >> 4], DIGITS[byte & 15]];
        byte += 1;
    }
    table
};

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
