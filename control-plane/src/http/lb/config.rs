//! `GET /lb/config`: the settings in force, of the pool and the listener `default`.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use lb_core::model::{CheckProtocol, ListenerName, Pool, PoolName};
use serde_json::{Value, json};

use crate::{grpc::Context, http::problem::Problem};

/// The keys in capitals are those of the old balancer, durations in seconds.
pub(super) async fn config(State(context): State<Arc<Context>>) -> Response {
    let (pool, listener, revision) = context.registry.read(|view| {
        let pool = view.catalog.pools().get(&PoolName::default_pool());
        let listener = view.catalog.listeners().get(&ListenerName::default_listener());
        (
            pool.map(|stored| stored.value.clone()),
            listener.map(|stored| stored.value.clone()),
            view.publisher.version().revision,
        )
    });
    let Some(pool) = pool else {
        return Problem::new(
            StatusCode::NOT_FOUND,
            "not_found",
            "there is no pool named default, of which this would tell; lbctl get pools lists \
             what there is",
        )
        .into_response();
    };
    let mut proxies = context.fleet.list();
    proxies.retain(|proxy| proxy.state.is_connected());
    let logs = proxies.iter().map(|proxy| proxy.info.writes_access_log);
    // Without a proxy nothing is in force.
    let access_log = (!proxies.is_empty()).then(|| logs.into_iter().all(|on| on));
    let addresses: Vec<&str> = proxies
        .iter()
        .flat_map(|proxy| &proxy.info.listen_addresses)
        .map(|(_, address)| address.as_str())
        .collect();
    Json(json!({
        "LOAD_BALANCER_ALGORITHM": pool.algorithm.name(),
        "HEALTH_CHECK_INTERVAL": health_interval(&pool),
        "REQUEST_TIMEOUT": seconds(pool.request_timeout),
        "ENABLE_ACCESS_LOG": access_log,
        // Nothing when the pool keeps no sessions.
        "SESSION_TIMEOUT": pool.affinity.cookie().map(|policy| seconds(policy.ttl)),
        "sticky": pool.affinity.to_string(),
        "health_check": health_check(&pool),
        "connect_timeout": seconds(pool.connect_timeout),
        "response_idle_timeout": seconds(pool.connections.response_idle_timeout),
        "keep_alive_timeout": listener.as_ref().map(|l| seconds(l.keep_alive_timeout)),
        "header_timeout": listener.as_ref().map(|l| seconds(l.header_timeout)),
        "max_body_bytes": listener.as_ref().map(|l| l.limits.body_bytes_max).filter(|max| *max > 0),
        "proxies": proxies.len(),
        "listen_addresses": addresses,
        "revision": revision,
        "version": env!("CARGO_PKG_VERSION"),
    }))
    .into_response()
}

/// Nothing when nothing is checked.
fn health_interval(pool: &Pool) -> Value {
    match pool.health.protocol() {
        CheckProtocol::None => Value::Null,
        CheckProtocol::Http { .. } | CheckProtocol::Tcp => seconds(pool.health.interval()),
    }
}

fn health_check(pool: &Pool) -> Value {
    let health = &pool.health;
    let (protocol, path) = match health.protocol() {
        CheckProtocol::Http { path } => ("http", Some(&**path)),
        CheckProtocol::Tcp => ("tcp", None),
        CheckProtocol::None => ("none", None),
    };
    json!({
        "protocol": protocol,
        "path": path,
        "interval": seconds(health.interval()),
        "timeout": seconds(health.timeout()),
        "rise": health.rise(),
        "fall": health.fall(),
    })
}

/// As a whole number where it is one.
fn seconds(duration: Duration) -> Value {
    if duration.subsec_nanos() == 0 {
        json!(duration.as_secs())
    } else {
        json!(duration.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_seconds_have_no_point() {
        assert_eq!(seconds(Duration::from_secs(30)).to_string(), "30");
        assert_eq!(seconds(Duration::from_millis(1500)).to_string(), "1.5");
    }
}
