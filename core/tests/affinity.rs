//! Sessions: what is believed, by whom, for how long, and what never is.

use std::time::Duration;

use lb_core::{
    affinity::{
        KeyId, KeyRing, Refusal, RingKey, Role, Session, SessionKey, Value, cookie::SKEW_S,
        field::find,
    },
    model::{BackendId, Incarnation, PoolName},
};
use proptest::prelude::*;

const TTL: Duration = Duration::from_secs(3600);
const NOW_S: u64 = 1_800_000_000;

fn key(id: u32) -> SessionKey {
    let mut rng = fastrand::Rng::with_seed(u64::from(id));
    SessionKey::new(KeyId(id), std::array::from_fn(|_| rng.u8(..)))
}

fn pool(name: &str) -> PoolName {
    PoolName::new(name).expect("a name")
}

/// A session of `backend` in pool `shop` that began at `now_s`.
fn sign(ring: &KeyRing, backend: &str, now_s: u64) -> Value {
    let backend = BackendId::new(backend).expect("an id");
    Value::sign(ring, &pool("shop"), &backend, Incarnation(7), now_s, TTL)
}

fn verify(value: &[u8], ring: &KeyRing, now_s: u64) -> Result<Session, Refusal> {
    Session::verify(value, ring, &pool("shop"), now_s, TTL)
}

/// Why a value is refused; `None` if it is believed.
fn refusal(value: &[u8], ring: &KeyRing, now_s: u64) -> Option<Refusal> {
    verify(value, ring, now_s).err()
}

#[test]
fn the_layout_is_the_same_in_every_version() {
    let ring = KeyRing::first(SessionKey::new(KeyId(1), *b"0123456789abcdef0123456789abcdef"));
    let value = sign(&ring, "backend1", NOW_S);
    // Made by an independent implementation.
    assert_eq!(
        str::from_utf8(value.as_bytes()).unwrap(),
        "AQAAAAEAAAAAa0ngEAAAAAAAAAAHBHNob3BiYWNrZW5kMQHWhAzZ00GWh7wP_rkOOV4"
    );
}

#[test]
fn the_longest_session_is_as_long_as_a_value_may_be() {
    let ring = KeyRing::first(key(1));
    let (pool, backend) = (pool(&"p".repeat(63)), BackendId::new(&"b".repeat(63)).unwrap());
    let value = Value::sign(&ring, &pool, &backend, Incarnation(u64::MAX), NOW_S, TTL);
    assert_eq!(value.as_bytes().len(), Value::LEN_MAX);
    let session = Session::verify(value.as_bytes(), &ring, &pool, NOW_S, TTL).unwrap();
    assert_eq!(session.backend(), backend.as_str());
}

#[test]
fn a_session_lasts_its_ttl_and_the_tolerance_for_clocks() {
    let ring = KeyRing::first(key(1));
    let value = sign(&ring, "backend1", NOW_S);
    let end_s = NOW_S + TTL.as_secs() + SKEW_S;
    assert_eq!(refusal(value.as_bytes(), &ring, end_s), None);
    assert_eq!(refusal(value.as_bytes(), &ring, end_s + 1), Some(Refusal::Expired));
    assert_eq!(refusal(value.as_bytes(), &ring, u64::MAX), Some(Refusal::Expired));
    assert_eq!(refusal(value.as_bytes(), &ring, 0), None, "a clock that is far behind");
}

#[test]
fn a_session_is_renewed_when_a_tenth_of_it_is_over() {
    let ring = KeyRing::first(key(1));
    let value = sign(&ring, "backend1", NOW_S);
    let is_due = |now_s, ttl| {
        Session::verify(value.as_bytes(), &ring, &pool("shop"), now_s, ttl).unwrap().is_due()
    };
    for (age_s, due) in [(0, false), (360, false), (361, true), (3_600, true), (3_630, true)] {
        assert_eq!(is_due(NOW_S + age_s, TTL), due, "{age_s} s");
    }
    for (age_s, late) in [(0, false), (1_799, false), (1_800, true), (3_630, true)] {
        let session = verify(value.as_bytes(), &ring, NOW_S + age_s).unwrap();
        assert_eq!(session.is_late(), late, "{age_s} s");
    }
    assert!(!is_due(NOW_S - SKEW_S, TTL), "signed by a clock that is ahead");
    assert!(is_due(NOW_S, Duration::from_secs(60)), "the TTL was lowered");
    assert!(is_due(NOW_S, 2 * TTL), "the TTL was raised");
}

/// The whole rotation, with one proxy that learns of each step late.
#[test]
fn no_session_is_lost_while_keys_are_replaced() {
    let before = KeyRing::first(key(1));
    let announced = before.announce(key(2)).unwrap();
    let after = announced.activate(NOW_S, TTL);

    let old = sign(&announced, "backend1", NOW_S);
    let new = sign(&after, "backend1", NOW_S);
    for ring in [&announced, &after] {
        assert_eq!(refusal(old.as_bytes(), ring, NOW_S), None);
        assert_eq!(refusal(new.as_bytes(), ring, NOW_S), None);
    }
    assert!(verify(old.as_bytes(), &after, NOW_S).unwrap().is_due(), "the key is retired");
    assert!(!verify(new.as_bytes(), &announced, NOW_S).unwrap().is_due(), "no ping-pong");

    let end_s = NOW_S + TTL.as_secs() + SKEW_S;
    assert_eq!(refusal(old.as_bytes(), &after.prune(end_s), end_s), None);
    let gone = Some(Refusal::UnknownKey);
    assert_eq!(refusal(old.as_bytes(), &after, end_s + 1), gone, "not pruned");
    assert_eq!(refusal(old.as_bytes(), &after.prune(end_s + 1), end_s + 1), gone);
    assert_eq!(refusal(new.as_bytes(), &before, NOW_S), gone, "not announced");
}

#[test]
fn no_byte_can_be_changed_left_out_or_added() {
    let ring = KeyRing::first(key(1));
    for backend in ["b", "b1", "b12", "backend1"] {
        let genuine = sign(&ring, backend, NOW_S);
        let genuine = genuine.as_bytes();
        assert_eq!(refusal(genuine, &ring, NOW_S), None);
        for at in 0..genuine.len() {
            let mut changed = genuine.to_vec();
            for byte in (0..=u8::MAX).filter(|byte| *byte != genuine[at]) {
                changed[at] = byte;
                assert!(refusal(&changed, &ring, NOW_S).is_some(), "{at}: {byte}");
            }
            assert!(refusal(&genuine[..at], &ring, NOW_S).is_some(), "the first {at}");
            let mut less = genuine.to_vec();
            less.remove(at);
            assert!(refusal(&less, &ring, NOW_S).is_some(), "without {at}");
        }
        for byte in 0..=u8::MAX {
            let longer = [genuine, &[byte]].concat();
            assert!(refusal(&longer, &ring, NOW_S).is_some(), "{byte} at the end");
            let longer = [&[byte], genuine].concat();
            assert!(refusal(&longer, &ring, NOW_S).is_some(), "{byte} at the start");
        }
        let padded = [genuine, b"=="].concat();
        assert_eq!(refusal(&padded, &ring, NOW_S), Some(Refusal::Malformed));
    }
}

/// Five ways to come by a cookie that one was not given, two thousand times each.
#[test]
fn ten_thousand_forged_and_replayed_cookies_are_refused() {
    let ring = KeyRing::first(key(1));
    let impostor = KeyRing::first(SessionKey::new(KeyId(1), [0; SessionKey::LEN]));
    let foreign = KeyRing::first(key(9));
    let retired = Role::Retired { honoured_until_s: NOW_S - 1 };
    let rotated = KeyRing::new(vec![
        RingKey { key: key(2), role: Role::Active },
        RingKey { key: key(1), role: retired },
    ])
    .unwrap();
    let mut rng = fastrand::Rng::with_seed(1);
    let mut refused = 0;
    for n in 0..2_000_u32 {
        let backend = format!("backend{}", rng.u16(..));
        let genuine = sign(&ring, &backend, NOW_S);
        let mut guessed = genuine.as_bytes().to_vec();
        let tag_at = guessed.len() - 20;
        for byte in &mut guessed[tag_at..] {
            *byte = rng.alphanumeric().try_into().unwrap();
        }
        let late_s = NOW_S + TTL.as_secs() + SKEW_S + 1 + rng.u64(..1_000_000);
        let elsewhere =
            Session::verify(genuine.as_bytes(), &ring, &pool(&format!("p{n}")), NOW_S, TTL);
        for (outcome, expected) in [
            (refusal(&guessed, &ring, NOW_S), &[Refusal::BadSignature, Refusal::Malformed][..]),
            (
                refusal(sign(&impostor, &backend, NOW_S).as_bytes(), &ring, NOW_S),
                &[Refusal::BadSignature],
            ),
            (
                refusal(sign(&foreign, &backend, NOW_S).as_bytes(), &ring, NOW_S),
                &[Refusal::UnknownKey],
            ),
            (refusal(genuine.as_bytes(), &ring, late_s), &[Refusal::Expired]),
            (elsewhere.err(), &[Refusal::WrongPool]),
        ] {
            assert!(expected.contains(&outcome.expect("it is refused")), "{outcome:?}");
            refused += 1;
        }
        assert_eq!(refusal(genuine.as_bytes(), &rotated, NOW_S), Some(Refusal::UnknownKey));
    }
    assert_eq!(refused, 10_000);
}

/// Names of the form that the model allows.
fn name() -> impl Strategy<Value = String> {
    let first: Vec<char> = ('a'..='z').chain('A'..='Z').chain('0'..='9').collect();
    let other: Vec<char> = first.iter().copied().chain(['.', '_', '-']).collect();
    (prop::sample::select(first), prop::collection::vec(prop::sample::select(other), 0..63))
        .prop_map(|(first, other)| std::iter::once(first).chain(other).collect())
}

/// Bytes of which cookies are made, often with the name that is looked for.
fn cookie_field() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        Just(b"lb".to_vec()),
        prop::sample::select(b"lb=;\" \t\r\x0b,ax\xff".as_slice()).prop_map(|byte| vec![byte]),
        any::<u8>().prop_map(|byte| vec![byte]),
    ];
    prop::collection::vec(part, 0..24).prop_map(|parts| parts.concat())
}

/// The reader as one would write it without a thought for memory: all fields joined into
/// one, every cookie of it in a list, the first of the name taken.
fn plain_reader(fields: &[Vec<u8>], name: &str) -> Option<Vec<u8>> {
    // One character for one byte, so that text can be split although it is none.
    let text = fields
        .iter()
        .map(|field| field.iter().map(|&byte| char::from(byte)).collect::<String>())
        .collect::<Vec<_>>()
        .join("; ");
    let cookies: Vec<(String, String)> = text
        .split(';')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| {
            let trim = |text: &str| text.trim_matches(|c: char| c.is_ascii_whitespace()).to_owned();
            (trim(name), trim(value))
        })
        .collect();
    let (_, value) = cookies.into_iter().find(|(found, _)| found == name)?;
    let is_quoted = value.len() >= 2 && value.starts_with('"') && value.ends_with('"');
    let value = if is_quoted { &value[1..value.len() - 1] } else { &value };
    Some(value.chars().map(|c| u8::try_from(u32::from(c)).expect("it was a byte")).collect())
}

proptest! {
    #[test]
    fn what_was_signed_reads_back(
        pool in name(), backend in name(), incarnation: u64, id: u32, bytes: [u8; 32],
        now_s in 0_u64..1 << 40, age_s in 0_u64..3_600,
    ) {
        let ring = KeyRing::first(SessionKey::new(KeyId(id), bytes));
        let (pool, backend) = (PoolName::new(&pool).unwrap(), BackendId::new(&backend).unwrap());
        let value = Value::sign(&ring, &pool, &backend, Incarnation(incarnation), now_s, TTL);
        let session = Session::verify(value.as_bytes(), &ring, &pool, now_s + age_s, TTL).unwrap();
        prop_assert_eq!(session.backend(), backend.as_str());
        prop_assert_eq!(session.incarnation(), Incarnation(incarnation));
        prop_assert_eq!(session.is_due(), age_s > 360);
    }

    /// Also such as decode well, and such as are as long as the longest session or longer.
    #[test]
    fn whatever_else_is_sent_is_refused(
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        letters in "[A-Za-z0-9_-]{0,230}",
        tail in "[A-Za-z0-9_-]{50,210}",
    ) {
        let ring = KeyRing::first(key(0));
        // Version 1 and key 0.
        let well_begun = format!("AQAAAAA{tail}");
        for value in [bytes.as_slice(), letters.as_bytes(), well_begun.as_bytes()] {
            prop_assert!(refusal(value, &ring, NOW_S).is_some());
        }
    }

    #[test]
    fn a_cookie_is_found_where_a_plain_reader_finds_it(
        fields in prop::collection::vec(cookie_field(), 0..4),
    ) {
        for name in ["lb", "a", "x"] {
            let found = find(fields.iter().map(Vec::as_slice), name);
            prop_assert_eq!(found.map(<[u8]>::to_vec), plain_reader(&fields, name));
        }
    }
}
