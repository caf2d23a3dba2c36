//! As much of an HTTP/1 response head as a client must know to count answers.

/// Where a response ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Frame {
    /// Bytes of head and body together.
    pub(crate) length: usize,
    /// Whether the status is 200.
    pub(crate) ok: bool,
    /// Whether the server closes after it.
    pub(crate) close: bool,
}

/// Reads a head once it is complete; `Err` if its body has no stated length.
pub(crate) fn frame(bytes: &[u8]) -> Result<Option<Frame>, String> {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = &bytes[..end];
    let value = |wanted: &str| {
        head.split(|byte| *byte == b'\n').find_map(|line| {
            let (name, value) = line.split_at_checked(wanted.len())?;
            let found = name.eq_ignore_ascii_case(wanted.as_bytes());
            found.then(|| value.trim_ascii())
        })
    };
    let length = value("content-length:")
        .and_then(|digits| str::from_utf8(digits).ok()?.parse::<usize>().ok())
        .ok_or_else(|| format!("no length: {}", String::from_utf8_lossy(head)))?;
    Ok(Some(Frame {
        length: end + 4 + length,
        ok: head.starts_with(b"HTTP/1.1 200 "),
        close: value("connection:").is_some_and(|text| text.eq_ignore_ascii_case(b"close")),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_ends_where_its_length_says_whatever_the_case_of_the_name() {
        for name in ["Content-Length", "content-length"] {
            let text = format!("HTTP/1.1 200 OK\r\nDate: x\r\n{name}: 5\r\n\r\nhel");
            let found = frame(text.as_bytes()).unwrap().unwrap();
            assert_eq!(found, Frame { length: text.len() + 2, ok: true, close: false });
        }
    }

    #[test]
    fn half_a_head_is_no_head_and_a_head_without_length_is_an_error() {
        assert_eq!(frame(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n"), Ok(None));
        assert!(frame(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").is_err());
        let failed = b"HTTP/1.1 503 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        let failed = frame(failed).unwrap().unwrap();
        assert!(!failed.ok && failed.close);
    }
}
