//! How a pool meets failure: its breaker, retries, outliers, slow start and panic mode.
//!
//! Only the numbers are here, checked once; `resilience` and `health` of this crate
//! decide by them. Every default is safe with two backends and ten requests a second.

use std::{ops::RangeInclusive, time::Duration};

use super::{Invalid, pool::bounded};

/// Everything about failure that a pool can be told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ResiliencePolicy {
    /// When a backend that fails gets no more requests.
    pub breaker: BreakerPolicy,
    /// When a request is sent once more.
    pub retry: RetryPolicy,
    /// When a backend that differs from the others gets no more requests.
    pub outlier: OutlierPolicy,
    /// How long a backend that joins is led up to its share; default 30 s, the least that
    /// AWS offers. 0 is off.
    pub slow_start: Duration,
    /// Below this share of usable backends, those that at least accept connections are
    /// used too; default 50, as Envoy's. 0 never does that.
    pub panic_threshold_percent: u8,
}

impl ResiliencePolicy {
    /// The default of [`Self::slow_start`].
    pub const SLOW_START: Duration = Duration::from_secs(30);
    /// The longest [`Self::slow_start`]: the most that AWS offers.
    pub const SLOW_START_MAX: Duration = Duration::from_secs(900);
    /// The default of [`Self::panic_threshold_percent`].
    pub const PANIC_THRESHOLD_PERCENT: u8 = 50;

    /// Reads a percentage: at most 100.
    pub fn percentage(field: &'static str, value: u32) -> Result<u8, Invalid> {
        let percent = u8::try_from(value).ok().filter(|percent| *percent <= 100);
        percent.ok_or_else(|| Invalid::value(field, format!("{field} {value} is outside 0 to 100")))
    }

    /// Checks every part; a slow start lasts at most 15 min, a threshold is at most 100.
    pub fn checked(self) -> Result<Self, Invalid> {
        self.breaker.checked()?;
        self.retry.checked()?;
        self.outlier.checked()?;
        if self.slow_start > Self::SLOW_START_MAX {
            return Err(Invalid::value(
                "pool.slow_start",
                format!(
                    "pool.slow_start {:?} is longer than {:?}",
                    self.slow_start,
                    Self::SLOW_START_MAX
                ),
            ));
        }
        percent("pool.panic_threshold", self.panic_threshold_percent)?;
        Ok(self)
    }
}

impl Default for ResiliencePolicy {
    fn default() -> Self {
        Self {
            breaker: BreakerPolicy::default(),
            retry: RetryPolicy::default(),
            outlier: OutlierPolicy::default(),
            slow_start: Self::SLOW_START,
            panic_threshold_percent: Self::PANIC_THRESHOLD_PERCENT,
        }
    }
}

/// When the breaker of a backend opens, and for how long.
///
/// A failure is a connect error, a reset, a timeout or a status of 502, 503 or 504; a
/// plain 500 counts for the ratio only. What clients do wrong or give up counts never.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BreakerPolicy {
    /// Failures in a row, over the whole fleet, that open it; default 5, as Envoy's. 0 is
    /// off.
    pub consecutive_failures: u32,
    /// The share of failures that opens it, in percent; default 50. 0 is off.
    pub failure_ratio_percent: u8,
    /// Requests in [`Self::window`] without which the ratio says nothing; default 20, as
    /// in Traefik's example.
    pub min_requests: u32,
    /// What the ratio is taken over; default 10 s.
    pub window: Duration,
    /// How long it stays open the first time; it doubles with each further time in a row.
    /// Default 5 s.
    pub open: Duration,
    /// The longest it stays open, before jitter; default 300 s, as Envoy's and APISIX's.
    pub open_max: Duration,
    /// Successes, one at a time, that close it; default 3, as APISIX's.
    pub successes: u32,
}

impl BreakerPolicy {
    /// What [`Self::consecutive_failures`] may be.
    pub const CONSECUTIVE: RangeInclusive<u32> = 0..=10_000;
    /// What [`Self::min_requests`] may be.
    pub const MIN_REQUESTS: RangeInclusive<u32> = 1..=1_000_000;
    /// What [`Self::window`] may be: reports come several times a second.
    pub const WINDOW: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(300);
    /// What [`Self::successes`] may be.
    pub const SUCCESSES: RangeInclusive<u32> = 1..=100;

    /// Whether nothing ever opens it.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.consecutive_failures == 0 && self.failure_ratio_percent == 0
    }

    /// Checks every limit; `open` must not be longer than `open_max`.
    pub fn checked(self) -> Result<Self, Invalid> {
        within("pool.breaker_failures", self.consecutive_failures, Self::CONSECUTIVE)?;
        percent("pool.breaker_ratio", self.failure_ratio_percent)?;
        within("pool.breaker_min_requests", self.min_requests, Self::MIN_REQUESTS)?;
        if !Self::WINDOW.contains(&self.window) {
            return Err(Invalid::value(
                "pool.breaker_window",
                format!("pool.breaker_window {:?} is outside 1s to 5min", self.window),
            ));
        }
        bounded("pool.breaker_max_open", self.open_max)?;
        bounded("pool.breaker_open", self.open)?;
        at_most("pool.breaker_open", self.open, "pool.breaker_max_open", self.open_max)?;
        within("pool.breaker_successes", self.successes, Self::SUCCESSES)?;
        Ok(self)
    }
}

impl Default for BreakerPolicy {
    fn default() -> Self {
        Self {
            consecutive_failures: 5,
            failure_ratio_percent: 50,
            min_requests: 20,
            window: Duration::from_secs(10),
            open: Duration::from_secs(5),
            open_max: Duration::from_secs(300),
            successes: 3,
        }
    }
}

/// How often, and out of which budget, a request is sent once more.
///
/// What may be sent again at all is not a matter of policy:
/// the rules of `resilience::retry` decide it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RetryPolicy {
    /// Attempts after the first; default 1, as Linkerd's and Envoy's. 0 is off.
    pub retries: u32,
    /// Until the head of one attempt's response; default none: the request's own timeout
    /// is all there is.
    pub try_timeout: Option<Duration>,
    /// Retries as a share of the requests of the last 10 s, over the fleet; default 20, as
    /// Linkerd's and Envoy's.
    pub budget_percent: u8,
    /// Retries a second that are allowed however few requests there are, over the fleet:
    /// proxies share them. Default 10, as Linkerd's.
    pub budget_floor: u32,
}

impl RetryPolicy {
    /// What [`Self::retries`] may be.
    pub const RETRIES: RangeInclusive<u32> = 0..=10;
    /// What [`Self::budget_floor`] may be.
    pub const FLOOR: RangeInclusive<u32> = 0..=100_000;

    /// Checks every limit.
    pub fn checked(self) -> Result<Self, Invalid> {
        within("pool.retries", self.retries, Self::RETRIES)?;
        if let Some(timeout) = self.try_timeout {
            bounded("pool.try_timeout", timeout)?;
        }
        percent("pool.retry_budget", self.budget_percent)?;
        within("pool.retry_floor", self.budget_floor, Self::FLOOR)?;
        Ok(self)
    }
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { retries: 1, try_timeout: None, budget_percent: 20, budget_floor: 10 }
    }
}

/// Which backends are taken out because they differ from the rest of their pool.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct OutlierPolicy {
    /// Default true.
    pub enabled: bool,
    /// Between two looks at the pool, each at what was seen since the last; default 10 s,
    /// as Envoy's.
    pub interval: Duration,
    /// How long a backend stays out, times how often it was out in a row; default 30 s,
    /// as Envoy's.
    pub ejection: Duration,
    /// The longest it stays out; default 300 s, as Envoy's.
    pub ejection_max: Duration,
    /// Whether a success rate 1.9 standard deviations below the mean is an outlier;
    /// default true. Needs 5 backends with 100 requests each.
    pub success_rate: bool,
    /// Share of failures that is an outlier whatever the others do, in percent; default
    /// 85, as Envoy's. Needs 3 backends with 50 requests each. 0 is off.
    pub failure_percentage: u8,
    /// Whether a mean latency of more than three times the pool's lower median is an
    /// outlier; default false: a slow backend still serves, and where requests differ in
    /// kind its latency may be its clients' choice. Needs 5 backends with 100 requests
    /// each.
    pub latency: bool,
}

impl OutlierPolicy {
    /// Checks every limit; `ejection` must not be longer than `ejection_max`.
    pub fn checked(self) -> Result<Self, Invalid> {
        bounded("pool.outlier_interval", self.interval)?;
        bounded("pool.outlier_max_ejection", self.ejection_max)?;
        bounded("pool.outlier_ejection", self.ejection)?;
        at_most(
            "pool.outlier_ejection",
            self.ejection,
            "pool.outlier_max_ejection",
            self.ejection_max,
        )?;
        percent("pool.outlier_failure_percentage", self.failure_percentage)?;
        Ok(self)
    }
}

impl Default for OutlierPolicy {
    fn default() -> Self {
        Self {
            enabled: true,
            interval: Duration::from_secs(10),
            ejection: Duration::from_secs(30),
            ejection_max: Duration::from_secs(300),
            success_rate: true,
            failure_percentage: 85,
            latency: false,
        }
    }
}

fn percent(field: &'static str, value: u8) -> Result<(), Invalid> {
    ResiliencePolicy::percentage(field, value.into()).map(drop)
}

fn within(field: &'static str, value: u32, range: RangeInclusive<u32>) -> Result<(), Invalid> {
    if range.contains(&value) {
        return Ok(());
    }
    let (least, most) = range.into_inner();
    Err(Invalid::value(field, format!("{field} {value} is outside {least} to {most}")))
}

fn at_most(
    field: &'static str,
    value: Duration,
    limit_field: &'static str,
    limit: Duration,
) -> Result<(), Invalid> {
    if value <= limit {
        return Ok(());
    }
    let message = format!("{field} {value:?} is longer than {limit_field} {limit:?}");
    Err(Invalid::value(field, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(policy: ResiliencePolicy) -> Invalid {
        policy.checked().unwrap_err()
    }

    #[test]
    fn the_defaults_are_valid() {
        let defaults = ResiliencePolicy::default();
        assert_eq!(defaults.checked(), Ok(defaults));
    }

    #[test]
    fn what_is_out_of_bounds_is_refused_by_name() {
        let good = ResiliencePolicy::default;
        let hours = Duration::from_secs(25 * 3600);
        let with_breaker = |change: fn(&mut BreakerPolicy)| {
            let mut policy = good();
            change(&mut policy.breaker);
            policy
        };
        let cases = [
            (with_breaker(|p| p.consecutive_failures = 10_001), "pool.breaker_failures"),
            (with_breaker(|p| p.failure_ratio_percent = 101), "pool.breaker_ratio"),
            (with_breaker(|p| p.min_requests = 0), "pool.breaker_min_requests"),
            (with_breaker(|p| p.window = Duration::ZERO), "pool.breaker_window"),
            (with_breaker(|p| p.open = Duration::ZERO), "pool.breaker_open"),
            (with_breaker(|p| p.open = 2 * p.open_max), "pool.breaker_open"),
            (with_breaker(|p| p.open_max = Duration::ZERO), "pool.breaker_max_open"),
            (with_breaker(|p| p.successes = 0), "pool.breaker_successes"),
            (
                ResiliencePolicy { retry: RetryPolicy { retries: 11, ..good().retry }, ..good() },
                "pool.retries",
            ),
            (
                ResiliencePolicy {
                    retry: RetryPolicy { try_timeout: Some(Duration::ZERO), ..good().retry },
                    ..good()
                },
                "pool.try_timeout",
            ),
            (
                ResiliencePolicy {
                    retry: RetryPolicy { budget_percent: 101, ..good().retry },
                    ..good()
                },
                "pool.retry_budget",
            ),
            (
                ResiliencePolicy {
                    retry: RetryPolicy { budget_floor: 100_001, ..good().retry },
                    ..good()
                },
                "pool.retry_floor",
            ),
            (
                ResiliencePolicy {
                    outlier: OutlierPolicy { interval: hours, ..good().outlier },
                    ..good()
                },
                "pool.outlier_interval",
            ),
            (
                ResiliencePolicy {
                    outlier: OutlierPolicy {
                        ejection: 2 * good().outlier.ejection_max,
                        ..good().outlier
                    },
                    ..good()
                },
                "pool.outlier_ejection",
            ),
            (
                ResiliencePolicy {
                    outlier: OutlierPolicy { failure_percentage: 101, ..good().outlier },
                    ..good()
                },
                "pool.outlier_failure_percentage",
            ),
            (ResiliencePolicy { slow_start: hours, ..good() }, "pool.slow_start"),
            (ResiliencePolicy { panic_threshold_percent: 101, ..good() }, "pool.panic_threshold"),
        ];
        for (policy, field) in cases {
            let invalid = refused(policy);
            assert_eq!(invalid.field, field, "{invalid}");
            assert!(invalid.message.contains(field), "{invalid}");
        }
    }
}
