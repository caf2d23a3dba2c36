//! Heads as RFC 9112 has them, without any leniency: the judge of what is written.

/// A head that is well formed to the last byte.
#[derive(Debug)]
pub(super) struct Message<'b> {
    /// The three parts of the first line.
    pub(super) start: [&'b [u8]; 3],
    /// Names and values, in order.
    pub(super) fields: Vec<(&'b [u8], &'b [u8])>,
}

/// Where the body ends, by the fields alone.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Framed {
    Unsaid,
    Length(u64),
    Chunked,
}

impl<'b> Message<'b> {
    /// `method SP target SP version`; no byte of the target is blank or a control.
    pub(super) fn request(head: &'b [u8]) -> Option<Self> {
        let (line, fields) = lines(head)?;
        let mut words = line.split(|&byte| byte == b' ');
        let start = [words.next()?, words.next()?, words.next()?];
        let [method, target, version] = start;
        let visible = |byte: &u8| byte.is_ascii_graphic() || *byte >= 0x80;
        (words.next().is_none()
            && is_token(method)
            && !target.is_empty()
            && target.iter().all(visible)
            && is_version(version))
        .then_some(Self { start, fields })
    }

    /// `version SP status SP reason`; a backend may leave out what follows the status.
    pub(super) fn response(head: &'b [u8]) -> Option<Self> {
        let (line, fields) = lines(head)?;
        let mut words = line.splitn(3, |&byte| byte == b' ');
        let start = [words.next()?, words.next()?, words.next().unwrap_or_default()];
        let [version, status, _] = start;
        (is_version(version) && status.len() == 3 && status.iter().all(u8::is_ascii_digit))
            .then_some(Self { start, fields })
    }

    /// The values of all fields of this name.
    pub(super) fn all(&self, name: &str) -> Vec<&'b [u8]> {
        let named = |field: &&(&[u8], &[u8])| field.0.eq_ignore_ascii_case(name.as_bytes());
        self.fields.iter().filter(named).map(|field| field.1).collect()
    }

    /// The elements of all lists of this name, in lower case.
    pub(super) fn list(&self, name: &str) -> Vec<Vec<u8>> {
        self.all(name)
            .into_iter()
            .flat_map(|value| value.split(|&byte| byte == b','))
            .map(|element| trim(element).to_ascii_lowercase())
            .filter(|element| !element.is_empty())
            .collect()
    }

    /// The fields that are passed on: all but those of one hop, those that a proxy writes
    /// itself, and those that the sender's Connection named.
    pub(super) fn end_to_end(&self, named: &[Vec<u8>]) -> Vec<(&'b [u8], &'b [u8])> {
        const OWN: [&str; 4] =
            ["x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-request-id"];
        let kept = |field: &&(&[u8], &[u8])| {
            let name = field.0.to_ascii_lowercase();
            // To some servers `_` is `-`, so such a name is taken for the proxy's word, too.
            let plain: Vec<u8> = name.iter().map(|&b| if b == b'_' { b'-' } else { b }).collect();
            // A proxy counts the hops of an OPTIONS down.
            let is_count = self.start[0] == b"OPTIONS" && plain == b"max-forwards";
            let is_own = is_count || OWN.iter().any(|own| plain == own.as_bytes());
            !is_hop_by_hop(&plain) && !is_own && !named.contains(&name)
        };
        self.fields.iter().filter(kept).copied().collect()
    }

    /// The one framing that nobody can read differently; `None` when in doubt.
    pub(super) fn framed(&self) -> Option<Framed> {
        let lengths = self.all("content-length");
        match (self.all("transfer-encoding").as_slice(), lengths.as_slice()) {
            ([], []) => Some(Framed::Unsaid),
            ([], [first, others @ ..]) => {
                let length = number(first)?;
                others
                    .iter()
                    .all(|other| number(other) == Some(length))
                    .then_some(Framed::Length(length))
            }
            ([one], []) => one.eq_ignore_ascii_case(b"chunked").then_some(Framed::Chunked),
            _ => None,
        }
    }
}

/// The first line, and names and values of the fields.
#[expect(clippy::type_complexity, reason = "the parts of a message, for two callers")]
fn lines(head: &[u8]) -> Option<(&[u8], Vec<(&[u8], &[u8])>)> {
    let mut rest = head;
    let mut lines = Vec::new();
    loop {
        let end = rest.windows(2).position(|pair| pair == b"\r\n")?;
        let line = &rest[..end];
        rest = &rest[end + 2..];
        if line.is_empty() {
            break;
        }
        if !line.iter().all(is_text) {
            return None;
        }
        lines.push(line);
    }
    let (first, fields) = lines.split_first()?;
    let fields = fields.iter().map(|line| field(line)).collect::<Option<Vec<_>>>()?;
    rest.is_empty().then_some((first, fields))
}

fn field(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = line.iter().position(|&byte| byte == b':')?;
    let name = &line[..colon];
    is_token(name).then(|| (name, trim(&line[colon + 1..])))
}

/// What may stand in a line: a character, a blank, or a byte beyond ASCII.
fn is_text(byte: &u8) -> bool {
    matches!(byte, b'\t' | b' '..=b'~' | 0x80..)
}

pub(super) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty()
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_graphic() && !b"\"(),/:;<=>?@[\\]{}".contains(byte))
}

fn is_version(bytes: &[u8]) -> bool {
    bytes == b"HTTP/1.0" || bytes == b"HTTP/1.1"
}

/// Without blanks at both ends; a blank is a space or a tab and nothing else.
pub(super) fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

/// Digits only, below 2^64.
pub(super) fn number(value: &[u8]) -> Option<u64> {
    let digits = str::from_utf8(value).ok()?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

/// Whether a field is the business of one connection only, with Connection itself and
/// the fields that each hop writes anew.
pub(super) fn is_hop_by_hop(name: &[u8]) -> bool {
    const NAMES: [&str; 11] = [
        "connection",
        "content-length",
        "expect",
        "http2-settings",
        "keep-alive",
        "proxy",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "host",
    ];
    let name = name.to_ascii_lowercase();
    NAMES.iter().any(|other| name == other.as_bytes()) || name.starts_with(b"proxy-")
}
