//! How a pool meets failure.

use std::time::Duration;

use lb_core::model::{BreakerPolicy, Invalid, OutlierPolicy, ResiliencePolicy, RetryPolicy};

use super::{duration_or, millis, number_or};
use crate::v1 as pb;

/// Reads the policy of a pool.
pub(super) fn resilience_from_wire(wire: &pb::Pool) -> Result<ResiliencePolicy, Invalid> {
    let panic_threshold_percent = percent_or(
        "pool.panic_threshold",
        wire.panic_threshold_percent,
        ResiliencePolicy::PANIC_THRESHOLD_PERCENT,
    )?;
    ResiliencePolicy {
        breaker: breaker(&wire.breaker.unwrap_or_default())?,
        retry: retry(&wire.retries.unwrap_or_default())?,
        outlier: outlier(&wire.outlier_detection.unwrap_or_default())?,
        slow_start: wire
            .slow_start_ms
            .map_or(ResiliencePolicy::SLOW_START, |ms| Duration::from_millis(ms.into())),
        panic_threshold_percent,
    }
    .checked()
}

/// Writes it, with every value.
pub(super) fn resilience_to_wire(policy: &ResiliencePolicy, wire: &mut pb::Pool) {
    wire.breaker = Some((&policy.breaker).into());
    wire.retries = Some((&policy.retry).into());
    wire.outlier_detection = Some((&policy.outlier).into());
    wire.slow_start_ms = Some(millis_or_none(policy.slow_start));
    wire.panic_threshold_percent = Some(policy.panic_threshold_percent.into());
}

fn breaker(wire: &pb::Breaker) -> Result<BreakerPolicy, Invalid> {
    let default = BreakerPolicy::default();
    Ok(BreakerPolicy {
        consecutive_failures: wire.consecutive_failures.unwrap_or(default.consecutive_failures),
        failure_ratio_percent: percent_or(
            "pool.breaker_ratio",
            wire.failure_ratio_percent,
            default.failure_ratio_percent,
        )?,
        min_requests: number_or(wire.min_requests, default.min_requests),
        window: duration_or(wire.window_ms, default.window),
        open: duration_or(wire.open_ms, default.open),
        open_max: duration_or(wire.max_open_ms, default.open_max),
        successes: number_or(wire.successes, default.successes),
    })
}

impl From<&BreakerPolicy> for pb::Breaker {
    fn from(policy: &BreakerPolicy) -> Self {
        Self {
            consecutive_failures: Some(policy.consecutive_failures),
            failure_ratio_percent: Some(policy.failure_ratio_percent.into()),
            min_requests: policy.min_requests,
            window_ms: millis(policy.window),
            open_ms: millis(policy.open),
            max_open_ms: millis(policy.open_max),
            successes: policy.successes,
        }
    }
}

fn retry(wire: &pb::Retries) -> Result<RetryPolicy, Invalid> {
    let default = RetryPolicy::default();
    let try_timeout =
        (wire.try_timeout_ms > 0).then(|| Duration::from_millis(wire.try_timeout_ms.into()));
    Ok(RetryPolicy {
        retries: wire.retries.unwrap_or(default.retries),
        try_timeout,
        budget_percent: percent_or(
            "pool.retry_budget",
            wire.budget_percent,
            default.budget_percent,
        )?,
        budget_floor: wire.budget_floor.unwrap_or(default.budget_floor),
    })
}

impl From<&RetryPolicy> for pb::Retries {
    fn from(policy: &RetryPolicy) -> Self {
        Self {
            retries: Some(policy.retries),
            try_timeout_ms: policy.try_timeout.map_or(0, millis),
            budget_percent: Some(policy.budget_percent.into()),
            budget_floor: Some(policy.budget_floor),
        }
    }
}

fn outlier(wire: &pb::OutlierDetection) -> Result<OutlierPolicy, Invalid> {
    let default = OutlierPolicy::default();
    Ok(OutlierPolicy {
        enabled: wire.enabled.unwrap_or(default.enabled),
        interval: duration_or(wire.interval_ms, default.interval),
        ejection: duration_or(wire.ejection_ms, default.ejection),
        ejection_max: duration_or(wire.max_ejection_ms, default.ejection_max),
        success_rate: wire.success_rate.unwrap_or(default.success_rate),
        failure_percentage: percent_or(
            "pool.outlier_failure_percentage",
            wire.failure_percent,
            default.failure_percentage,
        )?,
        latency: wire.latency.unwrap_or(default.latency),
    })
}

impl From<&OutlierPolicy> for pb::OutlierDetection {
    fn from(policy: &OutlierPolicy) -> Self {
        Self {
            enabled: Some(policy.enabled),
            interval_ms: millis(policy.interval),
            ejection_ms: millis(policy.ejection),
            max_ejection_ms: millis(policy.ejection_max),
            success_rate: Some(policy.success_rate),
            failure_percent: Some(policy.failure_percentage.into()),
            latency: Some(policy.latency),
        }
    }
}

fn percent_or(field: &'static str, wire: Option<u32>, default: u8) -> Result<u8, Invalid> {
    wire.map_or(Ok(default), |percent| ResiliencePolicy::percentage(field, percent))
}

/// Here, zero is a value of its own.
fn millis_or_none(duration: Duration) -> u32 {
    if duration.is_zero() { 0 } else { millis(duration) }
}
