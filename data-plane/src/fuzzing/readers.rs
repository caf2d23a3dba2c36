//! Servers as they read requests: one strictly, the others each with a leniency that some
//! server has had. What a proxy forwards must be the same to all of them.

use super::message::{is_token, number, trim};

/// How a server reads requests.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader {
    pub(super) name: &'static str,
    /// LF alone ends a line.
    lf: bool,
    /// CR alone ends a line.
    cr: bool,
    both: Both,
    lengths: Lengths,
    codings: Codings,
    /// Blanks before the colon are dropped.
    colon_blank: bool,
    fold: Fold,
    controls: Controls,
    sizes: Sizes,
    /// LF alone ends the line of a chunk's size, so an extension may hold no LF.
    size_lf: bool,
    /// The end of the connection, too, completes a last chunk.
    no_final_line: bool,
    /// `_` in a name is `-`.
    underscores: bool,
    /// An absolute target is cut down to its path.
    absolute: bool,
    /// Any run of blanks, also of those beyond ASCII, separates words and is trimmed.
    wide_blanks: bool,
    /// A line that is no field is skipped.
    skips_bad_fields: bool,
}

/// With both Transfer-Encoding and Content-Length.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Both {
    Refuse,
    Coding,
    Length,
}

/// With several lengths.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Lengths {
    /// They must be one number, digits only.
    Same,
    First,
    Last,
    /// The first of a list, with a sign or whatever follows the digits.
    Loose,
}

/// With codings other than `chunked`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Codings {
    Refuse,
    /// They are no concern of this server's.
    Ignore,
    /// Whatever contains `chunked` is chunked; the rest is ignored.
    Contains,
    /// The last of the list decides; the rest is ignored.
    Last,
}

/// With a line that begins with a blank.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Fold {
    Refuse,
    Join,
    /// It is a field as any other.
    OwnField,
}

/// With control characters in a line.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Controls {
    Refuse,
    Drop,
    /// NUL ends the line, as in C.
    Truncate,
}

/// With sizes of chunks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Sizes {
    Strict,
    /// As `strtol` reads them: blanks, a sign, `0x`, and whatever follows the digits.
    Loose,
    /// Modulo so many bits.
    Wrap(u32),
}

const STRICT: Reader = Reader {
    name: "strict",
    lf: false,
    cr: false,
    both: Both::Refuse,
    lengths: Lengths::Same,
    codings: Codings::Refuse,
    colon_blank: false,
    fold: Fold::Refuse,
    controls: Controls::Refuse,
    sizes: Sizes::Strict,
    size_lf: false,
    no_final_line: false,
    underscores: false,
    absolute: false,
    wide_blanks: false,
    skips_bad_fields: false,
};

/// The strict one first.
pub(super) const READERS: [Reader; 27] = [
    STRICT,
    Reader { name: "LF ends lines", lf: true, ..STRICT },
    Reader { name: "CR ends lines", cr: true, ..STRICT },
    Reader { name: "LF or CR ends lines", lf: true, cr: true, ..STRICT },
    Reader { name: "coding over length", both: Both::Coding, ..STRICT },
    Reader { name: "length over coding", both: Both::Length, ..STRICT },
    Reader { name: "first length", lengths: Lengths::First, ..STRICT },
    Reader { name: "last length", lengths: Lengths::Last, ..STRICT },
    Reader { name: "length as strtol", lengths: Lengths::Loose, ..STRICT },
    Reader { name: "blank before the colon", colon_blank: true, ..STRICT },
    Reader { name: "folded lines are joined", fold: Fold::Join, ..STRICT },
    Reader { name: "folded lines are fields", fold: Fold::OwnField, ..STRICT },
    Reader { name: "controls are dropped", controls: Controls::Drop, ..STRICT },
    Reader { name: "NUL ends a line", controls: Controls::Truncate, ..STRICT },
    Reader { name: "sizes as strtol", sizes: Sizes::Loose, ..STRICT },
    Reader { name: "sizes of 32 bits", sizes: Sizes::Wrap(32), ..STRICT },
    Reader { name: "sizes of 64 bits", sizes: Sizes::Wrap(64), ..STRICT },
    Reader { name: "LF ends sizes", size_lf: true, ..STRICT },
    Reader { name: "other codings are ignored", codings: Codings::Ignore, ..STRICT },
    Reader { name: "codings contain chunked", codings: Codings::Contains, ..STRICT },
    Reader { name: "the last coding", codings: Codings::Last, ..STRICT },
    Reader { name: "the end may be missing", no_final_line: true, ..STRICT },
    Reader { name: "absolute targets", absolute: true, ..STRICT },
    Reader { name: "_ is -", underscores: true, ..STRICT },
    Reader { name: "blanks beyond ASCII", wide_blanks: true, ..STRICT },
    Reader { name: "bad fields are skipped", skips_bad_fields: true, ..STRICT },
    Reader {
        name: "everything",
        lf: true,
        cr: true,
        both: Both::Coding,
        lengths: Lengths::Loose,
        codings: Codings::Contains,
        colon_blank: true,
        fold: Fold::Join,
        controls: Controls::Drop,
        sizes: Sizes::Loose,
        size_lf: true,
        no_final_line: true,
        absolute: true,
        wide_blanks: false,
        skips_bad_fields: true,
        underscores: false,
    },
];

/// A request as a server sees it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Seen {
    pub(super) method: Vec<u8>,
    pub(super) target: Vec<u8>,
    pub(super) body: Vec<u8>,
}

/// How a connection looks at its end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum StreamEnd {
    /// Between two requests.
    Clean,
    /// In the middle of one.
    Partial,
    /// The server refused one.
    Refused,
}

/// Why there is no further request.
type Step<T> = Result<T, StreamEnd>;

impl Reader {
    /// All requests of a connection.
    pub(super) fn read(&self, stream: &[u8]) -> (Vec<Seen>, StreamEnd) {
        let (mut all, mut rest) = (Vec::new(), stream);
        loop {
            match self.request(&mut rest) {
                Ok(seen) => all.push(seen),
                Err(end) => return (all, end),
            }
        }
    }

    fn request(&self, rest: &mut &[u8]) -> Step<Seen> {
        let first = loop {
            if rest.is_empty() {
                return Err(StreamEnd::Clean);
            }
            let line = self.text(self.line(rest)?)?;
            if !line.is_empty() {
                break line;
            }
        };
        let (method, target) = self.request_line(&first)?;
        let fields = self.fields(rest)?;
        let body = match self.framing(&fields)? {
            Some(length) => plain_body(rest, length)?,
            None => self.chunked_body(rest)?,
        };
        Ok(Seen { method, target, body })
    }

    /// The next line without its end.
    fn line<'b>(&self, rest: &mut &'b [u8]) -> Step<&'b [u8]> {
        let input = *rest;
        for (at, &byte) in input.iter().enumerate() {
            let pair = byte == b'\r' && input.get(at + 1) == Some(&b'\n');
            if pair || byte == b'\n' && self.lf || byte == b'\r' && self.cr {
                *rest = &input[at + if pair { 2 } else { 1 }..];
                return Ok(&input[..at]);
            }
        }
        Err(StreamEnd::Partial)
    }

    /// A line without its control characters, if they are allowed.
    fn text(&self, line: &[u8]) -> Step<Vec<u8>> {
        let is_control = |byte: &u8| byte.is_ascii_control() && *byte != b'\t';
        match self.controls {
            Controls::Refuse if line.iter().any(is_control) => Err(StreamEnd::Refused),
            Controls::Refuse => Ok(line.to_vec()),
            Controls::Drop => Ok(line.iter().copied().filter(|byte| !is_control(byte)).collect()),
            Controls::Truncate => Ok(line.iter().copied().take_while(|&byte| byte != 0).collect()),
        }
    }

    fn is_blank(&self, byte: u8) -> bool {
        matches!(byte, b' ' | b'\t')
            || self.wide_blanks && matches!(byte, 0x0b | 0x0c | 0x85 | 0xa0)
    }

    fn trim<'b>(&self, mut bytes: &'b [u8]) -> &'b [u8] {
        while let [first, rest @ ..] = bytes
            && self.is_blank(*first)
        {
            bytes = rest;
        }
        while let [rest @ .., last] = bytes
            && self.is_blank(*last)
        {
            bytes = rest;
        }
        bytes
    }

    fn request_line(&self, line: &[u8]) -> Step<(Vec<u8>, Vec<u8>)> {
        let words: Vec<&[u8]> = if self.wide_blanks {
            line.split(|&byte| self.is_blank(byte)).filter(|word| !word.is_empty()).collect()
        } else {
            line.split(|&byte| byte == b' ').collect()
        };
        // What stands behind the target is of no interest to a server that splits.
        let [method, target, ..] = words[..] else { return Err(StreamEnd::Refused) };
        let is_well_formed = words.len() == 3 && words[2].starts_with(b"HTTP/1.");
        if !is_token(method) || target.is_empty() || !self.wide_blanks && !is_well_formed {
            return Err(StreamEnd::Refused);
        }
        let mut target = target;
        if self.absolute
            && let Some(scheme) = target.windows(3).position(|bytes| bytes == b"://")
            && target[..scheme].iter().all(u8::is_ascii_alphabetic)
        {
            let rest = &target[scheme + 3..];
            let path = rest.iter().position(|&byte| byte == b'/');
            target = path.map_or(b"/", |path| &rest[path..]);
        }
        Ok((method.to_vec(), target.to_vec()))
    }

    /// Names, in lower case, and values.
    fn fields(&self, rest: &mut &[u8]) -> Step<Vec<(Vec<u8>, Vec<u8>)>> {
        let mut fields: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        loop {
            let line = self.text(self.line(rest)?)?;
            if line.is_empty() {
                return Ok(fields);
            }
            if line[0] == b' ' || line[0] == b'\t' {
                match (self.fold, fields.last_mut()) {
                    (Fold::Refuse, _) | (Fold::Join, None) => return Err(StreamEnd::Refused),
                    (Fold::Join, Some((_, value))) => {
                        if !value.is_empty() {
                            value.push(b' ');
                        }
                        value.extend_from_slice(trim(&line));
                        continue;
                    }
                    (Fold::OwnField, _) => {}
                }
            }
            match self.field(trim(&line)) {
                Some(field) => fields.push(field),
                None if self.skips_bad_fields => {}
                None => return Err(StreamEnd::Refused),
            }
        }
    }

    fn field(&self, line: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
        let colon = line.iter().position(|&byte| byte == b':')?;
        let mut name = line[..colon].to_ascii_lowercase();
        if self.colon_blank {
            name = self.trim(&name).to_vec();
        }
        if self.underscores {
            name.iter_mut().filter(|byte| **byte == b'_').for_each(|byte| *byte = b'-');
        }
        is_token(&name).then(|| (name, self.trim(&line[colon + 1..]).to_vec()))
    }

    /// The length of the body, `None` for chunks.
    fn framing(&self, fields: &[(Vec<u8>, Vec<u8>)]) -> Step<Option<u64>> {
        let all = |name: &[u8]| -> Vec<&[u8]> {
            let named = fields.iter().filter(|field| field.0 == name);
            named.map(|field| field.1.as_slice()).collect()
        };
        let chunked = self.is_chunked(&all(b"transfer-encoding").join(&b","[..]))?;
        let length = self.length(&all(b"content-length"))?;
        match (chunked, length, self.both) {
            (false, length, _) => Ok(Some(length.unwrap_or_default())),
            (true, None, _) | (true, Some(_), Both::Coding) => Ok(None),
            (true, Some(length), Both::Length) => Ok(Some(length)),
            (true, Some(_), Both::Refuse) => Err(StreamEnd::Refused),
        }
    }

    fn is_chunked(&self, codings: &[u8]) -> Step<bool> {
        let codings = codings.to_ascii_lowercase();
        let last = codings.rsplit(|&byte| byte == b',').next().unwrap_or_default();
        match (codings.as_slice(), self.codings) {
            (b"", _) => Ok(false),
            (b"chunked", _) => Ok(true),
            (_, Codings::Refuse) => Err(StreamEnd::Refused),
            (_, Codings::Ignore) => Ok(false),
            (_, Codings::Contains) => Ok(codings.windows(7).any(|bytes| bytes == b"chunked")),
            (_, Codings::Last) => Ok(self.trim(last) == b"chunked"),
        }
    }

    fn length(&self, lengths: &[&[u8]]) -> Step<Option<u64>> {
        let (Some(first), Some(last)) = (lengths.first(), lengths.last()) else { return Ok(None) };
        let length = match self.lengths {
            Lengths::Same => {
                let length = number(first);
                length.filter(|_| lengths.iter().all(|other| number(other) == length))
            }
            Lengths::First => number(first),
            Lengths::Last => number(last),
            Lengths::Loose => {
                let first = first.strip_prefix(b"+").unwrap_or(first);
                let end = first.iter().position(|byte| !byte.is_ascii_digit());
                number(&first[..end.unwrap_or(first.len())])
            }
        };
        length.map(Some).ok_or(StreamEnd::Refused)
    }

    fn chunked_body(&self, rest: &mut &[u8]) -> Step<Vec<u8>> {
        let mut body = Vec::new();
        let sizes = Self { lf: self.lf || self.size_lf, ..*self };
        loop {
            let line = sizes.line(rest)?;
            let digits = line.split(|&byte| byte == b';').next().unwrap_or_default();
            let size = self.size(digits).ok_or(StreamEnd::Refused)?;
            if size == 0 {
                break;
            }
            body.extend(plain_body(rest, size)?);
            if !sizes.line(rest)?.is_empty() {
                return Err(StreamEnd::Refused);
            }
        }
        if self.no_final_line && rest.is_empty() {
            return Ok(body);
        }
        self.fields(rest)?;
        Ok(body)
    }

    fn size(&self, digits: &[u8]) -> Option<u64> {
        let mut digits = digits;
        if self.sizes == Sizes::Loose {
            digits = self.trim(digits);
            digits = digits.strip_prefix(b"+").unwrap_or(digits);
            digits =
                digits.strip_prefix(b"0x").or_else(|| digits.strip_prefix(b"0X")).unwrap_or(digits);
            let end = digits.iter().position(|byte| !byte.is_ascii_hexdigit());
            digits = &digits[..end.unwrap_or(digits.len())];
        }
        if digits.is_empty() {
            return None;
        }
        let (bits, wraps) = match self.sizes {
            Sizes::Wrap(bits) => (bits, true),
            Sizes::Strict | Sizes::Loose => (64, false),
        };
        let mut size = 0u128;
        for &digit in digits {
            size = size << 4 | u128::from(char::from(digit).to_digit(16)?);
            if size >> bits != 0 && !wraps {
                return None;
            }
            size &= (1 << bits) - 1;
        }
        u64::try_from(size).ok()
    }
}

fn plain_body(rest: &mut &[u8], length: u64) -> Step<Vec<u8>> {
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    let (body, after) = rest.split_at_checked(length).ok_or(StreamEnd::Partial)?;
    *rest = after;
    Ok(body.to_vec())
}
