//! REST under `/v1`, as automation uses it.

use std::net::SocketAddr;

use lb_proto::v1 as pb;
use lb_tests::{backend::Backend, client::Client, client::Response, cluster::Cluster};
use serde_json::{Value, json};

use crate::{program, seed_rest::ask};

const JSON: &str = "Content-Type: application/json\r\n";

/// Sends JSON, with these further fields.
async fn send(at: SocketAddr, method: &str, path: &str, fields: &str, body: &Value) -> Response {
    ask(at, method, path, &format!("{JSON}{fields}"), &body.to_string()).await
}

async fn get(at: SocketAddr, path: &str) -> Response {
    ask(at, "GET", path, "", "").await
}

/// A refusal as RFC 9457 has it, whose sentence has this part.
#[track_caller]
fn expect_refusal(response: &Response, status: u16, part: &str) {
    assert_eq!(response.status, status, "{} {}", response.head, response.text());
    assert_eq!(response.field("Content-Type"), Some("application/problem+json"));
    let body = response.json();
    assert_eq!(body["status"], status, "{body}");
    assert!(body["type"].as_str().unwrap().starts_with("urn:problem-type:lb:"), "{body}");
    assert!(body["title"].is_string(), "{body}");
    let detail = body["detail"].as_str().unwrap_or_else(|| panic!("no sentence: {body}"));
    assert!(detail.contains(part), "{detail:?} without {part:?}");
}

#[track_caller]
fn expect(response: &Response, status: u16) -> Value {
    assert_eq!(response.status, status, "{} {}", response.head, response.text());
    let body = response.json();
    if let Some(tag) = response.field("ETag")
        && body.get("items").is_none()
        && body.get("changes").is_none()
    {
        assert_eq!(tag, format!("\"{}\"", body["revision"]), "{body}");
    }
    body
}

#[tokio::test]
async fn every_kind_is_created_shown_replaced_patched_and_removed() {
    let cluster = Cluster::start(program(), 1).await;
    let at = cluster.http();
    expect(&send(at, "POST", "/v1/pools", "", &json!({"name": "shop"})).await, 201);
    for (collection, name_key, name, new, patch, patched) in [
        (
            "pools",
            "name",
            "web",
            json!({"algorithm": "least_connections", "choices": 3}),
            json!({"algorithm": "ip_hash", "fall": 5}),
            json!({"algorithm": "ip_hash", "fall": 5}),
        ),
        (
            "backends",
            "id",
            "one",
            json!({"address": "127.0.0.1:1", "pool": "shop", "labels": {"zone": "a", "rack": "1"}}),
            json!({"weight": 7, "labels": {"zone": null, "tier": "x"}}),
            json!({"weight": 7, "labels": {"rack": "1", "tier": "x"}, "pool": "shop"}),
        ),
        (
            "listeners",
            "name",
            "inner",
            json!({"trusted_proxies": ["10.0.0.0/8"], "max_requests": 10}),
            json!({"trust_xff": "always", "max_requests": null}),
            json!({"trust_xff": "always", "max_requests": 1000}),
        ),
        (
            "routes",
            "name",
            "api",
            json!({"path_prefix": "/api", "pool": "shop"}),
            json!({"path": "/api/v1", "pools": [{"pool": "shop", "weight": 3}, {"pool": "default"}]}),
            json!({"path": "/api/v1", "path_prefix": null, "pool": null}),
        ),
    ] {
        let path = format!("/v1/{collection}/{name}");
        expect_refusal(&get(at, &path).await, 404, "does not exist; ");
        let created = send(at, "PUT", &path, "", &new).await;
        assert_eq!(created.field("Location"), Some(path.as_str()), "{}", created.head);
        let created = expect(&created, 201);
        assert_eq!(created[name_key], name);
        for (key, value) in new.as_object().unwrap() {
            assert_eq!(created[key], *value, "{collection} {key}");
        }
        let shown = expect(&get(at, &path).await, 200);
        assert_eq!(shown["revision"], created["revision"]);
        // What was read can be sent back as it is.
        let same = expect(&send(at, "PUT", &path, "", &shown).await, 200);
        assert_eq!(same["revision"], shown["revision"], "nothing changed, so no revision");
        let listed = expect(&get(at, &format!("/v1/{collection}")).await, 200);
        let mut items = listed["items"].as_array().unwrap().iter();
        assert!(items.any(|item| item[name_key] == name), "{listed}");
        let answer = expect(&send(at, "PATCH", &path, "", &patch).await, 200);
        assert!(answer["revision"].as_u64() > shown["revision"].as_u64());
        for (key, value) in patched.as_object().unwrap() {
            assert_eq!(answer.get(key).unwrap_or(&Value::Null), value, "{collection} {key}");
        }
        let mut twin = new.clone();
        twin[name_key] = name.into();
        let twin = send(at, "POST", &format!("/v1/{collection}"), "", &twin).await;
        expect_refusal(&twin, 409, "exists already");
        let removed = expect(&ask(at, "DELETE", &path, "", "").await, 200);
        assert_eq!((&removed["name"], &removed["removed"]), (&json!(name), &json!(true)));
        expect_refusal(&get(at, &path).await, 404, "does not exist");
        expect_refusal(&ask(at, "DELETE", &path, "", "").await, 404, "does not exist");
    }
}

#[tokio::test]
async fn a_backend_gets_an_id_a_verdict_and_its_states() {
    let backend = Backend::saying("a");
    let cluster = Cluster::start(program(), 2).await;
    let at = cluster.http();
    let new = json!({"address": backend.address().to_string()});
    let added = send(at, "POST", "/v1/backends?wait=10s", "", &new).await;
    assert_eq!(added.field("Location"), Some("/v1/backends/backend1"));
    let added = expect(&added, 201);
    assert_eq!(added["id"], "backend1");
    assert_eq!(
        (&added["applied"]["proxies"], &added["applied"]["applied"]),
        (&json!(2), &json!(2))
    );
    assert!(added["applied"]["elapsed_ms"].is_u64(), "{added}");
    cluster.api.verdict("backend1", pb::Health::Up).await;
    let shown = expect(&get(at, "/v1/backends/backend1").await, 200);
    assert_eq!(shown["status"]["verdict"], "up", "{shown}");
    assert!(shown["status"]["since_unix_ms"].as_u64() > Some(0));
    assert!(shown.get("applied").is_none(), "nobody waited for anything");
    let pool = expect(&get(at, "/v1/pools/default").await, 200);
    assert_eq!(pool["status"]["up"], 1, "{pool}");
    for (action, state) in [("drain", "draining"), ("disable", "disabled"), ("enable", "enabled")] {
        let path = format!("/v1/backends/backend1/{action}?wait=10s");
        let answer = expect(&ask(at, "POST", &path, "", "").await, 200);
        assert_eq!((&answer["state"], &answer["applied"]["applied"]), (&json!(state), &json!(2)));
    }
    let listed = expect(&get(at, "/v1/backends?pool=default").await, 200);
    assert_eq!(listed["items"].as_array().unwrap().len(), 1);
    expect_refusal(&get(at, "/v1/backends?pool=nope").await, 404, "pool nope does not exist");
    let nobody = ask(at, "POST", "/v1/backends/backend9/drain", "", "").await;
    expect_refusal(&nobody, 404, "known are backend1");

    let proxies = expect(&get(at, "/v1/proxies").await, 200);
    let proxies = proxies["items"].as_array().unwrap();
    assert_eq!(proxies.len(), 2);
    let id = proxies[0]["id"].as_str().unwrap();
    assert_eq!(expect(&get(at, &format!("/v1/proxies/{id}")).await, 200)["id"], id);
    expect_refusal(&get(at, "/v1/proxies/nope").await, 404, id);
    let status = expect(&get(at, "/v1/status").await, 200);
    assert_eq!((&status["backends"], &status["writable"]), (&json!(1), &json!(true)));
    assert!(expect(&get(at, "/v1/stats").await, 200)["pools"]["default"]["requests"].is_u64());
}

#[tokio::test]
async fn of_two_who_change_the_same_revision_one_is_told() {
    let cluster = Cluster::start(program(), 0).await;
    let at = cluster.http();
    let path = "/v1/pools/default";
    let tag = get(at, path).await.field("ETag").unwrap().to_owned();
    let held = ask(at, "GET", path, &format!("If-None-Match: {tag}\r\n"), "").await;
    assert_eq!((held.status, held.field("ETag")), (304, Some(tag.as_str())));
    let condition = format!("If-Match: {tag}\r\n");
    let [one, two] = [json!({"fall": 4}), json!({"fall": 5})];
    let (one, two) = tokio::join!(
        send(at, "PATCH", path, &condition, &one),
        send(at, "PATCH", path, &condition, &two)
    );
    let mut statuses = [one.status, two.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 412], "{} {}", one.text(), two.text());
    let late = if one.status == 412 { one } else { two };
    expect_refusal(&late, 412, "read it again");
    for (method, path, body) in
        [("PUT", path, "{}"), ("DELETE", path, ""), ("PUT", "/v1/pools/new", "{}")]
    {
        let stale = ask(at, method, path, &format!("{JSON}{condition}"), body).await;
        expect_refusal(&stale, 412, "expected");
    }
    let create = "If-None-Match: *\r\n";
    expect(&send(at, "PUT", "/v1/pools/new", create, &json!({})).await, 201);
    expect_refusal(&send(at, "PUT", "/v1/pools/new", create, &json!({})).await, 412, "exists");
    // The revision in a body that was read is a condition, too.
    let mut read = expect(&get(at, "/v1/pools/new").await, 200);
    expect(&send(at, "PATCH", "/v1/pools/new", "", &json!({"rise": 3})).await, 200);
    read["fall"] = 9.into();
    expect_refusal(&send(at, "PUT", "/v1/pools/new", "", &read).await, 412, "read it again");
    // Without a condition, patches of many do not undo one another.
    let patches = (0..8).map(|number| {
        let label = format!("k{number}");
        async move {
            let path = "/v1/backends/b";
            send(at, "PATCH", path, "", &json!({"labels": {label: "x"}})).await.status
        }
    });
    let new = json!({"id": "b", "address": "127.0.0.1:1", "state": "disabled"});
    expect(&send(at, "POST", "/v1/backends", "", &new).await, 201);
    let tasks: Vec<_> = patches.map(tokio::spawn).collect();
    for task in tasks {
        assert_eq!(task.await.unwrap(), 200);
    }
    let labels = expect(&get(at, "/v1/backends/b").await, 200)["labels"].clone();
    assert_eq!(labels.as_object().unwrap().len(), 8, "{labels}");
}

/// Whatever there was before: what a value makes meaningless goes.
#[tokio::test]
async fn sessions_and_fallbacks_are_switched_by_one_key() {
    let cluster = Cluster::start(program(), 0).await;
    let at = cluster.http();
    expect(&send(at, "POST", "/v1/pools", "", &json!({"name": "p"})).await, 201);
    let patch =
        async |change: Value| expect(&send(at, "PATCH", "/v1/pools/p", "", &change).await, 200);
    let wishes = [json!("none"), json!(null), json!("header:x-user"), json!("ip_hash")];
    for wish in wishes {
        let choosy = json!({"algorithm": "least_connections", "choices": 3});
        patch(choosy).await;
        patch(json!({"sticky": "cookie", "session_ttl": "2h", "session_strict": true})).await;
        // What is said again keeps what goes with it.
        assert_eq!(patch(json!({"sticky": "cookie"})).await["session_ttl"], "2h");
        let patched = patch(json!({"sticky": wish})).await;
        assert_eq!(patched.get("session_ttl"), None, "{wish}: {patched}");
        let algorithm = if wish == "ip_hash" { "ip_hash" } else { "least_connections" };
        assert_eq!(patched["algorithm"], algorithm, "{wish}");
    }
    let answer = json!({"fallback_status": 200, "fallback_body": "closed", "fall": 9});
    assert_eq!(patch(answer).await["fallback_body"], "closed");
    let patched = patch(json!({"fallback_status": null})).await;
    assert_eq!((patched.get("fallback_body"), &patched["fall"]), (None, &json!(9)), "{patched}");
}

#[tokio::test]
async fn a_dry_run_and_a_repetition_change_nothing() {
    let cluster = Cluster::start(program(), 0).await;
    let at = cluster.http();
    let before = cluster.api.revision().await;
    let new = json!({"address": "127.0.0.1:1", "weight": 3});
    let tried = send(at, "POST", "/v1/backends?dry_run=true", "", &new).await;
    assert_eq!((tried.field("ETag"), tried.field("Location")), (None, None));
    assert_eq!(tried.field("Dry-Run"), Some("true"));
    let tried = expect(&tried, 201);
    assert_eq!((&tried["id"], &tried["weight"]), (&json!("backend1"), &json!(3)));
    let path = "/v1/pools/default?dry_run=true";
    assert_eq!(expect(&send(at, "PATCH", path, "", &json!({"fall": 9})).await, 200)["fall"], 9);
    let document = json!({"pools": [{"name": "x"}]});
    let tried = expect(&send(at, "POST", "/v1/apply?dry_run", "", &document).await, 200);
    assert_eq!(
        (&tried["dry_run"], &tried["changes"][0]["action"]),
        (&json!(true), &json!("created"))
    );
    let real = send(at, "PATCH", "/v1/pools/default?dry_run=false", "", &json!({})).await;
    assert_eq!((real.status, real.field("Dry-Run")), (200, None));
    assert_eq!(cluster.api.revision().await, before);

    let key = "Idempotency-Key: 8a1c\r\n";
    let first = expect(&send(at, "POST", "/v1/backends", key, &new).await, 201);
    let again = expect(&send(at, "POST", "/v1/backends", key, &new).await, 201);
    assert_eq!((&first["id"], &first["revision"]), (&again["id"], &again["revision"]));
    // Also of a write with a condition that holds no more, because it was made.
    let path = "/v1/backends/backend1";
    let key_two = format!("Idempotency-Key: 8a1d\r\nIf-Match: \"{}\"\r\n", first["revision"]);
    for change in [json!({"weight": 9}), json!({"weight": 9})] {
        assert_eq!(expect(&send(at, "PATCH", path, &key_two, &change).await, 200)["weight"], 9);
    }
    expect_refusal(&send(at, "PATCH", path, &key_two, &json!({})).await, 400, "another write");
    let drain = "/v1/backends/backend1/drain?dry_run=false";
    let key_three = "Idempotency-Key: 8a1e\r\n";
    expect(&send(at, "POST", drain, key_three, &json!({})).await, 200);
    let otherwise = format!("{drain}&remove=true&timeout=60s");
    let other = send(at, "POST", &otherwise, key_three, &json!({})).await;
    expect_refusal(&other, 400, "another write");
    let other = send(at, "POST", "/v1/backends", key, &json!({"address": "127.0.0.1:2"})).await;
    expect_refusal(&other, 400, "was used before for another write");
    assert_eq!(expect(&get(at, "/v1/backends").await, 200)["items"].as_array().unwrap().len(), 1);
    expect(&ask(at, "DELETE", "/v1/backends/backend1", "", "").await, 200);
    let gone = send(at, "POST", "/v1/backends", key, &new).await;
    expect_refusal(&gone, 409, "removed since");
}

#[tokio::test]
async fn a_document_is_applied_whole_and_pruned_when_asked() {
    let cluster = Cluster::start(program(), 1).await;
    let at = cluster.http();
    let document = json!({
        "pools": [{"name": "web"}],
        "backends": [{"address": "127.0.0.1:1", "pool": "web"}, {"address": "127.0.0.1:2", "pool": "web"}],
        "routes": [{"name": "web", "host": "web.test", "pool": "web"}],
    });
    let applied = expect(&send(at, "POST", "/v1/apply?wait=10s", "", &document).await, 200);
    assert_eq!((&applied["changed"], &applied["applied"]["applied"]), (&json!(true), &json!(1)));
    let told: Vec<_> = applied["changes"].as_array().unwrap().iter().map(|c| &c["name"]).collect();
    assert_eq!(told, ["web", "backend1", "backend2", "web"]);
    let again = expect(&send(at, "POST", "/v1/apply", "", &document).await, 200);
    assert_eq!(again["changed"], false, "{again}");

    let mut less = document.clone();
    less["backends"] = json!([]);
    expect_refusal(&send(at, "POST", "/v1/apply?prune", "", &less).await, 409, "force");
    let stale = "If-Match: \"1\"\r\n";
    expect_refusal(&send(at, "POST", "/v1/apply?prune", stale, &less).await, 412, "as expected");
    let pruned = expect(&send(at, "POST", "/v1/apply?prune&force", "", &less).await, 200);
    assert!(pruned["changes"].as_array().unwrap().iter().any(|c| c["action"] == "removed"));
    assert!(expect(&get(at, "/v1/backends").await, 200)["items"].as_array().unwrap().is_empty());

    let toml = "[[pools]]\nname = \"toml\"\nfall = 4\n";
    let fields = "Content-Type: application/toml\r\n";
    expect(&ask(at, "POST", "/v1/apply", fields, toml).await, 200);
    assert_eq!(expect(&get(at, "/v1/pools/toml").await, 200)["fall"], 4);
}

#[tokio::test]
async fn what_is_wrong_is_named_with_its_place_and_changes_nothing() {
    let cluster = Cluster::start(program(), 0).await;
    let at = cluster.http();
    let before = cluster.api.revision().await;
    let body = "{\n  \"address\": \"nowhere\",\n  \"wieght\": 2,\n  \"weight\": 999\n}";
    let refused = ask(at, "PUT", "/v1/backends/b", JSON, body).await;
    expect_refusal(&refused, 400, "3 faults");
    let errors = refused.json()["errors"].clone();
    let places: Vec<_> = errors
        .as_array()
        .unwrap()
        .iter()
        .map(|e| {
            (e["pointer"].as_str().unwrap().to_owned(), e["line"].as_u64(), e["column"].as_u64())
        })
        .collect();
    for place in [
        ("/address".to_owned(), Some(2), Some(14)),
        ("/wieght".to_owned(), Some(3), Some(13)),
        ("/weight".to_owned(), Some(4), Some(13)),
    ] {
        assert!(places.contains(&place), "{place:?} not in {errors}");
    }
    let document = json!({"pools": [{"name": "a"}, {"name": "b", "fall": 0}]});
    let refused = send(at, "POST", "/v1/apply", "", &document).await;
    expect_refusal(&refused, 400, "fall");
    assert_eq!(refused.json()["errors"][0]["pointer"], "/pools/1/fall");

    for (method, path, body, status, part) in [
        ("POST", "/v1/pools", "", 400, "there is no body"),
        ("POST", "/v1/pools", "[]", 400, "no JSON object"),
        ("POST", "/v1/pools", "{", 400, "line 1"),
        ("POST", "/v1/pools", "{}", 400, "no name"),
        ("POST", "/v1/pools", r#"{"name":"a","name":"b"}"#, 400, "twice"),
        ("POST", "/v1/backends", r#"{"address":"a:1","pool":"nope"}"#, 400, "does not exist"),
        ("POST", "/v1/backends", r#"{"address":"https://a:443"}"#, 400, "TLS to backends"),
        ("PUT", "/v1/routes/a", r#"{"pool":"default","path":"/a/*"}"#, 400, "path prefix"),
        ("PUT", "/v1/routes/a", r#"{"pools":["default=x"]}"#, 400, "from 0 to 256"),
        ("PUT", "/v1/pools/a", r#"{"name":"b"}"#, 400, "nothing is renamed"),
        ("PUT", "/v1/pools/a%20b", "{}", 400, "a b"),
        ("PUT", "/v1/pools/a", r#"{"revision":"x"}"#, 400, "revision"),
        ("PATCH", "/v1/pools/default", r#"{"fal":2}"#, 400, "did you mean \"fall\""),
        ("PATCH", "/v1/pools/default", r#"{"fal":null}"#, 400, "did you mean \"fall\""),
        ("PATCH", "/v1/pools/default", r#"{"fall":"x"}"#, 400, "fall"),
        ("PATCH", "/v1/pools/default", r#"{"name":"x"}"#, 400, "nothing is renamed"),
        ("PATCH", "/v1/pools/nope", "{}", 404, "known are default"),
        ("DELETE", "/v1/pools/default", "", 409, "still used by route default"),
        ("POST", "/v1/pools?dryrun=true", r#"{"name":"a"}"#, 400, "known here are dry_run"),
        ("POST", "/v1/pools?wait=5h", r#"{"name":"a"}"#, 400, "at most 1h"),
        ("POST", "/v1/pools?dry_run=maybe", r#"{"name":"a"}"#, 400, "true or false"),
        ("POST", "/v1/pools?wait=5", r#"{"name":"a"}"#, 400, "no unit"),
        ("GET", "/v1/pools?x=1", "", 400, "takes no parameters"),
        ("GET", "/v1/nope", "", 404, "/v1/nope"),
        ("GET", "/v1/nothing", "", 404, "/openapi.json"),
        ("GET", "/v1/pools/", "", 404, "/openapi.json"),
        ("DELETE", "/v1/", "", 405, "/v1/ does not take DELETE"),
        ("DELETE", "/v1", "", 405, "/v1/ does not take DELETE"),
    ] {
        expect_refusal(&ask(at, method, path, JSON, body).await, status, part);
    }
    let wrong = ask(at, "DELETE", "/v1/pools", "", "").await;
    expect_refusal(&wrong, 405, "/v1/pools does not take DELETE");
    let allowed = wrong.field("Allow").unwrap();
    assert!(allowed.contains("GET") && allowed.contains("POST"), "{allowed}");
    let form = "Content-Type: text/plain\r\n";
    expect_refusal(&ask(at, "POST", "/v1/pools", form, r#"{"name":"a"}"#).await, 415, "JSON");
    let condition = format!("{JSON}If-Match: 12\r\n");
    expect_refusal(&ask(at, "PUT", "/v1/pools/a", &condition, "{}").await, 400, "quotes");
    let long = format!(r#"{{"name":"{}"}}"#, "a".repeat(1 << 20));
    expect_refusal(&ask(at, "POST", "/v1/pools", JSON, &long).await, 413, "longer");
    let foreign = format!("{JSON}Origin: http://evil.test\r\n");
    expect_refusal(&ask(at, "POST", "/v1/pools", &foreign, r#"{"name":"a"}"#).await, 403, "evil");
    expect_refusal(&ask(at, "GET", "/v1/pools", "Host: evil.test\r\n", "").await, 403, "evil");
    assert_eq!(ask(at, "GET", "/openapi.json", "Host: evil.test\r\n", "").await.status, 200);
    assert_eq!(cluster.api.revision().await, before);
}

#[tokio::test]
async fn events_are_told_as_they_happen() {
    let cluster = Cluster::start(program(), 0).await;
    let at = cluster.http();
    expect(&send(at, "POST", "/v1/pools", "", &json!({"name": "first"})).await, 201);
    let mut client = Client::connect(at).await;
    client.send(format!("GET /v1/events?past=1 HTTP/1.1\r\nHost: {at}\r\n\r\n")).await;
    let head = client.head().await.unwrap();
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("text/event-stream"), "{head}");
    let mut seen = String::new();
    for name in ["first", "second"] {
        if name == "second" {
            expect(&send(at, "POST", "/v1/pools", "", &json!({"name": name})).await, 201);
        }
        let wanted = format!("\"name\":\"{name}\"");
        while !seen.contains(&wanted) {
            seen.push(char::from(client.take(1).await.unwrap()[0]));
        }
    }
    assert!(seen.contains("event: object_changed\ndata: {"), "{seen}");
}

#[tokio::test]
async fn the_example_in_python_runs() {
    const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/python/rest.py");
    let cluster = Cluster::start(program(), 1).await;
    let base = format!("http://{}", cluster.http());
    let run = tokio::process::Command::new("python3").args([EXAMPLE, &base]).output().await;
    let Ok(output) = run else {
        eprintln!("there is no python3 here, so its example is not run");
        return;
    };
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{printed}{}", String::from_utf8_lossy(&output.stderr));
    for line in
        ["created route shop", "shop-a has weight 5 on 1 proxies", "refused with 400", "removed"]
    {
        assert!(printed.contains(line), "{line:?} not in {printed}");
    }
}
