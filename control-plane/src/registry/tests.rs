//! The rules of the registry, over a store in memory.

use lb_core::model::{
    Backend, BackendId, BackendStatus, Health, HostMatch, Incarnation, Limit, LimitName, Listener,
    ListenerName, PathMatch, Pool, PoolName, Reason, Route, RouteName, RoutePools, Standing,
    Weight,
};
use lb_proto::convert;

use super::*;
use crate::store::{MemoryStore, RedbStore};

fn registry() -> Registry {
    Registry::start(Box::new(MemoryStore::new()), Arc::new(EventLog::new())).unwrap()
}

fn backend(id: &str, pool: &str, address: &str) -> Backend {
    Backend::new(
        BackendId::new(id).unwrap(),
        PoolName::new(pool).unwrap(),
        address.parse().unwrap(),
    )
}

fn put(resource: Resource) -> Item {
    Item::Put { resource: Box::new(resource), mode: PutMode::Upsert, assign_id: false }
}

pub(super) fn add(pool: &str, address: &str) -> Item {
    let resource = Box::new(Resource::Backend(backend("unassigned", pool, address)));
    Item::Put { resource, mode: PutMode::Create, assign_id: true }
}

fn delete(kind: Kind, name: &str) -> Item {
    Item::Delete { kind, name: name.to_owned() }
}

pub(super) fn one(item: Item) -> WriteRequest {
    WriteRequest { items: vec![item], ..WriteRequest::default() }
}

fn batch(items: Vec<Item>) -> WriteRequest {
    WriteRequest { items, batch: true, ..WriteRequest::default() }
}

fn only(written: &Written) -> &Backend {
    let [Stored { value: Resource::Backend(backend), .. }] = &written.objects[..] else {
        panic!("one backend was put: {written:?}");
    };
    backend
}

fn status(backend: &Backend, health: Health) -> BackendStatus {
    BackendStatus {
        backend: backend.id.clone(),
        incarnation: backend.incarnation,
        health,
        addresses: vec!["127.0.0.1:1".parse().unwrap()],
        reason: Reason::new("check_passed", ""),
        since_unix_ms: 1,
        was_up: health == Health::Up,
        standing: Standing::default(),
    }
}

#[tokio::test]
async fn a_fresh_registry_can_take_a_backend_at_once() {
    let registry = registry();
    assert_eq!(registry.revision(), 1);
    let names = registry.read(|view| {
        [Kind::Pool, Kind::Listener, Kind::Route].map(|kind| view.catalog.names(kind).join(","))
    });
    assert_eq!(names, ["default", "default", "default"]);
    let written = registry.write(one(add("default", "localhost:8001"))).await.unwrap();
    assert_eq!((written.revision, written.changed), (2, true));
    assert_eq!(only(&written).id.as_str(), "backend1");
    assert_eq!(only(&written).incarnation, Incarnation(2));
    assert_eq!(written.objects[0].revision, 2);
}

#[tokio::test]
async fn the_published_state_is_what_the_catalog_says() {
    let registry = registry();
    registry.write(one(add("default", "localhost:8001"))).await.unwrap();
    registry.read(|view| {
        assert_eq!(view.publisher.version().revision, 2);
        for object in view.publisher.objects().iter() {
            let decoded = convert::decode_object(object).unwrap();
            let found = view.catalog.find(decoded.kind(), decoded.name()).unwrap();
            assert_eq!((found.value, found.revision), (decoded, object.revision));
        }
    });
}

#[tokio::test]
async fn ids_are_never_given_again() {
    let registry = registry();
    let id = async |address: &str| {
        let written = registry.write(one(add("default", address))).await.unwrap();
        only(&written).id.to_string()
    };
    assert_eq!(id("h:1").await, "backend1");
    registry.write(one(delete(Kind::Backend, "backend1"))).await.unwrap();
    assert_eq!(id("h:1").await, "backend2");
    let chosen = Resource::Backend(backend("backend3", "default", "h:3"));
    registry.write(one(put(chosen))).await.unwrap();
    registry.write(one(delete(Kind::Backend, "backend3"))).await.unwrap();
    assert_eq!(id("h:4").await, "backend4", "backend3 was somebody else's");
}

#[tokio::test]
async fn an_id_chosen_again_is_another_backend() {
    let registry = registry();
    let same = || one(put(Resource::Backend(backend("b", "default", "h:1"))));
    let first = registry.write(same()).await.unwrap();
    registry.record(vec![status(only(&first), Health::Up)]).await.unwrap();
    registry.write(one(delete(Kind::Backend, "b"))).await.unwrap();
    let gone = registry.read(|view| view.catalog.find(Kind::Status, "b"));
    assert_eq!(gone, None, "the status goes with its backend");
    let second = registry.write(same()).await.unwrap();
    assert!(only(&second).incarnation > only(&first).incarnation);
    let before = registry.revision();
    registry.record(vec![status(only(&first), Health::Up)]).await.unwrap();
    assert_eq!(registry.revision(), before, "a verdict about the first life is dropped");
}

#[tokio::test]
async fn another_address_needs_another_verdict() {
    let registry = registry();
    let first = registry.write(one(add("default", "h:1"))).await.unwrap();
    registry.record(vec![status(only(&first), Health::Up)]).await.unwrap();
    let heavier =
        Backend { weight: Weight::new(5).unwrap(), ..backend("backend1", "default", "h:1") };
    let written = registry.write(one(put(Resource::Backend(heavier)))).await.unwrap();
    assert_eq!(only(&written).incarnation, only(&first).incarnation);
    let up = registry.read(|view| view.catalog.status(only(&written)).unwrap().health);
    assert_eq!(up, Health::Up, "a weight changes no verdict");
    let moved = Resource::Backend(backend("backend1", "default", "h:2"));
    let written = registry.write(one(put(moved))).await.unwrap();
    assert_eq!(only(&written).incarnation, Incarnation(written.revision));
    assert_eq!(registry.read(|view| view.catalog.find(Kind::Status, "backend1")), None);
}

#[tokio::test]
async fn a_twin_is_refused_and_named() {
    let registry = registry();
    registry.write(one(add("default", "Localhost:8001"))).await.unwrap();
    let error = registry.write(one(add("default", "localhost:8001"))).await.unwrap_err();
    assert!(matches!(&error, WriteError::AlreadyExists(text) if text.contains("backend1")));
    let twins = vec![add("default", "h:2"), add("default", "h:2")];
    let error = registry.write(batch(twins)).await.unwrap_err();
    assert!(matches!(error, WriteError::AlreadyExists(_)), "{error}");
    assert_eq!(registry.revision(), 2, "a refused write changes nothing");
    let swap = vec![
        delete(Kind::Backend, "backend1"),
        put(Resource::Backend(backend("new", "default", "localhost:8001"))),
    ];
    registry.write(batch(swap)).await.unwrap();
}

#[tokio::test]
async fn references_must_resolve() {
    let registry = registry();
    let error = registry.write(one(add("blue", "h:1"))).await.unwrap_err();
    assert!(matches!(&error, WriteError::Invalid(i) if i.code == "missing_reference"), "{error}");
    let pool = put(Resource::Pool(Pool::new(PoolName::new("blue").unwrap())));
    registry.write(batch(vec![add("blue", "h:1"), pool])).await.unwrap();
    let error = registry.write(one(delete(Kind::Pool, "blue"))).await.unwrap_err();
    assert!(matches!(&error, WriteError::Precondition(text) if text.contains("backend1")));
    let error = registry.write(one(delete(Kind::Listener, "default"))).await.unwrap_err();
    assert!(matches!(&error, WriteError::Precondition(text) if text.contains("route default")));
    let both = vec![delete(Kind::Pool, "blue"), delete(Kind::Backend, "backend1")];
    registry.write(batch(both)).await.unwrap();
}

fn route(name: &str, host: &str, prefix: &str, pools: &[(&str, u32)]) -> Item {
    let pools = pools
        .iter()
        .map(|(pool, weight)| (PoolName::new(pool).unwrap(), Weight::new(*weight).unwrap()));
    put(Resource::Route(Route {
        name: RouteName::new(name).unwrap(),
        listener: ListenerName::default_listener(),
        host: HostMatch::parse(host).unwrap(),
        path: PathMatch::parse(prefix, "").unwrap(),
        pools: RoutePools::weighted(pools.collect()).unwrap(),
    }))
}

#[tokio::test]
async fn every_pool_of_a_route_must_be_there_and_stays() {
    let registry = registry();
    let split = || route("split", "a", "", &[("default", 9), ("canary", 0)]);
    let error = registry.write(one(split())).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("\"canary\"") && text.contains("known are default"), "{text}");
    let pool = put(Resource::Pool(Pool::new(PoolName::new("canary").unwrap())));
    registry.write(batch(vec![split(), pool])).await.unwrap();
    let error = registry.write(one(delete(Kind::Pool, "canary"))).await.unwrap_err();
    assert!(matches!(&error, WriteError::Precondition(text) if text.contains("route split")));
    registry.write(one(route("split", "a", "", &[("default", 1)]))).await.unwrap();
    registry.write(one(delete(Kind::Pool, "canary"))).await.unwrap();
}

#[tokio::test]
async fn a_route_that_would_never_be_taken_is_refused() {
    let registry = registry();
    let api = |name, host, prefix| route(name, host, prefix, &[("default", 1)]);
    registry.write(one(api("api", "A.example", "/api"))).await.unwrap();
    let revision = registry.revision();
    for again in [
        one(api("again", "a.example", "/api/")),
        one(api("everything", "", "/")),
        batch(vec![api("one", "b", "/"), api("two", "b", "/")]),
    ] {
        let error = registry.write(again).await.unwrap_err();
        assert!(matches!(&error, WriteError::AlreadyExists(_)), "{error}");
    }
    let error = registry.write(one(api("again", "a.example", "/api/"))).await.unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("route api matches the same") && text.contains("set-route api"),
        "{text}"
    );
    assert_eq!(registry.revision(), revision);
    // The same one again, a swap, and a longer path are no collision.
    registry.write(one(api("api", "a.example", "/api/"))).await.unwrap();
    registry.write(one(api("longer", "a.example", "/api/v2"))).await.unwrap();
    let swap = vec![api("api", "a.example", "/api/v2"), api("longer", "a.example", "/api")];
    registry.write(batch(swap)).await.unwrap();
    let renamed = vec![delete(Kind::Route, "api"), api("renamed", "a.example", "/api/v2")];
    registry.write(batch(renamed)).await.unwrap();
}

#[tokio::test]
async fn what_is_not_there_is_named_beside_what_is() {
    let registry = registry();
    let error = registry.write(one(delete(Kind::Pool, "defualt"))).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "pool defualt does not exist; did you mean default? known are default"
    );
    let state = Item::SetState {
        id: "backend1".to_owned(),
        state: AdminState::Disabled,
        drain: DrainWish::default(),
    };
    let error = registry.write(one(state)).await.unwrap_err();
    assert!(error.to_string().contains("there is no backend yet"), "{error}");
}

#[tokio::test]
async fn modes_say_what_must_be_there() {
    let registry = registry();
    let listener = |mode| Item::Put {
        resource: Box::new(Resource::Listener(Listener::new(ListenerName::new("web").unwrap()))),
        mode,
        assign_id: false,
    };
    let missing = registry.write(one(listener(PutMode::Replace))).await.unwrap_err();
    assert!(matches!(missing, WriteError::NotFound(_)), "{missing}");
    assert!(registry.write(one(listener(PutMode::Create))).await.unwrap().changed);
    let there = registry.write(one(listener(PutMode::Create))).await.unwrap_err();
    assert!(matches!(there, WriteError::AlreadyExists(_)), "{there}");
    let same = registry.write(one(listener(PutMode::Replace))).await.unwrap();
    assert_eq!((same.revision, same.changed), (2, false));
    assert_eq!(same.objects[0].revision, 2, "an unchanged object keeps its revision");
}

#[tokio::test]
async fn an_expected_revision_that_has_passed_is_a_conflict() {
    let registry = registry();
    registry.write(one(add("default", "h:1"))).await.unwrap();
    let drain = |expected_revision| WriteRequest {
        expected_revision,
        ..one(Item::SetState {
            id: "backend1".to_owned(),
            state: AdminState::Draining,
            drain: DrainWish::default(),
        })
    };
    registry.write(drain(2)).await.unwrap();
    let error = registry.write(drain(2)).await.unwrap_err();
    assert!(matches!(&error, WriteError::RevisionConflict(text) if text.contains("revision 3")));
    let error = registry.write(drain(4)).await.unwrap_err();
    let own = "backend backend1 was last changed at revision 3, and not at 4";
    assert!(error.to_string().contains(own), "{error}");
    let late = WriteRequest { expected_revision: 2, ..batch(vec![add("default", "h:2")]) };
    let error = registry.write(late).await.unwrap_err();
    assert!(matches!(error, WriteError::RevisionConflict(_)), "{error}");
}

#[tokio::test]
async fn a_dry_run_answers_and_changes_nothing() {
    let registry = registry();
    let request = || WriteRequest { dry_run: true, ..one(add("default", "h:1")) };
    for _ in 0..2 {
        let written = registry.write(request()).await.unwrap();
        assert_eq!((written.revision, written.changed), (1, true));
        assert_eq!(only(&written).id.as_str(), "backend1");
    }
    assert_eq!(registry.revision(), 1);
}

#[tokio::test]
async fn most_of_a_pool_goes_only_with_force() {
    let registry = registry();
    for port in 1..=4 {
        registry.write(one(add("default", &format!("h:{port}")))).await.unwrap();
    }
    let remove = |count: usize| {
        batch((1..=count).map(|n| delete(Kind::Backend, &format!("backend{n}"))).collect())
    };
    let error = registry.write(remove(3)).await.unwrap_err();
    assert!(matches!(&error, WriteError::Precondition(text) if text.contains("3 of the 4")));
    registry.write(remove(2)).await.unwrap();
    let rest = || batch(vec![delete(Kind::Backend, "backend3"), delete(Kind::Backend, "backend4")]);
    assert!(registry.write(rest()).await.is_err());
    registry.write(WriteRequest { force: true, ..rest() }).await.unwrap();
}

#[tokio::test]
async fn a_repeated_write_gets_the_first_answer() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let keyed = |address: &str, fingerprint| WriteRequest {
        idempotency: Some(("k".to_owned(), fingerprint)),
        ..one(add("default", address))
    };
    let start = || {
        let store = RedbStore::open(&path).unwrap();
        Registry::start(Box::new(store), Arc::new(EventLog::new())).unwrap()
    };
    let first = start();
    let written = first.write(keyed("h:1", 7)).await.unwrap();
    assert_eq!(first.write(keyed("h:1", 7)).await.unwrap(), written);
    first.stop().await;
    assert!(matches!(first.write(keyed("h:1", 7)).await, Err(WriteError::Stopping)));

    let again = start();
    assert_eq!(again.write(keyed("h:1", 7)).await.unwrap(), written);
    let error = again.write(keyed("h:2", 8)).await.unwrap_err();
    assert!(matches!(&error, WriteError::Malformed(text) if text.contains("new key")), "{error}");
    assert_eq!(again.revision(), written.revision);
}

#[tokio::test]
async fn verdicts_of_one_round_take_one_revision() {
    let registry = registry();
    let mut backends = Vec::new();
    for port in 1..=3 {
        let written = registry.write(one(add("default", &format!("h:{port}")))).await.unwrap();
        backends.push(only(&written).clone());
    }
    let statuses: Vec<_> = backends.iter().map(|b| status(b, Health::Up)).collect();
    registry.record(statuses.clone()).await.unwrap();
    assert_eq!(registry.revision(), 5);
    registry.record(statuses).await.unwrap();
    assert_eq!(registry.revision(), 5, "what is known already is not stored again");
}

#[tokio::test]
async fn the_prober_hears_of_backends_and_pools() {
    let registry = registry();
    assert_eq!(registry.touched().await, [Key::new("pool", "default")].into());
    let written = registry.write(one(add("default", "h:1"))).await.unwrap();
    registry.record(vec![status(only(&written), Health::Up)]).await.unwrap();
    assert_eq!(registry.touched().await, [Key::new("backend", "backend1")].into());
}

#[tokio::test]
async fn a_limit_counts_what_is_there_and_keeps_it_there() {
    let registry = registry();
    let limit = |target: &str, rate: &str| {
        let mut limit = Limit::new(LimitName::new("l").unwrap(), rate.parse().unwrap());
        limit.target = target.parse().unwrap();
        put(Resource::Limit(limit))
    };
    let stored =
        || registry.read(|view| view.catalog.limits().values().next().unwrap().value.clone());
    let error = registry.write(one(limit("route:api", "1/s"))).await.unwrap_err().to_string();
    assert!(
        error.contains("limit.route names route \"api\"") && error.contains("known are default"),
        "{error}"
    );
    registry.write(one(limit("route:default", "1/s"))).await.unwrap();
    let first = stored();
    assert_eq!(first.incarnation, Incarnation(2));
    assert_ne!(first.secret, [0; 2]);
    let error = registry.write(one(delete(Kind::Route, "default"))).await.unwrap_err();
    assert!(
        matches!(&error, WriteError::Precondition(text) if text.contains("limit l")),
        "{error}"
    );
    // Another rate is no other limit, and the same one again is no change.
    registry.write(one(limit("route:default", "9/s"))).await.unwrap();
    assert!(!registry.write(one(limit("route:default", "9/s"))).await.unwrap().changed);
    let faster = stored();
    assert_eq!((faster.incarnation, faster.secret), (first.incarnation, first.secret));
    registry.write(one(limit("pool:default", "9/s"))).await.unwrap();
    let other = stored();
    assert_eq!(other.incarnation, Incarnation(4));
    assert_ne!(other.secret, first.secret);
    registry
        .write(batch(vec![delete(Kind::Limit, "l"), delete(Kind::Route, "default")]))
        .await
        .unwrap();
}
