//! A pool: a named set of backends under one policy.

use std::{fmt, ops::RangeInclusive, str::FromStr, sync::Arc, time::Duration};

use super::{
    Affinity, Concurrency, Fallback, Invalid, PoolName, ResiliencePolicy, Source, invalid::shorten,
};

/// A pool's policy. Its backends are separate objects that name it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Pool {
    /// Unique among pools.
    pub name: PoolName,
    /// How a backend is picked for each request.
    pub algorithm: Algorithm,
    /// How its backends are probed.
    pub health: HealthPolicy,
    /// For one connection attempt to a backend; default 3 s, as Caddy's: a slower
    /// failure leaves no time for another backend.
    pub connect_timeout: Duration,
    /// Until a response head, not counting the time in which the client is still
    /// sending; default 30 s.
    pub request_timeout: Duration,
    /// Its connections once a response has begun.
    pub connections: BackendConnections,
    /// How many requests may be in progress, and how long more wait.
    pub concurrency: Concurrency,
    /// How it meets failure.
    pub resilience: ResiliencePolicy,
    /// Whether a client stays with the backend that it was first sent to; default: no.
    pub affinity: Affinity,
    /// Where its requests go when it has no backend for them.
    pub fallback: Fallback,
    /// Where backends come from beside those added by hand; default none. Checked by
    /// [`Source::checked_list`].
    pub sources: Vec<Source>,
}

/// How long connections to backends are waited for and kept.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BackendConnections {
    /// Between two reads of a response's body; default 60 s, as nginx's.
    pub response_idle_timeout: Duration,
    /// Without a byte in either direction of an upgraded connection (WebSocket); default
    /// 5 min, as Envoy's stream idle timeout.
    pub tunnel_idle_timeout: Duration,
    /// How long a connection is kept between two requests when the backend does not say;
    /// default 4 s: below the 5 s after which Node.js closes, so that the race is rarely
    /// run.
    pub keep_alive_timeout: Duration,
    /// Idle connections kept for each backend by each worker; default 32, as Caddy's and
    /// nginx's.
    pub idle_max: u32,
    /// A connection is not used again after this long, plus or minus a tenth, so that
    /// load can move; default 1 h, as nginx's.
    pub age_max: Duration,
}

impl BackendConnections {
    /// What [`Self::idle_max`] may be; 0 keeps none.
    pub const IDLE: RangeInclusive<u32> = 0..=10_000;

    /// Durations must be 1 ms to 24 h, `idle_max` at most 10 000.
    pub fn checked(self) -> Result<Self, Invalid> {
        for (field, value) in [
            ("pool.response_idle_timeout", self.response_idle_timeout),
            ("pool.tunnel_idle_timeout", self.tunnel_idle_timeout),
            ("pool.keep_alive_timeout", self.keep_alive_timeout),
            ("pool.max_connection_age", self.age_max),
        ] {
            bounded(field, value)?;
        }
        if !Self::IDLE.contains(&self.idle_max) {
            return Err(Invalid::value(
                "pool.max_idle_connections",
                format!(
                    "pool.max_idle_connections {} is outside {} to {}",
                    self.idle_max,
                    Self::IDLE.start(),
                    Self::IDLE.end()
                ),
            ));
        }
        Ok(self)
    }
}

impl Default for BackendConnections {
    fn default() -> Self {
        Self {
            response_idle_timeout: Duration::from_secs(60),
            tunnel_idle_timeout: Duration::from_secs(300),
            keep_alive_timeout: Duration::from_secs(4),
            idle_max: 32,
            age_max: Duration::from_secs(3600),
        }
    }
}

impl Pool {
    /// The default of [`Self::connect_timeout`].
    pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
    /// The default of [`Concurrency::queue_timeout`]: that of a connection attempt, which a
    /// request that waits for a slot stands before.
    pub const QUEUE_TIMEOUT: Duration = Self::CONNECT_TIMEOUT;
    /// The default of [`Self::request_timeout`].
    pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
    /// What every timeout and interval of pools and listeners may be.
    pub const DURATIONS: RangeInclusive<Duration> =
        Duration::from_millis(1)..=Duration::from_secs(24 * 3600);

    /// A pool with every default.
    #[must_use]
    pub fn new(name: PoolName) -> Self {
        Self {
            name,
            algorithm: Algorithm::default(),
            health: HealthPolicy::default(),
            connect_timeout: Self::CONNECT_TIMEOUT,
            request_timeout: Self::REQUEST_TIMEOUT,
            connections: BackendConnections::default(),
            concurrency: Concurrency::default(),
            resilience: ResiliencePolicy::default(),
            affinity: Affinity::default(),
            fallback: Fallback::default(),
            sources: Vec::new(),
        }
    }

    /// Replaces the timeouts; each must be 1 ms to 24 h.
    pub fn with_timeouts(mut self, connect: Duration, request: Duration) -> Result<Self, Invalid> {
        self.connect_timeout = bounded("pool.connect_timeout", connect)?;
        self.request_timeout = bounded("pool.request_timeout", request)?;
        Ok(self)
    }
}

/// How a backend is picked.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Algorithm {
    /// In turn; weights count only as zero or not.
    #[default]
    RoundRobin,
    /// In turn, in proportion to the weights.
    WeightedRoundRobin,
    /// The same client address goes to the same backend (a Maglev table).
    IpHash,
    /// The fewest requests in flight per weight.
    LeastConnections(LeastConnections),
}

/// Parameters of [`Algorithm::LeastConnections`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LeastConnections {
    choices: u8,
    error_hold: Duration,
}

impl LeastConnections {
    /// Candidates compared in pools too large to be compared whole.
    pub const CHOICES: u8 = 5;
    /// How long an errored request keeps counting as in flight: it keeps a
    /// backend that fails fast from looking idle.
    pub const ERROR_HOLD: Duration = Duration::from_secs(1);
    /// What [`Self::choices`] may be.
    pub const CHOICES_RANGE: RangeInclusive<u32> = 2..=32;
    /// The longest [`Self::error_hold`].
    pub const ERROR_HOLD_MAX: Duration = Duration::from_secs(60);

    /// `choices` must be 2 to 32, `error_hold` at most a minute (0: off).
    pub fn new(choices: u32, error_hold: Duration) -> Result<Self, Invalid> {
        let choices = u8::try_from(choices)
            .ok()
            .filter(|_| Self::CHOICES_RANGE.contains(&choices))
            .ok_or_else(|| {
                Invalid::value("pool.choices", format!("choices {choices} is outside 2 to 32"))
            })?;
        if error_hold > Self::ERROR_HOLD_MAX {
            return Err(Invalid::value(
                "pool.error_hold",
                format!("error_hold {error_hold:?} is longer than a minute"),
            ));
        }
        Ok(Self { choices, error_hold })
    }

    /// Candidates compared in pools of more than 64 backends.
    #[must_use]
    pub fn choices(self) -> usize {
        usize::from(self.choices)
    }

    /// How long an errored request counts as in flight.
    #[must_use]
    pub fn error_hold(self) -> Duration {
        self.error_hold
    }
}

impl Default for LeastConnections {
    fn default() -> Self {
        Self { choices: Self::CHOICES, error_hold: Self::ERROR_HOLD }
    }
}

impl Algorithm {
    /// Every canonical name, in the order in which help texts list them.
    pub const NAMES: [&str; 4] =
        ["round_robin", "weighted_round_robin", "ip_hash", "least_connections"];

    /// The canonical name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::RoundRobin => Self::NAMES[0],
            Self::WeightedRoundRobin => Self::NAMES[1],
            Self::IpHash => Self::NAMES[2],
            Self::LeastConnections(_) => Self::NAMES[3],
        }
    }
}

impl FromStr for Algorithm {
    type Err = Invalid;

    /// Knows the canonical names, and what the peers call the same thing.
    fn from_str(name: &str) -> Result<Self, Invalid> {
        match name {
            "round_robin" => Ok(Self::RoundRobin),
            "weighted_round_robin" => Ok(Self::WeightedRoundRobin),
            "ip_hash" => Ok(Self::IpHash),
            "least_connections" | "least_request" | "least_conn" => {
                Ok(Self::LeastConnections(LeastConnections::default()))
            }
            _ => {
                let shown = shorten(name);
                Err(Invalid::unknown(
                    "pool.algorithm",
                    "unknown_algorithm",
                    format!("unknown algorithm {shown:?}; known are {}", Self::NAMES.join(", ")),
                ))
            }
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a probe is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum CheckProtocol {
    /// GET this path; 200 to 399 passes.
    Http {
        /// Begins with `/`.
        path: Arc<str>,
    },
    /// Connecting passes.
    Tcp,
    /// No probes: every backend counts as up.
    None,
}

/// How backends are probed. Sources of the numbers: HAProxy (rise 2, fall 3,
/// `fastinter`), NGINX Plus (5 s).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HealthPolicy {
    protocol: CheckProtocol,
    interval: Duration,
    edge_interval: Duration,
    timeout: Duration,
    rise: u32,
    fall: u32,
}

impl HealthPolicy {
    /// The default path of HTTP probes.
    pub const PATH: &str = "/health";
    /// Between probes of a backend whose verdict is settled.
    pub const INTERVAL: Duration = Duration::from_secs(5);
    /// Between probes while the verdict may be about to change.
    pub const EDGE_INTERVAL: Duration = Duration::from_secs(1);
    /// Of one probe.
    pub const TIMEOUT: Duration = Duration::from_secs(2);
    /// Passes in a row that bring a backend up.
    pub const RISE: u32 = 2;
    /// Failures in a row that take a backend out.
    pub const FALL: u32 = 3;
    /// What [`Self::rise`] and [`Self::fall`] may be.
    pub const THRESHOLDS: RangeInclusive<u32> = 1..=100;

    /// Checks all limits: durations 1 ms to 24 h, the timeout and the edge interval
    /// at most the interval (longer ones are cut to it), `rise` and `fall` 1 to 100,
    /// a path that begins with `/` and has no spaces.
    pub fn new(
        protocol: CheckProtocol,
        interval: Duration,
        edge_interval: Duration,
        timeout: Duration,
        rise: u32,
        fall: u32,
    ) -> Result<Self, Invalid> {
        if let CheckProtocol::Http { path } = &protocol {
            check_path(path)?;
        }
        for (field, value) in [("pool.rise", rise), ("pool.fall", fall)] {
            if !Self::THRESHOLDS.contains(&value) {
                return Err(Invalid::value(field, format!("{field} {value} is outside 1 to 100")));
            }
        }
        let interval = bounded("pool.health_interval", interval)?;
        Ok(Self {
            protocol,
            interval,
            edge_interval: bounded("pool.health_edge_interval", edge_interval)?.min(interval),
            timeout: bounded("pool.health_timeout", timeout)?.min(interval),
            rise,
            fall,
        })
    }

    /// What a probe is.
    #[must_use]
    pub fn protocol(&self) -> &CheckProtocol {
        &self.protocol
    }
    /// Between probes of a backend whose verdict is settled.
    #[must_use]
    pub fn interval(&self) -> Duration {
        self.interval
    }
    /// Between probes while the verdict may be about to change.
    #[must_use]
    pub fn edge_interval(&self) -> Duration {
        self.edge_interval
    }
    /// Of one probe; never more than the interval.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.timeout
    }
    /// Passes in a row that bring a backend up.
    #[must_use]
    pub fn rise(&self) -> u32 {
        self.rise
    }
    /// Failures in a row that take a backend out.
    #[must_use]
    pub fn fall(&self) -> u32 {
        self.fall
    }
}

impl Default for HealthPolicy {
    fn default() -> Self {
        Self {
            protocol: CheckProtocol::Http { path: Self::PATH.into() },
            interval: Self::INTERVAL,
            edge_interval: Self::EDGE_INTERVAL,
            timeout: Self::TIMEOUT,
            rise: Self::RISE,
            fall: Self::FALL,
        }
    }
}

fn check_path(path: &str) -> Result<(), Invalid> {
    let printable = path.bytes().all(|b| b.is_ascii_graphic());
    if !path.starts_with('/') || !printable || path.len() > 1024 {
        let shown = shorten(path);
        return Err(Invalid::value(
            "pool.health_path",
            format!(
                "health path {shown:?} must begin with '/' and hold at most 1024 visible ASCII characters"
            ),
        ));
    }
    Ok(())
}

pub(super) fn bounded(field: &'static str, value: Duration) -> Result<Duration, Invalid> {
    if !Pool::DURATIONS.contains(&value) {
        return Err(Invalid::value(field, format!("{field} {value:?} is outside 1ms to 24h")));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_reads_back() {
        for name in Algorithm::NAMES {
            assert_eq!(name.parse::<Algorithm>().unwrap().to_string(), name);
        }
    }

    #[test]
    fn an_unknown_algorithm_is_named_beside_the_known_ones() {
        let error = "rond_robin".parse::<Algorithm>().unwrap_err();
        assert_eq!(error.code, "unknown_algorithm");
        assert!(error.message.contains("rond_robin") && error.message.contains("ip_hash"));
    }

    #[test]
    fn a_probe_never_outlasts_its_interval() {
        let second = Duration::from_secs(1);
        let policy = HealthPolicy::new(CheckProtocol::Tcp, second, 9 * second, 9 * second, 1, 1);
        let policy = policy.unwrap();
        assert_eq!((policy.timeout(), policy.edge_interval()), (second, second));
    }
}
