//! HTTP/1 messages on the wire: one reader that takes nothing but what a proxy should
//! write, and lenient ones that show what a careless backend would make of it.
//!
//! Text is Latin-1: a character up to U+00FF stands for one byte.

mod lenient;

pub use lenient::{READINGS, Reading, Seen, read};

/// A message, as far as it is there.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Message {
    /// Request line or status line.
    pub start: String,
    /// Names and values, in their order.
    pub fields: Vec<(String, String)>,
    /// Without its framing.
    pub body: String,
    /// Of a chunked body.
    pub trailers: Vec<(String, String)>,
    /// Bytes that it took, the head's alone while the body is not complete.
    pub length: usize,
    /// Nothing is missing.
    pub whole: bool,
}

/// Bytes as text.
#[must_use]
pub fn text(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

/// Text as bytes.
#[must_use]
pub fn bytes(text: &str) -> Vec<u8> {
    text.chars().map(|character| u8::try_from(character).expect("a character of Latin-1")).collect()
}

/// The first request in these bytes; `None` while its head is not complete.
pub fn request(bytes: &[u8]) -> Result<Option<Message>, String> {
    let Some((mut message, rest)) = head(bytes)? else { return Ok(None) };
    let words: Vec<&str> = message.start.split(' ').collect();
    let [method, target, "HTTP/1.1"] = words[..] else {
        return Err(format!("not a request line: {:?}", message.start));
    };
    if !is_token(method) || target.is_empty() || !target.chars().all(is_visible) {
        return Err(format!("a bad method or target: {:?}", message.start));
    }
    if message.values("Host").count() != 1 {
        return Err(format!("not one Host: {:?}", message.fields));
    }
    match message.framing()? {
        Framing::Chunked => message.chunks(rest)?,
        Framing::Length(length) => message.take(rest, length),
        Framing::None => message.whole = true,
    }
    Ok(Some(message))
}

/// The first response in these bytes; `None` while its head is not complete. `to_head`
/// says that HEAD was asked, `ended` that the connection has ended, and not by a reset.
pub fn response(bytes: &[u8], to_head: bool, ended: bool) -> Result<Option<Message>, String> {
    let Some((mut message, rest)) = head(bytes)? else { return Ok(None) };
    let status = message.status();
    let line = message.start.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.split_at_checked(3));
    if !(100..1000).contains(&status) || line.is_none_or(|(_, reason)| !reason.starts_with(' ')) {
        return Err(format!("not a status line: {:?}", message.start));
    }
    let framing = message.framing()?;
    if status < 200 || status == 204 {
        if framing != Framing::None {
            return Err(format!("framing in a {status}: {:?}", message.fields));
        }
        message.whole = true;
        return Ok(Some(message));
    }
    if to_head || status == 304 {
        message.whole = true;
        return Ok(Some(message));
    }
    match framing {
        Framing::Chunked => message.chunks(rest)?,
        Framing::Length(length) => message.take(rest, length),
        Framing::None if message.values("Connection").eq(["close"]) => {
            message.body = text(rest);
            message.length += rest.len();
            message.whole = ended;
        }
        Framing::None => return Err(format!("neither length nor end: {message:?}")),
    }
    Ok(Some(message))
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Framing {
    None,
    Length(usize),
    Chunked,
}

impl Message {
    /// The status of a response, 0 if there is none.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.start.get(9..12).and_then(|digits| digits.parse().ok()).unwrap_or_default()
    }

    /// The method of a request.
    #[must_use]
    pub fn method(&self) -> &str {
        self.start.split(' ').next().unwrap_or_default()
    }

    /// The values of all fields of a name, in whatever case it is written.
    pub fn values<'m>(&'m self, name: &'m str) -> impl Iterator<Item = &'m str> {
        self.fields
            .iter()
            .filter(move |(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| &**value)
    }

    fn framing(&self) -> Result<Framing, String> {
        let lengths: Vec<&str> = self.values("Content-Length").collect();
        let encodings: Vec<&str> = self.values("Transfer-Encoding").collect();
        match (&lengths[..], &encodings[..]) {
            ([], []) => Ok(Framing::None),
            ([], ["chunked"]) => Ok(Framing::Chunked),
            ([length], []) if !length.is_empty() && length.bytes().all(|b| b.is_ascii_digit()) => {
                length.parse().map(Framing::Length).map_err(|error| format!("{length}: {error}"))
            }
            _ => Err(format!("doubtful framing: {:?}", self.fields)),
        }
    }

    fn take(&mut self, rest: &[u8], length: usize) {
        self.whole = rest.len() >= length;
        let there = &rest[..length.min(rest.len())];
        self.body = text(there);
        if self.whole {
            self.length += length;
        }
    }

    /// Reads chunks as the proxy writes them: sizes without extensions or zeros in front.
    fn chunks(&mut self, bytes: &[u8]) -> Result<(), String> {
        let mut rest = bytes;
        loop {
            let Some((line, after)) = line(rest)? else { return Ok(()) };
            let digits = line.bytes().all(|b| b.is_ascii_hexdigit());
            let size = usize::from_str_radix(&line, 16).ok();
            let (Some(size), true) = (size, digits && (line == "0" || !line.starts_with('0')))
            else {
                return Err(format!("a bad chunk size: {line:?}"));
            };
            if size == 0 {
                rest = after;
                break;
            }
            self.body += &text(&after[..size.min(after.len())]);
            let Some(end) = after.get(size..).filter(|end| end.len() >= 2) else { return Ok(()) };
            rest = end.strip_prefix(b"\r\n").ok_or("a chunk does not end where it should")?;
        }
        while let Some((line, after)) = line(rest)? {
            rest = after;
            if line.is_empty() {
                self.length += bytes.len() - rest.len();
                self.whole = true;
                break;
            }
            self.trailers.push(field(&line)?);
        }
        Ok(())
    }
}

/// The first head, and what follows.
fn head(bytes: &[u8]) -> Result<Option<(Message, &[u8])>, String> {
    let mut message = Message::default();
    let mut rest = bytes;
    while let Some((line, after)) = line(rest)? {
        rest = after;
        if message.start.is_empty() {
            if line.is_empty() {
                return Err("an empty line before a message".to_owned());
            }
            message.start = line;
        } else if line.is_empty() {
            message.length = bytes.len() - rest.len();
            return Ok(Some((message, rest)));
        } else {
            message.fields.push(field(&line)?);
        }
    }
    Ok(None)
}

/// The first line, if it is complete, and what follows.
fn line(bytes: &[u8]) -> Result<Option<(String, &[u8])>, String> {
    let Some(end) = bytes.iter().position(|&byte| byte == b'\n') else { return Ok(None) };
    let line = bytes[..end].strip_suffix(b"\r").ok_or("a line ends with LF alone")?;
    if line.iter().any(|&byte| (byte < b' ' && byte != b'\t') || byte == 0x7f) {
        return Err(format!("a control character in {:?}", text(line)));
    }
    Ok(Some((text(line), &bytes[end + 1..])))
}

/// `Name: value`, with exactly one space and none at the end.
fn field(line: &str) -> Result<(String, String), String> {
    let Some((name, value)) = line.split_once(": ").filter(|(name, _)| is_token(name)) else {
        return Err(format!("not a field: {line:?}"));
    };
    if value.trim_matches([' ', '\t']) != value {
        return Err(format!("a value in white space: {line:?}"));
    }
    Ok((name.to_owned(), value.to_owned()))
}

fn is_token(text: &str) -> bool {
    let other = "!#$%&'*+-.^_`|~";
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || other.contains(c))
}

fn is_visible(character: char) -> bool {
    character > ' ' && character != '\x7f'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_ends_where_it_says() {
        let bytes = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nokGET /";
        let read = request(bytes).unwrap().unwrap();
        assert!(read.whole && read.length == bytes.len() - 5 && read.body == "ok");
        let bytes =
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX: y\r\n\r\n";
        let read = response(bytes, false, false).unwrap().unwrap();
        assert_eq!((read.length, read.body.as_str()), (bytes.len(), "ok"));
        assert_eq!(read.trailers, [("X".to_owned(), "y".to_owned())]);
        for cut in 0..bytes.len() {
            let part = response(&bytes[..cut], false, true).unwrap();
            assert!(part.is_none_or(|part| !part.whole), "{cut}");
        }
    }

    #[test]
    fn what_a_proxy_should_not_write_is_no_message() {
        for bad in [
            "GET / HTTP/1.0\r\nHost: a\r\n\r\n",
            "GET /\tHTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n",
            "GET / HTTP/1.1\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost:a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na",
            "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n00\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n",
        ] {
            assert!(request(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }
}
