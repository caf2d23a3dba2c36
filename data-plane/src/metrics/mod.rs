//! The metrics of a proxy: every name, and what a scrape reads.
//!
//! Nothing of this is on the path of a request. Workers count for the statistics that go
//! to the control plane; a scrape reads the same counters, on the control thread.
//!
//! `docs/metrics.md` has the same rows; a test compares them.

mod scrape;

#[cfg(test)]
mod tests;

use lb_core::metrics::Definition;

pub(crate) use self::scrape::Metrics;

pub(crate) const READY: Definition =
    Definition::gauge("lb_ready", &[], "1 while /readyz says yes, else 0");
pub(crate) const WORKERS: Definition =
    Definition::gauge("lb_workers", &[], "Worker threads that run");
pub(crate) const REQUESTS: Definition = Definition::counter(
    "lb_requests_total",
    &["route", "code_class"],
    "Requests that clients were answered, by the class of the status, a switch of protocols as \
     1xx; (none) for what no route matches, (other) for all routes beyond the first 100",
);
pub(crate) const REQUEST_DURATION: Definition = Definition::histogram(
    "lb_request_duration_seconds",
    &["route"],
    "From the last byte of a request's head to the last byte of its answer, as the client gets \
     it: waiting, retries and the client's own reading included",
);
pub(crate) const REQUESTS_RECEIVED: Definition = Definition::counter(
    "lb_requests_received_total",
    &[],
    "Requests whose head was complete, answered or not",
);
pub(crate) const OWN_ANSWERS: Definition = Definition::counter(
    "lb_own_answers_total",
    &["reason"],
    "Exchanges that the proxy answered or cut off by itself, by the word that is in the answer",
);
pub(crate) const CLIENT_ABORTS: Definition = Definition::counter(
    "lb_client_aborts_total",
    &[],
    "Clients that left before their answer was complete",
);
pub(crate) const RETRIES: Definition = Definition::counter(
    "lb_retries_total",
    &["reason"],
    "Requests that went on to another backend, by the reason why they left the last one",
);
pub(crate) const RETRIES_REFUSED: Definition = Definition::counter(
    "lb_retries_refused_total",
    &["reason"],
    "Times that a request could have gone on to another backend and did not: \
     retry_budget_exhausted or retries_exhausted",
);
pub(crate) const RETRY_BUDGET_REMAINING: Definition = Definition::gauge(
    "lb_retry_budget_remaining_ratio",
    &["pool"],
    "Which part of the retries that this proxy may send in ten seconds is left: 1 while nothing \
     is retried, 0 when nothing may be",
);
pub(crate) const CONNECTIONS: Definition = Definition::gauge(
    "lb_connections",
    &["side", "state"],
    "Open connections of clients (downstream, open), and connections to backends that wait for \
     use (upstream, idle; as of the last half second)",
);
pub(crate) const CONNECTIONS_MAX: Definition = Definition::gauge(
    "lb_connections_max",
    &[],
    "Connections of clients at which accepting pauses",
);
pub(crate) const CONNECTIONS_OPENED: Definition = Definition::counter(
    "lb_connections_opened_total",
    &["side"],
    "Connections accepted from clients (downstream) and made to backends (upstream)",
);
pub(crate) const WORKER_CONNECTIONS: Definition = Definition::gauge(
    "lb_worker_connections",
    &["worker"],
    "Open connections of clients, by the worker that serves them",
);
pub(crate) const OVERLOAD_STAGE: Definition = Definition::gauge(
    "lb_overload_stage",
    &[],
    "What is given up for want of connections or memory: 0 nothing, 1 idle connections, 2 new \
     connections too, 3 new requests too",
);
pub(crate) const OVERLOAD_CLOSED: Definition = Definition::counter(
    "lb_overload_closed_connections_total",
    &[],
    "Connections of clients that were idle, or stalled in a request's body, and were closed to make room",
);
pub(crate) const MEMORY_USED: Definition = Definition::gauge(
    "lb_memory_used_bytes",
    &[],
    "Memory in use as the stage goes by it, as of the last quarter second",
);
pub(crate) const MEMORY_MAX: Definition = Definition::gauge(
    "lb_memory_max_bytes",
    &[],
    "Memory that the process may have by --max-memory or its container; 0 for any",
);
pub(crate) const UPSTREAM_REQUESTS: Definition = Definition::counter(
    "lb_upstream_requests_total",
    &["pool"],
    "Requests given to backends of the pool, each attempt for itself",
);
pub(crate) const UPSTREAM_ATTEMPTS: Definition = Definition::counter(
    "lb_upstream_attempts_total",
    &["pool", "result"],
    "Attempts at backends of the pool that have ended: success (a status below 500), status_5xx, \
     connect, reset, timeout or protocol",
);
pub(crate) const UPSTREAM_RETRIES: Definition = Definition::counter(
    "lb_upstream_retries_total",
    &["pool"],
    "Requests that left a backend of the pool for another one",
);
pub(crate) const UPSTREAM_BYTES: Definition = Definition::counter(
    "lb_upstream_bytes_total",
    &["pool", "direction"],
    "Bytes sent to backends and received from them, heads included",
);
pub(crate) const UPSTREAM_IN_FLIGHT: Definition = Definition::gauge(
    "lb_upstream_in_flight",
    &["pool"],
    "Requests that backends of the pool are working on, upgraded connections included",
);
pub(crate) const UPSTREAM_DURATION: Definition = Definition::histogram(
    "lb_upstream_duration_seconds",
    &["pool"],
    "From the pick of a backend to the end of its response",
);
pub(crate) const BACKEND_SELECTIONS: Definition = Definition::counter(
    "lb_backend_selections_total",
    &["pool", "backend"],
    "Requests given to the backend; this and the next five only as far as --metrics-per-backend \
     says",
);
pub(crate) const BACKEND_ATTEMPTS: Definition = Definition::counter(
    "lb_backend_attempts_total",
    &["pool", "backend", "result"],
    "Attempts at the backend that have ended, by result",
);
pub(crate) const BACKEND_BYTES: Definition = Definition::counter(
    "lb_backend_bytes_total",
    &["pool", "backend", "direction"],
    "Bytes sent to the backend and received from it, heads included",
);
pub(crate) const BACKEND_DURATION: Definition = Definition::counter(
    "lb_backend_duration_seconds_total",
    &["pool", "backend"],
    "Time of all attempts that had a response, in seconds",
);
pub(crate) const BACKEND_IN_FLIGHT: Definition = Definition::gauge(
    "lb_backend_in_flight",
    &["pool", "backend"],
    "Requests that the backend is working on for this proxy",
);
pub(crate) const BACKEND_AVOIDED: Definition = Definition::gauge(
    "lb_backend_avoided",
    &["pool", "backend"],
    "1 while this proxy avoids the backend for what it sees by itself, else 0",
);
pub(crate) const BACKENDS_CONFIGURED: Definition = Definition::gauge(
    "lb_backends_configured",
    &["pool"],
    "Backends of the pool in the configuration that is served from",
);
pub(crate) const POOL_PANIC: Definition = Definition::gauge(
    "lb_pool_panic",
    &["pool"],
    "1 while backends of the pool are used that are not well because few others are left, else 0",
);
pub(crate) const POOL_FALLBACKS: Definition = Definition::counter(
    "lb_pool_fallbacks_total",
    &["pool", "to"],
    "Requests of the pool that had no backend there, or no other one after a failure: sent to its \
     fallback (pool), or given its answer (answer)",
);
pub(crate) const SESSION_REQUESTS: Definition = Definition::counter(
    "lb_session_requests_total",
    &["pool", "result"],
    "Requests of pools with sessions by cookie, by what became of theirs: kept, or why it got \
     another backend (no_cookie, malformed, bad_signature, expired, gone, down, ...)",
);
pub(crate) const RATELIMIT_DECISIONS: Definition = Definition::counter(
    "lb_ratelimit_decisions_total",
    &["limit", "decision"],
    "Requests that a limit let pass (admitted) or refused (refused); of a limit in shadow mode, \
     those that it would have refused (shadow_refused). A request that another limit refused \
     does not count",
);
pub(crate) const RATELIMIT_LEASE_TOKENS: Definition = Definition::gauge(
    "lb_ratelimit_lease_tokens",
    &["limit"],
    "Requests per second that this proxy may let pass now; of a limit by key, of each key that \
     is not hot",
);
pub(crate) const RATELIMIT_HOT_KEYS: Definition = Definition::gauge(
    "lb_ratelimit_hot_keys",
    &["limit"],
    "Keys of the limit of which this proxy reports, because one of them needs more than an even \
     share",
);
pub(crate) const RATELIMIT_FORGIVEN_KEYS: Definition = Definition::counter(
    "lb_ratelimit_forgiven_keys_total",
    &["limit"],
    "Keys of the limit that were forgotten before their bucket was full again, for want of room",
);
pub(crate) const QUEUE_DEPTH: Definition = Definition::gauge(
    "lb_queue_depth",
    &["pool"],
    "Requests that wait because the pool or its backends have as many in progress as they may; this and the next three only where requests in progress are limited",
);
pub(crate) const QUEUE_WAITS: Definition =
    Definition::counter("lb_queue_waits_total", &["pool"], "Requests that have waited for that");
pub(crate) const QUEUE_WAIT_SECONDS: Definition = Definition::counter(
    "lb_queue_wait_seconds_total",
    &["pool"],
    "For how long they have waited together, in seconds",
);
pub(crate) const SLOTS: Definition = Definition::gauge(
    "lb_slots",
    &["kind", "name", "state"],
    "Requests that this proxy has in progress (used) and could begin besides (free), by pool or backend",
);
pub(crate) const CONFIG_REVISION: Definition = Definition::gauge(
    "lb_config_revision",
    &["stage"],
    "Revision that all workers serve from (applied); 0 before the first",
);
pub(crate) const CONFIG_APPLY_DURATION: Definition = Definition::histogram(
    "lb_config_apply_duration_seconds",
    &[],
    "From the arrival of a change until all workers serve from it",
);
pub(crate) const CONFIG_REJECTIONS: Definition = Definition::counter(
    "lb_config_rejections_total",
    &["what"],
    "Configurations that were refused whole, and objects that were refused in one that was applied",
);
pub(crate) const CONFIG_REJECTED_OBJECTS: Definition = Definition::gauge(
    "lb_config_rejected_objects",
    &[],
    "Objects that the proxy refuses and serves in their former value",
);
pub(crate) const CONTROL_CONNECTED: Definition = Definition::gauge(
    "lb_control_connected",
    &[],
    "1 while a control plane confirms what is served, else 0",
);
pub(crate) const CONTROL_SESSIONS: Definition = Definition::counter(
    "lb_control_sessions_total",
    &[],
    "Sessions with control planes that have begun",
);
pub(crate) const CONTROL_STALENESS: Definition = Definition::gauge(
    "lb_control_staleness_seconds",
    &[],
    "For how long nobody has confirmed what is served; 0 while it is confirmed",
);
pub(crate) const ACCESS_LOG_DROPPED: Definition = Definition::counter(
    "lb_access_log_lines_dropped_total",
    &[],
    "Lines of the access log that could not be written, or not in time",
);

/// All of them, in the order of the documentation.
#[cfg(test)]
pub(crate) const DEFINITIONS: [Definition; 50] = [
    READY,
    WORKERS,
    REQUESTS,
    REQUEST_DURATION,
    REQUESTS_RECEIVED,
    OWN_ANSWERS,
    CLIENT_ABORTS,
    RETRIES,
    RETRIES_REFUSED,
    RETRY_BUDGET_REMAINING,
    CONNECTIONS,
    CONNECTIONS_MAX,
    CONNECTIONS_OPENED,
    WORKER_CONNECTIONS,
    OVERLOAD_STAGE,
    OVERLOAD_CLOSED,
    MEMORY_USED,
    MEMORY_MAX,
    UPSTREAM_REQUESTS,
    UPSTREAM_ATTEMPTS,
    UPSTREAM_RETRIES,
    UPSTREAM_BYTES,
    UPSTREAM_IN_FLIGHT,
    UPSTREAM_DURATION,
    BACKEND_SELECTIONS,
    BACKEND_ATTEMPTS,
    BACKEND_BYTES,
    BACKEND_DURATION,
    BACKEND_IN_FLIGHT,
    BACKEND_AVOIDED,
    BACKENDS_CONFIGURED,
    POOL_PANIC,
    POOL_FALLBACKS,
    SESSION_REQUESTS,
    RATELIMIT_DECISIONS,
    RATELIMIT_LEASE_TOKENS,
    RATELIMIT_HOT_KEYS,
    RATELIMIT_FORGIVEN_KEYS,
    QUEUE_DEPTH,
    QUEUE_WAITS,
    QUEUE_WAIT_SECONDS,
    SLOTS,
    CONFIG_REVISION,
    CONFIG_APPLY_DURATION,
    CONFIG_REJECTIONS,
    CONFIG_REJECTED_OBJECTS,
    CONTROL_CONNECTED,
    CONTROL_SESSIONS,
    CONTROL_STALENESS,
    ACCESS_LOG_DROPPED,
];
