//! What runs for every request does not allocate.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::atomic::AtomicU64,
    time::{Duration, Instant},
};

use lb_core::{
    affinity::{KeyId, KeyRing, Session, SessionKey, Value, field::find},
    balance::{Candidate, HashKey, Loads, Phase, PickContext, Picker, Split},
    client_address::client_address,
    lease::{Holder, Slots, Terms},
    limit::{Bucket, KeyHasher, MICROS, Pace, Table},
    model::{
        Algorithm, BackendId, CookieAffinity, ForwardedTrust, HostMatch, Incarnation, ListenerName,
        PathMatch, PoolName, Route, RouteName, RoutePools,
    },
    routing::RouteTable,
};

struct Idle;

impl Loads for Idle {
    fn in_flight(&self, _slot: u32) -> u32 {
        0
    }
}

fn allocations(work: impl FnOnce()) -> u64 {
    allocation_counter::measure(work).count_total
}

#[test]
fn picks_do_not_allocate() {
    for backends in [3, 64, 100, 10_000] {
        let ids: Vec<_> = (0..backends).map(|i| format!("backend{i}")).collect();
        let candidates: Vec<_> = (0..)
            .zip(&ids)
            .map(|(slot, id)| Candidate {
                slot,
                id,
                weight: u16::try_from(1 + slot % 256).unwrap(),
            })
            .collect();
        for name in Algorithm::NAMES {
            let picker = Picker::build(name.parse().unwrap(), &candidates);
            let cursor = AtomicU64::new(picker.start(Phase { index: 1, count: 2 }));
            let mut rng = fastrand::Rng::with_seed(1);
            let count = allocations(|| {
                for n in 0..1000_u32 {
                    let picked = picker.pick(&mut PickContext {
                        key: HashKey::Client(IpAddr::from(n.to_be_bytes())),
                        cursor: &cursor,
                        loads: &Idle,
                        rng: &mut rng,
                        excluded: if n % 2 == 0 { &[] } else { &[0, 1] },
                    });
                    assert!(picked.is_some());
                }
            });
            assert_eq!(count, 0, "{name} over {backends} backends");
        }
    }
}

#[test]
fn finding_the_client_does_not_allocate() {
    let networks = ForwardedTrust::Networks(vec!["127.0.0.0/8".parse().unwrap()]);
    for trust in [networks, ForwardedTrust::Always] {
        let fields: [&[u8]; 2] = [b"unknown, [2001:db8::1]:80, 198.51.100.7:99", b"127.0.0.1"];
        let mut client = Ipv4Addr::LOCALHOST.into();
        let count = allocations(|| client = client_address(client, fields.into_iter(), &trust));
        assert_ne!(client, Ipv4Addr::LOCALHOST);
        assert_eq!(count, 0);
    }
}

#[test]
fn finding_a_route_does_not_allocate() {
    let route = |name: usize, host: &str, prefix: &str| Route {
        name: RouteName::new(&format!("r{name}")).unwrap(),
        listener: ListenerName::default_listener(),
        host: HostMatch::parse(host).unwrap(),
        path: PathMatch::parse(prefix, "").unwrap(),
        pools: RoutePools::one(PoolName::default_pool()),
    };
    let routes = [route(0, "", ""), route(1, "a.example.com", ""), route(2, "*.com", "/x/y")];
    let table = RouteTable::new(routes.iter().zip(0..));
    let long = "x".repeat(8000) + ".COM";
    let split = Split::new(&[90, 10, 0]);
    let cursor = AtomicU64::new(0);
    let mut found = Vec::with_capacity(5);
    let count = allocations(|| {
        for (host, path) in
            [("A.example.COM:80", "/"), ("b.com", "/x/y?z"), (&long, "/x/y/"), ("[::1]:80", "*")]
        {
            found.push(table.find(host.as_bytes(), path.as_bytes()).copied());
        }
        found.push(Some(split.take(&cursor)));
    });
    assert_eq!(found, [Some(1), Some(2), Some(2), Some(0), Some(0)]);
    assert_eq!(count, 0);
}

#[test]
fn finding_and_verifying_a_session_does_not_allocate() {
    let ring = KeyRing::first(SessionKey::new(KeyId(1), [1; SessionKey::LEN]));
    let (pool, ttl) = (PoolName::default_pool(), CookieAffinity::TTL);
    let backend = BackendId::new("backend1").unwrap();
    let value = Value::sign(&ring, &pool, &backend, Incarnation(1), 0, ttl);
    let cookies = [b"a=1; lb_session=".as_slice(), value.as_bytes(), b"; b=2"].concat();
    let forged = [value.as_bytes(), b"A"].concat();
    let (mut is_genuine, mut is_refused) = (false, false);
    let count = allocations(|| {
        let fields = [b"c=3".as_slice(), &cookies];
        let found = find(fields.into_iter(), CookieAffinity::NAME).expect("it is there");
        let session = Session::verify(found, &ring, &pool, 0, ttl);
        is_genuine = session.is_ok_and(|session| session.backend() == "backend1");
        is_refused = Session::verify(&forged, &ring, &pool, 0, ttl).is_err();
    });
    assert!(is_genuine && is_refused);
    assert_eq!(count, 0);
}

#[test]
fn deciding_about_a_limit_does_not_allocate() {
    #[expect(clippy::disallowed_methods, reason = "where a simulated clock begins")]
    let start = Instant::now();
    let pace = Pace::new(10 * MICROS, 5, start);
    let (bucket, table) = (Bucket::new(), Table::new(100, 10 * MICROS, 5));
    let hasher = KeyHasher::new([1, 2]);
    let holder = Holder::with_safe_share(Terms::slots(Duration::from_secs(1)), 7, 1, start);
    let mut slots = Slots::new(holder, start);
    let mut admitted = [0; 3];
    let count = allocations(|| {
        for n in 0..1000_u32 {
            let now = start + Duration::from_millis(n.into());
            admitted[0] += u32::from(bucket.take(&pace, now).is_admitted());
            let client = hasher.client(Ipv4Addr::from_bits(n % 300).into());
            admitted[1] += u32::from(table.take(client, &pace, now).is_admitted());
            admitted[2] += u32::from(slots.take(now));
            if n % 2 == 0 {
                assert!(!slots.give_back(now), "none was recalled");
            }
        }
    });
    // A burst of 5 and what comes in during a second; every client's burst; every slot.
    assert_eq!(admitted, [14, 1000, 507]);
    assert_eq!(count, 0);
}

#[test]
fn the_counter_counts() {
    assert_eq!(allocations(|| drop(std::hint::black_box(Box::new(1)))), 1);
}
