//! Bad input changes nothing and says what to do.

use lb_proto::v1::{self as pb, PutMode, object::Object as Any};
use lb_tests::cluster::Cluster;
use tonic::{Code, Status};

use crate::program;

fn backend(change: impl FnOnce(&mut pb::Backend)) -> Any {
    let mut backend = pb::Backend {
        id: "b9".to_owned(),
        pool: "default".to_owned(),
        address: "10.0.0.9:80".to_owned(),
        ..pb::Backend::default()
    };
    change(&mut backend);
    Any::Backend(backend)
}

fn pool(change: impl FnOnce(&mut pb::Pool)) -> Any {
    let mut pool = pb::Pool { name: "p9".to_owned(), ..pb::Pool::default() };
    change(&mut pool);
    Any::Pool(pool)
}

fn route(change: impl FnOnce(&mut pb::Route)) -> Any {
    let mut route =
        pb::Route { name: "r9".to_owned(), pool: "default".to_owned(), ..Default::default() };
    change(&mut route);
    Any::Route(route)
}

fn listener(change: impl FnOnce(&mut pb::Listener)) -> Any {
    let mut listener = pb::Listener { name: "default".to_owned(), ..Default::default() };
    change(&mut listener);
    Any::Listener(listener)
}

/// A control plane with one backend, `b1`.
async fn world() -> Cluster {
    let cluster = Cluster::start(program(), 0).await;
    let object = backend(|b| {
        b.id = "b1".to_owned();
        b.address = "10.0.0.1:80".to_owned();
        b.set_admin_state(pb::AdminState::Disabled);
    });
    cluster.api.put(object, pb::WriteOptions::default()).await.unwrap();
    cluster
}

/// The code is right, the message has what it must, and is one that fits on a screen.
#[track_caller]
fn check(what: &str, refused: &Status, code: Code, parts: &[&str]) {
    let message = refused.message();
    assert_eq!(refused.code(), code, "{what}: {message}");
    for part in parts {
        assert!(message.contains(part), "{what}: {part:?} is missing in {message:?}");
    }
    assert!(message.len() < 600, "{what}: {} bytes: {message:.600}", message.len());
}

#[tokio::test]
async fn a_bad_object_is_refused_with_the_reason_and_the_way_out() {
    let cluster = world().await;
    let before = cluster.api.list("").await;
    let huge = "x".repeat(1024 * 1024);
    let cases: Vec<(&str, Any, Code, &[&str])> = vec![
        (
            "unknown pool",
            backend(|b| b.pool = "web".to_owned()),
            Code::InvalidArgument,
            &["pool \"web\"", "does not exist", "create it first"],
        ),
        (
            "address without a port",
            backend(|b| b.address = "10.0.0.9".to_owned()),
            Code::InvalidArgument,
            &["10.0.0.9", "port"],
        ),
        (
            "address that is none",
            backend(|b| b.address = "http://a b/".to_owned()),
            Code::InvalidArgument,
            &["http://a b/"],
        ),
        ("port 0", backend(|b| b.address = "a:0".to_owned()), Code::InvalidArgument, &["port 0"]),
        (
            "weight 257",
            backend(|b| b.weight = Some(257)),
            Code::InvalidArgument,
            &["257", "0 to 256"],
        ),
        (
            "address of another backend",
            backend(|b| b.address = "10.0.0.1:80".to_owned()),
            Code::AlreadyExists,
            &["10.0.0.1:80", "b1", "set-backend"],
        ),
        (
            "name with a slash",
            backend(|b| b.id = "a/b".to_owned()),
            Code::InvalidArgument,
            &["a/b"],
        ),
        ("long id", backend(|b| b.id = huge.clone()), Code::InvalidArgument, &["63"]),
        (
            "long address",
            backend(|b| b.address = huge.clone()),
            Code::InvalidArgument,
            &["address"],
        ),
        ("empty name", pool(|p| p.name = String::new()), Code::InvalidArgument, &["name"]),
        ("long name", pool(|p| p.name = huge.clone()), Code::InvalidArgument, &["name"]),
        (
            "unknown algorithm",
            pool(|p| p.algorithm = "quantum".to_owned()),
            Code::InvalidArgument,
            &["quantum", "known are", "least_connections"],
        ),
        (
            "too many choices",
            pool(|p| {
                p.algorithm = "least_connections".to_owned();
                p.choices = 99;
            }),
            Code::InvalidArgument,
            &["99", "2 to 32"],
        ),
        (
            "absurd timeout",
            pool(|p| p.request_timeout_ms = u32::MAX),
            Code::InvalidArgument,
            &["request_timeout", "24h"],
        ),
        (
            "health path without a slash",
            pool(|p| {
                p.health_check =
                    Some(pb::HealthCheck { path: "x".to_owned(), ..Default::default() })
            }),
            Code::InvalidArgument,
            &["must begin with '/'"],
        ),
        (
            "route to nowhere",
            route(|r| r.pool = "web".to_owned()),
            Code::InvalidArgument,
            &["pool \"web\"", "create it first"],
        ),
        (
            "two kinds of path",
            route(|r| {
                r.path = "/a".to_owned();
                r.path_prefix = "/b".to_owned();
            }),
            Code::InvalidArgument,
            &["path"],
        ),
        (
            "network that is none",
            listener(|l| l.trusted_proxies = vec!["10.0.0.0/99".to_owned()]),
            Code::InvalidArgument,
            &["10.0.0.0/99"],
        ),
        (
            "too many fields",
            listener(|l| l.max_fields = 257),
            Code::InvalidArgument,
            &["max_fields 257", "1 to 256"],
        ),
        (
            "a head that holds nothing",
            listener(|l| l.max_head_bytes = 255),
            Code::InvalidArgument,
            &["max_head_bytes 255", "256 to 1048576"],
        ),
        (
            "a line longer than the head",
            listener(|l| l.max_head_bytes = 4096),
            Code::InvalidArgument,
            &["max_request_line_bytes 8192", "max_head_bytes 4096", "raise"],
        ),
        (
            "draining for ever",
            listener(|l| l.drain_timeout_ms = u32::MAX),
            Code::InvalidArgument,
            &["drain_timeout", "1ms to 24h"],
        ),
        (
            "too many idle connections",
            pool(|p| p.max_idle_connections = Some(10_001)),
            Code::InvalidArgument,
            &["max_idle_connections 10001", "0 to 10000"],
        ),
        (
            "connections that grow too old",
            pool(|p| p.max_connection_age_ms = 86_400_001),
            Code::InvalidArgument,
            &["max_connection_age", "24h"],
        ),
    ];
    for (what, object, code, parts) in cases {
        let refused = cluster.api.put(object, pb::WriteOptions::default()).await;
        let refused = refused.expect_err(what);
        check(what, &refused, code, parts);
    }
    assert_eq!(cluster.api.list("").await, before, "nothing has changed");
}

#[tokio::test]
async fn a_write_against_what_is_there_is_refused() {
    let cluster = world().await;
    let before = cluster.api.list("").await;
    let none = pb::WriteOptions::default;
    let there = backend(|b| b.id = "b1".to_owned());
    let refused = cluster.api.put_as(there.clone(), PutMode::Create, none()).await.unwrap_err();
    check("duplicate", &refused, Code::AlreadyExists, &["b1", "exists already", "set-backend"]);

    let absent = backend(|b| b.id = "b77".to_owned());
    let refused = cluster.api.put_as(absent, PutMode::Replace, none()).await.unwrap_err();
    check("absent", &refused, Code::NotFound, &["b77", "does not exist", "known are b1"]);

    let stale = pb::WriteOptions { expected_revision: 1, ..none() };
    let refused = cluster.api.put(there, stale).await.unwrap_err();
    check("stale", &refused, Code::Aborted, &["b1", "expected 1", "read it again"]);

    let long_key = pb::WriteOptions { idempotency_key: "k".repeat(1 << 20), ..none() };
    let refused = cluster.api.put(pool(|_| {}), long_key).await.unwrap_err();
    check("long key", &refused, Code::InvalidArgument, &["idempotency key", "255"]);
    assert_eq!(cluster.api.list("").await, before, "nothing has changed");
}

#[tokio::test]
async fn what_cannot_be_removed_says_why() {
    let cluster = world().await;
    let before = cluster.api.list("").await;
    let mut registry = cluster.api.registry();
    let mut delete = async |kind: &str, name: &str| {
        let (kind, name) = (kind.to_owned(), name.to_owned());
        let request = pb::DeleteRequest { kind, name, options: None };
        registry.delete(request).await.unwrap_err()
    };
    let refused = delete("backend", "b77").await;
    check("absent", &refused, Code::NotFound, &["b77", "known are b1"]);
    let refused = delete("pool", "default").await;
    check("in use", &refused, Code::FailedPrecondition, &["still used by", "route default"]);
    let refused = delete("sprocket", "x").await;
    check("unknown kind", &refused, Code::InvalidArgument, &["sprocket", "pool", "backend"]);
    let refused = delete("", "x").await;
    check("no kind", &refused, Code::InvalidArgument, &["kind"]);
    let refused = delete("status", "b1").await;
    check("status", &refused, Code::InvalidArgument, &["status"]);
    let refused = delete("backend", &"x".repeat(1 << 20)).await;
    check("long name", &refused, Code::NotFound, &["does not exist"]);
    assert_eq!(cluster.api.list("").await, before, "nothing has changed");
}

#[tokio::test]
async fn requests_without_content_are_refused() {
    let cluster = world().await;
    let before = cluster.api.list("").await;
    let mut registry = cluster.api.registry();
    let refused = registry.put(pb::PutRequest::default()).await.unwrap_err();
    check("no object", &refused, Code::InvalidArgument, &["object"]);
    let unknown_mode = pb::PutRequest {
        object: Some(pb::Object { object: Some(pool(|_| {})), revision: 0 }),
        mode: 9,
        options: None,
    };
    let refused = registry.put(unknown_mode).await.unwrap_err();
    check("mode", &refused, Code::InvalidArgument, &["9", "upsert"]);
    let unknown_state =
        pb::SetBackendStateRequest { id: "b1".to_owned(), state: 9, ..Default::default() };
    let refused = registry.set_backend_state(unknown_state).await.unwrap_err();
    check("state", &refused, Code::InvalidArgument, &["9"]);
    let empty_item = pb::ApplyRequest { items: vec![pb::ApplyItem::default()], options: None };
    let refused = registry.apply(empty_item).await.unwrap_err();
    check("item", &refused, Code::InvalidArgument, &["item 1"]);
    let nobody = pb::GetRequest { kind: "pool".to_owned(), name: "nobody".to_owned() };
    let refused = registry.get(nobody).await.unwrap_err();
    check("get", &refused, Code::NotFound, &["nobody", "known are default"]);
    let elsewhere = pb::ListRequest { kind: "backend".to_owned(), pool: "web".to_owned() };
    let refused = registry.list(elsewhere).await.unwrap_err();
    check("list", &refused, Code::NotFound, &["web", "known are default"]);
    let future = pb::WaitAppliedRequest { revision: 1 << 40, timeout_ms: 0 };
    let refused = cluster.api.fleet().wait_applied(future).await.unwrap_err();
    check("future", &refused, Code::OutOfRange, &["the newest is"]);
    assert_eq!(cluster.api.list("").await, before, "nothing has changed");
}

#[tokio::test]
async fn lbctl_turns_refusals_into_exit_codes() {
    let cluster = world().await;
    let before = cluster.api.list("").await;
    for (code, args, part) in [
        (2, vec!["add-backend", "localhost"], "port"),
        (2, vec!["add-backend", "a:1", "--weight", "257"], "0 to 256"),
        (2, vec!["set-listener", "default", "--max-fields", "257"], "257 is outside 1 to 256"),
        (2, vec!["add-listener", "x", "--max-body-bytes", "10XB"], "64KiB or 10MB"),
        (2, vec!["set-pool", "default", "--max-idle-connections", "10001"], "0 to 10000"),
        (4, vec!["set-listener", "default", "--max-head-bytes", "4k"], "max_head_bytes 4096"),
        (4, vec!["remove-listener", "default"], "still used by"),
        (5, vec!["add-listener", "default"], "exists already"),
        (7, vec!["set-listener", "x", "--max-fields", "9"], "default"),
        (7, vec!["remove-listener", "x"], "default"),
        (4, vec!["add-backend", "a:1", "--pool", "web"], "create it first"),
        (4, vec!["remove-pool", "default"], "still used by"),
        (5, vec!["add-backend", "10.0.0.1:80"], "b1"),
        (5, vec!["add-pool", "default"], "exists already"),
        (7, vec!["remove-backend", "b77"], "b77"),
        (7, vec!["set-backend", "b77", "--weight", "1"], "b77"),
        (7, vec!["describe", "backend", "b77"], "b1"),
        (7, vec!["get", "pool", "web"], "default"),
        (7, vec!["get", "pool", "defalt"], "did you mean default?"),
        (7, vec!["explain", "pool.request_timout"], "did you mean \"request_timeout\"?"),
        (2, vec!["data-plane", "--log-level", "verbose"], "is no level"),
        (2, vec!["control-plane", "--log-level", "verbose"], "is no level"),
    ] {
        let refused = cluster.lbctl(&args).await.expect(code);
        assert!(refused.stderr.contains(part), "{args:?}: {}", refused.stderr);
        assert_eq!(refused.stdout, "", "{args:?}");
    }
    assert_eq!(cluster.api.list("").await, before, "nothing has changed");
}
