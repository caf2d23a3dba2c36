//! Objects of any kind: as payloads of the sync protocol, and in the registry.

use bytes::Bytes;
use lb_core::{
    model::{Invalid, Kind, Resource},
    sync::Object,
};
use prost::Message;

use crate::v1 as pb;

/// The payload under which an object is stored, hashed and sent.
#[must_use]
pub fn encode(resource: &Resource) -> Bytes {
    match resource {
        Resource::Pool(pool) => pb::Pool::from(pool).encode_to_vec(),
        Resource::Backend(backend) => pb::Backend::from(backend).encode_to_vec(),
        Resource::Status(status) => pb::BackendStatus::from(status).encode_to_vec(),
        Resource::Listener(listener) => pb::Listener::from(listener).encode_to_vec(),
        Resource::Route(route) => pb::Route::from(route).encode_to_vec(),
        Resource::Limit(limit) => pb::Limit::from(limit).encode_to_vec(),
        Resource::SessionKeys(keys) => pb::SessionKeys::from(keys).encode_to_vec(),
    }
    .into()
}

/// Reads and checks the payload of an object of this kind.
pub fn decode(kind: &str, payload: &[u8]) -> Result<Resource, Invalid> {
    let kind: Kind = kind.parse()?;
    match kind {
        Kind::Pool => read::<pb::Pool>(payload)?.try_into().map(Resource::Pool),
        Kind::Backend => read::<pb::Backend>(payload)?.try_into().map(Resource::Backend),
        Kind::Status => read::<pb::BackendStatus>(payload)?.try_into().map(Resource::Status),
        Kind::Listener => read::<pb::Listener>(payload)?.try_into().map(Resource::Listener),
        Kind::Route => {
            read::<pb::Route>(payload).and_then(super::stored_route).map(Resource::Route)
        }
        Kind::Limit => read::<pb::Limit>(payload)?.try_into().map(Resource::Limit),
        Kind::SessionKeys => {
            read::<pb::SessionKeys>(payload)?.try_into().map(Resource::SessionKeys)
        }
    }
}

/// [`decode`] for a subscriber; also refuses a payload that names another object.
pub fn decode_object(object: &Object) -> Result<Resource, Invalid> {
    let resource = decode(&object.key.kind, &object.payload)?;
    if resource.name() != &*object.key.name {
        return Err(Invalid::unknown(
            "object.name",
            "invalid_value",
            format!("the payload of {} is that of {:?}", object.key, resource.name()),
        ));
    }
    Ok(resource)
}

fn read<M: Message + Default>(payload: &[u8]) -> Result<M, Invalid> {
    M::decode(payload).map_err(|error| {
        Invalid::unknown(
            "object.payload",
            "malformed",
            format!("the payload cannot be read: {error}"),
        )
    })
}

/// The form in which the registry answers.
///
/// A status is no object of the registry and gives an empty one; keys are told to nobody.
#[must_use]
pub fn object_to_wire(resource: &Resource, revision: u64) -> pb::Object {
    use pb::object::Object as Wire;
    let object = match resource {
        Resource::Pool(pool) => Some(Wire::Pool(pool.into())),
        Resource::Backend(backend) => Some(Wire::Backend(backend.into())),
        Resource::Listener(listener) => Some(Wire::Listener(listener.into())),
        Resource::Route(route) => Some(Wire::Route(route.into())),
        Resource::Limit(limit) => Some(Wire::Limit(super::limit::told_limit(limit))),
        Resource::Status(_) | Resource::SessionKeys(_) => None,
    };
    pb::Object { object, revision }
}

/// Reads and checks what a client puts into the registry.
pub fn object_from_wire(wire: pb::Object) -> Result<Resource, Invalid> {
    use pb::object::Object as Wire;
    match wire.object {
        Some(Wire::Pool(pool)) => pool.try_into().map(Resource::Pool),
        Some(Wire::Backend(backend)) => backend.try_into().map(Resource::Backend),
        Some(Wire::Listener(listener)) => listener.try_into().map(Resource::Listener),
        Some(Wire::Route(route)) => route.try_into().map(Resource::Route),
        Some(Wire::Limit(limit)) => limit.try_into().map(Resource::Limit),
        None => Err(Invalid::value(
            "object",
            "the object is empty or of a kind that this build does not know; \
             give a pool, a backend, a listener, a route or a limit",
        )),
    }
}

#[cfg(test)]
mod tests {
    use lb_core::model::{BackendStatus, Health, Incarnation, Reason, Standing};
    use proptest::prelude::*;

    use super::*;

    fn wire_pool() -> impl Strategy<Value = pb::Pool> {
        let check = (
            prop::sample::select(vec!["", "http", "tcp", "none", "udp"]),
            prop::sample::select(vec!["", "/health", "health", "/a b"]),
            any::<[u16; 3]>(),
            0u32..130,
            0u32..130,
        );
        let algorithm = prop::sample::select(vec![
            "",
            "round_robin",
            "weighted_round_robin",
            "ip_hash",
            "least_conn",
            "future",
        ]);
        ("[a-z.-]{0,5}", algorithm, check, 0u32..40, any::<Option<u16>>(), any::<[u32; 6]>())
            .prop_map(|(name, algorithm, check, choices, hold, numbers)| pb::Pool {
                name,
                algorithm: algorithm.into(),
                choices,
                error_hold_ms: hold.map(u32::from),
                health_check: Some(pb::HealthCheck {
                    protocol: check.0.into(),
                    path: check.1.into(),
                    interval_ms: check.2[0].into(),
                    edge_interval_ms: check.2[1].into(),
                    timeout_ms: check.2[2].into(),
                    rise: check.3,
                    fall: check.4,
                }),
                connect_timeout_ms: numbers[0],
                request_timeout_ms: numbers[1],
                response_idle_timeout_ms: numbers[2],
                tunnel_idle_timeout_ms: numbers[3],
                keep_alive_timeout_ms: numbers[4],
                max_idle_connections: hold.map(u32::from),
                max_connection_age_ms: numbers[5],
                sources: hold.map(|n| format!("dns:web{n}.test:80")).into_iter().collect(),
                breaker: Some(pb::Breaker {
                    consecutive_failures: hold.map(u32::from),
                    failure_ratio_percent: hold.map(|n| u32::from(n) % 128),
                    min_requests: choices,
                    window_ms: check.2[0].into(),
                    open_ms: check.2[1].into(),
                    max_open_ms: check.2[2].into(),
                    successes: check.3,
                }),
                outlier_detection: Some(pb::OutlierDetection {
                    enabled: hold.map(|n| n % 2 == 0),
                    interval_ms: check.2[0].into(),
                    ejection_ms: check.2[1].into(),
                    max_ejection_ms: check.2[2].into(),
                    success_rate: hold.map(|n| n % 3 == 0),
                    failure_percent: hold.map(|n| u32::from(n) % 300),
                    latency: hold.map(|n| n % 5 == 0),
                }),
                retries: Some(pb::Retries {
                    retries: hold.map(|n| u32::from(n) % 16),
                    try_timeout_ms: check.2[0].into(),
                    budget_percent: hold.map(|n| u32::from(n) % 128),
                    budget_floor: hold.map(u32::from),
                }),
                slow_start_ms: hold.map(u32::from),
                panic_threshold_percent: hold.map(|n| u32::from(n) % 128),
                affinity: hold.map(|n| pb::Affinity {
                    kind: ["", "none", "cookie", "header", "sticky"][usize::from(n % 5)].into(),
                    cookie: ["", "id", "__Host-id", "a b"][usize::from(n / 5 % 4)].into(),
                    ttl_ms: check.2[0] as u32 % 5 * 500,
                    path: ["", "/", "/app", "app"][usize::from(n / 20 % 4)].into(),
                    same_site: ["", "lax", "none", "other"][usize::from(n / 80 % 4)].into(),
                    secure: ["", "auto", "always", "yes"][usize::from(n / 320 % 4)].into(),
                    http_only: (n % 3 > 0).then_some(n % 3 == 1),
                    strict: n % 2 == 0,
                    header: ["", "X-User", "a b"][usize::from(n % 3)].into(),
                }),
                fallback_pool: hold.map(|n| format!("p{n}")).unwrap_or_default(),
                fallback_answer: hold.map(|n| pb::StaticAnswer {
                    status: u32::from(n) % 1000,
                    content_type: String::new(),
                    body: vec![b'x'; usize::from(n) % 3].into(),
                }),
                max_in_flight: check.2[0].into(),
                adaptive_concurrency: hold.map(|n| pb::AdaptiveConcurrency {
                    enabled: n % 2 == 0,
                    min: u32::from(n) % 3,
                }),
                queue_length: hold.map(u32::from),
                queue_timeout_ms: numbers[0],
            })
    }

    fn wire_backend() -> impl Strategy<Value = pb::Backend> {
        (
            "[a-z0-9_]{0,4}",
            "[a-z]{0,3}",
            "[a-z0-9.:\\[\\]]{0,12}(:80)?",
            any::<Option<u16>>(),
            -1i32..4,
        )
            .prop_map(|(id, pool, address, weight, admin_state)| pb::Backend {
                id,
                pool,
                address,
                weight: weight.map(u32::from),
                admin_state,
                labels: [("zone".to_owned(), "a".to_owned())].into(),
                incarnation: 7,
                drain: (admin_state == 2).then(|| pb::Drain {
                    since_unix_ms: 5,
                    timeout_ms: weight.map_or(0, u32::from),
                    cutting: weight.is_some(),
                    ..pb::Drain::default()
                }),
                max_in_flight: weight.map_or(0, u32::from),
                source: weight.map(|n| format!("srv:_http._tcp.web{n}.test")).unwrap_or_default(),
            })
    }

    /// Small numbers, so that many are within their bounds.
    fn wire_listener() -> impl Strategy<Value = pb::Listener> {
        (any::<[u16; 6]>(), any::<[u8; 6]>(), any::<u64>()).prop_map(|(wide, small, body)| {
            pb::Listener {
                name: "web".to_owned(),
                max_requests: wide[0].into(),
                max_connections: wide[1].into(),
                max_connections_per_client: wide[2].into(),
                max_request_line_bytes: wide[3].into(),
                max_head_bytes: u32::from(wide[4]) * 8,
                max_trailer_bytes: wide[5].into(),
                max_fields: small[0].into(),
                max_chunk_extension_bytes: small[1].into(),
                max_pipelined: small[2].into(),
                max_drain_bytes: small[3].into(),
                drain_timeout_ms: small[4].into(),
                header_timeout_ms: small[5].into(),
                max_body_bytes: body,
                ..pb::Listener::default()
            }
        })
    }

    fn wire_route() -> impl Strategy<Value = pb::Route> {
        let pools = prop::collection::vec(("[ab]{0,2}", prop::option::of(0_u32..300)), 0..4);
        ("[a-z*.:]{0,5}", "(/[a-z]?){0,2}", "(/[a-z]?){0,1}", "[a-z]{0,1}", pools).prop_map(
            |(host, path_prefix, path, pool, pools)| pb::Route {
                name: "r".to_owned(),
                host,
                path_prefix,
                path,
                pool,
                pools: pools
                    .into_iter()
                    .map(|(pool, weight)| pb::WeightedPool { pool, weight })
                    .collect(),
                ..pb::Route::default()
            },
        )
    }

    fn wire_limit() -> impl Strategy<Value = pb::Limit> {
        let key = prop::sample::select(vec!["", "all", "path", "header:X-A", "cookie:a", "x"]);
        let scope = prop::sample::select(vec!["", "fleet", "proxy", "backend", "world"]);
        let names = ("[a-z]{0,2}", prop::option::of("[ab]"), prop::option::of("[ab]"));
        let amounts = ("[0-9]{1,3}(/[smhdx])?", prop::option::of(0_u32..9), any::<[u8; 16]>());
        (names, key, scope, amounts).prop_map(|((name, pool, route), key, scope, amounts)| {
            pb::Limit {
                name,
                pool: pool.unwrap_or_default(),
                route: route.unwrap_or_default(),
                key: key.to_owned(),
                rate: amounts.0,
                burst: amounts.1,
                scope: scope.to_owned(),
                shadow: amounts.2[0] > 99,
                incarnation: amounts.2[1].into(),
                secret: amounts.2.to_vec().into(),
            }
        })
    }

    fn survives(kind: &str, payload: &[u8]) -> Result<(), TestCaseError> {
        if let Ok(resource) = decode(kind, payload) {
            let again = encode(&resource);
            prop_assert_eq!(decode(kind, &again), Ok(resource.clone()));
            prop_assert_eq!(encode(&resource), again);
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn a_checked_pool_survives_the_wire(pool in wire_pool()) {
            survives("pool", &pool.encode_to_vec())?;
        }

        #[test]
        fn a_checked_backend_survives_the_wire(backend in wire_backend()) {
            survives("backend", &backend.encode_to_vec())?;
        }

        #[test]
        fn a_checked_listener_survives_the_wire(listener in wire_listener()) {
            survives("listener", &listener.encode_to_vec())?;
        }

        #[test]
        fn a_checked_route_survives_the_wire(route in wire_route()) {
            survives("route", &route.encode_to_vec())?;
        }

        #[test]
        fn a_checked_limit_survives_the_wire(limit in wire_limit()) {
            survives("limit", &limit.encode_to_vec())?;
        }

        #[test]
        fn garbage_is_an_error_and_never_a_panic(
            kind in prop::sample::select(vec!["pool", "backend", "status", "listener", "route", "limit", "session_keys", "x"]),
            payload in prop::collection::vec(any::<u8>(), 0..60),
        ) {
            survives(kind, &payload)?;
        }
    }

    #[test]
    fn an_algorithm_of_the_future_is_refused_by_name() {
        let pool = pb::Pool { name: "p".into(), algorithm: "quantum".into(), ..Default::default() };
        let error = decode("pool", &pool.encode_to_vec()).unwrap_err();
        assert_eq!(error.code, "unknown_algorithm");
        assert!(error.message.contains("quantum"));
    }

    #[test]
    fn a_host_with_a_port_is_no_damage_but_nobody_can_add_one() {
        let wire = pb::Route {
            name: "r".into(),
            host: "web.test:8080".into(),
            pool: "default".into(),
            ..Default::default()
        };
        let payload = wire.encode_to_vec();
        let stored = decode("route", &payload).unwrap();
        let Resource::Route(route) = &stored else { panic!("it is a route") };
        assert!(route.host.has_port() && !route.host.matches("web.test"));
        assert_eq!(decode("route", &encode(&stored)), Ok(stored.clone()));
        let wire = pb::Object { object: Some(pb::object::Object::Route(wire)), revision: 0 };
        assert!(object_from_wire(wire).unwrap_err().message.contains("has a port"));
    }

    #[test]
    fn a_path_with_a_query_is_no_damage_but_nobody_can_add_one() {
        let wire = pb::Route {
            name: "r".into(),
            path: "/search?q=1".into(),
            pool: "default".into(),
            ..Default::default()
        };
        let stored = decode("route", &wire.encode_to_vec()).unwrap();
        let Resource::Route(route) = &stored else { panic!("it is a route") };
        assert!(!route.path.matches("/search"));
        assert_eq!(decode("route", &encode(&stored)), Ok(stored.clone()));
        let wire = pb::Object { object: Some(pb::object::Object::Route(wire)), revision: 0 };
        assert!(object_from_wire(wire).unwrap_err().message.contains("has a query"));
    }

    #[test]
    fn a_status_survives_the_wire() {
        let status = Resource::Status(BackendStatus {
            backend: lb_core::model::BackendId::new("b").unwrap(),
            incarnation: Incarnation(3),
            health: Health::Down,
            addresses: vec!["[::1]:80".parse().unwrap()],
            reason: Reason::new("backend_connect_refused", "connection refused"),
            since_unix_ms: 5,
            was_up: true,
            standing: Standing::default(),
        });
        assert_eq!(decode("status", &encode(&status)), Ok(status));
    }

    #[test]
    fn what_is_left_out_gets_the_documented_default() {
        let wire = pb::Backend { id: "b".into(), address: "h:1".into(), ..Default::default() };
        let Ok(Resource::Backend(backend)) = decode("backend", &wire.encode_to_vec()) else {
            panic!("a minimal backend is valid");
        };
        assert_eq!((backend.weight.get(), backend.pool.as_str()), (1, "default"));
    }
}
