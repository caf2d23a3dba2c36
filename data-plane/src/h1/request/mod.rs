//! Request heads: what a client may say, and what a backend is told.

mod encode;
mod target;

use lb_core::{client_address::parse_address, model::HttpLimits};

use super::{
    FieldStorage, Version,
    body::BodyLength,
    connection_options::ConnectionOptions,
    copy::{self, Survey},
    fields::{self, Field},
    scan::{ScanError, check_lengths},
};
use crate::reason::Reason;

pub(crate) use self::encode::{Forwarding, request_id_text, write_ip};
use self::target::Target;

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
    /// Some proxy has marked it as one that has passed there.
    pub(crate) has_passed: bool,
    /// Some proxy says, believed or not, that it had it from somebody else.
    pub(crate) was_forwarded: bool,
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

/// A longer id is replaced: it stands in every line of logs.
const REQUEST_ID_BYTES_MAX: usize = 200;

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
        has_passed: known.has_passed,
        was_forwarded: known.was_forwarded,
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
    has_passed: bool,
    was_forwarded: bool,
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
                for expectation in fields::list(value) {
                    if !expectation.eq_ignore_ascii_case(b"100-continue") {
                        return Err(BadRequest {
                            status: 417,
                            reason: Reason::ClientProtocolError,
                            message: "the only expectation known is 100-continue",
                        });
                    }
                    self.expects_continue = true;
                }
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
            Field::CdnLoop => self.has_passed = true,
            Field::XForwardedFor | Field::OfForwarder => self.was_forwarded = true,
            Field::XRequestId
                if (1..=REQUEST_ID_BYTES_MAX).contains(&value.len())
                    && self.request_id.is_none() =>
            {
                self.request_id = Some(value);
            }
            Field::XRequestId
            | Field::KeepAlive
            | Field::Trailer
            | Field::XForwardedHost
            | Field::XForwardedProto
            | Field::Dropped
            | Field::Other => {}
        }
        Ok(())
    }

    /// The protocols to which the client asks to change, if that can be passed on: with
    /// a body nobody could tell where the other protocol begins, and HTTP/2 in the clear,
    /// which stays out of it, would go past everything that a proxy is for.
    fn upgrade(&self, version: Version, body: BodyLength) -> Option<&'b [u8]> {
        let wanted = self.connection.upgrade
            && self.upgrades == 1
            && version == Version::Http11
            && body == BodyLength::Known(0);
        self.upgrade.filter(|value| wanted && fields::is_forwardable_upgrade(value))
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

/// Whether a list of addresses, as in X-Forwarded-For, has none but this machine's own.
fn is_loopback_only(value: &[u8]) -> bool {
    fields::list(value).all(|element| parse_address(element).is_some_and(|ip| ip.is_loopback()))
}

impl<'b> RequestHead<'_, 'b> {
    /// Whether no field was named in Connection, which could be a trailer's name, too.
    pub(crate) fn names_no_fields(&self) -> bool {
        !self.connection.names_any()
    }

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
        self.values(name).next()
    }

    /// The values of all fields of this lower-case name that the proxy need not understand.
    pub(crate) fn values(&self, name: &[u8]) -> impl Iterator<Item = &'b [u8]> {
        let named =
            move |field: &&httparse::Header<'b>| field.name.as_bytes().eq_ignore_ascii_case(name);
        self.fields.iter().filter(named).map(|field| field.value)
    }

    /// The values of all fields that some backend takes for this lower-case name.
    pub(crate) fn aliases(&self, name: &[u8]) -> impl Iterator<Item = &'b [u8]> {
        let named =
            move |field: &&httparse::Header<'b>| fields::is_taken_for(field.name.as_bytes(), name);
        self.fields.iter().filter(named).map(|field| field.value)
    }

    /// The values of all Cookie fields, in order.
    pub(crate) fn cookies(&self) -> impl Iterator<Item = &'b [u8]> {
        let named = |field: &&httparse::Header<'_>| field.name.eq_ignore_ascii_case("cookie");
        self.fields.iter().filter(named).map(|field| field.value)
    }

    /// The path with its query, as it was written.
    pub(crate) fn written_path(&self) -> &'b [u8] {
        self.target.path
    }

    /// Whether some proxy on the way says, believed or not, that the client is on another machine,
    /// or says something that is no address.
    pub(crate) fn names_other_machine(&self) -> bool {
        self.fields.iter().any(|field| match fields::classify(field.name.as_bytes()) {
            Field::XForwardedFor => !is_loopback_only(field.value),
            Field::OfForwarder if field.name.eq_ignore_ascii_case("x-real-ip") => {
                !is_loopback_only(field.value)
            }
            // Forwarded has forms enough to hide anything in.
            Field::OfForwarder => true,
            _ => false,
        })
    }

    /// How often the request has passed through the one of this name, as CDN-Loop tells.
    pub(crate) fn passages(&self, name: &[u8]) -> usize {
        let id = |info: &&[u8]| {
            let id = info.split(|&byte| byte == b';').next().unwrap_or_default();
            id.trim_ascii_end() == name
        };
        self.values(b"cdn-loop").flat_map(fields::list).filter(id).count()
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
}

#[cfg(test)]
mod tests;
