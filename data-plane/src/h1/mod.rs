//! HTTP/1.0 and HTTP/1.1 without I/O: bytes in, decisions and bytes out.
//!
//! A framing doubt is a refusal, never a guess, and a framing field is never
//! forwarded as received: the body's length is read strictly here, and written anew
//! by [`request::encode`] and [`response::encode`]. RFC numbers are those of 9110
//! (semantics) and 9112 (HTTP/1.1).

pub(crate) mod body;
pub(crate) mod chunked;
mod connection_options;
mod copy;
pub(crate) mod fields;
pub(crate) mod request;
pub(crate) mod response;
pub(crate) mod scan;

use lb_core::model::HttpLimits;

/// Protocol versions that this codec speaks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Version {
    Http10,
    Http11,
}

/// Has a head that begins with a request line or a status line of HTTP/1.2 to 1.9 say HTTP/1.1, as
/// which it is to be read (RFC 9110, 2.5). Whether it was one.
#[cold]
pub(crate) fn lower_minor(head: &mut [u8]) -> bool {
    let end = head.iter().position(|byte| matches!(byte, b'\r' | b'\n')).unwrap_or(head.len());
    let line = &head[..end];
    let is_response = line.starts_with(b"HTTP/");
    let at = match is_response {
        true if line.get(8).is_none_or(|&byte| byte == b' ') => Some(0),
        true => None,
        false => line.len().checked_sub(8).filter(|&at| at > 0 && line[at - 1] == b' '),
    };
    match at.and_then(|at| head.get_mut(at..at + 8)) {
        Some([b'H', b'T', b'T', b'P', b'/', b'1', b'.', minor @ b'2'..=b'9']) => {
            *minor = b'1';
            true
        }
        _ => false,
    }
}

/// The most fields that a head can ever have; see [`HttpLimits::fields_max`].
pub(crate) const FIELDS_MAX: usize = HttpLimits::FIELDS_MAX as usize;

/// Room for the fields of one head, on the stack and not initialised.
pub(crate) type FieldStorage<'b> = [std::mem::MaybeUninit<httparse::Header<'b>>; FIELDS_MAX];

/// Empty [`FieldStorage`].
pub(crate) fn field_storage<'b>() -> FieldStorage<'b> {
    [const { std::mem::MaybeUninit::uninit() }; FIELDS_MAX]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_minor_versions_are_taken_for_the_last_one_that_is_known() {
        for (head, expected) in [
            ("GET / HTTP/1.2\r\nHost: x\r\n\r\n", "GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
            ("GET /HTTP/1.2 HTTP/1.9", "GET /HTTP/1.2 HTTP/1.1"),
            ("HTTP/1.3 200 OK\r\n", "HTTP/1.1 200 OK\r\n"),
            ("HTTP/1.5", "HTTP/1.1"),
        ] {
            let mut bytes = head.as_bytes().to_vec();
            assert!(lower_minor(&mut bytes), "{head:?}");
            assert_eq!(String::from_utf8(bytes).unwrap(), expected);
        }
        for head in [
            "GET / HTTP/1.1\r\n",
            "GET / HTTP/1.0\r\n",
            "GET / HTTP/2.2\r\n",
            "GET / HTTP/1.22\r\n",
            "GET / http/1.2\r\n",
            "GET /xHTTP/1.2\r\n",
            "GET /\r\nX: HTTP/1.2\r\n",
            "HTTP/1.2x 200\r\n",
            "HTTP/1.20 200\r\n",
            "HTTP/1.1 200 HTTP/1.2\r\n",
            "",
        ] {
            let mut bytes = head.as_bytes().to_vec();
            let changed = lower_minor(&mut bytes);
            assert!(!changed && bytes == head.as_bytes(), "{head:?}");
        }
    }
}
