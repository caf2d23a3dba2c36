//! Header fields: which ones concern a proxy, and the syntax of their values.

/// Fields that a proxy must understand; all others are forwarded as they are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Field {
    Connection,
    ContentLength,
    TransferEncoding,
    Host,
    Expect,
    KeepAlive,
    MaxForwards,
    Te,
    Trailer,
    Upgrade,
    XForwardedFor,
    XForwardedHost,
    XForwardedProto,
    /// Forwarded and X-Real-IP: what another proxy says of the client.
    OfForwarder,
    XRequestId,
    /// Through whom the request has passed (RFC 8586).
    CdnLoop,
    /// Never forwarded: meant for the next hop only (Proxy-*, HTTP2-Settings), or
    /// likely to be mistaken for a field that is understood.
    Dropped,
    Other,
}

/// Tells fields apart by length first, and then by a few words of memory: this is done
/// for every field of every request. `name` must be a token.
///
/// A name that differs from one of these only in having `_` for `-` is dropped: CGI and
/// its heirs take both for the same.
pub(crate) fn classify(name: &[u8]) -> Field {
    let is = |text: &'static [u8]| is_text(name, text);
    // Where a known name of this length has its dashes.
    let dashes: &[usize] = match name.len() {
        2 if is(b"te") => return Field::Te,
        4 if is(b"host") => return Field::Host,
        // CGI backends would take it for the variable HTTP_PROXY.
        5 if is(b"proxy") => return Field::Dropped,
        6 if is(b"expect") => return Field::Expect,
        7 if is(b"upgrade") => return Field::Upgrade,
        7 if is(b"trailer") => return Field::Trailer,
        8 if is(b"cdn-loop") => return Field::CdnLoop,
        8 => &[3],
        9 if is(b"forwarded") => return Field::OfForwarder,
        9 if is(b"x-real-ip") => return Field::OfForwarder,
        9 => &[1, 6],
        10 if is(b"connection") => return Field::Connection,
        10 if is(b"keep-alive") => return Field::KeepAlive,
        10 => &[4],
        12 if is(b"x-request-id") => return Field::XRequestId,
        12 if is(b"max-forwards") => return Field::MaxForwards,
        12 => &[1, 3, 9],
        14 if is(b"content-length") => return Field::ContentLength,
        // Belongs to an upgrade to HTTP/2, which is never forwarded.
        14 if is(b"http2-settings") => return Field::Dropped,
        14 => &[5, 7],
        15 if is(b"x-forwarded-for") => return Field::XForwardedFor,
        16 if is(b"x-forwarded-host") => return Field::XForwardedHost,
        15 | 16 => &[1, 11],
        17 if is(b"transfer-encoding") => return Field::TransferEncoding,
        17 if is(b"x-forwarded-proto") => return Field::XForwardedProto,
        17 => &[1, 8, 11],
        _ => &[],
    };
    if name.len() > 6 && is_text(&name[..5], b"proxy") && matches!(name[5], b'-' | b'_') {
        return Field::Dropped;
    }
    if dashes.iter().any(|&at| name[at] == b'_') && is_alias(name) {
        return Field::Dropped;
    }
    Field::Other
}

/// Whether a name would be one of the known ones with `-` for `_`.
#[cold]
fn is_alias(name: &[u8]) -> bool {
    let dashed: Vec<u8> = name.iter().map(|&byte| if byte == b'_' { b'-' } else { byte }).collect();
    classify(&dashed) != Field::Other
}

/// Whether a token is this text of lower-case letters, digits and dashes, in any case.
/// Among the bytes of tokens, setting one bit folds letters and confuses none of these.
fn is_text(name: &[u8], text: &'static [u8]) -> bool {
    debug_assert_eq!(name.len(), text.len());
    let len = text.len();
    if len >= 8 {
        let middle = len <= 16 || name[8..len - 8].eq_ignore_ascii_case(&text[8..len - 8]);
        fold8(name, 0) == fold8(text, 0) && fold8(name, len - 8) == fold8(text, len - 8) && middle
    } else if len >= 4 {
        fold4(name, 0) == fold4(text, 0) && fold4(name, len - 4) == fold4(text, len - 4)
    } else {
        name.eq_ignore_ascii_case(text)
    }
}

#[inline]
fn fold8(bytes: &[u8], at: usize) -> u64 {
    let word: [u8; 8] = bytes[at..at + 8].try_into().expect("eight bytes");
    u64::from_le_bytes(word) | 0x2020_2020_2020_2020
}

#[inline]
fn fold4(bytes: &[u8], at: usize) -> u32 {
    let word: [u8; 4] = bytes[at..at + 4].try_into().expect("four bytes");
    u32::from_le_bytes(word) | 0x2020_2020
}

/// Fields that do not belong into trailers, because they tell how to frame, route,
/// authenticate or process the message (RFC 9110, 6.5.1); those of [`Field`] do not
/// either.
const NOT_TRAILERS: [&[u8]; 28] = [
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
    b"if-match",
    b"if-modified-since",
    b"if-none-match",
    b"if-range",
    b"if-unmodified-since",
    b"location",
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
];

/// Whether a trailer of this name may be passed on.
pub(crate) fn may_be_trailer(name: &[u8]) -> bool {
    classify(name) == Field::Other && !NOT_TRAILERS.iter().any(|text| is_taken_for(name, text))
}

/// Whether some backend takes a name for this lower-case one: CGI and its heirs see no difference
/// between `-` and `_`.
pub(crate) fn is_taken_for(name: &[u8], text: &[u8]) -> bool {
    let same = |(&byte, &wanted): (&u8, &u8)| {
        byte.eq_ignore_ascii_case(&wanted) || (byte == b'_' && wanted == b'-')
    };
    text.len() == name.len() && name.iter().zip(text).all(same)
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

/// A Content-Length: digits and nothing else (RFC 9110, 8.6), below 2^63. What is more would be
/// negative to many a backend.
pub(crate) fn content_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 20 {
        return None;
    }
    let length = value.iter().try_fold(0u64, |number, byte| {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        number.checked_mul(10)?.checked_add(u64::from(digit))
    });
    length.filter(|length| *length <= LENGTH_MAX)
}

const LENGTH_MAX: u64 = i64::MAX.unsigned_abs();

/// The value of Host, or the authority of an absolute target: `uri-host [":" port]`
/// (RFC 9110, 7.2). Empty is valid.
pub(crate) fn is_host(value: &[u8]) -> bool {
    let end_of_name = match value.first() {
        Some(b'[') => {
            let Some(end) = value.iter().position(|&b| b == b']') else { return false };
            let inner = &value[1..end];
            let literal = |b: &u8| b.is_ascii_hexdigit() || matches!(b, b':' | b'.');
            if inner.is_empty() || !inner.iter().all(literal) {
                return false;
            }
            end + 1
        }
        // reg-name: unreserved, percent-encoded, sub-delims (RFC 3986, 3.2.2).
        _ => value
            .iter()
            .position(|&b| CLASSES[usize::from(b)] & REG_NAME == 0)
            .unwrap_or(value.len()),
    };
    match &value[end_of_name..] {
        [] => true,
        [b':', digits @ ..] => digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit),
        _ => false,
    }
}

/// An Upgrade field that names more protocols than this is not passed on, nor taken for an
/// answer: each of the one's is looked for among the other's.
pub(crate) const PROTOCOLS_MAX: usize = 16;

/// Whether the elements of an Upgrade field are protocols (RFC 9110, 7.8), not too many, and
/// one of them may be passed on.
pub(crate) fn is_forwardable_upgrade(value: &[u8]) -> bool {
    let protocols = || list(value).take(PROTOCOLS_MAX + 1);
    let is_protocol = |protocol: &[u8]| {
        let mut parts = protocol.splitn(2, |&byte| byte == b'/');
        parts.next().is_some_and(is_token) && parts.next().is_none_or(is_token)
    };
    protocols().count() <= PROTOCOLS_MAX
        && protocols().all(is_protocol)
        && forwardable_protocols(value).next().is_some()
}

/// The protocols of an Upgrade field that may be passed on: HTTP/2 in the clear may not.
pub(crate) fn forwardable_protocols(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    list(value).filter(|protocol| {
        let name = protocol.split(|&byte| byte == b'/').next().unwrap_or_default();
        !name.eq_ignore_ascii_case(b"h2c") && !name.eq_ignore_ascii_case(b"http")
    })
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
    use proptest::prelude::*;

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

    proptest! {
        /// The words of memory say the same as a comparison letter by letter.
        #[test]
        fn a_name_is_known_if_and_only_if_it_is_spelled_so(
            name in "[a-zA-Z0-9!^`|~_-]{1,20}",
            known in prop::sample::select(vec![
                "te", "host", "expect", "upgrade", "trailer", "connection", "keep-alive",
                "x-request-id", "content-length", "x-forwarded-for", "x-forwarded-host",
                "transfer-encoding", "x-forwarded-proto", "http2-settings", "proxy", "forwarded",
                "x-real-ip", "cdn-loop",
            ]),
            at in any::<prop::sample::Index>(),
            byte in "[A-Za-z0-9!^`|~-]",
        ) {
            prop_assert_ne!(classify(known.as_bytes()), Field::Other);
            prop_assert_eq!(
                classify(known.to_uppercase().as_bytes()),
                classify(known.as_bytes())
            );
            let mut changed = known.to_owned();
            let at = at.index(known.len());
            changed.replace_range(at..=at, &byte);
            if !changed.eq_ignore_ascii_case(known) {
                prop_assert_eq!(classify(changed.as_bytes()), Field::Other, "{}", changed);
            }
            // No name brings it down.
            classify(name.as_bytes());
        }
    }

    #[test]
    fn what_cgi_would_mistake_for_a_known_field_is_dropped() {
        assert_eq!(classify(b"Content_Length"), Field::Dropped);
        assert_eq!(classify(b"x-forwarded_for"), Field::Dropped);
        assert_eq!(classify(b"proxy_x"), Field::Dropped);
        assert_eq!(classify(b"x_request_id"), Field::Dropped);
        assert_eq!(classify(b"X_Real_IP"), Field::Dropped);
        assert_eq!(classify(b"my_field"), Field::Other);
        assert_eq!(classify(b"my_field_and_on"), Field::Other);
    }

    #[test]
    fn trailers_neither_frame_nor_route_nor_authenticate() {
        for name in [
            "Content-Length",
            "HOST",
            "authorization",
            "Set_Cookie",
            "x-forwarded-for",
            "x-real_ip",
            "Forwarded",
        ] {
            assert!(!may_be_trailer(name.as_bytes()), "{name}");
        }
        assert!(may_be_trailer(b"Grpc-Status") && may_be_trailer(b"Digest"));
    }

    #[test]
    fn a_length_is_digits_and_nothing_else() {
        assert_eq!(content_length(b"0"), Some(0));
        assert_eq!(content_length(b"9223372036854775807"), Some(LENGTH_MAX));
        assert_eq!(content_length(b"9223372036854775808"), None);
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
    fn a_backend_tells_how_long_it_keeps_connections() {
        assert_eq!(keep_alive_timeout(b"timeout=5, max=100"), Some(5));
        assert_eq!(keep_alive_timeout(b"max=100"), None);
        assert_eq!(keep_alive_timeout(b"Timeout=x"), None);
    }
}
