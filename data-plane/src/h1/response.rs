//! Response heads: what a backend may say, and what the client is told.

#[cfg(test)]
mod tests;

use super::{
    FieldStorage, Version,
    body::{BodyLength, Framing, write_decimal},
    connection_options::ConnectionOptions,
    copy::{self, Survey, write_field},
    fields::{self, Field, PROTOCOLS_MAX},
    request::Method,
};

/// A response head that may be passed on.
#[derive(Debug)]
pub(crate) struct ResponseHead<'h, 'b> {
    pub(crate) status: u16,
    reason: &'b str,
    /// Its body on the backend's connection, with regard to the method.
    pub(crate) body: BodyLength,
    /// A length that is told although no body follows: HEAD and 304.
    told_length: Option<u64>,
    /// Whether the backend keeps the connection.
    pub(crate) keep_alive: bool,
    /// For how many idle seconds it does, if it says so.
    pub(crate) keep_alive_timeout: Option<u64>,
    /// A Content-Length was given.
    has_length: bool,
    /// A Date was given.
    has_date: bool,
    /// To which protocol the backend changes, with 101, or wants the client to, with 426.
    upgrade: Option<&'b [u8]>,
    connection: ConnectionOptions,
    survey: Survey,
    /// The whole head.
    bytes: &'b [u8],
    /// Of the status line if it can be copied, its end included; else 0.
    line: usize,
    fields: &'h [httparse::Header<'b>],
}

/// The backend broke the protocol.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct BadResponse(pub(crate) &'static str);

/// Reads the head at the start of `input`; `None` while it is not complete.
pub(crate) fn parse<'h, 'b>(
    input: &'b [u8],
    method: Method,
    storage: &'h mut FieldStorage<'b>,
) -> Result<Option<ResponseHead<'h, 'b>>, BadResponse> {
    // The parser would skip empty lines; before a response there are none.
    if input.first().is_some_and(|first| *first != b'H') {
        return Err(BadResponse("this is not an HTTP/1 response"));
    }
    let mut response = httparse::Response::new(&mut []);
    let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(
        &mut response,
        input,
        storage,
    );
    let length = match parsed {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => {
            return Err(BadResponse("the response head has too many fields"));
        }
        Err(_) => return Err(BadResponse("the response head is malformed")),
    };
    let (Some(status), Some(version)) = (response.code, response.version) else {
        return Err(BadResponse("the status line is incomplete"));
    };
    // Above 599 the class is in doubt, and the message is not (RFC 9110, 15).
    if status < 100 {
        return Err(BadResponse("the status is below 100"));
    }
    let bytes = &input[..length];
    if !bytes.ends_with(b"\r\n\r\n") {
        return Err(BadResponse("a line of the response head ends with LF alone"));
    }
    let version = if version == 0 { Version::Http10 } else { Version::Http11 };
    let fields: &'h [httparse::Header<'b>] = response.headers;
    let known = Known::collect(bytes, fields)?;
    // RFC 9112, 6.3: no body whatever the fields say.
    let bodiless = method == Method::Head || status < 200 || matches!(status, 204 | 304);
    let body = known.body(version, bodiless)?;
    Ok(Some(ResponseHead {
        status,
        reason: response.reason.unwrap_or_default(),
        body,
        told_length: known.length.filter(|_| method == Method::Head || status == 304),
        keep_alive: match version {
            Version::Http11 => !known.connection.close,
            Version::Http10 => known.connection.keep_alive && !known.connection.close,
        } && body != BodyLength::UntilClose
            // It may send a body that must not be there, into the next exchange.
            && !(bodiless && status >= 200 && known.announces_body()),
        keep_alive_timeout: known.keep_alive_timeout,
        has_length: known.length.is_some(),
        has_date: known.has_date,
        upgrade: known.upgrade.filter(|_| match status {
            101 => known.connection.upgrade && version == Version::Http11 && known.upgrades == 1,
            // It says to what the client must change (RFC 9110, 15.5.22).
            426 => true,
            _ => false,
        }),
        connection: known.connection,
        survey: known.survey,
        bytes,
        line: copyable_line(bytes, fields),
        fields,
    }))
}

/// The length of a status line that is written as it should be and can be copied, or 0.
fn copyable_line(head: &[u8], fields: &[httparse::Header<'_>]) -> usize {
    let usual = head.starts_with(b"HTTP/1.1 ") && head.get(12) == Some(&b' ');
    match fields.first() {
        Some(first) if usual => copy::offset(head, first.name.as_bytes()).unwrap_or(0),
        _ => 0,
    }
}

/// What the fields say that the proxy itself must understand.
#[derive(Debug, Default)]
struct Known<'b> {
    length: Option<u64>,
    encodings: usize,
    chunked: bool,
    connection: ConnectionOptions,
    keep_alive_timeout: Option<u64>,
    upgrade: Option<&'b [u8]>,
    upgrades: usize,
    has_date: bool,
    survey: Survey,
}

impl<'b> Known<'b> {
    fn collect(head: &[u8], fields: &[httparse::Header<'b>]) -> Result<Self, BadResponse> {
        let mut known = Self::default();
        for (index, field) in fields.iter().enumerate() {
            let kind = known
                .survey
                .add(index, head, field)
                .ok_or(BadResponse("a line of the response head ends with LF alone"))?;
            if kind != Field::Other {
                known.add(kind, field.value)?;
            }
            known.has_date |= field.name.as_bytes().eq_ignore_ascii_case(DATE);
        }
        Ok(known)
    }

    fn add(&mut self, kind: Field, value: &'b [u8]) -> Result<(), BadResponse> {
        match kind {
            Field::ContentLength => {
                let length = fields::content_length(value)
                    .ok_or(BadResponse("Content-Length is not a number"))?;
                if self.length.is_some_and(|other| other != length) {
                    return Err(BadResponse("the Content-Length fields differ"));
                }
                self.length = Some(length);
            }
            Field::TransferEncoding => {
                self.encodings += 1;
                self.chunked = value.eq_ignore_ascii_case(b"chunked");
            }
            Field::Connection => {
                self.connection.add(value).ok_or(BadResponse("Connection is malformed"))?;
            }
            Field::KeepAlive => self.keep_alive_timeout = fields::keep_alive_timeout(value),
            Field::Upgrade => {
                self.upgrades += 1;
                self.upgrade = Some(value);
            }
            _ => {}
        }
        Ok(())
    }

    fn announces_body(&self) -> bool {
        self.encodings > 0 || self.length.is_some_and(|length| length > 0)
    }

    fn body(&self, version: Version, bodiless: bool) -> Result<BodyLength, BadResponse> {
        let body = match (self.encodings, self.length) {
            (0, Some(length)) => BodyLength::Known(length),
            (0, None) => BodyLength::UntilClose,
            (_, Some(_)) => return Err(BadResponse("both Transfer-Encoding and Content-Length")),
            (1, None) if self.chunked && version == Version::Http11 => BodyLength::Chunked,
            _ => return Err(BadResponse("Transfer-Encoding is not chunked, once, in HTTP/1.1")),
        };
        Ok(if bodiless { BodyLength::Known(0) } else { body })
    }
}

/// What the client's side asks of the head.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Delivery {
    pub(crate) version: Version,
    /// Whether the client's connection will be kept.
    pub(crate) keep_alive: bool,
    /// Whether the client takes trailers.
    pub(crate) trailers: bool,
    /// The present, for a response that does not say when it was made.
    pub(crate) date: Option<Date>,
}

/// A date as a field of a message, with the end of its line (RFC 9110, 5.6.7).
pub(crate) type Date = [u8; "Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n".len()];

/// The name of the field, in lower case.
const DATE: &[u8] = b"date";

impl ResponseHead<'_, '_> {
    /// Whether no field was named in Connection, which could be a trailer's name, too.
    pub(crate) fn names_no_fields(&self) -> bool {
        !self.connection.names_any()
    }

    /// The values of all fields of this lower-case name that are passed on.
    pub(crate) fn values(&self, name: &[u8]) -> impl Iterator<Item = &[u8]> {
        let is_passed_on = !self.connection.names(name, self.fields);
        let named = move |field: &&httparse::Header<'_>| {
            is_passed_on && field.name.as_bytes().eq_ignore_ascii_case(name)
        };
        self.fields.iter().filter(named).map(|field| field.value)
    }

    /// How many bytes of the input it is.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether the backend changes to one of the protocols that it was asked for
    /// (RFC 9110, 7.8).
    pub(crate) fn switches_to_one_of(&self, asked: &[u8]) -> bool {
        let was_asked = |chosen: &[u8]| {
            fields::forwardable_protocols(asked)
                .any(|protocol| protocol.eq_ignore_ascii_case(chosen))
        };
        self.upgrade.is_some_and(|chosen| {
            // No more than may be asked for: each is looked for among those.
            let chosen = || fields::list(chosen).take(PROTOCOLS_MAX + 1);
            (1..=PROTOCOLS_MAX).contains(&chosen().count()) && chosen().all(was_asked)
        })
    }

    /// How the body can be framed for this client; `None` when only closing the
    /// connection can end it.
    pub(crate) fn framing(&self, client: Version) -> Option<Framing> {
        match (self.body, client) {
            (BodyLength::Known(_), _) => Some(Framing::Identity),
            (_, Version::Http11) => Some(Framing::Chunked),
            (_, Version::Http10) => None,
        }
    }

    /// Whether the client would not learn when the response was made. Whoever has a clock is to
    /// tell it then (RFC 9110, 6.6.1).
    pub(crate) fn lacks_date(&self) -> bool {
        !self.has_date || self.connection.names(DATE, self.fields)
    }

    /// Writes the head for the client.
    pub(crate) fn encode(&self, delivery: Delivery, out: &mut Vec<u8>) {
        // What is added is shorter than this.
        out.reserve(self.bytes.len() + 128);
        if self.line == 0 {
            out.extend_from_slice(b"HTTP/1.1 ");
            write_decimal(u64::from(self.status), out);
            out.push(b' ');
            out.extend_from_slice(self.reason.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        // What is announced comes, or nothing is announced.
        let passes_trailers = delivery.trailers
            && self.names_no_fields()
            && self.framing(delivery.version) == Some(Framing::Chunked);
        let keep = |known: bool, field: &httparse::Header<'_>| {
            let name = field.name.as_bytes();
            if !known {
                return !self.connection.names(name, self.fields);
            }
            match fields::classify(name) {
                Field::Trailer => passes_trailers,
                // It must say how (RFC 9110, 15.5.8).
                Field::Dropped if self.status == 407 => {
                    name.eq_ignore_ascii_case(b"proxy-authenticate")
                }
                kind => !copy::is_of_the_hop(kind),
            }
        };
        let ask_about_all = self.connection.names_any();
        self.survey.copy((self.bytes, self.line), self.fields, ask_about_all, keep, out);
        if let Some(protocol) = self.upgrade {
            out.extend_from_slice(b"Connection: upgrade\r\n");
            write_field(b"Upgrade", protocol, out);
        }
        self.write_framing(delivery, out);
        if let Some(date) = &delivery.date {
            out.extend_from_slice(date);
        }
        out.extend_from_slice(b"\r\n");
    }

    fn write_framing(&self, delivery: Delivery, out: &mut Vec<u8>) {
        let length = match self.body {
            // 1xx and 204 have none (RFC 9110, 8.6).
            _ if self.status < 200 || self.status == 204 => None,
            BodyLength::Known(0) if self.told_length.is_some() => self.told_length,
            // A HEAD or 304 whose length the backend did not tell: 0 would be a lie.
            BodyLength::Known(0) if !self.has_length => None,
            BodyLength::Known(length) => Some(length),
            BodyLength::Chunked | BodyLength::UntilClose => None,
        };
        if let Some(length) = length {
            out.extend_from_slice(b"Content-Length: ");
            write_decimal(length, out);
            out.extend_from_slice(b"\r\n");
        }
        if self.framing(delivery.version) == Some(Framing::Chunked) {
            out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
        }
        if self.status >= 200 {
            out.extend_from_slice(match (delivery.version, delivery.keep_alive) {
                (Version::Http11, true) => b"",
                (Version::Http10, true) => b"Connection: keep-alive\r\n",
                (_, false) => b"Connection: close\r\n",
            });
        }
    }
}
