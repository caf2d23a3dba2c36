//! Copies fields from one head to another in as few pieces as possible.
//!
//! Most fields of a head are passed on unchanged and stand next to each other: they are
//! one piece of memory. A field that is not written in the usual way, `Name: value`, is
//! written anew, so that no reader sees other white space than we do.

use super::fields::Field;

/// Fields on their way from a head into another one.
#[derive(Debug)]
pub(super) struct Runs<'h, 'o> {
    head: &'h [u8],
    out: &'o mut Vec<u8>,
    start: usize,
    end: usize,
}

impl<'h, 'o> Runs<'h, 'o> {
    /// Begins with the first `kept` bytes of the head, say its first line.
    pub(super) fn new(head: &'h [u8], kept: usize, out: &'o mut Vec<u8>) -> Self {
        Self { head, out, start: 0, end: kept }
    }

    /// Passes a field on.
    pub(super) fn keep(&mut self, field: &httparse::Header<'_>) {
        let Some(line) = usual_line(self.head, field) else {
            self.flush();
            write_field(field.name.as_bytes(), field.value, self.out);
            return;
        };
        if line.start != self.end {
            self.flush();
            self.start = line.start;
        }
        self.end = line.end;
    }

    /// Writes what was kept so far.
    pub(super) fn flush(&mut self) {
        self.out.extend_from_slice(&self.head[self.start..self.end]);
        self.start = self.end;
    }
}

/// Where the line of a field stands in the head, if it is `Name: value` and CRLF exactly.
fn usual_line(head: &[u8], field: &httparse::Header<'_>) -> Option<std::ops::Range<usize>> {
    let start = offset(head, field.name.as_bytes())?;
    let value = offset(head, field.value)?;
    let (colon, end) = (start + field.name.len(), value + field.value.len());
    let usual = value == colon + 2
        && head.get(colon..value) == Some(b": ")
        && head.get(end..end + 2) == Some(b"\r\n");
    usual.then_some(start..end + 2)
}

/// Where `part` stands in `whole`, of which it was cut.
pub(super) fn offset(whole: &[u8], part: &[u8]) -> Option<usize> {
    let offset = part.as_ptr().addr().checked_sub(whole.as_ptr().addr())?;
    (offset + part.len() <= whole.len()).then_some(offset)
}

/// Whether the line before this field ended with CRLF; the parser is content with LF.
pub(super) fn follows_crlf(head: &[u8], field: &httparse::Header<'_>) -> bool {
    offset(head, field.name.as_bytes())
        .and_then(|at| head.get(at.checked_sub(2)?..at))
        .is_some_and(|end| end == b"\r\n")
}

/// Writes one field in the usual way.
pub(super) fn write_field(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Whether a field concerns the next hop only, whichever way it goes.
pub(super) fn is_of_the_hop(field: Field) -> bool {
    matches!(
        field,
        Field::Connection
            | Field::ContentLength
            | Field::TransferEncoding
            | Field::KeepAlive
            | Field::Te
            | Field::Trailer
            | Field::Upgrade
            | Field::Dropped
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_copied_as_one_and_odd_ones_are_written_anew() {
        let head = b"GET / HTTP/1.1\r\nA: 1\r\nB:2\r\nC: 3 \r\nD: 4\r\nE:\r\n\r\n";
        let mut storage = [httparse::EMPTY_HEADER; 8];
        let mut request = httparse::Request::new(&mut storage);
        assert!(request.parse(head).unwrap().is_complete());
        let mut out = Vec::new();
        let mut runs = Runs::new(head, 16, &mut out);
        for field in &*request.headers {
            if field.name != "D" {
                runs.keep(field);
            }
        }
        runs.flush();
        assert_eq!(out, b"GET / HTTP/1.1\r\nA: 1\r\nB: 2\r\nC: 3\r\nE: \r\n");
    }
}
