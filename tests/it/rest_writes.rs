//! What `docs/rest.md` promises of every write, held against the list in `/openapi.json`.

use std::net::SocketAddr;

use lb_tests::{client::Response, cluster::Cluster, eventually::eventually, scripted::Proxy};
use serde_json::{Value, json};

use crate::{program, rest_description, seed_rest::ask};

const FIELDS: [&str; 3] = ["If-Match", "If-None-Match", "Idempotency-Key"];

/// One write, and how it is tried.
struct Write {
    method: String,
    /// With names in their places.
    path: String,
    /// Its parameters.
    knows: Vec<String>,
    body: Option<Value>,
    at: SocketAddr,
}

impl Write {
    fn name(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    fn knows(&self, name: &str) -> bool {
        self.knows.iter().any(|known| known == name)
    }

    /// Sends it; a body that creates has this number in its name.
    async fn send(&self, query: &str, fields: &str, number: usize) -> Response {
        let mut body = self.body.clone();
        if self.method == "POST"
            && let Some(fields) = body.as_mut().and_then(Value::as_object_mut)
        {
            let made = [
                ("name", format!("made-{number}")),
                ("id", format!("made-{number}")),
                ("address", format!("127.0.0.1:{}", 1000 + number)),
                ("host", format!("made-{number}.test")),
            ];
            for (name, made) in made {
                if let Some(value) = fields.get_mut(name) {
                    *value = made.into();
                }
            }
        }
        let body = body.map_or_else(String::new, |body| body.to_string());
        let json = if body.is_empty() { "" } else { "Content-Type: application/json\r\n" };
        let path = format!("{}{query}", self.path);
        ask(self.at, &self.method, &path, &format!("{json}{fields}"), &body).await
    }

    /// What it writes.
    fn object(&self) -> String {
        let path = self.path.trim_end_matches("/rotate").replace("/v1/apply", "/v1/pools/sample");
        match path.rsplit_once('/') {
            Some((object, "enable" | "disable" | "drain")) => object.to_owned(),
            _ => path,
        }
    }

    /// The state of what it writes: its tag; of what has none, whether it is there.
    async fn state(&self) -> String {
        let shown = ask(self.at, "GET", &self.object(), "", "").await;
        let is_a_list = self.method == "POST" && self.body.is_some() && !self.knows("prune");
        if is_a_list {
            let count = shown.json()["items"].as_array().map(Vec::len);
            return format!("{count:?}");
        }
        format!("{} {:?}", shown.status, shown.field("ETag"))
    }

    /// What somebody else does between a write and its repetition, so that the repetition would
    /// change something if it were taken for another write.
    async fn meddle(&self) {
        let object = self.object();
        let put = async |body: Value| {
            let fields = "Content-Type: application/json\r\n";
            let put = ask(self.at, "PUT", &object, fields, &body.to_string()).await;
            assert!(put.status < 300, "{}: {}", self.name(), put.text());
        };
        match object.split('/').nth(2) {
            Some("session-keys") => self.key_signs().await,
            _ if self.method == "POST" && self.body.is_some() && !self.knows("prune") => {}
            Some("pools") => put(json!({"fall": 7})).await,
            Some("backends") if self.path.ends_with("disable") => {
                put(json!({"address": "127.0.0.1:2"})).await;
            }
            Some("backends") => put(json!({"address": "127.0.0.1:2", "state": "disabled"})).await,
            Some("listeners") => put(json!({"max_requests": 7})).await,
            Some("routes") => put(json!({"host": "other.test", "pool": "default"})).await,
            Some("limits") => put(json!({"rate": "7/s", "pool": "default"})).await,
            _ => {}
        }
    }

    /// Waits until the next key signs: then another one could be made.
    async fn key_signs(&self) {
        eventually("the key signs", async || {
            let keys = ask(self.at, "GET", "/v1/session-keys", "", "").await.json();
            if keys["waits_for"].is_null() { Ok(()) } else { Err(keys.to_string()) }
        })
        .await;
    }
}

/// A body for each schema that is sent.
fn sample(schema: &str) -> Value {
    match schema {
        "Document" => json!({"pools": [{"name": "sample", "rise": 3}]}),
        _ => rest_description::sample(schema),
    }
}

/// Every write there is; those that remove come last.
async fn writes(at: SocketAddr) -> Vec<Write> {
    let description = ask(at, "GET", "/openapi.json", "", "").await.json();
    let mut writes = Vec::new();
    for (path, methods) in description["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            if method == "get" {
                continue;
            }
            let parameters = operation["parameters"].as_array().unwrap();
            let content = operation["requestBody"]["content"].as_object();
            let schema = content.and_then(|content| content.values().next());
            let schema = schema.and_then(|content| content["schema"]["$ref"].as_str());
            writes.push(Write {
                method: method.to_uppercase(),
                path: path.replace("{name}", "sample").replace("{id}", "sample"),
                knows: parameters.iter().map(|p| p["name"].as_str().unwrap().to_owned()).collect(),
                body: schema.map(|schema| sample(schema.rsplit('/').next().unwrap())),
                at,
            });
        }
    }
    writes.sort_by_key(|write| {
        let order = ["PUT", "POST", "PATCH", "DELETE"];
        // A key waits for lost proxies, one of which is to be forgotten.
        let rotates = write.path.ends_with("rotate");
        let order = order.iter().position(|method| *method == write.method);
        (rotates, order, write.path.contains("pools"))
    });
    writes
}

/// A cluster in which every write has something to do.
async fn cluster() -> Cluster {
    let cluster = Cluster::start(program(), 1).await;
    drop(cluster.lbctl(&["set-pool", "default", "--sticky", "cookie", "--health", "none"]).await);
    let stray = Proxy::follow(cluster.api.channel(), "sample", |_| None).await;
    stray.left().await;
    eventually("it is lost", async || {
        let (proxies, _) = cluster.api.try_proxies().await.expect("the control plane answers");
        let lost = proxies.iter().any(|proxy| proxy.id == "sample" && proxy.state == "lost");
        if lost { Ok(()) } else { Err(format!("{proxies:?}")) }
    })
    .await;
    cluster
}

#[tokio::test]
async fn every_write_holds_what_is_promised_of_all() {
    let cluster = cluster().await;
    let at = cluster.http();
    let writes = writes(at).await;
    assert_eq!(writes.len(), 27, "{:?}", writes.iter().map(Write::name).collect::<Vec<_>>());
    let shared = "Idempotency-Key: shared\r\n";
    for (index, write) in writes.iter().enumerate() {
        let name = write.name();
        let number = index * 10;
        let before = write.state().await;
        for field in FIELDS.iter().filter(|field| !write.knows(field)) {
            let refused = write.send("", &format!("{field}: \"1\"\r\n"), number).await;
            assert_eq!(refused.status, 400, "{name} {field}: {}", refused.text());
            assert!(refused.text().contains("does not look at"), "{name}: {}", refused.text());
        }
        for query in ["?dryrun=true", "?dry_run=maybe"] {
            let refused = write.send(query, "", number).await;
            assert_eq!(refused.status, 400, "{name} {query}: {}", refused.text());
        }
        if !write.knows("Idempotency-Key") {
            assert!(write.path.ends_with("adopt-store"), "{name}: to ask twice is to ask once");
            continue;
        }
        if write.knows("If-Match") {
            let stale = write.send("", "If-Match: \"999999\"\r\n", number).await;
            assert_eq!(stale.status, 412, "{name}: {}", stale.text());
        }
        if write.knows("dry_run") {
            let tried = write.send("?dry_run=true", "", number).await;
            assert!(tried.status < 300, "{name}: {}", tried.text());
            let tried = write.send("?dry_run=true", "Idempotency-Key: tried\r\n", number).await;
            assert!(tried.status < 300, "{name}: {}", tried.text());
        }
        assert_eq!(write.state().await, before, "{name}: nothing of this wrote");
        if index > 0 {
            let other = write.send("", shared, number).await;
            assert_eq!(other.status, 400, "{name}: {}", other.text());
            assert!(other.text().contains("another write"), "{name}: {}", other.text());
            assert_eq!(write.state().await, before, "{name}");
        }

        let key = format!("Idempotency-Key: key-{index}\r\n");
        let fields = if index == 0 { shared } else { &key };
        let first = write.send("", fields, number).await;
        assert!(first.status < 300, "{name}: {}", first.text());
        write.meddle().await;
        let between = write.state().await;
        let again = write.send("", fields, number).await;
        assert!(again.status < 300, "{name}: {}", again.text());
        assert_eq!(write.state().await, between, "{name}: a repetition changes nothing");

        if write.knows("wait") {
            let waited = write.send("?wait=20s", "", number + 1).await;
            assert!(waited.status < 300, "{name}: {}", waited.text());
            let body = waited.json();
            if write.path.ends_with("rotate") {
                assert_eq!(body["waits_for"], Value::Null, "{body}");
            } else {
                assert_eq!(body["applied"]["applied"], 1, "{name}: {body}");
            }
        }
    }
}
