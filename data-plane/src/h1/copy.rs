//! Copies fields from one head to another in as few pieces as possible.
//!
//! Most fields of a head are passed on unchanged and stand next to each other: they are
//! one piece of memory. A field that is not written in the usual way, `Name: value`, is
//! written anew, so that no reader sees other white space than we do.

use super::{
    FIELDS_MAX,
    fields::{self, Field},
};

/// What is known of the fields of a head, one bit each.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bits([u64; FIELDS_MAX.div_ceil(64)]);

impl Bits {
    fn set(&mut self, index: usize) {
        self.0[index / 64] |= 1 << (index % 64);
    }

    fn has(&self, index: usize) -> bool {
        self.0[index / 64] >> (index % 64) & 1 == 1
    }
}

/// Which fields of a head can be copied as they stand.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Survey {
    /// Fields that the proxy must understand.
    known: Bits,
    /// Fields written in the usual way, `Name: value` and CRLF.
    usual: Bits,
}

impl Survey {
    /// Looks at one field. `None` when the line before it does not end with CRLF; the
    /// parser is content with LF.
    pub(super) fn add(
        &mut self,
        index: usize,
        head: &[u8],
        field: &httparse::Header<'_>,
    ) -> Option<Field> {
        let (name, value) = (field.name.as_bytes(), field.value);
        let start = offset(head, name)?;
        let (colon, end) = (name.len() + 2, name.len() + value.len() + 4);
        // With the end of the line before.
        let line = head.get(start.checked_sub(2)?..)?;
        if line.first_chunk() != Some(b"\r\n") {
            return None;
        }
        let is_usual = value.as_ptr().addr().wrapping_sub(name.as_ptr().addr()) == name.len() + 2
            && line.get(end..).and_then(<[u8]>::first_chunk) == Some(b"\r\n")
            && line[colon..].first_chunk() == Some(b": ");
        if is_usual {
            self.usual.set(index);
        }
        let kind = fields::classify(field.name.as_bytes());
        if kind != Field::Other {
            self.known.set(index);
        }
        Some(kind)
    }

    /// Whether the proxy must understand the field.
    pub(super) fn is_known(&self, index: usize) -> bool {
        self.known.has(index)
    }

    /// Copies the first `line` bytes of the head and those of the fields that are kept:
    /// all that need not be understood, or what `keep` says of the others. It is asked
    /// about all fields if `ask_about_all`.
    pub(super) fn copy(
        &self,
        (head, line): (&[u8], usize),
        fields: &[httparse::Header<'_>],
        ask_about_all: bool,
        mut keep: impl FnMut(bool, &httparse::Header<'_>) -> bool,
        out: &mut Vec<u8>,
    ) {
        let mut run = 0..line;
        for (index, field) in fields.iter().enumerate() {
            let known = self.known.has(index);
            if (known || ask_about_all) && !keep(known, field) {
                continue;
            }
            if !self.usual.has(index) {
                out.extend_from_slice(&head[run.clone()]);
                run.start = run.end;
                write_field(field.name.as_bytes(), field.value, out);
                continue;
            }
            let start = offset(head, field.name.as_bytes()).unwrap_or(run.end);
            if start != run.end {
                out.extend_from_slice(&head[run.clone()]);
                run.start = start;
            }
            run.end = start + field.name.len() + field.value.len() + 4;
        }
        out.extend_from_slice(&head[run]);
    }
}

/// Where `part` stands in `whole`, of which it was cut.
pub(super) fn offset(whole: &[u8], part: &[u8]) -> Option<usize> {
    let offset = part.as_ptr().addr().checked_sub(whole.as_ptr().addr())?;
    (offset + part.len() <= whole.len()).then_some(offset)
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
        let head = b"GET / HTTP/1.1\r\nA: 1\r\nB:2\r\nC: 3 \r\nD: 4\r\nTE: x\r\nE:\r\n\r\n";
        let mut storage = [httparse::EMPTY_HEADER; 8];
        let mut request = httparse::Request::new(&mut storage);
        assert!(request.parse(head).unwrap().is_complete());
        let mut survey = Survey::default();
        for (index, field) in request.headers.iter().enumerate() {
            assert!(survey.add(index, head, field).is_some());
        }
        let copied = |ask_about_all, keep: fn(bool, &httparse::Header<'_>) -> bool| {
            let mut out = Vec::new();
            survey.copy((head, 16), request.headers, ask_about_all, keep, &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(
            copied(false, |known, _| {
                assert!(known);
                false
            }),
            "GET / HTTP/1.1\r\nA: 1\r\nB: 2\r\nC: 3\r\nD: 4\r\nE: \r\n"
        );
        assert_eq!(
            copied(true, |known, field| known || field.name == "A"),
            "GET / HTTP/1.1\r\nA: 1\r\nTE: x\r\n"
        );
    }
}
