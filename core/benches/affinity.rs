//! What a session costs a request: finding its cookie, verifying it, writing it anew.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use lb_core::{
    affinity::{KeyId, KeyRing, Session, SessionKey, Value, field},
    model::{BackendId, CookieAffinity, Incarnation, PoolName},
};

fn sessions(criterion: &mut Criterion) {
    let ring = KeyRing::first(SessionKey::new(KeyId(1), [1; SessionKey::LEN]));
    let (pool, ttl) = (PoolName::default_pool(), CookieAffinity::TTL);
    let backend = BackendId::new("backend1").expect("a name");
    let sign = || Value::sign(&ring, &pool, black_box(&backend), Incarnation(1), 0, ttl);
    let genuine = sign();
    let mut forged = genuine.as_bytes().to_vec();
    forged[40] ^= 1;
    let oversized = vec![b'A'; 4096];
    let cookies = [b"theme=dark; consent=1; lb_session=".as_slice(), genuine.as_bytes()].concat();

    let mut group = criterion.benchmark_group("session");
    group.bench_function("found among three cookies", |bencher| {
        bencher.iter(|| field::find([black_box(&*cookies)].into_iter(), CookieAffinity::NAME));
    });
    for (what, value) in
        [("genuine", genuine.as_bytes()), ("forged", &forged), ("oversized", &oversized)]
    {
        group.bench_function(format!("verified, {what}"), |bencher| {
            bencher.iter(|| Session::verify(black_box(value), &ring, &pool, 0, ttl).is_ok());
        });
    }
    group.bench_function("signed", |bencher| bencher.iter(sign));
}

criterion_group!(benches, sessions);
criterion_main!(benches);
