//! Ten thousand cookies that are no sessions of the pool: none steers, none crashes, each is
//! counted for what it is.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use lb_core::{
    affinity::{KeyId, KeyRing, SessionKey, Value},
    model::{BackendId, Incarnation, PoolName},
};
use lb_proto::v1::{self as pb, object::Object as Any};
use lb_tests::client::Client;

use super::{NAME, counted, fleet, revisit, sticky, visit};

const PROXIES: usize = 8;
const COOKIES: usize = 10_000;

/// A cookie, and what it is to be counted as.
struct Case {
    cookie: String,
    result: &'static str,
}

/// Makes cookies of all kinds from genuine ones of the pool and of another.
fn cases(genuine: &str, of_other_pool: &str) -> Vec<Case> {
    let mut rng = fastrand::Rng::with_seed(7);
    let value = |cookie: &str| cookie.split_once('=').unwrap().1.to_owned();
    let (genuine, other) = (value(genuine), value(of_other_pool));
    let bytes = URL_SAFE_NO_PAD.decode(&genuine).unwrap();
    let id = KeyId(u32::from_be_bytes(bytes[1..5].try_into().unwrap()));
    let forged_with = |key: KeyId, rng: &mut fastrand::Rng| {
        let secret = std::array::from_fn(|_| rng.u8(..));
        let ring = KeyRing::first(SessionKey::new(key, secret));
        let backend = BackendId::new("backend1").unwrap();
        let pool = PoolName::default_pool();
        let ttl = std::time::Duration::from_secs(3600);
        let value = Value::sign(&ring, &pool, &backend, Incarnation(5), 4_000_000_000, ttl);
        String::from_utf8(value.as_bytes().to_vec()).unwrap()
    };
    let case = |number: usize, rng: &mut fastrand::Rng| match number % 8 {
        // Everything right but the key.
        0 => (forged_with(id, rng), "bad_signature"),
        1 => (forged_with(KeyId(id.0.wrapping_add(rng.u32(1..))), rng), "unknown_key"),
        // Cut off anywhere: without a whole signature, or in the middle of a name.
        2 => {
            let cut = rng.usize(..genuine.len() - 24);
            (genuine[..cut].to_owned(), "malformed")
        }
        // One bit of what is signed, or of the signature, is another.
        3 => {
            let mut changed = bytes.clone();
            let at = rng.usize(5..21);
            changed[at] ^= 1 << rng.u8(..8);
            (URL_SAFE_NO_PAD.encode(changed), "bad_signature")
        }
        4 => {
            let mut changed = bytes.clone();
            let at = changed.len() - 1 - rng.usize(..16);
            changed[at] ^= 1 << rng.u8(..8);
            (URL_SAFE_NO_PAD.encode(changed), "bad_signature")
        }
        // Genuine, and of another pool.
        5 => (other.clone(), "wrong_pool"),
        6 => {
            let byte = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
            let text = (0..8192).map(|_| char::from(byte[rng.usize(..64)])).collect();
            (text, "malformed")
        }
        _ => {
            let odd = b"!#$%&'()*+-./:<=>?@[]^_`{|}~ \t\x80\xff";
            let text: Vec<u8> =
                (0..rng.usize(1..200)).map(|_| odd[rng.usize(..odd.len())]).collect();
            (text.iter().map(|byte| char::from(*byte)).collect(), "malformed")
        }
    };
    (0..COOKIES)
        .map(|number| {
            let (text, result) = case(number, &mut rng);
            Case { cookie: format!("{NAME}={text}"), result }
        })
        .collect()
}

#[tokio::test]
async fn ten_thousand_false_cookies_steer_nobody_and_are_each_counted() {
    let (cluster, backends) = fleet(PROXIES, 4).await;
    // Another pool with the same cookie, at another path of the same host.
    let mut other = cluster.api.pool().await;
    "other".clone_into(&mut other.name);
    sticky(&mut other);
    cluster.api.put_applied(Any::Pool(other)).await;
    let far = lb_tests::backend::Backend::saying("far");
    let backend = pb::Backend {
        address: far.address().to_string(),
        pool: "other".to_owned(),
        id: "backend1-of-other".to_owned(),
        ..pb::Backend::default()
    };
    cluster.api.put_applied(Any::Backend(backend)).await;
    let route = pb::Route {
        name: "other".to_owned(),
        host: "other.test".to_owned(),
        pool: "other".to_owned(),
        ..pb::Route::default()
    };
    cluster.api.put_applied(Any::Route(route)).await;
    cluster.settled().await;
    let genuine = visit(cluster.address(), None).await.begun();
    let request = "GET / HTTP/1.1\r\nHost: other.test\r\nConnection: close\r\n\r\n";
    let of_other = lb_tests::client::exchange(cluster.address(), "GET", request).await.unwrap();
    let of_other = super::Visit::of(&of_other);
    assert_eq!(of_other.said, "far");

    let cases = cases(&genuine, &of_other.begun());
    let mut expected: BTreeMap<&str, f64> = BTreeMap::new();
    let mut by_proxy: Vec<Vec<String>> = vec![Vec::new(); PROXIES];
    let mut clients = Vec::new();
    for address in cluster.addresses() {
        clients.push(Client::connect(address).await);
    }
    for (number, case) in cases.iter().enumerate() {
        *expected.entry(case.result).or_default() += 1.0;
        let proxy = number % PROXIES;
        // A connection ends after a thousand requests.
        if number / PROXIES % 900 == 899 {
            clients[proxy] = Client::connect(cluster.proxy(proxy).address()).await;
        }
        let visit = revisit(&mut clients[proxy], Some(&case.cookie)).await;
        visit.begun();
        by_proxy[proxy].push(visit.said);
    }
    // The turns went on as if there had been no cookies.
    for (proxy, said) in by_proxy.iter().enumerate() {
        let in_turn = said.windows(4).filter(|four| {
            let mut four = four.to_vec();
            four.sort();
            four.dedup();
            four.len() == 4
        });
        assert_eq!(in_turn.count(), said.len() - 3, "proxy-{}", proxy + 1);
    }
    for (result, count) in &expected {
        assert_eq!(counted(&cluster, PROXIES, result).await, *count, "{result}");
    }
    println!("{COOKIES} cookies, none of which steered: {expected:?}");
    // Nobody was hurt: every proxy is the process that it was, and sessions hold.
    for address in cluster.addresses() {
        assert_eq!(visit(address, Some(&genuine)).await.cookie, None);
    }
    let kept = counted(&cluster, PROXIES, "kept").await;
    assert_eq!(kept, 8.0);
    // The backends were shown none of them.
    let shown = backends.iter().flat_map(lb_tests::backend::Backend::recorded);
    assert_eq!(shown.filter(|one| one.request.head.contains(NAME)).count(), 0);
}
