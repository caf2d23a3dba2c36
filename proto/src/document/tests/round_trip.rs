//! Any objects as a document and back, and any text as a document.

use lb_core::model::Resource;
use proptest::prelude::*;

use super::{super::*, fresh, resources};
use crate::{convert, v1 as pb};

fn ms() -> impl Strategy<Value = u32> {
    prop_oneof![Just(0), 1..5000_u32, 1..=86_400_000_u32]
}

/// Random objects that the domain accepts; those that it refuses are left out.
fn object() -> impl Strategy<Value = Option<Resource>> {
    use pb::object::Object as Any;
    let pool = ("[a-c]", 0..5_usize, [ms(), ms(), ms(), ms()], 0..40_u32, any::<Option<u8>>())
        .prop_map(|(name, kind, times, choices, small)| {
            let algorithms =
                ["", "round_robin", "ip_hash", "weighted_round_robin", "least_connections"];
            Any::Pool(pb::Pool {
                name,
                algorithm: algorithms[kind].to_owned(),
                choices,
                error_hold_ms: small.map(u32::from),
                health_check: Some(pb::HealthCheck {
                    protocol: ["", "http", "tcp", "none", ""][kind].to_owned(),
                    path: if kind < 2 { "/ok" } else { "" }.to_owned(),
                    interval_ms: times[0],
                    edge_interval_ms: times[1],
                    timeout_ms: times[2],
                    rise: choices,
                    fall: small.unwrap_or_default().into(),
                }),
                connect_timeout_ms: times[0],
                request_timeout_ms: times[1],
                response_idle_timeout_ms: times[2],
                tunnel_idle_timeout_ms: times[3],
                keep_alive_timeout_ms: times[0],
                max_idle_connections: small.map(u32::from),
                sources: vec![format!("dns:web{}.test:80", times[3] % 7)],
                max_connection_age_ms: times[3],
                breaker: Some(pb::Breaker {
                    consecutive_failures: small.map(u32::from),
                    open_ms: times[0].min(times[1]),
                    max_open_ms: times[0].max(times[1]),
                    ..pb::Breaker::default()
                }),
                outlier_detection: Some(pb::OutlierDetection {
                    enabled: small.map(|n| n % 2 == 0),
                    interval_ms: times[2],
                    latency: small.map(|n| n % 3 == 0),
                    ..pb::OutlierDetection::default()
                }),
                retries: Some(pb::Retries {
                    retries: small.map(|n| u32::from(n) % 11),
                    try_timeout_ms: times[3],
                    ..pb::Retries::default()
                }),
                slow_start_ms: small.map(|n| u32::from(n) * 1000),
                panic_threshold_percent: small.map(|n| u32::from(n) % 101),
                affinity: small.map(|n| pb::Affinity {
                    kind: ["none", "cookie", "cookie", "header"][usize::from(n % 4)].to_owned(),
                    cookie: ["", "id"][usize::from(n / 4 % 2)].to_owned(),
                    ttl_ms: u32::from(n / 8) * 1000,
                    path: ["", "/app"][usize::from(n / 16 % 2)].to_owned(),
                    same_site: ["", "strict"][usize::from(n / 32 % 2)].to_owned(),
                    secure: ["", "never"][usize::from(n / 64 % 2)].to_owned(),
                    http_only: (n > 100).then_some(n % 3 == 0),
                    strict: n % 5 == 0,
                    header: "X-User".to_owned(),
                }),
                fallback_pool: small.map(|_| "spare".to_owned()).unwrap_or_default(),
                fallback_answer: small.map(|n| pb::StaticAnswer {
                    status: 206 + u32::from(n) % 90,
                    content_type: String::new(),
                    body: "sorry, \"soon\"".into(),
                }),
                max_in_flight: choices,
                adaptive_concurrency: small.map(|n| pb::AdaptiveConcurrency {
                    enabled: n % 2 == 0,
                    min: u32::from(n % 2),
                }),
                queue_length: small.map(u32::from),
                queue_timeout_ms: times[2],
            })
        });
    let labels = prop::collection::btree_map("[a-zA-Z .\"=]{1,4}", ".{0,6}", 0..3);
    let backend = ("[d-f]", "[a-z]{1,3}:[1-9]", "[a-c]", 0..260_u32, 0..3_i32, labels).prop_map(
        |(id, address, pool, weight, admin_state, labels)| {
            let (max_in_flight, weight) = (weight, Some(weight));
            Any::Backend(pb::Backend {
                source: String::new(),
                id,
                address,
                pool,
                weight,
                admin_state,
                labels,
                incarnation: 0,
                drain: None,
                max_in_flight,
            })
        },
    );
    let listener = ("[a-c]", any::<bool>(), any::<[u16; 5]>(), any::<u64>(), ms()).prop_map(
        |(name, always, numbers, body, time)| {
            let networks = vec!["10.0.0.0/8".to_owned(), "::1/128".to_owned()];
            Any::Listener(pb::Listener {
                name,
                trust_xff: if always { "always" } else { "trusted" }.to_owned(),
                trusted_proxies: if always { Vec::new() } else { networks },
                header_timeout_ms: time,
                drain_timeout_ms: time,
                max_requests: numbers[0].into(),
                max_connections: numbers[1].into(),
                max_head_bytes: u32::from(numbers[2]) * 16,
                max_trailer_bytes: numbers[3].into(),
                max_connections_per_client: numbers[4].into(),
                max_body_bytes: body,
                ..pb::Listener::default()
            })
        },
    );
    let route = (
        "[a-c]",
        "[a-c]",
        "(\\*|(\\*\\.)?[a-c]\\.d|)",
        "/[a-b]{0,2}",
        any::<bool>(),
        prop::option::of(0_u32..=256),
    )
        .prop_map(|(name, pool, host, path, exact, other)| {
            let (path, path_prefix) =
                if exact { (path, String::new()) } else { (String::new(), path) };
            let listener = pool.clone();
            let share = |pool: &str, weight| pb::WeightedPool { pool: pool.to_owned(), weight };
            let pools = other.map(|weight| vec![share(&pool, None), share("other", Some(weight))]);
            let pool = if pools.is_some() { String::new() } else { pool };
            let pools = pools.unwrap_or_default();
            Any::Route(pb::Route { name, listener, host, path_prefix, path, pool, pools })
        });
    let limit = ("[a-c]", 0..4_usize, 1..2000_u32, prop::option::of(1..5000_u32), any::<bool>())
        .prop_map(|(name, kind, count, burst, shadow)| {
            Any::Limit(pb::Limit {
                pool: if kind == 1 { name.clone() } else { String::new() },
                route: if kind == 2 { name.clone() } else { String::new() },
                name,
                key: ["", "path", "header:x-a", "all"][kind].to_owned(),
                rate: format!("{count}/{}", ["s", "m", "h", "d"][kind]),
                burst,
                scope: ["", "proxy", "fleet", "backend"][kind].to_owned(),
                shadow,
                ..pb::Limit::default()
            })
        });
    let any =
        prop_oneof![pool.boxed(), backend.boxed(), listener.boxed(), route.boxed(), limit.boxed()];
    any.prop_map(|object| {
        convert::object_from_wire(pb::Object { object: Some(object), revision: 0 }).ok()
    })
}

proptest! {
    /// What is exported declares the very same objects: applied where it comes from it
    /// changes nothing, and applied to a fresh control plane it gives them all.
    #[test]
    fn what_is_exported_comes_back(
        objects in prop::collection::vec(object(), 0..12),
        all: bool,
        json: bool,
    ) {
        let mut unique: Vec<Resource> = Vec::new();
        let mut addresses = std::collections::HashSet::new();
        for object in objects.into_iter().flatten() {
            let twin = matches!(&object, Resource::Backend(b)
                if !addresses.insert((b.pool.clone(), b.address.clone())));
            if !twin && unique.iter().all(|other| other.key() != object.key()) {
                unique.push(object);
            }
        }
        unique.sort_by_key(Resource::kind);
        let document = Document::of(&unique, all);
        let (text, format) = if json {
            (document.to_json(), Format::Json)
        } else {
            (document.to_toml(), Format::Toml)
        };
        let file = Source { name: "f".to_owned(), text: text.clone(), format };
        let declaration = Declaration::read(&[file], |_, _| true);
        let declaration = declaration.map_err(|p| TestCaseError::fail(format!("{p}\n{text}")))?;
        let needed = changes(&declaration, &unique, true);
        prop_assert!(needed.iter().all(|change| !change.is_needed()), "{:?}\n{}", needed, text);
        prop_assert_eq!(resources(&declaration), unique);
    }

    #[test]
    fn any_text_is_read_or_refused_with_places(text in "[\\[\\]{}a-z\"=\n:, 0-9]{0,60}", json: bool) {
        let format = if json { Format::Json } else { Format::Toml };
        let file = Source { name: "f".to_owned(), text, format };
        if let Err(problems) = Declaration::read(&[file], fresh) {
            prop_assert!(problems.list().iter().all(|p| p.place.line > 0 && p.place.column > 0));
        }
    }
}
