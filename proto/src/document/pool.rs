//! A pool as it is declared.

use std::time::Duration;

use lb_core::model::{
    Algorithm, BackendConnections, CheckProtocol, Concurrency, Fallback, HealthPolicy, Invalid,
    LeastConnections, MaxInFlight, Pool, PoolName, Source, StaticAnswer,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    affinity::{SessionSameSite, SessionSecure, affinity_keys, algorithm_of, declared_affinity},
    resilience::{declared_resilience, resilience_keys},
    unit::{Number, Time},
};

/// A named set of backends under one policy.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = Pool)]
pub struct DeclaredPool {
    /// Its name, unique among pools: 1 to 63 letters, digits, `.`, `_` and `-`.
    #[schema(required = true)]
    pub name: String,
    /// How a backend is picked for each request: `round_robin`, `weighted_round_robin`,
    /// `ip_hash` or `least_connections`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<String>,
    /// With `least_connections`: random candidates that are compared in pools of more than
    /// 64 backends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub choices: Option<Number>,
    /// With `least_connections`: how long an errored request counts as in flight.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_hold: Option<Time>,
    /// For one connection attempt to a backend; beyond: another backend, or 504.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect_timeout: Option<Time>,
    /// Until the response's head, not counting the time in which the client is still
    /// sending; beyond: 504.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_timeout: Option<Time>,
    /// What a check is: GET a path, connect, or nothing at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthProtocol>,
    /// With `health = "http"`: the path to GET; 200 to 399 passes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health_path: Option<String>,
    /// Between checks of a backend whose verdict is settled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health_interval: Option<Time>,
    /// Between checks while the verdict may be about to change; cut to the interval.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health_edge_interval: Option<Time>,
    /// Of one check; cut to the interval.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health_timeout: Option<Time>,
    /// Passes in a row that bring a backend up again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rise: Option<Number>,
    /// Failures in a row that take a backend out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fall: Option<Number>,
    /// Between two reads of a response's body; beyond: the client's response ends
    /// incomplete, with its connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_idle_timeout: Option<Time>,
    /// Without a byte in either direction of an upgraded connection (WebSocket); beyond: it
    /// is closed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tunnel_idle_timeout: Option<Time>,
    /// How long a connection to a backend is kept between two requests, if the backend does
    /// not say; keep it below the backend's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_alive_timeout: Option<Time>,
    /// Idle connections kept for each backend by each worker of a proxy; more are closed
    /// after their answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_idle_connections: Option<Number>,
    /// After this long, give or take a tenth, a connection to a backend gets no further
    /// request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_connection_age: Option<Time>,
    /// Failures in a row, counted over all proxies, that open a backend's breaker: it gets no
    /// requests for a while. 0: never for that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub breaker_failures: Option<Number>,
    /// Failures in percent of the requests within `breaker_window` that open it. 0: never for
    /// that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub breaker_ratio: Option<Number>,
    /// Requests within `breaker_window` before the ratio counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub breaker_min_requests: Option<Number>,
    /// What the ratio is taken over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub breaker_window: Option<Time>,
    /// How long a breaker stays open at first; it doubles with each opening that follows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub breaker_open: Option<Time>,
    /// The longest that it stays open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub breaker_max_open: Option<Time>,
    /// Successful probe requests in a row that close it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub breaker_successes: Option<Number>,
    /// Whether a backend that does much worse than the rest of its pool is taken out for a
    /// while.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outlier_detection: Option<bool>,
    /// Between two looks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outlier_interval: Option<Time>,
    /// How long an outlier is out at first; times how often it was out in a row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outlier_ejection: Option<Time>,
    /// The longest that it is out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outlier_max_ejection: Option<Time>,
    /// Whether a success rate far below the pool's mean makes an outlier.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outlier_success_rate: Option<bool>,
    /// Failures in percent of its requests that make an outlier, whatever the others do. 0: off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outlier_failure_percentage: Option<Number>,
    /// Whether a mean latency of more than three times the pool's lower median makes an
    /// outlier.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outlier_latency: Option<bool>,
    /// Attempts at other backends, after the first, of a request that may have reached one and
    /// can be repeated. A request of which nothing was sent moves on without counting.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retries: Option<Number>,
    /// For the response's head of one attempt, where another may follow. `0s`: as long as the
    /// request has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub try_timeout: Option<Time>,
    /// Retries in percent of the requests of the last ten seconds; beyond: the failure is
    /// answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_budget: Option<Number>,
    /// Retries per second that are allowed beside the budget, shared by all proxies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_floor: Option<Number>,
    /// How long a backend that joins takes to get its whole share. `0s`: off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slow_start: Option<Time>,
    /// While fewer of the pool's backends than this are up, in percent, those that can at
    /// least be connected to are used, too. 0: never. Not while `fallback_pool` has a backend
    /// that is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub panic_threshold: Option<Number>,
    /// Whether a client stays with its backend: `none`, `cookie` (a signed cookie), `header:NAME`
    /// (the same value of a field), or `ip_hash`, which is the algorithm of that name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sticky: Option<String>,
    /// With `sticky = "cookie"`, as all of these: the cookie's name. Pools that share a host need
    /// different ones, or different paths.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_cookie: Option<String>,
    /// How long a session lives without a request. Whole seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_ttl: Option<Time>,
    /// The path below which browsers send it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_path: Option<String>,
    /// Which sites' pages may cause a browser to send it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_same_site: Option<SessionSameSite>,
    /// When it is marked `Secure`: on connections with TLS, always, or never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_secure: Option<SessionSecure>,
    /// Whether scripts are kept from it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_http_only: Option<bool>,
    /// Whether a client is answered 503 rather than given another backend when its own cannot
    /// serve it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_strict: Option<bool>,
    /// Requests in progress over all proxies; more wait, and then get 503. 0: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_in_flight: Option<Number>,
    /// Whether the number of requests in progress is found out by how long answers take, over
    /// all proxies; `max_in_flight` is the most then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adaptive_concurrency: Option<bool>,
    /// The least that such a limit may be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency_min: Option<Number>,
    /// Requests that may wait in each proxy until the pool, or a backend with a
    /// `max_in_flight` of its own, has room; beyond: 503. 0: none waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_length: Option<Number>,
    /// How long a request may wait for that; beyond: 503.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_timeout: Option<Time>,
    /// The pool that takes its requests while it has no backend for them, and those that fail, may
    /// be sent again and find no other backend; that pool's own fallback is not followed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fallback_pool: Option<String>,
    /// The status of the answer while neither has a backend: 200 to 599; 503 when only the
    /// body is given. Without this, a content type or a body: the proxy's own 503.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fallback_status: Option<Number>,
    /// The answer's content type; `text/plain; charset=utf-8` when it is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fallback_content_type: Option<String>,
    /// The answer's body, at most 64 KiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fallback_body: Option<String>,
    /// Where backends come from beside those that are declared: `dns:NAME:PORT`,
    /// `srv:_SERVICE._PROTO.DOMAIN` or `file:/PATH` on the control plane's machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sources: Option<Vec<String>>,
}

/// What a check is.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HealthProtocol {
    /// GET a path.
    Http,
    /// Connecting passes.
    Tcp,
    /// No checks: every backend counts as up.
    None,
}

impl TryFrom<DeclaredPool> for Pool {
    type Error = Invalid;

    fn try_from(declared: DeclaredPool) -> Result<Self, Invalid> {
        let default = BackendConnections::default();
        let mut pool = Self::new(PoolName::new(&declared.name)?).with_timeouts(
            time_or(declared.connect_timeout, Self::CONNECT_TIMEOUT),
            time_or(declared.request_timeout, Self::REQUEST_TIMEOUT),
        )?;
        pool.algorithm = algorithm(&declared)?;
        pool.connections = BackendConnections {
            response_idle_timeout: time_or(
                declared.response_idle_timeout,
                default.response_idle_timeout,
            ),
            tunnel_idle_timeout: time_or(declared.tunnel_idle_timeout, default.tunnel_idle_timeout),
            keep_alive_timeout: time_or(declared.keep_alive_timeout, default.keep_alive_timeout),
            idle_max: declared.max_idle_connections.map_or(default.idle_max, |number| number.0),
            age_max: time_or(declared.max_connection_age, default.age_max),
        }
        .checked()?;
        pool.concurrency = Concurrency {
            max_in_flight: MaxInFlight::of_pool(declared.max_in_flight.map_or(0, |n| n.0))?,
            is_adaptive: declared.adaptive_concurrency.unwrap_or_default(),
            adaptive_min: declared.concurrency_min.map_or(Concurrency::ADAPTIVE_MIN, |n| n.0),
            queue_length: declared.queue_length.map_or(Concurrency::QUEUE_LENGTH, |n| n.0),
            queue_timeout: time_or(declared.queue_timeout, Self::QUEUE_TIMEOUT),
        }
        .checked()?;
        pool.resilience = declared_resilience(&declared)?;
        pool.affinity = declared_affinity(&declared)?;
        pool.fallback = fallback(&declared)?;
        let sources = declared.sources.iter().flatten().map(|source| source.parse());
        pool.sources = Source::checked_list(sources.collect::<Result<_, _>>()?)?;
        pool.health = health(declared)?;
        Ok(pool)
    }
}

fn fallback(declared: &DeclaredPool) -> Result<Fallback, Invalid> {
    let DeclaredPool { fallback_status, fallback_content_type, fallback_body, .. } = declared;
    let is_given =
        fallback_status.is_some() || fallback_content_type.is_some() || fallback_body.is_some();
    let answer = || {
        let status = fallback_status.map_or(StaticAnswer::STATUS.into(), |number| number.0);
        // Beyond what a status can be it is refused as such.
        let status = u16::try_from(status).unwrap_or(u16::MAX);
        let content_type = fallback_content_type.as_deref().unwrap_or(StaticAnswer::CONTENT_TYPE);
        let body = fallback_body.clone().unwrap_or_default();
        StaticAnswer::new(status, content_type, body.into())
    };
    Ok(Fallback {
        pool: declared.fallback_pool.as_deref().map(PoolName::new).transpose()?,
        answer: is_given.then(answer).transpose()?,
    })
}

fn algorithm(declared: &DeclaredPool) -> Result<Algorithm, Invalid> {
    let algorithm = match (algorithm_of(declared)?, &declared.algorithm) {
        (Some(algorithm), _) => algorithm,
        (None, Some(name)) => name.parse()?,
        (None, None) => Algorithm::default(),
    };
    match algorithm {
        Algorithm::LeastConnections(default) => {
            let fallback = u32::from(LeastConnections::CHOICES);
            let choices = declared.choices.map_or(fallback, |n| n.0);
            let hold = time_or(declared.error_hold, default.error_hold());
            Ok(Algorithm::LeastConnections(LeastConnections::new(choices, hold)?))
        }
        Algorithm::RoundRobin | Algorithm::WeightedRoundRobin | Algorithm::IpHash => {
            for (field, key, given) in [
                ("pool.choices", "choices", declared.choices.is_some()),
                ("pool.error_hold", "error_hold", declared.error_hold.is_some()),
            ] {
                if given {
                    return Err(Invalid::value(
                        field,
                        format!(
                            "{key} belongs to least_connections, but the pool uses {algorithm}; \
                             leave it out, or set algorithm = \"least_connections\""
                        ),
                    ));
                }
            }
            Ok(algorithm)
        }
    }
}

fn health(declared: DeclaredPool) -> Result<HealthPolicy, Invalid> {
    let protocol = declared.health.unwrap_or(HealthProtocol::Http);
    let protocol = match (protocol, declared.health_path) {
        (HealthProtocol::Http, path) => CheckProtocol::Http {
            path: path.map_or_else(|| HealthPolicy::PATH.into(), |path| path.as_str().into()),
        },
        (HealthProtocol::Tcp, None) => CheckProtocol::Tcp,
        (HealthProtocol::None, None) => CheckProtocol::None,
        (HealthProtocol::Tcp | HealthProtocol::None, Some(_)) => {
            return Err(Invalid::value(
                "pool.health_path",
                "health_path belongs to HTTP checks; leave it out, or set health = \"http\"",
            ));
        }
    };
    HealthPolicy::new(
        protocol,
        time_or(declared.health_interval, HealthPolicy::INTERVAL),
        time_or(declared.health_edge_interval, HealthPolicy::EDGE_INTERVAL),
        time_or(declared.health_timeout, HealthPolicy::TIMEOUT),
        declared.rise.map_or(HealthPolicy::RISE, |number| number.0),
        declared.fall.map_or(HealthPolicy::FALL, |number| number.0),
    )
}

impl From<&Pool> for DeclaredPool {
    /// With every key that the pool has a use for.
    fn from(pool: &Pool) -> Self {
        let (choices, error_hold) = match pool.algorithm {
            Algorithm::LeastConnections(parameters) => {
                let choices = u32::try_from(parameters.choices()).unwrap_or(u32::MAX);
                (Some(Number(choices)), Some(Time(parameters.error_hold())))
            }
            Algorithm::RoundRobin | Algorithm::WeightedRoundRobin | Algorithm::IpHash => {
                (None, None)
            }
        };
        let answer = pool.fallback.answer.as_ref();
        let (health, health_path) = match pool.health.protocol() {
            CheckProtocol::Http { path } => (HealthProtocol::Http, Some(path.to_string())),
            CheckProtocol::Tcp => (HealthProtocol::Tcp, None),
            CheckProtocol::None => (HealthProtocol::None, None),
        };
        Self {
            name: pool.name.to_string(),
            algorithm: Some(pool.algorithm.name().to_owned()),
            choices,
            error_hold,
            connect_timeout: Some(Time(pool.connect_timeout)),
            request_timeout: Some(Time(pool.request_timeout)),
            health: Some(health),
            health_path,
            health_interval: Some(Time(pool.health.interval())),
            health_edge_interval: Some(Time(pool.health.edge_interval())),
            health_timeout: Some(Time(pool.health.timeout())),
            rise: Some(Number(pool.health.rise())),
            fall: Some(Number(pool.health.fall())),
            response_idle_timeout: Some(Time(pool.connections.response_idle_timeout)),
            tunnel_idle_timeout: Some(Time(pool.connections.tunnel_idle_timeout)),
            keep_alive_timeout: Some(Time(pool.connections.keep_alive_timeout)),
            max_idle_connections: Some(Number(pool.connections.idle_max)),
            max_connection_age: Some(Time(pool.connections.age_max)),
            max_in_flight: Some(Number(pool.concurrency.max_in_flight.map_or(0, MaxInFlight::get))),
            adaptive_concurrency: Some(pool.concurrency.is_adaptive),
            concurrency_min: Some(Number(pool.concurrency.adaptive_min)),
            queue_length: Some(Number(pool.concurrency.queue_length)),
            queue_timeout: Some(Time(pool.concurrency.queue_timeout)),
            fallback_pool: pool.fallback.pool.as_ref().map(ToString::to_string),
            fallback_status: answer.map(|answer| Number(answer.status().into())),
            fallback_content_type: answer.map(|answer| answer.content_type().to_owned()),
            fallback_body: answer.map(|answer| String::from_utf8_lossy(answer.body()).into_owned()),
            sources: Some(pool.sources.iter().map(ToString::to_string).collect()),
            ..affinity_keys(&pool.affinity, resilience_keys(&pool.resilience))
        }
    }
}

/// A duration, or its default.
pub(super) fn time_or(time: Option<Time>, default: Duration) -> Duration {
    time.map_or(default, |time| time.0)
}
