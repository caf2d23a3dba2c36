//! Request heads: what a client may say, and what a backend is told.

use std::{io::Write as _, net::IpAddr};

use super::{
    FieldStorage, Version,
    body::{BodyLength, write_decimal},
    fields::{self, ConnectionOptions, Field},
};

/// A request head that may be forwarded.
#[derive(Debug)]
pub(crate) struct RequestHead<'h, 'b> {
    pub(crate) method: Method,
    method_name: &'b [u8],
    /// Origin form, or `*`.
    pub(crate) path: &'b [u8],
    /// From the target if it is absolute, else from Host; `None` in HTTP/1.0 only.
    pub(crate) host: Option<&'b [u8]>,
    pub(crate) version: Version,
    pub(crate) body: BodyLength,
    /// Whether the client wants the connection kept.
    pub(crate) keep_alive: bool,
    /// Whether the client waits for 100 before it sends the body.
    pub(crate) expects_continue: bool,
    connection: ConnectionOptions<'b>,
    has_request_id: bool,
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
    pub(crate) reason: &'static str,
    pub(crate) message: &'static str,
}

const fn bad(message: &'static str) -> BadRequest {
    BadRequest { status: 400, reason: "client_protocol_error", message }
}

/// Reads a complete head, as [`super::scan::HeadScan`] found it.
pub(crate) fn parse<'h, 'b>(
    bytes: &'b [u8],
    storage: &'h mut FieldStorage<'b>,
) -> Result<RequestHead<'h, 'b>, BadRequest> {
    let mut request = httparse::Request::new(&mut []);
    match request.parse_with_uninit_headers(bytes, storage) {
        Ok(httparse::Status::Complete(length)) if length == bytes.len() => {}
        Ok(_) => return Err(bad("the head does not end where its empty line is")),
        Err(error) => return Err(refused(error, bytes)),
    }
    let (Some(method_name), Some(target), Some(version)) =
        (request.method, request.path, request.version)
    else {
        return Err(bad("the request line is incomplete"));
    };
    let version = if version == 0 { Version::Http10 } else { Version::Http11 };
    let method = method(method_name)?;
    let fields: &'h [httparse::Header<'b>] = request.headers;
    let known = Known::collect(fields)?;
    let body = known.body(version)?;
    let target = Target::parse(target.as_bytes(), method_name)?;
    let host = host(target.authority, &known, version)?;
    Ok(RequestHead {
        method,
        method_name: method_name.as_bytes(),
        path: target.path,
        host,
        version,
        body,
        keep_alive: match version {
            Version::Http11 => !known.connection.close,
            Version::Http10 => known.connection.keep_alive && !known.connection.close,
        },
        // HTTP/1.0 has no 100 to wait for (RFC 9110, 10.1.1).
        expects_continue: known.expects_continue && version == Version::Http11,
        connection: known.connection,
        has_request_id: known.has_request_id,
        fields,
    })
}

fn refused(error: httparse::Error, head: &[u8]) -> BadRequest {
    match error {
        httparse::Error::TooManyHeaders => BadRequest {
            status: 431,
            reason: "header_too_large",
            message: "the head has more than 100 fields",
        },
        httparse::Error::Version if names_other_version(head) => BadRequest {
            status: 505,
            reason: "client_protocol_error",
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
            reason: "client_protocol_error",
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
    has_request_id: bool,
    connection: ConnectionOptions<'b>,
}

impl<'b> Known<'b> {
    fn collect(fields: &[httparse::Header<'b>]) -> Result<Self, BadRequest> {
        let mut known = Self::default();
        for field in fields {
            match fields::classify(field.name.as_bytes()) {
                Field::ContentLength => {
                    let length = fields::content_length(field.value)
                        .ok_or(bad("Content-Length is not a number"))?;
                    if known.content_length.is_some_and(|other| other != length) {
                        return Err(bad("the Content-Length fields differ"));
                    }
                    known.content_length = Some(length);
                }
                Field::TransferEncoding => {
                    known.transfer_encodings += 1;
                    known.chunked = field.value.eq_ignore_ascii_case(b"chunked");
                }
                Field::Host => {
                    known.hosts += 1;
                    known.host = Some(field.value);
                }
                Field::Connection => known
                    .connection
                    .add(field.value)
                    .ok_or(bad("Connection is malformed or names too many fields"))?,
                Field::Expect => {
                    if !field.value.eq_ignore_ascii_case(b"100-continue") {
                        return Err(BadRequest {
                            status: 417,
                            reason: "client_protocol_error",
                            message: "the only expectation known is 100-continue",
                        });
                    }
                    known.expects_continue = true;
                }
                Field::XRequestId => known.has_request_id |= !field.value.is_empty(),
                Field::KeepAlive
                | Field::XForwardedFor
                | Field::XForwardedHost
                | Field::XForwardedProto
                | Field::HopByHop
                | Field::Other => {}
            }
        }
        Ok(known)
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

struct Target<'b> {
    path: &'b [u8],
    authority: Option<&'b [u8]>,
}

impl<'b> Target<'b> {
    /// RFC 9112, 3.2.
    fn parse(target: &'b [u8], method: &str) -> Result<Self, BadRequest> {
        if target.starts_with(b"/") {
            return if target.contains(&b'#') {
                Err(bad("the target has a fragment"))
            } else {
                Ok(Self { path: target, authority: None })
            };
        }
        if target == b"*" && method == "OPTIONS" {
            return Ok(Self { path: target, authority: None });
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
            Some(b'/') => Ok(Self { path, authority: Some(authority) }),
            // An absolute OPTIONS without a path means the server (RFC 9112, 3.2.4).
            None if method == "OPTIONS" => Ok(Self { path: b"*", authority: Some(authority) }),
            None => Ok(Self { path: b"/", authority: Some(authority) }),
            Some(_) => Err(bad("the target has a query but no path")),
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
    /// The values of all X-Forwarded-For fields, in order.
    pub(crate) fn forwarded_for(&self) -> impl DoubleEndedIterator<Item = &'b [u8]> + Clone {
        self.fields
            .iter()
            .filter(|field| fields::classify(field.name.as_bytes()) == Field::XForwardedFor)
            .map(|field| field.value)
    }

    /// Writes the head for a backend: always HTTP/1.1, the connection kept.
    pub(crate) fn encode(&self, forwarding: &Forwarding<'_>, out: &mut Vec<u8>) {
        out.extend_from_slice(self.method_name);
        out.push(b' ');
        out.extend_from_slice(self.path);
        out.extend_from_slice(b" HTTP/1.1\r\nHost: ");
        let host = self.host.unwrap_or(forwarding.fallback_host.as_bytes());
        out.extend_from_slice(host);
        out.extend_from_slice(b"\r\n");
        let keep = forwarding.peer_trusted;
        let (mut has_proto, mut has_host) = (false, false);
        for field in self.fields {
            let kept = match fields::classify(field.name.as_bytes()) {
                Field::Other => !self.connection.names(field.name.as_bytes()),
                Field::XRequestId => !field.value.is_empty(),
                Field::XForwardedProto => {
                    has_proto |= keep;
                    keep
                }
                Field::XForwardedHost => {
                    has_host |= keep;
                    keep
                }
                Field::Connection
                | Field::ContentLength
                | Field::TransferEncoding
                | Field::Host
                | Field::Expect
                | Field::KeepAlive
                | Field::XForwardedFor
                | Field::HopByHop => false,
            };
            if kept {
                write_field(field.name.as_bytes(), field.value, out);
            }
        }
        self.write_forwarded(forwarding, out);
        if !has_proto {
            out.extend_from_slice(b"X-Forwarded-Proto: http\r\n");
        }
        if !has_host {
            write_field(b"X-Forwarded-Host", host, out);
        }
        if !self.has_request_id {
            write_request_id(forwarding.request_id, out);
        }
        match self.body {
            BodyLength::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
            BodyLength::Known(length) if length > 0 || self.method == Method::Other => {
                out.extend_from_slice(b"Content-Length: ");
                write_decimal(length, out);
                out.extend_from_slice(b"\r\n");
            }
            BodyLength::Known(_) | BodyLength::UntilClose => {}
        }
        out.extend_from_slice(b"\r\n");
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

pub(super) fn write_field(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

fn write_ip(ip: IpAddr, out: &mut Vec<u8>) {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            for (index, octet) in ip.octets().into_iter().enumerate() {
                if index > 0 {
                    out.push(b'.');
                }
                write_decimal(u64::from(octet), out);
            }
        }
        IpAddr::V6(ip) => write!(out, "{ip}").expect("writing to a Vec cannot fail"),
    }
}

fn write_request_id(id: u128, out: &mut Vec<u8>) {
    out.extend_from_slice(b"X-Request-Id: ");
    for byte in id.to_be_bytes() {
        out.push(b"0123456789abcdef"[usize::from(byte >> 4)]);
        out.push(b"0123456789abcdef"[usize::from(byte & 15)]);
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
