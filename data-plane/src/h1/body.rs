//! How a body is delimited, and its way from one framing into another.

use lb_core::model::HttpLimits;

use super::chunked::{ChunkError, ChunkedReader, Piece};

/// How a message says where its body ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum BodyLength {
    /// By a length, 0 for no body.
    Known(u64),
    /// By chunks.
    Chunked,
    /// By the end of the connection; responses only.
    UntilClose,
}

/// How the next hop is told where the body ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Framing {
    /// The bytes as they are: a Content-Length was sent, or the close ends it.
    Identity,
    /// In chunks.
    Chunked,
}

/// Reads a body as its sender delimited it.
#[derive(Clone, Debug)]
pub(crate) enum BodyReader {
    /// So many bytes are left.
    Known(u64),
    Chunked(ChunkedReader),
    UntilClose,
}

/// How far [`BodyReader::transfer`] came.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Transferred {
    /// Taken from the input.
    pub(crate) consumed: usize,
    /// The body is complete, its last framing bytes included.
    pub(crate) done: bool,
}

impl BodyReader {
    /// `keep_trailers` lets [`Self::transfer`] pass them on, and `padded` lets white space follow
    /// the sizes of chunks: see [`ChunkedReader::padded`].
    pub(crate) fn new(
        length: BodyLength,
        limits: &HttpLimits,
        keep_trailers: bool,
        padded: bool,
    ) -> Self {
        match length {
            BodyLength::Known(length) => Self::Known(length),
            BodyLength::Chunked => {
                Self::Chunked(ChunkedReader::new(limits, keep_trailers).padded(padded))
            }
            BodyLength::UntilClose => Self::UntilClose,
        }
    }

    /// Whether nothing more is to come.
    pub(crate) fn is_done(&self) -> bool {
        matches!(self, Self::Known(0))
    }

    /// How many bytes at the start of the input may be passed on as they are, when
    /// neither side uses chunks.
    pub(crate) fn passable(&self, input: usize) -> Option<usize> {
        match self {
            Self::Known(left) => Some(usize::try_from(*left).unwrap_or(usize::MAX).min(input)),
            Self::UntilClose => Some(input),
            Self::Chunked(_) => None,
        }
    }

    /// Notes that bytes were passed on as they are.
    pub(crate) fn passed(&mut self, bytes: usize) {
        if let Self::Known(left) = self {
            *left = left.saturating_sub(bytes as u64);
        }
    }

    /// Takes what it can from the input and writes it in the next hop's framing,
    /// the last chunk included.
    pub(crate) fn transfer(
        &mut self,
        input: &[u8],
        framing: Framing,
        out: &mut Vec<u8>,
    ) -> Result<Transferred, ChunkError> {
        let Self::Chunked(reader) = self else {
            let consumed = self.passable(input.len()).unwrap_or_default();
            write_data(&input[..consumed], framing, out);
            self.passed(consumed);
            let done = self.is_done();
            if done {
                write_end(framing, out);
            }
            return Ok(Transferred { consumed, done });
        };
        let mut consumed = 0;
        loop {
            match reader.next(&input[consumed..])? {
                Piece::Data { skip, len } => {
                    let start = consumed + skip;
                    write_data(&input[start..start + len], framing, out);
                    consumed = start + len;
                }
                Piece::More { skip } => {
                    return Ok(Transferred { consumed: consumed + skip, done: false });
                }
                Piece::End { skip } => {
                    if framing == Framing::Chunked {
                        out.extend_from_slice(b"0\r\n");
                        reader.write_trailers(out);
                        out.extend_from_slice(b"\r\n");
                    }
                    return Ok(Transferred { consumed: consumed + skip, done: true });
                }
            }
        }
    }
}

fn write_data(data: &[u8], framing: Framing, out: &mut Vec<u8>) {
    if data.is_empty() {
        return;
    }
    match framing {
        Framing::Identity => out.extend_from_slice(data),
        Framing::Chunked => {
            write_hex(data.len(), out);
            out.extend_from_slice(b"\r\n");
            out.extend_from_slice(data);
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// Writes what ends a body in this framing.
pub(crate) fn write_end(framing: Framing, out: &mut Vec<u8>) {
    if framing == Framing::Chunked {
        out.extend_from_slice(b"0\r\n\r\n");
    }
}

fn write_hex(number: usize, out: &mut Vec<u8>) {
    let digits = (usize::BITS - number.leading_zeros()).div_ceil(4).max(1);
    for digit in (0..digits).rev() {
        out.push(b"0123456789abcdef"[number >> (4 * digit) & 15]);
    }
}

/// Writes a number in decimal digits.
#[inline]
pub(crate) fn write_decimal(number: u64, out: &mut Vec<u8>) {
    match u8::try_from(number) {
        Ok(digit) if digit < 10 => out.push(b'0' + digit),
        _ => write_digits(number, out),
    }
}

fn write_digits(mut number: u64, out: &mut Vec<u8>) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reader(length: BodyLength) -> BodyReader {
        BodyReader::new(length, &HttpLimits::default(), true, false)
    }

    #[test]
    fn trailers_follow_the_last_chunk() {
        let mut out = Vec::new();
        let input = b"1\r\na\r\n0\r\nX: y\r\nHost: evil\r\n\r\nnext";
        let read = reader(BodyLength::Chunked).transfer(input, Framing::Chunked, &mut out);
        assert_eq!(read, Ok(Transferred { consumed: input.len() - 4, done: true }));
        assert_eq!(out, b"1\r\na\r\n0\r\nX: y\r\n\r\n");
    }

    proptest! {
        #[test]
        fn a_body_is_the_same_in_either_framing(
            data in prop::collection::vec(any::<u8>(), 0..200),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut chunked = Vec::new();
            let mut body = reader(BodyLength::Known(data.len() as u64));
            if body.is_done() {
                write_end(Framing::Chunked, &mut chunked);
            } else {
                let cut = cut.index(data.len());
                let first = body.transfer(&data[..cut], Framing::Chunked, &mut chunked).unwrap();
                prop_assert_eq!(first, Transferred { consumed: cut, done: false });
                let rest = body.transfer(&data[cut..], Framing::Chunked, &mut chunked).unwrap();
                prop_assert!(rest.done);
            }
            let mut plain = Vec::new();
            let read = reader(BodyLength::Chunked)
                .transfer(&chunked, Framing::Identity, &mut plain)
                .unwrap();
            prop_assert_eq!(read, Transferred { consumed: chunked.len(), done: true });
            prop_assert_eq!(plain, data);
        }

        #[test]
        fn numbers_are_written_as_people_do(number in any::<u64>()) {
            let mut out = Vec::new();
            write_decimal(number, &mut out);
            prop_assert_eq!(out, number.to_string().into_bytes());
            let mut out = Vec::new();
            write_hex(usize::try_from(number).unwrap(), &mut out);
            prop_assert_eq!(out, format!("{number:x}").into_bytes());
        }
    }
}
