use bytes::Bytes;

use super::*;
use crate::{
    model::{
        Backend, BackendId, BackendStatus, Epoch, Health, Incarnation, Pool, PoolName, Reason,
        Standing, Weight,
    },
    sync::Publisher,
};

const EPOCH: Epoch = Epoch([1; 16]);
const OTHER: Epoch = Epoch([2; 16]);

/// Payloads: nothing for a pool, `POOL WEIGHT` for a backend, `up` or `down` for
/// a status. Whatever begins with `future` is not understood.
fn decode(object: &Object) -> Result<Resource, Invalid> {
    let text = std::str::from_utf8(&object.payload).unwrap();
    if text.starts_with("future") {
        return Err(Invalid::unknown("payload", "unknown_algorithm", "from the future"));
    }
    let name = &*object.key.name;
    Ok(match &*object.key.kind {
        "pool" => Resource::Pool(Pool::new(PoolName::new(name)?)),
        "backend" => {
            let (pool, weight) = text.split_once(' ').unwrap();
            Resource::Backend(Backend {
                weight: Weight::new(weight.parse().unwrap())?,
                incarnation: Incarnation(1),
                ..Backend::new(BackendId::new(name)?, PoolName::new(pool)?, "10.0.0.1:80".parse()?)
            })
        }
        _ => Resource::Status(BackendStatus {
            backend: BackendId::new(name)?,
            incarnation: Incarnation(1),
            health: if text == "up" { Health::Up } else { Health::Down },
            addresses: vec![([10, 0, 0, 1], 80).into()],
            reason: Reason::default(),
            since_unix_ms: 0,
            was_up: true,
            standing: Standing::default(),
        }),
    })
}

fn object(kind: &str, name: &str, revision: u64, payload: &'static str) -> Object {
    Object { key: Key::new(kind, name), revision, payload: Bytes::from(payload) }
}

/// A store with pool `a` and, in it, the backend `b` that is up.
fn store(epoch: Epoch) -> Publisher {
    let mut publisher = Publisher::new(Version { epoch, revision: 1 }, ObjectSet::new());
    let objects = vec![
        object("pool", "a", 2, ""),
        object("backend", "b", 2, "a 1"),
        object("status", "b", 2, "up"),
    ];
    publisher.commit(2, objects, vec![], 0);
    publisher
}

fn synced(publisher: &Publisher) -> Subscriber {
    let mut subscriber = Subscriber::new(decode);
    assert!(refused(subscriber.on_snapshot(publisher.full_state(None))).is_none());
    subscriber
}

/// Commits a change, and gives it to the subscriber as a delta.
fn change(
    publisher: &mut Publisher,
    subscriber: &mut Subscriber,
    upserts: Vec<Object>,
    deletes: Vec<Key>,
) {
    let from = publisher.version().revision;
    publisher.commit(from + 1, upserts, deletes, 0);
    let outcome = subscriber.on_delta(publisher.delta_since(from).unwrap());
    assert_eq!(refused(outcome), None);
    assert_eq!(subscriber.objects(), publisher.objects());
}

fn refused(outcome: Outcome) -> Option<(Refusal, String)> {
    match outcome {
        Outcome::Apply(_) => None,
        Outcome::Refuse(answer) => answer.refused,
    }
}

fn weight(subscriber: &Subscriber, pool: &str) -> Option<u16> {
    let pool = subscriber.snapshot().pools().get(&PoolName::new(pool).unwrap())?;
    Some(pool.backends.get(&BackendId::new("b").unwrap())?.backend.weight.get())
}

fn can_serve(subscriber: &Subscriber) -> bool {
    let mut pools = subscriber.snapshot().pools().values();
    pools.any(|pool| pool.can_serve())
}

/// What a restart would make of it.
fn restarted(subscriber: &Subscriber) -> Subscriber {
    let again = Subscriber::restored(
        decode,
        subscriber.held().unwrap().version,
        subscriber.objects().iter().cloned().collect(),
        subscriber.fallbacks().cloned().collect(),
    );
    assert_eq!(again.held(), subscriber.held());
    assert_eq!(again.snapshot(), subscriber.snapshot());
    assert!(again.rejections().eq(subscriber.rejections()));
    assert!(again.fallbacks().eq(subscriber.fallbacks()));
    again
}

#[test]
fn what_does_not_follow_is_refused_and_changes_nothing() {
    let mut publisher = store(EPOCH);
    let mut subscriber = synced(&publisher);
    let held = subscriber.held();
    publisher.commit(3, vec![object("pool", "c", 3, "")], vec![], 0);
    let delta = publisher.delta_since(2).unwrap();
    let older = Publisher::new(Version { epoch: EPOCH, revision: 1 }, ObjectSet::new());
    let twice = [delta.upserts.clone(), delta.upserts.clone()].concat();
    for outcome in [
        subscriber.on_delta(Delta { from_revision: 1, ..delta.clone() }),
        subscriber.on_delta(Delta { digest: Digest(7), ..delta.clone() }),
        subscriber.on_delta(Delta { upserts: twice, ..delta.clone() }),
        subscriber.on_delta(Delta { to: Version { epoch: OTHER, revision: 3 }, ..delta.clone() }),
        subscriber.on_snapshot(older.full_state(None)),
        subscriber.on_snapshot(FullState { digest: Digest(7), ..publisher.full_state(None) }),
    ] {
        assert_eq!(refused(outcome).unwrap().0, Refusal::Resync);
        assert_eq!(subscriber.held(), held);
    }
    assert_eq!(refused(subscriber.on_delta(delta)), None);
}

#[test]
fn a_heartbeat_tells_only_of_another_digest_at_the_same_version() {
    let publisher = store(EPOCH);
    let subscriber = synced(&publisher);
    let held = subscriber.held().unwrap();
    let newer = Version { epoch: EPOCH, revision: 3 };
    assert_eq!(subscriber.on_heartbeat(held), None);
    assert_eq!(subscriber.on_heartbeat(Held { version: newer, digest: Digest(7) }), None);
    let answer = subscriber.on_heartbeat(Held { digest: Digest(7), ..held }).unwrap();
    assert_eq!((answer.nonce, answer.held), (Nonce::default(), Some(held)));
    assert_eq!(answer.refused.unwrap().0, Refusal::Resync);
}

#[test]
fn a_refused_object_keeps_its_value_over_restarts() {
    let mut publisher = store(EPOCH);
    let mut subscriber = synced(&publisher);
    let news = ["pool", "backend", "status"];
    let news = news.map(|kind| object(kind, if kind == "pool" { "a" } else { "b" }, 3, "future"));
    change(&mut publisher, &mut subscriber, news.to_vec(), vec![]);
    for subscriber in [&subscriber, &restarted(&subscriber)] {
        assert!(can_serve(subscriber));
        assert_eq!(weight(subscriber, "a"), Some(1));
        let answer = subscriber.answer(Nonce(1));
        assert_eq!(answer.rejections.len(), 3);
        assert!(answer.rejections.iter().all(|one| one.revision == 3));
        assert_eq!(answer.held.unwrap().digest, publisher.digest());
    }
}

#[test]
fn a_refused_object_is_tried_again_when_what_it_lacked_arrives() {
    let mut publisher = store(EPOCH);
    let mut subscriber = synced(&publisher);
    let moved = object("backend", "b", 3, "c 5");
    change(&mut publisher, &mut subscriber, vec![moved], vec![]);
    assert_eq!(subscriber.rejections().next().unwrap().code, "missing_reference");
    assert_eq!((weight(&subscriber, "a"), weight(&subscriber, "c")), (Some(1), None));
    change(&mut publisher, &mut subscriber, vec![object("pool", "c", 4, "")], vec![]);
    assert_eq!((weight(&subscriber, "a"), weight(&subscriber, "c")), (None, Some(5)));
    assert_eq!(subscriber.rejections().count(), 0);
    assert!(can_serve(&restarted(&subscriber)));
}

#[test]
fn a_status_waits_for_its_backend_without_being_a_mistake() {
    let mut publisher = store(EPOCH);
    let mut subscriber = synced(&publisher);
    change(&mut publisher, &mut subscriber, vec![], vec![Key::new("backend", "b")]);
    let mut again = restarted(&subscriber);
    let upserts = vec![object("backend", "b", 4, "a 2")];
    publisher.commit(4, upserts, vec![], 0);
    for subscriber in [&mut subscriber, &mut again] {
        assert_eq!(subscriber.rejections().count(), 0);
        assert_eq!(refused(subscriber.on_delta(publisher.delta_since(3).unwrap())), None);
        assert!(can_serve(subscriber));
    }
}

#[test]
fn backends_come_back_with_their_pool() {
    let mut publisher = store(EPOCH);
    let mut subscriber = synced(&publisher);
    change(&mut publisher, &mut subscriber, vec![], vec![Key::new("pool", "a")]);
    assert_eq!(subscriber.rejections().next().unwrap().key, Key::new("backend", "b"));
    change(&mut publisher, &mut subscriber, vec![object("pool", "a", 4, "")], vec![]);
    assert!(can_serve(&subscriber));
    assert_eq!(subscriber.rejections().count(), 0);
}

#[test]
fn a_backend_does_not_follow_into_a_pool_that_goes() {
    let mut publisher = store(EPOCH);
    let mut subscriber = synced(&publisher);
    change(&mut publisher, &mut subscriber, vec![object("pool", "c", 3, "")], vec![]);
    let moved = object("backend", "b", 4, "c 5");
    change(&mut publisher, &mut subscriber, vec![moved], vec![Key::new("pool", "c")]);
    assert_eq!(weight(&subscriber, "a"), Some(1));
    assert!(can_serve(&restarted(&subscriber)));
}

#[test]
fn a_delta_without_leave_must_not_empty_a_pool() {
    let mut publisher = store(EPOCH);
    let mut subscriber = synced(&publisher);
    publisher.commit(3, vec![], vec![Key::new("backend", "b")], 0);
    let delta = publisher.delta_since(2).unwrap();
    let without = Delta { allow_empty: false, ..delta.clone() };
    let (refusal, message) = refused(subscriber.on_delta(without)).unwrap();
    assert_eq!(refusal, Refusal::WouldEmpty);
    assert!(message.contains("pool a"), "{message}");
    assert!(can_serve(&subscriber));
    assert_eq!(refused(subscriber.on_delta(delta)), None);
}

#[test]
fn another_store_is_taken_once_its_backends_are_up() {
    let mut subscriber = synced(&store(EPOCH));
    let served = Arc::clone(subscriber.snapshot());
    let mut fresh = Publisher::new(Version { epoch: OTHER, revision: 1 }, ObjectSet::new());
    let empty = fresh.full_state(subscriber.held());
    fresh.commit(2, vec![object("pool", "a", 2, ""), object("backend", "b", 2, "a 9")], vec![], 0);
    let unchecked = fresh.full_state(subscriber.held());
    for state in [empty, unchecked] {
        let (refusal, message) = refused(subscriber.on_snapshot(state)).unwrap();
        assert_eq!(refusal, Refusal::WouldEmpty);
        assert!(message.contains("another store"), "{message}");
        assert!(Arc::ptr_eq(&served, subscriber.snapshot()));
    }
    fresh.commit(3, vec![object("status", "b", 3, "up")], vec![], 0);
    assert_eq!(refused(subscriber.on_snapshot(fresh.full_state(subscriber.held()))), None);
    assert_eq!(weight(&subscriber, "a"), Some(9));
}

#[test]
fn what_a_change_does_not_touch_is_shared() {
    let mut publisher = store(EPOCH);
    let mut subscriber = synced(&publisher);
    // Left open for good: an unknown backend and a status that waits.
    let open = vec![object("backend", "x", 3, "future"), object("status", "y", 3, "up")];
    change(&mut publisher, &mut subscriber, open, vec![]);
    let before = Arc::clone(subscriber.snapshot());
    change(&mut publisher, &mut subscriber, vec![object("pool", "c", 4, "")], vec![]);
    let pool = PoolName::new("a").unwrap();
    assert!(Arc::ptr_eq(&before.pools()[&pool], &subscriber.snapshot().pools()[&pool]));
}
