use super::*;
use crate::model::{HostMatch, Incarnation, PathMatch, Reason, RoutePools, Standing};

fn pool(name: &str) -> Pool {
    Pool::new(PoolName::new(name).unwrap())
}

fn backend(id: &str, pool: &str, incarnation: u64) -> Backend {
    Backend {
        incarnation: Incarnation(incarnation),
        ..Backend::new(
            BackendId::new(id).unwrap(),
            PoolName::new(pool).unwrap(),
            "localhost:8001".parse().unwrap(),
        )
    }
}

fn up(id: &str, incarnation: u64) -> BackendStatus {
    BackendStatus {
        backend: BackendId::new(id).unwrap(),
        incarnation: Incarnation(incarnation),
        health: Health::Up,
        addresses: vec!["127.0.0.1:8001".parse().unwrap()],
        reason: Reason::default(),
        since_unix_ms: 0,
        was_up: true,
        standing: Standing::default(),
    }
}

fn route(name: &str, pool: &str) -> Route {
    Route {
        name: RouteName::new(name).unwrap(),
        listener: ListenerName::default_listener(),
        host: HostMatch::Any,
        path: PathMatch::parse("", "").unwrap(),
        pools: RoutePools::one(PoolName::new(pool).unwrap()),
    }
}

fn whole() -> Snapshot {
    let (snapshot, rejected) = Snapshot::default().changed(
        vec![
            Resource::Route(route("default", "default")),
            Resource::Status(up("b1", 1)),
            Resource::Backend(backend("b1", "default", 1)),
            Resource::Listener(Listener::new(ListenerName::default_listener())),
            Resource::Pool(pool("default")),
        ],
        &[],
    );
    assert_eq!(rejected, []);
    snapshot
}

fn entry<'a>(snapshot: &'a Snapshot, pool: &str, id: &str) -> Option<&'a BackendEntry> {
    let pool = snapshot.pools().get(&PoolName::new(pool).unwrap())?;
    pool.backends.get(&BackendId::new(id).unwrap()).map(|entry| &**entry)
}

#[test]
fn objects_may_come_in_any_order() {
    let snapshot = whole();
    assert_eq!(entry(&snapshot, "default", "b1").unwrap().health(), Health::Up);
    assert_eq!(snapshot.routes().len(), 1);
}

#[test]
fn a_backend_of_an_unknown_pool_is_refused_alone() {
    let changes = vec![
        Resource::Backend(backend("b2", "nowhere", 2)),
        Resource::Backend(backend("b3", "default", 2)),
    ];
    let (snapshot, rejected) = whole().changed(changes, &[]);
    assert_eq!(rejected.len(), 1);
    assert!(rejected[0].invalid.message.contains("nowhere"));
    assert!(entry(&snapshot, "default", "b3").is_some());
}

#[test]
fn a_backend_added_again_does_not_inherit_its_verdict() {
    let again = Resource::Backend(backend("b1", "default", 9));
    let (snapshot, _) = whole().changed(vec![again], &[]);
    assert_eq!(entry(&snapshot, "default", "b1").unwrap().health(), Health::Unknown);
    let (snapshot, _) = snapshot.changed(vec![Resource::Status(up("b1", 1))], &[]);
    assert_eq!(entry(&snapshot, "default", "b1").unwrap().health(), Health::Unknown);
}

#[test]
fn a_backend_keeps_its_verdict_when_it_moves() {
    let changes = vec![Resource::Pool(pool("blue")), Resource::Backend(backend("b1", "blue", 1))];
    let (snapshot, _) = whole().changed(changes, &[]);
    assert!(entry(&snapshot, "default", "b1").is_none());
    assert_eq!(entry(&snapshot, "blue", "b1").unwrap().health(), Health::Up);
}

#[test]
fn untouched_pools_are_shared() {
    let (before, _) = whole().changed(vec![Resource::Pool(pool("blue"))], &[]);
    let (after, _) = before.changed(vec![Resource::Backend(backend("b9", "blue", 3))], &[]);
    let default = PoolName::default_pool();
    assert!(Arc::ptr_eq(&before.pools()[&default], &after.pools()[&default]));
}

#[test]
fn a_route_to_a_deleted_pool_does_not_stay() {
    let (snapshot, rejected) = whole().changed(vec![], &[Key::new("pool", "default")]);
    assert!(snapshot.routes().is_empty());
    assert_eq!(rejected[0].key, Key::new("route", "default"));
}

#[test]
fn emptied_and_silenced_pools_are_told_apart() {
    let full = whole();
    let (empty, _) = full.changed(vec![], &[Key::new("backend", "b1")]);
    assert_eq!(full.first_emptied_by(&empty), Some(&PoolName::default_pool()));
    let unchecked = Resource::Backend(backend("b1", "default", 2));
    let (silent, _) = full.changed(vec![unchecked], &[]);
    assert_eq!(full.first_emptied_by(&silent), None);
    assert_eq!(full.first_silenced_by(&silent), Some(&PoolName::default_pool()));
}
