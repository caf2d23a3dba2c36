//! What is observed: proxies, the control plane itself, traffic.

use std::collections::BTreeMap;

use axum::{http::StatusCode, response::Response};
use lb_core::model::ProxyId;
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

use super::{
    answer::{Traffic, json as answer},
    fault::Fault,
    objects::{Asked, missing},
    query::Query,
};
use crate::{
    clock::{millis, told, told_if_any},
    fleet::{ForgetError, ProxyState, ProxyView},
    registry::WriteRequest,
    session_keys::{self, KeysView},
};

/// A proxy that is connected, was lost within the last day, or stopped within the last hour.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Proxy)]
pub(super) struct ProxyAnswer {
    id: String,
    /// New for each start of the proxy.
    instance: String,
    /// `synced`, `behind` or `rejected`; not connected: `stopped`, of one that was stopped in order,
    /// or `lost`.
    state: &'static str,
    /// What it serves by.
    applied_revision: u64,
    /// What it was sent last.
    sent_revision: u64,
    /// From a change to its application, the last time.
    lag_ms: u64,
    connected_unix_ms: u64,
    /// Since it was last heard of.
    last_seen_ms: u64,
    /// Since when it serves a state that it could not confirm; 0 when it does not.
    stale_since_unix_ms: u64,
    /// Where each listener accepts connections.
    listen_addresses: BTreeMap<String, String>,
    /// Where its own health and metrics are; may be empty.
    admin_address: String,
    build_version: String,
    workers: u32,
    /// Requests per second, over the last seconds.
    request_rate: f64,
    /// What it gives up for want of connections or memory: `normal`, `close_idle`,
    /// `refuse_connections` or `refuse_requests`; empty until it has told.
    overload_stage: String,
    /// What led to the stage; empty in normal times.
    overload_reason: String,
    /// It would take the state if an operator consented (`adopt-store`).
    awaits_consent: bool,
    /// The revision of this store that it holds, if the store itself is older: an older copy of the
    /// store was put back. 0 otherwise.
    ahead_revision: u64,
    /// Objects that it refused; it serves by their former values.
    rejections: Vec<RejectedObject>,
    /// Why it refuses the whole state; empty when it does not.
    refusal: String,
    /// The id of the next session key, if that does not sign before this proxy has it or is gone;
    /// empty otherwise.
    awaited_session_key: String,
}

/// An object that a proxy refused.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RejectedObject {
    kind: String,
    name: String,
    revision: u64,
    code: String,
    reason: String,
}

/// The control plane and what it manages, in numbers.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Status)]
pub(super) struct StatusAnswer {
    /// Names this process.
    server_id: String,
    build_version: String,
    /// Whether writes are taken.
    writable: bool,
    /// Names the store: revisions of another one mean nothing here.
    epoch: String,
    /// Of the store.
    revision: u64,
    started_unix_ms: u64,
    last_change_unix_ms: u64,
    proxies: ProxyCounts,
    pools: usize,
    backends: usize,
    listeners: usize,
    routes: usize,
    limits: usize,
}

/// Proxies by their state.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(super) struct ProxyCounts {
    synced: u32,
    behind: u32,
    rejected: u32,
    lost: u32,
    /// Stopped in order within the last hour.
    stopped: u32,
}

/// Traffic of the fleet.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Stats)]
pub(super) struct StatsAnswer {
    /// Of all backends.
    total: Traffic,
    /// Of the backends of each pool.
    pools: BTreeMap<String, Traffic>,
    /// What clients were answered.
    clients: ClientStats,
}

/// Answers to clients, whoever gave them.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ClientStats {
    requests: u64,
    /// By the status of the answer.
    status_classes: StatusClasses,
    /// Answered 503, because no backend could serve.
    no_healthy_backend: u64,
    /// Answered 404, because no route matched.
    no_route: u64,
    /// No valid HTTP, too large or too slow.
    client_errors: u64,
    /// Clients that left before their answer.
    client_aborts: u64,
    /// Open now.
    connections: u32,
}

/// Counts by class of status.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct StatusClasses {
    #[serde(rename = "1xx")]
    informational: u64,
    #[serde(rename = "2xx")]
    success: u64,
    #[serde(rename = "3xx")]
    redirection: u64,
    #[serde(rename = "4xx")]
    client_error: u64,
    #[serde(rename = "5xx")]
    server_error: u64,
}

/// `GET /v1/proxies`
pub(super) fn proxies(asked: &Asked) -> Result<Response, Fault> {
    Query::read(asked.uri.query(), &[])?;
    let views = asked.context.fleet.list();
    let keys = session_keys::view(&asked.context);
    let items: Vec<ProxyAnswer> =
        views.into_iter().map(|view| proxy_answer(asked, view, &keys)).collect();
    let body = json!({ "items": items, "revision": asked.context.registry.revision() });
    Ok(answer(StatusCode::OK, &body))
}

/// `GET /v1/proxies/ID`
pub(super) fn proxy(asked: &Asked, id: &str) -> Result<Response, Fault> {
    Query::read(asked.uri.query(), &[])?;
    let mut views = asked.context.fleet.list();
    match views.iter().position(|view| view.info.id.as_str() == id) {
        Some(at) => {
            let keys = session_keys::view(&asked.context);
            let body = proxy_answer(asked, views.swap_remove(at), &keys);
            Ok(answer(StatusCode::OK, &body))
        }
        None => {
            let ids: Vec<&str> = views.iter().map(|view| view.info.id.as_str()).collect();
            Err(missing("proxy", id, &ids))
        }
    }
}

/// `POST /v1/proxies/ID/adopt-store`
pub(super) fn adopt_store(asked: &Asked, id: &str) -> Result<Response, Fault> {
    // Whoever is not there is told below.
    if let Ok(id) = ProxyId::new(id) {
        Query::read(asked.uri.query(), &[])?;
        asked.context.fleet.adopt(Some(&id));
    }
    proxy(asked, id)
}

/// `DELETE /v1/proxies/ID`
pub(super) async fn forget_proxy(asked: &Asked, id: &str) -> Result<Response, Fault> {
    let query = Query::read(asked.uri.query(), &["dry_run"])?;
    let registry = &asked.context.registry;
    if asked.repeated(&query, "").await?.is_none() {
        asked.context.forget_proxy(id, query.dry_run).map_err(|error| match error {
            ForgetError::Unknown(_) => Fault::not_found(error.to_string()),
            ForgetError::Connected(_) => {
                Fault::new(StatusCode::CONFLICT, "conflict", error.to_string())
            }
        })?;
        let refused = |error| Fault::of(&error, false);
        if let Some(idempotency) = asked.idempotency(&query, "").map_err(refused)? {
            // Nothing is stored but that this was asked for.
            let note = WriteRequest { idempotency: Some(idempotency), ..WriteRequest::default() };
            registry.write(note).await.map_err(refused)?;
        }
    }
    let revision = registry.revision();
    let body = json!({ "kind": "proxy", "name": id, "removed": true, "revision": revision });
    Ok(answer(StatusCode::OK, &body))
}

/// `GET /v1/status`
pub(super) fn status(asked: &Asked) -> Result<Response, Fault> {
    Query::read(asked.uri.query(), &[])?;
    let context = &asked.context;
    let mut proxies = ProxyCounts::default();
    for view in context.fleet.list() {
        *match view.state {
            ProxyState::Synced => &mut proxies.synced,
            ProxyState::Behind => &mut proxies.behind,
            ProxyState::Rejected => &mut proxies.rejected,
            ProxyState::Lost => &mut proxies.lost,
            ProxyState::Stopped => &mut proxies.stopped,
        } += 1;
    }
    let body = context.registry.read(|view| {
        let version = view.publisher.version();
        StatusAnswer {
            server_id: context.server_id.clone(),
            build_version: env!("CARGO_PKG_VERSION").to_owned(),
            writable: context.registry.takes_writes(),
            epoch: version.epoch.to_string(),
            revision: version.revision,
            started_unix_ms: told(context.started),
            last_change_unix_ms: told(view.committed),
            proxies,
            pools: view.catalog.pools().len(),
            backends: view.catalog.backends().len(),
            listeners: view.catalog.listeners().len(),
            routes: view.catalog.routes().len(),
            limits: view.catalog.limits().len(),
        }
    });
    Ok(answer(StatusCode::OK, &body))
}

/// `GET /v1/stats`
pub(super) fn stats(asked: &Asked) -> Result<Response, Fault> {
    Query::read(asked.uri.query(), &[])?;
    let context = &asked.context;
    // Pools without traffic are listed too, with zeros.
    let names: Vec<_> =
        context.registry.read(|view| view.catalog.pools().keys().cloned().collect());
    let totals = context.statistics.pools();
    let mut pools: BTreeMap<String, Traffic> =
        names.iter().map(|name| (name.to_string(), Traffic::default())).collect();
    pools.extend(totals.iter().map(|(name, totals)| (name.to_string(), totals.into())));
    let process = context.statistics.process();
    let [informational, success, redirection, client_error, server_error] = process.status_classes;
    let body = StatsAnswer {
        total: (&context.statistics.all()).into(),
        pools,
        clients: ClientStats {
            requests: process.requests,
            status_classes: StatusClasses {
                informational,
                success,
                redirection,
                client_error,
                server_error,
            },
            no_healthy_backend: process.no_healthy_backend,
            no_route: process.no_route,
            client_errors: process.client_errors,
            client_aborts: process.client_aborts,
            connections: process.client_connections,
        },
    };
    Ok(answer(StatusCode::OK, &body))
}

fn proxy_answer(asked: &Asked, view: ProxyView, keys: &KeysView) -> ProxyAnswer {
    let ProxyView { info, state, progress, connected, last_seen, lag } = view;
    let awaited = keys.awaited_of(&info.id);
    let (process, request_rate) = asked.context.statistics.proxy(&info.id).unwrap_or_default();
    ProxyAnswer {
        id: info.id.to_string(),
        instance: info.instance.to_string(),
        state: state.name(),
        applied_revision: progress.applied_revision,
        sent_revision: progress.sent_revision,
        lag_ms: millis(lag),
        connected_unix_ms: told(connected),
        last_seen_ms: millis(last_seen),
        stale_since_unix_ms: told_if_any(info.stale_since),
        listen_addresses: info.listen_addresses.into_iter().collect(),
        admin_address: info.admin_address,
        build_version: info.build_version,
        workers: info.workers,
        request_rate,
        overload_stage: process.overload.stage,
        overload_reason: process.overload.reason.message,
        refusal: progress.refusal.unwrap_or_default(),
        awaits_consent: progress.awaits_consent,
        ahead_revision: progress.ahead_revision.unwrap_or_default(),
        awaited_session_key: awaited.unwrap_or_default(),
        rejections: progress
            .rejections
            .into_iter()
            .map(|rejection| RejectedObject {
                kind: rejection.key.kind.to_string(),
                name: rejection.key.name.to_string(),
                revision: rejection.revision,
                code: rejection.code,
                reason: rejection.message,
            })
            .collect(),
    }
}
