//! Settings of pools that say how they meet failure.

use std::time::Duration;

use clap::Args;
use lb_core::model;

use super::value;

/// When a backend is taken out for the requests that it had, and how it comes back.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Circuit breakers and outliers")]
pub(crate) struct Ejection {
    /// Failures in a row, counted over all proxies, that open a backend's breaker, so that it
    /// gets no requests for a while; 0: never for that [default: 5]
    #[arg(long, value_name = "N", value_parser = value::number(model::BreakerPolicy::CONSECUTIVE))]
    pub(crate) breaker_failures: Option<u32>,
    /// Failures among the requests of --breaker-window that open it; 0: never for that
    /// [default: 50]
    #[arg(long, value_name = "PERCENT", value_parser = value::number(0..=100))]
    pub(crate) breaker_ratio: Option<u32>,
    /// Requests within --breaker-window before the ratio counts [default: 20]
    #[arg(long, value_name = "N", value_parser = value::number(model::BreakerPolicy::MIN_REQUESTS))]
    pub(crate) breaker_min_requests: Option<u32>,
    /// What the ratio is taken over [default: 10s]
    #[arg(long, value_name = "DURATION", value_parser = value::setting)]
    pub(crate) breaker_window: Option<Duration>,
    /// How long a breaker is open at first; doubles with each opening that follows
    /// [default: 5s]
    #[arg(long, value_name = "DURATION", value_parser = value::setting)]
    pub(crate) breaker_open: Option<Duration>,
    /// The longest that it is open [default: 5m]
    #[arg(long, value_name = "DURATION", value_parser = value::setting)]
    pub(crate) breaker_max_open: Option<Duration>,
    /// Successful probe requests in a row that close it [default: 3]
    #[arg(long, value_name = "N", value_parser = value::number(model::BreakerPolicy::SUCCESSES))]
    pub(crate) breaker_successes: Option<u32>,
    /// Whether a backend that does much worse than the rest is taken out for a while
    /// [default: true]
    #[arg(long, value_name = "BOOL")]
    pub(crate) outlier_detection: Option<bool>,
    /// Between two looks for outliers [default: 10s]
    #[arg(long, value_name = "DURATION", value_parser = value::setting)]
    pub(crate) outlier_interval: Option<Duration>,
    /// How long an outlier is out at first [default: 30s]
    #[arg(long, value_name = "DURATION", value_parser = value::setting)]
    pub(crate) outlier_ejection: Option<Duration>,
    /// The longest that it is out [default: 5m]
    #[arg(long, value_name = "DURATION", value_parser = value::setting)]
    pub(crate) outlier_max_ejection: Option<Duration>,
    /// Whether a success rate far below the pool's makes an outlier [default: true]
    #[arg(long, value_name = "BOOL")]
    pub(crate) outlier_success_rate: Option<bool>,
    /// Failures among its requests that make an outlier; 0: off [default: 85]
    #[arg(long, value_name = "PERCENT", value_parser = value::number(0..=100))]
    pub(crate) outlier_failure_percentage: Option<u32>,
    /// Whether a latency three times the pool's median makes an outlier [default: false]
    #[arg(long, value_name = "BOOL")]
    pub(crate) outlier_latency: Option<bool>,
    /// While fewer backends than this are up, those that can at least be connected to are
    /// used, too, unless the fallback pool can serve; 0: never [default: 50]
    #[arg(long, value_name = "PERCENT", value_parser = value::number(0..=100))]
    pub(crate) panic_threshold: Option<u32>,
    /// How long a backend that joins takes to get its whole share; 0: off [default: 30s]
    #[arg(long, value_name = "DURATION",
          value_parser = value::duration_or_off(model::ResiliencePolicy::SLOW_START_MAX))]
    pub(crate) slow_start: Option<Duration>,
}

/// How many requests may be in progress at once, and what becomes of more.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Concurrency")]
pub(crate) struct Concurrency {
    /// Requests in progress in the pool, over all proxies; 0: no limit [default: 0]
    #[arg(long, value_name = "N", value_parser = value::number_or_off(*model::MaxInFlight::RANGE.end()))]
    pub(crate) max_in_flight: Option<u32>,
    /// Whether the number of requests in progress is found out by how long answers take, over
    /// all proxies; --max-in-flight is the most then [default: false]
    #[arg(long, value_name = "BOOL")]
    pub(crate) adaptive_concurrency: Option<bool>,
    /// The least that such a limit may be [default: 1]
    #[arg(long, value_name = "N", value_parser = value::number(model::MaxInFlight::RANGE))]
    pub(crate) concurrency_min: Option<u32>,
    /// Requests that may wait in each proxy until the pool or a backend has room; beyond: 503;
    /// 0: none waits [default: 100]
    #[arg(long, value_name = "N", value_parser = value::number(model::Concurrency::QUEUE_LENGTHS))]
    pub(crate) queue_length: Option<u32>,
    /// How long a request may wait for that; beyond: 503 [default: 3s]
    #[arg(long, value_name = "DURATION", value_parser = value::setting)]
    pub(crate) queue_timeout: Option<Duration>,
}

/// When a request that failed goes to another backend.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Retries")]
pub(crate) struct Retries {
    /// Attempts at other backends, after the first, of a request that may have reached one and
    /// can be repeated; 0: none [default: 1]
    #[arg(long, value_name = "N", value_parser = value::number(model::RetryPolicy::RETRIES))]
    pub(crate) retries: Option<u32>,
    /// For the response's head of one attempt, where another may follow; 0: as long as the
    /// request has [default: 0]
    #[arg(long, value_name = "DURATION", value_parser = value::setting_or_zero)]
    pub(crate) try_timeout: Option<Duration>,
    /// Retries among the requests of the last ten seconds; beyond: the failure is answered
    /// [default: 20]
    #[arg(long, value_name = "PERCENT", value_parser = value::number(0..=100))]
    pub(crate) retry_budget: Option<u32>,
    /// Retries per second that are allowed beside the budget, over all proxies [default: 10]
    #[arg(long, value_name = "N", value_parser = value::number(model::RetryPolicy::FLOOR))]
    pub(crate) retry_floor: Option<u32>,
}
