//! Bodies: an object as it is declared in files, read by the reader of files.

use axum::{
    body::{Body, Bytes, HttpBody as _, to_bytes},
    extract::Request,
    http::{HeaderMap, StatusCode, header::CONTENT_TYPE},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use lb_core::model::Resource;
use lb_proto::document::{
    Declaration, DeclaredBackend, DeclaredLimit, DeclaredListener, DeclaredPool, DeclaredRoute,
    Format, Pairs, Problems, Source,
};
use serde_json::{Map, Value, value::RawValue};

use super::{
    collection::Collection,
    fault::{BodyFault, Fault},
};
use crate::http::body::{BODY_MAX, TOO_SLOW, is_too_slow, json_fault};

/// Keys of an answer that a body may have, too, so that what was read can be sent back.
/// The revision is then the expected one; what was observed is nobody's wish.
const OBSERVED: [&str; 2] = ["status", "source"];

/// Where each fault of a body is looked for.
const NAME: &str = "body";

/// Refuses bodies that do not say that they are JSON: forms of foreign pages cannot.
pub(super) async fn declared_type(request: Request, next: Next) -> Response {
    const TYPES: [&str; 3] = ["application/json", "application/merge-patch+json", TOML];
    if request.body().is_end_stream() || TYPES.contains(&media_type(request.headers()).as_str()) {
        return next.run(request).await;
    }
    Fault::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "unsupported_media_type",
        "the body must be JSON and say so: add the header Content-Type: application/json",
    )
    .into_response()
}

/// The media type of documents in TOML, which `/v1/apply` takes.
pub(super) const TOML: &str = "application/toml";

/// The media type of a body, without its parameters.
pub(super) fn media_type(fields: &HeaderMap) -> String {
    let value = fields.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = value.and_then(|value| value.split(';').next()).unwrap_or_default();
    media_type.trim().to_ascii_lowercase()
}

/// Reads a body to its end.
pub(super) async fn text(body: Body) -> Result<String, Fault> {
    let too_long = || {
        let detail = format!("the body is longer than the {BODY_MAX} bytes that are taken");
        Fault::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", detail)
    };
    // What is announced as too long need not be sent.
    if body.size_hint().lower() > BODY_MAX as u64 {
        return Err(too_long());
    }
    let bytes: Bytes = to_bytes(body, BODY_MAX).await.map_err(|error| {
        if is_too_long(&error) {
            too_long()
        } else if is_too_slow(&error) {
            Fault::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", TOO_SLOW)
        } else {
            Fault::bad(format!("the body did not arrive whole: {error}"))
        }
    })?;
    String::from_utf8(bytes.into())
        .map_err(|_| Fault::bad("the body is no text in UTF-8; send JSON"))
}

fn is_too_long(error: &axum::Error) -> bool {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        if error.is::<http_body_util::LengthLimitError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// An object that a body declares.
#[derive(Debug)]
pub(super) struct Declared {
    pub(super) resource: Resource,
    /// It is a backend without an id.
    pub(super) without_id: bool,
    /// The revision in the body; 0 for none.
    pub(super) revision: u64,
}

/// Reads a body that declares one object. `name` is that of the path, if the path has one.
pub(super) fn read(
    collection: &Collection,
    name: Option<&str>,
    text: &str,
) -> Result<Declared, Fault> {
    let mut pairs = pairs(text)?;
    let revision = take_revision(&mut pairs)?;
    let key = collection.name_key;
    match (name, pairs.iter().find(|(known, _)| known == key)) {
        (Some(name), Some((_, raw))) => same_name(collection, name, raw.get())?,
        (Some(name), None) => pairs.push((key.to_owned(), raw(&Value::from(name)))),
        (None, _) => {}
    }
    declare(collection, &pairs, text, revision)
}

/// Lays a JSON merge patch (RFC 7396) over an object.
pub(super) fn patch(
    collection: &Collection,
    stored: &Resource,
    text: &str,
) -> Result<Declared, Fault> {
    let mut changes = pairs(text)?;
    let revision = take_revision(&mut changes)?;
    if let Some((_, raw)) = changes.iter().find(|(key, _)| key == collection.name_key) {
        same_name(collection, stored.name(), raw.get())?;
    }
    let given = |wanted: &str| {
        let change = changes.iter().find(|(key, _)| key == wanted);
        change.map(|(_, raw)| raw.get())
    };
    let mut merged = fields(stored);
    if let Resource::Limit(limit) = stored
        && given("rate").is_some()
        && limit.burst() == limit.rate.one_second()
    {
        // A second's worth goes with the rate.
        merged.remove("burst");
    }
    for (key, replaced) in REPLACED {
        // Said again, it changes nothing.
        let differs =
            |text: &str| serde_json::from_str::<Value>(text).ok().as_ref() != merged.get(*key);
        if given(key).is_some_and(differs) {
            merged.remove(*replaced);
        }
    }
    if let Some(sticky) = given("sticky") {
        let sticky = serde_json::from_str::<String>(sticky).unwrap_or_default();
        if sticky != "cookie" {
            // What is said of a cookie goes with it.
            merged.retain(|key, _| !key.starts_with("session_"));
        }
        if sticky == "ip_hash" {
            for key in ["algorithm", "choices", "error_hold"] {
                merged.remove(key);
            }
        }
    }
    if given("fallback_status") == Some("null") {
        // An answer is one thing: without its status the rest of it is none.
        merged.retain(|key, _| !matches!(key.as_str(), "fallback_content_type" | "fallback_body"));
    }
    // Keys keep the patch's own text, so that the reader sees what it could complain about.
    let mut pairs: Vec<(String, Box<RawValue>)> = Vec::new();
    for (key, value) in changes {
        let former = merged.remove(&key);
        let nested = serde_json::from_str::<Map<String, Value>>(value.get());
        match (former, nested) {
            (Some(Value::Object(former)), Ok(changes)) => {
                pairs.push((key, raw(&Value::Object(merge(former, changes)))));
            }
            _ if value.get() == "null" => {
                // A key that does not exist cannot be taken away either: most likely a typo.
                if !collection.keys().contains(&key.as_str()) {
                    pairs.push((key, value));
                }
            }
            _ => pairs.push((key, value)),
        }
    }
    pairs.extend(merged.into_iter().map(|(key, value)| (key, raw(&value))));
    declare(collection, &pairs, text, revision)
}

/// Keys that make others meaningless, which then go unless they are given, too.
const REPLACED: &[(&str, &str)] = &[
    ("algorithm", "choices"),
    ("algorithm", "error_hold"),
    ("health", "health_path"),
    ("trust_xff", "trusted_proxies"),
    ("path", "path_prefix"),
    ("path_prefix", "path"),
    ("pool", "pools"),
    ("pools", "pool"),
    ("pool", "route"),
    ("route", "pool"),
];

fn merge(mut former: Map<String, Value>, changes: Map<String, Value>) -> Map<String, Value> {
    for (key, value) in changes {
        if value.is_null() {
            former.remove(&key);
        } else {
            former.insert(key, value);
        }
    }
    former
}

/// All keys of an object, as they are declared.
pub(super) fn fields(resource: &Resource) -> Map<String, Value> {
    let value = match resource {
        Resource::Pool(pool) => serde_json::to_value(DeclaredPool::from(pool)),
        Resource::Backend(backend) => serde_json::to_value(DeclaredBackend::from(backend)),
        Resource::Listener(listener) => serde_json::to_value(DeclaredListener::from(listener)),
        Resource::Route(route) => serde_json::to_value(DeclaredRoute::from(route)),
        Resource::Limit(limit) => serde_json::to_value(DeclaredLimit::from(limit)),
        Resource::Status(_) | Resource::SessionKeys(_) => Ok(Value::Null),
    };
    match value {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    }
}

fn declare(
    collection: &Collection,
    pairs: &[(String, Box<RawValue>)],
    body: &str,
    revision: u64,
) -> Result<Declared, Fault> {
    let pairs: Vec<String> =
        pairs.iter().map(|(key, value)| format!("{}:{value}", Value::from(key.as_str()))).collect();
    let text = format!("{{\"{}\":[{{{}}}]}}", collection.plural, pairs.join(","));
    let source = Source { name: NAME.to_owned(), text, format: Format::Json };
    // Whether what it refers to exists is judged by the registry, together with the write.
    let declaration = Declaration::read(std::slice::from_ref(&source), |_, _| true);
    let wishes = declaration.map_err(|problems| faults(&problems, &source, body, 2))?.wishes;
    let wish = wishes.into_iter().next().ok_or_else(|| Fault::bad("the body declares nothing"))?;
    Ok(Declared { resource: wish.resource, without_id: wish.without_id, revision })
}

/// The reader's complaints about `source`, with their places in the body as it was sent.
/// The first `skipped` segments of each pointer belong to the source alone.
pub(super) fn faults(problems: &Problems, source: &Source, body: &str, skipped: usize) -> Fault {
    let list = problems.list().iter().take(50).map(|problem| {
        let at = offset(&source.text, problem.place.line, problem.place.column);
        let mut path = Vec::new();
        if let (Format::Json, Some(at)) = (source.format, at) {
            follow(&source.text, &source.text, at, &mut path);
        }
        let path = path.get(skipped..).unwrap_or_default();
        let place = match source.format {
            Format::Toml => Some((problem.place.line, problem.place.column)),
            Format::Json => find(body, path).map(|at| line_and_column(body, at)),
        };
        BodyFault {
            pointer: path.iter().map(|key| format!("/{}", escape(key))).collect(),
            line: place.map(|(line, _)| line),
            column: place.map(|(_, column)| column),
            detail: problem.message.clone(),
        }
    });
    Fault::body(list.collect())
}

/// The keys down to the value at an offset.
fn follow(text: &str, part: &str, at: usize, path: &mut Vec<String>) {
    let within = |raw: &RawValue| {
        let begin = position(text, raw.get());
        (begin..begin + raw.get().len()).contains(&at)
    };
    if let Ok(Pairs(pairs)) = serde_json::from_str(part) {
        if let Some((key, raw)) = pairs.into_iter().find(|(_, raw)| within(raw)) {
            path.push(key);
            follow(text, raw.get(), at, path);
        }
    } else if let Ok(items) = serde_json::from_str::<Vec<&RawValue>>(part)
        && let Some((index, raw)) = items.into_iter().enumerate().find(|(_, raw)| within(raw))
    {
        path.push(index.to_string());
        follow(text, raw.get(), at, path);
    }
}

/// Where the value at a path begins.
fn find(text: &str, path: &[String]) -> Option<usize> {
    let mut part = text.trim();
    for key in path {
        let raw = if let Ok(Pairs(pairs)) = serde_json::from_str(part) {
            // Of a key that is there twice, the second is the fault.
            pairs.into_iter().rev().find(|(known, _)| known == key)?.1
        } else {
            let items = serde_json::from_str::<Vec<&RawValue>>(part).ok()?;
            *items.get(key.parse::<usize>().ok()?)?
        };
        part = raw.get();
    }
    Some(position(text, part))
}

/// Where a part of a text begins in it.
fn position(text: &str, part: &str) -> usize {
    (part.as_ptr() as usize).saturating_sub(text.as_ptr() as usize)
}

fn offset(text: &str, line: usize, column: usize) -> Option<usize> {
    let start = match line {
        0 | 1 => 0,
        line => text.match_indices('\n').nth(line - 2)?.0 + 1,
    };
    text[start..].char_indices().nth(column.saturating_sub(1)).map(|(at, _)| start + at)
}

fn line_and_column(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or_default();
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[start..].chars().count() + 1)
}

/// A key as a segment of a JSON pointer.
fn escape(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

fn pairs(text: &str) -> Result<Vec<(String, Box<RawValue>)>, Fault> {
    if text.trim().is_empty() {
        return Err(Fault::bad("there is no body; send the object as JSON"));
    }
    match serde_json::from_str(text) {
        Ok(Pairs(pairs)) => Ok(pairs
            .into_iter()
            .filter(|(key, _)| !OBSERVED.contains(&key.as_str()))
            .map(|(key, value)| (key, value.to_owned()))
            .collect()),
        Err(error) => Err(Fault::body(vec![BodyFault {
            pointer: String::new(),
            line: Some(error.line().max(1)),
            column: Some(error.column().max(1)),
            detail: format!("the body is no JSON object: {}", json_fault(&error)),
        }])),
    }
}

fn take_revision(pairs: &mut Vec<(String, Box<RawValue>)>) -> Result<u64, Fault> {
    let Some(at) = pairs.iter().position(|(key, _)| key == "revision") else { return Ok(0) };
    let (_, value) = pairs.remove(at);
    serde_json::from_str(value.get()).map_err(|_| {
        Fault::body(vec![BodyFault {
            pointer: "/revision".to_owned(),
            line: None,
            column: None,
            detail: "revision is the number of the last answer; leave it out to replace whatever \
                     there is"
                .to_owned(),
        }])
    })
}

fn same_name(collection: &Collection, name: &str, raw: &str) -> Result<(), Fault> {
    if serde_json::from_str::<String>(raw).is_ok_and(|given| given == name) {
        return Ok(());
    }
    let key = collection.name_key;
    Err(Fault::body(vec![BodyFault {
        pointer: format!("/{key}"),
        line: None,
        column: None,
        detail: format!(
            "the path names the {} {name:?} and the body another; leave {key} out, or give the \
             same: nothing is renamed",
            collection.kind
        ),
    }]))
}

fn raw(value: &Value) -> Box<RawValue> {
    RawValue::from_string(value.to_string()).expect("what was just written can be read")
}
