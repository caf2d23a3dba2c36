//! Finds the end of a head as its bytes come in.
//!
//! Each byte is looked at once, however small the pieces: parsing starts only when
//! the head is complete. On the way every line end is checked to be CRLF: a bare LF,
//! which lenient parsers take for a line end and strict ones do not, is where
//! request smuggling begins (RFC 9112, 2.2).

use super::{HEAD_BYTES_MAX, REQUEST_LINE_BYTES_MAX};

/// How far a head was scanned.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct HeadScan {
    scanned: usize,
    line_start: usize,
    lines: usize,
}

/// Why bytes cannot become a head.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum ScanError {
    /// A line ends with LF alone.
    BareLf,
    /// The first line is longer than 8 KiB.
    LineTooLong,
    /// The head is longer than 64 KiB.
    HeadTooLong,
}

impl HeadScan {
    /// Looks at what is new in `bytes`, which must begin with the head and only
    /// grow from call to call. Answers the length of the head once it is complete.
    pub(crate) fn advance(&mut self, bytes: &[u8]) -> Result<Option<usize>, ScanError> {
        for offset in memchr::memchr_iter(b'\n', &bytes[self.scanned..]) {
            let lf = self.scanned + offset;
            if lf == 0 || bytes[lf - 1] != b'\r' || lf == self.line_start {
                return Err(ScanError::BareLf);
            }
            if self.lines == 0 && lf > REQUEST_LINE_BYTES_MAX {
                return Err(ScanError::LineTooLong);
            }
            if lf - 1 == self.line_start && self.lines > 0 {
                return if lf < HEAD_BYTES_MAX {
                    Ok(Some(lf + 1))
                } else {
                    Err(ScanError::HeadTooLong)
                };
            }
            self.line_start = lf + 1;
            self.lines += 1;
        }
        self.scanned = bytes.len();
        if self.lines == 0 && bytes.len() > REQUEST_LINE_BYTES_MAX {
            return Err(ScanError::LineTooLong);
        }
        if bytes.len() >= HEAD_BYTES_MAX {
            return Err(ScanError::HeadTooLong);
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_head_ends_with_its_first_empty_line() {
        let bytes = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nrest\r\n\r\n";
        assert_eq!(HeadScan::default().advance(bytes), Ok(Some(27)));
    }

    #[test]
    fn a_bare_lf_is_refused_at_once() {
        for bytes in ["GET / HTTP/1.1\n", "GET / HTTP/1.1\r\nHost: a\n", "\n", "A\r\n\n"] {
            assert_eq!(HeadScan::default().advance(bytes.as_bytes()), Err(ScanError::BareLf));
        }
    }

    #[test]
    fn endless_lines_and_heads_are_refused() {
        let line = vec![b'a'; REQUEST_LINE_BYTES_MAX + 1];
        assert_eq!(HeadScan::default().advance(&line), Err(ScanError::LineTooLong));
        let mut head = b"GET / HTTP/1.1\r\n".to_vec();
        head.resize(HEAD_BYTES_MAX, b'a');
        assert_eq!(HeadScan::default().advance(&head), Err(ScanError::HeadTooLong));
    }

    proptest! {
        #[test]
        fn the_pieces_do_not_matter(
            text in "[ab\r\n]{0,40}",
            cuts in prop::collection::vec(0usize..40, 0..8),
        ) {
            let bytes = text.as_bytes();
            let whole = HeadScan::default().advance(bytes);
            let mut scan = HeadScan::default();
            let mut cuts = cuts;
            cuts.sort_unstable();
            cuts.push(bytes.len());
            let mut found = Ok(None);
            for cut in cuts {
                found = scan.advance(&bytes[..cut.min(bytes.len())]);
                if found != Ok(None) {
                    break;
                }
            }
            prop_assert_eq!(found, whole);
        }
    }
}
