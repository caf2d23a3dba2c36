//! Settings of pools that say how they meet failure, on their way to the wire.

use lb_proto::v1 as pb;

use super::setting::{millis, set, set_millis};
use crate::args::{Concurrency, Ejection, Retries};

/// Lays settings over a pool's breaker, outlier detection, slow start and panic mode.
pub(super) fn edit_ejection(pool: &mut pb::Pool, settings: &Ejection) {
    let breaker = pool.breaker.get_or_insert_default();
    set_option(&mut breaker.consecutive_failures, settings.breaker_failures);
    set_option(&mut breaker.failure_ratio_percent, settings.breaker_ratio);
    set(&mut breaker.min_requests, settings.breaker_min_requests);
    set_millis(&mut breaker.window_ms, settings.breaker_window);
    set_millis(&mut breaker.open_ms, settings.breaker_open);
    set_millis(&mut breaker.max_open_ms, settings.breaker_max_open);
    set(&mut breaker.successes, settings.breaker_successes);
    let outlier = pool.outlier_detection.get_or_insert_default();
    set_option(&mut outlier.enabled, settings.outlier_detection);
    set_millis(&mut outlier.interval_ms, settings.outlier_interval);
    set_millis(&mut outlier.ejection_ms, settings.outlier_ejection);
    set_millis(&mut outlier.max_ejection_ms, settings.outlier_max_ejection);
    set_option(&mut outlier.success_rate, settings.outlier_success_rate);
    set_option(&mut outlier.failure_percent, settings.outlier_failure_percentage);
    set_option(&mut outlier.latency, settings.outlier_latency);
    set_option(&mut pool.slow_start_ms, settings.slow_start.map(millis));
    set_option(&mut pool.panic_threshold_percent, settings.panic_threshold);
}

/// Lays settings over a pool's retries.
pub(super) fn edit_retries(pool: &mut pb::Pool, settings: &Retries) {
    let retries = pool.retries.get_or_insert_default();
    set_option(&mut retries.retries, settings.retries);
    set_millis(&mut retries.try_timeout_ms, settings.try_timeout);
    set_option(&mut retries.budget_percent, settings.retry_budget);
    set_option(&mut retries.budget_floor, settings.retry_floor);
}

/// Lays settings over a pool's limit of requests in progress.
pub(super) fn edit_concurrency(pool: &mut pb::Pool, settings: &Concurrency) {
    set(&mut pool.max_in_flight, settings.max_in_flight);
    let adaptive = pool.adaptive_concurrency.get_or_insert_default();
    set(&mut adaptive.enabled, settings.adaptive_concurrency);
    set(&mut adaptive.min, settings.concurrency_min);
    set_option(&mut pool.queue_length, settings.queue_length);
    set_millis(&mut pool.queue_timeout_ms, settings.queue_timeout);
}

/// Replaces a field that may be absent if there is a setting for it.
fn set_option<T>(field: &mut Option<T>, setting: Option<T>) {
    if setting.is_some() {
        *field = setting;
    }
}
