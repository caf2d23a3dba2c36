//! Writing and reading the registry, and waiting for the proxies.

use super::*;

#[tokio::test]
async fn a_backend_is_added_listed_changed_and_removed() {
    let world = world().await;
    let added = world.add("127.0.0.1:9", None).await.unwrap();
    assert!(added.changed);
    let Some(pb::object::Object::Backend(backend)) = &added.objects[0].object else {
        panic!("a backend was put");
    };
    assert_eq!((backend.id.as_str(), backend.pool.as_str()), ("backend1", "default"));

    let get = pb::GetRequest { kind: "backend".into(), name: "backend1".into() };
    let got = world.registry().get(get.clone()).await.unwrap().into_inner();
    assert_eq!(got.object.as_ref(), added.objects.first());

    let state = pb::SetBackendStateRequest {
        id: "backend1".into(),
        state: pb::AdminState::Disabled.into(),
        options: None,
        ..Default::default()
    };
    world.registry().set_backend_state(state).await.unwrap();
    let all = world.registry().list(pb::ListRequest::default()).await.unwrap().into_inner();
    assert_eq!(all.objects.len(), 4, "pool, backend, listener and route");

    let list = pb::ListBackendsRequest::default();
    let views = world.fleet().list_backends(list).await.unwrap().into_inner().backends;
    assert_eq!(views[0].backend.as_ref().unwrap().admin_state(), pb::AdminState::Disabled);
    assert!(views[0].status.is_some());

    let delete =
        pb::DeleteRequest { kind: "backend".into(), name: "backend1".into(), options: None };
    world.registry().delete(delete).await.unwrap();
    let gone = world.registry().get(get).await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
    assert!(gone.message().contains("backend1"), "{}", gone.message());
}

#[tokio::test]
async fn refusals_have_the_codes_of_the_contract() {
    let world = world().await;
    world.add("127.0.0.1:9", None).await.unwrap();
    let twin = world.add("127.0.0.1:9", None).await.unwrap_err();
    assert_eq!(twin.code(), Code::AlreadyExists);
    assert!(twin.message().contains("backend1"));
    for (address, part) in [("127.0.0.1", "HOST:PORT"), ("", "HOST:PORT"), ("h:0", "port 0")] {
        let bad = world.add(address, None).await.unwrap_err();
        assert_eq!(bad.code(), Code::InvalidArgument);
        assert!(bad.message().contains(part), "{}", bad.message());
    }
    let late = pb::WriteOptions { expected_revision: 1, ..Default::default() };
    let drain = pb::SetBackendStateRequest {
        id: "backend1".into(),
        state: pb::AdminState::Draining.into(),
        options: Some(late),
        ..Default::default()
    };
    let conflict = world.registry().set_backend_state(drain).await.unwrap_err();
    assert_eq!(conflict.code(), Code::Aborted);
    let used = pb::DeleteRequest { kind: "pool".into(), name: "default".into(), options: None };
    let refused = world.registry().delete(used).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    let unknown = pb::GetRequest { kind: "cluster".into(), name: "default".into() };
    let refused = world.registry().get(unknown).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let status = pb::ListRequest { kind: "status".into(), pool: String::new() };
    let refused = world.registry().list(status).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let empty = world.registry().put(pb::PutRequest::default()).await.unwrap_err();
    assert_eq!(empty.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_repeated_write_is_answered_and_not_done_again() {
    let world = world().await;
    let options = || Some(pb::WriteOptions { idempotency_key: "k".into(), ..Default::default() });
    let first = world.add("127.0.0.1:9", options()).await.unwrap();
    // That the caller waits, or for how long, does not make it another write.
    let patient = pb::WriteOptions { wait: wait(5).wait, ..options().unwrap() };
    let again = world.add("127.0.0.1:9", Some(patient)).await.unwrap();
    assert_eq!((again.revision, &again.objects), (first.revision, &first.objects));
    let other = world.add("127.0.0.1:10", options()).await.unwrap_err();
    assert_eq!(other.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn without_a_proxy_a_write_is_stored_and_says_so() {
    let world = world().await;
    let progress = world.add("127.0.0.1:9", Some(wait(0))).await.unwrap().progress.unwrap();
    assert_eq!((progress.proxies, progress.applied, progress.done), (0, 0, true));
}

#[tokio::test]
async fn a_write_waits_until_every_proxy_has_applied_it() {
    let world = world().await;
    let mut proxies = [world.proxy("p1").await, world.proxy("p2").await];
    let write = world.add("127.0.0.1:9", Some(wait(20_000)));
    let follow = async {
        for proxy in &mut proxies {
            let delta = proxy.transmission().await;
            assert!(matches!(&delta, Transmission::Delta(d) if !d.upserts.is_empty()));
            proxy.apply(delta).await;
        }
    };
    let (written, ()) = tokio::join!(write, follow);
    let progress = written.unwrap().progress.unwrap();
    assert_eq!((progress.proxies, progress.applied, progress.done), (2, 2, true));
    assert!(progress.laggards.is_empty());
}

#[tokio::test]
async fn a_proxy_that_does_not_answer_is_named_when_the_time_is_up() {
    let world = world().await;
    let _silent = world.proxy("silent").await;
    world.event("proxy_synced").await;
    let progress = world.add("127.0.0.1:9", Some(wait(50))).await.unwrap().progress.unwrap();
    assert!(!progress.done);
    let laggard = &progress.laggards[0];
    assert_eq!((laggard.proxy_id.as_str(), laggard.state.as_str()), ("silent", "behind"));
    assert_eq!(laggard.applied_revision, 1);
}

#[tokio::test]
async fn a_refused_object_ends_the_wait_and_is_shown_with_its_reason() {
    let world = world().await;
    let mut proxy = world.proxy("p1").await;
    let write = world.add("127.0.0.1:9", Some(wait(20_000)));
    let refuse = async {
        let delta = proxy.transmission().await;
        proxy.reject(delta).await;
    };
    let (written, ()) = tokio::join!(write, refuse);
    let progress = written.unwrap().progress.unwrap();
    assert!(progress.done);
    let rejection = progress.rejections[0].rejection.as_ref().unwrap();
    assert_eq!((&*rejection.name, &*rejection.code), ("backend1", "unknown_algorithm"));
    let listed = world.proxies().await;
    assert_eq!((&*listed[0].state, listed[0].rejections.len()), ("rejected", 1));
    let event = world.event("proxy_rejected").await;
    assert!(event.reason.unwrap().message.contains("quantum"));
}

#[tokio::test]
async fn what_was_stored_is_there_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let config = || Config {
        storage: crate::Storage::Directory(directory.path().to_owned()),
        ..Config::in_memory()
    };
    let world = world_with(config()).await;
    let revision = world.add("127.0.0.1:9", None).await.unwrap().revision;
    // The verdict of the first check is the last change that is to come.
    let settled = world.event("backend_down").await.revision;
    let mut proxy = world.proxy("p1").await;
    while proxy.subscriber.held().is_none_or(|held| held.version.revision < settled) {
        let news = proxy.transmission().await;
        proxy.apply(news).await;
    }
    assert!(matches!(
        start(config()).await.map(|_| ()),
        Err(crate::RunError::DataDir(crate::DataDirError::Locked { .. }))
    ));
    assert!(world.running.stop().await);
    while proxy.next().await.is_ok() {}

    let world = world_with(config()).await;
    let get = pb::GetRequest { kind: "backend".into(), name: "backend1".into() };
    let got = world.registry().get(get).await.unwrap().into_inner();
    assert_eq!(got.object.unwrap().revision, revision);
    // The proxy goes on from what it holds: the epoch is the same.
    let back = world.proxy_with("p1", proxy.subscriber).await;
    world.event("proxy_connected").await;
    assert_eq!(world.proxies().await[0].snapshots_sent, 0);
    drop(back);
}
