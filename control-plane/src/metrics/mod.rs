//! The metrics of the control plane: every name, and what a scrape reads.
//!
//! What proxies report is told here as sums of the fleet, under names that begin with
//! `lb_fleet_`: whoever scrapes the proxies too must not count anything twice.
//!
//! `docs/metrics.md` has the same rows; a test compares them.

mod fleet;
mod scrape;

#[cfg(test)]
mod tests;

use lb_core::metrics::Definition;

pub(crate) use self::scrape::scrape;

pub(crate) const READY: Definition =
    Definition::gauge("lb_ready", &[], "1 while /readyz says yes, else 0");
pub(crate) const CONFIG_REVISION: Definition = Definition::gauge(
    "lb_config_revision",
    &["stage"],
    "Revision of the desired state (committed)",
);
pub(crate) const OBJECTS: Definition =
    Definition::gauge("lb_objects", &["kind"], "Objects of the desired state");
pub(crate) const WRITES: Definition = Definition::counter(
    "lb_registry_writes_total",
    &["result"],
    "Writes of people and programs: stored, unchanged (dry runs and repetitions too) or refused",
);
pub(crate) const STORE_FAILURES: Definition = Definition::counter(
    "lb_store_failures_total",
    &[],
    "Times that the store failed, after each of which it is opened again until it takes writes",
);
pub(crate) const COMMIT_DURATION: Definition = Definition::histogram(
    "lb_store_commit_duration_seconds",
    &[],
    "How long the store took for a commit",
);
pub(crate) const EVENTS: Definition =
    Definition::counter("lb_events_total", &["type"], "What lbctl watch shows, by type");
pub(crate) const PROXIES: Definition = Definition::gauge(
    "lb_proxies",
    &["state"],
    "Proxies that are synced, behind, rejected (serve a former value of something), lost (within a day) or stopped in order (within an hour)",
);
pub(crate) const PROXIES_BEHIND_MAX: Definition = Definition::gauge(
    "lb_proxies_revisions_behind_max",
    &[],
    "Revisions that the slowest connected proxy has not applied yet",
);
pub(crate) const PROXY_REVISION: Definition = Definition::gauge(
    "lb_proxy_config_revision",
    &["proxy", "stage"],
    "Revision that a proxy was sent and has applied; this and the next three for the first 500 proxies",
);
pub(crate) const PROXY_BEHIND: Definition = Definition::gauge(
    "lb_proxy_revisions_behind",
    &["proxy"],
    "Revisions that a proxy has not applied yet",
);
pub(crate) const PROXY_LAG: Definition = Definition::gauge(
    "lb_proxy_apply_lag_seconds",
    &["proxy"],
    "From the last commit that a proxy applied to its acknowledgement",
);
pub(crate) const PROXY_REJECTED: Definition = Definition::gauge(
    "lb_proxy_rejected_objects",
    &["proxy"],
    "Objects that a proxy refuses and serves in their former value",
);
pub(crate) const SYNC_STREAMS: Definition =
    Definition::gauge("lb_sync_streams", &[], "Proxies that are connected");
pub(crate) const SYNC_STREAMS_OPENED: Definition =
    Definition::counter("lb_sync_streams_opened_total", &[], "Streams of proxies that have begun");
pub(crate) const SYNC_SENT: Definition = Definition::counter(
    "lb_sync_transmissions_total",
    &["kind"],
    "Snapshots and deltas that were sent",
);
pub(crate) const SYNC_SENT_BYTES: Definition = Definition::counter(
    "lb_sync_sent_bytes_total",
    &["kind"],
    "Bytes of snapshots and deltas that were sent",
);
pub(crate) const STATS_REPORTS: Definition = Definition::counter(
    "lb_stats_reports_total",
    &["result"],
    "Reports of proxies: counted, repeated (ignored) or lost (their figures are missing below)",
);
pub(crate) const BACKENDS: Definition = Definition::gauge(
    "lb_backends",
    &["pool", "state"],
    "Backends that are up, kept (up although their requests fail: the pool cannot spare them), \
     ejected (their checks pass and their traffic keeps them out: an open \
     breaker, an outlier), down, unknown (not checked yet), disabled or draining",
);
pub(crate) const DRAIN_LEFT: Definition = Definition::gauge(
    "lb_drain_left",
    &["pool", "backend", "kind"],
    "What draining backends have left: requests, upgraded connections, and proxies that have not told",
);
pub(crate) const BACKEND_TRANSITIONS: Definition = Definition::counter(
    "lb_backend_transitions_total",
    &["pool", "to"],
    "Changes of verdicts, by the new one",
);
pub(crate) const BREAKER_TRANSITIONS: Definition = Definition::counter(
    "lb_breaker_transitions_total",
    &["pool", "from", "to", "reason"],
    "Changes of breakers between closed, open and half_open, by why",
);
pub(crate) const BACKEND_CHECKS: Definition = Definition::counter(
    "lb_backend_checks_total",
    &["pool", "result"],
    "Checks that have passed or failed",
);
pub(crate) const BACKEND_CHECK_DURATION: Definition = Definition::histogram(
    "lb_backend_check_duration_seconds",
    &["pool"],
    "How long checks took, name look-ups included",
);
pub(crate) const BACKEND_UP: Definition = Definition::gauge(
    "lb_backend_up",
    &["pool", "backend"],
    "1 while the backend may get traffic, else 0; this, the next three and the four lb_fleet_backend_ metrics only as far as --metrics-per-backend says",
);
pub(crate) const BACKEND_STATE: Definition = Definition::gauge(
    "lb_backend_state",
    &["pool", "backend", "state"],
    "1 for the state that the backend is in, of those of lb_backends, 0 for the others",
);
pub(crate) const BREAKER_STATE: Definition = Definition::gauge(
    "lb_breaker_state",
    &["pool", "backend", "state"],
    "1 for the state that the backend's breaker is in, closed, open or half_open, 0 for the others",
);
pub(crate) const BACKEND_WEIGHT_EFFECTIVE: Definition = Definition::gauge(
    "lb_backend_weight_effective",
    &["pool", "backend"],
    "The backend's weight times what slow start leaves of it; 0 while it gets no requests",
);
pub(crate) const FLEET_REQUESTS: Definition = Definition::counter(
    "lb_fleet_requests_total",
    &["code_class"],
    "Requests that clients of all proxies were answered, by the class of the status",
);
pub(crate) const FLEET_REQUESTS_RECEIVED: Definition = Definition::counter(
    "lb_fleet_requests_received_total",
    &[],
    "Requests whose head was complete, answered or not",
);
pub(crate) const FLEET_OWN_ANSWERS: Definition = Definition::counter(
    "lb_fleet_own_answers_total",
    &["reason"],
    "Exchanges that proxies answered or cut off by themselves",
);
pub(crate) const FLEET_CLIENT_ABORTS: Definition = Definition::counter(
    "lb_fleet_client_aborts_total",
    &[],
    "Clients that left before their answer was complete",
);
pub(crate) const FLEET_ACCESS_LOG_DROPPED: Definition = Definition::counter(
    "lb_fleet_access_log_lines_dropped_total",
    &[],
    "Lines of access logs that could not be written, or not in time",
);
pub(crate) const FLEET_CONNECTIONS: Definition =
    Definition::gauge("lb_fleet_client_connections", &[], "Open connections of clients");
pub(crate) const FLEET_CONNECTIONS_MAX: Definition = Definition::gauge(
    "lb_fleet_client_connections_max",
    &[],
    "Connections of clients at which accepting pauses, of all proxies together",
);
pub(crate) const FLEET_OVERLOADED: Definition = Definition::gauge(
    "lb_fleet_proxies_overloaded",
    &["stage"],
    "Proxies that give something up for want of connections or memory: close_idle, \
     refuse_connections or refuse_requests",
);
pub(crate) const FLEET_UPSTREAM_REQUESTS: Definition = Definition::counter(
    "lb_fleet_upstream_requests_total",
    &["pool"],
    "Requests given to backends of the pool, each attempt for itself",
);
pub(crate) const FLEET_UPSTREAM_ATTEMPTS: Definition = Definition::counter(
    "lb_fleet_upstream_attempts_total",
    &["pool", "result"],
    "Attempts at backends of the pool that have ended, by result as at the proxy",
);
pub(crate) const FLEET_UPSTREAM_RETRIES: Definition = Definition::counter(
    "lb_fleet_upstream_retries_total",
    &["pool"],
    "Requests that left a backend of the pool for another one",
);
pub(crate) const FLEET_UPSTREAM_BYTES: Definition = Definition::counter(
    "lb_fleet_upstream_bytes_total",
    &["pool", "direction"],
    "Bytes sent to backends and received from them, heads included",
);
pub(crate) const FLEET_UPSTREAM_IN_FLIGHT: Definition = Definition::gauge(
    "lb_fleet_upstream_in_flight",
    &["pool"],
    "Requests that backends of the pool are working on",
);
pub(crate) const FLEET_UPSTREAM_DURATION: Definition = Definition::histogram(
    "lb_fleet_upstream_duration_seconds",
    &["pool"],
    "From the pick of a backend to the end of its response",
);
pub(crate) const POOL_CONCURRENCY_LIMIT: Definition = Definition::gauge(
    "lb_pool_concurrency_limit",
    &["pool"],
    "Requests that may wait for backends of the pool at once, over all proxies; this and the \
     next two only of pools with adaptive concurrency",
);
pub(crate) const POOL_UNQUEUED: Definition = Definition::gauge(
    "lb_pool_unqueued_seconds",
    &["pool"],
    "How long an answer of the pool's backends takes without a queue, as measured last; 0 \
     before that",
);
pub(crate) const POOL_QUEUEING: Definition = Definition::gauge(
    "lb_pool_queueing_seconds",
    &["pool"],
    "How much longer than that answers took in the last round",
);
pub(crate) const FLEET_SESSION_REQUESTS: Definition = Definition::counter(
    "lb_fleet_session_requests_total",
    &["pool", "result"],
    "Requests of pools with sessions by cookie, by what became of theirs: kept, or why it got \
     another backend (no_cookie, malformed, bad_signature, expired, gone, down, ...)",
);
pub(crate) const FLEET_BACKEND_SELECTIONS: Definition = Definition::counter(
    "lb_fleet_backend_selections_total",
    &["pool", "backend"],
    "Requests given to the backend",
);
pub(crate) const FLEET_BACKEND_ATTEMPTS: Definition = Definition::counter(
    "lb_fleet_backend_attempts_total",
    &["pool", "backend", "result"],
    "Attempts at the backend that have ended, by result",
);
pub(crate) const FLEET_BACKEND_DURATION: Definition = Definition::counter(
    "lb_fleet_backend_duration_seconds_total",
    &["pool", "backend"],
    "Time of all attempts that had a response, in seconds",
);
pub(crate) const FLEET_BACKEND_IN_FLIGHT: Definition = Definition::gauge(
    "lb_fleet_backend_in_flight",
    &["pool", "backend"],
    "Requests that the backend is working on",
);

/// All of them, in the order of the documentation.
#[cfg(test)]
const DEFINITIONS: [Definition; 50] = [
    READY,
    CONFIG_REVISION,
    OBJECTS,
    WRITES,
    STORE_FAILURES,
    COMMIT_DURATION,
    EVENTS,
    PROXIES,
    PROXIES_BEHIND_MAX,
    PROXY_REVISION,
    PROXY_BEHIND,
    PROXY_LAG,
    PROXY_REJECTED,
    SYNC_STREAMS,
    SYNC_STREAMS_OPENED,
    SYNC_SENT,
    SYNC_SENT_BYTES,
    STATS_REPORTS,
    BACKENDS,
    DRAIN_LEFT,
    BACKEND_TRANSITIONS,
    BREAKER_TRANSITIONS,
    BACKEND_CHECKS,
    BACKEND_CHECK_DURATION,
    BACKEND_UP,
    BACKEND_STATE,
    BREAKER_STATE,
    BACKEND_WEIGHT_EFFECTIVE,
    FLEET_REQUESTS,
    FLEET_REQUESTS_RECEIVED,
    FLEET_OWN_ANSWERS,
    FLEET_CLIENT_ABORTS,
    FLEET_ACCESS_LOG_DROPPED,
    FLEET_CONNECTIONS,
    FLEET_CONNECTIONS_MAX,
    FLEET_OVERLOADED,
    FLEET_UPSTREAM_REQUESTS,
    FLEET_UPSTREAM_ATTEMPTS,
    FLEET_UPSTREAM_RETRIES,
    FLEET_UPSTREAM_BYTES,
    FLEET_UPSTREAM_IN_FLIGHT,
    FLEET_UPSTREAM_DURATION,
    POOL_CONCURRENCY_LIMIT,
    POOL_UNQUEUED,
    POOL_QUEUEING,
    FLEET_SESSION_REQUESTS,
    FLEET_BACKEND_SELECTIONS,
    FLEET_BACKEND_ATTEMPTS,
    FLEET_BACKEND_DURATION,
    FLEET_BACKEND_IN_FLIGHT,
];
