//! Chunked bodies as RFC 9112, 7.1 has them, read in one go: the judge of the reader that
//! takes them from pieces.

/// What a chunked body turned out to be.
#[derive(Debug)]
pub(super) struct Reading {
    /// As far as it could be read.
    pub(super) data: Vec<u8>,
    pub(super) end: ReadingEnd,
    /// The longest size or extension, with and without one byte.
    pub(super) extension_bytes: (usize, usize),
    /// Of all trailers: their lines, and what they are without colons and line ends.
    pub(super) trailer_bytes: (usize, usize),
    pub(super) trailer_names: Vec<Vec<u8>>,
}

/// How it ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum ReadingEnd {
    /// After so many bytes.
    Complete(usize),
    /// More bytes could make it complete.
    Incomplete,
    /// No bytes could.
    Malformed,
}

/// Ends the reading when the bytes do.
type Step<T> = Result<T, ReadingEnd>;

/// Reads a body, and reports how it ended.
pub(super) fn read_chunked(input: &[u8]) -> Reading {
    let mut reading = Reading {
        data: Vec::new(),
        end: ReadingEnd::Incomplete,
        extension_bytes: (0, 0),
        trailer_bytes: (0, 0),
        trailer_names: Vec::new(),
    };
    let mut rest = input;
    reading.end = match reading.body(&mut rest) {
        Ok(()) => ReadingEnd::Complete(input.len() - rest.len()),
        Err(end) => end,
    };
    reading
}

impl Reading {
    fn body(&mut self, rest: &mut &[u8]) -> Step<()> {
        loop {
            let size = self.size(rest)?;
            if size == 0 {
                break;
            }
            let available = usize::try_from(size).unwrap_or(usize::MAX).min(rest.len());
            self.data.extend_from_slice(&rest[..available]);
            *rest = &rest[available..];
            if (available as u64) < size {
                return Err(ReadingEnd::Incomplete);
            }
            exactly(rest, b"\r\n")?;
        }
        while !rest.starts_with(b"\r") {
            let before = rest.len();
            let trailer = self.trailer(rest);
            // Of one that is not complete, the end of its line may count already.
            self.trailer_bytes.0 += before - rest.len() + 2;
            trailer?;
        }
        exactly(rest, b"\r\n")
    }

    /// `1*HEXDIG [ BWS ";" anything ] CRLF`
    fn size(&mut self, rest: &mut &[u8]) -> Step<u64> {
        let digits = take(rest, |byte| byte.is_ascii_hexdigit());
        let significant: Vec<u8> = digits.iter().copied().skip_while(|&b| b == b'0').collect();
        if significant.len() > 16 {
            return Err(ReadingEnd::Malformed);
        }
        let text = String::from_utf8(significant).unwrap_or_default();
        let size = u64::from_str_radix(&text, 16).unwrap_or_default();
        if digits.is_empty() {
            return Err(if rest.is_empty() {
                ReadingEnd::Incomplete
            } else {
                ReadingEnd::Malformed
            });
        }
        let blanks = take(rest, |byte| byte == b' ' || byte == b'\t');
        self.count(digits.len() + blanks.len());
        match rest.first() {
            None => return Err(ReadingEnd::Incomplete),
            Some(b';') => {
                let extension = take(rest, is_text).len();
                self.count(extension);
            }
            Some(_) if !blanks.is_empty() => return Err(ReadingEnd::Malformed),
            Some(_) => {}
        }
        exactly(rest, b"\r\n")?;
        Ok(size)
    }

    fn count(&mut self, bytes: usize) {
        let longest = self.extension_bytes.0.max(bytes);
        self.extension_bytes = (longest, longest - 1);
    }

    /// `token ":" anything CRLF`
    fn trailer(&mut self, rest: &mut &[u8]) -> Step<()> {
        let name = take(rest, |byte| super::message::is_token(&[byte]));
        self.trailer_bytes.1 += name.len();
        match rest.first() {
            None => return Err(ReadingEnd::Incomplete),
            Some(_) if name.is_empty() => return Err(ReadingEnd::Malformed),
            Some(_) => exactly(rest, b":")?,
        }
        self.trailer_bytes.1 += take(rest, is_text).len();
        exactly(rest, b"\r\n")?;
        self.trailer_names.push(name.to_vec());
        Ok(())
    }
}

fn is_text(byte: u8) -> bool {
    matches!(byte, b'\t' | b' '..=b'~' | 0x80..)
}

/// Takes what it can of these bytes.
fn take<'b>(rest: &mut &'b [u8], allowed: impl Fn(u8) -> bool) -> &'b [u8] {
    let end = rest.iter().position(|&byte| !allowed(byte)).unwrap_or(rest.len());
    let (taken, after) = rest.split_at(end);
    *rest = after;
    taken
}

/// Takes this text, or tells whether it could still come.
fn exactly(rest: &mut &[u8], text: &[u8]) -> Step<()> {
    if let Some(after) = rest.strip_prefix(text) {
        *rest = after;
        Ok(())
    } else if text.starts_with(rest) {
        Err(ReadingEnd::Incomplete)
    } else {
        Err(ReadingEnd::Malformed)
    }
}
