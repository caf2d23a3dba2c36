//! What the usual request is asked and told: one limit by client address over the fleet.

use std::time::Duration;

use lb_core::{
    lease::{Sort, Wanted},
    limit::{MICROS, nanos_between},
    model::{
        HostMatch, LimitName, Listener, ListenerName, PathMatch, Pool, PoolName, Resource, Route,
        RouteName, RoutePools, Snapshot, Weight,
    },
};

use super::*;
use crate::{leases::Leases, worker::now};

const KEY: u64 = 77;

fn by_client(burst: u32) -> Limit {
    limit(LimitScope::Fleet, LimitKey::ClientAddress, burst)
}

fn limit(scope: LimitScope, key: LimitKey, burst: u32) -> Limit {
    let limit = Limit::new(LimitName::new("l").unwrap(), "100/s".parse().unwrap());
    limit.counted(scope, key).unwrap().with_burst(burst).unwrap()
}

/// A route to one pool with this limit.
fn snapshot(limit: Limit, falls_back_on: Option<&str>) -> Snapshot {
    let name = |name| PoolName::new(name).unwrap();
    let mut pool = Pool::new(name("a"));
    pool.fallback.pool = falls_back_on.map(name);
    let route = Route {
        name: RouteName::default_route(),
        listener: ListenerName::default_listener(),
        host: HostMatch::parse("").unwrap(),
        path: PathMatch::parse("", "").unwrap(),
        pools: RoutePools::weighted(vec![(name("a"), Weight::default())]).unwrap(),
    };
    let listener = Listener::new(ListenerName::default_listener());
    let objects = [
        vec![Resource::Listener(listener), Resource::Pool(Pool::new(name("b")))],
        vec![Resource::Pool(pool)],
        vec![Resource::Route(route)],
        vec![Resource::Limit(limit)],
    ];
    objects.into_iter().fold(Snapshot::default(), |before, objects| {
        let (next, rejected) = before.changed(objects, &[]);
        assert_eq!(rejected, []);
        next
    })
}

/// One worker that asks.
struct Asker {
    compiler: LimitCompiler,
    leases: Leases,
    limits: Arc<Limits>,
    copies: LimitCopies,
    start: Instant,
}

impl Asker {
    fn new(limit: Limit) -> Self {
        let (mut compiler, leases) = (LimitCompiler::new(1, 100), Leases::new(1));
        // It began before the limit did.
        let copies = LimitCopies::new(now().checked_sub(Duration::from_secs(100)).unwrap());
        let start = now();
        let limits = compiler.compile(&snapshot(limit, None), &leases, 1, start).unwrap();
        Self { compiler, leases, limits, copies, start }
    }

    fn change(&mut self, limit: Limit) {
        let snapshot = snapshot(limit, None);
        self.limits = self.compiler.compile(&snapshot, &self.leases, 1, self.start).unwrap();
    }

    fn usual(&self, after_ms: u64) -> Option<Telling> {
        let limit = self.limits.only_one(0, 0)?;
        let now = self.start + Duration::from_millis(after_ms);
        let nanos = nanos_between(self.copies.origin, now);
        (limit.usual() != Usual::None).then_some(())?;
        limit.take_usual(KEY, &self.copies, 0, nanos)
    }

    fn any(&self, after_ms: u64) -> Decision {
        let now = self.start + Duration::from_millis(after_ms);
        self.limits.all()[0].take(KEY, &Asking { worker: 0, copies: &self.copies, now })
    }

    /// What the client is told, and whether that was kept from the last time.
    fn told(&self, after_ms: u64) -> (String, bool) {
        let mut head = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
        let kept = match self.usual(after_ms).expect("it is usual") {
            Telling::Again(fields) => {
                head.truncate(head.len() - 2);
                head.extend_from_slice(&fields);
                true
            }
            Telling::Anew(told) => {
                self.copies.tell(&told, &self.limits, &mut head);
                false
            }
        };
        let text = String::from_utf8(head).unwrap();
        let fields = text.strip_prefix("HTTP/1.1 200 OK\r\nRateLimit-Policy: \"l\";").unwrap();
        (fields.replace("\r\nRateLimit: \"l\"", "").trim_end_matches("\r\n").to_owned(), kept)
    }
}

#[test]
fn the_same_is_told_from_what_was_kept_and_something_else_is_not() {
    let asker = Asker::new(by_client(50));
    assert!(asker.usual(0).is_none(), "its copy of the pace is to come");
    assert_eq!(asker.any(0).remaining(), 49);
    let of = |remaining: u32| format!("q=100;w=1;r={remaining};t=1");
    // As soon as all have come in again.
    assert_eq!(asker.told(1000), (of(49), false));
    assert_eq!(asker.told(2000), (of(49), true));
    assert_eq!(asker.told(3000), (of(49), true));
    assert_eq!(asker.told(3000), (of(48), false));
    assert_eq!(asker.told(4000), (of(49), false), "other fields were told since");
    assert_eq!(asker.limits.all()[0].sums().admitted, 6);
    // Those that others still have to send stay as they are.
    asker.told(5000);
    let Some(Telling::Again(held)) = asker.usual(6000) else { panic!("it is the same") };
    assert_eq!(asker.told(6000), (of(48), false));
    assert_eq!(asker.told(6000), (of(47), false));
    assert!(held.ends_with(b"r=49;t=1\r\n\r\n"));
}

#[test]
fn the_usual_request_is_refused_when_others_are() {
    for scope in [LimitScope::Fleet, LimitScope::Proxy] {
        for key in [LimitKey::ClientAddress, LimitKey::Path, LimitKey::All] {
            let what = format!("{scope:?} {key:?}");
            let asker = Asker::new(limit(scope, key, 5));
            if let Source::Whole(lease) = &asker.limits.all()[0].source {
                lease.publish(Pace::new(100 * MICROS, 5, asker.start));
            }
            while asker.any(0).is_admitted() {}
            assert!(asker.usual(0).is_none() && !asker.any(9).is_admitted(), "{what}");
            assert!(asker.usual(11).is_some() && asker.usual(11).is_none(), "{what}");
            assert!(asker.usual(900).is_some(), "{what}");
            let sums = asker.limits.all()[0].sums();
            assert_eq!((sums.admitted, sums.refused), (7, 2), "{what}");
        }
    }
}

#[test]
fn what_was_kept_is_of_one_pace_and_of_one_configuration() {
    let mut asker = Asker::new(by_client(50));
    asker.any(0);
    [1000, 2000, 3000].iter().for_each(|&after| _ = asker.told(after));
    assert!(asker.told(4000).1);
    let (quantity, wanted) = Quantity::of_limit(&by_client(20)).unwrap();
    assert_eq!(wanted, Wanted { amount: 100 * MICROS, sort: Sort::RateByKey { burst: 20 } });
    asker.leases.rate_by_key(&quantity, wanted, 1, || unreachable!("it is there"));
    assert!(asker.usual(5000).is_none(), "there is a newer pace");
    asker.any(5000);
    assert_eq!(asker.told(6000), ("q=100;w=1;r=19;t=1".to_owned(), false));
    asker.told(7000);
    // A worker that has the former configuration for a moment keeps what that says.
    let former = Arc::clone(&asker.limits);
    asker.change(by_client(200));
    let new = std::mem::replace(&mut asker.limits, former);
    asker.any(8000);
    asker.told(10_000);
    assert_eq!(asker.told(12_000), ("q=100;w=1;r=199;t=1".to_owned(), true));
    asker.limits = new;
    assert!(asker.usual(14_000).is_none(), "it is another limit to its clients");
    asker.any(14_000);
    assert_eq!(asker.told(18_000), ("q=200;w=2;r=199;t=1".to_owned(), false));
}

#[test]
fn what_only_counts_is_not_told_and_who_may_fall_back_is_counted_for_that_too() {
    let mut shadow = by_client(5);
    shadow.shadow = true;
    let asker = Asker::new(shadow);
    asker.any(0);
    assert!(asker.usual(1000).is_none());
    let mut asker = Asker::new(by_client(5));
    let with_fallback = snapshot(by_client(5), Some("b"));
    assert!(asker.limits.only_one(0, 0).is_some());
    asker.limits = asker.compiler.compile(&with_fallback, &asker.leases, 1, asker.start).unwrap();
    assert!(asker.limits.only_one(0, 0).is_none());
    assert_eq!(asker.limits.of_requests(0, 0).len(), 1);
}
