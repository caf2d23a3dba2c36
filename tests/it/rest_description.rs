//! `/openapi.json` against the running server: every operation answers as it says.

use std::net::SocketAddr;

use lb_tests::{client::Client, client::Response, cluster::Cluster, scripted::Proxy};
use serde_json::{Map, Value, json};

use crate::{program, seed_rest::ask};

const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

/// Says why a value is not of a schema; knows what the description uses.
fn misfit(value: &Value, schema: &Value, root: &Value, at: &str) -> Option<String> {
    if let Some(reference) = schema["$ref"].as_str() {
        let Some(target) = root.pointer(reference.trim_start_matches('#')) else {
            return Some(format!("{at}: {reference} leads nowhere"));
        };
        return misfit(value, target, root, at);
    }
    if let Some(choices) = schema["oneOf"].as_array() {
        let none = choices.iter().all(|choice| misfit(value, choice, root, at).is_some());
        return none.then(|| format!("{at}: {value} is none of {choices:?}"));
    }
    let is = |name: &str| match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "null" => value.is_null(),
        _ => false,
    };
    let fits = match &schema["type"] {
        Value::String(name) => is(name),
        Value::Array(names) => names.iter().any(|name| is(name.as_str().unwrap_or_default())),
        _ => true,
    };
    if !fits {
        return Some(format!("{at}: {value} is no {}", schema["type"]));
    }
    if let Some(words) = schema["enum"].as_array()
        && !words.contains(value)
    {
        return Some(format!("{at}: {value} is not in {words:?}"));
    }
    if let Some(fields) = value.as_object() {
        let required = schema["required"].as_array().into_iter().flatten();
        for key in required.filter_map(Value::as_str) {
            if !fields.contains_key(key) {
                return Some(format!("{at}: {key} is missing"));
            }
        }
        for (key, value) in fields {
            let at = format!("{at}/{key}");
            let schema = match (&schema["properties"][key], &schema["additionalProperties"]) {
                (Value::Null, Value::Bool(true)) => continue,
                (Value::Null, Value::Null) if schema["properties"].is_null() => continue,
                (Value::Null, Value::Null) => return Some(format!("{at} is not described")),
                (Value::Null, Value::Bool(false)) => return Some(format!("{at} is not described")),
                (Value::Null, others) => others,
                (known, _) => known,
            };
            if let Some(why) = misfit(value, schema, root, &at) {
                return Some(why);
            }
        }
    }
    let items = value.as_array().into_iter().flatten();
    items
        .enumerate()
        .find_map(|(n, item)| misfit(item, &schema["items"], root, &format!("{at}/{n}")))
}

/// The documented answer that a response is, checked against its schema.
#[track_caller]
fn check(response: &Response, operation: &Value, root: &Value, what: &str) {
    let documented = &operation["responses"][response.status.to_string()];
    assert!(documented.is_object(), "{what}: {} is not documented", response.status);
    let Some(content) = documented["content"].as_object() else {
        assert!(response.body.is_empty(), "{what}: a body that is not documented");
        return;
    };
    let media_type = response.field("Content-Type").unwrap();
    let schema =
        &content.get(media_type).unwrap_or_else(|| panic!("{what}: {media_type}"))["schema"];
    let why = misfit(&response.json(), schema, root, "");
    assert_eq!(why, None, "{what} {}: {}", response.status, response.text());
}

/// A body for each schema that is sent, named like the path.
pub(crate) fn sample(schema: &str) -> Value {
    match schema {
        "Backend" => json!({"id": "sample", "address": "127.0.0.1:1", "state": "disabled"}),
        "Route" => json!({"name": "sample", "host": "sample.test", "pool": "default"}),
        "Limit" => json!({"name": "sample", "rate": "100/s", "pool": "default"}),
        "Patch" => json!({}),
        "Document" => json!({"pools": [{"name": "applied"}]}),
        _ => json!({"name": "sample"}),
    }
}

/// What each operation is sent, so that what a later one needs is there.
fn in_order(paths: &Map<String, Value>) -> Vec<(String, &'static str)> {
    let mut all: Vec<_> = paths
        .iter()
        .flat_map(|(path, methods)| {
            METHODS.into_iter().filter(|m| methods.get(m).is_some()).map(|m| (path.clone(), m))
        })
        .collect();
    // Created before it is shown, removed at the end.
    let rank =
        |method: &str| ["post", "put", "patch", "get", "delete"].iter().position(|m| *m == method);
    all.sort_by_key(|(path, method)| {
        (path.ends_with("able") || path.ends_with("drain"), rank(method))
    });
    all.sort_by_key(|(_, method)| *method == "delete");
    all
}

fn body_of(operation: &Value) -> String {
    let content = &operation["requestBody"]["content"]["application/json"];
    let reference = content["schema"]["$ref"].as_str().unwrap_or_default();
    let name = reference.rsplit('/').next().unwrap_or_default();
    if name.is_empty() { String::new() } else { sample(name).to_string() }
}

async fn description(at: SocketAddr) -> Value {
    let response = ask(at, "GET", "/openapi.json", "", "").await;
    assert_eq!(response.status, 200);
    response.json()
}

#[tokio::test]
async fn every_operation_answers_as_described() {
    let cluster = Cluster::start(program(), 1).await;
    let at = cluster.http();
    let root = description(at).await;
    let proxy = cluster.api.try_proxies().await.unwrap().0[0].id.clone();
    // Without sessions there is no key to rotate.
    drop(cluster.lbctl(&["set-pool", "default", "--sticky", "cookie"]).await.expect(0));
    // Nor, without a proxy that is lost, one to forget.
    Proxy::follow(cluster.api.channel(), "gone", |_| None).await.left().await;
    let paths = root["paths"].as_object().unwrap();
    let operations = in_order(paths);
    assert!(operations.len() >= 35, "{operations:?}");
    const JSON: &str = "Content-Type: application/json\r\n";
    for (path, method) in &operations {
        let operation = &paths[path][*method];
        let name = match (path.starts_with("/v1/proxies"), *method) {
            (true, "delete") => "gone",
            (true, _) => &proxy,
            (false, _) => "sample",
        };
        let called = path.replace("{name}", name).replace("{id}", name);
        let upper = method.to_ascii_uppercase();
        let what = format!("{upper} {called}");
        let body = body_of(operation);
        if path == "/v1/events" {
            let mut client = Client::connect(at).await;
            client.send(format!("GET {path} HTTP/1.1\r\nHost: {at}\r\n\r\n")).await;
            let head = client.head().await.unwrap();
            let content = operation["responses"]["200"]["content"].as_object().unwrap();
            assert!(content.keys().all(|media_type| head.contains(media_type)), "{head}");
        } else {
            let good = ask(at, &upper, &called, JSON, &body).await;
            assert!(good.status < 300, "{what}: {} {}", good.status, good.text());
            check(&good, operation, &root, &what);
        }
        // And what is refused.
        let unknown = ask(at, &upper, &format!("{called}?nope=1"), JSON, &body).await;
        assert_eq!(unknown.status, 400, "{what}");
        check(&unknown, operation, &root, &what);
        let foreign = format!("{JSON}Origin: http://evil.test\r\n");
        let foreign = ask(at, &upper, &called, &foreign, &body).await;
        assert_eq!(foreign.status, 403, "{what}");
        check(&foreign, operation, &root, &what);
        if path.contains('{') {
            let missing = path.replace("{name}", "missing").replace("{id}", "missing");
            let missing =
                ask(at, &upper, &missing, JSON, if *method == "put" { "{" } else { &body }).await;
            assert_eq!(missing.status, if *method == "put" { 400 } else { 404 }, "{what}");
            check(&missing, operation, &root, &what);
        }
        let parameters = operation["parameters"].as_array().unwrap();
        let takes = |name: &str| parameters.iter().any(|parameter| parameter["name"] == name);
        if takes("If-Match") && (path.contains('{') && *method != "delete" || path == "/v1/apply") {
            let fields = format!("{JSON}If-Match: \"1000000\"\r\n");
            let mut body = body.clone();
            if body.contains("\"sample\"") && path.contains('{') {
                body = sample(operation["tags"][0].as_str().map_or("", tag_schema)).to_string();
            }
            let stale = ask(at, &upper, &called, &fields, &body).await;
            assert_eq!(stale.status, 412, "{what}: {}", stale.text());
            check(&stale, operation, &root, &what);
        }
        if *method == "get" && takes("If-None-Match") {
            let held = ask(at, "GET", &called, "If-None-Match: *\r\n", "").await;
            assert_eq!(held.status, 304, "{what}");
            check(&held, operation, &root, &what);
        }
        if operation.get("requestBody").is_some() {
            let text = ask(at, &upper, &called, "Content-Type: text/plain\r\n", &body).await;
            assert_eq!(text.status, 415, "{what}");
            check(&text, operation, &root, &what);
        }
    }
}

fn tag_schema(tag: &str) -> &'static str {
    match tag {
        "backends" => "Backend",
        "routes" => "Route",
        "limits" => "Limit",
        _ => "Pool",
    }
}

#[tokio::test]
async fn the_root_lists_every_path() {
    let cluster = Cluster::start(program(), 0).await;
    let at = cluster.http();
    let described = description(at).await;
    for path in ["/v1", "/v1/"] {
        let answer = ask(at, "GET", path, "", "").await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        let listed = answer.json();
        let listed: Vec<&str> =
            listed["paths"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        for path in described["paths"].as_object().unwrap().keys() {
            assert!(
                !path.starts_with("/v1/") || listed.contains(&path.as_str()),
                "{path}: {listed:?}"
            );
        }
        assert!(listed.contains(&"/v1/pools") && listed.contains(&"/v1/apply"), "{listed:?}");
    }
}

#[tokio::test]
async fn the_description_hangs_together_and_nothing_is_missing_in_it() {
    let cluster = Cluster::start(program(), 0).await;
    let at = cluster.http();
    let root = description(at).await;
    assert!(root["openapi"].as_str().unwrap().starts_with("3.1"));
    // Every reference leads somewhere.
    let text = root.to_string();
    for part in text.split("\"$ref\":\"#").skip(1) {
        let pointer = part.split('"').next().unwrap();
        assert!(root.pointer(pointer).is_some(), "{pointer} leads nowhere");
    }
    // Every name in a path is a parameter; operations have names of their own.
    let mut ids = Vec::new();
    for (path, methods) in root["paths"].as_object().unwrap() {
        let methods = methods.as_object().unwrap();
        for (method, operation) in methods {
            ids.push(operation["operationId"].as_str().unwrap());
            let named: Vec<&str> = operation["parameters"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|parameter| parameter["in"] == "path")
                .map(|parameter| parameter["name"].as_str().unwrap())
                .collect();
            let in_path: Vec<&str> = path
                .split('/')
                .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
                .collect();
            assert_eq!(named, in_path, "{method} {path}");
        }
        // What the router takes is what is described: Allow names the router's methods.
        let called = path.replace("{name}", "x").replace("{id}", "x");
        let refused = ask(at, "OPTIONS", &called, "", "").await;
        assert_eq!(refused.status, 405, "{path}");
        let mut allowed: Vec<String> = refused
            .field("Allow")
            .unwrap()
            .split(',')
            .map(|method| method.trim().to_ascii_lowercase())
            .filter(|method| method != "head")
            .collect();
        allowed.sort();
        let mut described: Vec<String> = methods.keys().cloned().collect();
        described.sort();
        assert_eq!(allowed, described, "{path}");
    }
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), count);
    // Defaults and ranges come along.
    let weight = &root["components"]["schemas"]["Backend"]["properties"]["weight"];
    assert_eq!((&weight["maximum"], &weight["default"]), (&json!(256), &json!(1)));
}
