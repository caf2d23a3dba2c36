//! How a pool meets failure, as it is declared: the keys of [`DeclaredPool`] that say so.

use std::time::Duration;

use lb_core::model::{BreakerPolicy, Invalid, OutlierPolicy, ResiliencePolicy, RetryPolicy};

use super::{
    pool::{DeclaredPool, time_or},
    unit::{Number, Time},
};

/// Reads the policy; what is left out gets its default.
pub(super) fn declared_resilience(declared: &DeclaredPool) -> Result<ResiliencePolicy, Invalid> {
    let default = ResiliencePolicy::default();
    ResiliencePolicy {
        breaker: breaker(declared, default.breaker)?,
        retry: retry(declared, default.retry)?,
        outlier: outlier(declared, default.outlier)?,
        slow_start: time_or(declared.slow_start, default.slow_start),
        panic_threshold_percent: percent_or(
            "pool.panic_threshold",
            declared.panic_threshold,
            default.panic_threshold_percent,
        )?,
    }
    .checked()
}

fn breaker(declared: &DeclaredPool, default: BreakerPolicy) -> Result<BreakerPolicy, Invalid> {
    Ok(BreakerPolicy {
        consecutive_failures: number_or(declared.breaker_failures, default.consecutive_failures),
        failure_ratio_percent: percent_or(
            "pool.breaker_ratio",
            declared.breaker_ratio,
            default.failure_ratio_percent,
        )?,
        min_requests: number_or(declared.breaker_min_requests, default.min_requests),
        window: time_or(declared.breaker_window, default.window),
        open: time_or(declared.breaker_open, default.open),
        open_max: time_or(declared.breaker_max_open, default.open_max),
        successes: number_or(declared.breaker_successes, default.successes),
    })
}

fn retry(declared: &DeclaredPool, default: RetryPolicy) -> Result<RetryPolicy, Invalid> {
    let try_timeout = time_or(declared.try_timeout, default.try_timeout.unwrap_or_default());
    Ok(RetryPolicy {
        retries: number_or(declared.retries, default.retries),
        try_timeout: (!try_timeout.is_zero()).then_some(try_timeout),
        budget_percent: percent_or(
            "pool.retry_budget",
            declared.retry_budget,
            default.budget_percent,
        )?,
        budget_floor: number_or(declared.retry_floor, default.budget_floor),
    })
}

fn outlier(declared: &DeclaredPool, default: OutlierPolicy) -> Result<OutlierPolicy, Invalid> {
    Ok(OutlierPolicy {
        enabled: declared.outlier_detection.unwrap_or(default.enabled),
        interval: time_or(declared.outlier_interval, default.interval),
        ejection: time_or(declared.outlier_ejection, default.ejection),
        ejection_max: time_or(declared.outlier_max_ejection, default.ejection_max),
        success_rate: declared.outlier_success_rate.unwrap_or(default.success_rate),
        failure_percentage: percent_or(
            "pool.outlier_failure_percentage",
            declared.outlier_failure_percentage,
            default.failure_percentage,
        )?,
        latency: declared.outlier_latency.unwrap_or(default.latency),
    })
}

/// The keys of a policy, and no others.
pub(super) fn resilience_keys(policy: &ResiliencePolicy) -> DeclaredPool {
    let ResiliencePolicy { breaker, retry, outlier, slow_start, panic_threshold_percent } = policy;
    let percent = |percent: u8| Some(Number(percent.into()));
    DeclaredPool {
        breaker_failures: Some(Number(breaker.consecutive_failures)),
        breaker_ratio: percent(breaker.failure_ratio_percent),
        breaker_min_requests: Some(Number(breaker.min_requests)),
        breaker_window: Some(Time(breaker.window)),
        breaker_open: Some(Time(breaker.open)),
        breaker_max_open: Some(Time(breaker.open_max)),
        breaker_successes: Some(Number(breaker.successes)),
        outlier_detection: Some(outlier.enabled),
        outlier_interval: Some(Time(outlier.interval)),
        outlier_ejection: Some(Time(outlier.ejection)),
        outlier_max_ejection: Some(Time(outlier.ejection_max)),
        outlier_success_rate: Some(outlier.success_rate),
        outlier_failure_percentage: percent(outlier.failure_percentage),
        outlier_latency: Some(outlier.latency),
        retries: Some(Number(retry.retries)),
        try_timeout: Some(Time(retry.try_timeout.unwrap_or(Duration::ZERO))),
        retry_budget: percent(retry.budget_percent),
        retry_floor: Some(Number(retry.budget_floor)),
        slow_start: Some(Time(*slow_start)),
        panic_threshold: percent(*panic_threshold_percent),
        ..DeclaredPool::default()
    }
}

fn number_or(number: Option<Number>, default: u32) -> u32 {
    number.map_or(default, |number| number.0)
}

fn percent_or(field: &'static str, number: Option<Number>, default: u8) -> Result<u8, Invalid> {
    number.map_or(Ok(default), |number| ResiliencePolicy::percentage(field, number.0))
}
