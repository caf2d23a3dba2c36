//! Whether a message is the one that was expected, byte by byte.
//!
//! Fields that go from end to end must be the same in the same order. Those that the proxy
//! writes itself must be the same, too, and may stand anywhere.

use lb_tests::wire::{self, Message, READINGS};

/// What the proxy writes itself.
const OWN: [&str; 13] = [
    "cdn-loop",
    "connection",
    "content-length",
    "date",
    "host",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-request-id",
];

/// Splits the expectation of a table into its requests.
pub(super) fn requests(seen: &str) -> Vec<Message> {
    split(seen, |bytes, _| wire::request(bytes))
}

/// The same for responses; `methods` tells what was asked.
pub(super) fn responses(seen: &str, to_head: bool) -> Vec<Message> {
    split(seen, |bytes, _| wire::response(bytes, to_head, true))
}

fn split(
    seen: &str,
    read: impl Fn(&[u8], usize) -> Result<Option<Message>, String>,
) -> Vec<Message> {
    let bytes = wire::bytes(seen);
    let (mut all, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let message = read(&bytes[at..], all.len());
        let message = message.unwrap_or_else(|why| panic!("a bad expectation: {why} in {seen:?}"));
        let message = message.unwrap_or_else(|| panic!("half an expectation: {seen:?}"));
        assert!(message.whole, "half an expectation: {seen:?}");
        at += message.length;
        all.push(message);
    }
    all
}

/// Compares a request at the backend with the one that was expected, which need not name
/// what the proxy adds to every request.
pub(super) fn same_request(found: &Message, expected: &Message) -> Result<(), String> {
    let mut expected = expected.clone();
    let host = expected.values("Host").collect::<String>();
    for (name, value) in [
        ("X-Forwarded-For", "127.0.0.1"),
        ("X-Forwarded-Proto", "http"),
        ("X-Forwarded-Host", &host),
        ("X-Request-Id", "{new}"),
        ("CDN-Loop", "{mark}"),
    ] {
        if expected.values(name).next().is_none() {
            expected.fields.push((name.to_owned(), value.to_owned()));
        }
    }
    let mut found = found.clone();
    for (name, value) in &mut found.fields {
        let is_hex =
            |text: &str| text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        // It may be written anew, or stay where and as it was.
        if name.eq_ignore_ascii_case("host") {
            "Host".clone_into(name);
        }
        if name == "X-Request-Id" && value.len() == 32 && is_hex(value) {
            "{new}".clone_into(value);
        }
        if name == "CDN-Loop" && value.strip_prefix("lb-").is_some_and(is_hex) {
            "{mark}".clone_into(value);
        }
    }
    same(&found, &expected)
}

/// Compares a response at the client with the one that was expected. `Date: {now}` stands for any
/// date, which the proxy's own responses have.
pub(super) fn same_response(mut found: Message, expected: &Message) -> Result<(), String> {
    let mut expected = expected.clone();
    if !expected.start.starts_with("HTTP/1.1 1") && expected.values("Date").next().is_none() {
        // One that says none is given one.
        expected.fields.push(("Date".to_owned(), "{now}".to_owned()));
    }
    if expected.values("Date").next() == Some("{now}") {
        let dates = found.fields.iter_mut().filter(|(name, _)| name == "Date");
        for (_, value) in dates.filter(|(_, value)| is_date(value)) {
            "{now}".clone_into(value);
        }
    }
    same(&found, &expected)
}

/// Whether it has the shape of a date (RFC 9110, 5.6.7).
pub(super) fn is_date(value: &str) -> bool {
    value.len() == "Sun, 06 Nov 1994 08:49:37 GMT".len() && value.ends_with(" GMT")
}

/// Compares a response that may not differ in anything.
pub(super) fn same(found: &Message, expected: &Message) -> Result<(), String> {
    let view = |message: &Message| {
        let own = |name: &str| OWN.contains(&name.to_ascii_lowercase().as_str());
        let (mut ours, others): (Vec<_>, Vec<_>) =
            message.fields.iter().cloned().partition(|(name, _)| own(name));
        ours.sort();
        (message.start.clone(), others, ours, message.body.clone(), message.trailers.clone())
    };
    if view(found) == view(expected) {
        return Ok(());
    }
    Err(format!("expected {}\n  found {}", shown(expected), shown(found)))
}

/// A message on one line, without its bulk.
pub(super) fn shown(message: &Message) -> String {
    let mut text = message.start.clone();
    for (name, value) in &message.fields {
        text += &format!(" | {name}: {}", brief(value));
    }
    text += &format!(" || {:?}", brief(&message.body));
    for (name, value) in &message.trailers {
        text += &format!(" | {name}: {}", brief(value));
    }
    text
}

/// The beginning of a long text.
pub(super) fn brief(text: &str) -> String {
    match text.char_indices().nth(200) {
        Some((end, _)) => format!("{}... ({} bytes)", &text[..end], text.len()),
        None => text.to_owned(),
    }
}

/// Whether careless readers see these requests in bytes, too, and no others.
pub(super) fn unambiguous(bytes: &[u8], starts: &[String], last_whole: bool) -> Result<(), String> {
    for reading in &READINGS {
        let seen = wire::read(bytes, reading);
        let same = seen.len() == starts.len()
            && seen.iter().zip(starts).enumerate().all(|(index, (seen, start))| {
                let whole = last_whole || index + 1 < starts.len();
                // What breaks off may do so in the middle of the first line.
                seen.whole == whole && (seen.start == *start || !whole)
            });
        if !same {
            let bytes = brief(&wire::text(bytes));
            return Err(format!("AMBIGUOUS: where {}, {bytes:?} is {seen:?}", reading.name));
        }
    }
    Ok(())
}
