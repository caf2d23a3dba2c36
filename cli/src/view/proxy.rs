//! A proxy, as the control plane sees it.

use std::{collections::BTreeMap, fmt::Write as _};

use lb_proto::v1 as pb;
use serde::Serialize;

use super::{ReasonView, some_unix_ms};
use crate::format;

/// One proxy: its versions, its addresses, its process.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct ProxyView {
    pub(crate) id: String,
    pub(crate) instance_id: String,
    pub(crate) state: String,
    pub(crate) sent_revision: u64,
    pub(crate) applied_revision: u64,
    pub(crate) digest: String,
    pub(crate) connected_unix_ms: Option<u64>,
    pub(crate) last_seen_ms: u64,
    pub(crate) lag_ms: u32,
    pub(crate) stale_since_unix_ms: Option<u64>,
    pub(crate) held_source: String,
    pub(crate) rejections: Vec<RejectionView>,
    pub(crate) refusal: Option<String>,
    /// It would take the state if an operator consented.
    pub(crate) awaits_consent: bool,
    /// The revision of this store that it holds, if the store itself is older.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ahead_revision: Option<u64>,
    /// The next session key, if that waits for it.
    pub(crate) awaited_session_key: Option<String>,
    pub(crate) listen: Vec<ListenView>,
    pub(crate) admin_address: String,
    pub(crate) peer_address: String,
    /// Whether it runs on another machine than the control plane.
    pub(crate) elsewhere: bool,
    pub(crate) build_version: String,
    pub(crate) workers: u32,
    pub(crate) requests_per_second: f64,
    /// When the counters of `process` began: the start of the control plane.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) counted_since_unix_ms: Option<u64>,
    pub(crate) divergences_total: u64,
    pub(crate) snapshots_sent_total: u64,
    pub(crate) deltas_sent_total: u64,
    pub(crate) process: Option<ProcessView>,
}

impl ProxyView {
    /// Whether its stream is open.
    pub(crate) fn is_connected(&self) -> bool {
        is_connected(&self.state)
    }

    /// Whether it was stopped in order: then it serves nobody, and that is as it should be.
    pub(crate) fn is_stopped(&self) -> bool {
        self.state == "stopped"
    }
}

/// Whether a proxy in this state is connected.
pub(crate) fn is_connected(state: &str) -> bool {
    !matches!(state, "lost" | "stopped")
}

/// Where a proxy accepts.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct ListenView {
    pub(crate) listener: String,
    pub(crate) address: String,
}

/// An object that a proxy refused.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct RejectionView {
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) revision: u64,
    pub(crate) code: String,
    pub(crate) message: String,
}

/// Figures of a proxy's process.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct ProcessView {
    pub(crate) requests_total: u64,
    pub(crate) no_healthy_backend_total: u64,
    pub(crate) no_route_total: u64,
    pub(crate) client_errors_total: u64,
    pub(crate) client_aborts_total: u64,
    pub(crate) client_connections: u32,
    pub(crate) resident_bytes: u64,
    pub(crate) cpu_us_total: u64,
    /// 1xx to 5xx.
    pub(crate) status_classes_total: Vec<u64>,
    /// What the proxy answered by itself, by reason.
    pub(crate) own_answers_total: BTreeMap<String, u64>,
    pub(crate) access_log_dropped_total: u64,
    /// In the order of the workers.
    pub(crate) worker_connections: Vec<u32>,
    /// What it gives up for want of connections or memory; nothing for the fleet, and for a
    /// proxy that is too old to tell.
    pub(crate) overload: Option<OverloadView>,
    /// Connections of clients at which accepting pauses; 0 if it is not known.
    pub(crate) connections_max: u32,
    /// 0: any.
    pub(crate) memory_max_bytes: u64,
}

/// What a proxy gives up.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct OverloadView {
    /// `normal`, `close_idle`, `refuse_connections` or `refuse_requests`.
    pub(crate) stage: String,
    /// `connections` or `memory`; empty in normal times.
    pub(crate) resource: String,
    /// How much of it is in use.
    pub(crate) cause: String,
}

impl OverloadView {
    /// Whether anything is given up.
    pub(crate) fn is_overloaded(&self) -> bool {
        self.stage != "normal"
    }

    /// What it means for clients, and why.
    pub(crate) fn sentence(&self) -> String {
        let means = match self.stage.as_str() {
            "normal" => return "no".to_owned(),
            "close_idle" => "idle clients are closed",
            "refuse_connections" => "new connections wait",
            "refuse_requests" => "requests that there is no memory for are answered 503",
            other => other,
        };
        format!("{means} ({}): {}", self.stage, self.cause)
    }

    /// What an operator can do about it.
    pub(crate) fn remedy(&self) -> &'static str {
        if self.resource == "memory" {
            "give it more memory (--max-memory, or its container), or add a proxy"
        } else {
            "raise its --max-connections and limit of open files, or add a proxy"
        }
    }
}

impl RejectionView {
    /// `pool default: unknown algorithm "x" (unknown_algorithm)`.
    pub(crate) fn sentence(&self) -> String {
        if self.kind == "state" && self.name.is_empty() {
            return format!("the whole state: {}", self.message);
        }
        format!("{} {}: {} ({})", self.kind, self.name, self.message, self.code)
    }
}

impl From<pb::Proxy> for ProxyView {
    fn from(wire: pb::Proxy) -> Self {
        Self {
            id: wire.id,
            instance_id: wire.instance_id,
            state: wire.state,
            sent_revision: wire.sent_revision,
            applied_revision: wire.applied_revision,
            digest: hex(&wire.digest),
            connected_unix_ms: some_unix_ms(wire.connected_unix_ms),
            last_seen_ms: wire.last_seen_ms,
            lag_ms: wire.lag_ms,
            stale_since_unix_ms: some_unix_ms(wire.stale_since_unix_ms),
            held_source: wire.held_source,
            rejections: wire.rejections.into_iter().map(RejectionView::from).collect(),
            awaits_consent: wire.awaits_consent,
            ahead_revision: Some(wire.ahead_revision).filter(|revision| *revision > 0),
            refusal: Some(wire.refusal).filter(|refusal| !refusal.is_empty()),
            awaited_session_key: Some(wire.awaited_session_key).filter(|key| !key.is_empty()),
            listen: wire
                .listen_addresses
                .into_iter()
                .map(|listen| ListenView { listener: listen.listener, address: listen.address })
                .collect(),
            admin_address: wire.admin_address,
            peer_address: wire.peer_address,
            elsewhere: wire.elsewhere,
            build_version: wire.build_version,
            workers: wire.workers,
            requests_per_second: wire.request_rate,
            counted_since_unix_ms: some_unix_ms(wire.counted_since_unix_ms),
            divergences_total: wire.divergences,
            snapshots_sent_total: wire.snapshots_sent,
            deltas_sent_total: wire.deltas_sent,
            process: wire.process.map(ProcessView::from),
        }
    }
}

impl From<pb::Rejection> for RejectionView {
    fn from(wire: pb::Rejection) -> Self {
        Self {
            kind: wire.kind,
            name: wire.name,
            revision: wire.revision,
            code: wire.code,
            message: wire.message,
        }
    }
}

impl From<pb::ProcessReport> for ProcessView {
    fn from(wire: pb::ProcessReport) -> Self {
        Self {
            requests_total: wire.requests,
            no_healthy_backend_total: wire.no_healthy_backend,
            no_route_total: wire.no_route,
            client_errors_total: wire.client_errors,
            client_aborts_total: wire.client_aborts,
            client_connections: wire.client_connections,
            resident_bytes: wire.resident_bytes,
            cpu_us_total: wire.cpu_us,
            status_classes_total: wire.status_classes,
            own_answers_total: wire.own_answers,
            access_log_dropped_total: wire.access_log_dropped,
            worker_connections: wire.worker_connections,
            overload: overload(wire.overload_stage, wire.overload.unwrap_or_default()),
            connections_max: wire.max_connections,
            memory_max_bytes: wire.max_memory_bytes,
        }
    }
}

fn overload(stage: String, reason: pb::Reason) -> Option<OverloadView> {
    let view = OverloadView { stage, resource: reason.code, cause: reason.message };
    (!view.stage.is_empty()).then_some(view)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string cannot fail");
        text
    })
}
/// A process that the control plane refuses.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct RefusedView {
    id: String,
    instance: String,
    build_version: String,
    peer_address: String,
    reason: ReasonView,
    pub(crate) since_unix_ms: u64,
    last_unix_ms: u64,
    attempts: u64,
}

impl RefusedView {
    /// Which one, for how long, and why, at the time `now`.
    pub(crate) fn sentence(&self, now: u64) -> String {
        let name = if self.id.is_empty() { "a proxy without an id" } else { &self.id };
        let from = if self.peer_address.is_empty() { "a Unix socket" } else { &self.peer_address };
        let since = format::age_of(Some(self.since_unix_ms), now);
        let why = self.reason.sentence();
        let attempts = format::count(
            usize::try_from(self.attempts).unwrap_or(usize::MAX),
            "attempt",
            "attempts",
        );
        format!("{name} from {from} is refused, {attempts} in {since}: {why}")
    }

    /// What to do about it.
    pub(crate) fn next_step(&self) -> String {
        match self.reason.code.as_str() {
            "proxy_id_in_use" => {
                "give it '--id' and '--data-dir' of its own, or stop one of the two; until then it \
                 serves what it has on its disk"
            }
            "no_common_version" => {
                "upgrade the older of proxy and control plane; until then it serves what it has on \
                 its disk"
            }
            _ => "start it with a valid '--id'; its log says the same",
        }
        .to_owned()
    }
}

impl From<pb::RefusedProxy> for RefusedView {
    fn from(wire: pb::RefusedProxy) -> Self {
        Self {
            id: wire.id,
            instance: wire.instance_id,
            build_version: wire.build_version,
            peer_address: wire.peer_address,
            reason: ReasonView::from(wire.reason),
            since_unix_ms: wire.since_unix_ms,
            last_unix_ms: wire.last_unix_ms,
            attempts: wire.attempts,
        }
    }
}
