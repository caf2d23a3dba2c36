//! Request heads as backends get them.

use std::{io::Write as _, net::IpAddr};

use lb_core::affinity::field;

use super::{Method, RequestHead};
use crate::h1::{
    Version,
    body::{BodyLength, write_decimal},
    copy::write_field,
    fields::{self, Field},
};

/// What a proxy adds to a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Forwarding<'a> {
    /// The connection's other end.
    pub(crate) peer: IpAddr,
    /// Whether what the peer says about earlier hops is kept.
    pub(crate) peer_trusted: bool,
    /// For a client that named no host.
    pub(crate) fallback_host: &'a str,
    /// The whole field that marks it as one that has passed here.
    pub(crate) mark: &'a [u8],
    /// For a request that has no id.
    pub(crate) request_id: u128,
    /// The names of the proxy's own cookies, if the request has one of them: they are no
    /// business of the backend's.
    pub(crate) own_cookies: &'a [Box<str>],
    /// Whether fields that Connection names are passed on all the same: so that nobody hides
    /// from the control plane what it decides by.
    pub(crate) keeps_named: bool,
}

impl RequestHead<'_, '_> {
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
        let (has_proto, has_host) = self.write_fields(as_it_is, forwarding, out);
        if !forwarding.own_cookies.is_empty() {
            self.write_cookies(forwarding.own_cookies, out);
        }
        self.write_forwarded(forwarding, out);
        out.extend_from_slice(forwarding.mark);
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
            out.extend_from_slice(b"Upgrade: ");
            for (index, protocol) in fields::forwardable_protocols(protocols).enumerate() {
                out.extend_from_slice(if index == 0 { b"" } else { b", " });
                out.extend_from_slice(protocol);
            }
            out.extend_from_slice(b"\r\n");
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
    fn write_fields(
        &self,
        as_it_is: bool,
        forwarding: &Forwarding<'_>,
        out: &mut Vec<u8>,
    ) -> (bool, bool) {
        let &Forwarding { peer_trusted, own_cookies, keeps_named, .. } = forwarding;
        let (mut has_proto, mut has_host) = (false, false);
        let keep = |known: bool, field: &httparse::Header<'_>| {
            let name = field.name.as_bytes();
            if !known {
                let is_rewritten = !own_cookies.is_empty()
                    && name.eq_ignore_ascii_case(COOKIE)
                    && field::has(field.value, own_cookies);
                let is_dropped = !keeps_named && self.connection.names(name, self.fields);
                return !is_rewritten && !is_dropped;
            }
            match fields::classify(name) {
                Field::Host => as_it_is,
                // One, if there are several: logs and backends must agree.
                Field::XRequestId => {
                    self.request_id.is_some_and(|id| std::ptr::eq(id, field.value))
                }
                // What is announced comes, or nothing is announced.
                Field::Trailer => self.body == BodyLength::Chunked && self.names_no_fields(),
                Field::OfForwarder => peer_trusted,
                // Whoever could have it dropped could have requests go round for ever.
                Field::CdnLoop => true,
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
        let ask_about_all = self.connection.names_any() || !own_cookies.is_empty();
        self.survey.copy((self.bytes, line), self.fields, ask_about_all, keep, out);
        (has_proto, has_host)
    }

    /// What is left of the fields in which the proxy's own cookies stood.
    #[cold]
    fn write_cookies(&self, own: &[Box<str>], out: &mut Vec<u8>) {
        if self.connection.names(COOKIE, self.fields) {
            return;
        }
        for value in self.cookies().filter(|value| field::has(value, own)) {
            let start = out.len();
            out.extend_from_slice(b"Cookie: ");
            let empty = out.len();
            field::strip(value, own, out);
            if out.len() == empty {
                out.truncate(start);
            } else {
                out.extend_from_slice(b"\r\n");
            }
        }
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

/// The name of the field, in lower case.
const COOKIE: &[u8] = b"cookie";

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
