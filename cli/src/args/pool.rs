//! Commands that change pools.

use std::time::Duration;

use clap::{ArgGroup, Args, ValueEnum};
use lb_core::model;

use super::{
    WriteArgs,
    resilience::{Concurrency, Ejection, Retries},
    session::Sessions,
    value,
};

/// The settings of a pool; what is not named keeps its value, or gets its default.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct PoolSettings {
    /// How a backend is picked for each request
    #[arg(long, value_parser = value::algorithm())]
    pub(crate) algorithm: Option<String>,
    /// For one connection attempt to a backend; beyond: another backend, or 504 [default: 3s]
    #[arg(long, value_name = "DURATION", value_parser = value::setting)]
    pub(crate) connect_timeout: Option<Duration>,
    /// Until the response's head, not counting the time in which the client is still
    /// sending; beyond: 504 [default: 30s]
    #[arg(long, value_name = "DURATION", value_parser = value::setting)]
    pub(crate) request_timeout: Option<Duration>,
    /// What a check is: GET a path, connect, or nothing at all [default: http]
    #[arg(long, value_name = "PROTOCOL")]
    pub(crate) health: Option<HealthProtocol>,
    /// The path to GET; 200 to 399 passes [default: /health]
    #[arg(long, value_name = "PATH")]
    pub(crate) health_path: Option<String>,
    /// Between checks [default: 5s]
    #[arg(long, value_name = "DURATION", value_parser = value::setting)]
    pub(crate) health_interval: Option<Duration>,
    /// Of one check; cut to the interval [default: 2s]
    #[arg(long, value_name = "DURATION", value_parser = value::setting)]
    pub(crate) health_timeout: Option<Duration>,
    /// Passes in a row that bring a backend up again [default: 2]
    #[arg(long, value_name = "N", value_parser = value::number(1..=100))]
    pub(crate) rise: Option<u32>,
    /// Failures in a row that take a backend out [default: 3]
    #[arg(long, value_name = "N", value_parser = value::number(1..=100))]
    pub(crate) fall: Option<u32>,
    /// least_connections: random candidates in pools of more than 64 backends [default: 5]
    #[arg(long, value_name = "N", value_parser = value::number(2..=32))]
    pub(crate) choices: Option<u32>,
    /// least_connections: how long an errored request counts as in flight [default: 1s]
    #[arg(long, value_name = "DURATION", value_parser = value::setting_or_zero)]
    pub(crate) error_hold: Option<Duration>,
    /// Where backends come from beside those added by hand: dns:NAME:PORT,
    /// srv:_SERVICE._PROTO.DOMAIN or file:/PATH on the control plane's machine; may be
    /// repeated
    #[arg(long = "source", value_name = "SOURCE", value_parser = value::source)]
    pub(crate) sources: Vec<String>,
    #[command(flatten)]
    pub(crate) ejection: Ejection,
    #[command(flatten)]
    pub(crate) retries: Retries,
    #[command(flatten)]
    pub(crate) sessions: Sessions,
    #[command(flatten)]
    pub(crate) concurrency: Concurrency,
    #[command(flatten)]
    pub(crate) fallback: Fallback,
    #[command(flatten)]
    pub(crate) connections: BackendConnections,
}

impl PoolSettings {
    /// Whether clients are to stay with no backend.
    pub(crate) fn sticky_none(&self) -> bool {
        self.sessions.sticky.as_deref() == Some("none")
    }
}

/// What becomes of requests that the pool has no backend for.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "While there is no backend")]
pub(crate) struct Fallback {
    /// The pool that takes its requests meanwhile, and those that fail, may be sent again and find no
    /// other backend; or none. That pool's own fallback is not followed [default: none]
    #[arg(long, value_name = "POOL")]
    pub(crate) fallback_pool: Option<String>,
    /// The status of the answer when there is no such pool, or it has no backend either: 200 to
    /// 599, or none for the proxy's own 503 [default: none]
    #[arg(long, value_name = "STATUS", value_parser = value::fallback_status)]
    pub(crate) fallback_status: Option<String>,
    /// The answer's content type [default: text/plain; charset=utf-8]
    #[arg(long, value_name = "TYPE")]
    pub(crate) fallback_content_type: Option<String>,
    /// The answer's body, at most 64 KiB; the status is 503 unless it is given
    #[arg(long, value_name = "TEXT")]
    pub(crate) fallback_body: Option<String>,
}

/// How long backends are waited for once they answer, and which connections are kept.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Connections to backends")]
pub(crate) struct BackendConnections {
    /// Between two reads of a response's body; beyond: the client's response ends
    /// incomplete, with its connection [default: 60s]
    #[arg(long, value_name = "DURATION", value_parser = value::setting)]
    pub(crate) response_idle_timeout: Option<Duration>,
    /// Without a byte in either direction of an upgraded connection (WebSocket); beyond: it
    /// is closed [default: 5m]
    #[arg(long, value_name = "DURATION", value_parser = value::setting)]
    pub(crate) tunnel_idle_timeout: Option<Duration>,
    /// How long a connection is kept between two requests, if the backend does not say;
    /// keep it below the backend's own [default: 4s]
    #[arg(long, value_name = "DURATION", value_parser = value::setting)]
    pub(crate) keep_alive_timeout: Option<Duration>,
    /// Idle connections kept for each backend by each worker of a proxy, 0 to 10000; more
    /// are closed after their answer [default: 32]
    #[arg(long, value_name = "N", value_parser = value::number(model::BackendConnections::IDLE))]
    pub(crate) max_idle_connections: Option<u32>,
    /// After this long, give or take a tenth, a connection gets no further request
    /// [default: 1h]
    #[arg(long, value_name = "DURATION", value_parser = value::setting)]
    pub(crate) max_connection_age: Option<Duration>,
}

/// What a check is.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum HealthProtocol {
    /// GET a path
    Http,
    /// Connecting passes
    Tcp,
    /// No checks: every backend counts as up
    None,
}

impl HealthProtocol {
    /// As it is spelled on the wire.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Tcp => "tcp",
            Self::None => "none",
        }
    }
}

/// `add-pool`
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  lbctl add-pool web --algorithm least_connections
  lbctl add-pool web --source dns:web.internal:8080
  lbctl add-pool api --source srv:_http._tcp.api.internal --algorithm weighted_round_robin
  lbctl add-pool legacy --health tcp --request-timeout 2m")]
pub(crate) struct AddPool {
    /// Its name
    #[arg(value_parser = value::pool)]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) settings: PoolSettings,
    #[command(flatten)]
    pub(crate) write: WriteArgs,
}

/// `set-pool`
#[derive(Args, Debug)]
#[command(
    override_usage = "lbctl set-pool [OPTIONS] <NAME> <SETTING>...",
    group = ArgGroup::new("settings").required(true).multiple(true).args([
        "algorithm", "connect_timeout", "request_timeout", "health", "health_path",
        "health_interval", "health_timeout", "rise", "fall", "choices", "error_hold",
        "response_idle_timeout", "tunnel_idle_timeout", "keep_alive_timeout",
        "max_idle_connections", "max_connection_age", "sources", "unsources", "no_sources",
        "breaker_failures", "breaker_ratio", "breaker_min_requests", "breaker_window",
        "breaker_open", "breaker_max_open", "breaker_successes", "outlier_detection",
        "outlier_interval", "outlier_ejection", "outlier_max_ejection", "outlier_success_rate",
        "outlier_failure_percentage", "outlier_latency", "panic_threshold", "slow_start", "retries",
        "try_timeout", "retry_budget", "retry_floor", "max_in_flight", "queue_length",
        "adaptive_concurrency", "concurrency_min",
        "fallback_pool", "fallback_status", "fallback_content_type", "fallback_body",
        "queue_timeout", "sticky", "session_cookie", "session_ttl", "session_path",
        "session_same_site", "session_secure", "session_http_only", "session_strict",
    ]),
    after_help = "\
Examples:
  lbctl set-pool default --health-path /
  lbctl set-pool default --health tcp
  lbctl set-pool default --health-interval 30s --request-timeout 10s
  lbctl set-pool default --keep-alive-timeout 70s    the backends keep theirs for 75s
  lbctl set-pool default --source file:/etc/lb/web.txt
  lbctl set-pool default --no-sources                removes what they discovered
  lbctl set-pool default --retries 2 --try-timeout 2s
  lbctl set-pool default --sticky cookie --session-ttl 8h
  lbctl set-pool default --sticky header:x-user-id
  lbctl set-pool default --max-in-flight 200 --queue-timeout 1s
  lbctl set-pool default --adaptive-concurrency true --max-in-flight 500
  lbctl set-pool default --breaker-failures 0 --breaker-ratio 0    no breakers
  lbctl set-pool web --fallback-pool spare --fallback-status 503 --fallback-body 'Back soon'

Settings that are not named stay as they are.")]
pub(crate) struct SetPool {
    /// Its name
    #[arg(value_parser = value::pool)]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) settings: PoolSettings,
    /// Take a source away, with the backends that it discovered; may be repeated
    #[arg(long = "unsource", value_name = "SOURCE", value_parser = value::source)]
    pub(crate) unsources: Vec<String>,
    /// Take all sources away that --source does not name, with what they discovered
    #[arg(long)]
    pub(crate) no_sources: bool,
    #[command(flatten)]
    pub(crate) write: WriteArgs,
}

/// `remove-pool`
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  lbctl remove-pool web

A pool that a route or a backend still names is not removed.")]
pub(crate) struct RemovePool {
    /// Its name
    #[arg(value_parser = value::pool)]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) write: WriteArgs,
}

/// `set-algorithm`
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  lbctl set-algorithm default weighted_round_robin
  lbctl set-algorithm default least_connections")]
pub(crate) struct SetAlgorithm {
    /// The pool's name
    #[arg(value_parser = value::pool)]
    pub(crate) pool: String,
    /// How a backend is picked for each request
    #[arg(value_parser = value::algorithm())]
    pub(crate) algorithm: String,
    #[command(flatten)]
    pub(crate) write: WriteArgs,
}
