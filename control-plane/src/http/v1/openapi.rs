//! `/openapi.json`: the description of this face, OpenAPI 3.1.
//!
//! Operations come from the table that the router is made of; schemas of what is declared
//! come with defaults and ranges from the document, and those of answers from the types
//! that are written.

use lb_proto::document::schema::definitions;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::{
    answer::{AppliedAnswer, BackendObserved, PoolObserved},
    apply::ApplyAnswer,
    collection::COLLECTIONS,
    events::EventAnswer,
    fault::Fault,
    limits::LimitObserved,
    observe::{ProxyAnswer, StatsAnswer, StatusAnswer},
    operation::{About, Answered, all},
    session_keys::SessionKeysAnswer,
};

const PREFIX: &str = "#/components/schemas/";

/// The whole description.
pub(super) fn document() -> Value {
    let mut paths = Map::new();
    for operation in all() {
        let path = paths.entry(format!("/v1{}", operation.path)).or_insert_with(|| json!({}));
        path[operation.method.as_str().to_ascii_lowercase()] = described(&operation.about);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Load balancer control plane",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Pools, backends, listeners, routes and limits have the keys that they have in \
                files of declared state. A write answers when it is durable; with `wait`, when \
                every live proxy serves by it. An object's ETag is its revision.",
            "license": { "name": "MIT", "identifier": "MIT" },
        },
        "servers": [{ "url": "/" }],
        "tags": [
            { "name": "pools", "description": "Sets of backends under one policy each" },
            { "name": "backends", "description": "Addresses that serve requests" },
            { "name": "listeners", "description": "How proxies treat their connections" },
            { "name": "routes", "description": "Which requests go to which pool" },
            { "name": "limits", "description": "How many requests may pass" },
            { "name": "session-keys", "description": "What signs sessions" },
            { "name": "proxies", "description": "The processes that carry traffic" },
            { "name": "state", "description": "The whole" },
        ],
        "paths": paths,
        "components": { "schemas": schemas() },
    })
}

fn described(about: &About) -> Value {
    let parameters: Vec<Value> =
        about.parameters.iter().map(|name| parameter(name, about.tag)).collect();
    let mut responses = Map::new();
    for (status, answered) in &about.successes {
        responses.insert(status.to_string(), success(*status, *answered));
    }
    for status in about.failures.iter().copied() {
        let refusal = json!({
            "description": refused(status),
            "content": {
                "application/problem+json": { "schema": reference("Problem") },
            },
        });
        responses.insert(status.to_string(), refusal);
    }
    let mut operation = json!({
        "operationId": about.id,
        "tags": [about.tag],
        "summary": about.summary,
        "parameters": parameters,
        "responses": responses,
    });
    if let Some(body) = &about.body {
        let content: Map<String, Value> = body
            .media_types
            .iter()
            .map(|media_type| ((*media_type).to_owned(), json!({"schema": reference(body.schema)})))
            .collect();
        operation["requestBody"] = json!({ "required": true, "content": content });
    }
    operation
}

fn success(status: u16, answered: Option<Answered>) -> Value {
    let (description, tagged) = match status {
        201 => ("Created", true),
        304 => ("Not modified: it is what If-None-Match names", true),
        _ => ("Success", true),
    };
    let mut response = json!({ "description": description });
    let (media_type, schema) = match answered {
        None => return response,
        Some(Answered::One(name)) => ("application/json", reference(name)),
        Some(Answered::List(name)) => (
            "application/json",
            json!({
                "type": "object",
                "required": ["items", "revision"],
                "properties": {
                    "items": { "type": "array", "items": reference(name) },
                    "revision": {
                        "type": "integer", "minimum": 0, "description": "Of the store",
                    },
                },
            }),
        ),
        Some(Answered::Stream(name)) => {
            response["description"] =
                format!("Server-sent events; the data of each is JSON: {name}").into();
            ("text/event-stream", json!({ "type": "string" }))
        }
    };
    response["content"] = json!({ media_type: { "schema": schema } });
    let has_tag = |name: &str| name.starts_with("Stored") || name == "SessionKeys";
    if tagged && matches!(answered, Some(Answered::One(name)) if has_tag(name)) {
        response["headers"] = json!({
            "ETag": { "description": "The revision", "schema": { "type": "string" } },
        });
    }
    response
}

fn parameter(name: &str, tag: &str) -> Value {
    let (place, schema, about) = match name {
        "name" | "id" => ("path", text(), format!("Names one of the {tag}")),
        "pool" => ("query", text(), "Only the backends of this pool".to_owned()),
        "past" => (
            "query",
            json!({ "type": "integer", "minimum": 0, "default": 0 }),
            "Begin with so many events of before".to_owned(),
        ),
        "dry_run" => (
            "query",
            flag(),
            "Answer what would be stored, with the revision that it would get, and store nothing; \
             the answer has the header `Dry-Run: true`"
                .to_owned(),
        ),
        "force" if tag == "session-keys" => (
            "query",
            flag(),
            "Let the key sign although lost proxies lack it: nobody comes to them any more"
                .to_owned(),
        ),
        "wait" if tag == "session-keys" => {
            ("query", duration(), "Wait until the new key signs, at most so long (1h at most)".to_owned())
        }
        "force" => (
            "query",
            flag(),
            "Take away more than half of a pool's backends if the document says so".to_owned(),
        ),
        "prune" => ("query", flag(), "Remove what the document does not declare".to_owned()),
        "timeout" => (
            "query",
            json!({ "type": "string", "examples": ["60s", "5m"] }),
            "Cut what is left after so long; default 300s".to_owned(),
        ),
        "remove" => ("query", flag(), "Remove the backend when nothing is left of it".to_owned()),
        "wait" => (
            "query",
            duration(),
            "Wait until every live proxy serves by the change, at most so long, which is 1h at most; \
             the answer then has `applied`"
                .to_owned(),
        ),
        "If-Match" => (
            "header",
            text(),
            "Only if it is at this revision, which is its ETag; 412 otherwise".to_owned(),
        ),
        "If-None-Match" => (
            "header",
            text(),
            "Reading: 304 if it is at this revision still. Writing: `*` creates and never replaces"
                .to_owned(),
        ),
        _ => (
            "header",
            json!({ "type": "string", "minLength": 1, "maxLength": 255 }),
            "A repetition with this key and the same content gets the first answer, and changes \
             nothing again"
                .to_owned(),
        ),
    };
    json!({
        "name": name,
        "in": place,
        "required": place == "path",
        "description": about,
        "schema": schema,
    })
}

fn duration() -> Value {
    json!({ "type": "string", "examples": ["5s", "500ms"] })
}

fn refused(status: u16) -> &'static str {
    match status {
        400 => "Something in the request is wrong; `errors` names every fault of a body",
        403 => "A page of another site asked, or a name that is not this machine's was used",
        404 => "There is no such object",
        409 => "It exists already, is still used or connected, or somebody else was faster",
        412 => "It is not at the revision that the request names",
        408 => "The body has not come in time",
        413 => "The body is longer than 1 MiB",
        415 => "The body does not say that it is JSON",
        503 => "The control plane is stopping",
        _ => "The store failed",
    }
}

fn schemas() -> Map<String, Value> {
    let mut schemas = definitions(PREFIX);
    schemas.insert("Document".to_owned(), plain::<lb_proto::document::Document>());
    answers::<Fault>(&mut schemas);
    answers::<AppliedAnswer>(&mut schemas);
    answers::<ApplyAnswer>(&mut schemas);
    answers::<BackendObserved>(&mut schemas);
    answers::<PoolObserved>(&mut schemas);
    answers::<LimitObserved>(&mut schemas);
    answers::<EventAnswer>(&mut schemas);
    answers::<ProxyAnswer>(&mut schemas);
    answers::<SessionKeysAnswer>(&mut schemas);
    answers::<StatsAnswer>(&mut schemas);
    answers::<StatusAnswer>(&mut schemas);
    for collection in COLLECTIONS {
        let mut stored = schemas.get(collection.schema).cloned().unwrap_or_default();
        let observed = match collection.plural {
            "pools" => Some("PoolObserved"),
            "backends" => Some("BackendObserved"),
            "limits" => Some("LimitObserved"),
            _ => None,
        };
        let keys = &mut stored["properties"];
        keys["revision"] = json!({
            "type": "integer", "minimum": 0, "readOnly": true,
            "description": "Of the last change. In a body: the revision that is expected.",
        });
        keys["applied"] = with_read_only(reference("AppliedAnswer"));
        if let Some(observed) = observed {
            keys["status"] = with_read_only(reference(observed));
        }
        if collection.plural == "backends" {
            keys["source"] = json!({
                "type": "string", "readOnly": true,
                "description": "The source that discovered it; not given when nobody did.",
            });
        }
        stored["required"] = json!([collection.name_key, "revision"]);
        schemas.insert(collection.stored_schema.to_owned(), stored);
    }
    schemas.insert(
        "Patch".to_owned(),
        json!({
            "type": "object",
            "description": "A JSON merge patch (RFC 7396): the keys that change; null takes a key \
                back to its default.",
        }),
    );
    schemas.insert(
        "Removed".to_owned(),
        json!({
            "type": "object",
            "required": ["kind", "name", "removed", "revision"],
            "properties": {
                "kind": { "type": "string" },
                "name": { "type": "string" },
                "removed": { "type": "boolean" },
                "revision": { "type": "integer", "minimum": 0, "description": "Of the store" },
                "applied": reference("AppliedAnswer"),
            },
        }),
    );
    schemas
}

/// The schema of a type, and those of all that it consists of.
fn answers<T: ToSchema>(schemas: &mut Map<String, Value>) {
    let mut parts = Vec::new();
    T::schemas(&mut parts);
    schemas.insert(T::name().into_owned(), plain::<T>());
    for (name, schema) in parts {
        schemas.insert(name, serde_json::to_value(schema).unwrap_or_default());
    }
}

fn plain<T: ToSchema>() -> Value {
    serde_json::to_value(T::schema()).unwrap_or_default()
}

fn with_read_only(mut reference: Value) -> Value {
    reference["readOnly"] = true.into();
    reference
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("{PREFIX}{name}") })
}

fn text() -> Value {
    json!({ "type": "string" })
}

fn flag() -> Value {
    json!({ "type": "boolean", "default": false })
}
