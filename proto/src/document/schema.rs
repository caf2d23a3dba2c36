//! The schema of declared state, for editors and for interfaces over HTTP.
//!
//! The shape and the meaning of the keys come from the types; defaults and ranges are
//! added from the model, so that no number stands here twice.

use std::{ops::RangeInclusive, time::Duration};

use lb_core::model::{
    Affinity, Algorithm, BackendConnections, BreakerPolicy, CookieAffinity, HealthPolicy,
    HttpLimits, Kind, LeastConnections, Limit, LimitKey, LimitScope, Pool, ResiliencePolicy,
    RetryPolicy, Weight,
};
use serde_json::{Map, Value, json};
use utoipa::{PartialSchema as _, ToSchema as _};

use super::{
    Document,
    changes::keys_of,
    export::{DECLARED_KINDS, defaults},
    unit::{duration_text, size_text},
};

/// What the value of a key may be, beyond its type.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Range {
    Number(RangeInclusive<u32>),
    Size(RangeInclusive<u32>),
    Time(RangeInclusive<Duration>),
}

/// The JSON Schema (draft 2020-12) of a document.
#[must_use]
pub fn json_schema() -> Value {
    let mut root = plain(serde_json::to_value(Document::schema()).unwrap_or_default(), "#/$defs/");
    if let Value::Object(root) = &mut root {
        root.insert("$schema".to_owned(), "https://json-schema.org/draft/2020-12/schema".into());
        root.insert("$defs".to_owned(), Value::Object(definitions("#/$defs/")));
    }
    root
}

/// The schemas of all types by name, with references that begin with `prefix`:
/// `#/components/schemas/` for OpenAPI.
#[must_use]
pub fn definitions(prefix: &str) -> Map<String, Value> {
    let mut schemas = Vec::new();
    Document::schemas(&mut schemas);
    let mut definitions: Map<String, Value> = schemas
        .into_iter()
        .map(|(name, schema)| {
            (name, plain(serde_json::to_value(schema).unwrap_or_default(), prefix))
        })
        .collect();
    for kind in DECLARED_KINDS {
        let name = type_name(kind);
        let Some(Value::Object(schema)) = definitions.get_mut(name) else { continue };
        let Some(Value::Object(keys)) = schema.get_mut("properties") else { continue };
        let defaults = defaults(kind);
        for (key, schema) in keys {
            let Value::Object(schema) = schema else { continue };
            // The reader's own are those of its types, and not those of the model.
            match defaults.get(key) {
                Some(default) => drop(schema.insert("default".to_owned(), default.clone())),
                None => drop(schema.remove("default")),
            }
            if let Some(forms) = forms(kind, key) {
                let forms: Vec<String> =
                    forms.iter().map(|form| form.replace("NAME", "x-user-id")).collect();
                schema.insert("examples".to_owned(), json!(forms));
            }
            match range(kind, key) {
                Some(Range::Number(range)) => {
                    schema.insert("minimum".to_owned(), json!(range.start()));
                    schema.insert("maximum".to_owned(), json!(range.end()));
                }
                // What is text cannot be bounded by a number; people are told.
                Some(range) => {
                    let text = schema.get("description").and_then(Value::as_str);
                    let text = format!("{} Range: {range}.", text.unwrap_or_default());
                    schema.insert("description".to_owned(), text.into());
                }
                None => {}
            }
        }
    }
    definitions
}

/// The keys that objects of a kind can declare, in their order.
#[must_use]
pub fn keys(kind: Kind) -> &'static [&'static str] {
    keys_of(kind)
}

/// The name of the type of a kind's objects.
pub(super) fn type_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Pool => "Pool",
        Kind::Backend => "Backend",
        Kind::Listener => "Listener",
        Kind::Route => "Route",
        Kind::Limit => "Limit",
        Kind::Status => "Status",
        Kind::SessionKeys => "SessionKeys",
    }
}

/// The forms of a text that is one of a few, where the type does not list them.
pub(super) fn forms(kind: Kind, key: &str) -> Option<&'static [&'static str]> {
    match (kind, key) {
        (Kind::Pool, "algorithm") => Some(&Algorithm::NAMES),
        (Kind::Pool, "sticky") => Some(&STICKY),
        (Kind::Limit, "key") => Some(&LimitKey::FORMS),
        (Kind::Limit, "scope") => Some(&LimitScope::NAMES),
        _ => None,
    }
}

/// With the algorithm that keeps clients, too.
const STICKY: [&str; 4] = [Affinity::FORMS[0], Affinity::FORMS[1], Affinity::FORMS[2], "ip_hash"];

/// What the value of a key may be.
pub(super) fn range(kind: Kind, key: &str) -> Option<Range> {
    let range = match (kind, key) {
        (Kind::Pool, "choices") => Range::Number(LeastConnections::CHOICES_RANGE),
        (Kind::Pool, "error_hold") => {
            Range::Time(Duration::ZERO..=LeastConnections::ERROR_HOLD_MAX)
        }
        (Kind::Pool, "session_ttl") => Range::Time(CookieAffinity::TTLS),
        (Kind::Pool, "rise" | "fall") => Range::Number(HealthPolicy::THRESHOLDS),
        (Kind::Pool, "max_idle_connections") => Range::Number(BackendConnections::IDLE),
        (Kind::Pool, "breaker_failures") => Range::Number(BreakerPolicy::CONSECUTIVE),
        (Kind::Pool, "breaker_min_requests") => Range::Number(BreakerPolicy::MIN_REQUESTS),
        (Kind::Pool, "breaker_window") => Range::Time(BreakerPolicy::WINDOW),
        (Kind::Pool, "breaker_successes") => Range::Number(BreakerPolicy::SUCCESSES),
        (Kind::Pool, "retries") => Range::Number(RetryPolicy::RETRIES),
        (Kind::Pool, "retry_floor") => Range::Number(RetryPolicy::FLOOR),
        (
            Kind::Pool,
            "breaker_ratio" | "outlier_failure_percentage" | "retry_budget" | "panic_threshold",
        ) => Range::Number(0..=100),
        (Kind::Pool, "try_timeout") => Range::Time(Duration::ZERO..=*Pool::DURATIONS.end()),
        (Kind::Pool, "slow_start") => {
            Range::Time(Duration::ZERO..=ResiliencePolicy::SLOW_START_MAX)
        }
        (
            Kind::Pool,
            "breaker_open" | "breaker_max_open" | "outlier_ejection" | "outlier_max_ejection",
        ) => Range::Time(Pool::DURATIONS),
        (Kind::Limit, "burst") => Range::Number(Limit::BURST),
        (Kind::Backend, "weight") => Range::Number(0..=Weight::MAX),
        (Kind::Listener, "max_requests") => Range::Number(1..=u32::MAX),
        (Kind::Listener, "max_request_line_bytes") => Range::Size(HttpLimits::REQUEST_LINE_BYTES),
        (Kind::Listener, "max_head_bytes") => Range::Size(HttpLimits::HEAD_BYTES),
        (Kind::Listener, "max_fields") => Range::Number(HttpLimits::FIELDS),
        (Kind::Listener, "max_trailer_bytes") => Range::Size(HttpLimits::TRAILER_BYTES),
        (Kind::Listener, "max_chunk_extension_bytes") => {
            Range::Size(HttpLimits::CHUNK_EXTENSION_BYTES)
        }
        (Kind::Listener, "max_pipelined") => Range::Number(HttpLimits::PIPELINED),
        (Kind::Listener, "max_drain_bytes") => Range::Size(HttpLimits::DRAIN_BYTES),
        (Kind::Pool | Kind::Listener, key)
            if key.ends_with("_timeout") || key.ends_with("_interval") || key.ends_with("_age") =>
        {
            Range::Time(Pool::DURATIONS)
        }
        _ => return None,
    };
    debug_assert!(keys_of(kind).contains(&key), "{kind} {key}");
    Some(range)
}

impl std::fmt::Display for Range {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Number(range) if *range.end() == u32::MAX => {
                write!(f, "at least {}", range.start())
            }
            Self::Number(range) => write!(f, "{} to {}", range.start(), range.end()),
            Self::Size(range) => {
                let [least, most] = [range.start(), range.end()].map(|n| size_text((*n).into()));
                write!(f, "{least} to {most}")
            }
            Self::Time(range) => {
                let [least, most] = [range.start(), range.end()].map(|time| duration_text(*time));
                write!(f, "{least} to {most}")
            }
        }
    }
}

/// Rewrites references, and takes out the null that keys which may be left out could have:
/// nobody writes it.
fn plain(schema: Value, prefix: &str) -> Value {
    match schema {
        Value::Object(mut map) => {
            if let Some(Value::Array(choices)) = map.get_mut("oneOf") {
                choices.retain(|choice| choice.get("type") != Some(&"null".into()));
                if choices.len() == 1
                    && let Some(Value::Object(only)) = choices.pop()
                {
                    map.remove("oneOf");
                    for (key, value) in only {
                        map.entry(key).or_insert(value);
                    }
                }
            }
            if let Some(Value::Array(types)) = map.get_mut("type") {
                types.retain(|name| name != "null");
                if let [only] = types.as_slice() {
                    let only = only.clone();
                    map.insert("type".to_owned(), only);
                }
            }
            if let Some(Value::String(reference)) = map.get_mut("$ref") {
                *reference = reference.replace("#/components/schemas/", prefix);
            }
            if let Some(Value::String(text)) = map.get_mut("description") {
                *text = text.replace('\n', " ");
            }
            Value::Object(map.into_iter().map(|(key, value)| (key, plain(value, prefix))).collect())
        }
        Value::Array(items) => {
            Value::Array(items.into_iter().map(|item| plain(item, prefix)).collect())
        }
        other => other,
    }
}
