//! Reads a chunked body (RFC 9112, 7.1), strictly and from any pieces.
//!
//! Sizes are hexadecimal digits and nothing else (a backend's may be padded with white space),
//! every line ends with CRLF, and
//! chunk extensions and trailers are bounded. Extensions are dropped, as is an
//! intermediary's right; trailers are kept for whoever wants to pass them on.

use lb_core::model::HttpLimits;

use super::{
    copy::write_field,
    fields::{is_token_byte, may_be_trailer},
};

/// Where in the body the reader stands.
#[derive(Clone, Debug)]
pub(crate) struct ChunkedReader {
    state: State,
    /// Of the chunk at hand.
    remaining: u64,
    /// Bytes of the chunk's size and extensions, or of the trailers.
    spent: u32,
    extension_bytes_max: u32,
    trailer_bytes_max: u32,
    /// Data that may still come.
    allowance: u64,
    /// The trailers as they came, if somebody wants them.
    trailers: Option<Vec<u8>>,
    /// White space may follow a size.
    padded: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    SizeStart,
    Size,
    /// White space behind a size, which only an extension may follow (RFC 9112, 7.1.1), unless
    /// sizes are padded.
    SizeSpace,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    TrailerName,
    Trailer,
    TrailerLf,
    EndLf,
    Done,
}

/// What the input holds next.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Piece {
    /// This many bytes of data, after `skip` bytes of framing.
    Data {
        /// Framing before the data.
        skip: usize,
        /// Data.
        len: usize,
    },
    /// Framing only; more input is needed.
    More {
        /// How much of the input was read.
        skip: usize,
    },
    /// The body ended.
    End {
        /// How much of the input belonged to it.
        skip: usize,
    },
}

/// Why a body is not read any further.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum ChunkError {
    /// It is not chunked as it should be.
    Malformed,
    /// Its trailers are longer than allowed.
    TrailersTooLarge,
    /// There is more data than allowed.
    BodyTooLarge,
}

impl ChunkedReader {
    /// Reads a body within these bounds.
    pub(crate) fn new(limits: &HttpLimits, keep_trailers: bool) -> Self {
        Self {
            state: State::SizeStart,
            remaining: 0,
            spent: 0,
            extension_bytes_max: limits.chunk_extension_bytes_max,
            trailer_bytes_max: limits.trailer_bytes_max,
            allowance: if limits.body_bytes_max == 0 { u64::MAX } else { limits.body_bytes_max },
            trailers: keep_trailers.then(Vec::new),
            padded: false,
        }
    }

    /// Lets white space follow a size, as some servers write it (Apache 1.3 and 2.0, embedded
    /// ones): all of their clients read on. In requests it stays a doubt.
    pub(crate) fn padded(self, padded: bool) -> Self {
        Self { padded, ..self }
    }

    /// Writes those of the trailers that may be passed on.
    pub(crate) fn write_trailers(&self, out: &mut Vec<u8>) {
        let Some(trailers) = &self.trailers else { return };
        for line in trailers.split(|&byte| byte == b'\n') {
            let Some(colon) = line.iter().position(|&byte| byte == b':') else { continue };
            let (name, value) = (&line[..colon], &line[colon + 1..]);
            if may_be_trailer(name) {
                write_field(name, value.trim_ascii(), out);
            }
        }
    }

    /// Looks at the input up to the next data. The caller takes the framing and the
    /// data out before it calls again.
    pub(crate) fn next(&mut self, input: &[u8]) -> Result<Piece, ChunkError> {
        let mut at = 0;
        loop {
            if self.state == State::Done {
                return Ok(Piece::End { skip: at });
            }
            if self.state == State::Data {
                let available = input.len() - at;
                if available == 0 {
                    return Ok(Piece::More { skip: at });
                }
                let len = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(available);
                self.remaining -= len as u64;
                if self.remaining == 0 {
                    self.state = State::DataCr;
                }
                return Ok(Piece::Data { skip: at, len });
            }
            let Some(&byte) = input.get(at) else { return Ok(Piece::More { skip: at }) };
            self.step(byte)?;
            at += 1;
        }
    }

    /// Takes one byte of framing.
    fn step(&mut self, byte: u8) -> Result<(), ChunkError> {
        self.state = match (self.state, byte) {
            (State::SizeStart, _) => {
                self.remaining = u64::from(hex(byte).ok_or(ChunkError::Malformed)?);
                self.spent = 0;
                State::Size
            }
            (State::Size, b'\r') => State::SizeLf,
            (State::SizeSpace, b'\r') if self.padded => State::SizeLf,
            (State::Size | State::SizeSpace, b';') => {
                self.spent = 0;
                State::Extension
            }
            (State::Size | State::SizeSpace, b' ' | b'\t') => {
                self.spend(byte, self.extension_bytes_max, ChunkError::Malformed)?;
                State::SizeSpace
            }
            (State::Size, _) => {
                let digit = u64::from(hex(byte).ok_or(ChunkError::Malformed)?);
                // Four bits must be free: a size that overflows is never a guess.
                if self.remaining >> 60 != 0 {
                    return Err(ChunkError::Malformed);
                }
                self.remaining = self.remaining << 4 | digit;
                // Zeros in front could go on for ever.
                self.spend(byte, self.extension_bytes_max, ChunkError::Malformed)?;
                State::Size
            }
            (State::Extension, b'\r') => State::SizeLf,
            (State::Extension, _) => {
                self.spend(byte, self.extension_bytes_max, ChunkError::Malformed)?;
                State::Extension
            }
            (State::SizeLf, b'\n') if self.remaining == 0 => {
                self.spent = 0;
                State::TrailerStart
            }
            (State::SizeLf, b'\n') => {
                // Without a bound there is nothing to count.
                if self.allowance < u64::MAX {
                    self.allowance = self
                        .allowance
                        .checked_sub(self.remaining)
                        .ok_or(ChunkError::BodyTooLarge)?;
                }
                State::Data
            }
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::SizeStart,
            (State::TrailerStart, b'\r') => State::EndLf,
            (State::Trailer, b'\r') => {
                self.spent += 2;
                State::TrailerLf
            }
            (State::TrailerName, b':') => {
                self.trailer(byte)?;
                State::Trailer
            }
            (State::TrailerStart | State::TrailerName, _) if is_token_byte(byte) => {
                self.trailer(byte)?;
                State::TrailerName
            }
            (State::Trailer, _) => {
                self.trailer(byte)?;
                State::Trailer
            }
            (State::TrailerLf, b'\n') => {
                self.trailers.iter_mut().for_each(|kept| kept.push(byte));
                State::TrailerStart
            }
            (State::EndLf, b'\n') => State::Done,
            _ => return Err(ChunkError::Malformed),
        };
        Ok(())
    }

    fn trailer(&mut self, byte: u8) -> Result<(), ChunkError> {
        self.spend(byte, self.trailer_bytes_max, ChunkError::TrailersTooLarge)?;
        self.trailers.iter_mut().for_each(|kept| kept.push(byte));
        Ok(())
    }

    /// A visible character, a space, a tab or obs-text, within a bound.
    fn spend(&mut self, byte: u8, max: u32, excess: ChunkError) -> Result<(), ChunkError> {
        if byte != b'\t' && (byte < b' ' || byte == 0x7f) {
            return Err(ChunkError::Malformed);
        }
        self.spent += 1;
        if self.spent <= max { Ok(()) } else { Err(excess) }
    }
}

fn hex(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads a whole body from pieces; the data, and how many bytes were its own.
    fn read(body: &[u8], cuts: &[usize]) -> Result<Option<(Vec<u8>, usize)>, ChunkError> {
        let mut reader = ChunkedReader::new(&HttpLimits::default(), false);
        let (mut data, mut from) = (Vec::new(), 0);
        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % (body.len() + 1)).collect();
        ends.sort_unstable();
        ends.push(body.len());
        for end in ends {
            loop {
                match reader.next(&body[from..end])? {
                    Piece::Data { skip, len } => {
                        data.extend_from_slice(&body[from + skip..from + skip + len]);
                        from += skip + len;
                    }
                    Piece::More { skip } => {
                        from += skip;
                        break;
                    }
                    Piece::End { skip } => return Ok(Some((data, from + skip))),
                }
            }
        }
        Ok(None)
    }

    #[test]
    fn a_body_ends_where_it_says() {
        let body = b"4\r\nWiki\r\n5;a=b\r\npedia\r\n0\r\nX: y\r\n\r\nGET /";
        assert_eq!(read(body, &[]), Ok(Some((b"Wikipedia".to_vec(), body.len() - 5))));
    }

    #[test]
    fn doubtful_framing_is_refused() {
        for bad in [
            "x\r\n",
            "\r\n",
            "-1\r\n",
            "0x1\r\n",
            " 1\r\n",
            "1 \r\na",
            "1 a\r\n",
            "1\n",
            "1\r\nab",
            "1\r\na\n",
            "1\r\na\r0",
            "0\r\n\n",
            "0\r\nX: y\n\r\n",
            "1;a\0\r\n",
            "1\r\r\n",
            "0\r\nno colon\r\n\r\n",
            "0\r\n: y\r\n\r\n",
            "0\r\n folded\r\n\r\n",
            "11111111111111111\r\n",
            "FFFFFFFFFFFFFFFFF\r\n",
        ] {
            assert_eq!(read(bad.as_bytes(), &[]), Err(ChunkError::Malformed), "{bad:?}");
        }
    }

    #[test]
    fn sizes_are_padded_where_that_is_allowed() {
        let body = b"2  \r\nok\r\n0 \t\r\n\r\n";
        let mut reader = ChunkedReader::new(&HttpLimits::default(), false).padded(true);
        assert_eq!(reader.next(body), Ok(Piece::Data { skip: 5, len: 2 }));
        assert_eq!(reader.next(&body[7..]), Ok(Piece::End { skip: body.len() - 7 }));
        for bad in ["2 2\r\n", " 2\r\n", "2 \n", "2 \r\r\n"] {
            let mut reader = ChunkedReader::new(&HttpLimits::default(), false).padded(true);
            assert_eq!(reader.next(bad.as_bytes()), Err(ChunkError::Malformed), "{bad:?}");
        }
        let mut reader = ChunkedReader::new(&HttpLimits::default(), false).padded(true);
        let long = format!("2{}", " ".repeat(257));
        assert_eq!(reader.next(long.as_bytes()), Err(ChunkError::Malformed));
    }

    #[test]
    fn extensions_and_trailers_are_bounded() {
        let extension = |length| format!("1;{}\r\n", "a".repeat(length));
        assert_eq!(read(extension(256).as_bytes(), &[]), Ok(None));
        assert_eq!(read(extension(257).as_bytes(), &[]), Err(ChunkError::Malformed));
        let trailers = format!("0\r\n{}", "X: y\r\n".repeat(8192));
        assert_eq!(read(trailers.as_bytes(), &[]), Err(ChunkError::TrailersTooLarge));
    }

    #[test]
    fn data_is_bounded_before_it_is_read() {
        let limits = HttpLimits { body_bytes_max: 5, ..HttpLimits::default() };
        let mut reader = ChunkedReader::new(&limits, false);
        assert_eq!(reader.next(b"3\r\nabc"), Ok(Piece::Data { skip: 3, len: 3 }));
        assert_eq!(reader.next(b"\r\n3\r\n"), Err(ChunkError::BodyTooLarge));
    }

    #[test]
    fn trailers_are_kept_for_who_wants_them() {
        let body = b"0\r\nDigest: a\r\nContent-Length: 5\r\nX-B:  b \r\n\r\n";
        for (keep, expected) in [(true, &b"Digest: a\r\nX-B: b\r\n"[..]), (false, b"")] {
            let mut reader = ChunkedReader::new(&HttpLimits::default(), keep);
            assert_eq!(reader.next(body), Ok(Piece::End { skip: body.len() }));
            let mut out = Vec::new();
            reader.write_trailers(&mut out);
            assert_eq!(out, expected);
        }
    }

    proptest! {
        #[test]
        fn what_was_sent_in_chunks_is_read_from_any_pieces(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..20), 0..6),
            cuts in prop::collection::vec(any::<usize>(), 0..10),
        ) {
            let mut body = Vec::new();
            for chunk in &chunks {
                body.extend_from_slice(format!("{:X}\r\n", chunk.len()).as_bytes());
                body.extend_from_slice(chunk);
                body.extend_from_slice(b"\r\n");
            }
            body.extend_from_slice(b"0\r\n\r\n");
            prop_assert_eq!(read(&body, &cuts), Ok(Some((chunks.concat(), body.len()))));
        }

        #[test]
        fn garbage_never_panics(body in prop::collection::vec(any::<u8>(), 0..64)) {
            drop(read(&body, &[]));
        }
    }
}
