//! Reads a chunked body (RFC 9112, 7.1), strictly and from any pieces.
//!
//! Sizes are hexadecimal digits and nothing else, every line ends with CRLF, and
//! chunk extensions and trailers are bounded. Extensions are dropped, as is an
//! intermediary's right; so are trailers, which HTTP/1.1 allows one that merges
//! nothing into the head.

use super::fields::is_token_byte;

/// The most bytes of one chunk's extensions.
const EXTENSION_BYTES_MAX: usize = 256;
/// The most bytes of all trailers together.
const TRAILER_BYTES_MAX: usize = 8 * 1024;

/// Where in the body the reader stands.
#[derive(Clone, Debug)]
pub(crate) struct ChunkedReader {
    state: State,
    /// Of the chunk at hand.
    remaining: u64,
    /// Bytes of the extension or of the trailers.
    spent: usize,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    SizeStart,
    Size,
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

/// The body is not chunked as it should be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct ChunkError;

impl ChunkedReader {
    pub(crate) fn new() -> Self {
        Self { state: State::SizeStart, remaining: 0, spent: 0 }
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
                self.remaining = u64::from(hex(byte).ok_or(ChunkError)?);
                State::Size
            }
            (State::Size, b'\r') => State::SizeLf,
            (State::Size, b';') => {
                self.spent = 0;
                State::Extension
            }
            (State::Size, _) => {
                let digit = u64::from(hex(byte).ok_or(ChunkError)?);
                // Four bits must be free: a size that overflows is never a guess.
                if self.remaining >> 60 != 0 {
                    return Err(ChunkError);
                }
                self.remaining = self.remaining << 4 | digit;
                State::Size
            }
            (State::Extension, b'\r') => State::SizeLf,
            (State::Extension, _) => {
                self.spend(byte, EXTENSION_BYTES_MAX)?;
                State::Extension
            }
            (State::SizeLf, b'\n') if self.remaining == 0 => {
                self.spent = 0;
                State::TrailerStart
            }
            (State::SizeLf, b'\n') => State::Data,
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::SizeStart,
            (State::TrailerStart, b'\r') => State::EndLf,
            (State::Trailer, b'\r') => State::TrailerLf,
            (State::TrailerName, b':') => State::Trailer,
            (State::TrailerStart | State::TrailerName, _) if is_token_byte(byte) => {
                self.spend(byte, TRAILER_BYTES_MAX)?;
                State::TrailerName
            }
            (State::Trailer, _) => {
                self.spend(byte, TRAILER_BYTES_MAX)?;
                State::Trailer
            }
            (State::TrailerLf, b'\n') => State::TrailerStart,
            (State::EndLf, b'\n') => State::Done,
            _ => return Err(ChunkError),
        };
        Ok(())
    }

    /// A visible character, a space, a tab or obs-text, within a bound.
    fn spend(&mut self, byte: u8, max: usize) -> Result<(), ChunkError> {
        self.spent += 1;
        let allowed = byte == b'\t' || (byte >= b' ' && byte != 0x7f);
        if allowed && self.spent <= max { Ok(()) } else { Err(ChunkError) }
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
        let mut reader = ChunkedReader::new();
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
            assert_eq!(read(bad.as_bytes(), &[]), Err(ChunkError), "{bad:?}");
        }
    }

    #[test]
    fn extensions_and_trailers_are_bounded() {
        let extension = format!("1;{}\r\n", "a".repeat(EXTENSION_BYTES_MAX + 1));
        assert_eq!(read(extension.as_bytes(), &[]), Err(ChunkError));
        let trailers = format!("0\r\n{}", "X: y\r\n".repeat(TRAILER_BYTES_MAX));
        assert_eq!(read(trailers.as_bytes(), &[]), Err(ChunkError));
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
