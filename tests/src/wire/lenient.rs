//! How careless servers read requests: each reading takes one liberty or several. What is
//! forwarded must be the same requests in all of them.

/// The liberties of one reader.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    /// For messages.
    pub name: &'static str,
    line_end: LineEnd,
    /// A line that begins with white space is a field of its own, not a continuation.
    folds_are_fields: bool,
    /// Content-Length beats Transfer-Encoding.
    length_first: bool,
    /// Of several lengths the last counts, not the first.
    last_length: bool,
    /// Only a last coding of `chunked`, exactly, counts; else any value with that word.
    exact_coding: bool,
    /// `_` in a name is `-`, and characters that names do not have are left out.
    loose_names: bool,
    /// Chunk sizes wrap at 32 bits.
    narrow_sizes: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum LineEnd {
    CrLf,
    Lf,
    CrOrLf,
}

const PLAIN: Reading = Reading {
    name: "LF ends lines",
    line_end: LineEnd::Lf,
    folds_are_fields: false,
    length_first: false,
    last_length: false,
    exact_coding: false,
    loose_names: false,
    narrow_sizes: false,
};

/// All of them.
pub const READINGS: [Reading; 9] = [
    PLAIN,
    Reading { name: "only CRLF ends lines", line_end: LineEnd::CrLf, ..PLAIN },
    Reading { name: "CR ends lines", line_end: LineEnd::CrOrLf, ..PLAIN },
    Reading { name: "the length beats chunks", length_first: true, ..PLAIN },
    Reading { name: "the last length counts", last_length: true, length_first: true, ..PLAIN },
    Reading { name: "only exactly chunked counts", exact_coding: true, ..PLAIN },
    Reading { name: "folds are fields", folds_are_fields: true, ..PLAIN },
    Reading { name: "names are cleaned", loose_names: true, ..PLAIN },
    Reading { name: "sizes wrap", narrow_sizes: true, ..PLAIN },
];

/// A request in somebody's eyes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Seen {
    /// Its first line.
    pub start: String,
    /// Whether it was complete.
    pub whole: bool,
}

/// All requests in these bytes.
#[must_use]
pub fn read(bytes: &[u8], reading: &Reading) -> Vec<Seen> {
    let mut all = Vec::new();
    let mut rest = bytes;
    loop {
        while let [b'\r' | b'\n', after @ ..] = rest {
            rest = after;
        }
        if rest.is_empty() {
            return all;
        }
        let mut lines: Vec<String> = Vec::new();
        let whole = loop {
            match reading.line(rest) {
                Some((line, after)) => {
                    rest = after;
                    if line.is_empty() {
                        break true;
                    }
                    lines.push(super::text(line));
                }
                None => break false,
            }
        };
        let start = lines.first().cloned().unwrap_or_else(|| super::text(rest));
        let end = if whole { reading.body(&lines, rest) } else { None };
        all.push(Seen { start, whole: end.is_some() });
        match end {
            Some(end) => rest = end,
            None => return all,
        }
    }
}

impl Reading {
    /// One line without its end, and what follows.
    fn line<'b>(&self, bytes: &'b [u8]) -> Option<(&'b [u8], &'b [u8])> {
        let (end, skip) = match self.line_end {
            LineEnd::CrLf => (bytes.windows(2).position(|pair| pair == b"\r\n")?, 2),
            LineEnd::Lf => (bytes.iter().position(|&b| b == b'\n')?, 1),
            LineEnd::CrOrLf => {
                let end = bytes.iter().position(|&b| matches!(b, b'\r' | b'\n'))?;
                (end, if bytes[end..].starts_with(b"\r\n") { 2 } else { 1 })
            }
        };
        let line = &bytes[..end];
        Some((line.strip_suffix(b"\r").unwrap_or(line), &bytes[end + skip..]))
    }

    /// What follows on the body, if that is complete.
    fn body<'b>(&self, lines: &[String], rest: &'b [u8]) -> Option<&'b [u8]> {
        let (mut lengths, mut codings) = (Vec::new(), Vec::new());
        for line in lines.iter().skip(1) {
            if line.starts_with([' ', '\t']) && !self.folds_are_fields {
                continue;
            }
            let Some((name, value)) = line.split_once(':') else { continue };
            let mut name = name.trim().to_ascii_lowercase();
            if self.loose_names {
                name = name.replace('_', "-");
                name.retain(|character| character == '-' || character.is_ascii_alphanumeric());
            }
            let values = value.split(',').map(|value| value.trim().to_ascii_lowercase());
            match &*name {
                "content-length" => lengths.extend(values.filter_map(|value| number(&value, 10))),
                "transfer-encoding" => codings.extend(values),
                _ => {}
            }
        }
        let chunked = match self.exact_coding {
            true => codings.last().is_some_and(|coding| coding == "chunked"),
            false => codings.iter().any(|coding| coding.contains("chunked")),
        };
        let length = if self.last_length { lengths.last() } else { lengths.first() };
        match length {
            Some(length) if self.length_first || !chunked => {
                rest.get(usize::try_from(*length).ok()?..)
            }
            _ if chunked => self.chunks(rest),
            _ => Some(rest),
        }
    }

    fn chunks<'b>(&self, mut rest: &'b [u8]) -> Option<&'b [u8]> {
        loop {
            let (line, after) = self.line(rest)?;
            let mut size = number(super::text(line).trim(), 16)?;
            if self.narrow_sizes {
                size &= 0xffff_ffff;
            }
            rest = after;
            if size == 0 {
                break;
            }
            rest = rest.get(usize::try_from(size).ok()?..)?;
            // Whatever stands behind the data, if it looks like the end of a line.
            rest = rest.strip_prefix(b"\r").unwrap_or(rest);
            rest = rest.strip_prefix(b"\n").unwrap_or(rest);
        }
        loop {
            let (line, after) = self.line(rest)?;
            rest = after;
            if line.is_empty() {
                return Some(rest);
            }
        }
    }
}

/// The number with which a text begins, as `strtoull` would have it.
fn number(text: &str, radix: u32) -> Option<u64> {
    let text = text.strip_prefix('+').unwrap_or(text);
    let text = if radix == 16 { text.strip_prefix("0x").unwrap_or(text) } else { text };
    let digits = text.chars().map_while(|character| character.to_digit(radix));
    let mut any = false;
    let number = digits.fold(0u64, |number, digit| {
        any = true;
        number.wrapping_mul(u64::from(radix)).wrapping_add(u64::from(digit))
    });
    any.then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the readings make of bytes, each different view once.
    fn views(bytes: &str) -> Vec<Vec<Seen>> {
        let mut views: Vec<Vec<Seen>> = Vec::new();
        for reading in &READINGS {
            let view = read(bytes.as_bytes(), reading);
            if !views.contains(&view) {
                views.push(view);
            }
        }
        views
    }

    #[test]
    fn plain_requests_are_the_same_to_everybody() {
        let bytes = "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nok\
            POST /b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX: y\r\n\r\n\
            GET /c HTTP/1.1\r\nHost: a\r\n\r\n";
        let views = views(bytes);
        assert!(views.len() == 1 && views[0].len() == 3, "{views:#?}");
    }

    #[test]
    fn every_known_trick_is_seen_differently_by_somebody() {
        let next = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
        for (fields, body) in [
            ("Content-Length: 35\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
            ("Content-Length: 0\r\nContent-Length: 38\r\n", ""),
            ("X: y\nContent-Length: 38\r\n", ""),
            ("X: y\rContent-Length: 38\r\n", ""),
            ("X: y\r\n Content-Length: 38\r\n", ""),
            ("Content_Length: 38\r\n", ""),
            ("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n"),
            ("Transfer-Encoding: chunked\r\n", "100000000\r\n\r\n"),
        ] {
            let bytes = format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n{body}{next}");
            assert!(views(&bytes).len() > 1, "{bytes:?}");
        }
    }
}
