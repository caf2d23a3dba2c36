use std::sync::atomic::Ordering::Relaxed;

use lb_core::model::{
    AdminState, Backend, BackendId, BackendStatus, Drain, Health, Incarnation, Key, Reason,
    Resource, Standing, Weight,
};

use proptest::prelude::*;

use super::{
    super::{CountedBy, FailureKind, PoolIndex},
    *,
};

fn with(snapshot: &Snapshot, changes: Vec<Resource>) -> Snapshot {
    let (next, rejected) = snapshot.changed(changes, &[]);
    assert_eq!(rejected, []);
    next
}

fn backend(id: &str, incarnation: u64, port: u16) -> [Resource; 2] {
    let id = BackendId::new(id).unwrap();
    let incarnation = Incarnation(incarnation);
    [
        Resource::Backend(Backend {
            source: None,
            drain: None,
            max_in_flight: None,
            id: id.clone(),
            pool: PoolName::default_pool(),
            address: format!("127.0.0.1:{port}").parse().unwrap(),
            weight: Weight::default(),
            admin_state: Default::default(),
            labels: Default::default(),
            incarnation,
        }),
        Resource::Status(BackendStatus {
            backend: id,
            incarnation,
            health: Health::Up,
            addresses: vec![([127, 0, 0, 1], port).into()],
            reason: Reason::default(),
            since_unix_ms: 0,
            was_up: true,
            standing: Standing::default(),
        }),
    ]
}

fn three() -> Snapshot {
    let pool = Resource::Pool(Pool::new(PoolName::default_pool()));
    let backends = [backend("b1", 1, 1), backend("b2", 1, 2), backend("b10", 1, 10)];
    with(&Snapshot::default(), [pool].into_iter().chain(backends.into_iter().flatten()).collect())
}

fn compiler() -> Compiler {
    Compiler::new(2, vec![ListenerName::default_listener()])
}

#[test]
fn backends_stand_in_the_order_in_which_people_count() {
    let config = compiler().compile(&three(), None);
    let ids: Vec<&str> = config.pools[0].backends.iter().map(|b| b.identity.id.as_str()).collect();
    assert_eq!(ids, ["b1", "b2", "b10"]);
    assert_eq!(config.pools[0].picker.len(), 3);
}

#[test]
fn an_unchanged_pool_is_taken_over_as_it_is() {
    let (mut compiler, snapshot) = (compiler(), three());
    let before = compiler.compile(&snapshot, None);
    let other = Resource::Pool(Pool::new(PoolName::new("other").unwrap()));
    let after = compiler.compile(&with(&snapshot, vec![other]), None);
    assert!(Arc::ptr_eq(&before.pools[0], &after.pools[0]));
}

/// Of thousands nobody is looked into for a change of one.
#[test]
fn the_states_are_the_same_while_nobody_comes_or_goes() {
    let (mut compiler, snapshot) = (compiler(), three());
    let before = compiler.compile(&snapshot, None);
    let [mut heavier, _] = backend("b2", 1, 2);
    if let Resource::Backend(backend) = &mut heavier {
        backend.weight = Weight::new(7).unwrap();
    }
    let snapshot = with(&snapshot, vec![heavier]);
    let after = compiler.compile(&snapshot, None);
    assert!(Arc::ptr_eq(&before.pools[0].backends, &after.pools[0].backends));
    let (snapshot, _) = snapshot.changed(vec![], &[Key::new("backend", "b10")]);
    let fewer = compiler.compile(&snapshot, None);
    assert_eq!(fewer.pools[0].backends.len(), 2);
    assert!(Arc::ptr_eq(&fewer.pools[0].backends[1], &after.pools[0].backends[1]));
}

#[test]
fn the_cursor_stays_while_the_members_do() {
    let (mut compiler, snapshot) = (compiler(), three());
    let before = compiler.compile(&snapshot, None);
    before.pools[0].cursor.0.store(7, Relaxed);
    let mut slower = Pool::new(PoolName::default_pool());
    slower.request_timeout = Duration::from_secs(99);
    let snapshot = with(&snapshot, vec![Resource::Pool(slower)]);
    let same = compiler.compile(&snapshot, None);
    assert_eq!(same.pools[0].cursor.0.load(Relaxed), 7);
    assert!(Arc::ptr_eq(&same.pools[0].retries, &before.pools[0].retries));
    compiler.set_phase(Phase { index: 1, count: 2 });
    let more = compiler.compile(&with(&snapshot, backend("b3", 5, 3).into()), None);
    assert_eq!(more.pools[0].cursor.0.load(Relaxed), 2);
    // What was retried counts against the budget, whoever has joined since.
    assert!(Arc::ptr_eq(&more.pools[0].retries, &before.pools[0].retries));
}

#[test]
fn counters_live_as_long_as_the_backend_does() {
    let (mut compiler, snapshot) = (compiler(), three());
    let before = compiler.compile(&snapshot, None);
    let state = |config: &Config| Arc::clone(&config.pools[0].backends[0]);
    state(&before).enter(CountedBy::All);
    state(&before).count_request(1);
    let mut moved = backend("b1", 1, 1);
    if let Resource::Status(status) = &mut moved[1] {
        status.addresses = vec!["[::1]:1".parse().unwrap()];
    }
    let after = compiler.compile(&with(&snapshot, moved.into()), None);
    assert_eq!(state(&after).in_flight(), 1);
    assert_eq!(state(&after).counters().requests, 1);
    assert_ne!(state(&after).serial, state(&before).serial);
    let (snapshot, _) = snapshot.changed(vec![], &[Key::new("backend", "b1")]);
    let again = compiler.compile(&with(&snapshot, backend("b1", 9, 1).into()), None);
    assert_eq!((state(&again).in_flight(), state(&again).counters().requests), (0, 0));
}

/// One of the things that happen to backends, by numbers.
fn change(snapshot: &Snapshot, (what, which, revision): (u8, u8, u64)) -> Snapshot {
    let id = format!("b{}", which % 8);
    let kept = |snapshot: &Snapshot| {
        let id = BackendId::new(&id).unwrap();
        let of = |entry: &Arc<PoolEntry>| entry.backends.get(&id).cloned();
        snapshot.pools().values().find_map(of)
    };
    let (mut upserts, mut deletes) = (Vec::new(), Vec::new());
    match (what % 8, kept(snapshot)) {
        (0, _) => deletes.push(Key::new("backend", &id)),
        (1, Some(entry)) => {
            let mut backend = entry.backend.clone();
            backend.pool = PoolName::new(if which % 2 == 0 { "default" } else { "a" }).unwrap();
            upserts.push(Resource::Backend(backend));
        }
        (2, Some(entry)) => {
            let mut backend = entry.backend.clone();
            backend.admin_state = AdminState::Draining;
            let drain = Drain {
                since_unix_ms: 0,
                timeout: Duration::from_secs(1),
                remove: false,
                cutting: which % 2 == 0,
                ended: false,
                cut: 0,
            };
            backend.drain = (which % 3 > 0).then_some(drain);
            upserts.push(Resource::Backend(backend));
        }
        (3, Some(entry)) => {
            let mut status = entry.status.clone().unwrap();
            status.health = if which % 2 == 0 { Health::Up } else { Health::Down };
            status.addresses = vec![([127, 0, 0, which], 1).into()];
            upserts.push(Resource::Status(status));
        }
        (4, _) => deletes.push(Key::new("pool", "a")),
        (5, _) => upserts.push(Resource::Pool(Pool::new(PoolName::new("a").unwrap()))),
        _ => upserts.extend(backend(&id, revision, 1 + u16::from(which))),
    }
    snapshot.changed(upserts, &deletes).0
}

proptest! {
    /// Whatever happened before, what is compiled is what a process would compile that hears of
    /// this state first; and a life of a backend in a pool is one state with its counters.
    #[test]
    fn a_change_leads_to_what_is_compiled_from_scratch(
        changes in prop::collection::vec((any::<u8>(), any::<u8>()), 1..60),
    ) {
        let (mut compiler, mut snapshot) = (compiler(), three());
        let mut before = compiler.compile(&snapshot, None);
        for (revision, (what, which)) in (2..).zip(changes) {
            snapshot = change(&snapshot, (what, which, revision));
            let after = compiler.compile(&snapshot, None);
            let scratch = self::compiler().compile(&snapshot, None);
            prop_assert_eq!(after.pools.len(), scratch.pools.len());
            prop_assert_eq!(after.cuts, scratch.cuts);
            for (pool, expected) in after.pools.iter().zip(&scratch.pools) {
                let told = |pool: &PoolConfig| -> Vec<_> {
                    let each = pool.backends.iter().map(|state| {
                        let Identity { id, incarnation, .. } = &state.identity;
                        let flags = (state.is_closed(), state.is_cutting());
                        (id.clone(), *incarnation, state.addresses.to_vec(), flags)
                    });
                    each.collect()
                };
                prop_assert_eq!(told(pool), told(expected));
                prop_assert_eq!(&pool.name, &expected.name);
                prop_assert_eq!(pool.picker.len(), expected.picker.len());
            }
            let states = |config: &Config| -> Vec<Arc<BackendState>> {
                config.pools.iter().flat_map(|pool| pool.backends.to_vec()).collect()
            };
            let now_there = states(&after);
            for gone in states(&before) {
                let stays = now_there.iter().any(|state| state.identity == gone.identity);
                prop_assert!(stays || gone.is_closed(), "{:?}", gone.identity);
            }
            before = after;
        }
    }
}

#[test]
fn what_begins_to_fail_in_a_quiet_pool_is_found_when_another_backend_changes() {
    let (mut compiler, snapshot) = (compiler(), three());
    compiler.compile(&snapshot, None);
    let snapshot = with(&snapshot, backend("b11", 2, 11).into());
    let config = compiler.compile(&snapshot, None);
    let failing = &config.pools[0].backends[3];
    (0..5).for_each(|_| failing.count_end(0, Some(FailureKind::Reset), None));
    assert!(failing.is_failing(), "it knows when it is to be avoided");
    compiler.compile(&with(&snapshot, backend("b12", 3, 12).into()), None);
    assert!(failing.is_avoided());
}

#[test]
fn what_is_not_ready_is_not_picked() {
    let snapshot = three();
    let mut down = backend("b2", 1, 2);
    if let Resource::Status(status) = &mut down[1] {
        status.health = Health::Down;
    }
    let config = compiler().compile(&with(&snapshot, down.into()), None);
    assert_eq!((config.pools[0].backends.len(), config.pools[0].picker.len()), (3, 2));
}

/// Two pools, each the other's fallback, of one backend each.
fn each_others() -> Snapshot {
    let name = |name: &str| PoolName::new(name).unwrap();
    let mut all = Vec::new();
    for (own, other, port) in [("a", "b", 1), ("b", "a", 2)] {
        let mut pool = Pool::new(name(own));
        pool.fallback.pool = Some(name(other));
        all.push(Resource::Pool(pool));
        let mut backend = backend(&format!("of-{own}"), 1, port);
        if let Resource::Backend(backend) = &mut backend[0] {
            backend.pool = name(own);
        }
        all.extend(backend);
    }
    with(&Snapshot::default(), all)
}

#[test]
fn a_proxy_avoids_a_whole_pool_while_another_stands_in_and_never_both() {
    let (mut compiler, snapshot) = (compiler(), each_others());
    let [a, b] = [0, 1];
    let fail = |config: &Config, pool: usize| {
        let backend = &config.pools[pool].backends[0];
        (0..5).for_each(|_| backend.count_end(0, Some(FailureKind::Connect), None));
    };
    let serving = |config: &Config| [a, b].map(|pool| config.pools[pool].picker.len());
    let config = compiler.compile(&snapshot, None);
    assert_eq!(serving(&config), [1, 1]);
    fail(&config, a);
    let config = compiler.compile(&snapshot, None);
    assert_eq!(serving(&config), [0, 1], "the other one is well");
    fail(&config, b);
    for _ in 0..3 {
        assert_eq!(serving(&compiler.compile(&snapshot, None)), [0, 1], "somebody serves");
    }
    // Whoever fails at the same time: the first one goes.
    let mut compiler = self::compiler();
    let config = compiler.compile(&snapshot, None);
    fail(&config, a);
    fail(&config, b);
    assert_eq!(serving(&compiler.compile(&snapshot, None)), [0, 1]);
    // No fallback, no avoidance of the last one.
    let mut alone = Pool::new(PoolName::new("b").unwrap());
    alone.fallback.pool = None;
    let config = compiler.compile(&with(&snapshot, vec![Resource::Pool(alone)]), None);
    assert_eq!(serving(&config), [0, 1]);
    fail(&config, b);
    assert_eq!(serving(&compiler.compile(&snapshot, None)), [0, 1]);
}

#[test]
fn a_pool_whose_stand_in_comes_to_be_avoided_serves_again() {
    let name = |name: &str| PoolName::new(name).unwrap();
    // `a` falls back on `b`, which falls back on a pool that is well.
    let mut b = Pool::new(name("b"));
    b.fallback.pool = Some(PoolName::default_pool());
    let third = Resource::Pool(Pool::new(PoolName::default_pool()));
    let mut all = vec![third, Resource::Pool(b)];
    all.extend(backend("of-default", 1, 3));
    let (mut compiler, snapshot) = (compiler(), with(&each_others(), all));
    let config = compiler.compile(&snapshot, None);
    let place = |pool: &str| config.place_of(&name(pool)).unwrap();
    let (a, b) = (place("a"), place("b"));
    let fail = |pool: PoolIndex| {
        let backend = &config.pools[pool].backends[0];
        (0..5).for_each(|_| backend.count_end(0, Some(FailureKind::Connect), None));
    };
    let serving = |config: &Config| [a, b].map(|pool| config.pools[pool].picker.len());
    fail(a);
    assert_eq!(serving(&compiler.compile(&snapshot, None)), [0, 1]);
    fail(b);
    compiler.compile(&snapshot, None);
    // It was asked to look once more.
    assert_eq!(serving(&compiler.compile(&snapshot, None)), [1, 0]);
}
