//! Writes that succeed: once, and only if they are meant.

use lb_proto::v1::{self as pb, PutMode, object::Object as Any};
use lb_tests::cluster::Cluster;
use tonic::Code;

use crate::program;

fn backend(id: &str, address: &str) -> Any {
    Any::Backend(pb::Backend {
        id: id.to_owned(),
        address: address.to_owned(),
        admin_state: pb::AdminState::Disabled.into(),
        ..pb::Backend::default()
    })
}

#[tokio::test]
async fn a_repeated_write_with_the_same_key_is_done_once() {
    let mut cluster = Cluster::start(program(), 0).await;
    let options = || pb::WriteOptions { idempotency_key: "k1".to_owned(), ..Default::default() };
    let api = cluster.api.clone();
    // Without an id: done twice, there would be two backends.
    let create = |address: &'static str| {
        let api = api.clone();
        async move { api.put_as(backend("", address), PutMode::Create, options()).await }
    };
    let first = create("10.0.0.1:80").await.unwrap();
    assert!(first.changed);
    let again = create("10.0.0.1:80").await.unwrap();
    assert_eq!((again.revision, &again.objects), (first.revision, &first.objects));
    assert_eq!(cluster.api.list("backend").await.0.len(), 1);
    // The key with another content is a mistake of whoever made it.
    let other = create("10.0.0.2:80").await.unwrap_err();
    assert!(other.message().contains("k1"), "{other:?}");
    assert_eq!(cluster.api.list("backend").await.0.len(), 1);
    // It is remembered beyond a crash, which is when it is needed.
    cluster.kill_control_plane().await;
    cluster.start_control_plane().await;
    let later = create("10.0.0.1:80").await.unwrap();
    assert_eq!((later.revision, &later.objects), (first.revision, &first.objects));
    assert_eq!(cluster.api.list("backend").await.0.len(), 1);
}

#[tokio::test]
async fn a_dry_run_answers_as_the_write_would_and_changes_nothing() {
    let cluster = Cluster::start(program(), 1).await;
    let before = cluster.api.list("").await;
    let dry_run = || pb::WriteOptions { dry_run: true, ..Default::default() };
    let answer = cluster.api.put(backend("", "10.0.0.1:80"), dry_run()).await.unwrap();
    let Some(Any::Backend(planned)) = &answer.objects[0].object else { panic!("{answer:?}") };
    assert_eq!(planned.id, "backend1");
    let refused = cluster.api.put(backend("", "nonsense"), dry_run()).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let printed = cluster.lbctl(&["add-backend", "10.0.0.1:80", "--dry-run"]).await.expect(0);
    assert!(printed.stdout.contains("backend1"), "{printed:?}");
    assert!(printed.stdout.contains("dry run"), "{printed:?}");
    assert_eq!(cluster.api.list("").await, before);
}

#[tokio::test]
async fn a_write_that_changes_nothing_takes_no_revision() {
    let cluster = Cluster::start(program(), 1).await;
    let options = pb::WriteOptions::default;
    let first = cluster.api.put(backend("b1", "10.0.0.1:80"), options()).await.unwrap();
    let again = cluster.api.put(backend("b1", "10.0.0.1:80"), options()).await.unwrap();
    assert_eq!((again.changed, again.revision), (false, first.revision));
    let printed = cluster.lbctl(&["set-algorithm", "default", "round_robin"]).await.expect(0);
    assert!(printed.stdout.contains("unchanged"), "{printed:?}");
}

#[tokio::test]
async fn of_two_writers_that_read_the_same_one_wins() {
    let cluster = Cluster::start(program(), 0).await;
    let options = pb::WriteOptions::default;
    let read = cluster.api.put(backend("b1", "10.0.0.1:80"), options()).await.unwrap().revision;
    let expecting = || pb::WriteOptions { expected_revision: read, ..Default::default() };
    let state = |state: pb::AdminState, options| pb::SetBackendStateRequest {
        id: "b1".to_owned(),
        state: state.into(),
        options: Some(options),
        ..Default::default()
    };
    let mut registry = cluster.api.registry();
    let won = registry.set_backend_state(state(pb::AdminState::Draining, expecting())).await;
    won.unwrap();
    let lost = registry.set_backend_state(state(pb::AdminState::Enabled, expecting())).await;
    let lost = lost.unwrap_err();
    assert_eq!(lost.code(), Code::Aborted);
    assert!(lost.message().contains("b1") && lost.message().contains("read it again"), "{lost:?}");
    let conflict = cluster.lbctl(&["enable-backend", "b1", "--if-revision", "1"]).await.expect(5);
    assert!(conflict.stderr.contains("b1"), "{conflict:?}");
}

#[tokio::test]
async fn a_batch_is_one_revision_or_nothing() {
    let cluster = Cluster::start(program(), 0).await;
    let put = |object| pb::ApplyItem {
        change: Some(pb::apply_item::Change::Put(pb::Object { object: Some(object), revision: 0 })),
    };
    let before = cluster.api.list("").await;
    let items = vec![put(backend("b1", "10.0.0.1:80")), put(backend("b2", "10.0.0.1:80"))];
    let request = pb::ApplyRequest { items, options: None };
    let refused = cluster.api.registry().apply(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::AlreadyExists, "{refused:?}");
    assert_eq!(cluster.api.list("").await, before);

    let pool = Any::Pool(pb::Pool { name: "p".to_owned(), ..pb::Pool::default() });
    let mut in_p = backend("b1", "10.0.0.1:80");
    if let Any::Backend(backend) = &mut in_p {
        backend.pool = "p".to_owned();
    }
    // In an order in which one by one they could not be written.
    let items = vec![put(in_p), put(pool)];
    let written = cluster.api.registry().apply(pb::ApplyRequest { items, options: None }).await;
    assert_eq!(written.unwrap().into_inner().revision, before.1 + 1);
}

#[tokio::test]
async fn removing_most_of_a_pool_at_once_needs_force() {
    let cluster = Cluster::start(program(), 0).await;
    for (id, address) in [("b1", "10.0.0.1:80"), ("b2", "10.0.0.2:80"), ("b3", "10.0.0.3:80")] {
        cluster.api.put(backend(id, address), pb::WriteOptions::default()).await.unwrap();
    }
    let delete = |name: &str| pb::ApplyItem {
        change: Some(pb::apply_item::Change::Delete(pb::ObjectName {
            kind: "backend".to_owned(),
            name: name.to_owned(),
        })),
    };
    let request = |force| pb::ApplyRequest {
        items: vec![delete("b1"), delete("b2")],
        options: Some(pb::WriteOptions { force, ..Default::default() }),
    };
    let refused = cluster.api.registry().apply(request(false)).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("force"), "{refused:?}");
    assert_eq!(cluster.api.list("backend").await.0.len(), 3);
    cluster.api.registry().apply(request(true)).await.unwrap();
    assert_eq!(cluster.api.list("backend").await.0.len(), 1);
}

#[tokio::test]
async fn an_id_is_not_given_twice() {
    let mut cluster = Cluster::start(program(), 0).await;
    let options = pb::WriteOptions::default;
    let id = |written: pb::WriteResponse| match written.objects.into_iter().next() {
        Some(pb::Object { object: Some(Any::Backend(backend)), .. }) => backend.id,
        other => panic!("{other:?}"),
    };
    let first = id(cluster.api.put(backend("", "10.0.0.1:80"), options()).await.unwrap());
    assert_eq!(first, "backend1");
    cluster.api.delete("backend", &first).await;
    cluster.kill_control_plane().await;
    cluster.start_control_plane().await;
    let second = id(cluster.api.put(backend("", "10.0.0.1:80"), options()).await.unwrap());
    assert_eq!(second, "backend2");
}

#[tokio::test]
async fn limits_and_timeouts_are_set_and_shown() {
    let cluster = Cluster::start(program(), 1).await;
    let args = ["set-listener", "default", "--max-body-bytes", "10M", "--max-connections", "500"];
    let printed = cluster.lbctl(&args).await.expect(0);
    for change in ["max-body-bytes unlimited -> 10MiB", "max-connections unlimited -> 500"] {
        assert!(printed.stdout.contains(change), "{printed:?}");
    }
    let args = ["set-pool", "default", "--max-idle-connections", "0", "--max-connection-age", "2h"];
    let printed = cluster.lbctl(&args).await.expect(0);
    let change = "max-idle-connections 32 -> 0  max-connection-age 1h -> 2h";
    assert!(printed.stdout.contains(change), "{printed:?}");

    let json =
        cluster.lbctl(&["describe", "listener", "default", "-o", "json"]).await.expect(0).json();
    assert_eq!(json["max_body_bytes"], 10 << 20, "{json}");
    assert_eq!((&json["max_connections"], &json["drain_timeout_ms"]), (&500.into(), &2000.into()));
    let json = cluster.lbctl(&["describe", "pool", "default", "-o", "json"]).await.expect(0).json();
    assert_eq!(json["max_idle_connections"], 0, "{json}");
    assert_eq!(json["max_connection_age_ms"], 7_200_000, "{json}");
    let text = cluster.lbctl(&["describe", "listener", "default"]).await.expect(0).stdout;
    assert!(text.contains("max-request-line-bytes     8KiB"), "{text}");
}

#[tokio::test]
async fn a_listener_is_added_and_removed() {
    let cluster = Cluster::start(program(), 1).await;
    let printed =
        cluster.lbctl(&["add-listener", "internal", "--max-fields", "50"]).await.expect(0);
    assert!(printed.stdout.contains("+ listener internal  max-fields 50"), "{printed:?}");
    let json = cluster.lbctl(&["get", "listener", "internal", "-o", "json"]).await.expect(0).json();
    assert_eq!((&json["max_fields"], &json["max_head_bytes"]), (&50.into(), &65_536.into()));
    let printed = cluster.lbctl(&["remove-listener", "internal"]).await.expect(0);
    assert!(printed.stdout.contains("- listener internal"), "{printed:?}");
    let gone = cluster.lbctl(&["get", "listener", "internal"]).await.expect(7);
    assert!(gone.stderr.contains("internal"), "{gone:?}");
}
