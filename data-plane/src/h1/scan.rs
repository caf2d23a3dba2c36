//! Finds the end of a head as its bytes come in.
//!
//! Each byte is looked at once, however small the pieces: parsing starts only when
//! the head is complete. On the way every line end is checked to be CRLF: a bare LF,
//! which lenient parsers take for a line end and strict ones do not, is where
//! request smuggling begins (RFC 9112, 2.2).

use lb_core::model::HttpLimits;

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
    /// The first line is longer than allowed.
    LineTooLong,
    /// The head is longer than allowed.
    HeadTooLong,
}

impl HeadScan {
    /// Looks at what is new in `bytes`, which must begin with the head and only
    /// grow from call to call. Answers the length of the head once it is complete.
    pub(crate) fn advance(
        &mut self,
        bytes: &[u8],
        limits: &HttpLimits,
    ) -> Result<Option<usize>, ScanError> {
        let (line_max, head_max) = maxima(limits);
        for offset in memchr::memchr_iter(b'\n', &bytes[self.scanned..]) {
            let lf = self.scanned + offset;
            if lf == 0 || bytes[lf - 1] != b'\r' || lf == self.line_start {
                return Err(ScanError::BareLf);
            }
            if self.lines == 0 && lf - 1 > line_max {
                return Err(ScanError::LineTooLong);
            }
            if lf - 1 == self.line_start && self.lines > 0 {
                return if lf < head_max { Ok(Some(lf + 1)) } else { Err(ScanError::HeadTooLong) };
            }
            self.line_start = lf + 1;
            self.lines += 1;
        }
        self.scanned = bytes.len();
        if self.lines == 0 && bytes.len() > line_max + 1 {
            return Err(ScanError::LineTooLong);
        }
        if bytes.len() >= head_max {
            return Err(ScanError::HeadTooLong);
        }
        Ok(None)
    }
}

/// Checks a head that was parsed in one go against the same bounds.
pub(crate) fn check_lengths(
    line: usize,
    head: usize,
    limits: &HttpLimits,
) -> Result<(), ScanError> {
    let (line_max, head_max) = maxima(limits);
    if line > line_max {
        Err(ScanError::LineTooLong)
    } else if head > head_max {
        Err(ScanError::HeadTooLong)
    } else {
        Ok(())
    }
}

/// The most bytes of a first line, its CRLF not counted, and of a head.
fn maxima(limits: &HttpLimits) -> (usize, usize) {
    (limits.request_line_bytes_max as usize, limits.head_bytes_max as usize)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn advance(scan: &mut HeadScan, bytes: &[u8]) -> Result<Option<usize>, ScanError> {
        scan.advance(bytes, &HttpLimits::default())
    }

    #[test]
    fn a_head_ends_with_its_first_empty_line() {
        let bytes = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nrest\r\n\r\n";
        assert_eq!(advance(&mut HeadScan::default(), bytes), Ok(Some(27)));
    }

    #[test]
    fn a_bare_lf_is_refused_at_once() {
        for bytes in ["GET / HTTP/1.1\n", "GET / HTTP/1.1\r\nHost: a\n", "\n", "A\r\n\n"] {
            assert_eq!(advance(&mut HeadScan::default(), bytes.as_bytes()), Err(ScanError::BareLf));
        }
    }

    #[test]
    fn lines_and_heads_are_refused_beyond_their_bounds_and_not_before() {
        let limits = HttpLimits { head_bytes_max: 9000, ..HttpLimits::default() };
        let scan = |text: &str| HeadScan::default().advance(text.as_bytes(), &limits);
        let line = "a".repeat(8192);
        assert_eq!(scan(&format!("{line}\r\n")), Ok(None));
        assert_eq!(scan(&format!("{line}\r")), Ok(None));
        assert_eq!(scan(&format!("{line}a\r\n")), Err(ScanError::LineTooLong));
        assert_eq!(scan(&format!("{line}aa")), Err(ScanError::LineTooLong));
        let head = |length: usize| format!("GET\r\n{}\r\n\r\n", "a".repeat(length - 9));
        assert_eq!(scan(&head(9000)), Ok(Some(9000)));
        assert_eq!(scan(&head(9001)), Err(ScanError::HeadTooLong));
        assert_eq!(scan(&head(9001)[..8999]), Ok(None));
        assert_eq!(check_lengths(8192, 9000, &limits), Ok(()));
        assert_eq!(check_lengths(8193, 9000, &limits), Err(ScanError::LineTooLong));
        assert_eq!(check_lengths(8192, 9001, &limits), Err(ScanError::HeadTooLong));
    }

    proptest! {
        #[test]
        fn the_pieces_do_not_matter(
            text in "[ab\r\n]{0,40}",
            cuts in prop::collection::vec(0usize..40, 0..8),
        ) {
            let bytes = text.as_bytes();
            let whole = advance(&mut HeadScan::default(), bytes);
            let mut scan = HeadScan::default();
            let mut cuts = cuts;
            cuts.sort_unstable();
            cuts.push(bytes.len());
            let mut found = Ok(None);
            for cut in cuts {
                found = advance(&mut scan, &bytes[..cut.min(bytes.len())]);
                if found != Ok(None) {
                    break;
                }
            }
            prop_assert_eq!(found, whole);
        }
    }
}
