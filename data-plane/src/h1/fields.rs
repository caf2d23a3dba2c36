//! Header fields: which ones concern a proxy, and the syntax of their values.

use super::FIELDS_MAX;

/// Fields that a proxy must understand; all others are forwarded as they are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Field {
    Connection,
    ContentLength,
    TransferEncoding,
    Host,
    Expect,
    KeepAlive,
    Te,
    Trailer,
    Upgrade,
    XForwardedFor,
    XForwardedHost,
    XForwardedProto,
    XRequestId,
    /// Never forwarded: meant for the next hop only (Proxy-*, HTTP2-Settings), or
    /// likely to be mistaken for a field that is understood.
    Dropped,
    Other,
}

/// Tells fields apart by length first: most names are out after one comparison.
///
/// A name that differs from one of these only in having `_` for `-` is dropped: CGI and
/// its heirs take both for the same.
pub(crate) fn classify(name: &[u8]) -> Field {
    let is = |text: &[u8]| is_like(name, text);
    let field = match name.len() {
        2 if is(b"te") => Field::Te,
        4 if is(b"host") => Field::Host,
        // CGI backends would take it for the variable HTTP_PROXY.
        5 if is(b"proxy") => Field::Dropped,
        6 if is(b"expect") => Field::Expect,
        7 if is(b"upgrade") => Field::Upgrade,
        7 if is(b"trailer") => Field::Trailer,
        10 if is(b"connection") => Field::Connection,
        10 if is(b"keep-alive") => Field::KeepAlive,
        12 if is(b"x-request-id") => Field::XRequestId,
        14 if is(b"content-length") => Field::ContentLength,
        // Belongs to an upgrade to HTTP/2, which is never forwarded.
        14 if is(b"http2-settings") => Field::Dropped,
        15 if is(b"x-forwarded-for") => Field::XForwardedFor,
        16 if is(b"x-forwarded-host") => Field::XForwardedHost,
        17 if is(b"transfer-encoding") => Field::TransferEncoding,
        17 if is(b"x-forwarded-proto") => Field::XForwardedProto,
        len if len > 6 && is_like(&name[..6], b"proxy-") => Field::Dropped,
        _ => return Field::Other,
    };
    if name.contains(&b'_') { Field::Dropped } else { field }
}

/// Whether a name is this lower-case text, in any case and with `_` for `-`.
fn is_like(name: &[u8], text: &[u8]) -> bool {
    name.iter().zip(text).all(|(&byte, &wanted)| {
        byte.to_ascii_lowercase() == wanted || (byte == b'_' && wanted == b'-')
    })
}

/// Fields that do not belong into trailers, because they tell how to frame, route,
/// authenticate or process the message (RFC 9110, 6.5.1); those of [`Field`] do not
/// either.
const NOT_TRAILERS: [&[u8]; 31] = [
    b"age",
    b"authorization",
    b"cache-control",
    b"content-encoding",
    b"content-language",
    b"content-location",
    b"content-range",
    b"content-type",
    b"cookie",
    b"date",
    b"expires",
    b"forwarded",
    b"if-match",
    b"if-modified-since",
    b"if-none-match",
    b"if-range",
    b"if-unmodified-since",
    b"location",
    b"max-forwards",
    b"origin",
    b"pragma",
    b"range",
    b"referer",
    b"retry-after",
    b"set-cookie",
    b"vary",
    b"via",
    b"warning",
    b"www-authenticate",
    b"x-http-method-override",
    b"x-real-ip",
];

/// Whether a trailer of this name may be passed on.
pub(crate) fn may_be_trailer(name: &[u8]) -> bool {
    let forbidden = |text: &&[u8]| text.len() == name.len() && is_like(name, text);
    classify(name) == Field::Other && !NOT_TRAILERS.iter().any(|text| forbidden(text))
}

/// Which fields of a head need more than copying.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Marked([u64; FIELDS_MAX.div_ceil(64)]);

impl Marked {
    pub(crate) fn mark(&mut self, index: usize) {
        self.0[index / 64] |= 1 << (index % 64);
    }

    pub(crate) fn has(&self, index: usize) -> bool {
        self.0[index / 64] >> (index % 64) & 1 == 1
    }
}

/// What the Connection fields of a head say.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ConnectionOptions<'b> {
    pub(crate) close: bool,
    pub(crate) keep_alive: bool,
    pub(crate) upgrade: bool,
    named: [&'b [u8]; NAMED_MAX],
    named_len: usize,
}

/// More than this many fields named in Connection are a refusal.
const NAMED_MAX: usize = 16;

impl<'b> ConnectionOptions<'b> {
    /// Adds one Connection field. `None` when it is malformed or names too many.
    pub(crate) fn add(&mut self, value: &'b [u8]) -> Option<()> {
        for option in list(value) {
            if !is_token(option) {
                return None;
            }
            if option.eq_ignore_ascii_case(b"close") {
                self.close = true;
            } else if option.eq_ignore_ascii_case(b"keep-alive") {
                self.keep_alive = true;
            } else if option.eq_ignore_ascii_case(b"upgrade") {
                self.upgrade = true;
            } else if classify(option) == Field::Other {
                *self.named.get_mut(self.named_len)? = option;
                self.named_len += 1;
            }
            // The proxy decides about the fields that it understands itself: a client
            // cannot have Host or Content-Length dropped by naming them here.
        }
        Some(())
    }

    /// Whether there are such fields at all.
    pub(crate) fn names_any(&self) -> bool {
        self.named_len > 0
    }

    /// Whether the sender meant this field for the next hop only (RFC 9110, 7.6.1).
    pub(crate) fn names(&self, name: &[u8]) -> bool {
        self.named_len > 0
            && self.named[..self.named_len].iter().any(|named| named.eq_ignore_ascii_case(name))
    }
}

/// The elements of a comma-separated list, trimmed; empty ones are left out
/// (RFC 9110, 5.6.1).
pub(crate) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii).filter(|element| !element.is_empty())
}

/// RFC 9110, 5.6.2.
pub(crate) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|&byte| is_token_byte(byte))
}

/// One character of a token.
pub(crate) fn is_token_byte(byte: u8) -> bool {
    CLASSES[usize::from(byte)] & TOKEN != 0
}

/// Classes of bytes, one bit each.
const TOKEN: u8 = 1;
const REG_NAME: u8 = 2;

static CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte < 128u8 {
        if byte.is_ascii_alphanumeric() {
            classes[byte as usize] = TOKEN | REG_NAME;
        }
        byte += 1;
    }
    mark(mark(classes, b"!#$%&'*+-.^_`|~", TOKEN), b"-._~%!$&'()*+;=", REG_NAME)
};

const fn mark(mut classes: [u8; 256], bytes: &[u8], class: u8) -> [u8; 256] {
    let mut at = 0;
    while at < bytes.len() {
        classes[bytes[at] as usize] |= class;
        at += 1;
    }
    classes
}

/// A Content-Length: digits and nothing else, below 2^64 (RFC 9110, 8.6).
pub(crate) fn content_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 20 {
        return None;
    }
    value.iter().try_fold(0u64, |number, byte| {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        number.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

/// The value of Host, or the authority of an absolute target: `uri-host [":" port]`
/// (RFC 9110, 7.2). Empty is valid.
pub(crate) fn is_host(value: &[u8]) -> bool {
    let (host, port) = match value.first() {
        Some(b'[') => {
            let Some(end) = value.iter().position(|&b| b == b']') else { return false };
            let inner = &value[1..end];
            let literal = |b: &u8| b.is_ascii_hexdigit() || matches!(b, b':' | b'.');
            if inner.is_empty() || !inner.iter().all(literal) {
                return false;
            }
            (&b""[..], &value[end + 1..])
        }
        _ => {
            let end = value.iter().position(|&b| b == b':').unwrap_or(value.len());
            value.split_at(end)
        }
    };
    // reg-name: unreserved, percent-encoded, sub-delims (RFC 3986, 3.2.2).
    let name_ok = |b: &u8| CLASSES[usize::from(*b)] & REG_NAME != 0;
    let port_ok = match port {
        [] => true,
        [b':', digits @ ..] => digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    host.iter().all(name_ok) && port_ok
}

/// Whether one element of Upgrade is a protocol (RFC 9110, 7.8), and one that may be
/// passed on: HTTP/2 in the clear is not.
pub(crate) fn is_forwardable_protocol(protocol: &[u8]) -> bool {
    let mut parts = protocol.splitn(2, |&byte| byte == b'/');
    let name = parts.next().unwrap_or_default();
    is_token(name)
        && parts.next().is_none_or(is_token)
        && !name.eq_ignore_ascii_case(b"h2c")
        && !name.eq_ignore_ascii_case(b"http")
}

/// The `timeout` of a Keep-Alive field, in seconds.
pub(crate) fn keep_alive_timeout(value: &[u8]) -> Option<u64> {
    list(value).find_map(|element| {
        let (name, number) = element.split_at_checked(8)?;
        name.eq_ignore_ascii_case(b"timeout=").then(|| content_length(number)).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_known_in_any_case() {
        assert_eq!(classify(b"CONTENT-length"), Field::ContentLength);
        assert_eq!(classify(b"Proxy-Authorization"), Field::Dropped);
        assert_eq!(classify(b"TE"), Field::Te);
        assert_eq!(classify(b"X-Custom"), Field::Other);
        assert_eq!(classify(b"proxy"), Field::Dropped);
        assert_eq!(classify(b"proxyx"), Field::Other);
    }

    #[test]
    fn what_cgi_would_mistake_for_a_known_field_is_dropped() {
        assert_eq!(classify(b"Content_Length"), Field::Dropped);
        assert_eq!(classify(b"x-forwarded_for"), Field::Dropped);
        assert_eq!(classify(b"my_field"), Field::Other);
    }

    #[test]
    fn trailers_neither_frame_nor_route_nor_authenticate() {
        for name in ["Content-Length", "HOST", "authorization", "Set_Cookie", "x-forwarded-for"] {
            assert!(!may_be_trailer(name.as_bytes()), "{name}");
        }
        assert!(may_be_trailer(b"Grpc-Status") && may_be_trailer(b"Digest"));
    }

    #[test]
    fn a_length_is_digits_and_nothing_else() {
        assert_eq!(content_length(b"0"), Some(0));
        assert_eq!(content_length(b"18446744073709551615"), Some(u64::MAX));
        for bad in ["", "+1", "-1", "1 ", "0x1", "1,1", "18446744073709551616", "1e3"] {
            assert_eq!(content_length(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[test]
    fn hosts_are_told_from_nonsense() {
        for good in ["", "a", "a.b:80", "[::1]", "[::1]:8080", "127.0.0.1:1", "a:"] {
            assert!(is_host(good.as_bytes()), "{good:?}");
        }
        for bad in
            ["a b", "a/b", "a@b", "a:b", "[::1", "[]", "[x]", "a:123456", "a,b", "a:1:2", "a\\b"]
        {
            assert!(!is_host(bad.as_bytes()), "{bad:?}");
        }
    }

    #[test]
    fn connection_names_fields_but_not_those_of_the_proxy() {
        let mut options = ConnectionOptions::default();
        options.add(b"close, X-Custom , host,content-length").unwrap();
        assert!(options.close && !options.keep_alive);
        assert!(options.names(b"x-custom"));
        assert!(!options.names(b"host") && !options.names(b"content-length"));
        assert!(options.add(b"a b").is_none());
    }

    #[test]
    fn a_backend_tells_how_long_it_keeps_connections() {
        assert_eq!(keep_alive_timeout(b"timeout=5, max=100"), Some(5));
        assert_eq!(keep_alive_timeout(b"max=100"), None);
        assert_eq!(keep_alive_timeout(b"Timeout=x"), None);
    }
}
